//! Sessions of two groups with one tuple: who stays, who goes.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::cluster::{Epoch, GroupId, Role};
use evenkeel_core::proto::ConnState;
use evenkeel_core::service::{FwdMode, Replicate};
use evenkeel_core::stats::{DropReason, SyncCount};
use evenkeel_core::sync::{
    CloseReason, Isns, LiveRecord, LiveSection, SessionRecord, SyncBody, SyncCommand, SyncMessage,
    SyncOutcome, WindowScales,
};
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::Verdict;

use crate::net::{Net, NodeConfig, first_epoch};
use crate::packet::{ACK, FIN, RST, SYN};
use crate::story::{Flow, Kind, spec};

const MS: Duration = Duration::from_millis(1);

/// What a node would say of a session of its own in this state.
pub(crate) fn record(net: &Net, n: usize, flow: &Flow, state: ConnState) -> SessionRecord {
    let tuple = flow.inbound().tuple();
    let worker = &net.nodes[n].workers[net.worker_of(n, tuple.src, tuple.dst)];
    let (view, _) = worker.conn(&tuple).expect("it is there");
    let mut conn = view.init;
    conn.state = state;
    SessionRecord {
        conn,
        mode: FwdMode::FullNat,
        remaining: Duration::from_secs(60),
        was_established: state == ConnState::Established,
        was_closed: state.is_closed(),
        inbound_only: false,
        deltas: None,
        isns: Isns::default(),
        window_scales: WindowScales::default(),
    }
}

pub(crate) fn bucket(net: &Net, flow: &Flow) -> u16 {
    net.steering
        .bucket(net.steering.toeplitz().hash(flow.client, flow.vip))
}

/// Live records of nodes, said to node 1 by the test.
#[derive(Default)]
struct Script {
    last: BTreeMap<(usize, u16), u64>,
}

impl Script {
    fn say(&mut self, net: &mut Net, from: usize, bucket: u16, record: SessionRecord) {
        self.tell(net, from, bucket, LiveRecord::Open(record));
    }

    fn tell(&mut self, net: &mut Net, from: usize, bucket: u16, record: LiveRecord) {
        let last = self.last.entry((from, bucket)).or_default();
        *last += 1;
        let first = *last;
        let from = net.nodes[from].id;
        let message = SyncMessage {
            from,
            bucket,
            ack_now: false,
            body: SyncBody::Live(LiveSection {
                group: crate::net::group_of(from),
                epoch: first_epoch(from),
                first,
                records: vec![record],
            }),
        };
        assert_eq!(net.hear(1, &message), SyncOutcome::Taken);
    }
}

/// Three nodes that hear nothing of each other but what a test says.
fn silent(seed: u64) -> Net {
    let mut net = Net::joined(seed, &[NodeConfig::default(); 3]);
    net.cut.extend([(0, 1), (0, 2), (1, 2)]);
    net
}

#[test]
fn the_session_that_is_further_stays_then_that_of_the_lower_group() {
    let mut net = silent(1);
    let mut script = Script::default();
    let states = [
        ConnState::CloseWait,
        ConnState::SynSent,
        ConnState::SynRecv,
        ConnState::Established,
    ];
    let groups: [GroupId; 3] = [0, 1, 2].map(|n| net.group(n));
    let mut number = 0;
    for (rank_a, a) in states.into_iter().enumerate() {
        for (rank_b, b) in states.into_iter().enumerate() {
            for a_is_first in [true, false] {
                number += 1;
                let mut says = [(0, a), (2, b)].map(|(n, state)| {
                    let flow = net.begin(n, Kind::V4, L4Proto::Tcp, number);
                    (n, flow, record(&net, n, &flow, state))
                });
                if !a_is_first {
                    says.swap(0, 1);
                }
                let before = net.nodes[1].sync(SyncCount::Conflict);
                for (n, flow, record) in &says {
                    let bucket = bucket(&net, flow);
                    script.say(&mut net, *n, bucket, *record);
                }
                let winner = if rank_a >= rank_b { 0 } else { 2 };
                let tuple = says[0].1.inbound().tuple();
                let (_, group, _) = net.conn(1, &tuple).expect("one of them is there");
                assert_eq!(group, groups[winner], "{a:?} and {b:?}, {a_is_first}");
                let lost = net.nodes[1].sync(SyncCount::Conflict) - before;
                assert_eq!(lost, u64::from(says[0].0 == winner), "the first one stayed");
                // The loser's other tuple is nobody's.
                for (n, flow, _) in &says {
                    let outbound = flow.outbound().tuple();
                    let there = net.conn(1, &outbound).is_some();
                    assert_eq!(there, *n == winner);
                }
            }
        }
    }
    assert_eq!(number, 32);
    net.run(MS);
}

/// The winner goes before the loser's holder has heard of it: who kept the winner alone has the loser, too, a little later.
#[test]
fn what_lost_its_tuple_is_here_once_the_other_one_has_gone() {
    let mut net = silent(1);
    let mut script = Script::default();
    let flows = [0, 2].map(|n| net.begin(n, Kind::V4, L4Proto::Tcp, 1));
    let tuple = flows[0].inbound().tuple();
    for (n, flow) in [0, 2].into_iter().zip(&flows) {
        // Its holder has told it, too; nobody has heard that.
        net.forwarded(n, &flow.outbound().flags(SYN | ACK));
        let (bucket, record) = (bucket(&net, flow), record(&net, n, flow, ConnState::SynRecv));
        script.say(&mut net, n, bucket, record);
    }
    assert_eq!(net.nodes[1].sync(SyncCount::Conflict), 1);
    assert_eq!(net.conn(1, &tuple).map(|c| c.1), Some(net.group(0)));
    let bucket = bucket(&net, &flows[0]);
    script.tell(
        &mut net,
        0,
        bucket,
        LiveRecord::Close(tuple, CloseReason::Expired),
    );
    assert_eq!(net.conn(1, &tuple), None);
    net.cut.remove(&(1, 2));
    net.run(1_500 * MS);
    assert_eq!(net.conn(1, &tuple).map(|c| c.1), Some(net.group(2)));
    net.forwarded(1, &flows[1].inbound());
}

/// The other order: the loser was here first. Its holder never hears of the winner, and has it still.
#[test]
fn what_was_displaced_is_here_again_once_the_other_one_has_gone() {
    for seed in 0..4 {
        let mut net = silent(seed);
        let mut script = Script::default();
        let flows = [0, 2].map(|n| net.begin(n, Kind::V4, L4Proto::Tcp, 1));
        let tuple = flows[0].inbound().tuple();
        for (n, flow) in [0, 2].into_iter().zip(&flows).rev() {
            net.forwarded(n, &flow.outbound().flags(SYN | ACK));
            let (bucket, record) = (bucket(&net, flow), record(&net, n, flow, ConnState::SynRecv));
            script.say(&mut net, n, bucket, record);
            assert_eq!(net.conn(1, &tuple).map(|c| c.1), Some(net.group(n)));
        }
        assert_eq!(
            net.nodes[1].sync(SyncCount::Conflict),
            0,
            "the later one displaced the first"
        );
        let bucket = bucket(&net, &flows[0]);
        script.tell(
            &mut net,
            0,
            bucket,
            LiveRecord::Close(tuple, CloseReason::Expired),
        );
        assert_eq!(net.conn(1, &tuple), None);
        net.cut.remove(&(1, 2));
        net.run(500 * MS);
        assert_eq!(net.nodes[1].behind(), 0, "nothing is to be told");
        assert_eq!(net.conn(1, &tuple), None);
        net.run(1000 * MS);
        assert_eq!(
            net.conn(1, &tuple).map(|c| c.1),
            Some(net.group(2)),
            "seed {seed}"
        );
        net.forwarded(1, &flows[1].inbound());
    }
}

/// A split has ended: what the fenced node offers meets sessions that the winner has begun with the same clients in its own
/// group. Which one stays is judged as ever.
#[test]
fn an_offer_displaces_what_is_less_far() {
    for seed in 0..4 {
        let mut net = Net::joined(seed, &[NodeConfig::default(); 2]);
        let groups = [net.group(0), net.group(1)];
        net.cut.insert((0, 1));
        net.meet_but(0, &[1]);
        net.meet_but(1, &[0]);
        let epoch = Epoch {
            term: 2,
            holder: net.nodes[1].id,
        };
        net.authority(1, groups[0], epoch, Role::Adopting);
        net.run(50 * MS);
        net.authority(1, groups[0], epoch, Role::Owned);
        let young = |net: &mut Net, n: usize, number: u32| {
            let flow = net.begin(n, Kind::V4, L4Proto::Tcp, number);
            net.forwarded(n, &flow.outbound().flags(SYN | ACK));
            assert_eq!(net.state(n, &flow), Some(ConnState::SynRecv));
            flow
        };
        let further: Vec<_> = (0..20)
            .map(|n| {
                let flow = young(&mut net, 0, n);
                net.forwarded(0, &flow.inbound());
                (flow, young(&mut net, 1, n))
            })
            .collect();
        net.run(100 * MS);
        for (offered, here) in &further {
            assert_eq!(net.state(0, offered), Some(ConnState::Established));
            let (state, group, version) = net.conn(1, &here.inbound().tuple()).expect("begun");
            assert_eq!((state, group), (ConnState::SynRecv, groups[1]));
            assert_ne!(version.lsn, 0, "it was told");
        }
        net.cut.clear();
        net.meet();
        net.command(0, &SyncCommand::Create(None));
        net.authority(0, groups[0], epoch, Role::Fenced);
        net.run(Duration::from_secs(1));
        net.authority(0, groups[0], epoch, Role::Replica);
        net.quiet();
        for (offered, here) in &further {
            let found = net.conn(1, &offered.inbound().tuple()).map(|c| (c.0, c.1));
            assert_eq!(found, Some((ConnState::Established, groups[0])), "seed {seed}");
            assert_eq!(net.conn(1, &here.outbound().tuple()), None);
            net.forwarded(1, &offered.outbound());
        }
        assert_eq!(net.nodes[1].sync(SyncCount::OffersTaken), 20);
        assert_eq!(net.agree(1, 0, groups[0]), 20);
        assert_eq!(net.agree(1, 0, groups[1]), 0);
    }
}

#[test]
fn another_group_s_outbound_tuple_displaces_nothing() {
    let mut net = silent(1);
    let mut script = Script::default();
    let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    let bucket_of_it = bucket(&net, &flow);
    // Even one that is closing.
    let there = record(&net, 0, &flow, ConnState::CloseWait);
    script.say(&mut net, 0, bucket_of_it, there);
    let other = (2..10_000)
        .map(|n| Kind::V4.client(n))
        .find(|c| net.steering.bucket(net.steering.toeplitz().hash(*c, flow.vip)) == bucket_of_it)
        .expect("one of 64");
    let mut thief = record(&net, 0, &flow, ConnState::Established);
    thief.conn.client = other;
    script.say(&mut net, 2, bucket_of_it, thief);
    assert_eq!(net.nodes[1].sync(SyncCount::Conflict), 1);
    assert_eq!(net.nodes[1].all(net.group(2)).len(), 0);
    assert_eq!(net.state(1, &flow), Some(ConnState::CloseWait));
    net.forwarded(1, &flow.outbound());
    // Within its own group the newer one has it.
    script.say(&mut net, 0, bucket_of_it, thief);
    assert_eq!(net.state(1, &flow), None);
    assert_eq!(net.nodes[1].all(net.group(0)).len(), 1);
    net.run(MS);
}

/// Both hold one; once they hear each other the loser closes its own, and both have what is left.
#[test]
fn the_loser_s_holder_closes_and_all_agree() {
    let reach = |net: &mut Net, n: usize, number: u32, state: ConnState| {
        let flow = net.begin(n, Kind::V4, L4Proto::Tcp, number);
        net.forwarded(n, &flow.outbound().flags(SYN | ACK));
        if state != ConnState::SynRecv {
            net.forwarded(n, &flow.inbound());
        }
        if state == ConnState::CloseWait {
            net.fin(n, &flow);
        }
        assert_eq!(net.state(n, &flow), Some(state));
        flow
    };
    let states = [ConnState::CloseWait, ConnState::SynRecv, ConnState::Established];
    for seed in 0..2 {
        let mut net = Net::joined(seed, &[NodeConfig::default(); 2]);
        net.cut.insert((0, 1));
        let mut want = Vec::new();
        for (a, first) in states.into_iter().enumerate() {
            for (b, second) in states.into_iter().enumerate() {
                let number = (10 * a + b) as u32;
                let flows = [
                    reach(&mut net, 0, number, first),
                    reach(&mut net, 1, number, second),
                ];
                let winner = usize::from(b > a);
                want.push((flows[winner], winner, [first, second][winner]));
            }
        }
        net.run(20 * MS);
        net.quiet();
        assert_eq!(net.agree(0, 1, net.group(0)), 6);
        assert_eq!(net.agree(1, 0, net.group(1)), 3);
        for (flow, winner, state) in &want {
            for n in [0, 1] {
                let (is, group, _) = net.conn(n, &flow.inbound().tuple()).expect("one is left");
                assert_eq!((is, group), (*state, net.group(*winner)), "node {n}");
            }
            for n in [0, 1] {
                net.forwarded(n, &flow.outbound());
            }
        }
        let lost = |n: usize| net.nodes[n].counters().removed;
        assert!(lost(0) >= 3 && lost(1) >= 6, "{} {}", lost(0), lost(1));
        assert_eq!(net.nodes[0].tombs() + net.nodes[1].tombs(), 0);
        // The winner's life goes on.
        net.forwarded(0, &want[8].0.inbound().flags(FIN | ACK));
        net.run(20 * MS);
        assert_eq!(net.state(1, &want[8].0), Some(ConnState::CloseWait));
    }
}

/// A split brain: one node sent a SYN on and had no answer; the client's next SYN came to another one, which opened the connection.
/// What the client sends then comes to the first one again before that has heard of it.
#[test]
fn a_client_goes_on_with_who_opened_its_connection_and_not_with_who_had_no_answer() {
    for (replicate, kind) in [
        (Replicate::SynAck, Kind::V4),
        (Replicate::Established, Kind::V4),
        (Replicate::SynAck, Kind::V6),
        (Replicate::Established, Kind::V6),
    ] {
        let mut spec = spec();
        for service in &mut spec.services {
            service.replicate = replicate;
        }
        let mut net = Net::joined_of(1, &[NodeConfig::default(); 2], spec);
        net.cut.insert((0, 1));
        let unanswered = net.begin(0, kind, L4Proto::Tcp, 1);
        let flow = net.begin(1, kind, L4Proto::Tcp, 1);
        assert_ne!(unanswered.outbound().tuple(), flow.outbound().tuple());
        net.forwarded(1, &flow.outbound().flags(SYN | ACK));
        net.forwarded(1, &flow.inbound());
        net.run(20 * MS);
        net.cut.clear();
        for flags in [ACK, ACK | FIN] {
            let verdict = net.packet(0, &flow.inbound().flags(flags));
            assert_eq!(verdict, Verdict::Drop(DropReason::NoConn), "{replicate:?}");
        }
        // Its SYN, once more, and its RST are of both.
        net.forwarded(0, &unanswered.inbound().flags(SYN));
        net.run(500 * MS);
        assert_eq!(net.agree(0, 1, net.group(1)), 1);
        net.forwarded(0, &flow.inbound());
        net.forwarded(0, &flow.outbound());
        let tuple = flow.inbound().tuple();
        assert_eq!(net.conn(0, &tuple).map(|c| c.1), Some(net.group(1)));
    }
}

#[test]
fn who_gives_up_before_the_server_has_answered_is_believed() {
    let mut net = Net::joined(1, &[NodeConfig::default(); 2]);
    let flow = net.begin(0, Kind::V4, L4Proto::Tcp, 1);
    net.forwarded(0, &flow.inbound().flags(RST));
    // The answer makes it a connection as any other.
    net.forwarded(0, &flow.outbound().flags(SYN | ACK));
    net.forwarded(0, &flow.inbound());
    net.run(20 * MS);
    assert_eq!(net.state(1, &flow), Some(ConnState::Established));
}
