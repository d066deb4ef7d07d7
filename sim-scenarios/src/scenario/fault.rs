//! What goes wrong in a scenario, and when.

use std::time::Duration;

use super::Drawn;
use crate::mechanism::Kind;

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Clients' side.
    Clients,
    /// Servers' side.
    Servers,
    /// Among nodes.
    Sync,
    /// All three.
    All,
}

/// Which node a fault means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRef {
    /// This one.
    Id(u16),
    /// The one that answers for the VIPs at that time.
    Master,
    /// The living node with the smallest number that does not.
    Backup,
}

/// A step of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name, for `after`.
    pub name: String,
    /// When; counted from `after`.
    pub at: Drawn<Duration>,
    /// Index of an earlier fault.
    pub after: Option<usize>,
    /// How long, for what can be undone; `None`: for ever.
    pub lasts: Option<Drawn<Duration>>,
    /// What.
    pub action: Action,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// All state of the node is lost.
    Crash(NodeRef),
    /// The node starts, with nothing.
    Start(NodeRef),
    /// The node does nothing; whether its clock goes on.
    Pause(NodeRef, bool),
    /// It goes on.
    Resume(NodeRef),
    /// The node is asked to leave.
    Drain(NodeRef),
    /// The links of a node do not carry anything, or one way only.
    Cut(NodeRef, Network, Way),
    /// They do again.
    Heal(NodeRef, Network),
    /// The links of a node are bad.
    Disturb(NodeRef, Network, Way, Disturbance),
    /// The links of a node lose all frames but those by which a router finds out whether it is there.
    Dark(NodeRef, Network, Way),
    /// The NICs of a node lose the frames of this RSS bucket.
    Bucket(NodeRef, u16),
    /// Frames of a node do not reach another one, or the other way round.
    Part(NodeRef, NodeRef, Network, Way),
    /// Messages of these kinds do not get from the node to others; so many frames at most.
    Suppress {
        /// Sender; `None`: any.
        from: Option<NodeRef>,
        /// Receiver; `None`: any.
        to: Option<NodeRef>,
        /// What.
        kinds: Vec<Kind>,
        /// Frames; `None`: all.
        frames: Option<u32>,
    },
    /// The queues between a node's threads hold only so much.
    Queues(NodeRef, u32),
    /// Nothing: a time from which on something is measured.
    Look,
}

impl Action {
    /// The node to which it is done; `None`: to none, or to all.
    pub fn node(&self) -> Option<NodeRef> {
        match self {
            Action::Crash(n)
            | Action::Start(n)
            | Action::Pause(n, _)
            | Action::Resume(n)
            | Action::Drain(n)
            | Action::Cut(n, ..)
            | Action::Heal(n, _)
            | Action::Disturb(n, ..)
            | Action::Dark(n, ..)
            | Action::Bucket(n, _)
            | Action::Part(n, ..)
            | Action::Queues(n, _) => Some(*n),
            Action::Suppress { from, .. } => *from,
            Action::Look => None,
        }
    }

    /// Another node that it is about.
    pub fn to(&self) -> Option<NodeRef> {
        match self {
            Action::Suppress { to, .. } => *to,
            Action::Part(_, to, ..) => Some(*to),
            _ => None,
        }
    }

    /// Whether it is a disturbance, which a counter-proof of the disturbance itself leaves out.
    pub fn disturbs(&self) -> bool {
        matches!(
            self,
            Action::Disturb(..)
                | Action::Suppress { .. }
                | Action::Queues(..)
                | Action::Cut(..)
                | Action::Dark(..)
                | Action::Bucket(..)
                | Action::Part(..)
        )
    }
}

/// Direction of a fault, as the node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Both.
    Both,
    /// What it receives.
    In,
    /// What it sends.
    Out,
}

/// How links are bad, in millionths of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// Lost.
    pub loss_ppm: u32,
    /// They are lost one after the other, so many in the mean.
    pub burst: Option<u32>,
    /// Of ARP and neighbour discovery: lost.
    pub arp_ppm: u32,
    /// Doubled.
    pub duplicate_ppm: u32,
    /// Copies of a doubled one.
    pub copies: u8,
    /// Late.
    pub reorder_ppm: u32,
    /// By so much.
    pub reorder_by: Duration,
    /// With a flipped bit.
    pub corrupt_ppm: u32,
    /// All later by so much.
    pub delay: Duration,
    /// Bits a second, if fewer than the link has.
    pub bandwidth: Option<u64>,
}
