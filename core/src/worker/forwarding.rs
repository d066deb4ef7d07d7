//! A packet of a known conn: where it goes, and what follows for the conn.

use core::hint::select_unpredictable;
use core::net::Ipv4Addr;

use super::{Turn, Worker, tcp_event};
use crate::conn::{ConnRef, flag};
use crate::parse::{Kind, Parsed};
use crate::port::Frame;
use crate::proto::{ConnState, TcpEvent, TcpSide, Timeouts, tcp_transition, udp_transition};
use crate::service::RealServerId;
use crate::stats::DropReason;
use crate::sync::set_state;
use crate::tuple::Direction;
use crate::xmit::{Egress, SeqShift, Target4, Target6, rewrite_v4, rewrite_v6};

impl Worker {
    /// A packet of a known conn: rewritten to its other side, and the state follows.
    #[inline]
    pub(super) fn forward<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed, conn: ConnRef) -> Turn {
        let turn = if conn.id().is_v6() {
            self.forward_v6(frame, parsed, conn)
        } else {
            self.forward_v4(frame, parsed, conn)
        };
        match turn {
            Ok(port) => {
                self.advance(conn, event(parsed));
                Ok(port)
            }
            Err(unsent) => Err(self.not_forwarded(conn, unsent)),
        }
    }

    /// [`Worker::forward`] between IPv4 ends, without what follows for the conn.
    #[inline]
    fn forward_v4<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed, conn: ConnRef) -> Turn {
        let (direction, other) = (conn.direction(), conn.direction().reversed() as usize);
        let c = self.table.v4.at(conn.id().place()).ok_or(DropReason::NoConn)?;
        let to = Target4::reverse_of(c.addrs[other], c.ports[other]);
        let server = RealServerId(c.meta.server);
        let searched;
        let out = match self.ways.find_v4(direction, server, to.dst().octets()) {
            Some(way) => way,
            None => {
                searched = self.search_v4(direction, server, to.dst())?;
                &searched
            }
        };
        let shift = if c.meta.ext == 0 { None } else { self.shift(conn) };
        rewrite_v4(frame, parsed, &to, shift, out)?;
        Ok(out.port)
    }

    /// The way out of a packet where none was at hand.
    #[inline(never)]
    fn search_v4(
        &self,
        direction: Direction,
        server: RealServerId,
        dst: Ipv4Addr,
    ) -> Result<Egress, DropReason> {
        let known = match direction {
            Direction::Inbound => self.ways.to_server_v4(server, dst),
            Direction::Outbound => None,
        };
        match known {
            Some(way) => Ok(way),
            None => self.ways.by_route_v4(&self.snapshot, dst),
        }
    }

    /// As [`Worker::forward_v4`] where IPv6 is on a side.
    #[inline(never)]
    fn forward_v6<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed, conn: ConnRef) -> Turn {
        let (direction, other) = (conn.direction(), conn.direction().reversed());
        let c = self.table.v6.at(conn.id().place()).ok_or(DropReason::NoConn)?;
        let to = Target6::reverse_of(c.family(other), c.addrs[other as usize], c.ports[other as usize]);
        let server = RealServerId(c.meta.server);
        let known = if direction == Direction::Inbound {
            self.ways.to_server(server, to.dst())
        } else {
            None
        };
        let out = match known {
            Some(way) => way,
            None => self.ways.by_route(&self.snapshot, to.dst())?,
        };
        let shift = if c.meta.ext == 0 { None } else { self.shift(conn) };
        rewrite_v6(frame, parsed, &to, shift, &out)?;
        Ok(out.port)
    }

    #[cold]
    fn shift(&self, conn: ConnRef) -> Option<SeqShift> {
        let (inbound, outbound) = self.table.ext(conn.id())?.shifts()?;
        Some(match conn.direction() {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        })
    }

    /// Counts a packet that was forwarded; state and deadline follow. `None` is what UDP says.
    #[inline]
    pub(super) fn advance(&mut self, conn: ConnRef, event: Option<TcpEvent>) {
        let (id, direction) = (conn.id(), conn.direction());
        self.count_forwarded(direction);
        let tick = self.table.now();
        let Some(meta) = self.table.meta_mut(id) else {
            return;
        };
        let Some(state) = ConnState::from_u8(meta.state) else {
            return;
        };
        let next = match event {
            Some(event) => {
                let client = if meta.flags & flag::INBOUND_ONLY != 0 {
                    TcpSide::InboundOnly
                } else {
                    TcpSide::Inbound
                };
                // No branch on the direction, which cannot be predicted.
                let inbound = direction == Direction::Inbound;
                let side = select_unpredictable(inbound, client, TcpSide::Outbound);
                tcp_transition(state, side, event)
            }
            None => udp_transition(state, direction),
        };
        let timeout = match self.timeouts.get(usize::from(meta.service)) {
            Some(timeouts) => timeouts.ms(next),
            // The service has left the config: its conns live on by the defaults.
            None => Timeouts::default().ms(next),
        };
        let deadline = tick + u64::from(timeout);
        let later = (deadline as u32).wrapping_sub(meta.deadline) as i32 >= 0;
        if next == state && later {
            // Prolonged: the wheel finds out when it looks.
            meta.deadline = deadline as u32;
        } else if next == state {
            // A reload made its timeout shorter.
            self.table.set_deadline(id, deadline);
        } else {
            self.change_state(conn, event, state, next, deadline);
        }
    }

    #[cold]
    fn change_state(
        &mut self,
        conn: ConnRef,
        event: Option<TcpEvent>,
        from: ConnState,
        to: ConnState,
        deadline: u64,
    ) {
        let (id, direction) = (conn.id(), conn.direction());
        let version = self.table.meta(id).map_or(0, |m| m.version);
        if self.sync.as_ref().is_some_and(|sync| !sync.advances(version)) {
            self.with_sync(|sync, ctx| sync.seen(ctx, id, direction, event));
            return;
        }
        self.table.set_deadline(id, deadline);
        set_state(&mut self.table, &mut self.counters, id, from, to);
        self.with_sync(|sync, ctx| sync.changed(ctx, id, to));
    }

    #[inline(always)]
    fn count_forwarded(&mut self, direction: Direction) {
        self.counters.inbound_packets += u64::from(direction == Direction::Inbound);
        self.counters.outbound_packets += u64::from(direction == Direction::Outbound);
    }
}

/// What a packet says to the state machine of its conn; `None`: it is UDP.
#[inline]
fn event(parsed: &Parsed) -> Option<TcpEvent> {
    (parsed.kind == Kind::Tcp).then(|| tcp_event(parsed.flags))
}
