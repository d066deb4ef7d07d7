//! What lies between the control side and one worker: bounded rings in both directions, and what wakes either of them.
//!
//! ```text
//! control > commands, messages, frames, looks > worker
//! worker  > events, sync frames, punted frames, frames sent > control
//! ```
//!
//! Nothing waits for room. Where a ring is full the item is dropped and counted, and core's protocols repair it; but a
//! worker asks its engine for sync frames only while it has buffers for them, so that none of those is lost here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use evenkeel_core::port::PortId;
use evenkeel_core::sync::{Destination, SyncMessage};
use evenkeel_core::time::Instant;
use evenkeel_core::worker::{Command, Event, Worker};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

/// Commands that wait for a worker.
const COMMAND_COUNT: usize = 1024;
/// Messages of peers that wait for a worker.
const MESSAGE_COUNT: usize = 4096;
/// Frames of the control side that wait to be sent by a worker.
const FRAME_COUNT: usize = 1024;
/// Looks that wait for a worker.
const LOOK_COUNT: usize = 16;
/// Events that wait for the control side.
const EVENT_COUNT: usize = 4096;
/// Sync frames that wait for the control side, and buffers for them.
const SYNC_COUNT: usize = 512;
/// Punted frames that wait for the control side, and buffers for them.
const PUNT_COUNT: usize = 512;
/// Longest punted frame that the control side is shown: none that it reads is longer.
pub(crate) const PUNT_LEN_MAX: usize = 2048;

/// What a worker's packet I/O counted, by name; places that are not used have no name.
pub(crate) type IoCounts = [(&'static str, u64); 32];

/// Counts in the form of a look.
#[cfg_attr(
    not(any(feature = "libpcap", feature = "dpdk")),
    allow(dead_code, reason = "there is no driver to call it")
)]
pub(crate) fn io_counts(all: &[(&'static str, u64)]) -> IoCounts {
    let mut counts = IoCounts::default();
    debug_assert!(all.len() <= counts.len(), "there is a place for each");
    for (place, count) in counts.iter_mut().zip(all) {
        *place = *count;
    }
    counts
}

/// What a look sees.
pub(crate) struct Seen<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) io: IoCounts,
}

/// Something that is done with a worker between two bursts, by its own thread: it reads, and takes little time.
pub(crate) type Look = Box<dyn FnOnce(&Seen<'_>) + Send>;

/// What was lost between the control side and a worker, and why.
#[derive(Debug, Default)]
pub(crate) struct LaneCounters {
    /// Commands that found no room.
    pub(crate) commands_full: AtomicU64,
    /// Commands that the worker refused: they are lost.
    pub(crate) commands_refused: AtomicU64,
    /// Messages that found no room.
    pub(crate) messages_full: AtomicU64,
    /// Frames of the control side that found no room.
    pub(crate) frames_full: AtomicU64,
    /// Events that found no room.
    pub(crate) events_full: AtomicU64,
    /// Punted frames that found no buffer, or are longer than [`PUNT_LEN_MAX`].
    pub(crate) punted_full: AtomicU64,
    /// Times that a worker had sync frames to send and no buffer: they wait in its engine.
    pub(crate) sync_waits: AtomicU64,
}

/// An eventfd with a flag, for a worker: whoever sleeps is woken once.
#[derive(Debug)]
pub(crate) struct Bell {
    fd: OwnedFd,
    asleep: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Bell {
            fd: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            asleep: AtomicBool::new(false),
        })
    }

    /// Says that its owner is about to sleep. It looks once more at all that may wait for it, and sleeps then.
    pub(crate) fn lie_down(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// Says that its owner is awake.
    pub(crate) fn get_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        let mut buffer = [0; 8];
        // Nothing rang: nothing is read.
        let _ = rustix::io::read(&self.fd, &mut buffer);
    }

    /// Wakes its owner, if it sleeps. After something was put where it looks.
    pub(crate) fn ring(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            // A counter that is full rings, too.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }
}

/// As [`Bell`], for the control thread, which waits for more than a file descriptor.
#[derive(Debug, Default)]
pub(crate) struct ControlBell {
    rung: tokio::sync::Notify,
    asleep: AtomicBool,
}

impl ControlBell {
    /// As [`Bell::lie_down`].
    pub(crate) fn lie_down(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// As [`Bell::get_up`]; that it rang meanwhile wakes it once more, at most.
    pub(crate) fn get_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Until it rings.
    pub(crate) async fn rung(&self) {
        self.rung.notified().await;
    }

    /// As [`Bell::ring`].
    pub(crate) fn ring(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.rung.notify_one();
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// See the module.
pub(crate) struct Lane {
    pub(crate) commands: ArrayQueue<Command>,
    pub(crate) messages: ArrayQueue<SyncMessage>,
    pub(crate) frames: ArrayQueue<(PortId, Vec<u8>)>,
    pub(crate) looks: ArrayQueue<Look>,
    pub(crate) events: ArrayQueue<Event>,
    pub(crate) sync: ArrayQueue<(Destination, Vec<u8>)>,
    pub(crate) sync_buffers: ArrayQueue<Vec<u8>>,
    pub(crate) punted: ArrayQueue<(PortId, Vec<u8>)>,
    pub(crate) punt_buffers: ArrayQueue<Vec<u8>>,
    /// Frames of the control side that have left, and when.
    pub(crate) sent: ArrayQueue<(Instant, Vec<u8>)>,
    pub(crate) counters: LaneCounters,
    /// Counts the worker's turns; stands still if it does.
    pub(crate) beat: AtomicU64,
    /// Wakes the worker.
    pub(crate) worker_bell: Bell,
    /// Wakes the control side; all lanes have the same.
    pub(crate) control_bell: Arc<ControlBell>,
    /// The worker is to end.
    pub(crate) stop: AtomicBool,
    /// Its thread has ended.
    pub(crate) ended: AtomicBool,
}

impl Lane {
    /// With `sync_len` bytes of room in each buffer for sync frames.
    pub(crate) fn new(control_bell: Arc<ControlBell>, sync_len: usize) -> std::io::Result<Self> {
        let lane = Lane {
            commands: ArrayQueue::new(COMMAND_COUNT),
            messages: ArrayQueue::new(MESSAGE_COUNT),
            frames: ArrayQueue::new(FRAME_COUNT),
            looks: ArrayQueue::new(LOOK_COUNT),
            events: ArrayQueue::new(EVENT_COUNT),
            sync: ArrayQueue::new(SYNC_COUNT),
            sync_buffers: ArrayQueue::new(SYNC_COUNT),
            punted: ArrayQueue::new(PUNT_COUNT),
            punt_buffers: ArrayQueue::new(PUNT_COUNT),
            sent: ArrayQueue::new(FRAME_COUNT),
            counters: LaneCounters::default(),
            beat: AtomicU64::new(0),
            worker_bell: Bell::new()?,
            control_bell,
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        };
        for _ in 0..SYNC_COUNT {
            let _ = lane.sync_buffers.push(touched(sync_len));
        }
        for _ in 0..PUNT_COUNT {
            let _ = lane.punt_buffers.push(touched(PUNT_LEN_MAX));
        }
        Ok(lane)
    }

    /// From the control side; `false`: there was no room, and it is counted.
    pub(crate) fn command(&self, command: Command) -> bool {
        let room = self.commands.push(command).is_ok();
        self.after(room, &self.counters.commands_full)
    }

    /// From the control side.
    pub(crate) fn message(&self, message: SyncMessage) -> bool {
        let room = self.messages.push(message).is_ok();
        self.after(room, &self.counters.messages_full)
    }

    /// From the control side.
    pub(crate) fn frame(&self, port: PortId, frame: Vec<u8>) -> bool {
        let room = self.frames.push((port, frame)).is_ok();
        self.after(room, &self.counters.frames_full)
    }

    /// From the control side; `false`: others wait.
    pub(crate) fn look(&self, look: Look) -> bool {
        let room = self.looks.push(look).is_ok();
        self.worker_bell.ring();
        room
    }

    /// Something was put where the worker looks, or found no room there.
    fn after(&self, room: bool, full: &AtomicU64) -> bool {
        if !room {
            count(full);
        }
        self.worker_bell.ring();
        room
    }

    /// From the worker.
    pub(crate) fn event(&self, event: Event) {
        if self.events.push(event).is_err() {
            count(&self.counters.events_full);
        }
        self.control_bell.ring();
    }

    /// From the worker: a copy of a punted frame.
    #[cfg_attr(
        not(any(feature = "libpcap", feature = "dpdk")),
        allow(dead_code, reason = "there is no driver to call it")
    )]
    pub(crate) fn punt(&self, port: PortId, frame: &[u8]) {
        let buffer = (frame.len() <= PUNT_LEN_MAX)
            .then(|| self.punt_buffers.pop())
            .flatten();
        match buffer {
            Some(mut buffer) => {
                buffer.clear();
                buffer.extend_from_slice(frame);
                // There are as many places as buffers.
                let _ = self.punted.push((port, buffer));
                self.control_bell.ring();
            }
            None => count(&self.counters.punted_full),
        }
    }

    /// From the worker: a frame of the control side has left at `at`.
    pub(crate) fn sent(&self, at: Instant, frame: Vec<u8>) {
        // As many find room as there is room for frames.
        let _ = self.sent.push((at, frame));
        self.control_bell.ring();
    }

    /// Whether anything waits for the worker.
    pub(crate) fn has_work(&self) -> bool {
        !(self.commands.is_empty()
            && self.messages.is_empty()
            && self.frames.is_empty()
            && self.looks.is_empty())
            || self.stop.load(Ordering::Relaxed)
    }

    /// Whether anything of the worker waits for the control side.
    pub(crate) fn has_news(&self) -> bool {
        !(self.events.is_empty() && self.sync.is_empty() && self.punted.is_empty() && self.sent.is_empty())
    }
}

/// A buffer with so much room, whose pages are there: none is to come with a packet.
fn touched(room: usize) -> Vec<u8> {
    // Zeros would be pages that the system makes when they are used.
    let mut buffer = vec![0xff; room];
    buffer.clear();
    buffer
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> Lane {
        Lane::new(Arc::default(), 64).expect("an eventfd")
    }

    #[test]
    fn a_full_ring_refuses_and_counts() {
        let lane = lane();
        for n in 0..FRAME_COUNT {
            assert!(lane.frame(PortId(0), vec![n as u8]));
        }
        assert!(!lane.frame(PortId(0), vec![0]));
        assert_eq!(lane.counters.frames_full.load(Ordering::Relaxed), 1);
        assert!(lane.has_work());
    }

    #[test]
    fn punted_frames_have_as_many_buffers_as_there_are_and_no_longer_ones() {
        let lane = lane();
        lane.punt(PortId(1), &[0; PUNT_LEN_MAX + 1]);
        for _ in 0..PUNT_COUNT + 2 {
            lane.punt(PortId(1), &[7; PUNT_LEN_MAX]);
        }
        assert_eq!(lane.punted.len(), PUNT_COUNT);
        assert_eq!(lane.counters.punted_full.load(Ordering::Relaxed), 3);
        let (port, frame) = lane.punted.pop().expect("one waits");
        assert_eq!((port, frame.len()), (PortId(1), PUNT_LEN_MAX));
        let _ = lane.punt_buffers.push(frame);
        lane.punt(PortId(1), b"again");
        assert_eq!(lane.punted.len(), PUNT_COUNT);
    }

    #[test]
    fn a_bell_rings_for_who_sleeps_only_and_once() {
        let bell = Bell::new().expect("an eventfd");
        let rang = || {
            let mut buffer = [0; 8];
            rustix::io::read(&bell, &mut buffer).is_ok()
        };
        bell.ring();
        assert!(!rang(), "awake");
        bell.lie_down();
        bell.ring();
        bell.ring();
        assert!(rang());
        assert!(!rang());
        bell.lie_down();
        bell.get_up();
        bell.ring();
        assert!(!rang());
    }
}
