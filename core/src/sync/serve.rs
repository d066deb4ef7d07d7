//! Slots as their source sends them: see `bulk` for who asks, and for the messages.

use alloc::vec::Vec;

use super::bulk::Pulled;
use super::epochs::{index_of, lsn_of};
use super::state::{Ctx, Destination, Sync, SyncOutcome};
use super::{PullMode, SessionRecord, SyncBody, SyncMessage, Version, VersionedRecord};
use crate::cluster::{GroupId, PeerId};
use crate::conn::{ConnId, SLOT_COUNT};
use crate::stats::SyncCount;

/// Records of one message: the longest ones fit a frame of 16 KiB.
const RECORD_COUNT_MAX: usize = 100;
/// Conns of a slot that one call of the source looks at, at most.
const LOOK_COUNT_MAX: usize = 4 * RECORD_COUNT_MAX;

/// A slot that a peer asked for.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) to: PeerId,
    place: usize,
    group: GroupId,
    slot: u16,
    id: u32,
    min: Version,
    mode: PullMode,
    /// It begins when so many conns were taken from the bucket's dirty queue.
    after: u64,
    begun: Option<Begun>,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
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
        (group, slot, id): Pulled,
        min: Version,
        mode: PullMode,
    ) -> SyncOutcome {
        if slot >= SLOT_COUNT as u16 || self.bucket_of_slot(slot) != self.buckets[place] {
            ctx.count(SyncCount::Invalid);
            return SyncOutcome::Ignored(SyncCount::Invalid);
        }
        if self.group(group).is_none() {
            ctx.count(SyncCount::UnknownEpoch);
            return SyncOutcome::Ignored(SyncCount::UnknownEpoch);
        }
        self.serves
            .retain(|s| (s.to, s.group, s.slot) != (from, group, slot));
        if self.serves.len() >= self.sizes.serves {
            ctx.count(SyncCount::QueueFull);
            return SyncOutcome::Ignored(SyncCount::QueueFull);
        }
        self.outdo(ctx, place, (group, slot), min);
        self.serves.push_back(Serve {
            to: from,
            place,
            group,
            slot,
            id,
            min,
            mode,
            after: self.rings[place].pushed,
            begun: None,
        });
        SyncOutcome::Taken
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
            || min.epoch == g.base[place].0.epoch && min <= g.base[place].0
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

    /// The next message of a slot that a peer asked for.
    pub(super) fn poll_serve(&mut self, ctx: &mut Ctx<'_>) -> Option<(Destination, SyncMessage)> {
        for at in 0..self.serves.len() {
            let s = &self.serves[at];
            let (to, place, slot, id, begun) = (s.to, s.place, s.slot, s.id, s.begun);
            let (group, min, mode, after) = (s.group, s.min, s.mode, s.after);
            let Some(g) = self.group(group) else { continue };
            let as_of = self.watermark(g, place);
            let body = match begun {
                None if as_of < min || self.rings[place].popped < after => continue,
                // Who joins gets it once it is whole; an adopter takes what there is.
                None if g.lacks.has(slot) && min != Version::default() => continue,
                // What is here is of an epoch that others have left behind: who took it for the group's would seem to know as
                // much as they do. The next adopter settles it.
                None if g.merged[place] != g.epoch && to != g.epoch.holder => continue,
                None => {
                    self.serves[at].begun = Some(Begun {
                        rest: ctx.table.slot_len(slot),
                        count: 0,
                        as_of,
                    });
                    SyncBody::SlotBegin { id, group, slot }
                }
                Some(b) if b.rest > 0 => {
                    let (records, rest) = self.records_of(ctx, group, slot, b.rest, mode);
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
                        id,
                        group,
                        slot,
                        records,
                    }
                }
                Some(b) => {
                    self.serves.remove(at);
                    SyncBody::SlotEnd {
                        id,
                        group,
                        slot,
                        count: b.count,
                        as_of: b.as_of,
                    }
                }
            };
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
