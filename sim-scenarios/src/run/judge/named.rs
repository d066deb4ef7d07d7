//! What a failure names of what it counted: which flow, which node, and how it stands.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::sync::Readiness;
use evenkeel_core::tuple::Family;
use evenkeel_io_sim::{FlowState, LbRef, LbState, World};

use super::{Judge, broken_flow, tuple};
use crate::expect::{Metric, NAMED_MAX};
use crate::oracle::{self, NodeSample};
use crate::report::seconds;
use crate::run::excuse::Excuse;
use crate::run::watch::Watch;
use crate::run::{cluster, nanos, words};

pub(super) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A flow that broke, failed, hangs or is back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrong {
    number: u32,
    pub(super) excuse: Option<Excuse>,
}

impl Judge<'_> {
    /// Flows that broke, failed or hang at the end, or are back though they were over, and what excuses each; see [`Excuses`].
    pub(super) fn wrong(&self, world: &World, watch: &Watch, end: Duration) -> Vec<Wrong> {
        let back = watch
            .first_fault_at
            .map(|at| self.resurrected(world, watch, at))
            .unwrap_or_default();
        let blocked = self.blocked(world);
        let flows = (0u32..).zip(world.flows());
        let wrong = flows.filter_map(|(number, flow)| {
            let key = oracle::key(&tuple(flow));
            if flow.broken.is_none() && !self.hangs(flow) && !back.contains(&key) {
                return None;
            }
            let dead = blocked.contains(&key).then_some(Excuse::DeadEnds);
            let excuse = || {
                self.excuses
                    .excuse(self.scenario, (number, flow), end, &watch.moved)
            };
            Some(Wrong {
                number,
                excuse: dead.or_else(excuse),
            })
        });
        wrong.collect()
    }

    /// How flows stand that are wrong: of each load the first ones, of those that nothing excuses before the others.
    pub(super) fn wrong_in_words(&self, world: &World, wrong: &[Wrong]) -> BTreeMap<u32, String> {
        let mut of_load: BTreeMap<usize, usize> = BTreeMap::new();
        let (unexcused, excused): (Vec<&Wrong>, Vec<&Wrong>) = wrong.iter().partition(|w| w.excuse.is_none());
        let first = unexcused.into_iter().chain(excused).filter(|wrong| {
            let load = self.loads.get(wrong.number as usize).copied().unwrap_or(0);
            let named = of_load.entry(load).or_default();
            *named += 1;
            *named <= NAMED_MAX
        });
        first
            .map(|wrong| (wrong.number, self.in_words(world, wrong)))
            .collect()
    }

    /// A flow that is wrong: which it is, how it stands, and who has its session.
    fn in_words(&self, world: &World, wrong: &Wrong) -> String {
        let number = wrong.number;
        let Some(flow) = world.flows().get(number as usize) else {
            return format!("flow {number}");
        };
        let mut text = match (
            broken_flow(number, flow, nanos(self.scenario.duration)),
            flow.ended,
        ) {
            (Some(broken), _) => broken.to_string(),
            (None, Some(ended)) => {
                let ended = seconds(ended.as_nanos());
                format!(
                    "flow {number}, {}: is back, though it was over at {ended}",
                    tuple(flow)
                )
            }
            (None, None) => {
                let state = match (flow.awaiting_since, flow.state) {
                    (_, FlowState::Closing) => "waits to be closed".to_owned(),
                    (Some(since), _) => format!("waits since {}", seconds(since.as_nanos())),
                    (None, _) => "waits".to_owned(),
                };
                format!("flow {number}, {}: {state}", tuple(flow))
            }
        };
        text += &self.who_has(&oracle::key(&tuple(flow)));
        if let Some(excuse) = wrong.excuse {
            text += &format!(", excused by {}", excuse.says(self.scenario));
        }
        text
    }

    /// Which nodes have a session at the end.
    fn who_has(&self, key: &oracle::Key) -> String {
        let of_node = |node: &NodeSample| {
            let row = node.rows.iter().find(|row| oracle::key(&row.inbound) == *key)?;
            Some(format!("node {} has it {}", node.node, row.state.name()))
        };
        let who: Vec<_> = self.last.nodes.iter().filter_map(of_node).collect();
        if who.is_empty() {
            " (no node has its session)".to_owned()
        } else {
            format!(" ({})", who.join(", "))
        }
    }

    /// What failures name of what is counted and is no flow's alone.
    pub(super) fn named(
        &self,
        world: &World,
        watch: &Watch,
        wrong: &[Wrong],
    ) -> BTreeMap<Metric, Vec<String>> {
        let mut named = BTreeMap::new();
        let unexcused = wrong.iter().filter(|w| w.excuse.is_none()).take(NAMED_MAX);
        named.insert(
            Metric::Unexcused,
            unexcused.map(|w| self.in_words(world, w)).collect(),
        );
        if self.scenario.cluster.clustered {
            let nodes = not_ready(world).map(|lb| self.node_in_words(lb));
            named.insert(Metric::NotReady, nodes.collect());
            let all = FAMILIES.iter().flat_map(|&family| {
                masters(world, family).map(move |lb| format!("{} for {family:?}", words::node(lb.id())))
            });
            named.insert(Metric::Masters, all.collect());
        }
        if let Some(fault_at) = watch.fault_at {
            let back = self.resurrected(world, watch, fault_at);
            let back = back.iter().take(NAMED_MAX);
            let tuples = back.map(|key| format!("{} > {}{}", key.1, key.2, self.who_has(key)));
            named.insert(Metric::Resurrected, tuples.collect());
        }
        named
    }

    /// A node that should be ready: what it says of itself.
    fn node_in_words(&self, lb: LbRef<'_>) -> String {
        let mut text = words::node(lb.id());
        let Some(node) = lb.node() else {
            return text + " is in no cluster";
        };
        let readiness = match node.readiness() {
            Readiness::Joining => "is joining",
            Readiness::Degraded => "is degraded",
            Readiness::Ready => "is ready",
        };
        let began = self.lives.get(&(lb.id().0, lb.lives())).map_or(0, |l| nanos(l.0));
        text += &format!(" {readiness}, in life {} since {}", lb.lives(), seconds(began));
        let heard: Vec<_> = node.peers_up().map(|p| p.node.0.to_string()).collect();
        text += &match heard.is_empty() {
            true => ", hears nobody".to_owned(),
            false => format!(", hears nodes {}", heard.join(" ")),
        };
        for alarm in node.alarms() {
            text += &format!(", {}", words::alarm(alarm));
        }
        text
    }
}

fn running(world: &World) -> impl Iterator<Item = LbRef<'_>> {
    world.lbs().filter(|lb| lb.state() == LbState::Running)
}

/// Nodes that run, were not asked to leave, and are not ready.
pub(super) fn not_ready(world: &World) -> impl Iterator<Item = LbRef<'_>> {
    let left = |lb: &LbRef<'_>| lb.node().is_some_and(|node| node.is_draining());
    running(world).filter(move |lb| !cluster::is_ready(*lb) && !left(lb))
}

/// Nodes that answer for the VIPs of a family.
pub(super) fn masters(world: &World, family: Family) -> impl Iterator<Item = LbRef<'_>> {
    running(world).filter(move |lb| lb.node().is_some_and(|node| node.is_master(family)))
}

#[cfg(test)]
mod tests {
    use crate::expect::{NAMED_LEN_MAX, NAMED_MAX};
    use crate::report::Report;
    use crate::run::tests::{ONE_NODE, TWO_NODES, run_it};
    use crate::swarm::signature;

    fn failing(base: &str, faults: &str, that: &str) -> (Report, String) {
        let (head, _) = base.split_once("[[expect]]").expect("expectations");
        let report = run_it(&format!("{head}{faults}\n[[expect]]\nthat = \"{that}\"\n"), 1);
        let failure = report.failures.iter().find(|f| f.name == that);
        let failure = failure.unwrap_or_else(|| panic!("it holds: {}", report.text("x")));
        assert!(failure.seen.len() < (NAMED_MAX + 1) * NAMED_LEN_MAX);
        let seen = failure.seen.clone();
        let named = seen.split_once(", namely ").unwrap_or_else(|| panic!("{seen}"));
        assert_eq!(
            signature(failure),
            format!("{that}: {} = #", named.0.split(' ').next().expect("a word"))
        );
        (report, named.1.to_owned())
    }

    /// It starts anew behind a cut that nobody heals, and hears that another node is master.
    #[test]
    fn a_node_that_is_not_ready_is_named_with_what_it_says_of_itself() {
        let cut = "[[fault]]\ndo = \"cut\"\nat = \"2s\"\nnode = \"2\"\nnetwork = \"sync\"\n";
        let crash = "[[fault]]\ndo = \"crash\"\nat = \"2500ms\"\nfor = \"200ms\"\nnode = \"2\"\n";
        let (_, named) = failing(TWO_NODES, &format!("{cut}\n{crash}"), "not_ready == 0");
        assert!(
            named.starts_with("node 2 is joining, in life 2 since 2.7"),
            "{named}"
        );
        assert!(
            named.contains("hears nobody") && named.contains("nobody on the sync network"),
            "{named}"
        );
    }

    #[test]
    fn a_flow_that_nothing_excuses_is_named_with_who_has_its_session() {
        // TCP repairs what servers' links lose; clients who have no patience are not excused by it.
        let hasty = ONE_NODE.replace("name = \"long\"\n", "name = \"long\"\ngive_up = \"300ms\"\n");
        let loss = "[[fault]]\ndo = \"disturb\"\nat = \"2s\"\nfor = \"1s\"\nnode = \"1\"\nnetwork = \"servers\"\nloss = \"60%\"\n";
        let (report, named) = failing(&hasty, loss, "unexcused == 0");
        assert!(named.starts_with("flow "), "{named}");
        assert!(
            named.contains(", server ") && named.contains(" at 2.") && named.contains("node 1 has it"),
            "{named}"
        );
        assert!(report.excused.is_empty(), "{:?}", report.excused);
    }

    #[test]
    fn a_report_says_what_excuses_how_many_flows() {
        let cut =
            "[[fault]]\nname = \"gone\"\ndo = \"cut\"\nat = \"2s\"\nnode = \"1\"\nnetwork = \"clients\"\n";
        let (report, named) = failing(ONE_NODE, cut, "hanging == 0");
        assert!(
            named.contains("waits since 2.") && named.contains(", excused by gone"),
            "{named}"
        );
        let [(by, n)] = &report.excused.iter().collect::<Vec<_>>()[..] else {
            panic!("{:?}", report.excused);
        };
        assert_eq!(
            (by.as_str(), **n),
            ("gone", report.hanging + report.broken + report.failed)
        );
        let text = report.text("x").to_string();
        assert!(text.contains(&format!("excused:      {n} gone")), "{text}");
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["excused"]["gone"], **n);
    }
}
