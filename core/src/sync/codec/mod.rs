//! Sync frames: messages of nodes and workers to bytes and back.
//!
//! All numbers are little-endian. A frame means something by itself: nothing in it points at an earlier
//! frame. A frame is taken whole or refused whole.
//!
//! # Header, 32 bytes
//!
//! | offset | bytes | field | |
//! |---|---|---|---|
//! | 0 | 1 | version | [`FORMAT_VERSION`] |
//! | 1 | 1 | type | 1: messages; 2: HELLO; others are later formats' |
//! | 2 | 1 | flags | bit 0: ACK-NOW, some message of the frame has it; bit 1, of sealed ones only: for one node |
//! | 3 | 1 | key id | 0: no key, no tag. Others: what follows the header is sealed, and a tag of 16 bytes ends the frame |
//! | 4 | 4 | cluster | |
//! | 8 | 2 | node | the sender |
//! | 10 | 2 | stream | of the sender; a worker's live one, from [`STREAM_BULK`] its bulk; 0xffff is the node's own, [`STREAM_CONTROL`] |
//! | 12 | 2 | count | messages, at least 1 |
//! | 14 | 2 | length | of the whole frame |
//! | 16 | 8 | incarnation | the sender's |
//! | 24 | 8 | packet number | counts the frames of (node, incarnation, stream) |
//!
//! # HELLO
//!
//! The header (type 2, count 1), the sender's salt (16), suite (1), capabilities (4); sealed: the salt of whom it answers (16), count (1),
//! by worker the next packet numbers of its live and its bulk stream (6 each).
//!
//! # Messages
//!
//! Each message begins with 6 bytes: type (1; the high bit says *critical*), flags (1; bit 0 ACK-NOW, bit 1
//! in a live section: group and epoch are those of the live section before it in this frame, and left out),
//! bucket (2; 0 in a message to the node), length of what follows (2). A message of unknown type is skipped,
//! unless it is critical: then the frame is refused. All types of this version are critical, but for DIGEST.
//!
//! | type | message | body |
//! |---|---|---|
//! | 1 | OPEN, UPDATE, CLOSE | \[group, epoch\], first LSN, records |
//! | 2 | HEARTBEAT | last LSN |
//! | 3 | ACK | peer, contiguous, two counts (1 each), ranges |
//! | 4 | NACK | peer, count (1), ranges |
//! | 5 | SKIP | range, until, count (2), slots |
//! | 6 | HINT | group, kind (1), tuple |
//! | 7 | PULL | group, id, version, mode (1), count (2), slots |
//! | 8 | SLOT_BEGIN | id, group, slot |
//! | 9 | slot records | id, group, slot, packed records |
//! | 10 | SLOT_END | id, group, slot, count (4), version |
//! | 11 | watermark | group, epoch, last epoch, state of the copy (1), contiguous, count (1), ranges |
//! | 12 | MERGED | group, epoch, version, exact (1), LSN |
//! | 13 | OFFER | id, group, packed record |
//! | 14 | offers seen | id, group |
//! | 15 | SLOTS_EMPTY | id, group, count (2), version |
//! | 16 | DIGEST | group, epoch, last LSN, count (1), slots with count (4) and hash (8) each |
//! | 0x41 | node heartbeat | shares (8), readiness and draining (1), two counts (1 each), peers that are out of sync (2), claims, peers |
//! | 0x42 | FENCED | group, epoch |
//! | 0x43 | HANDOVER | group, epoch |
//!
//! States, modes, roles, readiness, states of copies and reasons are the numbers of their types. A hint is 4 x direction + event
//! for a segment, 8 + direction for traffic. Types up to 0x3f are left for further messages of a bucket, 0x40
//! and those from 0x44 for the node's.
//!
//! | field | bytes | |
//! |---|---|---|
//! | peer | 10 | node 2, incarnation 8 |
//! | group | 10 | node 2, generation 8 |
//! | epoch | 18 | term 8, peer |
//! | LSN | 6 | |
//! | version | 24 | epoch, LSN |
//! | range | 12 | first and last LSN |
//! | slot, id | 2, 4 | |
//! | claim | 29 | group, epoch, role 1 |
//! | tuple | 13 or 37 | protocol and family (1), both ports, both addresses |
//!
//! A record of a live section is a type (1, high bit: critical), a length (1) and that many bytes: OPEN 1 and
//! UPDATE 2 with a session, CLOSE 3 with a tuple and a reason (1). The first record has the section's first
//! LSN, each further one the next. A record of unknown type that is not critical is skipped and has no LSN:
//! it can only add something to the one before it.
//!
//! A packed record is a byte (bit 0: an epoch follows, else it is that of the record before it; bit 1:
//! closed, a tuple follows instead of a session), the epoch, the LSN, the session or tuple.
//!
//! A session is state and families (1), flags (1), mode (1), remaining time in ms (4), then for the client's
//! side and for the real server's side both ports (client, VIP; server, local end) and both addresses, then
//! what the flags name: sequence deltas (8), the client's ISN (4), the server's ISN (4), window scales (1; a
//! nibble each, 15 is unknown). 31 bytes for IPv4, 79 for IPv6, at most 17 more. Neither service nor server
//! is named: who receives it finds them by the ends, until then they are [`SERVICE_UNRESOLVED`] and
//! [`SERVER_UNRESOLVED`].

mod hello;
mod pack;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use hello::{CAPABILITIES, HELLO_WORKER_COUNT_MAX, Hello, StreamNumbers, read_hello};
pub(crate) use hello::{HELLO_CLEAR_LEN, hello_life, is_to_one, key_of, set_open, set_sealed, write_hello};
pub use read::{Field, Frame, FrameError, FrameItem, decode, is_bulk};
pub use write::{FrameWriter, LiveWriter, PushError, SlotWriter};

use crate::cluster::PeerId;
use crate::service::{RealServerId, ServiceId};

/// Version of the format; a frame of another one is refused.
pub const FORMAT_VERSION: u8 = 3;
/// Bytes of the header.
pub const HEADER_LEN: usize = 32;
/// A frame of live records at most: it fits a packet on every Ethernet.
pub const LIVE_FRAME_LEN_MAX: usize = 1400;
/// A frame of bulk records at most; no longer one is decoded.
pub const BULK_FRAME_LEN_MAX: usize = 16_384;
/// A frame with any one message to a node: the heartbeat of a full cluster is longer than a packet.
pub const NODE_FRAME_LEN_MAX: usize = 2304;
/// The stream of a node's own messages; those of workers are below [`STREAM_COUNT_MAX`].
pub const STREAM_CONTROL: u16 = 0xffff;
/// Streams of a node's workers at most.
pub const STREAM_COUNT_MAX: u16 = 512;
/// A worker's bulk has a stream of its own, so much above the worker's other one: it takes another way, on which frames may be overtaken
/// by more of the others than a receiver remembers.
pub const STREAM_BULK: u16 = 256;
/// Bytes of the tag that ends a sealed frame.
pub const TAG_LEN: usize = 16;

/// The service of a decoded session: still to be found by its ends.
pub const SERVICE_UNRESOLVED: ServiceId = ServiceId(u16::MAX);
/// The real server of a decoded session: still to be found by its ends.
pub const SERVER_UNRESOLVED: RealServerId = RealServerId(u16::MAX);

/// Who sent a frame, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Cluster's number.
    pub cluster: u32,
    /// Sender.
    pub from: PeerId,
    /// Stream of the sender.
    pub stream: u16,
    /// Number of the frame in (sender, stream): no number is used twice.
    pub packet_number: u64,
}

/// Header fields: where they lie.
mod at {
    use core::ops::Range;

    pub(super) const VERSION: usize = 0;
    pub(super) const TYPE: usize = 1;
    pub(super) const FLAGS: usize = 2;
    pub(super) const KEY: usize = 3;
    pub(super) const CLUSTER: Range<usize> = 4..8;
    pub(super) const NODE: Range<usize> = 8..10;
    pub(super) const STREAM: Range<usize> = 10..12;
    pub(super) const COUNT: Range<usize> = 12..14;
    pub(super) const LENGTH: Range<usize> = 14..16;
    pub(super) const INCARNATION: Range<usize> = 16..24;
    pub(super) const PACKET_NUMBER: Range<usize> = 24..32;
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// Messages of a worker or node.
    Messages,
    /// A greeting.
    Hello,
}

const TYPE_MESSAGES: u8 = 1;
const TYPE_HELLO: u8 = 2;
/// Who does not know this type must refuse the frame.
const CRITICAL: u8 = 0x80;
/// Type, flags, bucket, length.
const MESSAGE_HEADER_LEN: usize = 6;
/// The shortest message that this version knows: a HEARTBEAT.
const MESSAGE_LEN_MIN: usize = MESSAGE_HEADER_LEN + 6;

/// The shortest record of a live section that this version knows: a CLOSE of IPv4.
const RECORD_LEN_MIN: usize = 2 + 14;

/// Of a sealed frame, beside ACK-NOW: it is for one node, and nobody else opens it.
const TO_ONE: u8 = 2;

/// Flags of a message; [`flag::ACK_NOW`] also of a frame.
mod flag {
    pub(super) const ACK_NOW: u8 = 1;
    pub(super) const SAME_GROUP: u8 = 2;
}

/// Types of messages.
mod kind {
    pub(super) const LIVE: u8 = 1;
    pub(super) const HEARTBEAT: u8 = 2;
    pub(super) const ACK: u8 = 3;
    pub(super) const NACK: u8 = 4;
    pub(super) const SKIP: u8 = 5;
    pub(super) const HINT: u8 = 6;
    pub(super) const PULL: u8 = 7;
    pub(super) const SLOT_BEGIN: u8 = 8;
    pub(super) const SLOT_RECORDS: u8 = 9;
    pub(super) const SLOT_END: u8 = 10;
    pub(super) const WATERMARK: u8 = 11;
    pub(super) const MERGED: u8 = 12;
    pub(super) const OFFER: u8 = 13;
    pub(super) const OFFER_SEEN: u8 = 14;
    pub(super) const SLOTS_EMPTY: u8 = 15;
    pub(super) const DIGEST: u8 = 16;
    pub(super) const NODE_HEARTBEAT: u8 = 0x41;
    pub(super) const NODE_FENCED: u8 = 0x42;
    pub(super) const NODE_HANDOVER: u8 = 0x43;
}

/// Types of records in a live section.
mod record {
    pub(super) const OPEN: u8 = 1;
    pub(super) const UPDATE: u8 = 2;
    pub(super) const CLOSE: u8 = 3;
}
