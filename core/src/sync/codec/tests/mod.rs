mod any;

use any::any_item;

use super::*;
use crate::cluster::{
    Epoch, GENERATION_COUNT_MAX, GROUP_COUNT_MAX, GroupId, Incarnation, NODE_COUNT_MAX, NodeId, Role,
};
use crate::conn::{ConnInit, SLOT_COUNT};
use crate::lport::BUCKET_COUNT_MAX;
use crate::proto::{ConnState, TcpEvent};
use crate::service::FwdMode;
use crate::sync::{
    CloseReason, CopyState, DIGEST_SLOT_COUNT_MAX, GroupClaim, HintKind, Isns, LSN_MAX, LiveRecord,
    LiveSection, LsnRange, NodeMessage, PULL_SLOT_COUNT_MAX, PullMode, RANGE_COUNT_MAX, Readiness,
    SKIP_SLOT_COUNT_MAX, SeqDeltas, SessionRecord, SlotDigest, SyncBody, SyncMessage, Version,
    VersionedRecord, WindowScales,
};
use crate::tuple::{Direction, L4Proto, Tuple};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use proptest::prelude::*;

const HEADER: FrameHeader = FrameHeader {
    cluster: 0x0403_0201,
    from: PeerId {
        node: NodeId(0x0605),
        incarnation: Incarnation(0x1817_1615_1413_1211),
    },
    stream: 0x0807,
    packet_number: 0x2827_2625_2423_2221,
};

/// One frame of these messages.
fn encode(items: &[FrameItem], len_max: usize) -> Vec<u8> {
    let mut buf = Vec::new();
    let mut writer = FrameWriter::new(&mut buf, &HEADER, len_max);
    for item in items {
        let done = match item {
            FrameItem::Sync(m) => writer.push(m.bucket, m.ack_now, &m.body),
            FrameItem::Node(m) => writer.push_node(m),
        };
        assert_eq!(done, Ok(()), "{item:?}");
    }
    assert_eq!(writer.finish(), items.len());
    buf
}

fn sync(bucket: u16, ack_now: bool, body: SyncBody) -> FrameItem {
    FrameItem::Sync(SyncMessage {
        from: HEADER.from,
        bucket,
        ack_now,
        body,
    })
}

/// Bytes of the only message of a frame.
fn body_len(body: SyncBody) -> usize {
    encode(&[sync(0, false, body)], BULK_FRAME_LEN_MAX).len() - HEADER_LEN - MESSAGE_HEADER_LEN
}

fn end(addr: &str) -> SocketAddr {
    addr.parse().unwrap()
}

fn session_v4() -> SessionRecord {
    SessionRecord {
        conn: ConnInit {
            proto: L4Proto::Tcp,
            client: end("192.0.2.1:40000"),
            vip: end("198.51.100.2:443"),
            server: end("10.0.0.3:8443"),
            local: end("10.0.0.4:1025"),
            service: SERVICE_UNRESOLVED,
            server_id: SERVER_UNRESOLVED,
            state: ConnState::Established,
        },
        mode: FwdMode::FullNat,
        remaining: Duration::from_millis(90_000),
        was_established: true,
        was_closed: false,
        inbound_only: false,
        deltas: None,
        isns: Isns::default(),
        window_scales: WindowScales::default(),
    }
}

/// With all that a session may have.
fn session_v6() -> SessionRecord {
    let mut session = session_v4();
    session.conn.client = end("[2001:db8::1]:40000");
    session.conn.vip = end("[2001:db8::2]:443");
    session.conn.server = end("[fd00::3]:8443");
    session.conn.local = end("[fd00::4]:1025");
    session.deltas = Some(SeqDeltas {
        inbound: 1,
        outbound: 2,
    });
    session.isns = Isns {
        client: Some(3),
        server: Some(4),
    };
    session.window_scales = WindowScales {
        client: Some(7),
        server: None,
    };
    session
}

fn epoch(term: u64) -> Epoch {
    Epoch {
        term,
        holder: HEADER.from,
    }
}

const GROUP: GroupId = GroupId {
    node: NodeId(2),
    generation: 9,
};

fn version(lsn: u64) -> Version {
    Version { epoch: epoch(3), lsn }
}

/// One of each message, and what in a message may or may not be there.
fn examples() -> Vec<FrameItem> {
    let (v4, v6) = (session_v4(), session_v6());
    let range = |first, last| LsnRange { first, last };
    let (group, slot, id) = (GROUP, 0x0abc, 77);
    let live = |first, records| {
        SyncBody::Live(LiveSection {
            group,
            epoch: epoch(3),
            first,
            records,
        })
    };
    let packed = |lsn, session| VersionedRecord {
        version: version(lsn),
        session,
    };
    let mut udp = v4.conn.inbound();
    udp.proto = L4Proto::Udp;
    let sync_bodies = vec![
        live(
            5,
            vec![
                LiveRecord::Open(v4),
                LiveRecord::Update(v6),
                LiveRecord::Close(udp, CloseReason::Superseded),
            ],
        ),
        live(
            1,
            vec![LiveRecord::Close(v6.conn.inbound(), CloseReason::Expired)],
        ),
        SyncBody::Heartbeat { last: LSN_MAX },
        SyncBody::Ack {
            of: HEADER.from,
            contiguous: 4,
            applied: vec![range(6, 7), range(9, 9)],
            refused: vec![range(7, 7)],
            unkept: vec![range(2, 3), range(7, 7)],
        },
        SyncBody::Nack {
            of: HEADER.from,
            missing: vec![range(5, 5)],
        },
        SyncBody::Skip {
            gap: range(5, 6),
            until: 12,
            slots: vec![0, 4095],
        },
        SyncBody::Hint {
            group,
            tuple: v4.conn.outbound(),
            kind: HintKind::Segment(Direction::Outbound, TcpEvent::Rst),
        },
        SyncBody::Hint {
            group,
            tuple: udp,
            kind: HintKind::Traffic(Direction::Inbound),
        },
        SyncBody::Pull {
            group,
            id,
            min: version(8),
            mode: PullMode::Merge,
            slots: vec![slot, slot + 8],
        },
        SyncBody::SlotBegin { id, group, slot },
        SyncBody::SlotRecords {
            id,
            group,
            slot,
            records: vec![
                packed(1, Ok(v4)),
                packed(2, Err(udp)),
                VersionedRecord {
                    version: Version::default(),
                    session: Ok(v6),
                },
            ],
        },
        SyncBody::SlotEnd {
            id,
            group,
            slot,
            count: 3,
            as_of: version(10),
        },
        SyncBody::SlotsEmpty {
            id,
            group,
            count: 2,
            as_of: version(10),
        },
        SyncBody::Watermark {
            group,
            epoch: epoch(4),
            last: epoch(3),
            copy: CopyState::Ready,
            contiguous: 10,
            applied: vec![range(12, 20)],
        },
        SyncBody::Merged {
            group,
            epoch: epoch(4),
            base: version(10),
            exact: false,
            at: 11,
        },
        SyncBody::Offer {
            group,
            record: Box::new(packed(0, Ok(v4))),
            id,
        },
        SyncBody::OfferSeen { group, id },
        SyncBody::Digest {
            group,
            epoch: epoch(3),
            last: 10,
            slots: vec![
                SlotDigest {
                    slot,
                    count: 2,
                    hash: 0x4847_4645_4443_4241,
                },
                SlotDigest {
                    slot: slot + 8,
                    ..SlotDigest::default()
                },
            ],
        },
    ];
    let mut items: Vec<FrameItem> = Vec::new();
    for (bucket, body) in sync_bodies.into_iter().enumerate() {
        items.push(sync(bucket as u16, bucket % 2 == 1, body));
    }
    let claim = |role| GroupClaim {
        group,
        epoch: epoch(3),
        role,
    };
    items.extend([
        FrameItem::Node(NodeMessage::Heartbeat {
            shares: 0x3837_3635_3433_3231,
            readiness: Readiness::Ready,
            draining: true,
            claims: vec![claim(Role::Draining), claim(Role::Replica)],
            hears: vec![HEADER.from],
            late: 1,
        }),
        FrameItem::Node(NodeMessage::Fenced {
            group,
            epoch: epoch(5),
        }),
        FrameItem::Node(NodeMessage::Handover {
            group,
            epoch: epoch(5),
        }),
    ]);
    items
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for line in bytes.chunks(32) {
        out.push_str("  ");
        for byte in line {
            write!(out, "{byte:02x}").unwrap();
        }
        out.push('\n');
    }
    out
}

#[test]
fn every_byte_of_a_small_frame() {
    let items = [
        sync(
            0x20,
            true,
            SyncBody::Live(LiveSection {
                group: GROUP,
                epoch: epoch(3),
                first: 5,
                records: vec![LiveRecord::Open(session_v4())],
            }),
        ),
        sync(0x21, false, SyncBody::Heartbeat { last: 6 }),
    ];
    #[rustfmt::skip]
    let bytes = [
        // Version, type, ACK-NOW, no key; cluster; node; stream; two messages; 117 bytes.
        3, 1, 1, 0, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 2, 0, 117, 0,
        // Incarnation, packet number.
        0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
        // Critical, a live section; ACK-NOW; bucket; 67 bytes.
        0x81, 1, 0x20, 0, 67, 0,
        // Group.
        2, 0, 9, 0, 0, 0, 0, 0, 0, 0,
        // Epoch: term and holder.
        3, 0, 0, 0, 0, 0, 0, 0, 0x05, 0x06, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
        // First LSN.
        5, 0, 0, 0, 0, 0,
        // Critical, OPEN; 31 bytes: ESTABLISHED, was established, full NAT, 90,000 ms.
        0x81, 31, 1, 1, 0, 0x90, 0x5f, 0x01, 0x00,
        // Ports 40000 and 443, client and VIP.
        0x40, 0x9c, 0xbb, 0x01, 192, 0, 2, 1, 198, 51, 100, 2,
        // Ports 8443 and 1025, server and local end.
        0xfb, 0x20, 0x01, 0x04, 10, 0, 0, 3, 10, 0, 0, 4,
        // Critical, HEARTBEAT; bucket; 6 bytes; LSN.
        0x82, 0, 0x21, 0, 6, 0, 6, 0, 0, 0, 0, 0,
    ];
    let encoded = encode(&items, LIVE_FRAME_LEN_MAX);
    assert_eq!(hex(&encoded), hex(&bytes));
    let frame = Frame {
        header: HEADER,
        items: items.to_vec(),
    };
    assert_eq!(decode(&bytes), Ok(frame));
}

/// All messages as bytes: what this snapshot changes is another format, and wants another [`FORMAT_VERSION`].
#[test]
fn format() {
    let mut out = String::new();
    for item in examples() {
        let bytes = encode(core::slice::from_ref(&item), BULK_FRAME_LEN_MAX);
        let name = match &item {
            FrameItem::Sync(message) => alloc::format!("{:?}", message.body),
            FrameItem::Node(message) => alloc::format!("node {message:?}"),
        };
        let name = name
            .split([' ', '(', '{'])
            .take(1 + usize::from(name.starts_with("node")));
        let name: Vec<&str> = name.collect();
        writeln!(out, "{}, {} bytes", name.join(" "), bytes.len() - HEADER_LEN).unwrap();
        out.push_str(&hex(&bytes[HEADER_LEN..]));
    }
    insta::assert_snapshot!(out);
}

#[test]
fn sizes() {
    let live = |records: Vec<LiveRecord>| {
        body_len(SyncBody::Live(LiveSection {
            group: GROUP,
            epoch: epoch(1),
            first: 1,
            records,
        }))
    };
    let one = LiveRecord::Open(session_v4());
    let section = live(vec![one.clone()]) - 33;
    assert_eq!(section, 34, "group, epoch, first LSN");
    assert_eq!(live(vec![one.clone(); 2]) - live(vec![one]), 33);
    assert_eq!(live(vec![LiveRecord::Update(session_v6())]) - section, 98);
    let mut plain_v6 = session_v6();
    plain_v6.deltas = None;
    plain_v6.isns = Isns::default();
    plain_v6.window_scales = WindowScales::default();
    assert_eq!(live(vec![LiveRecord::Open(plain_v6)]) - section, 81);
    let mut full_v4 = session_v6();
    full_v4.conn = session_v4().conn;
    assert_eq!(live(vec![LiveRecord::Open(full_v4)]) - section, 50);
    let close = |tuple| live(vec![LiveRecord::Close(tuple, CloseReason::Expired)]) - section;
    assert_eq!(close(session_v4().conn.inbound()), 16);
    assert_eq!(close(session_v6().conn.inbound()), 40);

    let bulk = |session: SessionRecord, count: u64| {
        body_len(SyncBody::SlotRecords {
            id: 1,
            group: GROUP,
            slot: 1,
            records: (0..count)
                .map(|lsn| VersionedRecord {
                    version: version(lsn),
                    session: Ok(session),
                })
                .collect(),
        })
    };
    assert_eq!(bulk(session_v4(), 3) - bulk(session_v4(), 2), 38);
    assert_eq!(bulk(plain_v6, 3) - bulk(plain_v6, 2), 86);

    let digests = |count| {
        let slots = vec![SlotDigest::default(); count];
        SyncBody::Digest {
            group: GROUP,
            epoch: epoch(1),
            last: 1,
            slots,
        }
    };
    assert_eq!(body_len(digests(2)) - body_len(digests(1)), 14);
    let longest = [sync(0, false, digests(DIGEST_SLOT_COUNT_MAX))];
    assert_eq!(encode(&longest, LIVE_FRAME_LEN_MAX).len(), 969);
    // Who does not know digests skips them.
    assert_eq!(encode(&longest, LIVE_FRAME_LEN_MAX)[HEADER_LEN], kind::DIGEST);

    // A second section of the same group says neither group nor epoch.
    let section = |bucket| {
        let body = SyncBody::Live(LiveSection {
            group: GROUP,
            epoch: epoch(1),
            first: 1,
            records: vec![LiveRecord::Open(session_v4())],
        });
        sync(bucket, false, body)
    };
    let lens = [1, 2].map(|n| encode(&[section(0), section(1)][..n], LIVE_FRAME_LEN_MAX).len());
    assert_eq!(lens, [105, 150]);
    // 1,400 bytes: so many new IPv4 sessions of one bucket.
    assert_eq!((LIVE_FRAME_LEN_MAX - HEADER_LEN - 6 - 34) / 33, 40);
}

#[test]
fn the_largest_node_message_fits() {
    let claim = GroupClaim {
        group: GROUP,
        epoch: epoch(1),
        role: Role::Replica,
    };
    let heartbeat = |claims| NodeMessage::Heartbeat {
        shares: 1,
        readiness: Readiness::Joining,
        draining: false,
        claims: vec![claim; claims],
        hears: vec![HEADER.from; NODE_COUNT_MAX],
        late: 1,
    };
    let largest = FrameItem::Node(heartbeat(GROUP_COUNT_MAX));
    let len = encode(core::slice::from_ref(&largest), NODE_FRAME_LEN_MAX).len();
    assert_eq!(len, 2067);
    assert!(len + 200 <= NODE_FRAME_LEN_MAX);
    let mut buf = Vec::new();
    let mut writer = FrameWriter::new(&mut buf, &HEADER, NODE_FRAME_LEN_MAX);
    let too_many = heartbeat(GROUP_COUNT_MAX + 1);
    assert_eq!(writer.push_node(&too_many), Err(PushError::Unencodable));
    assert_eq!(writer.finish(), 0);
    assert!(buf.is_empty());
    assert_eq!(GROUP_COUNT_MAX, NODE_COUNT_MAX * GENERATION_COUNT_MAX);
}

#[test]
fn a_full_frame_is_left_as_it_was() {
    let mut buf = Vec::new();
    let mut writer = FrameWriter::new(&mut buf, &HEADER, LIVE_FRAME_LEN_MAX);
    let mut live = writer.live(3, false, GROUP, epoch(1), 100);
    let record = LiveRecord::Open(session_v4());
    let mut pushed = 0;
    let end = loop {
        match live.push(&record) {
            Ok(()) => pushed += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((end, pushed, live.next_lsn()), (PushError::Full, 40, 140));
    // Eight bytes are left: not enough for a section of its own.
    let close = LiveRecord::Close(session_v4().conn.inbound(), CloseReason::Expired);
    assert_eq!(writer.count(), 1);
    let whole = SyncBody::Live(LiveSection {
        group: GROUP,
        epoch: epoch(2),
        first: 1,
        records: vec![close],
    });
    assert_eq!(writer.push(4, true, &whole), Err(PushError::Full));
    // The ACK-NOW of what was not taken is not in the frame, nor is its epoch in what follows.
    assert_eq!(writer.finish(), 1);
    assert!(buf.len() <= LIVE_FRAME_LEN_MAX);
    assert_eq!(buf[2], 0);
    let frame = decode(&buf).unwrap();
    let [FrameItem::Sync(message)] = &frame.items[..] else {
        panic!("{frame:?}");
    };
    let SyncBody::Live(section) = &message.body else {
        panic!("{message:?}");
    };
    assert_eq!((section.first, section.records.len()), (100, 40));
    assert_eq!((message.bucket, message.ack_now), (3, false));
}

#[test]
fn a_section_that_did_not_fit_lends_its_epoch_to_none() {
    let live = |term, records| {
        let body = SyncBody::Live(LiveSection {
            group: GROUP,
            epoch: epoch(term),
            first: 1,
            records,
        });
        sync(1, false, body)
    };
    let close = LiveRecord::Close(session_v4().conn.inbound(), CloseReason::Expired);
    let items = [live(1, vec![close.clone()]), live(2, vec![close.clone()])];
    let mut buf = Vec::new();
    let mut writer = FrameWriter::new(&mut buf, &HEADER, 170);
    let mut push = |item: &FrameItem| match item {
        FrameItem::Sync(m) => writer.push(m.bucket, m.ack_now, &m.body),
        FrameItem::Node(m) => writer.push_node(m),
    };
    assert_eq!(push(&items[0]), Ok(()));
    assert_eq!(push(&live(2, vec![close; 3])), Err(PushError::Full));
    assert_eq!(push(&items[1]), Ok(()));
    assert_eq!(writer.finish(), 2);
    assert_eq!(decode(&buf).unwrap().items, items);
}

#[test]
fn slots_are_filled_record_by_record() {
    let record = |term, lsn| VersionedRecord {
        version: Version {
            epoch: epoch(term),
            lsn,
        },
        session: Ok(session_v4()),
    };
    let mut buf = Vec::new();
    let mut writer = FrameWriter::new(&mut buf, &HEADER, 200);
    // What is empty is not there.
    writer.slot_records(1, false, 5, GROUP, 6);
    assert!(writer.is_empty());
    let mut slot = writer.slot_records(1, false, 5, GROUP, 7);
    let records = [record(1, 1), record(1, 2), record(2, 1)];
    let done: Vec<_> = records.iter().map(|record| slot.push(record)).collect();
    assert_eq!(done, [Ok(()), Ok(()), Err(PushError::Full)]);
    assert_eq!(slot.count(), 2);
    assert_eq!(writer.finish(), 1);
    let body = SyncBody::SlotRecords {
        id: 5,
        group: GROUP,
        slot: 7,
        records: records[..2].to_vec(),
    };
    assert_eq!(decode(&buf).unwrap().items, [sync(1, false, body)]);
}

#[test]
fn what_breaks_a_bound_is_not_encoded() {
    let range = |first, last| LsnRange { first, last };
    let mut mixed = session_v4();
    mixed.conn.local = end("[fd00::4]:1025");
    let live = |first, records| {
        SyncBody::Live(LiveSection {
            group: GROUP,
            epoch: epoch(1),
            first,
            records,
        })
    };
    let open = LiveRecord::Open(session_v4());
    let slot = SLOT_COUNT as u16;
    let skip = |slots| SyncBody::Skip {
        gap: range(1, 1),
        until: 1,
        slots,
    };
    let pull = |slots| SyncBody::Pull {
        group: GROUP,
        id: 1,
        min: Version::default(),
        mode: PullMode::Merge,
        slots,
    };
    let empty = |count| SyncBody::SlotsEmpty {
        id: 1,
        group: GROUP,
        count,
        as_of: Version::default(),
    };
    let digest = |slots| SyncBody::Digest {
        group: GROUP,
        epoch: epoch(1),
        last: 1,
        slots,
    };
    let of_slot = |slot| SlotDigest {
        slot,
        ..SlotDigest::default()
    };
    let bad = [
        (0, live(1, vec![])),
        (0, live(0, vec![open.clone()])),
        (0, live(LSN_MAX, vec![open.clone(); 2])),
        (0, live(1, vec![open.clone(), LiveRecord::Open(mixed)])),
        // Longer than an empty frame: it would never fit.
        (0, live(1, vec![open; 42])),
        (0, SyncBody::Heartbeat { last: LSN_MAX + 1 }),
        (BUCKET_COUNT_MAX, SyncBody::Heartbeat { last: 1 }),
        (
            0,
            SyncBody::Nack {
                of: HEADER.from,
                missing: vec![range(2, 1)],
            },
        ),
        (
            0,
            SyncBody::Nack {
                of: HEADER.from,
                missing: vec![range(1, 1); RANGE_COUNT_MAX + 1],
            },
        ),
        (0, skip(vec![1; SKIP_SLOT_COUNT_MAX + 1])),
        (0, skip(vec![slot])),
        (0, pull(vec![])),
        (0, pull(vec![slot])),
        (0, pull(vec![1; PULL_SLOT_COUNT_MAX + 1])),
        (0, empty(0)),
        (0, empty(PULL_SLOT_COUNT_MAX as u16 + 1)),
        (0, digest(vec![])),
        (0, digest(vec![of_slot(slot)])),
        (0, digest(vec![of_slot(1); DIGEST_SLOT_COUNT_MAX + 1])),
        (
            0,
            SyncBody::SlotBegin {
                id: 1,
                group: GROUP,
                slot,
            },
        ),
        (
            0,
            SyncBody::SlotRecords {
                id: 1,
                group: GROUP,
                slot: 1,
                records: vec![],
            },
        ),
    ];
    for (bucket, body) in bad {
        let mut buf = Vec::new();
        let mut writer = FrameWriter::new(&mut buf, &HEADER, LIVE_FRAME_LEN_MAX);
        assert_eq!(
            writer.push(bucket, true, &body),
            Err(PushError::Unencodable),
            "{body:?}"
        );
        let fine = SyncBody::Heartbeat { last: 1 };
        writer.push(1, false, &fine).unwrap();
        assert_eq!(writer.finish(), 1);
        assert_eq!(decode(&buf).unwrap().items, [sync(1, false, fine)]);
    }
}

/// Appends bytes as a message, and mends count and length.
fn append(frame: &mut Vec<u8>, message: &[u8]) {
    frame.extend(message);
    frame[12] += 1;
    let len = frame.len() as u16;
    frame[14..16].copy_from_slice(&len.to_le_bytes());
}

#[test]
fn the_unknown_is_skipped_unless_it_is_critical() {
    let known = sync(1, false, SyncBody::Heartbeat { last: 1 });
    let start = encode(core::slice::from_ref(&known), LIVE_FRAME_LEN_MAX);
    let message = |kind: u8| [kind, 0xff, 0xff, 0xff, 2, 0, 1, 2];
    let mut frame = start.clone();
    append(&mut frame, &message(0x3f));
    append(&mut frame, &start[HEADER_LEN..]);
    assert_eq!(decode(&frame).unwrap().items, [known.clone(), known]);
    let mut frame = start.clone();
    append(&mut frame, &message(0x3f | CRITICAL));
    assert_eq!(decode(&frame), Err(FrameError::UnknownMessage(0x3f)));

    // The same of records: what is not critical has no LSN.
    let live = SyncBody::Live(LiveSection {
        group: GROUP,
        epoch: epoch(1),
        first: 8,
        records: vec![LiveRecord::Close(
            session_v4().conn.inbound(),
            CloseReason::Expired,
        )],
    });
    let live = sync(1, false, live);
    let start = encode(core::slice::from_ref(&live), LIVE_FRAME_LEN_MAX);
    for (kind, expected) in [
        (0x3f, Ok(vec![live])),
        (0x3f | CRITICAL, Err(FrameError::UnknownRecord(0x3f))),
    ] {
        let mut section = start[HEADER_LEN..].to_vec();
        section.extend([kind, 3, 1, 2, 3]);
        section[4] += 5;
        let mut frame = start[..HEADER_LEN].to_vec();
        frame[12] = 0;
        append(&mut frame, &section);
        assert_eq!(decode(&frame).map(|frame| frame.items), expected);
    }
}

#[test]
fn refused() {
    let good = encode(
        &[sync(1, false, SyncBody::Heartbeat { last: 1 })],
        LIVE_FRAME_LEN_MAX,
    );
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        decode(&frame).unwrap_err()
    };
    assert_eq!(with(0, 1), FrameError::Version(1));
    assert_eq!(with(0, 2), FrameError::Version(2));
    assert_eq!(with(1, 2), FrameError::Type(2), "a HELLO has no messages");
    assert_eq!(with(1, 9), FrameError::Type(9));
    assert_eq!(with(2, 2), FrameError::Bad(Field::Flags));
    assert_eq!(with(3, 1), FrameError::Key(1));
    assert_eq!(with(12, 2), FrameError::Count);
    assert_eq!(with(12, 0), FrameError::Count);
    assert_eq!(with(14, 1), FrameError::Length);
    assert_eq!(with(HEADER_LEN + 1, 2), FrameError::Bad(Field::Flags));
    assert_eq!(with(HEADER_LEN + 3, 1), FrameError::Bad(Field::Bucket));
    assert_eq!(with(HEADER_LEN + 4, 5), FrameError::Truncated);
    assert_eq!(decode(&[]), Err(FrameError::Short));
    assert_eq!(decode(&good[..HEADER_LEN - 1]), Err(FrameError::Short));

    let raw = |kind: u8, flags: u8, body: &[u8]| {
        let mut message = vec![kind | CRITICAL, flags, 0, 0, body.len() as u8, 0];
        message.extend(body);
        let mut frame = good.clone();
        append(&mut frame, &message);
        decode(&frame).unwrap_err()
    };
    assert_eq!(raw(kind::HEARTBEAT, 0, &[1; 5]), FrameError::Truncated);
    assert_eq!(raw(kind::HEARTBEAT, 0, &[1; 7]), FrameError::Trailing);
    // A live section of the group before it, and there is none.
    assert_eq!(
        raw(kind::LIVE, flag::SAME_GROUP, &[1; 30]),
        FrameError::Bad(Field::Epoch)
    );
    assert_eq!(raw(kind::LIVE, 0, &[0; 34]), FrameError::NoRecord);
    // Two records, and LSNs for one only; then none for either.
    let mut live = vec![0; 34];
    live[28..].copy_from_slice(&LSN_MAX.to_le_bytes()[..6]);
    let close = [
        record::CLOSE | CRITICAL,
        14,
        0,
        0,
        1,
        0,
        1,
        1,
        1,
        1,
        1,
        2,
        2,
        2,
        2,
        0,
    ];
    live.extend([close, close].concat());
    assert_eq!(raw(kind::LIVE, 0, &live), FrameError::Bad(Field::Lsn));
    live[28..34].fill(0);
    assert_eq!(raw(kind::LIVE, 0, &live), FrameError::Bad(Field::Lsn));
    assert_eq!(raw(kind::SLOT_RECORDS, 0, &[0; 16]), FrameError::NoRecord);
    // Packed records whose first one has no epoch.
    assert_eq!(
        raw(kind::SLOT_RECORDS, 0, &[0; 60]),
        FrameError::Bad(Field::Epoch)
    );
    // 32 ranges and more are said, and none is there.
    let mut nack = [0; 11];
    nack[10] = 32;
    assert_eq!(raw(kind::NACK, 0, &nack), FrameError::Truncated);
    nack[10] = 33;
    assert_eq!(raw(kind::NACK, 0, &nack), FrameError::Bad(Field::Count));
    // Of no slot.
    assert_eq!(raw(kind::PULL, 0, &[0; 60]), FrameError::Bad(Field::Count));
    assert_eq!(raw(kind::SLOTS_EMPTY, 0, &[0; 60]), FrameError::Bad(Field::Count));
    assert_eq!(raw(kind::DIGEST, 0, &[0; 60]), FrameError::Bad(Field::Count));
    let mut digest = [0; 35 + 14];
    digest[34] = 1;
    digest[36] = 0x10;
    assert_eq!(raw(kind::DIGEST, 0, &digest), FrameError::Bad(Field::Slot));
    digest[34] = 2;
    assert_eq!(raw(kind::DIGEST, 0, &digest), FrameError::Truncated);
    digest[34] = DIGEST_SLOT_COUNT_MAX as u8 + 1;
    assert_eq!(raw(kind::DIGEST, 0, &digest), FrameError::Bad(Field::Count));
    // A message to the node has no bucket and no flags.
    assert_eq!(raw(kind::NODE_FENCED, 1, &[0; 28]), FrameError::Bad(Field::Flags));
}

#[test]
fn every_truncation_is_refused() {
    let frame = encode(&examples(), BULK_FRAME_LEN_MAX);
    assert!(frame.len() > 1000);
    for len in 0..frame.len() {
        let mut cut = frame[..len].to_vec();
        let expected = if len < HEADER_LEN {
            FrameError::Short
        } else {
            FrameError::Length
        };
        assert_eq!(decode(&cut), Err(expected), "{len}");
        // And with a length that hides it.
        if len >= HEADER_LEN {
            cut[14..16].copy_from_slice(&(len as u16).to_le_bytes());
            let error = decode(&cut).unwrap_err();
            assert!(
                matches!(error, FrameError::Count | FrameError::Truncated),
                "{len}: {error:?}"
            );
        }
    }
}

/// Frames that were damaged, and what is said of each. ci/dissector holds docs/wireshark/evenkeel.lua to the same list.
#[test]
fn damaged_frames_are_judged_as_the_list_says() {
    for (n, line) in (1..).zip(include_str!("damaged.txt").lines()) {
        let (wanted, digits) = line.split_once(' ').expect("a verdict and a frame");
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
        let frame: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        let said = match decode(&frame) {
            Ok(frame) => alloc::format!("Ok({})", frame.items.len()),
            Err(error) => alloc::format!("{error:?}"),
        };
        assert_eq!(said, wanted, "line {n}");
    }
}

/// What a decoder makes of any bytes can be encoded, and decodes as itself.
fn survives(bytes: &[u8]) -> bool {
    let Ok(frame) = decode(bytes) else {
        return false;
    };
    let mut buf = Vec::new();
    let mut writer = FrameWriter::new(&mut buf, &frame.header, BULK_FRAME_LEN_MAX);
    for item in &frame.items {
        let done = match item {
            FrameItem::Sync(m) => writer.push(m.bucket, m.ack_now, &m.body),
            FrameItem::Node(m) => writer.push_node(m),
        };
        assert_eq!(done, Ok(()), "{item:?}");
    }
    let count = writer.finish();
    assert_eq!(count, frame.items.len());
    if count > 0 {
        assert!(buf.len() <= bytes.len());
        assert_eq!(decode(&buf), Ok(frame));
    }
    true
}

#[test]
fn every_flipped_bit_is_refused_or_means_something() {
    let frames = examples();
    let (mut refused, mut taken) = (0, 0);
    for item in &frames {
        let frame = encode(core::slice::from_ref(item), BULK_FRAME_LEN_MAX);
        assert!(survives(&frame));
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if survives(&flipped) {
                taken += 1;
            } else {
                refused += 1;
            }
        }
    }
    // Nothing but an authentication tag can tell a flipped address from another address.
    assert!(refused > 1000 && taken > 1000, "{refused} refused, {taken} taken");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Messages that fit come back as they were, in order, and those that do not leave no trace.
    #[test]
    fn round_trip(items in prop::collection::vec(any_item(), 1..12), len_max in 64usize..4096) {
        let mut buf = Vec::new();
        let mut writer = FrameWriter::new(&mut buf, &HEADER, len_max);
        let mut kept = Vec::new();
        for item in &items {
            let done = match item {
                FrameItem::Sync(m) => writer.push(m.bucket, m.ack_now, &m.body),
                FrameItem::Node(m) => writer.push_node(m),
            };
            match done {
                Ok(()) => kept.push(item.clone()),
                Err(PushError::Full) => prop_assert!(!kept.is_empty()),
                Err(PushError::Unencodable) => prop_assert!(kept.is_empty(), "{:?}", item),
            }
        }
        prop_assert_eq!(writer.finish(), kept.len());
        prop_assert!(buf.len() <= len_max);
        if kept.is_empty() {
            prop_assert!(buf.is_empty());
        } else {
            prop_assert_eq!(decode(&buf), Ok(Frame { header: HEADER, items: kept }));
        }
    }

    /// Every kind of message comes back when there is room.
    #[test]
    fn round_trip_of_one(item in any_item()) {
        let bytes = encode(core::slice::from_ref(&item), BULK_FRAME_LEN_MAX);
        prop_assert_eq!(decode(&bytes), Ok(Frame { header: HEADER, items: vec![item] }));
    }

    /// Time that is left: whole milliseconds, at most what 32 bits hold.
    #[test]
    fn remaining_time_is_cut(nanos in any::<u64>()) {
        let mut session = session_v4();
        session.remaining = Duration::from_nanos(nanos);
        let mut buf = Vec::new();
        pack::put_session(&mut buf, &session).unwrap();
        let read = pack::take_session(&mut pack::Bytes(&buf)).unwrap();
        let expected = (nanos / 1_000_000).min(u64::from(u32::MAX));
        prop_assert_eq!(read.remaining, Duration::from_millis(expected));
    }

    /// Bytes behind a right header: an error or something that can be encoded.
    #[test]
    fn any_bytes(
        count in 0u16..4,
        kind in prop_oneof![0u8..16, 0x40u8..0x46, any::<u8>()],
        body in prop::collection::vec(prop_oneof![3 => 0u8..3, 1 => any::<u8>()], 0..300),
    ) {
        let mut frame = encode(&[sync(0, false, SyncBody::Heartbeat { last: 0 })], 100);
        let mut message = vec![kind | CRITICAL, 0, 0, 0];
        message.extend((body.len() as u16).to_le_bytes());
        message.extend(&body);
        append(&mut frame, &message);
        frame[12..14].copy_from_slice(&count.to_le_bytes());
        survives(&frame);
    }
}
