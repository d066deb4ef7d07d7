//! One pass over a frame: where its headers are, whose it is. Lengths are checked here, once.

use core::net::{IpAddr, SocketAddr};

use crate::conn::{narrow, wide};
use crate::hash::{Toeplitz, TupleHasher};
use crate::port::{HEAD_LEN, RxChecksum};
use crate::stats::DropReason;
use crate::tuple::{Family, L4Proto, Tuple};
use crate::wire::{EtherType, IpProto, WireError, checksum, ipv6ext};

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
/// TCP header without options.
pub(crate) const TCP_LEN: usize = 20;
/// UDP header.
pub(crate) const UDP_LEN: usize = 8;
const ICMP_LEN: usize = 8;

/// What a packet belongs to: its five-tuple, as the packet carries it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) family: Family,
    pub(crate) proto: u8,
    /// Source and destination.
    pub(crate) ports: [u8; 4],
    /// Source and destination: 8 bytes in IPv4, whatever stands behind them, and all 32 in IPv6.
    addrs: [u8; 32],
}

impl Key {
    const NONE: Key = Key {
        family: Family::V4,
        proto: 0,
        ports: [0; 4],
        addrs: [0; 32],
    };

    #[inline]
    pub(crate) fn from_tuple(t: &Tuple) -> Self {
        let (proto, ports) = (t.proto.ip_proto(), ports(t.src.port(), t.dst.port()));
        match (t.src.ip(), t.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let ([a, b, c, d], [e, f, g, h]) = (src.octets(), dst.octets());
                Key::v4(proto, [a, b, c, d, e, f, g, h], ports)
            }
            // No packet has ends of two families, nor has any conn.
            (IpAddr::V4(_), IpAddr::V6(_)) => {
                Key::v4(proto, narrowed(joined(wide(t.src.ip()), wide(t.dst.ip()))), ports)
            }
            _ => Key::v6(proto, joined(wide(t.src.ip()), wide(t.dst.ip())), ports),
        }
    }

    /// Of an IPv4 packet, from addresses and ports as it carries them.
    #[inline]
    pub(crate) fn v4(proto: u8, addrs: [u8; 8], ports: [u8; 4]) -> Self {
        let mut key = Key {
            proto,
            ports,
            ..Key::NONE
        };
        key.set_v4(addrs);
        key
    }

    /// Of an IPv6 packet, from addresses and ports as it carries them.
    #[inline]
    pub(crate) fn v6(proto: u8, addrs: [u8; 32], ports: [u8; 4]) -> Self {
        Key {
            family: Family::V6,
            proto,
            ports,
            addrs,
        }
    }

    #[inline]
    fn set_v4(&mut self, addrs: [u8; 8]) {
        self.family = Family::V4;
        if let Some(first) = self.addrs.first_chunk_mut() {
            *first = addrs;
        }
    }

    #[inline]
    fn set_v6(&mut self, addrs: &[u8; 32]) {
        self.family = Family::V6;
        self.addrs = *addrs;
    }

    /// Both addresses of an IPv4 packet.
    #[inline]
    pub(crate) fn addrs_v4(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.addrs;
        [a, b, c, d, e, f, g, h]
    }

    /// Both addresses; those of IPv4 as IPv4-mapped ones.
    #[inline]
    pub(crate) fn addrs_wide(&self) -> [u8; 32] {
        match self.family {
            Family::V4 => widened(self.addrs_v4()),
            Family::V6 => self.addrs,
        }
    }

    /// The tuple, if the protocol is one that is balanced.
    pub(crate) fn tuple(&self) -> Option<Tuple> {
        let [s0, s1, d0, d1] = self.ports;
        Some(Tuple {
            proto: L4Proto::from_ip_proto(self.proto)?,
            src: SocketAddr::new(self.src_addr(), u16::from_be_bytes([s0, s1])),
            dst: SocketAddr::new(self.dst_addr(), u16::from_be_bytes([d0, d1])),
        })
    }

    pub(crate) fn src_addr(&self) -> IpAddr {
        narrow(split(self.addrs_wide()).0, self.family)
    }

    pub(crate) fn dst_addr(&self) -> IpAddr {
        narrow(split(self.addrs_wide()).1, self.family)
    }

    #[inline]
    pub(crate) fn hash(&self, hasher: &TupleHasher) -> u64 {
        let ports_proto = u64::from(u32::from_le_bytes(self.ports)) | u64::from(self.proto) << 32;
        match self.family {
            Family::V4 => hasher.hash_v4(u64::from_le_bytes(self.addrs_v4()), ports_proto),
            Family::V6 => {
                let (src, dst) = split(self.addrs);
                hasher.hash_v6(halves(&src), halves(&dst), ports_proto)
            }
        }
    }

    /// Toeplitz hash of the four-tuple: the canonical bucket lies in its low bits.
    pub(crate) fn toeplitz(&self, toeplitz: &Toeplitz) -> u32 {
        let addrs_len = match self.family {
            Family::V4 => 8,
            Family::V6 => 32,
        };
        toeplitz.hash_at(0, &self.addrs[..addrs_len]) ^ toeplitz.hash_at(addrs_len, &self.ports)
    }
}

/// Source and destination port in one run.
pub(crate) fn ports(src: u16, dst: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (src.to_be_bytes(), dst.to_be_bytes());
    [a, b, c, d]
}

/// Two addresses in one run.
#[inline]
pub(crate) fn joined(src: [u8; 16], dst: [u8; 16]) -> [u8; 32] {
    let mut both = [0; 32];
    both[..16].copy_from_slice(&src);
    both[16..].copy_from_slice(&dst);
    both
}

/// The reverse of [`joined`].
#[inline]
pub(crate) fn split(both: [u8; 32]) -> ([u8; 16], [u8; 16]) {
    let (mut src, mut dst) = ([0; 16], [0; 16]);
    src.copy_from_slice(&both[..16]);
    dst.copy_from_slice(&both[16..]);
    (src, dst)
}

/// Two IPv4 addresses as IPv4-mapped ones.
#[inline]
pub(crate) fn widened([a, b, c, d, e, f, g, h]: [u8; 8]) -> [u8; 32] {
    let mapped = |a, b, c, d| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    joined(mapped(a, b, c, d), mapped(e, f, g, h))
}

/// The reverse of [`widened`].
#[inline]
pub(crate) fn narrowed(wide: [u8; 32]) -> [u8; 8] {
    [
        wide[12], wide[13], wide[14], wide[15], wide[28], wide[29], wide[30], wide[31],
    ]
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

/// The flags that decide what a segment is.
#[inline]
pub(crate) const fn main_flags(flags: u8) -> u8 {
    flags & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST | tcp_flag::FIN)
}

/// Whether a segment is neither malformed nor the beginning or the end of anything.
#[inline]
pub(crate) const fn is_plain_segment(flags: u8) -> bool {
    main_flags(flags) == tcp_flag::ACK
}

#[inline]
fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

/// Parses the contiguous head `data` of a frame of `len` bytes into `parsed`, of which everything is written
/// that its kind gives a meaning.
#[inline]
pub(crate) fn parse(
    data: &[u8],
    len: usize,
    rx_checksum: RxChecksum,
    parsed: &mut Parsed,
) -> Result<(), DropReason> {
    if rx_checksum == RxChecksum::Bad {
        return Err(DropReason::BadChecksum);
    }
    // Headers lie in the part that every driver shows, or are too long for all of them alike.
    let data = data.get(..HEAD_LEN).unwrap_or(data);
    // Most frames have no tag: with that known, offsets and bounds are constants.
    match EtherType(be16(data, ETHERNET_LEN - 2).ok_or(DropReason::Truncated)?) {
        EtherType::IPV4 => parse_v4(data, len, ETHERNET_LEN, rx_checksum, parsed),
        EtherType::IPV6 => parse_v6(data, len, ETHERNET_LEN, parsed),
        other => parse_other(data, len, other, rx_checksum, parsed),
    }
}

/// The rest of [`parse`]: tagged frames, and what is not IP.
#[inline(never)]
fn parse_other(
    data: &[u8],
    len: usize,
    mut ethertype: EtherType,
    rx_checksum: RxChecksum,
    parsed: &mut Parsed,
) -> Result<(), DropReason> {
    let mut l3 = ETHERNET_LEN;
    while ethertype.is_vlan() {
        if l3 == L2_LEN_MAX {
            return Err(DropReason::TooManyHeaders);
        }
        l3 += VLAN_LEN;
        ethertype = EtherType(be16(data, l3 - 2).ok_or(DropReason::Truncated)?);
    }
    parsed.l3 = l3 as u16;
    match ethertype {
        EtherType::IPV4 => return parse_v4(data, len, l3, rx_checksum, parsed),
        EtherType::IPV6 => return parse_v6(data, len, l3, parsed),
        EtherType::ARP => parsed.kind = Kind::Arp,
        _ => parsed.kind = Kind::OtherEther,
    }
    Ok(())
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

#[inline(always)]
fn parse_v4(
    data: &[u8],
    len: usize,
    l3: usize,
    rx_checksum: RxChecksum,
    parsed: &mut Parsed,
) -> Result<(), DropReason> {
    let header: &[u8; IPV4_LEN] = data
        .get(l3..)
        .and_then(|h| h.first_chunk())
        .ok_or_else(|| cut(data, len))?;
    // Version 4, five words: no options, and the offset of what follows is a constant.
    if header[0] == 0x45 {
        return parse_v4_of(data, len, l3, header, IPV4_LEN, rx_checksum, parsed);
    }
    if header[0] >> 4 != 4 {
        return Err(DropReason::BadVersion);
    }
    parse_v4_far(
        data,
        len,
        l3,
        header,
        usize::from(header[0] & 0x0f) * 4,
        rx_checksum,
        parsed,
    )
}

/// [`parse_v4_of`] for a header with options.
#[cold]
fn parse_v4_far(
    data: &[u8],
    len: usize,
    l3: usize,
    header: &[u8; IPV4_LEN],
    header_len: usize,
    rx_checksum: RxChecksum,
    parsed: &mut Parsed,
) -> Result<(), DropReason> {
    parse_v4_of(data, len, l3, header, header_len, rx_checksum, parsed)
}

/// The rest of [`parse_v4`], given the length of the header.
#[inline(always)]
fn parse_v4_of(
    data: &[u8],
    len: usize,
    l3: usize,
    header: &[u8; IPV4_LEN],
    header_len: usize,
    rx_checksum: RxChecksum,
    parsed: &mut Parsed,
) -> Result<(), DropReason> {
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_len < IPV4_LEN || total_len < header_len {
        return Err(DropReason::BadLength);
    }
    let end = l3 + total_len;
    if end > len {
        return Err(DropReason::Truncated);
    }
    let options = data
        .get(l3 + IPV4_LEN..l3 + header_len)
        .ok_or_else(|| cut(data, len))?;
    if rx_checksum == RxChecksum::Unknown && !ipv4_checksum_is_right(header, options) {
        return Err(DropReason::BadChecksum);
    }
    if has_source_route(options) {
        return Err(DropReason::SourceRoute);
    }
    // More fragments, or an offset. The reserved bit and "don't fragment" say nothing of the kind.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(DropReason::Fragment);
    }
    let [.., a, b, c, d, e, f, g, h] = *header;
    parsed.key.set_v4([a, b, c, d, e, f, g, h]);
    parsed.ttl = header[8];
    parse_l4(
        data,
        len,
        IpProto(header[9]),
        Family::V4,
        l3,
        l3 + header_len,
        end,
        parsed,
    )
}

/// The checksum of an IPv4 header with its options, whose length is a multiple of four.
#[inline]
fn ipv4_checksum_is_right(header: &[u8; IPV4_LEN], options: &[u8]) -> bool {
    let word = |w: &[u8; 4]| u64::from(u32::from_ne_bytes(*w));
    // Byte order does not matter to a sum of ones' complement. Both addresses are read as one word here, as
    // everywhere: read as two they would be stored as two, and a read as one would have to wait for both.
    let [a, b, c, d, e, f, g, h, i, j, k, l, addrs @ ..] = *header;
    let (first, addrs) = (
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes(addrs),
    );
    let halves = |w: u64| (w >> 32) + (w & 0xffff_ffff);
    let mut sum = halves(first) + word(&[i, j, k, l]) + halves(addrs);
    if !options.is_empty() {
        sum += options.as_chunks().0.iter().map(word).sum::<u64>();
    }
    checksum::fold_u64(sum) == 0xffff
}

/// Whether loose or strict source routing stands among the options (RFC 791, 3.1).
#[inline]
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

#[inline(always)]
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
    parsed.ttl = header[7];
    let (_, addrs) = header.split_last_chunk().ok_or(DropReason::Truncated)?;
    parsed.key.set_v6(addrs);
    match IpProto(header[6]) {
        proto @ (IpProto::TCP | IpProto::UDP | IpProto::ICMPV6) => {
            parse_l4(data, len, proto, Family::V6, l3, l3 + IPV6_LEN, end, parsed)
        }
        other => {
            let (proto, l4) = upper_layer(data, len, l3, end, other)?;
            parse_l4_far(data, len, proto, Family::V6, l3, l4, end, parsed)
        }
    }
}

/// [`parse_l4`] behind options or extension headers.
#[cold]
#[expect(clippy::too_many_arguments, reason = "as parse_l4")]
fn parse_l4_far(
    data: &[u8],
    len: usize,
    proto: IpProto,
    family: Family,
    l3: usize,
    l4: usize,
    end: usize,
    parsed: &mut Parsed,
) -> Result<(), DropReason> {
    parse_l4(data, len, proto, family, l3, l4, end, parsed)
}

#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "values, not fields of `parsed`: they are constants where it matters"
)]
fn parse_l4(
    data: &[u8],
    len: usize,
    proto: IpProto,
    family: Family,
    l3: usize,
    l4: usize,
    end: usize,
    parsed: &mut Parsed,
) -> Result<(), DropReason> {
    parsed.l3 = l3 as u16;
    parsed.l4 = l4 as u16;
    parsed.end = end as u32;
    parsed.key.proto = proto.0;
    // The fixed header lies in the packet, and in the head.
    let header = |n: usize| -> Result<&[u8], DropReason> {
        if l4 + n > end {
            return Err(DropReason::BadLength);
        }
        data.get(l4..l4 + n).ok_or_else(|| cut(data, len))
    };
    match (proto, family) {
        (IpProto::TCP, _) => {
            let h = header(TCP_LEN)?;
            let header_len = usize::from(h[12] >> 4) * 4;
            if header_len < TCP_LEN {
                return Err(DropReason::BadLength);
            }
            if header_len > TCP_LEN {
                header(header_len)?;
            }
            parsed.kind = Kind::Tcp;
            parsed.flags = h[13];
            parsed.key.ports = [h[0], h[1], h[2], h[3]];
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
            parsed.key.ports = [h[0], h[1], h[2], h[3]];
        }
        (IpProto::ICMP, Family::V4) | (IpProto::ICMPV6, Family::V6) => {
            parsed.flags = header(ICMP_LEN)?[0];
            parsed.key.ports = [0; 4];
            parsed.kind = Kind::Icmp;
        }
        _ => {
            parsed.key.ports = [0; 4];
            parsed.kind = Kind::OtherIp;
        }
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
    if upper.authenticated {
        // As in IPv4, where AH is a protocol of its own that is not balanced.
        return Ok((IpProto::AH, start));
    }
    Ok((upper.proto, start + upper.offset))
}
