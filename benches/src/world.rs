//! The engine under test: a worker with its services, and as many established conns as are wanted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::conn::{ConnInit, TableSizes};
use evenkeel_core::hash::MICROSOFT_KEY;
use evenkeel_core::lport::Steering;
use evenkeel_core::port::{PortId, WorkerId};
use evenkeel_core::proto::{ConnState, Timeouts};
use evenkeel_core::sched::SchedulerKind;
use evenkeel_core::service::{
    FwdMode, NeighbourSpec, PortSpec, RealServerId, Replicate, RouteSpec, ServerSpec, ServiceId, ServiceSpec,
    Snapshot, SnapshotSpec,
};
use evenkeel_core::sync::{Isns, SessionRecord, WindowScales};
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::wire::MacAddr;
use evenkeel_core::worker::{BucketMap, Command, Event, Worker, WorkerConfig};
use evenkeel_node::memory::{MapError, MappedMemory, Pages};

use crate::flows::{self, Addr, Kind, LOCALS, SERVER_PORT, SERVERS, VIP_PORT, addr6, flow, local4, server4};

/// Conns that a table holds beyond the established ones, for those that are opened and expire.
pub const SPARE: u32 = 8192;

/// Link-layer address of the gateway to the clients.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// Link-layer address of the interface.
pub const PORT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Link-layer address of real server `n`.
pub const fn server_mac(n: u32) -> [u8; 6] {
    [2, 0, 0, 0, 2, n as u8]
}

impl Addr {
    /// As the standard library has it.
    pub fn ip(self) -> IpAddr {
        match self {
            Addr::V4(a) => a.into(),
            Addr::V6(a) => a.into(),
        }
    }
}

fn end((addr, port): (Addr, u16)) -> SocketAddr {
    SocketAddr::new(addr.ip(), port)
}

const fn place_of(kind: Kind) -> u16 {
    match kind {
        Kind::V4 => 0,
        Kind::V6 => 1,
        Kind::Nat64 => 2,
    }
}

fn service(kind: Kind) -> ServiceSpec {
    let place = place_of(kind);
    let v4_servers = kind != Kind::V6;
    let vip = match kind {
        Kind::V4 => flows::VIP4.into(),
        Kind::V6 => flows::VIP6.into(),
        Kind::Nat64 => flows::VIP64.into(),
    };
    let local = |n| -> IpAddr {
        if v4_servers {
            local4(n).into()
        } else {
            addr6(3, 10 + n).into()
        }
    };
    let server = |n| -> IpAddr {
        if v4_servers {
            server4(n).into()
        } else {
            addr6(2, 10 + n).into()
        }
    };
    ServiceSpec {
        id: ServiceId(place),
        name: format!("{kind:?}"),
        proto: L4Proto::Tcp,
        vip,
        port: VIP_PORT,
        scheduler: SchedulerKind::RoundRobin,
        mode: FwdMode::FullNat,
        local_addrs: (0..LOCALS).map(local).collect(),
        timeouts: Timeouts::default(),
        replicate: Replicate::default(),
        servers: (0..SERVERS)
            .map(|n| ServerSpec {
                id: RealServerId(place * SERVERS as u16 + n as u16),
                addr: server(n),
                port: SERVER_PORT,
                weight: 1,
            })
            .collect(),
    }
}

/// Three services, eight servers each on the link, clients behind a gateway in both families.
pub fn snapshot() -> Snapshot {
    let port = PortId(0);
    let gateways: [IpAddr; 2] = [[192, 0, 2, 1].into(), addr6(2, 1).into()];
    let mut neighbours: Vec<NeighbourSpec> = gateways
        .iter()
        .map(|&addr| NeighbourSpec {
            addr,
            mac: MacAddr(GATEWAY_MAC),
            port,
        })
        .collect();
    for n in 0..SERVERS {
        for addr in [IpAddr::from(server4(n)), IpAddr::from(addr6(2, 10 + n))] {
            neighbours.push(NeighbourSpec {
                addr,
                mac: MacAddr(server_mac(n)),
                port,
            });
        }
    }
    let spec = SnapshotSpec {
        peer_local_addrs: Vec::new(),
        ports: vec![PortSpec {
            name: "eth0".into(),
            mac: MacAddr(PORT_MAC),
            addresses: vec![([192, 0, 2, 2].into(), 24), (addr6(2, 2).into(), 64)],
            mtu: Some(1500),
        }],
        services: [Kind::V4, Kind::V6, Kind::Nat64].map(service).into(),
        routes: vec![
            RouteSpec {
                prefix: [0; 4].into(),
                len: 0,
                via: Some(gateways[0]),
                port,
            },
            RouteSpec {
                prefix: [0; 16].into(),
                len: 0,
                via: Some(gateways[1]),
                port,
            },
        ],
        neighbours,
    };
    Snapshot::new(&spec).expect("the configuration is right")
}

/// A worker without conns. `conns_v4` and `conns_v6` are the sizes of its slabs.
pub fn worker(conns_v4: u32, conns_v6: u32, pages: Pages) -> Result<Worker, MapError> {
    let sizes = TableSizes {
        conns_v4,
        conns_v6,
        exts: 1,
    };
    let mut memory = MappedMemory::reserve(sizes, pages)?;
    let config = WorkerConfig {
        id: WorkerId(0),
        buckets: BucketMap::dealt(1),
        // One bucket: flows are made by arithmetic, and their local ports are those of no bucket in particular.
        steering: Arc::new(Steering::new(&MICROSOFT_KEY, 1).expect("full rank")),
        sizes,
        local_port_min: 1024,
        seed: 0x5eed,
        hold: None,
        cluster: None,
    };
    let mut worker = Worker::new(config, &mut memory).expect("it was reserved");
    assert_eq!(memory.from_heap_bytes(), 0, "the table lies in the mapping");
    worker
        .handle_command(Instant::ZERO, Command::SetSnapshot(Arc::new(snapshot())))
        .expect("no event waits");
    assert!(matches!(worker.poll_event(), Some(Event::SnapshotReleased(_))));
    Ok(worker)
}

/// How long an established conn lives without a packet.
pub const ESTABLISHED_TIMEOUT: Duration = Duration::from_secs(90);
/// Longer than any run.
pub const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// A worker with `n` established conns of `kind`, each with `remaining` to live.
pub fn established(kind: Kind, n: u32, remaining: Duration, pages: Pages) -> Result<Worker, MapError> {
    let (v4, v6) = if kind == Kind::V4 {
        (n + SPARE, 0)
    } else {
        (0, n + SPARE)
    };
    let mut worker = worker(v4, v6, pages)?;
    install(&mut worker, kind, 0..n, remaining);
    assert_eq!(worker.table().len(), n as usize);
    Ok(worker)
}

/// Takes flows in as established sessions.
pub fn install(worker: &mut Worker, kind: Kind, flows: std::ops::Range<u32>, remaining: Duration) {
    let place = place_of(kind);
    for n in flows {
        let f = flow(kind, n);
        let record = SessionRecord {
            conn: ConnInit {
                proto: L4Proto::Tcp,
                client: end(f.client),
                vip: end(f.vip),
                server: end(f.server),
                local: end(f.local),
                service: ServiceId(place),
                server_id: RealServerId(place * SERVERS as u16 + f.server_no as u16),
                state: ConnState::Established,
            },
            mode: FwdMode::FullNat,
            remaining,
            was_established: true,
            was_closed: false,
            inbound_only: false,
            deltas: None,
            isns: Isns::default(),
            window_scales: WindowScales::default(),
        };
        worker
            .handle_command(Instant::ZERO, Command::Install(Box::new(record)))
            .expect("the table has room");
    }
}
