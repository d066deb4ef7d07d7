//! Rise and fall: what a server is by the results of its checks. Pure.

/// What is known of one server. The first result decides at once; later ones only by so many in a row:
///
/// ```text
///                 success                          failure
///   unknown       up                               down
///   up            (counts anew)                    counts; the `fall`th in a row: down
///   down          counts; the `rise`th in a row: up    (counts anew)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    rise: u8,
    fall: u8,
    up: Option<bool>,
    /// Results in a row that speak against `up`.
    against: u8,
}

impl Standing {
    /// Of a server that was never checked. A limit of 0 is taken as 1.
    pub fn new(rise: u8, fall: u8) -> Self {
        Standing {
            rise: rise.max(1),
            fall: fall.max(1),
            up: None,
            against: 0,
        }
    }

    /// Whether the server is up; `None` before the first result.
    pub fn up(&self) -> Option<bool> {
        self.up
    }

    /// The server is checked in another way from now on: it stays what it is, and counts anew.
    pub fn handle_change(&mut self, rise: u8, fall: u8) {
        let up = self.up;
        *self = Standing {
            up,
            ..Standing::new(rise, fall)
        };
    }

    /// A check was a `success`, or it failed. What the server became by it, if that is something else than before.
    pub fn handle_result(&mut self, success: bool) -> Option<bool> {
        let limit = if success { self.rise } else { self.fall };
        match self.up {
            Some(up) if up == success => {
                self.against = 0;
                return None;
            }
            Some(_) if self.against + 1 < limit => {
                self.against += 1;
                return None;
            }
            // The first result, or the last one of a row.
            _ => {}
        }
        self.up = Some(success);
        self.against = 0;
        self.up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow twin: it keeps all results and looks at those at the end.
    struct Twin {
        results: Vec<bool>,
        up: Option<bool>,
    }

    impl Twin {
        fn handle_result(&mut self, rise: u8, fall: u8, success: bool) -> Option<bool> {
            self.results.push(success);
            let row = self.results.iter().rev().take_while(|&&r| r == success).count();
            let limit = usize::from(if success { rise } else { fall });
            let enough = self.up.is_none() || row >= limit;
            if self.up == Some(success) || !enough {
                return None;
            }
            self.up = Some(success);
            self.up
        }
    }

    #[test]
    fn three_failures_take_away_and_two_successes_bring_back() {
        let mut standing = Standing::new(2, 3);
        assert_eq!(standing.up(), None);
        let told: Vec<_> = [
            true, false, false, true, false, false, false, false, true, false, true, true, true,
        ]
        .into_iter()
        .map(|r| standing.handle_result(r))
        .collect();
        let (none, up, down) = (None, Some(true), Some(false));
        let wanted = [
            up, none, none, none, none, none, down, none, none, none, none, up, none,
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn the_first_result_decides_at_once() {
        for first in [true, false] {
            let mut standing = Standing::new(100, 100);
            assert_eq!(standing.handle_result(first), Some(first));
            assert_eq!(standing.up(), Some(first));
        }
    }

    #[test]
    fn a_change_keeps_the_state_and_counts_anew() {
        let mut standing = Standing::new(2, 3);
        standing.handle_result(true);
        standing.handle_result(false);
        standing.handle_result(false);
        standing.handle_change(2, 2);
        assert_eq!(standing.up(), Some(true));
        assert_eq!(standing.handle_result(false), None, "the first of two");
        assert_eq!(standing.handle_result(false), Some(false));
        // Not even a limit of nothing is passed without a result.
        standing.handle_change(0, 0);
        assert_eq!(standing.up(), Some(false));
        assert_eq!(standing.handle_result(true), Some(true));
    }

    proptest! {
        #[test]
        fn it_is_what_the_results_at_the_end_say(
            rise in 1u8..=5, fall in 1u8..=5, results in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut standing = Standing::new(rise, fall);
            let mut twin = Twin { results: Vec::new(), up: None };
            let mut last = None;
            for result in results {
                let told = standing.handle_result(result);
                prop_assert_eq!(told, twin.handle_result(rise, fall, result));
                prop_assert_eq!(standing.up(), twin.up);
                if let Some(up) = told {
                    prop_assert!(up == result && last != Some(up), "what is told is news");
                    last = Some(up);
                }
            }
            prop_assert_eq!(standing.up(), last);
        }

        #[test]
        fn longest_rows_below_the_limits_change_nothing(
            up in any::<bool>(), limit in 2u8..=255, rows in proptest::collection::vec(1u8..=254, 0..20),
        ) {
            let mut standing = Standing::new(limit, limit);
            standing.handle_result(up);
            for row in rows {
                for _ in 0..row.min(limit - 1) {
                    prop_assert_eq!(standing.handle_result(!up), None);
                }
                prop_assert_eq!(standing.handle_result(up), None);
            }
        }
    }
}
