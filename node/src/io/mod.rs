//! Packet I/O of workers: what a driver is asked for beside core's `Port`.

use evenkeel_core::port::PortId;

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

/// Looks at a driver, from any thread; no worker is asked. It may wait for a NIC's firmware.
pub(crate) trait DriverLook: Send + Sync {
    /// Its pools of buffers.
    fn pools(&self) -> Vec<PoolView>;
    /// Whether a port's link is up; `None`: it does not say.
    fn link_is_up(&self, port: PortId) -> Option<bool>;
    /// The address of a port's device.
    fn mac(&self, port: PortId) -> Option<[u8; 6]>;
    /// What it counted of a port since it was opened.
    fn counts(&self, port: PortId) -> Vec<(&'static str, u64)>;
}
