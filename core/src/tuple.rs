//! Five-tuples and the protocols that have one.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// Transport protocols that the engine balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum L4Proto {
    /// TCP (RFC 9293), IP protocol 6.
    Tcp = 6,
    /// UDP (RFC 768), IP protocol 17.
    Udp = 17,
}

impl L4Proto {
    /// From the protocol field of IPv4 or the last next-header field of IPv6.
    pub const fn from_ip_proto(n: u8) -> Option<Self> {
        match n {
            6 => Some(L4Proto::Tcp),
            17 => Some(L4Proto::Udp),
            _ => None,
        }
    }

    /// The number in the IP header.
    pub const fn ip_proto(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for L4Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            L4Proto::Tcp => "tcp",
            L4Proto::Udp => "udp",
        })
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `addr`.
    pub const fn of(addr: &IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// A five-tuple as a packet carries it: from `src` to `dst`. Both ends are of one family; the tables
/// refuse a mixed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Transport protocol.
    pub proto: L4Proto,
    /// Sender.
    pub src: SocketAddr,
    /// Receiver.
    pub dst: SocketAddr,
}

impl Tuple {
    /// The tuple of a packet that answers this one.
    pub const fn reversed(self) -> Self {
        Tuple {
            proto: self.proto,
            src: self.dst,
            dst: self.src,
        }
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} > {}", self.proto, self.src, self.dst)
    }
}

/// Direction of a packet in its conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Client to real server.
    Inbound,
    /// Real server to client.
    Outbound,
}

impl Direction {
    /// The other one.
    #[inline]
    pub const fn reversed(self) -> Self {
        match self {
            Direction::Inbound => Direction::Outbound,
            Direction::Outbound => Direction::Inbound,
        }
    }
}
