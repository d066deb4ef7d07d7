//! Room and pace: queues and rings that hold little, tables that are nearly full, workers that are slow.

use std::time::Duration;

use evenkeel_io_sim::{LbId, Ppm, SLOWNESS_MAX, World};

use super::{Met, Standing, refused};
use crate::run::{RunError, cluster};
use crate::scenario::Scenario;

/// Sessions that fill a table to the end of the run last so much longer.
const BEYOND_THE_END: Duration = Duration::from_secs(1);

/// Faults in force. Of several bounds of the same queue or ring the least holds; of several factors the product.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    queues: Standing<u32>,
    rings: Standing<u32>,
    slow: Standing<(Option<u8>, u32)>,
}

impl Rooms {
    pub(super) fn queues(
        &mut self,
        world: &mut World,
        met: Met,
        lb: LbId,
        entries: u32,
    ) -> Result<(), RunError> {
        self.queues.begin(met, lb, entries);
        cluster::queues(world, lb, self.queues.of(lb).min())
    }

    pub(super) fn rings(
        &mut self,
        world: &mut World,
        scenario: &Scenario,
        met: Met,
        lb: LbId,
        entries: u32,
    ) -> Result<(), RunError> {
        self.rings.begin(met, lb, entries);
        cluster::rings(world, scenario, lb, self.rings.of(lb).min())
    }

    pub(super) fn slow(
        &mut self,
        world: &mut World,
        met: Met,
        lb: LbId,
        what: (Option<u8>, u32),
    ) -> Result<(), RunError> {
        self.slow.begin(met, lb, what);
        self.pace(world, lb, what.0)
    }

    /// A fault has ended.
    pub(super) fn end(
        &mut self,
        world: &mut World,
        scenario: &Scenario,
        met: Met,
        lb: LbId,
    ) -> Result<(), RunError> {
        let has = |all: &Standing<u32>| all.0.iter().any(|(fault, ..)| *fault == met.fault);
        if has(&self.queues) {
            self.queues.end(met);
            cluster::queues(world, lb, self.queues.of(lb).min())?;
        }
        if has(&self.rings) {
            self.rings.end(met);
            cluster::rings(world, scenario, lb, self.rings.of(lb).min())?;
        }
        let slow = self.slow.0.iter().find(|(fault, ..)| *fault == met.fault);
        if let Some((_, _, (worker, _))) = slow.copied() {
            self.slow.end(met);
            self.pace(world, lb, worker)?;
        }
        Ok(())
    }

    /// How much longer the work of a worker takes, or that of the whole node.
    fn pace(&self, world: &mut World, lb: LbId, worker: Option<u8>) -> Result<(), RunError> {
        let factors = self.slow.of(lb).filter(|s| s.0 == worker).map(|s| s.1);
        let all = factors.fold(1, |all: u32, one| all.saturating_mul(one).min(SLOWNESS_MAX));
        world.set_slowness(lb, worker, all).map_err(refused)
    }
}

/// Sessions are gone when the fault ends, by their time, as the clock of the node counts it.
pub(super) fn fill(
    world: &mut World,
    met: Met,
    lb: LbId,
    share_ppm: u32,
    end: Duration,
) -> Result<(), RunError> {
    if super::node::is_down(world, lb) {
        return Ok(());
    }
    let until = met.until.unwrap_or(end + BEYOND_THE_END);
    let remaining = until.saturating_sub(met.now);
    world
        .fill(lb, Ppm(share_ppm), remaining)
        .map(|_| ())
        .map_err(refused)
}
