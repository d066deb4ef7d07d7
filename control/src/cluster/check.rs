//! What the section means as a whole: core's checks, brought back to the text, and some of our own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use evenkeel_core::cluster::{
    ANNOUNCE_PORT_COUNT_MAX, ClusterConfig, ClusterConfigError as Error, HEARTBEAT_RANGE, Incarnation,
    JOIN_TIME_MAX, LOCAL_ADDR_COUNT_MAX, Member, NODE_COUNT_MAX, NodeCore, NodeId, VIRTUAL_ADDR_COUNT_MAX,
    VrrpSettings,
};
use evenkeel_core::port::PortId;
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::Family;
use evenkeel_core::wire::MacAddr;

use super::read::{ClusterDraft, NodeDraft, twice};
use super::{Cluster, ClusterNode};
use crate::problem::{Code, Finding, Findings, Span};
use crate::read::Field;
use crate::sections::Draft;
use crate::value::{self, show_duration};

/// The cluster, or findings. Without a section it is neither.
pub(crate) fn check(draft: &Draft, findings: &mut Findings) -> Option<Cluster> {
    let cluster = draft.cluster.as_ref()?;
    let view = View { draft, cluster };
    view.shares(findings);
    view.service_locals(findings);
    view.sources(findings);
    view.sync(findings);
    let config = view.config()?;
    // Whatever a node would refuse at its start is told now.
    let workers = draft.workers.value;
    if let Err(errors) = NodeCore::new(config.clone(), Incarnation(1), workers, 0, Instant::ZERO) {
        for error in errors {
            for finding in view.findings(&error) {
                findings.push_new(finding);
            }
            // What no node takes is never accepted, place or no place.
            if findings.is_empty() {
                let help = "see `[cluster]` in docs/config.md";
                let span = cluster.span.clone();
                findings.push(Finding::new(Code::BadValue, span, error.to_string(), help));
            }
        }
    }
    let node = |n: &NodeDraft| {
        Some(ClusterNode {
            id: NodeId(n.id.as_ref()?.value),
            name: n.name.as_ref()?.value.clone(),
            sync: n.sync.as_ref()?.value,
        })
    };
    Some(Cluster {
        name: cluster.own()?.name.as_ref()?.value.clone(),
        trust: cluster.trust.clone()?,
        nodes: cluster.nodes.iter().map(node).collect::<Option<_>>()?,
        config,
    })
}

/// Whether a conflict of a local address, of a `peer` or of a service, is told of here.
pub(crate) fn tells_conflict(draft: &Draft, addr: IpAddr, peer: bool) -> bool {
    let Some(cluster) = &draft.cluster else {
        return false;
    };
    let view = View { draft, cluster };
    let shared = view.locals().any(|(_, l)| l.value == addr);
    let of_service = || draft.spec.services.iter().any(|s| s.local_addrs.contains(&addr));
    shared && (view.vips().any(|(vip, _)| vip == addr) || (peer && of_service()))
}

struct View<'a> {
    draft: &'a Draft,
    cluster: &'a ClusterDraft,
}

impl<'a> View<'a> {
    /// The local addresses of all nodes.
    fn locals(&self) -> impl Iterator<Item = (&'a NodeDraft, &'a Field<IpAddr>)> + use<'a> {
        let nodes = self.cluster.nodes.iter();
        nodes.flat_map(|n| n.locals.iter().map(move |l| (n, l)))
    }

    /// The VIPs of all services, in the order of the text.
    fn vips(&self) -> impl Iterator<Item = (IpAddr, &'a Span)> + use<'a> {
        let draft = self.draft;
        let services = draft.spec.services.iter().zip(&draft.places.services);
        services
            .filter(|(_, at)| !at.vip_unread)
            .map(|(s, at)| (s.vip, &at.vip))
    }

    /// The VIPs of a family, each once, with its first place.
    fn virtual_addrs(&self, family: Family) -> BTreeMap<IpAddr, &'a Span> {
        let mut addrs = BTreeMap::new();
        for (vip, at) in self.vips().filter(|(vip, _)| Family::of(vip) == family) {
            addrs.entry(vip).or_insert(at);
        }
        addrs
    }

    /// Every share has what the services need, and nothing else.
    fn shares(&self, findings: &mut Findings) {
        let (spec, places) = (&self.draft.spec, &self.draft.places);
        let vips: BTreeMap<IpAddr, &Span> = self.vips().collect();
        for (_, local) in self.locals() {
            if let Some(&vip) = vips.get(&local.value) {
                findings.push_new(virtual_conflict(local, vip));
            }
        }
        let unread = places.services.iter().any(|s| s.servers_unread) || spec.services.is_empty();
        for family in [Family::V4, Family::V6] {
            let is = |a: &IpAddr| Family::of(a) == family;
            let mut services = spec.services.iter();
            let needs = services.find(|s| s.servers.iter().any(|r| is(&r.addr)));
            for node in &self.cluster.nodes {
                let own = node.locals.iter().find(|l| is(&l.value));
                match (needs, own) {
                    (Some(service), None) if !node.locals_unread => {
                        let message = format!(
                            "{} has no {family} local address, but \"{}\" has {family} servers",
                            node.shown(),
                            service.name
                        );
                        let help = format!(
                            "add an {family} address to its `local_addresses`: servers see it as their client"
                        );
                        let span = node.locals_place.clone();
                        findings.push_new(
                            Finding::new(Code::NoLocalAddress, span, message, help).label("of this one"),
                        );
                    }
                    (None, Some(local)) if !unread => {
                        let message =
                            format!("local address {} is of a family that no server has", local.value);
                        let help = "remove it, or add a server of this family";
                        let span = local.span.clone();
                        findings.push_new(
                            Finding::new(Code::UnusedLocalAddress, span, message, help).label("no use"),
                        );
                    }
                    _ => {}
                }
            }
        }
    }

    /// Local addresses that services list are of the own share.
    fn service_locals(&self, findings: &mut Findings) {
        let Some(own) = self.cluster.own().filter(|n| !n.locals_unread) else {
            return;
        };
        let share: BTreeSet<IpAddr> = own.locals.iter().map(|l| l.value).collect();
        let services = self.draft.spec.services.iter().zip(&self.draft.places.services);
        for (service, place) in services.filter(|(_, place)| !place.from_share) {
            for (addr, span) in service.local_addrs.iter().zip(&place.locals) {
                if share.contains(addr) {
                    continue;
                }
                let message = format!("{addr} is not of the share of {}", own.shown());
                let help = "write one of the node's `local_addresses`, or leave the service's out: it has all of the \
                            node's then, on whichever node";
                let finding = Finding::new(Code::NotInShare, span.clone(), message, help);
                findings.push_new(
                    finding
                        .label("not this node's")
                        .other(own.locals_place.clone(), "its share"),
                );
            }
        }
    }

    /// Every node can advertise what there is to advertise, and nothing else.
    fn sources(&self, findings: &mut Findings) {
        let cluster = self.cluster;
        if !cluster.vrrp_written {
            for source in cluster.nodes.iter().flat_map(NodeDraft::sources) {
                let message = "a source of advertisements, but no virtual router";
                let help = "add a `[cluster.vrrp]`, or remove the source";
                let finding = Finding::new(Code::NoEffect, source.span.clone(), message, help);
                findings.push(finding.label("no effect"));
            }
            return;
        }
        let services = &self.draft.places.services;
        let unread = services.iter().any(|s| s.vip_unread) || services.is_empty();
        for (family, key) in [(Family::V4, "vrrp_source_v4"), (Family::V6, "vrrp_source_v6")] {
            let vip = self.vips().find(|(vip, _)| Family::of(vip) == family);
            for node in &cluster.nodes {
                let written = node.source_written[usize::from(family == Family::V6)];
                match (vip, node.source(family)) {
                    (Some((vip, at)), _) if !written => {
                        let message = format!("{} has no source to advertise {vip} from", node.shown());
                        let help = format!("add `{key}`, its address on the port of the virtual router");
                        let finding = Finding::new(Code::MissingKey, node.span.clone(), message, help);
                        findings.push(finding.label("of this one").other(at.clone(), "to be advertised"));
                    }
                    (None, Some(source)) if !unread => {
                        let message = format!("an {family} source, but no {family} VIP");
                        let help = format!("remove `{key}`, or add a service with an {family} VIP");
                        let finding = Finding::new(Code::NoEffect, source.span.clone(), message, help);
                        findings.push(finding.label("no effect"));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Nodes can send to each other.
    fn sync(&self, findings: &mut Findings) {
        let mut seen = BTreeMap::new();
        let mut first: Option<&Field<SocketAddr>> = None;
        for sync in self.cluster.nodes.iter().filter_map(|n| n.sync.as_ref()) {
            let (addr, span) = (sync.value.ip(), sync.span.clone());
            let everybody = matches!(addr, IpAddr::V4(a) if a.is_broadcast());
            if addr.is_unspecified() || addr.is_multicast() || everybody {
                let message = format!("{addr} is not an address that a host can have");
                let help = "write the address that the other nodes reach this one by";
                findings.push(
                    Finding::new(Code::NotUnicast, span.clone(), message, help).label("not a host's address"),
                );
            }
            if sync.value.port() == 0 {
                let help = "write a port from 1 to 65535";
                findings.push(Finding::new(
                    Code::PortZero,
                    span.clone(),
                    "port 0 cannot be used",
                    help,
                ));
            }
            let moves = self.locals().map(|(_, l)| (l.value, &l.span)).chain(self.vips());
            if let Some((_, other)) = moves.into_iter().find(|(a, _)| *a == addr) {
                let message = format!("{addr} goes to another node when this one fails");
                let help = "write an address that stays with the node: no VIP, and no local address";
                let finding = Finding::new(Code::AddressConflict, span.clone(), message, help);
                findings.push(finding.label("for sync").other(other.clone(), "in use here"));
            }
            if let Some(other) = seen.insert(sync.value, span.clone()) {
                findings.push(twice("sync address", &sync.value.to_string(), span, other));
            }
            match first {
                Some(first) if first.value.is_ipv4() != sync.value.is_ipv4() => {
                    let family = Family::of(&first.value.ip());
                    let message = format!("{} is not an {family} address", addr);
                    let help = "nodes reach each other in one family: write all sync addresses in it";
                    let finding = Finding::new(Code::WrongFamily, sync.span.clone(), message, help);
                    findings.push(
                        finding
                            .label("the other family")
                            .other(first.span.clone(), "the first one"),
                    );
                }
                Some(_) => {}
                None => first = Some(sync),
            }
        }
    }

    /// What core is told. What could not be read has a stand-in that is nobody's mistake.
    fn config(&self) -> Option<ClusterConfig> {
        let cluster = self.cluster;
        let known: BTreeSet<u16> = cluster
            .nodes
            .iter()
            .filter_map(|n| Some(n.id.as_ref()?.value))
            .collect();
        let mut spare = (1..=u16::MAX).rev().filter(|n| !known.contains(n));
        let member = |node: &NodeDraft| {
            let id = node.id.as_ref().map(|id| id.value).or_else(|| spare.next())?;
            Some(Member {
                id: NodeId(id),
                priority: node.priority.value,
                local_addrs: node.locals.iter().map(|l| l.value).collect(),
                vrrp_sources: node.sources().map(|s| s.value).collect(),
            })
        };
        let members: Vec<Member> = cluster.nodes.iter().map(member).collect::<Option<_>>()?;
        let this = cluster.this.unwrap_or(0);
        let (own, node) = (members.get(this)?, cluster.nodes.get(this)?);
        let virtual_v4: Vec<_> = self.virtual_addrs(Family::V4).into_keys().collect();
        let virtual_v6: Vec<_> = self.virtual_addrs(Family::V6).into_keys().collect();
        let shared_addrs = match cluster.vrrp_written {
            true => Vec::new(),
            false => virtual_v4.iter().chain(&virtual_v6).copied().collect(),
        };
        Some(ClusterConfig {
            cluster: cluster.id,
            id: own.id,
            heartbeat: cluster.heartbeat.value,
            down_count: cluster.down_count.value,
            lease_margin: cluster.lease_margin.value,
            join_time: cluster.join_time.value,
            announce: self
                .announce()
                .into_iter()
                .filter_map(|p| Some((p, self.mac(p)?)))
                .collect(),
            vrrp: self.vrrp(node, virtual_v4, virtual_v6),
            shared_addrs,
            members,
        })
    }

    /// The virtual router; of a family without own source it has no addresses, as that is reported.
    fn vrrp(&self, own: &NodeDraft, v4: Vec<IpAddr>, v6: Vec<IpAddr>) -> Option<VrrpSettings> {
        let vrrp = self.cluster.vrrp.as_ref()?;
        let (vrid, port) = (vrrp.vrid.as_ref()?.value, vrrp.port?);
        let source =
            |family, addrs: &[IpAddr]| own.source(family).filter(|_| !addrs.is_empty()).map(|s| s.value);
        let source_v4 = source(Family::V4, &v4).and_then(as_v4);
        let source_v6 = source(Family::V6, &v6).and_then(as_v6);
        if source_v4.is_none() && source_v6.is_none() {
            return None;
        }
        let virtual_v4 = v4.into_iter().filter(|_| source_v4.is_some()).filter_map(as_v4);
        let virtual_v6 = v6.into_iter().filter(|_| source_v6.is_some()).filter_map(as_v6);
        Some(VrrpSettings {
            vrid,
            interval_cs: vrrp.interval_cs.value,
            preempt: vrrp.preempt,
            port,
            mac: self.mac(port)?,
            source_v4,
            source_v6,
            virtual_v4: virtual_v4.collect(),
            virtual_v6: virtual_v6.collect(),
        })
    }

    fn mac(&self, port: PortId) -> Option<MacAddr> {
        self.draft.spec.ports.get(usize::from(port.0)).map(|p| p.mac)
    }

    /// Ports on which local addresses are announced: those listed, or those on whose links some lie.
    fn announce(&self) -> Vec<PortId> {
        if let Some(ports) = &self.cluster.announce_ports {
            return ports.iter().map(|p| p.value).collect();
        }
        let on_link = |&(addr, len): &(IpAddr, u8)| {
            let network = value::network(addr, len);
            self.locals()
                .any(|(_, l)| l.value.is_ipv4() == addr.is_ipv4() && value::network(l.value, len) == network)
        };
        let ports = self.draft.spec.ports.iter().enumerate();
        let ports = ports.filter(|(_, p)| p.addresses.iter().any(on_link));
        ports
            .filter_map(|(i, _)| Some(PortId(u16::try_from(i).ok()?)))
            .collect()
    }

    /// Words, places and remedy of an error of core.
    ///
    /// Some of these cannot come from a text, because reading refuses it first. They have their words nevertheless:
    /// reading may change.
    fn findings(&self, error: &Error) -> Vec<Finding> {
        let cluster = self.cluster;
        let new = |code, span: &Span, help: String| Finding::new(code, span.clone(), error.to_string(), help);
        let vrrp = || cluster.vrrp.as_ref().map_or(&cluster.span, |v| &v.span);
        let range = |span: &Span, min: String, max: String| {
            vec![new(Code::OutOfRange, span, format!("write {min} to {max}")).label("out of range")]
        };
        match *error {
            Error::NotAMember(_) => {
                let help = "write the name of a `[[cluster.node]]`".into();
                vec![new(Code::UnknownNode, &cluster.this_place, help).label("not a node")]
            }
            Error::TooManyMembers(_) => {
                let span = cluster
                    .nodes
                    .get(NODE_COUNT_MAX)
                    .map_or(&cluster.span, |n| &n.span);
                vec![new(
                    Code::TooMany,
                    span,
                    format!("at most {NODE_COUNT_MAX} nodes: leave some out"),
                )]
            }
            Error::ZeroId => {
                let zeros = cluster
                    .nodes
                    .iter()
                    .filter_map(|n| n.id.as_ref())
                    .filter(|id| id.value == 0);
                zeros
                    .flat_map(|id| range(&id.span, 1.to_string(), u16::MAX.to_string()))
                    .collect()
            }
            Error::SameId(NodeId(id)) => {
                let ids = cluster.nodes.iter().filter_map(|n| n.id.as_ref());
                let spans = ids.filter(|i| i.value == id).map(|i| &i.span);
                let message = format!("two nodes have the number {id}");
                again(
                    Code::Duplicate,
                    spans,
                    &message,
                    "give each node a number of its own, the same in every node's file",
                )
            }
            Error::Priority(id, _) => match self.node(id) {
                Some(node) => range(&node.priority.span, 1.to_string(), 254.to_string()),
                None => Vec::new(),
            },
            Error::TooManyLocalAddrs(id, _) => {
                let local = self.node(id).and_then(|n| n.locals.get(LOCAL_ADDR_COUNT_MAX));
                let help = format!("at most {LOCAL_ADDR_COUNT_MAX} a node: leave some out");
                local
                    .map(|l| new(Code::TooMany, &l.span, help))
                    .into_iter()
                    .collect()
            }
            Error::SharedAddr(addr) => {
                let spans = self
                    .locals()
                    .filter(|(_, l)| l.value == addr)
                    .map(|(_, l)| &l.span);
                let message = format!("local address {addr} stands there twice");
                again(
                    Code::Duplicate,
                    spans,
                    &message,
                    "leave it to one node: what is one's share is nobody else's",
                )
            }
            Error::NotUnicast(addr) => {
                let sources = cluster.nodes.iter().flat_map(NodeDraft::sources);
                let fields = self
                    .locals()
                    .map(|(_, l)| l)
                    .chain(sources)
                    .filter(|f| f.value == addr);
                let spans = fields
                    .map(|f| &f.span)
                    .chain(self.vips().filter(|v| v.0 == addr).map(|v| v.1));
                let finding = |span: &Span| {
                    let message = format!("{addr} is not an address that a host can have");
                    let help = "write the address of one host: not unspecified, loopback, multicast, broadcast or reserved";
                    Finding::new(Code::NotUnicast, span.clone(), message, help).label("not a host's address")
                };
                spans.map(finding).collect()
            }
            Error::SharedVrrpSource(addr) => {
                let sources = cluster.nodes.iter().flat_map(NodeDraft::sources);
                let spans = sources.filter(|s| s.value == addr).map(|s| &s.span);
                let message = format!("two nodes advertise from {addr}");
                again(
                    Code::Duplicate,
                    spans,
                    &message,
                    "write each node's own address on its port",
                )
            }
            Error::Heartbeat(_) => {
                let (min, max) = HEARTBEAT_RANGE;
                range(&cluster.heartbeat.span, show_duration(min), show_duration(max))
            }
            Error::DownCount(_) => range(&cluster.down_count.span, 2.to_string(), 100.to_string()),
            Error::LeaseMargin(margin) => {
                let (heartbeat, count) = (cluster.heartbeat.value, cluster.down_count.value);
                let least = heartbeat * count.saturating_sub(1);
                let message = format!("a margin of {} leaves no lease", show_duration(margin));
                let help = format!(
                    "write less than {}, which is `down_count` less one heartbeats of {}",
                    show_duration(least),
                    show_duration(heartbeat)
                );
                let finding =
                    Finding::new(Code::OutOfRange, cluster.lease_margin.span.clone(), message, help);
                vec![finding.label("too long")]
            }
            Error::JoinTime(time) => {
                let least = cluster.heartbeat.value * (cluster.down_count.value + 1);
                let message = format!("a join time of {}", show_duration(time));
                let help = format!(
                    "write {} at least, in which a silent peer is noticed, and {} at most",
                    show_duration(least),
                    show_duration(JOIN_TIME_MAX)
                );
                let finding = Finding::new(Code::OutOfRange, cluster.join_time.span.clone(), message, help);
                vec![finding.label("out of range")]
            }
            Error::TooManyPorts(_) => {
                let listed = cluster.announce_ports.as_ref();
                let beyond = listed.and_then(|ports| ports.get(ANNOUNCE_PORT_COUNT_MAX));
                let span = beyond.map_or(&cluster.announce_place, |p| &p.span);
                let help = format!("list at most {ANNOUNCE_PORT_COUNT_MAX} in `announce`");
                vec![new(Code::TooMany, span, help)]
            }
            Error::ZeroVrid => {
                let vrid = cluster.vrrp.as_ref().and_then(|v| v.vrid.as_ref());
                range(vrid.map_or(vrrp(), |v| &v.span), 1.to_string(), 255.to_string())
            }
            Error::VrrpInterval(_) => {
                let span = cluster
                    .vrrp
                    .as_ref()
                    .map_or(&cluster.span, |v| &v.interval_cs.span);
                range(span, "\"10ms\"".into(), "\"40950ms\"".into())
            }
            Error::VrrpWithoutSource => {
                let span = cluster.own().map_or(&cluster.span, |n| &n.span);
                vec![new(
                    Code::MissingKey,
                    span,
                    "add `vrrp_source_v4` or `vrrp_source_v6`".into(),
                )]
            }
            Error::VrrpAddrs | Error::TooManySharedAddrs(_) => self.too_many_vips(error),
            Error::SharedVirtualAddr(addr) => {
                let vip = self.vips().find(|v| v.0 == addr);
                let locals = self.locals().filter(|(_, l)| l.value == addr);
                let conflict = |(_, at)| locals.map(|(_, l)| virtual_conflict(l, at)).collect();
                vip.map_or_else(Vec::new, conflict)
            }
            Error::VrrpRefused => vec![new(
                Code::BadValue,
                vrrp(),
                "see docs/config.md, `[cluster.vrrp]`".into(),
            )],
            // The caller gives these.
            Error::NoWorkers | Error::ZeroIncarnation => {
                vec![new(
                    Code::OutOfRange,
                    &self.draft.workers.span,
                    "write 1 or more".into(),
                )]
            }
        }
    }

    fn node(&self, id: NodeId) -> Option<&'a NodeDraft> {
        let mut nodes = self.cluster.nodes.iter();
        nodes.find(|n| n.id.as_ref().is_some_and(|i| i.value == id.0))
    }

    /// VIPs beyond the bound: with a virtual router of each family, without one of both together.
    fn too_many_vips(&self, error: &Error) -> Vec<Finding> {
        let each = matches!(error, Error::VrrpAddrs);
        let (v4, v6) = (self.virtual_addrs(Family::V4), self.virtual_addrs(Family::V6));
        let spans = |addrs: BTreeMap<IpAddr, &'a Span>| {
            let mut spans: Vec<_> = addrs.into_values().collect();
            spans.sort_by_key(|s| s.start);
            spans
        };
        let groups = match each {
            true => vec![spans(v4), spans(v6)],
            false => vec![spans(v4.into_iter().chain(v6).collect())],
        };
        let beyond = groups.iter().filter_map(|g| g.get(VIRTUAL_ADDR_COUNT_MAX));
        let of = if each { " of a family" } else { "" };
        let finding = |span: &&Span| {
            let message = format!("more than {VIRTUAL_ADDR_COUNT_MAX} virtual addresses{of}");
            let help = format!(
                "a cluster has at most {VIRTUAL_ADDR_COUNT_MAX} VIPs{of}: put services on other ports of them"
            );
            Finding::new(Code::TooMany, (*span).clone(), message, help).label("the first one beyond")
        };
        beyond.map(finding).collect()
    }
}

/// All but the first one of several, each with the first one.
fn again<'a>(
    code: Code,
    mut spans: impl Iterator<Item = &'a Span>,
    message: &str,
    help: &str,
) -> Vec<Finding> {
    let Some(first) = spans.next() else {
        return Vec::new();
    };
    let finding = |span: &Span| {
        let finding = Finding::new(code, span.clone(), message, help).label("the second one");
        finding.other(first.clone(), "the first one")
    };
    spans.map(finding).collect()
}

fn virtual_conflict(local: &Field<IpAddr>, vip: &Span) -> Finding {
    let message = format!("{} is a VIP too", local.value);
    let help = "write an address that is nothing else: a local address is what servers see as their client";
    let finding = Finding::new(Code::AddressConflict, local.span.clone(), message, help);
    finding
        .label("here as a local address")
        .other(vip.clone(), "in use here")
}

fn as_v4(addr: IpAddr) -> Option<Ipv4Addr> {
    match addr {
        IpAddr::V4(a) => Some(a),
        IpAddr::V6(_) => None,
    }
}

fn as_v6(addr: IpAddr) -> Option<Ipv6Addr> {
    match addr {
        IpAddr::V6(a) => Some(a),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TEXT: &str = include_str!("../../../examples/active-backup.toml");

    /// Some of these cannot come from a text, because reading refuses it first.
    #[test]
    fn every_error_of_core_points_at_its_place_and_has_a_remedy() {
        // The same numbers and addresses twice, a VIP and no host's address in a share, and too large a share.
        let many: Vec<String> = (1..=65).map(|i| format!("\"10.1.0.{i}\"")).collect();
        let text = TEXT
            .replace(
                "\"198.51.100.111\"",
                "\"198.51.100.101\", \"192.0.2.80\", \"127.0.0.1\"",
            )
            .replace("203.0.113.3\"\n", "203.0.113.2\"\n")
            .replace("\"198.51.100.102\"", &many.join(", "))
            .replace("id = 2\n", "id = 1\n");
        let mut read = Findings::default();
        let tree = crate::syntax::tree(&crate::sections::ROOT, &text, &mut read).expect("TOML");
        let draft = crate::sections::draft(&tree, None, &mut read);
        assert!(read.is_empty(), "reading finds nothing yet");
        let view = View {
            draft: &draft,
            cluster: draft.cluster.as_ref().expect("it has one"),
        };
        let addr = |a: &str| a.parse::<IpAddr>().expect("an address");
        let (id, ms) = (NodeId(1), Duration::from_millis(1));
        let cases = [
            (Error::NotAMember(NodeId(9)), Code::UnknownNode, "\"lb1\""),
            (Error::TooManyMembers(17), Code::TooMany, "[cluster]"),
            (Error::SameId(id), Code::Duplicate, "1"),
            (Error::Priority(id, 0), Code::OutOfRange, "200"),
            (Error::TooManyLocalAddrs(id, 67), Code::TooMany, "\"10.1.0.64\""),
            (
                Error::SharedAddr(addr("198.51.100.101")),
                Code::Duplicate,
                "\"198.51.100.101\"",
            ),
            (
                Error::NotUnicast(addr("127.0.0.1")),
                Code::NotUnicast,
                "\"127.0.0.1\"",
            ),
            (
                Error::SharedVrrpSource(addr("203.0.113.2")),
                Code::Duplicate,
                "\"203.0.113.2\"",
            ),
            (Error::Heartbeat(ms), Code::OutOfRange, "\"100ms\""),
            (Error::DownCount(1), Code::OutOfRange, "3"),
            (Error::LeaseMargin(ms), Code::OutOfRange, "[cluster]"),
            (Error::JoinTime(ms), Code::OutOfRange, "\"1s\""),
            (Error::TooManyPorts(17), Code::TooMany, "[cluster]"),
            (Error::ZeroVrid, Code::OutOfRange, "51"),
            (Error::VrrpInterval(0), Code::OutOfRange, "\"100ms\""),
            (Error::VrrpWithoutSource, Code::MissingKey, "[[cluster.node]]"),
            (
                Error::SharedVirtualAddr(addr("192.0.2.80")),
                Code::AddressConflict,
                "\"192.0.2.80\"",
            ),
            (Error::VrrpRefused, Code::BadValue, "[cluster.vrrp]"),
            (Error::NoWorkers, Code::OutOfRange, "2"),
            (Error::ZeroIncarnation, Code::OutOfRange, "2"),
        ];
        for (error, code, at) in cases {
            let found = view.findings(&error);
            let [finding] = &found[..] else {
                panic!("{error}: {found:?}")
            };
            assert_eq!(
                (finding.code, text.get(finding.span.clone())),
                (code, Some(at)),
                "{error}"
            );
            assert!(!finding.help.is_empty() && !finding.message.is_empty(), "{error}");
        }
        // There is nothing of the kind to point at.
        for error in [
            Error::ZeroId,
            Error::Priority(NodeId(9), 0),
            Error::VrrpAddrs,
            Error::TooManySharedAddrs(65),
        ] {
            assert!(view.findings(&error).is_empty(), "{error}");
        }
    }
}
