//! What an end says, by position: nothing is kept, neither to send it again nor to verify it.
//!
//! The streams are those of `app`, byte by byte, so that both tiers understand each other.

use crate::host::app::{CLIENT_HEAD, REPLY_HEAD, SERVER_HEAD};
use crate::host::pattern::{CLIENT_MAGIC, Pattern, SERVER_MAGIC, Way};
use crate::ids::FlowId;

/// What one end of a flow says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Talk {
    Client {
        flow: FlowId,
        request_len: u32,
        reply_len: u32,
        pattern: Pattern,
    },
    Server {
        number: u32,
        reply_len: u32,
        pattern: Pattern,
    },
}

impl Talk {
    pub(super) fn client(seed: u64, flow: FlowId, request_len: u32, reply_len: u32) -> Self {
        Talk::Client {
            flow,
            request_len,
            reply_len,
            pattern: Pattern::new(seed, flow.0, Way::ToServer),
        }
    }

    pub(super) fn server(seed: u64, flow: FlowId, number: u32, reply_len: u32) -> Self {
        Talk::Server {
            number,
            reply_len,
            pattern: Pattern::new(seed, flow.0, Way::ToClient),
        }
    }

    /// The head that is said at `at`, how far into it that is, and the head's length; or how many bytes of pattern
    /// follow.
    fn part(&self, at: u64) -> Part {
        let mut head = [0; CLIENT_HEAD as usize];
        match *self {
            Talk::Client {
                flow,
                request_len,
                reply_len,
                ..
            } if at < CLIENT_HEAD => {
                head[..8].copy_from_slice(&CLIENT_MAGIC.to_le_bytes());
                head[8..12].copy_from_slice(&flow.0.to_le_bytes());
                head[12..16].copy_from_slice(&request_len.to_le_bytes());
                head[16..20].copy_from_slice(&reply_len.to_le_bytes());
                Part::Head(head, at as usize, CLIENT_HEAD as usize)
            }
            Talk::Client { .. } => Part::Pattern(usize::MAX),
            Talk::Server { number, .. } if at < SERVER_HEAD => {
                head[..8].copy_from_slice(&SERVER_MAGIC.to_le_bytes());
                head[8..12].copy_from_slice(&number.to_le_bytes());
                Part::Head(head, at as usize, SERVER_HEAD as usize)
            }
            Talk::Server {
                number, reply_len, ..
            } => {
                let of_replies = at - SERVER_HEAD;
                let (count, within) = (
                    of_replies / u64::from(reply_len),
                    of_replies % u64::from(reply_len),
                );
                if within >= REPLY_HEAD {
                    return Part::Pattern((u64::from(reply_len) - within) as usize);
                }
                head[..4].copy_from_slice(&number.to_le_bytes());
                head[4..8].copy_from_slice(&(count as u32).to_le_bytes());
                Part::Head(head, within as usize, REPLY_HEAD as usize)
            }
        }
    }

    fn pattern(&self) -> Pattern {
        match self {
            Talk::Client { pattern, .. } | Talk::Server { pattern, .. } => *pattern,
        }
    }

    /// Appends `len` bytes from `at` on.
    pub(super) fn say(&self, mut at: u64, mut len: usize, out: &mut Vec<u8>) {
        while len > 0 {
            let n = match self.part(at) {
                Part::Head(head, from, to) => {
                    let n = len.min(to - from);
                    out.extend_from_slice(&head[from..from + n]);
                    n
                }
                Part::Pattern(run) => {
                    let n = len.min(run);
                    self.pattern().fill(at, n, out);
                    n
                }
            };
            at += n as u64;
            len -= n;
        }
    }

    /// Whether `data` is what is said at `at`.
    pub(super) fn is(&self, mut at: u64, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let (n, right) = match self.part(at) {
                Part::Head(head, from, to) => {
                    let n = data.len().min(to - from);
                    (n, head[from..from + n] == data[..n])
                }
                Part::Pattern(run) => {
                    let n = data.len().min(run);
                    (n, self.pattern().is(at, &data[..n]))
                }
            };
            if !right {
                return false;
            }
            at += n as u64;
            data = &data[n..];
        }
        true
    }
}

enum Part {
    Head([u8; CLIENT_HEAD as usize], usize, usize),
    Pattern(usize),
}

/// The number of the flow in a client's head.
pub(super) fn flow_of(head: &[u8]) -> Option<FlowId> {
    Some(FlowId(u32::from_le_bytes(*head.get(8..)?.first_chunk()?)))
}

/// The number of the server in its greeting.
pub(super) fn server_of(greeting: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*greeting.get(8..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_said_alike_and_counts() {
        let client = Talk::client(7, FlowId(3), 30, 20);
        let server = Talk::server(7, FlowId(3), 0x0203, 20);
        for talk in [client, server] {
            let mut all = Vec::new();
            talk.say(0, 120, &mut all);
            for at in 0..120 {
                for len in 0..=120 - at {
                    let mut some = Vec::new();
                    talk.say(at as u64, len, &mut some);
                    assert_eq!(some, all[at..at + len]);
                    assert!(talk.is(at as u64, &some));
                    if let Some(last) = some.last_mut() {
                        *last ^= 1;
                        assert!(!talk.is(at as u64, &some), "{at} {len}");
                    }
                }
            }
        }
        let mut head = Vec::new();
        client.say(0, 24, &mut head);
        assert_eq!(flow_of(&head), Some(FlowId(3)));
        let mut greeting = Vec::new();
        server.say(0, 16, &mut greeting);
        assert_eq!(
            (server_of(&greeting), server_of(&greeting[..11])),
            (Some(0x0203), None)
        );
    }
}
