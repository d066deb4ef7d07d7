//! Frames that would tell a client that it is connected, and wait until other nodes have its session. They are rewritten
//! already: what lets them through sends them as they are.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{HELD_LEN_MAX, Turn, Unsent, Worker};
use crate::conn::{ConnId, ConnRef, flag};
use crate::parse::{Kind, Parsed, main_flags, tcp_flag};
use crate::port::{Frame, PortId};
use crate::proto::ConnState;
use crate::service::{Deferral, OnLimit, ServiceId};
use crate::stats::DropReason;
use crate::sync::Ended;
use crate::tuple::{Direction, L4Proto};

/// A frame in the pool.
#[derive(Clone, Copy, Debug)]
struct Place {
    len: u16,
    out: PortId,
    conn: ConnRef,
}

/// See the module. All its memory is taken at the beginning; of what was never used the system keeps no page.
#[derive(Debug)]
pub(super) struct Deferred {
    bytes: Box<[u8]>,
    places: Box<[Place]>,
    free: Vec<u16>,
    /// To be sent.
    ready: VecDeque<u16>,
}

impl Deferred {
    pub(super) fn new(frames: u16) -> Self {
        let none = Place {
            len: 0,
            out: PortId(0),
            conn: ConnId::v4(0).with(Direction::Inbound),
        };
        let count = usize::from(frames);
        Deferred {
            bytes: alloc::vec![0; count * HELD_LEN_MAX].into_boxed_slice(),
            places: alloc::vec![none; count].into_boxed_slice(),
            free: (0..frames).rev().collect(),
            ready: VecDeque::with_capacity(count),
        }
    }

    fn keep<F: Frame>(&mut self, frame: &F, out: PortId, conn: ConnRef) -> Option<u16> {
        let data = frame.data();
        if data.len() != frame.len() || data.len() > HELD_LEN_MAX {
            return None;
        }
        let at = self.free.pop()?;
        self.bytes[usize::from(at) * HELD_LEN_MAX..][..data.len()].copy_from_slice(data);
        self.places[usize::from(at)] = Place {
            len: data.len() as u16,
            out,
            conn,
        };
        Some(at)
    }

    /// Whether a frame of a conn is to be sent.
    fn is_to_be_sent(&self, conn: ConnRef) -> bool {
        let mut ready = self.ready.iter();
        ready.any(|at| self.places[usize::from(*at)].conn == conn)
    }

    /// Frames in the pool.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// A frame that is to be sent.
    pub(super) fn peek(&self) -> Option<(PortId, &[u8])> {
        let at = usize::from(*self.ready.front()?);
        let place = self.places[at];
        Some((
            place.out,
            &self.bytes[at * HELD_LEN_MAX..][..usize::from(place.len)],
        ))
    }

    /// The frame of [`Deferred::peek`] was sent.
    pub(super) fn pop(&mut self) {
        self.free.extend(self.ready.pop_front());
    }

    /// Frames that wait for other nodes.
    pub(super) fn waiting(&self) -> usize {
        self.len() - self.ready.len()
    }
}

impl Worker {
    /// How a packet of a conn has to wait for other nodes, if it does: one that would tell its client that it is connected. Of TCP that is the
    /// SYN-ACK; of UDP any datagram of the client's before the server has answered.
    pub(super) fn defers(&self, conn: ConnRef, proto: L4Proto, flags: u8) -> Option<Deferral> {
        self.deferred.as_ref()?;
        let meta = self.table.meta(conn.id())?;
        let tells = match proto {
            L4Proto::Tcp => {
                conn.direction() == Direction::Outbound
                    && main_flags(flags) == tcp_flag::SYN | tcp_flag::ACK
                    && meta.flags & flag::ESTABLISHED == 0
            }
            L4Proto::Udp => {
                conn.direction() == Direction::Inbound && meta.state == ConnState::UdpOneWay as u8
            }
        };
        if !tells {
            return None;
        }
        self.snapshot
            .service(ServiceId(meta.service))?
            .replicate
            .deferral()
    }

    /// [`Worker::forward`] of what may have to wait for other nodes.
    #[cold]
    pub(super) fn forward_deferred<F: Frame>(
        &mut self,
        frame: &mut F,
        parsed: &Parsed,
        conn: ConnRef,
        deferral: Deferral,
    ) -> Turn {
        let port = self.forward(frame, parsed, conn)?;
        if parsed.kind == Kind::Tcp {
            self.syn_acked(conn);
        }
        self.defer(frame, conn, port, deferral)
    }

    /// A rewritten frame is to leave once other nodes have the session of its conn.
    pub(super) fn defer<F: Frame>(
        &mut self,
        frame: &F,
        conn: ConnRef,
        port: PortId,
        deferral: Deferral,
    ) -> Turn {
        let Some(mut deferred) = self.deferred.take() else {
            return Ok(port);
        };
        let kept = self.with_sync(|sync, ctx| {
            let behind = deferred.is_to_be_sent(conn);
            let keep = || deferred.keep(frame, port, conn);
            sync.defer(ctx, conn.id(), deferral, behind, keep)
        });
        self.deferred = Some(deferred);
        let unsent = match kept {
            Some(Ok(())) => Unsent::Held,
            None | Some(Err(OnLimit::Open)) => return Ok(port),
            Some(Err(OnLimit::Drop)) => DropReason::DeferFull.into(),
        };
        // It was counted as forwarded, and is not yet.
        *self.forwarded_of(conn.direction()) -= 1;
        Err(unsent)
    }

    fn forwarded_of(&mut self, direction: Direction) -> &mut u64 {
        match direction {
            Direction::Inbound => &mut self.counters.inbound_packets,
            Direction::Outbound => &mut self.counters.outbound_packets,
        }
    }

    /// Takes up the frames of which the wait has ended.
    pub(super) fn release_deferred(&mut self) {
        while let Some((at, ended)) = self.sync.as_mut().and_then(|sync| sync.poll_ended()) {
            let Some(deferred) = &mut self.deferred else {
                return;
            };
            let Some(place) = deferred.places.get(usize::from(at)) else {
                continue;
            };
            self.counters.released += 1;
            let reason = match ended {
                Ended::Acked | Ended::Opened => {
                    self.counters.tx_packets += 1;
                    self.counters.tx_bytes += u64::from(place.len);
                    let direction = place.conn.direction();
                    deferred.ready.push_back(at);
                    *self.forwarded_of(direction) += 1;
                    continue;
                }
                Ended::Dropped => DropReason::DeferLimit,
                Ended::Gone => DropReason::NoConn,
            };
            deferred.free.push(at);
            self.counters.drops[reason as usize] += 1;
        }
    }
}
