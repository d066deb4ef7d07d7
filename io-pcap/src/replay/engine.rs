//! The workers of a node, driven by the times of packets.

use std::sync::Arc;

use evenkeel_core::conn::{ConnView, MemorySource};
use evenkeel_core::lport::Steering;
use evenkeel_core::port::{HandoffTag, HeapFrame, PortId, WorkerId};
use evenkeel_core::proto::TIMEOUT_MAX;
use evenkeel_core::service::Snapshot;
use evenkeel_core::stats::Counters;
use evenkeel_core::step::{StepBuffers, step};
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::{Direction, Tuple};
use evenkeel_core::worker::{BucketMap, Command, Verdict, Worker, WorkerConfig};

use super::{Node, ReplayError};
use crate::port::{Emitted, ORIGINATED, PcapPort};

/// Frames that come out of one step at most: the one that went in, and what the engine originates.
const EMITTED_MAX: usize = 1 + evenkeel_core::port::BURST;

/// The last time that the clock shows: far enough from the end of time for every timeout to end before it.
const CLOCK_MAX: Instant = Instant::from_nanos(u64::MAX - 2 * TIMEOUT_MAX.as_nanos() as u64);

/// Workers and their ports.
#[derive(Debug)]
pub(super) struct Engine {
    workers: Vec<Worker>,
    ports: Vec<PcapPort>,
    buckets: BucketMap,
    steering: Arc<Steering>,
    buffers: StepBuffers<HeapFrame>,
    /// Frames on their way from one worker to another.
    handed_off: Vec<(WorkerId, HandoffTag, HeapFrame)>,
    clock: Instant,
}

/// A frame that came out.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) port: PortId,
    pub(super) frame: HeapFrame,
    /// The engine made it, it was not received.
    pub(super) originated: bool,
}

/// What became of one frame.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// The engine's last word, never a hand-off.
    pub(super) verdict: Verdict,
    /// The worker that had it.
    pub(super) worker: usize,
    /// It made a new conn.
    pub(super) opened: bool,
}

impl Engine {
    /// `workers` workers that serve `snapshot`, their tables in memory from `memory`.
    pub(super) fn new(
        memory: &mut impl MemorySource,
        node: &Node,
        snapshot: Arc<Snapshot>,
        workers: u8,
        seed: u64,
    ) -> Result<Self, ReplayError> {
        let workers = workers.max(1);
        let buckets = BucketMap::dealt(u16::from(workers));
        let mut engine = Engine {
            workers: Vec::with_capacity(usize::from(workers)),
            ports: Vec::new(),
            buckets: buckets.clone(),
            steering: node.steering.clone(),
            buffers: StepBuffers::default(),
            handed_off: Vec::new(),
            clock: Instant::ZERO,
        };
        for id in 0..workers {
            let config = WorkerConfig {
                id: WorkerId(id),
                buckets: buckets.clone(),
                steering: node.steering.clone(),
                sizes: node.sizes,
                local_port_min: node.local_port_min,
                seed,
                hold: None,
                cluster: None,
            };
            let mut worker = Worker::new(config, memory).map_err(|_| ReplayError::Memory {
                workers,
                bytes: node.sizes.bytes() as u128 * u128::from(workers),
            })?;
            worker
                .handle_command(Instant::ZERO, Command::SetSnapshot(snapshot.clone()))
                .map_err(|e| ReplayError::Config(e.to_string()))?;
            while worker.poll_event().is_some() {}
            engine.workers.push(worker);
            engine.ports.push(PcapPort::new());
        }
        Ok(engine)
    }

    /// The time that has been reached.
    pub(super) fn clock(&self) -> Instant {
        self.clock
    }

    /// Lets time pass to `now`: every timer that is due runs at its own time, in order. A time that has passed
    /// changes nothing.
    pub(super) fn advance(&mut self, now: Instant) {
        let now = now.min(CLOCK_MAX);
        if now < self.clock {
            return;
        }
        loop {
            let due = self
                .workers
                .iter()
                .zip(0..)
                .filter_map(|(w, i)| Some((w.poll_timeout()?, i)))
                .min();
            match due {
                Some((due, i)) if due <= now => {
                    let at = due.max(self.clock);
                    self.workers[i].handle_timeout(at);
                }
                _ => break,
            }
        }
        self.clock = now;
    }

    /// The worker to which RSS brings a packet of this tuple.
    pub(super) fn worker_of(&self, tuple: &Tuple) -> usize {
        let bucket = self.steering.bucket(self.steering.toeplitz().hash_tuple(tuple));
        usize::from(self.buckets.worker(bucket).0)
    }

    /// What a NIC's RSS reports for this tuple.
    pub(super) fn rss(&self, tuple: &Tuple) -> u32 {
        self.steering.toeplitz().hash_tuple(tuple)
    }

    /// The conn of a tuple, as its packets carry it, and the direction in which the tuple runs.
    pub(super) fn conn(&self, tuple: &Tuple) -> Option<(ConnView, Direction)> {
        self.workers.get(self.worker_of(tuple))?.conn(tuple)
    }

    /// Gives `frame` to `worker` at the time that has been reached. What is sent, in order, goes to `sent`.
    pub(super) fn present(&mut self, worker: usize, frame: HeapFrame, sent: &mut Vec<Sent>) -> Outcome {
        let mut at = worker.min(self.workers.len() - 1);
        let mut next = Some(frame);
        let mut outcome = Outcome {
            verdict: Verdict::Held,
            worker: at,
            opened: false,
        };
        // The engine bounds the hops itself: one hand-off more is its counted drop.
        for _ in 0..=usize::from(HandoffTag::HOPS_MAX) + 1 {
            let Some(frame) = next.take() else { break };
            let (w, port) = (&mut self.workers[at], &mut self.ports[at]);
            // The table's idea of time follows even while nothing is due, as with a node that polls all the time.
            w.handle_timeout(self.clock);
            let opened = w.counters().opened;
            if port.feed(frame).is_err() {
                break;
            }
            step(w, port, self.clock, &mut self.buffers);
            outcome.worker = at;
            outcome.opened = w.counters().opened > opened;
            debug_assert!(self.handed_off.is_empty(), "one frame goes one way");
            for emitted in port.take().take(EMITTED_MAX) {
                match emitted {
                    Emitted::Sent(to, frame) => {
                        let originated = frame.cookie == ORIGINATED;
                        if !originated {
                            outcome.verdict = Verdict::Tx(to);
                        }
                        sent.push(Sent {
                            port: to,
                            frame,
                            originated,
                        });
                    }
                    Emitted::Punted(_) => outcome.verdict = Verdict::Punt,
                    Emitted::Done(verdict, _) => outcome.verdict = verdict,
                    Emitted::HandedOff(to, tag, frame) => self.handed_off.push((to, tag, frame)),
                }
            }
            if let Some((to, tag, mut frame)) = self.handed_off.pop() {
                frame.tag = Some(tag);
                at = usize::from(to.0).min(self.workers.len() - 1);
                next = Some(frame);
            }
        }
        outcome
    }

    /// What all workers counted.
    pub(super) fn counters(&self) -> Counters {
        let mut all = Counters::default();
        self.workers.iter().for_each(|w| all.add(w.counters()));
        all
    }

    /// What each worker counted.
    pub(super) fn by_worker(&self) -> impl Iterator<Item = &Counters> {
        self.workers.iter().map(Worker::counters)
    }
}
