//! What a replica sees and its holder should know.

use super::epochs::lsn_of;
use super::state::{Ctx, Sync, SyncOutcome};
use super::{CloseReason, HintKind, SyncBody, SyncMessage};
use crate::cluster::GroupId;
use crate::conn::{ConnId, ConnTable, flag};
use crate::proto::{ConnState, TcpEvent, TcpSide, tcp_transition, udp_transition};
use crate::stats::{Counters, SyncCount};
use crate::tuple::{Direction, L4Proto, Tuple};

impl Sync {
    /// Queues a hint about a conn for its holder.
    pub(crate) fn hint(&mut self, ctx: &mut Ctx<'_>, id: ConnId, kind: HintKind) {
        let Some((version, tuple)) = ctx.table.meta(id).map(|m| m.version).zip(ctx.table.inbound(id)) else {
            return;
        };
        let Some(g) = self.group_of(version) else { return };
        let (group, holder) = (g.id, g.epoch.holder);
        if holder == self.id || !self.is_alive(holder) {
            return;
        }
        if self.hints.len() >= self.sizes.hints {
            ctx.count(SyncCount::HintsLost);
            return;
        }
        let message = SyncMessage {
            from: self.id,
            bucket: self.bucket_of(&tuple),
            ack_now: false,
            body: SyncBody::Hint { group, tuple, kind },
        };
        self.hints.push_back((holder, message));
    }

    pub(super) fn hint_traffic(&mut self, ctx: &mut Ctx<'_>, id: ConnId) {
        self.hint(ctx, id, HintKind::Traffic(Direction::Inbound));
    }

    /// What changed while this node held a conn can no longer be told, as it does not any more: its holder hears of what was
    /// seen, and what that one has counts here. Of what it never heard it gets an offer.
    pub(super) fn untold(&mut self, ctx: &mut Ctx<'_>, id: ConnId) {
        let Some((meta, tuple)) = ctx.table.meta(id).copied().zip(ctx.table.inbound(id)) else {
            return;
        };
        let told = lsn_of(meta.version) != 0;
        let Some(group) = self.epochs.group(meta.version).filter(|_| told) else {
            return;
        };
        if !ctx.table.is_tomb(id) {
            let state = ConnState::from_u8(meta.state).unwrap_or_default();
            for kind in causes(state) {
                self.hint(ctx, id, *kind);
            }
            if let Some(meta) = ctx.table.meta_mut(id) {
                meta.flags |= flag::UNTOLD;
            }
        }
        let slot = ctx.table.slot_of(&tuple);
        self.repair(ctx, group, slot, ctx.now);
    }

    pub(super) fn handle_hint(
        &mut self,
        ctx: &mut Ctx<'_>,
        place: usize,
        group: GroupId,
        tuple: &Tuple,
        kind: HintKind,
    ) -> SyncOutcome {
        let holds = self.group(group).is_some_and(|g| g.role.is_holder());
        let found = ctx
            .table
            .lookup(tuple)
            .filter(|(_, direction)| *direction == Direction::Inbound && holds)
            .and_then(|(id, _)| Some((id, *ctx.table.meta(id)?)))
            .filter(|(_, m)| self.epochs.group(m.version) == Some(group));
        let Some((id, meta)) = found.filter(|_| self.bucket_of(tuple) == self.buckets[place]) else {
            ctx.count(SyncCount::Unexpected);
            return SyncOutcome::Ignored(SyncCount::Unexpected);
        };
        ctx.count(SyncCount::HintsTaken);
        let state = ConnState::from_u8(meta.state).unwrap_or_default();
        let side = |direction| match direction {
            Direction::Inbound if meta.flags & flag::INBOUND_ONLY != 0 => TcpSide::InboundOnly,
            Direction::Inbound => TcpSide::Inbound,
            Direction::Outbound => TcpSide::Outbound,
        };
        let next = match kind {
            HintKind::Segment(Direction::Inbound, TcpEvent::Syn) if state.is_closed() => {
                self.drop_conn(ctx, id, Some(CloseReason::Superseded));
                return SyncOutcome::Taken;
            }
            HintKind::Segment(direction, event) => tcp_transition(state, side(direction), event),
            HintKind::Traffic(direction) if meta.proto == L4Proto::Udp as u8 => {
                udp_transition(state, direction)
            }
            HintKind::Traffic(_) => state,
        };
        let deadline = ctx.now.tick() + u64::from(ctx.timeout_ms(meta.service, next));
        if next == state {
            if deadline > ctx.table.deadline(id)
                && let Some(meta) = ctx.table.meta_mut(id)
            {
                meta.deadline = deadline as u32;
            }
        } else {
            ctx.table.set_deadline(id, deadline);
            set_state(ctx.table, ctx.counters, id, state, next);
            self.changed(ctx, id, next);
        }
        SyncOutcome::Taken
    }
}

/// Gives a conn another state, and counts it.
pub(crate) fn set_state(
    table: &mut ConnTable,
    counters: &mut Counters,
    id: ConnId,
    from: ConnState,
    to: ConnState,
) {
    let Some(meta) = table.meta_mut(id) else { return };
    meta.state = to as u8;
    counters.by_state[from as usize] -= 1;
    counters.by_state[to as usize] += 1;
    if matches!(to, ConnState::Established | ConnState::UdpNormal) && meta.flags & flag::ESTABLISHED == 0 {
        meta.flags |= flag::ESTABLISHED;
        counters.established += 1;
    }
    if to.is_closed() && meta.flags & flag::CLOSED == 0 {
        meta.flags |= flag::CLOSED;
        counters.closed += 1;
    }
}

/// What a replica would have seen of a conn that is in this state.
pub(super) fn causes(state: ConnState) -> &'static [HintKind] {
    use Direction::{Inbound, Outbound};
    use HintKind::{Segment, Traffic};
    match state {
        ConnState::Established => &[Segment(Inbound, TcpEvent::Ack)],
        ConnState::FinWait => &[Segment(Outbound, TcpEvent::Fin)],
        ConnState::CloseWait => &[Segment(Inbound, TcpEvent::Fin)],
        ConnState::LastAck => &[Segment(Inbound, TcpEvent::Fin), Segment(Outbound, TcpEvent::Fin)],
        ConnState::TimeWait => &[
            Segment(Inbound, TcpEvent::Fin),
            Segment(Outbound, TcpEvent::Fin),
            Segment(Inbound, TcpEvent::Ack),
        ],
        ConnState::Close => &[Segment(Inbound, TcpEvent::Rst)],
        ConnState::UdpNormal => &[Traffic(Outbound)],
        ConnState::None
        | ConnState::SynSent
        | ConnState::SynRecv
        | ConnState::SynAck
        | ConnState::Listen
        | ConnState::UdpOneWay => &[],
    }
}
