//! From the tree to plain data, with the place of every part.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evenkeel_core::cluster::{HEARTBEAT_RANGE, JOIN_TIME_MAX};
use evenkeel_core::port::PortId;
use evenkeel_core::sync::seal::SECRET_COUNT_MAX;
use evenkeel_core::tuple::Family;
use evenkeel_core::wire::MacAddr;

use super::Trust;
use crate::daemon::path;
use crate::io::DeviceDraft;
use crate::problem::{Code, Finding, Findings, Span, shown};
use crate::read::{Field, Key, Need, Schema, Table, list, nearest};
use crate::sections::{ALL, Names, PortNames, name};
use crate::value::{self, Bad};

pub(crate) static CLUSTER: Schema = Schema {
    title: "[cluster]",
    keys: &[
        Key("id", "1"),
        Key("this_node", "\"lb1\""),
        Key("heartbeat", "\"100ms\""),
        Key("down_count", "3"),
        Key("lease_margin", "\"50ms\""),
        Key("join_time", "\"1s\""),
        Key("secrets", "[\"/etc/evenkeel/secret\"]"),
        Key("insecure", "true"),
        Key("announce", "[\"servers\"]"),
        Key("vrrp", "[cluster.vrrp]"),
        Key("node", "[[cluster.node]]"),
    ],
};
pub(crate) static VRRP: Schema = Schema {
    title: "[cluster.vrrp]",
    keys: &[
        Key("vrid", "51"),
        Key("port", "\"clients\""),
        Key("interval", "\"100ms\""),
        Key("preempt", "true"),
    ],
};
pub(crate) static NODE: Schema = Schema {
    title: "[[cluster.node]]",
    keys: &[
        Key("id", "1"),
        Key("name", "\"lb1\""),
        Key("priority", "100"),
        Key("sync", "\"10.255.0.1:4790\""),
        Key("local_addresses", "[\"10.0.0.10\"]"),
        Key("vrrp_source_v4", "\"10.0.0.2\""),
        Key("vrrp_source_v6", "\"fe80::2\""),
        Key("port", "[[cluster.node.port]]"),
    ],
};
pub(crate) static NODE_PORT: Schema = Schema {
    title: "[[cluster.node.port]]",
    keys: &[
        Key("name", "\"clients\""),
        Key("device", "\"eth1\""),
        Key("tap", "\"ek0\""),
        Key("mac", "\"02:00:00:00:00:01\""),
        Key("addresses", "[\"10.0.0.2/24\", \"2001:db8::2/64\"]"),
    ],
};

/// Longest path of a file.
const PATH_LEN_MAX: usize = 4096;
/// What is not written.
const HEARTBEAT: Duration = Duration::from_millis(100);
const DOWN_COUNT: u32 = 3;
const JOIN_TIME: Duration = Duration::from_secs(1);
const PRIORITY: u8 = 100;
const INTERVAL_CS: u16 = 10;
/// Advertisements count time in these (RFC 9568, 5.2.7), and have 12 bits for it.
const CENTISECOND_MS: u128 = 10;
const INTERVAL_CS_MAX: u16 = 4095;

/// The section as it was read. What could not be read has its default or is `None`: findings say so.
#[derive(Debug)]
pub(crate) struct ClusterDraft {
    pub(super) span: Span,
    pub(super) id: u32,
    /// Index of the own node.
    pub(super) this: Option<usize>,
    pub(super) this_place: Span,
    pub(super) heartbeat: Field<Duration>,
    pub(super) down_count: Field<u32>,
    pub(super) lease_margin: Field<Duration>,
    pub(super) join_time: Field<Duration>,
    /// Names of ports; `None`: those on whose links local addresses lie.
    announce: Option<Vec<Field<String>>>,
    /// The ports of `announce` that there are.
    pub(super) announce_ports: Option<Vec<Field<PortId>>>,
    pub(super) announce_place: Span,
    /// `None`: it could not be read.
    pub(super) trust: Option<Trust>,
    pub(super) vrrp: Option<VrrpDraft>,
    /// There is a `[cluster.vrrp]`, whether or not it could be read.
    pub(super) vrrp_written: bool,
    pub(super) nodes: Vec<NodeDraft>,
}

#[derive(Debug)]
pub(super) struct VrrpDraft {
    pub(super) span: Span,
    pub(super) vrid: Option<Field<u8>>,
    port_name: Option<Field<String>>,
    pub(super) port: Option<PortId>,
    pub(super) interval_cs: Field<u16>,
    pub(super) preempt: bool,
}

#[derive(Debug)]
pub(super) struct NodeDraft {
    pub(super) span: Span,
    pub(super) id: Option<Field<u16>>,
    pub(super) name: Option<Field<String>>,
    pub(super) priority: Field<u8>,
    pub(super) sync: Option<Field<SocketAddr>>,
    pub(super) locals: Vec<Field<IpAddr>>,
    pub(super) locals_place: Span,
    pub(super) locals_unread: bool,
    pub(super) source_v4: Option<Field<IpAddr>>,
    pub(super) source_v6: Option<Field<IpAddr>>,
    /// By family, IPv4 first: there is a source, whether or not it could be read.
    pub(super) source_written: [bool; 2],
    ports: Vec<NodePort>,
}

impl NodeDraft {
    /// As reports call it.
    pub(super) fn shown(&self) -> String {
        match (&self.name, &self.id) {
            (Some(name), _) => format!("\"{}\"", name.value),
            (None, Some(id)) => format!("node {}", id.value),
            (None, None) => "a node".into(),
        }
    }

    pub(super) fn source(&self, family: Family) -> Option<&Field<IpAddr>> {
        match family {
            Family::V4 => self.source_v4.as_ref(),
            Family::V6 => self.source_v6.as_ref(),
        }
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &Field<IpAddr>> {
        self.source_v4.iter().chain(&self.source_v6)
    }
}

/// What a node has on a port of its own.
#[derive(Debug)]
struct NodePort {
    name: Option<Field<String>>,
    mac: Option<Field<MacAddr>>,
    mac_written: bool,
    addresses: Option<Vec<Field<(IpAddr, u8)>>>,
    device: DeviceDraft,
}

/// What the own node's entry says of a port.
#[derive(Default)]
pub(crate) struct OwnPort {
    pub(crate) mac: Option<Field<MacAddr>>,
    pub(crate) addresses: Option<Vec<Field<(IpAddr, u8)>>>,
    /// The address of the interface stands with the node, or may do.
    pub(crate) mac_elsewhere: bool,
    pub(crate) device: DeviceDraft,
}

impl ClusterDraft {
    /// What the own node's entry says of the port `name`.
    pub(crate) fn port(&self, name: &str) -> OwnPort {
        let is = |p: &&NodePort| p.name.as_ref().is_some_and(|n| n.value == name);
        let Some(node) = self.own() else {
            // Whose the port is cannot be told.
            let mac_elsewhere = self.nodes.iter().any(|n| n.ports.iter().any(|p| is(&p)));
            return OwnPort {
                mac_elsewhere,
                ..OwnPort::default()
            };
        };
        let unread = node.ports.iter().any(|p| p.name.is_none());
        let Some(port) = node.ports.iter().find(is) else {
            return OwnPort {
                mac_elsewhere: unread,
                ..OwnPort::default()
            };
        };
        OwnPort {
            mac: port.mac.clone(),
            addresses: port.addresses.clone(),
            mac_elsewhere: port.mac_written,
            device: port.device.clone(),
        }
    }

    pub(super) fn own(&self) -> Option<&NodeDraft> {
        self.nodes.get(self.this?)
    }

    /// The own share's addresses of the families of `servers`.
    pub(crate) fn own_locals(&self, servers: impl Iterator<Item = IpAddr>) -> Vec<Field<IpAddr>> {
        let families: Vec<Family> = servers.map(|a| Family::of(&a)).collect();
        let locals = self.own().into_iter().flat_map(|n| &n.locals);
        locals
            .filter(|l| families.contains(&Family::of(&l.value)))
            .cloned()
            .collect()
    }

    /// The local addresses of the other nodes; none if it is not known which they are.
    pub(crate) fn peer_locals(&self) -> impl Iterator<Item = &Field<IpAddr>> {
        let nodes = self.nodes.iter().enumerate();
        let peers = nodes.filter(|(i, _)| self.this.is_some_and(|this| this != *i));
        peers.flat_map(|(_, n)| &n.locals)
    }

    /// Looks up the ports that are named here.
    pub(crate) fn find_ports(&mut self, ports: &PortNames, findings: &mut Findings) {
        let find = |name: &Field<String>, findings: &mut Findings| {
            ports.find(&name.value, name.span.clone(), findings)
        };
        if let Some(vrrp) = &mut self.vrrp {
            vrrp.port = vrrp.port_name.as_ref().and_then(|n| find(n, findings));
        }
        if let Some(names) = &self.announce {
            let mut seen = BTreeMap::new();
            let mut found: Vec<Field<PortId>> = Vec::new();
            for name in names {
                let Some(value) = find(name, findings) else {
                    continue;
                };
                if let Some(first) = seen.insert(value, name.span.clone()) {
                    findings.push(twice("port", &name.value, name.span.clone(), first));
                    continue;
                }
                let span = name.span.clone();
                found.push(Field { value, span });
            }
            self.announce_ports = Some(found);
        }
        for name in self
            .nodes
            .iter()
            .flat_map(|n| &n.ports)
            .filter_map(|p| p.name.as_ref())
        {
            find(name, findings);
        }
    }
}

/// The second one of two.
pub(super) fn twice(what: &str, name: &str, span: Span, first: Span) -> Finding {
    let message = format!("the {what} \"{}\" stands there twice", shown(name));
    Finding::new(Code::Duplicate, span, message, "keep one of them")
        .label("the second one")
        .other(first, "the first one")
}

/// Reads the section, if there is one. `as_node` is who the caller says that this node is.
pub(crate) fn read(
    root: &Table<'_, '_>,
    as_node: Option<&str>,
    findings: &mut Findings,
) -> Option<ClusterDraft> {
    let Some(table) = root.table("cluster", &CLUSTER, ALL, findings) else {
        if let (Some(node), false) = (as_node, root.has("cluster")) {
            let message = format!("\"{}\" is to be this node, but there is no cluster", shown(node));
            let help = "add a `[cluster]` with its nodes, or do not say which one this is";
            findings.push(Finding::new(Code::UnknownNode, 0..0, message, help).label("in this file"));
        }
        return None;
    };
    let id = table.required_integer("id", 1..=u32::MAX, findings);
    let mut time = |name, min, max| table.duration_in(name, min..=max, findings).map(|t| t.value);
    let heartbeat = time("heartbeat", HEARTBEAT_RANGE.0, HEARTBEAT_RANGE.1).unwrap_or(HEARTBEAT);
    let margin = time("lease_margin", Duration::ZERO, HEARTBEAT_RANGE.1 * 100);
    let join_time = time("join_time", HEARTBEAT_RANGE.0, JOIN_TIME_MAX);
    let down_count = table
        .integer("down_count", 2..=100, findings)
        .map_or(DOWN_COUNT, |n| n.value);
    // A default is never what is wrong.
    let join_time = join_time.unwrap_or_else(|| JOIN_TIME.max(heartbeat * (down_count + 1)));
    let (announce, _) = table.list("announce", name, findings);
    let vrrp = table.table("vrrp", &VRRP, ALL, findings);
    let vrrp = vrrp.map(|t| read_vrrp(&t, findings));
    let (tables, whole) = table.tables("node", &NODE, ALL, findings);
    if tables.is_empty() && whole {
        let help =
            "add a `[[cluster.node]]` for each of them, with `id`, `name`, `sync` and `local_addresses`";
        let finding = Finding::new(
            Code::MissingKey,
            table.span.clone(),
            "a cluster without nodes",
            help,
        );
        findings.push(finding.label("of this one"));
    }
    let mut names = Names::default();
    let nodes: Vec<_> = tables
        .iter()
        .map(|t| read_node(t, &mut names, findings))
        .collect();
    let this = this_node(&table, as_node, &nodes, whole, findings);
    let field = |value, name| Field {
        value,
        span: table.span_of(name),
    };
    Some(ClusterDraft {
        span: table.span.clone(),
        id: id.map_or(1, |n| n.value),
        this,
        this_place: table.span_of("this_node"),
        heartbeat: field(heartbeat, "heartbeat"),
        down_count: Field {
            value: down_count,
            span: table.span_of("down_count"),
        },
        lease_margin: field(margin.unwrap_or(heartbeat / 2), "lease_margin"),
        join_time: field(join_time, "join_time"),
        announce: table.has("announce").then_some(announce),
        announce_ports: None,
        announce_place: table.span_of("announce"),
        trust: read_trust(&table, findings),
        vrrp,
        vrrp_written: table.has("vrrp"),
        nodes,
    })
}

/// Frames are sealed, or it is said that they are not: nobody forgets it.
fn read_trust(table: &Table<'_, '_>, findings: &mut Findings) -> Option<Trust> {
    let insecure = table.boolean("insecure", findings);
    let file = |text: &str| path(text, PATH_LEN_MAX, "/etc/evenkeel/secret");
    let (files, whole) = table.list("secrets", file, findings);
    let mut wrong = |code, name: &'static str, message: String, help: &str| {
        findings.push(Finding::new(code, table.span_of(name), message, help));
        None
    };
    if !whole || table.has("insecure") && insecure.is_none() {
        return None;
    }
    let is_insecure = insecure.is_some_and(|i| i.value);
    match (is_insecure, table.has("secrets")) {
        (true, false) => return Some(Trust::Insecure),
        (true, true) => {
            let help = "keep `secrets`: then frames are sealed; or `insecure = true`, where nobody else can reach this network";
            let message = "`insecure = true` beside `secrets`".to_owned();
            return wrong(Code::NoEffect, "insecure", message, help);
        }
        (false, false) => {
            let help = "make one with `evenkeel secret new /etc/evenkeel/secret`, give the same file to every node, and add \
                        `secrets = [\"/etc/evenkeel/secret\"]`; or `insecure = true`, if nobody else can reach this network";
            let message =
                "`secrets` are missing in [cluster]: nodes would believe whoever can send to them".to_owned();
            return wrong(Code::MissingKey, "secrets", message, help);
        }
        (false, true) => {}
    }
    if files.is_empty() || files.len() > SECRET_COUNT_MAX {
        let message = format!("`secrets` has {} files", files.len());
        let help = "name the file that all nodes have; and a second one while it is changed for another one";
        return wrong(Code::OutOfRange, "secrets", message, help);
    }
    for (i, file) in files.iter().enumerate() {
        if let Some(first) = files[..i].iter().find(|f| f.value == file.value) {
            let shown = file.value.display().to_string();
            findings.push(twice("file", &shown, file.span.clone(), first.span.clone()));
            return None;
        }
    }
    Some(Trust::Secrets(files.into_iter().map(|f| f.value).collect()))
}

fn read_vrrp(table: &Table<'_, '_>, findings: &mut Findings) -> VrrpDraft {
    let vrid = table.required_integer("vrid", 1..=255, findings);
    let port_name = table.parsed("port", Need::Required, name, findings);
    let max = Duration::from_millis(10 * u64::from(INTERVAL_CS_MAX));
    let interval = table.duration_in("interval", Duration::from_millis(10)..=max, findings);
    let centiseconds = interval.map(|i| i.value).and_then(|time| {
        let ms = time.as_millis();
        if !ms.is_multiple_of(CENTISECOND_MS) {
            let rounded = ms.next_multiple_of(CENTISECOND_MS);
            let message = format!("`interval` cannot be {}", value::show_duration(time));
            let help = format!("advertisements count time in steps of 10ms: write \"{rounded}ms\"");
            let span = table.span_of("interval");
            findings
                .push(Finding::new(Code::BadDuration, span, message, help).label("not a multiple of 10ms"));
            return None;
        }
        u16::try_from(ms / CENTISECOND_MS).ok()
    });
    let preempt = table.boolean("preempt", findings);
    VrrpDraft {
        span: table.span.clone(),
        vrid: vrid.and_then(|n| {
            let value = u8::try_from(n.value).ok()?;
            Some(Field { value, span: n.span })
        }),
        port_name,
        port: None,
        interval_cs: Field {
            value: centiseconds.unwrap_or(INTERVAL_CS),
            span: table.span_of("interval"),
        },
        preempt: preempt.is_none_or(|p| p.value),
    }
}

fn read_node(table: &Table<'_, '_>, names: &mut Names, findings: &mut Findings) -> NodeDraft {
    let id = table.required_integer("id", 1..=u32::from(u16::MAX), findings);
    let name = names.read(table, findings);
    let priority = table.integer("priority", 1..=254, findings);
    let priority = priority.and_then(|p| u8::try_from(p.value).ok());
    let sync = table.parsed("sync", Need::Required, value::endpoint, findings);
    let (locals, all_read) = table.list("local_addresses", value::address, findings);
    let source_v4 = table.parsed(
        "vrrp_source_v4",
        Need::Optional,
        |t| source(t, Family::V4),
        findings,
    );
    let source_v6 = table.parsed(
        "vrrp_source_v6",
        Need::Optional,
        |t| source(t, Family::V6),
        findings,
    );
    let (tables, _) = table.tables("port", &NODE_PORT, ALL, findings);
    let mut port_names = Names::default();
    let ports = tables.iter().map(|t| {
        let name = port_names.read(t, findings);
        let mac = t.parsed("mac", Need::Optional, value::mac, findings);
        let (addresses, _) = t.list("addresses", value::prefix, findings);
        NodePort {
            name,
            device: DeviceDraft::read(t, findings),
            mac,
            mac_written: t.has("mac"),
            addresses: t.has("addresses").then_some(addresses),
        }
    });
    NodeDraft {
        span: table.span.clone(),
        id: id.and_then(|n| {
            let value = u16::try_from(n.value).ok()?;
            Some(Field { value, span: n.span })
        }),
        name,
        priority: Field {
            value: priority.unwrap_or(PRIORITY),
            span: table.span_of("priority"),
        },
        sync,
        locals_place: table.span_of("local_addresses"),
        locals_unread: !all_read,
        ports: ports.collect(),
        locals,
        source_v4,
        source_v6,
        source_written: ["vrrp_source_v4", "vrrp_source_v6"].map(|name| table.has(name)),
    }
}

/// The source of advertisements of one family. Those of IPv6 come from link-local addresses (RFC 9568, 5.1.2.1).
fn source(text: &str, family: Family) -> Result<IpAddr, Bad> {
    let addr = value::address(text)?;
    if Family::of(&addr) != family {
        let message = format!("{addr} is not an {family} address");
        let help = match family {
            Family::V4 => "write an IPv4 address, or `vrrp_source_v6` if this is the source of IPv6",
            Family::V6 => {
                "write a link-local IPv6 address, or `vrrp_source_v4` if this is the source of IPv4"
            }
        };
        return Err(Bad::new(Code::WrongFamily, message, help));
    }
    match addr {
        IpAddr::V6(a) if !a.is_unicast_link_local() && !a.is_unspecified() && !a.is_multicast() => {
            Err(Bad::new(
                Code::BadAddress,
                format!("{addr} is not a link-local address"),
                "advertisements over IPv6 come from the link-local address of the interface: write it, such as \"fe80::2\"",
            ))
        }
        _ => Ok(addr),
    }
}

/// Which of `nodes` this one is: by name or, if none is called so, by number.
fn this_node(
    table: &Table<'_, '_>,
    as_node: Option<&str>,
    nodes: &[NodeDraft],
    whole: bool,
    findings: &mut Findings,
) -> Option<usize> {
    let names = || {
        let names = nodes.iter().filter_map(|n| n.name.as_ref());
        names.map(|n| n.value.as_str())
    };
    let known = list(names().take(16).map(|n| format!("\"{n}\"")), "and");
    let written = table.string("this_node", Need::Optional, findings);
    let wanted = match (as_node, &written) {
        (Some(node), _) => node,
        (None, Some(field)) => field.value,
        (None, None) if table.has("this_node") => return None,
        (None, None) => {
            let help = match names().next() {
                Some(name) => {
                    format!("add `this_node = \"{name}\"`, or say it with `--node`; nodes are {known}")
                }
                None => "add `this_node = \"lb1\"`, or say it with `--node`".into(),
            };
            let message = "`this_node` is missing in [cluster]";
            let finding = Finding::new(Code::MissingKey, table.span.clone(), message, help);
            findings.push(finding.label("of this one"));
            return None;
        }
    };
    let is = |n: &NodeDraft| n.name.as_ref().is_some_and(|name| name.value == wanted);
    let by_name = nodes.iter().position(is);
    let number = wanted.parse::<u16>().ok();
    let has = |n: &NodeDraft| n.id.as_ref().is_some_and(|id| Some(id.value) == number);
    if let Some(this) = by_name.or_else(|| nodes.iter().position(has)) {
        return Some(this);
    }
    // One that could not be read may be this one; no nodes at all are reported.
    let unread = nodes.iter().any(|n| n.name.is_none() || n.id.is_none());
    if unread || !whole || nodes.is_empty() {
        return None;
    }
    let help = match nearest(wanted, names()) {
        Some(meant) => format!("did you mean \"{meant}\"? Nodes are {known}"),
        None => format!("add a `[[cluster.node]]` with this name; there are {known}"),
    };
    let message = format!("the cluster has no node \"{}\"", shown(wanted));
    let span = match as_node {
        Some(_) => table.span.clone(),
        None => table.span_of("this_node"),
    };
    findings.push(Finding::new(Code::UnknownNode, span, message, help).label("not a node"));
    None
}
