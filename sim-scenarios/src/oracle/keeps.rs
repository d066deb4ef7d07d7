//! `replica-keeps` and `holder-closes`: who may end a session.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::cluster::{Epoch, GroupId, PeerId, Role};

use super::tables::{Key, key, outbound};
use super::{Found, NodeSample, Row, Sample};

/// A session that its holder has may be missing at a replica for so long: its tuple was given up and opened anew, and the
/// replica has heard of the first half.
const MISSING_FOR: Duration = Duration::from_secs(1);

/// What is in tables between samples.
pub(crate) trait Tables {
    /// A node's session of a client's tuple.
    fn row(&self, node: u16, inbound: &Key) -> Option<Row>;
    /// Whether a node has a session with this outbound tuple.
    fn has_outbound(&self, node: u16, outbound: &Key) -> bool;
}

/// A session that is missing at a replica.
#[derive(Clone, Copy, Debug)]
struct Missing {
    life: u64,
    row: Row,
    since: Duration,
}

/// `replica-keeps`.
#[derive(Debug, Default)]
pub(crate) struct ReplicaKeeps {
    /// By node: its life, and what it was to each group at the last sample.
    roles: BTreeMap<u16, (u64, Vec<(GroupId, Role)>)>,
    /// By node and client's tuple. As many as were gone within [`MISSING_FOR`].
    missing: BTreeMap<(u16, Key), Missing>,
    pub(crate) found: Found,
}

fn is(roles: &[(GroupId, Role)], group: GroupId, role: Role) -> bool {
    roles.contains(&(group, role))
}

impl ReplicaKeeps {
    /// `gone`: sessions that were at nodes at the last look and are not there now. Their places in `sample` may be left out.
    pub(crate) fn sample(&mut self, sample: &Sample, gone: &[(u16, Row)], tables: &impl Tables) {
        for (node, row) in gone {
            let Some((group, ..)) = row.version.filter(|v| v.2 != 0) else {
                continue;
            };
            // Who became a replica since was something else when it went.
            let Some((life, roles)) = self.roles.get(node) else {
                continue;
            };
            if is(roles, group, Role::Replica) {
                self.found.looked += 1;
                let missing = Missing {
                    life: *life,
                    row: *row,
                    since: sample.at,
                };
                self.missing.insert((*node, key(&row.inbound)), missing);
            }
        }
        let found = &mut self.found;
        self.missing.retain(|(node, key), missing| {
            let Some(holder) = still_missing(sample, *node, key, missing, tables) else {
                return false;
            };
            let is_over = sample.at >= missing.since + MISSING_FOR;
            if is_over {
                found.add(missing.since, || {
                    format!(
                        "{} > {} is gone on node {node}, a replica, and node {holder}, which decides about it, has it {}",
                        key.1,
                        key.2,
                        missing.row.state.name()
                    )
                });
            }
            !is_over
        });
        for node in &sample.nodes {
            self.roles.insert(node.node, (node.life, node.roles.clone()));
        }
    }
}

/// The node that holds a session which is missing at a replica, if it should not be.
fn still_missing(
    sample: &Sample,
    node: u16,
    key: &Key,
    missing: &Missing,
    tables: &impl Tables,
) -> Option<u16> {
    let (group, ..) = missing.row.version?;
    let same = |n: &&NodeSample| n.node == node && n.life == missing.life;
    let replica = sample.nodes.iter().find(same)?;
    if !replica.ready || !is(&replica.roles, group, Role::Replica) {
        return None;
    }
    let holds =
        |n: &&NodeSample| n.ready && is(&n.roles, group, Role::Owned) && replica.hears.contains(&n.node);
    let holder = sample.nodes.iter().find(holds)?;
    let row = tables.row(holder.node, key)?;
    let told = row.version.is_some_and(|v| v.0 == group && v.2 != 0);
    // A session of another group may have its tuples: of two, one goes, or does not come.
    let is_there = tables.row(node, key).is_some() || tables.has_outbound(node, &outbound(&row));
    (told && !is_there).then_some(holder.node)
}

/// `holder-closes`.
#[derive(Debug, Default)]
pub(crate) struct HolderCloses {
    pub(crate) found: Found,
}

/// Sessions of a group that a node says are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closes {
    pub(crate) sender: PeerId,
    pub(crate) group: GroupId,
    pub(crate) epoch: Epoch,
    pub(crate) count: u64,
}

impl HolderCloses {
    pub(crate) fn told(&mut self, at: Duration, closes: &Closes) {
        self.found.looked += closes.count;
        if closes.epoch.holder != closes.sender {
            self.found.add(at, || {
                format!(
                    "{:?} tells that sessions of {:?} are closed, by the right of {:?}",
                    closes.sender, closes.group, closes.epoch
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::cluster::NodeId;
    use evenkeel_core::proto::ConnState;
    use evenkeel_core::tuple::{L4Proto, Tuple};

    #[derive(Default)]
    struct Held(Vec<(u16, Row)>);

    impl Tables for Held {
        fn row(&self, node: u16, inbound: &Key) -> Option<Row> {
            let mut rows = self.0.iter();
            rows.find(|(of, row)| *of == node && key(&row.inbound) == *inbound)
                .map(|r| r.1)
        }

        fn has_outbound(&self, node: u16, other: &Key) -> bool {
            self.0
                .iter()
                .any(|(of, row)| *of == node && outbound(row) == *other)
        }
    }

    fn group(node: u16) -> GroupId {
        GroupId {
            node: NodeId(node),
            generation: 1,
        }
    }

    fn row(group: GroupId, client: u16) -> Row {
        Row {
            inbound: Tuple {
                proto: L4Proto::Tcp,
                src: ([192, 0, 2, 100], client).into(),
                dst: ([192, 0, 2, 1], 80).into(),
            },
            local: ([198, 18, 1, 1], 5_000).into(),
            server: ([198, 18, 0, 10], 8_000).into(),
            state: ConnState::Established,
            version: Some((group, Epoch::default(), 5)),
        }
    }

    fn node(node: u16, role: Role, hears: u16) -> NodeSample {
        NodeSample {
            node,
            life: 1,
            ready: true,
            roles: vec![(group(1), role)],
            hears: vec![hears],
            ..NodeSample::default()
        }
    }

    /// Node 1 holds; node 2 loses its copy at 1 s, and is looked at until 3 s. `change` is made at 2 s.
    fn found(held: Held, change: impl Fn(&mut Vec<NodeSample>)) -> u64 {
        let mut oracle = ReplicaKeeps::default();
        let mut nodes = vec![node(1, Role::Owned, 2), node(2, Role::Replica, 1)];
        let mut at = |ms, nodes: &[NodeSample], gone: &[(u16, Row)]| {
            let sample = Sample {
                at: Duration::from_millis(ms),
                nodes: nodes.to_vec(),
            };
            oracle.sample(&sample, gone, &held);
            oracle.found.count
        };
        assert_eq!(at(750, &nodes, &[]), 0);
        assert_eq!(at(1_000, &nodes, &[(2, row(group(1), 7))]), 0);
        assert_eq!(at(1_750, &nodes, &[]), 0, "it may come again");
        change(&mut nodes);
        at(2_000, &nodes, &[]);
        at(3_000, &nodes, &[])
    }

    #[test]
    fn oracle_replica_keeps_fires_on_a_session_that_its_holder_alone_has() {
        let a = row(group(1), 7);
        let held = |rows: &[(u16, Row)]| Held(rows.to_vec());
        let unchanged = |_: &mut Vec<NodeSample>| ();
        assert_eq!(found(held(&[(1, a)]), unchanged), 1);
        assert_eq!(found(held(&[]), unchanged), 0, "its holder has closed it");
        assert_eq!(found(held(&[(1, a), (2, a)]), unchanged), 0, "it is there again");
        let untold = Row {
            version: Some((group(1), Epoch::default(), 0)),
            ..a
        };
        assert_eq!(
            found(held(&[(1, untold)]), unchanged),
            0,
            "a new one, of which nobody was told"
        );
        let others = row(group(3), 9);
        assert_eq!(
            found(held(&[(1, a), (2, others)]), unchanged),
            0,
            "a session of another group has its outbound tuple"
        );
        let with = |change: fn(&mut Vec<NodeSample>)| found(held(&[(1, a)]), change);
        assert_eq!(
            with(|nodes| nodes[1].hears.clear()),
            0,
            "it hears its holder no longer"
        );
        assert_eq!(with(|nodes| nodes[1].life = 2), 0);
        assert_eq!(with(|nodes| nodes[1].ready = false), 0);
        assert_eq!(with(|nodes| nodes[1].roles[0].1 = Role::Orphan), 0);
        assert_eq!(
            with(|nodes| nodes[0].roles[0].1 = Role::Suspect),
            0,
            "nobody decides"
        );
        assert_eq!(with(|nodes| nodes.truncate(1)), 0);
    }

    #[test]
    fn oracle_replica_keeps_lets_everybody_but_replicas_delete() {
        for (role, fires) in [
            (Role::Replica, 1),
            (Role::Owned, 0),
            (Role::Orphan, 0),
            (Role::Fenced, 0),
        ] {
            let mut oracle = ReplicaKeeps::default();
            let a = row(group(1), 7);
            let held = Held(vec![(1, a)]);
            for (ms, role, gone) in [
                (0, role, None),
                (250, Role::Replica, Some((2, a))),
                (2_000, Role::Replica, None),
            ] {
                let sample = Sample {
                    at: Duration::from_millis(ms),
                    nodes: vec![node(1, Role::Owned, 2), node(2, role, 1)],
                };
                oracle.sample(&sample, gone.as_slice(), &held);
            }
            assert_eq!(oracle.found.count, fires, "{role:?}");
            assert_eq!(oracle.found.looked, fires, "{role:?}");
        }
    }
}
