//! What became of frames: nothing is lost without a reason.

/// A place where frames come in, and what became of each. Right if both sides are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Of what.
    pub name: String,
    /// Frames that came: sent into a link, or received by a load balancer.
    pub came: u64,
    /// What became of them, those that still wait or are on their way included: each is counted once.
    pub became: Vec<(&'static str, u64)>,
}

impl Account {
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
            self.name,
            self.came,
            all.join(", ")
        ))
    }
}
