//! What would tell a client that it is connected waits until other nodes have its session: who waits for which of them.
//!
//! The frames are the worker's; here a wait has the number of its frame. It ends when enough ready peers have applied a record
//! of the session that was told since it began, or when its time is up.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::epochs::{index_of, lsn_of};
use super::state::{Ctx, Sync};
use super::{Lsn, LsnRange};
use crate::cluster::PeerId;
use crate::conn::{ConnId, ConnMeta, ConnTable, flag};
use crate::service::{Deferral, OnLimit};
use crate::stats::SyncCount;
use crate::time::Instant;

/// What was told is told again after so long, then after twice that, and so on.
const TOLD_AGAIN: Duration = Duration::from_millis(1);
/// Records of one session that a wait remembers: with a second of waiting at most, it is not told more often.
const TOLD_COUNT_MAX: usize = 10;
/// No wait.
const NONE: u16 = u16::MAX;

/// A frame that waits.
#[derive(Clone, Copy, Debug)]
struct Wait {
    conn: ConnId,
    generation: u8,
    /// Peers that must have the session.
    nodes: u8,
    /// It is counted that there are fewer.
    short: bool,
    on_limit: OnLimit,
    until: Instant,
    /// When it is told again, and how long after the last time.
    again_at: Instant,
    again_after: Duration,
    /// LSNs by which it was told.
    told: [Lsn; TOLD_COUNT_MAX],
    /// Bit n: the n-th peer has it.
    acked: u16,
    /// The next wait of the bucket.
    next: u16,
}

impl Wait {
    const NONE: Wait = Wait {
        conn: ConnId::v4(0),
        generation: 0,
        nodes: 0,
        short: false,
        on_limit: OnLimit::Open,
        until: Instant::ZERO,
        again_at: Instant::ZERO,
        again_after: Duration::ZERO,
        told: [0; TOLD_COUNT_MAX],
        acked: 0,
        next: NONE,
    };

    fn is_of(&self, conn: ConnId, generation: u8) -> bool {
        (self.conn, self.generation) == (conn, generation)
    }

    /// Whether its conn is there still: its place may be free, or another one's.
    fn is_there(&self, table: &ConnTable) -> bool {
        let is_it = |m: &ConnMeta| m.proto != 0 && m.generation == self.generation;
        table.meta(self.conn).is_some_and(is_it) && !table.is_tomb(self.conn)
    }

    fn remember(&mut self, lsn: Lsn) {
        if let Some(place) = self.told.iter_mut().find(|l| **l == 0) {
            *place = lsn;
        }
    }

    /// What was told by these LSNs may not have been heard: that they are dealt with says nothing any more.
    fn forget(&mut self, gap: LsnRange) {
        for lsn in &mut self.told {
            if gap.first <= *lsn && *lsn <= gap.last {
                *lsn = 0;
            }
        }
    }
}

/// How a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Enough nodes have the session.
    Acked,
    /// Its time was up, or nobody is left to be waited for, and what waited is let through.
    Opened,
    /// Its time was up, and what waited is dropped.
    Dropped,
    /// Its conn is no more.
    Gone,
}

/// Waits of a worker, by the numbers of their frames.
#[derive(Debug)]
pub(super) struct Waits {
    all: Box<[Wait]>,
    /// By place of bucket: the first and the last.
    lists: Vec<(u16, u16)>,
    len: usize,
    /// When one is to be looked at, at the earliest.
    next_at: Option<Instant>,
    ended: VecDeque<(u16, Ended)>,
}

impl Waits {
    pub(super) fn new(frames: u16, places: usize) -> Self {
        Waits {
            all: alloc::vec![Wait::NONE; usize::from(frames)].into_boxed_slice(),
            lists: alloc::vec![(NONE, NONE); places],
            len: 0,
            next_at: None,
            ended: VecDeque::with_capacity(frames.into()),
        }
    }

    fn push(&mut self, place: usize, frame: u16, wait: Wait) {
        let Some(room) = self.all.get_mut(usize::from(frame)) else {
            return;
        };
        *room = wait;
        let (_, last) = self.lists[place];
        match self.all.get_mut(usize::from(last)) {
            Some(last) => last.next = frame,
            None => self.lists[place].0 = frame,
        }
        self.lists[place].1 = frame;
        self.len += 1;
        self.look_at(wait.until.min(wait.again_at));
    }

    fn look_at(&mut self, when: Instant) {
        self.next_at = Some(self.next_at.map_or(when, |at| at.min(when)));
    }

    fn first(&self, place: usize) -> Option<u16> {
        let (first, _) = *self.lists.get(place)?;
        (first != NONE).then_some(first)
    }

    fn after(&self, frame: u16) -> Option<u16> {
        let next = self.all.get(usize::from(frame))?.next;
        (next != NONE).then_some(next)
    }

    fn frames(&self, place: usize) -> impl Iterator<Item = u16> + '_ {
        core::iter::successors(self.first(place), |frame| self.after(*frame))
    }

    /// What waits in a bucket, to be changed.
    fn each(&mut self, place: usize, mut change: impl FnMut(&mut Wait)) {
        let mut at = self.first(place);
        while let Some(frame) = at {
            at = self.after(frame);
            if let Some(wait) = self.all.get_mut(usize::from(frame)) {
                change(wait);
            }
        }
    }

    /// Ends those of a bucket of which `end` says how, in their order.
    fn sift(&mut self, place: usize, mut end: impl FnMut(&mut Wait) -> Option<Ended>) {
        let (mut at, mut before) = (self.first(place), NONE);
        while let Some(frame) = at {
            at = self.after(frame);
            let Some(ended) = self.all.get_mut(usize::from(frame)).and_then(&mut end) else {
                before = frame;
                continue;
            };
            let next = at.unwrap_or(NONE);
            match self.all.get_mut(usize::from(before)) {
                Some(before) => before.next = next,
                None => self.lists[place].0 = next,
            }
            if next == NONE {
                self.lists[place].1 = before;
            }
            self.all[usize::from(frame)].next = NONE;
            self.len -= 1;
            self.ended.push_back((frame, ended));
        }
        if self.len == 0 {
            self.next_at = None;
        }
    }

    /// A conn has been told by an LSN.
    pub(super) fn told(&mut self, place: usize, (conn, generation): (ConnId, u8), lsn: Lsn) {
        if self.len > 0 {
            self.each(place, |wait| {
                if wait.is_of(conn, generation) {
                    wait.remember(lsn);
                }
            });
        }
    }

    /// What was told by these LSNs may not have been heard by all.
    pub(super) fn missed(&mut self, place: usize, gap: LsnRange) {
        if self.len > 0 {
            self.each(place, |wait| wait.forget(gap));
        }
    }

    /// The peers are others now, and were these.
    pub(super) fn move_peers(&mut self, old: &[PeerId], new: &[PeerId]) {
        if self.len == 0 || old == new {
            return;
        }
        let moved = |acked: u16| {
            let has = |id: &PeerId| {
                old.iter()
                    .position(|o| o == id)
                    .is_some_and(|n| acked >> n & 1 != 0)
            };
            new.iter()
                .zip(0..)
                .filter(|(id, _)| has(id))
                .fold(0, |all, (_, n)| all | 1 << n)
        };
        for place in 0..self.lists.len() {
            self.each(place, |wait| wait.acked = moved(wait.acked));
        }
    }

    /// Checks its lists; for tests.
    pub(super) fn audit(&self) {
        let listed: usize = (0..self.lists.len())
            .map(|place| self.frames(place).count())
            .sum();
        assert_eq!(listed, self.len, "waits are in one list each");
        assert!(self.len + self.ended.len() <= self.all.len());
        assert!(self.len == 0 || self.next_at.is_some(), "what waits is looked at");
    }
}

impl Sync {
    /// Ready peers: who is not does not count, as it may have missed what it says that it has dealt with.
    fn ready_mask(&self) -> u16 {
        let ready = self
            .peers
            .iter()
            .zip(0..)
            .filter(|(p, _)| p.peer.ready && p.peer.in_sync);
        ready.fold(0, |all, (_, n)| all | 1 << n)
    }

    /// Whether a frame of a conn waits.
    fn waits_for(&self, place: usize, id: ConnId, generation: u8) -> bool {
        let mut frames = self.waits.frames(place);
        frames.any(|frame| self.waits.all[usize::from(frame)].is_of(id, generation))
    }

    /// What would tell the client of a conn that it is connected is to wait. `Err`: it does not, and whether it is let through.
    /// `behind`: frames of it that waited are not sent yet, and none is to overtake them.
    pub(crate) fn defer(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        deferral: Deferral,
        behind: bool,
        frame: impl FnOnce() -> Option<u16>,
    ) -> Result<(), OnLimit> {
        let Some(meta) = ctx.table.meta(id).copied() else {
            return Err(OnLimit::Drop);
        };
        if meta.version == 0 {
            // It was opened when the service was not replicated: no other node will ever have it.
            ctx.count(SyncCount::DeferShort);
            return Err(OnLimit::Open);
        }
        let ready = self.ready_mask().count_ones();
        if !self.advances(meta.version) {
            // Its holder has told this node of it. Who else has it only the holder knows, and what comes here would never come by there.
            if deferral.nodes() > 1 {
                ctx.count(SyncCount::DeferShort);
            }
            return Err(OnLimit::Open);
        }
        let short = ready < u32::from(deferral.nodes());
        if short {
            ctx.count(SyncCount::DeferShort);
        }
        let place = ctx.table.inbound(id).and_then(|t| self.place(self.bucket_of(&t)));
        let is_behind = |place| behind || self.waits_for(place, id, meta.generation);
        let has_enough = |place| self.kept_by(ctx, place, id, &meta) >= ready.min(deferral.nodes().into());
        if place.is_some_and(|place| !is_behind(place) && has_enough(place)) {
            return Err(OnLimit::Open);
        }
        let Some((place, frame)) = place.and_then(|place| Some((place, frame()?))) else {
            ctx.count(SyncCount::DeferFull);
            return Err(deferral.on_limit());
        };
        ctx.count(SyncCount::Deferred);
        let wait = Wait {
            conn: id,
            generation: meta.generation,
            nodes: deferral.nodes(),
            short,
            on_limit: deferral.on_limit(),
            until: ctx.now + deferral.limit(),
            again_at: ctx.now + TOLD_AGAIN,
            again_after: TOLD_AGAIN,
            ..Wait::NONE
        };
        self.waits.push(place, frame, wait);
        self.wake_at(wait.again_at.min(wait.until));
        self.tell_at_once(ctx, id);
        Ok(())
    }

    /// How many ready peers are known to have a conn as it was told last.
    fn kept_by(&self, ctx: &Ctx<'_>, place: usize, id: ConnId, meta: &ConnMeta) -> u32 {
        let lsn = lsn_of(meta.version);
        let told_here = self
            .group_of(meta.version)
            .is_some_and(|g| g.index == index_of(meta.version) && g.epoch.holder == self.id);
        if lsn == 0 || !told_here || meta.flags & flag::DIRTY != 0 {
            return 0;
        }
        let slot = ctx.table.inbound(id).map_or(0, |t| ctx.table.slot_of(&t));
        let remembered = self.rings[place].remembers(lsn, id, meta.generation);
        let ready = self.peers.iter().filter(|p| p.peer.ready && p.peer.in_sync);
        ready.filter(|p| p.has_kept(place, lsn, slot, remembered)).count() as u32
    }

    /// A conn is told, again if need be, and now.
    fn tell_at_once(&mut self, ctx: &mut Ctx<'_>, id: ConnId) {
        self.mark(ctx, id);
        self.flush_at = Some(ctx.now);
    }

    /// Whether an ACK is asked for at once of what is told of a bucket.
    pub(super) fn is_waited_for(&self, place: usize) -> bool {
        self.waits.len > 0 && self.waits.first(place).is_some()
    }

    /// A peer has dealt with these LSNs of a bucket, and what was told by those of `unkept` it does not have.
    pub(super) fn ack_waits(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: PeerId,
        place: usize,
        contiguous: Lsn,
        [applied, unkept]: [&[LsnRange]; 2],
    ) {
        let Some(peer) = self.peers.iter().position(|p| p.peer.id == from) else {
            return;
        };
        let last = self.rings[place].last;
        if contiguous > last {
            return;
        }
        self.peers[peer].unkept(place, unkept, last);
        if !self.is_waited_for(place) {
            return;
        }
        let is_in = |ranges: &[LsnRange], lsn| ranges.iter().any(|r| r.first <= lsn && lsn <= r.last);
        let has = |lsn: Lsn| {
            lsn != 0 && lsn <= last && (lsn <= contiguous || is_in(applied, lsn)) && !is_in(unkept, lsn)
        };
        self.waits.each(place, |wait| {
            if wait.acked >> peer & 1 == 0 && wait.told.into_iter().any(has) {
                wait.acked |= 1 << peer;
            }
        });
        self.end_acked(ctx, place);
    }

    /// Ends the waits of a bucket for which enough peers have acked, or nobody is left.
    fn end_acked(&mut self, ctx: &mut Ctx<'_>, place: usize) {
        let ready = self.ready_mask();
        let Ctx { table, counters, .. } = ctx;
        self.waits.sift(place, |wait| {
            if !wait.is_there(table) {
                return Some(Ended::Gone);
            }
            let wanted = u32::from(wait.nodes).min(ready.count_ones());
            if (wait.acked & ready).count_ones() < wanted {
                return None;
            }
            if wanted < wait.nodes.into() && !wait.short {
                counters.count(SyncCount::DeferShort);
            }
            if wanted == 0 {
                counters.count(SyncCount::DeferOpened);
                return Some(Ended::Opened);
            }
            counters.count(SyncCount::DeferAcked);
            Some(Ended::Acked)
        });
    }

    /// Peers are ready that were not, or are no longer.
    pub(super) fn end_all_acked(&mut self, ctx: &mut Ctx<'_>) {
        for place in 0..self.rings.len() {
            if self.is_waited_for(place) {
                self.end_acked(ctx, place);
            }
        }
    }

    /// A conn goes: nothing of it waits any more.
    pub(super) fn end_waits_of(&mut self, ctx: &Ctx<'_>, id: ConnId) {
        if self.waits.len == 0 {
            return;
        }
        if let Some(place) = ctx.table.inbound(id).and_then(|t| self.place(self.bucket_of(&t))) {
            let is_it = |wait: &mut Wait| (wait.conn == id).then_some(Ended::Gone);
            self.waits.sift(place, is_it);
        }
    }

    /// Waits whose time is up end; what is late is told again. Returns when there is something to do again.
    pub(super) fn sweep_waits(&mut self, ctx: &mut Ctx<'_>) -> Option<Instant> {
        let now = ctx.now;
        if self.waits.next_at.is_none_or(|at| at > now) {
            return self.waits.next_at;
        }
        let mut next: Option<Instant> = None;
        for place in 0..self.rings.len() {
            if !self.is_waited_for(place) {
                continue;
            }
            self.end_acked(ctx, place);
            self.waits.sift(place, |wait| {
                if wait.until > now {
                    return None;
                }
                let (count, ended) = match wait.on_limit {
                    OnLimit::Open => (SyncCount::DeferOpened, Ended::Opened),
                    OnLimit::Drop => (SyncCount::DeferDropped, Ended::Dropped),
                };
                ctx.counters.count(count);
                Some(ended)
            });
            let mut at = self.waits.first(place);
            while let Some(frame) = at {
                at = self.waits.after(frame);
                let wait = &mut self.waits.all[usize::from(frame)];
                let mut again = None;
                if wait.again_at <= now {
                    wait.again_after *= 2;
                    wait.again_at = now + wait.again_after;
                    again = Some(wait.conn);
                }
                let due = wait.until.min(wait.again_at);
                next = Some(next.map_or(due, |n| n.min(due)));
                // Who does not hold it any more tells it no more.
                let version = again.and_then(|id| Some(ctx.table.meta(id)?.version));
                if let Some(id) = again.filter(|_| version.is_some_and(|v| self.advances(v))) {
                    let waits = |m: &ConnMeta| m.flags & flag::DIRTY != 0 || lsn_of(m.version) == 0;
                    if !ctx.table.meta(id).is_some_and(waits) {
                        ctx.count(SyncCount::DeferAgain);
                    }
                    self.tell_at_once(ctx, id);
                }
            }
        }
        self.waits.next_at = next;
        next
    }

    /// Whether waits have ended that were not asked for.
    pub(crate) fn has_ended(&self) -> bool {
        !self.waits.ended.is_empty()
    }

    /// A wait that has ended, by its frame.
    pub(crate) fn poll_ended(&mut self) -> Option<(u16, Ended)> {
        self.waits.ended.pop_front()
    }
}
