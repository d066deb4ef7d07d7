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
    /// Messages between nodes.
    Sync(&'static str),
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
    "port-in-use", Probes, "a local port that was probed was in use";
    "no-local-port", Drop("no-local-port"), "no local port was free";
    "no-conn", Drop("no-conn"), "a packet belonged to no session";
    "not-ready", Drop("not-ready"), "a node that may not create sessions was asked for one";
}

/// How often a run was in each of [`PROBES`], in their order.
pub fn probes(report: &Report) -> Vec<u64> {
    let of = |counts: &BTreeMap<&'static str, u64>, name: &str| counts.get(name).copied().unwrap_or(0);
    let count = |source: &Source| match *source {
        Source::Said(name) => of(&report.situations, name),
        Source::Count(name) => of(&report.counts, name),
        Source::Drop(name) => of(&report.drops, name),
        Source::Sync(name) => of(&report.sync, name),
        Source::Probes => report.probes,
    };
    SOURCES.iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::stats::DropReason;

    #[test]
    fn every_situation_is_one_that_something_counts() {
        assert_eq!(SOURCES.len(), PROBES.len());
        for source in SOURCES {
            let known = match *source {
                Source::Count(name) => crate::node_counters().any(|c| c == name),
                Source::Drop(name) => DropReason::ALL.iter().any(|r| r.name() == name),
                Source::Sync(name) => crate::SYNC_COUNTERS.contains(&name),
                Source::Said(name) => crate::run::SITUATIONS.contains(&name),
                Source::Probes => true,
            };
            assert!(known, "{source:?}");
        }
    }
}
