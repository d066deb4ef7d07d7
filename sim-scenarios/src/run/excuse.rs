//! Which flows may break by what happened to them. A run of many faults cannot say how many flows break; it can say of each
//! one that breaks whether anything excuses it. The rule, which `docs/scenarios.md` tells in words:
//!
//! - A node crashes, and no other node that runs has the flow's session then.
//! - A fault divides the nodes, or deafens one, while the flow is open or a little later: who serves may be two, or one
//!   that has not heard of the session. One that meets a bucket, a worker or a service excuses the flows of that alone.
//! - Its node gave it the ends of a session that died with the last node that had it: the server may not take it yet.
//! - Its service replicates nothing, or not before its SYN-ACK or until it is established at its node, and another node takes over
//!   meanwhile, or so shortly before that its client has not heard of it.
//!
//! Nothing else excuses anything: neither what a crash alone does to sessions that others have, nor a start, nor a node that
//! leaves, nor frames that come late or twice, nor losses on the way of clients and servers that TCP repairs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::lport::Steering;
use evenkeel_core::port::WorkerId;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::BucketMap;
use evenkeel_io_sim::{FlowRecord, LbId, LbState, World};

use super::build::{self, REORDERED_BY};
use super::judge::{rows, tuple};
use super::{cluster, nanos};
use crate::oracle::{self, Ends, Key, NodeSample, Row};
use crate::scenario::{Action, Change, Network, Replicate, Scenario, ServerRef};

/// What a fault that divides nodes has done is over so long after its end: they hear each other again, compare what they
/// have, and tell the network who serves.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// Of a loss of this share, in millionths, heartbeats get through: too few are lost in a row for a node to seem dead.
const LOSS_HEARD_PPM: u32 = 10_000;

/// The worker that takes what RSS does not deal: ARP, neighbour discovery, VRRP. If it is slow, its node is.
const FIRST_WORKER: u8 = 0;

/// Why a flow may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Excuse {
    /// Its session died with a node: the fault's index, if it is one of the scenario's.
    Died(usize),
    /// A fault was in force while it was open, or a little earlier: its index.
    Divided(usize),
    /// Another node took over before it was told of the session, or before the client had heard of that node.
    TakenOver,
    /// Its session has the ends of one that died with the last node that had it.
    DeadEnds,
    /// It was never opened.
    Unopened,
}

impl Excuse {
    /// In words, as a report says it.
    pub(crate) fn says(self, scenario: &Scenario) -> String {
        let name = |fault: usize| scenario.faults.get(fault).map_or("?", |f| f.name.as_str());
        match self {
            Excuse::Died(fault) => format!("{}: its session died with the node", name(fault)),
            Excuse::Divided(fault) => name(fault).to_owned(),
            Excuse::TakenOver => "a take-over before its session was told".to_owned(),
            Excuse::DeadEnds => "the ends of a session that died".to_owned(),
            Excuse::Unopened => "it was never opened".to_owned(),
        }
    }
}

/// Which flows a fault meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    All,
    /// Those of the service at this index.
    Service(usize),
    /// Those of a service that this server serves, or that no server has greeted.
    Server(ServerRef),
    /// Those that fall into this RSS bucket.
    Bucket(u16),
    /// Those whose buckets are this worker's, of so many.
    Worker(u8, u8),
}

/// A fault that divides, from when to when.
#[derive(Clone, Copy, Debug)]
struct Divided {
    fault: usize,
    reach: Reach,
    begins: Duration,
    ends: Option<Duration>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Excuses {
    /// Flows, by number, whose sessions died with a node, and by which fault.
    lost: BTreeMap<u32, usize>,
    /// Ends, of node and server, of sessions that died so.
    ends: BTreeSet<Ends>,
    divided: Vec<Divided>,
    /// Virtual services: protocol and address, as flows name them.
    services: Vec<(L4Proto, SocketAddr)>,
    /// How all nodes deal tuples to buckets; `None`: each has a way of its own.
    steering: Option<Arc<Steering>>,
    /// Workers of each node.
    workers: Vec<u8>,
    /// At the end: flows, by their client's tuple, whose sessions no node has that is further than opening them.
    opening: BTreeSet<Key>,
}

/// A node crashes. Ends are those of node and server.
#[derive(Debug)]
pub(crate) struct Crash {
    pub(crate) lb: Option<LbId>,
    /// Of sessions that die with it: nobody is left who knows that they are in use.
    pub(crate) died: BTreeSet<Ends>,
    /// Of sessions that are known to who is left.
    pub(crate) known: BTreeSet<Ends>,
}

impl Excuses {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Excuses {
            services: scenario.services.iter().map(|s| (s.proto, s.vip)).collect(),
            steering: build::common_steering(scenario),
            workers: scenario.cluster.nodes.iter().map(|n| n.workers).collect(),
            ..Excuses::default()
        }
    }

    /// A fault's step is about to be done to a node. Returns, if it crashes, what those who are left know.
    pub(crate) fn step(
        &mut self,
        world: &World,
        now: Duration,
        (fault, action, undo): (usize, &Action, bool),
        met: Option<LbId>,
    ) -> Option<Crash> {
        if let (Action::Crash(..), false) = (action, undo) {
            return Some(self.crash(world, fault, met));
        }
        let workers = met.and_then(|lb| self.workers.get(usize::from(lb.0)));
        let reach = reach(action, workers.copied())?;
        if undo {
            let all = self.divided.iter_mut();
            let open = all.filter(|d| d.fault == fault && d.ends.is_none());
            open.for_each(|d| d.ends = Some(now));
        } else {
            self.divided.push(Divided {
                fault,
                reach,
                begins: now,
                ends: None,
            });
        }
        None
    }

    fn crash(&mut self, world: &World, fault: usize, met: Option<LbId>) -> Crash {
        let survivors = || {
            world
                .lbs()
                .filter(|lb| lb.state() == LbState::Running && Some(lb.id()) != met)
        };
        let (mut known, mut ends) = (BTreeSet::new(), BTreeSet::new());
        for row in survivors().flat_map(|lb| rows(lb)) {
            known.insert(oracle::key(&row.inbound));
            ends.insert((row.local, row.server));
        }
        // What a node alone knows that has not joined may be lost when it does.
        let anybody = survivors().any(|lb| cluster::is_ready(lb) || cluster::is_degraded(lb));
        for (number, flow) in (0..).zip(world.flows()) {
            let key = oracle::key(&tuple(flow));
            if flow.opened.is_some() && flow.ended.is_none() && !(anybody && known.contains(&key)) {
                self.lost.entry(number).or_insert(fault);
            }
        }
        let crashed = world
            .lbs()
            .filter(|lb| Some(lb.id()) == met)
            .flat_map(|lb| rows(lb));
        let dies = |row: &Row| !(anybody && known.contains(&oracle::key(&row.inbound)));
        let died: BTreeSet<_> = crashed.filter(dies).map(|row| (row.local, row.server)).collect();
        self.ends.extend(&died);
        if !anybody {
            ends.clear();
        }
        Crash {
            lb: met,
            died,
            known: ends,
        }
    }

    /// Whether a session has the ends of one that died with the last node that had it.
    pub(crate) fn died(&self, row: &Row) -> bool {
        self.ends.contains(&(row.local, row.server))
    }

    /// What excuses that a flow breaks, by `now`, if something does. `moved`: when clients' packets began to come to other nodes.
    pub(crate) fn excuse(
        &self,
        scenario: &Scenario,
        (number, flow): (u32, &FlowRecord),
        now: Duration,
        moved: &[u64],
    ) -> Option<Excuse> {
        if let Some(fault) = self.lost.get(&number) {
            return Some(Excuse::Died(*fault));
        }
        let Some(opened) = flow.opened.map(|t| t.as_nanos()) else {
            return Some(Excuse::Unopened);
        };
        let ended = flow.ended.map_or(nanos(now), |t| t.as_nanos());
        if let Some(fault) = self.divided(flow, opened, ended) {
            return Some(Excuse::Divided(fault));
        }
        let service = self.service(flow).and_then(|at| scenario.services.get(at));
        let untold_until = match service.map(|s| s.replicate) {
            Some(Replicate::Off) | None => ended,
            // What its client sent since may have been lost: its node waits for it still, and has told nobody.
            Some(Replicate::Established) if self.opening.contains(&oracle::key(&tuple(flow))) => ended,
            Some(Replicate::Established) => flow.established.map_or(ended, |t| {
                t.as_nanos() + nanos(super::judge::told_within(scenario))
            }),
            // Told with its SYN-ACK: who takes over before that gives the client's next SYN to a server of its own choice, which
            // connects it too.
            Some(Replicate::SynAck | Replicate::Deferred(_)) => {
                flow.established.map_or(opened, |t| t.as_nanos())
            }
        };
        // Until a client has heard who answers now, its first packets go to who did.
        let heard_within = nanos(heard_within(scenario));
        moved
            .iter()
            .any(|at| opened < at + heard_within && *at < untold_until)
            .then_some(Excuse::TakenOver)
    }

    /// The run ends, with these sessions.
    pub(crate) fn end(&mut self, nodes: &[NodeSample]) {
        self.opening = oracle::opening(nodes);
    }

    /// Whether a fault divided the nodes, or does, since a flow opened.
    pub(crate) fn divided_until(&self, flow: &FlowRecord, now: Duration) -> bool {
        let opened = flow.opened.map(|t| t.as_nanos());
        opened.is_none_or(|opened| self.divided(flow, opened, nanos(now)).is_some())
    }

    /// Whether a fault divided the nodes while a flow opened.
    pub(crate) fn divided_opening(&self, flow: &FlowRecord) -> bool {
        flow.opened
            .zip(flow.established)
            .is_some_and(|(opened, established)| {
                self.divided(flow, opened.as_nanos(), established.as_nanos())
                    .is_some()
            })
    }

    /// Whether clients' packets began to come to another node while a flow opened, or so shortly before that its client had not heard
    /// of it: its SYN may have come to two, neither of which tells the other before there is a SYN-ACK.
    pub(crate) fn taken_over_opening(scenario: &Scenario, flow: &FlowRecord, moved: &[u64]) -> bool {
        let heard_within = nanos(heard_within(scenario));
        flow.opened
            .zip(flow.established)
            .is_some_and(|(opened, established)| {
                let mut moved = moved.iter();
                moved.any(|at| opened.as_nanos() < at + heard_within && *at < established.as_nanos())
            })
    }

    /// The first fault that divided the nodes for a flow between two times, or shortly before.
    fn divided(&self, flow: &FlowRecord, from: u64, to: u64) -> Option<usize> {
        let in_force = self.divided.iter().filter(|d| {
            let settled = d.ends.map_or(u64::MAX, |ends| nanos(ends + SETTLED_AFTER));
            nanos(d.begins) <= to && from <= settled
        });
        let mut meets = in_force.filter(|d| self.meets(d.reach, flow));
        meets.next().map(|d| d.fault)
    }

    /// The index of a flow's service.
    fn service(&self, flow: &FlowRecord) -> Option<usize> {
        let of = (flow.spec.proto, flow.spec.target);
        self.services.iter().position(|service| *service == of)
    }

    /// The bucket into which a flow falls, at all nodes.
    fn bucket(&self, flow: &FlowRecord) -> Option<u16> {
        let steering = self.steering.as_ref()?;
        Some(steering.bucket(steering.toeplitz().hash_tuple(&tuple(flow))))
    }

    /// Whether what a fault reaches a flow is of. What is not known is assumed.
    fn meets(&self, reach: Reach, flow: &FlowRecord) -> bool {
        match reach {
            Reach::All => true,
            Reach::Service(service) => self.service(flow) == Some(service),
            Reach::Server(ServerRef { service, server }) => {
                let number = build::server_number(service, server);
                self.service(flow) == Some(service) && flow.server.is_none_or(|n| n == number)
            }
            Reach::Bucket(bucket) => self.bucket(flow).is_none_or(|b| b == bucket),
            Reach::Worker(worker, of) => self
                .bucket(flow)
                .is_none_or(|b| BucketMap::dealt(of.into()).worker(b) == WorkerId(worker)),
        }
    }
}

/// An announcement of who answers for the VIPs has reached all clients after so long, over two links each. What a client
/// sends before goes to the node that did.
fn heard_within(scenario: &Scenario) -> Duration {
    let links = &scenario.links.clients;
    let late = scenario.faults.iter().map(|fault| match &fault.action {
        Action::Disturb(_, Network::Clients | Network::All, _, d) if d.reorder_ppm > 0 => d.reorder_by,
        _ => Duration::ZERO,
    });
    let late = late.max().unwrap_or_default();
    let late = late.max(if links.reorder_ppm > 0 {
        REORDERED_BY
    } else {
        Duration::ZERO
    });
    2 * (*links.delay.end() + late)
}

/// Of which flows a fault may let two nodes serve, or one that has not heard what it should have, or may end them by itself,
/// as another config does; `None`: of none. Of a kind that is not named here it is assumed of all. `workers`: of the node
/// that it meets.
fn reach(action: &Action, workers: Option<u8>) -> Option<Reach> {
    Some(match action {
        Action::Crash(..)
        | Action::Start(..)
        | Action::Resume(_)
        | Action::Drain(_)
        | Action::Heal(..)
        | Action::Look => return None,
        // TCP repairs what is lost between nodes and servers.
        Action::Disturb(_, Network::Servers, _, d) if d.arp_ppm == 0 => {
            return (d.loss_ppm == 1_000_000).then_some(Reach::All);
        }
        Action::Disturb(_, _, _, d) => {
            let loss = d.loss_ppm.max(d.corrupt_ppm).max(d.arp_ppm);
            let divides = loss > LOSS_HEARD_PPM || !d.delay.is_zero() || d.bandwidth.is_some();
            return divides.then_some(Reach::All);
        }
        // The NIC loses what RSS deals to the bucket, which is what has ports: neither ARP nor VRRP, nor what nodes tell each
        // other, which comes by a port of its own.
        Action::Bucket(_, bucket) => Reach::Bucket(*bucket),
        Action::Slow(_, Some(worker), _) if *worker != FIRST_WORKER => match workers {
            Some(of) => Reach::Worker(*worker, of),
            None => Reach::All,
        },
        Action::Config(_, Change::Servers(service, _) | Change::Served(service, _)) => {
            Reach::Service(*service)
        }
        // Sessions that a server has stay there, whatever its weight.
        Action::Config(_, Change::Weight(server, _)) | Action::Unhealthy(_, server) => Reach::Server(*server),
        _ => Reach::All,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::ONE_NODE;
    use crate::scenario::{Disturbance, Fault, NodeRef, Way};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_answers_is_heard_once_the_slowest_announcement_is_there() {
        let mut scenario = crate::swarm::draw(0);
        scenario.links.clients.delay = MS..=10 * MS;
        scenario.links.clients.reorder_ppm = 0;
        scenario.faults.clear();
        assert_eq!(heard_within(&scenario), 20 * MS);
        scenario.links.clients.reorder_ppm = 10_000;
        assert_eq!(heard_within(&scenario), 30 * MS);
        for (network, within) in [(Network::Sync, 30 * MS), (Network::Clients, 80 * MS)] {
            let late = Disturbance {
                reorder_ppm: 1,
                reorder_by: 30 * MS,
                ..Disturbance::default()
            };
            let mut fault: Fault = crate::swarm::draw(0).faults.remove(0);
            fault.action = Action::Disturb(NodeRef::Master, network, Way::Both, late);
            scenario.faults = vec![fault];
            assert_eq!(heard_within(&scenario), within);
        }
    }

    /// A fault of one bucket, worker, server or service says nothing of the flows of others.
    #[test]
    fn a_fault_of_a_part_excuses_the_flows_of_that_part() {
        let scenario = crate::plan(&crate::run::tests::scenario(ONE_NODE), 1);
        let [first, second, ..] = &scenario.services[..] else {
            panic!("two services");
        };
        let world = crate::run::tests::world_at(ONE_NODE, 1, Duration::ZERO);
        let one = NodeRef::Id(1);
        let excused = |action: &Action, flow: &FlowRecord| {
            let mut excuses = Excuses::new(&scenario);
            excuses.workers = vec![4];
            excuses.step(&world, MS, (0, action, false), Some(LbId(0)));
            excuses.excuse(&scenario, (0, flow), 2_000 * MS, &[]) == Some(Excuse::Divided(0))
        };
        let flow = |of: &crate::scenario::Service, port, server| {
            let mut flow = world.flows()[0].clone();
            (flow.spec.proto, flow.spec.target, flow.server) = (of.proto, of.vip, server);
            flow.spec.source.set_port(port);
            flow.opened = Some(evenkeel_core::time::Instant::from_millis(1_000));
            flow
        };
        let server = ServerRef {
            service: 0,
            server: 2,
        };
        for action in [
            Action::Unhealthy(None, server),
            Action::Config(Some(one), Change::Weight(server, 0)),
        ] {
            assert!(excused(&action, &flow(first, 7, None)), "nobody serves it yet");
            let this = build::server_number(0, 2);
            assert!(excused(&action, &flow(first, 7, Some(this))));
            assert!(
                !excused(&action, &flow(first, 7, Some(this + 1))),
                "another server"
            );
            assert!(!excused(&action, &flow(second, 7, None)), "another service");
        }
        let unserved = Action::Config(None, Change::Served(1, false));
        assert!(excused(
            &unserved,
            &flow(second, 7, Some(build::server_number(1, 1)))
        ));
        assert!(!excused(&unserved, &flow(first, 7, None)));
        // As many flows as there are buckets fall into different ones.
        let excuses = Excuses::new(&scenario);
        let mut met = [0; 3];
        for port in 1_000..1_400 {
            let flow = flow(first, port, None);
            let bucket = excuses.bucket(&flow).expect("all nodes have one key");
            for (n, (action, is_met)) in [
                (Action::Bucket(one, 3), bucket == 3),
                (Action::Slow(one, Some(1), 10), bucket % 4 == 1),
                // It has all that RSS does not deal.
                (Action::Slow(one, Some(0), 10), true),
            ]
            .into_iter()
            .enumerate()
            {
                assert_eq!(excused(&action, &flow), is_met, "bucket {bucket}: {action:?}");
                met[n] += u32::from(is_met);
            }
            assert!(excused(&Action::Slow(one, None, 10), &flow));
        }
        assert!(
            met[0] > 0 && met[1] > 50 && met[1] < 200 && met[2] == 400,
            "{met:?}"
        );
    }
}
