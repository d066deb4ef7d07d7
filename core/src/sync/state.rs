//! What a worker keeps for replication: who it is, whom it tells and hears, which groups it knows.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::adopt::{Adoption, Base, Offering};
use super::bulk::{Flight, Job};
use super::codec::StreamNumbers;
use super::defer::Waits;
use super::digest::{Digests, Sum};
use super::epochs::{Epochs, LOCAL, index_of, lsn_of};
use super::rx::Space;
use super::seal::{Sealer, Sealing};
use super::serve::Serve;
use super::tx::{PeerTx, Ring};
use super::{Peer, SyncBody, SyncCommand, SyncEvent, SyncMessage, SyncStatus, Version};
use crate::cluster::{Authority, Epoch, GROUP_COUNT_MAX, GroupId, NODE_COUNT_MAX, PeerId, Role};
use crate::conn::{CONN_COUNT_MAX, ConnId, ConnTable};
use crate::lport::{BUCKET_COUNT_MAX, Steering};
use crate::port::WorkerId;
use crate::proto::{ConnState, Timeouts};
use crate::service::Snapshot;
use crate::stats::{Counters, SyncCount};
use crate::time::Instant;
use crate::tuple::Tuple;
use crate::worker::BucketMap;

/// Replication is part of a worker made with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterWorkerConfig {
    /// The node in this life.
    pub id: PeerId,
    /// The cluster's number, in every frame.
    pub cluster: u32,
    /// Sizes.
    pub sizes: ClusterSizes,
    /// How frames are sealed; `None`: they are not.
    pub sealing: Option<Sealing>,
}

/// A stream of frames to peers.
#[derive(Debug)]
pub(super) struct OutStream {
    /// Packet number of the next one.
    pub(super) next: u64,
    pub(super) sealer: Option<Sealer>,
}

/// Sizes of replication's queues, all fixed at construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterSizes {
    /// Records of a bucket whose conns are remembered until all have them: a power of two, 16 to 65,536.
    pub ring_per_bucket: u32,
    /// Hints that wait to be sent.
    pub hints: usize,
    /// Messages that wait to be sent; records and slots are not among them.
    pub outbox: usize,
    /// Slots that peers have asked for and that wait to be sent.
    pub serves: usize,
    /// Frames that wait until other nodes have their sessions.
    pub deferred: u16,
}

impl Default for ClusterSizes {
    fn default() -> Self {
        ClusterSizes {
            ring_per_bucket: 256,
            hints: 1024,
            outbox: 1024,
            serves: 512,
            deferred: 1024,
        }
    }
}

/// To whom a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// All peers.
    All,
    /// One of them.
    One(PeerId),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// It was dealt with; single records in it may have been refused, which is counted.
    Taken,
    /// It changed nothing, for the reason that was counted.
    Ignored(SyncCount),
    /// The worker was made without a cluster.
    NoCluster,
}

/// The status is told again after so long.
const STATUS_AGAIN: Duration = Duration::from_millis(500);
/// Events that wait to be polled, at most; of those that are told again by themselves half as many.
pub(super) const EVENT_COUNT_MAX: usize = 4 * GROUP_COUNT_MAX;

/// What replication works on beside its own state.
pub(crate) struct Ctx<'a> {
    pub(crate) table: &'a mut ConnTable,
    pub(crate) counters: &'a mut Counters,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) timeouts: &'a [Timeouts],
    pub(crate) now: Instant,
}

impl Ctx<'_> {
    pub(super) fn count(&mut self, count: SyncCount) {
        self.counters.count(count);
    }

    pub(super) fn timeout_ms(&self, service: u16, state: ConnState) -> u32 {
        match self.timeouts.get(usize::from(service)) {
            Some(timeouts) => timeouts.ms(state),
            None => Timeouts::default().ms(state),
        }
    }
}

/// A set of small numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits<const WORDS: usize>(pub(super) [u64; WORDS]);

impl<const WORDS: usize> Bits<WORDS> {
    pub(super) const EMPTY: Self = Bits([0; WORDS]);

    pub(super) fn has(&self, n: u16) -> bool {
        self.0
            .get(usize::from(n) / 64)
            .is_some_and(|w| w >> (n % 64) & 1 != 0)
    }

    /// Adds a number; whether it was not there.
    pub(super) fn set(&mut self, n: u16) -> bool {
        let fresh = !self.has(n);
        if let Some(w) = self.0.get_mut(usize::from(n) / 64) {
            *w |= 1 << (n % 64);
        }
        fresh
    }

    pub(super) fn clear(&mut self, n: u16) {
        if let Some(w) = self.0.get_mut(usize::from(n) / 64) {
            *w &= !(1 << (n % 64));
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|w| w.count_ones()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }

    /// Takes the lowest number out.
    pub(super) fn pop(&mut self) -> Option<u16> {
        let (at, word) = self.0.iter_mut().enumerate().find(|(_, w)| **w != 0)?;
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        Some(at as u16 * 64 + bit as u16)
    }
}

/// A bit for each bucket.
pub(super) type BucketBits = Bits<4>;
/// A bit for each slot.
pub(super) type SlotBits = Bits<64>;

/// A traffic group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    /// The highest epoch known.
    pub(super) epoch: Epoch,
    pub(super) role: Role,
    /// Place of (group, epoch) in the epoch table.
    pub(super) index: u16,
    /// By own bucket: the last epoch whose merge is known here. What is known of the space of its holder is the
    /// watermark.
    pub(super) merged: Vec<Epoch>,
    /// By own bucket, of the last merge.
    pub(super) base: Vec<Base>,
    /// Buckets that are pulled again after a merge.
    pub(super) resync: BucketBits,
    /// A pull of all its slots has ended, or it began here.
    pub(super) complete: bool,
    /// It was complete once.
    pub(super) whole: bool,
    /// By own bucket: as of when all of it was here, by the last whole pull or the last merge. What its holder told after
    /// that, and before it was first heard here, is missing.
    pub(super) whole_at: Vec<Version>,
    /// By own bucket: the same of the pull that goes on, the earliest of its slots so far.
    pub(super) pulled_at: Vec<Option<Version>>,
    /// Number of the pull of all its slots that goes on or has ended last, and of the last that has ended.
    pub(super) pulling: u32,
    pub(super) pulled: u32,
    /// Slots of which something is missing here that the watermark has passed: lost for good, or refused for want
    /// of room. They are pulled again.
    pub(super) lacks: Box<SlotBits>,
    /// By slot of own buckets: what is here of it.
    pub(super) sums: Box<[Sum]>,
    /// Slots that were not what the holder told, and have not been found to be it since.
    pub(super) unequal: Box<SlotBits>,
    /// Slots of which something went by this node's own decision since they were compared.
    pub(super) left: Box<SlotBits>,
    pub(super) adoption: Option<Box<Adoption>>,
    /// By place of bucket: whose copies were put together in the last merge, as nobody had a whole one.
    pub(super) put_together: Vec<(usize, Vec<PeerId>)>,
    /// Sessions that only this node may have, told to the winner: by own bucket.
    pub(super) offers: Vec<(usize, Offering)>,
    /// When watermarks are told again.
    pub(super) tell_at: Option<Instant>,
    /// The merge of all buckets was told to the node.
    pub(super) told: bool,
}

impl Group {
    /// Whether its merge is known in all buckets.
    pub(super) fn is_merged(&self) -> bool {
        self.merged.iter().all(|e| *e == self.epoch)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sync {
    pub(super) id: PeerId,
    pub(super) cluster: u32,
    pub(super) stream: u16,
    pub(super) sizes: ClusterSizes,
    pub(super) steering: Arc<Steering>,
    /// The buckets of this worker; by place in this list most is kept.
    pub(super) buckets: Vec<u16>,
    /// Place of each bucket, or `u16::MAX`.
    places: Vec<u16>,
    pub(super) epochs: Epochs,
    pub(super) digests: Digests,
    pub(super) groups: Vec<Group>,
    pub(super) create: Option<(GroupId, u16)>,
    pub(super) lease_until: Instant,
    /// Told so far, by place of bucket.
    pub(super) rings: Vec<Ring>,
    pub(super) peers: Vec<PeerTx>,
    pub(super) spaces: Vec<Space>,
    pub(super) jobs: Vec<Job>,
    pub(super) flights: Vec<Flight>,
    /// As many at a time.
    pub(super) flight_count: usize,
    /// A slot is asked for again after so long.
    pub(super) patience: Duration,
    /// It grows no more before.
    pub(super) patient_at: Instant,
    /// When and of which pull of whom something came last.
    pub(super) progressed: Option<(Instant, PeerId, u32)>,
    pub(super) serves: VecDeque<Serve>,
    pub(super) pull_id: u32,
    pub(super) hints: VecDeque<(PeerId, SyncMessage)>,
    pub(super) outbox: VecDeque<(Destination, SyncMessage)>,
    pub(super) events: VecDeque<SyncEvent>,
    /// The last status told, and when the next one is due.
    pub(super) status: SyncStatus,
    /// Kept for its room.
    measured: SyncStatus,
    pub(super) status_told: bool,
    pub(super) status_at: Instant,
    /// When it is told though nothing changed.
    status_again: Instant,
    /// When [`Sync::sweep`] has something to do, at the earliest.
    pub(super) wake: Instant,
    /// When conns marked dirty are to be told.
    pub(super) flush_at: Option<Instant>,
    pub(super) dirty: usize,
    pub(super) live_cursor: usize,
    /// Heartbeats that are being sent: the next bucket, and whether of all or only of those with something unacked.
    pub(super) beat: Option<(usize, bool)>,
    pub(super) beat_at: Instant,
    pub(super) fast_beat_at: Instant,
    /// What waits until peers have its session.
    pub(super) waits: Waits,
    /// Skips that wait in the rings.
    pub(super) skip_count: usize,
    /// Where the search for a tombstone that may go goes on.
    pub(super) tomb_cursor: usize,
    /// What it sends of live records and all else, and of bulk.
    pub(super) streams: [OutStream; 2],
    /// A message that did not fit the last frame.
    pub(super) held: Option<(Destination, SyncMessage)>,
}

impl Sync {
    pub(crate) fn new(
        config: ClusterWorkerConfig,
        worker: WorkerId,
        buckets: &BucketMap,
        steering: Arc<Steering>,
    ) -> Self {
        let mine: Vec<u16> = (0..steering.buckets())
            .filter(|b| buckets.worker(*b) == worker)
            .collect();
        let mut places = alloc::vec![u16::MAX; usize::from(BUCKET_COUNT_MAX)];
        for (place, bucket) in (0u16..).zip(&mine) {
            places[usize::from(*bucket)] = place;
        }
        let places_count = mine.len();
        let ring = config.sizes.ring_per_bucket.next_power_of_two().clamp(16, 65_536);
        let mut sync = Sync {
            id: config.id,
            cluster: config.cluster,
            stream: u16::from(worker.0),
            sizes: config.sizes,
            steering,
            places,
            epochs: Epochs::new(),
            digests: Digests::new(config.cluster),
            groups: Vec::new(),
            create: None,
            lease_until: Instant::ZERO,
            rings: mine.iter().map(|_| Ring::new(ring)).collect(),
            buckets: mine,
            peers: Vec::new(),
            spaces: Vec::new(),
            jobs: Vec::new(),
            flights: Vec::new(),
            flight_count: super::bulk::FLIGHT_COUNT_MIN,
            patience: super::bulk::PULL_AGAIN,
            patient_at: Instant::ZERO,
            progressed: None,
            serves: VecDeque::new(),
            pull_id: 0,
            hints: VecDeque::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            status: SyncStatus::default(),
            measured: SyncStatus::default(),
            status_told: false,
            status_at: Instant::ZERO,
            status_again: Instant::ZERO,
            wake: Instant::ZERO,
            flush_at: None,
            dirty: 0,
            live_cursor: 0,
            beat: None,
            beat_at: Instant::ZERO,
            fast_beat_at: Instant::ZERO,
            waits: Waits::new(config.sizes.deferred, places_count),
            skip_count: 0,
            tomb_cursor: 0,
            streams: [(); 2].map(|()| OutStream {
                next: 0,
                sealer: config.sealing.clone().map(Sealer::new),
            }),
            held: None,
        };
        // The sessions that this life will create: nobody else can hold them yet.
        let own = GroupId {
            node: config.id.node,
            generation: config.id.incarnation.0,
        };
        let first = Epoch {
            term: 1,
            holder: config.id,
        };
        sync.learn(own, first, Role::Owned);
        sync
    }

    /// The place of a bucket of this worker.
    pub(super) fn place(&self, bucket: u16) -> Option<usize> {
        let place = *self.places.get(usize::from(bucket))?;
        (place != u16::MAX).then_some(usize::from(place))
    }

    pub(super) fn bucket_of(&self, tuple: &Tuple) -> u16 {
        self.steering.bucket(self.steering.toeplitz().hash_tuple(tuple))
    }

    /// The bucket in which a slot lies.
    pub(super) fn bucket_of_slot(&self, slot: u16) -> u16 {
        self.steering.bucket(u32::from(slot))
    }

    /// Slots of a bucket of which something of a group is missing here.
    pub(super) fn lacking(&self, g: &Group, bucket: u16) -> Vec<u16> {
        self.slots_of(bucket).filter(|s| g.lacks.has(*s)).collect()
    }

    /// The slots of a bucket.
    pub(super) fn slots_of(&self, bucket: u16) -> impl Iterator<Item = u16> + use<> {
        let step = usize::from(self.steering.buckets());
        (bucket..crate::conn::SLOT_COUNT as u16).step_by(step)
    }

    pub(super) fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.iter().find(|g| g.id == id)
    }

    pub(super) fn group_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.iter_mut().find(|g| g.id == id)
    }

    /// The group of a conn's version.
    pub(super) fn group_of(&self, version: u64) -> Option<&Group> {
        self.group(self.epochs.group(version)?)
    }

    pub(super) fn is_alive(&self, peer: PeerId) -> bool {
        self.peers.iter().any(|p| p.peer.id == peer)
    }

    pub(super) fn wake_at(&mut self, when: Instant) {
        self.wake = self.wake.min(when);
    }

    pub(super) fn tell(&mut self, event: SyncEvent) {
        let told_again = matches!(
            event,
            SyncEvent::Stale { .. } | SyncEvent::OutOfSync(_) | SyncEvent::Refused(_)
        );
        let most = if told_again {
            EVENT_COUNT_MAX / 2
        } else {
            EVENT_COUNT_MAX
        };
        if self.events.len() < most && !self.events.contains(&event) {
            self.events.push_back(event);
        }
    }

    /// Queues a message; `false` (counted): there is no room, and who wants it said says it again.
    pub(super) fn send(
        &mut self,
        ctx: &mut Ctx<'_>,
        to: Destination,
        bucket: u16,
        ack_now: bool,
        body: SyncBody,
    ) -> bool {
        if self.outbox.len() >= self.sizes.outbox {
            ctx.count(SyncCount::QueueFull);
            return false;
        }
        let from = self.id;
        self.outbox.push_back((
            to,
            SyncMessage {
                from,
                bucket,
                ack_now,
                body,
            },
        ));
        true
    }

    /// Makes a group known. `None`: there are too many groups.
    fn learn(&mut self, id: GroupId, epoch: Epoch, role: Role) -> Option<usize> {
        if self.groups.len() >= GROUP_COUNT_MAX {
            return None;
        }
        let index = self.epochs.intern(id, epoch)?;
        self.epochs.pin(index, true);
        let at = self.groups.partition_point(|g| g.id < id);
        let count = self.buckets.len();
        let sums = self.sums();
        // A group may be heard of first when this node has begun to adopt it: then nothing of it is here. Only what this node
        // creates itself is whole from its beginning.
        let fresh = epoch.term == 1 && epoch.holder == self.id;
        let adopts = role == Role::Adopting && !fresh;
        let whole = role.is_holder() && !adopts;
        let merged = if adopts { Epoch::default() } else { epoch };
        let base = Base {
            version: Version { epoch, lsn: 0 },
            exact: true,
            at: 0,
            all: false,
        };
        self.groups.insert(
            at,
            Group {
                id,
                epoch,
                role,
                index,
                merged: alloc::vec![merged; count],
                base: alloc::vec![base; count],
                resync: BucketBits::EMPTY,
                complete: whole,
                whole,
                whole_at: alloc::vec![base.version; count],
                pulled_at: alloc::vec![None; count],
                pulling: 0,
                pulled: 0,
                lacks: Box::new(SlotBits::EMPTY),
                sums,
                unequal: Box::new(SlotBits::EMPTY),
                left: Box::new(SlotBits::EMPTY),
                adoption: None,
                put_together: Vec::new(),
                offers: Vec::new(),
                tell_at: None,
                told: true,
            },
        );
        Some(at)
    }

    pub(crate) fn handle_command(&mut self, ctx: &mut Ctx<'_>, command: SyncCommand) {
        match command {
            SyncCommand::Peers(peers) => self.set_peers(ctx, &peers),
            SyncCommand::Authority(authority) => self.set_authority(ctx, authority),
            SyncCommand::Forget(group) => self.forget(group),
            SyncCommand::Create(group) => {
                self.create = group.and_then(|id| {
                    let g = self.group(id)?;
                    (g.role == Role::Owned).then_some((id, g.index))
                });
            }
            SyncCommand::LeaseUntil(until) => self.lease_until = until,
            SyncCommand::Pull {
                group,
                source,
                mode,
                number,
            } => self.pull_all(ctx, group, source, mode, number),
            SyncCommand::Answer(_) => {}
            SyncCommand::Numbers(asked) => {
                let [live, bulk] = self.streams.each_ref().map(|s| s.next);
                self.tell(SyncEvent::Numbers(asked, StreamNumbers { live, bulk }));
            }
            SyncCommand::Secrets(number, secrets) => {
                for sealer in self.streams.iter_mut().filter_map(|s| s.sealer.as_mut()) {
                    sealer.set_secrets(secrets.clone());
                }
                self.tell(SyncEvent::SecretsApplied(number));
            }
        }
        self.wake = self.wake.min(ctx.now);
    }

    fn set_peers(&mut self, ctx: &mut Ctx<'_>, peers: &[Peer]) {
        let old: Vec<_> = self.peers.iter().map(|p| p.peer.id).collect();
        self.peers.retain(|p| peers.iter().any(|q| q.id == p.peer.id));
        for peer in peers.iter().filter(|p| p.id != self.id) {
            if let Some(known) = self.peers.iter_mut().find(|p| p.peer.id == peer.id) {
                known.peer = *peer;
            } else if self.peers.len() < NODE_COUNT_MAX {
                let last = self.rings.iter().map(|r| r.last).collect();
                self.peers.push(PeerTx::new(*peer, last));
            }
        }
        self.peers.sort_by_key(|p| p.peer.id);
        let new: Vec<_> = self.peers.iter().map(|p| p.peer.id).collect();
        self.waits.move_peers(&old, &new);
        for p in 0..self.peers.len() {
            let id = self.peers[p].peer.id;
            if !self.spaces.iter().any(|s| s.peer == id) {
                self.spaces.push(Space::new(id, self.buckets.len()));
            }
        }
        self.serves.retain(|s| peers.iter().any(|p| p.id == s.to));
        self.hints.retain(|(to, _)| peers.iter().any(|p| p.id == *to));
        self.end_all_acked(ctx);
        self.drop_spaces();
        self.retarget(ctx);
        self.repair_lacking(ctx);
        for place in 0..self.rings.len() {
            self.free_acked(ctx, place);
        }
    }

    /// Forgets what is known of the spaces of nodes that are gone and whose records no watermark is about.
    pub(super) fn drop_spaces(&mut self) {
        let Sync {
            spaces,
            peers,
            groups,
            ..
        } = self;
        spaces.retain(|s| {
            peers.iter().any(|p| p.peer.id == s.peer)
                || groups
                    .iter()
                    .any(|g| g.epoch.holder == s.peer || g.merged.iter().any(|e| e.holder == s.peer))
        });
    }

    fn set_authority(&mut self, ctx: &mut Ctx<'_>, a: Authority) {
        let at = match self.groups.iter().position(|g| g.id == a.group) {
            Some(at) => at,
            None => match self.learn(a.group, a.epoch, a.role) {
                Some(at) => at,
                // Told again until it is confirmed; groups end.
                None => return,
            },
        };
        let own = self.id;
        let g = &mut self.groups[at];
        if a.epoch >= g.epoch {
            let newer = a.epoch > g.epoch;
            if newer {
                let Some(index) = self.epochs.intern(a.group, a.epoch) else {
                    return;
                };
                self.epochs.pin(g.index, false);
                self.epochs.pin(index, true);
                (g.epoch, g.index) = (a.epoch, index);
                g.adoption = None;
                g.offers.clear();
                g.put_together.clear();
                g.resync = BucketBits::EMPTY;
                *g.unequal = SlotBits::EMPTY;
                *g.left = SlotBits::EMPTY;
                g.told = false;
                if let Some(create) = self.create.as_mut().filter(|c| c.0 == a.group) {
                    create.1 = index;
                }
            }
            g.role = a.role;
            if newer {
                self.after_epoch(ctx, a.group);
            }
            let g = &mut self.groups[at];
            if a.epoch.holder == own {
                if a.role == Role::Adopting {
                    self.begin_adoption(ctx, at);
                } else if newer {
                    // Granted without a merge: what is here counts, and all others pull it.
                    g.merged.fill(a.epoch);
                    for (base, ring) in g.base.iter_mut().zip(&self.rings) {
                        *base = Base {
                            version: Version {
                                epoch: a.epoch,
                                lsn: 0,
                            },
                            exact: false,
                            at: ring.last,
                            all: false,
                        };
                    }
                }
            } else if !g.is_merged() {
                g.tell_at = Some(ctx.now);
            } else if g.role == Role::Fenced || !g.told {
                g.told = false;
            }
            self.tell_progress(at);
        }
        let g = &self.groups[at];
        self.tell(SyncEvent::AuthorityApplied(Authority {
            group: g.id,
            epoch: g.epoch,
            role: g.role,
        }));
    }

    /// Tells, or tells again, that a merge or an offer has ended.
    pub(super) fn tell_progress(&mut self, at: usize) {
        let own = self.id;
        let Some(g) = self.groups.get_mut(at) else { return };
        if !g.is_merged() {
            return;
        }
        g.told = true;
        let (group, epoch) = (g.id, g.epoch);
        match g.role {
            Role::Adopting if epoch.holder == own => {
                (g.complete, g.whole) = (true, true);
                self.tell(SyncEvent::Merged { group, epoch });
            }
            Role::Fenced => self.tell(SyncEvent::Offered { group }),
            _ => {}
        }
    }

    fn forget(&mut self, group: GroupId) {
        if self.epochs.alive(group) > 0 || self.create.is_some_and(|c| c.0 == group) {
            return;
        }
        if let Some(at) = self.groups.iter().position(|g| g.id == group) {
            let g = self.groups.remove(at);
            self.epochs.pin(g.index, false);
        }
        self.jobs.retain(|j| j.group != group);
        self.flights.retain(|f| f.group != group);
        self.drop_spaces();
    }

    /// Whether conns of this version advance here: their group is held by this node, or they are nobody else's.
    pub(crate) fn advances(&self, version: u64) -> bool {
        index_of(version) == LOCAL || self.group_of(version).is_some_and(|g| g.role.is_holder())
    }

    /// Whether a conn may be deleted now.
    pub(crate) fn may_delete(&self, table: &ConnTable, id: ConnId, now: Instant) -> bool {
        let Some(meta) = table.meta(id) else { return true };
        if index_of(meta.version) == LOCAL {
            return true;
        }
        let Some(g) = self.group_of(meta.version) else {
            // Its group was forgotten: nobody decides about it any more.
            return true;
        };
        match g.role {
            Role::Owned | Role::Draining | Role::Adopting => {
                now < self.lease_until
                    && table
                        .inbound(id)
                        .and_then(|t| self.place(self.bucket_of(&t)))
                        .is_none_or(|place| g.merged.get(place).is_none_or(|e| *e == g.epoch))
            }
            Role::Replica | Role::Orphan | Role::Suspect | Role::Fenced => false,
        }
    }

    /// What this node knows of a group in a bucket, in the space of the holder of the epoch that it names.
    pub(super) fn watermark(&self, g: &Group, place: usize) -> Version {
        let epoch = g.merged.get(place).copied().unwrap_or(g.epoch);
        let lsn = if epoch.holder == self.id {
            self.rings[place].last
        } else {
            let whole_at = g.whole_at[place];
            let whole_at = if whole_at.epoch == epoch { whole_at.lsn } else { 0 };
            self.rx(epoch.holder, place)
                .filter(|rx| rx.known && rx.began <= whole_at)
                .map_or(whole_at, |rx| rx.mark.contiguous)
        };
        Version { epoch, lsn }
    }

    /// Sets the version of a conn that names none yet, or changes it.
    pub(super) fn set_version(&mut self, table: &mut ConnTable, id: ConnId, version: u64) {
        let Some(meta) = table.meta_mut(id) else { return };
        let old = core::mem::replace(&mut meta.version, version);
        if index_of(old) == index_of(version) {
            return;
        }
        if table.is_tomb(id) {
            self.epochs.forget_tomb(index_of(old));
            self.epochs.name_tomb(index_of(version));
        } else {
            self.epochs.forget(index_of(old));
            self.epochs.name(index_of(version));
        }
    }

    /// Group and version of a conn, if it is replicated.
    pub(crate) fn version_of(&self, version: u64) -> Option<(GroupId, Version)> {
        Some((self.epochs.group(version)?, self.epochs.version(version)))
    }

    /// How far the worker is.
    fn measure(&self, now: Instant, status: &mut SyncStatus) {
        let outstanding = |group| {
            let jobs = self.jobs.iter().filter(|j| j.group == group);
            let flights = self.flights.iter().filter(|f| f.group == group);
            jobs.map(Job::left).sum::<u32>() + flights.count() as u32
        };
        let SyncStatus {
            outstanding: outstandings,
            pulled,
            lacking,
            sessions,
            behind,
            unacked,
            late,
        } = status;
        for list in [&mut *outstandings, pulled, lacking, sessions] {
            list.clear();
        }
        for g in &self.groups {
            outstandings.push((g.id, outstanding(g.id)));
            pulled.push((g.id, g.pulled));
            lacking.push((g.id, g.lacks.count()));
            sessions.push((g.id, self.epochs.alive(g.id)));
        }
        behind.clear();
        unacked.clear();
        late.clear();
        for p in &self.peers {
            behind.push((p.peer.id, self.behind(p.peer.id)));
            unacked.push((p.peer.id, self.unacked(p) + self.dirty as u64));
        }
        late.extend(self.late_peers(now));
    }

    /// Tells how far the worker is, if that has changed, at most every 10 ms.
    pub(super) fn sweep_status(&mut self, now: Instant) {
        if now < self.status_at {
            return;
        }
        self.status_at = now + Duration::from_millis(10);
        let mut measured = core::mem::take(&mut self.measured);
        self.measure(now, &mut measured);
        // The last telling may have been lost on its way.
        if measured != self.status || now >= self.status_again {
            core::mem::swap(&mut measured, &mut self.status);
            self.status_told = false;
            self.status_again = now + STATUS_AGAIN;
        }
        self.measured = measured;
    }

    /// Something that the node has to know.
    pub(crate) fn poll_event(&mut self) -> Option<SyncEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if self.status_told {
            return None;
        }
        self.status_told = true;
        Some(SyncEvent::Status(self.status.clone()))
    }

    /// Checks that counts, queues and bounds agree; for tests. Panics with what does not hold.
    pub(crate) fn audit(&self, table: &ConnTable) {
        let (mut named, mut dirty) = (0, 0);
        for v6 in [false, true] {
            let places = if v6 {
                table.v6.high_water()
            } else {
                table.v4.high_water()
            };
            for place in 0..places.min(CONN_COUNT_MAX) {
                let id = if v6 { ConnId::v6(place) } else { ConnId::v4(place) };
                let Some(meta) = table.meta(id).filter(|m| m.proto != 0) else {
                    continue;
                };
                named += usize::from(index_of(meta.version) != LOCAL);
                dirty += usize::from(meta.flags & crate::conn::flag::DIRTY != 0);
                if !table.is_tomb(id)
                    && let Some(g) = self.group_of(meta.version)
                    && g.role.is_holder()
                    && meta.version >> 48 == u64::from(g.index)
                {
                    let bucket = table.inbound(id).map(|t| self.bucket_of(&t));
                    let place = bucket
                        .and_then(|b| self.place(b))
                        .expect("a conn's bucket is its worker's");
                    assert!(
                        lsn_of(meta.version) <= self.rings[place].last,
                        "versions were given here"
                    );
                }
            }
        }
        assert_eq!(
            named,
            self.epochs.named(),
            "conns and tombstones that name an epoch"
        );
        assert_eq!(dirty, self.dirty, "conns in dirty queues");
        self.audit_digests(table);
        for ring in &self.rings {
            let mut at = ring.dirty_head;
            let mut len = 0;
            while let Some(id) = ConnId::from_link(at).filter(|_| at != crate::conn::LIST_END) {
                at = table.meta(id).expect("a conn").dirty_link;
                len += 1;
                assert!(len <= dirty, "the dirty queue ends");
            }
            assert_eq!(len, ring.dirty_len);
            assert!(ring.skips.len() <= super::tx::SKIP_COUNT_MAX);
        }
        let skips: usize = self.rings.iter().map(|ring| ring.skips.len()).sum();
        assert_eq!(skips, self.skip_count);
        self.spaces.iter().for_each(Space::audit);
        self.waits.audit();
        assert!(self.outbox.len() <= self.sizes.outbox);
        assert!(self.hints.len() <= self.sizes.hints);
        assert!(self.serve_slots() <= self.sizes.serves);
        assert!(self.serves.iter().all(|s| s.is_sound()));
        assert!(self.events.len() <= EVENT_COUNT_MAX);
        assert!(self.flights.len() <= super::bulk::FLIGHT_COUNT_MAX);
        assert!(self.jobs.len() <= super::bulk::JOB_COUNT_MAX);
        for space in &self.spaces {
            for rx in &space.rx {
                assert!(rx.mark.above.len() <= super::RANGE_COUNT_MAX);
                assert!(rx.gaps.len() <= super::rx::GAP_COUNT_MAX);
            }
        }
    }
}
