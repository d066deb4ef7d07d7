//! core's [`Port`] over live interfaces, through libpcap (feature `libpcap`): for trying a balancer out on any
//! machine, without a NIC of its own.
//!
//! libpcap gives an interface's frames to whoever opened it, all of them. So each interface is received by one
//! worker, and the engine hands frames on to the worker of their bucket, by bounded rings. Every worker sends on
//! all interfaces.
//!
//! An interface that went away is opened again once there is one of its name.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use evenkeel_core::port::{BURST, Frame, HandoffTag, HeapFrame, Port, PortId, WorkerId};

use crate::file::LinkType;
use crate::live::{LiveError, LiveInterface, LiveOptions, Received};

/// Frames that wait for one worker after a hand-off, at most.
pub const HANDOFF_COUNT_MAX: usize = 1024;

/// An interface that is lost is tried again so often.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Beside its packet a frame has Ethernet's header and two VLAN tags at most.
const FRAME_OVERHEAD: usize = 14 + 2 * 4;

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
    /// Frames that are longer than the interface's MTU allows: it merges segments, and these cannot be sent on as they are.
    pub rx_merged: u64,
    /// Times that an interface failed to receive, and was lost: it went away.
    pub rx_failed: u64,
    /// Frames that the kernel dropped, as its buffer was full; as of [`LivePort::count_kernel_drops`].
    pub rx_kernel_dropped: u64,
    /// Times that an interface was opened again, as it was lost or another one has its name.
    pub reopened: u64,
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
}

/// What became of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveNews {
    /// It receives no more, and is tried again each second.
    Lost(LiveError),
    /// It was opened again.
    Back(String),
    /// It merges segments into frames that are longer than its MTU. Said once each time that it is opened.
    Merges(String),
}

impl std::fmt::Display for LiveNews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LiveNews::Lost(error) => write!(f, "{error}: it is tried again each second"),
            LiveNews::Back(device) => write!(f, "{device} is back, and open again"),
            LiveNews::Merges(device) => write!(
                f,
                "{device} merges segments into frames that are longer than its MTU, which cannot be sent on: \
                 `ethtool -K {device} gro off lro off` (and `tso off gso off tx off` at the other end of a veth)"
            ),
        }
    }
}

struct Interface {
    live: LiveInterface,
    device: String,
    receives: bool,
    /// What the kernel had dropped when it was asked last; it wraps around.
    kernel_dropped: u32,
    /// The kernel's number of it when it was opened.
    index: Option<u32>,
    /// The longest frame of one packet; `None`: the system does not say.
    frame_len_max: Option<usize>,
    /// It has been said that it merges segments.
    merges: bool,
    state: State,
    /// The last of it that nobody has asked for.
    news: Option<LiveNews>,
}

/// How an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fine,
    /// A frame was not taken, maybe as another interface has its name by now: to be looked at from then on.
    Suspect(Instant),
    /// It receives no more; to be tried again then.
    Lost(Instant),
}

impl Interface {
    fn open(device: &str, receives: bool) -> Result<Interface, LiveError> {
        let options = LiveOptions {
            promiscuous: receives,
            filter: (!receives).then(|| NOTHING.to_owned()),
            inbound_only: true,
            ..LiveOptions::default()
        };
        let live = LiveInterface::open(device, &options)?;
        // Frames are to be sent on it as they are.
        if live.link() != LinkType::ETHERNET {
            return Err(LiveError::UnsupportedLink {
                device: device.to_owned(),
                link: live.link(),
            });
        }
        Ok(Interface {
            index: live.index_of_name(),
            frame_len_max: live.mtu().map(|mtu| mtu as usize + FRAME_OVERHEAD),
            merges: false,
            live,
            device: device.to_owned(),
            receives,
            state: State::Fine,
            news: None,
            kernel_dropped: 0,
        })
    }

    fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost(_))
    }

    /// Opens it again if that is due and of use; whether it did.
    fn mend(&mut self, now: Instant) -> bool {
        let lost = match self.state {
            State::Fine => return false,
            State::Suspect(due) | State::Lost(due) if now < due => return false,
            State::Suspect(_) => false,
            State::Lost(_) => true,
        };
        let index = self.live.index_of_name();
        if !lost && (index.is_none() || index == self.index) {
            // It is the same one still, or gone, and sends nothing: who sends by it sees to that.
            self.state = State::Fine;
            return false;
        }
        match Interface::open(&self.device, self.receives) {
            Ok(fresh) => {
                *self = fresh;
                self.news = Some(LiveNews::Back(self.device.clone()));
                true
            }
            Err(_) => {
                let due = now + RETRY_EVERY;
                self.state = if lost {
                    State::Lost(due)
                } else {
                    State::Suspect(due)
                };
                false
            }
        }
    }
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
        let interfaces = devices
            .iter()
            .enumerate()
            .map(|(n, device)| Interface::open(device, n % workers == usize::from(worker.0)));
        Ok(LivePort {
            worker,
            interfaces: interfaces.collect::<Result<_, _>>()?,
            handoffs: handoffs.clone(),
            first: 0,
            buffer: Vec::with_capacity(usize::from(u16::MAX)),
            punt: Box::new(|_, _| ()),
            wake: Box::new(|_| ()),
            stats: LivePortStats::default(),
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

    /// What became of an interface, and was not asked for yet; of each the last only.
    pub fn take_news(&mut self) -> Option<LiveNews> {
        self.interfaces.iter_mut().find_map(|i| i.news.take())
    }

    /// Frames that wait for this worker after a hand-off.
    pub fn waiting(&self) -> usize {
        self.ring().map_or(0, ArrayQueue::len)
    }

    /// To wait for frames with poll(2): without interfaces that are lost, which would wake at once.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let receiving = self.interfaces.iter().filter(|i| i.receives && !i.is_lost());
        receiving.map(|i| i.live.as_fd())
    }

    /// Opens again what is lost, or was replaced, each second at most. No clock is read while all are fine.
    fn mend(&mut self) {
        if self.interfaces.iter().all(|i| i.state == State::Fine) {
            return;
        }
        let now = Instant::now();
        for interface in &mut self.interfaces {
            self.stats.reopened += u64::from(interface.mend(now));
        }
    }

    fn ring(&self) -> Option<&ArrayQueue<HeapFrame>> {
        self.handoffs.rings.get(usize::from(self.worker.0))
    }
}

impl Port for LivePort {
    type Frame = HeapFrame;

    fn rx_burst(&mut self, into: &mut Vec<HeapFrame>) -> usize {
        let before = into.len();
        // Half a burst at most: what other workers hand over must not keep interfaces from their turn.
        while into.len() < BURST / 2
            && let Some(frame) = self.ring().and_then(ArrayQueue::pop)
        {
            into.push(frame);
        }
        self.mend();
        let count = self.interfaces.len();
        for step in 0..count {
            let index = (self.first + step) % count;
            let Some(interface) = self
                .interfaces
                .get_mut(index)
                .filter(|i| i.receives && !i.is_lost())
            else {
                continue;
            };
            while into.len() < BURST {
                self.buffer.clear();
                match interface.live.receive(&mut self.buffer) {
                    Ok(Received::Nothing) => break,
                    Ok(Received::Packet { snapped: false, .. }) => {
                        if interface.frame_len_max.is_some_and(|max| self.buffer.len() > max) {
                            self.stats.rx_merged += 1;
                            if !std::mem::replace(&mut interface.merges, true) {
                                interface.news = Some(LiveNews::Merges(interface.device.clone()));
                            }
                        }
                        into.push(HeapFrame::new(PortId(index as u16), &self.buffer));
                    }
                    Ok(_) => self.stats.rx_unusable += 1,
                    Err(error) => {
                        self.stats.rx_failed += 1;
                        interface.state = State::Lost(Instant::now() + RETRY_EVERY);
                        interface.news = Some(LiveNews::Lost(error));
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
            Err(_) => {
                self.stats.tx_failed += 1;
                if interface.state == State::Fine {
                    interface.state = State::Suspect(Instant::now() + RETRY_EVERY);
                }
            }
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use evenkeel_core::port::HandoffReason;
    use evenkeel_core::worker::Verdict;

    use super::*;

    /// Broadcast, of an experimental type, no longer than Ethernet's shortest frame.
    fn frame(mark: u8) -> HeapFrame {
        let mut data = vec![0xff; 60];
        data[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        data[12..14].copy_from_slice(&[0x88, 0xb5]);
        data[14..].fill(mark);
        HeapFrame::new(PortId(0), &data)
    }

    fn ip(args: &str) -> bool {
        let status = Command::new("ip").args(args.split(' ')).status();
        status.is_ok_and(|s| s.success())
    }

    const TAG: HandoffTag = HandoffTag {
        reason: HandoffReason::Bucket,
        stage: 0,
        hops: 1,
        reserved: 0,
        bucket: 0,
        reserved2: [0; 5],
    };

    /// Hands frames over until the ring of the first worker is full.
    fn flood(from: &mut LivePort) {
        let full = from.stats().handoff_full;
        while from.stats().handoff_full == full {
            from.handoff(WorkerId(0), frame(0), TAG);
        }
    }

    #[test]
    fn a_flood_of_frames_handed_over_leaves_half_a_burst_to_interfaces() {
        let handoffs = Handoffs::new(2, 3 * BURST);
        let open = |worker| LivePort::open(&[], WorkerId(worker), &handoffs).expect("nothing to open");
        let (mut receiver, mut sender) = (open(0), open(1));
        flood(&mut sender);
        for _ in 0..6 {
            let mut got = Vec::new();
            assert_eq!(receiver.rx_burst(&mut got), BURST / 2);
        }
        assert_eq!(receiver.waiting(), 0, "none of them is lost");
    }

    /// Of the process that the test below starts, in a namespace of its own.
    const INSIDE: &str = "EVENKEEL_TEST_INSIDE_NAMESPACE";

    fn in_a_namespace() {
        let make = || {
            assert!(ip("link add ekl0 type veth peer name ekl1"), "veth");
            assert!(ip("link set ekl0 up") && ip("link set ekl1 up"));
        };
        make();
        let handoffs = Handoffs::new(2, 2 * BURST);
        let open = |device: &str, worker| {
            let devices = [device.to_owned()];
            LivePort::open(&devices, WorkerId(worker), &handoffs).expect("it is there")
        };
        let mut receiver = open("ekl0", 0);
        // Of another worker: it only sends.
        let mut sender = open("ekl1", 1);
        // Until frames pass; the deadline only ends a test that has failed.
        let pass = |receiver: &mut LivePort, sender: &mut LivePort, mark: u8| {
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut got = Vec::new();
            while Instant::now() < deadline {
                sender.tx(PortId(0), frame(mark));
                sender.rx_burst(&mut got);
                receiver.rx_burst(&mut got);
                if got.iter().any(|f| f.data().get(14) == Some(&mark)) {
                    for frame in got {
                        receiver.done(frame, Verdict::Answered);
                    }
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
                got.clear();
            }
            panic!("no frame passes: {:?}, {:?}", receiver.stats(), sender.stats());
        };
        pass(&mut receiver, &mut sender, 1);
        // The interface has its turn, whatever waits in the ring.
        sender.tx(PortId(0), frame(9));
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut got = Vec::new();
        while !got.iter().any(|f: &HeapFrame| f.data().get(14) == Some(&9)) {
            assert!(Instant::now() < deadline, "it is starved: {:?}", receiver.stats());
            flood(&mut sender);
            got.clear();
            receiver.rx_burst(&mut got);
        }
        while receiver.waiting() > 0 {
            got.clear();
            receiver.rx_burst(&mut got);
        }
        drop(got);
        assert!(receiver.take_news().is_none() && sender.take_news().is_none());
        assert!(ip("link del ekl0"));
        let mut none = Vec::new();
        while receiver.stats().rx_failed == 0 {
            receiver.rx_burst(&mut none);
        }
        assert!(matches!(receiver.take_news(), Some(LiveNews::Lost(_))));
        for _ in 0..100 {
            receiver.rx_burst(&mut none);
        }
        assert_eq!(receiver.take_news(), None, "said once");
        assert_eq!(receiver.stats().rx_failed, 1);
        assert_eq!(receiver.fds().count(), 0, "nobody is woken by it");
        make();
        pass(&mut receiver, &mut sender, 2);
        assert_eq!(receiver.take_news(), Some(LiveNews::Back("ekl0".to_owned())));
        assert_eq!(sender.take_news(), Some(LiveNews::Back("ekl1".to_owned())));
        assert_eq!((receiver.stats().reopened, sender.stats().reopened), (1, 1));
        println!("frames pass again");
    }

    #[test]
    fn an_interface_that_comes_back_is_opened_again() {
        if std::env::var_os(INSIDE).is_some() {
            return in_a_namespace();
        }
        let own = std::env::current_exe().expect("it runs");
        let able = Command::new("unshare").args(["--net", "ip", "link"]).output();
        if !able.is_ok_and(|o| o.status.success()) {
            println!("SKIP: no network namespaces here");
            return;
        }
        let run = Command::new("unshare")
            .arg("--net")
            .arg(own)
            .env(INSIDE, "1")
            .args([
                "--exact",
                "live_port::tests::an_interface_that_comes_back_is_opened_again",
            ])
            .arg("--nocapture")
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&run.stdout);
        let more = String::from_utf8_lossy(&run.stderr);
        assert!(
            run.status.success() && said.contains("frames pass again"),
            "{said}{more}"
        );
    }
}
