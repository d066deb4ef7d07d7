//! How a node gets what the others have, and when it may attract traffic.

use core::time::Duration;

use super::group::{Group, Pull};
use super::member::PeerState;
use super::node::NodeCore;
use super::{Alarm, GroupId, NodeEvent, PeerId, Role};
use crate::planted::{self, Bug};
use crate::port::WorkerId;
use crate::sync::{PullMode, Readiness, SyncCommand, SyncStatus};
use crate::time::Instant;

/// Records of a peer that are known and not applied: below, a node keeps up with it.
pub(super) const BEHIND_COUNT_MAX: u64 = 64;
/// A node that is behind for this time is too far behind.
const BEHIND_TIME: Duration = Duration::from_secs(1);
/// A peer that refuses nothing for this time may have room again.
const REFUSED_TIME: Duration = Duration::from_secs(2);
/// So often workers whose pull has not ended are told of it again: what is told may be lost.
const PULL_AGAIN: Duration = Duration::from_millis(200);

impl NodeCore {
    pub(super) fn worker_status(&mut self, worker: WorkerId, status: SyncStatus) {
        for (id, g) in &mut self.groups {
            if g.pull.asked_at.is_none() || g.pull.ended.contains(worker) {
                continue;
            }
            let number = g.pull.number;
            if status.pulled.iter().any(|(group, n)| group == id && *n == number) {
                g.pull.ended.insert(worker);
            }
            if g.pull.ended.len() == u32::from(self.workers) {
                g.completed();
            }
        }
        if let Some(place) = self.status.get_mut(usize::from(worker.0)) {
            *place = Some(status);
        }
        let status = &self.status;
        let mut caught_up: Option<PeerId> = None;
        for peer in self.peers.iter_mut().filter(|p| p.out_of_sync) {
            let Some(id) = peer.live() else { continue };
            let of_it = |s: &SyncStatus| {
                let mut unacked = s.unacked.iter().filter(|(of, _)| *of == id);
                // Few records may be all that there were while it stood still: it has caught up once it acks them.
                unacked.all(|(_, n)| *n < BEHIND_COUNT_MAX) && !s.late.contains(&id)
            };
            if status.iter().flatten().all(of_it) {
                peer.out_of_sync = false;
                caught_up = Some(id);
            }
        }
        if let Some(id) = caught_up {
            self.clear(Alarm::OutOfSync(id));
        }
    }

    /// This node stood still so long that others may have gone on without it: what it knows is to be compared,
    /// and it attracts nothing before.
    pub(super) fn rejoin(&mut self, now: Instant) {
        self.readiness = Readiness::Joining;
        self.alone_since = now;
        self.news = true;
        self.election.set_serving(now, false);
        for g in self.groups.values_mut().filter(|g| !g.role.is_holder()) {
            g.broken();
        }
    }

    /// Whether a live peer's records are missing here by more than a few.
    fn is_behind(&self) -> bool {
        let all = || self.status.iter().flatten().flat_map(|s| &s.behind);
        self.peers_up().any(|peer| {
            let of = all().filter(|(id, _)| *id == peer);
            of.fold(0u64, |n, (_, m)| n.saturating_add(*m)) >= BEHIND_COUNT_MAX
        })
    }

    /// Whether this node has what all peers have that serve.
    fn has_caught_up(&self) -> bool {
        let mut serving = self
            .peers
            .iter()
            .filter(|p| p.up && p.readiness >= Readiness::Degraded)
            .peekable();
        if serving.peek().is_none() || self.peers.iter().any(|p| p.up && p.shares_differ) {
            return false;
        }
        let copied = self.groups.iter().all(|(id, g)| match g.role {
            _ if g.complete => true,
            // What others have of it is not merged yet.
            Role::Adopting => false,
            role if role.is_holder() => true,
            // A holder that joins may have begun just now, and has little; or has stood still, and has all.
            _ => !self.peers_up().any(|p| p == g.epoch.holder) && self.source(*id).is_none(),
        });
        serving.all(|p| p.hears_me) && copied && !self.is_behind()
    }

    pub(super) fn advance_join(&mut self, now: Instant) {
        let serving = self
            .peers
            .iter()
            .any(|p| p.up && p.readiness >= Readiness::Degraded);
        let differs = self.peers.iter().any(|p| p.up && p.shares_differ);
        let unreachable = self.readiness == Readiness::Joining
            && !self.peers.iter().any(|p| p.up)
            && self.election.heard_within(now, self.vrrp_down_time);
        self.alarm_if(unreachable, Alarm::SyncUnreachable);
        if serving || differs || unreachable {
            self.alone_since = now;
        }
        let before = self.readiness;
        let open = planted::has(Bug::ReadinessGate);
        if self.readiness < Readiness::Ready && (self.peers.is_empty() || open || self.has_caught_up()) {
            self.readiness = Readiness::Ready;
            self.clear(Alarm::Cold);
            self.out.event(NodeEvent::Ready);
        } else if self.readiness == Readiness::Joining && now >= self.alone_since + self.config.join_time {
            self.readiness = Readiness::Degraded;
            self.raise(Alarm::Cold);
            self.out.event(NodeEvent::Degraded);
        }
        self.news |= self.readiness != before;
        self.judge_itself(now);
        self.advance_refusals(now);
    }

    /// Whether something of what a live peer holds is missing here for good, unless it is pulled.
    fn lacks(&self) -> bool {
        let lacking = self.status.iter().flatten().flat_map(|s| &s.lacking);
        lacking.filter(|(_, n)| *n > 0).any(|(id, _)| {
            let holder = self.groups.get(id).map(|g| g.epoch.holder);
            holder.is_some_and(|h| self.peers_up().any(|p| p == h))
        })
    }

    /// A node judges itself too.
    fn judge_itself(&mut self, now: Instant) {
        let before = self.readiness();
        // Who tells this node that it is out of sync has waited long enough.
        let told = self.peers.iter().any(|p| p.up && p.finds_me_late);
        for (wrong, alarm) in [
            (told || self.is_behind(), Alarm::Lagging),
            (self.lacks(), Alarm::Incomplete),
        ] {
            let since = match alarm {
                Alarm::Lagging => &mut self.behind_since,
                _ => &mut self.lacks_since,
            };
            if !wrong {
                *since = None;
                self.clear(alarm);
            } else if now >= *since.get_or_insert(now) + BEHIND_TIME || told && alarm == Alarm::Lagging {
                self.raise(alarm);
            }
        }
        let after = self.readiness();
        if after != before {
            self.news = true;
            self.out.event(if after == Readiness::Ready {
                NodeEvent::Ready
            } else {
                NodeEvent::Degraded
            });
        }
    }

    /// A peer had no room for records of this node.
    pub(super) fn refused(&mut self, now: Instant, id: PeerId) {
        if let Some(peer) = self.peers.iter_mut().find(|p| p.live() == Some(id)) {
            peer.refused_at = Some(now);
            self.raise(Alarm::PeerFull(id));
        }
    }

    /// A peer that has not refused anything for a while and says that it is ready has room again.
    fn advance_refusals(&mut self, now: Instant) {
        let quiet = |p: &&mut PeerState| p.refused_at.is_some_and(|at| now >= at + REFUSED_TIME);
        let over = self
            .peers
            .iter_mut()
            .filter(quiet)
            .find(|p| p.readiness == Readiness::Ready);
        if let Some(peer) = over {
            peer.refused_at = None;
            if let Some(id) = peer.live() {
                self.clear(Alarm::PeerFull(id));
            }
        }
    }

    /// The group of new sessions, if any may be created: this node serves, and knows of all local ends on its
    /// share that others keep alive.
    pub(super) fn may_create(&self) -> Option<GroupId> {
        let own = self.own?;
        if !self.serves() || self.leaving {
            return None;
        }
        let role = self.role(own)?;
        let known = self
            .groups
            .iter()
            .all(|(id, g)| id.node != self.me.node || g.complete_once || self.source(*id).is_none());
        let holds = matches!(role, Role::Owned | Role::Suspect | Role::Adopting);
        (known && holds).then_some(own)
    }

    /// From whom a group is to be pulled: its holder, else who is readiest of those that know it.
    fn source(&self, id: GroupId) -> Option<PeerId> {
        let holder = self.groups.get(&id)?.epoch.holder;
        let knows = |p: &&PeerState| p.up && p.hears_me && p.claim(id).is_some();
        let all = || self.peers.iter().filter(knows);
        let by_holder = all().find(|p| p.live() == Some(holder));
        let best = by_holder.or_else(|| all().max_by_key(|p| (p.readiness, p.priority, p.id)));
        best.and_then(|p| p.live())
    }

    /// Whether this source is to be asked now. Who joins itself may have nothing yet: it is asked only if nobody is there who
    /// has more, and that somebody does not hear this node yet is no reason to take less.
    fn may_ask(&self, id: GroupId, source: PeerId) -> bool {
        let holder = self.groups.get(&id).map(|g| g.epoch.holder);
        let holds = |p: &&PeerState| holder.is_some() && p.live() == holder;
        let has = |p: &&PeerState| holds(p) || p.claim(id).is_some() && p.readiness >= Readiness::Degraded;
        let mut have = self.peers.iter().filter(|p| p.up).filter(has).peekable();
        have.peek().is_none() || have.any(|p| p.live() == Some(source))
    }

    /// Asks for what this node does not have: each worker once it knows the group, and again until it has ended.
    pub(super) fn advance_pulls(&mut self, now: Instant) {
        for id in self.group_ids() {
            let lacks = |g: &Group| matches!(g.role, Role::Replica | Role::Orphan) && !g.complete;
            if !self.groups.get(&id).is_some_and(lacks) {
                continue;
            }
            let Some(source) = self.source(id).filter(|source| self.may_ask(id, *source)) else {
                continue;
            };
            let before = self.groups.get(&id).and_then(|g| g.pull.source);
            let is_there = before.is_some_and(|before| self.peers_up().any(|p| p == before));
            let Some(g) = self.groups.get_mut(&id) else {
                continue;
            };
            if before != Some(source) {
                // What one gave who is gone need not come again. Of one who is there still, and knew less, it must.
                let kept = if is_there { Pull::default() } else { g.pull };
                g.pull = Pull {
                    source: Some(source),
                    ended: kept.ended,
                    number: kept.number,
                    ..Pull::default()
                };
            }
            if g.pull.number == 0 {
                self.last_pull = self.last_pull.wrapping_add(1).max(1);
                g.pull.number = self.last_pull;
            }
            let again = g.pull.asked_at.is_some_and(|at| at + PULL_AGAIN <= now);
            let mut asked = false;
            for w in (0..self.workers).map(WorkerId) {
                let wants = again || !g.pull.asked.contains(w);
                // A worker that does not know the group yet could do nothing with it.
                if wants && g.applied.contains(w) && !g.pull.ended.contains(w) {
                    asked = true;
                    g.pull.asked.insert(w);
                    let mode = PullMode::Replace;
                    self.out.command(
                        w,
                        SyncCommand::Pull {
                            group: id,
                            source,
                            mode,
                            number: g.pull.number,
                        },
                    );
                }
            }
            if asked {
                g.pull.asked_at = Some(now);
            }
        }
    }
}
