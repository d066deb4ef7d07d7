//! Digests: whether a replica has what its holder told.
//!
//! Of each slot of a group a node keeps how many sessions it has, and the sum of their keyed hashes. What a session adds lies in
//! its conn, and is taken out again when the conn changes or goes: O(1), at a record that is told and at one that is applied.
//! A sum knows no order, so that those of two nodes are equal if their sessions are.
//!
//! ```text
//!  holder                                                   replica
//!  a bucket of which nothing waits to be told
//!      ── DIGEST(last LSN, sums of slots) ──>  has all up to that LSN, and nothing beyond?
//!                                                  no: skipped         equal: well
//!                                                  unequal: the slot is pulled, and what comes of the same
//!      <── PULL (replace) ──────────────────       version replaces what is here
//! ```
//!
//! A sum tells what was told and applied, not what has become of it in memory. So conns are looked at in turn, a few at a time:
//! one that is no longer what it adds is told again by its holder, and at a replica its sum becomes that of what is here,
//! which the next DIGEST finds.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use super::epochs::{LOCAL, index_of, lsn_of};
use super::state::{Ctx, Group, Sync, SyncOutcome};
use super::{DIGEST_SLOT_COUNT_MAX, LSN_MAX, Lsn, SessionRecord, SlotDigest, SyncBody, SyncMessage, Version};
use crate::cluster::{Epoch, GroupId, PeerId};
use crate::conn::{ConnId, ConnTable, SLOT_COUNT, flag, wide};
use crate::hash::WordHasher;
use crate::proto::ConnState;
use crate::stats::SyncCount;
use crate::time::Instant;

/// Heartbeats from one telling of a slot to the next, unless there are more slots than [`TELL_COUNT_MAX`] allows: 4 s.
const ROUND_BEATS: usize = 40;
/// Slots that a worker tells between two heartbeats, at most. With 64 groups held by one node of one worker a round takes 103 s.
const TELL_COUNT_MAX: usize = 256;
/// Conns that are looked at between two heartbeats, at most.
const LOOK_COUNT_MAX: usize = 256;
/// Slots that are looked at between two heartbeats, at most: those of an empty table in 4 s.
const LOOK_SLOT_COUNT_MAX: usize = SLOT_COUNT.div_ceil(ROUND_BEATS);

/// What slots that were pulled had beyond a DIGEST keeps it from being compared for so long: no longer is it on its way.
const PULLED_COUNTS: Duration = Duration::from_secs(1);

/// What is here of a slot of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    count: u32,
    hash: u64,
}

impl Sum {
    fn add(&mut self, hash: u64) {
        if hash != 0 {
            self.count += 1;
            self.hash = self.hash.wrapping_add(hash);
        }
    }

    fn take(&mut self, hash: u64) {
        if hash != 0 {
            debug_assert!(self.count > 0, "what is taken out was added");
            self.count = self.count.saturating_sub(1);
            self.hash = self.hash.wrapping_sub(hash);
        }
    }
}

/// What a worker needs for digests beside the sums, which groups have.
#[derive(Debug)]
pub(super) struct Digests {
    hasher: WordHasher,
    /// Where the telling is: place of the group, of the bucket, slot within that.
    group: usize,
    place: usize,
    at: usize,
    /// Slots that may be told before the next heartbeat.
    budget: usize,
    /// Nothing was told since the last heartbeat, as the bucket had something to tell.
    waits: bool,
    /// Where the look at conns is: place of the bucket, slot within that, conns of it that were not looked at.
    look: (usize, usize, Option<usize>),
}

impl Digests {
    pub(super) fn new(cluster: u32) -> Self {
        Digests {
            hasher: WordHasher::new(key_of(cluster)),
            group: 0,
            place: 0,
            at: 0,
            budget: 0,
            waits: false,
            look: (0, 0, None),
        }
    }
}

/// The key of digests, the same on all nodes of a cluster while its secrets change. It makes sums of several clusters different, and is no
/// secret: to make two sets with one sum a client would have to choose local ends and versions, too.
fn key_of(cluster: u32) -> u64 {
    u64::from(cluster) << 32 | 0x6469_6765
}

/// Words of a session, by four: two always, one for each side that is IPv6, one for rarer state.
const WORDS_MAX: usize = 5;

/// What a session adds to its slot's sum: all of it that a replica needs to forward and to take over, but the time that is left.
/// Services and servers have a number of their own on each node: their addresses are in it. Never 0, which is no session.
fn hash(hasher: &WordHasher, group: GroupId, version: Version, session: &SessionRecord) -> u64 {
    let c = &session.conn;
    let ports = [c.client, c.vip, c.server, c.local].map(|end| u64::from(end.port()));
    let isn = |isn: Option<u32>| u64::from(isn.unwrap_or_default());
    let scale = |scale: Option<u8>| scale.map_or(0, |s| u64::from(s) + 1);
    let rare = session.deltas.is_some() || session.isns.client.is_some() || session.isns.server.is_some();
    // Which of the words below are there, too.
    let bits = u64::from(c.client.is_ipv4())
        | u64::from(c.server.is_ipv4()) << 1
        | u64::from(session.was_established) << 2
        | u64::from(session.was_closed) << 3
        | u64::from(session.inbound_only) << 4
        | u64::from(session.deltas.is_some()) << 5
        | u64::from(session.isns.client.is_some()) << 6
        | u64::from(session.isns.server.is_some()) << 7;
    let kind = u64::from(c.proto.ip_proto()) | (c.state as u64) << 8 | (session.mode as u64) << 16;
    let scales = scale(session.window_scales.client) | scale(session.window_scales.server) << 8;
    let mut words = [[0; 4]; WORDS_MAX];
    let mut len = 2;
    for (side, (a, b)) in [(c.client.ip(), c.vip.ip()), (c.server.ip(), c.local.ip())]
        .into_iter()
        .enumerate()
    {
        match (a, b) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                words[0][side] = u64::from(a.to_bits()) << 32 | u64::from(b.to_bits());
            }
            (a, b) => {
                let (a, b) = (u128::from_be_bytes(wide(a)), u128::from_be_bytes(wide(b)));
                words[len] = [(a >> 64) as u64, a as u64, (b >> 64) as u64, b as u64];
                len += 1;
            }
        }
    }
    words[0][2] = ports[0] << 48 | ports[1] << 32 | ports[2] << 16 | ports[3];
    words[0][3] = kind | bits << 32 | scales << 48;
    words[1] = [
        version.epoch.term,
        version.epoch.holder.incarnation.0,
        u64::from(version.epoch.holder.node.0) << 48 | version.lsn,
        group.generation ^ u64::from(group.node.0) << 48,
    ];
    if rare {
        let deltas = session.deltas.unwrap_or_default();
        words[len] = [
            u64::from(deltas.inbound) << 32 | u64::from(deltas.outbound),
            isn(session.isns.client) << 32 | isn(session.isns.server),
            0,
            0,
        ];
        len += 1;
    }
    hasher.hash(&words[..len]).max(1)
}

impl Sync {
    /// Room for the sums of a group: 16 bytes a slot of this worker's buckets, 64 KiB a group and node, 4 MiB for all 64.
    pub(super) fn sums(&self) -> Box<[Sum]> {
        alloc::vec![Sum::default(); self.buckets.len() * self.slots_per_bucket()].into_boxed_slice()
    }

    fn slots_per_bucket(&self) -> usize {
        SLOT_COUNT / usize::from(self.steering.buckets())
    }

    /// Place of a slot's sum; `None`: it is another worker's.
    fn sum_at(&self, slot: u16) -> Option<usize> {
        let place = self.place(self.bucket_of_slot(slot))?;
        Some(place * self.slots_per_bucket() + usize::from(slot / self.steering.buckets()))
    }

    fn sum_mut(&mut self, group: GroupId, slot: u16) -> Option<&mut Sum> {
        let at = self.sum_at(slot)?;
        self.group_mut(group)?.sums.get_mut(at)
    }

    /// What a conn adds as it is; 0: nobody was told of it.
    fn hash_of(&self, table: &ConnTable, id: ConnId, session: Option<&SessionRecord>) -> u64 {
        let Some(version) = table.meta(id).map(|m| m.version) else {
            return 0;
        };
        let Some(group) = self.epochs.group(version).filter(|_| lsn_of(version) != 0) else {
            return 0;
        };
        let read;
        let session = match session {
            Some(session) => Some(session),
            None => {
                read = SessionRecord::of(table, id);
                read.as_ref()
            }
        };
        session.map_or(0, |session| {
            hash(&self.digests.hasher, group, self.epochs.version(version), session)
        })
    }

    /// A session was told, or applied: its slot's sum has it as it is now. `session`: its record, if that is known.
    pub(super) fn digest(&mut self, table: &mut ConnTable, id: ConnId, session: Option<&SessionRecord>) {
        let new = self.hash_of(table, id, session);
        self.put_digest(table, id, new);
    }

    /// A session goes.
    pub(super) fn undigest(&mut self, table: &mut ConnTable, id: ConnId) {
        self.put_digest(table, id, 0);
    }

    fn put_digest(&mut self, table: &mut ConnTable, id: ConnId, new: u64) {
        let Some(meta) = table.meta_mut(id).filter(|m| m.digest != new) else {
            return;
        };
        let old = core::mem::replace(&mut meta.digest, new);
        let group = self.epochs.group(meta.version);
        let slot = table.inbound(id).map(|t| table.slot_of(&t));
        let Some((group, slot)) = group.zip(slot) else {
            return;
        };
        if let Some(sum) = self.sum_mut(group, slot) {
            sum.take(old);
            sum.add(new);
        }
    }

    /// What is here of a slot.
    pub(crate) fn digest_of(&self, group: GroupId, slot: u16) -> Option<SlotDigest> {
        let sum = *self.group(group)?.sums.get(self.sum_at(slot)?)?;
        Some(SlotDigest {
            slot,
            count: sum.count,
            hash: sum.hash,
        })
    }

    /// Whether this node tells digests of a bucket of a group.
    fn tells_digests(&self, g: &Group) -> bool {
        g.role.is_holder() && g.epoch.holder == self.id
    }

    /// A heartbeat: so many slots may be told until the next one, and conns are looked at.
    pub(super) fn beat_digests(&mut self, ctx: &mut Ctx<'_>) {
        let groups = self.groups.iter().filter(|g| self.tells_digests(g)).count();
        let slots = groups * self.buckets.len() * self.slots_per_bucket();
        let d = &mut self.digests;
        d.budget = slots.div_ceil(ROUND_BEATS).min(TELL_COUNT_MAX);
        if core::mem::replace(&mut d.waits, slots > 0) {
            // What is always about to be told something of comes in the next round.
            (d.place, d.at) = (d.place + 1, 0);
        }
        self.look_at_conns(ctx);
    }

    /// The next DIGEST, if one is due and nothing of its bucket waits to be told.
    pub(super) fn poll_digest(&mut self, ctx: &mut Ctx<'_>) -> Option<SyncMessage> {
        if self.digests.budget == 0 || self.peers.is_empty() {
            return None;
        }
        let per_bucket = self.slots_per_bucket();
        loop {
            let d = &self.digests;
            let Some(g) = self.groups.get(d.group) else {
                // The round has ended. The next one begins with the next heartbeat.
                let d = &mut self.digests;
                (d.group, d.place, d.at, d.budget, d.waits) = (0, 0, 0, 0, false);
                return None;
            };
            if !self.tells_digests(g) || d.place >= self.buckets.len() {
                let d = &mut self.digests;
                (d.group, d.place, d.at) = (d.group + 1, 0, 0);
                continue;
            }
            if g.merged[d.place] != g.epoch || d.at >= per_bucket {
                let d = &mut self.digests;
                (d.place, d.at) = (d.place + 1, 0);
                continue;
            }
            let ring = &self.rings[d.place];
            if ring.dirty_len > 0 {
                return None;
            }
            let bucket = self.buckets[d.place];
            let count = (per_bucket - d.at).min(DIGEST_SLOT_COUNT_MAX).min(d.budget);
            let sums = &g.sums[d.place * per_bucket + d.at..][..count];
            let slots = (d.at..).zip(sums).map(|(n, sum)| SlotDigest {
                slot: bucket + (n * usize::from(self.steering.buckets())) as u16,
                count: sum.count,
                hash: sum.hash,
            });
            let body = SyncBody::Digest {
                group: g.id,
                epoch: g.epoch,
                last: ring.last,
                slots: slots.collect(),
            };
            let d = &mut self.digests;
            (d.at, d.budget, d.waits) = (d.at + count, d.budget - count, false);
            ctx.counters.sync[SyncCount::DigestTold as usize] += count as u64;
            return Some(SyncMessage {
                from: self.id,
                bucket,
                ack_now: false,
                body,
            });
        }
    }

    /// A holder says what it has told of some slots.
    pub(super) fn handle_digest(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: PeerId,
        place: usize,
        (group, epoch): (GroupId, Epoch),
        last: Lsn,
        slots: &[SlotDigest],
    ) -> SyncOutcome {
        let bucket = self.buckets[place];
        let of_bucket = |s: &SlotDigest| s.slot < SLOT_COUNT as u16 && self.bucket_of_slot(s.slot) == bucket;
        if slots.len() > DIGEST_SLOT_COUNT_MAX || last > LSN_MAX || !slots.iter().all(of_bucket) {
            ctx.count(SyncCount::Invalid);
            return SyncOutcome::Ignored(SyncCount::Invalid);
        }
        if !self.is_comparable(ctx.now, from, place, (group, epoch), last) {
            ctx.counters.sync[SyncCount::DigestSkipped as usize] += slots.len() as u64;
            return SyncOutcome::Ignored(SyncCount::DigestSkipped);
        }
        for told in slots {
            let Some(here) = self.digest_of(group, told.slot) else {
                continue;
            };
            let is_waited_for = here != *told && self.is_slot_waited_for(group, told.slot);
            let Some(g) = self.group_mut(group) else { break };
            // What went here by this node's own decision may be on its way to the holder: once.
            let settles = g.left.has(told.slot);
            g.left.clear(told.slot);
            if here == *told {
                if g.unequal.has(told.slot) {
                    g.unequal.clear(told.slot);
                    ctx.count(SyncCount::DigestRepaired);
                }
                ctx.count(SyncCount::DigestEqual);
            } else if settles || is_waited_for {
                ctx.count(SyncCount::DigestSkipped);
            } else {
                ctx.count(SyncCount::DigestUnequal);
                self.heal(ctx, group, told.slot, last);
            }
        }
        SyncOutcome::Taken
    }

    /// A conn goes by this node's own decision, though another one holds it: that one will have heard of it when it tells of
    /// the slot next, but for what was on its way.
    pub(super) fn left(&mut self, ctx: &Ctx<'_>, id: ConnId) {
        let version = ctx.table.meta(id).map_or(0, |m| m.version);
        let slot = ctx.table.inbound(id).map(|t| ctx.table.slot_of(&t));
        let group = self.epochs.group(version).and_then(|g| self.group_mut(g));
        if let Some((g, slot)) = group.zip(slot) {
            g.left.set(slot);
        }
    }

    /// Whether what is here of a bucket should be what its holder had told up to an LSN: all of that was applied, and nothing
    /// after it.
    fn is_comparable(
        &self,
        now: Instant,
        from: PeerId,
        place: usize,
        (group, epoch): (GroupId, Epoch),
        last: Lsn,
    ) -> bool {
        let knows = self.group(group).is_some_and(|g| {
            g.epoch == epoch && epoch.holder == from && g.merged[place] == epoch && g.complete
        });
        let has = |rx: &super::rx::Rx| {
            let applied = rx.mark.contiguous.max(rx.mark.highest());
            let pulled = rx
                .pulled
                .is_some_and(|(lsn, at)| lsn > last && now < at + PULLED_COUNTS);
            rx.known && rx.mark.contiguous == last && applied == last && rx.highest <= last && !pulled
        };
        knows && self.rx(from, place).is_some_and(has)
    }

    /// A slot is not what its holder told: it is pulled, and replaced by what comes.
    fn heal(&mut self, ctx: &mut Ctx<'_>, group: GroupId, slot: u16, last: Lsn) {
        let Some(g) = self.group_mut(group) else { return };
        g.unequal.set(slot);
        let epoch = g.epoch;
        // What its holder never said would stay, as newer than what it says.
        let made_up: Vec<ConnId> = ctx
            .table
            .slot_tail(slot, usize::MAX)
            .filter(|id| !ctx.table.is_tomb(*id))
            .filter(|id| {
                let version = ctx.table.meta(*id).map_or(0, |m| m.version);
                let of_group = self.epochs.group(version) == Some(group);
                let version = self.epochs.version(version);
                of_group
                    && (version.epoch > epoch || version.epoch.holder == epoch.holder && version.lsn > last)
            })
            .collect();
        for id in made_up {
            self.drop_conn(ctx, id, None);
        }
        if !self.repair(ctx, group, slot, ctx.now)
            && let Some(g) = self.group_mut(group)
        {
            // There are too many jobs: the next round finds it again.
            g.lacks.clear(slot);
        }
    }

    /// Looks at some conns: whether they still are what they add to their slots.
    fn look_at_conns(&mut self, ctx: &mut Ctx<'_>) {
        let (per_bucket, mut conns) = (self.slots_per_bucket(), LOOK_COUNT_MAX);
        for _ in 0..LOOK_SLOT_COUNT_MAX {
            let (place, at, rest) = self.digests.look;
            let Some(&bucket) = self.buckets.get(place) else {
                self.digests.look = (0, 0, None);
                return;
            };
            if at >= per_bucket {
                self.digests.look = (place + 1, 0, None);
                continue;
            }
            let slot = bucket + (at * usize::from(self.steering.buckets())) as u16;
            let len = ctx.table.slot_len(slot);
            let rest = rest.unwrap_or(len).min(len);
            let looked: Vec<ConnId> = ctx.table.slot_tail(slot, rest).take(conns).collect();
            for id in &looked {
                self.look_at(ctx, *id);
            }
            conns -= looked.len();
            let rest = rest - looked.len();
            self.digests.look = if rest > 0 {
                (place, at, Some(rest))
            } else {
                (place, at + 1, None)
            };
            if conns == 0 {
                return;
            }
        }
    }

    fn look_at(&mut self, ctx: &mut Ctx<'_>, id: ConnId) {
        let Some(meta) = ctx.table.meta(id).filter(|_| !ctx.table.is_tomb(id)).copied() else {
            return;
        };
        // What waits to be told differs from what was told.
        if meta.digest == 0 || meta.flags & flag::DIRTY != 0 {
            return;
        }
        if self.hash_of(ctx.table, id, None) == meta.digest {
            return;
        }
        ctx.count(SyncCount::DigestDrift);
        if self.advances(meta.version) {
            self.mark(ctx, id);
        } else {
            self.digest(ctx.table, id, None);
        }
    }

    /// Damages conns that others hold, a share of them in millionths, and tells nobody: in turn one goes, one gets another local
    /// port, and one another state. How many. For faults on purpose.
    pub(crate) fn damage(&mut self, ctx: &mut Ctx<'_>, share_ppm: u32) -> u64 {
        let (mut met, mut damaged) = (0u64, 0u64);
        for slot in 0..SLOT_COUNT as u16 {
            let ids: Vec<ConnId> = ctx.table.slot_tail(slot, usize::MAX).collect();
            for id in ids {
                let Some(meta) = ctx.table.meta(id).filter(|_| !ctx.table.is_tomb(id)).copied() else {
                    continue;
                };
                let local = index_of(meta.version) == LOCAL || lsn_of(meta.version) == 0;
                if local || meta.flags & flag::DIRTY != 0 || self.advances(meta.version) {
                    continue;
                }
                let before = met * u64::from(share_ppm) / 1_000_000;
                met += 1;
                if met * u64::from(share_ppm) / 1_000_000 == before {
                    continue;
                }
                match damaged % 3 {
                    0 => self.drop_conn(ctx, id, None),
                    1 if ctx.table.damage_local_port(id) => {}
                    _ => {
                        let from = ConnState::from_u8(meta.state).unwrap_or_default();
                        let to = match from {
                            ConnState::UdpNormal => ConnState::UdpOneWay,
                            ConnState::UdpOneWay => ConnState::UdpNormal,
                            ConnState::Close => ConnState::Established,
                            _ => ConnState::Close,
                        };
                        if let Some(meta) = ctx.table.meta_mut(id) {
                            meta.state = to as u8;
                        }
                        ctx.counters.by_state[from as usize] -= 1;
                        ctx.counters.by_state[to as usize] += 1;
                    }
                }
                damaged += 1;
            }
        }
        damaged
    }

    /// Checks that sums are those of what conns add, computed anew; for tests. Panics with what does not hold.
    pub(super) fn audit_digests(&self, table: &ConnTable) {
        for g in &self.groups {
            assert_eq!(g.sums.len(), self.buckets.len() * self.slots_per_bucket());
            let mut sums = self.sums();
            for &bucket in &self.buckets {
                for slot in self.slots_of(bucket) {
                    let ids = table.slot_tail(slot, usize::MAX);
                    let of_group = ids
                        .filter_map(|id| table.meta(id))
                        .filter(|m| self.epochs.group(m.version) == Some(g.id));
                    let at = self.sum_at(slot).expect("its bucket is this worker's");
                    of_group.for_each(|m| sums[at].add(m.digest));
                }
            }
            assert!(sums == g.sums, "sums of {:?} are those of its conns", g.id);
        }
    }

    /// Conns that are not what they add to their slots, though nothing of them waits to be told; for tests.
    pub(crate) fn drifted(&self, table: &ConnTable) -> usize {
        let slots = self.buckets.iter().flat_map(|b| self.slots_of(*b));
        let ids = slots.flat_map(|slot| table.slot_tail(slot, usize::MAX));
        let drifted = ids.filter(|id| {
            table.meta(*id).is_some_and(|m| {
                m.flags & flag::DIRTY == 0
                    && !table.is_tomb(*id)
                    && m.digest != self.hash_of(table, *id, None)
            })
        });
        drifted.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Incarnation, NodeId};
    use crate::conn::ConnInit;
    use crate::service::{FwdMode, RealServerId, ServiceId};
    use crate::sync::{Isns, SeqDeltas, WindowScales};
    use crate::tuple::L4Proto;
    use alloc::collections::BTreeSet;

    const GROUP: GroupId = GroupId {
        node: NodeId(1),
        generation: 5,
    };

    fn session() -> SessionRecord {
        let end = |s: &str| s.parse().expect("an end");
        SessionRecord {
            conn: ConnInit {
                proto: L4Proto::Tcp,
                client: end("192.0.2.1:40000"),
                vip: end("198.51.100.2:443"),
                server: end("10.0.0.3:8443"),
                local: end("10.0.0.4:1025"),
                service: ServiceId(1),
                server_id: RealServerId(2),
                state: ConnState::Established,
            },
            mode: FwdMode::FullNat,
            remaining: Duration::from_secs(9),
            was_established: true,
            was_closed: false,
            inbound_only: false,
            deltas: None,
            isns: Isns::default(),
            window_scales: WindowScales::default(),
        }
    }

    fn version(term: u64, node: u16, incarnation: u64, lsn: Lsn) -> Version {
        let holder = PeerId {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
        };
        Version {
            epoch: Epoch { term, holder },
            lsn,
        }
    }

    /// Each field by itself makes another hash, a digest of what a replica needs: but for what is each node's own.
    #[test]
    fn every_field_of_a_session_is_in_its_digest() {
        let hasher = WordHasher::new(key_of(7));
        let of = |change: &dyn Fn(&mut SessionRecord)| {
            let mut session = session();
            change(&mut session);
            hash(&hasher, GROUP, version(1, 2, 3, 4), &session)
        };
        let plain = of(&|_| {});
        let far = |s: &str| s.parse().expect("an end");
        let mut seen = BTreeSet::from([plain]);
        let changes: [&dyn Fn(&mut SessionRecord); 22] = [
            &|s| s.conn.proto = L4Proto::Udp,
            &|s| s.conn.client.set_port(1),
            &|s| s.conn.vip.set_port(1),
            &|s| s.conn.server.set_port(1),
            &|s| s.conn.local.set_port(1),
            &|s| s.conn.client = far("192.0.2.2:40000"),
            &|s| s.conn.vip = far("198.51.100.3:443"),
            &|s| s.conn.server = far("10.0.0.5:8443"),
            &|s| s.conn.local = far("10.0.0.5:1025"),
            &|s| s.conn.client = far("[::ffff:192.0.2.1]:40000"),
            &|s| s.conn.server = far("[::ffff:10.0.0.3]:8443"),
            &|s| s.conn.state = ConnState::FinWait,
            &|s| s.was_established = false,
            &|s| s.was_closed = true,
            &|s| s.inbound_only = true,
            &|s| s.deltas = Some(SeqDeltas::default()),
            &|s| {
                s.deltas = Some(SeqDeltas {
                    inbound: 1,
                    outbound: 0,
                })
            },
            &|s| {
                s.deltas = Some(SeqDeltas {
                    inbound: 0,
                    outbound: 1,
                })
            },
            &|s| s.isns.client = Some(0),
            &|s| s.isns.server = Some(0),
            &|s| s.window_scales.client = Some(0),
            &|s| s.window_scales.server = Some(0),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            assert!(seen.insert(of(change)), "change {n}");
        }
        let others = [(2, 2, 3, 4), (1, 1, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5)];
        for (term, node, incarnation, lsn) in others {
            let version = version(term, node, incarnation, lsn);
            assert!(seen.insert(hash(&hasher, GROUP, version, &session())));
        }
        let others = WordHasher::new(key_of(8));
        assert!(seen.insert(hash(&others, GROUP, version(1, 2, 3, 4), &session())));
        let own: [&dyn Fn(&mut SessionRecord); 3] = [
            &|s| s.conn.service = ServiceId(9),
            &|s| s.conn.server_id = RealServerId(9),
            &|s| s.remaining = Duration::ZERO,
        ];
        for change in own {
            assert_eq!(of(change), plain);
        }
    }

    #[test]
    fn a_digest_knows_no_order() {
        let (mut a, mut b) = (Sum::default(), Sum::default());
        for hash in [3, u64::MAX, 5] {
            a.add(hash);
        }
        for hash in [5, 7, 3, u64::MAX] {
            b.add(hash);
        }
        assert_ne!(a, b);
        b.take(7);
        assert_eq!(a, b);
        for hash in [3, 5, u64::MAX, 0] {
            a.take(hash);
        }
        assert_eq!(a, Sum::default());
    }
}
