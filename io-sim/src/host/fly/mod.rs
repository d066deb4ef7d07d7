//! The flyweight: a TCP of ours for many flows, at most 128 bytes each.
//!
//! A host has a slab of [`Flow`]s and an index over it; nothing else is kept of a flow, and nothing is allocated for it
//! but the frames that it sends. There are no buffers, as both streams are functions of flow and position ([`talk`]).
//! Its timers are those of Linux (`ci/e2e/calibrate` compares). The same application runs over it as over smoltcp.
//!
//! A flow has one event in the queue, at the earliest of its times or before it: what moves away is planned again when
//! the event comes, not with each segment.

mod flow;
mod index;
mod segment;
mod talk;
mod tcp;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub(super) use segment::{Said, Segment, challenge, refuse, said};

use self::flow::{Flow, NEVER, State, bits, flag};
use self::index::{Ends, Index};
use super::app::{self, is_done};
use super::{Host, TcpProfile};
use crate::flow::{BrokenWhy, FlowEnd, FlowRecord, FlowState};
use crate::ids::FlowId;
use crate::queue::Event;
use crate::random::nanos;
use crate::world::Net;

/// The flows of a host. Bounded by its `conn_count_max`, with those of the other tier.
#[derive(Debug, Default)]
pub(super) struct Fly {
    flows: Vec<Flow>,
    free: Vec<u32>,
    index: Index,
    /// Frames of a turn, before they are sent.
    out: Vec<Vec<u8>>,
}

/// What a flow's turn works with.
struct Turn<'a> {
    net: &'a mut Net,
    flows: &'a mut [FlowRecord],
    tcp: TcpProfile,
    mtu: u16,
    /// The flow's own end.
    local: SocketAddr,
    /// Frames to send, their Ethernet headers left open.
    out: Vec<Vec<u8>>,
}

/// Microseconds that wrap.
const fn micros(now: u64) -> u32 {
    (now / 1_000) as u32
}

impl Fly {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    fn find(&self, ends: &Ends) -> Option<u32> {
        self.index.find(ends, &self.flows)
    }

    fn insert(&mut self, flow: Flow) -> u32 {
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(slot) = self.flows.get_mut(place as usize) {
                    *slot = flow;
                }
                place
            }
            None => {
                self.flows.push(flow);
                self.flows.len() as u32 - 1
            }
        };
        self.index.insert(place, &self.flows);
        place
    }

    fn forget(&mut self, place: u32) {
        let Some(flow) = self.flows.get_mut(place as usize) else {
            return;
        };
        // The event that is planned finds nothing to do.
        (flow.state, flow.planned) = (State::Closed, NEVER);
        let ends = Ends::of(flow);
        self.index.remove(&ends, &self.flows);
        self.free.push(place);
    }
}

impl Host {
    /// The ends of a flow of the flyweight; `None`: it has no room for such a one.
    fn ends(&self, local: SocketAddr, remote: SocketAddr) -> Option<Ends> {
        let at = self
            .spec
            .addresses
            .iter()
            .position(|(own, _)| *own == local.ip())?;
        Some(Ends {
            remote: bits(remote.ip()),
            local: u8::try_from(at).ok()?,
            local_port: local.port(),
            remote_port: remote.port(),
        })
    }

    /// Whether the flyweight has a connection between these ends.
    pub(super) fn fly_has(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.fly.len() > 0
            && self
                .ends(local, remote)
                .is_some_and(|ends| self.fly.find(&ends).is_some())
    }

    /// A client of the flyweight connects. `false`: there is no room.
    pub(super) fn fly_connect(
        &mut self,
        net: &mut Net,
        flows: &mut [FlowRecord],
        flow: FlowId,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> bool {
        let Some(ends) = self.ends(local, remote) else {
            return false;
        };
        let key = flows.get(flow.0 as usize).and_then(|record| record.spec.key);
        let iss = super::opened_seed(net, key, flow) as u32;
        let mut fly = Flow::new(State::SynSent, ends.local, ends.local_port, remote, iss, net.now);
        fly.flow = flow.0;
        fly.set(flag::CLIENT);
        let place = self.fly.insert(fly);
        self.fly_turn(net, flows, place, local, Flow::start);
        true
    }

    /// A segment, if the flyweight has a connection for it. `false`: it has none.
    pub(super) fn fly_segment(
        &mut self,
        net: &mut Net,
        flows: &mut [FlowRecord],
        local: SocketAddr,
        remote: SocketAddr,
        segment: &Segment<'_>,
    ) -> bool {
        if self.fly.len() == 0 {
            return false;
        }
        let Some(place) = self.ends(local, remote).and_then(|ends| self.fly.find(&ends)) else {
            return false;
        };
        let Some(flow) = self.fly.flows.get(place as usize) else {
            return false;
        };
        if flow.is(flag::VANISHED) {
            return true;
        }
        if segment.opens() && flow.state == State::TimeWait && !flow.is(flag::CLIENT) {
            // The client uses its port again.
            self.fly.forget(place);
            return false;
        }
        self.fly_turn(net, flows, place, local, |flow, turn| {
            flow.receive(turn, segment);
            flow.heard(turn);
        });
        true
    }

    /// A SYN for the server `number`. `false`: there is no room.
    pub(super) fn fly_accept(
        &mut self,
        net: &mut Net,
        flows: &mut [FlowRecord],
        (local, remote): (SocketAddr, SocketAddr),
        number: u32,
        segment: &Segment<'_>,
    ) -> bool {
        let Some(ends) = self.ends(local, remote) else {
            return false;
        };
        let iss = super::accepted_seed(net, local, remote) as u32;
        let mut flow = Flow::new(
            State::SynReceived,
            ends.local,
            ends.local_port,
            remote,
            iss,
            net.now,
        );
        flow.app = number.into();
        let place = self.fly.insert(flow);
        self.fly_turn(net, flows, place, local, |flow, turn| flow.open(turn, segment));
        true
    }

    /// The event of a flow.
    pub(crate) fn fly_due(&mut self, net: &mut Net, flows: &mut [FlowRecord], place: u32) {
        let Some(flow) = self.fly.flows.get_mut(place as usize) else {
            return;
        };
        if flow.planned != net.now {
            return;
        }
        flow.planned = NEVER;
        let Some(&(local, _)) = self.spec.addresses.get(usize::from(flow.local)) else {
            return;
        };
        let local = SocketAddr::new(local, flow.local_port);
        self.fly_turn(net, flows, place, local, Flow::due);
    }

    /// Something happens to a flow; then its application has its turn, and what may be sent is.
    fn fly_turn(
        &mut self,
        net: &mut Net,
        flows: &mut [FlowRecord],
        place: u32,
        local: SocketAddr,
        happens: impl FnOnce(&mut Flow, &mut Turn<'_>),
    ) {
        let Some(mut flow) = self.fly.flows.get(place as usize).copied() else {
            return;
        };
        let mut turn = Turn {
            net,
            flows,
            tcp: self.spec.tcp,
            mtu: self.spec.mtu,
            local,
            out: std::mem::take(&mut self.fly.out),
        };
        happens(&mut flow, &mut turn);
        if flow.is(flag::CLIENT) {
            flow.client(&mut turn);
        } else {
            flow.server(&mut turn);
        }
        flow.output(&mut turn);
        let next_at = flow.next_at(&turn);
        let mut out = turn.out;
        if flow.state == State::Closed && !flow.is(flag::VANISHED) {
            self.fly.forget(place);
        } else {
            if next_at < flow.planned {
                flow.planned = next_at;
                let host = self.id;
                net.queue.push(next_at, Event::Fly { host, flow: place });
            }
            if let Some(slot) = self.fly.flows.get_mut(place as usize) {
                *slot = flow;
            }
        }
        let to = flow.remote().ip();
        for frame in out.drain(..) {
            self.send_one(net, to, frame);
        }
        self.fly.out = out;
    }
}

impl Flow {
    /// The time of its event came; it may have been put off since.
    fn due(&mut self, turn: &mut Turn<'_>) {
        let now = turn.net.now;
        if self.timer_at <= now {
            self.timer(turn);
        } else if self.keepalive_at(turn).is_some_and(|at| at <= now) {
            self.keepalive(turn);
        }
    }

    /// The peer was heard: see `quiet_from`.
    fn heard(&mut self, turn: &Turn<'_>) {
        if !self.is(flag::CLIENT) || !self.awaits(turn) {
            self.quiet_from = turn.net.now;
        }
    }

    /// Whether a client waits for something.
    fn awaits(&self, turn: &Turn<'_>) -> bool {
        let Some(record) = turn.flows.get(self.flow as usize) else {
            return false;
        };
        record.awaiting_since.is_some() || self.is(flag::CLOSING) || self.una < self.limit(turn)
    }

    fn give_up_at(&self, record: &FlowRecord) -> u64 {
        self.quiet_from.saturating_add(nanos(record.spec.give_up))
    }

    /// When it has something to do by itself; what is due now and was done is due no more.
    fn next_at(&self, turn: &Turn<'_>) -> u64 {
        if self.is(flag::VANISHED) {
            return NEVER;
        }
        let mut at = self.timer_at.min(self.keepalive_at(turn).unwrap_or(NEVER));
        if self.is(flag::CLIENT)
            && let Some(record) = turn.flows.get(self.flow as usize)
            && record.ended.is_none()
        {
            at = at.min(self.app);
            if self.awaits(turn) {
                at = at.min(self.give_up_at(record));
            }
            if self.app != NEVER
                && let Some(until) = record.spec.until
            {
                at = at.min(until.as_nanos());
            }
        }
        // Time passes between two turns.
        at.max(turn.net.now + 1)
    }

    /// The client's application: what [`app::Client`] does over the other tier.
    fn client(&mut self, turn: &mut Turn<'_>) {
        let now = turn.net.now;
        let number = FlowId(self.flow);
        let Some(record) = turn.flows.get_mut(self.flow as usize) else {
            return;
        };
        if record.ended.is_some() || self.is(flag::VANISHED) {
            return;
        }
        if record.established.is_none() && self.state.is_synchronized() {
            app::established(turn.net, record, number);
        }
        let broken = match self.state {
            _ if self.is(flag::WRONG) => Some(BrokenWhy::WrongBytesAtClient),
            State::Closed if self.is(flag::TIMED_OUT) => Some(BrokenWhy::GaveUp),
            State::Closed => Some(BrokenWhy::Reset),
            State::TimeWait if self.is(flag::CLOSING) => {
                return app::end(turn.net, record, number, None);
            }
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
                if !self.is(flag::CLOSING) =>
            {
                Some(BrokenWhy::ClosedByServer)
            }
            _ => None,
        };
        if let Some(why) = broken {
            return self.break_off(turn, why);
        }
        let over = record.spec.until.is_some_and(|until| now >= until.as_nanos());
        if self.app != NEVER && (now >= self.app || over) {
            self.app = NEVER;
            self.set(flag::MOVED);
            if is_done(now, record) {
                self.finish(turn);
            } else {
                app::asked(now, record);
            }
        }
        let Some(record) = turn.flows.get(self.flow as usize) else {
            return;
        };
        if record.ended.is_some() {
            return;
        }
        if self.is(flag::MOVED) {
            self.clear(flag::MOVED);
            self.quiet_from = now;
        }
        if self.awaits(turn) && now >= self.give_up_at(record) {
            self.break_off(turn, BrokenWhy::GaveUp);
        }
    }

    fn break_off(&mut self, turn: &mut Turn<'_>, why: BrokenWhy) {
        self.abort(turn);
        if let Some(record) = turn.flows.get_mut(self.flow as usize) {
            app::end(turn.net, record, FlowId(self.flow), Some(why));
        }
    }

    /// After the last reply.
    fn finish(&mut self, turn: &mut Turn<'_>) {
        let Some(record) = turn.flows.get_mut(self.flow as usize) else {
            return;
        };
        match record.spec.end {
            FlowEnd::Close => {
                record.state = FlowState::Closing;
                self.close();
            }
            FlowEnd::Reset => {
                app::end(turn.net, record, FlowId(self.flow), None);
                self.abort(turn);
            }
            FlowEnd::Stay => {}
            FlowEnd::Vanish => {
                self.set(flag::VANISHED);
                self.state = State::Closed;
                self.clear(flag::OWES_ACK);
                self.timer_at = NEVER;
            }
        }
    }

    /// The server's application: it answers by the length of its stream, and closes after its client.
    fn server(&mut self, turn: &mut Turn<'_>) {
        if self.is(flag::WRONG) && self.state != State::Closed {
            self.abort(turn);
            super::wrong_at_server(turn.net, turn.flows, Some(FlowId(self.flow)));
        }
        if self.state == State::CloseWait {
            self.close();
        }
    }
}
