//! A share of the runs, for one of several machines.

use std::fmt;
use std::str::FromStr;

/// Shards at most.
const SHARD_COUNT_MAX: u64 = 10_000;

/// `I/N`: the `I`th of `N` shares, from 0 on, as Kubernetes and CI systems number their jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    index: u64,
    count: u64,
}

impl Shard {
    /// Whether the `n`th run is in it. Runs are dealt in turn, so that each shard has seeds of every scenario.
    pub(super) fn has(self, n: u64) -> bool {
        n % self.count == self.index
    }

    /// Whether it is the one that tells what is told once.
    pub(super) fn is_first(self) -> bool {
        self.index == 0
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('/')
            .and_then(|(i, n)| Some((i.parse::<u64>().ok()?, n.parse::<u64>().ok()?)));
        match numbers {
            None => Err("write two numbers, such as 0/4: the first of four shards".into()),
            Some((_, n)) if !(1..=SHARD_COUNT_MAX).contains(&n) => {
                Err(format!("1 to {SHARD_COUNT_MAX} shards"))
            }
            Some((i, n)) if i >= n => Err(format!(
                "shards count from 0: of {n} the last one is {}/{n}",
                n - 1
            )),
            Some((index, count)) => Ok(Shard { index, count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_disjoint_and_have_all() {
        for count in [1, 2, 3, 7, 100] {
            for runs in [0, 1, 5, 100] {
                let mut had = vec![0; runs];
                for index in 0..count {
                    let shard: Shard = format!("{index}/{count}").parse().expect("good");
                    for (n, had) in (0..).zip(&mut had) {
                        *had += u32::from(shard.has(n));
                    }
                }
                assert!(
                    had.iter().all(|n| *n == 1),
                    "{count} shards of {runs} runs: {had:?}"
                );
            }
        }
    }

    #[test]
    fn shards_are_read_and_refused_with_what_to_write() {
        assert_eq!("3/4".parse(), Ok(Shard { index: 3, count: 4 }));
        for (text, words) in [
            ("4/4", "the last one is 3/4"),
            ("0/0", "1 to 10000 shards"),
            ("1", "two numbers"),
            ("-1/4", "two numbers"),
            ("", "two numbers"),
        ] {
            assert!(text.parse::<Shard>().expect_err(text).contains(words), "{text}");
        }
    }
}
