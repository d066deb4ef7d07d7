//! The fast path neither allocates nor frees: proved by counting.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use evenkeel_benches::flows::{Kind, Order, write_data, write_syn};
use evenkeel_benches::frame::BenchFrame;
use evenkeel_benches::world::{self, WEEK};
use evenkeel_core::port::{BURST, PortId};
use evenkeel_core::stats::DropReason;
use evenkeel_core::time::Instant;
use evenkeel_core::worker::{Verdict, Verdicts, Worker};
use evenkeel_node::memory::Pages;

thread_local! {
    /// Allocations and frees of this thread: tests run side by side.
    static CALLS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn count(allocations: u64, frees: u64) {
    // A thread that ends may free after its counter is gone.
    let _ = CALLS.try_with(|calls| {
        let (a, f) = calls.get();
        calls.set((a + allocations, f + frees));
    });
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches a cell without
// destructor that was initialised at compile time, and so neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, 0);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same there.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, 0);
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count(1, 1);
        // SAFETY: as for `alloc`; `at` came from the system's allocator, as all here does.
        unsafe { System.realloc(at, layout, len) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, 1);
        // SAFETY: as for `realloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations and frees in `what`.
fn calls_of(what: impl FnOnce()) -> (u64, u64) {
    let before = CALLS.get();
    what();
    let after = CALLS.get();
    (after.0 - before.0, after.1 - before.1)
}

const CONNS: u32 = 4096;
const BURSTS: usize = 500;

/// A worker with conns, and all that a burst needs.
struct Bench {
    worker: Worker,
    frames: Box<[BenchFrame; BURST]>,
    verdicts: Verdicts,
    now: Instant,
}

impl Bench {
    fn new(kind: Kind) -> Self {
        let worker = world::established(kind, CONNS, WEEK, Pages::Small).expect("a few megabytes");
        Bench {
            worker,
            frames: BenchFrame::burst(),
            verdicts: Verdicts::default(),
            now: Instant::ZERO,
        }
    }

    fn burst(&mut self) {
        self.now = self.now + Duration::from_micros(50);
        self.worker
            .handle_burst(self.now, &mut self.frames[..], &mut self.verdicts);
    }
}

#[test]
fn the_counter_sees_an_allocation() {
    let mut bench = Bench::new(Kind::V4);
    let mut order = Order::new(1, CONNS);
    let calls = calls_of(|| {
        for (slot, frame) in bench.frames.iter_mut().enumerate() {
            write_data(frame, Kind::V4, order.packet(), slot);
        }
        bench.burst();
        drop(std::hint::black_box(Box::new(bench.now)));
    });
    assert_eq!(calls, (1, 1));
}

fn established_bursts(kind: Kind) {
    let mut bench = Bench::new(kind);
    let mut order = Order::new(7, CONNS);
    let calls = calls_of(|| {
        for _ in 0..BURSTS {
            for (slot, frame) in bench.frames.iter_mut().enumerate() {
                write_data(frame, kind, order.packet(), slot);
            }
            bench.burst();
            assert!(
                bench
                    .verdicts
                    .as_slice()
                    .iter()
                    .all(|v| *v == Verdict::Tx(PortId(0)))
            );
        }
    });
    assert_eq!(
        bench.worker.counters().tx_packets,
        (BURSTS * BURST) as u64,
        "it did its work"
    );
    assert_eq!(calls, (0, 0), "allocations and frees");
}

#[test]
fn no_alloc_established_v4() {
    established_bursts(Kind::V4);
}

#[test]
fn no_alloc_established_v6() {
    established_bursts(Kind::V6);
}

#[test]
fn no_alloc_established_nat64() {
    established_bursts(Kind::Nat64);
}

/// SYNs that are scheduled and get a port, until the table is full; the refusals; and all expiring again.
#[test]
fn no_alloc_opening_refusing_and_expiring() {
    for kind in [Kind::V4, Kind::V6, Kind::Nat64] {
        let mut bench = Bench::new(kind);
        let syns = world::SPARE + 1024;
        let calls = calls_of(|| {
            for first in (0..syns).step_by(BURST) {
                for (n, frame) in (CONNS + first..).zip(bench.frames.iter_mut()) {
                    write_syn(frame, kind, n);
                }
                bench.burst();
            }
            bench.now = bench.now + Duration::from_secs(31);
            while bench.worker.poll_timeout().is_some_and(|due| due <= bench.now) {
                bench.worker.handle_timeout(bench.now);
            }
        });
        let counters = bench.worker.counters();
        assert_eq!(counters.opened, u64::from(CONNS + world::SPARE), "{counters:?}");
        assert_eq!(
            counters.drops[DropReason::ConnTableFull as usize],
            1024,
            "{counters:?}"
        );
        assert_eq!(counters.expired, u64::from(world::SPARE), "{counters:?}");
        assert_eq!(calls, (0, 0), "allocations and frees");
    }
}

/// Frames that are refused at every stage: cut, damaged, for nobody, of no conn, out of hops.
#[test]
fn no_alloc_drops() {
    let mut bench = Bench::new(Kind::V4);
    let mut order = Order::new(3, CONNS);
    let calls = calls_of(|| {
        for _ in 0..BURSTS {
            for (slot, frame) in bench.frames.iter_mut().enumerate() {
                let mut packet = order.packet();
                if slot % 5 == 3 {
                    packet.flow += 2 * CONNS;
                }
                write_data(frame, Kind::V4, packet, slot);
                let data = frame.fixed_mut();
                match slot % 5 {
                    0 => frame.set_len(20),
                    1 => data[24] ^= 1,
                    2 => data[14] = 0x55,
                    3 => {}
                    // One hop left; the checksum goes with it (64 to 1).
                    _ => {
                        let sum = u16::from_be_bytes([data[24], data[25]]);
                        let (sum, carry) = sum.overflowing_add(63 << 8);
                        data[24..26].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
                        data[22] = 1;
                    }
                }
            }
            bench.burst();
        }
    });
    let counters = bench.worker.counters();
    assert_eq!(counters.dropped(), (BURSTS * BURST) as u64, "{counters:?}");
    for reason in [
        DropReason::Truncated,
        DropReason::BadChecksum,
        DropReason::BadVersion,
        DropReason::NoConn,
        DropReason::TtlExpired,
    ] {
        assert!(counters.drops[reason as usize] > 0, "{reason}: {counters:?}");
    }
    assert_eq!(calls, (0, 0), "allocations and frees");
}
