//! Links: delay, bandwidth, a queue, and what goes wrong on the way.

use std::time::Duration;

use crate::faults::{self, Faults};
use crate::ids::Place;
use crate::random::{Purpose, Streams, nanos};

/// Parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ppm(pub u32);

/// What a link is. Both directions are alike and independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// From the last bit sent to the last bit received.
    pub delay: Duration,
    /// Added to it, from zero to this; frames do not overtake each other by it.
    pub jitter: Duration,
    /// Bits a second; 0: no limit, and no queue.
    pub bandwidth: u64,
    /// Bytes that may wait to be sent, the frame that is being sent included; what does not fit is dropped.
    pub queue_bytes: u64,
    /// Bytes of a frame behind its Ethernet header and VLAN tags at most; what is larger is dropped. 0: no limit.
    pub mtu: u16,
    /// What goes wrong from the end that was named first in `connect` to the other.
    pub forth: Faults,
    /// What goes wrong the other way.
    pub back: Faults,
}

impl LinkSpec {
    /// With the same faults both ways.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        LinkSpec {
            forth: faults,
            back: faults,
            ..self
        }
    }
}

impl Default for LinkSpec {
    /// 10 Gbit/s, 5 microseconds, a queue of 1 MiB, frames of any length, nothing wrong.
    fn default() -> Self {
        LinkSpec {
            delay: Duration::from_micros(5),
            jitter: Duration::ZERO,
            bandwidth: 10_000_000_000,
            queue_bytes: 1 << 20,
            mtu: 0,
            forth: Faults::default(),
            back: Faults::default(),
        }
    }
}

/// What one direction of a link counted. `sent + duplicated` is `delivered`, the drops, and what is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Frames that its sender gave.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Copies made on the way.
    pub duplicated: u64,
    /// Frames that arrived, copies included.
    pub delivered: u64,
    /// Dropped as the direction was cut.
    pub cut: u64,
    /// Dropped as the queue was full.
    pub queue_full: u64,
    /// Lost on the way.
    pub lost: u64,
    /// Dropped as they were larger than the link carries.
    pub too_large: u64,
    /// A bit of them was flipped on the way.
    pub corrupted: u64,
    /// The most bytes that waited.
    pub queue_bytes_peak: u64,
}

impl LinkCounters {
    /// Frames that must be on their way for the count to be right; `None`: it cannot be.
    pub fn in_flight(&self) -> Option<u64> {
        let dropped = self.cut + self.queue_full + self.lost + self.too_large;
        (self.sent + self.duplicated).checked_sub(self.delivered + dropped)
    }
}

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A = 0,
    B = 1,
}

impl Side {
    pub(crate) const fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct OneWay {
    /// When its sender is free again.
    free_at: u64,
    /// The latest arrival so far, of those that are in order.
    last_arrival: u64,
    /// Frames so far: the count of its draws.
    n: u64,
    /// It is in the bad state of its bursts.
    bad: bool,
    pub(crate) counters: LinkCounters,
}

/// A link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) spec: LinkSpec,
    pub(crate) ends: [Place; 2],
    pub(crate) ways: [OneWay; 2],
    entity: u64,
}

/// What becomes of a frame that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It arrives, and as many copies of it, one after the other; with a bit flipped that `flips` draws.
    At {
        at: u64,
        copies: u8,
        apart: u64,
        flips: Option<u64>,
    },
    /// It is lost.
    Dropped(&'static str),
}

impl Link {
    /// `name` tells it from all others: its draws are keyed by it.
    pub(crate) fn new(spec: LinkSpec, ends: [Place; 2], name: &str) -> Self {
        Link {
            spec,
            ends,
            ways: Default::default(),
            entity: Streams::entity(name) & !1,
        }
    }

    /// A frame is given by `from` at `at`.
    pub(crate) fn send(&mut self, streams: &Streams, from: Side, at: u64, frame: &[u8]) -> Sent {
        let spec = &self.spec;
        let faults = match from {
            Side::A => &spec.forth,
            Side::B => &spec.back,
        };
        let way = &mut self.ways[from as usize];
        let entity = self.entity | from as u64;
        let n = way.n;
        way.n += 1;
        let len = frame.len();
        let c = &mut way.counters;
        c.sent += 1;
        c.sent_bytes += len as u64;
        if faults.cut {
            c.cut += 1;
            return Sent::Dropped("link-cut");
        }
        if spec.mtu > 0 && len > usize::from(spec.mtu) + header_len(frame) {
            c.too_large += 1;
            return Sent::Dropped("link-mtu");
        }
        let mut left_at = at;
        let bandwidth = match faults.bandwidth {
            Some(less) if spec.bandwidth > 0 => less.min(spec.bandwidth).max(1),
            Some(less) => less.max(1),
            None => spec.bandwidth,
        };
        if bandwidth > 0 {
            let waits = way.free_at.saturating_sub(at);
            let backlog = u128::from(waits) * u128::from(bandwidth) / 8_000_000_000;
            let backlog = backlog as u64 + len as u64;
            if backlog > spec.queue_bytes {
                c.queue_full += 1;
                return Sent::Dropped("link-queue-full");
            }
            c.queue_bytes_peak = c.queue_bytes_peak.max(backlog);
            // 8 bits a byte; preamble, frame check sequence and gap of Ethernet are 24 bytes.
            let bits = (len as u128 + 24) * 8_000_000_000;
            let took = bits.div_ceil(u128::from(bandwidth)) as u64;
            left_at = way.free_at.max(at) + took;
            way.free_at = left_at;
        }
        if let Some(why) = faults::lost(faults, &mut way.bad, (streams, entity, n), frame) {
            c.lost += 1;
            return Sent::Dropped(why);
        }
        let jitter = streams.span(entity, Purpose::Jitter, n, spec.jitter);
        let mut arrives = left_at + nanos(spec.delay) + nanos(faults.delay) + nanos(jitter);
        if streams.happens(entity, Purpose::Reordering, n, faults.reordering) {
            arrives += nanos(streams.span(entity, Purpose::Jitter, !n, faults.reorder_by));
        } else {
            arrives = arrives.max(way.last_arrival);
            way.last_arrival = arrives;
        }
        let mut copies = 0;
        let mut apart = 0;
        if streams.happens(entity, Purpose::Duplication, n, faults.duplication) {
            copies = faults.copies;
            apart = 1 + streams.below(entity, Purpose::DuplicateDelay, n, 100_000);
            way.counters.duplicated += u64::from(copies);
        }
        let corrupt = streams.happens(entity, Purpose::Corruption, n, faults.corruption);
        way.counters.corrupted += u64::from(corrupt);
        Sent::At {
            at: arrives,
            copies,
            apart,
            flips: corrupt.then(|| streams.draw(entity, Purpose::Flips, n)),
        }
    }
}

/// Bytes of a frame's Ethernet header and VLAN tags.
fn header_len(frame: &[u8]) -> usize {
    let mut len = 14;
    while matches!(frame.get(len - 2..len), Some([0x81, 0x00] | [0x88, 0xa8])) {
        len += 4;
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{HostId, Owner};

    fn link(spec: LinkSpec) -> Link {
        let place = Place {
            owner: Owner::Host(HostId(0)),
            port: 0,
        };
        Link::new(spec, [place, place], "link")
    }

    #[test]
    fn frames_wait_for_each_other_and_the_queue_has_an_end() {
        // 1 bit a nanosecond; 976 bytes are 8 microseconds with what Ethernet adds.
        let mut link = link(LinkSpec {
            bandwidth: 1_000_000_000,
            delay: Duration::from_micros(10),
            queue_bytes: 2_000,
            ..LinkSpec::default()
        });
        let streams = Streams::new(1);
        let mut send = |at| link.send(&streams, Side::A, at, &[0; 976]);
        assert_eq!(
            send(0),
            Sent::At {
                at: 18_000,
                copies: 0,
                apart: 0,
                flips: None,
            }
        );
        assert_eq!(
            send(0),
            Sent::At {
                at: 26_000,
                copies: 0,
                apart: 0,
                flips: None,
            }
        );
        assert_eq!(send(0), Sent::Dropped("link-queue-full"));
        assert_eq!(
            send(8_000),
            Sent::At {
                at: 34_000,
                copies: 0,
                apart: 0,
                flips: None,
            }
        );
        let c = link.ways[0].counters;
        assert_eq!((c.sent, c.queue_full, c.in_flight()), (4, 1, Some(3)));
        assert_eq!(link.ways[1].counters, LinkCounters::default());
    }

    #[test]
    fn faults_happen_as_often_as_they_are_said_to() {
        let mut link = link(LinkSpec {
            bandwidth: 0,
            forth: Faults {
                loss: Ppm(100_000),
                duplication: Ppm(50_000),
                copies: 2,
                reordering: Ppm(200_000),
                reorder_by: Duration::from_millis(1),
                corruption: Ppm(10_000),
                ..Faults::default()
            },
            back: Faults {
                cut: true,
                ..Faults::default()
            },
            ..LinkSpec::default()
        });
        let streams = Streams::new(1);
        let mut overtaken = 0;
        let mut latest = 0;
        for n in 0..10_000 {
            if let Sent::At { at, .. } = link.send(&streams, Side::A, n * 1_000, &[0; 100]) {
                overtaken += u64::from(at < latest);
                latest = latest.max(at);
            }
            let back = link.send(&streams, Side::B, n, &[0; 100]);
            assert_eq!(back, Sent::Dropped("link-cut"));
        }
        let c = link.ways[0].counters;
        assert!((900..1100).contains(&c.lost), "{c:?}");
        assert!((800..1000).contains(&c.duplicated), "{c:?}");
        assert!((60..130).contains(&c.corrupted), "{c:?}");
        assert!(overtaken > 500, "{overtaken}");
    }

    #[test]
    fn what_is_larger_than_the_link_carries_is_dropped_with_or_without_a_tag() {
        let mut link = link(LinkSpec {
            mtu: 1_500,
            ..LinkSpec::default()
        });
        let streams = Streams::new(1);
        let mut fits = |len: usize, tags: usize| {
            let mut frame = vec![0; len + 4 * tags];
            for tag in 0..tags {
                frame[12 + 4 * tag..14 + 4 * tag].copy_from_slice(&[0x81, 0x00]);
            }
            link.send(&streams, Side::A, 0, &frame) != Sent::Dropped("link-mtu")
        };
        for tags in 0..3 {
            assert!(fits(1_514, tags) && !fits(1_515, tags), "{tags} tags");
        }
        let c = link.ways[0].counters;
        assert_eq!((c.sent, c.too_large, c.in_flight()), (6, 3, Some(3)));
    }

    #[test]
    fn a_smaller_bandwidth_and_an_added_delay_hold_while_their_fault_does() {
        let mut link = link(LinkSpec {
            bandwidth: 1_000_000_000,
            delay: Duration::from_micros(10),
            ..LinkSpec::default()
        });
        let streams = Streams::new(1);
        let arrives = |link: &mut Link, at| match link.send(&streams, Side::A, at, &[0; 976]) {
            Sent::At { at: arrives, .. } => arrives - at,
            Sent::Dropped(why) => panic!("{why}"),
        };
        assert_eq!(arrives(&mut link, 0), 18_000);
        link.spec.forth = Faults {
            bandwidth: Some(100_000_000),
            delay: Duration::from_micros(5),
            ..Faults::default()
        };
        assert_eq!(arrives(&mut link, 1_000_000), 95_000);
        link.spec.forth = Faults::default();
        assert_eq!(arrives(&mut link, 2_000_000), 18_000);
    }
}
