//! What a run measures, by name.

use evenkeel_core::stats::DropReason;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Nanoseconds.
    Span,
}

impl Unit {
    /// As a message says it.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Count => "a count",
            Unit::Span => "a span of time",
        }
    }
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $unit:ident, $per_flow:literal;)*) => {
        /// Something measured.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Metric {
            $($(#[doc = $doc])+ $name,)*
            /// Packets that the engine dropped for a reason: its index in [`DropReason::ALL`].
            Drop(u8),
            /// A counter of replication, of all nodes: its index in [`crate::run::SYNC_COUNTERS`].
            Sync(u8),
            /// What the nodes themselves counted: its index in [`crate::run::node_counters`].
            Count(u8),
        }

        /// Names of metrics with what they mean, apart from `drops.REASON`, `sync.COUNTER` and `counts.COUNTER`.
        pub const METRICS: &[(&str, Metric, &str)] =
            &[$(($text, Metric::$name, concat!($($doc),+)),)*];

        impl Metric {
            /// What it counts.
            pub const fn unit(self) -> Unit {
                match self {
                    $(Metric::$name => Unit::$unit,)*
                    Metric::Drop(_) | Metric::Sync(_) | Metric::Count(_) => Unit::Count,
                }
            }

            /// Whether it is a flow's.
            pub const fn per_flow(self) -> bool {
                match self {
                    $(Metric::$name => $per_flow,)*
                    Metric::Drop(_) | Metric::Sync(_) | Metric::Count(_) => false,
                }
            }
        }
    };
}

metrics! {
    /// flows that were opened
    Connections = "connections", Count, false;
    /// flows that were connected
    Established = "established", Count, false;
    /// flows that ended as they should
    Completed = "completed", Count, false;
    /// flows that were connected, and broke
    Broken = "broken", Count, false;
    /// flows that broke before they were connected
    Failed = "failed", Count, false;
    /// flows that were opened and still wait at the end for what they asked for before the quiet, or to be closed
    Hanging = "hanging", Count, false;
    /// of those that broke, failed or hang: those whose node gave them, when the run ended, the ends of a session that died with the last node that had it
    Blocked = "blocked", Count, false;
    /// flows that were opened when the first fault began, connected before it or by a SYN-ACK that was on its way, and not over, nor by what was on its way
    LiveAtFault = "live_at_fault", Count, false;
    /// of these: those that broke
    BrokenLive = "broken_live", Count, false;
    /// of these: those whose session another node had, after a crash: when a node took over
    Replicated = "replicated", Count, false;
    /// of these: those whose session no other node had, after a crash: not even when one took over
    Unsynced = "unsynced", Count, false;
    /// flows that were opened before the first fault, and were connected by whoever took over
    OpeningAtFault = "opening_at_fault", Count, false;
    /// flows opened after the first fault
    Later = "later", Count, false;
    /// of these: those that broke, connected or not
    BrokenLater = "broken_later", Count, false;
    /// faults that waited for something that never came, and were not `optional`
    Untriggered = "untriggered", Count, false;
    /// sessions of others that faults damaged on a node
    Damaged = "damaged", Count, false;
    /// flows that were opened while the check of a real server had failed on all nodes, for 50 ms or more, and were served by it
    ChoseDown = "chose_down", Count, false;
    /// flows that were opened after it was well again, for 50 ms or more, and were served by it
    ChoseAgain = "chose_again", Count, false;
    /// packets that the engine dropped
    Drops = "drops", Count, false;
    /// times that another node began to answer for the VIPs since the first fault
    Takeovers = "takeovers", Count, false;
    /// times since the first fault that the router took a node in or out, of either family
    Rehashes = "rehashes", Count, false;
    /// times that a node became master for a family of VIPs since the first fault without having been ready in that life
    EarlyMasters = "early_masters", Count, false;
    /// groups whose holder was told since the first fault that another node has them
    Fenced = "fenced", Count, false;
    /// nodes that have handed over all that they held
    Drained = "drained", Count, false;
    /// alarms that nodes raised
    Alarms = "alarms", Count, false;
    /// of these: alarms of nodes that found nobody who serves
    ColdAlarms = "cold_alarms", Count, false;
    /// alarms that are not cleared at the end, of nodes that run
    OpenAlarms = "open_alarms", Count, false;
    /// nodes that are ready at the end
    Ready = "ready", Count, false;
    /// nodes that run at the end, were not asked to leave, and are not ready
    NotReady = "not_ready", Count, false;
    /// nodes that answer for the VIPs of one family at the end: the most of both families
    Masters = "masters", Count, false;
    /// flows that broke, failed or hang, and nothing that happened to them excuses it
    Unexcused = "unexcused", Count, false;
    /// nodes that ever said they serve without having asked anybody
    Degraded = "degraded", Count, false;
    /// sessions in all tables at the end, copies included
    Sessions = "sessions", Count, false;
    /// sessions that are established in some table at the end, though their flows were over well before the fault
    Resurrected = "resurrected", Count, false;
    /// sessions that only some of the nodes have at the end, or that differ
    Unequal = "unequal", Count, false;
    /// local ports that were probed and found in use
    Probes = "probes", Count, false;
    /// a flow's longest time from a request to its whole reply
    Stall = "stall", Span, true;
    /// the longest of these of all flows
    Slowest = "slowest", Span, false;
    /// from a flow's longest stall: from the end of the detection to the next segment that an end sends again, its way there and back, and what of the stall was before the fault
    NextRto = "next_rto", Span, true;
    /// from the first fault until another node answers for the VIPs, or the router sends one nothing any more
    Detection = "detection", Span, false;
    /// from the first fault until the last address of nodes that are down was taken over
    AllTaken = "all_taken", Span, false;
    /// the longest time in which VRRP must see that the master is gone: three intervals and the skew
    MasterDown = "master_down", Span, false;
    /// the longest time in which the router must see that a node is gone: as many intervals between hellos as count, and one more
    MemberDown = "member_down", Span, false;
    /// from the end of the last fault until the tables of all nodes are equal, and stay it
    Converged = "converged", Span, false;
    /// the longest time that a node needed from its start until it was ready
    Join = "join", Span, false;
}

impl Metric {
    /// The metric with this name.
    pub fn named(name: &str) -> Option<Metric> {
        if let Some(reason) = name.strip_prefix("drops.") {
            let at = DropReason::ALL.iter().position(|r| r.name() == reason)?;
            return u8::try_from(at).ok().map(Metric::Drop);
        }
        if let Some(counter) = name.strip_prefix("sync.") {
            let at = crate::run::SYNC_COUNTERS.iter().position(|c| *c == counter)?;
            return u8::try_from(at).ok().map(Metric::Sync);
        }
        if let Some(counter) = name.strip_prefix("counts.") {
            let at = crate::run::node_counters().position(|c| c == counter)?;
            return u8::try_from(at).ok().map(Metric::Count);
        }
        METRICS.iter().find(|m| m.0 == name).map(|m| m.1)
    }

    /// Whether it is measured at flows, and so can be of those of one load.
    pub const fn is_of_a_load(self) -> bool {
        use Metric as M;
        self.per_flow()
            || matches!(
                self,
                M::Connections
                    | M::Established
                    | M::Completed
                    | M::Broken
                    | M::Failed
                    | M::Hanging
                    | M::Blocked
                    | M::LiveAtFault
                    | M::BrokenLive
                    | M::Replicated
                    | M::Unsynced
                    | M::OpeningAtFault
                    | M::Later
                    | M::BrokenLater
                    | M::Slowest
            )
    }

    /// Its name.
    pub fn name(self) -> String {
        match self {
            Metric::Drop(i) => format!(
                "drops.{}",
                DropReason::ALL.get(usize::from(i)).map_or("?", |r| r.name())
            ),
            Metric::Sync(i) => format!(
                "sync.{}",
                crate::run::SYNC_COUNTERS.get(usize::from(i)).unwrap_or(&"?")
            ),
            Metric::Count(i) => format!(
                "counts.{}",
                crate::run::node_counters().nth(usize::from(i)).unwrap_or("?")
            ),
            metric => METRICS
                .iter()
                .find(|m| m.1 == metric)
                .map_or("?", |m| m.0)
                .to_owned(),
        }
    }

    /// All names, for suggestions.
    pub fn names() -> impl Iterator<Item = String> {
        let drops = DropReason::ALL.iter().map(|r| format!("drops.{}", r.name()));
        let sync = crate::run::SYNC_COUNTERS.iter().map(|c| format!("sync.{c}"));
        let counts = crate::run::node_counters().map(|c| format!("counts.{c}"));
        let plain = METRICS.iter().map(|m| m.0.to_owned());
        plain.chain(drops).chain(sync).chain(counts)
    }
}
