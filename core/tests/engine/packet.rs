//! Packets as stories write them and read them. Writing is by hand, reading by etherparse: nothing of the
//! engine's own wire code is used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{LinkExtSlice, LinkSlice, NetSlice, SlicedPacket, TransportSlice};
use evenkeel_core::tuple::{L4Proto, Tuple};

pub(crate) type Mac = [u8; 6];

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const QINQ: u16 = 0x88a8;

/// A TCP or UDP packet. What a family does not have is zero, false or empty in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) port: u16,
    pub(crate) src_mac: Mac,
    pub(crate) dst_mac: Mac,
    /// VLAN tags, outermost first: TPID and TCI.
    pub(crate) tags: Vec<(u16, u16)>,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) ttl: u8,
    /// Traffic class, type of service.
    pub(crate) class: u8,
    /// IPv6.
    pub(crate) flow_label: u32,
    /// IPv6 extension headers: type and bytes, whose first is filled in.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// IPv4.
    pub(crate) id: u16,
    /// IPv4.
    pub(crate) dont_fragment: bool,
    /// IPv4; a multiple of four bytes.
    pub(crate) ip_options: Vec<u8>,
    pub(crate) body: Body,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Tcp(Tcp),
    Udp {
        /// The sender did not compute a checksum.
        unchecked: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tcp {
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    /// A multiple of four bytes.
    pub(crate) options: Vec<u8>,
}

impl Packet {
    pub(crate) fn proto(&self) -> L4Proto {
        match self.body {
            Body::Tcp(_) => L4Proto::Tcp,
            Body::Udp { .. } => L4Proto::Udp,
        }
    }

    pub(crate) fn tuple(&self) -> Tuple {
        Tuple {
            proto: self.proto(),
            src: self.src,
            dst: self.dst,
        }
    }

    pub(crate) fn tcp(&mut self) -> &mut Tcp {
        match &mut self.body {
            Body::Tcp(tcp) => tcp,
            Body::Udp { .. } => panic!("not TCP"),
        }
    }

    /// The same with other flags.
    pub(crate) fn flags(mut self, flags: u8) -> Self {
        self.tcp().flags = flags;
        self
    }

    /// The same with `edit` made.
    pub(crate) fn with(mut self, edit: impl FnOnce(&mut Packet)) -> Self {
        edit(&mut self);
        self
    }

    /// Bytes of the link-layer header.
    pub(crate) fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// The frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let segment = self.segment();
        let mut frame = [self.dst_mac, self.src_mac].concat();
        for (tpid, tci) in &self.tags {
            frame.extend(tpid.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend(0x0800u16.to_be_bytes());
                let header_len = 20 + self.ip_options.len();
                let mut ip = vec![0x40 | (header_len / 4) as u8, self.class];
                ip.extend(((header_len + segment.len()) as u16).to_be_bytes());
                ip.extend(self.id.to_be_bytes());
                ip.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
                ip.extend([self.ttl, self.proto().ip_proto(), 0, 0]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(&self.ip_options);
                let sum = internet_checksum(&[&ip]);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(ip);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend(0x86ddu16.to_be_bytes());
                let ext_len: usize = self.extensions.iter().map(|(_, b)| b.len()).sum();
                let word = 6 << 28 | u32::from(self.class) << 20 | self.flow_label;
                frame.extend(word.to_be_bytes());
                frame.extend(((ext_len + segment.len()) as u16).to_be_bytes());
                let types = self.extensions.iter().map(|(kind, _)| *kind);
                let mut types: Vec<u8> = types.chain([self.proto().ip_proto()]).collect();
                frame.extend([types.remove(0), self.ttl]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                for ((_, bytes), next) in self.extensions.iter().zip(types) {
                    frame.push(next);
                    frame.extend(&bytes[1..]);
                }
            }
            _ => panic!("ends of two families"),
        }
        frame.extend(segment);
        frame
    }

    fn segment(&self) -> Vec<u8> {
        let mut segment = self.src.port().to_be_bytes().to_vec();
        segment.extend(self.dst.port().to_be_bytes());
        let at = match &self.body {
            Body::Tcp(tcp) => {
                segment.extend(tcp.seq.to_be_bytes());
                segment.extend(tcp.ack.to_be_bytes());
                segment.extend([((20 + tcp.options.len()) / 4 * 16) as u8, tcp.flags]);
                segment.extend(tcp.window.to_be_bytes());
                segment.extend([0; 4]);
                segment.extend(&tcp.options);
                16
            }
            Body::Udp { .. } => {
                segment.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                segment.extend([0; 2]);
                6
            }
        };
        segment.extend(&self.payload);
        let sum = match (&self.body, self.transport_checksum(&segment)) {
            (Body::Udp { unchecked: true }, _) => 0,
            (Body::Udp { .. }, 0) => 0xffff,
            (_, sum) => sum,
        };
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    fn transport_checksum(&self, segment: &[u8]) -> u16 {
        transport_checksum(self.src.ip(), self.dst.ip(), self.proto().ip_proto(), segment)
    }
}

/// Checksum of `message` with the pseudo-header of its family.
pub(crate) fn transport_checksum(src: IpAddr, dst: IpAddr, proto: u8, message: &[u8]) -> u16 {
    let octets = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let len = (message.len() as u32).to_be_bytes();
    internet_checksum(&[&octets(src), &octets(dst), &len, &[0, proto], message])
}

/// RFC 1071, the slow way. Every part but the last has an even length.
pub(crate) fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// 0 and 0xffff are the same number.
fn same_sum(a: u16, b: u16) -> bool {
    a == b || (matches!(a, 0 | 0xffff) && matches!(b, 0 | 0xffff))
}

/// Link-layer header and tags, as etherparse reads them.
pub(crate) fn read_link(sliced: &SlicedPacket<'_>) -> (Mac, Mac, Vec<(u16, u16)>) {
    let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link else {
        panic!("no Ethernet header");
    };
    let mut tpid = ethernet.ether_type().0;
    let mut tags = Vec::new();
    for ext in &sliced.link_exts {
        let LinkExtSlice::Vlan(tag) = ext else {
            panic!("not a VLAN tag");
        };
        tags.push((tpid, u16::from_be_bytes([tag.slice()[0], tag.slice()[1]])));
        tpid = tag.ether_type().0;
    }
    (ethernet.source(), ethernet.destination(), tags)
}

/// Reads a TCP or UDP frame with etherparse, verifies every checksum and that the frame ends with the IP
/// packet. Returns it with its transport checksum.
#[track_caller]
pub(crate) fn read(port: u16, frame: &[u8]) -> (Packet, u16) {
    let sliced = SlicedPacket::from_ethernet(frame).expect("etherparse reads the frame");
    let (src_mac, dst_mac, tags) = read_link(&sliced);
    let l3 = 14 + 4 * tags.len();
    let mut packet = Packet {
        port,
        src_mac,
        dst_mac,
        tags,
        src: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        dst: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        ttl: 0,
        class: 0,
        flow_label: 0,
        extensions: Vec::new(),
        id: 0,
        dont_fragment: false,
        ip_options: Vec::new(),
        body: Body::Udp { unchecked: false },
        payload: Vec::new(),
    };
    let (src, dst, ip_len): (IpAddr, IpAddr, usize) = match sliced.net.as_ref().expect("IP") {
        NetSlice::Ipv4(ip) => {
            let h = ip.header();
            assert!(
                same_sum(h.header_checksum(), h.to_header().calc_header_checksum()),
                "IPv4 header checksum of {frame:02x?}"
            );
            assert!(!h.is_fragmenting_payload());
            assert_eq!(h.slice()[6] & 0x80, 0, "reserved bit");
            packet.ttl = h.ttl();
            packet.class = h.slice()[1];
            packet.id = h.identification();
            packet.dont_fragment = h.dont_fragment();
            packet.ip_options = h.options().to_vec();
            (
                h.source_addr().into(),
                h.destination_addr().into(),
                usize::from(h.total_len()),
            )
        }
        NetSlice::Ipv6(ip) => {
            let h = ip.header();
            packet.ttl = h.hop_limit();
            packet.class = h.traffic_class();
            packet.flow_label = h.flow_label().value();
            let mut kind = h.next_header().0;
            let mut rest = ip.extensions().slice();
            while !rest.is_empty() {
                let len = if kind == 44 {
                    8
                } else {
                    usize::from(rest[1]) * 8 + 8
                };
                let (header, behind) = rest.split_at(len);
                let next = header[0];
                packet.extensions.push((kind, [&[0], &header[1..]].concat()));
                (kind, rest) = (next, behind);
            }
            (
                Ipv6Addr::from(h.source()).into(),
                Ipv6Addr::from(h.destination()).into(),
                40 + usize::from(h.payload_length()),
            )
        }
        other => panic!("not IP: {other:?}"),
    };
    assert_eq!(frame.len(), l3 + ip_len, "the frame ends with the IP packet");
    let (sum, right) = match sliced.transport.as_ref().expect("a transport header") {
        TransportSlice::Tcp(tcp) => {
            packet.src = SocketAddr::new(src, tcp.source_port());
            packet.dst = SocketAddr::new(dst, tcp.destination_port());
            packet.payload = tcp.payload().to_vec();
            packet.body = Body::Tcp(Tcp {
                flags: tcp.slice()[13],
                seq: tcp.sequence_number(),
                ack: tcp.acknowledgment_number(),
                window: tcp.window_size(),
                options: tcp.options().to_vec(),
            });
            let right = match (src, dst) {
                (IpAddr::V4(s), IpAddr::V4(d)) => tcp.calc_checksum_ipv4(s.octets(), d.octets()).ok(),
                (IpAddr::V6(s), IpAddr::V6(d)) => tcp.calc_checksum_ipv6(s.octets(), d.octets()).ok(),
                _ => None,
            };
            (tcp.checksum(), right)
        }
        TransportSlice::Udp(udp) => {
            packet.src = SocketAddr::new(src, udp.source_port());
            packet.dst = SocketAddr::new(dst, udp.destination_port());
            packet.payload = udp.payload().to_vec();
            let unchecked = udp.checksum() == 0;
            packet.body = Body::Udp { unchecked };
            let header = udp.to_header();
            let right = match (src, dst) {
                (IpAddr::V4(_), _) if unchecked => Some(0),
                (IpAddr::V4(s), IpAddr::V4(d)) => header
                    .calc_checksum_ipv4_raw(s.octets(), d.octets(), udp.payload())
                    .ok(),
                (IpAddr::V6(s), IpAddr::V6(d)) => header
                    .calc_checksum_ipv6_raw(s.octets(), d.octets(), udp.payload())
                    .ok(),
                _ => None,
            };
            (udp.checksum(), right)
        }
        other => panic!("neither TCP nor UDP: {other:?}"),
    };
    let right = right.expect("a length that a checksum covers");
    assert!(
        same_sum(sum, right),
        "transport checksum {sum:#06x}, not {right:#06x}, of {packet:?}"
    );
    (packet, sum)
}
