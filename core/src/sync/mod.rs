//! Replication of sessions: what is said of them, and what of a conn is told.
//!
//! A worker owns one `Sync`, if it was made with a cluster. `worker` is its boundary: messages in, frames out,
//! timers; `tx` tells what changed, `rx` keeps account of what was heard, `apply` makes conns of it, `bulk` pulls
//! and sends slots, `defer` has what tells a client that it is connected wait for other nodes, `digest` compares what a replica has with what its holder told, `adopt` moves a group to another holder,
//! `hints` tells a holder what a replica saw.

mod adopt;
mod apply;
mod bulk;
pub mod codec;
mod defer;
mod digest;
mod epochs;
mod hints;
mod message;
mod ranges;
mod receiver;
mod record;
mod rx;
pub mod seal;
mod serve;
mod state;
mod tx;
mod window;
mod worker;

pub(crate) use defer::Ended;
pub(crate) use hints::set_state;
pub use message::{
    CloseReason, CopyState, DIGEST_SLOT_COUNT_MAX, GroupClaim, HintKind, LSN_MAX, LiveRecord, LiveSection,
    Lsn, LsnRange, NodeMessage, PULL_SLOT_COUNT_MAX, PullMode, RANGE_COUNT_MAX, Readiness,
    SKIP_SLOT_COUNT_MAX, SlotDigest, SyncBody, SyncMessage, Version, VersionedRecord,
};
pub use receiver::{Delivered, Receiver, ReceiverCounters, Refused, TooManyMembers};
pub use record::{InstallError, Isns, SeqDeltas, SessionRecord, WindowScales};
pub use state::{ClusterSizes, ClusterWorkerConfig, Destination, SyncOutcome};
pub(crate) use state::{Ctx, Sync};
pub use window::WINDOW_LEN;

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::cluster::{Authority, Epoch, GroupId, PeerId};
use crate::port::PortId;
use crate::time::Instant;
use crate::wire::MacAddr;
use codec::StreamNumbers;
use core::net::IpAddr;
use seal::Secrets;

/// Something that the node tells its workers. All but `Pull` is level-triggered: the latest counts, and it may
/// be told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncCommand {
    /// Who receives what this node replicates, and from whom it takes. One that is no longer in it is forgotten.
    Peers(Arc<Vec<Peer>>),
    /// Who decides about a group. Confirmed by [`SyncEvent::AuthorityApplied`].
    Authority(Authority),
    /// The group is over and empty everywhere: forget it.
    Forget(GroupId),
    /// The group of new sessions; `None`: none is created, and a first packet is a counted drop.
    Create(Option<GroupId>),
    /// Until when the leases of all groups that this node holds are certain: sessions are deleted and expired
    /// before it only.
    LeaseUntil(Instant),
    /// Pull all slots of a group from a peer. Said again with the same number: what has not ended is asked of this
    /// source, and what has is not pulled again. [`SyncEvent::Status`] says how many slots are outstanding, and the number
    /// once none is.
    Pull {
        /// Of which group.
        group: GroupId,
        /// From whom.
        source: PeerId,
        /// What for.
        mode: PullMode,
        /// Above 0; another one for each pull of a group.
        number: u32,
    },
    /// Which of the owned addresses this node answers for (ARP, neighbour discovery, echo).
    Answer(Arc<Answering>),
    /// Which packet numbers the worker's streams have next; asked with this number. Answered by [`SyncEvent::Numbers`].
    Numbers(u32),
    /// Secrets of the cluster from now on; they have this number. Confirmed by [`SyncEvent::SecretsApplied`].
    Secrets(u32, Secrets),
}

/// A peer as a worker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub id: PeerId,
    /// Whether it is waited for: tombstones stay until it has applied them, and what it misses is kept in mind
    /// for it. An out-of-sync peer is sent to all the same.
    pub in_sync: bool,
    /// Whether it is ready.
    pub ready: bool,
}

/// For which owned addresses a node answers, and as whom. Sorted by address; what is not in it is not answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answering {
    /// Address, and the link-layer address that is told; `None`: the interface's own.
    pub addrs: Vec<(IpAddr, Option<MacAddr>)>,
}

/// Something that a worker tells its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncEvent {
    /// An authority is in force.
    AuthorityApplied(Authority),
    /// How far the worker is; told when it has changed.
    Status(SyncStatus),
    /// The merge of an adoption has ended in all buckets of the worker.
    Merged {
        /// Group.
        group: GroupId,
        /// The adopter's epoch.
        epoch: Epoch,
    },
    /// All that a fenced worker had to offer was seen, and the group is pulled again.
    Offered {
        /// Group.
        group: GroupId,
    },
    /// A peer acts by an epoch that is not the highest one known.
    Stale {
        /// Who.
        from: PeerId,
        /// Group.
        group: GroupId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A peer is too far behind: it is not waited for until it has caught up.
    OutOfSync(PeerId),
    /// A peer had no room for what was told to it.
    Refused(PeerId),
    /// The packet numbers that are next, as they were after [`SyncCommand::Numbers`] with this number had come.
    Numbers(u32, StreamNumbers),
    /// Frames are sealed by the secrets of this number.
    SecretsApplied(u32),
}

/// How far a worker is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncStatus {
    /// By group: slots that are asked for and have not ended.
    pub outstanding: Vec<(GroupId, u32)>,
    /// By group: number of the last [`SyncCommand::Pull`] of which all slots have ended, or 0.
    pub pulled: Vec<(GroupId, u32)>,
    /// By group: slots of which something is missing here, lost for good or refused for want of room.
    pub lacking: Vec<(GroupId, u32)>,
    /// By group: sessions, closed ones excluded.
    pub sessions: Vec<(GroupId, u32)>,
    /// By peer: records of it that are known to exist and are not applied.
    pub behind: Vec<(PeerId, u64)>,
    /// By peer: records that it has not applied, marks that wait to be encoded included.
    pub unacked: Vec<(PeerId, u64)>,
    /// Peers that were told something, have not acked it for too long to be waited for, and have acked nothing since.
    pub late: Vec<PeerId>,
}

/// An interface and a frame for it.
pub type OwnFrame = (PortId, Vec<u8>);
