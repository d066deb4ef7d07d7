//! How long it takes until another node has what a session's holder told it.

use std::collections::{BTreeMap, VecDeque};

use evenkeel_core::cluster::PeerId;
use evenkeel_core::sync::SyncBody;
use evenkeel_core::sync::codec::FrameItem;
use evenkeel_io_sim::{Direction, LbId};

use super::spread::Spread;
use crate::run::sync_frame::Reader;

/// Sections that wait for an ACK, of each sender, receiver and bucket; what is more is not measured, and counted.
const WAITING_MAX: usize = 1_024;

/// A holder's life, the receiver's link-layer address, and the bucket.
type Way = (LbId, PeerId, [u8; 6], u16);

/// From the frame in which records leave their holder until the ACK of all of them, and of all before them, comes back: what
/// was lost on the way is repaired meanwhile, and counts.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    reader: Reader,
    /// Last LSN of each section, and when it was told.
    waiting: BTreeMap<Way, VecDeque<(u64, u64)>>,
    pub(crate) spread: Spread,
    pub(crate) not_measured: u64,
}

impl Lag {
    pub(crate) fn new(reader: Reader) -> Self {
        Lag {
            reader,
            ..Lag::default()
        }
    }

    /// A frame at a node's sync port.
    pub(crate) fn frame(&mut self, now: u64, lb: LbId, direction: Direction, frame: &[u8]) {
        let Some(decoded) = self.reader.read(frame) else {
            return;
        };
        let mac = |at: usize| frame.get(at..)?.first_chunk::<6>().copied();
        let (Some(to), Some(from)) = (mac(0), mac(6)) else {
            return;
        };
        for item in &decoded.items {
            let FrameItem::Sync(message) = item else { continue };
            match (direction, &message.body) {
                (Direction::Out, SyncBody::Live(section)) => {
                    let last = section.first + section.records.len() as u64 - 1;
                    let way = (lb, decoded.header.from, to, message.bucket);
                    self.told(way, last, now);
                }
                (Direction::In, SyncBody::Ack { of, contiguous, .. }) => {
                    self.applied((lb, *of, from, message.bucket), *contiguous, now);
                }
                _ => {}
            }
        }
    }

    fn told(&mut self, way: Way, last: u64, now: u64) {
        let waiting = self.waiting.entry(way).or_default();
        if waiting.back().is_some_and(|(before, _)| *before >= last) {
            return;
        }
        if waiting.len() >= WAITING_MAX {
            self.not_measured += 1;
        } else {
            waiting.push_back((last, now));
        }
    }

    fn applied(&mut self, way: Way, contiguous: u64, now: u64) {
        let Some(waiting) = self.waiting.get_mut(&way) else {
            return;
        };
        while let Some((_, told)) = waiting.front().copied().filter(|(last, _)| *last <= contiguous) {
            waiting.pop_front();
            self.spread.add(now.saturating_sub(told));
        }
    }

    /// Sections of which no ACK came.
    pub(crate) fn open(&self) -> u64 {
        self.waiting.values().map(|w| w.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_ends_the_wait_of_all_that_it_covers_and_what_is_too_much_is_counted() {
        let (mut lag, way) = (Lag::default(), (LbId(0), PeerId::default(), [2; 6], 7));
        lag.told(way, 3, 100);
        lag.told(way, 5, 200);
        lag.told(way, 5, 250);
        lag.told(way, 9, 300);
        lag.applied((LbId(0), PeerId::default(), [3; 6], 7), 9, 400);
        assert_eq!(lag.spread.count, 0, "another receiver's");
        lag.applied(way, 5, 1_200);
        assert_eq!(
            (lag.spread.count, lag.spread.least_ns, lag.spread.greatest_ns),
            (2, 1_000, 1_100)
        );
        assert_eq!(lag.open(), 1);
        for n in 10..10 + WAITING_MAX as u64 {
            lag.told(way, n, 2_000);
        }
        assert_eq!((lag.open(), lag.not_measured), (WAITING_MAX as u64, 1));
    }
}
