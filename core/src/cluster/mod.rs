//! A node among others: who is who, who decides about which sessions, and what workers are told of it.
//!
//! [`NodeCore`] is one node's part of it, without I/O: `handle_*` says that something happened, `poll_*` asks
//! what to do next, the rest reads. [`Control`] joins it with the ear and the voice of the node, and greets others (`greeting.rs`). `role.rs` has the table of roles, `ownership.rs` what drives it, `join.rs`
//! readiness and the copies that it takes, `election.rs` who answers for which address.

mod config;
mod control;
mod election;
mod greeting;
mod group;
mod handover;
mod id;
mod join;
mod member;
mod node;
mod outbox;
mod ownership;
mod report;
mod role;
mod telling;
#[cfg(test)]
mod tests;

pub use config::{
    ANNOUNCE_PORT_COUNT_MAX, ClusterConfig, ClusterConfigError, HEARTBEAT_RANGE, JOIN_TIME_MAX,
    LOCAL_ADDR_COUNT_MAX, Member, VIRTUAL_ADDR_COUNT_MAX, VrrpSettings,
};
pub use control::{Control, ControlSink};
pub use id::{Authority, Epoch, GroupId, Incarnation, NodeId, PeerId, Role};
pub use node::{NodeCommand, NodeCore};
pub use outbox::{COMMAND_COUNT_MAX, EVENT_COUNT_MAX, FRAME_COUNT_MAX, MESSAGE_COUNT_MAX};
pub use report::{Alarm, GroupReport, NodeCounters, NodeEvent, PeerReport};

pub use crate::sync::Destination;

/// Nodes of a cluster at most.
pub const NODE_COUNT_MAX: usize = 16;
/// Generations of one node's sessions that are alive at a time, at most.
pub const GENERATION_COUNT_MAX: usize = 4;
/// Traffic groups that a node knows at a time, at most.
pub const GROUP_COUNT_MAX: usize = NODE_COUNT_MAX * GENERATION_COUNT_MAX;
