//! Results as JUnit's XML, which most CI systems read. There is no standard of it; this is what Jenkins's schema allows
//! and others understand: a suite for each scenario, a case for each seed, one `failure` in a case that failed, one `error` in
//! one that gave no result. A file that is refused is a suite of its own, and so are the seeds of a swarm.

use std::fmt::Write;
use std::time::Duration;

use super::{Outcome, Report, seconds};
use crate::expect::Failure;

/// Cases of a suite whose failure is told at length, at most; of further ones only the name.
pub const FAILURES_TOLD_MAX: usize = 200;

/// The suite of what seeds draw.
pub const SWARM: &str = "swarm";

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
    name: String,
    took: Duration,
    ended: Ended,
}

#[derive(Debug)]
enum Ended {
    Passed,
    /// Name of what failed, a line, and all of it.
    Failed(String, String, String),
    /// The kind of it, a line, and all of it.
    Error(String, String, String),
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
        let scenario = report.scenario.clone();
        self.case(&scenario, file, report, took, &report.replay(file));
    }

    /// A run of a scenario that a seed drew, which stands in no file; all of them are one suite.
    pub fn drawn(&mut self, report: &Report, took: Duration, replay: &str) {
        self.case(SWARM, "", report, took, replay);
    }

    fn case(&mut self, suite: &str, file: &str, report: &Report, took: Duration, replay: &str) {
        let suite = self.suite(suite, file);
        let ended = if report.pass {
            Ended::Passed
        } else {
            suite.told += 1;
            let (name, line) = headline(report);
            let all = if suite.told <= FAILURES_TOLD_MAX {
                told(report, replay)
            } else {
                format!("replay: {replay}\n")
            };
            Ended::Failed(name, line, all)
        };
        suite.cases.push(Case {
            name: format!("seed {}", report.seed),
            took,
            ended,
        });
    }

    /// A run that gave none: it was interrupted, could not go on (`kind` says which), or panicked. `scenario` is its suite.
    pub fn error(&mut self, file: &str, scenario: &str, seed: u64, kind: &str, why: &str, replay: &str) {
        let all = format!("\n{why}\nreplay: {replay}\n");
        self.suite(scenario, file).cases.push(Case {
            name: format!("seed {seed}"),
            took: Duration::ZERO,
            ended: Ended::Error(kind.to_owned(), why.to_owned(), all),
        });
    }

    /// What stands in a file until the runs are over.
    pub fn unended(&mut self) {
        self.suite("evenkeel sim", "").cases.push(Case {
            name: "the runs end".to_owned(),
            took: Duration::ZERO,
            ended: Ended::Error(
                "unended".to_owned(),
                "the runs did not end: this was written when they began".to_owned(),
                String::new(),
            ),
        });
    }

    /// A file that is no scenario: nothing is run. `line` says in short why, `all` every mistake with its place.
    pub fn refused(&mut self, file: &str, line: &str, all: &str) {
        self.suite(file, file).cases.push(Case {
            name: "is a scenario".to_owned(),
            took: Duration::ZERO,
            ended: Ended::Error("refused".to_owned(), line.to_owned(), format!("\n{all}")),
        });
    }

    /// A scenario that is not run.
    pub fn skipped(&mut self, file: &str, scenario: &str, why: &str) {
        self.suite(scenario, file).cases.push(Case {
            name: "all seeds".to_owned(),
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
            Ended::Error(..) => errors += 1,
            Ended::Skipped(_) => skipped += 1,
        }
    }
    let time = time(took);
    format!(
        " tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{time}\""
    )
}

fn write_case(out: &mut String, suite: &Suite, case: &Case) {
    let (class, name, time) = (escaped(&suite.name), escaped(&case.name), time(case.took));
    let file = match suite.file.as_str() {
        "" => String::new(),
        file => format!(" file=\"{}\"", escaped(file)),
    };
    let head = format!("    <testcase classname=\"{class}\" name=\"{name}\"{file} time=\"{time}\"");
    let _ = match &case.ended {
        Ended::Passed => writeln!(out, "{head}/>"),
        Ended::Failed(name, line, all) => writeln!(
            out,
            "{head}>\n      <failure type=\"{}\" message=\"{}\">{}</failure>\n    </testcase>",
            escaped(name),
            escaped(line),
            escaped(all)
        ),
        Ended::Error(kind, line, all) => writeln!(
            out,
            "{head}>\n      <error type=\"{}\" message=\"{}\">{}</error>\n    </testcase>",
            escaped(kind),
            escaped(line),
            escaped(all)
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
fn told(report: &Report, replay: &str) -> String {
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
    let _ = writeln!(text, "replay: {replay}");
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
        let replay = "evenkeel sim run a.toml --seed 7";
        junit.error(
            "a.toml",
            "one-node",
            7,
            "exceeded",
            "more than <9> events",
            replay,
        );
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
        assert!(
            xml.contains("<error type=\"exceeded\" message=\"more than &lt;9&gt; events\">&#10;more than"),
            "{xml}"
        );
        // Each failure and the error.
        assert_eq!(
            xml.matches("replay: evenkeel sim run a.toml --seed").count(),
            n + 1
        );
    }

    #[test]
    fn what_is_no_file_names_none_and_a_refused_file_is_an_error() {
        let scenario = crate::language::parse("x", crate::run::tests::ONE_NODE, &|_| Err(String::new()));
        let mut report = Report::new(&scenario.expect("good"), 7, &Default::default());
        report.outcome = Outcome::Pass;
        let mut junit = JUnit::default();
        junit.drawn(
            &report.judged(),
            Duration::ZERO,
            "evenkeel sim swarm --seeds 7..8",
        );
        junit.refused("<a>.toml", "line 3: no", "line 3, column 1: no; write yes\n");
        let xml = junit.xml();
        assert!(
            xml.contains("<testcase classname=\"swarm\" name=\"seed 7\" time=\"0.000\"/>"),
            "{xml}"
        );
        let refused = "classname=\"&lt;a&gt;.toml\" name=\"is a scenario\" file=\"&lt;a&gt;.toml\" time=\"0.000\">\n      <error type=\"refused\" message=\"line 3: no\">&#10;line 3, column 1: no; write yes&#10;</error>";
        assert!(xml.contains(refused), "{xml}");
    }
}
