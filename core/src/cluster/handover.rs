//! Groups that change hands by agreement, new generations, and groups that are over.

use core::time::Duration;

use super::group::{Group, Handover};
use super::join::BEHIND_COUNT_MAX;
use super::node::{NodeCore, REPEAT};
use super::role::RoleEvent;
use super::{
    Alarm, Destination, Epoch, GENERATION_COUNT_MAX, GROUP_COUNT_MAX, GroupId, NodeEvent, PeerId, Role,
};
use crate::port::WorkerId;
use crate::sync::{NodeMessage, Readiness, SyncCommand};
use crate::time::Instant;

/// A group in which nothing is created any more is over once it was empty for this time.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(10);
/// A group is over once its holder, who is up, has not claimed it for this time.
pub(super) const UNCLAIMED: Duration = Duration::from_secs(1);
/// After this time a few records on their way to the heir do not delay a handover any more.
pub(super) const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// So often workers are told that a group is over.
const FORGET_REPEATS: u8 = 3;

/// A group that was over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forgotten {
    pub(super) id: GroupId,
    /// The highest one that it had.
    pub(super) epoch: Epoch,
    /// How often workers are still to be told.
    tell: u8,
}

impl NodeCore {
    /// The ready peer to which this node leaves what it holds.
    fn heir(&self) -> Option<PeerId> {
        let ready = self.peers.iter().filter(|p| p.can_inherit());
        ready.max_by_key(|p| (p.priority, p.id)).and_then(|p| p.live())
    }

    /// What a peer has not applied of what this node has told or has yet to tell.
    fn unacked(&self, peer: PeerId) -> u64 {
        let all = self.status.iter().flatten().flat_map(|s| &s.unacked);
        all.filter(|(id, _)| *id == peer)
            .fold(0, |n, (_, m)| n.saturating_add(*m))
    }

    /// Drain, and groups that go home.
    pub(super) fn advance_handovers(&mut self, now: Instant) {
        let heir = self.heir();
        if self.draining {
            if heir.is_some() && !self.leaving {
                self.leaving = true;
                self.news = true;
            }
            self.alarm_if(heir.is_none() && !self.drained, Alarm::NoHeir);
        }
        for id in self.group_ids() {
            let to = match heir {
                Some(heir) if self.leaving => Some(heir),
                _ if self.leaving => None,
                _ => self.home_in_need(id),
            };
            if let Some(heir) = to
                && self.step(now, id, RoleEvent::Drain, None)
                && let Some(g) = self.groups.get_mut(&id)
            {
                g.handover.get_or_insert(Handover { heir, sent_at: None });
            }
            self.advance_handover(now, id, heir);
        }
        let holds = self.groups.values().any(|g| g.role.is_holder());
        if self.leaving && !holds && !self.drained {
            self.drained = true;
            self.news = true;
            self.out.event(NodeEvent::Drained);
        }
    }

    /// The home of a group of another node, if it is ready and may open no generation: then it gets this one
    /// back, the oldest that this node has of it.
    fn home_in_need(&self, id: GroupId) -> Option<PeerId> {
        let home = self.peer(id.node).filter(|p| p.can_inherit())?;
        let of_home = || self.groups.iter().filter(|(g, _)| g.node == id.node);
        let creates = home
            .claims
            .iter()
            .any(|c| c.group.node == id.node && c.role.is_holder() && Some(c.epoch.holder) == home.live());
        let oldest = of_home().find(|(_, g)| matches!(g.role, Role::Owned | Role::Draining));
        let needs = !creates && of_home().count() >= GENERATION_COUNT_MAX;
        let is_oldest = oldest.is_some_and(|(g, _)| *g == id);
        home.live().filter(|_| needs && is_oldest)
    }

    fn advance_handover(&mut self, now: Instant, id: GroupId, other: Option<PeerId>) {
        let Some(g) = self.groups.get(&id).filter(|g| g.role == Role::Draining) else {
            return;
        };
        let Some(handover) = g.handover else { return };
        let ready = |id: PeerId| {
            let peer = self.peer(id.node);
            peer.is_some_and(|p| p.live() == Some(id) && p.can_inherit())
        };
        if !ready(handover.heir) {
            match other.filter(|_| self.leaving) {
                Some(heir) => {
                    if let Some(g) = self.groups.get_mut(&id) {
                        g.handover = Some(Handover { heir, sent_at: None });
                    }
                }
                // Nobody is there to take it: go on as the holder, and as one that serves.
                None => {
                    self.step(now, id, RoleEvent::Undrain, None);
                    self.leaving = false;
                }
            }
            return;
        }
        let confirmed = g.applied.len() == u32::from(self.workers);
        let due = handover.sent_at.is_none_or(|at| at + REPEAT <= now);
        // Once it was sent it is repeated whatever else is changed since: the heir may have begun. Where changes
        // never pause, a few that are on their way do no harm: the heir's workers compare before they merge.
        let most = if now >= g.since + DRAIN_PATIENCE {
            BEHIND_COUNT_MAX
        } else {
            0
        };
        let all_told = handover.sent_at.is_some() || self.unacked(handover.heir) <= most;
        if confirmed && due && all_told && self.lapsed_at.is_none() {
            let epoch = g.epoch;
            if let Some(h) = self.groups.get_mut(&id).and_then(|g| g.handover.as_mut()) {
                h.sent_at = Some(now);
            }
            let message = NodeMessage::Handover { group: id, epoch };
            self.out.message(Destination::One(handover.heir), message);
        }
    }

    /// A holder gives a group to this node.
    pub(super) fn handover_heard(&mut self, now: Instant, from: PeerId, group: GroupId, epoch: Epoch) {
        let ready = self.readiness() == Readiness::Ready
            && !self.draining
            && self.lapsed_at.is_none()
            && !self.stopped;
        let Some(g) = self.groups.get(&group).filter(|_| epoch.holder == from) else {
            self.out.counters.handover_refused += 1;
            return;
        };
        if g.epoch > epoch {
            // Taken already; the holder has not heard it yet.
            return;
        }
        if g.epoch == epoch && g.role == Role::Replica && g.complete && ready {
            self.adopt(now, group);
        } else {
            self.out.counters.handover_refused += 1;
        }
    }

    pub(super) fn undrain(&mut self, now: Instant) {
        self.draining = false;
        self.leaving = false;
        self.drained = false;
        self.clear(Alarm::NoHeir);
        for id in self.group_ids() {
            let told = self
                .groups
                .get(&id)
                .and_then(|g| g.handover)
                .is_some_and(|h| h.sent_at.is_some());
            // What the heir was told it may take, it takes.
            if !told {
                self.step(now, id, RoleEvent::Undrain, None);
            }
        }
    }

    /// Where new sessions go: the own group, as long as this node holds it; else another one of its own that was
    /// handed back, or a new generation.
    pub(super) fn advance_generations(&mut self, now: Instant) {
        if self.leaving {
            return;
        }
        let count = self.groups.keys().filter(|id| id.node == self.me.node).count();
        let role = self.own.and_then(|id| self.role(id));
        if matches!(role, Some(Role::Owned | Role::Suspect | Role::Adopting)) {
            if count > GENERATION_COUNT_MAX
                && !self.has_created
                && let Some(own) = self.own.take()
            {
                // Nothing is in it yet, and peers have no room for one more.
                self.forget(own);
            }
            return self.clear(Alarm::GenerationsFull);
        }
        let mut held = self.groups.iter().rev();
        let back = held.find(|(id, g)| id.node == self.me.node && g.role == Role::Owned);
        self.own = back.map(|(id, _)| *id);
        if self.own.is_some() {
            self.news = true;
        } else if count < GENERATION_COUNT_MAX {
            self.open_generation(now);
        }
        self.alarm_if(self.own.is_none(), Alarm::GenerationsFull);
    }

    /// A new group of this node, its holder from the start, as nobody else knows of it.
    pub(super) fn open_generation(&mut self, now: Instant) {
        let known = self.groups.keys().filter(|id| id.node == self.me.node);
        let highest = known
            .map(|id| id.generation)
            .max()
            .map_or(self.last_generation, |g| g.max(self.last_generation));
        let generation = if highest == 0 {
            self.me.incarnation.0
        } else {
            highest.saturating_add(1)
        };
        let id = GroupId {
            node: self.me.node,
            generation,
        };
        if self.groups.len() >= GROUP_COUNT_MAX || self.groups.contains_key(&id) {
            return;
        }
        let epoch = Epoch {
            term: 1,
            holder: self.me,
        };
        self.groups.insert(id, Group::new(epoch, Role::Owned, now));
        self.last_generation = generation;
        self.own = Some(id);
        self.news = true;
    }

    /// Groups in which nothing is created any more, and nothing is left.
    pub(super) fn advance_forgetting(&mut self, now: Instant) {
        for id in self.group_ids() {
            let Some(g) = self.groups.get(&id) else { continue };
            let empty = g.role == Role::Owned && Some(id) != self.own && self.is_empty(id);
            let Some(g) = self.groups.get_mut(&id) else {
                continue;
            };
            let over = match g.role {
                Role::Owned if empty => now >= *g.empty_since.get_or_insert(now) + FORGET_AFTER,
                Role::Replica => g.unclaimed_since.is_some_and(|at| now >= at + UNCLAIMED),
                _ => {
                    g.empty_since = None;
                    false
                }
            };
            if over {
                self.forget(id);
            }
        }
    }

    /// Whether no worker has a session of a group, and all peers that are waited for know it.
    fn is_empty(&self, id: GroupId) -> bool {
        let none = self.status.iter().all(|s| {
            let s = s.as_ref();
            s.is_some_and(|s| s.sessions.iter().all(|(g, n)| *g != id || *n == 0))
        });
        let mut waited_for = self.peers.iter().filter(|p| !p.out_of_sync);
        none && waited_for.all(|p| p.live().is_none_or(|id| self.unacked(id) == 0))
    }

    fn forget(&mut self, id: GroupId) {
        let Some(group) = self.groups.remove(&id) else {
            return;
        };
        if self.forgotten.len() == GROUP_COUNT_MAX {
            self.forgotten.remove(0);
        }
        self.forgotten.push(Forgotten {
            id,
            epoch: group.epoch,
            tell: FORGET_REPEATS,
        });
        self.out.event(NodeEvent::Forgotten(id));
        self.clear(Alarm::AdoptedUnready(id));
        self.clear(Alarm::TermsUsedUp(id));
        self.news = true;
        for w in self.all_workers() {
            self.out.command(w, SyncCommand::Forget(id));
        }
    }

    /// The epoch in which a group ended that this node has known: by a lower one it is not opened again.
    pub(super) fn ended_in(&self, id: GroupId) -> Option<Epoch> {
        let found = self.forgotten.iter().find(|f| f.id == id);
        found.map(|f| f.epoch)
    }

    pub(super) fn tell_forgotten(&mut self) {
        for f in self.forgotten.iter_mut().filter(|f| f.tell > 0) {
            f.tell -= 1;
            for w in (0..self.workers).map(WorkerId) {
                self.out.command(w, SyncCommand::Forget(f.id));
            }
        }
    }
}
