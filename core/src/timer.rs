//! A hierarchical timer wheel (Varghese and Lauck 1987) over nodes that live elsewhere.
//!
//! Seven levels of 64 slots; a slot of level n spans 64^n ticks. A node is linked in one slot. The wheel
//! does not know deadlines: it hands out a node when its slot begins, and whoever owns the node looks at
//! its deadline and arms it again, nearer, or lets it expire. So a packet that only prolongs a deadline
//! touches nothing here, and the same rule moves nodes down the levels.

use bytemuck::{Pod, Zeroable};

use crate::memory::Region;
use crate::prefetch::prefetch;

const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const LEVELS: usize = 7;

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
    occupied: [u64; LEVELS],
    heads: [[u32; SLOTS]; LEVELS],
    links: Region<TimerLink>,
    len: usize,
}

impl Wheel {
    /// A wheel over zeroed `links`, one a node.
    pub(crate) fn new(links: Region<TimerLink>) -> Self {
        assert!(links.len() <= NODE_COUNT_MAX, "node numbers have 31 bits");
        Wheel {
            elapsed: 0,
            occupied: [0; LEVELS],
            heads: [[0; SLOTS]; LEVELS],
            links,
            len: 0,
        }
    }

    /// Nodes that are armed.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The tick that has been reached.
    #[cfg(test)]
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
        let when = when.max(self.elapsed);
        let differing = (self.elapsed ^ when) | 1;
        let level = ((63 - differing.leading_zeros()) / LEVEL_BITS).min(LEVELS as u32 - 1);
        let slot = (when >> (level * LEVEL_BITS)) as usize % SLOTS;
        let level = level as usize;
        let head = self.heads[level][slot];
        if head != 0 {
            self.links[head as usize - 1].prev = node + 1;
        }
        self.links[node as usize] = TimerLink {
            next: head,
            prev: SLOT | (level * SLOTS + slot) as u32,
        };
        self.heads[level][slot] = node + 1;
        self.occupied[level] |= 1 << slot;
        self.len += 1;
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
            let at = (prev & !SLOT) as usize;
            let (level, slot) = (at / SLOTS, at % SLOTS);
            self.heads[level][slot] = next;
            if next == 0 {
                self.occupied[level] &= !(1 << slot);
            }
        } else {
            self.links[prev as usize - 1].next = next;
        }
        self.links[node as usize] = TimerLink::default();
        self.len -= 1;
    }

    /// The tick at which the next node is handed out; its deadline may be later.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, tick)| tick)
    }

    /// Takes out one node whose slot has begun by `now`.
    pub(crate) fn pop(&mut self, now: u64) -> Option<u32> {
        match self.next_slot() {
            Some((level, slot, tick)) if tick <= now => {
                self.elapsed = self.elapsed.max(tick);
                let node = self.heads[level][slot] - 1;
                self.disarm(node);
                Some(node)
            }
            _ => {
                self.elapsed = self.elapsed.max(now);
                None
            }
        }
    }

    /// The node behind which [`Wheel::pop`] hands out next, if it hands out soon: for prefetching.
    pub(crate) fn peek(&self, now: u64) -> Option<u32> {
        let (level, slot, tick) = self.next_slot()?;
        (tick <= now).then(|| self.heads[level][slot] - 1)
    }

    /// The node after `node` in its slot.
    pub(crate) fn after(&self, node: u32) -> Option<u32> {
        self.links.get(node as usize)?.next.checked_sub(1)
    }

    /// Asks for the links of `node`.
    pub(crate) fn prefetch(&self, node: u32) {
        prefetch(self.links.as_ptr().wrapping_add(node as usize));
    }

    /// Asks for the links of the node after `node`, whose own are at hand.
    pub(crate) fn prefetch_after(&self, node: u32) {
        if let Some(after) = self.after(node) {
            self.prefetch(after);
        }
    }

    /// Level, slot and first tick of the earliest occupied slot. Usually that of the lowest level; but a slot
    /// of a higher one, begun and not yet handed out to the end, comes before what its nodes were armed for.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let mut earliest: Option<(usize, usize, u64)> = None;
        for level in 0..LEVELS {
            let occupied = self.occupied[level];
            if occupied == 0 {
                continue;
            }
            let shift = level as u32 * LEVEL_BITS;
            let now_slot = (self.elapsed >> shift) as u32 % SLOTS as u32;
            let ahead = occupied.rotate_right(now_slot).trailing_zeros();
            let slot = (now_slot + ahead) % SLOTS as u32;
            let tick = ((self.elapsed >> shift) + u64::from(ahead)) << shift;
            if earliest.is_none_or(|(_, _, t)| tick < t) {
                earliest = Some((level, slot as usize, tick));
            }
        }
        earliest
    }
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
        let ticks = prop_oneof![0u64..70, 0u64..5_000, 0u64..700_000_000];
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
