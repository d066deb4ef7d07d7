//! One node's part in its cluster: facts in, decisions out.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::config::ClusterConfig;
use super::election::{ASSERT_FIRST, Election};
use super::group::Group;
use super::handover::Forgotten;
use super::member::PeerState;
use super::outbox::Outbox;
use super::{
    Alarm, ClusterConfigError, Destination, Epoch, GroupId, Incarnation, NodeCounters, NodeEvent, NodeId,
    PeerId, Role,
};
use crate::port::{PortId, WorkerId};
use crate::sync::{Answering, GroupClaim, NodeMessage, Peer, Readiness, SyncCommand, SyncEvent, SyncStatus};
use crate::time::Instant;
use crate::tuple::Family;

/// Workers are told of an authority again after this time, until they have confirmed it.
pub(super) const REPEAT: Duration = Duration::from_millis(50);
/// All levels are told again this often, as their first telling may have been lost and nothing confirms them.
pub(super) const REFRESH: Duration = Duration::from_millis(500);
/// What an operator wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeCommand {
    /// Hand over all sessions and addresses, and create no more. Waits for a ready peer.
    Drain,
    /// Serve again.
    Undrain,
    /// Become the virtual router's master, whatever the priorities; it ends with [`NodeCommand::Demote`],
    /// [`NodeCommand::Drain`] or the node. Sessions stay with who holds them, and are forwarded here.
    Promote,
    /// As configured again.
    Demote,
    /// Leave at once: peers take over without waiting for silence. For good.
    Shutdown,
}

/// One node's part in its cluster. After each `handle_*`, everything is polled until there is nothing left;
/// [`NodeCore::poll_timeout`] says when [`NodeCore::handle_timeout`] is due, and a node that is late by more
/// than a heartbeat and a half takes it that it has stood still.
#[derive(Debug)]
pub struct NodeCore {
    pub(super) config: ClusterConfig,
    pub(super) me: PeerId,
    pub(super) workers: u8,
    pub(super) shares: u64,
    pub(super) down_time: Duration,
    pub(super) vrrp_down_time: Duration,

    pub(super) last_now: Instant,
    /// Since when this node listens without a break: silence from before it proves nothing.
    pub(super) listening_since: Instant,

    pub(super) peers: Vec<PeerState>,
    pub(super) groups: BTreeMap<GroupId, Group>,
    /// Groups that are over, at most as many as there may be of others.
    pub(super) forgotten: Vec<Forgotten>,
    /// The group of new sessions.
    pub(super) own: Option<GroupId>,
    /// The highest generation that this life has opened.
    pub(super) last_generation: u64,
    /// Number of the last pull that was asked of workers.
    pub(super) last_pull: u32,
    /// Whether new sessions were let into a group of this life.
    pub(super) has_created: bool,
    pub(super) status: Vec<Option<SyncStatus>>,

    pub(super) readiness: Readiness,
    /// Since when there is no peer to join from.
    pub(super) alone_since: Instant,
    /// Since when this node is behind.
    pub(super) behind_since: Option<Instant>,
    /// Since when something is missing here that is only pulled.
    pub(super) lacks_since: Option<Instant>,

    pub(super) draining: bool,
    /// Draining, and there is an heir.
    pub(super) leaving: bool,
    pub(super) drained: bool,
    pub(super) stopped: bool,

    /// When the last heartbeat left.
    pub(super) sent_at: Option<Instant>,
    /// Since when the lease is uncertain.
    pub(super) lapsed_at: Option<Instant>,
    pub(super) heartbeat_at: Instant,
    pub(super) heartbeat_queued_at: Option<Instant>,
    /// Something that peers should know has changed.
    pub(super) news: bool,

    pub(super) create: Option<GroupId>,
    pub(super) peer_list: Arc<Vec<Peer>>,
    pub(super) answering: Arc<Answering>,
    pub(super) announce_again: Option<Instant>,
    /// When this node says next that its local addresses are its own, and how long it waits then.
    pub(super) assert_at: Option<Instant>,
    pub(super) assert_every: Duration,
    /// Whether a peer may take this node for dead.
    pub(super) doubted: bool,
    /// Levels are to be told now.
    pub(super) levels_due: bool,
    pub(super) refresh_at: Instant,

    pub(super) election: Election,
    pub(super) alarms: BTreeSet<Alarm>,
    pub(super) out: Outbox,
}

impl NodeCore {
    /// A node that starts, with `workers` workers, none of which has been told anything. `seed` spreads
    /// heartbeats of different nodes. Errors: everything that is wrong with the config.
    pub fn new(
        config: ClusterConfig,
        incarnation: Incarnation,
        workers: u8,
        seed: u64,
        now: Instant,
    ) -> Result<Self, Vec<ClusterConfigError>> {
        let mut errors = config.check().err().unwrap_or_default();
        if workers == 0 {
            errors.push(ClusterConfigError::NoWorkers);
        }
        if incarnation.0 == 0 {
            errors.push(ClusterConfigError::ZeroIncarnation);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let election = Election::new(&config, now).map_err(|e| alloc::vec![e])?;
        let me = PeerId {
            node: config.id,
            incarnation,
        };
        let mut peers: Vec<PeerState> = config
            .members
            .iter()
            .filter(|m| m.id != config.id)
            .map(PeerState::new)
            .collect();
        peers.sort_by_key(|p| p.id);
        let phase = seed % (config.heartbeat.as_nanos() as u64);
        let mut node = NodeCore {
            me,
            workers,
            shares: config.share_digest(),
            down_time: config.down_time(),
            vrrp_down_time: config.vrrp_down_time(),
            last_now: now,
            listening_since: now,
            peers,
            groups: BTreeMap::new(),
            forgotten: Vec::new(),
            own: None,
            last_generation: 0,
            last_pull: 0,
            has_created: false,
            status: alloc::vec![None; usize::from(workers)],
            readiness: Readiness::Joining,
            alone_since: now,
            behind_since: None,
            lacks_since: None,
            draining: false,
            leaving: false,
            drained: false,
            stopped: false,
            sent_at: None,
            lapsed_at: None,
            // The first one is sent at once, and the rest in this node's phase.
            heartbeat_at: now + Duration::from_nanos(phase),
            heartbeat_queued_at: None,
            news: true,
            create: None,
            peer_list: Arc::default(),
            answering: Arc::default(),
            announce_again: None,
            assert_at: None,
            assert_every: ASSERT_FIRST,
            doubted: false,
            levels_due: true,
            refresh_at: now + REFRESH,
            election,
            alarms: BTreeSet::new(),
            out: Outbox::default(),
            config,
        };
        node.open_generation(now);
        node.advance(now);
        Ok(node)
    }

    /// A frame that a data port has punted. What is no advertisement for a virtual router of this node is
    /// counted.
    pub fn handle_frame(&mut self, now: Instant, port: PortId, frame: &[u8]) {
        self.observe(now);
        match self.election.handle_frame(now, port, frame) {
            Ok(from) => {
                let heard = self.peers.iter_mut().find(|p| p.vrrp_sources.contains(&from));
                if let Some(peer) = heard {
                    peer.vrrp_heard_at = Some(now);
                }
            }
            Err(()) => self.out.counters.frame_refused += 1,
        }
        self.advance(now);
    }

    /// A message of another node. The sync receiver has checked from whom it is.
    pub fn handle_peer(&mut self, now: Instant, from: PeerId, message: &NodeMessage) {
        self.observe(now);
        if self.hear(now, from) {
            match message {
                NodeMessage::Heartbeat {
                    shares,
                    readiness,
                    draining,
                    claims,
                    hears,
                    late,
                } => {
                    let claims = claims.get(..super::GROUP_COUNT_MAX).unwrap_or(claims);
                    let leaves = *draining && *readiness == Readiness::Joining && claims.is_empty();
                    self.heartbeat_heard(
                        now,
                        from,
                        (*shares, *readiness, *draining),
                        claims,
                        (hears, *late),
                    );
                    if leaves {
                        self.peer_down(now, from.node);
                    }
                }
                NodeMessage::Fenced { group, epoch } => {
                    let claim = GroupClaim {
                        group: *group,
                        epoch: *epoch,
                        role: Role::Replica,
                    };
                    self.claimed(now, from, &claim);
                }
                NodeMessage::Handover { group, epoch } => self.handover_heard(now, from, *group, *epoch),
            }
        }
        self.advance(now);
    }

    /// What a worker has to say.
    pub fn handle_event(&mut self, now: Instant, worker: WorkerId, event: SyncEvent) {
        self.observe(now);
        if worker.0 >= self.workers {
            self.out.counters.worker_event_refused += 1;
            return;
        }
        match event {
            SyncEvent::AuthorityApplied(a) => {
                let known = self.groups.get_mut(&a.group);
                match known.filter(|g| g.epoch == a.epoch && g.role == a.role) {
                    Some(g) => g.applied.insert(worker),
                    // Of what was said before; the latest is on its way.
                    None => self.out.counters.worker_event_refused += 1,
                }
            }
            SyncEvent::Merged { group, epoch } => {
                self.worker_done(worker, group, Some(epoch), Role::Adopting)
            }
            SyncEvent::Offered { group } => self.worker_done(worker, group, None, Role::Fenced),
            SyncEvent::Status(status) => self.worker_status(worker, status),
            SyncEvent::Stale { from, group, .. } => {
                self.out.counters.stale_sections += 1;
                if let Some(g) = self.groups.get(&group)
                    && g.epoch.holder != from
                {
                    let epoch = g.epoch;
                    self.fence(from, group, epoch);
                }
            }
            SyncEvent::Refused(id) => self.refused(now, id),
            // Answers to what the node's greeting asks, and nobody asks here.
            SyncEvent::Numbers(..) | SyncEvent::SecretsApplied(_) => {
                self.out.counters.worker_event_refused += 1
            }
            SyncEvent::OutOfSync(id) => {
                if let Some(peer) = self.peers.iter_mut().find(|p| p.live() == Some(id)) {
                    peer.out_of_sync = true;
                    self.raise(Alarm::OutOfSync(id));
                }
            }
        }
        self.advance(now);
    }

    /// A heartbeat left this node at `at`: the leases of what it holds run from there.
    pub fn handle_sent(&mut self, now: Instant, at: Instant) {
        self.observe(now);
        self.sent_at = self.sent_at.max(Some(at.min(now)));
        self.advance(now);
        self.tell_lease();
    }

    /// A frame that [`NodeCore::poll_transmit`] gave left this node at `at`: advertisements renew the lease of
    /// the virtual addresses.
    pub fn handle_frame_sent(&mut self, now: Instant, at: Instant, frame: &[u8]) {
        self.observe(now);
        self.election.handle_sent(at, frame);
        self.advance(now);
    }

    /// What the operator wants.
    pub fn handle_command(&mut self, now: Instant, command: NodeCommand) {
        self.observe(now);
        if self.stopped {
            return;
        }
        match command {
            NodeCommand::Drain => {
                self.draining = true;
                self.election.set_promoted(now, false);
            }
            NodeCommand::Promote => self.election.set_promoted(now, true),
            NodeCommand::Demote => self.election.set_promoted(now, false),
            NodeCommand::Undrain => self.undrain(now),
            NodeCommand::Shutdown => self.shutdown(now),
        }
        self.news = true;
        self.advance(now);
    }

    /// Something is due by [`NodeCore::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        self.advance(now);
    }

    /// A frame for a data port.
    pub fn poll_transmit(&mut self) -> Option<(PortId, Vec<u8>)> {
        self.out.frames.pop_front()
    }

    /// A message for peers. When a heartbeat has left, [`NodeCore::handle_sent`] wants to know.
    pub fn poll_peer(&mut self) -> Option<(Destination, NodeMessage)> {
        self.out.messages.pop_front()
    }

    /// A command for a worker. A full queue may drop it: what matters is told again.
    pub fn poll_command(&mut self) -> Option<(WorkerId, SyncCommand)> {
        self.out.commands.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<NodeEvent> {
        self.out.events.pop_front()
    }

    /// When [`NodeCore::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return self.election.poll_timeout();
        }
        let mut at = self.heartbeat_at.min(self.refresh_at);
        if self.news {
            at = at.min(self.news_at());
        }
        for p in self.peers.iter().filter(|p| p.up) {
            at = at.min(self.dead_at(p));
        }
        for g in self.groups.values() {
            if g.wants_telling(self.workers) {
                at = at.min(g.told_at.map_or(self.last_now, |t| t + REPEAT));
            }
            let sent = g.handover.and_then(|h| h.sent_at);
            at = sent.map_or(at, |t| at.min(t + REPEAT));
        }
        if self.lapsed_at.is_none()
            && let Some(sent) = self.sent_at
        {
            at = at.min(sent + self.config.lease_time());
        }
        let cold = self.alone_since + self.config.join_time;
        if self.readiness == Readiness::Joining && cold > self.last_now {
            at = at.min(cold);
        }
        let others = [self.announce_again, self.assert_at, self.election.poll_timeout()];
        others.into_iter().flatten().chain([at]).min()
    }

    /// Who this node is, in this life.
    pub fn id(&self) -> PeerId {
        self.me
    }

    /// How far it is.
    pub fn readiness(&self) -> Readiness {
        self.readiness_of(self.me.node)
    }

    /// What it is to a group; `None`: it does not know it.
    pub fn role(&self, group: GroupId) -> Option<Role> {
        self.groups.get(&group).map(|g| g.role)
    }

    /// The highest epoch of a group that it knows.
    pub fn epoch(&self, group: GroupId) -> Option<Epoch> {
        self.groups.get(&group).map(|g| g.epoch)
    }

    /// All groups that it knows, with epoch and role, by their ids.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, Epoch, Role)> + '_ {
        self.groups.iter().map(|(id, g)| (*id, g.epoch, g.role))
    }

    /// Where new sessions go.
    pub fn creating(&self) -> Option<GroupId> {
        self.create
    }

    /// Whether it is the virtual router's master in a family.
    pub fn is_master(&self, family: Family) -> bool {
        self.election.is_master(family)
    }

    /// Until when a master is certain that nobody else is, as far as others hear it.
    pub fn master_lease_until(&self, family: Family) -> Option<Instant> {
        self.election.lease_until(family)
    }

    /// Until when the leases of the groups that it holds are certain; `None`: they are not.
    pub fn lease_until(&self) -> Option<Instant> {
        let sent = self.sent_at.filter(|_| self.lapsed_at.is_none())?;
        Some(sent + self.config.lease_time())
    }

    /// The peers that it hears.
    pub fn peers_up(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.iter().filter_map(PeerState::live)
    }

    /// The addresses that it answers for.
    pub fn answering(&self) -> &Answering {
        &self.answering
    }

    /// Whether it was told to leave and not to stay since.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether it serves: it answers for addresses, and lets new sessions in as far as it holds a group of its own.
    pub fn is_serving(&self) -> bool {
        self.serves() && !self.leaving
    }

    /// Whether it has a virtual router in any family.
    pub fn has_virtual_router(&self) -> bool {
        self.config.vrrp.is_some()
    }

    /// Whether it was promoted.
    pub fn is_promoted(&self) -> bool {
        self.election.is_promoted()
    }

    /// Whether all is handed over.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// What is wrong at present.
    pub fn alarms(&self) -> impl Iterator<Item = Alarm> + '_ {
        self.alarms.iter().copied()
    }

    /// What was counted.
    pub fn counters(&self) -> &NodeCounters {
        &self.out.counters
    }

    pub(super) fn serves(&self) -> bool {
        !self.stopped && self.readiness >= Readiness::Degraded
    }

    pub(super) fn peer(&self, node: NodeId) -> Option<&PeerState> {
        self.peers.iter().find(|p| p.id == node)
    }

    pub(super) fn readiness_of(&self, node: NodeId) -> Readiness {
        if node == self.me.node {
            // Behind by too much is not ready, and no reason to stop: nobody else may be better.
            let wrong = [Alarm::Lagging, Alarm::Incomplete];
            if wrong.iter().any(|a| self.alarms.contains(a)) {
                self.readiness.min(Readiness::Degraded)
            } else {
                self.readiness
            }
        } else {
            self.peer(node).map_or(Readiness::Joining, |p| p.readiness)
        }
    }

    pub(super) fn raise(&mut self, alarm: Alarm) {
        if self.alarms.insert(alarm) {
            self.out.event(NodeEvent::Alarm(alarm));
        }
    }

    pub(super) fn clear(&mut self, alarm: Alarm) {
        if self.alarms.remove(&alarm) {
            self.out.event(NodeEvent::Cleared(alarm));
        }
    }

    /// Raises or clears.
    pub(super) fn alarm_if(&mut self, wrong: bool, alarm: Alarm) {
        if wrong {
            self.raise(alarm)
        } else {
            self.clear(alarm)
        }
    }

    pub(super) fn all_workers(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.workers).map(WorkerId)
    }

    /// Everything that follows from what is known, in an order in which each step sees the ones before.
    fn advance(&mut self, now: Instant) {
        if !self.stopped {
            self.advance_peers(now);
            self.advance_lease(now);
            self.advance_roles(now);
            self.advance_handovers(now);
            self.advance_generations(now);
            self.advance_join(now);
            self.advance_forgetting(now);
            self.election.set_serving(now, self.serves() && !self.leaving);
        }
        self.election.advance(now, &mut self.out);
        self.advance_answering(now);
        if !self.stopped {
            self.tell_workers(now);
            self.tell_peers(now);
        }
    }

    /// Leaves at once.
    fn shutdown(&mut self, now: Instant) {
        self.stopped = true;
        self.create = None;
        self.election.stop(now);
        for w in self.all_workers() {
            self.out.command(w, SyncCommand::Create(None));
            self.out.command(w, SyncCommand::LeaseUntil(now));
        }
        self.out.heartbeat(NodeMessage::Heartbeat {
            shares: self.shares,
            readiness: Readiness::Joining,
            draining: true,
            claims: Vec::new(),
            hears: Vec::new(),
            late: 0,
        });
    }
}
