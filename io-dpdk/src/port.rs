//! Packet I/O of one worker over DPDK: its queue of every interface, and the rings between the workers.

use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use dpdk_sys::RteMbuf;
use evenkeel_core::hash::Toeplitz;
use evenkeel_core::port::{BURST, Frame, HEADROOM, HandoffTag, Port, PortId, WorkerId};

use crate::devices::{Device, DriverStats, Link};
use crate::handoff::{Refused, Ring};
use crate::mbuf::Mbuf;
use crate::mempool::Mempool;
use crate::rss::RssTrust;

/// Attempts to send what is left of a burst, after the driver took nothing, before it is dropped.
pub const TX_TRIES_MAX: u32 = 4;

/// What a port did with frames. The engine counts its own verdicts; these are the driver's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames given to the engine, those that other workers handed over included.
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
    /// Frames passed on to the worker that has a transmit queue of their interface: there are fewer than workers.
    pub tx_passed_on: u64,
    /// Frames dropped because too many wait to be passed on.
    pub tx_pass_full: u64,
    /// Frames sent for the kernel or for a worker without a transmit queue, of `tx_frames`.
    pub tx_for_others: u64,
    /// Frames whose checksum was left to the driver.
    pub tx_checksum_driver: u64,
    /// Frames whose checksum was asked for and made here, as the driver does not.
    pub tx_checksum_software: u64,
    /// Frames dropped because the driver would not make the checksum that it offers.
    pub tx_refused: u64,
    /// Frames given to the kernel.
    pub punted: u64,
    /// Frames for the kernel, dropped because too many wait for it.
    pub punt_full: u64,
    /// Frames for the kernel, dropped: there is no way to it.
    pub punt_dropped: u64,
    /// Frames given to other workers.
    pub handoff_out: u64,
    /// Frames that other workers gave, of `rx_frames`.
    pub handoff_in: u64,
    /// Frames for another worker, dropped because its ring is full.
    pub handoff_full: u64,
    /// Frames for another worker, dropped: that one is gone, or there is none of its number.
    pub handoff_dropped: u64,
    /// Frames that the engine wanted and the pool, or a buffer's room, did not have.
    pub alloc_failed: u64,
    /// RSS hashes that were compared with the software's, and agreed.
    pub rss_agreed: u64,
    /// RSS hashes that did not: their type of packets is not believed again.
    pub rss_disagreed: u64,
}

/// Who is told of each frame for the kernel, before the kernel is: where it came in, and all of its bytes.
pub type PuntHook = Box<dyn FnMut(PortId, &[u8]) + Send>;

/// One worker's queues. The index of an interface is its [`PortId`]. To be moved to the worker's thread, which
/// registers itself ([`Eal::register_thread`](crate::Eal::register_thread)).
pub struct DpdkPort {
    worker: u16,
    interfaces: Vec<Queues>,
    /// By receiver; empty if there is one worker.
    rings: Arc<[Arc<Ring<Mbuf>>]>,
    /// For comparison with hashes of NICs, if any reports some.
    toeplitz: Option<Arc<Toeplitz>>,
    /// Interface to be polled first, so that a busy one does not starve the others.
    first: usize,
    stats: PortStats,
    punt_hook: Option<PuntHook>,
    /// For frames of several segments that are shown in one piece.
    scratch: Vec<u8>,
}

impl fmt::Debug for DpdkPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpdkPort")
            .field("worker", &self.worker)
            .field("interfaces", &self.interfaces)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// A worker's queues of an interface, and what waits to be sent.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) device: Arc<Device>,
    /// Receive queue; `None`: there are fewer than workers.
    pub(crate) rx: Option<u16>,
    /// Transmit queue, this worker's or one that another one sends for it.
    pub(crate) tx: u16,
    /// Whether the transmit queue is this worker's.
    pub(crate) owns_tx: bool,
    /// At most [`BURST`].
    pub(crate) pending: Vec<Mbuf>,
    /// For which types of packets its hash is believed; `None`: it reports none.
    pub(crate) trust: Option<RssTrust>,
}

impl DpdkPort {
    pub(crate) fn new(
        worker: u16,
        interfaces: Vec<Queues>,
        rings: Arc<[Arc<Ring<Mbuf>>]>,
        toeplitz: Option<Arc<Toeplitz>>,
    ) -> DpdkPort {
        DpdkPort {
            worker,
            interfaces,
            rings,
            toeplitz,
            first: 0,
            stats: PortStats::default(),
            punt_hook: None,
            scratch: Vec::new(),
        }
    }

    /// Whose port it is.
    pub fn worker(&self) -> WorkerId {
        // As many as a number of a worker has values: `Devices` makes no more.
        WorkerId(self.worker as u8)
    }

    /// Tells `hook` of each frame for the kernel before the kernel gets it, on this worker's thread: it must not
    /// wait for anything.
    pub fn set_punt(&mut self, hook: PuntHook) {
        self.punt_hook = Some(hook);
    }

    /// What happened so far.
    pub fn stats(&self) -> PortStats {
        let trust = |of: fn(&RssTrust) -> u64| self.interfaces.iter().flat_map(|i| &i.trust).map(of).sum();
        PortStats {
            rss_agreed: trust(RssTrust::agreed),
            rss_disagreed: trust(RssTrust::disagreed),
            ..self.stats
        }
    }

    /// The pool of allocated frames: that of the first interface.
    pub fn pool(&self) -> Option<&Mempool> {
        Some(&self.interfaces.first()?.device.pool)
    }

    /// MAC address of an interface.
    pub fn mac(&self, port: PortId) -> Option<[u8; 6]> {
        Some(self.device(port)?.mac)
    }

    /// MTU of an interface, in bytes.
    pub fn mtu(&self, port: PortId) -> Option<u16> {
        Some(self.device(port)?.mtu)
    }

    /// State of an interface's link; see [`Control::link`](crate::Control::link), for other threads.
    pub fn link(&self, port: PortId) -> Option<Link> {
        self.device(port)?.link()
    }

    /// The driver's counters of an interface, all queues together; see
    /// [`Control::driver_stats`](crate::Control::driver_stats), for other threads.
    pub fn driver_stats(&self, port: PortId) -> Option<DriverStats> {
        self.device(port)?.driver_stats()
    }

    fn device(&self, port: PortId) -> Option<&Device> {
        let queues = self.interfaces.get(usize::from(port.0))?;
        Some(&queues.device)
    }

    /// Takes over what other workers handed to this one, half a burst at most: interfaces have their turn too.
    fn take_handed_over(&mut self, into: &mut Vec<Mbuf>) {
        let Some(ring) = self.rings.get(usize::from(self.worker)) else {
            return;
        };
        while into.len() < BURST / 2
            && let Some(frame) = ring.pop()
        {
            self.stats.handoff_in += 1;
            into.push(frame);
        }
    }

    /// Shows a frame for the kernel to who asked for that.
    fn show(&mut self, frame: &Mbuf) {
        let Some(hook) = &mut self.punt_hook else { return };
        if frame.segment_count() == 1 {
            hook(frame.ingress(), frame.data());
        } else {
            self.scratch.clear();
            frame.copy_to(&mut self.scratch);
            hook(frame.ingress(), &self.scratch);
        }
    }
}

impl Port for DpdkPort {
    type Frame = Mbuf;

    fn rx_burst(&mut self, into: &mut Vec<Mbuf>) -> usize {
        let before = into.len();
        self.take_handed_over(into);
        let count = self.interfaces.len();
        for step in 0..count {
            let index = (self.first + step) % count;
            let room = BURST.saturating_sub(into.len());
            let Some(queues) = self.interfaces.get_mut(index).filter(|_| room > 0) else {
                break;
            };
            let from = into.len();
            let mut raw: [*mut RteMbuf; BURST] = [ptr::null_mut(); BURST];
            let got = queues.receive(&mut raw[..room]);
            let trusted = queues.trust.as_ref().map_or(0, RssTrust::trusted);
            for raw in raw.iter().take(got).filter_map(|&raw| NonNull::new(raw)) {
                // SAFETY: rte_eth_rx_burst() gives ownership of the frames it returns. What a driver may
                // still hold shared is copied by `receivable` before anyone writes to it.
                let frame = unsafe { receivable(raw, &queues.device.pool, &mut self.stats) };
                if let Some(mut frame) = frame {
                    frame.set_received(PortId(index as u16), trusted);
                    into.push(frame);
                }
            }
            if let (Some(trust), Some(toeplitz), Some(frame)) =
                (&mut queues.trust, &self.toeplitz, into.get(from))
                && trust.wants_sample()
                && let Some(reported) = frame.nic_rss()
            {
                trust.compare(toeplitz, frame.data(), reported);
                let now = trust.trusted();
                if now != trusted {
                    // This burst as the next ones: a type that was just found out is not believed once more.
                    for frame in into.iter_mut().skip(from) {
                        frame.set_received(PortId(index as u16), now);
                    }
                }
            }
        }
        self.first = (self.first + 1) % count.max(1);
        let got = into.len() - before;
        self.stats.rx_frames += got as u64;
        got
    }

    fn alloc(&mut self, len: usize) -> Option<Mbuf> {
        let frame = self.pool().and_then(|pool| pool.alloc(len));
        match frame {
            Some(mut frame) => {
                frame.set_received(PortId::default(), 0);
                Some(frame)
            }
            None => {
                self.stats.alloc_failed += 1;
                None
            }
        }
    }

    fn tx(&mut self, port: PortId, mut frame: Mbuf) {
        let Some(queues) = self.interfaces.get_mut(usize::from(port.0)) else {
            self.stats.tx_no_interface += 1;
            return;
        };
        if frame.segment_count() > 1 && frame.len() > queues.device.chain_len_max {
            self.stats.tx_chained += 1;
            return;
        }
        if let Some(asked) = frame.asked_checksum() {
            if queues.device.tx_checksum & asked.bit() != 0 {
                self.stats.tx_checksum_driver += 1;
            } else {
                frame.finish_checksum();
                self.stats.tx_checksum_software += 1;
            }
        }
        if !queues.owns_tx {
            match queues.outbox().map(|outbox| outbox.push(frame)) {
                Some(Ok(())) => self.stats.tx_passed_on += 1,
                _ => self.stats.tx_pass_full += 1,
            }
            return;
        }
        queues.pending.push(frame);
        if queues.pending.len() >= BURST {
            queues.send(&mut self.stats);
        }
    }

    fn punt(&mut self, frame: Mbuf) {
        self.show(&frame);
        let tap = self
            .device(frame.ingress())
            .and_then(|device| device.tap.as_deref());
        match tap.map(|tap| tap.give(frame)) {
            Some(Ok(())) => self.stats.punted += 1,
            Some(Err(Refused::Full)) => self.stats.punt_full += 1,
            Some(Err(Refused::Gone)) | None => self.stats.punt_dropped += 1,
        }
    }

    fn handoff(&mut self, to: WorkerId, mut frame: Mbuf, tag: HandoffTag) {
        frame.set_tag(tag);
        let ring = self.rings.get(usize::from(to.0));
        match ring.map(|ring| ring.push(frame)) {
            Some(Ok(())) => self.stats.handoff_out += 1,
            Some(Err(Refused::Full)) => self.stats.handoff_full += 1,
            Some(Err(Refused::Gone)) | None => self.stats.handoff_dropped += 1,
        }
    }

    fn flush(&mut self) {
        for queues in &mut self.interfaces {
            queues.send(&mut self.stats);
            queues.send_for_others(&mut self.stats);
        }
    }
}

impl Drop for DpdkPort {
    fn drop(&mut self) {
        // What waits for this worker, and what would later, goes home.
        if let Some(ring) = self.rings.get(usize::from(self.worker)) {
            ring.close();
        }
        for queues in self.interfaces.iter().filter(|queues| queues.owns_tx) {
            if let Some(outbox) = queues.outbox() {
                outbox.close();
            }
        }
    }
}

impl Queues {
    fn outbox(&self) -> Option<&Arc<Ring<Mbuf>>> {
        self.device.outboxes.get(usize::from(self.tx))
    }

    /// Fills `raw` from the front; returns how many.
    fn receive(&mut self, raw: &mut [*mut RteMbuf]) -> usize {
        let Some(queue) = self.rx else { return 0 };
        let room = u16::try_from(raw.len()).unwrap_or(u16::MAX);
        // SAFETY: a receive queue is for one thread at a time: it is one worker's alone (`share_out`), and `self` is
        // borrowed mutably. The port is started as long as the device is held. `raw` has `room` places.
        usize::from(unsafe { dpdk_sys::ekd_rx_burst(self.device.id, queue, raw.as_mut_ptr(), room) })
    }

    /// Sends what the kernel, or a worker without a queue of this interface, left here: a burst at most.
    fn send_for_others(&mut self, stats: &mut PortStats) {
        if !self.owns_tx {
            return;
        }
        let Some(outbox) = self.device.outboxes.get(usize::from(self.tx)) else {
            return;
        };
        while self.pending.len() < BURST
            && let Some(frame) = outbox.pop()
        {
            if frame.segment_count() > 1 && frame.len() > self.device.chain_len_max {
                stats.tx_chained += 1;
                continue;
            }
            self.pending.push(frame);
        }
        if !self.pending.is_empty() {
            let before = stats.tx_frames;
            self.send(stats);
            stats.tx_for_others += stats.tx_frames - before;
        }
    }

    /// Sends what is pending; what the driver does not take after [`TX_TRIES_MAX`] vain attempts is dropped.
    fn send(&mut self, stats: &mut PortStats) {
        let mut raw: [*mut RteMbuf; BURST] = [ptr::null_mut(); BURST];
        let mut count = 0;
        let mut asks = false;
        // At most BURST frames are pending, as `tx` sends then.
        for (slot, frame) in raw.iter_mut().zip(self.pending.drain(..)) {
            asks |= frame.asked_checksum().is_some();
            *slot = frame.into_raw().as_ptr();
            count += 1;
        }
        let mut rest = raw.get_mut(..count).unwrap_or_default();
        let mut tries = 0;
        while !rest.is_empty() && tries < TX_TRIES_MAX {
            let mut ready = u16::try_from(rest.len()).unwrap_or(u16::MAX);
            if asks {
                // SAFETY: as for the burst below; the frames stay ours.
                ready =
                    unsafe { dpdk_sys::ekd_tx_prepare(self.device.id, self.tx, rest.as_mut_ptr(), ready) };
                if ready == 0 {
                    stats.tx_refused += 1;
                    let (refused, others) = rest.split_at_mut(1);
                    // SAFETY: the driver refused this one, so it is still ours; it is freed once, here.
                    unsafe { dpdk_sys::ekd_mbuf_free_bulk(refused.as_mut_ptr(), 1) };
                    rest = others;
                    continue;
                }
            }
            // SAFETY: a transmit queue is for one thread at a time: as in `receive`. We own the frames; the driver
            // owns the first `sent` of them from here on, and they are not looked at again.
            let sent = usize::from(unsafe {
                dpdk_sys::ekd_tx_burst(self.device.id, self.tx, rest.as_mut_ptr(), ready)
            });
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

/// A port is moved to the thread of its worker.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<DpdkPort>();
};

#[cfg(test)]
mod tests {
    use evenkeel_core::port::HandoffReason;

    use super::*;
    use crate::devices::InterfaceConfig;
    use crate::eal::{Eal, EalArgs, Memory};
    use crate::mempool::MempoolConfig;
    use crate::rss::tests::{frame, hash, toeplitz};
    use crate::rss::{AGREEMENTS_NEEDED, PacketType};

    /// The one unit test that starts EAL, which starts once in a process. net_ring gives back what it was given, with
    /// the hash that stands in it.
    #[test]
    #[cfg_attr(dpdk_stub, ignore = "SKIP: libdpdk not found (apt install libdpdk-dev)")]
    fn the_engine_is_told_hashes_that_are_believed_and_the_tag_of_a_hand_off() {
        let eal = Eal::init(&EalArgs::new(Memory::NoHuge { mb: 64 }).vdev("net_ring0", &[])).expect("EAL");
        let config = MempoolConfig {
            frame_count: 511,
            cache_count: 0,
            ..MempoolConfig::default()
        };
        let pool = Mempool::create(&eal, "frames", config).expect("a pool");
        let mut port = DpdkPort::open(&eal, &[InterfaceConfig::new("net_ring0")], &pool).expect("a port");
        // As of a device that reports hashes.
        port.toeplitz = Some(Arc::new(toeplitz().clone()));
        port.interfaces[0].trust = Some(RssTrust::default());
        let mut told = |kind, hash: Option<u32>| {
            let mut sent = pool.copy_of(&frame(kind, 7)).expect("a frame");
            if let Some(hash) = hash {
                sent.report_hash(hash);
            }
            port.tx(PortId(0), sent);
            port.flush();
            let mut burst = Vec::with_capacity(BURST);
            assert_eq!(port.rx_burst(&mut burst), 1);
            (
                burst[0].rss(),
                port.stats().rss_agreed,
                port.stats().rss_disagreed,
            )
        };
        let (tcp, udp) = (PacketType::Tcp4, PacketType::Udp6);
        let right = Some(hash(tcp, 7));
        let n = u64::from(AGREEMENTS_NEEDED);
        for n in 1..n {
            assert_eq!(told(tcp, right), (None, n, 0));
        }
        assert_eq!(told(tcp, right), (right, n, 0));
        assert_eq!(told(tcp, right), (right, n + 1, 0));
        assert_eq!(told(udp, Some(hash(udp, 7))), (None, n + 2, 0), "another type");
        assert_eq!(told(tcp, None), (None, n + 2, 0), "none reported");
        // A doctored one.
        assert_eq!(told(tcp, Some(1)), (None, n + 2, 1));
        assert_eq!(told(tcp, right), (None, n + 3, 1), "never again");

        // Handed over, the third time, to itself: a port without interfaces would do.
        port.rings = Arc::new([Ring::new(1)]);
        let tag = HandoffTag {
            reason: HandoffReason::Bucket,
            stage: 2,
            hops: 3,
            reserved: 0,
            bucket: 0x1234,
            reserved2: [0; 5],
        };
        for full in [0, 1] {
            port.handoff(WorkerId(0), pool.copy_of(&[full; 60]).expect("a frame"), tag);
            assert_eq!(port.stats().handoff_full, u64::from(full));
        }
        let mut burst = Vec::with_capacity(BURST);
        assert_eq!(port.rx_burst(&mut burst), 1);
        assert_eq!((burst[0].tag(), burst[0].data()), (Some(tag), &[0; 60][..]));
        drop(burst);
        drop((port, pool));
        eal.shutdown().expect("every frame is home");
    }
}
