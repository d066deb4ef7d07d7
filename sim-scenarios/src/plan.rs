//! From a scenario and a seed to what happens when: every draw is made here or, frame by frame, in the world.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use evenkeel_core::wire::MacAddr;
use evenkeel_io_sim::{Purpose, Streams};

use crate::mechanism::{Mechanism, Switch};
use crate::scenario::{Action, Arrival, Drawn, Fault, Load, Node, NodeRef, PlannedFlow, Scenario};

/// Hosts among which the flows of a scenario are dealt.
pub(crate) const CLIENT_COUNT: u32 = 4;

/// The plan of a seed: the scenario with everything drawn that is drawn ahead. Each draw is keyed by the name of what it
/// is for (the fault's, the link's, the node's, the load's with the flow's number in it): taking one of them out leaves all
/// others as they were. What a plan says already stays as it is, and what waits for something that is known only once it
/// happens goes on waiting, with its delay drawn.
pub fn plan(scenario: &Scenario, seed: u64) -> Scenario {
    let streams = Streams::new(seed);
    let mut plan = scenario.clone();
    plan.seed = Some(seed);
    // `None`: it waits for something, or for a fault that does.
    let mut begins: Vec<Option<Duration>> = Vec::new();
    for fault in &mut plan.faults {
        let entity = Streams::entity(&format!("fault {}", fault.name));
        let delay = draw(&streams, entity, 0, &fault.at);
        let at = begin(fault, &begins).map(|before| before + delay);
        begins.push(at);
        if at.is_some() {
            fault.after = None;
        }
        let from = at.unwrap_or(delay);
        fault.at = from..=from;
        if let Some(lasts) = &mut fault.lasts {
            let drawn = draw(&streams, entity, 1, lasts);
            *lasts = drawn..=drawn;
        }
    }
    for node in &mut plan.cluster.nodes {
        let drift = drift_ppm(&streams, node);
        node.drift_ppm = drift..=drift;
    }
    for (name, network) in links(scenario) {
        let link = [
            &scenario.links.clients,
            &scenario.links.servers,
            &scenario.links.sync,
        ][network];
        let entity = Streams::entity(&format!("link {name}"));
        let delays = &mut plan.links.delays;
        delays
            .entry(name)
            .or_insert_with(|| draw(&streams, entity, 0, &link.delay));
    }
    for load in &mut plan.loads {
        load.arrival = Arrival::Planned(flows(scenario, load, &streams));
    }
    plan
}

/// From when the delay of a fault counts, if that is known before the run. `begins`: when earlier faults begin, as far as
/// that is known.
fn begin(fault: &Fault, begins: &[Option<Duration>]) -> Option<Duration> {
    match fault.after {
        _ if fault.when.is_some() => None,
        Some(after) => begins.get(after).copied().flatten(),
        None => Some(Duration::ZERO),
    }
}

/// The links of a scenario by name, with their networks: 0 is that of clients, 1 of servers, 2 among nodes.
pub(crate) fn links(scenario: &Scenario) -> Vec<(String, usize)> {
    let clients = (0..CLIENT_COUNT).map(|n| (format!("client{n}"), 0));
    let services = 0..scenario.services.len();
    let servers = services.map(|s| scenario.server_count_max(s)).max().unwrap_or(0);
    let servers = (0..servers).map(|n| (format!("server{n}"), 1));
    let nodes = scenario.cluster.nodes.iter().flat_map(|node| {
        let names = ["clients", "servers", "sync"].into_iter().enumerate();
        names.map(|(network, name)| (format!("node{}-{name}", node.id), network))
    });
    clients.chain(servers).chain(nodes).collect()
}

/// What the draws of a flow are keyed by in the world.
pub(crate) fn flow_key(load: &str, number: u32) -> u64 {
    Streams::entity(&format!("flow {load} {number}"))
}

/// What happens when in a plan.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Steps by time; of equal times in the order of the text.
    pub(crate) steps: Vec<Step>,
    /// By fault: what is drawn of it.
    pub(crate) spans: Vec<Spans>,
    /// When the first of the faults begins whose times are known.
    pub(crate) first_fault: Option<Duration>,
    /// When the last one has ended.
    pub(crate) last_fault: Duration,
}

/// What is drawn of a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spans {
    /// From what it counts from to its beginning.
    pub(crate) delay: Duration,
    /// From its beginning to its end.
    pub(crate) lasts: Option<Duration>,
    /// The counter-proof leaves it out.
    pub(crate) left_out: bool,
    /// Its time is known at the beginning: it waits for nothing.
    pub(crate) timed: bool,
}

/// Something that is done to the world.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    /// Index of the fault.
    pub(crate) fault: usize,
    /// It ends what the fault began.
    pub(crate) undo: bool,
}

impl Plan {
    /// Of a scenario in which nothing is to be drawn any more.
    pub(crate) fn new(scenario: &Scenario) -> Plan {
        let mut steps = Vec::new();
        let mut spans = Vec::new();
        // `None`: it waits for something, or for a fault that does.
        let mut begins: Vec<Option<Duration>> = Vec::new();
        let none = matches!(
            scenario.off.as_ref().map(|o| o.mechanism.switch()),
            Some(Switch::NoFaults)
        );
        for (i, fault) in scenario.faults.iter().enumerate() {
            let delay = *fault.at.start();
            let lasts = fault.lasts.as_ref().map(|lasts| *lasts.start());
            let left_out = none && fault.action.disturbs();
            let at = begin(fault, &begins).map(|before| before + delay);
            begins.push(at);
            spans.push(Spans {
                delay,
                lasts,
                left_out,
                timed: at.is_some(),
            });
            if let Some(at) = at.filter(|_| !left_out) {
                steps.extend(steps_of(i, at, lasts));
            }
        }
        // Stable: what is written first happens first.
        steps.sort_by_key(|s| s.at);
        Plan {
            first_fault: begins.iter().flatten().min().copied(),
            spans,
            last_fault: steps.iter().map(|s| s.at).max().unwrap_or_default(),
            steps,
        }
    }
}

/// The steps of a fault that begins then.
pub(crate) fn steps_of(fault: usize, at: Duration, lasts: Option<Duration>) -> impl Iterator<Item = Step> {
    let step = |at, undo| Step { at, fault, undo };
    [Some(step(at, false)), lasts.map(|lasts| step(at + lasts, true))]
        .into_iter()
        .flatten()
}

/// Whether a fault is a crash from which on is measured, if it is the first one. That a node is switched off which was asked
/// to leave is no crash that anybody should notice.
pub(crate) fn is_crash(scenario: &Scenario, fault: usize) -> bool {
    let asked = |node: NodeRef| {
        let mut earlier = scenario.faults.iter().take(fault);
        matches!(node, NodeRef::Id(_)) && earlier.any(|f| f.action == Action::Drain(node))
    };
    let fault = scenario.faults.get(fault);
    fault.is_some_and(|f| match f.action {
        Action::Crash(node, _) => !asked(node),
        _ => false,
    })
}

/// Draws a span.
fn draw(streams: &Streams, entity: u64, n: u64, range: &Drawn<Duration>) -> Duration {
    let width = range.end().saturating_sub(*range.start()) + Duration::from_nanos(1);
    *range.start() + streams.span(entity, Purpose::Scenario, n, width)
}

/// By how many millionths the clock of a node is faster than the world's.
fn drift_ppm(streams: &Streams, node: &Node) -> i32 {
    let (low, high) = (*node.drift_ppm.start(), *node.drift_ppm.end());
    let width = u64::from(high.abs_diff(low)) + 1;
    let entity = Streams::entity(&format!("clock {}", node.id));
    low + streams.below(entity, Purpose::Scenario, 0, width) as i32
}

/// Until when a load sends.
pub(crate) fn until(scenario: &Scenario, load: &Load) -> Duration {
    load.until
        .unwrap_or(scenario.duration.saturating_sub(scenario.quiet))
}

/// The flows of a load.
fn flows(scenario: &Scenario, load: &Load, streams: &Streams) -> Vec<PlannedFlow> {
    let entity = Streams::entity(&format!("load {}", load.name));
    let flow = |number: u32, start: Duration| PlannedFlow {
        number,
        service: load
            .services
            .get(number as usize % load.services.len().max(1))
            .copied()
            .unwrap_or(0),
        client: streams.below(
            entity,
            Purpose::Scenario,
            2 * u64::from(number) + 1,
            CLIENT_COUNT.into(),
        ) as u8,
        start,
    };
    match &load.arrival {
        Arrival::Planned(flows) => flows.clone(),
        Arrival::Flows(count, start) => (0..*count)
            .map(|n| flow(n, draw(streams, entity, 2 * u64::from(n), start)))
            .collect(),
        Arrival::Rate(rate, start) => {
            let every = Duration::from_secs(1) / *rate;
            let until = until(scenario, load);
            let at = |n: u32| {
                *start + Duration::from_nanos(u64::from(n).saturating_mul(1_000_000_000) / u64::from(*rate))
            };
            let within = (0u32..).map(|n| (n, at(n))).take_while(|(_, at)| *at < until);
            within
                .map(|(n, at)| {
                    let shift = streams.span(entity, Purpose::Scenario, 2 * u64::from(n), every);
                    flow(n, (at + shift).min(until))
                })
                .collect()
        }
    }
}

/// Addresses of a scenario's network. Clients and VIPs share a link, nodes answer there, unless a router is between them;
/// servers and LIPs share another one.
pub(crate) mod net {
    use super::*;

    fn v6(network: u16, a: u16, b: u16) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, a, b))
    }

    /// The source of a node's VRRP advertisements, per family.
    pub(crate) fn vrrp_source(id: u16) -> (Ipv4Addr, Ipv6Addr) {
        (
            Ipv4Addr::new(192, 0, 2, 200 + id as u8),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, id),
        )
    }

    /// A client's, per family.
    pub(crate) fn client(n: u32) -> [(IpAddr, u8); 2] {
        [
            (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100 + n as u8)), 24),
            (v6(2, 1, n as u16), 64),
        ]
    }

    /// A client's behind a router, per family.
    pub(crate) fn far_client(n: u32) -> [(IpAddr, u8); 2] {
        [
            (IpAddr::V4(Ipv4Addr::new(203, 0, 113, 100 + n as u8)), 24),
            (v6(4, 1, n as u16), 64),
        ]
    }

    /// Networks of the clients behind a router.
    pub(crate) fn far_networks() -> [(IpAddr, u8); 2] {
        [(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 0)), 24), (v6(4, 0, 0), 64)]
    }

    /// The router's own: on the clients' side, then on the nodes'.
    pub(crate) fn router() -> [[(IpAddr, u8); 2]; 2] {
        [
            [(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 24), (v6(4, 3, 1), 64)],
            [(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)), 24), (v6(2, 3, 1), 64)],
        ]
    }

    pub(crate) fn router_mac(port: u8) -> MacAddr {
        MacAddr([2, 0, 0, 4, 0, port])
    }

    pub(crate) fn client_mac(n: u32) -> MacAddr {
        MacAddr([2, 0, 0, 1, 0, n as u8])
    }

    /// A server's.
    pub(crate) fn server(n: u32) -> [(IpAddr, u8); 2] {
        [
            (IpAddr::V4(Ipv4Addr::new(198, 18, 0, 10 + n as u8)), 16),
            (v6(3, 1, n as u16), 64),
        ]
    }

    pub(crate) fn server_mac(n: u32) -> MacAddr {
        MacAddr([2, 0, 0, 2, 0, n as u8])
    }

    /// A node's own, on the clients' side.
    pub(crate) fn node_clients(id: u16) -> [(IpAddr, u8); 2] {
        [
            (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200 + id as u8)), 24),
            (v6(2, 2, id), 64),
        ]
    }

    /// A node's own, on the servers' side.
    pub(crate) fn node_servers(id: u16) -> [(IpAddr, u8); 2] {
        [
            (IpAddr::V4(Ipv4Addr::new(198, 18, 255, id as u8)), 16),
            (v6(3, 2, id), 64),
        ]
    }

    pub(crate) fn node_mac(id: u16, port: u8) -> MacAddr {
        MacAddr([2, 0, 0, 3, id as u8, port])
    }

    /// The `n`th LIP of a node's share.
    pub(crate) fn local(id: u16, n: u32) -> [IpAddr; 2] {
        [
            IpAddr::V4(Ipv4Addr::new(198, 18, id as u8, 1 + n as u8)),
            v6(3, 0x100 + id, 1 + n as u16),
        ]
    }

    /// Where a service's server listens.
    pub(crate) fn server_addr(vip: SocketAddr, server: u32, service: usize) -> SocketAddr {
        let [(v4, _), (v6, _)] = super::net::server(server);
        SocketAddr::new(if vip.is_ipv4() { v4 } else { v6 }, 8_000 + service as u16)
    }
}

/// Whether a scenario may call this address a VIP: one of the link of clients that nobody else has.
pub(crate) fn is_vip(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.octets()[..3] == [192, 0, 2] && (1..99).contains(&a.octets()[3]),
        IpAddr::V6(a) => {
            let s = a.segments();
            s[..7] == [0x2001, 0xdb8, 2, 0, 0, 0, 0] && s[7] > 0 && s[7] < 0x100
        }
    }
}

/// The nodes that a scenario's own words mean, whatever happens: for messages.
pub(crate) fn node_name(node: NodeRef) -> String {
    match node {
        NodeRef::Id(id) => format!("node {id}"),
        NodeRef::Master => "the master".into(),
        NodeRef::Backup => "the backup".into(),
    }
}

/// How a scenario's mechanism is off, if one is.
pub(crate) fn switch(scenario: &Scenario) -> Option<Switch> {
    scenario.off.as_ref().map(|o| Mechanism::switch(o.mechanism))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nobody_has_an_address_of_another() {
        let mut seen = BTreeSet::new();
        let mut add = |addr: IpAddr| {
            assert!(seen.insert(addr), "{addr} is dealt twice");
            assert!(!is_vip(addr), "{addr} may be a VIP");
        };
        for n in 0..CLIENT_COUNT {
            net::client(n)
                .into_iter()
                .chain(net::far_client(n))
                .for_each(|(addr, _)| add(addr));
        }
        for n in 0..64 {
            net::server(n).into_iter().for_each(|(addr, _)| add(addr));
        }
        net::router()
            .into_iter()
            .flatten()
            .for_each(|(addr, _)| add(addr));
        let mut macs = BTreeSet::new();
        for id in 1..=crate::scenario::NODE_COUNT_MAX as u16 {
            net::node_clients(id)
                .into_iter()
                .chain(net::node_servers(id))
                .for_each(|(addr, _)| add(addr));
            (0..32).flat_map(|n| net::local(id, n)).for_each(&mut add);
            add(net::vrrp_source(id).1.into());
            assert!((0..2).all(|port| macs.insert(net::node_mac(id, port).0)));
        }
    }

    #[test]
    fn a_node_that_was_asked_to_leave_is_switched_off_and_not_crashed() {
        let first_crash = |faults: &str| {
            let text =
                crate::run::tests::TWO_NODES.replacen("[[expect]]", &format!("{faults}\n[[expect]]"), 1);
            let scenario = crate::language::parse("x", &text, &|_| Err(String::new())).expect("good");
            let plan = Plan::new(&plan(&scenario, 1));
            let crash = plan
                .steps
                .iter()
                .find(|s| !s.undo && is_crash(&scenario, s.fault));
            crash.map(|s| s.at)
        };
        let fault = |action: &str, at: u32, node: &str| {
            format!("[[fault]]\ndo = \"{action}\"\nat = \"{at}s\"\nnode = \"{node}\"\n")
        };
        let crash = fault("crash", 3, "1");
        assert_eq!(first_crash(&crash), Some(Duration::from_secs(3)));
        assert_eq!(first_crash(&(fault("drain", 2, "1") + &crash)), None);
        let other = fault("drain", 2, "2") + &crash;
        assert_eq!(first_crash(&other), Some(Duration::from_secs(3)));
        // Who is the master then is not known here.
        let master = fault("drain", 2, "master") + &fault("crash", 3, "master");
        assert_eq!(first_crash(&master), Some(Duration::from_secs(3)));
    }
}
