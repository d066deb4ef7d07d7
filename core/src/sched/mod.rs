//! Scheduling: which real server takes a new conn. One policy a file. A policy is compiled into a cycle
//! of server places when the snapshot is made, so that a pick is one indexed read and the position, one
//! number per (service, bucket), is all the state there is.

mod rr;
mod wrr;

use alloc::vec::Vec;

/// Longest cycle of a service: the sum of its weights, divided by their common factor.
pub const CYCLE_LEN_MAX: usize = 65_536;

/// The scheduling policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchedulerKind {
    /// Round robin: each server in turn; weight 0 takes none, other weights are equal.
    #[default]
    RoundRobin,
    /// Weighted round robin: in proportion to weights, smoothly interleaved.
    WeightedRoundRobin,
}

impl SchedulerKind {
    /// The cycle of places (indices into `weights`) that conns are dealt to in turn. Empty when every
    /// weight is 0; `None` when it would be longer than [`CYCLE_LEN_MAX`].
    pub(crate) fn cycle(self, weights: &[u16]) -> Option<Vec<u16>> {
        match self {
            SchedulerKind::RoundRobin => Some(rr::cycle(weights)),
            SchedulerKind::WeightedRoundRobin => wrr::cycle(weights),
        }
    }
}

/// The position at which a bucket begins: buckets start spread over the cycle, or the first conn of
/// every bucket would go to the same server.
pub(crate) fn start_position(bucket: u16, buckets: u16, cycle_len: usize) -> u32 {
    let at = u64::from(bucket) * cycle_len as u64 / u64::from(buckets.max(1));
    at as u32
}

/// Takes the place at `position` and moves the position on. `None` if the cycle is empty. A position
/// beyond the cycle (the service was reloaded with fewer servers) goes on at its remainder.
pub(crate) fn pick(cycle: &[u16], position: &mut u32) -> Option<u16> {
    if cycle.is_empty() {
        return None;
    }
    let mut at = *position as usize;
    if at >= cycle.len() {
        at %= cycle.len();
    }
    *position = if at + 1 == cycle.len() { 0 } else { at as u32 + 1 };
    cycle.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(kind: SchedulerKind, weights: &[u16], picks: usize) -> Vec<usize> {
        let cycle = kind.cycle(weights).expect("cycle fits");
        let mut position = 0;
        let mut n = alloc::vec![0; weights.len()];
        for _ in 0..picks {
            n[usize::from(pick(&cycle, &mut position).expect("a server"))] += 1;
        }
        n
    }

    #[test]
    fn round_robin_takes_each_server_in_turn_and_skips_weight_zero() {
        let cycle = SchedulerKind::RoundRobin
            .cycle(&[5, 0, 1, 9])
            .expect("cycle fits");
        let mut position = 0;
        let taken: Vec<_> = (0..6).filter_map(|_| pick(&cycle, &mut position)).collect();
        assert_eq!(taken, [0, 2, 3, 0, 2, 3]);
    }

    #[test]
    fn weighted_round_robin_is_exact_over_a_cycle_and_smooth_within() {
        assert_eq!(
            counts(SchedulerKind::WeightedRoundRobin, &[4, 2, 1, 0], 70),
            [40, 20, 10, 0]
        );
        let cycle = SchedulerKind::WeightedRoundRobin
            .cycle(&[5, 1, 1])
            .expect("cycle fits");
        assert_eq!(cycle, [0, 0, 1, 0, 2, 0, 0], "not all of server 0 first");
    }

    #[test]
    fn common_factors_do_not_lengthen_the_cycle() {
        let cycle = SchedulerKind::WeightedRoundRobin
            .cycle(&[1000, 500])
            .expect("cycle fits");
        assert_eq!(cycle.len(), 3);
    }

    #[test]
    fn no_server_with_weight_means_no_pick() {
        for kind in [SchedulerKind::RoundRobin, SchedulerKind::WeightedRoundRobin] {
            for weights in [&[][..], &[0, 0]] {
                assert_eq!(pick(&kind.cycle(weights).expect("cycle fits"), &mut 0), None);
            }
        }
    }

    #[test]
    fn a_cycle_beyond_the_bound_is_refused() {
        let weights: Vec<u16> = (0..600).map(|i| if i % 2 == 0 { 1000 } else { 999 }).collect();
        assert_eq!(SchedulerKind::WeightedRoundRobin.cycle(&weights), None);
    }

    #[test]
    fn a_position_from_a_longer_cycle_goes_on() {
        let cycle = SchedulerKind::RoundRobin.cycle(&[1, 1]).expect("cycle fits");
        let mut position = 7;
        assert_eq!(pick(&cycle, &mut position), Some(1));
        assert_eq!(pick(&cycle, &mut position), Some(0));
    }

    #[test]
    fn buckets_start_spread_over_the_servers() {
        let cycle = SchedulerKind::RoundRobin
            .cycle(&[1, 1, 1, 1])
            .expect("cycle fits");
        let mut n = [0; 4];
        for bucket in 0..64 {
            let mut position = start_position(bucket, 64, cycle.len());
            n[usize::from(pick(&cycle, &mut position).expect("a server"))] += 1;
        }
        assert_eq!(n, [16; 4]);
    }

    proptest! {
        #[test]
        fn weighted_counts_follow_weights_at_every_prefix(weights in proptest::collection::vec(0u16..50, 1..8)) {
            let total: usize = weights.iter().map(|&w| usize::from(w)).sum();
            prop_assume!(total > 0);
            for picks in 1..=total {
                for (n, &w) in counts(SchedulerKind::WeightedRoundRobin, &weights, picks).into_iter().zip(&weights) {
                    let (ideal_low, ideal_high) = (picks * usize::from(w) / total, (picks * usize::from(w)).div_ceil(total));
                    // Smooth WRR stays within the number of servers of the ideal at every prefix.
                    prop_assert!(n + weights.len() >= ideal_low && n <= ideal_high + weights.len());
                }
            }
        }
    }
}
