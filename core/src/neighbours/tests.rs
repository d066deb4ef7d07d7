use super::*;
use crate::proto::Timeouts;
use crate::sched::SchedulerKind;
use crate::service::{
    FwdMode, PortSpec, RealServerId, Replicate, RouteSpec, ServerSpec, ServiceId, ServiceSpec,
};
use crate::tuple::L4Proto;
use crate::wire::{
    ArpOperation, ArpRepr, ArpView, EtherType, IpProto, Ipv6Repr, Ipv6View, NdpRepr, NdpView, NeighbourFlags,
    Pseudo, arp, ethernet, ipv6,
};
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::format;
use std::vec;

const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
const HOST: MacAddr = MacAddr([2, 0, 0, 0, 1, 77]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 1, 78]);

fn ip(s: &str) -> IpAddr {
    s.parse().expect("an address")
}

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 9, n])
}

/// Two interfaces and a service with a server on a link, one that the config knows, and one behind a gateway.
fn spec() -> SnapshotSpec {
    let port = |name: &str, mac, addresses: &[(&str, u8)]| PortSpec {
        name: name.into(),
        mac,
        addresses: addresses.iter().map(|(a, len)| (ip(a), *len)).collect(),
        mtu: None,
    };
    let route = |prefix, len, via, port| RouteSpec {
        prefix: ip(prefix),
        len,
        via: Some(ip(via)),
        port: PortId(port),
    };
    let servers = ["10.0.1.1", "10.0.1.2", "10.9.0.3"];
    SnapshotSpec {
        ports: vec![
            port(
                "clients",
                MACS[0],
                &[("192.0.2.1", 24), ("2001:db8::1", 64), ("fe80::1", 64)],
            ),
            port("servers", MACS[1], &[("10.7.0.1", 24), ("10.0.0.1", 16)]),
        ],
        services: vec![ServiceSpec {
            id: ServiceId(0),
            name: "web".into(),
            proto: L4Proto::Tcp,
            vip: ip("198.51.100.1"),
            port: 80,
            scheduler: SchedulerKind::RoundRobin,
            mode: FwdMode::FullNat,
            local_addrs: vec![ip("10.0.2.1")],
            timeouts: Timeouts::default(),
            replicate: Replicate::Off,
            servers: (0..)
                .zip(servers)
                .map(|(id, addr)| ServerSpec {
                    id: RealServerId(id),
                    addr: ip(addr),
                    port: 8080,
                    weight: 1,
                })
                .collect(),
        }],
        routes: vec![
            route("0.0.0.0", 0, "192.0.2.254", 0),
            route("::", 0, "fe80::fe", 0),
            route("10.9.0.0", 16, "10.0.0.254", 1),
        ],
        neighbours: vec![NeighbourSpec {
            addr: ip("10.0.1.2"),
            mac: mac(2),
            port: PortId(1),
        }],
        peer_local_addrs: Vec::new(),
    }
}

/// A bare one: interfaces, and nobody who is wanted always.
fn bare() -> SnapshotSpec {
    SnapshotSpec {
        services: Vec::new(),
        routes: Vec::new(),
        neighbours: Vec::new(),
        ..spec()
    }
}

struct Lab {
    n: Neighbours,
    now: Instant,
}

impl Lab {
    fn new(spec: SnapshotSpec) -> Self {
        let mut lab = Lab {
            n: Neighbours::new(7),
            now: Instant::from_millis(1_000),
        };
        lab.n.set_spec(lab.now, Arc::new(spec)).expect("a good spec");
        lab
    }

    /// One with `addr` known on interface 0 at `HOST`, since now.
    fn knowing(addr: &str) -> Self {
        let mut lab = Lab::new(bare());
        lab.want(0, addr);
        assert_eq!(lab.questions().len(), 1);
        lab.hear(0, &answer(addr, HOST));
        assert_eq!(lab.view(0, addr), Some((NeighbourState::Reachable, Some(HOST))));
        lab
    }

    fn want(&mut self, port: u16, addr: &str) {
        self.n.handle_want(self.now, PortId(port), ip(addr));
        self.n.audit();
    }

    fn hear(&mut self, port: u16, frame: &[u8]) {
        self.n.handle_frame(self.now, PortId(port), frame);
        self.n.audit();
    }

    /// Time passes; all that is due has its turn when it is.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.n.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.n.handle_timeout(self.now);
            self.n.audit();
        }
        self.now = end;
    }

    fn questions(&mut self) -> Vec<(PortId, Vec<u8>)> {
        core::iter::from_fn(|| self.n.poll_transmit()).collect()
    }

    fn view(&self, port: u16, addr: &str) -> Option<(NeighbourState, Option<MacAddr>)> {
        let found = self
            .n
            .iter()
            .find(|v| (v.port, v.addr) == (PortId(port), ip(addr)));
        found.map(|v| (v.state, v.mac))
    }

    #[track_caller]
    fn counts(&self, want: &[(NeighbourCount, u64)]) {
        for (count, n) in want {
            assert_eq!(self.n.counter(*count), *n, "{count}");
        }
    }
}

fn arp_frame(op: ArpOperation, from: (MacAddr, IpAddr), to: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(sender_ip), IpAddr::V4(target_ip)) = (from.1, to) else {
        panic!("IPv4");
    };
    let message = ArpRepr {
        operation: op,
        sender_mac: from.0,
        sender_ip,
        target_mac: MacAddr::ZERO,
        target_ip,
    };
    let mut frame = crate::announce::framed(MACS[0], HOST, EtherType::ARP, arp::PACKET_LEN);
    message.emit(&mut ArpView::new_unchecked(&mut frame[ethernet::HEADER_LEN..]));
    frame
}

fn ndp_frame(src: Ipv6Addr, dst: Ipv6Addr, message: NdpRepr) -> Vec<u8> {
    let len = message.buffer_len();
    let ip = Ipv6Repr {
        src,
        dst,
        next_header: IpProto::ICMPV6,
        payload_len: len as u16,
        hop_limit: 255,
        traffic_class: 0,
        flow_label: 0,
    };
    let mut frame = crate::announce::framed(MACS[0], HOST, EtherType::IPV6, ipv6::HEADER_LEN + len);
    let (header, rest) = frame[ethernet::HEADER_LEN..].split_at_mut(ipv6::HEADER_LEN);
    ip.emit(&mut Ipv6View::new_unchecked(header));
    let mut view = NdpView::new_unchecked(rest);
    message.emit(&mut view);
    view.fill_checksum(&Pseudo::v6(src, dst));
    frame
}

fn v6(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V6(a) => a,
        IpAddr::V4(_) => panic!("IPv6"),
    }
}

fn advertisement(
    target: IpAddr,
    dst: &str,
    solicited: bool,
    override_cached: bool,
    mac: Option<MacAddr>,
) -> Vec<u8> {
    let flags = NeighbourFlags {
        router: false,
        solicited,
        override_cached,
    };
    let message = NdpRepr::Advertisement {
        flags,
        target: v6(target),
        target_mac: mac,
    };
    ndp_frame(v6(target), v6(ip(dst)), message)
}

/// The answer of a host to interface 0.
fn answer(addr: &str, mac: MacAddr) -> Vec<u8> {
    match ip(addr) {
        IpAddr::V4(_) => arp_frame(ArpOperation::Reply, (mac, ip(addr)), ip("192.0.2.1")),
        IpAddr::V6(_) => advertisement(ip(addr), "2001:db8::1", true, true, Some(mac)),
    }
}

/// What a host says of itself to all.
fn announcement(addr: &str, mac: MacAddr) -> Vec<u8> {
    crate::announce::announcement(mac, ip(addr), false)
}

/// To whom a question goes, as written in its Ethernet header.
fn asked_at(frame: &[u8]) -> MacAddr {
    MacAddr(frame[..6].try_into().expect("six bytes"))
}

const HOSTS: [&str; 2] = ["192.0.2.77", "2001:db8::77"];

#[test]
fn questions_byte_by_byte() {
    let mut lab = Lab::new(bare());
    lab.want(0, "192.0.2.77");
    lab.want(0, "2001:db8::12:3456");
    lab.want(0, "fe80::9");
    let asked = lab.questions();
    let arp: [u8; 42] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06, // to all
        0, 1, 8, 0, 6, 4, 0, 1, // request
        2, 0, 0, 0, 0, 1, 192, 0, 2, 1, // from the interface
        0, 0, 0, 0, 0, 0, 192, 0, 2, 77,
    ];
    assert_eq!(asked[0], (PortId(0), arp.to_vec()));
    let mut ns = vec![
        0x33, 0x33, 0xff, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, // to its solicited-node group
        0x60, 0, 0, 0, 0, 32, 58, 255, //
    ];
    ns.extend(v6(ip("2001:db8::1")).octets());
    ns.extend(v6(ip("ff02::1:ff12:3456")).octets());
    ns.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    ns.extend(v6(ip("2001:db8::12:3456")).octets());
    ns.extend([1, 1, 2, 0, 0, 0, 0, 1]);
    let frame = &asked[1].1;
    let icmp = etherparse::Icmpv6Slice::from_slice(&frame[54..]).expect("a message");
    assert!(icmp.is_checksum_valid(
        v6(ip("2001:db8::1")).octets(),
        v6(ip("ff02::1:ff12:3456")).octets()
    ));
    ns[56..58].copy_from_slice(&frame[56..58]);
    assert_eq!(*frame, ns);
    // A link-local neighbour is asked from the link-local address.
    assert_eq!(asked[2].1[22..38], v6(ip("fe80::1")).octets());
    assert_eq!(asked.len(), 3);
    // The address of the interface that shares the longest prefix.
    lab.want(1, "10.7.0.9");
    lab.want(1, "10.0.3.3");
    lab.want(1, "172.16.0.1");
    let sources: Vec<_> = lab.questions().iter().map(|(_, f)| f[28..32].to_vec()).collect();
    assert_eq!(sources, [[10, 0, 0, 1], [10, 7, 0, 1], [10, 7, 0, 1]]);
}

#[test]
fn next_hops_are_asked_for_in_advance_and_for_ever() {
    let mut lab = Lab::new(spec());
    let hops = [
        (0, "192.0.2.254"),
        (0, "fe80::fe"),
        (1, "10.0.0.254"),
        (1, "10.0.1.1"),
    ];
    let wanted = lab.n.iter().map(|v| (v.port.0, v.addr));
    assert_eq!(
        wanted.collect::<Vec<_>>(),
        hops.map(|(port, addr)| (port, ip(addr)))
    );
    for round in 0..10 {
        for _ in 0..MULTICAST_ASK_COUNT {
            assert_eq!(lab.questions().len(), hops.len(), "round {round}");
            lab.pass(RETRANS_TIME);
        }
        assert_eq!(lab.questions().len(), 0);
        assert!(lab.n.iter().all(|v| v.state == NeighbourState::Failed));
        lab.counts(&[(NeighbourCount::Failed, 4 * (round + 1))]);
        lab.pass(FAILED_TIME);
    }
    assert_eq!(lab.questions().len(), hops.len());
    // One answers at last. It is in the snapshot, beside the config's own neighbour, and stays while it answers.
    let before = lab.n.version();
    lab.hear(0, &answer("192.0.2.254", HOST));
    assert_ne!(lab.n.version(), before);
    let version = lab.n.version();
    for _ in 0..600 {
        let snapshot = lab.n.snapshot().expect("a good one");
        let hop = snapshot.next_hop(ip("203.0.113.9")).expect("through the gateway");
        assert_eq!((hop.port, hop.mac), (PortId(0), HOST));
        assert_eq!(snapshot.next_hop(ip("10.0.1.2")).expect("static").mac, mac(2));
        lab.pass(RETRANS_TIME);
        for (_, frame) in lab.questions() {
            if asked_at(&frame) == HOST {
                lab.hear(0, &answer("192.0.2.254", HOST));
            }
        }
    }
    assert_eq!(lab.n.version(), version, "nothing that workers read has changed");
    assert!(lab.n.counter(NeighbourCount::Answered) > 10);
}

#[test]
fn a_want_is_asked_three_times_then_left_alone_then_forgotten() {
    for addr in HOSTS {
        let mut lab = Lab::new(bare());
        for round in 1..=2 {
            lab.want(0, addr);
            lab.want(0, addr);
            for _ in 0..MULTICAST_ASK_COUNT {
                assert_eq!(lab.questions().len(), 1);
                assert_eq!(lab.view(0, addr), Some((NeighbourState::Incomplete, None)));
                lab.pass(RETRANS_TIME);
            }
            assert_eq!(lab.view(0, addr), Some((NeighbourState::Failed, None)));
            lab.pass(FAILED_TIME - RETRANS_TIME);
            lab.want(0, addr);
            assert_eq!(lab.questions().len(), 0, "it is left alone");
            lab.pass(RETRANS_TIME);
            assert_eq!(lab.view(0, addr), None);
            lab.counts(&[
                (NeighbourCount::Wanted, round),
                (NeighbourCount::Asked, 3 * round),
                (NeighbourCount::Failed, round),
                (NeighbourCount::Answered, 0),
            ]);
        }
        assert_eq!(lab.n.poll_timeout(), None);
    }
}

#[test]
fn one_that_answers_is_asked_again_where_it_is() {
    for addr in HOSTS {
        let mut lab = Lab::knowing(addr);
        let version = lab.n.version();
        for _ in 0..20 {
            let mut passed = Duration::ZERO;
            while lab.view(0, addr).map(|v| v.0) == Some(NeighbourState::Reachable) {
                lab.pass(Duration::from_millis(100));
                passed += Duration::from_millis(100);
            }
            assert!(
                passed >= REACHABLE_TIME / 2 && passed <= REACHABLE_TIME * 3 / 2,
                "{passed:?}"
            );
            assert_eq!(lab.view(0, addr), Some((NeighbourState::Stale, Some(HOST))));
            lab.pass(STALE_TIME);
            assert_eq!(lab.view(0, addr), Some((NeighbourState::Probe, Some(HOST))));
            let asked = lab.questions();
            assert_eq!(asked.len(), 1);
            assert_eq!(asked_at(&asked[0].1), HOST);
            lab.hear(0, &answer(addr, HOST));
            assert_eq!(lab.view(0, addr), Some((NeighbourState::Reachable, Some(HOST))));
        }
        assert_eq!(lab.n.version(), version);
    }
}

/// RFC 7048: the known address is given up only when all hosts were asked.
#[test]
fn one_that_is_gone_is_asked_for_among_all_and_given_up() {
    for addr in HOSTS {
        let mut lab = Lab::knowing(addr);
        let version = lab.n.version();
        while lab.view(0, addr).map(|v| v.0) != Some(NeighbourState::Probe) {
            lab.pass(Duration::from_millis(100));
        }
        let mut places = Vec::new();
        while lab.view(0, addr) == Some((NeighbourState::Probe, Some(HOST))) {
            places.extend(lab.questions().iter().map(|(_, frame)| asked_at(frame)));
            assert_eq!(lab.n.version(), version);
            lab.pass(RETRANS_TIME);
        }
        let at_host = |mac: &MacAddr| *mac == HOST;
        assert_eq!(places.len(), 6);
        assert!(places[..3].iter().all(at_host) && !places[3..].iter().any(at_host));
        assert_eq!(lab.view(0, addr), Some((NeighbourState::Failed, None)));
        assert_ne!(lab.n.version(), version);
        let snapshot = lab.n.snapshot().expect("a good one");
        assert_eq!(snapshot.missing_neighbour(ip(addr)), Some((PortId(0), ip(addr))));
    }
}

#[test]
fn what_is_told_unasked_changes_only_what_is_known() {
    for addr in HOSTS {
        // Of nobody who was asked for.
        let mut lab = Lab::new(bare());
        for frame in [announcement(addr, HOST), answer(addr, HOST)] {
            lab.hear(0, &frame);
        }
        assert_eq!(lab.n.iter().count(), 0);
        lab.counts(&[(NeighbourCount::Unknown, 2)]);
        // On another interface.
        let mut lab = Lab::knowing(addr);
        let version = lab.n.version();
        lab.pass(LOCK_TIME);
        lab.hear(1, &announcement(addr, OTHER));
        assert_eq!(lab.n.version(), version);
        // A neighbour moves, says so, and is asked there.
        lab.hear(0, &announcement(addr, OTHER));
        assert_eq!(lab.view(0, addr), Some((NeighbourState::Stale, Some(OTHER))));
        assert_eq!(lab.n.version(), version + 1);
        lab.counts(&[(NeighbourCount::Moved, 1)]);
        // Not more than once a second.
        lab.hear(0, &announcement(addr, HOST));
        assert_eq!(lab.view(0, addr), Some((NeighbourState::Stale, Some(OTHER))));
        lab.counts(&[(NeighbourCount::Locked, 1)]);
        lab.pass(STALE_TIME);
        assert_eq!(asked_at(&lab.questions()[0].1), OTHER);
        lab.hear(0, &answer(addr, OTHER));
        assert_eq!(lab.view(0, addr), Some((NeighbourState::Reachable, Some(OTHER))));
        // What it says of itself while nothing is new is nothing.
        lab.hear(0, &announcement(addr, OTHER));
        assert_eq!(lab.view(0, addr), Some((NeighbourState::Reachable, Some(OTHER))));
        // It asks for something of ours from elsewhere.
        lab.pass(LOCK_TIME);
        lab.n.handle_heard(lab.now, PortId(0), ip(addr), HOST);
        assert_eq!(lab.view(0, addr), Some((NeighbourState::Stale, Some(HOST))));
        assert_eq!(lab.n.version(), version + 2);
    }
}

/// Who is asked may answer somebody else meanwhile: that says where he is, and not that he hears us.
#[test]
fn what_answers_somebody_else_is_a_claim() {
    let na = |dst: &str| advertisement(ip(HOSTS[1]), dst, true, true, Some(HOST));
    let arp = |to: &str| arp_frame(ArpOperation::Reply, (HOST, ip(HOSTS[0])), ip(to));
    for (addr, frame) in [
        (HOSTS[0], arp("192.0.2.9")),
        // An address of ours, but of the other interface.
        (HOSTS[0], arp("10.0.0.1")),
        (HOSTS[1], na("2001:db8::9")),
    ] {
        let mut lab = Lab::new(bare());
        lab.want(0, addr);
        lab.hear(0, &frame);
        assert_eq!(lab.view(0, addr), Some((NeighbourState::Stale, Some(HOST))));
        lab.counts(&[(NeighbourCount::Answered, 0)]);
        lab.pass(STALE_TIME);
        assert_eq!(asked_at(&lab.questions().pop().expect("it is asked").1), HOST);
        lab.hear(0, &frame);
        assert_eq!(lab.view(0, addr), Some((NeighbourState::Probe, Some(HOST))));
    }
}

/// RFC 4861, 7.2.5.
#[test]
fn advertisements_that_override_nothing_or_say_nothing() {
    let addr = "2001:db8::77";
    let (own, all) = ("2001:db8::1", "ff02::1");
    // Incomplete, and no address in it.
    let mut lab = Lab::new(bare());
    lab.want(0, addr);
    lab.hear(0, &advertisement(ip(addr), own, true, true, None));
    assert_eq!(lab.view(0, addr), Some((NeighbourState::Incomplete, None)));
    // Not an answer: it is known, and not sure.
    lab.hear(0, &advertisement(ip(addr), all, false, true, Some(HOST)));
    assert_eq!(lab.view(0, addr), Some((NeighbourState::Stale, Some(HOST))));
    // Another one that does not override.
    let mut lab = Lab::knowing(addr);
    lab.pass(LOCK_TIME);
    for solicited in [true, false] {
        lab.hear(0, &advertisement(ip(addr), own, solicited, false, Some(OTHER)));
        assert_eq!(lab.view(0, addr), Some((NeighbourState::Stale, Some(HOST))));
    }
    lab.pass(STALE_TIME);
    lab.hear(0, &advertisement(ip(addr), own, true, false, Some(OTHER)));
    assert_eq!(lab.view(0, addr), Some((NeighbourState::Probe, Some(HOST))));
    // An answer without an address says that it is still there.
    lab.hear(0, &advertisement(ip(addr), own, true, false, None));
    assert_eq!(lab.view(0, addr), Some((NeighbourState::Reachable, Some(HOST))));
    // A solicitation says where its sender is.
    lab.pass(LOCK_TIME);
    let ns = NdpRepr::Solicitation {
        target: v6(ip(own)),
        source_mac: Some(OTHER),
    };
    lab.hear(0, &ndp_frame(v6(ip(addr)), v6(ip(own)), ns));
    assert_eq!(lab.view(0, addr), Some((NeighbourState::Stale, Some(OTHER))));
}

/// Each rule of RFC 4861, 7.1, and what RFC 826 leaves to sense: nothing of it is heard.
#[test]
fn messages_that_contradict_themselves_are_counted_and_not_heard() {
    let mut lab = Lab::new(bare());
    lab.want(0, "2001:db8::77");
    lab.want(0, "192.0.2.77");
    let na = answer("2001:db8::77", HOST);
    let arp = answer("192.0.2.77", HOST);
    let mut bad = Vec::new();
    // Byte, value: hop limit, code, an option of no length or too long, a group as the sender.
    for (at, value) in [(21, 254), (55, 1), (79, 0), (79, 2), (6, 3)] {
        let mut frame = na.clone();
        frame[at] = value;
        let pseudo = Pseudo::v6(v6(ip("2001:db8::77")), v6(ip("2001:db8::1")));
        NdpView::new_unchecked(&mut frame[54..]).fill_checksum(&pseudo);
        bad.push(frame);
    }
    let mut frame = na.clone();
    frame[57] ^= 1;
    bad.push(frame);
    let group = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
    for mac in [group, MacAddr::ZERO, MACS[0]] {
        bad.push(answer("2001:db8::77", mac));
        bad.push(answer("192.0.2.77", mac));
    }
    bad.push(advertisement(
        ip("2001:db8::77"),
        "ff02::1",
        true,
        true,
        Some(HOST),
    ));
    bad.push(advertisement(
        ip("ff02::5"),
        "2001:db8::1",
        true,
        true,
        Some(HOST),
    ));
    bad.push(advertisement(ip("::1"), "2001:db8::1", true, true, Some(HOST)));
    for (at, value) in [(14, 9), (16, 9), (18, 9), (19, 9), (21, 3), (6, 3), (28, 224)] {
        let mut frame = arp.clone();
        frame[at] = value;
        bad.push(frame);
    }
    let count = bad.len() as u64;
    for frame in &bad {
        lab.hear(0, frame);
    }
    lab.counts(&[(NeighbourCount::Bad, count), (NeighbourCount::Answered, 0)]);
    // An address of ours, as somebody else's.
    lab.hear(0, &announcement("192.0.2.1", HOST));
    lab.counts(&[(NeighbourCount::Conflict, 1)]);
    // Cut, or something else.
    for frame in [&na, &arp] {
        for len in 0..frame.len() {
            lab.hear(0, &frame[..len]);
        }
    }
    assert!(lab.n.iter().all(|v| v.state == NeighbourState::Incomplete));
    assert_eq!(lab.n.iter().count(), 2);
    // The good ones.
    lab.hear(0, &na);
    lab.hear(0, &arp);
    assert!(lab.n.iter().all(|v| v.state == NeighbourState::Reachable));
}

/// Wants that cannot be, and neighbours of the config.
#[test]
fn wants_that_are_refused() {
    let mut lab = Lab::new(SnapshotSpec {
        ports: vec![
            spec().ports.remove(0),
            PortSpec {
                addresses: vec![(ip("10.0.0.1"), 16)],
                ..spec().ports.remove(1)
            },
        ],
        neighbours: spec().neighbours,
        ..bare()
    });
    for (port, addr, count) in [
        (0, "224.0.0.1", NeighbourCount::Refused),
        (0, "ff02::1", NeighbourCount::Refused),
        (0, "255.255.255.255", NeighbourCount::Refused),
        (0, "127.0.0.1", NeighbourCount::Refused),
        (0, "192.0.2.1", NeighbourCount::Refused),
        (1, "192.0.2.1", NeighbourCount::Refused),
        (1, "fd00::1", NeighbourCount::NoSource),
        (9, "192.0.2.9", NeighbourCount::NoSource),
    ] {
        let before = lab.n.counter(count);
        lab.want(port, addr);
        assert_eq!(lab.n.counter(count), before + 1, "{addr}");
    }
    // The config knows it, and nobody else is heard.
    lab.want(1, "10.0.1.2");
    lab.hear(1, &announcement("10.0.1.2", OTHER));
    assert_eq!(lab.n.iter().count(), 0);
    assert_eq!(lab.questions().len(), 0);
    assert_eq!(
        lab.n
            .snapshot()
            .expect("good")
            .neighbour(ip("10.0.1.2"), PortId(1)),
        Some(crate::service::NextHop {
            port: PortId(1),
            mac: mac(2)
        })
    );
}

/// Neither strangers' frames nor wants of addresses that nobody has make it larger than its bounds, and who answers
/// keeps his place.
#[test]
fn bounds_hold_and_who_answers_keeps_his_place() {
    let host = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_8000 + n));
    let mut lab = Lab::new(bare());
    let port = PortId(1);
    for n in 0..2 * INCOMPLETE_COUNT_MAX as u32 {
        lab.n.handle_want(lab.now, port, host(n));
    }
    lab.n.audit();
    assert_eq!(lab.n.iter().count(), INCOMPLETE_COUNT_MAX);
    lab.counts(&[(NeighbourCount::Full, INCOMPLETE_COUNT_MAX as u64)]);
    lab.pass(RETRANS_TIME * 3 + FAILED_TIME);
    assert_eq!(lab.n.iter().count(), 0, "all are forgotten");
    // As many as may be, of whom the last one fails.
    let mut lab = Lab::new(bare());
    let reply = |n: u32| arp_frame(ArpOperation::Reply, (HOST, host(n)), ip("10.0.0.1"));
    for n in 0..ON_DEMAND_COUNT_MAX as u32 {
        lab.n.handle_want(lab.now, port, host(n));
        if n + 1 != ON_DEMAND_COUNT_MAX as u32 {
            lab.n.handle_frame(lab.now, port, &reply(n));
        }
    }
    lab.n.audit();
    lab.questions();
    let new = ON_DEMAND_COUNT_MAX as u32;
    lab.n.handle_want(lab.now, port, host(new));
    lab.counts(&[(NeighbourCount::Full, 1), (NeighbourCount::Evicted, 0)]);
    lab.pass(RETRANS_TIME * 3);
    lab.n.handle_want(lab.now, port, host(new));
    lab.counts(&[(NeighbourCount::Full, 1), (NeighbourCount::Evicted, 1)]);
    assert_eq!(lab.n.iter().count(), ON_DEMAND_COUNT_MAX);
    lab.n.handle_frame(lab.now, port, &reply(new));
    // One that has become old gives way.
    lab.pass(REACHABLE_TIME / 2 + RETRANS_TIME);
    lab.n.handle_want(lab.now, port, host(new + 1));
    lab.counts(&[(NeighbourCount::Full, 1), (NeighbourCount::Evicted, 2)]);
    lab.n.audit();
}

#[test]
fn a_new_config_keeps_what_it_can() {
    let mut lab = Lab::new(spec());
    lab.questions();
    lab.hear(0, &answer("192.0.2.254", HOST));
    lab.want(0, "192.0.2.77");
    lab.hear(0, &answer("192.0.2.77", OTHER));
    // The gateway is no route's any more, a server comes, and the config says itself where the host is.
    let mut new = spec();
    new.routes.remove(0);
    new.services[0].servers[0].addr = ip("10.0.1.9");
    lab.n.set_spec(lab.now, Arc::new(new.clone())).expect("good");
    lab.n.audit();
    let keys: Vec<_> = lab.n.iter().map(|v| (v.addr, v.permanent)).collect();
    assert_eq!(
        keys,
        [
            (ip("192.0.2.77"), false),
            (ip("fe80::fe"), true),
            (ip("10.0.0.254"), true),
            (ip("10.0.1.9"), true)
        ]
    );
    new.neighbours.push(NeighbourSpec {
        addr: ip("192.0.2.77"),
        mac: mac(9),
        port: PortId(0),
    });
    lab.n.set_spec(lab.now, Arc::new(new.clone())).expect("good");
    lab.n.audit();
    assert_eq!(lab.view(0, "192.0.2.77"), None);
    let snapshot = lab.n.snapshot().expect("good");
    assert_eq!(snapshot.next_hop(ip("192.0.2.77")).map(|h| h.mac), Ok(mac(9)));
    // A bad one changes nothing.
    let version = lab.n.version();
    new.services[0].port = 0;
    assert!(lab.n.set_spec(lab.now, Arc::new(new)).is_err());
    assert_eq!(lab.n.version(), version);
    // What is learnt is left out where the config has it, or no config may.
    let spec = spec();
    let learnt = [
        (ip("10.0.1.2"), HOST, 1),
        (ip("10.0.1.1"), HOST, 9),
        (ip("224.0.0.1"), HOST, 1),
        (ip("10.0.1.4"), MacAddr::ZERO, 1),
        (ip("10.0.1.5"), HOST, 1),
    ];
    let learnt = learnt.map(|(addr, mac, port)| NeighbourSpec {
        addr,
        mac,
        port: PortId(port),
    });
    let snapshot = Snapshot::with_neighbours(&spec, &learnt).expect("good");
    let known = |addr| snapshot.neighbour(ip(addr), PortId(1)).map(|hop| hop.mac);
    assert_eq!(known("10.0.1.2"), Some(mac(2)));
    assert_eq!(known("10.0.1.5"), Some(HOST));
    assert_eq!((known("224.0.0.1"), known("10.0.1.4")), (None, None));
}

/// A slow and obvious twin: a list of what RFC 4861 says of each neighbour.
#[derive(Clone, Debug, PartialEq)]
struct Twin {
    addr: IpAddr,
    state: &'static str,
    mac: Option<MacAddr>,
    changed: u64,
    due: u64,
    asked: u32,
}

#[derive(Clone, Debug)]
enum Op {
    Want(usize),
    /// A message of host `.0` with address `.1`: an answer to us or not, replacing or not.
    Say(usize, Option<u8>, bool, bool),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let said = (0usize..4, any::<bool>(), 0u8..3, any::<bool>(), any::<bool>());
    prop_oneof![
        2 => (0usize..4).prop_map(Op::Want),
        4 => said.prop_map(|(who, some, mac, answers, replaces)| {
            Op::Say(who, (some || who < 2).then_some(mac), answers, replaces || who < 2)
        }),
        3 => prop_oneof![Just(0u64), 0u64..1_000, Just(1_000), 0u64..40_000].prop_map(Op::Pass),
    ]
}

fn host(n: usize) -> IpAddr {
    ip(["192.0.2.70", "192.0.2.71", "2001:db8::70", "2001:db8::71"][n])
}

/// Steps the twin at `now`, and says whom it asks: at its address or all.
fn twin_ages(twins: &mut Vec<Twin>, now: u64) -> Vec<(IpAddr, Option<MacAddr>)> {
    let mut asks = Vec::new();
    twins.retain(|t| !(t.state == "failed" && t.due <= now));
    for t in twins.iter_mut().filter(|t| t.due <= now) {
        match t.state {
            "incomplete" if t.asked < 3 => {
                t.asked += 1;
                t.due = now + 1_000;
                asks.push((t.addr, None));
            }
            "probe" if t.asked < 6 => {
                t.asked += 1;
                t.due = now + 1_000;
                asks.push((t.addr, if t.asked <= 3 { t.mac } else { None }));
            }
            "reachable" => (t.state, t.due) = ("stale", now + 5_000),
            "stale" => {
                (t.state, t.due, t.asked) = ("probe", now + 1_000, 1);
                asks.push((t.addr, t.mac));
            }
            _ => (t.state, t.due, t.mac) = ("failed", now + 5_000, None),
        }
    }
    asks.sort();
    asks
}

fn twin_hears(
    t: &mut Twin,
    now: u64,
    mac: Option<MacAddr>,
    answers: bool,
    replaces: bool,
    random: &mut SplitMix,
) {
    let asking = matches!(t.state, "incomplete" | "probe");
    let mut reach = |t: &mut Twin| {
        t.state = "reachable";
        t.due = now + 15_000 + 30 * (random.next() % 1001);
    };
    match (t.mac, mac) {
        (None, None) => {}
        (None, Some(_)) => {
            (t.mac, t.changed) = (mac, now);
            if answers && asking {
                reach(t);
            } else {
                (t.state, t.due) = ("stale", now + 5_000);
            }
        }
        (Some(old), Some(new)) if old != new => {
            if !replaces {
                if t.state == "reachable" {
                    (t.state, t.due) = ("stale", now + 5_000);
                }
            } else if answers && asking {
                (t.mac, t.changed) = (mac, now);
                reach(t);
            } else if now >= t.changed + 1_000 {
                (t.mac, t.changed) = (mac, now);
                if t.state != "stale" {
                    (t.state, t.due) = ("stale", now + 5_000);
                }
            }
        }
        _ if answers && asking => reach(t),
        _ => {}
    }
}

proptest! {
    #[test]
    fn neighbours_equal_a_naive_list(ops in prop::collection::vec(op(), 1..60), seed in any::<u64>()) {
        let mut n = Neighbours::new(seed);
        let mut random = SplitMix::new(seed);
        let mut twins: Vec<Twin> = Vec::new();
        let mut now = 10_000u64;
        n.set_spec(Instant::from_millis(now), Arc::new(bare())).expect("good");
        for op in ops {
            let mut asks = Vec::new();
            let known = |twins: &[Twin]| twins.iter().filter_map(|t| Some((t.addr, t.mac?))).collect::<BTreeMap<_, _>>();
            let (before, version) = (known(&twins), n.version());
            match op {
                Op::Want(who) => {
                    let addr = host(who);
                    n.handle_want(Instant::from_millis(now), PortId(0), addr);
                    if !twins.iter().any(|t| t.addr == addr) {
                        let state = "incomplete";
                        twins.push(Twin { addr, state, mac: None, changed: now, due: now + 1_000, asked: 1 });
                        asks.push((addr, None));
                    }
                }
                Op::Say(who, with, answers, replaces) => {
                    let addr = host(who);
                    let with = with.map(mac);
                    let frame = match (addr, with) {
                        (IpAddr::V4(_), Some(mac)) if answers => answer(&format!("{addr}"), mac),
                        (IpAddr::V4(_), Some(mac)) => announcement(&format!("{addr}"), mac),
                        _ => advertisement(addr, "2001:db8::1", answers, replaces, with),
                    };
                    n.handle_frame(Instant::from_millis(now), PortId(0), &frame);
                    if let Some(t) = twins.iter_mut().find(|t| t.addr == addr) {
                        twin_hears(t, now, with, answers, replaces, &mut random);
                    }
                }
                Op::Pass(ms) => {
                    // The one is told only when it wants to be, the other every millisecond that counts.
                    let end = now + ms;
                    while let Some(due) = twins.iter().map(|t| t.due).filter(|due| *due <= end).min() {
                        prop_assert_eq!(n.poll_timeout(), Some(Instant::from_millis(due)));
                        n.handle_timeout(Instant::from_millis(due));
                        let mut asked = asked_of(&mut n);
                        asked.sort();
                        prop_assert_eq!(asked, twin_ages(&mut twins, due));
                    }
                    now = end;
                    n.handle_timeout(Instant::from_millis(now));
                }
            }
            n.audit();
            prop_assert_eq!(asked_of(&mut n), asks);
            let mut seen: Vec<_> = n.iter().map(|v| (v.addr, v.state.name(), v.mac)).collect();
            let mut want: Vec<_> = twins.iter().map(|t| (t.addr, t.state, t.mac)).collect();
            seen.sort();
            want.sort();
            prop_assert_eq!(seen, want);
            prop_assert_eq!(n.version() != version, known(&twins) != before);
        }
    }

    /// Whatever comes in, nobody is known who was not asked for, and a snapshot can be made.
    #[test]
    fn hostile_frames_make_nobody_known(
        flips in prop::collection::vec((0usize..4, any::<prop::sample::Index>(), any::<u8>()), 1..100),
        raw in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..10),
    ) {
        let mut lab = Lab::new(spec());
        let wanted: BTreeSet<_> = lab.n.iter().map(|v| (v.port, v.addr)).collect();
        let good = [
            answer("192.0.2.254", HOST),
            announcement("10.0.1.1", HOST),
            advertisement(ip("fe80::fe"), "2001:db8::1", true, true, Some(HOST)),
            announcement("fe80::fe", OTHER),
        ];
        for (which, at, value) in flips {
            let mut frame = good[which].clone();
            let at = at.index(frame.len());
            frame[at] = value;
            lab.hear((value & 1).into(), &frame);
            lab.pass(Duration::from_millis(u64::from(value) * 8));
        }
        for frame in raw {
            lab.hear(0, &frame);
        }
        let seen: BTreeSet<_> = lab.n.iter().map(|v| (v.port, v.addr)).collect();
        prop_assert_eq!(seen, wanted);
        prop_assert!(lab.n.snapshot().is_ok());
    }
}

/// Whom it asks: at which address, or all.
fn asked_of(n: &mut Neighbours) -> Vec<(IpAddr, Option<MacAddr>)> {
    let frames = core::iter::from_fn(|| n.poll_transmit());
    frames
        .map(|(_, frame)| {
            let target = match frame[12..14] {
                [8, 6] => IpAddr::V4(Ipv4Addr::new(frame[38], frame[39], frame[40], frame[41])),
                _ => IpAddr::V6(Ipv6Addr::from_octets(frame[62..78].try_into().expect("16 bytes"))),
            };
            let to = asked_at(&frame);
            (target, (!to.is_multicast()).then_some(to))
        })
        .collect()
}
