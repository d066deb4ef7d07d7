//! What faults wait for: what happens to nodes, and what goes on at them for some time.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use evenkeel_core::cluster::{Alarm, GroupId, NodeEvent};
use evenkeel_io_sim::{LbId, Trace};

use crate::scenario::{Happening, Occasion, Phase};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Occasions {
    /// For what somebody waits: of anything else nothing is kept.
    wanted: BTreeSet<Occasion>,
    /// What came since the last look, and where.
    heard: Vec<(Occasion, LbId)>,
    /// Something came.
    rang: Rc<Cell<bool>>,
    ready: BTreeSet<LbId>,
    bulks: BTreeSet<LbId>,
    adoptions: BTreeSet<(LbId, GroupId)>,
    drains: BTreeSet<LbId>,
    alarms: BTreeSet<(LbId, Alarm)>,
}

impl Occasions {
    /// Somebody waits for these, and for nothing else.
    pub(crate) fn listen(&mut self, wanted: impl Iterator<Item = Occasion>) {
        self.wanted = wanted.collect();
    }

    /// Whether anybody waits for anything.
    pub(crate) fn listens(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Rings when something comes that somebody waits for.
    pub(crate) fn bell(&self) -> Rc<Cell<bool>> {
        self.rang.clone()
    }

    /// What came since the last time, in order.
    pub(crate) fn take(&mut self) -> Vec<(Occasion, LbId)> {
        self.rang.set(false);
        std::mem::take(&mut self.heard)
    }

    fn came(&mut self, what: Occasion, lb: LbId) {
        if self.wanted.contains(&what) {
            self.heard.push((what, lb));
            self.rang.set(true);
        }
    }

    fn happened(&mut self, what: Happening, lb: LbId) {
        self.came(Occasion::On(what), lb);
    }

    fn began(&mut self, phase: Phase, lb: LbId) {
        self.came(Occasion::During(phase), lb);
    }

    /// A node is the first to answer for a VIP after another one did.
    pub(crate) fn takeover(&mut self, lb: LbId) {
        self.happened(Happening::Takeover, lb);
    }

    /// A node is sent a slot.
    pub(crate) fn slot_to(&mut self, lb: LbId) {
        if !self.ready.contains(&lb) && self.bulks.insert(lb) {
            self.began(Phase::Bulk, lb);
        }
    }

    /// A node is asked to leave.
    pub(crate) fn drains(&mut self, lb: LbId) {
        if self.drains.insert(lb) {
            self.began(Phase::Drain, lb);
        }
    }

    /// Something happened in the world.
    pub(crate) fn trace(&mut self, what: &Trace) {
        match *what {
            Trace::LbStarted(lb, _) => {
                self.forget(lb);
                self.happened(Happening::Start, lb);
            }
            Trace::LbCrashed(lb) => {
                self.forget(lb);
                self.happened(Happening::Crash, lb);
            }
            Trace::LbPaused(lb) => self.happened(Happening::Pause, lb),
            Trace::LbResumed(lb) => self.happened(Happening::Resume, lb),
            Trace::Node(lb, event) => self.node(lb, event),
            _ => {}
        }
    }

    fn node(&mut self, lb: LbId, event: NodeEvent) {
        match event {
            NodeEvent::Ready => {
                self.ready.insert(lb);
                self.bulks.remove(&lb);
                self.happened(Happening::Ready, lb);
            }
            NodeEvent::Degraded => {
                self.ready.remove(&lb);
                self.happened(Happening::Degraded, lb);
            }
            NodeEvent::BecameMaster(_) => self.happened(Happening::Master, lb),
            NodeEvent::BecameBackup(_) => self.happened(Happening::Backup, lb),
            NodeEvent::PeerUp(_) => self.happened(Happening::PeerUp, lb),
            NodeEvent::PeerDown(_) => self.happened(Happening::PeerDown, lb),
            NodeEvent::Adopting(group, _) => {
                self.happened(Happening::Adopting, lb);
                if self.adoptions.insert((lb, group)) {
                    self.began(Phase::Adoption, lb);
                }
            }
            NodeEvent::Adopted(group, _) => {
                self.adoptions.remove(&(lb, group));
                self.happened(Happening::Adopted, lb);
            }
            NodeEvent::Fenced(group, _) => {
                self.adoptions.remove(&(lb, group));
                self.happened(Happening::Fenced, lb);
            }
            NodeEvent::Forgotten(group) => {
                self.adoptions.remove(&(lb, group));
            }
            NodeEvent::Suspect(_) => self.happened(Happening::Suspect, lb),
            NodeEvent::Drained => {
                self.drains.remove(&lb);
                self.happened(Happening::Drained, lb);
            }
            NodeEvent::Alarm(alarm) => {
                self.happened(Happening::Alarm, lb);
                if self.alarms.insert((lb, alarm)) {
                    self.began(Phase::Alarm, lb);
                }
            }
            NodeEvent::Cleared(alarm) => {
                self.alarms.remove(&(lb, alarm));
            }
            NodeEvent::Renewed(_) | NodeEvent::HandedOver(..) | NodeEvent::Creating(_) => {}
        }
    }

    /// A life is over, or begins.
    fn forget(&mut self, lb: LbId) {
        self.ready.remove(&lb);
        self.bulks.remove(&lb);
        self.drains.remove(&lb);
        self.adoptions.retain(|(of, _)| *of != lb);
        self.alarms.retain(|(of, _)| *of != lb);
    }

    /// Whether a phase goes on at a node.
    pub(crate) fn is_going_on(&self, phase: Phase, lb: LbId) -> bool {
        self.where_goes_on(phase).contains(&lb)
    }

    /// The nodes at which a phase goes on, by number.
    pub(crate) fn where_goes_on(&self, phase: Phase) -> BTreeSet<LbId> {
        match phase {
            Phase::Bulk => self.bulks.clone(),
            Phase::Drain => self.drains.clone(),
            Phase::Adoption => self.adoptions.iter().map(|(lb, _)| *lb).collect(),
            Phase::Alarm => self.alarms.iter().map(|(lb, _)| *lb).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::cluster::Epoch;

    #[test]
    fn phases_begin_and_end_with_what_nodes_say() {
        let (one, two) = (LbId(0), LbId(1));
        let group = GroupId::default();
        let mut occasions = Occasions::default();
        let bell = occasions.bell();
        let during = |o: &Occasions, phase| o.where_goes_on(phase).into_iter().collect::<Vec<_>>();
        occasions.trace(&Trace::LbStarted(one, 1));
        assert!(!bell.get() && occasions.take().is_empty(), "nobody waits for it");
        let wanted = [Occasion::During(Phase::Bulk), Occasion::On(Happening::Ready)];
        occasions.listen(wanted.into_iter());
        occasions.slot_to(one);
        occasions.slot_to(one);
        occasions.slot_to(two);
        occasions.trace(&Trace::Node(one, NodeEvent::Ready));
        occasions.slot_to(one);
        assert_eq!(during(&occasions, Phase::Bulk), [two]);
        assert!(bell.get());
        let heard = [(wanted[0], one), (wanted[0], two), (wanted[1], one)];
        assert_eq!(occasions.take(), heard);
        assert!(!bell.get());
        let epoch = Epoch::default();
        occasions.trace(&Trace::Node(one, NodeEvent::Adopting(group, epoch)));
        occasions.trace(&Trace::Node(one, NodeEvent::Alarm(Alarm::Cold)));
        occasions.drains(one);
        for phase in [Phase::Adoption, Phase::Alarm, Phase::Drain] {
            assert_eq!(during(&occasions, phase), [one], "{phase:?}");
        }
        occasions.trace(&Trace::Node(one, NodeEvent::Adopted(group, epoch)));
        assert!(!occasions.is_going_on(Phase::Adoption, one));
        occasions.trace(&Trace::LbCrashed(one));
        for phase in [Phase::Alarm, Phase::Drain] {
            assert!(during(&occasions, phase).is_empty(), "{phase:?}");
        }
        // Ready in another life is another thing.
        occasions.slot_to(one);
        assert_eq!(during(&occasions, Phase::Bulk), [one, two]);
    }
}
