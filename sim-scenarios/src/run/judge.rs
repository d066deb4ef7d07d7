//! Looks at the world now and then, and says in the end what came of it.

mod named;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_core::proto::ConnState;
use evenkeel_core::stats::{Counters, DropReason, SyncCount};
use evenkeel_core::tuple::{L4Proto, Tuple};
use evenkeel_io_sim::{
    FlowEnd, FlowRecord, FlowState, LbId, LbRef, LbState, LinkId, RouterId, SwitchId, World,
};

use self::named::{FAMILIES, Wrong, masters, not_ready};
use super::bites::Bites;
use super::build::{self, Built};
use super::counts::{NodeCounts, node_counters};
use super::excuse::Excuses;
use super::fault::Verdict;
use super::guard::Panics;
use super::ledger::Ledger;
use super::record::{Judged, Recorder};
use super::timeline::Timeline;
use super::watch::Watch;
use super::{cluster, nanos, sync_frame};
use crate::expect::{self, Failure, FlowFacts, Measures, Metric};
use crate::mechanism::Switch;
use crate::oracle::{
    self, Bounds, ByteStreams, Conserved, DeferredSurvives, Found, LiveFlow, NodeSample, Oracle,
    OutboundUnique, Promised, ReadyKnows, ReplicaKeeps, Row, Sample, ServerStays, TablesEqual, VersionsGrow,
};
use crate::plan::{self, Plan};
use crate::report::{BROKEN_FLOWS_MAX, BrokenFlow, Outcome, Report};
use crate::scenario::{Arrival, Replicate, Scenario};

/// What a client's last segment changed has reached all that hear the holder after so long, if nothing is lost.
const TOLD_WITHIN: Duration = Duration::from_millis(20);
/// A frame that is lost is missed at the next heartbeat, and may be lost again.
const HEARTBEATS_TO_REPAIR: u32 = 4;

/// What a client's last segment changed has reached all that hear the holder after so long.
pub(crate) fn told_within(scenario: &Scenario) -> Duration {
    match scenario.links.sync.loss_ppm {
        0 => TOLD_WITHIN,
        _ => TOLD_WITHIN + HEARTBEATS_TO_REPAIR * scenario.cluster.heartbeat,
    }
}

/// After a crash sessions are on as many nodes as before within this time.
const REPLICATED_AGAIN: Duration = Duration::from_secs(5);

/// What a health check found has reached all workers after so long.
const VERDICT_WITHIN: Duration = Duration::from_millis(50);

/// If a client or a server sent something so shortly before the end, the tables had no time to become equal.
const QUIET_MIN: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Judge<'s> {
    scenario: &'s Scenario,
    loads: Vec<usize>,
    last_fault: Duration,
    /// When a node crashes for the first time.
    crash_at: Option<Duration>,
    server_stays: ServerStays,
    outbound_unique: OutboundUnique,
    versions_grow: VersionsGrow,
    ready_knows: ReadyKnows,
    replica_keeps: ReplicaKeeps,
    deferred_survives: DeferredSurvives,
    /// When a node crashed last.
    last_crash: Option<Duration>,
    bites: Bites,
    pub(crate) excuses: Excuses,
    tables_equal: TablesEqual,
    bounds: Bounds,
    conserved: Conserved,
    streams: ByteStreams,
    /// Flows that were opened at the first fault and not over: their local end, and whether another node had their session.
    at_fault: BTreeMap<u32, (Option<SocketAddr>, bool)>,
    /// Since when tables have been equal.
    equal_since: Option<Duration>,
    ledger: Ledger,
    /// Flows that are established and not over, and whether each flow is one.
    live: BTreeMap<oracle::Key, LiveFlow>,
    is_live: Vec<bool>,
    /// Sessions that differ among the nodes that are ready.
    unequal: BTreeSet<oracle::Key>,
    pub(super) panics: Panics,
    degraded: BTreeSet<u16>,
    /// When each node started and when it was ready, in its present life.
    lives: BTreeMap<(u16, u64), (Duration, Option<Duration>)>,
    last: Sample,
    /// Clients' tuples whose last session seen had the ends of one that died with the last node that had it.
    met_dead: BTreeSet<oracle::Key>,
    /// Counters of lives that have ended.
    ended: BTreeMap<(u16, u64), Counters>,
    counts: NodeCounts,
}

/// The tables of all running nodes.
pub(crate) fn sample(world: &World, now: Duration) -> Sample {
    let nodes = world
        .lbs()
        .filter(|lb| lb.state() != LbState::Down)
        .map(|lb| NodeSample {
            node: lb.id().0 + 1,
            life: lb.lives(),
            ready: cluster::is_ready(lb),
            rows: rows(lb),
            epochs: cluster::epochs(lb),
            roles: cluster::roles(lb),
            hears: cluster::hears(lb),
        });
    Sample {
        at: now,
        nodes: nodes.collect(),
    }
}

pub(crate) fn rows(lb: LbRef<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for worker in lb.workers() {
        for conn in worker.table().iter() {
            rows.push(Row {
                inbound: conn.init.inbound(),
                local: conn.init.local,
                server: conn.init.server,
                state: conn.init.state,
                version: cluster::version(worker, &conn),
            });
        }
    }
    rows
}

pub(crate) fn tuple(flow: &FlowRecord) -> Tuple {
    Tuple {
        proto: flow.spec.proto,
        src: flow.client(),
        dst: flow.spec.target,
    }
}

#[cfg(test)]
pub(crate) fn live(world: &World) -> BTreeMap<oracle::Key, LiveFlow> {
    let live = |(number, flow): (u32, &FlowRecord)| {
        let live = flow.established.is_some() && flow.ended.is_none() && flow.state == FlowState::Open;
        live.then(|| {
            let tuple = tuple(flow);
            let flow = LiveFlow {
                number,
                divided: false,
                tuple,
            };
            (oracle::key(&tuple), flow)
        })
    };
    (0..).zip(world.flows()).filter_map(live).collect()
}

impl<'s> Judge<'s> {
    pub(crate) fn new(scenario: &'s Scenario, plan: &Plan) -> Self {
        Judge {
            scenario,
            loads: build::planned(scenario).map(|(load, ..)| load).collect(),
            last_fault: plan.last_fault,
            server_stays: ServerStays::new(
                scenario
                    .services
                    .iter()
                    .filter(|s| s.replicate == Replicate::Off)
                    .map(|s| (s.proto, s.vip)),
            ),
            crash_at: None,
            outbound_unique: OutboundUnique::default(),
            versions_grow: VersionsGrow::default(),
            ready_knows: ReadyKnows::default(),
            replica_keeps: ReplicaKeeps::default(),
            deferred_survives: DeferredSurvives::default(),
            last_crash: None,
            bites: Bites::default(),
            excuses: Excuses::new(scenario),
            tables_equal: TablesEqual::default(),
            bounds: Bounds::default(),
            conserved: Conserved::default(),
            streams: ByteStreams::default(),
            at_fault: BTreeMap::new(),
            equal_since: None,
            ledger: Ledger::default(),
            live: BTreeMap::new(),
            is_live: Vec::new(),
            unequal: BTreeSet::new(),
            panics: Panics::default(),
            degraded: BTreeSet::new(),
            lives: BTreeMap::new(),
            last: Sample::default(),
            met_dead: BTreeSet::new(),
            ended: BTreeMap::new(),
            counts: NodeCounts::default(),
        }
    }

    /// A node crashes, for the first time.
    pub(crate) fn crashed(&mut self, now: Duration) {
        self.crash_at = Some(now);
    }

    /// Right before a node crashes: what was let through by other nodes is known to those that are left. It is not asked where
    /// something was let through without them, nor of what more nodes than one were lost of at a time.
    pub(crate) fn before_crash(&mut self, world: &World, now: Duration, met: Option<LbId>) {
        let last = self.last_crash.replace(now);
        let is_well = |lb: &LbRef<'_>| lb.state() == LbState::Running && cluster::is_ready(*lb);
        let mut others = world.lbs().filter(|lb| Some(lb.id()) != met);
        let alone = last.is_none_or(|last| now > last + REPLICATED_AGAIN) && others.all(|lb| is_well(&lb));
        let deferred = |flow: &FlowRecord| {
            let mut services = self.scenario.services.iter();
            flow.spec.proto == L4Proto::Tcp
                && services.any(|s| s.vip == flow.spec.target && s.replicate.deferral().is_some())
        };
        if !alone || world.lbs().count() < 2 || plan::switch(self.scenario).is_some() {
            return;
        }
        let let_through = [
            SyncCount::DeferOpened,
            SyncCount::DeferShort,
            SyncCount::DeferFull,
        ];
        let mut counters: Vec<Counters> = self.ended.values().cloned().collect();
        for lb in world.lbs() {
            counters.extend(lb.worker_counters().into_iter().map(|w| w.engine));
        }
        if counters
            .iter()
            .any(|c| let_through.iter().any(|what| c.sync(*what) > 0))
        {
            return;
        }
        let (mut dies, mut known) = (BTreeSet::new(), BTreeSet::new());
        for lb in world.lbs() {
            let keys = rows(lb).into_iter().map(|row| oracle::key(&row.inbound));
            if Some(lb.id()) == met {
                dies.extend(keys);
            } else {
                known.extend(keys);
            }
        }
        let flows = world.flows().iter().filter(|f| deferred(f));
        let open =
            flows.filter(|f| f.established.is_some() && f.ended.is_none() && f.state == FlowState::Open);
        let together = open.filter(|f| !self.excuses.divided_until(f, now));
        let promised: Vec<_> = together
            .map(|flow| oracle::key(&tuple(flow)))
            .filter(|key| dies.contains(key))
            .map(|inbound| Promised {
                inbound,
                known: known.contains(&inbound),
            })
            .collect();
        self.panics.ask(Oracle::DeferredSurvives.says().0, now, || {
            self.deferred_survives.crash(now, &promised);
        });
    }

    /// Right before the fault begins from which on is measured: the first one, and the first crash if that is another.
    pub(crate) fn first_fault(&mut self, world: &World, now: Duration) {
        let sample = sample(world, now);
        let mut holders: BTreeMap<oracle::Key, (usize, SocketAddr)> = BTreeMap::new();
        for row in sample.nodes.iter().flat_map(|n| &n.rows) {
            holders
                .entry(oracle::key(&row.inbound))
                .or_insert((0, row.local))
                .0 += 1;
        }
        self.at_fault.clear();
        for (number, flow) in (0..).zip(world.flows()) {
            if flow.opened.is_some() && flow.ended.is_none() {
                let found = holders.get(&oracle::key(&tuple(flow)));
                self.at_fault
                    .insert(number, (found.map(|f| f.1), found.is_some_and(|f| f.0 > 1)));
            }
        }
    }

    /// After a crash, while nobody has taken over: what was on its way to the survivors when their peer died has
    /// arrived, and counts as known. What a survivor learns later it learns from the flow itself.
    pub(crate) fn before_takeover(&mut self, world: &World) {
        let survivors: BTreeSet<u16> = super::running(world).collect();
        self.ledger.look(world);
        for (number, (_, replicated)) in &mut self.at_fault {
            if let Some(flow) = world.flows().get(*number as usize) {
                *replicated = self.ledger.is_held(&oracle::key(&tuple(flow)), &survivors);
            }
        }
    }

    /// Whether it is a UDP flow whose session died with the node that crashed first: whoever serves it then opens another
    /// one. A TCP connection breaks instead.
    fn is_forgotten(&self, flow: &LiveFlow, now: Duration) -> bool {
        flow.tuple.proto == L4Proto::Udp
            && self.crash_at.is_some_and(|crash| crash <= now)
            && self.at_fault.get(&flow.number).is_some_and(|a| !a.1)
    }

    /// Whether it is a UDP flow that something excuses: a datagram of it may have opened another session. A TCP connection
    /// breaks instead.
    fn may_reopen(&self, world: &World, flow: &LiveFlow, now: Duration, moved: &[u64]) -> bool {
        let record = world.flows().get(flow.number as usize);
        flow.tuple.proto == L4Proto::Udp
            && record.is_some_and(|record| {
                self.excuses
                    .excuse(self.scenario, (flow.number, record), now, moved)
                    .is_some()
            })
    }

    /// When the last fault has ended, as far as is known now.
    pub(crate) fn faults_over(&mut self, at: Duration) {
        self.last_fault = at;
        self.equal_since = self.equal_since.filter(|since| *since >= at);
    }

    /// Whether the tables have been equal since the last look.
    pub(crate) fn has_converged(&self) -> bool {
        self.equal_since.is_some()
    }

    /// Looks at all that has a bound, and at what faults change of nodes; also before a fault changes bounds.
    pub(crate) fn levels(&mut self, world: &World, now: Duration) {
        self.bites.look(self.scenario, world, now);
        self.panics.ask(Oracle::Bounds.says().0, now, || {
            for lb in world.lbs() {
                self.bounds.sample(now, &cluster::levels(lb));
            }
            self.bounds.sample(now, &cluster::link_levels(world));
        });
    }

    /// A fault takes sessions away that a replica would lose by no fault: what has gone by now is judged, what goes meanwhile is not.
    pub(crate) fn before_damage(&mut self, world: &World) -> Vec<(u16, oracle::Row)> {
        self.ledger.look(world);
        self.ledger.gone()
    }

    /// It has happened; `gone`: what had gone before.
    pub(crate) fn after_damage(&mut self, world: &World, gone: Vec<(u16, oracle::Row)>) {
        self.ledger.look(world);
        self.ledger.gone();
        self.ledger.put_back(gone);
    }

    /// Looks at all tables.
    pub(crate) fn sample(&mut self, world: &World, now: Duration, watch: &mut Watch) {
        self.ledger.look(world);
        for inbound in watch.closed_stays.touched() {
            self.ledger.touch(inbound);
        }
        self.follow_flows(world, now, &watch.moved);
        let (sample, touched) = self.ledger.sample(world, now);
        for row in sample.nodes.iter().flat_map(|n| &n.rows) {
            let key = oracle::key(&row.inbound);
            if self.excuses.died(row) {
                self.met_dead.insert(key);
            } else {
                self.met_dead.remove(&key);
            }
        }
        let live = &self.live;
        let name = |oracle: Oracle| oracle.says().0;
        self.panics.ask(name(Oracle::ServerStays), now, || {
            self.server_stays.sample(&sample, live);
        });
        self.panics.ask(name(Oracle::OutboundUnique), now, || {
            self.outbound_unique.sample(&sample, &watch.reuse.cold);
        });
        self.panics.ask(name(Oracle::VersionsGrow), now, || {
            self.versions_grow.sample(&sample);
        });
        self.panics.ask(name(Oracle::ReadyKnows), now, || {
            // It weighs all sessions, not those alone that have changed.
            if self.ready_knows.is_due(&sample) {
                let established = established(world);
                self.ready_knows
                    .sample(&self::sample(world, now), &|key| established.get(key).copied());
            }
        });
        self.panics.ask(name(Oracle::ClosedStays), now, || {
            let gave_up = |node: u16| {
                let mut lbs = world.lbs().filter(|lb| lb.id().0 + 1 == node);
                lbs.any(|lb| {
                    let workers = lb.worker_counters();
                    workers.iter().any(|w| w.engine.sync(SyncCount::TombsEvicted) > 0)
                })
            };
            watch.closed_stays.sample(&sample, gave_up);
        });
        let gone = self.ledger.gone();
        self.panics.ask(name(Oracle::ReplicaKeeps), now, || {
            // Where each node has slots of its own, digests find all of them unequal, and nothing of them is to be kept.
            if plan::switch(self.scenario) != Some(Switch::OwnRssKeys) {
                self.replica_keeps.sample(&sample, &gone, &self.ledger);
            }
        });
        let ready: Vec<_> = sample.nodes.iter().filter(|n| n.ready).collect();
        self.panics.ask(name(Oracle::TablesEqual), now, || {
            let unequal = oracle::unequal(&ready);
            match &touched {
                Some(touched) => {
                    touched.iter().for_each(|key| {
                        self.unequal.remove(key);
                    });
                    self.unequal.extend(unequal.intersection(touched));
                }
                None => self.unequal = unequal,
            }
        });
        if now >= self.last_fault && ready.len() > 1 {
            if self.unequal.is_empty() {
                self.equal_since.get_or_insert(now);
            } else {
                self.equal_since = None;
            }
        }
        self.levels(world, now);
        for lb in world.lbs() {
            if cluster::is_degraded(lb) {
                self.degraded.insert(lb.id().0);
            }
            self.counts.sample(lb);
            if lb.state() == LbState::Down {
                continue;
            }
            let life = (lb.id().0, lb.lives());
            let entry = self.lives.entry(life).or_insert((now, None));
            if entry.1.is_none() && cluster::is_ready(lb) {
                entry.1 = Some(now);
            }
            let mut counters = Counters::default();
            lb.worker_counters().iter().for_each(|w| counters.add(&w.engine));
            self.ended.insert(life, counters);
        }
        self.panics.ask(name(Oracle::Conserved), now, || {
            self.conserved.sample(now, &world.accounts());
        });
    }

    /// Which flows are established now and not over. Whose session died with its node is none of them, nor is a UDP flow that
    /// something else excuses.
    fn follow_flows(&mut self, world: &World, now: Duration, moved: &[u64]) {
        self.is_live.resize(world.flows().len(), false);
        for (number, flow) in (0..).zip(world.flows()) {
            let Some(was_live) = self.is_live.get(number as usize).copied() else {
                continue;
            };
            let is_open = flow.state == FlowState::Open && flow.established.is_some() && flow.ended.is_none();
            // What of a UDP flow may be forgotten or open anew, a TCP connection breaks by.
            let settled = is_open == was_live && flow.spec.proto == L4Proto::Tcp;
            if settled || (!is_open && !was_live) {
                continue;
            }
            let tuple = tuple(flow);
            let divided =
                self.excuses.divided_opening(flow) || Excuses::taken_over_opening(self.scenario, flow, moved);
            let live = LiveFlow {
                number,
                divided,
                tuple,
            };
            let is_live =
                is_open && !self.is_forgotten(&live, now) && !self.may_reopen(world, &live, now, moved);
            if is_live == was_live {
                continue;
            }
            let key = oracle::key(&tuple);
            if is_live {
                self.live.insert(key, live);
                self.ledger.touch(key);
            } else if self.live.get(&key).is_some_and(|other| other.number == number) {
                self.live.remove(&key);
            }
            self.is_live[number as usize] = is_live;
        }
    }

    /// The result.
    pub(crate) fn finish(
        mut self,
        built: &Built,
        watch: &Watch,
        timeline: &Timeline<'_>,
        seed: u64,
        recorder: Option<Recorder>,
    ) -> Report {
        let world = &built.world;
        self.last = sample(world, self.scenario.duration);
        self.excuses.end(&self.last.nodes);
        let end = self.scenario.duration;
        self.panics.ask(Oracle::TablesEqual.says().0, end, || {
            if self.scenario.cluster.clustered {
                self.tables_equal.end(&self.last);
            }
        });
        self.outbound_unique.found.join(&watch.reuse.found);
        self.panics.join(&watch.panics);
        let mut engine = Counters::default();
        self.ended.values().for_each(|c| engine.add(c));
        for (number, flow) in (0..).zip(world.flows()) {
            let live = LiveFlow {
                number,
                divided: false,
                tuple: tuple(flow),
            };
            let excused = self
                .excuses
                .excuse(self.scenario, (number, flow), end, &watch.moved);
            let forgotten =
                excused.is_some() || self.is_forgotten(&live, end) || self.is_left_behind(flow, watch);
            self.panics.ask(Oracle::ByteStreams.says().0, end, || {
                self.streams.flow(end, number, flow, forgotten);
            });
        }
        let wrong = self.wrong(world, watch, end);
        let mut excused = BTreeMap::new();
        for excuse in wrong.iter().filter_map(|w| w.excuse) {
            *excused.entry(excuse.says(self.scenario)).or_default() += 1;
        }
        let measures = self.measures(built, watch, timeline, &engine, &wrong);
        let mut failures = std::mem::take(&mut self.panics.failures);
        let mut judged = Vec::new();
        for expectation in &self.scenario.expects {
            let result = expect::judge(expectation, &measures).result;
            if recorder.is_some() {
                judged.push(Judged::expectation(expectation, &result));
            }
            failures.extend(result.err());
        }
        let expected = failures.len();
        let last_second = nanos(self.scenario.duration.saturating_sub(QUIET_MIN));
        for &oracle in Oracle::ALL {
            let found = self.found(watch, oracle);
            let (name, says) = oracle.says();
            if found.first.is_none() && found.looked == 0 && self.applies(oracle) {
                failures.push(Failure {
                    name: name.to_owned(),
                    expected: says.to_owned(),
                    seen: "could not be measured: there was nothing to look at".to_owned(),
                    at_ns: measures.end_ns,
                    unmeasured: true,
                });
            }
            let Some(first) = &found.first else { continue };
            let more = if found.count > 1 {
                format!("; and {} more", found.count - 1)
            } else {
                String::new()
            };
            let loud = match oracle {
                Oracle::TablesEqual if watch.host_sent_at.is_some_and(|at| at > last_second) => {
                    "; the network was not quiet: lengthen `quiet`"
                }
                _ => "",
            };
            failures.push(Failure {
                name: name.to_owned(),
                expected: says.to_owned(),
                seen: format!("{}{more}{loud}", first.what),
                at_ns: first.at_ns,
                unmeasured: false,
            });
        }
        let happened: Vec<_> = timeline
            .done
            .iter()
            .map(|d| (nanos(d.at), d.what.clone()))
            .collect();
        let record = recorder.map(|recorder| {
            judged.extend(Oracle::ALL.iter().map(|oracle| {
                let (name, says) = oracle.says();
                let failure = failures.iter().skip(expected).find(|f| f.name == name);
                Judged::oracle(name, says, self.found(watch, *oracle).looked, failure)
            }));
            recorder.finish(self.scenario, world, watch, &measures, judged, &happened)
        });
        let drops = DropReason::ALL.iter().zip(&engine.drops).filter(|d| *d.1 > 0);
        let drops = drops.map(|(reason, n)| (reason.name(), *n)).collect();
        let sync = sync_frame::SYNC_COUNTERS
            .iter()
            .copied()
            .zip(watch.sync_counts)
            .filter(|c| c.1 > 0)
            .collect();
        let counts = node_counters().zip(self.counts.all(world));
        let counts = counts.filter(|c| c.1 > 0).collect();
        Report {
            outcome: Outcome::of(self.scenario, &failures),
            failures,
            events: world.counters().events,
            hops: world.counters().frames_delivered,
            memory_bytes: world.counters().memory_bytes_peak,
            digest: world.digest(),
            timeline: happened,
            record: record.map(Box::new),
            excused,
            kept_back: timeline.touched(),
            broken_flows: broken_flows(&built.world, nanos(self.scenario.duration)),
            drops,
            lost: lost(world),
            sync,
            counts,
            situations: self.bites.join(&watch.said.situations),
            ..Report::new(self.scenario, seed, &measures)
        }
        .judged()
    }

    /// Whether its service replicates nothing, and its packets may have come to another node since it was connected.
    fn is_left_behind(&self, flow: &FlowRecord, watch: &Watch) -> bool {
        let mut services = self.scenario.services.iter();
        let service = services.find(|s| s.vip == flow.spec.target && s.proto == flow.spec.proto);
        let since = flow.established.map_or(u64::MAX, |t| t.as_nanos());
        service.is_some_and(|s| s.replicate == Replicate::Off) && watch.moved.iter().any(|at| *at > since)
    }

    /// Whether an oracle has something to look at if all goes well.
    fn applies(&self, oracle: Oracle) -> bool {
        let off = plan::switch(self.scenario) == Some(Switch::ReplicateOff);
        // What is left of a plan that is shrunk may have no flow of a service whose sessions are told.
        let told = |service: usize| {
            let service = self.scenario.services.get(service);
            service.is_some_and(|s| s.replicate != Replicate::Off)
        };
        let mut loads = self.scenario.loads.iter();
        let any = loads.any(|load| match &load.arrival {
            Arrival::Planned(flows) => flows.iter().any(|f| told(f.service)),
            _ => load.services.iter().any(|s| told(*s)),
        });
        let replicates = self.scenario.cluster.clustered && !off && any;
        match oracle {
            Oracle::VersionsGrow => replicates,
            // Who runs alone at the end is compared with nobody.
            Oracle::TablesEqual => replicates && self.last.nodes.len() > 1,
            // Not every run has a node that joins others, or a session that ends.
            Oracle::ReadyKnows
            | Oracle::ReplicaKeeps
            | Oracle::HolderCloses
            | Oracle::ClosedStays
            | Oracle::DeferredSurvives => false,
            _ => true,
        }
    }

    fn found<'a>(&'a self, watch: &'a Watch, oracle: Oracle) -> &'a Found {
        match oracle {
            Oracle::ServerStays => &self.server_stays.found,
            Oracle::OutboundUnique => &self.outbound_unique.found,
            Oracle::Checksums => &watch.checksums.found,
            Oracle::ByteStreams => &self.streams.found,
            Oracle::Conserved => &self.conserved.found,
            Oracle::VersionsGrow => &self.versions_grow.found,
            Oracle::ReadyKnows => &self.ready_knows.found,
            Oracle::ReplicaKeeps => &self.replica_keeps.found,
            Oracle::HolderCloses => &watch.holder_closes.found,
            Oracle::ClosedStays => &watch.closed_stays.found,
            Oracle::DeferredSurvives => &self.deferred_survives.found,
            Oracle::Bounds => &self.bounds.found,
            Oracle::TablesEqual => &self.tables_equal.found,
        }
    }

    fn measures(
        &self,
        built: &Built,
        watch: &Watch,
        timeline: &Timeline<'_>,
        engine: &Counters,
        wrong: &[Wrong],
    ) -> Measures {
        let end = self.scenario.duration;
        let end_ns = nanos(end);
        let taken_at = watch.vip_taken_at;
        let blocked = self.blocked(&built.world);
        let flows = (0..).zip(built.world.flows()).zip(&self.loads);
        let flows = flows.map(|((number, flow), &load)| {
            // What is connected between the fault and the take-over is so by a SYN-ACK that was on its way.
            let known = watch.vip_taken_at.or(watch.fault_at);
            let connected = flow
                .established
                .zip(known)
                .is_some_and(|(t, k)| t.as_nanos() <= k);
            // So is what ends well before somebody takes over: it needed no node any more.
            let ended_well = flow.ended.filter(|_| flow.broken.is_none());
            let over = ended_well.zip(known).is_some_and(|(t, k)| t.as_nanos() <= k);
            let at_fault = self.at_fault.get(&number);
            // A request that is never answered stalls to the end.
            let waits = flow
                .awaiting_since
                .filter(|_| flow.ended.is_none())
                .map(|t| end_ns.saturating_sub(t.as_nanos()));
            let longest = nanos(flow.longest_stall);
            let (stall_ns, stall_at_ns) = match waits {
                Some(waits) if waits > longest => (waits, flow.awaiting_since.map_or(0, |t| t.as_nanos())),
                _ => (longest, flow.longest_stall_from.as_nanos()),
            };
            let ends = at_fault.and_then(|a| a.0).into_iter().chain([flow.client()]);
            let sent = ends.filter_map(|end| watch.first_sent.get(&end)).max();
            let to_segment = match (sent, taken_at) {
                (Some(sent), Some(taken)) if stall_at_ns.saturating_add(stall_ns) > taken => {
                    sent.saturating_sub(taken)
                }
                _ => 0,
            };
            // The longer of both ends' times, and ways: for the segment itself and for the whole reply, window by window.
            let round_trips = 2 + u64::from(flow.spec.reply_len + flow.spec.request_len) / 1_000;
            FlowFacts {
                number,
                load,
                opened: flow.opened.is_some(),
                established: flow.established.is_some(),
                completed: flow.state == FlowState::Closed,
                broken_at_ns: flow.broken.map(|_| flow.ended.map_or(end_ns, |t| t.as_nanos())),
                hanging: self.hangs(flow),
                blocked: blocked.contains(&oracle::key(&tuple(flow))),
                live_at_fault: at_fault.is_some() && connected && !over,
                replicated: at_fault.is_some_and(|a| a.1),
                opening_at_fault: at_fault.is_some()
                    && flow
                        .established
                        .zip(taken_at)
                        .is_some_and(|(t, k)| t.as_nanos() > k),
                later: flow
                    .opened
                    .is_some_and(|t| watch.fault_at.is_some_and(|f| t.as_nanos() > f)),
                stall_ns,
                stall_at_ns,
                next_rto_ns: to_segment
                    + round_trips * nanos(built.round_trip)
                    + watch.fault_at.unwrap_or(0).saturating_sub(stall_at_ns),
            }
        });
        let mut measures = Measures {
            flows: flows.collect(),
            globals: BTreeMap::new(),
            named: self.named(&built.world, watch, wrong),
            wrong: self.wrong_in_words(&built.world, wrong),
            end_ns,
        };
        let mut set = |metric, value: u64| {
            measures.globals.insert(metric, (value.into(), end_ns));
        };
        set(Metric::Untriggered, timeline.untriggered());
        set(Metric::Damaged, timeline.damaged());
        if let Some((down, again)) = chosen(&built.world, timeline.verdicts()) {
            set(Metric::ChoseDown, down);
            set(Metric::ChoseAgain, again);
        }
        set(Metric::Drops, engine.dropped());
        set(Metric::Probes, engine.port_probes_taken);
        for (i, n) in (0..).zip(engine.drops) {
            set(Metric::Drop(i), n);
        }
        for (i, n) in (0..).zip(watch.sync_counts) {
            set(Metric::Sync(i), n);
        }
        for (i, n) in (0..).zip(self.counts.all(&built.world)) {
            set(Metric::Count(i), n);
        }
        let said = &watch.said;
        set(Metric::EarlyMasters, said.early_masters);
        set(Metric::Fenced, said.fenced);
        set(Metric::Drained, said.drained);
        set(Metric::Alarms, said.alarms);
        set(Metric::ColdAlarms, said.cold_alarms);
        set(Metric::OpenAlarms, said.open_alarms.len() as u64);
        set(Metric::Takeovers, watch.takeovers());
        set(Metric::Rehashes, watch.rehashes);
        if let Some((interval, multiplier)) = self.scenario.router.and_then(|r| r.detection) {
            set(Metric::MemberDown, nanos(interval * (u32::from(multiplier) + 1)));
        }
        set(
            Metric::Ready,
            self.last.nodes.iter().filter(|n| n.ready).count() as u64,
        );
        set(Metric::Degraded, self.degraded.len() as u64);
        set(
            Metric::Sessions,
            self.last.nodes.iter().map(|n| n.rows.len() as u64).sum(),
        );
        if self.last.nodes.iter().filter(|n| n.ready).count() > 1 {
            set(Metric::Unequal, self.tables_equal.found.count);
        }
        if let Some(fault_at) = watch.fault_at {
            set(
                Metric::Resurrected,
                self.resurrected(&built.world, watch, fault_at).len() as u64,
            );
        }
        if self.scenario.cluster.clustered {
            set(Metric::NotReady, not_ready(&built.world).count() as u64);
            let masters = FAMILIES.map(|family| masters(&built.world, family).count() as u64);
            set(Metric::Masters, masters.into_iter().max().unwrap_or(0));
        }
        set(
            Metric::Unexcused,
            wrong.iter().filter(|w| w.excuse.is_none()).count() as u64,
        );
        set(Metric::MasterDown, self.master_down());
        if let Some(detection) = watch.detection() {
            set(Metric::Detection, detection);
        }
        if let Some(taken) =
            watch.all_taken(|lb| built.world.lb(lb).is_some_and(|lb| lb.state() == LbState::Down))
        {
            set(Metric::AllTaken, taken);
        }
        if let Some(since) = self.equal_since {
            set(Metric::Converged, nanos(since.saturating_sub(self.last_fault)));
        }
        if let Some(join) = self.join(&built.world) {
            set(Metric::Join, join);
        }
        if let Some((metric, at)) = watch.vip_taken_at.map(|at| (Metric::Detection, at))
            && let Some(entry) = measures.globals.get_mut(&metric)
        {
            entry.1 = at;
        }
        measures
    }

    /// Clients' tuples of sessions with the ends of one that died with the last node that had it: at the end, or, of a flow
    /// that was never connected, the last that it had. A client that waits for its next try may have none just then.
    fn blocked(&self, world: &World) -> BTreeSet<oracle::Key> {
        let rows = self.last.nodes.iter().flat_map(|n| &n.rows);
        let at_the_end = rows.filter(|row| self.excuses.died(row));
        let never = world.flows().iter().filter(|flow| flow.established.is_none());
        let waiting = never.map(|flow| oracle::key(&tuple(flow)));
        at_the_end
            .map(|row| oracle::key(&row.inbound))
            .chain(waiting.filter(|key| self.met_dead.contains(key)))
            .collect()
    }

    /// Whether at the end a flow waits for what it asked for before the quiet began: a connection, a reply, its close.
    /// That is as long as anything may take which comes to rest at all.
    fn hangs(&self, flow: &FlowRecord) -> bool {
        let quiet_from = nanos(self.scenario.duration.saturating_sub(self.scenario.quiet));
        let waits = flow.awaiting_since.is_some_and(|t| t.as_nanos() <= quiet_from);
        flow.opened.is_some() && flow.ended.is_none() && (waits || flow.state == FlowState::Closing)
    }

    /// Clients' tuples of sessions in tables whose flows ended so long before the fault that their holder had told it. Of
    /// those that ended by a RST which no node received nobody knows that they did.
    fn resurrected(&self, world: &World, watch: &Watch, fault_at: u64) -> BTreeSet<oracle::Key> {
        let over = |flow: &&FlowRecord| {
            let within = nanos(told_within(self.scenario));
            let told = |t: evenkeel_core::time::Instant| t.as_nanos() + within < fault_at;
            let unheard =
                flow.spec.end == FlowEnd::Reset && watch.lost_reset(flow.client(), flow.spec.target);
            flow.broken.is_none() && flow.ended.is_some_and(told) && !unheard
        };
        let over: BTreeSet<oracle::Key> = world
            .flows()
            .iter()
            .filter(over)
            .map(|f| oracle::key(&tuple(f)))
            .collect();
        let rows = self.last.nodes.iter().flat_map(|n| &n.rows);
        let live = rows.filter(|r| r.state == ConnState::Established);
        let keys: BTreeSet<_> = live.map(|r| oracle::key(&r.inbound)).collect();
        keys.intersection(&over).copied().collect()
    }

    /// The longest time from a start to readiness of the nodes that run at the end and were started by a fault: who
    /// was there before it and had nobody to ask has not joined anything. `None`: there is none, or one is not ready.
    fn join(&self, world: &World) -> Option<u64> {
        let running = world.lbs().filter(|lb| lb.state() != LbState::Down);
        let lives = running.filter_map(|lb| self.lives.get(&(lb.id().0, lb.lives())));
        let joined = lives.filter(|(began, _)| *began > Duration::ZERO);
        let joins = joined.map(|(began, ready)| Some(nanos(ready.as_ref()?.saturating_sub(*began))));
        joins.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// RFC 9568, 6.1: three intervals and the skew of the backup with the lowest priority.
    fn master_down(&self) -> u64 {
        let interval = nanos(self.scenario.cluster.advertisement);
        let lowest = self
            .scenario
            .cluster
            .nodes
            .iter()
            .map(|n| n.priority)
            .min()
            .unwrap_or(0);
        3 * interval + (256 - u64::from(lowest)) * interval / 256
    }
}

/// Flows that were opened while all nodes knew that a real server was down, and after they knew that it was up again, and
/// were served by it. `None`: no check failed.
fn chosen(world: &World, verdicts: &[Verdict]) -> Option<(u64, u64)> {
    let (mut down, mut again) = (0, 0);
    for verdict in verdicts {
        let number = build::server_number(verdict.server.service, verdict.server.server);
        let known = nanos(verdict.from + VERDICT_WITHIN);
        let (ended, well) = match verdict.until {
            Some(until) => (nanos(until), nanos(until + VERDICT_WITHIN)),
            None => (u64::MAX, u64::MAX),
        };
        for flow in world.flows().iter().filter(|f| f.server == Some(number)) {
            let opened = flow.opened.map_or(0, |t| t.as_nanos());
            down += u64::from((known..ended).contains(&opened));
            again += u64::from(opened >= well);
        }
    }
    (!verdicts.is_empty()).then_some((down, again))
}

/// Since when clients' tuples are those of established flows.
fn established(world: &World) -> BTreeMap<oracle::Key, Duration> {
    let flows = world.flows().iter();
    let established = flows.filter_map(|flow| {
        let at = flow.established?.as_nanos();
        Some((oracle::key(&tuple(flow)), Duration::from_nanos(at)))
    });
    established.collect()
}

/// What links, rings and queues lost, by reason.
fn lost(world: &World) -> BTreeMap<&'static str, u64> {
    let mut lost = whatever_lost(world);
    lost.retain(|_, n| *n > 0);
    lost
}

/// With what is counted and was never lost.
pub(crate) fn whatever_lost(world: &World) -> BTreeMap<&'static str, u64> {
    let mut lost = BTreeMap::new();
    let mut add = |why, n: u64| *lost.entry(why).or_default() += n;
    for way in (0..).map_while(|id| world.link_counters(LinkId(id))).flatten() {
        add("link-cut", way.cut);
        add("link-queue-full", way.queue_full);
        add("link-loss", way.lost);
        add("link-mtu", way.too_large);
        add("link-corrupted", way.corrupted);
    }
    for switch in (0..).map_while(|id| world.switch_counters(SwitchId(id))) {
        add("switch-parted", switch.parted);
        add("switch-wrong-vlan", switch.wrong_vlan);
    }
    for router in (0..).map_while(|id| world.router_counters(RouterId(id))) {
        add("router-ttl", router.ttl_over);
        add("router-no-route", router.no_route);
        add("router-no-member", router.no_member);
        add("router-no-neighbour", router.no_neighbour);
    }
    for lb in world.lbs() {
        let (data, sync) = (lb.counters(), lb.sync_counters());
        add("node-down", data.down + sync.down);
        add("bucket-dark", data.bucket_dark);
        add("lost-in-crash", data.lost_in_crash + sync.lost_in_crash);
        add("rx-ring-full", data.rx_ring_full);
        add("handoff-ring-full", data.handoff_ring_full);
        add("sync-ring-full", sync.ring_full);
        add("messages-full", sync.messages_full);
        add("commands-full", sync.commands_full);
        add("events-full", sync.events_full);
        add("punted-full", sync.punted_full);
    }
    lost
}

/// A flow, if it broke.
fn broken_flow(number: u32, flow: &FlowRecord, end_ns: u64) -> Option<BrokenFlow> {
    Some(BrokenFlow {
        flow: number,
        tuple: tuple(flow).to_string(),
        server: flow.server,
        why: flow.broken?.name(),
        waiting_since_ns: flow.awaiting_since.map(|t| t.as_nanos()),
        at_ns: flow.ended.map_or(end_ns, |t| t.as_nanos()),
    })
}

/// The first flows that broke.
fn broken_flows(world: &World, end_ns: u64) -> Vec<BrokenFlow> {
    let flows = (0u32..).zip(world.flows());
    let broken = flows.filter_map(|(number, flow)| broken_flow(number, flow, end_ns));
    let mut flows: Vec<BrokenFlow> = broken.collect();
    flows.sort_by_key(|b| (b.at_ns, b.flow));
    flows.truncate(BROKEN_FLOWS_MAX);
    flows
}

#[cfg(test)]
impl Judge<'_> {
    /// How much an oracle has looked at; and lets it find something that is not there.
    pub(crate) fn doctor(&mut self, watch: &mut Watch, oracle: Oracle) -> u64 {
        let found = match oracle {
            Oracle::ServerStays => &mut self.server_stays.found,
            Oracle::OutboundUnique => &mut self.outbound_unique.found,
            Oracle::Checksums => &mut watch.checksums.found,
            Oracle::ByteStreams => &mut self.streams.found,
            Oracle::Conserved => &mut self.conserved.found,
            Oracle::VersionsGrow => &mut self.versions_grow.found,
            Oracle::ReadyKnows => &mut self.ready_knows.found,
            Oracle::ReplicaKeeps => &mut self.replica_keeps.found,
            Oracle::HolderCloses => &mut watch.holder_closes.found,
            Oracle::ClosedStays => &mut watch.closed_stays.found,
            Oracle::DeferredSurvives => &mut self.deferred_survives.found,
            Oracle::Bounds => &mut self.bounds.found,
            Oracle::TablesEqual => &mut self.tables_equal.found,
        };
        found.add(Duration::from_secs(1), || oracle.says().0.to_owned());
        found.looked
    }
}
