//! What is kept of a flow: 128 bytes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A time that does not come.
pub(super) const NEVER: u64 = u64::MAX;

/// Where a connection stands (RFC 9293 section 3.3.2), and how it leaves there:
///
/// ```text
///  client: SynSent --SYN-ACK--> Established --close--> FinWait1 --ack--> FinWait2 --FIN--> TimeWait --60 s--> Closed
///                                                          `----FIN----> Closing --ack------^
///  server: SynReceived --ack--> Established --FIN--> CloseWait --close--> LastAck --ack--> Closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

impl State {
    /// Both ends know each other's sequence numbers.
    pub(super) const fn is_synchronized(self) -> bool {
        !matches!(self, State::SynSent | State::SynReceived | State::Closed)
    }
}

/// Bits of [`Flow::flags`].
pub(super) mod flag {
    /// This end has opened the connection.
    pub(in super::super) const CLIENT: u16 = 1;
    /// Nothing more is said: behind the last byte is a FIN.
    pub(in super::super) const CLOSING: u16 = 1 << 1;
    /// The peer's FIN has come, and all before it.
    pub(in super::super) const FIN_SEEN: u16 = 1 << 2;
    /// The time until the byte before `mark` is acknowledged is measured.
    pub(in super::super) const TIMED: u16 = 1 << 3;
    /// Something was lost: what is before `mark` is sent again as need be.
    pub(in super::super) const RECOVERS: u16 = 1 << 4;
    /// The timer is that of a tail loss probe (RFC 8985 section 7).
    pub(in super::super) const PROBES: u16 = 1 << 5;
    /// The probe was sent, and not all is acknowledged since.
    pub(in super::super) const PROBED: u16 = 1 << 6;
    /// An acknowledgement is due.
    pub(in super::super) const OWES_ACK: u16 = 1 << 7;
    /// The peer never answered: it was given up, by this end's own timers.
    pub(in super::super) const TIMED_OUT: u16 = 1 << 8;
    /// What came is not what the peer's side of the flow says.
    pub(in super::super) const WRONG: u16 = 1 << 9;
    /// The client is gone without a word: it neither sends nor hears.
    pub(in super::super) const VANISHED: u16 = 1 << 10;
    /// The SYN was sent more than once: there is no sample of the round trip (RFC 6298 section 5.7).
    pub(in super::super) const SYN_AGAIN: u16 = 1 << 11;
    /// Something moved since the client looked.
    pub(in super::super) const MOVED: u16 = 1 << 12;
}

/// One end of a connection. Streams have no buffers: what stands at a position is known. All times are nanoseconds, or
/// microseconds where there are 32 bits of them; those wrap, and only differences below an hour are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// As IPv6 (RFC 4291 section 2.5.5.2).
    pub(super) remote: [u8; 16],
    /// The peer has everything before this position of our stream; one more than its length: our FIN, too.
    pub(super) una: u64,
    /// We have everything before this position of the peer's stream.
    pub(super) received: u64,
    /// The event that is planned for this flow.
    pub(super) planned: u64,
    /// The timer of the connection: retransmission, tail loss probe, zero window, or the end of TIME-WAIT.
    pub(super) timer_at: u64,
    /// A client: when its next request is due. A server: its number.
    pub(super) app: u64,
    /// A client that waits for something: when anything last moved. Otherwise: when the peer was last heard.
    pub(super) quiet_from: u64,
    /// The number of the flow; a server reads it in the client's head.
    pub(super) flow: u32,
    /// Our initial sequence number, of the SYN; position 0 has the next one.
    pub(super) iss: u32,
    /// The peer's.
    pub(super) irs: u32,
    /// Next position to send, counted from `una`.
    pub(super) next: u32,
    /// First position that was never sent, counted from `una`.
    pub(super) max: u32,
    /// One run of bytes that came early, counted from `received`: where it begins.
    pub(super) early_at: u32,
    /// Its length; 0: there is none.
    pub(super) early_len: u32,
    /// Smoothed round trip in eighths of a microsecond; 0: not measured yet.
    pub(super) srtt: u32,
    /// Its mean deviation in quarters of a microsecond.
    pub(super) deviation: u32,
    /// See `flag::TIMED` and `flag::RECOVERS`: the low bits of a position.
    pub(super) mark: u32,
    /// When what is timed was sent, in microseconds.
    pub(super) sent_at: u32,
    /// When the timer first ran out without an answer, in microseconds.
    pub(super) first_retry_at: u32,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
    /// Bytes beyond `una` that the peer has room for.
    pub(super) window: u16,
    /// Bytes in a segment at most.
    pub(super) mss: u16,
    pub(super) flags: u16,
    /// Index of the host's address.
    pub(super) local: u8,
    pub(super) state: State,
    /// Times in a row that the timer ran out.
    pub(super) retries: u8,
    /// The timeout is doubled so often.
    pub(super) backoff: u8,
    /// Acknowledgements in a row that say nothing new.
    pub(super) duplicates: u8,
    /// Keepalive probes without an answer.
    pub(super) probes: u8,
}

/// What the tier promises.
const _: () = assert!(size_of::<Flow>() <= 128);

impl Flow {
    pub(super) fn new(
        state: State,
        local: u8,
        local_port: u16,
        remote: SocketAddr,
        iss: u32,
        now: u64,
    ) -> Self {
        Flow {
            remote: bits(remote.ip()),
            una: 0,
            received: 0,
            planned: NEVER,
            timer_at: NEVER,
            app: NEVER,
            quiet_from: now,
            flow: u32::MAX,
            iss,
            irs: 0,
            next: 0,
            max: 0,
            early_at: 0,
            early_len: 0,
            srtt: 0,
            deviation: 0,
            mark: 0,
            sent_at: 0,
            first_retry_at: 0,
            local_port,
            remote_port: remote.port(),
            window: 0,
            mss: 536,
            flags: 0,
            local,
            state,
            retries: 0,
            backoff: 0,
            duplicates: 0,
            probes: 0,
        }
    }

    pub(super) const fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(super) const fn set(&mut self, flag: u16) {
        self.flags |= flag;
    }

    pub(super) const fn clear(&mut self, flag: u16) {
        self.flags &= !flag;
    }

    /// The peer's end.
    pub(super) fn remote(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.remote).to_canonical(), self.remote_port)
    }

    /// The sequence number of a position of our stream.
    pub(super) const fn seq(&self, position: u64) -> u32 {
        self.iss.wrapping_add(1).wrapping_add(position as u32)
    }

    /// The sequence number that we expect next.
    pub(super) const fn expected(&self) -> u32 {
        let fin = self.is(flag::FIN_SEEN) as u32;
        self.irs
            .wrapping_add(1)
            .wrapping_add(self.received as u32)
            .wrapping_add(fin)
    }
}

/// An address as 16 bytes.
pub(super) fn bits(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}
