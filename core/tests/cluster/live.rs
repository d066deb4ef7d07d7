//! Live records: told, lost, doubled, reordered, closed.

use std::time::Duration;

use evenkeel_core::conn::TableSizes;
use evenkeel_core::proto::ConnState;
use evenkeel_core::stats::{DropReason, SyncCount};
use evenkeel_core::sync::{SyncBody, SyncCommand, SyncEvent};
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::Verdict;

use crate::net::{Net, NodeConfig, Weather};
use crate::packet::{ACK, FIN, RST, SYN};
use crate::story::Kind;

const MS: Duration = Duration::from_millis(1);

/// A node with room for few sessions.
fn small() -> NodeConfig {
    let table = TableSizes {
        conns_v4: 40,
        conns_v6: 20,
        exts: 0,
    };
    NodeConfig {
        table,
        ..NodeConfig::default()
    }
}

fn two(seed: u64) -> Net {
    Net::joined(seed, &[NodeConfig::default(); 2])
}

#[test]
fn a_session_is_told_when_its_syn_ack_passes() {
    for seed in 0..2 {
        let mut net = two(seed);
        let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
        net.run(20 * MS);
        assert_eq!(net.state(1, &flow), None, "the SYN alone is not told");
        net.forwarded(0, &flow.outbound().flags(SYN | ACK));
        net.run(5 * MS);
        assert_eq!(net.state(1, &flow), Some(ConnState::SynRecv));
        net.forwarded(0, &flow.inbound());
        net.run(5 * MS);
        assert_eq!(net.state(1, &flow), Some(ConnState::Established));
        let (before, sent) = (
            net.agree(0, 1, net.group(0)),
            net.nodes[0].sync(SyncCount::Encoded),
        );
        assert_eq!((before, sent), (1, 2));
        // Data alone is nothing to tell.
        for _ in 0..10 {
            net.forwarded(0, &flow.inbound());
            net.run(5 * MS);
        }
        assert_eq!(net.nodes[0].sync(SyncCount::Encoded), 2);
        let udp = net.begin(0, Kind::V6, L4Proto::Udp, 2);
        net.run(5 * MS);
        assert_eq!(
            net.state(1, &udp),
            Some(ConnState::UdpOneWay),
            "the first datagram is told"
        );
    }
}

#[test]
fn a_change_before_it_is_told_is_one_record() {
    let mut net = two(1);
    let flow = net.open(0, 1);
    net.fin(0, &flow);
    net.run(5 * MS);
    assert_eq!(net.nodes[0].sync(SyncCount::Encoded), 1);
    assert_eq!(net.state(1, &flow), Some(ConnState::CloseWait));
}

#[test]
fn a_close_reaches_the_replica_and_no_tombstone_stays() {
    for seed in 0..2 {
        let mut net = two(seed);
        let flows: Vec<_> = (0..100).map(|n| net.open(0, n)).collect();
        net.run(100 * MS);
        assert_eq!(net.agree(0, 1, net.group(0)), 100);
        for flow in &flows {
            net.reset(0, flow);
        }
        net.run(Duration::from_secs(4));
        for node in &net.nodes {
            assert_eq!(node.all(net.group(0)).len(), 0);
            assert_eq!(node.tombs(), 0);
        }
        assert_eq!(net.nodes[1].counters().removed, 100);
    }
}

#[test]
fn a_replica_expires_nothing_while_the_holder_is_alive() {
    let mut net = two(0);
    let flow = net.open(0, 1);
    net.run(100 * MS);
    // The holder's packets prolong it there; the replica sees none for four minutes.
    for _ in 0..4 {
        net.run(Duration::from_secs(60));
        net.forwarded(0, &flow.inbound());
    }
    assert_eq!(net.state(1, &flow), Some(ConnState::Established));
    // And forwards it all the same.
    net.forwarded(1, &flow.outbound());
    assert_eq!(net.nodes[1].counters().expired, 0);
}

#[test]
fn lost_records_are_told_again_by_nack_alone() {
    for seed in 0..2 {
        let mut net = two(seed);
        net.weather = Weather {
            loss: 300,
            twice: 100,
            jitter_us: 3000,
            ..Weather::default()
        };
        let mut flows = Vec::new();
        for n in 0..300 {
            flows.push(net.open(0, n));
            net.run(MS);
            if n % 4 == 3 {
                let flow = flows[n as usize / 2];
                net.reset(0, &flow);
            }
        }
        net.quiet();
        assert!(net.lost > 100);
        assert!(net.nodes[0].sync(SyncCount::NackTaken) > 0, "something was lost");
        assert_eq!(
            net.nodes[1].sync(SyncCount::SlotsPulled),
            net_pulled_at_join(),
            "no slot was pulled"
        );
        let count = net.agree(0, 1, net.group(0));
        assert!(count > 200, "{count}");
        assert_eq!(net.nodes[0].unacked(), 0);
    }
}

/// A join of an empty group pulls each slot once.
fn net_pulled_at_join() -> u64 {
    4096
}

#[test]
fn the_last_record_of_a_burst_is_repaired_within_50_ms() {
    let mut net = two(0);
    net.weather.loss = 1000;
    let flow = net.open(0, 1);
    net.run(2 * MS);
    assert!(net.lost > 0);
    net.weather.loss = 0;
    net.run(50 * MS);
    assert_eq!(net.state(1, &flow), Some(ConnState::Established));
}

#[test]
fn a_ring_that_overflows_makes_slots_dirty_and_they_alone_are_pulled() {
    for seed in 0..2 {
        let mut config = NodeConfig::default();
        config.sizes.ring_per_bucket = 16;
        let mut net = Net::joined(seed, &[config; 2]);
        let before = net.nodes[1].sync(SyncCount::SlotsPulled);
        net.cut.insert((0, 1));
        let group = net.group(0);
        // One client's connections: few slots of many.
        let flows: Vec<_> = (0..1200).map(|n| net.open(0, n)).collect();
        for flow in flows.iter().take(300) {
            net.reset(0, flow);
        }
        net.run(Duration::from_secs(5));
        assert!(net.nodes[0].sync(SyncCount::SlotsDirty) > 0);
        assert_eq!(net.nodes[1].all(group).len(), 0, "it hears nothing");
        net.quiet();
        assert_eq!(net.agree(0, 1, group), 900);
        let pulled = net.nodes[1].sync(SyncCount::SlotsPulled) - before;
        assert!(pulled > 0 && pulled < 1200, "{pulled} slots pulled");
        assert_eq!(net.nodes[0].tombs() + net.nodes[1].tombs(), 0);
    }
}

#[test]
fn a_full_table_refuses_and_takes_in_once_there_is_room() {
    for seed in 0..2 {
        let mut net = Net::joined(seed, &[NodeConfig::default(), small()]);
        let group = net.group(0);
        let flows: Vec<_> = (0..300).map(|n| net.open(0, n)).collect();
        net.run(500 * MS);
        assert!(net.nodes[1].sync(SyncCount::Refused) > 0);
        assert!(net.nodes[1].outstanding() > 0, "it knows that it lacks something");
        let have = net.nodes[1].all(group).len();
        assert!(have <= 120, "{have}");
        // Room: three of four end.
        for (n, flow) in flows.iter().enumerate() {
            if n % 4 != 0 {
                net.reset(0, flow);
            }
        }
        net.run(Duration::from_secs(10));
        let count = net.agree(0, 1, group);
        assert_eq!(count, 75);
        assert_eq!(net.nodes[1].outstanding(), 0);
    }
}

#[test]
fn a_replica_forwards_and_hints_and_the_holder_decides() {
    let mut net = two(0);
    let flow = net.open(0, 1);
    net.run(50 * MS);
    // The FIN of both sides comes to the replica only.
    net.forwarded(1, &flow.inbound().flags(FIN | ACK));
    assert_eq!(
        net.state(1, &flow),
        Some(ConnState::Established),
        "it advances nothing"
    );
    net.run(20 * MS);
    assert_eq!(net.state(0, &flow), Some(ConnState::CloseWait));
    assert_eq!(net.state(1, &flow), Some(ConnState::CloseWait));
    net.forwarded(1, &flow.outbound().flags(FIN | ACK));
    net.run(20 * MS);
    assert_eq!(net.state(0, &flow), Some(ConnState::TimeWait));
    assert_eq!(net.nodes[0].sync(SyncCount::HintsTaken), 2);
    net.run(Duration::from_secs(8));
    assert_eq!((net.state(0, &flow), net.state(1, &flow)), (None, None));
}

#[test]
fn traffic_at_a_replica_keeps_the_session_of_its_holder_alive() {
    let mut net = two(1);
    let flow = net.open(0, 1);
    // ESTABLISHED lives for 90 s without a packet.
    for _ in 0..12 {
        net.run(Duration::from_secs(10));
        net.forwarded(1, &flow.inbound());
    }
    assert_eq!(net.state(0, &flow), Some(ConnState::Established));
    net.run(Duration::from_secs(100));
    assert_eq!(net.state(0, &flow), None);
    assert_eq!(net.state(1, &flow), None);
}

#[test]
fn a_closed_session_s_tuple_is_used_again_at_another_node() {
    let mut net = two(0);
    let flow = net.open(0, 1);
    net.reset(0, &flow);
    net.run(50 * MS);
    assert_eq!(net.state(1, &flow), Some(ConnState::Close));
    net.forwarded(1, &flow.inbound().flags(SYN));
    net.run(150 * MS);
    let (_, group, _) = net.conn(1, &flow.inbound().tuple()).expect("opened");
    assert_eq!(group, net.group(1), "it is the other node's now");
    assert_eq!(net.nodes[0].all(net.group(0)).len(), 0, "the old one went");
    assert_eq!(net.nodes[0].tombs(), 0);
}

#[test]
fn a_tuple_that_is_used_again_at_its_holder_is_not_closed_by_the_old_one_s_close() {
    for seed in 0..4 {
        let mut net = two(seed);
        net.weather = Weather {
            loss: 400,
            twice: 100,
            jitter_us: 20_000,
            ..Weather::default()
        };
        let flows: Vec<_> = (0..20).map(|n| net.open(0, n)).collect();
        for _ in 0..5 {
            for flow in &flows {
                net.reset(0, flow);
                net.run(MS);
                // The same tuple again.
                net.forwarded(0, &flow.inbound().flags(SYN));
                let (view, _) = {
                    let tuple = flow.inbound().tuple();
                    let worker = net.worker_of(0, tuple.src, tuple.dst);
                    net.nodes[0].workers[worker].conn(&tuple).expect("opened")
                };
                let again = crate::story::Flow::of(&view);
                net.forwarded(0, &again.outbound().flags(SYN | ACK));
                net.forwarded(0, &again.inbound());
            }
        }
        net.quiet();
        assert_eq!(net.agree(0, 1, net.group(0)), 20);
        assert_eq!(net.nodes[0].tombs() + net.nodes[1].tombs(), 0);
    }
}

#[test]
fn a_node_that_may_not_create_drops_what_begins() {
    let mut net = two(0);
    net.command(1, &SyncCommand::Create(None));
    let syn = crate::story::syn(Kind::V4.client(5), Kind::V4.vip(L4Proto::Tcp));
    assert_eq!(net.packet(1, &syn), Verdict::Drop(DropReason::NotReady));
    let flow = net.open(0, 1);
    net.run(20 * MS);
    net.forwarded(1, &flow.inbound().flags(RST | ACK));
}

#[test]
fn a_holder_that_is_not_certain_deletes_nothing() {
    let mut net = two(0);
    let flow = net.open(0, 1);
    net.command(0, &SyncCommand::LeaseUntil(net.now + 10 * MS));
    net.run(Duration::from_secs(100));
    assert_eq!(net.state(0, &flow), Some(ConnState::Established));
    net.forwarded(0, &flow.inbound());
    net.command(0, &SyncCommand::LeaseUntil(net.now + Duration::from_secs(1000)));
    net.run(Duration::from_secs(80));
    assert_eq!(
        net.state(0, &flow),
        Some(ConnState::Established),
        "the packet prolonged it"
    );
    net.run(Duration::from_secs(20));
    assert_eq!(net.state(0, &flow), None);
    net.run(MS * 50);
    assert_eq!(net.state(1, &flow), None);
}

#[test]
fn hints_are_bounded() {
    let mut config = NodeConfig::default();
    config.sizes.hints = 8;
    let mut net = Net::joined(0, &[config; 2]);
    let flows: Vec<_> = (0..100).map(|n| net.open(0, n)).collect();
    net.run(100 * MS);
    for flow in &flows {
        net.fin(1, flow);
    }
    assert!(net.nodes[1].sync(SyncCount::HintsLost) > 0);
    net.run(20 * MS);
    let closing = |net: &Net| {
        let states = flows
            .iter()
            .filter(|f| net.state(0, f) == Some(ConnState::CloseWait));
        states.count()
    };
    let first = closing(&net);
    assert!(first > 0 && first < 100, "{first}");
    for _ in 0..20 {
        for flow in &flows {
            // Retransmitted: hinted again.
            net.fin(1, flow);
            net.run(MS);
        }
    }
    assert_eq!(closing(&net), 100);
}

#[test]
fn records_of_another_epoch_change_nothing() {
    let mut net = two(1);
    let flow = net.open(0, 1);
    net.run(20 * MS);
    let group = net.group(0);
    // Node 1 hears that the group is node 9's by now.
    let epoch = evenkeel_core::cluster::Epoch {
        term: 2,
        holder: crate::net::peer(9, 1),
    };
    net.authority(1, group, epoch, evenkeel_core::cluster::Role::Replica);
    net.fin(0, &flow);
    let other = net.open(0, 2);
    net.run(100 * MS);
    assert_eq!(net.state(1, &flow), Some(ConnState::Established));
    assert_eq!(net.state(1, &other), None);
    assert!(net.nodes[1].sync(SyncCount::StaleEpoch) > 0);
    let stale = |e: &_| matches!(e, evenkeel_core::sync::SyncEvent::Stale { .. });
    assert!(net.nodes[1].has_told(stale) > 0);
}

#[test]
fn an_open_that_comes_after_its_close_opens_nothing() {
    let mut net = two(1);
    // The first try of every OPEN is lost: it is told again, after its CLOSE if that is there by then.
    net.filter = |m| !matches!(&m.body, SyncBody::Live(s) if s.first == 1);
    let flow = net.open(0, 1);
    net.run(MS * 2);
    net.reset(0, &flow);
    net.run(Duration::from_secs(4));
    net.filter = |_| true;
    net.quiet();
    assert_eq!(net.nodes[1].all(net.group(0)).len(), 0);
    assert_eq!(net.nodes[0].tombs() + net.nodes[1].tombs(), 0);
}

/// What waited for a node that stood still is not opened by it: others may have taken over.
#[test]
fn nothing_is_opened_while_the_lease_is_uncertain() {
    let mut net = two(0);
    let flow = net.open(0, 1);
    net.command(0, &SyncCommand::LeaseUntil(net.now + 10 * MS));
    net.run(20 * MS);
    let syn = crate::story::syn(Kind::V4.client(9), Kind::V4.vip(L4Proto::Tcp));
    assert_eq!(net.packet(0, &syn), Verdict::Drop(DropReason::NotReady));
    net.forwarded(0, &flow.inbound());
    net.command(0, &SyncCommand::LeaseUntil(net.now + Duration::from_secs(1)));
    net.forwarded(0, &syn);
}

/// Who has no room says so: the holder counts it and tells its node, and the peer's node learns what it lacks.
#[test]
fn a_holder_is_told_what_is_refused() {
    let mut net = Net::joined(0, &[NodeConfig::default(), small()]);
    let group = net.group(0);
    let flows: Vec<_> = (0..300).map(|n| net.open(0, n)).collect();
    net.run(500 * MS);
    let refused = net.nodes[0].sync(SyncCount::PeerRefused);
    assert!(refused >= 180, "{refused}");
    assert!(net.nodes[0].has_told(|e| matches!(e, SyncEvent::Refused(_))) > 0);
    assert!(net.nodes[1].lacking(group) > 0);
    assert_eq!(net.nodes[0].unacked(), 0, "what is refused is not waited for");
    for flow in &flows[60..] {
        net.reset(0, flow);
    }
    net.run(Duration::from_secs(10));
    assert_eq!(net.agree(0, 1, group), 60);
    assert_eq!(net.nodes[1].lacking(group), 0);
}
