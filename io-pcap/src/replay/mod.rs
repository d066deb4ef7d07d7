//! Replay: a capture through the engine, each packet at its own time.
//!
//! One packet goes this way: [`CaptureSource`] reads it, the file layer makes an Ethernet frame of it, `look`
//! finds its ends, `checksum` verifies it, `map_vip` and `reply` give it its place around the balancer
//! (`--map-vip` only), `sides` says by which port it came, `engine` lets time pass and hands it to the worker to
//! which RSS would bring it, and `output`, `ledger` and `summary` keep what came of it.
//!
//! Bounds: packets are read one at a time; flows ([`FLOW_COUNT_MAX`]), remembered conns ([`CONN_LOG_MAX`]) and
//! a capture from a pipe ([`SPOOL_LEN_MAX`]) have theirs; the tables have the sizes of the config.

mod checksum;
mod engine;
mod ledger;
mod look;
mod map_vip;
mod output;
mod patient;
mod reply;
mod run;
mod sides;
mod source;
mod summary;

pub use checksum::BadChecksums;
pub use ledger::{CONN_LOG_MAX, ConnEnd, ConnResult};
pub use map_vip::{Endpoint, FLOW_COUNT_MAX, MapVip, MapVipError};
pub use run::{replay, replay_in};
pub use source::{CaptureSource, SPOOL_LEN_MAX, SpoolError};
pub use summary::{
    CaptureSummary, ChecksumSummary, ConnSummary, DropCount, MapVipSummary, NotPresented, OffloadSender,
    StateCount, Summary, VerdictSummary, WorkerSummary, utc,
};

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_core::conn::TableSizes;
use evenkeel_core::lport::Steering;
use evenkeel_core::service::SnapshotSpec;

use crate::file::{CaptureError, WriteError};

/// Workers of a replay at most.
pub const WORKER_COUNT_MAX: u8 = 64;

/// The node whose engine a capture goes through: what a config says.
#[derive(Clone, Debug)]
pub struct Node {
    /// RSS key and buckets.
    pub steering: Arc<Steering>,
    /// Sizes of the table of each worker.
    pub sizes: TableSizes,
    /// Smallest local port that is given to a conn.
    pub local_port_min: u16,
    /// Ports, services, routes, neighbours.
    pub spec: SnapshotSpec,
}

/// Where the output goes.
pub enum Output {
    /// To a file, compressed if its name ends in `.gz`; `-` is standard output.
    Path(PathBuf),
    /// Anywhere.
    Stream(Box<dyn Write + Send>),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Output::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// Says whether a frame is presented.
pub type Filter = Box<dyn FnMut(&[u8]) -> bool>;

/// How a capture is replayed.
#[derive(Default)]
pub struct Options {
    /// Which endpoint becomes the VIP; `None`: the capture was taken at the balancer, both legs.
    pub map_vip: Option<MapVip>,
    /// What is done about wrong checksums.
    pub bad_checksums: BadChecksums,
    /// Workers, 1 to [`WORKER_COUNT_MAX`]; other numbers are taken as the nearest of these.
    pub workers: u8,
    /// Where the engine's randomness comes from.
    pub seed: u64,
    /// Whether the summary lists every connection.
    pub conns: bool,
    /// Which frames are presented; `None`: all.
    pub filter: Option<Filter>,
    /// Where the packets are written, if anywhere.
    pub output: Option<Output>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("map_vip", &self.map_vip)
            .field("bad_checksums", &self.bad_checksums)
            .field("workers", &self.workers)
            .field("seed", &self.seed)
            .field("conns", &self.conns)
            .field("filter", &self.filter.is_some())
            .field("output", &self.output)
            .finish()
    }
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whether it still looks for the busiest endpoint.
    pub scanning: bool,
    /// Packets read.
    pub packets: u64,
    /// Bytes of the capture read, after decompression.
    pub bytes: u64,
}

/// Why a capture was not replayed. (One that is cut short is: [`CaptureSummary::cut`] says so.)
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read at all.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// It came through a pipe and could not be kept.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The output could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The endpoint cannot be mapped onto the config.
    #[error(transparent)]
    MapVip(#[from] MapVipError),
    /// The tables are larger than what the system gives.
    #[error(
        "{} MiB of tables for {workers} worker{} are not to be had: lower conns_v4 and conns_v6 of [table], or the number of workers",
        bytes.div_ceil(1 << 20),
        if *workers == 1 { "" } else { "s" }
    )]
    Memory {
        /// Workers.
        workers: u8,
        /// Bytes that their tables take together.
        bytes: u128,
    },
    /// The config is refused. A config that was checked never is.
    #[error("the config is refused: {0}")]
    Config(String),
}
