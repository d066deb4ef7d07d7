//! Flows: what a client does with a connection, and what became of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evenkeel_core::time::Instant;
use evenkeel_core::tuple::L4Proto;

use crate::ids::HostId;

/// How a flow ends after its last reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowEnd {
    /// With FINs of both sides, the client's first.
    #[default]
    Close,
    /// With a RST of the client's.
    Reset,
    /// Not at all: it stays open, and silent.
    Stay,
    /// The client is gone without a word: it sends nothing more, and answers nothing.
    Vanish,
}

/// A flow to open. The client sends `requests` requests one after the other, each once the reply to the one
/// before it is there and `gap` has passed; the server answers each with `reply_len` bytes. All bytes are a function
/// of the flow and their position, and are verified at both ends.
#[derive(Clone, Debug)]
pub struct FlowSpec {
    /// What its gaps and its TCP are drawn under: with a key of its own a flow draws the same whatever other flows there
    /// are. `None`: its number.
    pub key: Option<u64>,
    /// Which of its client's ports it takes if that is free, and otherwise the next one that is: flows of different numbers
    /// have different ports until all have been used. `None`: the client's next free one.
    pub port_from: Option<u32>,
    /// Who opens it.
    pub client: HostId,
    /// From where; an address of the client's. Port 0: the client's next free one.
    pub source: SocketAddr,
    /// Where to: the VIP, or a server itself.
    pub target: SocketAddr,
    /// TCP or UDP. UDP has no greeting; a request that is not answered is sent again after `udp_retry`.
    pub proto: L4Proto,
    /// When; not before the world's now.
    pub start: Instant,
    /// Requests; `u32::MAX`: for ever.
    pub requests: u32,
    /// Bytes of each request, 1 at least (UDP: 32 to 1,400).
    pub request_len: u32,
    /// Bytes of each reply, 16 at least (UDP: 32 to 1,400).
    pub reply_len: u32,
    /// From a reply (or, before the first request, the greeting) to the next request.
    pub gap: Duration,
    /// Each gap is longer by a span from zero to this, drawn by flow and request.
    pub gap_jitter: Duration,
    /// No further request from this time on: the flow ends as after its last one.
    pub until: Option<Instant>,
    /// What comes then.
    pub end: FlowEnd,
    /// Time without any progress of the connection, while something is awaited, after which the client gives up.
    pub give_up: Duration,
    /// UDP: when a request is sent again.
    pub udp_retry: Duration,
}

impl FlowSpec {
    /// A TCP connection with one request and one reply of 100 bytes, that starts at once and is closed then.
    pub fn tcp(client: HostId, source: IpAddr, target: SocketAddr) -> Self {
        FlowSpec {
            key: None,
            port_from: None,
            client,
            source: SocketAddr::new(source, 0),
            target,
            proto: L4Proto::Tcp,
            start: Instant::ZERO,
            requests: 1,
            request_len: 100,
            reply_len: 100,
            gap: Duration::ZERO,
            gap_jitter: Duration::ZERO,
            until: None,
            end: FlowEnd::Close,
            give_up: Duration::from_secs(30),
            udp_retry: Duration::from_secs(1),
        }
    }
}

/// Where a flow stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowState {
    /// Its time has not come.
    #[default]
    Waiting,
    /// SYN sent.
    Opening,
    /// Connected (UDP: opened).
    Open,
    /// The client has sent its FIN.
    Closing,
    /// Over, as it should be.
    Closed,
    /// Over, as it should not.
    Broken,
}

/// Why a flow broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BrokenWhy {
    /// A RST came.
    Reset,
    /// No progress for the flow's `give_up`, or no answer for as long as its TCP tries.
    GaveUp,
    /// The client received a byte that is not the flow's.
    WrongBytesAtClient,
    /// The server received a byte that is not the flow's.
    WrongBytesAtServer,
    /// The server closed first.
    ClosedByServer,
    /// Another server answered (UDP; over TCP its bytes are wrong).
    OtherServer,
    /// The client had no free port or no room.
    NotOpened,
}

impl BrokenWhy {
    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            BrokenWhy::Reset => "reset",
            BrokenWhy::GaveUp => "gave-up",
            BrokenWhy::WrongBytesAtClient => "wrong-bytes-at-client",
            BrokenWhy::WrongBytesAtServer => "wrong-bytes-at-server",
            BrokenWhy::ClosedByServer => "closed-by-server",
            BrokenWhy::OtherServer => "other-server",
            BrokenWhy::NotOpened => "not-opened",
        }
    }
}

/// What became of a flow.
#[derive(Clone, Debug)]
pub struct FlowRecord {
    /// What was asked for; the source port is filled in when it is opened.
    pub spec: FlowSpec,
    /// Where it stands.
    pub state: FlowState,
    /// When its SYN (first datagram) was made.
    pub opened: Option<Instant>,
    /// When the client's TCP was connected (UDP: the first reply came).
    pub established: Option<Instant>,
    /// When it was over: closed or broken.
    pub ended: Option<Instant>,
    /// Why it broke.
    pub broken: Option<BrokenWhy>,
    /// The number of the server that answers, from its greeting.
    pub server: Option<u32>,
    /// Requests made.
    pub requested: u32,
    /// Requests whose reply is there, whole.
    pub replied: u32,
    /// Bytes that the client verified.
    pub client_bytes: u64,
    /// Bytes that the server verified.
    pub server_bytes: u64,
    /// The longest time between a request (or the SYN) and its whole reply (the greeting), so far.
    pub longest_stall: Duration,
    /// When the request (or SYN) of the longest stall was made.
    pub longest_stall_from: Instant,
    /// When the request that waits for its reply was made; `None`: nothing is awaited.
    pub awaiting_since: Option<Instant>,
    /// UDP: requests sent again.
    pub udp_retries: u64,
}

impl FlowRecord {
    pub(crate) fn new(spec: FlowSpec) -> Self {
        FlowRecord {
            spec,
            state: FlowState::Waiting,
            opened: None,
            established: None,
            ended: None,
            broken: None,
            server: None,
            requested: 0,
            replied: 0,
            client_bytes: 0,
            server_bytes: 0,
            longest_stall: Duration::ZERO,
            longest_stall_from: Instant::ZERO,
            awaiting_since: None,
            udp_retries: 0,
        }
    }

    /// The client's end; its port is 0 until the flow is opened, unless the spec names one.
    pub fn client(&self) -> SocketAddr {
        self.spec.source
    }

    /// Whether it was connected by `at` and not over before it.
    pub fn was_established_at(&self, at: Instant) -> bool {
        self.established.is_some_and(|t| t <= at) && self.ended.is_none_or(|t| t > at)
    }
}
