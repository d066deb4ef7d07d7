//! Expectations against what was measured.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Comparison, Expectation, Expr, Metric};

/// What is known of a flow in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowFacts {
    /// Number.
    pub number: u32,
    /// Index of its load.
    pub load: usize,
    /// It was opened.
    pub opened: bool,
    /// It was connected.
    pub established: bool,
    /// It ended as it should.
    pub completed: bool,
    /// It broke, at this time.
    pub broken_at_ns: Option<u64>,
    /// At the end it waits for what it asked for before the quiet began.
    pub hanging: bool,
    /// Its session has at the end what a session had that died with the last node that had it: the server's end of that one may
    /// be in its way.
    pub blocked: bool,
    /// It was connected when the first fault began, and not over.
    pub live_at_fault: bool,
    /// Another node than its own had its session then.
    pub replicated: bool,
    /// It was opened before the first fault began, and connected after another node had taken over.
    pub opening_at_fault: bool,
    /// It was opened after the first fault began.
    pub later: bool,
    /// Its longest time from a request to the whole reply.
    pub stall_ns: u64,
    /// When that began.
    pub stall_at_ns: u64,
    /// See [`Metric::NextRto`].
    pub next_rto_ns: u64,
}

/// What a run measured.
#[derive(Clone, Debug, Default)]
pub struct Measures {
    /// Flows, by number.
    pub flows: Vec<FlowFacts>,
    /// What is no flow's, with the time at which it was known; what is not in it could not be measured.
    pub globals: BTreeMap<Metric, (i128, u64)>,
    /// Of what is no flow's: what was counted, in words, the first [`NAMED_MAX`] at least.
    pub named: BTreeMap<Metric, Vec<String>>,
    /// Of flows that broke, failed or hang, by number: how each stands, of each load the first [`NAMED_MAX`] at least.
    pub wrong: BTreeMap<u32, String>,
    /// End of the run.
    pub end_ns: u64,
}

/// What a failure names of what was counted, at most.
pub const NAMED_MAX: usize = 5;
/// Bytes that it says of each, at most.
pub const NAMED_LEN_MAX: usize = 300;
/// The word before that. What is named is of the run: what stands before it says which failures are the same.
pub(crate) const NAMELY: &str = "namely";

/// Why an expectation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Name of the expectation or oracle.
    pub name: String,
    /// What was expected.
    pub expected: String,
    /// What was seen.
    pub seen: String,
    /// When, in simulated time.
    pub at_ns: u64,
    /// The tables of the nodes, or what an oracle looks at, were not there to be looked at. A counter-proof needs not
    /// declare it: that follows from what is off.
    #[serde(skip)]
    pub unmeasured: bool,
}

/// An expectation and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// It held, with what was seen; or not.
    pub result: Result<String, Failure>,
}

impl Measures {
    fn flows(&self, of: Option<usize>) -> impl Iterator<Item = &FlowFacts> {
        self.flows
            .iter()
            .filter(move |f| f.opened && of.is_none_or(|load| f.load == load))
    }

    fn count(&self, of: Option<usize>, counts: impl Fn(&FlowFacts) -> bool) -> Option<(i128, u64)> {
        let mut n = 0;
        // A count is known from the first one on if that is a broken flow, else in the end.
        let mut at = None;
        for flow in self.flows(of).filter(|f| counts(f)) {
            n += 1;
            at = at.into_iter().chain(flow.broken_at_ns).min();
        }
        Some((n, at.unwrap_or(self.end_ns)))
    }

    /// A metric's value, and when it was known; `None`: it could not be measured.
    fn global(&self, metric: Metric, of: Option<usize>) -> Option<(i128, u64)> {
        if let Some(is_wrong) = wrong(metric) {
            return self.count(of, is_wrong);
        }
        let broken = |f: &FlowFacts| f.broken_at_ns.is_some();
        match metric {
            Metric::Connections => self.count(of, |_| true),
            Metric::Established => self.count(of, |f| f.established),
            Metric::Completed => self.count(of, |f| f.completed),
            Metric::Blocked => self.count(of, |f| f.blocked && (f.hanging || broken(f))),
            Metric::LiveAtFault => self.count(of, |f| f.live_at_fault),
            Metric::Replicated => self.count(of, |f| f.live_at_fault && f.replicated),
            Metric::Unsynced => self.count(of, |f| f.live_at_fault && !f.replicated),
            Metric::OpeningAtFault => self.count(of, |f| f.opening_at_fault),
            Metric::Later => self.count(of, |f| f.later),
            Metric::Slowest => {
                let slowest = self.flows(of).max_by_key(|f| f.stall_ns)?;
                Some((slowest.stall_ns.into(), slowest.stall_at_ns))
            }
            metric => self.globals.get(&metric).copied(),
        }
    }

    /// A metric's value over all flows, if it was measured.
    pub fn value(&self, metric: Metric) -> Option<i128> {
        self.global(metric, None).map(|v| v.0)
    }
}

/// Which flows a metric counts that should not be so.
fn wrong(metric: Metric) -> Option<fn(&FlowFacts) -> bool> {
    Some(match metric {
        Metric::Broken => |f| f.broken_at_ns.is_some() && f.established,
        Metric::Failed => |f| f.broken_at_ns.is_some() && !f.established,
        Metric::Hanging => |f| f.hanging,
        Metric::BrokenLive => |f| f.live_at_fault && f.broken_at_ns.is_some(),
        Metric::BrokenLater => |f| f.later && f.broken_at_ns.is_some(),
        _ => return None,
    })
}

/// What of all that was counted a failure names; empty: nothing is known of it.
fn namely(expectation: &Expectation, measures: &Measures) -> String {
    let Comparison { left, right, .. } = &expectation.comparison;
    let mut named = Vec::new();
    let mut count = 0;
    for metric in left.metrics().chain(right.metrics()) {
        if let Some(is_wrong) = wrong(metric) {
            let flows = || measures.flows(expectation.of).filter(|f| is_wrong(f));
            count += flows().count();
            let words = flows().filter_map(|f| measures.wrong.get(&f.number));
            named.extend(words.take(NAMED_MAX));
        } else if let Some(things) = measures.named.get(&metric) {
            let value = measures.global(metric, expectation.of).map_or(0, |v| v.0);
            count += usize::try_from(value).unwrap_or(0).max(things.len());
            named.extend(things.iter().take(NAMED_MAX));
        }
    }
    named.truncate(NAMED_MAX);
    if named.is_empty() {
        return String::new();
    }
    let more = match count.saturating_sub(named.len()) {
        0 => String::new(),
        n => format!("; and {n} more"),
    };
    let named: Vec<_> = named.into_iter().map(|words| cut(words)).collect();
    format!(", {NAMELY} {}{more}", named.join("; "))
}

/// No more than [`NAMED_LEN_MAX`] bytes of it.
fn cut(words: &str) -> String {
    if words.len() <= NAMED_LEN_MAX {
        return words.to_owned();
    }
    let end = (0..=NAMED_LEN_MAX - 3)
        .rev()
        .find(|at| words.is_char_boundary(*at));
    format!("{}...", &words[..end.unwrap_or(0)])
}

/// Value of a side, the time at which it was known, and its parts; `Err`: what was not measured.
fn side(
    expr: &Expr,
    measures: &Measures,
    of: Option<usize>,
    flow: Option<&FlowFacts>,
) -> Result<(i128, u64, String), Metric> {
    let mut sum = 0i128;
    let mut at = u64::MAX;
    let mut parts = Vec::new();
    for (plus, term) in &expr.terms {
        let value = match (term.metric, flow) {
            (None, _) => 1,
            (Some(metric @ (Metric::Stall | Metric::NextRto)), Some(flow)) => {
                at = at.min(flow.stall_at_ns);
                let value = if metric == Metric::Stall {
                    flow.stall_ns
                } else {
                    flow.next_rto_ns
                };
                i128::from(value)
            }
            (Some(metric), _) => {
                let (value, known) = measures.global(metric, of).ok_or(metric)?;
                if flow.is_none() {
                    at = at.min(known);
                }
                value
            }
        };
        let value = value.saturating_mul(term.factor.into());
        sum = if *plus {
            sum.saturating_add(value)
        } else {
            sum.saturating_sub(value)
        };
        if let Some(metric) = term.metric {
            let factor = if term.factor == 1 {
                String::new()
            } else {
                format!("{} * ", term.factor)
            };
            parts.push(format!("{factor}{} = {}", metric.name(), show(value, expr.unit)));
        }
    }
    Ok((sum, at, parts.join(", ")))
}

/// A value as a reader wants it.
fn show(value: i128, unit: super::Unit) -> String {
    match unit {
        super::Unit::Count => value.to_string(),
        super::Unit::Span => format!(
            "{}.{:03} ms",
            value / 1_000_000,
            (value % 1_000_000).abs() / 1_000
        ),
    }
}

/// Judges an expectation.
pub(crate) fn judge(expectation: &Expectation, measures: &Measures) -> Judged {
    let Comparison { left, op, right } = &expectation.comparison;
    let failure = |seen: String, at_ns: u64| Failure {
        name: expectation.name.clone(),
        expected: expectation.text.clone(),
        seen,
        at_ns: at_ns.min(measures.end_ns),
        unmeasured: false,
    };
    let compare = |flow: Option<&FlowFacts>| -> Result<String, Failure> {
        let both = side(left, measures, expectation.of, flow)
            .and_then(|l| Ok((l, side(right, measures, expectation.of, flow)?)));
        let ((l, at, left_parts), (r, right_at, right_parts)) = both.map_err(|metric| {
            let seen = format!("{} could not be measured: it did not happen", metric.name());
            Failure {
                unmeasured: metric == Metric::Unequal,
                ..failure(seen, measures.end_ns)
            }
        })?;
        let parts: Vec<_> = [left_parts, right_parts]
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect();
        let mut seen = parts.join("; ");
        if let Some(flow) = flow {
            seen = format!("flow {}: {seen}", flow.number);
        }
        if op.holds(l, r) {
            Ok(seen)
        } else {
            if flow.is_none() {
                seen += &namely(expectation, measures);
            }
            Err(failure(seen, at.min(right_at)))
        }
    };
    if !(left.is_per_flow() || right.is_per_flow()) {
        return Judged {
            result: compare(None),
        };
    }
    // Each flow must hold; the one that misses by most is shown.
    let mut worst: Option<(&FlowFacts, Failure)> = None;
    let mut failed = 0u64;
    let mut looked = 0u64;
    for flow in measures
        .flows(expectation.of)
        .filter(|f| f.established || f.stall_ns > 0)
    {
        looked += 1;
        if let Err(failure) = compare(Some(flow)) {
            failed += 1;
            if worst.as_ref().is_none_or(|(w, _)| w.stall_ns < flow.stall_ns) {
                worst = Some((flow, failure));
            }
        }
    }
    let result = match worst {
        Some((_, mut failure)) => {
            if failed > 1 {
                failure.seen += &format!("; and {} more of {looked} flows", failed - 1);
            }
            Err(failure)
        }
        None if looked == 0 => Err(failure("there was no flow to look at".into(), measures.end_ns)),
        None => Ok(format!("all {looked} flows")),
    };
    Judged { result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::parse;

    fn expectation(text: &str, of: Option<usize>) -> Expectation {
        Expectation {
            name: text.to_owned(),
            text: text.to_owned(),
            comparison: parse(text).expect(text),
            of,
            written: Default::default(),
        }
    }

    fn measures() -> Measures {
        let flow = |number, load, stall_ms: u64, broken_at_ns| FlowFacts {
            number,
            load,
            opened: true,
            established: true,
            live_at_fault: true,
            broken_at_ns,
            stall_ns: stall_ms * 1_000_000,
            stall_at_ns: 5_000 + u64::from(number),
            next_rto_ns: 200_000_000,
            ..FlowFacts::default()
        };
        Measures {
            flows: vec![
                flow(0, 0, 100, None),
                flow(1, 0, 500, Some(7_000)),
                flow(2, 1, 700, None),
            ],
            globals: BTreeMap::from([(Metric::Detection, (300_000_000, 6_000))]),
            end_ns: 9_000,
            ..Measures::default()
        }
    }

    #[test]
    fn an_expectation_says_what_was_seen_and_when() {
        let check = |text, of| judge(&expectation(text, of), &measures()).result;
        assert_eq!(check("broken == 1", None), Ok("broken = 1".into()));
        assert_eq!(check("broken == 0", Some(1)), Ok("broken = 0".into()));
        let failure = check("broken == 0", None).expect_err("one broke");
        assert_eq!((failure.at_ns, failure.seen.as_str()), (7_000, "broken = 1"));
        let failure = check("stall <= detection + next_rto", None).expect_err("700 ms");
        assert_eq!(failure.at_ns, 5_002);
        assert!(
            failure
                .seen
                .starts_with("flow 2: stall = 700.000 ms; detection = 300.000 ms"),
            "{failure:?}"
        );
        assert!(check("stall <= detection + next_rto", Some(0)).is_ok());
        let failure = check("converged within 2s", None).expect_err("not measured");
        assert!(failure.seen.contains("could not be measured"));
        assert!(
            check("stall <= 1s", Some(7))
                .expect_err("no flow")
                .seen
                .contains("no flow")
        );
        assert_eq!(
            check("connections == live_at_fault + later", None),
            Ok("connections = 3; live_at_fault = 3, later = 0".into())
        );
    }

    #[test]
    fn a_failure_names_what_it_counted_and_no_more_than_it_may() {
        let mut measures = measures();
        let words = |n: u32| (n, format!("flow {n} was reset"));
        measures.wrong = BTreeMap::from([words(1), words(2)]);
        let seen = |text: &str, of: Option<usize>, measures: &Measures| {
            let judged = judge(&expectation(text, of), measures).result;
            judged.expect_err("it does not hold").seen
        };
        assert_eq!(
            seen("broken == 0", None, &measures),
            "broken = 1, namely flow 1 was reset"
        );
        // Of another load, and of what holds, nothing is said.
        assert_eq!(seen("broken == 1", Some(1), &measures), "broken = 0");
        assert_eq!(
            judge(&expectation("broken == 1", None), &measures).result,
            Ok("broken = 1".into())
        );
        measures.globals.insert(Metric::Unexcused, (700, 9_000));
        let long = "\u{e9}".repeat(NAMED_LEN_MAX);
        measures
            .named
            .insert(Metric::Unexcused, vec![long; NAMED_MAX + 3]);
        let said = seen("unexcused == 0", None, &measures);
        assert!(said.ends_with("...; and 695 more"), "{said}");
        assert!(said.len() < (NAMED_MAX + 1) * NAMED_LEN_MAX, "{}", said.len());
    }
}
