//! The queue as a wheel over the digits of time.
//!
//! ```text
//! time, in digits of 6 bits:   d10 .. d3 d2 d1 d0          position: all before it, and it, is taken out of the slots
//! level 2:  [0] [1] [2] ..     an event whose first digit that differs from the position's is d2
//! level 1:  [0] [1] [2] ..     .. is d1
//! level 0:  [0] [1] [2] ..     .. is d0: one nanosecond a slot
//!
//! the first slot of the lowest level that is not empty holds the earliest: a slot with few is sorted and becomes the
//! run, from whose end events are taken; one with many is dealt to the slots of the level below
//! ```
//!
//! What is planned into the time that the run covers waits in a heap beside it. When that grows, the run is cut short,
//! and what is behind the cut goes back into slots. So an event is moved a few times, always with its neighbours, and is
//! compared with few others, however many wait.

use std::collections::BinaryHeap;

use super::Entry;
use super::heap::Earliest;

/// Bits of a digit.
const BITS: u32 = 6;
/// Slots of a level: one bit each in a word.
const SLOT_COUNT: usize = 1 << BITS;
/// Digits of a time.
const LEVEL_COUNT: usize = 11;
/// Entries that lie together.
const CHUNK_LEN: usize = 15;
/// No chunk.
const NONE: u32 = u32::MAX;
/// Entries of a slot that are sorted instead of dealt.
const FEW: usize = 64;
/// Entries beside the run before it is cut short.
const LATE_MAX: usize = 128;

const _: () = assert!(LEVEL_COUNT * BITS as usize >= 64);

/// Entries of a slot, and where more of them are.
#[derive(Clone, Debug)]
struct Chunk {
    entries: [Entry; CHUNK_LEN],
    next: u32,
}

/// A list of chunks, of which only the first is not full.
#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u32,
    len: u32,
}

impl Slot {
    const EMPTY: Slot = Slot { head: NONE, len: 0 };

    /// Entries of its first chunk.
    fn head_len(self) -> usize {
        (self.len as usize).wrapping_sub(1) % CHUNK_LEN + 1
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Wheel {
    /// Chunks of all slots; those that are free are used again, the last one first. There are never more than what
    /// waited at most needs, and one a slot.
    chunks: Vec<Chunk>,
    free: u32,
    slots: Box<[[Slot; SLOT_COUNT]; LEVEL_COUNT]>,
    /// Slots that are not empty, by level.
    filled: [u64; LEVEL_COUNT],
    /// Levels of which some are.
    levels: u32,
    /// All that is later is in slots; nothing else is.
    position: u64,
    /// The level of the slot that the run was, or to whose end it was cut. Slots of lower levels are empty when it
    /// begins.
    level: u32,
    /// Sorted, the earliest last.
    run: Vec<Entry>,
    /// What was planned into the run's time.
    late: BinaryHeap<Earliest>,
    /// So many make it worth while to cut the run short.
    late_max: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel {
            chunks: Vec::new(),
            free: NONE,
            slots: Box::new([[Slot::EMPTY; SLOT_COUNT]; LEVEL_COUNT]),
            filled: [0; LEVEL_COUNT],
            levels: 0,
            position: 0,
            level: 0,
            run: Vec::new(),
            late: BinaryHeap::new(),
            late_max: LATE_MAX,
        }
    }
}

/// The last time of the slot of a level in which `at` lies.
fn slot_end(at: u64, level: u32) -> u64 {
    at | ((1 << (BITS * level)) - 1)
}

impl Wheel {
    pub(super) fn push(&mut self, entry: Entry) {
        if entry.at > self.position {
            return self.put(entry);
        }
        self.late.push(Earliest(entry));
        if self.late.len() > self.late_max {
            self.cut();
        }
    }

    /// Puts an entry into its slot; its time is not before the position.
    fn put(&mut self, entry: Entry) {
        let differs = (entry.at ^ self.position) | 1;
        let level = (u64::BITS - 1 - differs.leading_zeros()) / BITS;
        let digit = (entry.at >> (BITS * level)) as usize % SLOT_COUNT;
        let slot = &mut self.slots[level as usize][digit];
        let place = slot.len as usize % CHUNK_LEN;
        slot.len += 1;
        if place > 0 {
            self.chunks[slot.head as usize].entries[place] = entry;
            return;
        }
        let rest = std::mem::replace(&mut slot.head, self.free);
        if self.free == NONE {
            slot.head = self.chunks.len() as u32;
            self.chunks.push(Chunk {
                entries: [entry; CHUNK_LEN],
                next: rest,
            });
        } else {
            let chunk = &mut self.chunks[self.free as usize];
            self.free = std::mem::replace(&mut chunk.next, rest);
            chunk.entries[0] = entry;
        }
        self.filled[level as usize] |= 1 << digit;
        self.levels |= 1 << level;
    }

    /// The first slot: its level, its digit, and when it begins.
    fn first(&self) -> Option<(u32, usize, u64)> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros();
        let digit = self.filled[level as usize].trailing_zeros();
        let shift = BITS * level;
        // The digits above are the position's. The highest digit has none above it.
        let above = self.position.checked_shr(shift + BITS).unwrap_or(0);
        let above = above.checked_shl(shift + BITS).unwrap_or(0);
        Some((level, digit as usize, above | u64::from(digit) << shift))
    }

    pub(super) fn pop_until(&mut self, until: u64) -> Option<Entry> {
        if self.run.is_empty() && self.late.is_empty() && !self.advance(until) {
            return None;
        }
        let late = match (self.run.last(), self.late.peek()) {
            (Some(run), Some(late)) => late.0.key() < run.key(),
            (run, _) => run.is_none(),
        };
        if late {
            let first = self.late.peek().is_some_and(|e| e.0.at <= until);
            first.then(|| self.late.pop()).flatten().map(|e| e.0)
        } else {
            let first = self.run.last().is_some_and(|e| e.at <= until);
            first.then(|| self.run.pop()).flatten()
        }
    }

    /// Makes the first slot the run; `false`: it begins after `until`, or there is none. The position never passes a slot
    /// that begins after `until`: what is planned from then on is not before the slot that it is in.
    fn advance(&mut self, until: u64) -> bool {
        while let Some((level, digit, start)) = self.first().filter(|first| first.2 <= until) {
            let slot = std::mem::replace(&mut self.slots[level as usize][digit], Slot::EMPTY);
            self.filled[level as usize] &= !(1 << digit);
            if self.filled[level as usize] == 0 {
                self.levels &= !(1 << level);
            }
            let few = slot.len as usize <= FEW || level == 0;
            self.position = if few { slot_end(start, level) } else { start };
            self.level = level;
            let (mut at, mut len) = (slot.head, slot.head_len());
            while at != NONE {
                let chunk = &self.chunks[at as usize];
                if few {
                    self.run.extend_from_slice(&chunk.entries[..len]);
                } else {
                    // A chunk is copied before the slots below take others.
                    let entries = chunk.entries;
                    entries[..len].iter().for_each(|&entry| self.put(entry));
                }
                let next = std::mem::replace(&mut self.chunks[at as usize].next, self.free);
                self.free = at;
                (at, len) = (next, CHUNK_LEN);
            }
            if few {
                self.run.sort_unstable_by_key(|e| std::cmp::Reverse(e.key()));
                self.late_max = LATE_MAX;
                return true;
            }
        }
        false
    }

    /// Cuts the run short: to the end of a smaller slot around the earliest event, if at least half of all is behind it.
    fn cut(&mut self) {
        let run = self.run.last().map(|e| e.at);
        let late = self.late.peek().map(|e| e.0.at);
        let first = run.into_iter().chain(late).min().unwrap_or(self.position);
        let count = |last: u64| {
            let run = self.run.iter().filter(|e| e.at <= last).count();
            run + self.late.iter().filter(|e| e.0.at <= last).count()
        };
        let half = (self.run.len() + self.late.len()) / 2;
        let mut shorter = (0..self.level).rev().map(|level| (level, slot_end(first, level)));
        // In the slot of the position, so that what is in slots stays where it is.
        let within = slot_end(first, self.level) == self.position;
        if let Some((level, last)) = shorter.find(|s| within && count(s.1) <= half) {
            self.level = level;
            self.position = last;
            let behind = self.run.partition_point(|e| e.at > last);
            let run: Vec<Entry> = self.run.drain(..behind).collect();
            run.into_iter().for_each(|entry| self.put(entry));
            let mut late = std::mem::take(&mut self.late).into_vec();
            late.retain(|e| {
                if e.0.at > last {
                    self.put(e.0);
                }
                e.0.at <= last
            });
            self.late = late.into();
        }
        self.late_max = LATE_MAX.max(2 * self.late.len());
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        let run = self.run.last().map(|e| e.at);
        let late = self.late.peek().map(|e| e.0.at);
        if let Some(at) = run.into_iter().chain(late).min() {
            return Some(at);
        }
        let (level, digit, _) = self.first()?;
        let slot = self.slots[level as usize][digit];
        let (mut at, mut len) = (slot.head, slot.head_len());
        let mut first = u64::MAX;
        while let Some(chunk) = self.chunks.get(at as usize) {
            first = chunk.entries[..len]
                .iter()
                .fold(first, |first, e| first.min(e.at));
            (at, len) = (chunk.next, CHUNK_LEN);
        }
        Some(first)
    }
}
