//! Another member, as this node sees it.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::config::Member;
use super::{GroupId, Incarnation, NodeId, PeerId};
use crate::sync::{GroupClaim, Readiness};
use crate::time::Instant;

/// Another member. It is up from a message of it on until its silence is long enough.
#[derive(Debug)]
pub(super) struct PeerState {
    pub(super) id: NodeId,
    pub(super) priority: u8,
    pub(super) vrrp_sources: Vec<IpAddr>,
    /// The latest life that was heard.
    pub(super) incarnation: Option<Incarnation>,
    pub(super) heard_at: Option<Instant>,
    pub(super) vrrp_heard_at: Option<Instant>,
    pub(super) up: bool,
    /// Until when heartbeats do not name it, although it is heard.
    pub(super) unnamed_until: Option<Instant>,
    /// No heartbeat of this life has come yet.
    pub(super) fresh: bool,
    /// This node has answered for its addresses since the first heartbeat of the life before.
    pub(super) answered: bool,
    /// What its last heartbeat said.
    pub(super) readiness: Readiness,
    pub(super) draining: bool,
    pub(super) shares_differ: bool,
    pub(super) claims: Vec<GroupClaim>,
    /// Whom it hears itself.
    pub(super) hears: Vec<PeerId>,
    pub(super) hears_me: bool,
    /// This node is too far behind for it to be waited for.
    pub(super) finds_me_late: bool,
    /// Since when it is up and does not hear this node.
    pub(super) deaf_since: Option<Instant>,
    pub(super) out_of_sync: bool,
    /// When it last had no room for something.
    pub(super) refused_at: Option<Instant>,
    /// Whether it named a group for which there is no room here.
    pub(super) group_refused: bool,
}

impl PeerState {
    pub(super) fn new(member: &Member) -> Self {
        PeerState {
            id: member.id,
            priority: member.priority,
            vrrp_sources: member.vrrp_sources.clone(),
            incarnation: None,
            heard_at: None,
            vrrp_heard_at: None,
            up: false,
            unnamed_until: None,
            fresh: true,
            answered: false,
            readiness: Readiness::Joining,
            draining: false,
            shares_differ: false,
            claims: Vec::new(),
            hears: Vec::new(),
            hears_me: false,
            finds_me_late: false,
            deaf_since: None,
            out_of_sync: false,
            refused_at: None,
            group_refused: false,
        }
    }

    /// Its present life, if it is up.
    pub(super) fn live(&self) -> Option<PeerId> {
        let incarnation = self.incarnation.filter(|_| self.up)?;
        Some(PeerId {
            node: self.id,
            incarnation,
        })
    }

    /// Up, and attracting traffic by itself.
    pub(super) fn serves(&self) -> bool {
        self.up && !self.draining && self.readiness >= Readiness::Degraded
    }

    /// Whether a group may be handed to it.
    pub(super) fn can_inherit(&self) -> bool {
        self.up
            && !self.draining
            && self.readiness == Readiness::Ready
            && self.hears_me
            && !self.shares_differ
            && !self.out_of_sync
    }

    /// As [`PeerState::live`], once it may be said: a peer that was thought dead is first told so, by heartbeats
    /// that do not name it. Of what changed meanwhile nothing was kept for it.
    pub(super) fn heard(&self, now: Instant) -> Option<PeerId> {
        let unnamed = self.unnamed_until.is_some_and(|until| now < until);
        self.live().filter(|_| !unnamed)
    }

    pub(super) fn claim(&self, group: GroupId) -> Option<&GroupClaim> {
        self.claims.iter().find(|c| c.group == group)
    }

    /// Forgets what another life has said.
    pub(super) fn begin_life(&mut self, incarnation: Incarnation) {
        self.incarnation = Some(incarnation);
        self.readiness = Readiness::Joining;
        self.draining = false;
        self.shares_differ = false;
        self.claims.clear();
        self.hears.clear();
        self.hears_me = false;
        self.finds_me_late = false;
        self.deaf_since = None;
        self.out_of_sync = false;
        self.refused_at = None;
        self.unnamed_until = None;
        self.fresh = true;
        self.group_refused = false;
    }
}
