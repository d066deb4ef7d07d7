//! A group changes hands: watermarks are compared, what differs is pulled, the merge is told; who lost it offers
//! what only it has.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::bulk::Purpose;
use super::epochs::{lsn_of, packed};
use super::hints::causes;
use super::ranges::Watermark;
use super::state::{BucketBits, Ctx, Destination, Group, Sync, SyncOutcome};
use super::tx::PeerTx;
use super::{
    CloseReason, CopyState, Lsn, LsnRange, PullMode, SessionRecord, SyncBody, Version, VersionedRecord,
};
use crate::cluster::{Epoch, GroupId, PeerId, Role};
use crate::conn::{ConnId, flag};
use crate::proto::ConnState;
use crate::stats::SyncCount;
use crate::time::Instant;
use crate::tuple::{Direction, Tuple};

/// A watermark is not waited for any longer.
const WATERMARK_WAIT: Duration = Duration::from_secs(1);
/// Between two tellings of a watermark.
const TELL_AGAIN: Duration = Duration::from_millis(50);
/// An offer is made again after so long.
const OFFER_AGAIN: Duration = Duration::from_millis(20);

/// What a node knows of a bucket of the group.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) peer: PeerId,
    pub(super) copy: CopyState,
    pub(super) last: Epoch,
    pub(super) mark: Watermark,
}

/// What the merge of a bucket was based on, here or at the adopter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    /// Of former epochs: all that is not later was known.
    pub(super) version: Version,
    /// It has nothing but that.
    pub(super) exact: bool,
    /// The last LSN that the adopter had given by then: what it tells of the group comes after it.
    pub(super) at: Lsn,
    /// At the adopter: nobody had all of it, and what those in [`Group::put_together`] had was put together. Whatever others have
    /// counts.
    pub(super) all: bool,
}

/// A bucket in adoption.
#[derive(Debug)]
enum Step {
    /// Watermarks of these peers are waited for.
    Waits(Vec<Known>),
    /// Slots are pulled.
    Pulls,
    /// Merged.
    Ended,
}

/// An adoption, at the adopter.
#[derive(Debug)]
pub(super) struct Adoption {
    /// By place of bucket.
    steps: Vec<Step>,
    until: Instant,
    /// A source was lost in the midst: some slots are of it, others are not.
    mixed: BucketBits,
}

/// Sessions that are told to the winner, one at a time.
#[derive(Debug)]
pub(super) struct Offering {
    base: Base,
    /// Slots of the bucket that were not looked at; the last one is next.
    slots: Vec<u16>,
    conns: Vec<(ConnId, u8)>,
    /// The number of the one that waits for its answer.
    id: u32,
    again_at: Instant,
    offered: u32,
}

impl Sync {
    pub(super) fn begin_adoption(&mut self, ctx: &mut Ctx<'_>, at: usize) {
        let count = self.buckets.len();
        let g = &mut self.groups[at];
        if g.adoption.is_some() || g.is_merged() {
            return;
        }
        let steps = (0..count).map(|_| Step::Waits(Vec::new())).collect();
        g.adoption = Some(alloc::boxed::Box::new(Adoption {
            steps,
            until: ctx.now + WATERMARK_WAIT,
            mixed: BucketBits::EMPTY,
        }));
        g.tell_at = None;
        let group = g.id;
        self.sweep_adoption(ctx, group);
    }

    /// Looks at an adoption's buckets that wait. Returns when it has something to do again.
    fn sweep_adoption(&mut self, ctx: &mut Ctx<'_>, group: GroupId) -> Option<Instant> {
        self.group(group)?.adoption.as_ref()?;
        for place in 0..self.buckets.len() {
            self.try_merge(ctx, group, place);
        }
        let a = self.group(group)?.adoption.as_ref()?;
        a.steps
            .iter()
            .any(|s| matches!(s, Step::Waits(_)))
            .then_some(a.until.max(ctx.now))
    }

    pub(super) fn handle_watermark(
        &mut self,
        ctx: &mut Ctx<'_>,
        place: usize,
        (group, epoch): (GroupId, Epoch),
        told: Known,
    ) -> SyncOutcome {
        let own = self.id;
        let Some(g) = self
            .group_mut(group)
            .filter(|g| g.epoch == epoch && epoch.holder == own)
        else {
            ctx.count(SyncCount::Unexpected);
            return SyncOutcome::Ignored(SyncCount::Unexpected);
        };
        if g.merged[place] == epoch {
            // It missed the telling.
            self.send_merged(ctx, Destination::One(told.peer), group, place);
            return SyncOutcome::Taken;
        }
        if let Some(a) = &mut g.adoption
            && let Step::Waits(known) = &mut a.steps[place]
        {
            known.retain(|k| k.peer != told.peer);
            known.push(told);
            self.try_merge(ctx, group, place);
        }
        SyncOutcome::Taken
    }

    /// Compares what is known of a bucket, once all who are waited for have told, or their time is up.
    fn try_merge(&mut self, ctx: &mut Ctx<'_>, group: GroupId, place: usize) {
        // Most buckets wait for nothing, and are looked at often.
        let Some(g) = self.group(group) else { return };
        let Some(a) = &g.adoption else { return };
        let Step::Waits(known) = &a.steps[place] else {
            return;
        };
        let own_copy = self.copy_state(g, place);
        // Who joins offers what it knows more, if it was not heard by then.
        let waits = |p: &&PeerTx| p.peer.in_sync && (p.peer.ready || own_copy < CopyState::Ready);
        let mut waited = self.peers.iter().filter(waits);
        let all = waited.all(|p| known.iter().any(|k| k.peer == p.peer.id));
        if !all && ctx.now < a.until {
            return;
        }
        let own = self.watermark(g, place);
        let mark = self.known_of(own, place);
        let bucket = self.buckets[place];
        let lacking = self.lacking(g, bucket);
        let own_id = self.id;
        let alive: Vec<PeerId> = self.peers.iter().map(|p| p.peer.id).collect();
        let Some(g) = self.group_mut(group) else { return };
        let Some(a) = &mut g.adoption else { return };
        let Step::Waits(known) = &mut a.steps[place] else {
            return;
        };
        let mut known = core::mem::take(known);
        // Nothing comes from who has told and is gone.
        known.retain(|k| alive.contains(&k.peer));
        known.push(Known {
            peer: own_id,
            copy: own_copy,
            last: own.epoch,
            mark,
        });
        a.steps[place] = Step::Pulls;
        let mixed = a.mixed.has(place as u16);
        // Of equals the adopter itself, else the lower number: nothing is pulled that is here.
        let best = known
            .iter()
            .max_by_key(|k| {
                (
                    k.copy,
                    k.last,
                    k.mark.contiguous,
                    k.peer == own_id,
                    core::cmp::Reverse(k.peer),
                )
            })
            .cloned();
        let Some(best) = best else { return };
        let base = Version {
            epoch: best.last,
            lsn: best.mark.contiguous,
        };
        let none_whole = best.copy == CopyState::Partial;
        // Who began to listen lately knows of the last number, and of little that is before it.
        let differs = !none_whole
            && ((best.last, best.mark.contiguous) != (own.epoch, own.lsn) || own_copy < best.copy);
        let seen = |k: &Known| Version {
            epoch: k.last,
            lsn: k.mark.highest(),
        };
        let extra = |k: &&Known| none_whole || seen(k) > base;
        // Nobody has them all: what others have of them is taken as it is.
        let patched = !differs && !none_whole && !lacking.is_empty();
        let exact = !patched && !mixed && !known.iter().any(|k| extra(&k));
        let mut pulls = false;
        if none_whole {
            ctx.count(SyncCount::MergedLacking);
        }
        if let Some(g) = self.group_mut(group) {
            g.base[place] = Base {
                version: base,
                exact,
                at: 0,
                all: none_whole,
            };
            if none_whole {
                let peers = known.iter().map(|k| k.peer).collect();
                g.put_together.retain(|(p, _)| *p != place);
                g.put_together.push((place, peers));
            }
        }
        let slots: Vec<u16> = self.slots_of(bucket).collect();
        if differs {
            pulls = true;
            for &slot in &slots {
                self.pull(
                    ctx,
                    group,
                    best.peer,
                    Purpose::Base,
                    PullMode::Replace,
                    slot,
                    ctx.now,
                );
            }
        }
        for k in known.iter().filter(extra).filter(|k| k.peer != own_id) {
            pulls = true;
            for &slot in &slots {
                self.pull(ctx, group, k.peer, Purpose::Extra, PullMode::Merge, slot, ctx.now);
            }
        }
        if patched {
            ctx.count(SyncCount::MergedLacking);
            for k in known.iter().filter(|k| k.peer != own_id && k.last == best.last) {
                for &slot in &lacking {
                    pulls |= self.pull(ctx, group, k.peer, Purpose::Extra, PullMode::Merge, slot, ctx.now);
                }
            }
        }
        if !pulls {
            self.end_merge(ctx, group, place);
        }
    }

    /// How much of a bucket of a group is here.
    fn copy_state(&self, g: &Group, place: usize) -> CopyState {
        if g.complete && self.lacking(g, self.buckets[place]).is_empty() {
            CopyState::Ready
        } else if g.whole {
            CopyState::Whole
        } else {
            CopyState::Partial
        }
    }

    /// What is known of the space that a watermark is about.
    pub(super) fn known_of(&self, mark: Version, place: usize) -> Watermark {
        if mark.epoch.holder == self.id {
            return Watermark {
                contiguous: mark.lsn,
                above: Vec::new(),
            };
        }
        let mut known = Watermark {
            contiguous: mark.lsn,
            above: Vec::new(),
        };
        if let Some(rx) = self.rx(mark.epoch.holder, place).filter(|rx| rx.known) {
            // The first of these may be all that was heard, above what was pulled.
            let first = (rx.began < rx.mark.contiguous).then_some(LsnRange {
                first: rx.began + 1,
                last: rx.mark.contiguous,
            });
            for range in first.into_iter().chain(rx.mark.above.iter().copied()) {
                known.add(range);
            }
        }
        known
    }

    /// A source of an adoption is gone: those who are left are compared anew. What came of it counts, but it is not all.
    pub(super) fn lost_source(&mut self, ctx: &mut Ctx<'_>, group: GroupId) {
        self.drop_adopting(group);
        let until = ctx.now + WATERMARK_WAIT;
        if let Some(a) = self.group_mut(group).and_then(|g| g.adoption.as_mut()) {
            a.until = until;
            for (place, step) in (0..).zip(&mut a.steps) {
                if matches!(step, Step::Pulls) {
                    *step = Step::Waits(Vec::new());
                    a.mixed.set(place);
                }
            }
        }
        self.wake_at(ctx.now);
    }

    /// All slots of a bucket that adoption wanted have ended.
    pub(super) fn end_merge(&mut self, ctx: &mut Ctx<'_>, group: GroupId, place: usize) {
        let Some(at) = self.groups.iter().position(|g| g.id == group) else {
            return;
        };
        let bucket = self.buckets[place];
        let lacking = self.lacking(&self.groups[at], bucket);
        let last = self.rings[place].last;
        let g = &mut self.groups[at];
        let epoch = g.epoch;
        g.base[place].at = last;
        let put_together = g.base[place].all;
        g.merged[place] = epoch;
        // From now on what is here is what there is.
        for slot in lacking {
            g.lacks.clear(slot);
        }
        if let Some(a) = &mut g.adoption {
            a.steps[place] = Step::Ended;
        }
        let all = g.is_merged();
        if all {
            g.adoption = None;
        }
        self.restart_timeouts(ctx, group, bucket);
        if put_together {
            let peers: Vec<PeerId> = self.peers.iter().map(|p| p.peer.id).collect();
            for peer in peers {
                self.send_merged(ctx, Destination::One(peer), group, place);
            }
        } else {
            self.send_merged(ctx, Destination::All, group, place);
        }
        self.free_received(ctx, place);
        // What changed meanwhile is told now.
        self.flush_at = self.flush_at.map(|_| ctx.now);
        if all {
            self.tell_progress(at);
            self.drop_spaces();
        }
    }

    fn send_merged(&mut self, ctx: &mut Ctx<'_>, to: Destination, group: GroupId, place: usize) {
        let Some(g) = self.group(group) else { return };
        let base = g.base[place];
        let has_given = |peer| {
            g.put_together
                .iter()
                .any(|(p, of)| *p == place && of.contains(&peer))
        };
        // To who has given nothing nothing is said to be known.
        let anew = matches!(to, Destination::One(peer) if base.all && !has_given(peer));
        let body = SyncBody::Merged {
            group,
            epoch: g.epoch,
            base: if anew { Version::default() } else { base.version },
            exact: base.exact,
            at: base.at,
        };
        // If there is no room now: who misses it tells its watermark again.
        self.send(ctx, to, self.buckets[place], false, body);
    }

    /// Who adopts a session does not know when its last packet came. Once: a group that changes hands again and again
    /// does not keep sessions that no packet uses.
    fn restart_timeouts(&mut self, ctx: &mut Ctx<'_>, group: GroupId, bucket: u16) {
        for slot in self.slots_of(bucket) {
            let conns: Vec<ConnId> = ctx
                .table
                .slot_tail(slot, usize::MAX)
                .filter(|id| !ctx.table.is_tomb(*id))
                .collect();
            for id in conns {
                let Some(meta) = ctx.table.meta(id).copied() else {
                    continue;
                };
                if self.epochs.group(meta.version) != Some(group) {
                    continue;
                }
                let is_used = meta.flags & flag::DIRTY != 0 || meta.dirty_link != meta.deadline;
                if meta.flags & flag::RESTARTED != 0 && !is_used {
                    let deadline = ctx.table.deadline(id).max(ctx.now.tick());
                    ctx.table.arm(id, deadline);
                    continue;
                }
                let state = ConnState::from_u8(meta.state).unwrap_or_default();
                let ms = ctx.timeout_ms(meta.service, state);
                let deadline = ctx.now.tick() + u64::from(ms);
                if let Some(meta) = ctx.table.meta_mut(id) {
                    meta.deadline = deadline as u32;
                    meta.flags |= flag::RESTARTED;
                    if meta.flags & flag::DIRTY == 0 {
                        meta.dirty_link = meta.deadline;
                    }
                }
                ctx.table.arm(id, deadline);
            }
        }
    }

    /// Whether a version is later than what the base of the merge knew.
    pub(super) fn is_above_base(&self, group: GroupId, place: usize, version: Version) -> bool {
        self.group(group)
            .is_some_and(|g| g.base[place].all || version > g.base[place].version)
    }

    /// A peer adopted a group, and a bucket of it is merged.
    pub(super) fn handle_merged(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: PeerId,
        place: usize,
        (group, epoch): (GroupId, Epoch),
        base: Base,
    ) -> SyncOutcome {
        let own_id = self.id;
        let bucket = self.buckets[place];
        let Some(g) = self
            .group_mut(group)
            .filter(|g| g.epoch == epoch && epoch.holder == from && g.merged[place] != epoch)
        else {
            // Not known yet (asked for again by a watermark), or known for long.
            return SyncOutcome::Ignored(SyncCount::Unexpected);
        };
        if g.resync.has(place as u16) || g.offers.iter().any(|(p, _)| *p == place) {
            return SyncOutcome::Taken;
        }
        let held = g.merged[place].holder == own_id;
        // A replica that the adopter did not hear when it merged may know more than its base, too.
        let knows_more = self.group(group).is_some_and(|g| {
            let own = self.watermark(g, place);
            let mark = self.known_of(own, place);
            let lsn = mark.above.last().map_or(own.lsn, |range| range.last.max(own.lsn));
            Version { lsn, ..own } > base.version
        });
        if held || knows_more {
            // What only this node may know.
            let offering = Offering {
                base,
                slots: self.slots_of(bucket).collect(),
                conns: Vec::new(),
                id: 1,
                again_at: ctx.now,
                offered: 0,
            };
            if let Some(g) = self.group_mut(group) {
                g.offers.push((place, offering));
            }
            self.sweep_offers(ctx, group);
        } else {
            self.agree(ctx, group, place, base);
        }
        SyncOutcome::Taken
    }

    /// Agrees with an adopter, at once or by a pull of the bucket.
    fn agree(&mut self, ctx: &mut Ctx<'_>, group: GroupId, place: usize, base: Base) {
        let Some(g) = self.group(group) else { return };
        let own = self.watermark(g, place);
        let above = !self.known_of(own, place).above.is_empty();
        // What the adopter told before this node heard it is missing here, of whatever epoch.
        let heard = self
            .rx(g.epoch.holder, place)
            .is_some_and(|rx| rx.known && rx.began <= base.at);
        // Who never had all of it lacks what that was, however far its watermark is.
        let partial = self.copy_state(g, place) == CopyState::Partial;
        let same = base.exact && own == base.version && !above && !partial;
        if same && heard && self.lacking(g, self.buckets[place]).is_empty() {
            if let Some(g) = self.group_mut(group) {
                g.base[place] = base;
            }
            self.set_merged(ctx, group, place);
            return;
        }
        let (holder, bucket) = (g.epoch.holder, self.buckets[place]);
        if let Some(g) = self.group_mut(group) {
            g.resync.set(place as u16);
            g.base[place] = base;
        }
        for slot in self.slots_of(bucket) {
            let kept = self.pull(
                ctx,
                group,
                holder,
                Purpose::Resync,
                PullMode::Replace,
                slot,
                ctx.now,
            );
            if !kept {
                // The watermark is told again, and the merge then.
                if let Some(g) = self.group_mut(group) {
                    g.resync.clear(place as u16);
                }
                return;
            }
        }
    }

    /// A bucket of a replica agrees with the adopter.
    pub(super) fn set_merged(&mut self, ctx: &mut Ctx<'_>, group: GroupId, place: usize) {
        let Some(at) = self.groups.iter().position(|g| g.id == group) else {
            return;
        };
        // What was pulled for it was so after its holder was first heard.
        let began = self
            .rx(self.groups[at].epoch.holder, place)
            .map_or(0, |rx| rx.began);
        let g = &mut self.groups[at];
        let epoch = g.epoch;
        if let Some(merged) = g.merged.get_mut(place) {
            *merged = epoch;
        }
        g.whole_at[place] = Version {
            epoch,
            lsn: began.max(g.base[place].at),
        };
        g.resync.clear(place as u16);
        g.offers.retain(|(p, _)| *p != place);
        if g.is_merged() && !g.told {
            self.tell_progress(at);
        }
        self.free_received(ctx, place);
        self.drop_spaces();
    }

    /// Offers of a group that are due. Returns when it has something to do again.
    fn sweep_offers(&mut self, ctx: &mut Ctx<'_>, group: GroupId) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let places: Vec<usize> = self.group(group)?.offers.iter().map(|(p, _)| *p).collect();
        for place in places {
            loop {
                let g = self.group_mut(group)?;
                let at = g.offers.iter().position(|(p, _)| *p == place)?;
                let o = &mut g.offers[at].1;
                if o.again_at > ctx.now {
                    next = Some(next.map_or(o.again_at, |n| n.min(o.again_at)));
                    break;
                }
                if let Some(&(id, generation)) = o.conns.last() {
                    match self.offer(ctx, group, place, at, id, generation) {
                        Some(true) => continue,
                        Some(false) => {
                            self.group_mut(group)?.offers[at].1.conns.pop();
                            continue;
                        }
                        None => return Some(ctx.now),
                    }
                }
                if let Some(slot) = o.slots.pop() {
                    let base = o.base.version;
                    let conns = self.only_here(ctx, group, slot, base);
                    self.group_mut(group)?.offers[at].1.conns = conns;
                    continue;
                }
                let (_, o) = g.offers.swap_remove(at);
                let exact = o.base.exact && o.offered == 0;
                self.agree(ctx, group, place, Base { exact, ..o.base });
                break;
            }
        }
        next
    }

    /// Conns and tombstones of a slot of which the winner may know nothing. What its merge was based on may itself have been
    /// merged without this node: then nothing that this node told is known to be in it.
    fn only_here(&self, ctx: &Ctx<'_>, group: GroupId, slot: u16, base: Version) -> Vec<(ConnId, u8)> {
        ctx.table
            .slot_tail(slot, usize::MAX)
            .filter_map(|id| Some((id, ctx.table.meta(id)?)))
            .filter(|(id, m)| {
                let version = self.epochs.version(m.version);
                let apart = version.epoch < base.epoch && version.epoch.holder == self.id;
                // Of what was never told no other node has anything to close.
                let untold = lsn_of(m.version) == 0 && !ctx.table.is_tomb(*id);
                self.epochs.group(m.version) == Some(group) && (untold || version > base || apart)
            })
            .map(|(id, m)| (id, m.generation))
            .collect()
    }

    /// Makes an offer. `Some(false)`: the conn is gone; `None`: there is no room for the message.
    fn offer(
        &mut self,
        ctx: &mut Ctx<'_>,
        group: GroupId,
        place: usize,
        at: usize,
        id: ConnId,
        generation: u8,
    ) -> Option<bool> {
        let there = ctx
            .table
            .meta(id)
            .filter(|m| m.generation == generation)
            .map(|m| m.version);
        let session = if ctx.table.is_tomb(id) {
            ctx.table.inbound(id).map(Err)
        } else {
            SessionRecord::of(ctx.table, id).map(Ok)
        };
        let record = there
            .filter(|v| self.epochs.group(*v) == Some(group))
            .zip(session);
        let Some((version, session)) = record else {
            return Some(false);
        };
        let record = Box::new(VersionedRecord {
            version: self.epochs.version(version),
            session,
        });
        let g = self.group_mut(group)?;
        let holder = g.epoch.holder;
        let number = g.offers.get(at)?.1.id;
        let body = SyncBody::Offer {
            group,
            record,
            id: number,
        };
        if !self.send(ctx, Destination::One(holder), self.buckets[place], false, body) {
            return None;
        }
        ctx.count(SyncCount::Offered);
        let again = ctx.now + OFFER_AGAIN;
        self.group_mut(group)?.offers.get_mut(at)?.1.again_at = again;
        Some(true)
    }

    /// A session of a group that is here, of an earlier version than that.
    fn earlier(&self, ctx: &Ctx<'_>, group: GroupId, inbound: &Tuple, than: Version) -> Option<ConnId> {
        let (conn, direction) = ctx.table.lookup(inbound)?;
        let version = ctx.table.meta(conn)?.version;
        let earlier = self.epochs.group(version) == Some(group) && self.epochs.version(version) < than;
        (earlier && direction == Direction::Inbound && !ctx.table.is_tomb(conn)).then_some(conn)
    }

    pub(super) fn handle_offer(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: PeerId,
        place: usize,
        group: GroupId,
        record: &VersionedRecord,
        id: u32,
    ) -> SyncOutcome {
        let own = self.id;
        let holds = self
            .group(group)
            .filter(|g| g.epoch.holder == own && g.role.is_holder() && g.merged[place] == g.epoch)
            .map(|g| g.index);
        let Some(index) = holds else {
            ctx.count(SyncCount::Unexpected);
            return SyncOutcome::Ignored(SyncCount::Unexpected);
        };
        if let Ok(session) = &record.session {
            let (inbound, outbound) = (session.conn.inbound(), session.conn.outbound());
            // What both have has gone on at the loser too: it is seen here as if a replica hinted it, and told anew, as the loser's
            // copy is of a version that nobody else knows.
            let of_both = self.earlier(ctx, group, &inbound, record.version).filter(|conn| {
                let view = ctx.table.view(*conn);
                view.is_some_and(|v| v.init.outbound() == outbound)
            });
            if let Some(conn) = of_both {
                let here = ctx.table.meta(conn).and_then(|m| ConnState::from_u8(m.state));
                if here != Some(session.conn.state) {
                    for kind in causes(session.conn.state) {
                        self.handle_hint(ctx, place, group, &inbound, *kind);
                    }
                }
                self.mark(ctx, conn);
                self.flush_at = Some(ctx.now);
            }
            // What is in the way and of another group is judged as with any record.
            let of_group = |tuple| {
                let found = ctx.table.lookup(tuple).and_then(|(conn, _)| ctx.table.meta(conn));
                found.is_some_and(|m| self.epochs.group(m.version) == Some(group))
            };
            let collides =
                of_group(&inbound) || of_group(&outbound) || self.tomb(ctx, group, &inbound).is_some();
            if !collides
                && let super::apply::Applied::Now(conn) =
                    self.apply(ctx, place, group, packed(index, 0), session)
            {
                ctx.count(SyncCount::OffersTaken);
                self.mark(ctx, conn);
            }
        }
        if let Err(inbound) = &record.session {
            // The close of what is here, unless it is known to have gone on since.
            let closed = self.earlier(ctx, group, inbound, record.version).filter(|conn| {
                let meta = ctx.table.meta(*conn);
                meta.is_some_and(|m| m.flags & flag::DIRTY == 0)
            });
            if let Some(conn) = closed {
                ctx.count(SyncCount::OffersTaken);
                self.drop_conn(ctx, conn, Some(CloseReason::Superseded));
                self.flush_at = Some(ctx.now);
            }
        }
        let body = SyncBody::OfferSeen { group, id };
        self.send(ctx, Destination::One(from), self.buckets[place], false, body);
        SyncOutcome::Taken
    }

    pub(super) fn handle_offer_seen(
        &mut self,
        ctx: &mut Ctx<'_>,
        place: usize,
        group: GroupId,
        id: u32,
    ) -> SyncOutcome {
        let found = self
            .group_mut(group)
            .and_then(|g| g.offers.iter_mut().find(|(p, o)| *p == place && o.id == id))
            .filter(|(_, o)| !o.conns.is_empty());
        let Some((_, o)) = found else {
            return SyncOutcome::Ignored(SyncCount::Unexpected);
        };
        o.conns.pop();
        o.offered += 1;
        // The next one has the next number.
        o.id = o.id.wrapping_add(1).max(1);
        o.again_at = ctx.now;
        self.sweep_offers(ctx, group);
        SyncOutcome::Taken
    }

    /// Watermarks, merges and offers that are due. Returns when it has something to do again.
    pub(super) fn sweep_groups(&mut self, ctx: &mut Ctx<'_>) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let groups: Vec<GroupId> = self.groups.iter().map(|g| g.id).collect();
        for group in groups {
            let adoption = self.sweep_adoption(ctx, group);
            let offers = self.sweep_offers(ctx, group);
            if self
                .group(group)
                .and_then(|g| g.tell_at)
                .is_some_and(|at| at <= ctx.now)
            {
                let again = ctx.now + TELL_AGAIN;
                let told = self.tell_watermarks(ctx, group);
                if let Some(g) = self.group_mut(group) {
                    g.tell_at = if told { Some(again) } else { None };
                }
            }
            let tell = self.group(group).and_then(|g| g.tell_at);
            for at in [adoption, offers, tell].into_iter().flatten() {
                next = Some(next.map_or(at, |n| n.min(at)));
            }
        }
        next
    }

    /// Tells the adopter what is known of the buckets whose merge is not. `false`: none are left.
    fn tell_watermarks(&mut self, ctx: &mut Ctx<'_>, group: GroupId) -> bool {
        let Some(g) = self.group(group) else { return false };
        let (epoch, role) = (g.epoch, g.role);
        if epoch.holder == self.id || !matches!(role, Role::Replica | Role::Fenced | Role::Orphan) {
            return false;
        }
        if !self.is_alive(epoch.holder) {
            return !g.is_merged();
        }
        let mut any = false;
        for place in 0..self.buckets.len() {
            let Some(g) = self.group(group) else { return false };
            if g.merged[place] == epoch {
                continue;
            }
            any = true;
            if g.resync.has(place as u16) || g.offers.iter().any(|(p, _)| *p == place) {
                continue;
            }
            let last = self.watermark(g, place);
            let copy = self.copy_state(g, place);
            let mark = self.known_of(last, place);
            let body = SyncBody::Watermark {
                group,
                epoch,
                last: last.epoch,
                copy,
                contiguous: mark.contiguous,
                applied: mark.above,
            };
            if !self.send(
                ctx,
                Destination::One(epoch.holder),
                self.buckets[place],
                false,
                body,
            ) {
                return true;
            }
        }
        any
    }
}
