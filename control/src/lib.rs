//! Config text to [`Snapshot`](evenkeel_core::service::Snapshot): parsing, checking, and errors that name
//! file, line, value and remedy. No I/O: a source is a name and a text.
//!
//! [`parse`] makes a [`Config`] of TOML text, or refuses it whole with a [`ConfigErrors`] that holds every
//! mistake found, each with the place in the text and what to write instead. The language is described in
//! `docs/config.md`.
//!
//! ```
//! let error = evenkeel_control::parse("node.toml", "worker = 2").unwrap_err();
//! // No port, no service, and this:
//! let unknown = &error.problems()[2];
//! assert_eq!((unknown.line, unknown.column), (1, 1));
//! assert!(unknown.help.contains("did you mean `workers`?"));
//! ```

mod check;
mod cluster;
mod config;
mod daemon;
mod health;
mod ids;
mod io;
mod problem;
mod read;
mod sections;
mod syntax;
mod value;

/// What a config is read with, for other languages of the project that are written in TOML: a reader that goes
/// on after an error, and reports of all errors with their places and remedies.
pub mod reading {
    pub use crate::problem::{Finding, Findings, Span, shown};
    pub use crate::read::{Field, Key, Need, Schema, Table, list, nearest};
    pub use crate::syntax::tree;
}

pub use cluster::{Cluster, ClusterNode, Trust};
pub use config::{Config, parse, parse_as, parse_with};
pub use daemon::{DaemonConfig, LogConfig, LogFormat, LogLevel};
pub use health::{HealthCheck, HealthConfig};
pub use ids::Ids;
pub use io::{DEVICE_LEN_MAX, Device, DpdkConfig, Driver, INTERFACE_LEN_MAX, Idle, IoConfig};
pub use problem::{Code, ConfigErrors, PROBLEM_COUNT_MAX, Problem};
pub use value::{Bad, address, duration, endpoint, mac, prefix, replicate, show_duration};

/// Longest config text, in bytes.
pub const TEXT_LEN_MAX: usize = 16 << 20;

/// Workers of a node at most.
pub const WORKER_COUNT_MAX: u8 = 64;

// A node tells where the streams of all of them are.
const _: () = assert!(WORKER_COUNT_MAX as usize <= evenkeel_core::sync::codec::HELLO_WORKER_COUNT_MAX);
