//! What nodes say to each other about sessions. The bytes are the codec's.
//!
//! A [`SyncMessage`] belongs to one bucket and goes to the worker that serves it; a [`NodeMessage`] goes to the
//! node as a whole.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::SessionRecord;
use crate::cluster::{Epoch, GroupId, PeerId, Role};
use crate::proto::TcpEvent;
use crate::tuple::{Direction, Tuple};

/// Log sequence number: of (node, incarnation, bucket), 48 bits; the first one is 1.
pub type Lsn = u64;

/// The largest LSN.
pub const LSN_MAX: Lsn = (1 << 48) - 1;

/// LSNs from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LsnRange {
    /// First.
    pub first: Lsn,
    /// Last; not below `first`.
    pub last: Lsn,
}

/// When a session was last encoded: ordered within one group only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// By which right; its holder's space is the LSN's.
    pub epoch: Epoch,
    /// Where in that space.
    pub lsn: Lsn,
}

/// Why a session was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// Its time was up.
    Expired = 0,
    /// A new connection of the same client took its tuple.
    Replaced = 1,
    /// The session lost its tuple to one of another group.
    Superseded = 2,
}

/// A record of a live section.
#[derive(Clone, Debug, PartialEq)]
pub enum LiveRecord {
    /// The session is new to those that follow.
    Open(SessionRecord),
    /// It has changed. The whole of it: a receiver that lacks it opens it.
    Update(SessionRecord),
    /// It is over. Its identity is the client's tuple.
    Close(Tuple, CloseReason),
}

/// Records of consecutive LSNs.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveSection {
    /// Whose sessions.
    pub group: GroupId,
    /// By which right; its holder is the sender.
    pub epoch: Epoch,
    /// LSN of the first record.
    pub first: Lsn,
    /// The records, at least one.
    pub records: Vec<LiveRecord>,
}

/// What a replica saw that its holder should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintKind {
    /// A segment that changes the state of a connection, seen in this direction.
    Segment(Direction, TcpEvent),
    /// Packets, in this direction: it lives.
    Traffic(Direction),
}

/// Why a slot is pulled: what its end means to what was not mentioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PullMode {
    /// What is not mentioned and not newer than the end's version is deleted.
    Replace = 0,
    /// Only what is newer is added.
    Merge = 1,
}

/// How much a node has of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum CopyState {
    /// It began to copy it and had never all.
    #[default]
    Partial = 0,
    /// It had all once, and may have missed something since.
    Whole = 1,
    /// All that it was told.
    Ready = 2,
}

/// A session with its explicit version: bulk, offers.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionedRecord {
    /// Version; the LSN is 0 if it was never encoded.
    pub version: Version,
    /// The session; `Err`: it is closed, and this is its client's tuple.
    pub session: Result<SessionRecord, Tuple>,
}

/// A message of one bucket.
#[derive(Clone, Debug, PartialEq)]
pub enum SyncBody {
    /// OPEN, UPDATE, CLOSE.
    Live(LiveSection),
    /// HEARTBEAT: the last LSN that the sender has given in this bucket (0: none).
    Heartbeat {
        /// That LSN.
        last: Lsn,
    },
    /// ACK: what of the receiver's (`of`) records was applied.
    Ack {
        /// Whose space.
        of: PeerId,
        /// All up to it.
        contiguous: Lsn,
        /// And these; at most [`RANGE_COUNT_MAX`].
        applied: Vec<LsnRange>,
        /// Of all these some that could not be applied, as there was no room; they are not waited for. At most
        /// [`RANGE_COUNT_MAX`].
        refused: Vec<LsnRange>,
        /// Of all these those by which the receiver did not come to have a session, for whatever reason, or could not serve it:
        /// they do not count for who waits for nodes to have it. Others may be among them. At most [`RANGE_COUNT_MAX`].
        unkept: Vec<LsnRange>,
    },
    /// NACK: what of the receiver's (`of`) records is missing; at most [`RANGE_COUNT_MAX`].
    Nack {
        /// Whose space.
        of: PeerId,
        /// These.
        missing: Vec<LsnRange>,
    },
    /// SKIP: what was lost in `gap` was encoded again, and the gap is filled once all up to `until` is applied.
    Skip {
        /// The gap.
        gap: LsnRange,
        /// And up to here.
        until: Lsn,
        /// Slots to be pulled, as what was in them can no longer be told; of all groups of the sender. At most
        /// [`SKIP_SLOT_COUNT_MAX`].
        slots: Vec<u16>,
    },
    /// HINT to the holder.
    Hint {
        /// Whose session.
        group: GroupId,
        /// The client's tuple.
        tuple: Tuple,
        /// What was seen.
        kind: HintKind,
    },
    /// PULL: send slots of the bucket.
    Pull {
        /// Of which group.
        group: GroupId,
        /// The puller's number for the first one, repeated in what answers it; those after it have the numbers after it.
        id: u32,
        /// Not before the source has applied this much of this space.
        min: Version,
        /// What for.
        mode: PullMode,
        /// Which: at least one, at most [`PULL_SLOT_COUNT_MAX`].
        slots: Vec<u16>,
    },
    /// SLOT_BEGIN.
    SlotBegin {
        /// The pull's number.
        id: u32,
        /// Group.
        group: GroupId,
        /// Slot.
        slot: u16,
    },
    /// Records of a slot.
    SlotRecords {
        /// The pull's number.
        id: u32,
        /// Group.
        group: GroupId,
        /// Slot.
        slot: u16,
        /// At least one.
        records: Vec<VersionedRecord>,
    },
    /// SLOT_END. If fewer records than `count` have come the slot is pulled again.
    SlotEnd {
        /// The pull's number.
        id: u32,
        /// Group.
        group: GroupId,
        /// Slot.
        slot: u16,
        /// Records sent since SLOT_BEGIN.
        count: u32,
        /// Up to where the source knew the group when it began.
        as_of: Version,
    },
    /// SLOTS_EMPTY: as SLOT_BEGIN and a SLOT_END of no record for each of so many slots.
    SlotsEmpty {
        /// The pull's number of the first one.
        id: u32,
        /// Group.
        group: GroupId,
        /// How many: those of the numbers from `id` on; at least one, at most [`PULL_SLOT_COUNT_MAX`].
        count: u16,
        /// Up to where the source knew the group then.
        as_of: Version,
    },
    /// ADOPT, answered: what the sender knows of the space of a group's former holder, told to the adopter.
    Watermark {
        /// The group that is adopted.
        group: GroupId,
        /// In which epoch.
        epoch: Epoch,
        /// The epoch before, by what the sender knows; what follows is in its holder's space.
        last: Epoch,
        /// How much of it the sender has.
        copy: CopyState,
        /// All up to it was applied.
        contiguous: Lsn,
        /// And these; at most [`RANGE_COUNT_MAX`].
        applied: Vec<LsnRange>,
    },
    /// MERGED: the adopter has what counts. A replica that knew something else pulls the bucket.
    Merged {
        /// Group.
        group: GroupId,
        /// The adopter's epoch.
        epoch: Epoch,
        /// The base, in the space of `base.epoch.holder`.
        base: Version,
        /// Whether all that differs from the base was told to those that follow (a full table and so on): if
        /// not, every replica pulls.
        exact: bool,
        /// The last LSN that the adopter had given when it merged: who began to hear it after that pulls.
        at: Lsn,
    },
    /// OFFER of a fenced node: a session that only it may have.
    Offer {
        /// Of this group.
        group: GroupId,
        /// The session; apart, as it would make every message several times as long.
        record: Box<VersionedRecord>,
        /// The offerer's number for it.
        id: u32,
    },
    /// The winner has seen offers up to this number, taken or not.
    OfferSeen {
        /// Of this group.
        group: GroupId,
        /// All offers up to it.
        id: u32,
    },
    /// DIGEST: what the holder of a group has told of some slots of the bucket. Who knows this epoch and has applied just as
    /// much compares.
    Digest {
        /// Group.
        group: GroupId,
        /// By which right; its holder is the sender.
        epoch: Epoch,
        /// The last LSN that the sender has given in this bucket (0: none); all that changed was told.
        last: Lsn,
        /// At least one, at most [`DIGEST_SLOT_COUNT_MAX`].
        slots: Vec<SlotDigest>,
    },
}

impl SyncBody {
    /// Whether it answers a pull: frames of these are longer.
    pub fn is_bulk(&self) -> bool {
        matches!(
            self,
            SyncBody::SlotBegin { .. }
                | SyncBody::SlotRecords { .. }
                | SyncBody::SlotEnd { .. }
                | SyncBody::SlotsEmpty { .. }
        )
    }
}

/// What a node has of a slot of a group: how many sessions, and the sum of their keyed hashes modulo 2^64. Of two that are
/// equal the sessions are, forwarding and versions included, but for odds of 2^-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotDigest {
    /// Slot.
    pub slot: u16,
    /// Sessions that were told, closed ones excluded.
    pub count: u32,
    /// Sum of their hashes.
    pub hash: u64,
}

/// Ranges in one message at most.
pub const RANGE_COUNT_MAX: usize = 32;
/// Slots in one SKIP at most.
pub const SKIP_SLOT_COUNT_MAX: usize = 256;
/// Slots of a PULL at most.
pub const PULL_SLOT_COUNT_MAX: usize = 256;
/// Slots of a DIGEST at most: with them it fits a frame of live records.
pub const DIGEST_SLOT_COUNT_MAX: usize = 64;

/// A message of one bucket, and who sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncMessage {
    /// Sender.
    pub from: PeerId,
    /// Bucket.
    pub bucket: u16,
    /// Whether an ACK is asked for at once.
    pub ack_now: bool,
    /// The rest.
    pub body: SyncBody,
}

/// How far a node is with what it must know before it may attract traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Readiness {
    /// Not yet.
    #[default]
    Joining = 0,
    /// It serves though it could not ask anybody; alarmed.
    Degraded = 1,
    /// It has what the others have.
    Ready = 2,
}

/// What a node says of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupClaim {
    /// Group.
    pub group: GroupId,
    /// The highest epoch that it knows.
    pub epoch: Epoch,
    /// What it is to the group.
    pub role: Role,
}

/// A message of a node to another one.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeMessage {
    /// Who is there, what it claims. Also the renewal of its leases.
    Heartbeat {
        /// Digest of the map of shares, by which all must agree.
        shares: u64,
        /// How far it is.
        readiness: Readiness,
        /// It wants to leave.
        draining: bool,
        /// Its groups, those of others that it knows, at most [`crate::cluster::GROUP_COUNT_MAX`].
        claims: Vec<GroupClaim>,
        /// The peers that it hears: each side knows whether the other one hears it. At most
        /// [`crate::cluster::NODE_COUNT_MAX`].
        hears: Vec<PeerId>,
        /// Bit n: the n-th of these is out of sync, too far behind to be waited for.
        late: u16,
    },
    /// FENCED: the receiver acts by an epoch of this group that is not the highest one.
    Fenced {
        /// Group.
        group: GroupId,
        /// The highest one.
        epoch: Epoch,
    },
    /// HANDOVER: all that the sender knows of the group was applied by the receiver, which may take it without
    /// a pull.
    Handover {
        /// Group.
        group: GroupId,
        /// The epoch that ends.
        epoch: Epoch,
    },
}
