//! The Internet checksum (RFC 1071): ones' complement sums, pseudo-headers, and incremental update
//! (RFC 1624).
//!
//! A *partial sum* is a `u32` that is congruent, modulo 0xffff, to the sum of big-endian 16-bit words. Zero
//! and 0xffff both mean zero in ones' complement; a partial sum is zero only if every word of it was. The
//! checksum of words that are not all zero is therefore never 0xffff, and all of this module keeps that:
//! an updated checksum equals the recomputed one bit for bit, given that the packet has a word that is not
//! zero (an IPv4 header has its version, TCP, UDP and ICMPv6 have their pseudo-header).

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::IpProto;

/// Partial sum of `data`. An odd last byte counts as the high byte of a word, as RFC 1071 pads with zero.
/// The result is at most 0xffff.
#[inline]
pub fn sum(data: &[u8]) -> u32 {
    // Words are added in the machine's byte order, which swaps the bytes of the result (RFC 1071, section
    // 2B), four bytes to a 64-bit lane: overflow would take 2^32 of them. Four lanes suit SSE2 and NEON.
    let mut lanes = [0u64; 4];
    let (blocks, rest) = data.as_chunks::<16>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut acc = lanes[0] + lanes[1] + lanes[2] + lanes[3];
    let (words, rest) = rest.as_chunks::<2>();
    for word in words {
        acc += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = rest {
        acc += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u32::from(u16::from_be(fold_u64(acc)))
}

/// Sum of two partial sums. Associative and commutative; cannot overflow.
#[inline(always)]
pub const fn combine(a: u32, b: u32) -> u32 {
    // 2^32 is congruent to 1 modulo 0xffff: a carry out of the top comes in at the bottom.
    let (s, carry) = a.overflowing_add(b);
    s + carry as u32
}

/// [`combine`] where `b` is the sum of bytes that follow an odd number of bytes: their places in the
/// words are the other way round (RFC 1071, section 2B).
#[inline]
pub const fn combine_after_odd(a: u32, b: u32) -> u32 {
    combine(a, fold(b).swap_bytes() as u32)
}

/// A partial sum as one word; zero only if the sum is zero.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    // The upper half of x + rotate(x) is upper + lower + the carry of lower + upper: an end-around carry.
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

#[inline(always)]
pub(crate) const fn fold_u64(sum: u64) -> u16 {
    fold((sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32)
}

/// The checksum to write for a partial sum over everything else.
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// Whether a partial sum over everything, the checksum included, is that of an intact packet.
#[inline(always)]
pub const fn is_valid(sum: u32) -> bool {
    fold(sum) == 0xffff
}

/// Partial sum of the pseudo-header of RFC 9293 (section 3.1) and RFC 768. `len` is the length of the
/// transport header and its data in bytes.
#[inline]
pub const fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, proto: IpProto, len: u32) -> u32 {
    combine(
        combine(src.to_bits(), dst.to_bits()),
        combine(proto.0 as u32, len),
    )
}

/// Partial sum of the pseudo-header of RFC 8200, section 8.1. `proto` is the upper protocol, not an
/// extension header, and `len` the length of the upper header and its data in bytes.
#[inline]
pub const fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, proto: IpProto, len: u32) -> u32 {
    combine(
        combine(sum_u128(src.to_bits()), sum_u128(dst.to_bits())),
        combine(proto.0 as u32, len),
    )
}

/// Sum of the four 32-bit words of an IPv6 address.
#[inline(always)]
const fn words_u128(n: u128) -> u64 {
    let (high, low) = ((n >> 64) as u64, n as u64);
    (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
}

/// Partial sum of an IPv6 address.
#[inline(always)]
const fn sum_u128(n: u128) -> u32 {
    let n = words_u128(n);
    combine(n as u32, (n >> 32) as u32)
}

/// The addresses that a transport checksum covers, besides protocol and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pseudo {
    /// Over IPv4.
    V4 {
        /// Source address of the IP header.
        src: Ipv4Addr,
        /// Destination address of the IP header.
        dst: Ipv4Addr,
    },
    /// Over IPv6.
    V6 {
        /// Source address of the IP header.
        src: Ipv6Addr,
        /// Destination address of the IP header; the last one, where there is a routing header.
        dst: Ipv6Addr,
    },
}

impl Pseudo {
    /// Over IPv4.
    pub const fn v4(src: Ipv4Addr, dst: Ipv4Addr) -> Self {
        Pseudo::V4 { src, dst }
    }

    /// Over IPv6.
    pub const fn v6(src: Ipv6Addr, dst: Ipv6Addr) -> Self {
        Pseudo::V6 { src, dst }
    }

    /// Partial sum with the protocol and the length of the transport header and its data, in bytes.
    #[inline]
    pub const fn sum(&self, proto: IpProto, len: u32) -> u32 {
        match *self {
            Pseudo::V4 { src, dst } => pseudo_v4(src, dst, proto, len),
            Pseudo::V6 { src, dst } => pseudo_v6(src, dst, proto, len),
        }
    }

    /// Partial sum over `l4`, a transport header and all of its data, with this pseudo-header.
    pub(super) fn sum_over(&self, proto: IpProto, l4: &[u8]) -> u32 {
        // What does not fit 32 bits cannot be a packet; the cast only keeps the function total.
        combine(self.sum(proto, l4.len() as u32), sum(l4))
    }
}

/// What changed in the bytes that a checksum covers: RFC 1624's equation 3, HC' = ~(~HC + ~m + m'),
/// gathered over any number of fields and applied once.
///
/// Order does not matter. A correct checksum stays correct and a wrong one stays wrong. Fields must lie
/// at even offsets from the start of what the checksum covers; all header fields of TCP/IP do.
///
/// Eight bytes; a delta that is kept in a table folds to two ([`Delta::to_u16`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a delta changes nothing until it is applied"]
// A sum of 32-bit values in 64 bits: overflow would take 2^28 replacements.
pub struct Delta(u64);

impl Delta {
    /// Nothing changed.
    pub const ZERO: Self = Delta(0);

    /// A 16-bit field went from `old` to `new`.
    #[inline(always)]
    pub const fn replace_u16(self, old: u16, new: u16) -> Self {
        Delta(self.0 + !old as u64 + new as u64)
    }

    /// A 32-bit field went from `old` to `new`.
    #[inline(always)]
    pub const fn replace_u32(self, old: u32, new: u32) -> Self {
        Delta(self.0 + !old as u64 + new as u64)
    }

    /// A 4-byte field (an IPv4 address) went from `old` to `new`.
    #[inline(always)]
    pub const fn replace_bytes4(self, old: [u8; 4], new: [u8; 4]) -> Self {
        self.replace_u32(u32::from_be_bytes(old), u32::from_be_bytes(new))
    }

    /// An 8-byte field (both IPv4 addresses) went from `old` to `new`.
    #[inline(always)]
    pub const fn replace_bytes8(self, old: [u8; 8], new: [u8; 8]) -> Self {
        let (old, new) = (u64::from_be_bytes(old), u64::from_be_bytes(new));
        self.replace_u32((old >> 32) as u32, (new >> 32) as u32)
            .replace_u32(old as u32, new as u32)
    }

    /// A 16-byte field (an IPv6 address) went from `old` to `new`.
    #[inline(always)]
    pub const fn replace_bytes16(self, old: [u8; 16], new: [u8; 16]) -> Self {
        Delta(self.0 + words_u128(!u128::from_be_bytes(old)) + words_u128(u128::from_be_bytes(new)))
    }

    /// Words with this partial sum came in: a header that was inserted, or a new pseudo-header.
    #[inline(always)]
    pub const fn add(self, sum: u32) -> Self {
        Delta(self.0 + sum as u64)
    }

    /// Words with this partial sum went out: a header that was removed, or the old pseudo-header.
    #[inline(always)]
    pub const fn remove(self, sum: u32) -> Self {
        Delta(self.0 + !sum as u64)
    }

    /// From one pseudo-header to another, of any family: NAT64 of TCP and UDP, whose protocol number and
    /// length are the same on both sides and therefore stay out.
    #[inline]
    pub const fn replace_pseudo(self, old: &Pseudo, new: &Pseudo) -> Self {
        self.remove(old.sum(IpProto(0), 0)).add(new.sum(IpProto(0), 0))
    }

    /// All the changes of `other` too.
    #[inline(always)]
    pub const fn and(self, other: Delta) -> Self {
        Delta(self.0 + other.0)
    }

    /// In two bytes, for keeping. [`Delta::from_u16`] gives a delta that applies alike.
    #[inline]
    pub const fn to_u16(self) -> u16 {
        fold_u64(self.0)
    }

    /// From [`Delta::to_u16`].
    #[inline]
    pub const fn from_u16(folded: u16) -> Self {
        Delta(folded as u64)
    }

    /// The checksum after the changes: IPv4 header, TCP, ICMPv6.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold_u64(self.0 + !checksum as u64)
    }

    /// The checksum of UDP after the changes. Zero, "the sender made none" (RFC 768), stays zero; a
    /// result of zero is written as its other form 0xffff. UDP without a checksum is not legal over IPv6
    /// (RFC 8200, section 8.1): whoever crosses from IPv4 to IPv6 computes one instead.
    #[inline(always)]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        match checksum {
            0 => 0,
            _ => match self.apply(checksum) {
                0 => 0xffff,
                c => c,
            },
        }
    }

    /// The checksum of ICMP over IPv4 after the changes. It has no pseudo-header, so an echo reply with
    /// identifier, sequence number and data of zero is all zero, and its checksum 0xffff and only that. As
    /// the delta cannot tell it from other messages of that residue, a result of zero is written as
    /// 0xffff, which verifies for both.
    #[inline]
    pub const fn apply_icmpv4(self, checksum: u16) -> u16 {
        match self.apply(checksum) {
            0 => 0xffff,
            c => c,
        }
    }
}

const _: () = assert!(size_of::<Delta>() == 8);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The obvious twin: RFC 1071, pairs of bytes one by one.
    fn naive_sum(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(pair[0]) * 256 + pair.get(1).map_or(0, |&low| u32::from(low));
            if sum > 0xffff {
                sum = sum - 0x10000 + 1;
            }
        }
        sum as u16
    }

    fn naive_words(words: &[u16]) -> u16 {
        naive_sum(&bytes(words))
    }

    fn bytes(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    /// Words with the two zeros of ones' complement far more often than chance gives them.
    fn word() -> impl Strategy<Value = u16> {
        prop_oneof![2 => Just(0u16), 2 => Just(0xffffu16), 1 => Just(1u16), 1 => Just(0xfffeu16), 3 => any::<u16>()]
    }

    fn words16(words: [u16; 8]) -> [u8; 16] {
        bytes(&words).try_into().expect("16 bytes")
    }

    fn addr6() -> impl Strategy<Value = [u8; 16]> {
        proptest::array::uniform8(word()).prop_map(words16)
    }

    fn addr4() -> impl Strategy<Value = [u8; 4]> {
        [word(), word()].prop_map(|[a, b]| (u32::from(a) << 16 | u32::from(b)).to_be_bytes())
    }

    #[test]
    fn rfc_1071_example() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&data)), 0xddf2);
        assert_eq!(finish(sum(&data)), 0x220d);
    }

    #[test]
    fn rfc_1624_example() {
        // Section 4: equation 2 of RFC 1141 gives 0xffff here, equation 3 the right 0x0000.
        assert_eq!(Delta::ZERO.replace_u16(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn sums_of_extreme_bytes() {
        assert_eq!(sum(&[]), 0);
        for len in 1..200 {
            assert_eq!(sum(&std::vec![0; len]), 0, "{len} zeros");
            let ones = std::vec![0xff; len];
            assert_eq!(sum(&ones), u32::from(naive_sum(&ones)), "{len} times 0xff");
        }
        let ones = std::vec![0xff; 65_535];
        assert_eq!(sum(&ones), u32::from(naive_sum(&ones)));
    }

    #[test]
    fn combine_carries_around_the_end() {
        assert_eq!(combine(0, 0), 0);
        assert_eq!(combine(u32::MAX, 0), u32::MAX);
        assert_eq!(combine(u32::MAX, 1), 1);
        assert_eq!(combine(u32::MAX, u32::MAX), u32::MAX);
        assert_eq!(fold(0x0001_ffff), 1);
        assert_eq!(fold(0x8000_7fff), 0xffff);
        assert_eq!(fold(u32::MAX), 0xffff);
        assert_eq!(fold(0), 0);
    }

    /// Every checksum there is, with every pair of extreme field values.
    #[test]
    fn delta_equals_recomputation_for_every_checksum() {
        const EXTREMES: [u16; 6] = [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff];
        let mut checked = 0u32;
        for x in 0..=0xffffu16 {
            for old in EXTREMES {
                for new in EXTREMES {
                    // The 6 stands for a word that is never zero, as a pseudo-header's protocol.
                    let before = !naive_words(&[6, x, old]);
                    let after = !naive_words(&[6, x, new]);
                    assert_eq!(
                        Delta::ZERO.replace_u16(old, new).apply(before),
                        after,
                        "{x:#x}: {old:#x} -> {new:#x}"
                    );
                    checked += 1;
                }
            }
        }
        assert_eq!(checked, 65_536 * 36);
    }

    #[test]
    fn no_change_changes_nothing() {
        for c in 0..=0xffffu16 {
            assert_eq!(Delta::ZERO.apply(c), c);
            assert_eq!(Delta::ZERO.apply_udp(c), c);
        }
    }

    #[test]
    fn udp_without_checksum_stays_so_and_a_computed_zero_is_written_as_ones() {
        let delta = Delta::ZERO.replace_u16(1, 2);
        assert_eq!(delta.apply_udp(0), 0);
        // ~1 + 1 is zero: the checksum 1 goes to 0, which UDP writes 0xffff.
        assert_eq!(Delta::ZERO.replace_u16(1, 2).apply(1), 0);
        assert_eq!(delta.apply_udp(1), 0xffff);
        assert_eq!(Delta::ZERO.replace_u16(2, 1).apply_udp(0xffff), 1);
    }

    #[test]
    fn an_icmp_echo_reply_of_zeros_verifies() {
        // A request of type 8 and nothing else becomes a reply of all zeros.
        let request = !naive_words(&[0x0800, 0, 0, 0]);
        let delta = Delta::ZERO.replace_u16(0x0800, 0);
        let reply = delta.apply_icmpv4(request);
        assert_eq!(naive_words(&[0, reply, 0, 0]), 0xffff);
        // And back, or to another identifier.
        assert_eq!(
            Delta::ZERO.replace_u16(0, 7).apply_icmpv4(reply),
            !naive_words(&[0, 0, 7, 0])
        );
        assert_eq!(Delta::ZERO.replace_u16(0, 0).apply_icmpv4(reply), 0xffff);
    }

    proptest! {
        #[test]
        fn sum_equals_its_twin(data in vec(any::<u8>(), 0..3000), skip in 0usize..20) {
            let data = data.get(skip..).unwrap_or(&[]);
            prop_assert_eq!(sum(data), u32::from(naive_sum(data)));
        }

        #[test]
        fn sums_of_parts_combine(data in vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..200), at in any::<prop::sample::Index>()) {
            let (a, b) = data.split_at(at.index(data.len() + 1));
            let combined = if a.len() % 2 == 0 { combine(sum(a), sum(b)) } else { combine_after_odd(sum(a), sum(b)) };
            prop_assert_eq!(fold(combined), naive_sum(&data));
        }

        #[test]
        fn fold_equals_its_twin(n in any::<u64>(), shift in 0u32..64) {
            let n = n >> shift;
            prop_assert_eq!(fold(n as u32), naive_sum(&(n as u32).to_be_bytes()));
            prop_assert_eq!(fold_u64(n), naive_sum(&n.to_be_bytes()));
        }

        #[test]
        fn pseudo_headers_equal_their_twins(s4 in addr4(), d4 in addr4(), s6 in addr6(), d6 in addr6(), proto in any::<u8>(), len in any::<u16>()) {
            let proto = IpProto(proto);
            let mut header = Vec::new();
            header.extend(s4);
            header.extend(d4);
            header.extend([0, proto.0]);
            header.extend(len.to_be_bytes());
            let got = Pseudo::v4(s4.into(), d4.into()).sum(proto, u32::from(len));
            prop_assert_eq!(fold(got), naive_sum(&header));

            let mut header = Vec::new();
            header.extend(s6);
            header.extend(d6);
            header.extend(u32::from(len).to_be_bytes());
            header.extend([0, 0, 0, proto.0]);
            let got = Pseudo::v6(s6.into(), d6.into()).sum(proto, u32::from(len));
            prop_assert_eq!(fold(got), naive_sum(&header));
        }

        /// Any change of any words by any of the forms, twice folded for keeping: right stays exactly right,
        /// wrong stays wrong.
        #[test]
        fn delta_equals_its_twin(
            rest in vec(word(), 0..6),
            (old2, new2) in (word(), word()),
            (old4, new4) in (addr4(), addr4()),
            (old16, new16) in (addr6(), addr6()),
            error in word(),
        ) {
            let packet = |w2: u16, b4: [u8; 4], b16: [u8; 16], checksum: u16| {
                let mut p = bytes(&[6, checksum, w2]);
                p.extend(b4);
                p.extend(b16);
                p.extend(bytes(&rest));
                p
            };
            let before = !naive_sum(&packet(old2, old4, old16, 0));
            let after = !naive_sum(&packet(new2, new4, new16, 0));
            let delta = Delta::ZERO.replace_u16(old2, new2).replace_bytes4(old4, new4).replace_bytes16(old16, new16);
            prop_assert_eq!(delta.apply(before), after);
            prop_assert_eq!(Delta::from_u16(delta.to_u16()).apply(before), after);
            prop_assert_eq!(delta.apply_icmpv4(before), if after == 0 { 0xffff } else { after });
            // Gathered in any order and grouping.
            let other = Delta::ZERO.replace_bytes16(old16, new16)
                .and(Delta::ZERO.replace_u32(u32::from_be_bytes(old4), u32::from_be_bytes(new4)))
                .and(Delta::ZERO.remove(u32::from(old2)).add(u32::from(new2)));
            prop_assert_eq!(other.apply(before), after);
            // There and back.
            let back = Delta::ZERO.replace_u16(new2, old2).replace_bytes4(new4, old4).replace_bytes16(new16, old16);
            prop_assert_eq!(back.apply(after), before);

            // The other form of a right checksum is accepted, and stays right.
            if before == 0 {
                let got = delta.apply(0xffff);
                prop_assert_eq!(naive_sum(&packet(new2, new4, new16, got)), 0xffff);
            }
            let wrong = before.wrapping_add(error);
            let is_wrong = naive_sum(&packet(old2, old4, old16, wrong)) != 0xffff;
            let got = delta.apply(wrong);
            prop_assert_eq!(naive_sum(&packet(new2, new4, new16, got)) != 0xffff, is_wrong);
        }

        #[test]
        fn udp_delta_equals_its_twin(rest in vec(word(), 0..4), old in proptest::array::uniform2(word()), new in proptest::array::uniform2(word())) {
            let full = |w: [u16; 2]| {
                let mut words = rest.clone();
                words.extend([17, w[0], w[1]]);
                match !naive_words(&words) {
                    0 => 0xffff,
                    c => c,
                }
            };
            let delta = Delta::ZERO.replace_u16(old[0], new[0]).replace_u16(old[1], new[1]);
            prop_assert_eq!(delta.apply_udp(full(old)), full(new));
            prop_assert_eq!(delta.apply_udp(0), 0);
        }

        #[test]
        fn delta_crosses_families(
            (s6, d6) in (addr6(), addr6()),
            (s4, d4) in (addr4(), addr4()),
            l4 in vec(word(), 4..12),
        ) {
            let (v6, v4) = (Pseudo::v6(s6.into(), d6.into()), Pseudo::v4(s4.into(), d4.into()));
            let l4 = bytes(&l4);
            for proto in [IpProto::TCP, IpProto::UDP] {
                let full = |p: &Pseudo| finish(p.sum_over(proto, &l4));
                prop_assert_eq!(Delta::ZERO.replace_pseudo(&v6, &v4).apply(full(&v6)), full(&v4));
                prop_assert_eq!(Delta::ZERO.replace_pseudo(&v4, &v6).apply(full(&v4)), full(&v6));
            }
            // ICMP gains a pseudo-header on its way to IPv6.
            let len = l4.len() as u32;
            let icmp = finish(sum(&l4));
            let icmp6 = finish(v6.sum_over(IpProto::ICMPV6, &l4));
            prop_assert_eq!(Delta::ZERO.add(v6.sum(IpProto::ICMPV6, len)).apply(icmp), icmp6);
            let back = Delta::ZERO.remove(v6.sum(IpProto::ICMPV6, len)).apply_icmpv4(icmp6);
            prop_assert!(is_valid(combine(sum(&l4), u32::from(back))));
        }
    }
}
