//! What a world may do and hold at most: a number for each, counted the same on every machine.

/// Bounds of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorldBounds {
    /// Events that happen.
    pub events: u64,
    /// Bytes that are held at a time by frames that are under way or in rings, events that wait, flows, connections of
    /// hosts, and the tables of nodes that run. Counted, not measured: the same in every build, and about what is used.
    pub memory_bytes: u64,
}

impl WorldBounds {
    /// Events by default: a quarter of an hour of work, and more.
    pub const EVENTS: u64 = 1_000_000_000;
    /// Memory by default: 4 GiB.
    pub const MEMORY_BYTES: u64 = 4 << 30;

    pub(crate) fn check_events(&self, events: u64, now: u64) -> Result<(), Exceeded> {
        if events <= self.events {
            return Ok(());
        }
        Err(Exceeded::Events {
            bound: self.events,
            at_ns: now,
        })
    }

    pub(crate) fn check_memory(&self, bytes: u64, now: u64) -> Result<(), Exceeded> {
        if bytes <= self.memory_bytes {
            return Ok(());
        }
        Err(Exceeded::Memory {
            bound: self.memory_bytes,
            needed: bytes,
            at_ns: now,
        })
    }
}

impl Default for WorldBounds {
    fn default() -> Self {
        WorldBounds {
            events: WorldBounds::EVENTS,
            memory_bytes: WorldBounds::MEMORY_BYTES,
        }
    }
}

/// A bound that a world is beyond. It stands still then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// More happened.
    #[error("more than {bound} events happened, at {at_ns} ns of simulated time")]
    Events {
        /// As many as may.
        bound: u64,
        /// Simulated time.
        at_ns: u64,
    },
    /// It holds more, or would.
    #[error("{needed} bytes are held of {bound} that may be, at {at_ns} ns of simulated time")]
    Memory {
        /// As much as may be held.
        bound: u64,
        /// As much as there is, or would be.
        needed: u64,
        /// Simulated time.
        at_ns: u64,
    },
}
