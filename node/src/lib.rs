//! The daemon: what owns a clock, a thread, a socket or a mapping. The engine and all decisions about the cluster are
//! core's; here are the threads that drive them.
//!
//! - A *worker* thread (`worker`) runs `step` over its packet I/O (`io`), for ever.
//! - The *control* thread (`control`) drives core's `Control`: sync frames of other nodes (`transport`, `datagram`), events of
//!   workers, timers, signals.
//! - A *lane* (`lane`) lies between it and each worker: bounded rings.
//! - The *admin* thread (`admin`) answers who looks in: a Unix socket and `/metrics`.
//!
//! [`run`] puts all of it together, or refuses with a reason and a remedy before any of it has begun.

#[cfg(unix)]
pub mod admin;
#[cfg(unix)]
mod clock;
#[cfg(unix)]
mod control;
#[cfg(unix)]
mod daemon;
#[cfg(unix)]
mod datagram;
#[cfg(unix)]
mod drops;
#[cfg(unix)]
pub mod health;
#[cfg(unix)]
mod identity;
#[cfg(unix)]
mod io;
#[cfg(unix)]
mod kernel;
mod lane;
pub mod log;
pub mod memory;
#[cfg(unix)]
mod ports;
#[cfg(unix)]
mod reload;
#[cfg(unix)]
pub mod secrets;
#[cfg(unix)]
mod serving;
#[cfg(unix)]
mod start;
#[cfg(unix)]
mod system;
#[cfg(unix)]
mod telling;
#[cfg(unix)]
mod transport;
#[cfg(unix)]
mod worker;

#[cfg(unix)]
pub use control::Ended;
#[cfg(unix)]
pub use daemon::run;
#[cfg(unix)]
pub use reload::Reload;
#[cfg(unix)]
pub use start::outlive_signals;

/// Why a daemon does not start, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

pub(crate) fn refusal(message: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal {
        message: message.into(),
        help: help.into(),
    }
}

impl Refusal {
    /// The same with the remedy for a file, socket or eventfd that the system gave nobody any more, wherever that was found:
    /// libpcap and DPDK say it in words alone.
    #[cfg(unix)]
    fn for_want_of_files(mut self) -> Self {
        // ENFILE, too, which goes on by "in system".
        if self.message.contains("Too many open files") {
            self.help =
                "raise the limit of open files: LimitNOFILE of the service, `ulimit -n` in a shell, or \
                         fs.file-max of the whole system"
                    .to_owned();
        }
        self
    }
}
