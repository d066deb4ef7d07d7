//! The way out of a rewritten packet. What can be known of it is worked out with the snapshot, so that a packet
//! costs a read for a real server, and a binary search for a client.

use alloc::vec::Vec;
use core::hint::select_unpredictable;
use core::net::{IpAddr, Ipv4Addr};

use crate::port::PortId;
use crate::service::{NextHop, NoHop, RealServerId, Route, Snapshot};
use crate::stats::DropReason;
use crate::tuple::{Direction, Family};

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
#[derive(Debug)]
pub(crate) struct Ways {
    /// Address of each real server and the way there, by id.
    servers: Vec<Option<(IpAddr, Egress)>>,
    /// By the range of the route table, where a gateway is the next hop.
    gateways_v4: Vec<Option<Egress>>,
    gateways_v6: Vec<Option<Egress>>,
    /// The ways over IPv4 in one table, for [`Ways::find_v4`]: through gateways by range, then to servers by id.
    v4: Vec<Way4>,
    /// Where those to servers begin.
    v4_servers_at: u32,
    /// The place in `v4` of a destination's gateway, by its first byte; none where routes differ within.
    v4_by_octet: [u32; 256],
}

impl Default for Ways {
    fn default() -> Self {
        Ways {
            servers: Vec::new(),
            gateways_v4: Vec::new(),
            gateways_v6: Vec::new(),
            v4: Vec::new(),
            v4_servers_at: 0,
            v4_by_octet: [NOWHERE; 256],
        }
    }
}

/// A place that no table has.
const NOWHERE: u32 = u32::MAX;

/// A way for destinations whose bits under `mask` are `net`, both in the machine's byte order.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Way4 {
    net: u32,
    mask: u32,
    egress: Egress,
}

const _: () = assert!(size_of::<Way4>() == 32);

impl Way4 {
    /// A way for nothing: no bits are 1 under a mask of 0.
    const NONE: Way4 = Way4 {
        net: 1,
        mask: 0,
        egress: Egress {
            macs: [0; 12],
            mtu: 0,
            port: PortId(0),
        },
    };

    fn to_server(server: &Option<(IpAddr, Egress)>) -> Self {
        match *server {
            Some((IpAddr::V4(addr), egress)) => Way4 {
                net: u32::from_ne_bytes(addr.octets()),
                mask: u32::MAX,
                egress,
            },
            _ => Way4::NONE,
        }
    }

    fn to_gateway(gateway: &Option<Egress>) -> Self {
        match *gateway {
            Some(egress) => Way4 {
                net: 0,
                mask: 0,
                egress,
            },
            None => Way4::NONE,
        }
    }
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
        let gateways_v4: Vec<_> = gateways(Family::V4);
        let v4 = gateways_v4
            .iter()
            .map(Way4::to_gateway)
            .chain(servers.iter().map(Way4::to_server))
            .collect();
        let v4_by_octet = core::array::from_fn(|octet| {
            let first = (octet as u32) << 24;
            let ends = [first, first | 0x00ff_ffff].map(|addr| snapshot.routes().range_v4(addr));
            match ends {
                [Some(range), Some(last)] if range == last => range as u32,
                _ => NOWHERE,
            }
        });
        Ways {
            v4_servers_at: gateways_v4.len() as u32,
            servers,
            gateways_v4,
            gateways_v6: gateways(Family::V6),
            v4,
            v4_by_octet,
        }
    }

    /// [`Ways::to_server_v4`] inbound and [`Ways::by_route_v4`] outbound, if one read finds the way. Which
    /// direction a packet has cannot be predicted: there is no branch on it.
    #[inline(always)]
    pub(crate) fn find_v4(&self, direction: Direction, id: RealServerId, dst: [u8; 4]) -> Option<&Egress> {
        let gateway = self.v4_by_octet[usize::from(dst[0])];
        let at = select_unpredictable(
            direction == Direction::Inbound,
            self.v4_servers_at + u32::from(id.0),
            gateway,
        );
        let way = self.v4.get(at as usize)?;
        (u32::from_ne_bytes(dst) & way.mask == way.net).then_some(&way.egress)
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
