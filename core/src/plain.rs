//! TCP and UDP over IPv4 as most of it is: headers where most have them, and right in every respect. With that known,
//! every offset is a constant and every bound one check. Whatever is not like that is `parse`'s and `xmit`'s, which
//! know all cases.

use crate::hash::TupleHasher;
use crate::parse::{ETHERNET_LEN, IPV4_LEN, TCP_LEN, UDP_LEN, is_plain_segment};
use crate::port::RxChecksum;
use crate::tuple::L4Proto;
use crate::wire::{EtherType, IpProto};

const L3: usize = ETHERNET_LEN;
const L4: usize = L3 + IPV4_LEN;
const TTL: usize = L3 + 8;
const HEADER_SUM: usize = L3 + 10;
const ADDRS: usize = L3 + 12;
const TCP_SUM: usize = L4 + 16;
const UDP_SUM: usize = L4 + 6;

/// Headers of TCP over IPv4, both without options, in a frame without tags.
pub(crate) type Head = [u8; L4 + TCP_LEN];

/// What is to be known of a plain packet before its conn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) proto: L4Proto,
    /// Whether it is neither malformed nor the beginning or the end of anything, as most are.
    pub(crate) is_middle: bool,
    pub(crate) packet_len: u16,
}

impl Plain {
    /// Reads the contiguous head `data` of a frame of `len` bytes. `None`: it is not plain.
    #[inline(always)]
    pub(crate) fn read(data: &[u8], len: usize, rx_checksum: RxChecksum) -> Option<Self> {
        // Version 4 and five words; no more fragments, and no offset.
        const FIRST_MASK: u64 = u64::from_ne_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
        const FIRST: u64 = u64::from_ne_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]);
        let head: &Head = data.first_chunk()?;
        let first = u64::from_ne_bytes(bytes(head, L3));
        if u16::from_be_bytes(bytes(head, L3 - 2)) != EtherType::IPV4.0 || first & FIRST_MASK != FIRST {
            return None;
        }
        let packet_len = u16::from_be_bytes(bytes(head, L3 + 2));
        let len_max = usize::from(packet_len);
        if L3 + len_max > len {
            return None;
        }
        let addrs = addrs(head);
        match rx_checksum {
            RxChecksum::Bad => return None,
            RxChecksum::Good => {}
            RxChecksum::Unknown => {
                // Words of any length and byte order, with the carry brought round: 0xffff divides 2^64 - 1. A
                // header is not zero, so that a sum of zero is the other zero.
                let second = u64::from(u32::from_ne_bytes(bytes(head, L3 + 8)));
                if !carried(carried(first, addrs), second).is_multiple_of(0xffff) {
                    return None;
                }
            }
        }
        let proto = IpProto(ip_proto(head));
        if proto == IpProto::TCP {
            let header_len = usize::from(head[L4 + 12] >> 4) * 4;
            let fits =
                header_len >= TCP_LEN && IPV4_LEN + header_len <= len_max && L4 + header_len <= data.len();
            return fits.then_some(Plain {
                proto: L4Proto::Tcp,
                is_middle: is_plain_segment(flags(head)),
                packet_len,
            });
        }
        let udp_len = usize::from(u16::from_be_bytes(bytes(head, L4 + 4)));
        let fits = udp_len >= UDP_LEN && IPV4_LEN + udp_len <= len_max;
        (fits && proto == IpProto::UDP).then_some(Plain {
            proto: L4Proto::Udp,
            is_middle: true,
            packet_len,
        })
    }
}

/// The hash of the tuple, as [`crate::parse::Key::hash`], if `data` turns out to be of a plain packet. `None`: it will
/// not.
#[inline(always)]
pub(crate) fn hash_ahead(data: &[u8], hasher: &TupleHasher) -> Option<u64> {
    let head: &Head = data.first_chunk()?;
    if u16::from_be_bytes(bytes(head, L3 - 2)) != EtherType::IPV4.0 {
        return None;
    }
    let ports_proto = u64::from(ports(head).to_le()) | u64::from(ip_proto(head)) << 32;
    Some(hasher.hash_v4(addrs(head).to_le(), ports_proto))
}

/// Bytes of a frame whose packet has `packet_len`, without padding.
#[inline(always)]
pub(crate) fn frame_len(packet_len: u16) -> usize {
    L3 + usize::from(packet_len)
}

/// Both addresses in one word of the machine's byte order, source first.
#[inline(always)]
pub(crate) fn addrs(head: &Head) -> u64 {
    u64::from_ne_bytes(bytes(head, ADDRS))
}

/// Both ports in one word of the machine's byte order, source first.
#[inline(always)]
pub(crate) fn ports(head: &Head) -> u32 {
    u32::from_ne_bytes(bytes(head, L4))
}

/// The protocol over IPv4.
#[inline(always)]
pub(crate) fn ip_proto(head: &Head) -> u8 {
    head[L3 + 9]
}

/// Flags of a segment of TCP.
#[inline(always)]
pub(crate) fn flags(head: &Head) -> u8 {
    head[L4 + 13]
}

/// Time to live.
#[inline(always)]
pub(crate) fn ttl(head: &Head) -> u8 {
    head[TTL]
}

/// What [`rewrite`] writes, and what it writes it over: addresses and ports as [`addrs`] and [`ports`] say them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    pub(crate) addrs: [u64; 2],
    pub(crate) ports: [u32; 2],
    /// As they begin a frame.
    pub(crate) macs: &'a [u8; 12],
}

/// Rewrites the packet behind `head`, of `proto`, which has a hop left.
#[inline(always)]
pub(crate) fn rewrite(head: &mut Head, proto: L4Proto, change: Change<'_>) {
    // One less in the high byte of a word.
    const HOP: u16 = !u16::from_ne_bytes([1, 0]);
    // Sums of words in the machine's byte order (RFC 1071, section 2B): nothing is swapped, neither here nor on the
    // way back. As [`crate::wire::Delta`], equation 3 of RFC 1624.
    let ([addrs, new_addrs], [ports, new_ports]) = (change.addrs, change.ports);
    let delta = folded(carried(!addrs, new_addrs));
    // Less a word is as much as its complement more, with all ones.
    let header = delta + u32::from(HOP) + 0xffff - u32::from(sum_at(head, HEADER_SUM));
    let transport = delta + halves(carried32(!ports, new_ports)) + 0xffff;
    head[..12].copy_from_slice(change.macs);
    head[TTL] = head[TTL].wrapping_sub(1);
    put(head, HEADER_SUM, checksum_of(header));
    head[ADDRS..L4].copy_from_slice(&new_addrs.to_ne_bytes());
    head[L4..L4 + 4].copy_from_slice(&new_ports.to_ne_bytes());
    match proto {
        L4Proto::Tcp => {
            let sum = transport - u32::from(sum_at(head, TCP_SUM));
            put(head, TCP_SUM, checksum_of(sum));
        }
        L4Proto::Udp => match sum_at(head, UDP_SUM) {
            // The sender made none (RFC 768).
            0 => {}
            old => match checksum_of(transport - u32::from(old)) {
                0 => put(head, UDP_SUM, 0xffff),
                sum => put(head, UDP_SUM, sum),
            },
        },
    }
}

/// The sum with the carry brought round.
#[inline(always)]
fn carried(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

/// As [`carried`].
#[inline(always)]
fn carried32(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u32::from(carry)
}

/// The sum of both halves.
#[inline(always)]
fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

/// The sum of all four quarters in less than 18 bits.
#[inline(always)]
fn folded(word: u64) -> u32 {
    let sum = (word & 0xffff_ffff) + (word >> 32);
    (sum as u32 & 0xffff) + (sum >> 16) as u32
}

/// The checksum of words with this sum.
#[inline(always)]
fn checksum_of(sum: u32) -> u16 {
    // The high half of a number and itself, turned round, is the sum of both halves with the carry brought round.
    !(sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

#[inline(always)]
fn sum_at(head: &Head, at: usize) -> u16 {
    u16::from_ne_bytes(bytes(head, at))
}

#[inline(always)]
fn put(head: &mut Head, at: usize, sum: u16) {
    head[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
}

/// `N` bytes of a head; `at` is a constant, and so is the check.
#[inline(always)]
fn bytes<const N: usize>(head: &Head, at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Kind, Parsed, parse};
    use crate::port::{Frame, HeapFrame, PortId};
    use crate::tuple::Family;
    use crate::xmit::{Egress, Target4, rewrite_v4};
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A frame that is plain, but for what `edits` overwrite before the checksum of its header is made, and
    /// `late` after it.
    fn frame(proto: u8, random: &[u8], edits: &[(usize, u8)], late: Option<(usize, u8)>) -> Vec<u8> {
        let mut data = random.to_vec();
        data[12..24].copy_from_slice(&[0x08, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto]);
        let packet_len = (random.len() - L3) as u16;
        data[16..18].copy_from_slice(&packet_len.to_be_bytes());
        if proto == 17 {
            data[38..40].copy_from_slice(&(packet_len - 20).to_be_bytes());
        } else {
            data[46..48].copy_from_slice(&[0x50, 0x10]);
        }
        for &(at, byte) in edits {
            data[at] = byte;
        }
        data[24..26].fill(0);
        let words = data[14..34].chunks(2);
        let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        data[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        if let Some((at, byte)) = late {
            data[at] = byte;
        }
        data
    }

    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            Just(0),
            Just(0xff),
            Just(0x45),
            Just(0x46),
            Just(0x50),
            Just(0x80),
            any::<u8>()
        ]
    }

    fn frames() -> impl Strategy<Value = Vec<u8>> {
        (
            prop_oneof![5 => Just(6), 5 => Just(17), 1 => any::<u8>()],
            proptest::collection::vec(byte(), 54..120),
            proptest::collection::vec((12usize..54, byte()), 0..3),
            proptest::option::weighted(0.2, (12usize..54, byte())),
        )
            .prop_map(|(proto, random, edits, late)| frame(proto, &random, &edits, late))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// What is read is what the parser makes of it, and all is read that may be.
        #[test]
        fn equals_the_parser(data in frames(), cut in 0usize..8, head in 40usize..120, rx in 0..3) {
            let rx = [RxChecksum::Unknown, RxChecksum::Good, RxChecksum::Bad][rx as usize];
            // Cut at the end, or shown in part.
            let len = data.len() - if cut < 6 { 0 } else { cut };
            let shown = &data[..if head < 60 { head.min(len) } else { len }];
            let mut parsed = Parsed::NONE;
            let outcome = parse(shown, len, rx, &mut parsed);
            let hasher = TupleHasher::new(7);
            let plain = Plain::read(shown, len, rx);
            let is_plain = outcome.is_ok()
                && shown.len() >= size_of::<Head>()
                && matches!(parsed.kind, Kind::Tcp | Kind::Udp)
                && (parsed.key.family, usize::from(parsed.l4)) == (Family::V4, L4);
            prop_assert_eq!(plain.is_some(), is_plain, "{:?} {:?}", plain, outcome);
            if let Some(plain) = plain {
                prop_assert_eq!(plain.proto.ip_proto(), parsed.key.proto);
                let is_middle = parsed.kind == Kind::Udp || is_plain_segment(parsed.flags);
                prop_assert_eq!(plain.is_middle, is_middle);
                prop_assert_eq!(frame_len(plain.packet_len), parsed.end as usize);
                prop_assert_eq!(hash_ahead(shown, &hasher), Some(parsed.key.hash(&hasher)));
            }
        }

        /// The same bytes as by offsets that are worked out.
        #[test]
        fn rewrites_as_others_are_rewritten(data in frames(), to in any::<([u8; 8], [u8; 4], [u8; 12])>(), zero in any::<bool>()) {
            let mut data = data;
            if zero {
                // No checksum, where that is UDP's.
                data[40..42].fill(0);
            }
            let mut parsed = Parsed::NONE;
            let Some(plain) = Plain::read(&data, data.len(), RxChecksum::Good) else { return Ok(()) };
            prop_assert!(parse(&data, data.len(), RxChecksum::Good, &mut parsed).is_ok());
            let (addrs, ports, macs) = to;
            let out = Egress { macs, mtu: u32::MAX, port: PortId(0) };
            let mut other = HeapFrame::new(PortId(0), &data);
            prop_assume!(rewrite_v4(&mut other, &parsed, &Target4::reverse_of(addrs, ports), None, &out).is_ok());
            let head: &mut Head = data.first_chunk_mut().expect("it was read");
            let change = Change {
                addrs: [super::addrs(head), u64::from_ne_bytes(addrs).rotate_left(32)],
                ports: [super::ports(head), u32::from_ne_bytes(ports).rotate_left(16)],
                macs: &macs,
            };
            rewrite(head, plain.proto, change);
            data.truncate(frame_len(plain.packet_len));
            prop_assert_eq!(&data[..], other.data());
        }
    }
}
