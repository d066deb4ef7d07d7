//! `outbound-unique`, at every frame: tables are looked at now and then, and two sessions may share a tuple between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use evenkeel_core::tuple::L4Proto;

use super::{Ends, Found};

const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A TCP connection between a node and a server, as its frames show it.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Sequence number of the node's SYN: a SYN that is sent again has the same one.
    isn: u32,
    /// The server has answered it.
    answered: bool,
    /// Who has sent a FIN: the node, the server.
    fins: [bool; 2],
    reset: bool,
}

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Server,
    Node,
    /// A node that found nobody to join, and serves without: it cannot know what others, whom it does not hear, keep of an
    /// earlier life of its.
    Cold,
}

/// Whether a connection's tuple is opened anew while it is open: by a SYN of a node with another sequence number.
#[derive(Debug, Default)]
pub(crate) struct Reuse {
    open: BTreeMap<Ends, Seen>,
    /// Ends that a cold node opened last.
    pub(crate) cold: BTreeSet<Ends>,
    pub(crate) found: Found,
}

impl Reuse {
    /// What nobody has any more lives on at servers only: who gives its ends to others cannot know better.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(&Ends) -> bool) {
        self.open.retain(|ends, _| !is_gone(ends));
    }

    /// A frame between a node and a server; `by`: whose.
    pub(crate) fn frame(&mut self, at: Duration, name: &str, data: &[u8], by: By) {
        let by_server = by == By::Server;
        let Some((src, dst, flags, sequence)) = segment(data) else {
            // A datagram opens as well as it goes on: what a cold node has begun with these ends stays so.
            if by == By::Cold
                && let Some((src, dst, _)) = transport(data, L4Proto::Udp)
            {
                self.cold.insert((src, dst));
            }
            return;
        };
        if flags & (SYN | FIN | RST) == 0 {
            return;
        }
        let tuple = if by_server { (dst, src) } else { (src, dst) };
        if flags & (SYN | ACK) == SYN && !by_server {
            self.found.looked += 1;
            if by == By::Cold {
                self.cold.insert(tuple);
            } else {
                self.cold.remove(&tuple);
            }
            let seen = self.open.entry(tuple).or_default();
            let is_over = seen.reset || seen.fins == [true; 2];
            if seen.answered && !is_over && seen.isn != sequence && by != By::Cold {
                self.found.add(at, || {
                    format!(
                        "{name} opens {} > {} anew, and the connection there is not over",
                        tuple.0, tuple.1
                    )
                });
            }
            if seen.isn != sequence || is_over {
                *seen = Seen {
                    isn: sequence,
                    ..Seen::default()
                };
            }
        } else if let Some(seen) = self.open.get_mut(&tuple) {
            seen.answered |= by_server && flags & SYN != 0;
            seen.fins[usize::from(by_server)] |= flags & FIN != 0;
            seen.reset |= flags & RST != 0;
        }
    }
}

/// Ends and what follows them of a packet of this protocol without IP options or extensions, as hosts send them.
fn transport(data: &[u8], proto: L4Proto) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let is_it = |number: Option<&u8>| number == Some(&proto.ip_proto());
    let (src, dst, rest): (IpAddr, IpAddr, &[u8]) = match data.get(12..14)? {
        [0x08, 0x00] if is_it(data.get(23)) => {
            let addr = |at: usize| Some(Ipv4Addr::from(*data.get(at..)?.first_chunk::<4>()?));
            (addr(26)?.into(), addr(30)?.into(), data.get(34..)?)
        }
        [0x86, 0xdd] if is_it(data.get(20)) => {
            let addr = |at: usize| Some(Ipv6Addr::from(*data.get(at..)?.first_chunk::<16>()?));
            (addr(22)?.into(), addr(38)?.into(), data.get(54..)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?));
    Some((
        SocketAddr::new(src, port(0)?),
        SocketAddr::new(dst, port(2)?),
        rest,
    ))
}

/// Ends, flags and sequence number of a TCP segment.
pub(crate) fn segment(data: &[u8]) -> Option<(SocketAddr, SocketAddr, u8, u32)> {
    let (src, dst, tcp) = transport(data, L4Proto::Tcp)?;
    let sequence = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
    Some((src, dst, *tcp.get(13)?, sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between 198.18.1.1:5000, a node's end, and 198.18.0.10:8000.
    fn frame(by: By, flags: u8, sequence: u32) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12] = 0x08;
        frame[23] = 6;
        let mut ends = [([198, 18, 1, 1], 5_000u16), ([198, 18, 0, 10], 8_000)];
        if by == By::Server {
            ends.reverse();
        }
        for (i, (addr, port)) in ends.into_iter().enumerate() {
            frame[26 + 4 * i..30 + 4 * i].copy_from_slice(&addr);
            frame[34 + 2 * i..36 + 2 * i].copy_from_slice(&port.to_be_bytes());
        }
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        frame[47] = flags;
        frame
    }

    #[test]
    fn datagrams_of_cold_nodes_open_too() {
        for (by, expected) in [(By::Cold, 1), (By::Node, 0), (By::Server, 0)] {
            let mut oracle = Reuse::default();
            let mut datagram = frame(by, 0, 0);
            datagram[23] = 17;
            oracle.frame(Duration::ZERO, "node1", &datagram, by);
            assert_eq!(oracle.cold.len(), expected, "{by:?}");
        }
    }

    #[test]
    fn oracle_outbound_unique_fires_on_a_tuple_that_is_opened_anew_too_early() {
        use By::{Cold, Node as NODE, Server as SERVER};
        let opened = [(NODE, SYN, 7), (SERVER, SYN | ACK, 9), (NODE, SYN, 7)];
        let fires = |between: &[(By, u8, u32)]| {
            let mut oracle = Reuse::default();
            for &(by, flags, sequence) in opened.iter().chain(between).chain(&[(NODE, SYN, 8)]) {
                oracle.frame(Duration::from_millis(5), "node1", &frame(by, flags, sequence), by);
            }
            assert_eq!(oracle.found.looked, 3);
            oracle.found.count
        };
        assert_eq!(fires(&[]), 1, "it is open");
        assert_eq!(fires(&[(NODE, FIN | ACK, 20)]), 1, "half closed");
        assert_eq!(fires(&[(SERVER, FIN | ACK, 20), (NODE, ACK, 20)]), 1);
        assert_eq!(fires(&[(NODE, FIN | ACK, 20), (SERVER, FIN | ACK, 20)]), 0);
        assert_eq!(fires(&[(SERVER, RST, 20)]), 0);
        let mut oracle = Reuse::default();
        for (isn, dies) in [(7, true), (8, false), (9, false)] {
            oracle.frame(Duration::ZERO, "node1", &frame(NODE, SYN, isn), NODE);
            oracle.frame(Duration::ZERO, "server", &frame(SERVER, SYN | ACK, 1), SERVER);
            oracle.forget(|_| dies);
        }
        assert_eq!(
            oracle.found.count, 1,
            "the first one died with its node, the second one did not"
        );
        for (answered, by, expected) in [(false, NODE, 0), (true, Cold, 0), (true, NODE, 1)] {
            let mut oracle = Reuse::default();
            oracle.frame(Duration::ZERO, "node1", &frame(NODE, SYN, 7), NODE);
            if answered {
                oracle.frame(Duration::ZERO, "server", &frame(SERVER, SYN | ACK, 1), SERVER);
            }
            oracle.frame(Duration::ZERO, "node1", &frame(NODE, SYN, 8), by);
            assert_eq!(oracle.found.count, expected, "answered {answered}, {by:?}");
        }
    }
}
