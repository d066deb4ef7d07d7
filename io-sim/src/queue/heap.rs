//! The queue as a binary heap.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::Entry;

/// An entry of a heap that gives its greatest: the earliest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Earliest(pub(super) Entry);

impl PartialEq for Earliest {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Earliest {}

impl PartialOrd for Earliest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Earliest {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.key().cmp(&self.0.key())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Heap(BinaryHeap<Earliest>);

impl Heap {
    pub(super) fn push(&mut self, entry: Entry) {
        self.0.push(Earliest(entry));
    }

    pub(super) fn pop_until(&mut self, until: u64) -> Option<Entry> {
        if self.next_at()? > until {
            return None;
        }
        self.0.pop().map(|e| e.0)
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.0.peek().map(|e| e.0.at)
    }
}
