//! Any message, from a member or a stranger, in any state: nothing panics, and counts, queues and bounds agree
//! after each.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::cluster::{Authority, Epoch, GroupId, Incarnation, NodeId, PeerId, Role};
use evenkeel_core::conn::{ConnInit, TableSizes};
use evenkeel_core::proto::{ConnState, TcpEvent};
use evenkeel_core::service::{FwdMode, RealServerId, ServiceId};
use evenkeel_core::stats::SyncCount;
use evenkeel_core::sync::codec::{FrameItem, decode};
use evenkeel_core::sync::{
    CloseReason, CopyState, Destination, HintKind, Isns, LSN_MAX, LiveRecord, LiveSection, LsnRange, Peer,
    PullMode, SeqDeltas, SessionRecord, SyncBody, SyncCommand, SyncMessage, Version, VersionedRecord,
    WindowScales,
};
use evenkeel_core::tuple::{Direction, L4Proto, Tuple};
use evenkeel_core::worker::Command;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::net::{Net, NodeConfig, first_epoch};
use crate::packet::{ACK, FIN, RST, SYN};
use crate::story::{KINDS, first, kinds_and_protos, server_addr, spec, steering};

/// Members are nodes 1 to 3 of [`Net`]; anything else is a stranger.
fn any_peer() -> impl Strategy<Value = PeerId> {
    prop_oneof![
        12 => (1u16..4).prop_map(|n| crate::net::peer(n, 100 + u64::from(n))),
        1 => (0u16..6, any::<u64>()).prop_map(|(node, incarnation)| PeerId {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
        }),
    ]
}

fn any_group() -> impl Strategy<Value = GroupId> {
    any_peer().prop_map(crate::net::group_of)
}

fn any_epoch() -> impl Strategy<Value = Epoch> {
    let term = prop_oneof![30 => 1u64..4, 1 => any::<u64>()];
    (term, any_peer()).prop_map(|(term, holder)| Epoch { term, holder })
}

fn any_lsn() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..40, 1 => any::<u64>(), 1 => Just(LSN_MAX), 1 => Just(u64::MAX)]
}

fn any_version() -> impl Strategy<Value = Version> {
    (any_epoch(), any_lsn()).prop_map(|(epoch, lsn)| Version { epoch, lsn })
}

fn any_ranges() -> impl Strategy<Value = Vec<LsnRange>> {
    let range = (any_lsn(), any_lsn()).prop_map(|(first, last)| LsnRange { first, last });
    prop::collection::vec(range, 0..4)
}

fn any_proto() -> impl Strategy<Value = L4Proto> {
    select(vec![L4Proto::Tcp, L4Proto::Tcp, L4Proto::Udp])
}

/// Those of few clients: messages are about the same sessions.
fn any_inbound() -> impl Strategy<Value = Tuple> {
    (any_proto(), select(&KINDS[..]), 0u32..20).prop_map(|(proto, kind, n)| Tuple {
        proto,
        src: kind.client(n),
        dst: kind.vip(proto),
    })
}

fn slot_of(tuple: &Tuple) -> u16 {
    (steering(64).toeplitz().hash(tuple.src, tuple.dst) & 4095) as u16
}

fn any_addr() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
    let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
    (prop_oneof![v4, v6], any::<u16>()).prop_map(|(addr, port)| SocketAddr::new(addr, port))
}

/// The local port is such that most sessions are in one bucket, see [`fitted`].
fn any_session() -> impl Strategy<Value = SessionRecord> {
    let conn = (
        any_inbound(),
        1u16..4,
        option::weighted(0.05, any_addr()),
        any::<bool>(),
        0u16..20,
    );
    let state = (select(&ConnState::ALL[..]), any::<[bool; 3]>(), any::<u32>());
    let deltas = option::of((any::<u32>(), any::<u32>()));
    let isns = any::<(Option<u32>, Option<u32>)>();
    (conn, state, deltas, isns).prop_map(
        |((tuple, server, odd, v4, service), (state, flags, remaining_ms), deltas, isns)| SessionRecord {
            conn: ConnInit {
                proto: tuple.proto,
                client: tuple.src,
                vip: tuple.dst,
                server: SocketAddr::new(server_addr(v4, server), 8080),
                local: odd.unwrap_or_else(|| {
                    let addr = if v4 { "10.0.2.1" } else { "fd00::2:1" };
                    SocketAddr::new(addr.parse().expect("an address"), 0)
                }),
                service: ServiceId(service),
                server_id: RealServerId(server),
                state: match (tuple.proto, flags[0] || flags[1]) {
                    (L4Proto::Udp, true) => ConnState::UdpNormal,
                    (L4Proto::Tcp, true) if state as u8 > 8 => ConnState::Established,
                    _ => state,
                },
            },
            mode: FwdMode::FullNat,
            remaining: Duration::from_millis(u64::from(remaining_ms) << 8),
            was_established: flags[0],
            was_closed: flags[1],
            inbound_only: flags[2],
            deltas: deltas.map(|(inbound, outbound)| SeqDeltas { inbound, outbound }),
            isns: Isns {
                client: isns.0,
                server: isns.1,
            },
            window_scales: WindowScales::default(),
        },
    )
}

fn any_live() -> impl Strategy<Value = LiveRecord> {
    let reason = select(vec![
        CloseReason::Expired,
        CloseReason::Replaced,
        CloseReason::Superseded,
    ]);
    prop_oneof![
        3 => any_session().prop_map(LiveRecord::Open),
        2 => any_session().prop_map(LiveRecord::Update),
        3 => (any_inbound(), reason).prop_map(|(tuple, reason)| LiveRecord::Close(tuple, reason)),
    ]
}

fn any_record() -> impl Strategy<Value = VersionedRecord> {
    let session = prop_oneof![3 => any_session().prop_map(Ok), 1 => any_inbound().prop_map(Err)];
    (any_version(), session).prop_map(|(version, session)| VersionedRecord { version, session })
}

fn any_hint() -> impl Strategy<Value = HintKind> {
    let direction = || select(vec![Direction::Inbound, Direction::Outbound]);
    let event = select(vec![TcpEvent::Syn, TcpEvent::Fin, TcpEvent::Ack, TcpEvent::Rst]);
    prop_oneof![
        (direction(), event).prop_map(|(direction, event)| HintKind::Segment(direction, event)),
        direction().prop_map(HintKind::Traffic),
    ]
}

fn any_body() -> impl Strategy<Value = SyncBody> {
    let live = (
        any_group(),
        any_epoch(),
        any_lsn(),
        prop::collection::vec(any_live(), 0..3),
    );
    let pulled = || (1u32..12, any_group(), 0u16..4200);
    let mode = select(vec![PullMode::Replace, PullMode::Merge]);
    let of_session = any_inbound().prop_map(|t| slot_of(&t));
    let slots = prop::collection::vec(prop_oneof![9 => of_session, 1 => 0u16..4200], 0..2);
    let skip = (any_lsn(), any_lsn(), any_lsn(), slots);
    let copy = prop::sample::select(vec![CopyState::Partial, CopyState::Whole, CopyState::Ready]);
    let watermark = (any_epoch(), copy, any_lsn(), any_ranges());
    prop_oneof![
        6 => live.prop_map(|(group, epoch, first, records)| SyncBody::Live(LiveSection {
            group, epoch, first, records
        })),
        1 => any_lsn().prop_map(|last| SyncBody::Heartbeat { last }),
        1 => (any_peer(), any_lsn(), any_ranges(), any_ranges(), any_ranges()).prop_map(
            |(of, contiguous, applied, refused, unkept)| SyncBody::Ack { of, contiguous, applied, refused, unkept }
        ),
        1 => (any_peer(), any_ranges()).prop_map(|(of, missing)| SyncBody::Nack { of, missing }),
        4 => skip.prop_map(|(first, last, until, slots)| SyncBody::Skip {
            gap: LsnRange { first, last }, until, slots
        }),
        2 => (any_group(), any_inbound(), any_hint()).prop_map(|(group, tuple, kind)| SyncBody::Hint {
            group, tuple, kind
        }),
        1 => (pulled(), any_version(), mode, 0u16..4).prop_map(|((id, group, slot), min, mode, more)| {
            // Mostly of one bucket.
            let slots = (0..=more).map(|n| slot.wrapping_add(64 * n)).collect();
            SyncBody::Pull { group, id, min, mode, slots }
        }),
        1 => (pulled(), prop_oneof![9 => 0u16..3, 1 => 0u16..300], any_version()).prop_map(|((id, group, _), count, as_of)| {
            SyncBody::SlotsEmpty { id, group, count, as_of }
        }),
        1 => pulled().prop_map(|(id, group, slot)| SyncBody::SlotBegin { id, group, slot }),
        4 => (pulled(), prop::collection::vec(any_record(), 0..6)).prop_map(
            |((id, group, slot), records)| SyncBody::SlotRecords { id, group, slot, records }
        ),
        2 => (pulled(), 0u32..2, any_version()).prop_map(|((id, group, slot), count, as_of)| {
            SyncBody::SlotEnd { id, group, slot, count, as_of }
        }),
        2 => (any_group(), any_epoch(), watermark).prop_map(
            |(group, epoch, (last, copy, contiguous, applied))| SyncBody::Watermark {
                group, epoch, last, copy, contiguous, applied
            }
        ),
        2 => (any_group(), any_epoch(), any_version(), any::<bool>()).prop_map(
            |(group, epoch, base, exact)| SyncBody::Merged { group, epoch, base, exact, at: base.lsn }
        ),
        2 => (any_group(), any_record(), any::<u32>()).prop_map(|(group, record, id)| SyncBody::Offer {
            group, record: Box::new(record), id
        }),
        1 => (any_group(), 0u32..9).prop_map(|(group, id)| SyncBody::OfferSeen { group, id }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Say(PeerId, Option<u16>, bool, SyncBody),
    Do(SyncCommand),
    Packet(Tuple, u8, bool),
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let command = prop_oneof![
        4 => (any_group(), any_epoch(), select(&Role::ALL[..])).prop_map(|(group, mut epoch, role)| {
            // The node that commands is no enemy: it holds what it holds itself.
            let own = crate::net::peer(1, 101);
            if role.is_holder() {
                epoch.holder = own;
            } else if epoch.holder == own {
                epoch.holder = crate::net::peer(2, 102);
            }
            SyncCommand::Authority(Authority { group, epoch, role })
        }),
        1 => (any_peer(), any::<[bool; 4]>()).prop_map(|(odd, flags)| {
            let peer = |id, in_sync| Peer { id, in_sync, ready: flags[0] };
            let mut peers = vec![peer(crate::net::peer(2, 102), flags[1]), peer(odd, flags[2])];
            if flags[3] {
                peers.push(peer(crate::net::peer(3, 103), true));
            }
            SyncCommand::Peers(Arc::new(peers))
        }),
        1 => any_group().prop_map(SyncCommand::Forget),
        1 => option::of(any_group()).prop_map(SyncCommand::Create),
        1 => (any_group(), any_peer(), select(vec![PullMode::Replace, PullMode::Merge]))
            .prop_map(|(group, source, mode)| SyncCommand::Pull {
                group,
                source,
                mode,
                number: 1 + u32::from(mode == PullMode::Merge),
            }),
    ];
    let flags = select(vec![SYN, SYN | ACK, ACK, FIN | ACK, RST]);
    let bucket = option::weighted(0.05, any::<u16>());
    prop_oneof![
        12 => (prop_oneof![8 => select(vec![2u16, 3]).prop_map(|n| crate::net::peer(n, 100 + u64::from(n))), 1 => any_peer()], bucket, any::<bool>(), any_body())
            .prop_map(|(from, bucket, now, body)| Step::Say(from, bucket, now, body)),
        3 => command.prop_map(Step::Do),
        4 => (any_inbound(), flags, any::<bool>()).prop_map(|(t, f, back)| Step::Packet(t, f, back)),
        2 => prop_oneof![0u64..20, Just(1100), Just(100_000)].prop_map(Step::Pass),
    ]
}

/// Gives sessions ends of one bucket and slots that are theirs, so that most pass the first checks; all but one
/// in sixteen.
fn fitted(net: &Net, body: &mut SyncBody) -> Option<u16> {
    let hash = |a: SocketAddr, b: SocketAddr| {
        (a.is_ipv4() == b.is_ipv4()).then(|| net.steering.toeplitz().hash(a, b))
    };
    let fit = |s: &mut SessionRecord| {
        let c = &mut s.conn;
        let inbound = hash(c.client, c.vip)?;
        if c.local.port() == 0 {
            let wanted = net.steering.bucket(inbound);
            let port = (1024u16..4096).find(|port| {
                c.local.set_port(*port);
                hash(c.server, c.local).is_some_and(|h| net.steering.bucket(h) == wanted)
            });
            port?;
        }
        Some(inbound)
    };
    let of_tuple = |t: &Tuple| hash(t.src, t.dst);
    let hash = match body {
        SyncBody::Live(section) => section.records.iter_mut().fold(None, |_, r| match r {
            LiveRecord::Open(s) | LiveRecord::Update(s) => fit(s),
            LiveRecord::Close(t, _) => of_tuple(t),
        }),
        SyncBody::SlotRecords { records, slot, .. } => {
            let last = records.iter_mut().fold(None, |_, r| match &mut r.session {
                Ok(s) => fit(s),
                Err(t) => of_tuple(t),
            });
            if let Some(hash) = last {
                *slot = (hash & 4095) as u16;
            }
            last
        }
        SyncBody::Offer { record, .. } => match &mut record.session {
            Ok(s) => fit(s),
            Err(t) => of_tuple(t),
        },
        SyncBody::Hint { tuple, .. } => of_tuple(tuple),
        SyncBody::SlotBegin { slot, .. } | SyncBody::SlotEnd { slot, .. } => Some(u32::from(*slot)),
        SyncBody::Pull { slots, .. } | SyncBody::Skip { slots, .. } => slots.first().map(|s| u32::from(*s)),
        _ => None,
    };
    hash.map(|h| net.steering.bucket(h))
}

/// Pulls that the node has sent: answers to them are hostile too.
#[derive(Default)]
struct Asked(Vec<(PeerId, GroupId, u16, u32)>);

fn play(steps: &[Step]) -> Net {
    let config = NodeConfig {
        workers: 1,
        table: TableSizes {
            conns_v4: 12,
            conns_v6: 16,
            exts: 4,
        },
        ..NodeConfig::default()
    };
    let mut net = Net::new(1, &[config; 3], spec());
    net.own(0);
    net.meet();
    for other in [1, 2] {
        let (group, epoch) = (net.group(other), first_epoch(net.nodes[other].id));
        net.authority(0, group, epoch, Role::Replica);
    }
    let mut known: BTreeMap<GroupId, Epoch> = BTreeMap::new();
    for n in 0..3 {
        known.insert(net.group(n), first_epoch(net.nodes[n].id));
    }
    for (from, bucket) in [1, 2].into_iter().flat_map(|n| (0..64).map(move |b| (n, b))) {
        let message = SyncMessage {
            from: net.nodes[from].id,
            bucket,
            ack_now: false,
            body: SyncBody::Heartbeat { last: 0 },
        };
        net.hear(0, &message);
    }
    let pool: Vec<Tuple> = (0..20)
        .flat_map(|n| kinds_and_protos().map(move |(kind, proto)| (n, kind, proto)))
        .map(|(n, kind, proto)| Tuple {
            proto,
            src: kind.client(n),
            dst: kind.vip(proto),
        })
        .collect();
    // Slots of them are pulled.
    for (n, tuple) in pool.iter().enumerate() {
        let slot = slot_of(tuple);
        let message = SyncMessage {
            from: net.nodes[1 + n % 2].id,
            bucket: net.steering.bucket(u32::from(slot)),
            ack_now: false,
            body: SyncBody::Skip {
                gap: LsnRange { first: 1, last: 1 },
                until: 1,
                slots: vec![slot],
            },
        };
        net.hear(0, &message);
    }
    let mut asked = Asked::default();
    let mut turn = 0usize;
    for step in steps {
        turn += 1;
        match step {
            Step::Say(from, bucket, ack_now, body) => {
                let (mut from, mut body) = (*from, body.clone());
                if let SyncBody::SlotRecords { records, .. } = &mut body
                    && let Some((_, group, slot, _)) = asked.0.last()
                    && let Some(tuple) = pool.iter().find(|t| slot_of(t) == *slot)
                {
                    for r in records {
                        if let Some(epoch) = known.get(group) {
                            r.version.epoch = *epoch;
                            r.version.lsn = r.version.lsn.min(50);
                        }
                        match &mut r.session {
                            Ok(s) => {
                                let c = &mut s.conn;
                                (c.proto, c.client, c.vip) = (tuple.proto, tuple.src, tuple.dst);
                            }
                            Err(t) => *t = *tuple,
                        }
                    }
                }
                let fits = fitted(&net, &mut body);
                // Every other answer is one to what was asked.
                if turn.is_multiple_of(2)
                    && let SyncBody::SlotBegin { id, group, slot }
                    | SyncBody::SlotRecords { id, group, slot, .. }
                    | SyncBody::SlotEnd { id, group, slot, .. } = &mut body
                    && let Some(pull) = asked.0.last()
                {
                    (from, *group, *slot, *id) = *pull;
                }
                if turn.is_multiple_of(2)
                    && let SyncBody::SlotsEmpty { id, group, .. } = &mut body
                    && let Some(pull) = asked.0.last()
                {
                    (from, *group, _, *id) = *pull;
                }
                // And every other record one by the epoch that is known.
                if turn.is_multiple_of(2)
                    && let SyncBody::Live(section) = &mut body
                    && let Some(epoch) = known.get(&section.group)
                {
                    (section.epoch, from) = (*epoch, epoch.holder);
                    section.first = section.first.min(50);
                }
                let message = SyncMessage {
                    from,
                    bucket: bucket.or(fits).unwrap_or(turn as u16 % 64),
                    ack_now: *ack_now,
                    body,
                };
                let now = net.now;
                net.nodes[0].workers[0].handle_sync(now, &message);
            }
            Step::Do(command) => {
                let now = net.now;
                if let SyncCommand::Authority(a) = command {
                    let epoch = known.entry(a.group).or_insert(a.epoch);
                    *epoch = a.epoch.max(*epoch);
                }
                net.nodes[0].workers[0]
                    .handle_command(now, Command::Sync(command.clone()))
                    .expect("it has a cluster");
            }
            Step::Packet(tuple, flags, back) => {
                let mut packet = first(tuple.proto, tuple.src, tuple.dst);
                if tuple.proto == L4Proto::Tcp {
                    packet = packet.flags(*flags);
                }
                let there = net.nodes[0].workers[0].conn(tuple).map(|c| c.0);
                if let Some(view) = there.filter(|_| *back) {
                    packet = crate::story::Flow::of(&view).outbound();
                    if tuple.proto == L4Proto::Tcp {
                        packet = packet.flags(*flags);
                    }
                }
                net.packet(0, &packet);
            }
            Step::Pass(ms) => net.now = net.now + Duration::from_millis(*ms),
        }
        let now = net.now;
        let worker = &mut net.nodes[0].workers[0];
        worker.audit();
        if worker.poll_timeout().is_some_and(|at| at <= now) {
            worker.handle_timeout(now);
        }
        while worker.poll_event().is_some() {}
        // What it says is what the codec takes.
        let mut out = Vec::new();
        for _ in 0..400 {
            let (to, said) = if turn.is_multiple_of(3) {
                let Some(to) = worker.poll_sync(now, &mut out) else {
                    break;
                };
                let frame = decode(&out).expect("a good frame");
                let said = frame.items.into_iter().filter_map(|item| match item {
                    FrameItem::Sync(m) => Some(m),
                    FrameItem::Node(_) => None,
                });
                (to, said.collect())
            } else {
                let Some((to, message)) = worker.poll_sync_message(now) else {
                    break;
                };
                (to, vec![message])
            };
            for m in said {
                if let (Destination::One(to), SyncBody::Pull { group, slots, id, .. }) = (to, &m.body) {
                    asked.0 = vec![(to, *group, slots[0], *id)];
                }
            }
        }
        worker.audit();
    }
    net
}

fn cases(default: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(default),
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn no_message_breaks_a_worker(steps in prop::collection::vec(any_step(), 1..150)) {
        play(&steps);
    }
}

/// That the messages get past the first checks.
#[test]
fn hostile_messages_do_get_in() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let steps = prop::collection::vec(any_step(), 5400);
    let steps = steps.new_tree(&mut runner).expect("steps").current();
    let mut sum = [0u64; SyncCount::COUNT];
    for part in steps.chunks(150) {
        let net = play(part);
        for (sum, n) in sum.iter_mut().zip(net.nodes[0].counters().sync) {
            *sum += n;
        }
    }
    for count in [
        SyncCount::Applied,
        SyncCount::PulledIn,
        SyncCount::SlotsPulled,
        SyncCount::Older,
        SyncCount::Invalid,
        SyncCount::StaleEpoch,
        SyncCount::UnknownEpoch,
        SyncCount::UnknownPeer,
        SyncCount::WrongBucket,
        SyncCount::Unexpected,
        SyncCount::Refused,
        SyncCount::Encoded,
    ] {
        assert!(sum[count as usize] > 0, "{}: {sum:?}", count.name());
    }
}
