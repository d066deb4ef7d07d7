//! Routers: ports with prefixes, and prefixes that several next hops share equally (ECMP).
//!
//! A packet that is addressed to a port's link-layer address is sent on by the longest prefix: that of a port, whose link it leaves
//! by, or one of a group of next hops, of which a keyed hash over its flow picks one that is there. Link-layer addresses of
//! neighbours are found as hosts find them. Nothing is fragmented, and nobody is told of what is dropped.

mod detect;
mod ecmp;

pub use detect::Detection;
pub use ecmp::Ecmp;

use std::net::IpAddr;
use std::time::Duration;

use evenkeel_core::wire::MacAddr;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::detect::{Echo, Session};
use self::ecmp::{BUCKET_COUNT_MAX, Dealer, MEMBER_COUNT_MAX};
use crate::account::{Account, AccountOf};
use crate::host::is_in;
use crate::host::neighbours::Neighbours;
use crate::host::wire::{self, Arp, ETHERNET_LEN, Ndp, Packet, be16, fold, set_ethernet, sum};
use crate::ids::{Owner, Place, RouterId};
use crate::observe::Trace;
use crate::queue::Event;
use crate::random::{Purpose, Streams, nanos};
use crate::world::{Attached, Net, WorldError};

/// Ports of a router at most.
const PORT_COUNT_MAX: usize = 16;
/// Groups of a router at most.
const GROUP_COUNT_MAX: usize = 16;
/// Prefixes of a group at most.
const PREFIX_COUNT_MAX: usize = 256;

/// A router.
#[derive(Clone, Debug)]
pub struct RouterSpec {
    /// For captures and messages.
    pub name: String,
    /// Ports, 1 to 16.
    pub ports: Vec<RouterPortSpec>,
    /// Groups of equal next hops, 16 at most.
    pub groups: Vec<EcmpSpec>,
    /// From a packet's arrival to its place in the next queue.
    pub delay: Duration,
    /// Neighbours that it remembers at most.
    pub neighbour_count_max: usize,
    /// Packets that wait for neighbours at most.
    pub neighbour_queue_max: usize,
    /// How long a neighbour is taken for granted; it is asked for again (and used meanwhile) after that.
    pub neighbour_lifetime: Duration,
}

impl RouterSpec {
    /// Without groups; with 1,024 neighbours, a queue of 4,096 packets and 2 microseconds.
    pub fn new(name: impl Into<String>, ports: Vec<RouterPortSpec>) -> Self {
        RouterSpec {
            name: name.into(),
            ports,
            groups: Vec::new(),
            delay: Duration::from_micros(2),
            neighbour_count_max: 1024,
            neighbour_queue_max: 4096,
            neighbour_lifetime: Duration::from_secs(60),
        }
    }
}

/// A port of a router.
#[derive(Clone, Debug)]
pub struct RouterPortSpec {
    /// For captures and messages.
    pub name: String,
    /// Its link-layer address.
    pub mac: MacAddr,
    /// Its addresses with the lengths of their prefixes; all that is in one of these is on its link.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// Next hops that are equal.
#[derive(Clone, Debug)]
pub struct EcmpSpec {
    /// What is sent to them, 1 to 256 prefixes with their lengths, of one family.
    pub prefixes: Vec<(IpAddr, u8)>,
    /// Addresses of the next hops, on a link of the router's, of the prefixes' family; 1 to 64.
    pub members: Vec<IpAddr>,
    /// How flows are dealt to them.
    pub kind: Ecmp,
    /// How it is found out who is there; `None`: all are, always.
    pub detection: Option<Detection>,
}

/// What a router counted, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterCounters {
    /// Received.
    pub received: u64,
    /// Of these: sent on, or waiting for their neighbour.
    pub routed: u64,
    /// Of these: for the router itself.
    pub taken: u64,
    /// Of these: for others on the link, or no packet.
    pub filtered: u64,
    /// Of these: with a time to live that is over.
    pub ttl_over: u64,
    /// Of these: for which it knows no way.
    pub no_route: u64,
    /// Of these: for next hops of which none is there.
    pub no_member: u64,
    /// Packets lost as their neighbour did not answer, or there was no room to wait.
    pub no_neighbour: u64,
    /// Hellos sent.
    pub hellos: u64,
    /// Hellos that were answered.
    pub answers: u64,
    /// Times that a next hop was taken in or out.
    pub changes: u64,
}

#[derive(Debug)]
struct Group {
    spec: EcmpSpec,
    dealer: Dealer,
    sessions: Vec<Session>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Router {
    id: RouterId,
    spec: RouterSpec,
    links: Vec<Option<Attached>>,
    groups: Vec<Group>,
    neighbours: Neighbours,
    planned: Option<u64>,
    hash_seed: u64,
    counters: RouterCounters,
}

impl Router {
    pub(crate) fn new(id: RouterId, spec: RouterSpec, streams: Streams) -> Result<Self, WorldError> {
        check(&spec).map_err(|why| WorldError::Router {
            router: spec.name.clone(),
            why,
        })?;
        let entity = 6 << 48 | u64::from(id.0) << 16;
        let mut n = 0;
        let groups = spec.groups.iter().map(|group| {
            let mut session = |_: &IpAddr| {
                n += 1;
                // Hellos to next hops are at times of their own.
                let first = group.detection.map_or(Duration::ZERO, |d| d.interval);
                Session::new(nanos(streams.span(entity, Purpose::RouterSeed, n, first)))
            };
            Group {
                dealer: Dealer::new(group.kind, group.members.len()),
                sessions: group.members.iter().map(&mut session).collect(),
                spec: group.clone(),
            }
        });
        Ok(Router {
            id,
            links: vec![None; spec.ports.len()],
            groups: groups.collect(),
            neighbours: Neighbours::new(
                spec.neighbour_count_max,
                spec.neighbour_queue_max,
                nanos(spec.neighbour_lifetime),
            ),
            planned: None,
            hash_seed: streams.draw(entity, Purpose::RouterSeed, 0),
            counters: RouterCounters::default(),
            spec,
        })
    }

    pub(crate) fn place(&self, port: u16) -> Place {
        Place {
            owner: Owner::Router(self.id),
            port,
        }
    }

    /// `None`: there is no such port.
    pub(crate) fn link(&self, port: u16) -> Option<Option<Attached>> {
        self.links.get(usize::from(port)).copied()
    }

    pub(crate) fn attach(&mut self, port: u16, link: Attached) {
        if let Some(place) = self.links.get_mut(usize::from(port)) {
            *place = Some(link);
        }
    }

    pub(crate) fn port_names(&self) -> Vec<(Place, String)> {
        let ports = (0..).zip(&self.spec.ports);
        ports
            .map(|(n, port)| (self.place(n), format!("{}-{}", self.spec.name, port.name)))
            .collect()
    }

    pub(crate) fn counters(&self) -> RouterCounters {
        self.counters
    }

    pub(crate) fn members(&self, group: u16) -> Option<&[bool]> {
        self.groups.get(usize::from(group)).map(|g| g.dealer.alive())
    }

    /// What became of the frames that it received.
    pub(crate) fn account(&self) -> Account<'_> {
        let c = &self.counters;
        Account::new(
            AccountOf::Machine(&self.spec.name, ""),
            c.received,
            [
                ("routed", c.routed),
                ("taken", c.taken),
                ("filtered", c.filtered),
                ("ttl-over", c.ttl_over),
                ("no-route", c.no_route),
                ("no-member", c.no_member),
            ],
        )
    }

    /// Next hops that nobody looks after are there from the beginning.
    pub(crate) fn begin(&mut self, net: &mut Net) {
        for n in 0..self.groups.len() {
            let (asks, members) = match self.groups.get(n) {
                Some(group) => (group.spec.detection.is_some(), group.spec.members.len()),
                None => continue,
            };
            for member in (0..members).filter(|_| !asks) {
                self.set(net, n, member, true);
            }
        }
        self.plan(net);
    }

    fn set(&mut self, net: &mut Net, group: usize, member: usize, alive: bool) {
        let dealer = self.groups.get_mut(group).map(|g| &mut g.dealer);
        if dealer.is_some_and(|d| d.set(member, alive)) {
            self.counters.changes += 1;
            net.trace(Trace::Member(self.id, group as u16, member as u16, alive));
        }
    }

    fn plan(&mut self, net: &mut Net) {
        let asking = self.groups.iter().filter(|g| g.spec.detection.is_some());
        let hellos = asking.flat_map(|g| &g.sessions).map(|s| s.due);
        let Some(at) = hellos.chain(self.neighbours.next_at()).min() else {
            return;
        };
        let at = at.max(net.now);
        if self.planned.is_none_or(|planned| at < planned) {
            self.planned = Some(at);
            net.queue.push(at, Event::Router(self.id));
        }
    }

    /// Hellos that are due, and neighbours that have not answered.
    pub(crate) fn due(&mut self, net: &mut Net) {
        if self.planned != Some(net.now) {
            return;
        }
        self.planned = None;
        for n in 0..self.groups.len() {
            self.hellos(net, n);
        }
        let (ask, lost) = self.neighbours.due(net.now);
        for addr in ask {
            self.ask(net, addr);
        }
        for frame in lost {
            self.counters.no_neighbour += 1;
            net.dropped(self.place(0), "router-neighbour-gone", frame.len());
        }
        self.plan(net);
    }

    fn hellos(&mut self, net: &mut Net, group: usize) {
        let Some(g) = self.groups.get_mut(group) else {
            return;
        };
        let Some(detection) = g.spec.detection else { return };
        let mut due = Vec::new();
        for (member, session) in g
            .sessions
            .iter_mut()
            .enumerate()
            .filter(|(_, s)| s.due <= net.now)
        {
            let (sequence, up) = session.hello(net.now, nanos(detection.interval), detection.multiplier);
            due.push((member, g.spec.members.get(member).copied(), sequence, up));
        }
        for (member, hop, sequence, up) in due {
            self.set(net, group, member, up);
            let Some((hop, from)) = hop.and_then(|hop| Some((hop, self.address_at(hop)?))) else {
                continue;
            };
            self.counters.hellos += 1;
            let echo = Echo {
                is_request: true,
                identifier: identifier(group, member),
                sequence,
            };
            self.send_to_hop(net, hop, echo.frame(from, detection.target));
        }
    }

    /// The port on whose link an address is, and the router's own address there.
    fn port_at(&self, addr: IpAddr) -> Option<(u16, IpAddr, u8)> {
        let ports = (0..).zip(&self.spec.ports);
        let all = ports.flat_map(|(n, port)| port.addresses.iter().map(move |(own, len)| (n, *own, *len)));
        all.filter(|(_, own, len)| is_in(addr, *own, *len))
            .max_by_key(|(_, _, len)| *len)
    }

    fn address_at(&self, addr: IpAddr) -> Option<IpAddr> {
        self.port_at(addr).map(|(_, own, _)| own)
    }

    fn has(&self, addr: IpAddr) -> bool {
        self.spec
            .ports
            .iter()
            .any(|p| p.addresses.iter().any(|(own, _)| *own == addr))
    }

    /// Sends a packet (behind an open Ethernet header) to a neighbour.
    fn send_to_hop(&mut self, net: &mut Net, hop: IpAddr, frame: Vec<u8>) {
        let Some((port, ..)) = self.port_at(hop) else {
            return net.dropped(self.place(0), "router-no-route", frame.len());
        };
        match self.neighbours.resolve(net.now, hop, frame) {
            Err((_, len)) => {
                self.counters.no_neighbour += 1;
                net.dropped(self.place(port), "router-neighbours-full", len);
            }
            Ok(resolved) => {
                if resolved.ask {
                    self.ask(net, hop);
                    self.plan(net);
                }
                if let Some((mac, frame)) = resolved.to {
                    self.transmit_to(net, mac, hop, frame);
                }
            }
        }
    }

    fn transmit_to(&mut self, net: &mut Net, mac: wire::Mac, hop: IpAddr, mut frame: Vec<u8>) {
        let Some((port, ..)) = self.port_at(hop) else {
            return;
        };
        let kind = if hop.is_ipv4() { wire::IPV4 } else { wire::IPV6 };
        set_ethernet(&mut frame, mac, self.mac(port), kind);
        let at = net.now + nanos(self.spec.delay);
        self.transmit(net, port, at, frame);
    }

    fn mac(&self, port: u16) -> wire::Mac {
        self.spec.ports.get(usize::from(port)).map_or([0; 6], |p| p.mac.0)
    }

    fn transmit(&mut self, net: &mut Net, port: u16, at: u64, frame: Vec<u8>) {
        match self.link(port).flatten() {
            Some(link) => net.send(link, at, frame),
            None => net.dropped(self.place(port), "no-link", frame.len()),
        }
    }

    fn ask(&mut self, net: &mut Net, addr: IpAddr) {
        if let Some((port, from, _)) = self.port_at(addr)
            && let Some(frame) = wire::question(addr, from, self.mac(port))
        {
            self.transmit(net, port, net.now, frame);
        }
    }

    fn learn(&mut self, net: &mut Net, addr: IpAddr, mac: wire::Mac, create: bool, replace: bool) {
        for frame in self.neighbours.learn(net.now, addr, mac, create, replace) {
            self.transmit_to(net, mac, addr, frame);
        }
    }

    /// A frame comes in.
    pub(crate) fn receive(&mut self, net: &mut Net, port: u16, frame: Vec<u8>) {
        self.counters.received += 1;
        let len = frame.len();
        if let Err(why) = self.take(net, port, frame) {
            let c = &mut self.counters;
            match why {
                "router-ttl" => c.ttl_over += 1,
                "router-no-route" => c.no_route += 1,
                "router-no-member" => c.no_member += 1,
                _ => c.filtered += 1,
            }
            net.dropped(self.place(port), why, len);
        }
    }

    /// `Err`: it is dropped, and why.
    fn take(&mut self, net: &mut Net, port: u16, frame: Vec<u8>) -> Result<(), &'static str> {
        let dst: wire::Mac = *frame.first_chunk().ok_or("router-malformed")?;
        let group = dst[0] & 1 == 1;
        if dst != self.mac(port) && !group {
            return Err("router-not-mine");
        }
        let data = frame.get(ETHERNET_LEN..).ok_or("router-malformed")?;
        match be16(&frame, 12).ok_or("router-malformed")? {
            wire::ARP => {
                let arp = Arp::parse(data).ok_or("router-malformed")?;
                self.counters.taken += 1;
                self.arp(net, port, arp);
                Ok(())
            }
            kind @ (wire::IPV4 | wire::IPV6) => {
                let (to, mine) = destination(kind, data)
                    .map(|to| (to, self.has(to)))
                    .ok_or("router-malformed")?;
                if !mine && !group {
                    return self.route(net, kind, to, frame);
                }
                let packet = Packet::parse(kind, data).map_err(|_| "router-malformed")?;
                let ndp = (packet.proto == wire::ICMPV6)
                    .then(|| Ndp::parse(&packet))
                    .flatten();
                if let Some(ndp) = ndp {
                    self.counters.taken += 1;
                    self.discover(net, port, packet.src, &ndp);
                    return Ok(());
                }
                let echo = Echo::parse(&packet).filter(|echo| mine && !echo.is_request);
                let echo = echo.ok_or("router-unwanted")?;
                self.counters.taken += 1;
                self.answered(packet.src, echo);
                Ok(())
            }
            _ => Err("router-unwanted"),
        }
    }

    fn arp(&mut self, net: &mut Net, port: u16, arp: Arp) {
        let for_us = self.has(arp.target.into());
        if !arp.sender.is_unspecified() {
            self.learn(net, arp.sender.into(), arp.sender_mac, for_us, true);
        }
        if for_us && arp.is_request && arp.sender != arp.target {
            let reply = Arp {
                is_request: false,
                sender_mac: self.mac(port),
                sender: arp.target,
                target: arp.sender,
            };
            self.transmit(net, port, net.now, reply.frame(arp.sender_mac));
        }
    }

    fn discover(&mut self, net: &mut Net, port: u16, src: IpAddr, ndp: &Ndp) {
        let Some(mac) = ndp.mac else { return };
        if !ndp.is_solicitation {
            return self.learn(net, ndp.target.into(), mac, false, ndp.overrides);
        }
        let IpAddr::V6(asker) = src else { return };
        if !self.has(ndp.target.into()) || asker.is_unspecified() {
            return;
        }
        self.learn(net, src, mac, true, true);
        let own = self.mac(port);
        let advertisement = Ndp {
            is_solicitation: false,
            overrides: true,
            target: ndp.target,
            mac: Some(own),
        };
        self.transmit(
            net,
            port,
            net.now,
            advertisement.frame(own, ndp.target, mac, asker),
        );
    }

    fn answered(&mut self, from: IpAddr, echo: Echo) {
        let (group, member) = (
            usize::from(echo.identifier >> 8),
            usize::from(echo.identifier & 0xff),
        );
        let Some(group) = self.groups.get_mut(group) else {
            return;
        };
        if group.spec.detection.is_none_or(|d| d.target != from) {
            return;
        }
        if let Some(session) = group.sessions.get_mut(member) {
            self.counters.answers += 1;
            session.answer(echo.sequence);
        }
    }

    /// Sends a packet on.
    fn route(
        &mut self,
        net: &mut Net,
        kind: u16,
        to: IpAddr,
        mut frame: Vec<u8>,
    ) -> Result<(), &'static str> {
        let hash = flow_hash(
            self.hash_seed,
            kind,
            frame.get(ETHERNET_LEN..).unwrap_or_default(),
        );
        let on_link = self.port_at(to).map(|(_, _, len)| len);
        let groups = self
            .groups
            .iter()
            .flat_map(|g| g.spec.prefixes.iter().map(move |(net, len)| (g, *net, *len)));
        let group = groups
            .filter(|(_, net, len)| is_in(to, *net, *len))
            .max_by_key(|(_, _, len)| *len)
            .filter(|(_, _, len)| on_link.is_none_or(|own| *len > own));
        let hop = match (group, on_link) {
            (Some((group, ..)), _) => {
                let member = group.dealer.member(hash).ok_or("router-no-member")?;
                *group.spec.members.get(member).ok_or("router-no-member")?
            }
            (None, Some(_)) => to,
            (None, None) => return Err("router-no-route"),
        };
        age(kind, &mut frame)?;
        self.counters.routed += 1;
        self.send_to_hop(net, hop, frame);
        Ok(())
    }
}

/// A hello's name of the next hop.
fn identifier(group: usize, member: usize) -> u16 {
    (group << 8 | member) as u16
}

/// What cannot be.
fn check(spec: &RouterSpec) -> Result<(), String> {
    let number = |what: &str, n: usize, min: usize, max: usize| {
        if (min..=max).contains(&n) {
            Ok(())
        } else {
            Err(format!("{min} to {max} {what}, not {n}"))
        }
    };
    number("ports", spec.ports.len(), 1, PORT_COUNT_MAX)?;
    number("groups", spec.groups.len(), 0, GROUP_COUNT_MAX)?;
    for group in &spec.groups {
        number("prefixes of a group", group.prefixes.len(), 1, PREFIX_COUNT_MAX)?;
        number("next hops of a group", group.members.len(), 1, MEMBER_COUNT_MAX)?;
        if let Ecmp::Resilient(buckets) = group.kind {
            let least = group.members.len();
            number("buckets", buckets as usize, least, BUCKET_COUNT_MAX as usize)?;
        }
        if let Some(detection) = group.detection
            && (detection.interval.is_zero() || detection.multiplier == 0)
        {
            return Err("hellos at no interval, or none of them".to_owned());
        }
        let v4 = group.members.first().is_some_and(IpAddr::is_ipv4);
        let targets = group.detection.iter().map(|d| &d.target);
        let all = group
            .members
            .iter()
            .chain(group.prefixes.iter().map(|(net, _)| net))
            .chain(targets);
        if all.into_iter().any(|addr| addr.is_ipv4() != v4) {
            return Err("a group of both families".to_owned());
        }
        let on_link = |hop: &&IpAddr| {
            let addresses = spec.ports.iter().flat_map(|p| &p.addresses);
            addresses.into_iter().any(|(own, len)| is_in(**hop, *own, *len))
        };
        if let Some(hop) = group.members.iter().find(|hop| !on_link(hop)) {
            return Err(format!("{hop} is on no link of it"));
        }
    }
    Ok(())
}

/// Where a packet goes.
fn destination(kind: u16, packet: &[u8]) -> Option<IpAddr> {
    if kind == wire::IPV4 {
        let header = packet.get(..usize::from(packet.first()? & 0x0f) * 4)?;
        // A router looks at headers, not at what they carry.
        let right = header.len() >= 20 && packet.first()? >> 4 == 4 && fold(sum(header)) == 0xffff;
        let dst: [u8; 4] = *packet.get(16..)?.first_chunk()?;
        right.then_some(dst.into())
    } else {
        let dst: [u8; 16] = *packet.get(24..)?.first_chunk()?;
        (packet.first()? >> 4 == 6 && packet.len() >= 40).then_some(dst.into())
    }
}

/// The hash of a packet's flow: addresses, protocol, and ports if it is no fragment.
fn flow_hash(seed: u64, kind: u16, packet: &[u8]) -> u64 {
    let mut key = [0; 37];
    let (addrs, proto, l4) = if kind == wire::IPV4 {
        let header = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
        let fragment = be16(packet, 6).is_none_or(|offset| offset & 0x3fff != 0);
        let l4 = if fragment { None } else { packet.get(header..) };
        (packet.get(12..20), packet.get(9), l4)
    } else {
        (packet.get(8..40), packet.get(6), packet.get(40..))
    };
    let addrs = addrs.unwrap_or_default();
    key[..addrs.len()].copy_from_slice(addrs);
    let proto = proto.copied().unwrap_or(0);
    key[32] = proto;
    if matches!(proto, wire::TCP | wire::UDP)
        && let Some(ports) = l4.and_then(|l4| l4.get(..4))
    {
        key[33..].copy_from_slice(ports);
    }
    xxh3_64_with_seed(&key, seed)
}

/// A hop more.
fn age(kind: u16, frame: &mut [u8]) -> Result<(), &'static str> {
    let at = ETHERNET_LEN + if kind == wire::IPV4 { 8 } else { 7 };
    let ttl = frame.get_mut(at).ok_or("router-malformed")?;
    if *ttl <= 1 {
        return Err("router-ttl");
    }
    *ttl -= 1;
    if kind == wire::IPV4 {
        let header_len = usize::from(frame.get(ETHERNET_LEN).copied().unwrap_or(0) & 0x0f) * 4;
        let header = frame
            .get_mut(ETHERNET_LEN..ETHERNET_LEN + header_len)
            .ok_or("router-malformed")?;
        header.get_mut(10..12).ok_or("router-malformed")?.fill(0);
        let check = !fold(sum(header));
        header[10..12].copy_from_slice(&check.to_be_bytes());
    }
    Ok(())
}
