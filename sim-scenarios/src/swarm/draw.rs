//! A scenario out of nothing but a seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use evenkeel_core::service::{Deferral, OnLimit};
use evenkeel_core::sync::codec::FORMAT_VERSION;
use evenkeel_core::tuple::L4Proto;
use evenkeel_io_sim::{Purpose, Streams, WorldBounds};

use crate::expect;
use crate::expect::Expectation;
use crate::mechanism::Kind;
use crate::plan::plan;
use crate::scenario::{
    Action, Arrival, Change, Cluster, Disturbance, Drawn, Fault, Hosts, Link, Links, Load, LoadEnd, Network,
    Node, NodeRef, Replicate, Router, Scenario, ServerRef, Service, Tcp, Way,
};

/// Flows of a drawn scenario at least.
pub const DRAWN_FLOW_COUNT_MIN: usize = 200;

/// Faults begin and end within this time: the safety phase.
const FAULTS: Drawn<Duration> = ms(4_000)..=ms(10_000);
/// Loads that faults meet end then.
const LOADS_END: Duration = ms(12_000);
/// When the liveness phase asks for progress: all faults are over, and what heals has healed.
const AFTER: Drawn<Duration> = ms(14_500)..=ms(15_500);
const DURATION: Duration = ms(21_000);
const QUIET: Duration = ms(4_000);
/// Which load these flows are.
const AFTER_LOAD: usize = 5;
/// Clients do not give up within a run: a flow that lost its session hangs, and is judged by that.
const GIVE_UP: Duration = ms(60_000);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What may go wrong. A run has some of the kinds and leaves out the others, so that what one kind hides another run shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultKind {
    Crash,
    Drain,
    Late,
    Twice,
    Loss,
    Pause,
    CutSync,
    CutClients,
    CutServers,
    CutAll,
    Split,
    OneWay,
    Suppress,
    Queues,
    Bursts,
    Arp,
    Narrow,
    Flips,
    Part,
    Bucket,
    Rings,
    Slow,
    Fill,
    Drift,
    Step,
    Config,
    Unhealthy,
}

/// Those that excuse no flow whose session others have; see `run/excuse.rs`.
const CALM: [FaultKind; 4] = [
    FaultKind::Crash,
    FaultKind::Drain,
    FaultKind::Late,
    FaultKind::Twice,
];
const WILD: [FaultKind; 23] = [
    FaultKind::Loss,
    FaultKind::Pause,
    FaultKind::CutSync,
    FaultKind::CutClients,
    FaultKind::CutServers,
    FaultKind::CutAll,
    FaultKind::Split,
    FaultKind::OneWay,
    FaultKind::Suppress,
    FaultKind::Queues,
    FaultKind::Bursts,
    FaultKind::Arp,
    FaultKind::Narrow,
    FaultKind::Flips,
    FaultKind::Part,
    FaultKind::Bucket,
    FaultKind::Rings,
    FaultKind::Slow,
    FaultKind::Fill,
    FaultKind::Drift,
    FaultKind::Step,
    FaultKind::Config,
    FaultKind::Unhealthy,
];
/// Of these kinds a run of the wild sort has so many, in the mean.
const WILD_COUNT: u64 = 3;

/// No node has more workers than the fewest.
const BUCKETS: [u16; 6] = [8, 8, 8, 16, 16, 64];

/// Draws by name: one more changes no other.
struct Dice(Streams);

impl Dice {
    fn below(&self, what: &str, end: u64) -> u64 {
        let entity = Streams::entity(&format!("swarm {what}"));
        self.0.below(entity, Purpose::Scenario, 0, end)
    }

    fn of<T: Copy>(&self, what: &str, all: &[T]) -> T {
        all[self.below(what, all.len() as u64) as usize]
    }

    /// So many times of a hundred.
    fn happens(&self, what: &str, percent: u64) -> bool {
        self.below(what, 100) < percent
    }

    fn span(&self, what: &str, range: &Drawn<Duration>) -> Duration {
        let width = range.end().saturating_sub(*range.start()).as_millis() as u64;
        *range.start() + ms(self.below(what, width + 1))
    }
}

/// The plan that `seed` draws: nodes, knobs, links, services, loads and faults. First things go wrong and oracles look on;
/// then all faults are over, the nodes heal, and new flows must get through.
pub fn draw(seed: u64) -> Scenario {
    let dice = Dice(Streams::new(seed));
    let cluster = cluster(&dice);
    let services = services(&dice);
    let loads = loads(&dice, &services);
    let router = router(&dice);
    let faults = faults(&dice, &cluster, &services, router.is_some());
    let expects = expects(router.is_some());
    let mut scenario = Scenario {
        name: format!("swarm-{seed}"),
        number: None,
        description:
            "Drawn by `evenkeel sim swarm`: things go wrong, then heal, and everything has to be well again."
                .to_owned(),
        waits_for: None,
        seed: Some(seed),
        ties: Some(dice.below("ties", u64::MAX)),
        duration: DURATION,
        quiet: QUIET,
        cluster,
        bounds: WorldBounds::default(),
        router,
        links: links(&dice),
        hosts: hosts(&dice),
        services,
        loads,
        faults,
        expects,
        off: None,
    };
    scenario = plan(&scenario, seed);
    scenario
}

fn cluster(dice: &Dice) -> Cluster {
    let nodes = dice.of("nodes", &[2u16, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 6, 8]);
    let workers = dice.of("workers", &[1u8, 1, 1, 2, 2, 3, 4]);
    let table = dice.of("table", &[1_024u32, 2_048]);
    let heartbeat = dice.of("heartbeat", &[ms(50), ms(100), ms(200), ms(300)]);
    let node = |id: u16| {
        // As clocks of machines are.
        let drift = match dice.happens(&format!("drift of node {id}"), 20) {
            true => dice.of(&format!("drift of node {id} is"), &[-100, 100]),
            false => 0,
        };
        Node {
            id,
            // Buckets of one node lie otherwise among its workers than those of another.
            workers: match dice.happens(&format!("workers of node {id}"), 15) {
                true => dice.of(&format!("other workers of node {id}"), &[1, 2, 3, 5]),
                false => workers,
            },
            priority: 200 - 10 * id as u8,
            table,
            frame_cost: Duration::from_nanos(200),
            drift_ppm: drift..=drift,
            format: FORMAT_VERSION,
            absent: false,
        }
    };
    Cluster {
        nodes: (1..=nodes).map(node).collect(),
        clustered: true,
        buckets: dice.of("buckets", &BUCKETS),
        local_addresses: dice.of("local_addresses", &[1, 2, 2]),
        local_port_min: dice.of("local_port_min", &[1_024, 64_512, 65_024]),
        heartbeat,
        advertisement: dice.of("advertisement", &[ms(50), ms(100), ms(200)]),
        join_time: heartbeat * dice.of("join_time", &[5, 8]),
        bulk_delay: dice.of("bulk_delay", &[0, 0, 0, 0, 2, 5].map(ms)),
        preempt: dice.happens("preempt", 70),
        lsn_ring: dice.of("lsn_ring", &[None, None, Some(8), Some(64)]),
        ring: dice.of("ring", &[256, 1_024]),
        sealed: dice.happens("sealed", 25),
        // What they mend nobody would see at the end.
        digests: dice.happens("digests", 70),
    }
}

/// Who deals flows to nodes that all answer for the VIPs, instead of a master.
fn router(dice: &Dice) -> Option<Router> {
    dice.happens("router", 15).then(|| Router {
        buckets: dice.of("router's buckets", &[None, Some(64)]),
        detection: Some((dice.of("router's hellos", &[ms(50), ms(100)]), 3)),
    })
}

fn links(dice: &Dice) -> Links {
    let link = |what: &str, high: &[Duration], loss: &[u32], reorder: &[u32]| Link {
        delay: Duration::from_micros(20)..=dice.of(&format!("{what} delay"), high),
        loss_ppm: dice.of(&format!("{what} loss"), loss),
        duplicate_ppm: dice.of(&format!("{what} duplicate"), &[0, 0, 10_000]),
        reorder_ppm: dice.of(&format!("{what} reorder"), reorder),
        ..Link::default()
    };
    let us = Duration::from_micros;
    Links {
        clients: link(
            "clients",
            &[us(100), ms(2), ms(10)],
            &[0, 0, 1_000],
            &[0, 0, 10_000],
        ),
        servers: link(
            "servers",
            &[us(100), us(500), ms(2)],
            &[0, 0, 1_000],
            &[0, 0, 10_000],
        ),
        sync: link(
            "sync",
            &[us(100), us(500), ms(3)],
            &[0, 0, 2_000, 10_000],
            &[0, 0, 50_000, 300_000],
        ),
        ..Links::default()
    }
}

/// Mostly the TCP that costs little; the one that this project did not write looks on at some of it, or has it all.
fn hosts(dice: &Dice) -> Hosts {
    match dice.below("hosts", 10) {
        0 => Hosts::default(),
        n => Hosts {
            clients: Tcp::Flyweight,
            servers: Tcp::Flyweight,
            sampled: (n < 4).then_some(10),
            keepalive: None,
        },
    }
}

/// What tells clients that they are connected waits for one other node or two, until it is let through or dropped.
fn deferred(dice: &Dice, name: &str) -> Replicate {
    let nodes = 1 + dice.below(&format!("deferral of {name}"), 2) as u8;
    let limit = Duration::from_millis(2 + dice.below(&format!("limit of {name}"), 19));
    let on_limit = if dice.happens(&format!("drop of {name}"), 50) {
        OnLimit::Drop
    } else {
        OnLimit::Open
    };
    Deferral::new(nodes, limit, on_limit).map_or_else(Replicate::default, Replicate::Deferred)
}

fn services(dice: &Dice) -> Vec<Service> {
    let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
    let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10));
    let service = |name: &str, vip: IpAddr, port: u16, proto: L4Proto| Service {
        name: name.to_owned(),
        vip: SocketAddr::new(vip, port),
        proto,
        servers: 1 + dice.below(&format!("servers of {name}"), 3) as u32,
        served: true,
        replicate: match dice.below(&format!("replicate of {name}"), 10) {
            0 if name == "other" => Replicate::Off,
            1 | 2 => Replicate::Established,
            3 | 4 => deferred(dice, name),
            _ => Replicate::SynAck,
        },
        established: None,
    };
    let families = dice.below("families", 4);
    let mut services = Vec::new();
    if families != 1 {
        services.push(service("web4", v4, 80, L4Proto::Tcp));
    }
    if families != 0 {
        services.push(service("web6", v6, 80, L4Proto::Tcp));
    }
    if dice.happens("another service", 30) {
        let vip = services[0].vip.ip();
        services.push(service("other", vip, 443, L4Proto::Tcp));
    }
    if dice.happens("udp", 40) {
        let vip = services[0].vip.ip();
        services.push(service("udp", vip, 53, L4Proto::Udp));
    }
    services
}

fn loads(dice: &Dice, services: &[Service]) -> Vec<Load> {
    let of = |proto: L4Proto| {
        let services = services.iter().enumerate();
        services
            .filter(|(_, s)| s.proto == proto)
            .map(|(i, _)| i)
            .collect::<Vec<_>>()
    };
    let tcp = of(L4Proto::Tcp);
    let load = |name: &str, services: &[usize], arrival: Arrival| Load {
        name: name.to_owned(),
        services: services.to_vec(),
        arrival,
        requests: None,
        request_bytes: 100,
        reply_bytes: dice.of(&format!("reply of {name}"), &[100u32, 600, 1_300]),
        every: ms(300)..=ms(1_500),
        end: LoadEnd::Close,
        until: Some(LOADS_END),
        give_up: GIVE_UP,
    };
    let many = |what: &str, low: u32, more: u64| low + dice.below(what, more) as u32;
    let early = ms(1_800)..=ms(3_500);
    let mut loads = vec![
        load("long", &tcp, Arrival::Flows(many("long", 50, 40), early.clone())),
        Load {
            requests: Some(2),
            end: LoadEnd::Stay,
            ..load("stay", &tcp, Arrival::Flows(many("stay", 20, 20), early.clone()))
        },
        // Over before anything goes wrong: they must stay so.
        Load {
            requests: Some(1),
            every: ms(5)..=ms(20),
            ..load("early", &tcp, Arrival::Flows(30, ms(1_800)..=ms(3_000)))
        },
        Load {
            requests: Some(2),
            every: ms(5)..=ms(50),
            ..load(
                "short",
                &tcp,
                Arrival::Flows(many("short", 80, 60), ms(2_500)..=ms(11_000)),
            )
        },
        Load {
            requests: Some(3),
            end: LoadEnd::Reset,
            ..load(
                "reset",
                &tcp,
                Arrival::Flows(many("reset", 10, 10), ms(2_000)..=ms(9_000)),
            )
        },
        Load {
            requests: Some(3),
            every: ms(100)..=ms(300),
            until: None,
            ..load("after", &tcp, Arrival::Flows(20, AFTER))
        },
    ];
    loads.push(Load {
        requests: Some(2),
        end: LoadEnd::Vanish,
        ..load(
            "vanish",
            &tcp,
            Arrival::Flows(many("vanish", 2, 6), early.clone()),
        )
    });
    let udp = of(L4Proto::Udp);
    if !udp.is_empty() {
        loads.push(Load {
            reply_bytes: 200,
            ..load("datagrams", &udp, Arrival::Flows(20, early))
        });
    }
    loads
}

fn faults(dice: &Dice, cluster: &Cluster, services: &[Service], shared: bool) -> Vec<Fault> {
    // Every other run has calm kinds alone, and what breaks in it has hardly an excuse.
    let mut kinds: Vec<FaultKind> = CALM
        .into_iter()
        .filter(|k| dice.happens(&format!("has {k:?}"), 60))
        .collect();
    if dice.happens("wild", 55) {
        kinds.extend(
            WILD.into_iter()
                .filter(|k| dice.below(&format!("has {k:?}"), WILD.len() as u64) < WILD_COUNT),
        );
    }
    if kinds.is_empty() {
        kinds.push(FaultKind::Crash);
    }
    let count = 3 + dice.below("faults", 4);
    let mut faults = Vec::new();
    for n in 0..count {
        let kind = dice.of(&format!("kind of {n}"), &kinds);
        fault(dice, n, kind, (cluster, services, shared), &mut faults);
    }
    faults
}

/// The `n`th fault, which may have several parts.
fn fault(
    dice: &Dice,
    n: u64,
    kind: FaultKind,
    (cluster, services, shared): (&Cluster, &[Service], bool),
    faults: &mut Vec<Fault>,
) {
    let (nodes, buckets) = (cluster.nodes.len() as u64, cluster.buckets);
    let what = |part: &str| format!("{part} of fault {n}");
    let id = NodeRef::Id(1 + dice.below(&what("id"), nodes) as u16);
    // Behind a router no node is the master.
    let (master, backup) = match (shared, id) {
        (true, NodeRef::Id(of)) => (id, NodeRef::Id(of % nodes as u16 + 1)),
        _ => (NodeRef::Master, NodeRef::Backup),
    };
    let node = dice.of(&what("node"), &[master, master, backup, id, id]);
    let long = dice.happens(&what("long"), 50);
    let lasts = match long {
        true => dice.span(&what("lasts"), &(ms(800)..=ms(3_000))),
        false => dice.span(&what("lasts"), &(ms(50)..=ms(700))),
    };
    let at = dice.span(&what("at"), &(*FAULTS.start()..=*FAULTS.end() - lasts));
    let ppm = |low: u32, high: u64| low + dice.below(&what("ppm"), high) as u32;
    let mut add = |part: &str, at: Duration, lasts: Option<Duration>, action: Action| {
        faults.push(Fault {
            name: format!("{part}-{n}"),
            at: at..=at,
            after: None,
            when: None,
            optional: false,
            lasts: lasts.map(|l| l..=l),
            action,
        });
    };
    let network = dice.of(
        &what("network"),
        &[Network::Sync, Network::Sync, Network::Clients],
    );
    let disturb = |disturbance| {
        let network = match dice.happens(&what("servers"), 12) {
            true => Network::Servers,
            false => network,
        };
        let way = dice.of(
            &what("ways"),
            &[Way::Both, Way::Both, Way::Both, Way::In, Way::Out],
        );
        Action::Disturb(node, network, way, disturbance)
    };
    // Some come back with what they had on their disk, some without.
    let state = !dice.happens(&what("disk"), 15);
    match kind {
        FaultKind::Crash => {
            // Back so soon that frames of the life before are still on their way.
            let blink = dice.happens(&what("blink"), 15);
            let lasts = match blink {
                true => dice.span(&what("blinks"), &(ms(1)..=ms(8))),
                false => lasts,
            };
            add("crash", at, Some(lasts), Action::Crash(node, state));
        }
        FaultKind::Drain => {
            // Who has left is switched off and started again.
            let off = at + lasts / 2;
            add("drain", at, None, Action::Drain(id));
            add("off", off, Some(lasts / 2), Action::Crash(id, state));
        }
        FaultKind::Late => add(
            "late",
            at,
            Some(lasts),
            disturb(Disturbance {
                reorder_ppm: ppm(100_000, 500_000),
                reorder_by: dice.span(&what("by"), &(ms(1)..=ms(30))),
                ..Disturbance::default()
            }),
        ),
        FaultKind::Twice => add(
            "twice",
            at,
            Some(lasts),
            disturb(Disturbance {
                duplicate_ppm: ppm(100_000, 900_000),
                copies: 1 + dice.below(&what("copies"), 3) as u8,
                ..Disturbance::default()
            }),
        ),
        FaultKind::Loss => add(
            "loss",
            at,
            Some(lasts),
            disturb(Disturbance {
                loss_ppm: ppm(20_000, 500_000),
                ..Disturbance::default()
            }),
        ),
        FaultKind::Pause => {
            let clock = dice.happens(&what("clock"), 50);
            add("pause", at, Some(lasts), Action::Pause(node, clock));
        }
        FaultKind::CutSync => add(
            "cut",
            at,
            Some(lasts),
            Action::Cut(node, Network::Sync, Way::Both),
        ),
        FaultKind::CutClients => add(
            "cut",
            at,
            Some(lasts),
            Action::Cut(node, Network::Clients, Way::Both),
        ),
        FaultKind::CutServers => add(
            "cut",
            at,
            Some(lasts),
            Action::Cut(node, Network::Servers, Way::Both),
        ),
        FaultKind::CutAll => add("cut", at, Some(lasts), Action::Cut(node, Network::All, Way::Both)),
        FaultKind::Split => {
            // Nobody hears this node, and clients do: two serve.
            let suppress = Action::Suppress {
                from: None,
                to: Some(id),
                kinds: vec![Kind::Vrrp],
                frames: None,
            };
            add("cut", at, Some(lasts), Action::Cut(id, Network::Sync, Way::Both));
            add("deaf", at, Some(lasts), suppress);
        }
        FaultKind::OneWay => {
            let way = dice.of(&what("way"), &[Way::In, Way::Out]);
            add("one-way", at, Some(lasts), Action::Cut(node, network, way));
        }
        FaultKind::Suppress => {
            let kinds = [
                Kind::Live,
                Kind::Close,
                Kind::Ack,
                Kind::Nack,
                Kind::Slot,
                Kind::Pull,
                Kind::Watermark,
                Kind::Merged,
                Kind::Offer,
                Kind::Presence,
                Kind::Fenced,
                Kind::Hint,
                Kind::Skip,
                Kind::Heartbeat,
                Kind::Handover,
            ];
            let suppress = Action::Suppress {
                from: None,
                to: dice.happens(&what("to"), 50).then_some(id),
                kinds: vec![dice.of(&what("kinds"), &kinds)],
                frames: dice.of(&what("frames"), &[None, Some(1), Some(10)]),
            };
            add("lost", at, Some(lasts), suppress);
        }
        FaultKind::Queues => {
            let entries = dice.of(&what("entries"), &[1, 4, 16]);
            add("queues", at, Some(lasts), Action::Queues(node, entries));
        }
        FaultKind::Bursts => add(
            "bursts",
            at,
            Some(lasts),
            disturb(Disturbance {
                loss_ppm: ppm(10_000, 200_000),
                burst: Some(dice.of(&what("burst"), &[3, 10, 40])),
                ..Disturbance::default()
            }),
        ),
        FaultKind::Arp => add(
            "arp",
            at,
            Some(lasts),
            disturb(Disturbance {
                arp_ppm: ppm(200_000, 800_001),
                ..Disturbance::default()
            }),
        ),
        FaultKind::Narrow => add(
            "narrow",
            at,
            Some(lasts),
            disturb(Disturbance {
                delay: dice.span(&what("delay"), &(ms(1)..=ms(150))),
                bandwidth: dice.of(&what("bandwidth"), &[None, Some(2_000_000), Some(20_000_000)]),
                ..Disturbance::default()
            }),
        ),
        FaultKind::Flips => add(
            "flips",
            at,
            Some(lasts),
            disturb(Disturbance {
                corrupt_ppm: ppm(1_000, 100_000),
                ..Disturbance::default()
            }),
        ),
        FaultKind::Part => {
            let to = NodeRef::Id(1 + (dice.below(&what("id"), nodes) as u16 + 1) % nodes as u16);
            let way = dice.of(&what("way"), &[Way::Both, Way::In, Way::Out]);
            add("part", at, Some(lasts), Action::Part(id, to, network, way));
        }
        FaultKind::Bucket => {
            let bucket = dice.below(&what("bucket"), u64::from(buckets)) as u16;
            add("bucket", at, Some(lasts), Action::Bucket(node, bucket));
        }
        FaultKind::Rings => {
            let entries = dice.of(&what("entries"), &[1, 4, 16]);
            add("rings", at, Some(lasts), Action::Rings(node, entries));
        }
        FaultKind::Slow => {
            let worker = dice.of(&what("worker"), &[None, Some(0)]);
            let factor = dice.of(&what("factor"), &[10, 100, 1_000]);
            add("slow", at, Some(lasts), Action::Slow(node, worker, factor));
        }
        FaultKind::Fill => {
            let share = dice.of(&what("share"), &[500_000, 900_000, 1_000_000]);
            let dies = dice.happens(&what("dies"), 40);
            let node = if dies { backup } else { node };
            add("fill", at, Some(lasts), Action::Fill(node, share));
            if dies {
                // Before the other one has room for what it holds.
                let crash = Action::Crash(master, state);
                add("dies", at + lasts / 2, Some(lasts / 2), crash);
            }
        }
        FaultKind::Drift => {
            let ppm = dice.of(&what("drift"), &[-50_000, -1_000, 1_000, 50_000]);
            add("drift", at, Some(lasts), Action::Drift(node, ppm));
        }
        FaultKind::Step => {
            let by = dice.span(&what("by"), &(ms(1)..=ms(3_000)));
            add("step", at, None, Action::Step(node, by));
        }
        FaultKind::Config | FaultKind::Unhealthy => {
            let service = dice.below(&what("service"), services.len() as u64) as usize;
            let servers = services.get(service).map_or(1, |s| s.servers);
            let server = 1 + dice.below(&what("server"), servers.into()) as u32;
            let whom = dice.of(&what("whom"), &[None, None, Some(node)]);
            let server = ServerRef { service, server };
            let action = match kind {
                FaultKind::Unhealthy => Action::Unhealthy(whom, server),
                _ => Action::Config(
                    whom,
                    dice.of(
                        &what("change"),
                        &[
                            Change::Weight(server, 0),
                            Change::Weight(server, 7),
                            Change::Servers(service, servers + 1),
                            Change::Served(service, false),
                        ],
                    ),
                ),
            };
            let part = match kind {
                FaultKind::Unhealthy => "unhealthy",
                _ => "config",
            };
            add(part, at, Some(lasts), action);
        }
    }
}

/// What must come out of every drawn scenario, beside what oracles see. All of it holds whatever is taken out of a plan.
fn expects(shared: bool) -> Vec<Expectation> {
    [
        ("unexcused == 0", None),
        ("not_ready == 0", None),
        ("masters == 1", None),
        ("broken + failed + hanging == blocked", Some(AFTER_LOAD)),
    ]
    .into_iter()
    // Behind a router all nodes answer.
    .filter(|(text, _)| !(shared && text.starts_with("masters")))
    .filter_map(|(text, of)| {
        let comparison = expect::parse(text).ok()?;
        Some(Expectation {
            name: match of {
                Some(_) => format!("{text} of after"),
                None => text.to_owned(),
            },
            text: text.to_owned(),
            comparison,
            of,
            written: expect::Written::default(),
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_faults_of_a_drawn_scenario_end_before_it_must_be_well() {
        for seed in 0..300 {
            let drawn = draw(seed);
            for fault in &drawn.faults {
                let end = *fault.at.end() + fault.lasts.as_ref().map_or(Duration::ZERO, |l| *l.end());
                assert!(
                    fault.at.start() >= FAULTS.start() && end <= *FAULTS.end(),
                    "seed {seed}: {fault:?}"
                );
                // What nothing undoes is an end by itself.
                let goes_on = matches!(fault.action, Action::Drain(_) | Action::Step(..));
                assert!(fault.lasts.is_some() || goes_on, "seed {seed}: {fault:?}");
            }
            let Some(Arrival::Planned(after)) = drawn.loads.get(AFTER_LOAD).map(|l| &l.arrival) else {
                panic!("seed {seed}: no flows in the end");
            };
            assert!(after.len() == 20 && after.iter().all(|f| f.start >= *AFTER.start()));
            for of_all in ["unexcused == 0", "not_ready == 0", "masters == 1"] {
                let asked = drawn.expects.iter().any(|e| e.text == of_all && e.of.is_none());
                assert_eq!(asked, drawn.router.is_none() || of_all != "masters == 1");
            }
            assert!(drawn.expects.iter().any(|e| e.of == Some(AFTER_LOAD)));
        }
    }

    #[test]
    fn every_seed_draws_a_scenario_that_is_read_as_it_is_written() {
        let (mut nodes, mut workers, mut faults) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut variants = BTreeSet::new();
        for seed in (0..600).chain([u64::MAX, 1 << 63]) {
            let drawn = draw(seed);
            let text = crate::language::write(&drawn);
            let read = crate::language::parse("drawn.toml", &text, &|_| Err(String::new()));
            let read = read.unwrap_or_else(|e| panic!("{seed}: {:?}\n{text}", e.problems()));
            assert_eq!(read, drawn, "seed {seed}");
            assert_eq!(drawn.expects.len(), if drawn.router.is_some() { 3 } else { 4 });
            if let Some(router) = drawn.router {
                variants.insert(format!("router {:?}", router.buckets));
            }
            let flows = drawn.loads.iter().map(|l| match &l.arrival {
                Arrival::Planned(flows) => flows.len(),
                _ => 0,
            });
            assert!(flows.sum::<usize>() >= DRAWN_FLOW_COUNT_MIN, "seed {seed}");
            assert!(drawn.faults.len() >= 3 && drawn.duration >= ms(20_000));
            nodes.insert(drawn.cluster.nodes.len());
            workers.extend(drawn.cluster.nodes.iter().map(|n| n.workers));
            for fault in &drawn.faults {
                let part = fault.name.rsplit_once('-').map_or("", |(part, _)| part);
                faults.insert(part.to_owned());
                match &fault.action {
                    Action::Crash(_, state) => {
                        variants.insert(format!("crash {state}"));
                    }
                    Action::Cut(_, network, way) | Action::Disturb(_, network, way, _) => {
                        variants.insert(format!("{part} {network:?} {way:?}"));
                    }
                    Action::Suppress { kinds, .. } => {
                        variants.extend(kinds.iter().map(|kind| format!("{part} {kind:?}")));
                    }
                    _ => {}
                }
            }
            assert!(drawn.loads.iter().any(|l| l.end == LoadEnd::Vanish));
        }
        assert_eq!(nodes, BTreeSet::from([2, 3, 4, 5, 6, 8]));
        assert!(workers.contains(&1) && workers.contains(&4));
        insta::assert_snapshot!(format!(
            "{}\n\n{}",
            faults.into_iter().collect::<Vec<_>>().join("\n"),
            variants.into_iter().collect::<Vec<_>>().join("\n")
        ));
    }
}
