//! Thin FFI to DPDK, releases 22.11 to 24.11: a C shim (`shim.c`) and hand-written declarations of it.
//!
//! Without feature `dpdk` the crate is empty: no C is compiled and nothing is linked. With it, on a
//! machine without libdpdk, the build warns and makes a stub: every function exists, `ekd_eal_init` fails,
//! and [`UNAVAILABLE`] says why.
//!
//! Nothing here is safe to use directly; `evenkeel-io-dpdk` keeps DPDK's rules behind safe types.
#![no_std]

#[cfg(feature = "dpdk")]
mod ffi;

#[cfg(feature = "dpdk")]
pub use ffi::*;

/// Why DPDK cannot be used in this build, and what to do; `None` if it can.
pub const UNAVAILABLE: Option<&str> = if cfg!(not(feature = "dpdk")) {
    Some("this was built without feature `dpdk`")
} else if cfg!(dpdk_stub) {
    Some("libdpdk was not found when this was built (Debian: apt install libdpdk-dev)")
} else {
    None
};
