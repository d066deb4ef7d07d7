//! The world: everything that is simulated, and its clock.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use evenkeel_core::cluster::NodeCommand;
use evenkeel_core::port::PortId;
use evenkeel_core::service::SnapshotSpec;
use evenkeel_core::time::Instant;

use crate::account::{Account, AccountOf};
use crate::actor::{Actor, ActorCounters, ActorState, Machine};
use crate::bounds::{Exceeded, WorldBounds};
use crate::faults::{self, Faults};
use crate::flow::{FlowRecord, FlowSpec};
use crate::frames::Frames;
use crate::host::{Host, HostSpec, ServerSpec};
use crate::ids::{ActorId, End, FlowId, HostId, LbId, LbPort, LinkId, Owner, Place, RouterId, SwitchId};
use crate::lb::{Lb, LbQueues, LbRef, LbRings, LbSpec};
use crate::link::{Link, LinkCounters, LinkSpec, Ppm, Sent, Side};
use crate::observe::{Direction, Filter, Observer, Part, SharedMeter, Tap, Trace};
use crate::queue::{Event, Queue, QueueKind};
use crate::random::Streams;
use crate::router::{Router, RouterCounters, RouterSpec};
use crate::switch::{Switch, SwitchCounters, SwitchSpec, VLAN_RANGE, Vlan};
use crate::trail::{Notes, Trail, TrailSpec};

/// Switches, hosts, load balancers and links of a world, of each at most.
pub const ENTITY_COUNT_MAX: usize = 1024;
/// Flows of a world at most.
pub const FLOW_COUNT_MAX: usize = 4_000_000;
/// What a flow counts of a world's memory, in bytes: its record, both ends of a flyweight's, and what the world's owner
/// notes of it. Connections of smoltcp's count for themselves.
const FLOW_BYTES: u64 = 512;
/// What an event that waits counts.
const EVENT_BYTES: u64 = 48;

/// What a caller asked for and cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// There is no such thing in this world.
    #[error("there is no {0}")]
    Unknown(String),
    /// There are as many of these as there can be.
    #[error("there are {max} {what} already, which is all that a world holds")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        max: usize,
    },
    /// The port has a link.
    #[error("{0} has a link already")]
    Connected(Place),
    /// The load balancer's config is refused.
    #[error("the config of {lb} is refused: {why}")]
    Config {
        /// Name.
        lb: String,
        /// Why.
        why: String,
    },
    /// The host does not have this address.
    #[error("{host} does not have {addr}")]
    NotItsAddress {
        /// Name.
        host: String,
        /// Address.
        addr: IpAddr,
    },
    /// The flow cannot be opened as it is described.
    #[error("a flow to {target}: {why}")]
    Flow {
        /// Where to.
        target: SocketAddr,
        /// Why.
        why: &'static str,
    },
    /// The router cannot be as it is described.
    #[error("{router}: {why}")]
    Router {
        /// Name.
        router: String,
        /// Why.
        why: String,
    },
    /// No VLAN has this number.
    #[error("{0} is no VLAN: 1 to 4094")]
    Vlan(u16),
    /// They are not at the same switch.
    #[error("{0} and {1} are not at one switch")]
    Apart(Place, Place),
    /// The load balancer is in another state.
    #[error("{0} is {1}")]
    State(String, &'static str),
    /// The world would be larger than it may be.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
}

/// What a world is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorldSpec {
    /// Where its randomness comes from.
    pub seed: u64,
    /// The order of events of equal time at different places; 0: that of their planning.
    pub ties: u64,
    /// How its queue is kept; nothing depends on it.
    pub queue: QueueKind,
    /// How much it may do and hold.
    pub bounds: WorldBounds,
}

impl WorldSpec {
    /// With this seed, and all else as it is by default.
    pub fn new(seed: u64) -> Self {
        WorldSpec {
            seed,
            ..WorldSpec::default()
        }
    }
}

/// What the world as a whole counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorldCounters {
    /// Events that happened.
    pub events: u64,
    /// The most that waited at a time.
    pub events_waiting_peak: usize,
    /// Frames given to links.
    pub frames_sent: u64,
    /// Frames that arrived.
    pub frames_delivered: u64,
    /// Frames that a link, a switch, a NIC or a host dropped.
    pub frames_dropped: u64,
    /// Frames of which a link flipped a bit.
    pub frames_corrupted: u64,
    /// The most bytes that it held at a time, as [`WorldBounds`] counts them.
    pub memory_bytes_peak: u64,
}

/// Where a port's link is.
pub(crate) type Attached = (LinkId, Side);

/// What all entities use: clock, queue, links, taps.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) now: u64,
    pub(crate) queue: Queue,
    pub(crate) frames: Frames,
    pub(crate) links: Vec<Link>,
    pub(crate) streams: Streams,
    pub(crate) observer: Observer,
    pub(crate) counters: WorldCounters,
    bounds: WorldBounds,
    /// Bytes of flows, connections, tables and rings.
    held: u64,
    exceeded: Option<Exceeded>,
}

impl Net {
    fn new(spec: WorldSpec) -> Self {
        Net {
            now: 0,
            queue: Queue::new(spec.queue, spec.ties),
            frames: Frames::default(),
            links: Vec::new(),
            streams: Streams::new(spec.seed),
            observer: Observer::new(spec.seed),
            counters: WorldCounters::default(),
            bounds: spec.bounds,
            held: 0,
            exceeded: None,
        }
    }

    /// Something holds so many bytes from now on.
    pub(crate) fn hold(&mut self, bytes: u64) {
        self.held = self.held.saturating_add(bytes);
    }

    /// It does no more.
    pub(crate) fn release(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.held, "what is released was held");
        self.held = self.held.saturating_sub(bytes);
    }

    fn memory(&self) -> u64 {
        let waiting = self.queue.len() as u64 * EVENT_BYTES;
        self.held
            .saturating_add(self.frames.bytes())
            .saturating_add(waiting)
    }

    /// Whether there is room for so many bytes more.
    ///
    /// # Errors
    ///
    /// There is not.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), Exceeded> {
        self.bounds
            .check_memory(self.memory().saturating_add(bytes), self.now)
    }

    /// An event is about to happen.
    fn count(&mut self) {
        self.counters.events += 1;
        let memory = self.memory();
        self.counters.memory_bytes_peak = self.counters.memory_bytes_peak.max(memory);
        let events = self.bounds.check_events(self.counters.events, self.now);
        let checked = events.and_then(|()| self.bounds.check_memory(memory, self.now));
        if let Err(exceeded) = checked {
            self.exceeded.get_or_insert(exceeded);
        }
    }

    /// Plans a frame's arrival.
    fn arrive_at(&mut self, at: u64, link: LinkId, from: Side, frame: Vec<u8>) {
        let frame = self.frames.put(link, from, frame);
        self.queue.push(at, Event::Arrive { link, from, frame });
    }

    /// Sends a frame into a link at `at`, which is not before now.
    pub(crate) fn send(&mut self, (id, from): Attached, at: u64, mut frame: Vec<u8>) {
        let Some(link) = self.links.get_mut(usize::from(id.0)) else {
            return;
        };
        self.counters.frames_sent += 1;
        let place = link.ends[from as usize];
        // A switch passes on what has been seen at its sender's port.
        if !matches!(place.owner, Owner::Switch(_)) {
            self.observer
                .frame(Instant::from_nanos(at), place, Direction::Out, &frame);
        }
        match link.send(&self.streams, from, at, &frame) {
            Sent::Dropped(why) => self.dropped(place, why, frame.len()),
            Sent::At {
                at,
                copies,
                apart,
                flips,
            } => {
                if let Some(draw) = flips {
                    self.counters.frames_corrupted += 1;
                    faults::flip(&mut frame, draw);
                }
                for n in 1..=u64::from(copies) {
                    self.arrive_at(at + n * apart, id, from, frame.clone());
                }
                self.arrive_at(at, id, from, frame);
            }
        }
    }

    /// Counts and tells a dropped frame.
    pub(crate) fn dropped(&mut self, at: Place, why: &'static str, len: usize) {
        self.counters.frames_dropped += 1;
        let len = len as u32;
        self.trace(Trace::Dropped { at, why, len });
    }

    pub(crate) fn trace(&mut self, what: Trace) {
        self.observer.trace(Instant::from_nanos(self.now), what);
    }
}

/// See the crate. All `add_*`, `connect` and `open` calls deal numbers in order: the same calls make the same world.
#[derive(Debug)]
pub struct World {
    pub(crate) net: Net,
    switches: Vec<Switch>,
    routers: Vec<Router>,
    hosts: Vec<Host>,
    actors: Vec<Machine>,
    lbs: Vec<Lb>,
    flows: Vec<FlowRecord>,
}

fn unknown(what: impl std::fmt::Display) -> WorldError {
    WorldError::Unknown(what.to_string())
}

impl World {
    /// An empty world at time zero, whose randomness comes from `seed`.
    pub fn new(seed: u64) -> Self {
        World::with(WorldSpec::new(seed))
    }

    /// An empty world at time zero.
    pub fn with(spec: WorldSpec) -> Self {
        World {
            net: Net::new(spec),
            switches: Vec::new(),
            routers: Vec::new(),
            hosts: Vec::new(),
            actors: Vec::new(),
            lbs: Vec::new(),
            flows: Vec::new(),
        }
    }

    /// Its time.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.net.now)
    }

    /// Its random numbers. Callers draw for [`crate::Purpose::Scenario`].
    pub fn streams(&self) -> Streams {
        self.net.streams
    }

    /// Puts a switch in.
    ///
    /// # Errors
    ///
    /// There are [`ENTITY_COUNT_MAX`] already.
    pub fn add_switch(&mut self, spec: SwitchSpec) -> Result<SwitchId, WorldError> {
        let id = SwitchId(number(self.switches.len(), "switches")?);
        self.switches.push(Switch::new(spec));
        Ok(id)
    }

    /// Puts a router in; it runs at once.
    ///
    /// # Errors
    ///
    /// As [`World::add_switch`], or it cannot be as it is described.
    pub fn add_router(&mut self, spec: RouterSpec) -> Result<RouterId, WorldError> {
        let id = RouterId(number(self.routers.len(), "routers")?);
        let mut router = Router::new(id, spec, self.net.streams)?;
        router.begin(&mut self.net);
        self.routers.push(router);
        Ok(id)
    }

    /// Puts an actor in, on a machine with this address; it runs once [`World::start_actor`] was called.
    ///
    /// # Errors
    ///
    /// As [`World::add_switch`], or the address is not one of a host with a port.
    pub fn add_actor(
        &mut self,
        name: impl Into<String>,
        addr: SocketAddrV4,
        actor: Box<dyn Actor>,
    ) -> Result<ActorId, WorldError> {
        let (id, name) = (ActorId(number(self.actors.len(), "actors")?), name.into());
        if !crate::actor::is_address(addr) {
            return Err(WorldError::NotItsAddress {
                host: name,
                addr: IpAddr::V4(*addr.ip()),
            });
        }
        self.actors.push(Machine::new(id, name, addr, actor));
        Ok(id)
    }

    /// Lets an actor run: for the first time, again after it was stopped, or go on. One that runs, runs.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn start_actor(&mut self, id: ActorId) -> Result<(), WorldError> {
        self.set_actor(id, ActorState::Running)
    }

    /// Stops an actor: what it knows by heart alone is gone.
    ///
    /// # Errors
    ///
    /// As [`World::start_actor`].
    pub fn stop_actor(&mut self, id: ActorId) -> Result<(), WorldError> {
        self.set_actor(id, ActorState::Stopped)
    }

    /// Lets an actor stand still: what comes waits in its socket's buffer, of 256 datagrams.
    ///
    /// # Errors
    ///
    /// As [`World::start_actor`].
    pub fn pause_actor(&mut self, id: ActorId) -> Result<(), WorldError> {
        self.set_actor(id, ActorState::Paused)
    }

    fn set_actor(&mut self, id: ActorId, state: ActorState) -> Result<(), WorldError> {
        let machine = self
            .actors
            .get_mut(usize::from(id.0))
            .ok_or_else(|| unknown(id))?;
        machine.set(&mut self.net, state);
        Ok(())
    }

    /// An actor of this type.
    pub fn actor<A: Actor>(&self, id: ActorId) -> Option<&A> {
        let actor: &dyn std::any::Any = &*self.actors.get(usize::from(id.0))?.actor;
        actor.downcast_ref()
    }

    /// The same, to change it. What it has to do because of that it does at its next turn.
    pub fn actor_mut<A: Actor>(&mut self, id: ActorId) -> Option<&mut A> {
        let actor: &mut dyn std::any::Any = &mut *self.actors.get_mut(usize::from(id.0))?.actor;
        actor.downcast_mut()
    }

    /// What an actor's machine counted.
    pub fn actor_counters(&self, id: ActorId) -> Option<ActorCounters> {
        self.actors.get(usize::from(id.0)).map(|m| m.counters)
    }

    /// Puts a host in.
    ///
    /// # Errors
    ///
    /// As [`World::add_switch`].
    pub fn add_host(&mut self, spec: HostSpec) -> Result<HostId, WorldError> {
        let id = HostId(number(self.hosts.len(), "hosts")?);
        self.hosts.push(Host::new(id, spec));
        Ok(id)
    }

    /// Puts a load balancer in; it runs once [`World::start`] was called.
    ///
    /// # Errors
    ///
    /// As [`World::add_switch`], or the config is refused.
    pub fn add_lb(&mut self, spec: LbSpec) -> Result<LbId, WorldError> {
        let id = LbId(number(self.lbs.len(), "load balancers")?);
        self.lbs.push(Lb::new(id, spec)?);
        Ok(id)
    }

    /// Connects two ports.
    ///
    /// # Errors
    ///
    /// One of them is not there or has a link, or there are [`ENTITY_COUNT_MAX`] links.
    pub fn connect(&mut self, a: End, b: End, spec: LinkSpec) -> Result<LinkId, WorldError> {
        let id = LinkId(number(self.net.links.len(), "links")?);
        self.check_free(a)?;
        self.check_free(b)?;
        let ends = [self.attach(a, (id, Side::A))?, self.attach(b, (id, Side::B))?];
        let name = ends.map(|end| self.end_name(end)).join(" ");
        self.net.links.push(Link::new(spec, ends, &name));
        Ok(id)
    }

    /// What an end of a link is called, whatever else there is: a host has one port, a switch does not tell its ports apart.
    fn end_name(&self, place: Place) -> String {
        match place.owner {
            Owner::Switch(id) => id.to_string(),
            Owner::Router(_) | Owner::Actor(_) => place.to_string(),
            Owner::Host(id) => self
                .hosts
                .get(usize::from(id.0))
                .map_or_else(String::new, |h| h.spec.name.clone()),
            Owner::Lb(id) => {
                let lb = self.lbs.get(usize::from(id.0));
                lb.map_or_else(String::new, |lb| format!("{} {}", LbRef(lb).name(), place.port))
            }
        }
    }

    fn check_free(&self, end: End) -> Result<(), WorldError> {
        let (place, free) = match end {
            End::Vlan(_, Vlan::Access(vid)) if !VLAN_RANGE.contains(&vid) => {
                return Err(WorldError::Vlan(vid));
            }
            End::Switch(id) | End::Vlan(id, _) => return self.switch(id).map(|_| ()),
            End::Router(id, port) => {
                let router = self.routers.get(usize::from(id.0)).ok_or_else(|| unknown(id))?;
                let place = router.place(port);
                (place, router.link(port).ok_or_else(|| unknown(place))?.is_none())
            }
            End::Host(id) => {
                let host = self.hosts.get(usize::from(id.0)).ok_or_else(|| unknown(id))?;
                (host.place(), host.link.is_none())
            }
            End::Actor(id) => {
                let machine = self.actors.get(usize::from(id.0)).ok_or_else(|| unknown(id))?;
                (machine.place(), machine.link.is_none())
            }
            End::Lb(id, port) => {
                let lb = self.lbs.get(usize::from(id.0)).ok_or_else(|| unknown(id))?;
                let place = lb.place(port);
                (
                    place,
                    lb.link(place.port).ok_or_else(|| unknown(place))?.is_none(),
                )
            }
        };
        if free {
            Ok(())
        } else {
            Err(WorldError::Connected(place))
        }
    }

    fn attach(&mut self, end: End, link: Attached) -> Result<Place, WorldError> {
        match end {
            End::Switch(_) | End::Vlan(..) => {
                let (id, vlan) = match end {
                    End::Vlan(id, vlan) => (id, vlan),
                    End::Switch(id) => (id, Vlan::None),
                    _ => return Err(unknown("such an end")),
                };
                let switch = self
                    .switches
                    .get_mut(usize::from(id.0))
                    .ok_or_else(|| unknown(id))?;
                let port = number(switch.port_count(), "ports of a switch")?;
                switch.attach(link, vlan);
                Ok(Place {
                    owner: Owner::Switch(id),
                    port,
                })
            }
            End::Router(id, port) => {
                let router = self
                    .routers
                    .get_mut(usize::from(id.0))
                    .ok_or_else(|| unknown(id))?;
                router.attach(port, link);
                Ok(router.place(port))
            }
            End::Host(id) => {
                let host = self.hosts.get_mut(usize::from(id.0)).ok_or_else(|| unknown(id))?;
                host.link = Some(link);
                Ok(host.place())
            }
            End::Actor(id) => {
                let machine = self
                    .actors
                    .get_mut(usize::from(id.0))
                    .ok_or_else(|| unknown(id))?;
                machine.link = Some(link);
                Ok(machine.place())
            }
            End::Lb(id, port) => {
                let lb = self.lbs.get_mut(usize::from(id.0)).ok_or_else(|| unknown(id))?;
                let place = lb.place(port);
                lb.attach(place.port, link);
                Ok(place)
            }
        }
    }

    fn switch(&self, id: SwitchId) -> Result<&Switch, WorldError> {
        self.switches.get(usize::from(id.0)).ok_or_else(|| unknown(id))
    }

    /// Lets a host answer as a server from now on.
    ///
    /// # Errors
    ///
    /// There is no such host, or the address is not its own.
    pub fn serve(&mut self, host: HostId, server: ServerSpec) -> Result<(), WorldError> {
        let host = self
            .hosts
            .get_mut(usize::from(host.0))
            .ok_or_else(|| unknown(host))?;
        host.serve(server)
    }

    /// Lets a host tell all on its link that it has an address: gratuitous ARP, unsolicited neighbour advertisement.
    ///
    /// # Errors
    ///
    /// As [`World::serve`].
    pub fn announce(&mut self, host: HostId, addr: IpAddr) -> Result<(), WorldError> {
        let id = host;
        let host = self.hosts.get_mut(usize::from(id.0)).ok_or_else(|| unknown(id))?;
        host.announce(&mut self.net, addr)
    }

    /// Plans a flow.
    ///
    /// # Errors
    ///
    /// The client is not there, does not have the address, or the lengths are out of their bounds; or there are
    /// [`FLOW_COUNT_MAX`] flows.
    pub fn open(&mut self, spec: FlowSpec) -> Result<FlowId, WorldError> {
        let host = self
            .hosts
            .get(usize::from(spec.client.0))
            .ok_or_else(|| unknown(spec.client))?;
        if !host.has(spec.source.ip()) {
            return Err(WorldError::NotItsAddress {
                host: host.spec.name.clone(),
                addr: spec.source.ip(),
            });
        }
        crate::host::check_flow(&spec)?;
        if self.flows.len() >= FLOW_COUNT_MAX {
            return Err(WorldError::Full {
                what: "flows",
                max: FLOW_COUNT_MAX,
            });
        }
        self.net.check_room(FLOW_BYTES)?;
        self.net.hold(FLOW_BYTES);
        let id = FlowId(self.flows.len() as u32);
        let start = spec.start.as_nanos().max(self.net.now);
        self.flows.push(FlowRecord::new(spec));
        self.net.queue.push(start, Event::Flow(id));
        Ok(id)
    }

    /// Starts a load balancer, in a life of its own: tables empty, its incarnation by its wall clock, and more than the
    /// last one that its disk remembers.
    ///
    /// # Errors
    ///
    /// It is not there, or runs, or its tables cannot be had.
    pub fn start(&mut self, lb: LbId) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.start(net)
    }

    /// Takes a load balancer's power: all state is gone; frames that left it are on their way.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn crash(&mut self, lb: LbId) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.crash(net);
        Ok(())
    }

    /// Stops a load balancer's threads: nothing runs, its rings fill, the clock goes on.
    ///
    /// # Errors
    ///
    /// It is not there, or does not run.
    pub fn pause(&mut self, lb: LbId) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.pause(net, true)
    }

    /// Stops a load balancer's threads and its clock, as a hypervisor does: afterwards it does not know of it.
    ///
    /// # Errors
    ///
    /// It is not there, or does not run.
    pub fn pause_with_clock(&mut self, lb: LbId) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.pause(net, false)
    }

    /// Lets a paused load balancer go on.
    ///
    /// # Errors
    ///
    /// It is not there, or not paused.
    pub fn resume(&mut self, lb: LbId) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.resume(net)
    }

    /// Tells the control side of a load balancer what an operator wants.
    ///
    /// # Errors
    ///
    /// It is not there, does not run, or is in no cluster.
    pub fn command(&mut self, lb: LbId, command: NodeCommand) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.command(net, command)
    }

    /// Gives the queues between a load balancer's threads other bounds. What they hold stays in them.
    ///
    /// # Errors
    ///
    /// It is not there, or is in no cluster.
    pub fn set_queues(&mut self, lb: LbId, queues: LbQueues) -> Result<(), WorldError> {
        let (_, lb) = self.lb_parts(lb)?;
        lb.set_queues(queues)
    }

    /// The RSS buckets whose frames the NICs of a load balancer lose from now on, at all its data ports.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn set_dark_buckets(&mut self, lb: LbId, buckets: BTreeSet<u16>) -> Result<(), WorldError> {
        let (_, lb) = self.lb_parts(lb)?;
        lb.set_dark(buckets);
        Ok(())
    }

    /// Whether their switch lets frames of `from` pass to `to`; the way back is another matter.
    ///
    /// # Errors
    ///
    /// They are not ports at one switch.
    pub fn part(&mut self, from: Place, to: Place, parted: bool) -> Result<(), WorldError> {
        let at_switch = |place: Place| {
            let link = self.net.links.get(usize::from(self.link_of(place)?.0))?;
            let other = link.ends.iter().find(|end| **end != place)?;
            match other.owner {
                Owner::Switch(id) => Some((id, other.port)),
                _ => None,
            }
        };
        match (at_switch(from), at_switch(to)) {
            (Some((id, from)), Some((same, to))) if id == same => {
                if let Some(switch) = self.switches.get_mut(usize::from(id.0)) {
                    switch.part(from, to, parted);
                }
                Ok(())
            }
            _ => Err(WorldError::Apart(from, to)),
        }
    }

    /// Gives the rings of a load balancer other bounds. What they hold stays in them.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn set_rings(&mut self, lb: LbId, rings: LbRings) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.set_rings(net, rings);
        Ok(())
    }

    /// All work of a load balancer, or of one of its workers, takes this factor longer; 1 is as ever, and
    /// [`SLOWNESS_MAX`](crate::SLOWNESS_MAX) the most. Both count together. It outlives a crash.
    ///
    /// # Errors
    ///
    /// It is not there, or has no such worker.
    pub fn set_slowness(&mut self, lb: LbId, worker: Option<u8>, factor: u32) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.set_slowness(net, worker, factor)
    }

    /// The clock of a load balancer is faster than the world's by so many millionths from now on, or slower:
    /// [`DRIFT_PPM_MAX`](crate::DRIFT_PPM_MAX) at most. It outlives a crash.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn set_drift(&mut self, lb: LbId, drift_ppm: i32) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.set_drift(net, drift_ppm);
        Ok(())
    }

    /// The clock of a load balancer jumps forward, as when a hypervisor makes good for a time in which it stood still.
    /// Back it cannot go: nodes use the clock since boot.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn step_clock(&mut self, lb: LbId, by: Duration) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.step_clock(net, by);
        Ok(())
    }

    /// Somebody sets the wall clock of a load balancer forward by so many nanoseconds, or back. By it its next life is
    /// numbered, and nothing else.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn step_wall_clock(&mut self, lb: LbId, by_ns: i64) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.set_wall_clock(net, by_ns);
        Ok(())
    }

    /// The disk of a load balancer is lost, and with it the number of its last life.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn lose_state(&mut self, lb: LbId) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.lose_state(net);
        Ok(())
    }

    /// Gives a load balancer another config, which it keeps for its next lives. Its workers read by it once it has come
    /// through their queues. Its ports stay as they are.
    ///
    /// # Errors
    ///
    /// It is not there, the engine refuses the config, or it has other ports.
    pub fn set_config(&mut self, lb: LbId, config: SnapshotSpec) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.set_config(net, config)
    }

    /// Fills the tables of a load balancer up to a share of their places with sessions of clients that do not exist, each
    /// of which ends after `remaining`. Other nodes are not told of them. A node that may not create sessions, as it has not
    /// joined, gets none. Gives how many there are.
    ///
    /// # Errors
    ///
    /// It is not there, or is down.
    pub fn fill(&mut self, lb: LbId, share: Ppm, remaining: Duration) -> Result<u64, WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.fill(net, share, remaining)
    }

    /// Damages a share of the conns that a load balancer has of sessions which other nodes hold, and tells nobody. How many.
    ///
    /// # Errors
    ///
    /// It is not there, or is down.
    pub fn damage(&mut self, lb: LbId, share: Ppm) -> Result<u64, WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        lb.damage(net, share)
    }

    /// A frame reaches a data port of a load balancer, as from its link.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn inject(&mut self, lb: LbId, port: PortId, frame: &[u8]) -> Result<(), WorldError> {
        let (net, lb) = self.lb_parts(lb)?;
        let place = lb.place(LbPort::Data(port));
        lb.receive(net, place, frame);
        Ok(())
    }

    fn lb_parts(&mut self, id: LbId) -> Result<(&mut Net, &mut Lb), WorldError> {
        match self.lbs.get_mut(usize::from(id.0)) {
            Some(lb) => Ok((&mut self.net, lb)),
            None => Err(unknown(id)),
        }
    }

    /// What a link is now.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn link(&self, id: LinkId) -> Result<LinkSpec, WorldError> {
        let link = self.net.links.get(usize::from(id.0));
        link.map(|l| l.spec).ok_or_else(|| unknown(id))
    }

    /// Changes a link. What is on its way arrives as it was to.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn set_link(&mut self, id: LinkId, spec: LinkSpec) -> Result<(), WorldError> {
        let link = self.net.links.get_mut(usize::from(id.0));
        link.ok_or_else(|| unknown(id))?.spec = spec;
        self.net.trace(Trace::LinkChanged(id));
        Ok(())
    }

    /// Changes what goes wrong on a link: from its first end to its second, and back.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn set_faults(&mut self, id: LinkId, [forth, back]: [Faults; 2]) -> Result<(), WorldError> {
        let spec = self.link(id)?;
        self.set_link(id, LinkSpec { forth, back, ..spec })
    }

    /// The link of a port.
    pub fn link_of(&self, place: Place) -> Option<LinkId> {
        let ends = |l: &Link| l.ends.contains(&place);
        let at = self.net.links.iter().position(ends)?;
        Some(LinkId(at as u16))
    }

    /// Lets everything happen that is due up to `until`, which is included, and time be `until`. A world that is beyond
    /// a bound of its own stops where it is: see [`World::exceeded`].
    pub fn run_until(&mut self, until: Instant) {
        while self.step_until(until.as_nanos()) {}
        if self.net.exceeded.is_none() {
            self.net.now = self.net.now.max(until.as_nanos());
        }
    }

    /// As [`World::run_until`], but asks after each event whether to go on; if not, time stays at that event. Gives
    /// whether it came to `until`.
    pub fn run_while(&mut self, until: Instant, go_on: &mut dyn FnMut() -> bool) -> bool {
        while self.step_until(until.as_nanos()) {
            if !go_on() {
                return false;
            }
        }
        if self.net.exceeded.is_none() {
            self.net.now = self.net.now.max(until.as_nanos());
        }
        true
    }

    /// Lets the next event happen; `false`: there is none, or the world is beyond a bound of its own.
    pub fn step(&mut self) -> bool {
        self.step_until(u64::MAX)
    }

    fn step_until(&mut self, until: u64) -> bool {
        if self.net.exceeded.is_some() {
            return false;
        }
        self.net.observer.begins(Part::Queue);
        let Some((at, event)) = self.net.queue.pop_until(until) else {
            return false;
        };
        debug_assert!(at >= self.net.now, "time does not go back");
        self.net.now = at;
        self.net.count();
        if let Some(notes) = &mut self.net.observer.notes {
            notes.event(at, event);
        }
        if self.net.observer.meter.is_some() {
            self.net.observer.begins(self.work(event));
        }
        self.happen(event);
        true
    }

    /// What an event is work for.
    fn work(&self, event: Event) -> Part {
        match event {
            Event::Arrive { link, from, .. } => {
                let link = self.net.links.get(usize::from(link.0));
                match link.map(|l| l.ends[from.other() as usize].owner) {
                    Some(Owner::Host(_) | Owner::Actor(_)) => Part::Hosts,
                    Some(Owner::Lb(_)) => Part::Machines,
                    _ => Part::Network,
                }
            }
            Event::Flow(_) | Event::Conn { .. } | Event::Fly { .. } | Event::Neighbours(_) => Part::Hosts,
            Event::Actor(_) => Part::Hosts,
            Event::Router(_) => Part::Network,
            Event::Worker { .. } => Part::Workers,
            Event::Node { .. } => Part::Control,
        }
    }

    /// The bound that the world is beyond, if it is: then nothing happens any more.
    pub fn exceeded(&self) -> Option<Exceeded> {
        self.net.exceeded
    }

    /// When the next event is.
    pub fn next_at(&self) -> Option<Instant> {
        self.net.queue.next_at().map(Instant::from_nanos)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { link, from, frame } => {
                let frame = self.net.frames.take(link, from, frame);
                self.arrive(link, from, frame);
            }
            Event::Flow(flow) => {
                let Some(record) = self.flows.get(flow.0 as usize) else {
                    return;
                };
                let client = usize::from(record.spec.client.0);
                if let Some(host) = self.hosts.get_mut(client) {
                    host.flow_due(&mut self.net, &mut self.flows, flow);
                }
            }
            Event::Conn {
                host,
                conn,
                generation,
            } => {
                if let Some(host) = self.hosts.get_mut(usize::from(host.0)) {
                    host.conn_due(&mut self.net, &mut self.flows, conn, generation);
                }
            }
            Event::Fly { host, flow } => {
                if let Some(host) = self.hosts.get_mut(usize::from(host.0)) {
                    host.fly_due(&mut self.net, &mut self.flows, flow);
                }
            }
            Event::Neighbours(host) => {
                if let Some(host) = self.hosts.get_mut(usize::from(host.0)) {
                    host.neighbours_due(&mut self.net);
                }
            }
            Event::Router(router) => {
                if let Some(router) = self.routers.get_mut(usize::from(router.0)) {
                    router.due(&mut self.net);
                }
            }
            Event::Actor(id) => {
                if let Some(machine) = self.actors.get_mut(usize::from(id.0)) {
                    machine.due(&mut self.net);
                }
            }
            Event::Worker { lb, worker, turn } => {
                if let Some(lb) = self.lbs.get_mut(usize::from(lb.0)) {
                    lb.worker_due(&mut self.net, worker, turn);
                }
            }
            Event::Node { lb, turn } => {
                if let Some(lb) = self.lbs.get_mut(usize::from(lb.0)) {
                    lb.node_due(&mut self.net, turn);
                }
            }
        }
    }

    fn arrive(&mut self, link: LinkId, from: Side, mut frame: Vec<u8>) {
        let Some(on) = self.net.links.get_mut(usize::from(link.0)) else {
            return;
        };
        on.ways[from as usize].counters.delivered += 1;
        let at = on.ends[from.other() as usize];
        self.net.counters.frames_delivered += 1;
        let now = Instant::from_nanos(self.net.now);
        match at.owner {
            Owner::Switch(id) => {
                if let Some(switch) = self.switches.get_mut(usize::from(id.0)) {
                    switch.receive(&mut self.net, at, frame);
                }
            }
            Owner::Router(id) => {
                self.net.observer.frame(now, at, Direction::In, &frame);
                if let Some(router) = self.routers.get_mut(usize::from(id.0)) {
                    router.receive(&mut self.net, at.port, frame);
                }
            }
            Owner::Host(id) => {
                self.net.observer.frame(now, at, Direction::In, &frame);
                if let Some(host) = self.hosts.get_mut(usize::from(id.0)) {
                    host.receive(&mut self.net, &mut self.flows, frame);
                }
            }
            Owner::Actor(id) => {
                self.net.observer.frame(now, at, Direction::In, &frame);
                if let Some(machine) = self.actors.get_mut(usize::from(id.0)) {
                    machine.receive(&mut self.net, &frame);
                }
            }
            Owner::Lb(id) => {
                if let Some(filter) = &mut self.net.observer.filter
                    && !filter.keep(now, at, &mut frame)
                {
                    return self.net.dropped(at, "kept-back", frame.len());
                }
                self.net.observer.frame(now, at, Direction::In, &frame);
                if let Some(lb) = self.lbs.get_mut(usize::from(id.0)) {
                    lb.receive(&mut self.net, at, &frame);
                }
            }
        }
    }

    /// A flow.
    pub fn flow(&self, id: FlowId) -> Option<&FlowRecord> {
        self.flows.get(id.0 as usize)
    }

    /// All flows, by number.
    pub fn flows(&self) -> &[FlowRecord] {
        &self.flows
    }

    /// A load balancer.
    pub fn lb(&self, id: LbId) -> Option<LbRef<'_>> {
        self.lbs.get(usize::from(id.0)).map(LbRef)
    }

    /// All load balancers, by number.
    pub fn lbs(&self) -> impl Iterator<Item = LbRef<'_>> {
        self.lbs.iter().map(LbRef)
    }

    /// The link-layer address that a host knows for a neighbour.
    pub fn neighbour(&self, host: HostId, addr: IpAddr) -> Option<evenkeel_core::wire::MacAddr> {
        self.hosts.get(usize::from(host.0))?.neighbour(addr)
    }

    /// What a host counted.
    pub fn host_counters(&self, id: HostId) -> Option<crate::HostCounters> {
        self.hosts.get(usize::from(id.0)).map(|h| h.counters)
    }

    /// Connections that a host has, of both tiers: those that wait for their TIME-WAIT to end included.
    pub fn host_conns(&self, id: HostId) -> Option<usize> {
        self.hosts.get(usize::from(id.0)).map(Host::conn_len)
    }

    /// What a router counted.
    pub fn router_counters(&self, id: RouterId) -> Option<RouterCounters> {
        self.routers.get(usize::from(id.0)).map(Router::counters)
    }

    /// Whether a router sends packets to each next hop of a group.
    pub fn router_members(&self, id: RouterId, group: u16) -> Option<&[bool]> {
        self.routers.get(usize::from(id.0))?.members(group)
    }

    /// What a switch counted.
    pub fn switch_counters(&self, id: SwitchId) -> Option<SwitchCounters> {
        self.switch(id).ok().map(|s| s.counters)
    }

    /// What a link counted: from its first end to its second, and back.
    pub fn link_counters(&self, id: LinkId) -> Option<[LinkCounters; 2]> {
        let link = self.net.links.get(usize::from(id.0))?;
        Some([link.ways[0].counters, link.ways[1].counters])
    }

    /// What all counted.
    pub fn counters(&self) -> WorldCounters {
        WorldCounters {
            events_waiting_peak: self.net.queue.peak(),
            ..self.net.counters
        }
    }

    /// Names of the ports of hosts and load balancers, for captures: `NAME` of a host, `NAME-PORT` of a router or a load balancer.
    pub fn port_names(&self) -> Vec<(Place, String)> {
        let hosts = self.hosts.iter().map(|h| (h.place(), h.spec.name.clone()));
        let routers = self.routers.iter().flat_map(Router::port_names);
        let lbs = self.lbs.iter().flat_map(Lb::port_names);
        let actors = self.actors.iter().map(|m| (m.place(), m.name.clone()));
        hosts.chain(routers).chain(actors).chain(lbs).collect()
    }

    /// Lets a meter know what the world works on, from now on.
    pub fn set_meter(&mut self, meter: SharedMeter) {
        self.net.observer.meter = Some(meter);
    }

    /// Tells the meter that the world's owner works, until the world does again.
    pub fn begins_outside(&self) {
        self.net.observer.begins(Part::Outside);
    }

    /// Lets the world note what two runs are compared by, from now on.
    pub fn set_trail(&mut self, spec: TrailSpec) {
        self.net.observer.notes = Some(Box::new(Notes::new(spec)));
    }

    /// What it noted; empty if it was not asked to.
    pub fn trail(&self) -> Trail {
        let notes = self.net.observer.notes.as_ref();
        notes.map(|n| n.trail()).unwrap_or_default()
    }

    /// Lets a tap look on from now on.
    pub fn add_tap(&mut self, tap: Box<dyn Tap>) {
        self.net.observer.add(tap);
    }

    /// Lets a filter decide what arrives at load balancers from now on.
    pub fn set_filter(&mut self, filter: Box<dyn Filter>) {
        self.net.observer.filter = Some(filter);
    }

    /// Ends all taps.
    ///
    /// # Errors
    ///
    /// The first failure of a tap.
    pub fn finish_taps(&mut self) -> Result<(), String> {
        self.net.observer.finish()
    }

    /// 128 bits over all frames at ports of hosts and load balancers, and all [`Trace`]s, so far.
    pub fn digest(&self) -> u128 {
        self.net.observer.digest()
    }

    /// What became of every frame that was given to a link, in each direction, of every frame that a switch, a host or a
    /// load balancer received, and of every frame that an engine let go.
    pub fn accounts(&self) -> Vec<Account<'_>> {
        let mut accounts = Vec::new();
        for (link, id) in self.net.links.iter().zip(0..) {
            let on_their_way = self.net.frames.under_way(LinkId(id));
            for ((way, waiting), direction) in link.ways.iter().zip(on_their_way).zip(["forth", "back"]) {
                let c = &way.counters;
                accounts.push(Account::new(
                    AccountOf::Link(LinkId(id), direction),
                    c.sent + c.duplicated,
                    [
                        ("delivered", c.delivered),
                        ("cut", c.cut),
                        ("queue-full", c.queue_full),
                        ("lost", c.lost),
                        ("too-large", c.too_large),
                        ("on-their-way", waiting),
                    ],
                ));
            }
        }
        accounts.extend(self.switches.iter().map(Switch::account));
        accounts.extend(self.routers.iter().map(Router::account));
        accounts.extend(self.actors.iter().map(Machine::account));
        accounts.extend(self.hosts.iter().map(|host| host.account(&self.net)));
        accounts.extend(self.lbs.iter().flat_map(Lb::accounts));
        accounts
    }

    /// Whether every frame that was sent arrived, was dropped with a reason or is on its way, and every frame that a
    /// switch, a host or a load balancer received left it, was taken or dropped, or waits in it.
    ///
    /// # Errors
    ///
    /// Where the counts differ.
    pub fn check_conservation(&self) -> Result<(), String> {
        self.accounts().iter().try_for_each(Account::check)
    }
}

fn number(len: usize, what: &'static str) -> Result<u16, WorldError> {
    if len >= ENTITY_COUNT_MAX {
        return Err(WorldError::Full {
            what,
            max: ENTITY_COUNT_MAX,
        });
    }
    Ok(len as u16)
}
