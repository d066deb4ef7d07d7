//! `sometimes`: situations that a swarm must have been in. One that never occurred was never tested.

use std::collections::BTreeMap;

use crate::report::Report;

/// Where a situation is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// What nodes said of themselves ([`Report::situations`]).
    Said(&'static str),
    /// What nodes counted of replication.
    Count(&'static str),
    /// Packets that the engine dropped.
    Drop(&'static str),
    /// Frames and messages that links, rings and queues lost.
    Lost(&'static str),
    /// Messages between nodes.
    Sync(&'static str),
    /// Frames between nodes of which something was kept back.
    KeptBack,
    /// Local ports that were in use.
    Probes,
}

macro_rules! situations {
    ($($name:literal, $source:ident $(($of:literal))?, $says:literal;)*) => {
        const SOURCES: &[Source] = &[$(Source::$source $(($of))?,)*];

        /// Names of the situations, with what each is.
        pub const PROBES: &[(&str, &str)] = &[$(($name, $says),)*];
    };
}

situations! {
    "adopted", Said("adopted"), "a node took the groups of a dead one";
    "adopted-while-joining", Said("adopting-while-joining"), "a group was adopted while another node was joining";
    "bulk-interrupted", Said("peer-lost-while-joining"), "a node that was joining lost a peer";
    "joiner-crashed", Said("crashed-while-joining"), "a node crashed while it was joining";
    "fenced", Said("fenced"), "a holder learnt that another node has its group";
    "suspect", Said("suspect"), "the lease of a holder was uncertain";
    "renewed", Said("renewed"), "and certain again";
    "two-masters", Said("two-masters"), "two nodes answered for the VIPs at once";
    "handed-over", Said("handed-over"), "a group was handed over";
    "drained", Said("drained"), "a node had handed over all it had";
    "degraded", Said("degraded"), "a node served without having asked anybody";
    "out-of-sync", Said("out-of-sync"), "a peer was too far behind to be waited for";
    "lagging", Said("lagging"), "a node found itself too far behind";
    "one-way", Said("one-way"), "a peer that was heard did not hear";
    "unheard", Said("unheard"), "a peer was silent on the sync network alone";
    "incomplete", Said("incomplete"), "a node lacked sessions for more than a second";
    "nack", Count("nack-sent"), "a gap was asked for";
    "skip", Sync("skip"), "what can no longer be told was passed over";
    "ring-overflow", Count("slots-dirty"), "a ring overflowed, and slots became dirty";
    "slot-pulled", Count("slots-pulled"), "a slot was pulled";
    "slot-repeated", Count("slots-repeated"), "a slot was asked for again";
    "unmentioned", Count("unmentioned"), "the end of a slot deleted a session";
    "older-refused", Count("older"), "a record was older than what was there, or than a tombstone";
    "stale-epoch", Count("stale-epoch"), "records of a holder that has lost its group were refused";
    "unknown-epoch", Count("unknown-epoch"), "records came before the epoch that they name";
    "conflict", Count("conflict"), "a record lost its tuple to a session of another group";
    "offered", Count("offered"), "the loser of an epoch offered a session";
    "offer-taken", Count("offers-taken"), "and the winner took it";
    "merged-lacking", Count("merged-lacking"), "a bucket was adopted that nobody had whole";
    "hint", Count("hints-taken"), "a replica told the holder what it saw";
    "queue-full", Count("queue-full"), "a message was put back as a queue was full";
    "duplicate", Count("duplicate"), "a record came twice";
    "frame-replayed", Count("frames-replayed"), "a copy of a frame was dropped";
    "frame-of-old-life", Count("frames-of-old-life"), "a frame of an earlier life was dropped";
    "frame-ungreeted", Count("frames-ungreeted"), "a frame came of a life that had not greeted";
    "digest-equal", Count("digest-equal"), "a digest found a replica to be as its holder";
    "port-in-use", Probes, "a local port that was probed was in use";
    "no-local-port", Drop("no-local-port"), "no local port was free";
    "no-conn", Drop("no-conn"), "a packet belonged to no session";
    "not-ready", Drop("not-ready"), "a node that may not create sessions was asked for one";
    // Faults, by what they do: one that does nothing any more never occurs.
    "link-cut", Lost("link-cut"), "a link was cut while something was on it";
    "link-loss", Lost("link-loss"), "a link lost a frame";
    "link-corrupted", Lost("link-corrupted"), "a link flipped a bit";
    "bad-checksum", Drop("bad-checksum"), "and the node that received the frame found it wrong";
    "switch-parted", Lost("switch-parted"), "a switch kept two nodes apart";
    "kept-back", KeptBack, "messages between nodes were kept back";
    "bucket-dark", Lost("bucket-dark"), "a NIC lost the frames of a bucket";
    "rx-ring-full", Lost("rx-ring-full"), "a worker's ring was full";
    "messages-full", Lost("messages-full"), "a queue from node to workers was full";
    "commands-full", Lost("commands-full"), "a queue of commands to workers was full";
    "events-full", Lost("events-full"), "a queue from workers to node was full";
    "table-full", Drop("conn-table-full"), "a table had no room for a session";
    "lost-in-crash", Lost("lost-in-crash"), "a node crashed with frames in its rings";
    "paused", Said("paused"), "a node stood still";
    "slowed", Said("slowed"), "a node or a worker was slow";
    "clock-drifting", Said("clock-drifting"), "a clock was faster or slower than it was made";
    "clock-stepped", Said("clock-stepped"), "a clock jumped";
    "config-changed", Said("config-changed"), "workers served by another config";
}

/// How often a run was in each of [`PROBES`], in their order.
pub fn probes(report: &Report) -> Vec<u64> {
    let of = |counts: &BTreeMap<&'static str, u64>, name: &str| counts.get(name).copied().unwrap_or(0);
    let count = |source: &Source| match *source {
        Source::Said(name) => of(&report.situations, name),
        Source::Count(name) => of(&report.counts, name),
        Source::Drop(name) => of(&report.drops, name),
        Source::Lost(name) => of(&report.lost, name),
        Source::Sync(name) => of(&report.sync, name),
        Source::KeptBack => report.kept_back,
        Source::Probes => report.probes,
    };
    SOURCES.iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::{TWO_NODES, world_at};
    use crate::run::{BITES, SITUATIONS, whatever_lost};
    use evenkeel_core::stats::DropReason;

    #[test]
    fn every_situation_is_one_that_something_counts() {
        assert_eq!(SOURCES.len(), PROBES.len());
        let lost = whatever_lost(&world_at(TWO_NODES, 1, std::time::Duration::ZERO));
        for source in SOURCES {
            let known = match *source {
                Source::Count(name) => crate::node_counters().any(|c| c == name),
                Source::Drop(name) => DropReason::ALL.iter().any(|r| r.name() == name),
                Source::Sync(name) => crate::SYNC_COUNTERS.contains(&name),
                Source::Said(name) => SITUATIONS.contains(&name) || BITES.contains(&name),
                Source::Lost(name) => lost.contains_key(name),
                Source::Probes | Source::KeptBack => true,
            };
            assert!(known, "{source:?}");
        }
    }
}
