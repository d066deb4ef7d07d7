//! Nodes: crash, start, pause, resume, drain, damage.

use evenkeel_io_sim::{LbId, LbState, Ppm, World};

use super::refused;
use crate::run::{RunError, cluster};

fn state(world: &World, lb: LbId) -> Option<LbState> {
    world.lb(lb).map(|lb| lb.state())
}

pub(super) fn is_down(world: &World, lb: LbId) -> bool {
    state(world, lb) == Some(LbState::Down)
}

pub(super) fn is_running(world: &World, lb: LbId) -> bool {
    state(world, lb) == Some(LbState::Running)
}

pub(super) fn is_paused(world: &World, lb: LbId) -> bool {
    state(world, lb) == Some(LbState::Paused)
}

pub(super) fn crash(world: &mut World, lb: LbId) -> Result<(), RunError> {
    world.crash(lb).map_err(refused)
}

/// One that runs already goes on. `state`: its disk is still there.
pub(super) fn start(world: &mut World, lb: LbId, state: bool) -> Result<(), RunError> {
    if !is_down(world, lb) {
        return Ok(());
    }
    if !state {
        world.lose_state(lb).map_err(refused)?;
    }
    world.start(lb).map_err(refused)
}

/// `clock`: it goes on meanwhile.
pub(super) fn pause(world: &mut World, lb: LbId, clock: bool) -> Result<(), RunError> {
    match (is_running(world, lb), clock) {
        (true, true) => world.pause(lb).map_err(refused),
        (true, false) => world.pause_with_clock(lb).map_err(refused),
        (false, _) => Ok(()),
    }
}

pub(super) fn resume(world: &mut World, lb: LbId) -> Result<(), RunError> {
    if is_paused(world, lb) {
        world.resume(lb).map_err(refused)
    } else {
        Ok(())
    }
}

/// Nobody hears it on a node that does not run.
pub(super) fn drain(world: &mut World, lb: LbId) -> Result<(), RunError> {
    if is_running(world, lb) {
        cluster::drain(world, lb)
    } else {
        Ok(())
    }
}

/// A node that is down has nothing that could be damaged.
pub(super) fn damage(world: &mut World, lb: LbId, share_ppm: u32) -> Result<u64, RunError> {
    if is_down(world, lb) {
        return Ok(0);
    }
    world.damage(lb, Ppm(share_ppm)).map_err(refused)
}
