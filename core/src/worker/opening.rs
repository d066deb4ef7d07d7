//! New conns: whose packet may open one, to which real server it goes, from which local end.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::{Removal, Turn, Unsent, Worker, is_pure_syn};
use crate::conn::{Candidates, ConnId, ConnInit, ConnPlaces, ConnTable, TableFull, slot_of_hash};
use crate::hash::SplitMix;
use crate::lport::{PortClass, Steering};
use crate::parse::{Key, Kind, Parsed};
use crate::planted::{self, Bug};
use crate::port::{Frame, HandoffTag};
use crate::proto::ConnState;
use crate::sched;
use crate::service::{
    OwnedAddr, RealServer, Replicate, ServiceId, Snapshot, VirtualService, is_group, is_unicast,
};
use crate::stats::DropReason;
use crate::tuple::{Direction, Family, L4Proto, Tuple};

/// Local ports that are probed on one LIP, at most.
pub const PORT_PROBES_PER_ADDR: u32 = 8;
/// LIPs on which local ports are probed for one conn, at most.
pub const PORT_PROBE_ADDRS: usize = 4;
/// LIPs that are passed over, at most, because their port is below the minimum.
const STARTS_MAX: u32 = 16;

/// Where scheduling and port choice of a (service, bucket) stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Position in the service's cycle, plus one; 0 is not begun.
    sched: u32,
    /// Next local end to probe: a number that counts LIPs first, and then ports of their classes.
    local: u32,
}

/// What real servers and LIPs of a service are for the classes of local ports, by their places in its lists: worked out
/// with the snapshot, as a conn is to cost no hash of addresses that everybody knew.
#[derive(Debug, Default)]
pub(super) struct Bases {
    servers: Vec<u16>,
    local_v4: Vec<u16>,
    local_v6: Vec<u16>,
}

impl Bases {
    pub(super) fn new(service: &VirtualService, steering: &Steering) -> Self {
        let server = |s: &RealServer| steering.server_base(SocketAddr::new(s.addr, s.port));
        let locals = |family| {
            let addrs = service.local_addrs(family).iter();
            addrs.map(|addr| steering.local_base(*addr)).collect()
        };
        Bases {
            servers: service.servers.iter().map(server).collect(),
            local_v4: locals(Family::V4),
            local_v6: locals(Family::V6),
        }
    }

    fn locals(&self, family: Family) -> &[u16] {
        match family {
            Family::V4 => &self.local_v4,
            Family::V6 => &self.local_v6,
        }
    }
}

/// All that a new conn is, but for its client.
struct Chosen {
    init: ConnInit,
    /// Where the tuple of its replies stands in the index.
    outbound: Candidates,
    timeout_ms: u32,
    replicate: Replicate,
}

/// What the choice of a local end reads.
struct LocalEnds<'a> {
    steering: &'a Steering,
    table: &'a ConnTable,
    proto: L4Proto,
    family: Family,
    server: SocketAddr,
    server_base: u16,
    addrs: &'a [IpAddr],
    bases: &'a [u16],
    bucket: u16,
    /// Ports below are nobody's.
    port_min: u16,
}

impl Worker {
    /// A packet that no conn knows, which would stand at `at` in the index: perhaps the first of a new one.
    #[cold]
    pub(super) fn open<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed, at: Candidates) -> Turn {
        let tuple = parsed.key.tuple().ok_or(DropReason::NotOurs)?;
        let snapshot = &*self.snapshot;
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
        let canonical = || parsed.key.toeplitz(self.steering.toeplitz());
        let hash = frame.rss().unwrap_or_else(canonical);
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
        if !is_client(&tuple, snapshot) {
            return Err(DropReason::BadSource.into());
        }
        let sync = self.sync.as_ref();
        if sync.is_some_and(|sync| !sync.creates(service.replicate, self.now)) {
            return Err(DropReason::NotReady.into());
        }
        // A NIC's hash is enough to send a packet on. The slot of a conn is for good, and must not hang on it.
        let slot = slot_of_hash(if frame.rss().is_some() { canonical() } else { hash });
        let deferral = service.replicate.deferral();
        let id = self.create(service.id, &tuple, bucket, (at, slot))?;
        let forwarded = self.forward(frame, parsed, id.with(Direction::Inbound));
        let port = match forwarded {
            Ok(port) => port,
            Err(unsent) => {
                // Its first packet went nowhere: nobody will answer, and a client's next try schedules anew.
                self.remove(id, Removal::Undone);
                return Err(unsent);
            }
        };
        self.counters.opened += 1;
        self.with_sync(|sync, ctx| sync.opened(ctx, id));
        let Some(deferral) = deferral.filter(|_| parsed.kind == Kind::Udp) else {
            return Ok(port);
        };
        let turn = self.defer(frame, id.with(Direction::Inbound), port, deferral);
        if let Err(Unsent::Drop(_)) = turn {
            self.counters.opened -= 1;
            self.remove(id, Removal::Undone);
        }
        turn
    }

    /// Makes a conn for `tuple`, a client's, which stands at these places in the index and in a slot.
    fn create(
        &mut self,
        service: ServiceId,
        tuple: &Tuple,
        bucket: u16,
        (inbound, slot): (Candidates, u16),
    ) -> Result<ConnId, DropReason> {
        let Chosen {
            init,
            outbound,
            timeout_ms,
            replicate,
        } = self.choose(service, tuple, bucket)?;
        let deadline = self.now.tick() + u64::from(timeout_ms);
        let places = ConnPlaces {
            inbound,
            outbound,
            slot,
        };
        let mut inserted = self.table.insert_at(&init, places, deadline);
        if inserted == Err(TableFull::Slab) {
            // A tombstone may give its place.
            let v6 = !(init.client.is_ipv4() && init.server.is_ipv4());
            if self.with_sync(|sync, ctx| sync.evict_tomb(ctx, v6)) == Some(true) {
                inserted = self.table.insert_at(&init, places, deadline);
            }
        }
        let id = inserted.map_err(|e| match e {
            TableFull::Slab => DropReason::ConnTableFull,
            TableFull::Index => DropReason::IndexFull,
        })?;
        self.counters.by_state[init.state as usize] += 1;
        self.with_sync(|sync, ctx| sync.created(ctx, id, replicate));
        Ok(id)
    }

    /// Chooses the real server and the local end of a new conn.
    #[inline]
    fn choose(&mut self, service: ServiceId, tuple: &Tuple, bucket: u16) -> Result<Chosen, DropReason> {
        let Worker {
            snapshot,
            steering,
            table,
            counters,
            bases,
            local_port_min,
            ..
        } = self;
        let bases = bases.get(usize::from(service.0)).ok_or(DropReason::NoService)?;
        let service = snapshot.service(service).ok_or(DropReason::NoService)?;
        let at = usize::from(service.id.0) * usize::from(steering.buckets()) + usize::from(bucket);
        let cursor = self.cursors.get_mut(at).ok_or(DropReason::NoService)?;
        if cursor.sched == 0 {
            // Begun anew at every start: ports of sessions that died with the last one are still in use at
            // the servers.
            let random = SplitMix::new(self.seed ^ ((at as u64) << 32)).next();
            cursor.sched = sched::start_position(bucket, steering.buckets(), service.cycle.len()) + 1;
            cursor.local = random as u32;
        }
        let ends_to = |place: u16| {
            let server = service.servers.get(usize::from(place))?;
            let family = Family::of(&server.addr);
            let ends = LocalEnds {
                steering,
                table,
                proto: tuple.proto,
                family,
                server: SocketAddr::new(server.addr, server.port),
                server_base: *bases.servers.get(usize::from(place))?,
                addrs: service.local_addrs(family),
                bases: bases.locals(family),
                bucket,
                port_min: *local_port_min,
            };
            Some((server, ends))
        };
        let mut position = cursor.sched - 1;
        let place = sched::pick(&service.cycle, &mut position).ok_or(DropReason::NoServer)?;
        let (server, ends) = ends_to(place).ok_or(DropReason::NoServer)?;
        let local = ends.find(&mut cursor.local, &mut counters.port_probes_taken);
        // The position moves on though a conn could not be made: the next one shall try another server.
        cursor.sched = position + 1;
        // The packet of the next conn may be the next one.
        let next = sched::pick(&service.cycle, &mut position).and_then(ends_to);
        if let Some((_, ends)) = next {
            ends.prefetch(cursor.local);
        }
        let (local, outbound) = local?;
        let state = match tuple.proto {
            L4Proto::Tcp => ConnState::None,
            L4Proto::Udp => ConnState::UdpOneWay,
        };
        Ok(Chosen {
            init: ConnInit {
                proto: tuple.proto,
                client: tuple.src,
                vip: tuple.dst,
                server: SocketAddr::new(server.addr, server.port),
                local,
                service: service.id,
                server_id: server.id,
                state,
            },
            outbound,
            timeout_ms: service.timeouts.ms(state),
            replicate: service.replicate,
        })
    }
}

impl LocalEnds<'_> {
    /// A free local end whose replies come to this worker, and where their tuple stands in the index: the table is the
    /// pool of ports. Counts in `taken` those that were not free.
    ///
    /// The cursor counts LIPs first, and then ports of their classes. So conns in a row have different local ends until all
    /// have had their turn, and who comes to a port that is taken is moved on to where others are free.
    fn find(&self, cursor: &mut u32, taken: &mut u64) -> Result<(SocketAddr, Candidates), DropReason> {
        let count = self.addrs.len() as u32;
        if count == 0 {
            return Err(DropReason::NoLocalPort);
        }
        // A port below the minimum is the turn of the next LIP, so that no local end is left out.
        for _ in 0..STARTS_MAX {
            match self.at(*cursor) {
                Some(local) if local.port() < self.port_min => *cursor = cursor.wrapping_add(1),
                _ => break,
            }
        }
        let first = *cursor % count;
        for further in 0..count.min(PORT_PROBE_ADDRS as u32) {
            let turn = first + further;
            let turn = if turn < count { turn } else { turn - count };
            let (addr, class) = self.class(turn as usize).ok_or(DropReason::NoLocalPort)?;
            let (mut probes, mut skips) = (0, 0);
            // Ports below the minimum are passed over, at most once round the class.
            while probes < PORT_PROBES_PER_ADDR && skips < class.len() {
                let at = *cursor;
                *cursor = at.wrapping_add(count);
                let port = class.port(at / count);
                if port < self.port_min {
                    skips += 1;
                    continue;
                }
                let local = SocketAddr::new(addr, port);
                let key = Key::from_tuple(&self.replies_to(local));
                let place = self.table.candidates_of(&key);
                if planted::has(Bug::PortProbe) || self.table.find(&key, place).is_none() {
                    // The next conn begins at the LIP behind this one.
                    *cursor = at.wrapping_add(further + 1);
                    return Ok((local, place));
                }
                probes += 1;
                *taken += 1;
            }
        }
        // The next one begins at another LIP: there may be more of them than are probed.
        *cursor = cursor.wrapping_add(1);
        Err(DropReason::NoLocalPort)
    }

    /// Asks for where the local end of the next conn is looked up.
    fn prefetch(&self, cursor: u32) {
        if let Some(local) = self.at(cursor) {
            self.table.prefetch_tuple(&self.replies_to(local));
        }
    }

    /// The local end that a cursor points to.
    #[inline]
    fn at(&self, cursor: u32) -> Option<SocketAddr> {
        let count = self.addrs.len() as u32;
        let (addr, class) = self.class(cursor.checked_rem(count)? as usize)?;
        Some(SocketAddr::new(addr, class.port(cursor / count)))
    }

    /// A LIP by its place, and the class of its local ports.
    #[inline]
    fn class(&self, place: usize) -> Option<(IpAddr, PortClass<'_>)> {
        let base = self.server_base ^ *self.bases.get(place)?;
        let class = self.steering.class_of(self.family, base, self.bucket);
        Some((*self.addrs.get(place)?, class))
    }

    #[inline]
    fn replies_to(&self, local: SocketAddr) -> Tuple {
        Tuple {
            proto: self.proto,
            src: self.server,
            dst: local,
        }
    }
}

/// Whether the sender can be a client: a host, none of our own addresses, with a port to answer to.
fn is_client(tuple: &Tuple, snapshot: &Snapshot) -> bool {
    let addr = tuple.src.ip();
    is_unicast(addr) && tuple.src.port() != 0 && snapshot.owned(addr).is_none()
}
