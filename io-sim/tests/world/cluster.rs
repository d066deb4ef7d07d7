//! Nodes of a cluster: production's `NodeCore` and replication between simulated machines.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evenkeel_core::cluster::{ClusterConfig, Member, NodeId, VrrpSettings};
use evenkeel_core::port::PortId;
use evenkeel_core::sync::{ClusterSizes, Readiness};
use evenkeel_core::tuple::{Family, L4Proto};
use evenkeel_core::wire::MacAddr;
use evenkeel_io_sim::{
    End, FlowSpec, FlowState, HostId, HostSpec, Instant, LbCluster, LbId, LbPort, LbQueues, LbSpec, LinkSpec,
    ServerSpec, SwitchSpec, World,
};

use crate::balanced::check;
use crate::build::{CLIENT4, CLIENT6, VIPS, ip};

const CONFIG: &str = include_str!("site.toml");

pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) client: HostId,
    pub(crate) lbs: Vec<LbId>,
}

/// The share of a node.
fn share(n: u8) -> [String; 2] {
    [format!("198.51.100.10{n}"), format!("2001:db8:5::10{n}")]
}

fn mac(n: u8, port: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, n, port])
}

fn lb_spec(n: u8, nodes: u8) -> LbSpec {
    let mut text = CONFIG
        .replace("02:00:00:00:00:01", &mac(n + 0x20, 1).to_string())
        .replace("02:00:00:00:00:02", &mac(n + 0x20, 2).to_string());
    for (family, all) in [
        (0, ["198.51.100.101", "198.51.100.102"]),
        (1, ["2001:db8:5::101", "2001:db8:5::102"]),
    ] {
        let all = format!("\"{}\", \"{}\"", all[0], all[1]);
        text = text.replace(&all, &format!("\"{}\"", share(n)[family]));
    }
    for addr in ["203.0.113.2/", "198.51.100.2/"] {
        text = text.replace(addr, &addr.replace(".2/", &format!(".{n}/")));
    }
    for addr in ["2001:db8:c::2/", "2001:db8:5::2/"] {
        text = text.replace(addr, &addr.replace("::2/", &format!("::{n}/")));
    }
    let config = evenkeel_control::parse("site.toml", &text).expect("the config is right");
    let vip = |text: &str| text.parse::<SocketAddr>().expect("an address").ip();
    let v4 = |addr| match addr {
        IpAddr::V4(addr) => addr,
        IpAddr::V6(_) => unreachable!("an IPv4 address"),
    };
    let v6 = |addr| match addr {
        IpAddr::V6(addr) => addr,
        IpAddr::V4(_) => unreachable!("an IPv6 address"),
    };
    let members = (1..=nodes).map(|n| Member {
        id: NodeId(n.into()),
        priority: 200 - n,
        local_addrs: share(n).iter().map(|a| ip(a)).collect(),
        vrrp_sources: vec![ip(&format!("203.0.113.{n}")), ip(&format!("fe80::{n}"))],
    });
    let cluster = ClusterConfig {
        cluster: 7,
        id: NodeId(n.into()),
        members: members.collect(),
        heartbeat: Duration::from_millis(100),
        down_count: 3,
        lease_margin: Duration::from_millis(50),
        join_time: Duration::from_secs(1),
        announce: vec![(PortId(1), mac(n + 0x20, 2))],
        vrrp: Some(VrrpSettings {
            vrid: 51,
            interval_cs: 10,
            preempt: true,
            port: PortId(0),
            mac: mac(n + 0x20, 1),
            source_v4: Some(v4(ip(&format!("203.0.113.{n}")))),
            source_v6: Some(v6(ip(&format!("fe80::{n}")))),
            virtual_v4: vec![v4(vip(VIPS[0]))],
            virtual_v6: vec![v6(vip(VIPS[1])), v6(vip(VIPS[2]))],
        }),
        shared_addrs: Vec::new(),
    };
    let mut snapshot = config.spec;
    let others = (1..=nodes).filter(|other| *other != n);
    snapshot.peer_local_addrs = others.flat_map(|other| share(other).map(|a| ip(&a))).collect();
    let mut spec = LbSpec::new(format!("lb{n}"), config.steering, snapshot);
    spec.sizes = config.sizes;
    spec.cluster = Some(LbCluster {
        config: cluster,
        sizes: ClusterSizes::default(),
        queues: LbQueues::default(),
        secrets: None,
    });
    spec
}

impl Cluster {
    pub(crate) fn new(seed: u64, nodes: u8) -> Cluster {
        let mut world = World::new(seed);
        let [outside, inside, sync] =
            ["clients", "servers", "sync"].map(|n| world.add_switch(SwitchSpec::new(n)).expect("room"));
        let link = LinkSpec::default();
        let addrs = vec![(ip(CLIENT4), 24), (ip(CLIENT6), 64)];
        let client = HostSpec::new("client", MacAddr([2, 0, 0, 0, 1, 1]), addrs);
        let client = world.add_host(client).expect("room");
        world
            .connect(End::Host(client), End::Switch(outside), link)
            .expect("free");
        for n in 1..=3u8 {
            let addrs = [format!("198.51.100.1{n}"), format!("2001:db8:5::1{n}")].map(|a| ip(&a));
            let mac = MacAddr([2, 0, 0, 0, 2, 0x10 + n]);
            let host = HostSpec::new(format!("server{n}"), mac, vec![(addrs[0], 24), (addrs[1], 64)]);
            let host = world.add_host(host).expect("room");
            world
                .connect(End::Host(host), End::Switch(inside), link)
                .expect("free");
            for addr in addrs {
                let (number, proto, addr) = (n.into(), L4Proto::Tcp, SocketAddr::new(addr, 8080));
                world
                    .serve(host, ServerSpec { number, proto, addr })
                    .expect("its address");
            }
        }
        let mut lbs = Vec::new();
        for n in 1..=nodes {
            let lb = world.add_lb(lb_spec(n, nodes)).expect("the config is right");
            let ports = [LbPort::Data(PortId(0)), LbPort::Data(PortId(1)), LbPort::Sync];
            for (port, switch) in ports.into_iter().zip([outside, inside, sync]) {
                world
                    .connect(End::Lb(lb, port), End::Switch(switch), link)
                    .expect("free");
            }
            world.start(lb).expect("memory");
            lbs.push(lb);
        }
        Cluster { world, client, lbs }
    }

    fn readiness(&self, n: usize) -> Option<Readiness> {
        Some(self.world.lb(self.lbs[n])?.node()?.readiness())
    }
}

#[test]
fn a_master_crashes_and_connections_live_on() {
    let mut cluster = Cluster::new(1, 2);
    let world = &mut cluster.world;
    if std::env::var_os("EVENKEEL_TRACE").is_some() {
        world.add_tap(Box::new(evenkeel_io_sim::TraceTap::new(std::io::stderr())));
    }
    world.run_until(Instant::from_millis(5_000));
    for n in 0..60 {
        let target: SocketAddr = VIPS[n % 3].parse().expect("an address");
        let source = if target.is_ipv4() { CLIENT4 } else { CLIENT6 };
        let mut flow = FlowSpec::tcp(cluster.client, ip(source), target);
        flow.start = Instant::from_millis(5_000 + n as u64 * 10);
        flow.requests = u32::MAX;
        flow.gap = Duration::from_millis(100);
        flow.until = Some(Instant::from_millis(25_000));
        world.open(flow).expect("right");
    }
    world.run_until(Instant::from_millis(10_000));
    let masters: Vec<_> = cluster
        .lbs
        .iter()
        .map(|&lb| {
            let node = cluster.world.lb(lb).and_then(|lb| lb.node()).expect("it runs");
            (node.is_master(Family::V4), node.is_master(Family::V6))
        })
        .collect();
    assert_eq!(masters, [(true, true), (false, false)]);
    let crashed_at = cluster.world.now();
    assert!(
        cluster
            .world
            .flows()
            .iter()
            .all(|f| f.was_established_at(crashed_at))
    );
    cluster.world.crash(cluster.lbs[0]).expect("it runs");
    cluster.world.run_until(Instant::from_millis(40_000));
    for record in cluster.world.flows() {
        assert_eq!(
            (record.state, record.broken),
            (FlowState::Closed, None),
            "{record:?}"
        );
        assert!(record.longest_stall < Duration::from_secs(4), "{record:?}");
        assert!(
            record.longest_stall > Duration::from_millis(100),
            "the crash shows: {record:?}"
        );
    }
    // It comes back, copies all, and takes over again.
    cluster.world.start(cluster.lbs[0]).expect("it is down");
    cluster.world.run_until(Instant::from_millis(50_000));
    assert_eq!(cluster.readiness(0), Some(Readiness::Ready));
    check(&cluster.world);
}

/// Bulk over a slow path: a node is ready so much later. What it hears meanwhile is not late.
#[test]
fn bulk_may_come_later_than_all_the_rest() {
    let ready_after = |bulk_delay: Duration| {
        let mut cluster = Cluster::new(1, 2);
        cluster.world.run_until(Instant::from_millis(5_000));
        let lb = cluster.lbs[0];
        cluster.world.crash(lb).expect("it runs");
        cluster.world.run_until(Instant::from_millis(10_000));
        let queues = LbQueues {
            bulk_delay,
            ..LbQueues::default()
        };
        cluster.world.set_queues(lb, queues).expect("it is there");
        cluster.world.start(lb).expect("it is down");
        let started = cluster.world.now();
        while cluster.readiness(0) != Some(Readiness::Ready) {
            let next = cluster.world.now() + Duration::from_millis(5);
            assert!(next < started + Duration::from_secs(30), "it is ready some time");
            cluster.world.run_until(next);
        }
        check(&cluster.world);
        cluster.world.now() - started
    };
    let (usual, late) = (
        ready_after(Duration::ZERO),
        ready_after(Duration::from_millis(300)),
    );
    assert!(
        late >= usual + Duration::from_millis(300),
        "{late:?}, not {usual:?}"
    );
}
