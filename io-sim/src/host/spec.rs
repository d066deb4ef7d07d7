//! What a host is, and what it counts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evenkeel_core::tuple::{Family, L4Proto};
use evenkeel_core::wire::MacAddr;

use super::{app, udp};
use crate::flow::FlowSpec;
use crate::world::WorldError;

/// Which TCP a host's connections have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// smoltcp's, which nobody of this project wrote: some 13 KB a connection.
    #[default]
    Smoltcp,
    /// The flyweight of this crate, with the timers of Linux: 128 bytes a connection.
    Flyweight,
    /// One in so many has smoltcp's, the others the flyweight; 0 and 1: all have smoltcp's.
    Sampled(u32),
}

/// When a flyweight asks a silent peer whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Since it was last heard (Linux: `tcp_keepalive_time`).
    pub time: Duration,
    /// Between two probes (`tcp_keepalive_intvl`).
    pub interval: Duration,
    /// Probes without an answer before the connection is given up (`tcp_keepalive_probes`).
    pub probes: u8,
}

/// The numbers of the flyweight, each named after what Linux calls it. They are those of Linux 6.5 and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpProfile {
    /// SYNs sent again, the distances doubled each time, after the linear ones (`tcp_syn_retries`).
    pub syn_retries: u8,
    /// SYNs sent again before that, at equal distances (`tcp_syn_linear_timeouts`; before Linux 6.5: 0).
    pub syn_linear: u8,
    /// SYN-ACKs sent again (`tcp_synack_retries`).
    pub synack_retries: u8,
    /// How long data is sent again, as the time that so many retransmissions take from the smallest timeout on
    /// (`tcp_retries2`).
    pub retries: u8,
    /// The same for a FIN, when both ends are done (`tcp_orphan_retries`).
    pub orphan_retries: u8,
    /// The timeout before the round trip was measured.
    pub timeout_initial: Duration,
    /// The smallest addition to the round trip (`tcp_rto_min_us`).
    pub timeout_min: Duration,
    /// The longest timeout (`tcp_rto_max_ms`).
    pub timeout_max: Duration,
    /// Timeouts are whole ticks of the kernel's timer (`CONFIG_HZ` of them a second; 4 ms at Debian's 250); not zero.
    pub tick: Duration,
    /// Whether the last segment is sent once more before the first timeout counts, as Linux does with peers that know
    /// selective acknowledgements (`tcp_early_retrans`).
    pub tail_loss_probe: bool,
    /// How long the end that closes first remembers.
    pub time_wait: Duration,
    /// `None`: never, which is Linux's way unless a program asks for it.
    pub keepalive: Option<Keepalive>,
}

impl Default for TcpProfile {
    fn default() -> Self {
        TcpProfile {
            syn_retries: 6,
            syn_linear: 4,
            synack_retries: 5,
            retries: 15,
            orphan_retries: 8,
            timeout_initial: Duration::from_secs(1),
            timeout_min: Duration::from_millis(200),
            timeout_max: Duration::from_secs(120),
            tick: Duration::from_millis(4),
            tail_loss_probe: true,
            time_wait: Duration::from_secs(60),
            keepalive: None,
        }
    }
}

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
    /// Bytes of the send buffer of smoltcp's connections; the receive buffer has twice as many. Best the same on all hosts.
    pub tcp_buffer: usize,
    /// Which TCP its connections have: as a client, and as a server.
    pub client_tier: Tier,
    /// See `client_tier`.
    pub server_tier: Tier,
    /// The numbers of the flyweight.
    pub tcp: TcpProfile,
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
            client_tier: Tier::default(),
            server_tier: Tier::default(),
            tcp: TcpProfile::default(),
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
