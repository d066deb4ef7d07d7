//! What is known, gathered from those who know it, and put into answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Clock};

use evenkeel_control::Config;
use evenkeel_core::cluster::{Alarm, NodeCounters, NodeId, PeerReport, Role};
use evenkeel_core::conn::{TableSizes, TableUse};
use evenkeel_core::port::PortId;
use evenkeel_core::proto::ConnState;
use evenkeel_core::sched::SchedulerKind;
use evenkeel_core::service::{ServiceId, Snapshot};
use evenkeel_core::stats::{Counters, DropReason, SyncCount};
use evenkeel_core::sync::{Readiness, ReceiverCounters};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::answer::*;
use super::ask::{self, Ask, ClusterView, ControlView, ServiceView, Silence};
use super::conns::{ConnQuery, Filter, Found, Looker, Place, limit};
use crate::health::CheckStats;
use crate::io::{DriverLook, PoolView};
use crate::lane::{IoCounts, Lane};
use crate::ports::PortView;
use crate::telling::Names;
use crate::transport::TransportCounters;

/// Looks of one question for conns, at most; it goes on with the next one.
const LOOK_COUNT_MAX: usize = 64;
/// So long conns are counted for one question.
const COUNT_TIME: Duration = Duration::from_secs(5);

/// What of a node does not change while it runs.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) started: Clock,
    /// Seconds since 1970.
    pub(super) started_unix: f64,
    cluster: Option<(u32, String)>,
    /// IPv4 and IPv6: whether there is a virtual router of it.
    router_families: [bool; 2],
    names: Names,
    nodes: BTreeMap<String, NodeId>,
}

impl Facts {
    pub(super) fn of(config: &Config) -> Self {
        let cluster = config.cluster.as_ref();
        let nodes = cluster.into_iter().flat_map(|c| &c.nodes);
        let router = cluster.and_then(|c| c.config.vrrp.as_ref());
        Facts {
            router_families: [
                router.is_some_and(|r| r.source_v4.is_some()),
                router.is_some_and(|r| r.source_v6.is_some()),
            ],
            started: Clock::now(),
            started_unix: crate::clock::unix_nanos() as f64 / 1e9,
            cluster: cluster.map(|c| (c.config.cluster, c.name.clone())),
            names: Names::new(cluster),
            nodes: nodes.map(|node| (node.name.clone(), node.id)).collect(),
        }
    }

    /// The name of a node.
    pub(super) fn node(&self, id: NodeId) -> String {
        self.names.node(id)
    }
}

/// What a worker said of itself.
#[derive(Clone, Debug)]
pub(super) struct WorkerView {
    pub(super) counters: Counters,
    pub(super) conns: usize,
    pub(super) tombs: usize,
    pub(super) index: [usize; 2],
    pub(super) in_use: TableUse,
    pub(super) held: usize,
    pub(super) sizes: TableSizes,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) io: IoCounts,
}

/// Connections that were closed, or answered 503, for want of room.
#[derive(Debug, Default)]
pub(super) struct AdminCounters {
    pub(super) ctl_refused: AtomicU64,
    pub(super) metrics_refused: AtomicU64,
}

/// All that is needed to answer.
pub(super) struct Known {
    pub(super) facts: Facts,
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) transport: Option<Arc<TransportCounters>>,
    /// The driver, if it can be looked at.
    pub(super) driver: Option<Arc<dyn DriverLook>>,
    pub(super) counters: AdminCounters,
    /// So long a thread's answer is waited for.
    pub(super) within: Duration,
}

/// All at one time; who did not answer is missing.
pub(super) struct Gathered {
    pub(super) control: Option<ControlView>,
    pub(super) workers: Vec<Option<WorkerView>>,
}

/// Why the node is not ready.
pub(super) fn not_ready(control: Option<&ControlView>) -> Option<String> {
    let Some(control) = control else {
        return Some("the control side does not answer".to_string());
    };
    if control.ending {
        return Some("the node was asked to end".to_string());
    }
    if let Some(port) = control.ports.iter().find(|port| !port.link.is_up()) {
        return Some(port.complaint());
    }
    not_ready_for(control.cluster.as_ref()?).map(str::to_string)
}

/// Why it is not ready as a member of its cluster.
fn not_ready_for(cluster: &ClusterView) -> Option<&'static str> {
    if cluster.draining {
        Some("the node is draining")
    } else if cluster.readiness < Readiness::Degraded {
        Some("the node is joining its cluster")
    } else if !cluster.serving {
        Some("the node does not serve")
    } else {
        None
    }
}

impl Known {
    pub(super) fn pools(&self) -> Vec<PoolView> {
        self.driver
            .as_ref()
            .map_or_else(Vec::new, |driver| driver.pools())
    }

    /// What the control side knows.
    pub(super) async fn control(&self) -> Result<ControlView, Silence> {
        ask::control(&self.asks, self.within, Ask::View).await
    }

    /// Asks all at the same time.
    pub(super) async fn gather(&self) -> Gathered {
        let mut asked = JoinSet::new();
        for (n, lane) in self.lanes.iter().enumerate() {
            let (lane, within) = (Arc::clone(lane), self.within);
            asked.spawn(async move { (n, look(&lane, within).await) });
        }
        let control = self.control().await.ok();
        let mut workers: Vec<_> = self.lanes.iter().map(|_| None).collect();
        while let Some(answered) = asked.join_next().await {
            if let Ok((n, view)) = answered
                && let Some(place) = workers.get_mut(n)
            {
                *place = view;
            }
        }
        Gathered { control, workers }
    }

    pub(super) async fn status(&self) -> Status {
        let gathered = self.gather().await;
        let cluster = gathered.control.as_ref().and_then(|c| c.cluster.as_ref());
        let because = not_ready(gathered.control.as_ref());
        let workers: Vec<WorkerStatus> = gathered
            .workers
            .iter()
            .zip(&self.lanes)
            .zip(0..)
            .map(|((view, lane), id)| worker_status(id, view.as_ref(), lane))
            .collect();
        Status {
            version: env!("CARGO_PKG_VERSION").to_string(),
            uptime_seconds: self.facts.started.elapsed().as_secs(),
            ready: because.is_none(),
            not_ready_because: because,
            ending: gathered.control.as_ref().is_some_and(|c| c.ending),
            cluster: cluster
                .zip(self.facts.cluster.as_ref())
                .map(|(view, (id, name))| self.cluster_status(*id, name, view)),
            alarms: self.alarms(gathered.control.as_ref()),
            conns: workers.iter().map(|w| w.conns).sum(),
            workers,
        }
    }

    fn cluster_status(&self, id: u32, name: &str, view: &ClusterView) -> ClusterStatus {
        let names = |of: [bool; 2]| -> Vec<String> {
            let families = ["ipv4", "ipv6"].into_iter().zip(of);
            let those = families.filter(|(_, is)| *is);
            those.map(|(family, _)| family.to_string()).collect()
        };
        ClusterStatus {
            id,
            node: name.to_string(),
            node_id: view.me.node.0,
            incarnation: view.me.incarnation.0,
            readiness: readiness(view.readiness).to_string(),
            serving: view.serving,
            draining: view.draining,
            drained: view.drained,
            promoted: view.promoted,
            virtual_router: view.virtual_router,
            router_families: names(self.facts.router_families),
            master: names(view.master),
            answers_for: view.answering.clone(),
            creating: view.creating.map(|group| self.facts.names.group(group)),
            peers: view.peers.iter().map(|peer| self.peer(view, peer)).collect(),
        }
    }

    fn peer(&self, view: &ClusterView, peer: &PeerReport) -> PeerStatus {
        let ago =
            |at: evenkeel_core::time::Instant| view.at.as_nanos().saturating_sub(at.as_nanos()) / 1_000_000;
        PeerStatus {
            name: self.facts.node(peer.id),
            id: peer.id.0,
            up: peer.life.is_some(),
            incarnation: peer.life.map(|life| life.incarnation.0),
            readiness: readiness(peer.readiness).to_string(),
            draining: peer.draining,
            heard_ms_ago: peer.heard_at.map(ago),
            hears_this_node: peer.hears_me,
            out_of_sync: peer.out_of_sync,
            can_take_over: peer.can_inherit,
            behind: peer.behind,
            unacked: peer.unacked,
        }
    }

    /// Those of the ports, and those of the cluster.
    fn alarms(&self, control: Option<&ControlView>) -> Vec<AlarmStatus> {
        let ports = ports_down(control).map(|port| AlarmStatus {
            kind: PORT_DOWN.to_string(),
            text: port.complaint(),
        });
        let cluster = control.and_then(|c| c.cluster.as_ref());
        let of_cluster = cluster.into_iter().flat_map(|c| &c.alarms);
        let of_cluster = of_cluster.map(|alarm| AlarmStatus {
            kind: alarm_kind(alarm).to_string(),
            text: self.facts.names.alarm(alarm),
        });
        ports.chain(of_cluster).collect()
    }

    /// What the driver counted, by the number of the port.
    pub(super) fn driver_counts(&self, ports: &[PortView]) -> Vec<Vec<(&'static str, u64)>> {
        let port = |n: usize| PortId(u16::try_from(n).unwrap_or(u16::MAX));
        let counts = |n| self.driver.as_ref().map(|driver| driver.counts(port(n)));
        (0..ports.len()).map(|n| counts(n).unwrap_or_default()).collect()
    }

    /// What the control side knows of services and their servers.
    pub(super) async fn known_services(&self) -> Result<BTreeMap<ServiceId, ServiceView>, Silence> {
        let known = ask::control(&self.asks, self.within, Ask::Services).await?;
        Ok(known.into_iter().map(|s| (s.id, s)).collect())
    }

    pub(super) async fn services(&self, count: bool) -> Result<Services, Silence> {
        let lane = self.lanes.first().ok_or(Silence::Late)?;
        let snapshot = ask::worker(lane, self.within, |seen| Arc::clone(seen.worker.snapshot())).await?;
        let known = self.known_services().await?;
        let counts = if count { self.count().await } else { None };
        let conns = |of: &dyn Fn(&Tally) -> u64| counts.as_ref().map(of);
        let services = snapshot.services().map(|service| {
            let known = known.get(&service.id);
            Service {
                name: service.name.clone(),
                protocol: service.proto.to_string(),
                vip: end(service.vip, service.port),
                scheduler: match known.map_or_else(SchedulerKind::default, |s| s.scheduler) {
                    SchedulerKind::RoundRobin => "rr",
                    SchedulerKind::WeightedRoundRobin => "wrr",
                }
                .to_string(),
                replicate: service.replicate.to_string(),
                conns: conns(&|tally| tally.services.get(&service.id.0).copied().unwrap_or(0)),
                servers: service
                    .servers
                    .iter()
                    .map(|server| Server {
                        address: end(server.addr, server.port),
                        weight: server.weight,
                        up: known.is_none_or(|s| !s.down.contains(&server.id)),
                        not_checked_because: known.and_then(|s| s.not_made.get(&server.id).cloned()),
                        reachable: server.next_hop.is_some(),
                        conns: conns(&|tally| tally.servers.get(&server.id.0).copied().unwrap_or(0)),
                    })
                    .collect(),
            }
        });
        Ok(Services {
            services: services.collect(),
            counted: counts.is_some(),
        })
    }

    /// Counts conns by service and server, look by look; `None`: there was no time for all.
    async fn count(&self) -> Option<Tally> {
        let mut tally = Tally::default();
        let until = Clock::now() + COUNT_TIME;
        let mut at = Some(Place::FIRST);
        let all = Filter::default();
        while let Some(from) = at {
            if Clock::now() >= until {
                return None;
            }
            let looker = Looker::new(&all, super::conns::LOOK_CONN_COUNT, true);
            let (found, _, next) = self.glance(looker, from).await.ok()?;
            for Found { conn, .. } in found {
                *tally.services.entry(conn.init.service.0).or_default() += 1;
                *tally.servers.entry(conn.init.server_id.0).or_default() += 1;
            }
            at = next;
        }
        Some(tally)
    }

    /// One look; what it found, how much it looked at, and where the next one begins, at another worker perhaps.
    async fn glance(
        &self,
        looker: Looker,
        from: Place,
    ) -> Result<(Vec<Found>, Looked, Option<Place>), Silence> {
        let lane = self.lanes.get(usize::from(from.worker)).ok_or(Silence::Late)?;
        let glance = ask::worker(lane, self.within, move |seen| looker.look(seen.worker, from)).await?;
        let worker = from.worker + 1;
        let other = usize::from(worker) < self.lanes.len();
        let next = glance.next.or_else(|| other.then(|| Place::of_worker(worker)));
        let looked = Looked {
            count: glance.looked_at as u64,
            full: glance.full,
        };
        Ok((glance.found, looked, next))
    }

    pub(super) async fn conns(&self, query: &ConnQuery) -> Result<Result<Conns, Silence>, super::conns::Bad> {
        let most = limit(query)?;
        let Some(lane) = self.lanes.first() else {
            return Ok(Err(Silence::Late));
        };
        let snapshot = match ask::worker(lane, self.within, |seen| Arc::clone(seen.worker.snapshot())).await {
            Ok(snapshot) => snapshot,
            Err(silence) => return Ok(Err(silence)),
        };
        let service = |name: &str| snapshot.services().find(|s| s.name == name).map(|s| s.id);
        let node = |name: &str| self.facts.nodes.get(name).map(|id| id.0);
        let filter = Filter::read(query, service, node)?;
        let workers = u8::try_from(self.lanes.len()).unwrap_or(u8::MAX);
        let from = match &query.cursor {
            Some(text) => Place::read(text, workers)?,
            None => Place::FIRST,
        };
        Ok(self.page(&snapshot, &filter, most, from).await)
    }

    async fn page(
        &self,
        snapshot: &Snapshot,
        filter: &Filter,
        most: usize,
        from: Place,
    ) -> Result<Conns, Silence> {
        let mut page = Conns {
            conns: Vec::new(),
            next: None,
            looked_at: 0,
        };
        let mut at = Some(from);
        for _ in 0..LOOK_COUNT_MAX {
            let Some(from) = at.filter(|_| page.conns.len() < most) else {
                break;
            };
            let looker = Looker::new(filter, most - page.conns.len(), page.conns.is_empty());
            let (found, looked, next) = self.glance(looker, from).await?;
            page.looked_at += looked.count;
            page.conns
                .extend(found.iter().map(|found| self.conn(snapshot, from.worker, found)));
            at = next;
            if looked.full {
                break;
            }
        }
        page.next = at.map(Place::cursor);
        Ok(page)
    }

    fn conn(&self, snapshot: &Snapshot, worker: u8, found: &Found) -> Conn {
        let init = &found.conn.init;
        Conn {
            worker,
            protocol: init.proto.to_string(),
            client: init.client.to_string(),
            vip: init.vip.to_string(),
            local: init.local.to_string(),
            server: init.server.to_string(),
            service: snapshot
                .service(init.service)
                .map_or_else(String::new, |service| service.name.clone()),
            state: init.state.name().to_string(),
            expires_ms: found.conn.remaining_ms,
            group: found.group.map(|group| self.facts.names.group(group)),
        }
    }

    pub(super) async fn replication(&self) -> Result<Replication, Silence> {
        let gathered = self.gather().await;
        let control = gathered.control.ok_or(Silence::Late)?;
        let mut sum = Counters::default();
        for view in gathered.workers.iter().flatten() {
            sum.add(&view.counters);
        }
        let counters = SyncCount::ALL
            .iter()
            .map(|&c| (c.name().to_string(), sum.sync(c)));
        let Some(view) = control.cluster else {
            return Ok(Replication {
                cluster: false,
                readiness: readiness(Readiness::Ready).to_string(),
                lease_ms: None,
                peers: Vec::new(),
                groups: Vec::new(),
                counters: counters.collect(),
            });
        };
        let left = |until: evenkeel_core::time::Instant| {
            let left = until.as_nanos().checked_sub(view.at.as_nanos())?;
            Some(left / 1_000_000)
        };
        Ok(Replication {
            cluster: true,
            readiness: readiness(view.readiness).to_string(),
            lease_ms: view.lease_until.and_then(left),
            peers: view.peers.iter().map(|peer| self.peer(&view, peer)).collect(),
            groups: view
                .groups
                .iter()
                .map(|group| Group {
                    id: self.facts.names.group(group.id),
                    home: self.facts.node(group.id.node),
                    role: role_name(group.role).to_string(),
                    holder: self.facts.node(group.epoch.holder.node),
                    term: group.epoch.term,
                    sessions: group.sessions,
                    slots_outstanding: group.outstanding,
                    slots_lacking: group.lacking,
                })
                .collect(),
            counters: counters.collect(),
        })
    }

    pub(super) async fn stats(&self) -> Stats {
        let gathered = self.gather().await;
        let cluster = gathered.control.as_ref().and_then(|c| c.cluster.as_ref());
        let checks = gathered.control.as_ref().map(|c| &c.checks);
        let views = gathered.workers.iter().zip(&self.lanes).zip(0..);
        Stats {
            workers: views
                .map(|((view, lane), id)| worker_stats(id, view.as_ref(), lane))
                .collect(),
            transport: self
                .transport
                .iter()
                .flat_map(|counters| named(&transport_counts(counters)))
                .collect(),
            receiver: cluster
                .iter()
                .flat_map(|c| named(&receiver_counts(&c.receiver)))
                .collect(),
            node: cluster
                .iter()
                .flat_map(|c| named(&node_counts(&c.counters)))
                .collect(),
            health: checks.into_iter().flat_map(|c| named(&check_counts(c))).collect(),
            health_not_made_because: checks.and_then(|c| c.not_made_why.clone()),
            admin: named(&self.admin_counts()).collect(),
            ports: self.port_stats(gathered.control.as_ref()),
            buffers: self.pools().into_iter().map(|p| (p.name, p.in_use)).collect(),
            log_suppressed: crate::log::suppressed(),
            log_dropped: crate::log::dropped(),
        }
    }

    fn port_stats(&self, control: Option<&ControlView>) -> Vec<PortStats> {
        let ports = control.map_or(&[][..], |control| &control.ports);
        let driver = self.driver_counts(ports);
        let stats = ports.iter().zip(&driver).map(|(port, driver)| PortStats {
            name: port.name.clone(),
            up: port.link.is_up(),
            driver: named(driver).collect(),
        });
        stats.collect()
    }

    pub(super) fn admin_counts(&self) -> [(&'static str, u64); 2] {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("ctl", load(&self.counters.ctl_refused)),
            ("metrics", load(&self.counters.metrics_refused)),
        ]
    }
}

async fn look(lane: &Lane, within: Duration) -> Option<WorkerView> {
    let view = ask::worker(lane, within, |seen| {
        let table = seen.worker.table();
        WorkerView {
            counters: seen.worker.counters().clone(),
            conns: table.len(),
            tombs: table.tomb_count(),
            index: [table.index_len(), table.index_capacity()],
            in_use: table.in_use(),
            held: seen.worker.held_count(),
            sizes: table.sizes(),
            snapshot: Arc::clone(seen.worker.snapshot()),
            io: seen.io,
        }
    });
    view.await.ok()
}

/// What one look went over.
struct Looked {
    count: u64,
    /// There was no room for more.
    full: bool,
}

/// Conns by service and server.
#[derive(Default)]
struct Tally {
    services: BTreeMap<u16, u64>,
    servers: BTreeMap<u16, u64>,
}

fn worker_status(id: u8, view: Option<&WorkerView>, lane: &Lane) -> WorkerStatus {
    let counters = |of: fn(&Counters) -> u64| view.map_or(0, |v| of(&v.counters));
    WorkerStatus {
        id,
        answered: view.is_some(),
        turns: lane.beat.load(Ordering::Relaxed),
        conns: view.map_or(0, |v| v.conns as u64),
        capacity: view.map_or([0; 2], |v| [v.sizes.conns_v4.into(), v.sizes.conns_v6.into()]),
        rx_packets: counters(|c| c.rx_packets),
        tx_packets: counters(|c| c.tx_packets),
        dropped: counters(Counters::dropped),
    }
}

fn worker_stats(id: u8, view: Option<&WorkerView>, lane: &Lane) -> WorkerStats {
    let counters = view.map(|v| &v.counters);
    WorkerStats {
        id,
        answered: view.is_some(),
        turns: lane.beat.load(Ordering::Relaxed),
        counters: counters
            .into_iter()
            .flat_map(|c| named(&packet_counts(c)))
            .collect(),
        drops: counters
            .into_iter()
            .flat_map(|c| named(&drop_counts(c)))
            .collect(),
        states: counters
            .into_iter()
            .flat_map(|c| named(&state_counts(c)))
            .collect(),
        table: view.into_iter().flat_map(|v| named(&table_counts(v))).collect(),
        sync: counters
            .into_iter()
            .flat_map(|c| named(&sync_counts(c)))
            .collect(),
        lane: named(&lane_counts(lane)).collect(),
        io: view.into_iter().flat_map(|v| named(&io_counts(&v.io))).collect(),
    }
}

fn named(counts: &[(&'static str, u64)]) -> impl Iterator<Item = (String, u64)> + use<> {
    let all: Vec<_> = counts.iter().map(|(name, n)| (name.to_string(), *n)).collect();
    all.into_iter()
}

fn end(addr: std::net::IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(addr, port).to_string()
}

pub(super) fn readiness(readiness: Readiness) -> &'static str {
    match readiness {
        Readiness::Joining => "joining",
        Readiness::Degraded => "degraded",
        Readiness::Ready => "ready",
    }
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Replica => "replica",
        Role::Orphan => "orphan",
        Role::Adopting => "adopting",
        Role::Owned => "owned",
        Role::Suspect => "suspect",
        Role::Fenced => "fenced",
        Role::Draining => "draining",
    }
}

/// A data port is down: the only alarm of a node that is in no cluster.
pub(super) const PORT_DOWN: &str = "port-down";

/// The ports that are down.
pub(super) fn ports_down(control: Option<&ControlView>) -> impl Iterator<Item = &PortView> {
    let ports = control.into_iter().flat_map(|control| &control.ports);
    ports.filter(|port| !port.link.is_up())
}

/// How many alarms of a kind there are.
pub(super) fn alarm_count(control: Option<&ControlView>, kind: &str) -> usize {
    if kind == PORT_DOWN {
        return ports_down(control).count();
    }
    let cluster = control.and_then(|c| c.cluster.as_ref());
    let alarms = cluster.into_iter().flat_map(|c| &c.alarms);
    alarms.filter(|alarm| alarm_kind(alarm) == kind).count()
}

/// [`PORT_DOWN`], and all that [`alarm_kind`] may say.
pub(super) const ALARM_KINDS: [&str; 17] = [
    PORT_DOWN,
    "cold",
    "sync-unreachable",
    "shares-differ",
    "one-way",
    "unheard",
    "out-of-sync",
    "lagging",
    "incomplete",
    "peer-full",
    "adopted-unready",
    "no-heir",
    "groups-full",
    "generations-full",
    "duplicate-node",
    "terms-used-up",
    "lease-over",
];

pub(super) fn alarm_kind(alarm: &Alarm) -> &'static str {
    match alarm {
        Alarm::Cold => "cold",
        Alarm::SyncUnreachable => "sync-unreachable",
        Alarm::SharesDiffer(_) => "shares-differ",
        Alarm::OneWay(_) => "one-way",
        Alarm::Unheard(_) => "unheard",
        Alarm::OutOfSync(_) => "out-of-sync",
        Alarm::Lagging => "lagging",
        Alarm::Incomplete => "incomplete",
        Alarm::PeerFull(_) => "peer-full",
        Alarm::AdoptedUnready(_) => "adopted-unready",
        Alarm::NoHeir => "no-heir",
        Alarm::GroupsFull => "groups-full",
        Alarm::GenerationsFull => "generations-full",
        Alarm::DuplicateNode => "duplicate-node",
        Alarm::TermsUsedUp(_) => "terms-used-up",
        Alarm::LeaseOver => "lease-over",
    }
}

/// Counters beside drops, states and replication.
pub(super) fn packet_counts(c: &Counters) -> [(&'static str, u64); 17] {
    [
        ("rx-packets", c.rx_packets),
        ("rx-bytes", c.rx_bytes),
        ("tx-packets", c.tx_packets),
        ("tx-bytes", c.tx_bytes),
        ("inbound-packets", c.inbound_packets),
        ("outbound-packets", c.outbound_packets),
        ("echo-replies", c.echo_replies),
        ("answered", c.answered),
        ("originated", c.originated),
        ("punted", c.punted),
        ("handed-off", c.handed_off),
        ("opened", c.opened),
        ("established", c.established),
        ("closed", c.closed),
        ("expired", c.expired),
        ("removed", c.removed),
        ("port-probes-taken", c.port_probes_taken),
    ]
}

pub(super) fn drop_counts(c: &Counters) -> Vec<(&'static str, u64)> {
    let all = DropReason::ALL.iter().zip(&c.drops);
    all.map(|(reason, n)| (reason.name(), *n)).collect()
}

pub(super) fn state_counts(c: &Counters) -> Vec<(&'static str, u64)> {
    let all = ConnState::ALL.iter().zip(&c.by_state);
    all.map(|(state, n)| (state.name(), *n)).collect()
}

/// What of a worker's table is in use, and what waits with it.
pub(super) fn table_counts(view: &WorkerView) -> [(&'static str, u64); 8] {
    let TableUse {
        v4,
        v6,
        exts,
        timers,
        slot_chunks,
    } = view.in_use;
    [
        ("v4-places", v4 as u64),
        ("v6-places", v6 as u64),
        ("ext-places", exts as u64),
        ("timers", timers as u64),
        ("slot-chunks", slot_chunks as u64),
        ("index-entries", view.index[0] as u64),
        ("tombstones", view.tombs as u64),
        ("held", view.held as u64),
    ]
}

pub(super) fn sync_counts(c: &Counters) -> Vec<(&'static str, u64)> {
    let all = SyncCount::ALL.iter();
    all.map(|&count| (count.name(), c.sync(count))).collect()
}

pub(super) fn io_counts(io: &IoCounts) -> Vec<(&'static str, u64)> {
    io.iter().copied().filter(|(name, _)| !name.is_empty()).collect()
}

pub(super) fn lane_counts(lane: &Lane) -> [(&'static str, u64); 7] {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let c = &lane.counters;
    [
        ("commands-full", load(&c.commands_full)),
        ("commands-refused", load(&c.commands_refused)),
        ("messages-full", load(&c.messages_full)),
        ("frames-full", load(&c.frames_full)),
        ("events-full", load(&c.events_full)),
        ("punted-full", load(&c.punted_full)),
        ("sync-waits", load(&c.sync_waits)),
    ]
}

pub(super) fn transport_counts(c: &TransportCounters) -> [(&'static str, u64); 14] {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    [
        ("udp-out", load(&c.udp_out)),
        ("udp-in", load(&c.udp_in)),
        ("udp-full", load(&c.udp_full)),
        ("udp-failed", load(&c.udp_failed)),
        ("udp-damaged", load(&c.udp_damaged)),
        ("udp-dropped", c.udp_dropped()),
        ("stray", c.stray()),
        ("bulk-out", load(&c.bulk_out)),
        ("bulk-in", load(&c.bulk_in)),
        ("bulk-full", load(&c.bulk_full)),
        ("bulk-failed", load(&c.bulk_failed)),
        ("bulk-damaged", load(&c.bulk_damaged)),
        ("bulk-foreign", load(&c.bulk_foreign)),
        ("bulk-refused", load(&c.bulk_refused)),
    ]
}

/// Results of health checks, and how many of all began late.
pub(super) fn check_counts(c: &CheckStats) -> [(&'static str, u64); 4] {
    [
        ("succeeded", c.succeeded),
        ("failed", c.failed),
        ("not-made", c.not_made),
        ("late", c.late),
    ]
}

pub(super) fn receiver_counts(c: &ReceiverCounters) -> [(&'static str, u64); 17] {
    [
        ("frames", c.frames),
        ("accepted", c.accepted),
        ("unsupported", c.unsupported),
        ("malformed", c.malformed),
        ("other-cluster", c.other_cluster),
        ("own", c.own),
        ("not-member", c.not_member),
        ("stream", c.stream),
        ("unsealed", c.unsealed),
        ("no-secret", c.no_secret),
        ("forged", c.forged),
        ("ungreeted", c.ungreeted),
        ("old-incarnation", c.old_incarnation),
        ("replayed", c.replayed),
        ("too-old", c.too_old),
        ("messages", c.messages),
        ("restarts", c.restarts),
    ]
}

pub(super) fn node_counts(c: &NodeCounters) -> [(&'static str, u64); 13] {
    [
        ("peer-unknown", c.peer_unknown),
        ("peer-stale", c.peer_stale),
        ("claim-refused", c.claim_refused),
        ("group-refused", c.group_refused),
        ("handover-refused", c.handover_refused),
        ("frame-refused", c.frame_refused),
        ("worker-event-refused", c.worker_event_refused),
        ("command-dropped", c.command_dropped),
        ("message-dropped", c.message_dropped),
        ("frame-dropped", c.frame_dropped),
        ("event-dropped", c.event_dropped),
        ("pauses", c.pauses),
        ("stale-sections", c.stale_sections),
    ]
}
