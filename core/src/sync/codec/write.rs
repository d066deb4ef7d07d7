//! Messages to bytes.

use alloc::vec::Vec;

use super::pack::{
    Put, put_count, put_digest, put_epoch, put_group, put_lsn, put_packed, put_peer, put_range,
    put_range_count, put_ranges, put_session, put_slot, put_tuple, put_version,
};
use super::{
    BULK_FRAME_LEN_MAX, CRITICAL, FORMAT_VERSION, FrameHeader, HEADER_LEN, MESSAGE_HEADER_LEN, TYPE_MESSAGES,
    at, flag, kind, record,
};
use crate::cluster::{Epoch, GROUP_COUNT_MAX, GroupId, NODE_COUNT_MAX};
use crate::lport::BUCKET_COUNT_MAX;
use crate::sync::{
    DIGEST_SLOT_COUNT_MAX, HintKind, LSN_MAX, LiveRecord, Lsn, NodeMessage, PULL_SLOT_COUNT_MAX,
    SKIP_SLOT_COUNT_MAX, SyncBody, VersionedRecord,
};

/// Why something was not added to a frame. The frame is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// It does not fit in any more: finish the frame, and begin the next one with it.
    Full,
    /// No frame of this length takes it: it is too long even for an empty one, or breaks a bound of its type
    /// (LSN of more than 48 bits or 0 for a live record, slot or bucket out of range, a range that ends
    /// before it begins, too many ranges, slots, claims or peers, ends of two families on one side, no
    /// record). A mistake of who made it.
    Unencodable,
}

impl core::fmt::Display for PushError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            PushError::Full => "the frame is full",
            PushError::Unencodable => "no frame of this length takes the message",
        })
    }
}

impl core::error::Error for PushError {}

/// Fills one frame. What is pushed comes out of [`super::decode`] in the same order.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    buf: &'a mut Vec<u8>,
    len_max: usize,
    count: u16,
    ack_now: bool,
    /// Group and epoch of the last live section.
    live: Option<(GroupId, Epoch)>,
}

impl FrameHeader {
    /// Into `buf`, which is emptied first, with count and length 0: they are set at the end.
    pub(super) fn put(&self, buf: &mut Vec<u8>, frame_type: u8) {
        buf.clear();
        buf.extend([FORMAT_VERSION, frame_type, 0, 0]);
        buf.extend(self.cluster.to_le_bytes());
        buf.extend(self.from.node.0.to_le_bytes());
        buf.extend(self.stream.to_le_bytes());
        buf.extend([0; 4]);
        buf.extend(self.from.incarnation.0.to_le_bytes());
        buf.extend(self.packet_number.to_le_bytes());
    }
}

impl<'a> FrameWriter<'a> {
    /// A frame in `buf`, which is emptied first. It becomes at most `len_max` bytes long, and never longer
    /// than [`BULK_FRAME_LEN_MAX`]. The packet number is spent only if [`FrameWriter::finish`] says that
    /// there is a frame.
    pub fn new(buf: &'a mut Vec<u8>, header: &FrameHeader, len_max: usize) -> Self {
        header.put(buf, TYPE_MESSAGES);
        FrameWriter {
            buf,
            len_max: len_max.min(BULK_FRAME_LEN_MAX),
            count: 0,
            ack_now: false,
            live: None,
        }
    }

    /// Messages so far.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is no message yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a whole message of a bucket.
    pub fn push(&mut self, bucket: u16, ack_now: bool, body: &SyncBody) -> Result<(), PushError> {
        match body {
            SyncBody::Live(section) => {
                let before = self.mark();
                let mut live = self.live(bucket, ack_now, section.group, section.epoch, section.first);
                let done = section.records.iter().try_for_each(|r| live.push(r));
                self.all_or_nothing(before, section.records.is_empty(), done)
            }
            SyncBody::SlotRecords {
                id,
                group,
                slot,
                records,
            } => {
                let before = self.mark();
                let mut writer = self.slot_records(bucket, ack_now, *id, *group, *slot);
                let done = records.iter().try_for_each(|r| writer.push(r));
                self.all_or_nothing(before, records.is_empty(), done)
            }
            _ => {
                let kind = sync_kind(body);
                self.message(kind, bucket, ack_now, |buf| put_sync(buf, body))
            }
        }
    }

    /// Adds a message to the node.
    pub fn push_node(&mut self, message: &NodeMessage) -> Result<(), PushError> {
        let kind = match message {
            NodeMessage::Heartbeat { .. } => kind::NODE_HEARTBEAT,
            NodeMessage::Fenced { .. } => kind::NODE_FENCED,
            NodeMessage::Handover { .. } => kind::NODE_HANDOVER,
        };
        self.message(kind, 0, false, |buf| put_node(buf, message))
    }

    /// A live section, to be filled record by record. Nothing is written before its first record.
    pub fn live(
        &mut self,
        bucket: u16,
        ack_now: bool,
        group: GroupId,
        epoch: Epoch,
        first: Lsn,
    ) -> LiveWriter<'_, 'a> {
        LiveWriter {
            frame: self,
            bucket,
            ack_now,
            group,
            epoch,
            next: first,
            begun: None,
        }
    }

    /// Records of a slot, to be filled one by one. Nothing is written before the first one.
    pub fn slot_records(
        &mut self,
        bucket: u16,
        ack_now: bool,
        id: u32,
        group: GroupId,
        slot: u16,
    ) -> SlotWriter<'_, 'a> {
        SlotWriter {
            frame: self,
            bucket,
            ack_now,
            id,
            group,
            slot,
            last: None,
            begun: None,
            count: 0,
        }
    }

    /// Completes the frame and returns how many messages it has. 0: there is no frame, and the buffer is
    /// empty.
    pub fn finish(self) -> usize {
        if self.count == 0 {
            self.buf.clear();
            return 0;
        }
        let len = self.buf.len() as u16;
        self.buf[at::FLAGS] = if self.ack_now { flag::ACK_NOW } else { 0 };
        self.buf[at::COUNT].copy_from_slice(&self.count.to_le_bytes());
        self.buf[at::LENGTH].copy_from_slice(&len.to_le_bytes());
        usize::from(self.count)
    }

    fn mark(&self) -> Mark {
        Mark {
            len: self.buf.len(),
            count: self.count,
            ack_now: self.ack_now,
            live: self.live,
        }
    }

    /// Keeps what was written since `before` if all of it was, and takes it back if not.
    fn all_or_nothing(&mut self, before: Mark, nothing: bool, done: Put) -> Put {
        let done = match done {
            Ok(()) if nothing => Err(PushError::Unencodable),
            Err(PushError::Full) if before.count == 0 => Err(PushError::Unencodable),
            done => done,
        };
        if done.is_err() {
            self.buf.truncate(before.len);
            (self.count, self.ack_now, self.live) = (before.count, before.ack_now, before.live);
        }
        done
    }

    /// Adds a message with the body that `put` writes.
    fn message(
        &mut self,
        kind: u8,
        bucket: u16,
        ack_now: bool,
        put: impl FnOnce(&mut Vec<u8>) -> Put,
    ) -> Put {
        let before = self.mark();
        let begun = self.begin(kind, bucket, if ack_now { flag::ACK_NOW } else { 0 });
        let done = begun.and_then(|start| {
            put(self.buf)?;
            self.close(start)
        });
        self.all_or_nothing(before, false, done)
    }

    /// Writes the header of a message, and counts it. Returns where it begins.
    fn begin(&mut self, kind: u8, bucket: u16, flags: u8) -> Result<usize, PushError> {
        if bucket >= BUCKET_COUNT_MAX {
            return Err(PushError::Unencodable);
        }
        self.count = self.count.checked_add(1).ok_or(PushError::Full)?;
        self.ack_now |= flags & flag::ACK_NOW != 0;
        let start = self.buf.len();
        // Who does not know digests lacks nothing but their repairs.
        let critical = if kind == kind::DIGEST { 0 } else { CRITICAL };
        self.buf.extend([kind | critical, flags]);
        self.buf.extend(bucket.to_le_bytes());
        self.buf.extend([0; 2]);
        Ok(start)
    }

    /// Sets the length of the message that begins at `start` and ends here, if it is in the frame's bounds.
    fn close(&mut self, start: usize) -> Put {
        if self.buf.len() > self.len_max {
            return Err(PushError::Full);
        }
        let len = (self.buf.len() - start - MESSAGE_HEADER_LEN) as u16;
        self.buf[start + 4..start + 6].copy_from_slice(&len.to_le_bytes());
        Ok(())
    }
}

const _: () = assert!(BULK_FRAME_LEN_MAX <= u16::MAX as usize && HEADER_LEN == at::PACKET_NUMBER.end);

/// What a frame was.
struct Mark {
    len: usize,
    count: u16,
    ack_now: bool,
    live: Option<(GroupId, Epoch)>,
}

/// Fills a live section; see [`FrameWriter::live`]. It is complete after each record: there is nothing to
/// end.
#[derive(Debug)]
pub struct LiveWriter<'w, 'a> {
    frame: &'w mut FrameWriter<'a>,
    bucket: u16,
    ack_now: bool,
    group: GroupId,
    epoch: Epoch,
    next: Lsn,
    begun: Option<usize>,
}

impl LiveWriter<'_, '_> {
    /// The LSN of the next record.
    pub fn next_lsn(&self) -> Lsn {
        self.next
    }

    /// Adds a record with the next LSN.
    pub fn push(&mut self, record: &LiveRecord) -> Result<(), PushError> {
        let before = self.frame.mark();
        let done = self.put(record);
        self.frame.all_or_nothing(before, false, done)?;
        Ok(())
    }

    fn put(&mut self, record: &LiveRecord) -> Put {
        if self.next == 0 || self.next > LSN_MAX {
            return Err(PushError::Unencodable);
        }
        let start = match self.begun {
            Some(start) => start,
            None => self.begin()?,
        };
        let buf = &mut *self.frame.buf;
        let at = buf.len();
        match record {
            LiveRecord::Open(session) => {
                buf.extend([record::OPEN | CRITICAL, 0]);
                put_session(buf, session)?;
            }
            LiveRecord::Update(session) => {
                buf.extend([record::UPDATE | CRITICAL, 0]);
                put_session(buf, session)?;
            }
            LiveRecord::Close(tuple, reason) => {
                buf.extend([record::CLOSE | CRITICAL, 0]);
                put_tuple(buf, tuple)?;
                buf.push(*reason as u8);
            }
        }
        // The longest session has 96 bytes.
        buf[at + 1] = (buf.len() - at - 2) as u8;
        self.frame.close(start)?;
        self.begun = Some(start);
        self.next += 1;
        Ok(())
    }

    fn begin(&mut self) -> Result<usize, PushError> {
        let same = self.frame.live == Some((self.group, self.epoch));
        let mut flags = if self.ack_now { flag::ACK_NOW } else { 0 };
        if same {
            flags |= flag::SAME_GROUP;
        }
        let start = self.frame.begin(kind::LIVE, self.bucket, flags)?;
        if !same {
            put_group(self.frame.buf, self.group);
            put_epoch(self.frame.buf, self.epoch);
        }
        put_lsn(self.frame.buf, self.next)?;
        self.frame.live = Some((self.group, self.epoch));
        Ok(start)
    }
}

/// Fills records of a slot; see [`FrameWriter::slot_records`]. Complete after each record.
#[derive(Debug)]
pub struct SlotWriter<'w, 'a> {
    frame: &'w mut FrameWriter<'a>,
    bucket: u16,
    ack_now: bool,
    id: u32,
    group: GroupId,
    slot: u16,
    /// Epoch of the record before.
    last: Option<Epoch>,
    begun: Option<usize>,
    count: u32,
}

impl SlotWriter<'_, '_> {
    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Adds a record.
    pub fn push(&mut self, record: &VersionedRecord) -> Result<(), PushError> {
        let before = self.frame.mark();
        let done = self.put(record);
        self.frame.all_or_nothing(before, false, done)
    }

    fn put(&mut self, record: &VersionedRecord) -> Put {
        let start = match self.begun {
            Some(start) => start,
            None => {
                let flags = if self.ack_now { flag::ACK_NOW } else { 0 };
                let start = self.frame.begin(kind::SLOT_RECORDS, self.bucket, flags)?;
                put_pulled(self.frame.buf, self.id, self.group, self.slot)?;
                start
            }
        };
        put_packed(self.frame.buf, record, self.last)?;
        self.frame.close(start)?;
        self.begun = Some(start);
        self.last = Some(record.version.epoch);
        self.count += 1;
        Ok(())
    }
}

/// What every answer to a pull begins with.
fn put_pulled(buf: &mut Vec<u8>, id: u32, group: GroupId, slot: u16) -> Put {
    buf.extend(id.to_le_bytes());
    put_group(buf, group);
    put_slot(buf, slot)
}

/// How many slots a pull or its answer is about.
fn put_pull_count(buf: &mut Vec<u8>, count: usize) -> Put {
    if count == 0 || count > PULL_SLOT_COUNT_MAX {
        return Err(PushError::Unencodable);
    }
    buf.extend((count as u16).to_le_bytes());
    Ok(())
}

const fn sync_kind(body: &SyncBody) -> u8 {
    match body {
        SyncBody::Live(_) => kind::LIVE,
        SyncBody::Heartbeat { .. } => kind::HEARTBEAT,
        SyncBody::Ack { .. } => kind::ACK,
        SyncBody::Nack { .. } => kind::NACK,
        SyncBody::Skip { .. } => kind::SKIP,
        SyncBody::Hint { .. } => kind::HINT,
        SyncBody::Pull { .. } => kind::PULL,
        SyncBody::SlotBegin { .. } => kind::SLOT_BEGIN,
        SyncBody::SlotRecords { .. } => kind::SLOT_RECORDS,
        SyncBody::SlotEnd { .. } => kind::SLOT_END,
        SyncBody::SlotsEmpty { .. } => kind::SLOTS_EMPTY,
        SyncBody::Watermark { .. } => kind::WATERMARK,
        SyncBody::Merged { .. } => kind::MERGED,
        SyncBody::Offer { .. } => kind::OFFER,
        SyncBody::OfferSeen { .. } => kind::OFFER_SEEN,
        SyncBody::Digest { .. } => kind::DIGEST,
    }
}

/// The body of a message that is not made of many records.
fn put_sync(buf: &mut Vec<u8>, body: &SyncBody) -> Put {
    match body {
        // Written record by record.
        SyncBody::Live(_) | SyncBody::SlotRecords { .. } => Err(PushError::Unencodable),
        SyncBody::Heartbeat { last } => put_lsn(buf, *last),
        SyncBody::Ack {
            of,
            contiguous,
            applied,
            refused,
            unkept,
        } => {
            put_peer(buf, *of);
            put_lsn(buf, *contiguous)?;
            put_range_count(buf, applied)?;
            put_range_count(buf, refused)?;
            put_range_count(buf, unkept)?;
            put_ranges(buf, applied)?;
            put_ranges(buf, refused)?;
            put_ranges(buf, unkept)
        }
        SyncBody::Nack { of, missing } => {
            put_peer(buf, *of);
            put_range_count(buf, missing)?;
            put_ranges(buf, missing)
        }
        SyncBody::Skip { gap, until, slots } => {
            put_range(buf, *gap)?;
            put_lsn(buf, *until)?;
            if slots.len() > SKIP_SLOT_COUNT_MAX {
                return Err(PushError::Unencodable);
            }
            buf.extend((slots.len() as u16).to_le_bytes());
            slots.iter().try_for_each(|slot| put_slot(buf, *slot))
        }
        SyncBody::Hint { group, tuple, kind } => {
            put_group(buf, *group);
            // A segment: event in the low two bits, direction above; traffic: 8 and the direction.
            buf.push(match *kind {
                HintKind::Segment(direction, event) => (direction as u8) << 2 | event as u8,
                HintKind::Traffic(direction) => 8 | direction as u8,
            });
            put_tuple(buf, tuple)
        }
        SyncBody::Pull {
            group,
            id,
            min,
            mode,
            slots,
        } => {
            put_group(buf, *group);
            buf.extend(id.to_le_bytes());
            put_version(buf, *min)?;
            buf.push(*mode as u8);
            put_pull_count(buf, slots.len())?;
            slots.iter().try_for_each(|slot| put_slot(buf, *slot))
        }
        SyncBody::SlotBegin { id, group, slot } => put_pulled(buf, *id, *group, *slot),
        SyncBody::SlotEnd {
            id,
            group,
            slot,
            count,
            as_of,
        } => {
            put_pulled(buf, *id, *group, *slot)?;
            buf.extend(count.to_le_bytes());
            put_version(buf, *as_of)
        }
        SyncBody::SlotsEmpty {
            id,
            group,
            count,
            as_of,
        } => {
            buf.extend(id.to_le_bytes());
            put_group(buf, *group);
            put_pull_count(buf, usize::from(*count))?;
            put_version(buf, *as_of)
        }
        SyncBody::Watermark {
            group,
            epoch,
            last,
            copy,
            contiguous,
            applied,
        } => {
            put_group(buf, *group);
            put_epoch(buf, *epoch);
            put_epoch(buf, *last);
            buf.push(*copy as u8);
            put_lsn(buf, *contiguous)?;
            put_range_count(buf, applied)?;
            put_ranges(buf, applied)
        }
        SyncBody::Merged {
            group,
            epoch,
            base,
            exact,
            at,
        } => {
            put_group(buf, *group);
            put_epoch(buf, *epoch);
            put_version(buf, *base)?;
            buf.push(u8::from(*exact));
            put_lsn(buf, *at)
        }
        SyncBody::Offer { group, record, id } => {
            buf.extend(id.to_le_bytes());
            put_group(buf, *group);
            put_packed(buf, record, None)
        }
        SyncBody::OfferSeen { group, id } => {
            buf.extend(id.to_le_bytes());
            put_group(buf, *group);
            Ok(())
        }
        SyncBody::Digest {
            group,
            epoch,
            last,
            slots,
        } => {
            put_group(buf, *group);
            put_epoch(buf, *epoch);
            put_lsn(buf, *last)?;
            if slots.is_empty() {
                return Err(PushError::Unencodable);
            }
            put_count(buf, slots, DIGEST_SLOT_COUNT_MAX)?;
            slots.iter().try_for_each(|digest| put_digest(buf, digest))
        }
    }
}

fn put_node(buf: &mut Vec<u8>, message: &NodeMessage) -> Put {
    match message {
        NodeMessage::Heartbeat {
            shares,
            readiness,
            draining,
            claims,
            hears,
            late,
        } => {
            buf.extend(shares.to_le_bytes());
            // Readiness in the low two bits, then draining.
            buf.push(*readiness as u8 | u8::from(*draining) << 2);
            put_count(buf, claims, GROUP_COUNT_MAX)?;
            put_count(buf, hears, NODE_COUNT_MAX)?;
            buf.extend(late.to_le_bytes());
            for claim in claims {
                put_group(buf, claim.group);
                put_epoch(buf, claim.epoch);
                buf.push(claim.role as u8);
            }
            for peer in hears {
                put_peer(buf, *peer);
            }
        }
        NodeMessage::Fenced { group, epoch } | NodeMessage::Handover { group, epoch } => {
            put_group(buf, *group);
            put_epoch(buf, *epoch);
        }
    }
    Ok(())
}
