//! Who is alive, who holds what: claims heard, leases, adoption, fencing.

use super::config::ClusterConfig;
use super::group::Group;
use super::member::PeerState;
use super::node::{NodeCore, REPEAT};
use super::role::RoleEvent;
use super::{
    Alarm, Authority, Destination, Epoch, GENERATION_COUNT_MAX, GROUP_COUNT_MAX, GroupId, NODE_COUNT_MAX,
    NodeEvent, NodeId, PeerId, Role,
};
use crate::port::WorkerId;
use crate::sync::{GroupClaim, NodeMessage, Readiness, SyncCommand};
use crate::time::Instant;
use alloc::vec::Vec;
use core::time::Duration;

/// For so long a peer that was thought dead is not named by heartbeats: three of them, one of which comes through.
fn unnamed(config: &ClusterConfig) -> Duration {
    config.heartbeat * 5 / 2
}

impl NodeCore {
    /// Time goes on. A node that stood still has heard nobody and was heard by nobody: others' silence proves
    /// nothing, its leases are uncertain before anything else happens, and after a long time it joins anew.
    pub(super) fn observe(&mut self, now: Instant) {
        let gap = now - self.last_now;
        self.last_now = self.last_now.max(now);
        if self.stopped {
            return;
        }
        let paused = gap > self.config.heartbeat * 3 / 2;
        if paused {
            self.out.counters.pauses += 1;
            self.listening_since = now;
            // Nor does it prove that there is nobody to join.
            self.alone_since = self.alone_since + gap;
        }
        let until = self.sent_at.map(|at| at + self.config.lease_time());
        if self.lapsed_at.is_none() && until.is_some_and(|until| until <= now) {
            self.lapsed_at = Some(now);
            self.raise(Alarm::LeaseOver);
            for id in self.group_ids() {
                self.step(now, id, RoleEvent::LeaseOver, None);
            }
        }
        // Only who serves could have taken over meanwhile.
        let others = self
            .peers
            .iter()
            .any(|p| p.up && p.readiness >= Readiness::Degraded);
        if paused && gap >= self.config.heartbeat * self.config.down_count && others {
            self.rejoin(now);
        }
    }

    /// Notes that `from` is there. `false`: its message is not to be followed.
    pub(super) fn hear(&mut self, now: Instant, from: PeerId) -> bool {
        let known = self.peers.iter_mut().find(|p| p.id == from.node);
        let Some(peer) = known.filter(|_| from.incarnation.0 != 0 && !self.stopped) else {
            self.out.counters.peer_unknown += 1;
            if from.node == self.me.node && from.incarnation > self.me.incarnation {
                self.raise(Alarm::DuplicateNode);
            }
            return false;
        };
        if peer.incarnation.is_some_and(|known| from.incarnation < known) {
            self.out.counters.peer_stale += 1;
            return false;
        }
        if peer.incarnation != Some(from.incarnation) {
            if peer.up {
                self.peer_down(now, from.node);
            }
            if let Some(peer) = self.peers.iter_mut().find(|p| p.id == from.node) {
                peer.begin_life(from.incarnation);
            }
        }
        if let Some(peer) = self.peers.iter_mut().find(|p| p.id == from.node) {
            peer.heard_at = Some(now);
            if !peer.up {
                peer.up = true;
                let unnamed = unnamed(&self.config);
                peer.unnamed_until = peer.unnamed_until.map(|_| now + unnamed);
                self.news = true;
                self.out.event(NodeEvent::PeerUp(from));
                self.break_copies(from);
            }
        }
        true
    }

    /// What a peer told may have been missed: its groups are to be pulled.
    fn break_copies(&mut self, of: PeerId) {
        let held = self.groups.values_mut().filter(|g| g.epoch.holder == of);
        for g in held {
            g.broken();
        }
    }

    pub(super) fn heartbeat_heard(
        &mut self,
        now: Instant,
        from: PeerId,
        (shares, readiness, draining): (u64, Readiness, bool),
        claims: &[GroupClaim],
        (hears, late): (&[PeerId], u16),
    ) {
        let (me, own_shares) = (self.me, self.shares);
        let Some(peer) = self.peers.iter_mut().find(|p| p.id == from.node) else {
            return;
        };
        // It was started and serves by now, and its addresses were thought to be nobody's and were taken: it is told that, as it
        // has to say again where they are.
        if core::mem::replace(&mut peer.fresh, false) {
            let answered = core::mem::replace(&mut peer.answered, false);
            if answered && !draining && readiness >= Readiness::Degraded {
                peer.unnamed_until = Some(now + unnamed(&self.config));
            }
        }
        peer.readiness = readiness;
        peer.draining = draining;
        peer.shares_differ = shares != own_shares;
        peer.claims.clear();
        peer.claims.extend_from_slice(claims);
        peer.hears.clear();
        peer.hears.extend(hears.iter().take(NODE_COUNT_MAX));
        let heard = core::mem::replace(&mut peer.hears_me, hears.contains(&me));
        let hears_me = peer.hears_me;
        let place = hears.iter().take(NODE_COUNT_MAX).position(|p| *p == me);
        peer.finds_me_late = place.is_some_and(|n| late >> n & 1 != 0);
        if hears_me {
            peer.deaf_since = None;
        } else {
            peer.deaf_since.get_or_insert(now);
        }
        self.alarm_if(shares != own_shares, Alarm::SharesDiffer(from.node));
        if heard && !hears_me {
            // It has thought this node dead, and forgotten what it had yet to tell it.
            self.break_copies(from);
        }
        if let Some(peer) = self.peers.iter_mut().find(|p| p.id == from.node) {
            peer.group_refused = false;
        }
        for claim in claims {
            self.claimed(now, from, claim);
        }
        let refused = self.peers.iter().any(|p| p.group_refused);
        self.alarm_if(refused, Alarm::GroupsFull);
        for (id, g) in &mut self.groups {
            if g.epoch.holder != from {
                continue;
            }
            if claims.iter().any(|c| c.group == *id && c.epoch == g.epoch) {
                g.unclaimed_since = None;
            } else {
                g.holder_role = None;
                g.unclaimed_since.get_or_insert(now);
            }
        }
    }

    /// What `from` knows of a group. The higher epoch wins, always.
    pub(super) fn claimed(&mut self, now: Instant, from: PeerId, claim: &GroupClaim) {
        let GroupClaim { group, epoch, role } = *claim;
        let member = |id: NodeId| self.config.member(id).is_some();
        let sane = member(group.node)
            && member(epoch.holder.node)
            && epoch.term != 0
            && epoch.holder.incarnation.0 != 0
            && (!role.is_holder() || epoch.holder == from);
        // Nobody can know more of this node's own grants than it does.
        let known = self.groups.get_mut(&group);
        let mine = epoch.holder == self.me && known.as_ref().is_none_or(|g| epoch > g.epoch);
        if !sane || mine {
            self.out.counters.claim_refused += u64::from(!sane);
            return;
        }
        let Some(g) = known else {
            self.learn(now, from, claim);
            return;
        };
        if epoch < g.epoch {
            if role.is_holder() {
                let epoch = g.epoch;
                self.fence(from, group, epoch);
            }
            return;
        }
        if epoch > g.epoch {
            let told = g
                .handover
                .is_some_and(|h| h.sent_at.is_some() && h.heir == epoch.holder);
            let event = if told {
                RoleEvent::HandedOver
            } else {
                RoleEvent::Superseded
            };
            let was_mine = g.role.is_holder();
            self.step(now, group, event, Some(epoch));
            if was_mine {
                self.out.event(match event {
                    RoleEvent::HandedOver => NodeEvent::HandedOver(group, epoch),
                    _ => NodeEvent::Fenced(group, epoch),
                });
            }
        }
        if let Some(g) = self.groups.get_mut(&group).filter(|_| epoch.holder == from) {
            g.holder_role = Some(role);
        }
    }

    /// A group that was not known. Of one whose holder is up only the holder's own word counts: others may not
    /// have noticed yet that it is over.
    fn learn(&mut self, now: Instant, from: PeerId, claim: &GroupClaim) {
        let GroupClaim {
            group,
            mut epoch,
            mut role,
        } = *claim;
        // It was over in a higher epoch: that one counts. Its holder takes it up again, so that whoever slept
        // through its end is fenced and learns of it.
        if let Some(ended) = self.ended_in(group).filter(|ended| *ended > epoch) {
            epoch = ended;
            role = Role::Replica;
        }
        let back = epoch.holder == self.me;
        let holder_up = self.peers.iter().any(|p| p.live() == Some(epoch.holder));
        if epoch.holder != from && holder_up {
            return;
        }
        let of_node = self.groups.keys().filter(|id| id.node == group.node).count();
        // One more of this node's: it learns at its start of those that others keep for it, and gives up its own.
        let most = GENERATION_COUNT_MAX + usize::from(group.node == self.me.node);
        if self.groups.len() >= GROUP_COUNT_MAX || of_node >= most {
            self.out.counters.group_refused += 1;
            if let Some(peer) = self.peers.iter_mut().find(|p| p.id == from.node) {
                peer.group_refused = true;
            }
            return;
        }
        let own = if back { Role::Owned } else { Role::Replica };
        let mut g = Group::new(epoch, own, now);
        g.holder_role = (epoch.holder == from).then_some(role);
        self.groups.insert(group, g);
        self.forgotten.retain(|f| f.id != group);
        self.news = true;
    }

    /// Tells a node that acts by a right that is over.
    pub(super) fn fence(&mut self, to: PeerId, group: GroupId, epoch: Epoch) {
        self.out
            .message(Destination::One(to), NodeMessage::Fenced { group, epoch });
    }

    pub(super) fn peer_down(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.iter_mut().find(|p| p.id == node) else {
            return;
        };
        let Some(id) = peer.live() else { return };
        peer.up = false;
        peer.hears.clear();
        peer.unnamed_until = Some(now);
        peer.hears_me = false;
        peer.finds_me_late = false;
        peer.deaf_since = None;
        peer.out_of_sync = false;
        peer.refused_at = None;
        peer.group_refused = false;
        self.news = true;
        self.out.event(NodeEvent::PeerDown(id));
        for alarm in [
            Alarm::OneWay(node),
            Alarm::SharesDiffer(node),
            Alarm::OutOfSync(id),
            Alarm::PeerFull(id),
        ] {
            self.clear(alarm);
        }
    }

    /// Whether a live peer hears this one. Else, where two nodes that do not hear each other have a third one
    /// between them, each would take from the other without end what the third one tells them of.
    fn is_heard_by_others(&self, id: PeerId) -> bool {
        let mut others = self.peers.iter().filter(|p| p.up && p.id != id.node);
        others.any(|p| p.hears.contains(&id))
    }

    /// Whether a life of a node is taken to be alive. `learned_at`: when a right of it was first heard of.
    pub(super) fn is_alive(&self, id: PeerId, learned_at: Instant) -> bool {
        if id.node == self.me.node {
            // An earlier life of this node is over.
            return id == self.me;
        }
        let Some(peer) = self.peer(id.node) else {
            return false;
        };
        if peer.incarnation == Some(id.incarnation) {
            return peer.up || self.is_heard_by_others(id);
        }
        if peer.incarnation.is_some_and(|i| i > id.incarnation) {
            return false;
        }
        if self.is_heard_by_others(id) {
            return true;
        }
        // Never heard itself, in that life. Give it the time that silence takes.
        let learned = learned_at + self.down_time;
        self.dead_at(peer).max(learned) > self.last_now
    }

    /// The end of the silence that makes a peer dead: by sync and VRRP both, and no earlier than this node has
    /// listened so long itself.
    pub(super) fn dead_at(&self, peer: &PeerState) -> Instant {
        let heard = peer.heard_at.max(Some(self.listening_since));
        let by_sync = heard.map(|at| at + self.down_time);
        let by_vrrp = peer.vrrp_heard_at.map(|at| at + self.vrrp_down_time);
        by_sync.max(by_vrrp).unwrap_or(self.last_now)
    }

    pub(super) fn worker_done(&mut self, worker: WorkerId, group: GroupId, epoch: Option<Epoch>, role: Role) {
        let known = self.groups.get_mut(&group);
        match known.filter(|g| g.role == role && epoch.is_none_or(|e| e == g.epoch)) {
            Some(g) => g.done.insert(worker),
            None => self.out.counters.worker_event_refused += 1,
        }
    }

    pub(super) fn group_ids(&self) -> Vec<GroupId> {
        self.groups.keys().copied().collect()
    }

    /// An edge of the table of roles. `false`: there is none from here.
    pub(super) fn step(&mut self, now: Instant, id: GroupId, event: RoleEvent, epoch: Option<Epoch>) -> bool {
        let Some(g) = self.groups.get_mut(&id) else {
            return false;
        };
        let Some(next) = g.role.after(event) else {
            return false;
        };
        let epoch = epoch.unwrap_or(g.epoch);
        if next == g.role && epoch == g.epoch {
            return true;
        }
        let adopted = g.role == Role::Adopting;
        g.become_(next, epoch, now);
        match event {
            // What it has must be compared before it counts as a copy again; the workers do that.
            RoleEvent::Superseded if next == Role::Fenced => g.broken(),
            RoleEvent::Offered => g.completed(),
            RoleEvent::LeaseOver => self.out.event(NodeEvent::Suspect(id)),
            RoleEvent::LeaseRenewed => self.out.event(NodeEvent::Renewed(id)),
            RoleEvent::Granted => self.out.event(NodeEvent::Adopting(id, epoch)),
            RoleEvent::Merged => self.out.event(NodeEvent::Adopted(id, epoch)),
            _ => {}
        }
        if adopted {
            self.clear(Alarm::AdoptedUnready(id));
        }
        self.news = true;
        true
    }

    pub(super) fn advance_peers(&mut self, now: Instant) {
        let time = self.down_time;
        for at in 0..self.peers.len() {
            let peer = &self.peers[at];
            if peer.up && self.dead_at(peer) <= now {
                self.peer_down(now, peer.id);
            }
        }
        for at in 0..self.peers.len() {
            let p = &self.peers[at];
            let node = p.id;
            let deaf = p.deaf_since.is_some_and(|s| s + time <= now);
            let life = p.incarnation.filter(|_| !p.up);
            // Of one that has died the others will not speak for long.
            let lasts = life.is_some() && self.dead_at(p) + time <= now;
            let heard_by_others = life
                .is_some_and(|incarnation| lasts && self.is_heard_by_others(PeerId { node, incarnation }));
            // Its advertisements alone keep it alive here, and what it tells is lost.
            let heard = p.heard_at.max(Some(self.listening_since));
            let silent = p.up && heard.is_some_and(|at| at + time + time <= now);
            self.alarm_if(deaf, Alarm::OneWay(node));
            self.alarm_if(heard_by_others || silent, Alarm::Unheard(node));
        }
    }

    /// After an uncertain lease: a heartbeat has left, and all peers were heard that could know of a higher
    /// epoch, or are dead. What they had said before it lapsed may have waited in a queue and does not count.
    pub(super) fn advance_lease(&mut self, now: Instant) {
        let (Some(lapsed), Some(sent)) = (self.lapsed_at, self.sent_at) else {
            return;
        };
        let fresh = lapsed + self.config.heartbeat;
        let heard = self
            .peers
            .iter()
            .filter(|p| p.up)
            .all(|p| p.heard_at >= Some(fresh));
        let waited = now >= lapsed + self.down_time || (now >= fresh && heard);
        if sent + self.config.lease_time() > now && waited {
            self.lapsed_at = None;
            self.clear(Alarm::LeaseOver);
            for id in self.group_ids() {
                self.step(now, id, RoleEvent::LeaseRenewed, None);
            }
            self.tell_lease();
        }
    }

    /// Holders die and come back, adoptions and fences end.
    pub(super) fn advance_roles(&mut self, now: Instant) {
        let all = u32::from(self.workers);
        for id in self.group_ids() {
            let Some(g) = self.groups.get(&id) else { continue };
            let alive = self.is_alive(g.epoch.holder, g.learned_at);
            let done = g.done.len() == all;
            match g.role {
                Role::Fenced if done => {
                    self.step(now, id, RoleEvent::Offered, None);
                }
                Role::Replica | Role::Fenced if !alive => {
                    self.step(now, id, RoleEvent::HolderDead, None);
                }
                Role::Orphan if alive => {
                    self.step(now, id, RoleEvent::HolderBack, None);
                }
                Role::Adopting if done => {
                    self.step(now, id, RoleEvent::Merged, None);
                }
                _ => {}
            }
            if self.role(id) == Some(Role::Orphan) && self.may_adopt(now) {
                self.adopt(now, id);
            }
        }
    }

    /// Whether this node is the one to take orphans: the live one with the highest readiness, priority and
    /// number, by its own view. Views may differ for a while: then the higher epoch wins.
    fn may_adopt(&self, now: Instant) -> bool {
        let rank = |node: NodeId| {
            let priority = self.config.member(node).map_or(0, |m| m.priority);
            (self.readiness_of(node), priority, node)
        };
        let staying = self.peers.iter().filter(|p| p.up && !p.draining);
        let best = staying.map(|p| rank(p.id)).max();
        let first = match best {
            Some(best) => !self.leaving && rank(self.me.node) > best,
            None => true,
        };
        let listened = now >= self.listening_since + self.down_time;
        first && listened && self.lapsed_at.is_none()
    }

    /// Takes a group in the next epoch.
    pub(super) fn adopt(&mut self, now: Instant, id: GroupId) {
        let Some(g) = self.groups.get(&id) else { return };
        let Some(term) = g.epoch.term.checked_add(1) else {
            self.raise(Alarm::TermsUsedUp(id));
            return;
        };
        let epoch = Epoch {
            term,
            holder: self.me,
        };
        if self.readiness() < Readiness::Ready {
            self.raise(Alarm::AdoptedUnready(id));
        }
        self.step(now, id, RoleEvent::Granted, Some(epoch));
    }

    /// The latest authority over a group, to whom has not confirmed it, or is to go on with it.
    pub(super) fn tell_authority(&mut self, now: Instant, id: GroupId) {
        let Some(g) = self.groups.get_mut(&id) else { return };
        let due = g.told_at.is_none_or(|at| at + REPEAT <= now);
        if !due || !g.wants_telling(self.workers) {
            return;
        }
        g.told_at = Some(now);
        let (role, merging) = (g.role, g.holder_role == Some(Role::Adopting));
        let authority = Authority {
            group: id,
            epoch: g.epoch,
            role: g.role,
        };
        for w in (0..self.workers).map(WorkerId) {
            let goes_on = match role {
                Role::Adopting | Role::Fenced => !g.done.contains(w),
                Role::Replica => merging,
                _ => false,
            };
            if !g.applied.contains(w) || goes_on {
                self.out.command(w, SyncCommand::Authority(authority));
            }
        }
    }
}
