//! What waits to be fetched from a node: bounded queues, each with a counted end.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{NodeCounters, NodeEvent};
use crate::port::{PortId, WorkerId};
use crate::sync::{Destination, NodeMessage, SyncCommand};

/// Commands that wait, at most.
pub const COMMAND_COUNT_MAX: usize = 4096;
/// Messages that wait, at most.
pub const MESSAGE_COUNT_MAX: usize = 256;
/// Frames that wait, at most.
pub const FRAME_COUNT_MAX: usize = 1024;
/// Events that wait, at most.
pub const EVENT_COUNT_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) commands: VecDeque<(WorkerId, SyncCommand)>,
    pub(super) messages: VecDeque<(Destination, NodeMessage)>,
    pub(super) frames: VecDeque<(PortId, Vec<u8>)>,
    pub(super) events: VecDeque<NodeEvent>,
    pub(super) counters: NodeCounters,
}

impl Outbox {
    pub(super) fn command(&mut self, worker: WorkerId, command: SyncCommand) {
        if !push(&mut self.commands, COMMAND_COUNT_MAX, (worker, command)) {
            self.counters.command_dropped += 1;
        }
    }

    pub(super) fn message(&mut self, to: Destination, message: NodeMessage) {
        if !push(&mut self.messages, MESSAGE_COUNT_MAX, (to, message)) {
            self.counters.message_dropped += 1;
        }
    }

    /// A heartbeat says all that an older one said: it replaces one that still waits.
    pub(super) fn heartbeat(&mut self, message: NodeMessage) {
        self.messages
            .retain(|(_, m)| !matches!(m, NodeMessage::Heartbeat { .. }));
        self.message(Destination::All, message);
    }

    pub(super) fn frame(&mut self, port: PortId, frame: Vec<u8>) {
        if !push(&mut self.frames, FRAME_COUNT_MAX, (port, frame)) {
            self.counters.frame_dropped += 1;
        }
    }

    pub(super) fn event(&mut self, event: NodeEvent) {
        if !push(&mut self.events, EVENT_COUNT_MAX, event) {
            self.counters.event_dropped += 1;
        }
    }
}

/// `false`: full.
fn push<T>(queue: &mut VecDeque<T>, max: usize, item: T) -> bool {
    let room = queue.len() < max;
    if room {
        queue.push_back(item);
    }
    room
}
