//! Any opens, changes and closes under any weather: in the quiet after, the replica has what the holder told.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::stats::SyncCount;
use evenkeel_core::sync::Version;
use evenkeel_core::tuple::{L4Proto, Tuple};
use proptest::prelude::*;

use crate::digests::digests_agree;
use crate::net::{Net, NodeConfig, Weather};
use crate::packet::{ACK, FIN, RST, SYN};
use crate::story::{Flow, Kind};

#[derive(Clone, Debug)]
enum Step {
    Open(u32),
    Datagram(u32),
    Fin(prop::sample::Index, bool),
    Reset(prop::sample::Index),
    Again(prop::sample::Index),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let any = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0u32..400).prop_map(Step::Open),
        1 => (0u32..100).prop_map(Step::Datagram),
        3 => (any(), proptest::bool::ANY).prop_map(|(i, b)| Step::Fin(i, b)),
        2 => any().prop_map(Step::Reset),
        2 => any().prop_map(Step::Again),
        3 => prop_oneof![1u64..5, 1u64..50, 1000u64..5000].prop_map(Step::Pass),
    ]
}

fn weather() -> impl Strategy<Value = Weather> {
    (0u64..600, 0u64..300, prop_oneof![Just(0u64), 0u64..30_000]).prop_map(|(loss, twice, jitter_us)| {
        Weather {
            loss,
            twice,
            jitter_us,
            ..Weather::default()
        }
    })
}

fn cases(default: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(default),
    }
}

/// Versions only grow, as long as a session is there.
fn grown(net: &Net, node: usize, before: &mut BTreeMap<(Tuple, Tuple), Version>) {
    let now: BTreeMap<_, _> = net.nodes[node]
        .all(net.group(0))
        .into_iter()
        .map(|(inbound, outbound, _, version)| ((inbound, outbound), version))
        .collect();
    for (session, version) in &now {
        if let Some(old) = before.get(session) {
            assert!(version >= old, "{session:?}: {old:?} became {version:?}");
        }
    }
    *before = now;
}

fn play(seed: u64, weather: Weather, ring: u32, steps: &[Step]) -> (Net, usize) {
    let mut config = NodeConfig::default();
    config.sizes.ring_per_bucket = ring;
    let mut net = Net::joined(seed, &[config; 2]);
    net.weather = weather;
    let mut flows: Vec<Flow> = Vec::new();
    let mut seen = [BTreeMap::new(), BTreeMap::new()];
    for step in steps {
        match step {
            Step::Open(n) => flows.push(net.open(0, *n)),
            Step::Datagram(n) => flows.push(net.begin(0, Kind::V4, L4Proto::Udp, *n)),
            Step::Fin(which, client) if !flows.is_empty() => {
                let flow = &flows[which.index(flows.len())];
                if flow.proto == L4Proto::Tcp {
                    let packet = if *client { flow.inbound() } else { flow.outbound() };
                    net.packet(0, &packet.flags(FIN | ACK));
                }
            }
            Step::Reset(which) if !flows.is_empty() => {
                let flow = &flows[which.index(flows.len())];
                if flow.proto == L4Proto::Tcp {
                    net.packet(0, &flow.inbound().flags(RST | ACK));
                }
            }
            Step::Again(which) if !flows.is_empty() => {
                let flow = flows[which.index(flows.len())];
                if flow.proto == L4Proto::Tcp {
                    net.packet(0, &flow.inbound().flags(SYN));
                    net.packet(0, &flow.outbound().flags(SYN | ACK));
                    net.packet(0, &flow.inbound());
                }
            }
            Step::Pass(ms) => net.run(Duration::from_millis(*ms)),
            _ => {}
        }
        for (node, seen) in seen.iter_mut().enumerate() {
            grown(&net, node, seen);
        }
    }
    net.quiet();
    // A session whose time is up just then is told a moment later.
    for _ in 0..30 {
        let told = net.nodes[0].unacked() == 0 && net.nodes[1].behind() == 0;
        if told && net.nodes.iter().all(|n| n.tombs() == 0) {
            break;
        }
        net.run(Duration::from_millis(100));
    }
    let group = net.group(0);
    let count = net.agree(0, 1, group);
    assert_eq!(digests_agree(&net, 0, 1, 0) as usize, count);
    assert_eq!(
        net.nodes[1].sync(SyncCount::DigestUnequal),
        0,
        "none was too early"
    );
    for node in &net.nodes {
        assert_eq!(node.tombs(), 0, "all have heard of all closes");
        assert_eq!(node.outstanding(), 0);
    }
    assert_eq!(net.nodes[0].unacked(), 0);
    assert_eq!(net.nodes[1].behind(), 0);
    (net, count)
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn after_quiet_the_replica_has_what_the_holder_told(
        seed in 0u64..1000,
        weather in weather(),
        ring in prop_oneof![Just(16u32), Just(256)],
        steps in prop::collection::vec(step(), 1..150),
    ) {
        play(seed, weather, ring, &steps);
    }
}

/// The same by hand, so that it is sure that something happens in it.
#[test]
fn much_happens_in_the_twin() {
    let steps: Vec<Step> = (0..400)
        .flat_map(|n| [Step::Open(n), Step::Pass(1 + u64::from(n % 3))])
        .collect();
    let weather = Weather {
        loss: 400,
        twice: 200,
        jitter_us: 10_000,
        ..Weather::default()
    };
    let (net, count) = play(3, weather, 16, &steps);
    assert_eq!(count, 400);
    assert!(net.nodes[1].sync(SyncCount::Duplicate) > 0);
    assert!(net.nodes[1].sync(SyncCount::NackSent) > 0);
    assert!(net.lost > 100);
}

/// The same inputs, the same messages.
#[test]
fn it_is_deterministic() {
    let run = || {
        let weather = Weather {
            loss: 200,
            twice: 100,
            jitter_us: 2000,
            ..Weather::default()
        };
        let steps: Vec<Step> = (0..100).flat_map(|n| [Step::Open(n), Step::Pass(2)]).collect();
        let (net, _) = play(2, weather, 16, &steps);
        (
            net.sent,
            net.lost,
            net.bytes,
            net.nodes[0].counters(),
            net.nodes[1].counters(),
        )
    };
    let first = run();
    assert!(first.2 > 0, "frames were sent");
    assert_eq!(first, run());
}
