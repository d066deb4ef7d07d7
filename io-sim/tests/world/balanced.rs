//! Connections through one balancer.

use std::time::Duration;

use evenkeel_core::tuple::L4Proto;
use evenkeel_io_sim::{BrokenWhy, Faults, FlowEnd, FlowState, Instant, LinkSpec, Ppm, World};

use crate::build::{Site, UDP_VIP, VIPS, lb_spec};

/// All that must be true of a world at its end.
pub(crate) fn check(world: &World) {
    world
        .check_conservation()
        .expect("no frame is lost without a reason");
}

#[test]
fn tcp_works_over_ipv4_ipv6_and_nat64() {
    for vip in VIPS {
        let mut site = Site::new(1, lb_spec(), LinkSpec::default());
        let mut flow = site.flow(vip);
        flow.requests = 10;
        flow.request_len = 300;
        flow.reply_len = 5_000;
        flow.gap = Duration::from_millis(50);
        let id = site.world.open(flow).expect("right");
        site.world.run_until(Instant::from_millis(20_000));
        let record = site.world.flow(id).expect("it was opened");
        assert_eq!(
            (record.state, record.broken),
            (FlowState::Closed, None),
            "{vip}: {record:?}"
        );
        assert_eq!((record.requested, record.replied), (10, 10));
        assert_eq!(record.client_bytes, 16 + 10 * 5_000);
        assert_eq!(record.server_bytes, 24 + 10 * 300);
        assert!(record.server.is_some_and(|n| (1..=3).contains(&n)));
        assert!(
            record.longest_stall < Duration::from_millis(20),
            "{vip}: {record:?}"
        );
        let lb = site.world.lb(site.lb).expect("it is there");
        let opened: u64 = lb.worker_counters().iter().map(|w| w.engine.opened).sum();
        assert_eq!(opened, 1);
        check(&site.world);
    }
}

#[test]
fn udp_works_and_asks_again() {
    for loss in [0, 100_000] {
        let link = LinkSpec::default().with_faults(Faults {
            loss: Ppm(loss),
            ..Faults::default()
        });
        let mut site = Site::new(1, lb_spec(), link);
        let mut ids = Vec::new();
        for _ in 0..20 {
            let mut flow = site.flow(UDP_VIP);
            flow.proto = L4Proto::Udp;
            flow.requests = 5;
            ids.push(site.world.open(flow).expect("right"));
        }
        site.world.run_until(Instant::from_millis(60_000));
        let mut retries = 0;
        for id in ids {
            let record = site.world.flow(id).expect("it was opened");
            assert_eq!(
                (record.state, record.replied),
                (FlowState::Closed, 5),
                "{record:?}"
            );
            assert_eq!((record.client_bytes, record.server_bytes >= 500), (500, true));
            retries += record.udp_retries;
        }
        assert_eq!(retries > 0, loss > 0);
        check(&site.world);
    }
}

#[test]
fn bytes_are_right_whatever_the_links_do() {
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
    let mut site = Site::new(3, lb_spec(), link);
    for n in 0..60 {
        let mut flow = site.flow(VIPS[n % 3]);
        flow.requests = 20;
        flow.reply_len = 4_000;
        flow.request_len = 2_000;
        flow.start = Instant::from_millis(n as u64);
        flow.give_up = Duration::from_secs(120);
        site.world.open(flow).expect("right");
    }
    site.world.run_until(Instant::from_millis(600_000));
    for record in site.world.flows() {
        assert_eq!((record.replied, record.broken), (20, None), "{record:?}");
        assert_eq!(record.client_bytes, 16 + 20 * 4_000);
        assert_eq!(record.server_bytes, 24 + 20 * 2_000);
    }
    let lost: u64 = site
        .links
        .iter()
        .filter_map(|&id| site.world.link_counters(id))
        .flatten()
        .map(|c| c.lost)
        .sum();
    assert!(lost > 100, "{lost} frames were lost");
    check(&site.world);
}

#[test]
fn a_crash_without_replicas_breaks_what_is_open() {
    let mut site = Site::new(4, lb_spec(), LinkSpec::default());
    for n in 0..20 {
        let mut flow = site.flow(VIPS[n % 3]);
        flow.requests = u32::MAX;
        flow.gap = Duration::from_millis(100);
        flow.until = Some(Instant::from_millis(8_000));
        site.world.open(flow).expect("right");
    }
    let mut flow = site.flow(VIPS[0]);
    flow.start = Instant::from_millis(3_000);
    let late = site.world.open(flow).expect("right");
    site.world.run_until(Instant::from_millis(1_000));
    site.world.crash(site.lb).expect("it runs");
    site.world.run_until(Instant::from_millis(2_000));
    site.world.start(site.lb).expect("it is down");
    site.world.run_until(Instant::from_millis(60_000));
    for (n, record) in site.world.flows().iter().enumerate() {
        if n == late.0 as usize {
            assert_eq!(record.state, FlowState::Closed, "{record:?}");
        } else {
            assert_eq!(record.broken, Some(BrokenWhy::GaveUp), "{record:?}");
            assert!(record.was_established_at(Instant::from_millis(1_000)));
        }
    }
    check(&site.world);
}

#[test]
fn flows_end_as_they_are_told() {
    let mut site = Site::new(5, lb_spec(), LinkSpec::default());
    let mut ids = Vec::new();
    for end in [FlowEnd::Close, FlowEnd::Reset, FlowEnd::Stay] {
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
            (FlowState::Broken, Some(BrokenWhy::GaveUp)),
        ]
    );
    let silent = site.world.counters().events;
    site.world.run_until(Instant::from_millis(40_000));
    let events = site.world.counters().events - silent;
    assert!(
        events < 2 * 20 + 10,
        "{events} events of timers while nobody says a word"
    );
    check(&site.world);
}
