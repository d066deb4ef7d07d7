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
use core::net::IpAddr;

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
#[repr(u8)]
pub enum Replicate {
    /// None: they end with their node.
    Off = 0,
    /// TCP's from ESTABLISHED on.
    Established = 1,
    /// TCP's when the real server's SYN-ACK passes.
    #[default]
    SynAck = 2,
}

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
