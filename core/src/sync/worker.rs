//! Replication of a worker, from outside: messages in, frames out; and the turns of its timers.

use alloc::vec::Vec;
use core::time::Duration;

use super::apply::TimerTurn;
use super::codec::{
    BULK_FRAME_LEN_MAX, FrameHeader, FrameWriter, HEADER_LEN, LIVE_FRAME_LEN_MAX, PushError, STREAM_BULK,
    TAG_LEN,
};
use super::state::{Ctx, Destination, Sync};
use super::tx::BEAT;
use super::{HintKind, SyncMessage};
use crate::conn::{ANSWER_AWAITED, ConnId, ConnMeta, LIST_END, flag};
use crate::proto::{ConnState, TcpEvent};
use crate::service::{Replicate, ServiceId};
use crate::stats::SyncCount;
use crate::time::Instant;
use crate::tuple::{Direction, L4Proto};

/// Messages of the outbox that are looked through for more with one destination, at most.
const LOOK_COUNT_MAX: usize = 64;
/// What found no room to be sent is tried again after so long, at the earliest.
const SWEEP_AGAIN: Duration = Duration::from_micros(100);

impl Sync {
    /// When [`Sync::sweep`] or [`Sync::poll_frame`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.flush_at.map_or(self.wake, |at| at.min(self.wake))
    }

    /// Does what is due.
    pub(crate) fn sweep(&mut self, ctx: &mut Ctx<'_>) {
        if ctx.now < self.wake {
            return;
        }
        let mut next = ctx.now + BEAT;
        let due = [
            self.sweep_groups(ctx),
            self.sweep_pulls(ctx),
            self.sweep_rx(ctx),
            Some(self.sweep_beats(ctx)),
            self.sweep_waits(ctx),
        ];
        self.sweep_skips(ctx);
        self.sweep_status(ctx.now);
        if !self.status_told || self.status_at > ctx.now {
            next = next.min(self.status_at.max(ctx.now + BEAT / 2));
        }
        for at in due.into_iter().flatten() {
            next = next.min(at);
        }
        self.wake = next.max(ctx.now + SWEEP_AGAIN);
    }

    /// The next message to be sent.
    pub(crate) fn poll_message(&mut self, ctx: &mut Ctx<'_>) -> Option<(Destination, SyncMessage)> {
        self.sweep(ctx);
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        if let Some(message) = self.outbox.pop_front() {
            return Some(message);
        }
        if let Some((to, hint)) = self.hints.pop_front() {
            ctx.count(SyncCount::HintsSent);
            return Some((Destination::One(to), hint));
        }
        if let Some(live) = self.poll_live(ctx) {
            return Some((Destination::All, live));
        }
        if let Some(beat) = self.poll_beat(ctx) {
            return Some((Destination::All, beat));
        }
        if let Some(digest) = self.poll_digest(ctx) {
            return Some((Destination::All, digest));
        }
        // What was lost is told again by now.
        self.sweep_skips(ctx);
        if let Some(message) = self.outbox.pop_front() {
            return Some(message);
        }
        self.poll_serve(ctx)
    }

    /// The next message, if it goes there too.
    fn poll_message_to(&mut self, ctx: &mut Ctx<'_>, to: Destination) -> Option<SyncMessage> {
        let same = self
            .outbox
            .iter()
            .take(LOOK_COUNT_MAX)
            .position(|(there, _)| *there == to);
        if let Some(at) = same {
            return self.outbox.remove(at).map(|(_, m)| m);
        }
        if to == Destination::All {
            let more = self.poll_live(ctx).or_else(|| self.poll_beat(ctx));
            return more.or_else(|| self.poll_digest(ctx));
        }
        if !self.outbox.is_empty() {
            return None;
        }
        let (there, message) = self.poll_message(ctx)?;
        if there == to {
            return Some(message);
        }
        self.held = Some((there, message));
        None
    }

    /// The next frame to be sent, into `out`, which is emptied first.
    pub(crate) fn poll_frame(&mut self, ctx: &mut Ctx<'_>, out: &mut Vec<u8>) -> Option<Destination> {
        out.clear();
        loop {
            let (to, first) = self.poll_message(ctx)?;
            let bulk = first.body.is_bulk();
            let (stream, most) = if bulk {
                (self.stream + STREAM_BULK, BULK_FRAME_LEN_MAX)
            } else {
                (self.stream, LIVE_FRAME_LEN_MAX)
            };
            let out_stream = &self.streams[usize::from(bulk)];
            let header = FrameHeader {
                cluster: self.cluster,
                from: self.id,
                stream,
                packet_number: out_stream.next,
            };
            let tag = out_stream.sealer.as_ref().map_or(0, |_| TAG_LEN);
            let mut frame = FrameWriter::new(out, &header, most - tag);
            let mut next = Some(first);
            while let Some(m) = next {
                match frame.push(m.bucket, m.ack_now, &m.body) {
                    Ok(()) => next = self.poll_message_to(ctx, to),
                    Err(PushError::Full) => {
                        // Two may wait: the one that goes elsewhere was found by the last poll, and this was not.
                        match self.held.take() {
                            Some(other) => {
                                self.outbox.push_front(other);
                                self.held = Some((to, m));
                            }
                            None => self.held = Some((to, m)),
                        }
                        next = None;
                    }
                    Err(PushError::Unencodable) => {
                        debug_assert!(false, "messages are made to fit: {m:?}");
                        ctx.count(SyncCount::Invalid);
                        next = self.poll_message_to(ctx, to);
                    }
                }
            }
            if frame.finish() > 0 {
                let stream = &mut self.streams[usize::from(bulk)];
                stream.next += 1;
                if let Some(sealer) = &mut stream.sealer {
                    let one = match to {
                        Destination::All => None,
                        Destination::One(peer) => Some(peer.node),
                    };
                    sealer.seal(&header, HEADER_LEN, one, out);
                }
                return Some(to);
            }
        }
    }

    /// What a conn of a service is to others before it is told: its version, if it can be told at all.
    pub(crate) fn first_version(&self, replicate: Replicate) -> u64 {
        match (replicate, self.create) {
            (Replicate::Off, _) | (_, None) => 0,
            (_, Some((_, index))) => super::epochs::packed(index, 0),
        }
    }

    /// Whether new conns of a service are made. Those that others are told of only while the lease is certain: what
    /// waited for a node that stood still is not opened by it while others may have taken over.
    pub(crate) fn creates(&self, replicate: Replicate, now: Instant) -> bool {
        self.create.is_some() && (replicate == Replicate::Off || now < self.lease_until)
    }

    /// A new conn was made.
    pub(crate) fn created(&mut self, ctx: &mut Ctx<'_>, id: ConnId, replicate: Replicate) {
        let version = self.first_version(replicate);
        self.set_version(ctx.table, id, version);
        if let Some(meta) = ctx.table.meta_mut(id)
            && version != 0
            && meta.proto == L4Proto::Tcp as u8
        {
            meta.dirty_link = ANSWER_AWAITED;
        }
    }

    /// Whether the real server has not answered the SYN of a conn that only this node knows. What else its client sends, as
    /// if it had, belongs to what another node opened for it meanwhile (a split brain), maybe to another server.
    pub(crate) fn awaits_answer(meta: &ConnMeta) -> bool {
        meta.state == ConnState::SynRecv as u8
            && meta.dirty_link == ANSWER_AWAITED
            && meta.version != 0
            && super::epochs::lsn_of(meta.version) == 0
            && meta.flags & flag::DIRTY == 0
    }

    fn replicate(ctx: &Ctx<'_>, service: u16) -> Replicate {
        let service = ctx.snapshot.service(ServiceId(service));
        // Of a service that has left the config: as most are.
        service.map_or_else(Replicate::default, |s| s.replicate)
    }

    /// The first packet of a new conn was forwarded.
    pub(crate) fn opened(&mut self, ctx: &mut Ctx<'_>, id: ConnId) {
        let udp = ctx
            .table
            .meta(id)
            .is_some_and(|m| m.version != 0 && m.proto == L4Proto::Udp as u8);
        if udp {
            self.mark(ctx, id);
        }
    }

    /// A SYN-ACK of the real server passed.
    pub(crate) fn syn_acked(&mut self, ctx: &mut Ctx<'_>, id: ConnId) {
        let Some(meta) = ctx.table.meta_mut(id) else {
            return;
        };
        if Self::awaits_answer(meta) {
            meta.dirty_link = LIST_END;
        }
        let meta = *meta;
        if super::epochs::lsn_of(meta.version) == 0
            && meta.version != 0
            && self.advances(meta.version)
            && matches!(
                Self::replicate(ctx, meta.service),
                Replicate::SynAck | Replicate::Deferred(_)
            )
        {
            self.mark(ctx, id);
        }
    }

    /// The state of a conn has changed: whether others are to know.
    pub(crate) fn changed(&mut self, ctx: &mut Ctx<'_>, id: ConnId, to: ConnState) {
        let Some(meta) = ctx.table.meta(id).copied() else {
            return;
        };
        if meta.version == 0 {
            return;
        }
        let known = super::epochs::lsn_of(meta.version) != 0 || meta.flags & flag::DIRTY != 0;
        let begins = meta.flags & flag::ESTABLISHED != 0
            || to == ConnState::Established
            || meta.proto == L4Proto::Udp as u8;
        if known || begins {
            self.mark(ctx, id);
        }
    }

    /// A packet would change the state of a replica's conn: its holder hears of it, and it lives on here.
    pub(crate) fn seen(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        direction: Direction,
        event: Option<TcpEvent>,
    ) {
        let Some(meta) = ctx.table.meta(id).copied() else {
            return;
        };
        let state = ConnState::from_u8(meta.state).unwrap_or_default();
        let deadline = ctx.now.tick() + u64::from(ctx.timeout_ms(meta.service, state));
        if let Some(meta) = ctx.table.meta_mut(id)
            && (deadline as u32).wrapping_sub(meta.deadline).cast_signed() > 0
        {
            meta.deadline = deadline as u32;
        }
        self.hint(
            ctx,
            id,
            match event {
                Some(event) => HintKind::Segment(direction, event),
                None => HintKind::Traffic(direction),
            },
        );
    }

    /// A client uses the tuple of a closed conn that another node holds: it goes here, and its holder hears of it.
    pub(crate) fn supersede(&mut self, ctx: &mut Ctx<'_>, id: ConnId) {
        self.hint(ctx, id, HintKind::Segment(Direction::Inbound, TcpEvent::Syn));
        self.left(ctx, id);
        self.drop_conn(ctx, id, None);
    }

    /// Carries out the turn of a conn in the wheel; whether it expires.
    pub(crate) fn fire(&mut self, ctx: &mut Ctx<'_>, id: ConnId) -> bool {
        match self.on_timer(ctx, id) {
            TimerTurn::Expire => true,
            TimerTurn::Again(when) => {
                ctx.table.arm(id, when);
                false
            }
            TimerTurn::Nothing => false,
        }
    }
}
