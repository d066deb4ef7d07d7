//! Which LSNs of a space were dealt with: all up to one, and ranges above it.

use alloc::vec::Vec;

use super::{Lsn, LsnRange, RANGE_COUNT_MAX};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watermark {
    /// All up to it.
    pub(super) contiguous: Lsn,
    /// Sorted, apart from each other and from `contiguous`; at most [`RANGE_COUNT_MAX`].
    pub(super) above: Vec<LsnRange>,
}

impl Watermark {
    /// Whether an LSN was dealt with.
    pub(super) fn has(&self, lsn: Lsn) -> bool {
        lsn <= self.contiguous || self.above.iter().any(|r| r.first <= lsn && lsn <= r.last)
    }

    /// The highest LSN that was dealt with.
    pub(super) fn highest(&self) -> Lsn {
        self.above.last().map_or(self.contiguous, |r| r.last)
    }

    /// Whether [`Watermark::add`] would find a place for it.
    pub(super) fn can_take(&self, range: LsnRange) -> bool {
        range.first <= self.contiguous + 1
            || self.above.len() < RANGE_COUNT_MAX
            || self.above.iter().any(|r| touch(*r, range))
    }

    /// Makes room for a range above all that is remembered, by forgetting the lowest range: it counts as missing, and its
    /// records are told again. Were the new one refused, what is told again would be as well, with numbers that only
    /// grow, and no gap below would ever be filled. `false` (and no change): it lies below the lowest range.
    pub(super) fn make_room(&mut self, range: LsnRange) -> bool {
        if self.can_take(range) {
            return true;
        }
        if self.above.first().is_none_or(|lowest| range.first < lowest.first) {
            return false;
        }
        self.above.remove(0);
        true
    }

    /// Adds a range; `false` (and no change) if it makes one range too many.
    pub(super) fn add(&mut self, range: LsnRange) -> bool {
        if !self.can_take(range) {
            return false;
        }
        if range.first <= self.contiguous + 1 {
            self.contiguous = self.contiguous.max(range.last);
        } else {
            let mut whole = range;
            self.above.retain(|r| {
                let touching = touch(*r, range);
                if touching {
                    whole.first = whole.first.min(r.first);
                    whole.last = whole.last.max(r.last);
                }
                !touching
            });
            let at = self.above.partition_point(|r| r.first < whole.first);
            self.above.insert(at, whole);
        }
        // What the contiguous part has reached.
        let contiguous = &mut self.contiguous;
        self.above.retain(|r| {
            let reached = r.first <= *contiguous + 1;
            if reached {
                *contiguous = (*contiguous).max(r.last);
            }
            !reached
        });
        true
    }

    /// What is missing up to `known`, lowest first, without what lies in `gaps`: at most [`RANGE_COUNT_MAX`] ranges.
    pub(super) fn missing(&self, known: Lsn, gaps: &[(LsnRange, Lsn)]) -> Vec<LsnRange> {
        let mut covered: Vec<LsnRange> = self
            .above
            .iter()
            .copied()
            .chain(gaps.iter().map(|g| g.0))
            .collect();
        covered.sort_unstable();
        let mut missing = Vec::new();
        let mut next = self.contiguous + 1;
        for r in covered {
            if missing.len() == RANGE_COUNT_MAX {
                return missing;
            }
            if r.first > next && next <= known {
                missing.push(LsnRange {
                    first: next,
                    last: (r.first - 1).min(known),
                });
            }
            next = next.max(r.last.saturating_add(1));
        }
        if next <= known && missing.len() < RANGE_COUNT_MAX {
            missing.push(LsnRange {
                first: next,
                last: known,
            });
        }
        missing
    }

    /// Fills gaps of which it is said that what was in them is told again up to some LSN, once that is reached.
    pub(super) fn fill(&mut self, gaps: &mut Vec<(LsnRange, Lsn)>) {
        loop {
            gaps.retain(|(g, _)| g.last > self.contiguous);
            let fillable = gaps.iter().position(|&(gap, until)| {
                let own = gaps.iter().filter(|g| g.1 <= until).map(|g| g.0);
                let mut cover: Vec<LsnRange> = self.above.iter().copied().chain(own).collect();
                cover.sort_unstable();
                let mut reached = gap.last.max(self.contiguous);
                for r in cover {
                    if r.first <= reached + 1 {
                        reached = reached.max(r.last);
                    }
                }
                reached >= until && self.can_take(gap)
            });
            let Some(at) = fillable else { return };
            let (gap, _) = gaps.swap_remove(at);
            self.add(gap);
        }
    }
}

fn touch(a: LsnRange, b: LsnRange) -> bool {
    a.first <= b.last.saturating_add(1) && b.first <= a.last.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    #[test]
    fn the_newest_finds_room_and_gaps_fill_in_the_end() {
        let one = |lsn| LsnRange {
            first: lsn,
            last: lsn,
        };
        let mut mark = Watermark::default();
        // Every second record is lost, for longer than ranges are remembered.
        let count = 2 * RANGE_COUNT_MAX as u64;
        for lsn in (2..=2 * count).step_by(2) {
            assert!(mark.make_room(one(lsn)) && mark.add(one(lsn)));
            assert!(mark.above.len() <= RANGE_COUNT_MAX);
        }
        assert_eq!(mark.highest(), 2 * count);
        assert!(!mark.make_room(one(2)), "below the lowest");
        // What is missing is told again, and nothing is lost any more.
        let missing = mark.missing(2 * count, &[]);
        let mut last = 2 * count;
        for gap in &missing {
            for _ in gap.first..=gap.last {
                last += 1;
                assert!(mark.make_room(one(last)) && mark.add(one(last)));
            }
        }
        let mut gaps: Vec<_> = missing.into_iter().map(|gap| (gap, last)).collect();
        mark.fill(&mut gaps);
        assert_eq!((mark.contiguous, mark.above.len(), gaps.len()), (last, 0, 0));
    }

    fn range(first: Lsn, last: Lsn) -> LsnRange {
        LsnRange { first, last }
    }

    proptest! {
        /// The slow twin: a set of numbers.
        #[test]
        fn equals_a_set(steps in prop::collection::vec((1u64..150, 0u64..4), 1..120)) {
            let mut mark = Watermark::default();
            let mut twin = BTreeSet::new();
            for (first, more) in steps {
                let r = range(first, first + more);
                if mark.add(r) {
                    twin.extend(r.first..=r.last);
                }
                let contiguous = (1..).take_while(|n| twin.contains(n)).count() as u64;
                prop_assert_eq!(mark.contiguous, contiguous);
                prop_assert!(mark.above.len() <= RANGE_COUNT_MAX);
                for n in 1..160 {
                    prop_assert_eq!(mark.has(n), twin.contains(&n));
                }
                let missing: Vec<u64> = mark.missing(155, &[]).iter().flat_map(|r| r.first..=r.last).collect();
                let want: Vec<u64> = (1..=155).filter(|n| !twin.contains(n)).collect();
                prop_assert_eq!(&missing[..], &want[..missing.len()]);
                prop_assert!(missing.len() == want.len() || mark.missing(155, &[]).len() == RANGE_COUNT_MAX);
            }
        }
    }

    #[test]
    fn a_gap_is_filled_once_what_replaces_it_is_there() {
        let mut mark = Watermark::default();
        mark.add(range(1, 4));
        mark.add(range(8, 9));
        // 5 to 7 were told again as 10 and 11.
        let mut gaps = alloc::vec![(range(5, 7), 11)];
        mark.fill(&mut gaps);
        assert_eq!(mark.contiguous, 4, "11 is not there");
        assert!(mark.missing(11, &gaps).contains(&range(10, 11)));
        mark.add(range(11, 11));
        mark.fill(&mut gaps);
        assert_eq!(mark.contiguous, 4, "10 is not there");
        // 10 was lost too, and told again as 12.
        gaps.push((range(10, 10), 12));
        mark.fill(&mut gaps);
        assert_eq!(
            mark.contiguous, 4,
            "the gap within waits for more than the gap does"
        );
        mark.add(range(12, 12));
        mark.fill(&mut gaps);
        assert_eq!(mark.contiguous, 12);
        assert!(gaps.is_empty() && mark.above.is_empty());
    }
}
