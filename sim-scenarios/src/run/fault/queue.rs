//! Queues between a node's threads.

use evenkeel_io_sim::{LbId, World};

use crate::run::{RunError, cluster};

/// They hold so much, or as much as ever.
pub(super) fn bound(world: &mut World, lb: LbId, entries: Option<u32>) -> Result<(), RunError> {
    cluster::queues(world, lb, entries)
}
