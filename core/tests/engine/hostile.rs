//! Hostile frames: no panic, every one counted, and a table in order behind them.

use evenkeel_core::port::{Frame, HEAD_LEN, HeapFrame, PortId, RxChecksum};
use evenkeel_core::stats::DropReason;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::Verdict;
use proptest::prelude::*;

use crate::packet::{ACK, Body, Packet, SYN, internet_checksum};
use crate::story::{
    Flow, HOST_V6, Kind, Lab, PORT_MACS, Segments, VIP_V6, conserved, first, ip, kinds_and_protos,
};
use crate::twins::cases;

const CHECKSUMS: [RxChecksum; 3] = [RxChecksum::Unknown, RxChecksum::Good, RxChecksum::Bad];

/// Ingress, bytes, and what they are.
type Sample = (u16, Vec<u8>, Option<Packet>);

/// A lab with a conn of every kind, and frames of all that it knows. What is a packet comes with it.
fn lab_and_samples() -> (Lab, Vec<Sample>) {
    let mut lab = Lab::new();
    let mut samples = Vec::new();
    let mut add = |p: Packet| samples.push((p.port, p.bytes(), Some(p)));
    for (kind, proto) in kinds_and_protos() {
        let flow: Flow = lab.open(kind, proto, 0);
        add(first(proto, kind.client(0), kind.vip(proto)).with(|p| p.tags = vec![(0x88a8, 1), (0x8100, 2)]));
        add(first(proto, kind.client(1), kind.vip(proto)));
        add(flow.inbound());
        add(flow.outbound());
        add(if proto == L4Proto::Tcp {
            flow.outbound()
                .flags(SYN | ACK)
                .with(|p| p.tcp().options = vec![2, 4, 5, 180, 5, 10, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3])
        } else {
            flow.inbound().with(|p| {
                p.body = Body::Udp {
                    unchecked: kind.clients_are_v4(),
                }
            })
        });
        add(flow.inbound().with(|p| {
            if kind.clients_are_v4() {
                p.ip_options = vec![148, 4, 0, 0, 7, 7, 4, 1, 2, 3, 4, 0];
            } else {
                p.extensions = vec![
                    (0, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                    (43, vec![0, 0, 4, 0, 0, 0, 0, 0]),
                    (44, vec![0, 0, 0, 0, 1, 2, 3, 4]),
                    (60, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                ];
            }
        }));
    }
    // ARP request, echo, neighbour solicitation.
    let ethernet = |ethertype: [u8; 2], payload: &[u8]| {
        [&PORT_MACS[0][..], &[2, 0, 0, 0, 1, 77], &ethertype, payload].concat()
    };
    let arp = [
        &[0u8, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 1, 77, 192, 0, 2, 77][..],
        &[0; 6],
        &[198, 51, 100, 1],
    ]
    .concat();
    samples.push((0, ethernet([8, 6], &arp), None));
    let mut echo = [
        &[0x45u8, 0, 0, 28, 0, 0, 0, 0, 9, 1, 0, 0][..],
        &[192, 0, 2, 77, 198, 51, 100, 1],
        &[8, 0, 0xf7, 0xff, 0, 0, 0, 0],
    ]
    .concat();
    let sum = internet_checksum(&[&echo[..20]]);
    echo[10..12].copy_from_slice(&sum.to_be_bytes());
    samples.push((0, ethernet([8, 0], &echo), None));
    for (kind, rest) in [(128u8, &[0u8, 1, 0, 2, 9][..]), (135, &[0; 4])] {
        let (src, dst) = (ip(HOST_V6), ip(VIP_V6));
        let (std::net::IpAddr::V6(s), std::net::IpAddr::V6(d)) = (src, dst) else {
            panic!("IPv6");
        };
        let mut message = [&[kind, 0, 0, 0], rest].concat();
        if kind == 135 {
            message.extend(d.octets());
            message.extend([1, 1, 2, 0, 0, 0, 1, 77]);
        }
        let sum = crate::packet::transport_checksum(src, dst, 58, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x60, 0, 0, 0, 0, message.len() as u8, 58, 255];
        packet.extend(s.octets());
        packet.extend(d.octets());
        packet.extend(message);
        samples.push((0, ethernet([0x86, 0xdd], &packet), None));
    }
    (lab, samples)
}

/// Hands one frame in; what is originated is taken out, so that there is room for more.
fn hand_in(lab: &mut Lab, port: u16, bytes: &[u8], checksum: RxChecksum) -> Verdict {
    let mut frame = HeapFrame::new(PortId(port), bytes);
    frame.rx_checksum = checksum;
    let mut frames = [frame];
    lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
    while let Some((_, frame)) = lab.workers[0].poll_transmit(|len| Some(HeapFrame::zeroed(PortId(0), len))) {
        assert!(!frame.is_empty());
    }
    lab.verdicts.as_slice()[0]
}

/// The samples are what they are meant to be.
#[test]
fn hostile_frames_are_made_of_good_ones() {
    let (mut lab, samples) = lab_and_samples();
    for (port, bytes, _) in &samples {
        let verdict = hand_in(&mut lab, *port, bytes, RxChecksum::Unknown);
        assert!(
            matches!(verdict, Verdict::Tx(_) | Verdict::Answered),
            "{verdict:?} {bytes:02x?}"
        );
    }
    assert!(samples.len() > 50);
    lab.audit();
}

#[test]
fn hostile_frames_cut_at_every_byte() {
    let (mut lab, samples) = lab_and_samples();
    let mut seen = 0;
    for (port, bytes, packet) in &samples {
        for len in 0..bytes.len() {
            for checksum in CHECKSUMS {
                let verdict = hand_in(&mut lab, *port, &bytes[..len], checksum);
                let Verdict::Drop(reason) = verdict else {
                    panic!("{len} of {} bytes: {verdict:?} {packet:?}", bytes.len());
                };
                if checksum == RxChecksum::Bad {
                    assert_eq!(reason, DropReason::BadChecksum);
                } else if packet.is_some() {
                    assert!(
                        matches!(reason, DropReason::Truncated | DropReason::BadLength),
                        "{len} of {}: {reason}",
                        bytes.len()
                    );
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 10_000);
    let counters = lab.counters();
    assert_eq!(counters.dropped(), seen);
    lab.audit();
}

/// Every value of every length field, against the rules of RFC 791, 8200, 9293 and 768.
#[test]
fn hostile_frames_lengths() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        let flow = lab.open(kind, proto, 0);
        let mut forwarded = 0;
        for given in [flow.inbound(), flow.outbound()] {
            let given = if proto == L4Proto::Tcp {
                given.flags(SYN)
            } else {
                given
            };
            let v4 = given.src.is_ipv4();
            let bytes = given.bytes();
            let header = if v4 { 20 } else { 40 };
            let (l3, l4) = (14, 14 + header);
            let min = if proto == L4Proto::Tcp { 20 } else { 8 };
            let packet_len = bytes.len() - l3;
            let mut check = |frame: &[u8], fits: bool, what: &str| {
                let verdict = hand_in(&mut lab, given.port, frame, RxChecksum::Unknown);
                match verdict {
                    Verdict::Tx(_) => assert!(fits, "{what} {given:?}"),
                    Verdict::Drop(DropReason::BadLength | DropReason::Truncated) => {
                        assert!(!fits, "{what} {given:?}");
                    }
                    other => panic!("{what}: {other:?}"),
                }
                forwarded += usize::from(fits);
            };
            // Length of the packet: one more than the frame, one less than what the headers need. UDP's own
            // length must fit, TCP has none.
            for n in (0..=packet_len + 3).chain([0x7fff, 0xffff]) {
                let mut frame = bytes.clone();
                let (at, value) = if v4 { (16, n) } else { (18, n.saturating_sub(40)) };
                frame[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
                let n = if v4 { n } else { value + 40 };
                if v4 {
                    repair(&mut frame);
                }
                let least = if proto == L4Proto::Udp {
                    packet_len
                } else {
                    header + min
                };
                check(&frame, n <= packet_len && n >= least, &format!("packet of {n}"));
            }
            // Length of the transport header, or of the datagram.
            if proto == L4Proto::Tcp {
                for words in 0..16 {
                    let mut frame = bytes.clone();
                    frame[l4 + 12] = words << 4;
                    let len = usize::from(words) * 4;
                    let fits = len >= 20 && header + len <= packet_len;
                    check(&frame, fits, &format!("header of {len}"));
                }
            } else {
                for n in (0..packet_len + 3).chain([0xffff]) {
                    let mut frame = bytes.clone();
                    frame[l4 + 4..l4 + 6].copy_from_slice(&(n as u16).to_be_bytes());
                    let fits = n >= 8 && header + n <= packet_len;
                    check(&frame, fits, &format!("datagram of {n}"));
                }
            }
            // Length of the IPv4 header: below five words it is none.
            if v4 {
                for words in 0..5 {
                    let mut frame = bytes.clone();
                    frame[14] = 0x40 | words;
                    check(&frame, false, &format!("header of {words} words"));
                }
            }
        }
        assert!(forwarded > 20);
        lab.audit();
    }
}

/// Makes the checksum of an IPv4 header right again.
fn repair(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = internet_checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// Every byte of every sample replaced by values that matter, with the header checksum as it becomes and
/// with the driver saying that it is right.
#[test]
fn hostile_frames_with_any_byte_changed() {
    let (mut lab, samples) = lab_and_samples();
    // All 255 others where many cases are asked for.
    let flips: Vec<u8> = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => (1..=255).collect(),
        None => (0..8).map(|bit| 1 << bit).chain([0xff, 0x55]).collect(),
    };
    let mut seen = 0;
    for (port, bytes, _) in &samples {
        let mut frame = bytes.clone();
        for at in 0..frame.len() {
            for flip in &flips {
                frame[at] ^= flip;
                for checksum in [RxChecksum::Unknown, RxChecksum::Good] {
                    hand_in(&mut lab, *port, &frame, checksum);
                    seen += 1;
                }
                frame[at] ^= flip;
            }
        }
        conserved(lab.workers[0].counters());
    }
    assert!(seen > 50_000);
    lab.audit();
}

/// Chains of extension headers: too long, looping by their lengths, cut.
#[test]
fn hostile_frames_with_many_headers() {
    let mut lab = Lab::new();
    let vip = Kind::V6.vip(L4Proto::Tcp);
    let pad = || vec![0, 0, 1, 4, 0, 0, 0, 0];
    for n in 0..40 {
        let given = first(L4Proto::Tcp, Kind::V6.client(n), vip)
            .with(|p| p.extensions = (0..n).map(|_| (60, pad())).collect());
        let verdict = hand_in(&mut lab, 0, &given.bytes(), RxChecksum::Unknown);
        let want = if n <= 8 {
            Verdict::Tx(PortId(1))
        } else {
            Verdict::Drop(DropReason::TooManyHeaders)
        };
        assert_eq!(verdict, want, "{n} headers");
    }
    // Hop-by-hop options elsewhere than first, two fragment headers, a header longer than the packet.
    let fragment = || vec![0, 0, 0, 0, 0, 0, 0, 1];
    for extensions in [
        vec![(60, pad()), (0, pad())],
        vec![(44, fragment()), (44, fragment())],
        vec![(60, vec![0, 255, 1, 4, 0, 0, 0, 0])],
    ] {
        let given = first(L4Proto::Tcp, Kind::V6.client(99), vip).with(|p| p.extensions = extensions);
        let verdict = hand_in(&mut lab, 0, &given.bytes(), RxChecksum::Unknown);
        assert_eq!(verdict, Verdict::Drop(DropReason::BadLength));
    }
    // VLAN tags: three are followed.
    for n in 0..10 {
        let given = first(L4Proto::Tcp, Kind::V6.client(200 + n), vip)
            .with(|p| p.tags = vec![(0x8100, 1); n as usize]);
        let verdict = hand_in(&mut lab, 0, &given.bytes(), RxChecksum::Unknown);
        let want = if n <= 3 {
            Verdict::Tx(PortId(1))
        } else {
            Verdict::Drop(DropReason::TooManyHeaders)
        };
        assert_eq!(verdict, want, "{n} tags");
    }
    lab.audit();
}

proptest! {
    #![proptest_config(cases(400))]

    /// Arbitrary bytes behind an EtherType that leads somewhere.
    #[test]
    fn hostile_frames_of_arbitrary_bytes(
        ethertype in prop::sample::select(&[0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x88cc][..]),
        first in prop::sample::select(&[0x45u8, 0x46, 0x4f, 0x60, 0x6f, 0x00][..]),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        checksum in prop::sample::select(&CHECKSUMS[..]),
        port in 0u16..3,
    ) {
        let mut lab = Lab::new();
        let mut frame = [&PORT_MACS[0][..], &[2, 0, 0, 0, 9, 9], &ethertype.to_be_bytes(), &bytes].concat();
        if let Some(b) = frame.get_mut(14) {
            *b = first;
        }
        hand_in(&mut lab, port, &frame, checksum);
        hand_in(&mut lab, port, &bytes, checksum);
        // Addressed to us, with the checksum right.
        if ethertype == 0x0800 && frame.len() >= 34 {
            frame[30..34].copy_from_slice(&[198, 51, 100, 1]);
            repair(&mut frame);
            hand_in(&mut lab, port, &frame, checksum);
        }
        lab.audit();
    }

    /// Several bytes changed at once, in whole frames and in segments.
    #[test]
    fn hostile_frames_with_several_bytes_changed(
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..60),
        tail in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let (mut lab, samples) = lab_and_samples();
        for (which, _, _) in &picks {
            let (port, bytes, _) = &samples[which.index(samples.len())];
            let mut frame = bytes.clone();
            for (_, at, value) in &picks[..picks.len().min(3)] {
                let at = at.index(frame.len());
                frame[at] = *value;
            }
            hand_in(&mut lab, *port, &frame, RxChecksum::Good);
            frame.extend(&tail);
            let mut frames = [Segments::new(*port, &frame, HEAD_LEN)];
            lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
        }
        lab.audit();
    }
}
