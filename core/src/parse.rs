//! One pass over a frame: where its headers are, whose it is. Lengths are checked here, once.

use core::net::{IpAddr, SocketAddr};

use crate::conn::{narrow, wide};
use crate::hash::{Toeplitz, TupleHasher};
use crate::port::RxChecksum;
use crate::stats::DropReason;
use crate::tuple::{Family, L4Proto, Tuple};
use crate::wire::{EtherType, IpProto, WireError, ipv6ext};

/// Ethernet header.
pub(crate) const ETHERNET_LEN: usize = 14;
const VLAN_LEN: usize = 4;
/// VLAN tags followed at most: QinQ has two, some fabrics add one.
pub(crate) const VLAN_COUNT_MAX: usize = 3;
/// Longest link-layer header.
pub(crate) const L2_LEN_MAX: usize = ETHERNET_LEN + VLAN_COUNT_MAX * VLAN_LEN;
/// IPv4 header without options.
pub(crate) const IPV4_LEN: usize = 20;
/// IPv6 header without extensions.
pub(crate) const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const ICMP_LEN: usize = 8;

/// What a packet belongs to: its five-tuple as on the wire. IPv4 addresses stand as IPv4-mapped ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) family: Family,
    pub(crate) proto: u8,
    pub(crate) sport: [u8; 2],
    pub(crate) dport: [u8; 2],
    pub(crate) src: [u8; 16],
    pub(crate) dst: [u8; 16],
}

impl Key {
    const NONE: Key = Key {
        family: Family::V4,
        proto: 0,
        sport: [0; 2],
        dport: [0; 2],
        src: [0; 16],
        dst: [0; 16],
    };

    pub(crate) fn from_tuple(t: &Tuple) -> Self {
        Key {
            family: Family::of(&t.src.ip()),
            proto: t.proto.ip_proto(),
            sport: t.src.port().to_be_bytes(),
            dport: t.dst.port().to_be_bytes(),
            src: wide(t.src.ip()),
            dst: wide(t.dst.ip()),
        }
    }

    /// The tuple, if the protocol is one that is balanced.
    pub(crate) fn tuple(&self) -> Option<Tuple> {
        Some(Tuple {
            proto: L4Proto::from_ip_proto(self.proto)?,
            src: SocketAddr::new(self.src_addr(), u16::from_be_bytes(self.sport)),
            dst: SocketAddr::new(self.dst_addr(), u16::from_be_bytes(self.dport)),
        })
    }

    pub(crate) fn src_addr(&self) -> IpAddr {
        narrow(self.src, self.family)
    }

    pub(crate) fn dst_addr(&self) -> IpAddr {
        narrow(self.dst, self.family)
    }

    #[inline]
    pub(crate) fn src4(&self) -> [u8; 4] {
        last4(&self.src)
    }

    #[inline]
    pub(crate) fn dst4(&self) -> [u8; 4] {
        last4(&self.dst)
    }

    #[inline]
    pub(crate) fn hash(&self, hasher: &TupleHasher) -> u64 {
        let [s0, s1] = self.sport;
        let [d0, d1] = self.dport;
        let ports_proto = u64::from_le_bytes([s0, s1, d0, d1, self.proto, 0, 0, 0]);
        match self.family {
            Family::V4 => {
                let (s, d) = (self.src4(), self.dst4());
                hasher.hash_v4(
                    u64::from_le_bytes([s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]]),
                    ports_proto,
                )
            }
            Family::V6 => hasher.hash_v6(halves(&self.src), halves(&self.dst), ports_proto),
        }
    }

    /// Toeplitz hash of the four-tuple: the canonical bucket lies in its low bits.
    pub(crate) fn toeplitz(&self, toeplitz: &Toeplitz) -> u32 {
        let (addr_len, first) = match self.family {
            Family::V4 => (4, 12),
            Family::V6 => (16, 0),
        };
        toeplitz.hash_at(0, &self.src[first..])
            ^ toeplitz.hash_at(addr_len, &self.dst[first..])
            ^ toeplitz.hash_at(2 * addr_len, &self.sport)
            ^ toeplitz.hash_at(2 * addr_len + 2, &self.dport)
    }
}

#[inline]
pub(crate) fn last4(a: &[u8; 16]) -> [u8; 4] {
    [a[12], a[13], a[14], a[15]]
}

#[inline]
fn halves(a: &[u8; 16]) -> [u64; 2] {
    let n = u128::from_le_bytes(*a);
    [n as u64, (n >> 64) as u64]
}

/// What stands behind the link-layer and network headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp,
    Arp,
    /// Another protocol over IP.
    OtherIp,
    /// Not IP.
    OtherEther,
}

/// Where things are in a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parsed {
    pub(crate) kind: Kind,
    /// TCP flags; ICMP type.
    pub(crate) flags: u8,
    /// Time to live, or hop limit.
    pub(crate) ttl: u8,
    /// Offset of the network header: length of the link-layer header.
    pub(crate) l3: u16,
    /// Offset of the transport header.
    pub(crate) l4: u16,
    /// Offset behind the IP packet; what follows is padding.
    pub(crate) end: u32,
    pub(crate) key: Key,
}

impl Parsed {
    pub(crate) const NONE: Parsed = Parsed {
        kind: Kind::OtherEther,
        flags: 0,
        ttl: 0,
        l3: 0,
        l4: 0,
        end: 0,
        key: Key::NONE,
    };
}

/// TCP flags as bits of the 14th byte of the header.
pub(crate) mod tcp_flag {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
}

#[inline]
fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

/// Parses the contiguous head `data` of a frame of `len` bytes.
#[inline]
pub(crate) fn parse(data: &[u8], len: usize, checksum: RxChecksum) -> Result<Parsed, DropReason> {
    if checksum == RxChecksum::Bad {
        return Err(DropReason::BadChecksum);
    }
    let mut l3 = ETHERNET_LEN;
    let mut ethertype = EtherType(be16(data, l3 - 2).ok_or(DropReason::Truncated)?);
    while ethertype.is_vlan() {
        if l3 == L2_LEN_MAX {
            return Err(DropReason::TooManyHeaders);
        }
        l3 += VLAN_LEN;
        ethertype = EtherType(be16(data, l3 - 2).ok_or(DropReason::Truncated)?);
    }
    let mut parsed = Parsed {
        l3: l3 as u16,
        ..Parsed::NONE
    };
    match ethertype {
        EtherType::IPV4 => parse_v4(data, len, l3, checksum, &mut parsed)?,
        EtherType::IPV6 => parse_v6(data, len, l3, &mut parsed)?,
        EtherType::ARP => parsed.kind = Kind::Arp,
        _ => parsed.kind = Kind::OtherEther,
    }
    Ok(parsed)
}

/// What is missing: the rest of the frame, or the rest of its contiguous head.
#[cold]
fn cut(data: &[u8], len: usize) -> DropReason {
    if data.len() < len {
        DropReason::TooManyHeaders
    } else {
        DropReason::Truncated
    }
}

#[inline]
fn parse_v4(
    data: &[u8],
    len: usize,
    l3: usize,
    checksum: RxChecksum,
    parsed: &mut Parsed,
) -> Result<(), DropReason> {
    let header: &[u8; IPV4_LEN] = data
        .get(l3..)
        .and_then(|h| h.first_chunk())
        .ok_or_else(|| cut(data, len))?;
    if header[0] >> 4 != 4 {
        return Err(DropReason::BadVersion);
    }
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_len < IPV4_LEN || total_len < header_len {
        return Err(DropReason::BadLength);
    }
    if l3 + total_len > len {
        return Err(DropReason::Truncated);
    }
    let l4 = l3 + header_len;
    let whole = data.get(l3..l4).ok_or_else(|| cut(data, len))?;
    if checksum == RxChecksum::Unknown && !ipv4_checksum_is_right(whole) {
        return Err(DropReason::BadChecksum);
    }
    if header_len > IPV4_LEN && has_source_route(&whole[IPV4_LEN..]) {
        return Err(DropReason::SourceRoute);
    }
    // More fragments, or an offset. The reserved bit and "don't fragment" say nothing of the kind.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(DropReason::Fragment);
    }
    parsed.l4 = l4 as u16;
    parsed.end = (l3 + total_len) as u32;
    parsed.ttl = header[8];
    let mapped = |at: usize| {
        let mut a = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
        a[12..].copy_from_slice(&header[at..at + 4]);
        a
    };
    parsed.key.family = Family::V4;
    parsed.key.proto = header[9];
    parsed.key.src = mapped(12);
    parsed.key.dst = mapped(16);
    parse_l4(data, len, IpProto(header[9]), parsed)
}

/// The checksum of an IPv4 header whose length is a multiple of four.
#[inline]
fn ipv4_checksum_is_right(header: &[u8]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words.iter().map(|w| u64::from(u32::from_ne_bytes(*w))).sum();
    // Fold to 16 bits; byte order does not matter to a sum of ones' complement.
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum == 0xffff
}

/// Whether loose or strict source routing stands among the options (RFC 791, 3.1).
fn has_source_route(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LSRR: u8 = 131;
    const SSRR: u8 = 137;
    loop {
        match options {
            [] | [END, ..] => return false,
            [NOP, rest @ ..] => options = rest,
            [LSRR | SSRR, ..] => return true,
            [_, n, ..] if usize::from(*n) >= 2 && usize::from(*n) <= options.len() => {
                options = &options[usize::from(*n)..]
            }
            // An option that does not fit: nothing behind it can be read.
            _ => return false,
        }
    }
}

#[inline]
fn parse_v6(data: &[u8], len: usize, l3: usize, parsed: &mut Parsed) -> Result<(), DropReason> {
    let header: &[u8; IPV6_LEN] = data
        .get(l3..)
        .and_then(|h| h.first_chunk())
        .ok_or_else(|| cut(data, len))?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::BadVersion);
    }
    let end = l3 + IPV6_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if end > len {
        return Err(DropReason::Truncated);
    }
    parsed.end = end as u32;
    parsed.ttl = header[7];
    parsed.key.family = Family::V6;
    parsed.key.src.copy_from_slice(&header[8..24]);
    parsed.key.dst.copy_from_slice(&header[24..40]);
    let mut proto = IpProto(header[6]);
    let mut l4 = l3 + IPV6_LEN;
    if !matches!(proto, IpProto::TCP | IpProto::UDP | IpProto::ICMPV6) {
        (proto, l4) = upper_layer(data, len, l3, end, proto)?;
    }
    parsed.l4 = l4 as u16;
    parsed.key.proto = proto.0;
    parse_l4(data, len, proto, parsed)
}

#[inline]
fn parse_l4(data: &[u8], len: usize, proto: IpProto, parsed: &mut Parsed) -> Result<(), DropReason> {
    let l4 = usize::from(parsed.l4);
    let end = parsed.end as usize;
    // The fixed header lies in the packet, and in the head.
    let header = |n: usize| -> Result<&[u8], DropReason> {
        if l4 + n > end {
            return Err(DropReason::BadLength);
        }
        data.get(l4..l4 + n).ok_or_else(|| cut(data, len))
    };
    match (proto, parsed.key.family) {
        (IpProto::TCP, _) => {
            let h = header(TCP_LEN)?;
            let header_len = usize::from(h[12] >> 4) * 4;
            if header_len < TCP_LEN {
                return Err(DropReason::BadLength);
            }
            header(header_len)?;
            parsed.kind = Kind::Tcp;
            parsed.flags = h[13];
            parsed.key.sport = [h[0], h[1]];
            parsed.key.dport = [h[2], h[3]];
        }
        (IpProto::UDP, family) => {
            let h = header(UDP_LEN)?;
            let udp_len = usize::from(u16::from_be_bytes([h[4], h[5]]));
            if udp_len < UDP_LEN || l4 + udp_len > end {
                return Err(DropReason::BadLength);
            }
            if family == Family::V6 && (h[6], h[7]) == (0, 0) {
                return Err(DropReason::UdpZeroChecksum);
            }
            parsed.kind = Kind::Udp;
            parsed.key.sport = [h[0], h[1]];
            parsed.key.dport = [h[2], h[3]];
        }
        (IpProto::ICMP, Family::V4) | (IpProto::ICMPV6, Family::V6) => {
            parsed.flags = header(ICMP_LEN)?[0];
            parsed.kind = Kind::Icmp;
        }
        _ => parsed.kind = Kind::OtherIp,
    }
    Ok(())
}

/// Steps over extension headers: the upper protocol and its offset.
#[cold]
fn upper_layer(
    data: &[u8],
    len: usize,
    l3: usize,
    end: usize,
    first: IpProto,
) -> Result<(IpProto, usize), DropReason> {
    let start = l3 + IPV6_LEN;
    let payload = data.get(start..end.min(data.len())).unwrap_or_default();
    let upper = ipv6ext::walk(payload, first).map_err(|e| match e {
        WireError::Truncated if data.len() < end.min(len) => DropReason::TooManyHeaders,
        WireError::Truncated | WireError::BadValue => DropReason::BadLength,
        WireError::TooManyHeaders => DropReason::TooManyHeaders,
        _ => DropReason::BadLength,
    })?;
    if upper.is_fragment() {
        return Err(DropReason::Fragment);
    }
    if upper.routing_segments_left {
        return Err(DropReason::SourceRoute);
    }
    Ok((upper.proto, start + upper.offset))
}
