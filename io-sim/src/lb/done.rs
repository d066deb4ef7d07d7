//! What the owner of a world does to a load balancer while it runs: its threads, clocks, queues and rings, its pace, its
//! config, its tables.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::service::SnapshotSpec;
use evenkeel_core::sync::InstallError;
use evenkeel_core::tuple::Family;
use evenkeel_core::worker::{Command, CommandError};

use super::fill::{self, Made, PORT_TRY_COUNT_MAX};
use super::{Lb, LbQueues, LbRings, LbState, snapshot};
use crate::link::Ppm;
use crate::observe::Trace;
use crate::random::nanos;
use crate::world::{Net, WorldError};

/// A load balancer or a worker is slower by this factor at most.
pub const SLOWNESS_MAX: u32 = 1_000_000;

/// By which factor all work takes longer: of the load balancer as a whole, and of each worker besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slowness {
    node: u32,
    workers: Vec<u32>,
}

impl Slowness {
    pub(super) fn new(workers: u8) -> Self {
        Slowness {
            node: 1,
            workers: vec![1; workers.into()],
        }
    }

    /// Of the load balancer, or of a worker besides.
    pub(super) fn factor(&self, worker: Option<u8>) -> u32 {
        match worker {
            None => self.node,
            Some(n) => self.workers.get(usize::from(n)).copied().unwrap_or(1),
        }
    }

    /// What a span of work takes a worker, in nanoseconds.
    pub(super) fn of(&self, worker: u16, span: Duration) -> u64 {
        self.slowed(worker, nanos(span))
    }

    /// What a span of work takes the control side, in nanoseconds.
    pub(super) fn of_node(&self, span: Duration) -> u64 {
        nanos(span).saturating_mul(self.node.into())
    }

    /// As [`Slowness::of`].
    pub(super) fn slowed(&self, worker: u16, ns: u64) -> u64 {
        let own = self.workers.get(usize::from(worker)).copied().unwrap_or(1);
        ns.saturating_mul(self.node.into()).saturating_mul(own.into())
    }
}

impl Lb {
    /// The queues between its threads as they are now: who is slow takes longer to look into them.
    pub(super) fn queues(&self) -> LbQueues {
        let mut queues = self
            .spec
            .cluster
            .as_ref()
            .map_or_else(LbQueues::default, |c| c.queues);
        queues.delay = queues.delay.saturating_mul(self.slowness.node);
        queues.jitter = queues.jitter.saturating_mul(self.slowness.node);
        queues
    }

    pub(super) fn rings(&self) -> LbRings {
        LbRings {
            rx: self.spec.rx_ring,
            handoff: self.spec.handoff_ring,
            sync: self.queues().sync_ring,
        }
    }

    pub(crate) fn pause(&mut self, net: &mut Net, clock: bool) -> Result<(), WorldError> {
        self.is_in(LbState::Running)?;
        if let Some(life) = &mut self.life {
            life.paused = true;
            life.workers.iter_mut().for_each(|w| w.planned = None);
            life.control.iter_mut().for_each(|c| c.planned = None);
        }
        if !clock {
            self.clock.stop(net.now);
        }
        net.trace(Trace::LbPaused(self.id));
        Ok(())
    }

    pub(crate) fn resume(&mut self, net: &mut Net) -> Result<(), WorldError> {
        self.is_in(LbState::Paused)?;
        if let Some(life) = &mut self.life {
            life.paused = false;
        }
        self.clock.go_on(net.now);
        net.trace(Trace::LbResumed(self.id));
        self.tell_snapshot(net);
        self.plan_all(net);
        Ok(())
    }

    /// All that it has looks whether something is due.
    fn plan_all(&mut self, net: &mut Net) {
        self.plan_node(net, net.now);
        for worker in 0..u16::from(self.spec.workers) {
            self.plan(net, worker, net.now);
        }
    }

    fn changed(&self, net: &mut Net, what: &'static str) {
        net.trace(Trace::LbChanged(self.id, what));
    }

    pub(crate) fn set_drift(&mut self, net: &mut Net, drift_ppm: i32) {
        self.clock.set_drift(net.now, drift_ppm);
        self.changed(net, "clock");
        // What is planned was so by the clock as it was.
        self.plan_all(net);
    }

    pub(crate) fn step_clock(&mut self, net: &mut Net, by: Duration) {
        self.clock.step(net.now, by);
        self.changed(net, "clock");
        self.plan_all(net);
    }

    pub(crate) fn set_wall_clock(&mut self, net: &mut Net, by_ns: i64) {
        self.machine.set_wall(by_ns);
        self.changed(net, "wall-clock");
    }

    pub(crate) fn lose_state(&mut self, net: &mut Net) {
        self.machine.lose_state();
        self.changed(net, "state");
    }

    pub(crate) fn set_queues(&mut self, queues: LbQueues) -> Result<(), WorldError> {
        let Some(cluster) = &mut self.spec.cluster else {
            return Err(WorldError::State(self.spec.name.clone(), "in no cluster"));
        };
        cluster.queues = queues;
        // What waits keeps its place. Peaks are those of what found room since.
        let c = &mut self.sync_counters;
        (c.messages_peak, c.commands_peak, c.events_peak, c.punted_peak) = (0, 0, 0, 0);
        let Some(life) = &mut self.life else { return Ok(()) };
        for slot in &mut life.workers {
            slot.inbox.messages.set_max(queues.messages);
            slot.inbox.commands.set_max(queues.commands);
        }
        if let Some(control) = &mut life.control {
            control.events.set_max(queues.events);
            control.punted.set_max(queues.punted);
        }
        Ok(())
    }

    /// What waits keeps its place, and peaks are those of what found room since.
    pub(crate) fn set_rings(&mut self, net: &mut Net, rings: LbRings) {
        self.spec.rx_ring = rings.rx;
        self.spec.handoff_ring = rings.handoff;
        (self.counters.rx_ring_peak, self.counters.handoff_ring_peak) = (0, 0);
        if let Some(cluster) = &mut self.spec.cluster {
            cluster.queues.sync_ring = rings.sync;
            self.sync_counters.ring_peak = 0;
        }
        self.changed(net, "rings");
    }

    pub(crate) fn set_slowness(
        &mut self,
        net: &mut Net,
        worker: Option<u8>,
        factor: u32,
    ) -> Result<(), WorldError> {
        let factor = factor.clamp(1, SLOWNESS_MAX);
        let before = self.slowness.clone();
        match worker {
            None => self.slowness.node = factor,
            Some(n) => match self.slowness.workers.get_mut(usize::from(n)) {
                Some(own) => *own = factor,
                None => return Err(WorldError::Unknown(format!("worker {n} of {}", self.spec.name))),
            },
        }
        self.changed(net, "pace");
        let queues = self.queues();
        let at = net.now + nanos(queues.delay) + nanos(queues.jitter);
        if let Some(life) = &mut self.life {
            for (n, slot) in (0..).zip(&mut life.workers) {
                // Who becomes quicker is so with what is left of its turn.
                let [was, is] = [&before, &self.slowness].map(|s| s.slowed(n, 1));
                if is < was {
                    let rest = slot.busy_until.saturating_sub(net.now);
                    let rest = u128::from(rest) * u128::from(is) / u128::from(was);
                    slot.busy_until = net.now.saturating_add(u64::try_from(rest).unwrap_or(u64::MAX));
                }
                slot.inbox.messages.hurry(at);
                slot.inbox.commands.hurry(at);
            }
            if let Some(control) = &mut life.control {
                control.events.hurry(at);
                control.punted.hurry(at);
            }
        }
        self.plan_all(net);
        Ok(())
    }

    pub(crate) fn set_config(&mut self, net: &mut Net, spec: SnapshotSpec) -> Result<(), WorldError> {
        if spec.ports != self.spec.config.ports {
            return Err(WorldError::Config {
                lb: self.spec.name.clone(),
                why: "ports are those of its links, and stay".to_owned(),
            });
        }
        self.snapshot = snapshot(&self.spec.name, &spec)?;
        self.spec.config = spec;
        self.changed(net, "config");
        if let Some(life) = &mut self.life {
            for slot in &mut life.workers {
                slot.untold = Some(Arc::clone(&self.snapshot));
            }
        }
        self.tell_snapshot(net);
        Ok(())
    }

    /// What changed of what is served by goes to all workers; the latest counts. Whose queue is full is told with the
    /// control side's next turn. A node without one has nothing else in these queues, and they are longer than a second
    /// of changes.
    pub(super) fn tell_snapshot(&mut self, net: &mut Net) {
        let queues = self.queues();
        let Some(life) = self.life.as_mut().filter(|life| !life.paused) else {
            return;
        };
        let mut wake = Vec::new();
        for (slot, worker) in life.workers.iter_mut().zip(0..) {
            let Some(snapshot) = &slot.untold else { continue };
            let command = Command::SetSnapshot(Arc::clone(snapshot));
            match slot.inbox.commands.push(&net.streams, net.now, &queues, command) {
                Some(due) => {
                    slot.untold = None;
                    wake.push((worker, due));
                    let c = &mut self.sync_counters;
                    c.commands_peak = c.commands_peak.max(slot.inbox.commands.len());
                }
                None => self.sync_counters.commands_full += 1,
            }
        }
        for (worker, due) in wake {
            self.plan(net, worker, due);
        }
    }

    /// Damages a share of the conns that other nodes hold, in the tables of all workers. So many were damaged.
    pub(crate) fn damage(&mut self, net: &mut Net, share: Ppm) -> Result<u64, WorldError> {
        if self.life.is_none() {
            self.is_in(LbState::Running)?;
        }
        let now = self.now(net);
        let workers = self.life.iter_mut().flat_map(|life| &mut life.workers);
        let damaged = workers.map(|slot| slot.worker.damage(now, share.0)).sum();
        self.changed(net, "tables");
        self.plan_all(net);
        Ok(damaged)
    }

    /// Fills the tables of all workers up to a share, with sessions that end after `remaining`; as far as there are ports
    /// for them, and as far as it may create sessions at all: of the local ends of one that has not joined, others may have
    /// sessions that it does not know. So many were made.
    pub(crate) fn fill(&mut self, net: &mut Net, share: Ppm, remaining: Duration) -> Result<u64, WorldError> {
        if self.life.is_none() {
            self.is_in(LbState::Running)?;
        }
        let now = self.now(net);
        let (snapshot, steering) = (Arc::clone(&self.snapshot), Arc::clone(&self.spec.steering));
        let port_min = self.spec.local_port_min;
        let mut made_count = 0;
        for family in [Family::V4, Family::V6] {
            let services = fill::services(&snapshot, family);
            let (v4, sizes) = (family == Family::V4, self.spec.sizes);
            let size = if v4 { sizes.conns_v4 } else { sizes.conns_v6 };
            let wanted = (u64::from(size) * u64::from(share.0) / 1_000_000) as usize;
            let Some(life) = self.life.as_mut().filter(|_| !services.is_empty()) else {
                continue;
            };
            // Clients are dealt evenly enough to workers, and each finds a port within a few: more are not tried.
            let tries = 4 * u64::from(size) * life.workers.len() as u64 + 1_024;
            let mut short = life.workers.len();
            for n in 0..tries {
                if short == 0 {
                    break;
                }
                let Some(&service) = services.get(n as usize % services.len()) else {
                    break;
                };
                let made = Made::new(&steering, service, n);
                let worker = usize::from(self.buckets.worker(made.bucket).0);
                let Some(slot) = life.workers.get_mut(worker) else {
                    continue;
                };
                let in_use = slot.worker.table().in_use();
                let full = (if v4 { in_use.v4 } else { in_use.v6 }) >= wanted;
                if full || !slot.worker.creates(service.replicate, now) {
                    // Those of all workers are asked for once a round.
                    if n % 64 == 0 {
                        let lacking = |slot: &&super::WorkerSlot| {
                            let in_use = slot.worker.table().in_use();
                            let lacks = (if v4 { in_use.v4 } else { in_use.v6 }) < wanted;
                            lacks && slot.worker.creates(service.replicate, now)
                        };
                        short = life.workers.iter().filter(lacking).count();
                    }
                    continue;
                }
                for attempt in 0..PORT_TRY_COUNT_MAX {
                    let place = (n, attempt);
                    let Some(record) = made.session(&steering, service, port_min, place, remaining) else {
                        continue;
                    };
                    let command = Command::Install(Box::new(record));
                    match slot.worker.handle_command(now, command) {
                        Ok(()) => made_count += 1,
                        Err(CommandError::Install(InstallError::Taken)) => continue,
                        // Its place in the index is full: this one is not to be had.
                        Err(_) => {}
                    }
                    break;
                }
            }
        }
        self.changed(net, "tables");
        self.plan_all(net);
        Ok(made_count)
    }
}
