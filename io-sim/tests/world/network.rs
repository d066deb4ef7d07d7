//! The network itself, and what watches it.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_core::port::PortId;
use evenkeel_core::wire::MacAddr;
use evenkeel_io_pcap::file::{CaptureReader, PacketDirection};
use evenkeel_io_sim::{
    Direction, End, Faults, FlowState, HostId, HostSpec, Instant, LbCost, LbPort, LinkSpec, PcapTap, Place,
    Ppm, ServerSpec, SwitchSpec, Tap, Trace, TraceTap, World,
};

use crate::balanced::check;
use crate::build::{Site, VIPS, end, ip, lb_spec};

fn lossy() -> LinkSpec {
    LinkSpec {
        jitter: Duration::from_micros(50),
        ..LinkSpec::default()
    }
    .with_faults(Faults {
        loss: Ppm(10_000),
        ..Faults::default()
    })
}

/// A busy second, and what is left of it; `look`: a tap looks on.
fn run(seed: u64, look: bool) -> (u128, u64) {
    let mut site = Site::new(seed, lb_spec(), lossy());
    if look {
        site.world.add_tap(Box::new(TraceTap::new(std::io::sink())));
    }
    for n in 0..50 {
        let mut flow = site.flow(VIPS[n % 3]);
        flow.requests = 3;
        flow.gap = Duration::from_millis(10);
        flow.gap_jitter = Duration::from_millis(50);
        flow.start = Instant::from_millis(n as u64 * 7);
        site.world.open(flow).expect("right");
    }
    site.world.run_until(Instant::from_millis(500));
    site.world.crash(site.lb).expect("it is there");
    site.world.run_until(Instant::from_millis(700));
    site.world.start(site.lb).expect("it is down");
    site.world.run_until(Instant::from_millis(10_000));
    check(&site.world);
    (site.world.digest(), site.world.counters().events)
}

#[test]
fn the_same_seed_gives_the_same_digest() {
    let (digest, events) = run(1, false);
    assert!(events > 1_000, "{events} events");
    assert_eq!(run(1, false), (digest, events));
    assert_eq!(run(1, true), (digest, events), "a tap changed the world");
    assert_ne!(run(2, false).0, digest);
}

#[test]
fn full_rings_drop_and_count() {
    let mut spec = lb_spec();
    spec.rx_ring = 8;
    spec.workers = 1;
    let mut site = Site::new(1, spec, LinkSpec::default());
    for n in 0..200 {
        let mut flow = site.flow(VIPS[0]);
        // By the first one the client learns where the VIP is.
        flow.start = Instant::from_nanos(if n == 0 { 0 } else { 1_000_000_000 + n * 100 });
        site.world.open(flow).expect("right");
    }
    site.world.run_until(Instant::from_millis(1_000));
    site.world.pause(site.lb).expect("it runs");
    site.world.run_until(Instant::from_millis(1_500));
    let counters = site.world.lb(site.lb).expect("it is there").counters();
    assert_eq!(counters.rx_ring_peak, 8);
    assert_eq!(counters.rx_ring_full, 199 - 8, "{counters:?}");
    check(&site.world);
    site.world.resume(site.lb).expect("it is paused");
    site.world.run_until(Instant::from_millis(60_000));
    let closed = |s: &Site| {
        s.world
            .flows()
            .iter()
            .filter(|f| f.state == FlowState::Closed)
            .count()
    };
    assert_eq!(closed(&site), 200, "what was lost was sent again");
    check(&site.world);

    // What waits when the machine loses its power is lost, too.
    site.world.pause(site.lb).expect("it runs");
    for _ in 0..4 {
        let flow = site.flow(VIPS[0]);
        site.world.open(flow).expect("right");
    }
    site.world.run_until(Instant::from_millis(60_100));
    site.world.crash(site.lb).expect("it is there");
    site.world.run_until(Instant::from_millis(70_000));
    let counters = site.world.lb(site.lb).expect("it is there").counters();
    assert_eq!(counters.lost_in_crash, 4);
    assert!(counters.down > 4, "{counters:?}");
    check(&site.world);
}

#[test]
fn a_clock_that_stands_still_with_its_node_misses_the_time() {
    for (clock, left) in [(true, 0), (false, 5)] {
        let mut site = Site::new(1, lb_spec(), LinkSpec::default());
        for _ in 0..5 {
            let mut flow = site.flow(VIPS[0]);
            (flow.requests, flow.gap) = (1, Duration::ZERO);
            site.world.open(flow).expect("right");
        }
        let conns = |s: &Site| {
            let lb = s.world.lb(s.lb).expect("it is there");
            lb.workers().map(|w| w.table().len()).sum::<usize>()
        };
        site.world.run_until(Instant::from_millis(1_000));
        assert!(site.world.flows().iter().all(|f| f.state == FlowState::Closed));
        assert_eq!(conns(&site), 5, "closed conns wait for their timeout");
        let pause = if clock {
            World::pause
        } else {
            World::pause_with_clock
        };
        pause(&mut site.world, site.lb).expect("it runs");
        site.world.run_until(Instant::from_millis(201_000));
        site.world.resume(site.lb).expect("it is paused");
        site.world.run_until(Instant::from_millis(201_100));
        assert_eq!(conns(&site), left);
        site.world.run_until(Instant::from_millis(400_000));
        assert_eq!(conns(&site), 0);
        check(&site.world);
    }
}

/// Counts what is dropped, and remembers who received what.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<(Vec<Received>, u64)>>);

type Received = (Place, Vec<u8>);

impl Tap for Log {
    fn frame(&mut self, _: Instant, at: Place, direction: Direction, data: &[u8]) {
        if direction == Direction::In {
            self.0.borrow_mut().0.push((at, data.to_vec()));
        }
    }
    fn trace(&mut self, _: Instant, what: &Trace) {
        if let Trace::Dropped { .. } = what {
            self.0.borrow_mut().1 += 1;
        }
    }
}

fn host(world: &mut World, n: u8) -> HostId {
    let addrs = vec![(ip(&format!("10.0.0.{n}")), 24), (ip(&format!("fd00::{n}")), 64)];
    world
        .add_host(HostSpec::new(
            format!("host{n}"),
            MacAddr([2, 0, 0, 0, 0, n]),
            addrs,
        ))
        .expect("room")
}

#[test]
fn a_switch_floods_until_it_has_learnt() {
    let mut world = World::new(1);
    let switch = world
        .add_switch(SwitchSpec {
            table_len_max: 3,
            ..SwitchSpec::new("switch")
        })
        .expect("room");
    let hosts: Vec<_> = (1..=4).map(|n| host(&mut world, n)).collect();
    for &id in &hosts {
        let link = LinkSpec::default();
        world
            .connect(End::Host(id), End::Switch(switch), link)
            .expect("free");
    }
    let addr = end("10.0.0.2:7");
    let number = 1;
    let proto = evenkeel_core::tuple::L4Proto::Tcp;
    world
        .serve(hosts[1], ServerSpec { number, proto, addr })
        .expect("its address");
    let log = Log::default();
    world.add_tap(Box::new(log.clone()));
    let flow = evenkeel_io_sim::FlowSpec::tcp(hosts[0], ip("10.0.0.1"), addr);
    world.open(flow).expect("right");
    world.run_until(Instant::from_millis(20_000));
    assert_eq!(
        world.flow(evenkeel_io_sim::FlowId(0)).expect("it is there").state,
        FlowState::Closed
    );
    let c = world.switch_counters(switch).expect("it is there");
    // The one broadcast: who has 10.0.0.2.
    assert_eq!((c.flooded, c.learnt, c.filtered), (1, 2, 0), "{c:?}");
    assert_eq!(c.received, c.forwarded + 1);
    let received = |id: HostId| {
        let log = log.0.borrow();
        log.0
            .iter()
            .filter(|(at, _)| at.owner == evenkeel_io_sim::Owner::Host(id))
            .count()
    };
    assert_eq!((received(hosts[2]), received(hosts[3])), (1, 1));
    check(&world);
}

#[test]
fn a_host_obeys_those_who_say_that_they_moved() {
    for (family, own, other) in [(4, "10.0.0.1", "10.0.0.2"), (6, "fd00::1", "fd00::2")] {
        let mut site = Site::new(1, lb_spec(), LinkSpec::default());
        let world = &mut site.world;
        let switch = world.add_switch(SwitchSpec::new("switch")).expect("room");
        let hosts = [1, 2].map(|n| host(world, n));
        for id in hosts {
            world
                .connect(End::Host(id), End::Switch(switch), LinkSpec::default())
                .expect("free");
        }
        let addr = std::net::SocketAddr::new(ip(other), 7);
        let proto = evenkeel_core::tuple::L4Proto::Tcp;
        world
            .serve(
                hosts[1],
                ServerSpec {
                    number: 1,
                    proto,
                    addr,
                },
            )
            .expect("its address");
        let mut flow = evenkeel_io_sim::FlowSpec::tcp(hosts[0], ip(own), addr);
        flow.requests = u32::MAX;
        flow.gap = Duration::from_millis(100);
        flow.give_up = Duration::from_secs(3);
        world.open(flow).expect("right");
        world.run_until(Instant::from_millis(1_000));
        assert_eq!(
            world.neighbour(hosts[0], ip(other)),
            Some(MacAddr([2, 0, 0, 0, 0, 2]))
        );

        // Another machine has that address and says so: a host whose two addresses are the server's.
        let taker = world
            .add_host(HostSpec::new(
                "taker",
                MacAddr([2, 0, 0, 0, 0, 9]),
                vec![
                    (ip("10.0.0.2"), 24),
                    (ip("fd00::2"), 64),
                    (ip("10.0.0.9"), 24),
                    (ip("fd00::9"), 64),
                ],
            ))
            .expect("room");
        world
            .connect(End::Host(taker), End::Switch(switch), LinkSpec::default())
            .expect("free");
        world.announce(taker, ip(other)).expect("its address");
        world.run_until(Instant::from_millis(1_010));
        assert_eq!(
            world.neighbour(hosts[0], ip(other)),
            Some(MacAddr([2, 0, 0, 0, 0, 9])),
            "family {family}"
        );
        assert_eq!(
            world
                .host_counters(hosts[0])
                .expect("it is there")
                .neighbours_moved,
            1
        );
        // It knows nothing of the connection.
        world.run_until(Instant::from_millis(20_000));
        let record = &world.flows()[0];
        assert_eq!(
            record.broken,
            Some(evenkeel_io_sim::BrokenWhy::Reset),
            "{record:?}"
        );
        check(world);
    }
}

#[test]
fn a_cut_link_is_a_partition_and_heals() {
    let mut site = Site::new(1, lb_spec(), LinkSpec::default());
    let mut flow = site.flow(VIPS[0]);
    flow.requests = u32::MAX;
    flow.gap = Duration::from_millis(100);
    flow.until = Some(Instant::from_millis(20_000));
    let id = site.world.open(flow).expect("right");
    site.world.run_until(Instant::from_millis(5_000));
    let cut = |cut| {
        [Faults {
            cut,
            ..Faults::default()
        }; 2]
    };
    site.world
        .set_faults(site.links[0], cut(true))
        .expect("it is there");
    site.world.run_until(Instant::from_millis(9_000));
    let stalled = site.world.flow(id).expect("it is there").clone();
    assert!(
        stalled
            .awaiting_since
            .is_some_and(|at| at < Instant::from_millis(5_200))
    );
    site.world
        .set_faults(site.links[0], cut(false))
        .expect("it is there");
    site.world.run_until(Instant::from_millis(60_000));
    let record = site.world.flow(id).expect("it is there");
    assert_eq!(record.state, FlowState::Closed, "{record:?}");
    assert!(record.longest_stall > Duration::from_secs(4), "{record:?}");
    let [there, back] = site.world.link_counters(site.links[0]).expect("it is there");
    assert!(there.cut > 0 && back.cut + there.cut >= 3, "{there:?} {back:?}");
    check(&site.world);
}

#[test]
fn captures_hold_what_crossed_the_ports() {
    let folder = std::env::temp_dir().join(format!("evenkeel-io-sim-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the captures");
    let mut site = Site::new(1, lb_spec(), LinkSpec::default());
    let names = site.world.port_names();
    let log = Log::default();
    site.world.add_tap(Box::new(PcapTap::new(&folder, names.clone())));
    site.world.add_tap(Box::new(log.clone()));
    for vip in VIPS {
        let flow = site.flow(vip);
        site.world.open(flow).expect("right");
    }
    site.world.run_until(Instant::from_millis(1_000));
    site.world.finish_taps().expect("the captures are written");
    let mut compared = 0;
    for (place, name) in names {
        let path = folder.join(format!("{name}.pcapng"));
        let Ok(mut reader) = CaptureReader::open(&path) else {
            assert_eq!(name, "lb-sync", "nothing crossed {name}");
            continue;
        };
        let mut received = Vec::new();
        let mut time = 0;
        while let Some(p) = reader.next_packet().expect("a whole capture") {
            assert!(p.time_ns >= time, "{name}: time goes back");
            time = p.time_ns;
            if p.direction == PacketDirection::Received {
                received.push(p.data.to_vec());
            }
        }
        let log = log.0.borrow();
        let want: Vec<_> = log
            .0
            .iter()
            .filter(|(at, _)| *at == place)
            .map(|(_, data)| data.clone())
            .collect();
        assert_eq!(received, want, "{name}");
        compared += want.len();
    }
    assert!(compared > 50, "{compared} frames");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

#[test]
fn a_failing_tap_says_so_at_the_end() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("no room"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut site = Site::new(1, lb_spec(), LinkSpec::default());
    site.world.add_tap(Box::new(TraceTap::new(Full)));
    let flow = site.flow(VIPS[0]);
    site.world.open(flow).expect("right");
    site.world.run_until(Instant::from_millis(100));
    assert_eq!(site.world.finish_taps(), Err("no room".to_owned()));
}

#[test]
fn what_cannot_be_is_refused() {
    let mut site = Site::new(1, lb_spec(), LinkSpec::default());
    let link = LinkSpec::default();
    let to = End::Switch(site.switches[0]);
    for (from, why) in [
        (End::Host(site.client), "host 0 port 0 has a link already"),
        (End::Host(HostId(99)), "there is no host 99"),
        (
            End::Lb(site.lb, LbPort::Data(PortId(7))),
            "there is no lb 0 port 7",
        ),
    ] {
        let refused = site.world.connect(from, to, link).expect_err(why);
        assert_eq!(refused.to_string(), why);
    }
    let mut flow = site.flow(VIPS[0]);
    flow.source = end("192.0.2.1:0");
    assert_eq!(
        site.world.open(flow).expect_err("not its own").to_string(),
        "client does not have 192.0.2.1"
    );
    let mut flow = site.flow(VIPS[0]);
    flow.reply_len = 3;
    assert!(
        site.world
            .open(flow)
            .expect_err("too short")
            .to_string()
            .contains("16 bytes to 1 MiB")
    );
    assert!(
        site.world
            .start(site.lb)
            .expect_err("it runs")
            .to_string()
            .contains("lb is running")
    );
    let mut spec = lb_spec();
    spec.cost = LbCost::NONE;
    spec.workers = 0;
    assert!(
        site.world
            .add_lb(spec)
            .expect_err("none")
            .to_string()
            .contains("1 to 64 workers")
    );
}
