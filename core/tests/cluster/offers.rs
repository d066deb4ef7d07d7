//! What a split leaves: fenced holders, replicas that the adopter did not hear, and what they offer or pull.

use std::time::Duration;

use evenkeel_core::cluster::Role;
use evenkeel_core::proto::ConnState;
use evenkeel_core::stats::SyncCount;
use evenkeel_core::sync::{SyncBody, SyncCommand, SyncEvent};

use crate::adoption::{adopt, adopt_alone, in_a_missed_term, merged, next, nodes};
use crate::net::{Net, NodeConfig};
use crate::packet::SYN;

const MS: Duration = Duration::from_millis(1);

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
        let epoch = adopt_alone(&mut net, group, (1, 2), 50 * MS);
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
        let epoch = adopt_alone(&mut net, group, (1, 2), 50 * MS);
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
        let epoch = adopt_alone(&mut net, group, (1, 2), 200 * MS);
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
        let epoch = adopt_alone(&mut net, group, (1, 2), 1100 * MS);
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
        let epoch = adopt_alone(&mut net, group, (1, 2), 50 * MS);
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
        let epoch = adopt_alone(&mut net, group, (1, 2), 50 * MS);
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
        let epoch = adopt_alone(&mut net, group, (1, 2), 200 * MS);
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
        let (mut net, _) = in_a_missed_term(seed, &[2]);
        let group = net.group(0);
        net.cut.insert((1, 2));
        net.meet();
        net.run(50 * MS);
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
