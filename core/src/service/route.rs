//! Routes: longest prefix match over sorted, disjoint ranges, made once.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::port::PortId;
use crate::tuple::Family;
use crate::wire::MacAddr;

/// Where a frame goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Interface.
    pub port: PortId,
    /// Link-layer address of the gateway or of the host itself.
    pub mac: MacAddr,
}

/// What a route says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through a gateway whose link-layer address is known.
    Via(NextHop),
    /// Through a gateway that no neighbour entry knows.
    UnknownGateway {
        /// Interface.
        port: PortId,
        /// Its address.
        addr: IpAddr,
    },
    /// The destination is on the link of this interface.
    OnLink(PortId),
}

/// A route table: for each family the address space cut at every prefix boundary, so that a lookup is
/// one binary search, whatever the prefixes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// `starts[i] ..= starts[i + 1] - 1` is routed by `routes[i]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges<A> {
    starts: Vec<A>,
    routes: Vec<Option<Route>>,
}

impl RouteTable {
    /// Makes a table of `(prefix, length, route)`; of equal prefixes the first wins. Lengths beyond the
    /// family's are taken as the family's.
    pub fn new(routes: &[(IpAddr, u8, Route)]) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for &(prefix, len, route) in routes {
            match prefix {
                IpAddr::V4(a) => {
                    let (first, last) = bounds(u128::from(u32::from(a)), len, 32);
                    v4.push((first as u32, last as u32, len, route));
                }
                IpAddr::V6(a) => {
                    let (first, last) = bounds(u128::from(a), len, 128);
                    v6.push((first, last, len, route));
                }
            }
        }
        RouteTable {
            v4: Ranges::new(v4, u32::MAX),
            v6: Ranges::new(v6, u128::MAX),
        }
    }

    /// The route of an IPv4 destination.
    #[inline]
    pub fn lookup_v4(&self, addr: u32) -> Option<Route> {
        self.v4.lookup(addr)
    }

    /// The route of an IPv6 destination.
    #[inline]
    pub fn lookup_v6(&self, addr: u128) -> Option<Route> {
        self.v6.lookup(addr)
    }

    /// The route of a destination.
    pub fn lookup(&self, addr: IpAddr) -> Option<Route> {
        match addr {
            IpAddr::V4(a) => self.lookup_v4(a.into()),
            IpAddr::V6(a) => self.lookup_v6(a.into()),
        }
    }

    /// The number of the range that holds an IPv4 destination, below [`RouteTable::range_count`].
    #[inline]
    pub(crate) fn range_v4(&self, addr: u32) -> Option<usize> {
        self.v4.range(addr)
    }

    /// As [`RouteTable::range_v4`].
    #[inline]
    pub(crate) fn range_v6(&self, addr: u128) -> Option<usize> {
        self.v6.range(addr)
    }

    /// The routes of a family's ranges, by their numbers.
    pub(crate) fn ranges(&self, family: Family) -> &[Option<Route>] {
        match family {
            Family::V4 => &self.v4.routes,
            Family::V6 => &self.v6.routes,
        }
    }

    /// Ranges of a family, for tests of the bound.
    pub fn range_count(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4.starts.len(),
            Family::V6 => self.v6.starts.len(),
        }
    }
}

/// First and last address of a prefix in a family of `bits` bits.
fn bounds(addr: u128, len: u8, bits: u32) -> (u128, u128) {
    let host_bits = bits - u32::from(len).min(bits);
    let host_mask = if host_bits == 128 {
        u128::MAX
    } else {
        (1u128 << host_bits) - 1
    };
    (addr & !host_mask, addr | host_mask)
}

impl<A: Copy + Ord + Next> Ranges<A> {
    fn new(mut prefixes: Vec<(A, A, u8, Route)>, max: A) -> Self {
        // Outer prefixes before inner ones; a stable sort keeps the first of equals in front.
        prefixes.sort_by_key(|&(first, _, len, _)| (first, len));
        prefixes.dedup_by(|b, a| (a.0, a.2) == (b.0, b.2));
        let mut ranges = Ranges {
            starts: Vec::new(),
            routes: Vec::new(),
        };
        // Prefixes nest or are disjoint, so those that hold the current address form a stack.
        let mut open: Vec<(A, Route)> = Vec::new();
        for (first, last, _, route) in prefixes {
            ranges.close_until(&mut open, first, max);
            ranges.push(first, Some(route));
            open.push((last, route));
        }
        while let Some((last, _)) = open.pop() {
            if last < max {
                ranges.push(last.next(), open.last().map(|&(_, route)| route));
            }
        }
        ranges
    }

    /// Ends the open prefixes that lie wholly before `first`.
    fn close_until(&mut self, open: &mut Vec<(A, Route)>, first: A, max: A) {
        while let Some(&(last, _)) = open.last() {
            if last >= first {
                return;
            }
            open.pop();
            if last < max {
                self.push(last.next(), open.last().map(|&(_, route)| route));
            }
        }
    }

    fn push(&mut self, start: A, route: Option<Route>) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.routes.pop();
        }
        self.starts.push(start);
        self.routes.push(route);
    }

    #[inline]
    fn lookup(&self, addr: A) -> Option<Route> {
        self.routes.get(self.range(addr)?).copied().flatten()
    }

    /// The last range that does not begin behind `addr`.
    #[inline]
    fn range(&self, addr: A) -> Option<usize> {
        self.starts.partition_point(|start| *start <= addr).checked_sub(1)
    }
}

/// The address behind this one.
trait Next {
    fn next(self) -> Self;
}
impl Next for u32 {
    fn next(self) -> Self {
        self.wrapping_add(1)
    }
}
impl Next for u128 {
    fn next(self) -> Self {
        self.wrapping_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    fn naive(routes: &[(IpAddr, u8, Route)], addr: IpAddr) -> Option<Route> {
        let mut best: Option<(u8, Route)> = None;
        for &(prefix, len, route) in routes {
            let holds = match (prefix, addr) {
                (IpAddr::V4(p), IpAddr::V4(a)) => {
                    len == 0 || (u32::from(p) ^ u32::from(a)) >> (32 - len) == 0
                }
                (IpAddr::V6(p), IpAddr::V6(a)) => {
                    len == 0 || (u128::from(p) ^ u128::from(a)) >> (128 - len) == 0
                }
                _ => false,
            };
            if holds && best.is_none_or(|(l, _)| len > l) {
                best = Some((len, route));
            }
        }
        best.map(|(_, route)| route)
    }

    proptest! {
        #[test]
        fn equals_the_naive_longest_match(
            v4 in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            v6 in proptest::collection::vec((any::<u128>(), 0u8..=128), 0..40),
            probes in proptest::collection::vec((any::<prop::sample::Index>(), -2i32..=2), 50),
            wide in any::<bool>(),
        ) {
            // Few distinct high bits, so that prefixes really nest.
            let v4 = v4.iter().map(|&(a, l)| (IpAddr::V4(Ipv4Addr::from(if wide { a } else { a & 0x8101_0101 })), l));
            let v6 = v6.iter().map(|&(a, l)| (IpAddr::V6(Ipv6Addr::from(if wide { a } else { a & (0x8101 << 112 | 0xf) })), l));
            let routes: Vec<_> = (0u16..).zip(v4.chain(v6)).map(|(i, (a, l))| (a, l, Route::OnLink(PortId(i)))).collect();
            prop_assume!(!routes.is_empty());
            let table = RouteTable::new(&routes);
            for (at, off) in probes {
                let (addr, len, _) = routes[at.index(routes.len())];
                let addr = match addr {
                    IpAddr::V4(a) => {
                        let (lo, hi) = bounds(u128::from(u32::from(a)), len, 32);
                        IpAddr::V4(Ipv4Addr::from((if off < 0 { lo } else { hi } as u32).wrapping_add_signed(off)))
                    }
                    IpAddr::V6(a) => {
                        let (lo, hi) = bounds(u128::from(a), len, 128);
                        IpAddr::V6(Ipv6Addr::from((if off < 0 { lo } else { hi }).wrapping_add_signed(off.into())))
                    }
                };
                prop_assert_eq!(table.lookup(addr), naive(&routes, addr), "{}", addr);
            }
        }
    }

    #[test]
    fn no_route_is_none_and_default_catches_all() {
        let none = RouteTable::new(&[]);
        assert_eq!(none.lookup_v4(1), None);
        let default = RouteTable::new(&[(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, Route::OnLink(PortId(1)))]);
        assert_eq!(default.lookup_v4(u32::MAX), Some(Route::OnLink(PortId(1))));
        assert_eq!(default.lookup_v6(1), None);
    }
}
