//! A node among others: who is who, who decides about which sessions, and what workers are told of it.

mod id;

pub use id::{Authority, Epoch, GroupId, Incarnation, NodeId, PeerId, Role};

/// Nodes of a cluster at most.
pub const NODE_COUNT_MAX: usize = 16;
/// Generations of one node's sessions that are alive at a time, at most.
pub const GENERATION_COUNT_MAX: usize = 4;
/// Traffic groups that a node knows at a time, at most.
pub const GROUP_COUNT_MAX: usize = NODE_COUNT_MAX * GENERATION_COUNT_MAX;
