//! Links: delay, bandwidth, a queue, and what goes wrong on the way.

use std::time::Duration;

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
    /// What goes wrong.
    pub faults: Faults,
}

impl Default for LinkSpec {
    /// 10 Gbit/s, 5 microseconds, a queue of 1 MiB, nothing wrong.
    fn default() -> Self {
        LinkSpec {
            delay: Duration::from_micros(5),
            jitter: Duration::ZERO,
            bandwidth: 10_000_000_000,
            queue_bytes: 1 << 20,
            faults: Faults::default(),
        }
    }
}

/// What goes wrong on a link. (Frames are not corrupted: what a NIC recognises as corrupt is lost.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Frames lost.
    pub loss: Ppm,
    /// Frames that arrive this often more than once: how many copies more, and how likely.
    pub copies: u8,
    /// See `copies`.
    pub duplication: Ppm,
    /// Frames that are late by a span from zero to `reorder_by`, and overtaken meanwhile.
    pub reordering: Ppm,
    /// See `reordering`.
    pub reorder_by: Duration,
    /// Directions that are cut.
    pub cut: Cut,
}

/// Directions of a link that are cut. What is on its way arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// None.
    #[default]
    None,
    /// From the end that was named first in `connect` to the other.
    Forth,
    /// The other one.
    Back,
    /// Both.
    Both,
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
    /// The most bytes that waited.
    pub queue_bytes_peak: u64,
}

impl LinkCounters {
    /// Frames that must be on their way for the count to be right; `None`: it cannot be.
    pub fn in_flight(&self) -> Option<u64> {
        (self.sent + self.duplicated).checked_sub(self.delivered + self.cut + self.queue_full + self.lost)
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
    /// It arrives, and as many copies of it, one after the other.
    At { at: u64, copies: u8, apart: u64 },
    /// It is lost.
    Dropped(&'static str),
}

impl Link {
    pub(crate) fn new(spec: LinkSpec, ends: [Place; 2], number: u16) -> Self {
        Link {
            spec,
            ends,
            ways: Default::default(),
            // Links, hosts, load balancers and flows draw under numbers of their own.
            entity: 1 << 32 | u64::from(number) << 1,
        }
    }

    /// A frame of `len` bytes is given by `from` at `at`.
    pub(crate) fn send(&mut self, streams: &Streams, from: Side, at: u64, len: usize) -> Sent {
        let spec = &self.spec;
        let faults = &spec.faults;
        let way = &mut self.ways[from as usize];
        let entity = self.entity | from as u64;
        let n = way.n;
        way.n += 1;
        let c = &mut way.counters;
        c.sent += 1;
        c.sent_bytes += len as u64;
        let is_cut = match faults.cut {
            Cut::None => false,
            Cut::Forth => from == Side::A,
            Cut::Back => from == Side::B,
            Cut::Both => true,
        };
        if is_cut {
            c.cut += 1;
            return Sent::Dropped("link-cut");
        }
        let mut left_at = at;
        if spec.bandwidth > 0 {
            let waits = way.free_at.saturating_sub(at);
            let backlog = u128::from(waits) * u128::from(spec.bandwidth) / 8_000_000_000;
            let backlog = backlog as u64 + len as u64;
            if backlog > spec.queue_bytes {
                c.queue_full += 1;
                return Sent::Dropped("link-queue-full");
            }
            c.queue_bytes_peak = c.queue_bytes_peak.max(backlog);
            // 8 bits a byte; preamble, frame check sequence and gap of Ethernet are 24 bytes.
            let bits = (len as u128 + 24) * 8_000_000_000;
            let took = bits.div_ceil(u128::from(spec.bandwidth)) as u64;
            left_at = way.free_at.max(at) + took;
            way.free_at = left_at;
        }
        if streams.happens(entity, Purpose::Loss, n, faults.loss) {
            c.lost += 1;
            return Sent::Dropped("link-loss");
        }
        let jitter = streams.span(entity, Purpose::Jitter, n, spec.jitter);
        let mut arrives = left_at + nanos(spec.delay) + nanos(jitter);
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
        Sent::At {
            at: arrives,
            copies,
            apart,
        }
    }
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
        Link::new(spec, [place, place], 0)
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
        let mut send = |at| link.send(&streams, Side::A, at, 976);
        assert_eq!(
            send(0),
            Sent::At {
                at: 18_000,
                copies: 0,
                apart: 0
            }
        );
        assert_eq!(
            send(0),
            Sent::At {
                at: 26_000,
                copies: 0,
                apart: 0
            }
        );
        assert_eq!(send(0), Sent::Dropped("link-queue-full"));
        assert_eq!(
            send(8_000),
            Sent::At {
                at: 34_000,
                copies: 0,
                apart: 0
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
            faults: Faults {
                loss: Ppm(100_000),
                duplication: Ppm(50_000),
                copies: 2,
                reordering: Ppm(200_000),
                reorder_by: Duration::from_millis(1),
                cut: Cut::Back,
            },
            ..LinkSpec::default()
        });
        let streams = Streams::new(1);
        let mut overtaken = 0;
        let mut latest = 0;
        for n in 0..10_000 {
            if let Sent::At { at, .. } = link.send(&streams, Side::A, n * 1_000, 100) {
                overtaken += u64::from(at < latest);
                latest = latest.max(at);
            }
            assert_eq!(link.send(&streams, Side::B, n, 100), Sent::Dropped("link-cut"));
        }
        let c = link.ways[0].counters;
        assert!((900..1100).contains(&c.lost), "{c:?}");
        assert!((800..1000).contains(&c.duplicated), "{c:?}");
        assert!(overtaken > 500, "{overtaken}");
    }
}
