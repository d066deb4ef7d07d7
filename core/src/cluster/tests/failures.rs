use super::net::*;
use crate::cluster::*;
use crate::sync::Readiness;

#[test]
fn a_crashed_nodes_groups_are_adopted_after_its_silence() {
    let mut net = Net::ready(2);
    let at = net.ms;
    net.crash(1);
    net.until(1_000, "adopted", |n| n.holders(group(1, 1)) == [2]);
    let down = net
        .when(2, |e| matches!(e, NodeEvent::PeerDown(_)))
        .expect("seen")
        - at;
    assert!((200..=450).contains(&down), "detected after {down} ms");
    net.until(100, "owned", |n| n.core(2).role(group(1, 1)) == Some(Role::Owned));
    let epoch = net.core(2).epoch(group(1, 1)).expect("known");
    assert_eq!(
        epoch,
        Epoch {
            term: 2,
            holder: peer(2, 1)
        }
    );
    assert!(net.saw(2, NodeEvent::Adopting(group(1, 1), epoch)));
    assert!(net.saw(2, NodeEvent::Adopted(group(1, 1), epoch)));
    net.run(200);
    assert_eq!(net.masters(), [2]);
    let answered: alloc::vec::Vec<_> = net.core(2).answering().addrs.iter().map(|a| a.0).collect();
    assert_eq!(answered, [lip(1), lip(2), vip()], "and the dead one's address");
    assert!(net.nodes[&2].workers.iter().all(|w| w.answering == answered));
    assert!(net.nodes[&2].announced > 0);
    assert_eq!(
        net.core(2).creating(),
        Some(group(2, 1)),
        "its own group for new sessions"
    );
    net.assert_settled();
}

#[test]
fn silent_on_sync_but_heard_by_vrrp_is_not_dead() {
    let mut net = Net::ready(2);
    assert_eq!(net.masters(), [1]);
    net.cut(1, 2, true, false);
    net.run(3_000);
    assert_eq!(net.holders(group(1, 1)), [1], "the backup hears the master");
    assert_eq!(net.core(2).epoch(group(1, 1)).map(|e| e.term), Some(1));
    net.cut(1, 2, true, true);
    net.until(1_000, "silent on both", |n| n.holders(group(1, 1)) == [1, 2]);
    assert_eq!(net.core(2).epoch(group(1, 1)).map(|e| e.term), Some(2));
}

/// Hosts send to whom they heard last. Whoever takes a node for dead takes its addresses; the node, which lives, says
/// within a second that they are its own, and again when it is heard again.
#[test]
fn local_addresses_come_home_from_who_took_them() {
    for cut in ["both ways", "one way", "one way, and sync"] {
        let mut net = Net::ready(2);
        let homes: alloc::vec::Vec<_> = [1, 2].map(|n| (lip(n), n)).into();
        let places = |net: &Net| -> alloc::vec::Vec<_> {
            let locals = net.places.iter().map(|(a, n)| (core::net::IpAddr::V4(*a), *n));
            locals.filter(|(a, _)| *a != vip()).collect()
        };
        assert_eq!(places(&net), homes);
        match cut {
            "both ways" => net.cut(1, 2, true, true),
            other => {
                net.no_sync.insert((1, 2));
                net.no_vrrp.insert((1, 2));
                // It hears the other one by VRRP, and does not think it dead.
                net.cut(1, 2, other != "one way", false);
            }
        }
        net.until(1_000, "taken", |n| places(n)[0] == (lip(1), 2));
        net.until(1_200, "taken back", |n| places(n) == homes);
        net.run(8_000);
        assert_eq!(places(&net), homes, "for good");
        // As if what was said meanwhile had been lost.
        net.places.clear();
        net.heal();
        net.run(1_000);
        assert_eq!(places(&net), homes, "{cut}");
        // And once more: hosts may have been cut off for as long as that.
        net.places.clear();
        net.run(4_000);
        assert_eq!(places(&net), homes, "{cut}");
        net.run(20_000);
        let announced = net.nodes[&1].announced;
        net.run(40_000);
        assert_eq!(net.nodes[&1].announced, announced, "it comes to an end");
    }
}

/// A node that was alone, and has told the network that it has the addresses of all, hears one that was started meanwhile and has said for long
/// enough where its own are: that one says it again, whoever of the two hears the other one first.
#[test]
fn addresses_come_home_from_who_did_not_know_that_their_node_was_started() {
    for offset in (0..100).step_by(5) {
        let mut net = Net::ready(3);
        let at = |net: &Net| {
            net.places
                .iter()
                .find(|(a, _)| core::net::IpAddr::V4(**a) == lip(1))
                .map(|(_, n)| *n)
        };
        for n in [1, 3] {
            net.cut(2, n, true, true);
        }
        net.until(1_000, "taken", |n| at(n) == Some(2));
        net.crash(1);
        net.run(1_000);
        net.start(1, 2);
        net.run(60_000 + offset);
        assert_eq!(at(&net), Some(1));
        let home = *net
            .places
            .keys()
            .find(|a| core::net::IpAddr::V4(**a) == lip(1))
            .expect("it was announced");
        // It stood still, and says it only now.
        net.places.insert(home, 2);
        net.heal();
        net.run(5_000);
        assert_eq!(at(&net), Some(1), "after {offset} ms more");
    }
}

#[test]
fn one_adopter_among_several_survivors() {
    let mut net = Net::ready(4);
    net.crash(3);
    net.until(1_000, "adopted", |n| n.holders(group(3, 1)) == [1]);
    net.run(500);
    net.assert_settled();
    for n in [2, 4] {
        assert!(
            net.when(n, |e| matches!(e, NodeEvent::Adopting(..))).is_none(),
            "node {n}"
        );
    }
}

/// 1 and 2 do not hear each other for a while: both think that they are to adopt. The higher epoch wins.
#[test]
fn adopters_with_different_views_end_as_one() {
    let mut net = Net::ready(3);
    net.cut(1, 2, true, true);
    net.run(10);
    net.crash(3);
    net.until(1_000, "both adopt", |n| n.holders(group(3, 1)) == [1, 2]);
    net.run(1_000);
    net.heal();
    net.run(2_000);
    assert_eq!(net.holders(group(3, 1)), [2], "equal terms: the higher node");
    let epoch = Epoch {
        term: 2,
        holder: peer(2, 1),
    };
    assert!(net.saw(1, NodeEvent::Fenced(group(3, 1), epoch)));
    net.assert_settled();
}

/// The sync network is cut, and the master's advertisements come: it is not dead, but nothing that it tells comes here.
#[test]
fn a_master_whose_advertisements_alone_are_heard_is_an_alarm() {
    let mut net = Net::ready(2);
    assert_eq!(net.masters(), [1]);
    net.cut(1, 2, true, false);
    net.run(2_000);
    assert_eq!(net.masters(), [1], "it is not dead");
    assert!(net.core(2).alarms().eq([Alarm::Unheard(NodeId(1))]));
    net.heal();
    net.run(500);
    assert_eq!(net.core(2).alarms().count(), 0);
    net.assert_settled();
}

/// 1 and 3 do not hear each other, and 2 hears both: nobody is dead, nothing changes hands.
#[test]
fn two_that_a_third_one_hears_do_not_take_from_each_other() {
    let mut net = Net::ready(3);
    net.cut(1, 3, true, true);
    net.run(5_000);
    for n in 1..=3 {
        assert_eq!(net.holders(group(n, 1)), [n]);
        assert_eq!(net.core(2).epoch(group(n, 1)).map(|e| e.term), Some(1));
    }
    assert!(net.core(1).alarms().eq([Alarm::Unheard(NodeId(3))]));
    net.crash(3);
    net.until(700, "adopted", |n| n.holders(group(3, 1)) == [1]);
    net.heal();
    net.run(500);
    assert_eq!(net.core(1).alarms().count(), 0);
    net.assert_settled();
}

/// Scenario 13.
#[test]
fn a_zombie_is_suspect_by_itself_then_fenced_and_creates_anew() {
    let mut net = Net::ready(2);
    net.sessions(2, group(1, 1), 3);
    net.node(1).paused = true;
    net.run(60_000);
    assert_eq!(net.masters(), [1, 2], "it cannot know");
    let lease = net.nodes[&1].workers[0].lease.expect("it had one");
    assert!(lease < net.now(), "its workers stop by themselves");
    net.clear_events();
    net.node(1).paused = false;
    let resumed = net.ms;
    net.run(1);
    assert_eq!(net.core(1).lease_until(), None);
    let suspect = net.when(1, |e| *e == NodeEvent::Suspect(group(1, 1)));
    assert_eq!(suspect, Some(net.ms), "before it hears of anything");
    assert_eq!(net.masters(), [2], "it stands back");
    assert!(
        net.when(1, |e| matches!(e, NodeEvent::PeerDown(_))).is_none(),
        "others' silence proves nothing"
    );
    net.until(500, "fenced", |n| {
        n.core(1).role(group(1, 1)) != Some(Role::Suspect)
    });
    let epoch = Epoch {
        term: 2,
        holder: peer(2, 1),
    };
    assert!(net.saw(1, NodeEvent::Fenced(group(1, 1), epoch)));
    assert!(net.ms - resumed < 250, "by the first word of the other one");
    net.until(2_000, "ready again", |n| {
        n.core(1).readiness() == Readiness::Ready
    });
    net.run(1_000);
    assert_eq!(net.core(1).creating(), Some(group(1, 2)), "a new generation");
    assert_eq!(net.core(1).role(group(1, 1)), Some(Role::Replica));
    assert_eq!(net.core(2).role(group(1, 2)), Some(Role::Replica));
    assert!(!net.saw(1, NodeEvent::Renewed(group(1, 1))));
    assert_eq!(net.masters(), [1], "ready, so it preempts");
    net.assert_settled();
}

/// As before, and the other one has forgotten the group meanwhile, as all in it was over.
#[test]
fn a_zombie_does_not_bring_back_what_is_over() {
    let mut net = Net::ready(2);
    net.sessions(2, group(1, 1), 0);
    net.node(1).paused = true;
    net.run(60_000);
    assert!(net.saw(2, NodeEvent::Forgotten(group(1, 1))));
    net.node(1).inbox.clear();
    net.node(1).paused = false;
    net.until(500, "fenced", |n| {
        n.when(1, |e| matches!(e, NodeEvent::Fenced(..))).is_some()
    });
    let epoch = Epoch {
        term: 2,
        holder: peer(2, 1),
    };
    assert!(net.saw(1, NodeEvent::Fenced(group(1, 1), epoch)));
    net.until(1_000, "the new generation is known", |n| {
        n.core(2).role(group(1, 2)) == Some(Role::Replica)
    });
    net.run(1_000);
    net.assert_settled();
    net.sessions(1, group(1, 1), 0);
    net.sessions(2, group(1, 1), 0);
    net.run(15_000);
    assert_eq!(
        (net.core(1).role(group(1, 1)), net.core(2).role(group(1, 1))),
        (None, None)
    );
}

/// A pause that nobody else noticed: the lease is uncertain until the others were heard again.
#[test]
fn a_short_pause_ends_in_a_renewal() {
    let mut net = Net::ready(2);
    let lease = net.core(2).lease_until();
    net.until(200, "a heartbeat leaves", |n| n.core(2).lease_until() != lease);
    net.node(2).paused = true;
    net.run(255);
    net.node(2).paused = false;
    net.run(1);
    assert_eq!(net.core(2).role(group(2, 1)), Some(Role::Suspect));
    assert_eq!(net.core(2).creating(), Some(group(2, 1)), "creation goes on");
    net.until(500, "renewed", |n| {
        n.core(2).role(group(2, 1)) == Some(Role::Owned)
    });
    assert!(net.saw(2, NodeEvent::Renewed(group(2, 1))));
    net.run(200);
    assert!(net.core(2).lease_until().is_some());
    assert_eq!(net.core(2).epoch(group(2, 1)).map(|e| e.term), Some(1));
    net.assert_settled();
}

/// Scenario 34.
#[test]
fn split_brain_heals_to_one_holder_each_and_creation_goes_on() {
    let mut net = Net::ready(2);
    net.cut(1, 2, true, true);
    net.run(5_000);
    assert_eq!(net.masters(), [1, 2]);
    for n in [1, 2] {
        assert_eq!(net.holders(group(n, 1)), [1, 2], "each side has adopted");
        assert_eq!(net.core(n).readiness(), Readiness::Ready);
    }
    net.heal();
    for _ in 0..3_000 {
        net.run(1);
        for n in [1, 2] {
            assert!(net.core(n).creating().is_some(), "creation never stops");
        }
    }
    assert_eq!(net.masters(), [1]);
    assert_eq!(net.holders(group(1, 1)), [2]);
    assert_eq!(net.holders(group(2, 1)), [1]);
    assert_eq!(net.core(1).creating(), Some(group(1, 2)));
    assert_eq!(net.core(2).creating(), Some(group(2, 2)));
    let pulled = &net.nodes[&2].workers[1].pulled;
    assert!(
        pulled.iter().any(|(g, _)| *g == group(1, 2)),
        "what was missed is pulled"
    );
    net.assert_settled();
}

/// Who comes back hears first somebody who joins as well and has nothing, and asks that one, as nobody else is there. Then it
/// hears the one that has all, which has taken its old group meanwhile: each worker is told to pull from there.
#[test]
fn a_better_source_is_told_to_every_worker() {
    for gap in 1..12 {
        let mut net = Net::ready(3);
        net.crash(2);
        net.run(500);
        net.start(2, 9);
        net.run(3);
        assert_eq!(net.core(2).readiness(), Readiness::Joining);
        net.crash(1);
        net.run(1);
        net.cut(1, 3, true, true);
        net.start(1, 9);
        // What workers are told, and what they say, may be lost.
        net.loss = 3;
        net.run(gap);
        net.heal();
        net.until(5_000, "ready", |n| n.core(1).readiness() == Readiness::Ready);
        for worker in &net.nodes[&1].workers {
            let mut of_old = worker.pulled.iter().filter(|(g, _)| *g == group(1, 1));
            assert_eq!(of_old.next_back().map(|p| p.1), Some(peer(3, 1)), "{gap} ms");
        }
    }
}

/// A restart that is quicker than silence.
#[test]
fn an_earlier_life_is_dead_at_once() {
    let mut net = Net::ready(2);
    net.crash(2);
    net.run(20);
    net.start(2, 9);
    let at = net.ms;
    net.until(150, "its old group is adopted", |n| n.holders(group(2, 1)) == [1]);
    assert!(net.ms - at < 20);
    assert!(net.saw(1, NodeEvent::PeerDown(peer(2, 1))));
    assert!(net.saw(1, NodeEvent::PeerUp(peer(2, 9))));
    assert_eq!(net.core(2).readiness(), Readiness::Joining);
    net.run(5);
    assert!(
        net.core(1).answering().addrs.iter().any(|a| a.0 == lip(2)),
        "until it is ready"
    );
    net.until(2_000, "ready", |n| n.core(2).readiness() == Readiness::Ready);
    let pulled = &net.nodes[&2].workers[0].pulled;
    assert!(pulled.contains(&(group(2, 1), peer(1, 1))) && pulled.contains(&(group(1, 1), peer(1, 1))));
    net.run(150);
    assert!(net.core(1).answering().addrs.iter().all(|a| a.0 != lip(2)));
    assert!(net.core(2).answering().addrs.iter().any(|a| a.0 == lip(2)));
    assert_eq!(net.core(2).creating(), Some(group(2, 9)));
    net.assert_settled();
}

#[test]
fn an_empty_group_of_a_life_that_is_over_is_forgotten() {
    let mut net = Net::ready(2);
    net.crash(2);
    net.run(20);
    net.start(2, 9);
    net.run(2_000);
    net.sessions(1, group(2, 1), 5);
    net.sessions(2, group(2, 1), 5);
    net.run(15_000);
    assert_eq!(
        net.core(1).role(group(2, 1)),
        Some(Role::Owned),
        "sessions live in it"
    );
    net.sessions(1, group(2, 1), 0);
    net.sessions(2, group(2, 1), 0);
    net.run(13_000);
    for n in [1, 2] {
        assert_eq!(net.core(n).role(group(2, 1)), None);
        assert!(net.saw(n, NodeEvent::Forgotten(group(2, 1))));
        assert!(
            net.nodes[&n]
                .workers
                .iter()
                .all(|w| !w.groups.contains_key(&group(2, 1)))
        );
        assert_eq!(net.core(n).creating(), Some(group(n, if n == 2 { 9 } else { 1 })));
    }
    net.run(2_000);
    assert_eq!(net.core(1).groups().count(), 2, "nobody brings it back");
    net.assert_settled();
}

/// Restarts without end leave no more groups than fit.
#[test]
fn many_restarts_stay_within_bounds() {
    let mut net = Net::ready(3);
    for life in 2..20 {
        net.crash(3);
        net.run(30);
        net.start(3, life);
        net.run(400);
        for n in [1, 2, 3] {
            let of_it = net.core(n).groups().filter(|(id, ..)| id.node.0 == 3).count();
            assert!(of_it <= GENERATION_COUNT_MAX + 1);
            assert!(net.core(n).groups().count() <= GROUP_COUNT_MAX);
        }
    }
    net.run(500);
    for n in 1..=3 {
        for id in net.core(n).groups().map(|g| g.0).collect::<alloc::vec::Vec<_>>() {
            net.sessions(n, id, 0);
        }
    }
    net.run(30_000);
    assert!(net.core(3).creating().is_some(), "{}", net.page());
    assert_eq!(net.core(1).groups().count(), 3, "{}", net.page());
    net.assert_settled();
}

/// Queues that are slow and lose one in three of what passes them, in both directions.
#[test]
fn late_and_lost_confirmations_delay_claims_and_break_none() {
    for (queue_ms, loss) in [(1, 3), (40, u64::MAX), (25, 4), (70, 3)] {
        let mut net = Net::new(2);
        net.queue_ms = queue_ms;
        net.loss = loss;
        net.start(1, 1);
        net.start(2, 1);
        net.until(10_000, "ready", |n| {
            [1, 2].iter().all(|m| n.core(*m).readiness() == Readiness::Ready)
        });
        net.run(2_000);
        net.crash(1);
        net.until(3_000, "owned", |n| {
            n.core(2).role(group(1, 1)) == Some(Role::Owned)
        });
        net.start(1, 2);
        net.until(8_000, "ready again", |n| {
            n.core(1).readiness() == Readiness::Ready
        });
        net.cut(1, 2, true, true);
        net.run(2_000);
        net.heal();
        net.run(4_000);
        net.loss = u64::MAX;
        net.run(2_000);
        net.assert_settled();
        assert!(net.claims_of_owned > 100);
        for n in [1, 2] {
            assert!(net.core(n).creating().is_some());
            let created = net.core(n).creating();
            assert!(net.node(n).workers.iter().all(|w| w.create == created));
        }
    }
}
