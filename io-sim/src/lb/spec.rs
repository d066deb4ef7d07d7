//! What a load balancer is made of, and what it counts.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::conn::TableSizes;
use evenkeel_core::lport::Steering;
use evenkeel_core::service::SnapshotSpec;
use evenkeel_core::stats::Counters;

use super::LbCluster;

/// What a load balancer's work costs in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbCost {
    /// From a frame's arrival in an empty ring to the turn of the worker.
    pub wake: Duration,
    /// Of a turn.
    pub turn: Duration,
    /// Of each frame of a turn, in addition.
    pub frame: Duration,
    /// Of each message of a peer, each command and each sync frame that a worker makes, in addition.
    pub message: Duration,
}

impl Default for LbCost {
    fn default() -> Self {
        LbCost {
            wake: Duration::from_micros(1),
            turn: Duration::from_nanos(100),
            frame: Duration::from_nanos(200),
            message: Duration::from_nanos(300),
        }
    }
}

impl LbCost {
    /// Everything at once, as a replay does it.
    pub const NONE: LbCost = LbCost {
        wake: Duration::ZERO,
        turn: Duration::ZERO,
        frame: Duration::ZERO,
        message: Duration::ZERO,
    };
}

/// A load balancer.
#[derive(Clone, Debug)]
pub struct LbSpec {
    /// For captures and messages.
    pub name: String,
    /// Workers, 1 to 64.
    pub workers: u8,
    /// RSS key and buckets, the same on every node of a cluster.
    pub steering: Arc<Steering>,
    /// Sizes of each worker's table.
    pub sizes: TableSizes,
    /// Smallest local port that is given to a conn.
    pub local_port_min: u16,
    /// Ports, services, routes, neighbours.
    pub config: SnapshotSpec,
    /// Where the engine's randomness comes from; `None`: drawn from the world's seed, another one for each life.
    pub seed: Option<u64>,
    /// Frames in a worker's receive ring at most.
    pub rx_ring: usize,
    /// Frames that are handed to a worker and wait, at most.
    pub handoff_ring: usize,
    /// What work costs.
    pub cost: LbCost,
    /// Its clock is faster than the world's by so many millionths, or slower: [`DRIFT_PPM_MAX`](super::DRIFT_PPM_MAX) at
    /// most.
    pub drift_ppm: i32,
    /// The NICs take in every frame.
    pub promiscuous: bool,
    /// Its place in a cluster; `None`: it is alone.
    pub cluster: Option<LbCluster>,
}

impl LbSpec {
    /// With 2 workers, small tables, rings of 1,024 and 512 frames.
    pub fn new(name: impl Into<String>, steering: Arc<Steering>, config: SnapshotSpec) -> Self {
        LbSpec {
            name: name.into(),
            workers: 2,
            steering,
            sizes: TableSizes {
                conns_v4: 16_384,
                conns_v6: 16_384,
                exts: 1024,
            },
            local_port_min: 1024,
            config,
            seed: None,
            rx_ring: 1024,
            handoff_ring: 512,
            cost: LbCost::default(),
            drift_ppm: 0,
            promiscuous: false,
            cluster: None,
        }
    }
}

/// Bounds of a load balancer's rings, in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbRings {
    /// Of a worker: from the NIC.
    pub rx: usize,
    /// Of a worker: from other workers.
    pub handoff: usize,
    /// Of the control side: from other nodes.
    pub sync: usize,
}

/// Whether a load balancer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LbState {
    /// Never started, or crashed.
    Down,
    /// Runs.
    Running,
    /// Its threads stand still.
    Paused,
}

impl LbState {
    pub(super) const fn name(self) -> &'static str {
        match self {
            LbState::Down => "down",
            LbState::Running => "running",
            LbState::Paused => "paused",
        }
    }
}

/// What the machine of a load balancer counted, in frames, over all its lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LbCounters {
    /// Received from links of data ports.
    pub received: u64,
    /// Of these: came while it was down.
    pub down: u64,
    /// Of these: for others.
    pub filtered: u64,
    /// Of these: of a bucket that its NIC loses.
    pub bucket_dark: u64,
    /// Of these: found the ring of their worker full.
    pub rx_ring_full: u64,
    /// Of these: waited in a ring when it crashed.
    pub lost_in_crash: u64,
    /// Of these: found the hand-off ring of their worker full.
    pub handoff_ring_full: u64,
    /// Of these: dropped or answered by the engine; its counters say why.
    pub done: u64,
    /// Of these: for the control side.
    pub punted: u64,
    /// Of these: sent on.
    pub forwarded: u64,
    /// Frames that the engine and the control side made and sent.
    pub originated: u64,
    /// Frames to be sent out of a port that has no link.
    pub no_link: u64,
    /// The most that a receive ring held, since its bound was set.
    pub rx_ring_peak: usize,
    /// The most that a hand-off ring held, since its bound was set.
    pub handoff_ring_peak: usize,
}

/// What one worker counted in its present life, and what it holds.
#[derive(Clone, Debug)]
pub struct WorkerCounters {
    /// The engine's.
    pub engine: Counters,
    /// Frames that wait for it.
    pub waiting: usize,
    /// Messages of peers that wait for it.
    pub messages_waiting: usize,
    /// Commands that wait for it.
    pub commands_waiting: usize,
    /// Turns that it took.
    pub turns: u64,
}
