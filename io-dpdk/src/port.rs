//! Packet I/O of one worker over DPDK ports, one queue each.

use std::ffi::{CString, c_int};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use dpdk_sys::RteMbuf;
use evenkeel_core::port::{BURST, Frame, HEADROOM, HandoffTag, Port, PortId, WorkerId};

use crate::eal::{Eal, EalInner, error_text, port_names};
use crate::mbuf::Mbuf;
use crate::mempool::Mempool;

/// Interfaces of one port at most.
pub const INTERFACES_MAX: usize = 16;

/// Attempts to send what is left of a burst, after the driver took nothing, before it is dropped.
pub const TX_TRIES_MAX: u32 = 4;

/// Longest chained frame that net_pcap writes whole; it cuts longer ones. It does not announce that it
/// takes chains.
const NET_PCAP_CHAIN_MAX: usize = 0x3F00;

/// An interface to open.
#[derive(Clone, Debug)]
pub struct InterfaceConfig {
    /// Name of the DPDK device: `net_pcap0`, or a PCI address such as `0000:03:00.0`.
    pub name: String,
    /// Receive descriptors wanted; the driver's limits apply.
    pub rx_desc_count: u16,
    /// Transmit descriptors wanted; the driver's limits apply.
    pub tx_desc_count: u16,
}

impl InterfaceConfig {
    /// An interface with 1,024 descriptors each way.
    pub fn new(name: &str) -> Self {
        InterfaceConfig {
            name: name.to_owned(),
            rx_desc_count: 1024,
            tx_desc_count: 1024,
        }
    }
}

/// What a port did with frames. The engine counts its own verdicts; these are the driver's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames given to the engine.
    pub rx_frames: u64,
    /// Of these, frames copied because they came shared or without headroom.
    pub rx_copied: u64,
    /// Frames dropped because they had to be copied and the pool was empty.
    pub rx_no_buffer: u64,
    /// Frames that the driver took.
    pub tx_frames: u64,
    /// Times that a full transmit queue made us try again.
    pub tx_retries: u64,
    /// Frames dropped because the transmit queue stayed full.
    pub tx_full: u64,
    /// Frames dropped because the driver takes no chained frames, or none so long.
    pub tx_chained: u64,
    /// Frames dropped because they were to leave by an interface that does not exist.
    pub tx_no_interface: u64,
    /// Frames for the kernel, dropped: there is no way to it.
    pub punt_dropped: u64,
    /// Frames for another worker, dropped: a port of one queue is for one worker.
    pub handoff_dropped: u64,
    /// Frames that the engine wanted and the pool, or a buffer's room, did not have.
    pub alloc_failed: u64,
}

/// Counters that the driver keeps.
pub type DriverStats = dpdk_sys::Stats;

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether it carries frames.
    pub up: bool,
    /// Whether both directions may send at once.
    pub full_duplex: bool,
    /// Speed in Mbit/s, if known.
    pub speed_mbps: Option<u32>,
}

/// One worker's interfaces. The index of an interface is its [`PortId`].
#[derive(Debug)]
pub struct DpdkPort {
    interfaces: Vec<Interface>,
    pool: Mempool,
    /// Interface to be polled first, so that a busy one does not starve the others.
    first: usize,
    stats: PortStats,
}

/// A started DPDK port and what waits to be sent on it. Stopped and closed when dropped.
#[derive(Debug)]
struct Interface {
    id: u16,
    mac: [u8; 6],
    mtu: u16,
    /// Longest chained frame that may be sent.
    chain_len_max: usize,
    pending: Vec<Mbuf>,
    eal: Arc<EalInner>,
}

impl DpdkPort {
    /// Opens and starts interfaces; received frames come from `pool`.
    ///
    /// # Errors
    /// An interface that does not exist, is in use or cannot be set up; those opened before it are closed.
    pub fn open(eal: &Eal, interfaces: &[InterfaceConfig], pool: &Mempool) -> Result<DpdkPort, PortError> {
        if interfaces.is_empty() || interfaces.len() > INTERFACES_MAX {
            return Err(PortError::Count(interfaces.len()));
        }
        let interfaces = interfaces
            .iter()
            .map(|config| Interface::open(eal, config, pool))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(DpdkPort {
            interfaces,
            pool: pool.clone(),
            first: 0,
            stats: PortStats::default(),
        })
    }

    /// What happened so far.
    pub fn stats(&self) -> PortStats {
        self.stats
    }

    /// The pool of received and allocated frames.
    pub fn pool(&self) -> &Mempool {
        &self.pool
    }

    /// MAC address of an interface.
    pub fn mac(&self, port: PortId) -> Option<[u8; 6]> {
        Some(self.interface(port)?.mac)
    }

    /// MTU of an interface, in bytes.
    pub fn mtu(&self, port: PortId) -> Option<u16> {
        Some(self.interface(port)?.mtu)
    }

    /// State of an interface's link, without waiting; `None` if there is no such interface, or the driver
    /// does not say.
    pub fn link(&self, port: PortId) -> Option<Link> {
        let interface = self.interface(port)?;
        let mut link = dpdk_sys::Link::default();
        // SAFETY: the port is open, as we hold it; `link` is writable and of the shim's layout.
        if unsafe { dpdk_sys::ekd_port_link(interface.id, &mut link) } != 0 {
            return None;
        }
        let speed_mbps = (link.speed_mbps != u32::MAX && link.speed_mbps != 0).then_some(link.speed_mbps);
        Some(Link {
            up: link.up != 0,
            full_duplex: link.full_duplex != 0,
            speed_mbps,
        })
    }

    /// The driver's counters of an interface; `None` if there is no such interface, or it has none.
    pub fn driver_stats(&self, port: PortId) -> Option<DriverStats> {
        let interface = self.interface(port)?;
        let mut stats = DriverStats::default();
        // SAFETY: the port is open, as we hold it; `stats` is writable and of the shim's layout.
        (unsafe { dpdk_sys::ekd_port_stats(interface.id, &mut stats) } == 0).then_some(stats)
    }

    fn interface(&self, port: PortId) -> Option<&Interface> {
        self.interfaces.get(usize::from(port.0))
    }
}

impl Port for DpdkPort {
    type Frame = Mbuf;

    fn rx_burst(&mut self, into: &mut Vec<Mbuf>) -> usize {
        let before = into.len();
        let count = self.interfaces.len();
        for step in 0..count {
            let index = (self.first + step) % count;
            let room = BURST.saturating_sub(into.len());
            let Some(interface) = self.interfaces.get_mut(index).filter(|_| room > 0) else {
                break;
            };
            let mut raw: [*mut RteMbuf; BURST] = [ptr::null_mut(); BURST];
            let got = interface.receive(&mut raw[..room]);
            for raw in raw.iter().take(got).filter_map(|&raw| NonNull::new(raw)) {
                // SAFETY: rte_eth_rx_burst() gives ownership of the frames it returns. What a driver may
                // still hold shared is copied by `receivable` before anyone writes to it.
                let frame = unsafe { receivable(raw, &self.pool, &mut self.stats) };
                if let Some(mut frame) = frame {
                    frame.set_ingress(PortId(index as u16));
                    into.push(frame);
                }
            }
        }
        self.first = (self.first + 1) % count.max(1);
        let got = into.len() - before;
        self.stats.rx_frames += got as u64;
        got
    }

    fn alloc(&mut self, len: usize) -> Option<Mbuf> {
        let frame = self.pool.alloc(len);
        match frame {
            Some(mut frame) => {
                frame.set_ingress(PortId::default());
                Some(frame)
            }
            None => {
                self.stats.alloc_failed += 1;
                None
            }
        }
    }

    fn tx(&mut self, port: PortId, frame: Mbuf) {
        let Some(interface) = self.interfaces.get_mut(usize::from(port.0)) else {
            self.stats.tx_no_interface += 1;
            return;
        };
        if frame.segment_count() > 1 && frame.len() > interface.chain_len_max {
            self.stats.tx_chained += 1;
            return;
        }
        interface.pending.push(frame);
        if interface.pending.len() >= BURST {
            interface.send(&mut self.stats);
        }
    }

    fn punt(&mut self, frame: Mbuf) {
        self.stats.punt_dropped += 1;
        drop(frame);
    }

    fn handoff(&mut self, _to: WorkerId, frame: Mbuf, _tag: HandoffTag) {
        self.stats.handoff_dropped += 1;
        drop(frame);
    }

    fn flush(&mut self) {
        for interface in &mut self.interfaces {
            interface.send(&mut self.stats);
        }
    }
}

impl Interface {
    fn open(eal: &Eal, config: &InterfaceConfig, pool: &Mempool) -> Result<Interface, PortError> {
        let name = &config.name;
        let missing = || PortError::NoSuchPort {
            name: name.clone(),
            known: port_names(),
        };
        let c_name = CString::new(name.as_str()).map_err(|_| missing())?;
        let mut id = 0;
        // SAFETY: EAL is up, `eal` being there; the name is a C string and `id` is writable.
        if unsafe { dpdk_sys::ekd_port_by_name(c_name.as_ptr(), &mut id) } != 0 {
            return Err(missing());
        }
        if !eal.inner().claim_port(id) {
            return Err(PortError::InUse(name.clone()));
        }
        let mut info = dpdk_sys::PortInfo {
            rx_desc: config.rx_desc_count,
            tx_desc: config.tx_desc_count,
            ..dpdk_sys::PortInfo::default()
        };
        // SAFETY: the port is stopped and ours (claimed above); the pool lives until `Eal::shutdown`, which
        // the interface's `eal` prevents; `info` is writable and of the shim's layout.
        let code = unsafe { dpdk_sys::ekd_port_configure(id, pool.as_ptr(), &mut info) };
        if code != 0 {
            eal.inner().release_port(id);
            return Err(PortError::Configure {
                name: name.clone(),
                code,
                text: error_text(code),
            });
        }
        // SAFETY: configured just now, with its queues.
        let code = unsafe { dpdk_sys::ekd_port_start(id) };
        if code != 0 {
            eal.inner().release_port(id);
            return Err(PortError::Start {
                name: name.clone(),
                code,
                text: error_text(code),
            });
        }
        let driver: Vec<u8> = info.driver.iter().copied().take_while(|&b| b != 0).collect();
        let chain_len_max = match (info.tx_multi_seg, driver.as_slice()) {
            (0, b"net_pcap") => NET_PCAP_CHAIN_MAX,
            (0, _) => 0,
            _ => usize::MAX,
        };
        Ok(Interface {
            id,
            mac: info.mac,
            mtu: info.mtu,
            chain_len_max,
            pending: Vec::with_capacity(BURST),
            eal: Arc::clone(eal.inner()),
        })
    }

    /// Fills `raw` from the front; returns how many.
    fn receive(&mut self, raw: &mut [*mut RteMbuf]) -> usize {
        let room = u16::try_from(raw.len()).unwrap_or(u16::MAX);
        // SAFETY: a receive queue is for one thread at a time: only one `Interface` has this port (claim_port),
        // and `self` is borrowed mutably. The port is started. `raw` has `room` places.
        usize::from(unsafe { dpdk_sys::ekd_rx_burst(self.id, raw.as_mut_ptr(), room) })
    }

    /// Sends what is pending; what the driver does not take after [`TX_TRIES_MAX`] vain attempts is dropped.
    fn send(&mut self, stats: &mut PortStats) {
        let mut raw: [*mut RteMbuf; BURST] = [ptr::null_mut(); BURST];
        let mut count = 0;
        // At most BURST frames are pending, as `tx` sends then.
        for (slot, frame) in raw.iter_mut().zip(self.pending.drain(..)) {
            *slot = frame.into_raw().as_ptr();
            count += 1;
        }
        let mut rest = raw.get_mut(..count).unwrap_or_default();
        let mut tries = 0;
        while !rest.is_empty() && tries < TX_TRIES_MAX {
            let left = u16::try_from(rest.len()).unwrap_or(u16::MAX);
            // SAFETY: a transmit queue is for one thread at a time: as in `receive`. We own the frames; the driver
            // owns the first `sent` of them from here on, and they are not looked at again.
            let sent = usize::from(unsafe { dpdk_sys::ekd_tx_burst(self.id, rest.as_mut_ptr(), left) });
            stats.tx_frames += sent as u64;
            tries = if sent == 0 { tries + 1 } else { 0 };
            rest = rest.get_mut(sent..).unwrap_or_default();
            if !rest.is_empty() {
                stats.tx_retries += 1;
            }
        }
        stats.tx_full += rest.len() as u64;
        if !rest.is_empty() {
            // SAFETY: the driver did not take these, so they are still ours; they are freed once, here.
            unsafe { dpdk_sys::ekd_mbuf_free_bulk(rest.as_mut_ptr(), rest.len() as u32) };
        }
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        // What `tx` took without a `flush` was never promised to the wire.
        self.pending.clear();
        // SAFETY: the port is open and ours; nobody is in its queues, as `self` is borrowed mutably. Closing
        // returns the driver's frames to their pools. A driver that fails here has been told to stop twice.
        unsafe {
            dpdk_sys::ekd_port_stop(self.id);
            dpdk_sys::ekd_port_close(self.id);
        }
        self.eal.release_port(self.id);
    }
}

/// Makes a received frame keep the promises of `Frame`: headroom, a contiguous head, buffers of its own.
///
/// # Safety
/// As for [`Mbuf::from_raw`], but that buffers may be shared.
unsafe fn receivable(raw: NonNull<RteMbuf>, pool: &Mempool, stats: &mut PortStats) -> Option<Mbuf> {
    // SAFETY: the caller owns it, and shared buffers are only read until they are copied.
    let mut frame = unsafe { Mbuf::from_raw(raw) };
    if frame.has_headroom(HEADROOM) && !frame.is_shared() && frame.gather_head() {
        return Some(frame);
    }
    match frame.copied(pool) {
        Some(copy) => {
            stats.rx_copied += 1;
            Some(copy)
        }
        None => {
            stats.rx_no_buffer += 1;
            None
        }
    }
}

/// Why an interface was not opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// There are 1 to [`INTERFACES_MAX`].
    #[error("a port has 1 to {INTERFACES_MAX} interfaces, not {0}")]
    Count(usize),
    /// DPDK has no port of this name. EAL starts without devices that fail: its log has the reason.
    #[error(
        "DPDK has no port {name:?}: its device is missing, or failed to start (its log lines above say why); \
         ports there are: {}",
        list(known)
    )]
    NoSuchPort {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Another [`DpdkPort`] has it.
    #[error("DPDK port {0:?} is in use by this process")]
    InUse(String),
    /// Its queues could not be set up.
    #[error("DPDK port {name:?} cannot be set up: {text} (error {code})")]
    Configure {
        /// Name of the port.
        name: String,
        /// Negative errno.
        code: c_int,
        /// Its text.
        text: String,
    },
    /// It did not start.
    #[error("DPDK port {name:?} does not start: {text} (error {code})")]
    Start {
        /// Name of the port.
        name: String,
        /// Negative errno.
        code: c_int,
        /// Its text.
        text: String,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
