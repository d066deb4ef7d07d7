//! An echo request of ICMP or ICMPv6, and its reply.
//!
//! Linux has two kinds of sockets for it. Ping sockets need no capability, but the group of the process must be in
//! the sysctl `net.ipv4.ping_group_range` (of both families). Raw ones need CAP_NET_RAW; they hear of every ICMP
//! message that comes from the address asked.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use evenkeel_core::tuple::Family;
use evenkeel_core::wire::{Icmpv4Repr, Icmpv4View, Icmpv6Repr, Icmpv6View, Ipv4View};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::check::Outcome;

/// Bytes before the token in what comes back.
const MARK: [u8; 8] = *b"evenkeel";
const DATA_LEN: usize = MARK.len() + 8;
const MESSAGE_LEN: usize = 8 + DATA_LEN;
/// Longest message looked at: ours, with an IPv4 header and options before it, and longer ones of others.
const READ_LEN_MAX: usize = 512;

/// Why servers cannot be checked by ICMP here.
#[derive(Debug)]
pub struct IcmpError {
    /// Of the servers' addresses.
    pub family: Family,
    /// What the kernel said.
    pub error: io::Error,
}

impl fmt::Display for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IcmpError { family, error } = self;
        write!(f, "no {family} server can be checked by ICMP here: {error}")?;
        if error.kind() == io::ErrorKind::PermissionDenied {
            f.write_str(
                "; give the process the capability CAP_NET_RAW, or its group a place in the sysctl \
                 net.ipv4.ping_group_range",
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for IcmpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Whether servers of this family can be checked at all.
pub(super) fn probe(family: Family) -> Result<(), IcmpError> {
    open(family)
        .map(drop)
        .map_err(|error| IcmpError { family, error })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The kernel writes the identifier, and hands over replies to it only, from the ICMP header on.
    Ping,
    /// With IPv4 the IP header comes, too.
    Raw,
}

fn open(family: Family) -> io::Result<(Socket, Kind)> {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let (socket, kind) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => (socket, Kind::Ping),
        Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, Kind::Raw),
    };
    socket.set_nonblocking(true)?;
    Ok((socket, kind))
}

/// Sends a request to `to` and awaits its reply.
pub(super) async fn check(to: IpAddr, token: u64) -> Outcome {
    let (socket, kind) = match open(Family::of(&to)) {
        Ok(opened) => opened,
        Err(error) => return Outcome::not_made(error),
    };
    if let Err(error) = socket.connect(&SocketAddr::new(to, 0).into()) {
        return Outcome::failure(&error);
    }
    // Sending to and receiving from a connected socket are the same calls for ICMP as for UDP.
    let socket = match UdpSocket::from_std(socket.into()) {
        Ok(socket) => socket,
        Err(error) => return Outcome::not_made(error),
    };
    if let Err(error) = socket.send(&request(to, token)).await {
        return Outcome::failure(&error);
    }
    let mut buffer = [0; READ_LEN_MAX];
    // What else comes costs the time that the check has, and nothing more.
    loop {
        match socket.recv(&mut buffer).await {
            Ok(n) if is_reply(buffer.get(..n).unwrap_or(&buffer), to, kind, token) => {
                return Outcome::Success("echo reply".into());
            }
            Ok(_) => {}
            Err(error) => return Outcome::failure(&error),
        }
    }
}

fn data(token: u64) -> [u8; DATA_LEN] {
    let mut data = [0; DATA_LEN];
    let (mark, rest) = data.split_at_mut(MARK.len());
    mark.copy_from_slice(&MARK);
    rest.copy_from_slice(&token.to_be_bytes());
    data
}

/// Identifier and sequence number. Requests of one host that are under way at a time differ in the data, at least.
fn numbers(token: u64) -> (u16, u16) {
    ((token >> 16) as u16, token as u16)
}

fn request(to: IpAddr, token: u64) -> [u8; MESSAGE_LEN] {
    let mut message = [0; MESSAGE_LEN];
    let (ident, seq) = numbers(token);
    let data = &data(token);
    match to {
        IpAddr::V4(_) => {
            Icmpv4Repr::EchoRequest { ident, seq, data }.emit(&mut Icmpv4View::new_unchecked(&mut message))
        }
        // The kernel writes the checksum of ICMPv6 (RFC 3542, 3.1): it knows the source.
        IpAddr::V6(_) => {
            Icmpv6Repr::EchoRequest { ident, seq, data }.emit(&mut Icmpv6View::new_unchecked(&mut message))
        }
    }
    message
}

/// Whether what was read is the reply to the request with `token`.
fn is_reply(read: &[u8], to: IpAddr, kind: Kind, token: u64) -> bool {
    let (ident, seq) = numbers(token);
    let ours = |i: u16, s: u16, d: &[u8]| (kind == Kind::Ping || i == ident) && s == seq && d == data(token);
    match to {
        IpAddr::V4(_) => {
            let message = match kind {
                Kind::Ping => Some(read),
                Kind::Raw => {
                    let header_len = Ipv4View::new_checked(read).ok().map(|p| p.header_len());
                    header_len.and_then(|n| read.get(n..))
                }
            };
            let view = message.and_then(|m| Icmpv4View::new_checked(m).ok());
            let reply = view.as_ref().and_then(|v| Icmpv4Repr::parse(v).ok());
            matches!(reply, Some(Icmpv4Repr::EchoReply { ident, seq, data }) if ours(ident, seq, data))
        }
        IpAddr::V6(_) => {
            let view = Icmpv6View::new_checked(read).ok();
            let reply = view.as_ref().and_then(|v| Icmpv6Repr::parse(v).ok());
            matches!(reply, Some(Icmpv6Repr::EchoReply { ident, seq, data }) if ours(ident, seq, data))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
    const TOKEN: u64 = 0x0123_4567_89ab_cdef;

    /// The reply to `request`: the type alone differs, and the checksum, which nobody reads twice.
    fn reply(to: IpAddr, kind: Kind, token: u64) -> Vec<u8> {
        let mut message = request(to, token).to_vec();
        message[0] = if to.is_ipv4() { 0 } else { 129 };
        if to.is_ipv4() && kind == Kind::Raw {
            let mut packet = vec![
                0x46, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1, 1, 1, 1, 1,
            ];
            let len = packet.len() + message.len();
            packet[3] = len as u8;
            packet.append(&mut message);
            return packet;
        }
        message
    }

    fn cases() -> impl Iterator<Item = (IpAddr, Kind)> {
        [V4, V6]
            .into_iter()
            .flat_map(|to| [(to, Kind::Ping), (to, Kind::Raw)])
    }

    #[test]
    fn icmp_takes_its_own_reply_and_no_other() {
        for (to, kind) in cases() {
            assert!(
                is_reply(&reply(to, kind, TOKEN), to, kind, TOKEN),
                "{to} {kind:?}"
            );
            assert!(
                !is_reply(&request(to, TOKEN), to, kind, TOKEN),
                "a request, which loopback shows"
            );
            for other in [TOKEN + 1, TOKEN ^ (1 << 63), TOKEN ^ (1 << 20)] {
                assert!(
                    !is_reply(&reply(to, kind, other), to, kind, TOKEN),
                    "{to} {kind:?} {other:x}"
                );
            }
            let whole = reply(to, kind, TOKEN);
            for n in 0..whole.len() {
                assert!(
                    !is_reply(&whole[..n], to, kind, TOKEN),
                    "{to} {kind:?}: cut at {n}"
                );
            }
        }
        // A ping socket has an identifier of the kernel's.
        let mut whole = reply(V4, Kind::Ping, TOKEN);
        whole[4] ^= 1;
        assert!(is_reply(&whole, V4, Kind::Ping, TOKEN));
        assert!(!is_reply(&whole, V6, Kind::Ping, TOKEN));
    }

    #[test]
    fn icmp_requests_are_byte_exact() {
        let bytes = request(V4, 0x1111_0002);
        assert_eq!(bytes[..2], [8, 0]);
        assert_eq!(bytes[4..8], [0x11, 0x11, 0, 2]);
        assert_eq!(&bytes[8..], b"evenkeel\0\0\0\0\x11\x11\0\x02");
        assert!(
            Icmpv4View::new_checked(&bytes)
                .expect("a message")
                .verify_checksum()
        );
        assert_eq!(request(V6, 0x1111_0002)[..2], [128, 0]);
    }

    #[test]
    fn icmp_without_permission_names_the_remedy() {
        let error = |kind| {
            IcmpError {
                family: Family::V4,
                error: io::Error::from(kind),
            }
            .to_string()
        };
        let denied = error(io::ErrorKind::PermissionDenied);
        for word in ["IPv4", "ICMP", "CAP_NET_RAW", "net.ipv4.ping_group_range"] {
            assert!(denied.contains(word), "{denied}");
        }
        assert!(!error(io::ErrorKind::Unsupported).contains("CAP_NET_RAW"));
    }

    proptest! {
        #[test]
        fn icmp_reads_anything(read in proptest::collection::vec(any::<u8>(), 0..100)) {
            for (to, kind) in cases() {
                prop_assert!(!is_reply(&read, to, kind, TOKEN));
            }
        }
    }
}
