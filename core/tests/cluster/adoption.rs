//! Groups that change hands: adoption by the base rule, a drain.

use std::time::Duration;

use evenkeel_core::cluster::{Epoch, GroupId, Role};
use evenkeel_core::proto::ConnState;
use evenkeel_core::stats::SyncCount;
use evenkeel_core::sync::{PullMode, SyncBody, SyncCommand, SyncEvent, SyncMessage, Version};

use crate::net::{Net, NodeConfig};
use crate::packet::FIN;
use crate::story::Flow;

const MS: Duration = Duration::from_millis(1);

pub(crate) fn nodes(seed: u64, count: usize) -> Net {
    Net::joined(seed, &vec![NodeConfig::default(); count])
}

pub(crate) fn next(net: &Net, holder: usize, term: u64) -> Epoch {
    Epoch {
        term,
        holder: net.nodes[holder].id,
    }
}

/// All that are alive learn that `heir` adopts, and then that it has.
pub(crate) fn adopt(net: &mut Net, group: GroupId, heir: usize, term: u64) {
    let epoch = next(net, heir, term);
    for n in 0..net.nodes.len() {
        if net.nodes[n].alive {
            let role = if n == heir { Role::Adopting } else { Role::Replica };
            net.authority(n, group, epoch, role);
        }
    }
}

/// `heir` adopts, of which only it knows: it owns the group once it has merged, which is so within that time.
pub(crate) fn adopt_alone(
    net: &mut Net,
    group: GroupId,
    (heir, term): (usize, u64),
    within: Duration,
) -> Epoch {
    let epoch = next(net, heir, term);
    net.authority(heir, group, epoch, Role::Adopting);
    net.run(within);
    assert_eq!(merged(net, heir, group), 2);
    net.authority(heir, group, epoch, Role::Owned);
    epoch
}

pub(crate) fn merged(net: &Net, heir: usize, group: GroupId) -> usize {
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

/// A change was lost on its way to one survivor, and its holder adopts the group anew before it is asked for it: what waits for a
/// merge, or is another node's, is not told again, and is not said to have come either.
#[test]
fn what_is_not_told_again_is_not_taken_for_known() {
    for (holder_again, heir) in [(true, 1), (true, 2), (false, 1), (false, 2)] {
        let mut net = nodes(heir as u64, 3);
        let group = net.group(0);
        let flows: Vec<_> = (0..20).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        net.cut.insert((0, 1));
        net.fin(0, &flows[0]);
        net.run(5 * MS);
        let state = |net: &Net, n: usize| net.state(n, &flows[0]);
        assert_eq!(state(&net, 1), Some(ConnState::Established));
        assert_eq!(state(&net, 2), Some(ConnState::CloseWait));
        // No merge ends.
        net.filter = |m| !matches!(m.body, SyncBody::Watermark { .. });
        let epoch = next(&net, 2 - 2 * usize::from(holder_again), 2);
        let role = if holder_again {
            Role::Adopting
        } else {
            Role::Replica
        };
        net.authority(0, group, epoch, role);
        net.cut.clear();
        net.run(200 * MS);
        assert!(net.nodes[0].sync(SyncCount::NackTaken) > 0);
        assert_eq!(state(&net, 1), Some(ConnState::Established));
        net.crash(0);
        net.filter = |_| true;
        net.meet();
        adopt(&mut net, group, heir, 3);
        net.run(Duration::from_secs(2));
        assert_eq!(merged(&net, heir, group), 2);
        for n in [1, 2] {
            assert_eq!(
                state(&net, n),
                Some(ConnState::CloseWait),
                "node {n}, {holder_again}, {heir} adopts"
            );
        }
        assert_eq!(net.agree(1, 2, group), 20);
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

/// Of the group of node 0 node 1 has all, of a term after which it missed one. Node 2 has joined in that one and got nothing, and
/// its holder is dead as well. These pulled from it, in vain.
pub(crate) fn in_a_missed_term(seed: u64, pull: &[usize]) -> (Net, Vec<Flow>) {
    let mut net = nodes(seed, 4);
    let group = net.group(0);
    let flows = (0..100).map(|n| net.open(0, n)).collect();
    net.run(200 * MS);
    net.crash(0);
    net.crash(2);
    net.cut.insert((1, 3));
    net.meet_but(1, &[3]);
    net.meet_but(3, &[1]);
    let second = adopt_alone(&mut net, group, (3, 2), 50 * MS);
    net.run(50 * MS);
    net.restart(2);
    net.own(2);
    net.meet();
    for n in [1, 2] {
        net.authority(n, group, second, Role::Replica);
    }
    net.filter = |m| !m.body.is_bulk();
    for n in pull {
        net.pull(*n, group, 3);
    }
    net.run(300 * MS);
    net.crash(3);
    net.filter = |_| true;
    net.cut.clear();
    assert_eq!([1, 2].map(|n| net.nodes[n].all(group).len()), [100, 0]);
    (net, flows)
}

/// Node 2 joins and learns the group in a term that node 1 has missed, and has nothing of it when the holder dies. Node 1 had
/// all of the term before, and was to pull it anew, too: neither of them is ready. Had is more than never had, in whatever term.
#[test]
fn who_never_had_a_group_is_no_base_for_its_later_term() {
    for (seed, heir) in [(0, 1), (1, 1), (2, 2), (3, 2)] {
        let (mut net, flows) = in_a_missed_term(seed, &[1, 2]);
        let group = net.group(0);
        net.meet();
        net.run(50 * MS);
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

/// A node that was started hears a term in which nothing is told, and pulls nothing of it before the next one. That its watermark is
/// as far as the base of that one says nothing: it pulls all.
#[test]
fn who_never_had_a_group_does_not_agree_by_its_watermark() {
    for seed in 0..4 {
        let mut net = nodes(seed, 3);
        let group = net.group(0);
        for n in 0..60 {
            net.open(0, n);
        }
        net.run(200 * MS);
        net.crash(0);
        net.meet();
        adopt(&mut net, group, 1, 2);
        net.run(Duration::from_secs(1));
        assert_eq!(merged(&net, 1, group), 2);
        net.restart(2);
        net.meet();
        let second = next(&net, 1, 2);
        net.authority(2, group, second, Role::Replica);
        net.run(200 * MS);
        assert_eq!(net.nodes[2].all(group).len(), 0);
        adopt(&mut net, group, 1, 3);
        net.run(Duration::from_secs(2));
        assert_eq!(merged(&net, 1, group), 4);
        assert_eq!(net.agree(1, 2, group), 60, "seed {seed}");
    }
}
