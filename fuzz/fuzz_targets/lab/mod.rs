//! A small node for fuzzing: four services, one of each pair of families, over TCP and UDP.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use evenkeel_core::conn::{HeapMemory, TableSizes};
use evenkeel_core::hash::MICROSOFT_KEY;
use evenkeel_core::lport::Steering;
use evenkeel_core::port::{HeapFrame, PortId, WorkerId};
use evenkeel_core::proto::Timeouts;
use evenkeel_core::sched::SchedulerKind;
use evenkeel_core::service::{
    FwdMode, NeighbourSpec, PortSpec, RealServerId, Replicate, RouteSpec, ServerSpec, ServiceId, ServiceSpec,
    Snapshot, SnapshotSpec,
};
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::wire::MacAddr;
use evenkeel_core::worker::{BucketMap, Command, HoldConfig, Worker, WorkerConfig};

/// VIP, LIP and real server of service pair `n`: TCP and UDP on port 80.
const PAIRS: [[&str; 3]; 4] = [
    ["198.51.100.1", "10.0.0.1", "10.0.1.1"],
    ["2001:db8:1::1", "fd00::1", "fd00::1:1"],
    ["2001:db8:1::64", "10.0.0.1", "10.0.1.1"],
    ["198.51.100.46", "fd00::1", "fd00::1:1"],
];

pub fn ip(s: &str) -> IpAddr {
    s.parse().expect("an address")
}

/// Protocol of service `n` (0 to 7).
pub fn proto(n: u8) -> L4Proto {
    if n & 1 == 0 { L4Proto::Tcp } else { L4Proto::Udp }
}

/// Where clients of service `n` go.
pub fn vip(n: u8) -> SocketAddr {
    SocketAddr::new(ip(PAIRS[usize::from(n / 2 % 4)][0]), 80)
}

/// One of 256 clients of service `n`.
pub fn client(n: u8, who: u8) -> SocketAddr {
    let addr = if vip(n).is_ipv4() {
        "203.0.113.7"
    } else {
        "2001:db8:c::7"
    };
    SocketAddr::new(ip(addr), 1000 + u16::from(who))
}

/// Variant `n` of the config: whole, without a service, without neighbours, without weight.
pub fn snapshot(variant: u8) -> Arc<Snapshot> {
    static ALL: LazyLock<[Arc<Snapshot>; 4]> = LazyLock::new(|| [0, 1, 2, 3].map(make));
    ALL[usize::from(variant % 4)].clone()
}

fn make(variant: u8) -> Arc<Snapshot> {
    let port = |name: &str, mac, mtu| PortSpec {
        name: name.into(),
        mac: MacAddr(mac),
        addresses: Vec::new(),
        mtu,
    };
    let mut timeouts = Timeouts::default();
    assert!(timeouts.set(
        evenkeel_core::proto::ConnState::Established,
        std::time::Duration::from_secs(10 + 50 * u64::from(variant))
    ));
    let services = (0..8u8).map(|n| {
        let [vip, lip, server] = PAIRS[usize::from(n / 2)].map(ip);
        ServiceSpec {
            id: ServiceId(n.into()),
            name: format!("service-{n}"),
            proto: proto(n),
            vip,
            port: 80,
            scheduler: SchedulerKind::WeightedRoundRobin,
            mode: FwdMode::FullNat,
            local_addrs: vec![lip],
            timeouts,
            replicate: Replicate::default(),
            servers: [80, 81]
                .map(|port| ServerSpec {
                    id: RealServerId(u16::from(n) * 2 + port % 2),
                    addr: server,
                    port,
                    weight: if variant == 3 { 0 } else { port - 79 },
                })
                .into(),
        }
    });
    let mut neighbours: Vec<_> = ["10.0.1.1", "fd00::1:1", "203.0.113.7", "2001:db8:c::7"]
        .into_iter()
        .zip(0u8..)
        .map(|(addr, i)| NeighbourSpec {
            addr: ip(addr),
            mac: MacAddr([2, 0, 0, 0, 1, i]),
            port: PortId((i < 2).into()),
        })
        .collect();
    if variant == 2 {
        neighbours.truncate(1);
    }
    let routes = [
        ("10.0.1.0", 24, 1),
        ("fd00::", 16, 1),
        ("0.0.0.0", 0, 0),
        ("::", 0, 0),
    ];
    let spec = SnapshotSpec {
        peer_local_addrs: Vec::new(),
        ports: vec![
            port("clients", [2, 0, 0, 0, 0, 1], Some(1500)),
            port("servers", [2, 0, 0, 0, 0, 2], None),
        ],
        services: services.filter(|s| variant != 1 || s.id.0 % 3 != 0).collect(),
        routes: routes
            .map(|(prefix, len, port)| RouteSpec {
                prefix: ip(prefix),
                len,
                via: None,
                port: PortId(port),
            })
            .into(),
        neighbours,
    };
    Arc::new(Snapshot::new(&spec).expect("a good spec"))
}

/// A worker with few places.
pub fn worker() -> Worker {
    static STEERING: LazyLock<Arc<Steering>> =
        LazyLock::new(|| Arc::new(Steering::new(&MICROSOFT_KEY, 64).expect("full rank")));
    let mut worker = Worker::new(
        WorkerConfig {
            id: WorkerId(0),
            buckets: BucketMap::dealt(1),
            steering: STEERING.clone(),
            sizes: TableSizes {
                conns_v4: 12,
                conns_v6: 20,
                exts: 2,
            },
            local_port_min: 1024,
            seed: 1,
            hold: Some(HoldConfig::default()),
            cluster: None,
        },
        &mut HeapMemory,
    )
    .expect("a small table");
    worker
        .handle_command(Instant::ZERO, Command::SetSnapshot(snapshot(0)))
        .expect("room for an event");
    worker
}

/// What must hold after any input: every packet is counted once, and the table agrees with itself.
pub fn check(worker: &mut Worker) {
    let c = worker.counters();
    assert_eq!(
        c.rx_packets,
        c.tx_packets + c.dropped() + c.punted + c.handed_off + c.answered + c.held - c.released
    );
    let live: u64 = c.by_state.iter().sum();
    assert_eq!(live, worker.table().len() as u64);
    assert_eq!(c.opened, live + c.expired + c.removed);
    worker.audit();
    let mut originated = 0;
    while let Some((_, frame)) = worker.poll_transmit(|len| Some(HeapFrame::zeroed(PortId(0), len))) {
        assert!(!evenkeel_core::port::Frame::data(&frame).is_empty());
        originated += 1;
        assert!(
            originated <= 64 + 64,
            "the queues are bounded: what is originated, and what was held"
        );
    }
}
