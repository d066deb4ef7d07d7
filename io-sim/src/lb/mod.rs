//! A load balancer: the production engine's workers over simulated NICs, driven by events.

mod clock;
mod cluster;
mod done;
mod fill;
mod look;
mod nic;
mod port;
mod spec;

pub use clock::DRIFT_PPM_MAX;
pub use cluster::{LbCluster, LbQueues, LbSyncCounters};
pub use done::SLOWNESS_MAX;
pub use look::LbRef;
pub use spec::{LbCost, LbCounters, LbRings, LbSpec, LbState, WorkerCounters};

use std::collections::BTreeSet;
use std::sync::Arc;

use evenkeel_core::cluster::{Incarnation, NodeCommand, PeerId};
use evenkeel_core::conn::HeapMemory;
use evenkeel_core::port::{Frame, HeapFrame, PortId, RxChecksum, WorkerId};
use evenkeel_core::service::{Snapshot, SnapshotSpec};
use evenkeel_core::stats::SyncCount;
use evenkeel_core::step::{StepBuffers, step};
use evenkeel_core::sync::codec::is_bulk;
use evenkeel_core::sync::{ClusterWorkerConfig, SyncCommand};
use evenkeel_core::time::Instant;
use evenkeel_core::worker::{BucketMap, Command, Event as WorkerEvent, Worker, WorkerConfig};

use self::clock::{Clock, Machine};
use self::cluster::{ControlSide, Outgoing, TURN_COUNT_MAX, WorkerInbox};
use self::done::Slowness;
use self::port::SimPort;
use crate::account::{Account, AccountOf};
use crate::ids::{LbId, LbPort, Owner, Place};
use crate::observe::Trace;
use crate::queue::Event;
use crate::random::{Purpose, nanos};
use crate::world::{Attached, Net, WorldError};

/// Sync frames that a worker sends in one turn, at most.
const SYNC_FRAME_COUNT_MAX: usize = 32;

/// When a worker's or the control side's next turn is, if it left something due undone.
const TURN_AGAIN_NS: u64 = 10_000;

#[derive(Debug)]
struct WorkerSlot {
    worker: Worker,
    port: SimPort,
    /// From the control side.
    inbox: WorkerInbox,
    /// What it is to serve by and has not been told: its queue was full.
    untold: Option<Arc<Snapshot>>,
    /// When its turn is planned, if it is.
    planned: Option<u64>,
    /// Number of the turn that is planned: others are stale.
    turn: u64,
    /// Until when it works off what it took.
    busy_until: u64,
    turns: u64,
}

/// A life of a load balancer.
#[derive(Debug)]
struct Life {
    workers: Vec<WorkerSlot>,
    buffers: StepBuffers<HeapFrame>,
    control: Option<ControlSide>,
    paused: bool,
    /// Bytes of its tables.
    table_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lb {
    id: LbId,
    spec: LbSpec,
    snapshot: Arc<Snapshot>,
    buckets: BucketMap,
    /// Data ports, then the sync port.
    links: Vec<Option<Attached>>,
    /// Addresses that its NICs have beside their own.
    extra_macs: Vec<[u8; 6]>,
    /// RSS buckets whose frames the NICs lose.
    dark: BTreeSet<u16>,
    life: Option<Life>,
    /// Lives so far.
    lives: u64,
    clock: Clock,
    machine: Machine,
    slowness: Slowness,
    /// Turns planned so far; never starts anew, so that a turn of an earlier life is stale.
    turns: u64,
    counters: LbCounters,
    /// What earlier lives had done: the engine's counters begin anew with each.
    done_before: u64,
    sync_counters: LbSyncCounters,
}

impl Lb {
    pub(crate) fn new(id: LbId, spec: LbSpec) -> Result<Self, WorldError> {
        let refused = |why: String| WorldError::Config {
            lb: spec.name.clone(),
            why,
        };
        if spec.workers == 0 || spec.workers > 64 {
            return Err(refused(format!("1 to 64 workers, not {}", spec.workers)));
        }
        if !spec.sizes.is_valid() {
            return Err(refused("tables of these sizes cannot be made".to_owned()));
        }
        if let Some(cluster) = &spec.cluster
            && let Err(errors) = cluster.config.check()
        {
            let all: Vec<_> = errors.iter().take(5).map(ToString::to_string).collect();
            return Err(refused(all.join("; ")));
        }
        let snapshot = snapshot(&spec.name, &spec.config)?;
        Ok(Lb {
            id,
            snapshot,
            buckets: BucketMap::dealt(spec.workers.into()),
            links: vec![None; spec.config.ports.len() + 1],
            extra_macs: Vec::new(),
            dark: BTreeSet::new(),
            life: None,
            lives: 0,
            clock: Clock::new(spec.drift_ppm),
            machine: Machine::default(),
            slowness: Slowness::new(spec.workers),
            turns: 0,
            counters: LbCounters::default(),
            done_before: 0,
            sync_counters: LbSyncCounters::default(),
            spec,
        })
    }

    pub(crate) fn place(&self, port: LbPort) -> Place {
        Place {
            owner: Owner::Lb(self.id),
            port: match port {
                LbPort::Data(port) => port.0,
                LbPort::Sync => self.sync_port(),
            },
        }
    }

    fn sync_port(&self) -> u16 {
        (self.links.len() - 1) as u16
    }

    /// `None`: there is no such port.
    pub(crate) fn link(&self, port: u16) -> Option<Option<Attached>> {
        self.links.get(usize::from(port)).copied()
    }

    pub(crate) fn attach(&mut self, port: u16, link: Attached) {
        if let Some(place) = self.links.get_mut(usize::from(port)) {
            *place = Some(link);
        }
    }

    pub(crate) fn port_names(&self) -> Vec<(Place, String)> {
        let data = (0..).zip(&self.spec.config.ports).map(|(n, port)| {
            let place = self.place(LbPort::Data(PortId(n)));
            (place, format!("{}-{}", self.spec.name, port.name))
        });
        let sync = (self.place(LbPort::Sync), format!("{}-sync", self.spec.name));
        data.chain([sync]).collect()
    }

    /// What its clock says.
    fn now(&self, net: &Net) -> Instant {
        Instant::from_nanos(self.clock.to_local(net.now))
    }

    fn state(&self) -> LbState {
        match &self.life {
            None => LbState::Down,
            Some(life) if life.paused => LbState::Paused,
            Some(_) => LbState::Running,
        }
    }

    fn is_in(&self, state: LbState) -> Result<(), WorldError> {
        if self.state() == state {
            Ok(())
        } else {
            Err(WorldError::State(self.spec.name.clone(), self.state().name()))
        }
    }

    pub(crate) fn start(&mut self, net: &mut Net) -> Result<(), WorldError> {
        self.is_in(LbState::Down)?;
        let number = self.lives + 1;
        // Before any memory is asked for.
        let table_bytes = self.spec.sizes.bytes() as u64 * u64::from(self.spec.workers);
        net.check_room(table_bytes)?;
        let draw = || {
            net.streams
                .draw(2 << 32 | u64::from(self.id.0), Purpose::LbSeed, number)
        };
        let seed = self.spec.seed.unwrap_or_else(draw);
        let incarnation = self.machine.begin_life(net.now);
        let queues = self.queues();
        let cluster = self.spec.cluster.as_ref();
        let me = cluster.map(|c| PeerId {
            node: c.config.id,
            incarnation: Incarnation(incarnation),
        });
        let refused = |why: String| WorldError::Config {
            lb: self.spec.name.clone(),
            why,
        };
        let mut workers = Vec::with_capacity(self.spec.workers.into());
        for id in 0..self.spec.workers {
            let config = WorkerConfig {
                id: WorkerId(id),
                buckets: self.buckets.clone(),
                steering: self.spec.steering.clone(),
                sizes: self.spec.sizes,
                local_port_min: self.spec.local_port_min,
                seed,
                hold: None,
                cluster: cluster.zip(me).map(|(c, id)| ClusterWorkerConfig {
                    id,
                    cluster: c.config.cluster,
                    sizes: c.sizes,
                    sealing: c.sealing(&net.streams, self.id, number),
                }),
            };
            let mut worker = Worker::new(config, &mut HeapMemory)
                .map_err(|_| refused("there is no memory for its tables".to_owned()))?;
            let now = self.now(net);
            worker
                .handle_command(now, Command::SetSnapshot(self.snapshot.clone()))
                .map_err(|e| refused(e.to_string()))?;
            while worker.poll_event().is_some() {}
            workers.push(WorkerSlot {
                worker,
                port: SimPort::new(),
                inbox: WorkerInbox::new(&queues, self.id, number, id.into()),
                untold: None,
                planned: None,
                turn: 0,
                busy_until: 0,
                turns: 0,
            });
        }
        let now = self.now(net);
        let control = match cluster.zip(me) {
            Some((c, me)) => {
                let place = (self.id, number);
                let sealing = c.sealing(&net.streams, self.id, number);
                let side = ControlSide::new(c, me, self.spec.workers, seed, now, place, sealing);
                Some(side.map_err(refused)?)
            }
            None => None,
        };
        net.hold(table_bytes);
        self.lives = number;
        self.done_before = self.counters.done;
        self.life = Some(Life {
            workers,
            buffers: StepBuffers::default(),
            control,
            paused: false,
            table_bytes,
        });
        net.trace(Trace::LbStarted(self.id, number));
        self.plan_node(net, net.now);
        Ok(())
    }

    pub(crate) fn crash(&mut self, net: &mut Net) {
        let Some(life) = self.life.take() else { return };
        self.clock.go_on(net.now);
        self.extra_macs.clear();
        net.release(life.table_bytes);
        for slot in &life.workers {
            net.release(slot.port.bytes());
            self.counters.lost_in_crash += slot.port.waiting() as u64;
            let frames = slot.port.rx.iter().chain(&slot.port.handoffs);
            for frame in frames {
                let at = Place {
                    owner: Owner::Lb(self.id),
                    port: frame.ingress.0,
                };
                net.dropped(at, "lost-in-crash", frame.len());
            }
        }
        for frame in life.control.iter().flat_map(ControlSide::waiting) {
            self.sync_counters.lost_in_crash += 1;
            net.dropped(self.place(LbPort::Sync), "lost-in-crash", frame.len());
        }
        net.trace(Trace::LbCrashed(self.id));
    }

    /// Plans a worker's turn at `at`, unless an earlier one is planned.
    fn plan(&mut self, net: &mut Net, worker: u16, at: u64) {
        let Some(life) = self.life.as_mut().filter(|life| !life.paused) else {
            return;
        };
        let Some(slot) = life.workers.get_mut(usize::from(worker)) else {
            return;
        };
        let at = at.max(slot.busy_until);
        if slot.planned.is_some_and(|planned| planned <= at) {
            return;
        }
        self.turns += 1;
        slot.planned = Some(at);
        slot.turn = self.turns;
        let turn = self.turns;
        net.queue.push(
            at,
            Event::Worker {
                lb: self.id,
                worker,
                turn,
            },
        );
    }

    /// Plans the control side's turn at `at`, unless an earlier one is planned.
    fn plan_node(&mut self, net: &mut Net, at: u64) {
        let life = self.life.as_mut().filter(|life| !life.paused);
        let Some(control) = life.and_then(|life| life.control.as_mut()) else {
            return;
        };
        if control.planned.is_some_and(|planned| planned <= at) {
            return;
        }
        self.turns += 1;
        control.planned = Some(at);
        control.turn = self.turns;
        let turn = self.turns;
        net.queue.push(at, Event::Node { lb: self.id, turn });
    }

    /// The RSS buckets whose frames its NICs lose from now on.
    pub(crate) fn set_dark(&mut self, buckets: BTreeSet<u16>) {
        self.dark = buckets;
    }

    /// A frame comes in from a link.
    pub(crate) fn receive(&mut self, net: &mut Net, at: Place, data: &[u8]) {
        if at.port == self.sync_port() {
            return self.receive_sync(net, at, data);
        }
        self.counters.received += 1;
        let Some(life) = &mut self.life else {
            self.counters.down += 1;
            return net.dropped(at, "node-down", data.len());
        };
        let own = self.spec.config.ports.get(usize::from(at.port));
        let ours = own.is_some_and(|port| nic::accepts(&port.mac.0, &self.extra_macs, data));
        if !ours && !self.spec.promiscuous {
            self.counters.filtered += 1;
            return net.dropped(at, "nic-filtered", data.len());
        }
        let rss = nic::tuple(data).map(|t| self.spec.steering.toeplitz().hash_tuple(&t));
        if let Some(hash) = rss
            && self.dark.contains(&self.spec.steering.bucket(hash))
        {
            self.counters.bucket_dark += 1;
            return net.dropped(at, "bucket-dark", data.len());
        }
        let worker = rss.map_or(0, |hash| self.buckets.worker(self.spec.steering.bucket(hash)).0);
        let Some(slot) = life.workers.get_mut(usize::from(worker)) else {
            return;
        };
        if slot.port.rx.len() >= self.spec.rx_ring {
            self.counters.rx_ring_full += 1;
            return net.dropped(at, "rx-ring-full", data.len());
        }
        let mut frame = HeapFrame::new(PortId(at.port), data);
        frame.rss = rss;
        // Summed up where something can be wrong: what hosts and engine send is right, and an oracle's to judge.
        frame.rx_checksum = match net.counters.frames_corrupted {
            0 => RxChecksum::Unknown,
            _ => nic::checksum(data),
        };
        net.hold(slot.port.receive(frame));
        self.counters.rx_ring_peak = self.counters.rx_ring_peak.max(slot.port.rx.len());
        let wake = self.slowness.of(worker.into(), self.spec.cost.wake);
        self.plan(net, worker.into(), net.now + wake);
    }

    /// A worker's turn.
    pub(crate) fn worker_due(&mut self, net: &mut Net, worker: u16, turn: u64) {
        let (now, clock) = (self.now(net), self.clock);
        let Some(life) = &mut self.life else { return };
        let Life {
            workers,
            buffers,
            control,
            ..
        } = life;
        let Some(slot) = workers.get_mut(usize::from(worker)) else {
            return;
        };
        if slot.turn != turn || slot.planned.take().is_none() {
            return;
        }
        slot.turns += 1;
        let mut messages = 0;
        let mut answering = None;
        for _ in 0..TURN_COUNT_MAX {
            let Some(command) = slot.inbox.commands.pop(net.now) else {
                break;
            };
            if let Command::Sync(SyncCommand::Answer(answers)) = &command {
                answering = Some(answers.clone());
            }
            // What is refused for want of room is told again.
            let _ = slot.worker.handle_command(now, command);
            messages += 1;
        }
        for _ in 0..TURN_COUNT_MAX {
            let Some(message) = slot.inbox.messages.pop(net.now) else {
                break;
            };
            // What is refused is counted there.
            let _ = slot.worker.handle_sync(now, &message);
            messages += 1;
        }
        // The table's idea of time follows even while nothing is due, as with a node that polls all the time.
        slot.worker.handle_timeout(now);
        let held = slot.port.bytes();
        let stepped = step(&mut slot.worker, &mut slot.port, now, buffers);
        net.release(held - slot.port.bytes());
        let mut sync = Vec::new();
        if let Some(control) = control {
            let mut frame = Vec::new();
            for _ in 0..SYNC_FRAME_COUNT_MAX {
                let Some(to) = slot.worker.poll_sync(now, &mut frame) else {
                    break;
                };
                messages += 1;
                self.sync_counters.sent_bytes += frame.len() as u64;
                sync.extend(control.packets(to, &frame));
            }
        }
        let frames = (stepped.received + stepped.originated) as u64;
        let cost = &self.spec.cost;
        let spent = nanos(cost.turn) + frames * nanos(cost.frame) + messages * nanos(cost.message);
        slot.busy_until = net.now.saturating_add(self.slowness.slowed(worker, spent));
        let mut events = Vec::new();
        while let Some(event) = slot.worker.poll_event() {
            if let WorkerEvent::Sync(event) = event {
                events.push((WorkerId(worker as u8), event));
            }
        }
        self.counters.done += std::mem::take(&mut slot.port.done);
        self.counters.punted += slot.port.punted.len() as u64;
        let punted = std::mem::take(&mut slot.port.punted);

        let next = if slot.port.waiting() > 0 {
            Some(slot.busy_until)
        } else {
            let due = slot.worker.poll_timeout();
            due.and_then(|at| clock.to_world(at.as_nanos()))
        };
        let next = next.into_iter().chain(slot.inbox.next_at()).min();
        let mut sent = std::mem::take(&mut slot.port.sent);
        let mut handed_off = std::mem::take(&mut slot.port.handed_off);
        for (port, frame) in sent.drain(..) {
            self.transmit(net, port, &frame);
        }
        for (to, frame) in handed_off.drain(..) {
            self.hand_off(net, to, frame);
        }
        for frame in sync {
            self.transmit_sync(net, frame);
        }
        if let Some(answers) = answering {
            let macs = answers.addrs.iter().filter_map(|(_, mac)| mac.map(|m| m.0));
            self.extra_macs = macs.collect();
            self.extra_macs.sort_unstable();
            self.extra_macs.dedup();
        }
        self.tell_node(net, events, punted);
        // Their room is kept.
        if let Some(slot) = self
            .life
            .as_mut()
            .and_then(|l| l.workers.get_mut(usize::from(worker)))
        {
            slot.port.sent = sent;
            slot.port.handed_off = handed_off;
        }
        if let Some(next) = next {
            // What is due and was not done in this turn waits for another one.
            self.plan(
                net,
                worker,
                if next > net.now {
                    next
                } else {
                    net.now + TURN_AGAIN_NS
                },
            );
        }
    }

    fn transmit(&mut self, net: &mut Net, port: PortId, frame: &HeapFrame) {
        if SimPort::is_originated(frame) {
            self.counters.originated += 1;
        } else {
            self.counters.forwarded += 1;
        }
        match self.link(port.0).flatten() {
            Some(link) => net.send(link, net.now, frame.data().to_vec()),
            None => {
                self.counters.no_link += 1;
                let place = self.place(LbPort::Data(port));
                let now = Instant::from_nanos(net.now);
                net.observer
                    .frame(now, place, crate::observe::Direction::Out, frame.data());
                net.dropped(place, "no-link", frame.len());
            }
        }
    }

    fn hand_off(&mut self, net: &mut Net, to: WorkerId, frame: HeapFrame) {
        let Some(life) = &mut self.life else { return };
        let Some(slot) = life.workers.get_mut(usize::from(to.0)) else {
            return;
        };
        if slot.port.handoffs.len() >= self.spec.handoff_ring {
            self.counters.handoff_ring_full += 1;
            let place = self.place(LbPort::Data(frame.ingress()));
            return net.dropped(place, "handoff-ring-full", frame.len());
        }
        net.hold(slot.port.take_over(frame));
        self.counters.handoff_ring_peak = self.counters.handoff_ring_peak.max(slot.port.handoffs.len());
        let wake = self.slowness.of(to.0.into(), self.spec.cost.wake);
        self.plan(net, to.0.into(), net.now + wake);
    }

    /// A sync frame comes in.
    fn receive_sync(&mut self, net: &mut Net, at: Place, data: &[u8]) {
        let (bound, queues) = (self.rings().sync, self.queues());
        let c = &mut self.sync_counters;
        c.received += 1;
        let Some(life) = &mut self.life else {
            c.down += 1;
            return net.dropped(at, "node-down", data.len());
        };
        let control = life.control.as_mut();
        let taken = control.and_then(|c| Some((cluster::sync_frame(c.control.core().id().node, data)?, c)));
        let Some((frame, control)) = taken else {
            c.filtered += 1;
            return net.dropped(at, "nic-filtered", data.len());
        };
        let waiting = control.ring.len() + control.bulk.len();
        if waiting >= bound {
            c.ring_full += 1;
            return net.dropped(at, "sync-ring-full", data.len());
        }
        c.ring_peak = c.ring_peak.max(waiting + 1);
        let wake = self.slowness.of_node(self.spec.cost.wake);
        let mut due = net.now + wake;
        if !queues.bulk_delay.is_zero() && is_bulk(&frame) {
            let path = LbQueues {
                delay: queues.bulk_delay,
                jitter: queues.bulk_delay,
                ..queues
            };
            // It has no bound of its own.
            due = due.max(
                control
                    .bulk
                    .push(&net.streams, net.now, &path, frame)
                    .unwrap_or(due),
            );
        } else {
            control.ring.push_back(frame);
        }
        self.plan_node(net, due);
    }

    fn transmit_sync(&mut self, net: &mut Net, frame: Vec<u8>) {
        self.sync_counters.sent += 1;
        match self.link(self.sync_port()).flatten() {
            Some(link) => net.send(link, net.now, frame),
            None => net.dropped(self.place(LbPort::Sync), "no-link", frame.len()),
        }
    }

    /// What a worker has for the control side.
    fn tell_node(
        &mut self,
        net: &mut Net,
        events: Vec<(WorkerId, evenkeel_core::sync::SyncEvent)>,
        punted: Vec<HeapFrame>,
    ) {
        let queues = self.queues();
        let control = self.life.as_mut().and_then(|life| life.control.as_mut());
        let Some(control) = control else { return };
        let c = &mut self.sync_counters;
        let mut first = None;
        for event in events {
            match control.events.push(&net.streams, net.now, &queues, event) {
                Some(due) => {
                    first = Some(first.unwrap_or(due).min(due));
                    c.events_peak = c.events_peak.max(control.events.len());
                }
                None => c.events_full += 1,
            }
        }
        for frame in punted {
            let item = (frame.ingress(), frame.data().to_vec());
            match control.punted.push(&net.streams, net.now, &queues, item) {
                Some(due) => {
                    first = Some(first.unwrap_or(due).min(due));
                    c.punted_peak = c.punted_peak.max(control.punted.len());
                }
                None => c.punted_full += 1,
            }
        }
        if let Some(at) = first {
            self.plan_node(net, at);
        }
    }

    /// The control side's turn.
    pub(crate) fn node_due(&mut self, net: &mut Net, turn: u64) {
        let now = self.now(net);
        let Some(life) = &mut self.life else { return };
        let Some(control) = life.control.as_mut().filter(|c| c.turn == turn) else {
            return;
        };
        if control.planned.take().is_none() {
            return;
        }
        let (out, handled) = control.run(net.now, now);
        self.sync_counters.handled += handled;
        self.give(net, out);
        self.tell_snapshot(net);
        let control = self.life.as_ref().and_then(|life| life.control.as_ref());
        if let Some(next) = control.and_then(|c| c.next_at(net.now, self.clock)) {
            self.plan_node(
                net,
                if next > net.now {
                    next
                } else {
                    net.now + TURN_AGAIN_NS
                },
            );
        }
    }

    /// Tells the control side what an operator wants.
    pub(crate) fn command(&mut self, net: &mut Net, command: NodeCommand) -> Result<(), WorldError> {
        self.is_in(LbState::Running)?;
        let now = self.now(net);
        let control = self.life.as_mut().and_then(|life| life.control.as_mut());
        let Some(control) = control else {
            return Err(WorldError::State(self.spec.name.clone(), "in no cluster"));
        };
        let out = control.command(now, command);
        self.give(net, out);
        self.plan_node(net, net.now);
        Ok(())
    }

    /// Carries out what the control side wants.
    fn give(&mut self, net: &mut Net, out: Outgoing) {
        for event in out.events {
            net.trace(Trace::Node(self.id, event));
        }
        for frame in out.sync {
            self.transmit_sync(net, frame);
        }
        for (port, frame) in out.frames {
            self.counters.originated += 1;
            match self.link(port.0).flatten() {
                Some(link) => net.send(link, net.now, frame),
                None => {
                    self.counters.no_link += 1;
                    net.dropped(self.place(LbPort::Data(port)), "no-link", frame.len());
                }
            }
        }
        let mut wake: Vec<(u16, u64)> = Vec::new();
        let queues = self.queues();
        if let Some(life) = &mut self.life {
            let c = &mut self.sync_counters;
            for (worker, command) in out.commands {
                let slot = life.workers.get_mut(usize::from(worker.0));
                let Some(inbox) = slot.map(|s| &mut s.inbox) else {
                    continue;
                };
                let command = Command::Sync(command);
                match inbox.commands.push(&net.streams, net.now, &queues, command) {
                    Some(due) => {
                        wake.push((worker.0.into(), due));
                        c.commands_peak = c.commands_peak.max(inbox.commands.len());
                    }
                    None => c.commands_full += 1,
                }
            }
            for message in out.messages {
                let worker = self.buckets.worker(message.bucket);
                let slot = life.workers.get_mut(usize::from(worker.0));
                let Some(inbox) = slot.map(|s| &mut s.inbox) else {
                    continue;
                };
                match inbox.messages.push(&net.streams, net.now, &queues, message) {
                    Some(due) => {
                        wake.push((worker.0.into(), due));
                        c.messages_peak = c.messages_peak.max(inbox.messages.len());
                    }
                    None => c.messages_full += 1,
                }
            }
        }
        for (worker, at) in wake {
            self.plan(net, worker, at);
        }
    }

    /// Frames of its data ports, those that its engine let go in this life, and those of its sync port.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        let life = self.life.as_ref();
        let waiting = life.into_iter().flat_map(|l| &l.workers);
        let waiting = waiting.map(|slot| slot.port.waiting() as u64).sum();
        let c = &self.counters;
        let data = Account::new(
            AccountOf::Machine(&self.spec.name, ""),
            c.received,
            [
                ("down", c.down),
                ("filtered", c.filtered),
                ("bucket-dark", c.bucket_dark),
                ("rx-ring-full", c.rx_ring_full),
                ("lost-in-crash", c.lost_in_crash),
                ("handoff-ring-full", c.handoff_ring_full),
                ("done", c.done),
                ("punted", c.punted),
                ("forwarded", c.forwarded),
                ("waiting", waiting),
            ],
        );
        let engine = life.map(|life| {
            let counters = || life.workers.iter().map(|slot| slot.worker.counters());
            Account::new(
                AccountOf::Machine(&self.spec.name, "-engine"),
                c.done - self.done_before,
                [
                    ("dropped", counters().map(|c| c.dropped()).sum()),
                    ("answered", counters().map(|c| c.answered).sum()),
                    ("waiting", counters().map(|c| c.held - c.released).sum()),
                    (
                        "let-through",
                        counters()
                            .map(|c| c.sync(SyncCount::DeferAcked) + c.sync(SyncCount::DeferOpened))
                            .sum(),
                    ),
                ],
            )
        });
        let ring = life.and_then(|l| l.control.as_ref());
        let s = &self.sync_counters;
        let sync = Account::new(
            AccountOf::Machine(&self.spec.name, "-sync"),
            s.received,
            [
                ("down", s.down),
                ("filtered", s.filtered),
                ("ring-full", s.ring_full),
                ("lost-in-crash", s.lost_in_crash),
                ("handled", s.handled),
                ("waiting", ring.map_or(0, |c| c.waiting().count() as u64)),
            ],
        );
        [data, sync].into_iter().chain(engine)
    }
}

fn snapshot(lb: &str, config: &SnapshotSpec) -> Result<Arc<Snapshot>, WorldError> {
    Snapshot::new(config).map(Arc::new).map_err(|errors| {
        let all: Vec<_> = errors.iter().take(5).map(ToString::to_string).collect();
        WorldError::Config {
            lb: lb.to_owned(),
            why: all.join("; "),
        }
    })
}
