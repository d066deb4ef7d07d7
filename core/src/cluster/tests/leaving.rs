use super::net::*;
use crate::cluster::*;
use crate::sync::Readiness;
use alloc::vec::Vec;

/// Scenario 29.
#[test]
fn drain_hands_over_once_the_heir_has_all() {
    let mut net = Net::ready(2);
    net.report(1, 0, |s| s.unacked = alloc::vec![(peer(2, 1), 4)]);
    net.run(5);
    net.command(1, NodeCommand::Drain);
    net.run(500);
    assert_eq!(net.core(1).role(group(1, 1)), Some(Role::Draining));
    assert_eq!(net.core(1).creating(), None);
    assert!(net.nodes[&1].workers.iter().all(|w| w.create.is_none()));
    assert_eq!(net.masters(), [2], "the addresses go first");
    assert_eq!(net.handovers, 0, "something is not applied yet");
    assert!(net.core(1).answering().addrs.iter().any(|a| a.0 == lip(1)));
    net.report(1, 0, |s| s.unacked.clear());
    let at = net.ms;
    for _ in 0..100 {
        net.run(1);
        assert!(!net.holders(group(1, 1)).is_empty(), "never without an owner");
    }
    assert!(net.handovers > 0);
    let taken = net
        .when(2, |e| matches!(e, NodeEvent::Adopted(..)))
        .expect("taken");
    assert!(taken - at < 30, "by one exchange");
    assert_eq!(net.holders(group(1, 1)), [2]);
    let epoch = Epoch {
        term: 2,
        holder: peer(2, 1),
    };
    assert!(net.saw(1, NodeEvent::HandedOver(group(1, 1), epoch)));
    assert!(net.saw(1, NodeEvent::Drained) && net.core(1).is_drained());
    net.run(200);
    assert!(
        net.core(2).answering().addrs.iter().any(|a| a.0 == lip(1)),
        "and its address"
    );
    assert!(net.core(1).answering().addrs.is_empty());
    net.assert_settled();
    assert!(
        net.nodes[&1].workers[0]
            .pulled
            .iter()
            .all(|(g, _)| *g != group(1, 1)),
        "no pull"
    );

    net.command(1, NodeCommand::Undrain);
    net.run(2_000);
    assert_eq!(net.core(1).creating(), Some(group(1, 2)));
    assert_eq!(net.masters(), [1]);
    assert!(net.core(1).answering().addrs.iter().any(|a| a.0 == lip(1)));
    net.assert_settled();
}

#[test]
fn drain_without_an_heir_goes_on_serving() {
    let mut net = Net::ready(2);
    net.crash(2);
    net.run(1_000);
    net.command(1, NodeCommand::Drain);
    net.run(1_000);
    assert!(net.core(1).alarms().any(|a| a == Alarm::NoHeir));
    assert_eq!(net.core(1).creating(), Some(group(1, 1)));
    assert_eq!(net.masters(), [1]);
    net.start(2, 2);
    net.until(3_000, "drained", |n| n.core(1).is_drained());
    assert_eq!(net.core(1).alarms().count(), 0);
    assert_eq!(net.holders(group(1, 1)), [2]);
    assert_eq!(net.holders(group(2, 1)), [2]);
}

#[test]
fn an_heir_that_dies_is_replaced_and_undrain_takes_back() {
    let mut net = Net::ready(3);
    net.report(3, 1, |s| {
        s.unacked = alloc::vec![(peer(1, 1), 4), (peer(2, 1), 4)]
    });
    net.run(5);
    net.command(3, NodeCommand::Drain);
    net.run(300);
    assert_eq!(net.core(3).role(group(3, 1)), Some(Role::Draining));
    net.crash(1);
    net.run(800);
    net.report(3, 1, |s| s.unacked.clear());
    net.until(500, "to the other one", |n| n.holders(group(3, 1)) == [2]);
    net.command(2, NodeCommand::Drain);
    net.run(300);
    assert!(
        net.core(2).alarms().any(|a| a == Alarm::NoHeir),
        "the other one wants to leave too"
    );
    net.command(2, NodeCommand::Undrain);
    net.run(300);
    assert_eq!(net.core(2).role(group(2, 1)), Some(Role::Owned));
    assert_eq!(net.core(2).alarms().count(), 0);

    net.report(2, 0, |s| s.unacked = alloc::vec![(peer(3, 1), 1)]);
    net.command(3, NodeCommand::Undrain);
    net.run(1_000);
    net.command(2, NodeCommand::Drain);
    net.run(200);
    assert_eq!(net.core(2).role(group(2, 1)), Some(Role::Draining));
    net.command(2, NodeCommand::Undrain);
    net.run(200);
    assert_eq!(
        net.core(2).role(group(2, 1)),
        Some(Role::Owned),
        "taken back in time"
    );
    assert_eq!(net.core(2).creating(), Some(group(2, 1)));
    net.assert_settled();
}

/// Changes never pause, so that at no moment all is acknowledged: a few do not keep the node for ever.
#[test]
fn a_busy_node_drains_too() {
    let mut net = Net::ready(2);
    net.report(1, 0, |s| s.unacked = alloc::vec![(peer(2, 1), 500)]);
    net.run(5);
    net.command(1, NodeCommand::Drain);
    net.run(3_000);
    assert_eq!(net.handovers, 0, "too many");
    net.report(1, 0, |s| s.unacked = alloc::vec![(peer(2, 1), 9)]);
    net.until(100, "handed over", |n| n.core(1).is_drained());
    net.run(500);
    net.assert_settled();
}

#[test]
fn a_node_that_says_goodbye_is_not_waited_for() {
    let mut net = Net::ready(2);
    net.command(1, NodeCommand::Shutdown);
    let at = net.ms;
    net.until(100, "adopted", |n| {
        n.core(2).role(group(1, 1)) == Some(Role::Owned)
    });
    assert!(net.ms - at < 20);
    net.until(100, "master", |n| n.masters() == [2]);
    net.crash(1);
    net.run(2_000);
    assert_eq!(net.core(2).readiness(), Readiness::Ready);
    net.assert_settled();
}

#[test]
fn a_drain_through_queues_that_lose_ends_too() {
    let mut net = Net::ready(2);
    net.queue_ms = 30;
    net.loss = 3;
    net.command(1, NodeCommand::Drain);
    net.until(3_000, "drained", |n| n.core(1).is_drained());
    net.until(3_000, "owned", |n| {
        n.core(2).role(group(1, 1)) == Some(Role::Owned)
    });
    net.loss = u64::MAX;
    net.run(1_000);
    net.assert_settled();
}

#[test]
fn a_promoted_node_is_master_until_it_is_demoted_or_drained() {
    let mut net = Net::ready(2);
    assert_eq!(net.masters(), [1], "by its priority");
    net.command(2, NodeCommand::Promote);
    assert!(net.core(2).is_promoted());
    let mut at_once = 0;
    for _ in 0..2_000 {
        net.run(1);
        at_once = at_once.max(net.masters().len());
    }
    assert_eq!(net.masters(), [2]);
    assert!(
        at_once <= 2,
        "two only while the old one has not heard the new one"
    );
    // Who holds which sessions does not change.
    assert_eq!(net.holders(group(1, 1)), [1]);
    assert_eq!(net.holders(group(2, 1)), [2]);
    net.assert_settled();

    // Another one that is promoted does not take it away.
    net.command(1, NodeCommand::Promote);
    net.run(2_000);
    assert_eq!(net.masters(), [2]);
    net.command(1, NodeCommand::Demote);
    net.command(2, NodeCommand::Demote);
    net.run(2_000);
    assert_eq!(net.masters(), [1]);

    net.command(2, NodeCommand::Promote);
    net.run(2_000);
    assert_eq!(net.masters(), [2]);
    net.command(2, NodeCommand::Drain);
    net.run(2_000);
    assert!(!net.core(2).is_promoted(), "who leaves does not want it any more");
    assert_eq!(net.masters(), [1]);
    assert!(net.core(2).is_drained() && !net.core(2).is_serving());
}

#[test]
fn reports_say_what_the_node_knows_of_peers_and_groups() {
    let mut net = Net::ready(2);
    net.report(1, 0, |s| {
        s.unacked = alloc::vec![(peer(2, 1), 4)];
        s.behind = alloc::vec![(peer(2, 1), 3), (peer(2, 9), 100)];
    });
    net.sessions(1, group(1, 1), 17);
    net.run(50);
    let peers: Vec<_> = net.core(1).peer_reports().collect();
    assert_eq!(peers.len(), 1);
    let two = peers[0];
    assert_eq!((two.id, two.life), (NodeId(2), Some(peer(2, 1))));
    assert_eq!((two.unacked, two.behind), (4, 3), "of its present life");
    assert_eq!(two.readiness, Readiness::Ready);
    assert!(two.hears_me && two.can_inherit && !two.draining && !two.out_of_sync);
    let own = net.core(1).group_reports().find(|g| g.id == group(1, 1));
    let own = own.expect("its own group");
    assert_eq!(
        (own.role, own.sessions, own.lacking),
        (Role::Owned, 34, 0),
        "of both workers"
    );
    net.crash(2);
    net.run(1_000);
    let two = net.core(1).peer_reports().next().expect("a member");
    assert_eq!((two.life, two.can_inherit), (None, false));
}
