//! New conns: whose packet may open one, to which real server it goes, from which local end.

use core::net::{IpAddr, SocketAddr};

use super::{Removal, Turn, Unsent, Worker, is_pure_syn};
use crate::conn::{ConnId, ConnInit, TableFull};
use crate::hash::SplitMix;
use crate::parse::{Kind, Parsed};
use crate::planted::{self, Bug};
use crate::port::{Frame, HandoffTag};
use crate::proto::ConnState;
use crate::sched;
use crate::service::{OwnedAddr, RealServer, Snapshot, VirtualService, is_group, is_unicast};
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

impl Worker {
    /// A packet that no conn knows: perhaps the first of a new one.
    #[cold]
    pub(super) fn open<F: Frame>(&mut self, frame: &mut F, parsed: &Parsed) -> Turn {
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
        let sync = self.sync.as_ref();
        if sync.is_some_and(|sync| !sync.creates(service.replicate, self.now)) {
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
            cursor.local = random as u32;
        }
        let mut position = cursor.sched - 1;
        let place = sched::pick(&service.cycle, &mut position).ok_or(DropReason::NoServer)?;
        let server = service
            .servers
            .get(usize::from(place))
            .ok_or(DropReason::NoServer)?;
        let local = self.local_end(service, server, tuple.proto, bucket, &mut cursor.local);
        // The position moves on though a conn could not be made: the next one shall try another server.
        cursor.sched = position + 1;
        self.cursors[at] = cursor;
        self.prefetch_local_end(service, tuple.proto, bucket, cursor);
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
    ///
    /// The cursor counts LIPs first, and then ports of their classes. So conns in a row have different local ends until all
    /// have had their turn, and who comes to a port that is taken is moved on to where others are free.
    fn local_end(
        &mut self,
        service: &VirtualService,
        server: &RealServer,
        proto: L4Proto,
        bucket: u16,
        cursor: &mut u32,
    ) -> Result<SocketAddr, DropReason> {
        let addrs = service.local_addrs(Family::of(&server.addr));
        let count = addrs.len() as u32;
        if count == 0 {
            return Err(DropReason::NoLocalPort);
        }
        let src = SocketAddr::new(server.addr, server.port);
        // A port below the minimum is the turn of the next LIP, so that no local end is left out.
        for _ in 0..STARTS_MAX {
            match self.port_at(addrs, src, bucket, *cursor) {
                Some(local) if local.port() < self.local_port_min => *cursor = cursor.wrapping_add(1),
                _ => break,
            }
        }
        let first = (*cursor % count) as usize;
        let tried = addrs.iter().cycle().skip(first).take(PORT_PROBE_ADDRS);
        for (further, addr) in tried.take(addrs.len()).enumerate() {
            let class = self.steering.class_for(src, *addr, bucket);
            let (mut probes, mut skips) = (0, 0);
            // Ports below the minimum are passed over, at most once round the class.
            while probes < PORT_PROBES_PER_ADDR && skips < class.len() {
                let at = *cursor;
                *cursor = at.wrapping_add(count);
                let port = class.port(at / count);
                if port < self.local_port_min {
                    skips += 1;
                    continue;
                }
                let dst = SocketAddr::new(*addr, port);
                if planted::has(Bug::PortProbe) || self.table.lookup(&Tuple { proto, src, dst }).is_none() {
                    // The next conn begins at the LIP behind this one.
                    *cursor = at.wrapping_add(further as u32 + 1);
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

    /// Asks for where the local end of the next conn is looked up, as this one's was: its packet may be the next.
    fn prefetch_local_end(&self, service: &VirtualService, proto: L4Proto, bucket: u16, cursor: Cursor) {
        let mut position = cursor.sched - 1;
        let server = sched::pick(&service.cycle, &mut position)
            .and_then(|place| service.servers.get(usize::from(place)));
        let Some(server) = server else { return };
        let src = SocketAddr::new(server.addr, server.port);
        let addrs = service.local_addrs(Family::of(&server.addr));
        if let Some(dst) = self.port_at(addrs, src, bucket, cursor.local) {
            self.table.prefetch_tuple(&Tuple { proto, src, dst });
        }
    }

    /// The local end that a cursor points to.
    fn port_at(&self, addrs: &[IpAddr], src: SocketAddr, bucket: u16, cursor: u32) -> Option<SocketAddr> {
        let count = addrs.len() as u32;
        let addr = *addrs.get(cursor.checked_rem(count)? as usize)?;
        let class = self.steering.class_for(src, addr, bucket);
        Some(SocketAddr::new(addr, class.port(cursor / count)))
    }
}

/// Whether the sender can be a client: a host, none of our own addresses, with a port to answer to.
fn is_client(tuple: &Tuple, snapshot: &Snapshot) -> bool {
    let addr = tuple.src.ip();
    is_unicast(addr) && tuple.src.port() != 0 && snapshot.owned(addr).is_none()
}
