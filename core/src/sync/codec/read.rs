//! Bytes to messages.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::pack::{
    Bytes, CLAIM_LEN, DIGEST_LEN, Got, PEER_LEN, take_count, take_digest, take_epoch, take_group, take_lsn,
    take_packed, take_peer, take_range, take_range_count, take_ranges, take_session, take_slot, take_tuple,
    take_version,
};
use super::{
    BULK_FRAME_LEN_MAX, CRITICAL, FORMAT_VERSION, FrameHeader, FrameType, HEADER_LEN, MESSAGE_LEN_MIN,
    RECORD_LEN_MIN, STREAM_BULK, STREAM_COUNT_MAX, TO_ONE, TYPE_HELLO, TYPE_MESSAGES, at, flag,
    hello::{is_to_one, key_of},
    kind, record,
};
use crate::cluster::{Epoch, GROUP_COUNT_MAX, GroupId, Incarnation, NODE_COUNT_MAX, NodeId, PeerId, Role};
use crate::lport::BUCKET_COUNT_MAX;
use crate::proto::TcpEvent;
use crate::sync::{
    CloseReason, CopyState, DIGEST_SLOT_COUNT_MAX, GroupClaim, HintKind, LSN_MAX, LiveRecord, LiveSection,
    NodeMessage, PULL_SLOT_COUNT_MAX, PullMode, Readiness, SKIP_SLOT_COUNT_MAX, SyncBody, SyncMessage,
};
use crate::tuple::Direction;

/// A frame, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Who sent it, and which one it is.
    pub header: FrameHeader,
    /// What it says, in the sender's order. None if nothing in it is known to this version.
    pub items: Vec<FrameItem>,
}

/// One message of a frame.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all are of the large kind")]
pub enum FrameItem {
    /// For the worker of a bucket.
    Sync(SyncMessage),
    /// For the node.
    Node(NodeMessage),
}

/// Why a frame was refused, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// It is shorter than a header.
    Short,
    /// It is of another version.
    Version(u8),
    /// It is of a type that this version does not have.
    Type(u8),
    /// There is no such key.
    Key(u8),
    /// The header says another length, or the frame is longer than [`BULK_FRAME_LEN_MAX`].
    Length,
    /// The header says another number of messages, or none.
    Count,
    /// A critical message of a type that this version does not have.
    UnknownMessage(u8),
    /// A critical record of a type that this version does not have.
    UnknownRecord(u8),
    /// A message or record ends within a field.
    Truncated,
    /// A message or record goes on after its last field.
    Trailing,
    /// A live section or a message of slot records has no record.
    NoRecord,
    /// A field has a value that it cannot have.
    Bad(Field),
}

/// What had a value that it cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Flags of a frame, message, tuple, session or packed record: unknown ones.
    Flags,
    /// A bucket that no node has, or one in a message to the node.
    Bucket,
    /// A slot.
    Slot,
    /// The LSN of a live record: 0, or past the last one.
    Lsn,
    /// A range that ends before it begins.
    Range,
    /// More elements than the list may have.
    Count,
    /// Something that is neither true nor false.
    Bool,
    /// Group and epoch refer to what is not there before them.
    Epoch,
    /// A conn's state.
    State,
    /// A forwarding mode.
    Mode,
    /// Window scales that are not known, and yet there.
    WindowScale,
    /// Why a session was closed.
    CloseReason,
    /// A hint.
    Hint,
    /// Why a slot is pulled.
    PullMode,
    /// Readiness.
    Readiness,
    /// A role.
    Role,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Short => write!(f, "a frame has at least {HEADER_LEN} bytes"),
            FrameError::Version(n) => write!(f, "format {n}; this node speaks {FORMAT_VERSION}"),
            FrameError::Type(n) => write!(f, "frame type {n} is not known"),
            FrameError::Key(n) => write!(f, "key {n} is not known"),
            FrameError::Length => f.write_str("the frame is not as long as its header says"),
            FrameError::Count => f.write_str("the frame does not have as many messages as its header says"),
            FrameError::UnknownMessage(n) => write!(f, "critical message type {n} is not known"),
            FrameError::UnknownRecord(n) => write!(f, "critical record type {n} is not known"),
            FrameError::Truncated => f.write_str("a message or record ends within a field"),
            FrameError::Trailing => f.write_str("a message or record goes on after its last field"),
            FrameError::NoRecord => f.write_str("a section has no record"),
            FrameError::Bad(field) => write!(f, "{field:?}: no such value"),
        }
    }
}

impl core::error::Error for FrameError {}

impl FrameHeader {
    /// Reads the header of a frame that is open and has messages, and checks that it is what it says: version, type, key, length,
    /// flags. What the messages are is not looked at.
    pub fn read(frame: &[u8]) -> Result<Self, FrameError> {
        let (header, frame_type) = Self::peek(frame)?;
        match (frame_type, key_of(frame)) {
            (FrameType::Hello, _) => Err(FrameError::Type(TYPE_HELLO)),
            (FrameType::Messages, 0) if is_to_one(frame) => Err(FrameError::Bad(Field::Flags)),
            (FrameType::Messages, 0) => Ok(header),
            (FrameType::Messages, key) => Err(FrameError::Key(key)),
        }
    }

    /// As [`FrameHeader::read`], of any frame, sealed or not.
    pub fn peek(frame: &[u8]) -> Result<(Self, FrameType), FrameError> {
        let head: &[u8; HEADER_LEN] = frame.first_chunk().ok_or(FrameError::Short)?;
        if head[at::VERSION] != FORMAT_VERSION {
            return Err(FrameError::Version(head[at::VERSION]));
        }
        let frame_type = match head[at::TYPE] {
            TYPE_MESSAGES => FrameType::Messages,
            TYPE_HELLO => FrameType::Hello,
            other => return Err(FrameError::Type(other)),
        };
        let u16_at = |range: core::ops::Range<usize>| Bytes(&head[range]).u16();
        if usize::from(u16_at(at::LENGTH)?) != frame.len() || frame.len() > BULK_FRAME_LEN_MAX {
            return Err(FrameError::Length);
        }
        if head[at::FLAGS] & !(flag::ACK_NOW | TO_ONE) != 0 {
            return Err(FrameError::Bad(Field::Flags));
        }
        let header = FrameHeader {
            cluster: Bytes(&head[at::CLUSTER]).u32()?,
            from: PeerId {
                node: NodeId(u16_at(at::NODE)?),
                incarnation: Incarnation(Bytes(&head[at::INCARNATION]).u64()?),
            },
            stream: u16_at(at::STREAM)?,
            packet_number: Bytes(&head[at::PACKET_NUMBER]).u64()?,
        };
        Ok((header, frame_type))
    }
}

/// Whether a frame, sealed or not, is of a worker's bulk.
pub fn is_bulk(frame: &[u8]) -> bool {
    let stream = frame.get(at::STREAM).and_then(|s| Bytes(s).u16().ok());
    stream.is_some_and(|stream| (STREAM_BULK..STREAM_COUNT_MAX).contains(&stream))
}

/// Reads a frame. No number in it chooses an allocation: lists are made once their bytes are there, and all
/// together they stay within a fixed multiple of the frame's length (23, for a frame of HEARTBEATs only).
pub fn decode(frame: &[u8]) -> Result<Frame, FrameError> {
    let header = FrameHeader::read(frame)?;
    let body = frame.get(HEADER_LEN..).unwrap_or_default();
    let said = Bytes(&frame[at::COUNT]).u16()?;
    let count = message_count(Bytes(body))?;
    if count == 0 || count != usize::from(said) {
        return Err(FrameError::Count);
    }
    let mut items = Vec::with_capacity(count.min(body.len() / MESSAGE_LEN_MIN));
    let mut bytes = Bytes(body);
    let mut live = None;
    while !bytes.is_empty() {
        let message = RawMessage::take(&mut bytes)?;
        if let Some(item) = message.read(header.from, &mut live)? {
            items.push(item);
        }
    }
    Ok(Frame { header, items })
}

/// How many messages there are; all of them lie within the frame.
fn message_count(mut bytes: Bytes<'_>) -> Got<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        RawMessage::take(&mut bytes)?;
        count += 1;
    }
    Ok(count)
}

/// A message whose body is not yet read.
struct RawMessage<'a> {
    kind: u8,
    flags: u8,
    bucket: u16,
    body: Bytes<'a>,
}

impl<'a> RawMessage<'a> {
    fn take(bytes: &mut Bytes<'a>) -> Got<Self> {
        let (kind, flags, bucket, len) = (bytes.u8()?, bytes.u8()?, bytes.u16()?, bytes.u16()?);
        Ok(RawMessage {
            kind,
            flags,
            bucket,
            body: Bytes(bytes.take(usize::from(len))?),
        })
    }

    /// `None`: nothing that this version must know. `live`: group and epoch of the live section before.
    fn read(self, from: PeerId, live: &mut Option<(GroupId, Epoch)>) -> Got<Option<FrameItem>> {
        let kind = self.kind & !CRITICAL;
        match kind {
            kind::LIVE..=kind::DIGEST => {}
            kind::NODE_HEARTBEAT..=kind::NODE_HANDOVER => return self.read_node(kind).map(Some),
            _ if self.kind & CRITICAL != 0 => return Err(FrameError::UnknownMessage(kind)),
            _ => return Ok(None),
        }
        let known = match kind {
            kind::LIVE => flag::ACK_NOW | flag::SAME_GROUP,
            _ => flag::ACK_NOW,
        };
        if self.flags & !known != 0 {
            return Err(FrameError::Bad(Field::Flags));
        }
        if self.bucket >= BUCKET_COUNT_MAX {
            return Err(FrameError::Bad(Field::Bucket));
        }
        let mut bytes = self.body;
        let body = if kind == kind::LIVE {
            if self.flags & flag::SAME_GROUP == 0 {
                *live = Some((take_group(&mut bytes)?, take_epoch(&mut bytes)?));
            }
            let (group, epoch) = live.ok_or(FrameError::Bad(Field::Epoch))?;
            SyncBody::Live(take_live(&mut bytes, group, epoch)?)
        } else {
            take_sync(kind, &mut bytes)?
        };
        bytes.end()?;
        Ok(Some(FrameItem::Sync(SyncMessage {
            from,
            bucket: self.bucket,
            ack_now: self.flags & flag::ACK_NOW != 0,
            body,
        })))
    }

    fn read_node(self, kind: u8) -> Got<FrameItem> {
        if self.flags != 0 {
            return Err(FrameError::Bad(Field::Flags));
        }
        if self.bucket != 0 {
            return Err(FrameError::Bad(Field::Bucket));
        }
        let mut bytes = self.body;
        let message = take_node(kind, &mut bytes)?;
        bytes.end()?;
        Ok(FrameItem::Node(message))
    }
}

/// A record whose body is not yet read.
fn take_raw_record<'a>(bytes: &mut Bytes<'a>) -> Got<(u8, Bytes<'a>)> {
    let (kind, len) = (bytes.u8()?, bytes.u8()?);
    Ok((kind, Bytes(bytes.take(usize::from(len))?)))
}

fn take_live(bytes: &mut Bytes<'_>, group: GroupId, epoch: Epoch) -> Got<LiveSection> {
    let first = take_lsn(bytes)?;
    let mut count = 0;
    let mut ahead = *bytes;
    while !ahead.is_empty() {
        take_raw_record(&mut ahead)?;
        count += 1;
    }
    let mut records = Vec::with_capacity(count.min(bytes.0.len() / RECORD_LEN_MIN));
    while !bytes.is_empty() {
        let (kind, mut body) = take_raw_record(bytes)?;
        records.push(match kind & !CRITICAL {
            record::OPEN => LiveRecord::Open(take_session(&mut body)?),
            record::UPDATE => LiveRecord::Update(take_session(&mut body)?),
            record::CLOSE => {
                let tuple = take_tuple(&mut body)?;
                let reason = match body.u8()? {
                    0 => CloseReason::Expired,
                    1 => CloseReason::Replaced,
                    2 => CloseReason::Superseded,
                    _ => return Err(FrameError::Bad(Field::CloseReason)),
                };
                LiveRecord::Close(tuple, reason)
            }
            other if kind & CRITICAL != 0 => return Err(FrameError::UnknownRecord(other)),
            _ => continue,
        });
        body.end()?;
    }
    if records.is_empty() {
        return Err(FrameError::NoRecord);
    }
    // The LSN of the last record.
    if first == 0 || first + (records.len() as u64 - 1) > LSN_MAX {
        return Err(FrameError::Bad(Field::Lsn));
    }
    Ok(LiveSection {
        group,
        epoch,
        first,
        records,
    })
}

/// How many slots a pull or its answer is about.
fn take_pull_count(bytes: &mut Bytes<'_>) -> Got<u16> {
    match bytes.u16()? {
        count if count == 0 || usize::from(count) > PULL_SLOT_COUNT_MAX => Err(FrameError::Bad(Field::Count)),
        count => Ok(count),
    }
}

fn take_sync(kind: u8, bytes: &mut Bytes<'_>) -> Got<SyncBody> {
    Ok(match kind {
        kind::HEARTBEAT => SyncBody::Heartbeat {
            last: take_lsn(bytes)?,
        },
        kind::ACK => {
            let (of, contiguous) = (take_peer(bytes)?, take_lsn(bytes)?);
            let (applied, refused) = (take_range_count(bytes)?, take_range_count(bytes)?);
            let unkept = take_range_count(bytes)?;
            SyncBody::Ack {
                of,
                contiguous,
                applied: take_ranges(bytes, applied)?,
                refused: take_ranges(bytes, refused)?,
                unkept: take_ranges(bytes, unkept)?,
            }
        }
        kind::NACK => {
            let (of, missing) = (take_peer(bytes)?, take_range_count(bytes)?);
            SyncBody::Nack {
                of,
                missing: take_ranges(bytes, missing)?,
            }
        }
        kind::SKIP => {
            let (gap, until) = (take_range(bytes)?, take_lsn(bytes)?);
            let count = usize::from(bytes.u16()?);
            if count > SKIP_SLOT_COUNT_MAX {
                return Err(FrameError::Bad(Field::Count));
            }
            SyncBody::Skip {
                gap,
                until,
                slots: bytes.list(count, 2, take_slot)?,
            }
        }
        kind::HINT => {
            let (group, hint) = (take_group(bytes)?, bytes.u8()?);
            let direction = |bit| {
                if bit == 0 {
                    Direction::Inbound
                } else {
                    Direction::Outbound
                }
            };
            SyncBody::Hint {
                group,
                kind: match hint {
                    0..8 => HintKind::Segment(
                        direction(hint >> 2),
                        match hint & 3 {
                            0 => TcpEvent::Syn,
                            1 => TcpEvent::Fin,
                            2 => TcpEvent::Ack,
                            _ => TcpEvent::Rst,
                        },
                    ),
                    8 | 9 => HintKind::Traffic(direction(hint & 1)),
                    _ => return Err(FrameError::Bad(Field::Hint)),
                },
                tuple: take_tuple(bytes)?,
            }
        }
        kind::PULL => SyncBody::Pull {
            group: take_group(bytes)?,
            id: bytes.u32()?,
            min: take_version(bytes)?,
            mode: match bytes.u8()? {
                0 => PullMode::Replace,
                1 => PullMode::Merge,
                _ => return Err(FrameError::Bad(Field::PullMode)),
            },
            slots: {
                let count = take_pull_count(bytes)?;
                bytes.list(usize::from(count), 2, take_slot)?
            },
        },
        kind::SLOT_BEGIN => SyncBody::SlotBegin {
            id: bytes.u32()?,
            group: take_group(bytes)?,
            slot: take_slot(bytes)?,
        },
        kind::SLOT_RECORDS => {
            let (id, group, slot) = (bytes.u32()?, take_group(bytes)?, take_slot(bytes)?);
            let mut records: Vec<crate::sync::VersionedRecord> = Vec::new();
            while !bytes.is_empty() {
                let before = records.last().map(|record| record.version.epoch);
                records.push(take_packed(bytes, before)?);
            }
            if records.is_empty() {
                return Err(FrameError::NoRecord);
            }
            SyncBody::SlotRecords {
                id,
                group,
                slot,
                records,
            }
        }
        kind::SLOT_END => SyncBody::SlotEnd {
            id: bytes.u32()?,
            group: take_group(bytes)?,
            slot: take_slot(bytes)?,
            count: bytes.u32()?,
            as_of: take_version(bytes)?,
        },
        kind::SLOTS_EMPTY => SyncBody::SlotsEmpty {
            id: bytes.u32()?,
            group: take_group(bytes)?,
            count: take_pull_count(bytes)?,
            as_of: take_version(bytes)?,
        },
        kind::WATERMARK => {
            let (group, epoch, last) = (take_group(bytes)?, take_epoch(bytes)?, take_epoch(bytes)?);
            let (copy, contiguous) = (take_copy(bytes)?, take_lsn(bytes)?);
            let applied = take_range_count(bytes)?;
            SyncBody::Watermark {
                group,
                epoch,
                last,
                copy,
                contiguous,
                applied: take_ranges(bytes, applied)?,
            }
        }
        kind::MERGED => SyncBody::Merged {
            group: take_group(bytes)?,
            epoch: take_epoch(bytes)?,
            base: take_version(bytes)?,
            exact: bytes.bool()?,
            at: take_lsn(bytes)?,
        },
        kind::OFFER => SyncBody::Offer {
            id: bytes.u32()?,
            group: take_group(bytes)?,
            record: Box::new(take_packed(bytes, None)?),
        },
        kind::OFFER_SEEN => SyncBody::OfferSeen {
            id: bytes.u32()?,
            group: take_group(bytes)?,
        },
        kind::DIGEST => SyncBody::Digest {
            group: take_group(bytes)?,
            epoch: take_epoch(bytes)?,
            last: take_lsn(bytes)?,
            slots: match take_count(bytes, DIGEST_SLOT_COUNT_MAX)? {
                0 => return Err(FrameError::Bad(Field::Count)),
                count => bytes.list(count, DIGEST_LEN, take_digest)?,
            },
        },
        other => return Err(FrameError::UnknownMessage(other)),
    })
}

fn take_copy(bytes: &mut Bytes<'_>) -> Got<CopyState> {
    match bytes.u8()? {
        0 => Ok(CopyState::Partial),
        1 => Ok(CopyState::Whole),
        2 => Ok(CopyState::Ready),
        _ => Err(FrameError::Bad(Field::Readiness)),
    }
}

fn take_node(kind: u8, bytes: &mut Bytes<'_>) -> Got<NodeMessage> {
    Ok(match kind {
        kind::NODE_HEARTBEAT => {
            let (shares, state) = (bytes.u64()?, bytes.u8()?);
            let readiness = match state & 3 {
                0 => Readiness::Joining,
                1 => Readiness::Degraded,
                2 => Readiness::Ready,
                _ => return Err(FrameError::Bad(Field::Readiness)),
            };
            if state & !7 != 0 {
                return Err(FrameError::Bad(Field::Flags));
            }
            let claims = take_count(bytes, GROUP_COUNT_MAX)?;
            let hears = take_count(bytes, NODE_COUNT_MAX)?;
            let late = bytes.u16()?;
            if u32::from(late) >> hears != 0 {
                return Err(FrameError::Bad(Field::Flags));
            }
            NodeMessage::Heartbeat {
                shares,
                readiness,
                draining: state & 4 != 0,
                claims: bytes.list(claims, CLAIM_LEN, |bytes| {
                    Ok(GroupClaim {
                        group: take_group(bytes)?,
                        epoch: take_epoch(bytes)?,
                        role: Role::from_u8(bytes.u8()?).ok_or(FrameError::Bad(Field::Role))?,
                    })
                })?,
                hears: bytes.list(hears, PEER_LEN, take_peer)?,
                late,
            }
        }
        kind::NODE_FENCED => NodeMessage::Fenced {
            group: take_group(bytes)?,
            epoch: take_epoch(bytes)?,
        },
        kind::NODE_HANDOVER => NodeMessage::Handover {
            group: take_group(bytes)?,
            epoch: take_epoch(bytes)?,
        },
        other => return Err(FrameError::UnknownMessage(other)),
    })
}
