//! core's [`Port`] over live interfaces, through libpcap (feature `libpcap`): for trying a balancer out on any
//! machine, without a NIC of its own.
//!
//! libpcap gives an interface's frames to whoever opened it, all of them. So each interface is received by one
//! worker, and the engine hands frames on to the worker of their bucket, by bounded rings. Every worker sends on
//! all interfaces.
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use evenkeel_core::port::{BURST, Frame, HandoffTag, HeapFrame, Port, PortId, WorkerId};

use crate::live::{LiveError, LiveInterface, LiveOptions, Received};

/// Frames that wait for one worker after a hand-off, at most.
pub const HANDOFF_COUNT_MAX: usize = 1024;

/// Passes no frame: for an interface that is opened to send.
const NOTHING: &str = "less 1";

/// Does something with a frame that is for the kernel, or for the control side of the node.
pub type PuntHook = Box<dyn FnMut(PortId, &[u8]) + Send>;

/// Wakes a worker that sleeps; called after a frame was handed to it.
pub type WakeHook = Box<dyn Fn(WorkerId) + Send>;

/// What a port did with frames. The engine counts its own verdicts; these are the driver's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LivePortStats {
    /// Frames given to the engine, those that were handed over included.
    pub rx_frames: u64,
    /// Packets that could not be made into frames, or of which libpcap captured a part only.
    pub rx_unusable: u64,
    /// Times that an interface failed to receive: it went away, or is down.
    pub rx_failed: u64,
    /// Frames that the kernel dropped, as its buffer was full; as of [`LivePort::count_kernel_drops`].
    pub rx_kernel_dropped: u64,
    /// Frames that the system took.
    pub tx_frames: u64,
    /// Frames that the system did not take: its queue was full, or they are longer than its MTU.
    pub tx_failed: u64,
    /// Frames dropped because they were to leave by an interface that does not exist.
    pub tx_no_interface: u64,
    /// Frames handed to another worker.
    pub handoffs: u64,
    /// Frames dropped because the ring of the worker that they were handed to was full.
    pub handoff_full: u64,
    /// Frames given to the kernel's or control side's hook.
    pub punted: u64,
}

/// The rings by which workers hand frames to each other.
#[derive(Clone, Debug)]
pub struct Handoffs {
    rings: Arc<[ArrayQueue<HeapFrame>]>,
}

impl Handoffs {
    /// For so many workers, each with room for so many frames.
    pub fn new(workers: u8, room: usize) -> Self {
        let rings = (0..workers).map(|_| ArrayQueue::new(room.max(1)));
        Handoffs {
            rings: rings.collect(),
        }
    }
}

/// One worker's interfaces. The index of an interface is its [`PortId`].
pub struct LivePort {
    worker: WorkerId,
    interfaces: Vec<Interface>,
    handoffs: Handoffs,
    /// Interface to be polled first, so that a busy one does not starve the others.
    first: usize,
    buffer: Vec<u8>,
    punt: PuntHook,
    wake: WakeHook,
    stats: LivePortStats,
    /// The last failure of an interface, until it is asked for.
    failed: Option<LiveError>,
    /// Whether an interface failed in the last burst.
    failing: bool,
}

struct Interface {
    live: LiveInterface,
    receives: bool,
    /// What the kernel had dropped when it was asked last; it wraps around.
    kernel_dropped: u32,
}

impl std::fmt::Debug for LivePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let devices = self.interfaces.iter().map(|i| &i.live);
        f.debug_struct("LivePort")
            .field("worker", &self.worker)
            .field("interfaces", &devices.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl LivePort {
    /// Opens interfaces by their names for a worker, in promiscuous mode those that it receives, as virtual MAC addresses are
    /// not the interface's own. Interface `n` is received by worker `n` modulo the number of workers.
    ///
    /// # Errors
    ///
    /// An interface that cannot be opened, with the reason.
    pub fn open(devices: &[String], worker: WorkerId, handoffs: &Handoffs) -> Result<LivePort, LiveError> {
        let workers = handoffs.rings.len().max(1);
        let interfaces = devices.iter().enumerate().map(|(n, device)| {
            let receives = n % workers == usize::from(worker.0);
            let options = LiveOptions {
                promiscuous: receives,
                filter: (!receives).then(|| NOTHING.to_owned()),
                inbound_only: true,
                ..LiveOptions::default()
            };
            let live = LiveInterface::open(device, &options)?;
            Ok(Interface {
                live,
                receives,
                kernel_dropped: 0,
            })
        });
        Ok(LivePort {
            worker,
            interfaces: interfaces.collect::<Result<_, _>>()?,
            handoffs: handoffs.clone(),
            first: 0,
            buffer: Vec::with_capacity(usize::from(u16::MAX)),
            punt: Box::new(|_, _| ()),
            wake: Box::new(|_| ()),
            stats: LivePortStats::default(),
            failed: None,
            failing: false,
        })
    }

    /// Sets what becomes of punted frames; without it they are dropped, and counted all the same.
    pub fn set_punt(&mut self, hook: PuntHook) {
        self.punt = hook;
    }

    /// Sets how another worker is woken.
    pub fn set_wake(&mut self, hook: WakeHook) {
        self.wake = hook;
    }

    /// What happened so far.
    pub fn stats(&self) -> LivePortStats {
        self.stats
    }

    /// Asks the kernel what it dropped since it was asked last: a call for each interface.
    pub fn count_kernel_drops(&mut self) {
        for interface in self.interfaces.iter_mut().filter(|i| i.receives) {
            // An interface that is gone is asked in vain.
            let Ok(now) = interface.live.stats() else { continue };
            let more = now.dropped.wrapping_sub(interface.kernel_dropped);
            interface.kernel_dropped = now.dropped;
            self.stats.rx_kernel_dropped += u64::from(more);
        }
    }

    /// The last failure to receive since the last call.
    pub fn take_failure(&mut self) -> Option<LiveError> {
        self.failed.take()
    }

    /// Whether an interface failed when it was asked last: it is down, or gone. Then waiting for frames returns at once.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// Frames that wait for this worker after a hand-off.
    pub fn waiting(&self) -> usize {
        self.ring().map_or(0, ArrayQueue::len)
    }

    /// To wait for frames with poll(2).
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let receiving = self.interfaces.iter().filter(|i| i.receives);
        receiving.map(|i| i.live.as_fd())
    }

    fn ring(&self) -> Option<&ArrayQueue<HeapFrame>> {
        self.handoffs.rings.get(usize::from(self.worker.0))
    }
}

impl Port for LivePort {
    type Frame = HeapFrame;

    fn rx_burst(&mut self, into: &mut Vec<HeapFrame>) -> usize {
        let before = into.len();
        while into.len() < BURST
            && let Some(frame) = self.ring().and_then(ArrayQueue::pop)
        {
            into.push(frame);
        }
        self.failing = false;
        let count = self.interfaces.len();
        for step in 0..count {
            let index = (self.first + step) % count;
            let Some(interface) = self.interfaces.get_mut(index).filter(|i| i.receives) else {
                continue;
            };
            while into.len() < BURST {
                self.buffer.clear();
                match interface.live.receive(&mut self.buffer) {
                    Ok(Received::Nothing) => break,
                    Ok(Received::Packet { snapped: false, .. }) => {
                        into.push(HeapFrame::new(PortId(index as u16), &self.buffer));
                    }
                    Ok(_) => self.stats.rx_unusable += 1,
                    Err(error) => {
                        self.stats.rx_failed += 1;
                        self.failing = true;
                        self.failed = Some(error);
                        break;
                    }
                }
            }
        }
        self.first = (self.first + 1) % count.max(1);
        let got = into.len() - before;
        self.stats.rx_frames += got as u64;
        got
    }

    fn alloc(&mut self, len: usize) -> Option<HeapFrame> {
        Some(HeapFrame::zeroed(PortId::default(), len))
    }

    fn tx(&mut self, port: PortId, frame: HeapFrame) {
        let Some(interface) = self.interfaces.get_mut(usize::from(port.0)) else {
            self.stats.tx_no_interface += 1;
            return;
        };
        match interface.live.send(frame.data()) {
            Ok(()) => self.stats.tx_frames += 1,
            Err(_) => self.stats.tx_failed += 1,
        }
    }

    fn punt(&mut self, frame: HeapFrame) {
        self.stats.punted += 1;
        (self.punt)(frame.ingress(), frame.data());
    }

    fn handoff(&mut self, to: WorkerId, mut frame: HeapFrame, tag: HandoffTag) {
        frame.tag = Some(tag);
        let ring = self.handoffs.rings.get(usize::from(to.0));
        if ring.is_some_and(|ring| ring.push(frame).is_ok()) {
            self.stats.handoffs += 1;
            (self.wake)(to);
        } else {
            self.stats.handoff_full += 1;
        }
    }

    fn flush(&mut self) {}
}
