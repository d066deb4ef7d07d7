//! The clocks of a machine.
//!
//! All that a node does in time goes by the clock since its boot (`CLOCK_BOOTTIME` in production). Nobody can set it, so
//! it never goes back: it is faster or slower than the world, as its crystal and a time service make it; it stands still
//! with a virtual machine that is stopped; and it jumps forward where a hypervisor makes good for that.
//!
//! The wall clock can be set either way. It numbers the lives of a node and decides nothing else.

use std::time::Duration;

use crate::random::nanos;

/// A clock is faster or slower by this at most, in millionths: no real one is by a hundredth of it.
pub const DRIFT_PPM_MAX: i32 = 200_000;

const MILLION: u128 = 1_000_000;

/// What the wall clocks of a world begin with: 2026, in nanoseconds since 1970.
const WALL_AT_START_NS: u64 = 1_767_225_600 * 1_000_000_000;

/// The clock since boot: what it says at a time of the world, and back. In whole nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// When it was changed last, in the world's time.
    since: u64,
    /// What it said then.
    base: u64,
    /// Its nanoseconds in a million of the world's.
    rate: u64,
    stopped: bool,
}

impl Clock {
    /// It says what the world's does, and drifts from it by so much.
    pub(super) fn new(drift_ppm: i32) -> Self {
        Clock {
            since: 0,
            base: 0,
            rate: rate(drift_ppm),
            stopped: false,
        }
    }

    /// What it says at a time of the world that is not before its last change.
    pub(super) fn to_local(self, world: u64) -> u64 {
        if self.stopped {
            return self.base;
        }
        let passed = u128::from(world.saturating_sub(self.since)) * u128::from(self.rate) / MILLION;
        self.base
            .saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The first time of the world at which it says `local` or more; that of its last change at the earliest. `None`:
    /// it stands still, and never does.
    pub(super) fn to_world(self, local: u64) -> Option<u64> {
        let ahead = local.saturating_sub(self.base);
        if ahead == 0 {
            return Some(self.since);
        }
        if self.stopped {
            return None;
        }
        let passes = (u128::from(ahead) * MILLION).div_ceil(u128::from(self.rate));
        Some(
            self.since
                .saturating_add(u64::try_from(passes).unwrap_or(u64::MAX)),
        )
    }

    /// Another drift from now on.
    pub(super) fn set_drift(&mut self, world: u64, drift_ppm: i32) {
        self.settle(world);
        self.rate = rate(drift_ppm);
    }

    /// It jumps forward.
    pub(super) fn step(&mut self, world: u64, by: Duration) {
        self.settle(world);
        self.base = self.base.saturating_add(nanos(by));
    }

    /// It stands still.
    pub(super) fn stop(&mut self, world: u64) {
        self.settle(world);
        self.stopped = true;
    }

    /// It goes on where it stood, if it did.
    pub(super) fn go_on(&mut self, world: u64) {
        self.settle(world);
        self.stopped = false;
    }

    /// What it is from now on begins now. Less than a nanosecond is lost.
    fn settle(&mut self, world: u64) {
        self.base = self.to_local(world);
        self.since = world.max(self.since);
    }
}

fn rate(drift_ppm: i32) -> u64 {
    let drift = i64::from(drift_ppm.clamp(-DRIFT_PPM_MAX, DRIFT_PPM_MAX));
    1_000_000_u64.saturating_add_signed(drift)
}

/// What of a machine outlives its power: its wall clock, and what its disk keeps of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Its wall clock is ahead of the world's by so much, in nanoseconds.
    wall_ahead: i64,
    /// The number of its last life, as it stands in the state directory; `None`: there is nothing.
    last_life: Option<u64>,
}

impl Machine {
    /// Somebody sets the wall clock forward, or back.
    pub(super) fn set_wall(&mut self, by_ns: i64) {
        self.wall_ahead = self.wall_ahead.saturating_add(by_ns);
    }

    /// The state directory is lost.
    pub(super) fn lose_state(&mut self) {
        self.last_life = None;
    }

    /// The number of a life that begins: microseconds since 1970 by the wall clock, but more than the last one that the
    /// disk remembers, as the daemon numbers them. It is written down.
    pub(super) fn begin_life(&mut self, world: u64) -> u64 {
        let wall = (WALL_AT_START_NS.saturating_add(world)).saturating_add_signed(self.wall_ahead);
        let by_clock = (wall / 1_000).max(1);
        let life = by_clock.max(self.last_life.map_or(0, |last| last.saturating_add(1)));
        self.last_life = Some(life);
        life
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Streams};

    /// What it says at a time of the world by counting nanosecond for nanosecond, and the first time when it says more.
    fn slowly(clock: Clock, local: u64, from: u64) -> u64 {
        (from..)
            .find(|&world| clock.to_local(world) >= local)
            .unwrap_or(u64::MAX)
    }

    #[test]
    fn there_and_back_and_never_backwards() {
        let streams = Streams::new(7);
        let draw = |n: u64, k: u64, end: u64| streams.below(n, Purpose::Scenario, k, end);
        for n in 0..300 {
            let mut clock = Clock::new(draw(n, 0, 400_001) as i32 - 200_000);
            let (mut world, mut before) = (0, 0);
            for k in 0..40 {
                world += draw(n, 8 * k + 1, 1 << (1 + draw(n, 8 * k + 2, 50)));
                match draw(n, 8 * k + 3, 5) {
                    0 => clock.set_drift(world, draw(n, 8 * k + 4, 400_001) as i32 - 200_000),
                    1 => clock.step(world, Duration::from_nanos(draw(n, 8 * k + 4, 1 << 40))),
                    2 => clock.stop(world),
                    3 => clock.go_on(world),
                    _ => {}
                }
                let local = clock.to_local(world);
                assert!(local >= before, "it goes back");
                before = local;
                let due = local + draw(n, 8 * k + 5, 1 << 40);
                match clock.to_world(due) {
                    Some(at) => {
                        assert!(
                            at >= clock.since && clock.to_local(at) >= due,
                            "{clock:?} at {due}"
                        );
                        assert!(
                            at == clock.since || clock.to_local(at - 1) < due,
                            "{clock:?} at {due}"
                        );
                    }
                    None => assert!(clock.stopped && due > local),
                }
                let near = local + draw(n, 8 * k + 6, 30);
                if let Some(at) = clock.to_world(near).filter(|_| !clock.stopped) {
                    // It says the same for two nanoseconds at most, however slow it is.
                    let from = clock.since.max(world.saturating_sub(8));
                    assert_eq!(at, slowly(clock, near, from), "{clock:?} at {near}");
                }
            }
        }
    }

    #[test]
    fn ends_of_time_are_no_trouble() {
        for drift in [-DRIFT_PPM_MAX, 0, DRIFT_PPM_MAX, i32::MIN, i32::MAX] {
            let mut clock = Clock::new(drift);
            let _ = clock.to_local(u64::MAX);
            assert!(clock.to_world(u64::MAX).is_some());
            clock.step(5, Duration::MAX);
            assert_eq!(clock.to_local(u64::MAX), u64::MAX);
        }
    }

    #[test]
    fn lives_are_numbered_as_the_daemon_does() {
        let second = 1_000_000_000;
        let mut machine = Machine::default();
        let first = machine.begin_life(0);
        assert_eq!(first, WALL_AT_START_NS / 1_000);
        assert_eq!(machine.begin_life(second), first + 1_000_000);
        // The clock went back: the disk remembers.
        machine.set_wall(-100 * second as i64);
        assert_eq!(machine.begin_life(2 * second), first + 1_000_001);
        // And without it nothing does.
        machine.lose_state();
        assert_eq!(machine.begin_life(3 * second), first - 97_000_000);
        machine.set_wall(i64::MIN);
        machine.set_wall(i64::MIN);
        machine.lose_state();
        assert_eq!(machine.begin_life(0), 1);
    }
}
