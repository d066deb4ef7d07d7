//! A load balancer as its world's owner sees it.

use std::sync::Arc;

use evenkeel_core::cluster::NodeCore;
use evenkeel_core::service::{Snapshot, SnapshotSpec};
use evenkeel_core::sync::ReceiverCounters;
use evenkeel_core::time::Instant;
use evenkeel_core::worker::Worker;

use super::{Lb, LbCounters, LbQueues, LbRings, LbState, LbSyncCounters, WorkerCounters};
use crate::ids::{LbId, LbPort, Place};
use crate::world::World;

/// A load balancer, to look at.
#[derive(Clone, Copy, Debug)]
pub struct LbRef<'a>(pub(crate) &'a Lb);

impl<'a> LbRef<'a> {
    /// Its number.
    pub fn id(self) -> LbId {
        self.0.id
    }

    /// Its name.
    pub fn name(self) -> &'a str {
        &self.0.spec.name
    }

    /// Whether it runs.
    pub fn state(self) -> LbState {
        self.0.state()
    }

    /// Lives so far, this one included.
    pub fn lives(self) -> u64 {
        self.0.lives
    }

    /// What its clock says.
    pub fn clock(self, world: &World) -> Instant {
        self.0.now(&world.net)
    }

    /// By which factor its work takes longer, or that of a worker besides; 1 if there is no such worker.
    pub fn slowness(self, worker: Option<u8>) -> u32 {
        self.0.slowness.factor(worker)
    }

    /// The bounds of its rings.
    pub fn rings(self) -> LbRings {
        self.0.rings()
    }

    /// What it serves.
    pub fn snapshot(self) -> &'a Arc<Snapshot> {
        &self.0.snapshot
    }

    /// From what that was made.
    pub fn config(self) -> &'a SnapshotSpec {
        &self.0.spec.config
    }

    /// What its machine counted.
    pub fn counters(self) -> LbCounters {
        self.0.counters
    }

    /// What its control side's queues counted; nothing without a cluster.
    pub fn sync_counters(self) -> LbSyncCounters {
        self.0.sync_counters
    }

    /// The bounds of these queues.
    pub fn queues(self) -> Option<LbQueues> {
        self.0.spec.cluster.as_ref().map(|c| c.queues)
    }

    /// Its control side; `None` while it is down, or without a cluster.
    pub fn node(self) -> Option<&'a NodeCore> {
        self.0.life.as_ref()?.control.as_ref().map(|c| c.control.core())
    }

    /// What its receiver counted in this life.
    pub fn receiver_counters(self) -> Option<ReceiverCounters> {
        self.0
            .life
            .as_ref()?
            .control
            .as_ref()
            .map(|c| *c.control.receiver().counters())
    }

    /// Link-layer addresses that its data ports have beside their own.
    pub fn extra_macs(self) -> &'a [[u8; 6]] {
        &self.0.extra_macs
    }

    /// Its workers; none while it is down.
    pub fn workers(self) -> impl Iterator<Item = &'a Worker> {
        self.0
            .life
            .iter()
            .flat_map(|l| &l.workers)
            .map(|slot| &slot.worker)
    }

    /// What its workers counted; nothing while it is down.
    pub fn worker_counters(self) -> Vec<WorkerCounters> {
        let slots = self.0.life.iter().flat_map(|l| &l.workers);
        slots
            .map(|slot| WorkerCounters {
                engine: slot.worker.counters().clone(),
                waiting: slot.port.waiting(),
                messages_waiting: slot.inbox.messages.len(),
                commands_waiting: slot.inbox.commands.len(),
                turns: slot.turns,
            })
            .collect()
    }

    /// A port of it.
    pub fn place(self, port: LbPort) -> Place {
        self.0.place(port)
    }
}
