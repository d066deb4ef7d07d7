//! Hosts: clients and servers.

mod app;
mod fly;
pub(crate) mod neighbours;
mod pattern;
mod spec;
mod stack;
mod udp;
pub(crate) mod wire;

pub(crate) use spec::check_flow;
pub use spec::{HostCounters, HostSpec, Keepalive, ServerSpec, TcpProfile, Tier};
pub(crate) use wire::{Mac, ParsedUdp, set_ethernet, udp_frame};

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use evenkeel_core::time::Instant;
use evenkeel_core::tuple::{Family, L4Proto};
use evenkeel_core::wire::MacAddr;
use smoltcp::socket::tcp::State;

use self::app::{Client, Server};
use self::fly::{Fly, Segment};
use self::neighbours::Neighbours;
use self::stack::Stack;
use self::udp::UdpClient;
use self::wire::{Arp, ETHERNET_LEN, Ndp, Packet, be16};
use crate::account::{Account, AccountOf};
use crate::flow::{BrokenWhy, FlowRecord, FlowState};
use crate::ids::{FlowId, HostId, Owner, Place};
use crate::observe::Trace;
use crate::queue::Event;
use crate::random::{Purpose, Streams, nanos};
use crate::world::{Attached, Net, WorldError};

/// Ports of clients: from this one up.
const CLIENT_PORT_MIN: u16 = 10_000;

/// A connection's name on its host. Addresses as IPv6 (RFC 4291 section 2.5.5.2): cheap to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    ports: u32,
    remote: u128,
    local: u128,
    proto: L4Proto,
}

impl Key {
    fn new(proto: L4Proto, local: SocketAddr, remote: SocketAddr) -> Self {
        let bits = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped().to_bits(),
            IpAddr::V6(addr) => addr.to_bits(),
        };
        Key {
            ports: u32::from(local.port()) << 16 | u32::from(remote.port()),
            remote: bits(remote.ip()),
            local: bits(local.ip()),
            proto,
        }
    }
}

#[derive(Debug)]
enum Role {
    Client(Stack, Client),
    Server(Stack, Server),
    Udp(UdpClient),
}

#[derive(Debug)]
struct Conn {
    key: Key,
    local: SocketAddr,
    remote: SocketAddr,
    role: Role,
    /// When it has something to do by itself.
    due: Option<u64>,
    /// The event that is planned for it: at `due` or before it.
    planned: Option<u64>,
}

/// Places of connections; a place that is used again has another generation.
#[derive(Debug, Default)]
struct Conns {
    slots: Vec<(u32, Option<Box<Conn>>)>,
    free: Vec<u32>,
    by_key: BTreeMap<Key, u32>,
}

/// What a connection counts of a world's memory beside its buffers, in bytes.
const CONN_BYTES: u64 = 4_096;

impl Conns {
    fn insert(&mut self, conn: Conn) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        self.by_key.insert(conn.key, place);
        if let Some(slot) = self.slots.get_mut(place as usize) {
            slot.0 = slot.0.wrapping_add(1);
            slot.1 = Some(Box::new(conn));
        }
        place
    }

    /// Takes a connection out for its turn; it comes back by `put`, or is over.
    fn take(&mut self, place: u32) -> Option<(u32, Box<Conn>)> {
        let slot = self.slots.get_mut(place as usize)?;
        Some((slot.0, slot.1.take()?))
    }

    fn put(&mut self, place: u32, conn: Box<Conn>) {
        if let Some(slot) = self.slots.get_mut(place as usize) {
            slot.1 = Some(conn);
        }
    }

    fn forget(&mut self, place: u32, key: Key) {
        self.by_key.remove(&key);
        self.free.push(place);
    }

    fn len(&self) -> usize {
        self.by_key.len()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Host {
    id: HostId,
    pub(crate) spec: HostSpec,
    pub(crate) link: Option<Attached>,
    pub(crate) counters: HostCounters,
    servers: BTreeMap<(L4Proto, SocketAddr), u32>,
    neighbours: Neighbours,
    neighbours_planned: Option<u64>,
    /// Connections of smoltcp's, and UDP.
    conns: Conns,
    fly: Fly,
    next_port: u16,
}

impl Host {
    pub(crate) fn new(id: HostId, spec: HostSpec) -> Self {
        Host {
            id,
            link: None,
            counters: HostCounters::default(),
            servers: BTreeMap::new(),
            neighbours: Neighbours::new(
                spec.neighbour_count_max,
                spec.neighbour_queue_max,
                nanos(spec.neighbour_lifetime),
            ),
            neighbours_planned: None,
            conns: Conns::default(),
            fly: Fly::default(),
            next_port: CLIENT_PORT_MIN,
            spec,
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            owner: Owner::Host(self.id),
            port: 0,
        }
    }

    pub(crate) fn has(&self, addr: IpAddr) -> bool {
        self.spec.addresses.iter().any(|(own, _)| *own == addr)
    }

    /// What each of its connections counts of the world's memory: one buffer to send, two to receive.
    fn conn_bytes(&self) -> u64 {
        CONN_BYTES + 3 * self.spec.tcp_buffer as u64
    }

    /// The link-layer address that it knows for a neighbour.
    pub(crate) fn neighbour(&self, addr: IpAddr) -> Option<MacAddr> {
        self.neighbours.mac(addr).map(MacAddr)
    }

    pub(crate) fn serve(&mut self, server: ServerSpec) -> Result<(), WorldError> {
        if !self.has(server.addr.ip()) {
            return Err(WorldError::NotItsAddress {
                host: self.spec.name.clone(),
                addr: server.addr.ip(),
            });
        }
        self.servers.insert((server.proto, server.addr), server.number);
        Ok(())
    }

    fn transmit(&mut self, net: &mut Net, frame: Vec<u8>) {
        match self.link {
            Some(link) => {
                self.counters.sent += 1;
                net.send(link, net.now, frame);
            }
            None => net.dropped(self.place(), "no-link", frame.len()),
        }
    }

    /// Sends IP packets (behind open Ethernet headers) to an address.
    fn send_ip(&mut self, net: &mut Net, to: IpAddr, frames: Vec<Vec<u8>>) {
        for frame in frames {
            self.send_one(net, to, frame);
        }
    }

    fn send_one(&mut self, net: &mut Net, to: IpAddr, frame: Vec<u8>) {
        let Some((hop, from)) = self.next_hop(to) else {
            return net.dropped(self.place(), "host-no-route", frame.len());
        };
        match self.neighbours.resolve(net.now, hop, frame) {
            Err((why, len)) => {
                self.counters.no_neighbour += 1;
                net.dropped(self.place(), why, len);
            }
            Ok(resolved) => {
                if resolved.ask {
                    self.ask(net, hop, from);
                    self.plan_neighbours(net);
                }
                if let Some((mac, frame)) = resolved.to {
                    self.send_to(net, mac, hop, frame);
                }
            }
        }
    }

    fn send_to(&mut self, net: &mut Net, mac: wire::Mac, hop: IpAddr, mut frame: Vec<u8>) {
        let kind = if hop.is_ipv4() { wire::IPV4 } else { wire::IPV6 };
        set_ethernet(&mut frame, mac, self.spec.mac.0, kind);
        self.transmit(net, frame);
    }

    /// Where a packet goes first, and the host's own address there.
    fn next_hop(&self, to: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let own = |hop: IpAddr| {
            let on_link = |&&(own, len): &&(IpAddr, u8)| is_in(hop, own, len);
            self.spec.addresses.iter().find(on_link).map(|(own, _)| *own)
        };
        if let Some(from) = own(to) {
            return Some((to, from));
        }
        let family = Family::of(&to);
        let gateway = self.spec.gateways.iter().find(|g| Family::of(g) == family)?;
        Some((*gateway, own(*gateway)?))
    }

    /// Asks for a neighbour.
    fn ask(&mut self, net: &mut Net, addr: IpAddr, from: IpAddr) {
        if let Some(frame) = wire::question(addr, from, self.spec.mac.0) {
            self.transmit(net, frame);
        }
    }

    /// Tells all on the link that an address is here: gratuitous ARP (RFC 5944 section 4.6), unsolicited neighbour
    /// advertisement (RFC 4861 section 7.2.6).
    pub(crate) fn announce(&mut self, net: &mut Net, addr: IpAddr) -> Result<(), WorldError> {
        if !self.has(addr) {
            return Err(WorldError::NotItsAddress {
                host: self.spec.name.clone(),
                addr,
            });
        }
        let mac = self.spec.mac.0;
        let frame = match addr {
            IpAddr::V4(addr) => Arp {
                is_request: true,
                sender_mac: mac,
                sender: addr,
                target: addr,
            }
            .frame(wire::BROADCAST),
            IpAddr::V6(target) => Ndp {
                is_solicitation: false,
                overrides: true,
                target,
                mac: Some(mac),
            }
            .frame(mac, target, wire::ALL_NODES.1, wire::ALL_NODES.0),
        };
        self.transmit(net, frame);
        Ok(())
    }

    fn plan_neighbours(&mut self, net: &mut Net) {
        if let Some(at) = self.neighbours.next_at()
            && self.neighbours_planned.is_none_or(|planned| at < planned)
        {
            self.neighbours_planned = Some(at);
            net.queue.push(at, Event::Neighbours(self.id));
        }
    }

    /// Neighbours that have not answered are asked again, or given up.
    pub(crate) fn neighbours_due(&mut self, net: &mut Net) {
        if self.neighbours_planned != Some(net.now) {
            return;
        }
        self.neighbours_planned = None;
        let (ask, lost) = self.neighbours.due(net.now);
        for addr in ask {
            if let Some((_, from)) = self.next_hop(addr) {
                self.ask(net, addr, from);
            }
        }
        for frame in lost {
            self.counters.no_neighbour += 1;
            net.dropped(self.place(), "host-neighbour-gone", frame.len());
        }
        self.plan_neighbours(net);
    }

    fn learn(&mut self, net: &mut Net, addr: IpAddr, mac: wire::Mac, create: bool, replace: bool) {
        let before = self.neighbours.mac(addr);
        let waited = self.neighbours.learn(net.now, addr, mac, create, replace);
        if before.is_some_and(|old| old != mac && self.neighbours.mac(addr) == Some(mac)) {
            self.counters.neighbours_moved += 1;
        }
        for frame in waited {
            self.send_to(net, mac, addr, frame);
        }
    }

    pub(crate) fn receive(&mut self, net: &mut Net, flows: &mut [FlowRecord], frame: Vec<u8>) {
        self.counters.received += 1;
        let len = frame.len();
        match self.take_frame(net, flows, frame) {
            Ok(()) => self.counters.taken += 1,
            Err(why) => {
                match why {
                    "host-not-mine" => self.counters.not_mine += 1,
                    "host-bad-checksum" => self.counters.bad_checksum += 1,
                    "host-conns-full" => self.counters.conns_full += 1,
                    "host-bad-datagram" => self.counters.bad_datagrams += 1,
                    _ => self.counters.malformed += 1,
                }
                net.dropped(self.place(), why, len);
            }
        }
    }

    /// What became of the frames that its link delivered to it.
    pub(crate) fn account(&self, net: &Net) -> Account<'_> {
        let link = self
            .link
            .and_then(|(id, side)| Some((net.links.get(usize::from(id.0))?, side)));
        let c = &self.counters;
        Account::new(
            AccountOf::Machine(&self.spec.name, ""),
            link.map_or(0, |(link, side)| {
                link.ways[side.other() as usize].counters.delivered
            }),
            [
                ("taken", c.taken),
                ("not-mine", c.not_mine),
                ("malformed", c.malformed),
                ("bad-checksum", c.bad_checksum),
                ("conns-full", c.conns_full),
                ("bad-datagrams", c.bad_datagrams),
            ],
        )
    }

    /// `Err`: it is dropped, and why.
    fn take_frame(
        &mut self,
        net: &mut Net,
        flows: &mut [FlowRecord],
        frame: Vec<u8>,
    ) -> Result<(), &'static str> {
        let dst: wire::Mac = *frame.first_chunk().ok_or("host-malformed")?;
        if dst != self.spec.mac.0 && dst[0] & 1 == 0 {
            return Err("host-not-mine");
        }
        let kind = be16(&frame, 12).ok_or("host-malformed")?;
        let data = frame.get(ETHERNET_LEN..).ok_or("host-malformed")?;
        match kind {
            wire::ARP => {
                let arp = Arp::parse(data).ok_or("host-malformed")?;
                let for_us = self.has(arp.target.into());
                if !arp.sender.is_unspecified() {
                    self.learn(net, arp.sender.into(), arp.sender_mac, for_us, true);
                }
                if for_us && arp.is_request && arp.sender != arp.target {
                    let reply = Arp {
                        is_request: false,
                        sender_mac: self.spec.mac.0,
                        sender: arp.target,
                        target: arp.sender,
                    };
                    self.transmit(net, reply.frame(arp.sender_mac));
                }
                Ok(())
            }
            wire::IPV4 | wire::IPV6 => {
                let packet = Packet::parse(kind, data)?;
                if packet.proto == wire::ICMPV6 && kind == wire::IPV6 {
                    let ndp = Ndp::parse(&packet).ok_or("host-unknown-protocol")?;
                    self.discover(net, packet.src, &ndp);
                    return Ok(());
                }
                if !self.has(packet.dst) {
                    return Err("host-not-mine");
                }
                let (remote, local) = packet.ends().ok_or("host-malformed")?;
                let len = packet.len;
                match packet.proto {
                    wire::TCP => self.segment(net, flows, local, remote, len, frame),
                    wire::UDP => self.datagram(net, flows, local, remote, packet.payload),
                    _ => Err("host-unknown-protocol"),
                }
            }
            _ => Err("host-unknown-protocol"),
        }
    }

    fn discover(&mut self, net: &mut Net, src: IpAddr, ndp: &Ndp) {
        let Some(mac) = ndp.mac else { return };
        if !ndp.is_solicitation {
            return self.learn(net, ndp.target.into(), mac, false, ndp.overrides);
        }
        let IpAddr::V6(asker) = src else { return };
        if !self.has(ndp.target.into()) || asker.is_unspecified() {
            return;
        }
        self.learn(net, src, mac, true, true);
        let own = self.spec.mac.0;
        let advertisement = Ndp {
            is_solicitation: false,
            overrides: true,
            target: ndp.target,
            mac: Some(own),
        };
        self.transmit(net, advertisement.frame(own, ndp.target, mac, asker));
    }

    /// A segment: the flyweight's connections first, then smoltcp's, then servers.
    fn segment(
        &mut self,
        net: &mut Net,
        flows: &mut [FlowRecord],
        local: SocketAddr,
        remote: SocketAddr,
        len: usize,
        frame: Vec<u8>,
    ) -> Result<(), &'static str> {
        // Options of IPv4 are none of TCP's.
        let header_len = match local {
            SocketAddr::V4(_) => usize::from(frame.get(ETHERNET_LEN).copied().unwrap_or(0) & 0x0f) * 4,
            SocketAddr::V6(_) => 40,
        };
        let tcp = frame.get(ETHERNET_LEN + header_len..ETHERNET_LEN + len);
        let segment = tcp.and_then(Segment::parse).ok_or("host-malformed")?;
        if self.fly_segment(net, flows, local, remote, &segment) {
            return Ok(());
        }
        let is_syn = segment.opens();
        let key = Key::new(L4Proto::Tcp, local, remote);
        if let Some(&place) = self.conns.by_key.get(&key) {
            let (_, mut conn) = self.conns.take(place).ok_or("host-no-conn")?;
            let over = |stack: &Stack| matches!(stack.state(), State::Closed | State::TimeWait);
            let is_over = matches!(&conn.role, Role::Server(stack, _) if over(stack));
            if is_syn && is_over {
                // The client uses its port again.
                self.conns.forget(place, key);
                net.release(self.conn_bytes());
            } else {
                match &mut conn.role {
                    Role::Client(_, client) if client.gone => {
                        self.conns.put(place, conn);
                        return Ok(());
                    }
                    Role::Client(stack, _) | Role::Server(stack, _) => {
                        if !(is_syn && stack.challenge(local, remote)) {
                            stack.receive(net.now, frame, len);
                        }
                    }
                    Role::Udp(_) => {}
                }
                self.turn(net, flows, place, conn);
                return Ok(());
            }
        }
        let number = self.servers.get(&(L4Proto::Tcp, local)).copied();
        let Some(number) = number.filter(|_| is_syn) else {
            self.counters.no_conn += 1;
            if self.spec.server_tier == Tier::Smoltcp && self.spec.client_tier == Tier::Smoltcp {
                let frames = Stack::refuse(net.now, local.ip(), self.spec.mtu, frame, len);
                self.send_ip(net, remote.ip(), frames);
            } else if let Some(frame) = fly::refuse(&segment, local, remote) {
                self.send_one(net, remote.ip(), frame);
            }
            return Ok(());
        };
        if self.conn_len() >= self.spec.conn_count_max {
            return Err("host-conns-full");
        }
        let opener = u64::from(self.id.0) << 17 | 1 << 16 | u64::from(remote.port());
        if self.is_fly(net, self.spec.server_tier, opener) {
            let ends = (local, remote);
            if !self.fly_accept(net, flows, ends, number, &segment) {
                return Err("host-conns-full");
            }
            self.counters.conns_peak = self.counters.conns_peak.max(self.conn_len());
            return Ok(());
        }
        let seed = accepted_seed(net, local, remote);
        let stack = Stack::listen(net.now, local, self.spec.mtu, seed, self.spec.tcp_buffer);
        let mut stack = stack.ok_or("host-malformed")?;
        stack.receive(net.now, frame, len);
        self.begin(
            net,
            flows,
            key,
            local,
            remote,
            Role::Server(stack, Server::new(number)),
        );
        Ok(())
    }

    /// Whether a connection is the flyweight's; `opener` tells it from others.
    fn is_fly(&self, net: &Net, tier: Tier, opener: u64) -> bool {
        match tier {
            Tier::Smoltcp => false,
            Tier::Flyweight => true,
            Tier::Sampled(every) => net.streams.below(5 << 32, Purpose::Tier, opener, every.into()) != 0,
        }
    }

    /// Connections that it has.
    pub(crate) fn conn_len(&self) -> usize {
        self.conns.len() + self.fly.len()
    }

    /// A new connection takes its first turn.
    fn begin(
        &mut self,
        net: &mut Net,
        flows: &mut [FlowRecord],
        key: Key,
        local: SocketAddr,
        remote: SocketAddr,
        role: Role,
    ) {
        net.hold(self.conn_bytes());
        let place = self.conns.insert(Conn {
            key,
            local,
            remote,
            role,
            due: None,
            planned: None,
        });
        self.counters.conns_peak = self.counters.conns_peak.max(self.conn_len());
        if let Some((_, conn)) = self.conns.take(place) {
            self.turn(net, flows, place, conn);
        }
    }

    fn datagram(
        &mut self,
        net: &mut Net,
        flows: &mut [FlowRecord],
        local: SocketAddr,
        remote: SocketAddr,
        payload: &[u8],
    ) -> Result<(), &'static str> {
        let len = usize::from(be16(payload, 4).ok_or("host-malformed")?);
        let data = payload.get(8..len).ok_or("host-malformed")?;
        if let Some(&number) = self.servers.get(&(L4Proto::Udp, local)) {
            match udp::serve(net.streams.seed(), number, flows, data) {
                Ok(reply) => self.send_ip(net, remote.ip(), vec![udp_frame(local, remote, &reply)]),
                Err(flow) => {
                    wrong_at_server(net, flows, flow);
                    return Err("host-bad-datagram");
                }
            }
            return Ok(());
        }
        let key = Key::new(L4Proto::Udp, local, remote);
        let place = *self.conns.by_key.get(&key).ok_or("host-bad-datagram")?;
        let (_, mut conn) = self.conns.take(place).ok_or("host-bad-datagram")?;
        if let Role::Udp(client) = &mut conn.role
            && let Some(record) = flows.get_mut(client.flow.0 as usize)
        {
            client.receive(net, record, data);
        }
        self.turn(net, flows, place, conn);
        Ok(())
    }

    /// A flow's start.
    pub(crate) fn flow_due(&mut self, net: &mut Net, flows: &mut [FlowRecord], flow: FlowId) {
        let Some(record) = flows.get_mut(flow.0 as usize) else {
            return;
        };
        if record.state != FlowState::Waiting {
            return;
        }
        let now = Instant::from_nanos(net.now);
        record.opened = Some(now);
        record.awaiting_since = Some(now);
        record.state = FlowState::Opening;
        net.trace(Trace::FlowOpened(flow));
        let (proto, target) = (record.spec.proto, record.spec.target);
        let room = self.conn_len() < self.spec.conn_count_max;
        let Some(local) = self.free_end(record).filter(|_| room) else {
            return app::end(net, record, flow, Some(BrokenWhy::NotOpened));
        };
        record.spec.source = local;
        let opener = record.spec.key.unwrap_or(u64::from(flow.0) << 17);
        if proto == L4Proto::Tcp && self.is_fly(net, self.spec.client_tier, opener) {
            if self.fly_connect(net, flows, flow, local, target) {
                self.counters.conns_peak = self.counters.conns_peak.max(self.conn_len());
            } else if let Some(record) = flows.get_mut(flow.0 as usize) {
                app::end(net, record, flow, Some(BrokenWhy::NotOpened));
            }
            return;
        }
        let key = Key::new(proto, local, target);
        let seed = opened_seed(net, record.spec.key, flow);
        let role = match proto {
            L4Proto::Udp => Role::Udp(UdpClient::new(net.now, flow)),
            L4Proto::Tcp => {
                let (mtu, buffer) = (self.spec.mtu, self.spec.tcp_buffer);
                let Some(stack) = Stack::connect(net.now, local, target, mtu, seed, buffer) else {
                    return app::end(net, record, flow, Some(BrokenWhy::NotOpened));
                };
                Role::Client(stack, Client::new(net.streams.seed(), net.now, flow, record))
            }
        };
        self.begin(net, flows, key, local, target, role);
    }

    /// The end that a flow asks for, or a free one.
    fn free_end(&mut self, record: &FlowRecord) -> Option<SocketAddr> {
        let spec = &record.spec;
        let (proto, target) = (spec.proto, spec.target);
        let is_free = |host: &Self, local| {
            let is_taken = host.conns.by_key.contains_key(&Key::new(proto, local, target));
            !(is_taken || proto == L4Proto::Tcp && host.fly_has(local, target))
        };
        if spec.source.port() != 0 {
            return Some(spec.source).filter(|&local| is_free(self, local));
        }
        let ports = u32::from(u16::MAX - CLIENT_PORT_MIN) + 1;
        // A flow with a place of its own looks from there on, so that no other one moves it.
        let mut next = spec
            .port_from
            .map_or(self.next_port, |from| CLIENT_PORT_MIN + (from % ports) as u16);
        for _ in 0..ports {
            let local = SocketAddr::new(spec.source.ip(), next);
            next = next.checked_add(1).unwrap_or(CLIENT_PORT_MIN);
            if spec.port_from.is_none() {
                self.next_port = next;
            }
            if is_free(self, local) {
                return Some(local);
            }
        }
        None
    }

    /// A connection's own time.
    pub(crate) fn conn_due(&mut self, net: &mut Net, flows: &mut [FlowRecord], place: u32, generation: u32) {
        let Some((current, mut conn)) = self.conns.take(place) else {
            return;
        };
        if current != generation || conn.planned != Some(net.now) {
            return self.conns.put(place, conn);
        }
        conn.planned = None;
        match conn.due {
            Some(due) if due <= net.now => self.turn(net, flows, place, conn),
            // It was put off since.
            Some(due) => {
                conn.planned = Some(due);
                let host = self.id;
                net.queue.push(
                    due,
                    Event::Conn {
                        host,
                        conn: place,
                        generation,
                    },
                );
                self.conns.put(place, conn);
            }
            None => self.conns.put(place, conn),
        }
    }

    /// What a connection does after anything happened to it: its application's turn, its frames, its next time.
    fn turn(&mut self, net: &mut Net, flows: &mut [FlowRecord], place: u32, mut conn: Box<Conn>) {
        let (mut frames, due, over) = match &mut conn.role {
            Role::Client(stack, client) => {
                let next_at = match (flows.get_mut(client.flow.0 as usize), stack.socket_mut()) {
                    (Some(record), Some(socket)) => client.turn(net, record, socket),
                    _ => None,
                };
                if client.gone {
                    // What it would have said is lost with it.
                    (Vec::new(), None, false)
                } else {
                    finish_turn(net, stack, next_at)
                }
            }
            Role::Server(stack, server) => {
                if let Some(socket) = stack.socket_mut()
                    && let Err(flow) = server.turn(net, flows, socket)
                {
                    wrong_at_server(net, flows, flow);
                }
                finish_turn(net, stack, None)
            }
            Role::Udp(client) => match flows.get_mut(client.flow.0 as usize) {
                Some(record) => {
                    let (data, next) = client.turn(net, record);
                    let frames = data.map(|data| udp_frame(conn.local, conn.remote, &data));
                    (frames.into_iter().collect(), next, record.ended.is_some())
                }
                None => (Vec::new(), None, true),
            },
        };
        let (key, to) = (conn.key, conn.remote.ip());
        if over {
            self.conns.forget(place, key);
            net.release(self.conn_bytes());
        } else {
            conn.due = due;
            if let Some(at) = due
                && conn.planned.is_none_or(|planned| at < planned)
            {
                conn.planned = Some(at);
                let host = self.id;
                let generation = self.conns.slots.get(place as usize).map_or(0, |s| s.0);
                net.queue.push(
                    at,
                    Event::Conn {
                        host,
                        conn: place,
                        generation,
                    },
                );
            }
            self.conns.put(place, conn);
        }
        if !frames.is_empty() {
            self.send_ip(net, to, std::mem::take(&mut frames));
        }
    }
}

/// Lets the stack send; frames, the next time, and whether it is over.
fn finish_turn(net: &Net, stack: &mut Stack, next_at: Option<u64>) -> (Vec<Vec<u8>>, Option<u64>, bool) {
    stack.poll(net.now);
    let frames = stack.take_frames();
    let over = stack.state() == State::Closed;
    let due = [stack.next_at(net.now), next_at].into_iter().flatten().min();
    (frames, due, over)
}

/// What the TCP of a client's connection is drawn from.
fn opened_seed(net: &Net, key: Option<u64>, flow: FlowId) -> u64 {
    let entity = key.unwrap_or(4 << 32 | u64::from(flow.0));
    net.streams.draw(entity, Purpose::TcpSeed, 0)
}

/// What the TCP of an accepted connection is drawn from: its ends and its time, whatever was accepted before.
fn accepted_seed(net: &Net, local: SocketAddr, remote: SocketAddr) -> u64 {
    let ends = Streams::entity(&format!("{local} {remote}"));
    net.streams.draw(ends, Purpose::TcpSeed, net.now)
}

/// The server saw what its flow did not say.
fn wrong_at_server(net: &mut Net, flows: &mut [FlowRecord], flow: Option<FlowId>) {
    if let Some(flow) = flow
        && let Some(record) = flows.get_mut(flow.0 as usize)
        && record.ended.is_none()
    {
        app::end(net, record, flow, Some(BrokenWhy::WrongBytesAtServer));
    }
}

/// Whether `addr` is in the prefix of `len` bits in which `of` lies.
pub(crate) fn is_in(addr: IpAddr, of: IpAddr, len: u8) -> bool {
    match (addr, of) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let host_bits = 32u32.saturating_sub(len.into());
            (a.to_bits() ^ b.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let host_bits = 128u32.saturating_sub(len.into());
            (a.to_bits() ^ b.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}
