//! What became of frames: nothing is lost without a reason.

use std::fmt;

use crate::ids::LinkId;

/// What a frame may have become at one place, at most.
const PARTS_MAX: usize = 10;

/// A place where frames come in, and what became of each. Right if both sides are equal. Nothing of it is allocated: the
/// books are looked at all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account<'a> {
    /// Of what.
    pub of: AccountOf<'a>,
    /// Frames that came: sent into a link, or received by a load balancer.
    pub came: u64,
    /// What became of them: those that still wait or are on their way included, each counted once. Places without a name are free.
    pub became: [(&'static str, u64); PARTS_MAX],
}

/// Whose account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountOf<'a> {
    /// A link, one way.
    Link(LinkId, &'static str),
    /// A machine, or what is behind its name of it.
    Machine(&'a str, &'static str),
}

impl fmt::Display for AccountOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccountOf::Link(link, way) => write!(f, "{link} {way}"),
            AccountOf::Machine(name, part) => write!(f, "{name}{part}"),
        }
    }
}

impl<'a> Account<'a> {
    /// Of what, how many came, and what became of them.
    pub(crate) fn new<const N: usize>(of: AccountOf<'a>, came: u64, all: [(&'static str, u64); N]) -> Self {
        const { assert!(N <= PARTS_MAX) };
        let mut became = [("", 0); PARTS_MAX];
        became[..N].copy_from_slice(&all);
        Account { of, came, became }
    }

    /// Whether every frame is found again.
    ///
    /// # Errors
    ///
    /// The numbers.
    pub fn check(&self) -> Result<(), String> {
        let found: u64 = self.became.iter().map(|(_, n)| n).sum();
        if found == self.came {
            return Ok(());
        }
        let all = self.became.iter().filter(|(_, n)| *n > 0);
        let all: Vec<_> = all.map(|(what, n)| format!("{what} {n}")).collect();
        Err(format!(
            "{}: {} frames came, and {found} are found again: {}",
            self.of,
            self.came,
            all.join(", ")
        ))
    }
}
