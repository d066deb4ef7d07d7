//! What the daemon answers, as JSON. The command line reads the same types.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Counts by their names.
pub type Counts = BTreeMap<String, u64>;

/// Why nothing else is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub help: String,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Whether traffic may be sent to it, as `/ready` says.
    pub ready: bool,
    /// Why not.
    pub not_ready_because: Option<String>,
    /// It was asked to end.
    pub ending: bool,
    /// Its part in its cluster, if there is one.
    pub cluster: Option<ClusterStatus>,
    /// What is wrong at present.
    pub alarms: Vec<AlarmStatus>,
    /// Its workers.
    pub workers: Vec<WorkerStatus>,
    /// Conns of all workers that answered.
    pub conns: u64,
}

/// A node's part in its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Number of the cluster.
    pub id: u32,
    /// Name of this node.
    pub node: String,
    /// Number of this node.
    pub node_id: u16,
    /// This life of it.
    pub incarnation: u64,
    /// `joining`, `degraded` or `ready`.
    pub readiness: String,
    /// Whether it answers for addresses and takes new sessions.
    pub serving: bool,
    /// It was told to drain.
    pub draining: bool,
    /// All is handed over.
    pub drained: bool,
    /// It was promoted.
    pub promoted: bool,
    /// Whether the VIPs move by a virtual router.
    pub virtual_router: bool,
    /// The families, `ipv4` and `ipv6`, in which there is a virtual router.
    pub router_families: Vec<String>,
    /// Those of them in which it is the virtual router's master.
    pub master: Vec<String>,
    /// The addresses that it answers for.
    pub answers_for: Vec<IpAddr>,
    /// The group of new sessions.
    pub creating: Option<String>,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
}

/// Another node, as this one sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u16,
    /// Whether it is heard.
    pub up: bool,
    /// Its present life, while it is heard.
    pub incarnation: Option<u64>,
    /// `joining`, `degraded` or `ready`, as it said last.
    pub readiness: String,
    /// It wants to leave.
    pub draining: bool,
    /// Milliseconds since it was heard.
    pub heard_ms_ago: Option<u64>,
    /// Whether it hears this node.
    pub hears_this_node: bool,
    /// It is too far behind to be waited for.
    pub out_of_sync: bool,
    /// Whether this node's sessions may be handed to it.
    pub can_take_over: bool,
    /// Changes that it made and that are not here yet.
    pub behind: u64,
    /// Changes that this node made and that are not there yet.
    pub unacked: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmStatus {
    /// What kind.
    pub kind: String,
    /// In words.
    pub text: String,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Which.
    pub id: u8,
    /// Whether it answered; if not, all else but `turns` is 0.
    pub answered: bool,
    /// Turns of its loop.
    pub turns: u64,
    /// Conns in its table.
    pub conns: u64,
    /// Conns that its table holds at most, of IPv4 alone and of all others.
    pub capacity: [u64; 2],
    /// Frames handed in.
    pub rx_packets: u64,
    /// Frames to be sent.
    pub tx_packets: u64,
    /// Frames dropped.
    pub dropped: u64,
}

/// `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// By their ids.
    pub services: Vec<Service>,
    /// Whether conns were counted; all of them.
    pub counted: bool,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address and port of clients.
    pub vip: String,
    /// `rr` or `wrr`.
    pub scheduler: String,
    /// `off`, `established`, `synack` or `deferred(1, 5ms, open)`, as in the config.
    pub replicate: String,
    /// Its conns, if they were counted.
    pub conns: Option<u64>,
    /// Its servers.
    pub servers: Vec<Server>,
}

/// A real server of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Address and port.
    pub address: String,
    /// Weight that workers deal by; 0: it gets no new conns.
    pub weight: u16,
    /// Whether its checks find it up; `true` without checks.
    pub up: bool,
    /// Why its last check could not be made; `up` is what was known before.
    pub not_checked_because: Option<String>,
    /// Whether there is a route and a neighbour on the way to it.
    pub reachable: bool,
    /// Its conns, if they were counted.
    pub conns: Option<u64>,
}

/// `GET /v1/conns`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conns {
    /// What was found.
    pub conns: Vec<Conn>,
    /// Where to go on; `None`: there are no more.
    pub next: Option<String>,
    /// Conns that were looked at.
    pub looked_at: u64,
}

/// A conn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conn {
    /// Worker that has it.
    pub worker: u8,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The client's end.
    pub client: String,
    /// The end that the client uses.
    pub vip: String,
    /// The end that the real server sees.
    pub local: String,
    /// The real server's end.
    pub server: String,
    /// Name of the service; empty if there is none any more.
    pub service: String,
    /// State, by the names of LVS.
    pub state: String,
    /// Milliseconds until it expires without another packet.
    pub expires_ms: u64,
    /// Its traffic group, if it is replicated: name of the node and generation.
    pub group: Option<String>,
}

/// `GET /v1/replication`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replication {
    /// Whether there is a cluster at all.
    pub cluster: bool,
    /// `joining`, `degraded` or `ready`.
    pub readiness: String,
    /// Milliseconds for which this node is certain to hold its groups; `None`: it is not.
    pub lease_ms: Option<u64>,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// Groups that are known here.
    pub groups: Vec<Group>,
    /// What workers counted of replication.
    pub counters: Counts,
}

/// A traffic group: the sessions that one node created in one generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Node and generation.
    pub id: String,
    /// Name of the node that created it.
    pub home: String,
    /// What this node is to it: `replica`, `orphan`, `adopting`, `owned`, `suspect`, `fenced` or `draining`.
    pub role: String,
    /// Name of the node that holds it.
    pub holder: String,
    /// How often it changed hands, and one more.
    pub term: u64,
    /// Sessions of it here.
    pub sessions: u64,
    /// Slots that are being copied.
    pub slots_outstanding: u64,
    /// Slots of which something is missing here.
    pub slots_lacking: u64,
}

/// `GET /v1/stats`: all that is counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// By worker.
    pub workers: Vec<WorkerStats>,
    /// Of frames between nodes on their way.
    pub transport: Counts,
    /// Of frames of other nodes that were read.
    pub receiver: Counts,
    /// Of the node's part in its cluster.
    pub node: Counts,
    /// Health checks, by what came of them, and those that began late.
    pub health: Counts,
    /// Why the last health check that could not be made could not.
    pub health_not_made_because: Option<String>,
    /// Connections to this socket and to `/metrics` that were closed, or answered 503, for want of room.
    pub admin: Counts,
    /// By data port.
    pub ports: Vec<PortStats>,
    /// Frame buffers in use, by pool, where the driver has pools.
    pub buffers: Counts,
    /// Lines of the log that were left out.
    pub log_suppressed: u64,
    /// Lines of the log that were lost, as nobody read them.
    pub log_dropped: u64,
}

/// What a worker counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Which.
    pub id: u8,
    /// Whether it answered; if not, only `lane` and `turns` say something.
    pub answered: bool,
    /// Turns of its loop.
    pub turns: u64,
    /// Packets, bytes, conns.
    pub counters: Counts,
    /// Drops, by reason.
    pub drops: Counts,
    /// Conns at present, by state.
    pub states: Counts,
    /// What of its table is in use, and frames that wait for neighbours, at present.
    pub table: Counts,
    /// Replication.
    pub sync: Counts,
    /// Rings between it and the control side.
    pub lane: Counts,
    /// Its packet I/O.
    pub io: Counts,
}

/// What is known of a data port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortStats {
    /// Its name in the config.
    pub name: String,
    /// Whether it has a link.
    pub up: bool,
    /// What the driver counted, where it counts: frames, and frames of the kernel's side.
    pub driver: Counts,
}

/// `POST /v1/drain`, `undrain`, `promote` and `demote`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What was begun, in words.
    pub done: String,
}
