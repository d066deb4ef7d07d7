//! Faults of nodes in whole runs: what they wait for, what they change, and how they end.

use std::time::Duration;

use super::tests::{ONE_NODE, TWO_NODES, run_it};
use crate::report::Report;

/// `text` with further faults, and with expectations instead of its own if there are some.
fn with(text: &str, faults: &str, expects: &[&str]) -> String {
    let (head, tail) = text.split_once("[[expect]]").expect("expectations");
    let own = format!("[[expect]]{tail}");
    let expects: String = expects
        .iter()
        .map(|e| format!("[[expect]]\nthat = \"{e}\"\n"))
        .collect();
    format!(
        "{head}{faults}\n{}",
        if expects.is_empty() { own } else { expects }
    )
}

/// When something stands in the timeline.
fn told(report: &Report, words: &str) -> Duration {
    let found = report.timeline.iter().find(|t| t.1.starts_with(words));
    let found = found.unwrap_or_else(|| panic!("no \"{words}\" in {:?}", report.timeline));
    Duration::from_nanos(found.0)
}

/// All is as expected, but that two nodes run and their tables cannot be compared: one of them is not ready.
fn only_one_ready(report: &Report) {
    let failed: Vec<_> = report
        .failures
        .iter()
        .map(|f| (f.name.as_str(), f.unmeasured))
        .collect();
    assert_eq!(failed, [("tables-equal", true)], "{}", report.text("x"));
}

const CRASH: &str = "[[fault]]\nname = \"crash\"\ndo = \"crash\"\nat = \"3s..3500ms\"\nnode = \"1\"\n";

fn look(name: &str, rest: &str) -> String {
    format!("[[fault]]\nname = \"{name}\"\ndo = \"look\"\n{rest}\n")
}

#[test]
fn a_fault_happens_at_the_very_event_that_it_waits_for() {
    let looks = look("taken", "at = \"on(takeover)\"")
        + &look("later", "at = \"on(takeover, 2) + 10ms..20ms\"")
        + &look("never", "at = \"on(takeover, 1)\"\noptional = \"on\"")
        + &look("after", "at = \"5ms\"\nafter = \"later\"");
    let report = run_it(
        &with(TWO_NODES, &(CRASH.to_owned() + &looks), &["broken == unsynced"]),
        1,
    );
    assert!(report.pass, "{}", report.text("x"));
    let (crash, taken) = (told(&report, "crash begins"), told(&report, "taken begins"));
    let detection = Duration::from_nanos(report.detection_ns.expect("a take-over"));
    assert_eq!(taken, crash + detection, "to the nanosecond");
    let later = told(&report, "later begins on all nodes, on(takeover) of node 2");
    let delay = later - taken;
    assert!(
        (Duration::from_millis(10)..=Duration::from_millis(20)).contains(&delay),
        "{delay:?}"
    );
    assert_eq!(told(&report, "after begins"), later + Duration::from_millis(5));
    told(&report, "never never happened: it waited for on(takeover, 1)");
    assert_eq!(
        report,
        run_it(
            &with(TWO_NODES, &(CRASH.to_owned() + &looks), &["broken == unsynced"]),
            1
        )
    );
    let names: Vec<_> = report
        .timeline
        .iter()
        .map(|t| t.1.split(' ').next().expect("a name"))
        .collect();
    assert_eq!(names, ["crash", "taken", "later", "after", "never"]);
}

#[test]
fn what_is_waited_for_counts_only_after_the_fault_after_which_it_is() {
    let crash = CRASH.replace("node = \"1\"", "for = \"500ms\"\nnode = \"1\"");
    let faults = look("at-first", "at = \"on(ready, 1)\"")
        + &crash
        + &look("again", "at = \"on(ready, 1)\"\nafter = \"crash\"");
    let report = run_it(&with(TWO_NODES, &faults, &["broken == unsynced"]), 1);
    assert!(report.pass, "{}", report.text("x"));
    assert!(told(&report, "at-first begins") < Duration::from_secs(2));
    assert!(told(&report, "again begins") > told(&report, "crash ends"));
}

#[test]
fn what_never_comes_fails_the_run_unless_it_is_optional() {
    let faults = look("gone", "at = \"on(drained)\"");
    let report = run_it(&with(TWO_NODES, &faults, &[]), 1);
    let failed: Vec<_> = report
        .failures
        .iter()
        .map(|f| (f.name.as_str(), f.seen.as_str()))
        .collect();
    assert_eq!(failed, [(crate::expect::ALL_TRIGGERED, "untriggered = 1")]);
    told(&report, "gone never happened: it waited for on(drained)");
    let optional = with(
        TWO_NODES,
        &look("gone", "at = \"on(drained)\"\noptional = \"on\""),
        &[],
    );
    assert!(run_it(&optional, 1).pass);
    let said = with(TWO_NODES, &faults, &["untriggered == 1"]);
    assert!(run_it(&said, 1).pass, "what is said of it counts");
    // What is after it never comes either, and is no further failure.
    let chain = faults + &look("next", "at = \"1s\"\nafter = \"gone\"");
    let report = run_it(&with(TWO_NODES, &chain, &["untriggered == 1"]), 1);
    assert!(report.pass && report.timeline.len() == 1, "{:?}", report.timeline);
}

#[test]
fn what_is_to_happen_during_something_waits_for_the_next_time_if_it_is_over() {
    let restart = CRASH.replace("node = \"1\"", "for = \"500ms\"\nnode = \"1\"");
    // Bulk of some sessions is over within a second, adoption too.
    let faults = restart
        + &look("within", "at = \"during(bulk, 1)\"\nafter = \"crash\"")
        + &look(
            "too-late",
            "at = \"during(bulk, 1) + 2s\"\nafter = \"crash\"\noptional = \"on\"",
        )
        + &look("adoption", "at = \"during(adoption)\"\nafter = \"crash\"");
    let report = run_it(&with(TWO_NODES, &faults, &["broken == unsynced"]), 1);
    assert!(report.pass, "{}", report.text("x"));
    assert!(told(&report, "within begins") > told(&report, "crash ends"));
    let adoption = told(
        &report,
        "adoption begins on all nodes, during(adoption) of node 2",
    );
    assert!(adoption < told(&report, "crash begins") + Duration::from_secs(1));
    told(&report, "too-late never happened: it waited for during(bulk, 1)");
}

#[test]
fn what_is_measured_from_the_first_fault_is_so_from_one_that_waited() {
    let crash = "[[fault]]\nname = \"crash\"\ndo = \"crash\"\nat = \"on(ready, 2) + 2s\"\nnode = \"1\"\n";
    let expects = [
        "broken == unsynced",
        "live_at_fault >= 20",
        "replicated >= 20",
        "detection <= 1s",
    ];
    let report = run_it(&with(TWO_NODES, crash, &expects), 1);
    assert!(report.pass, "{}", report.text("x"));
    // A fault whose time is known, and later, is not the first one.
    let later = crash.to_owned() + &look("later", "at = \"5s\"");
    let report = run_it(&with(TWO_NODES, &later, &expects), 1);
    assert!(report.pass, "{}", report.text("x"));
}

#[test]
fn a_drain_goes_on_until_all_is_handed_over() {
    let faults = "[[fault]]\nname = \"drain\"\ndo = \"drain\"\nat = \"3s\"\nnode = \"1\"\n".to_owned()
        + &look("begins", "at = \"during(drain)\"")
        + &look("ends", "at = \"on(drained, 1)\"");
    let report = run_it(&with(TWO_NODES, &faults, &[]), 1);
    assert!(report.pass, "{}", report.text("x"));
    assert_eq!(told(&report, "begins begins"), told(&report, "drain begins"));
    assert!(told(&report, "ends begins on all nodes, on(drained) of node 1") > told(&report, "drain begins"));
}

#[test]
fn a_service_and_servers_come_and_go_in_the_midst() {
    let config = |name: &str, at: &str, rest: &str| {
        format!("[[fault]]\nname = \"{name}\"\ndo = \"config\"\nat = \"{at}\"\nservice = \"v4\"\n{rest}\n")
    };
    let absent = ONE_NODE.replacen("servers = 3", "servers = 3\nserved = \"off\"", 1);
    let absent = absent.replace(
        "name = \"long\"",
        "name = \"long\"\nservices = [\"v4\"]\nstart = \"2s\"",
    );
    let absent = absent.replace("name = \"short\"", "name = \"short\"\nservices = [\"v6\"]");
    let served = config("serve", "1900ms", "served = \"on\"");
    let report = run_it(&with(&absent, &served, &[]), 1);
    assert!(report.pass, "{}", report.text("x"));
    // Half a second later is too late for who asks at 2 s: he asks again.
    let late = config("serve", "2500ms", "served = \"on\"");
    let report = run_it(
        &with(
            &absent,
            &late,
            &["established == connections", "slowest >= 500ms"],
        ),
        1,
    );
    assert!(report.pass, "{}", report.text("x"));

    // One server, then four, then the first two.
    let few = ONE_NODE.replacen("servers = 3", "servers = 1", 1);
    let more = config("more", "1s..2s", "servers = 4") + &config("fewer", "3s", "servers = 2");
    let report = run_it(&with(&few, &more, &["failed == 0", "connections >= 150"]), 1);
    assert!(report.pass, "{}", report.text("x"));
    // A server without weight is as good as one that is down.
    let faults = config("weight", "1s", "server = 1\nweight = 0")
        + "[[fault]]\ndo = \"unhealthy\"\nat = \"1s\"\nservice = \"v4\"\nserver = 2\nfor = \"2s\"\n";
    let expects = ["broken == 0", "chose_down == 0", "chose_again > 10"];
    let report = run_it(&with(ONE_NODE, &faults, &expects), 1);
    assert!(report.pass, "{}", report.text("x"));
    // What is told to one node only is no verdict of all.
    let one = faults.replace("do = \"unhealthy\"", "do = \"unhealthy\"\nnode = \"1\"");
    let report = run_it(&with(ONE_NODE, &one, &["chose_down == 0"]), 1);
    let seen: Vec<_> = report.failures.iter().map(|f| f.seen.as_str()).collect();
    assert!(
        seen.len() == 1 && seen[0].contains("could not be measured"),
        "{seen:?}"
    );
}

#[test]
fn a_node_that_lost_its_disk_and_its_time_is_not_heard_until_its_clock_has_come_up() {
    let faults = "[[fault]]\ndo = \"step\"\nat = \"2s\"\nnode = \"2\"\nby = \"-10s\"\nwall = \"on\"\n\n[[fault]]\nname = \"restart\"\ndo = \"crash\"\nat = \"3s\"\nfor = \"200ms\"\nnode = \"2\"\n";
    let kept = with(TWO_NODES, faults, &["broken == 0", "ready == 2"]);
    let report = run_it(&kept, 1);
    assert!(report.pass, "{}", report.text("x"));
    let lost = faults.to_owned() + "state = \"off\"\n";
    let expects = ["broken == 0", "ready == 1", "counts.frames-of-old-life > 10"];
    let report = run_it(&with(TWO_NODES, &lost, &expects), 1);
    only_one_ready(&report);
}

#[test]
fn nodes_whose_clocks_drift_apart_serve_as_ever() {
    let drifting = TWO_NODES.replace("workers = 2", "workers = 2\ndrift = \"-500ppm..500ppm\"");
    let faults = "[[fault]]\ndo = \"drift\"\nat = \"2s\"\nfor = \"2s\"\nnode = \"1\"\ndrift = \"20000ppm\"\n\n[[fault]]\ndo = \"step\"\nat = \"3s\"\nnode = \"2\"\nby = \"100ms\"\n";
    let report = run_it(
        &with(
            &drifting,
            faults,
            &["broken == 0", "ready == 2", "takeovers == 0"],
        ),
        1,
    );
    assert!(report.pass, "{}", report.text("x"));
    assert_ne!(report.digest, run_it(TWO_NODES, 1).digest);
}

#[test]
fn a_jump_of_the_clock_beyond_the_lease_is_survived() {
    let faults = "[[fault]]\ndo = \"step\"\nat = \"3s\"\nnode = \"1\"\nby = \"60s\"\n";
    let report = run_it(&with(TWO_NODES, faults, &["broken == 0", "ready == 2"]), 1);
    assert!(report.pass, "{}", report.text("x"));
    // By its clock no heartbeat has left it for a minute, and others may have its sessions: it finds out that nobody has.
    let was = |report: &Report, what| report.situations.get(what).copied().unwrap_or(0);
    for what in ["suspect", "renewed"] {
        assert!(was(&report, what) > 0, "{what}: {:?}", report.situations);
        let without = run_it(TWO_NODES, 1);
        assert_eq!(was(&without, what), 0, "{what}: {:?}", without.situations);
    }
}

#[test]
fn a_table_that_is_nearly_full_refuses_by_name() {
    let small = ONE_NODE.replace("workers = 2", "workers = 2\ntable = 256");
    let fill = "[[fault]]\ndo = \"fill\"\nat = \"1s\"\nfor = \"2s\"\nnode = \"1\"\nshare = \"97%\"\n";
    let report = run_it(
        &with(
            &small,
            fill,
            &["drops.conn-table-full > 10", "broken == 0", "failed == 0"],
        ),
        1,
    );
    assert!(report.pass, "{}", report.text("x"));
    let without = run_it(&with(&small, "", &["drops.conn-table-full == 0"]), 1);
    assert!(without.pass, "{}", without.text("x"));
}

#[test]
fn rings_and_workers_show_in_what_clients_wait_for() {
    let rings = "[[fault]]\ndo = \"rings\"\nat = \"2s\"\nfor = \"1s\"\nnode = \"1\"\nentries = 0\n";
    let report = run_it(&with(ONE_NODE, rings, &["broken == 0", "slowest >= 900ms"]), 1);
    assert!(report.pass, "{}", report.text("x"));
    assert!(
        report.lost.get("rx-ring-full").is_some_and(|n| *n > 20),
        "{:?}",
        report.lost
    );
    let slow = "[[fault]]\ndo = \"slow\"\nat = \"2s\"\nfor = \"1s\"\nnode = \"1\"\nfactor = 10000\n";
    let report = run_it(&with(ONE_NODE, slow, &["broken == 0", "slowest >= 10ms"]), 1);
    assert!(report.pass, "{}", report.text("x"));
    let costly = ONE_NODE.replace("workers = 2", "workers = 2\nframe_cost = \"2ms\"");
    let report = run_it(&with(&costly, "", &["broken == 0", "slowest >= 10ms"]), 1);
    assert!(report.pass, "{}", report.text("x"));
}

#[test]
fn frames_of_another_version_are_refused_and_counted() {
    let speaking = |two: &str, one: &str| {
        let nodes = format!(
            "workers = 2\n\n[[cluster.node]]\nid = 2\nformat = {two}\n\n[[cluster.node]]\nid = 1\nformat = {one}\n"
        );
        TWO_NODES.replacen("workers = 2\n", &nodes, 1)
    };
    for (two, one) in [("2", "1"), ("1", "2"), ("255", "1"), ("1", "255")] {
        let expects = ["counts.frames-unsupported > 50", "counts.applied == 0"];
        only_one_ready(&run_it(&with(&speaking(two, one), "", &expects), 1));
    }
    // Those of one version understand each other, whichever it is.
    let report = run_it(
        &with(
            &speaking("7", "7"),
            "",
            &["ready == 2", "counts.frames-unsupported == 0"],
        ),
        1,
    );
    assert!(report.pass, "{}", report.text("x"));
    assert_eq!(report.digest, run_it(TWO_NODES, 1).digest);
}
