//! What is done to the machine of a balancer while it serves: pace, rings, clocks, disk, config, tables.

use std::time::Duration;

use evenkeel_core::stats::DropReason;
use evenkeel_io_sim::{FlowState, Instant, LbRings, LinkSpec, Ppm, SLOWNESS_MAX, WorldError};

use crate::balanced::check;
use crate::build::{Site, UDP_VIP, VIPS, lb_spec};
use crate::cluster::Cluster;

/// A site whose balancer has one worker that needs a millisecond for a frame.
fn slow_site() -> Site {
    let mut spec = lb_spec();
    spec.workers = 1;
    spec.rx_ring = 4_096;
    spec.cost.frame = Duration::from_millis(1);
    Site::new(1, spec, LinkSpec::default())
}

/// 100 datagrams at once, a second from now, and how long the last one waited for its answer.
fn burst(site: &mut Site) -> Duration {
    let first = site.world.flows().len();
    let start = site.world.now() + Duration::from_secs(1);
    for n in 0..100 {
        let mut flow = site.flow(UDP_VIP);
        (flow.proto, flow.requests) = (evenkeel_core::tuple::L4Proto::Udp, 1);
        (flow.request_len, flow.reply_len) = (100, 100);
        flow.udp_retry = Duration::from_secs(60);
        flow.start = start + Duration::from_micros(n);
        site.world.open(flow).expect("right");
    }
    site.world.run_until(start + Duration::from_secs(50));
    let flows = &site.world.flows()[first..];
    assert!(
        flows.iter().all(|f| f.state == FlowState::Closed),
        "all are answered"
    );
    flows.iter().map(|f| f.longest_stall).max().expect("flows")
}

#[test]
fn a_worker_serves_at_its_rate_and_a_slow_one_at_less() {
    let mut site = slow_site();
    let lb = site.lb;
    // A request and an answer are two frames.
    // Nobody waits for the end of the last turn.
    let about = |ms: u64, seen: Duration| {
        let seen = seen.as_millis() as u64;
        assert!(
            (ms * 3 / 4..ms * 6 / 5).contains(&seen),
            "{seen} ms, not about {ms}"
        );
    };
    about(200, burst(&mut site));
    site.world.set_slowness(lb, Some(0), 10).expect("it has a worker");
    about(2_000, burst(&mut site));
    // Both count together.
    site.world.set_slowness(lb, None, 2).expect("it is there");
    about(4_000, burst(&mut site));
    site.world.set_slowness(lb, Some(0), 1).expect("it has a worker");
    about(400, burst(&mut site));
    site.world.set_slowness(lb, None, 0).expect("it is there");
    // As ever: turns begin elsewhere in the burst.
    about(200, burst(&mut site));
    let nobody = site.world.set_slowness(lb, Some(1), 2);
    assert!(matches!(nobody, Err(WorldError::Unknown(_))), "{nobody:?}");
    // No number of it is too large for time.
    site.world.set_slowness(lb, None, u32::MAX).expect("it is there");
    site.world
        .set_slowness(lb, Some(0), SLOWNESS_MAX)
        .expect("it has a worker");
    let flow = site.flow(UDP_VIP);
    site.world.open(flow).expect("right");
    site.world.run_until(site.world.now() + Duration::from_secs(5));
    // What it had begun by then ends as soon as it is quick again.
    site.world.set_slowness(lb, None, 1).expect("it is there");
    site.world.set_slowness(lb, Some(0), 1).expect("it has a worker");
    about(200, burst(&mut site));
    check(&site.world);
}

#[test]
fn a_ring_that_holds_little_drops_the_rest_by_name() {
    let mut site = slow_site();
    let lb = site.lb;
    burst(&mut site);
    let before = site.world.lb(lb).expect("it is there").counters();
    assert!(before.rx_ring_full == 0 && before.rx_ring_peak > 50, "{before:?}");
    let usual = site.world.lb(lb).expect("it is there").rings();
    let rings = LbRings { rx: 4, ..usual };
    site.world.set_rings(lb, rings).expect("it is there");
    let start = site.world.now() + Duration::from_secs(1);
    for _ in 0..100 {
        let mut flow = site.flow(UDP_VIP);
        (flow.proto, flow.requests, flow.start) = (evenkeel_core::tuple::L4Proto::Udp, 1, start);
        site.world.open(flow).expect("right");
    }
    site.world.run_until(start + Duration::from_millis(500));
    let full = site.world.lb(lb).expect("it is there").counters();
    assert_eq!(full.rx_ring_peak, 4);
    assert!(full.rx_ring_full > 50, "{full:?}");
    site.world.set_rings(lb, usual).expect("it is there");
    site.world.run_until(start + Duration::from_secs(30));
    let after = site.world.lb(lb).expect("it is there").counters();
    let last = site.world.flows().iter().rev().take(100);
    assert!(
        last.into_iter().all(|f| f.state == FlowState::Closed),
        "clients ask again"
    );
    assert!(after.rx_ring_peak > 4);
    check(&site.world);
}

fn conns(site: &Site) -> usize {
    let lb = site.world.lb(site.lb).expect("it is there");
    lb.workers().map(|w| w.table().len()).sum()
}

#[test]
fn timers_go_by_the_clock_of_the_machine() {
    // Closed conns of TCP wait for their timeout.
    let left_at = |drift: i32, step_ms: u64, ms: u64| {
        let mut spec = lb_spec();
        spec.drift_ppm = drift;
        let mut site = Site::new(1, spec, LinkSpec::default());
        let mut flow = site.flow(VIPS[0]);
        (flow.requests, flow.gap) = (1, Duration::ZERO);
        site.world.open(flow).expect("right");
        site.world.run_until(Instant::from_millis(1_000));
        assert_eq!(
            (site.world.flows()[0].state, conns(&site)),
            (FlowState::Closed, 1)
        );
        site.world
            .step_clock(site.lb, Duration::from_millis(step_ms))
            .expect("it is there");
        site.world.run_until(Instant::from_millis(ms));
        let clock = site.world.lb(site.lb).expect("it is there").clock(&site.world);
        let passed = ms * 1_000_000_u64.saturating_add_signed(drift.into()) + step_ms * 1_000_000;
        assert_eq!(clock.as_nanos(), passed);
        check(&site.world);
        conns(&site)
    };
    let whole = (1_100..400_000)
        .step_by(100)
        .find(|&ms| left_at(0, 0, ms) == 0)
        .expect("it expires");
    assert!(whole > 2_500, "{whole} ms");
    // A fifth faster: it is over a tenth earlier at least; slower: not a tenth later.
    assert_eq!(left_at(200_000, 0, whole * 10 / 11), 0);
    assert_eq!(left_at(0, 0, whole * 10 / 11), 1);
    assert_eq!(left_at(-200_000, 0, whole * 11 / 10), 1);
    assert_eq!(left_at(-200_000, 0, whole * 14 / 10), 0);
    // The clock jumps over all of it.
    assert_eq!(left_at(0, whole, 1_100), 0);
    assert_eq!(left_at(0, whole / 2, 1_100), 1);
}

#[test]
fn a_drift_that_changes_in_the_midst_moves_what_is_planned() {
    let mut site = Site::new(1, lb_spec(), LinkSpec::default());
    let mut flow = site.flow(VIPS[0]);
    (flow.requests, flow.gap) = (1, Duration::ZERO);
    site.world.open(flow).expect("right");
    site.world.run_until(Instant::from_millis(1_000));
    for second in 1..300 {
        let drift = if second % 2 == 0 { 150_000 } else { -150_000 };
        site.world.set_drift(site.lb, drift).expect("it is there");
        site.world.run_until(Instant::from_millis(1_000 + second * 1_000));
    }
    let clock = site.world.lb(site.lb).expect("it is there").clock(&site.world);
    // 150 seconds slower, 149 faster.
    assert_eq!(
        clock.as_nanos(),
        1_000_000_000 + 150 * 850_000_000 + 149 * 1_150_000_000
    );
    assert_eq!(conns(&site), 0);
}

#[test]
fn a_life_is_numbered_by_the_wall_clock_and_the_disk() {
    let mut cluster = Cluster::new(1, 2);
    let (world, lb) = (&mut cluster.world, cluster.lbs[0]);
    let hour = 3_600 * 1_000_000_000_i64;
    let number = |world: &evenkeel_io_sim::World| {
        let node = world.lb(lb).and_then(|lb| lb.node()).expect("it runs");
        node.id().incarnation.0
    };
    world.run_until(Instant::from_millis(3_000));
    let first = number(world);
    let restart = |world: &mut evenkeel_io_sim::World| {
        world.crash(lb).expect("it is there");
        world.run_until(world.now() + Duration::from_secs(2));
        world.start(lb).expect("it is down");
    };
    restart(world);
    let second = number(world);
    assert_eq!(second - first, 5_000_000, "microseconds");
    world.step_wall_clock(lb, -hour).expect("it is there");
    restart(world);
    assert_eq!(number(world), second + 1, "the disk remembers");
    world.run_until(world.now() + Duration::from_secs(5));
    let peer = world.lb(cluster.lbs[1]).expect("it is there");
    let stale = |lb: evenkeel_io_sim::LbRef<'_>| lb.receiver_counters().expect("it runs").old_incarnation;
    let before = stale(peer);
    world.lose_state(lb).expect("it is there");
    restart(world);
    assert!(number(world) < first, "nothing remembers");
    // What others hear of it is of a life that is over for them.
    world.run_until(world.now() + Duration::from_secs(3));
    assert!(stale(world.lb(cluster.lbs[1]).expect("it is there")) > before);
    assert_eq!(world.lb(lb).expect("it is there").lives(), 4);
    check(world);
}

#[test]
fn a_config_is_read_once_it_has_come_through_the_queues() {
    let mut site = Site::new(1, lb_spec(), LinkSpec::default());
    let lb = site.lb;
    let served = |site: &mut Site, n: u64| {
        let first = site.world.flows().len();
        for k in 0..n {
            let mut flow = site.flow(VIPS[0]);
            (flow.requests, flow.gap) = (1, Duration::ZERO);
            flow.start = site.world.now() + Duration::from_millis(10 + k);
            site.world.open(flow).expect("right");
        }
        site.world.run_until(site.world.now() + Duration::from_secs(2));
        let mut by = [0; 4];
        for flow in &site.world.flows()[first..] {
            assert_eq!(flow.state, FlowState::Closed);
            by[flow.server.expect("it was served") as usize] += 1;
        }
        by
    };
    // Each bucket deals on its own.
    let all = |by: [u32; 4]| by.iter().sum::<u32>() == 30 && by[1..].iter().all(|n| *n > 5);
    assert!(all(served(&mut site, 30)));
    let usual = site.world.lb(lb).expect("it is there").config().clone();
    let mut config = usual.clone();
    config.services[0].servers[0].weight = 0;
    site.world
        .set_config(lb, config.clone())
        .expect("the engine takes it");
    let by = served(&mut site, 30);
    assert!(by[1] == 0 && by[2] > 5 && by[3] > 5, "{by:?}");
    // Who stands still is told when he goes on, and who is down when he starts.
    site.world.pause(lb).expect("it runs");
    config.services[0].servers.remove(1);
    site.world
        .set_config(lb, config.clone())
        .expect("the engine takes it");
    site.world.run_until(site.world.now() + Duration::from_secs(1));
    site.world.resume(lb).expect("it is paused");
    assert_eq!(served(&mut site, 10), [0, 0, 0, 10]);
    site.world.crash(lb).expect("it is there");
    site.world
        .set_config(lb, usual.clone())
        .expect("the engine takes it");
    site.world.start(lb).expect("it is down");
    assert!(all(served(&mut site, 30)));
    config.services[0].local_addrs.clear();
    let refused = site.world.set_config(lb, config);
    assert!(matches!(refused, Err(WorldError::Config { .. })), "{refused:?}");
    let mut other = usual;
    other.ports[0].name.push('x');
    let refused = site.world.set_config(lb, other);
    assert!(matches!(refused, Err(WorldError::Config { .. })), "{refused:?}");
    assert!(all(served(&mut site, 30)), "nothing has changed");
    check(&site.world);
}

#[test]
fn tables_are_filled_and_refuse_by_name_until_there_is_room() {
    let mut spec = lb_spec();
    (spec.sizes.conns_v4, spec.sizes.conns_v6) = (500, 500);
    let mut site = Site::new(1, spec, LinkSpec::default());
    let lb = site.lb;
    let made = site
        .world
        .fill(lb, Ppm(900_000), Duration::from_secs(60))
        .expect("it runs");
    assert_eq!(made, 2 * 2 * 450);
    let refused = |site: &Site| {
        let full = DropReason::ALL.iter().position(|r| r.name() == "conn-table-full");
        let counters = site.world.lb(lb).expect("it is there").worker_counters();
        let full = full.expect("there is such a reason");
        counters.iter().map(|w| w.engine.drops[full]).sum::<u64>()
    };
    let audit = |site: &Site| {
        let lb = site.world.lb(lb).expect("it is there");
        lb.workers().for_each(|w| w.audit());
    };
    audit(&site);
    for vip in [VIPS[0], VIPS[1]] {
        for _ in 0..200 {
            let mut flow = site.flow(vip);
            (flow.requests, flow.give_up) = (1, Duration::from_secs(300));
            site.world.open(flow).expect("right");
        }
    }
    site.world.run_until(Instant::from_millis(50_000));
    assert!(refused(&site) > 100, "{}", refused(&site));
    audit(&site);
    // They end by their time, and there is room.
    site.world.run_until(Instant::from_millis(280_000));
    assert!(site.world.flows().iter().all(|f| f.state == FlowState::Closed));
    audit(&site);
    site.world.run_until(Instant::from_millis(600_000));
    assert_eq!(conns(&site), 0);
    // Once more than there is room for.
    site.world
        .fill(lb, Ppm(1_000_000), Duration::from_secs(1))
        .expect("it runs");
    audit(&site);
    site.world.crash(lb).expect("it is there");
    let down = site.world.fill(lb, Ppm(1), Duration::ZERO);
    assert!(matches!(down, Err(WorldError::State(..))), "{down:?}");
    check(&site.world);
}

#[test]
fn sessions_that_fill_a_table_are_its_nodes_alone() {
    let mut cluster = Cluster::new(1, 2);
    let (one, two) = (cluster.lbs[0], cluster.lbs[1]);
    let share = Ppm(10_000);
    let early = cluster.world.fill(one, share, Duration::from_secs(5));
    assert_eq!(early.expect("it runs"), 0, "it has not joined");
    cluster.world.run_until(Instant::from_millis(3_000));
    let made = cluster
        .world
        .fill(one, share, Duration::from_secs(5))
        .expect("it runs");
    assert!(made > 100, "{made}");
    cluster.world.run_until(Instant::from_millis(5_000));
    let held = |cluster: &Cluster, lb| {
        let lb = cluster.world.lb(lb).expect("it is there");
        lb.workers().for_each(|w| w.audit());
        lb.workers().map(|w| w.table().len()).sum::<usize>() as u64
    };
    assert_eq!((held(&cluster, one), held(&cluster, two)), (made, 0));
    cluster.world.run_until(Instant::from_millis(12_000));
    assert_eq!(
        (held(&cluster, one), held(&cluster, two)),
        (0, 0),
        "they end by their time"
    );
}
