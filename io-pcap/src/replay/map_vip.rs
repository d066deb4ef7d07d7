//! `--map-vip`: a capture that was not taken at a balancer is played as if it had been. One server endpoint of
//! the capture becomes the VIP of a service of the config, and its replies come from the real servers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use evenkeel_core::port::PortId;
use evenkeel_core::service::{
    NEIGHBOUR_COUNT_MAX, NeighbourSpec, NoHop, ROUTE_COUNT_MAX, RouteSpec, ServiceSpec, Snapshot,
    SnapshotError, SnapshotSpec,
};
use evenkeel_core::tuple::{Family, L4Proto, Tuple};
use evenkeel_core::wire::{MacAddr, TcpFlags};

use super::look::Packet;
use super::sides::{client_port, holds, on_link_port};
use crate::file::SYNTHETIC_SRC_MAC;

/// Flows that are counted to find the busiest endpoint, at most; packets of others do not count.
pub const FLOW_COUNT_MAX: usize = 1 << 20;

/// A server's end in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Transport protocol.
    pub proto: L4Proto,
    /// Address and port.
    pub addr: SocketAddr,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.proto, self.addr)
    }
}

impl std::str::FromStr for Endpoint {
    type Err = String;

    /// `ADDRESS:PORT/tcp` or `/udp`; IPv6 addresses in brackets.
    fn from_str(s: &str) -> Result<Self, String> {
        let (addr, proto) = s
            .rsplit_once('/')
            .ok_or("expected ADDRESS:PORT/tcp or ADDRESS:PORT/udp")?;
        let proto = match proto {
            "tcp" => L4Proto::Tcp,
            "udp" => L4Proto::Udp,
            other => return Err(format!("`{other}` is neither tcp nor udp")),
        };
        let addr: SocketAddr = addr.parse().map_err(|_| {
            format!("`{addr}` is no address with a port, such as 192.0.2.1:80 or [2001:db8::1]:80")
        })?;
        if !can_be_endpoint(addr) {
            return Err(format!("`{addr}` is not the address and port of one server"));
        }
        Ok(Endpoint { proto, addr })
    }
}

/// Which endpoint becomes the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapVip {
    /// The one with most packets.
    Busiest,
    /// This one.
    Endpoint(Endpoint),
}

/// Why a capture cannot be mapped onto a config.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapVipError {
    /// The config has no service to stand for the endpoint.
    #[error("--map-vip needs a service in the config, and it has none")]
    NoService,
    /// The endpoint's address has another role in the config.
    #[error("{endpoint} shall become the VIP, but the config has its address as {role}")]
    Conflict {
        /// The endpoint, as the capture has it.
        endpoint: Endpoint,
        /// What the address is in the config.
        role: String,
    },
    /// The config with this VIP is refused.
    #[error("with {endpoint} as its VIP the config is refused: {reasons}")]
    Refused {
        /// The endpoint, as the capture has it.
        endpoint: Endpoint,
        /// All reasons.
        reasons: String,
    },
}

impl MapVipError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            MapVipError::NoService => "add a [[service]] with real servers and local addresses",
            MapVipError::Conflict { .. } => {
                "give the config's ports, local addresses and real servers addresses that do not occur in the \
                 capture, or choose another endpoint with --map-vip=ADDRESS:PORT/tcp"
            }
            MapVipError::Refused { .. } => {
                "choose another endpoint with --map-vip=ADDRESS:PORT/tcp, or change the config"
            }
        }
    }
}

fn can_be_endpoint(addr: SocketAddr) -> bool {
    let host = match addr.ip() {
        IpAddr::V4(a) => {
            !(a.is_unspecified() || a.is_multicast() || a.octets()[0] >= 240 || a.octets()[0] == 0)
        }
        IpAddr::V6(a) => !(a.is_unspecified() || a.is_multicast() || a.to_ipv4_mapped().is_some()),
    };
    host && addr.port() != 0
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    packets: u64,
    /// Whether the greater end is the server: from a SYN or SYN-ACK.
    known: Option<bool>,
    /// Whether the first packet went to the greater end.
    first_to_greater: bool,
}

/// The flows of a capture.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// By protocol, lesser and greater end.
    flows: HashMap<(L4Proto, SocketAddr, SocketAddr), Flow>,
}

impl Flows {
    /// Counts one packet.
    pub(super) fn count(&mut self, packet: &Packet) {
        let Some(tuple) = packet.tuple() else { return };
        let to_greater = tuple.src <= tuple.dst;
        let (lesser, greater) = if to_greater {
            (tuple.src, tuple.dst)
        } else {
            (tuple.dst, tuple.src)
        };
        let key = (tuple.proto, lesser, greater);
        if self.flows.len() >= FLOW_COUNT_MAX && !self.flows.contains_key(&key) {
            return;
        }
        let flow = self.flows.entry(key).or_insert(Flow {
            packets: 0,
            known: None,
            first_to_greater: to_greater,
        });
        flow.packets += 1;
        let flags = packet.tcp_flags.unwrap_or(TcpFlags::NONE);
        if flow.known.is_none()
            && flags.contains(TcpFlags::SYN)
            && !flags.intersects(TcpFlags::RST | TcpFlags::FIN)
        {
            // A SYN goes to the server, a SYN-ACK comes from it.
            flow.known = Some(to_greater != flags.contains(TcpFlags::ACK));
        }
    }

    /// Server and client of each flow, with its packets; in no order.
    fn ends(&self) -> impl Iterator<Item = (Endpoint, SocketAddr, u64)> {
        self.flows.iter().map(|(&(proto, lesser, greater), flow)| {
            let by_port = match lesser.port().cmp(&greater.port()) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal => flow.first_to_greater,
            };
            let (server, client) = if flow.known.unwrap_or(by_port) {
                (greater, lesser)
            } else {
                (lesser, greater)
            };
            (Endpoint { proto, addr: server }, client, flow.packets)
        })
    }

    /// The endpoint with most packets, how many these are, and how many endpoints there are. Of equal ones
    /// the least.
    pub(super) fn busiest(&self) -> Option<(Endpoint, u64, usize)> {
        let mut packets: BTreeMap<Endpoint, u64> = BTreeMap::new();
        for (server, _, n) in self.ends().filter(|(server, ..)| can_be_endpoint(server.addr)) {
            *packets.entry(server).or_default() += n;
        }
        let (&endpoint, &n) = packets.iter().max_by_key(|&(&e, &n)| (n, std::cmp::Reverse(e)))?;
        Some((endpoint, n, packets.len()))
    }

    /// Whether packets go to `endpoint` or come from it.
    pub(super) fn has(&self, endpoint: Endpoint) -> bool {
        self.flows.keys().any(|&(proto, lesser, greater)| {
            proto == endpoint.proto && (lesser == endpoint.addr || greater == endpoint.addr)
        })
    }

    /// Who talks to `endpoint`.
    pub(super) fn clients(&self, endpoint: Endpoint) -> BTreeSet<IpAddr> {
        self.ends()
            .filter(|&(server, ..)| server == endpoint)
            .map(|(_, client, _)| client.ip())
            .collect()
    }
}

/// A config in which the endpoint is a VIP.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) spec: SnapshotSpec,
    pub(super) snapshot: Snapshot,
    pub(super) endpoint: Endpoint,
    pub(super) vip: SocketAddr,
    /// Name of the service that stands for it.
    pub(super) service: String,
    pub(super) notes: Vec<String>,
}

impl Mapping {
    /// Puts `endpoint` in place of a service of `spec`, such that `clients` can be answered.
    pub(super) fn new(
        spec: &SnapshotSpec,
        endpoint: Endpoint,
        clients: &BTreeSet<IpAddr>,
    ) -> Result<Self, MapVipError> {
        let mut notes = Vec::new();
        let vip = SocketAddr::new(vip_for(endpoint.addr.ip()), endpoint.addr.port());
        if vip != endpoint.addr {
            notes.push(format!(
                "{} is a loopback address: it stands as {}, and its clients as {}",
                endpoint.addr.ip(),
                vip.ip(),
                if vip.is_ipv4() { "198.18.x.x" } else { "2001:2::x" }
            ));
        }
        let mut spec = spec.clone();
        let template = template(&spec, endpoint.proto, vip.ip()).ok_or(MapVipError::NoService)?;
        for (i, port) in spec.ports.iter().enumerate() {
            if port.addresses.iter().any(|&(a, _)| a == vip.ip()) {
                let role = format!("the address of port {:?} ({})", port.name, PortId(i as u16));
                return Err(MapVipError::Conflict { endpoint, role });
            }
        }
        let mut kept = Vec::new();
        let mut service_name = String::new();
        for (i, mut service) in std::mem::take(&mut spec.services).into_iter().enumerate() {
            if let Some(role) = role_in(&service, vip.ip()) {
                if i == template {
                    return Err(MapVipError::Conflict { endpoint, role });
                }
                notes.push(format!(
                    "service {:?} is left out: it has {} as {role}",
                    service.name,
                    vip.ip()
                ));
                continue;
            }
            if i == template {
                service_name = service.name.clone();
                (service.proto, service.vip, service.port) = (endpoint.proto, vip.ip(), vip.port());
            } else if (service.proto, service.vip, service.port) == (endpoint.proto, vip.ip(), vip.port()) {
                notes.push(format!(
                    "service {:?} is left out: it has the same VIP",
                    service.name
                ));
                continue;
            }
            kept.push(service);
        }
        spec.services = kept;
        let refused = |errors: Vec<SnapshotError>| MapVipError::Refused {
            endpoint,
            reasons: errors
                .iter()
                .take(5)
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
        };
        let mut snapshot = Snapshot::new(&spec).map_err(refused)?;
        if reach_clients(&mut spec, &snapshot, vip.ip(), clients, &mut notes) {
            snapshot = Snapshot::new(&spec).map_err(refused)?;
        }
        let taken = clients
            .iter()
            .filter(|&&c| snapshot.owned(client_for(c)).is_some())
            .count();
        if taken > 0 {
            notes.push(format!(
                "{taken} clients have addresses of the config: their packets are dropped as bad-source"
            ));
        }
        Ok(Mapping {
            spec,
            snapshot,
            endpoint,
            vip,
            service: service_name,
            notes,
        })
    }

    /// The tuple of a packet to or from the endpoint, with the VIP in it. `None`: it is neither.
    pub(super) fn at_vip(&self, tuple: Tuple) -> Option<(ToEndpoint, Tuple)> {
        if tuple.proto != self.endpoint.proto {
            return None;
        }
        let client = |c: SocketAddr| SocketAddr::new(client_for(c.ip()), c.port());
        if tuple.dst == self.endpoint.addr {
            Some((
                ToEndpoint::Request,
                Tuple {
                    src: client(tuple.src),
                    dst: self.vip,
                    ..tuple
                },
            ))
        } else if tuple.src == self.endpoint.addr {
            Some((
                ToEndpoint::Reply,
                Tuple {
                    src: self.vip,
                    dst: client(tuple.dst),
                    ..tuple
                },
            ))
        } else {
            None
        }
    }
}

/// Whether a packet goes to the endpoint or comes from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToEndpoint {
    Request,
    Reply,
}

/// The VIP of an endpoint: itself, but that nobody can be served at a loopback address. Its stand-in is of the
/// blocks for benchmarks (RFC 2544, RFC 5180), in which no real host lives.
fn vip_for(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(a) if a.is_loopback() => Ipv4Addr::new(198, 19, a.octets()[2], a.octets()[3]).into(),
        IpAddr::V6(a) if a.is_loopback() => Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 1).into(),
        addr => addr,
    }
}

/// As [`vip_for`], for clients: on loopback the two may have one address.
fn client_for(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(a) if a.is_loopback() => Ipv4Addr::new(198, 18, a.octets()[2], a.octets()[3]).into(),
        IpAddr::V6(a) if a.is_loopback() => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1).into(),
        addr => addr,
    }
}

/// The service that the endpoint replaces: one of its protocol and family if there is, else of its protocol,
/// else the first.
fn template(spec: &SnapshotSpec, proto: L4Proto, vip: IpAddr) -> Option<usize> {
    let services = &spec.services;
    let same_proto = || services.iter().position(|s| s.proto == proto);
    let same_both = || {
        services
            .iter()
            .position(|s| s.proto == proto && Family::of(&s.vip) == Family::of(&vip))
    };
    same_both()
        .or_else(same_proto)
        .or(if services.is_empty() { None } else { Some(0) })
}

/// What `addr` is in a service, other than its VIP.
fn role_in(service: &ServiceSpec, addr: IpAddr) -> Option<String> {
    if service.servers.iter().any(|s| s.addr == addr) {
        Some(format!("a real server of service {:?}", service.name))
    } else if service.local_addrs.contains(&addr) {
        Some(format!("a local address of service {:?}", service.name))
    } else {
        None
    }
}

/// Adds what is missing to answer `clients`: a default route, neighbours. Whether anything was added.
fn reach_clients(
    spec: &mut SnapshotSpec,
    snapshot: &Snapshot,
    vip: IpAddr,
    clients: &BTreeSet<IpAddr>,
    notes: &mut Vec<String>,
) -> bool {
    let mut no_route = false;
    let mut strangers = Vec::new();
    for client in clients.iter().map(|&c| client_for(c)) {
        match snapshot.next_hop(client) {
            Ok(_) => {}
            Err(NoHop::Route) => no_route = true,
            Err(NoHop::Neighbour) => strangers.push(client),
        }
    }
    let mac = MacAddr(SYNTHETIC_SRC_MAC);
    let port = client_port(snapshot);
    if no_route && spec.routes.len() < ROUTE_COUNT_MAX {
        let gateway = unused(spec, snapshot, vip, clients);
        let any: IpAddr = if vip.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        spec.routes.push(RouteSpec {
            prefix: any,
            len: 0,
            via: Some(gateway),
            port,
        });
        spec.neighbours.push(NeighbourSpec {
            addr: gateway,
            mac,
            port,
        });
        notes.push(format!(
            "the config has no route to some clients: a default route of {} was added for the replay",
            Family::of(&vip)
        ));
    }
    let mut added = 0u64;
    for client in strangers {
        if spec.neighbours.len() >= NEIGHBOUR_COUNT_MAX {
            break;
        }
        // Behind a gateway that no neighbour entry knows, or on a link.
        let (addr, port) = match gateway_of(spec, client) {
            Some((via, port)) => (via, port),
            None => (client, on_link_port(spec, client).unwrap_or(port)),
        };
        if !spec.neighbours.iter().any(|n| (n.addr, n.port) == (addr, port)) {
            spec.neighbours.push(NeighbourSpec { addr, mac, port });
            added += 1;
        }
    }
    if added > 0 {
        notes.push(format!(
            "the config knows no link-layer address on the way to some clients: {added} added for the replay"
        ));
    }
    no_route || added > 0
}

/// Gateway and port of the longest route of `spec` to `addr`, if that is no route on a link.
fn gateway_of(spec: &SnapshotSpec, addr: IpAddr) -> Option<(IpAddr, PortId)> {
    let routes = spec.routes.iter().filter(|r| holds(r.prefix, r.len, addr));
    let longest = routes.max_by_key(|r| r.len)?;
    let connected = spec.ports.iter().flat_map(|p| &p.addresses);
    let nearer = connected
        .filter(|&&(a, len)| holds(a, len, addr))
        .any(|&(_, len)| len > longest.len);
    if nearer {
        None
    } else {
        longest.via.map(|via| (via, longest.port))
    }
}

/// An address of the VIP's family that nobody has.
fn unused(spec: &SnapshotSpec, snapshot: &Snapshot, vip: IpAddr, clients: &BTreeSet<IpAddr>) -> IpAddr {
    let candidates = (1..=u16::MAX).rev().map(|n| -> IpAddr {
        let [high, low] = n.to_be_bytes();
        match vip {
            IpAddr::V4(_) => Ipv4Addr::new(198, 18, high, low).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 2, 0, 0xffff, 0, 0, 0, n).into(),
        }
    });
    let is_free = |a: &IpAddr| {
        snapshot.owned(*a).is_none() && !clients.contains(a) && !spec.neighbours.iter().any(|n| n.addr == *a)
    };
    let mut candidates = candidates.take(1024);
    candidates.find(is_free).unwrap_or(vip)
}
