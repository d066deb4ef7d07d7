//! Packet I/O over DPDK: a [`Port`](evenkeel_core::port::Port) for each worker of a node, with a queue of every
//! interface.
//!
//! Everything needs feature `dpdk` and, at build time, libdpdk; [`UNAVAILABLE`] says what is missing.
//! The order of things:
//!
//! 1. `DeviceSpec::parse` reads the devices of a config; `Eal::init` starts DPDK with them, once per process, on a
//!    thread of its own;
//! 2. `Devices::open` makes the pools, opens and starts the interfaces, tells NICs how to steer, and gives a
//!    `DpdkPort` for each worker; with it comes a `Control` for other threads;
//! 3. each port is moved to its worker's thread, which calls `Eal::register_thread`, for a mempool cache;
//! 4. after all of these are dropped, `Eal::shutdown` ends DPDK, if every frame is home.
//!
//! The `unsafe` of the project lives here and in `dpdk-sys`. Ownership is what makes it safe: a frame has
//! one owner (`Mbuf`), a queue has one owner (`DpdkPort`), and what they point into lives until
//! `Eal::shutdown`, which refuses while any of them exists.

#[cfg(feature = "dpdk")]
pub mod device;
#[cfg(feature = "dpdk")]
pub mod devices;
#[cfg(feature = "dpdk")]
pub mod eal;
#[cfg(feature = "dpdk")]
mod handoff;
#[cfg(feature = "dpdk")]
pub mod mbuf;
#[cfg(feature = "dpdk")]
pub mod mempool;
#[cfg(feature = "dpdk")]
pub mod paced;
#[cfg(feature = "dpdk")]
pub mod port;
#[cfg(feature = "dpdk")]
pub mod rss;
#[cfg(feature = "dpdk")]
pub mod tap;

#[cfg(feature = "dpdk")]
pub use device::DeviceSpec;
#[cfg(feature = "dpdk")]
pub use devices::{
    Control, Devices, DevicesConfig, DriverStats, InterfaceConfig, Link, PortError, Reception, Steered,
};
#[cfg(feature = "dpdk")]
pub use eal::{Eal, EalArgs, EalError, LcoreGuard, LogLine, Memory, ShutdownError};
#[cfg(feature = "dpdk")]
pub use mbuf::{Mbuf, RxTimestampField};
#[cfg(feature = "dpdk")]
pub use mempool::{Mempool, MempoolConfig, MempoolError};
#[cfg(feature = "dpdk")]
pub use paced::PacedPort;
#[cfg(feature = "dpdk")]
pub use port::{DpdkPort, PortStats, PuntHook};
#[cfg(feature = "dpdk")]
pub use tap::{TapConfig, TapError, TapStats};

/// Why DPDK cannot be used in this build, and what to do; `None` if it can.
pub const UNAVAILABLE: Option<&str> = dpdk_sys::UNAVAILABLE;
