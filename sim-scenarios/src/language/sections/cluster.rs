//! `[cluster]` and `[links]`.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_control::reading::{Finding, Findings, Need, Table, shown};
use evenkeel_control::{Bad, Code};
use evenkeel_core::lport::BUCKET_COUNT_DEFAULT;
use evenkeel_core::sync::codec::FORMAT_VERSION;

use super::fault::link;
use super::{Places, SWITCH, count};
use crate::language::{limits, schema, value};
use crate::scenario::{Cluster, Link, Links, Node};

/// What a frame costs a worker, unless something else is said.
const FRAME_COST: Duration = Duration::from_nanos(200);
/// Conns of each family that a node has room for, unless something else is said.
const TABLE: u32 = 65_536;

pub(super) fn cluster(
    table: Option<&Table<'_, '_>>,
    places: &mut Places,
    findings: &mut Findings,
) -> Cluster {
    let mut cluster = Cluster {
        nodes: Vec::new(),
        clustered: true,
        buckets: BUCKET_COUNT_DEFAULT,
        local_addresses: 2,
        local_port_min: 1024,
        heartbeat: Duration::from_millis(100),
        advertisement: Duration::from_millis(100),
        join_time: Duration::from_secs(1),
        bulk_delay: Duration::ZERO,
        preempt: true,
        lsn_ring: None,
        ring: 1024,
        sealed: false,
        digests: true,
    };
    let node = |id: u32, workers: u32, table: u32| Node {
        id: id as u16,
        workers: workers as u8,
        // The first one is the master unless something else is said.
        priority: 200 - 10 * id as u8,
        table,
        frame_cost: FRAME_COST,
        drift_ppm: 0..=0,
        format: FORMAT_VERSION,
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
    let cost = frame_cost(table, findings);
    let drift = table.parsed("drift", Need::Optional, value::drawn_ppm, findings);
    for node in &mut cluster.nodes {
        node.frame_cost = cost.unwrap_or(node.frame_cost);
        node.drift_ppm = drift.as_ref().map_or(0..=0, |d| d.value.clone());
    }
    places.priorities = vec![table.span.clone(); nodes as usize];
    cluster.clustered = nodes > 1;
    let mut number = |limit, to: &mut u32| *to = count(table, limit, findings).unwrap_or(*to);
    number(limits::LOCAL_ADDRESSES, &mut cluster.local_addresses);
    let mut buckets = u32::from(cluster.buckets);
    number(limits::BUCKETS, &mut buckets);
    cluster.buckets = buckets as u16;
    let mut port_min = u32::from(cluster.local_port_min);
    number(limits::LOCAL_PORT_MIN, &mut port_min);
    cluster.local_port_min = port_min as u16;
    number(limits::RING, &mut cluster.ring);
    cluster.lsn_ring = count(table, limits::LSN_RING, findings);
    if !cluster.buckets.is_power_of_two() {
        let message = format!("`buckets` cannot be {buckets}");
        let help = "a bucket is the low bits of a hash: write a power of two, 64 for example";
        findings.push(Finding::new(
            Code::OutOfRange,
            table.span_of("buckets"),
            message,
            help,
        ));
    }
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
    time("bulk_delay", limits::BULK_DELAY_MS, &mut cluster.bulk_delay);
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
    let sealed = table.choice("sealed", Need::Optional, &SWITCH, findings);
    cluster.sealed = sealed.is_some_and(|s| s.value);
    let digests = table.choice("digests", Need::Optional, &SWITCH, findings);
    cluster.digests = digests.is_none_or(|d| d.value);
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
        let cost = frame_cost(exception, findings);
        let drift = exception.parsed("drift", Need::Optional, value::drawn_ppm, findings);
        let format = count(exception, limits::FORMAT, findings);
        let absent = exception.choice("absent", Need::Optional, &SWITCH, findings);
        if let Some(node) = cluster.nodes.get_mut(id.value as usize - 1) {
            node.workers = workers.map_or(node.workers, |w| w as u8);
            node.priority = priority.map_or(node.priority, |p| p as u8);
            node.table = conns.unwrap_or(node.table);
            node.frame_cost = cost.unwrap_or(node.frame_cost);
            node.drift_ppm = drift.map_or(node.drift_ppm.clone(), |d| d.value);
            node.format = format.map_or(node.format, |f| f as u8);
            node.absent = absent.is_some_and(|a| a.value);
            if let Some(place) = places.priorities.get_mut(id.value as usize - 1) {
                *place = exception.span_of("priority");
            }
        }
    }
    cluster
}

/// What a frame costs a worker.
fn frame_cost(table: &Table<'_, '_>, findings: &mut Findings) -> Option<Duration> {
    let (_, max) = limits::FRAME_COST_NS;
    let parse = |text: &str| {
        let cost = value::span(text)?;
        if cost <= Duration::from_nanos(max) {
            return Ok(cost);
        }
        let longest = value::show_span(Duration::from_nanos(max));
        Err(Bad::new(
            Code::OutOfRange,
            format!("a frame cannot cost \"{}\"", shown(text)),
            format!("\"{longest}\" at most: \"200ns\" is what an engine on a fast core takes"),
        ))
    };
    let cost = table.parsed("frame_cost", Need::Optional, parse, findings);
    cost.map(|c| c.value)
}

pub(super) fn links(table: Option<Table<'_, '_>>, places: &mut Places, findings: &mut Findings) -> Links {
    let mut links = Links::default();
    let Some(table) = table else { return links };
    for (n, (key, link)) in [
        ("clients", &mut links.clients),
        ("servers", &mut links.servers),
        ("sync", &mut links.sync),
    ]
    .into_iter()
    .enumerate()
    {
        if let Some(table) = table.table(key, &schema::LINK, schema::ALL, findings) {
            *link = read_link(&table, findings);
            places.vlans[n] = table.span_of("vlan");
            if key == "sync" && link.mtu.is_some() {
                let message = "`mtu` of the sync network";
                let help = "leave it out: frames between nodes that are longer than a datagram go over TCP, which makes them as short as it takes";
                findings.push(Finding::new(Code::NoEffect, table.span_of("mtu"), message, help));
            }
        }
    }
    let (delays, _) = table.list("delays", delay, findings);
    for read in delays {
        let (name, delay) = read.value;
        if links.delays.insert(name.clone(), delay).is_some() {
            let message = format!("the delay of {name} stands there twice");
            findings.push(Finding::new(
                Code::Duplicate,
                read.span.clone(),
                message,
                "leave one of both out",
            ));
        }
        places.delays.push((name, read.span));
    }
    links
}

/// `"client0 50us"`.
fn delay(text: &str) -> Result<(String, Duration), Bad> {
    let Some((name, span)) = text.split_once(' ') else {
        let message = format!("\"{}\" is not the delay of a link", shown(text));
        let help = "write the link's name and a span, such as \"client0 50us\" or \"node1-sync 2ms\"";
        return Err(Bad::new(Code::BadValue, message, help));
    };
    let (name, span) = (value::name(name)?, value::span(span)?);
    if span > limits::ADDED_DELAY_MAX {
        let message = format!("the delay of {name} cannot be \"{}\"", value::show_span(span));
        let help = format!("write \"{}\" at most", value::show_span(limits::ADDED_DELAY_MAX));
        return Err(Bad::new(Code::OutOfRange, message, help));
    }
    Ok((name, span))
}

fn read_link(table: &Table<'_, '_>, findings: &mut Findings) -> Link {
    let default = Link::default();
    let delay = table.parsed("delay", Need::Optional, value::drawn, findings);
    if let Some(delay) = &delay
        && *delay.value.end() > limits::ADDED_DELAY_MAX
    {
        let message = format!("`delay` cannot be \"{}\"", value::show_span(*delay.value.end()));
        let help = format!("write \"{}\" at most", value::show_span(limits::ADDED_DELAY_MAX));
        findings.push(Finding::new(Code::OutOfRange, delay.span.clone(), message, help));
    }
    let keys = ["loss", "duplicate", "reorder", "corrupt"];
    let shares = keys.map(|key| link::share(table, key, findings));
    let burst = link::burst(table, shares[0], findings);
    let [loss_ppm, duplicate_ppm, reorder_ppm, corrupt_ppm] = shares.map(Option::unwrap_or_default);
    let mtu = count(table, limits::MTU, findings);
    let vlan = count(table, limits::VLAN, findings);
    let bandwidth = table.parsed("bandwidth", Need::Optional, value::bandwidth, findings);
    Link {
        delay: delay.map_or(default.delay, |d| d.value),
        loss_ppm,
        burst,
        duplicate_ppm,
        reorder_ppm,
        corrupt_ppm,
        mtu: mtu.map(|mtu| mtu as u16),
        vlan: vlan.map(|vlan| vlan as u16),
        bandwidth: bandwidth.map_or(default.bandwidth, |b| b.value),
    }
}
