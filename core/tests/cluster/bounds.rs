//! What ends what would otherwise grow: peers that do not ack, sessions of nobody, epochs, tombstones, groups.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::cluster::{Authority, Epoch, GROUP_COUNT_MAX, Role};
use evenkeel_core::conn::TableSizes;
use evenkeel_core::proto::ConnState;
use evenkeel_core::stats::SyncCount;
use evenkeel_core::sync::{Peer, SyncCommand, SyncEvent};
use evenkeel_core::tuple::L4Proto;

use crate::net::{Net, NodeConfig, first_epoch};
use crate::packet::{FIN, RST, SYN};
use crate::story::{Flow, Kind};

const MS: Duration = Duration::from_millis(1);

fn one_worker(conns: u32) -> NodeConfig {
    NodeConfig {
        workers: 1,
        table: TableSizes {
            conns_v4: conns,
            conns_v6: conns,
            exts: 0,
        },
        ..NodeConfig::default()
    }
}

/// Whether node 0 waits for node 1.
fn waits(net: &mut Net, in_sync: bool) {
    let id = net.nodes[1].id;
    let peer = Peer {
        id,
        in_sync,
        ready: true,
    };
    net.command(0, &SyncCommand::Peers(Arc::new(vec![peer])));
}

fn out_of_sync(net: &Net) -> usize {
    let peer = net.nodes[1].id;
    net.nodes[0].has_told(|e| *e == SyncEvent::OutOfSync(peer))
}

#[test]
fn a_peer_that_acks_nothing_for_a_second_is_told_and_not_waited_for() {
    let mut net = Net::joined(1, &[one_worker(2000); 2]);
    let flows: Vec<_> = (0..100).map(|n| net.open(0, n)).collect();
    net.run(100 * MS);
    net.cut.insert((0, 1));
    for flow in &flows[..50] {
        net.reset(0, flow);
    }
    net.run(900 * MS);
    assert_eq!(out_of_sync(&net), 0, "a second has not passed");
    net.run(500 * MS);
    assert!(out_of_sync(&net) > 0);
    // Closed, and told to nobody yet: each keeps its place as long as the peer is waited for.
    net.run(3000 * MS);
    assert_eq!(net.nodes[0].tombs(), 50);
    waits(&mut net, false);
    assert_eq!(net.nodes[0].tombs(), 0);
    for flow in &flows[50..60] {
        net.reset(0, flow);
    }
    let told = out_of_sync(&net);
    net.run(4000 * MS);
    assert_eq!(net.nodes[0].tombs(), 0, "no new ones stay");
    assert_eq!(
        out_of_sync(&net),
        told,
        "it is said of those only that are waited for"
    );
    assert_eq!(
        net.state(1, &flows[0]),
        Some(ConnState::Established),
        "it heard nothing"
    );
    // It has acked nothing, and is not to be waited for again.
    let late = |net: &Net| net.nodes[0].finds_late(net.nodes[1].id);
    assert!(late(&net));
    // It comes back: it is sent to all the same, and asks for what it lacks.
    net.quiet();
    waits(&mut net, true);
    net.run(300 * MS);
    assert_eq!(net.agree(0, 1, net.group(0)), 40);
    assert_eq!(net.nodes[0].unacked(), 0);
    assert!(!late(&net), "it has acked all");
}

#[test]
fn a_peer_that_lacks_too_many_records_is_told_before_a_second_has_passed() {
    let mut net = Net::joined(0, &[one_worker(2000); 2]);
    net.cut.insert((0, 1));
    for n in 0..1000 {
        net.open(0, n);
    }
    net.run(200 * MS);
    assert_eq!(out_of_sync(&net), 0, "1024 are the least");
    for n in 1000..1100 {
        net.open(0, n);
    }
    net.run(200 * MS);
    assert!(out_of_sync(&net) > 0);
    net.quiet();
    assert_eq!(net.agree(0, 1, net.group(0)), 1100);
}

/// Who is not waited for has all, and its ACK was lost: it is asked for another one, or would be out of sync for ever.
#[test]
fn a_lost_ack_of_a_peer_that_is_out_of_sync_is_asked_for() {
    let mut net = Net::joined(0, &[one_worker(100); 2]);
    net.open(0, 1);
    // It is there, and not acked yet.
    net.run(5 * MS);
    net.cut.insert((0, 1));
    net.run(300 * MS);
    let peer = Peer {
        id: net.nodes[1].id,
        in_sync: false,
        ready: true,
    };
    net.command(0, &SyncCommand::Peers(Arc::new(vec![peer])));
    net.run(100 * MS);
    assert_eq!(net.nodes[1].all(net.group(0)).len(), 1);
    assert!(net.nodes[0].unacked() > 0);
    net.cut.clear();
    net.run(500 * MS);
    assert_eq!(net.nodes[0].unacked(), 0);
}

/// Time passes at once; what is due is done late.
fn leap(net: &mut Net, time: Duration) {
    net.now = net.now + time;
    let now = net.now;
    for worker in net
        .nodes
        .iter_mut()
        .filter(|n| n.alive)
        .flat_map(|n| &mut n.workers)
    {
        while worker.poll_timeout().is_some_and(|at| at <= now) {
            worker.handle_timeout(now);
        }
    }
    net.run(MS);
}

#[test]
fn sessions_of_nobody_end_a_quarter_of_an_hour_after_their_timeout_and_nobody_is_told() {
    let mut net = Net::joined(1, &[one_worker(100); 3]);
    let flows: Vec<_> = (0..20).map(|n| net.open(0, n)).collect();
    net.run(100 * MS);
    let group = net.group(0);
    net.crash(0);
    net.meet();
    for n in [1, 2] {
        net.authority(n, group, first_epoch(net.nodes[0].id), Role::Orphan);
    }
    leap(&mut net, Duration::from_secs(60));
    // It is used still, at one of them.
    net.forwarded(1, &flows[7].inbound());
    // ESTABLISHED: 90 s.
    for _ in 0..46 {
        leap(&mut net, Duration::from_secs(20));
    }
    for n in [1, 2] {
        assert_eq!(net.nodes[n].all(group).len(), 20);
    }
    net.forwarded(2, &flows[8].inbound());
    for _ in 0..5 {
        leap(&mut net, Duration::from_secs(10));
    }
    let left = |net: &Net, n: usize| net.nodes[n].all(group).len();
    assert_eq!((left(&net, 1), left(&net, 2)), (1, 1), "each where it was used");
    assert!(net.state(1, &flows[7]).is_some() && net.state(2, &flows[8]).is_some());
    for n in [1, 2] {
        assert_eq!(net.nodes[n].sync(SyncCount::OrphansEvicted), 19);
        assert_eq!(net.nodes[n].sync(SyncCount::Encoded), 0);
        assert_eq!(net.nodes[n].counters().expired, 0);
        assert_eq!(net.nodes[n].tombs(), 0);
    }
}

/// Conns name the epoch in which they were told. While a worker can name no further one it stays with the last
/// one that it could, and does not confirm: the node says it again until it is in force.
#[test]
fn an_epoch_that_cannot_be_named_is_not_confirmed() {
    let mut net = Net::joined(1, &[one_worker(2000); 2]);
    let (group, holder) = (net.group(0), net.nodes[0].id);
    let epoch = |term| Epoch { term, holder };
    let mut flows: Vec<Flow> = Vec::new();
    let mut full = None;
    for term in 2..2000 {
        net.authority(0, group, epoch(term), Role::Owned);
        // Not told yet: it keeps its epoch until its SYN-ACK.
        let flow = net.begin(0, Kind::V4, L4Proto::Tcp, term as u32);
        flows.push(flow);
        let (_, _, version) = net.conn(0, &flow.inbound().tuple()).expect("opened");
        if version.epoch != epoch(term) {
            assert_eq!(version.epoch, epoch(term - 1));
            full = Some(term);
            break;
        }
    }
    let full = full.expect("the table is bounded");
    assert!(full > 15 * GROUP_COUNT_MAX as u64 && full <= 16 * GROUP_COUNT_MAX as u64 + 2);
    net.run(MS);
    net.nodes[0].events.clear();
    let confirmed = |net: &Net, term| {
        let now = Authority {
            group,
            epoch: epoch(term),
            role: Role::Owned,
        };
        net.nodes[0].has_told(|e| *e == SyncEvent::AuthorityApplied(now))
    };
    net.authority(0, group, epoch(full), Role::Owned);
    net.run(MS);
    assert_eq!(confirmed(&net, full), 0);
    // Life goes on as it was.
    let flow = net.open(0, 3000);
    assert_eq!(net.state(0, &flow), Some(ConnState::Established));
    for flow in &flows[..500] {
        net.forwarded(0, &flow.outbound().flags(RST));
    }
    net.run(5000 * MS);
    assert!(net.nodes[0].all(group).len() <= flows.len() - 499);
    net.authority(0, group, epoch(full), Role::Owned);
    net.run(MS);
    assert_eq!(confirmed(&net, full), 1);
    let flow = net.begin(0, Kind::V6, L4Proto::Tcp, 4000);
    let (_, _, version) = net.conn(0, &flow.inbound().tuple()).expect("opened");
    assert_eq!(version.epoch, epoch(full));
}

#[test]
fn a_new_conn_takes_a_tombstone_s_place_and_who_has_not_acked_pulls_the_slot() {
    for kind in [Kind::V4, Kind::V6] {
        let mut net = Net::joined(0, &[one_worker(60), one_worker(200)]);
        let open = |net: &mut Net, n: u32| {
            let flow = net.begin(0, kind, L4Proto::Tcp, n);
            net.forwarded(0, &flow.outbound().flags(SYN | 16));
            net.forwarded(0, &flow.inbound());
            flow
        };
        let old: Vec<_> = (0..60).map(|n| open(&mut net, n)).collect();
        net.run(100 * MS);
        assert_eq!(net.agree(0, 1, net.group(0)), 60);
        net.cut.insert((0, 1));
        for flow in &old {
            net.reset(0, flow);
        }
        net.run(4000 * MS);
        assert_eq!(
            (net.nodes[0].tombs(), net.nodes[0].all(net.group(0)).len()),
            (60, 0)
        );
        let new: Vec<_> = (100..140).map(|n| open(&mut net, n)).collect();
        assert_eq!(net.nodes[0].sync(SyncCount::TombsEvicted), 40);
        assert_eq!(net.nodes[0].tombs(), 20);
        let dirty = net.nodes[0].sync(SyncCount::SlotsDirty);
        assert!((30..=40).contains(&dirty), "{dirty} slots");
        let pulled = net.nodes[1].sync(SyncCount::SlotsPulled);
        net.quiet();
        assert_eq!(net.agree(0, 1, net.group(0)), 40);
        assert!(old.iter().all(|f| net.state(1, f).is_none()), "closed there too");
        assert!(
            new.iter()
                .all(|f| net.state(1, f) == Some(ConnState::Established))
        );
        let pulled = net.nodes[1].sync(SyncCount::SlotsPulled) - pulled;
        assert!(pulled >= dirty && pulled < 200, "{pulled} of {dirty}");
        assert_eq!(net.nodes[0].tombs() + net.nodes[1].tombs(), 0);
    }
}

#[test]
fn a_group_is_forgotten_once_it_is_empty() {
    let mut net = Net::joined(1, &[one_worker(500); 2]);
    let group = net.group(0);
    let flows: Vec<_> = (0..30).map(|n| net.open(0, n)).collect();
    net.run(100 * MS);
    for n in [0, 1] {
        net.command(n, &SyncCommand::Forget(group));
    }
    // It has sessions: nothing happens.
    net.fin(0, &flows[0]);
    net.run(20 * MS);
    assert_eq!(net.state(1, &flows[0]), Some(ConnState::CloseWait));
    for flow in &flows {
        net.reset(0, flow);
    }
    net.run(5000 * MS);
    assert_eq!(net.nodes[0].all(group).len() + net.nodes[1].all(group).len(), 0);
    net.command(1, &SyncCommand::Forget(group));
    // Who creates in it does not forget it.
    net.command(0, &SyncCommand::Forget(group));
    let late: Vec<_> = (100..110).map(|n| net.open(0, n)).collect();
    net.forwarded(0, &late[0].inbound().flags(FIN | 16));
    net.run(100 * MS);
    assert_eq!(net.nodes[0].all(group).len(), 10);
    assert_eq!(net.nodes[1].all(group).len(), 0);
    assert!(net.nodes[1].sync(SyncCount::UnknownEpoch) > 0);
    // Told of it again, it hears what it had to miss.
    net.know(1, 0);
    net.quiet();
    assert_eq!(net.agree(0, 1, group), 10);
    assert_eq!(net.nodes[0].unacked(), 0);
}
