//! The queue of what is to happen.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::ids::{ActorId, FlowId, HostId, LbId, LinkId, RouterId};
use crate::link::Side;

/// What is to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A frame reaches the end of a link that is not `from`.
    Arrive {
        link: LinkId,
        from: Side,
        frame: Vec<u8>,
    },
    /// A flow's own time: it starts, its gap is over, its client gives up.
    Flow(FlowId),
    /// A TCP of a host has something to do; stale if the place holds another generation.
    Conn {
        host: HostId,
        conn: u32,
        generation: u32,
    },
    /// A flow of a host's flyweight has something to do; stale if another time is planned for it.
    Fly { host: HostId, flow: u32 },
    /// A host looks after neighbours that have not answered.
    Neighbours(HostId),
    /// A router looks after neighbours and next hops.
    Router(RouterId),
    /// An actor's time has come.
    Actor(ActorId),
    /// A worker takes its turn; stale if `turn` is not the one that is planned.
    Worker { lb: LbId, worker: u16, turn: u64 },
    /// The control side of a load balancer takes its turn; stale as above.
    Node { lb: LbId, turn: u64 },
}

#[derive(Debug)]
struct Entry {
    at: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The heap gives its greatest: the earliest, of equal times the one that was planned first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// Events by time, then in the order in which they were planned. Its length is bounded by the bounds of who plans:
/// one timer a connection, one turn a worker, and what fits into links.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Entry>,
    sequence: u64,
    peak: usize,
}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.heap.push(Entry { at, sequence, event });
        self.peak = self.peak.max(self.heap.len());
    }

    /// When the next event is.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|e| e.at)
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|e| (e.at, e.event))
    }

    /// The most that waited at a time.
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    /// All that waits, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Event> {
        self.heap.iter().map(|e| &e.event)
    }
}

/// An event loop with nothing in it, as the floor of what a simulation costs: `events` events, of which `pending`
/// (1 at least) wait at any time, each of which plans another one at a pseudo-random distance. Gives a number that
/// depends on the order of all of them.
pub fn floor(events: u64, pending: u32) -> u64 {
    let mut queue = Queue::default();
    let mut draw = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        // xorshift64 (Marsaglia 2003).
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        draw
    };
    for n in 0..pending.max(1) {
        queue.push(next() % 1_000_000, Event::Flow(FlowId(n)));
    }
    let mut mixed = 0u64;
    for _ in 0..events {
        let Some((at, event)) = queue.pop() else { break };
        if let Event::Flow(flow) = event {
            mixed = mixed.rotate_left(5) ^ at ^ u64::from(flow.0);
            queue.push(at + 1 + next() % 1_000_000, Event::Flow(flow));
        }
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_equal_times_in_order() {
        let mut queue = Queue::default();
        for (at, n) in [(5, 0), (3, 1), (5, 2), (3, 3), (4, 4)] {
            queue.push(at, Event::Flow(FlowId(n)));
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop())
            .map(|(at, event)| match event {
                Event::Flow(FlowId(n)) => (at, n),
                other => unreachable!("{other:?}"),
            })
            .collect();
        assert_eq!(order, [(3, 1), (3, 3), (4, 4), (5, 0), (5, 2)]);
        assert_eq!(queue.peak(), 5);
    }

    #[test]
    fn the_floor_is_the_same_each_time() {
        assert_eq!(floor(10_000, 100), floor(10_000, 100));
        assert_ne!(floor(10_000, 100), floor(10_001, 100));
    }
}
