use alloc::vec::Vec;
use core::net::IpAddr;

use super::net::*;
use crate::cluster::*;
use crate::sync::{GroupClaim, NodeMessage, Readiness, SyncEvent};
use crate::tuple::Family;

/// Scenario 38: both start, nobody can be asked; degraded and alarmed, then normal.
#[test]
fn cold_start_of_both_is_degraded_then_ready_with_one_master() {
    let mut net = Net::new(2);
    net.start(1, 1);
    net.start(2, 1);
    net.run(900);
    for n in [1, 2] {
        assert_eq!(net.core(n).readiness(), Readiness::Joining);
        assert_eq!(net.core(n).creating(), None);
        assert!(net.node(n).workers.iter().all(|w| w.create.is_none()));
    }
    assert!(net.masters().is_empty(), "nobody attracts traffic yet");
    net.run(3_000);
    for n in [1, 2] {
        assert!(net.saw(n, NodeEvent::Degraded) && net.saw(n, NodeEvent::Alarm(Alarm::Cold)));
        assert!(net.saw(n, NodeEvent::Ready) && net.saw(n, NodeEvent::Cleared(Alarm::Cold)));
        assert_eq!(net.core(n).readiness(), Readiness::Ready);
        assert_eq!(net.core(n).creating(), Some(group(n, 1)));
        assert!(net.node(n).workers.iter().all(|w| w.create == Some(group(n, 1))));
        assert_eq!(net.core(n).alarms().count(), 0);
    }
    assert_eq!(net.masters(), [1], "the higher priority");
    assert!(
        net.core(1)
            .answering()
            .addrs
            .iter()
            .any(|a| a.0 == vip() && a.1.is_some())
    );
    assert!(net.core(2).answering().addrs.iter().all(|a| a.0 == lip(2)));
    net.assert_settled();
    assert!(net.claims_of_owned > 10, "the check of claims has worked");
}

#[test]
fn a_node_alone_stays_degraded() {
    let mut net = Net::new(2);
    net.start(2, 1);
    net.run(5_000);
    assert_eq!(net.core(2).readiness(), Readiness::Degraded);
    assert_eq!(net.masters(), [2]);
    net.start(1, 1);
    net.until(500, "the second is ready", |n| {
        n.core(1).readiness() == Readiness::Ready
    });
    assert!(!net.saw(1, NodeEvent::Degraded), "it had somebody to ask");
    net.until(500, "so the first is", |n| {
        n.core(2).readiness() == Readiness::Ready
    });
}

/// Scenario 30: beside a ready peer nothing is attracted before all slots have ended, whatever the priority.
#[test]
fn start_beside_a_ready_peer_waits_for_all_slots() {
    let mut net = Net::ready(2);
    net.crash(1);
    net.until(1_000, "the other is master", |n| n.masters() == [2]);
    net.run(500);
    net.mute.insert(2);
    net.start(1, 2);
    net.run(5_000);
    assert_eq!(
        net.core(1).readiness(),
        Readiness::Joining,
        "a deadline is no readiness"
    );
    assert_eq!(net.masters(), [2], "the higher priority alone does not count");
    assert_eq!(net.core(1).creating(), None);
    assert!(net.core(1).answering().addrs.is_empty());
    assert!(
        net.core(2).answering().addrs.iter().any(|a| a.0 == lip(1)),
        "the adopter answers"
    );
    net.mute.clear();
    let source = net.core(2).id();
    net.until(1_500, "ready", |n| n.core(1).readiness() == Readiness::Ready);
    let pulled = &net.nodes[&1].workers[0].pulled;
    assert!(pulled.contains(&(group(2, 1), source)) && pulled.contains(&(group(1, 1), source)));
    net.until(1_000, "it preempts", |n| n.masters() == [1]);
    net.run(200);
    assert!(
        net.core(1).answering().addrs.iter().any(|a| a.0 == lip(1)),
        "its address is back"
    );
    assert!(net.core(2).answering().addrs.iter().all(|a| a.0 != lip(1)));
    assert!(net.nodes[&1].announced > 0, "and announced");
    net.assert_settled();
}

/// A node is started anew while the only other one has left: it takes its groups before it has pulled them, and lacks what the
/// other one has of them until that is merged.
#[test]
fn what_is_adopted_before_it_was_pulled_is_missing_until_it_is_merged() {
    let mut net = Net::ready(2);
    net.command(1, NodeCommand::Drain);
    net.until(1_000, "drained", |n| n.saw(1, NodeEvent::Drained));
    net.mute.insert(1);
    net.crash(2);
    net.start(2, 2);
    for worker in &mut net.node(2).workers {
        worker.merges_wait = true;
    }
    let adopting = |n: &Net| [1, 2].map(|home| n.core(2).role(group(home, 1))) == [Some(Role::Adopting); 2];
    net.until(2_000, "adopted unready", adopting);
    net.run(3_000);
    assert!(adopting(&net), "it waits");
    assert_eq!(net.core(2).readiness(), Readiness::Joining);
    assert_eq!(net.core(2).creating(), None);
    for worker in &mut net.node(2).workers {
        worker.merges_wait = false;
    }
    net.until(1_000, "merged", |n| n.core(2).readiness() == Readiness::Ready);
    assert_eq!(net.holders(group(2, 1)), [2]);
    assert!(net.saw(2, NodeEvent::Alarm(Alarm::AdoptedUnready(group(2, 1)))));
    net.until(500, "it creates", |n| n.core(2).creating() == Some(group(2, 2)));
    net.run(200);
    net.assert_settled();
}

/// A holder that has stood still for a moment joins again, and has all the same what a node that was just started lacks of it.
#[test]
fn what_a_holder_has_that_joins_again_is_missing_until_it_is_pulled() {
    let mut net = Net::ready(3);
    net.crash(2);
    net.until(1_000, "adopted", |n| n.holders(group(2, 1)) == [1]);
    net.mute.insert(1);
    net.start(2, 2);
    net.run(400);
    // Right behind a heartbeat: the others do not think it dead so soon.
    net.until(200, "a heartbeat has left", |n| {
        let of_it = |input: &Input| matches!(input, Input::Peer(from, _) if from.node == NodeId(1));
        n.nodes[&2].inbox.iter().any(|(_, input)| of_it(input))
    });
    net.node(1).paused = true;
    net.run(305);
    net.node(1).paused = false;
    let joining = |n: &Net, node: u16| n.core(node).readiness() == Readiness::Joining;
    net.until(2, "it joins again", |n| joining(n, 1));
    assert_eq!(
        net.when(2, |e| matches!(e, NodeEvent::PeerDown(_))),
        None,
        "nobody has noticed"
    );
    for _ in 0..1_000 {
        net.run(1);
        assert!(
            joining(&net, 2),
            "it lacks what the first one holds\n{}",
            net.page()
        );
    }
    net.mute.clear();
    net.until(500, "pulled", |n| n.core(2).readiness() == Readiness::Ready);
    net.until(500, "and so is the first one", |n| {
        n.core(1).readiness() == Readiness::Ready
    });
    net.run(200);
    net.assert_settled();
}

/// Its own addresses come home to a node long after all hear it: what it says of it then may be lost, and is said for a while.
#[test]
fn what_is_at_home_again_is_announced_for_a_while() {
    let mut net = Net::ready(2);
    net.crash(1);
    net.run(1_000);
    net.mute = [2].into();
    net.start(1, 2);
    net.run(60_000);
    assert_eq!(net.nodes[&1].announced, 0, "it answers for nothing");
    net.mute.clear();
    net.until(1_500, "ready", |n| n.core(1).readiness() == Readiness::Ready);
    net.until(100, "announced", |n| n.nodes[&1].announced > 0);
    let at = |net: &Net| {
        net.places
            .iter()
            .map(|(a, n)| (IpAddr::V4(*a), *n))
            .find(|(a, _)| *a == lip(1))
    };
    assert_eq!(at(&net), Some((lip(1), 1)));
    // As if a host had not heard it, nor what was said once more within a second.
    for wait in [1_000, 2_000, 3_000] {
        net.run(wait);
        let home = net.places.iter_mut().find(|(a, _)| IpAddr::V4(**a) == lip(1));
        *home.expect("it is known").1 = 2;
        net.until(8_000, "said again", |n| at(n) == Some((lip(1), 1)));
    }
    net.run(20_000);
    let announced = net.nodes[&1].announced;
    net.run(40_000);
    assert_eq!(net.nodes[&1].announced, announced, "it comes to an end");
}

/// Scenarios 16 and 18: sources die in bulk.
#[test]
fn sources_that_die_are_replaced_and_without_any_it_is_degraded() {
    let mut net = Net::ready(3);
    net.crash(3);
    net.run(1_000);
    net.mute = [1, 2].into();
    net.start(3, 2);
    net.run(600);
    assert_eq!(net.core(3).readiness(), Readiness::Joining);
    net.crash(1);
    net.mute.remove(&2);
    net.until(2_000, "from the other one", |n| {
        n.core(3).readiness() == Readiness::Ready
    });
    net.crash(3);
    net.run(1_000);
    net.mute = [2].into();
    net.start(3, 3);
    net.run(600);
    net.crash(2);
    net.until(2_000, "nobody is left", |n| {
        n.core(3).readiness() == Readiness::Degraded
    });
    assert!(net.saw(3, NodeEvent::Alarm(Alarm::Cold)));
    assert!(net.saw(3, NodeEvent::Alarm(Alarm::AdoptedUnready(group(2, 1)))));
    net.run(200);
    net.assert_settled();
    assert_eq!(net.core(3).creating(), Some(group(3, 3)));
}

/// Who has everything does not hear the node yet; who hears it joins itself, and has nothing: that one is not asked.
#[test]
fn who_joins_is_asked_by_nobody_while_another_one_has_more() {
    let mut net = Net::ready(3);
    net.crash(1);
    net.crash(3);
    net.run(1_000);
    net.mute.insert(2);
    net.no_sync.insert((1, 2));
    net.start(3, 2);
    net.start(1, 2);
    net.run(600);
    assert_eq!(net.core(3).readiness(), Readiness::Joining);
    let known = net.nodes[&1].workers[0].groups.contains_key(&group(2, 1));
    assert!(known, "it has heard of what it lacks");
    let pulled = &net.nodes[&1].workers[0].pulled;
    let own = |(id, _): &(GroupId, PeerId)| *id == group(3, 2);
    assert!(pulled.iter().all(own), "what node 3 has is its own: {pulled:?}");
    net.no_sync.clear();
    net.mute.clear();
    net.until(2_000, "both are ready", |n| {
        [1, 3]
            .iter()
            .all(|id| n.core(*id).readiness() == Readiness::Ready)
    });
    let source = net.core(2).id();
    let of_old: Vec<_> = net.nodes[&1].workers[0]
        .pulled
        .iter()
        .filter(|(id, _)| [group(1, 1), group(2, 1), group(3, 1)].contains(id))
        .collect();
    assert!(of_old.len() >= 3 && of_old.iter().all(|(_, from)| *from == source));
}

#[test]
fn another_map_of_shares_is_never_ready() {
    let mut net = Net::new(2);
    net.start(1, 1);
    net.configure = |c| c.members[0].local_addrs.clear();
    net.start(2, 1);
    net.run(5_000);
    for n in [1, 2] {
        assert_eq!(net.core(n).readiness(), Readiness::Joining);
        assert!(net.saw(n, NodeEvent::Alarm(Alarm::SharesDiffer(NodeId(3 - n)))));
        assert_eq!(net.core(n).creating(), None);
    }
    // One that serves already goes on, alarmed.
    let mut net = Net::ready(2);
    net.crash(2);
    net.run(1_000);
    net.configure = |c| c.members[0].local_addrs.clear();
    net.start(2, 2);
    net.run(3_000);
    assert_eq!(net.core(1).readiness(), Readiness::Ready);
    assert_eq!(net.core(2).readiness(), Readiness::Joining);
    assert!(net.core(1).alarms().any(|a| a == Alarm::SharesDiffer(NodeId(2))));
}

/// A link for VRRP that works beside a sync network that does not: no cold node takes over.
#[test]
fn a_master_heard_but_not_asked_is_not_replaced() {
    let mut net = Net::ready(2);
    net.crash(1);
    net.run(1_000);
    net.cut(1, 2, true, false);
    net.start(1, 2);
    net.run(4_000);
    assert_eq!(net.core(1).readiness(), Readiness::Joining);
    assert!(net.core(1).alarms().any(|a| a == Alarm::SyncUnreachable));
    assert_eq!(net.masters(), [2]);
    net.heal();
    net.until(2_000, "ready", |n| n.core(1).readiness() == Readiness::Ready);
    net.run(1_000);
    assert_eq!(net.masters(), [1]);
    assert_eq!(net.core(1).alarms().count(), 0);
}

/// Time that passes while nothing can be heard does not count: its clock may have jumped, too.
#[test]
fn a_node_that_stood_still_while_it_joins_goes_on_listening() {
    let mut net = Net::ready(2);
    net.crash(1);
    net.run(1_000);
    net.cut(1, 2, true, false);
    net.start(1, 2);
    net.run(5);
    net.node(1).paused = true;
    net.run(1_800);
    let node = net.node(1);
    node.paused = false;
    node.inbox.clear();
    net.run(3_000);
    assert_eq!(net.core(1).counters().pauses, 1);
    assert_eq!(net.core(1).readiness(), Readiness::Joining);
    assert_eq!(net.core(1).creating(), None);
    assert_eq!(net.masters(), [2]);
    net.heal();
    net.until(2_000, "ready", |n| n.core(1).readiness() == Readiness::Ready);
}

#[test]
fn messages_of_strangers_and_of_lives_that_are_over_are_counted() {
    let mut net = Net::ready(2);
    let now = net.now();
    let claim = |group, epoch, role| NodeMessage::Heartbeat {
        shares: 0,
        readiness: Readiness::Ready,
        draining: false,
        claims: alloc::vec![GroupClaim { group, epoch, role }],
        hears: alloc::vec![],
        late: 0,
    };
    let epoch = |term, holder| Epoch { term, holder };
    let before: alloc::vec::Vec<_> = net.core(1).groups().collect();
    let core = &mut net.node(1).core;
    let m = claim(group(9, 1), epoch(9, peer(9, 1)), Role::Owned);
    core.handle_peer(now, peer(9, 1), &m);
    core.handle_peer(now, peer(2, 0), &m);
    core.handle_peer(now, peer(1, 1), &m);
    assert_eq!(core.counters().peer_unknown, 3);
    core.handle_peer(
        now,
        peer(2, 2),
        &claim(group(2, 2), epoch(1, peer(2, 2)), Role::Owned),
    );
    core.handle_peer(now, peer(2, 1), &m);
    assert_eq!(core.counters().peer_stale, 1);
    // Of no member, for another one, of no term.
    for (g, e) in [
        (group(9, 1), epoch(5, peer(2, 2))),
        (group(2, 2), epoch(5, peer(1, 1))),
        (group(2, 2), epoch(0, peer(2, 2))),
        (group(2, 2), epoch(7, peer(9, 2))),
    ] {
        core.handle_peer(now, peer(2, 2), &claim(g, e, Role::Owned));
    }
    assert_eq!(core.counters().claim_refused, 4);
    core.handle_peer(now, peer(1, 77), &m);
    assert!(core.alarms().any(|a| a == Alarm::DuplicateNode));
    core.handle_frame(now, crate::port::PortId(0), &[0; 60]);
    assert_eq!(core.counters().frame_refused, 1);
    core.handle_event(
        now,
        crate::port::WorkerId(9),
        SyncEvent::Offered { group: group(1, 1) },
    );
    assert_eq!(core.counters().worker_event_refused, 1);
    let after: alloc::vec::Vec<_> = net.core(1).groups().collect();
    assert_eq!(before[0], after[0], "its own group is as it was");
    assert!(net.core(1).is_master(Family::V4));
}

/// More generations than may be: the node gets one back instead of opening a fifth.
#[test]
fn generations_are_bounded_and_one_is_handed_back() {
    let mut net = Net::ready(2);
    for life in 2..=5 {
        let newest = net
            .core(2)
            .groups()
            .map(|(id, ..)| id)
            .filter(|id| id.node.0 == 2)
            .max();
        net.sessions(1, newest.expect("it has one"), 3);
        net.crash(2);
        net.run(1_000);
        net.start(2, life);
        net.until(3_000, "ready", |n| n.core(2).readiness() == Readiness::Ready);
        for g in 1..life {
            net.sessions(1, group(2, g), 3);
        }
        net.run(500);
    }
    net.until(2_000, "it creates in one that was handed back", |n| {
        n.core(2).creating() == Some(group(2, 1))
    });
    net.run(300);
    assert_eq!(net.holders(group(2, 1)), [2]);
    let count = |n: u16| net.core(n).groups().filter(|(id, ..)| id.node.0 == 2).count();
    assert_eq!((count(1), count(2)), (4, 4));
    net.assert_settled();
}

#[test]
fn a_peer_that_does_not_hear_is_alarmed_and_a_slow_one_is_not_waited_for() {
    let mut net = Net::ready(2);
    net.no_sync.insert((2, 1));
    net.run(1_000);
    assert!(net.core(2).alarms().any(|a| a == Alarm::OneWay(NodeId(1))));
    assert_eq!(net.holders(group(2, 1)), [1], "who is not heard is not there");
    net.heal();
    net.run(1_000);
    assert_eq!(net.core(2).alarms().count(), 0);
    net.assert_settled();

    let slow = net.core(2).id();
    net.report(1, 0, |s| s.unacked = alloc::vec![(slow, 10_000)]);
    net.run(20);
    let now = net.now();
    let core = &mut net.node(1).core;
    core.handle_event(now, crate::port::WorkerId(0), SyncEvent::OutOfSync(slow));
    net.drain(1);
    net.run(20);
    assert!(net.saw(1, NodeEvent::Alarm(Alarm::OutOfSync(slow))));
    assert!(net.nodes[&1].workers.iter().all(|w| !w.peers[0].in_sync));
    // It is told, and knows that it is nobody to count on.
    net.until(300, "told", |net| {
        net.core(2).alarms().any(|a| a == Alarm::Lagging)
    });
    assert_eq!(net.core(2).readiness(), Readiness::Degraded);
    // Few records are all that there was to tell; it has not acked even these.
    net.report(1, 0, |s| {
        s.unacked = alloc::vec![(slow, 3)];
        s.late = alloc::vec![slow];
    });
    net.run(1_000);
    assert!(!net.saw(1, NodeEvent::Cleared(Alarm::OutOfSync(slow))));
    assert_eq!(net.core(2).readiness(), Readiness::Degraded);
    net.report(1, 0, |s| s.late.clear());
    net.run(20);
    assert!(net.saw(1, NodeEvent::Cleared(Alarm::OutOfSync(slow))));
    assert!(net.nodes[&1].workers.iter().all(|w| w.peers[0].in_sync));
    net.until(300, "told again", |net| {
        net.core(2).readiness() == Readiness::Ready
    });

    net.report(1, 0, |s| s.behind = alloc::vec![(slow, 1_000)]);
    net.run(1_500);
    assert_eq!(net.core(1).readiness(), Readiness::Degraded);
    net.report(1, 0, |s| s.behind.clear());
    net.run(20);
    assert_eq!(net.core(1).readiness(), Readiness::Ready);

    // Slots that do not come for want of room, and a peer that refuses.
    let theirs = net.core(2).creating().expect("it serves");
    net.report(1, 0, |s| s.lacking = alloc::vec![(theirs, 3)]);
    net.run(500);
    assert_eq!(net.core(1).readiness(), Readiness::Ready, "it may pass");
    net.run(1_000);
    assert_eq!(net.core(1).readiness(), Readiness::Degraded);
    assert!(net.saw(1, NodeEvent::Alarm(Alarm::Incomplete)));
    net.command(2, NodeCommand::Drain);
    net.until(300, "no heir", |net| {
        net.core(2).alarms().any(|a| a == Alarm::NoHeir)
    });
    net.report(1, 0, |s| s.lacking.clear());
    net.until(3_000, "it leaves", |net| net.core(2).is_drained());

    let now = net.now();
    net.node(1)
        .core
        .handle_event(now, crate::port::WorkerId(0), SyncEvent::Refused(slow));
    net.drain(1);
    assert!(net.core(1).alarms().any(|a| a == Alarm::PeerFull(slow)));
    net.run(1_000);
    assert!(
        net.core(1).alarms().any(|a| a == Alarm::PeerFull(slow)),
        "not for a while yet"
    );
    net.run(2_000);
    assert!(net.saw(1, NodeEvent::Cleared(Alarm::PeerFull(slow))));

    let now = net.now();
    net.node(1)
        .core
        .handle_event(now, crate::port::WorkerId(0), SyncEvent::Refused(slow));
    net.drain(1);
    net.crash(2);
    net.until(1_000, "nobody is left to be full", |net| {
        !net.core(1).alarms().any(|a| matches!(a, Alarm::PeerFull(_)))
    });
}
