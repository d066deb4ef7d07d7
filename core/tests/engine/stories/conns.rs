//! The table at its bounds, and bursts that change it under their own feet.

use std::net::{IpAddr, SocketAddr};

use evenkeel_core::conn::TableSizes;
use evenkeel_core::port::{HeapFrame, PortId};
use evenkeel_core::service::{RealServerId, ServerSpec};
use evenkeel_core::stats::DropReason;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::{Command, CommandError, Event, Verdict};

use crate::packet::{ACK, Packet, RST, SYN};
use crate::story::{Flow, KINDS, Kind, Lab, Want, first, ip, kinds_and_protos, packet, snapshot, syn};

/// A slab is full: named, counted, nobody else is disturbed, and the other slab has room.
#[test]
fn full_slab_is_a_named_refusal() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::with(|c| {
            c.sizes = TableSizes {
                conns_v4: 10,
                conns_v6: 10,
                exts: 0,
            }
        });
        let flows: Vec<_> = (0..10).map(|n| lab.open(kind, proto, n)).collect();
        let late = first(proto, kind.client(10), kind.vip(proto));
        for _ in 0..3 {
            lab.check(&late, Want::Drop(DropReason::ConnTableFull), "");
        }
        undisturbed(&mut lab, &flows);
        let other = if kind == Kind::V4 { Kind::V6 } else { Kind::V4 };
        lab.open(other, proto, 11);
        // One that expires makes room for one.
        lab.pass(std::time::Duration::from_secs(300));
        lab.expire();
        assert!(lab.workers[0].table().is_empty());
        lab.open(kind, proto, 10);
        lab.audit();
    }
}

/// Retransmissions of both sides go through as before.
#[track_caller]
fn undisturbed(lab: &mut Lab, flows: &[Flow]) {
    for flow in flows {
        let again = first(flow.proto, flow.client, flow.vip);
        lab.check(&again, Want::Inbound(flow), "");
    }
    lab.audit();
}

/// A lab whose index refuses the returned SYN. Tables are sized so that slabs are full before the index
/// is: only in a tiny one and with a bad seed it comes to this, and such a one is looked for.
pub(super) fn full_index_lab() -> (Lab, Packet) {
    for seed in 0..200_000 {
        let mut lab = Lab::with(|c| {
            c.seed = seed;
            c.spec.services.truncate(1);
            c.sizes = TableSizes {
                conns_v4: 6,
                conns_v6: 0,
                exts: 0,
            }
        });
        for n in 0..6 {
            let given = syn(Kind::V4.client(n), Kind::V4.vip(L4Proto::Tcp));
            let mut frames = [HeapFrame::new(PortId(0), &given.bytes())];
            lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
            if lab.verdicts.as_slice() == [Verdict::Drop(DropReason::IndexFull)] {
                return (lab, given);
            }
        }
    }
    panic!("no seed fills the index of a tiny table");
}

#[test]
fn full_index_is_a_named_refusal() {
    let (mut lab, late) = full_index_lab();
    let flows: Vec<_> = lab.workers[0].table().iter().map(|v| Flow::of(&v)).collect();
    assert!(!flows.is_empty(), "some conns are there");
    assert!(flows.len() < 6, "and a place of the slab is free");
    let before = lab.counters().opened;
    lab.check(&late, Want::Drop(DropReason::IndexFull), "");
    assert_eq!(lab.counters().opened, before);
    undisturbed(&mut lab, &flows);
    lab.pass(std::time::Duration::from_secs(30));
    lab.expire();
    lab.open_at(Kind::V4.service(L4Proto::Tcp), &late);
}

/// One LIP, one server, 256 buckets: 256 ports a class. All of them are used, none twice, then it is
/// `NoLocalPort`; and what expires can be used again.
#[test]
fn full_port_class_is_a_named_refusal() {
    for kind in KINDS {
        let mut lab = Lab::with(|c| {
            c.buckets = 256;
            c.local_port_min = 1;
            c.spec.services.retain(|s| s.id == kind.service(L4Proto::Tcp));
            c.spec.services[0].servers.truncate(1);
            c.spec.services[0].local_addrs.truncate(1);
        });
        let vip = kind.vip(L4Proto::Tcp);
        // Clients whose packets fall into one bucket.
        let in_bucket: Vec<_> = (0..400_000)
            .map(|n| kind.client(n))
            .filter(|c| lab.bucket(*c, vip) == 17)
            .take(800)
            .collect();
        assert_eq!(in_bucket.len(), 800);
        let service = &lab.spec.services[0];
        let server = std::net::SocketAddr::new(service.servers[0].addr, service.servers[0].port);
        let class = lab.steering.class_for(server, service.local_addrs[0], 17);
        // Port 0 is in one of the 256 classes.
        let usable = (0..256).filter(|i| class.port(*i) != 0).count();
        assert!(usable >= 255);
        let mut flows = Vec::new();
        let mut refused = 0;
        let mut clients = in_bucket.iter();
        while flows.len() < usable {
            let given = syn(*clients.next().expect("clients enough"), vip);
            refused += usize::from(attempt(&mut lab, &given).map(|f| flows.push(f)).is_none());
        }
        let mut ports: Vec<_> = flows.iter().map(|f| f.local.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), usable, "every port of the class, none twice");
        assert!(refused < 256, "{refused} were refused on the way");

        // Eight ports are probed, all taken.
        let late = syn(*clients.next().expect("a client"), vip);
        for _ in 0..40 {
            let drop = Want::Drop(DropReason::NoLocalPort);
            lab.check(&late, drop, "port_probes_taken+8");
        }
        undisturbed(&mut lab, &flows);
        // Another bucket has a class of its own.
        let elsewhere = (0..1000)
            .map(|n| kind.client(n))
            .find(|c| lab.bucket(*c, vip) == 18);
        assert!(attempt(&mut lab, &syn(elsewhere.expect("a client"), vip)).is_some());

        lab.pass(std::time::Duration::from_secs(30));
        lab.expire();
        assert!(attempt(&mut lab, &late).is_some());
        lab.audit();
    }
}

/// Conns that live on, as those in TIME_WAIT do: until three in five local ends are in use hardly a port is looked at that is
/// taken, however the numbers of LIPs and servers stand to each other.
#[test]
fn ports_are_found_at_the_first_look() {
    let vip = Kind::V4.vip(L4Proto::Tcp);
    let clients: Vec<_> = (0..1_500_000).map(|n| Kind::V4.client(n)).collect();
    for (local_addrs, servers) in [(1, 1), (1, 4), (2, 2), (2, 3), (3, 3), (4, 4), (5, 4), (8, 4)] {
        let mut lab = Lab::with(|c| {
            c.buckets = 256;
            c.sizes.conns_v4 = 8_192;
            c.spec.services.retain(|s| s.id == Kind::V4.service(L4Proto::Tcp));
            let service = &mut c.spec.services[0];
            let of = |n: usize| ip(&format!("10.0.2.{}", n + 1));
            service.local_addrs = (0..local_addrs).map(of).collect();
            let server = service.servers[0].clone();
            service.servers = (0..servers)
                .map(|n| ServerSpec {
                    id: RealServerId(n),
                    port: server.port + n,
                    ..server.clone()
                })
                .collect();
        });
        let local_ends = 252 * local_addrs * usize::from(servers);
        let wanted = local_ends * 3 / 5;
        let in_bucket = clients.iter().filter(|c| lab.bucket(**c, vip) == 17);
        let given: Vec<_> = in_bucket.take(wanted).map(|c| syn(*c, vip)).collect();
        assert_eq!(given.len(), wanted, "clients enough");
        let mut ends: Vec<_> = given
            .iter()
            .map(|given| attempt(&mut lab, given).expect("a port is free"))
            .map(|flow| (flow.server, flow.local))
            .collect();
        ends.sort_unstable();
        ends.dedup();
        assert_eq!(ends.len(), wanted, "none twice");
        let taken = lab.counters().port_probes_taken;
        assert!(
            taken <= wanted as u64 / 20,
            "{local_addrs} LIPs, {servers} servers: {taken} ports were taken before {wanted} were found"
        );
    }
}

/// A service with one or more servers and some LIPs whose classes have 16 usable ports each, and the first flow of
/// one bucket. Sessions of another node can take ports away without moving on where ports are looked for.
struct Crowded {
    lab: Lab,
    kind: Kind,
    clients: Vec<SocketAddr>,
    flow: Flow,
}

const CROWDED_BUCKET: u16 = 17;

impl Crowded {
    fn new(kind: Kind, servers: usize, local_addr_count: u16) -> Self {
        let v4 = kind.servers_are_v4();
        let mut lab = Lab::with(|c| {
            c.buckets = 256;
            c.local_port_min = 0xf000;
            c.spec.services.retain(|s| s.id == kind.service(L4Proto::Tcp));
            c.spec.services[0].servers.truncate(servers);
            c.spec.services[0].local_addrs = (1..=local_addr_count)
                .map(|n| {
                    ip(&if v4 {
                        format!("10.0.2.{n}")
                    } else {
                        format!("fd00::2:{n}")
                    })
                })
                .collect();
        });
        let vip = kind.vip(L4Proto::Tcp);
        let mut clients: Vec<_> = (0..200_000)
            .map(|n| kind.client(n))
            .filter(|c| lab.bucket(*c, vip) == CROWDED_BUCKET)
            .take(200)
            .collect();
        assert_eq!(clients.len(), 200);
        let first = clients.pop().expect("a client");
        let flow = lab.open_at(kind.service(L4Proto::Tcp), &syn(first, vip));
        Crowded {
            lab,
            kind,
            clients,
            flow,
        }
    }

    fn syn(&mut self) -> Packet {
        syn(self.clients.pop().expect("clients enough"), self.flow.vip)
    }

    /// The LIP that is `n` places behind that of the first flow.
    fn local_addr(&self, n: usize) -> IpAddr {
        let all = &self.lab.spec.services[0].local_addrs;
        let first = all
            .iter()
            .position(|a| *a == self.flow.local.ip())
            .expect("a LIP");
        all[(first + n) % all.len()]
    }

    /// Takes every usable port of `addr` towards `server`.
    fn fill(&mut self, server: SocketAddr, addr: IpAddr) {
        let class = self.lab.steering.class_for(server, addr, CROWDED_BUCKET);
        let ports: Vec<_> = (0..class.len())
            .map(|i| class.port(i))
            .filter(|p| *p >= 0xf000)
            .collect();
        assert_eq!(ports.len(), 16);
        let (view, _) = self.lab.workers[0]
            .conn(&self.flow.inbound().tuple())
            .expect("the first flow");
        let mut record = self.lab.workers[0].session(view.id).expect("its session");
        for port in ports {
            let local = SocketAddr::new(addr, port);
            if (server, local) == (self.flow.server, self.flow.local) {
                continue;
            }
            record.conn.client = self.clients.pop().expect("clients enough");
            (record.conn.server, record.conn.local) = (server, local);
            self.lab.workers[0]
                .handle_command(self.lab.now, Command::Install(Box::new(record)))
                .expect("room for it");
        }
    }
}

/// Six LIPs whose ports are all taken: 8 ports on each of 4 of them are looked at, no more and no fewer.
#[test]
fn full_port_class_on_four_of_six_local_addresses() {
    for kind in KINDS {
        let mut c = Crowded::new(kind, 1, 6);
        for n in 0..6 {
            c.fill(c.flow.server, c.local_addr(n));
        }
        for _ in 0..20 {
            let late = c.syn();
            let drop = Want::Drop(DropReason::NoLocalPort);
            c.lab.check(&late, drop, "port_probes_taken+32");
            assert_eq!(c.lab.conn(&late.tuple()), None);
        }
        c.lab.audit();
    }
}

/// The fourth LIP that is tried has free ports: one of them is found. The fifth is not tried.
#[test]
fn full_port_class_on_all_local_addresses_but_one() {
    for kind in KINDS {
        for free in 0..6 {
            // The conn behind the first one begins at the next LIP.
            let mut c = Crowded::new(kind, 1, 6);
            for n in (0..6).filter(|n| *n != free) {
                c.fill(c.flow.server, c.local_addr(1 + n));
            }
            let given = c.syn();
            if free >= 4 {
                let drop = Want::Drop(DropReason::NoLocalPort);
                c.lab.check(&given, drop, "port_probes_taken+32");
                continue;
            }
            let moved = format!("opened+1 SYN_RECV+1 port_probes_taken+{}", 8 * free);
            let seen = c
                .lab
                .check(&given, Want::Opens(c.kind.service(L4Proto::Tcp)), &moved);
            assert_eq!(seen.packet.expect("forwarded").src.ip(), c.local_addr(1 + free));
        }
    }
}

/// No port is free towards the server whose turn it is: the next SYN is another server's.
#[test]
fn full_port_class_towards_one_server_does_not_keep_the_turn() {
    for kind in KINDS {
        let mut c = Crowded::new(kind, 2, 1);
        let servers = c.lab.spec.services[0].servers.clone();
        let end = |s: &ServerSpec| SocketAddr::new(s.addr, s.port);
        let next = servers.iter().map(end).find(|s| *s != c.flow.server);
        let next = next.expect("two servers");
        c.fill(next, c.flow.local.ip());
        for _ in 0..3 {
            let refused = c.syn();
            let drop = Want::Drop(DropReason::NoLocalPort);
            c.lab.check(&refused, drop, "port_probes_taken+8");
            let given = c.syn();
            assert!(attempt(&mut c.lab, &given).is_some_and(|f| f.server == c.flow.server));
        }
        c.lab.audit();
    }
}

/// Opens a connection, or is refused for want of a local port.
fn attempt(lab: &mut Lab, given: &Packet) -> Option<Flow> {
    let mut frames = [HeapFrame::new(PortId(0), &given.bytes())];
    lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
    match lab.verdicts.as_slice()[0] {
        Verdict::Tx(_) => lab.conn(&given.tuple()).map(|v| Flow::of(&v)),
        Verdict::Drop(DropReason::NoLocalPort) => None,
        other => panic!("{other:?}"),
    }
}

/// Ports below the minimum are never used.
#[test]
fn low_ports_are_not_used() {
    for kind in KINDS {
        let mut lab = Lab::with(|c| c.local_port_min = 50_000);
        for n in 0..300 {
            assert!(lab.open(kind, L4Proto::Tcp, n).local.port() >= 50_000);
        }
    }
}

/// 32 SYNs of one client in one burst, as of one that is impatient: one conn, one server.
#[test]
fn two_syns_in_one_burst_open_one_conn() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        let given = first(proto, kind.client(0), kind.vip(proto));
        let mut frames = vec![HeapFrame::new(PortId(0), &given.bytes()); 32];
        lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
        assert!(
            lab.verdicts
                .as_slice()
                .iter()
                .all(|v| *v == Verdict::Tx(PortId(1)))
        );
        let bytes: Vec<_> = frames.iter().map(evenkeel_core::port::Frame::data).collect();
        assert!(bytes.windows(2).all(|w| w[0] == w[1]), "all went the same way");
        assert_eq!(lab.counters().opened, 1);
        assert_eq!(lab.workers[0].table().len(), 1);
        lab.audit();
    }
}

/// A reset, and behind it in the same burst the client's next connection on the same tuple.
#[test]
fn a_conn_that_is_replaced_within_a_burst() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        let packets = [
            flow.inbound(),
            flow.outbound().flags(RST | ACK),
            syn(flow.client, flow.vip),
            flow.outbound(),
            flow.inbound().flags(ACK),
            syn(flow.client, flow.vip),
        ];
        let mut frames: Vec<_> = packets
            .iter()
            .map(|p| HeapFrame::new(PortId(p.port), &p.bytes()))
            .collect();
        lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
        let [a, b, c, d, e, f] = lab.verdicts.as_slice() else {
            panic!("six verdicts");
        };
        assert_eq!([a, c, e, f], [&Verdict::Tx(PortId(1)); 4]);
        assert_eq!(*b, Verdict::Tx(PortId(0)));
        assert_eq!(
            *d,
            Verdict::Drop(DropReason::NoConn),
            "the old outbound tuple is gone"
        );
        let new = Flow::of(&lab.conn(&flow.inbound().tuple()).expect("the new conn"));
        assert_ne!((new.server, new.local), (flow.server, flow.local));
        assert_eq!((lab.counters().opened, lab.counters().removed), (2, 1));
        lab.audit();
    }
}

/// More frames than a burst inside: the same as many bursts.
#[test]
fn bursts_of_any_length() {
    for len in [0, 1, 31, 32, 33, 100] {
        let mut lab = Lab::new();
        let mut frames: Vec<_> = (0..len)
            .map(|n| syn(Kind::V6.client(n), Kind::V6.vip(L4Proto::Tcp)))
            .map(|p| HeapFrame::new(PortId(0), &p.bytes()))
            .collect();
        lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
        assert_eq!(lab.verdicts.as_slice().len(), len as usize);
        assert_eq!(lab.counters().opened, u64::from(len));
        lab.audit();
    }
}

/// The last holder of an old snapshot is whoever polls events; who does not poll is refused, named.
#[test]
fn snapshots_come_back_as_events() {
    let mut lab = Lab::new();
    let flow = lab.establish(Kind::V4, 0);
    let worker = &mut lab.workers[0];
    let (mut released, mut set) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        loop {
            let new = snapshot(&lab.spec);
            match worker.handle_command(lab.now, Command::SetSnapshot(new.clone())) {
                Ok(()) => set.push(new),
                Err(e) => {
                    assert_eq!(e, CommandError::EventsFull);
                    assert_eq!(e.to_string(), "events wait to be polled");
                    assert!(std::sync::Arc::ptr_eq(
                        worker.snapshot(),
                        set.last().expect("one was set")
                    ));
                    break;
                }
            }
            assert!(set.len() < 1000, "bounded");
        }
        while let Some(Event::SnapshotReleased(old)) = worker.poll_event() {
            released.push(old);
        }
    }
    assert_eq!(set.len(), 3 * 8);
    assert_eq!(released.len(), set.len());
    for (old, was) in released[1..].iter().zip(&set) {
        assert!(std::sync::Arc::ptr_eq(old, was), "in order, each once");
    }
    drop(released);
    for old in &set[..set.len() - 1] {
        assert_eq!(
            std::sync::Arc::strong_count(old),
            1,
            "the worker holds none of them"
        );
    }
    lab.check(&flow.inbound(), Want::Inbound(&flow), "");
}

/// Services come and go while connections stay: ids are places.
#[test]
fn a_reload_with_more_services() {
    let mut lab = Lab::with(|c| c.spec.services.truncate(1));
    let flow = lab.establish(Kind::V4, 0);
    lab.reload(|s| s.services = crate::story::spec().services);
    let other = lab.establish(Kind::Nat46, 0);
    lab.check(&flow.inbound(), Want::Inbound(&flow), "");
    lab.reload(|s| s.services.truncate(1));
    lab.check(&other.inbound(), Want::Inbound(&other), "");
    let given = packet(L4Proto::Tcp, Kind::Nat46.client(1), other.vip).flags(SYN);
    lab.check(&given, Want::Drop(DropReason::NotOurs), "");
    lab.audit();
}
