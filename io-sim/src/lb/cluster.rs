//! The control side of a load balancer in a cluster: core's `Control`, and the queues between it and the workers, each
//! with a bound and a delay.
//!
//! ```text
//! sync port > ring > Receiver > queue > worker         NodeCore > queue > worker (commands)
//!                             > NodeCore               worker > queue > NodeCore (events, punted frames)
//! worker > sync port (frames, one to each peer)        NodeCore > sync port, data ports
//! ```

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::cluster::{self, ClusterConfig, Control, ControlSink, NodeCommand, NodeId, PeerId};
use evenkeel_core::port::{PortId, WorkerId};
use evenkeel_core::sync::seal::{Salt, Sealing, Secrets, Suite};
use evenkeel_core::sync::{self, ClusterSizes, SyncCommand, SyncEvent, SyncMessage};
use evenkeel_core::time::Instant;
use evenkeel_core::worker::Command;
use evenkeel_seal::Ring;

use super::clock::Clock;
use crate::host::{Mac, ParsedUdp, set_ethernet, udp_frame};
use crate::ids::LbId;
use crate::random::{Purpose, Streams, nanos};

/// The UDP port of sync frames.
const SYNC_UDP_PORT: u16 = 5679;
/// Frames of the sync ring and items of each queue that the control side takes in one turn, at most.
pub(super) const TURN_COUNT_MAX: usize = 256;

/// A load balancer's place in a cluster.
#[derive(Clone, Debug)]
pub struct LbCluster {
    /// What its `NodeCore` is told.
    pub config: ClusterConfig,
    /// Sizes of replication in each worker.
    pub sizes: ClusterSizes,
    /// The queues between its parts.
    pub queues: LbQueues,
    /// By what its frames are sealed; `None`: they go in clear.
    pub secrets: Option<Secrets>,
}

impl LbCluster {
    /// How a life seals: by the same AEAD on every machine, as its bytes are part of a run.
    pub(super) fn sealing(&self, streams: &Streams, lb: LbId, life: u64) -> Option<Sealing> {
        let secrets = self.secrets.clone()?;
        let half = |n| {
            streams
                .draw(queue_entity(lb, life), Purpose::Salt, n)
                .to_le_bytes()
        };
        let mut salt = Salt::default();
        salt[..8].copy_from_slice(&half(0));
        salt[8..].copy_from_slice(&half(1));
        Some(Sealing {
            crypto: Arc::new(Ring::with(Suite::AesGcm)),
            secrets,
            salt,
        })
    }
}

/// Bounds and delay of the queues between workers and control side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbQueues {
    /// Sync frames that have come in and wait for the control side.
    pub sync_ring: usize,
    /// Messages of peers that wait for one worker.
    pub messages: usize,
    /// Commands that wait for one worker.
    pub commands: usize,
    /// Events of workers that wait for the control side.
    pub events: usize,
    /// Punted frames that wait for the control side.
    pub punted: usize,
    /// From one end of a queue to the other.
    pub delay: Duration,
    /// Added to it, from zero to this; nothing overtakes by it.
    pub jitter: Duration,
    /// So much later comes bulk, and up to twice that, than the rest: it goes over TCP, and what that lost holds up all behind it.
    pub bulk_delay: Duration,
}

impl Default for LbQueues {
    fn default() -> Self {
        LbQueues {
            sync_ring: 1024,
            messages: 4096,
            commands: 1024,
            events: 4096,
            punted: 256,
            delay: Duration::from_micros(20),
            bulk_delay: Duration::ZERO,
            jitter: Duration::from_micros(30),
        }
    }
}

/// What the control side's queues counted, over all lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LbSyncCounters {
    /// Frames that came in by the sync port.
    pub received: u64,
    /// Of these: came while it was down.
    pub down: u64,
    /// Of these: for another node, or no sync frame at all.
    pub filtered: u64,
    /// Of these: found the ring full.
    pub ring_full: u64,
    /// Of these: waited in the ring when it crashed.
    pub lost_in_crash: u64,
    /// Of these: given to the receiver; its counters say what became of them.
    pub handled: u64,
    /// Frames sent, one for each peer.
    pub sent: u64,
    /// Bytes of sync frames sent, without Ethernet, IP and UDP.
    pub sent_bytes: u64,
    /// Messages for workers whose queue was full.
    pub messages_full: u64,
    /// Commands for workers whose queue was full.
    pub commands_full: u64,
    /// Events that found the queue full.
    pub events_full: u64,
    /// Punted frames that found the queue full.
    pub punted_full: u64,
    /// The most that a worker's queue of messages held, since its bound was set.
    pub messages_peak: usize,
    /// The most that a worker's queue of commands held, since its bound was set.
    pub commands_peak: usize,
    /// The most that the queue of events held, since its bound was set.
    pub events_peak: usize,
    /// The most that the queue of punted frames held, since its bound was set.
    pub punted_peak: usize,
    /// The most that the sync ring held.
    pub ring_peak: usize,
}

/// A queue with a bound, whose items take their time.
#[derive(Debug)]
pub(super) struct Delayed<T> {
    items: VecDeque<(u64, T)>,
    max: usize,
    last: u64,
    n: u64,
    entity: u64,
}

impl<T> Delayed<T> {
    /// `entity` names it for the random numbers: no other queue of a world has it.
    pub(super) fn new(max: usize, entity: u64) -> Self {
        Delayed {
            items: VecDeque::new(),
            max,
            last: 0,
            n: 0,
            entity,
        }
    }

    /// When the item comes out; `None`: there is no room for it.
    pub(super) fn push(&mut self, streams: &Streams, now: u64, queues: &LbQueues, item: T) -> Option<u64> {
        if self.items.len() >= self.max {
            return None;
        }
        self.n += 1;
        let jitter = streams.span(self.entity, Purpose::QueueDelay, self.n, queues.jitter);
        let due = now + nanos(queues.delay) + nanos(jitter);
        self.last = self.last.max(due);
        self.items.push_back((self.last, item));
        Some(self.last)
    }

    /// Another bound, for what comes from now on.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Nothing that waits comes out later than `at`: who looks into the queue is quicker now.
    pub(super) fn hurry(&mut self, at: u64) {
        self.last = self.last.min(at);
        // Items come out in order: those that are too late are the last ones.
        for (due, _) in self.items.iter_mut().rev().take_while(|(due, _)| *due > at) {
            *due = at;
        }
    }

    pub(super) fn pop(&mut self, now: u64) -> Option<T> {
        if self.next_at()? > now {
            return None;
        }
        self.items.pop_front().map(|(_, item)| item)
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.items.front().map(|(due, _)| *due)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(_, item)| item)
    }
}

/// What waits for one worker.
#[derive(Debug)]
pub(super) struct WorkerInbox {
    pub(super) messages: Delayed<SyncMessage>,
    pub(super) commands: Delayed<Command>,
}

impl WorkerInbox {
    pub(super) fn new(queues: &LbQueues, lb: LbId, life: u64, worker: u16) -> Self {
        let entity = queue_entity(lb, life);
        WorkerInbox {
            messages: Delayed::new(queues.messages, entity | (4 + 2 * u64::from(worker))),
            commands: Delayed::new(queues.commands, entity | (5 + 2 * u64::from(worker))),
        }
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        let both = [self.messages.next_at(), self.commands.next_at()];
        both.into_iter().flatten().min()
    }
}

/// Queues of a life draw under numbers of their own: 10 bits for the queue.
fn queue_entity(lb: LbId, life: u64) -> u64 {
    5 << 48 | (life & 0xffff) << 32 | u64::from(lb.0) << 10
}

/// What the control side has to give away after a turn. What it gives leaves at once: `now` is when.
#[derive(Debug)]
pub(super) struct Outgoing {
    now: Instant,
    me: NodeId,
    peers: Vec<NodeId>,
    /// Frames for data ports.
    pub(super) frames: Vec<(PortId, Vec<u8>)>,
    /// Frames for the sync port.
    pub(super) sync: Vec<Vec<u8>>,
    /// Messages for workers.
    pub(super) messages: Vec<SyncMessage>,
    /// Commands for workers.
    pub(super) commands: Vec<(WorkerId, SyncCommand)>,
    /// What happened.
    pub(super) events: Vec<cluster::NodeEvent>,
}

impl ControlSink for Outgoing {
    fn sync(&mut self, to: Option<NodeId>, frame: &[u8]) -> Option<Instant> {
        self.sync.extend(packets(self.me, &self.peers, to, frame));
        Some(self.now)
    }

    fn frame(&mut self, port: PortId, frame: Vec<u8>) -> Option<Instant> {
        self.frames.push((port, frame));
        Some(self.now)
    }

    fn command(&mut self, worker: WorkerId, command: SyncCommand) {
        self.commands.push((worker, command));
    }

    fn message(&mut self, message: SyncMessage) {
        self.messages.push(message);
    }

    fn event(&mut self, event: cluster::NodeEvent) {
        self.events.push(event);
    }
}

/// The control side in one life, with its queues.
#[derive(Debug)]
pub(super) struct ControlSide {
    pub(super) control: Control,
    me: NodeId,
    /// The other members.
    peers: Vec<NodeId>,
    pub(super) ring: VecDeque<Vec<u8>>,
    /// Bulk that is to come into the ring.
    pub(super) bulk: Delayed<Vec<u8>>,
    pub(super) events: Delayed<(WorkerId, SyncEvent)>,
    pub(super) punted: Delayed<(PortId, Vec<u8>)>,
    pub(super) planned: Option<u64>,
    pub(super) turn: u64,
}

impl ControlSide {
    /// # Errors
    ///
    /// What is wrong with the config.
    pub(super) fn new(
        spec: &LbCluster,
        me: PeerId,
        workers: u8,
        seed: u64,
        now: Instant,
        (lb, life): (LbId, u64),
        sealing: Option<Sealing>,
    ) -> Result<Self, String> {
        let config = spec.config.clone();
        let peers = config.members.iter().map(|m| m.id).filter(|id| *id != me.node);
        let peers = peers.collect();
        let control = Control::new(config, me.incarnation, workers, seed, now, sealing);
        let control = control.map_err(|errors| {
            let all: Vec<_> = errors.iter().take(5).map(ToString::to_string).collect();
            all.join("; ")
        })?;
        let entity = queue_entity(lb, life);
        Ok(ControlSide {
            control,
            me: me.node,
            peers,
            ring: VecDeque::new(),
            bulk: Delayed::new(usize::MAX, entity | 2),
            events: Delayed::new(spec.queues.events, entity),
            punted: Delayed::new(spec.queues.punted, entity | 1),
            planned: None,
            turn: 0,
        })
    }

    /// When it has something to do, by its clock; the ring has its own way.
    pub(super) fn next_at(&self, now: u64, clock: Clock) -> Option<u64> {
        let timer = self.control.poll_timeout();
        let timer = timer.and_then(|at| clock.to_world(at.as_nanos()));
        let timer = timer.map(|at| at.max(now));
        let ring = (!self.ring.is_empty()).then_some(now);
        let times = [
            timer,
            ring,
            self.bulk.next_at(),
            self.events.next_at(),
            self.punted.next_at(),
        ];
        times.into_iter().flatten().min()
    }

    fn outgoing(&self, now: Instant) -> Outgoing {
        Outgoing {
            now,
            me: self.me,
            peers: self.peers.clone(),
            frames: Vec::new(),
            sync: Vec::new(),
            messages: Vec::new(),
            commands: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Takes in what waits, and does what is due by its clock, `at`. The frames that it took from the ring are counted.
    pub(super) fn run(&mut self, now: u64, at: Instant) -> (Outgoing, u64) {
        let mut out = self.outgoing(at);
        // First of all it finds out that it stood still.
        self.control.handle_timeout(at, &mut out);
        while let Some(frame) = self.bulk.pop(now) {
            self.ring.push_back(frame);
        }
        let taken = self.ring.len().min(TURN_COUNT_MAX);
        for frame in self.ring.drain(..taken) {
            // What is refused is counted there.
            let _ = self.control.handle_sync(at, &frame, &mut out);
        }
        for _ in 0..TURN_COUNT_MAX {
            let Some((port, frame)) = self.punted.pop(now) else {
                break;
            };
            self.control.handle_frame(at, port, &frame, &mut out);
        }
        for _ in 0..TURN_COUNT_MAX {
            let Some((worker, event)) = self.events.pop(now) else {
                break;
            };
            self.control.handle_event(at, worker, event, &mut out);
        }
        (out, taken as u64)
    }

    /// Sync frames that have come and wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.ring.iter().chain(self.bulk.iter())
    }

    /// What an operator wants.
    pub(super) fn command(&mut self, at: Instant, command: NodeCommand) -> Outgoing {
        let mut out = self.outgoing(at);
        self.control.handle_command(at, command, &mut out);
        out
    }

    /// What a worker sends as packets on the wire: one for each peer to which it goes.
    pub(super) fn packets(&self, to: sync::Destination, frame: &[u8]) -> Vec<Vec<u8>> {
        let to = match to {
            sync::Destination::All => None,
            sync::Destination::One(peer) => Some(peer.node),
        };
        packets(self.me, &self.peers, to, frame)
    }
}

fn packets(me: NodeId, peers: &[NodeId], to: Option<NodeId>, frame: &[u8]) -> Vec<Vec<u8>> {
    let to = peers.iter().filter(|peer| to.is_none_or(|to| to == **peer));
    to.map(|&peer| {
        let mut packet = udp_frame(sync_end(me), sync_end(peer), frame);
        set_ethernet(&mut packet, sync_mac(peer), sync_mac(me), 0x0800);
        packet
    })
    .collect()
}

/// A node's link-layer address on the sync network.
pub(super) fn sync_mac(node: NodeId) -> Mac {
    let [high, low] = node.0.to_be_bytes();
    [0x02, 0x5c, 0, 0, high, low]
}

/// A node's address there: of the range for benchmarks (RFC 2544).
fn sync_end(node: NodeId) -> SocketAddr {
    let [high, low] = node.0.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, high, low)), SYNC_UDP_PORT)
}

/// The sync frame in a packet for `me`.
pub(super) fn sync_frame(me: NodeId, packet: &[u8]) -> Option<Vec<u8>> {
    if packet.get(..6)? != sync_mac(me) {
        return None;
    }
    let ParsedUdp { dst, data, .. } = ParsedUdp::parse(packet)?;
    (dst == sync_end(me)).then(|| data.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_keeps_its_order_and_its_bound() {
        let streams = Streams::new(1);
        let queues = LbQueues {
            jitter: Duration::from_micros(100),
            ..LbQueues::default()
        };
        let mut queue = Delayed::new(3, 1);
        for n in 0..3 {
            assert!(
                queue
                    .push(&streams, 0, &queues, n)
                    .is_some_and(|due| due >= 20_000)
            );
        }
        assert_eq!(queue.push(&streams, 0, &queues, 3), None);
        assert_eq!(queue.pop(0), None);
        let all: Vec<_> = std::iter::from_fn(|| queue.pop(1_000_000)).collect();
        assert_eq!(all, [0, 1, 2]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn sync_frames_find_their_node() {
        let peers = [NodeId(2), NodeId(300)];
        let packets = packets(NodeId(1), &peers, None, b"frame");
        assert_eq!(packets.len(), 2);
        assert_eq!(sync_frame(NodeId(2), &packets[0]).as_deref(), Some(&b"frame"[..]));
        assert_eq!(
            sync_frame(NodeId(300), &packets[1]).as_deref(),
            Some(&b"frame"[..])
        );
        assert_eq!(sync_frame(NodeId(3), &packets[1]), None);
        assert_eq!(
            super::packets(NodeId(1), &peers, Some(NodeId(300)), b"x").len(),
            1
        );
    }
}
