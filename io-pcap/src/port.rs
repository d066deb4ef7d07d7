//! core's [`Port`] over frames that a caller feeds and takes: captures, fuzzing, tests.

use std::collections::VecDeque;

use evenkeel_core::port::{BURST, HandoffTag, HeapFrame, Port, PortId, WorkerId};
use evenkeel_core::worker::Verdict;

/// Cookie of a frame that the engine originated; frames that are fed have another.
pub const ORIGINATED: u64 = u64::MAX;

/// What the engine did with a frame, in the order in which it did it.
#[derive(Clone, Debug)]
pub enum Emitted {
    /// It was sent out of this interface.
    Sent(PortId, HeapFrame),
    /// It goes to the kernel.
    Punted(HeapFrame),
    /// It goes to another worker.
    HandedOff(WorkerId, HandoffTag, HeapFrame),
    /// It was dropped, held or answered: its buffer came back.
    Done(Verdict, HeapFrame),
}

/// Frames in, frames out. At most [`BURST`] frames wait to be received; what came out waits until
/// [`PcapPort::take`], at most what one step makes of a burst if the caller takes it after each.
#[derive(Debug, Default)]
pub struct PcapPort {
    rx: VecDeque<HeapFrame>,
    emitted: Vec<Emitted>,
}

impl PcapPort {
    /// A port without frames.
    pub fn new() -> Self {
        PcapPort::default()
    }

    /// Puts a frame behind those that wait to be received; gives it back if [`BURST`] do.
    pub fn feed(&mut self, frame: HeapFrame) -> Result<(), HeapFrame> {
        if self.rx.len() >= BURST {
            return Err(frame);
        }
        self.rx.push_back(frame);
        Ok(())
    }

    /// What came out since the last call.
    pub fn take(&mut self) -> std::vec::Drain<'_, Emitted> {
        self.emitted.drain(..)
    }
}

impl Port for PcapPort {
    type Frame = HeapFrame;

    fn rx_burst(&mut self, into: &mut Vec<HeapFrame>) -> usize {
        let n = self.rx.len();
        into.extend(self.rx.drain(..));
        n
    }

    fn alloc(&mut self, len: usize) -> Option<HeapFrame> {
        let mut frame = HeapFrame::zeroed(PortId(0), len);
        frame.cookie = ORIGINATED;
        Some(frame)
    }

    fn tx(&mut self, port: PortId, frame: HeapFrame) {
        self.emitted.push(Emitted::Sent(port, frame));
    }

    fn punt(&mut self, frame: HeapFrame) {
        self.emitted.push(Emitted::Punted(frame));
    }

    fn handoff(&mut self, to: WorkerId, frame: HeapFrame, tag: HandoffTag) {
        self.emitted.push(Emitted::HandedOff(to, tag, frame));
    }

    fn done(&mut self, frame: HeapFrame, verdict: Verdict) {
        self.emitted.push(Emitted::Done(verdict, frame));
    }

    fn flush(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_waits_and_one_more_comes_back() {
        let mut port = PcapPort::new();
        for _ in 0..BURST {
            port.feed(HeapFrame::new(PortId(0), b"x")).expect("room");
        }
        let back = port.feed(HeapFrame::new(PortId(3), b"y")).expect_err("full");
        assert_eq!(back.ingress, PortId(3));
        let mut frames = Vec::new();
        assert_eq!(port.rx_burst(&mut frames), BURST);
        assert_eq!(frames.len(), BURST);
        assert_eq!(port.rx_burst(&mut frames), 0);
    }

    #[test]
    fn what_comes_out_keeps_its_order() {
        let mut port = PcapPort::new();
        let frame = port.alloc(3).expect("from the heap");
        assert_eq!(frame.cookie, ORIGINATED);
        port.tx(PortId(1), frame.clone());
        port.punt(frame.clone());
        port.done(frame, Verdict::Answered);
        let got: Vec<_> = port.take().collect();
        assert!(matches!(
            got[..],
            [
                Emitted::Sent(PortId(1), _),
                Emitted::Punted(_),
                Emitted::Done(Verdict::Answered, _)
            ]
        ));
        assert_eq!(port.take().count(), 0);
    }
}
