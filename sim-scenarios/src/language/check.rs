//! What cannot be, though each part of it could.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_control::Code;
use evenkeel_control::reading::{Finding, Findings, Span, nearest, shown};
use evenkeel_core::service::{LOCAL_ADDR_COUNT_MAX, SERVER_COUNT_MAX, SERVICE_COUNT_MAX};

use super::limits::{FILLED_TABLE_MAX, VIP_COUNT_MAX};
use super::sections::Places;
use super::unseen;
use super::value::{show_at, show_span};
use crate::expect::{Expectation, Metric};
use crate::scenario::{Action, Arrival, Change, FLOW_COUNT_MAX, Network, NodeRef, Scenario};

pub(crate) fn scenario(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    times(scenario, places, findings);
    nodes(scenario, places, findings);
    networks(scenario, places, findings);
    flows(scenario, places, findings);
    services(scenario, places, findings);
    priorities(scenario, places, findings);
    delays(scenario, places, findings);
    without_effect(scenario, places, findings);
    unseen::scenario(scenario, places, findings);
    parts(scenario, places, findings);
    if places.no_expect {
        let help = "add an `[[expect]]`, such as `that = \"broken == 0\"`";
        findings
            .push(Finding::new(Code::MissingKey, 0..0, "nothing is expected", help).label("in this file"));
    }
    if findings.is_empty() {
        refused(scenario, places, findings);
    }
}

/// What the engine refuses though nothing above was found: nobody shall learn of it from a world that cannot be.
fn refused(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    for (service, why) in crate::run::refusals(scenario) {
        let (place, help) = match service.and_then(|s| places.services.get(s)) {
            Some(vip) => (vip, "the engine does not serve this: change the `[[service]]`"),
            None => (
                &places.cluster,
                "the engine does not run nodes like these: change `[cluster]` or the services",
            ),
        };
        findings.push(Finding::new(Code::BadValue, place.clone(), why, help));
    }
}

/// What the engine refuses once the mechanism is off.
pub(crate) fn without_mechanism(scenario: &Scenario, place: &Span, findings: &mut Findings) {
    for (_, why) in crate::run::refusals(scenario) {
        let message = format!("without the mechanism: {why}");
        let help = "the engine runs the base, but not this: make the base smaller";
        findings.push(Finding::new(Code::BadValue, place.clone(), message, help));
    }
}

/// Delays are those of links that are there.
fn delays(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    if places.delays.is_empty() || places.services_refused {
        return;
    }
    let links = crate::plan::links(scenario);
    for (name, place) in &places.delays {
        if !links.iter().any(|l| l.0 == *name) {
            let message = format!("there is no link {}", shown(name));
            let help = match nearest(name, links.iter().map(|l| l.0.as_str())) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => {
                    "links are client0 to client3, server0 .., node1-clients, node1-servers, node1-sync .."
                        .to_owned()
                }
            };
            findings.push(Finding::new(Code::BadValue, place.clone(), message, help));
        }
    }
}

/// Who takes over is to be seen in the text.
fn priorities(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    let mut seen = BTreeMap::new();
    for (node, place) in scenario.cluster.nodes.iter().zip(&places.priorities) {
        if let Some((first, other)) = seen.insert(node.priority, (node.id, place)) {
            // Where one is written, rather than where both could be.
            let place = if *place == places.cluster { other } else { place };
            let message = format!("nodes {first} and {} have priority {}", node.id, node.priority);
            let help =
                "give each node another `priority`; without one node 1 has 190, node 2 has 180, and so on";
            findings.push(Finding::new(Code::Duplicate, place.clone(), message, help));
        }
    }
}

/// What undoes things that nothing does, and expectations that hold whatever happens.
fn without_effect(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    // The master and the backup may be any node.
    let may_be = |a: NodeRef, b: NodeRef| !matches!((a, b), (NodeRef::Id(a), NodeRef::Id(b)) if a != b);
    let meet = |a: Network, b: Network| a == b || a == Network::All || b == Network::All;
    for (fault, place) in scenario.faults.iter().zip(&places.faults) {
        // What is refused may be what is undone.
        if places.faults_refused {
            break;
        }
        let any = |undone: &dyn Fn(&Action) -> bool| scenario.faults.iter().any(|f| undone(&f.action));
        let (nothing, help) = match fault.action {
            Action::Start(node, _) => {
                let mut nodes = scenario.cluster.nodes.iter();
                let absent = nodes.any(|n| n.absent && may_be(node, NodeRef::Id(n.id)));
                if absent || any(&|a| matches!(a, Action::Crash(n, _) if may_be(*n, node))) {
                    continue;
                }
                (
                    "the node runs all the time: nothing starts",
                    "add a \"crash\" of it, or `absent = \"on\"` in its [[cluster.node]]",
                )
            }
            Action::Config(_, Change::Served(service, true)) => {
                let absent = scenario.services.get(service).is_some_and(|s| !s.served);
                let taken =
                    |a: &Action| matches!(a, Action::Config(_, Change::Served(s, false)) if *s == service);
                if absent || any(&taken) {
                    continue;
                }
                (
                    "the service is served all the time: nothing changes",
                    "add `served = \"off\"` to its [[service]]",
                )
            }
            Action::Resume(node) => {
                if any(&|a| matches!(a, Action::Pause(n, _) if may_be(*n, node))) {
                    continue;
                }
                (
                    "nothing is paused: nothing goes on",
                    "add a \"pause\" of this node",
                )
            }
            Action::Heal(node, network) => {
                let cuts = |a: &Action| match a {
                    Action::Cut(n, net, _) => may_be(*n, node) && meet(*net, network),
                    // Of a link that loses all frames nothing else is known than of one that is cut.
                    Action::Disturb(n, net, _, d) => {
                        d.loss_ppm == 1_000_000 && may_be(*n, node) && meet(*net, network)
                    }
                    _ => false,
                };
                if any(&cuts) {
                    continue;
                }
                (
                    "no link is cut: nothing heals",
                    "add a \"cut\" of this node's links",
                )
            }
            _ => continue,
        };
        findings.push(Finding::new(Code::NoEffect, place.header.clone(), nothing, help));
    }
    let of_flows = |e: &Expectation| {
        let sides = [&e.comparison.left, &e.comparison.right];
        sides.into_iter().flat_map(|s| s.metrics()).all(is_of_flows)
    };
    // What is written wrong is not here, and has been reported.
    if scenario.loads.is_empty()
        && findings.is_empty()
        && !scenario.expects.is_empty()
        && scenario.expects.iter().all(of_flows)
        && let Some(place) = places.expects.first()
    {
        let message = "there is no load: what is expected of connections shows nothing";
        let help = "add a `[[load]]`, or expect something of the nodes, such as `takeovers == 1`";
        findings.push(Finding::new(Code::NoEffect, place.clone(), message, help));
    }
}

/// Whether it is measured at connections alone.
fn is_of_flows(metric: Metric) -> bool {
    metric != Metric::Blocked && (metric.is_of_a_load() || metric == Metric::Resurrected)
}

/// Faults of parts that are not there: workers, real servers; and tables that are too large to be filled.
fn parts(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    let meant = |node: NodeRef| {
        let all = scenario.cluster.nodes.iter();
        all.filter(move |n| matches!(node, NodeRef::Master | NodeRef::Backup) || node == NodeRef::Id(n.id))
    };
    for (fault, place) in scenario.faults.iter().zip(&places.faults) {
        let (message, help) = match fault.action {
            Action::Slow(node, Some(worker), _) => {
                let workers = meant(node).map(|n| n.workers).max().unwrap_or(u8::MAX);
                if worker < workers {
                    continue;
                }
                (
                    format!("there is no worker {worker}"),
                    format!(
                        "workers are numbered from 0: this node has 0 to {}",
                        workers.saturating_sub(1)
                    ),
                )
            }
            Action::Bucket(_, bucket) => {
                let buckets = scenario.cluster.buckets;
                if bucket < buckets {
                    continue;
                }
                (
                    format!("there is no bucket {bucket}"),
                    format!(
                        "buckets are numbered from 0: there are 0 to {}",
                        buckets.saturating_sub(1)
                    ),
                )
            }
            Action::Fill(node, _) => {
                let table = meant(node).map(|n| n.table).max().unwrap_or(0);
                if table <= FILLED_TABLE_MAX {
                    continue;
                }
                (
                    format!("a table of {table} conns is to be filled"),
                    format!("{FILLED_TABLE_MAX} conns at most: give the node a smaller `table`"),
                )
            }
            Action::Unhealthy(_, place) | Action::Config(_, Change::Weight(place, _)) => {
                let servers = scenario.server_count_max(place.service);
                if place.server <= servers {
                    continue;
                }
                let name = scenario
                    .services
                    .get(place.service)
                    .map_or("", |s| s.name.as_str());
                (
                    format!("there is no server {} of \"{name}\"", place.server),
                    format!("the service has servers 1 to {servers}"),
                )
            }
            _ => continue,
        };
        findings.push(Finding::new(Code::OutOfRange, place.part.clone(), message, help));
    }
    for (i, (service, place)) in scenario.services.iter().zip(&places.services).enumerate() {
        let put = |a: &Action| matches!(a, Action::Config(_, Change::Served(s, true)) if *s == i);
        if !service.served && !places.faults_refused && !scenario.faults.iter().any(|f| put(&f.action)) {
            let message = format!("\"{}\" is never served", service.name);
            let help = "add a fault with `do = \"config\"` and `served = \"on\"`, or leave `served` out";
            findings.push(Finding::new(Code::NoEffect, place.clone(), message, help));
        }
    }
}

/// Nothing begins after the end.
fn times(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    let end = scenario.duration;
    if scenario.quiet >= end {
        let message = format!("`quiet` takes all of the {}", show_span(end));
        let help = "it is the part of `duration` at the end in which nothing is sent: make it shorter";
        findings.push(Finding::new(
            Code::OutOfRange,
            places.quiet.clone(),
            message,
            help,
        ));
    }
    let mut latest: Vec<Duration> = Vec::new();
    for (fault, place) in scenario.faults.iter().zip(&places.faults) {
        // When what it waits for comes is not known: after another fault, if it says so, and at the beginning at the earliest.
        let before = fault
            .after
            .and_then(|a| latest.get(a))
            .copied()
            .unwrap_or_default();
        let begins = before.saturating_add(*fault.at.end());
        latest.push(begins);
        if begins >= end {
            let at = show_at(fault.when.as_ref(), &fault.at);
            let message = match fault.after {
                Some(a) => {
                    let name = scenario.faults.get(a).map_or("", |f| f.name.as_str());
                    format!(
                        "{at} after \"{name}\" may be as late as {}, and the run ends at {}",
                        show_span(begins),
                        show_span(end)
                    )
                }
                None => format!("{at} is beyond the end of the run, {}", show_span(end)),
            };
            let help = "make `duration` longer, or let it happen earlier";
            findings
                .push(Finding::new(Code::OutOfRange, place.at.clone(), message, help).label("never happens"));
        } else if let Some(lasts) = &fault.lasts
            && begins.saturating_add(*lasts.end()) >= end
        {
            let message = format!(
                "it would end at {}, and the run ends at {}",
                show_span(begins.saturating_add(*lasts.end())),
                show_span(end)
            );
            let help = "make `duration` longer or `for` shorter; without `for` it stays to the end";
            findings
                .push(Finding::new(Code::OutOfRange, place.lasts.clone(), message, help).label("never ends"));
        }
    }
    for (load, place) in scenario.loads.iter().zip(&places.loads) {
        let start = match &load.arrival {
            Arrival::Flows(_, start) => *start.end(),
            Arrival::Rate(_, start) => *start,
            Arrival::Planned(flows) => flows.iter().map(|f| f.start).max().unwrap_or_default(),
        };
        let until = load.until.unwrap_or(end.saturating_sub(scenario.quiet));
        // Of a rate the last one may be drawn to start when the others end.
        let planned = matches!(load.arrival, Arrival::Planned(_));
        if start > until || start == until && !planned {
            let message = format!(
                "\"{}\" may start at {} and ends at {}",
                load.name,
                show_span(start),
                show_span(until)
            );
            let help = "let `start` be before `until`, or before the quiet at the end";
            findings.push(Finding::new(Code::OutOfRange, place.clone(), message, help));
        }
    }
}

fn nodes(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    let nodes = scenario.cluster.nodes.len();
    for (node, span) in places.faults.iter().flat_map(|f| &f.nodes) {
        match node {
            NodeRef::Id(id) if usize::from(*id) > nodes => {
                let message = format!("there is no node {id}");
                let help = format!("the cluster has nodes 1 to {nodes}");
                findings.push(Finding::new(Code::OutOfRange, span.clone(), message, help));
            }
            NodeRef::Backup if nodes < 2 => {
                let help = "write `nodes = 2` or more in [cluster]";
                findings.push(Finding::new(
                    Code::BadValue,
                    span.clone(),
                    "a single node has no backup",
                    help,
                ));
            }
            _ => {}
        }
    }
}

/// What cannot be of the router and of VLANs.
fn networks(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    if scenario.router.is_some() {
        for (node, span) in places.faults.iter().flat_map(|f| &f.nodes) {
            if !matches!(node, NodeRef::Id(_)) {
                let message = "behind a router no node is the master";
                let help = "all that are ready answer for the VIPs: name one by its number";
                findings.push(Finding::new(Code::BadValue, span.clone(), message, help));
            }
        }
    }
    for (expect, place) in scenario.expects.iter().zip(&places.expects) {
        let sides = [&expect.comparison.left, &expect.comparison.right];
        let mut metrics = sides.into_iter().flat_map(|s| s.metrics());
        let routers = metrics.find(|m| matches!(m, Metric::Rehashes | Metric::MemberDown));
        if let Some(metric) = routers.filter(|_| scenario.router.is_none()) {
            let message = format!("`{}` without a router", metric.name());
            let help = "add `[router]`, or expect something of VRRP: `takeovers`, `master_down`";
            findings.push(Finding::new(Code::NoEffect, place.clone(), message, help));
        }
    }
    let links = [
        &scenario.links.clients,
        &scenario.links.servers,
        &scenario.links.sync,
    ];
    let mut seen = BTreeMap::new();
    for (link, place) in links.into_iter().zip(&places.vlans) {
        let Some(vlan) = link.vlan else { continue };
        if let Some(first) = seen.insert(vlan, place) {
            let message = format!("two networks in VLAN {vlan}");
            let finding = Finding::new(
                Code::Duplicate,
                place.clone(),
                message,
                "give each network a VLAN of its own",
            );
            findings.push(
                finding
                    .label("the second one")
                    .other(first.clone(), "the first one"),
            );
        }
    }
}

fn flows(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    let mut all = 0u64;
    for (load, place) in scenario.loads.iter().zip(&places.loads) {
        all += match &load.arrival {
            Arrival::Flows(n, _) => u64::from(*n),
            Arrival::Planned(flows) => flows.len() as u64,
            Arrival::Rate(rate, start) => {
                let until = load.until.unwrap_or(scenario.duration).saturating_sub(*start);
                (until.as_nanos() as u64 / 1_000_000).saturating_mul(u64::from(*rate)) / 1_000
            }
        };
        if all > FLOW_COUNT_MAX {
            let message = format!("{all} flows in all");
            let help = format!("{FLOW_COUNT_MAX} at most: fewer flows, a lower rate or a shorter time");
            findings.push(Finding::new(Code::TooMany, place.clone(), message, help));
            return;
        }
    }
}

fn services(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    too_many(scenario, places, findings);
    let mut seen = BTreeMap::new();
    for (service, place) in scenario.services.iter().zip(&places.services) {
        let key = (service.vip, service.proto == evenkeel_core::tuple::L4Proto::Udp);
        if let Some(first) = seen.insert(key, place) {
            let message = format!("two services at {}", service.vip);
            let finding = Finding::new(
                Code::Overlap,
                place.clone(),
                message,
                "give one of them another address or port",
            );
            findings.push(
                finding
                    .label("the second one")
                    .other(first.clone(), "the first one"),
            );
        }
        if !crate::plan::is_vip(service.vip.ip()) {
            let message = format!("{} cannot be a VIP of a scenario", service.vip.ip());
            let help =
                "take one of 192.0.2.1 to .98 or of 2001:db8:2::1 to ::ff: the rest of the network is given";
            findings.push(Finding::new(Code::AddressConflict, place.clone(), message, help));
        }
    }
}

/// More services, servers or addresses than nodes have room for: told at the first one that is too many.
fn too_many(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    let mut vips = [BTreeSet::new(), BTreeSet::new()];
    let mut servers = 0;
    for (i, (service, place)) in scenario.services.iter().zip(&places.services).enumerate() {
        let before = servers;
        servers += scenario.server_count_max(i) as usize;

        let vips = &mut vips[usize::from(service.vip.is_ipv6())];
        let another = vips.insert(service.vip.ip());
        let (what, max) = if i == SERVICE_COUNT_MAX {
            ("services".to_owned(), SERVICE_COUNT_MAX)
        } else if before <= SERVER_COUNT_MAX && servers > SERVER_COUNT_MAX {
            ("servers in all services".to_owned(), SERVER_COUNT_MAX)
        } else if scenario.cluster.clustered && another && vips.len() == VIP_COUNT_MAX + 1 {
            let family = if service.vip.is_ipv4() { "IPv4" } else { "IPv6" };
            (format!("{family} VIPs that nodes share"), VIP_COUNT_MAX)
        } else {
            continue;
        };
        let message = format!("more than {max} {what}");
        let help = format!("{max} at most: leave some out, or serve several ports at one VIP");
        findings.push(Finding::new(Code::TooMany, place.clone(), message, help));
    }
    let buckets = scenario.cluster.buckets;
    for (node, place) in scenario.cluster.nodes.iter().zip(&places.priorities) {
        if u16::from(node.workers) > buckets {
            let message = format!(
                "node {} has {} workers for {buckets} buckets",
                node.id, node.workers
            );
            let help = "a worker without a bucket never gets a flow: give the cluster more `buckets`, or the node fewer `workers`";
            findings.push(Finding::new(Code::TooMany, place.clone(), message, help));
        }
    }
    // Of each family, and each node knows those of all others.
    let others = scenario.cluster.nodes.len().saturating_sub(1);
    let lips = 2 * others * scenario.cluster.local_addresses as usize;
    if lips > LOCAL_ADDR_COUNT_MAX {
        let message = format!("{lips} LIPs of other nodes");
        let help = format!(
            "{LOCAL_ADDR_COUNT_MAX} at most, of both families: with this many nodes `local_addresses` is {} at most",
            LOCAL_ADDR_COUNT_MAX / (2 * others)
        );
        findings.push(Finding::new(
            Code::TooMany,
            places.local_addresses.clone(),
            message,
            help,
        ));
    }
}
