//! Protocol state machines: pure transition tables, and the timeouts of their states.

mod tcp;
mod timeouts;
mod udp;

pub use tcp::{TcpEvent, TcpSide, tcp_transition};
pub use timeouts::{TIMEOUT_MAX, Timeouts};
pub use udp::udp_transition;

/// State of a conn: those of LVS for TCP, and two for UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ConnState {
    /// TCP: no packet seen yet.
    #[default]
    None = 0,
    /// TCP: handshake complete.
    Established = 1,
    /// TCP: the real server opens.
    SynSent = 2,
    /// TCP: the client's SYN went through.
    SynRecv = 3,
    /// TCP: the real server closed its side first.
    FinWait = 4,
    /// TCP: both sides closed.
    TimeWait = 5,
    /// TCP: reset, or closed for good.
    Close = 6,
    /// TCP: the client closed its side first.
    CloseWait = 7,
    /// TCP: waiting for the last ACK.
    LastAck = 8,
    /// TCP: a real server that listens; kept for the table of LVS.
    Listen = 9,
    /// TCP: a SYN-ACK went back, its ACK is awaited.
    SynAck = 10,
    /// UDP: only the client has sent.
    UdpOneWay = 11,
    /// UDP: both have sent.
    UdpNormal = 12,
}

impl ConnState {
    /// States, TCP's first.
    pub const ALL: [ConnState; 13] = [
        ConnState::None,
        ConnState::Established,
        ConnState::SynSent,
        ConnState::SynRecv,
        ConnState::FinWait,
        ConnState::TimeWait,
        ConnState::Close,
        ConnState::CloseWait,
        ConnState::LastAck,
        ConnState::Listen,
        ConnState::SynAck,
        ConnState::UdpOneWay,
        ConnState::UdpNormal,
    ];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The state with this number.
    pub const fn from_u8(n: u8) -> Option<Self> {
        if (n as usize) < Self::COUNT {
            Some(Self::ALL[n as usize])
        } else {
            None
        }
    }

    /// The name that LVS shows.
    pub const fn name(self) -> &'static str {
        match self {
            ConnState::None => "NONE",
            ConnState::Established => "ESTABLISHED",
            ConnState::SynSent => "SYN_SENT",
            ConnState::SynRecv => "SYN_RECV",
            ConnState::FinWait => "FIN_WAIT",
            ConnState::TimeWait => "TIME_WAIT",
            ConnState::Close => "CLOSE",
            ConnState::CloseWait => "CLOSE_WAIT",
            ConnState::LastAck => "LAST_ACK",
            ConnState::Listen => "LISTEN",
            ConnState::SynAck => "SYNACK",
            ConnState::UdpOneWay => "UDP_ONE_WAY",
            ConnState::UdpNormal => "UDP_NORMAL",
        }
    }

    /// Both sides have closed, or one has reset: nothing but stragglers is to come.
    pub const fn is_closed(self) -> bool {
        matches!(self, ConnState::TimeWait | ConnState::Close)
    }
}
