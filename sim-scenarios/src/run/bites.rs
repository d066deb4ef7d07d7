//! What faults change of nodes without losing anything that is counted: clocks, pace, configs. Looked up where it shows, so that
//! a fault that has become a no-op is one that never occurred.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::service::Snapshot;
use evenkeel_io_sim::{LbRef, LbState, World};

use super::nanos;
use crate::scenario::Scenario;

/// What is looked for.
#[cfg(test)]
pub(crate) const BITES: [&str; 5] = [
    "clock-drifting",
    "clock-stepped",
    "config-changed",
    "paused",
    "slowed",
];

/// A clock that is wrong by less, in millionths, is as it was made.
const DRIFT_SEEN_PPM: u64 = 500;
/// Clocks count whole nanoseconds.
const ROUNDING_NS: u64 = 10;

/// A node as it was at the last look.
#[derive(Debug)]
struct Seen {
    life: u64,
    at_ns: u64,
    clock_ns: u64,
    state: LbState,
    slowness: u32,
    snapshot: Option<Arc<Snapshot>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Bites {
    seen: BTreeMap<u16, Seen>,
    counts: BTreeMap<&'static str, u64>,
}

impl Bites {
    /// Looks at all nodes. Right before and right after a fault time stands still: what is another one then, the fault changed.
    pub(crate) fn look(&mut self, scenario: &Scenario, world: &World, now: Duration) {
        for (lb, node) in world.lbs().zip(&scenario.cluster.nodes) {
            let seen = Seen {
                life: lb.lives(),
                at_ns: nanos(now),
                clock_ns: lb.clock(world).as_nanos(),
                state: lb.state(),
                slowness: slowness(lb),
                snapshot: lb.workers().next().map(|w| Arc::clone(w.snapshot())),
            };
            let Some(before) = self.seen.get(&lb.id().0) else {
                self.seen.insert(lb.id().0, seen);
                continue;
            };
            let mut count = |what| *self.counts.entry(what).or_default() += 1;
            if seen.state == LbState::Paused && before.state != LbState::Paused {
                count("paused");
            }
            if seen.slowness > before.slowness {
                count("slowed");
            }
            let (new, old) = (&seen.snapshot, &before.snapshot);
            let other = new
                .as_ref()
                .zip(old.as_ref())
                .is_some_and(|(n, o)| !Arc::ptr_eq(n, o));
            if seen.life == before.life && other {
                count("config-changed");
            }
            let passed = seen.at_ns.saturating_sub(before.at_ns);
            let counted = seen.clock_ns.saturating_sub(before.clock_ns);
            let own = *node.drift_ppm.start();
            let off = counted.abs_diff(drifted(passed, own));
            let ran = seen.state == LbState::Running && before.state == LbState::Running;
            if passed == 0 && counted > 0 {
                count("clock-stepped");
            } else if ran && off > passed * DRIFT_SEEN_PPM / 1_000_000 + ROUNDING_NS {
                count("clock-drifting");
            }
            self.seen.insert(lb.id().0, seen);
        }
    }

    /// How often each was, with what else was counted.
    pub(crate) fn join(&self, others: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
        let mut all = others.clone();
        for (what, n) in &self.counts {
            *all.entry(what).or_default() += n;
        }
        all
    }
}

/// What a clock counts while so much time passes.
fn drifted(passed: u64, ppm: i32) -> u64 {
    let all = i128::from(passed) * (1_000_000 + i128::from(ppm)) / 1_000_000;
    u64::try_from(all).unwrap_or(0)
}

/// By how much a node or one of its workers is slower, at most.
fn slowness(lb: LbRef<'_>) -> u32 {
    let workers = lb.workers().map(|w| lb.slowness(Some(w.id().0)));
    workers.chain([lb.slowness(None)]).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::{TWO_NODES, run_it};

    /// Each kind of fault shows as what it is, and as nothing else.
    #[test]
    fn a_fault_of_a_node_is_seen_where_it_bites() {
        let seen = |fault: &str| {
            let (head, tail) = TWO_NODES.split_once("[[expect]]").expect("expectations");
            let report = run_it(&format!("{head}{fault}\n[[expect]]{tail}"), 1);
            let bites = report.situations.into_iter().filter(|s| BITES.contains(&s.0));
            bites.map(|s| s.0).collect::<Vec<_>>()
        };
        assert_eq!(seen(""), Vec::<&str>::new());
        for (what, rest) in [
            (
                "clock-drifting",
                "do = \"drift\"\nfor = \"1s\"\ndrift = \"1000ppm\"\n",
            ),
            ("clock-stepped", "do = \"step\"\nby = \"1ms\"\n"),
            (
                "config-changed",
                "do = \"config\"\nfor = \"1s\"\nservice = \"v4\"\nserver = 1\nweight = 7\n",
            ),
            ("paused", "do = \"pause\"\nfor = \"20ms\"\n"),
            ("slowed", "do = \"slow\"\nfor = \"1s\"\nfactor = 2\n"),
        ] {
            let fault = format!("[[fault]]\nat = \"2s\"\nnode = \"1\"\n{rest}");
            assert_eq!(seen(&fault), [what]);
        }
    }
}
