//! Results as JUnit's XML, which most CI systems read. There is no standard of it; this is what Jenkins's schema allows
//! and others understand: a suite for each scenario, a case for each seed, one `failure` in a case that failed.

use std::fmt::Write;
use std::time::Duration;

use super::{Outcome, Report, seconds};
use crate::expect::Failure;

/// Cases of a suite whose failure is told at length, at most; of further ones only the name.
pub const FAILURES_TOLD_MAX: usize = 200;

/// Collects results; [`JUnit::xml`] writes them. A case that passed costs some bytes, one that failed its text.
#[derive(Debug, Default)]
pub struct JUnit {
    suites: Vec<Suite>,
}

#[derive(Debug)]
struct Suite {
    /// The scenario's name.
    name: String,
    /// How its file was named.
    file: String,
    cases: Vec<Case>,
    told: usize,
}

#[derive(Debug)]
struct Case {
    seed: Option<u64>,
    took: Duration,
    ended: Ended,
}

#[derive(Debug)]
enum Ended {
    Passed,
    /// Name of what failed, a line, and all of it.
    Failed(String, String, String),
    Error(String),
    Skipped(String),
}

impl JUnit {
    fn suite(&mut self, name: &str, file: &str) -> &mut Suite {
        let at = self.suites.iter().position(|s| s.name == name && s.file == file);
        let at = at.unwrap_or_else(|| {
            self.suites.push(Suite {
                name: name.to_owned(),
                file: file.to_owned(),
                cases: Vec::new(),
                told: 0,
            });
            self.suites.len() - 1
        });
        &mut self.suites[at]
    }

    /// A run that gave a result. `file` is how the scenario was named, `took` how long it ran.
    pub fn result(&mut self, file: &str, report: &Report, took: Duration) {
        let suite = self.suite(&report.scenario, file);
        let ended = if report.pass {
            Ended::Passed
        } else {
            suite.told += 1;
            let (name, line) = headline(report);
            let all = if suite.told <= FAILURES_TOLD_MAX {
                told(file, report)
            } else {
                format!("replay: {}\n", report.replay(file))
            };
            Ended::Failed(name, line, all)
        };
        suite.cases.push(Case {
            seed: Some(report.seed),
            took,
            ended,
        });
    }

    /// A run that gave none: it was interrupted, or could not go on.
    pub fn error(&mut self, file: &str, scenario: &str, seed: u64, why: &str) {
        self.suite(scenario, file).cases.push(Case {
            seed: Some(seed),
            took: Duration::ZERO,
            ended: Ended::Error(why.to_owned()),
        });
    }

    /// A scenario that is not run.
    pub fn skipped(&mut self, file: &str, scenario: &str, why: &str) {
        self.suite(scenario, file).cases.push(Case {
            seed: None,
            took: Duration::ZERO,
            ended: Ended::Skipped(why.to_owned()),
        });
    }

    /// The document.
    pub fn xml(&self) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let all = || self.suites.iter().flat_map(|s| &s.cases);
        let _ = writeln!(out, "<testsuites name=\"evenkeel sim\"{}>", totals(all()));
        for suite in &self.suites {
            let counts = totals(suite.cases.iter());
            let _ = writeln!(out, "  <testsuite name=\"{}\"{counts}>", escaped(&suite.name));
            for case in &suite.cases {
                write_case(&mut out, suite, case);
            }
            out += "  </testsuite>\n";
        }
        out + "</testsuites>\n"
    }
}

/// Counts and the sum of times, as attributes.
fn totals<'c>(cases: impl Iterator<Item = &'c Case>) -> String {
    let (mut tests, mut failures, mut errors, mut skipped) = (0u64, 0u64, 0u64, 0u64);
    let mut took = Duration::ZERO;
    for case in cases {
        tests += 1;
        took += case.took;
        match case.ended {
            Ended::Passed => {}
            Ended::Failed(..) => failures += 1,
            Ended::Error(_) => errors += 1,
            Ended::Skipped(_) => skipped += 1,
        }
    }
    let time = time(took);
    format!(
        " tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{time}\""
    )
}

fn write_case(out: &mut String, suite: &Suite, case: &Case) {
    let name = case
        .seed
        .map_or_else(|| "all seeds".to_owned(), |s| format!("seed {s}"));
    let (class, file, time) = (escaped(&suite.name), escaped(&suite.file), time(case.took));
    let head = format!("    <testcase classname=\"{class}\" name=\"{name}\" file=\"{file}\" time=\"{time}\"");
    let _ = match &case.ended {
        Ended::Passed => writeln!(out, "{head}/>"),
        Ended::Failed(name, line, all) => writeln!(
            out,
            "{head}>\n      <failure type=\"{}\" message=\"{}\">{}</failure>\n    </testcase>",
            escaped(name),
            escaped(line),
            escaped(all)
        ),
        Ended::Error(why) => writeln!(
            out,
            "{head}>\n      <error type=\"no-result\" message=\"{}\"/>\n    </testcase>",
            escaped(why)
        ),
        Ended::Skipped(why) => writeln!(
            out,
            "{head}>\n      <skipped message=\"{}\"/>\n    </testcase>",
            escaped(why)
        ),
    };
}

/// What failed first, by name, and a line of all.
fn headline(report: &Report) -> (String, String) {
    let mut failures = report.failures.iter();
    let Some(first) = failures.next() else {
        let nothing = "nothing failed, though the mechanism is off";
        return ("no-proof".to_owned(), nothing.to_owned());
    };
    let more = match failures.count() {
        0 => String::new(),
        n => format!(", and {n} more"),
    };
    let line = format!("{}: {}{more}", first.name, first.seen);
    (first.name.clone(), line)
}

/// All that failed.
fn told(file: &str, report: &Report) -> String {
    let mut text = String::from("\n");
    if report.outcome == Outcome::NoProof {
        text += "a counter-proof that proves nothing\n";
    }
    for Failure {
        name,
        expected,
        seen,
        at_ns,
        ..
    } in &report.failures
    {
        let at = seconds(*at_ns);
        let _ = writeln!(
            text,
            "{name}\n  expected: {expected}\n  seen:     {seen}\n  at:       {at}"
        );
    }
    let _ = writeln!(text, "replay: {}", report.replay(file));
    text
}

/// Seconds, to the millisecond.
fn time(took: Duration) -> String {
    format!("{}.{:03}", took.as_secs(), took.subsec_millis())
}

/// As an attribute or as text. XML 1.0 has no way to write most control characters: they become U+FFFD.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' => out += "&#10;",
            '\t' => out += "&#9;",
            c if c < ' ' || ('\u{7f}'..='\u{9f}').contains(&c) || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_an_attribute_or_a_document_is_written_another_way() {
        assert_eq!(
            escaped("<a b=\"c\">'&\n\u{0}\u{1b}[31m]]>é\u{ffff}"),
            "&lt;a b=&quot;c&quot;&gt;&#39;&amp;&#10;\u{fffd}\u{fffd}[31m]]&gt;é\u{fffd}"
        );
    }

    #[test]
    fn each_case_counts_once_and_a_suite_is_told_at_length_up_to_its_bound() {
        let scenario = crate::language::parse("x", crate::run::tests::ONE_NODE, &|_| Err(String::new()));
        let scenario = scenario.expect("good");
        let report = |seed: u64, failed: bool| {
            let mut report = Report::new(&scenario, seed, &Default::default());
            if failed {
                report.failures.push(Failure {
                    name: "broken == 0".to_owned(),
                    expected: "broken == 0".to_owned(),
                    seen: "broken = <3>".to_owned(),
                    at_ns: 1_500_000_000,
                    unmeasured: false,
                });
            } else {
                report.outcome = Outcome::Pass;
            }
            report.judged()
        };
        let mut junit = JUnit::default();
        junit.result("a.toml", &report(0, false), Duration::from_millis(1_500));
        for seed in 0..=FAILURES_TOLD_MAX as u64 {
            junit.result("a.toml", &report(seed, true), Duration::from_millis(1));
        }
        junit.error("a.toml", "one-node", 7, "interrupted");
        junit.skipped("b.toml", "later", "waits for \"digests\"");
        let xml = junit.xml();
        let n = FAILURES_TOLD_MAX + 1;
        let suite = format!(
            "<testsuite name=\"one-node\" tests=\"{}\" failures=\"{n}\" errors=\"1\" skipped=\"0\" time=\"1.70{}\">",
            n + 2,
            n - 200
        );
        assert!(xml.contains(&suite), "{xml}");
        assert!(xml.contains("message=\"broken == 0: broken = &lt;3&gt;\""));
        assert!(xml.contains("message=\"waits for &quot;digests&quot;\""));
        assert_eq!(xml.matches("at:       1.500000000 s").count(), FAILURES_TOLD_MAX);
        assert_eq!(xml.matches("replay: evenkeel sim run a.toml --seed").count(), n);
    }
}
