//! The two hashes of the engine: a keyed one for the index of conns, which nobody outside can predict,
//! and Toeplitz, which every NIC computes, for buckets.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::tuple::Tuple;

/// Keyed hash of a tuple's words. Two folded 64 x 64 -> 128 bit multiplications for an IPv4 tuple; the
/// secret is drawn at construction, so that colliding tuples cannot be prepared.
#[derive(Clone, Debug)]
pub struct TupleHasher {
    secret: [u64; 6],
}

impl TupleHasher {
    /// A hasher whose secrets all come from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut stream = SplitMix::new(seed);
        // Odd secrets: a zero factor would forget the other word.
        TupleHasher {
            secret: core::array::from_fn(|_| stream.next() | 1),
        }
    }

    /// Hash of an IPv4 tuple: both addresses, both ports, protocol.
    #[inline]
    pub(crate) fn hash_v4(&self, addrs: u64, ports_proto: u64) -> u64 {
        let s = &self.secret;
        let h = fold(addrs ^ s[0], ports_proto ^ s[1]);
        fold(h ^ s[2], s[3])
    }

    /// Hash of an IPv6 tuple: both addresses in halves, both ports, protocol.
    #[inline]
    pub(crate) fn hash_v6(&self, src: [u64; 2], dst: [u64; 2], ports_proto: u64) -> u64 {
        let s = &self.secret;
        let a = fold(src[0] ^ s[0], src[1] ^ s[1]);
        let b = fold(dst[0] ^ s[2], dst[1] ^ s[3]);
        let h = fold(a ^ s[4] ^ ports_proto, b ^ s[5]);
        fold(h ^ s[2], s[3])
    }
}

/// Keyed hash of some words, the same wherever the seed is: two lanes of folded multiplications, as wyhash has them (Wang Yi).
#[derive(Clone, Debug)]
pub(crate) struct WordHasher {
    secret: [u64; 4],
}

impl WordHasher {
    /// A hasher whose secrets all come from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let mut stream = SplitMix::new(seed);
        WordHasher {
            secret: core::array::from_fn(|_| stream.next() | 1),
        }
    }

    /// Hash of the words.
    #[inline]
    pub(crate) fn hash(&self, words: &[[u64; 4]]) -> u64 {
        let s = &self.secret;
        let (mut a, mut b) = (s[2], s[3]);
        for w in words {
            a = fold(w[0] ^ s[0], w[1] ^ a);
            b = fold(w[2] ^ s[1], w[3] ^ b);
        }
        fold(a ^ s[0] ^ s[3], b ^ s[1] ^ s[2])
    }
}

/// High and low half of the product, folded: every bit of the result depends on every bit of both.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// The splitmix64 sequence: spreads one seed into many (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) const fn new(seed: u64) -> Self {
        SplitMix(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Bytes of the longest Toeplitz input: an IPv6 four-tuple.
pub const TOEPLITZ_INPUT_MAX: usize = 36;

/// Shortest key: input and 32 bits of window.
pub const RSS_KEY_LEN_MIN: usize = TOEPLITZ_INPUT_MAX + 4;
/// Longest key that NICs take (ice, i40e: 52).
pub const RSS_KEY_LEN_MAX: usize = 128;

/// The key that Microsoft's RSS specification verifies with; NICs ship with it.
pub const MICROSOFT_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The Toeplitz hash of RSS over `src addr, dst addr, src port, dst port` as the packet carries them.
#[derive(Clone)]
pub struct Toeplitz {
    /// Contribution of each value of each input byte.
    table: Box<[[u32; 256]]>,
}

impl fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Toeplitz")
    }
}

/// A key that is shorter than [`RSS_KEY_LEN_MIN`] or longer than [`RSS_KEY_LEN_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLengthError {
    /// Length given, in bytes.
    pub len: usize,
}

impl fmt::Display for KeyLengthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "an RSS key has {RSS_KEY_LEN_MIN} to {RSS_KEY_LEN_MAX} bytes, not {}",
            self.len
        )
    }
}

impl core::error::Error for KeyLengthError {}

impl Toeplitz {
    /// Prepares `key`; 36 KiB of tables.
    pub fn new(key: &[u8]) -> Result<Self, KeyLengthError> {
        if !(RSS_KEY_LEN_MIN..=RSS_KEY_LEN_MAX).contains(&key.len()) {
            return Err(KeyLengthError { len: key.len() });
        }
        let table: Vec<[u32; 256]> = (0..TOEPLITZ_INPUT_MAX)
            .map(|byte| {
                core::array::from_fn(|value| {
                    let set = (0..8).filter(|bit| value & (0x80 >> bit) != 0);
                    set.fold(0, |hash, bit| hash ^ window(key, byte * 8 + bit))
                })
            })
            .collect();
        Ok(Toeplitz {
            table: table.into_boxed_slice(),
        })
    }

    /// Hash of `input`, as if it stood at byte `offset` of the tuple with zeros around it. Bytes beyond
    /// the longest tuple count as zero.
    #[inline]
    pub(crate) fn hash_at(&self, offset: usize, input: &[u8]) -> u32 {
        let tables = self.table.get(offset..).unwrap_or_default();
        tables
            .iter()
            .zip(input)
            .fold(0, |hash, (table, &byte)| hash ^ table[usize::from(byte)])
    }

    /// Hash of a four-tuple. Ends of different families (which no packet has) hash as their bytes stand.
    pub fn hash(&self, src: SocketAddr, dst: SocketAddr) -> u32 {
        let mut at = 0;
        let mut hash = 0;
        for addr in [src.ip(), dst.ip()] {
            match addr {
                IpAddr::V4(a) => {
                    hash ^= self.hash_at(at, &a.octets());
                    at += 4;
                }
                IpAddr::V6(a) => {
                    hash ^= self.hash_at(at, &a.octets());
                    at += 16;
                }
            }
        }
        hash ^ self.hash_at(at, &src.port().to_be_bytes()) ^ self.hash_at(at + 2, &dst.port().to_be_bytes())
    }

    /// Hash of a tuple as its packet carries it.
    pub fn hash_tuple(&self, tuple: &Tuple) -> u32 {
        self.hash(tuple.src, tuple.dst)
    }
}

/// The 32 bits of the key that begin at `bit`.
fn window(key: &[u8], bit: usize) -> u32 {
    let byte = |i: usize| u64::from(key.get(i).copied().unwrap_or(0));
    let first = bit / 8;
    let five = (0..5).fold(0, |acc, i| acc << 8 | byte(first + i));
    (five >> (8 - bit % 8)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms() -> Toeplitz {
        Toeplitz::new(&MICROSOFT_KEY).expect("40 bytes")
    }

    /// The verification suite of Microsoft's RSS specification ("Verifying the RSS Hash Calculation").
    #[test]
    fn microsofts_verification_suite() {
        for (dst, src, want) in [
            ("161.142.100.80:1766", "66.9.149.187:2794", 0x51cc_c178),
            ("65.69.140.83:4739", "199.92.111.2:14230", 0xc626_b0ea),
            ("12.22.207.184:38024", "24.19.198.95:12898", 0x5c2b_394a),
            ("209.142.163.6:2217", "38.27.205.30:48228", 0xafc7_327f),
            ("202.188.127.2:1303", "153.39.163.191:44251", 0x10e8_28a2),
            (
                "[3ffe:2501:200:3::1]:1766",
                "[3ffe:2501:200:1fff::7]:2794",
                0x4020_7d3d,
            ),
            (
                "[ff02::1]:4739",
                "[3ffe:501:8::260:97ff:fe40:efab]:14230",
                0xdde5_1bbf,
            ),
            (
                "[fe80::200:f8ff:fe21:67cf]:38024",
                "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
                0x02d1_feef,
            ),
        ] {
            let (src, dst) = (src.parse().expect("address"), dst.parse().expect("address"));
            assert_eq!(ms().hash(src, dst), want, "{src} > {dst}");
        }
    }

    #[test]
    fn keys_of_a_wrong_length_are_refused() {
        for len in [0, 39, 129] {
            let key = alloc::vec![1; len];
            assert_eq!(Toeplitz::new(&key).err(), Some(KeyLengthError { len }));
        }
        assert!(Toeplitz::new(&[1; 52]).is_ok());
    }

    proptest! {
        #[test]
        fn toeplitz_is_linear(a in any::<[u8; 36]>(), b in any::<[u8; 36]>(), key in proptest::collection::vec(any::<u8>(), 40..60)) {
            let t = Toeplitz::new(&key).expect("length fits");
            let xor: Vec<u8> = a.iter().zip(&b).map(|(x, y)| x ^ y).collect();
            prop_assert_eq!(t.hash_at(0, &a) ^ t.hash_at(0, &b), t.hash_at(0, &xor));
        }

        #[test]
        fn toeplitz_equals_its_bitwise_definition(input in any::<[u8; 36]>(), key in proptest::collection::vec(any::<u8>(), 40..60)) {
            let t = Toeplitz::new(&key).expect("length fits");
            let mut want = 0u32;
            for bit in 0..288usize {
                if input[bit / 8] & (0x80 >> (bit % 8)) != 0 {
                    let mut w = 0u32;
                    for i in 0..32 {
                        w = w << 1 | u32::from(key[(bit + i) / 8] >> (7 - (bit + i) % 8) & 1);
                    }
                    want ^= w;
                }
            }
            prop_assert_eq!(t.hash_at(0, &input), want);
        }

        #[test]
        fn one_bit_of_a_tuple_changes_half_of_the_hash(addrs in any::<u64>(), ports in any::<u64>(), bit in 0u32..104) {
            // Averaged over seeds: between a quarter and three quarters of 64 bits.
            let mut flipped = 0;
            for seed in 0..64 {
                let h = TupleHasher::new(seed);
                let other = if bit < 64 { h.hash_v4(addrs ^ 1 << bit, ports) } else { h.hash_v4(addrs, ports ^ 1 << (bit - 64)) };
                flipped += (h.hash_v4(addrs, ports) ^ other).count_ones();
            }
            prop_assert!((16 * 64..48 * 64).contains(&flipped), "{flipped}");
        }
    }

    #[test]
    fn seeds_give_different_hashes() {
        let hash = |seed| TupleHasher::new(seed).hash_v6([1, 2], [3, 4], 5);
        assert_ne!(hash(1), hash(2));
        assert_eq!(hash(1), hash(1));
    }
}
