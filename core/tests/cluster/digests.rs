//! Digests: a replica compares what it has with what its holder told, and heals.

use std::time::Duration;

use evenkeel_core::conn::SLOT_COUNT;
use evenkeel_core::stats::SyncCount;
use evenkeel_core::sync::{DIGEST_SLOT_COUNT_MAX, LSN_MAX, SlotDigest, SyncBody, SyncMessage, SyncOutcome};
use evenkeel_core::tuple::L4Proto;

use crate::net::{Net, NodeConfig, Weather, first_epoch};
use crate::story::Kind;

/// In so long all slots are told.
const ROUND: Duration = Duration::from_millis(4500);

/// What two nodes have of each slot of a group, which is the same; how many sessions.
#[track_caller]
pub(crate) fn digests_agree(net: &Net, holder: usize, replica: usize, group: usize) -> u32 {
    let of = |node: usize, slot: u16| {
        let workers = &net.nodes[node].workers;
        workers.iter().find_map(|w| w.slot_digest(net.group(group), slot))
    };
    let mut count = 0;
    for slot in 0..SLOT_COUNT as u16 {
        let (a, b) = (of(holder, slot), of(replica, slot));
        assert_eq!(a, b, "slot {slot}");
        count += a.expect("a worker has it").count;
    }
    for node in &net.nodes {
        let drifted: usize = node.workers.iter().map(|w| w.drifted()).sum();
        assert_eq!(drifted, 0, "digests are of what is there");
    }
    count
}

/// Sessions of both protocols and families, told.
fn busy(seed: u64, configs: &[NodeConfig]) -> Net {
    let mut net = Net::joined(seed, configs);
    for n in 0..120 {
        net.open(0, n);
    }
    for n in 0..30 {
        net.begin(0, Kind::V4, L4Proto::Udp, n);
    }
    net.run(Duration::from_millis(200));
    net
}

fn counts(net: &Net, node: usize) -> [u64; 4] {
    [
        SyncCount::DigestEqual,
        SyncCount::DigestSkipped,
        SyncCount::DigestUnequal,
        SyncCount::DigestRepaired,
    ]
    .map(|count| net.nodes[node].sync(count))
}

#[test]
fn all_slots_are_told_in_a_round_and_are_equal() {
    let mut net = busy(1, &[NodeConfig::default(); 2]);
    let before = counts(&net, 1);
    let told = net.nodes[0].sync(SyncCount::DigestTold);
    net.run(ROUND);
    let now = counts(&net, 1);
    assert!(now[0] - before[0] >= SLOT_COUNT as u64, "{now:?}");
    assert!(net.nodes[0].sync(SyncCount::DigestTold) - told <= SLOT_COUNT as u64 * 9 / 8 + 64);
    assert_eq!(now[2..], [0, 0]);
    assert_eq!(digests_agree(&net, 0, 1, 0), 150);
    assert_eq!(digests_agree(&net, 1, 0, 1), 0);
}

/// For docs/replication.md: of one group, to one peer, with 64 buckets.
#[test]
fn digests_take_16_kb_a_second_of_an_idle_node() {
    let mut net = Net::joined(2, &[NodeConfig::default(); 2]);
    assert!(net.frames);
    net.run(ROUND);
    let told = |net: &Net| net.nodes[0].sync(SyncCount::DigestTold);
    let before = (net.bytes, told(&net));
    net.run(Duration::from_secs(8));
    let (bytes, slots) = ((net.bytes - before.0) / 8 / 2, (told(&net) - before.1) / 8);
    // 64 slots a message with a head of 41 bytes.
    let digests = slots * 14 + slots.div_ceil(64) * 41;
    let beats = 64 * 10 * 12;
    assert!((14_000..16_000).contains(&digests), "{digests} of {bytes} B/s");
    assert!(
        bytes < digests + beats + 2_000,
        "{bytes} B/s, {digests} of them digests"
    );
}

#[test]
fn what_is_damaged_at_a_replica_is_found_and_pulled() {
    for seed in 0..6 {
        let mut net = busy(seed, &[NodeConfig::default(); 3]);
        net.run(ROUND);
        assert_eq!(counts(&net, 1)[2..], [0, 0]);
        let now = net.now;
        let damaged: u64 = net.nodes[1]
            .workers
            .iter_mut()
            .map(|w| w.damage(now, 300_000))
            .sum();
        assert!(damaged >= 40, "{damaged}");
        assert_ne!(
            net.nodes[0].sessions(net.group(0)),
            net.nodes[1].sessions(net.group(0))
        );
        // Conns are looked at once, then all slots are told, and then again.
        net.run(3 * ROUND);
        assert_eq!(net.agree(0, 1, net.group(0)), 150);
        assert_eq!(digests_agree(&net, 0, 1, 0), 150);
        let [_, _, unequal, repaired] = counts(&net, 1);
        assert!(unequal >= 30 && unequal <= damaged, "{unequal} of {damaged}");
        assert_eq!(unequal, repaired);
        assert!(net.nodes[1].sync(SyncCount::DigestDrift) >= damaged / 2);
        assert_eq!(counts(&net, 2)[2..], [0, 0], "nothing was wrong there");
        assert_eq!(net.nodes[1].lacking(net.group(0)), 0);
    }
}

/// What changes in memory of the holder is told as it is: it decides.
#[test]
fn what_drifts_at_the_holder_is_told_again() {
    let mut net = busy(4, &[NodeConfig::default(); 3]);
    let (group, adopter) = (net.group(0), net.nodes[1].id);
    let mut epoch = first_epoch(adopter);
    epoch.term = 2;
    net.run(ROUND);
    let now = net.now;
    let damaged: u64 = net.nodes[1]
        .workers
        .iter_mut()
        .map(|w| w.damage(now, 100_000))
        .sum();
    net.crash(0);
    net.meet();
    net.authority(1, group, epoch, evenkeel_core::cluster::Role::Adopting);
    net.authority(2, group, epoch, evenkeel_core::cluster::Role::Replica);
    net.run(3 * ROUND);
    assert!(damaged > 10);
    assert!(net.nodes[1].sync(SyncCount::DigestDrift) > 0);
    let count = net.agree(1, 2, group);
    assert!(count >= 130, "{count}");
    assert_eq!(digests_agree(&net, 1, 2, 0), count as u32);
}

#[test]
fn who_is_behind_does_not_compare() {
    let mut net = busy(3, &[NodeConfig::default(); 2]);
    net.run(ROUND);
    let before = counts(&net, 1);
    net.filter = |m| !matches!(m.body, SyncBody::Live(_));
    for n in 200..260 {
        net.open(0, n);
    }
    net.run(2 * ROUND);
    let now = counts(&net, 1);
    assert!(now[1] > before[1] + 1000, "{now:?}");
    assert_eq!(now[2..], [0, 0], "what is on its way is not unequal");
    net.filter = |_| true;
    net.run(2 * ROUND);
    assert_eq!(digests_agree(&net, 0, 1, 0), 210);
    assert_eq!(counts(&net, 1)[2..], [0, 0]);
}

/// Digests of a node that are late: what came since is compared with none of them.
#[test]
fn digests_that_come_late_find_nothing_unequal() {
    for seed in 0..4 {
        let mut net = busy(seed, &[NodeConfig::default(); 3]);
        net.weather = Weather {
            jitter_us: 30_000,
            loss: 50,
            twice: 50,
            ..Weather::default()
        };
        for n in 200..500 {
            let flow = net.open(0, n);
            net.run(Duration::from_millis(30));
            if n % 3 == 0 {
                net.reset(0, &flow);
            }
            if n % 50 == 0 {
                net.pull(2, net.group(0), 1);
            }
        }
        net.quiet();
        net.run(ROUND);
        for node in 1..3 {
            let now = counts(&net, node);
            assert!(now[0] > 1000 && now[1] > 0, "{now:?}");
            assert_eq!(now[2], 0, "seed {seed}, node {node}");
        }
        digests_agree(&net, 0, 1, 0);
        digests_agree(&net, 0, 2, 0);
    }
}

#[test]
fn digests_that_no_node_sends_change_nothing() {
    let mut net = busy(5, &[NodeConfig::default(); 2]);
    net.run(ROUND);
    let (group, epoch, from) = (net.group(0), first_epoch(net.nodes[0].id), net.nodes[0].id);
    let digest = |slot| SlotDigest {
        slot,
        count: 1,
        hash: 1,
    };
    let mut hear = |epoch, last, slots| {
        let message = SyncMessage {
            from,
            bucket: 0,
            ack_now: false,
            body: SyncBody::Digest {
                group,
                epoch,
                last,
                slots,
            },
        };
        net.hear(1, &message)
    };
    let invalid = SyncOutcome::Ignored(SyncCount::Invalid);
    let skipped = SyncOutcome::Ignored(SyncCount::DigestSkipped);
    assert_eq!(hear(epoch, 0, vec![digest(4096)]), invalid);
    assert_eq!(hear(epoch, 0, vec![digest(1)]), invalid, "of another bucket");
    assert_eq!(
        hear(epoch, 0, vec![digest(0); DIGEST_SLOT_COUNT_MAX + 1]),
        invalid
    );
    assert_eq!(hear(epoch, LSN_MAX + 1, vec![digest(0)]), invalid);
    assert_eq!(hear(epoch, LSN_MAX, vec![digest(0)]), skipped);
    let mut later = epoch;
    later.term += 1;
    assert_eq!(hear(later, 0, vec![digest(0)]), skipped);
    let before = net.nodes[1].sessions(group);
    // One that could be true has its slot pulled, once, and that is all.
    let last = net.nodes[1].sync(SyncCount::DigestUnequal);
    assert_eq!(last, 0);
    net.run(2 * ROUND);
    assert_eq!(net.nodes[1].sessions(group), before);
    assert_eq!(digests_agree(&net, 0, 1, 0), 150);
}

/// A slot that is being pulled is not pulled again, whatever digests say meanwhile.
#[test]
fn a_false_digest_has_its_slot_pulled_once() {
    let mut net = busy(6, &[NodeConfig::default(); 2]);
    net.run(ROUND);
    let (group, epoch, from) = (net.group(0), first_epoch(net.nodes[0].id), net.nodes[0].id);
    // The last LSN of the bucket, by the holder's own digests.
    for last in 0..200 {
        let message = SyncMessage {
            from,
            bucket: 0,
            ack_now: false,
            body: SyncBody::Digest {
                group,
                epoch,
                last,
                slots: vec![
                    SlotDigest {
                        slot: 0,
                        count: 9,
                        hash: 9
                    };
                    3
                ],
            },
        };
        net.hear(1, &message);
    }
    let [_, _, unequal, _] = counts(&net, 1);
    assert_eq!(unequal, 1, "the second one finds that it is pulled");
    net.run(2 * ROUND);
    assert_eq!(counts(&net, 1)[2..], [1, 1]);
    assert_eq!(digests_agree(&net, 0, 1, 0), 150);
}
