//! All that is counted, for Prometheus. Units are seconds and bytes; labels are names of the config, numbers of workers
//! and words of closed lists, and never what a client can choose.

use std::collections::BTreeMap;
use std::fmt;

use evenkeel_core::cluster::Role;
use evenkeel_core::conn::TableUse;
use evenkeel_core::service::{RealServer, ServiceId, VirtualService};
use evenkeel_core::stats::Counters;
use evenkeel_core::sync::Readiness;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::ask::ServiceView;
use super::gather::*;
use crate::ports::PortView;

/// The form of OpenMetrics, which Prometheus asks for.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older form, for all others.
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// A metric with all its series.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    help: &'static str,
    series: Series,
}

#[derive(Debug)]
enum Series {
    Counters(Vec<(Labels, u64)>),
    Gauges(Vec<(Labels, f64)>),
}

#[derive(Debug, Default)]
struct Page(Vec<Metric>);

impl Page {
    fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let series = Series::Counters(series.into_iter().collect());
        self.0.push(Metric { name, help, series });
    }

    fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let series = Series::Gauges(series.into_iter().collect());
        self.0.push(Metric { name, help, series });
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.gauges(name, help, [(Vec::new(), value)]);
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.0 {
            let kind = match &metric.series {
                Series::Counters(_) => MetricType::Counter,
                Series::Gauges(_) => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            match &metric.series {
                Series::Counters(series) => {
                    for (labels, value) in series {
                        let mut one = family.encode_family(labels)?;
                        one.encode_counter::<NoLabelSet, _, u64>(value, None)?;
                    }
                }
                Series::Gauges(series) => {
                    for (labels, value) in series {
                        family.encode_family(labels)?.encode_gauge(value)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The whole text, in the form of OpenMetrics or in the older one.
pub(super) fn text(
    known: &Known,
    gathered: &Gathered,
    services: &BTreeMap<ServiceId, ServiceView>,
    seconds: f64,
    open_metrics: bool,
) -> Option<String> {
    let mut registry = Registry::with_prefix("evenkeel");
    let mut page = page(known, gathered, seconds);
    health(&mut page, gathered, services);
    registry.register_collector(Box::new(page));
    let mut text = String::new();
    encode(&mut text, &registry).ok()?;
    Some(if open_metrics { text } else { older(&text) })
}

/// OpenMetrics names a counter without its `_total`, the older form with it; and it has no end.
fn older(text: &str) -> String {
    let counters: std::collections::BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut out = String::with_capacity(text.len() + 64 * counters.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let rest = line
            .strip_prefix("# HELP ")
            .or_else(|| line.strip_prefix("# TYPE "));
        match rest.and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) if counters.contains(name) => {
                let word = line.get(..7).unwrap_or_default();
                out.extend([word, name, "_total ", rest, "\n"]);
            }
            _ => out.extend([line, "\n"]),
        }
    }
    out
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn page(known: &Known, gathered: &Gathered, seconds: f64) -> Page {
    let mut page = Page::default();
    page.gauges(
        "build_info",
        "Version of the daemon; always 1.",
        [(vec![("version", env!("CARGO_PKG_VERSION").to_string())], 1.0)],
    );
    page.gauge(
        "start_time_seconds",
        "When the daemon started, in seconds since 1970.",
        known.facts.started_unix,
    );
    page.gauge(
        "scrape_duration_seconds",
        "How long it took to ask all threads for this page.",
        seconds,
    );
    page.gauge(
        "control_up",
        "Whether the control side answered within a second.",
        flag(gathered.control.is_some()),
    );
    page.gauge(
        "ready",
        "Whether traffic may be sent to this node, as /ready says.",
        flag(not_ready(gathered.control.as_ref()).is_none()),
    );
    ports(&mut page, known, gathered);
    workers(&mut page, known, gathered);
    cluster(&mut page, known, gathered);
    let pools = known.pools();
    let pool = |name: &str| vec![("pool", name.to_string())];
    page.gauges(
        "buffers",
        "Frame buffers in use, wherever: in a driver, a ring, a worker.",
        pools.iter().map(|p| (pool(&p.name), p.in_use as f64)),
    );
    page.gauges(
        "buffer_capacity",
        "Frame buffers that there are.",
        pools.iter().map(|p| (pool(&p.name), p.capacity as f64)),
    );
    page.counters(
        "admin_connections_refused",
        "Connections to the control socket and to this listener that were closed, as there were too many.",
        known
            .admin_counts()
            .map(|(name, n)| (vec![("listener", name.to_string())], n)),
    );
    page.counters(
        "log_lines_suppressed",
        "Lines of the log that were left out, as there were too many of their kind.",
        [(Vec::new(), crate::log::suppressed())],
    );
    page.counters(
        "log_lines_dropped",
        "Lines of the log that were lost, as who reads standard error stood still or is gone.",
        [(Vec::new(), crate::log::dropped())],
    );
    page
}

fn ports(page: &mut Page, known: &Known, gathered: &Gathered) {
    let control = gathered.control.as_ref();
    page.gauges(
        "alarms",
        "Alarms at present, by kind.",
        ALARM_KINDS.map(|kind| {
            let count = alarm_count(control, kind) as f64;
            (vec![("alarm", kind.to_string())], count)
        }),
    );
    let ports = control.map_or(&[][..], |control| &control.ports);
    let port = |port: &PortView| ("port", port.name.clone());
    page.gauges(
        "port_up",
        "Whether the data port has a link.",
        ports.iter().map(|p| (vec![port(p)], flag(p.link.is_up()))),
    );
    let counts = known.driver_counts(ports);
    page.counters(
        "driver_events",
        "What the driver of a data port counted: frames, and frames of the kernel's side.",
        ports.iter().zip(&counts).flat_map(|(p, counts)| {
            let series = counts.iter();
            series.map(move |(event, n)| (vec![port(p), ("event", event.to_string())], *n))
        }),
    );
}

fn server_labels(service: &VirtualService, server: &RealServer) -> Labels {
    let end = std::net::SocketAddr::new(server.addr, server.port);
    vec![("service", service.name.clone()), ("server", end.to_string())]
}

fn workers(page: &mut Page, known: &Known, gathered: &Gathered) {
    let worker = |n: usize| vec![("worker", n.to_string())];
    let with = |n: usize, label: &'static str, word: &str| {
        vec![("worker", n.to_string()), (label, word.to_string())]
    };
    let views = || {
        let all = gathered.workers.iter().enumerate();
        all.filter_map(|(n, view)| Some((n, view.as_ref()?)))
    };
    page.gauges(
        "worker_up",
        "Whether the worker answered within a second; if not, its other series are missing.",
        gathered
            .workers
            .iter()
            .enumerate()
            .map(|(n, view)| (worker(n), flag(view.is_some()))),
    );
    page.counters(
        "worker_turns",
        "Turns of the worker's loop.",
        known.lanes.iter().enumerate().map(|(n, lane)| {
            let turns = lane.beat.load(std::sync::atomic::Ordering::Relaxed);
            (worker(n), turns)
        }),
    );
    type Count = (&'static str, &'static str, fn(&Counters) -> u64);
    let counts: [Count; 14] = [
        ("receive_packets", "Frames handed to the engine.", |c| {
            c.rx_packets
        }),
        ("receive_bytes", "Bytes of frames handed to the engine.", |c| {
            c.rx_bytes
        }),
        (
            "transmit_packets",
            "Frames forwarded or answered in place.",
            |c| c.tx_packets,
        ),
        (
            "transmit_bytes",
            "Bytes of frames forwarded or answered in place.",
            |c| c.tx_bytes,
        ),
        ("echo_replies", "Echo requests answered.", |c| c.echo_replies),
        (
            "answered_packets",
            "Frames that are answered by one that the engine makes.",
            |c| c.answered,
        ),
        ("originated_packets", "Frames that the engine made.", |c| {
            c.originated
        }),
        (
            "punted_packets",
            "Frames for the kernel or the control side.",
            |c| c.punted,
        ),
        ("handed_off_packets", "Frames for another worker.", |c| {
            c.handed_off
        }),
        ("conns_opened", "Conns opened.", |c| c.opened),
        ("conns_established", "Conns that became established.", |c| {
            c.established
        }),
        ("conns_closed", "Conns closed by FINs or a RST.", |c| c.closed),
        ("conns_expired", "Conns that ended by their timer alone.", |c| {
            c.expired
        }),
        (
            "local_ports_taken",
            "Local ports that were tried and found in use.",
            |c| c.port_probes_taken,
        ),
    ];
    for (name, help, of) in counts {
        page.counters(
            name,
            help,
            views().map(|(n, view)| (worker(n), of(&view.counters))),
        );
    }
    page.counters(
        "forwarded_packets",
        "Packets of conns: inbound are those of clients, outbound those of real servers.",
        views().flat_map(|(n, view)| {
            [
                (with(n, "direction", "inbound"), view.counters.inbound_packets),
                (with(n, "direction", "outbound"), view.counters.outbound_packets),
            ]
        }),
    );
    let mut words = |name, help, label: &'static str, of: fn(&WorkerView) -> Vec<(&'static str, u64)>| {
        let series = views().flat_map(|(n, view)| {
            let all = of(view).into_iter();
            all.map(move |(word, count)| (with(n, label, word), count))
                .collect::<Vec<_>>()
        });
        page.counters(name, help, series);
    };
    words("dropped_packets", "Frames dropped, by reason.", "reason", |v| {
        drop_counts(&v.counters)
    });
    words("sync_events", "What replication counted.", "event", |v| {
        sync_counts(&v.counters)
    });
    words("io_events", "What packet I/O counted.", "event", |v| {
        io_counts(&v.io)
    });
    page.counters(
        "lane_events",
        "Times that a ring between a worker and the control side was full, or a worker waited for a buffer.",
        known.lanes.iter().enumerate().flat_map(|(n, lane)| {
            let all = lane_counts(lane);
            all.map(|(word, count)| (with(n, "event", word), count))
        }),
    );
    page.gauges(
        "conns",
        "Conns in the table, by state.",
        views().flat_map(|(n, view)| {
            let all = state_counts(&view.counters).into_iter();
            all.map(move |(state, count)| (with(n, "state", state), count as f64))
        }),
    );
    page.gauges(
        "conn_capacity",
        "Conns that the table holds at most: v4 with IPv4 on both sides, v6 all others.",
        views().flat_map(|(n, view)| {
            [
                (with(n, "slab", "v4"), f64::from(view.sizes.conns_v4)),
                (with(n, "slab", "v6"), f64::from(view.sizes.conns_v6)),
            ]
        }),
    );
    page.gauges(
        "tombstones",
        "Closed conns that are kept until all nodes know.",
        views().map(|(n, view)| (worker(n), view.tombs as f64)),
    );
    page.gauges(
        "table_places",
        "Places of the table in use: of conns and tombstones by slab, of rarer state, timers, chunks of slots.",
        views().flat_map(|(n, view)| {
            let TableUse {
                v4,
                v6,
                exts,
                timers,
                slot_chunks,
            } = view.in_use;
            [
                (with(n, "part", "v4"), v4 as f64),
                (with(n, "part", "v6"), v6 as f64),
                (with(n, "part", "ext"), exts as f64),
                (with(n, "part", "timer"), timers as f64),
                (with(n, "part", "slot-chunk"), slot_chunks as f64),
            ]
        }),
    );
    page.gauges(
        "held_packets",
        "Frames that wait for a neighbour.",
        views().map(|(n, view)| (worker(n), view.held as f64)),
    );
    page.gauges(
        "index_entries",
        "Entries of the index in use, two a conn.",
        views().map(|(n, view)| (worker(n), view.index[0] as f64)),
    );
    page.gauges(
        "index_capacity",
        "Entries that the index has.",
        views().map(|(n, view)| (worker(n), view.index[1] as f64)),
    );
    let snapshot = views().next().map(|(_, view)| &view.snapshot);
    let servers = snapshot.into_iter().flat_map(|snapshot| snapshot.services());
    page.gauges(
        "server_weight",
        "Weight of a real server; 0: it gets no new conns.",
        servers.flat_map(|service| {
            service
                .servers
                .iter()
                .map(|server| (server_labels(service, server), f64::from(server.weight)))
        }),
    );
}

fn health(page: &mut Page, gathered: &Gathered, services: &BTreeMap<ServiceId, ServiceView>) {
    if let Some(control) = &gathered.control {
        let [succeeded, failed, not_made, (_, late)] = check_counts(&control.checks);
        page.counters(
            "health_checks",
            "Health checks, by what came of them; not-made: this node had no socket or port for it.",
            [succeeded, failed, not_made].map(|(result, n)| (vec![("result", result.to_string())], n)),
        );
        page.counters(
            "health_checks_late",
            "Health checks that began late, as too many were under way.",
            [(Vec::new(), late)],
        );
    }
    let view = gathered.workers.iter().flatten().next();
    let served = view
        .into_iter()
        .flat_map(|view| view.snapshot.services())
        .filter_map(|service| Some((service, services.get(&service.id)?)));
    page.gauges(
        "server_up",
        "Whether health checks find a real server up; of those that are checked.",
        served.flat_map(|(service, known)| {
            let checked = service.servers.iter().filter(|s| known.checked.contains(&s.id));
            checked.map(|server| {
                let up = !known.down.contains(&server.id);
                (server_labels(service, server), flag(up))
            })
        }),
    );
}

fn cluster(page: &mut Page, known: &Known, gathered: &Gathered) {
    let word = |label: &'static str, word: &str| vec![(label, word.to_string())];
    if let Some(counters) = &known.transport {
        page.counters(
            "transport_events",
            "Frames between nodes on their way, by what became of them.",
            transport_counts(counters).map(|(event, n)| (word("event", event), n)),
        );
    }
    let Some(view) = gathered.control.as_ref().and_then(|c| c.cluster.as_ref()) else {
        return;
    };
    page.counters(
        "receiver_events",
        "Frames of other nodes that were read, by what became of them; their messages; new lives of peers.",
        receiver_counts(&view.receiver).map(|(event, n)| (word("event", event), n)),
    );
    page.counters(
        "node_events",
        "What the node refused, dropped or noticed as a member of its cluster.",
        node_counts(&view.counters).map(|(event, n)| (word("event", event), n)),
    );
    page.gauges(
        "readiness",
        "How far the node is: 1 at the state that it is in.",
        [Readiness::Joining, Readiness::Degraded, Readiness::Ready]
            .map(|state| (word("state", readiness(state)), flag(view.readiness == state))),
    );
    page.gauge(
        "serving",
        "Whether the node answers for addresses.",
        flag(view.serving),
    );
    page.gauge(
        "draining",
        "Whether the node was told to drain.",
        flag(view.draining),
    );
    page.gauge("promoted", "Whether the node was promoted.", flag(view.promoted));
    page.gauges(
        "master",
        "Whether the node is master of the virtual router.",
        [("ipv4", view.master[0]), ("ipv6", view.master[1])]
            .map(|(family, is)| (word("family", family), flag(is))),
    );
    let peers = || view.peers.iter().map(|peer| (known.facts.node(peer.id), peer));
    page.gauges(
        "peer_up",
        "Whether the node is heard.",
        peers().map(|(name, peer)| (word("peer", &name), flag(peer.life.is_some()))),
    );
    page.gauges(
        "peer_behind_records",
        "Changes of the peer that are not here yet.",
        peers().map(|(name, peer)| (word("peer", &name), peer.behind as f64)),
    );
    page.gauges(
        "peer_unacked_records",
        "Changes of this node that are not at the peer yet.",
        peers().map(|(name, peer)| (word("peer", &name), peer.unacked as f64)),
    );
    page.gauges(
        "peer_silence_seconds",
        "Time since the peer was heard; missing if it never was.",
        peers().filter_map(|(name, peer)| {
            let nanos = view.at.as_nanos().saturating_sub(peer.heard_at?.as_nanos());
            Some((word("peer", &name), nanos as f64 / 1e9))
        }),
    );
    let by_role = |of: fn(&evenkeel_core::cluster::GroupReport) -> u64| {
        Role::ALL.map(|role| {
            let groups = view.groups.iter().filter(|g| g.role == role);
            (word("role", role_name(role)), groups.map(of).sum::<u64>() as f64)
        })
    };
    page.gauges(
        "groups",
        "Groups of sessions, by this node's role.",
        by_role(|_| 1),
    );
    page.gauges(
        "group_sessions",
        "Sessions here, by this node's role to their group.",
        by_role(|g| g.sessions),
    );
    page.gauges(
        "group_slots_outstanding",
        "Slots that are being copied, by this node's role to their group.",
        by_role(|g| g.outstanding),
    );
    page.gauges(
        "group_slots_lacking",
        "Slots of which something is missing here, by this node's role to their group.",
        by_role(|g| g.lacking),
    );
}
