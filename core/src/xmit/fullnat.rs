//! FullNAT: both addresses and both ports are replaced, within a family or across (NAT64, RFC 7915).

use core::net::{IpAddr, Ipv4Addr};

use super::{Egress, SeqShift};
use crate::conn::narrow;
use crate::parse::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, Kind, L2_LEN_MAX, Parsed, split};
use crate::planted::{self, Bug};
use crate::port::Frame;
use crate::stats::DropReason;
use crate::tuple::Family;
use crate::wire::checksum;
use crate::wire::{Delta, EtherType, IpProto};

/// What the tuple of a packet becomes that goes from IPv4 to IPv4: source and destination, as on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target4 {
    addrs: [u8; 8],
    ports: [u8; 4],
}

impl Target4 {
    /// The reverse of what a packet of the other direction carries.
    #[inline]
    pub(crate) fn reverse_of(addrs: [u8; 8], ports: [u8; 4]) -> Self {
        let addrs = u64::from_ne_bytes(addrs).rotate_left(32).to_ne_bytes();
        Target4 {
            addrs,
            ports: reversed(ports),
        }
    }

    /// Where the packet goes.
    #[inline]
    pub(crate) fn dst(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = self.addrs;
        Ipv4Addr::new(a, b, c, d)
    }
}

/// As [`Target4`] where IPv6 is on a side. IPv4 addresses stand as IPv4-mapped ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target6 {
    family: Family,
    src: [u8; 16],
    dst: [u8; 16],
    ports: [u8; 4],
}

impl Target6 {
    /// The reverse of what a packet of the other direction, which is of `family`, carries.
    #[inline]
    pub(crate) fn reverse_of(family: Family, addrs: [u8; 32], ports: [u8; 4]) -> Self {
        let (dst, src) = split(addrs);
        Target6 {
            family,
            src,
            dst,
            ports: reversed(ports),
        }
    }

    /// Where the packet goes.
    #[inline]
    pub(crate) fn dst(&self) -> IpAddr {
        narrow(self.dst, self.family)
    }
}

#[inline]
fn reversed(ports: [u8; 4]) -> [u8; 4] {
    u32::from_ne_bytes(ports).rotate_left(16).to_ne_bytes()
}

/// Rewrites a TCP or UDP packet over IPv4, with the time to live that is left after this hop. The frame is
/// untouched if it fails.
#[inline(always)]
pub(crate) fn rewrite_v4<F: Frame>(
    frame: &mut F,
    parsed: &Parsed,
    to: &Target4,
    shift: Option<SeqShift>,
    out: &Egress,
) -> Result<(), DropReason> {
    may_pass(parsed, out)?;
    let data = frame.data_mut();
    edit_v4(data, parsed, to, shift, out)?;
    cut_padding(frame, parsed);
    Ok(())
}

#[inline]
fn edit_v4(
    data: &mut [u8],
    parsed: &Parsed,
    to: &Target4,
    shift: Option<SeqShift>,
    out: &Egress,
) -> Result<(), DropReason> {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let ip: &mut [u8; IPV4_LEN] = data
        .get_mut(l3..)
        .and_then(|d| d.first_chunk_mut())
        .ok_or(DropReason::Truncated)?;
    let addrs = Delta::ZERO.replace_bytes8(parsed.key.addrs_v4(), to.addrs);
    let ttl_proto = u16::from_be_bytes([ip[8], ip[9]]);
    let header = addrs.replace_u16(ttl_proto, ttl_proto - 0x0100);
    ip[8] -= 1;
    let sum = header.apply(u16::from_be_bytes([ip[10], ip[11]]));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip[12..].copy_from_slice(&to.addrs);
    transport(data, l4, parsed, to.ports, shift, addrs)?;
    write_macs(data, out);
    Ok(())
}

/// As [`rewrite_v4`] where IPv6 is on a side.
#[inline]
pub(crate) fn rewrite_v6<F: Frame>(
    frame: &mut F,
    parsed: &Parsed,
    to: &Target6,
    shift: Option<SeqShift>,
    out: &Egress,
) -> Result<(), DropReason> {
    if to.family != parsed.key.family {
        return across(frame, parsed, to, shift, out);
    }
    may_pass(parsed, out)?;
    let data = frame.data_mut();
    let ip: &mut [u8; IPV6_LEN] = data
        .get_mut(usize::from(parsed.l3)..)
        .and_then(|d| d.first_chunk_mut())
        .ok_or(DropReason::Truncated)?;
    ip[7] -= 1;
    ip[8..24].copy_from_slice(&to.src);
    ip[24..].copy_from_slice(&to.dst);
    let (src, dst) = split(parsed.key.addrs_wide());
    let addrs = Delta::ZERO
        .replace_bytes16(src, to.src)
        .replace_bytes16(dst, to.dst);
    transport(data, usize::from(parsed.l4), parsed, to.ports, shift, addrs)?;
    write_macs(data, out);
    cut_padding(frame, parsed);
    Ok(())
}

/// Whether the packet has a hop left, and is not too long for the way out if it keeps its length.
#[inline(always)]
fn may_pass(parsed: &Parsed, out: &Egress) -> Result<(), DropReason> {
    if parsed.ttl <= 1 {
        return Err(DropReason::TtlExpired);
    }
    if parsed.end - u32::from(parsed.l3) > out.mtu {
        return Err(DropReason::TooBig);
    }
    Ok(())
}

/// The length of what is sent is that of its packet.
#[inline]
fn cut_padding<F: Frame>(frame: &mut F, parsed: &Parsed) {
    let end = parsed.end as usize;
    if frame.len() > end {
        frame.truncate(end);
    }
}

#[inline]
fn write_macs(data: &mut [u8], out: &Egress) {
    if let Some(macs) = data.first_chunk_mut() {
        *macs = out.macs;
    }
}

/// Ports, sequence numbers and checksum of the transport header at `l4`; `delta` is what the addresses change.
#[inline(always)]
fn transport(
    data: &mut [u8],
    l4: usize,
    parsed: &Parsed,
    ports: [u8; 4],
    shift: Option<SeqShift>,
    delta: Delta,
) -> Result<(), DropReason> {
    let segment = data.get_mut(l4..).ok_or(DropReason::Truncated)?;
    let mut delta = match planted::has(Bug::Checksum) {
        true => delta,
        false => delta.replace_bytes4(parsed.key.ports, ports),
    };
    match parsed.kind {
        Kind::Tcp => {
            if let Some(shift) = shift {
                delta = shift.apply(segment, delta);
            }
            let tcp: &mut [u8; 20] = segment.first_chunk_mut().ok_or(DropReason::Truncated)?;
            tcp[..4].copy_from_slice(&ports);
            let sum = delta.apply(u16::from_be_bytes([tcp[16], tcp[17]]));
            tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {
            let udp: &mut [u8; 8] = segment.first_chunk_mut().ok_or(DropReason::Truncated)?;
            udp[..4].copy_from_slice(&ports);
            let sum = delta.apply_udp(u16::from_be_bytes([udp[6], udp[7]]));
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
        }
    }
    Ok(())
}

/// From one family into the other: a new network header in place of the old one, which is all that
/// RFC 7915 translates of a TCP or UDP packet that is no fragment. Options and extension headers stay behind.
#[cold]
fn across<F: Frame>(
    frame: &mut F,
    parsed: &Parsed,
    to: &Target6,
    shift: Option<SeqShift>,
    out: &Egress,
) -> Result<(), DropReason> {
    if parsed.ttl <= 1 {
        return Err(DropReason::TtlExpired);
    }
    let (l3, l4, end) = (
        usize::from(parsed.l3),
        usize::from(parsed.l4),
        parsed.end as usize,
    );
    let payload_len = end - l4;
    let header_len = match to.family {
        Family::V4 => IPV4_LEN,
        Family::V6 => IPV6_LEN,
    };
    let packet_len = header_len + payload_len;
    // IPv6's length field does not count its own header.
    let field_max = if to.family == Family::V4 {
        65_535
    } else {
        65_535 + IPV6_LEN
    };
    if packet_len > field_max || packet_len as u32 > out.mtu {
        return Err(DropReason::TooBig);
    }
    let whole = frame.data().len() >= end;
    let l2: [u8; L2_LEN_MAX] = {
        let mut copy = [0; L2_LEN_MAX];
        let head = frame.data().get(..l3).ok_or(DropReason::Truncated)?;
        copy.get_mut(..l3)
            .ok_or(DropReason::TooManyHeaders)?
            .copy_from_slice(head);
        copy
    };
    let (class, dont_fragment) = class_and_df(frame.data(), parsed)?;
    let udp_without_checksum =
        parsed.kind == Kind::Udp && frame.data().get(l4 + 6..l4 + 8).ok_or(DropReason::Truncated)? == [0, 0];
    // A driver sums up all that follows: there must be nothing behind the datagram.
    let offload = udp_without_checksum && !whole;
    if offload && !(frame.can_offload_tx_checksum() && udp_len(&frame.data()[l4..]) == payload_len) {
        return Err(DropReason::UdpZeroChecksum);
    }

    // Room for the new header, in front of the transport header.
    let old_head = l4;
    let new_head = l3 + header_len;
    let moved = if new_head > old_head {
        frame
            .push_front(new_head - old_head)
            .ok_or(DropReason::NoHeadroom)?;
        new_head - old_head
    } else {
        0
    };
    if moved == 0 {
        frame.pull_front(old_head - new_head);
    }
    frame.truncate(new_head + payload_len);

    let data = frame.data_mut();
    data[..l3].copy_from_slice(&l2[..l3]);
    let ethertype = if to.family == Family::V4 {
        EtherType::IPV4
    } else {
        EtherType::IPV6
    };
    data[l3 - 2..l3].copy_from_slice(&ethertype.0.to_be_bytes());
    let (src, dst) = split(parsed.key.addrs_wide());
    let addrs = match to.family {
        Family::V4 => Delta::ZERO
            .remove(checksum::sum(&src))
            .remove(checksum::sum(&dst))
            .add(checksum::sum(&to.src[12..]))
            .add(checksum::sum(&to.dst[12..])),
        Family::V6 => Delta::ZERO
            .remove(checksum::sum(&src[12..]))
            .remove(checksum::sum(&dst[12..]))
            .add(checksum::sum(&to.src))
            .add(checksum::sum(&to.dst)),
    };
    transport(data, new_head, parsed, to.ports, shift, addrs)?;
    match to.family {
        Family::V4 => emit_v4(&mut data[l3..], packet_len, class, dont_fragment, parsed, to),
        Family::V6 => {
            emit_v6(&mut data[l3..], payload_len, class, parsed, to);
            // IPv6 has no UDP without checksum (RFC 7915, 4.5): make one over the whole datagram.
            if offload {
                begin_udp_v6(&mut data[new_head..], to);
            } else if udp_without_checksum {
                fill_udp_v6(&mut data[new_head..], to);
            }
        }
    }
    write_macs(data, out);
    if offload {
        frame.offload_tx_checksum(l3, new_head);
    }
    Ok(())
}

/// Traffic class, and for IPv4 whether "don't fragment" is set.
fn class_and_df(data: &[u8], parsed: &Parsed) -> Result<(u8, bool), DropReason> {
    let ip = data
        .get(usize::from(parsed.l3)..)
        .and_then(|d| d.first_chunk::<IPV4_LEN>())
        .ok_or(DropReason::Truncated)?;
    Ok(match parsed.key.family {
        Family::V4 => (ip[1], ip[6] & 0x40 != 0),
        Family::V6 => (ip[0] << 4 | ip[1] >> 4, true),
    })
}

/// IPv6 minimum MTU less the headers that translation adds: a packet up to here may be fragmented on its
/// way (RFC 7915, 5.1).
const FRAGMENTABLE_LEN_MAX: usize = 1260;

fn emit_v4(ip: &mut [u8], packet_len: usize, class: u8, dont_fragment: bool, parsed: &Parsed, to: &Target6) {
    let df = dont_fragment && packet_len > FRAGMENTABLE_LEN_MAX;
    // The identification of a packet that may be fragmented comes from the packet itself, so that every
    // replica makes the same bytes of it: its transport checksum.
    let id = if df {
        0
    } else {
        let at = IPV4_LEN + if parsed.kind == Kind::Tcp { 16 } else { 6 };
        u16::from_be_bytes([ip[at], ip[at + 1]])
    };
    ip[0] = 0x45;
    ip[1] = class;
    ip[2..4].copy_from_slice(&(packet_len as u16).to_be_bytes());
    ip[4..6].copy_from_slice(&id.to_be_bytes());
    ip[6..8].copy_from_slice(&[if df { 0x40 } else { 0 }, 0]);
    ip[8] = parsed.ttl - 1;
    ip[9] = parsed.key.proto;
    ip[10..12].copy_from_slice(&[0, 0]);
    ip[12..16].copy_from_slice(&to.src[12..]);
    ip[16..20].copy_from_slice(&to.dst[12..]);
    let sum = checksum::finish(checksum::sum(&ip[..IPV4_LEN]));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn emit_v6(ip: &mut [u8], payload_len: usize, class: u8, parsed: &Parsed, to: &Target6) {
    ip[..4].copy_from_slice(&[0x60 | class >> 4, class << 4, 0, 0]);
    ip[4..6].copy_from_slice(&(payload_len as u16).to_be_bytes());
    ip[6] = parsed.key.proto;
    ip[7] = parsed.ttl - 1;
    ip[8..24].copy_from_slice(&to.src);
    ip[24..40].copy_from_slice(&to.dst);
}

/// The length field of UDP.
fn udp_len(datagram: &[u8]) -> usize {
    datagram
        .get(4..6)
        .map_or(0, |len| usize::from(u16::from_be_bytes([len[0], len[1]])))
}

/// Leaves in the checksum field of the UDP datagram at the start of `datagram` what a driver goes on from.
fn begin_udp_v6(datagram: &mut [u8], to: &Target6) {
    let pseudo = checksum::pseudo_v6(
        to.src.into(),
        to.dst.into(),
        IpProto::UDP,
        udp_len(datagram) as u32,
    );
    datagram[6..8].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
}

/// Computes the checksum of the UDP datagram at the start of `datagram`.
fn fill_udp_v6(datagram: &mut [u8], to: &Target6) {
    let len = udp_len(datagram).min(datagram.len());
    datagram[6..8].copy_from_slice(&[0, 0]);
    let pseudo = checksum::pseudo_v6(to.src.into(), to.dst.into(), IpProto::UDP, len as u32);
    let sum = match checksum::finish(checksum::combine(pseudo, checksum::sum(&datagram[..len]))) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
}

const _: () = assert!(L2_LEN_MAX >= ETHERNET_LEN);
