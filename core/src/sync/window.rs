//! Which packet numbers of a stream may still come.

use super::Refused;

/// Packet numbers below the highest one of a stream that may still come.
pub const WINDOW_LEN: u64 = 4096;

/// Which of the last [`WINDOW_LEN`] packet numbers of a stream were seen.
#[derive(Debug)]
pub(super) struct Window {
    highest: u64,
    /// Bit `n % WINDOW_LEN` of number n.
    seen: [u64; (WINDOW_LEN / 64) as usize],
}

impl Window {
    /// One in which `number` is the first that was seen. Lower ones may still come.
    pub(super) fn new(number: u64) -> Self {
        let mut window = Window {
            highest: number,
            seen: [0; (WINDOW_LEN / 64) as usize],
        };
        window.mark(number);
        window
    }

    /// One of a stream whose next number is `next`, above 0: all lower ones were sent before, and are not taken any more.
    pub(super) fn from(next: u64) -> Self {
        Window {
            highest: next - 1,
            seen: [u64::MAX; (WINDOW_LEN / 64) as usize],
        }
    }

    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    fn bit(number: u64) -> (usize, u64) {
        let bit = number % WINDOW_LEN;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    pub(super) fn check(&self, number: u64) -> Result<(), Refused> {
        if number > self.highest {
            return Ok(());
        }
        if self.highest - number >= WINDOW_LEN {
            return Err(Refused::TooOld);
        }
        let (word, bit) = Self::bit(number);
        if self.seen[word] & bit != 0 {
            return Err(Refused::Replayed);
        }
        Ok(())
    }

    pub(super) fn mark(&mut self, number: u64) {
        if number > self.highest {
            // The places of the numbers between belonged to those that leave the window.
            let ahead = (number - self.highest).min(WINDOW_LEN);
            for back in 0..ahead {
                let (word, bit) = Self::bit(number - back);
                self.seen[word] &= !bit;
            }
            self.highest = number;
        }
        let (word, bit) = Self::bit(number);
        self.seen[word] |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_is_not_taken() {
        for next in [1, 5, 64, WINDOW_LEN, 70_000, u64::MAX] {
            let mut window = Window::from(next);
            for before in [0, next / 2, next - 1] {
                assert!(window.check(before).is_err(), "{before} of {next}");
            }
            for number in [next, next.saturating_add(2), next.saturating_add(1)] {
                if window.check(number).is_ok() {
                    window.mark(number);
                }
                assert_eq!(window.check(number), Err(Refused::Replayed), "{number} of {next}");
            }
            assert!(window.check(next - 1).is_err());
        }
    }
}
