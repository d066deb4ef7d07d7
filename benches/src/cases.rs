//! What is measured.

use std::hint::black_box;
use std::time::Duration;

use bytemuck::{AnyBitPattern, NoUninit};
use evenkeel_core::port::{Frame, RxChecksum};
use evenkeel_core::probe::{self, Probe};
use evenkeel_core::time::Instant;
use evenkeel_core::worker::{Verdict, Verdicts, Worker};
use evenkeel_node::memory::{MapError, Pages};

use crate::floor::{self, Ask, BURST, Conn4, Conn6, ConnOf, Floor};
use crate::flows::{Kind, Order, Packet, write_data, write_syn};
use crate::frame::BenchFrame;
use crate::measure::{Case, Stopwatch};
use crate::world::{self, ESTABLISHED_TIMEOUT, SPARE, WEEK};

/// Every case, by the name under which it is asked for.
pub const CASES: [&str; 6] = [
    "parse",
    "lookup",
    "established-v4",
    "established-v6",
    "established-nat64",
    "open",
];

/// A case over `n` conns.
pub fn case(name: &str, n: u32, pages: Pages) -> Result<Box<dyn Case>, MapError> {
    Ok(match name {
        "parse" => Box::new(Parse::new()),
        "lookup" => Box::new(Lookup::new(n, pages)?),
        "established-v6" => Box::new(Established::<Conn6>::new(Kind::V6, n, pages)?),
        "established-nat64" => Box::new(Established::<Conn6>::new(Kind::Nat64, n, pages)?),
        "open" => Box::new(Open::new(n, pages)?),
        _ => Box::new(Established::<Conn4>::new(Kind::V4, n, pages)?),
    })
}

/// Parsing of warm frames.
pub struct Parse {
    frames: Box<[BenchFrame; BURST]>,
}

impl Parse {
    /// Without frames to parse yet.
    pub fn new() -> Self {
        Parse::default()
    }

    /// Makes the frames of the next burst.
    pub fn prepare(&mut self, kind: Kind, order: &mut Order) {
        for (slot, frame) in self.frames.iter_mut().enumerate() {
            write_data(frame, kind, order.packet(), slot);
        }
    }

    /// The frames.
    pub fn frames(&self) -> &[BenchFrame; BURST] {
        &self.frames
    }

    fn run(&mut self, seed: u64, bursts: usize, mut what: impl FnMut(&mut [BenchFrame; BURST])) -> Vec<f64> {
        let mut ns = Vec::new();
        for kind in [Kind::V4, Kind::V6] {
            let mut order = Order::new(seed, 1 << 16);
            let mut watch = Stopwatch::default();
            for _ in 0..bursts {
                self.prepare(kind, &mut order);
                watch.time(|| what(&mut self.frames));
            }
            ns.push(watch.per(bursts * BURST));
        }
        ns
    }
}

impl Default for Parse {
    fn default() -> Self {
        Parse {
            frames: BenchFrame::burst(),
        }
    }
}

/// Parses a burst.
#[inline(never)]
pub fn parse_burst(frames: &[BenchFrame], out: &mut [Option<Probe>]) {
    for (frame, out) in frames.iter().zip(out) {
        *out = Probe::parse(frame.data(), frame.len(), RxChecksum::Unknown).ok();
    }
}

impl Case for Parse {
    fn names(&self) -> &'static [&'static str] {
        &["parse v4", "parse v6"]
    }

    fn engine(&mut self, seed: u64, bursts: usize) -> Vec<f64> {
        let mut out = [None; BURST];
        self.run(seed, bursts, move |frames| {
            parse_burst(black_box(frames), &mut out);
            black_box(&out);
        })
    }

    fn floor(&mut self, seed: u64, bursts: usize) -> Vec<f64> {
        let mut out = [0; BURST];
        self.run(seed, bursts, move |frames| {
            floor::read_headers(black_box(frames), &mut out);
            black_box(&out);
        })
    }
}

/// Lookup of parsed IPv4 packets, in bursts.
pub struct Lookup {
    worker: Worker,
    floor: Floor<Conn4>,
    frame: BenchFrame,
    n: u32,
}

impl Lookup {
    /// `n` conns on both sides.
    pub fn new(n: u32, pages: Pages) -> Result<Self, MapError> {
        let worker = world::established(Kind::V4, n, WEEK, pages)?;
        let floor = Floor::new(Kind::V4, n, n + SPARE, pages)?;
        Ok(Lookup {
            worker,
            floor,
            frame: BenchFrame::default(),
            n,
        })
    }

    /// The engine's side.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Packets of flows from `first` on: of those behind the last one the table knows none.
    pub fn probes(&mut self, order: &mut Order, first: u32) -> [Probe; BURST] {
        std::array::from_fn(|_| {
            let packet = order.packet();
            write_data(
                &mut self.frame,
                Kind::V4,
                Packet {
                    flow: packet.flow + first,
                    outbound: packet.outbound && first == 0,
                },
                0,
            );
            Probe::parse(self.frame.data(), self.frame.len(), RxChecksum::Good).expect("the frame is right")
        })
    }
}

/// Looks a burst up.
#[inline(never)]
pub fn lookup_burst(
    worker: &Worker,
    probes: &[Probe; BURST],
    found: &mut [Option<evenkeel_core::conn::ConnId>; BURST],
) {
    probe::lookup(worker.table(), probes, found);
}

impl Case for Lookup {
    fn names(&self) -> &'static [&'static str] {
        &["lookup hit", "lookup miss"]
    }

    fn engine(&mut self, seed: u64, bursts: usize) -> Vec<f64> {
        [0, self.n]
            .map(|first| {
                let mut order = Order::new(seed, self.n.min(1 << 22));
                if first == 0 {
                    order = Order::new(seed, self.n);
                }
                let mut watch = Stopwatch::default();
                let mut found = [None; BURST];
                for _ in 0..bursts {
                    let probes = self.probes(&mut order, first);
                    watch.time(|| lookup_burst(&self.worker, black_box(&probes), &mut found));
                    assert!(
                        found.iter().all(|f| f.is_some() == (first == 0)),
                        "found as they should be"
                    );
                }
                watch.per(bursts * BURST)
            })
            .into()
    }

    fn floor(&mut self, seed: u64, bursts: usize) -> Vec<f64> {
        [true, false]
            .map(|hit| {
                let mut order = Order::new(seed, self.n);
                let mut watch = Stopwatch::default();
                let mut out = [0; BURST];
                for _ in 0..bursts {
                    let places = std::array::from_fn(|_| self.floor.place(order.packet()));
                    watch.time(|| {
                        if hit {
                            self.floor.lookup(black_box(&places), &mut out)
                        } else {
                            self.floor.miss(black_box(&places), &mut out)
                        }
                    });
                    black_box(&out);
                }
                watch.per(bursts * BURST)
            })
            .into()
    }
}

/// FullNAT bursts of established conns, both directions mixed.
pub struct Established<C: 'static> {
    kind: Kind,
    n: u32,
    worker: Worker,
    floor: Floor<C>,
    frames: Box<[BenchFrame; BURST]>,
    verdicts: Verdicts,
    now: u64,
}

impl<C: NoUninit + AnyBitPattern + ConnOf> Established<C> {
    /// `n` conns of `kind` on both sides.
    pub fn new(kind: Kind, n: u32, pages: Pages) -> Result<Self, MapError> {
        let worker = world::established(kind, n, ESTABLISHED_TIMEOUT, pages)?;
        let floor = Floor::new(kind, n, n + SPARE, pages)?;
        Ok(Established {
            kind,
            n,
            worker,
            floor,
            frames: BenchFrame::burst(),
            verdicts: Verdicts::default(),
            now: 0,
        })
    }

    /// Makes the frames of the next burst; says where the floor finds their conns.
    pub fn prepare(&mut self, order: &mut Order) -> [u32; BURST] {
        let mut places = [0; BURST];
        for (slot, (frame, place)) in self.frames.iter_mut().zip(&mut places).enumerate() {
            let packet = order.packet();
            *place = self.floor.place(packet);
            write_data(frame, self.kind, packet, slot);
        }
        places
    }

    /// The engine's turn.
    #[inline]
    pub fn forward(&mut self) {
        self.now += 1_000;
        self.worker.handle_burst(
            Instant::from_nanos(self.now),
            black_box(&mut self.frames[..]),
            &mut self.verdicts,
        );
    }

    /// The floor's turn.
    #[inline]
    pub fn floor_forward(&mut self, how: Ask, places: &[u32; BURST]) {
        self.floor
            .forward(how, black_box(places), black_box(&mut self.frames));
    }

    /// The frames, as the last burst left them.
    pub fn frames(&self) -> &[BenchFrame; BURST] {
        &self.frames
    }

    fn run(&mut self, seed: u64, bursts: usize, mut turn: impl FnMut(&mut Self, &[u32; BURST])) -> f64 {
        let mut order = Order::new(seed, self.n);
        let mut watch = Stopwatch::default();
        for _ in 0..bursts {
            let places = self.prepare(&mut order);
            watch.time(|| turn(self, &places));
        }
        watch.per(bursts * BURST)
    }
}

impl<C: NoUninit + AnyBitPattern + ConnOf> Case for Established<C> {
    fn names(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::V4 => &["established v4", "established v4, floor by PREFETCHT0"],
            Kind::V6 => &["established v6"],
            Kind::Nat64 => &["established nat64"],
        }
    }

    fn engine(&mut self, seed: u64, bursts: usize) -> Vec<f64> {
        let before = self.worker.counters().tx_packets;
        let ns = self.run(seed, bursts, |me, _| me.forward());
        assert!(
            self.verdicts
                .as_slice()
                .iter()
                .all(|v| matches!(v, Verdict::Tx(_))),
            "{:?}",
            self.verdicts
        );
        assert_eq!(
            self.worker.counters().tx_packets - before,
            (bursts * BURST) as u64,
            "all were forwarded"
        );
        vec![ns; self.names().len()]
    }

    fn floor(&mut self, seed: u64, bursts: usize) -> Vec<f64> {
        let mut ns = vec![self.run(seed, bursts, |me, places| me.floor_forward(Ask::T1, places))];
        if self.names().len() > 1 {
            // Other packets: those of the run before lie in the cache.
            ns.push(self.run(!seed, bursts, |me, places| me.floor_forward(Ask::T0, places)));
        }
        ns
    }
}

/// New IPv4 conns: SYNs that are scheduled, get a local port and are forwarded; then they expire.
pub struct Open {
    n: u32,
    next: u32,
    worker: Worker,
    floor: Floor<Conn4>,
    frames: Box<[BenchFrame; BURST]>,
    verdicts: Verdicts,
    now: Instant,
}

impl Open {
    /// `n` conns on both sides.
    pub fn new(n: u32, pages: Pages) -> Result<Self, MapError> {
        Ok(Open {
            n,
            next: 0,
            worker: world::established(Kind::V4, n, WEEK, pages)?,
            floor: Floor::new(Kind::V4, n, n + SPARE, pages)?,
            frames: BenchFrame::burst(),
            verdicts: Verdicts::default(),
            now: Instant::ZERO,
        })
    }

    /// Makes the SYNs of the next burst.
    pub fn prepare(&mut self) {
        for frame in self.frames.iter_mut() {
            write_syn(frame, Kind::V4, self.n + self.next % NEW_FLOWS);
            self.next += 1;
        }
    }

    /// Opens conns.
    #[inline]
    pub fn burst(&mut self) {
        self.worker
            .handle_burst(self.now, &mut self.frames[..], &mut self.verdicts);
    }

    /// Lets more time go by than a conn is given whose SYN is not answered.
    pub fn wait(&mut self) {
        self.now = self.now + Duration::from_secs(31);
    }

    /// Lets conns expire, as many as a call does.
    #[inline]
    pub fn expire(&mut self) {
        self.worker.handle_timeout(self.now);
    }
}

/// Flows that `Open` takes its new ones from.
const NEW_FLOWS: u32 = 1 << 20;

impl Case for Open {
    fn names(&self) -> &'static [&'static str] {
        &["new conn", "expiry"]
    }

    fn engine(&mut self, _: u64, bursts: usize) -> Vec<f64> {
        let bursts = bursts.min(SPARE as usize / BURST);
        let conns = bursts * BURST;
        let mut open = Stopwatch::default();
        for _ in 0..bursts {
            self.prepare();
            open.time(|| self.burst());
        }
        assert_eq!(
            self.worker.table().len(),
            self.n as usize + conns,
            "{:?}",
            self.worker.counters()
        );
        let mut expire = Stopwatch::default();
        self.wait();
        while self.worker.table().len() > self.n as usize {
            expire.time(|| self.expire());
        }
        assert_eq!(
            self.worker.table().len(),
            self.n as usize,
            "the established ones are still there"
        );
        vec![open.per(conns), expire.per(conns)]
    }

    fn floor(&mut self, _: u64, bursts: usize) -> Vec<f64> {
        let bursts = bursts.min(SPARE as usize / BURST);
        let conns = bursts * BURST;
        let places = |floor: &Floor<Conn4>, first: u32| -> [[u32; 2]; BURST] {
            std::array::from_fn(|i| {
                [false, true].map(|outbound| {
                    floor.place(Packet {
                        flow: first + i as u32,
                        outbound,
                    })
                })
            })
        };
        let (mut open, mut expire) = (Stopwatch::default(), Stopwatch::default());
        for burst in 0..bursts {
            let first = self.n + (burst * BURST) as u32;
            let at = places(&self.floor, first);
            open.time(|| self.floor.open(Kind::V4, first, black_box(&at)));
        }
        for burst in 0..bursts {
            let first = self.n + (burst * BURST) as u32;
            let at = places(&self.floor, first);
            expire.time(|| self.floor.expire(first, black_box(&at)));
        }
        vec![open.per(conns), expire.per(conns)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The floor does the whole rewrite: the same bytes come out of it as out of the engine.
    fn floor_and_engine_write_the_same<C: NoUninit + AnyBitPattern + ConnOf>(kind: Kind) {
        let mut case = Established::<C>::new(kind, 1000, Pages::Small).expect("a few megabytes");
        for seed in 0..20 {
            case.prepare(&mut Order::new(seed, 1000));
            let fresh = case.frames.clone();
            case.forward();
            assert!(
                case.verdicts
                    .as_slice()
                    .iter()
                    .all(|v| matches!(v, Verdict::Tx(_))),
                "{:?}",
                case.verdicts
            );
            let by_engine = case.frames.clone();
            let places = case.prepare(&mut Order::new(seed, 1000));
            case.floor_forward(Ask::T1, &places);
            for ((fresh, engine), floor) in fresh.iter().zip(by_engine.iter()).zip(case.frames.iter()) {
                assert_ne!(fresh.data(), engine.data(), "it was rewritten");
                assert_eq!(engine.data(), floor.data());
            }
        }
    }

    #[test]
    fn floor_and_engine_write_the_same_v4() {
        floor_and_engine_write_the_same::<Conn4>(Kind::V4);
    }

    #[test]
    fn floor_and_engine_write_the_same_v6() {
        floor_and_engine_write_the_same::<Conn6>(Kind::V6);
    }

    #[test]
    fn floor_and_engine_write_the_same_nat64() {
        floor_and_engine_write_the_same::<Conn6>(Kind::Nat64);
    }

    #[test]
    fn every_case_runs() {
        for name in CASES {
            let mut case = case(name, 5000, Pages::Small).expect("a few megabytes");
            let rows = crate::measure::compare(&mut *case, 2, 3);
            assert_eq!(rows.len(), case.names().len());
            assert!(
                rows.iter().all(|row| row.engine_ns > 0.0 && row.floor_ns > 0.0),
                "{rows:?}"
            );
        }
    }
}
