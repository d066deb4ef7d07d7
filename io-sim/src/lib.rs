//! The discrete-event world of the simulator: a cluster of load balancers, its clients, its servers and the
//! network between them, in one thread and on an integer clock.
//!
//! [`World`] owns everything. A caller puts switches, hosts and load balancers into it, connects them, opens
//! flows, and lets time pass with [`World::run_until`]; between two calls it may look at anything and break
//! anything (links, nodes). What happened is told by [`FlowRecord`]s, counters, [`Tap`]s and the digest.
//!
//! One packet goes this way: `host` (a TCP under an application that verifies every byte, over a neighbour cache of
//! our own; the TCP is smoltcp's, the oracle that we did not write, or `fly`, ours for many flows) gives a frame to a
//! `link`, which delays, loses or copies it; a `switch` learns and forwards; a `router`, where there is one, sends it to
//! one of the next hops that are there; `lb` filters it as a NIC does, puts it into the ring of the worker to which
//! software RSS brings it, and lets that worker take it with the `step` of every backend.
//!
//! Nothing here reads a clock, starts a thread or depends on the order of a hash table. Randomness comes from
//! [`Streams`], keyed by who draws, for what and how often before: a draw more in one place changes nothing
//! elsewhere. Same seed and same calls: same digest.

mod account;
mod actor;
mod bounds;
mod chance;
mod faults;
mod flow;
mod frames;
mod host;
mod ids;
mod lb;
pub mod lease;
mod link;
mod observe;
mod pcap;
mod queue;
mod random;
mod router;
mod switch;
mod trail;
mod world;

pub use account::{Account, AccountOf};
pub use actor::{Actor, ActorCounters, Datagrams};
pub use bounds::{Exceeded, WorldBounds};
pub use evenkeel_core::time::Instant;
pub use faults::{Burst, Faults};
pub use flow::{BrokenWhy, FlowEnd, FlowRecord, FlowSpec, FlowState};
pub use host::{HostCounters, HostSpec, Keepalive, ServerSpec, TcpProfile, Tier};
pub use ids::{ActorId, End, FlowId, HostId, LbId, LbPort, LinkId, Owner, Place, RouterId, SwitchId};
pub use lb::{
    DRIFT_PPM_MAX, LbCluster, LbCost, LbCounters, LbQueues, LbRef, LbRings, LbSpec, LbState, LbSyncCounters,
    SLOWNESS_MAX, WorkerCounters,
};
pub use link::{LinkCounters, LinkSpec, Ppm};
pub use observe::{Direction, Filter, Meter, Part, SharedMeter, Tap, Trace, TraceTap};
pub use pcap::{FILE_COUNT_MAX, PcapTap};
pub use queue::{QueueKind, floor};
pub use random::{Purpose, Streams};
pub use router::{Detection, Ecmp, EcmpSpec, RouterCounters, RouterPortSpec, RouterSpec};
pub use switch::{SwitchCounters, SwitchSpec, VLAN_RANGE, Vlan};
pub use trail::{RECORD_COUNT_MAX, Recorded, Trail, TrailSpec};
pub use world::{ENTITY_COUNT_MAX, FLOW_COUNT_MAX, World, WorldCounters, WorldError, WorldSpec};
