//! Whatever happens, in whatever order: once it is over, all know the same, and all serve.

use super::net::*;
use crate::cluster::*;
use crate::hash::SplitMix;
use crate::sync::Readiness;

const NODES: u16 = 3;

/// One thing that goes wrong, or is mended.
fn disturb(net: &mut Net, random: &mut SplitMix, lives: &mut [u64]) {
    let node = (random.next() % u64::from(NODES)) as u16 + 1;
    let other = (node + (random.next() % 2) as u16) % NODES + 1;
    let runs = net.nodes.contains_key(&node);
    match random.next() % 12 {
        0 | 1 if runs && net.nodes.len() > 1 => net.crash(node),
        0..=3 if !runs => {
            let life = &mut lives[usize::from(node)];
            *life += 10;
            let life = *life;
            net.start(node, life);
        }
        2 | 3 if runs => net.node(node).paused = true,
        4 | 5 if runs => net.node(node).paused = false,
        6 => net.cut(node, other, true, true),
        7 => net.cut(node, other, true, false),
        8 => {
            net.no_sync.insert((node, other));
        }
        9 => net.heal(),
        10 if runs && !net.nodes[&node].paused => net.command(node, NodeCommand::Drain),
        11 if runs && !net.nodes[&node].paused => net.command(node, NodeCommand::Undrain),
        _ => {}
    }
}

/// No two nodes create in one group, and each in its own.
fn check(net: &Net) {
    for (n, node) in &net.nodes {
        if let Some(group) = node.core.creating() {
            assert_eq!(group.node, NodeId(*n));
            let role = node.core.role(group);
            assert!(
                matches!(role, Some(Role::Owned | Role::Suspect | Role::Adopting)),
                "{role:?}"
            );
            assert!(node.core.readiness() >= Readiness::Degraded);
        }
        for w in &node.workers {
            assert!(w.create.is_none_or(|g| g.node == NodeId(*n)));
        }
        let counters = node.core.counters();
        assert_eq!(counters.claim_refused + counters.peer_unknown, 0);
        assert_eq!(
            counters.event_dropped + counters.message_dropped + counters.frame_dropped,
            0
        );
    }
}

fn story(seed: u64) {
    let mut random = SplitMix::new(seed);
    let mut net = Net::new(NODES);
    let mut lives = [1; NODES as usize + 1];
    for n in 1..=NODES {
        net.start(n, 1);
    }
    net.queue_ms = random.next() % 30;
    net.loss = 3 + random.next() % 20;
    for _ in 0..25 {
        for _ in 0..random.next() % 700 {
            net.run(1);
            check(&net);
        }
        disturb(&mut net, &mut random, &mut lives);
    }
    net.heal();
    net.loss = u64::MAX;
    for n in 1..=NODES {
        if !net.nodes.contains_key(&n) {
            net.start(n, lives[usize::from(n)] + 10);
        }
        net.node(n).paused = false;
        net.command(n, NodeCommand::Undrain);
    }
    for _ in 0..6_000 {
        net.run(1);
        check(&net);
    }
    // A group may be over at this moment, which takes a second to get about.
    net.until(3_000, "all agree", |n| n.settled().is_ok());
    for n in 1..=NODES {
        let core = net.core(n);
        assert_eq!(core.readiness(), Readiness::Ready, "{}", net.page());
        assert!(core.creating().is_some(), "{}", net.page());
        assert_eq!(core.alarms().count(), 0, "{}", net.page());
        let created = core.creating();
        assert!(net.nodes[&n].workers.iter().all(|w| w.create == created));
        let lips = core.answering().addrs.iter().filter(|a| a.0 != vip());
        assert!(lips.eq(&[(lip(n), None)]), "{:?}", core.answering());
    }
    assert_eq!(net.masters(), [1], "{}", net.page());
}

#[test]
fn whatever_happens_all_agree_in_the_end() {
    for seed in 0..20 {
        std::println!("seed {seed}");
        story(seed);
    }
}
