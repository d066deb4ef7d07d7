//! Oracles over the tables of all nodes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use evenkeel_core::cluster::{Epoch, GroupId};
use evenkeel_core::proto::ConnState;
use evenkeel_core::tuple::{L4Proto, Tuple};

use super::{Ends, Found, LiveFlow, NodeSample, Row, Sample};

/// A tuple in an order.
pub(crate) type Key = (bool, SocketAddr, SocketAddr);

pub(crate) fn key(tuple: &Tuple) -> Key {
    (tuple.proto == L4Proto::Udp, tuple.src, tuple.dst)
}

pub(crate) fn outbound(row: &Row) -> Key {
    (row.inbound.proto == L4Proto::Udp, row.server, row.local)
}

/// Whether a session carries nothing any more: its tuple may be used again (RFC 9293, TIME-WAIT). What only one side has
/// closed still carries data.
fn is_over(state: ConnState) -> bool {
    matches!(state, ConnState::TimeWait | ConnState::Close | ConnState::LastAck)
}

/// Whether a session has served nobody yet.
fn is_opening(state: ConnState) -> bool {
    matches!(
        state,
        ConnState::None | ConnState::SynSent | ConnState::SynRecv | ConnState::SynAck
    )
}

/// Whether a session is on its way out.
fn is_closing(state: ConnState) -> bool {
    matches!(
        state,
        ConnState::TimeWait
            | ConnState::Close
            | ConnState::LastAck
            | ConnState::FinWait
            | ConnState::CloseWait
    )
}

/// `server-stays`.
#[derive(Debug, Default)]
pub(crate) struct ServerStays {
    /// Server of each flow that is or was established; of one whose service replicates nothing, in each life of each
    /// node.
    servers: BTreeMap<(u32, Option<(u16, u64)>), SocketAddr>,
    /// Services that replicate nothing: what one node knows of their flows no other one does.
    alone: BTreeSet<(bool, SocketAddr)>,
    pub(crate) found: Found,
}

impl ServerStays {
    /// `alone`: services of which the nodes tell each other nothing.
    pub(crate) fn new(alone: impl Iterator<Item = (L4Proto, SocketAddr)>) -> Self {
        ServerStays {
            alone: alone.map(|(proto, vip)| (proto == L4Proto::Udp, vip)).collect(),
            ..ServerStays::default()
        }
    }

    /// `live`: flows that are established now and not over, by the key of their tuples.
    pub(crate) fn sample(&mut self, sample: &Sample, live: &BTreeMap<Key, LiveFlow>) {
        for node in &sample.nodes {
            for row in &node.rows {
                let Some(flow) = live.get(&key(&row.inbound)) else {
                    continue;
                };
                self.found.looked += 1;
                // The client took the SYN-ACK of one of its sessions; the other one serves nobody.
                if flow.divided && (is_opening(row.state) || is_over(row.state)) {
                    continue;
                }
                let (udp, _, vip) = key(&row.inbound);
                let life = self.alone.contains(&(udp, vip)).then_some((node.node, node.life));
                match self.servers.entry((flow.number, life)) {
                    Entry::Vacant(entry) => {
                        entry.insert(row.server);
                    }
                    Entry::Occupied(entry) if *entry.get() != row.server => {
                        let before = *entry.get();
                        self.found.add(sample.at, || {
                            format!(
                                "flow {} ({}) was served by {before}, and node {} sends it to {}",
                                flow.number, flow.tuple, node.node, row.server
                            )
                        });
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
    }
}

/// `outbound-unique`.
#[derive(Debug, Default)]
pub(crate) struct OutboundUnique {
    pub(crate) found: Found,
}

/// Whether two sessions of one tuple are of one group: its creator gave the port again when the first was over, of which the
/// other node has not heard (for as long as a partition lasts). That the first is over, the frames tell.
fn is_one_after_the_other(a: &Row, b: &Row) -> bool {
    a.version.zip(b.version).is_some_and(|(a, b)| a.0 == b.0)
}

impl OutboundUnique {
    /// `cold`: ends that a node opened which found nobody to join: see [`super::By::Cold`].
    pub(crate) fn sample(&mut self, sample: &Sample, cold: &BTreeSet<Ends>) {
        let mut seen: BTreeMap<Key, (u16, Key, &Row)> = BTreeMap::new();
        for node in &sample.nodes {
            for row in &node.rows {
                self.found.looked += 1;
                let inbound = key(&row.inbound);
                match seen.entry(outbound(row)) {
                    Entry::Vacant(entry) => {
                        entry.insert((node.node, inbound, row));
                    }
                    Entry::Occupied(mut entry) => {
                        let (other, first, before) = *entry.get();
                        let elsewhere = other != node.node;
                        let is_same = first == inbound || elsewhere && is_one_after_the_other(before, row);
                        if is_same || is_over(before.state) {
                            entry.insert((node.node, inbound, row));
                        } else if !is_over(row.state) && !cold.contains(&(row.local, row.server)) {
                            self.found.add(sample.at, || {
                                format!(
                                    "{} > {} belongs to {} > {} on node {other} and to {} > {} on node {}",
                                    row.local, row.server, first.1, first.2, inbound.1, inbound.2, node.node
                                )
                            });
                        }
                    }
                }
            }
        }
    }
}

/// `versions-grow`.
#[derive(Debug, Default)]
pub(crate) struct VersionsGrow {
    /// By node, life, group and tuple: the latest version that was seen, of sessions that are gone too. The next one of
    /// the tuple in the group is later.
    versions: BTreeMap<(u16, u64, GroupId, Key), (Epoch, u64)>,
    epochs: BTreeMap<(u16, u64, GroupId), Epoch>,
    pub(crate) found: Found,
}

impl VersionsGrow {
    pub(crate) fn sample(&mut self, sample: &Sample) {
        for node in &sample.nodes {
            for row in &node.rows {
                // What nobody was told of yet has no version.
                let Some((group, epoch, lsn)) = row.version.filter(|v| v.2 != 0) else {
                    continue;
                };
                self.found.looked += 1;
                let version = (epoch, lsn);
                let at = (node.node, node.life, group, key(&row.inbound));
                let latest = self.versions.entry(at).or_insert(version);
                if version < *latest {
                    let before = *latest;
                    self.found.add(sample.at, || {
                        format!(
                            "node {}: {} of {group:?} went from version {before:?} back to {version:?}",
                            node.node, row.inbound
                        )
                    });
                }
                *latest = (*latest).max(version);
            }
            for &(group, epoch) in &node.epochs {
                let known = self.epochs.entry((node.node, node.life, group)).or_insert(epoch);
                if epoch < *known {
                    let before = *known;
                    self.found.add(sample.at, || {
                        format!(
                            "node {}: {group:?} went from {before:?} back to {epoch:?}",
                            node.node
                        )
                    });
                }
                *known = (*known).max(epoch);
            }
        }
    }
}

/// `tables-equal`.
#[derive(Debug, Default)]
pub(crate) struct TablesEqual {
    pub(crate) found: Found,
}

/// Whether no node tells of a session yet: its client's SYN has come, and its server's SYN-ACK has not. It has no
/// number, and whoever has it lets it expire.
fn is_half_open(row: &Row) -> bool {
    let untold = row.version.is_none_or(|(_, _, lsn)| lsn == 0);
    untold
        && matches!(
            row.state,
            ConnState::None | ConnState::SynSent | ConnState::SynRecv
        )
}

/// Sessions by tuple that not all nodes have, or that differ in what forwarding needs. A session that one node
/// closed and another one has not yet expired counts only while it is not closing.
fn differences(nodes: &[&NodeSample]) -> Vec<String> {
    let mut differences = Vec::new();
    compare(nodes, |_, what| differences.push(what()));
    differences
}

/// Clients' tuples of the sessions that differ so.
pub(crate) fn unequal(nodes: &[&NodeSample]) -> BTreeSet<Key> {
    let mut unequal = BTreeSet::new();
    compare(nodes, |key, _| {
        unequal.insert(key);
    });
    unequal
}

/// Clients' tuples of sessions that are not established on any node that has them.
pub(crate) fn opening(nodes: &[NodeSample]) -> BTreeSet<Key> {
    let rows = || nodes.iter().flat_map(|n| &n.rows);
    let (opening, further): (Vec<&Row>, Vec<&Row>) = rows().partition(|row| is_opening(row.state));
    let further: BTreeSet<Key> = further.into_iter().map(|row| key(&row.inbound)).collect();
    let opening = opening.into_iter().map(|row| key(&row.inbound));
    opening.filter(|key| !further.contains(key)).collect()
}

/// Tells each difference; what it is in words costs more than to find it.
fn compare(nodes: &[&NodeSample], mut found: impl FnMut(Key, &dyn Fn() -> String)) {
    type Forwarding = (SocketAddr, SocketAddr);
    type Version = Option<(GroupId, Epoch, u64)>;
    let mut all: BTreeMap<Key, Vec<(u16, Forwarding, ConnState, Version)>> = BTreeMap::new();
    for node in nodes {
        for row in node
            .rows
            .iter()
            .filter(|r| r.version.is_some() && !is_half_open(r) || nodes.len() == 1)
        {
            let of = all.entry(key(&row.inbound)).or_default();
            // Who was told nothing has no version.
            let version = row.version.filter(|v| v.2 != 0);
            of.push((node.node, (row.local, row.server), row.state, version));
        }
    }
    for (key, of) in &all {
        let (_, client, vip) = key;
        if of.iter().all(|(_, _, state, _)| is_closing(*state)) {
            continue;
        }
        let Some((first, rest)) = of.split_first() else {
            continue;
        };
        if of.len() != nodes.len() {
            found(*key, &|| {
                let has: Vec<_> = of
                    .iter()
                    .map(|(node, _, state, _)| format!("node {node} ({})", state.name()))
                    .collect();
                format!("{client} > {vip} is only on {}", has.join(", "))
            });
        } else if let Some(other) = rest.iter().find(|o| o.1 != first.1) {
            found(*key, &|| {
                format!(
                    "{client} > {vip} is {} > {} on node {} and {} > {} on node {}",
                    first.1.0, first.1.1, first.0, other.1.0, other.1.1, other.0
                )
            });
        } else if let Some(other) = rest.iter().find(|o| o.2 != first.2) {
            found(*key, &|| {
                format!(
                    "{client} > {vip} is {} on node {} and {} on node {}",
                    first.2.name(),
                    first.0,
                    other.2.name(),
                    other.0
                )
            });
        } else if let Some((one, other)) = told_otherwise(of.iter().map(|o| (o.0, o.3))) {
            found(*key, &|| {
                format!(
                    "{client} > {vip} is of version {:?} on node {} and {:?} on node {}",
                    one.1, one.0, other.1, other.0
                )
            });
        }
    }
}

/// Two nodes that have been told of one session, and of different versions of it.
fn told_otherwise<V: PartialEq + Copy>(
    of: impl Iterator<Item = (u16, Option<V>)>,
) -> Option<((u16, V), (u16, V))> {
    let mut told = of.filter_map(|(node, version)| Some((node, version?)));
    let first = told.next()?;
    Some((first, told.find(|(_, version)| *version != first.1)?))
}

impl TablesEqual {
    /// At the end, after the quiet.
    pub(crate) fn end(&mut self, sample: &Sample) {
        let ready: Vec<_> = sample.nodes.iter().filter(|n| n.ready).collect();
        // One alone is equal to nobody: nothing was looked at.
        if ready.len() < 2 {
            return;
        }
        self.found.looked += ready.iter().map(|n| 1 + n.rows.len() as u64).sum::<u64>();
        for difference in differences(&ready) {
            self.found.add(sample.at, || difference);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn end(text: &str) -> SocketAddr {
        text.parse().expect("an end")
    }

    fn row(client: &str, local: &str, server: &str) -> Row {
        Row {
            inbound: Tuple {
                proto: L4Proto::Tcp,
                src: end(client),
                dst: end("192.0.2.1:80"),
            },
            local: end(local),
            server: end(server),
            state: ConnState::Established,
            version: Some((GroupId::default(), Epoch::default(), 5)),
        }
    }

    #[test]
    fn what_one_node_has_established_is_not_opening() {
        let opens = |client: &str, state| Row {
            state,
            ..row(client, "10.0.0.1:1000", "10.0.0.9:80")
        };
        let (one, other) = ("192.0.2.7:1000", "192.0.2.7:1001");
        let syn = ConnState::SynRecv;
        let nodes = [
            node(1, vec![opens(one, syn), opens(other, syn)]),
            node(2, vec![opens(other, ConnState::Established)]),
        ];
        assert_eq!(opening(&nodes[..1]).len(), 2);
        let only: Vec<Key> = opening(&nodes).into_iter().collect();
        assert_eq!(only, [key(&nodes[0].rows[0].inbound)]);
        assert!(opening(&[]).is_empty());
    }

    fn node(node: u16, rows: Vec<Row>) -> NodeSample {
        NodeSample {
            node,
            life: 1,
            ready: true,
            rows,
            ..NodeSample::default()
        }
    }

    fn at(ms: u64, nodes: Vec<NodeSample>) -> Sample {
        Sample {
            at: Duration::from_millis(ms),
            nodes,
        }
    }

    const A: (&str, &str, &str) = ("192.0.2.100:1000", "198.18.1.1:5000", "198.18.0.10:8000");

    fn a() -> Row {
        row(A.0, A.1, A.2)
    }

    /// Its SYN was sent again, and came to another node that had not heard of the first one.
    #[test]
    fn oracle_server_stays_spares_what_serves_nobody_where_nodes_were_divided() {
        let other = |state| Row {
            state,
            ..row(A.0, "198.18.2.1:5000", "198.18.0.11:8000")
        };
        let found = |divided, state| {
            let flow = LiveFlow {
                number: 7,
                divided,
                tuple: a().inbound,
            };
            let live = BTreeMap::from([(key(&flow.tuple), flow)]);
            let mut oracle = ServerStays::default();
            oracle.sample(
                &at(1, vec![node(1, vec![other(state)]), node(2, vec![a()])]),
                &live,
            );
            assert_eq!(oracle.found.looked, 2);
            oracle.found.count
        };
        for state in [ConnState::SynSent, ConnState::SynRecv, ConnState::Close] {
            assert_eq!(found(true, state), 0);
            assert_eq!(
                found(false, state),
                1,
                "nodes that hear each other open one session"
            );
        }
        assert_eq!(found(true, ConnState::Established), 1, "two serve it");
    }

    #[test]
    fn oracle_server_stays_fires_on_another_server() {
        let flow = LiveFlow {
            number: 7,
            divided: false,
            tuple: a().inbound,
        };
        let live = BTreeMap::from([(key(&flow.tuple), flow)]);
        let mut oracle = ServerStays::default();
        oracle.sample(&at(1, vec![node(1, vec![a()]), node(2, vec![a()])]), &live);
        assert_eq!((oracle.found.count, oracle.found.looked), (0, 2));
        let other = row(A.0, A.1, "198.18.0.11:8000");
        oracle.sample(&at(2, vec![node(2, vec![other])]), &live);
        assert_eq!(oracle.found.count, 1);
        let first = oracle.found.first.expect("kept");
        assert_eq!(first.at_ns, 2_000_000);
        assert!(
            first.what.contains("flow 7") && first.what.contains("198.18.0.11:8000"),
            "{first:?}"
        );
        // Of a service that replicates nothing each life of a node is looked at by itself.
        let alone = [(flow.tuple.proto, flow.tuple.dst)];
        for (there, life, fires) in [(1, 1, 1), (1, 2, 0), (2, 1, 0)] {
            let mut oracle = ServerStays::new(alone.into_iter());
            oracle.sample(&at(1, vec![node(1, vec![a()])]), &live);
            let mut then = node(there, vec![other]);
            then.life = life;
            oracle.sample(&at(2, vec![then]), &live);
            assert_eq!(
                (oracle.found.count, oracle.found.looked),
                (fires, 2),
                "{there} {life}"
            );
        }
        // A tuple that is not a live flow's may be served anew.
        let mut oracle = ServerStays::default();
        oracle.sample(&at(1, vec![node(1, vec![a()])]), &BTreeMap::new());
        oracle.sample(&at(2, vec![node(1, vec![other])]), &BTreeMap::new());
        assert_eq!(oracle.found.count, 0);
    }

    #[test]
    fn oracle_outbound_unique_fires_on_two_sessions_with_one_local_port() {
        let mut b = row("192.0.2.101:1000", A.1, A.2);
        let mut oracle = OutboundUnique::default();
        let look = |oracle: &mut OutboundUnique, seen: Sample| oracle.sample(&seen, &BTreeSet::new());
        look(&mut oracle, at(0, vec![node(1, vec![a()]), node(2, vec![b])]));
        assert_eq!(oracle.found.count, 0, "its creator gave the port again");
        let other = GroupId {
            node: evenkeel_core::cluster::NodeId(2),
            ..GroupId::default()
        };
        b.version = b.version.map(|(_, epoch, lsn)| (other, epoch, lsn));
        look(&mut oracle, at(1, vec![node(1, vec![a()]), node(2, vec![a()])]));
        assert_eq!(oracle.found.count, 0);
        let closing = Row {
            state: ConnState::TimeWait,
            ..b
        };
        look(
            &mut oracle,
            at(2, vec![node(1, vec![closing]), node(2, vec![a()])]),
        );
        look(
            &mut oracle,
            at(3, vec![node(1, vec![a()]), node(2, vec![closing])]),
        );
        assert_eq!(oracle.found.count, 0, "TIME-WAIT may be reused");
        look(&mut oracle, at(4, vec![node(1, vec![a()]), node(2, vec![b])]));
        assert_eq!(oracle.found.count, 1);
        for (n, state) in (2..).zip([ConnState::FinWait, ConnState::CloseWait]) {
            let half = Row { state, ..b };
            look(&mut oracle, at(5, vec![node(1, vec![half]), node(2, vec![a()])]));
            assert_eq!(oracle.found.count, n, "{state:?} carries data");
        }
        let mut oracle = OutboundUnique::default();
        let seen = at(6, vec![node(1, vec![a()]), node(2, vec![b])]);
        oracle.sample(&seen, &BTreeSet::from([(b.local, b.server)]));
        assert_eq!(oracle.found.count, 0, "opened by a node that is alone");
    }

    #[test]
    fn oracle_versions_grow_fires_on_an_older_version_and_an_older_epoch() {
        let versioned = |lsn, term| {
            let epoch = Epoch {
                term,
                ..Epoch::default()
            };
            let row = Row {
                version: Some((GroupId::default(), epoch, lsn)),
                ..a()
            };
            let mut node = node(1, vec![row]);
            node.epochs.push((GroupId::default(), epoch));
            node
        };
        let mut oracle = VersionsGrow::default();
        oracle.sample(&at(1, vec![versioned(5, 1)]));
        oracle.sample(&at(2, vec![versioned(6, 1)]));
        oracle.sample(&at(3, vec![versioned(1, 2)]));
        assert_eq!(oracle.found.count, 0, "{:?}", oracle.found);
        oracle.sample(&at(4, vec![versioned(9, 1)]));
        assert_eq!(
            oracle.found.count, 2,
            "of the session and of the group: {:?}",
            oracle.found
        );
        // A new life begins anew.
        let mut reborn = versioned(1, 1);
        reborn.life = 2;
        oracle.sample(&at(5, vec![reborn]));
        assert_eq!(oracle.found.count, 2);
    }

    #[test]
    fn oracle_tables_equal_fires_on_a_missing_and_a_different_session() {
        let fires = |left: Vec<Row>, right: Vec<Row>, right_ready: bool| {
            let mut oracle = TablesEqual::default();
            let mut second = node(2, right);
            second.ready = right_ready;
            oracle.end(&at(9, vec![node(1, left), second]));
            oracle.found.count
        };
        let b = row("192.0.2.101:1000", "198.18.1.1:5001", A.2);
        assert_eq!(fires(vec![a(), b], vec![b, a()], true), 0);
        assert_eq!(fires(vec![a(), b], vec![a()], true), 1);
        assert_eq!(
            fires(vec![a(), b], vec![a()], false),
            0,
            "who is not ready is not compared"
        );
        let mut alone = TablesEqual::default();
        let mut second = node(2, vec![a()]);
        second.ready = false;
        alone.end(&at(9, vec![node(1, vec![a()]), second]));
        assert_eq!(alone.found.looked, 0, "one alone is not compared with anybody");
        let moved = row(A.0, "198.18.1.1:6000", A.2);
        assert_eq!(fires(vec![a()], vec![moved], true), 1);
        let closed = Row {
            state: ConnState::TimeWait,
            ..a()
        };
        assert_eq!(fires(vec![a()], vec![closed], true), 1);
        assert_eq!(fires(vec![closed], vec![], true), 0, "it is over");
        let mut half_open = Row {
            state: ConnState::SynRecv,
            version: Some((GroupId::default(), Epoch::default(), 0)),
            ..a()
        };
        assert_eq!(fires(vec![half_open], vec![], true), 0, "no SYN-ACK has passed");
        half_open.state = ConnState::Established;
        assert_eq!(
            fires(vec![half_open], vec![], true),
            1,
            "it should have been told"
        );
        let later = Row {
            version: Some((GroupId::default(), Epoch::default(), 6)),
            ..a()
        };
        assert_eq!(fires(vec![a()], vec![later], true), 1, "an older version");
        let untold = Row {
            version: Some((GroupId::default(), Epoch::default(), 0)),
            ..a()
        };
        assert_eq!(fires(vec![a()], vec![untold], true), 0, "it was told nothing");
        half_open.state = ConnState::SynRecv;
        half_open.version = a().version;
        assert_eq!(fires(vec![half_open], vec![], true), 1, "it was told");
    }
}
