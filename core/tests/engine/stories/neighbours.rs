//! Packets whose neighbour is not known: they wait, it is asked for, and they go on; or not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::neighbours::{NeighbourCount, NeighbourState, Neighbours};
use evenkeel_core::port::{Frame, HEAD_LEN, HeapFrame, PortId};
use evenkeel_core::stats::DropReason;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::{Command, Event, HELD_LEN_MAX, HoldConfig, Verdict};

use crate::packet::{ACK, Mac, Packet, SYN, read};
use crate::stories::l3::{Arp, Ns, read_icmpv6, who_has};
use crate::story::{
    CLIENT_GATEWAY, Flow, HOST_MAC, HOST_V4, HOST_V6, KINDS, Kind, LIP_V4, LIP_V6, Lab, PORT_MACS, PORT_V4,
    PORT_V6, Segments, VIP_V4, VIP_V6, Want, at, difference, first, flat, hop, ip, kinds_and_protos, packet,
    rewritten, syn,
};

/// A lab whose worker holds, and its control side.
struct Net {
    lab: Lab,
    neighbours: Neighbours,
    built: u64,
    /// Whom the worker wanted, and whom it heard.
    wanted: Vec<(u16, IpAddr)>,
    heard: Vec<(u16, IpAddr, Mac)>,
}

impl Net {
    /// One that knows no neighbour.
    fn new(hold: HoldConfig) -> Self {
        let mut lab = Lab::with(|c| {
            c.hold = Some(hold);
            c.spec.neighbours.clear();
        });
        let mut neighbours = Neighbours::new(7);
        let spec = Arc::new(lab.spec.clone());
        neighbours.set_spec(lab.now, spec).expect("a good spec");
        // Nobody answers in advance.
        while neighbours.poll_transmit().is_some() {}
        lab.pass(Duration::from_millis(1));
        Net {
            built: neighbours.version(),
            lab,
            neighbours,
            wanted: Vec::new(),
            heard: Vec::new(),
        }
    }

    /// What the worker says comes to the control side, and what that learnt to the worker.
    fn control(&mut self) {
        let now = self.lab.now;
        while let Some(event) = self.lab.workers[0].poll_event() {
            match event {
                Event::NeighbourWanted { port, addr } => {
                    self.wanted.push((port.0, addr));
                    self.neighbours.handle_want(now, port, addr);
                }
                Event::NeighbourHeard { port, addr, mac } => {
                    self.heard.push((port.0, addr, mac.0));
                    self.neighbours.handle_heard(now, port, addr, mac);
                }
                _ => {}
            }
        }
        if self.neighbours.version() != self.built {
            self.built = self.neighbours.version();
            let snapshot = self.neighbours.snapshot().expect("a good one");
            let command = Command::SetSnapshot(Arc::new(snapshot));
            self.lab.workers[0]
                .handle_command(now, command)
                .expect("room for an event");
            assert!(self.lab.workers[0].poll_event().is_some());
        }
        self.lab.audit();
        self.neighbours.audit();
    }

    /// A neighbour answers what it was asked: its frame is punted, and heard.
    #[track_caller]
    fn answer(&mut self, addr: IpAddr) {
        let (port, mac) = link(addr);
        let frame = answer(addr, mac, port);
        self.lab.check_bytes(port, &frame, Want::Punt, "");
        self.neighbours.handle_frame(self.lab.now, PortId(port), &frame);
        self.control();
    }

    /// The questions that were asked since: of whom.
    fn questions(&mut self) -> Vec<(u16, IpAddr)> {
        let frames = std::iter::from_fn(|| self.neighbours.poll_transmit());
        frames
            .map(|(port, frame)| (port.0, target(port.0, &frame)))
            .collect()
    }

    /// What comes out of the worker.
    fn sent(&mut self) -> Vec<(u16, Vec<u8>)> {
        let worker = &mut self.lab.workers[0];
        let frames =
            std::iter::from_fn(|| worker.poll_transmit(|len| Some(HeapFrame::zeroed(PortId(0), len))));
        frames
            .map(|(port, frame)| (port.0, frame.data().to_vec()))
            .collect()
    }

    fn pass(&mut self, time: Duration) {
        self.lab.pass(time);
        self.lab.expire();
        while self
            .neighbours
            .poll_timeout()
            .is_some_and(|due| due <= self.lab.now)
        {
            self.neighbours.handle_timeout(self.lab.now);
        }
        self.control();
    }

    fn state(&self, addr: IpAddr) -> Option<NeighbourState> {
        let (port, _) = link(addr);
        let mut all = self.neighbours.iter();
        all.find(|n| (n.port.0, n.addr) == (port, addr)).map(|n| n.state)
    }
}

/// Interface and link-layer address of a host on a link, gateways included.
fn link(addr: IpAddr) -> (u16, Mac) {
    for (gateway, behind) in [
        ("192.0.2.254", "203.0.113.1"),
        ("2001:db8::fe", "2001:db8:c::1"),
        ("10.0.0.254", "10.9.0.3"),
        ("fd00::fe", "fd09::3"),
    ] {
        if addr == ip(gateway) {
            return hop(ip(behind));
        }
    }
    hop(addr)
}

/// The neighbour by whom packets to `addr` go.
fn via(addr: IpAddr) -> IpAddr {
    let text = addr.to_string();
    ip(match () {
        () if text.starts_with("203.0.113.") => "192.0.2.254",
        () if text.starts_with("2001:db8:c:") => "2001:db8::fe",
        () if text.starts_with("10.9.") => "10.0.0.254",
        () if text.starts_with("fd09:") => "fd00::fe",
        () => return addr,
    })
}

/// The answer of `addr` to our interface `port`.
fn answer(addr: IpAddr, mac: Mac, port: u16) -> Vec<u8> {
    let port = usize::from(port);
    match addr {
        IpAddr::V4(addr) => Arp {
            operation: 2,
            sender: (mac, addr),
            ..who_has(PORT_V4[port])
        }
        .frame(),
        IpAddr::V6(addr) => advertisement(addr, v6(PORT_V6[port]), 0x60, mac),
    }
}

fn v4(s: &str) -> Ipv4Addr {
    s.parse().expect("IPv4")
}

fn v6(s: &str) -> Ipv6Addr {
    s.parse().expect("IPv6")
}

fn advertisement(target: Ipv6Addr, dst: Ipv6Addr, flags: u8, mac: Mac) -> Vec<u8> {
    Ns {
        kind: 136,
        flags,
        src: target,
        dst,
        options: [&[2, 1], &mac[..]].concat(),
        ..Ns::new(&target.to_string())
    }
    .frame()
}

/// Whom a question asks for. It comes from the interface itself, and the frame is what it says to be.
fn target(port: u16, frame: &[u8]) -> IpAddr {
    let own = usize::from(port);
    assert_eq!(frame[6..12], PORT_MACS[own]);
    if frame[12..14] == [8, 6] {
        assert_eq!(frame[28..32], v4(PORT_V4[own]).octets());
        IpAddr::V4(Ipv4Addr::new(frame[38], frame[39], frame[40], frame[41]))
    } else {
        let (src, _, hop_limit, message) = read_icmpv6(frame);
        assert_eq!((src, hop_limit, message[0]), (v6(PORT_V6[own]), 255, 135));
        let target: [u8; 16] = message[8..24].try_into().expect("an address");
        Ipv6Addr::from(target).into()
    }
}

/// The client's first packet waits for the real server's neighbour and comes out byte by byte as it would have at
/// once; the reply waits for the client's.
#[test]
fn a_packet_waits_for_its_neighbour_and_goes_on() {
    for (kind, proto) in kinds_and_protos() {
        let mut net = Net::new(HoldConfig::default());
        let given = first(proto, kind.client(0), kind.vip(proto));
        net.lab.check(&given, Want::Held, "");
        assert_eq!(net.lab.conn(&given.tuple()), None, "nothing is opened yet");
        net.control();
        let [(port, addr)] = net.wanted[..] else {
            panic!("one is wanted: {:?}", net.wanted);
        };
        assert_eq!(port, 1);
        assert_eq!(net.sent(), []);
        // The servers are known of the config, and were asked for in advance: nobody has to ask for this one.
        assert_eq!(net.state(addr), Some(NeighbourState::Incomplete));
        let before = flat(net.lab.workers[0].counters());
        net.answer(addr);
        let opened = if proto == L4Proto::Tcp {
            "SYN_RECV"
        } else {
            "UDP_ONE_WAY"
        };
        // It is scheduled anew, and so the turns of the other servers come before that of the first.
        for n in 2..=3 {
            assert_eq!(net.sent(), []);
            net.control();
            assert_eq!(net.wanted.len(), n);
            net.answer(net.wanted[n - 1].1);
        }
        let sent = net.sent();
        let [(port, bytes)] = &sent[..] else {
            panic!("it goes on: {sent:?}");
        };
        let flow = Flow::of(&net.lab.conn(&given.tuple()).expect("a conn"));
        let (out, sum) = read(*port, bytes);
        assert_eq!((out.src, out.dst), (flow.local, flow.server));
        assert_eq!(out, rewritten(&given, flow.local, flow.server, sum));
        let moved = difference(&before, &flat(net.lab.workers[0].counters()));
        for (name, n) in [
            ("tx_packets", 1),
            ("inbound_packets", 1),
            ("released", 1),
            ("opened", 1),
            (opened, 1),
        ] {
            assert_eq!(moved[name], n, "{name}");
        }
        assert_eq!(moved["tx_bytes"], bytes.len() as i64);
        // Back.
        let reply = match proto {
            L4Proto::Tcp => flow.outbound().flags(SYN | ACK),
            L4Proto::Udp => flow.outbound(),
        };
        net.lab.check(&reply, Want::Held, "");
        net.control();
        net.answer(via(flow.client.ip()));
        let sent = net.sent();
        let (out, sum) = read(sent[0].0, &sent[0].1);
        assert_eq!(out, rewritten(&reply, flow.vip, flow.client, sum));
        assert_eq!(sent.len(), 1);
        // From now on they pass.
        net.lab.check(&given, Want::Inbound(&flow), "");
        assert_eq!(net.lab.counters().held, net.lab.counters().released);
    }
}

/// A lab in which all but hosts on the clients' link are known.
fn known(hold: HoldConfig) -> Net {
    let mut net = Net::new(hold);
    for addr in net.neighbours.iter().map(|n| n.addr).collect::<Vec<_>>() {
        net.answer(addr);
    }
    net
}

/// A connection of the host on the clients' link, and its reply, which has to wait.
fn of_host(net: &mut Net, v4: bool, port: u16) -> (Flow, Packet) {
    let kind = if v4 { Kind::V4 } else { Kind::V6 };
    let client = at(if v4 { HOST_V4 } else { HOST_V6 }, port);
    let service = kind.service(L4Proto::Tcp);
    let flow = net.lab.open_at(service, &syn(client, kind.vip(L4Proto::Tcp)));
    (flow, flow.outbound().flags(SYN | ACK))
}

#[test]
fn a_host_on_the_link_is_asked_for_and_what_waited_goes_on_in_order() {
    for v4 in [true, false] {
        let mut net = known(HoldConfig::default());
        let host = ip(if v4 { HOST_V4 } else { HOST_V6 });
        let (flow, reply) = of_host(&mut net, v4, 5000);
        let (_, other) = of_host(&mut net, v4, 5001);
        for given in [&reply, &other, &reply] {
            net.lab.check(given, Want::Held, "");
        }
        net.control();
        assert_eq!(net.wanted, [(0, host)], "told once");
        assert_eq!(net.questions(), [(0, host)]);
        net.answer(host);
        let ports: Vec<_> = net
            .sent()
            .iter()
            .map(|(port, frame)| read(*port, frame).0.dst.port())
            .collect();
        assert_eq!(ports, [5000, 5001, 5000]);
        net.lab.check(&reply, Want::Outbound(&flow), "");
        assert_eq!(net.wanted.len(), 1);
    }
}

/// Three questions, a second apart; then it is taken for gone, and what waited is dropped, each frame at its time.
#[test]
fn without_an_answer_what_waited_is_dropped() {
    for v4 in [true, false] {
        let mut net = known(HoldConfig::default());
        let host = ip(if v4 { HOST_V4 } else { HOST_V6 });
        let (flow, reply) = of_host(&mut net, v4, 5000);
        for second in 0..3 {
            net.lab.check(&reply, Want::Held, "");
            net.control();
            assert_eq!(net.questions(), [(0, host)], "second {second}");
            assert_eq!(net.state(host), Some(NeighbourState::Incomplete));
            net.pass(Duration::from_millis(999));
            assert_eq!(net.lab.counters().drops[DropReason::HoldExpired as usize], second);
            net.pass(Duration::from_millis(1));
            assert_eq!(
                net.lab.counters().drops[DropReason::HoldExpired as usize],
                second + 1
            );
        }
        assert_eq!(net.state(host), Some(NeighbourState::Failed));
        assert_eq!(net.neighbours.counter(NeighbourCount::Failed), 1);
        assert_eq!((net.questions(), net.sent()), (vec![], vec![]));
        // Told once a second, as packets came.
        assert_eq!(net.wanted, [(0, host); 3]);
        // The conn stays, and once the host is there again it gets its packets.
        net.pass(Duration::from_secs(5));
        assert_eq!(net.state(host), None);
        net.lab.check(&reply, Want::Held, "");
        net.control();
        assert_eq!(net.questions(), [(0, host)]);
        net.answer(host);
        assert_eq!(net.sent().len(), 1);
        net.lab.check(&reply, Want::Outbound(&flow), "");
    }
}

/// A neighbour has so many places, and the pool so many.
#[test]
fn the_pool_is_bounded() {
    let hold = HoldConfig {
        frames: 6,
        frames_per_neighbour: 4,
        ..HoldConfig::default()
    };
    let mut net = known(hold);
    let flows: Vec<_> = (0..6).map(|n| of_host(&mut net, true, 5000 + n).1).collect();
    for reply in &flows[..4] {
        net.lab.check(reply, Want::Held, "");
    }
    // The fifth takes the place of the first (RFC 4861, 7.2.2).
    net.lab.check(&flows[4], Want::Held, "released+1 hold-replaced+1");
    let (flow6, reply6) = of_host(&mut net, false, 5000);
    net.lab.check(&reply6, Want::Held, "");
    net.lab.check(&reply6, Want::Held, "");
    net.lab.check(&reply6, Want::Drop(DropReason::HoldFull), "");
    net.lab.check(&flows[5], Want::Held, "released+1 hold-replaced+1");
    net.control();
    assert_eq!(net.wanted, [(0, ip(HOST_V4)), (0, ip(HOST_V6))]);
    net.answer(ip(HOST_V4));
    let sent = net.sent();
    let ports: Vec<_> = sent.iter().map(|(port, f)| read(*port, f).0.dst.port()).collect();
    assert_eq!(ports, [5002, 5003, 5004, 5005]);
    // There is room again.
    net.lab.check(&reply6, Want::Held, "");
    net.answer(ip(HOST_V6));
    assert_eq!(net.sent().len(), 3);
    net.lab.check(&reply6, Want::Outbound(&flow6), "");
}

fn flow_of(net: &Net, reply: &Packet) -> Flow {
    Flow::of(&net.lab.conn(&reply.tuple()).expect("a conn"))
}

/// No buffer, no loss.
#[test]
fn what_is_ready_waits_for_a_buffer() {
    let mut net = known(HoldConfig::default());
    let (_, reply) = of_host(&mut net, true, 5000);
    net.lab.check(&reply, Want::Held, "");
    net.control();
    net.answer(ip(HOST_V4));
    let worker = &mut net.lab.workers[0];
    for _ in 0..3 {
        assert!(worker.poll_transmit(|_| None::<HeapFrame>).is_none());
    }
    net.pass(Duration::from_secs(60));
    assert_eq!(net.sent().len(), 1);
    assert_eq!(net.lab.counters().originated, 0, "it is sent, not originated");
}

/// What cannot be copied is dropped, but asked for.
#[test]
fn frames_that_do_not_fit_are_dropped() {
    let mut net = known(HoldConfig::default());
    let (flow, reply) = of_host(&mut net, true, 5000);
    let drop = Want::Drop(DropReason::NoNeighbour);
    let with_len = |len: usize| {
        let given = flow.outbound().with(|p| p.payload.clear());
        let missing = len - given.bytes().len();
        given.with(|p| p.payload = vec![7; missing])
    };
    net.lab.check(&with_len(HELD_LEN_MAX + 1), drop, "");
    net.lab.check(&with_len(HELD_LEN_MAX), Want::Held, "");
    let long = with_len(1000);
    let segments = Segments::new(1, &long.bytes(), HEAD_LEN);
    net.lab.check_frame(0, segments, Some(&long), drop, "");
    net.lab.check(&reply, Want::Held, "");
    net.control();
    assert_eq!(net.wanted, [(0, ip(HOST_V4))]);
    net.answer(ip(HOST_V4));
    let lens: Vec<_> = net.sent().iter().map(|(_, f)| f.len()).collect();
    assert_eq!(lens, [HELD_LEN_MAX, reply.bytes().len()]);
}

/// As an answer comes late: the client has sent its SYN again, and the second finds the conn of the first.
#[test]
fn a_syn_that_is_sent_again_opens_one_conn() {
    for kind in KINDS {
        let mut net = Net::new(HoldConfig::default());
        let given = syn(kind.client(0), kind.vip(L4Proto::Tcp));
        net.lab.check(&given, Want::Held, "");
        net.lab.check(&given, Want::Held, "");
        for addr in net.neighbours.iter().map(|n| n.addr).collect::<Vec<_>>() {
            net.answer(addr);
        }
        assert_eq!(net.sent().len(), 2, "{kind:?}");
        assert_eq!(net.lab.counters().opened, 1);
    }
}

/// What waited for a service that has gone meanwhile is dropped for that.
#[test]
fn what_waits_is_looked_at_afresh() {
    let mut net = Net::new(HoldConfig::default());
    let kind = Kind::V4;
    let given = syn(kind.client(0), kind.vip(L4Proto::Tcp));
    net.lab.check(&given, Want::Held, "");
    net.control();
    let mut spec = net.lab.spec.clone();
    spec.services.retain(|s| s.id != kind.service(L4Proto::Tcp));
    net.neighbours
        .set_spec(net.lab.now, Arc::new(spec))
        .expect("good");
    let (_, addr) = net.wanted[0];
    // A UDP service has the same servers.
    net.answer(addr);
    assert_eq!(net.sent(), []);
    let c = net.lab.counters();
    assert_eq!(
        (c.held, c.released, c.drops[DropReason::NoService as usize]),
        (1, 1, 1)
    );
}

/// News reach the control side, and nothing else does: an announcement that says what is known, or is of somebody
/// whom nobody asked for, is dropped as ever.
#[test]
fn announcements_are_heard_if_they_are_news() {
    let gateway = [2, 0, 0, 0, 1, 0xfd];
    for v4 in [true, false] {
        let (addr, client) = if v4 {
            ("192.0.2.254", Kind::V4)
        } else {
            ("2001:db8::fe", Kind::V6)
        };
        let mut net = known(HoldConfig::default());
        let announced = |addr: &str, mac: Mac| match ip(addr) {
            IpAddr::V4(a) => Arp {
                sender: (mac, a),
                ..who_has(addr)
            }
            .frame(),
            IpAddr::V6(a) => advertisement(a, v6("ff02::1"), 0x20, mac),
        };
        let drop = Want::Drop(DropReason::NeighbourNotOurs);
        net.lab.check_bytes(0, &announced(addr, CLIENT_GATEWAY), drop, "");
        let stranger = if v4 { "192.0.2.55" } else { "2001:db8::55" };
        net.lab.check_bytes(0, &announced(stranger, gateway), drop, "");
        net.lab.check_bytes(1, &announced(addr, gateway), drop, "");
        // The other router of the pair takes over.
        net.pass(Duration::from_secs(1));
        let frame = announced(addr, gateway);
        net.lab.check_bytes(0, &frame, Want::Punt, "");
        net.neighbours.handle_frame(net.lab.now, PortId(0), &frame);
        net.control();
        assert_eq!(net.state(ip(addr)), Some(NeighbourState::Stale));
        net.lab.check_bytes(0, &frame, drop, "");
        let given = syn(client.client(0), client.vip(L4Proto::Tcp)).with(|p| p.src_mac = gateway);
        let worker = &mut net.lab.workers[0];
        let mut frames = [HeapFrame::new(PortId(0), &given.bytes())];
        worker.handle_burst(net.lab.now, &mut frames, &mut net.lab.verdicts);
        assert_eq!(net.lab.verdicts.as_slice(), [Verdict::Tx(PortId(1))]);
        let flow = flow_of(&net, &given);
        let reply = flow.outbound().flags(SYN | ACK);
        let mut frames = [HeapFrame::new(PortId(1), &reply.bytes())];
        net.lab.workers[0].handle_burst(net.lab.now, &mut frames, &mut net.lab.verdicts);
        assert_eq!(net.lab.verdicts.as_slice(), [Verdict::Tx(PortId(0))]);
        assert_eq!(frames[0].data()[..6], gateway, "to the new place");
        // It moves back and asks for an address of ours: it is answered, and heard.
        net.pass(Duration::from_secs(1));
        let question = match ip(addr) {
            IpAddr::V4(a) => Arp {
                sender: (CLIENT_GATEWAY, a),
                ..who_has(VIP_V4)
            }
            .frame(),
            IpAddr::V6(a) => Ns {
                src: a,
                options: [&[1, 1], &CLIENT_GATEWAY[..]].concat(),
                ..Ns::new(VIP_V6)
            }
            .frame(),
        };
        net.lab.check_bytes(0, &question, Want::Answered, "");
        net.control();
        assert_eq!(net.heard, [(0, ip(addr), CLIENT_GATEWAY)]);
        net.lab.check_bytes(0, &question, Want::Answered, "");
        net.control();
        assert_eq!(net.heard.len(), 1, "that is known now");
    }
}

/// Strangers' frames and wants without end: bounded, counted, and no conn's way changes.
#[test]
fn hostile_neighbours_change_nothing_and_fill_nothing() {
    let mut net = known(HoldConfig::default());
    let kind = Kind::V4;
    let flow = net.lab.establish(kind, 0);
    let before: Vec<_> = net.neighbours.iter().map(|n| (n.port, n.addr, n.mac)).collect();
    // Claims about addresses of ours, and answers that nobody asked for.
    for (claimed, want) in [
        (VIP_V4, Want::Drop(DropReason::NeighbourNotOurs)),
        (LIP_V4, Want::Drop(DropReason::NeighbourNotOurs)),
        (HOST_V4, Want::Punt),
        (PORT_V4[0], Want::Punt),
        (VIP_V6, Want::Punt),
        (LIP_V6, Want::Punt),
        (HOST_V6, Want::Punt),
    ] {
        let frame = match ip(claimed) {
            // To whom nobody answers: a group.
            IpAddr::V4(a) if matches!(want, Want::Drop(_)) => Arp {
                operation: 2,
                sender: (HOST_MAC, a),
                ..who_has(HOST_V4)
            }
            .frame(),
            addr => answer(addr, HOST_MAC, 0),
        };
        net.lab.check_bytes(0, &frame, want, "");
        net.neighbours.handle_frame(net.lab.now, PortId(0), &frame);
        net.control();
    }
    let after: Vec<_> = net.neighbours.iter().map(|n| (n.port, n.addr, n.mac)).collect();
    assert_eq!(before, after);
    // Replies to hosts that are not there: the pool is full, the events are bounded.
    let clients = (1..=250).map(|n| at(&format!("192.0.2.{n}"), 1000));
    let mut fates = [0; 3];
    for client in clients.filter(|c| c.ip() != ip(PORT_V4[0])) {
        let given = syn(client, kind.vip(L4Proto::Tcp)).with(|p| (p.port, p.dst_mac) = (0, PORT_MACS[0]));
        let mut frames = [HeapFrame::new(PortId(0), &given.bytes())];
        let lab = &mut net.lab;
        lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
        let reply = flow_of(&net, &given).outbound().flags(SYN | ACK);
        let lab = &mut net.lab;
        let mut frames = [HeapFrame::new(PortId(1), &reply.bytes())];
        lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
        match lab.verdicts.as_slice()[0] {
            Verdict::Held => fates[0] += 1,
            Verdict::Drop(DropReason::HoldFull) => fates[1] += 1,
            _ => fates[2] += 1,
        }
    }
    assert_eq!(fates, [64, 249 - 64, 0]);
    net.control();
    assert_eq!(net.wanted.len(), 64, "events are bounded");
    net.pass(Duration::from_secs(1));
    assert_eq!(net.lab.counters().drops[DropReason::HoldExpired as usize], 64);
    net.lab.check(&flow.inbound(), Want::Inbound(&flow), "");
    net.lab.check(&flow.outbound(), Want::Outbound(&flow), "");
}

/// Without a pool all is as it was: dropped, and nothing is told.
#[test]
fn a_worker_that_does_not_hold_tells_nothing() {
    let mut lab = Lab::with(|c| c.spec.neighbours.clear());
    let given = syn(Kind::V4.client(0), Kind::V4.vip(L4Proto::Tcp));
    lab.check(&given, Want::Drop(DropReason::NoNeighbour), "");
    let udp = packet(L4Proto::Udp, Kind::V6.client(0), Kind::V6.vip(L4Proto::Udp));
    lab.check(&udp, Want::Drop(DropReason::NoNeighbour), "");
    assert!(lab.workers[0].poll_event().is_none());
    assert!(lab.workers[0].poll_transmit(|_| None::<HeapFrame>).is_none());
    let mut lab = Lab::new();
    let moved = Arp {
        sender: ([2, 0, 0, 0, 1, 9], v4(HOST_V4)),
        ..who_has(HOST_V4)
    };
    let drop = Want::Drop(DropReason::NeighbourNotOurs);
    lab.check_bytes(0, &moved.frame(), drop, "");
}
