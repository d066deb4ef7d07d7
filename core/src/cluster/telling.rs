//! What a node tells its workers and its peers, and when again.

use alloc::sync::Arc;
use core::time::Duration;

use super::group::Group;
use super::node::{NodeCore, REFRESH};
use super::{NodeEvent, Role};
use crate::sync::{GroupClaim, NodeMessage, Peer, Readiness, SyncCommand};
use crate::time::Instant;

/// What changes is told to peers at once, but no more often than this.
const HEARTBEAT_GAP: Duration = Duration::from_millis(5);

impl NodeCore {
    /// Commands for workers: levels that have changed or are due, authority that is not confirmed.
    pub(super) fn tell_workers(&mut self, now: Instant) {
        let peers = self.peers.iter().filter_map(|p| {
            Some(Peer {
                id: p.live()?,
                in_sync: !p.out_of_sync,
                ready: p.readiness == Readiness::Ready,
            })
        });
        if !peers.clone().eq(self.peer_list.iter().copied()) {
            self.peer_list = Arc::new(peers.collect());
            self.levels_due = true;
        }
        if self.refresh_at <= now {
            self.refresh_at = now + REFRESH;
            self.levels_due = true;
            self.tell_forgotten();
        }
        let levels = core::mem::take(&mut self.levels_due);
        if levels {
            // Before any authority: an adopter that knows no peers would wait for none.
            for w in self.all_workers() {
                self.out
                    .command(w, SyncCommand::Peers(Arc::clone(&self.peer_list)));
            }
        }
        // Newest generation first: where a fenced node creates is known before what it lost is fenced.
        if let Some(own) = self.own {
            self.tell_authority(now, own);
        }
        self.tell_create(now, levels);
        let wants = |g: &&Group| g.wants_telling(self.workers);
        if self.groups.values().any(|g| wants(&g)) {
            for id in self.group_ids() {
                self.tell_authority(now, id);
            }
        }
        if levels {
            for w in self.all_workers() {
                self.out
                    .command(w, SyncCommand::Answer(Arc::clone(&self.answering)));
            }
        }
        self.advance_pulls(now);
    }

    fn tell_create(&mut self, now: Instant, levels: bool) {
        let create = self.may_create();
        let changed = create != self.create;
        if changed {
            self.create = create;
            self.has_created |= create.is_some();
            self.out.event(NodeEvent::Creating(create));
        }
        // Told with each repetition of the group's authority too, as what is not known yet may be refused.
        let own = self.own.and_then(|id| self.groups.get(&id));
        let repeated = own.is_some_and(|g| g.told_at == Some(now));
        if !changed && own.is_some_and(|g| g.role == Role::Suspect) {
            // Workers go on as they did, and take up no new group to create in of which they are not certain.
            return;
        }
        if changed || levels || repeated {
            for w in self.all_workers() {
                self.out.command(w, SyncCommand::Create(create));
            }
        }
    }

    pub(super) fn tell_lease(&mut self) {
        if let Some(until) = self.lease_until() {
            for w in self.all_workers() {
                self.out.command(w, SyncCommand::LeaseUntil(until));
            }
        }
    }

    pub(super) fn news_at(&self) -> Instant {
        self.heartbeat_queued_at
            .map_or(self.last_now, |at| at + HEARTBEAT_GAP)
    }

    pub(super) fn tell_peers(&mut self, now: Instant) {
        let due = self.heartbeat_at <= now || (self.news && self.news_at() <= now);
        if !due {
            return;
        }
        self.news = false;
        self.heartbeat_queued_at = Some(now);
        if self.heartbeat_at <= now {
            self.heartbeat_at = self.heartbeat_at + self.config.heartbeat;
            if self.heartbeat_at <= now {
                self.heartbeat_at = now + self.config.heartbeat;
            }
        }
        let claims = self.groups.iter().map(|(&group, g)| GroupClaim {
            group,
            epoch: g.epoch,
            role: g.claimed_role(self.workers),
        });
        let heard = || {
            self.peers
                .iter()
                .filter_map(|p| Some((p.heard(now)?, p.out_of_sync)))
        };
        let late = heard()
            .zip(0..)
            .fold(0, |late, ((_, is), n)| late | u16::from(is) << n);
        let heartbeat = NodeMessage::Heartbeat {
            shares: self.shares,
            readiness: self.readiness(),
            draining: self.leaving,
            claims: claims.collect(),
            hears: heard().map(|(peer, _)| peer).collect(),
            late,
        };
        self.out.heartbeat(heartbeat);
    }
}
