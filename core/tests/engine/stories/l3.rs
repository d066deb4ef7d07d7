//! What the node itself answers: ARP, neighbour discovery, echo.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use evenkeel_core::port::{HeapFrame, PortId, RxChecksum};
use evenkeel_core::service::{OwnedAddr, Place, Snapshot, SnapshotErrorKind};
use evenkeel_core::stats::DropReason;
use evenkeel_core::sync::{Answering, SyncCommand};
use evenkeel_core::wire::MacAddr;
use evenkeel_core::worker::Command;

use crate::packet::{Mac, QINQ, VLAN, internet_checksum, read_link, transport_checksum};
use crate::story::{
    HOST_MAC, HOST_V4, HOST_V6, LIP_V4, LIP_V6, Lab, PORT_MACS, PORT_V4, PORT_V6, VIP_V4, VIP_V6, Want, ip,
};

pub(crate) type Tags = Vec<(u16, u16)>;

fn ethernet(dst: Mac, src: Mac, tags: &Tags, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [dst, src].concat();
    for (tpid, tci) in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn v4(s: &str) -> Ipv4Addr {
    s.parse().expect("IPv4")
}

fn v6(s: &str) -> Ipv6Addr {
    s.parse().expect("IPv6")
}

/// An ARP packet (RFC 826).
pub(crate) struct Arp {
    pub(crate) operation: u16,
    pub(crate) sender: (Mac, Ipv4Addr),
    pub(crate) target: (Mac, Ipv4Addr),
    pub(crate) tags: Tags,
}

pub(crate) fn who_has(target: &str) -> Arp {
    Arp {
        operation: 1,
        sender: (HOST_MAC, v4(HOST_V4)),
        target: ([0; 6], v4(target)),
        tags: Vec::new(),
    }
}

impl Arp {
    fn packet(&self) -> Vec<u8> {
        let mut p = vec![0, 1, 8, 0, 6, 4];
        p.extend(self.operation.to_be_bytes());
        for (mac, addr) in [self.sender, self.target] {
            p.extend(mac);
            p.extend(addr.octets());
        }
        p
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        ethernet([0xff; 6], self.sender.0, &self.tags, 0x0806, &self.packet())
    }
}

/// The one frame that the engine originated, and its port.
#[track_caller]
fn originated(lab: &mut Lab) -> (u16, Vec<u8>) {
    let worker = &mut lab.workers[0];
    let before = worker.counters().originated;
    let (PortId(port), frame) = worker
        .poll_transmit(|len| Some(HeapFrame::zeroed(PortId(0), len)))
        .expect("an answer");
    assert_eq!(worker.counters().originated, before + 1);
    let none = worker.poll_transmit(|len| Some(HeapFrame::zeroed(PortId(0), len)));
    assert!(none.is_none(), "one answer");
    (port, evenkeel_core::port::Frame::data(&frame).to_vec())
}

/// Sends an ARP request in and reads the answer with etherparse.
#[track_caller]
fn arp_answered(lab: &mut Lab, port: u16, request: &Arp) {
    lab.check_bytes(port, &request.frame(), Want::Answered, "");
    let (out, frame) = originated(lab);
    assert_eq!(out, port);
    let mac = PORT_MACS[usize::from(port)];
    let sliced = SlicedPacket::from_ethernet(&frame).expect("etherparse reads it");
    assert_eq!(read_link(&sliced), (mac, request.sender.0, request.tags.clone()));
    let Some(NetSlice::Arp(arp)) = sliced.net else {
        panic!("not ARP");
    };
    let answer = Arp {
        operation: 2,
        sender: (mac, request.target.1),
        target: request.sender,
        tags: Vec::new(),
    };
    assert_eq!(arp.slice(), answer.packet());
    assert_eq!(frame.len(), 14 + 4 * request.tags.len() + 28);
}

#[test]
fn arp_for_owned_addresses() {
    for (port, own) in [(0, PORT_V4[0]), (1, PORT_V4[1])] {
        for target in [VIP_V4, LIP_V4, "10.0.2.2", "198.51.100.46", own] {
            for tags in [vec![], vec![(VLAN, 7)], vec![(QINQ, 8), (VLAN, 9)]] {
                let mut lab = Lab::new();
                let request = Arp {
                    tags,
                    ..who_has(target)
                };
                arp_answered(&mut lab, port, &request);
            }
        }
    }
}

/// RFC 5227: a probe has no sender address yet.
#[test]
fn arp_probe() {
    let mut lab = Lab::new();
    let probe = Arp {
        sender: (HOST_MAC, Ipv4Addr::UNSPECIFIED),
        ..who_has(VIP_V4)
    };
    arp_answered(&mut lab, 0, &probe);
}

#[test]
fn arp_for_others() {
    let mut lab = Lab::new();
    let drop = Want::Drop(DropReason::NeighbourNotOurs);
    for target in [
        HOST_V4,
        "10.0.1.1",
        "198.51.100.2",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
    ] {
        lab.check_bytes(0, &who_has(target).frame(), drop, "");
    }
    // The address of the other interface is answered there only.
    lab.check_bytes(0, &who_has(PORT_V4[1]).frame(), drop, "");
    lab.check_bytes(1, &who_has(PORT_V4[0]).frame(), drop, "");
    // An interface that is not configured.
    lab.check_bytes(9, &who_has(VIP_V4).frame(), drop, "");
    // Replies and announcements of others (RFC 5227): sender and target alike.
    for operation in [0, 2, 3, 0xffff] {
        let reply = Arp {
            operation,
            ..who_has(VIP_V4)
        };
        lab.check_bytes(0, &reply.frame(), drop, "");
    }
    lab.check_bytes(0, &who_has(HOST_V4).frame(), drop, "");
}

#[test]
fn arp_that_contradicts_itself() {
    let mut lab = Lab::new();
    let drop = Want::Drop(DropReason::BadNeighbourMessage);
    for sender in [
        (HOST_MAC, v4(VIP_V4)),
        (HOST_MAC, v4(LIP_V4)),
        (HOST_MAC, v4(PORT_V4[0])),
        (HOST_MAC, v4("127.0.0.1")),
        (HOST_MAC, v4("224.0.0.5")),
        (HOST_MAC, v4("255.255.255.255")),
        ([0xff; 6], v4(HOST_V4)),
        ([1, 0, 0x5e, 0, 0, 1], v4(HOST_V4)),
    ] {
        let request = Arp {
            sender,
            ..who_has(VIP_V4)
        };
        lab.check_bytes(0, &request.frame(), drop, "");
    }
    // Not IPv4 over Ethernet.
    for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16)] {
        let mut frame = who_has(VIP_V4).frame();
        frame[14 + at] = value;
        lab.check_bytes(0, &frame, drop, "");
    }
    for len in 0..28 {
        lab.check_bytes(0, &who_has(VIP_V4).frame()[..14 + len], drop, "");
    }
    assert_eq!(lab.counters().answered, 0);
}

/// A frame whose link-layer source is a group: an answer would flood the network.
#[test]
fn nothing_is_answered_to_a_group_address() {
    for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        let mut lab = Lab::new();
        let arp = ethernet([0xff; 6], group, &vec![], 0x0806, &who_has(VIP_V4).packet());
        lab.check_bytes(0, &arp, Want::Drop(DropReason::BadNeighbourMessage), "");
        let mut ns = Ns::new(VIP_V6).frame();
        ns[6..12].copy_from_slice(&group);
        lab.check_bytes(0, &ns, Want::Drop(DropReason::BadNeighbourMessage), "");
        for (src, dst) in [(HOST_V4, VIP_V4), (HOST_V6, VIP_V6)] {
            let mut echo = Echo::new(src, dst).frame();
            echo[6..12].copy_from_slice(&group);
            lab.check_bytes(0, &echo, Want::Drop(DropReason::BadSource), "");
        }
    }
}

/// A neighbour solicitation (RFC 4861, 4.3).
#[derive(Clone)]
pub(crate) struct Ns {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// Of an advertisement.
    pub(crate) flags: u8,
    pub(crate) hop_limit: u8,
    pub(crate) src: Ipv6Addr,
    pub(crate) dst: Ipv6Addr,
    pub(crate) target: Ipv6Addr,
    pub(crate) options: Vec<u8>,
    pub(crate) tags: Tags,
}

fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

impl Ns {
    pub(crate) fn new(target: &str) -> Self {
        let target = v6(target);
        Ns {
            kind: 135,
            code: 0,
            flags: 0,
            hop_limit: 255,
            src: v6(HOST_V6),
            dst: solicited_node(target),
            target,
            options: [&[1, 1], &HOST_MAC[..]].concat(),
            tags: Vec::new(),
        }
    }

    fn message(&self) -> Vec<u8> {
        let mut m = vec![self.kind, self.code, 0, 0, self.flags, 0, 0, 0];
        m.extend(self.target.octets());
        m.extend(&self.options);
        let sum = transport_checksum(self.src.into(), self.dst.into(), 58, &m);
        m[2..4].copy_from_slice(&sum.to_be_bytes());
        m
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let ip = v6_packet(self.src, self.dst, self.hop_limit, &self.message());
        let [.., a, b, c, d] = self.dst.octets();
        let dst = if self.dst.is_multicast() {
            [0x33, 0x33, a, b, c, d]
        } else {
            PORT_MACS[0]
        };
        ethernet(dst, HOST_MAC, &self.tags, 0x86dd, &ip)
    }
}

fn v6_packet(src: Ipv6Addr, dst: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend((message.len() as u16).to_be_bytes());
    ip.extend([58, hop_limit]);
    ip.extend(src.octets());
    ip.extend(dst.octets());
    ip.extend(message);
    ip
}

/// The ICMPv6 message of a frame, its checksum verified by etherparse: source, destination, hop limit.
#[track_caller]
pub(crate) fn read_icmpv6(frame: &[u8]) -> (Ipv6Addr, Ipv6Addr, u8, Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(frame).expect("etherparse reads it");
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) = (&sliced.net, &sliced.transport)
    else {
        panic!("not ICMPv6");
    };
    let h = ip.header();
    assert!(
        icmp.is_checksum_valid(h.source(), h.destination()),
        "checksum of {frame:02x?}"
    );
    (
        h.source().into(),
        h.destination().into(),
        h.hop_limit(),
        icmp.slice().to_vec(),
    )
}

#[track_caller]
fn ns_answered(lab: &mut Lab, port: u16, ns: &Ns) {
    lab.check_bytes(port, &ns.frame(), Want::Answered, "");
    let (out, frame) = originated(lab);
    assert_eq!(out, port);
    let mac = PORT_MACS[usize::from(port)];
    let probe = ns.src.is_unspecified();
    let to = if probe { v6("ff02::1") } else { ns.src };
    let to_mac = if probe { [0x33, 0x33, 0, 0, 0, 1] } else { HOST_MAC };
    let sliced = SlicedPacket::from_ethernet(&frame).expect("etherparse reads it");
    assert_eq!(read_link(&sliced), (mac, to_mac, ns.tags.clone()));
    let (src, dst, hop_limit, message) = read_icmpv6(&frame);
    assert_eq!((src, dst, hop_limit), (ns.target, to, 255));
    // Override, and solicited unless it goes to all nodes (RFC 4861, 7.2.4).
    let flags = if probe { 0x20 } else { 0x60 };
    assert_eq!(message[..2], [136, 0]);
    assert_eq!(message[4..8], [flags, 0, 0, 0]);
    assert_eq!(message[8..24], ns.target.octets());
    assert_eq!(message[24..], [&[2, 1], &mac[..]].concat());
}

#[test]
fn ndp_for_owned_addresses() {
    for (port, own) in [(0, PORT_V6[0]), (1, PORT_V6[1])] {
        for target in [VIP_V6, LIP_V6, "2001:db8:1::64", own] {
            for tags in [vec![], vec![(VLAN, 7)], vec![(QINQ, 8), (VLAN, 9)]] {
                let mut lab = Lab::new();
                let mut ns = Ns {
                    tags,
                    ..Ns::new(target)
                };
                ns_answered(&mut lab, port, &ns);
                // Asked at the address itself, to see whether it is still there; without option.
                ns.dst = ns.target;
                ns_answered(&mut lab, port, &ns);
                ns.options.clear();
                ns_answered(&mut lab, port, &ns);
                // Another option in front (a nonce, RFC 3971).
                ns.options = [&[14, 1, 1, 2, 3, 4, 5, 6, 1, 1], &HOST_MAC[..]].concat();
                ns_answered(&mut lab, port, &ns);
            }
        }
    }
}

/// Duplicate address detection (RFC 4862, 5.4).
#[test]
fn ndp_duplicate_address_detection() {
    let mut lab = Lab::new();
    let mut ns = Ns {
        src: Ipv6Addr::UNSPECIFIED,
        options: Vec::new(),
        ..Ns::new(VIP_V6)
    };
    ns_answered(&mut lab, 0, &ns);
    // Not with an option, and not at another address.
    let drop = Want::Drop(DropReason::BadNeighbourMessage);
    ns.dst = ns.target;
    lab.check_bytes(0, &ns.frame(), drop, "");
    ns.dst = solicited_node(ns.target);
    ns.options = [&[1, 1], &HOST_MAC[..]].concat();
    lab.check_bytes(0, &ns.frame(), drop, "");
}

#[test]
fn ndp_for_others() {
    let mut lab = Lab::new();
    let drop = Want::Drop(DropReason::NeighbourNotOurs);
    for target in [HOST_V6, "2001:db8:1::2", "::1", "fe80::1", PORT_V6[1]] {
        lab.check_bytes(0, &Ns::new(target).frame(), drop, "");
    }
    // An advertisement is somebody's answer.
    let advertisement = Ns {
        kind: 136,
        options: [&[2, 1], &HOST_MAC[..]].concat(),
        dst: v6(VIP_V6),
        ..Ns::new(HOST_V6)
    };
    lab.check_bytes(0, &advertisement.frame(), drop, "");
}

/// What answers the kernel's own questions is the kernel's.
#[test]
fn answers_to_the_kernel_are_punted() {
    let mut lab = Lab::new();
    for (port, own, other) in [(0, 0, 1), (1, 1, 0)] {
        let reply = |target: &str| Arp {
            operation: 2,
            ..who_has(target)
        };
        lab.check_bytes(port, &reply(PORT_V4[own]).frame(), Want::Punt, "");
        lab.check_bytes(
            port,
            &reply(PORT_V4[other]).frame(),
            Want::Drop(DropReason::NeighbourNotOurs),
            "",
        );
        let advertisement = |dst: &str| Ns {
            kind: 136,
            options: [&[2, 1], &HOST_MAC[..]].concat(),
            dst: v6(dst),
            ..Ns::new(HOST_V6)
        };
        lab.check_bytes(port, &advertisement(PORT_V6[own]).frame(), Want::Punt, "");
        let others = Want::Drop(DropReason::NeighbourNotOurs);
        lab.check_bytes(port, &advertisement(PORT_V6[other]).frame(), others, "");
    }
}

#[test]
fn ndp_that_contradicts_itself() {
    let mut lab = Lab::new();
    let good = Ns::new(VIP_V6);
    let drop = Want::Drop(DropReason::BadNeighbourMessage);
    for bad in [
        Ns {
            hop_limit: 254,
            ..good.clone()
        },
        Ns {
            code: 1,
            ..good.clone()
        },
        Ns {
            options: vec![1, 0, 2, 0, 0, 0, 1, 77],
            ..good.clone()
        },
        Ns {
            options: vec![1, 2, 2, 0, 0, 0, 1, 77],
            ..good.clone()
        },
        Ns {
            options: vec![1, 1, 0x33, 0x33, 0, 0, 1, 77],
            ..good.clone()
        },
        Ns {
            options: vec![1, 1, 2],
            ..good.clone()
        },
        Ns {
            target: v6("ff02::1"),
            ..good.clone()
        },
        Ns {
            src: v6(VIP_V6),
            ..good.clone()
        },
        Ns {
            src: v6(PORT_V6[0]),
            ..good.clone()
        },
        Ns {
            src: v6("::1"),
            ..good.clone()
        },
        Ns {
            src: v6("ff02::2"),
            ..good.clone()
        },
    ] {
        lab.check_bytes(0, &bad.frame(), drop, "");
    }
    let mut wrong = good.frame();
    wrong[14 + 40 + 2] ^= 1;
    lab.check_bytes(0, &wrong, Want::Drop(DropReason::BadChecksum), "");
    assert_eq!(lab.counters().answered, 0);
}

/// An echo request of either family (RFC 792; RFC 4443, 4.1).
struct Echo {
    src: IpAddr,
    dst: IpAddr,
    kind: u8,
    code: u8,
    payload: Vec<u8>,
    tags: Tags,
}

impl Echo {
    fn new(src: &str, dst: &str) -> Self {
        let (src, dst) = (ip(src), ip(dst));
        Echo {
            src,
            dst,
            kind: if dst.is_ipv4() { 8 } else { 128 },
            code: 0,
            payload: b"echo, echo".to_vec(),
            tags: Vec::new(),
        }
    }

    fn message(&self) -> Vec<u8> {
        let mut m = vec![self.kind, self.code, 0, 0, 0x12, 0x34, 0, 9];
        m.extend(&self.payload);
        let sum = match self.dst {
            IpAddr::V4(_) => internet_checksum(&[&m]),
            IpAddr::V6(_) => transport_checksum(self.src, self.dst, 58, &m),
        };
        m[2..4].copy_from_slice(&sum.to_be_bytes());
        m
    }

    fn frame(&self) -> Vec<u8> {
        let message = self.message();
        let (ethertype, packet) = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => (0x0800, v4_packet(src, dst, 1, &message)),
            (IpAddr::V6(src), IpAddr::V6(dst)) => (0x86dd, v6_packet(src, dst, 3, &message)),
            _ => panic!("two families"),
        };
        ethernet(PORT_MACS[0], HOST_MAC, &self.tags, ethertype, &packet)
    }
}

fn v4_packet(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, message: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0x10];
    ip.extend((20 + message.len() as u16).to_be_bytes());
    ip.extend([0x77, 0x77, 0, 0, 3, proto, 0, 0]);
    ip.extend(src.octets());
    ip.extend(dst.octets());
    let sum = internet_checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(message);
    ip
}

#[track_caller]
fn echoed(lab: &mut Lab, port: u16, echo: &Echo) {
    let seen = lab.check_bytes(port, &echo.frame(), Want::Echo, "");
    let sliced = SlicedPacket::from_ethernet(&seen.bytes).expect("etherparse reads it");
    let mac = PORT_MACS[usize::from(port)];
    assert_eq!(read_link(&sliced), (mac, HOST_MAC, echo.tags.clone()));
    let message = match echo.dst {
        IpAddr::V6(_) => {
            let (src, dst, hop_limit, message) = read_icmpv6(&seen.bytes);
            assert_eq!((IpAddr::V6(src), IpAddr::V6(dst)), (echo.dst, echo.src));
            assert_eq!(hop_limit, 64);
            message
        }
        IpAddr::V4(_) => {
            let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) =
                (&sliced.net, &sliced.transport)
            else {
                panic!("not ICMP");
            };
            let h = ip.header();
            assert_eq!(h.header_checksum(), h.to_header().calc_header_checksum());
            assert_eq!(
                (IpAddr::V4(h.source_addr()), IpAddr::V4(h.destination_addr())),
                (echo.dst, echo.src)
            );
            assert_eq!(h.ttl(), 64);
            assert_eq!(internet_checksum(&[icmp.slice()]), 0, "ICMP checksum");
            icmp.slice().to_vec()
        }
    };
    assert_eq!(message[0], if echo.dst.is_ipv4() { 0 } else { 129 });
    assert_eq!(message[1], echo.code);
    assert_eq!(
        message[4..],
        echo.message()[4..],
        "identifier, number and payload"
    );
}

#[test]
fn echo_for_owned_addresses() {
    for (src, targets) in [
        (HOST_V4, [VIP_V4, LIP_V4, PORT_V4[0], PORT_V4[1]]),
        (HOST_V6, [VIP_V6, LIP_V6, PORT_V6[0], PORT_V6[1]]),
    ] {
        for target in targets {
            for (len, tags) in [(0, vec![]), (1, vec![(VLAN, 4)]), (56, vec![]), (1400, vec![])] {
                let mut lab = Lab::new();
                let echo = Echo {
                    payload: (0..len).map(|i: usize| i as u8).collect(),
                    tags,
                    ..Echo::new(src, target)
                };
                echoed(&mut lab, 0, &echo);
                echoed(&mut lab, 1, &echo);
            }
        }
    }
}

/// Checksums of every value, the wrap at either end included.
#[test]
fn echo_with_every_checksum() {
    let mut lab = Lab::new();
    for (src, dst) in [(HOST_V4, VIP_V4), (HOST_V6, VIP_V6)] {
        for word in (0..=u16::MAX).step_by(97).chain([0xf7ff, 0xf7fe, 0xf800]) {
            let mut echo = Echo::new(src, dst);
            echo.payload = word.to_be_bytes().to_vec();
            // And the payload that brings the sum to its end.
            let sum = echo.message();
            echoed(&mut lab, 0, &echo);
            echo.payload.extend(&sum[2..4]);
            echoed(&mut lab, 0, &echo);
        }
    }
}

#[test]
fn echo_for_others_and_from_impossible_hosts() {
    let mut lab = Lab::new();
    let (not_ours, bad_source) = (Want::Drop(DropReason::NotOurs), Want::Drop(DropReason::BadSource));
    for (src, dst, want) in [
        (HOST_V4, "198.51.100.2", not_ours),
        (HOST_V6, "2001:db8:1::2", not_ours),
        (HOST_V4, HOST_V4, not_ours),
        (HOST_V6, HOST_V6, not_ours),
        (HOST_V4, "255.255.255.255", Want::Punt),
        (HOST_V4, "224.0.0.1", Want::Punt),
        (HOST_V6, "ff02::1", Want::Punt),
        (VIP_V4, VIP_V4, bad_source),
        (VIP_V6, VIP_V6, bad_source),
        (LIP_V4, VIP_V4, bad_source),
        ("127.0.0.1", VIP_V4, bad_source),
        ("255.255.255.255", VIP_V4, bad_source),
        ("224.0.0.1", VIP_V4, bad_source),
        ("0.0.0.0", VIP_V4, bad_source),
        ("::1", VIP_V6, bad_source),
        ("::", VIP_V6, bad_source),
        ("ff02::1", VIP_V6, bad_source),
    ] {
        lab.check_bytes(0, &Echo::new(src, dst).frame(), want, "");
    }
    // On an interface that is not configured.
    lab.check_bytes(7, &Echo::new(HOST_V4, VIP_V4).frame(), not_ours, "");
}

#[test]
fn echo_with_a_wrong_checksum() {
    for (src, dst, l4) in [(HOST_V4, VIP_V4, 34), (HOST_V6, VIP_V6, 54)] {
        let mut lab = Lab::new();
        let good = Echo::new(src, dst).frame();
        for at in [l4 + 2, l4 + 3, l4 + 5, good.len() - 1] {
            let mut wrong = good.clone();
            wrong[at] ^= 0x10;
            lab.check_bytes(0, &wrong, Want::Drop(DropReason::BadChecksum), "");
            // The driver says that it is right: nobody sums it up again.
            let mut frame = HeapFrame::new(PortId(0), &wrong);
            frame.rx_checksum = RxChecksum::Good;
            lab.check_frame(0, frame, None, Want::Echo, "");
        }
        let mut frame = HeapFrame::new(PortId(0), &good);
        frame.rx_checksum = RxChecksum::Bad;
        lab.check_frame(0, frame, None, Want::Drop(DropReason::BadChecksum), "");
    }
}

#[test]
fn other_icmp_messages() {
    let mut lab = Lab::new();
    for (src, dst, kinds) in [
        (HOST_V4, VIP_V4, [0, 13, 17, 40]),
        (HOST_V6, VIP_V6, [129, 130, 139, 200]),
    ] {
        for kind in kinds {
            let echo = Echo {
                kind,
                ..Echo::new(src, dst)
            };
            lab.check_bytes(0, &echo.frame(), Want::Drop(DropReason::IcmpOther), "");
        }
    }
    // Router advertisements and the like go to groups: the kernel's business.
    for kind in [133, 134, 143] {
        let echo = Echo {
            kind,
            ..Echo::new(HOST_V6, "ff02::1")
        };
        lab.check_bytes(0, &echo.frame(), Want::Punt, "");
    }
}

#[test]
fn icmp_errors_are_counted_drops() {
    let mut lab = Lab::new();
    for (src, dst, kinds) in [
        (HOST_V4, VIP_V4, &[3u8, 4, 5, 11, 12][..]),
        (HOST_V6, LIP_V6, &[1, 2, 3, 4][..]),
    ] {
        for &kind in kinds {
            let error = Echo {
                kind,
                payload: vec![0x45; 48],
                ..Echo::new(src, dst)
            };
            lab.check_bytes(0, &error.frame(), Want::Drop(DropReason::IcmpError), "");
        }
    }
    assert_eq!(lab.counters().drops[DropReason::IcmpError as usize], 9);
}

/// As many answers as the engine has room for wait; one more is a counted drop. A driver without buffers
/// loses none of them.
#[test]
fn originate_full_and_alloc_failing() {
    let mut lab = Lab::new();
    let mut asked = Vec::new();
    let targets = [VIP_V4, LIP_V4, "10.0.2.2"];
    while let Some(target) = targets.get(asked.len() % 3) {
        let request = who_has(target);
        let frame = HeapFrame::new(PortId(0), &request.frame());
        let mut frames = [frame];
        lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
        match lab.verdicts.as_slice()[0] {
            evenkeel_core::worker::Verdict::Answered => asked.push(*target),
            other => {
                let full = evenkeel_core::worker::Verdict::Drop(DropReason::OriginateFull);
                assert_eq!(other, full);
                break;
            }
        }
        assert!(asked.len() < 10_000, "bounded");
    }
    assert_eq!(asked.len(), 64);
    lab.check_bytes(
        0,
        &Ns::new(VIP_V6).frame(),
        Want::Drop(DropReason::OriginateFull),
        "",
    );
    let worker = &mut lab.workers[0];
    for _ in 0..3 {
        assert!(worker.poll_transmit(|_| None::<HeapFrame>).is_none());
    }
    // A buffer that is too short is none.
    let short = worker.poll_transmit(|len| Some(HeapFrame::zeroed(PortId(0), len - 1)));
    assert!(short.is_none());
    assert_eq!(worker.counters().originated, 0);
    for target in asked {
        let (_, frame) = worker
            .poll_transmit(|len| Some(HeapFrame::zeroed(PortId(0), len)))
            .expect("nothing was lost");
        let data = evenkeel_core::port::Frame::data(&frame);
        assert_eq!(data[28..32], v4(target).octets(), "in order");
    }
    assert!(worker.poll_transmit(|_| None::<HeapFrame>).is_none());
    arp_answered(&mut lab, 0, &who_has(VIP_V4));
}

/// Tells the lab's worker for which VIPs and LIPs it answers.
fn answer(lab: &mut Lab, addrs: &[(&str, Option<Mac>)]) {
    let mut addrs: Vec<_> = addrs.iter().map(|(a, mac)| (ip(a), mac.map(MacAddr))).collect();
    addrs.sort();
    let command = Command::Sync(SyncCommand::Answer(Arc::new(Answering { addrs })));
    let now = lab.now;
    lab.workers[0].handle_command(now, command).expect("carried out");
}

/// Link-layer addresses of virtual router 51 (RFC 9568, 7.3).
const VIRTUAL_V4: Mac = [0, 0, 0x5e, 0, 1, 51];
const VIRTUAL_V6: Mac = [0, 0, 0x5e, 0, 2, 51];

/// An answer to the host on interface 0 that tells `mac`: ARP, neighbour discovery or echo.
#[track_caller]
fn answered_as(lab: &mut Lab, target: &str, mac: Mac) {
    let (neighbour, mac_at) = match ip(target) {
        // The sender's hardware address; the target link-layer address option.
        IpAddr::V4(_) => (who_has(target).frame(), 14 + 8),
        IpAddr::V6(_) => (Ns::new(target).frame(), 14 + 40 + 24 + 2),
    };
    lab.check_bytes(0, &neighbour, Want::Answered, "");
    let (_, frame) = originated(lab);
    assert_eq!(frame[..6], HOST_MAC);
    assert_eq!(frame[6..12], mac);
    assert_eq!(frame[mac_at..mac_at + 6], mac);
    let host = if ip(target).is_ipv4() { HOST_V4 } else { HOST_V6 };
    let seen = lab.check_bytes(0, &Echo::new(host, target).frame(), Want::Echo, "");
    assert_eq!(seen.bytes[..6], HOST_MAC);
    assert_eq!(seen.bytes[6..12], mac);
    if ip(target).is_ipv6() {
        read_icmpv6(&frame);
        read_icmpv6(&seen.bytes);
    }
}

/// Nothing is answered for `target`.
#[track_caller]
fn silent(lab: &mut Lab, target: &str) {
    let (host, neighbour) = match ip(target) {
        IpAddr::V4(_) => (HOST_V4, who_has(target).frame()),
        IpAddr::V6(_) => (HOST_V6, Ns::new(target).frame()),
    };
    lab.check_bytes(0, &neighbour, Want::Drop(DropReason::NeighbourNotOurs), "");
    lab.check_bytes(
        0,
        &Echo::new(host, target).frame(),
        Want::Drop(DropReason::NotOurs),
        "",
    );
}

/// A node of a cluster: VIPs are answered with the virtual router's address by the master, LIPs by whose they
/// are, and interface addresses always.
#[test]
fn answers_as_it_is_told() {
    for (vip, lip, own, mac) in [
        (VIP_V4, LIP_V4, PORT_V4[0], VIRTUAL_V4),
        (VIP_V6, LIP_V6, PORT_V6[0], VIRTUAL_V6),
    ] {
        let mut lab = Lab::new();
        for target in [vip, lip, own] {
            answered_as(&mut lab, target, PORT_MACS[0]);
        }
        // A backup.
        answer(&mut lab, &[(lip, None)]);
        silent(&mut lab, vip);
        answered_as(&mut lab, lip, PORT_MACS[0]);
        answered_as(&mut lab, own, PORT_MACS[0]);
        // The master, and of another's LIPs too.
        let other = if ip(lip).is_ipv4() {
            "10.0.2.2"
        } else {
            "fd00::2:2"
        };
        answer(&mut lab, &[(lip, None), (vip, Some(mac)), (other, None)]);
        answered_as(&mut lab, vip, mac);
        answered_as(&mut lab, lip, PORT_MACS[0]);
        answered_as(&mut lab, other, PORT_MACS[0]);
        answered_as(&mut lab, own, PORT_MACS[0]);
        // Not ready: nothing but its own.
        answer(&mut lab, &[]);
        for target in [vip, lip, other] {
            silent(&mut lab, target);
        }
        answered_as(&mut lab, own, PORT_MACS[0]);
        // And again.
        answer(&mut lab, &[(vip, Some(mac))]);
        answered_as(&mut lab, vip, mac);
        silent(&mut lab, lip);
    }
}

/// What is not owned, or asked on an interface that is not ours, is not answered because it is listed.
#[test]
fn a_list_owns_nothing() {
    let mut lab = Lab::new();
    let (v4, v6) = ("198.51.100.2", "2001:db8:1::2");
    answer(
        &mut lab,
        &[
            (v4, Some(VIRTUAL_V4)),
            (v6, Some(VIRTUAL_V6)),
            (VIP_V4, Some(VIRTUAL_V4)),
            (PORT_V4[1], None),
        ],
    );
    silent(&mut lab, v4);
    silent(&mut lab, v6);
    let drop = Want::Drop(DropReason::NeighbourNotOurs);
    lab.check_bytes(0, &who_has(PORT_V4[1]).frame(), drop, "");
    lab.check_bytes(9, &who_has(VIP_V4).frame(), drop, "");
}

/// An answer to duplicate address detection carries the virtual address too.
#[test]
fn duplicate_address_detection_is_answered_by_the_virtual_router() {
    let mut lab = Lab::new();
    answer(&mut lab, &[(VIP_V6, Some(VIRTUAL_V6))]);
    let probe = Ns {
        src: Ipv6Addr::UNSPECIFIED,
        options: Vec::new(),
        ..Ns::new(VIP_V6)
    };
    lab.check_bytes(0, &probe.frame(), Want::Answered, "");
    let (_, frame) = originated(&mut lab);
    assert_eq!(frame[..12], [&[0x33, 0x33, 0, 0, 0, 1], &VIRTUAL_V6[..]].concat());
    let (src, dst, _, message) = read_icmpv6(&frame);
    assert_eq!((src, dst), (v6(VIP_V6), v6("ff02::1")));
    assert_eq!(message[24..], [&[2, 1], &VIRTUAL_V6[..]].concat());
}

/// A survivor can answer for a dead node's LIPs, as they are its own addresses too; an address has one role.
#[test]
fn lips_of_peers_are_owned_and_of_nobody_else() {
    let (v4, v6) = (ip("10.0.77.7"), ip("fd00::77:7"));
    let mut spec = crate::story::spec();
    let before = Snapshot::new(&spec).expect("good");
    assert_eq!(before.owned(v4), None);
    spec.peer_local_addrs = vec![v4, v6];
    let with = Snapshot::new(&spec).expect("good");
    for addr in [v4, v6] {
        assert_eq!(with.owned(addr), Some(OwnedAddr::Local));
    }
    for taken in [
        ip(LIP_V4),
        ip(VIP_V4),
        ip(PORT_V4[0]),
        spec.services[0].servers[0].addr,
    ] {
        spec.peer_local_addrs = vec![v4, taken];
        let errors = Snapshot::new(&spec).expect_err("it has a role already");
        assert!(
            errors
                .iter()
                .any(|e| e.kind == SnapshotErrorKind::AddressConflict(taken)),
            "{errors:?}"
        );
    }
    spec.peer_local_addrs = vec![ip("224.0.0.1")];
    let errors = Snapshot::new(&spec).expect_err("a group is no LIP");
    assert_eq!(errors[0].place, Place::PeerLocalAddr(0));
}
