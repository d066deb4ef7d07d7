//! What happened in the cluster, in words for the log, with the names that the config has.

use evenkeel_control::Cluster;
use evenkeel_core::cluster::{Alarm, GroupId, NodeEvent, NodeId, PeerId};
use evenkeel_core::tuple::Family;

/// The nodes' names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    nodes: Vec<(NodeId, String)>,
}

impl Names {
    pub(crate) fn new(cluster: Option<&Cluster>) -> Self {
        let nodes = cluster.into_iter().flat_map(|c| &c.nodes);
        Names {
            nodes: nodes.map(|n| (n.id, n.name.clone())).collect(),
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> String {
        let known = self.nodes.iter().find(|(node, _)| *node == id);
        known.map_or_else(|| format!("node {}", id.0), |(_, name)| name.clone())
    }

    fn peer(&self, peer: PeerId) -> String {
        self.node(peer.node)
    }

    /// A group: whose sessions, and of which life.
    pub(crate) fn group(&self, group: GroupId) -> String {
        format!("{}/{}", self.node(group.node), group.generation)
    }

    /// An event in words.
    pub(crate) fn event(&self, event: &NodeEvent) -> String {
        use NodeEvent as E;
        match *event {
            E::BecameMaster(f) => format!("master of the {} virtual addresses", family(f)),
            E::BecameBackup(f) => format!("backup for the {} virtual addresses", family(f)),
            E::Ready => "ready: all sessions of the others are known here".to_owned(),
            E::Degraded => "serving without all sessions of the others".to_owned(),
            E::PeerUp(p) => format!("{} is heard", self.peer(p)),
            E::PeerDown(p) => format!("{} is gone", self.peer(p)),
            E::Adopting(g, e) => format!("taking over the sessions of {} (term {})", self.group(g), e.term),
            E::Adopted(g, e) => format!("holding the sessions of {} (term {})", self.group(g), e.term),
            E::Fenced(g, e) => format!(
                "{} holds the sessions of {} now (term {})",
                self.peer(e.holder),
                self.group(g),
                e.term
            ),
            E::Suspect(g) => format!("the lease of {} is uncertain", self.group(g)),
            E::Renewed(g) => format!("the lease of {} is certain again", self.group(g)),
            E::HandedOver(g, e) => format!(
                "sessions of {} handed over to {}",
                self.group(g),
                self.peer(e.holder)
            ),
            E::Drained => "all sessions are handed over".to_owned(),
            E::Forgotten(g) => format!("no session of {} is left", self.group(g)),
            E::Creating(Some(g)) => format!("new sessions go to {}", self.group(g)),
            E::Creating(None) => "no new sessions are opened here".to_owned(),
            E::Alarm(a) => format!("alarm: {}", self.alarm(&a)),
            E::Cleared(a) => format!("over: {}", self.alarm(&a)),
        }
    }

    /// An alarm in words.
    pub(crate) fn alarm(&self, alarm: &Alarm) -> String {
        use Alarm as A;
        match *alarm {
            A::Cold => "no other node was found within the join time".to_owned(),
            A::SyncUnreachable => {
                "another router's advertisements are heard, and no node on the sync network: check its cable and addresses"
                    .to_owned()
            }
            A::SharesDiffer(n) => format!(
                "{} has other local addresses for the nodes: their configs differ in [[cluster.node]]",
                self.node(n)
            ),
            A::OneWay(n) => format!("{} does not hear this node: check the sync network", self.node(n)),
            A::Unheard(n) => format!("{} is alive, and not heard on the sync network: check it", self.node(n)),
            A::OutOfSync(p) => format!("{} is too far behind to be waited for", self.peer(p)),
            A::Lagging => "this node is too far behind".to_owned(),
            A::Incomplete => "sessions of a live node are missing here: raise `conns_v4` and `conns_v6` of [table]".to_owned(),
            A::PeerFull(p) => format!("{} has no room for sessions: raise its [table]", self.peer(p)),
            A::AdoptedUnready(g) => format!("sessions of {} were taken over without all of them being known", self.group(g)),
            A::NoHeir => "this node wants to leave, and no other one is ready to take over".to_owned(),
            A::GroupsFull => "too many groups of sessions are alive".to_owned(),
            A::GenerationsFull => {
                "sessions of too many earlier lives of this node are alive: it opens none until some are gone".to_owned()
            }
            A::DuplicateNode => "another node runs under this node's number: check `this_node`".to_owned(),
            A::TermsUsedUp(g) => format!("the sessions of {} can be taken over no more", self.group(g)),
            A::LeaseOver => "no heartbeat leaves this node: what it holds stays as it is".to_owned(),
        }
    }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
