//! What it costs to bring 32 lines of a table near, and what it costs to read them then:
//! `cargo run --release -p evenkeel-benches --bin lines`.
//!
//! `ask` is the time of asking for all of a batch; `read` that of a chain of dependent reads afterwards, with
//! a pause of pure computation in between that is longer than a memory access. What was dropped, or never asked
//! for, shows as the full latency of its read.

use std::hint::black_box;
use std::process::ExitCode;

use evenkeel_benches::floor::{Ask, BURST, ask};
use evenkeel_benches::measure::{Stopwatch, quantile};
use evenkeel_node::memory::{MappedMemory, Pages};

const ROUNDS: usize = 2000;
const BATCHES: usize = 11;
const WORDS_A_LINE: usize = 8;

#[derive(Clone, Copy, Debug)]
enum How {
    Nothing,
    Prefetch(Ask),
    EarlyRead,
}

fn main() -> ExitCode {
    println!(
        "{:<14} {:<6} {:>6} {:>8} {:>9}  ns a line",
        "asked by", "pages", "MiB", "ask", "read"
    );
    for pages in [Pages::Huge, Pages::Small] {
        for mib in [16usize, 64, 512] {
            let lines = mib << 20 >> 6;
            let mut memory = match MappedMemory::map(lines * 64 + 64, pages) {
                Ok(memory) => memory,
                Err(error) => {
                    eprintln!("lines: {error}");
                    return ExitCode::from(3);
                }
            };
            let words: &mut [u64] = memory.take(lines * WORDS_A_LINE).expect("it was mapped for this");
            for how in [
                How::Nothing,
                How::Prefetch(Ask::T0),
                How::Prefetch(Ask::T1),
                How::EarlyRead,
            ] {
                let (asked, read) = measure(words, how);
                let name = match how {
                    How::Nothing => "nothing".to_owned(),
                    How::Prefetch(hint) => format!("PREFETCH{hint:?}"),
                    How::EarlyRead => "early read".to_owned(),
                };
                println!(
                    "{name:<14} {:<6} {mib:>6} {asked:>8.1} {read:>9.1}",
                    format!("{pages:?}").to_lowercase()
                );
            }
        }
    }
    ExitCode::SUCCESS
}

fn measure(words: &[u64], how: How) -> (f64, f64) {
    let mut random = 1u64;
    let mut place = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % (words.len() / WORDS_A_LINE) * WORDS_A_LINE
    };
    let (mut asked, mut read) = (Vec::new(), Vec::new());
    for _ in 0..BATCHES {
        let (mut asking, mut reading) = (Stopwatch::default(), Stopwatch::default());
        for _ in 0..ROUNDS {
            let places: [usize; BURST] = black_box(std::array::from_fn(|_| place()));
            asking.time(|| {
                for &at in &places {
                    match how {
                        How::Nothing => {}
                        How::Prefetch(hint) => ask(&words[at], hint),
                        How::EarlyRead => {
                            black_box(words[at]);
                        }
                    }
                }
            });
            let mut pause = black_box(3u64);
            for _ in 0..400 {
                pause = pause.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 7;
            }
            black_box(pause);
            reading.time(|| {
                // Every word is zero, which only the machine does not know: each place hangs on the read before.
                black_box(places.iter().fold(0, |sum, &at| sum + words[at + sum as usize]));
            });
        }
        asked.push(asking.per(ROUNDS * BURST));
        read.push(reading.per(ROUNDS * BURST));
    }
    (quantile(&mut asked, 0.5), quantile(&mut read, 0.5))
}
