//! What is seen on the wire while a scenario runs: who answers for which address, who sends what to whom, and
//! whether checksums are right.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use evenkeel_core::cluster::{Alarm, NodeEvent};
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::Family;
use evenkeel_io_sim::{Direction, LbId, Owner, Place, Tap, Trace};

use super::build::{self, SERVERS};
use super::guard::Panics;
use super::occasion::Occasions;
use super::sync_frame;
use crate::oracle::{self, By, Checksums, ClosedStays, HolderCloses, Oracle, Reuse};

/// Shared between the world, whose tap it is, and the runner.
pub(crate) type Shared = Rc<RefCell<Watch>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) checksums: Checksums,
    pub(crate) reuse: Reuse,
    pub(crate) holder_closes: HolderCloses,
    pub(crate) closed_stays: ClosedStays,
    /// Links may flip bits.
    pub(crate) corrupts: bool,
    /// Judges of frames that panicked.
    pub(crate) panics: Panics,
    /// Names of places, for messages.
    pub(crate) names: BTreeMap<Place, String>,
    /// Sync ports.
    pub(crate) sync_ports: BTreeSet<Place>,
    /// Hosts below this number are clients, the others servers.
    pub(crate) client_count: u16,
    /// When a client or a server sent the last segment or datagram.
    pub(crate) host_sent_at: Option<u64>,
    /// VIPs and LIPs: addresses for which nodes may answer.
    pub(crate) served: BTreeSet<IpAddr>,
    /// VIPs.
    pub(crate) vips: BTreeSet<IpAddr>,
    /// Who was the last to say that an address is his.
    pub(crate) owners: BTreeMap<IpAddr, LbId>,
    /// Who answers for the VIPs, and since when.
    pub(crate) masters: Vec<(u64, LbId)>,
    /// When packets of clients began to come to another node: the VIPs', or those that a router deals elsewhere.
    pub(crate) moved: Vec<u64>,
    /// When the fault began from which on is measured: the first crash, else the first fault.
    pub(crate) fault_at: Option<u64>,
    /// When the first fault of all came: until then nothing that was told is lost.
    pub(crate) first_fault_at: Option<u64>,
    /// When, after the first fault, an address was taken over for the first time: the VIPs', and the last of all.
    pub(crate) vip_taken_at: Option<u64>,
    /// How long a take-over is on its way to hosts and the switches between: what they send until then is lost.
    pub(crate) settle: u64,
    /// By VIP: how often another node began to answer for it since then.
    pub(crate) takeovers: BTreeMap<IpAddr, u64>,
    pub(crate) all_taken_at: Option<u64>,
    /// Times that the router took a node in or out, since then.
    pub(crate) rehashes: u64,
    /// First segment after the last take-over was known: by the client's end, or by the end that the server sees.
    pub(crate) first_sent: BTreeMap<SocketAddr, u64>,
    /// Connections that their clients have reset, by the ends that clients see, and whether a node that is ready has received a RST
    /// of theirs: nobody repeats it.
    pub(crate) resets: BTreeMap<(SocketAddr, SocketAddr), bool>,
    /// What nodes said of themselves.
    pub(crate) said: Said,
    /// What faults wait for.
    pub(crate) occasions: Occasions,
    /// Messages between nodes by kind, then frames, then bytes.
    pub(crate) sync_counts: [u64; sync_frame::COUNTER_COUNT],
    pub(crate) last_frame: sync_frame::LastFrame,
}

/// What nodes said of themselves.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Nodes that are ready.
    ready: BTreeSet<LbId>,
    /// See [`Metric::EarlyMasters`](crate::expect::Metric::EarlyMasters), and the others.
    pub(crate) early_masters: u64,
    pub(crate) fenced: u64,
    pub(crate) drained: u64,
    pub(crate) alarms: u64,
    pub(crate) cold_alarms: u64,
    pub(crate) open_alarms: BTreeSet<(LbId, Alarm)>,
    /// How often each situation was; see [`situation`].
    pub(crate) situations: BTreeMap<&'static str, u64>,
    /// Nodes that have started and were not ready yet.
    joining: BTreeSet<LbId>,
    /// Who answers for the VIPs of a family, by what nodes say.
    answering: BTreeSet<(Family, LbId)>,
}

/// Situations of nodes that are counted.
#[cfg(test)]
pub(crate) const SITUATIONS: [&str; 17] = [
    "adopted",
    "adopting-while-joining",
    "crashed-while-joining",
    "degraded",
    "drained",
    "fenced",
    "handed-over",
    "incomplete",
    "lagging",
    "one-way",
    "out-of-sync",
    "peer-lost-while-joining",
    "ready",
    "renewed",
    "suspect",
    "two-masters",
    "unheard",
];

/// What an event alone is.
fn situation(event: &NodeEvent) -> Option<&'static str> {
    Some(match event {
        NodeEvent::Adopted(..) => "adopted",
        NodeEvent::Degraded => "degraded",
        NodeEvent::Drained => "drained",
        NodeEvent::Fenced(..) => "fenced",
        NodeEvent::HandedOver(..) => "handed-over",
        NodeEvent::Ready => "ready",
        NodeEvent::Renewed(_) => "renewed",
        NodeEvent::Suspect(_) => "suspect",
        NodeEvent::Alarm(Alarm::Incomplete) => "incomplete",
        NodeEvent::Alarm(Alarm::Lagging) => "lagging",
        NodeEvent::Alarm(Alarm::OneWay(_)) => "one-way",
        NodeEvent::Alarm(Alarm::OutOfSync(_)) => "out-of-sync",
        NodeEvent::Alarm(Alarm::Unheard(_)) => "unheard",
        _ => return None,
    })
}

impl Said {
    /// `measured`: since the first fault.
    fn hear(&mut self, lb: LbId, event: NodeEvent, measured: bool) {
        self.situation(lb, &event);
        match event {
            NodeEvent::Ready => {
                self.ready.insert(lb);
            }
            NodeEvent::Degraded => {
                self.ready.remove(&lb);
            }
            NodeEvent::BecameMaster(_) if measured && !self.ready.contains(&lb) => self.early_masters += 1,
            NodeEvent::Fenced(..) if measured => self.fenced += 1,
            NodeEvent::Drained => self.drained += 1,
            NodeEvent::Alarm(alarm) => {
                self.alarms += 1;
                self.cold_alarms += u64::from(alarm == Alarm::Cold);
                self.open_alarms.insert((lb, alarm));
            }
            NodeEvent::Cleared(alarm) => {
                self.open_alarms.remove(&(lb, alarm));
            }
            _ => {}
        }
    }

    /// Counts what an event is, with what else is the case.
    fn situation(&mut self, lb: LbId, event: &NodeEvent) {
        let mut joined = None;
        match event {
            NodeEvent::Ready => {
                self.joining.remove(&lb);
            }
            NodeEvent::PeerDown(_) if self.joining.contains(&lb) => joined = Some("peer-lost-while-joining"),
            NodeEvent::Adopting(..) if !self.joining.is_empty() => joined = Some("adopting-while-joining"),
            NodeEvent::BecameMaster(family) => {
                self.answering.insert((*family, lb));
                let of_family = self.answering.iter().filter(|a| a.0 == *family);
                joined = (of_family.count() > 1).then_some("two-masters");
            }
            NodeEvent::BecameBackup(family) => {
                self.answering.remove(&(*family, lb));
            }
            _ => {}
        }
        for name in situation(event).into_iter().chain(joined) {
            *self.situations.entry(name).or_default() += 1;
        }
    }

    /// A life is over, or begins.
    fn forget(&mut self, lb: LbId) {
        self.answering.retain(|(_, of)| *of != lb);
        self.ready.remove(&lb);
        self.open_alarms.retain(|(of, _)| *of != lb);
    }
}

/// The tap itself.
pub(crate) struct WatchTap(pub(crate) Shared);

impl Tap for WatchTap {
    fn frame(&mut self, now: Instant, at: Place, direction: Direction, data: &[u8]) {
        let mut watch = self.0.borrow_mut();
        match direction {
            Direction::Out => {
                watch.reset(at, data);
                watch.sent(now.as_nanos(), at, data);
            }
            Direction::In => {
                watch.received(at, data);
                if watch.corrupts {
                    watch.checksums.received(at.owner, data);
                }
            }
        }
    }

    fn trace(&mut self, now: Instant, what: &Trace) {
        let mut watch = self.0.borrow_mut();
        watch.occasions.trace(what);
        let measured = watch.fault_at.is_some_and(|at| at <= now.as_nanos());
        match *what {
            Trace::Node(lb, event) => {
                watch.said.hear(lb, event, measured);
                if let NodeEvent::BecameBackup(family) = event {
                    watch.gave_up(now.as_nanos(), lb, family);
                }
            }
            Trace::Member(.., alive) => watch.rehashed(now.as_nanos(), alive, measured),
            Trace::LbStarted(lb, _) => {
                watch.said.forget(lb);
                watch.closed_stays.forget(lb.0 + 1);
                watch.said.joining.insert(lb);
            }
            Trace::LbCrashed(lb) => {
                watch.said.forget(lb);
                if watch.said.joining.remove(&lb) {
                    *watch.said.situations.entry("crashed-while-joining").or_default() += 1;
                }
            }
            _ => {}
        }
    }
}

impl Watch {
    /// The fault from which on is measured has come.
    pub(crate) fn fault(&mut self, now: u64) {
        self.fault_at = Some(now);
        self.first_fault_at.get_or_insert(now);
        self.vip_taken_at = None;
        self.all_taken_at = None;
        self.takeovers.clear();
        self.first_sent.clear();
    }

    /// Who answers for the VIPs now.
    pub(crate) fn master(&self) -> Option<LbId> {
        self.masters.last().map(|m| m.1)
    }

    /// How often another node began to answer for a VIP since the first fault: the most of all VIPs.
    pub(crate) fn takeovers(&self) -> u64 {
        self.takeovers.values().copied().max().unwrap_or(0)
    }

    /// From the first fault until another node answered for the VIPs.
    pub(crate) fn detection(&self) -> Option<u64> {
        Some(self.vip_taken_at?.saturating_sub(self.fault_at?))
    }

    /// From the first fault until the last of the addresses was taken over; `None`: some are still those of a node that
    /// is down, or nothing was taken over.
    pub(crate) fn all_taken(&self, is_down: impl Fn(LbId) -> bool) -> Option<u64> {
        if self.owners.values().any(|&lb| is_down(lb)) {
            return None;
        }
        Some(self.all_taken_at?.saturating_sub(self.fault_at?))
    }

    /// A client resets a connection, or opens one between the same ends.
    fn reset(&mut self, at: Place, data: &[u8]) {
        if !matches!(at.owner, Owner::Host(host) if host.0 < self.client_count) {
            return;
        }
        let Some((src, dst, flags, _)) = oracle::segment(data) else {
            return;
        };
        if flags & oracle::RST != 0 {
            self.resets.entry((src, dst)).or_insert(false);
        } else if flags & oracle::SYN != 0 {
            self.resets.remove(&(src, dst));
        }
    }

    fn received(&mut self, at: Place, data: &[u8]) {
        // Who is not ready need not have the session yet, and forgets the RST.
        let knows = matches!(at.owner, Owner::Lb(lb) if self.said.ready.contains(&lb));
        if self.resets.is_empty() || !knows {
            return;
        }
        if let Some((src, dst, flags, _)) = oracle::segment(data)
            && flags & oracle::RST != 0
            && let Some(received) = self.resets.get_mut(&(src, dst))
        {
            *received = true;
        }
    }

    /// Whether a client has reset a connection by a RST that no node received which is ready.
    pub(crate) fn lost_reset(&self, client: SocketAddr, vip: SocketAddr) -> bool {
        self.resets.get(&(client, vip)) == Some(&false)
    }

    fn sent(&mut self, now: u64, at: Place, data: &[u8]) {
        let name = self.names.get(&at).map_or("?", String::as_str);
        let time = Duration::from_nanos(now);
        let checksums = &mut self.checksums;
        let name_of = |oracle: Oracle| oracle.says().0;
        self.panics.ask(name_of(Oracle::Checksums), time, || {
            checksums.frame(time, at.owner, name, data);
        });
        if matches!(at.owner, Owner::Host(_)) && is_transport(data) {
            self.host_sent_at = Some(now);
        }
        let by = match at.owner {
            Owner::Host(host) if host.0 >= self.client_count => Some(By::Server),
            Owner::Lb(lb) if at.port == SERVERS.0 => {
                let cold = self.said.open_alarms.contains(&(lb, Alarm::Cold));
                Some(if cold { By::Cold } else { By::Node })
            }
            _ => None,
        };
        if let Some(by) = by {
            let reuse = &mut self.reuse;
            self.panics.ask(name_of(Oracle::OutboundUnique), time, || {
                reuse.frame(time, name, data, by);
            });
        }
        match at.owner {
            Owner::Host(host) if self.all_taken_at.is_some_and(|t| now >= t + self.settle) => {
                if let Some((src, dst)) = ends(data) {
                    let own = if host.0 < self.client_count { src } else { dst };
                    self.first_sent.entry(own).or_insert(now);
                }
            }
            Owner::Lb(_) if self.sync_ports.contains(&at) => {
                let slots = sync_frame::count(data, &mut self.last_frame, &mut self.sync_counts);
                let (closes, told) = (&mut self.holder_closes, self.last_frame.closes());
                self.panics.ask(name_of(Oracle::HolderCloses), time, || {
                    told.iter().for_each(|told| closes.told(time, told));
                });
                let (closed, said) = (&mut self.closed_stays, self.last_frame.said());
                self.panics.ask(name_of(Oracle::ClosedStays), time, || {
                    said.iter().for_each(|said| closed.hear(time, said));
                });
                if let Some(node) = sync_frame::receiver(data).filter(|_| slots) {
                    self.occasions.slot_to(build::lb(node));
                }
            }
            Owner::Lb(lb) => {
                sync_frame::count_vrrp(data, &mut self.sync_counts);
                if let Some(addr) = announced(data).filter(|a| self.served.contains(a)) {
                    self.taken(now, lb, addr);
                }
            }
            _ => {}
        }
    }

    /// The router sends flows elsewhere.
    fn rehashed(&mut self, now: u64, alive: bool, measured: bool) {
        self.moved.push(now);
        if !measured {
            return;
        }
        self.rehashes += 1;
        if !alive {
            self.vip_taken_at.get_or_insert(now);
            self.all_taken_at = Some(now);
            self.first_sent.clear();
        }
    }

    fn is_master_now(&mut self, now: u64, lb: LbId) {
        if !self.masters.is_empty() {
            self.moved.push(now);
        }
        self.masters.push((now, lb));
    }

    /// A node answers no longer. If it was the last to announce the VIPs and another one answers, that one has them from
    /// now on, without a word: clients heard its announcement before.
    fn gave_up(&mut self, now: u64, lb: LbId, family: Family) {
        let other = self.said.answering.iter().find(|a| a.0 == family);
        if let Some(&(_, other)) = other
            && self.master() == Some(lb)
        {
            self.is_master_now(now, other);
        }
    }

    fn taken(&mut self, now: u64, lb: LbId, addr: IpAddr) {
        let before = self.owners.insert(addr, lb);
        if before == Some(lb) {
            return;
        }
        let vip = self.vips.contains(&addr);
        if vip && self.master() != Some(lb) {
            self.is_master_now(now, lb);
            if before.is_some() {
                self.occasions.takeover(lb);
            }
        }
        if self.fault_at.is_some_and(|f| f <= now) && before.is_some() {
            self.all_taken_at = Some(now);
            if vip {
                *self.takeovers.entry(addr).or_default() += 1;
                self.vip_taken_at.get_or_insert(now);
            }
            // Whatever was sent before went nowhere.
            self.first_sent.clear();
        }
    }
}

/// The address that a gratuitous ARP or an unsolicited neighbour advertisement announces; also that of an answer to
/// somebody who asked.
fn announced(data: &[u8]) -> Option<IpAddr> {
    match data.get(12..14)? {
        [0x08, 0x06] => {
            let sender: [u8; 4] = *data.get(28..32)?.first_chunk()?;
            Some(Ipv4Addr::from(sender).into())
        }
        [0x86, 0xdd] if data.get(20) == Some(&58) && data.get(54) == Some(&136) => {
            let target: [u8; 16] = *data.get(62..78)?.first_chunk()?;
            Some(Ipv6Addr::from(target).into())
        }
        _ => None,
    }
}

/// Whether it is TCP or UDP, without extensions, and not about addresses.
fn is_transport(data: &[u8]) -> bool {
    match data.get(12..14) {
        Some([0x08, 0x00]) => matches!(data.get(23), Some(6 | 17)),
        Some([0x86, 0xdd]) => matches!(data.get(20), Some(6 | 17)),
        _ => false,
    }
}

/// Ends of a TCP segment that says something, or of a UDP datagram, without IP options or extensions, as hosts send them.
fn ends(data: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let l4_proto = if data.get(12..14)? == [0x08, 0x00] { 23 } else { 20 };
    let (src, dst, l4): (IpAddr, IpAddr, &[u8]) = match data.get(12..14)? {
        [0x08, 0x00] if matches!(data.get(23)?, 6 | 17) => {
            let src: [u8; 4] = *data.get(26..30)?.first_chunk()?;
            let dst: [u8; 4] = *data.get(30..34)?.first_chunk()?;
            (src.into(), dst.into(), data.get(34..)?)
        }
        [0x86, 0xdd] if matches!(data.get(20)?, 6 | 17) => {
            let src: [u8; 16] = *data.get(22..38)?.first_chunk()?;
            let dst: [u8; 16] = *data.get(38..54)?.first_chunk()?;
            (src.into(), dst.into(), data.get(54..)?)
        }
        _ => return None,
    };
    // An acknowledgement alone repairs nothing.
    if data.get(l4_proto) == Some(&6) {
        let header_len = usize::from(l4.get(12)? >> 4) * 4;
        if l4.len() <= header_len && l4.get(13)? & 0x03 == 0 {
            return None;
        }
    }
    let port = |at: usize| Some(u16::from_be_bytes(*l4.get(at..)?.first_chunk()?));
    Some((SocketAddr::new(src, port(0)?), SocketAddr::new(dst, port(2)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::cluster::{Epoch, GroupId, NodeId};
    use evenkeel_io_sim::HostId;

    #[test]
    fn what_nodes_say_is_counted_from_the_first_fault_on() {
        let (lb, group) = (LbId(0), GroupId::default());
        let mut tap = WatchTap(Rc::default());
        let said = |tap: &mut WatchTap, second: u64, event| {
            tap.trace(Instant::from_millis(second * 1000), &Trace::Node(lb, event));
        };
        // A cold start: nobody is there to be asked.
        for event in [
            NodeEvent::Alarm(Alarm::Cold),
            NodeEvent::Degraded,
            NodeEvent::BecameMaster(Family::V4),
            NodeEvent::Fenced(group, Epoch::default()),
            NodeEvent::Ready,
            NodeEvent::Cleared(Alarm::Cold),
        ] {
            said(&mut tap, 1, event);
        }
        let counted = |tap: &WatchTap| {
            let watch = tap.0.borrow();
            let s = &watch.said;
            (
                s.early_masters,
                s.fenced,
                s.alarms,
                s.cold_alarms,
                s.open_alarms.len(),
            )
        };
        assert_eq!(counted(&tap), (0, 0, 1, 1, 0));
        tap.0.borrow_mut().fault(2_000_000_000);
        said(&mut tap, 2, NodeEvent::BecameMaster(Family::V4));
        said(&mut tap, 2, NodeEvent::Fenced(group, Epoch::default()));
        said(&mut tap, 2, NodeEvent::Alarm(Alarm::OneWay(NodeId(2))));
        assert_eq!(counted(&tap), (0, 1, 2, 1, 1));
        // Another life: it has to become ready anew.
        tap.trace(Instant::from_millis(3000), &Trace::LbCrashed(lb));
        said(&mut tap, 4, NodeEvent::BecameMaster(Family::V6));
        said(&mut tap, 4, NodeEvent::Drained);
        assert_eq!(counted(&tap), (1, 1, 2, 1, 0));
        let situations = tap.0.borrow().said.situations.clone();
        assert!(
            situations.keys().all(|name| SITUATIONS.contains(name)),
            "{situations:?}"
        );
        assert_eq!(situations.get("fenced"), Some(&2));
        // A node that starts beside the master loses it before it is ready; both answer then.
        tap.trace(Instant::from_millis(3000), &Trace::LbStarted(LbId(1), 2));
        said(&mut tap, 4, NodeEvent::Adopting(group, Epoch::default()));
        let down = NodeEvent::PeerDown(evenkeel_core::cluster::PeerId::default());
        tap.trace(Instant::from_millis(4000), &Trace::Node(LbId(1), down));
        tap.trace(
            Instant::from_millis(4000),
            &Trace::Node(LbId(1), NodeEvent::BecameMaster(Family::V6)),
        );
        tap.trace(Instant::from_millis(5000), &Trace::LbCrashed(LbId(1)));
        for name in [
            "adopting-while-joining",
            "peer-lost-while-joining",
            "two-masters",
            "crashed-while-joining",
        ] {
            assert_eq!(tap.0.borrow().said.situations.get(name), Some(&1), "{name}");
        }
        assert_eq!(tap.0.borrow().said.drained, 1);
    }

    #[test]
    fn a_reset_is_lost_until_a_node_that_is_ready_receives_it_or_its_ends_are_opened_anew() {
        let place = |owner| Place { owner, port: 0 };
        let client = place(Owner::Host(HostId(0)));
        let mut tap = WatchTap(Rc::default());
        tap.0.borrow_mut().client_count = 1;
        let ready = tap.0.clone();
        let ends = (
            SocketAddr::from(([198, 18, 2, 1], 40_000)),
            SocketAddr::from(([192, 0, 2, 1], 80)),
        );
        let frame = |flags: u8| {
            let mut frame = vec![0; 54];
            frame[12] = 0x08;
            frame[23] = 6;
            frame[26..34].copy_from_slice(&[198, 18, 2, 1, 192, 0, 2, 1]);
            frame[34..36].copy_from_slice(&40_000u16.to_be_bytes());
            frame[36..38].copy_from_slice(&80u16.to_be_bytes());
            frame[47] = flags;
            frame
        };
        let mut sees = |at: Place, direction, flags: u8| {
            tap.frame(Instant::ZERO, at, direction, &frame(flags));
            tap.0.borrow().lost_reset(ends.0, ends.1)
        };
        let (node, server) = (place(Owner::Lb(LbId(0))), place(Owner::Host(HostId(1))));
        let (reset, syn) = (oracle::RST, oracle::SYN);
        assert!(sees(client, Direction::Out, reset));
        assert!(sees(node, Direction::In, 0x10), "something else came");
        assert!(sees(server, Direction::In, reset), "not a node");
        assert!(sees(node, Direction::In, reset), "one that is not ready");
        ready.borrow_mut().said.ready.insert(LbId(0));
        assert!(!sees(node, Direction::In, reset));
        assert!(!sees(client, Direction::Out, reset), "once is enough");
        assert!(!sees(client, Direction::Out, syn));
        assert!(
            sees(client, Direction::Out, reset),
            "that connection is another one"
        );
        assert!(!sees(client, Direction::Out, syn));
        assert!(!sees(server, Direction::Out, reset), "not a client's");
    }

    #[test]
    fn the_vips_go_back_to_who_answers_still_when_the_last_to_announce_them_gives_up() {
        let vip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let mut tap = WatchTap(Rc::default());
        tap.0.borrow_mut().vips.insert(vip);
        for lb in [LbId(1), LbId(2)] {
            tap.trace(
                Instant::ZERO,
                &Trace::Node(lb, NodeEvent::BecameMaster(Family::V4)),
            );
            tap.0.borrow_mut().taken(u64::from(lb.0), lb, vip);
        }
        let mut gives_up = |ms, lb, family| {
            let event = NodeEvent::BecameBackup(family);
            tap.trace(Instant::from_millis(ms), &Trace::Node(lb, event));
            tap.0.borrow().masters.clone()
        };
        let both = [(1, LbId(1)), (2, LbId(2))];
        assert_eq!(
            gives_up(1, LbId(2), Family::V6),
            both,
            "it has those of IPv4 still"
        );
        let back = [both[0], both[1], (2_000_000, LbId(1))];
        assert_eq!(gives_up(2, LbId(2), Family::V4), back);
        assert_eq!(gives_up(3, LbId(1), Family::V4), back, "nobody else answers");
    }

    #[test]
    fn all_is_taken_when_the_last_address_of_the_dead_node_is() {
        let addr = |n| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n));
        let mut watch = Watch {
            vips: BTreeSet::from([addr(1)]),
            ..Watch::default()
        };
        for n in 1..=3 {
            watch.taken(10, LbId(0), addr(n));
        }
        watch.fault(1_000);
        let dead = |lb| lb == LbId(0);
        watch.taken(1_300, LbId(1), addr(1));
        watch.taken(1_310, LbId(1), addr(2));
        assert_eq!(watch.detection(), Some(300));
        assert_eq!(watch.all_taken(dead), None, "one is still the dead node's");
        watch.taken(1_900, LbId(1), addr(3));
        assert_eq!(watch.all_taken(dead), Some(900));
    }
}
