//! What happens, in words that name things as the scenario does: for traces and reports.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;

use evenkeel_core::cluster::{Alarm, Epoch, GroupId, NodeEvent, PeerId};
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::Family;
use evenkeel_io_sim::{FlowId, LbId, Place, Tap, Trace, World};

use super::build;
use crate::plan::{CLIENT_COUNT, net};
use crate::scenario::{Load, PlannedFlow, Scenario};

/// Names of what a world calls by numbers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    ports: BTreeMap<Place, String>,
    /// By flow: its load, and where it goes.
    flows: Vec<String>,
}

impl Names {
    pub(crate) fn new(world: &World, scenario: &Scenario) -> Names {
        let flow = |(_, load, flow): (usize, &Load, &PlannedFlow)| {
            let service = scenario.services.get(flow.service);
            let vip = service.map_or_else(String::new, |s| format!(" to {}", s.vip));
            format!("({}, client{}{vip})", load.name, flow.client)
        };
        Names {
            ports: world.port_names().into_iter().collect(),
            flows: build::planned(scenario).map(flow).collect(),
        }
    }

    fn flow(&self, flow: FlowId) -> String {
        match self.flows.get(flow.0 as usize) {
            Some(ends) => format!("flow {} {ends}", flow.0),
            None => flow.to_string(),
        }
    }

    /// What happened.
    pub(crate) fn words(&self, what: &Trace) -> String {
        match *what {
            Trace::FlowOpened(flow) => format!("{} opened", self.flow(flow)),
            Trace::FlowEstablished(flow) => format!("{} established", self.flow(flow)),
            Trace::FlowClosed(flow) => format!("{} closed", self.flow(flow)),
            Trace::FlowBroken(flow, why) => format!("{} BROKEN: {}", self.flow(flow), why.name()),
            Trace::LbStarted(lb, life) => format!("{}: starts, life {life}", node(lb)),
            Trace::LbCrashed(lb) => format!("{}: crashes", node(lb)),
            Trace::LbPaused(lb) => format!("{}: stands still", node(lb)),
            Trace::LbResumed(lb) => format!("{}: goes on", node(lb)),
            Trace::LbChanged(lb, what) => format!("{}: {what} changed", node(lb)),
            Trace::Node(lb, event) => format!("{}: {}", node(lb), says(event)),
            Trace::Member(router, group, hop, is_in) => {
                let word = if is_in { "takes in" } else { "takes out" };
                format!("{router} {word} next hop {hop} of group {group}")
            }
            Trace::LinkChanged(link) => format!("{link} changed"),
            Trace::Dropped { at, why, len } => {
                let place = self.ports.get(&at).cloned().unwrap_or_else(|| at.to_string());
                format!("{place}: {len} bytes dropped: {why}")
            }
        }
    }
}

/// Whose each address of a scenario is, for captures: `client0`, `server2`, `node1`, `vip-web`, `lip-node1`.
pub(crate) fn addresses(scenario: &Scenario) -> Vec<(IpAddr, String)> {
    let both = |addrs: [(IpAddr, u8); 2], name: String| addrs.map(|(addr, _)| (addr, name.clone()));
    let vips = scenario
        .services
        .iter()
        .map(|s| (s.vip.ip(), format!("vip-{}", s.name)));
    let clients = (0..CLIENT_COUNT).flat_map(|n| both(net::client(n), format!("client{n}")));
    let services = 0..scenario.services.len();
    let most = services.map(|s| scenario.server_count_max(s)).max().unwrap_or(0);
    let servers = (0..most).flat_map(|n| both(net::server(n), format!("server{n}")));
    let nodes = scenario.cluster.nodes.iter().flat_map(|n| {
        let own = [net::node_clients(n.id), net::node_servers(n.id)];
        let own = own
            .into_iter()
            .flat_map(move |addrs| both(addrs, format!("node{}", n.id)));
        let lips = build::share(scenario, n.id).into_iter();
        own.chain(lips.map(move |addr| (addr, format!("lip-node{}", n.id))))
    });
    vips.chain(clients).chain(nodes).chain(servers).collect()
}

/// A node as scenarios number it.
pub(crate) fn node(lb: LbId) -> String {
    format!("node {}", lb.0 + 1)
}

/// A group: who created its sessions, and in which generation.
pub(crate) fn group(group: GroupId) -> String {
    format!("sessions of {}, generation {}", group.node, group.generation)
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn peer(peer: PeerId) -> String {
    format!("{} (life {})", peer.node, peer.incarnation.0)
}

fn term(epoch: Epoch) -> String {
    format!("term {} of {}", epoch.term, epoch.holder.node)
}

/// What a node says of itself.
pub(crate) fn says(event: NodeEvent) -> String {
    match event {
        NodeEvent::BecameMaster(f) => format!("answers for the {} VIPs", family(f)),
        NodeEvent::BecameBackup(f) => format!("answers for the {} VIPs no longer", family(f)),
        NodeEvent::Ready => "is ready".to_owned(),
        NodeEvent::Degraded => "serves without having asked anybody, or lags".to_owned(),
        NodeEvent::PeerUp(p) => format!("hears {}", peer(p)),
        NodeEvent::PeerDown(p) => format!("hears {} no longer", peer(p)),
        NodeEvent::Adopting(g, e) => format!("adopts the {}, {}", group(g), term(e)),
        NodeEvent::Adopted(g, e) => format!("has adopted the {}, {}", group(g), term(e)),
        NodeEvent::Fenced(g, e) => format!("is fenced from the {}: {}", group(g), term(e)),
        NodeEvent::Suspect(g) => format!("is not certain of the {}", group(g)),
        NodeEvent::Renewed(g) => format!("is certain again of the {}", group(g)),
        NodeEvent::HandedOver(g, e) => format!("has handed over the {}: {}", group(g), term(e)),
        NodeEvent::Drained => "has handed over all that it held".to_owned(),
        NodeEvent::Forgotten(g) => format!("forgets the {}: none is left", group(g)),
        NodeEvent::Creating(Some(g)) => format!("gives new sessions to the {}", group(g)),
        NodeEvent::Creating(None) => "creates no sessions".to_owned(),
        NodeEvent::Alarm(a) => format!("ALARM: {}", alarm(a)),
        NodeEvent::Cleared(a) => format!("alarm over: {}", alarm(a)),
    }
}

/// What is wrong, as a node says it.
pub(crate) fn alarm(alarm: Alarm) -> String {
    match alarm {
        Alarm::Cold => "nobody who serves was found".to_owned(),
        Alarm::SyncUnreachable => "a master is heard, and nobody on the sync network".to_owned(),
        Alarm::SharesDiffer(n) => format!("{n} has another map of shares"),
        Alarm::OneWay(n) => format!("{n} does not hear this node"),
        Alarm::Unheard(n) => format!("{n} is not heard on the sync network"),
        Alarm::OutOfSync(p) => format!("{} is too far behind", peer(p)),
        Alarm::Lagging => "this node is too far behind".to_owned(),
        Alarm::Incomplete => "sessions of a live holder are missing here".to_owned(),
        Alarm::PeerFull(p) => format!("{} has no room for sessions", peer(p)),
        Alarm::AdoptedUnready(g) => format!("adopted though not ready: the {}", group(g)),
        Alarm::NoHeir => "no ready peer can take over".to_owned(),
        Alarm::GroupsFull => "no room for another group".to_owned(),
        Alarm::GenerationsFull => "too many generations of sessions are alive".to_owned(),
        Alarm::DuplicateNode => "another node runs under this number".to_owned(),
        Alarm::TermsUsedUp(g) => format!("no further terms: the {}", group(g)),
        Alarm::LeaseOver => "no heartbeat leaves".to_owned(),
    }
}

/// Writes what happens, line by line.
pub(crate) struct TraceTap<W> {
    out: W,
    names: Names,
    failed: Option<String>,
}

impl<W: Write> TraceTap<W> {
    pub(crate) fn new(out: W, names: Names) -> Self {
        TraceTap {
            out,
            names,
            failed: None,
        }
    }
}

impl<W: Write> Tap for TraceTap<W> {
    fn trace(&mut self, now: Instant, what: &Trace) {
        let (ns, words) = (now.as_nanos(), self.names.words(what));
        let written = writeln!(
            self.out,
            "{:>6}.{:09} {words}",
            ns / 1_000_000_000,
            ns % 1_000_000_000
        );
        if let Err(e) = written {
            self.failed.get_or_insert(e.to_string());
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        if let Err(e) = self.out.flush() {
            self.failed.get_or_insert(e.to_string());
        }
        self.failed.take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_io_sim::{HostId, Owner};

    #[test]
    fn every_address_of_a_scenario_has_one_name_in_captures() {
        let text = crate::run::tests::TWO_NODES;
        let scenario = crate::language::parse("x", text, &|_| Err(String::new())).expect("good");
        let names: BTreeMap<IpAddr, String> = addresses(&scenario).into_iter().collect();
        assert_eq!(names.len(), addresses(&scenario).len());
        let name = |addr: &str| names.get(&addr.parse().expect("good")).map(String::as_str);
        assert_eq!(name("192.0.2.1"), Some("vip-v4"));
        assert_eq!(name("2001:db8:2::1"), Some("vip-v6"));
        assert_eq!(name(&net::client(0)[0].0.to_string()), Some("client0"));
        assert_eq!(name(&net::local(2, 0)[1].to_string()), Some("lip-node2"));
    }

    #[test]
    fn things_are_called_as_the_scenario_calls_them() {
        let text = crate::run::tests::ONE_NODE;
        let scenario = crate::language::parse("x", text, &|_| Err(String::new())).expect("good");
        let world = crate::run::tests::world_at(text, 1, std::time::Duration::ZERO);
        let scenario = crate::plan(&scenario, 1);
        let names = Names::new(&world, &scenario);
        let opened = names.words(&Trace::FlowOpened(FlowId(1)));
        let (.., second) = build::planned(&scenario).nth(1).expect("a flow");
        let client = second.client;
        assert_eq!(
            opened,
            format!("flow 1 (long, client{client} to [2001:db8:2::1]:80) opened")
        );
        let at = Place {
            owner: Owner::Host(HostId(2)),
            port: 0,
        };
        let dropped = Trace::Dropped {
            at,
            why: "link-cut",
            len: 66,
        };
        assert_eq!(names.words(&dropped), "client2: 66 bytes dropped: link-cut");
        let fenced = NodeEvent::Fenced(GroupId::default(), Epoch::default());
        let fenced = names.words(&Trace::Node(LbId(0), fenced));
        assert_eq!(
            fenced,
            "node 1: is fenced from the sessions of node 0, generation 0: term 0 of node 0"
        );
        // What nobody has named keeps its number.
        assert_eq!(
            names.words(&Trace::FlowClosed(FlowId(9_999_999))),
            "flow 9999999 closed"
        );
    }
}
