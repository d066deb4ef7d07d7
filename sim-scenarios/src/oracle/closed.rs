//! `closed-stays`: what a node has applied a CLOSE of does not come back to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use evenkeel_core::cluster::{Epoch, GroupId, PeerId};
use evenkeel_core::sync::LsnRange;

use super::tables::{Key, key};
use super::{Found, Sample};

/// A CLOSE that nobody has acked for so long is not waited for.
const ACKED_WITHIN: Duration = Duration::from_secs(5);
/// Closed sessions that are kept in mind, at most.
const CLOSED_COUNT_MAX: usize = 100_000;

/// What is said of closes on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A holder tells that a session is closed.
    Closed {
        by: PeerId,
        group: GroupId,
        epoch: Epoch,
        bucket: u16,
        lsn: u64,
        inbound: Key,
    },
    /// A node has dealt with all of somebody's records up to one, and with these; but for some.
    Acked {
        by: PeerId,
        of: PeerId,
        bucket: u16,
        contiguous: u64,
        applied: Vec<LsnRange>,
        but: Vec<LsnRange>,
    },
    /// These records are not told again to a node: that it has dealt with them says nothing.
    Skipped {
        by: PeerId,
        to: u16,
        bucket: u16,
        gap: LsnRange,
    },
}

/// A CLOSE that was told.
#[derive(Clone, Debug)]
struct Told {
    at: Duration,
    group: GroupId,
    version: (Epoch, u64),
    inbound: Key,
    /// Nodes of which it is known, or will not be.
    settled: BTreeSet<u16>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ClosedStays {
    /// By who told it, and bucket.
    told: BTreeMap<(PeerId, u16), VecDeque<Told>>,
    /// By node: up to which version a session is closed there.
    closed: BTreeMap<(u16, GroupId, Key), (Epoch, u64)>,
    /// Sessions that are to be looked at, as a node has said that they are closed.
    touched: BTreeSet<Key>,
    pub(crate) found: Found,
}

fn has(ranges: &[LsnRange], lsn: u64) -> bool {
    ranges.iter().any(|r| r.first <= lsn && lsn <= r.last)
}

impl ClosedStays {
    pub(crate) fn hear(&mut self, at: Duration, said: &Said) {
        match said {
            Said::Closed {
                by,
                group,
                epoch,
                bucket,
                lsn,
                inbound,
            } => {
                let told = self.told.entry((*by, *bucket)).or_default();
                while told.front().is_some_and(|t| at > t.at + ACKED_WITHIN) {
                    told.pop_front();
                }
                told.push_back(Told {
                    at,
                    group: *group,
                    version: (*epoch, *lsn),
                    inbound: *inbound,
                    settled: BTreeSet::new(),
                });
            }
            Said::Acked {
                by,
                of,
                bucket,
                contiguous,
                applied,
                but,
            } => {
                let node = by.node.0;
                let mut closed = Vec::new();
                for told in self.told.get_mut(&(*of, *bucket)).into_iter().flatten() {
                    let lsn = told.version.1;
                    let is_dealt_with = lsn <= *contiguous || has(applied, lsn);
                    if is_dealt_with && told.settled.insert(node) && !has(but, lsn) {
                        closed.push((told.group, told.inbound, told.version));
                    }
                }
                for (group, inbound, version) in closed {
                    self.close(node, group, inbound, version);
                }
            }
            Said::Skipped { by, to, bucket, gap } => {
                for told in self.told.get_mut(&(*by, *bucket)).into_iter().flatten() {
                    if gap.first <= told.version.1 && told.version.1 <= gap.last {
                        told.settled.insert(*to);
                    }
                }
            }
        }
    }

    fn close(&mut self, node: u16, group: GroupId, inbound: Key, version: (Epoch, u64)) {
        if self.closed.len() >= CLOSED_COUNT_MAX {
            self.closed.clear();
        }
        self.found.looked += 1;
        let closed = self.closed.entry((node, group, inbound)).or_insert(version);
        *closed = version.max(*closed);
        self.touched.insert(inbound);
    }

    /// A node begins another life, and knows nothing.
    pub(crate) fn forget(&mut self, node: u16) {
        self.closed.retain(|(of, ..), _| *of != node);
    }

    /// Sessions that are to be in the next sample.
    pub(crate) fn touched(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.touched)
    }

    /// `gave_up`: whether a node had to give the place of a closed session to another one, and cannot know it any more.
    pub(crate) fn sample(&mut self, sample: &Sample, gave_up: impl Fn(u16) -> bool) {
        for node in &sample.nodes {
            for row in &node.rows {
                let Some((group, epoch, lsn)) = row.version.filter(|v| v.2 != 0) else {
                    continue;
                };
                let closed = self.closed.get(&(node.node, group, key(&row.inbound)));
                if closed.is_none_or(|closed| (epoch, lsn) >= *closed) || gave_up(node.node) {
                    continue;
                }
                self.found.add(sample.at, || {
                    format!(
                        "{} > {} is on node {} again, {}, of which that had applied the close",
                        row.inbound.src,
                        row.inbound.dst,
                        node.node,
                        row.state.name()
                    )
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{NodeSample, Row};
    use evenkeel_core::cluster::{Incarnation, NodeId};
    use evenkeel_core::proto::ConnState;
    use evenkeel_core::tuple::{L4Proto, Tuple};

    const AT: Duration = Duration::from_secs(5);

    fn peer(node: u16) -> PeerId {
        PeerId {
            node: NodeId(node),
            incarnation: Incarnation(1),
        }
    }

    fn group() -> GroupId {
        GroupId {
            node: NodeId(1),
            generation: 1,
        }
    }

    fn epoch() -> Epoch {
        Epoch {
            term: 1,
            holder: peer(1),
        }
    }

    fn row(lsn: u64) -> Row {
        Row {
            inbound: Tuple {
                proto: L4Proto::Tcp,
                src: ([192, 0, 2, 100], 7).into(),
                dst: ([192, 0, 2, 1], 80).into(),
            },
            local: ([198, 18, 1, 1], 5_000).into(),
            server: ([198, 18, 0, 10], 8_000).into(),
            state: ConnState::Established,
            version: Some((group(), epoch(), lsn)),
        }
    }

    /// Node 1 closes the session with LSN 9, `then` follows, and node 2 has it with `lsn`.
    fn found(then: &[Said], lsn: u64) -> Found {
        let mut oracle = ClosedStays::default();
        let inbound = key(&row(0).inbound);
        let closed = Said::Closed {
            by: peer(1),
            group: group(),
            epoch: epoch(),
            bucket: 3,
            lsn: 9,
            inbound,
        };
        oracle.hear(AT, &closed);
        then.iter().for_each(|said| oracle.hear(AT, said));
        assert_eq!(oracle.touched().contains(&inbound), oracle.found.looked > 0);
        let sample = Sample {
            at: AT,
            nodes: vec![NodeSample {
                node: 2,
                rows: vec![row(lsn)],
                ..NodeSample::default()
            }],
        };
        oracle.sample(&sample, |_| true);
        assert_eq!(oracle.found.count, 0, "it cannot know it");
        oracle.sample(&sample, |_| false);
        let mut sample = sample;
        oracle.forget(2);
        sample.at += AT;
        let count = oracle.found.count;
        oracle.sample(&sample, |_| false);
        assert_eq!(oracle.found.count, count, "another life");
        oracle.found
    }

    fn acked(contiguous: u64, applied: (u64, u64), but: (u64, u64)) -> Said {
        let range = |(first, last)| vec![LsnRange { first, last }];
        Said::Acked {
            by: peer(2),
            of: peer(1),
            bucket: 3,
            contiguous,
            applied: range(applied),
            but: range(but),
        }
    }

    #[test]
    fn oracle_closed_stays_fires_on_what_comes_back_after_its_close() {
        let none = (0, 0);
        for (then, lsn, fires) in [
            (vec![], 8, false),
            (vec![acked(8, none, none)], 8, false),
            (vec![acked(9, none, none)], 8, true),
            (vec![acked(9, none, none)], 9, false),
            (vec![acked(9, none, none)], 10, false),
            (vec![acked(9, none, none)], 0, false),
            (vec![acked(2, (7, 9), none)], 8, true),
            (vec![acked(9, none, (9, 9)), acked(9, none, none)], 8, false),
        ] {
            assert_eq!(found(&then, lsn).count, u64::from(fires), "{then:?} {lsn}");
        }
        let skipped = Said::Skipped {
            by: peer(1),
            to: 2,
            bucket: 3,
            gap: LsnRange { first: 9, last: 12 },
        };
        assert_eq!(found(&[skipped, acked(9, none, none)], 8).count, 0);
    }
}
