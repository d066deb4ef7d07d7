//! A hierarchical timer wheel (Varghese and Lauck 1987) over nodes that live elsewhere.
//!
//! The lowest level has a slot for each of the next 8,192 ticks, so that the short times of what begins and ends (a TIME_WAIT
//! of 7 s) are armed once; five more of 64 slots, each of them as long as all of the level below, lie above it. A node
//! is linked in one slot. The wheel does not know deadlines: it hands out a node when its slot begins, and whoever
//! owns the node looks at its deadline and arms it again, nearer, or lets it expire. So a packet that only prolongs a
//! deadline touches nothing here, and the same rule moves nodes down the levels.

use bytemuck::{Pod, Zeroable};

use crate::memory::Region;
use crate::prefetch::prefetch;

const NEAR_BITS: u32 = 13;
/// Slots of the lowest level, of a tick each.
const NEAR_SLOTS: usize = 1 << NEAR_BITS;
const NEAR_WORDS: usize = NEAR_SLOTS / 64;
const FAR_BITS: u32 = 6;
/// Slots of each level above.
const FAR_SLOTS: usize = 1 << FAR_BITS;
const FAR_LEVELS: usize = 5;

// What is occupied of the near slots is summed up in as many bits as there are words of it.
const _: () = assert!(NEAR_WORDS == u128::BITS as usize);

/// A slot of a far level spans two to this power of ticks.
const fn shift(level: usize) -> u32 {
    NEAR_BITS + level as u32 * FAR_BITS
}

/// Links of a node: `next` is a node, `prev` a node or a slot. One more than the number, 0 is none.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct TimerLink {
    next: u32,
    prev: u32,
}

const _: () = assert!(size_of::<TimerLink>() == 8);

/// `prev` is a slot: the node is the first of it.
const SLOT: u32 = 1 << 31;

/// Nodes of a wheel at most.
pub(crate) const NODE_COUNT_MAX: usize = (1 << 31) - 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// Every slot that begins at or before this tick is empty, but for the one that is being handed out.
    elapsed: u64,
    near: [u64; NEAR_WORDS],
    /// Which words of `near` are not 0.
    near_words: u128,
    far: [u64; FAR_LEVELS],
    /// First node of each slot, plus one: those of the lowest level, then those of the others in turn.
    heads: Region<u32>,
    links: Region<TimerLink>,
    len: usize,
}

/// A slot that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Occupied {
    slot: usize,
    /// Its first tick.
    tick: u64,
}

impl Wheel {
    /// A wheel over zeroed `links`, one a node.
    pub(crate) fn new(links: Region<TimerLink>) -> Self {
        assert!(links.len() <= NODE_COUNT_MAX, "node numbers have 31 bits");
        Wheel {
            elapsed: 0,
            near: [0; NEAR_WORDS],
            near_words: 0,
            far: [0; FAR_LEVELS],
            heads: Region::zeroed(NEAR_SLOTS + FAR_LEVELS * FAR_SLOTS),
            links,
            len: 0,
        }
    }

    /// Nodes that are armed.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The tick that has been reached.
    pub(crate) fn elapsed(&self) -> u64 {
        self.elapsed
    }

    /// The tick that ends in these 32 bits and is nearest to the tick reached.
    #[inline]
    pub(crate) fn widen(&self, low: u32) -> u64 {
        let ahead = low.wrapping_sub(self.elapsed as u32) as i32;
        self.elapsed.saturating_add_signed(i64::from(ahead))
    }

    /// Goes on at tick `now` if no node is armed.
    #[inline]
    pub(crate) fn skip_if_empty(&mut self, now: u64) {
        if self.len == 0 {
            self.elapsed = self.elapsed.max(now);
        }
    }

    /// Arms `node`, which is not armed, for the tick `when`; a past one means now.
    pub(crate) fn arm(&mut self, node: u32, when: u64) {
        let slot = self.slot_for(when.max(self.elapsed));
        let head = self.heads[slot];
        if head != 0 {
            self.links[head as usize - 1].prev = node + 1;
        } else {
            self.set_occupied(slot, true);
        }
        self.links[node as usize] = TimerLink {
            next: head,
            prev: SLOT | slot as u32,
        };
        self.heads[slot] = node + 1;
        self.len += 1;
    }

    /// The slot of the tick `when`, which has not passed: on the lowest level whose turn reaches as far. Two nodes of one slot
    /// are of one turn, as whatever begins earlier has been handed out.
    #[inline]
    fn slot_for(&self, when: u64) -> usize {
        if when - self.elapsed < NEAR_SLOTS as u64 {
            return when as usize % NEAR_SLOTS;
        }
        for level in 0..FAR_LEVELS - 1 {
            let (to, from) = (when >> shift(level), self.elapsed >> shift(level));
            if to - from < FAR_SLOTS as u64 {
                return far_slot(level, to);
            }
        }
        // What is farther than the wheel is handed out early, and armed again.
        let (to, from) = (
            when >> shift(FAR_LEVELS - 1),
            self.elapsed >> shift(FAR_LEVELS - 1),
        );
        far_slot(FAR_LEVELS - 1, to.min(from + FAR_SLOTS as u64 - 1))
    }

    #[inline]
    fn set_occupied(&mut self, slot: usize, occupied: bool) {
        let set = |word: &mut u64, bit: usize| {
            let mask = 1 << (bit % 64);
            *word = if occupied { *word | mask } else { *word & !mask };
            *word != 0
        };
        match slot.checked_sub(NEAR_SLOTS) {
            None => {
                let word = slot / 64;
                let mask = 1u128 << word;
                if set(&mut self.near[word], slot) {
                    self.near_words |= mask;
                } else {
                    self.near_words &= !mask;
                }
            }
            Some(far) => {
                set(&mut self.far[far / FAR_SLOTS], far);
            }
        }
    }

    /// Takes `node` out, if it is armed.
    pub(crate) fn disarm(&mut self, node: u32) {
        let TimerLink { next, prev } = self.links[node as usize];
        if prev == 0 {
            return;
        }
        if next != 0 {
            self.links[next as usize - 1].prev = prev;
        }
        if prev & SLOT != 0 {
            let slot = (prev & !SLOT) as usize;
            self.heads[slot] = next;
            if next == 0 {
                self.set_occupied(slot, false);
            }
        } else {
            self.links[prev as usize - 1].next = next;
        }
        self.links[node as usize] = TimerLink::default();
        self.len -= 1;
    }

    /// The tick at which the next node is handed out; its deadline may be later.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        self.next_slot().map(|next| next.tick)
    }

    /// Takes out one node whose slot has begun by `now`.
    pub(crate) fn pop(&mut self, now: u64) -> Option<u32> {
        match self.next_slot() {
            Some(Occupied { slot, tick }) if tick <= now => {
                self.elapsed = self.elapsed.max(tick);
                let node = self.heads[slot] - 1;
                self.disarm(node);
                Some(node)
            }
            _ => {
                self.elapsed = self.elapsed.max(now);
                None
            }
        }
    }

    /// Asks for the links of `node`.
    pub(crate) fn prefetch(&self, node: u32) {
        prefetch(self.links.as_ptr().wrapping_add(node as usize));
    }

    /// The earliest slot that is not empty. Usually one of the lowest level; but a slot of a higher one, begun and not yet
    /// handed out to the end, comes before what its nodes were armed for.
    fn next_slot(&self) -> Option<Occupied> {
        let mut earliest = self.next_near();
        for (level, &occupied) in self.far.iter().enumerate() {
            if occupied == 0 {
                continue;
            }
            let turn = self.elapsed >> shift(level);
            let ahead = occupied
                .rotate_right(turn as u32 % FAR_SLOTS as u32)
                .trailing_zeros();
            let at = turn + u64::from(ahead);
            let tick = at << shift(level);
            if earliest.is_none_or(|e| tick < e.tick) {
                let slot = far_slot(level, at);
                earliest = Some(Occupied { slot, tick });
            }
        }
        earliest
    }

    /// The earliest slot of the lowest level that is not empty.
    #[inline]
    fn next_near(&self) -> Option<Occupied> {
        let now = self.elapsed as usize % NEAR_SLOTS;
        let (word, bit) = (now / 64, now % 64);
        let rest = self.near[word] >> bit;
        let slot = if rest != 0 {
            now + rest.trailing_zeros() as usize
        } else {
            // The words after it, and at last what lies before it in its own.
            let after = (word + 1) % NEAR_WORDS;
            let words = self.near_words.rotate_right(after as u32);
            if words == 0 {
                return None;
            }
            let word = (after + words.trailing_zeros() as usize) % NEAR_WORDS;
            word * 64 + self.near[word].trailing_zeros() as usize
        };
        let ahead = slot.wrapping_sub(now) % NEAR_SLOTS;
        Some(Occupied {
            slot,
            tick: self.elapsed + ahead as u64,
        })
    }
}

/// The slot of a far level whose turns have come to `turn` when it begins.
#[inline]
fn far_slot(level: usize, turn: u64) -> usize {
    NEAR_SLOTS + level * FAR_SLOTS + turn as usize % FAR_SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// A wheel whose owner keeps the deadlines, as the conn table does.
    struct Owned {
        wheel: Wheel,
        deadline: Vec<u64>,
    }

    impl Owned {
        fn new(nodes: usize, start: u64) -> Self {
            let mut wheel = Wheel::new(Region::zeroed(nodes));
            assert_eq!(wheel.pop(start), None);
            Owned {
                wheel,
                deadline: vec![0; nodes],
            }
        }

        fn expire(&mut self, now: u64) -> Vec<(u64, u32)> {
            let mut due = Vec::new();
            while let Some(node) = self.wheel.pop(now) {
                let deadline = self.deadline[node as usize];
                if deadline <= now {
                    due.push((deadline, node));
                } else {
                    self.wheel.arm(node, deadline);
                }
            }
            due.sort_unstable();
            due
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u32, u64),
        Prolong(u32, u64),
        Disarm(u32),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let ticks = prop_oneof![0u64..70, 0u64..20_000, 0u64..700_000_000, 0u64..(1 << 45)];
        prop_oneof![
            3 => (0u32..20, ticks.clone()).prop_map(|(n, t)| Step::Arm(n, t)),
            2 => (0u32..20, ticks.clone()).prop_map(|(n, t)| Step::Prolong(n, t)),
            1 => (0u32..20).prop_map(Step::Disarm),
            3 => ticks.prop_map(Step::Advance),
        ]
    }

    proptest! {
        /// The slow, obvious twin: a sorted set of (deadline, node).
        #[test]
        fn equals_a_heap(
            start in prop_oneof![Just(0u64), any::<u32>().prop_map(u64::from), ((1u64 << 42) - 100_000)..(1 << 42), any::<u64>().prop_map(|t| t >> 14)],
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut w = Owned::new(20, start);
            let mut twin: BTreeSet<(u64, u32)> = BTreeSet::new();
            let mut now = start;
            for s in steps {
                match s {
                    Step::Arm(n, t) => {
                        w.wheel.disarm(n);
                        twin.retain(|&(_, m)| m != n);
                        w.deadline[n as usize] = now + t;
                        w.wheel.arm(n, now + t);
                        twin.insert((now + t, n));
                    }
                    Step::Prolong(n, t) => {
                        // Lazy: the wheel is not told.
                        if let Some(&(d, _)) = twin.iter().find(|&&(_, m)| m == n) {
                            w.deadline[n as usize] = d + t;
                            twin.remove(&(d, n));
                            twin.insert((d + t, n));
                        }
                    }
                    Step::Disarm(n) => {
                        w.wheel.disarm(n);
                        twin.retain(|&(_, m)| m != n);
                    }
                    Step::Advance(t) => {
                        if let (Some(next), Some(&(first, _))) = (w.wheel.next_tick(), twin.first()) {
                            prop_assert!(next <= first, "woken too late");
                        }
                        now += t;
                        let due = w.expire(now);
                        let rest = twin.split_off(&(now + 1, 0));
                        prop_assert_eq!(due, core::mem::replace(&mut twin, rest).into_iter().collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(w.wheel.len(), twin.len());
                prop_assert_eq!(w.wheel.next_tick().is_some(), !twin.is_empty());
            }
        }
    }

    #[test]
    fn a_gap_of_years_costs_no_more_than_its_nodes() {
        let mut w = Owned::new(3, 0);
        for (node, deadline) in [(0, 5), (1, 90_000), (2, 600_000_000)] {
            w.deadline[node as usize] = deadline;
            w.wheel.arm(node, deadline);
        }
        let century = 100 * 365 * 86_400_000;
        assert_eq!(w.expire(century), [(5, 0), (90_000, 1), (600_000_000, 2)]);
        assert_eq!(w.wheel.elapsed(), century);
    }

    #[test]
    fn deadlines_of_32_bits_widen_across_the_wrap() {
        let mut w = Wheel::new(Region::zeroed(1));
        w.pop(u64::from(u32::MAX) - 10);
        assert_eq!(w.widen(5), u64::from(u32::MAX) + 6);
        assert_eq!(w.widen(u32::MAX - 20), u64::from(u32::MAX) - 20);
    }
}
