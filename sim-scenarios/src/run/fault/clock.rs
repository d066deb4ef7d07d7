//! Clocks of nodes.

use std::time::Duration;

use evenkeel_io_sim::{LbId, World};

use super::refused;
use crate::run::RunError;
use crate::run::build::Built;

/// A clock drifts as it ever does, and by the drifts of all faults in force besides.
pub(super) fn drift(
    built: &mut Built,
    lb: LbId,
    in_force: impl Iterator<Item = i32>,
) -> Result<(), RunError> {
    let own = built.drifts.get(usize::from(lb.0)).copied().unwrap_or(0);
    let all = in_force.fold(own, i32::saturating_add);
    built.world.set_drift(lb, all).map_err(refused)
}

pub(super) fn step(world: &mut World, lb: LbId, by: Duration) -> Result<(), RunError> {
    world.step_clock(lb, by).map_err(refused)
}

pub(super) fn set_wall(world: &mut World, lb: LbId, by_ns: i64) -> Result<(), RunError> {
    world.step_wall_clock(lb, by_ns).map_err(refused)
}
