//! The immutable snapshot that workers read, and the checks that it passed.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

use super::{
    FwdMode, LOCAL_ADDR_COUNT_MAX, NEIGHBOUR_COUNT_MAX, NeighbourSpec, NextHop, PORT_COUNT_MAX, PortSpec,
    ROUTE_COUNT_MAX, RealServerId, Replicate, Route, RouteTable, SERVER_COUNT_MAX, SERVERS_PER_SERVICE_MAX,
    SERVICE_COUNT_MAX, ServiceId, ServiceSpec, SnapshotSpec, WEIGHT_MAX,
};
use crate::port::PortId;
use crate::proto::Timeouts;
use crate::tuple::{Family, L4Proto};
use crate::wire::MacAddr;

/// A virtual service as workers read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualService {
    /// Interned id.
    pub id: ServiceId,
    /// Name in config and logs.
    pub name: String,
    /// Transport protocol.
    pub proto: L4Proto,
    /// The address that clients use.
    pub vip: IpAddr,
    /// The port that clients use.
    pub port: u16,
    /// How packets get to the real servers.
    pub mode: FwdMode,
    /// Timeouts of its conns.
    pub timeouts: Timeouts,
    /// From when on other nodes are told of its conns.
    pub replicate: Replicate,
    /// Real servers, in the order of the config.
    pub servers: Vec<RealServer>,
    /// Places in `servers`, dealt to new conns in turn.
    pub(crate) cycle: Vec<u16>,
    /// LIPs towards IPv4 servers.
    pub(crate) local_v4: Vec<IpAddr>,
    /// LIPs towards IPv6 servers.
    pub(crate) local_v6: Vec<IpAddr>,
}

impl VirtualService {
    /// LIPs towards servers of `family`.
    pub fn local_addrs(&self, family: Family) -> &[IpAddr] {
        match family {
            Family::V4 => &self.local_v4,
            Family::V6 => &self.local_v6,
        }
    }
}

/// A real server as workers read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServer {
    /// Interned id.
    pub id: RealServerId,
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// Share of new conns.
    pub weight: u16,
    /// Where its frames go; `None`: no route or no neighbour.
    pub next_hop: Option<NextHop>,
}

/// What an owned address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnedAddr {
    /// A VIP.
    Virtual,
    /// A LIP.
    Local,
    /// An address of this interface.
    Port(PortId),
}

/// All that workers need to know, checked and resolved once, and never changed: a reload makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    ports: Vec<PortSpec>,
    /// By [`ServiceId`].
    services: Vec<Option<VirtualService>>,
    /// Place of a real server, by [`RealServerId`].
    servers: Vec<Option<(ServiceId, u16)>>,
    /// By VIP; the port and the protocol say which of its services.
    by_vip: ByAddr<ServiceId>,
    owned: ByAddr<OwnedAddr>,
    routes: RouteTable,
    /// Sorted by (address, interface).
    neighbours: Vec<((IpAddr, PortId), MacAddr)>,
}

/// Something by an address, and by a number of 24 bits that tells those of one address apart. Numbers are compared, as a
/// search that compares addresses of either family takes several times as long.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ByAddr<T> {
    v4: Vec<(u64, T)>,
    v6: Vec<((u128, u32), T)>,
}

impl<T> Default for ByAddr<T> {
    fn default() -> Self {
        ByAddr {
            v4: Vec::new(),
            v6: Vec::new(),
        }
    }
}

impl<T: Copy> ByAddr<T> {
    fn new(all: impl Iterator<Item = (IpAddr, u32, T)>) -> Self {
        let mut by = ByAddr::default();
        for (addr, which, what) in all {
            match addr {
                IpAddr::V4(a) => by.v4.push((key_v4(a, which), what)),
                IpAddr::V6(a) => by.v6.push(((a.to_bits(), which), what)),
            }
        }
        by.v4.sort_by_key(|e| e.0);
        by.v6.sort_by_key(|e| e.0);
        by
    }

    #[inline]
    fn get(&self, addr: IpAddr, which: u32) -> Option<T> {
        match addr {
            IpAddr::V4(a) => {
                let at = self.v4.binary_search_by_key(&key_v4(a, which), |e| e.0).ok()?;
                Some(self.v4.get(at)?.1)
            }
            IpAddr::V6(a) => {
                let key = (a.to_bits(), which);
                let at = self.v6.binary_search_by_key(&key, |e| e.0).ok()?;
                Some(self.v6.get(at)?.1)
            }
        }
    }
}

#[inline]
fn key_v4(addr: Ipv4Addr, which: u32) -> u64 {
    u64::from(addr.to_bits()) << 24 | u64::from(which)
}

/// Which service of its VIP one is.
#[inline]
fn at_vip(port: u16, proto: L4Proto) -> u32 {
    u32::from(port) << 8 | u32::from(proto.ip_proto())
}

/// Which element of a [`SnapshotSpec`] an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `ports[i]`.
    Port(usize),
    /// `ports[i].addresses[j]`.
    PortAddress(usize, usize),
    /// `services[i]`.
    Service(usize),
    /// `services[i].local_addrs[j]`.
    LocalAddr(usize, usize),
    /// `services[i].servers[j]`.
    Server(usize, usize),
    /// `routes[i]`.
    Route(usize),
    /// `neighbours[i]`.
    Neighbour(usize),
    /// `peer_local_addrs[i]`.
    PeerLocalAddr(usize),
    /// The whole.
    Whole,
}

/// Why a [`SnapshotSpec`] is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotError {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: SnapshotErrorKind,
}

/// What is wrong with an element of a [`SnapshotSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotErrorKind {
    /// More of `what` than the bound.
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// Not an address that a host can have (unspecified, multicast, broadcast, loopback).
    NotUnicast(IpAddr),
    /// A prefix length beyond the family's bits.
    PrefixLength {
        /// Given.
        len: u8,
        /// At most.
        max: u8,
    },
    /// Port 0 can be neither served nor connected to.
    PortZero,
    /// A weight beyond [`WEIGHT_MAX`].
    Weight(u16),
    /// An interface that is not in `ports`.
    UnknownPort(PortId),
    /// The gateway or neighbour is of another family than the prefix.
    FamilyMismatch,
    /// The same element as another one, whose index is given.
    Duplicate {
        /// Index of the first one.
        first: usize,
    },
    /// Two services have the same VIP, port and protocol.
    Overlap {
        /// Index of the first one.
        first: usize,
    },
    /// The address is owned as something else already.
    AddressConflict(IpAddr),
    /// A service has servers of this family and no LIP of it.
    NoLocalAddr(Family),
    /// A LIP of a family that no server of the service has.
    UnusedLocalAddr(IpAddr),
    /// A service without real servers.
    NoServers,
    /// The weights' cycle is longer than the bound.
    CycleTooLong,
    /// An MTU below what IPv4 (68) or, with IPv6 addresses around, IPv6 (1280) requires.
    Mtu {
        /// Given.
        mtu: u16,
        /// At least.
        min: u16,
    },
    /// A link-layer address that no host can have (multicast or zero).
    BadMac(MacAddr),
}

impl fmt::Display for SnapshotErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { what, max } => write!(f, "more than {max} {what}"),
            Self::NotUnicast(a) => write!(f, "{a} is not an address that a host can have"),
            Self::PrefixLength { len, max } => write!(f, "prefix length {len} is beyond {max}"),
            Self::PortZero => write!(f, "port 0 cannot be used"),
            Self::Weight(w) => write!(f, "weight {w} is beyond {WEIGHT_MAX}"),
            Self::UnknownPort(p) => write!(f, "{p} is not configured"),
            Self::FamilyMismatch => write!(f, "the address is of the other family"),
            Self::Duplicate { .. } => write!(f, "stands there twice"),
            Self::Overlap { .. } => write!(f, "another service has this address, port and protocol"),
            Self::AddressConflict(a) => write!(f, "{a} is in use as something else"),
            Self::NoLocalAddr(family) => write!(f, "{family} servers, but no {family} local address"),
            Self::UnusedLocalAddr(a) => write!(f, "local address {a} is of a family that no server has"),
            Self::NoServers => write!(f, "no real server"),
            Self::CycleTooLong => write!(
                f,
                "the weights have no common factor and their sum is beyond {}",
                crate::sched::CYCLE_LEN_MAX
            ),
            Self::Mtu { mtu, min } => write!(f, "mtu {mtu} is below {min}"),
            Self::BadMac(mac) => write!(f, "{mac} is not the address of one host"),
        }
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.place, self.kind)
    }
}

impl core::error::Error for SnapshotError {}

/// Whether `addr` stands for many: such packets are the kernel's, as are protocols that we do not serve.
pub(crate) fn is_group(addr: IpAddr) -> bool {
    addr.is_multicast() || matches!(addr, IpAddr::V4(a) if a.is_broadcast())
}

/// Whether `addr` can be the address of one host on the wire.
pub(crate) fn is_unicast(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => {
            !(a.is_unspecified()
                || a.is_multicast()
                || a.is_broadcast()
                || a.is_loopback()
                || a.octets()[0] >= 240
                || a.octets()[0] == 0)
        }
        // IPv4-mapped addresses are not for the wire (RFC 4291, 2.5.5.2, and RFC 6890).
        IpAddr::V6(a) => {
            !(a.is_unspecified() || a.is_multicast() || a.is_loopback() || a.to_ipv4_mapped().is_some())
        }
    }
}

/// Whether `mac` can be the link-layer address of one host.
pub(crate) fn is_host_mac(mac: MacAddr) -> bool {
    !mac.is_multicast() && mac != MacAddr::ZERO
}

impl Snapshot {
    /// Checks `spec` and makes a snapshot of it; or says all that is wrong.
    pub fn new(spec: &SnapshotSpec) -> Result<Self, Vec<SnapshotError>> {
        Snapshot::with_neighbours(spec, &[])
    }

    /// A snapshot of `spec` and of neighbours that were `learnt` from the network. Those of `spec` win; of what was
    /// learnt, what no spec may have is left out.
    pub fn with_neighbours(
        spec: &SnapshotSpec,
        learnt: &[NeighbourSpec],
    ) -> Result<Self, Vec<SnapshotError>> {
        let mut errors = Vec::new();
        check_bounds(spec, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        check_ports(spec, &mut errors);
        check_l3(spec, &mut errors);
        check_services(spec, &mut errors);
        for (i, &addr) in spec.peer_local_addrs.iter().enumerate() {
            if !is_unicast(addr) {
                errors.push(SnapshotError {
                    place: Place::PeerLocalAddr(i),
                    kind: SnapshotErrorKind::NotUnicast(addr),
                });
            }
        }
        let owned = owned_addrs(spec, &mut errors);

        let can_be = |n: &&NeighbourSpec| {
            usize::from(n.port.0) < spec.ports.len() && is_unicast(n.addr) && is_host_mac(n.mac)
        };
        let learnt = learnt.iter().filter(can_be);
        let mut neighbours: Vec<_> = spec
            .neighbours
            .iter()
            .chain(learnt)
            .map(|n| ((n.addr, n.port), n.mac))
            .collect();
        // A stable sort: of equal ones the first stays, which is the spec's.
        neighbours.sort_by_key(|(key, _)| *key);
        neighbours.dedup_by_key(|(key, _)| *key);
        let mut snapshot = Snapshot {
            ports: spec.ports.clone(),
            owned: ByAddr::new(owned.into_iter().map(|(addr, what)| (addr, 0, what))),
            neighbours,
            ..Snapshot::default()
        };
        snapshot.routes = route_table(spec, |via, port| snapshot.neighbour(via, port));
        for (i, service) in spec.services.iter().enumerate() {
            let weights: Vec<u16> = service.servers.iter().map(|s| s.weight).collect();
            match service.scheduler.cycle(&weights) {
                Some(cycle) => snapshot.add_service(service, cycle),
                None => errors.push(SnapshotError {
                    place: Place::Service(i),
                    kind: SnapshotErrorKind::CycleTooLong,
                }),
            }
        }
        let at = |s: &VirtualService| (s.vip, at_vip(s.port, s.proto), s.id);
        snapshot.by_vip = ByAddr::new(snapshot.services().map(at));
        if errors.is_empty() {
            Ok(snapshot)
        } else {
            Err(errors)
        }
    }

    fn add_service(&mut self, spec: &ServiceSpec, cycle: Vec<u16>) {
        let servers: Vec<RealServer> = spec
            .servers
            .iter()
            .map(|s| RealServer {
                id: s.id,
                addr: s.addr,
                port: s.port,
                weight: s.weight,
                next_hop: self.next_hop(s.addr).ok(),
            })
            .collect();
        for (place, server) in (0u16..).zip(&servers) {
            place_at(&mut self.servers, usize::from(server.id.0), (spec.id, place));
        }
        let of = |family| {
            spec.local_addrs
                .iter()
                .copied()
                .filter(|a| Family::of(a) == family)
                .collect()
        };
        let service = VirtualService {
            id: spec.id,
            name: spec.name.clone(),
            proto: spec.proto,
            vip: spec.vip,
            port: spec.port,
            mode: spec.mode,
            timeouts: spec.timeouts,
            replicate: spec.replicate,
            servers,
            cycle,
            local_v4: of(Family::V4),
            local_v6: of(Family::V6),
        };
        place_at(&mut self.services, usize::from(spec.id.0), service);
    }

    /// The interfaces; [`PortId`] is the index.
    pub fn ports(&self) -> &[PortSpec] {
        &self.ports
    }

    /// The services, by id.
    pub fn services(&self) -> impl Iterator<Item = &VirtualService> {
        self.services.iter().flatten()
    }

    /// Ids of services are below this.
    pub fn service_slots(&self) -> usize {
        self.services.len()
    }

    /// The service with this id.
    #[inline]
    pub fn service(&self, id: ServiceId) -> Option<&VirtualService> {
        self.services.get(usize::from(id.0))?.as_ref()
    }

    /// The real server with this id.
    #[inline]
    pub fn server(&self, id: RealServerId) -> Option<&RealServer> {
        let (service, place) = (*self.servers.get(usize::from(id.0))?)?;
        self.service(service)?.servers.get(usize::from(place))
    }

    /// The service at a VIP.
    pub fn service_at(&self, vip: IpAddr, port: u16, proto: L4Proto) -> Option<&VirtualService> {
        self.service(self.by_vip.get(vip, at_vip(port, proto))?)
    }

    /// What `addr` is, if it is owned.
    pub fn owned(&self, addr: IpAddr) -> Option<OwnedAddr> {
        self.owned.get(addr, 0)
    }

    /// The neighbour with this address on `port`, static or learnt.
    pub fn neighbour(&self, addr: IpAddr, port: PortId) -> Option<NextHop> {
        let at = self
            .neighbours
            .binary_search_by(|(key, _)| key.cmp(&(addr, port)))
            .ok()?;
        Some(NextHop {
            port,
            mac: self.neighbours[at].1,
        })
    }

    /// The routes.
    #[inline]
    pub(crate) fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// Where a packet to `addr` goes next.
    #[inline]
    pub fn next_hop(&self, addr: IpAddr) -> Result<NextHop, NoHop> {
        match self.routes.lookup(addr) {
            Some(Route::Via(hop)) => Ok(hop),
            Some(Route::OnLink(port)) => self.neighbour(addr, port).ok_or(NoHop::Neighbour),
            Some(Route::UnknownGateway { .. }) => Err(NoHop::Neighbour),
            None => Err(NoHop::Route),
        }
    }

    /// The neighbour that a packet to `addr` needs and that is not known, if that is what it lacks.
    pub fn missing_neighbour(&self, addr: IpAddr) -> Option<(PortId, IpAddr)> {
        match self.routes.lookup(addr)? {
            Route::Via(_) => None,
            Route::OnLink(port) => self.neighbour(addr, port).is_none().then_some((port, addr)),
            Route::UnknownGateway { port, addr } => Some((port, addr)),
        }
    }
}

/// The routes of `spec`, through gateways as `neighbour` knows them.
pub(crate) fn route_table(
    spec: &SnapshotSpec,
    neighbour: impl Fn(IpAddr, PortId) -> Option<NextHop>,
) -> RouteTable {
    let mut routes = Vec::new();
    for r in &spec.routes {
        let route = match r.via {
            None => Route::OnLink(r.port),
            Some(via) => match neighbour(via, r.port) {
                Some(hop) => Route::Via(hop),
                None => Route::UnknownGateway {
                    port: r.port,
                    addr: via,
                },
            },
        };
        routes.push((r.prefix, r.len, route));
    }
    for (i, port) in (0u16..).zip(&spec.ports) {
        for &(addr, len) in &port.addresses {
            routes.push((addr, len, Route::OnLink(PortId(i))));
        }
    }
    RouteTable::new(&routes)
}

/// Why there is no next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHop {
    /// No route.
    Route,
    /// A route, but no neighbour entry.
    Neighbour,
}

/// Writes `value` at `at`, growing the table up to there. Ids are below the bounds: checked before.
fn place_at<T>(table: &mut Vec<Option<T>>, at: usize, value: T) {
    while table.len() <= at {
        table.push(None);
    }
    table[at] = Some(value);
}

fn check_bounds(spec: &SnapshotSpec, errors: &mut Vec<SnapshotError>) {
    let servers = spec.services.iter().map(|s| s.servers.len()).sum::<usize>();
    let addresses = spec.ports.iter().map(|p| p.addresses.len()).sum::<usize>();
    for (what, n, max) in [
        ("ports", spec.ports.len(), PORT_COUNT_MAX),
        ("services", spec.services.len(), SERVICE_COUNT_MAX),
        ("real servers", servers, SERVER_COUNT_MAX),
        ("routes", spec.routes.len() + addresses, ROUTE_COUNT_MAX),
        ("neighbours", spec.neighbours.len(), NEIGHBOUR_COUNT_MAX),
        (
            "local addresses of peers",
            spec.peer_local_addrs.len(),
            LOCAL_ADDR_COUNT_MAX,
        ),
    ] {
        if n > max {
            errors.push(SnapshotError {
                place: Place::Whole,
                kind: SnapshotErrorKind::TooMany { what, max },
            });
        }
    }
    for (i, s) in spec.services.iter().enumerate() {
        let place = Place::Service(i);
        for (what, n, max) in [
            ("real servers", s.servers.len(), SERVERS_PER_SERVICE_MAX),
            ("local addresses", s.local_addrs.len(), LOCAL_ADDR_COUNT_MAX),
        ] {
            if n > max {
                errors.push(SnapshotError {
                    place,
                    kind: SnapshotErrorKind::TooMany { what, max },
                });
            }
        }
        if usize::from(s.id.0) >= SERVICE_COUNT_MAX {
            errors.push(SnapshotError {
                place,
                kind: SnapshotErrorKind::TooMany {
                    what: "service ids",
                    max: SERVICE_COUNT_MAX,
                },
            });
        }
        for (j, server) in s.servers.iter().enumerate() {
            if usize::from(server.id.0) >= SERVER_COUNT_MAX {
                let kind = SnapshotErrorKind::TooMany {
                    what: "real server ids",
                    max: SERVER_COUNT_MAX,
                };
                errors.push(SnapshotError {
                    place: Place::Server(i, j),
                    kind,
                });
            }
        }
    }
}

fn check_ports(spec: &SnapshotSpec, errors: &mut Vec<SnapshotError>) {
    let mut err = |place, kind| errors.push(SnapshotError { place, kind });
    for (i, port) in spec.ports.iter().enumerate() {
        if let Some(first) = spec.ports[..i].iter().position(|p| p.name == port.name) {
            err(Place::Port(i), SnapshotErrorKind::Duplicate { first });
        }
        if !is_host_mac(port.mac) {
            err(Place::Port(i), SnapshotErrorKind::BadMac(port.mac));
        }
        let min = if port.addresses.iter().any(|(a, _)| a.is_ipv6()) {
            1280
        } else {
            68
        };
        if let Some(mtu) = port.mtu.filter(|&mtu| mtu < min) {
            err(Place::Port(i), SnapshotErrorKind::Mtu { mtu, min });
        }
        for (j, &(addr, len)) in port.addresses.iter().enumerate() {
            if !is_unicast(addr) {
                err(Place::PortAddress(i, j), SnapshotErrorKind::NotUnicast(addr));
            }
            check_prefix(addr, len, Place::PortAddress(i, j), &mut err);
        }
    }
}

fn check_prefix(addr: IpAddr, len: u8, place: Place, err: &mut impl FnMut(Place, SnapshotErrorKind)) {
    let max = if addr.is_ipv4() { 32 } else { 128 };
    if len > max {
        err(place, SnapshotErrorKind::PrefixLength { len, max });
    }
}

fn check_l3(spec: &SnapshotSpec, errors: &mut Vec<SnapshotError>) {
    let mut err = |place, kind| errors.push(SnapshotError { place, kind });
    let known = |port: PortId| usize::from(port.0) < spec.ports.len();
    let mut seen = Vec::new();
    for (i, r) in spec.routes.iter().enumerate() {
        let place = Place::Route(i);
        check_prefix(r.prefix, r.len, place, &mut err);
        if !known(r.port) {
            err(place, SnapshotErrorKind::UnknownPort(r.port));
        }
        if let Some(via) = r.via {
            if Family::of(&via) != Family::of(&r.prefix) {
                err(place, SnapshotErrorKind::FamilyMismatch);
            } else if !is_unicast(via) {
                err(place, SnapshotErrorKind::NotUnicast(via));
            }
        }
        seen.push(((r.prefix, r.len), i));
    }
    duplicates(seen, &mut |i, first| {
        err(Place::Route(i), SnapshotErrorKind::Duplicate { first })
    });
    let mut seen = Vec::new();
    for (i, n) in spec.neighbours.iter().enumerate() {
        let place = Place::Neighbour(i);
        if !known(n.port) {
            err(place, SnapshotErrorKind::UnknownPort(n.port));
        }
        if !is_unicast(n.addr) {
            err(place, SnapshotErrorKind::NotUnicast(n.addr));
        }
        if !is_host_mac(n.mac) {
            err(place, SnapshotErrorKind::BadMac(n.mac));
        }
        seen.push(((n.addr, n.port), i));
    }
    duplicates(seen, &mut |i, first| {
        err(Place::Neighbour(i), SnapshotErrorKind::Duplicate { first })
    });
}

/// Calls `found(later, first)` for every element whose key stood before.
fn duplicates<K: Ord + Copy>(mut keys: Vec<(K, usize)>, found: &mut impl FnMut(usize, usize)) {
    keys.sort_unstable();
    for group in keys.chunk_by(|a, b| a.0 == b.0) {
        for later in &group[1..] {
            found(later.1, group[0].1);
        }
    }
}

fn check_services(spec: &SnapshotSpec, errors: &mut Vec<SnapshotError>) {
    let mut err = |place, kind| errors.push(SnapshotError { place, kind });
    let keys = spec.services.iter().enumerate();
    let vips = keys.clone().map(|(i, s)| ((s.vip, s.port, s.proto), i)).collect();
    duplicates(vips, &mut |i, first| {
        err(Place::Service(i), SnapshotErrorKind::Overlap { first })
    });
    let ids = keys.clone().map(|(i, s)| (s.id, i)).collect();
    duplicates(ids, &mut |i, first| {
        err(Place::Service(i), SnapshotErrorKind::Duplicate { first })
    });
    let mut servers = Vec::new();
    for (i, s) in keys {
        let place = Place::Service(i);
        if !is_unicast(s.vip) {
            err(place, SnapshotErrorKind::NotUnicast(s.vip));
        }
        if s.port == 0 {
            err(place, SnapshotErrorKind::PortZero);
        }
        if s.servers.is_empty() {
            err(place, SnapshotErrorKind::NoServers);
        }
        for (j, &addr) in s.local_addrs.iter().enumerate() {
            if !is_unicast(addr) {
                err(Place::LocalAddr(i, j), SnapshotErrorKind::NotUnicast(addr));
            }
            if !s.servers.is_empty() && !s.servers.iter().any(|r| Family::of(&r.addr) == Family::of(&addr)) {
                err(Place::LocalAddr(i, j), SnapshotErrorKind::UnusedLocalAddr(addr));
            }
        }
        let locals = s.local_addrs.iter().enumerate().map(|(j, &a)| (a, j)).collect();
        duplicates(locals, &mut |j, first| {
            err(Place::LocalAddr(i, j), SnapshotErrorKind::Duplicate { first })
        });
        for family in [Family::V4, Family::V6] {
            let wanted = s.servers.iter().any(|r| Family::of(&r.addr) == family);
            if wanted && !s.local_addrs.iter().any(|a| Family::of(a) == family) {
                err(place, SnapshotErrorKind::NoLocalAddr(family));
            }
        }
        let ends = s
            .servers
            .iter()
            .enumerate()
            .map(|(j, r)| ((r.addr, r.port), j))
            .collect();
        duplicates(ends, &mut |j, first| {
            err(Place::Server(i, j), SnapshotErrorKind::Duplicate { first })
        });
        for (j, r) in s.servers.iter().enumerate() {
            let place = Place::Server(i, j);
            if !is_unicast(r.addr) {
                err(place, SnapshotErrorKind::NotUnicast(r.addr));
            }
            if r.port == 0 {
                err(place, SnapshotErrorKind::PortZero);
            }
            if r.weight > WEIGHT_MAX {
                err(place, SnapshotErrorKind::Weight(r.weight));
            }
            servers.push((r.id, servers.len(), (i, j)));
        }
    }
    let places: Vec<_> = servers.iter().map(|s| s.2).collect();
    let ids = servers.iter().map(|s| (s.0, s.1)).collect();
    duplicates(ids, &mut |later, first| {
        let (i, j) = places[later];
        err(
            Place::Server(i, j),
            SnapshotErrorKind::Duplicate {
                first: places[first].1,
            },
        );
    });
}

/// Every address that is answered for, sorted. An address has one role: a LIP that were a VIP too would
/// make a reply look like a new connection, and one that is the kernel's would be answered by it.
fn owned_addrs(spec: &SnapshotSpec, errors: &mut Vec<SnapshotError>) -> Vec<(IpAddr, OwnedAddr)> {
    const SERVER: u8 = 4;
    let mut all: Vec<(IpAddr, u8, OwnedAddr, Place)> = Vec::new();
    for (i, port) in spec.ports.iter().enumerate() {
        for (j, &(addr, _)) in port.addresses.iter().enumerate() {
            all.push((
                addr,
                0,
                OwnedAddr::Port(PortId(i as u16)),
                Place::PortAddress(i, j),
            ));
        }
    }
    for (i, s) in spec.services.iter().enumerate() {
        all.push((s.vip, 1, OwnedAddr::Virtual, Place::Service(i)));
        for (j, &addr) in s.local_addrs.iter().enumerate() {
            all.push((addr, 2, OwnedAddr::Local, Place::LocalAddr(i, j)));
        }
        for (j, r) in s.servers.iter().enumerate() {
            // Not owned; listed to find a server at one of our own addresses.
            all.push((r.addr, SERVER, OwnedAddr::Local, Place::Server(i, j)));
        }
    }
    for (i, &addr) in spec.peer_local_addrs.iter().enumerate() {
        all.push((addr, 3, OwnedAddr::Local, Place::PeerLocalAddr(i)));
    }
    all.sort_by_key(|&(addr, role, ..)| (addr, role));
    let mut owned = Vec::new();
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let (addr, role, what, _) = group[0];
        for other in &group[1..] {
            let ok = other.1 == role && (role != 0);
            if !ok {
                errors.push(SnapshotError {
                    place: other.3,
                    kind: SnapshotErrorKind::AddressConflict(addr),
                });
            }
        }
        if role != SERVER {
            owned.push((addr, what));
        }
    }
    owned
}
