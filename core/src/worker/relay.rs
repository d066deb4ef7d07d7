//! What most packets need: to be looked at ahead, and to be forwarded on an established conn. Everything
//! else is left as it was found for the turns in `worker`, which know all cases.

use core::ops::Range;

use super::{Verdict, Worker, bits};
use crate::conn::{Candidates, Conn4, ConnRef, ConnTable};
use crate::plain::{self, Plain};
use crate::port::{BURST, Frame};
use crate::prefetch::prefetch_near;
use crate::proto::{ConnState, TcpEvent, TcpSide, Timeouts, tcp_transition};
use crate::service::RealServerId;
use crate::tuple::L4Proto;
use crate::xmit::Ways;

// An ACK leaves ESTABLISHED as it is, whoever sends it: such a conn is only prolonged.
const _: () = {
    let sides = [TcpSide::Inbound, TcpSide::Outbound, TcpSide::InboundOnly];
    let mut i = 0;
    while i < sides.len() {
        let next = tcp_transition(ConnState::Established, sides[i], TcpEvent::Ack);
        assert!(matches!(next, ConnState::Established));
        i += 1;
    }
};

// Which frames of a burst have no hint is kept in 32 bits.
const _: () = assert!(BURST <= 32);

/// What is known of a frame before its turn comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    /// Where its tuple is looked up, if it has one.
    pub(super) at: Candidates,
    /// A conn that it may belong to.
    pub(super) hint: Option<ConnRef>,
    /// The rest is of a plain packet.
    packet_len: u16,
    /// See [`proto_state`]; [`NOT_PLAIN`] of any other packet.
    proto_state: u16,
}

const _: () = assert!(size_of::<Ahead>() == 16);

impl Ahead {
    pub(super) const NONE: Ahead = Ahead {
        at: Candidates {
            first: 0,
            signature: 0,
        },
        hint: None,
        packet_len: 0,
        proto_state: NOT_PLAIN,
    };

    /// Whether it is of a plain packet.
    pub(super) fn is_plain(&self) -> bool {
        self.proto_state != NOT_PLAIN
    }
}

/// Protocol and state of a conn on which plain packets are only forwarded, as they stand in a `ConnMeta`.
const fn proto_state(proto: L4Proto) -> u16 {
    u16::from_ne_bytes([proto as u8, relay_state(proto) as u8])
}

/// Frames before whose turn the line of their conn, asked for long ago, is brought near.
pub(super) const SOON: usize = 3;

/// Neither a protocol nor a state of any conn, free places included.
const NOT_PLAIN: u16 = u16::MAX;

const fn relay_state(proto: L4Proto) -> ConnState {
    match proto {
        L4Proto::Tcp => ConnState::Established,
        L4Proto::Udp => ConnState::UdpNormal,
    }
}

/// The parts of a worker that forwarding reads and writes.
struct Relay<'a> {
    conns: &'a mut [Conn4],
    ways: &'a Ways,
    timeouts: &'a [Timeouts],
    /// Low bits of the tick.
    now: u32,
    sent: Sent,
}

/// What was sent, for the counters.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    bytes: u64,
    outbound: u64,
}

impl Worker {
    /// Looks at a burst ahead: parses all and asks for the lines of the index; looks all up and asks for the
    /// lines of their conns, those whose conn stands in its first bucket. Says by bits which do not. What is found is a
    /// hint: acting on an earlier frame may change the table.
    #[inline(never)]
    pub(super) fn look_ahead<F: Frame>(&mut self, frames: &[F]) -> u32 {
        let Worker {
            table,
            counters,
            ahead,
            staged,
            ..
        } = self;
        let count = frames.len().min(BURST);
        let (ahead, staged) = (&mut ahead[..count], &mut staged[..count]);
        // Only what leads to the lines of the index: the sooner they are asked for, the less they are waited for.
        for (frame, ahead) in frames.iter().zip(ahead.iter_mut()) {
            if let Some(hash) = plain::hash_ahead(frame.data(), table.hasher()) {
                ahead.at = table.candidates(hash);
                table.prefetch_first(ahead.at);
            }
        }
        // While they are on their way.
        counters.rx_packets += count as u64;
        let mut rx_bytes = 0;
        for (place, (frame, ahead)) in frames.iter().zip(ahead.iter_mut()).enumerate() {
            let len = frame.len();
            rx_bytes += len as u64;
            if let Some(packet) = Plain::read(frame.data(), len, frame.rx_checksum()) {
                ahead.proto_state = proto_state(packet.proto);
                ahead.packet_len = packet.packet_len;
            } else {
                ahead.proto_state = NOT_PLAIN;
                super::stage(table, frame, ahead, &mut staged[place]);
            }
        }
        counters.rx_bytes += rx_bytes;
        // What is not looked up has the candidates of an earlier burst, and a hint that nobody takes: cheaper
        // than to tell the two apart.
        let mut missed = 0;
        for ahead in ahead.iter_mut() {
            ahead.hint = table.hint_first(ahead.at);
            missed = missed << 1 | u32::from(ahead.hint.is_none());
        }
        // The first one's bit came first.
        missed.reverse_bits() >> (u32::BITS as usize - count.max(1))
    }

    /// Looks up in their second bucket those that missed in the first, and asks for the lines of their conns.
    pub(super) fn look_again(&self, missed: u32) -> [Option<ConnRef>; BURST] {
        let mut hints = [None; BURST];
        for place in bits(missed) {
            hints[place] = self.table.hint_second(self.ahead[place].at);
        }
        hints
    }

    /// Forwards the frames of a burst at `places`, up to the first that needs more than that, which is left as it
    /// is; says where it stands. Plain packets of `missed` without a hint are passed over. `verdicts` is as long as
    /// `burst`.
    #[inline(never)]
    pub(super) fn relay<F: Frame>(
        &mut self,
        burst: &mut [F],
        places: Range<usize>,
        missed: u32,
        verdicts: &mut [Verdict],
    ) -> usize {
        let frames = burst.get_mut(places.clone()).unwrap_or_default();
        let verdicts = verdicts.get_mut(places.clone()).unwrap_or_default();
        let ahead = self.ahead.get(places.clone()).unwrap_or_default();
        let mut relay = Relay::new(&mut self.table, &self.ways, &self.timeouts);
        let (mut passed, mut skipped) = (0, 0);
        for ((frame, ahead), verdict) in frames.iter_mut().zip(ahead).zip(verdicts) {
            if let Some(soon) = self.ahead.get(places.start + passed + SOON) {
                prefetch_near(relay.line(soon.hint));
            }
            match ahead.hint {
                Some(conn) if relay.forward(frame, ahead, conn, verdict).is_some() => {}
                None if ahead.is_plain() && missed >> (places.start + passed) & 1 != 0 => skipped += 1,
                _ => break,
            }
            passed += 1;
        }
        let sent = relay.sent;
        self.count_sent(passed - skipped, sent);
        places.start + passed
    }

    /// [`Worker::relay`] of the frame at `place` alone, by `hint`.
    #[inline(never)]
    pub(super) fn relay_late<F: Frame>(
        &mut self,
        burst: &mut [F],
        place: usize,
        hint: Option<ConnRef>,
        verdicts: &mut [Verdict],
    ) -> bool {
        let ahead = &mut self.ahead[place];
        ahead.hint = hint;
        let Some(conn) = hint else { return false };
        let mut relay = Relay::new(&mut self.table, &self.ways, &self.timeouts);
        let forwarded = relay.forward(&mut burst[place], ahead, conn, &mut verdicts[place]);
        let is_sent = forwarded.is_some();
        let sent = relay.sent;
        self.count_sent(usize::from(is_sent), sent);
        is_sent
    }

    fn count_sent(&mut self, packets: usize, sent: Sent) {
        self.counters.tx_packets += packets as u64;
        self.counters.tx_bytes += sent.bytes;
        self.counters.outbound_packets += sent.outbound;
        self.counters.inbound_packets += packets as u64 - sent.outbound;
    }
}

impl<'a> Relay<'a> {
    #[inline(always)]
    fn new(table: &'a mut ConnTable, ways: &'a Ways, timeouts: &'a [Timeouts]) -> Self {
        Relay {
            now: table.now() as u32,
            conns: table.v4.places_mut(),
            ways,
            timeouts,
            sent: Sent::default(),
        }
    }

    /// Where a conn between IPv4 ends is, for asking.
    #[inline(always)]
    fn line(&self, hint: Option<ConnRef>) -> *const Conn4 {
        self.conns.as_ptr().wrapping_add(ConnRef::place_of(hint) as usize)
    }

    /// Forwards one packet of an established conn and prolongs that. `None`: it is something else, and nothing
    /// was done.
    #[inline(always)]
    fn forward<F: Frame>(
        &mut self,
        frame: &mut F,
        ahead: &Ahead,
        conn: ConnRef,
        verdict: &mut Verdict,
    ) -> Option<()> {
        if conn.is_v6() {
            return None;
        }
        let c = self.conns.get_mut(conn.place() as usize)?;
        let (direction, other) = (conn.direction(), conn.direction().reversed() as usize);
        let len = plain::frame_len(ahead.packet_len);
        let is_padded = frame.len() > len;
        let head = frame.data_mut().first_chunk_mut()?;
        let addrs = u64::from_ne_bytes(c.addrs[direction as usize]);
        let ports = u32::from_ne_bytes(c.ports[direction as usize]);
        if addrs != plain::addrs(head) || ports != plain::ports(head) {
            return None;
        }
        if u16::from_ne_bytes([c.meta.proto, c.meta.state]) != ahead.proto_state || c.meta.ext != 0 {
            return None;
        }
        let timeout = self
            .timeouts
            .get(usize::from(c.meta.service))?
            .ms_by_number(c.meta.state);
        // Not up: that is when the tick of the deadline has come. Nor farther than the timeout: a reload may have
        // made that shorter.
        let left = c.meta.deadline.wrapping_sub(self.now);
        if left.wrapping_sub(1) >= timeout {
            return None;
        }
        let [d0, d1, d2, d3, ..] = c.addrs[other];
        let server = RealServerId(c.meta.server);
        let out = self.ways.find_v4(direction, server, [d0, d1, d2, d3])?;
        if plain::ttl(head) <= 1 || u32::from(ahead.packet_len) > out.mtu {
            return None;
        }
        *verdict = Verdict::Tx(out.port);
        // The wheel finds out when it looks.
        c.meta.deadline = self.now.wrapping_add(timeout);
        self.sent.outbound += direction as u64;
        self.sent.bytes += len as u64;
        let proto = if ahead.proto_state == proto_state(L4Proto::Tcp) {
            L4Proto::Tcp
        } else {
            L4Proto::Udp
        };
        // What the packets of the other direction carry, reversed.
        let change = plain::Change {
            addrs: [addrs, u64::from_ne_bytes(c.addrs[other]).rotate_left(32)],
            ports: [ports, u32::from_ne_bytes(c.ports[other]).rotate_left(16)],
            macs: &out.macs,
        };
        plain::rewrite(head, proto, change);
        if is_padded {
            frame.truncate(len);
        }
        Some(())
    }
}
