//! What is not forwarded: every reason, and what the kernel gets instead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::cluster::{GroupId, Incarnation, NodeId, PeerId};
use evenkeel_core::conn::TableSizes;
use evenkeel_core::port::{HEAD_LEN, HandoffReason, HandoffTag, HeapFrame, PortId, RxChecksum};
use evenkeel_core::service::{Deferral, OnLimit, Replicate};
use evenkeel_core::stats::DropReason;
use evenkeel_core::sync::{ClusterSizes, ClusterWorkerConfig, Peer, SyncCommand};
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::{BucketMap, Command, HoldConfig, Verdict};

use crate::packet::{ACK, Body, FIN, Packet, RST, SYN};
use crate::story::{
    HOST_V4, HOST_V6, KINDS, Kind, LIP_V4, LIP_V6, Lab, NO_GATEWAY, NO_NEIGHBOUR, NO_ROUTE, NO_SERVER,
    PORT_V4, PORT_V6, Segments, VIP_V4, VIP_V6, Want, at, conserved, first, kinds_and_protos, packet, syn,
};

/// Sets the bytes at `offset` of the network header and repairs an IPv4 header checksum.
fn patched(given: &Packet, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = given.bytes();
    let l3 = given.l3();
    frame[l3 + offset..l3 + offset + bytes.len()].copy_from_slice(bytes);
    if given.src.is_ipv4() {
        repair(&mut frame, l3);
    }
    frame
}

fn repair(frame: &mut [u8], l3: usize) {
    let header = l3..l3 + usize::from(frame[l3] & 15) * 4;
    if header.end <= frame.len() && header.len() >= 20 {
        frame[l3 + 10..l3 + 12].fill(0);
        let sum = crate::packet::internet_checksum(&[&frame[header]]);
        frame[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
    }
}

#[test]
fn fragments_are_counted_drops() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        let flow = lab.open(kind, proto, 0);
        let drop = Want::Drop(DropReason::Fragment);
        for given in [flow.inbound(), flow.outbound()] {
            if given.src.is_ipv4() {
                // First, middle and last; "don't fragment" and the reserved bit do not matter.
                for field in [0x2000u16, 0x2001, 0x0001, 0x1fff, 0x6000, 0xa000, 0xc001] {
                    lab.check_bytes(given.port, &patched(&given, 6, &field.to_be_bytes()), drop, "");
                }
            } else {
                for offset in [0x0001u16, 0x0009, 0x0008, 0xfff8] {
                    let [a, b] = offset.to_be_bytes();
                    let fragment = given.clone().with(|p| {
                        p.extensions = vec![(44, vec![0, 0, a, b, 0, 0, 0, 1])];
                    });
                    lab.check_bytes(given.port, &fragment.bytes(), drop, "");
                }
            }
        }
        let counted = lab.counters().drops[DropReason::Fragment as usize];
        assert!(counted >= 8);
    }
}

#[test]
fn source_routes() {
    let mut lab = Lab::new();
    let drop = Want::Drop(DropReason::SourceRoute);
    let given = syn(Kind::V4.client(0), Kind::V4.vip(L4Proto::Tcp));
    for options in [
        vec![131, 7, 4, 10, 0, 0, 1, 0],
        vec![137, 7, 4, 10, 0, 0, 1, 0],
        vec![1, 1, 148, 4, 0, 0, 131, 3, 4, 0, 0, 0],
    ] {
        lab.check(&given.clone().with(|p| p.ip_options = options), drop, "");
    }
    let service = Kind::V4.service(L4Proto::Tcp);
    // Behind the end of options, or behind one that does not fit, nothing is an option.
    for (n, options) in [vec![0, 131, 7, 4], vec![7, 200, 131, 3], vec![7, 0, 131, 3]]
        .into_iter()
        .enumerate()
    {
        let given = syn(Kind::V4.client(1 + n as u32), given.dst).with(|p| p.ip_options = options);
        lab.open_at(service, &given);
    }
    let given = syn(Kind::V6.client(0), Kind::V6.vip(L4Proto::Tcp));
    let route = |left| vec![(43, [vec![0, 2, 0, left], vec![0; 20]].concat())];
    lab.check(&given.clone().with(|p| p.extensions = route(1)), drop, "");
    lab.open_at(
        Kind::V6.service(L4Proto::Tcp),
        &given.with(|p| p.extensions = route(0)),
    );
}

#[test]
fn not_ours_no_service_no_conn_and_the_kernel() {
    let drop = Want::Drop;
    for proto in [L4Proto::Tcp, L4Proto::Udp] {
        let mut lab = Lab::new();
        for (host, to, want) in [
            (HOST_V4, at("198.51.100.2", 80), drop(DropReason::NotOurs)),
            (HOST_V6, at("2001:db8:1::2", 80), drop(DropReason::NotOurs)),
            (HOST_V4, at(VIP_V4, 8080), drop(DropReason::NoService)),
            (HOST_V6, at(VIP_V6, 8080), drop(DropReason::NoService)),
            (HOST_V4, at(LIP_V4, 1025), drop(DropReason::NoConn)),
            (HOST_V6, at(LIP_V6, 1025), drop(DropReason::NoConn)),
            // Our own addresses: the kernel answers.
            (HOST_V4, at(PORT_V4[0], 22), Want::Punt),
            (HOST_V6, at(PORT_V6[0], 22), Want::Punt),
            (HOST_V4, at(PORT_V4[1], 179), Want::Punt),
            // Groups.
            (HOST_V4, at("224.0.0.18", 112), Want::Punt),
            (HOST_V4, at("255.255.255.255", 67), Want::Punt),
            (HOST_V6, at("ff02::1:2", 547), Want::Punt),
        ] {
            for given in [
                first(proto, at(host, 5000), to),
                packet(proto, at(host, 5001), to),
            ] {
                lab.check(&given, want, "");
            }
        }
    }
    // A service of one protocol is none of the other.
    let mut lab = Lab::new();
    for kind in KINDS {
        let (tcp, udp) = (kind.vip(L4Proto::Tcp), kind.vip(L4Proto::Udp));
        let client = kind.client(0);
        lab.check(
            &packet(L4Proto::Udp, client, tcp),
            drop(DropReason::NoService),
            "",
        );
        lab.check(&syn(client, udp), drop(DropReason::NoService), "");
    }
}

#[test]
fn other_protocols() {
    let mut lab = Lab::new();
    for (host, to, want) in [
        (HOST_V4, VIP_V4, Want::Drop(DropReason::NoService)),
        (HOST_V6, VIP_V6, Want::Drop(DropReason::NoService)),
        (HOST_V4, LIP_V4, Want::Drop(DropReason::NoService)),
        (HOST_V4, "198.51.100.2", Want::Drop(DropReason::NotOurs)),
        (HOST_V6, "2001:db8:1::2", Want::Drop(DropReason::NotOurs)),
        (HOST_V4, PORT_V4[0], Want::Punt),
        (HOST_V6, PORT_V6[0], Want::Punt),
        (HOST_V4, "224.0.0.18", Want::Punt),
        (HOST_V6, "ff02::12", Want::Punt),
    ] {
        let given = packet(L4Proto::Udp, at(host, 1), at(to, 1));
        let at = if given.src.is_ipv4() { 9 } else { 6 };
        for proto in [2, 47, 50, 59, 89, 112, 132, 255] {
            lab.check_bytes(0, &patched(&given, at, &[proto]), want, "");
        }
    }
    // ICMP of the other family is just another protocol.
    let given = packet(L4Proto::Udp, at(HOST_V4, 1), at(VIP_V4, 1));
    lab.check_bytes(
        0,
        &patched(&given, 9, &[58]),
        Want::Drop(DropReason::NoService),
        "",
    );
    // LLDP, 802.3 with a length, MPLS: not IP at all.
    for ethertype in [0x88ccu16, 0x0027, 0x8847, 0xffff] {
        let mut frame = given.bytes();
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        lab.check_bytes(0, &frame, Want::Punt, "");
    }
}

/// Sources that no host can have, and our own.
#[test]
fn impossible_sources() {
    for proto in [L4Proto::Tcp, L4Proto::Udp] {
        let mut lab = Lab::new();
        let drop = Want::Drop(DropReason::BadSource);
        for (src, vip) in [
            ("127.0.0.1", VIP_V4),
            ("0.0.0.0", VIP_V4),
            ("0.1.2.3", VIP_V4),
            ("224.0.0.1", VIP_V4),
            ("255.255.255.255", VIP_V4),
            ("240.0.0.1", VIP_V4),
            // Land attack, and other addresses of ours.
            (VIP_V4, VIP_V4),
            (LIP_V4, VIP_V4),
            (PORT_V4[0], VIP_V4),
            ("::1", VIP_V6),
            ("::", VIP_V6),
            ("ff02::1", VIP_V6),
            (VIP_V6, VIP_V6),
            (LIP_V6, VIP_V6),
            (PORT_V6[1], VIP_V6),
            // IPv4-mapped: never on the wire (RFC 4038, 4.2).
            ("::ffff:203.0.113.1", VIP_V6),
            ("::ffff:198.51.100.1", VIP_V6),
            ("::ffff:203.0.113.1", "2001:db8:1::64"),
        ] {
            let kind = if vip.contains('.') { Kind::V4 } else { Kind::V6 };
            let port = kind.vip(proto).port();
            let given = first(proto, at(src, 80), at(vip, port)).with(|p| p.port = 0);
            lab.check(&given, drop, "");
            assert_eq!(lab.conn(&given.tuple()), None);
        }
        for kind in KINDS {
            let mut client = kind.client(0);
            client.set_port(0);
            lab.check(&first(proto, client, kind.vip(proto)), drop, "");
        }
    }
}

/// An IPv6 packet between IPv4-mapped addresses does not reach a conn of IPv4.
#[test]
fn mapped_addresses_do_not_meet_ipv4() {
    for kind in [Kind::V4, Kind::Nat46] {
        for proto in [L4Proto::Tcp, L4Proto::Udp] {
            let mut lab = Lab::new();
            let flow = lab.open(kind, proto, 0);
            let map = |a: std::net::SocketAddr| match a.ip() {
                std::net::IpAddr::V4(v4) => std::net::SocketAddr::new(v4.to_ipv6_mapped().into(), a.port()),
                v6 => std::net::SocketAddr::new(v6, a.port()),
            };
            let given = packet(proto, map(flow.client), map(flow.vip)).with(|p| p.port = 0);
            lab.check(&given, Want::Drop(DropReason::NotOurs), "");
        }
    }
}

#[test]
fn no_route_and_no_neighbour() {
    for (i, kind) in [Kind::V4, Kind::V6].into_iter().enumerate() {
        let mut lab = Lab::new();
        for ((port, ids), reason) in [
            (NO_ROUTE, DropReason::NoRoute),
            (NO_NEIGHBOUR, DropReason::NoNeighbour),
            (NO_GATEWAY, DropReason::NoNeighbour),
        ] {
            let mut vip = kind.vip(L4Proto::Tcp);
            vip.set_port(port);
            let given = syn(kind.client(0), vip);
            lab.check(&given, Want::Drop(reason), "");
            assert_eq!(lab.conn(&given.tuple()), None, "no conn of {:?} remains", ids[i]);
        }
        // The same towards the client: the reply has nowhere to go, and the conn stays.
        let flow = lab.establish(kind, 1);
        lab.reload(|s| s.routes.retain(|r| r.prefix.is_ipv4() != (kind == Kind::V4)));
        lab.check(&flow.outbound(), Want::Drop(DropReason::NoRoute), "");
        assert!(lab.conn(&flow.inbound().tuple()).is_some());
        lab.audit();
    }
}

/// A neighbour that went away with a reload: the server has no way any more, and gets it back.
#[test]
fn a_neighbour_that_comes_and_goes() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        let neighbours = lab.spec.neighbours.clone();
        lab.reload(|s| s.neighbours.clear());
        lab.check(&flow.inbound(), Want::Drop(DropReason::NoNeighbour), "");
        lab.check(&flow.outbound(), Want::Drop(DropReason::NoNeighbour), "");
        lab.reload(|s| s.neighbours = neighbours);
        lab.check(&flow.inbound(), Want::Inbound(&flow), "");
        lab.check(&flow.outbound(), Want::Outbound(&flow), "");
    }
}

/// A worker that was given no snapshot yet.
#[test]
fn nothing_is_ours_before_the_first_snapshot() {
    let mut lab = Lab::with(|c| c.spec = evenkeel_core::service::SnapshotSpec::default());
    for (kind, proto) in kinds_and_protos() {
        let given = first(proto, kind.client(0), kind.vip(proto));
        lab.check(&given, Want::Drop(DropReason::NotOurs), "");
    }
}

/// How each reason comes about.
fn produce(reason: DropReason) -> (Lab, Verdict) {
    let mut lab = Lab::new();
    let tcp = L4Proto::Tcp;
    let v4 = syn(Kind::V4.client(0), Kind::V4.vip(tcp));
    let v6 = syn(Kind::V6.client(0), Kind::V6.vip(tcp));
    let mut port = 0;
    let icmp = |kind: u8, at: usize| {
        // A message of zeros behind its type, its checksum the complement.
        let mut frame = patched(&v4, 9, &[1]);
        frame[34..].fill(0);
        frame[34] = kind;
        let sum = crate::packet::internet_checksum(&[&frame[34..]]);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let arp = |target: [u8; 4], sender: [u8; 4]| {
        let mut frame = v4.bytes();
        frame[12..14].copy_from_slice(&[8, 6]);
        let head = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 1, 77];
        let packet = [&head[..], &sender, &[0; 6], &target].concat();
        frame.truncate(14);
        frame.extend(packet);
        frame
    };
    let bytes = match reason {
        DropReason::Truncated => v4.bytes()[..40].to_vec(),
        DropReason::BadLength => patched(&v4, 2, &19u16.to_be_bytes()),
        DropReason::BadVersion => {
            let mut frame = v4.bytes();
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            frame
        }
        DropReason::TooManyHeaders => v4.with(|p| p.tags = vec![(0x8100, 1); 4]).bytes(),
        DropReason::BadChecksum => {
            let mut frame = v4.bytes();
            frame[24] ^= 1;
            frame
        }
        DropReason::UdpZeroChecksum => packet(L4Proto::Udp, Kind::V6.client(0), Kind::V6.vip(L4Proto::Udp))
            .with(|p| p.body = Body::Udp { unchecked: true })
            .bytes(),
        DropReason::Fragment => patched(&v4, 6, &[0x20, 0]),
        DropReason::IcmpError => icmp(3, 36),
        DropReason::IcmpOther => icmp(13, 36),
        DropReason::SourceRoute => v4.with(|p| p.ip_options = vec![131, 3, 4, 0]).bytes(),
        DropReason::BadTcpFlags => v6.flags(SYN | FIN).bytes(),
        DropReason::BadSource => syn(at("127.0.0.1", 9), v4.dst).bytes(),
        DropReason::BadNeighbourMessage => arp([198, 51, 100, 1], [198, 51, 100, 1]),
        DropReason::NeighbourNotOurs => arp([198, 51, 100, 9], [192, 0, 2, 77]),
        DropReason::NotOurs => syn(v4.src, at("198.51.100.9", 80)).bytes(),
        DropReason::NoService => syn(v4.src, at(VIP_V4, 9)).bytes(),
        DropReason::NoServer => syn(v4.src, at(VIP_V4, NO_SERVER.0)).bytes(),
        DropReason::NoConn => v6.flags(ACK).bytes(),
        DropReason::NoLocalPort => {
            // No port is high enough.
            lab = Lab::with(|c| c.local_port_min = u16::MAX);
            v4.bytes()
        }
        DropReason::ConnTableFull => {
            lab = Lab::with(|c| {
                c.sizes = TableSizes {
                    conns_v4: 0,
                    ..c.sizes
                }
            });
            v4.bytes()
        }
        DropReason::IndexFull => {
            let (full, refused) = super::conns::full_index_lab();
            lab = full;
            refused.bytes()
        }
        DropReason::TtlExpired => v6.with(|p| p.ttl = 1).bytes(),
        DropReason::NoRoute => syn(v4.src, at(VIP_V4, NO_ROUTE.0)).bytes(),
        DropReason::NoNeighbour => syn(v4.src, at(VIP_V4, NO_NEIGHBOUR.0)).bytes(),
        DropReason::HoldFull | DropReason::HoldReplaced | DropReason::HoldExpired => {
            let full = reason == DropReason::HoldFull;
            lab = Lab::with(|c| {
                c.hold = Some(HoldConfig {
                    frames: if full { 0 } else { 1 },
                    frames_per_neighbour: 1,
                    ..HoldConfig::default()
                });
            });
            let given = syn(v4.src, at(VIP_V4, NO_NEIGHBOUR.0));
            if !full {
                // It waited: what becomes of it is counted, and is no verdict.
                lab.check(&given, Want::Held, "");
                if reason == DropReason::HoldReplaced {
                    lab.check(&given, Want::Held, "hold-replaced+1 released+1");
                } else {
                    lab.pass(HoldConfig::default().time);
                    lab.expire();
                }
                return (lab, Verdict::Drop(reason));
            }
            given.bytes()
        }
        DropReason::TooBig => {
            lab = Lab::with(|c| c.spec.ports[1].mtu = Some(1280));
            v4.with(|p| p.payload = vec![0; 1300]).bytes()
        }
        DropReason::NoHeadroom => {
            let given = syn(Kind::Nat46.client(0), Kind::Nat46.vip(tcp));
            let mut frame = Segments::new(0, &given.bytes(), HEAD_LEN);
            frame.headroom = 0;
            let seen = lab.check_frame(0, frame, Some(&given), Want::Drop(reason), "");
            return (lab, seen.verdict);
        }
        DropReason::OriginateFull => {
            let frame = arp([198, 51, 100, 1], [192, 0, 2, 77]);
            while lab.counters().drops[reason as usize] == 0 {
                let mut frames = [HeapFrame::new(PortId(0), &frame)];
                lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
                assert!(lab.counters().rx_packets < 10_000, "bounded");
            }
            frame
        }
        DropReason::NotReady => {
            // A worker of a cluster whose node has not said in which group it creates.
            lab = Lab::with(|c| {
                c.cluster = Some(ClusterWorkerConfig {
                    id: PeerId {
                        node: NodeId(1),
                        incarnation: Incarnation(1),
                    },
                    cluster: 1,
                    sizes: ClusterSizes::default(),
                    sealing: None,
                });
            });
            v4.bytes()
        }
        DropReason::DeferLimit | DropReason::DeferFull => {
            let full = reason == DropReason::DeferFull;
            lab = deferring(if full { 0 } else { 1 });
            let flow = lab.open(Kind::V4, L4Proto::Tcp, 0);
            let answer = flow.outbound().flags(SYN | ACK);
            // Rewritten already.
            let mut frames = [HeapFrame::new(PortId(answer.port), &answer.bytes())];
            lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
            let verdict = lab.verdicts.as_slice()[0];
            if full {
                return (lab, verdict);
            }
            assert_eq!(verdict, Verdict::Held);
            lab.pass(Duration::from_millis(10));
            // Its record is due all the time, as nobody asks for it.
            lab.workers[0].handle_timeout(lab.now);
            return (lab, Verdict::Drop(reason));
        }
        DropReason::TooManyHops => {
            let mut two = Lab::with(|c| c.workers = 2);
            two.buckets = BucketMap::dealt(2);
            let right = two.worker_of(v4.src, v4.dst);
            let mut frame = HeapFrame::new(PortId(0), &v4.bytes());
            frame.tag = Some(HandoffTag {
                reason: HandoffReason::Bucket,
                stage: 0,
                hops: HandoffTag::HOPS_MAX,
                reserved: 0,
                bucket: 0,
                reserved2: [0; 5],
            });
            let seen = two.check_frame(1 - right, frame, Some(&v4), Want::Drop(reason), "");
            return (two, seen.verdict);
        }
    };
    if reason == DropReason::NoConn {
        port = 1;
    }
    let seen = lab.check_bytes(port, &bytes, Want::Drop(reason), "");
    (lab, seen.verdict)
}

/// A worker of a cluster with a ready peer that says nothing; what it defers is dropped, and so many frames can wait.
fn deferring(frames: u16) -> Lab {
    let id = |n| PeerId {
        node: NodeId(n),
        incarnation: Incarnation(1),
    };
    let mut lab = Lab::with(|c| {
        let deferral = Deferral::new(1, Duration::from_millis(5), OnLimit::Drop).expect("it can be");
        for service in &mut c.spec.services {
            service.replicate = Replicate::Deferred(deferral);
        }
        c.cluster = Some(ClusterWorkerConfig {
            id: id(1),
            cluster: 1,
            sizes: ClusterSizes {
                deferred: frames,
                ..ClusterSizes::default()
            },
            sealing: None,
        });
    });
    let own = GroupId {
        node: NodeId(1),
        generation: 1,
    };
    let peer = Peer {
        id: id(2),
        in_sync: true,
        ready: true,
    };
    let now = lab.now;
    for command in [
        SyncCommand::LeaseUntil(now + Duration::from_secs(60)),
        SyncCommand::Create(Some(own)),
        SyncCommand::Peers(Arc::new(vec![peer])),
    ] {
        let done = lab.workers[0].handle_command(now, Command::Sync(command));
        done.expect("it has a cluster");
    }
    lab
}

/// A reason that is added to the engine without a story does not compile here.
#[test]
fn every_drop_reason_is_produced_and_counted() {
    let mut produced = BTreeSet::new();
    for &reason in DropReason::ALL {
        let (lab, verdict) = produce(reason);
        assert_eq!(verdict, Verdict::Drop(reason));
        let counters = lab.counters();
        assert!(counters.drops[reason as usize] > 0, "{reason} is counted");
        conserved(&counters);
        produced.insert(reason);
    }
    assert_eq!(produced.len(), DropReason::COUNT);
}

/// Every verdict in one worker: what came in is what went out, was dropped, punted, handed over, answered.
#[test]
fn packets_are_conserved() {
    let mut lab = Lab::with(|c| c.workers = 2);
    let mut sent = 0u64;
    for n in 0..200 {
        for (kind, proto) in kinds_and_protos() {
            let client = kind.client(n);
            let vip = kind.vip(proto);
            let batch = [
                first(proto, client, vip),
                packet(proto, client, vip),
                packet(proto, client, at(if vip.is_ipv4() { VIP_V4 } else { VIP_V6 }, 9)),
                packet(
                    proto,
                    client,
                    at(if vip.is_ipv4() { PORT_V4[0] } else { PORT_V6[0] }, 9),
                ),
            ];
            let mut frames: Vec<_> = batch
                .iter()
                .map(|p| HeapFrame::new(PortId(p.port), &p.bytes()))
                .collect();
            if n % 3 == 0 {
                frames[1].rx_checksum = RxChecksum::Bad;
            }
            for worker in &mut lab.workers {
                let mut frames = frames.clone();
                worker.handle_burst(lab.now, &mut frames, &mut lab.verdicts);
                assert_eq!(lab.verdicts.as_slice().len(), frames.len());
                sent += frames.len() as u64;
                let bytes: usize = frames
                    .iter()
                    .zip(lab.verdicts.as_slice())
                    .filter(|(_, v)| matches!(v, Verdict::Tx(_)))
                    .map(|(f, _)| evenkeel_core::port::Frame::len(f))
                    .sum();
                assert!(bytes > 0 || worker.counters().handed_off > 0);
            }
        }
    }
    let c = lab.counters();
    assert_eq!(c.rx_packets, sent);
    assert!(c.handed_off > 0 && c.punted > 0 && c.dropped() > 0 && c.tx_packets > 0);
    lab.audit();
}

/// A stray RST or FIN, from either side, of a connection that nobody knows.
#[test]
fn strays_open_nothing() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = Lab::new().open(kind, L4Proto::Tcp, 0);
        for flags in [RST, RST | ACK, FIN | ACK, ACK, SYN | ACK] {
            for given in [flow.inbound(), flow.outbound()] {
                lab.check(&given.flags(flags), Want::Drop(DropReason::NoConn), "");
            }
        }
        // A SYN at a local address opens nothing either.
        let given = flow.outbound().flags(SYN);
        lab.check(&given, Want::Drop(DropReason::NoConn), "");
        assert_eq!(lab.counters().opened, 0);
    }
}
