//! What a service's mode of replication has told, and when.

use std::time::Duration;

use evenkeel_core::cluster::{Epoch, Role};
use evenkeel_core::proto::ConnState;
use evenkeel_core::service::Replicate;
use evenkeel_core::stats::{DropReason, SyncCount};
use evenkeel_core::sync::SyncCommand;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::Verdict;

use crate::net::{Net, NodeConfig};
use crate::packet::{ACK, FIN, RST, SYN};
use crate::story::{Flow, Kind, spec};

const MS: Duration = Duration::from_millis(1);

fn two(seed: u64, replicate: impl Fn(L4Proto) -> Replicate) -> Net {
    let mut spec = spec();
    for service in &mut spec.services {
        service.replicate = replicate(service.proto);
    }
    Net::joined_of(seed, &[NodeConfig::default(); 2], spec)
}

fn told(net: &Net) -> u64 {
    net.nodes[0].sync(SyncCount::Encoded)
}

/// The state of a conn that may be nobody's but this node's.
fn here(net: &Net, n: usize, flow: &Flow) -> Option<ConnState> {
    let tuple = flow.inbound().tuple();
    let worker = &net.nodes[n].workers[net.worker_of(n, tuple.src, tuple.dst)];
    worker.conn(&tuple).map(|(view, _)| view.init.state)
}

#[test]
fn mode_off_nothing_is_told() {
    for seed in 0..2 {
        let mut net = two(seed, |_| Replicate::Off);
        let flows: Vec<_> = (0..20).map(|n| net.open(0, n)).collect();
        let udp = net.begin(0, Kind::V4, L4Proto::Udp, 50);
        net.forwarded(0, &udp.outbound());
        net.fin(0, &flows[0]);
        net.reset(0, &flows[1]);
        net.run(5000 * MS);
        assert_eq!(
            here(&net, 0, &flows[0]),
            Some(ConnState::CloseWait),
            "it advances"
        );
        assert_eq!(here(&net, 0, &flows[1]), None, "and ends");
        assert_eq!(here(&net, 0, &udp), Some(ConnState::UdpNormal));
        assert_eq!(told(&net), 0);
        assert_eq!(net.nodes[0].all(net.group(0)).len(), 0, "they belong to no group");
        assert!(net.nodes[1].workers.iter().all(|w| w.table().is_empty()));
        assert_eq!(net.nodes[0].tombs() + net.nodes[1].tombs(), 0);
        // What is known nowhere else is forwarded nowhere else.
        let verdict = net.packet(1, &flows[2].inbound());
        assert!(matches!(verdict, Verdict::Drop(_)), "{verdict:?}");
    }
}

#[test]
fn mode_off_leases_and_epochs_are_nothing_to_it() {
    let mut net = two(1, |_| Replicate::Off);
    let flows: Vec<_> = (0..4).map(|n| net.open(0, n)).collect();
    let (group, heir) = (net.group(0), net.nodes[1].id);
    net.command(0, &SyncCommand::LeaseUntil(net.now));
    let epoch = Epoch {
        term: 2,
        holder: heir,
    };
    net.authority(0, group, epoch, Role::Replica);
    net.command(0, &SyncCommand::Create(None));
    net.fin(0, &flows[0]);
    assert_eq!(here(&net, 0, &flows[0]), Some(ConnState::CloseWait));
    assert_eq!(net.nodes[0].sync(SyncCount::HintsSent), 0);
    // But a node that may not create does not create these either.
    let syn = crate::story::syn(Kind::V4.client(9), Kind::V4.vip(L4Proto::Tcp));
    assert_eq!(net.packet(0, &syn), Verdict::Drop(DropReason::NotReady));
    net.run(Duration::from_secs(95));
    assert_eq!(net.nodes[0].counters().expired, 4);
    assert_eq!(told(&net), 0);
}

#[test]
fn mode_off_of_one_service_is_nothing_to_others() {
    let mut net = two(0, |proto| match proto {
        L4Proto::Udp => Replicate::Off,
        L4Proto::Tcp => Replicate::SynAck,
    });
    let udp: Vec<_> = (0..10).map(|n| net.begin(0, Kind::V6, L4Proto::Udp, n)).collect();
    let tcp: Vec<_> = (0..10).map(|n| net.open(0, n)).collect();
    net.run(100 * MS);
    assert_eq!(net.agree(0, 1, net.group(0)), 10);
    assert_eq!(told(&net), 10);
    assert!(tcp.iter().all(|f| net.state(1, f).is_some()));
    assert!(udp.iter().all(|f| here(&net, 1, f).is_none()));
    assert!(udp.iter().all(|f| here(&net, 0, f).is_some()));
}

#[test]
fn mode_established_a_handshake_is_told_at_its_end() {
    for seed in 0..2 {
        let mut net = two(seed, |_| Replicate::Established);
        let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
        net.forwarded(0, &flow.outbound().flags(SYN | ACK));
        net.run(20 * MS);
        assert_eq!((net.state(1, &flow), told(&net)), (None, 0), "not by its SYN-ACK");
        net.forwarded(0, &flow.inbound());
        net.run(5 * MS);
        assert_eq!(net.state(1, &flow), Some(ConnState::Established));
        assert_eq!(told(&net), 1);
        // And every change after, data not among them.
        net.forwarded(0, &flow.outbound());
        net.run(5 * MS);
        assert_eq!(told(&net), 1);
        net.fin(0, &flow);
        net.run(5 * MS);
        assert_eq!(net.state(1, &flow), Some(ConnState::CloseWait));
        net.forwarded(0, &flow.outbound().flags(FIN | ACK));
        net.run(5 * MS);
        assert_eq!(net.state(1, &flow), Some(ConnState::TimeWait));
        assert_eq!(told(&net), 3);
        net.run(8000 * MS);
        assert_eq!((net.state(0, &flow), net.state(1, &flow)), (None, None));
        assert_eq!(told(&net), 4, "and its end");
        assert_eq!(net.nodes[0].tombs() + net.nodes[1].tombs(), 0);
    }
}

#[test]
fn mode_established_what_never_was_is_never_told() {
    let mut net = two(0, |_| Replicate::Established);
    let flows: Vec<_> = (0..30).map(|n| net.begin(0, Kind::V4, L4Proto::Tcp, n)).collect();
    for flow in &flows {
        net.forwarded(0, &flow.outbound().flags(SYN | ACK));
    }
    for flow in &flows[..10] {
        net.reset(0, flow);
    }
    for flow in &flows[10..20] {
        net.forwarded(0, &flow.outbound().flags(RST | ACK));
    }
    net.run(Duration::from_secs(40));
    assert!(net.nodes[0].workers.iter().all(|w| w.table().is_empty()));
    assert_eq!(net.nodes[0].counters().opened, 30);
    assert_eq!(told(&net), 0);
    assert_eq!(net.nodes[0].tombs(), 0);
    assert_eq!(net.nodes[1].sync(SyncCount::Applied), 0);
}

#[test]
fn mode_established_a_datagram_is_told_at_once() {
    let mut net = two(1, |_| Replicate::Established);
    let flow = net.begin(0, Kind::Nat64, L4Proto::Udp, 1);
    net.run(5 * MS);
    assert_eq!(net.state(1, &flow), Some(ConnState::UdpOneWay));
    net.forwarded(0, &flow.outbound());
    net.run(5 * MS);
    assert_eq!(net.state(1, &flow), Some(ConnState::UdpNormal));
    assert_eq!(told(&net), 2);
}

#[test]
fn mode_synack_what_the_server_did_not_accept_is_never_told() {
    let mut net = two(0, |_| Replicate::SynAck);
    let flows: Vec<_> = (0..20).map(|n| net.begin(0, Kind::V4, L4Proto::Tcp, n)).collect();
    // The SYN again changes nothing; a server that refuses neither.
    for flow in &flows {
        net.forwarded(0, &flow.inbound().flags(SYN));
    }
    for flow in &flows[..10] {
        net.forwarded(0, &flow.outbound().flags(RST | ACK));
    }
    net.run(Duration::from_secs(40));
    assert!(net.nodes[0].workers.iter().all(|w| w.table().is_empty()));
    assert_eq!(net.nodes[0].counters().opened, 20);
    assert_eq!((told(&net), net.nodes[0].tombs()), (0, 0));
}

#[test]
fn mode_synack_a_syn_ack_is_told_once_and_then_each_change() {
    for seed in 0..2 {
        let mut net = two(seed, |_| Replicate::SynAck);
        let flow = net.begin(0, Kind::V6, L4Proto::Tcp, 1);
        for _ in 0..3 {
            net.forwarded(0, &flow.outbound().flags(SYN | ACK));
            net.run(5 * MS);
            assert_eq!(net.state(1, &flow), Some(ConnState::SynRecv));
            assert_eq!(told(&net), 1);
        }
        // Its replica takes it over as it is: the client's ACK may come there.
        net.forwarded(1, &flow.inbound());
        net.run(5 * MS);
        for n in [0, 1] {
            assert_eq!(net.state(n, &flow), Some(ConnState::Established), "{n}");
        }
        assert_eq!((told(&net), net.nodes[1].sync(SyncCount::HintsSent)), (2, 1));
        net.reset(0, &flow);
        net.run(5 * MS);
        assert_eq!(net.state(1, &flow), Some(ConnState::Close));
        let udp = net.begin(0, Kind::V4, L4Proto::Udp, 2);
        net.run(5 * MS);
        assert_eq!(net.state(1, &udp), Some(ConnState::UdpOneWay));
        assert_eq!(told(&net), 4);
    }
}
