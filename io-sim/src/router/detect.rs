//! Whether next hops are there: hellos at an interval, and so many without an answer, as BFD does (RFC 5880, 6.8.4).
//!
//! A hello is an echo request to an address that is served, sent to the next hop's link-layer address. The engine
//! answers echoes for VIPs only while it serves them: a node that is down, stands still, is not ready yet or has begun to
//! leave does not answer, and the router sends it nothing. Nothing else of the node has to know of the router.

use std::net::IpAddr;
use std::time::Duration;

use crate::host::wire::{self, Packet, be16, fold, ip_frame, pseudo, sum};

/// How a router finds out whether a next hop is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detection {
    /// Between two hellos to a next hop.
    pub interval: Duration,
    /// After so many without an answer it is gone, and after as many answers in a row it is there.
    pub multiplier: u8,
    /// The address to which hellos go.
    pub target: IpAddr,
}

/// What is known of a next hop.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// When the next hello is due.
    pub(super) due: u64,
    /// The last hello's number.
    sequence: u16,
    /// It was answered.
    answered: bool,
    /// Answers, or hellos without one, in a row.
    streak: u8,
    up: bool,
}

impl Session {
    pub(super) fn new(due: u64) -> Self {
        Session {
            due,
            // Before the first hello nothing is missed.
            answered: true,
            ..Session::default()
        }
    }

    /// A hello is due: its number, and whether the next hop is there by what came of those before.
    pub(super) fn hello(&mut self, now: u64, interval: u64, multiplier: u8) -> (u16, bool) {
        let first = self.sequence == 0;
        if !first && self.answered != self.up {
            self.streak += 1;
            if self.streak >= multiplier {
                self.up = self.answered;
                self.streak = 0;
            }
        } else {
            self.streak = 0;
        }
        self.due = now + interval.max(1);
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.answered = false;
        (self.sequence, self.up)
    }

    /// An answer came.
    pub(super) fn answer(&mut self, sequence: u16) {
        self.answered |= sequence == self.sequence;
    }
}

/// An echo request or its reply, without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) is_request: bool,
    pub(super) identifier: u16,
    pub(super) sequence: u16,
}

impl Echo {
    /// A frame, its Ethernet header left open.
    pub(super) fn frame(self, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        let v4 = src.is_ipv4();
        let kind = match (v4, self.is_request) {
            (true, true) => 8,
            (true, false) => 0,
            (false, true) => 128,
            (false, false) => 129,
        };
        let mut icmp = vec![kind, 0, 0, 0];
        icmp.extend(self.identifier.to_be_bytes());
        icmp.extend(self.sequence.to_be_bytes());
        let head = if v4 {
            0
        } else {
            pseudo(src, dst, wire::ICMPV6, icmp.len())
        };
        let check = !fold(head + sum(&icmp));
        icmp[2..4].copy_from_slice(&check.to_be_bytes());
        let proto = if v4 { wire::ICMPV4 } else { wire::ICMPV6 };
        ip_frame(src, dst, proto, 64, &icmp)
    }

    /// `None`: it is another message, or its checksum is wrong.
    pub(super) fn parse(packet: &Packet<'_>) -> Option<Self> {
        let icmp = packet.payload;
        let is_request = match (packet.proto, icmp.first()?) {
            (wire::ICMPV4, 8) | (wire::ICMPV6, 128) => true,
            (wire::ICMPV4, 0) | (wire::ICMPV6, 129) => false,
            _ => return None,
        };
        // Of ICMPv6 the packet's reader has summed it up.
        if packet.proto == wire::ICMPV4 && fold(sum(icmp)) != 0xffff {
            return None;
        }
        Some(Echo {
            is_request,
            identifier: be16(icmp, 4)?,
            sequence: be16(icmp, 6)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_gone_and_there_after_as_many_hellos() {
        let mut session = Session::new(0);
        let mut hello = |answered: bool| {
            let (sequence, up) = session.hello(session.due, 100, 3);
            if answered {
                session.answer(sequence.wrapping_sub(1));
                assert!(!session.answered, "an answer to an earlier one proves nothing");
                session.answer(sequence);
            }
            up
        };
        let ups: Vec<bool> = [true; 4].into_iter().map(&mut hello).collect();
        assert_eq!(ups, [false, false, false, true]);
        // One that is lost is forgiven.
        let answers = [false, false, true, false, false, false, true];
        let ups: Vec<bool> = answers.into_iter().map(&mut hello).collect();
        assert_eq!(ups, [true, true, true, true, true, true, false]);
        assert_eq!(session.due, 1_100);
    }

    #[test]
    fn hellos_are_read_back() {
        for (src, dst) in [("192.0.2.254", "192.0.2.1"), ("2001:db8::1", "2001:db8::2")] {
            let (src, dst): (IpAddr, IpAddr) = (src.parse().expect("ok"), dst.parse().expect("ok"));
            for is_request in [true, false] {
                let echo = Echo {
                    is_request,
                    identifier: 7,
                    sequence: 300,
                };
                let frame = echo.frame(src, dst);
                let kind = if src.is_ipv4() { wire::IPV4 } else { wire::IPV6 };
                let packet = Packet::parse(kind, &frame[wire::ETHERNET_LEN..]).expect("right");
                assert_eq!(Echo::parse(&packet), Some(echo));
                let mut wrong = frame.clone();
                *wrong.last_mut().expect("a byte") ^= 1;
                let read = Packet::parse(kind, &wrong[wire::ETHERNET_LEN..]);
                assert_eq!(read.ok().and_then(|p| Echo::parse(&p)), None);
            }
        }
    }
}
