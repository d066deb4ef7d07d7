//! Bytes of what hosts send and receive themselves: Ethernet, ARP (RFC 826), neighbour discovery (RFC 4861), and
//! UDP. Written apart from the engine's own, so that one checks the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(crate) type Mac = [u8; 6];

pub(crate) const BROADCAST: Mac = [0xff; 6];
/// All nodes on the link (RFC 4291 section 2.7.1), and their link-layer address.
pub(crate) const ALL_NODES: (Ipv6Addr, Mac) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    [0x33, 0x33, 0, 0, 0, 1],
);
pub(crate) const ETHERNET_LEN: usize = 14;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV4: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// Adds big-endian 16-bit words, an odd last byte padded with zero (RFC 1071).
pub(crate) fn sum(data: &[u8]) -> u64 {
    let mut words = data.chunks_exact(4);
    let mut sum: u64 = words
        .by_ref()
        .map(|w| u64::from(u32::from_be_bytes([w[0], w[1], w[2], w[3]])))
        .sum();
    let mut last = [0; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    sum += u64::from(u32::from_be_bytes(last));
    sum
}

/// The one's complement sum of 32-bit words, folded to 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn pseudo(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> u64 {
    let ends = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => sum(&src.octets()) + sum(&dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => sum(&src.octets()) + sum(&dst.octets()),
        _ => 0,
    };
    ends + u64::from(proto) + len as u64
}

/// An IP packet that is whole and whose checksums are right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) proto: u8,
    pub(crate) hop_limit: u8,
    /// Of the IP header and the payload, without padding.
    pub(crate) len: usize,
    pub(crate) payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// # Errors
    ///
    /// The reason's name.
    pub(crate) fn parse(kind: u16, data: &'a [u8]) -> Result<Self, &'static str> {
        let packet = match kind {
            IPV4 => Packet::parse_v4(data),
            _ => Packet::parse_v6(data),
        }
        .ok_or("host-malformed")?;
        let sums = packet.payload;
        let checked = match packet.proto {
            TCP | ICMPV6 => true,
            // No checksum, over IPv4 only (RFC 768, RFC 8200 section 8.1).
            UDP => packet.src.is_ipv6() || sums.get(6..8) != Some(&[0, 0]),
            _ => false,
        };
        if checked {
            let pseudo = pseudo(packet.src, packet.dst, packet.proto, sums.len());
            if fold(pseudo + sum(sums)) != 0xffff {
                return Err("host-bad-checksum");
            }
        }
        if kind == IPV4 {
            let header = data.get(..packet.len - sums.len()).ok_or("host-malformed")?;
            if fold(sum(header)) != 0xffff {
                return Err("host-bad-checksum");
            }
        }
        Ok(packet)
    }

    fn parse_v4(data: &'a [u8]) -> Option<Self> {
        let header_len = usize::from(data.first()? & 0x0f) * 4;
        let len = usize::from(be16(data, 2)?);
        let fragment = be16(data, 6)? & 0x3fff != 0;
        if data.first()? >> 4 != 4 || header_len < 20 || fragment {
            return None;
        }
        Some(Packet {
            src: Ipv4Addr::from(*data.get(12..)?.first_chunk::<4>()?).into(),
            dst: Ipv4Addr::from(*data.get(16..)?.first_chunk::<4>()?).into(),
            proto: *data.get(9)?,
            hop_limit: *data.get(8)?,
            len,
            payload: data.get(header_len..len)?,
        })
    }

    fn parse_v6(data: &'a [u8]) -> Option<Self> {
        if data.first()? >> 4 != 6 {
            return None;
        }
        let len = 40 + usize::from(be16(data, 4)?);
        Some(Packet {
            src: Ipv6Addr::from(*data.get(8..)?.first_chunk::<16>()?).into(),
            dst: Ipv6Addr::from(*data.get(24..)?.first_chunk::<16>()?).into(),
            proto: *data.get(6)?,
            hop_limit: *data.get(7)?,
            len,
            payload: data.get(40..len)?,
        })
    }

    /// Both ports of TCP and UDP.
    pub(crate) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((
            SocketAddr::new(self.src, be16(self.payload, 0)?),
            SocketAddr::new(self.dst, be16(self.payload, 2)?),
        ))
    }
}

pub(crate) fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

/// Writes the Ethernet header of a frame that has room for it.
pub(crate) fn set_ethernet(frame: &mut [u8], dst: Mac, src: Mac, kind: u16) {
    if let Some(header) = frame.first_chunk_mut::<ETHERNET_LEN>() {
        header[..6].copy_from_slice(&dst);
        header[6..12].copy_from_slice(&src);
        header[12..].copy_from_slice(&kind.to_be_bytes());
    }
}

/// An ARP packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arp {
    pub(crate) is_request: bool,
    pub(crate) sender_mac: Mac,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target: Ipv4Addr,
}

impl Arp {
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        // Ethernet, IPv4, their lengths.
        if data.get(..6)? != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        let operation = be16(data, 6)?;
        (1..=2).contains(&operation).then_some(())?;
        Some(Arp {
            is_request: operation == 1,
            sender_mac: *data.get(8..)?.first_chunk()?,
            sender: Ipv4Addr::from(*data.get(14..)?.first_chunk::<4>()?),
            target: Ipv4Addr::from(*data.get(24..)?.first_chunk::<4>()?),
        })
    }

    /// A frame: a request goes to all, a reply to `to`.
    pub(crate) fn frame(&self, to: Mac) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET_LEN];
        set_ethernet(&mut frame, to, self.sender_mac, ARP);
        frame.extend([0, 1, 8, 0, 6, 4, 0, if self.is_request { 1 } else { 2 }]);
        frame.extend(self.sender_mac);
        frame.extend(self.sender.octets());
        frame.extend(if self.is_request { [0; 6] } else { to });
        frame.extend(self.target.octets());
        frame
    }
}

/// A neighbour solicitation or advertisement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ndp {
    pub(crate) is_solicitation: bool,
    /// Of an advertisement: it replaces what is known.
    pub(crate) overrides: bool,
    pub(crate) target: Ipv6Addr,
    /// Link-layer address of the sender (solicitation) or of the target.
    pub(crate) mac: Option<Mac>,
}

impl Ndp {
    pub(crate) fn parse(packet: &Packet<'_>) -> Option<Self> {
        let p = packet.payload;
        let kind = *p.first()?;
        // RFC 4861 section 7.1: nothing that came through a router.
        if packet.hop_limit != 255 || !(135..=136).contains(&kind) {
            return None;
        }
        let mut ndp = Ndp {
            is_solicitation: kind == 135,
            overrides: p.get(4)? & 0x20 != 0,
            target: Ipv6Addr::from(*p.get(8..)?.first_chunk::<16>()?),
            mac: None,
        };
        let mut options = p.get(24..)?;
        while let [option, len, ..] = *options {
            let len = usize::from(len) * 8;
            if len == 0 {
                return None;
            }
            if option == if ndp.is_solicitation { 1 } else { 2 } {
                ndp.mac = Some(*options.get(2..)?.first_chunk()?);
            }
            options = options.get(len..)?;
        }
        Some(ndp)
    }

    /// A frame from `src` (with `own`) to `dst`.
    pub(crate) fn frame(&self, own: Mac, src: Ipv6Addr, to: Mac, dst: Ipv6Addr) -> Vec<u8> {
        let mut icmp = vec![if self.is_solicitation { 135 } else { 136 }, 0, 0, 0];
        // Solicited, override.
        icmp.extend([if self.is_solicitation { 0 } else { 0x60 }, 0, 0, 0]);
        icmp.extend(self.target.octets());
        icmp.extend([if self.is_solicitation { 1 } else { 2 }, 1]);
        icmp.extend(own);
        let check = !fold(pseudo(src.into(), dst.into(), ICMPV6, icmp.len()) + sum(&icmp));
        icmp[2..4].copy_from_slice(&check.to_be_bytes());
        let mut frame = ip_frame(src.into(), dst.into(), ICMPV6, 255, &icmp);
        set_ethernet(&mut frame, to, own, IPV6);
        frame
    }
}

/// The group that answers for an address (RFC 4291 section 2.7.1), and its link-layer address.
pub(crate) fn solicited_node(addr: Ipv6Addr) -> (Ipv6Addr, Mac) {
    let [.., a, b, c] = addr.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from(b) << 8 | u16::from(c),
    );
    (group, [0x33, 0x33, 0xff, a, b, c])
}

/// Asks for a neighbour, from an address of the same family: ARP, or neighbour discovery.
pub(crate) fn question(addr: IpAddr, from: IpAddr, mac: Mac) -> Option<Vec<u8>> {
    match (addr, from) {
        (IpAddr::V4(target), IpAddr::V4(sender)) => {
            let request = Arp {
                is_request: true,
                sender_mac: mac,
                sender,
                target,
            };
            Some(request.frame(BROADCAST))
        }
        (IpAddr::V6(target), IpAddr::V6(src)) => {
            let (group, to) = solicited_node(target);
            let solicitation = Ndp {
                is_solicitation: true,
                overrides: false,
                target,
                mac: Some(mac),
            };
            Some(solicitation.frame(mac, src, to, group))
        }
        _ => None,
    }
}

/// A frame, its Ethernet header left open, with an IP packet.
pub(crate) fn ip_frame(src: IpAddr, dst: IpAddr, proto: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let write = |frame: &mut Vec<u8>| frame.extend_from_slice(payload);
    ip_frame_with(src, dst, proto, hop_limit, payload.len(), write)
}

/// The same; `write` appends the payload, which has `len` bytes.
pub(crate) fn ip_frame_with(
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    hop_limit: u8,
    len: usize,
    write: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_LEN + if src.is_ipv4() { 20 } else { 40 } + len);
    frame.extend_from_slice(&[0; ETHERNET_LEN]);
    let payload_len = len as u16;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame.extend_from_slice(&[0x45, 0]);
            frame.extend_from_slice(&(20 + payload_len).to_be_bytes());
            // Do not fragment.
            frame.extend_from_slice(&[0, 0, 0x40, 0, hop_limit, proto, 0, 0]);
            frame.extend_from_slice(&src.octets());
            frame.extend_from_slice(&dst.octets());
            let check = !fold(sum(&frame[ETHERNET_LEN..]));
            frame[ETHERNET_LEN + 10..ETHERNET_LEN + 12].copy_from_slice(&check.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend_from_slice(&[0x60, 0, 0, 0]);
            frame.extend_from_slice(&payload_len.to_be_bytes());
            frame.extend_from_slice(&[proto, hop_limit]);
            frame.extend_from_slice(&src.octets());
            frame.extend_from_slice(&dst.octets());
        }
        _ => {}
    }
    write(&mut frame);
    frame
}

/// The checksum of a payload in which its own field is zero.
pub(super) fn checksum(src: IpAddr, dst: IpAddr, proto: u8, payload: &[u8]) -> u16 {
    !fold(pseudo(src, dst, proto, payload.len()) + sum(payload))
}

/// A frame, its Ethernet header left open, with a datagram of at most 65,000 bytes.
pub(crate) fn udp_frame(src: SocketAddr, dst: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut udp = Vec::with_capacity(8 + data.len());
    udp.extend(src.port().to_be_bytes());
    udp.extend(dst.port().to_be_bytes());
    udp.extend((8 + data.len() as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(data);
    let check = match !fold(pseudo(src.ip(), dst.ip(), UDP, udp.len()) + sum(&udp)) {
        0 => 0xffff,
        check => check,
    };
    udp[6..8].copy_from_slice(&u16::to_be_bytes(check));
    ip_frame(src.ip(), dst.ip(), UDP, 64, &udp)
}

/// A datagram in a frame, its checksums right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParsedUdp<'a> {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) data: &'a [u8],
}

impl<'a> ParsedUdp<'a> {
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        let packet = Packet::parse(be16(frame, 12)?, frame.get(ETHERNET_LEN..)?).ok()?;
        let len = usize::from(be16(packet.payload, 4)?);
        let (src, dst) = packet.ends()?;
        let data = packet.payload.get(8..len)?;
        (packet.proto == UDP).then_some(ParsedUdp { src, dst, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (src, dst) in [
            ("10.0.0.1:5", "10.0.0.2:7"),
            ("[2001:db8::1]:5", "[2001:db8::2]:7"),
        ] {
            let (src, dst): (SocketAddr, SocketAddr) = (src.parse().expect("ok"), dst.parse().expect("ok"));
            for len in [0, 1, 2, 3, 1000] {
                let mut frame = udp_frame(src, dst, &vec![0xa5; len]);
                let kind = if src.is_ipv4() { IPV4 } else { IPV6 };
                // Padding is no part of it.
                frame.extend([7; 3]);
                let packet = Packet::parse(kind, &frame[ETHERNET_LEN..]).expect("right");
                assert_eq!(packet.ends(), Some((src, dst)));
                assert_eq!(packet.payload.len(), 8 + len);
                for at in ETHERNET_LEN..ETHERNET_LEN + packet.len {
                    let mut bad = frame.clone();
                    bad[at] ^= 1;
                    // IPv6 has no checksum of class, label and hop limit; another protocol has none of its own here.
                    let free = src.is_ipv6() && matches!(at - ETHERNET_LEN, 0..=3 | 6 | 7);
                    assert_eq!(
                        Packet::parse(kind, &bad[ETHERNET_LEN..]).is_ok(),
                        free,
                        "byte {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn neighbour_messages_are_read_back() {
        let arp = Arp {
            is_request: true,
            sender_mac: [2; 6],
            sender: Ipv4Addr::new(10, 0, 0, 1),
            target: Ipv4Addr::new(10, 0, 0, 2),
        };
        let back = Arp::parse(&arp.frame(BROADCAST)[ETHERNET_LEN..]).expect("right");
        assert!(back.is_request && back.sender == arp.sender && back.target == arp.target);
        assert_eq!(back.sender_mac, [2; 6]);

        let target: Ipv6Addr = "2001:db8::12:3456".parse().expect("ok");
        let (group, mac) = solicited_node(target);
        assert_eq!(group.to_string(), "ff02::1:ff12:3456");
        let ns = Ndp {
            is_solicitation: true,
            overrides: false,
            target,
            mac: Some([2; 6]),
        };
        let frame = ns.frame([2; 6], "2001:db8::1".parse().expect("ok"), mac, group);
        let packet = Packet::parse(IPV6, &frame[ETHERNET_LEN..]).expect("right");
        let back = Ndp::parse(&packet).expect("right");
        assert!(back.is_solicitation && back.target == target && back.mac == Some([2; 6]));
    }
}
