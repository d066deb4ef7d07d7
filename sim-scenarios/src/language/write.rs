//! A scenario as text: what [`parse`](super::parse) reads back to an equal one.

use std::fmt::Write;
use std::time::Duration;

use evenkeel_core::tuple::L4Proto;

use super::value::{
    show_at, show_bandwidth, show_drawn, show_drawn_ppm, show_ppm, show_share, show_signed_span, show_span,
};
use crate::expect::Metric;
use crate::mechanism::Kind;
use crate::scenario::{
    Action, Arrival, Change, Fault, Hosts, Link, Load, LoadEnd, Network, NodeRef, Router, Scenario, Service,
    Tampering, Tcp, Way,
};

/// Writes a scenario. Whatever [`parse`](super::parse) has read is written so that it reads an equal one; a plan has a line
/// for each of its flows.
pub fn write(scenario: &Scenario) -> String {
    let mut out = Text::default();
    head(&mut out, scenario);
    if scenario.waits_for.is_some() && scenario.services.is_empty() {
        // An entry of the list: nothing else is known of it.
        return out.0;
    }
    cluster(&mut out, scenario);
    if let Some(router) = &scenario.router {
        self::router(&mut out, router);
    }
    links(&mut out, scenario);
    hosts(&mut out, &scenario.hosts);
    for s in &scenario.services {
        service(&mut out, s);
    }
    for l in &scenario.loads {
        load(&mut out, scenario, l);
    }
    for f in &scenario.faults {
        fault(&mut out, scenario, f);
    }
    for expect in &scenario.expects {
        out.table("[[expect]]");
        out.string("that", &expect.text);
        let of = expect.of.and_then(|of| scenario.loads.get(of));
        let implied = of.map_or_else(
            || expect.text.clone(),
            |l| format!("{} of {}", expect.text, l.name),
        );
        if expect.name != implied {
            out.string("name", &expect.name);
        }
        if let Some(load) = of {
            out.string("of", &load.name);
        }
    }
    if let Some(off) = &scenario.off {
        out.table("[off]");
        out.string("base", &off.base);
        out.string("mechanism", off.mechanism.name());
        out.strings("fails", off.fails.iter().map(String::as_str));
        if !off.follows.is_empty() {
            out.strings("follows", off.follows.iter().map(String::as_str));
        }
    }
    out.0
}

/// Lines of TOML.
#[derive(Default)]
struct Text(String);

impl Text {
    fn table(&mut self, header: &str) {
        let _ = writeln!(self.0, "\n{header}");
    }

    fn raw(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn string(&mut self, key: &str, value: &str) {
        self.raw(key, quoted(value));
    }

    fn span(&mut self, key: &str, span: Duration) {
        self.string(key, &show_span(span));
    }

    fn strings<'s>(&mut self, key: &str, values: impl Iterator<Item = &'s str>) {
        let all: Vec<_> = values.map(quoted).collect();
        self.raw(key, format!("[{}]", all.join(", ")));
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Several lines as they are, if nothing in them means something else in TOML.
fn lines(text: &str) -> String {
    let plain = |c: char| c == '\n' || !c.is_control() && c != '\\' && c != '"';
    if text.contains('\n') && text.chars().all(plain) {
        format!("\"\"\"\n{text}\n\"\"\"")
    } else {
        quoted(text)
    }
}

fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn head(out: &mut Text, scenario: &Scenario) {
    out.string("name", &scenario.name);
    if let Some(number) = scenario.number {
        out.raw("number", number);
    }
    out.raw("description", lines(&scenario.description));
    if let Some(waits_for) = &scenario.waits_for {
        out.string("waits_for", waits_for);
        if scenario.services.is_empty() {
            return;
        }
    }
    if let Some(seed) = scenario.seed {
        out.string("seed", &seed.to_string());
    }
    if let Some(ties) = scenario.ties {
        out.string("ties", &ties.to_string());
    }
    out.span("duration", scenario.duration);
    out.span("quiet", scenario.quiet);
    out.raw("events_max", scenario.bounds.events);
    out.raw("memory_mib", scenario.bounds.memory_bytes >> 20);
    let mut sides = scenario
        .expects
        .iter()
        .flat_map(|e| [&e.comparison.left, &e.comparison.right]);
    if !sides.any(|s| s.metrics().any(|m| m == Metric::Hanging)) {
        // Else it would be expected though nobody says so.
        out.string("may_hang", "on");
    }
}

fn cluster(out: &mut Text, scenario: &Scenario) {
    let cluster = &scenario.cluster;
    out.table("[cluster]");
    out.raw("nodes", cluster.nodes.len());
    out.raw("buckets", cluster.buckets);
    out.raw("local_addresses", cluster.local_addresses);
    out.raw("local_port_min", cluster.local_port_min);
    out.span("heartbeat", cluster.heartbeat);
    out.span("advertisement", cluster.advertisement);
    out.span("join_time", cluster.join_time);
    if !cluster.bulk_delay.is_zero() {
        out.span("bulk_delay", cluster.bulk_delay);
    }
    out.string("preempt", switch(cluster.preempt));
    if cluster.sealed {
        out.string("sealed", "on");
    }
    if !cluster.digests {
        out.string("digests", "off");
    }
    if let Some(lsn_ring) = cluster.lsn_ring {
        out.raw("lsn_ring", lsn_ring);
    }
    out.raw("ring", cluster.ring);
    for node in &cluster.nodes {
        out.table("[[cluster.node]]");
        out.raw("id", node.id);
        out.raw("workers", node.workers);
        out.raw("priority", node.priority);
        out.raw("table", node.table);
        out.span("frame_cost", node.frame_cost);
        out.string("drift", &show_drawn_ppm(&node.drift_ppm));
        out.raw("format", node.format);
        if node.absent {
            out.string("absent", "on");
        }
    }
}

fn router(out: &mut Text, router: &Router) {
    out.table("[router]");
    out.string(
        "ecmp",
        match router.buckets {
            Some(_) => "resilient",
            None => "modulo",
        },
    );
    if let Some(buckets) = router.buckets {
        out.raw("buckets", buckets);
    }
    match router.detection {
        Some((interval, multiplier)) => {
            out.span("interval", interval);
            out.raw("multiplier", multiplier);
        }
        None => out.string("detect", "off"),
    }
}

fn links(out: &mut Text, scenario: &Scenario) {
    let links = &scenario.links;
    if !links.delays.is_empty() {
        out.table("[links]");
        let _ = writeln!(out.0, "delays = [");
        for (name, delay) in &links.delays {
            let _ = writeln!(out.0, "    \"{name} {}\",", show_span(*delay));
        }
        let _ = writeln!(out.0, "]");
    }
    for (name, link) in [
        ("clients", &links.clients),
        ("servers", &links.servers),
        ("sync", &links.sync),
    ] {
        if *link == Link::default() {
            continue;
        }
        out.table(&format!("[links.{name}]"));
        out.string("delay", &show_drawn(&link.delay));
        shares(
            out,
            [
                ("loss", link.loss_ppm),
                ("duplicate", link.duplicate_ppm),
                ("reorder", link.reorder_ppm),
                ("corrupt", link.corrupt_ppm),
            ],
        );
        if let Some(burst) = link.burst {
            out.raw("burst", burst);
        }
        if let Some(mtu) = link.mtu {
            out.raw("mtu", mtu);
        }
        if let Some(vlan) = link.vlan {
            out.raw("vlan", vlan);
        }
        out.string("bandwidth", &show_bandwidth(link.bandwidth));
    }
}

fn hosts(out: &mut Text, hosts: &Hosts) {
    if *hosts == Hosts::default() {
        return;
    }
    let tcp = |tcp: Tcp| match tcp {
        Tcp::Smoltcp => "smoltcp",
        Tcp::Flyweight => "flyweight",
    };
    out.table("[hosts]");
    out.string("clients", tcp(hosts.clients));
    out.string("servers", tcp(hosts.servers));
    if let Some(sampled) = hosts.sampled {
        out.raw("sampled", sampled);
    }
    if let Some(keepalive) = hosts.keepalive {
        out.span("keepalive", keepalive.time);
        out.span("keepalive_interval", keepalive.interval);
        out.raw("keepalive_probes", keepalive.probes);
    }
}

/// Those that are not none.
fn shares<const N: usize>(out: &mut Text, shares: [(&str, u32); N]) {
    for (key, ppm) in shares.into_iter().filter(|s| s.1 > 0) {
        out.string(key, &show_share(ppm));
    }
}

fn service(out: &mut Text, service: &Service) {
    out.table("[[service]]");
    out.string("name", &service.name);
    out.string("vip", &service.vip.to_string());
    let proto = match service.proto {
        L4Proto::Tcp => "tcp",
        L4Proto::Udp => "udp",
    };
    out.string("protocol", proto);
    out.raw("servers", service.servers);
    if !service.served {
        out.string("served", switch(service.served));
    }
    out.string("replicate", &service.replicate.to_string());
    if let Some(established) = service.established {
        out.span("established_timeout", established);
    }
}

fn load(out: &mut Text, scenario: &Scenario, load: &Load) {
    let name = |s: &usize| scenario.services.get(*s).map_or("", |s| s.name.as_str());
    out.table("[[load]]");
    out.string("name", &load.name);
    if !load.services.iter().copied().eq(0..scenario.services.len()) {
        out.strings("services", load.services.iter().map(name));
    }
    match &load.arrival {
        Arrival::Flows(flows, start) => {
            out.raw("flows", flows);
            out.string("start", &show_drawn(start));
        }
        Arrival::Rate(rate, start) => {
            out.raw("rate", rate);
            out.span("start", *start);
        }
        Arrival::Planned(flows) => {
            let _ = writeln!(out.0, "plan = \"\"\"");
            for flow in flows {
                let _ = writeln!(
                    out.0,
                    "{} {} {} {}",
                    flow.number,
                    name(&flow.service),
                    flow.client,
                    show_span(flow.start)
                );
            }
            let _ = writeln!(out.0, "\"\"\"");
        }
    }
    if let Some(requests) = load.requests {
        out.raw("requests", requests);
    }
    out.raw("request_bytes", load.request_bytes);
    out.raw("reply_bytes", load.reply_bytes);
    out.string("every", &show_drawn(&load.every));
    if let Some(until) = load.until {
        out.span("until", until);
    }
    let end = match load.end {
        LoadEnd::Close => "close",
        LoadEnd::Reset => "reset",
        LoadEnd::Stay => "stay",
        LoadEnd::Vanish => "vanish",
    };
    out.string("end", end);
    out.span("give_up", load.give_up);
}

fn node(node: NodeRef) -> String {
    match node {
        NodeRef::Id(id) => id.to_string(),
        NodeRef::Master => "master".into(),
        NodeRef::Backup => "backup".into(),
    }
}

fn network(network: Network) -> &'static str {
    match network {
        Network::Clients => "clients",
        Network::Servers => "servers",
        Network::Sync => "sync",
        Network::All => "all",
    }
}

fn way(way: Way) -> &'static str {
    match way {
        Way::Both => "both",
        Way::In => "in",
        Way::Out => "out",
    }
}

fn fault(out: &mut Text, scenario: &Scenario, fault: &Fault) {
    out.table("[[fault]]");
    out.string("name", &fault.name);
    let word = match &fault.action {
        Action::Crash(..) => "crash",
        Action::Start(..) => "start",
        Action::Pause(..) => "pause",
        Action::Resume(_) => "resume",
        Action::Drain(_) => "drain",
        Action::Cut(..) => "cut",
        Action::Heal(..) => "heal",
        Action::Disturb(..) => "disturb",
        Action::Dark(..) => "dark",
        Action::Bucket(..) => "bucket",
        Action::Part(..) => "part",
        Action::Suppress { .. } => "suppress",
        Action::Tamper(_, Tampering::Forge) => "forge",
        Action::Tamper(_, Tampering::Replay) => "replay",
        Action::Queues(..) => "queues",
        Action::Rings(..) => "rings",
        Action::Slow(..) => "slow",
        Action::Fill(..) => "fill",
        Action::Damage(..) => "damage",
        Action::Drift(..) => "drift",
        Action::Step(..) | Action::SetWall(..) => "step",
        Action::Config(..) => "config",
        Action::Unhealthy(..) => "unhealthy",
        Action::Look => "look",
    };
    out.string("do", word);
    out.string("at", &show_at(fault.when.as_ref(), &fault.at));
    if fault.optional {
        out.string("optional", switch(fault.optional));
    }
    if let Some(after) = fault.after.and_then(|a| scenario.faults.get(a)) {
        out.string("after", &after.name);
    }
    if let Some(lasts) = &fault.lasts {
        out.string("for", &show_drawn(lasts));
    }
    match &fault.action {
        Action::Resume(n) | Action::Drain(n) => out.string("node", &node(*n)),
        Action::Crash(n, state) => {
            out.string("node", &node(*n));
            // Of a crash after which nothing starts it says nothing.
            if fault.lasts.is_some() {
                out.string("state", switch(*state));
            }
        }
        Action::Start(n, state) => {
            out.string("node", &node(*n));
            out.string("state", switch(*state));
        }
        Action::Pause(n, clock) => {
            out.string("node", &node(*n));
            out.string("clock", switch(*clock));
        }
        Action::Bucket(n, bucket) => {
            out.string("node", &node(*n));
            out.raw("bucket", bucket);
        }
        Action::Part(n, to, net, w) => {
            out.string("node", &node(*n));
            out.string("to", &node(*to));
            out.string("network", network(*net));
            out.string("way", way(*w));
        }
        Action::Cut(n, net, w) | Action::Dark(n, net, w) => {
            out.string("node", &node(*n));
            out.string("network", network(*net));
            out.string("way", way(*w));
        }
        Action::Heal(n, net) => {
            out.string("node", &node(*n));
            out.string("network", network(*net));
        }
        Action::Disturb(n, net, w, d) => {
            out.string("node", &node(*n));
            out.string("network", network(*net));
            if *w != Way::Both {
                out.string("way", way(*w));
            }
            shares(
                out,
                [
                    ("loss", d.loss_ppm),
                    ("duplicate", d.duplicate_ppm),
                    ("reorder", d.reorder_ppm),
                    ("corrupt", d.corrupt_ppm),
                    ("arp", d.arp_ppm),
                ],
            );
            if let Some(burst) = d.burst {
                out.raw("burst", burst);
            }
            if d.duplicate_ppm > 0 {
                out.raw("copies", d.copies);
            }
            if d.reorder_ppm > 0 {
                out.span("reorder_by", d.reorder_by);
            }
            if !d.delay.is_zero() {
                out.span("delay", d.delay);
            }
            if let Some(bandwidth) = d.bandwidth {
                out.string("bandwidth", &show_bandwidth(bandwidth));
            }
        }
        Action::Suppress {
            from,
            to,
            kinds,
            frames,
        } => {
            for (key, of) in [("node", from), ("to", to)] {
                if let Some(of) = of {
                    out.string(key, &node(*of));
                }
            }
            let name = |kind: &Kind| Kind::ALL.iter().find(|k| k.1 == *kind).map_or("", |k| k.0);
            out.strings("kinds", kinds.iter().map(name));
            if let Some(frames) = frames {
                out.raw("frames", frames);
            }
        }
        Action::Tamper(n, _) => out.string("node", &node(*n)),
        Action::Queues(n, entries) | Action::Rings(n, entries) => {
            out.string("node", &node(*n));
            out.raw("entries", entries);
        }
        Action::Slow(n, worker, factor) => {
            out.string("node", &node(*n));
            if let Some(worker) = worker {
                out.raw("worker", worker);
            }
            out.raw("factor", factor);
        }
        Action::Fill(n, ppm) | Action::Damage(n, ppm) => {
            out.string("node", &node(*n));
            out.string("share", &show_share(*ppm));
        }
        Action::Drift(n, ppm) => {
            out.string("node", &node(*n));
            out.string("drift", &show_ppm(*ppm));
        }
        Action::Step(n, by) => {
            out.string("node", &node(*n));
            out.span("by", *by);
        }
        Action::SetWall(n, by) => {
            out.string("node", &node(*n));
            out.string("by", &show_signed_span(*by));
            out.string("wall", switch(true));
        }
        Action::Config(n, change) => {
            if let Some(n) = n {
                out.string("node", &node(*n));
            }
            let service = |s: usize| scenario.services.get(s).map_or("", |s| s.name.as_str());
            match change {
                Change::Servers(of, servers) => {
                    out.string("service", service(*of));
                    out.raw("servers", servers);
                }
                Change::Weight(of, weight) => {
                    out.string("service", service(of.service));
                    out.raw("server", of.server);
                    out.raw("weight", weight);
                }
                Change::Served(of, on) => {
                    out.string("service", service(*of));
                    out.string("served", switch(*on));
                }
            }
        }
        Action::Unhealthy(n, of) => {
            if let Some(n) = n {
                out.string("node", &node(*n));
            }
            let service = scenario.services.get(of.service);
            out.string("service", service.map_or("", |s| s.name.as_str()));
            out.raw("server", of.server);
        }
        Action::Look => {}
    }
}
