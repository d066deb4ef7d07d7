//! Time as an argument: the engine never reads a clock.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A point in time, in nanoseconds since an origin that the caller chooses (boot, the Unix epoch of a
/// capture, the start of a simulation). Only differences mean anything to the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Instant = Instant(0);

    /// The instant `ns` nanoseconds after the origin.
    pub const fn from_nanos(ns: u64) -> Self {
        Instant(ns)
    }

    /// The instant `ms` milliseconds after the origin; saturates.
    pub const fn from_millis(ms: u64) -> Self {
        Instant(ms.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The tick in which this instant lies.
    pub(crate) const fn tick(self) -> u64 {
        self.0 / TICK_NS
    }

    /// The instant at which `tick` begins; `None` behind the end of time, where it never comes.
    pub(crate) const fn from_tick(tick: u64) -> Option<Self> {
        match tick.checked_mul(TICK_NS) {
            Some(ns) => Some(Instant(ns)),
            None => None,
        }
    }

    /// Time since `earlier`, zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_since(earlier)
    }
}

/// Length of a tick of the timer wheel: one millisecond. Timeouts are whole ticks.
pub(crate) const TICK_NS: u64 = 1_000_000;
