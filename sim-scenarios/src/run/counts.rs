//! What the nodes themselves counted of replication, over all their lives.

use std::collections::BTreeMap;

use evenkeel_core::stats::SyncCount;
use evenkeel_core::sync::ReceiverCounters;
use evenkeel_io_sim::{LbRef, LbState, World};

/// Beside those of the engine: of the receiver of frames, and of the queues between a node's threads.
const OTHERS: [&str; 9] = [
    "frames-replayed",
    "frames-too-old",
    "frames-of-old-life",
    "frames-unsupported",
    "frames-forged",
    "frames-ungreeted",
    "messages-full",
    "commands-full",
    "events-full",
];

/// Of these, the receiver's.
const RECEIVER: usize = 6;

/// What nodes count of replication, by name: the engine's counters without their `sync-`, then the receiver's and the
/// queues'.
pub fn node_counters() -> impl Iterator<Item = &'static str> {
    let engine = SyncCount::ALL.iter().map(|c| c.name());
    engine
        .map(|name| name.strip_prefix("sync-").unwrap_or(name))
        .chain(OTHERS)
}

/// See the module. Of a life that ends by a crash counts what was there at the last look.
#[derive(Debug, Default)]
pub(crate) struct NodeCounts {
    lives: BTreeMap<(u16, u64), [u64; SyncCount::COUNT + RECEIVER]>,
}

impl NodeCounts {
    /// Looks at a node.
    pub(crate) fn sample(&mut self, lb: LbRef<'_>) {
        if lb.state() == LbState::Down {
            return;
        }
        let mut counts = [0; SyncCount::COUNT + RECEIVER];
        for worker in lb.worker_counters() {
            for (to, n) in counts.iter_mut().zip(worker.engine.sync) {
                *to += n;
            }
        }
        let ReceiverCounters {
            replayed,
            too_old,
            old_incarnation,
            unsupported,
            forged,
            ungreeted,
            ..
        } = lb.receiver_counters().unwrap_or_default();
        counts[SyncCount::COUNT..].copy_from_slice(&[
            replayed,
            too_old,
            old_incarnation,
            unsupported,
            forged,
            ungreeted,
        ]);
        self.lives.insert((lb.id().0, lb.lives()), counts);
    }

    /// All, in the order of [`node_counters`].
    pub(crate) fn all(&self, world: &World) -> Vec<u64> {
        let mut all = vec![0; SyncCount::COUNT + RECEIVER];
        for life in self.lives.values() {
            all.iter_mut().zip(life).for_each(|(to, n)| *to += n);
        }
        let queues = world.lbs().map(|lb| lb.sync_counters());
        let full = queues.fold([0; 3], |sum: [u64; 3], c| {
            [
                sum[0] + c.messages_full,
                sum[1] + c.commands_full,
                sum[2] + c.events_full,
            ]
        });
        all.extend(full);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = node_counters().collect();
        assert_eq!(names.len(), SyncCount::COUNT + OTHERS.len());
        assert!(names.contains("refused") && names.contains("frames-replayed"));
    }
}
