//! Groups that change hands: adoption by the base rule, fenced holders and their offers, a drain.

use std::time::Duration;

use evenkeel_core::cluster::{Epoch, GroupId, Role};
use evenkeel_core::proto::ConnState;
use evenkeel_core::stats::SyncCount;
use evenkeel_core::sync::{PullMode, SyncBody, SyncCommand, SyncEvent, SyncMessage, Version};

use crate::net::{Net, NodeConfig};
use crate::packet::{FIN, SYN};

const MS: Duration = Duration::from_millis(1);

fn nodes(seed: u64, count: usize) -> Net {
    Net::joined(seed, &vec![NodeConfig::default(); count])
}

fn next(net: &Net, holder: usize, term: u64) -> Epoch {
    Epoch {
        term,
        holder: net.nodes[holder].id,
    }
}

/// All that are alive learn that `heir` adopts, and then that it has.
fn adopt(net: &mut Net, group: GroupId, heir: usize, term: u64) {
    let epoch = next(net, heir, term);
    for n in 0..net.nodes.len() {
        if net.nodes[n].alive {
            let role = if n == heir { Role::Adopting } else { Role::Replica };
            net.authority(n, group, epoch, role);
        }
    }
}

fn merged(net: &Net, heir: usize, group: GroupId) -> usize {
    net.nodes[heir].has_told(|e| matches!(e, SyncEvent::Merged { group: g, .. } if *g == group))
}

#[test]
fn a_lone_survivor_adopts_at_once_and_forwards_and_expires() {
    let mut net = nodes(0, 2);
    let group = net.group(0);
    let flows: Vec<_> = (0..100).map(|n| net.open(0, n)).collect();
    net.run(100 * MS);
    net.crash(0);
    net.meet();
    adopt(&mut net, group, 1, 2);
    net.run(5 * MS);
    assert_eq!(merged(&net, 1, group), 2, "both workers");
    for flow in &flows {
        net.forwarded(1, &flow.inbound());
        net.forwarded(1, &flow.outbound());
        assert_eq!(net.state(1, flow), Some(ConnState::Established));
    }
    net.fin(1, &flows[0]);
    assert_eq!(
        net.state(1, &flows[0]),
        Some(ConnState::CloseWait),
        "it advances now"
    );
    net.run(Duration::from_secs(100));
    assert_eq!(net.nodes[1].all(group).len(), 0, "and expires");
    assert_eq!(net.nodes[1].counters().expired, 100);
}

/// One survivor missed closes and opens that the other one has. Whoever adopts, what the one that knows more
/// knows, counts: closed stays closed.
#[test]
fn the_survivor_that_knows_most_is_the_base() {
    for (lagging, heir) in [(1, 1), (1, 2), (2, 2)] {
        let mut net = nodes(lagging as u64, 3);
        let group = net.group(0);
        let flows: Vec<_> = (0..120).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        assert_eq!(net.agree(0, lagging, group), 120);
        net.cut.insert((0, lagging));
        for flow in &flows[..40] {
            net.reset(0, flow);
        }
        net.run(Duration::from_millis(3500));
        for n in 200..260 {
            net.open(0, n);
        }
        net.run(100 * MS);
        let (more, less) = (3 - lagging, lagging);
        assert_eq!(net.agree(0, more, group), 140);
        assert_eq!(net.nodes[less].all(group).len(), 120, "it heard of nothing");
        net.crash(0);
        net.cut.clear();
        net.meet();
        adopt(&mut net, group, heir, 2);
        net.run(Duration::from_secs(2));
        assert_eq!(merged(&net, heir, group), 2);
        for n in [1, 2] {
            let all = net.nodes[n].all(group);
            assert_eq!(all.len(), 140, "node {n}, {lagging} lagged, {heir} adopts");
            for flow in &flows[..40] {
                assert_eq!(net.state(n, flow), None, "closed stays closed");
            }
        }
        assert_eq!(net.agree(1, 2, group), 140);
        // Life goes on in the new epoch.
        net.fin(heir, &flows[50]);
        net.run(100 * MS);
        let (a, b) = (net.state(1, &flows[50]), net.state(2, &flows[50]));
        assert_eq!((a, b), (Some(ConnState::CloseWait), Some(ConnState::CloseWait)));
    }
}

/// Ranges above the base's watermark are merged from others.
#[test]
fn what_one_survivor_has_beside_the_base_is_merged() {
    let mut net = nodes(1, 3);
    let group = net.group(0);
    for n in 0..40 {
        net.open(0, n);
    }
    net.run(200 * MS);
    // The first record of a burst is lost for both, the rest for one.
    net.cut.insert((0, 1));
    net.cut.insert((0, 2));
    for n in 40..44 {
        net.open(0, n);
    }
    net.run(5 * MS);
    net.cut.remove(&(0, 2));
    net.filter = |m| !matches!(m.body, SyncBody::Nack { .. } | SyncBody::Skip { .. });
    for n in 100..160 {
        net.open(0, n);
    }
    net.run(5 * MS);
    let (one, two) = (net.nodes[1].all(group).len(), net.nodes[2].all(group).len());
    assert!(one == 40 && two > 60, "{one} {two}");
    net.filter = |_| true;
    net.crash(0);
    net.cut.clear();
    net.meet();
    adopt(&mut net, group, 1, 2);
    net.run(Duration::from_secs(2));
    assert_eq!(net.nodes[1].all(group).len(), two);
    assert_eq!(net.nodes[2].all(group).len(), two);
}

#[test]
fn a_merge_that_is_lost_is_told_again() {
    let mut net = nodes(1, 3);
    let group = net.group(0);
    for n in 0..50 {
        net.open(0, n);
    }
    net.run(200 * MS);
    net.crash(0);
    net.meet();
    net.filter = |m| !matches!(m.body, SyncBody::Merged { .. });
    adopt(&mut net, group, 1, 2);
    net.run(300 * MS);
    net.filter = |_| true;
    net.run(300 * MS);
    // By the new epoch node 2 is a base of the next adoption.
    net.crash(1);
    net.meet();
    adopt(&mut net, group, 2, 3);
    net.run(300 * MS);
    assert_eq!(merged(&net, 2, group), 2);
    assert_eq!(net.nodes[2].all(group).len(), 50);
}

/// A drain: the heir has all, adopts, the old holder is a replica. No slot is pulled.
#[test]
fn a_drained_node_hands_over_without_a_pull() {
    let mut net = nodes(0, 2);
    let group = net.group(0);
    let flows: Vec<_> = (0..100).map(|n| net.open(0, n)).collect();
    // One that nobody was told of: its SYN-ACK has not come.
    let young = net.begin(0, crate::story::Kind::V4, evenkeel_core::tuple::L4Proto::Tcp, 900);
    net.run(200 * MS);
    let first = crate::net::first_epoch(net.nodes[0].id);
    net.command(0, &SyncCommand::Create(None));
    net.authority(0, group, first, Role::Draining);
    net.run(100 * MS);
    assert_eq!(net.nodes[0].unacked(), 0);
    let before = net.nodes[1].sync(SyncCount::SlotsPulled);
    adopt(&mut net, group, 1, 2);
    net.run(300 * MS);
    assert_eq!(merged(&net, 1, group), 2);
    assert_eq!(net.nodes[1].sync(SyncCount::SlotsPulled), before);
    for flow in flows.iter().chain([&young]) {
        net.forwarded(1, &flow.inbound());
    }
    net.fin(1, &flows[3]);
    net.run(100 * MS);
    assert_eq!(
        net.state(0, &flows[3]),
        Some(ConnState::CloseWait),
        "the old holder follows"
    );
    net.forwarded(0, &flows[4].inbound().flags(FIN | 16));
    net.run(100 * MS);
    assert_eq!(net.state(1, &flows[4]), Some(ConnState::CloseWait), "and hints");
    assert_eq!(net.agree(1, 0, group), 101);
}

/// Both held the group for a while. The winner keeps its own; what the loser alone has lives on.
#[test]
fn a_fenced_node_offers_what_only_it_has() {
    for seed in 0..2 {
        let mut net = nodes(seed, 2);
        let group = net.group(0);
        let flows: Vec<_> = (0..60).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        net.cut.insert((0, 1));
        net.meet_but(0, &[1]);
        net.meet_but(1, &[0]);
        let epoch = next(&net, 1, 2);
        net.authority(1, group, epoch, Role::Adopting);
        net.run(50 * MS);
        assert_eq!(merged(&net, 1, group), 2);
        net.authority(1, group, epoch, Role::Owned);
        // Each goes on: the loser opens, the winner ends some and hears of others' FINs.
        let late: Vec<_> = (100..130).map(|n| net.open(0, n)).collect();
        for flow in &flows[..10] {
            net.reset(1, flow);
        }
        for flow in &flows[10..20] {
            net.fin(0, flow);
        }
        net.run(Duration::from_secs(5));
        for flow in &flows[20..30] {
            net.reset(0, flow);
        }
        net.run(100 * MS);
        net.cut.clear();
        net.meet();
        net.command(0, &SyncCommand::Create(None));
        net.authority(0, group, epoch, Role::Fenced);
        net.run(Duration::from_secs(2));
        let offered = |e: &SyncEvent| matches!(e, SyncEvent::Offered { .. });
        assert_eq!(net.nodes[0].has_told(offered), 2, "both workers have done so");
        assert!(net.nodes[1].sync(SyncCount::OffersTaken) >= 30);
        net.authority(0, group, epoch, Role::Replica);
        net.run(300 * MS);
        for flow in &late {
            assert_eq!(net.state(1, flow), Some(ConnState::Established));
            net.forwarded(1, &flow.inbound());
        }
        for flow in &flows[..10] {
            assert_eq!(net.state(1, flow), None);
            assert_eq!(net.state(0, flow), None, "what the winner closed is closed");
        }
        for flow in &flows[20..30] {
            assert_eq!(
                net.state(1, flow),
                Some(ConnState::Close),
                "the loser has seen that"
            );
        }
        assert!(net.agree(1, 0, group) >= 70);
        // What the fenced one says by its old epoch is nothing.
        assert_eq!(
            net.conn(1, &late[0].inbound().tuple()).map(|c| c.2.epoch),
            Some(epoch)
        );
        assert!(net.packet(0, &flows[30].inbound().flags(SYN)) != evenkeel_core::worker::Verdict::Punt);
    }
}

/// What the loser of a group changed before it heard of that, and told nobody: the winner hears of it, and both agree.
#[test]
fn what_can_no_longer_be_told_is_hinted() {
    for seed in 0..4 {
        let mut net = nodes(seed, 2);
        let group = net.group(0);
        let flows: Vec<_> = (0..40).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        net.cut.insert((0, 1));
        net.meet_but(1, &[0]);
        let epoch = next(&net, 1, 2);
        net.authority(1, group, epoch, Role::Adopting);
        net.run(50 * MS);
        net.authority(1, group, epoch, Role::Owned);
        net.run(50 * MS);
        net.cut.clear();
        net.meet();
        let before = net.nodes[1].sync(SyncCount::HintsTaken);
        for flow in &flows[..10] {
            net.reset(0, flow);
        }
        for flow in &flows[10..20] {
            net.fin(0, flow);
        }
        net.command(0, &SyncCommand::Create(None));
        net.authority(0, group, epoch, Role::Fenced);
        net.run(100 * MS);
        net.authority(0, group, epoch, Role::Replica);
        net.run(500 * MS);
        assert!(net.nodes[1].sync(SyncCount::HintsTaken) >= before + 20);
        for (flow, to) in flows[..20].iter().zip(
            [ConnState::Close; 10]
                .into_iter()
                .chain([ConnState::CloseWait; 10]),
        ) {
            assert_eq!(net.state(1, flow), Some(to));
        }
        assert_eq!(net.agree(1, 0, group), 40);
    }
}

/// The adopter heard neither the holder's last records nor the replica that has them: that one offers them once it is heard.
#[test]
fn a_replica_offers_what_the_adopter_did_not_hear() {
    for seed in 0..4 {
        let mut net = nodes(seed, 3);
        let group = net.group(0);
        let early: Vec<_> = (0..30).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        net.cut.extend([(0, 1), (1, 2)]);
        let late: Vec<_> = (100..130).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        // What has ended since is not offered.
        for flow in &early[..10] {
            net.reset(0, flow);
        }
        net.run(Duration::from_secs(4));
        net.crash(0);
        net.meet_but(1, &[0, 2]);
        net.meet_but(2, &[0, 1]);
        let epoch = next(&net, 1, 2);
        net.authority(1, group, epoch, Role::Adopting);
        net.run(200 * MS);
        net.authority(1, group, epoch, Role::Owned);
        net.cut.clear();
        net.meet_but(1, &[0]);
        net.meet_but(2, &[0]);
        net.authority(2, group, epoch, Role::Replica);
        net.run(Duration::from_secs(1));
        for flow in &late {
            assert_eq!(net.state(1, flow), Some(ConnState::Established));
        }
        assert!(net.nodes[1].sync(SyncCount::OffersTaken) >= 30);
        assert_eq!(net.agree(1, 2, group), 60);
    }
}

/// Two terms have passed when the fenced node hears of the second: what the winner's merge was based on is of the first, which
/// knew nothing of what the fenced node did meanwhile.
#[test]
fn a_node_that_missed_two_terms_offers_and_agrees() {
    for seed in 0..3 {
        let mut net = nodes(seed, 3);
        let group = net.group(0);
        let flows: Vec<_> = (0..60).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        net.cut.extend([(0, 1), (0, 2)]);
        net.meet_but(0, &[1, 2]);
        net.meet_but(1, &[0]);
        net.meet_but(2, &[0]);
        let mut epoch = next(&net, 1, 2);
        for (heir, term) in [(1, 2), (2, 3)] {
            epoch = next(&net, heir, term);
            if heir == 2 {
                // It has agreed with the first heir before it loses that one, too.
                net.cut.insert((1, 2));
                net.meet_but(2, &[0, 1]);
                net.meet_but(1, &[0, 2]);
            } else {
                net.authority(2, group, epoch, Role::Replica);
            }
            net.authority(heir, group, epoch, Role::Adopting);
            net.run(300 * MS);
            assert_eq!(merged(&net, heir, group), 2);
            net.authority(heir, group, epoch, Role::Owned);
            net.run(300 * MS);
        }
        let late: Vec<_> = (100..130).map(|n| net.open(0, n)).collect();
        for flow in &flows[..10] {
            net.reset(0, flow);
        }
        for flow in &flows[10..20] {
            net.fin(0, flow);
        }
        net.run(500 * MS);
        net.cut.clear();
        net.meet();
        for n in [0, 1] {
            net.command(n, &SyncCommand::Create(None));
            net.authority(n, group, epoch, Role::Fenced);
        }
        net.run(Duration::from_secs(3));
        assert!(net.nodes[2].sync(SyncCount::OffersTaken) >= 30, "seed {seed}");
        for n in [0, 1] {
            net.authority(n, group, epoch, Role::Replica);
        }
        net.run(Duration::from_secs(2));
        for n in [0, 1] {
            assert!(net.agree(2, n, group) >= 80, "seed {seed}, node {n}");
        }
        for flow in &late {
            assert_eq!(net.state(2, flow), Some(ConnState::Established));
        }
    }
}

/// A node that has missed a term is asked by one that joins, and its holder is dead: it has nothing to give until the group is
/// adopted. What it knows would pass for what the others know who have followed that term.
#[test]
fn who_missed_a_term_gives_nothing_to_who_joins() {
    for seed in 0..3 {
        let mut net = nodes(seed, 4);
        let group = net.group(0);
        let flows: Vec<_> = (0..60).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        net.cut.extend([(0, 3), (1, 3), (2, 3)]);
        let late: Vec<_> = (100..130).map(|n| net.open(0, n)).collect();
        for flow in &flows[..10] {
            net.reset(0, flow);
        }
        net.run(200 * MS);
        net.crash(0);
        net.meet_but(1, &[3]);
        net.meet_but(2, &[3]);
        let second = next(&net, 1, 2);
        net.authority(1, group, second, Role::Adopting);
        net.authority(2, group, second, Role::Replica);
        net.run(300 * MS);
        assert_eq!(merged(&net, 1, group), 2);
        net.authority(1, group, second, Role::Owned);
        net.run(100 * MS);
        net.restart(1);
        net.cut.clear();
        net.own(1);
        net.meet();
        for n in [1, 2, 3] {
            net.authority(n, group, second, Role::Orphan);
        }
        net.pull(1, group, 3);
        net.run(300 * MS);
        assert!(net.nodes[1].outstanding() > 0, "seed {seed}: it goes on asking");
        assert!(net.nodes[1].all(group).is_empty());
        adopt(&mut net, group, 3, 3);
        net.run(Duration::from_secs(3));
        assert_eq!(merged(&net, 3, group), 2);
        assert_eq!(net.nodes[1].outstanding(), 0);
        for n in [1, 2] {
            assert!(net.agree(3, n, group) >= 80, "seed {seed}, node {n}");
        }
        for flow in &late {
            assert_eq!(net.state(3, flow), Some(ConnState::Established), "seed {seed}");
        }
        for flow in &flows[..10] {
            assert_ne!(
                net.state(3, flow),
                Some(ConnState::Established),
                "closed stays closed"
            );
        }
    }
}

/// The winner lost so many of its own records to the other side that it names slots to be pulled, of all groups that it
/// holds. The fenced node pulls none of them before it has offered what only it has.
#[test]
fn a_fenced_node_offers_before_it_repairs() {
    for seed in 0..3 {
        let mut config = NodeConfig::default();
        config.sizes.ring_per_bucket = 16;
        let mut net = Net::joined(seed, &[config; 2]);
        let group = net.group(0);
        for n in 0..60 {
            net.open(0, n);
        }
        net.run(200 * MS);
        net.cut.insert((0, 1));
        net.meet_but(0, &[1]);
        let epoch = next(&net, 1, 2);
        net.authority(1, group, epoch, Role::Adopting);
        net.run(1100 * MS);
        assert_eq!(merged(&net, 1, group), 2);
        net.authority(1, group, epoch, Role::Owned);
        let late: Vec<_> = (100..400).map(|n| net.open(0, n)).collect();
        for n in 3000..4500 {
            net.open(1, n);
        }
        net.run(500 * MS);
        net.cut.clear();
        net.meet();
        net.command(0, &SyncCommand::Create(None));
        net.authority(0, group, epoch, Role::Fenced);
        net.filter = |m| !matches!(m.body, SyncBody::OfferSeen { .. });
        for turn in 0..1000 {
            if turn == 300 {
                net.filter = |_| true;
            }
            net.run(MS);
            for flow in &late {
                assert_eq!(net.state(0, flow), Some(ConnState::Established), "seed {seed}");
            }
        }
        assert!(net.nodes[1].sync(SyncCount::SlotsDirty) > 0, "slots are named");
        assert!(net.nodes[1].sync(SyncCount::OffersTaken) >= 300);
        net.authority(0, group, epoch, Role::Replica);
        net.run(2000 * MS);
        assert_eq!(net.agree(1, 0, group), 360);
    }
}

/// Holder and follower go on with a group that a third node adopted meanwhile. What that one knows counts, and the
/// version of nobody's copy goes back: not of what was changed on the other side, not of what was closed there and
/// long forgotten.
#[test]
fn no_version_goes_back_when_a_split_ends() {
    for (seed, count) in [(0, 2), (1, 3), (2, 3)] {
        let mut net = nodes(seed, count);
        let group = net.group(0);
        let flows: Vec<_> = (0..60).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        let others: Vec<usize> = (0..count).filter(|n| *n != 1).collect();
        for &n in &others {
            net.cut.insert((n.min(1), n.max(1)));
            net.meet_but(n, &[1]);
        }
        net.meet_but(1, &others);
        let epoch = next(&net, 1, 2);
        net.authority(1, group, epoch, Role::Adopting);
        net.run(50 * MS);
        assert_eq!(merged(&net, 1, group), 2);
        net.authority(1, group, epoch, Role::Owned);
        for flow in &flows[..20] {
            net.fin(0, flow);
        }
        for flow in &flows[20..40] {
            net.reset(0, flow);
        }
        let version = |net: &Net, n: usize, i: usize| net.conn(n, &flows[i].inbound().tuple()).map(|c| c.2);
        let mut latest = vec![vec![None; flows.len()]; count];
        let mut look = |net: &Net| {
            for n in 0..count {
                for (i, latest) in latest[n].iter_mut().enumerate() {
                    let seen = version(net, n, i);
                    assert!(
                        seen.is_none() || seen >= *latest,
                        "node {n}: {latest:?}, then {seen:?}"
                    );
                    *latest = seen.or(*latest);
                }
            }
        };
        // Long enough for what was reset to be over, and for some of it to be told and forgotten.
        for _ in 0..200 {
            net.run(100 * MS);
            look(&net);
        }
        let gone = (20..40).filter(|i| version(&net, 0, *i).is_none()).count();
        assert_eq!(gone, 20, "the old holder has closed them");
        net.cut.clear();
        net.meet();
        net.command(0, &SyncCommand::Create(None));
        net.authority(0, group, epoch, Role::Fenced);
        for n in 2..count {
            net.authority(n, group, epoch, Role::Replica);
        }
        for _ in 0..1000 {
            net.run(2 * MS);
            look(&net);
        }
        net.authority(0, group, epoch, Role::Replica);
        for _ in 0..150 {
            net.run(2 * MS);
            look(&net);
        }
        for i in 0..flows.len() {
            let there = version(&net, 1, i).expect("the winner has them all");
            for &n in &others {
                assert_eq!(version(&net, n, i), Some(there), "node {n}, flow {i}");
            }
        }
        assert_eq!(
            version(&net, 1, 50).map(|v| v.epoch.term),
            Some(1),
            "untouched, not told again"
        );
        assert_eq!(version(&net, 1, 0).map(|v| v.epoch.term), Some(2), "made later");
        for &n in &others {
            assert_eq!(net.agree(1, n, group), flows.len());
        }
    }
}

/// The ring told all that was lost as slots to be pulled, which did not come before the holder died: the watermark of
/// who lacks them is as high as anybody's. Nobody takes it for the base, and it takes what others have.
#[test]
fn who_lacks_slots_is_no_base() {
    for (lacking, heir) in [(1, 1), (1, 2), (2, 1)] {
        let mut config = NodeConfig::default();
        config.sizes.ring_per_bucket = 16;
        let mut net = Net::joined(heir as u64, &[config; 3]);
        let group = net.group(0);
        let flows: Vec<_> = (0..1200).map(|n| net.open(0, n)).collect();
        net.run(300 * MS);
        assert_eq!(net.agree(0, lacking, group), 1200);
        net.cut.insert((0, lacking));
        for flow in &flows[..300] {
            net.reset(0, flow);
        }
        for n in 2000..2600 {
            net.open(0, n);
        }
        net.run(Duration::from_secs(5));
        net.cut.clear();
        net.filter = |m| !matches!(m.body, SyncBody::SlotEnd { .. });
        net.run(400 * MS);
        let lacks = net.nodes[lacking].lacking(group);
        assert!(lacks > 100, "{lacks} slots");
        assert_eq!(net.nodes[lacking].behind(), 0, "by its watermarks it has all");
        net.crash(0);
        net.filter = |_| true;
        net.meet();
        adopt(&mut net, group, heir, 2);
        net.run(Duration::from_secs(3));
        assert_eq!(merged(&net, heir, group), 2);
        for n in [1, 2] {
            assert_eq!(
                net.nodes[n].all(group).len(),
                1500,
                "node {n}, {lacking} lacked, {heir} adopts"
            );
            for flow in &flows[..300] {
                assert_eq!(net.state(n, flow), None, "closed stays closed");
            }
            assert_eq!(net.nodes[n].sync(SyncCount::MergedLacking), 0);
        }
    }
}

/// Both survivors lack something, each something else. What either of them has is what there is.
#[test]
fn what_nobody_has_whole_is_put_together() {
    let mut config = NodeConfig::default();
    config.sizes.ring_per_bucket = 16;
    let mut net = Net::joined(3, &[config; 3]);
    let group = net.group(0);
    net.run(100 * MS);
    for (lacking, numbers) in [(1, 0..1000), (2, 2000..3000)] {
        net.cut.insert((0, lacking));
        for n in numbers {
            net.open(0, n);
        }
        net.run(200 * MS);
        net.cut.clear();
        net.filter = |m| !matches!(m.body, SyncBody::SlotEnd { .. } | SyncBody::SlotRecords { .. });
        net.run(400 * MS);
    }
    let counts = [1, 2].map(|n| net.nodes[n].all(group).len());
    assert!(counts.iter().all(|n| *n < 2000), "{counts:?}");
    net.crash(0);
    net.filter = |_| true;
    net.meet();
    adopt(&mut net, group, 1, 2);
    net.run(Duration::from_secs(3));
    assert_eq!(merged(&net, 1, group), 2);
    assert!(net.nodes[1].sync(SyncCount::MergedLacking) > 0);
    assert_eq!(net.nodes[1].all(group).len(), 2000);
    assert_eq!(net.nodes[2].all(group).len(), 2000);
}

/// A group that changes hands again and again: a session that no packet uses ends all the same.
#[test]
fn an_adoption_restarts_a_timeout_once() {
    let mut net = nodes(5, 2);
    let group = net.group(0);
    let flows: Vec<_> = (0..20).map(|n| net.open(0, n)).collect();
    net.run(100 * MS);
    let mut term = 1;
    let mut heir = 0;
    // Ninety seconds are an established session's.
    for _ in 0..12 {
        term += 1;
        heir = 1 - heir;
        adopt(&mut net, group, heir, term);
        net.run(Duration::from_secs(1));
        let epoch = next(&net, heir, term);
        net.authority(heir, group, epoch, Role::Owned);
        net.run(Duration::from_secs(19));
        net.forwarded(heir, &flows[0].inbound());
    }
    assert_eq!(
        net.state(heir, &flows[0]),
        Some(ConnState::Established),
        "it is used"
    );
    for flow in &flows[1..] {
        assert_eq!(net.state(heir, flow), None, "nobody uses it");
    }
}

/// The cut ends, and the fenced node, which has forgotten the winner's space, first hears it by a heartbeat: what the winner told
/// of the group while nobody heard is not brought by any NACK. The base of the merge is all that the fenced node has told, but
/// it agrees by a pull.
#[test]
fn what_the_winner_told_before_it_was_heard_is_pulled() {
    for seed in 0..4 {
        let mut net = nodes(seed, 2);
        let group = net.group(0);
        let flows: Vec<_> = (0..60).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        assert_eq!(net.agree(0, 1, group), 60);
        net.cut.insert((0, 1));
        // It keeps nothing of the other one.
        let other = net.group(1);
        net.command(0, &SyncCommand::Forget(other));
        net.meet_but(0, &[1]);
        net.meet_but(1, &[0]);
        let epoch = next(&net, 1, 2);
        net.authority(1, group, epoch, Role::Adopting);
        net.run(50 * MS);
        assert_eq!(merged(&net, 1, group), 2);
        net.authority(1, group, epoch, Role::Owned);
        for flow in &flows[..20] {
            net.reset(1, flow);
        }
        net.run(Duration::from_secs(5));
        net.cut.clear();
        net.meet();
        net.run(Duration::from_secs(1));
        assert_eq!(net.nodes[0].behind(), 0, "by the heartbeats nothing is to come");
        assert_eq!(net.nodes[0].sync(SyncCount::UnknownEpoch), 0, "none of it came");
        for flow in &flows[..20] {
            assert_eq!(net.state(1, flow), None, "it is over");
            assert_eq!(net.state(0, flow), Some(ConnState::Established));
        }
        net.command(0, &SyncCommand::Create(None));
        net.authority(0, group, epoch, Role::Fenced);
        net.run(Duration::from_secs(1));
        net.authority(0, group, epoch, Role::Replica);
        net.run(500 * MS);
        assert_eq!(
            net.nodes[0].sync(SyncCount::Offered),
            0,
            "it has nothing to offer"
        );
        for flow in &flows[..20] {
            assert_eq!(net.state(0, flow), None, "seed {seed}: closed stays closed");
        }
        assert_eq!(net.agree(1, 0, group), 40);
    }
}

/// Node 2 joins and learns the group in a term that node 1 has missed, and has nothing of it when the holder dies. Node 1 had
/// all of the term before, and was to pull it anew, too: neither of them is ready. Had is more than never had, in whatever term.
#[test]
fn who_never_had_a_group_is_no_base_for_its_later_term() {
    for (seed, heir) in [(0, 1), (1, 1), (2, 2), (3, 2)] {
        let mut net = nodes(seed, 4);
        let group = net.group(0);
        let flows: Vec<_> = (0..100).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        net.crash(0);
        net.crash(2);
        net.cut.insert((1, 3));
        net.meet_but(1, &[3]);
        net.meet_but(3, &[1]);
        let second = next(&net, 3, 2);
        net.authority(3, group, second, Role::Adopting);
        net.run(50 * MS);
        assert_eq!(merged(&net, 3, group), 2);
        net.authority(3, group, second, Role::Owned);
        net.run(50 * MS);
        net.restart(2);
        net.own(2);
        net.meet();
        for n in [1, 2] {
            net.authority(n, group, second, Role::Replica);
        }
        net.filter = |m| !m.body.is_bulk();
        net.pull(2, group, 3);
        net.pull(1, group, 3);
        net.run(300 * MS);
        net.crash(3);
        net.filter = |_| true;
        net.cut.clear();
        net.meet();
        net.run(50 * MS);
        assert_eq!([1, 2].map(|n| net.nodes[n].all(group).len()), [100, 0]);
        assert!(
            [1, 2].iter().all(|n| net.nodes[*n].outstanding() > 4000),
            "no pull has ended"
        );
        adopt(&mut net, group, heir, 3);
        net.run(Duration::from_secs(2));
        assert_eq!(merged(&net, heir, group), 2);
        for flow in &flows {
            assert_eq!(
                net.state(heir, flow),
                Some(ConnState::Established),
                "seed {seed}, {heir} adopts"
            );
        }
        assert_eq!(net.agree(heir, 3 - heir, group), 100);
    }
}

/// Who joined late knows by a heartbeat of the same last number as the other survivor, and of nothing before it.
#[test]
fn a_late_listener_that_adopts_pulls_what_the_other_one_has() {
    for seed in 0..4 {
        let mut net = nodes(seed, 3);
        let group = net.group(0);
        let flows: Vec<_> = (0..100).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        net.crash(2);
        net.meet();
        net.restart(2);
        net.own(2);
        net.meet();
        net.filter = |m| !m.body.is_bulk();
        net.know(2, 0);
        if seed >= 2 {
            // The other one is not ready either, but it was.
            net.pull(1, group, 0);
        }
        net.run(300 * MS);
        assert_eq!(
            [1, 2].map(|n| net.nodes[n].behind()),
            [0, 0],
            "both have heard all"
        );
        assert!(net.nodes[2].outstanding() > 4000, "its pull has not ended");
        net.crash(0);
        net.filter = |_| true;
        net.meet();
        net.run(50 * MS);
        assert_eq!([1, 2].map(|n| net.nodes[n].all(group).len()), [100, 0]);
        adopt(&mut net, group, 2, 2);
        net.run(Duration::from_secs(2));
        assert_eq!(merged(&net, 2, group), 2);
        for flow in &flows {
            assert_eq!(net.state(2, flow), Some(ConnState::Established), "seed {seed}");
        }
        assert_eq!(net.agree(2, 1, group), 100);
    }
}

/// Two nodes join one after the other, and have of the group what they have heard since when its holder dies: by their numbers
/// they know as much. Nobody alive ever had it whole, and what either of them has is what there is.
#[test]
fn what_those_who_join_have_heard_is_put_together() {
    for seed in 0..4 {
        let mut net = nodes(seed, 3);
        let group = net.group(0);
        net.crash(2);
        net.filter = |m| !m.body.is_bulk();
        let mut flows = Vec::new();
        for (n, numbers) in [(1, 0..100), (2, 100..200)] {
            net.crash(n);
            net.meet();
            net.restart(n);
            net.own(n);
            net.meet();
            net.know(n, 0);
            net.run(300 * MS);
            flows.extend(numbers.map(|n| net.open(0, n)));
            net.run(300 * MS);
        }
        assert_eq!([1, 2].map(|n| net.nodes[n].behind()), [0, 0]);
        assert_eq!([1, 2].map(|n| net.nodes[n].all(group).len()), [200, 100]);
        net.crash(0);
        net.filter = |_| true;
        net.meet();
        adopt(&mut net, group, 2, 2);
        net.run(Duration::from_secs(2));
        assert_eq!(merged(&net, 2, group), 2);
        for flow in &flows {
            assert_eq!(net.state(2, flow), Some(ConnState::Established), "seed {seed}");
        }
        assert_eq!(net.agree(2, 1, group), 200);
    }
}

/// The adopter heard neither the holder's last closes nor the replica that has them. That one has lost something that was told
/// before them, so that it remembers what is closed, and says so once it is heard.
#[test]
fn a_replica_offers_closes_that_the_adopter_did_not_hear() {
    for seed in 0..4 {
        let mut net = nodes(seed, 3);
        let group = net.group(0);
        let flows: Vec<_> = (0..60).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        net.cut.extend([(0, 1), (0, 2), (1, 2)]);
        // In every bucket something is lost.
        for n in 1000..1600 {
            net.open(0, n);
        }
        net.run(20 * MS);
        net.cut.remove(&(0, 2));
        net.filter = |m| !matches!(m.body, SyncBody::Nack { .. } | SyncBody::Skip { .. });
        for flow in &flows[..20] {
            net.reset(0, flow);
        }
        net.run(Duration::from_secs(5));
        net.crash(0);
        net.filter = |_| true;
        net.meet_but(1, &[2]);
        net.meet_but(2, &[1]);
        assert_eq!(net.nodes[2].tombs(), 20, "they are remembered");
        assert_eq!([1, 2].map(|n| net.nodes[n].all(group).len()), [60, 40]);
        let epoch = next(&net, 1, 2);
        net.authority(1, group, epoch, Role::Adopting);
        net.run(200 * MS);
        assert_eq!(merged(&net, 1, group), 2);
        net.authority(1, group, epoch, Role::Owned);
        net.cut.clear();
        net.meet();
        assert_eq!(net.nodes[1].sync(SyncCount::OffersTaken), 0);
        net.authority(2, group, epoch, Role::Replica);
        net.run(Duration::from_secs(1));
        assert_eq!(net.nodes[1].sync(SyncCount::OffersTaken), 20, "seed {seed}");
        for flow in &flows[..20] {
            let states = [1, 2].map(|n| net.state(n, flow));
            assert_eq!(states, [None, None], "closed stays closed");
        }
        assert_eq!(net.agree(1, 2, group), 40);
        assert_eq!(net.nodes[2].tombs(), 0, "nothing waits for them any more");
    }
}

/// A node that joined and had got nothing yet adopts alone. Who has all, of an earlier term, and is heard after the merge
/// loses nothing of it.
#[test]
fn who_has_all_and_was_not_heard_gives_it_to_who_had_nothing() {
    for seed in 0..4 {
        let mut net = nodes(seed, 4);
        let group = net.group(0);
        for n in 0..100 {
            net.open(0, n);
        }
        net.run(200 * MS);
        net.crash(0);
        net.crash(2);
        net.cut.insert((1, 3));
        net.meet_but(1, &[3]);
        net.meet_but(3, &[1]);
        let second = next(&net, 3, 2);
        net.authority(3, group, second, Role::Adopting);
        net.run(50 * MS);
        net.authority(3, group, second, Role::Owned);
        net.run(50 * MS);
        net.restart(2);
        net.own(2);
        net.meet();
        for n in [1, 2] {
            net.authority(n, group, second, Role::Replica);
        }
        net.filter = |m| !m.body.is_bulk();
        net.pull(2, group, 3);
        net.run(300 * MS);
        net.crash(3);
        net.filter = |_| true;
        net.cut.clear();
        net.cut.insert((1, 2));
        net.meet();
        net.run(50 * MS);
        assert_eq!([1, 2].map(|n| net.nodes[n].all(group).len()), [100, 0]);
        let third = next(&net, 2, 3);
        net.authority(2, group, third, Role::Adopting);
        net.run(Duration::from_secs(2));
        assert_eq!(merged(&net, 2, group), 2);
        assert!(net.nodes[2].sync(SyncCount::MergedLacking) > 0);
        net.authority(2, group, third, Role::Owned);
        net.cut.clear();
        net.meet();
        net.authority(1, group, third, Role::Replica);
        net.run(Duration::from_secs(2));
        assert_eq!(net.agree(2, 1, group), 100, "seed {seed}");
    }
}

/// Those that join ask for more than a node answers at a time, and for what nobody can give before the group is merged: the
/// adopter's questions, by which that ends, do not wait behind theirs.
#[test]
fn questions_that_wait_for_a_merge_do_not_hold_it_up() {
    for seed in 0..4 {
        let mut net = nodes(seed, 4);
        let group = net.group(0);
        for n in 0..100 {
            net.open(0, n);
        }
        net.run(200 * MS);
        net.cut.insert((0, 3));
        for n in 100..200 {
            net.open(0, n);
        }
        net.run(100 * MS);
        net.crash(0);
        net.cut.clear();
        net.meet();
        // The adopter hears only the node that is asked too much.
        net.cut.insert((2, 3));
        net.meet_but(3, &[2]);
        let joiner = net.nodes[2].id;
        let never = Version {
            epoch: next(&net, 1, 9),
            lsn: 1,
        };
        let full = net.nodes[1].sync(SyncCount::QueueFull);
        for bucket in 0..64u16 {
            let message = SyncMessage {
                from: joiner,
                bucket,
                ack_now: false,
                body: SyncBody::Pull {
                    group,
                    id: 1000 * u32::from(bucket),
                    min: never,
                    mode: PullMode::Replace,
                    slots: (bucket..4096).step_by(64).collect(),
                },
            };
            net.hear(1, &message);
        }
        assert!(
            net.nodes[1].sync(SyncCount::QueueFull) > full,
            "it has no room for more"
        );
        adopt(&mut net, group, 3, 2);
        net.run(Duration::from_secs(2));
        assert_eq!(merged(&net, 3, group), 2, "seed {seed}");
        assert_eq!(net.nodes[3].all(group).len(), 200);
    }
}
