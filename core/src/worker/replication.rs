//! Replication, as a worker takes part in it: what `sync` has to be asked and told.

use alloc::vec::Vec;

use super::{Removal, Turn, Worker, main_flags, tcp_flag};
use crate::cluster::GroupId;
use crate::conn::{ConnId, ConnRef};
use crate::parse::{Kind, Parsed};
use crate::port::Frame;
use crate::service::{Replicate, ServiceId};
use crate::stats::DropReason;
use crate::sync::{CloseReason, Ctx, Destination, SlotDigest, Sync, SyncMessage, SyncOutcome, Version};
use crate::time::Instant;
use crate::tuple::{Direction, L4Proto};

impl Worker {
    /// Takes in what another node says about sessions.
    pub fn handle_sync(&mut self, now: Instant, message: &SyncMessage) -> SyncOutcome {
        self.set_now(now);
        let outcome = self.with_sync(|sync, ctx| sync.handle(ctx, message));
        self.release_deferred();
        outcome.unwrap_or(SyncOutcome::NoCluster)
    }

    /// A frame for other nodes, into `out`, which is emptied first; to whom it goes. `None`: there is nothing to
    /// send now, see [`Worker::poll_timeout`].
    pub fn poll_sync(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Destination> {
        self.set_now(now);
        let to = self.with_sync(|sync, ctx| sync.poll_frame(ctx, out)).flatten();
        self.release_deferred();
        to
    }

    /// As [`Worker::poll_sync`], one message instead of a frame: for tests. Messages of both are taken from one
    /// queue.
    #[doc(hidden)]
    pub fn poll_sync_message(&mut self, now: Instant) -> Option<(Destination, SyncMessage)> {
        self.set_now(now);
        let message = self.with_sync(|sync, ctx| sync.poll_message(ctx)).flatten();
        self.release_deferred();
        message
    }

    /// The group and the version of a conn, if it is replicated; LSN 0: no other node was told of it yet.
    pub fn version(&self, id: ConnId) -> Option<(GroupId, Version)> {
        let version = self.table.meta(id)?.version;
        self.sync.as_ref()?.version_of(version)
    }

    /// What is here of a slot of a group, as DIGESTs compare it; `None`: the group is not known, or the slot is another worker's.
    pub fn slot_digest(&self, group: GroupId, slot: u16) -> Option<SlotDigest> {
        self.sync.as_ref()?.digest_of(group, slot)
    }

    /// Damages a share, in millionths, of the conns that other nodes hold, and tells nobody; how many. For faults on purpose.
    #[doc(hidden)]
    pub fn damage(&mut self, now: Instant, share_ppm: u32) -> u64 {
        self.set_now(now);
        self.with_sync(|sync, ctx| sync.damage(ctx, share_ppm))
            .unwrap_or(0)
    }

    /// Conns of which nothing waits to be told and that are not what their slot's digest has of them; for tests.
    #[doc(hidden)]
    pub fn drifted(&self) -> usize {
        self.sync.as_ref().map_or(0, |sync| sync.drifted(&self.table))
    }

    /// Whether this node decides about a conn, and may delete it now.
    #[cold]
    pub(super) fn may_delete(&self, id: ConnId) -> bool {
        let sync = self.sync.as_ref();
        sync.is_none_or(|sync| sync.may_delete(&self.table, id, self.now))
    }

    /// Whether a client's segment says that its connection is open, and nobody has opened it here: see
    /// [`Sync::awaits_answer`].
    #[inline]
    pub(super) fn is_unopened(&self, conn: ConnRef, flags: u8) -> bool {
        conn.direction() == Direction::Inbound
            && flags & (tcp_flag::SYN | tcp_flag::RST) == 0
            && self.table.meta(conn.id()).is_some_and(Sync::awaits_answer)
    }

    /// Makes way for a new connection of the same client.
    #[cold]
    pub(super) fn replace(&mut self, id: ConnId) -> Result<(), DropReason> {
        let meta = self.table.meta(id);
        let (version, service) = meta.map_or((0, u16::MAX), |m| (m.version, m.service));
        if let Some(sync) = &self.sync {
            let service = self.snapshot.service(ServiceId(service));
            let replicate = service.map_or_else(Replicate::default, |s| s.replicate);
            if !sync.creates(replicate, self.now) {
                return Err(DropReason::NotReady);
            }
            if !sync.advances(version) {
                self.with_sync(|sync, ctx| sync.supersede(ctx, id));
                return Ok(());
            }
        }
        self.remove(id, Removal::Replaced);
        Ok(())
    }

    /// [`Worker::forward`] of a segment that begins or ends something, where others may have to know.
    #[cold]
    pub(super) fn forward_watched<F: Frame>(
        &mut self,
        frame: &mut F,
        parsed: &Parsed,
        conn: ConnRef,
    ) -> Turn {
        let proto = match parsed.kind {
            Kind::Udp => L4Proto::Udp,
            _ => L4Proto::Tcp,
        };
        if let Some(deferral) = self.defers(conn, proto, parsed.flags) {
            return self.forward_deferred(frame, parsed, conn, deferral);
        }
        let turn = self.forward(frame, parsed, conn)?;
        if proto == L4Proto::Tcp && main_flags(parsed.flags) == tcp_flag::SYN | tcp_flag::ACK {
            self.syn_acked(conn);
        }
        Ok(turn)
    }

    /// A SYN-ACK was forwarded.
    pub(super) fn syn_acked(&mut self, conn: ConnRef) {
        if conn.direction() == Direction::Outbound {
            self.with_sync(|sync, ctx| sync.syn_acked(ctx, conn.id()));
        }
    }

    /// Runs something of replication, if there is any.
    pub(super) fn with_sync<T>(&mut self, run: impl FnOnce(&mut Sync, &mut Ctx<'_>) -> T) -> Option<T> {
        let sync = self.sync.as_mut()?;
        let mut ctx = Ctx {
            table: &mut self.table,
            counters: &mut self.counters,
            snapshot: &self.snapshot,
            timeouts: &self.timeouts,
            now: self.now,
        };
        Some(run(sync, &mut ctx))
    }
}

impl Removal {
    /// What other nodes are told.
    pub(super) fn told(self) -> Option<CloseReason> {
        match self {
            Removal::Expired => Some(CloseReason::Expired),
            Removal::Replaced => Some(CloseReason::Replaced),
            Removal::Undone => None,
        }
    }
}
