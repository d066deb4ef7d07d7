//! Packets that wait for a neighbour: copied, asked for, and taken up again when a snapshot knows it. None of this
//! is on the way of a packet whose neighbour is known.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;
use core::net::IpAddr;
use core::time::Duration;

use super::{Ahead, Event, Staged, Unsent, Verdict, Worker, stage};
use crate::conn::{ConnRef, Hint};
use crate::port::{Frame, HEADROOM, HandoffTag, PortId, RxChecksum};
use crate::service::Snapshot;
use crate::stats::DropReason;
use crate::time::Instant;
use crate::tuple::Direction;
use crate::wire::MacAddr;

/// Longest frame that is held, in bytes. Longer ones, and such as lie in several segments, are dropped.
pub const HELD_LEN_MAX: usize = 2048;
/// Neighbours of which is remembered that they were asked for, at most.
const WANTED_COUNT_MAX: usize = 64;
/// Events about neighbours that wait to be polled, at most. What finds no room comes again with the next packet.
const NEWS_COUNT_MAX: usize = 64;
/// A neighbour is asked for again after this long, if packets still come.
const WANT_INTERVAL: Duration = Duration::from_secs(1);

/// How many frames wait for neighbours that are not known yet, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldConfig {
    /// Frames at most. Each takes [`HELD_LEN_MAX`] bytes and its headroom, from the beginning on.
    pub frames: u16,
    /// Frames for one neighbour at most; one more takes the place of the oldest (RFC 4861, 7.2.2).
    pub frames_per_neighbour: u16,
    /// How long one waits.
    pub time: Duration,
}

impl Default for HoldConfig {
    fn default() -> Self {
        HoldConfig {
            frames: 64,
            frames_per_neighbour: 4,
            time: Duration::from_secs(1),
        }
    }
}

/// A neighbour: its interface and its address.
type Key = (PortId, IpAddr);

/// A frame in the pool's own memory.
#[derive(Debug, Default)]
struct HeldFrame {
    /// [`HEADROOM`] and [`HELD_LEN_MAX`] bytes; nothing while it is looked at.
    buf: Box<[u8]>,
    head: usize,
    end: usize,
    ingress: PortId,
    rss: Option<u32>,
    rx_checksum: RxChecksum,
    tag: Option<HandoffTag>,
}

impl HeldFrame {
    fn copy<F: Frame>(&mut self, frame: &F) {
        let data = frame.data();
        (self.head, self.end) = (HEADROOM, HEADROOM + data.len());
        self.buf[HEADROOM..self.end].copy_from_slice(data);
        self.ingress = frame.ingress();
        self.rss = frame.rss();
        self.rx_checksum = frame.rx_checksum();
        self.tag = frame.tag();
    }
}

impl Frame for HeldFrame {
    fn data(&self) -> &[u8] {
        &self.buf[self.head..self.end]
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.head..self.end]
    }
    fn len(&self) -> usize {
        self.end - self.head
    }
    fn push_front(&mut self, n: usize) -> Option<&mut [u8]> {
        self.head = self.head.checked_sub(n)?;
        Some(self.data_mut())
    }
    fn pull_front(&mut self, n: usize) {
        self.head += n.min(self.len());
    }
    fn truncate(&mut self, n: usize) {
        self.end = self.head + n.min(self.len());
    }
    fn ingress(&self) -> PortId {
        self.ingress
    }
    fn rss(&self) -> Option<u32> {
        self.rss
    }
    fn rx_checksum(&self) -> RxChecksum {
        self.rx_checksum
    }
    fn tag(&self) -> Option<HandoffTag> {
        self.tag
    }
}

/// A place of the pool.
#[derive(Debug)]
struct Slot {
    frame: HeldFrame,
    /// For whom it waits.
    key: Key,
    /// Until when.
    until: Instant,
    /// Where it leaves, once it is ready.
    out: PortId,
}

/// What became of a frame that was to wait.
enum Kept {
    /// It waits.
    Yes,
    /// It waits in the place of an older one.
    InPlaceOfOldest,
    /// There is no room.
    Full,
    /// It is too long, or in segments.
    TooLong,
}

/// Frames that wait, and what is told of neighbours.
#[derive(Debug)]
pub(super) struct Hold {
    config: HoldConfig,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// In the order of their arrival, and so of their time.
    waiting: VecDeque<u16>,
    /// Rewritten, to be sent.
    ready: VecDeque<u16>,
    /// Who was asked for, and when.
    wanted: Vec<(Key, Instant)>,
    /// The place of `wanted` that is used next once all are.
    wanted_next: usize,
    news: VecDeque<Event>,
    /// What the frame whose turn it is lacks.
    missing: Option<Key>,
}

impl Hold {
    pub(super) fn new(config: HoldConfig) -> Self {
        let slot = |_| Slot {
            frame: HeldFrame {
                buf: alloc::vec![0; HEADROOM + HELD_LEN_MAX].into_boxed_slice(),
                ..HeldFrame::default()
            },
            key: (PortId(0), IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED)),
            until: Instant::ZERO,
            out: PortId(0),
        };
        let count = usize::from(config.frames);
        Hold {
            config,
            slots: (0..count).map(slot).collect(),
            free: (0..config.frames).rev().collect(),
            waiting: VecDeque::with_capacity(count),
            ready: VecDeque::with_capacity(count),
            wanted: Vec::with_capacity(WANTED_COUNT_MAX),
            wanted_next: 0,
            news: VecDeque::with_capacity(NEWS_COUNT_MAX),
            missing: None,
        }
    }

    /// Tells that a neighbour is wanted, unless that was told lately.
    fn want(&mut self, now: Instant, key: Key) {
        if self.news.len() == NEWS_COUNT_MAX {
            return;
        }
        match self.wanted.iter().position(|(k, _)| *k == key) {
            Some(place) if now < self.wanted[place].1 + WANT_INTERVAL => return,
            Some(place) => self.wanted[place].1 = now,
            None if self.wanted.len() < WANTED_COUNT_MAX => self.wanted.push((key, now)),
            None => {
                self.wanted[self.wanted_next] = (key, now);
                self.wanted_next = (self.wanted_next + 1) % WANTED_COUNT_MAX;
            }
        }
        let (port, addr) = key;
        self.news.push_back(Event::NeighbourWanted { port, addr });
    }

    /// Tells that a neighbour asked from another link-layer address than is known of it.
    pub(super) fn heard(&mut self, port: PortId, addr: IpAddr, mac: MacAddr) {
        let told = |e: &Event| matches!(e, Event::NeighbourHeard { port: p, addr: a, .. } if (*p, *a) == (port, addr));
        if self.news.len() < NEWS_COUNT_MAX && !self.news.iter().any(told) {
            self.news.push_back(Event::NeighbourHeard { port, addr, mac });
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.news.pop_front()
    }

    fn keep<F: Frame>(&mut self, now: Instant, frame: &F, key: Key) -> Kept {
        if frame.data().len() != frame.len() || frame.len() > HELD_LEN_MAX {
            return Kept::TooLong;
        }
        let slots = &self.slots;
        let for_key = || {
            let same = |at: &&u16| slots[usize::from(**at)].key == key;
            self.waiting.iter().filter(same)
        };
        let mut kept = Kept::Yes;
        let mut at = None;
        if for_key().count() >= usize::from(self.config.frames_per_neighbour.max(1)) {
            let oldest = for_key().next().copied();
            self.waiting.retain(|at| Some(*at) != oldest);
            (at, kept) = (oldest, Kept::InPlaceOfOldest);
        }
        let Some(at) = at.or_else(|| self.free.pop()) else {
            return Kept::Full;
        };
        let slot = &mut self.slots[usize::from(at)];
        slot.frame.copy(frame);
        slot.key = key;
        slot.until = now + self.config.time;
        self.waiting.push_back(at);
        kept
    }

    /// The next of the `left` first frames that wait for somebody whom `snapshot` knows; the others wait on.
    fn pop_known(&mut self, snapshot: &Snapshot, left: &mut usize) -> Option<(u16, HeldFrame)> {
        while let Some(next) = left.checked_sub(1) {
            *left = next;
            let at = self.waiting.pop_front()?;
            let slot = &mut self.slots[usize::from(at)];
            let (port, addr) = slot.key;
            if snapshot.neighbour(addr, port).is_some() {
                return Some((at, mem::take(&mut slot.frame)));
            }
            self.waiting.push_back(at);
        }
        None
    }

    /// A frame that was looked at waits on, for `key` now.
    fn put_back(&mut self, at: u16, frame: HeldFrame, key: Key) {
        let slot = &mut self.slots[usize::from(at)];
        (slot.frame, slot.key) = (frame, key);
        self.waiting.push_back(at);
    }

    /// A frame that was looked at is sent out of `out`, or its place is free.
    fn finish(&mut self, at: u16, frame: HeldFrame, out: Option<PortId>) {
        let slot = &mut self.slots[usize::from(at)];
        slot.frame = frame;
        match out {
            Some(out) => {
                slot.out = out;
                self.ready.push_back(at);
            }
            None => self.free.push(at),
        }
    }

    /// Frees the place of a frame whose time is up, if there is one.
    fn pop_expired(&mut self, now: Instant) -> Option<u16> {
        let at = *self.waiting.front()?;
        if self.slots[usize::from(at)].until > now {
            return None;
        }
        self.free.push(at);
        self.waiting.pop_front()
    }

    /// Frames in its places: those that wait, and those that are to be sent.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.ready.len()
    }

    /// When the first frame's time is up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let first = self.waiting.front()?;
        Some(self.slots[usize::from(*first)].until)
    }

    /// A frame that is to be sent.
    pub(super) fn peek(&self) -> Option<(PortId, &[u8])> {
        let slot = &self.slots[usize::from(*self.ready.front()?)];
        Some((slot.out, slot.frame.data()))
    }

    /// The frame of [`Hold::peek`] was sent.
    pub(super) fn pop(&mut self) {
        self.free.extend(self.ready.pop_front());
    }

    /// Checks that every place is in one list, and that so many frames wait; for tests.
    pub(super) fn audit(&self, waiting: u64) {
        assert_eq!(self.waiting.len() as u64, waiting, "frames that wait");
        let lists = self.free.iter().chain(&self.waiting).chain(&self.ready);
        let mut all: Vec<_> = lists.copied().collect();
        all.sort_unstable();
        assert!(
            all.iter().copied().eq(0..self.config.frames),
            "a place is in one list: {all:?}"
        );
        assert!(
            self.slots
                .iter()
                .all(|s| s.frame.buf.len() == HEADROOM + HELD_LEN_MAX)
        );
    }
}

impl Worker {
    /// Remembers which neighbour a packet of a conn lacks, if that is why it cannot be forwarded.
    #[cold]
    #[inline(never)]
    pub(super) fn not_forwarded(&mut self, conn: ConnRef, unsent: Unsent) -> Unsent {
        if let (Unsent::Drop(DropReason::NoNeighbour), Some(hold)) = (unsent, &mut self.hold) {
            let dst = self.table.view(conn.id()).map(|view| match conn.direction() {
                Direction::Inbound => view.init.server,
                Direction::Outbound => view.init.client,
            });
            hold.missing = dst.and_then(|dst| self.snapshot.missing_neighbour(dst.ip()));
        }
        unsent
    }

    /// A frame that lacks a neighbour: asks for that, and lets the frame wait if there is room.
    pub(super) fn hold_back<F: Frame>(&mut self, frame: &F) -> Verdict {
        let now = self.now;
        let kept = self.hold.as_mut().and_then(|hold| {
            let key = hold.missing.take()?;
            hold.want(now, key);
            Some(hold.keep(now, frame, key))
        });
        match kept {
            Some(Kept::Yes) => {
                self.counters.held += 1;
                Verdict::Held
            }
            Some(Kept::InPlaceOfOldest) => {
                self.counters.held += 1;
                self.release_dropped(DropReason::HoldReplaced);
                Verdict::Held
            }
            Some(Kept::Full) => self.drop_frame(DropReason::HoldFull),
            Some(Kept::TooLong) | None => self.drop_frame(DropReason::NoNeighbour),
        }
    }

    fn drop_frame(&mut self, reason: DropReason) -> Verdict {
        self.counters.drops[reason as usize] += 1;
        Verdict::Drop(reason)
    }

    /// Counts a frame that waited and is dropped.
    fn release_dropped(&mut self, reason: DropReason) {
        self.counters.released += 1;
        self.counters.drops[reason as usize] += 1;
    }

    /// Takes up the frames that waited for somebody whom the snapshot knows now, as if they had just arrived.
    pub(super) fn release_held(&mut self) {
        let Some(hold) = &mut self.hold else { return };
        let snapshot = self.snapshot.clone();
        hold.wanted
            .retain(|((port, addr), _)| snapshot.neighbour(*addr, *port).is_none());
        hold.wanted_next = 0;
        let mut left = hold.waiting.len();
        while let Some((at, mut frame)) = self
            .hold
            .as_mut()
            .and_then(|hold| hold.pop_known(&snapshot, &mut left))
        {
            let (mut ahead, mut staged) = (Ahead::NONE, Staged::NONE);
            stage(&self.table, &frame, &mut ahead, &mut staged);
            let turn = self.act(&mut frame, &staged, ahead.at, Hint::NONE);
            let Some(hold) = &mut self.hold else { return };
            let out = match (turn, hold.missing.take()) {
                (Err(Unsent::Drop(DropReason::NoNeighbour)), Some(key)) => {
                    // It goes another way now, and another neighbour is missing. Its time stays.
                    hold.want(self.now, key);
                    hold.put_back(at, frame, key);
                    continue;
                }
                (Ok(out), _) => {
                    self.counters.released += 1;
                    self.counters.tx_packets += 1;
                    self.counters.tx_bytes += frame.len() as u64;
                    Some(out)
                }
                (Err(Unsent::Held), _) => {
                    // It waits for other nodes now.
                    self.counters.released += 1;
                    self.counters.held += 1;
                    None
                }
                (Err(unsent), _) => {
                    self.release_dropped(match unsent {
                        Unsent::Drop(reason) => reason,
                        // What was ours has become the kernel's by a new config.
                        _ => DropReason::NotOurs,
                    });
                    None
                }
            };
            if let Some(hold) = &mut self.hold {
                hold.finish(at, frame, out);
            }
        }
    }

    /// Drops frames that have waited long enough.
    pub(super) fn expire_held(&mut self) {
        let now = self.now;
        while self
            .hold
            .as_mut()
            .and_then(|hold| hold.pop_expired(now))
            .is_some()
        {
            self.release_dropped(DropReason::HoldExpired);
        }
    }
}
