//! `bounds`: everything in which something can wait or stay.

use std::time::Duration;

use super::Found;

/// How full something is or was, at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// Whose.
    pub(crate) node: String,
    /// What.
    pub(crate) what: &'static str,
    pub(crate) held: u64,
    pub(crate) bound: u64,
}

/// `bounds`.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) found: Found,
}

impl Bounds {
    pub(crate) fn sample(&mut self, at: Duration, levels: &[Level]) {
        for level in levels {
            self.found.looked += 1;
            if level.held > level.bound {
                self.found.add(at, || {
                    format!(
                        "{}: a {} held {}, and {} is its bound",
                        level.node, level.what, level.held, level.bound
                    )
                });
            }
        }
    }
}
