//! What each node is over time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use evenkeel_core::cluster::{GroupId, NodeId, Role};
use evenkeel_core::sync::Readiness;
use evenkeel_core::tuple::Family;
use evenkeel_io_sim::{LbRef, LbState, World};

use super::track::Track;

/// Groups of a node that are drawn at most, the newest ones.
pub(crate) const GROUP_COUNT_MAX: usize = 6;

/// A node's state, the one that says most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Down,
    Paused,
    Joining,
    Degraded,
    Ready,
    Master,
    Draining,
    Drained,
    Fenced,
    /// A node without a cluster.
    Alone,
}

impl State {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            State::Down => "down",
            State::Paused => "paused",
            State::Joining => "joining",
            State::Degraded => "degraded",
            State::Ready => "ready",
            State::Master => "master",
            State::Draining => "draining",
            State::Drained => "drained",
            State::Fenced => "fenced",
            State::Alone => "serving",
        }
    }

    fn of(lb: LbRef<'_>) -> State {
        match lb.state() {
            LbState::Down => return State::Down,
            LbState::Paused => return State::Paused,
            LbState::Running => {}
        }
        let Some(node) = lb.node() else {
            return State::Alone;
        };
        let fenced = node.groups().any(|(_, _, role)| role == Role::Fenced);
        match node.readiness() {
            _ if node.is_drained() => State::Drained,
            _ if node.is_draining() => State::Draining,
            _ if fenced => State::Fenced,
            Readiness::Degraded => State::Degraded,
            Readiness::Ready if node.is_master(Family::V4) || node.is_master(Family::V6) => State::Master,
            Readiness::Ready => State::Ready,
            _ => State::Joining,
        }
    }
}

/// For which addresses a node answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// VIPs of IPv4 and of IPv6, so many of them.
    pub(crate) vips: [u16; 2],
    /// Of these nodes' shares of LIPs.
    pub(crate) lips: Vec<u16>,
}

/// A group that a node holds, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holds {
    pub(crate) group: GroupId,
    pub(crate) role: Role,
}

/// A node's lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) state: Track<State>,
    pub(crate) answers: Track<Answers>,
    pub(crate) holds: Track<Vec<Holds>>,
}

/// Looks at nodes.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    pub(crate) lanes: Vec<Lane>,
    /// Whose share each LIP is.
    pub(crate) shares: BTreeMap<IpAddr, u16>,
    /// All VIPs.
    pub(crate) vips: Vec<IpAddr>,
}

impl Lanes {
    pub(crate) fn look(&mut self, world: &World, now: u64) {
        for (i, lb) in world.lbs().enumerate() {
            if self.lanes.len() <= i {
                self.lanes.push(Lane {
                    name: lb.name().to_owned(),
                    ..Lane::default()
                });
            }
            let (answers, holds) = match lb.node().filter(|_| lb.state() != LbState::Down) {
                Some(node) => {
                    let addrs = node.answering().addrs.iter().map(|a| a.0);
                    (self.answers(addrs), holds(lb.id().0 + 1, node.groups()))
                }
                None => Default::default(),
            };
            if let Some(lane) = self.lanes.get_mut(i) {
                lane.state.look(now, State::of(lb));
                lane.answers.look(now, answers);
                lane.holds.look(now, holds);
            }
        }
    }

    fn answers(&self, addrs: impl Iterator<Item = IpAddr>) -> Answers {
        let mut answers = Answers::default();
        for addr in addrs {
            if self.vips.contains(&addr) {
                answers.vips[usize::from(addr.is_ipv6())] += 1;
            } else if let Some(&node) = self.shares.get(&addr) {
                answers.lips.push(node);
            }
        }
        answers.lips.sort_unstable();
        answers.lips.dedup();
        answers
    }

    pub(crate) fn end(&mut self, now: u64) {
        for lane in &mut self.lanes {
            lane.state.end(now);
            lane.answers.end(now);
            lane.holds.end(now);
        }
        self.number_generations();
    }

    /// Numbers each node's generations from 1 on, in their order: their own numbers are those of its lives, which are times.
    fn number_generations(&mut self) {
        let held = |lanes: &mut Vec<Lane>, see: &mut dyn FnMut(&mut GroupId)| {
            let spans = lanes.iter_mut().flat_map(|lane| &mut lane.holds.spans);
            spans
                .flat_map(|span| &mut span.what)
                .for_each(|h| see(&mut h.group));
        };
        let mut known: BTreeMap<NodeId, BTreeSet<u64>> = BTreeMap::new();
        held(&mut self.lanes, &mut |group| {
            known.entry(group.node).or_default().insert(group.generation);
        });
        held(&mut self.lanes, &mut |group| {
            let of_node = known.get(&group.node).into_iter().flatten();
            group.generation = 1 + of_node.take_while(|g| **g < group.generation).count() as u64;
        });
    }
}

/// Groups that a node decides about, or is about to: its own first, then the newest.
fn holds<E>(me: u16, groups: impl Iterator<Item = (GroupId, E, Role)>) -> Vec<Holds> {
    let held = groups.filter(|(_, _, role)| !matches!(role, Role::Replica | Role::Orphan));
    let mut held: Vec<_> = held.map(|(group, _, role)| Holds { group, role }).collect();
    held.sort_by_key(|h| {
        (
            h.group.node != NodeId(me),
            h.group.node,
            u64::MAX - h.group.generation,
        )
    });
    held.truncate(GROUP_COUNT_MAX);
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_alone_serves_and_two_have_one_master() {
        let world =
            crate::run::tests::world_at(crate::run::tests::ONE_NODE, 1, std::time::Duration::from_secs(1));
        assert!(world.lbs().all(|lb| State::of(lb) == State::Alone));
        let world =
            crate::run::tests::world_at(crate::run::tests::TWO_NODES, 1, std::time::Duration::from_secs(5));
        let states: Vec<_> = world.lbs().map(State::of).collect();
        assert_eq!(states, [State::Master, State::Ready]);
        let mut lanes = Lanes {
            vips: vec![
                "192.0.2.1".parse().expect("good"),
                "2001:db8:2::1".parse().expect("good"),
            ],
            ..Lanes::default()
        };
        lanes.look(&world, 5);
        assert_eq!(lanes.lanes[0].answers.spans[0].what.vips, [1, 1]);
        assert_eq!(lanes.lanes[1].answers.spans[0].what.vips, [0, 0]);
        let held = &lanes.lanes[1].holds.spans[0].what;
        assert_eq!(
            (held.len(), held[0].group.node, held[0].role),
            (1, NodeId(2), Role::Owned)
        );
    }

    #[test]
    fn its_own_groups_come_first_and_what_is_more_is_left_out() {
        let group = |node, generation| GroupId {
            node: NodeId(node),
            generation,
        };
        let groups = (0..9).map(|g| (group(1, g), (), Role::Owned));
        let groups = groups.chain([
            (group(2, 1), (), Role::Adopting),
            (group(2, 2), (), Role::Replica),
        ]);
        let held = holds(2, groups);
        assert_eq!(held.len(), GROUP_COUNT_MAX);
        assert_eq!((held[0].group, held[0].role), (group(2, 1), Role::Adopting));
        assert_eq!(held[1].group, group(1, 8));
    }
}
