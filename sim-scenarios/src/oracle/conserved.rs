//! `conserved`: the books of all places where frames come in.

use std::time::Duration;

use evenkeel_io_sim::Account;

use super::Found;

/// `conserved`.
#[derive(Debug, Default)]
pub(crate) struct Conserved {
    pub(crate) found: Found,
}

impl Conserved {
    /// What became of all frames so far, by place.
    pub(crate) fn sample(&mut self, at: Duration, accounts: &[Account<'_>]) {
        for account in accounts {
            self.found.looked += account.came;
            if let Err(wrong) = account.check() {
                self.found.add(at, || wrong);
            }
        }
    }
}
