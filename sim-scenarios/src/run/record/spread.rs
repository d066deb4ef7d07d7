//! A distribution of times in bounded memory.

use std::collections::BTreeMap;

/// Of each power of two so many parts: a value is known to 1/32 of itself.
const PART_BITS: u32 = 5;

/// Times, counted in steps that grow with them; at most 1,920 of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spread {
    counts: BTreeMap<u16, u64>,
    pub(crate) count: u64,
    pub(crate) least_ns: u64,
    pub(crate) greatest_ns: u64,
}

/// The step in which a time is.
pub(crate) fn step(ns: u64) -> u16 {
    let parts = 1 << PART_BITS;
    if ns < parts {
        return ns as u16;
    }
    let shift = ns.ilog2() - PART_BITS;
    (((shift + 1) << PART_BITS) as u64 + ((ns >> shift) - parts)) as u16
}

/// The least time that is in a step.
pub(crate) fn least(step: u16) -> u64 {
    let (row, part) = (
        u32::from(step) >> PART_BITS,
        u64::from(step) & ((1 << PART_BITS) - 1),
    );
    match row {
        0 => part,
        row => ((1 << PART_BITS) + part) << (row - 1),
    }
}

impl Spread {
    /// Of all these.
    pub(crate) fn of(times: impl IntoIterator<Item = u64>) -> Spread {
        let mut spread = Spread::default();
        times.into_iter().for_each(|ns| spread.add(ns));
        spread
    }

    pub(crate) fn add(&mut self, ns: u64) {
        self.least_ns = if self.count == 0 {
            ns
        } else {
            self.least_ns.min(ns)
        };
        self.greatest_ns = self.greatest_ns.max(ns);
        self.count += 1;
        *self.counts.entry(step(ns)).or_default() += 1;
    }

    /// Steps that hold something, in order, and how much.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.counts.iter().map(|(step, n)| (*step, *n))
    }

    /// The time that so many thousandths do not exceed, to 1/32 of it; `None`: there is none.
    pub(crate) fn quantile(&self, thousandths: u64) -> Option<u64> {
        let rank = (self.count * thousandths)
            .div_ceil(1_000)
            .clamp(1, self.count.max(1));
        let mut below = 0;
        let found = self.steps().find(|(_, n)| {
            below += n;
            below >= rank
        });
        let (step, _) = found?;
        Some((least(step + 1) - 1).clamp(self.least_ns, self.greatest_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_begins_where_the_one_before_it_ends() {
        for s in 0..1_000u16 {
            assert_eq!(step(least(s)), s);
            assert_eq!(step(least(s + 1) - 1), s, "step {s}");
        }
        assert!(step(u64::MAX) < 1_920);
    }

    #[test]
    fn a_quantile_is_a_time_that_so_many_do_not_exceed() {
        let spread = Spread::of((1..=1_000).map(|n| n * 1_000_000));
        for (thousandths, ms) in [(0, 1), (500, 500), (900, 900), (990, 990), (1_000, 1_000)] {
            let (exact, told) = (ms * 1_000_000, spread.quantile(thousandths).expect("some"));
            assert!(
                told >= exact && told - exact <= exact / 32 + 1,
                "{thousandths}: {told}"
            );
        }
        assert_eq!(Spread::default().quantile(500), None);
        assert_eq!(Spread::of([7]).quantile(999), Some(7));
    }
}
