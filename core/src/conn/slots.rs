//! The slots of replication: conns by the low 12 bits of their canonical hash, so that a slot can be
//! enumerated in O(slot).
//!
//! A slot is a chain of chunks of one cache line with 15 conns each, of which only the first has room. A
//! conn knows its place there (4 bytes); to leave, the last one of the first chunk takes its place.
//! A walk from the first chunk on, backwards within each, misses no conn that stays: what moves under
//! its feet moves from a place that it has passed.

use bytemuck::{Pod, Zeroable};

use super::ConnId;
use crate::memory::Region;
use crate::prefetch::prefetch;

/// Slots: a slot lies in one bucket for any number of buckets up to 256.
pub const SLOT_COUNT: usize = 4096;

pub(super) const CHUNK_LEN: usize = 15;

/// Part of a slot.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct SlotChunk {
    /// Next chunk plus one.
    next: u32,
    /// [`ConnId::link`]s.
    conns: [u32; CHUNK_LEN],
}

const _: () = assert!(size_of::<SlotChunk>() == 64);

#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Head {
    /// First chunk plus one.
    chunk: u32,
    /// Conns in the first chunk.
    filled: u32,
}

#[derive(Debug)]
pub(crate) struct Slots {
    heads: Region<Head>,
    chunks: Region<SlotChunk>,
    free: u32,
    fresh: u32,
    /// Chunks that are in slots.
    used: u32,
}

impl Slots {
    /// Chunks that suffice for `conns` conns however they lie in slots.
    pub(crate) const fn chunks_for(conns: usize) -> usize {
        let spread = conns.div_ceil(CHUNK_LEN) + SLOT_COUNT;
        if conns < spread { conns } else { spread }
    }

    pub(crate) fn new(chunks: Region<SlotChunk>) -> Self {
        Slots {
            heads: Region::zeroed(SLOT_COUNT),
            chunks,
            free: 0,
            fresh: 0,
            used: 0,
        }
    }

    /// Adds a conn; returns its place. There are chunks for as many conns as the slabs hold.
    pub(crate) fn add(&mut self, slot: u16, conn: ConnId) -> u32 {
        let slot = usize::from(slot) % SLOT_COUNT;
        let Head { chunk, filled } = self.heads[slot];
        if chunk == 0 || filled as usize == CHUNK_LEN {
            let fresh = self.take_chunk();
            self.chunks[fresh as usize].next = chunk;
            self.heads[slot] = Head {
                chunk: fresh + 1,
                filled: 0,
            };
        }
        let Head { chunk, filled } = &mut self.heads[slot];
        let place = (*chunk - 1) * CHUNK_LEN as u32 + *filled;
        self.chunks[(*chunk - 1) as usize].conns[*filled as usize] = conn.link();
        *filled += 1;
        place
    }

    /// Takes the conn at `place` out. Another conn may take its place: it is returned, to be told.
    pub(crate) fn remove(&mut self, slot: u16, place: u32) -> Option<ConnId> {
        let head = &mut self.heads[usize::from(slot) % SLOT_COUNT];
        debug_assert!(head.chunk != 0, "the slot of a conn holds it");
        head.filled -= 1;
        let first = (head.chunk - 1) as usize;
        let last = self.chunks[first].conns[head.filled as usize];
        let last_place = first as u32 * CHUNK_LEN as u32 + head.filled;
        if head.filled == 0 {
            let next = self.chunks[first].next;
            *head = Head {
                chunk: next,
                filled: if next == 0 { 0 } else { CHUNK_LEN as u32 },
            };
            self.chunks[first].next = self.free;
            self.free = first as u32 + 1;
            self.used -= 1;
        }
        if place == last_place {
            return None;
        }
        self.chunks[place as usize / CHUNK_LEN].conns[place as usize % CHUNK_LEN] = last;
        ConnId::from_link(last)
    }

    /// Asks for the line of a place.
    #[inline]
    pub(crate) fn prefetch(&self, place: u32) {
        prefetch(self.chunks.as_ptr().wrapping_add(place as usize / CHUNK_LEN));
    }

    /// Asks for the first line of a slot.
    #[inline]
    pub(crate) fn prefetch_first(&self, slot: u16) {
        let Head { chunk, .. } = self.heads[usize::from(slot) % SLOT_COUNT];
        prefetch(self.chunks.as_ptr().wrapping_add(chunk as usize).wrapping_sub(1));
    }

    /// The conns of a slot, in the order described above.
    pub(crate) fn iter(&self, slot: u16) -> impl Iterator<Item = ConnId> + '_ {
        let Head {
            mut chunk,
            mut filled,
        } = self.heads[usize::from(slot) % SLOT_COUNT];
        core::iter::from_fn(move || {
            if filled == 0 {
                chunk = self.chunks.get(chunk.checked_sub(1)? as usize)?.next;
                filled = CHUNK_LEN as u32;
            }
            let at = self.chunks.get(chunk.checked_sub(1)? as usize)?;
            filled -= 1;
            ConnId::from_link(at.conns[filled as usize])
        })
    }

    /// Conns of a slot.
    pub(crate) fn len(&self, slot: u16) -> usize {
        let Head { chunk, filled } = self.heads[usize::from(slot) % SLOT_COUNT];
        let mut len = filled as usize;
        let mut at = self.chunk(chunk);
        while let Some(chunk) = at {
            at = self.chunk(chunk.next);
            len += if at.is_some() { CHUNK_LEN } else { 0 };
        }
        len
    }

    fn chunk(&self, link: u32) -> Option<&SlotChunk> {
        self.chunks.get(link.checked_sub(1)? as usize)
    }

    /// The last `rest` conns of the order of [`Slots::iter`]. A walk that remembers how many are left goes on
    /// here though conns came and went: what comes, comes to the front, and a hole is filled from the front. So
    /// it misses none that stays, and may meet one twice.
    pub(crate) fn tail(&self, slot: u16, rest: usize) -> impl Iterator<Item = ConnId> + '_ {
        let mut skip = self.len(slot).saturating_sub(rest);
        let Head {
            mut chunk,
            filled: first,
        } = self.heads[usize::from(slot) % SLOT_COUNT];
        let mut filled = first as usize;
        while skip > 0 && skip >= filled {
            skip -= filled;
            chunk = self.chunk(chunk).map_or(0, |c| c.next);
            filled = if chunk == 0 { 0 } else { CHUNK_LEN };
            if chunk == 0 {
                break;
            }
        }
        filled = filled.saturating_sub(skip);
        core::iter::from_fn(move || {
            if filled == 0 {
                chunk = self.chunk(chunk)?.next;
                filled = CHUNK_LEN;
            }
            let at = self.chunk(chunk)?;
            filled -= 1;
            ConnId::from_link(at.conns[filled])
        })
    }

    /// Chunks that slots have at present.
    pub(crate) fn chunk_count(&self) -> usize {
        self.used as usize
    }

    fn take_chunk(&mut self) -> u32 {
        self.used += 1;
        if self.free == 0 {
            self.fresh += 1;
            return self.fresh - 1;
        }
        let chunk = self.free - 1;
        self.free = self.chunks[chunk as usize].next;
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_list_of_sets(steps in proptest::collection::vec((any::<bool>(), 0u16..3, any::<prop::sample::Index>()), 1..400)) {
            const CONNS: usize = 100;
            let mut slots = Slots::new(Region::zeroed(Slots::chunks_for(CONNS)));
            let mut twin: Vec<(u16, u32)> = Vec::new(); // slot, conn
            let mut place = [0; CONNS];
            let mut free: Vec<u32> = (0..CONNS as u32).collect();
            for (add, slot, which) in steps {
                if add && let Some(conn) = free.pop() {
                    place[conn as usize] = slots.add(slot, ConnId::v4(conn));
                    twin.push((slot, conn));
                } else if !twin.is_empty() {
                    let (slot, conn) = twin.swap_remove(which.index(twin.len()));
                    free.push(conn);
                    if let Some(moved) = slots.remove(slot, place[conn as usize]) {
                        place[moved.place() as usize] = place[conn as usize];
                    }
                }
                for slot in 0..3 {
                    let mut have: Vec<_> = slots.iter(slot).map(ConnId::place).collect();
                    let mut want: Vec<_> = twin.iter().filter(|(s, _)| *s == slot).map(|(_, c)| *c).collect();
                    prop_assert_eq!(slots.len(slot), have.len());
                    for rest in [0, 1, have.len() / 2, have.len(), have.len() + 1] {
                        let tail: Vec<_> = slots.tail(slot, rest).map(ConnId::place).collect();
                        prop_assert_eq!(&tail[..], &have[have.len().saturating_sub(rest)..]);
                    }
                    have.sort_unstable();
                    want.sort_unstable();
                    prop_assert_eq!(have, want);
                }
                let chunks: usize = (0..3).map(|slot| slots.len(slot).div_ceil(CHUNK_LEN)).sum();
                prop_assert_eq!(slots.chunk_count(), chunks);
            }
        }
    }

    #[test]
    fn the_worst_spread_fits() {
        for conns in [1, 14, 5_000, 70_000] {
            let mut slots = Slots::new(Region::zeroed(Slots::chunks_for(conns)));
            for conn in 0..conns as u32 {
                // One in every slot, the rest in one.
                slots.add(
                    if (conn as usize) < SLOT_COUNT {
                        conn as u16
                    } else {
                        0
                    },
                    ConnId::v4(conn),
                );
            }
            assert_eq!(
                (0..SLOT_COUNT as u16)
                    .map(|s| slots.iter(s).count())
                    .sum::<usize>(),
                conns
            );
        }
    }
}
