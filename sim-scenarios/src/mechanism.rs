//! Mechanisms that a counter-proof takes away. No code of the engine knows of it: what is off is off by the
//! config, or because the network never carries the messages on which the mechanism lives, or not as they were sent.

/// Kinds of messages between nodes, for suppressing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is named after the message")]
pub enum Kind {
    Live,
    Close,
    Heartbeat,
    Ack,
    Nack,
    Skip,
    Hint,
    Pull,
    Slot,
    Digest,
    Watermark,
    Merged,
    Offer,
    Presence,
    Fenced,
    Handover,
    Vrrp,
}

impl Kind {
    /// All, as they are written.
    pub const ALL: [(&'static str, Kind); 17] = [
        ("live", Kind::Live),
        ("close", Kind::Close),
        ("heartbeat", Kind::Heartbeat),
        ("ack", Kind::Ack),
        ("nack", Kind::Nack),
        ("skip", Kind::Skip),
        ("hint", Kind::Hint),
        ("pull", Kind::Pull),
        ("slot", Kind::Slot),
        ("digest", Kind::Digest),
        ("watermark", Kind::Watermark),
        ("merged", Kind::Merged),
        ("offer", Kind::Offer),
        ("presence", Kind::Presence),
        ("fenced", Kind::Fenced),
        ("handover", Kind::Handover),
        ("vrrp", Kind::Vrrp),
    ];
}

/// How a mechanism is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// No service is replicated.
    ReplicateOff,
    /// No service is replicated before its sessions are established.
    ReplicateEstablished,
    /// Nothing waits for other nodes: sessions are told with their SYN-ACK, which is let through at once.
    ReplicateSynAck,
    /// A node waits for a peer for ever.
    JoinTimeEndless,
    /// The VIPs are the first node's, whatever happens to it.
    OneHolder,
    /// All nodes have the same LIPs.
    SharedLips,
    /// Every node has an RSS key of its own.
    OwnRssKeys,
    /// These messages never arrive, from the first fault on: until then nodes find each other.
    Suppress(&'static [Kind]),
    /// These messages never arrive at the node that the first fault met, from then on.
    Deafen(&'static [Kind]),
    /// Frames between nodes get new numbers on their way, each its own: copies too.
    Renumber,
    /// Nobody tells nodes what health checks find.
    NoVerdicts,
    /// All nodes speak the same version of frames.
    OneFormat,
    /// Nodes do not seal what they say.
    Unsealed,
    /// The faults of the timeline do not happen: shows that what counts them would notice.
    NoFaults,
}

macro_rules! mechanisms {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $switch:expr;)*) => {
        /// A mechanism.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mechanism { $($(#[doc = $doc])+ $name,)* }

        impl Mechanism {
            /// All, as they are written, with what they are for.
            pub const ALL: &'static [(&'static str, Mechanism, &'static str)] =
                &[$(($text, Mechanism::$name, concat!($($doc),+)),)*];

            /// As it is written.
            pub const fn name(self) -> &'static str {
                match self { $(Mechanism::$name => $text,)* }
            }

            /// How it is taken away.
            pub const fn switch(self) -> Switch {
                match self { $(Mechanism::$name => $switch,)* }
            }
        }
    };
}

mechanisms! {
    /// Replication as a whole.
    Replication = "replication", Switch::ReplicateOff;
    /// A session is told with its SYN-ACK, not only once it is established.
    SynAck = "synack", Switch::ReplicateEstablished;
    /// What would tell a client that it is connected waits until other nodes have its session.
    Deferral = "deferral", Switch::ReplicateSynAck;
    /// A backup answers for the VIPs once their master is silent.
    Takeover = "takeover", Switch::OneHolder;
    /// A node that starts waits until it has what the others have.
    ReadinessGate = "readiness-gate", Switch::Deafen(&[Kind::Presence, Kind::Vrrp]);
    /// A node that finds no peer serves all the same, after the join time.
    ColdStart = "cold-start", Switch::JoinTimeEndless;
    /// Each node allocates on LIPs of its own.
    Shares = "shares", Switch::SharedLips;
    /// All nodes map tuples to the same buckets.
    CommonBuckets = "common-buckets", Switch::OwnRssKeys;
    /// A receiver asks for what it lacks.
    Nack = "nack", Switch::Suppress(&[Kind::Nack]);
    /// Frames between nodes are sealed, and a node that starts takes none that was sent before.
    Seal = "seal", Switch::Unsealed;
    /// A copy of a frame is known by its number, and dropped.
    ReplayWindow = "replay-window", Switch::Renumber;
    /// The last number is repeated, so that a lost tail is seen.
    Heartbeat = "heartbeat", Switch::Suppress(&[Kind::Heartbeat]);
    /// Slots are pulled: bulk, and the repair of what is lost for good.
    Pull = "pull", Switch::Suppress(&[Kind::Pull]);
    /// A replica compares what it has with what its holder told.
    Digests = "digests", Switch::Suppress(&[Kind::Digest]);
    /// Closed connections are told, by a record or with their slot.
    Close = "close", Switch::Suppress(&[Kind::Close, Kind::Pull]);
    /// A replica tells the holder what it saw.
    Hint = "hint", Switch::Suppress(&[Kind::Hint]);
    /// An adopter begins with what the best informed survivor knows.
    BaseRule = "base-rule", Switch::Suppress(&[Kind::Watermark, Kind::Pull, Kind::Offer]);
    /// A node learns that another one has taken its groups.
    Fencing = "fencing", Switch::Suppress(&[Kind::Fenced, Kind::Presence, Kind::Offer]);
    /// A node that leaves hands over what it has.
    Handover = "handover", Switch::Suppress(&[Kind::Handover]);
    /// What was applied is confirmed.
    Ack = "ack", Switch::Suppress(&[Kind::Ack]);
    /// A node gives no new connections to a real server whose check failed.
    HealthVerdicts = "health-verdicts", Switch::NoVerdicts;
    /// Nodes of another version are refused, and that is noticed.
    Versions = "versions", Switch::OneFormat;
    /// The disturbance itself.
    Disturbance = "disturbance", Switch::NoFaults;
}
