//! A scenario as plain data, read and checked; nothing in it is drawn yet.

mod fault;

pub use fault::{
    Action, Change, Disturbance, Fault, Happening, Network, NodeRef, Occasion, Phase, ServerRef, Tampering,
    Trigger, Way,
};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use evenkeel_core::service::Replicate;
use evenkeel_core::tuple::L4Proto;
use evenkeel_io_sim::WorldBounds;

use crate::expect::Expectation;
use crate::mechanism::Mechanism;

/// Nodes of a cluster at most.
pub const NODE_COUNT_MAX: u32 = 16;
/// Connections that the loads of a scenario may open in all.
pub const FLOW_COUNT_MAX: u64 = 500_000;
/// Longest scenario, in simulated time.
pub const DURATION_MAX: Duration = Duration::from_secs(3_600);
/// Steps of a timeline at most.
pub const FAULT_COUNT_MAX: usize = 256;

/// What a seed draws from: both ends belong to it.
pub type Drawn<T> = RangeInclusive<T>;

/// A scenario. With everything drawn that is drawn ahead it is a plan; see [`crate::plan()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name: that of its file without the ending.
    pub name: String,
    /// Its number in the catalogue of failures.
    pub number: Option<u32>,
    /// What happens and what must come out, in words.
    pub description: String,
    /// Work that is not there yet and without which it cannot run.
    pub waits_for: Option<String>,
    /// The seed that a plan was drawn from, and that draws what is drawn frame by frame.
    pub seed: Option<u64>,
    /// Decides which of several events of one instant happens first.
    pub ties: Option<u64>,
    /// Simulated time.
    pub duration: Duration,
    /// Share of the simulated time at its end in which no load sends anything: what has to come to rest can.
    pub quiet: Duration,
    /// How much a run may do and hold.
    pub bounds: WorldBounds,
    /// The nodes.
    pub cluster: Cluster,
    /// The router before the nodes: then all that are ready answer for the VIPs. `None`: one of them does, by VRRP.
    pub router: Option<Router>,
    /// The links.
    pub links: Links,
    /// Clients and servers.
    pub hosts: Hosts,
    /// What is served.
    pub services: Vec<Service>,
    /// Who uses it.
    pub loads: Vec<Load>,
    /// What goes wrong, in the order of the text.
    pub faults: Vec<Fault>,
    /// What must come out.
    pub expects: Vec<Expectation>,
    /// It is a counter-proof.
    pub off: Option<Off>,
}

/// The load balancers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// One or more.
    pub nodes: Vec<Node>,
    /// Whether they know of each other. A single node may do without.
    pub clustered: bool,
    /// Into which flows fall; a power of two.
    pub buckets: u16,
    /// LIPs of each node's share, per family.
    pub local_addresses: u32,
    /// The lowest port that is given on them.
    pub local_port_min: u16,
    /// Between two messages of a node to its peers.
    pub heartbeat: Duration,
    /// VRRP's advertisement interval.
    pub advertisement: Duration,
    /// How long a node that starts looks for a peer.
    pub join_time: Duration,
    /// So much later than the rest comes bulk.
    pub bulk_delay: Duration,
    /// Whether a node with a higher priority takes over from a master that is well.
    pub preempt: bool,
    /// Records that the ring of a bucket remembers.
    pub lsn_ring: Option<u32>,
    /// Frames that each ring of a worker holds.
    pub ring: u32,
    /// Whether nodes seal what they say to each other.
    pub sealed: bool,
    /// Whether digests arrive. What they would mend stays to be seen where they do not.
    pub digests: bool,
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number, from 1.
    pub id: u16,
    /// Workers.
    pub workers: u8,
    /// Priority in VRRP and among adopters.
    pub priority: u8,
    /// Conns of each family that its tables have room for, over all workers.
    pub table: u32,
    /// What a frame costs each of its workers.
    pub frame_cost: Duration,
    /// Its clock is faster than the world's by so many millionths, or slower: drawn, both ends included.
    pub drift_ppm: Drawn<i32>,
    /// The version of frames between nodes that it speaks.
    pub format: u8,
    /// It is started by the timeline, not at the beginning.
    pub absent: bool,
}

/// A router between clients and nodes, with equal-cost routes to all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// Buckets of a resilient table of next hops; `None`: the flow's hash modulo the number of those that are there.
    pub buckets: Option<u32>,
    /// It finds out by itself which nodes are there: hellos at this interval, and how many in a row count. `None`: it believes
    /// in all of them.
    pub detection: Option<(Duration, u8)>,
}

/// The three networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Between clients and nodes.
    pub clients: Link,
    /// Between nodes and servers.
    pub servers: Link,
    /// Among nodes.
    pub sync: Link,
    /// One way, by name of the link ([`crate::plan()`]); of others the seed draws it.
    pub delays: BTreeMap<String, Duration>,
}

/// Each link of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// One way.
    pub delay: Drawn<Duration>,
    /// Frames lost, in millionths.
    pub loss_ppm: u32,
    /// They are lost one after the other, so many in the mean.
    pub burst: Option<u32>,
    /// Frames that come again, in millionths.
    pub duplicate_ppm: u32,
    /// Frames that later ones may overtake, in millionths.
    pub reorder_ppm: u32,
    /// Frames with a flipped bit, in millionths.
    pub corrupt_ppm: u32,
    /// Bits a second.
    pub bandwidth: u64,
    /// The largest packet; `None`: of any size.
    pub mtu: Option<u16>,
    /// The VLAN that this network is, on switches that it shares with others.
    pub vlan: Option<u16>,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            delay: Duration::from_micros(50)..=Duration::from_micros(50),
            loss_ppm: 0,
            burst: None,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            corrupt_ppm: 0,
            bandwidth: 10_000_000_000,
            mtu: None,
            vlan: None,
        }
    }
}

/// Clients and servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// The TCP of clients.
    pub clients: Tcp,
    /// The TCP of servers.
    pub servers: Tcp,
    /// One in so many connections of the flyweight has smoltcp's TCP instead.
    pub sampled: Option<u32>,
    /// When servers ask silent clients.
    pub keepalive: Option<Keepalive>,
}

/// A TCP of hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tcp {
    /// The one that this project did not write.
    #[default]
    Smoltcp,
    /// Its own, for many flows.
    Flyweight,
}

/// When a server asks a silent client, and gives it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Since the client was last heard.
    pub time: Duration,
    /// Between two questions.
    pub interval: Duration,
    /// Questions without an answer.
    pub probes: u8,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Where clients turn to.
    pub vip: SocketAddr,
    /// Protocol.
    pub proto: L4Proto,
    /// Real servers, in the VIP's family.
    pub servers: u32,
    /// It is in the nodes' configs from the beginning, not only once a fault puts it there.
    pub served: bool,
    /// Replication.
    pub replicate: Replicate,
    /// Timeout of established conns, if not the engine's.
    pub established: Option<Duration>,
}

/// What a flow does at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadEnd {
    /// FINs of both sides.
    Close,
    /// A RST of the client's.
    Reset,
    /// Nothing: the flow stays open.
    Stay,
    /// The client is gone without a word.
    Vanish,
}

/// Flows of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Name.
    pub name: String,
    /// Indices of services, in turn.
    pub services: Vec<usize>,
    /// How many, and when they start.
    pub arrival: Arrival,
    /// Requests of each flow; `None`: until the load ends.
    pub requests: Option<u32>,
    /// Bytes of a request.
    pub request_bytes: u32,
    /// Bytes of its reply.
    pub reply_bytes: u32,
    /// Time between a reply and the next request.
    pub every: Drawn<Duration>,
    /// End.
    pub end: LoadEnd,
    /// No requests from then on; `None`: until the quiet at the end.
    pub until: Option<Duration>,
    /// Time without progress after which a client gives up.
    pub give_up: Duration,
}

/// How flows come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// So many, each at a time that is drawn.
    Flows(u32, Drawn<Duration>),
    /// So many a second, at even distances with a drawn shift, from the first time on, until the load ends.
    Rate(u32, Duration),
    /// Each on its own: a plan's.
    Planned(Vec<PlannedFlow>),
}

/// A flow of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFlow {
    /// Its number in the load, which stays when others are taken out.
    pub number: u32,
    /// Index of the service.
    pub service: usize,
    /// Number of the client.
    pub client: u8,
    /// When it starts.
    pub start: Duration,
}

/// What a counter-proof takes away, and what must fail then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Off {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// Names of expectations and oracles that must fail, and no others.
    pub fails: Vec<String>,
    /// Of these names: what may fail besides, once that has.
    pub follows: Vec<String>,
    /// The scenario that it disproves, as it is written.
    pub base: String,
}

impl Scenario {
    /// The most real servers that a service ever has: the world has hosts for all of them.
    pub fn server_count_max(&self, service: usize) -> u32 {
        let first = self.services.get(service).map_or(0, |s| s.servers);
        let pushed = self.faults.iter().filter_map(|f| match f.action {
            Action::Config(_, Change::Servers(of, n)) if of == service => Some(n),
            _ => None,
        });
        pushed.fold(first, u32::max)
    }

    /// Names of what can fail: expectations, in order, then oracles.
    pub fn judges(&self) -> impl Iterator<Item = &str> {
        let oracles = crate::oracle::NAMES.iter().map(|o| o.0);
        self.expects.iter().map(|e| e.name.as_str()).chain(oracles)
    }
}
