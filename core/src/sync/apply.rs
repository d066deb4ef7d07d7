//! Records become conns, change them, end them.

use core::time::Duration;

use super::bulk::Purpose;
use super::codec::SERVICE_UNRESOLVED;
use super::epochs::{LOCAL, index_of, packed};
use super::state::{Ctx, Sync};
use super::{CloseReason, InstallError, LiveRecord, Lsn, PullMode, SessionRecord, Version};
use crate::cluster::{GroupId, Role};
use crate::conn::{ConnId, ConnInit, flag};
use crate::planted::{self, Bug};
use crate::proto::{ConnState, TIMEOUT_MAX};
use crate::service::RealServerId;
use crate::stats::SyncCount;
use crate::tuple::{Direction, Tuple};

/// What became of a session's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is here now, with this version.
    Now(ConnId),
    /// What is here is as new, or newer.
    Older(Option<ConnId>),
    /// It lost a tuple to a session of another group.
    Conflict,
    /// There is no room.
    Refused,
    /// No node should send it.
    Invalid,
}

impl Applied {
    /// The conn that the record is about, if it is here.
    pub(super) fn conn(self) -> Option<ConnId> {
        match self {
            Applied::Now(id) => Some(id),
            Applied::Older(id) => id,
            _ => None,
        }
    }
}

/// Of two sessions of different groups with one inbound tuple the one that is further counts.
fn rank(state: ConnState) -> u8 {
    match state {
        ConnState::Established | ConnState::UdpNormal => 3,
        ConnState::SynRecv | ConnState::SynAck | ConnState::UdpOneWay | ConnState::None => 2,
        ConnState::SynSent | ConnState::Listen => 1,
        ConnState::FinWait
        | ConnState::TimeWait
        | ConnState::Close
        | ConnState::CloseWait
        | ConnState::LastAck => 0,
    }
}

/// How a conn stands in the way of a record.
enum InTheWay {
    /// It gives way.
    Yields,
    /// It is as new.
    Newer,
    /// It is another group's, and stays.
    Stays,
}

impl Sync {
    /// Applies a live record. Whether there was room for it: if not, its slot will be pulled; and whether the session is here and
    /// can be served.
    pub(super) fn apply_live(
        &mut self,
        ctx: &mut Ctx<'_>,
        place: usize,
        (group, index): (GroupId, u16),
        lsn: Lsn,
        record: &LiveRecord,
        in_order: bool,
    ) -> (bool, bool) {
        let applied = match record {
            LiveRecord::Open(session) | LiveRecord::Update(session) => {
                let applied = self.apply(ctx, place, group, packed(index, lsn), session);
                if let Applied::Now(id) = applied
                    && let Some(meta) = ctx.table.meta_mut(id)
                {
                    meta.flags |= flag::MENTIONED;
                }
                applied
            }
            LiveRecord::Close(tuple, _) => {
                self.close(ctx, place, (group, packed(index, lsn)), tuple, in_order)
            }
        };
        self.count_applied(ctx, applied, SyncCount::Applied);
        if matches!(applied, Applied::Refused | Applied::Conflict) {
            let tuple = match record {
                LiveRecord::Open(s) | LiveRecord::Update(s) => s.conn.inbound(),
                LiveRecord::Close(tuple, _) => *tuple,
            };
            let slot = ctx.table.slot_of(&tuple);
            if applied == Applied::Conflict {
                self.after_conflict(ctx, group, slot);
                return (true, false);
            }
            self.repair(ctx, group, slot, ctx.now + REFUSED_AGAIN);
            return (false, false);
        }
        let kept = match (record, applied.conn()) {
            (LiveRecord::Close(..), _) => true,
            (_, Some(id)) => is_bound(ctx, id),
            (_, None) => false,
        };
        (true, kept)
    }

    /// What lost its tuple to a session of another group is here as soon as that one has gone. Until then it is missing, but
    /// nothing of its slot is said to be: it cannot be had.
    pub(super) fn after_conflict(&mut self, ctx: &mut Ctx<'_>, group: GroupId, slot: u16) {
        let holder = self.group(group).map(|g| g.epoch.holder);
        if let Some(holder) = holder.filter(|h| *h != self.id) {
            let when = ctx.now + CONFLICT_AGAIN;
            self.pull(ctx, group, holder, Purpose::Repair, PullMode::Replace, slot, when);
        }
    }

    pub(super) fn count_applied(&mut self, ctx: &mut Ctx<'_>, applied: Applied, as_what: SyncCount) {
        ctx.count(match applied {
            Applied::Now(_) => as_what,
            Applied::Older(_) => SyncCount::Older,
            Applied::Conflict => SyncCount::Conflict,
            Applied::Refused => SyncCount::Refused,
            Applied::Invalid => SyncCount::Invalid,
        });
    }

    /// Applies a session's record, if it is newer than what is here.
    pub(super) fn apply(
        &mut self,
        ctx: &mut Ctx<'_>,
        place: usize,
        group: GroupId,
        version: u64,
        record: &SessionRecord,
    ) -> Applied {
        let mut record = *record;
        resolve(ctx, &mut record.conn);
        let c = record.conn;
        let bucket = self.buckets[place];
        if c.client.is_ipv4() != c.vip.is_ipv4()
            || c.server.is_ipv4() != c.local.is_ipv4()
            || self.bucket_of(&c.inbound()) != bucket
            || self.bucket_of(&c.outbound()) != bucket
        {
            return Applied::Invalid;
        }
        let new = self.epochs.version(version);
        if self
            .tomb(ctx, group, &c.inbound())
            .is_some_and(|t| self.tomb_version(ctx, t) >= new)
        {
            return Applied::Older(None);
        }
        let inbound = ctx.table.lookup(&c.inbound());
        let outbound = ctx
            .table
            .lookup(&c.outbound())
            .filter(|o| Some(o.0) != inbound.map(|i| i.0));
        for (found, by) in [(inbound, Direction::Inbound), (outbound, Direction::Outbound)] {
            let Some((id, _)) = found else { continue };
            match self.in_the_way(ctx, (id, by), group, new, c.state) {
                InTheWay::Yields => {}
                InTheWay::Newer => {
                    let same = ctx.table.view(id).is_some_and(|v| is_same(&v.init, &c));
                    return Applied::Older(same.then_some(id));
                }
                InTheWay::Stays => return Applied::Conflict,
            }
        }
        if let Some((id, Direction::Inbound)) = inbound
            && ctx.table.view(id).is_some_and(|v| is_same(&v.init, &c))
            && ctx
                .table
                .meta(id)
                .is_some_and(|m| self.epochs.group(m.version) == Some(group))
        {
            return self.change(ctx, id, version, &record);
        }
        for (id, _) in [inbound, outbound].into_iter().flatten() {
            let loser = ctx.table.meta(id).and_then(|m| self.epochs.group(m.version));
            let slot = ctx.table.inbound(id).map(|t| ctx.table.slot_of(&t));
            self.drop_conn(ctx, id, Some(CloseReason::Superseded));
            // Its holder may find otherwise: what won here may have ended before it is heard there.
            if let Some((loser, slot)) = loser.filter(|l| *l != group).zip(slot) {
                self.after_conflict(ctx, loser, slot);
            }
        }
        self.install(ctx, version, &record)
    }

    /// What a conn that shares a tuple with a record is to it.
    fn in_the_way(
        &self,
        ctx: &Ctx<'_>,
        (id, by): (ConnId, Direction),
        group: GroupId,
        new: Version,
        state: ConnState,
    ) -> InTheWay {
        let Some(meta) = ctx.table.meta(id) else {
            return InTheWay::Yields;
        };
        let theirs = self.epochs.group(meta.version);
        if theirs == Some(group) {
            let here = self.epochs.version(meta.version);
            let held = self.group(group).is_some_and(|g| g.role.is_holder());
            let doubted = meta.flags & flag::UNTOLD != 0 || self.is_unequal(ctx, id, group);
            let replaced = here == new && !held && doubted;
            return if here < new || replaced || planted::has(Bug::VersionCheck) {
                InTheWay::Yields
            } else {
                InTheWay::Newer
            };
        }
        if by == Direction::Outbound {
            return InTheWay::Stays;
        }
        let here = ConnState::from_u8(meta.state).map_or(0, rank);
        // What is not replicated has no group, and yields to what is further only.
        let lower = theirs.is_some_and(|theirs| group < theirs);
        if rank(state) > here || rank(state) == here && lower {
            InTheWay::Yields
        } else {
            InTheWay::Stays
        }
    }

    /// Whether the slot of a conn was found not to be what its holder told, and has not been found to be it since.
    fn is_unequal(&self, ctx: &Ctx<'_>, id: ConnId, group: GroupId) -> bool {
        self.group(group).is_some_and(|g| {
            !g.unequal.is_empty()
                && ctx
                    .table
                    .inbound(id)
                    .is_some_and(|t| g.unequal.has(ctx.table.slot_of(&t)))
        })
    }

    /// A newer record of a session that is here.
    fn change(&mut self, ctx: &mut Ctx<'_>, id: ConnId, version: u64, record: &SessionRecord) -> Applied {
        match record.ext() {
            Some(ext) if !ctx.table.set_ext(id, ext) => return Applied::Refused,
            Some(_) => {}
            None => ctx.table.clear_ext(id),
        }
        let Some(meta) = ctx.table.meta_mut(id) else {
            return Applied::Refused;
        };
        let (from, to) = (usize::from(meta.state), record.conn.state);
        meta.state = to as u8;
        (meta.service, meta.server) = (record.conn.service.0, record.conn.server_id.0);
        let said = flag::ESTABLISHED | flag::CLOSED | flag::INBOUND_ONLY;
        meta.flags = meta.flags & !flag::RESTARTED & !said | record.flags();
        ctx.counters.by_state[from] -= 1;
        ctx.counters.by_state[to as usize] += 1;
        self.set_version(ctx.table, id, version);
        self.digest(ctx.table, id, None);
        self.set_time(ctx, id, record.remaining);
        Applied::Now(id)
    }

    fn install(&mut self, ctx: &mut Ctx<'_>, version: u64, record: &SessionRecord) -> Applied {
        let v6 = !(record.conn.client.is_ipv4() && record.conn.server.is_ipv4());
        let now = ctx.now.tick();
        let ttl_max_ms = TIMEOUT_MAX.as_millis() as u64;
        let mut installed = record.install(ctx.table, true, now, ttl_max_ms);
        if matches!(installed, Err(InstallError::Full(_))) && self.evict_tomb(ctx, v6) {
            installed = record.install(ctx.table, true, now, ttl_max_ms);
        }
        match installed {
            Ok(id) => {
                ctx.counters.opened += 1;
                ctx.counters.by_state[record.conn.state as usize] += 1;
                self.set_version(ctx.table, id, version);
                self.digest(ctx.table, id, None);
                self.set_time(ctx, id, record.remaining);
                Applied::Now(id)
            }
            Err(InstallError::Full(_) | InstallError::ExtFull) => Applied::Refused,
            Err(_) => Applied::Invalid,
        }
    }

    /// Gives a conn the time that its holder says it has, and has the wheel look at it.
    pub(super) fn set_time(&mut self, ctx: &mut Ctx<'_>, id: ConnId, remaining: Duration) {
        let remaining = u64::try_from(remaining.min(TIMEOUT_MAX).as_millis()).unwrap_or(0);
        let deadline = ctx.now.tick() + remaining;
        let replica = ctx.table.meta(id).is_some_and(|m| !self.advances(m.version));
        let Some(meta) = ctx.table.meta_mut(id) else {
            return;
        };
        meta.deadline = deadline as u32;
        if replica && meta.flags & flag::DIRTY == 0 {
            meta.dirty_link = deadline as u32;
        }
        let look = if replica {
            ctx.now.tick() + (remaining / 2).max(1)
        } else {
            deadline
        };
        ctx.table.arm(id, look);
    }

    /// A session is over, by its holder.
    pub(super) fn close(
        &mut self,
        ctx: &mut Ctx<'_>,
        place: usize,
        (group, version): (GroupId, u64),
        tuple: &Tuple,
        in_order: bool,
    ) -> Applied {
        if self.bucket_of(tuple) != self.buckets[place] || tuple.src.is_ipv4() != tuple.dst.is_ipv4() {
            return Applied::Invalid;
        }
        let new = self.epochs.version(version);
        let slot = ctx.table.slot_of(tuple);
        let pulled = self.flights.iter().any(|f| f.group == group && f.slot == slot);
        let keep = !in_order || pulled || self.group(group).is_some_and(|g| !g.is_merged());
        let keep = keep && !planted::has(Bug::Tombstone);
        if let Some(tomb) = self.tomb(ctx, group, tuple) {
            if self.tomb_version(ctx, tomb) >= new {
                return Applied::Older(None);
            }
            self.set_version(ctx.table, tomb, version);
            return Applied::Now(tomb);
        }
        let found = ctx
            .table
            .lookup(tuple)
            .filter(|(id, direction)| {
                *direction == Direction::Inbound
                    && ctx
                        .table
                        .meta(*id)
                        .is_some_and(|m| self.epochs.group(m.version) == Some(group))
            })
            .map(|(id, _)| id);
        match found {
            Some(id)
                if ctx
                    .table
                    .meta(id)
                    .is_some_and(|m| self.epochs.version(m.version) >= new) =>
            {
                Applied::Older(Some(id))
            }
            Some(id) if keep => {
                self.count_gone(ctx, id);
                self.undigest(ctx.table, id);
                self.set_version(ctx.table, id, version);
                if ctx.table.bury(id) {
                    self.epochs.bury(index_of(version));
                    self.keep_received(ctx, place, id);
                }
                Applied::Now(id)
            }
            Some(id) => {
                self.drop_conn(ctx, id, None);
                Applied::Now(id)
            }
            None if keep => {
                let v6 = tuple.src.is_ipv6();
                let tomb = ctx.table.insert_tomb(tuple).or_else(|| {
                    self.evict_tomb(ctx, v6)
                        .then(|| ctx.table.insert_tomb(tuple))
                        .flatten()
                });
                let Some(tomb) = tomb else { return Applied::Refused };
                if let Some(meta) = ctx.table.meta_mut(tomb) {
                    meta.version = version;
                }
                self.epochs.name_tomb(index_of(version));
                self.keep_received(ctx, place, tomb);
                Applied::Now(tomb)
            }
            // Nothing older can come.
            None => Applied::Older(None),
        }
    }

    /// The tombstone of a session of a group.
    pub(super) fn tomb(&self, ctx: &Ctx<'_>, group: GroupId, inbound: &Tuple) -> Option<ConnId> {
        if ctx.table.tomb_count() == 0 {
            return None;
        }
        let slot = ctx.table.slot_of(inbound);
        let tombs = ctx.table.slot_tail(slot, usize::MAX).filter(|id| {
            ctx.table.is_tomb(*id)
                && ctx
                    .table
                    .meta(*id)
                    .is_some_and(|m| self.epochs.group(m.version) == Some(group))
                && ctx.table.inbound(*id).as_ref() == Some(inbound)
        });
        tombs.max_by_key(|id| self.tomb_version(ctx, *id))
    }

    /// Of a tombstone that is not told yet: later than all.
    fn tomb_version(&self, ctx: &Ctx<'_>, tomb: ConnId) -> Version {
        let Some(meta) = ctx.table.meta(tomb) else {
            return Version::default();
        };
        let mut version = self.epochs.version(meta.version);
        if meta.flags & flag::DIRTY != 0 && self.advances(meta.version) {
            version.lsn = super::LSN_MAX;
        }
        version
    }

    /// Counts a conn that leaves the table for a reason that came from another node.
    fn count_gone(&mut self, ctx: &mut Ctx<'_>, id: ConnId) {
        if let Some(meta) = ctx.table.meta(id) {
            ctx.counters.by_state[usize::from(meta.state)] -= 1;
            ctx.counters.removed += 1;
        }
    }

    /// Takes a conn out for a reason that came from another node.
    pub(super) fn drop_conn(&mut self, ctx: &mut Ctx<'_>, id: ConnId, close: Option<CloseReason>) {
        self.count_gone(ctx, id);
        self.take_out(ctx, id, close);
    }

    /// What becomes of a conn whose turn in the wheel has come.
    pub(crate) fn on_timer(&mut self, ctx: &mut Ctx<'_>, id: ConnId) -> TimerTurn {
        let now = ctx.now.tick();
        let deadline = ctx.table.deadline(id);
        let Some(meta) = ctx.table.meta(id).copied() else {
            return TimerTurn::Nothing;
        };
        let role = self.group_of(meta.version).map(|g| g.role);
        let holder = index_of(meta.version) == LOCAL || role.is_none_or(Role::is_holder);
        if holder {
            return if deadline > now {
                TimerTurn::Again(deadline)
            } else if self.may_delete(ctx.table, id, ctx.now) {
                TimerTurn::Expire
            } else {
                TimerTurn::Again(now + UNCERTAIN_AGAIN_MS)
            };
        }
        let state = ConnState::from_u8(meta.state).unwrap_or_default();
        let half = u64::from(ctx.timeout_ms(meta.service, state)) / 2;
        if meta.flags & flag::DIRTY == 0 && meta.dirty_link != meta.deadline {
            if let Some(meta) = ctx.table.meta_mut(id) {
                meta.dirty_link = meta.deadline;
                meta.flags &= !flag::RESTARTED;
            }
            self.hint_traffic(ctx, id);
        }
        if role == Some(Role::Orphan) && now >= deadline.saturating_add(ORPHAN_MS) {
            ctx.count(SyncCount::OrphansEvicted);
            self.drop_conn(ctx, id, None);
            return TimerTurn::Nothing;
        }
        // Once in the midst of its time, so that a hint comes in good time, and once at its end.
        let middle = deadline.saturating_sub(half);
        let when = if middle > now {
            middle
        } else if deadline > now {
            deadline
        } else {
            now + half.max(UNCERTAIN_AGAIN_MS)
        };
        TimerTurn::Again(when)
    }
}

/// What becomes of a conn whose turn in the wheel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerTurn {
    /// It expires.
    Expire,
    /// It is looked at again at this tick.
    Again(u64),
    /// It is gone.
    Nothing,
}

/// A slot whose record found no room is pulled after so long.
pub(super) const REFUSED_AGAIN: Duration = Duration::from_millis(100);
/// What lost its tuple to another session is asked for again after so long.
const CONFLICT_AGAIN: Duration = Duration::from_secs(1);
/// A conn that may not be deleted is looked at again after so long.
const UNCERTAIN_AGAIN_MS: u64 = 200;
/// Sessions that nobody holds end so long after their timeout.
const ORPHAN_MS: u64 = 15 * 60 * 1000;

impl SessionRecord {
    /// The flags of its conn.
    fn flags(&self) -> u8 {
        let mut flags = 0;
        for (is, bit) in [
            (self.was_established, flag::ESTABLISHED),
            (self.was_closed, flag::CLOSED),
            (self.inbound_only, flag::INBOUND_ONLY),
        ] {
            if is {
                flags |= bit;
            }
        }
        flags
    }
}

/// Whether two sessions have the same ends.
fn is_same(a: &ConnInit, b: &ConnInit) -> bool {
    a.inbound() == b.inbound() && a.outbound() == b.outbound()
}

/// Whether a conn's server is in the config.
fn is_bound(ctx: &Ctx<'_>, id: ConnId) -> bool {
    let server = ctx.table.meta(id).map(|m| RealServerId(m.server));
    server.is_some_and(|id| ctx.snapshot.server(id).is_some())
}

/// Service and server by their ends, where a record does not name them. What is not configured here keeps the
/// number that is nobody's: it is forwarded by the routes, and lives by the default timeouts.
fn resolve(ctx: &Ctx<'_>, c: &mut ConnInit) {
    if c.service != SERVICE_UNRESOLVED {
        return;
    }
    let Some(service) = ctx.snapshot.service_at(c.vip.ip(), c.vip.port(), c.proto) else {
        return;
    };
    c.service = service.id;
    let is = |s: &&crate::service::RealServer| (s.addr, s.port) == (c.server.ip(), c.server.port());
    if let Some(server) = service.servers.iter().find(is) {
        c.server_id = server.id;
    }
}
