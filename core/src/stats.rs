//! Counters of a worker: by verdict, by drop reason, and of conns.

use core::fmt;

use crate::proto::ConnState;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $text:literal,)+) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];

            /// Name in counters, summaries and comments of captures.
            pub const fn name(self) -> &'static str {
                match self {
                    $(DropReason::$name => $text,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// The frame ends before the headers that it announces.
    Truncated => "truncated",
    /// A length field contradicts another one, or the frame (RFC 791, 8200, 9293, 768).
    BadLength => "bad-length",
    /// The version of the IP header is not that of the EtherType.
    BadVersion => "bad-version",
    /// More VLAN tags or IPv6 extension headers than the engine follows, or headers longer than the head.
    TooManyHeaders => "too-many-headers",
    /// A checksum is wrong.
    BadChecksum => "bad-checksum",
    /// UDP without checksum where there must be one: IPv6 (RFC 8200, 8.1), or on the way from IPv4 to IPv6
    /// when the datagram lies in several segments.
    UdpZeroChecksum => "udp-zero-checksum",
    /// A fragment.
    Fragment => "fragment",
    /// An ICMP error message.
    IcmpError => "icmp-error",
    /// An ICMP message that is neither an error nor answered here.
    IcmpOther => "icmp-other",
    /// A source route that is not used up (RFC 5095, RFC 7126).
    SourceRoute => "source-route",
    /// TCP flags that no TCP sends.
    BadTcpFlags => "bad-tcp-flags",
    /// A source that no host can have, or that is our own.
    BadSource => "bad-source",
    /// An ARP or NDP message that contradicts itself.
    BadNeighbourMessage => "bad-neighbour-message",
    /// ARP or NDP for somebody else.
    NeighbourNotOurs => "neighbour-not-ours",
    /// The destination is no address of ours.
    NotOurs => "not-ours",
    /// The destination is a VIP, but no service is at this port.
    NoService => "no-service",
    /// The service has no real server that takes conns.
    NoServer => "no-server",
    /// Not the beginning of a connection, and no conn knows it; or its SYN was not answered here, and another node may have opened it.
    NoConn => "no-conn",
    /// No free local port among those probed.
    NoLocalPort => "no-local-port",
    /// Every conn of the family's slab is in use.
    ConnTableFull => "conn-table-full",
    /// The index has no place.
    IndexFull => "index-full",
    /// Time to live, or hop limit, used up.
    TtlExpired => "ttl-expired",
    /// No route to where it should go.
    NoRoute => "no-route",
    /// A route, but no neighbour entry. Where packets are held: one that cannot be copied.
    NoNeighbour => "no-neighbour",
    /// No neighbour entry, and too many packets wait for neighbours already.
    HoldFull => "hold-full",
    /// While it waited for a neighbour, a newer packet for the same one took its place.
    HoldReplaced => "hold-replaced",
    /// It waited for a neighbour, and none was found in time.
    HoldExpired => "hold-expired",
    /// Longer than the MTU of the way out, or than the other family can say.
    TooBig => "too-big",
    /// No headroom for a longer header.
    NoHeadroom => "no-headroom",
    /// Answering it would need more buffers than the engine has for what it originates.
    OriginateFull => "originate-full",
    /// Handed over between workers too often.
    TooManyHops => "too-many-hops",
    /// The beginning of a connection, and the node does not create any: it is not ready, or leaves.
    NotReady => "not-ready",
    /// It would have told a client that it is connected, and too few nodes had the session in time.
    DeferLimit => "defer-limit",
    /// It would have told a client that it is connected, and there was no room for it to wait for other nodes.
    DeferFull => "defer-full",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! sync_counts {
    ($($(#[doc = $doc:literal])+ $name:ident => $text:literal,)+) => {
        /// What replication counts. All only grow.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum SyncCount {
            $($(#[doc = $doc])+ $name,)+
        }

        impl SyncCount {
            /// Every one, in the order of their numbers.
            pub const ALL: &'static [SyncCount] = &[$(SyncCount::$name,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Name in counters and summaries.
            pub const fn name(self) -> &'static str {
                match self {
                    $(SyncCount::$name => $text,)+
                }
            }
        }
    };
}

sync_counts! {
    /// Records encoded: OPEN, UPDATE, CLOSE.
    Encoded => "sync-encoded",
    /// Live records applied.
    Applied => "sync-applied",
    /// Records of slots applied.
    PulledIn => "sync-pulled-in",
    /// Records sent in answer to pulls.
    PulledOut => "sync-pulled-out",
    /// Live records that were known already.
    Duplicate => "sync-duplicate",
    /// Records older than what is there.
    Older => "sync-older",
    /// Records that lost a tuple to a session of another group.
    Conflict => "sync-conflict",
    /// Records for which there was no room.
    Refused => "sync-refused",
    /// Records that no node should send: ends, state or bucket are wrong.
    Invalid => "sync-invalid",
    /// Records by an epoch that is not the highest one known.
    StaleEpoch => "sync-stale-epoch",
    /// Records of a group or by an epoch that is not known yet; asked for again.
    UnknownEpoch => "sync-unknown-epoch",
    /// Messages of nodes that are no peers.
    UnknownPeer => "sync-unknown-peer",
    /// Messages of a bucket that another worker has.
    WrongBucket => "sync-wrong-bucket",
    /// Messages that answer nothing that is asked (any more), or contradict themselves.
    Unexpected => "sync-unexpected",
    /// Records put back as too many gaps lie before them; asked for again.
    RangesFull => "sync-ranges-full",
    /// Messages not sent, or put back, as a queue was full; what they say is said again.
    QueueFull => "sync-queue-full",
    /// Hints for which there was no room.
    HintsLost => "sync-hints-lost",
    /// Hints sent.
    HintsSent => "sync-hints-sent",
    /// Hints taken.
    HintsTaken => "sync-hints-taken",
    /// NACKs sent.
    NackSent => "sync-nack-sent",
    /// NACKs taken.
    NackTaken => "sync-nack-taken",
    /// Slots that a peer will have to pull, as what it missed can no longer be told.
    SlotsDirty => "sync-slots-dirty",
    /// Slots pulled to their end.
    SlotsPulled => "sync-slots-pulled",
    /// Slots asked for again.
    SlotsRepeated => "sync-slots-repeated",
    /// Sessions deleted as a slot's end did not mention them.
    Unmentioned => "sync-unmentioned",
    /// Tombstones that gave their place before all had heard of them.
    TombsEvicted => "sync-tombs-evicted",
    /// Sessions that nobody held and no packet used.
    OrphansEvicted => "sync-orphans-evicted",
    /// Sessions offered to the winner of an epoch.
    Offered => "sync-offered",
    /// Offers taken.
    OffersTaken => "sync-offers-taken",
    /// Buckets adopted although something of them was missing here, and nobody had them whole.
    MergedLacking => "sync-merged-lacking",
    /// Records that a peer did not take, for want of room.
    PeerRefused => "sync-peer-refused",
    /// Digests of slots told.
    DigestTold => "sync-digest-told",
    /// Digests of slots that are those of what is here.
    DigestEqual => "sync-digest-equal",
    /// Digests of slots that could not be compared: something of them is on its way, or known to be missing.
    DigestSkipped => "sync-digest-skipped",
    /// Digests of slots that are not those of what is here: the slot is pulled.
    DigestUnequal => "sync-digest-unequal",
    /// Of those slots: that were equal when they were told next.
    DigestRepaired => "sync-digest-repaired",
    /// Sessions that were found to differ from what their slot's digest has of them.
    DigestDrift => "sync-digest-drift",
    /// Frames that wait until other nodes have the session.
    Deferred => "sync-deferred",
    /// Of these: enough nodes had it.
    DeferAcked => "sync-defer-acked",
    /// Let through although too few nodes had it in time.
    DeferOpened => "sync-defer-opened",
    /// Dropped since too few nodes had it in time.
    DeferDropped => "sync-defer-dropped",
    /// There was no room for it to wait: let through, or dropped, as the service says.
    DeferFull => "sync-defer-full",
    /// Sessions told again since too few nodes said in time that they have them.
    DeferAgain => "sync-defer-again",
    /// Fewer nodes are ready than it should have waited for: it waited for these, or for none.
    DeferShort => "sync-defer-short",
}

/// What a worker counts. All only grow, but for [`Counters::by_state`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed in.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames to be sent: forwarded, or answered in place.
    pub tx_packets: u64,
    /// Their bytes, as they leave.
    pub tx_bytes: u64,
    /// Of these: client to real server.
    pub inbound_packets: u64,
    /// Of these: real server to client.
    pub outbound_packets: u64,
    /// Of these: echo replies.
    pub echo_replies: u64,
    /// Frames that were consumed and are answered by one that the engine originates.
    pub answered: u64,
    /// Frames that the engine originated.
    pub originated: u64,
    /// Frames that were copied to wait for a neighbour, or for other nodes.
    pub held: u64,
    /// Of these: that wait no longer. Each was sent, or dropped for a reason that counts it too.
    pub released: u64,
    /// Frames for the kernel.
    pub punted: u64,
    /// Frames for another worker.
    pub handed_off: u64,
    /// Dropped frames, by reason.
    pub drops: [u64; DropReason::COUNT],
    /// Conns opened.
    pub opened: u64,
    /// Conns that became ESTABLISHED (UDP: that were answered), once each.
    pub established: u64,
    /// Conns closed by FINs of both sides or by a RST, once each.
    pub closed: u64,
    /// Conns that were removed by their timer without having been closed.
    pub expired: u64,
    /// Closed conns removed, by their timer or by a new connection in their place.
    pub removed: u64,
    /// Local ports that were probed and found in use.
    pub port_probes_taken: u64,
    /// Conns in the table, by state.
    pub by_state: [u64; ConnState::COUNT],
    /// Replication, by [`SyncCount`].
    pub sync: [u64; SyncCount::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            rx_packets: 0,
            rx_bytes: 0,
            tx_packets: 0,
            tx_bytes: 0,
            inbound_packets: 0,
            outbound_packets: 0,
            echo_replies: 0,
            answered: 0,
            originated: 0,
            held: 0,
            released: 0,
            punted: 0,
            handed_off: 0,
            drops: [0; DropReason::COUNT],
            opened: 0,
            established: 0,
            closed: 0,
            expired: 0,
            removed: 0,
            port_probes_taken: 0,
            by_state: [0; ConnState::COUNT],
            sync: [0; SyncCount::COUNT],
        }
    }
}

impl Counters {
    /// Dropped frames in all.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Adds those of another worker.
    pub fn add(&mut self, other: &Counters) {
        for (a, b) in [
            (&mut self.rx_packets, other.rx_packets),
            (&mut self.rx_bytes, other.rx_bytes),
            (&mut self.tx_packets, other.tx_packets),
            (&mut self.tx_bytes, other.tx_bytes),
            (&mut self.inbound_packets, other.inbound_packets),
            (&mut self.outbound_packets, other.outbound_packets),
            (&mut self.echo_replies, other.echo_replies),
            (&mut self.answered, other.answered),
            (&mut self.originated, other.originated),
            (&mut self.held, other.held),
            (&mut self.released, other.released),
            (&mut self.punted, other.punted),
            (&mut self.handed_off, other.handed_off),
            (&mut self.opened, other.opened),
            (&mut self.established, other.established),
            (&mut self.closed, other.closed),
            (&mut self.expired, other.expired),
            (&mut self.removed, other.removed),
            (&mut self.port_probes_taken, other.port_probes_taken),
        ] {
            *a += b;
        }
        for (a, b) in self.drops.iter_mut().zip(&other.drops) {
            *a += b;
        }
        for (a, b) in self.by_state.iter_mut().zip(&other.by_state) {
            *a += b;
        }
        for (a, b) in self.sync.iter_mut().zip(&other.sync) {
            *a += b;
        }
    }

    /// One of replication's counters.
    pub fn sync(&self, count: SyncCount) -> u64 {
        self.sync[count as usize]
    }

    pub(crate) fn count(&mut self, count: SyncCount) {
        self.sync[count as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn names_are_distinct_and_numbers_are_places() {
        let names: BTreeSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        assert!(DropReason::ALL.iter().enumerate().all(|(i, &r)| r as usize == i));
        let names: BTreeSet<_> = SyncCount::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), SyncCount::COUNT);
    }
}
