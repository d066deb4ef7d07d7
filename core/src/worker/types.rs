//! What goes into a worker and comes out of it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use super::hold::HoldConfig;
use crate::conn::TableSizes;
use crate::lport::{BUCKET_COUNT_MAX, Steering};
use crate::port::{BURST, HandoffTag, PortId, WorkerId};
use crate::service::Snapshot;
use crate::stats::DropReason;
use crate::sync::{ClusterWorkerConfig, InstallError, SessionRecord, SyncCommand, SyncEvent};
use crate::wire::MacAddr;

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it out of this interface: it was rewritten in place.
    Tx(PortId),
    /// Drop it.
    Drop(DropReason),
    /// Give it to the kernel.
    Punt,
    /// Give it to another worker of this node.
    Handoff(WorkerId, HandoffTag),
    /// It waits for a neighbour: it was copied and, if that is found, will come out of [`Worker::poll_transmit`](super::Worker::poll_transmit); its buffer is free.
    Held,
    /// It asked something, and the answer comes out of [`Worker::poll_transmit`](super::Worker::poll_transmit); its buffer is free.
    Answered,
}

/// Verdicts of a burst, in the order of its frames.
#[derive(Clone, Debug)]
pub struct Verdicts {
    pub(super) verdicts: Vec<Verdict>,
}

impl Default for Verdicts {
    fn default() -> Self {
        Verdicts {
            verdicts: Vec::with_capacity(BURST),
        }
    }
}

impl Verdicts {
    /// The verdicts.
    pub fn as_slice(&self) -> &[Verdict] {
        &self.verdicts
    }
}

/// Which worker of a node serves which bucket; fixed for one incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketMap {
    worker_of: [u8; BUCKET_COUNT_MAX as usize],
}

impl BucketMap {
    /// Buckets dealt to `workers` (1 to 256) in turn.
    pub fn dealt(workers: u16) -> Self {
        let workers = usize::from(workers.clamp(1, BUCKET_COUNT_MAX));
        BucketMap {
            worker_of: core::array::from_fn(|bucket| (bucket % workers) as u8),
        }
    }

    /// The worker of a bucket.
    #[inline]
    pub fn worker(&self, bucket: u16) -> WorkerId {
        WorkerId(self.worker_of[usize::from(bucket % BUCKET_COUNT_MAX)])
    }
}

/// What a worker is made with; fixed for one incarnation.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Which worker it is.
    pub id: WorkerId,
    /// The workers of the node.
    pub buckets: BucketMap,
    /// Key, number of buckets, port classes.
    pub steering: Arc<Steering>,
    /// Sizes of its table.
    pub sizes: TableSizes,
    /// Lowest local port that is used.
    pub local_port_min: u16,
    /// Where all its randomness comes from. Workers of one node have the same.
    pub seed: u64,
    /// How packets wait for a neighbour that is not known, and news of neighbours are told; `None`: such packets are
    /// dropped, and neighbours are those of the config.
    pub hold: Option<HoldConfig>,
    /// Its place in a cluster; `None`: it is alone, and nothing is replicated.
    pub cluster: Option<ClusterWorkerConfig>,
}

/// Something that a worker is told to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Serve by this snapshot from now on. The old one comes back as an event.
    SetSnapshot(Arc<Snapshot>),
    /// Take in a session that another node created.
    Install(Box<SessionRecord>),
    /// Something about the other nodes.
    Sync(SyncCommand),
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Events wait to be polled; nothing was changed.
    EventsFull,
    /// The session does not fit.
    Install(InstallError),
    /// The worker was made without a cluster.
    NoCluster,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EventsFull => f.write_str("events wait to be polled"),
            Self::Install(e) => write!(f, "the session does not fit: {e:?}"),
            Self::NoCluster => f.write_str("the worker was made without a cluster"),
        }
    }
}

impl core::error::Error for CommandError {}

/// Something that a worker tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// A snapshot that it no longer reads: who polls frees it, the fast path does not.
    SnapshotReleased(Arc<Snapshot>),
    /// A packet needs the link-layer address of this neighbour. Told about once a second while packets come.
    NeighbourWanted {
        /// Interface.
        port: PortId,
        /// Its address.
        addr: IpAddr,
    },
    /// A neighbour that is known asked for an address of ours, and from another link-layer address than the known
    /// one: perhaps it has moved (RFC 826; RFC 4861, 7.2.3).
    NeighbourHeard {
        /// Interface.
        port: PortId,
        /// Its address.
        addr: IpAddr,
        /// Where it says to be.
        mac: MacAddr,
    },
    /// Something that the node has to know about replication.
    Sync(SyncEvent),
}
