//! Which side of the balancer a packet is on, by which port it came, and which interface of the output holds it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use evenkeel_core::port::PortId;
use evenkeel_core::service::{OwnedAddr, Snapshot, SnapshotSpec};

/// The longest part of a port's name that goes into the name of an interface, in characters.
const NAME_CHARS_MAX: usize = 48;

/// A side of the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Side {
    /// Client and VIP.
    Client,
    /// LIP and real server.
    Server,
}

/// What tells sides and ports apart.
#[derive(Debug)]
pub(super) struct Sides {
    servers: BTreeSet<IpAddr>,
    /// By port: its interface on the client's side and on the server's.
    interfaces: Vec<(u32, u32)>,
    names: Vec<String>,
    spec: SnapshotSpec,
}

impl Sides {
    pub(super) fn new(spec: &SnapshotSpec, snapshot: &Snapshot) -> Self {
        let servers = spec
            .services
            .iter()
            .flat_map(|s| &s.servers)
            .map(|s| s.addr)
            .collect();
        let server_ports = server_ports(snapshot);
        // With a port of the clients' own, a port of servers is theirs alone.
        let apart = (0..spec.ports.len()).any(|p| !server_ports.contains(&p));
        let mut names = Vec::new();
        let mut interfaces = vec![(0, 0); spec.ports.len()];
        for side in [Side::Client, Side::Server] {
            for (p, (port, at)) in spec.ports.iter().zip(&mut interfaces).enumerate() {
                let name: String = port.name.chars().take(NAME_CHARS_MAX).collect();
                let next = names.len() as u32;
                match (side, apart, server_ports.contains(&p)) {
                    (Side::Client, true, false) | (Side::Server, true, true) => {
                        *at = (next, next);
                        names.push(name);
                    }
                    (Side::Client, false, _) => {
                        at.0 = next;
                        names.push(format!("{name}, client side"));
                    }
                    (Side::Server, false, _) => {
                        at.1 = next;
                        names.push(format!("{name}, server side"));
                    }
                    _ => {}
                }
            }
        }
        // What a config without ports could say: nothing is sent, everything is dropped.
        if names.is_empty() {
            names.push("none".to_owned());
        }
        let spec = SnapshotSpec {
            services: Vec::new(),
            ..spec.clone()
        };
        Sides {
            servers,
            interfaces,
            names,
            spec,
        }
    }

    /// Names of the output's interfaces.
    pub(super) fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// The interface of a port's side.
    pub(super) fn interface(&self, port: PortId, side: Side) -> u32 {
        let (client, server) = self
            .interfaces
            .get(usize::from(port.0))
            .copied()
            .unwrap_or_default();
        match side {
            Side::Client => client,
            Side::Server => server,
        }
    }

    /// The side of a packet, by its ends.
    pub(super) fn side(&self, snapshot: &Snapshot, ends: Option<(IpAddr, IpAddr)>) -> Side {
        let is_servers = |a: IpAddr| self.servers.contains(&a) || snapshot.owned(a) == Some(OwnedAddr::Local);
        match ends {
            Some((src, dst)) if is_servers(src) || is_servers(dst) => Side::Server,
            _ => Side::Client,
        }
    }

    /// The port by which a packet came in: that by which its sender is reached, else that on whose link it or
    /// the one it asks for is, else the first.
    pub(super) fn ingress(&self, snapshot: &Snapshot, ends: Option<(IpAddr, IpAddr)>) -> PortId {
        let Some((src, dst)) = ends else { return PortId(0) };
        if let Ok(hop) = snapshot.next_hop(src) {
            return hop.port;
        }
        let asked = || match snapshot.owned(dst) {
            Some(OwnedAddr::Port(port)) => Some(port),
            _ => on_link_port(&self.spec, dst),
        };
        on_link_port(&self.spec, src).or_else(asked).unwrap_or_default()
    }
}

/// Indices of the ports behind which real servers are.
fn server_ports(snapshot: &Snapshot) -> BTreeSet<usize> {
    let hops = snapshot
        .services()
        .flat_map(|s| &s.servers)
        .filter_map(|s| s.next_hop);
    hops.map(|hop| usize::from(hop.port.0)).collect()
}

/// The port where clients are: the first without servers, else the first.
pub(super) fn client_port(snapshot: &Snapshot) -> PortId {
    let servers = server_ports(snapshot);
    let first = (0..snapshot.ports().len()).find(|p| !servers.contains(p));
    // Ports are at most PORT_COUNT_MAX.
    PortId(first.unwrap_or(0) as u16)
}

/// The port on whose link `addr` is: the longest prefix of a port's address.
pub(super) fn on_link_port(spec: &SnapshotSpec, addr: IpAddr) -> Option<PortId> {
    let addresses = (0u16..)
        .zip(&spec.ports)
        .flat_map(|(i, p)| p.addresses.iter().map(move |&(a, len)| (len, i, a)));
    let links = addresses.filter(|&(len, _, a)| holds(a, len, addr));
    links
        .max_by_key(|&(len, i, _)| (len, std::cmp::Reverse(i)))
        .map(|(_, i, _)| PortId(i))
}

/// Whether the prefix of `len` bits holds `addr`.
pub(super) fn holds(prefix: IpAddr, len: u8, addr: IpAddr) -> bool {
    match (prefix, addr) {
        (IpAddr::V4(p), IpAddr::V4(a)) => {
            (p.to_bits() ^ a.to_bits())
                .checked_shr(32 - u32::from(len.min(32)))
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(p), IpAddr::V6(a)) => {
            (p.to_bits() ^ a.to_bits())
                .checked_shr(128 - u32::from(len.min(128)))
                .unwrap_or(0)
                == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_hold_their_own() {
        let ip = |s: &str| s.parse::<IpAddr>().expect("address");
        assert!(holds(ip("10.0.0.0"), 8, ip("10.255.0.1")));
        assert!(!holds(ip("10.0.0.0"), 8, ip("11.0.0.1")));
        assert!(holds(ip("0.0.0.0"), 0, ip("255.0.0.1")));
        assert!(holds(ip("::"), 0, ip("ff::1")));
        assert!(!holds(ip("::"), 0, ip("1.2.3.4")));
        assert!(holds(ip("2001:db8::1"), 128, ip("2001:db8::1")));
        assert!(!holds(ip("2001:db8::1"), 128, ip("2001:db8::2")));
    }
}
