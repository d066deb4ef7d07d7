//! What is judged in every run, whatever a scenario expects.
//!
//! Each oracle takes plain facts, so that a test can show it a world that never was and see it fire. It keeps the
//! first violation, which is the one to look at, and counts the others.

mod bounds;
mod checksum;
mod closed;
mod conserved;
mod keeps;
mod promised;
mod ready;
mod reuse;
mod streams;
mod tables;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_core::cluster::{Epoch, GroupId, Role};
use evenkeel_core::proto::ConnState;
use evenkeel_core::tuple::Tuple;
use serde::Serialize;

pub(crate) use bounds::{Bounds, Level};
pub(crate) use checksum::Checksums;
pub(crate) use closed::{ClosedStays, Said};
pub(crate) use conserved::Conserved;
pub(crate) use keeps::{Closes, HolderCloses, ReplicaKeeps, Tables};
pub(crate) use promised::{DeferredSurvives, Promised};
pub(crate) use ready::ReadyKnows;
pub(crate) use reuse::{By, RST, Reuse, SYN, segment};
pub(crate) use streams::ByteStreams;
pub(crate) use tables::{
    Key, OutboundUnique, ServerStays, TablesEqual, VersionsGrow, key, opening, outbound, unequal,
};

/// Both ends of a connection to a server: the node's and the server's.
pub(crate) type Ends = (SocketAddr, SocketAddr);

macro_rules! oracles {
    ($($name:ident = $text:literal, $says:literal;)*) => {
        /// All oracles. Whoever adds one is told by the compiler where it is to be judged and to be shown a world
        /// that it must not let pass.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Oracle { $($name,)* }

        impl Oracle {
            pub(crate) const ALL: &'static [Oracle] = &[$(Oracle::$name,)*];

            /// Its name, and what it says.
            pub(crate) const fn says(self) -> (&'static str, &'static str) {
                match self { $(Oracle::$name => ($text, $says),)* }
            }
        }

        /// Names of the oracles, with what each says.
        pub const NAMES: &[(&str, &str)] = &[$(Oracle::$name.says(),)*];
    };
}

oracles! {
    ServerStays = "server-stays", "no established flow changes its real server";
    OutboundUnique = "outbound-unique",
        "no two sessions of the cluster have the same outbound tuple, at any time";
    Checksums = "checksums", "every frame that leaves a node or a host has right checksums";
    ByteStreams = "byte-streams",
        "both ends of every flow read what the other one wrote, in order and whole";
    Conserved = "conserved",
        "every packet that was sent was received, dropped with a reason, or is on its way";
    VersionsGrow = "versions-grow", "versions of sessions and epochs of groups never go back";
    ReadyKnows = "ready-knows",
        "a node that says it is ready has the sessions that all other ready nodes have";
    Bounds = "bounds", "no queue, ring or table is longer than its bound";
    ReplicaKeeps = "replica-keeps",
        "no replica loses a session that its holder has, while it hears that one";
    HolderCloses = "holder-closes",
        "only the holder of a group tells that sessions of it are closed";
    ClosedStays = "closed-stays",
        "what a node has applied the close of does not come back to it";
    DeferredSurvives = "deferred-survives",
        "a connection that waited until other nodes had it is not lost with its node";
    TablesEqual = "tables-equal",
        "after the quiet at the end all nodes that are ready have the same sessions";
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Simulated time.
    pub at_ns: u64,
    /// What was seen.
    pub what: String,
}

/// What an oracle found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The first one.
    pub(crate) first: Option<Violation>,
    /// All.
    pub(crate) count: u64,
    /// Things that were looked at: an oracle that saw nothing proves nothing.
    pub(crate) looked: u64,
}

impl Found {
    pub(crate) fn add(&mut self, at: Duration, what: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(|| Violation {
            at_ns: u64::try_from(at.as_nanos()).unwrap_or(u64::MAX),
            what: what(),
        });
    }
}

impl Found {
    /// What another look at the same thing has found.
    pub(crate) fn join(&mut self, other: &Found) {
        self.count += other.count;
        self.looked += other.looked;
        let first = self.first.take().into_iter().chain(other.first.clone());
        self.first = first.min_by_key(|v| v.at_ns);
    }
}

/// All tables at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) nodes: Vec<NodeSample>,
}

/// What a node has.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeSample {
    pub(crate) node: u16,
    /// Number of its life.
    pub(crate) life: u64,
    /// It has what the others have, by what it says.
    pub(crate) ready: bool,
    pub(crate) rows: Vec<Row>,
    /// Highest known epoch of each group.
    pub(crate) epochs: Vec<(GroupId, Epoch)>,
    /// What it is to each group.
    pub(crate) roles: Vec<(GroupId, Role)>,
    /// Nodes that it hears, by number.
    pub(crate) hears: Vec<u16>,
}

/// A session in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) inbound: Tuple,
    pub(crate) local: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) state: ConnState,
    /// `None`: it is not replicated.
    pub(crate) version: Option<(GroupId, Epoch, u64)>,
}

/// A flow as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveFlow {
    pub(crate) number: u32,
    /// A fault divided the nodes while it opened, or another one took over: its SYNs may have opened a session at each of two.
    pub(crate) divided: bool,
    /// The tuple of the client's packets.
    pub(crate) tuple: Tuple,
}
