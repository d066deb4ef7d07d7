//! What a NIC does before a worker sees a frame: whose it is, and to which worker it goes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use evenkeel_core::port::RxChecksum;
use evenkeel_core::tuple::{L4Proto, Tuple};

use crate::host::wire::{IPV4, IPV6, Packet};

/// Whether a NIC that has these addresses takes the frame in.
pub(super) fn accepts(own: &[u8; 6], others: &[[u8; 6]], frame: &[u8]) -> bool {
    // Bit 0 of the first byte: broadcast and multicast; NICs of balancers take all groups.
    frame
        .first_chunk::<6>()
        .is_some_and(|dst| dst[0] & 1 == 1 || dst == own || others.contains(dst))
}

/// What a NIC that sums up headers and payloads says of a frame: that its sums are wrong, or nothing.
pub(super) fn checksum(frame: &[u8]) -> RxChecksum {
    let mut at = 12;
    while matches!(be16(frame, at), Some(0x8100 | 0x88a8 | 0x9100)) {
        at += 4;
    }
    let Some(kind @ (IPV4 | IPV6)) = be16(frame, at) else {
        return RxChecksum::Unknown;
    };
    match Packet::parse(kind, frame.get(at + 2..).unwrap_or_default()) {
        Err("host-bad-checksum") => RxChecksum::Bad,
        _ => RxChecksum::Unknown,
    }
}

/// The TCP or UDP tuple over which a NIC hashes: behind up to two VLAN tags, not in fragments, not behind IPv6
/// extension headers. `None` is not hashed, and goes to the first worker.
pub(super) fn tuple(frame: &[u8]) -> Option<Tuple> {
    let mut at = 12;
    let mut kind = be16(frame, at)?;
    for _ in 0..2 {
        if matches!(kind, 0x8100 | 0x88a8 | 0x9100) {
            at += 4;
            kind = be16(frame, at)?;
        }
    }
    let l3 = frame.get(at + 2..)?;
    let (src, dst, proto, l4): (IpAddr, IpAddr, u8, &[u8]) = match kind {
        0x0800 => {
            let header_len = usize::from(l3.first()? & 0x0f) * 4;
            // More fragments, or an offset.
            if l3.first()? >> 4 != 4 || header_len < 20 || be16(l3, 6)? & 0x3fff != 0 {
                return None;
            }
            let addr = |at: usize| Some(Ipv4Addr::from(*l3.get(at..)?.first_chunk::<4>()?));
            (
                addr(12)?.into(),
                addr(16)?.into(),
                *l3.get(9)?,
                l3.get(header_len..)?,
            )
        }
        0x86dd => {
            if l3.first()? >> 4 != 6 {
                return None;
            }
            let addr = |at: usize| Some(Ipv6Addr::from(*l3.get(at..)?.first_chunk::<16>()?));
            (addr(8)?.into(), addr(24)?.into(), *l3.get(6)?, l3.get(40..)?)
        }
        _ => return None,
    };
    Some(Tuple {
        proto: L4Proto::from_ip_proto(proto)?,
        src: SocketAddr::new(src, be16(l4, 0)?),
        dst: SocketAddr::new(dst, be16(l4, 2)?),
    })
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}
