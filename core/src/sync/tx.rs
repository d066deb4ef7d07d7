//! What is told: dirty conns, LSNs, what peers have of it, what they missed.
//!
//! ```text
//!  change ──> dirty queue of the bucket ──> one record with the next LSN ──> ring of (conn, generation, slot)
//!                  ^                                                             │
//!                  └───────────── NACK: the conn still has that LSN ─────────────┤
//!                                                                                └─> overwritten before its ACK:
//!                                                                                    the slot is dirty for the peer
//! ```

use alloc::vec::Vec;
use core::time::Duration;

use super::epochs::{index_of, lsn_of, packed};
use super::state::{Ctx, Destination, SlotBits, Sync};
use super::{
    CloseReason, LSN_MAX, LiveRecord, LiveSection, Lsn, LsnRange, Peer, SKIP_SLOT_COUNT_MAX, SessionRecord,
    SyncBody, SyncEvent, SyncMessage,
};
use crate::cluster::PeerId;
use crate::conn::{ConnId, LIST_END, flag};
use crate::stats::SyncCount;
use crate::time::Instant;

/// Answers to NACKs that wait in a bucket, at most.
pub(super) const SKIP_COUNT_MAX: usize = 64;
/// Records of one live section at most: the longest twelve fit a frame of 1,400 bytes.
const SECTION_COUNT_MAX: usize = 12;
/// Conns that are told at once when so many are dirty; fewer wait for [`FLUSH`].
const FLUSH_COUNT: usize = 16;
/// How long a change waits for others to share its frame.
const FLUSH: Duration = Duration::from_millis(1);
/// Heartbeats while something is unacked.
pub(super) const FAST_BEAT: Duration = Duration::from_millis(10);
/// Heartbeats while nothing is.
pub(super) const BEAT: Duration = Duration::from_millis(100);
/// What was not acked for so long is asked for: the ACK was lost, or the record.
const ACK_LATE: Duration = Duration::from_millis(60);
/// A peer that acks nothing for so long is out of sync.
const OUT_OF_SYNC: Duration = Duration::from_secs(1);
/// Entries that a search for a tombstone looks at, at most.
const TOMB_SEARCH_MAX: usize = 1024;

/// A record that was told, by its LSN.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    conn: u32,
    slot: u16,
    generation: u8,
}

/// A NACK that is answered once what was lost is told again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skip {
    peer: PeerId,
    gap: LsnRange,
    /// When so many conns were taken from the dirty queue.
    after: u64,
}

/// What was told in a bucket.
#[derive(Debug)]
pub(super) struct Ring {
    /// The last LSN given.
    pub(super) last: Lsn,
    entries: Vec<Entry>,
    /// Up to it no tombstone waits for anybody.
    freed: Lsn,
    pub(super) dirty_head: u32,
    dirty_tail: u32,
    pub(super) dirty_len: usize,
    /// Conns ever put into and taken from the dirty queue.
    pub(super) pushed: u64,
    pub(super) popped: u64,
    pub(super) skips: Vec<Skip>,
    /// Received tombstones.
    pub(super) tombs_head: u32,
    pub(super) tombs_tail: u32,
}

impl Ring {
    pub(super) fn new(len: u32) -> Self {
        Ring {
            last: 0,
            entries: alloc::vec![Entry::default(); len as usize],
            freed: 0,
            dirty_head: LIST_END,
            dirty_tail: LIST_END,
            dirty_len: 0,
            pushed: 0,
            popped: 0,
            skips: Vec::new(),
            tombs_head: LIST_END,
            tombs_tail: LIST_END,
        }
    }

    fn place(&self, lsn: Lsn) -> usize {
        lsn as usize & (self.entries.len() - 1)
    }

    /// The oldest LSN whose record is remembered.
    fn oldest(&self) -> Lsn {
        (self.last + 1).saturating_sub(self.entries.len() as u64).max(1)
    }

    /// Whether something of a slot may have been told after an LSN; what was is not remembered for ever.
    pub(super) fn may_have_told(&self, slot: u16, since: Lsn) -> bool {
        let first = since.saturating_add(1);
        first < self.oldest() || (first..=self.last).any(|lsn| self.entries[self.place(lsn)].slot == slot)
    }

    /// Whether it is remembered that a conn was told by an LSN.
    pub(super) fn remembers(&self, lsn: Lsn, conn: ConnId, generation: u8) -> bool {
        let is_it = |e: Entry| (e.conn, e.generation) == (conn.link(), generation);
        self.entry(lsn).is_some_and(is_it)
    }

    fn entry(&self, lsn: Lsn) -> Option<Entry> {
        (lsn >= self.oldest() && lsn <= self.last).then(|| self.entries[self.place(lsn)])
    }
}

/// A peer as a receiver.
#[derive(Debug)]
pub(super) struct PeerTx {
    pub(super) peer: Peer,
    /// By place of bucket.
    acked: Vec<Acked>,
    /// Slots that it cannot be told of any more but by a pull.
    dirty: SlotBits,
    /// Of these: those that a SKIP named; it knows once it has acked up to [`Acked::told_until`].
    told: SlotBits,
    /// All that ever were dirty: what it has acked of them it may have skipped.
    pub(super) ever_dirty: SlotBits,
}

#[derive(Clone, Copy, Debug)]
struct Acked {
    up_to: Lsn,
    /// The highest LSN of which it has said that it does not have its session, or may not.
    unkept: Lsn,
    told_until: Lsn,
    /// Since when it is behind without a step forward.
    since: Option<Instant>,
}

impl PeerTx {
    pub(super) fn new(peer: Peer, last: Vec<Lsn>) -> Self {
        let acked = |up_to| Acked {
            up_to,
            // It was not sent any of these, or in a time of which nobody here knows.
            unkept: up_to,
            told_until: 0,
            since: None,
        };
        PeerTx {
            peer,
            acked: last.into_iter().map(acked).collect(),
            dirty: SlotBits::EMPTY,
            told: SlotBits::EMPTY,
            ever_dirty: SlotBits::EMPTY,
        }
    }

    /// Whether it has dealt with an LSN, and not without keeping its session. `remembered`: the LSN is in the ring. What is not may have been
    /// skipped, if its slot was ever dirty.
    pub(super) fn has_kept(&self, place: usize, lsn: Lsn, slot: u16, remembered: bool) -> bool {
        let acked = &self.acked[place];
        lsn <= acked.up_to && lsn > acked.unkept && (remembered || !self.ever_dirty.has(slot))
    }

    /// It has said of these that it may not have their sessions.
    pub(super) fn unkept(&mut self, place: usize, unkept: &[LsnRange], last: Lsn) {
        let highest = unkept.iter().map(|r| r.last).filter(|l| *l <= last).max();
        let acked = &mut self.acked[place];
        acked.unkept = acked.unkept.max(highest.unwrap_or(0));
    }

    /// A slot is dirty for it; whether it was not.
    fn spoil(&mut self, slot: u16) -> bool {
        self.ever_dirty.set(slot);
        self.told.clear(slot);
        self.dirty.set(slot)
    }

    /// Whether it has made no step forward for too long to be waited for.
    fn is_late(&self, now: Instant) -> bool {
        let waits = |a: &Acked| a.since.is_some_and(|since| now - since >= OUT_OF_SYNC);
        self.acked.iter().any(waits)
    }
}

impl Sync {
    /// The conns of a version are told to others, as they are a group's that this node holds.
    fn tells(&self, version: u64) -> bool {
        self.group_of(version).is_some_and(|g| g.role.is_holder())
    }

    /// Puts a conn, or a tombstone, into the dirty queue of its bucket, unless it is there.
    pub(crate) fn mark(&mut self, ctx: &mut Ctx<'_>, id: ConnId) {
        let Some(place) = ctx.table.inbound(id).and_then(|t| self.place(self.bucket_of(&t))) else {
            return;
        };
        let Some(meta) = ctx.table.meta_mut(id).filter(|m| m.flags & flag::DIRTY == 0) else {
            return;
        };
        meta.flags |= flag::DIRTY;
        meta.dirty_link = LIST_END;
        let ring = &mut self.rings[place];
        let tail = core::mem::replace(&mut ring.dirty_tail, id.link());
        match ConnId::from_link(tail).filter(|_| tail != LIST_END) {
            Some(tail) => {
                if let Some(meta) = ctx.table.meta_mut(tail) {
                    meta.dirty_link = id.link();
                }
            }
            None => ring.dirty_head = id.link(),
        }
        ring.dirty_len += 1;
        ring.pushed += 1;
        self.dirty += 1;
        let due = if self.dirty >= FLUSH_COUNT {
            ctx.now
        } else {
            ctx.now + FLUSH
        };
        self.flush_at = Some(self.flush_at.map_or(due, |at| at.min(due)));
    }

    /// Takes the first one out of a dirty queue.
    fn unmark_first(&mut self, ctx: &mut Ctx<'_>, place: usize) -> Option<ConnId> {
        let ring = &mut self.rings[place];
        let head = ring.dirty_head;
        let id = ConnId::from_link(head).filter(|_| head != LIST_END)?;
        let meta = ctx.table.meta_mut(id)?;
        meta.flags &= !flag::DIRTY;
        ring.dirty_head = meta.dirty_link;
        if ring.dirty_head == LIST_END {
            ring.dirty_tail = LIST_END;
        }
        ring.dirty_len -= 1;
        ring.popped += 1;
        self.dirty -= 1;
        if self.dirty == 0 {
            self.flush_at = None;
        }
        Some(id)
    }

    /// Takes a conn out of the table. With a reason, and if others know it: a tombstone stays that tells them.
    pub(crate) fn take_out(&mut self, ctx: &mut Ctx<'_>, id: ConnId, close: Option<CloseReason>) -> bool {
        let Some(meta) = ctx.table.meta(id) else {
            return false;
        };
        let (version, flags) = (meta.version, meta.flags);
        self.end_waits_of(ctx, id);
        self.undigest(ctx.table, id);
        let close = close.filter(|_| lsn_of(version) != 0 && self.tells(version));
        if close.is_none() && flags & flag::DIRTY == 0 {
            let removed = ctx.table.remove(id);
            if removed {
                self.epochs.forget(index_of(version));
            }
            return removed;
        }
        if !ctx.table.bury(id) {
            return false;
        }
        self.epochs.bury(index_of(version));
        if let Some(meta) = ctx.table.meta_mut(id) {
            // A tombstone has no rarer state: why it is one stands in its place.
            meta.ext = close.map_or(0, |reason| reason as u32 + 1);
        }
        self.mark(ctx, id);
        true
    }

    /// Frees a tombstone that is in neither list.
    pub(super) fn free(&mut self, ctx: &mut Ctx<'_>, id: ConnId) {
        let version = ctx.table.meta(id).map_or(0, |m| m.version);
        if ctx.table.free_tomb(id) {
            self.epochs.forget_tomb(index_of(version));
        }
    }

    /// Whether something is to be told now.
    pub(super) fn is_live_due(&self, now: Instant) -> bool {
        self.dirty > 0 && self.flush_at.is_none_or(|at| at <= now)
    }

    /// The next section of records, from the next bucket that has some.
    pub(super) fn poll_live(&mut self, ctx: &mut Ctx<'_>) -> Option<SyncMessage> {
        if self.dirty == 0 {
            // All that was marked has gone since: nothing is due.
            self.flush_at = None;
        }
        if !self.is_live_due(ctx.now) {
            return None;
        }
        debug_assert!(!self.rings.is_empty(), "dirty conns lie in buckets");
        let count = self.rings.len();
        for _ in 0..count {
            let place = self.live_cursor % count;
            if let Some(section) = self.encode(ctx, place) {
                if !self.peers.iter().any(|p| p.peer.in_sync) {
                    // No ACK is waited for that would free the tombstones among them.
                    self.free_acked(ctx, place);
                }
                self.fast_beat_at = self.fast_beat_at.min(ctx.now + FAST_BEAT);
                self.wake_at(ctx.now + FAST_BEAT);
                if self.fast_beat_at <= ctx.now {
                    self.fast_beat_at = ctx.now + FAST_BEAT;
                }
                return Some(SyncMessage {
                    from: self.id,
                    bucket: self.buckets[place],
                    ack_now: self.is_waited_for(place),
                    body: SyncBody::Live(section),
                });
            }
            self.live_cursor = (place + 1) % count;
        }
        // What is left waits for a merge.
        self.flush_at = (self.dirty > 0).then(|| ctx.now + FAST_BEAT);
        None
    }

    fn encode(&mut self, ctx: &mut Ctx<'_>, place: usize) -> Option<LiveSection> {
        let mut section: Option<LiveSection> = None;
        let mut deferred = 0;
        // Those that wait for a merge go to the end of the queue, once a call.
        for _ in 0..self.rings[place].dirty_len {
            let head = self.rings[place].dirty_head;
            let id = ConnId::from_link(head).filter(|_| head != LIST_END)?;
            let version = ctx.table.meta(id)?.version;
            let told = self
                .group_of(version)
                .filter(|g| g.role.is_holder() && g.epoch.holder == self.id)
                .map(|g| (g.id, g.epoch, g.index, g.merged.get(place) == Some(&g.epoch)));
            if let (Some(s), Some((group, epoch, _, true))) = (&section, told)
                && (s.group, s.epoch) != (group, epoch)
            {
                break;
            }
            self.unmark_first(ctx, place)?;
            if told.is_none_or(|(.., merged)| !merged) {
                self.skip_untold(ctx, place, id, lsn_of(version));
            }
            let Some((group, epoch, index, merged)) = told else {
                // Whoever holds it tells it.
                self.untold(ctx, id);
                if ctx.table.is_tomb(id) {
                    self.free(ctx, id);
                }
                continue;
            };
            if !merged {
                self.mark(ctx, id);
                deferred += 1;
                if deferred > self.rings[place].dirty_len {
                    break;
                }
                continue;
            }
            let Some(record) = self.record(ctx, id, version) else {
                continue;
            };
            let lsn = self.give_lsn(ctx, place, id);
            self.set_version(ctx.table, id, packed(index, lsn));
            if let LiveRecord::Open(session) | LiveRecord::Update(session) = &record {
                self.digest(ctx.table, id, Some(session));
            }
            ctx.count(SyncCount::Encoded);
            let section = section.get_or_insert_with(|| LiveSection {
                group,
                epoch,
                first: lsn,
                records: Vec::with_capacity(SECTION_COUNT_MAX),
            });
            section.records.push(record);
            if section.records.len() == SECTION_COUNT_MAX {
                break;
            }
        }
        section
    }

    /// What is told of a conn or a tombstone; `None`: nothing, and a tombstone is gone.
    fn record(&mut self, ctx: &mut Ctx<'_>, id: ConnId, version: u64) -> Option<LiveRecord> {
        if !ctx.table.is_tomb(id) {
            let session = SessionRecord::of(ctx.table, id)?;
            return Some(if lsn_of(version) == 0 {
                LiveRecord::Open(session)
            } else {
                LiveRecord::Update(session)
            });
        }
        let tuple = ctx.table.inbound(id)?;
        let reason = match ctx.table.meta(id)?.ext {
            0 => {
                // Nobody was told of it.
                self.free(ctx, id);
                return None;
            }
            1 => CloseReason::Expired,
            2 => CloseReason::Replaced,
            _ => CloseReason::Superseded,
        };
        // The client's tuple is all that a CLOSE names: one that is told after the next session of the tuple
        // would close that one. That one's record replaces the old session as well.
        if let Some((next, _)) = ctx.table.lookup(&tuple)
            && let Some(meta) = ctx.table.meta(next)
            && self.epochs.group(meta.version) == self.epochs.group(version)
            && (lsn_of(meta.version) != 0 || meta.flags & flag::DIRTY != 0)
        {
            self.mark(ctx, next);
            self.free(ctx, id);
            return None;
        }
        Some(LiveRecord::Close(tuple, reason))
    }

    /// The next LSN of a bucket, for a conn. Its place in the ring may be another record's, which is no longer
    /// remembered.
    fn give_lsn(&mut self, ctx: &mut Ctx<'_>, place: usize, id: ConnId) -> Lsn {
        let slot = ctx.table.inbound(id).map_or(0, |t| ctx.table.slot_of(&t));
        let ring = &mut self.rings[place];
        debug_assert!(ring.last < LSN_MAX, "48 bits last for centuries");
        let lsn = ring.last + 1;
        if let Some(old) = lsn.checked_sub(ring.entries.len() as u64).filter(|old| *old > 0) {
            self.give_up(ctx, place, old, id);
        }
        let ring = &mut self.rings[place];
        let at = ring.place(lsn);
        let generation = ctx.table.meta(id).map_or(0, |m| m.generation);
        ring.entries[at] = Entry {
            conn: id.link(),
            slot,
            generation,
        };
        ring.last = lsn;
        self.waits.told(place, (id, generation), lsn);
        lsn
    }

    /// A record is no longer remembered: who has not acked it will have to pull its slot, and a tombstone goes,
    /// unless it is `but`.
    fn give_up(&mut self, ctx: &mut Ctx<'_>, place: usize, lsn: Lsn, but: ConnId) {
        let Some(entry) = self.rings[place].entry(lsn) else {
            return;
        };
        self.make_dirty(ctx, place, lsn, entry.slot);
        if let Some(id) = self.tomb_at(ctx, place, lsn).filter(|id| *id != but) {
            self.free(ctx, id);
        }
    }

    /// The slot is to be pulled by those who have not acked an LSN.
    fn make_dirty(&mut self, ctx: &mut Ctx<'_>, place: usize, lsn: Lsn, slot: u16) {
        for peer in self.peers.iter_mut().filter(|p| p.acked[place].up_to < lsn) {
            if peer.spoil(slot) {
                ctx.counters.count(SyncCount::SlotsDirty);
            }
        }
    }

    /// The tombstone that was told with an LSN, if it is there and not told again.
    fn tomb_at(&self, ctx: &Ctx<'_>, place: usize, lsn: Lsn) -> Option<ConnId> {
        let entry = self.rings[place].entry(lsn)?;
        let id = ConnId::from_link(entry.conn)?;
        let meta = ctx.table.meta(id)?;
        (ctx.table.is_tomb(id)
            && meta.generation == entry.generation
            && lsn_of(meta.version) == lsn
            && meta.flags & flag::DIRTY == 0)
            .then_some(id)
    }

    /// Up to where all peers that are waited for have acked.
    fn acked_by_all(&self, place: usize) -> Lsn {
        let waited = self.peers.iter().filter(|p| p.peer.in_sync);
        let least = waited.map(|p| p.acked[place].up_to).min();
        least.unwrap_or(LSN_MAX).min(self.rings[place].last)
    }

    /// Frees tombstones that all have heard of.
    pub(super) fn free_acked(&mut self, ctx: &mut Ctx<'_>, place: usize) {
        let to = self.acked_by_all(place);
        let from = (self.rings[place].freed + 1).max(self.rings[place].oldest());
        for lsn in from..=to {
            if let Some(id) = self.tomb_at(ctx, place, lsn) {
                self.free(ctx, id);
            }
        }
        let ring = &mut self.rings[place];
        ring.freed = ring.freed.max(to);
    }

    /// Frees a tombstone of a slab before all have heard of it: its slot is dirty for them. `false`: none was found.
    pub(crate) fn evict_tomb(&mut self, ctx: &mut Ctx<'_>, v6: bool) -> bool {
        if !ctx.table.has_tombs(v6) {
            return false;
        }
        let count = self.rings.len();
        let mut looks = TOMB_SEARCH_MAX;
        for _ in 0..count {
            let place = self.tomb_cursor % count;
            let from = (self.rings[place].freed + 1).max(self.rings[place].oldest());
            for lsn in from..=self.rings[place].last {
                if looks == 0 {
                    return false;
                }
                looks -= 1;
                if let Some(id) = self.tomb_at(ctx, place, lsn).filter(|id| id.is_v6() == v6) {
                    let slot = self.rings[place].entry(lsn).map_or(0, |e| e.slot);
                    self.make_dirty(ctx, place, lsn, slot);
                    self.free(ctx, id);
                    ctx.count(SyncCount::TombsEvicted);
                    return true;
                }
            }
            if self.evict_received(ctx, place, v6) {
                return true;
            }
            self.tomb_cursor = (place + 1) % count;
        }
        false
    }

    pub(super) fn handle_ack(&mut self, ctx: &mut Ctx<'_>, from: PeerId, place: usize, contiguous: Lsn) {
        let (last, bucket) = (self.rings[place].last, self.buckets[place]);
        let slots = self.slots_of(bucket);
        let Some(peer) = self.peers.iter_mut().find(|p| p.peer.id == from) else {
            return;
        };
        let acked = &mut peer.acked[place];
        if contiguous > last || contiguous < acked.up_to {
            if contiguous > last {
                ctx.count(SyncCount::Unexpected);
            }
            return;
        }
        acked.since = None;
        let forward = contiguous > acked.up_to;
        acked.up_to = contiguous;
        if contiguous >= acked.told_until {
            for slot in slots {
                if peer.told.has(slot) {
                    peer.told.clear(slot);
                    peer.dirty.clear(slot);
                }
            }
        }
        if forward {
            self.free_acked(ctx, place);
        }
    }

    pub(super) fn handle_nack(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: PeerId,
        place: usize,
        missing: &[LsnRange],
    ) {
        ctx.count(SyncCount::NackTaken);
        for &gap in missing {
            if gap.first == 0 || gap.first > gap.last || gap.last > self.rings[place].last {
                ctx.count(SyncCount::Unexpected);
                continue;
            }
            self.waits.missed(place, gap);
            let ring = &self.rings[place];
            let waits = ring.skips.iter().any(|s| s.peer == from && s.gap == gap);
            if waits {
                continue;
            }
            if ring.skips.len() == SKIP_COUNT_MAX {
                ctx.count(SyncCount::QueueFull);
                return;
            }
            for lsn in gap.first.max(ring.oldest())..=gap.last {
                self.tell_again(ctx, from, place, lsn);
            }
            let ring = &mut self.rings[place];
            ring.skips.push(Skip {
                peer: from,
                gap,
                after: ring.pushed,
            });
            self.skip_count += 1;
        }
    }

    /// A peer had no room for records: they are not told again, it pulls their slots once it has some.
    pub(super) fn handle_refused(
        &mut self,
        ctx: &mut Ctx<'_>,
        peer: PeerId,
        place: usize,
        refused: &[LsnRange],
    ) {
        // What was never told cannot have been refused.
        let last = self.rings[place].last;
        let told = refused
            .iter()
            .filter(|r| r.first > 0 && r.first <= r.last && r.last <= last);
        let count = told.map(|r| r.last - r.first + 1).fold(0, u64::saturating_add);
        if count > 0 {
            let counted = &mut ctx.counters.sync[SyncCount::PeerRefused as usize];
            *counted = counted.saturating_add(count);
            self.tell(SyncEvent::Refused(peer));
        }
    }

    /// A record was lost on its way to a peer.
    fn tell_again(&mut self, ctx: &mut Ctx<'_>, peer: PeerId, place: usize, lsn: Lsn) {
        let Some(entry) = self.rings[place].entry(lsn) else {
            return;
        };
        let Some(id) = ConnId::from_link(entry.conn) else {
            return;
        };
        let there = ctx
            .table
            .meta(id)
            .filter(|m| m.proto != 0 && m.generation == entry.generation)
            .map(|m| m.version);
        match there {
            // A later record says more.
            Some(version) if lsn_of(version) != lsn && self.tells(version) => {}
            Some(version) if self.tells(version) => {
                self.mark(ctx, id);
                self.flush_at = Some(ctx.now);
            }
            _ => {
                let Some(p) = self.peers.iter_mut().find(|p| p.peer.id == peer) else {
                    return;
                };
                if p.spoil(entry.slot) {
                    ctx.count(SyncCount::SlotsDirty);
                }
            }
        }
    }

    /// What was to be told again for a NACK is not told now, and the SKIP does not wait for it: who lost it has to pull its slot.
    fn skip_untold(&mut self, ctx: &mut Ctx<'_>, place: usize, id: ConnId, lsn: Lsn) {
        let skips = &self.rings[place].skips;
        if skips.is_empty() {
            return;
        }
        let slot = ctx.table.inbound(id).map_or(0, |t| ctx.table.slot_of(&t));
        for skip in skips.iter().filter(|s| s.gap.first <= lsn && lsn <= s.gap.last) {
            let Some(peer) = self.peers.iter_mut().find(|p| p.peer.id == skip.peer) else {
                continue;
            };
            if peer.spoil(slot) {
                ctx.count(SyncCount::SlotsDirty);
            }
        }
    }

    /// Answers to NACKs whose records were told again.
    pub(super) fn sweep_skips(&mut self, ctx: &mut Ctx<'_>) {
        if self.skip_count == 0 {
            return;
        }
        for place in 0..self.rings.len() {
            while let Some(at) = {
                let ring = &self.rings[place];
                ring.skips.iter().position(|s| s.after <= ring.popped)
            } {
                if self.outbox.len() + 16 > self.sizes.outbox {
                    return;
                }
                let skip = self.rings[place].skips.swap_remove(at);
                self.skip_count -= 1;
                let (until, bucket) = (self.rings[place].last, self.buckets[place]);
                let slots = self.slots_of(bucket);
                let Some(peer) = self.peers.iter_mut().find(|p| p.peer.id == skip.peer) else {
                    continue;
                };
                let dirty: Vec<u16> = slots.filter(|s| peer.dirty.has(*s)).collect();
                for slot in &dirty {
                    peer.told.set(*slot);
                }
                peer.acked[place].told_until = until;
                // At most 16 parts: a worker's bucket has 4096 slots at most.
                let parts = if dirty.is_empty() {
                    alloc::vec![&dirty[..]]
                } else {
                    dirty.chunks(SKIP_SLOT_COUNT_MAX).collect()
                };
                for part in parts {
                    let body = SyncBody::Skip {
                        gap: skip.gap,
                        until,
                        slots: part.to_vec(),
                    };
                    self.send(ctx, Destination::One(skip.peer), bucket, true, body);
                }
            }
        }
    }

    /// Records that a peer has not acked.
    pub(super) fn unacked(&self, peer: &PeerTx) -> u64 {
        let behind = self.rings.iter().zip(&peer.acked);
        behind
            .map(|(ring, acked)| ring.last - acked.up_to.min(ring.last))
            .sum()
    }

    /// Peers that have made no step forward for too long to be waited for, whether they are or not.
    pub(super) fn late_peers(&self, now: Instant) -> impl Iterator<Item = PeerId> + '_ {
        let late = self.peers.iter().filter(move |p| p.is_late(now));
        late.map(|p| p.peer.id)
    }

    /// Whether a peer that is waited for lacks something of a bucket.
    fn is_unacked(&self, place: usize) -> bool {
        self.acked_by_all(place) < self.rings[place].last
    }

    /// The next heartbeat of those that are being sent.
    pub(super) fn poll_beat(&mut self, ctx: &mut Ctx<'_>) -> Option<SyncMessage> {
        let (mut place, all) = self.beat?;
        while place < self.rings.len() && !all && !self.is_unacked(place) {
            place += 1;
        }
        if place >= self.rings.len() {
            self.beat = None;
            return None;
        }
        self.beat = Some((place + 1, all));
        let mut late = false;
        // Who is not waited for is asked too: its last ACK may be lost, and without another one it never is again.
        for peer in &mut self.peers {
            let acked = &mut peer.acked[place];
            if acked.up_to < self.rings[place].last {
                let since = *acked.since.get_or_insert(ctx.now);
                late |= ctx.now - since >= ACK_LATE;
            }
        }
        Some(SyncMessage {
            from: self.id,
            bucket: self.buckets[place],
            ack_now: late,
            body: SyncBody::Heartbeat {
                last: self.rings[place].last,
            },
        })
    }

    /// Begins heartbeats that are due, and judges peers. Returns when it has something to do again.
    pub(super) fn sweep_beats(&mut self, ctx: &mut Ctx<'_>) -> Instant {
        if self.peers.is_empty() {
            return ctx.now + BEAT;
        }
        if ctx.now >= self.beat_at {
            self.beat_at = ctx.now + BEAT;
            self.fast_beat_at = ctx.now + FAST_BEAT;
            self.beat = Some((0, true));
            self.judge(ctx);
            self.beat_digests(ctx);
        }
        let unacked = (0..self.rings.len()).any(|place| self.is_unacked(place));
        if !unacked {
            self.fast_beat_at = self.beat_at;
        } else if self.fast_beat_at > ctx.now + FAST_BEAT {
            self.fast_beat_at = ctx.now + FAST_BEAT;
        } else if ctx.now >= self.fast_beat_at {
            self.fast_beat_at = ctx.now + FAST_BEAT;
            self.beat = self.beat.or(Some((0, false)));
        }
        self.beat_at.min(self.fast_beat_at)
    }

    /// A peer too far behind is not to be waited for.
    fn judge(&mut self, ctx: &mut Ctx<'_>) {
        let sizes = ctx.table.sizes();
        let most = ((u64::from(sizes.conns_v4) + u64::from(sizes.conns_v6)) / 64).max(1024);
        for p in 0..self.peers.len() {
            let peer = &self.peers[p];
            let late = peer.peer.in_sync && (self.unacked(peer) > most || peer.is_late(ctx.now));
            let id = peer.peer.id;
            if late {
                // Told again with each judgement: the node may have had no room for it.
                self.tell(SyncEvent::OutOfSync(id));
            }
        }
    }
}
