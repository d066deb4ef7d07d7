//! What a node tells its operator, and the simulator.

use super::member::PeerState;
use super::{Epoch, GroupId, NodeCore, NodeId, PeerId, Role};
use crate::sync::{Readiness, SyncStatus};
use crate::time::Instant;
use crate::tuple::Family;

/// Something that happened to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    /// This node answers for the virtual addresses of a family.
    BecameMaster(Family),
    /// It does so no longer.
    BecameBackup(Family),
    /// It has what the others have, and serves.
    Ready,
    /// It serves without having asked anybody, or lags far behind.
    Degraded,
    /// A peer is heard, in this life for the first time or again.
    PeerUp(PeerId),
    /// A peer is silent, has another life now or has said that it leaves.
    PeerDown(PeerId),
    /// The holder is dead, and this node has taken the group in this epoch.
    Adopting(GroupId, Epoch),
    /// All workers have merged: this node decides.
    Adopted(GroupId, Epoch),
    /// Another node holds the group in this higher epoch.
    Fenced(GroupId, Epoch),
    /// The lease of what this node holds is uncertain.
    Suspect(GroupId),
    /// It is certain again.
    Renewed(GroupId),
    /// The heir has taken the group in this epoch.
    HandedOver(GroupId, Epoch),
    /// All groups are handed over: the node may go.
    Drained,
    /// The group was over and empty.
    Forgotten(GroupId),
    /// New sessions go to this group; `None`: none are created.
    Creating(Option<GroupId>),
    /// Something that an operator should see; told when it begins.
    Alarm(Alarm),
    /// It is over.
    Cleared(Alarm),
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// No peer that serves was found within the join time: this node serves with what it has.
    Cold,
    /// A virtual router's master is heard, and no peer on the sync network: this node cannot join.
    SyncUnreachable,
    /// A peer has another map of shares.
    SharesDiffer(NodeId),
    /// A peer that is heard does not hear this node.
    OneWay(NodeId),
    /// This node does not hear a peer on the sync network that others hear, or whose advertisements come: it is not dead, and
    /// keeps what it holds; but what it tells of its sessions is lost here.
    Unheard(NodeId),
    /// A peer is too far behind to be waited for.
    OutOfSync(PeerId),
    /// This node is too far behind itself.
    Lagging,
    /// Sessions of a live holder are missing here for longer than a second: there is no room for them, or what was
    /// lost does not come.
    Incomplete,
    /// A peer has no room for sessions that it is told.
    PeerFull(PeerId),
    /// A group was adopted by this node although it was not ready, as nobody else was.
    AdoptedUnready(GroupId),
    /// This node wants to leave and finds no ready peer to take over; it goes on serving.
    NoHeir,
    /// A peer names a group for which there is no room here.
    GroupsFull,
    /// As many generations of this node's sessions are alive as may be: it creates none until one is handed
    /// back or empty.
    GenerationsFull,
    /// Another node runs under this node's number.
    DuplicateNode,
    /// Terms of a group are used up: it can be adopted no more.
    TermsUsedUp(GroupId),
    /// No heartbeat leaves: what this node holds stays as it is.
    LeaseOver,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// Messages of nodes that are no members, or of this node itself.
    pub peer_unknown: u64,
    /// Messages of a life that is over.
    pub peer_stale: u64,
    /// Claims that cannot be: of groups of no member, or of another one's right.
    pub claim_refused: u64,
    /// Groups that were not taken up for want of room.
    pub group_refused: u64,
    /// HANDOVERs that were not followed.
    pub handover_refused: u64,
    /// Punted frames that were no advertisement for a virtual router of this node.
    pub frame_refused: u64,
    /// Events of workers that do not exist, or of groups that are not known.
    pub worker_event_refused: u64,
    /// Commands that found their queue full; they are told again.
    pub command_dropped: u64,
    /// Messages that found their queue full; they are told again.
    pub message_dropped: u64,
    /// Frames that found their queue full.
    pub frame_dropped: u64,
    /// Events that found their queue full.
    pub event_dropped: u64,
    /// Times that this node found itself late by more than a heartbeat and a half (it had stood still).
    pub pauses: u64,
    /// Records of an epoch that is over, as workers have seen them.
    pub stale_sections: u64,
}

/// Another member, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// Which.
    pub id: NodeId,
    /// Its present life, while it is heard.
    pub life: Option<PeerId>,
    /// When it was heard last.
    pub heard_at: Option<Instant>,
    /// How far it says that it is.
    pub readiness: Readiness,
    /// It wants to leave.
    pub draining: bool,
    /// It hears this node.
    pub hears_me: bool,
    /// It is too far behind to be waited for.
    pub out_of_sync: bool,
    /// What this node holds may be handed to it.
    pub can_inherit: bool,
    /// Records of it that are known to exist and are not applied here.
    pub behind: u64,
    /// Records of this node that it has not applied.
    pub unacked: u64,
}

/// A traffic group, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// Which.
    pub id: GroupId,
    /// The highest epoch that is known.
    pub epoch: Epoch,
    /// What this node is to it.
    pub role: Role,
    /// Sessions of it here, closed ones excluded.
    pub sessions: u64,
    /// Slots that are asked for and have not ended.
    pub outstanding: u64,
    /// Slots of which something is missing here, lost for good or refused for want of room.
    pub lacking: u64,
}

impl NodeCore {
    /// All other members, by their numbers.
    pub fn peer_reports(&self) -> impl Iterator<Item = PeerReport> + '_ {
        self.peers.iter().map(|peer| self.peer_report(peer))
    }

    fn peer_report(&self, peer: &PeerState) -> PeerReport {
        let life = peer.live();
        let sum = |of: fn(&SyncStatus) -> &[(PeerId, u64)]| {
            let all = self.status.iter().flatten().flat_map(of);
            let its = all.filter(|(id, _)| Some(*id) == life);
            its.fold(0u64, |n, (_, more)| n.saturating_add(*more))
        };
        PeerReport {
            id: peer.id,
            life,
            heard_at: peer.heard_at,
            readiness: peer.readiness,
            draining: peer.draining,
            hears_me: peer.hears_me,
            out_of_sync: peer.out_of_sync,
            can_inherit: peer.can_inherit(),
            behind: sum(|s| &s.behind),
            unacked: sum(|s| &s.unacked),
        }
    }

    /// All groups that it knows, by their ids.
    pub fn group_reports(&self) -> impl Iterator<Item = GroupReport> + '_ {
        let sum = |id: GroupId, of: fn(&SyncStatus) -> &[(GroupId, u32)]| {
            let all = self.status.iter().flatten().flat_map(of);
            let its = all.filter(|(group, _)| *group == id);
            its.map(|(_, n)| u64::from(*n)).sum()
        };
        self.groups().map(move |(id, epoch, role)| GroupReport {
            id,
            epoch,
            role,
            sessions: sum(id, |s| &s.sessions),
            outstanding: sum(id, |s| &s.outstanding),
            lacking: sum(id, |s| &s.lacking),
        })
    }
}
