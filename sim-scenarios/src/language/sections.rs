//! The sections of a scenario: from the tree to plain data.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_control::reading::{Field, Finding, Findings, Need, Schema, Span, Table, nearest, shown};
use evenkeel_control::{Bad, Code, endpoint};
use evenkeel_core::proto::TIMEOUT_MAX;
use evenkeel_core::tuple::L4Proto;
use toml::de::DeTable;

use super::limits::{self, Limit};
use super::{check, schema, value};
use crate::expect::{self, Expectation};
use crate::mechanism::{Kind, Mechanism};
use crate::scenario::{
    Action, Arrival, Cluster, DURATION_MAX, Disturbance, FAULT_COUNT_MAX, Fault, Link, Links, Load, LoadEnd,
    Network, Node, NodeRef, Off, Replicate, Scenario, Service, Way,
};

const SWITCH: [(&str, bool); 2] = [("on", true), ("off", false)];

/// Header, `at`, `for`, node and further node of a fault.
type FaultPlaces = (Span, Span, Span, Vec<(NodeRef, Span)>);

/// Where things stand in the text, for checks that need several of them.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) quiet: Span,
    /// Of `[cluster]`.
    pub(crate) cluster: Span,
    pub(crate) local_addresses: Span,
    /// By node, where its priority is written, or its table.
    pub(crate) priorities: Vec<Span>,
    pub(crate) services: Vec<Span>,
    pub(crate) loads: Vec<Span>,
    pub(crate) faults: Vec<FaultPlaces>,
    pub(crate) expects: Vec<Span>,
    /// There is no `[[expect]]` at all, not even one that cannot be read.
    pub(crate) no_expect: bool,
}

/// Names of one kind, each once.
#[derive(Default)]
struct Names(BTreeMap<String, (usize, Span)>);

impl Names {
    fn add(&mut self, name: String, span: Span, findings: &mut Findings) {
        let n = self.0.len();
        if let Some((_, first)) = self.0.get(&name) {
            let message = format!("the name \"{}\" stands there twice", shown(&name));
            let finding = Finding::new(Code::Duplicate, span, message, "give one of them another name");
            findings.push(
                finding
                    .label("the second one")
                    .other(first.clone(), "the first one"),
            );
        } else {
            self.0.insert(name, (n, span));
        }
    }

    fn find(&self, name: &str, what: &str) -> Result<usize, Bad> {
        if let Some((n, _)) = self.0.get(name) {
            return Ok(*n);
        }
        let help = match nearest(name, self.0.keys().map(String::as_str)) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None if self.0.is_empty() => format!("there is no {what} above this one"),
            None => {
                let known: Vec<_> = self.0.keys().take(20).map(|n| format!("\"{n}\"")).collect();
                format!("known: {}", known.join(", "))
            }
        };
        Err(Bad::new(
            Code::BadValue,
            format!("no {what} is called \"{}\"", shown(name)),
            help,
        ))
    }
}

fn count(table: &Table<'_, '_>, limit: Limit, findings: &mut Findings) -> Option<u32> {
    let field = table.integer(limit.key, limit.min..=limit.max, findings);
    field.map(|f| f.value)
}

fn span(
    table: &Table<'_, '_>,
    key: &'static str,
    need: Need,
    findings: &mut Findings,
) -> Option<Field<Duration>> {
    table.parsed(key, need, value::span, findings)
}

fn description(table: &Table<'_, '_>, findings: &mut Findings) -> String {
    let text = table.string("description", Need::Required, findings);
    text.map_or_else(String::new, |t| t.value.trim().to_owned())
}

/// A whole scenario.
pub(crate) fn scenario(tree: &DeTable<'_>, findings: &mut Findings) -> Option<Scenario> {
    let root = Table::new(&schema::ROOT, schema::ALL, 0..0, tree, findings);
    let name = root.parsed("name", Need::Required, value::name, findings);
    let number = count(&root, limits::NUMBER, findings);
    let description = description(&root, findings);
    let waits_for = root.string("waits_for", Need::Optional, findings);
    let sub = |key, schema: &'static Schema, findings: &mut Findings| {
        root.table(key, schema, schema::ALL, findings)
    };
    if let Some(off) = sub("off", &schema::OFF, findings) {
        let help = "a counter-proof is a file of its own, with `base` and `[off]`";
        findings.push(Finding::new(
            Code::NoEffect,
            off.span,
            "`[off]` without `base`",
            help,
        ));
    }
    if let Some(waits_for) = &waits_for
        && tree.get("cluster").is_none()
    {
        // An entry of the list: nothing else is known of it yet.
        return Some(Scenario {
            name: name?.value,
            number,
            description,
            waits_for: Some(waits_for.value.to_owned()),
            duration: Duration::ZERO,
            quiet: Duration::ZERO,
            cluster: cluster(None, &mut Places::default(), findings),
            links: Links::default(),
            services: Vec::new(),
            loads: Vec::new(),
            faults: Vec::new(),
            expects: Vec::new(),
            off: None,
        });
    }
    let mut places = Places {
        quiet: root.span_of("quiet"),
        ..Places::default()
    };
    let duration = root.parsed(
        "duration",
        Need::Required,
        |text| {
            let duration = value::span(text)?;
            if duration.is_zero() || duration > DURATION_MAX {
                let message = format!(
                    "\"{}\" is too {}",
                    shown(text),
                    if duration.is_zero() { "short" } else { "long" }
                );
                return Err(Bad::new(
                    Code::OutOfRange,
                    message,
                    "write more than \"0s\" and \"1h\" at most",
                ));
            }
            Ok(duration)
        },
        findings,
    );
    let quiet = span(&root, "quiet", Need::Optional, findings).map_or(Duration::from_secs(2), |f| f.value);
    let table = sub("cluster", &schema::CLUSTER, findings);
    let cluster = cluster(table.as_ref(), &mut places, findings);
    let links = links(sub("links", &schema::LINKS, findings), findings);
    let (services, service_names) = services(&root, &mut places, findings);
    let (loads, load_names) = loads(&root, &services, &service_names, &mut places, findings);
    let faults = faults(&root, &mut places, findings);
    let expects = expects(&root, &load_names, &mut places, findings);
    let may_hang = root.choice("may_hang", Need::Optional, &SWITCH, findings);
    let mut scenario = Scenario {
        name: name?.value,
        number,
        description,
        waits_for: waits_for.map(|w| w.value.to_owned()),
        duration: duration?.value,
        quiet,
        cluster,
        links,
        services,
        loads,
        faults,
        expects,
        off: None,
    };
    check::scenario(&scenario, &places, findings);
    if !may_hang.is_some_and(|m| m.value) {
        scenario.expects.extend(expect::implied(&scenario.expects));
    }
    Some(scenario)
}

/// A counter-proof: its base with a mechanism off.
pub(crate) fn counter_proof(
    tree: &DeTable<'_>,
    read: &dyn Fn(&str) -> Result<String, String>,
    findings: &mut Findings,
) -> Option<Scenario> {
    let root = Table::new(&schema::COUNTER_PROOF, schema::ALL, 0..0, tree, findings);
    let name = root.parsed("name", Need::Required, value::name, findings);
    let number = count(&root, limits::NUMBER, findings);
    let description = description(&root, findings);
    let base = root.string("base", Need::Required, findings)?;
    let refuse = |why: String| {
        Bad::new(
            Code::BadValue,
            why,
            "write the file name of a scenario that stands beside this one",
        )
    };
    let found = read(base.value).map_err(&refuse).and_then(|text| {
        let no_base = |_: &str| Err("a counter-proof has no counter-proof".to_owned());
        let parsed = super::parse(base.value, &text, &no_base);
        parsed.map_err(|errors| {
            let first = errors.problems().first();
            let at = first.map_or_else(String::new, |p| format!(": line {}: {}", p.line, p.message));
            refuse(format!("the base \"{}\" is refused{at}", shown(base.value)))
        })
    });
    let mut scenario = match found {
        Ok(scenario) if scenario.off.is_none() => scenario,
        Ok(_) => {
            let message = format!("\"{}\" is a counter-proof itself", shown(base.value));
            findings.push(Finding::new(
                Code::BadValue,
                base.span,
                message,
                "name the scenario that it disproves",
            ));
            return None;
        }
        Err(bad) => {
            findings.push(Finding::new(bad.code, base.span, bad.message, bad.help));
            return None;
        }
    };
    let mut loads = Names::default();
    for load in &scenario.loads {
        loads.add(load.name.clone(), 0..0, findings);
    }
    let mut places = Places::default();
    let more = expects(&root, &loads, &mut places, findings);
    for (expect, place) in more.into_iter().zip(&places.expects) {
        if scenario.judges().any(|j| j == expect.name) {
            let message = format!("\"{}\" stands in the base already", shown(&expect.name));
            findings.push(Finding::new(
                Code::Duplicate,
                place.clone(),
                message,
                "give it another `name`",
            ));
        }
        scenario.expects.push(expect);
    }
    let Some(off) = root.table("off", &schema::OFF, schema::ALL, findings) else {
        let help = "add `[off]` with the `mechanism` and what `fails` without it";
        findings.push(Finding::new(
            Code::MissingKey,
            0..0,
            "`[off]` is missing at the top level",
            help,
        ));
        return None;
    };
    let mechanisms: Vec<_> = Mechanism::ALL.iter().map(|&(n, m, _)| (n, m)).collect();
    let mechanism = off.choice("mechanism", Need::Required, &mechanisms, findings);
    let judge = |text: &str| {
        if scenario.judges().any(|j| j == text) {
            return Ok(text.to_owned());
        }
        let help = match nearest(text, scenario.judges()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => {
                let known: Vec<_> = scenario.judges().map(|j| format!("\"{j}\"")).collect();
                format!("what can fail: {}", known.join(", "))
            }
        };
        let message = format!(
            "neither an expectation nor an oracle is called \"{}\"",
            shown(text)
        );
        Err(Bad::new(Code::BadValue, message, help))
    };
    let (fails, all) = off.list("fails", judge, findings);
    let (follows, _) = off.list("follows", judge, findings);
    if fails.is_empty() && all && off.has("fails") {
        let help = "name expectations or oracles that must fail: `fails = [\"broken == 0\"]`";
        empty_list(&off, "fails", help, findings);
    } else if fails.is_empty() && all {
        let help = "add `fails = [\"broken == 0\"]`: names of expectations or oracles that must fail";
        findings.push(Finding::new(
            Code::MissingKey,
            off.span.clone(),
            "`fails` is missing in [off]",
            help,
        ));
    }
    scenario.name = name?.value;
    scenario.number = number.or(scenario.number);
    scenario.description = description;
    let mechanism = mechanism?;
    scenario.off = Some(Off {
        mechanism: mechanism.value,
        fails: fails.into_iter().map(|f| f.value).collect(),
        follows: follows.into_iter().map(|f| f.value).collect(),
        base: base.value.to_owned(),
    });
    check::without_mechanism(&scenario, &mechanism.span, findings);
    Some(scenario)
}

/// Conns of each family that a node has room for, unless something else is said.
const TABLE: u32 = 65_536;

fn cluster(table: Option<&Table<'_, '_>>, places: &mut Places, findings: &mut Findings) -> Cluster {
    let mut cluster = Cluster {
        nodes: Vec::new(),
        clustered: true,
        local_addresses: 2,
        local_port_min: 1024,
        heartbeat: Duration::from_millis(100),
        advertisement: Duration::from_millis(100),
        join_time: Duration::from_secs(1),
        preempt: true,
        lsn_ring: None,
        ring: 1024,
    };
    let node = |id: u32, workers: u32, table: u32| Node {
        id: id as u16,
        workers: workers as u8,
        // The first one is the master unless something else is said.
        priority: 200 - 10 * id as u8,
        table,
        absent: false,
    };
    let Some(table) = table else {
        cluster.clustered = false;
        cluster.nodes.push(node(1, 1, TABLE));
        return cluster;
    };
    places.cluster = table.span.clone();
    places.local_addresses = table.span_of("local_addresses");
    let nodes = count(table, limits::NODES, findings).unwrap_or(1);
    let workers = count(table, limits::WORKERS, findings).unwrap_or(1);
    let conns = count(table, limits::TABLE, findings).unwrap_or(TABLE);
    cluster.nodes = (1..=nodes).map(|id| node(id, workers, conns)).collect();
    places.priorities = vec![table.span.clone(); nodes as usize];
    cluster.clustered = nodes > 1;
    let mut number = |limit, to: &mut u32| *to = count(table, limit, findings).unwrap_or(*to);
    number(limits::LOCAL_ADDRESSES, &mut cluster.local_addresses);
    let mut port_min = u32::from(cluster.local_port_min);
    number(limits::LOCAL_PORT_MIN, &mut port_min);
    cluster.local_port_min = port_min as u16;
    number(limits::RING, &mut cluster.ring);
    cluster.lsn_ring = count(table, limits::LSN_RING, findings);
    let mut time = |key, (min, max): (u64, u64), to: &mut Duration| {
        let parse = |text: &str| {
            let span = value::span(text)?;
            let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            if (min..=max).contains(&ms) && Duration::from_millis(ms) == span {
                return Ok(span);
            }
            let help = format!("write whole milliseconds from \"{min}ms\" to \"{max}ms\"");
            Err(Bad::new(
                Code::OutOfRange,
                format!("`{key}` cannot be \"{}\"", shown(text)),
                help,
            ))
        };
        *to = table
            .parsed(key, Need::Optional, parse, findings)
            .map_or(*to, |f| f.value);
    };
    time("heartbeat", limits::HEARTBEAT_MS, &mut cluster.heartbeat);
    time(
        "advertisement",
        limits::ADVERTISEMENT_MS,
        &mut cluster.advertisement,
    );
    time("join_time", limits::JOIN_TIME_MS, &mut cluster.join_time);
    let shortest = cluster.heartbeat * limits::JOIN_TIME_HEARTBEATS;
    if cluster.join_time < shortest {
        let message = format!("`join_time` is shorter than {}", value::show_span(shortest));
        let help = "a node must be able to hear that a peer is silent: four heartbeats at least";
        findings.push(Finding::new(
            Code::OutOfRange,
            table.span_of("join_time"),
            message,
            help,
        ));
    }
    if !cluster.advertisement.as_millis().is_multiple_of(10) {
        let help = "VRRP counts hundredths of a second: write \"100ms\" or another multiple of 10 ms";
        let span = table.span_of("advertisement");
        findings.push(Finding::new(
            Code::OutOfRange,
            span,
            "`advertisement` is no multiple of 10 ms",
            help,
        ));
    }
    let preempt = table.choice("preempt", Need::Optional, &SWITCH, findings);
    cluster.preempt = preempt.is_none_or(|p| p.value);
    let (exceptions, _) = table.tables("node", &schema::NODE, schema::ALL, findings);
    let mut seen = BTreeMap::new();
    for exception in &exceptions {
        let Some(id) = exception.integer("id", 1..=nodes, findings) else {
            if exception.span_of("id") == exception.span {
                let help = format!("add `id = 2`, one of the {nodes}");
                findings.push(Finding::new(
                    Code::MissingKey,
                    exception.span.clone(),
                    "`id` is missing in [[cluster.node]]",
                    help,
                ));
            }
            continue;
        };
        if let Some(first) = seen.insert(id.value, id.span.clone()) {
            let message = format!("node {} stands there twice", id.value);
            let finding = Finding::new(Code::Duplicate, id.span.clone(), message, "make one of both");
            findings.push(finding.label("the second one").other(first, "the first one"));
        }
        let workers = count(exception, limits::WORKERS, findings);
        let priority = count(exception, limits::PRIORITY, findings);
        let conns = count(exception, limits::TABLE, findings);
        let absent = exception.choice("absent", Need::Optional, &SWITCH, findings);
        if let Some(node) = cluster.nodes.get_mut(id.value as usize - 1) {
            node.workers = workers.map_or(node.workers, |w| w as u8);
            node.priority = priority.map_or(node.priority, |p| p as u8);
            node.table = conns.unwrap_or(node.table);
            node.absent = absent.is_some_and(|a| a.value);
            if let Some(place) = places.priorities.get_mut(id.value as usize - 1) {
                *place = exception.span_of("priority");
            }
        }
    }
    cluster
}

fn links(table: Option<Table<'_, '_>>, findings: &mut Findings) -> Links {
    let mut links = Links::default();
    let Some(table) = table else { return links };
    for (key, link) in [
        ("clients", &mut links.clients),
        ("servers", &mut links.servers),
        ("sync", &mut links.sync),
    ] {
        if let Some(table) = table.table(key, &schema::LINK, schema::ALL, findings) {
            *link = read_link(&table, findings);
        }
    }
    links
}

fn read_link(table: &Table<'_, '_>, findings: &mut Findings) -> Link {
    let default = Link::default();
    let delay = table.parsed("delay", Need::Optional, value::drawn, findings);
    let mut share = |key| {
        table
            .parsed(key, Need::Optional, value::share, findings)
            .map_or(0, |f| f.value)
    };
    let (loss_ppm, duplicate_ppm, reorder_ppm) = (share("loss"), share("duplicate"), share("reorder"));
    let bandwidth = table.parsed("bandwidth", Need::Optional, value::bandwidth, findings);
    Link {
        delay: delay.map_or(default.delay, |d| d.value),
        loss_ppm,
        duplicate_ppm,
        reorder_ppm,
        bandwidth: bandwidth.map_or(default.bandwidth, |b| b.value),
    }
}

const PROTOCOLS: [(&str, L4Proto); 2] = [("tcp", L4Proto::Tcp), ("udp", L4Proto::Udp)];
const REPLICATE: [(&str, Replicate); 3] = [
    ("off", Replicate::Off),
    ("established", Replicate::Established),
    ("synack", Replicate::SynAck),
];

fn services(root: &Table<'_, '_>, places: &mut Places, findings: &mut Findings) -> (Vec<Service>, Names) {
    let (tables, whole) = root.tables("service", &schema::SERVICE, schema::ALL, findings);
    if tables.is_empty() && whole {
        let help = "add a `[[service]]` with `name`, `vip` and `servers`";
        findings.push(Finding::new(Code::NoService, 0..0, "there is no service", help).label("in this file"));
    }
    let mut names = Names::default();
    let mut services = Vec::new();
    for table in &tables {
        let name = table.parsed("name", Need::Required, value::name, findings);
        let vip = table.parsed("vip", Need::Required, vip, findings);
        let proto = table.choice("protocol", Need::Optional, &PROTOCOLS, findings);
        let servers = count(table, limits::SERVERS, findings).unwrap_or(1);
        let replicate = table.choice("replicate", Need::Optional, &REPLICATE, findings);
        let established = established_timeout(table, proto.as_ref().map(|p| p.value), findings);
        let (Some(name), Some(vip)) = (name, vip) else {
            continue;
        };
        names.add(name.value.clone(), name.span, findings);
        places.services.push(vip.span);
        services.push(Service {
            name: name.value,
            vip: vip.value,
            proto: proto.map_or(L4Proto::Tcp, |p| p.value),
            servers,
            replicate: replicate.map_or(Replicate::SynAck, |r| r.value),
            established,
        });
    }
    (services, names)
}

/// An address and a port of a service.
fn vip(text: &str) -> Result<SocketAddr, Bad> {
    let vip = endpoint(text)?;
    if vip.port() == 0 {
        let message = format!("port 0 in \"{}\"", shown(text));
        return Err(Bad::new(Code::PortZero, message, "write a port from 1 to 65535"));
    }
    Ok(vip)
}

/// The timeout of a service's established conns; UDP has no such state.
fn established_timeout(
    table: &Table<'_, '_>,
    proto: Option<L4Proto>,
    findings: &mut Findings,
) -> Option<Duration> {
    const KEY: &str = "established_timeout";
    let written = span(table, KEY, Need::Optional, findings)?;
    let finding = if proto == Some(L4Proto::Udp) {
        let help = "leave it out: UDP has no established state";
        Finding::new(
            Code::NoEffect,
            written.span,
            format!("`{KEY}` of a UDP service"),
            help,
        )
    } else if written.value.is_zero() || written.value > TIMEOUT_MAX {
        let message = format!("`{KEY}` cannot be \"{}\"", value::show_span(written.value));
        let help = format!(
            "write more than \"0s\" and \"{}\" at most",
            value::show_span(TIMEOUT_MAX)
        );
        Finding::new(Code::OutOfRange, written.span, message, help)
    } else {
        return Some(written.value);
    };
    findings.push(finding);
    None
}

/// A list that is written, but holds nothing; what is left out is another thing.
fn empty_list(table: &Table<'_, '_>, key: &'static str, help: &str, findings: &mut Findings) {
    let message = format!("`{key}` is empty");
    findings.push(Finding::new(Code::BadValue, table.span_of(key), message, help));
}

const ENDS: [(&str, LoadEnd); 3] = [
    ("close", LoadEnd::Close),
    ("reset", LoadEnd::Reset),
    ("stay", LoadEnd::Stay),
];

fn loads(
    root: &Table<'_, '_>,
    services: &[Service],
    service_names: &Names,
    places: &mut Places,
    findings: &mut Findings,
) -> (Vec<Load>, Names) {
    let (tables, _) = root.tables("load", &schema::LOAD, schema::ALL, findings);
    let mut names = Names::default();
    let mut loads = Vec::new();
    for table in &tables {
        let name = table.parsed("name", Need::Required, value::name, findings);
        let (used, all) = table.list("services", |n| service_names.find(n, "service"), findings);
        if used.is_empty() && all && table.has("services") {
            let help = "name services, or leave `services` out: then it is all of them";
            empty_list(table, "services", help, findings);
        }
        let used: Vec<usize> = match used.is_empty() {
            true => (0..services.len()).collect(),
            false => used.into_iter().map(|u| u.value).collect(),
        };
        let flows = count(table, limits::FLOWS, findings);
        let rate = count(table, limits::RATE, findings);
        let start = table.parsed("start", Need::Optional, value::drawn, findings);
        let start = start.map_or(Duration::ZERO..=Duration::from_secs(1), |s| s.value);
        let arrival = match (flows, rate) {
            (Some(flows), None) => Some(Arrival::Flows(flows, start)),
            (None, Some(rate)) => Some(Arrival::Rate(rate, *start.start())),
            (Some(_), Some(_)) => {
                let help = "`flows` are so many in all, `rate` are so many a second: keep one of them";
                findings.push(Finding::new(
                    Code::NoEffect,
                    table.span_of("rate"),
                    "`flows` and `rate` in one load",
                    help,
                ));
                None
            }
            (None, None) => {
                if table.span_of("flows") == table.span && table.span_of("rate") == table.span {
                    let help = "add `flows = 1000` (in all) or `rate = 200` (a second)";
                    findings.push(Finding::new(
                        Code::MissingKey,
                        table.span.clone(),
                        "neither `flows` nor `rate` in [[load]]",
                        help,
                    ));
                }
                None
            }
        };
        let requests = count(table, limits::REQUESTS, findings);
        let request_bytes = count(table, limits::REQUEST_BYTES, findings).unwrap_or(200);
        let reply_bytes = count(table, limits::REPLY_BYTES, findings).unwrap_or(1_000);
        let every = table.parsed("every", Need::Optional, value::drawn, findings);
        let until = span(table, "until", Need::Optional, findings).map(|f| f.value);
        let end = table.choice("end", Need::Optional, &ENDS, findings);
        let give_up = span(table, "give_up", Need::Optional, findings).map(|f| f.value);
        let udp = used
            .iter()
            .filter_map(|&s| services.get(s))
            .any(|s| s.proto == L4Proto::Udp);
        for (key, bytes) in [("request_bytes", request_bytes), ("reply_bytes", reply_bytes)] {
            if udp && !(limits::DATAGRAM_MIN..=limits::DATAGRAM_MAX).contains(&bytes) {
                let message = format!("{bytes} bytes in a datagram");
                let help = format!(
                    "write `{key}` from {} to {}: one datagram",
                    limits::DATAGRAM_MIN,
                    limits::DATAGRAM_MAX
                );
                findings.push(Finding::new(Code::OutOfRange, table.span_of(key), message, help));
            }
        }
        let (Some(name), Some(arrival)) = (name, arrival) else {
            continue;
        };
        names.add(name.value.clone(), name.span, findings);
        places.loads.push(table.span_of("start"));
        loads.push(Load {
            name: name.value,
            services: used,
            arrival,
            requests,
            request_bytes,
            reply_bytes,
            every: every.map_or(Duration::from_secs(1)..=Duration::from_secs(1), |e| e.value),
            end: end.map_or(LoadEnd::Close, |e| e.value),
            until,
            give_up: give_up.unwrap_or(Duration::from_secs(30)),
        });
    }
    (loads, names)
}

/// What `do` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Do {
    Crash,
    Start,
    Pause,
    Resume,
    Drain,
    Cut,
    Heal,
    Disturb,
    Suppress,
    Queues,
    Look,
}

const ACTIONS: [(&str, Do); 11] = [
    ("crash", Do::Crash),
    ("start", Do::Start),
    ("pause", Do::Pause),
    ("resume", Do::Resume),
    ("drain", Do::Drain),
    ("cut", Do::Cut),
    ("heal", Do::Heal),
    ("disturb", Do::Disturb),
    ("suppress", Do::Suppress),
    ("queues", Do::Queues),
    ("look", Do::Look),
];

/// Keys that each action takes, beside `name`, `do`, `at` and `after`.
fn takes(action: Do) -> &'static [&'static str] {
    match action {
        Do::Crash => &["node", "for"],
        Do::Pause => &["node", "for", "clock"],
        Do::Start | Do::Resume | Do::Drain => &["node"],
        Do::Cut => &["node", "for", "network", "way"],
        Do::Heal => &["node", "network"],
        Do::Disturb => &[
            "node",
            "for",
            "network",
            "way",
            "loss",
            "duplicate",
            "copies",
            "reorder",
            "reorder_by",
        ],
        Do::Suppress => &["node", "to", "for", "kinds", "frames"],
        Do::Queues => &["node", "for", "entries"],
        Do::Look => &[],
    }
}

const NETWORKS: [(&str, Network); 4] = [
    ("clients", Network::Clients),
    ("servers", Network::Servers),
    ("sync", Network::Sync),
    ("all", Network::All),
];
const WAYS: [(&str, Way); 3] = [("both", Way::Both), ("in", Way::In), ("out", Way::Out)];

fn faults(root: &Table<'_, '_>, places: &mut Places, findings: &mut Findings) -> Vec<Fault> {
    let (tables, _) = root.tables("fault", &schema::FAULT, schema::ALL, findings);
    if let Some(first) = tables.get(FAULT_COUNT_MAX) {
        let message = format!("more than {FAULT_COUNT_MAX} faults");
        findings.push(Finding::new(
            Code::TooMany,
            first.span.clone(),
            message,
            "leave the others out",
        ));
        return Vec::new();
    }
    let mut names = Names::default();
    let mut faults = Vec::new();
    for (i, table) in tables.iter().enumerate() {
        let action = table.choice("do", Need::Required, &ACTIONS, findings);
        let name = table.parsed("name", Need::Optional, value::name, findings);
        let at = table.parsed("at", Need::Optional, value::drawn, findings);
        let after = table.parsed("after", Need::Optional, |n| names.find(n, "fault"), findings);
        let lasts = table.parsed("for", Need::Optional, value::drawn, findings);
        if table.span_of("at") == table.span && table.span_of("after") == table.span {
            let help = "add `at = \"20s..30s\"`, a time in the run, or `after`, another fault's name";
            findings.push(Finding::new(
                Code::MissingKey,
                table.span.clone(),
                "neither `at` nor `after` in [[fault]]",
                help,
            ));
        }
        let Some(action) = action else { continue };
        let word = ACTIONS.iter().find(|a| a.1 == action.value).map_or("", |a| a.0);
        for key in schema::FAULT.keys.iter().map(|k| k.0) {
            let general = matches!(key, "name" | "do" | "at" | "after");
            let span = table.span_of(key);
            if !general && span != table.span && !takes(action.value).contains(&key) {
                let message = format!("`{key}` has no effect on \"{word}\"");
                let known: Vec<_> = takes(action.value).iter().map(|k| format!("`{k}`")).collect();
                let known = if known.is_empty() {
                    "nothing but `at`, `after` and `name`".into()
                } else {
                    known.join(", ")
                };
                let help = format!("\"{word}\" takes {known}");
                findings.push(Finding::new(Code::NoEffect, span, message, help));
            }
        }
        let mut used = Vec::new();
        let Some(read) = read_action(table, action.value, &mut used, findings) else {
            continue;
        };
        let name = match name {
            Some(name) => {
                names.add(name.value.clone(), name.span, findings);
                name.value
            }
            None => {
                let generated = format!("{word}-{}", i + 1);
                names.add(generated.clone(), table.span.clone(), findings);
                generated
            }
        };
        places.faults.push((
            table.span.clone(),
            table.span_of("at"),
            table.span_of("for"),
            used,
        ));
        faults.push(Fault {
            name,
            at: at.map_or(Duration::ZERO..=Duration::ZERO, |a| a.value),
            after: after.map(|a| a.value),
            lasts: lasts.map(|l| l.value),
            action: read,
        });
    }
    faults
}

fn read_action(
    table: &Table<'_, '_>,
    action: Do,
    used: &mut Vec<(NodeRef, Span)>,
    findings: &mut Findings,
) -> Option<Action> {
    if action == Do::Look {
        return Some(Action::Look);
    }
    let need = if action == Do::Suppress {
        Need::Optional
    } else {
        Need::Required
    };
    let node = table.parsed("node", need, value::node, findings);
    let to = (action == Do::Suppress)
        .then(|| table.parsed("to", Need::Optional, value::node, findings))
        .flatten();
    used.extend(node.iter().chain(&to).map(|f| (f.value, f.span.clone())));
    if let (Some(from), Some(to)) = (&node, &to)
        && from.value == to.value
    {
        let finding = Finding::new(
            Code::NoEffect,
            to.span.clone(),
            "a node sends nothing to itself",
            "name another node in `to`, or leave it out: then it is all others",
        );
        findings.push(finding);
    }
    let network = |need, findings: &mut Findings| {
        table
            .choice("network", need, &NETWORKS, findings)
            .map(|n| n.value)
    };
    let way = |findings: &mut Findings| {
        table
            .choice("way", Need::Optional, &WAYS, findings)
            .map_or(Way::Both, |w| w.value)
    };
    Some(match action {
        Do::Crash => Action::Crash(node?.value),
        Do::Start => Action::Start(node?.value),
        Do::Pause => {
            let clock = table.choice("clock", Need::Optional, &SWITCH, findings);
            Action::Pause(node?.value, clock.is_none_or(|c| c.value))
        }
        Do::Resume => Action::Resume(node?.value),
        Do::Drain => Action::Drain(node?.value),
        Do::Cut => {
            let (network, way) = (network(Need::Required, findings), way(findings));
            Action::Cut(node?.value, network?, way)
        }
        Do::Heal => {
            let network = network(Need::Required, findings);
            Action::Heal(node?.value, network?)
        }
        Do::Disturb => {
            let (network, way) = (network(Need::Required, findings), way(findings));
            let mut share = |key| {
                table
                    .parsed(key, Need::Optional, value::share, findings)
                    .map_or(0, |f| f.value)
            };
            let (loss_ppm, duplicate_ppm, reorder_ppm) =
                (share("loss"), share("duplicate"), share("reorder"));
            let copies = count(table, limits::COPIES, findings).unwrap_or(1) as u8;
            let reorder_by = span(table, "reorder_by", Need::Optional, findings);
            if loss_ppm + duplicate_ppm + reorder_ppm == 0 {
                let help = "add `loss`, `duplicate` or `reorder`, such as `loss = \"1%\"`";
                findings.push(Finding::new(
                    Code::MissingKey,
                    table.span.clone(),
                    "a disturbance that disturbs nothing",
                    help,
                ));
            }
            let cuts = loss_ppm == 1_000_000 && duplicate_ppm + reorder_ppm == 0;
            if way != Way::Both && !cuts {
                let help =
                    "leave `way` out, or write `loss = \"100%\"` alone: other disturbances meet both ways";
                let message = "a disturbance of one `way` only";
                findings.push(Finding::new(Code::NoEffect, table.span_of("way"), message, help));
            }
            let disturbance = Disturbance {
                loss_ppm,
                duplicate_ppm,
                copies,
                reorder_ppm,
                reorder_by: reorder_by.map_or(Duration::from_millis(5), |r| r.value),
            };
            Action::Disturb(node?.value, network?, way, disturbance)
        }
        Do::Suppress => {
            let kind = |text: &str| {
                let found = Kind::ALL.iter().find(|k| k.0 == text).map(|k| k.1);
                found.ok_or_else(|| {
                    let known: Vec<_> = Kind::ALL.iter().map(|k| k.0).collect();
                    let help = match nearest(text, known.iter().copied()) {
                        Some(meant) => format!("did you mean \"{meant}\"?"),
                        None => format!("kinds: {}", known.join(", ")),
                    };
                    Bad::new(
                        Code::BadValue,
                        format!("no message is called \"{}\"", shown(text)),
                        help,
                    )
                })
            };
            let (kinds, all) = table.list("kinds", kind, findings);
            if kinds.is_empty() && all && table.has("kinds") {
                let help = "name the messages that do not arrive: `kinds = [\"close\"]`";
                empty_list(table, "kinds", help, findings);
            } else if kinds.is_empty() && all {
                let help = "add `kinds = [\"close\"]`";
                findings.push(Finding::new(
                    Code::MissingKey,
                    table.span.clone(),
                    "`kinds` is missing in [[fault]]",
                    help,
                ));
            }
            Action::Suppress {
                from: node.map(|n| n.value),
                to: to.map(|n| n.value),
                kinds: kinds.into_iter().map(|k| k.value).collect(),
                frames: count(table, limits::FRAMES, findings),
            }
        }
        Do::Queues => {
            let entries = count(table, limits::ENTRIES, findings).unwrap_or(1);
            Action::Queues(node?.value, entries)
        }
        Do::Look => Action::Look,
    })
}

fn expects(
    root: &Table<'_, '_>,
    loads: &Names,
    places: &mut Places,
    findings: &mut Findings,
) -> Vec<Expectation> {
    let (tables, whole) = root.tables("expect", &schema::EXPECT, schema::ALL, findings);
    places.no_expect = tables.is_empty() && whole;
    let mut names = Names::default();
    let mut expects = Vec::new();
    for table in &tables {
        let that = table.string("that", Need::Required, findings);
        let name = table.string("name", Need::Optional, findings);
        let of = table.parsed("of", Need::Optional, |n| loads.find(n, "load"), findings);
        let Some(that) = that else { continue };
        let comparison = match expect::parse(that.value) {
            Ok(comparison) => comparison,
            Err(bad) => {
                findings.push(Finding::new(bad.code, that.span, bad.message, bad.help));
                continue;
            }
        };
        let of = of.map(|o| o.value);
        let name = match (&name, of) {
            (Some(name), _) => name.value.to_owned(),
            (None, None) => that.value.to_owned(),
            (None, Some(_)) => {
                let load = table
                    .string("of", Need::Optional, findings)
                    .map_or("", |l| l.value);
                format!("{} of {load}", that.value)
            }
        };
        if crate::oracle::NAMES.iter().any(|o| o.0 == name) {
            let message = format!("an oracle is called \"{}\"", shown(&name));
            findings.push(Finding::new(
                Code::Duplicate,
                that.span.clone(),
                message,
                "give it another `name`",
            ));
        }
        names.add(name.clone(), that.span.clone(), findings);
        places.expects.push(that.span);
        expects.push(Expectation {
            name,
            text: that.value.to_owned(),
            comparison,
            of,
        });
    }
    expects
}
