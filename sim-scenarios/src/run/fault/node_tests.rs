//! Faults of nodes that overlap.

use std::rc::Rc;
use std::time::Duration;

use evenkeel_io_sim::LbId;

use super::{Effects, Met};
use crate::run::build;
use crate::run::build::Built;
use crate::scenario::{Action, Scenario};
use crate::scenario::{Change, NodeRef, ServerRef};

const CLUSTER: &str = r#"
name = "overlap"
description = "faults that overlap"
duration = "10s"
[cluster]
nodes = 2
drift = "7ppm"
[[service]]
name = "web"
vip = "192.0.2.1:80"
servers = 2
[[load]]
name = "long"
flows = 1
[[expect]]
that = "broken == 0"
"#;

fn scenario() -> Scenario {
    let scenario = crate::language::parse("x", CLUSTER, &|_| Err(String::new())).expect("good");
    crate::plan(&scenario, 1)
}

fn met(fault: usize, action: &Action) -> Met {
    Met {
        fault,
        lb: action.node().map(|_| LbId(0)),
        to: None,
        now: Duration::ZERO,
        until: None,
    }
}

/// Three faults begin, and end in every order: what is seen while some are in force, by the bits of their numbers.
fn overlap(actions: [Action; 3], seen: [i64; 8], look: impl Fn(&mut Built) -> i64) {
    let scenario = scenario();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut built = build::world(&scenario, evenkeel_io_sim::QueueKind::default()).expect("a world");
        let mut effects = Effects::new(&scenario, Rc::default());
        let mut in_force = 0;
        for (fault, action) in actions.iter().enumerate() {
            effects
                .begin(&mut built, action, met(fault, action))
                .expect("it is there");
            in_force |= 1 << fault;
            assert_eq!(
                look(&mut built),
                seen[in_force],
                "{actions:?}: {in_force:03b} begin"
            );
        }
        for fault in order {
            let action = &actions[fault];
            effects
                .end(&mut built, action, met(fault, action))
                .expect("it is there");
            in_force &= !(1 << fault);
            assert_eq!(
                look(&mut built),
                seen[in_force],
                "{actions:?}: {in_force:03b} are left"
            );
        }
    }
}

fn first(built: &Built) -> evenkeel_io_sim::LbRef<'_> {
    built.world.lb(LbId(0)).expect("it is there")
}

#[test]
fn of_several_bounds_the_least_holds() {
    let node = NodeRef::Id(1);
    overlap(
        [8, 2, 4].map(|n| Action::Queues(node, n)),
        [4_096, 8, 2, 2, 4, 4, 2, 2],
        |built| first(built).queues().map_or(0, |q| q.messages as i64),
    );
    overlap(
        [8, 2, 4].map(|n| Action::Rings(node, n)),
        [1_024, 8, 2, 2, 4, 4, 2, 2],
        |built| first(built).rings().handoff as i64,
    );
    // Both have the ring of the sync port among them, and one leaves it alone.
    overlap(
        [
            Action::Rings(node, 8),
            Action::Queues(node, 2),
            Action::Rings(node, 4),
        ],
        [1_024, 8, 1_024, 8, 4, 4, 4, 4],
        |built| first(built).queues().map_or(0, |q| q.sync_ring as i64),
    );
}

#[test]
fn the_latest_config_counts_and_a_failed_check_more() {
    let server = ServerRef {
        service: 0,
        server: 1,
    };
    let weight = |n| Action::Config(None, Change::Weight(server, n));
    overlap(
        [weight(8), Action::Unhealthy(None, server), weight(4)],
        [1, 8, 0, 0, 4, 4, 0, 0],
        |built| first(built).config().services[0].servers[0].weight.into(),
    );
}

#[test]
fn drifts_are_added_to_that_of_the_machine() {
    let node = NodeRef::Id(1);
    overlap(
        [100, 20, -50].map(|ppm| Action::Drift(node, ppm)),
        [7, 107, 27, 127, -43, 57, -23, 77],
        |built| {
            let clock = |built: &Built| first(built).clock(&built.world).as_nanos() as i64;
            let (before, now) = (clock(built), built.world.now());
            built.world.run_until(now + Duration::from_secs(1));
            (clock(built) - before - 1_000_000_000) / 1_000
        },
    );
}

#[test]
fn slowness_is_multiplied_and_goes_as_it_came() {
    let scenario = scenario();
    let mut built = build::world(&scenario, evenkeel_io_sim::QueueKind::default()).expect("a world");
    let mut effects = Effects::new(&scenario, Rc::default());
    let node = NodeRef::Id(1);
    let actions = [
        Action::Slow(node, None, 10),
        Action::Slow(node, Some(0), 7),
        Action::Slow(node, None, 4),
    ];
    let slowness = |built: &Built| {
        let lb = built.world.lb(LbId(0)).expect("it is there");
        (lb.slowness(None), lb.slowness(Some(0)))
    };
    assert_eq!(slowness(&built), (1, 1));
    for (fault, wanted) in [(0, (10, 1)), (1, (10, 7)), (2, (40, 7))] {
        let action = &actions[fault];
        effects
            .begin(&mut built, action, met(fault, action))
            .expect("it is there");
        assert_eq!(slowness(&built), wanted);
    }
    for (fault, wanted) in [(0, (4, 7)), (1, (4, 1)), (2, (1, 1))] {
        let action = &actions[fault];
        effects
            .end(&mut built, action, met(fault, action))
            .expect("it is there");
        assert_eq!(slowness(&built), wanted);
    }
}
