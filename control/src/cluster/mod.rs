//! The section `[cluster]`: who the nodes are, which of them this one is, and what each has to itself.

mod check;
mod read;

use std::net::SocketAddr;

use evenkeel_core::cluster::{ClusterConfig, NodeId};

pub(crate) use check::{check, tells_conflict};
pub(crate) use read::{CLUSTER, ClusterDraft, NODE, NODE_PORT, VRRP, read};

/// A cluster, as one of its nodes sees it. [`NodeCore::new`](evenkeel_core::cluster::NodeCore::new) takes its
/// `config` as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Name of this node.
    pub name: String,
    /// What the node's core is told.
    pub config: ClusterConfig,
    /// What it is not told of the members, in the order of `config.members`.
    pub nodes: Vec<ClusterNode>,
}

impl Cluster {
    /// The node with this number.
    pub fn node(&self, id: NodeId) -> Option<&ClusterNode> {
        self.nodes.iter().find(|n| n.id == id)
    }
}

/// A member of a [`Cluster`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its number, as in the core's member list.
    pub id: NodeId,
    /// Its name in the config.
    pub name: String,
    /// Where it takes frames of the other nodes, and from where it sends its own.
    pub sync: SocketAddr,
}
