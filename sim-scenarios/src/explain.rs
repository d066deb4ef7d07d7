//! A scenario in words.

use std::fmt::Write;

use evenkeel_control::Problem;
use evenkeel_core::service::OnLimit;
use evenkeel_core::sync::codec::FORMAT_VERSION;
use evenkeel_io_sim::WorldBounds;

use crate::language::value::{
    show_at, show_bandwidth, show_drawn, show_drawn_ppm, show_share as ppm, show_signed_span, show_span,
};
use crate::plan::node_name;
use crate::scenario::{
    Action, Arrival, Change, Fault, Link, Network, NodeRef, Replicate, Scenario, Tampering, Tcp, Way,
};

fn link(link: &Link) -> String {
    let mut text = show_drawn(&link.delay);
    for (what, n) in [
        ("lost", link.loss_ppm),
        ("doubled", link.duplicate_ppm),
        ("late", link.reorder_ppm),
        ("with a flipped bit", link.corrupt_ppm),
    ] {
        if n > 0 {
            let _ = write!(text, ", {} {what}", ppm(n));
            if let Some(len) = link.burst.filter(|_| what == "lost") {
                let _ = write!(text, ", {len} in a row");
            }
        }
    }
    if let Some(mtu) = link.mtu {
        let _ = write!(text, ", packets of {mtu} bytes at most");
    }
    if let Some(vlan) = link.vlan {
        let _ = write!(text, ", VLAN {vlan}");
    }
    text
}

fn action(scenario: &Scenario, action: &Action) -> String {
    let service = |i: usize| scenario.services.get(i).map_or("?", |s| s.name.as_str());
    let on_node = |node: Option<NodeRef>| node.map_or("all nodes".into(), node_name);
    let kept = |state: bool| if state { "" } else { " without its disk" };
    let on = |network: &Network| match network {
        Network::Clients => "the clients' network",
        Network::Servers => "the servers' network",
        Network::Sync => "the sync network",
        Network::All => "all networks",
    };
    let way = |way: &Way| match way {
        Way::Both => "",
        Way::In => " (what it receives)",
        Way::Out => " (what it sends)",
    };
    match action {
        Action::Crash(n, true) => format!("{} crashes", node_name(*n)),
        Action::Crash(n, false) => format!("{} crashes, and starts without its disk", node_name(*n)),
        Action::Start(n, state) => format!("{} starts{}", node_name(*n), kept(*state)),
        Action::Pause(n, true) => format!("{} stands still", node_name(*n)),
        Action::Pause(n, false) => format!("{} stands still, and its clock", node_name(*n)),
        Action::Resume(n) => format!("{} goes on", node_name(*n)),
        Action::Drain(n) => format!("{} is asked to leave", node_name(*n)),
        Action::Cut(n, network, w) => format!("{} is cut from {}{}", node_name(*n), on(network), way(w)),
        Action::Heal(n, network) => format!("{} is on {} again", node_name(*n), on(network)),
        Action::Disturb(n, network, w, d) => {
            let mut parts = Vec::new();
            if d.loss_ppm > 0 {
                let row = d.burst.map_or(String::new(), |len| format!(", {len} in a row"));
                parts.push(format!("{} of frames lost{row}", ppm(d.loss_ppm)));
            }
            if d.arp_ppm > 0 {
                parts.push(format!("{} of ARP and neighbour discovery lost", ppm(d.arp_ppm)));
            }
            if d.corrupt_ppm > 0 {
                parts.push(format!("{} of frames with a flipped bit", ppm(d.corrupt_ppm)));
            }
            if !d.delay.is_zero() {
                parts.push(format!("all later by {}", show_span(d.delay)));
            }
            if let Some(bits) = d.bandwidth {
                parts.push(format!("{} at most", show_bandwidth(bits)));
            }
            if d.duplicate_ppm > 0 {
                parts.push(format!(
                    "{} of frames come {} times",
                    ppm(d.duplicate_ppm),
                    u32::from(d.copies) + 1
                ));
            }
            if d.reorder_ppm > 0 {
                parts.push(format!(
                    "{} of frames late by up to {}",
                    ppm(d.reorder_ppm),
                    show_span(d.reorder_by)
                ));
            }
            format!(
                "{} on {}{}: {}",
                node_name(*n),
                on(network),
                way(w),
                parts.join(", ")
            )
        }
        Action::Dark(n, network, w) => format!(
            "{} is dark on {}{}: hellos pass, and nothing else",
            node_name(*n),
            on(network),
            way(w)
        ),
        Action::Bucket(n, bucket) => format!("{} loses what falls into bucket {bucket}", node_name(*n)),
        Action::Part(n, to, network, w) => {
            format!(
                "{} is parted from {} on {}{}",
                node_name(*n),
                node_name(*to),
                on(network),
                way(w)
            )
        }
        Action::Suppress {
            from,
            to,
            kinds,
            frames,
        } => {
            let names: Vec<_> = crate::Kind::ALL
                .iter()
                .filter(|k| kinds.contains(&k.1))
                .map(|k| k.0)
                .collect();
            let from = from.map_or("any node".into(), node_name);
            let to = to.map_or("any node".into(), node_name);
            let frames = frames.map_or(String::new(), |n| {
                format!(", {n} frame{}", if n == 1 { "" } else { "s" })
            });
            format!("{} from {from} to {to} never arrives{frames}", names.join(", "))
        }
        Action::Tamper(n, Tampering::Forge) => {
            format!(
                "every second frame of other nodes arrives at {} with another byte in it",
                node_name(*n)
            )
        }
        Action::Tamper(n, Tampering::Replay) => {
            format!(
                "in the place of every second frame of other nodes {} gets an earlier one",
                node_name(*n)
            )
        }
        Action::Look => "from here on it is measured".into(),
        Action::Queues(n, entries) => format!("queues of {} hold {entries}", node_name(*n)),
        Action::Rings(n, entries) => format!("rings of {} hold {entries}", node_name(*n)),
        Action::Slow(n, None, factor) => format!("{} is slower by {factor}", node_name(*n)),
        Action::Slow(n, Some(worker), factor) => {
            format!("worker {worker} of {} is slower by {factor}", node_name(*n))
        }
        Action::Fill(n, share) => format!("tables of {} are {} full", node_name(*n), ppm(*share)),
        Action::Damage(n, share) => {
            format!(
                "{} of the sessions that {} has of others are damaged",
                ppm(*share),
                node_name(*n)
            )
        }
        Action::Drift(n, ppm) => format!("the clock of {} drifts by {ppm}ppm", node_name(*n)),
        Action::Step(n, by) => format!("the clock of {} jumps by {}", node_name(*n), show_span(*by)),
        Action::SetWall(n, by) => {
            format!(
                "the wall clock of {} is set by {}",
                node_name(*n),
                show_signed_span(*by)
            )
        }
        Action::Config(n, change) => {
            let what = match change {
                Change::Servers(s, 1) => format!("{} has 1 server", service(*s)),
                Change::Servers(s, n) => format!("{} has {n} servers", service(*s)),
                Change::Weight(s, weight) => {
                    format!(
                        "server {} of {} has weight {weight}",
                        s.server,
                        service(s.service)
                    )
                }
                Change::Served(s, true) => format!("{} is served", service(*s)),
                Change::Served(s, false) => format!("{} is not served", service(*s)),
            };
            format!("the config of {} changes: {what}", on_node(*n))
        }
        Action::Unhealthy(n, s) => format!(
            "the check of server {} of {} fails on {}",
            s.server,
            service(s.service),
            on_node(*n)
        ),
    }
}

/// What a fault waits for.
fn when_of(fault: &Fault) -> String {
    show_at(fault.when.as_ref(), &fault.at)
}

/// What a scenario does and expects, as text.
pub fn explain(scenario: &Scenario) -> String {
    let mut out = String::new();
    let number = scenario
        .number
        .map_or(String::new(), |n| format!(" (number {n} of the catalogue)"));
    let _ = writeln!(out, "{}{number}", scenario.name);
    for line in scenario.description.lines().map(Problem::shown_name) {
        let _ = writeln!(out, "  {}", line.trim());
    }
    if let Some(waits_for) = &scenario.waits_for {
        let _ = writeln!(out, "\nwaits for: {waits_for}");
    }
    if scenario.services.is_empty() {
        return out;
    }
    if let Some(seed) = scenario.seed {
        let _ = writeln!(out, "\nplan of seed {seed}");
    }
    let cluster = &scenario.cluster;
    let _ = writeln!(
        out,
        "\ntime: {}, the last {} quiet",
        show_span(scenario.duration),
        show_span(scenario.quiet)
    );
    let bounds = scenario.bounds;
    if bounds != WorldBounds::default() {
        let mib = bounds.memory_bytes >> 20;
        let _ = writeln!(out, "bounds: {} events, {mib} MiB", bounds.events);
    }
    for node in &cluster.nodes {
        let absent = if node.absent { ", absent at first" } else { "" };
        let clock = if node.drift_ppm == (0..=0) {
            String::new()
        } else {
            format!(", its clock drifts by {}", show_drawn_ppm(&node.drift_ppm))
        };
        let format = if node.format == FORMAT_VERSION {
            String::new()
        } else {
            format!(", of frame version {}", node.format)
        };
        let workers = if node.workers == 1 {
            "1 worker".into()
        } else {
            format!("{} workers", node.workers)
        };
        let _ = writeln!(
            out,
            "node {}: {workers}, priority {}{clock}{format}{absent}",
            node.id, node.priority
        );
    }
    if let Some(router) = &scenario.router {
        let kind = match router.buckets {
            Some(buckets) => format!("a table of {buckets} buckets"),
            None => "the hash modulo their number".into(),
        };
        let detection = match router.detection {
            Some((interval, multiplier)) => format!("{multiplier} hellos every {}", show_span(interval)),
            None => "it believes in all of them".into(),
        };
        let _ = writeln!(out, "router: flows to all nodes by {kind}; {detection}");
    }
    let links = &scenario.links;
    for (name, l) in [
        ("clients", &links.clients),
        ("servers", &links.servers),
        ("sync", &links.sync),
    ] {
        let _ = writeln!(out, "links, {name}: {}", link(l));
    }
    let hosts = &scenario.hosts;
    if hosts.clients != Tcp::Smoltcp || hosts.servers != Tcp::Smoltcp {
        let name = |tcp| match tcp {
            Tcp::Smoltcp => "smoltcp",
            Tcp::Flyweight => "flyweight",
        };
        let sampled = hosts.sampled.map_or(String::new(), |n| {
            format!("; one connection in {n} has smoltcp's")
        });
        let keepalive = hosts.keepalive.map_or(String::new(), |k| {
            format!(
                "; silent clients are asked after {}, then {} times every {}",
                show_span(k.time),
                k.probes,
                show_span(k.interval)
            )
        });
        let (clients, servers) = (name(hosts.clients), name(hosts.servers));
        let _ = writeln!(
            out,
            "hosts: TCP of clients {clients}, of servers {servers}{sampled}{keepalive}"
        );
    }
    for service in &scenario.services {
        let absent = if service.served {
            ""
        } else {
            ", not served at first"
        };
        let replicate = match service.replicate {
            Replicate::Off => "not replicated".to_owned(),
            Replicate::Established => "replicated when established".to_owned(),
            Replicate::SynAck => "replicated with the SYN-ACK".to_owned(),
            Replicate::Deferred(d) => format!(
                "replicated before the client hears that it is connected: {} other nodes, {} at most, then {}",
                d.nodes(),
                show_span(d.limit()),
                match d.on_limit() {
                    OnLimit::Open => "all the same",
                    OnLimit::Drop => "not at all",
                }
            ),
        };
        let _ = writeln!(
            out,
            "service {}: {} {}, {} servers, {replicate}{absent}",
            service.name, service.proto, service.vip, service.servers
        );
    }
    for load in &scenario.loads {
        let arrival = match &load.arrival {
            Arrival::Flows(n, start) => format!("{n} flows, from {}", show_drawn(start)),
            Arrival::Rate(n, start) => format!("{n} flows a second, from {}", show_span(*start)),
            Arrival::Planned(flows) => format!("{} planned flows", flows.len()),
        };
        let requests = load
            .requests
            .map_or("requests until the end".into(), |n| format!("{n} requests"));
        let _ = writeln!(
            out,
            "load {}: {arrival}; {requests}, {} bytes and {} back, every {}",
            load.name,
            load.request_bytes,
            load.reply_bytes,
            show_drawn(&load.every)
        );
    }
    for fault in &scenario.faults {
        let after = fault.after.and_then(|a| scenario.faults.get(a));
        let when = match after {
            Some(before) if fault.when.is_some() => format!("{}, after {}", when_of(fault), before.name),
            Some(before) => format!("{} after {}", show_drawn(&fault.at), before.name),
            None if fault.when.is_some() => when_of(fault),
            None => format!("at {}", show_drawn(&fault.at)),
        };
        let optional = if fault.optional { ", if ever" } else { "" };
        let lasts = fault
            .lasts
            .as_ref()
            .map_or(String::new(), |l| format!(", for {}", show_drawn(l)));
        let _ = writeln!(
            out,
            "fault {}: {when}{optional}{lasts}: {}",
            fault.name,
            action(scenario, &fault.action)
        );
    }
    if let Some(off) = &scenario.off {
        let _ = writeln!(out, "off: {} (of {})", off.mechanism.name(), off.base);
        let _ = writeln!(out, "must fail: {}", off.fails.join("; "));
        if !off.follows.is_empty() {
            let _ = writeln!(out, "may follow: {}", off.follows.join("; "));
        }
    }
    for expectation in &scenario.expects {
        let of = expectation.of.and_then(|l| scenario.loads.get(l));
        let of = of.map_or(String::new(), |l| format!(" (of {})", l.name));
        let _ = writeln!(out, "expects: {}{of}", expectation.text);
    }
    out
}
