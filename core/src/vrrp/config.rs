//! What an instance is made with.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use crate::service::is_unicast;
use crate::tuple::Family;
use crate::wire::vrrp::{INTERVAL_MAX, PRIORITY_OWNER};

/// Virtual addresses of an IPv4 instance at most: what an advertisement counts.
pub const ADDR_COUNT_MAX_V4: usize = 255;
/// Virtual addresses of an IPv6 instance at most: what fits 1,500 bytes.
pub const ADDR_COUNT_MAX_V6: usize = 90;

/// A virtual router, as one node sees it. The family is that of `primary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpConfig {
    /// Number of the virtual router, 1 to 255.
    pub vrid: u8,
    /// Priority, 1 to 255; 255 says that the virtual addresses are this node's own.
    pub priority: u8,
    /// Time between advertisements in centiseconds, 1 to 4095.
    pub interval_cs: u16,
    /// Whether a master of lower priority is replaced. An owner replaces it always.
    pub preempt: bool,
    /// Source address of advertisements: the interface's primary IPv4, or its link-local IPv6 address.
    pub primary: IpAddr,
    /// The virtual addresses, all of the same family as `primary`.
    pub addrs: Vec<IpAddr>,
    /// Whether unsolicited neighbour advertisements say that the sender is a router.
    pub router: bool,
    /// Whether the checksum over IPv4 covers a pseudo-header: `true` as keepalived and Wireshark have it when
    /// they are not told otherwise, `false` as RFC 9568 has it. Both are accepted.
    pub ipv4_pseudo_header: bool,
    /// How long before others may take over a lease ends.
    pub lease_margin: Duration,
}

/// Why there can be no such instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpConfigError {
    /// The number is 0.
    Vrid,
    /// The priority is 0, which is said by a master that stops.
    Priority,
    /// The interval is 0, or more than 4095 centiseconds.
    Interval,
    /// No host sends from the primary address.
    Primary,
    /// No virtual address, or more than an advertisement holds.
    AddrCount,
    /// A virtual address is not a host's, or not of the primary address's family.
    Addr(IpAddr),
    /// The lease would end before the next advertisement is sent.
    LeaseMargin,
}

impl fmt::Display for VrrpConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vrid => f.write_str("a virtual router's number is 1 to 255"),
            Self::Priority => f.write_str("a priority is 1 to 255"),
            Self::Interval => write!(
                f,
                "the time between advertisements is 1 to {INTERVAL_MAX} centiseconds"
            ),
            Self::Primary => f.write_str("no host sends from the primary address"),
            Self::AddrCount => write!(
                f,
                "a virtual router has 1 to {ADDR_COUNT_MAX_V4} IPv4 or 1 to {ADDR_COUNT_MAX_V6} IPv6 addresses"
            ),
            Self::Addr(addr) => write!(f, "{addr} cannot be an address of this virtual router"),
            Self::LeaseMargin => f.write_str("with this margin the lease ends before the next advertisement"),
        }
    }
}

impl core::error::Error for VrrpConfigError {}

impl VrrpConfig {
    /// The family of the instance.
    pub fn family(&self) -> Family {
        Family::of(&self.primary)
    }

    /// Whether the virtual addresses are this node's own.
    pub const fn is_owner(&self) -> bool {
        self.priority == PRIORITY_OWNER
    }

    /// Time between advertisements.
    pub const fn interval(&self) -> Duration {
        centiseconds(self.interval_cs)
    }

    /// How long a lease lasts from when an advertisement was sent: until the quickest backup's
    /// Master_Down_Interval has passed, less the margin.
    pub(super) fn lease(&self) -> Duration {
        master_down_interval(PRIORITY_OWNER, self.interval()).saturating_sub(self.lease_margin)
    }

    pub(super) fn check(&self) -> Result<(), VrrpConfigError> {
        let max = match self.family() {
            Family::V4 => ADDR_COUNT_MAX_V4,
            Family::V6 => ADDR_COUNT_MAX_V6,
        };
        let bad = |addr: &&IpAddr| Family::of(addr) != self.family() || !is_unicast(**addr);
        if self.vrid == 0 {
            Err(VrrpConfigError::Vrid)
        } else if self.priority == 0 {
            Err(VrrpConfigError::Priority)
        } else if !(1..=INTERVAL_MAX).contains(&self.interval_cs) {
            Err(VrrpConfigError::Interval)
        } else if !is_unicast(self.primary) {
            Err(VrrpConfigError::Primary)
        } else if !(1..=max).contains(&self.addrs.len()) {
            Err(VrrpConfigError::AddrCount)
        } else if let Some(addr) = self.addrs.iter().find(bad) {
            Err(VrrpConfigError::Addr(*addr))
        } else if self.lease() <= self.interval() {
            Err(VrrpConfigError::LeaseMargin)
        } else {
            Ok(())
        }
    }
}

/// A number of centiseconds.
pub(super) const fn centiseconds(n: u16) -> Duration {
    Duration::from_millis(n as u64 * 10)
}

/// Skew_Time (RFC 9568, section 6.1): the lower the priority, the longer.
pub(super) fn skew_time(priority: u8, interval: Duration) -> Duration {
    interval * (256 - u32::from(priority)) / 256
}

/// Active_Down_Interval (RFC 9568, section 6.1), Master_Down_Interval before it.
pub(super) fn master_down_interval(priority: u8, interval: Duration) -> Duration {
    interval * 3 + skew_time(priority, interval)
}
