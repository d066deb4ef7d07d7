//! Slots as their source sends them: see `bulk` for who asks, and for the messages.

use alloc::vec::Vec;

use super::epochs::{index_of, lsn_of};
use super::state::{Ctx, Destination, SlotBits, Sync, SyncOutcome};
use super::{PULL_SLOT_COUNT_MAX, PullMode, SessionRecord, SyncBody, SyncMessage, Version, VersionedRecord};
use crate::cluster::{GroupId, PeerId};
use crate::conn::{ConnId, SLOT_COUNT};
use crate::stats::SyncCount;

/// Records of one message: the longest ones fit a frame of 16 KiB.
const RECORD_COUNT_MAX: usize = 100;
/// Conns of a slot that one call of the source looks at, at most.
const LOOK_COUNT_MAX: usize = 4 * RECORD_COUNT_MAX;

/// What of a pull is the same for all its slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    pub(super) group: GroupId,
    /// Number of the first one.
    pub(super) id: u32,
    pub(super) min: Version,
    pub(super) mode: PullMode,
}

/// Slots of a bucket that a peer asked for.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) to: PeerId,
    place: usize,
    pull: Pull,
    /// They begin when so many conns were taken from the bucket's dirty queue.
    after: u64,
    /// By number; `None`: ended, or asked for again.
    slots: Vec<Option<u16>>,
    /// That are not `None`.
    left: usize,
    begun: Option<Begun>,
}

impl Serve {
    fn end(&mut self, at: usize) {
        if self.slots[at].take().is_some() {
            self.left -= 1;
        }
    }

    /// What must always hold.
    pub(super) fn is_sound(&self) -> bool {
        let begun = self
            .begun
            .is_none_or(|b| self.slots.get(b.at) == Some(&Some(b.slot)));
        begun && self.left > 0 && self.left == self.slots.iter().flatten().count()
    }

    /// Of these slots others are to come.
    fn without(&mut self, slots: &SlotBits) {
        for at in 0..self.slots.len() {
            if self.slots[at].is_some_and(|s| slots.has(s)) {
                self.end(at);
                self.begun = self.begun.filter(|b| b.at != at);
            }
        }
    }
}

/// The slot of a [`Serve`] that is being sent.
#[derive(Clone, Copy, Debug)]
struct Begun {
    at: usize,
    slot: u16,
    /// Conns at the end of the slot's order that were not looked at.
    rest: usize,
    count: u32,
    as_of: Version,
}

impl Sync {
    pub(super) fn handle_pull(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: PeerId,
        place: usize,
        pull: Pull,
        slots: &[u16],
    ) -> SyncOutcome {
        let of_bucket = |s: &u16| *s < SLOT_COUNT as u16 && self.bucket_of_slot(*s) == self.buckets[place];
        if slots.is_empty() || slots.len() > PULL_SLOT_COUNT_MAX || !slots.iter().all(of_bucket) {
            ctx.count(SyncCount::Invalid);
            return SyncOutcome::Ignored(SyncCount::Invalid);
        }
        if self.group(pull.group).is_none() {
            ctx.count(SyncCount::UnknownEpoch);
            return SyncOutcome::Ignored(SyncCount::UnknownEpoch);
        }
        if self.is_partial(pull.group, place, from) {
            // It asks again, or elsewhere.
            ctx.count(SyncCount::Unexpected);
            return SyncOutcome::Ignored(SyncCount::Unexpected);
        }
        let mut asked = SlotBits::EMPTY;
        for slot in slots {
            asked.set(*slot);
        }
        let is_again = |s: &Serve| (s.to, s.pull.group, s.place) == (from, pull.group, place);
        for s in self.serves.iter_mut().filter(|s| is_again(s)) {
            s.without(&asked);
        }
        self.serves.retain(|s| s.left > 0);
        let is_full = |sync: &Self| sync.serve_slots() + slots.len() > sync.sizes.serves;
        if is_full(self) && self.adopts(pull.group, place, from) {
            // Others wait for its merge, and ask again. Its questions wait for nothing.
            let mut serves = core::mem::take(&mut self.serves);
            let before = serves.len();
            serves.retain(|s| s.begun.is_some() || self.adopts(s.pull.group, s.place, s.to));
            ctx.counters.sync[SyncCount::QueueFull as usize] += (before - serves.len()) as u64;
            self.serves = serves;
        }
        if is_full(self) {
            ctx.count(SyncCount::QueueFull);
            return SyncOutcome::Ignored(SyncCount::QueueFull);
        }
        for slot in slots {
            self.outdo(ctx, place, (pull.group, *slot), pull.min);
        }
        self.serves.push_back(Serve {
            to: from,
            place,
            pull,
            after: self.rings[place].pushed,
            slots: slots.iter().copied().map(Some).collect(),
            left: slots.len(),
            begun: None,
        });
        SyncOutcome::Taken
    }

    /// Whether a peer holds a group in an epoch that this node has not merged yet: it asks for its adoption.
    fn adopts(&self, group: GroupId, place: usize, peer: PeerId) -> bool {
        self.group(group)
            .is_some_and(|g| g.epoch.holder == peer && g.merged[place] != g.epoch)
    }

    /// Whether a peer must not have this node's copy: who has it from one that never had all would take it for all. An adopter
    /// puts together what there is.
    fn is_partial(&self, group: GroupId, place: usize, peer: PeerId) -> bool {
        self.group(group).is_some_and(|g| !g.whole) && !self.adopts(group, place, peer)
    }

    /// Slots that peers wait for.
    pub(super) fn serve_slots(&self) -> usize {
        self.serves.iter().map(|s| s.left).sum()
    }

    /// A peer that followed another holder until now has seen versions of a slot up to `min`, later than what this
    /// node's merge was based on. What this node knows counts, and becomes later than that by being told again:
    /// so the version of nobody's copy goes back.
    fn outdo(&mut self, ctx: &mut Ctx<'_>, place: usize, (group, slot): (GroupId, u16), min: Version) {
        let own = self.id;
        let Some(g) = self.group(group) else { return };
        if g.epoch.holder != own
            || g.merged[place] != g.epoch
            || min.epoch >= g.epoch
            // An earlier epoch than the base's may have gone on after that one had begun.
            || min.epoch == g.base[place].version.epoch && min <= g.base[place].version
        {
            return;
        }
        let earlier: Vec<ConnId> = ctx
            .table
            .slot_tail(slot, usize::MAX)
            .filter(|id| !ctx.table.is_tomb(*id))
            .filter(|id| {
                ctx.table.meta(*id).is_some_and(|m| {
                    self.epochs.group(m.version) == Some(group) && self.epochs.version(m.version) <= min
                })
            })
            .collect();
        for id in earlier {
            self.mark(ctx, id);
            self.flush_at = Some(ctx.now);
        }
    }

    /// The next message of the slots that peers asked for.
    pub(super) fn poll_serve(&mut self, ctx: &mut Ctx<'_>) -> Option<(Destination, SyncMessage)> {
        for at in 0..self.serves.len() {
            let s = &self.serves[at];
            let (to, place, pull, after) = (s.to, s.place, s.pull, s.after);
            let Some(g) = self.group(pull.group) else { continue };
            let as_of = self.watermark(g, place);
            let number = |at: usize| pull.id.wrapping_add(at as u32);
            let group = pull.group;
            let body = match s.begun {
                None if as_of < pull.min || self.rings[place].popped < after => continue,
                // What is here is of an epoch that others have left behind: who took it for the group's would seem to know as
                // much as they do. The next adopter settles it.
                None if g.merged[place] != g.epoch && to != g.epoch.holder => continue,
                // It has merged since: what it asked for is wanted no more.
                None if self.is_partial(group, place, to) => {
                    self.serves.remove(at);
                    return self.poll_serve(ctx);
                }
                None => {
                    // Who joins gets a slot once it is whole; an adopter takes what there is.
                    let whole = |slot: u16| pull.min == Version::default() || !g.lacks.has(slot);
                    let is_next = |s: &Option<u16>| s.is_some_and(whole);
                    let Some(first) = s.slots.iter().position(is_next) else {
                        continue;
                    };
                    let is_empty =
                        |s: &&Option<u16>| is_next(s) && s.is_some_and(|s| ctx.table.slot_len(s) == 0);
                    let count = s.slots[first..].iter().take_while(is_empty).count();
                    let s = &mut self.serves[at];
                    if count > 0 {
                        (first..first + count).for_each(|at| s.end(at));
                        SyncBody::SlotsEmpty {
                            id: number(first),
                            group,
                            count: count as u16,
                            as_of,
                        }
                    } else {
                        let slot = s.slots[first]?;
                        s.begun = Some(Begun {
                            at: first,
                            slot,
                            rest: ctx.table.slot_len(slot),
                            count: 0,
                            as_of,
                        });
                        SyncBody::SlotBegin {
                            id: number(first),
                            group,
                            slot,
                        }
                    }
                }
                Some(b) if b.rest > 0 => {
                    let (records, rest) = self.records_of(ctx, group, b.slot, b.rest, pull.mode);
                    if let Some(b) = &mut self.serves[at].begun {
                        b.rest = rest;
                        b.count += records.len() as u32;
                    }
                    if records.is_empty() {
                        if rest > 0 {
                            continue;
                        }
                        return self.poll_serve(ctx);
                    }
                    ctx.counters.sync[SyncCount::PulledOut as usize] += records.len() as u64;
                    SyncBody::SlotRecords {
                        id: number(b.at),
                        group,
                        slot: b.slot,
                        records,
                    }
                }
                Some(b) => {
                    let s = &mut self.serves[at];
                    s.begun = None;
                    s.end(b.at);
                    SyncBody::SlotEnd {
                        id: number(b.at),
                        group,
                        slot: b.slot,
                        count: b.count,
                        as_of: b.as_of,
                    }
                }
            };
            if self.serves[at].left == 0 {
                self.serves.remove(at);
            }
            let message = SyncMessage {
                from: self.id,
                bucket: self.buckets[place],
                ack_now: false,
                body,
            };
            return Some((Destination::One(to), message));
        }
        None
    }

    /// Records of the last `rest` conns of a slot, as many as a message takes; and how many are left.
    fn records_of(
        &self,
        ctx: &Ctx<'_>,
        group: GroupId,
        slot: u16,
        rest: usize,
        mode: PullMode,
    ) -> (Vec<VersionedRecord>, usize) {
        let mut left = rest.min(ctx.table.slot_len(slot));
        let mut records = Vec::new();
        for id in ctx.table.slot_tail(slot, left).take(LOOK_COUNT_MAX) {
            if records.len() == RECORD_COUNT_MAX {
                break;
            }
            left -= 1;
            let Some(meta) = ctx.table.meta(id) else { continue };
            // What was never told comes live.
            if self.epochs.group(meta.version) != Some(group)
                || index_of(meta.version) == 0
                || lsn_of(meta.version) == 0
            {
                continue;
            }
            let session = if ctx.table.is_tomb(id) {
                match ctx.table.inbound(id) {
                    // Replaced: not to be mentioned suffices.
                    Some(tuple) if mode == PullMode::Merge => Err(tuple),
                    _ => continue,
                }
            } else {
                match SessionRecord::of(ctx.table, id) {
                    Some(session) => Ok(session),
                    None => continue,
                }
            };
            records.push(VersionedRecord {
                version: self.epochs.version(meta.version),
                session,
            });
        }
        (records, left)
    }
}
