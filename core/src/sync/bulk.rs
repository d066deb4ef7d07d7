//! Slots, as they are pulled from a peer, which sends them by `serve`.
//!
//! ```text
//!  puller                                                 source
//!  job: slots to pull ──> flight (at most 32) ── PULL ──>  serve, once its watermark has passed `min`
//!                              <── SLOT_BEGIN, records, SLOT_END(count, as of)
//!  count met: what was not mentioned and is not newer than `as of` goes (Replace); else pulled again
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::apply::{Applied, REFUSED_AGAIN};
use super::epochs::packed;
use super::state::{Ctx, Destination, Group, SlotBits, Sync, SyncOutcome};
use super::{PULL_SLOT_COUNT_MAX, PullMode, SyncBody, Version, VersionedRecord};
use crate::cluster::{GROUP_COUNT_MAX, GroupId, PeerId};
use crate::conn::{ConnId, SLOT_COUNT, flag};
use crate::stats::SyncCount;
use crate::time::Instant;

/// Slots of a worker that are asked for at a time, at first and as long as they are full.
pub(super) const FLIGHT_COUNT_MIN: usize = 32;
/// Slots of a worker that are asked for at a time, at most. Most slots of a small table are empty, and what a bulk
/// takes is then slots / flights * the way there and back: 4,096 slots, 32 at a time and 35 ms each, were 4.5 seconds.
pub(super) const FLIGHT_COUNT_MAX: usize = 256;
/// A slot with so few sessions is small: more may be asked for at a time.
const SMALL_SLOT: u32 = 8;
/// Pulls of a worker at most, each of one group from one peer for one purpose.
pub(super) const JOB_COUNT_MAX: usize = 4 * GROUP_COUNT_MAX;
/// A slot is asked for again after so long without anything of it.
pub(super) const PULL_AGAIN: Duration = Duration::from_millis(100);
/// And after this at most, where answers take long.
const PULL_AGAIN_MAX: Duration = Duration::from_secs(10);
/// What slots are pulled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// The node said so.
    Join,
    /// Something of them was lost, or found no room.
    Repair,
    /// The adopter's merge was based on something else.
    Resync,
    /// The base of an adoption.
    Base,
    /// What others know beside the base.
    Extra,
}

/// Slots that are to be pulled.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) group: GroupId,
    source: PeerId,
    purpose: Purpose,
    mode: PullMode,
    slots: Box<SlotBits>,
    /// Slots whose records found no room: as [`Job::slots`] from `later_at` on.
    later: Box<SlotBits>,
    later_at: Instant,
}

impl Job {
    pub(super) fn left(&self) -> u32 {
        self.slots.count() + self.later.count()
    }

    fn is_done(&self) -> bool {
        self.slots.is_empty() && self.later.is_empty()
    }
}

/// A slot that is asked for.
#[derive(Debug)]
pub(super) struct Flight {
    id: u32,
    pub(super) group: GroupId,
    pub(super) slot: u16,
    source: PeerId,
    purpose: Purpose,
    mode: PullMode,
    /// Records counted so far.
    seen: u32,
    refused: bool,
    conflicts: bool,
    asked_at: Instant,
    again_at: Instant,
}

/// A slot of a group, and the number of its pull.
pub(super) type Pulled = (GroupId, u16, u32);

impl Sync {
    /// The node has all slots of a group pulled.
    pub(super) fn pull_all(
        &mut self,
        ctx: &mut Ctx<'_>,
        group: GroupId,
        source: PeerId,
        mode: PullMode,
        number: u32,
    ) {
        let own = self.id;
        let Some(g) = self
            .group_mut(group)
            .filter(|g| source != own && g.pulled != number)
        else {
            return;
        };
        if g.pulling == number {
            return self.pull_elsewhere(ctx, group, source, mode);
        }
        g.pulling = number;
        g.complete = false;
        g.pulled_at.fill(None);
        self.jobs
            .retain(|j| j.group != group || j.purpose != Purpose::Join);
        self.flights
            .retain(|f| f.group != group || f.purpose != Purpose::Join);
        let all: Vec<u16> = self.buckets.iter().flat_map(|b| self.slots_of(*b)).collect();
        for slot in all {
            self.pull(ctx, group, source, Purpose::Join, mode, slot, ctx.now);
        }
        if self.buckets.is_empty() {
            self.pull_ended(group);
        }
    }

    /// What has not ended of a pull of all slots goes on with another source.
    fn pull_elsewhere(&mut self, ctx: &mut Ctx<'_>, group: GroupId, source: PeerId, mode: PullMode) {
        let is_it = |j: &Job| j.group == group && j.purpose == Purpose::Join;
        for job in self.jobs.iter_mut().filter(|j| is_it(j)) {
            (job.source, job.mode) = (source, mode);
        }
        let stalls = |f: &Flight| f.group == group && f.purpose == Purpose::Join && f.source != source;
        let stalled: Vec<u16> = self
            .flights
            .iter()
            .filter(|f| stalls(f))
            .map(|f| f.slot)
            .collect();
        self.flights.retain(|f| !stalls(f));
        for slot in stalled {
            self.pull(ctx, group, source, Purpose::Join, mode, slot, ctx.now);
        }
    }

    /// All slots of a group are here.
    fn pull_ended(&mut self, group: GroupId) {
        if let Some(g) = self.group_mut(group) {
            (g.complete, g.whole) = (true, true);
            g.pulled = g.pulling;
            for (whole_at, pulled_at) in g.whole_at.iter_mut().zip(&mut g.pulled_at) {
                *whole_at = pulled_at.take().unwrap_or(*whole_at).max(*whole_at);
            }
        }
    }

    /// Something of a pull came. What the same source was asked for after it waits behind it there, and is not to be
    /// asked for again yet; what it was asked for before was lost, or is.
    fn progress(&mut self, now: Instant, source: PeerId, id: u32) {
        // Answers come many at once, in their order: the first has said it of all that follow.
        let told = |(at, from, first): (Instant, PeerId, u32)| {
            at == now && from == source && id.wrapping_sub(first).cast_signed() >= 0
        };
        if self.progressed.is_some_and(told) {
            return;
        }
        self.progressed = Some((now, source, id));
        let again_at = now + self.patience;
        for f in &mut self.flights {
            if f.id.wrapping_sub(id).cast_signed() >= 0 && f.source == source {
                f.again_at = again_at;
            }
        }
    }

    /// Has one slot pulled from the group's holder. `false` (counted): there are too many jobs.
    pub(super) fn repair(&mut self, ctx: &mut Ctx<'_>, group: GroupId, slot: u16, when: Instant) -> bool {
        let Some(holder) = self.group(group).map(|g| g.epoch.holder) else {
            return true;
        };
        if holder == self.id {
            return true;
        }
        if let Some(g) = self.group_mut(group) {
            g.lacks.set(slot);
        }
        self.pull(ctx, group, holder, Purpose::Repair, PullMode::Replace, slot, when)
    }

    #[expect(clippy::too_many_arguments, reason = "each is a word of one sentence")]
    pub(super) fn pull(
        &mut self,
        ctx: &mut Ctx<'_>,
        group: GroupId,
        source: PeerId,
        purpose: Purpose,
        mode: PullMode,
        slot: u16,
        when: Instant,
    ) -> bool {
        self.wake_at(when);
        let is_it =
            |j: &&mut Job| j.group == group && j.source == source && j.purpose == purpose && j.mode == mode;
        let later = when > ctx.now;
        if let Some(job) = self.jobs.iter_mut().find(is_it) {
            if later {
                if job.later.is_empty() {
                    job.later_at = when;
                }
                job.later.set(slot);
            } else {
                job.slots.set(slot);
            }
            return true;
        }
        if self.jobs.len() == JOB_COUNT_MAX {
            ctx.count(SyncCount::QueueFull);
            return false;
        }
        let (mut now, mut then) = (SlotBits::EMPTY, SlotBits::EMPTY);
        if later { &mut then } else { &mut now }.set(slot);
        self.jobs.push(Job {
            group,
            source,
            purpose,
            mode,
            slots: Box::new(now),
            later: Box::new(then),
            later_at: when,
        });
        // Merges go first, repairs last.
        self.jobs.sort_by_key(|j| match j.purpose {
            Purpose::Base => 0,
            Purpose::Extra => 1,
            Purpose::Resync => 2,
            Purpose::Join => 3,
            Purpose::Repair => 4,
        });
        true
    }

    /// After a change of peers: what was to be pulled from one that is gone comes from the holder.
    pub(super) fn retarget(&mut self, ctx: &mut Ctx<'_>) {
        let alive = |sync: &Sync, peer| sync.is_alive(peer);
        for f in core::mem::take(&mut self.flights) {
            if alive(self, f.source) {
                self.flights.push(f);
            } else {
                self.pull(ctx, f.group, f.source, f.purpose, f.mode, f.slot, ctx.now);
            }
        }
        let gone: Vec<usize> = (0..self.jobs.len())
            .rev()
            .filter(|&j| !alive(self, self.jobs[j].source))
            .collect();
        let mut lost: Vec<GroupId> = Vec::new();
        for j in gone {
            let (group, purpose) = (self.jobs[j].group, self.jobs[j].purpose);
            let holder = self.group(group).map(|g| g.epoch.holder);
            match purpose {
                // The node names another source.
                Purpose::Join => {}
                Purpose::Base | Purpose::Extra => {
                    self.jobs.remove(j);
                    lost.push(group);
                }
                Purpose::Repair | Purpose::Resync => match holder {
                    Some(holder) if holder != self.id && self.is_alive(holder) => {
                        self.jobs[j].source = holder;
                    }
                    // Adoption settles it, or it goes on when the holder is back.
                    _ => {
                        self.jobs.remove(j);
                    }
                },
            }
        }
        lost.dedup();
        for group in lost {
            self.lost_source(ctx, group);
        }
    }

    /// Nothing more is wanted for the adoption of a group.
    pub(super) fn drop_adopting(&mut self, group: GroupId) {
        let adopts = |p: Purpose| matches!(p, Purpose::Base | Purpose::Extra);
        self.jobs.retain(|j| j.group != group || !adopts(j.purpose));
        self.flights.retain(|f| f.group != group || !adopts(f.purpose));
    }

    /// Slots of which something is missing here, whose holder is there, and that nobody is asked for.
    pub(super) fn repair_lacking(&mut self, ctx: &mut Ctx<'_>) {
        let lacking: Vec<(GroupId, u16)> = self
            .groups
            .iter()
            .filter(|g| self.is_alive(g.epoch.holder))
            .flat_map(|g| {
                let lacks = (0..SLOT_COUNT as u16).filter(|s| g.lacks.has(*s));
                lacks.map(|s| (g.id, s))
            })
            .filter(|(group, slot)| {
                let flies = self.flights.iter().any(|f| (f.group, f.slot) == (*group, *slot));
                let waits = self
                    .jobs
                    .iter()
                    .any(|j| j.group == *group && (j.slots.has(*slot) || j.later.has(*slot)));
                !flies && !waits
            })
            .collect();
        for (group, slot) in lacking {
            self.repair(ctx, group, slot, ctx.now);
        }
    }

    /// Whether something of a slot is known to be missing here, or is asked for or to be.
    pub(super) fn is_slot_waited_for(&self, group: GroupId, slot: u16) -> bool {
        let lacks = self.group(group).is_some_and(|g| g.lacks.has(slot));
        let waits = |j: &Job| j.group == group && (j.slots.has(slot) || j.later.has(slot));
        lacks
            || self.flights.iter().any(|f| (f.group, f.slot) == (group, slot))
            || self.jobs.iter().any(waits)
    }

    /// A slot that was pulled tells of a version: what is here of it may be beyond what was heard live.
    fn heard_in_pull(&mut self, now: Instant, place: usize, version: Version) {
        if let Some(rx) = self.rx_mut(version.epoch.holder, place) {
            rx.pull(version.lsn, now);
        }
    }

    /// After a new epoch of a group: repairs come from the new holder; what the old merge wanted is off, and who holds it copies it
    /// no more.
    pub(super) fn after_epoch(&mut self, ctx: &mut Ctx<'_>, group: GroupId) {
        let own = self.id;
        let Some(holder) = self.group(group).map(|g| g.epoch.holder) else {
            return;
        };
        let off = |p: Purpose| {
            matches!(p, Purpose::Base | Purpose::Extra | Purpose::Resync)
                || holder == own && matches!(p, Purpose::Repair | Purpose::Join)
        };
        self.jobs.retain(|j| j.group != group || !off(j.purpose));
        self.flights.retain(|f| f.group != group || !off(f.purpose));
        for job in &mut self.jobs {
            if job.group == group && job.purpose == Purpose::Repair {
                job.source = holder;
            }
        }
        for place in 0..self.buckets.len() {
            self.free_received(ctx, place);
        }
        self.drop_spaces();
    }

    /// Asks for slots, and again for those that do not come. Returns when it has something to do again.
    pub(super) fn sweep_pulls(&mut self, ctx: &mut Ctx<'_>) -> Option<Instant> {
        let now = ctx.now;
        let late = self.flights.iter().any(|f| f.again_at <= now);
        for f in if late {
            core::mem::take(&mut self.flights)
        } else {
            Vec::new()
        } {
            if f.again_at > now {
                self.flights.push(f);
            } else {
                ctx.count(SyncCount::SlotsRepeated);
                self.flight_count = (self.flight_count / 2).max(FLIGHT_COUNT_MIN);
                if !self.pull(ctx, f.group, f.source, f.purpose, f.mode, f.slot, now) {
                    self.flights.push(Flight {
                        again_at: now + self.patience,
                        ..f
                    });
                }
            }
        }
        let mut next: Option<Instant> = None;
        let mut j = 0;
        // Many at a time, once half of them have come: a frame then has many questions, and so have those that answer.
        let room = self.flights.len() <= self.flight_count / 2;
        while room && j < self.jobs.len() && self.flights.len() < self.flight_count {
            let job = &mut self.jobs[j];
            if !job.later.is_empty() {
                if job.later_at <= now {
                    for (word, later) in job.slots.0.iter_mut().zip(&mut job.later.0) {
                        *word |= core::mem::take(later);
                    }
                } else {
                    next = Some(next.map_or(job.later_at, |n| n.min(job.later_at)));
                }
            }
            if job.slots.is_empty() {
                j += 1;
                continue;
            }
            let open = self.open_slots(j);
            for place in 0..self.buckets.len() {
                let room = self.flight_count.saturating_sub(self.flights.len());
                if room == 0 || open.is_empty() {
                    break;
                }
                let of_bucket = self.slots_of(self.buckets[place]);
                let slots: Vec<u16> = of_bucket
                    .filter(|s| open.has(*s))
                    .take(room.min(PULL_SLOT_COUNT_MAX))
                    .collect();
                if !self.ask(ctx, j, place, &slots) {
                    return Some(now);
                }
            }
            if self.flights.len() < self.flight_count && !self.jobs[j].slots.is_empty() {
                // These wait for a first heartbeat, or for flights of the same slot.
                let again = now + Duration::from_millis(5);
                next = Some(next.map_or(again, |n| n.min(again)));
            }
            j += 1;
        }
        self.jobs.retain(|j| !j.is_done());
        let again = self.flights.iter().map(|f| f.again_at).min();
        match (next, again) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The slots of a job that may be asked for now.
    fn open_slots(&self, j: usize) -> SlotBits {
        let job = &self.jobs[j];
        let alive = self.is_alive(job.source);
        let Some(g) = self.group(job.group).filter(|_| alive) else {
            return SlotBits::EMPTY;
        };
        let adopts = matches!(job.purpose, Purpose::Base | Purpose::Extra);
        // Where live records begin must be known before the source is asked up to there.
        let waits = !adopts && self.is_alive(g.epoch.holder);
        let told = self.spaces.iter().find(|s| s.peer == g.epoch.holder);
        // What replaces what is here comes after the merge: before it a fenced node has yet to offer that.
        let replaces = matches!(job.purpose, Purpose::Join | Purpose::Repair);
        // A job may have thousands of slots of which none can be asked for: they are looked at by the word. The bucket of a
        // slot is its number modulo that of all buckets, so that what is open repeats.
        let buckets = self.steering.buckets();
        let mut open = SlotBits::EMPTY;
        for (place, &bucket) in self.buckets.iter().enumerate() {
            let known = !waits || told.and_then(|s| s.rx.get(place)).is_some_and(|rx| rx.known);
            let merged = g.merged.get(place) == Some(&g.epoch);
            if known && (merged || !replaces) {
                let end = buckets.max(64);
                for slot in (bucket..end).step_by(usize::from(buckets)) {
                    open.set(slot);
                }
            }
        }
        let period = usize::from(buckets).div_ceil(64);
        let mut slots = SlotBits::clone(&job.slots);
        for (w, word) in slots.0.iter_mut().enumerate() {
            *word &= open.0[w % period];
        }
        for f in self.flights.iter().filter(|f| f.group == job.group) {
            slots.clear(f.slot);
        }
        slots
    }

    /// Asks for slots of a bucket: in one message, unless a merge of it wants more of some than of others.
    fn ask(&mut self, ctx: &mut Ctx<'_>, j: usize, place: usize, slots: &[u16]) -> bool {
        let min_of = |sync: &Self, slot: &u16| sync.least(j, place, *slot);
        let mut mins: Vec<(Version, Vec<u16>)> = Vec::new();
        for slot in slots {
            let Some(min) = min_of(self, slot) else {
                return true;
            };
            match mins.iter_mut().find(|(m, _)| *m == min) {
                Some((_, slots)) => slots.push(*slot),
                None => mins.push((min, alloc::vec![*slot])),
            }
        }
        mins.into_iter()
            .all(|(min, slots)| self.ask_from(ctx, j, place, min, slots))
    }

    /// What the source of a job must know before it sends a slot.
    fn least(&self, j: usize, place: usize, slot: u16) -> Option<Version> {
        let job = &self.jobs[j];
        let g = self.group(job.group)?;
        if !self.is_alive(g.epoch.holder) {
            return Some(Version::default());
        }
        let live = Version {
            epoch: g.epoch,
            lsn: self.rx(g.epoch.holder, place).map_or(0, |rx| rx.mark.contiguous),
        };
        Some(match job.purpose {
            // What the source has is what is wanted.
            Purpose::Base | Purpose::Extra => Version::default(),
            Purpose::Resync => self.outdone(g, place, slot).unwrap_or(live),
            Purpose::Join | Purpose::Repair => live,
        })
    }

    fn ask_from(&mut self, ctx: &mut Ctx<'_>, j: usize, place: usize, min: Version, slots: Vec<u16>) -> bool {
        let job = &self.jobs[j];
        let (group, source, purpose, mode) = (job.group, job.source, job.purpose, job.mode);
        let id = self.pull_id.wrapping_add(1);
        let body = SyncBody::Pull {
            group,
            id,
            min,
            mode,
            slots: slots.clone(),
        };
        if !self.send(ctx, Destination::One(source), self.buckets[place], false, body) {
            return false;
        }
        self.pull_id = self.pull_id.wrapping_add(slots.len() as u32);
        for (id, slot) in (0..).map(|n| id.wrapping_add(n)).zip(slots) {
            let of_slot: Vec<ConnId> = ctx.table.slot_tail(slot, usize::MAX).collect();
            for conn in of_slot {
                if let Some(meta) = ctx.table.meta_mut(conn)
                    && self.epochs.group(meta.version) == Some(group)
                {
                    meta.flags &= !flag::MENTIONED;
                }
            }
            self.jobs[j].slots.clear(slot);
            self.flights.push(Flight {
                id,
                group,
                slot,
                source,
                purpose,
                mode,
                seen: 0,
                refused: false,
                conflicts: false,
                asked_at: ctx.now,
                again_at: ctx.now + self.patience,
            });
        }
        true
    }

    /// An answer that no flight waits for, to a question that was asked again since: answers take longer than was waited, and
    /// each would come too late. That nothing comes says nothing: it may be lost.
    fn came_late(&mut self, ctx: &mut Ctx<'_>, from: PeerId, (group, id): (GroupId, u32)) -> SyncOutcome {
        let asked_since =
            |f: &Flight| (f.group, f.source) == (group, from) && f.id.wrapping_sub(id).cast_signed() > 0;
        // Many may come at once, and say it once.
        if ctx.now >= self.patient_at && self.flights.iter().any(asked_since) {
            self.patience = (self.patience * 2).min(PULL_AGAIN_MAX);
            self.patient_at = ctx.now + self.patience;
        }
        ctx.count(SyncCount::Unexpected);
        SyncOutcome::Ignored(SyncCount::Unexpected)
    }

    fn flight(&mut self, from: PeerId, (group, slot, id): Pulled) -> Option<&mut Flight> {
        let is_it = |f: &&mut Flight| (f.id, f.group, f.slot, f.source) == (id, group, slot, from);
        self.flights.iter_mut().find(is_it)
    }

    pub(super) fn handle_begin(&mut self, ctx: &mut Ctx<'_>, from: PeerId, pulled: Pulled) -> SyncOutcome {
        let now = ctx.now;
        match self.flight(from, pulled) {
            Some(_) => {
                self.progress(now, from, pulled.2);
                SyncOutcome::Taken
            }
            None => self.came_late(ctx, from, (pulled.0, pulled.2)),
        }
    }

    pub(super) fn handle_records(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: PeerId,
        place: usize,
        pulled: Pulled,
        records: &[VersionedRecord],
    ) -> SyncOutcome {
        let again_at = ctx.now + self.patience;
        let Some(f) = self.flight(from, pulled) else {
            ctx.count(SyncCount::Unexpected);
            return SyncOutcome::Ignored(SyncCount::Unexpected);
        };
        f.again_at = again_at;
        let merge = f.purpose == Purpose::Extra;
        let (mut seen, mut refused, mut conflicts) = (0, false, false);
        if let Some(last) = records.iter().map(|r| r.version).max() {
            self.heard_in_pull(ctx.now, place, last);
        }
        for r in records {
            let applied = self.apply_pulled(ctx, place, pulled, merge, r);
            refused |= applied == Applied::Refused;
            conflicts |= applied == Applied::Conflict;
            self.count_applied(ctx, applied, SyncCount::PulledIn);
            // Mentioned twice it counts once: a message may come twice.
            seen += match applied.conn().and_then(|id| ctx.table.meta_mut(id)) {
                Some(meta) => {
                    let fresh = meta.flags & flag::MENTIONED == 0;
                    meta.flags |= flag::MENTIONED;
                    u32::from(fresh)
                }
                None => 1,
            };
        }
        if let Some(f) = self.flight(from, pulled) {
            f.seen += seen;
            f.refused |= refused;
            f.conflicts |= conflicts;
        }
        SyncOutcome::Taken
    }

    fn apply_pulled(
        &mut self,
        ctx: &mut Ctx<'_>,
        place: usize,
        (group, slot, _): Pulled,
        merge: bool,
        r: &VersionedRecord,
    ) -> Applied {
        let tuple = match &r.session {
            Ok(session) => session.conn.inbound(),
            Err(tuple) => *tuple,
        };
        let Some(known) = self.group(group).map(|g| g.epoch) else {
            return Applied::Invalid;
        };
        // What this node never said nobody can have heard of it.
        let made_up = r.version.epoch.holder == self.id && r.version.lsn > self.rings[place].last;
        if ctx.table.slot_of(&tuple) != slot
            || r.version.epoch > known
            || r.version.lsn > super::LSN_MAX
            || made_up
        {
            return Applied::Invalid;
        }
        let lacks = self.group(group).is_some_and(|g| g.lacks.has(slot));
        if merge && !lacks && !self.is_above_base(group, place, r.version) {
            // Absent at the base and not newer: closed.
            return Applied::Older(None);
        }
        let Some(index) = self.epochs.intern(group, r.version.epoch) else {
            return Applied::Refused;
        };
        let version = packed(index, r.version.lsn);
        match &r.session {
            Ok(session) => self.apply(ctx, place, group, version, session),
            Err(tuple) => self.close(ctx, place, (group, version), tuple, false),
        }
    }

    pub(super) fn handle_end(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: PeerId,
        pulled: Pulled,
        count: u32,
        as_of: Version,
    ) -> SyncOutcome {
        let (group, slot, id) = pulled;
        if self.flight(from, pulled).is_none() {
            ctx.count(SyncCount::Unexpected);
            return SyncOutcome::Ignored(SyncCount::Unexpected);
        }
        let Some(at) = self.flights.iter().position(|f| f.id == id) else {
            return SyncOutcome::Taken;
        };
        let f = self.flights.swap_remove(at);
        self.progress(ctx.now, from, id);
        if f.seen < count {
            ctx.count(SyncCount::SlotsRepeated);
            self.pull(ctx, group, f.source, f.purpose, f.mode, slot, ctx.now);
            return SyncOutcome::Taken;
        }
        self.take_end(ctx, &f, count, as_of);
        self.slots_ended(ctx, &[f]);
        SyncOutcome::Taken
    }

    /// Slots of which the source has nothing.
    pub(super) fn handle_empty(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: PeerId,
        place: usize,
        (group, id, count): (GroupId, u32, u16),
        as_of: Version,
    ) -> SyncOutcome {
        let bucket = self.buckets[place];
        let mut ended = Vec::new();
        let mut at = 0;
        while let Some(f) = self.flights.get(at) {
            let is_one = f.id.wrapping_sub(id) < u32::from(count)
                && (f.group, f.source) == (group, from)
                && self.bucket_of_slot(f.slot) == bucket;
            if is_one {
                ended.push(self.flights.swap_remove(at));
            } else {
                at += 1;
            }
        }
        if ended.is_empty() {
            return self.came_late(ctx, from, (group, id));
        }
        self.progress(ctx.now, from, id);
        for f in &ended {
            self.take_end(ctx, f, 0, as_of);
        }
        self.slots_ended(ctx, &ended);
        SyncOutcome::Taken
    }

    /// All of a slot has come.
    fn take_end(&mut self, ctx: &mut Ctx<'_>, f: &Flight, count: u32, as_of: Version) {
        let (group, slot) = (f.group, f.slot);
        ctx.count(SyncCount::SlotsPulled);
        if let Some(place) = self.place(self.bucket_of_slot(slot)) {
            self.heard_in_pull(ctx.now, place, as_of);
        }
        // A source may have waited itself: that an answer took long is no reason for more.
        let enough = (2 * (ctx.now - f.asked_at)).max(PULL_AGAIN);
        self.patience = self.patience.min(enough);
        self.flight_count = if count <= SMALL_SLOT {
            (self.flight_count + 1).min(FLIGHT_COUNT_MAX)
        } else {
            (self.flight_count / 2).max(FLIGHT_COUNT_MIN)
        };
        if f.purpose == Purpose::Join {
            let place = self.place(self.bucket_of_slot(slot));
            if let Some((g, place)) = self.group_mut(group).zip(place) {
                let earliest = g.pulled_at[place].map_or(as_of, |at| at.min(as_of));
                g.pulled_at[place] = Some(earliest);
            }
        }
        if f.mode == PullMode::Replace {
            self.delete_unmentioned(ctx, group, slot, as_of);
            if let Some(g) = self.group_mut(group) {
                g.lacks.clear(slot);
            }
        }
        if f.refused {
            match f.purpose {
                // A merge ends all the same: what found no room is not exact.
                Purpose::Base | Purpose::Extra => {
                    let place = self.place(self.bucket_of_slot(slot));
                    if let Some((g, place)) = self.group_mut(group).zip(place) {
                        g.base[place].exact = false;
                    }
                }
                _ => {
                    self.repair(ctx, group, slot, ctx.now + REFUSED_AGAIN);
                }
            }
        }
        if f.conflicts && matches!(f.purpose, Purpose::Join | Purpose::Repair | Purpose::Resync) {
            self.after_conflict(ctx, group, slot);
        }
    }

    /// After the ends of slots of one bucket.
    fn slots_ended(&mut self, ctx: &mut Ctx<'_>, ended: &[Flight]) {
        for same in ended.chunk_by(|a, b| a.purpose == b.purpose) {
            if let Some(f) = same.first() {
                self.slot_ended(ctx, f);
            }
        }
        let bucket = ended.first().map(|f| self.bucket_of_slot(f.slot));
        if let Some(place) = bucket.and_then(|b| self.place(b)) {
            self.free_received(ctx, place);
        }
    }

    fn delete_unmentioned(&mut self, ctx: &mut Ctx<'_>, group: GroupId, slot: u16, as_of: Version) {
        let gone: Vec<ConnId> = ctx
            .table
            .slot_tail(slot, usize::MAX)
            .filter(|id| {
                !ctx.table.is_tomb(*id)
                    && ctx.table.meta(*id).is_some_and(|m| {
                        m.flags & flag::MENTIONED == 0
                            && self.epochs.group(m.version) == Some(group)
                            && self.epochs.version(m.version) <= as_of
                    })
            })
            .collect();
        for id in gone {
            ctx.count(SyncCount::Unmentioned);
            self.drop_conn(ctx, id, None);
        }
    }

    /// Whether slots of a bucket are still to come for a purpose.
    fn is_pulling(&self, group: GroupId, purpose: Purpose, bucket: Option<u16>) -> bool {
        let of_bucket = |slot: u16| bucket.is_none_or(|b| self.bucket_of_slot(slot) == b);
        let flies = self
            .flights
            .iter()
            .any(|f| f.group == group && f.purpose == purpose && of_bucket(f.slot));
        let waits = |j: &Job| match bucket {
            None => j.left() > 0,
            Some(bucket) => self.slots_of(bucket).any(|s| j.slots.has(s) || j.later.has(s)),
        };
        let mut jobs = self
            .jobs
            .iter()
            .filter(|j| j.group == group && j.purpose == purpose);
        flies || jobs.any(waits)
    }

    /// Whether slots of a bucket are still to come for its adoption.
    fn is_adopting_slots(&self, group: GroupId, place: usize) -> bool {
        let bucket = self.buckets.get(place).copied();
        self.is_pulling(group, Purpose::Base, bucket) || self.is_pulling(group, Purpose::Extra, bucket)
    }

    fn slot_ended(&mut self, ctx: &mut Ctx<'_>, f: &Flight) {
        let (group, bucket) = (f.group, self.bucket_of_slot(f.slot));
        let Some(place) = self.place(bucket) else { return };
        match f.purpose {
            Purpose::Join => {
                if !self.is_pulling(group, Purpose::Join, None) {
                    self.pull_ended(group);
                }
            }
            Purpose::Repair => {}
            Purpose::Resync => {
                if !self.is_pulling(group, Purpose::Resync, Some(bucket)) {
                    self.set_merged(ctx, group, place);
                }
            }
            Purpose::Base | Purpose::Extra => {
                if !self.is_adopting_slots(group, place) {
                    self.end_merge(ctx, group, place);
                }
            }
        }
    }

    /// The latest version of an earlier epoch that this node may have seen in a slot and the adopter's base has not:
    /// of sessions in it that the adopter knows less of, only what is later than that may be applied here.
    fn outdone(&self, g: &Group, place: usize, slot: u16) -> Option<Version> {
        let own = self.watermark(g, place);
        let base = g.base[place].version;
        if own.epoch >= g.epoch {
            return None;
        }
        if own.epoch.holder == self.id {
            let since = if own.epoch == base.epoch { base.lsn } else { 0 };
            return self.rings[place].may_have_told(slot, since).then_some(own);
        }
        let mark = self.known_of(own, place);
        let lsn = mark.above.last().map_or(mark.contiguous, |range| range.last);
        let seen = Version { lsn, ..own };
        // Of an epoch before the base's own: that was merged without this node, and need not have what this node saw.
        (seen > base || seen.epoch < base.epoch).then_some(seen)
    }
}
