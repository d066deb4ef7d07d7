//! The sections of a config: from the tree to plain data, with the place of every part.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use evenkeel_core::conn::{CONN_COUNT_MAX, TableSizes};
use evenkeel_core::lport::BUCKET_COUNT_DEFAULT;
use evenkeel_core::port::PortId;
use evenkeel_core::proto::{ConnState, Timeouts};
use evenkeel_core::sched::SchedulerKind;
use evenkeel_core::service::{
    FwdMode, NeighbourSpec, PORT_COUNT_MAX, PortSpec, RealServerId, Replicate, RouteSpec, ServerSpec,
    ServiceId, ServiceSpec, SnapshotSpec, WEIGHT_MAX,
};
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::wire::MacAddr;
use toml::de::DeTable;

use crate::WORKER_COUNT_MAX;
use crate::cluster::{self, ClusterDraft};
use crate::daemon::{self, DaemonConfig};
use crate::health::{self, HealthConfig};
use crate::io::{self, DeviceDraft, IoConfig};
use crate::problem::{Code, Finding, Findings, Span, shown};
use crate::read::{Field, Key, Need, Schema, Table, list, nearest};
use crate::value::{self, Bad};

/// Smallest MTU of an IPv4 link (RFC 791, section 3.2); core knows IPv6's.
const MTU_MIN: u32 = 68;

/// Longest name of an interface or a service.
const NAME_LEN_MAX: usize = 64;

pub(crate) static ROOT: Schema = Schema {
    title: "",
    keys: &[
        Key("workers", "2"),
        Key("table", "[table]"),
        Key("rss", "[rss]"),
        Key("local_ports", "[local_ports]"),
        Key("io", "[io]"),
        Key("daemon", "[daemon]"),
        Key("timeouts", "[timeouts]"),
        Key("cluster", "[cluster]"),
        Key("port", "[[port]]"),
        Key("route", "[[route]]"),
        Key("neighbour", "[[neighbour]]"),
        Key("service", "[[service]]"),
    ],
};
static TABLE: Schema = Schema {
    title: "[table]",
    keys: &[
        Key("conns_v4", "65536"),
        Key("conns_v6", "16384"),
        Key("extensions", "5120"),
    ],
};
static RSS: Schema = Schema {
    title: "[rss]",
    keys: &[Key("key", "\"microsoft\""), Key("buckets", "64")],
};
static LOCAL_PORTS: Schema = Schema {
    title: "[local_ports]",
    keys: &[Key("min", "1024")],
};
static TIMEOUTS: Schema = Schema {
    title: "[timeouts]",
    keys: &[Key("tcp", "[timeouts.tcp]"), Key("udp", "[timeouts.udp]")],
};
static TIMEOUTS_TCP: Schema = Schema {
    title: "[timeouts.tcp]",
    keys: &[
        Key("none", "\"2s\""),
        Key("established", "\"90s\""),
        Key("syn_sent", "\"3s\""),
        Key("syn_recv", "\"30s\""),
        Key("fin_wait", "\"7s\""),
        Key("time_wait", "\"7s\""),
        Key("close", "\"3s\""),
        Key("close_wait", "\"7s\""),
        Key("last_ack", "\"7s\""),
        Key("listen", "\"2m\""),
        Key("synack", "\"30s\""),
    ],
};
static TIMEOUTS_UDP: Schema = Schema {
    title: "[timeouts.udp]",
    keys: &[Key("one_way", "\"5m\""), Key("normal", "\"5m\"")],
};
static PORT: Schema = Schema {
    title: "[[port]]",
    keys: &[
        Key("name", "\"clients\""),
        Key("device", "\"eth1\""),
        Key("tap", "\"ek0\""),
        Key("mac", "\"02:00:00:00:00:01\""),
        Key("addresses", "[\"10.0.0.2/24\", \"2001:db8::2/64\"]"),
        Key("mtu", "1500"),
    ],
};
static ROUTE: Schema = Schema {
    title: "[[route]]",
    keys: &[
        Key("to", "\"0.0.0.0/0\""),
        Key("via", "\"10.0.0.1\""),
        Key("port", "\"clients\""),
    ],
};
static NEIGHBOUR: Schema = Schema {
    title: "[[neighbour]]",
    keys: &[
        Key("address", "\"10.0.0.1\""),
        Key("mac", "\"02:00:00:00:00:fe\""),
        Key("port", "\"clients\""),
    ],
};
static SERVICE: Schema = Schema {
    title: "[[service]]",
    keys: &[
        Key("name", "\"web\""),
        Key("vip", "\"192.0.2.80:80\""),
        Key("protocol", "\"tcp\""),
        Key("scheduler", "\"rr\""),
        Key("mode", "\"fullnat\""),
        Key("replicate", "\"synack\""),
        Key("local_addresses", "[\"10.0.0.10\"]"),
        Key("timeouts", "[service.timeouts]"),
        Key("health", "[service.health]"),
        Key("server", "[[service.server]]"),
    ],
};
static SERVER: Schema = Schema {
    title: "[[service.server]]",
    keys: &[Key("address", "\"198.51.100.11:80\""), Key("weight", "1")],
};

/// Every table of the language, for keys that stand in the wrong one.
pub(crate) static ALL: &[&Schema] = &[
    &ROOT,
    &TABLE,
    &RSS,
    &LOCAL_PORTS,
    &io::IO,
    &io::DPDK,
    &daemon::DAEMON,
    &daemon::LOG,
    &TIMEOUTS,
    &TIMEOUTS_TCP,
    &TIMEOUTS_UDP,
    &PORT,
    &ROUTE,
    &NEIGHBOUR,
    &SERVICE,
    &health::HEALTH,
    &SERVER,
    &cluster::CLUSTER,
    &cluster::VRRP,
    &cluster::NODE,
    &cluster::NODE_PORT,
];

/// The keys of `[timeouts.tcp]`.
pub(crate) const TCP_STATES: [(&str, ConnState); 11] = [
    ("none", ConnState::None),
    ("established", ConnState::Established),
    ("syn_sent", ConnState::SynSent),
    ("syn_recv", ConnState::SynRecv),
    ("fin_wait", ConnState::FinWait),
    ("time_wait", ConnState::TimeWait),
    ("close", ConnState::Close),
    ("close_wait", ConnState::CloseWait),
    ("last_ack", ConnState::LastAck),
    ("listen", ConnState::Listen),
    ("synack", ConnState::SynAck),
];

/// The keys of `[timeouts.udp]`.
pub(crate) const UDP_STATES: [(&str, ConnState); 2] = [
    ("one_way", ConnState::UdpOneWay),
    ("normal", ConnState::UdpNormal),
];

/// A config as it was read. What could not be read has its default, or is left out of `spec`: findings
/// say so.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) workers: Field<u8>,
    pub(crate) sizes: TableSizes,
    pub(crate) conns_v4: Span,
    pub(crate) conns_v6: Span,
    pub(crate) rss_key: Field<Vec<u8>>,
    pub(crate) buckets: Field<u16>,
    pub(crate) local_port_min: Field<u16>,
    pub(crate) spec: SnapshotSpec,
    pub(crate) cluster: Option<ClusterDraft>,
    pub(crate) io: IoConfig,
    pub(crate) daemon: DaemonConfig,
    /// Index by index of `spec.services`.
    pub(crate) health: Vec<Option<HealthConfig>>,
    /// Index by index what `spec` holds.
    pub(crate) places: Places,
}

#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) ports: Vec<PortPlace>,
    pub(crate) services: Vec<ServicePlace>,
    pub(crate) routes: Vec<RoutePlace>,
    pub(crate) neighbours: Vec<NeighbourPlace>,
    pub(crate) peer_locals: Vec<Span>,
}

#[derive(Debug)]
pub(crate) struct PortPlace {
    pub(crate) whole: Span,
    pub(crate) name: Span,
    pub(crate) mac: Span,
    pub(crate) mtu: Span,
    pub(crate) addresses: Vec<Span>,
}

#[derive(Debug)]
pub(crate) struct RoutePlace {
    pub(crate) to: Span,
    pub(crate) via: Span,
    pub(crate) port: Span,
}

#[derive(Debug)]
pub(crate) struct NeighbourPlace {
    pub(crate) address: Span,
    pub(crate) mac: Span,
    pub(crate) port: Span,
}

#[derive(Debug)]
pub(crate) struct ServicePlace {
    pub(crate) whole: Span,
    pub(crate) vip: Span,
    pub(crate) local_addresses: Span,
    pub(crate) locals: Vec<Span>,
    pub(crate) servers: Vec<ServerPlace>,
    /// The VIP is a stand-in: VIP or protocol could not be read.
    pub(crate) vip_unread: bool,
    /// There are local addresses that could not be read.
    pub(crate) locals_unread: bool,
    /// The local addresses are those of the node's share.
    pub(crate) from_share: bool,
    /// There are servers that could not be read.
    pub(crate) servers_unread: bool,
}

#[derive(Debug)]
pub(crate) struct ServerPlace {
    pub(crate) address: Span,
    pub(crate) weight: Span,
}

/// Reads all sections, for this `node` of the cluster.
pub(crate) fn draft(tree: &DeTable<'_>, node: Option<&str>, findings: &mut Findings) -> Draft {
    let root = Table::new(&ROOT, ALL, 0..0, tree, findings);
    let sub = |name, schema, findings: &mut Findings| root.table(name, schema, ALL, findings);

    let workers = root.integer("workers", 1..=u32::from(WORKER_COUNT_MAX), findings);
    let worker_count = match (&workers, root.has("workers")) {
        (None, true) => None,
        (workers, _) => Some(workers.as_ref().map_or(1, |w| w.value)),
    };
    let worker_count = worker_count.and_then(|w| u8::try_from(w).ok());
    let workers = narrow(workers, 1, root.span_of("workers"));
    let table = sub("table", &TABLE, findings);
    let rss = sub("rss", &RSS, findings);
    let local_ports = sub("local_ports", &LOCAL_PORTS, findings);
    let timeouts = sub("timeouts", &TIMEOUTS, findings);

    let mut count = |name, default| {
        let n = table
            .as_ref()
            .and_then(|t| t.integer(name, 0..=CONN_COUNT_MAX, findings));
        n.map_or(default, |n| n.value)
    };
    let (conns_v4, conns_v6) = (count("conns_v4", 65_536), count("conns_v6", 16_384));
    let default_exts = conns_v4.saturating_add(conns_v6).div_ceil(16).min(CONN_COUNT_MAX);
    let sizes = TableSizes {
        conns_v4,
        conns_v6,
        exts: count("extensions", default_exts),
    };
    let span_in = |table: &Option<Table<'_, '_>>, name| table.as_ref().map_or(0..0, |t| t.span_of(name));

    let key = rss
        .as_ref()
        .and_then(|t| t.parsed("key", Need::Optional, value::rss_key, findings));
    let rss_key = key.unwrap_or(Field {
        value: evenkeel_core::hash::MICROSOFT_KEY.to_vec(),
        span: span_in(&rss, "key"),
    });
    let buckets = rss
        .as_ref()
        .and_then(|t| t.integer("buckets", 0..=u32::from(u16::MAX), findings));
    let buckets = narrow(buckets, BUCKET_COUNT_DEFAULT, span_in(&rss, "buckets"));
    let min = local_ports
        .as_ref()
        .and_then(|t| t.integer("min", 1..=u32::from(u16::MAX), findings));
    let local_port_min = narrow(min, 1024, span_in(&local_ports, "min"));
    let base = timeouts.map_or_else(Timeouts::default, |t| {
        read_timeouts(&t, Timeouts::default(), None, findings)
    });

    let mut draft = Draft {
        workers,
        sizes,
        conns_v4: span_in(&table, "conns_v4"),
        conns_v6: span_in(&table, "conns_v6"),
        rss_key,
        buckets,
        local_port_min,
        spec: SnapshotSpec::default(),
        cluster: cluster::read(&root, node, findings),
        io: IoConfig::default(),
        daemon: daemon::read(&root, findings),
        health: Vec::new(),
        places: Places::default(),
    };
    let (ports, devices) = draft.ports(&root, findings);
    draft.io = io::read(&root, worker_count, devices, findings);
    draft.routes(&root, &ports, findings);
    draft.neighbours(&root, &ports, findings);
    if let Some(cluster) = &mut draft.cluster {
        cluster.find_ports(&ports, findings);
    }
    let (services, whole) = root.tables("service", &SERVICE, ALL, findings);
    if services.is_empty() && whole {
        let help = "add a `[[service]]` with `name`, `vip`, `protocol`, `local_addresses` and a `[[service.server]]`";
        findings.push(
            Finding::new(Code::NoService, 0..0, "there is no virtual service", help).label("in this file"),
        );
    }
    let mut names = Names::default();
    for service in &services {
        draft.service(service, base, &mut names, findings);
    }
    draft.peers();
    draft
}

/// `field`, whose range is within `T`, or its default.
fn narrow<T: TryFrom<u32>>(field: Option<Field<u32>>, default: T, span: Span) -> Field<T> {
    let value = field.and_then(|f| T::try_from(f.value).ok()).unwrap_or(default);
    Field { value, span }
}

/// Names that were read, to find the second one.
#[derive(Default)]
pub(crate) struct Names(BTreeMap<String, Span>);

impl Names {
    pub(crate) fn read(&mut self, table: &Table<'_, '_>, findings: &mut Findings) -> Option<Field<String>> {
        let name = table.parsed("name", Need::Required, name, findings)?;
        if let Some(first) = self.0.get(&name.value) {
            let message = format!("the name \"{}\" stands there twice", name.value);
            let finding = Finding::new(
                Code::Duplicate,
                name.span.clone(),
                message,
                "give one of them another name",
            );
            findings.push(
                finding
                    .label("the second one")
                    .other(first.clone(), "the first one"),
            );
        } else {
            self.0.insert(name.value.clone(), name.span.clone());
        }
        Some(name)
    }
}

pub(crate) fn name(text: &str) -> Result<String, Bad> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !text.is_empty() && text.len() <= NAME_LEN_MAX && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Bad::new(
        Code::BadValue,
        format!("\"{}\" is not a name", shown(text)),
        format!("1 to {NAME_LEN_MAX} letters (a to z), digits, dots, hyphens and underscores"),
    ))
}

/// `[timeouts]`, or `[service.timeouts]` of a service of `proto`, over `base`.
fn read_timeouts(
    table: &Table<'_, '_>,
    base: Timeouts,
    proto: Option<L4Proto>,
    findings: &mut Findings,
) -> Timeouts {
    let mut timeouts = base;
    let parts: [(_, _, _, &[(&'static str, ConnState)]); 2] = [
        ("tcp", &TIMEOUTS_TCP, L4Proto::Tcp, &TCP_STATES),
        ("udp", &TIMEOUTS_UDP, L4Proto::Udp, &UDP_STATES),
    ];
    for (part, schema, of, states) in parts {
        let Some(table) = table.table(part, schema, ALL, findings) else {
            continue;
        };
        if let Some(proto) = proto.filter(|&p| p != of) {
            let message = format!("{of} timeouts of a {proto} service");
            let help = format!("remove them, or write `[service.timeouts.{proto}]`");
            findings.push(Finding::new(Code::NoEffect, table.span.clone(), message, help).label("no effect"));
        }
        for &(name, state) in states {
            let Some(timeout) = table.duration(name, findings) else {
                continue;
            };
            if !timeouts.set(state, timeout.value) {
                let value = value::show_duration(timeout.value);
                let message = format!("`{name}` is out of range: {value}");
                let max = value::show_duration(evenkeel_core::proto::TIMEOUT_MAX);
                let help = format!("a timeout is 1ms to {max}");
                findings
                    .push(Finding::new(Code::OutOfRange, timeout.span, message, help).label("out of range"));
            }
        }
    }
    timeouts
}

impl Draft {
    fn ports(&mut self, root: &Table<'_, '_>, findings: &mut Findings) -> (PortNames, Vec<DeviceDraft>) {
        let (ports, whole) = root.tables("port", &PORT, ALL, findings);
        if ports.is_empty() && whole {
            let help = "add a `[[port]]` with `name`, `mac` and `addresses`";
            findings.push(Finding::new(Code::NoPort, 0..0, "there is no port", help).label("in this file"));
        }
        let mut known = PortNames {
            ids: BTreeMap::new(),
            unread: !whole,
        };
        let mut devices = Vec::new();
        for (i, port) in ports.iter().enumerate() {
            let name = port.parsed("name", Need::Required, name, findings);
            // What the node's own entry in the cluster says counts instead of what stands here.
            let of_name = |c: &ClusterDraft| name.as_ref().map(|n| c.port(&n.value));
            let own = self.cluster.as_ref().and_then(of_name).unwrap_or_default();
            let need = if own.mac_elsewhere {
                Need::Optional
            } else {
                Need::Required
            };
            let mac = port.parsed("mac", need, value::mac, findings);
            let (addresses, _) = port.list("addresses", value::prefix, findings);
            let mac_place = own
                .mac
                .as_ref()
                .map_or_else(|| port.span_of("mac"), |m| m.span.clone());
            let mac = own.mac.or(mac);
            let addresses = own.addresses.unwrap_or(addresses);
            devices.push(own.device.over(DeviceDraft::read(port, findings)));
            let mtu = port.integer("mtu", MTU_MIN..=u32::from(u16::MAX), findings);
            match (&name, u16::try_from(i)) {
                (Some(name), Ok(id)) => {
                    known.ids.entry(name.value.clone()).or_insert(PortId(id));
                }
                _ => known.unread = true,
            }
            self.spec.ports.push(PortSpec {
                // No name has a question mark: the stand-in is nobody's duplicate.
                name: name.map_or_else(|| format!("?{i}"), |n| n.value),
                mac: mac.as_ref().map_or(MacAddr([2, 0, 0, 0, 0, 1]), |m| m.value),
                addresses: addresses.iter().map(|a| a.value).collect(),
                mtu: mtu.and_then(|m| u16::try_from(m.value).ok()),
            });
            self.places.ports.push(PortPlace {
                whole: port.span.clone(),
                name: port.span_of("name"),
                mac: mac_place,
                mtu: port.span_of("mtu"),
                addresses: addresses.into_iter().map(|a| a.span).collect(),
            });
        }
        (known, devices)
    }

    fn routes(&mut self, root: &Table<'_, '_>, ports: &PortNames, findings: &mut Findings) {
        let (routes, _) = root.tables("route", &ROUTE, ALL, findings);
        for route in &routes {
            let to = route.parsed("to", Need::Required, value::prefix, findings);
            let via = route.parsed("via", Need::Optional, value::address, findings);
            let port = read_port(route, ports, findings);
            let Some(to) = to else { continue };
            let (addr, len) = to.value;
            let prefix = value::network(addr, len);
            let max = if addr.is_ipv4() { 32 } else { 128 };
            if prefix != addr && len <= max {
                let message = format!("{addr}/{len} has host bits set");
                let help = format!("write \"{prefix}/{len}\" for the network, \"{addr}/{max}\" for the host");
                findings.push(Finding::new(Code::HostBits, to.span.clone(), message, help));
            }
            // A port that could not be found is reported: any other will do for the checks that follow.
            if port.is_none() && self.spec.ports.is_empty() {
                continue;
            }
            let port = port.unwrap_or(PortId(0));
            self.spec.routes.push(RouteSpec {
                prefix,
                len,
                via: via.map(|v| v.value),
                port,
            });
            let (via, port) = (route.span_of("via"), route.span_of("port"));
            self.places.routes.push(RoutePlace {
                to: to.span,
                via,
                port,
            });
        }
    }

    fn neighbours(&mut self, root: &Table<'_, '_>, ports: &PortNames, findings: &mut Findings) {
        let (neighbours, _) = root.tables("neighbour", &NEIGHBOUR, ALL, findings);
        for neighbour in &neighbours {
            let address = neighbour.parsed("address", Need::Required, value::address, findings);
            let mac = neighbour.parsed("mac", Need::Required, value::mac, findings);
            let port = read_port(neighbour, ports, findings);
            let (Some(address), Some(mac), Some(port)) = (address, mac, port) else {
                continue;
            };
            self.spec.neighbours.push(NeighbourSpec {
                addr: address.value,
                mac: mac.value,
                port,
            });
            let port = neighbour.span_of("port");
            self.places.neighbours.push(NeighbourPlace {
                address: address.span,
                mac: mac.span,
                port,
            });
        }
    }

    fn service(&mut self, table: &Table<'_, '_>, base: Timeouts, names: &mut Names, findings: &mut Findings) {
        let index = self.spec.services.len();
        let name = names.read(table, findings);
        let vip = table.parsed("vip", Need::Required, value::endpoint, findings);
        let protocols = [("tcp", L4Proto::Tcp), ("udp", L4Proto::Udp)];
        let proto = table.choice("protocol", Need::Required, &protocols, findings);
        let schedulers = [
            ("rr", SchedulerKind::RoundRobin),
            ("wrr", SchedulerKind::WeightedRoundRobin),
        ];
        let scheduler = table.choice("scheduler", Need::Optional, &schedulers, findings);
        let mode = table.choice("mode", Need::Optional, &[("fullnat", FwdMode::FullNat)], findings);
        let replicate = table.parsed("replicate", Need::Optional, value::replicate, findings);
        let (locals, locals_read) = table.list("local_addresses", value::address, findings);
        let timeouts = table.table("timeouts", &TIMEOUTS, ALL, findings);
        let timeouts = timeouts.map_or(base, |t| {
            read_timeouts(&t, base, proto.as_ref().map(|p| p.value), findings)
        });
        let health = table.table("health", &health::HEALTH, ALL, findings);
        self.health.push(health.and_then(|t| health::read(&t, findings)));
        let (tables, tables_read) = table.tables("server", &SERVER, ALL, findings);
        let mut servers = Vec::new();
        let mut places = Vec::new();
        for server in &tables {
            let address = server.parsed("address", Need::Required, value::endpoint, findings);
            let weight = server.integer("weight", 0..=u32::from(WEIGHT_MAX), findings);
            let weight = narrow(weight, 1, server.span_of("weight"));
            let Some(address) = address else { continue };
            servers.push(ServerSpec {
                id: RealServerId(0),
                addr: address.value.ip(),
                port: address.value.port(),
                weight: weight.value,
            });
            places.push(ServerPlace {
                address: address.span,
                weight: weight.span,
            });
        }
        let share = self.cluster.as_ref().filter(|_| !table.has("local_addresses"));
        let from_share = share.is_some();
        let locals = match share {
            Some(cluster) => cluster.own_locals(servers.iter().map(|s: &ServerSpec| s.addr)),
            None => locals,
        };
        self.places.services.push(ServicePlace {
            whole: table.span.clone(),
            vip: table.span_of("vip"),
            local_addresses: table.span_of("local_addresses"),
            locals: locals.iter().map(|l| l.span.clone()).collect(),
            vip_unread: vip.is_none() || proto.is_none(),
            locals_unread: !locals_read,
            from_share,
            servers_unread: !tables_read || servers.len() != tables.len(),
            servers: places,
        });
        let known = vip.filter(|_| proto.is_some());
        let vip = known.map_or_else(|| stand_in(index), |v| v.value);
        self.spec.services.push(ServiceSpec {
            id: ServiceId(0),
            name: name.map_or_else(String::new, |n| n.value),
            proto: proto.map_or(L4Proto::Tcp, |p| p.value),
            vip: vip.ip(),
            port: vip.port(),
            scheduler: scheduler.map_or_else(SchedulerKind::default, |s| s.value),
            mode: mode.map_or_else(FwdMode::default, |m| m.value),
            local_addrs: locals.iter().map(|l| l.value).collect(),
            timeouts,
            replicate: replicate.map_or_else(Replicate::default, |r| r.value),
            servers,
        });
    }
}

impl Draft {
    /// The local addresses of the other nodes.
    fn peers(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        for local in cluster.peer_locals() {
            self.spec.peer_local_addrs.push(local.value);
            self.places.peer_locals.push(local.span.clone());
        }
    }
}

/// A VIP for a service whose own could not be read, so that the rest of it can be checked: from the
/// discard-only prefix 100::/64 (RFC 6666), which no VIP is in.
pub(crate) fn stand_in(index: usize) -> SocketAddr {
    SocketAddr::new(
        IpAddr::V6(((0x0100 << 112) | (index as u128 & 0xffff_ffff)).into()),
        1,
    )
}

/// The ports by name.
pub(crate) struct PortNames {
    ids: BTreeMap<String, PortId>,
    /// There are ports whose name could not be read: an unknown name may be theirs.
    unread: bool,
}

fn read_port(table: &Table<'_, '_>, ports: &PortNames, findings: &mut Findings) -> Option<PortId> {
    let name = table.string("port", Need::Required, findings)?;
    ports.find(name.value, name.span, findings)
}

impl PortNames {
    /// The port `name`, which stands at `span`; or a finding.
    pub(crate) fn find(&self, name: &str, span: Span, findings: &mut Findings) -> Option<PortId> {
        let id = self.ids.get(name).copied();
        if id.is_none() && !self.unread {
            let names = || self.ids.keys().take(PORT_COUNT_MAX).map(String::as_str);
            let known = list(names().map(|n| format!("\"{n}\"")), "and");
            let help = match nearest(name, names()) {
                Some(meant) => format!("did you mean \"{meant}\"? Ports are {known}"),
                None if known.is_empty() => "add a `[[port]]` with this name".into(),
                None => format!("add a `[[port]]` with this name; there are {known}"),
            };
            let message = format!("there is no port \"{}\"", shown(name));
            findings.push(Finding::new(Code::UnknownPort, span, message, help).label("not a port"));
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    const DOCS: &str = include_str!("../../docs/config.md");

    /// The rows of the table under the heading of `schema`.
    fn rows(schema: &Schema) -> Vec<&'static str> {
        let title = if schema.title.is_empty() {
            "Top level"
        } else {
            schema.title
        };
        let heading = format!(
            "### {}",
            if schema.title.is_empty() {
                title.into()
            } else {
                format!("`{title}`")
            }
        );
        let section = DOCS
            .split(&heading)
            .nth(1)
            .unwrap_or_else(|| panic!("no heading {heading}"));
        let section = section.split("\n#").next().expect("a section");
        section.lines().filter(|l| l.starts_with("| `")).collect()
    }

    #[test]
    fn every_key_has_its_row_in_the_docs_and_no_other_has() {
        for schema in ALL {
            let keys: Vec<_> = schema.keys.iter().map(|k| format!("| `{}` |", k.0)).collect();
            let rows = rows(schema);
            assert_eq!(rows.len(), keys.len(), "{}", schema.title);
            for (row, key) in rows.iter().zip(&keys) {
                assert!(row.starts_with(key), "{}: {row} is not about {key}", schema.title);
            }
        }
    }

    #[test]
    fn every_code_is_in_the_docs() {
        for code in Code::ALL {
            let name = code.as_str().strip_prefix("evenkeel::config::").expect("prefix");
            assert!(DOCS.contains(&format!("\n| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn the_first_config_of_the_docs_is_right() {
        let text = DOCS
            .split("```toml\n")
            .nth(1)
            .and_then(|t| t.split("```").next())
            .expect("a config");
        let config = crate::parse("docs/config.md", text).expect("right");
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }

    #[test]
    fn defaults_of_timeouts_in_the_docs_are_the_engines() {
        let defaults = Timeouts::default();
        for (schema, states) in [(&TIMEOUTS_TCP, &TCP_STATES[..]), (&TIMEOUTS_UDP, &UDP_STATES[..])] {
            for (row, &(name, state)) in rows(schema).iter().zip(states) {
                let default = row
                    .split('|')
                    .nth(2)
                    .expect("a column")
                    .trim()
                    .trim_matches('`')
                    .trim_matches('"');
                let default = value::duration(default).unwrap_or_else(|b| panic!("{name}: {b:?}"));
                assert_eq!(default.as_millis(), u128::from(defaults.ms(state)), "{name}");
            }
        }
    }
}
