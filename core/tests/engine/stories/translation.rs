//! Between families (RFC 7915): what is translated, what stays behind, and lengths.

use evenkeel_core::port::{Frame, HEAD_LEN};
use evenkeel_core::stats::DropReason;
use evenkeel_core::tuple::L4Proto;

use crate::packet::{ACK, Body, SYN, VLAN};
use crate::story::{KINDS, Kind, Lab, Segments, Want, first, kinds_and_protos, syn};

/// Identification and "don't fragment" of what becomes IPv4, on both sides of 1260 bytes. The model in
/// `rewritten` says what they must be; this one says it once more in numbers.
#[test]
fn small_packets_may_be_fragmented_and_large_ones_not() {
    for proto in [L4Proto::Tcp, L4Proto::Udp] {
        let mut lab = Lab::new();
        let flow = lab.open(Kind::Nat64, proto, 0);
        let header = if proto == L4Proto::Tcp { 40 } else { 28 };
        for (len, dont_fragment) in [(1259, false), (1260, false), (1261, true), (1500, true)] {
            let given = flow.inbound().with(|p| {
                p.payload = vec![7; len - header];
                if proto == L4Proto::Tcp {
                    p.tcp().flags = SYN;
                }
            });
            let out = lab
                .check(&given, Want::Inbound(&flow), "")
                .packet
                .expect("forwarded");
            assert_eq!(out.dont_fragment, dont_fragment, "{len} bytes");
            assert_eq!(out.id == 0, dont_fragment, "an identification where it is needed");
        }
    }
}

/// The other direction of NAT46 gives IPv4 packets too.
#[test]
fn replies_of_nat46_are_translated_likewise() {
    let mut lab = Lab::new();
    let flow = lab.establish(Kind::Nat46, 0);
    for len in [1220, 1221] {
        let given = flow.outbound().with(|p| p.payload = vec![1; len]);
        let out = lab.check(&given, Want::Outbound(&flow), "").packet;
        assert_eq!(out.expect("forwarded").dont_fragment, len > 1220);
    }
}

#[test]
fn the_traffic_class_is_carried_over() {
    for (kind, proto) in kinds_and_protos() {
        for class in [0, 1, 0x02, 0xb8, 0xff] {
            let mut lab = Lab::new();
            let given = first(proto, kind.client(0), kind.vip(proto)).with(|p| p.class = class);
            let flow = lab.open_at(kind.service(proto), &given);
            let given = flow.outbound().with(|p| p.class = !class);
            let (given, moved) = match proto {
                L4Proto::Tcp => (given.flags(SYN | ACK), ""),
                L4Proto::Udp => (given, "UDP_ONE_WAY-1 UDP_NORMAL+1 established+1"),
            };
            let out = lab.check(&given, Want::Outbound(&flow), moved).packet;
            assert_eq!(out.expect("forwarded").class, !class);
        }
    }
}

/// Options of IPv4 and extension headers of IPv6 stay behind.
#[test]
fn options_and_extension_headers_stay_behind() {
    for proto in [L4Proto::Tcp, L4Proto::Udp] {
        let mut lab = Lab::new();
        let given = first(proto, Kind::Nat46.client(0), Kind::Nat46.vip(proto)).with(|p| {
            p.ip_options = [[148, 4, 0, 0]; 10].concat();
        });
        lab.open_at(Kind::Nat46.service(proto), &given);
        let given = first(proto, Kind::Nat64.client(0), Kind::Nat64.vip(proto)).with(|p| {
            p.extensions = vec![
                (0, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                (43, vec![0, 0, 4, 0, 0, 0, 0, 0]),
                (44, vec![0, 0, 0, 0, 1, 2, 3, 4]),
                (60, [vec![0, 3, 1, 28], vec![0; 28]].concat()),
            ];
        });
        // Headers on the way: the IPv4 packet is much shorter, and the IPv6 one longer.
        lab.open_at(Kind::Nat64.service(proto), &given);
    }
}

/// AH covers the addresses that would be rewritten: such a packet is none that is balanced, in either family.
#[test]
fn authenticated_packets_are_not_rewritten() {
    let ah =
        |p: &mut crate::packet::Packet| p.extensions = vec![(51, vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])];
    for kind in [Kind::V6, Kind::Nat64] {
        for proto in [L4Proto::Tcp, L4Proto::Udp] {
            let mut lab = Lab::new();
            let given = first(proto, kind.client(0), kind.vip(proto));
            lab.check(&given.clone().with(ah), Want::Drop(DropReason::NoService), "");
            let flow = lab.open_at(kind.service(proto), &given);
            lab.check(&flow.inbound().with(ah), Want::Drop(DropReason::NoService), "");
        }
    }
}

#[test]
fn udp_without_checksum_stays_so_within_ipv4() {
    let mut lab = Lab::new();
    let flow = lab.open(Kind::V4, L4Proto::Udp, 0);
    let unchecked = |p: &mut crate::packet::Packet| p.body = Body::Udp { unchecked: true };
    lab.check(&flow.inbound().with(unchecked), Want::Inbound(&flow), "");
    lab.check(
        &flow.outbound().with(unchecked),
        Want::Outbound(&flow),
        "UDP_ONE_WAY-1 UDP_NORMAL+1 established+1",
    );
}

#[test]
fn udp_without_checksum_gets_one_on_the_way_to_ipv6() {
    for len in [0, 1, 2, 27, 1000] {
        let mut lab = Lab::new();
        let flow = lab.open(Kind::Nat46, L4Proto::Udp, 0);
        let given = flow.inbound().with(|p| {
            p.body = Body::Udp { unchecked: true };
            p.payload = vec![0xa5; len];
        });
        let out = lab.check(&given, Want::Inbound(&flow), "").packet;
        assert_eq!(
            out.expect("forwarded").body,
            Body::Udp { unchecked: false },
            "{len} bytes"
        );
    }
}

/// The sum would be over bytes that are not at hand.
#[test]
fn udp_without_checksum_in_segments_is_a_counted_drop() {
    let mut lab = Lab::new();
    let flow = lab.open(Kind::Nat46, L4Proto::Udp, 0);
    let given = flow.inbound().with(|p| {
        p.body = Body::Udp { unchecked: true };
        p.payload = vec![0xa5; 1000];
    });
    let frame = Segments::new(given.port, &given.bytes(), HEAD_LEN);
    let drop = Want::Drop(DropReason::UdpZeroChecksum);
    lab.check_frame(0, frame, Some(&given), drop, "");
    // In a head that holds it all it goes through.
    let short = given.clone().with(|p| p.payload.truncate(20));
    let frame = Segments::new(short.port, &short.bytes(), HEAD_LEN);
    lab.check_frame(0, frame, Some(&short), Want::Inbound(&flow), "");
    // From there on IPv4 to IPv4 it may stay without.
    let flow = lab.open(Kind::V4, L4Proto::Udp, 0);
    let given = flow.inbound().with(|p| {
        p.body = Body::Udp { unchecked: true };
        p.payload = vec![0xa5; 1000];
    });
    let frame = Segments::new(given.port, &given.bytes(), HEAD_LEN);
    lab.check_frame(0, frame, Some(&given), Want::Inbound(&flow), "");
}

/// A driver that can finish checksums is asked to.
#[test]
fn udp_without_checksum_in_segments_is_finished_by_the_driver() {
    for len in [500, 1000, 1001] {
        let mut lab = Lab::new();
        let flow = lab.open(Kind::Nat46, L4Proto::Udp, 0);
        let given = flow.inbound().with(|p| {
            p.body = Body::Udp { unchecked: true };
            p.payload = vec![0xa5; len];
        });
        let mut frame = Segments::new(given.port, &given.bytes(), HEAD_LEN);
        frame.offload = true;
        let out = lab
            .check_frame(0, frame, Some(&given), Want::Inbound(&flow), "")
            .packet;
        assert_eq!(out.expect("forwarded").body, Body::Udp { unchecked: false });
    }
}

/// Only the head is at hand: checksums are updated, not computed.
#[test]
fn frames_in_segments_are_forwarded_like_others() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        let flow = lab.open(kind, proto, 0);
        for len in [0, 100, 170, 1000, 8000] {
            let given = flow.inbound().with(|p| {
                p.tags = vec![(VLAN, 5)];
                p.payload = (0..len).map(|i| i as u8).collect();
                if proto == L4Proto::Tcp {
                    p.tcp().flags = SYN;
                }
            });
            let mut bytes = given.bytes();
            // Padding in the last segment.
            bytes.resize(bytes.len() + 13, 0);
            let frame = Segments::new(given.port, &bytes, HEAD_LEN);
            lab.check_frame(0, frame, Some(&given), Want::Inbound(&flow), "");
        }
    }
}

/// The longest headers that fit a head of 192 bytes, and the shortest that do not.
#[test]
fn headers_beyond_the_head_are_a_counted_drop() {
    let mut lab = Lab::new();
    let vip = Kind::V6.vip(L4Proto::Tcp);
    // 14 + 40 + extension + 20 bytes of TCP.
    for (units, whole) in [(13, true), (14, false), (15, false)] {
        let len = (units + 1) * 8;
        let given = syn(Kind::V6.client(units as u32), vip).with(|p| {
            p.tcp().options.clear();
            let padding = [vec![0, units as u8, 1, (len - 4) as u8], vec![0; len - 4]].concat();
            p.extensions = vec![(60, padding)];
            p.payload = vec![1; 300];
        });
        assert_eq!(14 + 40 + len + 20 <= HEAD_LEN, whole);
        let frame = Segments::new(given.port, &given.bytes(), HEAD_LEN);
        if whole {
            lab.check_frame(
                0,
                frame,
                Some(&given),
                Want::Opens(Kind::V6.service(L4Proto::Tcp)),
                "opened+1 SYN_RECV+1",
            );
        } else {
            lab.check_frame(0, frame, Some(&given), Want::Drop(DropReason::TooManyHeaders), "");
        }
    }
}

#[test]
fn no_headroom_for_a_longer_header() {
    let mut lab = Lab::new();
    let flow = lab.open(Kind::Nat46, L4Proto::Tcp, 0);
    let given = syn(flow.client, flow.vip);
    for headroom in [0, 19, 20] {
        let mut frame = Segments::new(given.port, &given.bytes(), HEAD_LEN);
        assert!(frame.len() < HEAD_LEN);
        frame.headroom = headroom;
        let want = if headroom < 20 {
            Want::Drop(DropReason::NoHeadroom)
        } else {
            Want::Inbound(&flow)
        };
        lab.check_frame(0, frame, Some(&given), want, "");
    }
    // A new connection that cannot be forwarded is none.
    let given = syn(Kind::Nat46.client(5), flow.vip);
    let mut frame = Segments::new(given.port, &given.bytes(), HEAD_LEN);
    frame.headroom = 3;
    lab.check_frame(0, frame, Some(&given), Want::Drop(DropReason::NoHeadroom), "");
    assert_eq!(lab.conn(&given.tuple()), None);
    lab.audit();
}

/// The MTU of the way out: one byte more is too big, in either direction and across families.
#[test]
fn mtu_of_the_way_out() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::with(|c| {
            c.spec.ports[0].mtu = Some(1400);
            c.spec.ports[1].mtu = Some(1300);
        });
        let flow = lab.open(kind, proto, 0);
        let l4 = if proto == L4Proto::Tcp { 20 } else { 8 };
        for (outbound, mtu, v4) in [
            (false, 1300, kind.servers_are_v4()),
            (true, 1400, kind.clients_are_v4()),
        ] {
            let room = mtu - l4 - if v4 { 20 } else { 40 };
            for (len, fits) in [(room, true), (room + 1, false)] {
                let given = if outbound { flow.outbound() } else { flow.inbound() };
                let given = given.with(|p| {
                    p.payload = vec![3; len];
                    if proto == L4Proto::Tcp {
                        p.tcp().flags = SYN;
                    }
                });
                let moved = match (outbound && fits, proto) {
                    (true, L4Proto::Udp) => "UDP_ONE_WAY-1 UDP_NORMAL+1 established+1",
                    _ => "",
                };
                let want = match (fits, outbound) {
                    (false, _) => Want::Drop(DropReason::TooBig),
                    (true, false) => Want::Inbound(&flow),
                    (true, true) => Want::Outbound(&flow),
                };
                lab.check(&given, want, moved);
            }
        }
    }
}

/// 65,535 bytes of IPv6 payload do not fit an IPv4 packet.
#[test]
fn the_longest_packets() {
    let mut lab = Lab::new();
    let flow = lab.open(Kind::Nat64, L4Proto::Udp, 0);
    for (len, fits) in [(65_535 - 20 - 8, true), (65_535 - 20 - 7, false), (65_527, false)] {
        let given = flow.inbound().with(|p| p.payload = vec![1; len]);
        let want = if fits {
            Want::Inbound(&flow)
        } else {
            Want::Drop(DropReason::TooBig)
        };
        lab.check(&given, want, "");
    }
    let flow = lab.open(Kind::Nat46, L4Proto::Udp, 0);
    let given = flow.inbound().with(|p| p.payload = vec![1; 65_535 - 28]);
    lab.check(&given, Want::Inbound(&flow), "");
}

/// The last hop: 1 and 0 are used up, and a state is not moved by it.
#[test]
fn time_to_live() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        for (ttl, dies) in [(0, true), (1, true), (2, false), (255, false)] {
            for given in [flow.inbound(), flow.outbound()] {
                let inbound = given.src == flow.client;
                let given = given.with(|p| p.ttl = ttl);
                let want = match (dies, inbound) {
                    (true, _) => Want::Drop(DropReason::TtlExpired),
                    (false, true) => Want::Inbound(&flow),
                    (false, false) => Want::Outbound(&flow),
                };
                lab.check(&given, want, "");
            }
        }
        let dying = syn(kind.client(9), flow.vip).with(|p| p.ttl = 1);
        lab.check(&dying, Want::Drop(DropReason::TtlExpired), "");
        assert_eq!(
            lab.conn(&dying.tuple()),
            None,
            "a SYN that dies here opens nothing"
        );
        lab.audit();
    }
}
