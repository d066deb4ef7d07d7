//! The index: from the hash of a tuple to conns. Cuckoo hashing with buckets of one cache line.
//!
//! A key has two candidate buckets. The second is computed from the first and the signature alone, and
//! the first from the second likewise, so that an entry can be moved without reading its conn. The number
//! of buckets need not be a power of two: the two sum up to a number that depends on the signature,
//! modulo the number of buckets.

use bytemuck::{Pod, Zeroable};

use super::{ConnRef, Hint};
use crate::memory::Region;
use crate::prefetch::prefetch;

/// Entries of a bucket.
pub const WAYS: usize = 8;

/// Buckets that an insertion looks at, at most, for a chain of moves that frees a place.
const SEARCH_MAX: usize = 512;

/// Eight signatures and their conns; a conn of 0 is an empty place.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Bucket {
    signatures: [u32; WAYS],
    conns: [u32; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);

/// The two candidate buckets and the signature of a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Candidates {
    pub(crate) first: u32,
    pub(crate) signature: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    buckets: Region<Bucket>,
    len: usize,
}

/// No chain of moves within the bound frees a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexFull;

impl Index {
    /// An index over zeroed `buckets`, which are not none.
    pub(crate) fn new(buckets: Region<Bucket>) -> Self {
        assert!(!buckets.is_empty(), "an index has a bucket at least");
        assert!(
            u32::try_from(buckets.len()).is_ok(),
            "bucket numbers have 32 bits"
        );
        Index { buckets, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn capacity(&self) -> usize {
        self.buckets.len() * WAYS
    }

    #[inline]
    pub(crate) fn candidates(&self, hash: u64) -> Candidates {
        Candidates {
            first: self.reduce(hash >> 32),
            signature: hash as u32,
        }
    }

    /// The other bucket of an entry that stands in `bucket`.
    #[inline]
    pub(crate) fn other(&self, bucket: u32, signature: u32) -> u32 {
        // Knuth's multiplicative constant: the sum shall not depend on the high bits of the signature only.
        let sum = self.reduce(u64::from(signature.wrapping_mul(0x9e37_79b1)));
        if sum >= bucket {
            sum - bucket
        } else {
            sum + self.buckets.len() as u32 - bucket
        }
    }

    /// From 32 random bits to a bucket, by multiplication.
    #[inline]
    fn reduce(&self, bits: u64) -> u32 {
        ((bits * self.buckets.len() as u64) >> 32) as u32
    }

    #[inline]
    pub(crate) fn prefetch(&self, bucket: u32) {
        prefetch(self.line(bucket));
    }

    /// Where `bucket` is, for asking.
    #[inline]
    pub(crate) fn line(&self, bucket: u32) -> *const Bucket {
        self.buckets.as_ptr().wrapping_add(bucket as usize)
    }

    /// Conns in `bucket` with this signature.
    #[inline]
    pub(crate) fn matches(&self, bucket: u32, signature: u32) -> Matches<'_> {
        let bucket = &self.buckets[bucket as usize];
        let mut mask = 0u32;
        for way in 0..WAYS {
            mask |= u32::from(bucket.signatures[way] == signature && bucket.conns[way] != 0) << way;
        }
        Matches { bucket, mask }
    }

    /// A conn in `bucket` with this signature, if there is one: no more than a hint, as two at once make a
    /// number that is neither's. No branch depends on which way it is in, which cannot be predicted.
    #[inline]
    pub(crate) fn hint(&self, bucket: u32, signature: u32) -> Hint {
        let Bucket { signatures, conns } = &self.buckets[bucket as usize];
        let mut bits = 0;
        for (&s, &conn) in signatures.iter().zip(conns) {
            bits |= if s == signature { conn } else { 0 };
        }
        Hint::from_bits(bits)
    }

    /// Whether `bucket` has an entry of this conn and direction.
    #[inline]
    pub(crate) fn holds(&self, bucket: u32, conn: u32) -> bool {
        self.buckets[bucket as usize].conns.contains(&conn)
    }

    /// Conns with this signature in either bucket.
    #[inline]
    pub(crate) fn find(&self, at: Candidates) -> impl Iterator<Item = ConnRef> + '_ {
        let second = self.other(at.first, at.signature);
        let rest = (second != at.first).then(|| self.matches(second, at.signature));
        self.matches(at.first, at.signature)
            .chain(rest.into_iter().flatten())
    }

    /// Adds an entry. Its conn is in no entry with the same signature yet.
    pub(crate) fn insert(&mut self, at: Candidates, conn: ConnRef) -> Result<(), IndexFull> {
        let second = self.other(at.first, at.signature);
        for bucket in [at.first, second] {
            if let Some(way) = self.free_way(bucket) {
                self.put(bucket, way, at.signature, conn.bits());
                self.len += 1;
                return Ok(());
            }
        }
        let (bucket, way) = match self.move_one([at.first, second]) {
            Some(freed) => freed,
            None => self.make_room(at.first, second)?,
        };
        self.put(bucket, way, at.signature, conn.bits());
        self.len += 1;
        Ok(())
    }

    /// Takes an entry out; `false` if it is not there.
    pub(crate) fn remove(&mut self, at: Candidates, conn: ConnRef) -> bool {
        let second = self.other(at.first, at.signature);
        for bucket in [at.first, second] {
            let b = &mut self.buckets[bucket as usize];
            let is_it = |way| b.conns[way] == conn.bits() && b.signatures[way] == at.signature;
            if let Some(way) = first_way(is_it) {
                b.conns[way] = 0;
                self.len -= 1;
                return true;
            }
        }
        false
    }

    #[inline]
    fn free_way(&self, bucket: u32) -> Option<usize> {
        let conns = &self.buckets[bucket as usize].conns;
        first_way(|way| conns[way] == 0)
    }

    #[inline]
    fn put(&mut self, bucket: u32, way: usize, signature: u32, conn: u32) {
        let b = &mut self.buckets[bucket as usize];
        b.signatures[way] = signature;
        b.conns[way] = conn;
    }

    /// Moves one entry of two full buckets to where it has its other place, if one of those is free: what mostly
    /// suffices. Returns the place that is free then.
    fn move_one(&mut self, full: [u32; 2]) -> Option<(u32, usize)> {
        for bucket in full {
            let Bucket { signatures, conns } = self.buckets[bucket as usize];
            for way in 0..WAYS {
                let next = self.other(bucket, signatures[way]);
                if next != bucket
                    && let Some(free) = self.free_way(next)
                {
                    self.put(next, free, signatures[way], conns[way]);
                    return Some((bucket, way));
                }
            }
        }
        None
    }

    /// Searches, breadth first, the shortest chain of moves that frees a place in one of two full buckets,
    /// and makes the moves. The shortest chain visits no bucket twice, so that no move undoes another.
    #[inline(never)]
    fn make_room(&mut self, first: u32, second: u32) -> Result<(u32, usize), IndexFull> {
        // (bucket, place in `seen` that it was reached from, way there)
        let mut seen = [(0u32, 0u16, 0u8); SEARCH_MAX];
        seen[0] = (first, u16::MAX, 0);
        seen[1] = (second, u16::MAX, 0);
        let mut len = 2;
        let mut at = 0;
        while at < len {
            let bucket = seen[at].0;
            for way in 0..WAYS {
                let signature = self.buckets[bucket as usize].signatures[way];
                let next = self.other(bucket, signature);
                if next == bucket {
                    continue;
                }
                if let Some(free) = self.free_way(next) {
                    return Ok(self.move_back(&seen, at, way, next, free));
                }
                if len < SEARCH_MAX {
                    seen[len] = (next, at as u16, way as u8);
                    len += 1;
                }
            }
            at += 1;
        }
        Err(IndexFull)
    }

    /// Moves entries along the chain that ends at `seen[at]`, last first; returns the place that is free then.
    fn move_back(
        &mut self,
        seen: &[(u32, u16, u8)],
        mut at: usize,
        mut way: usize,
        mut to: u32,
        mut free: usize,
    ) -> (u32, usize) {
        loop {
            let (bucket, from, way_from) = seen[at];
            let b = self.buckets[bucket as usize];
            self.put(to, free, b.signatures[way], b.conns[way]);
            if from == u16::MAX {
                return (bucket, way);
            }
            (to, free) = (bucket, way);
            way = usize::from(way_from);
            at = usize::from(from);
        }
    }
}

/// The first way of a bucket of which something holds. All are looked at, by no branch: which it is cannot be predicted.
#[inline]
fn first_way(holds: impl Fn(usize) -> bool) -> Option<usize> {
    let mask = (0..WAYS).fold(0u32, |mask, way| mask | u32::from(holds(way)) << way);
    (mask != 0).then(|| mask.trailing_zeros() as usize % WAYS)
}

/// Iterator over the conns of a bucket whose signature matched.
pub(crate) struct Matches<'a> {
    bucket: &'a Bucket,
    mask: u32,
}

impl Iterator for Matches<'_> {
    type Item = ConnRef;
    #[inline]
    fn next(&mut self) -> Option<ConnRef> {
        if self.mask == 0 {
            return None;
        }
        let way = self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        ConnRef::from_bits(self.bucket.conns[way & (WAYS - 1)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::ConnId;
    use crate::hash::SplitMix;
    use crate::tuple::Direction;
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn conn(n: u32) -> ConnRef {
        ConnId::v4(n).with(Direction::Inbound)
    }

    #[test]
    fn first_refusal_is_above_95_percent() {
        // Sizes that are powers of two, primes and neither; several seeds each.
        for buckets in [64, 1_009, 4_096, 40_000] {
            for seed in 0..4 {
                let mut index = Index::new(Region::zeroed(buckets));
                let mut random = SplitMix::new(seed);
                let mut n = 0;
                while index.insert(index.candidates(random.next()), conn(n)).is_ok() {
                    n += 1;
                }
                let load = index.len() * 1000 / index.capacity();
                assert!(
                    load > 950,
                    "{buckets} buckets, seed {seed}: refused at {load} per mille"
                );
                assert_eq!(index.len(), n as usize);
            }
        }
    }

    #[test]
    fn a_refusal_loses_nothing() {
        let mut index = Index::new(Region::zeroed(16));
        let mut random = SplitMix::new(9);
        let mut inserted = Vec::new();
        for n in 0..1000 {
            let hash = random.next();
            if index.insert(index.candidates(hash), conn(n)).is_ok() {
                inserted.push((hash, n));
            }
        }
        assert!(inserted.len() < 1000, "some were refused");
        for &(hash, n) in &inserted {
            assert!(index.find(index.candidates(hash)).any(|c| c == conn(n)));
        }
        for (hash, n) in inserted {
            assert!(index.remove(index.candidates(hash), conn(n)));
        }
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn the_other_bucket_of_the_other_bucket_is_the_bucket() {
        let mut random = SplitMix::new(1);
        for buckets in [1, 2, 3, 7, 64, 1_000_003] {
            let index = Index::new(Region::zeroed(buckets));
            for _ in 0..1000 {
                let c = index.candidates(random.next());
                let other = index.other(c.first, c.signature);
                assert!((other as usize) < buckets);
                assert_eq!(index.other(other, c.signature), c.first);
            }
        }
    }

    proptest! {
        /// The slow, obvious twin.
        #[test]
        fn equals_a_btreemap(buckets in 1usize..40, steps in proptest::collection::vec((any::<bool>(), 0u64..200), 1..600)) {
            let mut index = Index::new(Region::zeroed(buckets));
            let mut twin: BTreeMap<u64, ConnRef> = BTreeMap::new();
            for (n, (add, key)) in (0u32..).zip(steps) {
                // Few distinct signatures and buckets: collisions are the point.
                let hash = (key % 13) << 32 | (key / 13) << 60 | (key % 7);
                let at = index.candidates(hash);
                let key = (u64::from(at.first) << 32) | u64::from(at.signature) | (key << 48);
                if add && !twin.contains_key(&key) {
                    if index.insert(at, conn(n)).is_ok() {
                        twin.insert(key, conn(n));
                    }
                } else if !add {
                    let want = twin.remove(&key);
                    prop_assert_eq!(want.is_some_and(|c| index.remove(at, c)), want.is_some());
                }
                prop_assert_eq!(index.len(), twin.len());
                for (k, c) in &twin {
                    let at = Candidates { first: (k << 16 >> 48) as u32, signature: *k as u32 };
                    prop_assert_eq!(index.find(at).filter(|f| f == c).count(), 1);
                }
            }
        }
    }
}
