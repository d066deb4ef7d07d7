//! Packet I/O over DPDK: a thin [`Port`](evenkeel_core::port::Port), one queue per interface.
//!
//! Everything needs feature `dpdk` and, at build time, libdpdk; [`UNAVAILABLE`] says what is missing.
//! The order of things:
//!
//! 1. `Eal::init` starts DPDK, once per process, on a thread of its own;
//! 2. `Mempool::create` makes the buffers;
//! 3. `DpdkPort::open` takes interfaces by name and starts them;
//! 4. the thread that drives the port calls `Eal::register_thread`, for a mempool cache;
//! 5. after all of these are dropped, `Eal::shutdown` ends DPDK, if every frame is home.
//!
//! The `unsafe` of the project lives here and in `dpdk-sys`. Ownership is what makes it safe: a frame has
//! one owner (`Mbuf`), a queue has one owner (`DpdkPort`), and what they point into lives until
//! `Eal::shutdown`, which refuses while any of them exists.

#[cfg(feature = "dpdk")]
pub mod eal;
#[cfg(feature = "dpdk")]
pub mod mbuf;
#[cfg(feature = "dpdk")]
pub mod mempool;
#[cfg(feature = "dpdk")]
pub mod paced;
#[cfg(feature = "dpdk")]
pub mod port;

#[cfg(feature = "dpdk")]
pub use eal::{Eal, EalArgs, EalError, LcoreGuard, Memory, ShutdownError};
#[cfg(feature = "dpdk")]
pub use mbuf::{Mbuf, RxTimestampField};
#[cfg(feature = "dpdk")]
pub use mempool::{Mempool, MempoolConfig, MempoolError};
#[cfg(feature = "dpdk")]
pub use paced::PacedPort;
#[cfg(feature = "dpdk")]
pub use port::{DpdkPort, DriverStats, InterfaceConfig, Link, PortError, PortStats};

/// Why DPDK cannot be used in this build, and what to do; `None` if it can.
pub const UNAVAILABLE: Option<&str> = dpdk_sys::UNAVAILABLE;
