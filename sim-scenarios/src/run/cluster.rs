//! What of a scenario concerns the nodes as a cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_core::cluster::{
    ClusterConfig, Epoch, GroupId, Member, NodeCommand, NodeId, Role, VrrpSettings,
};
use evenkeel_core::conn::ConnView;
use evenkeel_core::port::PortId;
use evenkeel_core::sync::seal::{SECRET_LEN, Secret, Secrets};
use evenkeel_core::sync::{ClusterSizes, Readiness};
use evenkeel_core::worker::Worker;
use evenkeel_io_sim::{LbCluster, LbId, LbQueues, LbRef, LbRings, LbSpec, LbState, LinkId, World};

use super::{RunError, build};
use crate::mechanism::Switch;
use crate::oracle::Level;
use crate::plan::{self, net};
use crate::scenario::{Node, Scenario};

/// The virtual router of the VIPs.
const VRID: u8 = 51;
/// Number of the cluster.
const CLUSTER: u32 = 1;

/// Makes a load balancer a member of the scenario's cluster.
pub(crate) fn configure(lb: &mut LbSpec, scenario: &Scenario, node: &Node) -> Result<(), RunError> {
    let Some(config) = config(scenario, node) else {
        return Ok(());
    };
    if let Err(errors) = config.check() {
        let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
        return Err(RunError::World(all.join("; ")));
    }
    let mut sizes = ClusterSizes::default();
    sizes.ring_per_bucket = scenario.cluster.lsn_ring.unwrap_or(sizes.ring_per_bucket);
    lb.cluster = Some(LbCluster {
        config,
        sizes,
        queues: LbQueues {
            bulk_delay: scenario.cluster.bulk_delay,
            ..LbQueues::default()
        },
        secrets: is_sealed(scenario).then(secrets),
    });
    Ok(())
}

/// Whether nodes seal what they say.
pub(crate) fn is_sealed(scenario: &Scenario) -> bool {
    scenario.cluster.sealed && plan::switch(scenario) != Some(Switch::Unsealed)
}

/// The cluster's, which no attacker of a scenario knows, and its judge does.
pub(crate) fn secrets() -> Secrets {
    Secrets::new(vec![(1, Secret([0x5e; SECRET_LEN]))]).expect("one with a number")
}

/// What a node knows of the scenario's cluster, unchecked; `None`: it is alone.
pub(crate) fn config(scenario: &Scenario, node: &Node) -> Option<ClusterConfig> {
    let cluster = &scenario.cluster;
    if !cluster.clustered {
        return None;
    }
    let members = cluster.nodes.iter().map(|n| {
        let (v4, v6) = net::vrrp_source(n.id);
        Member {
            id: NodeId(n.id),
            priority: n.priority,
            local_addrs: build::share(scenario, n.id),
            vrrp_sources: vec![v4.into(), v6.into()],
        }
    });
    let (source_v4, source_v6) = net::vrrp_source(node.id);
    let mut virtual_v4: Vec<Ipv4Addr> = Vec::new();
    let mut virtual_v6: Vec<Ipv6Addr> = Vec::new();
    for vip in build::vips(scenario) {
        match vip {
            IpAddr::V4(a) => virtual_v4.push(a),
            IpAddr::V6(a) => virtual_v6.push(a),
        }
    }
    let join_time = match plan::switch(scenario) {
        Some(Switch::JoinTimeEndless) => evenkeel_core::cluster::JOIN_TIME_MAX,
        _ => cluster.join_time,
    };
    let vrrp = VrrpSettings {
        vrid: VRID,
        interval_cs: u16::try_from(cluster.advertisement.as_millis() / 10).unwrap_or(u16::MAX),
        preempt: cluster.preempt,
        port: PortId(0),
        mac: net::node_mac(node.id, 0),
        source_v4: (!virtual_v4.is_empty()).then_some(source_v4),
        source_v6: (!virtual_v6.is_empty()).then_some(source_v6),
        virtual_v4,
        virtual_v6,
    };
    let one_holder = plan::switch(scenario) == Some(Switch::OneHolder);
    // Behind a router each node that serves answers.
    let routed = scenario.router.is_some();
    let first = cluster.nodes.first().is_some_and(|n| n.id == node.id);
    Some(ClusterConfig {
        cluster: CLUSTER,
        id: NodeId(node.id),
        members: members.collect(),
        heartbeat: cluster.heartbeat,
        down_count: 3,
        lease_margin: cluster.heartbeat / 2,
        join_time,
        announce: vec![(PortId(1), net::node_mac(node.id, 1))],
        vrrp: (!one_holder && !routed).then_some(vrrp),
        shared_addrs: if routed || one_holder && first {
            build::vips(scenario)
        } else {
            Vec::new()
        },
    })
}

/// Whether it has what the others have, by what it says itself; one that stands still says nothing. A node without a
/// cluster has all there is.
pub(crate) fn is_ready(lb: LbRef<'_>) -> bool {
    if lb.state() == LbState::Paused {
        return false;
    }
    match lb.node() {
        Some(node) => node.readiness() == Readiness::Ready,
        None => lb.state() == LbState::Running && lb.queues().is_none(),
    }
}

/// Whether it serves though it could not ask anybody.
pub(crate) fn is_degraded(lb: LbRef<'_>) -> bool {
    lb.node()
        .is_some_and(|node| node.readiness() == Readiness::Degraded)
}

/// The highest epoch that it knows of each group.
pub(crate) fn epochs(lb: LbRef<'_>) -> Vec<(GroupId, Epoch)> {
    let groups = lb.node().into_iter().flat_map(|node| node.groups());
    groups.map(|(group, epoch, _)| (group, epoch)).collect()
}

/// What it is to each group.
pub(crate) fn roles(lb: LbRef<'_>) -> Vec<(GroupId, Role)> {
    let groups = lb.node().into_iter().flat_map(|node| node.groups());
    groups.map(|(group, _, role)| (group, role)).collect()
}

/// The nodes that it hears, by number.
pub(crate) fn hears(lb: LbRef<'_>) -> Vec<u16> {
    let peers = lb.node().into_iter().flat_map(|node| node.peers_up());
    peers.map(|peer| peer.node.0).collect()
}

/// Group, epoch and number of a session; `None`: it is not replicated.
pub(crate) fn version(worker: &Worker, conn: &ConnView) -> Option<(GroupId, Epoch, u64)> {
    let (group, version) = worker.version(conn.id)?;
    Some((group, version.epoch, version.lsn))
}

/// Asks a node to leave.
pub(crate) fn drain(world: &mut World, lb: LbId) -> Result<(), RunError> {
    let asked = world.command(lb, NodeCommand::Drain);
    asked.map_err(|e| RunError::World(e.to_string()))
}

/// Makes the queues between a node's threads so long, or as long as they are unless something else is said.
pub(crate) fn queues(world: &mut World, lb: LbId, entries: Option<u32>) -> Result<(), RunError> {
    let usual = LbQueues::default();
    let now = world.lb(lb).and_then(|lb| lb.queues()).unwrap_or(usual);
    let or = |usual: usize| entries.map_or(usual, |n| n as usize);
    let queues = LbQueues {
        messages: or(usual.messages),
        commands: or(usual.commands),
        events: or(usual.events),
        ..now
    };
    world
        .set_queues(lb, queues)
        .map_err(|e| RunError::World(e.to_string()))
}

/// Makes its rings so long, or as long as the scenario says.
pub(crate) fn rings(
    world: &mut World,
    scenario: &Scenario,
    lb: LbId,
    entries: Option<u32>,
) -> Result<(), RunError> {
    let usual = scenario.cluster.ring as usize;
    let or = |usual: usize| entries.map_or(usual, |n| n as usize);
    let rings = LbRings {
        rx: or(usual),
        handoff: or(usual),
        sync: or(LbQueues::default().sync_ring),
    };
    world
        .set_rings(lb, rings)
        .map_err(|e| RunError::World(e.to_string()))
}

/// How full the queues, rings and tables of a node are, or were at most. Of a queue or ring whose bound a fault has changed
/// what found room since counts.
pub(crate) fn levels(lb: LbRef<'_>) -> Vec<Level> {
    let mut levels = Vec::new();
    let mut add = |what, held: usize, bound: usize| {
        levels.push(Level {
            node: lb.name().to_owned(),
            what,
            held: held as u64,
            bound: bound as u64,
        });
    };
    let (counters, rings) = (lb.counters(), lb.rings());
    add("receive ring", counters.rx_ring_peak, rings.rx);
    add("hand-off ring", counters.handoff_ring_peak, rings.handoff);
    for worker in lb.workers() {
        let (len, sizes) = (worker.table().len(), worker.table().sizes());
        add("table", len, (sizes.conns_v4 + sizes.conns_v6) as usize);
    }
    if let Some(bounds) = lb.queues() {
        let peaks = lb.sync_counters();
        add("queue of messages", peaks.messages_peak, bounds.messages);
        add("queue of commands", peaks.commands_peak, bounds.commands);
        add("queue of events", peaks.events_peak, bounds.events);
        add("queue of punted frames", peaks.punted_peak, bounds.punted);
        add("sync ring", peaks.ring_peak, bounds.sync_ring);
    }
    levels
}

/// How full the queues of all links were at most, in bytes; those of a link without a bandwidth are endless and empty.
pub(crate) fn link_levels(world: &World) -> Vec<Level> {
    let links = (0..).map(LinkId);
    let links = links.map_while(|id| Some((id, world.link(id).ok()?, world.link_counters(id)?)));
    let levels = links.flat_map(|(id, link, ways)| {
        ways.map(|way| Level {
            node: id.to_string(),
            what: "queue of bytes",
            held: way.queue_bytes_peak,
            bound: link.queue_bytes,
        })
    });
    levels.collect()
}
