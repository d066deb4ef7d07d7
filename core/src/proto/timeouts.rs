//! How long a conn lives without a packet, by state.

use core::time::Duration;

use super::ConnState;

/// Longest timeout: seven days. The wheel's 32-bit deadlines reach 24 days.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A timeout for each state, in whole milliseconds, 1 ms to [`TIMEOUT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    ms: [u32; SLOTS],
}

/// More than there are states, so that a byte of a conn needs no check, and a power of two.
const SLOTS: usize = 16;

const _: () = assert!(ConnState::COUNT <= SLOTS);

impl Default for Timeouts {
    /// The defaults of DPVS 1.9 and 1.10.
    fn default() -> Self {
        let mut t = Timeouts { ms: [2_000; SLOTS] };
        for (state, seconds) in [
            (ConnState::None, 2),
            (ConnState::Established, 90),
            (ConnState::SynSent, 3),
            (ConnState::SynRecv, 30),
            (ConnState::FinWait, 7),
            (ConnState::TimeWait, 7),
            (ConnState::Close, 3),
            (ConnState::CloseWait, 7),
            (ConnState::LastAck, 7),
            (ConnState::Listen, 120),
            (ConnState::SynAck, 30),
            (ConnState::UdpOneWay, 300),
            (ConnState::UdpNormal, 300),
        ] {
            t.ms[state as usize] = seconds * 1_000;
        }
        t
    }
}

impl Timeouts {
    /// Sets the timeout of `state`, rounded up to a millisecond; `false` (and no change) if it is not in
    /// 1 ms to [`TIMEOUT_MAX`].
    #[must_use]
    pub fn set(&mut self, state: ConnState, timeout: Duration) -> bool {
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            return false;
        }
        self.ms[state as usize] = timeout.as_nanos().div_ceil(1_000_000) as u32;
        true
    }

    /// The timeout of `state` in milliseconds.
    #[inline]
    pub fn ms(&self, state: ConnState) -> u32 {
        self.ms[state as usize]
    }

    /// The timeout of the state with this number.
    #[inline]
    pub(crate) fn ms_by_number(&self, state: u8) -> u32 {
        self.ms[usize::from(state) % SLOTS]
    }
}
