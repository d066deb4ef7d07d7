//! Sessions that fill a table: of clients that nobody sees, installed as an upgrade would do it. Other nodes are not told of
//! them, and they end when their time is up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use evenkeel_core::conn::ConnInit;
use evenkeel_core::lport::Steering;
use evenkeel_core::proto::ConnState;
use evenkeel_core::service::{FwdMode, Snapshot, VirtualService};
use evenkeel_core::sync::{Isns, SessionRecord, WindowScales};
use evenkeel_core::tuple::{Family, L4Proto, Tuple};

/// Clients' ports begin here, and there are so many of an address.
const CLIENT_PORT_MIN: u16 = 1_024;
const CLIENT_PORT_COUNT: u64 = 60_000;

/// Local ports that are tried for a session at most.
pub(super) const PORT_TRY_COUNT_MAX: u32 = 8;

/// The `n`th client of a family: of 100.64.0.0/10 (RFC 6598), and of 2001:db8:f::/48.
fn client(family: Family, n: u64) -> SocketAddr {
    let (host, port) = (n / CLIENT_PORT_COUNT, (n % CLIENT_PORT_COUNT) as u16);
    let addr = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(0x6440_0000_u32 | (host as u32 & 0x3f_ffff))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(
            0x2001_0db8_000f_0000_0000_0000_0000_0000_u128 | u128::from(host),
        )),
    };
    SocketAddr::new(addr, CLIENT_PORT_MIN + port)
}

/// Services through which sessions of a family can be made: those that rewrite both ends in it.
pub(super) fn services(snapshot: &Snapshot, family: Family) -> Vec<&VirtualService> {
    let all = snapshot.services();
    let fits = all.filter(|s| {
        s.mode == FwdMode::FullNat
            && Family::of(&s.vip) == family
            && !s.local_addrs(family).is_empty()
            && s.servers.iter().any(|r| Family::of(&r.addr) == family)
    });
    fits.collect()
}

/// The bucket of the `n`th session through a service, and the session with the `attempt`th local port of its class.
pub(super) struct Made {
    pub(super) bucket: u16,
    inbound: Tuple,
}

impl Made {
    pub(super) fn new(steering: &Steering, service: &VirtualService, n: u64) -> Self {
        let inbound = Tuple {
            proto: service.proto,
            src: client(Family::of(&service.vip), n),
            dst: SocketAddr::new(service.vip, service.port),
        };
        let bucket = steering.bucket(steering.toeplitz().hash_tuple(&inbound));
        Made { bucket, inbound }
    }

    /// `None`: that port is below the smallest that is given.
    pub(super) fn session(
        &self,
        steering: &Steering,
        service: &VirtualService,
        port_min: u16,
        (n, attempt): (u64, u32),
        remaining: Duration,
    ) -> Option<SessionRecord> {
        let family = Family::of(&service.vip);
        let mut servers: Vec<_> = service.servers.iter().collect();
        servers.retain(|s| Family::of(&s.addr) == family);
        let server = servers.get(n as usize % servers.len().max(1))?;
        let locals = service.local_addrs(family);
        let local = *locals.get((n as usize / servers.len().max(1)) % locals.len().max(1))?;
        let end = SocketAddr::new(server.addr, server.port);
        let class = steering.class_for(end, local, self.bucket);
        let port = class.port((n as u32).wrapping_add(attempt.wrapping_mul(61)) % class.len());
        let udp = service.proto == L4Proto::Udp;
        (port >= port_min).then(|| SessionRecord {
            conn: ConnInit {
                proto: service.proto,
                client: self.inbound.src,
                vip: self.inbound.dst,
                server: end,
                local: SocketAddr::new(local, port),
                service: service.id,
                server_id: server.id,
                state: if udp {
                    ConnState::UdpNormal
                } else {
                    ConnState::Established
                },
            },
            mode: FwdMode::FullNat,
            remaining,
            was_established: !udp,
            was_closed: false,
            inbound_only: false,
            deltas: None,
            isns: Isns::default(),
            window_scales: WindowScales::default(),
        })
    }
}
