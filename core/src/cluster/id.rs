//! Names of nodes, of their lives, of traffic groups and of the right to decide about them.

use core::fmt;

/// A node's number in its cluster, from the static member list; not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// A life of a node: every start has a larger one than all before. Not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// A node in one of its lives: the owner of a space of LSNs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    /// Which node.
    pub node: NodeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// The right to decide about a traffic group, once granted. Ordered: the later one wins. No start resumes
/// one, as the incarnation is part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Counts the grants of a group.
    pub term: u64,
    /// To whom it was granted.
    pub holder: PeerId,
}

/// A node group: the sessions that one node created in one generation. The unit that moves on failover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// Who created, on whose share the local ends lie.
    pub node: NodeId,
    /// The first generation of a life is its incarnation's number, each further one is one more.
    pub generation: u64,
}

/// What a node is to a traffic group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// Forwards, and hints to the holder; neither deletes nor expires.
    #[default]
    Replica = 0,
    /// As a replica whose holder's lease has ended.
    Orphan = 1,
    /// Has taken the group in a new epoch, and compares what others know with what it knows. Deletes and
    /// expires from the merge on.
    Adopting = 2,
    /// The holder: advances, deletes, expires.
    Owned = 3,
    /// Was the holder and is no longer certain of its lease: forwards, and deletes nothing.
    Suspect = 4,
    /// Was the holder, and knows that another one is: offers what only it has, then becomes a replica.
    Fenced = 5,
    /// The holder until another node has taken over; creates nothing.
    Draining = 6,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 7] = [
        Role::Replica,
        Role::Orphan,
        Role::Adopting,
        Role::Owned,
        Role::Suspect,
        Role::Fenced,
        Role::Draining,
    ];

    /// The role with this number.
    pub const fn from_u8(n: u8) -> Option<Self> {
        if (n as usize) < Self::ALL.len() {
            Some(Self::ALL[n as usize])
        } else {
            None
        }
    }

    /// Whether sessions advance, and are encoded, under this node's own epoch.
    pub const fn is_holder(self) -> bool {
        matches!(
            self,
            Role::Adopting | Role::Owned | Role::Suspect | Role::Draining
        )
    }
}

/// What a worker is told of a group. The latest one counts; it is told again until it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The group.
    pub group: GroupId,
    /// The highest epoch that is known of it; records of any other epoch change nothing.
    pub epoch: Epoch,
    /// What this node is to it.
    pub role: Role,
}
