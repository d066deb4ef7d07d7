//! A worker: all control flow of a packet.
//!
//! Methods come in the groups of sans-IO code: `handle_*` says that something happened, `poll_*` asks what
//! to do next, the rest reads.

mod relay;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::hint::select_unpredictable;
use core::net::{Ipv4Addr, SocketAddr};

use self::relay::{Ahead, SOON};
use crate::cluster::GroupId;
use crate::conn::{
    ConnId, ConnInit, ConnRef, ConnTable, ConnView, MemorySource, TableFull, TableMemory, TableSizes, flag,
};
use crate::hash::SplitMix;
use crate::l3::{self, Originated, Originator};
use crate::lport::{BUCKET_COUNT_MAX, Steering};
use crate::memory::OutOfMemory;
use crate::parse::{Kind, Parsed, is_plain_segment, main_flags, parse, tcp_flag};
use crate::port::{BURST, Frame, HandoffReason, HandoffTag, PortId, WorkerId};
use crate::proto::{ConnState, TIMEOUT_MAX, TcpEvent, TcpSide, Timeouts, tcp_transition, udp_transition};
use crate::sched;
use crate::service::{
    OwnedAddr, RealServer, RealServerId, ServiceId, Snapshot, VirtualService, is_group, is_unicast,
};
use crate::stats::{Counters, DropReason};
use crate::sync::{
    Answering, CloseReason, ClusterWorkerConfig, Ctx, Destination, InstallError, SessionRecord, Sync,
    SyncCommand, SyncEvent, SyncMessage, SyncOutcome, Version, set_state,
};
use crate::time::Instant;
use crate::tuple::{Direction, Family, L4Proto, Tuple};
use crate::xmit::{Egress, SeqShift, Target4, Target6, Ways, rewrite_v4, rewrite_v6};

/// Conns that one call of [`Worker::handle_timeout`] looks at, at most.
pub const TIMER_BUDGET: usize = 256;
/// Local ports that are probed on one LIP, at most.
pub const PORT_PROBES_PER_ADDR: u32 = 8;
/// LIPs on which local ports are probed for one conn, at most.
pub const PORT_PROBE_ADDRS: usize = 4;
/// Snapshots that may wait for their owner to take them back, at most.
const EVENT_COUNT_MAX: usize = 8;

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it out of this interface: it was rewritten in place.
    Tx(PortId),
    /// Drop it.
    Drop(DropReason),
    /// Give it to the kernel.
    Punt,
    /// Give it to another worker of this node.
    Handoff(WorkerId, HandoffTag),
    /// It was copied and will come out of [`Worker::poll_transmit`]; its buffer is free.
    Held,
    /// It asked something, and the answer comes out of [`Worker::poll_transmit`]; its buffer is free.
    Answered,
}

/// Verdicts of a burst, in the order of its frames.
#[derive(Clone, Debug)]
pub struct Verdicts {
    verdicts: Vec<Verdict>,
}

impl Default for Verdicts {
    fn default() -> Self {
        Verdicts {
            verdicts: Vec::with_capacity(BURST),
        }
    }
}

impl Verdicts {
    /// The verdicts.
    pub fn as_slice(&self) -> &[Verdict] {
        &self.verdicts
    }
}

/// Which worker of a node serves which bucket; fixed for one incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketMap {
    worker_of: [u8; BUCKET_COUNT_MAX as usize],
}

impl BucketMap {
    /// Buckets dealt to `workers` (1 to 256) in turn.
    pub fn dealt(workers: u16) -> Self {
        let workers = usize::from(workers.clamp(1, BUCKET_COUNT_MAX));
        BucketMap {
            worker_of: core::array::from_fn(|bucket| (bucket % workers) as u8),
        }
    }

    /// The worker of a bucket.
    #[inline]
    pub fn worker(&self, bucket: u16) -> WorkerId {
        WorkerId(self.worker_of[usize::from(bucket % BUCKET_COUNT_MAX)])
    }
}

/// What a worker is made with; fixed for one incarnation.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Which worker it is.
    pub id: WorkerId,
    /// The workers of the node.
    pub buckets: BucketMap,
    /// Key, number of buckets, port classes.
    pub steering: Arc<Steering>,
    /// Sizes of its table.
    pub sizes: TableSizes,
    /// Lowest local port that is used.
    pub local_port_min: u16,
    /// Where all its randomness comes from. Workers of one node have the same.
    pub seed: u64,
    /// Its place in a cluster; `None`: it is alone, and nothing is replicated.
    pub cluster: Option<ClusterWorkerConfig>,
}

/// Something that a worker is told to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Serve by this snapshot from now on. The old one comes back as an event.
    SetSnapshot(Arc<Snapshot>),
    /// Take in a session that another node created.
    Install(Box<SessionRecord>),
    /// Something about the other nodes.
    Sync(SyncCommand),
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Events wait to be polled; nothing was changed.
    EventsFull,
    /// The session does not fit.
    Install(InstallError),
    /// The worker was made without a cluster.
    NoCluster,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EventsFull => f.write_str("events wait to be polled"),
            Self::Install(e) => write!(f, "the session does not fit: {e:?}"),
            Self::NoCluster => f.write_str("the worker was made without a cluster"),
        }
    }
}

impl core::error::Error for CommandError {}

/// Something that a worker tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// A snapshot that it no longer reads: who polls frees it, the fast path does not.
    SnapshotReleased(Arc<Snapshot>),
    /// Something that the node has to know about replication.
    Sync(SyncEvent),
}

/// Where scheduling and port choice of a (service, bucket) stand.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// Position in the service's cycle, plus one; 0 is not begun.
    sched: u32,
    /// Next local port to probe.
    port: u32,
}

/// What comes of a frame: where it is sent, or why it is not. [`Verdict`]s are made of it at the end, as a
/// hand-off's tag makes those too large to be carried about for every packet.
type Turn = Result<PortId, Unsent>;

/// A frame that is not sent.
#[derive(Clone, Copy, Debug)]
enum Unsent {
    Drop(DropReason),
    Punt,
    Answered,
    Handoff { to: WorkerId, bucket: u16, hops: u8 },
}

impl From<DropReason> for Unsent {
    #[inline]
    fn from(reason: DropReason) -> Self {
        Unsent::Drop(reason)
    }
}

impl Unsent {
    fn verdict(self) -> Verdict {
        match self {
            Unsent::Drop(reason) => Verdict::Drop(reason),
            Unsent::Punt => Verdict::Punt,
            Unsent::Answered => Verdict::Answered,
            Unsent::Handoff { to, bucket, hops } => {
                let reason = HandoffReason::Bucket;
                let tag = HandoffTag {
                    reason,
                    stage: 0,
                    hops,
                    reserved: 0,
                    bucket,
                    reserved2: [0; 5],
                };
                Verdict::Handoff(to, tag)
            }
        }
    }
}

/// What a frame is that is not plain.
#[derive(Clone, Copy, Debug)]
struct Staged {
    outcome: Result<(), DropReason>,
    parsed: Parsed,
}

impl Staged {
    const NONE: Staged = Staged {
        outcome: Err(DropReason::Truncated),
        parsed: Parsed::NONE,
    };

    /// Whether it is looked up in the conn table.
    #[inline]
    fn is_transport(&self) -> bool {
        self.outcome.is_ok() && matches!(self.parsed.kind, Kind::Tcp | Kind::Udp)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Worker {
    id: WorkerId,
    buckets: BucketMap,
    steering: Arc<Steering>,
    local_port_min: u16,
    seed: u64,
    table: ConnTable,
    snapshot: Arc<Snapshot>,
    /// By service id and bucket.
    cursors: Vec<Cursor>,
    ways: Ways,
    /// By service id; the defaults where there is no such service.
    timeouts: Vec<Timeouts>,
    counters: Counters,
    originator: Originator,
    /// For what it answers; `None`: for all that the snapshot owns.
    answering: Option<Arc<Answering>>,
    events: VecDeque<Event>,
    sync: Option<Box<Sync>>,
    now: Instant,
    /// What is known of the frames of a burst: [`BURST`], and [`SOON`] to look beyond the last.
    ahead: Vec<Ahead>,
    /// As many, for frames that are not plain.
    staged: Vec<Staged>,
}

impl Worker {
    /// A worker that serves nothing yet, over memory from `source`.
    pub fn new(config: WorkerConfig, source: &mut impl MemorySource) -> Result<Self, OutOfMemory> {
        let memory = TableMemory::new(config.sizes, source)?;
        let sync = config.cluster.map(|cluster| {
            let steering = config.steering.clone();
            Box::new(Sync::new(cluster, config.id, &config.buckets, steering))
        });
        Ok(Worker {
            sync,
            id: config.id,
            buckets: config.buckets,
            table: ConnTable::new(memory, config.steering.clone(), config.seed),
            steering: config.steering,
            local_port_min: config.local_port_min.max(1),
            seed: config.seed,
            snapshot: Arc::new(Snapshot::default()),
            cursors: Vec::new(),
            ways: Ways::default(),
            timeouts: Vec::new(),
            counters: Counters::default(),
            originator: Originator::new(),
            answering: None,
            events: VecDeque::with_capacity(EVENT_COUNT_MAX),
            now: Instant::ZERO,
            ahead: alloc::vec![Ahead::NONE; BURST + SOON],
            staged: alloc::vec![Staged::NONE; BURST],
        })
    }

    /// Its number in the node.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// What it counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Its conns.
    pub fn table(&self) -> &ConnTable {
        &self.table
    }

    /// What it serves.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The conn of a tuple, and the direction in which the tuple runs.
    pub fn conn(&self, tuple: &Tuple) -> Option<(ConnView, Direction)> {
        let (id, direction) = self.table.lookup(tuple)?;
        Some((self.table.view(id)?, direction))
    }

    /// All that another node needs to take over a conn.
    pub fn session(&self, id: ConnId) -> Option<SessionRecord> {
        SessionRecord::of(&self.table, id)
    }

    /// Takes frames in, [`BURST`] at most at a time inside, and says for each what to do with it. Frames are
    /// rewritten in place. Equal to handing them in one by one.
    pub fn handle_burst<F: Frame>(&mut self, now: Instant, frames: &mut [F], out: &mut Verdicts) {
        self.set_now(now);
        out.verdicts.resize(frames.len(), Verdict::Held);
        let verdicts = out.verdicts.chunks_mut(BURST);
        for (burst, verdicts) in frames.chunks_mut(BURST).zip(verdicts) {
            self.handle_frames(burst, verdicts);
        }
    }

    /// The frames of a burst. Those whose conns are known first go first, in two halves, so that the lines of the
    /// others have time to arrive.
    ///
    /// To relay a packet changes the deadline of its conn and nothing else, and to what every plain packet of that
    /// conn would. So a relay and the turn of a plain packet before it may change places: the same comes of both.
    fn handle_frames<F: Frame>(&mut self, burst: &mut [F], verdicts: &mut [Verdict]) {
        let missed = self.look_ahead(burst);
        let (some, end) = (burst.len() / 4, burst.len());
        let mut place = self.relay(burst, 0..some, missed, verdicts);
        let hints = self.look_again(missed);
        if place == some {
            place = self.relay(burst, some..end, missed, verdicts);
        }
        for at in bits(missed) {
            if at >= place {
                self.ahead[at].hint = hints[at];
            } else if !self.relay_late(burst, at, hints[at], verdicts) {
                self.turn(burst, at, verdicts);
            }
        }
        // The first that needs more, and what follows it, in order.
        while place < end {
            self.turn(burst, place, verdicts);
            place = self.relay(burst, place + 1..end, 0, verdicts);
        }
    }

    /// Time never goes back for a worker.
    #[inline]
    fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.table.set_now(self.now.tick());
    }

    /// The turn of any frame.
    #[inline(never)]
    fn turn<F: Frame>(&mut self, burst: &mut [F], place: usize, verdicts: &mut [Verdict]) {
        let (frame, ahead, staged) = (&mut burst[place], self.ahead[place], &mut self.staged[place]);
        if ahead.is_plain() {
            // Nobody has looked closer yet.
            staged.outcome = parse(frame.data(), frame.len(), frame.rx_checksum(), &mut staged.parsed);
        }
        let staged = *staged;
        verdicts[place] = match self.act(frame, &staged, &ahead) {
            Ok(port) => {
                self.counters.tx_packets += 1;
                self.counters.tx_bytes += frame.len() as u64;
                Verdict::Tx(port)
            }
            Err(unsent) => self.unsent(unsent),
        };
    }

    #[inline(always)]
    fn count_forwarded(&mut self, direction: Direction) {
        self.counters.inbound_packets += u64::from(direction == Direction::Inbound);
        self.counters.outbound_packets += u64::from(direction == Direction::Outbound);
    }

    #[inline]
    fn act<F: Frame>(&mut self, frame: &mut F, staged: &Staged, ahead: &Ahead) -> Turn {
        staged.outcome?;
        let parsed = &staged.parsed;
        match parsed.kind {
            Kind::Tcp | Kind::Udp => self.transport(frame, parsed, ahead),
            Kind::Icmp => self.icmp(frame, parsed),
            Kind::Arp => {
                let reaction = l3::arp(
                    frame.data(),
                    usize::from(parsed.l3),
                    self.answers(),
                    frame.ingress(),
                )?;
                self.react(frame, reaction)
            }
            Kind::OtherIp => match self.snapshot.owned(parsed.key.dst_addr()) {
                Some(OwnedAddr::Virtual | OwnedAddr::Local) => Err(DropReason::NoService.into()),
                Some(OwnedAddr::Port(_)) => Err(Unsent::Punt),
                None if is_group(parsed.key.dst_addr()) => Err(Unsent::Punt),
                None => Err(DropReason::NotOurs.into()),
            },
            Kind::OtherEther => Err(Unsent::Punt),
        }
    }

    #[inline(never)]
    fn transport<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed, ahead: &Ahead) -> Turn {
        let plain = is_plain(parsed);
        if !plain {
            check_tcp_flags(parsed.flags)?;
        }
        let conn = match ahead.hint {
            Some(hint) if self.table.is(hint, &parsed.key) => Some(hint),
            // The hint was of another conn, or an earlier frame of the burst changed the table.
            _ => self.table.find(&parsed.key, ahead.at),
        };
        match conn {
            Some(conn) if self.is_overdue(conn.id()) && self.may_delete(conn.id()) => {
                self.remove(conn.id(), Removal::Expired);
                self.open(frame, parsed)
            }
            Some(conn) if !plain && self.begins_anew(conn, parsed) => {
                self.replace(conn.id())?;
                self.open(frame, parsed)
            }
            Some(conn) if !plain && self.sync.is_some() => self.forward_watched(frame, parsed, conn),
            Some(conn) => self.forward(frame, parsed, conn),
            None => self.open(frame, parsed),
        }
    }

    /// Whether the time of a conn is up, though its timer's turn has not come: what a packet finds does not
    /// depend on how far the timers got.
    #[inline]
    fn is_overdue(&self, id: ConnId) -> bool {
        let left = |deadline: u32| deadline.wrapping_sub(self.table.now() as u32) as i32;
        self.table.meta(id).is_some_and(|m| left(m.deadline) <= 0)
    }

    /// A client's SYN for a conn that is over: the client uses its port again.
    #[cold]
    fn begins_anew(&self, conn: ConnRef, parsed: &Parsed) -> bool {
        is_pure_syn(parsed.flags)
            && conn.direction() == Direction::Inbound
            && self
                .table
                .meta(conn.id())
                .and_then(|m| ConnState::from_u8(m.state))
                .is_some_and(ConnState::is_closed)
    }

    /// Whether this node decides about a conn, and may delete it now.
    #[cold]
    fn may_delete(&self, id: ConnId) -> bool {
        let sync = self.sync.as_ref();
        sync.is_none_or(|sync| sync.may_delete(&self.table, id, self.now))
    }

    /// Makes way for a new connection of the same client.
    #[cold]
    fn replace(&mut self, id: ConnId) -> Result<(), DropReason> {
        let version = self.table.meta(id).map_or(0, |m| m.version);
        if let Some(sync) = &self.sync {
            if !sync.creates() {
                return Err(DropReason::NotReady);
            }
            if !sync.advances(version) {
                self.with_sync(|sync, ctx| sync.supersede(ctx, id));
                return Ok(());
            }
        }
        self.remove(id, Removal::Replaced);
        Ok(())
    }

    /// [`Worker::forward`] of a segment that begins or ends something, where others may have to know.
    #[cold]
    fn forward_watched<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed, conn: ConnRef) -> Turn {
        let turn = self.forward(frame, parsed, conn)?;
        let syn_ack = tcp_flag::SYN | tcp_flag::ACK;
        if main_flags(parsed.flags) == syn_ack && conn.direction() == Direction::Outbound {
            self.with_sync(|sync, ctx| sync.syn_acked(ctx, conn.id()));
        }
        Ok(turn)
    }

    /// Runs something of replication, if there is any.
    fn with_sync<T>(&mut self, run: impl FnOnce(&mut Sync, &mut Ctx<'_>) -> T) -> Option<T> {
        let sync = self.sync.as_mut()?;
        let mut ctx = Ctx {
            table: &mut self.table,
            counters: &mut self.counters,
            snapshot: &self.snapshot,
            timeouts: &self.timeouts,
            now: self.now,
        };
        Some(run(sync, &mut ctx))
    }

    /// A packet of a known conn: rewritten to its other side, and the state follows.
    #[inline]
    fn forward<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed, conn: ConnRef) -> Turn {
        let port = if conn.id().is_v6() {
            self.forward_v6(frame, parsed, conn)?
        } else {
            self.forward_v4(frame, parsed, conn)?
        };
        self.advance(conn, parsed);
        Ok(port)
    }

    /// [`Worker::forward`] between IPv4 ends, without what follows for the conn.
    #[inline]
    fn forward_v4<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed, conn: ConnRef) -> Turn {
        let (direction, other) = (conn.direction(), conn.direction().reversed() as usize);
        let c = self.table.v4.at(conn.id().place()).ok_or(DropReason::NoConn)?;
        let to = Target4::reverse_of(c.addrs[other], c.ports[other]);
        let server = RealServerId(c.meta.server);
        let searched;
        let out = match self.ways.find_v4(direction, server, to.dst().octets()) {
            Some(way) => way,
            None => {
                searched = self.search_v4(direction, server, to.dst())?;
                &searched
            }
        };
        let shift = if c.meta.ext == 0 { None } else { self.shift(conn) };
        rewrite_v4(frame, parsed, &to, shift, out)?;
        Ok(out.port)
    }

    /// The way out of a packet where none was at hand.
    #[inline(never)]
    fn search_v4(
        &self,
        direction: Direction,
        server: RealServerId,
        dst: Ipv4Addr,
    ) -> Result<Egress, DropReason> {
        let known = match direction {
            Direction::Inbound => self.ways.to_server_v4(server, dst),
            Direction::Outbound => None,
        };
        match known {
            Some(way) => Ok(way),
            None => self.ways.by_route_v4(&self.snapshot, dst),
        }
    }

    /// As [`Worker::forward_v4`] where IPv6 is on a side.
    #[inline(never)]
    fn forward_v6<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed, conn: ConnRef) -> Turn {
        let (direction, other) = (conn.direction(), conn.direction().reversed());
        let c = self.table.v6.at(conn.id().place()).ok_or(DropReason::NoConn)?;
        let to = Target6::reverse_of(c.family(other), c.addrs[other as usize], c.ports[other as usize]);
        let server = RealServerId(c.meta.server);
        let known = if direction == Direction::Inbound {
            self.ways.to_server(server, to.dst())
        } else {
            None
        };
        let out = match known {
            Some(way) => way,
            None => self.ways.by_route(&self.snapshot, to.dst())?,
        };
        let shift = if c.meta.ext == 0 { None } else { self.shift(conn) };
        rewrite_v6(frame, parsed, &to, shift, &out)?;
        Ok(out.port)
    }

    #[cold]
    fn shift(&self, conn: ConnRef) -> Option<SeqShift> {
        let (inbound, outbound) = self.table.ext(conn.id())?.shifts()?;
        Some(match conn.direction() {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        })
    }

    /// Counts a packet that was forwarded; state and deadline follow.
    #[inline]
    fn advance(&mut self, conn: ConnRef, parsed: &Parsed) {
        let (id, direction) = (conn.id(), conn.direction());
        self.count_forwarded(direction);
        let tick = self.table.now();
        let Some(meta) = self.table.meta_mut(id) else {
            return;
        };
        let Some(state) = ConnState::from_u8(meta.state) else {
            return;
        };
        let next = match parsed.kind {
            Kind::Tcp => {
                let client = if meta.flags & flag::INBOUND_ONLY != 0 {
                    TcpSide::InboundOnly
                } else {
                    TcpSide::Inbound
                };
                // No branch on the direction, which cannot be predicted.
                let inbound = direction == Direction::Inbound;
                let side = select_unpredictable(inbound, client, TcpSide::Outbound);
                tcp_transition(state, side, tcp_event(parsed.flags))
            }
            _ => udp_transition(state, direction),
        };
        let timeout = match self.timeouts.get(usize::from(meta.service)) {
            Some(timeouts) => timeouts.ms(next),
            // The service has left the config: its conns live on by the defaults.
            None => Timeouts::default().ms(next),
        };
        let deadline = tick + u64::from(timeout);
        let later = (deadline as u32).wrapping_sub(meta.deadline) as i32 >= 0;
        if next == state && later {
            // Prolonged: the wheel finds out when it looks.
            meta.deadline = deadline as u32;
        } else if next == state {
            // A reload made its timeout shorter.
            self.table.set_deadline(id, deadline);
        } else {
            self.change_state(conn, parsed, state, next, deadline);
        }
    }

    #[cold]
    fn change_state(
        &mut self,
        conn: ConnRef,
        parsed: &Parsed,
        from: ConnState,
        to: ConnState,
        deadline: u64,
    ) {
        let (id, direction) = (conn.id(), conn.direction());
        let version = self.table.meta(id).map_or(0, |m| m.version);
        if self.sync.as_ref().is_some_and(|sync| !sync.advances(version)) {
            let event = (parsed.kind == Kind::Tcp).then(|| tcp_event(parsed.flags));
            self.with_sync(|sync, ctx| sync.seen(ctx, id, direction, event));
            return;
        }
        self.table.set_deadline(id, deadline);
        set_state(&mut self.table, &mut self.counters, id, from, to);
        self.with_sync(|sync, ctx| sync.changed(ctx, id, to));
    }

    /// A packet that no conn knows: perhaps the first of a new one.
    #[cold]
    fn open<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed) -> Turn {
        let tuple = parsed.key.tuple().ok_or(DropReason::NotOurs)?;
        let snapshot = self.snapshot.clone();
        let service = snapshot.service_at(tuple.dst.ip(), tuple.dst.port(), tuple.proto);
        if service.is_none() {
            match snapshot.owned(tuple.dst.ip()) {
                Some(OwnedAddr::Virtual) => return Err(DropReason::NoService.into()),
                // Perhaps the reply of a conn that another worker has.
                Some(OwnedAddr::Local) => {}
                Some(OwnedAddr::Port(_)) => return Err(Unsent::Punt),
                None if is_group(tuple.dst.ip()) => return Err(Unsent::Punt),
                None => return Err(DropReason::NotOurs.into()),
            }
        }
        let hash = frame
            .rss()
            .unwrap_or_else(|| parsed.key.toeplitz(self.steering.toeplitz()));
        let bucket = self.steering.bucket(hash);
        let worker = self.buckets.worker(bucket);
        if worker != self.id {
            let hops = frame.tag().map_or(0, |t| t.hops) + 1;
            if hops > HandoffTag::HOPS_MAX {
                return Err(DropReason::TooManyHops.into());
            }
            return Err(Unsent::Handoff {
                to: worker,
                bucket,
                hops,
            });
        }
        let Some(service) = service else {
            return Err(DropReason::NoConn.into());
        };
        if parsed.kind == Kind::Tcp && !is_pure_syn(parsed.flags) {
            return Err(DropReason::NoConn.into());
        }
        if !is_client(&tuple, &snapshot) {
            return Err(DropReason::BadSource.into());
        }
        if self.sync.as_ref().is_some_and(|sync| !sync.creates()) {
            return Err(DropReason::NotReady.into());
        }
        let id = self.create(service, &tuple, bucket)?;
        let forwarded = self.forward(frame, parsed, id.with(Direction::Inbound));
        match forwarded {
            Ok(_) => {
                self.counters.opened += 1;
                self.with_sync(|sync, ctx| sync.opened(ctx, id));
            }
            // Its first packet went nowhere: nobody will answer, and a client's next try schedules anew.
            Err(_) => self.remove(id, Removal::Undone),
        }
        forwarded
    }

    /// Makes a conn for `tuple`, a client's: chooses the real server and the local end.
    fn create(&mut self, service: &VirtualService, tuple: &Tuple, bucket: u16) -> Result<ConnId, DropReason> {
        let at = usize::from(service.id.0) * usize::from(self.steering.buckets()) + usize::from(bucket);
        let mut cursor = *self.cursors.get(at).ok_or(DropReason::NoService)?;
        if cursor.sched == 0 {
            // Begun anew at every start: ports of sessions that died with the last one are still in use at
            // the servers.
            let random = SplitMix::new(self.seed ^ ((at as u64) << 32)).next();
            cursor.sched = sched::start_position(bucket, self.steering.buckets(), service.cycle.len()) + 1;
            cursor.port = random as u32;
        }
        let mut position = cursor.sched - 1;
        let place = sched::pick(&service.cycle, &mut position).ok_or(DropReason::NoServer)?;
        let server = service
            .servers
            .get(usize::from(place))
            .ok_or(DropReason::NoServer)?;
        let local = self.local_end(service, server, tuple.proto, bucket, &mut cursor.port);
        // The position moves on though a conn could not be made: the next one shall try another server.
        cursor.sched = position + 1;
        self.cursors[at] = cursor;
        let state = match tuple.proto {
            L4Proto::Tcp => ConnState::None,
            L4Proto::Udp => ConnState::UdpOneWay,
        };
        let init = ConnInit {
            proto: tuple.proto,
            client: tuple.src,
            vip: tuple.dst,
            server: SocketAddr::new(server.addr, server.port),
            local: local?,
            service: service.id,
            server_id: server.id,
            state,
        };
        let deadline = self.now.tick() + u64::from(service.timeouts.ms(state));
        let mut inserted = self.table.insert(&init, deadline);
        if inserted == Err(TableFull::Slab) {
            // A tombstone may give its place.
            let v6 = !(tuple.src.is_ipv4() && server.addr.is_ipv4());
            if self.with_sync(|sync, ctx| sync.evict_tomb(ctx, v6)) == Some(true) {
                inserted = self.table.insert(&init, deadline);
            }
        }
        let id = inserted.map_err(|e| match e {
            TableFull::Slab => DropReason::ConnTableFull,
            TableFull::Index => DropReason::IndexFull,
        })?;
        self.counters.by_state[state as usize] += 1;
        self.with_sync(|sync, ctx| sync.created(ctx, id, service.replicate));
        Ok(id)
    }

    /// A free local end whose replies from `server` come to this worker: the table is the pool of ports.
    fn local_end(
        &mut self,
        service: &VirtualService,
        server: &RealServer,
        proto: L4Proto,
        bucket: u16,
        cursor: &mut u32,
    ) -> Result<SocketAddr, DropReason> {
        let addrs = service.local_addrs(Family::of(&server.addr));
        if addrs.is_empty() {
            return Err(DropReason::NoLocalPort);
        }
        let src = SocketAddr::new(server.addr, server.port);
        let first = *cursor as usize % addrs.len();
        for addr in addrs
            .iter()
            .cycle()
            .skip(first)
            .take(addrs.len().min(PORT_PROBE_ADDRS))
        {
            let class = self.steering.class_for(src, *addr, bucket);
            let (mut probes, mut skips) = (0, 0);
            // Ports below the minimum are passed over, at most once round the class.
            while probes < PORT_PROBES_PER_ADDR && skips < class.len() {
                let port = class.port(*cursor / addrs.len() as u32);
                *cursor = cursor.wrapping_add(addrs.len() as u32);
                if port < self.local_port_min {
                    skips += 1;
                    continue;
                }
                let dst = SocketAddr::new(*addr, port);
                if self.table.lookup(&Tuple { proto, src, dst }).is_none() {
                    // The next conn begins at the next LIP.
                    *cursor = cursor.wrapping_add(1);
                    return Ok(dst);
                }
                probes += 1;
                self.counters.port_probes_taken += 1;
            }
        }
        // The next one begins at another LIP: there may be more of them than are probed.
        *cursor = cursor.wrapping_add(1);
        Err(DropReason::NoLocalPort)
    }

    fn icmp<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed) -> Turn {
        let reaction = l3::icmp(frame, parsed, self.answers())?;
        self.react(frame, reaction)
    }

    fn answers(&self) -> l3::Answers<'_> {
        l3::Answers {
            snapshot: &self.snapshot,
            answering: self.answering.as_deref(),
        }
    }

    fn react<F: Frame>(&mut self, frame: &F, reaction: l3::Reaction) -> Turn {
        match reaction {
            l3::Reaction::EchoReply => {
                self.counters.echo_replies += 1;
                Ok(frame.ingress())
            }
            l3::Reaction::Answer(answer) => self.originate(answer),
            l3::Reaction::Punt => Err(Unsent::Punt),
        }
    }

    fn originate(&mut self, answer: Originated) -> Turn {
        if self.originator.push(answer) {
            Err(Unsent::Answered)
        } else {
            Err(DropReason::OriginateFull.into())
        }
    }

    /// Counts a frame that is not sent.
    #[cold]
    fn unsent(&mut self, unsent: Unsent) -> Verdict {
        match unsent {
            Unsent::Drop(reason) => self.counters.drops[reason as usize] += 1,
            Unsent::Punt => self.counters.punted += 1,
            Unsent::Handoff { .. } => self.counters.handed_off += 1,
            Unsent::Answered => self.counters.answered += 1,
        }
        unsent.verdict()
    }

    fn remove(&mut self, id: ConnId, why: Removal) {
        let Some(meta) = self.table.meta(id) else { return };
        let (state, flags) = (meta.state, meta.flags);
        let told = self.with_sync(|sync, ctx| sync.take_out(ctx, id, why.told()));
        if !told.unwrap_or_else(|| self.table.remove(id)) {
            return;
        }
        self.counters.by_state[usize::from(state)] -= 1;
        match why {
            Removal::Undone => {}
            Removal::Expired if flags & flag::CLOSED == 0 => self.counters.expired += 1,
            Removal::Expired | Removal::Replaced => self.counters.removed += 1,
        }
    }

    /// Lets conns expire whose deadline has come; looks at [`TIMER_BUDGET`] at most a call. More may be due
    /// then: [`Worker::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.set_now(now);
        let mut budget = TIMER_BUDGET;
        if self.sync.is_some() {
            while let Some(id) = self.table.pop_fired(self.now.tick(), &mut budget) {
                if self.with_sync(|sync, ctx| sync.fire(ctx, id)) == Some(true) {
                    self.remove(id, Removal::Expired);
                }
            }
            self.with_sync(|sync, ctx| sync.sweep(ctx));
            return;
        }
        while let Some(id) = self.table.pop_due(self.now.tick(), &mut budget) {
            self.remove(id, Removal::Expired);
        }
    }

    /// When [`Worker::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let conns = self.table.next_tick().and_then(Instant::from_tick);
        match &self.sync {
            None => conns,
            Some(sync) => {
                let sync = sync.poll_timeout();
                Some(conns.map_or(sync, |conns| conns.min(sync)))
            }
        }
    }

    /// Takes in what another node says about sessions.
    pub fn handle_sync(&mut self, now: Instant, message: &SyncMessage) -> SyncOutcome {
        self.set_now(now);
        let outcome = self.with_sync(|sync, ctx| sync.handle(ctx, message));
        outcome.unwrap_or(SyncOutcome::NoCluster)
    }

    /// A frame for other nodes, into `out`, which is emptied first; to whom it goes. `None`: there is nothing to
    /// send now, see [`Worker::poll_timeout`].
    pub fn poll_sync(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Destination> {
        self.set_now(now);
        self.with_sync(|sync, ctx| sync.poll_frame(ctx, out)).flatten()
    }

    /// As [`Worker::poll_sync`], one message instead of a frame: for tests. Messages of both are taken from one
    /// queue.
    #[doc(hidden)]
    pub fn poll_sync_message(&mut self, now: Instant) -> Option<(Destination, SyncMessage)> {
        self.set_now(now);
        self.with_sync(|sync, ctx| sync.poll_message(ctx)).flatten()
    }

    /// The group and the version of a conn, if it is replicated; LSN 0: no other node was told of it yet.
    pub fn version(&self, id: ConnId) -> Option<(GroupId, Version)> {
        let version = self.table.meta(id)?.version;
        self.sync.as_ref()?.version_of(version)
    }

    /// Checks that index, slabs, wheel, slots, queues and counts agree; for tests. Panics with what does not hold.
    #[doc(hidden)]
    pub fn audit(&self) {
        self.table.audit();
        if let Some(sync) = &self.sync {
            sync.audit(&self.table);
        }
    }

    /// Carries out a command, or says why not; then nothing has changed.
    pub fn handle_command(&mut self, now: Instant, command: Command) -> Result<(), CommandError> {
        self.set_now(now);
        match command {
            Command::SetSnapshot(snapshot) => {
                if self.events.len() == EVENT_COUNT_MAX {
                    return Err(CommandError::EventsFull);
                }
                let cursors = snapshot.service_slots() * usize::from(self.steering.buckets());
                if self.cursors.len() < cursors {
                    self.cursors.resize(cursors, Cursor::default());
                }
                self.ways = Ways::new(&snapshot);
                let slots = 0..snapshot.service_slots();
                self.timeouts = slots
                    .map(|id| snapshot.service(ServiceId(id as u16)))
                    .map(|service| service.map_or_else(Timeouts::default, |service| service.timeouts))
                    .collect();
                let old = core::mem::replace(&mut self.snapshot, snapshot);
                self.events.push_back(Event::SnapshotReleased(old));
                Ok(())
            }
            Command::Install(record) => {
                let ours = self.is_ours(&record.conn);
                let ttl_max_ms = TIMEOUT_MAX.as_millis() as u64;
                record
                    .install(&mut self.table, ours, self.now.tick(), ttl_max_ms)
                    .map_err(CommandError::Install)?;
                self.counters.opened += 1;
                self.counters.by_state[record.conn.state as usize] += 1;
                Ok(())
            }
            Command::Sync(SyncCommand::Answer(answering)) => {
                self.answering = Some(answering);
                Ok(())
            }
            Command::Sync(command) => self
                .with_sync(|sync, ctx| sync.handle_command(ctx, command))
                .ok_or(CommandError::NoCluster),
        }
    }

    /// Whether both directions of a conn come to this worker.
    fn is_ours(&self, conn: &ConnInit) -> bool {
        let bucket = |t: &Tuple| self.steering.bucket(self.steering.toeplitz().hash_tuple(t));
        let inbound = bucket(&conn.inbound());
        inbound == bucket(&conn.outbound()) && self.buckets.worker(inbound) == self.id
    }

    /// A frame that the engine originates. `alloc` gives a frame of the length asked for; if it has none, the
    /// engine keeps what it has to send.
    pub fn poll_transmit<F: Frame>(&mut self, alloc: impl FnOnce(usize) -> Option<F>) -> Option<(PortId, F)> {
        let (port, data) = self.originator.peek()?;
        let mut frame = alloc(data.len())?;
        let room = frame.data_mut();
        if room.len() < data.len() {
            return None;
        }
        room[..data.len()].copy_from_slice(data);
        self.originator.pop();
        self.counters.originated += 1;
        Some((port, frame))
    }

    /// Something that the worker tells.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        event.or_else(|| self.sync.as_mut()?.poll_event().map(Event::Sync))
    }
}

/// Why a conn leaves the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// Its time is up.
    Expired,
    /// A new connection of the same client takes its tuple.
    Replaced,
    /// Its first packet could not be forwarded: it never was.
    Undone,
}

impl Removal {
    /// What other nodes are told.
    fn told(self) -> Option<CloseReason> {
        match self {
            Removal::Expired => Some(CloseReason::Expired),
            Removal::Replaced => Some(CloseReason::Replaced),
            Removal::Undone => None,
        }
    }
}

/// The places of the bits that are set, lowest first.
fn bits(mut mask: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let place = mask.trailing_zeros() as usize;
        mask &= mask.checked_sub(1)?;
        Some(place)
    })
}

/// What is known ahead of a frame that is not plain.
#[inline(never)]
fn stage<F: Frame>(table: &ConnTable, frame: &F, ahead: &mut Ahead, staged: &mut Staged) {
    staged.outcome = parse(frame.data(), frame.len(), frame.rx_checksum(), &mut staged.parsed);
    if staged.is_transport() {
        ahead.at = table.candidates(table.hash(&staged.parsed.key));
        table.prefetch_first(ahead.at);
    }
}

/// Most packets of a transport are neither malformed nor the beginning or the end of anything.
#[inline]
fn is_plain(parsed: &Parsed) -> bool {
    parsed.kind == Kind::Udp || is_plain_segment(parsed.flags)
}

/// SYN alone; ECN's flags (RFC 3168, 6.1.1) and PSH or URG may be with it.
#[inline]
fn is_pure_syn(flags: u8) -> bool {
    main_flags(flags) == tcp_flag::SYN
}

/// Segments that no TCP sends are not let near a state machine: none of the four flags, or a SYN together
/// with FIN or RST.
#[inline]
fn check_tcp_flags(flags: u8) -> Result<(), DropReason> {
    let main = main_flags(flags);
    let syn_and = main & tcp_flag::SYN != 0 && main & (tcp_flag::FIN | tcp_flag::RST) != 0;
    if main == 0 || syn_and {
        Err(DropReason::BadTcpFlags)
    } else {
        Ok(())
    }
}

/// Precedence as in LVS: RST, SYN, FIN, ACK.
#[inline]
fn tcp_event(flags: u8) -> TcpEvent {
    if flags & tcp_flag::RST != 0 {
        TcpEvent::Rst
    } else if flags & tcp_flag::SYN != 0 {
        TcpEvent::Syn
    } else if flags & tcp_flag::FIN != 0 {
        TcpEvent::Fin
    } else {
        TcpEvent::Ack
    }
}

/// Whether the sender can be a client: a host, none of our own addresses, with a port to answer to.
fn is_client(tuple: &Tuple, snapshot: &Snapshot) -> bool {
    let addr = tuple.src.ip();
    is_unicast(addr) && tuple.src.port() != 0 && snapshot.owned(addr).is_none()
}
