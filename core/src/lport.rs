//! RSS-aligned local ports: of the 65,536 local ports those that make a reply fall into the bucket of its
//! connection, so that plain RSS brings both directions to one worker.
//!
//! Toeplitz is linear over GF(2): the hash of a reply is the hash with local port 0, xor a linear map `t` of
//! the port. A *class* is the set of ports whose `t` has the same low bits, the bits that choose the bucket.
//! If `t` has full rank over those bits, every class is a particular solution xor the kernel of `t`, and all
//! classes have the same size.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::hash::{KeyLengthError, Toeplitz};
use crate::tuple::Family;

/// Buckets of a cluster at most.
pub const BUCKET_COUNT_MAX: u16 = 256;
/// Buckets of a cluster unless configured: i40e's virtual functions have tables of 64.
pub const BUCKET_COUNT_DEFAULT: u16 = 64;

/// How packets are steered: key, number of buckets, port classes of both families. The same on every node
/// of a cluster.
#[derive(Clone, Debug)]
pub struct Steering {
    toeplitz: Toeplitz,
    buckets: u16,
    v4: PortClasses,
    v6: PortClasses,
}

/// Why key and number of buckets cannot steer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeringError {
    /// The key has a wrong length.
    KeyLength(KeyLengthError),
    /// The key or the number of buckets cannot align local ports.
    PortClass(PortClassError),
}

impl fmt::Display for SteeringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyLength(e) => e.fmt(f),
            Self::PortClass(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for SteeringError {}

impl Steering {
    /// Steering by `key` over `buckets` buckets, or all that is wrong with them.
    pub fn new(key: &[u8], buckets: u16) -> Result<Self, Vec<SteeringError>> {
        let toeplitz = Toeplitz::new(key).map_err(|e| alloc::vec![SteeringError::KeyLength(e)])?;
        let v4 = PortClasses::new(&toeplitz, Family::V4, buckets);
        let v6 = PortClasses::new(&toeplitz, Family::V6, buckets);
        match (v4, v6) {
            (Ok(v4), Ok(v6)) => Ok(Steering {
                toeplitz,
                buckets,
                v4,
                v6,
            }),
            (v4, v6) => {
                let mut errors: Vec<_> = [v4.err(), v6.err()]
                    .into_iter()
                    .flatten()
                    .map(SteeringError::PortClass)
                    .collect();
                errors.dedup();
                Err(errors)
            }
        }
    }

    /// The hash of RSS.
    pub fn toeplitz(&self) -> &Toeplitz {
        &self.toeplitz
    }

    /// Buckets of the cluster.
    pub fn buckets(&self) -> u16 {
        self.buckets
    }

    /// The bucket of a hash.
    pub fn bucket(&self, hash: u32) -> u16 {
        hash as u16 & (self.buckets - 1)
    }

    /// Ports from `min` on in the smallest class of either family: 0 means that some connections never find one.
    pub fn usable_ports(&self, min: u16) -> u32 {
        let smallest = |classes: &PortClasses| {
            let class = |particular: &u16| PortClass {
                classes,
                particular: *particular,
            };
            let usable = |c: PortClass<'_>| (0..c.len()).filter(|&i| c.port(i) >= min).count() as u32;
            classes
                .particular
                .iter()
                .map(|p| usable(class(p)))
                .min()
                .unwrap_or(0)
        };
        smallest(&self.v4).min(smallest(&self.v6))
    }

    /// The class of local ports that brings the replies of `server` to `local` into `bucket`.
    pub fn class_for(&self, server: SocketAddr, local: IpAddr, bucket: u16) -> PortClass<'_> {
        self.class_of(
            Family::of(&local),
            self.server_base(server) ^ self.local_base(local),
            bucket,
        )
    }

    /// What a server is for the class of its replies: with [`Steering::local_base`], xored, it makes a base.
    pub fn server_base(&self, server: SocketAddr) -> u16 {
        let classes = self.classes(Family::of(&server.ip()));
        let addr = addr_hash(&self.toeplitz, 0, server.ip());
        (addr
            ^ self
                .toeplitz
                .hash_at(2 * classes.half(), &server.port().to_be_bytes())) as u16
    }

    /// What a LIP is for the class of the replies to it.
    pub fn local_base(&self, local: IpAddr) -> u16 {
        let classes = self.classes(Family::of(&local));
        addr_hash(&self.toeplitz, classes.half(), local) as u16
    }

    /// The class of local ports that brings replies with this base into `bucket`.
    #[inline]
    pub fn class_of(&self, family: Family, base: u16, bucket: u16) -> PortClass<'_> {
        let classes = self.classes(family);
        let class = (bucket ^ base) & classes.bucket_mask;
        PortClass {
            classes,
            particular: classes.particular[usize::from(class)],
        }
    }

    #[inline]
    fn classes(&self, family: Family) -> &PortClasses {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// Hash of an address that stands at byte `at` of the tuple.
fn addr_hash(toeplitz: &Toeplitz, at: usize, addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(a) => toeplitz.hash_at(at, &a.octets()),
        IpAddr::V6(a) => toeplitz.hash_at(at, &a.octets()),
    }
}

/// The port classes of one family under one key.
#[derive(Clone, Debug)]
pub struct PortClasses {
    /// Bytes in front of the local port in the Toeplitz input of a reply.
    port_offset: usize,
    bucket_mask: u16,
    /// A port of each class.
    particular: Box<[u16]>,
    /// The kernel element of index i is `low[i & 0xff] ^ high[i >> 8]`.
    kernel_low: [u16; 256],
    kernel_high: [u16; 256],
}

/// Why a key cannot align local ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortClassError {
    /// Not a power of two between 1 and [`BUCKET_COUNT_MAX`].
    BucketCount(u16),
    /// The key maps the local port onto fewer buckets than there are.
    Rank {
        /// For replies of this family.
        family: Family,
        /// Rank of the map from local port to bucket.
        rank: u32,
        /// Rank that the number of buckets needs.
        needed: u32,
    },
}

impl fmt::Display for PortClassError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BucketCount(n) => {
                write!(
                    f,
                    "the number of buckets is a power of two from 1 to {BUCKET_COUNT_MAX}, not {n}"
                )
            }
            Self::Rank { family, rank, needed } => write!(
                f,
                "with this key the local port of {family} replies reaches only {} of {} buckets (rank {rank}, needed {needed})",
                1u32 << rank,
                1u32 << needed
            ),
        }
    }
}

impl core::error::Error for PortClassError {}

impl PortClasses {
    /// The classes of `family` for `buckets` buckets, or why there are none.
    pub fn new(toeplitz: &Toeplitz, family: Family, buckets: u16) -> Result<Self, PortClassError> {
        if !buckets.is_power_of_two() || buckets > BUCKET_COUNT_MAX {
            return Err(PortClassError::BucketCount(buckets));
        }
        let port_offset = match family {
            Family::V4 => 4 + 4 + 2,
            Family::V6 => 16 + 16 + 2,
        };
        let bucket_mask = buckets - 1;
        let needed = bucket_mask.count_ones();
        let column = |port: u16| toeplitz.hash_at(port_offset, &port.to_be_bytes()) as u16 & bucket_mask;

        // Gauss: a basis of the image, each with the port that makes it; what reduces to zero is kernel.
        let mut image: Vec<(u16, u16)> = Vec::new();
        let mut kernel: Vec<u16> = Vec::new();
        for bit in 0..16 {
            let mut port = 1u16 << bit;
            let mut value = column(port);
            for &(v, p) in &image {
                if value & leading(v) != 0 {
                    value ^= v;
                    port ^= p;
                }
            }
            if value == 0 {
                kernel.push(port)
            } else {
                image.push((value, port))
            }
        }
        // Highest bits first: neighbouring indices then differ in the high bits of the port, and ports below the
        // configured minimum do not stand in long runs.
        reduce(&mut kernel);
        let rank = image.len() as u32;
        if rank < needed {
            return Err(PortClassError::Rank { family, rank, needed });
        }
        let particular = (0..buckets)
            .map(|class| {
                let (mut rest, mut port) = (class, 0);
                for &(v, p) in &image {
                    if rest & leading(v) != 0 {
                        rest ^= v;
                        port ^= p;
                    }
                }
                port
            })
            .collect();
        let combine = |i: usize, shift: usize| {
            let chosen = kernel.iter().skip(shift).take(8).enumerate();
            chosen
                .filter(|(bit, _)| i >> bit & 1 != 0)
                .fold(0, |acc, (_, k)| acc ^ k)
        };
        Ok(PortClasses {
            port_offset,
            bucket_mask,
            particular,
            kernel_low: core::array::from_fn(|i| combine(i, 0)),
            kernel_high: core::array::from_fn(|i| combine(i, 8)),
        })
    }

    /// Ports in each class: 65,536 / buckets.
    pub fn class_len(&self) -> u32 {
        65_536 / (u32::from(self.bucket_mask) + 1)
    }

    /// Length of an address: where the second one stands in the Toeplitz input.
    fn half(&self) -> usize {
        self.port_offset / 2 - 1
    }
}

/// Brings a basis into reduced echelon form, highest leading bit first.
fn reduce(basis: &mut [u16]) {
    for i in 0..basis.len() {
        basis[i..].sort_unstable_by(|a, b| b.cmp(a));
        let pivot = basis[i];
        for (j, v) in basis.iter_mut().enumerate() {
            if j != i && *v & leading(pivot) != 0 {
                *v ^= pivot;
            }
        }
    }
}

/// The highest set bit alone.
fn leading(v: u16) -> u16 {
    if v == 0 { 0 } else { 1 << v.ilog2() }
}

/// One class of ports.
#[derive(Clone, Copy, Debug)]
pub struct PortClass<'a> {
    classes: &'a PortClasses,
    particular: u16,
}

impl PortClass<'_> {
    /// The port with index `i`, modulo the length of the class. Every port of the class has one index.
    #[inline]
    pub fn port(&self, i: u32) -> u16 {
        let i = (i & (self.classes.class_len() - 1)) as usize;
        self.particular ^ self.classes.kernel_low[i & 0xff] ^ self.classes.kernel_high[i >> 8]
    }
}

impl PortClass<'_> {
    /// Ports in the class.
    pub fn len(&self) -> u32 {
        self.classes.class_len()
    }

    /// Never: every class has ports.
    pub fn is_empty(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::MICROSOFT_KEY;
    use proptest::prelude::*;

    /// Hardware vendors' symmetric key: both directions of a four-tuple hash alike.
    fn symmetric_key() -> Vec<u8> {
        [0x6d, 0x5a].repeat(20)
    }

    #[test]
    fn every_class_has_its_share_of_the_ports_and_classes_share_none() {
        for key in [MICROSOFT_KEY.to_vec(), symmetric_key()] {
            for buckets in [1, 2, 64, 128, 256] {
                let steering = Steering::new(&key, buckets).expect("full rank");
                for (server, local) in [
                    ("198.51.100.9:80", "10.0.0.1"),
                    ("[2001:db8::9]:443", "2001:db8::1"),
                ] {
                    let (server, local): (SocketAddr, IpAddr) =
                        (server.parse().expect("address"), local.parse().expect("address"));
                    let mut seen = alloc::vec![false; 65_536];
                    for bucket in 0..buckets {
                        let class = steering.class_for(server, local, bucket);
                        assert_eq!(class.len() * u32::from(buckets), 65_536);
                        for i in 0..class.len() {
                            let port = class.port(i);
                            assert!(
                                !core::mem::replace(&mut seen[usize::from(port)], true),
                                "port {port} twice"
                            );
                            let hash = steering.toeplitz().hash(server, SocketAddr::new(local, port));
                            assert_eq!(steering.bucket(hash), bucket);
                        }
                    }
                    assert!(seen.iter().all(|&s| s));
                }
            }
        }
    }

    #[test]
    fn keys_without_full_rank_are_refused_with_the_reason() {
        assert_eq!(
            Steering::new(&[0; 40], 64).err(),
            Some(alloc::vec![
                SteeringError::PortClass(PortClassError::Rank {
                    family: Family::V4,
                    rank: 0,
                    needed: 6
                }),
                SteeringError::PortClass(PortClassError::Rank {
                    family: Family::V6,
                    rank: 0,
                    needed: 6
                }),
            ])
        );
        // Zero only where the local port of IPv6 replies is: IPv4 is fine.
        let mut key = MICROSOFT_KEY;
        key[34..40].fill(0);
        let errors = Steering::new(&key, 64).expect_err("no rank");
        assert!(matches!(
            errors[..],
            [SteeringError::PortClass(PortClassError::Rank {
                family: Family::V6,
                rank: 0,
                ..
            })]
        ));
        assert!(format_of(&errors[0]).contains("reaches only 1 of 64 buckets"));
        // All columns alike: rank 1.
        let errors = Steering::new(&[0xff; 40], 4).expect_err("rank 1");
        assert!(matches!(
            errors[0],
            SteeringError::PortClass(PortClassError::Rank {
                rank: 1,
                needed: 2,
                ..
            })
        ));
    }

    #[test]
    fn low_ports_do_not_stand_in_long_runs() {
        for buckets in [1, 64, 256] {
            let steering = Steering::new(&MICROSOFT_KEY, buckets).expect("full rank");
            for bucket in 0..buckets {
                let class = steering.class_for(
                    "198.51.100.9:80".parse().expect("address"),
                    "10.0.0.1".parse().expect("address"),
                    bucket,
                );
                let (mut run, mut longest) = (0, 0);
                for i in 0..2 * class.len() {
                    run = if class.port(i) < 1024 { run + 1 } else { 0 };
                    longest = longest.max(run);
                }
                assert!(
                    longest <= 2,
                    "{longest} ports in a row below 1024, {buckets} buckets, bucket {bucket}"
                );
            }
        }
    }

    #[test]
    fn usable_ports_counts_the_smallest_class() {
        let steering = Steering::new(&MICROSOFT_KEY, 64).expect("full rank");
        assert_eq!(steering.usable_ports(0), 1024);
        assert_eq!(steering.usable_ports(65_535), 0, "one port is in one class only");
        let usable = steering.usable_ports(1024);
        assert!((900..=1008).contains(&usable), "{usable}");
    }

    fn format_of(e: &SteeringError) -> alloc::string::String {
        alloc::format!("{e}")
    }

    #[test]
    fn the_number_of_buckets_is_a_power_of_two_up_to_256() {
        for buckets in [0, 3, 65, 512] {
            let error = Steering::new(&MICROSOFT_KEY, buckets).expect_err("not a power of two up to 256");
            assert_eq!(
                error,
                [SteeringError::PortClass(PortClassError::BucketCount(buckets))]
            );
        }
    }

    proptest! {
        /// Both tuples of a conn fall into one bucket, whatever key of full rank, number of buckets, family
        /// on either side, and so into one worker for any map of buckets to workers.
        #[test]
        fn both_directions_fall_into_one_bucket(
            key in proptest::collection::vec(any::<u8>(), 40..=52),
            log_buckets in 0u32..=8,
            (client, vip, cport) in (any::<u128>(), any::<u128>(), 1u16..),
            (server, local, rport) in (any::<u128>(), any::<u128>(), 1u16..),
            (client_v4, server_v4) in any::<(bool, bool)>(),
            i in any::<u32>(),
            workers in 1u16..64,
        ) {
            let buckets = 1 << log_buckets;
            let Ok(steering) = Steering::new(&key, buckets) else { return Err(TestCaseError::reject("rank")) };
            let addr = |a: u128, v4| if v4 { IpAddr::V4((a as u32).into()) } else { IpAddr::V6(a.into()) };
            let (client, vip) = (SocketAddr::new(addr(client, client_v4), cport), SocketAddr::new(addr(vip, client_v4), 80));
            let (server, local) = (SocketAddr::new(addr(server, server_v4), rport), addr(local, server_v4));
            let bucket = steering.bucket(steering.toeplitz().hash(client, vip));
            let port = steering.class_for(server, local, bucket).port(i);
            let back = steering.bucket(steering.toeplitz().hash(server, SocketAddr::new(local, port)));
            prop_assert_eq!(bucket, back);
            prop_assert_eq!(bucket % workers, back % workers);
        }
    }
}
