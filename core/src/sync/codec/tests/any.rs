//! Any message within its bounds.

use super::*;
use alloc::boxed::Box;
use proptest::option;

fn any_copy() -> impl Strategy<Value = CopyState> {
    prop::sample::select(vec![CopyState::Partial, CopyState::Whole, CopyState::Ready])
}

fn any_peer() -> impl Strategy<Value = PeerId> {
    (any::<u16>(), any::<u64>()).prop_map(|(node, incarnation)| PeerId {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
    })
}

fn any_group() -> impl Strategy<Value = GroupId> {
    // Sections are often of one group.
    prop_oneof![
        Just(GROUP),
        (any::<u16>(), any::<u64>()).prop_map(|(node, generation)| GroupId {
            node: NodeId(node),
            generation,
        }),
    ]
}

fn any_epoch() -> impl Strategy<Value = Epoch> {
    // Few terms: neighbours are often of one epoch.
    prop_oneof![
        (0u64..2).prop_map(epoch),
        (any::<u64>(), any_peer()).prop_map(|(term, holder)| Epoch { term, holder }),
    ]
}

fn any_lsn() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..10, 0..=LSN_MAX, Just(LSN_MAX)]
}

fn any_version() -> impl Strategy<Value = Version> {
    (any_epoch(), any_lsn()).prop_map(|(epoch, lsn)| Version { epoch, lsn })
}

fn any_range() -> impl Strategy<Value = LsnRange> {
    (any_lsn(), any_lsn()).prop_map(|(a, b)| LsnRange {
        first: a.min(b),
        last: a.max(b),
    })
}

fn any_ranges() -> impl Strategy<Value = Vec<LsnRange>> {
    prop::collection::vec(any_range(), 0..=RANGE_COUNT_MAX)
}

fn any_slot() -> impl Strategy<Value = u16> {
    0..SLOT_COUNT as u16
}

fn any_ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let ports = (any::<u16>(), any::<u16>());
    let v4 = any::<[[u8; 4]; 2]>().prop_map(|addrs| addrs.map(IpAddr::from));
    let v6 = any::<[[u8; 16]; 2]>().prop_map(|addrs| addrs.map(IpAddr::from));
    (ports, prop_oneof![v4, v6]).prop_map(|((p, q), [a, b])| (SocketAddr::new(a, p), SocketAddr::new(b, q)))
}

fn any_proto() -> impl Strategy<Value = L4Proto> {
    prop_oneof![Just(L4Proto::Tcp), Just(L4Proto::Udp)]
}

fn any_tuple() -> impl Strategy<Value = Tuple> {
    (any_proto(), any_ends()).prop_map(|(proto, (src, dst))| Tuple { proto, src, dst })
}

fn any_session() -> impl Strategy<Value = SessionRecord> {
    let ends = (any_proto(), any_ends(), any_ends());
    let state = (prop::sample::select(&ConnState::ALL[..]), any::<[bool; 3]>());
    let deltas = option::of(any::<(u32, u32)>());
    let isns = any::<(Option<u32>, Option<u32>)>();
    let scales = (option::of(0u8..15), option::of(0u8..15));
    (ends, state, any::<u32>(), deltas, isns, scales).prop_map(
        |((proto, (client, vip), (server, local)), (state, flags), remaining_ms, deltas, isns, scales)| {
            SessionRecord {
                conn: ConnInit {
                    proto,
                    client,
                    vip,
                    server,
                    local,
                    service: SERVICE_UNRESOLVED,
                    server_id: SERVER_UNRESOLVED,
                    state,
                },
                mode: FwdMode::FullNat,
                remaining: Duration::from_millis(u64::from(remaining_ms)),
                was_established: flags[0],
                was_closed: flags[1],
                inbound_only: flags[2],
                deltas: deltas.map(|(inbound, outbound)| SeqDeltas { inbound, outbound }),
                isns: Isns {
                    client: isns.0,
                    server: isns.1,
                },
                window_scales: WindowScales {
                    client: scales.0,
                    server: scales.1,
                },
            }
        },
    )
}

fn any_live_record() -> impl Strategy<Value = LiveRecord> {
    let reason = prop::sample::select(vec![
        CloseReason::Expired,
        CloseReason::Replaced,
        CloseReason::Superseded,
    ]);
    prop_oneof![
        any_session().prop_map(LiveRecord::Open),
        any_session().prop_map(LiveRecord::Update),
        (any_tuple(), reason).prop_map(|(tuple, reason)| LiveRecord::Close(tuple, reason)),
    ]
}

fn any_record() -> impl Strategy<Value = VersionedRecord> {
    let session = prop_oneof![any_session().prop_map(Ok), any_tuple().prop_map(Err)];
    (any_version(), session).prop_map(|(version, session)| VersionedRecord { version, session })
}

fn any_hint() -> impl Strategy<Value = HintKind> {
    let direction = || prop::sample::select(vec![Direction::Inbound, Direction::Outbound]);
    let event = prop::sample::select(vec![TcpEvent::Syn, TcpEvent::Fin, TcpEvent::Ack, TcpEvent::Rst]);
    prop_oneof![
        (direction(), event).prop_map(|(direction, event)| HintKind::Segment(direction, event)),
        direction().prop_map(HintKind::Traffic),
    ]
}

fn any_digest() -> impl Strategy<Value = SlotDigest> {
    (any_slot(), any::<u32>(), any::<u64>()).prop_map(|(slot, count, hash)| SlotDigest { slot, count, hash })
}

fn any_body() -> impl Strategy<Value = SyncBody> {
    let live = (
        any_group(),
        any_epoch(),
        1..=LSN_MAX - 8,
        prop::collection::vec(any_live_record(), 1..8),
    )
        .prop_map(|(group, epoch, first, records)| {
            SyncBody::Live(LiveSection {
                group,
                epoch,
                first,
                records,
            })
        });
    let ack = (any_peer(), any_lsn(), any_ranges(), any_ranges(), any_ranges()).prop_map(
        |(of, contiguous, applied, refused, unkept)| SyncBody::Ack {
            of,
            contiguous,
            applied,
            refused,
            unkept,
        },
    );
    let skip = (
        any_range(),
        any_lsn(),
        prop::collection::vec(any_slot(), 0..=SKIP_SLOT_COUNT_MAX),
    )
        .prop_map(|(gap, until, slots)| SyncBody::Skip { gap, until, slots });
    let pulled = || (any::<u32>(), any_group(), any_slot());
    let mode = prop::sample::select(vec![PullMode::Replace, PullMode::Merge]);
    prop_oneof![
        live,
        any_lsn().prop_map(|last| SyncBody::Heartbeat { last }),
        ack,
        (any_peer(), any_ranges()).prop_map(|(of, missing)| SyncBody::Nack { of, missing }),
        skip,
        (any_group(), any_tuple(), any_hint()).prop_map(|(group, tuple, kind)| SyncBody::Hint {
            group,
            tuple,
            kind
        }),
        (
            (any::<u32>(), any_group(), any_version(), mode),
            prop::collection::vec(any_slot(), 1..=PULL_SLOT_COUNT_MAX),
        )
            .prop_map(|((id, group, min, mode), slots)| SyncBody::Pull {
                group,
                id,
                min,
                mode,
                slots,
            }),
        (
            any::<u32>(),
            any_group(),
            1..=PULL_SLOT_COUNT_MAX as u16,
            any_version()
        )
            .prop_map(|(id, group, count, as_of)| SyncBody::SlotsEmpty {
                id,
                group,
                count,
                as_of,
            }),
        pulled().prop_map(|(id, group, slot)| SyncBody::SlotBegin { id, group, slot }),
        (pulled(), prop::collection::vec(any_record(), 1..8)).prop_map(|((id, group, slot), records)| {
            SyncBody::SlotRecords {
                id,
                group,
                slot,
                records,
            }
        }),
        (pulled(), any::<u32>(), any_version()).prop_map(|((id, group, slot), count, as_of)| {
            SyncBody::SlotEnd {
                id,
                group,
                slot,
                count,
                as_of,
            }
        }),
        (
            any_group(),
            any_epoch(),
            any_epoch(),
            any_copy(),
            any_lsn(),
            any_ranges()
        )
            .prop_map(|(group, epoch, last, copy, contiguous, applied)| {
                SyncBody::Watermark {
                    group,
                    epoch,
                    last,
                    copy,
                    contiguous,
                    applied,
                }
            }),
        (any_group(), any_epoch(), any_version(), any::<bool>(), any_lsn()).prop_map(
            |(group, epoch, base, exact, at)| SyncBody::Merged {
                group,
                epoch,
                base,
                exact,
                at,
            }
        ),
        (any_group(), any_record(), any::<u32>()).prop_map(|(group, record, id)| SyncBody::Offer {
            group,
            record: Box::new(record),
            id
        }),
        (any_group(), any::<u32>()).prop_map(|(group, id)| SyncBody::OfferSeen { group, id }),
        (
            (any_group(), any_epoch(), any_lsn()),
            prop::collection::vec(any_digest(), 1..=DIGEST_SLOT_COUNT_MAX),
        )
            .prop_map(|((group, epoch, last), slots)| SyncBody::Digest {
                group,
                epoch,
                last,
                slots,
            }),
    ]
}

fn any_node_message() -> impl Strategy<Value = NodeMessage> {
    let claim = (any_group(), any_epoch(), prop::sample::select(&Role::ALL[..]))
        .prop_map(|(group, epoch, role)| GroupClaim { group, epoch, role });
    let readiness = prop::sample::select(vec![Readiness::Joining, Readiness::Degraded, Readiness::Ready]);
    let heartbeat = (
        any::<u64>(),
        readiness,
        any::<bool>(),
        prop::collection::vec(claim, 0..=GROUP_COUNT_MAX),
        prop::collection::vec(any_peer(), 0..=NODE_COUNT_MAX),
        any::<u16>(),
    )
        .prop_map(
            |(shares, readiness, draining, claims, hears, late)| NodeMessage::Heartbeat {
                shares,
                readiness,
                draining,
                claims,
                late: late & ((1 << hears.len()) - 1) as u16,
                hears,
            },
        );
    prop_oneof![
        heartbeat,
        (any_group(), any_epoch()).prop_map(|(group, epoch)| NodeMessage::Fenced { group, epoch }),
        (any_group(), any_epoch()).prop_map(|(group, epoch)| NodeMessage::Handover { group, epoch }),
    ]
}

pub(super) fn any_item() -> impl Strategy<Value = FrameItem> {
    prop_oneof![
        14 => (0..BUCKET_COUNT_MAX, any::<bool>(), any_body())
            .prop_map(|(bucket, ack_now, body)| sync(bucket, ack_now, body)),
        3 => any_node_message().prop_map(FrameItem::Node),
    ]
}
