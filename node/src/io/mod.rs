//! Packet I/O of workers: what a driver is asked for beside core's `Port`.

#[cfg(feature = "dpdk")]
pub(crate) mod dpdk;
#[cfg(feature = "libpcap")]
pub(crate) mod pcap;
pub(crate) mod station;

/// A pool of frame buffers.
#[cfg_attr(
    not(feature = "dpdk"),
    allow(dead_code, reason = "there is no driver with pools")
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolView {
    pub(crate) name: String,
    /// Buffers that it has.
    pub(crate) capacity: u64,
    /// Of these, buffers that are not home: in a driver, in a ring, in a worker's hands.
    pub(crate) in_use: u64,
}

/// Looks at the pools of a driver, from any thread; no worker is asked.
pub(crate) type PoolLook = Box<dyn Fn() -> Vec<PoolView> + Send + Sync>;
