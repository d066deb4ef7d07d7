//! Routers in front of balancers, VLANs, and what of a network goes dark.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_core::port::PortId;
use evenkeel_core::service::{NeighbourSpec, RouteSpec};
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::wire::MacAddr;
use evenkeel_io_sim::{
    Detection, Ecmp, EcmpSpec, End, Faults, FlowSpec, FlowState, HostId, HostSpec, Instant, LbId, LbPort,
    LinkId, LinkSpec, Place, RouterId, RouterPortSpec, RouterSpec, ServerSpec, SwitchSpec, Vlan, World,
    WorldError,
};

use crate::balanced::check;
use crate::build::{VIPS, end, ip, lb_spec};

const CLIENT4: &str = "10.9.0.100";
const CLIENT6: &str = "fd00:9::100";
const ROUTER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 9, 1]);
const INTERVAL: Duration = Duration::from_millis(50);

/// A client behind a router, and balancers that all answer for the VIPs: each with servers of its own, so that no
/// session has to be known to another one.
struct Routed {
    world: World,
    client: HostId,
    router: RouterId,
    lbs: Vec<LbId>,
    /// Of each balancer, to the router's side.
    links: Vec<LinkId>,
}

fn detection(target: &str) -> Detection {
    Detection {
        interval: INTERVAL,
        multiplier: 3,
        target: ip(target),
    }
}

fn router_spec(nodes: u8, kind: Ecmp, detects: bool) -> RouterSpec {
    let port = |name: &str, n: u8, addresses: [(&str, u8); 2]| RouterPortSpec {
        name: name.to_owned(),
        mac: MacAddr([2, 0, 0, 0, 9, n]),
        addresses: addresses.map(|(addr, len)| (ip(addr), len)).to_vec(),
    };
    let outside = port("clients", 0, [("10.9.0.1", 24), ("fd00:9::1", 64)]);
    let inside = port("nodes", 1, [("203.0.113.254", 24), ("2001:db8:c::fe", 64)]);
    let mut spec = RouterSpec::new("router", vec![outside, inside]);
    let group = |prefixes: &[&str], len, members: &dyn Fn(u8) -> String, target| EcmpSpec {
        prefixes: prefixes.iter().map(|p| (ip(p), len)).collect(),
        members: (1..=nodes).map(|n| ip(&members(n))).collect(),
        kind,
        detection: detects.then(|| detection(target)),
    };
    let v4 = group(
        &["203.0.113.80"],
        32,
        &|n| format!("203.0.113.1{n}"),
        "203.0.113.80",
    );
    let v6 = group(
        &["2001:db8:c::80", "2001:db8:c::64"],
        128,
        &|n| format!("2001:db8:c::1{n}"),
        "2001:db8:c::80",
    );
    spec.groups = vec![v4, v6];
    spec
}

impl Routed {
    fn new(seed: u64, nodes: u8, kind: Ecmp, detects: bool) -> Routed {
        let mut world = World::new(seed);
        let link = LinkSpec::default();
        let router = world
            .add_router(router_spec(nodes, kind, detects))
            .expect("it can be");
        let mut client = HostSpec::new(
            "client",
            MacAddr([2, 0, 0, 0, 1, 1]),
            vec![(ip(CLIENT4), 24), (ip(CLIENT6), 64)],
        );
        client.gateways = vec![ip("10.9.0.1"), ip("fd00:9::1")];
        let client = world.add_host(client).expect("room");
        world
            .connect(End::Host(client), End::Router(router, 0), link)
            .expect("free");
        let outside = world.add_switch(SwitchSpec::new("nodes")).expect("room");
        world
            .connect(End::Router(router, 1), End::Switch(outside), link)
            .expect("free");
        let (mut lbs, mut links) = (Vec::new(), Vec::new());
        for n in 1..=nodes {
            let mut spec = lb_spec();
            spec.name = format!("lb{n}");
            for port in &mut spec.config.ports {
                port.mac.0[4] = 0x40 + n;
            }
            let addresses = [format!("203.0.113.1{n}"), format!("2001:db8:c::1{n}")].map(|a| ip(&a));
            spec.config.ports[0].addresses = vec![(addresses[0], 24), (addresses[1], 64)];
            for (prefix, via, len) in [
                ("10.9.0.0", "203.0.113.254", 24),
                ("fd00:9::", "2001:db8:c::fe", 64),
            ] {
                let (prefix, via) = (ip(prefix), ip(via));
                spec.config.routes.push(RouteSpec {
                    prefix,
                    len,
                    via: Some(via),
                    port: PortId(0),
                });
                spec.config.neighbours.push(NeighbourSpec {
                    addr: via,
                    mac: ROUTER_MAC,
                    port: PortId(0),
                });
            }
            let lb = world.add_lb(spec).expect("the config is right");
            links.push(
                world
                    .connect(End::Lb(lb, LbPort::Data(PortId(0))), End::Switch(outside), link)
                    .expect("free"),
            );
            let inside = world.add_switch(SwitchSpec::new("servers")).expect("room");
            world
                .connect(End::Lb(lb, LbPort::Data(PortId(1))), End::Switch(inside), link)
                .expect("free");
            for server in 1..=3u8 {
                let addrs =
                    [format!("198.51.100.1{server}"), format!("2001:db8:5::1{server}")].map(|a| ip(&a));
                let mac = MacAddr([2, 0, 0, 0, 2, 0x10 + server]);
                let host = HostSpec::new(
                    format!("server{n}{server}"),
                    mac,
                    vec![(addrs[0], 24), (addrs[1], 64)],
                );
                let host = world.add_host(host).expect("room");
                world
                    .connect(End::Host(host), End::Switch(inside), link)
                    .expect("free");
                for addr in addrs {
                    let (number, proto) = (u32::from(n) * 10 + u32::from(server), L4Proto::Tcp);
                    let addr = std::net::SocketAddr::new(addr, 8080);
                    world
                        .serve(host, ServerSpec { number, proto, addr })
                        .expect("its address");
                }
            }
            world.start(lb).expect("memory");
            lbs.push(lb);
        }
        Routed {
            world,
            client,
            router,
            lbs,
            links,
        }
    }

    fn open(&mut self, count: u64, from_ms: u64) {
        for n in 0..count {
            let target = end(VIPS[n as usize % 3]);
            let source = if target.is_ipv4() { CLIENT4 } else { CLIENT6 };
            let mut flow = FlowSpec::tcp(self.client, ip(source), target);
            flow.start = Instant::from_millis(from_ms + n);
            flow.give_up = Duration::from_secs(5);
            self.world.open(flow).expect("right");
        }
    }

    /// Flows that ended well, by the balancer that had them.
    fn served(&self, from: usize) -> Vec<usize> {
        let mut served = vec![0; self.lbs.len()];
        for flow in &self.world.flows()[from..] {
            if flow.state == FlowState::Closed {
                served[flow.server.expect("it answered") as usize / 10 - 1] += 1;
            }
        }
        served
    }

    fn until(&mut self, ms: u64) {
        self.world.run_until(Instant::from_millis(ms));
    }

    fn there(&self) -> [Vec<bool>; 2] {
        [0, 1].map(|group| {
            self.world
                .router_members(self.router, group)
                .expect("a group")
                .to_vec()
        })
    }
}

#[test]
fn flows_are_dealt_to_those_that_answer_hellos_and_to_no_others() {
    for kind in [Ecmp::Modulo, Ecmp::Resilient(128)] {
        let mut routed = Routed::new(1, 3, kind, true);
        assert_eq!(
            routed.there(),
            [vec![false; 3], vec![false; 3]],
            "nobody has answered yet"
        );
        routed.until(1_000);
        assert_eq!(routed.there(), [vec![true; 3], vec![true; 3]]);
        routed.open(300, 1_000);
        routed.until(5_000);
        let served = routed.served(0);
        assert_eq!(served.iter().sum::<usize>(), 300, "{served:?}");
        assert!(served.iter().all(|n| *n > 60), "{served:?}");
        // One is gone, and found to be within four intervals.
        routed.world.crash(routed.lbs[1]).expect("it runs");
        routed.until(5_000 + 4 * 50);
        assert_eq!(routed.there()[0], [true, false, true]);
        assert_eq!(routed.there()[1], [true, false, true]);
        routed.open(300, 5_300);
        routed.until(10_000);
        let served = routed.served(300);
        assert_eq!((served[1], served.iter().sum::<usize>()), (0, 300), "{served:?}");
        routed.world.start(routed.lbs[1]).expect("it is down");
        routed.until(10_400);
        assert_eq!(routed.there()[0], [true; 3]);
        let counters = routed.world.router_counters(routed.router).expect("it is there");
        // Three came, one went and came, of both families.
        assert_eq!(counters.changes, 10, "{counters:?}");
        assert_eq!(
            (counters.no_route, counters.no_member, counters.ttl_over),
            (0, 0, 0)
        );
        check(&routed.world);
    }
}

#[test]
fn a_member_in_the_dark_is_believed_in_if_hellos_pass_and_left_out_if_they_do_not() {
    let dark = Faults {
        dark: true,
        ..Faults::default()
    };
    let cut = Faults {
        cut: true,
        ..Faults::default()
    };
    for (fault, found) in [(dark, false), (cut, true)] {
        let mut routed = Routed::new(1, 2, Ecmp::Modulo, true);
        routed.until(1_000);
        routed
            .world
            .set_faults(routed.links[0], [fault; 2])
            .expect("it is there");
        routed.until(1_300);
        assert_eq!(routed.there()[0], [!found, true]);
        routed.open(90, 1_300);
        routed.until(12_000);
        let served = routed.served(0);
        assert_eq!(served[0], 0);
        assert_eq!(served[1] == 90, found, "{served:?}");
        check(&routed.world);
    }
    // Nobody looks: whoever is configured is there.
    let mut routed = Routed::new(1, 2, Ecmp::Modulo, false);
    routed.world.crash(routed.lbs[0]).expect("it runs");
    routed.open(90, 1_000);
    routed.until(12_000);
    assert_eq!(routed.there()[0], [true, true]);
    let served = routed.served(0);
    assert!(served[0] == 0 && (20..70).contains(&served[1]), "{served:?}");
}

#[test]
fn one_bucket_in_the_dark_takes_its_flows_and_no_others() {
    let mut routed = Routed::new(1, 1, Ecmp::Modulo, false);
    let half: BTreeSet<u16> = (0..32).collect();
    routed
        .world
        .set_dark_buckets(routed.lbs[0], half)
        .expect("it is there");
    routed.open(200, 100);
    routed.until(12_000);
    let served = routed.served(0)[0];
    assert!(
        (60..140).contains(&served),
        "{served} of 200 in the other half of the buckets"
    );
    let counters = routed.world.lb(routed.lbs[0]).expect("it is there").counters();
    assert!(counters.bucket_dark > 0, "{counters:?}");
    check(&routed.world);
    routed
        .world
        .set_dark_buckets(routed.lbs[0], BTreeSet::new())
        .expect("it is there");
    routed.open(50, 12_000);
    routed.until(16_000);
    assert_eq!(routed.served(200)[0], 50);
}

#[test]
fn packets_age_and_end_where_no_way_leads() {
    let mut routed = Routed::new(1, 1, Ecmp::Modulo, true);
    // Nobody is there yet; and nobody ever is at an address without a route.
    routed.open(2, 0);
    let mut lost = FlowSpec::tcp(routed.client, ip(CLIENT4), end("192.0.2.77:80"));
    lost.give_up = Duration::from_secs(2);
    routed.world.open(lost).expect("right");
    routed.until(30);
    let counters = routed.world.router_counters(routed.router).expect("it is there");
    assert_eq!((counters.no_member, counters.no_route), (2, 1), "{counters:?}");
    routed.until(30_000);
    assert_eq!(routed.served(0)[0], 2, "SYNs are sent again");
    assert!(routed.world.flows()[2].broken.is_some());
    check(&routed.world);
}

#[test]
fn corrupted_frames_are_lost_and_byte_streams_stay_right() {
    let mut routed = Routed::new(1, 1, Ecmp::Modulo, false);
    let corrupts = Faults {
        corruption: evenkeel_io_sim::Ppm(30_000),
        ..Faults::default()
    };
    routed
        .world
        .set_faults(routed.links[0], [corrupts; 2])
        .expect("it is there");
    for n in 0..60 {
        let target = end(VIPS[n % 3]);
        let source = if target.is_ipv4() { CLIENT4 } else { CLIENT6 };
        let mut flow = FlowSpec::tcp(routed.client, ip(source), target);
        (flow.requests, flow.reply_len) = (20, 3_000);
        flow.start = Instant::from_millis(n as u64);
        flow.give_up = Duration::from_secs(120);
        routed.world.open(flow).expect("right");
    }
    routed.until(300_000);
    for record in routed.world.flows() {
        assert_eq!((record.replied, record.broken), (20, None), "{record:?}");
    }
    assert!(routed.world.counters().frames_corrupted > 100);
    let engine: u64 = {
        let lb = routed.world.lb(routed.lbs[0]).expect("it is there");
        lb.worker_counters().iter().map(|w| w.engine.dropped()).sum()
    };
    assert!(
        engine > 20,
        "{engine} frames dropped as the NIC says that they are wrong"
    );
    check(&routed.world);
}

#[test]
fn a_router_that_cannot_be_is_refused() {
    let mut world = World::new(1);
    let mut refuse = |spoil: &dyn Fn(&mut RouterSpec), why: &str| {
        let mut spec = router_spec(2, Ecmp::Resilient(16), true);
        spoil(&mut spec);
        let refused = world.add_router(spec).expect_err(why);
        assert_eq!(refused.to_string(), format!("router: {why}"));
    };
    refuse(&|s| s.ports.clear(), "1 to 16 ports, not 0");
    refuse(
        &|s| s.groups[0].members.clear(),
        "1 to 64 next hops of a group, not 0",
    );
    refuse(
        &|s| s.groups[0].members = vec![ip("203.0.113.9"); 65],
        "1 to 64 next hops of a group, not 65",
    );
    refuse(
        &|s| s.groups[0].kind = Ecmp::Resilient(1),
        "2 to 65536 buckets, not 1",
    );
    refuse(
        &|s| s.groups[1].members[0] = ip("203.0.113.11"),
        "a group of both families",
    );
    refuse(
        &|s| s.groups[0].members[0] = ip("198.18.0.1"),
        "198.18.0.1 is on no link of it",
    );
    refuse(
        &|s| {
            if let Some(d) = &mut s.groups[0].detection {
                d.multiplier = 0;
            }
        },
        "hellos at no interval, or none of them",
    );
}

fn plain_host(world: &mut World, n: u8) -> HostId {
    let addrs = vec![(ip(&format!("10.0.0.{n}")), 24)];
    let spec = HostSpec::new(format!("host{n}"), MacAddr([2, 0, 0, 0, 0, n]), addrs);
    world.add_host(spec).expect("room")
}

/// Whether a host can talk to another, from now on.
fn reaches(world: &mut World, from: (HostId, u8), to: (HostId, u8)) -> bool {
    let addr = end(&format!("10.0.0.{}:7", to.1));
    let (number, proto) = (1, L4Proto::Tcp);
    world
        .serve(to.0, ServerSpec { number, proto, addr })
        .expect("its address");
    let mut flow = FlowSpec::tcp(from.0, ip(&format!("10.0.0.{}", from.1)), addr);
    flow.start = world.now();
    flow.give_up = Duration::from_secs(2);
    let id = world.open(flow).expect("right");
    let until = Instant::from_nanos(world.now().as_nanos() + 10_000_000_000);
    world.run_until(until);
    world.flow(id).expect("it is there").state == FlowState::Closed
}

#[test]
fn vlans_are_apart_also_across_a_trunk() {
    let mut world = World::new(1);
    let switches = ["a", "b"].map(|n| world.add_switch(SwitchSpec::new(n)).expect("room"));
    let hosts = [1, 2, 3, 4].map(|n| plain_host(&mut world, n));
    // 1 and 2 at the first switch, 3 and 4 at the second; 1 and 3 in VLAN 10, 2 and 4 in VLAN 20.
    for (n, host) in hosts.into_iter().enumerate() {
        let vlan = Vlan::Access(if n % 2 == 0 { 10 } else { 20 });
        let at = End::Vlan(switches[n / 2], vlan);
        world
            .connect(End::Host(host), at, LinkSpec::default())
            .expect("free");
    }
    let [a, b] = switches.map(|id| End::Vlan(id, Vlan::Trunk));
    let trunk = world.connect(a, b, LinkSpec::default()).expect("free");
    assert!(reaches(&mut world, (hosts[0], 1), (hosts[2], 3)));
    assert!(reaches(&mut world, (hosts[1], 2), (hosts[3], 4)));
    assert!(!reaches(&mut world, (hosts[0], 1), (hosts[1], 2)));
    assert!(!reaches(&mut world, (hosts[0], 1), (hosts[3], 4)));
    let [there, _] = world.link_counters(trunk).expect("it is there");
    assert!(there.delivered > 0);
    check(&world);
    // Untagged at a trunk: not for any VLAN.
    let stray = plain_host(&mut world, 5);
    world
        .connect(End::Host(stray), a, LinkSpec::default())
        .expect("free");
    assert!(!reaches(&mut world, (stray, 5), (hosts[0], 1)));
    let counters = world.switch_counters(switches[0]).expect("it is there");
    assert!(counters.wrong_vlan > 0, "{counters:?}");
    check(&world);
    for vid in [0, 4095] {
        let refused = world.connect(
            End::Host(stray),
            End::Vlan(switches[0], Vlan::Access(vid)),
            LinkSpec::default(),
        );
        assert!(
            matches!(refused, Err(WorldError::Vlan(_)) | Err(WorldError::Connected(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn a_switch_parts_two_one_way_and_leaves_the_others() {
    let mut world = World::new(1);
    let switch = world.add_switch(SwitchSpec::new("switch")).expect("room");
    let hosts = [1, 2, 3].map(|n| plain_host(&mut world, n));
    let place = |host: HostId| Place {
        owner: evenkeel_io_sim::Owner::Host(host),
        port: 0,
    };
    for host in hosts {
        world
            .connect(End::Host(host), End::Switch(switch), LinkSpec::default())
            .expect("free");
    }
    assert!(reaches(&mut world, (hosts[0], 1), (hosts[1], 2)));
    world
        .part(place(hosts[1]), place(hosts[0]), true)
        .expect("one switch");
    assert!(
        !reaches(&mut world, (hosts[0], 1), (hosts[1], 2)),
        "its answers do not come back"
    );
    assert!(reaches(&mut world, (hosts[0], 1), (hosts[2], 3)));
    assert!(reaches(&mut world, (hosts[2], 3), (hosts[1], 2)));
    let counters = world.switch_counters(switch).expect("it is there");
    assert!(counters.parted > 0, "{counters:?}");
    world
        .part(place(hosts[1]), place(hosts[0]), false)
        .expect("one switch");
    assert!(reaches(&mut world, (hosts[0], 1), (hosts[1], 2)));
    check(&world);
    let apart = plain_host(&mut world, 4);
    let refused = world
        .part(place(hosts[0]), place(apart), true)
        .expect_err("it has no link");
    assert!(refused.to_string().contains("are not at one switch"), "{refused}");
}
