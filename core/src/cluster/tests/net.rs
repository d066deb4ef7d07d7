//! A small deterministic net: nodes, their workers, a sync network and a link for VRRP, in steps of 1 ms.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::format;
use std::string::String;

use crate::cluster::*;
use crate::hash::SplitMix;
use crate::port::{PortId, WorkerId};
use crate::sync::{NodeMessage, PullMode, Readiness, SyncCommand, SyncEvent, SyncStatus};
use crate::time::Instant;
use crate::wire::MacAddr;

/// Slots that a made-up worker pulls of a group, one a millisecond.
const SLOTS: u32 = 20;
/// Messages that wait at a node that stands still: the rest is lost, as in a socket's buffer.
const SOCKET: usize = 32;

pub(super) fn lip(node: u16) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, node as u8))
}

pub(super) fn vip() -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))
}

fn source(node: u16) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, node as u8)
}

/// Node 1 has the highest priority.
pub(super) fn config(node: u16, nodes: u16) -> ClusterConfig {
    let mac = MacAddr([2, 0, 0, 0, 0, node as u8]);
    let member = |id: u16| Member {
        id: NodeId(id),
        priority: 210 - 10 * id as u8,
        local_addrs: vec![lip(id)],
        vrrp_sources: vec![IpAddr::V4(source(id))],
    };
    ClusterConfig {
        cluster: 1,
        id: NodeId(node),
        members: (1..=nodes).map(member).collect(),
        heartbeat: Duration::from_millis(100),
        down_count: 3,
        lease_margin: Duration::from_millis(50),
        join_time: Duration::from_secs(1),
        announce: vec![(PortId(0), mac)],
        vrrp: Some(VrrpSettings {
            vrid: 7,
            interval_cs: 10,
            preempt: true,
            port: PortId(0),
            mac,
            source_v4: Some(source(node)),
            source_v6: None,
            virtual_v4: vec![Ipv4Addr::new(198, 51, 100, 1)],
            virtual_v6: vec![],
        }),
        shared_addrs: vec![],
    }
}

/// Slots of a group, asked for.
struct Pulled {
    number: u32,
    left: u32,
    source: PeerId,
}

/// A worker that does as it is told, late.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) groups: BTreeMap<GroupId, Authority>,
    pub(super) create: Option<GroupId>,
    pub(super) lease: Option<Instant>,
    pub(super) peers: Vec<crate::sync::Peer>,
    pub(super) answering: Vec<IpAddr>,
    merged: BTreeSet<(GroupId, Epoch)>,
    offered: BTreeSet<(GroupId, Epoch)>,
    /// Whether the others have not answered yet: nothing is merged before.
    pub(super) merges_wait: bool,
    pub(super) status: SyncStatus,
    pulls: BTreeMap<GroupId, Pulled>,
    pub(super) pulled: Vec<(GroupId, PeerId)>,
    commands: VecDeque<(u64, SyncCommand)>,
    events: VecDeque<(u64, SyncEvent)>,
}

impl Worker {
    fn handle(&mut self, command: SyncCommand, out: &mut Vec<SyncEvent>) {
        match command {
            SyncCommand::Peers(peers) => self.peers = peers.to_vec(),
            SyncCommand::Authority(a) => {
                let known = self.groups.insert(a.group, a);
                assert!(
                    known.is_none_or(|k| k.epoch <= a.epoch),
                    "an epoch went back: {known:?} {a:?}"
                );
                out.push(SyncEvent::AuthorityApplied(a));
                if a.role == Role::Adopting && !self.merges_wait {
                    self.merged.insert((a.group, a.epoch));
                    out.push(SyncEvent::Merged {
                        group: a.group,
                        epoch: a.epoch,
                    });
                }
                if a.role == Role::Fenced {
                    self.offered.insert((a.group, a.epoch));
                    out.push(SyncEvent::Offered { group: a.group });
                }
                if a.role.is_holder() {
                    self.pulls.remove(&a.group);
                }
            }
            SyncCommand::Forget(id) => {
                self.groups.remove(&id);
            }
            SyncCommand::Create(id) => {
                let role = |id| self.groups.get(&id).map(|a| a.role);
                self.create = id.filter(|id| role(*id) == Some(Role::Owned));
            }
            SyncCommand::LeaseUntil(at) => self.lease = Some(at),
            SyncCommand::Pull {
                group,
                source,
                mode,
                number,
            } => {
                assert_eq!(mode, PullMode::Replace);
                assert!(self.groups.contains_key(&group), "a pull of an unknown group");
                self.pulled.push((group, source));
                match self.pulls.get_mut(&group) {
                    Some(pull) if pull.number == number => pull.source = source,
                    _ => {
                        let left = SLOTS;
                        self.pulls.insert(group, Pulled { number, left, source });
                    }
                }
                self.report(out);
            }
            SyncCommand::Numbers(_) | SyncCommand::Secrets(..) => panic!("that is the greeting's"),
            SyncCommand::Answer(a) => self.answering = a.addrs.iter().map(|a| a.0).collect(),
        }
    }

    fn report(&mut self, out: &mut Vec<SyncEvent>) {
        let left = |id| self.pulls.get(id).map_or(0, |p| p.left);
        let ended = |id| self.pulls.get(id).filter(|p| p.left == 0).map_or(0, |p| p.number);
        self.status.pulled = self.groups.keys().map(|id| (*id, ended(id))).collect();
        self.status.outstanding = self.groups.keys().map(|id| (*id, left(id))).collect();
        out.push(SyncEvent::Status(self.status.clone()));
    }
}

pub(super) struct Node {
    pub(super) core: NodeCore,
    pub(super) workers: Vec<Worker>,
    pub(super) paused: bool,
    pub(super) inbox: VecDeque<(u64, Input)>,
    pub(super) events: Vec<(u64, NodeEvent)>,
    pub(super) announced: u32,
}

pub(super) enum Input {
    Peer(PeerId, NodeMessage),
    Frame(Vec<u8>),
}

pub(super) struct Net {
    pub(super) ms: u64,
    pub(super) nodes: BTreeMap<u16, Node>,
    count: u16,
    /// Pairs that do not hear each other on the sync network, in one direction; and by VRRP.
    pub(super) no_sync: BTreeSet<(u16, u16)>,
    pub(super) no_vrrp: BTreeSet<(u16, u16)>,
    /// Sources of bulk that do not answer.
    pub(super) mute: BTreeSet<u16>,
    /// Milliseconds of a queue between a node and its workers, and one in so many that is lost.
    pub(super) queue_ms: u64,
    pub(super) loss: u64,
    random: SplitMix,
    pub(super) configure: fn(&mut ClusterConfig),
    /// Highest epoch that was claimed by a holder, by group.
    pub(super) epochs: BTreeMap<GroupId, Epoch>,
    pub(super) claims_of_owned: u64,
    pub(super) handovers: u64,
    /// Where hosts, whom no cut keeps from hearing, believe local addresses to be.
    pub(super) places: BTreeMap<Ipv4Addr, u16>,
}

impl Net {
    pub(super) fn new(count: u16) -> Self {
        Net {
            ms: 0,
            nodes: BTreeMap::new(),
            count,
            no_sync: BTreeSet::new(),
            no_vrrp: BTreeSet::new(),
            mute: BTreeSet::new(),
            queue_ms: 1,
            loss: u64::MAX,
            random: SplitMix::new(42),
            configure: |_| {},
            epochs: BTreeMap::new(),
            claims_of_owned: 0,
            handovers: 0,
            places: BTreeMap::new(),
        }
    }

    /// A net whose nodes are all started at once, and quiet.
    pub(super) fn ready(count: u16) -> Self {
        let mut net = Net::new(count);
        for n in 1..=count {
            net.start(n, 1);
        }
        net.run(4_000);
        for n in 1..=count {
            assert_eq!(net.core(n).readiness(), Readiness::Ready, "node {n}");
        }
        net.clear_events();
        net
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_millis(self.ms)
    }

    pub(super) fn start(&mut self, node: u16, incarnation: u64) {
        let mut config = config(node, self.count);
        (self.configure)(&mut config);
        let core = NodeCore::new(
            config,
            Incarnation(incarnation),
            2,
            u64::from(node) * 7_000_000,
            self.now(),
        )
        .expect("the config is right");
        let workers = (0..2).map(|_| Worker::default()).collect();
        let node_ = Node {
            core,
            workers,
            paused: false,
            inbox: VecDeque::new(),
            events: Vec::new(),
            announced: 0,
        };
        self.nodes.insert(node, node_);
        self.drain(node);
    }

    pub(super) fn crash(&mut self, node: u16) {
        self.nodes.remove(&node).expect("it runs");
    }

    pub(super) fn core(&self, node: u16) -> &NodeCore {
        &self.nodes[&node].core
    }

    pub(super) fn command(&mut self, node: u16, command: NodeCommand) {
        let now = self.now();
        self.node(node).core.handle_command(now, command);
        self.drain(node);
    }

    pub(super) fn node(&mut self, node: u16) -> &mut Node {
        self.nodes.get_mut(&node).expect("it runs")
    }

    /// A worker's status changes, and it says so.
    pub(super) fn report(&mut self, node: u16, worker: usize, change: impl FnOnce(&mut SyncStatus)) {
        let at = self.ms + self.queue_ms;
        let w = &mut self.node(node).workers[worker];
        change(&mut w.status);
        let mut out = Vec::new();
        w.report(&mut out);
        w.events.extend(out.into_iter().map(|e| (at, e)));
    }

    pub(super) fn sessions(&mut self, node: u16, group: GroupId, count: u32) {
        for w in 0..2 {
            self.report(node, w, |s| {
                s.sessions.retain(|(g, _)| *g != group);
                s.sessions.push((group, count));
            });
        }
    }

    pub(super) fn cut(&mut self, a: u16, b: u16, sync: bool, vrrp: bool) {
        for pair in [(a, b), (b, a)] {
            if sync {
                self.no_sync.insert(pair);
            }
            if vrrp {
                self.no_vrrp.insert(pair);
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.no_sync.clear();
        self.no_vrrp.clear();
    }

    pub(super) fn clear_events(&mut self) {
        for node in self.nodes.values_mut() {
            node.events.clear();
            node.announced = 0;
        }
    }

    pub(super) fn saw(&self, node: u16, event: NodeEvent) -> bool {
        self.nodes[&node].events.iter().any(|(_, e)| *e == event)
    }

    pub(super) fn when(&self, node: u16, what: impl Fn(&NodeEvent) -> bool) -> Option<u64> {
        self.nodes[&node]
            .events
            .iter()
            .find(|(_, e)| what(e))
            .map(|(at, _)| *at)
    }

    pub(super) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    /// Steps until it holds; it fails after `ms`.
    pub(super) fn until(&mut self, ms: u64, what: &str, mut holds: impl FnMut(&Net) -> bool) {
        for _ in 0..ms {
            if holds(self) {
                return;
            }
            self.step();
        }
        panic!("not within {ms} ms: {what}\n{}", self.page());
    }

    /// All that all nodes know.
    pub(super) fn page(&self) -> String {
        let mut page = String::new();
        for (n, node) in &self.nodes {
            let core = &node.core;
            page += &format!(
                "node {n} at {} ms: {:?}, creates in {:?}, alarms {:?}\n",
                self.ms,
                core.readiness(),
                core.creating(),
                core.alarms().collect::<Vec<_>>()
            );
            for (id, epoch, role) in core.groups() {
                page += &format!("    {id:?} {epoch:?} {role:?}\n");
            }
            page += &format!("    {:?}\n", node.events);
        }
        page
    }

    fn lost(&mut self) -> bool {
        self.loss != u64::MAX && self.random.next().is_multiple_of(self.loss)
    }

    fn step(&mut self) {
        self.ms += 1;
        let now = self.now();
        let ids: Vec<u16> = self.nodes.keys().copied().collect();
        for &n in &ids {
            if self.nodes[&n].paused {
                continue;
            }
            self.step_workers(n);
            loop {
                let ms = self.ms;
                let node = self.node(n);
                if node.inbox.front().is_none_or(|(at, _)| *at > ms) {
                    break;
                }
                match node.inbox.pop_front().expect("one is there").1 {
                    Input::Peer(from, m) => node.core.handle_peer(now, from, &m),
                    Input::Frame(f) => node.core.handle_frame(now, PortId(0), &f),
                }
                self.drain(n);
            }
            let node = self.node(n);
            let mut turns = 0;
            while node.core.poll_timeout().is_some_and(|at| at <= now) {
                node.core.handle_timeout(now);
                turns += 1;
                assert!(turns < 10, "a timeout that does not pass");
            }
            self.drain(n);
        }
    }

    fn step_workers(&mut self, n: u16) {
        let (ms, now) = (self.ms, self.now());
        for w in 0..2 {
            let mut out = Vec::new();
            let live: BTreeSet<PeerId> = self.nodes.values().map(|n| n.core.id()).collect();
            let mute = self.mute.clone();
            let worker = &mut self.node(n).workers[w];
            let mut moved = false;
            for pull in worker.pulls.values_mut() {
                let answers = live.contains(&pull.source) && !mute.contains(&pull.source.node.0);
                if pull.left > 0 && answers {
                    pull.left -= 1;
                    moved = true;
                }
            }
            // As workers do, now and then though nothing has changed.
            if moved || ms.is_multiple_of(500) {
                worker.report(&mut out);
            }
            while worker.commands.front().is_some_and(|(at, _)| *at <= ms) {
                let command = worker.commands.pop_front().expect("one is there").1;
                worker.handle(command, &mut out);
            }
            for event in out {
                if !self.lost() {
                    let at = ms + self.queue_ms;
                    self.node(n).workers[w].events.push_back((at, event));
                }
            }
            loop {
                let node = self.node(n);
                if node.workers[w].events.front().is_none_or(|(at, _)| *at > ms) {
                    break;
                }
                let event = node.workers[w].events.pop_front().expect("one is there").1;
                node.core.handle_event(now, WorkerId(w as u8), event);
                self.drain(n);
            }
        }
    }

    /// Carries away what a node wants to send.
    pub(super) fn drain(&mut self, n: u16) {
        let (ms, now) = (self.ms, self.now());
        while let Some(event) = self.node(n).core.poll_event() {
            self.node(n).events.push((ms, event));
        }
        while let Some((w, command)) = self.node(n).core.poll_command() {
            if !self.lost() {
                let at = ms + self.queue_ms;
                let worker = &mut self.node(n).workers[usize::from(w.0)];
                worker.commands.push_back((at, command));
            }
        }
        while let Some((port, frame)) = self.node(n).core.poll_transmit() {
            assert_eq!(port, PortId(0));
            self.node(n).core.handle_frame_sent(now, now, &frame);
            if !crate::vrrp::is_advertisement(&frame) {
                self.node(n).announced += 1;
                let sender: [u8; 4] = frame[28..32].try_into().expect("a gratuitous ARP");
                self.places.insert(sender.into(), n);
                continue;
            }
            let others: Vec<u16> = self.nodes.keys().copied().filter(|m| *m != n).collect();
            for m in others {
                if !self.no_vrrp.contains(&(n, m)) {
                    self.deliver(m, Input::Frame(frame.clone()));
                }
            }
        }
        while let Some((to, message)) = self.node(n).core.poll_peer() {
            self.check(n, &message);
            let from = self.core(n).id();
            let others: Vec<u16> = self.nodes.keys().copied().filter(|m| *m != n).collect();
            for m in others {
                let wanted = match to {
                    Destination::All => true,
                    Destination::One(id) => id.node.0 == m,
                };
                if wanted && !self.no_sync.contains(&(n, m)) {
                    self.deliver(m, Input::Peer(from, message.clone()));
                }
            }
            if matches!(message, NodeMessage::Heartbeat { .. }) {
                self.node(n).core.handle_sent(now, now);
            }
        }
        assert!(self.node(n).core.counters().command_dropped == 0);
    }

    fn deliver(&mut self, to: u16, input: Input) {
        let at = self.ms + 1;
        let node = self.node(to);
        if node.inbox.len() < SOCKET || !node.paused {
            node.inbox.push_back((at, input));
        }
    }

    /// What is claimed is so at all workers; epochs of holders grow.
    fn check(&mut self, n: u16, message: &NodeMessage) {
        let all_have = |node: &Node, group: GroupId, epoch: Epoch, roles: &[Role]| {
            node.workers.iter().all(|w| {
                let a = w.groups.get(&group);
                a.is_some_and(|a| a.epoch == epoch && roles.contains(&a.role))
            })
        };
        match message {
            NodeMessage::Heartbeat { claims, hears, .. } => {
                assert!(claims.len() <= GROUP_COUNT_MAX && hears.len() <= NODE_COUNT_MAX);
                for c in claims.iter().filter(|c| c.role == Role::Owned) {
                    let node = &self.nodes[&n];
                    assert!(
                        all_have(node, c.group, c.epoch, &[Role::Owned]),
                        "node {n} claims {c:?} before its workers know\n{}",
                        self.page()
                    );
                    if c.epoch.term > 1 {
                        let merged = |w: &Worker| w.merged.contains(&(c.group, c.epoch));
                        assert!(node.workers.iter().all(merged), "claimed before it was merged");
                    }
                    self.claims_of_owned += 1;
                    let highest = self.epochs.entry(c.group).or_default();
                    *highest = c.epoch.max(*highest);
                }
            }
            NodeMessage::Handover { group, epoch } => {
                self.handovers += 1;
                assert!(
                    all_have(&self.nodes[&n], *group, *epoch, &[Role::Draining]),
                    "a handover before all workers drain"
                );
            }
            NodeMessage::Fenced { .. } => {}
        }
    }

    /// Who holds a group by its own word, of the nodes that run.
    pub(super) fn holders(&self, group: GroupId) -> Vec<u16> {
        let holds = |n: &&Node| n.core.role(group).is_some_and(Role::is_holder);
        let all = self.nodes.iter().filter(|(_, n)| holds(n));
        all.map(|(n, _)| *n).collect()
    }

    /// Quiet: all know the same of each group, one holds it, everybody else is a replica, and workers know.
    pub(super) fn assert_settled(&self) {
        if let Err(id) = self.settled() {
            panic!("not settled: {id:?}\n{}", self.page());
        }
    }

    /// As [`Net::assert_settled`]; `Err`: a group of which it is not so.
    pub(super) fn settled(&self) -> Result<(), GroupId> {
        let mut known: BTreeMap<GroupId, (Epoch, u32, usize)> = BTreeMap::new();
        for node in self.nodes.values() {
            for (id, epoch, role) in node.core.groups() {
                let (same, holders, knowing) = known.entry(id).or_insert((epoch, 0, 0));
                *holders += u32::from(role == Role::Owned);
                *knowing += 1;
                let told = Authority {
                    group: id,
                    epoch,
                    role,
                };
                let right = *same == epoch
                    && matches!(role, Role::Owned | Role::Replica)
                    && node.workers.iter().all(|w| w.groups.get(&id) == Some(&told));
                if !right {
                    return Err(id);
                }
            }
        }
        let wrong = known.iter().find(|(_, k)| k.1 != 1 || k.2 != self.nodes.len());
        wrong.map_or(Ok(()), |(id, _)| Err(*id))
    }

    pub(super) fn masters(&self) -> Vec<u16> {
        let all = self.nodes.iter();
        all.filter(|(_, n)| n.core.is_master(crate::tuple::Family::V4))
            .map(|(n, _)| *n)
            .collect()
    }
}

pub(super) fn group(node: u16, generation: u64) -> GroupId {
    GroupId {
        node: NodeId(node),
        generation,
    }
}

pub(super) fn peer(node: u16, incarnation: u64) -> PeerId {
    PeerId {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
    }
}
