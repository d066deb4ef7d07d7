//! What would tell a client that it is connected waits until other nodes have its session.

use std::time::Duration;

use evenkeel_core::cluster::{Epoch, Role};
use evenkeel_core::conn::TableSizes;
use evenkeel_core::proto::ConnState;
use evenkeel_core::service::{Deferral, OnLimit, Replicate};
use evenkeel_core::stats::{DropReason, SyncCount};
use evenkeel_core::sync::{ClusterSizes, SyncBody};
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::Verdict;

use crate::net::{Net, NodeConfig};
use crate::packet::{ACK, Packet, RST, SYN};
use crate::story::{Flow, Kind, first, spec};

const MS: Duration = Duration::from_millis(1);

fn nodes_of(seed: u64, configs: &[NodeConfig], deferral: (u8, Duration, OnLimit)) -> Net {
    let (nodes, limit, on_limit) = deferral;
    let mut spec = spec();
    for service in &mut spec.services {
        service.replicate = Replicate::Deferred(Deferral::new(nodes, limit, on_limit).expect("it can be"));
    }
    Net::joined_of(seed, configs, spec)
}

fn nodes(seed: u64, count: usize, deferral: (u8, Duration, OnLimit)) -> Net {
    nodes_of(seed, &vec![NodeConfig::default(); count], deferral)
}

fn answer(flow: &Flow) -> Packet {
    flow.outbound().flags(SYN | ACK)
}

/// When the frames of a node that waited were sent.
fn let_go(net: &Net, n: usize) -> Vec<Instant> {
    let of = net.let_go.iter().filter(|(_, from, _)| *from == n);
    of.map(|(at, ..)| *at).collect()
}

#[test]
fn a_syn_ack_waits_for_one_of_two_others() {
    for seed in 0..4 {
        let mut net = nodes(seed, 3, (1, 5 * MS, OnLimit::Open));
        let flow = net.begin(0, [Kind::V4, Kind::V6][seed as usize / 2], L4Proto::Tcp, 1);
        let at = net.now;
        assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
        assert_eq!(net.nodes[0].counters().held, 1);
        net.run(5 * MS);
        let sent = let_go(&net, 0);
        assert_eq!(sent.len(), 1);
        assert!(
            sent[0] > at && sent[0] < at + MS,
            "by the first ACK: {:?}",
            sent[0] - at
        );
        assert_eq!(net.nodes[0].sync(SyncCount::DeferAcked), 1);
        assert_eq!(
            net.nodes[0].sync(SyncCount::DeferOpened) + net.nodes[0].sync(SyncCount::DeferShort),
            0
        );
        assert!(
            [1, 2]
                .iter()
                .all(|n| net.state(*n, &flow) == Some(ConnState::SynRecv))
        );
        // The frame is what would have been sent at once.
        let frame = &net.let_go[0].2;
        let (seen, _) = crate::packet::read(0, frame);
        assert_eq!((seen.src, seen.dst), (flow.vip, flow.client));
        // All else passes as ever.
        net.forwarded(0, &flow.inbound());
        net.forwarded(0, &flow.outbound());
        assert_eq!(
            net.packet(0, &answer(&flow)),
            net.packet(0, &flow.outbound()),
            "the client knows"
        );
    }
}

#[test]
fn it_waits_for_as_many_as_it_is_to() {
    for heard in 0..3 {
        let mut net = nodes(0, 4, (2, 20 * MS, OnLimit::Drop));
        for deaf in heard + 1..4 {
            net.cut.insert((0, deaf));
        }
        let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
        assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
        net.run(19 * MS);
        assert_eq!(let_go(&net, 0).len(), usize::from(heard >= 2), "{heard} have it");
        net.run(3 * MS);
        let c = net.nodes[0].counters();
        let dropped = u64::from(heard < 2);
        assert_eq!(c.drops[DropReason::DeferLimit as usize], dropped);
        assert_eq!(net.nodes[0].sync(SyncCount::DeferDropped), dropped);
        assert_eq!((c.held, c.released), (1, 1));
        // The server sends its SYN-ACK again, and it waits again.
        if heard < 2 {
            assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
            net.cut.clear();
            net.run(10 * MS);
            assert_eq!(let_go(&net, 0).len(), 1);
        }
    }
}

#[test]
fn its_time_is_up_and_it_is_let_through_and_counted() {
    let limit = 7 * MS;
    let mut net = nodes(1, 2, (1, limit, OnLimit::Open));
    net.cut.insert((0, 1));
    let flows: Vec<_> = (0..20).map(|n| net.begin(0, Kind::V4, L4Proto::Tcp, n)).collect();
    let at = net.now;
    for flow in &flows {
        assert_eq!(net.packet(0, &answer(flow)), Verdict::Held);
    }
    net.run(10 * MS);
    let sent = let_go(&net, 0);
    assert_eq!(sent.len(), 20);
    assert!(sent.iter().all(|t| *t >= at + limit && *t <= at + limit + MS));
    assert_eq!(net.nodes[0].sync(SyncCount::DeferOpened), 20);
    assert!(
        net.nodes[0].sync(SyncCount::DeferAgain) >= 20,
        "each was told again"
    );
}

/// What is lost is told again within a millisecond or two, long before a NACK or a heartbeat would have it told.
#[test]
fn what_is_lost_is_told_again_at_once() {
    let mut net = nodes(1, 2, (1, 10 * MS, OnLimit::Drop));
    net.filter =
        |m| !matches!(&m.body, SyncBody::Live(s) if s.first == 1) && !matches!(m.body, SyncBody::Nack { .. });
    let at = net.now;
    let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
    net.run(10 * MS);
    let sent = let_go(&net, 0);
    assert_eq!(sent.len(), 1);
    assert!(sent[0] <= at + 2 * MS, "{:?}", sent[0] - at);
}

/// An answer that comes later than the session is told again counts for the first telling.
#[test]
fn a_far_peer_is_heard_in_time() {
    let mut net = nodes(1, 2, (1, 20 * MS, OnLimit::Drop));
    net.weather.delay_us = 6_000;
    let at = net.now;
    let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
    net.run(20 * MS);
    let sent = let_go(&net, 0);
    assert_eq!(sent.len(), 1);
    assert!(sent[0] < at + 13 * MS, "one way and back: {:?}", sent[0] - at);
}

#[test]
fn of_udp_the_first_datagram_waits_and_those_that_follow_it_keep_their_order() {
    for seed in 0..2 {
        let mut net = nodes(seed, 2, (1, 5 * MS, OnLimit::Open));
        let [client, vip] = [Kind::V4.client(3), Kind::V4.vip(L4Proto::Udp)];
        let datagram = |n: u8| first(L4Proto::Udp, client, vip).with(|p| p.payload = vec![n; 100]);
        for n in 0..3 {
            assert_eq!(net.packet(0, &datagram(n)), Verdict::Held, "{n}");
        }
        net.run(2 * MS);
        let sent: Vec<u8> = net
            .let_go
            .iter()
            .map(|(_, _, frame)| frame[frame.len() - 1])
            .collect();
        assert_eq!(sent, [0, 1, 2]);
        // It is open.
        net.forwarded(0, &datagram(3));
        assert_eq!(net.nodes[0].sync(SyncCount::Deferred), 3);
    }
}

#[test]
fn a_datagram_whose_time_is_up_is_dropped_and_the_next_one_waits_until_others_have_its_session() {
    let mut net = nodes(1, 2, (1, 5 * MS, OnLimit::Drop));
    net.cut.insert((0, 1));
    let datagram = first(L4Proto::Udp, Kind::V4.client(3), Kind::V4.vip(L4Proto::Udp));
    assert_eq!(net.packet(0, &datagram), Verdict::Held);
    net.run(7 * MS);
    assert_eq!(net.packet(0, &datagram), Verdict::Held);
    net.cut.clear();
    net.run(3 * MS);
    assert_eq!(let_go(&net, 0).len(), 1);
    net.forwarded(0, &datagram);
    // However much is told meanwhile, and though nobody remembers by which record it was.
    for n in 0..2_000 {
        let flow = net.begin(0, Kind::V4, L4Proto::Tcp, n);
        net.packet(0, &answer(&flow));
        if n % 100 == 0 {
            net.run(3 * MS);
        }
    }
    net.run(3 * MS);
    net.forwarded(0, &datagram);
    assert_eq!(net.agree(0, 1, net.group(0)), 2_001);
}

/// A limit that no answer can keep: what is sent again finds that others have the session by now.
#[test]
fn what_is_sent_again_waits_for_nobody_who_has_the_session() {
    for proto in [L4Proto::Tcp, L4Proto::Udp] {
        let mut net = nodes(1, 2, (1, 2 * MS, OnLimit::Drop));
        net.weather.delay_us = 5_000;
        let [client, vip] = [Kind::V4.client(3), Kind::V4.vip(proto)];
        let given = match proto {
            L4Proto::Tcp => answer(&net.begin(0, Kind::V4, proto, 3)),
            L4Proto::Udp => first(proto, client, vip),
        };
        assert_eq!(net.packet(0, &given), Verdict::Held);
        net.run(30 * MS);
        assert_eq!(net.nodes[0].sync(SyncCount::DeferDropped), 1);
        net.forwarded(0, &given);
        assert_eq!(let_go(&net, 0).len(), 0);
    }
}

#[test]
fn nobody_is_waited_for_who_is_not_ready() {
    let mut net = nodes(0, 2, (2, 5 * MS, OnLimit::Drop));
    // One is ready: it is waited for alone.
    let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
    net.run(3 * MS);
    assert_eq!(let_go(&net, 0).len(), 1);
    assert_eq!(net.nodes[0].sync(SyncCount::DeferShort), 1);
    // None is: nothing waits.
    net.crash(1);
    net.meet();
    let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 2);
    net.forwarded(0, &answer(&flow));
    assert_eq!(net.nodes[0].sync(SyncCount::DeferShort), 2);
}

/// Whoever goes while it is waited for is waited for no more; who came in its place has not said anything yet.
#[test]
fn peers_that_go_leave_those_that_have_said_it() {
    let mut net = nodes(1, 4, (2, 50 * MS, OnLimit::Drop));
    net.cut.insert((0, 1));
    net.cut.insert((0, 2));
    let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
    net.run(5 * MS);
    assert_eq!(let_go(&net, 0).len(), 0, "only the last one has it");
    net.crash(1);
    net.meet();
    net.run(5 * MS);
    assert_eq!(let_go(&net, 0).len(), 0, "two are left, one of which has it");
    assert_eq!(net.nodes[0].sync(SyncCount::DeferShort), 0);
    net.crash(2);
    net.meet();
    net.run(10 * MS);
    assert_eq!(let_go(&net, 0).len(), 1);
    assert_eq!(net.nodes[0].sync(SyncCount::DeferShort), 1, "by one of the two");
}

/// Who is gone and heard again was sent nothing of what was told meanwhile, whatever it said of itself before.
#[test]
fn who_comes_back_has_nothing_of_what_was_told_meanwhile() {
    let mut net = nodes(1, 2, (1, 5 * MS, OnLimit::Drop));
    net.cut.insert((0, 1));
    net.meet_but(0, &[1]);
    let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    // Nobody is there to be waited for; the client loses it.
    net.forwarded(0, &answer(&flow));
    net.run(3 * MS);
    assert!(
        net.conn(0, &flow.inbound().tuple()).expect("open").2.lsn > 0,
        "it was told"
    );
    net.meet();
    assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
    net.run(8 * MS);
    assert_eq!(let_go(&net, 0).len(), 0);
    assert_eq!(net.nodes[0].sync(SyncCount::DeferDropped), 1);
    net.cut.clear();
    assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
    net.run(5 * MS);
    assert_eq!(let_go(&net, 0).len(), 1);
    assert!(net.state(1, &flow).is_some());
}

/// All that were waited for are gone: what waits is let through, as what comes then.
#[test]
fn nothing_waits_for_nobody_and_what_comes_then_stays_behind_it() {
    let mut net = nodes(1, 2, (1, 500 * MS, OnLimit::Drop));
    net.cut.insert((0, 1));
    let [client, vip] = [Kind::V4.client(3), Kind::V4.vip(L4Proto::Udp)];
    let datagram = |n: u8| first(L4Proto::Udp, client, vip).with(|p| p.payload = vec![n; 100]);
    assert_eq!(net.packet(0, &datagram(0)), Verdict::Held);
    net.run(5 * MS);
    net.meet_but(0, &[1]);
    assert_eq!(
        net.packet(0, &datagram(1)),
        Verdict::Held,
        "it does not overtake the first one"
    );
    net.run(5 * MS);
    let sent: Vec<u8> = net
        .let_go
        .iter()
        .map(|(_, _, frame)| frame[frame.len() - 1])
        .collect();
    assert_eq!(sent, [0, 1]);
    assert_eq!(net.nodes[0].sync(SyncCount::DeferShort), 2);
    net.forwarded(0, &datagram(2));
}

/// A peer has all that was told of a connection, its end among it: nobody is answered by that.
#[test]
fn the_ack_of_a_close_lets_nothing_through() {
    let mut net = nodes(1, 2, (1, 30 * MS, OnLimit::Open));
    net.weather.delay_us = 5_000;
    let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
    net.run(2 * MS);
    net.forwarded(0, &flow.outbound().flags(RST | ACK));
    let again = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    net.run(20 * MS);
    assert_eq!(let_go(&net, 0).len(), 0);
    let c = net.nodes[0].counters();
    assert_eq!((c.held, c.released), (1, 1), "it does not wait on");
    assert_eq!(c.drops[DropReason::NoConn as usize], 1);
    assert_eq!(net.packet(0, &answer(&again)), Verdict::Held);
    net.run(20 * MS);
    assert_eq!(let_go(&net, 0).len(), 1);
}

/// More sessions come within a round trip than a bucket remembers records of: their ACKs count all the same.
#[test]
fn records_that_are_no_longer_remembered_are_acked_all_the_same() {
    let config = NodeConfig {
        workers: 1,
        sizes: ClusterSizes {
            ring_per_bucket: 16,
            ..ClusterSizes::default()
        },
        ..NodeConfig::default()
    };
    let mut net = nodes_of(1, &[config; 2], (1, 40 * MS, OnLimit::Drop));
    net.weather.delay_us = 5_000;
    let flows: Vec<_> = (0..900)
        .map(|n| net.begin(0, Kind::V4, L4Proto::Tcp, n))
        .collect();
    let at = net.now;
    for flow in &flows {
        assert_eq!(net.packet(0, &answer(flow)), Verdict::Held);
    }
    net.run(39 * MS);
    let sent = let_go(&net, 0);
    assert_eq!(sent.len(), flows.len());
    assert!(sent.iter().all(|t| *t < at + 13 * MS), "by the first ACK of each");
    assert!(flows.iter().all(|f| net.state(1, f).is_some()));
}

/// Who has given a group away tells nothing of it any more, whatever waits.
#[test]
fn what_waits_when_its_group_goes_is_told_no_more() {
    let mut net = nodes(1, 2, (1, 200 * MS, OnLimit::Open));
    net.cut.insert((0, 1));
    let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
    net.run(2 * MS);
    let (group, heir) = (net.group(0), net.nodes[1].id);
    net.authority(
        0,
        group,
        Epoch {
            term: 2,
            holder: heir,
        },
        Role::Replica,
    );
    let told = net.nodes[0].sync(SyncCount::Encoded);
    net.run(150 * MS);
    assert_eq!(net.nodes[0].sync(SyncCount::Encoded), told);
    assert_eq!(
        net.nodes[0].outstanding(),
        0,
        "nothing of it is doubted and pulled"
    );
    net.run(100 * MS);
    assert_eq!(net.nodes[0].sync(SyncCount::DeferOpened), 1);
}

/// A table that is full: who has no room does not count, even if what says so is lost.
#[test]
fn who_has_no_room_does_not_count() {
    for lost in [false, true] {
        let small = NodeConfig {
            table: TableSizes {
                conns_v4: 20,
                conns_v6: 20,
                exts: 1,
            },
            ..NodeConfig::default()
        };
        let mut net = nodes_of(1, &[NodeConfig::default(), small], (1, 5 * MS, OnLimit::Drop));
        let flows: Vec<_> = (0..200)
            .map(|n| net.begin(0, Kind::V4, L4Proto::Tcp, n))
            .collect();
        if lost {
            // What is not kept is said in later ACKs as well.
            net.filter = |m| !matches!(&m.body, SyncBody::Ack { refused, .. } if !refused.is_empty());
        }
        for flow in &flows {
            assert_eq!(net.packet(0, &answer(flow)), Verdict::Held);
            net.run(MS / 10);
        }
        net.run(10 * MS);
        let there = flows.iter().filter(|f| net.state(1, f).is_some()).count();
        assert_eq!(there, 40, "two workers are full");
        assert!(let_go(&net, 0).len() <= there);
        assert!(let_go(&net, 0).len() >= 30, "{}", let_go(&net, 0).len());
        let dropped = net.nodes[0].sync(SyncCount::DeferDropped);
        assert_eq!(dropped as usize, 200 - let_go(&net, 0).len());
    }
}

/// The bound: what finds no room is let through or dropped, as the service says, and counted.
#[test]
fn frames_that_find_no_room_to_wait_are_counted() {
    for on_limit in [OnLimit::Open, OnLimit::Drop] {
        let config = NodeConfig {
            workers: 1,
            sizes: ClusterSizes {
                deferred: 16,
                ..ClusterSizes::default()
            },
            ..NodeConfig::default()
        };
        let mut net = nodes_of(0, &[config; 2], (1, 5 * MS, on_limit));
        let flows: Vec<_> = (0..20).map(|n| net.begin(0, Kind::V4, L4Proto::Tcp, n)).collect();
        let verdicts: Vec<_> = flows.iter().map(|f| net.packet(0, &answer(f))).collect();
        assert!(verdicts[..16].iter().all(|v| *v == Verdict::Held));
        for verdict in &verdicts[16..] {
            match on_limit {
                OnLimit::Open => assert!(matches!(verdict, Verdict::Tx(_)), "{verdict:?}"),
                OnLimit::Drop => assert_eq!(*verdict, Verdict::Drop(DropReason::DeferFull)),
            }
        }
        assert_eq!(net.nodes[0].sync(SyncCount::DeferFull), 4);
        net.run(3 * MS);
        assert_eq!(let_go(&net, 0).len(), 16);
        // There is room again.
        let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 99);
        assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
    }
}

#[test]
fn a_connection_that_ends_meanwhile_is_answered_no_more() {
    let mut net = nodes(0, 2, (1, 30 * MS, OnLimit::Open));
    net.cut.insert((0, 1));
    let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
    net.forwarded(0, &flow.outbound().flags(RST | ACK));
    // Its client's port is used again before the time is up.
    let again = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    assert_ne!(flow.outbound().tuple(), again.outbound().tuple());
    assert_eq!(net.packet(0, &answer(&again)), Verdict::Held);
    net.run(40 * MS);
    assert_eq!(let_go(&net, 0).len(), 1, "of the second one alone");
    let c = net.nodes[0].counters();
    assert_eq!(c.drops[DropReason::NoConn as usize], 1);
    assert_eq!((c.held, c.released), (2, 2));
    net.packet(0, &again.inbound().flags(RST | ACK));
}

/// Of 4,000 connections in bad weather each one that is let through by an ACK is there, whatever is lost, doubled or late.
#[test]
fn what_an_ack_lets_through_is_there() {
    let mut acked = 0;
    for seed in 0..8 {
        let mut net = nodes(seed, 3, (1, 8 * MS, OnLimit::Drop));
        net.weather = crate::net::Weather {
            loss: 250,
            twice: 100,
            jitter_us: 3_000,
            delay_us: 0,
        };
        let mut told = 0;
        for n in 0..500 {
            let flow = net.begin(0, Kind::V4, L4Proto::Tcp, n);
            assert_eq!(net.packet(0, &answer(&flow)), Verdict::Held);
            let before = net.let_go.len();
            net.run(12 * MS);
            if net.let_go.len() > before {
                told += 1;
                let known = [1, 2].iter().filter(|n| net.state(**n, &flow).is_some()).count();
                assert!(known >= 1, "connection {n} of seed {seed}");
            }
            if n % 3 == 0 {
                net.packet(0, &flow.inbound().flags(RST | ACK));
            }
        }
        assert!(told > 300, "{told}");
        acked += net.nodes[0].sync(SyncCount::DeferAcked);
        assert!(net.nodes[0].sync(SyncCount::DeferAgain) > 0);
    }
    assert!(acked > 3_000, "{acked}");
}
