//! Stories of captures that go through the engine: what came in, what went out, what was counted.

mod bad_input;
mod behaviour;
mod map_vip;
mod packets;
mod same;

use std::net::IpAddr;
use std::sync::Arc;

use evenkeel_core::conn::TableSizes;
use evenkeel_core::hash::MICROSOFT_KEY;
use evenkeel_core::lport::Steering;
use evenkeel_core::port::PortId;
use evenkeel_core::proto::Timeouts;
use evenkeel_core::sched::SchedulerKind;
use evenkeel_core::service::{
    FwdMode, NeighbourSpec, PortSpec, RealServerId, Replicate, RouteSpec, ServerSpec, ServiceId, ServiceSpec,
    SnapshotSpec,
};
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::wire::MacAddr;
use evenkeel_io_pcap::replay::{CaptureSource, Node, Options, Output, ReplayError, Summary, replay};

use packets::{Shared, Written, read_unverified, verify};

fn ip(s: &str) -> IpAddr {
    s.parse().expect("address")
}

fn service(id: u16, name: &str, proto: L4Proto, vip: &str, lips: &[&str], servers: &[&str]) -> ServiceSpec {
    let vip: std::net::SocketAddr = vip.parse().expect("vip");
    ServiceSpec {
        id: ServiceId(id),
        name: name.to_owned(),
        proto,
        vip: vip.ip(),
        port: vip.port(),
        scheduler: SchedulerKind::RoundRobin,
        mode: FwdMode::FullNat,
        local_addrs: lips.iter().map(|a| ip(a)).collect(),
        timeouts: Timeouts::default(),
        replicate: Replicate::default(),
        servers: (0..)
            .zip(servers)
            .map(|(i, s)| {
                let addr: std::net::SocketAddr = s.parse().expect("server");
                ServerSpec {
                    id: RealServerId(id * 10 + i),
                    addr: addr.ip(),
                    port: addr.port(),
                    weight: 1,
                }
            })
            .collect(),
    }
}

/// A node with services in every mix of families; clients on one port, servers on the other.
fn node() -> Node {
    let (v4, v6) = (["198.51.100.101", "198.51.100.102"], ["2001:db8:5::101"]);
    let services = vec![
        service(
            0,
            "web",
            L4Proto::Tcp,
            "192.0.2.80:80",
            &v4,
            &["198.51.100.11:8080", "198.51.100.12:8080"],
        ),
        service(
            1,
            "dns",
            L4Proto::Udp,
            "192.0.2.53:53",
            &v4,
            &["198.51.100.11:53"],
        ),
        service(
            2,
            "web6",
            L4Proto::Tcp,
            "[2001:db8::80]:80",
            &v6,
            &["[2001:db8:5::11]:8080"],
        ),
        service(
            3,
            "web64",
            L4Proto::Tcp,
            "[2001:db8::64]:80",
            &v4,
            &["198.51.100.11:8080"],
        ),
        service(
            4,
            "dns46",
            L4Proto::Udp,
            "192.0.2.46:53",
            &v6,
            &["[2001:db8:5::11]:53"],
        ),
    ];
    let mac = |n: u8| MacAddr([2, 0, 0, 0, 0, n]);
    let neighbour = |addr: &str, n: u8, port: u16| NeighbourSpec {
        addr: ip(addr),
        mac: mac(n),
        port: PortId(port),
    };
    let spec = SnapshotSpec {
        peer_local_addrs: Vec::new(),
        ports: vec![
            PortSpec {
                name: "clients".to_owned(),
                mac: mac(1),
                addresses: vec![(ip("203.0.113.2"), 24), (ip("2001:db8:c::2"), 64)],
                mtu: None,
            },
            PortSpec {
                name: "servers".to_owned(),
                mac: mac(2),
                addresses: vec![(ip("198.51.100.2"), 24), (ip("2001:db8:5::2"), 64)],
                mtu: None,
            },
        ],
        services,
        routes: vec![
            RouteSpec {
                prefix: ip("0.0.0.0"),
                len: 0,
                via: Some(ip("203.0.113.1")),
                port: PortId(0),
            },
            RouteSpec {
                prefix: ip("::"),
                len: 0,
                via: Some(ip("2001:db8:c::1")),
                port: PortId(0),
            },
        ],
        neighbours: vec![
            neighbour("203.0.113.1", 0x11, 0),
            neighbour("2001:db8:c::1", 0x11, 0),
            neighbour("198.51.100.11", 0x21, 1),
            neighbour("198.51.100.12", 0x22, 1),
            neighbour("2001:db8:5::11", 0x23, 1),
        ],
    };
    Node {
        steering: Arc::new(Steering::new(&MICROSOFT_KEY, 64).expect("full rank")),
        sizes: TableSizes {
            conns_v4: 1000,
            conns_v6: 1000,
            exts: 10,
        },
        local_port_min: 1024,
        spec,
    }
}

/// Replays a capture in memory: the summary and what was written, every checksum verified.
fn run(capture: Vec<u8>, node: &Node, options: Options) -> (Summary, Vec<Written>) {
    let (summary, written) = run_unverified(capture, node, options).expect("replayed");
    written.iter().for_each(verify);
    (summary, written)
}

fn run_unverified(
    capture: Vec<u8>,
    node: &Node,
    options: Options,
) -> Result<(Summary, Vec<Written>), ReplayError> {
    let (summary, bytes) = run_bytes(capture, node, options)?;
    Ok((summary, read_unverified(bytes)))
}

fn run_bytes(capture: Vec<u8>, node: &Node, options: Options) -> Result<(Summary, Vec<u8>), ReplayError> {
    let shared = Shared::default();
    let options = Options {
        output: Some(Output::Stream(Box::new(shared.clone()))),
        ..options
    };
    let mut source = CaptureSource::from_bytes("memory", capture);
    let summary = replay(&mut source, node, options, &mut |_| true)?;
    Ok((summary, shared.bytes()))
}

/// The drops of a summary as `(reason, packets)`.
fn drops(summary: &Summary) -> Vec<(&'static str, u64)> {
    summary.drops.iter().map(|d| (d.reason, d.packets)).collect()
}
