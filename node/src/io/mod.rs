//! Packet I/O of workers: what a driver is asked for beside core's `Port`.

#[cfg(feature = "dpdk")]
pub(crate) mod dpdk;
#[cfg(feature = "libpcap")]
pub(crate) mod pcap;
pub(crate) mod station;
