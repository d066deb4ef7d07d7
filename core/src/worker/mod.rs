//! A worker: all control flow of a packet.
//!
//! Methods come in the groups of sans-IO code: `handle_*` says that something happened, `poll_*` asks what
//! to do next, the rest reads.

mod defer;
mod forwarding;
mod hold;
mod opening;
mod relay;
mod replication;
mod types;

pub use hold::{HELD_LEN_MAX, HoldConfig};
pub use opening::{PORT_PROBE_ADDRS, PORT_PROBES_PER_ADDR};
pub use types::{BucketMap, Command, CommandError, Event, Verdict, Verdicts, WorkerConfig};

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::defer::Deferred;
use self::hold::Hold;
use self::opening::{Bases, Cursor};
use self::relay::{Ahead, Order};
use crate::conn::{
    Candidates, ConnId, ConnInit, ConnRef, ConnTable, ConnView, Fired, Hint, MemorySource, TableMemory, flag,
};
use crate::l3::{self, Originated, Originator};
use crate::lport::Steering;
use crate::memory::OutOfMemory;
use crate::parse::{Kind, Parsed, is_plain_segment, main_flags, parse, tcp_flag};
use crate::port::{BURST, Frame, HandoffReason, HandoffTag, PortId, WorkerId};
use crate::proto::{ConnState, TIMEOUT_MAX, TcpEvent, Timeouts};
use crate::service::{OwnedAddr, Replicate, ServiceId, Snapshot, is_group};
use crate::stats::{Counters, DropReason};
use crate::sync::{Answering, SessionRecord, Sync, SyncCommand};
use crate::time::Instant;
use crate::tuple::{Direction, Tuple};
use crate::xmit::Ways;

/// Conns that one call of [`Worker::handle_timeout`] looks at, at most.
pub const TIMER_BUDGET: usize = 256;
/// Snapshots that may wait for their owner to take them back, at most.
const EVENT_COUNT_MAX: usize = 8;

/// What comes of a frame: where it is sent, or why it is not. [`Verdict`]s are made of it at the end, as a
/// hand-off's tag makes those too large to be carried about for every packet.
type Turn = Result<PortId, Unsent>;

/// A frame that is not sent.
#[derive(Clone, Copy, Debug)]
enum Unsent {
    Drop(DropReason),
    Punt,
    Answered,
    /// It was copied, and waits for other nodes.
    Held,
    Handoff {
        to: WorkerId,
        bucket: u16,
        hops: u8,
    },
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
            Unsent::Held => Verdict::Held,
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
    /// By service id; none where there is no such service.
    bases: Vec<Bases>,
    ways: Ways,
    /// By service id; the defaults where there is no such service.
    timeouts: Vec<Timeouts>,
    counters: Counters,
    originator: Originator,
    /// What waits for neighbours; `None`: such packets are dropped.
    hold: Option<Box<Hold>>,
    /// What waits for other nodes; `None`: there are none.
    deferred: Option<Box<Deferred>>,
    /// For what it answers; `None`: for all that the snapshot owns.
    answering: Option<Arc<Answering>>,
    events: VecDeque<Event>,
    sync: Option<Box<Sync>>,
    now: Instant,
    /// What is known of the frames of a burst.
    ahead: [Ahead; BURST],
    /// The order in which they are relayed.
    order: Order,
    /// [`BURST`], for frames that are not plain.
    staged: Vec<Staged>,
}

impl Worker {
    /// A worker that serves nothing yet, over memory from `source`.
    pub fn new(config: WorkerConfig, source: &mut impl MemorySource) -> Result<Self, OutOfMemory> {
        let memory = TableMemory::new(config.sizes, source)?;
        let frames = config.cluster.as_ref().map(|cluster| cluster.sizes.deferred);
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
            bases: Vec::new(),
            ways: Ways::default(),
            timeouts: Vec::new(),
            counters: Counters::default(),
            originator: Originator::new(),
            hold: config.hold.map(|hold| Box::new(Hold::new(hold))),
            deferred: frames.map(|frames| Box::new(Deferred::new(frames))),
            answering: None,
            events: VecDeque::with_capacity(EVENT_COUNT_MAX),
            now: Instant::ZERO,
            ahead: [Ahead::NONE; BURST],
            order: Order::NONE,
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

    /// Whether new sessions that are told so are made; without a cluster they always are.
    pub fn creates(&self, replicate: Replicate, now: Instant) -> bool {
        self.sync.as_ref().is_none_or(|sync| sync.creates(replicate, now))
    }

    /// Frames that wait for a neighbour or for other nodes, or need not any more and are to be sent.
    pub fn held_count(&self) -> usize {
        self.hold.as_ref().map_or(0, |hold| hold.len()) + self.deferred.as_ref().map_or(0, |d| d.len())
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
        let ready = self.look_ahead(burst);
        let some = (burst.len() / 2).min(ready);
        let mut done = self.relay(burst, 0..some, verdicts);
        self.look_again(ready);
        if done == some {
            done = self.relay(burst, some..burst.len(), verdicts);
        }
        if done < burst.len() {
            self.take_turns(burst, done, verdicts);
        }
    }

    /// The frames of a burst but for the first `done` of its order: the first that needs more than to be relayed,
    /// and what is left, in the order in which they came.
    #[inline(never)]
    fn take_turns<F: Frame>(&mut self, burst: &mut [F], done: usize, verdicts: &mut [Verdict]) {
        self.put_in_order(done);
        let mut at = 0;
        while at < self.order.len() {
            let place = self.order.place(at);
            if self.ahead[place].is_plain() {
                let first = at;
                at = self.relay(burst, at..self.order.len(), verdicts);
                if at != first {
                    continue;
                }
            }
            let ahead = self.ahead[place];
            if ahead.is_read()
                && let Some(port) = self.follow(&mut burst[place], &ahead)
            {
                verdicts[place] = self.sent(&burst[place], port);
            } else {
                self.turn(burst, place, verdicts);
            }
            at += 1;
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
        let (frame, ahead) = (&mut burst[place], self.ahead[place]);
        // Taken out for as long as the frame is acted on by what stands there; nothing is allocated.
        let mut all = core::mem::take(&mut self.staged);
        let staged = &mut all[place];
        if ahead.is_read() {
            // Nobody has looked closer yet.
            staged.outcome = parse(frame.data(), frame.len(), frame.rx_checksum(), &mut staged.parsed);
        }
        let turn = self.act(frame, staged, ahead.at, ahead.hint);
        self.staged = all;
        verdicts[place] = match turn {
            Ok(port) => self.sent(frame, port),
            Err(unsent) => self.unsent(frame, unsent),
        };
    }

    #[inline]
    fn sent<F: Frame>(&mut self, frame: &F, port: PortId) -> Verdict {
        self.counters.tx_packets += 1;
        self.counters.tx_bytes += frame.len() as u64;
        Verdict::Tx(port)
    }

    #[inline]
    fn act<F: Frame>(&mut self, frame: &mut F, staged: &Staged, at: Candidates, hint: Hint) -> Turn {
        staged.outcome?;
        let parsed = &staged.parsed;
        match parsed.kind {
            Kind::Tcp | Kind::Udp => self.transport(frame, parsed, at, hint),
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
    fn transport<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed, at: Candidates, hint: Hint) -> Turn {
        let plain = is_plain(parsed);
        if !plain {
            check_tcp_flags(parsed.flags)?;
        }
        let conn = match hint.conn() {
            Some(hint) if self.table.is(hint, &parsed.key) => Some(hint),
            // The hint was of another conn, or an earlier frame of the burst changed the table.
            _ => self.table.find(&parsed.key, at),
        };
        match conn {
            Some(conn) if self.is_overdue(conn.id()) && self.may_delete(conn.id()) => {
                self.remove(conn.id(), Removal::Expired);
                self.open(frame, parsed, at)
            }
            Some(conn) if !plain && self.begins_anew(conn, parsed) => {
                self.replace(conn.id())?;
                self.open(frame, parsed, at)
            }
            Some(conn) if parsed.kind == Kind::Tcp && self.is_unopened(conn, parsed.flags) => {
                Err(DropReason::NoConn.into())
            }
            Some(conn) if self.sync.is_some() && (!plain || parsed.kind == Kind::Udp) => {
                self.forward_watched(frame, parsed, conn)
            }
            Some(conn) => self.forward(frame, parsed, conn),
            None => self.open(frame, parsed, at),
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

    fn icmp<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed) -> Turn {
        let reaction = l3::icmp(frame, parsed, self.answers())?;
        self.react(frame, reaction)
    }

    fn answers(&self) -> l3::Answers<'_> {
        l3::Answers {
            snapshot: &self.snapshot,
            answering: self.answering.as_deref(),
            learns: self.hold.is_some(),
        }
    }

    fn react<F: Frame>(&mut self, frame: &F, reaction: l3::Reaction) -> Turn {
        match reaction {
            l3::Reaction::EchoReply => {
                self.counters.echo_replies += 1;
                Ok(frame.ingress())
            }
            l3::Reaction::Answer(answer, news) => {
                if let (Some((addr, mac)), Some(hold)) = (news, &mut self.hold) {
                    hold.heard(frame.ingress(), addr, mac);
                }
                self.originate(answer)
            }
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
    fn unsent<F: Frame>(&mut self, frame: &F, unsent: Unsent) -> Verdict {
        match unsent {
            Unsent::Drop(DropReason::NoNeighbour) if self.hold.is_some() => return self.hold_back(frame),
            Unsent::Drop(reason) => self.counters.drops[reason as usize] += 1,
            Unsent::Punt => self.counters.punted += 1,
            Unsent::Handoff { .. } => self.counters.handed_off += 1,
            Unsent::Answered => self.counters.answered += 1,
            Unsent::Held => self.counters.held += 1,
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

    /// Lets conns expire whose deadline has come, and frames that have waited long enough for a neighbour; looks at [`TIMER_BUDGET`] at most a call. More may be due
    /// then: [`Worker::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.set_now(now);
        self.expire_held();
        let (mut budget, mut fired) = (TIMER_BUDGET, Fired::NONE);
        let tick = self.now.tick();
        loop {
            self.table.pop_fired(tick, &mut budget, &mut fired);
            if fired.as_slice().is_empty() {
                break;
            }
            for &id in fired.as_slice() {
                let expires = self.with_sync(|sync, ctx| sync.fire(ctx, id));
                if expires.unwrap_or_else(|| self.table.is_due(id, tick)) {
                    self.remove(id, Removal::Expired);
                }
            }
        }
        self.with_sync(|sync, ctx| sync.sweep(ctx));
        self.release_deferred();
    }

    /// When [`Worker::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let conns = self.table.next_tick().and_then(Instant::from_tick);
        let held = self.hold.as_ref().and_then(|hold| hold.poll_timeout());
        let sync = self.sync.as_ref().map(|sync| sync.poll_timeout());
        // What need not wait any more is sent with the next turn.
        let ready = self.deferred.as_ref().is_some_and(|d| d.peek().is_some());
        let ended = self.sync.as_ref().is_some_and(|sync| sync.has_ended());
        let ready = (ready || ended).then_some(self.now);
        [conns, held, sync, ready].into_iter().flatten().min()
    }

    /// Checks that index, slabs, wheel, slots, queues and counts agree; for tests. Panics with what does not hold.
    #[doc(hidden)]
    pub fn audit(&self) {
        self.table.audit();
        let deferred = self.deferred.as_ref().map_or(0, |d| d.waiting() as u64);
        let waiting = self.counters.held - self.counters.released;
        match &self.hold {
            Some(hold) => hold.audit(waiting - deferred),
            None => assert_eq!(waiting, deferred, "frames that wait"),
        }
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
                let services =
                    || (0..snapshot.service_slots()).map(|id| snapshot.service(ServiceId(id as u16)));
                self.timeouts = services()
                    .map(|service| service.map_or_else(Timeouts::default, |service| service.timeouts))
                    .collect();
                self.bases = services()
                    .map(|service| service.map_or_else(Bases::default, |s| Bases::new(s, &self.steering)))
                    .collect();
                let old = core::mem::replace(&mut self.snapshot, snapshot);
                self.events.push_back(Event::SnapshotReleased(old));
                self.release_held();
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
            Command::Sync(command) => {
                let done = self.with_sync(|sync, ctx| sync.handle_command(ctx, command));
                self.release_deferred();
                done.ok_or(CommandError::NoCluster)
            }
        }
    }

    /// Whether both directions of a conn come to this worker.
    fn is_ours(&self, conn: &ConnInit) -> bool {
        let bucket = |t: &Tuple| self.steering.bucket(self.steering.toeplitz().hash_tuple(t));
        let inbound = bucket(&conn.inbound());
        inbound == bucket(&conn.outbound()) && self.buckets.worker(inbound) == self.id
    }

    /// A frame that the engine originates, or one that was held and goes on. `alloc` gives a frame of the length asked
    /// for; if it has none, the engine keeps what it has to send.
    pub fn poll_transmit<F: Frame>(&mut self, alloc: impl FnOnce(usize) -> Option<F>) -> Option<(PortId, F)> {
        let deferred = self.deferred.as_ref().and_then(|d| d.peek());
        let held = || self.hold.as_ref().and_then(|hold| hold.peek());
        let (originated, (port, data)) = match (self.originator.peek(), deferred) {
            (Some(frame), _) => (true, frame),
            (None, Some(frame)) => (false, frame),
            (None, None) => (false, held()?),
        };
        let mut frame = alloc(data.len())?;
        let room = frame.data_mut();
        if room.len() < data.len() {
            return None;
        }
        room[..data.len()].copy_from_slice(data);
        if originated {
            self.originator.pop();
            self.counters.originated += 1;
        } else if let Some(deferred) = self.deferred.as_mut().filter(|d| d.peek().is_some()) {
            deferred.pop();
        } else if let Some(hold) = &mut self.hold {
            hold.pop();
        }
        Some((port, frame))
    }

    /// Something that the worker tells.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        let event = event.or_else(|| self.hold.as_mut()?.poll_event());
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
