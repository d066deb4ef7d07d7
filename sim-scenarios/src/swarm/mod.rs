//! The swarm: scenarios that a seed draws, what of their failures is the same, and the smallest plan that still fails so.

mod draw;
mod probes;
mod shrink;

pub use draw::{DRAWN_FLOW_COUNT_MIN, draw};
pub use probes::{PROBES, probes};
pub use shrink::{Shrunk, shrink};

use crate::expect::{Failure, Measures, NAMELY};
use crate::report::Report;
use crate::run::{Options, RunError, run_plan};
use crate::scenario::Scenario;

/// Runs a plan. A panic on the way, of the engine, the world or an oracle, is a failure of the run, and so is a world that
/// goes beyond its bounds.
///
/// # Errors
///
/// As [`run_plan`].
pub fn run(plan: &Scenario, go_on: &mut dyn FnMut() -> bool) -> Result<Report, RunError> {
    caught(plan, |plan| run_plan(plan, &Options::default(), go_on))
}

/// What `run` makes of a plan; if it panics or goes beyond its bounds, a report that fails with that.
///
/// # Errors
///
/// All others of `run`.
pub fn caught(
    plan: &Scenario,
    run: impl FnOnce(&Scenario) -> Result<Report, RunError>,
) -> Result<Report, RunError> {
    let (name, expected, seen) = match run(plan) {
        Err(RunError::Panicked { place, message }) => {
            ("panic", "nothing panics", format!("{message}, at {place}"))
        }
        Err(error @ RunError::Exceeded(_)) => ("exceeded", "a world within its bounds", error.to_string()),
        other => return other,
    };
    let mut report = Report::new(plan, plan.seed.unwrap_or(0), &Measures::default());
    report.failures.push(Failure {
        name: name.to_owned(),
        expected: expected.to_owned(),
        seen,
        at_ns: 0,
        unmeasured: false,
    });
    Ok(report)
}

/// What makes two failures the same: which oracle or expectation, and where it saw what, without the numbers of the run.
pub fn signature(failure: &Failure) -> String {
    let mut place = String::new();
    // Addresses, ports, times and counts are of this run, and so are the things that are named; words are of the place.
    let words = failure.seen.split_whitespace();
    for word in words.take_while(|word| *word != NAMELY).take(12) {
        let number = word.bytes().any(|b| b.is_ascii_digit());
        let word = if number { "#" } else { word };
        if word == "#" && place.ends_with('#') {
            continue;
        }
        if !place.is_empty() {
            place.push(' ');
        }
        place.push_str(word);
    }
    format!("{}: {place}", failure.name)
}

/// The signature of the first failure of a run, in the order of judges; `None`: it passed.
pub fn first_signature(report: &Report) -> Option<String> {
    if report.pass {
        return None;
    }
    // An oracle says more of a cause than what it led to, and what came first more than what followed.
    let oracle = |f: &&Failure| crate::oracle::NAMES.iter().any(|o| o.0 == f.name);
    let first = report.failures.iter().filter(oracle).min_by_key(|f| f.at_ns);
    first.or(report.failures.first()).map(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_of_the_run() {
        let panicked = |_: &Scenario| {
            Err(RunError::Panicked {
                place: "x.rs:7".to_owned(),
                message: "at node 3".to_owned(),
            })
        };
        let report = caught(&draw(0), panicked).expect("a report");
        assert!(!report.pass);
        assert_eq!(first_signature(&report).as_deref(), Some("panic: at node # at #"));
    }

    #[test]
    fn failures_of_one_place_are_one_whatever_the_numbers() {
        let failure = |name: &str, seen: &str| Failure {
            name: name.to_owned(),
            expected: String::new(),
            seen: seen.to_owned(),
            at_ns: 1,
            unmeasured: false,
        };
        let one = signature(&failure(
            "tables-equal",
            "192.0.2.100:4000 > 192.0.2.1:80 is only on node 1 (established)",
        ));
        let same = signature(&failure(
            "tables-equal",
            "[2001:db8::1]:9 > [2001:db8::2]:80 is only on node 2 (established)",
        ));
        assert_eq!(one, same);
        assert_eq!(one, "tables-equal: # > # is only on node # (established)");
        // What is named in one run is of that run.
        let counted = |seen| signature(&failure("unexcused == 0", seen));
        let one = counted("unexcused = 3, namely flow 7 (a > b) hangs; flow 9 broke; and 1 more");
        assert_eq!(one, counted("unexcused = 1, namely flow 8 is back"));
        assert_eq!(one, "unexcused == 0: unexcused = #");
        let one = "tables-equal: # > # is only on node # (established)";
        let other = failure(
            "tables-equal",
            "a > b is established on node 1 and closed on node 2",
        );
        assert_ne!(one, signature(&other));
        assert_ne!(
            one,
            signature(&failure("bounds", "x is only on node 1 (established)"))
        );
    }
}
