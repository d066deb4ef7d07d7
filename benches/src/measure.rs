//! Measuring: engine and floor in turn, many short batches, medians.

use std::time::Instant;

/// A case: something that the engine does, and its floor.
pub trait Case {
    /// What is measured, a name each.
    fn names(&self) -> &'static [&'static str];
    /// A batch of bursts by the engine: nanoseconds a packet, by name. `seed` determines the packets.
    fn engine(&mut self, seed: u64, bursts: usize) -> Vec<f64>;
    /// The same packets in the same order by the floor.
    fn floor(&mut self, seed: u64, bursts: usize) -> Vec<f64>;
}

/// Sums up the time of what is measured, without what prepares it.
#[derive(Debug, Default)]
pub struct Stopwatch {
    ns: u64,
}

impl Stopwatch {
    /// Runs `what` on the clock.
    #[inline(always)]
    pub fn time<R>(&mut self, what: impl FnOnce() -> R) -> R {
        let begun = Instant::now();
        let result = what();
        self.ns += begun.elapsed().as_nanos() as u64;
        result
    }

    /// Nanoseconds a thing.
    pub fn per(&self, things: usize) -> f64 {
        self.ns as f64 / things.max(1) as f64
    }
}

/// What came out for one name.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Median of the engine's batches, in nanoseconds a packet.
    pub engine_ns: f64,
    /// Median of the floor's.
    pub floor_ns: f64,
    /// Median of the ratios of neighbouring batches.
    pub ratio: f64,
    /// Quarter and three-quarter quantile of these ratios.
    pub ratio_quartiles: (f64, f64),
}

/// Runs `batches` batches of each side in turn; which one begins changes with each pair.
pub fn compare(case: &mut dyn Case, batches: usize, bursts: usize) -> Vec<Row> {
    let names = case.names();
    let mut engine: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    let mut floor = engine.clone();
    let warm = batches.div_ceil(10);
    for pair in 0..warm + batches {
        let seed = 0x1234_5678 ^ (pair as u64) << 32;
        let (e, f) = if pair % 2 == 0 {
            let e = case.engine(seed, bursts);
            (e, case.floor(seed, bursts))
        } else {
            let f = case.floor(seed, bursts);
            (case.engine(seed, bursts), f)
        };
        if pair >= warm {
            for i in 0..names.len() {
                engine[i].push(e[i]);
                floor[i].push(f[i]);
            }
        }
    }
    let row = |i: usize| {
        let mut ratios: Vec<f64> = engine[i].iter().zip(&floor[i]).map(|(e, f)| e / f).collect();
        let (mut engine, mut floor) = (engine[i].clone(), floor[i].clone());
        Row {
            name: names[i].to_owned(),
            engine_ns: quantile(&mut engine, 0.5),
            floor_ns: quantile(&mut floor, 0.5),
            ratio: quantile(&mut ratios, 0.5),
            ratio_quartiles: (quantile(&mut ratios, 0.25), quantile(&mut ratios, 0.75)),
        }
    };
    (0..names.len()).map(row).collect()
}

/// The value below which the share `q` of `values` lies. `values` is not empty.
pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

/// A number of conns from text as `64k` (times 1024), `1m` (times a million) or `50000`, 1000 to 12 million.
pub fn size(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1024),
        None => match text.strip_suffix('m') {
            Some(digits) => (digits, 1_000_000),
            None => (text, 1),
        },
    };
    let n = digits.parse::<u32>().ok().and_then(|n| n.checked_mul(unit));
    n.filter(|n| (1000..=12_000_000).contains(n))
        .ok_or(format!("{text} is not a size from 1000 to 12m"))
}
