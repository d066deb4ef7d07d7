//! What the balancer serves: virtual services, real servers, addresses, routes. Workers read it as one
//! immutable [`Snapshot`], made and checked at the edge.

mod route;
mod snapshot;

pub use route::{NextHop, Route, RouteTable};
pub use snapshot::{
    NoHop, OwnedAddr, Place, RealServer, Snapshot, SnapshotError, SnapshotErrorKind, VirtualService,
};
pub(crate) use snapshot::{is_group, is_host_mac, is_unicast, route_table};

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use crate::port::PortId;
use crate::proto::Timeouts;
use crate::sched::SchedulerKind;
use crate::tuple::L4Proto;
use crate::wire::MacAddr;

/// Virtual services of a node at most.
pub const SERVICE_COUNT_MAX: usize = 4096;
/// Real servers of a node at most, over all services.
pub const SERVER_COUNT_MAX: usize = 16_384;
/// Real servers of one service at most.
pub const SERVERS_PER_SERVICE_MAX: usize = 1024;
/// Local addresses of a service at most.
pub const LOCAL_ADDR_COUNT_MAX: usize = 256;
/// Packet interfaces of a node at most.
pub const PORT_COUNT_MAX: usize = 64;
/// Routes at most, connected ones included.
pub const ROUTE_COUNT_MAX: usize = 65_536;
/// Neighbours at most, static and learnt ones.
pub const NEIGHBOUR_COUNT_MAX: usize = 65_536;
/// Largest weight of a real server.
pub const WEIGHT_MAX: u16 = 1_000;

/// Interned id of a virtual service: it survives a reload, and is never used for another service while
/// a conn may remember it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u16);

/// Interned id of a real server of a service; see [`ServiceId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealServerId(pub u16);

/// How packets get to the real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FwdMode {
    /// Both addresses and both ports are rewritten; replies come back by themselves. Across address
    /// families it is NAT64.
    #[default]
    FullNat = 0,
}

/// Which sessions of a service other nodes are told of, and from when on. UDP's from the first packet on, unless
/// it is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Replicate {
    /// None: they end with their node.
    Off,
    /// TCP's from ESTABLISHED on.
    Established,
    /// TCP's when the real server's SYN-ACK passes.
    #[default]
    SynAck,
    /// As `SynAck`, and what would tell the client that it is connected waits until other nodes have the session: the
    /// SYN-ACK, of UDP the first datagram.
    Deferred(Deferral),
}

/// As configs say it.
impl fmt::Display for Replicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Replicate::Off => f.write_str("off"),
            Replicate::Established => f.write_str("established"),
            Replicate::SynAck => f.write_str("synack"),
            Replicate::Deferred(deferral) => {
                let on_limit = match deferral.on_limit {
                    OnLimit::Open => "open",
                    OnLimit::Drop => "drop",
                };
                let (limit, unit) = match deferral.limit.as_micros() {
                    us if us.is_multiple_of(1000) => (us / 1000, "ms"),
                    us => (us, "us"),
                };
                write!(f, "deferred({}, {limit}{unit}, {on_limit})", deferral.nodes)
            }
        }
    }
}

impl Replicate {
    /// How what tells the client waits, if it does.
    #[inline]
    pub fn deferral(self) -> Option<Deferral> {
        match self {
            Replicate::Deferred(deferral) => Some(deferral),
            Replicate::Off | Replicate::Established | Replicate::SynAck => None,
        }
    }
}

/// For how many nodes, and how long, what would tell a client that it is connected waits. A connection that was let through by
/// `k` of them lives on if `k` of those that have it crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deferral {
    nodes: u8,
    limit: Duration,
    on_limit: OnLimit,
}

impl Deferral {
    /// For `nodes` other nodes, 1 to [`DEFERRAL_NODES_MAX`], and for `limit`, a microsecond at least and [`DEFERRAL_LIMIT_MAX`] at most.
    pub fn new(nodes: u8, limit: Duration, on_limit: OnLimit) -> Option<Self> {
        let limits = Duration::from_micros(1)..=DEFERRAL_LIMIT_MAX;
        let fits = (1..=DEFERRAL_NODES_MAX).contains(&nodes) && limits.contains(&limit);
        fits.then_some(Deferral {
            nodes,
            limit,
            on_limit,
        })
    }

    /// Other nodes that must have applied the session; all that are ready, if they are fewer.
    pub fn nodes(self) -> u8 {
        self.nodes
    }

    /// How long it waits.
    pub fn limit(self) -> Duration {
        self.limit
    }

    /// What becomes of it then, and where there is no room to wait.
    pub fn on_limit(self) -> OnLimit {
        self.on_limit
    }
}

impl Default for Deferral {
    fn default() -> Self {
        Deferral {
            nodes: 1,
            limit: Duration::from_millis(5),
            on_limit: OnLimit::Open,
        }
    }
}

/// What becomes of what has waited too long for other nodes. Either is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnLimit {
    /// It is let through: the connection may be lost with its node, as with [`Replicate::SynAck`].
    #[default]
    Open,
    /// It is dropped: client and server try again.
    Drop,
}

/// Nodes that a deferral waits for, at most: all others of the largest cluster.
pub const DEFERRAL_NODES_MAX: u8 = (crate::cluster::NODE_COUNT_MAX - 1) as u8;
/// How long a deferral waits, at most: clients send their SYN again after a second (RFC 6298, 2.1).
pub const DEFERRAL_LIMIT_MAX: Duration = Duration::from_secs(1);

/// All that a [`Snapshot`] is made of, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotSpec {
    /// Packet interfaces; [`PortId`] is the index.
    pub ports: Vec<PortSpec>,
    /// Virtual services, in any order.
    pub services: Vec<ServiceSpec>,
    /// Static routes. The prefixes of port addresses are routes already.
    pub routes: Vec<RouteSpec>,
    /// Static neighbours.
    pub neighbours: Vec<NeighbourSpec>,
    /// LIPs of other nodes' shares: they are ours too, so that a survivor can answer for them, and no conn is made on
    /// them. At most [`LOCAL_ADDR_COUNT_MAX`].
    pub peer_local_addrs: Vec<IpAddr>,
}

/// A packet interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Name in config, logs and captures.
    pub name: String,
    /// Source of every frame that leaves it.
    pub mac: MacAddr,
    /// Own addresses, each with the length of its on-link prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Largest IP packet that may leave it, in bytes; `None`: the driver knows.
    pub mtu: Option<u16>,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Interned id, unique.
    pub id: ServiceId,
    /// Name in config and logs.
    pub name: String,
    /// Transport protocol.
    pub proto: L4Proto,
    /// The address that clients use.
    pub vip: IpAddr,
    /// The port that clients use; not 0.
    pub port: u16,
    /// How a real server is chosen.
    pub scheduler: SchedulerKind,
    /// How packets get there.
    pub mode: FwdMode,
    /// LIPs: every family of the servers needs one at least.
    pub local_addrs: Vec<IpAddr>,
    /// Timeouts of its conns.
    pub timeouts: Timeouts,
    /// From when on other nodes are told of its conns.
    pub replicate: Replicate,
    /// Real servers.
    pub servers: Vec<ServerSpec>,
}

/// A real server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// Interned id, unique in the node.
    pub id: RealServerId,
    /// Address.
    pub addr: IpAddr,
    /// Port; not 0.
    pub port: u16,
    /// Share of new conns, 0 (none) to [`WEIGHT_MAX`].
    pub weight: u16,
}

/// A static route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Network address.
    pub prefix: IpAddr,
    /// Length of the prefix in bits.
    pub len: u8,
    /// Gateway; `None`: the prefix is on the link.
    pub via: Option<IpAddr>,
    /// Interface.
    pub port: PortId,
}

/// A neighbour (ARP or NDP entry).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourSpec {
    /// Its address.
    pub addr: IpAddr,
    /// Its link-layer address, unicast.
    pub mac: MacAddr,
    /// Interface.
    pub port: PortId,
}
