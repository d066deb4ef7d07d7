//! The queue of what is to happen: one order, and two ways to keep it.
//!
//! Events happen by their time. Those of one time happen in the order in which they were planned, unless the world has
//! a number for its `ties`: then events of equal time at different entities are permuted by it, and those of one
//! entity keep their order, so that no link, ring or queue ever loses the order of what is in it.

mod heap;
mod wheel;

use self::heap::Heap;
use self::wheel::Wheel;
use crate::frames::FrameId;
use crate::ids::{ActorId, FlowId, HostId, LbId, LinkId, RouterId};
use crate::link::Side;

/// What is to happen. Small and plain: frames wait in a store of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A frame reaches the end of a link that is not `from`.
    Arrive {
        link: LinkId,
        from: Side,
        frame: FrameId,
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

impl Event {
    /// Where it happens: a number for each direction of a link, flow, connection, host, worker and control side.
    /// Events of one entity keep their order, whatever the world's `ties`.
    pub(crate) fn entity(self) -> u64 {
        let of = |kind: u64, id: u64| kind << 56 | id;
        match self {
            Event::Arrive { link, from, .. } => of(1, u64::from(link.0) << 1 | from as u64),
            Event::Flow(flow) => of(2, flow.0.into()),
            Event::Conn { host, conn, .. } => of(3, u64::from(host.0) << 32 | u64::from(conn)),
            Event::Neighbours(host) => of(4, host.0.into()),
            Event::Router(router) => of(8, router.0.into()),
            Event::Actor(actor) => of(9, actor.0.into()),
            Event::Fly { host, flow } => of(7, u64::from(host.0) << 32 | u64::from(flow)),
            Event::Worker { lb, worker, .. } => of(5, u64::from(lb.0) << 16 | u64::from(worker)),
            Event::Node { lb, .. } => of(6, lb.0.into()),
        }
    }
}

/// An event that waits.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    /// Among those of its time: the tie above [`SEQUENCE_BITS`], then the number of its planning.
    order: u64,
    event: Event,
}

// What a turn of the queue moves.
const _: () = assert!(size_of::<Entry>() == 32);

/// Bits for the number of a planning: a run plans fewer events than that by far, as its bound is smaller.
const SEQUENCE_BITS: u32 = 48;

impl Entry {
    fn key(&self) -> (u64, u64) {
        (self.at, self.order)
    }
}

/// Which way the queue is kept. The order of events does not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueKind {
    /// A binary heap: plain, and the wheel's obvious twin.
    Heap,
    /// A wheel of slots over the digits of time: what waits far away costs nothing until its time is near.
    #[default]
    Wheel,
}

impl QueueKind {
    /// Both.
    pub const ALL: [QueueKind; 2] = [QueueKind::Heap, QueueKind::Wheel];

    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            QueueKind::Heap => "heap",
            QueueKind::Wheel => "wheel",
        }
    }
}

impl std::str::FromStr for QueueKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = QueueKind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| "heap or wheel".to_owned())
    }
}

#[derive(Debug)]
enum Kept {
    Heap(Heap),
    Wheel(Box<Wheel>),
}

/// See the module. Its length is bounded by the bounds of who plans: one timer a connection, one turn a worker, and what
/// fits into links.
#[derive(Debug)]
pub(crate) struct Queue {
    kept: Kept,
    ties: u64,
    sequence: u64,
    len: usize,
    peak: usize,
}

impl Queue {
    pub(crate) fn new(kind: QueueKind, ties: u64) -> Self {
        Queue {
            kept: match kind {
                QueueKind::Heap => Kept::Heap(Heap::default()),
                QueueKind::Wheel => Kept::Wheel(Box::default()),
            },
            ties,
            sequence: 0,
            len: 0,
            peak: 0,
        }
    }

    /// Plans an event; not before the time of the last one that was taken, nor before an `until` that was asked for.
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.len += 1;
        self.peak = self.peak.max(self.len);
        let order = self.tie(at, event) << SEQUENCE_BITS | self.sequence;
        let entry = Entry { at, order, event };
        match &mut self.kept {
            Kept::Heap(heap) => heap.push(entry),
            Kept::Wheel(wheel) => wheel.push(entry),
        }
    }

    /// The place of an entity among those of one time: 16 bits, keyed. Two entities that share them keep the order of
    /// planning.
    fn tie(&self, at: u64, event: Event) -> u64 {
        if self.ties == 0 {
            return 0;
        }
        // The finalizer of splitmix64 (Steele, Lea, Flood 2014), over the three of them one after the other.
        let mix = |mut x: u64| {
            x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ x >> 31
        };
        mix(mix(mix(self.ties) ^ event.entity()) ^ at) >> SEQUENCE_BITS
    }

    /// The next event, if its time is not after `until`.
    pub(crate) fn pop_until(&mut self, until: u64) -> Option<(u64, Event)> {
        let entry = match &mut self.kept {
            Kept::Heap(heap) => heap.pop_until(until),
            Kept::Wheel(wheel) => wheel.pop_until(until),
        }?;
        self.len -= 1;
        Some((entry.at, entry.event))
    }

    /// When the next event is.
    pub(crate) fn next_at(&self) -> Option<u64> {
        match &self.kept {
            Kept::Heap(heap) => heap.next_at(),
            Kept::Wheel(wheel) => wheel.next_at(),
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The most that waited at a time.
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }
}

/// An event loop with nothing in it, as the floor of what a simulation costs: `events` events, of which `pending`
/// (1 at least) wait at any time, each of which plans another one at a pseudo-random distance. Gives a number that
/// depends on the order of all of them.
pub fn floor(kind: QueueKind, events: u64, pending: u32) -> u64 {
    let mut queue = Queue::new(kind, 0);
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
        let Some((at, event)) = queue.pop_until(u64::MAX) else {
            break;
        };
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
    use proptest::prelude::*;

    fn all(queue: &mut Queue) -> Vec<(u64, u32)> {
        let pop = || queue.pop_until(u64::MAX);
        std::iter::from_fn(pop)
            .map(|(at, event)| match event {
                Event::Flow(FlowId(n)) => (at, n),
                other => unreachable!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn earliest_first_and_equal_times_in_order() {
        for kind in QueueKind::ALL {
            let mut queue = Queue::new(kind, 0);
            for (at, n) in [(5, 0), (3, 1), (5, 2), (3, 3), (4, 4)] {
                queue.push(at, Event::Flow(FlowId(n)));
            }
            assert_eq!(queue.next_at(), Some(3));
            assert_eq!(queue.pop_until(2), None);
            assert_eq!(all(&mut queue), [(3, 1), (3, 3), (4, 4), (5, 0), (5, 2)]);
            assert_eq!((queue.peak(), queue.len(), queue.next_at()), (5, 0, None));
        }
    }

    #[test]
    fn the_floor_is_the_same_each_time_and_with_both_queues() {
        let [heap, wheel] = QueueKind::ALL;
        assert_eq!(floor(heap, 10_000, 100), floor(heap, 10_000, 100));
        assert_eq!(floor(heap, 10_000, 100), floor(wheel, 10_000, 100));
        assert_ne!(floor(heap, 10_000, 100), floor(heap, 10_001, 100));
    }

    #[test]
    fn ties_permute_entities_and_keep_the_order_of_each() {
        let frame = |link: u16, n: u32| Event::Arrive {
            link: LinkId(link),
            from: Side::A,
            frame: FrameId(n),
        };
        let order = |ties: u64, kind| {
            let mut queue = Queue::new(kind, ties);
            for n in 0..64u32 {
                queue.push(7, frame((n % 8) as u16, n));
            }
            let pop = || queue.pop_until(u64::MAX);
            std::iter::from_fn(pop)
                .map(|(_, event)| event)
                .collect::<Vec<_>>()
        };
        let planned: Vec<_> = (0..64u32).map(|n| frame((n % 8) as u16, n)).collect();
        for kind in QueueKind::ALL {
            assert_eq!(order(0, kind), planned);
            let permuted = order(1, kind);
            assert_ne!(permuted, planned);
            assert_ne!(permuted, order(2, kind));
            assert_eq!(permuted, order(1, kind), "it depends on the number only");
            for link in 0..8 {
                let of = |all: &[Event]| {
                    let on = |e: &&Event| matches!(e, Event::Arrive { link: l, .. } if l.0 == link);
                    all.iter().filter(on).copied().collect::<Vec<_>>()
                };
                assert_eq!(of(&permuted), of(&planned), "{link} keeps its order");
            }
        }
        assert_eq!(order(1, QueueKind::Heap), order(1, QueueKind::Wheel));
    }

    /// What is done to both queues.
    #[derive(Clone, Debug)]
    enum Step {
        /// Plans one at such a distance from the last time.
        Push(u64, u32),
        /// Takes so many, each of which plans one at such a distance.
        Pop(u8, u64),
        /// Lets time pass.
        Until(u64),
    }

    /// Distances as they are in worlds: none, a few nanoseconds, ways of frames, timers, and beyond all bounds.
    fn distance() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => Just(0u64),
            4 => 0u64..4,
            4 => 0u64..100_000,
            4 => 0u64..10_000_000_000,
            1 => 0u64..=1 << 62,
            2 => (0u32..62).prop_map(|bit| 1 << bit),
        ]
    }

    proptest! {
        #[test]
        fn wheel_and_heap_give_the_same_order(
            ties in prop_oneof![Just(0u64), any::<u64>()],
            burst in 0u64..400,
            steps in prop::collection::vec(
                prop_oneof![
                    5 => (distance(), 0u32..6).prop_map(|(d, n)| Step::Push(d, n)),
                    4 => (1u8..60, distance()).prop_map(|(n, d)| Step::Pop(n, d)),
                    1 => distance().prop_map(Step::Until),
                ],
                0..200,
            ),
        ) {
            let mut queues = QueueKind::ALL.map(|kind| Queue::new(kind, ties));
            let [heap, wheel] = &mut queues;
            let mut now = 0u64;
            let push = |heap: &mut Queue, wheel: &mut Queue, at: u64, n: u32| {
                let event = Event::Flow(FlowId(n));
                heap.push(at, event);
                wheel.push(at, event);
            };
            for n in 0..burst {
                push(heap, wheel, n * n % 1_000, 7);
            }
            for step in steps {
                match step {
                    Step::Push(d, n) => push(heap, wheel, now.saturating_add(d), n),
                    Step::Pop(n, d) => {
                        for i in 0..n {
                            let next = heap.pop_until(u64::MAX);
                            prop_assert_eq!(next, wheel.pop_until(u64::MAX));
                            let Some((at, _)) = next else { break };
                            now = at;
                            // At its own time, and somewhere behind it.
                            if i % 4 < 2 {
                                push(heap, wheel, now.saturating_add(d * u64::from(i % 4)), i.into());
                            }
                        }
                    }
                    Step::Until(d) => {
                        let until = now.saturating_add(d);
                        loop {
                            let next = heap.pop_until(until);
                            prop_assert_eq!(next, wheel.pop_until(until));
                            if next.is_none() { break }
                        }
                        now = until;
                    }
                }
                prop_assert_eq!(heap.next_at(), wheel.next_at());
                prop_assert_eq!(heap.len(), wheel.len());
            }
            prop_assert_eq!(all(heap), all(wheel));
        }
    }

    /// Whole floods at few times, and times that come closer while they are worked on: where the wheel splits.
    #[test]
    fn wheel_and_heap_agree_where_much_comes_at_once() {
        for spread in [1u64, 3, 1_000, 1 << 20, 1 << 40] {
            let mut queues = QueueKind::ALL.map(|kind| Queue::new(kind, 0));
            let mut draw = spread | 1;
            let mut next = || {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                draw >> 20
            };
            queues
                .iter_mut()
                .for_each(|q| q.push(spread, Event::Flow(FlowId(0))));
            for n in 1..20_000u32 {
                let popped = queues.each_mut().map(|q| q.pop_until(u64::MAX));
                assert_eq!(popped[0], popped[1]);
                let Some((at, _)) = popped[0] else { break };
                // Each makes two until there are many.
                for _ in 0..if n < 4_000 { 2 } else { 1 } {
                    let at = at + next() % spread;
                    queues.iter_mut().for_each(|q| q.push(at, Event::Flow(FlowId(n))));
                }
            }
            let [mut heap, mut wheel] = queues;
            assert_eq!(all(&mut heap), all(&mut wheel), "{spread}");
        }
    }
}
