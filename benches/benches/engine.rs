//! Each case beside its floor, by criterion; the ratio of interleaved batches is printed after each pair.
//!
//!     cargo bench -p evenkeel-benches --bench engine
//!     EVENKEEL_BENCH_CONNS=64k,1m,10m cargo bench ...    sizes of the table (64k,1m)

#![allow(missing_docs, reason = "the macros make public functions")]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_benches::cases::{CASES, case};
use evenkeel_benches::floor::BURST;
use evenkeel_benches::measure::{Case, compare, size};
use evenkeel_node::memory::Pages;

/// One side of a case.
type Side = fn(&mut dyn Case, u64, usize) -> Vec<f64>;

const SIDES: [(&str, Side); 2] = [
    ("engine", |case, seed, bursts| case.engine(seed, bursts)),
    ("floor", |case, seed, bursts| case.floor(seed, bursts)),
];

/// Bursts of a batch at most: as many as a table has spare places for.
const BURSTS_MAX: usize = 128;

/// Runs `bursts` bursts of a side in batches: nanoseconds of what stands at `place`.
fn run(case: &mut dyn Case, side: Side, place: usize, bursts: u64, seed: &mut u64) -> Duration {
    let mut left = bursts as usize;
    let mut ns = 0.0;
    while left > 0 {
        let batch = left.min(BURSTS_MAX);
        *seed += 1;
        ns += side(case, *seed, batch)[place] * (batch * BURST) as f64;
        left -= batch;
    }
    Duration::from_nanos(ns as u64)
}

fn engine(c: &mut Criterion) {
    let sizes = std::env::var("EVENKEEL_BENCH_CONNS").unwrap_or_else(|_| "64k,1m".into());
    for text in sizes.split(',') {
        let conns = size(text).expect("EVENKEEL_BENCH_CONNS is a list of sizes as 64k,1m");
        for name in CASES {
            let mut case = case(name, conns, Pages::Huge).expect("memory for the tables");
            let mut group = c.benchmark_group(format!("{name}/{text}"));
            group.throughput(Throughput::Elements(BURST as u64));
            let mut seed = 0;
            for (place, name) in case.names().iter().enumerate() {
                for (side_name, side) in SIDES {
                    group.bench_function(BenchmarkId::new(*name, side_name), |b| {
                        b.iter_custom(|bursts| run(&mut *case, side, place, bursts, &mut seed));
                    });
                }
            }
            group.finish();
            for row in compare(&mut *case, 51, BURSTS_MAX) {
                println!(
                    "{} at {text} conns: engine {:.1} ns, floor {:.1} ns, ratio {:.2}",
                    row.name, row.engine_ns, row.floor_ns, row.ratio
                );
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = engine
}
criterion_main!(benches);
