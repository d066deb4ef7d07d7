//! A small site: clients, a balancer of two workers with two ports, three servers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use evenkeel_core::lport::Steering;
use evenkeel_core::port::PortId;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::wire::MacAddr;
use evenkeel_io_sim::{
    End, FlowSpec, HostId, HostSpec, LbId, LbPort, LbSpec, LinkId, LinkSpec, ServerSpec, SwitchId,
    SwitchSpec, Tier, World,
};

/// The config of a balancer; `{n}` is its number.
const CONFIG: &str = include_str!("site.toml");

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn end(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) client: HostId,
    pub(crate) lb: LbId,
    /// Of the client, of the balancer's two ports, of the servers.
    pub(crate) links: Vec<LinkId>,
    pub(crate) switches: [SwitchId; 2],
}

pub(crate) const CLIENT4: &str = "203.0.113.100";
pub(crate) const CLIENT6: &str = "2001:db8:c::100";
/// VIPs: IPv4, IPv6, NAT64.
pub(crate) const VIPS: [&str; 3] = ["203.0.113.80:80", "[2001:db8:c::80]:80", "[2001:db8:c::64]:80"];
pub(crate) const UDP_VIP: &str = "203.0.113.80:53";

pub(crate) fn lb_spec() -> LbSpec {
    let config = evenkeel_control::parse("site.toml", CONFIG).expect("the config is right");
    let steering: Arc<Steering> = config.steering.clone();
    let mut spec = LbSpec::new("lb", steering, config.spec);
    spec.sizes = config.sizes;
    spec
}

impl Site {
    pub(crate) fn new(seed: u64, lb: LbSpec, link: LinkSpec) -> Site {
        Site::of(seed, lb, link, |_| {})
    }

    /// A client and servers of these tiers.
    pub(crate) fn tiers(seed: u64, link: LinkSpec, client: Tier, server: Tier) -> Site {
        Site::of(seed, lb_spec(), link, |host| {
            (host.client_tier, host.server_tier) = (client, server);
        })
    }

    /// Hosts are changed before they come.
    pub(crate) fn of(seed: u64, lb: LbSpec, link: LinkSpec, change: impl Fn(&mut HostSpec)) -> Site {
        let mut world = World::new(seed);
        let switches = ["clients", "servers"].map(|n| world.add_switch(SwitchSpec::new(n)).expect("room"));
        let mut links = Vec::new();
        let mac = MacAddr([2, 0, 0, 0, 1, 1]);
        let mut client = HostSpec::new("client", mac, vec![(ip(CLIENT4), 24), (ip(CLIENT6), 64)]);
        change(&mut client);
        let client = world.add_host(client).expect("room");
        links.push(
            world
                .connect(End::Host(client), End::Switch(switches[0]), link)
                .expect("free"),
        );
        let lb = world.add_lb(lb).expect("the config is right");
        for (n, switch) in [(0, switches[0]), (1, switches[1])] {
            let port = End::Lb(lb, LbPort::Data(PortId(n)));
            links.push(world.connect(port, End::Switch(switch), link).expect("free"));
        }
        for n in 1..=3u8 {
            let (v4, v6) = (format!("198.51.100.1{n}"), format!("2001:db8:5::1{n}"));
            let mac = MacAddr([2, 0, 0, 0, 2, 0x10 + n]);
            let mut host = HostSpec::new(format!("server{n}"), mac, vec![(ip(&v4), 24), (ip(&v6), 64)]);
            change(&mut host);
            let host = world.add_host(host).expect("room");
            links.push(
                world
                    .connect(End::Host(host), End::Switch(switches[1]), link)
                    .expect("free"),
            );
            for (proto, port) in [(L4Proto::Tcp, 8080), (L4Proto::Udp, 5353)] {
                for addr in [&v4, &v6] {
                    let server = ServerSpec {
                        number: n.into(),
                        proto,
                        addr: SocketAddr::new(ip(addr), port),
                    };
                    world.serve(host, server).expect("its address");
                }
            }
        }
        world.start(lb).expect("memory");
        Site {
            world,
            client,
            lb,
            links,
            switches,
        }
    }

    /// A flow to a VIP.
    pub(crate) fn flow(&self, vip: &str) -> FlowSpec {
        let target = end(vip);
        let source = if target.is_ipv4() { CLIENT4 } else { CLIENT6 };
        FlowSpec::tcp(self.client, ip(source), target)
    }
}
