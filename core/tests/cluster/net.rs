//! The net: nodes and what is on its way between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::cluster::{Authority, Epoch, GroupId, Incarnation, NodeId, PeerId, Role};
use evenkeel_core::conn::{HeapMemory, TableSizes};
use evenkeel_core::lport::Steering;
use evenkeel_core::port::{Frame, HeapFrame, PortId, WorkerId};
use evenkeel_core::proto::ConnState;
use evenkeel_core::service::SnapshotSpec;
use evenkeel_core::stats::{Counters, SyncCount};
use evenkeel_core::sync::codec::{FrameItem, decode};
use evenkeel_core::sync::{
    ClusterSizes, ClusterWorkerConfig, Destination, Peer, PullMode, SyncCommand, SyncEvent, SyncMessage,
    SyncOutcome, SyncStatus, Version,
};
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::{L4Proto, Tuple};
use evenkeel_core::worker::{BucketMap, Command, Event, Verdict, Verdicts, Worker, WorkerConfig};

use crate::packet::{ACK, FIN, Packet, RST, SYN};
use crate::story::{Flow, Kind, first, ip, snapshot, spec, steering};

/// What a node is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeConfig {
    pub(crate) workers: u16,
    pub(crate) table: TableSizes,
    pub(crate) sizes: ClusterSizes,
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            workers: 2,
            table: TableSizes {
                conns_v4: 4000,
                conns_v6: 4000,
                exts: 10,
            },
            sizes: ClusterSizes::default(),
        }
    }
}

pub(crate) struct Node {
    pub(crate) id: PeerId,
    pub(crate) config: NodeConfig,
    pub(crate) workers: Vec<Worker>,
    buckets: BucketMap,
    pub(crate) alive: bool,
    /// What its workers told.
    pub(crate) events: Vec<(usize, SyncEvent)>,
    status: Vec<SyncStatus>,
}

/// What the network does to a message, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) loss: u64,
    pub(crate) twice: u64,
    /// Delay is 50 microseconds and up to so many more.
    pub(crate) jitter_us: u64,
    /// On each way, beside that.
    pub(crate) delay_us: u64,
}

pub(crate) struct Net {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Instant,
    pub(crate) weather: Weather,
    random: Random,
    pub(crate) steering: Arc<Steering>,
    spec: SnapshotSpec,
    on_its_way: BTreeMap<(Instant, u64), (usize, SyncMessage)>,
    sequence: u64,
    /// Numbers of pulls.
    pulls: u32,
    runs: u32,
    /// Pairs that hear nothing of each other.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Messages are frames for a while.
    pub(crate) frames: bool,
    /// Messages sent, those lost among them; bytes of frames.
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) bytes: u64,
    /// What is let through; for tests that lose one thing.
    pub(crate) filter: fn(&SyncMessage) -> bool,
    verdicts: Verdicts,
    /// What nodes sent that waited: when, who, and the frame.
    pub(crate) let_go: Vec<(Instant, usize, Vec<u8>)>,
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A session as the nodes compare it.
pub(crate) type Session = (Tuple, Tuple, ConnState, Version);

pub(crate) fn group_of(id: PeerId) -> GroupId {
    GroupId {
        node: id.node,
        generation: id.incarnation.0,
    }
}

pub(crate) fn peer(node: u16, incarnation: u64) -> PeerId {
    PeerId {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
    }
}

impl Node {
    fn new(
        id: PeerId,
        config: NodeConfig,
        steering: &Arc<Steering>,
        now: Instant,
        spec: &SnapshotSpec,
    ) -> Self {
        let buckets = BucketMap::dealt(config.workers);
        // Its share: one LIP of each family.
        let mut spec = spec.clone();
        for service in &mut spec.services {
            let n = usize::from(id.node.0);
            for addr in &mut service.local_addrs {
                *addr = ip(&if addr.is_ipv4() {
                    format!("10.0.2.{n}")
                } else {
                    format!("fd00::2:{n}")
                });
            }
            service.local_addrs.dedup();
        }
        let snapshot = snapshot(&spec);
        let workers = (0..config.workers).map(|worker| {
            let mut worker = Worker::new(
                WorkerConfig {
                    id: WorkerId(worker as u8),
                    buckets: buckets.clone(),
                    steering: steering.clone(),
                    sizes: config.table,
                    local_port_min: 1024,
                    seed: u64::from(id.node.0),
                    hold: None,
                    cluster: Some(ClusterWorkerConfig {
                        id,
                        cluster: 7,
                        sizes: config.sizes,
                        sealing: None,
                    }),
                },
                &mut HeapMemory,
            )
            .expect("a small table");
            worker
                .handle_command(now, Command::SetSnapshot(snapshot.clone()))
                .expect("room for an event");
            worker
        });
        Node {
            id,
            config,
            workers: workers.collect(),
            buckets,
            alive: true,
            events: Vec::new(),
            status: vec![SyncStatus::default(); usize::from(config.workers)],
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        let mut all = Counters::default();
        for worker in &self.workers {
            all.add(worker.counters());
        }
        all
    }

    pub(crate) fn sync(&self, count: SyncCount) -> u64 {
        self.counters().sync(count)
    }

    /// Sessions of a group of which others were told.
    pub(crate) fn sessions(&self, group: GroupId) -> BTreeSet<Session> {
        let all = self.all(group);
        all.into_iter().filter(|s| s.3.lsn != 0).collect()
    }

    /// All sessions of a group.
    pub(crate) fn all(&self, group: GroupId) -> BTreeSet<Session> {
        let mut all = BTreeSet::new();
        for worker in &self.workers {
            for view in worker.table().iter() {
                if let Some((of, version)) = worker.version(view.id)
                    && of == group
                {
                    let i = view.init;
                    all.insert((i.inbound(), i.outbound(), i.state, version));
                }
            }
        }
        all
    }

    pub(crate) fn tombs(&self) -> usize {
        self.workers.iter().map(|w| w.table().tomb_count()).sum()
    }

    /// Slots that are asked for and have not ended, of all workers.
    pub(crate) fn outstanding(&self) -> u32 {
        self.status.iter().flat_map(|s| &s.outstanding).map(|o| o.1).sum()
    }

    /// Slots of a group of which it knows that it lacks something.
    pub(crate) fn lacking(&self, group: GroupId) -> u32 {
        let told = self.status.iter().flat_map(|s| &s.lacking);
        told.filter(|(g, _)| *g == group).map(|(_, n)| *n).sum()
    }

    pub(crate) fn behind(&self) -> u64 {
        self.status.iter().flat_map(|s| &s.behind).map(|o| o.1).sum()
    }

    pub(crate) fn unacked(&self) -> u64 {
        self.status.iter().flat_map(|s| &s.unacked).map(|o| o.1).sum()
    }

    /// Whether a worker finds that a peer has acked nothing for too long.
    pub(crate) fn finds_late(&self, peer: PeerId) -> bool {
        self.status.iter().any(|s| s.late.contains(&peer))
    }

    pub(crate) fn has_told(&self, is_it: impl Fn(&SyncEvent) -> bool) -> usize {
        self.events.iter().filter(|(_, e)| is_it(e)).count()
    }
}

impl Net {
    pub(crate) fn new(seed: u64, configs: &[NodeConfig], spec: SnapshotSpec) -> Self {
        let now = Instant::from_millis(1_000_000);
        let steering = steering(64);
        let nodes = (1..)
            .zip(configs)
            .map(|(n, config)| Node::new(peer(n, 100 + u64::from(n)), *config, &steering, now, &spec));
        Net {
            nodes: nodes.collect(),
            now,
            weather: Weather::default(),
            random: Random(seed),
            steering,
            spec,
            on_its_way: BTreeMap::new(),
            sequence: 0,
            runs: 0,
            pulls: 0,
            cut: BTreeSet::new(),
            frames: seed.is_multiple_of(2),
            sent: 0,
            lost: 0,
            bytes: 0,
            filter: |_| true,
            verdicts: Verdicts::default(),
            let_go: Vec::new(),
        }
    }

    /// Nodes that know each other, each the holder of its own group, certain of it for an hour.
    pub(crate) fn joined(seed: u64, configs: &[NodeConfig]) -> Self {
        Net::joined_of(seed, configs, spec())
    }

    /// The same, of these services.
    pub(crate) fn joined_of(seed: u64, configs: &[NodeConfig], spec: SnapshotSpec) -> Self {
        let mut net = Net::new(seed, configs, spec);
        let count = net.nodes.len();
        for n in 0..count {
            net.own(n);
        }
        net.meet();
        for n in 0..count {
            for other in (0..count).filter(|o| *o != n) {
                net.know(n, other);
            }
        }
        net.run(Duration::from_millis(300));
        for n in 0..count {
            assert_eq!(net.nodes[n].outstanding(), 0, "nothing is to be pulled");
            assert_eq!(net.nodes[n].behind(), 0, "all was heard of");
        }
        net
    }

    pub(crate) fn group(&self, n: usize) -> GroupId {
        group_of(self.nodes[n].id)
    }

    pub(crate) fn command(&mut self, n: usize, command: &SyncCommand) {
        let now = self.now;
        for worker in &mut self.nodes[n].workers {
            worker
                .handle_command(now, Command::Sync(command.clone()))
                .expect("it has a cluster");
        }
    }

    /// It holds its own group, and creates in it.
    pub(crate) fn own(&mut self, n: usize) {
        let group = self.group(n);
        self.command(n, &SyncCommand::LeaseUntil(self.now + Duration::from_secs(3600)));
        self.command(n, &SyncCommand::Create(Some(group)));
    }

    /// Those alive are peers.
    pub(crate) fn meet(&mut self) {
        for n in 0..self.nodes.len() {
            self.meet_but(n, &[]);
        }
    }

    /// All that are alive but these are peers of a node.
    pub(crate) fn meet_but(&mut self, n: usize, but: &[usize]) {
        let peers = (0..self.nodes.len())
            .filter(|o| *o != n && self.nodes[*o].alive && !but.contains(o))
            .map(|o| Peer {
                id: self.nodes[o].id,
                in_sync: true,
                ready: true,
            });
        let peers = Arc::new(peers.collect::<Vec<_>>());
        self.command(n, &SyncCommand::Peers(peers));
    }

    /// Node `n` learns of the group of `other`, and pulls it.
    pub(crate) fn know(&mut self, n: usize, other: usize) {
        let (group, id) = (self.group(other), self.nodes[other].id);
        let epoch = Epoch { term: 1, holder: id };
        self.authority(n, group, epoch, Role::Replica);
        self.pull(n, group, other);
    }

    pub(crate) fn pull(&mut self, n: usize, group: GroupId, source: usize) {
        self.pulls += 1;
        self.pull_from(n, group, source);
    }

    /// The last pull goes on with another source.
    pub(crate) fn pull_from(&mut self, n: usize, group: GroupId, source: usize) {
        let source = self.nodes[source].id;
        let mode = PullMode::Replace;
        let number = self.pulls;
        self.command(
            n,
            &SyncCommand::Pull {
                group,
                source,
                mode,
                number,
            },
        );
    }

    pub(crate) fn authority(&mut self, n: usize, group: GroupId, epoch: Epoch, role: Role) {
        let authority = Authority { group, epoch, role };
        self.command(n, &SyncCommand::Authority(authority));
    }

    /// A node is gone, and those left know.
    pub(crate) fn crash(&mut self, n: usize) {
        self.nodes[n].alive = false;
    }

    /// A new life of a node, with nothing.
    pub(crate) fn restart(&mut self, n: usize) {
        let old = &self.nodes[n];
        let id = peer(old.id.node.0, old.id.incarnation.0 + 1000);
        self.nodes[n] = Node::new(id, old.config, &self.steering, self.now, &self.spec);
    }

    pub(crate) fn worker_of(&self, n: usize, src: SocketAddr, dst: SocketAddr) -> usize {
        let bucket = self.steering.bucket(self.steering.toeplitz().hash(src, dst));
        usize::from(self.nodes[n].buckets.worker(bucket).0)
    }

    /// A packet comes to a node.
    pub(crate) fn packet(&mut self, n: usize, packet: &Packet) -> Verdict {
        let worker = self.worker_of(n, packet.src, packet.dst);
        let mut frames = [HeapFrame::new(PortId(packet.port), &packet.bytes())];
        let worker = &mut self.nodes[n].workers[worker];
        worker.handle_burst(self.now, &mut frames, &mut self.verdicts);
        self.verdicts.as_slice()[0]
    }

    pub(crate) fn conn(&self, n: usize, tuple: &Tuple) -> Option<(ConnState, GroupId, Version)> {
        let worker = &self.nodes[n].workers[self.worker_of(n, tuple.src, tuple.dst)];
        let (view, _) = worker.conn(tuple)?;
        let (group, version) = worker.version(view.id)?;
        Some((view.init.state, group, version))
    }

    pub(crate) fn state(&self, n: usize, flow: &Flow) -> Option<ConnState> {
        self.conn(n, &flow.inbound().tuple()).map(|c| c.0)
    }

    #[track_caller]
    pub(crate) fn forwarded(&mut self, n: usize, packet: &Packet) {
        let verdict = self.packet(n, packet);
        assert!(matches!(verdict, Verdict::Tx(_)), "{verdict:?}");
    }

    /// The first packet of connection `number`.
    #[track_caller]
    pub(crate) fn begin(&mut self, n: usize, kind: Kind, proto: L4Proto, number: u32) -> Flow {
        let packet = first(proto, kind.client(number), kind.vip(proto));
        self.forwarded(n, &packet);
        let worker = self.worker_of(n, packet.src, packet.dst);
        let (view, _) = self.nodes[n].workers[worker]
            .conn(&packet.tuple())
            .expect("opened");
        Flow::of(&view)
    }

    /// A whole handshake, and data.
    #[track_caller]
    pub(crate) fn open(&mut self, n: usize, number: u32) -> Flow {
        let kind = if number.is_multiple_of(3) {
            Kind::V6
        } else {
            Kind::V4
        };
        let flow = self.begin(n, kind, L4Proto::Tcp, number);
        self.forwarded(n, &flow.outbound().flags(SYN | ACK));
        self.forwarded(n, &flow.inbound());
        flow
    }

    /// RST of the client.
    pub(crate) fn reset(&mut self, n: usize, flow: &Flow) {
        self.forwarded(n, &flow.inbound().flags(RST | ACK));
    }

    pub(crate) fn fin(&mut self, n: usize, flow: &Flow) {
        self.forwarded(n, &flow.inbound().flags(FIN | ACK));
    }

    /// Time passes, and what is due happens.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut rounds = 0;
        loop {
            self.collect();
            let due = self.on_its_way.keys().next().map(|k| k.0);
            let workers = self.nodes.iter().filter(|n| n.alive).flat_map(|n| &n.workers);
            let timers = workers.filter_map(Worker::poll_timeout).min();
            let next = [due, timers].into_iter().flatten().min().unwrap_or(end);
            if next >= end {
                break;
            }
            // A turn has a budget: what is left of it is due at once. But it comes to an end.
            rounds = if next > self.now { 0 } else { rounds + 1 };
            assert!(rounds < 10_000, "a timer is due that was handled: {:?}", self.now);
            self.now = self.now.max(next);
            self.deliver();
            let now = self.now;
            for worker in self
                .nodes
                .iter_mut()
                .filter(|n| n.alive)
                .flat_map(|n| &mut n.workers)
            {
                if worker.poll_timeout().is_some_and(|at| at <= now) {
                    worker.handle_timeout(now);
                }
            }
        }
        self.now = end;
        // Of many short runs every eighth.
        self.runs += 1;
        if time < Duration::from_millis(4) && !self.runs.is_multiple_of(8) {
            return;
        }
        for worker in self.nodes.iter().filter(|n| n.alive).flat_map(|n| &n.workers) {
            worker.audit();
        }
    }

    fn deliver(&mut self) {
        while let Some((&(at, sequence), _)) = self.on_its_way.first_key_value()
            && at <= self.now
        {
            let (to, message) = self.on_its_way.remove(&(at, sequence)).expect("it is the first");
            if self.nodes[to].alive {
                self.hear(to, &message);
            }
        }
    }

    /// A message comes to a node.
    pub(crate) fn hear(&mut self, n: usize, message: &SyncMessage) -> SyncOutcome {
        let node = &mut self.nodes[n];
        let worker = usize::from(node.buckets.worker(message.bucket).0);
        node.workers[worker].handle_sync(self.now, message)
    }

    fn collect(&mut self) {
        let mut out = Vec::new();
        for n in 0..self.nodes.len() {
            for w in 0..self.nodes[n].workers.len() {
                while let Some(event) = self.nodes[n].workers[w].poll_event() {
                    match event {
                        Event::Sync(SyncEvent::Status(status)) => self.nodes[n].status[w] = status,
                        Event::Sync(event) => self.nodes[n].events.push((w, event)),
                        _ => {}
                    }
                }
                if !self.nodes[n].alive {
                    continue;
                }
                let frame = |len| Some(HeapFrame::zeroed(PortId(0), len));
                while let Some((_, frame)) = self.nodes[n].workers[w].poll_transmit(frame) {
                    self.let_go.push((self.now, n, frame.data().to_vec()));
                }
                loop {
                    let worker = &mut self.nodes[n].workers[w];
                    let (to, messages) = if self.frames {
                        let Some(to) = worker.poll_sync(self.now, &mut out) else {
                            break;
                        };
                        let frame = decode(&out).expect("a good frame");
                        let bulk = frame
                            .items
                            .iter()
                            .any(|i| matches!(i, FrameItem::Sync(m) if m.body.is_bulk()));
                        assert!(out.len() <= if bulk { 16_384 } else { 1400 });
                        self.bytes += out.len() as u64;
                        let messages = frame.items.into_iter().map(|item| match item {
                            FrameItem::Sync(m) => m,
                            FrameItem::Node(m) => panic!("no worker says {m:?}"),
                        });
                        (to, messages.collect())
                    } else {
                        let Some((to, m)) = worker.poll_sync_message(self.now) else {
                            break;
                        };
                        (to, vec![m])
                    };
                    self.send(n, to, messages);
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: Destination, messages: Vec<SyncMessage>) {
        for n in 0..self.nodes.len() {
            let wanted = match to {
                Destination::All => n != from,
                Destination::One(peer) => self.nodes[n].id == peer,
            };
            if !wanted {
                continue;
            }
            self.sent += 1;
            let cut = self.cut.contains(&(from, n)) || self.cut.contains(&(n, from));
            if cut || self.random.next() % 1000 < self.weather.loss {
                self.lost += 1;
                continue;
            }
            let copies = 1 + u64::from(self.random.next() % 1000 < self.weather.twice);
            for _ in 0..copies {
                let jitter = self.random.next() % (self.weather.jitter_us + 1);
                let at = self.now + Duration::from_micros(50 + self.weather.delay_us + jitter);
                for message in messages.iter().filter(|m| (self.filter)(m)) {
                    self.on_its_way.insert((at, self.sequence), (n, message.clone()));
                    self.sequence += 1;
                }
            }
        }
    }

    /// No loss any more, and time for all repairs.
    pub(crate) fn quiet(&mut self) {
        self.weather = Weather::default();
        self.cut.clear();
        self.run(Duration::from_millis(1500));
    }

    /// What the holder told is what a replica has.
    #[track_caller]
    pub(crate) fn agree(&self, holder: usize, replica: usize, group: GroupId) -> usize {
        let (a, b) = (
            self.nodes[holder].sessions(group),
            self.nodes[replica].sessions(group),
        );
        let only_a: Vec<_> = a.difference(&b).take(3).collect();
        let only_b: Vec<_> = b.difference(&a).take(3).collect();
        assert!(
            a == b,
            "{} at the holder, {} at the replica\nonly at the holder: {only_a:#?}\nonly at the replica: {only_b:#?}\n{:?}",
            a.len(),
            b.len(),
            self.nodes[replica].counters().sync
        );
        a.len()
    }
}

/// The epoch with which a node's own group begins.
pub(crate) fn first_epoch(holder: PeerId) -> Epoch {
    Epoch { term: 1, holder }
}
