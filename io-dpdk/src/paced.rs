//! Frames at the times of their capture: each burst is a run of frames with one time.

use std::collections::VecDeque;

use evenkeel_core::port::{BURST, HandoffTag, Port, PortId, WorkerId};
use evenkeel_core::time::Instant;
use evenkeel_core::worker::Verdict;

use crate::mbuf::{Mbuf, RxTimestampField};
use crate::port::DpdkPort;

/// A port over net_pcap files whose bursts the engine can be given with the time of the capture, so that
/// it does as in a replay. net_pcap's stamps are microseconds since the Unix epoch.
#[derive(Debug)]
pub struct PacedPort {
    port: DpdkPort,
    field: RxTimestampField,
    /// Received and not yet given to the engine, at most a burst.
    ahead: VecDeque<(Instant, Mbuf)>,
    burst: Vec<Mbuf>,
    /// Time of the last frame: that of a frame without a stamp.
    last: Instant,
}

impl PacedPort {
    /// Paces `port` by the stamps in `field`.
    pub fn new(port: DpdkPort, field: RxTimestampField) -> Self {
        PacedPort {
            port,
            field,
            ahead: VecDeque::with_capacity(BURST),
            burst: Vec::with_capacity(BURST),
            last: Instant::ZERO,
        }
    }

    /// Time of the next burst; `None` if nothing has arrived (net_pcap: for ever, at the end of its file).
    /// A time may lie before the last one, as captures do that; what to make of it is the caller's.
    pub fn next_time(&mut self) -> Option<Instant> {
        if self.ahead.is_empty() {
            self.port.rx_burst(&mut self.burst);
            for frame in self.burst.drain(..) {
                if let Some(us) = frame.rx_timestamp(self.field) {
                    self.last = Instant::from_nanos(us.saturating_mul(1000));
                }
                self.ahead.push_back((self.last, frame));
            }
        }
        self.ahead.front().map(|&(time, _)| time)
    }

    /// The port itself, for its counters.
    pub fn port(&self) -> &DpdkPort {
        &self.port
    }
}

impl Port for PacedPort {
    type Frame = Mbuf;

    fn rx_burst(&mut self, into: &mut Vec<Mbuf>) -> usize {
        let before = into.len();
        let Some(now) = self.next_time() else { return 0 };
        while into.len() < BURST {
            match self.ahead.pop_front() {
                Some((time, frame)) if time == now => into.push(frame),
                Some(later) => {
                    self.ahead.push_front(later);
                    break;
                }
                None => break,
            }
        }
        into.len() - before
    }

    fn alloc(&mut self, len: usize) -> Option<Mbuf> {
        self.port.alloc(len)
    }

    fn tx(&mut self, port: PortId, frame: Mbuf) {
        self.port.tx(port, frame);
    }

    fn punt(&mut self, frame: Mbuf) {
        self.port.punt(frame);
    }

    fn handoff(&mut self, to: WorkerId, frame: Mbuf, tag: HandoffTag) {
        self.port.handoff(to, frame, tag);
    }

    fn done(&mut self, frame: Mbuf, verdict: Verdict) {
        self.port.done(frame, verdict);
    }

    fn flush(&mut self) {
        self.port.flush();
    }
}
