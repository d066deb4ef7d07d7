//! The conn table of a worker: index, slabs, timers and slots, kept in step.

use alloc::sync::Arc;
use core::net::SocketAddr;

use bytemuck::{Pod, Zeroable};

use super::index::{Index, WAYS};
use super::slots::{CHUNK_LEN, Slots};
use super::{
    Bucket, CONN_COUNT_MAX, Candidates, Conn4, Conn6, ConnExt, ConnId, ConnInit, ConnMeta, ConnRef, ConnView,
    Hint, SLOT_COUNT, Slab, SlotChunk, TOMB, flag, narrow, wide,
};
use crate::hash::TupleHasher;
use crate::lport::Steering;
use crate::memory::{OutOfMemory, Region};
use crate::parse::{Key, joined, narrowed, ports, split, widened};
use crate::prefetch::prefetch;
use crate::proto::ConnState;
use crate::service::{RealServerId, ServiceId};
use crate::timer::{TimerLink, Wheel};
use crate::tuple::{Direction, Family, L4Proto, Tuple};

/// Share of the index that full slabs use, in 32nds: the index refuses only above 95 %, and lookups end in
/// the first bucket more often the emptier it is.
const INDEX_LOAD_32NDS: usize = 26;

/// Sizes of a table, all fixed at construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Conns with both sides IPv4.
    pub conns_v4: u32,
    /// Conns with an IPv6 side.
    pub conns_v6: u32,
    /// Conns with rarer state (sequence deltas).
    pub exts: u32,
}

impl TableSizes {
    const fn conns(&self) -> usize {
        self.conns_v4 as usize + self.conns_v6 as usize
    }

    const fn buckets(&self) -> usize {
        let entries = 2 * self.conns();
        let buckets = (entries * 32).div_ceil(INDEX_LOAD_32NDS * WAYS);
        if buckets == 0 { 1 } else { buckets }
    }

    /// Bytes of index, conns, timers and slots.
    pub const fn bytes(&self) -> usize {
        self.buckets() * size_of::<Bucket>()
            + self.conns_v4 as usize * size_of::<Conn4>()
            + self.conns_v6 as usize * size_of::<Conn6>()
            + self.exts as usize * size_of::<ConnExt>()
            + self.conns() * size_of::<TimerLink>()
            + Slots::chunks_for(self.conns()) * size_of::<SlotChunk>()
    }

    /// Whether conn numbers suffice for it.
    pub const fn is_valid(&self) -> bool {
        self.conns_v4 <= CONN_COUNT_MAX && self.conns_v6 <= CONN_COUNT_MAX && self.exts <= CONN_COUNT_MAX
    }
}

// What a session costs, with index, conn, timer and its place in a slot: at most 96 bytes for IPv4, 160 for IPv6.
const MANY: usize = 1_000_000;
const ONE_MILLION_V4: TableSizes = TableSizes {
    conns_v4: MANY as u32,
    conns_v6: 0,
    exts: 0,
};
const ONE_MILLION_V6: TableSizes = TableSizes {
    conns_v4: 0,
    conns_v6: MANY as u32,
    exts: 0,
};
const SLOT_ROUNDING: usize = SLOT_COUNT * size_of::<SlotChunk>();
const _: () = assert!(ONE_MILLION_V4.bytes() - SLOT_ROUNDING <= 96 * MANY);
const _: () = assert!(ONE_MILLION_V6.bytes() - SLOT_ROUNDING <= 160 * MANY);

/// Gives zeroed memory, faulted in if the giver can.
pub trait MemorySource {
    /// `len` zeroed elements.
    fn region<T: Pod>(&mut self, len: usize) -> Result<Region<T>, OutOfMemory>;
}

/// The memory of a table.
#[derive(Debug)]
pub struct TableMemory {
    sizes: TableSizes,
    buckets: Region<Bucket>,
    v4: Region<Conn4>,
    v6: Region<Conn6>,
    exts: Region<ConnExt>,
    timers: Region<TimerLink>,
    chunks: Region<SlotChunk>,
}

/// Memory from the heap.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapMemory;

impl MemorySource for HeapMemory {
    fn region<T: Pod>(&mut self, len: usize) -> Result<Region<T>, OutOfMemory> {
        Region::try_zeroed(len)
    }
}

impl TableMemory {
    /// Takes memory for a table of `sizes` (which are valid) from `source`.
    pub fn new(sizes: TableSizes, source: &mut impl MemorySource) -> Result<Self, OutOfMemory> {
        assert!(sizes.is_valid(), "conns of a table are numbered with 30 bits");
        Ok(TableMemory {
            sizes,
            buckets: source.region(sizes.buckets())?,
            v4: source.region(sizes.conns_v4 as usize)?,
            v6: source.region(sizes.conns_v6 as usize)?,
            exts: source.region(sizes.exts as usize)?,
            timers: source.region(sizes.conns())?,
            chunks: source.region(Slots::chunks_for(sizes.conns()))?,
        })
    }
}

/// What tells a conn from the one that had its place before, and from itself before it changed; see [`ConnTable::marks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnMark {
    /// Its place.
    pub id: ConnId,
    generation: u8,
    state: u8,
    version: u64,
}

/// What of a table is in use. An empty one, without tombstones, uses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableUse {
    /// Places of conns with both sides IPv4, and of their tombstones.
    pub v4: usize,
    /// Places of all others.
    pub v6: usize,
    /// Places of rarer state.
    pub exts: usize,
    /// Timers that are armed: one a conn.
    pub timers: usize,
    /// Chunks of the lists by slot.
    pub slot_chunks: usize,
}

/// Why a conn cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFull {
    /// Every place of the slab is taken.
    Slab,
    /// The index has no place for it: more than 95 % of it are used.
    Index,
}

/// Where a conn is put: in the index by both its tuples, and in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnPlaces {
    pub(crate) inbound: Candidates,
    pub(crate) outbound: Candidates,
    pub(crate) slot: u16,
}

/// Local ports that are tried for a conn that is damaged, at most: of 256 buckets a few fit.
const PORT_DAMAGE_MAX: u16 = 4096;

/// Conns that are taken out of the wheel at once.
const FIRED_MAX: usize = 16;

/// Ticks between the turns of those, at most.
const FIRED_SPAN: u64 = 1 << 24;

/// Conns whose turn has come.
#[derive(Debug)]
pub(crate) struct Fired {
    ids: [ConnId; FIRED_MAX],
    len: usize,
}

impl Fired {
    pub(crate) const NONE: Fired = Fired {
        ids: [ConnId::v4(0); FIRED_MAX],
        len: 0,
    };

    pub(crate) fn as_slice(&self) -> &[ConnId] {
        &self.ids[..self.len]
    }
}

/// The slot of a canonical hash.
#[inline]
pub(crate) fn slot_of_hash(canonical: u32) -> u16 {
    canonical as u16 & (SLOT_COUNT as u16 - 1)
}

/// See the module.
#[derive(Debug)]
pub struct ConnTable {
    sizes: TableSizes,
    hasher: TupleHasher,
    steering: Arc<Steering>,
    index: Index,
    pub(crate) v4: Slab<Conn4>,
    pub(crate) v6: Slab<Conn6>,
    pub(crate) exts: Slab<ConnExt>,
    wheel: Wheel,
    slots: Slots,
    /// Places that tombstones have, by slab.
    tombs: [u32; 2],
    /// The tick of the last call of its worker.
    now: u64,
}

impl ConnTable {
    /// A table over `memory`, whose hash is keyed with `seed`.
    pub fn new(memory: TableMemory, steering: Arc<Steering>, seed: u64) -> Self {
        ConnTable {
            sizes: memory.sizes,
            hasher: TupleHasher::new(seed),
            steering,
            index: Index::new(memory.buckets),
            v4: Slab::new(memory.v4),
            v6: Slab::new(memory.v6),
            exts: Slab::new(memory.exts),
            wheel: Wheel::new(memory.timers),
            slots: Slots::new(memory.chunks),
            tombs: [0; 2],
            now: 0,
        }
    }

    /// Says what time it is, in ticks; it never goes back.
    #[inline]
    pub(crate) fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// The tick that it is.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Conns in the table, tombstones not counted.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len() - self.tomb_count()
    }

    /// Places that closed sessions keep until all have heard of it.
    pub fn tomb_count(&self) -> usize {
        self.tombs[0] as usize + self.tombs[1] as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries of the index: two a conn.
    pub fn index_len(&self) -> usize {
        self.index.len()
    }

    /// Places of the index.
    pub fn index_capacity(&self) -> usize {
        self.index.capacity()
    }

    /// What of it is in use, beside the index. A few numbers are read.
    pub fn in_use(&self) -> TableUse {
        TableUse {
            v4: self.v4.len(),
            v6: self.v6.len(),
            exts: self.exts.len(),
            timers: self.wheel.len(),
            slot_chunks: self.slots.chunk_count(),
        }
    }

    /// Sizes that it was made with.
    pub fn sizes(&self) -> TableSizes {
        self.sizes
    }

    /// First tick at which [`ConnTable::pop_fired`] has something to do.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        self.wheel.next_tick()
    }

    /// The hasher of tuples.
    #[inline]
    pub(crate) fn hasher(&self) -> &TupleHasher {
        &self.hasher
    }

    #[inline]
    pub(crate) fn hash(&self, key: &Key) -> u64 {
        key.hash(&self.hasher)
    }

    #[inline]
    pub(crate) fn candidates(&self, hash: u64) -> Candidates {
        self.index.candidates(hash)
    }

    /// Where a key is looked up.
    #[inline]
    pub(crate) fn candidates_of(&self, key: &Key) -> Candidates {
        self.candidates(self.hash(key))
    }

    #[inline]
    pub(crate) fn prefetch_first(&self, at: Candidates) {
        self.index.prefetch(at.first);
    }

    /// Asks for the line of the second bucket.
    #[inline]
    pub(crate) fn prefetch_second(&self, at: Candidates) {
        self.index.prefetch(self.index.other(at.first, at.signature));
    }

    /// First stage of a lookup done ahead: a conn whose signature stands in the first bucket. Its lines are asked
    /// for; if there is none, some line is.
    #[inline]
    pub(crate) fn hint_first(&self, at: Candidates) -> Hint {
        let hint = self.index.hint(at.first, at.signature);
        // No branch on whether there is one, which is not known before the line is there, and cannot be predicted:
        // that would undo all that was begun meanwhile.
        self.prefetch_hinted(hint);
        hint
    }

    /// Second stage: a conn whose signature stands in the second bucket.
    #[inline]
    pub(crate) fn hint_second(&self, at: Candidates) -> Hint {
        let hint = self
            .index
            .hint(self.index.other(at.first, at.signature), at.signature);
        self.prefetch_hinted(hint);
        hint
    }

    #[inline]
    fn prefetch_hinted(&self, hint: Hint) {
        if hint.is_v6() {
            let conn = self.v6.line(hint.place());
            prefetch(conn);
            prefetch(conn.cast::<u8>().wrapping_add(64));
        } else {
            prefetch(self.v4.line(hint.place()));
        }
    }

    fn prefetch_conn(&self, id: ConnId) {
        self.prefetch_hinted(Hint::from_bits(id.with(Direction::Inbound).bits()));
    }

    /// Whether `conn` is what packets with this key belong to.
    #[inline]
    pub(crate) fn is(&self, conn: ConnRef, key: &Key) -> bool {
        let (id, direction) = (conn.id(), conn.direction() as usize);
        if id.is_v6() {
            self.v6.at(id.place()).is_some_and(|c| {
                c.addrs[direction] == key.addrs_wide()
                    && c.ports[direction] == key.ports
                    && c.meta.proto == key.proto
                    && c.family(conn.direction()) == key.family
            })
        } else {
            key.family == Family::V4
                && self.v4.at(id.place()).is_some_and(|c| {
                    c.addrs[direction] == key.addrs_v4()
                        && c.ports[direction] == key.ports
                        && c.meta.proto == key.proto
                })
        }
    }

    /// The conn that packets with this key belong to, and their direction.
    #[inline]
    pub(crate) fn find(&self, key: &Key, at: Candidates) -> Option<ConnRef> {
        self.index.find(at).find(|&conn| self.is(conn, key))
    }

    /// The conn of `tuple` and the direction in which the tuple runs.
    pub fn lookup(&self, tuple: &Tuple) -> Option<(ConnId, Direction)> {
        let key = Key::from_tuple(tuple);
        let conn = self.find(&key, self.candidates_of(&key))?;
        Some((conn.id(), conn.direction()))
    }

    /// Where a conn is put.
    pub(crate) fn places(&self, init: &ConnInit) -> ConnPlaces {
        let inbound = Key::from_tuple(&init.inbound());
        ConnPlaces {
            inbound: self.candidates_of(&inbound),
            outbound: self.candidates_of(&Key::from_tuple(&init.outbound())),
            slot: self.slot_of_key(&inbound),
        }
    }

    /// Adds a conn that expires at `deadline` (a tick). Neither of its tuples is in the table. Every failure
    /// leaves the table as it was.
    pub(crate) fn insert(&mut self, init: &ConnInit, deadline: u64) -> Result<ConnId, TableFull> {
        let places = self.places(init);
        self.insert_at(init, places, deadline)
    }

    /// [`ConnTable::insert`] where the places of the conn are known.
    pub(crate) fn insert_at(
        &mut self,
        init: &ConnInit,
        places: ConnPlaces,
        deadline: u64,
    ) -> Result<ConnId, TableFull> {
        debug_assert_eq!(places, self.places(init), "places are those of the conn");
        let ConnPlaces {
            inbound,
            outbound,
            slot,
        } = places;
        let client_family = Family::of(&init.client.ip());
        let server_family = Family::of(&init.server.ip());
        let narrow_conn = (client_family, server_family) == (Family::V4, Family::V4);
        let place = if narrow_conn {
            self.v4.next_free()
        } else {
            self.v6.next_free()
        }
        .ok_or(TableFull::Slab)?;
        let id = if narrow_conn {
            ConnId::v4(place)
        } else {
            ConnId::v6(place)
        };

        self.index
            .insert(inbound, id.with(Direction::Inbound))
            .map_err(|_| TableFull::Index)?;
        if self.index.insert(outbound, id.with(Direction::Outbound)).is_err() {
            self.index.remove(inbound, id.with(Direction::Inbound));
            return Err(TableFull::Index);
        }

        let ports = [
            ports(init.client.port(), init.vip.port()),
            ports(init.server.port(), init.local.port()),
        ];
        let mut meta = ConnMeta {
            proto: init.proto.ip_proto(),
            state: init.state as u8,
            deadline: deadline as u32,
            service: init.service.0,
            server: init.server_id.0,
            slot_link: self.slots.add(slot, id),
            ..ConnMeta::zeroed()
        };
        if narrow_conn {
            self.v4.take();
            if let Some(conn) = self.v4.at_mut(place) {
                meta.generation = conn.meta.generation.wrapping_add(1);
                let addrs = |tuple| Key::from_tuple(&tuple).addrs_v4();
                *conn = Conn4 {
                    addrs: [addrs(init.inbound()), addrs(init.outbound())],
                    ports,
                    meta,
                };
            }
        } else {
            self.v6.take();
            if client_family == Family::V4 {
                meta.flags |= flag::CLIENT_V4;
            }
            if server_family == Family::V4 {
                meta.flags |= flag::SERVER_V4;
            }
            if let Some(conn) = self.v6.at_mut(place) {
                meta.generation = conn.meta.generation.wrapping_add(1);
                let addrs = |tuple| Key::from_tuple(&tuple).addrs_wide();
                *conn = Conn6 {
                    addrs: [addrs(init.inbound()), addrs(init.outbound())],
                    ports,
                    meta,
                    ..Conn6::zeroed()
                };
            }
        }
        // Time may have passed by an idle wheel, or begin anywhere.
        self.wheel.skip_if_empty(self.now);
        self.wheel.arm(self.node(id), deadline);
        self.prefetch_free(narrow_conn);
        Ok(id)
    }

    /// Asks for the place that the next conn of this width takes.
    fn prefetch_free(&self, narrow_conn: bool) {
        let next = if narrow_conn {
            self.v4.next_free().map(ConnId::v4)
        } else {
            self.v6.next_free().map(ConnId::v6)
        };
        if let Some(id) = next {
            self.prefetch_conn(id);
            self.wheel.prefetch(self.node(id));
        }
    }

    /// Takes a conn out, with all that belongs to it. `false` if there is none.
    pub(crate) fn remove(&mut self, id: ConnId) -> bool {
        let Some(slot) = self.unlink(id) else {
            return false;
        };
        self.vacate(id, slot);
        true
    }

    /// Makes a tombstone of a conn: it keeps its place, its slot and its version, and no packet finds it. `false`
    /// if there is no conn.
    pub(crate) fn bury(&mut self, id: ConnId) -> bool {
        if self.unlink(id).is_none() {
            return false;
        }
        if let Some(meta) = self.meta_mut(id) {
            meta.proto |= TOMB;
        }
        self.tombs[usize::from(id.is_v6())] += 1;
        true
    }

    /// A tombstone of a session that was never a conn here: only the client's tuple is known of it.
    pub(crate) fn insert_tomb(&mut self, inbound: &Tuple) -> Option<ConnId> {
        let narrow_conn = Family::of(&inbound.src.ip()) == Family::V4;
        let addrs = [joined(wide(inbound.src.ip()), wide(inbound.dst.ip())), [0; 32]];
        let ports = [ports(inbound.src.port(), inbound.dst.port()), [0; 4]];
        let slot = self.slot_of(inbound);
        let id = if narrow_conn {
            ConnId::v4(self.v4.take()?)
        } else {
            ConnId::v6(self.v6.take()?)
        };
        let meta = ConnMeta {
            proto: inbound.proto.ip_proto() | TOMB,
            generation: self.meta(id)?.generation.wrapping_add(1),
            slot_link: self.slots.add(slot, id),
            ..ConnMeta::zeroed()
        };
        self.tombs[usize::from(id.is_v6())] += 1;
        if let Some(c) = self.v4.at_mut(id.place()).filter(|_| narrow_conn) {
            *c = Conn4 {
                addrs: addrs.map(narrowed),
                ports,
                meta,
            };
        }
        if let Some(c) = self.v6.at_mut(id.place()).filter(|_| !narrow_conn) {
            *c = Conn6 {
                addrs,
                ports,
                meta,
                ..Conn6::zeroed()
            };
        }
        Some(id)
    }

    /// Frees the place of a tombstone; `false` if it is none.
    pub(crate) fn free_tomb(&mut self, id: ConnId) -> bool {
        match self.keys(id) {
            Some([inbound, _]) if self.is_tomb(id) => {
                self.tombs[usize::from(id.is_v6())] -= 1;
                self.vacate(id, self.slot_of_key(&inbound));
                true
            }
            _ => false,
        }
    }

    /// Whether a tombstone has the place.
    pub(crate) fn is_tomb(&self, id: ConnId) -> bool {
        self.meta(id).is_some_and(|m| m.proto & TOMB != 0)
    }

    /// Whether tombstones have places of the slab of `id`'s kind.
    pub(crate) fn has_tombs(&self, v6: bool) -> bool {
        self.tombs[usize::from(v6)] > 0
    }

    /// Takes a conn out of index and wheel, and its rarer state away; returns its slot.
    fn unlink(&mut self, id: ConnId) -> Option<u16> {
        L4Proto::from_ip_proto(self.meta(id)?.proto)?;
        let [inbound, outbound] = self.keys(id)?;
        let slot = self.slot_of_key(&inbound);
        self.slots.prefetch_first(slot);
        let (first, second) = (self.candidates_of(&inbound), self.candidates_of(&outbound));
        let both = self.index.remove(first, id.with(Direction::Inbound))
            & self.index.remove(second, id.with(Direction::Outbound));
        debug_assert!(both, "both directions of a conn are in the index");
        self.wheel.disarm(self.node(id));
        let ext = core::mem::take(&mut self.meta_mut(id)?.ext);
        if let Some(place) = ext.checked_sub(1) {
            self.exts.give_back(place);
        }
        Some(slot)
    }

    /// Gives back the place and the place in its slot of what is in neither index nor wheel.
    fn vacate(&mut self, id: ConnId, slot: u16) {
        let Some(meta) = self.meta_mut(id) else { return };
        meta.proto = 0;
        let slot_link = meta.slot_link;
        if let Some(moved) = self.slots.remove(slot, slot_link)
            && let Some(meta) = self.meta_mut(moved)
        {
            meta.slot_link = slot_link;
        }
        if id.is_v6() {
            self.v6.give_back(id.place())
        } else {
            self.v4.give_back(id.place())
        }
    }

    /// Takes out of the wheel conns whose turn has come by the tick `now`, whatever their deadlines, as many as `into` has
    /// room for; the caller arms each again or removes it. Lowers `budget` by as many.
    ///
    /// What removing them reads lies all over memory: it is asked for in stages, for all of them at once.
    pub(crate) fn pop_fired(&mut self, now: u64, budget: &mut usize, into: &mut Fired) {
        into.len = 0;
        // However long nobody looked: a deadline is read by its low bits, near to the tick that the wheel has come to.
        let mut until = now;
        while into.len < FIRED_MAX.min(*budget) {
            let Some(node) = self.wheel.pop(until) else { break };
            if into.len == 0 {
                until = now.min(self.wheel.elapsed().saturating_add(FIRED_SPAN));
            }
            let id = self.conn_of(node);
            self.prefetch_conn(id);
            into.ids[into.len] = id;
            into.len += 1;
        }
        *budget -= into.len;
        let mut places = [(Candidates::default(), 0); 2 * FIRED_MAX];
        let mut len = 0;
        for &id in into.as_slice() {
            let Some(&ConnMeta {
                deadline, slot_link, ..
            }) = self.meta(id)
            else {
                continue;
            };
            // One that only goes to another slot of the wheel stays in the index.
            if (now as u32).wrapping_sub(deadline).cast_signed() < 0 {
                continue;
            }
            let Some(keys) = self.keys(id) else { continue };
            self.slots.prefetch(slot_link);
            self.slots.prefetch_first(self.slot_of_key(&keys[0]));
            for (key, direction) in keys.iter().zip([Direction::Inbound, Direction::Outbound]) {
                let at = self.candidates_of(key);
                self.prefetch_first(at);
                places[len] = (at, id.with(direction).bits());
                len += 1;
            }
        }
        for &(at, conn) in &places[..len] {
            if !self.index.holds(at.first, conn) {
                self.prefetch_second(at);
            }
        }
    }

    /// Whether the deadline of a conn that was taken out of the wheel has come by the tick `now`. If not, it is armed again.
    pub(crate) fn is_due(&mut self, id: ConnId, now: u64) -> bool {
        let when = self.deadline(id);
        if when > now {
            self.wheel.arm(self.node(id), when);
        }
        when <= now
    }

    /// Asks for where a tuple is looked up.
    pub(crate) fn prefetch_tuple(&self, tuple: &Tuple) {
        let at = self.candidates_of(&Key::from_tuple(tuple));
        self.prefetch_first(at);
        self.prefetch_second(at);
    }

    /// Has the wheel look at a conn at the tick `when`, whatever its deadline.
    pub(crate) fn arm(&mut self, id: ConnId, when: u64) {
        let node = self.node(id);
        self.wheel.disarm(node);
        self.wheel.arm(node, when);
    }

    /// The tick at which a conn expires.
    pub(crate) fn deadline(&self, id: ConnId) -> u64 {
        self.meta(id).map_or(0, |m| self.wheel.widen(m.deadline))
    }

    /// Gives a conn the deadline `when`, nearer or farther. Only a nearer one touches the wheel.
    #[inline]
    pub(crate) fn set_deadline(&mut self, id: ConnId, when: u64) {
        let Some(meta) = self.meta_mut(id) else { return };
        let nearer = (when as u32).wrapping_sub(meta.deadline) as i32 <= 0;
        meta.deadline = when as u32;
        if nearer {
            let node = self.node(id);
            self.wheel.disarm(node);
            self.wheel.arm(node, when);
        }
    }

    #[inline]
    pub(crate) fn meta(&self, id: ConnId) -> Option<&ConnMeta> {
        if id.is_v6() {
            self.v6.at(id.place()).map(|c| &c.meta)
        } else {
            self.v4.at(id.place()).map(|c| &c.meta)
        }
    }

    #[inline]
    pub(crate) fn meta_mut(&mut self, id: ConnId) -> Option<&mut ConnMeta> {
        if id.is_v6() {
            self.v6.at_mut(id.place()).map(|c| &mut c.meta)
        } else {
            self.v4.at_mut(id.place()).map(|c| &mut c.meta)
        }
    }

    /// The rarer state of a conn.
    pub(crate) fn ext(&self, id: ConnId) -> Option<&ConnExt> {
        self.exts.at(self.meta(id)?.ext.checked_sub(1)?)
    }

    /// Gives a conn rarer state, in place of what it had. `false`: the side slab is full, nothing changed.
    pub(crate) fn set_ext(&mut self, id: ConnId, ext: ConnExt) -> bool {
        let Some(have) = self.meta(id).map(|m| m.ext) else {
            return false;
        };
        let Some(place) = have.checked_sub(1).or_else(|| self.exts.take()) else {
            return false;
        };
        if let Some(at) = self.exts.at_mut(place) {
            *at = ext;
        }
        if let Some(meta) = self.meta_mut(id) {
            meta.ext = place + 1;
        }
        true
    }

    /// Takes the rarer state of a conn away.
    pub(crate) fn clear_ext(&mut self, id: ConnId) {
        let ext = self.meta_mut(id).map(|m| core::mem::take(&mut m.ext));
        if let Some(place) = ext.and_then(|ext| ext.checked_sub(1)) {
            self.exts.give_back(place);
        }
    }

    /// Damages a conn: it has another local port, of the same bucket, and nobody is told. `false`, and nothing has changed: it is
    /// none, or there is no such port. For faults on purpose.
    pub(crate) fn damage_local_port(&mut self, id: ConnId) -> bool {
        let keys = self.keys(id).filter(|_| !self.is_tomb(id));
        let Some([_, before]) = keys else {
            return false;
        };
        let bucket_of = |key: &Key| self.steering.bucket(key.toeplitz(self.steering.toeplitz()));
        let port = u16::from_be_bytes([before.ports[2], before.ports[3]]);
        let others = (1..PORT_DAMAGE_MAX).map(|bits| {
            let mut other = before;
            [other.ports[2], other.ports[3]] = (port ^ bits).to_be_bytes();
            other
        });
        let mut fits = others.filter(|other| {
            other.ports[2..] != [0, 0]
                && bucket_of(other) == bucket_of(&before)
                && self.find(other, self.candidates_of(other)).is_none()
        });
        let Some(after) = fits.next() else {
            return false;
        };
        let conn = id.with(Direction::Outbound);
        self.index.remove(self.candidates_of(&before), conn);
        if self.index.insert(self.candidates_of(&after), conn).is_err() {
            let back = self.index.insert(self.candidates_of(&before), conn);
            debug_assert!(back.is_ok(), "there was room before");
            return false;
        }
        let outbound = Direction::Outbound as usize;
        if let Some(c) = self.v4.at_mut(id.place()).filter(|_| !id.is_v6()) {
            c.ports[outbound] = after.ports;
        }
        if let Some(c) = self.v6.at_mut(id.place()).filter(|_| id.is_v6()) {
            c.ports[outbound] = after.ports;
        }
        // Who keeps the place in mind sees that it is another one.
        if let Some(meta) = self.meta_mut(id) {
            meta.generation = meta.generation.wrapping_add(1);
        }
        true
    }

    /// The client's tuple of a conn or a tombstone.
    pub(crate) fn inbound(&self, id: ConnId) -> Option<Tuple> {
        let proto = L4Proto::from_ip_proto(self.meta(id)?.proto & !TOMB)?;
        let [(src, dst), _] = self.ends(id)?;
        Some(Tuple { proto, src, dst })
    }

    /// Reads a conn; `None` if its place is free, or a tombstone's.
    pub fn view(&self, id: ConnId) -> Option<ConnView> {
        let meta = *self.meta(id)?;
        let proto = L4Proto::from_ip_proto(meta.proto)?;
        let [(client, vip), (server, local)] = self.ends(id)?;
        Some(ConnView {
            id,
            init: ConnInit {
                proto,
                client,
                vip,
                server,
                local,
                service: ServiceId(meta.service),
                server_id: RealServerId(meta.server),
                state: ConnState::from_u8(meta.state)?,
            },
            generation: meta.generation,
            remaining_ms: u64::from(
                meta.deadline
                    .wrapping_sub(self.now as u32)
                    .cast_signed()
                    .max(0)
                    .unsigned_abs(),
            ),
            was_established: meta.flags & flag::ESTABLISHED != 0,
            was_closed: meta.flags & flag::CLOSED != 0,
        })
    }

    /// What packets of both directions carry; of a tombstone, too.
    #[inline]
    fn keys(&self, id: ConnId) -> Option<[Key; 2]> {
        let directions = [Direction::Inbound, Direction::Outbound];
        if id.is_v6() {
            let c = self.v6.at(id.place())?;
            let proto = c.meta.proto & !TOMB;
            Some(directions.map(|d| {
                let (addrs, ports) = (c.addrs[d as usize], c.ports[d as usize]);
                match c.family(d) {
                    Family::V4 => Key::v4(proto, narrowed(addrs), ports),
                    Family::V6 => Key::v6(proto, addrs, ports),
                }
            }))
        } else {
            let c = self.v4.at(id.place())?;
            let proto = c.meta.proto & !TOMB;
            Some(directions.map(|d| Key::v4(proto, c.addrs[d as usize], c.ports[d as usize])))
        }
    }

    /// Source and destination of the packets of both directions.
    fn ends(&self, id: ConnId) -> Option<[(SocketAddr, SocketAddr); 2]> {
        let (addrs, families, ports) = if id.is_v6() {
            let c = self.v6.at(id.place())?;
            (
                c.addrs,
                [Direction::Inbound, Direction::Outbound].map(|d| c.family(d)),
                c.ports,
            )
        } else {
            let c = self.v4.at(id.place())?;
            (c.addrs.map(widened), [Family::V4; 2], c.ports)
        };
        let ends = |direction: Direction| {
            let (src, dst) = split(addrs[direction as usize]);
            let [s0, s1, d0, d1] = ports[direction as usize];
            let end = |addr, port| {
                SocketAddr::new(
                    narrow(addr, families[direction as usize]),
                    u16::from_be_bytes(port),
                )
            };
            (end(src, [s0, s1]), end(dst, [d0, d1]))
        };
        Some([ends(Direction::Inbound), ends(Direction::Outbound)])
    }

    /// The conns of a slot (the low 12 bits of the canonical hash of their inbound tuple), in O(slot).
    pub fn slot(&self, slot: u16) -> impl Iterator<Item = ConnView> + '_ {
        self.slots.iter(slot).filter_map(|id| self.view(id))
    }

    /// The last `rest` conns and tombstones of a slot, in the order of [`ConnTable::slot`]: a walk that remembers how many
    /// are left goes on here though conns came and went meanwhile. It misses none that stays, and may meet one twice.
    pub fn slot_tail(&self, slot: u16, rest: usize) -> impl Iterator<Item = ConnId> + '_ {
        self.slots.tail(slot, rest)
    }

    /// Conns and tombstones of a slot.
    pub fn slot_len(&self, slot: u16) -> usize {
        self.slots.len(slot)
    }

    /// All conns, slot by slot.
    pub fn iter(&self) -> impl Iterator<Item = ConnView> + '_ {
        (0..SLOT_COUNT as u16).flat_map(|slot| self.slot(slot))
    }

    /// A few words of each conn, in the order of their places, for who looks at all of them often: as long as a conn's mark
    /// stays, it is the same one, in the same state and with the same version; but for a place that was used 256 times since.
    pub fn marks(&self) -> impl Iterator<Item = ConnMark> + '_ {
        let v4 = (0..self.v4.high_water()).map(ConnId::v4);
        let v6 = (0..self.v6.high_water()).map(ConnId::v6);
        v4.chain(v6).filter_map(|id| {
            let meta = self.meta(id)?;
            L4Proto::from_ip_proto(meta.proto)?;
            Some(ConnMark {
                id,
                generation: meta.generation,
                state: meta.state,
                version: meta.version,
            })
        })
    }

    /// The slot in which the conn with this client's tuple lies.
    pub(crate) fn slot_of(&self, inbound: &Tuple) -> u16 {
        self.slot_of_key(&Key::from_tuple(inbound))
    }

    #[inline]
    fn slot_of_key(&self, inbound: &Key) -> u16 {
        slot_of_hash(inbound.toeplitz(self.steering.toeplitz()))
    }

    /// The number of a conn in the wheel: IPv4's first.
    #[inline]
    fn node(&self, id: ConnId) -> u32 {
        if id.is_v6() {
            self.sizes.conns_v4 + id.place()
        } else {
            id.place()
        }
    }

    #[inline]
    fn conn_of(&self, node: u32) -> ConnId {
        match node.checked_sub(self.sizes.conns_v4) {
            Some(place) => ConnId::v6(place),
            None => ConnId::v4(node),
        }
    }

    /// Checks that index, slabs, wheel and slots agree; for tests. Panics with what does not hold.
    #[doc(hidden)]
    pub fn audit(&self) {
        assert_eq!(self.index.len(), 2 * self.len(), "two entries a conn");
        assert_eq!(self.wheel.len(), self.len(), "every conn is armed");
        assert_eq!(self.iter().count(), self.len(), "every conn is in its slot");
        let with_ext = self.iter().filter(|v| self.ext(v.id).is_some()).count();
        assert_eq!(self.exts.len(), with_ext, "rarer state is some conn's");
        let slots = 0..SLOT_COUNT as u16;
        let chunks: usize = slots.map(|slot| self.slots.len(slot).div_ceil(CHUNK_LEN)).sum();
        assert_eq!(self.slots.chunk_count(), chunks, "every chunk is some slot's");
        for view in self.iter() {
            for (tuple, direction) in [
                (view.init.inbound(), Direction::Inbound),
                (view.init.outbound(), Direction::Outbound),
            ] {
                assert_eq!(
                    self.lookup(&tuple),
                    Some((view.id, direction)),
                    "{tuple} leads to its conn"
                );
            }
        }
        let live = |high, v6| {
            (0..high)
                .filter(|&p| {
                    self.meta(if v6 { ConnId::v6(p) } else { ConnId::v4(p) })
                        .is_some_and(|m| m.proto != 0)
                })
                .count()
        };
        assert_eq!(live(self.v4.high_water(), false), self.v4.len());
        assert_eq!(live(self.v6.high_water(), true), self.v6.len());
    }
}
