//! What most packets need: to be looked at ahead, and to be forwarded on an established conn, or on one that is about to be
//! or was. Everything else is left as it was found for the turns in `worker`, which know all cases.

use core::hint::select_unpredictable;
use core::ops::Range;

use super::{Verdict, Worker, bits, check_tcp_flags, is_pure_syn, tcp_event};
use crate::conn::{Candidates, Conn4, ConnTable, Hint};
use crate::parse::{main_flags, tcp_flag};
use crate::plain::{self, Plain};
use crate::port::{BURST, Frame, PortId};
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

// Places of a burst are kept in 32 bits.
const _: () = assert!(BURST <= 32);

/// What is known of a frame before its turn comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    /// Where its tuple is looked up, if it has one.
    pub(super) at: Candidates,
    /// A conn that it may belong to.
    pub(super) hint: Hint,
    /// Of a packet with headers as most have them.
    packet_len: u16,
    /// Of a plain packet: see [`proto_state`]. Of others [`SEGMENT`] or [`UNREAD`].
    proto_state: u16,
}

const _: () = assert!(size_of::<Ahead>() == 16);

impl Ahead {
    pub(super) const NONE: Ahead = Ahead {
        at: Candidates {
            first: 0,
            signature: 0,
        },
        hint: Hint::NONE,
        packet_len: 0,
        proto_state: UNREAD,
    };

    /// Whether it is of a plain packet.
    pub(super) fn is_plain(&self) -> bool {
        self.proto_state < SEGMENT
    }

    /// Whether it is of a packet with headers as most have them.
    pub(super) fn is_read(&self) -> bool {
        self.proto_state != UNREAD
    }
}

/// Places of a burst in the order in which they are relayed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// Places that are written at once may be more than there are.
    places: [u8; BURST + 8],
    len: usize,
    /// By place, those whose conn does not stand in its first bucket.
    missed: u32,
}

/// By eight bits, the places of those that are set, lowest first, and how many they are.
const SET_BITS: [([u8; 8], u8); 256] = {
    let mut all = [([0; 8], 0); 256];
    let mut of = 0;
    while of < all.len() {
        let (mut bit, mut count) = (0, 0);
        while bit < 8 {
            if of >> bit & 1 != 0 {
                all[of].0[count] = bit;
                count += 1;
            }
            bit += 1;
        }
        all[of].1 = count as u8;
        of += 1;
    }
    all
};

impl Order {
    pub(super) const NONE: Order = Order {
        places: [0; BURST + 8],
        len: 0,
        missed: 0,
    };

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn place(&self, at: usize) -> usize {
        usize::from(self.places[at])
    }

    /// The places of the bits that are set in `mask`, lowest first, and no others. How many are set cannot be
    /// predicted, and no branch depends on it.
    fn set(&mut self, mask: u32) {
        let mut len = 0;
        for (first, byte) in (0..).step_by(8).zip(mask.to_le_bytes()) {
            let (places, count) = SET_BITS[usize::from(byte)];
            let places = u64::from_le_bytes(places) + first * 0x0101_0101_0101_0101;
            if let Some(room) = self.places.get_mut(len..).and_then(|p| p.first_chunk_mut()) {
                *room = places.to_le_bytes();
            }
            len += usize::from(count);
        }
        self.len = len;
    }

    fn push(&mut self, place: usize) {
        if let Some(room) = self.places.get_mut(self.len) {
            *room = place as u8;
            self.len += 1;
        }
    }
}

/// Protocol and state of a conn on which plain packets are only forwarded, as they stand in a `ConnMeta`.
const fn proto_state(proto: L4Proto) -> u16 {
    u16::from_ne_bytes([proto as u8, relay_state(proto) as u8])
}

/// Frames before whose turn the line of their conn, asked for long ago, is brought near.
pub(super) const SOON: usize = 3;

/// Of a segment that has headers as most have them, and begins or ends something. Neither this nor the next is
/// a protocol and a state of any conn, free places included.
const SEGMENT: u16 = u16::MAX - 1;
/// Of what `stage` reads.
const UNREAD: u16 = u16::MAX;
const _: () = assert!(proto_state(L4Proto::Tcp) < SEGMENT && proto_state(L4Proto::Udp) < SEGMENT);

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
    /// lines of their conns. Makes the order in which they are relayed: as they came, but for plain packets whose
    /// conn does not stand in its first bucket. Those come last; says how many are before them. What is found is a
    /// hint: acting on an earlier frame may change the table.
    #[inline(never)]
    pub(super) fn look_ahead<F: Frame>(&mut self, frames: &[F]) -> usize {
        let Worker {
            table,
            counters,
            ahead,
            order,
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
        let (mut rx_bytes, mut not_plain) = (0, 0u32);
        for (place, (frame, ahead)) in frames.iter().zip(ahead.iter_mut()).enumerate() {
            let len = frame.len();
            rx_bytes += len as u64;
            if let Some(packet) = Plain::read(frame.data(), len, frame.rx_checksum()) {
                ahead.packet_len = packet.packet_len;
                // Which it is cannot be predicted.
                ahead.proto_state =
                    select_unpredictable(packet.is_middle, proto_state(packet.proto), SEGMENT);
                not_plain |= u32::from(!packet.is_middle) << place;
            } else {
                ahead.proto_state = UNREAD;
                not_plain |= 1 << place;
                super::stage(table, frame, ahead, &mut staged[place]);
            }
        }
        counters.rx_packets += count as u64;
        counters.rx_bytes += rx_bytes;
        // What is not looked up has the candidates of an earlier burst, and a hint that nobody takes: cheaper
        // than to tell the two apart.
        let mut missed = 0u32;
        for ahead in ahead.iter_mut() {
            ahead.hint = table.hint_first(ahead.at);
            missed = missed << 1 | u32::from(ahead.hint.is_none());
        }
        // The first one's bit came first.
        let unused = u32::BITS as usize - count.max(1);
        let missed = missed.reverse_bits() >> unused;
        let late = missed & !not_plain;
        order.missed = missed;
        order.set(u32::MAX >> unused & !late);
        let ready = order.len;
        for place in bits(missed) {
            table.prefetch_second(ahead[place].at);
            if late >> place & 1 != 0 {
                order.push(place);
            }
        }
        ready
    }

    /// Looks up in their second bucket what follows the first `ready` of the order, and asks for the lines of
    /// their conns.
    pub(super) fn look_again(&mut self, ready: usize) {
        for at in ready..self.order.len() {
            let ahead = &mut self.ahead[self.order.place(at)];
            ahead.hint = self.table.hint_second(ahead.at);
        }
    }

    /// Puts what follows the first `done` of the order in the order of its places, and looks up in their
    /// second bucket those that missed in the first.
    pub(super) fn put_in_order(&mut self, done: usize) {
        // Mostly none is done, or few.
        let mut rest = u32::MAX
            .checked_shr((BURST - self.order.len()) as u32)
            .unwrap_or(0);
        for at in 0..done {
            rest &= !(1 << self.order.place(at));
        }
        // Twice what is late. Not by a look at the hint: that branch cannot be predicted.
        for place in bits(rest & self.order.missed) {
            let ahead = &mut self.ahead[place];
            ahead.hint = self.table.hint_second(ahead.at);
        }
        self.order.set(rest);
    }

    /// Forwards `range` of the order, up to the first that needs more than that, which is left as it is; says where
    /// it stands. `verdicts` is as long as `burst`.
    #[inline(never)]
    pub(super) fn relay<F: Frame>(
        &mut self,
        burst: &mut [F],
        range: Range<usize>,
        verdicts: &mut [Verdict],
    ) -> usize {
        let Worker {
            table,
            ways,
            timeouts,
            ahead,
            order,
            ..
        } = self;
        let len = burst.len().min(BURST);
        let Some(verdicts) = verdicts.get_mut(..len) else {
            return range.start;
        };
        let places = order.places.get(range.clone()).unwrap_or_default();
        let mut relay = Relay::new(table, ways, timeouts);
        let mut passed = 0;
        let soon = order.places.get(range.start + SOON..).unwrap_or_default();
        for (&place, &soon) in places.iter().zip(soon) {
            let place = usize::from(place);
            prefetch_near(relay.line(ahead[usize::from(soon) % BURST].hint));
            if place >= len {
                break;
            }
            let forwarded = relay.forward(&mut burst[place], &ahead[place], &mut verdicts[place]);
            if forwarded.is_none() {
                break;
            }
            passed += 1;
        }
        let sent = relay.sent;
        self.count_sent(passed, sent);
        range.start + passed
    }

    /// Forwards a packet with headers as most have them on a conn between IPv4 ends that is known, whatever its state,
    /// and the state follows. `None`: it needs a closer look, and nothing was done.
    #[inline(never)]
    pub(super) fn follow<F: Frame>(&mut self, frame: &mut F, ahead: &Ahead) -> Option<PortId> {
        let conn = ahead.hint.conn().filter(|_| !ahead.hint.is_v6())?;
        let c = self.table.v4.at(conn.id().place())?;
        let head = frame.data().first_chunk()?;
        let proto = L4Proto::from_ip_proto(plain::ip_proto(head))?;
        if c.meta.proto != proto as u8 || c.meta.ext != 0 || self.is_overdue(conn.id()) {
            return None;
        }
        let flags = match proto {
            L4Proto::Tcp => Some(plain::flags(head)),
            L4Proto::Udp => None,
        };
        if flags.is_some_and(|flags| self.is_unopened(conn, flags)) {
            return None;
        }
        if self.defers(conn, proto, flags.unwrap_or(0)).is_some() {
            return None;
        }
        if flags.is_some_and(|flags| is_pure_syn(flags) || check_tcp_flags(flags).is_err()) {
            return None;
        }
        let port = cross(c, &self.ways, frame, ahead, proto)?;
        self.advance(conn, flags.map(tcp_event));
        if flags.is_some_and(|flags| main_flags(flags) == tcp_flag::SYN | tcp_flag::ACK) {
            self.syn_acked(conn);
        }
        Some(port)
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
    fn line(&self, hint: Hint) -> *const Conn4 {
        self.conns.as_ptr().wrapping_add(hint.place())
    }

    /// Forwards one packet of an established conn and prolongs that. `None`: it is something else, and nothing
    /// was done.
    #[inline(always)]
    fn forward<F: Frame>(&mut self, frame: &mut F, ahead: &Ahead, verdict: &mut Verdict) -> Option<()> {
        let hint = ahead.hint;
        // The place of a conn of IPv6 is of another conn here, and its tuple another.
        let c = self.conns.get_mut(hint.place())?;
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
        let proto = if ahead.proto_state == proto_state(L4Proto::Tcp) {
            L4Proto::Tcp
        } else {
            L4Proto::Udp
        };
        *verdict = Verdict::Tx(cross(c, self.ways, frame, ahead, proto)?);
        // The wheel finds out when it looks.
        c.meta.deadline = self.now.wrapping_add(timeout);
        self.sent.outbound += hint.direction() as u64;
        self.sent.bytes += plain::frame_len(ahead.packet_len) as u64;
        Some(())
    }
}

/// Rewrites a packet with headers as most have them to the other side of `c`, if it is of this conn, which has no rarer state.
/// `None`: it needs a closer look, and nothing was done.
#[inline(always)]
fn cross<F: Frame>(c: &Conn4, ways: &Ways, frame: &mut F, ahead: &Ahead, proto: L4Proto) -> Option<PortId> {
    let direction = ahead.hint.direction();
    let other = direction.reversed() as usize;
    let len = plain::frame_len(ahead.packet_len);
    let is_padded = frame.len() > len;
    let head = frame.data_mut().first_chunk_mut()?;
    let addrs = u64::from_ne_bytes(c.addrs[direction as usize]);
    let ports = u32::from_ne_bytes(c.ports[direction as usize]);
    if addrs != plain::addrs(head) || ports != plain::ports(head) {
        return None;
    }
    let [d0, d1, d2, d3, ..] = c.addrs[other];
    let out = ways.find_v4(direction, RealServerId(c.meta.server), [d0, d1, d2, d3])?;
    if plain::ttl(head) <= 1 || u32::from(ahead.packet_len) > out.mtu {
        return None;
    }
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
    Some(out.port)
}
