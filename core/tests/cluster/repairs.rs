//! Slots and groups under trouble: sources that go in the middle, frames that come twice or not at all, every
//! kind of session.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_core::cluster::{Epoch, Role};
use evenkeel_core::proto::ConnState;
use evenkeel_core::stats::SyncCount;
use evenkeel_core::sync::{LsnRange, SyncBody, SyncEvent, SyncMessage, SyncOutcome};
use evenkeel_core::tuple::L4Proto;

use crate::adoption::{adopt, merged};
use crate::conflicts::bucket;
use crate::net::{Net, NodeConfig, Weather, first_epoch};
use crate::packet::{ACK, FIN, SYN};
use crate::story::{Flow, kinds_and_protos};

const MS: Duration = Duration::from_millis(1);

/// Node 0 dies and node 1, which knows little, adopts. The one that knows most dies while it is asked.
#[test]
fn the_source_of_an_adoption_dies_in_its_middle() {
    let mut net = Net::joined(1, &[NodeConfig::default(); 4]);
    let group = net.group(0);
    for n in 0..100 {
        net.open(0, n);
    }
    net.run(100 * MS);
    net.cut.extend([(0, 1), (0, 3)]);
    for n in 100..400 {
        net.open(0, n);
    }
    net.run(100 * MS);
    let count = |net: &Net, n: usize| net.nodes[n].all(group).len();
    assert_eq!([1, 2, 3].map(|n| count(&net, n)), [100, 400, 100]);
    net.crash(0);
    net.cut.clear();
    net.meet();
    adopt(&mut net, group, 1, 2);
    while count(&net, 1) <= 150 {
        net.run(MS / 4);
    }
    let some = count(&net, 1);
    assert!(some > 150 && some < 350, "it is in the middle: {some}");
    net.crash(2);
    net.meet();
    net.run(2000 * MS);
    assert_eq!(merged(&net, 1, group), 2, "it does not hang");
    assert_eq!(net.nodes[1].outstanding(), 0);
    assert!(count(&net, 1) >= some);
    net.authority(
        1,
        group,
        Epoch {
            term: 2,
            holder: net.nodes[1].id,
        },
        Role::Owned,
    );
    // Who knew otherwise agrees by a pull.
    net.run(2000 * MS);
    assert_eq!(net.agree(1, 3, group), count(&net, 1));
    assert_eq!(net.nodes[3].outstanding(), 0);
    let flow = Flow::of(
        &net.nodes[1].workers[0]
            .table()
            .iter()
            .next()
            .expect("one of them"),
    );
    net.fin(1, &flow);
    net.run(50 * MS);
    assert_eq!(net.state(3, &flow), Some(ConnState::CloseWait), "life goes on");
}

/// The one that knows most dies while it is asked, and of those left another one knows more than the adopter: that one is asked
/// then. What came of the dead one stays.
#[test]
fn the_next_best_is_asked_when_the_source_of_an_adoption_dies() {
    for seed in 0..4 {
        let mut net = Net::joined(seed, &[NodeConfig::default(); 4]);
        let group = net.group(0);
        let mut flows: Vec<_> = (0..100).map(|n| net.open(0, n)).collect();
        net.run(100 * MS);
        net.cut.insert((0, 1));
        flows.extend((100..250).map(|n| net.open(0, n)));
        net.run(100 * MS);
        net.cut.insert((0, 3));
        flows.extend((250..1000).map(|n| net.open(0, n)));
        net.run(100 * MS);
        let count = |net: &Net, n: usize| net.nodes[n].all(group).len();
        assert_eq!([1, 2, 3].map(|n| count(&net, n)), [100, 1000, 250]);
        net.crash(0);
        net.cut.clear();
        net.meet();
        let there = |net: &Net, flow: &Flow| net.state(1, flow) == Some(ConnState::Established);
        // Of a bucket some of the last have come, and some not.
        let in_the_middle = |net: &Net| {
            let last = flows[250..].iter();
            let last: BTreeSet<_> = last.map(|f| (bucket(net, f), there(net, f))).collect();
            last.iter()
                .any(|(b, there)| *there && last.contains(&(*b, false)))
        };
        net.weather.jitter_us = 300;
        adopt(&mut net, group, 1, 2);
        // A frame brings whole buckets.
        while count(&net, 1) <= 300 || !net.frames && !in_the_middle(&net) {
            net.run(MS / 8);
            assert!(count(&net, 1) < 900, "all came at once");
        }
        net.crash(2);
        net.weather = Weather::default();
        net.meet();
        let came: Vec<_> = flows.iter().filter(|f| there(&net, f)).copied().collect();
        assert!(flows[..250].iter().any(|f| !there(&net, f)));
        net.run(2500 * MS);
        assert_eq!(merged(&net, 1, group), 2, "it does not hang");
        assert_eq!(net.nodes[1].outstanding(), 0);
        for flow in flows[..250].iter().chain(&came) {
            assert!(there(&net, flow), "seed {seed}: it was had by one who is alive");
        }
        assert_eq!(net.agree(1, 3, group), count(&net, 1));
    }
}

#[test]
fn offers_come_over_a_bad_network() {
    for seed in 0..3 {
        let config = NodeConfig {
            workers: 1,
            ..NodeConfig::default()
        };
        let mut net = Net::joined(seed, &[config; 2]);
        let group = net.group(0);
        for n in 0..30 {
            net.open(0, n);
        }
        net.run(100 * MS);
        net.cut.insert((0, 1));
        net.meet_but(0, &[1]);
        net.meet_but(1, &[0]);
        let epoch = Epoch {
            term: 2,
            holder: net.nodes[1].id,
        };
        net.authority(1, group, epoch, Role::Adopting);
        net.run(50 * MS);
        net.authority(1, group, epoch, Role::Owned);
        let late: Vec<_> = (100..130).map(|n| net.open(0, n)).collect();
        net.run(50 * MS);
        net.cut.clear();
        net.weather = Weather {
            loss: 300,
            twice: 300,
            jitter_us: 5000,
            ..Weather::default()
        };
        net.meet();
        let lost = net.lost;
        net.authority(0, group, epoch, Role::Fenced);
        let offered = |e: &SyncEvent| matches!(e, SyncEvent::Offered { .. });
        for _ in 0..100 {
            net.run(50 * MS);
            if net.nodes[1].sync(SyncCount::OffersTaken) == 30 {
                break;
            }
        }
        assert!(net.lost > lost + 5, "the network was bad");
        assert_eq!(net.nodes[1].sync(SyncCount::OffersTaken), 30);
        // All slots of what was offered are pulled again, which is another story.
        net.weather = Weather::default();
        net.run(3000 * MS);
        assert!(net.nodes[0].has_told(offered) > 0, "it ends");
        assert!(net.nodes[0].sync(SyncCount::Offered) > 30, "some were made again");
        assert_eq!(net.nodes[1].sync(SyncCount::OffersTaken), 30, "and taken once");
        net.authority(0, group, epoch, Role::Replica);
        net.quiet();
        for flow in &late {
            assert_eq!(net.state(1, flow), Some(ConnState::Established));
        }
        assert_eq!(net.agree(1, 0, group), 60);
    }
}

/// IPv4, IPv6 and both translations: live, by a join, and after an adoption.
#[test]
fn every_kind_of_session_joins_and_is_adopted() {
    for seed in 0..2 {
        let mut net = Net::joined(seed, &[NodeConfig::default(); 2]);
        let group = net.group(0);
        let mut flows = Vec::new();
        for n in 0..10 {
            for (kind, proto) in kinds_and_protos() {
                let flow = net.begin(0, kind, proto, n);
                if proto == L4Proto::Tcp {
                    net.forwarded(0, &flow.outbound().flags(SYN | ACK));
                    net.forwarded(0, &flow.inbound());
                } else {
                    net.forwarded(0, &flow.outbound());
                }
                flows.push(flow);
            }
        }
        net.run(100 * MS);
        assert_eq!(net.agree(0, 1, group), 80, "live");
        let both_ways = |net: &mut Net| {
            for flow in &flows {
                net.forwarded(1, &flow.inbound());
                net.forwarded(1, &flow.outbound());
            }
        };
        both_ways(&mut net);
        net.crash(1);
        net.meet();
        net.restart(1);
        net.own(1);
        net.meet();
        net.know(1, 0);
        net.run(1000 * MS);
        assert_eq!(net.nodes[1].outstanding(), 0);
        assert_eq!(net.nodes[1].sync(SyncCount::PulledIn), 80);
        assert_eq!(net.agree(0, 1, group), 80, "by a join");
        both_ways(&mut net);
        net.crash(0);
        net.meet();
        adopt(&mut net, group, 1, 2);
        net.run(10 * MS);
        both_ways(&mut net);
        for flow in flows.iter().filter(|f| f.proto == L4Proto::Tcp) {
            net.forwarded(1, &flow.outbound().flags(FIN | ACK));
            assert!(net.state(1, flow) != Some(ConnState::Established));
        }
        net.run(Duration::from_secs(400));
        assert_eq!(net.nodes[1].counters().expired, 80, "they end as any");
        assert_eq!(net.nodes[1].tombs(), 0);
    }
}

fn skip(net: &Net, bucket: u16, slots: Vec<u16>) -> SyncMessage {
    SyncMessage {
        from: net.nodes[0].id,
        bucket,
        ack_now: true,
        body: SyncBody::Skip {
            gap: LsnRange { first: 1, last: 1 },
            until: 1,
            slots,
        },
    }
}

#[test]
fn the_slots_of_a_skip_are_pulled_and_no_others() {
    let mut net = Net::joined(1, &[NodeConfig::default(); 2]);
    let group = net.group(0);
    let flows: Vec<_> = (0..200).map(|n| net.open(0, n)).collect();
    net.run(100 * MS);
    // Node 1 has a session that is no more, as it might after a loss.
    let flow = flows[11];
    net.filter = |m| !matches!(m.body, SyncBody::Live(_) | SyncBody::Heartbeat { .. });
    net.reset(0, &flow);
    net.run(20 * MS);
    assert_eq!(net.state(1, &flow), Some(ConnState::Established));
    let hash = net.steering.toeplitz().hash(flow.client, flow.vip);
    let (slot, bucket) = ((hash & 4095) as u16, net.steering.bucket(hash));
    let (pulled, sent) = (
        net.nodes[1].sync(SyncCount::SlotsPulled),
        net.nodes[0].sync(SyncCount::PulledOut),
    );
    // A slot of another bucket, one that there is not.
    for bad in [slot ^ 1, 4096 + slot] {
        let message = skip(&net, bucket, vec![slot, bad]);
        assert_eq!(
            net.hear(1, &message),
            SyncOutcome::Ignored(SyncCount::Invalid),
            "{bad}"
        );
    }
    let message = skip(&net, bucket, vec![slot]);
    for _ in 0..3 {
        assert_eq!(net.hear(1, &message), SyncOutcome::Taken);
    }
    net.run(90 * MS);
    assert_eq!(net.nodes[1].sync(SyncCount::SlotsPulled) - pulled, 1);
    assert!(net.nodes[0].sync(SyncCount::PulledOut) > sent);
    assert_eq!(net.state(1, &flow), Some(ConnState::Close), "the slot says so");
    net.filter = |_| true;
    net.quiet();
    net.run(3000 * MS);
    assert_eq!(net.agree(0, 1, group), 199);
}

#[test]
fn a_join_over_frames_that_come_twice_and_out_of_order() {
    for seed in 0..2 {
        let config = NodeConfig {
            workers: 1,
            ..NodeConfig::default()
        };
        let mut net = Net::joined(seed, &[config; 2]);
        let group = net.group(0);
        let mut flows: Vec<_> = (0..400).map(|n| net.open(0, n)).collect();
        net.run(100 * MS);
        net.crash(1);
        net.meet();
        net.restart(1);
        net.own(1);
        net.weather = Weather {
            loss: 30,
            twice: 1000,
            jitter_us: 500,
            ..Weather::default()
        };
        net.meet();
        net.know(1, 0);
        for n in 0..100 {
            flows.push(net.open(0, 1000 + n));
            net.fin(0, &flows[3 * n as usize].clone());
            net.run(2 * MS);
        }
        for _ in 0..100 {
            if net.nodes[1].outstanding() == 0 {
                break;
            }
            net.run(100 * MS);
        }
        assert_eq!(net.nodes[1].outstanding(), 0, "it ends");
        let count = |c| net.nodes[1].sync(c);
        assert!(count(SyncCount::Unexpected) > 1000, "ends came twice");
        assert!(count(SyncCount::SlotsRepeated) > 0, "something came out of order");
        assert!(count(SyncCount::PulledIn) >= 300);
        net.quiet();
        assert_eq!(net.agree(0, 1, group), 500);
        assert_eq!(first_epoch(net.nodes[0].id).term, 1);
    }
}

/// The base dies while another survivor gives what it has beside it: what the base alone had is not taken to be closed.
#[test]
fn a_base_that_dies_while_another_one_gives_is_no_base() {
    for seed in 0..4 {
        let mut net = Net::joined(seed, &[NodeConfig::default(); 4]);
        let group = net.group(0);
        let mut flows: Vec<_> = (0..100).map(|n| net.open(0, n)).collect();
        net.run(100 * MS);
        net.cut.insert((0, 1));
        flows.extend((100..400).map(|n| net.open(0, n)));
        net.run(100 * MS);
        // These only the base has; those after them only the other one.
        net.cut.insert((0, 3));
        for n in 1000..1600 {
            net.open(0, n);
        }
        net.run(100 * MS);
        net.cut.remove(&(0, 3));
        net.cut.insert((0, 2));
        net.filter = |m| !matches!(m.body, SyncBody::Nack { .. } | SyncBody::Skip { .. });
        flows.extend((400..1000).map(|n| net.open(0, n)));
        net.run(100 * MS);
        let count = |net: &Net, n: usize| net.nodes[n].all(group).len();
        assert_eq!([1, 2, 3].map(|n| count(&net, n)), [100, 1000, 1000]);
        net.crash(0);
        net.filter = |_| true;
        net.cut.clear();
        net.meet();
        adopt(&mut net, group, 1, 2);
        while count(&net, 1) <= 400 {
            net.run(MS / 8);
        }
        assert!(count(&net, 1) < 1300, "it is in the midst");
        net.crash(2);
        net.meet();
        net.run(2500 * MS);
        assert_eq!(merged(&net, 1, group), 2, "it does not hang");
        assert_eq!(net.nodes[1].outstanding(), 0);
        for flow in &flows {
            assert_eq!(net.state(1, flow), Some(ConnState::Established), "seed {seed}");
        }
    }
}
