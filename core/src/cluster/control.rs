//! The control side of a node, without the queues and sockets around it: [`NodeCore`], the receiver of sync frames
//! and the numbers of what is sent. A daemon and the simulator drive this very type.
//!
//! ```text
//! sync frame > Receiver > NodeCore             NodeCore > sync frame, frame for a data port, command, event
//!                       > messages for workers
//! ```

use alloc::vec::Vec;

use super::greeting::Greeting;
use super::{
    ClusterConfig, ClusterConfigError, Destination, Incarnation, NodeCommand, NodeCore, NodeEvent, NodeId,
};
use crate::port::{PortId, WorkerId};
use crate::sync::codec::{
    self, FrameHeader, FrameWriter, HEADER_LEN, NODE_FRAME_LEN_MAX, STREAM_CONTROL, TAG_LEN,
};
use crate::sync::seal::{Sealer, Sealing, Secrets};
use crate::sync::{Delivered, NodeMessage, Receiver, Refused, SyncCommand, SyncEvent, SyncMessage};
use crate::time::Instant;

/// Where the control side puts what it has to say. None of it may be waited for: what finds no room is dropped
/// and counted there, and told again by the core as far as it matters.
pub trait ControlSink {
    /// A sync frame for one node, or for all others. Returns when it left, as leases run from there; `None`: it
    /// did not leave.
    fn sync(&mut self, to: Option<NodeId>, frame: &[u8]) -> Option<Instant>;
    /// A frame for a data port. Returns when it left; `None`: [`Control::handle_frame_sent`] says so when it has.
    fn frame(&mut self, port: PortId, frame: Vec<u8>) -> Option<Instant>;
    /// A command for a worker.
    fn command(&mut self, worker: WorkerId, command: SyncCommand);
    /// A message for the worker of its bucket.
    fn message(&mut self, message: SyncMessage);
    /// What happened.
    fn event(&mut self, event: NodeEvent);
}

/// See the module.
#[derive(Debug)]
pub struct Control {
    core: NodeCore,
    receiver: Receiver,
    cluster: u32,
    packet_number: u64,
    sealer: Option<Sealer>,
    greeting: Option<Greeting>,
    /// The frame that is being written.
    frame: Vec<u8>,
}

impl Control {
    /// As [`NodeCore::new`]. Without `sealing` frames are sent and taken in clear.
    pub fn new(
        config: ClusterConfig,
        incarnation: Incarnation,
        workers: u8,
        seed: u64,
        now: Instant,
        sealing: Option<Sealing>,
    ) -> Result<Self, Vec<ClusterConfigError>> {
        let (cluster, me) = (config.cluster, config.id);
        let members: Vec<NodeId> = config.members.iter().map(|m| m.id).collect();
        let every = config.heartbeat;
        let core = NodeCore::new(config, incarnation, workers, seed, now)?;
        // A config with more members was refused just now.
        let receiver = Receiver::new(cluster, me, &members, sealing.as_ref())
            .map_err(|_| alloc::vec![ClusterConfigError::TooManyMembers(members.len())])?;
        Ok(Control {
            core,
            receiver,
            cluster,
            packet_number: 0,
            greeting: sealing.as_ref().map(|s| Greeting::new(s, every, workers, now)),
            sealer: sealing.map(Sealer::new),
            frame: Vec::new(),
        })
    }

    /// The node's core, to look at.
    pub fn core(&self) -> &NodeCore {
        &self.core
    }

    /// The ear of the node, to look at.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// When [`Control::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let greeting = self.greeting.as_ref().map(|g| g.poll_timeout());
        self.core.poll_timeout().into_iter().chain(greeting).min()
    }

    /// Frames are sealed and taken by these secrets from now on. Nothing if they are not sealed at all.
    pub fn handle_secrets(&mut self, now: Instant, secrets: &Secrets, sink: &mut impl ControlSink) {
        self.receiver.set_secrets(secrets);
        if let (Some(sealer), Some(greeting)) = (&mut self.sealer, &mut self.greeting) {
            sealer.set_secrets(secrets.clone());
            greeting.set_secrets(secrets.clone(), now);
        }
        self.poll(now, sink);
    }

    /// By which secrets this node and how many of its workers seal: the number of [`Control::handle_secrets`] so far, and those who have
    /// applied the last ones.
    pub fn secrets(&self) -> (u32, usize) {
        self.greeting.as_ref().map_or((0, 0), Greeting::secrets)
    }

    /// Does what is due; nothing if nothing is.
    pub fn handle_timeout(&mut self, now: Instant, sink: &mut impl ControlSink) {
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.core.handle_timeout(now);
        }
        self.poll(now, sink);
    }

    /// A sync frame came in. What is refused is counted by the receiver.
    pub fn handle_sync(
        &mut self,
        now: Instant,
        frame: &[u8],
        sink: &mut impl ControlSink,
    ) -> Result<usize, Refused> {
        let mut for_node = Vec::new();
        let mut hello = None;
        let taken = self.receiver.handle(frame, &mut |one| match one {
            Delivered::Sync(message) => sink.message(message),
            Delivered::Node(from, message) => for_node.push((from, message)),
            Delivered::Hello(from, salt) => hello = Some((from, salt)),
        });
        if let (Some((from, salt)), Some(greeting)) = (hello, &mut self.greeting) {
            greeting.asked(from, salt);
            self.poll(now, sink);
        }
        for (from, message) in for_node {
            self.core.handle_peer(now, from, &message);
            self.poll(now, sink);
        }
        taken
    }

    /// As [`NodeCore::handle_frame`].
    pub fn handle_frame(&mut self, now: Instant, port: PortId, frame: &[u8], sink: &mut impl ControlSink) {
        self.core.handle_frame(now, port, frame);
        self.poll(now, sink);
    }

    /// As [`NodeCore::handle_frame_sent`].
    pub fn handle_frame_sent(
        &mut self,
        now: Instant,
        at: Instant,
        frame: &[u8],
        sink: &mut impl ControlSink,
    ) {
        self.core.handle_frame_sent(now, at, frame);
        self.poll(now, sink);
    }

    /// As [`NodeCore::handle_event`].
    pub fn handle_event(
        &mut self,
        now: Instant,
        worker: WorkerId,
        event: SyncEvent,
        sink: &mut impl ControlSink,
    ) {
        match (event, &mut self.greeting) {
            (SyncEvent::Numbers(asked, numbers), Some(greeting)) => {
                greeting.numbers(asked, worker, numbers);
            }
            (SyncEvent::SecretsApplied(number), Some(greeting)) => greeting.applied(worker, number),
            (event, _) => self.core.handle_event(now, worker, event),
        }
        self.poll(now, sink);
    }

    /// What the operator wants.
    pub fn handle_command(&mut self, now: Instant, command: NodeCommand, sink: &mut impl ControlSink) {
        self.core.handle_command(now, command);
        self.poll(now, sink);
    }

    /// Fetches all that the core gives, and puts it into the sink.
    fn poll(&mut self, now: Instant, sink: &mut impl ControlSink) {
        self.greet(now, sink);
        loop {
            let mut idle = true;
            while let Some((worker, command)) = self.core.poll_command() {
                sink.command(worker, command);
            }
            while let Some((to, message)) = self.core.poll_peer() {
                let is_heartbeat = matches!(message, NodeMessage::Heartbeat { .. });
                let left = self.send(to, &message, sink);
                if let Some(at) = left.filter(|_| is_heartbeat) {
                    self.core.handle_sent(now, at);
                }
                idle = false;
            }
            while let Some((port, frame)) = self.core.poll_transmit() {
                self.frame.clear();
                self.frame.extend_from_slice(&frame);
                if let Some(at) = sink.frame(port, frame) {
                    self.core.handle_frame_sent(now, at, &self.frame);
                }
                idle = false;
            }
            while let Some(event) = self.core.poll_event() {
                sink.event(event);
            }
            if idle {
                return;
            }
        }
    }

    /// Says what is due of HELLOs and secrets.
    fn greet(&mut self, now: Instant, sink: &mut impl ControlSink) {
        let Some(greeting) = &mut self.greeting else {
            return;
        };
        greeting.advance(now, &self.receiver);
        while let Some((worker, command)) = greeting.poll_command() {
            sink.command(worker, command);
        }
        while let (Some((to, hello)), Some(sealer)) = (greeting.poll_hello(), &mut self.sealer) {
            let header = FrameHeader {
                cluster: self.cluster,
                from: self.core.id(),
                stream: STREAM_CONTROL,
                packet_number: self.packet_number,
            };
            self.packet_number += 1;
            codec::write_hello(&mut self.frame, &header, &hello);
            sealer.seal(&header, codec::HELLO_CLEAR_LEN, Some(to), &mut self.frame);
            // Whether it left or not: it is said again.
            let _ = sink.sync(Some(to), &self.frame);
        }
    }

    fn send(
        &mut self,
        to: Destination,
        message: &NodeMessage,
        sink: &mut impl ControlSink,
    ) -> Option<Instant> {
        let header = FrameHeader {
            cluster: self.cluster,
            from: self.core.id(),
            stream: STREAM_CONTROL,
            packet_number: self.packet_number,
        };
        self.frame.clear();
        let tag = self.sealer.as_ref().map_or(0, |_| TAG_LEN);
        let mut writer = FrameWriter::new(&mut self.frame, &header, NODE_FRAME_LEN_MAX - tag);
        let pushed = writer.push_node(message);
        debug_assert!(pushed.is_ok(), "{message:?} is encoded");
        if writer.finish() == 0 {
            return None;
        }
        self.packet_number += 1;
        let to = match to {
            Destination::All => None,
            Destination::One(peer) => Some(peer.node),
        };
        if let Some(sealer) = &mut self.sealer {
            sealer.seal(&header, HEADER_LEN, to, &mut self.frame);
        }
        sink.sync(to, &self.frame)
    }
}
