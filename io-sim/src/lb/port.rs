//! core's [`Port`] over the rings of one simulated worker.

use std::collections::VecDeque;

use evenkeel_core::port::{BURST, Frame, HandoffTag, HeapFrame, Port, PortId, WorkerId};
use evenkeel_core::worker::Verdict;

/// Cookie of a frame that the engine originated.
const ORIGINATED: u64 = u64::MAX;

/// Rings in, and what came out of a turn.
#[derive(Debug)]
pub(super) struct SimPort {
    /// From the NIC.
    pub(super) rx: VecDeque<HeapFrame>,
    /// From other workers.
    pub(super) handoffs: VecDeque<HeapFrame>,
    pub(super) sent: Vec<(PortId, HeapFrame)>,
    pub(super) punted: Vec<HeapFrame>,
    pub(super) handed_off: Vec<(WorkerId, HeapFrame)>,
    /// Dropped, held or answered by the engine.
    pub(super) done: u64,
    /// Of the frames in both rings, as they are counted.
    bytes: u64,
}

/// What a frame in a ring takes, as it is counted: its place and headroom, and its bytes.
fn bytes(frame: &HeapFrame) -> u64 {
    256 + frame.len() as u64
}

impl SimPort {
    pub(super) fn new() -> Self {
        SimPort {
            rx: VecDeque::new(),
            handoffs: VecDeque::new(),
            sent: Vec::new(),
            punted: Vec::new(),
            handed_off: Vec::new(),
            done: 0,
            bytes: 0,
        }
    }

    /// A frame comes from the NIC; says what it takes.
    pub(super) fn receive(&mut self, frame: HeapFrame) -> u64 {
        let taken = bytes(&frame);
        self.bytes += taken;
        self.rx.push_back(frame);
        taken
    }

    /// A frame comes from another worker; says what it takes.
    pub(super) fn take_over(&mut self, frame: HeapFrame) -> u64 {
        let taken = bytes(&frame);
        self.bytes += taken;
        self.handoffs.push_back(frame);
        taken
    }

    /// What the frames of both rings take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Frames that wait for the worker.
    pub(super) fn waiting(&self) -> usize {
        self.rx.len() + self.handoffs.len()
    }

    pub(super) fn is_originated(frame: &HeapFrame) -> bool {
        frame.cookie == ORIGINATED
    }
}

impl Port for SimPort {
    type Frame = HeapFrame;

    fn rx_burst(&mut self, into: &mut Vec<HeapFrame>) -> usize {
        let before = into.len();
        let room = BURST.saturating_sub(before);
        let n = room.min(self.handoffs.len());
        into.extend(self.handoffs.drain(..n));
        let n = (room - n).min(self.rx.len());
        into.extend(self.rx.drain(..n));
        self.bytes -= into.iter().skip(before).map(bytes).sum::<u64>();
        into.len() - before
    }

    fn alloc(&mut self, len: usize) -> Option<HeapFrame> {
        let mut frame = HeapFrame::zeroed(PortId(0), len);
        frame.cookie = ORIGINATED;
        Some(frame)
    }

    fn tx(&mut self, port: PortId, frame: HeapFrame) {
        self.sent.push((port, frame));
    }

    fn punt(&mut self, frame: HeapFrame) {
        self.punted.push(frame);
    }

    fn handoff(&mut self, to: WorkerId, mut frame: HeapFrame, tag: HandoffTag) {
        frame.tag = Some(tag);
        self.handed_off.push((to, frame));
    }

    fn done(&mut self, frame: HeapFrame, _: Verdict) {
        self.done += 1;
        drop(frame);
    }

    fn flush(&mut self) {}
}
