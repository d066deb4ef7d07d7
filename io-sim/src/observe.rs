//! What can be seen of a world while it runs: frames at ports, events, and a digest over both.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_core::cluster::NodeEvent;
use evenkeel_core::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use crate::flow::BrokenWhy;
use crate::ids::{FlowId, LbId, LinkId, Place, RouterId};
use crate::trail::Notes;

/// Which way a frame crosses a port, as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The owner receives it.
    In,
    /// The owner sends it.
    Out,
}

/// Something that happened, beside frames that cross ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// A flow's first packet was made.
    FlowOpened(FlowId),
    /// A flow was connected.
    FlowEstablished(FlowId),
    /// A flow ended as it should.
    FlowClosed(FlowId),
    /// A flow broke.
    FlowBroken(FlowId, BrokenWhy),
    /// A load balancer started, in this incarnation.
    LbStarted(LbId, u64),
    /// All state of a load balancer was lost.
    LbCrashed(LbId),
    /// A load balancer does nothing from now on.
    LbPaused(LbId),
    /// It goes on.
    LbResumed(LbId),
    /// Something of a load balancer was changed from outside: its name.
    LbChanged(LbId, &'static str),
    /// Something happened to a node of a cluster.
    Node(LbId, NodeEvent),
    /// A link was given other properties or faults.
    LinkChanged(LinkId),
    /// A router began (or ceased) to send packets to a next hop: router, group and place in it.
    Member(RouterId, u16, u16, bool),
    /// A frame was lost; `why` is the name of the reason.
    Dropped {
        /// Where: the port that was to send or that received it.
        at: Place,
        /// Why.
        why: &'static str,
        /// Its length in bytes.
        len: u32,
    },
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trace::FlowOpened(flow) => write!(f, "{flow} opened"),
            Trace::FlowEstablished(flow) => write!(f, "{flow} established"),
            Trace::FlowClosed(flow) => write!(f, "{flow} closed"),
            Trace::FlowBroken(flow, why) => write!(f, "{flow} BROKEN: {}", why.name()),
            Trace::LbStarted(lb, incarnation) => write!(f, "{lb} started, incarnation {incarnation}"),
            Trace::LbCrashed(lb) => write!(f, "{lb} crashed"),
            Trace::LbPaused(lb) => write!(f, "{lb} paused"),
            Trace::LbResumed(lb) => write!(f, "{lb} resumed"),
            Trace::LbChanged(lb, what) => write!(f, "{lb}: {what} changed"),
            Trace::Node(lb, event) => write!(f, "{lb}: {event:?}"),
            Trace::LinkChanged(link) => write!(f, "{link} changed"),
            Trace::Member(router, group, member, alive) => {
                let word = if *alive { "takes in" } else { "takes out" };
                write!(f, "{router} {word} member {member} of group {group}")
            }
            Trace::Dropped { at, why, len } => write!(f, "{at}: {len} bytes dropped: {why}"),
        }
    }
}

/// Looks on. Nothing that it does changes the world.
pub trait Tap {
    /// A frame crosses a port of a host or a load balancer (a router's, too; links and switches change nothing in it but VLAN tags, but for faults).
    fn frame(&mut self, now: Instant, at: Place, direction: Direction, data: &[u8]) {
        let _ = (now, at, direction, data);
    }
    /// Something happened.
    fn trace(&mut self, now: Instant, what: &Trace) {
        let _ = (now, what);
    }
    /// The world is over: write out what is buffered.
    ///
    /// # Errors
    ///
    /// What the tap writes to failed, now or before.
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// What a world spends its time on, for who measures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Taking events out of the queue.
    Queue,
    /// Links and switches.
    Network,
    /// Clients and servers.
    Hosts,
    /// NICs and rings of load balancers.
    Machines,
    /// The engine's workers.
    Workers,
    /// The engine's control side.
    Control,
    /// Taps, and the digest.
    Taps,
    /// What is not the world's: who owns it works.
    Outside,
}

impl Part {
    /// All.
    pub const ALL: [Part; 8] = [
        Part::Queue,
        Part::Network,
        Part::Hosts,
        Part::Machines,
        Part::Workers,
        Part::Control,
        Part::Taps,
        Part::Outside,
    ];
}

/// Is told what a world begins to work on. Worlds read no clock; a meter may.
pub trait Meter {
    /// `part` begins, and what it was until now is over.
    fn begins(&mut self, part: Part) -> Part;
}

/// A meter that is shared with who reads it.
pub type SharedMeter = Arc<Mutex<dyn Meter + Send>>;

/// Decides what arrives at the ports of load balancers: for faults that only packets of one kind suffer.
pub trait Filter {
    /// Whether the frame arrives at `at`. It may be changed; taps see it as it arrives.
    fn keep(&mut self, now: Instant, at: Place, frame: &mut Vec<u8>) -> bool;
}

/// Writes each [`Trace`] as a line of text.
#[derive(Debug)]
pub struct TraceTap<W> {
    out: W,
    failed: Option<String>,
}

impl<W: Write> TraceTap<W> {
    /// To `out`.
    pub fn new(out: W) -> Self {
        TraceTap { out, failed: None }
    }
}

impl<W: Write> Tap for TraceTap<W> {
    fn trace(&mut self, now: Instant, what: &Trace) {
        let ns = now.as_nanos();
        if let Err(e) = writeln!(
            self.out,
            "{:>6}.{:09} {what}",
            ns / 1_000_000_000,
            ns % 1_000_000_000
        ) {
            self.failed.get_or_insert(e.to_string());
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        if let Err(e) = self.out.flush() {
            self.failed.get_or_insert(e.to_string());
        }
        self.failed.take().map_or(Ok(()), Err)
    }
}

/// Taps, and the digest.
pub(crate) struct Observer {
    taps: Vec<Box<dyn Tap>>,
    pub(crate) filter: Option<Box<dyn Filter>>,
    /// For comparing runs.
    pub(crate) notes: Option<Box<Notes>>,
    pub(crate) meter: Option<SharedMeter>,
    digest: Xxh3,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observer({} taps)", self.taps.len())
    }
}

impl Observer {
    pub(crate) fn new(seed: u64) -> Self {
        let mut digest = Xxh3::new();
        digest.update(&seed.to_le_bytes());
        Observer {
            taps: Vec::new(),
            filter: None,
            notes: None,
            meter: None,
            digest,
        }
    }

    pub(crate) fn add(&mut self, tap: Box<dyn Tap>) {
        self.taps.push(tap);
    }

    /// Tells the meter, if there is one; gives what it was until now.
    pub(crate) fn begins(&self, part: Part) -> Part {
        let Some(meter) = &self.meter else {
            return part;
        };
        meter.lock().unwrap_or_else(PoisonError::into_inner).begins(part)
    }

    /// 128 bits over all that was seen so far.
    pub(crate) fn digest(&self) -> u128 {
        self.digest.digest128()
    }

    pub(crate) fn frame(&mut self, now: Instant, at: Place, direction: Direction, data: &[u8]) {
        let before = self.begins(Part::Taps);
        let owner = at.owner.code();
        let mut head = [0; 18];
        head[..8].copy_from_slice(&now.as_nanos().to_le_bytes());
        head[8..10].copy_from_slice(&(owner.0 | (direction as u16) << 8).to_le_bytes());
        head[10..12].copy_from_slice(&owner.1.to_le_bytes());
        head[12..14].copy_from_slice(&at.port.to_le_bytes());
        head[14..].copy_from_slice(&(data.len() as u32).to_le_bytes());
        self.digest.update(&head);
        self.digest.update(data);
        if let Some(notes) = &mut self.notes {
            notes.frame(&head, now, at, direction, data);
        }
        for tap in &mut self.taps {
            tap.frame(now, at, direction, data);
        }
        self.begins(before);
    }

    pub(crate) fn trace(&mut self, now: Instant, what: Trace) {
        let code: [u64; 4] = match what {
            Trace::FlowOpened(flow) => [1, flow.0.into(), 0, 0],
            Trace::FlowEstablished(flow) => [2, flow.0.into(), 0, 0],
            Trace::FlowClosed(flow) => [3, flow.0.into(), 0, 0],
            Trace::FlowBroken(flow, why) => [4, flow.0.into(), why as u64, 0],
            Trace::LbStarted(lb, incarnation) => [5, lb.0.into(), incarnation, 0],
            Trace::LbCrashed(lb) => [6, lb.0.into(), 0, 0],
            Trace::LbPaused(lb) => [7, lb.0.into(), 0, 0],
            Trace::LbResumed(lb) => [8, lb.0.into(), 0, 0],
            Trace::Node(lb, event) => {
                // Its words are as good as bytes, and there are few.
                self.digest.update(format!("{event:?}").as_bytes());
                [11, lb.0.into(), 0, 0]
            }
            Trace::LbChanged(lb, what) => {
                self.digest.update(what.as_bytes());
                [12, lb.0.into(), 0, 0]
            }
            Trace::LinkChanged(link) => [9, link.0.into(), 0, 0],
            Trace::Member(router, group, member, alive) => [
                12 | u64::from(alive) << 8,
                router.0.into(),
                group.into(),
                member.into(),
            ],
            Trace::Dropped { at, why, len } => {
                self.digest.update(why.as_bytes());
                let (kind, id) = at.owner.code();
                [
                    10,
                    u64::from(kind) << 32 | u64::from(id) << 16 | u64::from(at.port),
                    len.into(),
                    0,
                ]
            }
        };
        let mut head = [0; 40];
        head[..8].copy_from_slice(&now.as_nanos().to_le_bytes());
        for (to, from) in head[8..].chunks_exact_mut(8).zip(code) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        self.digest.update(&head);
        if let Some(notes) = &mut self.notes {
            notes.trace(&head, &what);
        }
        for tap in &mut self.taps {
            tap.trace(now, &what);
        }
    }

    /// Ends all taps; the first failure counts.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        let mut result = Ok(());
        for mut tap in self.taps.drain(..) {
            let one = tap.finish();
            if result.is_ok() {
                result = one;
            }
        }
        result
    }
}
