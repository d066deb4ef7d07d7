//! Faults of the network, in worlds that scenarios describe.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use evenkeel_core::time::Instant;
use evenkeel_io_sim::{Direction, Faults, LbId, Owner, Place, Ppm, Tap};

use super::{Effects, Met};
use crate::report::Report;
use crate::run::build::{self, Built};
use crate::run::sync_frame::Rules;
use crate::run::tests::{ONE_NODE, TWO_NODES, run_it, scenario};
use crate::scenario::{Action, Disturbance, Network, NodeRef, Way};

/// A scenario with more in front of its first expectation.
fn with(base: &str, more: &str) -> String {
    base.replacen("[[expect]]", &format!("{more}\n[[expect]]"), 1)
}

fn without_bounds(base: &str) -> String {
    base.replace("that = \"stall <= 100ms\"", "that = \"stall <= 10s\"")
}

fn lost(report: &Report, why: &str) -> u64 {
    report.lost.get(why).copied().unwrap_or(0)
}

#[test]
fn networks_in_vlans_serve_as_ever() {
    let vlans = "vlan = 10\n\n[links.servers]\nvlan = 20\n\n[links.sync]\nvlan = 4094\n";
    let text = TWO_NODES.replacen(
        "delay = \"20us..500us\"\n",
        &format!("delay = \"20us..500us\"\n{vlans}"),
        1,
    );
    let report = run_it(&text, 1);
    assert!(report.pass, "{}", report.text("x"));
    assert!(report.connections > 100 && report.established == report.connections);
    assert_eq!(lost(&report, "switch-wrong-vlan"), 0);
}

#[test]
fn packets_that_are_larger_than_a_link_carries_are_lost_and_counted() {
    let large = |mtu: u32| {
        let mtu = format!("delay = \"20us..500us\"\nmtu = {mtu}\n");
        let text = ONE_NODE.replacen("delay = \"20us..500us\"\n", &mtu, 1);
        let text = text.replacen("flows = 20\n", "flows = 20\nreply_bytes = 4000\n", 1);
        run_it(&without_bounds(&text), 1)
    };
    let report = large(1_500);
    assert!(report.pass, "{}", report.text("x"));
    assert_eq!(lost(&report, "link-mtu"), 0);
    let report = large(1_200);
    assert!(lost(&report, "link-mtu") > 20, "{}", report.text("x"));
    assert_eq!(
        report.hanging,
        20,
        "no large reply ever arrives: {}",
        report.text("x")
    );
}

#[test]
fn every_disturbance_of_a_link_shows_and_breaks_nothing() {
    for (words, way, seen) in [
        ("loss = \"10%\"", "both", "link-loss"),
        ("loss = \"5%\"\nburst = 8", "in", "link-loss"),
        ("corrupt = \"3%\"", "both", "link-corrupted"),
        (
            "corrupt = \"3%\"\nduplicate = \"20%\"\nreorder = \"20%\"",
            "out",
            "link-corrupted",
        ),
        // Without it nothing takes longer than 100 ms: the scenario itself says so.
        ("delay = \"150ms\"", "in", ""),
        ("bandwidth = \"100kbit\"", "out", ""),
    ] {
        let fault = format!(
            "[[fault]]\ndo = \"disturb\"\nat = \"500ms\"\nfor = \"2s\"\nnode = \"1\"\nnetwork = \"clients\"\nway = \"{way}\"\n{words}\n"
        );
        let mut text = with(&without_bounds(ONE_NODE), &fault);
        if seen.is_empty() {
            text = with(&text, "[[expect]]\nthat = \"slowest >= 150ms\"\n");
        }
        let text = text.replacen(
            "duration = \"6s\"\nquiet = \"2s\"",
            "duration = \"12s\"\nquiet = \"8s\"",
            1,
        );
        let report = run_it(&text, 5);
        assert!(report.pass, "{words}: {}", report.text("x"));
        if !seen.is_empty() {
            assert!(lost(&report, seen) > 5, "{words}: {}", report.text("x"));
        }
    }
}

/// What nodes sent to clients, by place in that order, as it arrived; a frame that came again, or after a later one of the same
/// sender to the same receiver, shows.
#[derive(Default)]
struct Arrivals {
    sent: BTreeMap<Vec<u8>, usize>,
    latest: BTreeMap<u16, usize>,
    seen: BTreeSet<(u16, usize)>,
    twice: u64,
    overtaken: u64,
}

struct ArrivalsTap(Rc<RefCell<Arrivals>>);

impl Tap for ArrivalsTap {
    fn frame(&mut self, _: Instant, at: Place, direction: Direction, data: &[u8]) {
        let mut arrivals = self.0.borrow_mut();
        // What says the same twice cannot be told from a copy: hosts number their packets.
        match (at.owner, direction) {
            (Owner::Lb(_), Direction::Out) if at.port == 0 => {
                let number = arrivals.sent.len();
                arrivals.sent.entry(data.to_vec()).or_insert(number);
            }
            (Owner::Host(host), Direction::In) => {
                let Some(&number) = arrivals.sent.get(data) else {
                    return;
                };
                let latest = arrivals.latest.insert(host.0, number).unwrap_or(0);
                arrivals
                    .latest
                    .entry(host.0)
                    .and_modify(|n| *n = latest.max(number));
                let fresh = arrivals.seen.insert((host.0, number));
                arrivals.twice += u64::from(!fresh);
                arrivals.overtaken += u64::from(fresh && number < latest);
            }
            _ => {}
        }
    }
}

#[test]
fn frames_come_twice_and_late_while_a_link_doubles_and_holds_them_back() {
    let arrivals = |how: Option<Disturbance>| {
        let scenario = crate::plan(&scenario(ONE_NODE), 1);
        let (mut built, _) = crate::run::tests::started(&scenario);
        let seen = Rc::new(RefCell::new(Arrivals::default()));
        built.world.add_tap(Box::new(ArrivalsTap(seen.clone())));
        let mut effects = Effects::new(&scenario, Rc::new(RefCell::new(Rules::default())));
        let met = Met {
            fault: 0,
            lb: Some(LbId(0)),
            to: None,
            now: Duration::ZERO,
            until: None,
        };
        if let Some(how) = how {
            let action = Action::Disturb(NodeRef::Id(1), Network::Clients, Way::Out, how);
            effects.begin(&mut built, &action, met).expect("it begins");
        }
        built.world.run_until(build::at(Duration::from_secs(4)));
        let doubled = built.world.link_counters(built.links[0][0]).expect("it is there");
        let seen = seen.borrow();
        assert!(seen.sent.len() > 1_000);
        let doubled = doubled.map(|way| way.duplicated);
        (doubled.iter().sum::<u64>(), seen.twice, seen.overtaken)
    };
    assert_eq!(arrivals(None), (0, 0, 0));
    let base = Disturbance::default();
    let (doubled, twice, overtaken) = arrivals(Some(Disturbance {
        duplicate_ppm: 200_000,
        copies: 2,
        ..base
    }));
    assert!(doubled > 200 && twice >= doubled * 9 / 10, "{doubled} {twice}");
    assert_eq!(overtaken, 0);
    let (doubled, twice, overtaken) = arrivals(Some(Disturbance {
        reorder_ppm: 200_000,
        reorder_by: Duration::from_millis(5),
        ..base
    }));
    assert_eq!((doubled, twice), (0, 0));
    assert!(overtaken > 20, "{overtaken}");
}

#[test]
fn a_loss_of_arp_keeps_those_apart_who_do_not_know_each_other_yet() {
    let fault = "[[fault]]\ndo = \"disturb\"\nat = \"0s\"\nfor = \"1500ms\"\nnode = \"1\"\nnetwork = \"clients\"\nway = \"out\"\narp = \"100%\"\n";
    let text = with(&without_bounds(ONE_NODE), fault);
    let report = run_it(&with(&text, "[[expect]]\nthat = \"slowest >= 800ms\"\n"), 2);
    assert!(report.pass, "{}", report.text("x"));
    assert!(lost(&report, "link-loss") >= 2, "{}", report.text("x"));
}

#[test]
fn two_nodes_are_parted_and_meet_again() {
    for way in ["both", "out", "in"] {
        let fault = format!(
            "[[fault]]\ndo = \"part\"\nat = \"2500ms\"\nfor = \"150ms\"\nnode = \"1\"\nto = \"2\"\nnetwork = \"sync\"\nway = \"{way}\"\n"
        );
        let report = run_it(&with(TWO_NODES, &fault), 1);
        assert!(report.pass, "{way}: {}", report.text("x"));
        assert!(lost(&report, "switch-parted") > 0, "{way}: {}", report.text("x"));
    }
}

fn both(built: &Built) -> [Faults; 2] {
    let link = built.world.link(built.links[0][0]).expect("it is there");
    [link.forth, link.back]
}

#[test]
fn faults_that_overlap_end_each_by_itself() {
    let scenario = crate::plan(&scenario(ONE_NODE), 1);
    let mut built = build::world(&scenario, evenkeel_io_sim::QueueKind::default()).expect("a world");
    let base = both(&built);
    let mut effects = Effects::new(&scenario, Rc::new(RefCell::new(Rules::default())));
    let met = |fault| Met {
        fault,
        lb: Some(LbId(0)),
        to: None,
        now: Duration::ZERO,
        until: None,
    };
    let node = NodeRef::Id(1);
    let lossy = |loss_ppm| {
        let how = Disturbance {
            loss_ppm,
            delay: Duration::from_millis(1),
            ..Disturbance::default()
        };
        Action::Disturb(node, Network::Clients, Way::Out, how)
    };
    let cut = Action::Cut(node, Network::All, Way::Both);
    effects
        .begin(&mut built, &lossy(500_000), met(0))
        .expect("it begins");
    effects.begin(&mut built, &cut, met(1)).expect("it begins");
    effects
        .begin(&mut built, &lossy(500_000), met(2))
        .expect("it begins");
    let [out, back] = both(&built);
    assert_eq!(
        (out.cut, out.loss, out.delay),
        (true, Ppm(750_000), Duration::from_millis(2))
    );
    assert_eq!((back.cut, back.loss), (true, Ppm(0)));
    // The one that began first ends first: the others go on.
    effects.end(&mut built, &lossy(500_000), met(0)).expect("it ends");
    let [out, _] = both(&built);
    assert_eq!((out.cut, out.loss), (true, Ppm(500_000)));
    effects.end(&mut built, &cut, met(1)).expect("it ends");
    let [out, back] = both(&built);
    assert_eq!((out.cut, out.loss, back), (false, Ppm(500_000), base[1]));
    effects.end(&mut built, &lossy(500_000), met(2)).expect("it ends");
    assert_eq!(both(&built), base);
    // Two cuts are one, until both have ended, or are healed.
    for fault in [3, 4] {
        effects.begin(&mut built, &cut, met(fault)).expect("it begins");
    }
    effects.end(&mut built, &cut, met(3)).expect("it ends");
    assert!(both(&built)[0].cut);
    let heal = Action::Heal(node, Network::Clients);
    effects.begin(&mut built, &heal, met(5)).expect("it begins");
    assert_eq!(both(&built), base);
    effects.end(&mut built, &cut, met(4)).expect("it ends");
    assert_eq!(both(&built), base);
}
