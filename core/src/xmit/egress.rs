//! The way out of a rewritten packet. What can be known of it is worked out with the snapshot, so that a packet
//! costs a read for a real server, and a binary search for a client.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use crate::port::PortId;
use crate::service::{NextHop, NoHop, RealServerId, Route, Snapshot};
use crate::stats::DropReason;
use crate::tuple::Family;

/// The way out of a rewritten packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Egress {
    /// Destination and source of the Ethernet header.
    pub(crate) macs: [u8; 12],
    /// Longest IP packet.
    pub(crate) mtu: u32,
    pub(crate) port: PortId,
}

/// The ways that a snapshot knows.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Address of each real server and the way there, by id.
    servers: Vec<Option<(IpAddr, Egress)>>,
    /// By the range of the route table, where a gateway is the next hop.
    gateways_v4: Vec<Option<Egress>>,
    gateways_v6: Vec<Option<Egress>>,
}

impl Ways {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let mut servers = Vec::new();
        for server in snapshot.services().flat_map(|service| &service.servers) {
            let at = usize::from(server.id.0);
            if servers.len() <= at {
                servers.resize(at + 1, None);
            }
            servers[at] = server
                .next_hop
                .and_then(|hop| Some((server.addr, egress(snapshot, hop)?)));
        }
        let gateways = |family| {
            let way = |route: &Option<Route>| match route {
                Some(Route::Via(hop)) => egress(snapshot, *hop),
                _ => None,
            };
            snapshot.routes().ranges(family).iter().map(way).collect()
        };
        Ways {
            servers,
            gateways_v4: gateways(Family::V4),
            gateways_v6: gateways(Family::V6),
        }
    }

    /// The way to `dst`, the address of a real server, unless that has left the config since or its id is
    /// another's now.
    #[inline]
    pub(crate) fn to_server(&self, id: RealServerId, dst: IpAddr) -> Option<Egress> {
        let (addr, way) = self.servers.get(usize::from(id.0))?.as_ref()?;
        (*addr == dst).then_some(*way)
    }

    /// [`Ways::to_server`] over IPv4.
    #[inline]
    pub(crate) fn to_server_v4(&self, id: RealServerId, dst: Ipv4Addr) -> Option<Egress> {
        match self.servers.get(usize::from(id.0))?.as_ref()? {
            (IpAddr::V4(addr), way) if addr.to_bits() == dst.to_bits() => Some(*way),
            _ => None,
        }
    }

    /// [`Ways::by_route`] over IPv4.
    #[inline]
    pub(crate) fn by_route_v4(&self, snapshot: &Snapshot, dst: Ipv4Addr) -> Result<Egress, DropReason> {
        match snapshot
            .routes()
            .range_v4(dst.into())
            .and_then(|range| self.gateways_v4.get(range))
        {
            Some(Some(way)) => Ok(*way),
            _ => on_link(snapshot, dst.into()),
        }
    }

    /// The way to `dst` by the routes of the snapshot that this was made of.
    #[inline]
    pub(crate) fn by_route(&self, snapshot: &Snapshot, dst: IpAddr) -> Result<Egress, DropReason> {
        let way = match dst {
            IpAddr::V4(a) => return self.by_route_v4(snapshot, a),
            IpAddr::V6(a) => snapshot
                .routes()
                .range_v6(a.into())
                .and_then(|range| self.gateways_v6.get(range)),
        };
        match way {
            Some(Some(way)) => Ok(*way),
            _ => on_link(snapshot, dst),
        }
    }
}

/// The way to a neighbour, or why there is none.
#[inline(never)]
fn on_link(snapshot: &Snapshot, dst: IpAddr) -> Result<Egress, DropReason> {
    let hop = snapshot.next_hop(dst).map_err(|e| match e {
        NoHop::Route => DropReason::NoRoute,
        NoHop::Neighbour => DropReason::NoNeighbour,
    })?;
    egress(snapshot, hop).ok_or(DropReason::NoRoute)
}

/// `None` if the interface is not there.
fn egress(snapshot: &Snapshot, hop: NextHop) -> Option<Egress> {
    let port = snapshot.ports().get(usize::from(hop.port.0))?;
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&hop.mac.0);
    macs[6..].copy_from_slice(&port.mac.0);
    Some(Egress {
        macs,
        mtu: port.mtu.map_or(u32::MAX, u32::from),
        port: hop.port,
    })
}
