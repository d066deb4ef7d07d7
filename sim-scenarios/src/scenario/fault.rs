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
    /// When; counted from `after`, or from what `when` waits for.
    pub at: Drawn<Duration>,
    /// Index of an earlier fault.
    pub after: Option<usize>,
    /// What must happen first, or go on meanwhile; once `after` has begun.
    pub when: Option<Trigger>,
    /// It need not happen: what it waits for may never come.
    pub optional: bool,
    /// How long, for what can be undone; `None`: for ever.
    pub lasts: Option<Drawn<Duration>>,
    /// What.
    pub action: Action,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// All that the node has in memory is lost. Whether its disk is kept for the start at the fault's end.
    Crash(NodeRef, bool),
    /// The node starts, with nothing in memory; whether its disk is still there.
    Start(NodeRef, bool),
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
    /// What the node receives of others' frames is not what they sent: somebody on the way is no friend. Checksums are right.
    Tamper(NodeRef, Tampering),
    /// The queues between a node's threads hold only so much.
    Queues(NodeRef, u32),
    /// Its rings hold only so many frames.
    Rings(NodeRef, u32),
    /// All work of the node, or of one of its workers, takes this factor longer.
    Slow(NodeRef, Option<u8>, u32),
    /// Its tables are filled up to this share, in millionths, with sessions that nobody uses.
    Fill(NodeRef, u32),
    /// This share, in millionths, of the sessions that it holds for other nodes is lost there, or is not what it was.
    Damage(NodeRef, u32),
    /// Its clock is faster by so many millionths, or slower.
    Drift(NodeRef, i32),
    /// Its clock jumps forward.
    Step(NodeRef, Duration),
    /// Its wall clock is set forward by so many nanoseconds, or back.
    SetWall(NodeRef, i64),
    /// Nodes get another config.
    Config(Option<NodeRef>, Change),
    /// The health check of a real server fails, on one node or on all.
    Unhealthy(Option<NodeRef>, ServerRef),
    /// Nothing: a time from which on something is measured.
    Look,
}

impl Action {
    /// The node to which it is done; `None`: to none, or to all.
    pub fn node(&self) -> Option<NodeRef> {
        match self {
            Action::Crash(n, _)
            | Action::Start(n, _)
            | Action::Pause(n, _)
            | Action::Resume(n)
            | Action::Drain(n)
            | Action::Cut(n, ..)
            | Action::Heal(n, _)
            | Action::Disturb(n, ..)
            | Action::Dark(n, ..)
            | Action::Bucket(n, _)
            | Action::Part(n, ..)
            | Action::Tamper(n, _)
            | Action::Queues(n, _)
            | Action::Rings(n, _)
            | Action::Slow(n, ..)
            | Action::Fill(n, _)
            | Action::Damage(n, _)
            | Action::Drift(n, _)
            | Action::Step(n, _)
            | Action::SetWall(n, _) => Some(*n),
            Action::Suppress { from, .. } => *from,
            Action::Config(node, _) | Action::Unhealthy(node, _) => *node,
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
                | Action::Tamper(..)
                | Action::Queues(..)
                | Action::Cut(..)
                | Action::Dark(..)
                | Action::Bucket(..)
                | Action::Part(..)
                | Action::Rings(..)
                | Action::Slow(..)
                | Action::Fill(..)
                | Action::Damage(..)
        )
    }
}

/// What comes in the place of every second frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// The same one with another byte in it.
    Forge,
    /// One that the same node sent earlier.
    Replay,
}

/// A real server of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerRef {
    /// Index of the service.
    pub service: usize,
    /// Number of the server, from 1.
    pub server: u32,
}

/// What is another one in a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The service at this index has so many real servers.
    Servers(usize, u32),
    /// A real server has this weight.
    Weight(ServerRef, u16),
    /// The service at this index is in the config, or not.
    Served(usize, bool),
}

/// What a fault waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// What must happen or go on.
    pub what: Occasion,
    /// To which node; `None`: to any.
    pub node: Option<NodeRef>,
}

/// When a fault that waits has its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Occasion {
    /// Something happens.
    On(Happening),
    /// Something goes on.
    During(Phase),
}

macro_rules! words {
    ($(#[doc = $about:literal])+ $type:ident: $($(#[doc = $doc:literal])+ $name:ident = $text:literal;)*) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type { $($(#[doc = $doc])+ $name,)* }

        impl $type {
            /// All, as they are written, with what they mean.
            pub const ALL: &'static [(&'static str, $type, &'static str)] =
                &[$(($text, $type::$name, concat!($($doc),+)),)*];

            /// As it is written.
            pub const fn name(self) -> &'static str {
                match self { $($type::$name => $text,)* }
            }
        }
    };
}

words! {
    /// What happens to a node.
    Happening:
    /// the node crashes
    Crash = "crash";
    /// it starts
    Start = "start";
    /// it stands still
    Pause = "pause";
    /// it goes on
    Resume = "resume";
    /// it is ready
    Ready = "ready";
    /// it serves without having asked anybody, or lags far behind
    Degraded = "degraded";
    /// it is the first to answer for a VIP after another one did
    Takeover = "takeover";
    /// it answers for the VIPs of a family
    Master = "master";
    /// it no longer does
    Backup = "backup";
    /// it begins to adopt the sessions of a node that is dead
    Adopting = "adopting";
    /// it has adopted them
    Adopted = "adopted";
    /// it learns that another node holds its sessions
    Fenced = "fenced";
    /// it cannot be certain that it still holds its sessions
    Suspect = "suspect";
    /// it has handed over all that it held
    Drained = "drained";
    /// it raises an alarm
    Alarm = "alarm";
    /// it hears another node, for the first time or again
    PeerUp = "peer-up";
    /// it hears another node no longer
    PeerDown = "peer-down";
}

words! {
    /// What goes on at a node for some time.
    Phase:
    /// it is not ready yet, and is sent sessions slot by slot: from the first slot on
    Bulk = "bulk";
    /// it adopts the sessions of a node that is dead
    Adoption = "adoption";
    /// it was asked to leave, and has not handed over all
    Drain = "drain";
    /// an alarm of it is open
    Alarm = "alarm";
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
