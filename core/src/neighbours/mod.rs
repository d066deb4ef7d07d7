//! The neighbours of a node: who has which link-layer address, asked for by ARP (RFC 826) and neighbour discovery
//! (RFC 4861) and kept fresh.
//!
//! One of these stands beside the workers of a node. It is told what they lack ([`Neighbours::handle_want`]) and
//! what they punted ([`Neighbours::handle_frame`]); what it asks comes out of [`Neighbours::poll_transmit`]. What it
//! knows goes into the next snapshot: [`Neighbours::version`] says that there is news, [`Neighbours::snapshot`]
//! makes it. Gateways, and real servers on a link, are asked for before a packet needs them and for as long as the
//! config has them. Neighbours of the config itself are never asked for, and what others say of them is not heard.
//!
//! Bounds: at most [`ON_DEMAND_COUNT_MAX`] neighbours are known because a packet wanted them, and only wants make
//! them. No frame does: it changes what is known of a neighbour that was asked for.

mod entry;
mod frames;
#[cfg(test)]
mod tests;

pub use entry::{
    FAILED_TIME, LOCK_TIME, MULTICAST_ASK_COUNT, NeighbourState, REACHABLE_TIME, RETRANS_TIME, STALE_TIME,
    UNICAST_ASK_COUNT,
};

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use self::entry::{Entry, EntryEvent, next_state};
use crate::hash::SplitMix;
use crate::port::PortId;
use crate::service::{
    NEIGHBOUR_COUNT_MAX, NeighbourSpec, OwnedAddr, Route, Snapshot, SnapshotError, SnapshotSpec, is_host_mac,
    is_unicast, route_table,
};
use crate::time::Instant;
use crate::tuple::Family;
use crate::wire::MacAddr;

/// Neighbours that are known on demand, at most.
pub const ON_DEMAND_COUNT_MAX: usize = 4096;
/// Of these: that are asked for and were never known, at most. So addresses that nobody has, made up by a sender,
/// do not keep out those that somebody has.
pub const INCOMPLETE_COUNT_MAX: usize = ON_DEMAND_COUNT_MAX / 4;

macro_rules! neighbour_counts {
    ($($(#[doc = $doc:literal])+ $name:ident => $text:literal,)+) => {
        /// What is counted of neighbours. All only grow.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum NeighbourCount {
            $($(#[doc = $doc])+ $name,)+
        }

        impl NeighbourCount {
            /// Every one, in the order of their numbers.
            pub const ALL: &'static [NeighbourCount] = &[$(NeighbourCount::$name,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Name in counters and summaries.
            pub const fn name(self) -> &'static str {
                match self {
                    $(NeighbourCount::$name => $text,)+
                }
            }
        }
    };
}

neighbour_counts! {
    /// Wants of neighbours that were not known or asked for yet.
    Wanted => "neighbour-wanted",
    /// Questions sent.
    Asked => "neighbour-asked",
    /// Questions answered.
    Answered => "neighbour-answered",
    /// Link-layer addresses that took the place of another one.
    Moved => "neighbour-moved",
    /// Neighbours that did not answer in time.
    Failed => "neighbour-failed",
    /// Neighbours forgotten to make room for others.
    Evicted => "neighbour-evicted",
    /// Wants refused: there is no room.
    Full => "neighbour-full",
    /// Wants refused: no host can have the address, or it is ours.
    Refused => "neighbour-refused",
    /// Wants refused: the interface has no address of this family to ask from.
    NoSource => "neighbour-no-source",
    /// Messages that contradict themselves.
    Bad => "neighbour-bad",
    /// Messages in which somebody else says that an address of our interfaces is his.
    Conflict => "neighbour-conflict",
    /// Messages about hosts that nobody asked for.
    Unknown => "neighbour-unknown",
    /// Unasked messages that came too soon after the last change.
    Locked => "neighbour-locked",
}

/// A neighbour: its interface and its address.
type Key = (PortId, IpAddr);

/// What is known of a neighbour, for listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourView {
    /// Interface.
    pub port: PortId,
    /// Its address.
    pub addr: IpAddr,
    /// Its link-layer address, if it is known.
    pub mac: Option<MacAddr>,
    /// Its state.
    pub state: NeighbourState,
    /// Wanted for as long as the config is as it is.
    pub permanent: bool,
}

/// Who said something of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Whoever we asked.
    Answer,
    /// Somebody, unasked.
    Claim,
}

/// See the module.
#[derive(Debug)]
pub struct Neighbours {
    spec: Arc<SnapshotSpec>,
    /// Of the spec alone: what is ours, and which neighbours are the config's.
    base: Snapshot,
    entries: BTreeMap<Key, Entry>,
    /// When the time of each entry is up.
    timers: BTreeSet<(Instant, Key)>,
    /// Whose question is to be sent.
    to_ask: BTreeSet<Key>,
    /// Entries on demand, and those of them that are incomplete.
    on_demand: usize,
    incomplete: usize,
    version: u64,
    random: SplitMix,
    counters: [u64; NeighbourCount::COUNT],
}

impl Neighbours {
    /// One that knows no neighbour of no interface. `seed` spreads its times.
    pub fn new(seed: u64) -> Self {
        Neighbours {
            spec: Arc::default(),
            base: Snapshot::default(),
            entries: BTreeMap::new(),
            timers: BTreeSet::new(),
            to_ask: BTreeSet::new(),
            on_demand: 0,
            incomplete: 0,
            version: 0,
            random: SplitMix::new(seed),
            counters: [0; NeighbourCount::COUNT],
        }
    }

    /// One of what is counted.
    pub fn counter(&self, count: NeighbourCount) -> u64 {
        self.counters[count as usize]
    }

    /// Another number for every change of what [`Neighbours::snapshot`] would make.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What is known of every neighbour but those of the config, by interface and address.
    pub fn iter(&self) -> impl Iterator<Item = NeighbourView> {
        self.entries.iter().map(|(&(port, addr), entry)| NeighbourView {
            port,
            addr,
            mac: entry.mac,
            state: entry.state,
            permanent: entry.permanent,
        })
    }

    /// The config with the neighbours that are known now.
    ///
    /// # Errors
    ///
    /// None, as the spec was good when it was taken.
    pub fn snapshot(&self) -> Result<Snapshot, Vec<SnapshotError>> {
        let known = self.iter().filter_map(|n| {
            let (addr, port) = (n.addr, n.port);
            Some(NeighbourSpec {
                addr,
                port,
                mac: n.mac?,
            })
        });
        Snapshot::with_neighbours(&self.spec, &known.collect::<Vec<_>>())
    }

    /// Takes the config, or a new one: its interfaces, its neighbours, and whom its routes and servers need. What is
    /// known of others stays.
    ///
    /// # Errors
    ///
    /// What is wrong with the spec; then nothing has changed.
    pub fn set_spec(&mut self, now: Instant, spec: Arc<SnapshotSpec>) -> Result<(), Vec<SnapshotError>> {
        self.base = Snapshot::new(&spec)?;
        self.spec = spec;
        self.version += 1;
        let hops = next_hops(&self.spec);
        let before: Vec<_> = self.entries.iter().map(|(key, e)| (*key, e.permanent)).collect();
        for (key @ (port, addr), was_permanent) in before {
            let is_permanent = hops.contains(&key);
            // Who was always wanted and is no more goes; if packets need him, they say so.
            let goes = was_permanent && !is_permanent
                || self.may_know(port, addr).is_err()
                || self.base.neighbour(addr, port).is_some();
            if goes {
                self.take_out(key);
            } else if let Some(mut entry) = self.entries.remove(&key) {
                self.tally(&entry, false);
                entry.permanent = is_permanent;
                self.put_in(key, entry);
            }
        }
        // The config has taken their room.
        while self.entries.len() > self.count_max()
            && let Some((&key, _)) = self.entries.last_key_value()
        {
            self.count(NeighbourCount::Evicted);
            self.take_out(key);
        }
        for key @ (port, addr) in hops {
            if self.base.neighbour(addr, port).is_some() || self.entries.contains_key(&key) {
                continue;
            }
            if let Err(count) = self.may_know(port, addr) {
                self.count(count);
            } else if self.entries.len() >= self.count_max() {
                self.count(NeighbourCount::Full);
            } else {
                self.begin(now, key, true);
            }
        }
        Ok(())
    }

    /// A packet needs this neighbour.
    pub fn handle_want(&mut self, now: Instant, port: PortId, addr: IpAddr) {
        let key = (port, addr);
        if self.entries.contains_key(&key) || self.base.neighbour(addr, port).is_some() {
            return;
        }
        self.count(NeighbourCount::Wanted);
        if let Err(count) = self.may_know(port, addr) {
            self.count(count);
        } else if self.incomplete >= INCOMPLETE_COUNT_MAX || !self.make_room() {
            self.count(NeighbourCount::Full);
        } else {
            self.begin(now, key, false);
        }
    }

    /// A neighbour asked for an address of ours from `mac`, and was answered.
    pub fn handle_heard(&mut self, now: Instant, port: PortId, addr: IpAddr, mac: MacAddr) {
        self.hear(now, (port, addr), Some(mac), Said::Claim, true);
    }

    /// Asks again, ages and forgets.
    pub fn handle_timeout(&mut self, now: Instant) {
        // Whatever is done sets a later time, so that each has one turn.
        while let Some(&(due, key)) = self.timers.first() {
            if due > now {
                return;
            }
            let Some(entry) = self.entries.get(&key) else {
                self.timers.remove(&(due, key));
                continue;
            };
            if entry.state == NeighbourState::Failed && !entry.permanent {
                self.take_out(key);
            } else if entry.is_asked_enough() {
                self.count(NeighbourCount::Failed);
                self.step(now, key, EntryEvent::Unanswered, None);
            } else {
                self.step(now, key, EntryEvent::TimeUp, None);
            }
        }
    }

    /// When [`Neighbours::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// A question to be sent: the interface, and the frame.
    pub fn poll_transmit(&mut self) -> Option<(PortId, Vec<u8>)> {
        while let Some(key @ (port, addr)) = self.to_ask.pop_first() {
            let Some(entry) = self.entries.get(&key) else {
                continue;
            };
            let source = self.source(port, addr);
            let Some((mac, source)) = source else { continue };
            if let Some(frame) = frames::question(mac, source, addr, entry.ask_at()) {
                self.count(NeighbourCount::Asked);
                return Some((port, frame));
            }
        }
        None
    }

    fn count(&mut self, count: NeighbourCount) {
        self.counters[count as usize] += 1;
    }

    /// Neighbours that are known at most, all in all.
    fn count_max(&self) -> usize {
        NEIGHBOUR_COUNT_MAX - self.spec.neighbours.len()
    }

    /// Whether somebody else can have this address there, and be asked for it.
    fn may_know(&self, port: PortId, addr: IpAddr) -> Result<(), NeighbourCount> {
        if !is_unicast(addr) || self.base.owned(addr).is_some() {
            return Err(NeighbourCount::Refused);
        }
        self.source(port, addr)
            .ok_or(NeighbourCount::NoSource)
            .map(|_| ())
    }

    /// From where `addr` is asked for on `port`: an address of the interface itself, the one with the longest prefix
    /// that holds `addr` if there is one (RFC 4861, 7.2.2; RFC 6724, rule 8).
    fn source(&self, port: PortId, addr: IpAddr) -> Option<(MacAddr, IpAddr)> {
        let port = self.base.ports().get(usize::from(port.0))?;
        let own = port
            .addresses
            .iter()
            .filter(|(own, _)| Family::of(own) == Family::of(&addr));
        let holds = |own: &(IpAddr, u8)| (same_bits(own.0, addr) >= u32::from(own.1)).then_some(own.1);
        // The first of equals.
        let best = own.rev().max_by_key(|own| holds(own))?;
        Some((port.mac, best.0))
    }

    fn begin(&mut self, now: Instant, key: Key, permanent: bool) {
        let entry = Entry {
            state: NeighbourState::Incomplete,
            mac: None,
            changed_at: now,
            since: now,
            due: now + RETRANS_TIME,
            asked: 1,
            permanent,
        };
        self.put_in(key, entry);
        self.to_ask.insert(key);
    }

    fn put_in(&mut self, key: Key, entry: Entry) {
        self.timers.insert((entry.due, key));
        self.tally(&entry, true);
        self.entries.insert(key, entry);
    }

    /// Forgets an entry.
    fn take_out(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.timers.remove(&(entry.due, key));
        self.to_ask.remove(&key);
        self.tally(&entry, false);
        self.version += u64::from(entry.mac.is_some());
        Some(entry)
    }

    /// Keeps the counts of entries.
    fn tally(&mut self, entry: &Entry, comes: bool) {
        let incomplete = entry.state == NeighbourState::Incomplete;
        let change = |n: &mut usize, by: bool| {
            let by = usize::from(by && !entry.permanent);
            *n = if comes { *n + by } else { *n - by };
        };
        change(&mut self.on_demand, true);
        change(&mut self.incomplete, incomplete);
    }

    /// Makes room for one more on demand: one that failed goes, else one that has not answered for longest, but none
    /// that answered lately or is asked for the first time.
    fn make_room(&mut self) -> bool {
        if self.on_demand < ON_DEMAND_COUNT_MAX && self.entries.len() < self.count_max() {
            return true;
        }
        let rank = |entry: &Entry| match entry.state {
            NeighbourState::Failed => Some(0),
            NeighbourState::Stale | NeighbourState::Probe => Some(1),
            NeighbourState::Incomplete | NeighbourState::Reachable => None,
        };
        let candidates = self.entries.iter().filter(|(_, e)| !e.permanent);
        let worst = candidates
            .filter_map(|(key, e)| Some((rank(e)?, e.since, *key)))
            .min();
        let Some((_, _, key)) = worst else { return false };
        self.count(NeighbourCount::Evicted);
        self.take_out(key);
        true
    }

    /// Somebody says that a neighbour is at `mac`, or (`None`) just that it is there. `replaces`: whether that is to
    /// be taken for truer than what is known (RFC 4861, 7.2.5).
    fn hear(&mut self, now: Instant, key: Key, mac: Option<MacAddr>, said: Said, replaces: bool) {
        let (PortId(port), addr) = key;
        if matches!(self.base.owned(addr), Some(OwnedAddr::Port(_))) {
            return self.count(NeighbourCount::Conflict);
        }
        let ours = self.base.ports().get(usize::from(port)).map(|p| p.mac);
        if mac.is_some_and(|mac| !is_host_mac(mac) || Some(mac) == ours) {
            return self.count(NeighbourCount::Bad);
        }
        let Some(entry) = self.entries.get(&key) else {
            return self.count(NeighbourCount::Unknown);
        };
        let answers = said == Said::Answer && entry.state.is_asking();
        let other = mac.filter(|mac| entry.mac != Some(*mac));
        let event = match (entry.mac, other) {
            // It says that it is there, but not where.
            (None, None) => return,
            (Some(_), Some(_)) if !replaces => EntryEvent::Doubted,
            (Some(_), Some(_)) if !answers && now < entry.changed_at + LOCK_TIME => {
                return self.count(NeighbourCount::Locked);
            }
            _ if answers => EntryEvent::Answered,
            (_, Some(_)) => EntryEvent::Told,
            // Unasked, and nothing new.
            (Some(_), None) => return,
        };
        let was_known = entry.mac.is_some();
        if event == EntryEvent::Answered {
            self.count(NeighbourCount::Answered);
        }
        let taken = other.filter(|_| event != EntryEvent::Doubted);
        if taken.is_some() && was_known {
            self.count(NeighbourCount::Moved);
        }
        self.step(now, key, event, taken);
    }

    /// Takes an entry over an edge of the table: state, link-layer address and time follow, and a question may be due.
    fn step(&mut self, now: Instant, key: Key, event: EntryEvent, mac: Option<MacAddr>) {
        let Some(mut entry) = self.entries.remove(&key) else {
            return;
        };
        self.timers.remove(&(entry.due, key));
        self.tally(&entry, false);
        let from = entry.state;
        entry.state = next_state(from, event);
        if let Some(mac) = mac {
            entry.mac = Some(mac);
            entry.changed_at = now;
            self.version += 1;
        }
        let stays = entry.state == from;
        match entry.state {
            NeighbourState::Incomplete | NeighbourState::Probe if event == EntryEvent::TimeUp => {
                entry.asked = if stays { entry.asked + 1 } else { 1 };
                entry.due = now + RETRANS_TIME;
                self.to_ask.insert(key);
            }
            NeighbourState::Reachable if !stays => entry.due = now + self.spread(REACHABLE_TIME),
            // Not again for each that is told: one day it is asked.
            NeighbourState::Stale if !stays => entry.due = now + STALE_TIME,
            NeighbourState::Failed if !stays => {
                entry.due = now + FAILED_TIME;
                self.version += u64::from(entry.mac.take().is_some());
            }
            _ => {}
        }
        if !entry.state.is_asking() {
            self.to_ask.remove(&key);
        }
        if !stays {
            entry.since = now;
        }
        self.put_in(key, entry);
    }

    /// `time`, half as long to one and a half as long (RFC 4861, 6.3.2).
    fn spread(&mut self, time: Duration) -> Duration {
        let thousandths = 500 + (self.random.next() % 1001) as u32;
        time * thousandths / 1000
    }

    /// Checks that timers, questions and counts agree with the entries; for tests. Panics with what does not hold.
    #[doc(hidden)]
    pub fn audit(&self) {
        let timers: BTreeSet<_> = self.entries.iter().map(|(key, e)| (e.due, *key)).collect();
        assert_eq!(timers, self.timers, "every entry has its timer");
        assert!(self.to_ask.iter().all(|key| self.entries.contains_key(key)));
        let on_demand = || self.entries.values().filter(|e| !e.permanent);
        let incomplete = on_demand().filter(|e| e.state == NeighbourState::Incomplete);
        assert_eq!(self.on_demand, on_demand().count());
        assert_eq!(self.incomplete, incomplete.count());
        assert!(self.on_demand <= ON_DEMAND_COUNT_MAX && self.incomplete <= INCOMPLETE_COUNT_MAX);
        assert!(self.entries.len() <= self.count_max());
        for (&(port, addr), entry) in &self.entries {
            use NeighbourState::{Probe, Reachable, Stale};
            let known = matches!(entry.state, Reachable | Stale | Probe);
            assert_eq!(entry.mac.is_some(), known, "{addr}: {entry:?}");
            assert!(
                self.base.neighbour(addr, port).is_none(),
                "{addr} is the config's"
            );
            assert_eq!(self.base.owned(addr), None, "{addr} is ours");
        }
    }
}

/// Whom the routes and servers of `spec` need: gateways, and servers on a link. Those that `spec` says itself are
/// among them.
pub fn next_hops(spec: &SnapshotSpec) -> BTreeSet<(PortId, IpAddr)> {
    let routes = route_table(spec, |_, _| None);
    let gateways = spec.routes.iter().filter_map(|r| Some((r.port, r.via?)));
    let servers = spec.services.iter().flat_map(|s| &s.servers);
    let servers = servers.filter_map(|server| match routes.lookup(server.addr)? {
        Route::OnLink(port) => Some((port, server.addr)),
        Route::UnknownGateway { port, addr } => Some((port, addr)),
        Route::Via(_) => None,
    });
    gateways.chain(servers).collect()
}

/// Bits that two addresses of a family have in common, from the first on.
fn same_bits(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    }
}

impl fmt::Display for NeighbourCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
