//! The section `[cluster]`: who the nodes are, which of them this one is, and what each has to itself.

mod check;
mod read;

use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// How what nodes say to each other is kept from others.
    pub trust: Trust,
    /// What it is not told of the members, in the order of `config.members`.
    pub nodes: Vec<ClusterNode>,
}

impl Cluster {
    /// The node with this number.
    pub fn node(&self, id: NodeId) -> Option<&ClusterNode> {
        self.nodes.iter().find(|n| n.id == id)
    }
}

/// How what nodes say to each other is kept from others, and others' from being taken for theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Frames are sealed by the secrets in these files; the first one seals, all are accepted.
    Secrets(Vec<PathBuf>),
    /// Frames go in clear, and are believed.
    Insecure,
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
