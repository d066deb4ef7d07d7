//! Instructions of a burst of 32, counted by valgrind: the same on every run of one build.
//!
//!     apt-get install valgrind; cargo install --locked gungraun-runner --version 0.20.0
//!     cargo bench -p evenkeel-benches --bench instructions

#![allow(missing_docs, reason = "the macros make public modules")]

use evenkeel_benches::cases::{Established, Lookup, Open, Parse, lookup_burst, parse_burst};
use evenkeel_benches::floor::{Ask, BURST, Conn4, Conn6};
use evenkeel_benches::flows::{Kind, Order};
use evenkeel_core::conn::ConnId;
use evenkeel_core::probe::Probe;
use evenkeel_node::memory::Pages;
use gungraun::prelude::*;

/// Conns in the table: instructions do not depend on it, but for the share of second buckets.
const CONNS: u32 = 65_536;
const PACKETS: &str = "a few megabytes of memory";

fn parse(kind: Kind) -> Parse {
    let mut case = Parse::new();
    case.prepare(kind, &mut Order::new(1, CONNS));
    case
}

#[library_benchmark]
#[bench::v4(parse(Kind::V4))]
#[bench::v6(parse(Kind::V6))]
fn parsing(case: Parse) -> (Parse, [Option<Probe>; BURST]) {
    let mut out = [None; BURST];
    parse_burst(case.frames(), &mut out);
    (case, out)
}

fn looked_up(hit: bool) -> (Lookup, [Probe; BURST]) {
    let mut case = Lookup::new(CONNS, Pages::Small).expect(PACKETS);
    let probes = case.probes(&mut Order::new(1, CONNS), if hit { 0 } else { CONNS });
    (case, probes)
}

#[library_benchmark]
#[bench::hit(looked_up(true))]
#[bench::miss(looked_up(false))]
fn lookup((case, probes): (Lookup, [Probe; BURST])) -> (Lookup, [Option<ConnId>; BURST]) {
    let mut found = [None; BURST];
    lookup_burst(case.worker(), &probes, &mut found);
    (case, found)
}

fn v4() -> (Established<Conn4>, [u32; BURST]) {
    let mut case = Established::new(Kind::V4, CONNS, Pages::Small).expect(PACKETS);
    let places = case.prepare(&mut Order::new(1, CONNS));
    (case, places)
}

fn wide(kind: Kind) -> (Established<Conn6>, [u32; BURST]) {
    let mut case = Established::new(kind, CONNS, Pages::Small).expect(PACKETS);
    let places = case.prepare(&mut Order::new(1, CONNS));
    (case, places)
}

#[library_benchmark]
#[bench::v4(v4())]
fn established((mut case, _): (Established<Conn4>, [u32; BURST])) -> Established<Conn4> {
    case.forward();
    case
}

#[library_benchmark]
#[bench::v6(wide(Kind::V6))]
#[bench::nat64(wide(Kind::Nat64))]
fn established_wide((mut case, _): (Established<Conn6>, [u32; BURST])) -> Established<Conn6> {
    case.forward();
    case
}

#[library_benchmark]
#[bench::v4(v4())]
fn floor((mut case, places): (Established<Conn4>, [u32; BURST])) -> Established<Conn4> {
    case.floor_forward(Ask::T1, &places);
    case
}

fn syns() -> Open {
    let mut case = Open::new(CONNS, Pages::Small).expect(PACKETS);
    case.prepare();
    case
}

#[library_benchmark]
#[bench::v4(syns())]
fn new_conn(mut case: Open) -> Open {
    case.burst();
    case
}

fn opened() -> Open {
    let mut case = syns();
    case.burst();
    case.wait();
    case
}

#[library_benchmark]
#[bench::v4(opened())]
fn expiry(mut case: Open) -> Open {
    case.expire();
    case
}

library_benchmark_group!(
    name = bursts_of_32,
    benchmarks = [
        parsing,
        lookup,
        established,
        established_wide,
        floor,
        new_conn,
        expiry
    ]
);
main!(library_benchmark_groups = bursts_of_32);
