//! Scenarios to begin with: full of comments, passing as they stand, and saying what to change to see them fail.

/// A scenario to begin with.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// What it is asked for by.
    pub name: &'static str,
    text: &'static str,
}

/// All of them, the usual one first.
pub const TEMPLATES: &[Template] = &[
    Template {
        name: "active-backup",
        text: include_str!("../templates/active-backup.toml"),
    },
    Template {
        name: "single",
        text: include_str!("../templates/single.toml"),
    },
];

impl Template {
    /// Its text, for a scenario of this name.
    pub fn text(&self, name: &str) -> String {
        self.text.replace("NAME", name)
    }

    /// What happens in it.
    pub fn says(&self) -> &'static str {
        let line = self.text.lines().find_map(|l| l.strip_prefix("description = "));
        line.map_or("", |l| l.trim_matches('"'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, run};

    /// Template, what is written for what, and what fails then.
    type Change = (
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
    );
    /// What `# To see the scenario fail, write ..` asks for: the line that is changed, and what fails then.
    const CHANGES: &[Change] = &[
        (
            "active-backup",
            &[("replicate = \"synack\"", "replicate = \"off\"")],
            "broken == 0 of long",
        ),
        (
            "active-backup",
            &[("give_up = \"3s\"", "give_up = \"200ms\"")],
            "broken == 0 of long",
        ),
        (
            "active-backup",
            &[("detection <= 600ms", "detection <= 100ms")],
            "it is noticed soon",
        ),
        (
            "single",
            &[
                ("loss = \"10%\"", "loss = \"100%\""),
                ("for = \"1s\"", "for = \"6s\""),
            ],
            "replies come in time",
        ),
    ];

    fn outcome(text: &str, seed: u64) -> crate::Report {
        let scenario = crate::parse("x.toml", text, &|_| Err(String::new()));
        let scenario = scenario.unwrap_or_else(|e| panic!("{:?}", e.problems()));
        run(&scenario, seed, &Options::default(), &mut || true).expect("it runs")
    }

    #[test]
    fn each_passes_as_it_stands_and_fails_as_its_comments_say() {
        for template in TEMPLATES {
            assert!(template.says().ends_with('.'), "{}", template.name);
            let text = template.text("a-name");
            assert!(text.contains("name = \"a-name\"") && !text.contains("NAME"));
            for seed in [0, 1] {
                let report = outcome(&text, seed);
                assert!(report.pass, "{}: {}", template.name, report.text("x"));
            }
            let named = text.matches("To see the scenario fail").count();
            let changes = CHANGES.iter().filter(|c| c.0 == template.name);
            assert_eq!(changes.clone().count(), named, "{}", template.name);
            for (_, lines, fails) in changes {
                let mut changed = text.clone();
                for (line, other) in *lines {
                    assert!(changed.contains(line), "{line}");
                    changed = changed.replace(line, other);
                }
                let report = outcome(&changed, 0);
                assert!(
                    report.failures.iter().any(|f| f.name == *fails),
                    "{lines:?}: {}",
                    report.text("x")
                );
            }
        }
    }
}
