//! From a plan to a world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::conn::TableSizes;
use evenkeel_core::hash::MICROSOFT_KEY;
use evenkeel_core::lport::Steering;
use evenkeel_core::port::PortId;
use evenkeel_core::proto::{ConnState, Timeouts};
use evenkeel_core::sched::SchedulerKind;
use evenkeel_core::service::{
    FwdMode, NeighbourSpec, Place, PortSpec, RealServerId, Replicate, RouteSpec, ServerSpec as RealServer,
    ServiceId, ServiceSpec, Snapshot, SnapshotSpec,
};
use evenkeel_core::time::Instant;
use evenkeel_io_sim::{
    Burst, Detection, Ecmp, EcmpSpec, End, Faults, FlowEnd, FlowSpec, HostId, HostSpec, Keepalive, LbId,
    LbPort, LbSpec, LinkId, LinkSpec, Ppm, QueueKind, RouterPortSpec, RouterSpec, ServerSpec, SwitchId,
    SwitchSpec, Tier, Vlan, World, WorldError, WorldSpec,
};

use super::RunError;
use crate::mechanism::Switch;
use crate::plan::{self, CLIENT_COUNT, net};
use crate::scenario::{
    Action, Arrival, Change, Link, Load, LoadEnd, Network, Node, PlannedFlow, Scenario, ServerRef, Service,
    Tcp,
};

/// The ports of every node.
const CLIENTS: PortId = PortId(0);
pub(crate) const SERVERS: PortId = PortId(1);

/// Ports of a node, as its links are listed.
pub(crate) const PORTS: [LbPort; 3] = [LbPort::Data(CLIENTS), LbPort::Data(SERVERS), LbPort::Sync];

/// A world and what is where in it.
pub(crate) struct Built {
    pub(crate) world: World,
    /// By node, in order: its links to clients, servers and other nodes.
    pub(crate) links: Vec<[LinkId; 3]>,
    /// The longest way there and back between a client and a server, without queues.
    pub(crate) round_trip: Duration,
    /// By node, in order: by how many millionths its clock is faster.
    pub(crate) drifts: Vec<i32>,
}

/// Frames that others overtake are late by so much at most, where a scenario does not say it.
pub(super) const REORDERED_BY: Duration = Duration::from_millis(5);

fn link_spec(link: &Link, delay: Duration) -> LinkSpec {
    LinkSpec {
        delay,
        jitter: Duration::ZERO,
        bandwidth: link.bandwidth,
        // A switch's port of today: 16 MiB.
        queue_bytes: 16 << 20,
        mtu: link.mtu.unwrap_or(0),
        ..LinkSpec::default()
    }
    .with_faults(Faults {
        loss: Ppm(if link.burst.is_some() { 0 } else { link.loss_ppm }),
        burst: link.burst.map(|len| Burst::mean(Ppm(link.loss_ppm), len)),
        copies: u8::from(link.duplicate_ppm > 0),
        duplication: Ppm(link.duplicate_ppm),
        reordering: Ppm(link.reorder_ppm),
        reorder_by: if link.reorder_ppm > 0 {
            REORDERED_BY
        } else {
            Duration::ZERO
        },
        corruption: Ppm(link.corrupt_ppm),
        ..Faults::default()
    })
}

/// The switches of a network: of hosts, and of nodes. They are one, but in a VLAN: then a trunk is between them, for all
/// VLANs.
#[derive(Clone, Copy)]
struct Segment {
    hosts: SwitchId,
    nodes: SwitchId,
    vlan: Option<u16>,
}

impl Segment {
    fn host(self) -> End {
        self.end(self.hosts)
    }

    fn node(self) -> End {
        self.end(self.nodes)
    }

    fn end(self, switch: SwitchId) -> End {
        match self.vlan {
            Some(vid) => End::Vlan(switch, Vlan::Access(vid)),
            None => End::Switch(switch),
        }
    }
}

/// The networks of a scenario: clients, servers, nodes among themselves.
fn segments(world: &mut World, scenario: &Scenario) -> Result<[Segment; 3], WorldError> {
    let links = &scenario.links;
    let mut shared = None;
    let mut segment = |name: &str, link: &Link| -> Result<Segment, WorldError> {
        let Some(vid) = link.vlan else {
            let switch = world.add_switch(SwitchSpec::new(name))?;
            return Ok(Segment {
                hosts: switch,
                nodes: switch,
                vlan: None,
            });
        };
        let (hosts, nodes) = match shared {
            Some(both) => both,
            None => {
                let hosts = world.add_switch(SwitchSpec::new("hosts"))?;
                let nodes = world.add_switch(SwitchSpec::new("nodes"))?;
                let trunk = |id| End::Vlan(id, Vlan::Trunk);
                world.connect(trunk(hosts), trunk(nodes), LinkSpec::default())?;
                *shared.insert((hosts, nodes))
            }
        };
        Ok(Segment {
            hosts,
            nodes,
            vlan: Some(vid),
        })
    };
    Ok([
        segment("clients", &links.clients)?,
        segment("servers", &links.servers)?,
        segment("sync", &links.sync)?,
    ])
}

/// Puts the router between the clients' network and a switch of its own, to which nodes are connected. Its links are
/// those of a machine room, and carry everything.
fn router(world: &mut World, scenario: &Scenario, clients: Segment) -> Result<Option<SwitchId>, WorldError> {
    let Some(router) = scenario.router else {
        return Ok(None);
    };
    let names = ["clients", "nodes"];
    let ports = (0..)
        .zip(names)
        .zip(net::router())
        .map(|((n, name), addresses)| RouterPortSpec {
            name: name.to_owned(),
            mac: net::router_mac(n),
            addresses: addresses.to_vec(),
        });
    let mut spec = RouterSpec::new("router", ports.collect());
    let vips = vips(scenario);
    for v4 in [true, false] {
        let of_family = |addr: &IpAddr| addr.is_ipv4() == v4;
        let prefixes: Vec<_> = vips.iter().copied().filter(of_family).collect();
        let Some(target) = prefixes.first().copied() else {
            continue;
        };
        let members = scenario
            .cluster
            .nodes
            .iter()
            .flat_map(|n| net::node_clients(n.id));
        spec.groups.push(EcmpSpec {
            prefixes: prefixes
                .iter()
                .map(|vip| (*vip, if v4 { 32 } else { 128 }))
                .collect(),
            members: members.map(|(addr, _)| addr).filter(of_family).collect(),
            kind: router.buckets.map_or(Ecmp::Modulo, Ecmp::Resilient),
            detection: router.detection.map(|(interval, multiplier)| Detection {
                interval,
                multiplier,
                target,
            }),
        });
    }
    let router = world.add_router(spec)?;
    let nodes = world.add_switch(SwitchSpec::new("router"))?;
    world.connect(End::Router(router, 0), clients.host(), LinkSpec::default())?;
    world.connect(End::Router(router, 1), End::Switch(nodes), LinkSpec::default())?;
    Ok(Some(nodes))
}

/// A client's addresses, per family.
pub(crate) fn client(scenario: &Scenario, n: u32) -> [(IpAddr, u8); 2] {
    match scenario.router {
        Some(_) => net::far_client(n),
        None => net::client(n),
    }
}

/// Real servers of the largest service, whenever it is largest.
fn server_count(scenario: &Scenario) -> u32 {
    let services = 0..scenario.services.len();
    services.map(|s| scenario.server_count_max(s)).max().unwrap_or(0)
}

/// LIPs of a node's share; of all nodes the same if shares are off.
pub(crate) fn local_addrs(scenario: &Scenario, node: u16) -> Vec<IpAddr> {
    let owner = if plan::switch(scenario) == Some(Switch::SharedLips) {
        1
    } else {
        node
    };
    share(scenario, owner)
}

fn replicate(scenario: &Scenario, service: &Service) -> Replicate {
    match service.replicate {
        _ if plan::switch(scenario) == Some(Switch::ReplicateOff) => Replicate::Off,
        Replicate::SynAck if plan::switch(scenario) == Some(Switch::ReplicateEstablished) => {
            Replicate::Established
        }
        Replicate::Deferred(_) if plan::switch(scenario) == Some(Switch::ReplicateSynAck) => {
            Replicate::SynAck
        }
        mode => mode,
    }
}

/// The share of a node.
pub(crate) fn share(scenario: &Scenario, node: u16) -> Vec<IpAddr> {
    (0..scenario.cluster.local_addresses)
        .flat_map(|n| net::local(node, n))
        .collect()
}

/// What a node serves, once its config has been changed so, and the checks of these servers have failed.
pub(crate) fn config(
    scenario: &Scenario,
    node: &Node,
    changes: &[Change],
    down: &[ServerRef],
) -> SnapshotSpec {
    let port = |name: &str, number: u8, addresses: [(IpAddr, u8); 2]| PortSpec {
        name: name.to_owned(),
        mac: net::node_mac(node.id, number),
        addresses: addresses.to_vec(),
        mtu: Some(1500),
    };
    let mut neighbours = Vec::new();
    let mut add = |addresses: [(IpAddr, u8); 2], mac, port| {
        neighbours.extend(addresses.map(|(addr, _)| NeighbourSpec { addr, mac, port }));
    };
    let mut routes = Vec::new();
    if scenario.router.is_some() {
        let [_, gateways] = net::router();
        add(gateways, net::router_mac(1), CLIENTS);
        for ((prefix, len), (via, _)) in net::far_networks().into_iter().zip(gateways) {
            routes.push(RouteSpec {
                prefix,
                len,
                via: Some(via),
                port: CLIENTS,
            });
        }
    } else {
        for n in 0..CLIENT_COUNT {
            add(net::client(n), net::client_mac(n), CLIENTS);
        }
    }
    for n in 0..server_count(scenario) {
        add(net::server(n), net::server_mac(n), SERVERS);
    }
    // A server has its number whatever the config has beside it.
    let mut first_id = 0;
    let services = scenario.services.iter().enumerate().filter_map(|(i, service)| {
        let (mut served, mut server_count) = (service.served, service.servers);
        let mut weights = BTreeMap::new();
        for change in changes {
            match *change {
                Change::Served(of, on) if of == i => served = on,
                Change::Servers(of, n) if of == i => server_count = n,
                Change::Weight(place, weight) if place.service == i => {
                    weights.insert(place.server, weight);
                }
                _ => {}
            }
        }
        // As the daemon does with a server whose check fails.
        weights.extend(down.iter().filter(|s| s.service == i).map(|s| (s.server, 0)));
        let first = first_id;
        first_id += scenario.server_count_max(i);
        if !served {
            return None;
        }
        let servers = (0..server_count).map(|n| {
            let addr = net::server_addr(service.vip, n, i);
            RealServer {
                id: RealServerId((first + n) as u16),
                addr: addr.ip(),
                port: addr.port(),
                weight: weights.get(&(n + 1)).copied().unwrap_or(1),
            }
        });
        let mut timeouts = Timeouts::default();
        if let Some(established) = service.established {
            let _ = timeouts.set(ConnState::Established, established);
        }
        let v4 = service.vip.is_ipv4();
        // Shares: the service lists the LIPs of this node only.
        let locals = local_addrs(scenario, node.id)
            .into_iter()
            .filter(|a| a.is_ipv4() == v4);
        Some(ServiceSpec {
            id: ServiceId(i as u16),
            name: service.name.clone(),
            proto: service.proto,
            vip: service.vip.ip(),
            port: service.vip.port(),
            scheduler: SchedulerKind::RoundRobin,
            mode: FwdMode::FullNat,
            local_addrs: locals.collect(),
            timeouts,
            replicate: replicate(scenario, service),
            servers: servers.collect(),
        })
    });
    SnapshotSpec {
        services: services.collect(),
        peer_local_addrs: others(scenario, node),
        ports: vec![
            port("clients", 0, net::node_clients(node.id)),
            port("servers", 1, net::node_servers(node.id)),
        ],
        routes,
        neighbours,
    }
}

/// What the engine refuses of the nodes' configs, each once: the service that it is about, if it is about one, and
/// why. There are no more services and servers than it has numbers for.
pub(crate) fn refusals(scenario: &Scenario) -> BTreeSet<(Option<usize>, String)> {
    let mut found = BTreeSet::new();
    let pushed = scenario.faults.iter().filter_map(|f| match f.action {
        Action::Config(_, change) => Some(change),
        _ => None,
    });
    let pushed: Vec<_> = pushed.collect();
    // As it is at first, and after each change of it.
    let changes = || std::iter::once(&[][..]).chain(pushed.chunks(1));
    let nodes = scenario.cluster.nodes.iter();
    let configs = nodes.flat_map(|node| changes().map(move |changes| config(scenario, node, changes, &[])));
    for spec in configs {
        for error in Snapshot::new(&spec).err().into_iter().flatten() {
            let service = match error.place {
                Place::Service(i) | Place::LocalAddr(i, _) | Place::Server(i, _) => Some(i),
                _ => None,
            };
            found.insert((service.map(|i| places(&spec, i)), error.kind.to_string()));
        }
    }
    for node in &scenario.cluster.nodes {
        let cluster = super::cluster::config(scenario, node);
        let errors = cluster.and_then(|c| c.check().err()).into_iter().flatten();
        found.extend(errors.map(|e| (None, e.to_string())));
    }
    found
}

/// The place in the scenario of the `i`th service of a config, in which some may not be.
fn places(spec: &SnapshotSpec, i: usize) -> usize {
    spec.services.get(i).map_or(i, |s| usize::from(s.id.0))
}

/// The LIPs of the other nodes, for which this one answers once it is told to.
fn others(scenario: &Scenario, node: &Node) -> Vec<IpAddr> {
    let own = local_addrs(scenario, node.id);
    let all = scenario.cluster.nodes.iter().flat_map(|n| share(scenario, n.id));
    all.filter(|a| !own.contains(a)).collect()
}

/// Sizes of each worker's tables: room for the node's in all, whatever the number of workers.
fn sizes(table: u32, workers: u8) -> TableSizes {
    let each = table.div_ceil(u32::from(workers)).max(16);
    TableSizes {
        conns_v4: each,
        conns_v6: each,
        exts: each.div_ceil(16),
    }
}

fn steering(scenario: &Scenario, node: &Node) -> Result<Arc<Steering>, RunError> {
    let mut key = MICROSOFT_KEY.to_vec();
    if plan::switch(scenario) == Some(Switch::OwnRssKeys) {
        key.rotate_left(usize::from(node.id));
    }
    let steering = Steering::new(&key, scenario.cluster.buckets);
    steering
        .map(Arc::new)
        .map_err(|e| RunError::World(format!("the RSS key of node {}: {e:?}", node.id)))
}

/// How all nodes deal tuples to buckets; `None`: each has a key of its own.
pub(crate) fn common_steering(scenario: &Scenario) -> Option<Arc<Steering>> {
    let own = plan::switch(scenario) == Some(Switch::OwnRssKeys);
    let first = scenario.cluster.nodes.first().filter(|_| !own)?;
    steering(scenario, first).ok()
}

/// What a server says that it is: its service's index, and its number there, from 1.
pub(crate) fn server_number(service: usize, server: u32) -> u32 {
    (service as u32) << 8 | (server - 1)
}

fn refused(error: WorldError) -> RunError {
    error.into()
}

fn tier(tcp: Tcp, sampled: Option<u32>) -> Tier {
    match (tcp, sampled) {
        (Tcp::Smoltcp, _) => Tier::Smoltcp,
        (Tcp::Flyweight, Some(every)) => Tier::Sampled(every),
        (Tcp::Flyweight, None) => Tier::Flyweight,
    }
}

/// Builds the world of a plan; no node runs yet, no flow is open.
pub(crate) fn world(scenario: &Scenario, queue: QueueKind) -> Result<Built, RunError> {
    let mut world = World::with(WorldSpec {
        seed: scenario.seed.unwrap_or(0),
        ties: scenario.ties.unwrap_or(0),
        queue,
        bounds: scenario.bounds,
    });
    let mut longest = [Duration::ZERO; 3];
    let mut spec = |network: usize, link: &Link, name: &str| {
        let delay = scenario.links.delays.get(name).copied();
        let delay = delay.unwrap_or(*link.delay.start());
        longest[network] = longest[network].max(delay);
        link_spec(link, delay)
    };
    let links = [
        &scenario.links.clients,
        &scenario.links.servers,
        &scenario.links.sync,
    ];
    let segments = segments(&mut world, scenario).map_err(refused)?;
    let [clients, servers, _] = segments;
    let behind = router(&mut world, scenario, clients).map_err(refused)?;
    for n in 0..CLIENT_COUNT {
        let mut host = HostSpec::new(
            format!("client{n}"),
            net::client_mac(n),
            client(scenario, n).to_vec(),
        );
        host.conn_count_max = 200_000;
        host.client_tier = tier(scenario.hosts.clients, scenario.hosts.sampled);
        if behind.is_some() {
            let [own, _] = net::router();
            host.gateways = own.map(|(addr, _)| addr).to_vec();
        }
        let host = world.add_host(host).map_err(refused)?;
        let link = spec(0, links[0], &format!("client{n}"));
        world
            .connect(End::Host(host), clients.host(), link)
            .map_err(refused)?;
    }
    for n in 0..server_count(scenario) {
        let mut host = HostSpec::new(format!("server{n}"), net::server_mac(n), net::server(n).to_vec());
        host.conn_count_max = 400_000;
        host.server_tier = tier(scenario.hosts.servers, scenario.hosts.sampled);
        host.tcp.keepalive = scenario.hosts.keepalive.map(|k| Keepalive {
            time: k.time,
            interval: k.interval,
            probes: k.probes,
        });
        let host = world.add_host(host).map_err(refused)?;
        let link = spec(1, links[1], &format!("server{n}"));
        world
            .connect(End::Host(host), servers.host(), link)
            .map_err(refused)?;
        for (i, service) in scenario
            .services
            .iter()
            .enumerate()
            .filter(|(i, _)| n < scenario.server_count_max(*i))
        {
            let server = ServerSpec {
                // Numbers are the servers' own over all services: an answer of another one is a wrong answer.
                number: server_number(i, n + 1),
                proto: service.proto,
                addr: net::server_addr(service.vip, n, i),
            };
            world.serve(host, server).map_err(refused)?;
        }
    }
    let mut node_links = Vec::new();
    let mut drifts = Vec::new();
    for node in &scenario.cluster.nodes {
        let mut lb = LbSpec::new(
            format!("node{}", node.id),
            steering(scenario, node)?,
            config(scenario, node, &[], &[]),
        );
        lb.workers = node.workers;
        lb.sizes = sizes(node.table, node.workers);
        lb.rx_ring = scenario.cluster.ring as usize;
        lb.local_port_min = scenario.cluster.local_port_min;
        lb.handoff_ring = scenario.cluster.ring as usize;
        lb.cost.frame = node.frame_cost;
        lb.drift_ppm = *node.drift_ppm.start();
        drifts.push(lb.drift_ppm);
        super::cluster::configure(&mut lb, scenario, node)?;
        let lb = world.add_lb(lb).map_err(refused)?;
        let mut connect = |network: usize| {
            let name = ["clients", "servers", "sync"][network];
            let link = spec(network, links[network], &format!("node{}-{name}", node.id));
            let at = match behind {
                Some(switch) if network == 0 => End::Switch(switch),
                _ => segments[network].node(),
            };
            world
                .connect(End::Lb(lb, PORTS[network]), at, link)
                .map_err(refused)
        };
        node_links.push([connect(0)?, connect(1)?, connect(2)?]);
    }
    Ok(Built {
        world,
        links: node_links,
        drifts,
        round_trip: 4 * (longest[0] + longest[1]) + Duration::from_micros(100),
    })
}

/// The flows of a plan, load by load, with the index of each one's load. Their numbers in the world are their places here.
pub(crate) fn planned(scenario: &Scenario) -> impl Iterator<Item = (usize, &Load, &PlannedFlow)> {
    let loads = scenario.loads.iter().enumerate();
    loads.flat_map(|(i, load)| {
        let flows = match &load.arrival {
            Arrival::Planned(flows) => flows.as_slice(),
            Arrival::Flows(..) | Arrival::Rate(..) => &[],
        };
        flows.iter().map(move |flow| (i, load, flow))
    })
}

/// Opens all flows of a plan.
pub(crate) fn flows(world: &mut World, scenario: &Scenario) -> Result<(), RunError> {
    // No port is used again before all have been: who is asked at the same ends is not the same connection.
    let mut before: u32 = 0;
    let begins: Vec<u32> = scenario
        .loads
        .iter()
        .map(|load| {
            let last = match &load.arrival {
                Arrival::Planned(flows) => flows.iter().map(|f| f.number).max(),
                Arrival::Flows(..) | Arrival::Rate(..) => None,
            };
            let begin = before;
            before = last.map_or(before, |last| before.saturating_add(last).saturating_add(1));
            begin
        })
        .collect();
    for (at_load, load, flow) in planned(scenario) {
        let Some(service) = scenario.services.get(flow.service) else {
            continue;
        };
        let [(v4, _), (v6, _)] = client(scenario, flow.client.into());
        let source = if service.vip.is_ipv4() { v4 } else { v6 };
        let spec = FlowSpec {
            key: Some(plan::flow_key(&load.name, flow.number)),
            port_from: begins.get(at_load).map(|begin| begin.saturating_add(flow.number)),
            client: HostId(flow.client.into()),
            source: SocketAddr::new(source, 0),
            target: service.vip,
            proto: service.proto,
            start: at(flow.start),
            requests: load.requests.unwrap_or(u32::MAX),
            request_len: load.request_bytes,
            reply_len: load.reply_bytes,
            gap: *load.every.start(),
            gap_jitter: load.every.end().saturating_sub(*load.every.start()),
            until: Some(at(plan::until(scenario, load))),
            end: match load.end {
                LoadEnd::Close => FlowEnd::Close,
                LoadEnd::Reset => FlowEnd::Reset,
                LoadEnd::Stay => FlowEnd::Stay,
                LoadEnd::Vanish => FlowEnd::Vanish,
            },
            give_up: load.give_up,
            udp_retry: Duration::from_secs(1),
        };
        world.open(spec).map_err(refused)?;
    }
    Ok(())
}

/// A point of simulated time.
pub(crate) fn at(since_start: Duration) -> Instant {
    Instant::ZERO + since_start
}

/// VIPs of a scenario, each once.
pub(crate) fn vips(scenario: &Scenario) -> Vec<IpAddr> {
    let mut vips: Vec<_> = scenario.services.iter().map(|s| s.vip.ip()).collect();
    vips.sort();
    vips.dedup();
    vips
}

/// The links that a network means, as places in a node's list.
pub(crate) fn networks(network: Network) -> &'static [usize] {
    match network {
        Network::Clients => &[0],
        Network::Servers => &[1],
        Network::Sync => &[2],
        Network::All => &[0, 1, 2],
    }
}

/// The load balancer of a node.
pub(crate) fn lb(node: u16) -> LbId {
    LbId(node.saturating_sub(1))
}
