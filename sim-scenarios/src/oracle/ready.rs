//! `ready-knows`: what a node says of itself when it joins, against what others have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_core::proto::ConnState;

use super::tables::{Key, key};
use super::{Found, NodeSample, Sample};

/// So long after it began to say so a node is looked at.
const FRESH: Duration = Duration::from_millis(500);
/// So many sessions may be missing: they are on their way.
const LACKING_MAX: usize = 4;
/// Or one in so many.
const LACKING_SHARE: usize = 50;

/// A life of a node.
#[derive(Clone, Copy, Debug)]
struct Begun {
    life: u64,
    /// The last look at which it was not ready, or not there. What is told later may not reach it: it is parted from the others.
    before: Duration,
    /// The first one at which it was.
    ready: Option<Duration>,
}

/// `ready-knows`.
#[derive(Debug, Default)]
pub(crate) struct ReadyKnows {
    /// By node.
    ready: BTreeMap<u16, Begun>,
    /// The last look.
    last: Duration,
    pub(crate) found: Found,
}

/// Established sessions that are told.
fn told(node: &NodeSample) -> BTreeSet<Key> {
    let rows = node.rows.iter();
    let told = rows.filter(|r| r.state == ConnState::Established && r.version.is_some_and(|v| v.2 != 0));
    told.map(|r| key(&r.inbound)).collect()
}

impl ReadyKnows {
    /// Whether there is a node to be looked at, and others to compare it with. Of a sample that need not show sessions.
    pub(crate) fn is_due(&mut self, sample: &Sample) -> bool {
        let (fresh, older) = self.split(sample);
        !fresh.is_empty() && !older.is_empty()
    }

    /// Nodes that are ready: those that have just begun to say so, and the others.
    fn split<'s>(&mut self, sample: &'s Sample) -> (Vec<(&'s NodeSample, Duration)>, Vec<&'s NodeSample>) {
        let mut fresh = Vec::new();
        let mut older = Vec::new();
        for node in &sample.nodes {
            let begun = Begun {
                life: node.life,
                before: self.last,
                ready: None,
            };
            let entry = self.ready.entry(node.node).or_insert(begun);
            if entry.life != node.life {
                *entry = begun;
            }
            if !node.ready {
                if entry.ready.is_none() {
                    entry.before = sample.at;
                }
                continue;
            }
            let since = *entry.ready.get_or_insert(sample.at);
            if sample.at <= since + FRESH {
                fresh.push((node, entry.before));
            } else {
                older.push(node);
            }
        }
        self.last = sample.at;
        (fresh, older)
    }

    /// Looks at all sessions; `established` says since when a client's tuple has one.
    pub(crate) fn sample(&mut self, sample: &Sample, established: &impl Fn(&Key) -> Option<Duration>) {
        let (fresh, older) = self.split(sample);
        // Nodes that have just begun to say so all at once have nobody who knows better.
        if fresh.is_empty() || older.is_empty() {
            return;
        }
        let all = older.into_iter().map(told);
        let common = all.reduce(|a, b| a.intersection(&b).copied().collect());
        let common = common.unwrap_or_default();
        for (node, before) in fresh {
            let has: BTreeSet<Key> = node.rows.iter().map(|r| key(&r.inbound)).collect();
            let old = |k: &&Key| established(k).is_none_or(|at| at <= before);
            let lacking = common.iter().filter(|k| !has.contains(k)).filter(old).count();
            self.found.looked += common.len() as u64;
            if lacking > LACKING_MAX.max(common.len() / LACKING_SHARE) {
                self.found.add(sample.at, || {
                    format!(
                        "node {} says that it is ready, and lacks {lacking} of {} sessions that all others have",
                        node.node,
                        common.len()
                    )
                });
            }
        }
    }
}
