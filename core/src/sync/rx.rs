//! What is heard: which LSNs of which space were applied, what is missing, ACK and NACK.

use alloc::vec::Vec;
use core::time::Duration;

use super::adopt::{Base, Known};
use super::epochs::{index_of, lsn_of};
use super::ranges::Watermark;
use super::serve::Pull;
use super::state::{Bits, Ctx, Destination, Sync, SyncOutcome};
use super::{Lsn, LsnRange, RANGE_COUNT_MAX, SyncBody, SyncEvent, SyncMessage};
use crate::cluster::PeerId;
use crate::conn::{ConnId, LIST_END, flag};
use crate::lport::BUCKET_COUNT_MAX;
use crate::planted::{self, Bug};
use crate::stats::SyncCount;
use crate::time::Instant;

/// Gaps of a bucket of which it is known that what was in them is told again, at most.
pub(super) const GAP_COUNT_MAX: usize = 2 * RANGE_COUNT_MAX;
/// Between a gap and its first NACK.
const NACK_AFTER: Duration = Duration::from_millis(2);
/// Between two NACKs, at most.
const NACK_AFTER_MAX: Duration = Duration::from_millis(128);
/// Between a record and its ACK, at most.
const ACK_AFTER: Duration = Duration::from_millis(50);
/// Ranges of records by which no session is here are told apart for so long: nobody waits longer for any of what is between.
const UNKEPT_APART: Duration = Duration::from_secs(2);
const _: () = assert!(UNKEPT_APART.as_nanos() > crate::service::DEFERRAL_LIMIT_MAX.as_nanos());
/// Records that are acked at once.
const ACK_COUNT: u32 = 64;

/// A peer's space of LSNs in one bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Rx {
    /// Something was heard: `mark` means something.
    pub(super) known: bool,
    /// All up to it was given before anything was heard, and is not here unless a pull brought it.
    pub(super) began: Lsn,
    pub(super) mark: Watermark,
    /// The highest LSN that is known to have been given.
    pub(super) highest: Lsn,
    /// The highest LSN with which a session came in a slot that was pulled lately, or a slot's end, and when.
    pub(super) pulled: Option<(Lsn, Instant)>,
    /// Gaps, and up to where what was in them was told again.
    pub(super) gaps: Vec<(LsnRange, Lsn)>,
    /// Not applied for want of room, since the last ACK.
    refused: Vec<LsnRange>,
    /// By which a session is not here, or cannot be served, and when it was found; the first may cover others that are long past.
    unkept: Vec<(LsnRange, Instant)>,
    nack_at: Option<Instant>,
    nack_after: Duration,
    ack_at: Option<Instant>,
    /// Records since the last ACK.
    fresh: u32,
}

impl Rx {
    fn hear(&mut self, now: Instant, baseline: Lsn) {
        if !self.known {
            self.known = true;
            self.began = baseline;
            self.mark.contiguous = baseline;
            self.ack_at = Some(now);
            if baseline > 0 {
                // What was told before anything was heard may be anywhere.
                let before = LsnRange {
                    first: 1,
                    last: baseline,
                };
                self.unkept.push((before, now));
            }
        }
    }

    /// What is to be asked for.
    fn missing(&self) -> Vec<LsnRange> {
        self.mark
            .missing(self.highest.max(self.mark.highest()), &self.gaps)
    }

    /// What was pulled is of this LSN.
    pub(super) fn pull(&mut self, lsn: Lsn, now: Instant) {
        let lsn = self.pulled.map_or(lsn, |(before, _)| before.max(lsn));
        if lsn > self.mark.contiguous {
            self.pulled = Some((lsn, now));
        }
    }

    /// What was told by an LSN is not here.
    fn do_without(&mut self, lsn: Lsn, now: Instant) {
        let range = LsnRange {
            first: lsn,
            last: lsn,
        };
        if let Some((r, at)) = self.unkept.last_mut().filter(|(r, _)| r.last + 1 == lsn) {
            (r.last, *at) = (lsn, now);
            return;
        }
        let at = self.unkept.partition_point(|(r, _)| r.first < lsn);
        self.unkept.insert(at, (range, now));
        if self.unkept.len() > RANGE_COUNT_MAX {
            self.join_lowest();
        }
    }

    /// Makes one of the two lowest ranges, and of what is between: rather too many LSNs than one too few.
    fn join_lowest(&mut self) {
        let (lowest, _) = self.unkept.remove(0);
        if let Some((next, _)) = self.unkept.first_mut() {
            next.first = lowest.first;
        }
    }

    /// What is told of these. None is ever left out, as any ACK may be the first that is heard; those that are long past become one range.
    fn unkept(&mut self, now: Instant) -> Vec<LsnRange> {
        let past = |(_, at): &(LsnRange, Instant)| now - *at >= UNKEPT_APART;
        while self.unkept.len() > 1 && self.unkept.iter().take(2).all(past) {
            self.join_lowest();
        }
        self.unkept.iter().map(|(r, _)| *r).collect()
    }

    fn ack(&mut self, when: Instant) {
        self.ack_at = Some(self.ack_at.map_or(when, |at| at.min(when)));
    }

    /// After a change of what is there.
    fn look(&mut self, now: Instant, before: Lsn) {
        let forward = self.mark.contiguous > before;
        if self.mark.contiguous >= self.highest.max(self.mark.highest()) {
            self.nack_at = None;
        } else if forward || self.nack_at.is_none() {
            self.nack_after = NACK_AFTER;
            self.nack_at = Some(now + NACK_AFTER);
        }
    }
}

/// A peer's spaces of LSNs, by place of bucket.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) peer: PeerId,
    pub(super) rx: Vec<Rx>,
    /// Places that may have an ACK or a NACK to send some time: of hundreds most have none.
    waits: Bits<WAITS_WORDS>,
}

const WAITS_WORDS: usize = BUCKET_COUNT_MAX as usize / 64;

impl Space {
    pub(super) fn new(peer: PeerId, buckets: usize) -> Self {
        Space {
            peer,
            rx: alloc::vec![Rx::default(); buckets],
            waits: Bits::EMPTY,
        }
    }

    /// What is to be sent some time is looked at; for tests.
    pub(super) fn audit(&self) {
        for (place, rx) in (0..).zip(&self.rx) {
            let silent = rx.ack_at.is_none() && rx.nack_at.is_none();
            assert!(silent || self.waits.has(place), "place {place} is looked at");
        }
    }
}

impl Sync {
    pub(super) fn rx(&self, peer: PeerId, place: usize) -> Option<&Rx> {
        self.spaces.iter().find(|s| s.peer == peer)?.rx.get(place)
    }

    pub(super) fn rx_mut(&mut self, peer: PeerId, place: usize) -> Option<&mut Rx> {
        let space = self.spaces.iter_mut().find(|s| s.peer == peer)?;
        // Who changes it may have it say something.
        space.waits.set(place as u16);
        space.rx.get_mut(place)
    }

    /// Records of a peer that are known to exist and are not applied; many, where nothing was heard yet.
    pub(super) fn behind(&self, peer: PeerId) -> u64 {
        let Some(space) = self.spaces.iter().find(|s| s.peer == peer) else {
            return 0;
        };
        let of = |rx: &Rx| {
            if rx.known {
                rx.highest.max(rx.mark.highest()) - rx.mark.contiguous
            } else {
                1 << 20
            }
        };
        space.rx.iter().map(of).sum()
    }

    pub(crate) fn handle(&mut self, ctx: &mut Ctx<'_>, m: &SyncMessage) -> SyncOutcome {
        let Some(place) = self.place(m.bucket) else {
            ctx.count(SyncCount::WrongBucket);
            return SyncOutcome::Ignored(SyncCount::WrongBucket);
        };
        if m.from == self.id || !self.is_alive(m.from) {
            ctx.count(SyncCount::UnknownPeer);
            return SyncOutcome::Ignored(SyncCount::UnknownPeer);
        }
        let (from, now) = (m.from, ctx.now);
        let outcome = match &m.body {
            SyncBody::Live(section) => self.handle_live(ctx, from, place, section),
            SyncBody::Heartbeat { last } if *last > super::LSN_MAX => {
                ctx.count(SyncCount::Invalid);
                SyncOutcome::Ignored(SyncCount::Invalid)
            }
            SyncBody::Heartbeat { last } => {
                if let Some(rx) = self.rx_mut(from, place) {
                    let before = rx.mark.contiguous;
                    rx.hear(now, *last);
                    rx.highest = rx.highest.max(*last);
                    rx.look(now, before);
                }
                SyncOutcome::Taken
            }
            SyncBody::Ack {
                of,
                contiguous,
                applied,
                refused,
                unkept,
            } if *of == self.id => {
                self.ack_waits(ctx, from, place, *contiguous, [applied, unkept]);
                self.handle_ack(ctx, from, place, *contiguous);
                self.handle_refused(ctx, from, place, refused);
                SyncOutcome::Taken
            }
            SyncBody::Nack { of, missing } if *of == self.id => {
                self.handle_nack(ctx, from, place, missing);
                SyncOutcome::Taken
            }
            // Frames go to all: this one is about another node's space.
            SyncBody::Ack { .. } | SyncBody::Nack { .. } => SyncOutcome::Taken,
            SyncBody::Skip { gap, until, slots } => self.handle_skip(ctx, from, place, *gap, *until, slots),
            SyncBody::Hint { group, tuple, kind } => self.handle_hint(ctx, place, *group, tuple, *kind),
            SyncBody::Pull {
                group,
                id,
                min,
                mode,
                slots,
            } => {
                let pull = Pull {
                    group: *group,
                    id: *id,
                    min: *min,
                    mode: *mode,
                };
                self.handle_pull(ctx, from, place, pull, slots)
            }
            SyncBody::SlotBegin { id, group, slot } => self.handle_begin(ctx, from, (*group, *slot, *id)),
            SyncBody::SlotRecords {
                id,
                group,
                slot,
                records,
            } => self.handle_records(ctx, from, place, (*group, *slot, *id), records),
            SyncBody::SlotEnd {
                id,
                group,
                slot,
                count,
                as_of,
            } => self.handle_end(ctx, from, (*group, *slot, *id), *count, *as_of),
            SyncBody::SlotsEmpty {
                id,
                group,
                count,
                as_of,
            } => self.handle_empty(ctx, from, place, (*group, *id, *count), *as_of),
            SyncBody::Watermark { contiguous, .. } if *contiguous > super::LSN_MAX => {
                ctx.count(SyncCount::Invalid);
                SyncOutcome::Ignored(SyncCount::Invalid)
            }
            SyncBody::Watermark {
                group,
                epoch,
                last,
                copy,
                contiguous,
                applied,
            } => {
                let mark = Watermark {
                    contiguous: *contiguous,
                    above: applied.iter().copied().take(RANGE_COUNT_MAX).collect(),
                };
                let told = Known {
                    peer: from,
                    copy: *copy,
                    last: *last,
                    mark,
                };
                self.handle_watermark(ctx, place, (*group, *epoch), told)
            }
            SyncBody::Merged {
                group,
                epoch,
                base,
                exact,
                at,
            } => {
                let base = Base {
                    version: *base,
                    exact: *exact,
                    at: *at,
                    all: false,
                };
                self.handle_merged(ctx, from, place, (*group, *epoch), base)
            }
            SyncBody::Offer { group, record, id } => self.handle_offer(ctx, from, place, *group, record, *id),
            SyncBody::OfferSeen { group, id } => self.handle_offer_seen(ctx, place, *group, *id),
            SyncBody::Digest {
                group,
                epoch,
                last,
                slots,
            } => self.handle_digest(ctx, from, place, (*group, *epoch), *last, slots),
        };
        if m.ack_now
            && outcome == SyncOutcome::Taken
            && let Some(rx) = self.rx_mut(from, place).filter(|rx| rx.known)
        {
            rx.ack(now);
        }
        match &m.body {
            // What they ask for is polled.
            SyncBody::Ack { .. }
            | SyncBody::Hint { .. }
            | SyncBody::Pull { .. }
            | SyncBody::SlotBegin { .. }
            | SyncBody::SlotRecords { .. }
            | SyncBody::OfferSeen { .. }
            | SyncBody::Digest { .. } => {}
            SyncBody::Live(_) | SyncBody::Heartbeat { .. } => {
                let at = self.rx(from, place).map(|rx| [rx.ack_at, rx.nack_at]);
                if let Some(at) = at.and_then(|at| at.into_iter().flatten().min()) {
                    self.wake_at(at);
                }
            }
            _ => self.wake_at(now),
        }
        if m.ack_now {
            self.wake_at(now);
        }
        outcome
    }

    fn handle_live(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: PeerId,
        place: usize,
        section: &super::LiveSection,
    ) -> SyncOutcome {
        let now = ctx.now;
        let count = section.records.len() as u64;
        let Some(last) = section.first.checked_add(count).and_then(|l| l.checked_sub(1)) else {
            ctx.count(SyncCount::Invalid);
            return SyncOutcome::Ignored(SyncCount::Invalid);
        };
        if section.first == 0 || count == 0 || last > super::LSN_MAX {
            ctx.count(SyncCount::Invalid);
            return SyncOutcome::Ignored(SyncCount::Invalid);
        }
        let Some(rx) = self.rx_mut(from, place) else {
            return SyncOutcome::Ignored(SyncCount::UnknownPeer);
        };
        rx.hear(now, section.first - 1);
        let before = rx.mark.contiguous;
        rx.highest = rx.highest.max(last);
        rx.look(now, before);
        let known = self.group(section.group).map(|g| (g.epoch, g.index));
        let index = match known {
            Some((epoch, index)) if epoch == section.epoch && epoch.holder == from => index,
            Some((epoch, index)) if epoch >= section.epoch && planted::has(Bug::Epoch) => index,
            Some((epoch, _)) if epoch >= section.epoch => {
                ctx.counters.sync[SyncCount::StaleEpoch as usize] += count;
                self.tell(SyncEvent::Stale {
                    from,
                    group: section.group,
                    epoch: section.epoch,
                });
                return SyncOutcome::Ignored(SyncCount::StaleEpoch);
            }
            _ => {
                // Lost for now: the NACK brings it once the node has told of the epoch.
                ctx.counters.sync[SyncCount::UnknownEpoch as usize] += count;
                return SyncOutcome::Ignored(SyncCount::UnknownEpoch);
            }
        };
        for (lsn, record) in (section.first..).zip(&section.records) {
            let range = LsnRange {
                first: lsn,
                last: lsn,
            };
            let Some(rx) = self.rx(from, place) else { break };
            if rx.mark.has(lsn) {
                ctx.count(SyncCount::Duplicate);
                continue;
            }
            if !rx.mark.can_take(range) {
                ctx.count(SyncCount::RangesFull);
                let room = self
                    .rx_mut(from, place)
                    .is_some_and(|rx| rx.mark.make_room(range));
                if !room {
                    continue;
                }
            }
            let Some(rx) = self.rx(from, place) else { break };
            let in_order = lsn == rx.mark.contiguous + 1;
            let (room, kept) = self.apply_live(ctx, place, (section.group, index), lsn, record, in_order);
            let refused = !room;
            let Some(rx) = self.rx_mut(from, place) else { break };
            if !kept {
                rx.do_without(lsn, now);
            }
            rx.mark.add(range);
            rx.fresh += 1;
            if refused {
                if let Some(r) = rx.refused.last_mut().filter(|r| r.last + 1 == lsn) {
                    r.last = lsn;
                } else if rx.refused.len() < RANGE_COUNT_MAX {
                    // Beyond: the slot is pulled whatever the ACK says.
                    rx.refused.push(range);
                }
            }
        }
        self.settle(ctx, from, place, before);
        if let Some(rx) = self.rx_mut(from, place) {
            let when = if rx.fresh >= ACK_COUNT {
                now
            } else {
                now + ACK_AFTER
            };
            rx.ack(when);
        }
        SyncOutcome::Taken
    }

    /// After LSNs were dealt with: gaps are filled, tombstones that nothing waits for go.
    fn settle(&mut self, ctx: &mut Ctx<'_>, from: PeerId, place: usize, before: Lsn) {
        let now = ctx.now;
        let Some(rx) = self.rx_mut(from, place) else {
            return;
        };
        let Rx { mark, gaps, .. } = rx;
        mark.fill(gaps);
        let forward = mark.contiguous > before;
        rx.highest = rx.highest.max(rx.mark.highest());
        rx.look(now, before);
        if forward {
            self.free_received(ctx, place);
        }
    }

    fn handle_skip(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: PeerId,
        place: usize,
        gap: LsnRange,
        until: Lsn,
        slots: &[u16],
    ) -> SyncOutcome {
        let bucket = self.buckets[place];
        let bad_slot = |s: &u16| *s >= crate::conn::SLOT_COUNT as u16 || self.bucket_of_slot(*s) != bucket;
        if gap.first == 0
            || gap.first > gap.last
            || gap.last > until
            || until > super::LSN_MAX
            || slots.iter().any(bad_slot)
        {
            ctx.count(SyncCount::Invalid);
            return SyncOutcome::Ignored(SyncCount::Invalid);
        }
        // Who no longer holds a group cannot tell what was lost of it, and its slots are to be pulled from nobody before the
        // next holder has merged them: until then it is missing here, and the merge is to see that. The gap is asked for again.
        let of_former = |g: &super::state::Group| {
            let merged = g.merged.get(place).copied().unwrap_or_default();
            g.epoch.holder != from && merged != g.epoch && merged.holder == from
        };
        if !slots.is_empty() && self.groups.iter().any(of_former) {
            return SyncOutcome::Ignored(SyncCount::UnknownEpoch);
        }
        let Some(rx) = self.rx_mut(from, place).filter(|rx| rx.known) else {
            return SyncOutcome::Ignored(SyncCount::Unexpected);
        };
        let before = rx.mark.contiguous;
        rx.highest = rx.highest.max(until);
        if gap.last > before {
            if let Some(known) = rx.gaps.iter_mut().find(|g| g.0 == gap) {
                known.1 = known.1.min(until);
            } else if rx.gaps.len() < GAP_COUNT_MAX {
                rx.gaps.push((gap, until));
            } else {
                // Too many pieces: all of it is asked for anew, in as few as there are.
                rx.gaps.clear();
                rx.gaps.push((gap, until));
                ctx.count(SyncCount::QueueFull);
            }
        }
        let groups: Vec<_> = self
            .groups
            .iter()
            .filter(|g| g.epoch.holder == from)
            .map(|g| g.id)
            .collect();
        let mut kept = true;
        for group in groups {
            for slot in slots {
                kept &= self.repair(ctx, group, *slot, ctx.now);
            }
        }
        if !kept {
            // There are too many jobs: unsaid, and so asked for again.
            if let Some(rx) = self.rx_mut(from, place) {
                rx.gaps.retain(|g| g.0 != gap);
            }
            return SyncOutcome::Ignored(SyncCount::QueueFull);
        }
        self.settle(ctx, from, place, before);
        SyncOutcome::Taken
    }

    /// ACKs and NACKs that are due. Returns when the next one is.
    pub(super) fn sweep_rx(&mut self, ctx: &mut Ctx<'_>) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let now = ctx.now;
        for s in 0..self.spaces.len() {
            let peer = self.spaces[s].peer;
            if !self.is_alive(peer) {
                continue;
            }
            let mut waits = self.spaces[s].waits.clone();
            while let Some(place) = waits.pop().map(usize::from) {
                let rx = &mut self.spaces[s].rx[place];
                let bucket = self.buckets[place];
                if rx.ack_at.is_some_and(|at| at <= now) {
                    let body = SyncBody::Ack {
                        of: peer,
                        contiguous: rx.mark.contiguous,
                        applied: rx.mark.above.clone(),
                        refused: rx.refused.clone(),
                        unkept: rx.unkept(now),
                    };
                    if !self.send(ctx, Destination::One(peer), bucket, false, body) {
                        return Some(now);
                    }
                    let rx = &mut self.spaces[s].rx[place];
                    (rx.ack_at, rx.fresh) = (None, 0);
                    rx.refused.clear();
                }
                let rx = &mut self.spaces[s].rx[place];
                if rx.nack_at.is_some_and(|at| at <= now) {
                    let missing = rx.missing();
                    rx.nack_after = (rx.nack_after * 2).min(NACK_AFTER_MAX);
                    rx.nack_at = Some(now + rx.nack_after);
                    // All may be said to come again, and have not come.
                    if !missing.is_empty() {
                        let body = SyncBody::Nack { of: peer, missing };
                        if !self.send(ctx, Destination::One(peer), bucket, false, body) {
                            return Some(now);
                        }
                        ctx.count(SyncCount::NackSent);
                    }
                }
                let rx = &self.spaces[s].rx[place];
                match [rx.ack_at, rx.nack_at].into_iter().flatten().min() {
                    Some(at) => next = Some(next.map_or(at, |n| n.min(at))),
                    None => self.spaces[s].waits.clear(place as u16),
                }
            }
        }
        next
    }

    /// Makes a received close a tombstone: older records of the session may still come.
    pub(super) fn keep_received(&mut self, ctx: &mut Ctx<'_>, place: usize, id: ConnId) {
        let Some(meta) = ctx.table.meta_mut(id) else {
            return;
        };
        if meta.flags & flag::DIRTY != 0 {
            // It was this node's to tell, and waits in the dirty queue; that frees it.
            return;
        }
        meta.dirty_link = LIST_END;
        let ring = &mut self.rings[place];
        let tail = core::mem::replace(&mut ring.tombs_tail, id.link());
        match ConnId::from_link(tail).filter(|_| tail != LIST_END) {
            Some(tail) => {
                if let Some(meta) = ctx.table.meta_mut(tail) {
                    meta.dirty_link = id.link();
                }
            }
            None => ring.tombs_head = id.link(),
        }
    }

    /// Frees received tombstones for which nothing older can come any more.
    pub(super) fn free_received(&mut self, ctx: &mut Ctx<'_>, place: usize) {
        self.sift_received(ctx, place, |sync, ctx, id| {
            let version = ctx.table.meta(id).map_or(0, |m| m.version);
            let Some(g) = sync.group_of(version) else {
                return false;
            };
            let epoch = sync.epochs.version(version).epoch;
            let slot = ctx.table.inbound(id).map_or(0, |t| ctx.table.slot_of(&t));
            let pulled = sync.flights.iter().any(|f| f.group == g.id && f.slot == slot);
            let merging = g.merged.get(place).is_some_and(|e| *e != g.epoch);
            let passed = epoch.holder == sync.id
                || sync
                    .rx(epoch.holder, place)
                    .is_none_or(|rx| rx.mark.contiguous >= lsn_of(version));
            pulled || merging || !passed || g.lacks.has(slot)
        });
    }

    /// Frees the oldest received tombstone of a slab; its slot is pulled again.
    pub(super) fn evict_received(&mut self, ctx: &mut Ctx<'_>, place: usize, v6: bool) -> bool {
        let mut evicted = None;
        self.sift_received(ctx, place, |sync, ctx, id| {
            if evicted.is_some() || id.is_v6() != v6 {
                return true;
            }
            let version = ctx.table.meta(id).map_or(0, |m| m.version);
            let slot = ctx.table.inbound(id).map_or(0, |t| ctx.table.slot_of(&t));
            evicted = Some((sync.epochs.group(version), slot));
            false
        });
        let Some((group, slot)) = evicted else {
            return false;
        };
        ctx.count(SyncCount::TombsEvicted);
        if let Some(group) = group {
            self.repair(ctx, group, slot, ctx.now);
        }
        true
    }

    /// Walks the list of received tombstones of a bucket and frees those of which `keep` says so.
    fn sift_received(
        &mut self,
        ctx: &mut Ctx<'_>,
        place: usize,
        mut keep: impl FnMut(&Self, &Ctx<'_>, ConnId) -> bool,
    ) {
        let mut at = self.rings[place].tombs_head;
        let mut before: Option<ConnId> = None;
        while let Some(id) = ConnId::from_link(at).filter(|_| at != LIST_END) {
            let Some(meta) = ctx.table.meta(id) else { return };
            let next = meta.dirty_link;
            debug_assert!(index_of(meta.version) != 0, "a tombstone has a version");
            if keep(self, ctx, id) {
                before = Some(id);
            } else {
                match before {
                    Some(before) => {
                        if let Some(meta) = ctx.table.meta_mut(before) {
                            meta.dirty_link = next;
                        }
                    }
                    None => self.rings[place].tombs_head = next,
                }
                if next == LIST_END {
                    self.rings[place].tombs_tail = before.map_or(LIST_END, ConnId::link);
                }
                self.free(ctx, id);
            }
            at = next;
        }
    }
}
