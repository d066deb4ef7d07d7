//! The packets of one connection, hop by hop.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use evenkeel_io_sim::{Direction, Owner, Place};

use super::packet::{self, ACK, Packet, SYN, Tcp};

/// Hops that are kept before the time that matters, from its beginning on, and of the end.
const HEAD_MAX: usize = 16;
const BEFORE_MAX: usize = 16;
const WINDOW_MAX: usize = 110;
const TAIL_MAX: usize = 12;
/// Ends that nodes give the connection on the servers' side: one, but for UDP flows that were forgotten.
const LOCAL_MAX: usize = 8;
/// Why a port drops what was not meant for it.
const FLOODED: [&str; 2] = ["nic-filtered", "host-not-mine"];
/// Hops whose arrival is waited for.
const UNDER_WAY_MAX: usize = 64;

/// Who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    Client,
    /// Index of the load balancer.
    Node(u16),
    Server,
}

/// A packet from one port to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) sent_ns: u64,
    pub(crate) from: Line,
    /// Where it went, by its link-layer address; `None`: to nobody who is known.
    pub(crate) to: Option<Line>,
    /// When it arrived; `None`: it did not.
    pub(crate) arrived_ns: Option<u64>,
    /// Why it went no further, if that was told.
    pub(crate) lost: Option<&'static str>,
    /// Flags, numbers from the beginning of the connection, length.
    pub(crate) words: String,
    /// Its end has sent it before.
    pub(crate) again: bool,
    /// A copy that the network made.
    pub(crate) copy: bool,
    /// From the client's end to the server's.
    pub(crate) forth: bool,
    /// Hops between the one before it and this one that are not kept.
    pub(crate) left_out: u64,
    key: Key,
}

type Key = (SocketAddr, SocketAddr, Option<(u32, u32, u8)>, u32);

fn key(packet: &Packet) -> Key {
    let tcp = packet.tcp.map(|t| (t.seq, t.ack, t.flags));
    (packet.src, packet.dst, tcp, packet.len)
}

/// Which connection, and when it gets interesting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) client: SocketAddr,
    pub(crate) target: SocketAddr,
    /// Index of the client's host.
    pub(crate) host: u16,
    pub(crate) from_ns: u64,
}

/// Keeps the hops of a connection.
#[derive(Debug)]
pub(crate) struct Hops {
    chosen: Chosen,
    /// Who has which link-layer address.
    macs: BTreeMap<[u8; 6], Line>,
    locals: Vec<(SocketAddr, SocketAddr)>,
    /// First sequence numbers of the client and of the server.
    isn: [Option<u32>; 2],
    /// How far the client and the server have sent.
    sent_to: [u32; 2],
    /// The client's last datagram.
    datagram: Vec<u8>,
    head: Vec<Hop>,
    before: VecDeque<Hop>,
    window: Vec<Hop>,
    tail: VecDeque<Hop>,
    /// Not kept between head and before, and between window and tail.
    left_out: [u64; 2],
    /// The frame that was seen last is one of these hops: a drop that follows is its own.
    last: Option<(Place, u32, Key)>,
    /// It arrives, unless the drop that follows says that it was not meant for that port.
    arriving: Option<(u64, Line, Key)>,
    pub(crate) count: u64,
}

impl Hops {
    pub(crate) fn new(chosen: Chosen, macs: BTreeMap<[u8; 6], Line>) -> Hops {
        Hops {
            chosen,
            macs,
            locals: Vec::new(),
            isn: [None; 2],
            sent_to: [0; 2],
            datagram: Vec::new(),
            head: Vec::new(),
            before: VecDeque::new(),
            window: Vec::new(),
            tail: VecDeque::new(),
            left_out: [0; 2],
            last: None,
            arriving: None,
            count: 0,
        }
    }

    fn line(&self, owner: Owner) -> Option<Line> {
        match owner {
            Owner::Host(host) if host.0 == self.chosen.host => Some(Line::Client),
            Owner::Host(_) => Some(Line::Server),
            Owner::Lb(lb) => Some(Line::Node(lb.0)),
            _ => None,
        }
    }

    /// Whether it is the connection's, and goes to its server.
    fn is_ours(&mut self, packet: &Packet, frame: &[u8], from_node: bool) -> Option<bool> {
        let ends = (packet.src, packet.dst);
        let Chosen { client, target, .. } = self.chosen;
        if ends == (client, target) {
            if packet.tcp.is_none() {
                self.datagram.clear();
                self.datagram
                    .extend(frame.get(packet.payload_at..).unwrap_or(&[]));
            }
            return Some(true);
        }
        if ends == (target, client) {
            return Some(false);
        }
        if self.locals.contains(&ends) {
            return Some(true);
        }
        if self.locals.iter().any(|&(local, server)| ends == (server, local)) {
            return Some(false);
        }
        // Another end is a node's for this connection if what it sends is what the client sent.
        let same = match packet.tcp {
            Some(Tcp { seq, flags, .. }) => {
                flags & (SYN | ACK) == SYN && self.isn[0].is_some_and(|isn| isn == seq)
            }
            None => {
                let payload = frame.get(packet.payload_at..).unwrap_or(&[]);
                packet.len > 0 && !self.datagram.is_empty() && payload == self.datagram
            }
        };
        if !same || !from_node || self.locals.len() >= LOCAL_MAX {
            return None;
        }
        self.locals.push(ends);
        Some(true)
    }

    /// A frame at a port.
    pub(crate) fn frame(&mut self, now: u64, at: Place, direction: Direction, frame: &[u8]) {
        self.settle();
        self.last = None;
        let Some(line) = self.line(at.owner) else { return };
        let Some(packet) = packet::parse(frame) else {
            return;
        };
        let from_node = matches!(line, Line::Node(_)) && direction == Direction::Out;
        let Some(forth) = self.is_ours(&packet, frame, from_node) else {
            return;
        };
        let key = key(&packet);
        self.last = Some((at, frame.len() as u32, key));
        match direction {
            Direction::Out => {
                let again = self.again(&packet, line, forth);
                let hop = Hop {
                    sent_ns: now,
                    from: line,
                    to: self.macs.get(&packet.to_mac).copied(),
                    arrived_ns: None,
                    lost: None,
                    words: self.words(&packet, forth),
                    again,
                    copy: false,
                    forth,
                    left_out: 0,
                    key,
                };
                self.keep(hop);
            }
            Direction::In => self.arriving = Some((now, line, key)),
        }
    }

    /// A frame was lost, right after it was seen or nowhere near it.
    pub(crate) fn dropped(&mut self, at: Place, why: &'static str, len: u32) {
        let Some((place, seen, key)) = self.last.take() else {
            return;
        };
        if place != at || seen != len {
            return;
        }
        // A switch that does not know the receiver sends it to all.
        if FLOODED.contains(&why) {
            self.arriving = None;
            return;
        }
        self.settle();
        if let Some(hop) = self
            .kept()
            .rev()
            .take(UNDER_WAY_MAX)
            .find(|h| h.key == key && h.lost.is_none())
        {
            hop.lost = Some(why);
        }
    }

    /// All that are kept, in order.
    fn kept(&mut self) -> impl DoubleEndedIterator<Item = &mut Hop> {
        let (head, before) = (self.head.iter_mut(), self.before.iter_mut());
        head.chain(before)
            .chain(self.window.iter_mut())
            .chain(self.tail.iter_mut())
    }

    /// What was arriving has arrived.
    fn settle(&mut self) {
        if let Some((now, line, key)) = self.arriving.take() {
            self.arrived(now, line, key);
        }
    }

    fn arrived(&mut self, now: u64, line: Line, key: Key) {
        let late = self.kept().rev().take(UNDER_WAY_MAX);
        let under_way = late.filter(|h| h.key == key && h.from != line && h.lost.is_none());
        // Of those that are the same the one that was sent last: an earlier one was lost, or it would not have been sent again.
        let mut last: Option<&mut Hop> = None;
        let mut copied: Option<Hop> = None;
        for hop in under_way {
            if hop.arrived_ns.is_none() {
                if last.is_none() {
                    last = Some(hop);
                }
            } else if copied.is_none() {
                copied = Some(hop.clone());
            }
        }
        if let Some(hop) = last {
            hop.arrived_ns = Some(now);
            hop.to = Some(line);
        } else if let Some(mut hop) = copied.filter(|h| h.to == Some(line)) {
            hop.copy = true;
            hop.arrived_ns = Some(now);
            hop.left_out = 0;
            self.keep(hop);
        }
    }

    fn keep(&mut self, hop: Hop) {
        self.count += 1;
        if self.head.len() < HEAD_MAX && self.before.is_empty() && self.window.is_empty() {
            self.head.push(hop);
        } else if hop.sent_ns < self.chosen.from_ns {
            self.before.push_back(hop);
            if self.before.len() > BEFORE_MAX {
                self.before.pop_front();
                self.left_out[0] += 1;
            }
        } else if self.window.len() < WINDOW_MAX {
            self.window.push(hop);
        } else {
            self.tail.push_back(hop);
            if self.tail.len() > TAIL_MAX {
                self.tail.pop_front();
                self.left_out[1] += 1;
            }
        }
    }

    /// All that is kept, with how many were left out before each.
    pub(crate) fn finish(mut self) -> Vec<Hop> {
        self.settle();
        let mut hops = self.head;
        let mut add = |more: Vec<Hop>, left_out: u64| {
            let from = hops.len();
            hops.extend(more);
            if let Some(first) = hops.get_mut(from) {
                first.left_out = left_out;
            }
        };
        add(self.before.into_iter().collect(), self.left_out[0]);
        add(self.window, 0);
        add(self.tail.into_iter().collect(), self.left_out[1]);
        hops
    }

    /// Whether an end sends what it has sent before; what a node passes on is no news.
    fn again(&mut self, packet: &Packet, line: Line, forth: bool) -> bool {
        let Some(tcp) = packet.tcp.filter(|_| !matches!(line, Line::Node(_))) else {
            return false;
        };
        let end = usize::from(!forth);
        if tcp.flags & SYN != 0 && self.isn[end].is_none() {
            self.isn[end] = Some(tcp.seq);
            self.sent_to[end] = tcp.seq;
        }
        let takes = tcp.takes(packet.len);
        let (to, sent_to) = (tcp.seq.wrapping_add(takes), self.sent_to[end]);
        if takes == 0 {
            return false;
        }
        let is_new = to.wrapping_sub(sent_to) as i32 > 0;
        if is_new {
            self.sent_to[end] = to;
        }
        !is_new
    }

    fn words(&self, packet: &Packet, forth: bool) -> String {
        let Some(tcp) = packet.tcp else {
            return format!("UDP {} bytes", packet.len);
        };
        let mut words = tcp.flags();
        let (own, other) = (usize::from(!forth), usize::from(forth));
        if let Some(isn) = self.isn[own] {
            let seq = tcp.seq.wrapping_sub(isn);
            words += &match packet.len {
                0 => format!(" seq {seq}"),
                len => format!(" seq {seq}..{}", seq.wrapping_add(len)),
            };
        }
        if let Some(isn) = self.isn[other].filter(|_| tcp.flags & ACK != 0) {
            words += &format!(" ack {}", tcp.ack.wrapping_sub(isn));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_io_sim::{HostId, LbId};

    const FROM: u64 = 1_000;

    fn hops() -> Hops {
        let chosen = Chosen {
            client: "10.0.0.1:1000".parse().expect("good"),
            target: "10.0.0.9:80".parse().expect("good"),
            host: 0,
            from_ns: FROM,
        };
        let macs = [
            ([1; 6], Line::Client),
            ([2; 6], Line::Node(0)),
            ([3; 6], Line::Server),
        ];
        Hops::new(chosen, macs.into())
    }

    fn place(line: Line) -> Place {
        let owner = match line {
            Line::Client => Owner::Host(HostId(0)),
            Line::Node(n) => Owner::Lb(LbId(n)),
            Line::Server => Owner::Host(HostId(5)),
        };
        Place { owner, port: 0 }
    }

    /// A TCP segment over IPv4 without checksums.
    fn segment(to: u8, ends: [(u8, u16); 2], seq: u32, ack: u32, flags: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![to; 6];
        frame.extend([9; 6]);
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((40 + len as u16).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        for (addr, _) in ends {
            frame.extend([10, 0, 0, addr]);
        }
        for (_, port) in ends {
            frame.extend(port.to_be_bytes());
        }
        frame.extend(seq.to_be_bytes());
        frame.extend(ack.to_be_bytes());
        frame.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
        frame.extend(vec![7; len]);
        frame
    }

    const CLIENT: (u8, u16) = (1, 1000);
    const VIP: (u8, u16) = (9, 80);
    const LOCAL: (u8, u16) = (2, 4000);
    const SERVER: (u8, u16) = (3, 8000);

    #[test]
    fn a_packet_is_followed_through_the_node_and_a_retransmission_is_seen() {
        let mut hops = hops();
        let (c, n, s) = (place(Line::Client), place(Line::Node(0)), place(Line::Server));
        let syn = segment(2, [CLIENT, VIP], 100, 0, SYN, 0);
        hops.frame(1, c, Direction::Out, &syn);
        // The switch does not know yet where the node is.
        hops.frame(2, place(Line::Node(1)), Direction::In, &syn);
        hops.dropped(place(Line::Node(1)), "nic-filtered", syn.len() as u32);
        hops.frame(2, n, Direction::In, &syn);
        // Another connection's SYN, and this one's.
        hops.frame(3, n, Direction::Out, &segment(3, [LOCAL, SERVER], 77, 0, SYN, 0));
        let onward = segment(3, [LOCAL, SERVER], 100, 0, SYN, 0);
        hops.frame(3, n, Direction::Out, &onward);
        hops.frame(4, s, Direction::In, &onward);
        hops.frame(
            5,
            s,
            Direction::Out,
            &segment(2, [SERVER, LOCAL], 500, 101, SYN | ACK, 0),
        );
        let data = segment(2, [CLIENT, VIP], 101, 501, ACK, 10);
        hops.frame(6, c, Direction::Out, &data);
        hops.dropped(c, "link-cut", data.len() as u32);
        hops.frame(7, c, Direction::Out, &data);
        hops.frame(8, n, Direction::In, &data);
        // The network made a copy.
        hops.frame(9, n, Direction::In, &data);
        let told: Vec<_> = hops.finish();
        let told: Vec<_> = told
            .iter()
            .map(|h| {
                (
                    h.from,
                    h.to,
                    h.arrived_ns,
                    h.lost,
                    h.again,
                    h.copy,
                    h.words.as_str(),
                )
            })
            .collect();
        let (client, node, server) = (Line::Client, Some(Line::Node(0)), Some(Line::Server));
        assert_eq!(
            told,
            [
                (client, node, Some(2), None, false, false, "SYN seq 0"),
                (Line::Node(0), server, Some(4), None, false, false, "SYN seq 0"),
                (
                    Line::Server,
                    node,
                    None,
                    None,
                    false,
                    false,
                    "SYN ACK seq 0 ack 1"
                ),
                (
                    client,
                    node,
                    None,
                    Some("link-cut"),
                    false,
                    false,
                    "ACK seq 1..11 ack 1"
                ),
                (client, node, Some(8), None, true, false, "ACK seq 1..11 ack 1"),
                (client, node, Some(9), None, true, true, "ACK seq 1..11 ack 1"),
            ]
        );
    }

    #[test]
    fn what_is_kept_of_a_long_connection_has_a_bound_and_says_what_is_not() {
        let mut hops = hops();
        for n in 0..1_000u32 {
            let data = segment(2, [CLIENT, VIP], n, 1, ACK, 1);
            hops.frame(u64::from(n) * 2, place(Line::Client), Direction::Out, &data);
        }
        assert_eq!(hops.count, 1_000);
        let told = hops.finish();
        assert_eq!(told.len(), HEAD_MAX + BEFORE_MAX + WINDOW_MAX + TAIL_MAX);
        let left_out: u64 = told.iter().map(|h| h.left_out).sum();
        assert_eq!(left_out as usize + told.len(), 1_000);
        assert!(told.windows(2).all(|w| w[0].sent_ns < w[1].sent_ns));
        assert_eq!(told[HEAD_MAX + BEFORE_MAX].sent_ns, FROM, "the window is whole");
    }
}
