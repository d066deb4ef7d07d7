//! The flyweight tier: beside smoltcp's, and alone.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_core::tuple::L4Proto;
use evenkeel_core::wire::MacAddr;
use evenkeel_io_sim::{
    BrokenWhy, Direction, End, Faults, FlowEnd, FlowId, FlowSpec, FlowState, HostId, HostSpec, Instant,
    Keepalive, LinkId, LinkSpec, Place, Ppm, ServerSpec, Tap, TcpProfile, Tier, World,
};

use crate::balanced::check;
use crate::build::{Site, VIPS, end, ip};

const TIERS: [Tier; 3] = [Tier::Smoltcp, Tier::Flyweight, Tier::Sampled(2)];

/// All pairs but that of smoltcp with itself.
fn pairs() -> impl Iterator<Item = (Tier, Tier)> {
    let pairs = TIERS.into_iter().flat_map(|a| TIERS.map(|b| (a, b)));
    pairs.filter(|pair| *pair != (Tier::Smoltcp, Tier::Smoltcp))
}

#[test]
fn every_pair_of_tiers_understands_each_other() {
    for (client, server) in pairs() {
        let mut site = Site::tiers(1, LinkSpec::default(), client, server);
        for n in 0..9 {
            let mut flow = site.flow(VIPS[n % 3]);
            (flow.requests, flow.request_len, flow.reply_len) = (10, 300, 5_000);
            flow.gap = Duration::from_millis(50);
            site.world.open(flow).expect("right");
        }
        site.world.run_until(Instant::from_millis(20_000));
        for record in site.world.flows() {
            assert_eq!(
                (record.state, record.broken),
                (FlowState::Closed, None),
                "{client:?} {server:?}: {record:?}"
            );
            assert_eq!((record.requested, record.replied), (10, 10));
            assert_eq!(
                (record.client_bytes, record.server_bytes),
                (16 + 50_000, 24 + 3_000)
            );
            assert!(record.server.is_some_and(|n| (1..=3).contains(&n)));
            assert!(record.longest_stall < Duration::from_millis(20), "{record:?}");
        }
        check(&site.world);
        // Nobody remembers them in the end.
        site.world.run_until(Instant::from_millis(90_000));
        assert_eq!(
            site.world.host_conns(site.client),
            Some(0),
            "{client:?} {server:?}"
        );
    }
}

#[test]
fn bytes_are_right_in_every_pair_whatever_the_links_do() {
    let link = LinkSpec {
        jitter: Duration::from_micros(200),
        ..LinkSpec::default()
    }
    .with_faults(Faults {
        loss: Ppm(20_000),
        copies: 2,
        duplication: Ppm(20_000),
        reordering: Ppm(50_000),
        reorder_by: Duration::from_millis(3),
        ..Faults::default()
    });
    for (client, server) in pairs() {
        let mut site = Site::tiers(3, link, client, server);
        for n in 0..30 {
            let mut flow = site.flow(VIPS[n % 3]);
            (flow.requests, flow.request_len, flow.reply_len) = (20, 2_000, 14_000);
            flow.start = Instant::from_millis(n as u64);
            flow.give_up = Duration::from_secs(120);
            site.world.open(flow).expect("right");
        }
        site.world.run_until(Instant::from_millis(600_000));
        for record in site.world.flows() {
            assert_eq!(
                (record.replied, record.broken),
                (20, None),
                "{client:?} {server:?}: {record:?}"
            );
            assert_eq!(record.client_bytes, 16 + 20 * 14_000);
            assert_eq!(record.server_bytes, 24 + 20 * 2_000);
            assert_eq!(
                record.state,
                FlowState::Closed,
                "{client:?} {server:?}: {record:?}"
            );
        }
        check(&site.world);
    }
}

#[test]
fn the_same_seed_gives_the_same_digest_in_both_tiers() {
    let digest = |client, server| {
        let mut site = Site::tiers(7, LinkSpec::default(), client, server);
        for n in 0..30 {
            let mut flow = site.flow(VIPS[n % 3]);
            flow.gap_jitter = Duration::from_millis(5);
            site.world.open(flow).expect("right");
        }
        site.world.run_until(Instant::from_millis(5_000));
        site.world.digest()
    };
    let all: Vec<_> = pairs().map(|(client, server)| digest(client, server)).collect();
    let again: Vec<_> = pairs().map(|(client, server)| digest(client, server)).collect();
    assert_eq!(all, again);
    assert_ne!(
        digest(Tier::Smoltcp, Tier::Smoltcp),
        digest(Tier::Flyweight, Tier::Flyweight)
    );
}

/// Two hosts on a link, which can be cut: a client, and a server of one port.
struct Pair {
    world: World,
    client: HostId,
    server: HostId,
    link: LinkId,
    seen: Rc<RefCell<Vec<Seen>>>,
}

/// A TCP segment that a host sent: when, who, flags, and bytes of data.
type Seen = (Instant, HostId, u8, usize);

struct Looks(Rc<RefCell<Vec<Seen>>>);

impl Tap for Looks {
    fn frame(&mut self, now: Instant, at: Place, direction: Direction, data: &[u8]) {
        let evenkeel_io_sim::Owner::Host(host) = at.owner else {
            return;
        };
        if direction == Direction::Out && data.len() >= 54 && data[12..14] == [8, 0] && data[23] == 6 {
            let header = 14 + 20 + usize::from(data[46] >> 4) * 4;
            self.0
                .borrow_mut()
                .push((now, host, data[47], data.len() - header));
        }
    }
}

const SERVER: &str = "10.0.0.2:80";

impl Pair {
    fn new(tcp: TcpProfile, tier: Tier) -> Pair {
        let mut world = World::new(1);
        let mut host = |n: u8| {
            let addr = (ip(&format!("10.0.0.{n}")), 24);
            let mut host = HostSpec::new(format!("h{n}"), MacAddr([2, 0, 0, 0, 0, n]), vec![addr]);
            (host.client_tier, host.server_tier, host.tcp) = (tier, tier, tcp);
            host.conn_count_max = 4;
            // Whatever is cut: they do not forget each other.
            host.neighbour_lifetime = Duration::from_secs(1_000_000);
            world.add_host(host).expect("room")
        };
        let (client, server) = (host(1), host(2));
        let link = world
            .connect(End::Host(client), End::Host(server), LinkSpec::default())
            .expect("free");
        let served = ServerSpec {
            number: 5,
            proto: L4Proto::Tcp,
            addr: end(SERVER),
        };
        world.serve(server, served).expect("its address");
        let seen = Rc::<RefCell<Vec<Seen>>>::default();
        world.add_tap(Box::new(Looks(seen.clone())));
        // Both know each other: what follows is TCP's.
        world.announce(client, ip("10.0.0.1")).expect("its address");
        world.announce(server, ip("10.0.0.2")).expect("its address");
        let mut pair = Pair {
            world,
            client,
            server,
            link,
            seen,
        };
        let warm = pair.flow(|_| {});
        pair.until(100_000);
        assert_eq!(pair.state(warm), (FlowState::Closed, None));
        pair.seen.borrow_mut().clear();
        pair
    }

    fn flow(&mut self, change: impl FnOnce(&mut FlowSpec)) -> FlowId {
        let target: SocketAddr = end(SERVER);
        let mut flow = FlowSpec::tcp(self.client, ip("10.0.0.1"), target);
        flow.start = self.world.now();
        flow.give_up = Duration::from_secs(100_000);
        change(&mut flow);
        self.world.open(flow).expect("right")
    }

    fn until(&mut self, ms: u64) {
        self.world.run_until(Instant::from_millis(ms));
    }

    /// From the client to the server, and back.
    fn cut(&mut self, cut: [bool; 2]) {
        let faults = cut.map(|cut| Faults {
            cut,
            ..Faults::default()
        });
        self.world.set_faults(self.link, faults).expect("it is there");
    }

    fn state(&self, flow: FlowId) -> (FlowState, Option<BrokenWhy>) {
        let record = self.world.flow(flow).expect("it was opened");
        (record.state, record.broken)
    }

    /// Milliseconds from one to the next of what `host` sent with this flag.
    fn gaps(&self, host: HostId, flag: u8) -> Vec<u64> {
        let seen = self.seen.borrow();
        let times = seen.iter().filter(|s| s.1 == host && s.2 & flag != 0);
        let times: Vec<_> = times.map(|s| s.0.as_nanos()).collect();
        times
            .windows(2)
            .map(|w| (w[1] - w[0] + 500_000) / 1_000_000)
            .collect()
    }
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;

#[test]
fn a_syn_is_repeated_as_linux_does_and_then_given_up() {
    let mut pair = Pair::new(TcpProfile::default(), Tier::Flyweight);
    pair.cut([true; 2]);
    let flow = pair.flow(|_| {});
    pair.until(100_000 + 130_999);
    assert_eq!(pair.state(flow), (FlowState::Opening, None));
    assert_eq!(
        pair.gaps(pair.client, SYN),
        [
            1_000, 1_000, 1_000, 1_000, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000
        ]
    );
    pair.until(100_000 + 131_001);
    assert_eq!(pair.state(flow), (FlowState::Broken, Some(BrokenWhy::GaveUp)));
    assert_eq!(pair.world.host_conns(pair.client), Some(0));

    // As before Linux 6.5.
    let old = TcpProfile {
        syn_linear: 0,
        ..TcpProfile::default()
    };
    let mut pair = Pair::new(old, Tier::Flyweight);
    pair.cut([true; 2]);
    let flow = pair.flow(|_| {});
    pair.until(100_000 + 127_001);
    assert_eq!(
        pair.gaps(pair.client, SYN),
        [1_000, 2_000, 4_000, 8_000, 16_000, 32_000]
    );
    assert_eq!(pair.state(flow), (FlowState::Broken, Some(BrokenWhy::GaveUp)));
}

#[test]
fn a_syn_ack_is_repeated_and_then_forgotten() {
    let mut pair = Pair::new(TcpProfile::default(), Tier::Flyweight);
    pair.cut([false, true]);
    // One SYN alone: a client that gives up before the second one.
    pair.flow(|flow| flow.give_up = Duration::from_millis(500));
    pair.until(100_000 + 62_999);
    assert_eq!(pair.gaps(pair.server, SYN), [1_000, 2_000, 4_000, 8_000, 16_000]);
    assert_eq!(pair.world.host_conns(pair.server), Some(1));
    pair.until(100_000 + 63_001);
    assert_eq!(pair.world.host_conns(pair.server), Some(0));
}

#[test]
fn data_is_repeated_with_doubled_distances_up_to_two_minutes_for_a_quarter_of_an_hour() {
    for tail_loss_probe in [true, false] {
        let tcp = TcpProfile {
            tail_loss_probe,
            ..TcpProfile::default()
        };
        let mut pair = Pair::new(tcp, Tier::Flyweight);
        let flow = pair.flow(|flow| (flow.requests, flow.gap) = (2, Duration::from_secs(10)));
        pair.until(105_000);
        assert_eq!(pair.state(flow), (FlowState::Open, None));
        pair.seen.borrow_mut().clear();
        pair.cut([true; 2]);
        pair.until(2_000_000);
        let mut expected: Vec<u64> = (0..10).map(|n| 204 << n).collect();
        expected.extend([120_000; 7]);
        if tail_loss_probe {
            // The probe comes first, and doubles nothing.
            expected.insert(0, 204);
        }
        let gaps = pair.gaps(pair.client, PSH);
        // A round trip is added, and doubled with the rest.
        let near = |(gap, expected): (&u64, &u64)| gap.abs_diff(*expected) * 1_000 <= *expected;
        assert!(
            gaps.len() > 11 && gaps.iter().zip(&expected).take(11).all(near),
            "{gaps:?}"
        );
        // 924.6 s from the first repetition on, by tcp_retries2.
        let all: u64 = gaps[1 + usize::from(tail_loss_probe)..].iter().sum();
        assert!((804_600..924_600).contains(&all), "{all} of {gaps:?}");
        assert!(gaps[11..].iter().all(|&gap| gap <= 120_000), "{gaps:?}");
        assert_eq!(pair.state(flow), (FlowState::Broken, Some(BrokenWhy::GaveUp)));
    }
}

#[test]
fn what_was_lost_comes_when_the_link_is_whole_again() {
    for tier in [Tier::Flyweight, Tier::Smoltcp] {
        let mut pair = Pair::new(TcpProfile::default(), tier);
        let flow = pair.flow(|flow| {
            (flow.requests, flow.gap) = (2, Duration::from_secs(1));
            (flow.request_len, flow.reply_len) = (9_000, 30_000);
        });
        pair.until(100_500);
        pair.cut([true; 2]);
        pair.until(103_000);
        pair.cut([false; 2]);
        pair.until(115_000);
        let record = pair.world.flow(flow).expect("it was opened");
        assert_eq!(
            (record.state, record.replied),
            (FlowState::Closed, 2),
            "{tier:?}: {record:?}"
        );
        // The timeout that runs when the link comes back is the flyweight's fourth: after 204, 408, 816 and 1,632 ms.
        let stall = record.longest_stall.as_millis();
        let most = if tier == Tier::Flyweight { 3_400 } else { 8_000 };
        assert!((2_000..most).contains(&stall), "{tier:?}: {stall} ms");
    }
}

#[test]
fn a_fin_is_repeated_and_its_flow_given_up() {
    let mut pair = Pair::new(TcpProfile::default(), Tier::Flyweight);
    let flow = pair.flow(|flow| {
        flow.requests = u32::MAX;
        flow.gap = Duration::from_secs(1_000);
        flow.until = Some(Instant::from_millis(110_000));
        flow.give_up = Duration::from_secs(20);
    });
    pair.until(105_000);
    pair.cut([true; 2]);
    pair.seen.borrow_mut().clear();
    pair.until(129_999);
    assert_eq!(pair.state(flow), (FlowState::Closing, None));
    assert_eq!(
        pair.gaps(pair.client, FIN),
        [204, 204, 408, 816, 1_632, 3_264, 6_528]
    );
    pair.until(130_001);
    assert_eq!(pair.state(flow), (FlowState::Broken, Some(BrokenWhy::GaveUp)));
}

#[test]
fn keepalive_ends_what_has_vanished_and_nothing_else() {
    let tcp = TcpProfile {
        keepalive: Some(Keepalive {
            time: Duration::from_secs(10),
            interval: Duration::from_secs(2),
            probes: 3,
        }),
        ..TcpProfile::default()
    };
    let mut pair = Pair::new(tcp, Tier::Flyweight);
    let stays = pair.flow(|flow| flow.end = FlowEnd::Stay);
    pair.until(130_000);
    assert_eq!(pair.state(stays), (FlowState::Open, None));
    assert_eq!(pair.world.host_conns(pair.server), Some(1), "who answers stays");

    pair.seen.borrow_mut().clear();
    // It has acknowledged the reply when it vanishes: nothing is under way.
    let vanishes = pair.flow(|flow| (flow.end, flow.gap) = (FlowEnd::Vanish, Duration::from_millis(500)));
    pair.until(130_999);
    assert_eq!(pair.world.flow(vanishes).map(|f| f.replied), Some(1));
    pair.until(146_499);
    assert_eq!(pair.world.host_conns(pair.server), Some(2));
    pair.until(146_510);
    assert_eq!(
        pair.world.host_conns(pair.server),
        Some(1),
        "10 s, and three times 2 s"
    );
    assert_eq!(
        pair.state(vanishes),
        (FlowState::Open, None),
        "it never heard of it"
    );
    let resets = pair.seen.borrow().iter().filter(|s| s.2 & RST != 0).count();
    assert_eq!(resets, 1, "the server's, into the void");
    check(&pair.world);
}

#[test]
fn a_client_that_vanishes_is_silent_in_both_tiers() {
    for tier in [Tier::Flyweight, Tier::Smoltcp] {
        let mut pair = Pair::new(TcpProfile::default(), tier);
        let flow = pair.flow(|flow| flow.end = FlowEnd::Vanish);
        pair.until(105_000);
        let record = pair.world.flow(flow).expect("it was opened");
        assert_eq!((record.state, record.replied), (FlowState::Open, 1), "{tier:?}");
        pair.seen.borrow_mut().clear();
        pair.until(160_000);
        let seen = pair.seen.borrow();
        assert!(seen.iter().all(|s| s.1 == pair.server), "{tier:?}: {seen:?}");
        // Its last reply was never acknowledged.
        assert!(seen.len() >= 3, "{tier:?}: {seen:?}");
    }
}

#[test]
fn flows_end_in_the_flyweight_as_they_are_told() {
    let mut site = Site::tiers(5, LinkSpec::default(), Tier::Flyweight, Tier::Flyweight);
    let mut ids = Vec::new();
    for end in [FlowEnd::Close, FlowEnd::Reset, FlowEnd::Stay, FlowEnd::Vanish] {
        let mut flow = site.flow(VIPS[0]);
        flow.end = end;
        ids.push(site.world.open(flow).expect("right"));
    }
    // Nobody listens there.
    let mut flow = site.flow("203.0.113.80:81");
    flow.give_up = Duration::from_secs(5);
    ids.push(site.world.open(flow).expect("right"));
    site.world.run_until(Instant::from_millis(20_000));
    let states: Vec<_> = ids
        .iter()
        .filter_map(|&id| site.world.flow(id))
        .map(|r| (r.state, r.broken))
        .collect();
    assert_eq!(
        states,
        [
            (FlowState::Closed, None),
            (FlowState::Closed, None),
            (FlowState::Open, None),
            (FlowState::Open, None),
            (FlowState::Broken, Some(BrokenWhy::GaveUp)),
        ]
    );
    check(&site.world);
}

#[test]
fn a_port_at_which_nobody_listens_and_a_full_server_refuse() {
    let mut pair = Pair::new(TcpProfile::default(), Tier::Flyweight);
    let closed = pair.flow(|flow| flow.target = end("10.0.0.2:81"));
    pair.until(101_000);
    assert_eq!(pair.state(closed), (FlowState::Broken, Some(BrokenWhy::Reset)));

    // Four connections, and a fifth: the client has no room for it.
    let flows: Vec<_> = (0..5)
        .map(|_| pair.flow(|flow| flow.end = FlowEnd::Stay))
        .collect();
    pair.until(102_000);
    for &flow in &flows[..4] {
        assert_eq!(pair.state(flow), (FlowState::Open, None));
    }
    assert_eq!(
        pair.state(flows[4]),
        (FlowState::Broken, Some(BrokenWhy::NotOpened))
    );
    let peak = pair.world.host_counters(pair.server).map(|c| c.conns_peak);
    assert_eq!(peak, Some(4));
}

#[test]
fn an_idle_flow_costs_no_events() {
    let mut site = Site::tiers(5, LinkSpec::default(), Tier::Flyweight, Tier::Flyweight);
    for _ in 0..200 {
        let mut flow = site.flow(VIPS[0]);
        flow.end = FlowEnd::Stay;
        site.world.open(flow).expect("right");
    }
    site.world.run_until(Instant::from_millis(20_000));
    let before = site.world.counters().events;
    site.world.run_until(Instant::from_millis(40_000));
    let events = site.world.counters().events - before;
    assert!(events < 2 * 20 + 10, "{events} events while nobody says a word");
}
