//! Nodes that seal what they say: control sides and workers of the core, real keys, and a network that keeps all that it ever carried.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::cluster::{
    ClusterConfig, Control, ControlSink, Incarnation, Member, NodeEvent, NodeId, PeerId,
};
use evenkeel_core::conn::{HeapMemory, TableSizes};
use evenkeel_core::hash::MICROSOFT_KEY;
use evenkeel_core::lport::Steering;
use evenkeel_core::port::{PortId, WorkerId};
use evenkeel_core::sync::codec::{
    FrameHeader, FrameType, FrameWriter, LIVE_FRAME_LEN_MAX, STREAM_CONTROL, decode,
};
use evenkeel_core::sync::seal::{
    AeadKey, Crypto, Lens, REKEY_SHIFT, Salt, Sealing, Secret, Secrets, SecretsError, Suite,
};
use evenkeel_core::sync::{
    ClusterSizes, ClusterWorkerConfig, Destination, Readiness, ReceiverCounters, Refused, SyncBody,
    SyncCommand, SyncMessage,
};
use evenkeel_core::time::Instant;
use evenkeel_core::worker::{BucketMap, Command, Event, Worker, WorkerConfig};
use evenkeel_seal::Ring;
use proptest::prelude::*;

const CLUSTER: u32 = 7;
const WORKERS: u8 = 2;
const HEARTBEAT: Duration = Duration::from_millis(100);

fn secret(byte: u8) -> Secret {
    Secret([byte; 32])
}

fn secrets(ids: &[u8]) -> Secrets {
    Secrets::new(ids.iter().map(|id| (*id, secret(*id))).collect()).expect("numbers are right")
}

fn salt(node: u16, life: u64) -> Salt {
    let mut salt = [0xa5; 16];
    salt[..2].copy_from_slice(&node.to_le_bytes());
    salt[2..10].copy_from_slice(&life.to_le_bytes());
    salt
}

#[derive(Clone)]
struct Plan {
    suite: Suite,
    secrets: Secrets,
    sealed: bool,
}

struct Node {
    control: Control,
    workers: Vec<Worker>,
}

/// What a node's control side puts down.
#[derive(Default)]
struct Out {
    now: Instant,
    sync: Vec<(Option<NodeId>, Vec<u8>)>,
    commands: Vec<(WorkerId, SyncCommand)>,
    messages: Vec<SyncMessage>,
}

impl ControlSink for Out {
    fn sync(&mut self, to: Option<NodeId>, frame: &[u8]) -> Option<Instant> {
        self.sync.push((to, frame.to_vec()));
        Some(self.now)
    }
    fn frame(&mut self, _: PortId, _: Vec<u8>) -> Option<Instant> {
        Some(self.now)
    }
    fn command(&mut self, worker: WorkerId, command: SyncCommand) {
        self.commands.push((worker, command));
    }
    fn message(&mut self, message: SyncMessage) {
        self.messages.push(message);
    }
    fn event(&mut self, _: NodeEvent) {}
}

struct Net {
    now: Instant,
    nodes: BTreeMap<u16, Node>,
    on_its_way: VecDeque<(u16, Vec<u8>)>,
    /// All that was ever sent: to whom, and the frame.
    seen: Vec<(u16, Vec<u8>)>,
    /// Nodes that hear nothing, and one in so many frames is lost.
    deaf: BTreeSet<u16>,
    loss: u64,
    random: u64,
}

fn config(node: u16) -> ClusterConfig {
    let member = |id: u16| Member {
        id: NodeId(id),
        priority: 100,
        local_addrs: vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, id as u8))],
        vrrp_sources: vec![],
    };
    ClusterConfig {
        cluster: CLUSTER,
        id: NodeId(node),
        members: (1..=3).map(member).collect(),
        heartbeat: HEARTBEAT,
        down_count: 3,
        lease_margin: Duration::from_millis(50),
        join_time: Duration::from_secs(1),
        announce: vec![],
        vrrp: None,
        shared_addrs: vec![],
    }
}

impl Node {
    fn new(node: u16, life: u64, salt: Salt, plan: &Plan, now: Instant) -> Self {
        let sealing = plan.sealed.then(|| Sealing {
            crypto: Arc::new(Ring::with(plan.suite)),
            secrets: plan.secrets.clone(),
            salt,
        });
        let id = PeerId {
            node: NodeId(node),
            incarnation: Incarnation(life),
        };
        let control = Control::new(config(node), id.incarnation, WORKERS, 1, now, sealing.clone());
        let steering = Arc::new(Steering::new(&MICROSOFT_KEY, 16).expect("full rank"));
        let worker = |w: u8| {
            let config = WorkerConfig {
                id: WorkerId(w),
                buckets: BucketMap::dealt(u16::from(WORKERS)),
                steering: steering.clone(),
                sizes: TableSizes {
                    conns_v4: 64,
                    conns_v6: 64,
                    exts: 1,
                },
                local_port_min: 1024,
                seed: 1,
                hold: None,
                cluster: Some(ClusterWorkerConfig {
                    id,
                    cluster: CLUSTER,
                    sizes: ClusterSizes::default(),
                    sealing: sealing.clone(),
                }),
            };
            Worker::new(config, &mut HeapMemory).expect("small tables")
        };
        Node {
            control: control.expect("the config is right"),
            workers: (0..WORKERS).map(worker).collect(),
        }
    }
}

impl Net {
    fn new() -> Self {
        Net {
            now: Instant::from_millis(1_000),
            nodes: BTreeMap::new(),
            on_its_way: VecDeque::new(),
            seen: Vec::new(),
            deaf: BTreeSet::new(),
            loss: u64::MAX,
            random: 1,
        }
    }

    fn start(&mut self, node: u16, life: u64, plan: &Plan) {
        self.start_with(node, life, salt(node, life), plan);
    }

    fn start_with(&mut self, node: u16, life: u64, salt: Salt, plan: &Plan) {
        self.nodes
            .insert(node, Node::new(node, life, salt, plan, self.now));
    }

    fn ready(plan: &Plan) -> Self {
        let mut net = Net::new();
        net.start(1, 10, plan);
        net.start(2, 20, plan);
        net.until("both are ready", |n| n.is_ready(1) && n.is_ready(2));
        net
    }

    fn is_ready(&self, node: u16) -> bool {
        self.nodes[&node].control.core().readiness() == Readiness::Ready
    }

    fn counters(&self, node: u16) -> ReceiverCounters {
        *self.nodes[&node].control.receiver().counters()
    }

    fn hears(&self, node: u16, of: u16) -> Option<u64> {
        let receiver = self.nodes[&node].control.receiver();
        receiver.incarnation(NodeId(of)).map(|i| i.0)
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Net) -> bool) {
        for _ in 0..10_000 {
            if holds(self) {
                return;
            }
            self.step();
        }
        panic!(
            "never: {what}; {:?}",
            self.nodes.keys().map(|n| self.counters(*n)).collect::<Vec<_>>()
        );
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        for (to, frame) in std::mem::take(&mut self.on_its_way) {
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            if !(self.random >> 33).is_multiple_of(self.loss) && !self.deaf.contains(&to) {
                let _ = self.give(to, &frame);
            }
        }
        let ids: Vec<u16> = self.nodes.keys().copied().collect();
        for id in ids {
            let mut out = Out {
                now: self.now,
                ..Out::default()
            };
            let node = self.nodes.get_mut(&id).expect("it runs");
            node.control.handle_timeout(self.now, &mut out);
            self.carry_out(id, out);
            let mut frame = Vec::new();
            for w in 0..usize::from(WORKERS) {
                let worker = &mut self.nodes.get_mut(&id).expect("it runs").workers[w];
                worker.handle_timeout(self.now);
                let mut sync = Vec::new();
                while let Some(to) = worker.poll_sync(self.now, &mut frame) {
                    let to = match to {
                        Destination::All => None,
                        Destination::One(peer) => Some(peer.node),
                    };
                    sync.push((to, frame.clone()));
                }
                self.send(id, sync);
                self.events_of(id, w);
            }
        }
    }

    fn events_of(&mut self, id: u16, w: usize) {
        while let Some(event) = self.nodes.get_mut(&id).expect("it runs").workers[w].poll_event() {
            if let Event::Sync(event) = event {
                let mut out = Out {
                    now: self.now,
                    ..Out::default()
                };
                let control = &mut self.nodes.get_mut(&id).expect("it runs").control;
                control.handle_event(self.now, WorkerId(w as u8), event, &mut out);
                self.carry_out(id, out);
            }
        }
    }

    /// Hands a frame over.
    fn give(&mut self, to: u16, frame: &[u8]) -> Option<Result<usize, Refused>> {
        let mut out = Out {
            now: self.now,
            ..Out::default()
        };
        let node = self.nodes.get_mut(&to)?;
        let done = node.control.handle_sync(self.now, frame, &mut out);
        self.carry_out(to, out);
        Some(done)
    }

    fn carry_out(&mut self, id: u16, out: Out) {
        for (worker, command) in out.commands {
            let worker = &mut self.nodes.get_mut(&id).expect("it runs").workers[usize::from(worker.0)];
            worker
                .handle_command(self.now, Command::Sync(command))
                .expect("it has a cluster");
        }
        for message in out.messages {
            let at = usize::from(message.bucket) % usize::from(WORKERS);
            let worker = &mut self.nodes.get_mut(&id).expect("it runs").workers[at];
            worker.handle_sync(self.now, &message);
        }
        self.send(id, out.sync);
    }

    fn send(&mut self, from: u16, frames: Vec<(Option<NodeId>, Vec<u8>)>) {
        for (to, frame) in frames {
            for node in (1..=3).filter(|n| *n != from && to.is_none_or(|to| to.0 == *n)) {
                self.seen.push((node, frame.clone()));
                if self.nodes.contains_key(&node) {
                    self.on_its_way.push_back((node, frame.clone()));
                }
            }
        }
    }
}

fn plan() -> Plan {
    Plan {
        suite: Suite::AesGcm,
        secrets: secrets(&[1]),
        sealed: true,
    }
}

#[test]
fn nodes_greet_each_other_and_all_that_they_say_is_sealed() {
    for suite in [Suite::AesGcm, Suite::ChaCha] {
        let mut net = Net::ready(&Plan { suite, ..plan() });
        net.run(2_000);
        for (n, other, life) in [(1, 2, 20), (2, 1, 10)] {
            assert_eq!(net.hears(n, other), Some(life));
            let c = net.counters(n);
            assert!(c.accepted > 100, "{c:?}");
            assert_eq!(c.restarts, 1);
            let refused = [
                c.forged,
                c.no_secret,
                c.unsealed,
                c.malformed,
                c.unsupported,
                c.old_incarnation,
            ];
            assert_eq!(refused, [0; 6], "{c:?}");
        }
        assert!(
            net.seen.iter().all(|(_, frame)| frame[3] == 1),
            "key 1 seals each"
        );
        let hellos = |net: &Net| net.seen.iter().filter(|(to, f)| f[1] == 2 && *to != 3).count();
        let before = hellos(&net);
        assert!((4..20).contains(&before), "{before} to get there");
        net.run(5_000);
        assert_eq!(hellos(&net), before, "nobody greets who is greeted");
    }
}

/// Each of the two may seal as it is faster for it.
#[test]
fn who_seals_otherwise_is_heard_as_well() {
    let mut net = Net::new();
    net.start(1, 10, &plan());
    net.start(
        2,
        20,
        &Plan {
            suite: Suite::ChaCha,
            ..plan()
        },
    );
    net.until("both are ready", |n| n.is_ready(1) && n.is_ready(2));
    assert_eq!(net.counters(1).forged + net.counters(2).forged, 0);
}

/// I13: whatever is made of a frame without the secret changes nothing but a counter.
#[test]
fn frames_forged_cut_or_of_others_change_nothing() {
    let mut net = Net::ready(&plan());
    net.run(500);
    let last = |net: &Net, kind: u8| {
        let mut all = net.seen.iter().rev();
        all.find(|(to, f)| *to == 2 && f[1] == kind)
            .expect("one was sent")
            .1
            .clone()
    };
    // Frames that have not come: each byte of one counts, and it alone.
    net.deaf.insert(2);
    net.run(150);
    let since = net.seen.len();
    net.run(150);
    let sent: Vec<Vec<u8>> = net.seen[since..]
        .iter()
        .filter(|(to, _)| *to == 2)
        .map(|(_, f)| f.clone())
        .collect();
    assert!(sent.len() > 5 && sent.iter().any(|f| f[10] == 255) && sent.iter().any(|f| f[10] < 2));
    for frame in [sent[0].clone(), sent[sent.len() - 1].clone(), last(&net, 2)] {
        let before = net.counters(2);
        let mut tried = 0;
        for at in 0..frame.len() {
            let mut forged = frame.clone();
            forged[at] ^= 1;
            let done = net.give(2, &forged).expect("it runs");
            assert!(done.is_err(), "byte {at} of {frame:?}: {done:?}");
            assert!(net.give(2, &frame[..at]).expect("it runs").is_err());
            tried += 2;
        }
        let c = net.counters(2);
        assert_eq!(c.accepted, before.accepted);
        assert!(c.forged >= before.forged + frame.len() as u64 - 32, "{c:?}");
        assert_eq!(c.frames, before.frames + tried);
        let receiver = net.nodes[&2].control.receiver();
        assert_eq!(
            receiver.ungreeted().collect::<Vec<_>>(),
            [NodeId(3)],
            "nothing but counters has changed"
        );
    }
    // As it was sent it is taken; and what was for another node is not.
    assert_eq!(net.give(2, &sent[0]).map(|done| done.is_ok()), Some(true));
    let for_3 = net
        .seen
        .iter()
        .rev()
        .find(|(to, f)| *to == 3 && f[1] == 2 && f[8] == 1)
        .expect("it is asked for")
        .1
        .clone();
    assert_eq!(net.give(2, &for_3), Some(Err(Refused::Forged)));
    net.deaf.clear();
    net.run(500);
    assert!(net.is_ready(1) && net.is_ready(2));
    // What is not sealed at all; what another secret of the same number seals; what one of another number does.
    let mut clear = Vec::new();
    let header = FrameHeader {
        cluster: CLUSTER,
        from: PeerId {
            node: NodeId(1),
            incarnation: Incarnation(10),
        },
        stream: 0,
        packet_number: 1 << 40,
    };
    let mut writer = FrameWriter::new(&mut clear, &header, LIVE_FRAME_LEN_MAX);
    writer
        .push(0, false, &SyncBody::Heartbeat { last: 9 })
        .expect("it fits");
    writer.finish();
    assert_eq!(net.give(2, &clear), Some(Err(Refused::Unsealed)));
    for (id, byte, why) in [(1, 9, Refused::Forged), (9, 1, Refused::NoSecret)] {
        let other = Secrets::new(vec![(id, secret(byte))]).expect("one");
        let mut stranger = Net::new();
        stranger.start(
            1,
            30,
            &Plan {
                secrets: other,
                ..plan()
            },
        );
        stranger.run(200);
        let hello = stranger
            .seen
            .iter()
            .find(|(to, _)| *to == 2)
            .expect("it greets")
            .1
            .clone();
        assert_eq!(net.give(2, &hello), Some(Err(why)));
    }
    assert_eq!(net.hears(2, 1), Some(10));
}

/// Nothing that was said before a node was started is taken by it: neither of a life that goes on nor of one that is over.
#[test]
fn a_node_that_was_restarted_cannot_be_replayed_to() {
    let mut net = Net::ready(&plan());
    net.run(1_000);
    net.nodes.remove(&2);
    net.run(50);
    net.start(2, 21, &plan());
    let old: Vec<Vec<u8>> = net
        .seen
        .iter()
        .filter(|(to, _)| *to == 2)
        .map(|(_, f)| f.clone())
        .collect();
    assert!(old.len() > 50);
    let all_refused = |net: &mut Net| {
        for frame in &old {
            let done = net.give(2, frame).expect("it runs");
            // A HELLO that is heard again is answered, and greets nobody.
            assert!(done.is_err() || frame[1] == 2, "{done:?}");
        }
    };
    all_refused(&mut net);
    assert_eq!(net.hears(2, 1), None, "an old answer is none");
    net.until("it is greeted", |n| n.hears(2, 1) == Some(10));
    all_refused(&mut net);
    net.until("both are ready", |n| n.is_ready(1) && n.is_ready(2));
    all_refused(&mut net);
    let c = net.counters(2);
    assert!(c.ungreeted > 50 && c.replayed + c.too_old > 50, "{c:?}");
    assert_eq!(net.hears(1, 2), Some(21));
    // The other one is restarted, too: what it said in its first life is over.
    net.nodes.remove(&1);
    net.start(1, 11, &plan());
    net.until("it is greeted again", |n| n.hears(2, 1) == Some(11));
    let before = net.counters(2).old_incarnation;
    all_refused(&mut net);
    let questions = old.iter().filter(|f| f[1] == 2).count();
    assert!(questions > 0 && net.counters(2).old_incarnation >= before + (old.len() - questions) as u64);
    assert_eq!(net.hears(2, 1), Some(11));
}

/// One answer or the other is lost, for long: they are said again.
#[test]
fn greetings_that_are_lost_are_repeated() {
    for loss in [2, 3, 5] {
        for deaf in [1, 2] {
            let mut net = Net::new();
            net.loss = loss;
            net.deaf.insert(deaf);
            net.start(1, 10, &plan());
            net.start(2, 20, &plan());
            net.run(3_000);
            let hearing = 3 - deaf;
            assert_eq!(net.hears(deaf, hearing), None);
            assert_eq!(net.hears(hearing, deaf), None, "an answer is needed");
            net.deaf.clear();
            net.until("both hear", |n| {
                n.hears(1, 2).is_some() && n.hears(2, 1).is_some()
            });
        }
    }
}

/// Secrets are changed while all serve: a second one that all accept, then the new one first, then it alone.
#[test]
fn secrets_are_changed_without_a_frame_that_is_not_understood() {
    let mut net = Net::ready(&plan());
    for (step, ids) in [&[1, 2][..], &[2, 1], &[2]].into_iter().enumerate() {
        for node in [1, 2] {
            let mut out = Out {
                now: net.now,
                ..Out::default()
            };
            let control = &mut net.nodes.get_mut(&node).expect("it runs").control;
            control.handle_secrets(net.now, &secrets(ids), &mut out);
            net.carry_out(node, out);
            net.run(700);
            let told = net.nodes[&node].control.secrets();
            assert_eq!(told, (step as u32 + 1, usize::from(WORKERS)));
        }
    }
    for node in [1, 2] {
        let c = net.counters(node);
        assert_eq!((c.no_secret, c.forged), (0, 0), "{c:?}");
    }
    let seen = net.seen.len();
    net.run(500);
    assert!(net.seen.len() > seen + 20);
    assert!(
        net.seen[seen..].iter().all(|(_, f)| f[3] == 2),
        "the new one seals all"
    );
    assert!(net.is_ready(1) && net.is_ready(2));
    // Who has the old one only is a stranger.
    net.start(3, 30, &plan());
    net.run(1_000);
    assert_eq!(net.hears(3, 1), None);
    assert!(net.counters(3).no_secret > 5 && net.counters(1).no_secret > 5);
}

#[test]
fn who_seals_and_who_does_not_do_not_hear_each_other() {
    let mut net = Net::new();
    net.start(1, 10, &plan());
    net.start(
        2,
        20,
        &Plan {
            sealed: false,
            ..plan()
        },
    );
    net.run(1_000);
    assert_eq!((net.hears(1, 2), net.hears(2, 1)), (None, None));
    assert!(net.counters(1).unsealed > 5);
    assert!(
        net.counters(2).unsupported > 0,
        "a key where there is none: {:?}",
        net.counters(2)
    );
}

/// I14, over what two nodes and three lives of one of them said: no key and nonce twice. Equal plain text under both would show as
/// an equal beginning, as only the tag differs by the header.
#[test]
fn no_number_of_a_stream_is_used_twice_in_a_life() {
    let mut net = Net::ready(&plan());
    for life in [21, 22, 23] {
        net.run(500);
        net.nodes.remove(&2);
        net.start(2, life, &plan());
    }
    net.until("ready", |n| n.is_ready(1) && n.is_ready(2));
    let mut said: BTreeMap<(PeerId, u16, u64), Vec<u8>> = BTreeMap::new();
    for (_, frame) in &net.seen {
        let (h, _) = FrameHeader::peek(frame).expect("it is one");
        let known = said
            .entry((h.from, h.stream, h.packet_number))
            .or_insert_with(|| frame.clone());
        assert_eq!(known, frame, "two frames of one number");
    }
    let streams: BTreeSet<u16> = said.keys().map(|(_, s, _)| *s).collect();
    assert!(streams.contains(&0) && streams.contains(&1) && streams.contains(&STREAM_CONTROL));
    assert!(said.len() > 300);
}

/// Two lives of one incarnation, as after a machine was copied or its clock set back: the second one is not heard, rather than taken for
/// the first; it hears the others, and does not think that it is alone.
#[test]
fn a_second_life_of_one_incarnation_is_not_heard_and_hears() {
    for (life, suite, other) in [
        (20, Suite::AesGcm, 99),
        (20, Suite::ChaCha, 20),
        (19, Suite::AesGcm, 99),
    ] {
        let mut net = Net::ready(&plan());
        net.nodes.remove(&2);
        let again = Plan { suite, ..plan() };
        net.start_with(2, life, salt(2, other), &again);
        net.run(3_000);
        let c = net.counters(1);
        assert!(c.forged + c.old_incarnation > 20, "{c:?}");
        assert_eq!(net.hears(1, 2), Some(20), "the first one, that is");
        assert_eq!(net.hears(2, 1), Some(10));
        assert_eq!(net.counters(2).restarts, 1);
        assert!(net.counters(2).accepted > 20);
    }
}

/// Keys of two lives of one incarnation are made of two salts.
#[test]
fn a_salt_makes_another_key_whatever_the_incarnation() {
    let mut said: Vec<BTreeMap<(u16, u64), Vec<u8>>> = Vec::new();
    for other in [10, 11] {
        let mut net = Net::new();
        net.start_with(1, 10, salt(1, other), &plan());
        net.run(1_000);
        let frames = net
            .seen
            .iter()
            .filter(|(to, f)| *to == 2 && f[1] == 1)
            .map(|(_, frame)| {
                let (h, _) = FrameHeader::peek(frame).expect("it is one");
                ((h.stream, h.packet_number), frame[32..].to_vec())
            });
        said.push(frames.collect());
    }
    let both: Vec<_> = said[0].keys().filter(|k| said[1].contains_key(k)).collect();
    assert!(both.len() > 5);
    assert!(
        both.iter().all(|k| said[0][k][..16] != said[1][k][..16]),
        "one text under two keys"
    );
}

#[test]
fn a_lens_opens_what_it_has_the_secrets_for() {
    let mut net = Net::ready(&plan());
    net.nodes.remove(&2);
    net.start(2, 21, &plan());
    net.until("ready again", |n| n.is_ready(1) && n.is_ready(2));
    let mut lens = Lens::new(Arc::new(Ring::detect()), secrets(&[2, 1]));
    let mut blind = Lens::new(Arc::new(Ring::detect()), secrets(&[2]));
    let mut messages = 0;
    for (to, frame) in &net.seen {
        let to = Some(NodeId(*to));
        let open = lens.open(frame, to).expect("it knows the salt by now");
        match FrameHeader::peek(open).expect("a frame").1 {
            FrameType::Messages => messages += decode(open).expect("it is open").items.len(),
            FrameType::Hello => assert!(decode(open).is_err()),
        }
        assert!(blind.open(frame, to).is_none());
    }
    assert!(messages > 100);
}

#[test]
fn secrets_that_cannot_be_are_refused() {
    let new = |ids: &[u8]| Secrets::new(ids.iter().map(|id| (*id, secret(1))).collect());
    assert_eq!(new(&[]).err(), Some(SecretsError::Count(0)));
    assert_eq!(new(&[1, 2, 3]).err(), Some(SecretsError::Count(3)));
    assert_eq!(new(&[1, 0]).err(), Some(SecretsError::Zero));
    assert_eq!(new(&[5, 5]).err(), Some(SecretsError::Twice(5)));
    assert!(new(&[5]).is_ok());
    assert_eq!(
        format!("{:?}", secret(7)),
        "Secret(..)",
        "it is not told to a log"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever bytes come, and whatever is made of good frames: no panic, nothing changes, and both stay ready.
    #[test]
    fn hostile_frames_change_nothing(
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8..), 1..100),
    ) {
        let mut net = Net::ready(&plan());
        let frames: Vec<Vec<u8>> = net.seen.iter().map(|(_, f)| f.clone()).collect();
        let accepted = net.counters(2).accepted;
        for bytes in &noise {
            prop_assert!(net.give(2, bytes).expect("it runs").is_err());
        }
        for (which, at, flip) in flips {
            let mut frame = which.get(&frames).clone();
            let at = at.index(frame.len());
            frame[at] ^= flip;
            prop_assert!(net.give(2, &frame).expect("it runs").is_err());
        }
        prop_assert_eq!(net.counters(2).accepted, accepted);
        net.run(300);
        prop_assert!(net.is_ready(1) && net.is_ready(2));
    }
}

/// Says what each key was for.
#[derive(Debug)]
struct Told {
    by: Ring,
    infos: Arc<std::sync::Mutex<Vec<Vec<u8>>>>,
}

impl Crypto for Told {
    fn suite(&self) -> Suite {
        self.by.suite()
    }
    fn key(&self, suite: Suite, secret: &Secret, salt: &Salt, info: &[u8]) -> Box<dyn AeadKey> {
        self.infos.lock().expect("one thread").push(info.to_vec());
        self.by.key(suite, secret, salt, info)
    }
}

/// After 2^22 frames a stream has another key, and frames that come late by the old one are still heard.
#[test]
fn a_stream_has_another_key_after_so_many_frames() {
    let mut net = Net::ready(&plan());
    net.run(300);
    // As node 1 seals in its bulk, far on.
    let infos = Arc::default();
    let told = Told {
        by: Ring::with(Suite::AesGcm),
        infos: Arc::clone(&infos),
    };
    let mut lens = Lens::new(Arc::new(told), secrets(&[1]));
    let greets = net.seen.iter().find(|(_, f)| f[1] == 2 && f[8] == 1);
    let (hello_to, hello) = greets.expect("it greets").clone();
    assert!(lens.open(&hello, Some(NodeId(hello_to))).is_some());
    infos.lock().expect("one thread").clear();
    let last = (1 << REKEY_SHIFT) - 1;
    for (number, stream) in [
        (last - 1, 256),
        (last + 1, 256),
        (last, 256),
        (last + 2, 256),
        (last + 1, 257),
    ] {
        let header = FrameHeader {
            cluster: CLUSTER,
            from: PeerId {
                node: NodeId(1),
                incarnation: Incarnation(10),
            },
            stream,
            packet_number: number,
        };
        let mut plain = Vec::new();
        let mut writer = FrameWriter::new(&mut plain, &header, LIVE_FRAME_LEN_MAX);
        writer
            .push(0, false, &SyncBody::Heartbeat { last: 1 })
            .expect("it fits");
        writer.finish();
        let sealed = lens.seal(plain, Some(NodeId(2))).expect("it knows the salt");
        assert_eq!(net.give(2, &sealed), Some(Ok(1)), "{number} of {stream}");
        assert_eq!(net.give(2, &sealed), Some(Err(Refused::Replayed)));
    }
    let infos: BTreeSet<Vec<u8>> = infos.lock().expect("one thread").drain(..).collect();
    assert_eq!(infos.len(), 3, "two keys of one stream, and one of the other");
}
