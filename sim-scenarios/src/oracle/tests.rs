//! Every oracle fires on a doctored world, and says nothing about the same world as it was. The worlds are real runs
//! of two nodes; what is doctored is what the oracle gets to see of them.

use std::time::Duration;

use evenkeel_core::tuple::L4Proto;
use evenkeel_io_sim::{FlowState, LbId, Owner, World};

use super::*;
use crate::run::tests::{
    ONE_NODE, TWO_NODES, closes_in, frames_of, judged, levels, live, said_in, sample, world_at,
};

/// Flows are open and busy.
const MIDST: Duration = Duration::from_secs(3);
const END: Duration = Duration::from_secs(6);

fn world() -> World {
    world_at(TWO_NODES, 4, END)
}

/// When the first sessions have expired, in a run that lasts so long.
const EXPIRED: Duration = Duration::from_secs(14);

fn until_sessions_expire() -> String {
    let text = TWO_NODES.replace("duration = \"6s\"", "duration = \"14s\"");
    assert_ne!(text, TWO_NODES);
    text
}

/// The tables of a sample of all sessions.
struct InSample<'s>(&'s Sample);

impl Tables for InSample<'_> {
    fn row(&self, node: u16, inbound: &Key) -> Option<Row> {
        let rows = self
            .0
            .nodes
            .iter()
            .filter(|n| n.node == node)
            .flat_map(|n| &n.rows);
        rows.copied().find(|row| key(&row.inbound) == *inbound)
    }

    fn has_outbound(&self, node: u16, other: &Key) -> bool {
        let mut rows = self
            .0
            .nodes
            .iter()
            .filter(|n| n.node == node)
            .flat_map(|n| &n.rows);
        rows.any(|row| outbound(row) == *other)
    }
}

/// What an oracle finds in a world as it was, and in a doctored one; there is one in the midst of its run and one at its
/// end. A new oracle does not compile without.
fn control_and_doctored(oracle: Oracle, busy: &World, world: &World) -> (Found, Found) {
    match oracle {
        Oracle::ServerStays => {
            let (seen, live) = (sample(busy, MIDST), live(busy));
            let look = |then: &Sample| {
                let mut oracle = ServerStays::default();
                oracle.sample(&seen, &live);
                oracle.sample(then, &live);
                oracle.found
            };
            let mut doctored = seen.clone();
            let rows = doctored.nodes.iter_mut().flat_map(|n| &mut n.rows);
            let row = rows
                .into_iter()
                .find(|r| live.contains_key(&key(&r.inbound)))
                .expect("a live flow has a session");
            row.server.set_port(row.server.port() + 1);
            (look(&seen), look(&doctored))
        }
        Oracle::OutboundUnique => {
            let seen = sample(busy, MIDST);
            let look = |seen: &Sample| {
                let mut oracle = OutboundUnique::default();
                oracle.sample(seen, &std::collections::BTreeSet::new());
                oracle.found
            };
            let mut doctored = seen.clone();
            let rows = &mut doctored.nodes[1].rows;
            let of_v4 = |r: &&mut Row| r.state == ConnState::Established && r.local.is_ipv4();
            let mut established = rows.iter_mut().filter(of_v4);
            let (first, second) = (established.next(), established.next());
            let (first, second) = first.zip(second).expect("two sessions");
            (second.local, second.server) = (first.local, first.server);
            (look(&seen), look(&doctored))
        }
        Oracle::Checksums => {
            let frames = frames_of(TWO_NODES, 4, MIDST);
            let look = |frames: &[Vec<u8>]| {
                let mut oracle = Checksums::default();
                for frame in frames {
                    oracle.frame(MIDST, Owner::Lb(LbId(0)), "node 1", frame);
                }
                oracle.found
            };
            let mut doctored = frames.clone();
            let tcp = doctored.iter_mut().find(|f| f[12] == 0x08 && f[23] == 6);
            *tcp.and_then(|f| f.last_mut()).expect("a segment") ^= 1;
            (look(&frames), look(&doctored))
        }
        Oracle::ByteStreams => {
            let look = |short: u64| {
                let mut oracle = ByteStreams::default();
                let mut closed = 0;
                for (number, flow) in (0..).zip(world.flows()) {
                    let mut flow = flow.clone();
                    if flow.state == FlowState::Closed && flow.broken.is_none() {
                        closed += 1;
                        if closed == 1 {
                            // All but the first bytes, in which the ends say who they are.
                            flow.client_bytes -= short.min(flow.client_bytes);
                        }
                    }
                    oracle.flow(END, number, &flow, true);
                }
                assert!(closed > 100);
                oracle.found
            };
            (look(0), look(100))
        }
        Oracle::Conserved => {
            let accounts = world.accounts();
            let look = |accounts: &[_]| {
                let mut oracle = Conserved::default();
                oracle.sample(END, accounts);
                oracle.found
            };
            let mut doctored = accounts.clone();
            let vanished = doctored.iter_mut().flat_map(|a| &mut a.became);
            vanished.into_iter().find(|b| b.1 > 0).expect("a frame").1 -= 1;
            (look(&accounts), look(&doctored))
        }
        Oracle::VersionsGrow => {
            let seen = sample(busy, MIDST);
            let look = |then: &Sample| {
                let mut oracle = VersionsGrow::default();
                oracle.sample(&seen);
                oracle.sample(then);
                oracle.found
            };
            let mut doctored = seen.clone();
            let rows = doctored.nodes.iter_mut().flat_map(|n| &mut n.rows);
            let mut versions = rows.filter_map(|r| r.version.as_mut());
            versions.find(|v| v.2 > 1).expect("a version").2 -= 1;
            (look(&seen), look(&doctored))
        }
        Oracle::ReadyKnows => {
            // Node 2 has begun another life, long after node 1.
            let look = |kept: usize| {
                let mut oracle = ReadyKnows::default();
                let mut seen = sample(busy, MIDST);
                oracle.sample(&seen, &|_| None);
                for at in [1, 2] {
                    seen.at = MIDST + Duration::from_secs(at);
                    oracle.sample(&seen, &|_| None);
                }
                let joined = &mut seen.nodes[1];
                (joined.life, joined.ready) = (joined.life + 1, true);
                joined.rows.truncate(kept);
                seen.at = MIDST + Duration::from_secs(3);
                oracle.sample(&seen, &|_| None);
                oracle.found
            };
            (look(usize::MAX), look(1))
        }
        Oracle::ReplicaKeeps => {
            // Node 2 has lost a copy; its holder, node 1, has closed the session, or has not.
            let look = |closed: bool| {
                let mut oracle = ReplicaKeeps::default();
                let mut seen = sample(busy, MIDST);
                oracle.sample(&seen, &[], &InSample(&seen));
                let of_node_1 = |r: &&Row| {
                    let group = r.version.filter(|v| v.2 != 0).map(|v| v.0);
                    group.is_some_and(|group| seen.nodes[1].roles.contains(&(group, Role::Replica)))
                };
                let lost = *seen.nodes[1].rows.iter().find(of_node_1).expect("a copy");
                for node in &mut seen.nodes[usize::from(!closed)..] {
                    node.rows.retain(|r| r.inbound != lost.inbound);
                }
                for at in [1, 3] {
                    let gone: &[(u16, Row)] = if at == 1 { &[(2, lost)] } else { &[] };
                    seen.at = MIDST + Duration::from_secs(at);
                    oracle.sample(&seen, gone, &InSample(&seen));
                }
                oracle.found
            };
            (look(true), look(false))
        }
        Oracle::HolderCloses => {
            let frames = frames_of(&until_sessions_expire(), 4, EXPIRED);
            let look = |forged: bool| {
                let mut oracle = HolderCloses::default();
                for mut closes in closes_in(&frames) {
                    if forged {
                        closes.sender.incarnation.0 += 1;
                    }
                    oracle.told(MIDST, &closes);
                }
                oracle.found
            };
            (look(false), look(true))
        }
        Oracle::ClosedStays => {
            let said = said_in(&frames_of(&until_sessions_expire(), 4, EXPIRED));
            let of = |said: &Said| match said {
                Said::Closed {
                    by,
                    group,
                    epoch,
                    lsn,
                    inbound,
                    ..
                } => Some((by.node.0, *group, *epoch, *lsn, *inbound)),
                _ => None,
            };
            let (node, group, epoch, lsn, inbound) = said.iter().find_map(of).expect("sessions expire");
            let look = |again: bool| {
                let mut oracle = ClosedStays::default();
                said.iter().for_each(|said| oracle.hear(MIDST, said));
                let mut seen = sample(busy, MIDST);
                if again {
                    let mut row = seen.nodes[0].rows[0];
                    row.inbound = Tuple {
                        proto: if inbound.0 { L4Proto::Udp } else { L4Proto::Tcp },
                        src: inbound.1,
                        dst: inbound.2,
                    };
                    row.version = Some((group, epoch, lsn - 1));
                    // The other one of the two has heard it.
                    seen.nodes[2 - usize::from(node)].rows.push(row);
                } else {
                    seen.nodes.iter_mut().for_each(|n| n.rows.clear());
                }
                oracle.sample(&seen, |_| false);
                oracle.found
            };
            (look(false), look(true))
        }
        Oracle::DeferredSurvives => {
            let seen = sample(busy, MIDST);
            let look = |lost: usize| {
                let mut oracle = DeferredSurvives::default();
                let rows = seen.nodes[0].rows.iter().enumerate();
                let promised = rows.map(|(n, row)| Promised {
                    inbound: key(&row.inbound),
                    known: n >= lost,
                });
                oracle.crash(MIDST, &promised.collect::<Vec<_>>());
                oracle.found
            };
            (look(0), look(1))
        }
        Oracle::Bounds => {
            let levels = levels(world);
            let look = |levels: &[Level]| {
                let mut oracle = Bounds::default();
                oracle.sample(END, levels);
                oracle.found
            };
            let mut doctored = levels.clone();
            let used = doctored
                .iter_mut()
                .find(|l| l.held > 0)
                .expect("something waited");
            used.bound = used.held - 1;
            (look(&levels), look(&doctored))
        }
        Oracle::TablesEqual => {
            let seen = sample(world, END);
            let look = |seen: &Sample| {
                let mut oracle = TablesEqual::default();
                oracle.end(seen);
                oracle.found
            };
            let mut doctored = seen.clone();
            let rows = &mut doctored.nodes[1].rows;
            let open = rows.iter().position(|r| r.state == ConnState::Established);
            rows.swap_remove(open.expect("a session that stays"));
            (look(&seen), look(&doctored))
        }
    }
}

#[test]
fn every_oracle_fires_on_a_doctored_world_and_on_no_other() {
    let (busy, end) = (world_at(TWO_NODES, 4, MIDST), world());
    for &oracle in Oracle::ALL {
        let (name, _) = oracle.says();
        let (control, doctored) = control_and_doctored(oracle, &busy, &end);
        assert_eq!(control.first, None, "{name} fires on a world that is right");
        assert!(control.looked > 0, "{name} has looked at nothing");
        let violation = doctored
            .first
            .unwrap_or_else(|| panic!("{name} is blind: nothing in {} looks", doctored.looked));
        assert!(violation.at_ns > 0 && !violation.what.is_empty());
        assert!(doctored.count >= 1);
    }
    assert_eq!(Oracle::ALL.len(), NAMES.len());
}

#[test]
fn every_oracle_is_asked_in_a_run_and_fails_it_under_its_name() {
    let text = until_sessions_expire();
    let report = judged(&text, 4, &[]);
    assert!(report.pass, "{}", report.text("two-nodes.toml"));
    let report = judged(&text, 4, Oracle::ALL);
    let failed = report.failures.iter().map(|f| (f.name.as_str(), f.seen.as_str()));
    let failed: Vec<_> = failed
        .map(|(name, seen)| (name, seen.split(';').next()))
        .collect();
    let all = NAMES.iter().map(|(name, _)| (*name, Some(*name)));
    assert_eq!(failed, all.collect::<Vec<_>>());
    assert!(!report.pass);
}

/// Whatever a place says of its frames: one more or one less is noticed.
#[test]
fn conserved_misses_no_entry_of_any_account() {
    for text in [ONE_NODE, TWO_NODES] {
        let world = world_at(text, 2, END);
        let accounts = world.accounts();
        assert!(accounts.iter().filter(|a| a.came > 0).count() > 10);
        let fires = |accounts: &[_]| {
            let mut oracle = Conserved::default();
            oracle.sample(END, accounts);
            oracle.found.count
        };
        assert_eq!(fires(&accounts), 0);
        for place in 0..accounts.len() {
            let mut doctored = accounts.clone();
            doctored[place].came += 1;
            assert_eq!(fires(&doctored), 1, "{:?}", doctored[place]);
            for entry in 0..accounts[place].became.len() {
                let mut doctored = accounts.clone();
                doctored[place].became[entry].1 += 1;
                assert_eq!(fires(&doctored), 1, "{:?}", doctored[place]);
            }
        }
    }
}

/// Each queue, ring and table of a node is looked at: at its bound it is well, above it is not.
#[test]
fn bounds_misses_no_queue() {
    let levels = levels(&world());
    let fires = |levels: &[Level]| {
        let mut oracle = Bounds::default();
        oracle.sample(END, levels);
        oracle.found.count
    };
    for node in ["node1", "node2"] {
        let of = |l: &&Level| l.node == node;
        let names: Vec<_> = levels.iter().filter(of).map(|l| l.what).collect();
        assert_eq!(
            names,
            [
                "receive ring",
                "hand-off ring",
                "table",
                "table",
                "queue of messages",
                "queue of commands",
                "queue of events",
                "queue of punted frames",
                "sync ring",
            ]
        );
    }
    for place in 0..levels.len() {
        let mut doctored = levels.clone();
        doctored[place].held = doctored[place].bound;
        assert_eq!(fires(&doctored), 0, "{:?}", doctored[place]);
        doctored[place].held += 1;
        assert_eq!(fires(&doctored), 1, "{:?}", doctored[place]);
    }
    // The numbers are the world's: what a busy cluster uses is used here.
    for what in [
        "receive ring",
        "table",
        "queue of messages",
        "queue of commands",
        "queue of events",
        "queue of punted frames",
        "sync ring",
    ] {
        let used = levels
            .iter()
            .any(|l| l.what == what && l.held > 0 && l.held <= l.bound);
        assert!(used, "nothing was ever in a {what}: {levels:?}");
    }
}

#[test]
fn byte_streams_fires_on_wrong_bytes_and_leaves_other_ends_to_the_expectations() {
    let world = world();
    let closed = world.flows().iter().find(|f| f.state == FlowState::Closed);
    let closed = closed.expect("a flow has ended");
    let look = |flow: &evenkeel_io_sim::FlowRecord| {
        let mut oracle = ByteStreams::default();
        oracle.flow(END, 3, flow, true);
        oracle.found.first
    };
    assert_eq!(look(closed), None);
    let mut doctored = closed.clone();
    doctored.requested += 1;
    let ended = doctored.ended.map(|t| t.as_nanos());
    assert_eq!(look(&doctored).map(|v| v.at_ns), ended);
    use evenkeel_io_sim::BrokenWhy;
    for why in [
        BrokenWhy::WrongBytesAtClient,
        BrokenWhy::WrongBytesAtServer,
        BrokenWhy::OtherServer,
    ] {
        doctored.broken = Some(why);
        let violation = look(&doctored).expect("wrong bytes");
        assert!(violation.what.starts_with("flow 3 (") && violation.what.contains(why.name()));
    }
    doctored.broken = Some(BrokenWhy::Reset);
    assert_eq!(look(&doctored), None);
}

/// What was told after a node had said that it is ready may not have reached it: somebody parted them.
#[test]
fn ready_knows_asks_for_sessions_that_were_there_before() {
    let busy = world_at(TWO_NODES, 4, MIDST);
    let lacking = |established: Duration| {
        let mut oracle = ReadyKnows::default();
        let mut seen = sample(&busy, MIDST);
        let mut look = |after: u64, life: u64, ready: bool, kept: usize| {
            seen.at = MIDST + Duration::from_millis(after);
            let joined = &mut seen.nodes[1];
            (joined.life, joined.ready) = (life, ready);
            joined.rows.truncate(kept);
            if oracle.is_due(&seen) {
                oracle.sample(&seen, &|_| Some(established));
            }
        };
        look(0, 1, true, usize::MAX);
        look(1_000, 2, false, usize::MAX);
        look(1_250, 2, true, 1);
        assert!(oracle.found.looked > 10);
        oracle.found.count
    };
    assert_eq!(lacking(MIDST + Duration::from_millis(1_000)), 1);
    assert_eq!(lacking(MIDST + Duration::from_millis(1_001)), 0);
}
