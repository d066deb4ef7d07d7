//! What a host is, and what it counts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evenkeel_core::tuple::{Family, L4Proto};
use evenkeel_core::wire::MacAddr;

use super::{app, udp};
use crate::flow::FlowSpec;
use crate::world::WorldError;

/// A host with one port.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// For captures and messages.
    pub name: String,
    /// Its link-layer address.
    pub mac: MacAddr,
    /// Its addresses with the lengths of their prefixes; all that is in one of these is on its link.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Where everything else goes, one a family.
    pub gateways: Vec<IpAddr>,
    /// Largest IP packet.
    pub mtu: u16,
    /// Neighbours that it remembers at most.
    pub neighbour_count_max: usize,
    /// Packets that wait for one neighbour at most.
    pub neighbour_queue_max: usize,
    /// How long a neighbour is taken for granted; it is asked for again (and used meanwhile) after that.
    pub neighbour_lifetime: Duration,
    /// Connections that it has at a time, at most.
    pub conn_count_max: usize,
    /// Bytes of a connection's send buffer; its receive buffer has twice as many. Best the same on all hosts.
    pub tcp_buffer: usize,
}

impl HostSpec {
    /// With the sizes that most scenarios use.
    pub fn new(name: impl Into<String>, mac: MacAddr, addresses: Vec<(IpAddr, u8)>) -> Self {
        HostSpec {
            name: name.into(),
            mac,
            addresses,
            gateways: Vec::new(),
            mtu: 1500,
            neighbour_count_max: 1024,
            neighbour_queue_max: 4096,
            neighbour_lifetime: Duration::from_secs(60),
            conn_count_max: 65_536,
            tcp_buffer: 2048,
        }
    }
}

/// A server on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// Its number, which it tells in its greeting and in every reply.
    pub number: u32,
    /// TCP or UDP.
    pub proto: L4Proto,
    /// An address of the host's, and the port.
    pub addr: SocketAddr,
}

/// What a host counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Frames received.
    pub received: u64,
    /// Of these: taken, whatever it made of them.
    pub taken: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames for others (flooded), and packets for addresses that are not its own.
    pub not_mine: u64,
    /// Packets that are cut or of no known protocol.
    pub malformed: u64,
    /// Packets with a wrong checksum.
    pub bad_checksum: u64,
    /// Packets lost as their neighbour did not answer, or there was no room to wait.
    pub no_neighbour: u64,
    /// Connections refused as there were too many.
    pub conns_full: u64,
    /// Segments for which there is no connection.
    pub no_conn: u64,
    /// Datagrams that nobody waits for, or that say other than their flow.
    pub bad_datagrams: u64,
    /// Neighbours that moved to another link-layer address.
    pub neighbours_moved: u64,
    /// Connections at a time, at most.
    pub conns_peak: usize,
}

/// Refuses a flow whose lengths are out of their bounds.
pub(crate) fn check_flow(spec: &FlowSpec) -> Result<(), WorldError> {
    let why = if Family::of(&spec.source.ip()) != Family::of(&spec.target.ip()) {
        "its ends are of different families"
    } else if spec.target.port() == 0 {
        "its port is 0"
    } else if spec.proto == L4Proto::Tcp
        && !((1..=app::MESSAGE_LEN_MAX).contains(&spec.request_len)
            && (16..=app::MESSAGE_LEN_MAX).contains(&spec.reply_len))
    {
        "a request has 1 byte to 1 MiB, a reply 16 bytes to 1 MiB"
    } else if spec.proto == L4Proto::Udp
        && ![spec.request_len, spec.reply_len]
            .iter()
            .all(|len| (udp::DATAGRAM_LEN_MIN..=udp::DATAGRAM_LEN_MAX).contains(len))
    {
        "a datagram has 32 to 1,400 bytes"
    } else {
        return Ok(());
    };
    let target = spec.target;
    Err(WorldError::Flow { target, why })
}
