//! Annotations of GitHub Actions: lines that it shows beside the line of the scenario that did not hold.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::{Report, seconds};
use crate::scenario::Scenario;

/// Annotations at most: of more than ten errors of a step GitHub shows none. One line says how many are left out.
pub const ANNOTATION_COUNT_MAX: usize = 9;

/// Collects failures, each expectation of a scenario once whatever the number of seeds.
#[derive(Debug, Default)]
pub struct Annotations {
    /// By file, line, column and name.
    kept: BTreeMap<(String, u32, u32, String), Kept>,
}

#[derive(Debug)]
struct Kept {
    scenario: String,
    /// Runs in which it failed.
    runs: u64,
    /// Of the first of them: what is said of it, and how to see it again, if it can be.
    says: String,
    replay: Option<String>,
}

impl Annotations {
    /// A run of `scenario`, which was named by `file`; `is_file` whether that is one and not a committed scenario's name.
    pub fn result(&mut self, file: &str, is_file: bool, scenario: &Scenario, report: &Report) {
        if report.pass {
            return;
        }
        let mut add = |name: &str, expected: &str, seen: &str, at_ns| {
            let expect = scenario.expects.iter().find(|e| e.name == name);
            let written = expect.map(|e| e.written).unwrap_or_default();
            let path = match &scenario.off {
                _ if !is_file => String::new(),
                Some(off) if written.in_base => {
                    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
                    folder.join(&off.base).display().to_string()
                }
                _ => file.to_owned(),
            };
            let says = says(expected, seen, at_ns);
            let replay = Some(report.replay(file));
            let place = (written.line.max(1), written.column.max(1));
            self.keep(path, place, &report.scenario, name, says, replay);
        };
        for failure in &report.failures {
            add(&failure.name, &failure.expected, &failure.seen, failure.at_ns);
        }
        if report.failures.is_empty() {
            let expected = "what the counter-proof declares fails";
            add(
                "no-proof",
                expected,
                "nothing failed, though the mechanism is off",
                0,
            );
        }
    }

    /// A run that gave no result, as it panicked or went beyond a bound (`kind` says which): at the top of its file.
    pub fn error(&mut self, file: &str, is_file: bool, scenario: &str, kind: &str, why: &str, replay: &str) {
        let path = if is_file { file } else { "" };
        let replay = Some(replay.to_owned());
        self.keep(path.to_owned(), (1, 1), scenario, kind, why.to_owned(), replay);
    }

    /// What is wrong in a file that is no scenario, and where, from 1.
    pub fn refused(&mut self, file: &str, is_file: bool, place: (u32, u32), why: &str) {
        let path = if is_file { file } else { "" };
        // Two mistakes may stand at one place.
        let title = format!("refused: {}", why.lines().next().unwrap_or_default());
        self.keep(path.to_owned(), place, file, &title, why.to_owned(), None);
    }

    /// A run of what a seed drew, which stands in no file. Failures with one `signature` are one.
    pub fn drawn(&mut self, report: &Report, signature: &str, replay: &str) {
        let seen = report
            .failures
            .iter()
            .find(|f| crate::swarm::signature(f) == signature);
        let says = seen.map_or_else(String::new, |f| says(&f.expected, &f.seen, f.at_ns));
        let replay = Some(replay.to_owned());
        self.keep(
            String::new(),
            (1, 1),
            super::junit::SWARM,
            signature,
            says,
            replay,
        );
    }

    fn keep(
        &mut self,
        path: String,
        (line, column): (u32, u32),
        scenario: &str,
        name: &str,
        says: String,
        replay: Option<String>,
    ) {
        let kept = self.kept.entry((path, line, column, name.to_owned()));
        let kept = kept.or_insert_with(|| Kept {
            scenario: scenario.to_owned(),
            runs: 0,
            says,
            replay,
        });
        kept.runs += 1;
    }

    /// The lines, by file and line.
    pub fn github(&self) -> String {
        let mut out = String::new();
        for ((file, line, column, name), kept) in self.kept.iter().take(ANNOTATION_COUNT_MAX) {
            let place = match file.as_str() {
                "" => String::new(),
                file => format!("file={},line={line},col={column},", property(file)),
            };
            let title = property(&format!("{}: {name}", kept.scenario));
            let more = match kept.runs {
                1 => String::new(),
                n => format!("\nin {n} runs; this is the first"),
            };
            let replay = kept.replay.iter().map(|command| format!("\nreplay: {command}"));
            let message = format!("{}{more}{}", kept.says, replay.collect::<String>());
            let _ = writeln!(out, "::error {place}title={title}::{}", data(&message));
        }
        let left = self.kept.len().saturating_sub(ANNOTATION_COUNT_MAX);
        if left > 0 {
            let _ = writeln!(
                out,
                "::error title=evenkeel sim::and {left} more that did not hold"
            );
        }
        out
    }
}

fn says(expected: &str, seen: &str, at_ns: u64) -> String {
    let at = seconds(at_ns);
    format!("expected: {expected}\nseen: {seen}\nat: {at}")
}

/// GitHub's escapes of a message (actions/toolkit, packages/core/src/command.ts).
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// And of a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::Failure;

    fn failed(scenario: &Scenario, seed: u64, names: &[&str]) -> Report {
        let mut report = Report::new(scenario, seed, &Default::default());
        report.failures = names
            .iter()
            .map(|name| Failure {
                name: (*name).to_owned(),
                expected: (*name).to_owned(),
                seen: "50%,\nand: more".to_owned(),
                at_ns: 2,
                unmeasured: false,
            })
            .collect();
        report
    }

    #[test]
    fn an_annotation_stands_where_the_expectation_is_written() {
        let text = crate::run::tests::ONE_NODE;
        let scenario = crate::language::parse("x", text, &|_| Err(String::new())).expect("good");
        let mut annotations = Annotations::default();
        let names = ["stall <= 100ms", "checksums"];
        for seed in [4, 5] {
            annotations.result("a,b:c.toml", true, &scenario, &failed(&scenario, seed, &names));
        }
        let line = text
            .lines()
            .position(|l| l.contains("stall <= 100ms"))
            .expect("there")
            + 1;
        let told = annotations.github();
        let lines: Vec<_> = told.lines().collect();
        let at = |line: usize, column: usize| format!("file=a%2Cb%3Ac.toml,line={line},col={column},");
        // An oracle is written nowhere: at the top.
        assert!(
            lines[0].starts_with(&format!("::error {}title=one-node%3A checksums::", at(1, 1))),
            "{told}"
        );
        assert!(
            lines[1].starts_with(&format!(
                "::error {}title=one-node%3A stall <= 100ms::",
                at(line, 8)
            )),
            "{told}"
        );
        let rest = "seen: 50%25,%0Aand: more%0Aat: 0.000000002 s%0Ain 2 runs; this is the first%0Areplay: evenkeel sim run a,b:c.toml --seed 4";
        assert!(lines[1].ends_with(rest), "{told}");
        assert_eq!(lines.len(), 2);
        // A committed scenario that is no file here has no place.
        let mut annotations = Annotations::default();
        annotations.result("x", false, &scenario, &failed(&scenario, 1, &["checksums"]));
        assert!(annotations.github().starts_with("::error title=one-node"));
    }

    #[test]
    fn what_gave_no_result_and_what_is_refused_is_annotated_with_what_to_do() {
        let mut annotations = Annotations::default();
        for seed in [4, 5] {
            let replay = format!("evenkeel sim run a.toml --seed {seed}");
            annotations.error(
                "a.toml",
                true,
                "one-node",
                "exceeded",
                "more than 9 events",
                &replay,
            );
        }
        annotations.refused("b.toml", true, (3, 8), "\"101%\" is no share\nwrite less");
        annotations.refused("-", false, (3, 8), "no");
        let scenario = crate::language::parse("x", crate::run::tests::ONE_NODE, &|_| Err(String::new()));
        let scenario = scenario.expect("good");
        for seed in [6, 7] {
            let report = failed(&scenario, seed, &["checksums"]);
            let signature = crate::swarm::first_signature(&report).expect("it failed");
            annotations.drawn(&report, &signature, &format!("evenkeel sim swarm --seeds {seed}"));
        }
        let told = annotations.github();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(
            lines[2],
            "::error file=a.toml,line=1,col=1,title=one-node%3A exceeded::more than 9 events%0Ain 2 runs; this is the first%0Areplay: evenkeel sim run a.toml --seed 4"
        );
        assert_eq!(
            lines[3],
            "::error file=b.toml,line=3,col=8,title=b.toml%3A refused%3A \"101%25\" is no share::\"101%25\" is no share%0Awrite less"
        );
        assert!(lines[0].starts_with("::error title=swarm%3A checksums"), "{told}");
        assert!(
            lines[0].contains("in 2 runs") && lines[0].ends_with("replay: evenkeel sim swarm --seeds 6"),
            "{told}"
        );
        assert_eq!(lines[1], "::error title=-%3A refused%3A no::no");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn what_stands_in_the_base_is_annotated_there_and_more_than_github_shows_is_counted() {
        let proof = "name = \"x.off\"\ndescription = \"d\"\nbase = \"b.toml\"\n[off]\nmechanism = \"replication\"\nfails = [\"broken == 0\"]\n[[expect]]\nthat = \"established >= 1\"\n";
        let base = |_: &str| Ok(crate::run::tests::TWO_NODES.to_owned());
        let scenario = crate::language::parse("x.off", proof, &base).expect("good");
        let mut annotations = Annotations::default();
        let names = ["broken == 0", "established >= 1"];
        annotations.result("dir/x.off.toml", true, &scenario, &failed(&scenario, 1, &names));
        let told = annotations.github();
        assert!(told.contains("::error file=dir/b.toml,line="), "{told}");
        assert!(
            told.contains("::error file=dir/x.off.toml,line=8,col=8,"),
            "{told}"
        );
        let many: Vec<String> = (0..30).map(|n| format!("n{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        annotations.result("x", true, &scenario, &failed(&scenario, 1, &many));
        let told = annotations.github();
        assert_eq!(told.lines().count(), ANNOTATION_COUNT_MAX + 1);
        assert!(told.ends_with("::and 23 more that did not hold\n"), "{told}");
    }
}
