//! What two runs are compared by: a digest every so many events, and the events of one stretch in words.
//!
//! Two runs that are the same up to an event have the same points up to it. The first point that differs names the
//! stretch in which they part; a second run of each records that stretch, event by event.

use std::ops::Range;

use evenkeel_core::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use crate::ids::Place;
use crate::observe::{Direction, Trace};
use crate::queue::Event;

/// Events that can be recorded at most.
pub const RECORD_COUNT_MAX: u64 = 1 << 20;

/// What a world is asked to note about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailSpec {
    /// A point after so many events each, 1 at least.
    pub every: u64,
    /// Numbers of events to record, the first of which is 1; [`RECORD_COUNT_MAX`] at most are.
    pub record: Range<u64>,
}

/// An event that happened, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Its number, from 1; 0 is what was done before the first.
    pub number: u64,
    /// Simulated time.
    pub at_ns: u64,
    /// What.
    pub what: String,
    /// Frames that crossed ports, and what else was seen, until the next event.
    pub seen: Vec<String>,
}

/// What was noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Events that happened.
    pub events: u64,
    /// A digest of all so far after each full stretch, then one of all.
    pub points: Vec<u64>,
    /// What was asked for.
    pub recorded: Vec<Recorded>,
}

/// Notes.
pub(crate) struct Notes {
    spec: TrailSpec,
    digest: Xxh3,
    trail: Trail,
}

impl Notes {
    pub(crate) fn new(spec: TrailSpec) -> Self {
        let mut notes = Notes {
            digest: Xxh3::new(),
            trail: Trail::default(),
            spec,
        };
        notes.record(|| (0, "the world begins".to_owned()));
        notes
    }

    fn wanted(&self) -> bool {
        let Range { start, end } = self.spec.record;
        let events = self.trail.events;
        (start..end.min(start.saturating_add(RECORD_COUNT_MAX))).contains(&events)
    }

    fn record(&mut self, what: impl FnOnce() -> (u64, String)) {
        if self.wanted() {
            let (at_ns, what) = what();
            self.trail.recorded.push(Recorded {
                number: self.trail.events,
                at_ns,
                what,
                seen: Vec::new(),
            });
        }
    }

    fn see(&mut self, what: impl FnOnce() -> String) {
        if self.wanted()
            && let Some(last) = self.trail.recorded.last_mut()
        {
            last.seen.push(what());
        }
    }

    /// An event is about to happen; those before it are over.
    pub(crate) fn event(&mut self, at: u64, event: Event) {
        let every = self.spec.every.max(1);
        if self.trail.events > 0 && self.trail.events.is_multiple_of(every) {
            self.trail.points.push(self.digest.digest());
        }
        self.trail.events += 1;
        self.digest.update(&at.to_le_bytes());
        self.digest.update(&event.entity().to_le_bytes());
        self.record(|| (at, words(event)));
    }

    /// A frame crosses a port: `head` says when and where.
    pub(crate) fn frame(&mut self, head: &[u8], now: Instant, at: Place, direction: Direction, data: &[u8]) {
        self.digest.update(head);
        self.digest.update(data);
        self.see(|| {
            let way = match direction {
                Direction::In => "receives",
                Direction::Out => "sends",
            };
            let when = now.as_nanos();
            format!("{at} {way} {} (at {when} ns)", frame_words(data))
        });
    }

    pub(crate) fn trace(&mut self, code: &[u8], what: &Trace) {
        self.digest.update(code);
        self.see(|| what.to_string());
    }

    /// What was noted; the last point is of all.
    pub(crate) fn trail(&self) -> Trail {
        let mut trail = self.trail.clone();
        trail.points.push(self.digest.digest());
        trail
    }
}

fn words(event: Event) -> String {
    match event {
        Event::Arrive { link, from, .. } => {
            format!("a frame arrives by {link}, {}", ["forth", "back"][from as usize])
        }
        Event::Flow(flow) => format!("{flow} has its time"),
        Event::Conn { host, conn, .. } => format!("connection {conn} of {host} has its time"),
        Event::Fly { host, flow } => format!("{flow} of the flyweight of {host} has its time"),
        Event::Neighbours(host) => format!("{host} looks after its neighbours"),
        Event::Router(router) => format!("{router} looks after its next hops"),
        Event::Actor(actor) => format!("{actor} has its time"),
        Event::Worker { lb, worker, .. } => format!("worker {worker} of {lb} takes its turn"),
        Event::Node { lb, .. } => format!("the control side of {lb} takes its turn"),
    }
}

/// A frame in words: its kind, its ends, and a digest of all of it.
fn frame_words(data: &[u8]) -> String {
    let byte = |at: usize| data.get(at).copied().unwrap_or(0);
    let word = |at: usize| u16::from_be_bytes([byte(at), byte(at + 1)]);
    let (kind, proto, l4) = match word(12) {
        0x0800 => ("IPv4", byte(23), 14 + usize::from(byte(14) & 0xf) * 4),
        0x86dd => ("IPv6", byte(20), 54),
        0x0806 => ("ARP", 0, 0),
        0x8100 => ("VLAN", 0, 0),
        _ => ("frame", 0, 0),
    };
    let ports = || format!("{} > {}", word(l4), word(l4 + 2));
    let sequence = || u64::from(word(l4 + 4)) << 16 | u64::from(word(l4 + 6));
    let proto = match proto {
        6 => format!(
            " TCP {} flags {:02x} sequence {}",
            ports(),
            byte(l4 + 13),
            sequence()
        ),
        17 => format!(" UDP {}", ports()),
        0 => String::new(),
        other => format!(" protocol {other}"),
    };
    let digest = xxhash_rust::xxh3::xxh3_64(data);
    format!("{kind}{proto}, {} bytes {digest:016x}", data.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::FlowId;

    #[test]
    fn points_come_after_full_stretches_and_one_of_all() {
        let trail = |n: u32, odd: u32| {
            let mut notes = Notes::new(TrailSpec {
                every: 4,
                record: 6..8,
            });
            for i in 0..n {
                notes.event(i.into(), Event::Flow(FlowId(if i == odd { 99 } else { i })));
            }
            notes.trail()
        };
        let (one, other) = (trail(10, u32::MAX), trail(10, 6));
        assert_eq!((one.events, one.points.len()), (10, 3));
        assert_eq!(one.points[0], other.points[0]);
        assert_ne!(one.points[1], other.points[1]);
        let numbers: Vec<_> = one.recorded.iter().map(|r| r.number).collect();
        assert_eq!(numbers, [6, 7]);
        assert_eq!(one.recorded[0], other.recorded[0]);
        assert_eq!(one.recorded[1].what, "flow 6 has its time");
        assert_eq!(other.recorded[1].what, "flow 99 has its time");
        // A run that ends with a stretch has its point once more, as that of all.
        assert_eq!(trail(8, 99).points.len(), 2);
    }

    #[test]
    fn a_frame_is_told_in_words_however_short_it_is() {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[0x08, 0]);
        frame[14] = 0x45;
        frame[23] = 17;
        frame[35] = 7;
        frame[37] = 9;
        assert!(frame_words(&frame).starts_with("IPv4 UDP 7 > 9, 60 bytes "));
        for len in 0..60 {
            assert!(frame_words(&frame[..len]).contains(&format!("{len} bytes")));
        }
    }
}
