//! What a NIC does by itself and a promiscuous interface does not: frames for other stations are left out. A bridge
//! floods them while it does not know better, and a virtual MAC address wants promiscuous mode.

use std::time::Duration;

use evenkeel_core::port::{BURST, Frame, HandoffTag, Port, PortId, WorkerId};
use evenkeel_core::worker::Verdict;

use crate::lane::{IoCounts, Lane};
use crate::worker::Wires;

/// Interfaces of one station, whose frames of others are dropped and counted.
pub(crate) struct Station<P> {
    port: P,
    /// The station's address on each interface.
    macs: Vec<[u8; 6]>,
    /// Addresses that it has on all of them, besides.
    extra: Vec<[u8; 6]>,
    filtered: u64,
}

impl<P> Station<P> {
    pub(crate) fn new(port: P, macs: Vec<[u8; 6]>) -> Self {
        Station {
            port,
            macs,
            extra: Vec::new(),
            filtered: 0,
        }
    }
}

/// Whether a frame is for this station. What is cut short is for the engine to count.
fn accepts(own: Option<&[u8; 6]>, extra: &[[u8; 6]], frame: &[u8]) -> bool {
    let Some(to) = frame.first_chunk::<6>() else {
        return true;
    };
    to[0] & 1 == 1 || own == Some(to) || extra.contains(to)
}

impl<P: Port> Port for Station<P> {
    type Frame = P::Frame;

    fn rx_burst(&mut self, into: &mut Vec<P::Frame>) -> usize {
        let before = into.len();
        let got = self.port.rx_burst(into);
        let Station { macs, extra, .. } = self;
        let mut at = before;
        while let Some(frame) = into.get(at) {
            // What another worker handed over was looked at there.
            let own = macs.get(usize::from(frame.ingress().0));
            if frame.tag().is_some() || accepts(own, extra, frame.data()) {
                at += 1;
            } else {
                // The order of the others stays; bursts are short.
                drop(into.remove(at));
                self.filtered += 1;
            }
        }
        debug_assert!(got <= BURST);
        at - before
    }

    fn alloc(&mut self, len: usize) -> Option<P::Frame> {
        self.port.alloc(len)
    }

    fn tx(&mut self, port: PortId, frame: P::Frame) {
        self.port.tx(port, frame);
    }

    fn punt(&mut self, frame: P::Frame) {
        self.port.punt(frame);
    }

    fn handoff(&mut self, to: WorkerId, frame: P::Frame, tag: HandoffTag) {
        self.port.handoff(to, frame, tag);
    }

    fn done(&mut self, frame: P::Frame, verdict: Verdict) {
        self.port.done(frame, verdict);
    }

    fn flush(&mut self) {
        self.port.flush();
    }
}

/// What a driver does for a worker's thread, beside its packets.
pub(crate) trait Driver: Port {
    /// What the thread holds while it runs.
    type Guard;
    /// The calling thread is the worker's.
    fn enter(&self) -> Self::Guard;
    /// As [`Wires::sleep`].
    fn sleep(&mut self, at_most: Duration, lane: &Lane);
    /// As [`Wires::say_news`].
    fn say_news(&mut self) {}
    /// As [`Wires::counts`], one place at least left free.
    fn counts(&mut self) -> IoCounts;
}

impl<P: Driver> Wires for Station<P> {
    type Guard = P::Guard;

    fn enter(&self) -> P::Guard {
        self.port.enter()
    }

    fn sleep(&mut self, at_most: Duration, lane: &Lane) {
        self.port.sleep(at_most, lane);
    }

    fn say_news(&mut self) {
        self.port.say_news();
    }

    fn set_extra_macs(&mut self, macs: &[[u8; 6]]) {
        self.extra.clear();
        self.extra.extend_from_slice(macs);
    }

    fn counts(&mut self) -> IoCounts {
        let mut counts = self.port.counts();
        let free = counts.iter_mut().find(|(name, _)| name.is_empty());
        if let Some(place) = free {
            *place = ("rx-filtered", self.filtered);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::port::HeapFrame;
    use evenkeel_io_pcap::port::PcapPort;

    use super::*;

    #[test]
    fn frames_of_other_stations_are_left_out() {
        let own = [2, 0, 0, 0, 0, 1];
        let other = [2, 0, 0, 0, 0, 2];
        let router = [0, 0, 0x5e, 0, 1, 51];
        let mut station = Station::new(PcapPort::new(), vec![other, own]);
        let mut pass = |extra: &[[u8; 6]], tos: &[&[u8]]| -> Vec<usize> {
            station.extra = extra.to_vec();
            for (n, to) in tos.iter().enumerate() {
                let mut frame = HeapFrame::new(PortId(1), to);
                frame.cookie = n as u64;
                station.port.feed(frame).expect("room");
            }
            let mut frames = Vec::new();
            let got = station.rx_burst(&mut frames);
            assert_eq!(got, frames.len());
            frames.iter().map(|frame| frame.cookie as usize).collect()
        };
        let multicast = [0x33, 0x33, 0, 0, 0, 1];
        let all: [&[u8]; 6] = [&own, &other, &[0xff; 6], &multicast, &router, &[2, 0, 0]];
        assert_eq!(pass(&[], &all), [0, 2, 3, 5]);
        assert_eq!(pass(&[router], &all), [0, 2, 3, 4, 5]);
        assert_eq!(pass(&[], &[&other]), [0usize; 0]);
        assert_eq!(station.filtered, 2 + 1 + 1);
    }
}
