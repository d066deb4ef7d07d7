//! Randomness by key instead of by order.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::link::Ppm;

/// What a number is drawn for. With the drawer and a count it names one draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "each is named after what it decides")]
pub enum Purpose {
    Loss = 1,
    Duplication = 2,
    DuplicateDelay = 3,
    Reordering = 4,
    Jitter = 5,
    TcpSeed = 6,
    FlowGap = 7,
    LbSeed = 8,
    QueueDelay = 9,
    Tier = 10,
    Burst = 11,
    BurstLoss = 12,
    NeighbourLoss = 13,
    Corruption = 14,
    Flips = 15,
    RouterSeed = 16,
    Salt = 17,
    /// Crash times, starts of flows: for callers of the world.
    Scenario = 100,
}

/// Random numbers, each a function of (seed, entity, purpose, n): no draw depends on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
}

impl Streams {
    /// All streams of a seed.
    pub const fn new(seed: u64) -> Self {
        Streams { seed }
    }

    /// The seed.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The entity of this name: what draws under a name of its own draws the same whoever else is there.
    pub fn entity(name: &str) -> u64 {
        xxh3_64_with_seed(name.as_bytes(), 0)
    }

    /// The `n`th number that `entity` draws for `purpose`.
    pub fn draw(&self, entity: u64, purpose: Purpose, n: u64) -> u64 {
        let mut key = [0; 18];
        key[..8].copy_from_slice(&entity.to_le_bytes());
        key[8..16].copy_from_slice(&n.to_le_bytes());
        key[16..].copy_from_slice(&(purpose as u16).to_le_bytes());
        xxh3_64_with_seed(&key, self.seed)
    }

    /// As [`Streams::draw`], from 0 to below `end`; 0 if `end` is.
    pub fn below(&self, entity: u64, purpose: Purpose, n: u64, end: u64) -> u64 {
        // The high half of the product: even but for 2^-64 times `end`.
        ((u128::from(self.draw(entity, purpose, n)) * u128::from(end)) >> 64) as u64
    }

    /// A span from zero to below `end`.
    pub fn span(&self, entity: u64, purpose: Purpose, n: u64, end: Duration) -> Duration {
        Duration::from_nanos(self.below(entity, purpose, n, nanos(end)))
    }

    /// Whether something of this likelihood happens.
    pub fn happens(&self, entity: u64, purpose: Purpose, n: u64, likelihood: Ppm) -> bool {
        likelihood.0 > 0 && self.below(entity, purpose, n, 1_000_000) < u64::from(likelihood.0)
    }
}

/// A span in nanoseconds; 584 years at most.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_independent_and_even() {
        let streams = Streams::new(7);
        assert_eq!(
            streams.draw(1, Purpose::Loss, 2),
            streams.draw(1, Purpose::Loss, 2)
        );
        assert_ne!(
            streams.draw(1, Purpose::Loss, 2),
            streams.draw(1, Purpose::Jitter, 2)
        );
        assert_ne!(
            streams.draw(1, Purpose::Loss, 2),
            streams.draw(2, Purpose::Loss, 2)
        );
        assert_ne!(
            streams.draw(1, Purpose::Loss, 2),
            Streams::new(8).draw(1, Purpose::Loss, 2)
        );
        let hits = (0..100_000)
            .filter(|&n| streams.happens(3, Purpose::Loss, n, Ppm(10_000)))
            .count();
        assert!((800..1200).contains(&hits), "{hits} of 100,000 at 1 %");
        assert!(!streams.happens(3, Purpose::Loss, 0, Ppm(0)));
        assert!(streams.happens(3, Purpose::Loss, 0, Ppm(1_000_000)));
        assert_eq!(streams.below(1, Purpose::Loss, 0, 0), 0);
    }
}
