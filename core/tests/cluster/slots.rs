//! Slots: a node joins, its source dies, more come than there is room for.

use std::time::Duration;

use evenkeel_core::stats::SyncCount;
use evenkeel_core::sync::{SyncBody, SyncMessage, SyncOutcome, Version};

use crate::net::{Net, NodeConfig, Weather};

const MS: Duration = Duration::from_millis(1);

/// A node restarts with nothing and joins while connections come and go, over a bad network.
#[test]
fn a_node_joins_under_load() {
    for seed in 0..2 {
        let mut net = Net::joined(seed, &[NodeConfig::default(); 2]);
        let group = net.group(0);
        let mut flows: Vec<_> = (0..800).map(|n| net.open(0, n)).collect();
        net.run(200 * MS);
        net.crash(1);
        net.meet();
        net.run(100 * MS);
        net.restart(1);
        net.own(1);
        net.weather = Weather {
            loss: 100,
            twice: 0,
            jitter_us: 500,
            ..Weather::default()
        };
        net.meet();
        net.know(1, 0);
        let other = net.group(1);
        net.authority(
            0,
            other,
            crate::net::first_epoch(net.nodes[1].id),
            evenkeel_core::cluster::Role::Replica,
        );
        for n in 0..300 {
            flows.push(net.open(0, 1000 + n));
            if n % 3 == 0 {
                let flow = flows[n as usize * 2];
                net.reset(0, &flow);
            }
            net.run(MS);
        }
        net.weather = Weather::default();
        for _ in 0..40 {
            net.run(Duration::from_millis(250));
            if net.nodes[1].outstanding() == 0 {
                break;
            }
        }
        assert_eq!(net.nodes[1].outstanding(), 0);
        assert!(net.nodes[1].sync(SyncCount::PulledIn) > 500);
        net.quiet();
        // What was reset lives three seconds more.
        net.run(Duration::from_secs(4));
        assert_eq!(net.agree(0, 1, group), 1000);
        assert_eq!(net.nodes[0].tombs() + net.nodes[1].tombs(), 0);
    }
}

/// The source dies: what has not ended is pulled from another one.
#[test]
fn the_source_dies_in_the_middle() {
    let mut net = Net::joined(1, &[NodeConfig::default(); 3]);
    let group = net.group(0);
    for n in 0..600 {
        net.open(0, n);
    }
    net.run(200 * MS);
    net.crash(2);
    net.meet();
    net.restart(2);
    net.own(2);
    net.meet();
    let first = crate::net::first_epoch(net.nodes[0].id);
    net.authority(2, group, first, evenkeel_core::cluster::Role::Replica);
    net.pull(2, group, 1);
    while net.nodes[2].sync(SyncCount::SlotsPulled) < 1000 {
        net.run(MS / 5);
    }
    assert!(
        net.nodes[2].sync(SyncCount::SlotsPulled) < 4000,
        "it is in the middle"
    );
    net.crash(1);
    net.meet();
    net.run(300 * MS);
    assert!(net.nodes[2].outstanding() > 0, "nobody sends");
    let before = net.nodes[2].sync(SyncCount::SlotsPulled);
    net.pull_from(2, group, 0);
    net.run(Duration::from_secs(2));
    assert_eq!(net.nodes[2].outstanding(), 0);
    let more = net.nodes[2].sync(SyncCount::SlotsPulled) - before;
    assert!(more < 3200, "what had ended was not pulled again: {more}");
    assert_eq!(net.agree(0, 2, group), 600);
}

/// Eight workers beside twelve: every session is where its packets come.
#[test]
fn nodes_of_eight_and_twelve_workers() {
    let of = |workers| NodeConfig {
        workers,
        ..NodeConfig::default()
    };
    let mut net = Net::joined(1, &[of(8), of(12)]);
    let group = net.group(0);
    let flows: Vec<_> = (0..400).map(|n| net.open(0, n)).collect();
    net.run(200 * MS);
    assert_eq!(net.agree(0, 1, group), 400);
    for flow in &flows {
        net.forwarded(1, &flow.inbound());
        net.forwarded(1, &flow.outbound());
    }
    assert_eq!(net.nodes[1].counters().handed_off, 0);
}

/// Most slots of a small table are empty: a bulk of it takes a few hundred messages, not three for each slot.
#[test]
fn slots_without_sessions_end_many_at_a_time() {
    let mut net = Net::joined(1, &[NodeConfig::default(); 2]);
    net.frames = true;
    let group = net.group(0);
    for n in 0..50 {
        net.open(0, n);
    }
    net.run(200 * MS);
    let (bytes, pulled) = (net.bytes, net.nodes[1].sync(SyncCount::SlotsPulled));
    net.pull(1, group, 0);
    net.run(100 * MS);
    assert_eq!(net.nodes[1].outstanding(), 0);
    assert_eq!(net.nodes[1].sync(SyncCount::SlotsPulled) - pulled, 4096);
    let bytes = net.bytes - bytes;
    assert!((4096 * 2..40_000).contains(&bytes), "{bytes} bytes");
    assert_eq!(net.agree(0, 1, group), 50);
}

/// Of its source, of its bucket, of its numbers: nothing else is ended by an answer.
#[test]
fn an_answer_of_empty_slots_ends_what_it_is_an_answer_to() {
    let config = NodeConfig {
        workers: 1,
        ..NodeConfig::default()
    };
    let mut net = Net::joined(1, &[config; 3]);
    let group = net.group(0);
    net.run(200 * MS);
    net.pull(2, group, 0);
    let now = net.now;
    let mut pulls = Vec::new();
    while let Some((_, m)) = net.nodes[2].workers[0].poll_sync_message(now) {
        if let SyncBody::Pull { id, slots, .. } = m.body {
            pulls.push((m.bucket, id, slots));
        }
    }
    let (bucket, id, slots) = pulls.first().expect("it asks").clone();
    assert!(slots.len() > 8, "{slots:?}");
    let before = net.nodes[2].sync(SyncCount::SlotsPulled);
    let mut say = |from: usize, bucket, id, count| {
        let message = SyncMessage {
            from: net.nodes[from].id,
            bucket,
            ack_now: false,
            body: SyncBody::SlotsEmpty {
                id,
                group,
                count,
                as_of: Version::default(),
            },
        };
        let outcome = net.hear(2, &message);
        (outcome, net.nodes[2].sync(SyncCount::SlotsPulled) - before)
    };
    let unexpected = SyncOutcome::Ignored(SyncCount::Unexpected);
    assert_eq!(say(1, bucket, id, 3), (unexpected, 0));
    assert_eq!(say(0, bucket ^ 1, id, 3), (unexpected, 0));
    assert_eq!(say(0, bucket, id.wrapping_sub(9), 9), (unexpected, 0));
    assert_eq!(say(0, bucket, id + 1, 3), (SyncOutcome::Taken, 3));
    assert_eq!(say(0, bucket, id + 1, 3), (unexpected, 3));
    // The first one, and those after the three.
    let rest = slots.len() as u64 - 3;
    assert_eq!(say(0, bucket, id, 256), (SyncOutcome::Taken, 3 + rest));
}

/// A path on which an answer takes longer than a question is repeated after: each answer that comes is one to the last question
/// only if it is not asked again meanwhile.
#[test]
fn a_bulk_ends_over_a_path_that_is_slower_than_the_questions() {
    for delay_us in [60_000, 300_000, 2_000_000] {
        let mut net = Net::joined(1, &[NodeConfig::default(); 2]);
        let group = net.group(0);
        for n in 0..300 {
            net.open(0, n);
        }
        net.run(200 * MS);
        net.crash(1);
        net.meet();
        net.restart(1);
        net.own(1);
        net.meet();
        net.weather.delay_us = delay_us;
        net.know(1, 0);
        let start = net.now;
        while net.nodes[1].outstanding() > 0 || net.nodes[1].all(group).len() < 300 {
            net.run(Duration::from_micros(delay_us));
            assert!(
                net.now < start + Duration::from_micros(200 * delay_us),
                "{} slots are outstanding",
                net.nodes[1].outstanding()
            );
        }
        assert!(
            net.nodes[1].sync(SyncCount::SlotsRepeated) > 0,
            "it was asked too early"
        );
    }
}
