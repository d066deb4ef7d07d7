//! What a node is told of its cluster, once, at its start.

use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use super::{NODE_COUNT_MAX, NodeId};
use crate::port::PortId;
use crate::wire::MacAddr;

/// Local addresses of one member at most.
pub const LOCAL_ADDR_COUNT_MAX: usize = 64;
/// Virtual addresses of one family at most: what one VRRP advertisement over Ethernet holds with room to spare.
pub const VIRTUAL_ADDR_COUNT_MAX: usize = 64;
/// Ports on which local addresses are announced, at most.
pub const ANNOUNCE_PORT_COUNT_MAX: usize = 16;
/// The shortest and the longest interval between heartbeats.
pub const HEARTBEAT_RANGE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
/// The longest join time.
pub const JOIN_TIME_MAX: Duration = Duration::from_secs(600);

/// A cluster, as one of its nodes sees it. Plain data: [`ClusterConfig::check`] says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Number of the cluster: frames of another one are not ours.
    pub cluster: u32,
    /// Which of the members this node is.
    pub id: NodeId,
    /// All nodes, this one included.
    pub members: Vec<Member>,
    /// Interval between heartbeats.
    pub heartbeat: Duration,
    /// A peer is silent after this many intervals, and a part of one that shrinks with the own priority.
    pub down_count: u32,
    /// So long before the others may think this node dead it is uncertain of its leases itself.
    pub lease_margin: Duration,
    /// So long a node that starts looks for others before it serves with what it has.
    pub join_time: Duration,
    /// Where local addresses that are taken over are announced, and the link-layer address of each interface.
    pub announce: Vec<(PortId, MacAddr)>,
    /// Who answers for the virtual addresses of an active/backup cluster.
    pub vrrp: Option<VrrpSettings>,
    /// Virtual addresses that every node that serves answers for: equal-cost routes lead to each of them.
    pub shared_addrs: Vec<IpAddr>,
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Number, unique in its cluster, not 0.
    pub id: NodeId,
    /// 1 to 254: the higher one is preferred as master and as adopter, the higher number among equals.
    pub priority: u8,
    /// Its share: the local addresses on which it allocates, and nobody else. A change of their order is another
    /// share.
    pub local_addrs: Vec<IpAddr>,
    /// From where its VRRP advertisements come; by them it is heard when the sync network fails.
    pub vrrp_sources: Vec<IpAddr>,
}

/// A virtual router (RFC 9568), of one or both families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpSettings {
    /// Number of the virtual router on its link, not 0.
    pub vrid: u8,
    /// Interval between advertisements, in centiseconds, 1 to 4095.
    pub interval_cs: u16,
    /// Whether a ready node takes over from a master with a lower priority.
    pub preempt: bool,
    /// Interface.
    pub port: PortId,
    /// Its link-layer address.
    pub mac: MacAddr,
    /// Own address on it, the source of IPv4 advertisements; `None`: no IPv4.
    pub source_v4: Option<Ipv4Addr>,
    /// Own link-local address on it, the source of IPv6 advertisements; `None`: no IPv6.
    pub source_v6: Option<Ipv6Addr>,
    /// IPv4 addresses that the master answers for; none without a source, at least one with it.
    pub virtual_v4: Vec<Ipv4Addr>,
    /// IPv6 addresses that the master answers for, as `virtual_v4`. The first one is to be link-local by the
    /// RFC (5.2.9); that is left to the site.
    pub virtual_v6: Vec<Ipv6Addr>,
}

/// Something wrong with a [`ClusterConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClusterConfigError {
    /// No member has the own number.
    NotAMember(NodeId),
    /// More than [`NODE_COUNT_MAX`] members.
    TooManyMembers(usize),
    /// A member has number 0.
    ZeroId,
    /// Two members have the same number.
    SameId(NodeId),
    /// A priority is not in 1..=254.
    Priority(NodeId, u8),
    /// A member has more than [`LOCAL_ADDR_COUNT_MAX`] local addresses.
    TooManyLocalAddrs(NodeId, usize),
    /// A local address is in two shares, or twice in one.
    SharedAddr(IpAddr),
    /// A local address is no unicast address.
    NotUnicast(IpAddr),
    /// Two members send VRRP from the same address.
    SharedVrrpSource(IpAddr),
    /// The interval between heartbeats is not in [`HEARTBEAT_RANGE`].
    Heartbeat(Duration),
    /// `down_count` is not in 2..=100.
    DownCount(u32),
    /// The margin leaves no lease: it is not below `down_count - 1` heartbeats.
    LeaseMargin(Duration),
    /// The join time is below the time after which a peer counts as silent, or above [`JOIN_TIME_MAX`].
    JoinTime(Duration),
    /// More than [`ANNOUNCE_PORT_COUNT_MAX`] ports.
    TooManyPorts(usize),
    /// The virtual router has number 0.
    ZeroVrid,
    /// The interval between advertisements is not in 1..=4095 centiseconds.
    VrrpInterval(u16),
    /// Neither IPv4 nor IPv6 has a source.
    VrrpWithoutSource,
    /// A family has virtual addresses and no source, or a source and no virtual address, or too many of them.
    VrrpAddrs,
    /// More than [`VIRTUAL_ADDR_COUNT_MAX`] shared virtual addresses.
    TooManySharedAddrs(usize),
    /// A virtual address is in a share too, or listed twice.
    SharedVirtualAddr(IpAddr),
    /// The VRRP state machine refuses what the checks above let pass.
    VrrpRefused,
    /// A node without workers.
    NoWorkers,
    /// The incarnation is 0.
    ZeroIncarnation,
}

impl fmt::Display for ClusterConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ClusterConfigError::*;
        match self {
            NotAMember(id) => write!(
                f,
                "{id} is not among the members: add it, or correct the own number"
            ),
            TooManyMembers(n) => write!(f, "{n} members, and {NODE_COUNT_MAX} are the most"),
            ZeroId => write!(f, "a member has number 0; numbers begin at 1"),
            SameId(id) => write!(f, "{id} is listed twice: give each member its own number"),
            Priority(id, p) => write!(f, "{id} has priority {p}; choose one in 1..=254"),
            TooManyLocalAddrs(id, n) => {
                write!(
                    f,
                    "{id} has {n} local addresses, and {LOCAL_ADDR_COUNT_MAX} are the most"
                )
            }
            SharedAddr(a) => write!(
                f,
                "local address {a} is listed twice: each belongs to one member's share"
            ),
            NotUnicast(a) => write!(f, "{a} cannot be a node's address: it is no unicast address"),
            SharedVrrpSource(a) => write!(f, "{a} is the VRRP source of two members"),
            Heartbeat(d) => write!(
                f,
                "heartbeats every {d:?}; choose {:?} to {:?}",
                HEARTBEAT_RANGE.0, HEARTBEAT_RANGE.1
            ),
            DownCount(n) => write!(f, "a peer that is silent after {n} heartbeats; choose 2 to 100"),
            LeaseMargin(d) => write!(
                f,
                "a margin of {d:?} leaves no lease: choose less than down_count - 1 heartbeats"
            ),
            JoinTime(d) => write!(
                f,
                "a join time of {d:?}; choose one above the time of silence and at most {JOIN_TIME_MAX:?}"
            ),
            TooManyPorts(n) => write!(
                f,
                "{n} ports to announce local addresses on, and {ANNOUNCE_PORT_COUNT_MAX} are the most"
            ),
            ZeroVrid => write!(f, "virtual router 0; choose one in 1..=255"),
            VrrpInterval(cs) => write!(f, "advertisements every {cs} centiseconds; choose 1 to 4095"),
            VrrpWithoutSource => write!(f, "the virtual router has neither an IPv4 nor an IPv6 source"),
            VrrpAddrs => write!(
                f,
                "each family of the virtual router wants a source and 1 to {VIRTUAL_ADDR_COUNT_MAX} virtual addresses, or neither"
            ),
            TooManySharedAddrs(n) => write!(
                f,
                "{n} shared virtual addresses, and {VIRTUAL_ADDR_COUNT_MAX} are the most"
            ),
            SharedVirtualAddr(a) => write!(f, "virtual address {a} is listed twice, or in a share too"),
            VrrpRefused => write!(f, "the virtual router cannot be made"),
            NoWorkers => write!(f, "a node without workers"),
            ZeroIncarnation => write!(f, "incarnation 0; incarnations begin at 1"),
        }
    }
}

impl ClusterConfig {
    /// Everything that is wrong, sorted, each once.
    pub fn check(&self) -> Result<(), Vec<ClusterConfigError>> {
        use ClusterConfigError as E;
        let mut errors = Vec::new();
        if self.members.len() > NODE_COUNT_MAX {
            errors.push(E::TooManyMembers(self.members.len()));
        }
        if self.member(self.id).is_none() {
            errors.push(E::NotAMember(self.id));
        }
        for m in &self.members {
            if m.id.0 == 0 {
                errors.push(E::ZeroId);
            }
            if !(1..=254).contains(&m.priority) {
                errors.push(E::Priority(m.id, m.priority));
            }
            if m.local_addrs.len() > LOCAL_ADDR_COUNT_MAX {
                errors.push(E::TooManyLocalAddrs(m.id, m.local_addrs.len()));
            }
            let addrs = m.local_addrs.iter().chain(&m.vrrp_sources);
            errors.extend(
                addrs
                    .filter(|&&a| !crate::service::is_unicast(a))
                    .map(|&a| E::NotUnicast(a)),
            );
        }
        errors.extend(
            twice(self.members.iter().map(|m| m.id))
                .into_iter()
                .map(E::SameId),
        );
        let shares = || self.members.iter().flat_map(|m| m.local_addrs.iter().copied());
        errors.extend(twice(shares()).into_iter().map(E::SharedAddr));
        let sources = self.members.iter().flat_map(|m| m.vrrp_sources.iter().copied());
        errors.extend(twice(sources).into_iter().map(E::SharedVrrpSource));
        self.check_times(&mut errors);
        if self.announce.len() > ANNOUNCE_PORT_COUNT_MAX {
            errors.push(E::TooManyPorts(self.announce.len()));
        }
        if self.shared_addrs.len() > VIRTUAL_ADDR_COUNT_MAX {
            errors.push(E::TooManySharedAddrs(self.shared_addrs.len()));
        }
        let mut addrs: Vec<IpAddr> = shares().collect();
        addrs.sort_unstable();
        addrs.dedup();
        addrs.extend(&self.shared_addrs);
        if let Some(vrrp) = &self.vrrp {
            vrrp.check(&mut errors);
            addrs.extend(vrrp.virtual_addrs());
        }
        errors.extend(twice(addrs.into_iter()).into_iter().map(E::SharedVirtualAddr));
        errors.sort_unstable();
        errors.dedup();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn check_times(&self, errors: &mut Vec<ClusterConfigError>) {
        use ClusterConfigError as E;
        if !(HEARTBEAT_RANGE.0..=HEARTBEAT_RANGE.1).contains(&self.heartbeat) {
            errors.push(E::Heartbeat(self.heartbeat));
            return;
        }
        if !(2..=100).contains(&self.down_count) {
            errors.push(E::DownCount(self.down_count));
            return;
        }
        if self.lease_margin >= self.heartbeat * (self.down_count - 1) {
            errors.push(E::LeaseMargin(self.lease_margin));
        }
        let longest = self.heartbeat * (self.down_count + 1);
        if self.join_time < longest || self.join_time > JOIN_TIME_MAX {
            errors.push(E::JoinTime(self.join_time));
        }
    }

    /// The member with this number.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|m| m.id == id)
    }

    /// After so much silence this node thinks a peer dead (as RFC 9568, 6.1: a node with a higher priority is
    /// earlier, so that mostly one adopts).
    pub fn down_time(&self) -> Duration {
        let priority = self.member(self.id).map_or(1, |m| m.priority);
        self.heartbeat * self.down_count + self.heartbeat * u32::from(u8::MAX - priority) / 256
    }

    /// After so much silence of a virtual router's master it is dead (Active_Down_Interval of RFC 9568, 6.1).
    pub fn vrrp_down_time(&self) -> Duration {
        let interval = self.vrrp.as_ref().map_or(0, |v| u64::from(v.interval_cs));
        let interval = Duration::from_millis(interval * 10);
        let priority = self.member(self.id).map_or(1, |m| m.priority);
        interval * 3 + interval * u32::from(u8::MAX - priority) / 256
    }

    /// So long after a heartbeat was sent no node can think the sender dead, less the margin.
    pub fn lease_time(&self) -> Duration {
        (self.heartbeat * self.down_count).saturating_sub(self.lease_margin)
    }

    /// Digest of the map of shares, by which all nodes must agree; the order of members does not count. FNV-1a
    /// over 64 bits: a slip shows, an attacker is not its business.
    pub fn share_digest(&self) -> u64 {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by_key(|m| m.id);
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut eat = |bytes: &[u8]| {
            for b in bytes {
                hash = (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        eat(&self.cluster.to_le_bytes());
        for m in members {
            eat(&m.id.0.to_le_bytes());
            eat(&(m.local_addrs.len() as u32).to_le_bytes());
            for addr in &m.local_addrs {
                match addr {
                    IpAddr::V4(a) => {
                        eat(&[4]);
                        eat(&a.octets());
                    }
                    IpAddr::V6(a) => {
                        eat(&[6]);
                        eat(&a.octets());
                    }
                }
            }
        }
        hash
    }
}

impl VrrpSettings {
    /// All virtual addresses.
    pub fn virtual_addrs(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let v4 = self.virtual_v4.iter().map(|&a| IpAddr::V4(a));
        v4.chain(self.virtual_v6.iter().map(|&a| IpAddr::V6(a)))
    }

    /// How long before a backup may take over a master is no longer certain: half of an interval.
    pub(super) fn lease_margin(&self) -> Duration {
        Duration::from_millis(u64::from(self.interval_cs) * 5)
    }

    fn check(&self, errors: &mut Vec<ClusterConfigError>) {
        use ClusterConfigError as E;
        if self.vrid == 0 {
            errors.push(E::ZeroVrid);
        }
        if !(1..=4095).contains(&self.interval_cs) {
            errors.push(E::VrrpInterval(self.interval_cs));
        }
        if self.source_v4.is_none() && self.source_v6.is_none() {
            errors.push(E::VrrpWithoutSource);
        }
        let fits = |source: bool, n: usize| {
            (source && (1..=VIRTUAL_ADDR_COUNT_MAX).contains(&n)) || (!source && n == 0)
        };
        if !fits(self.source_v4.is_some(), self.virtual_v4.len())
            || !fits(self.source_v6.is_some(), self.virtual_v6.len())
        {
            errors.push(E::VrrpAddrs);
        }
        let sources = self.source_v4.map(IpAddr::V4).into_iter();
        let sources = sources.chain(self.source_v6.map(IpAddr::V6));
        errors.extend(
            self.virtual_addrs()
                .chain(sources)
                .filter(|&a| !crate::service::is_unicast(a))
                .map(E::NotUnicast),
        );
    }
}

/// What comes more than once, each once.
fn twice<T: Ord + Copy>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    let mut found: Vec<T> = all.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;
    use core::fmt::Write;

    fn member(id: u16, priority: u8, lip: [u8; 4]) -> Member {
        Member {
            id: NodeId(id),
            priority,
            local_addrs: vec![IpAddr::from(lip)],
            vrrp_sources: vec![IpAddr::from([192, 0, 2, id as u8])],
        }
    }

    fn good() -> ClusterConfig {
        ClusterConfig {
            cluster: 1,
            id: NodeId(1),
            members: vec![member(1, 200, [10, 0, 0, 1]), member(2, 100, [10, 0, 0, 2])],
            heartbeat: Duration::from_millis(100),
            down_count: 3,
            lease_margin: Duration::from_millis(50),
            join_time: Duration::from_secs(1),
            announce: vec![(PortId(0), MacAddr([2, 0, 0, 0, 0, 1]))],
            vrrp: Some(VrrpSettings {
                vrid: 7,
                interval_cs: 10,
                preempt: true,
                port: PortId(0),
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                source_v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
                source_v6: None,
                virtual_v4: vec![Ipv4Addr::new(198, 51, 100, 1)],
                virtual_v6: vec![],
            }),
            shared_addrs: vec![],
        }
    }

    #[test]
    fn a_right_one_passes_and_its_times_follow_the_priority() {
        let mut c = good();
        assert_eq!(c.check(), Ok(()));
        assert_eq!(c.lease_time(), Duration::from_millis(250));
        let early = c.down_time();
        c.id = NodeId(2);
        assert!(c.down_time() > early && early >= Duration::from_millis(300));
        assert!(c.down_time() < Duration::from_millis(400));
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let mut c = good();
        c.id = NodeId(9);
        c.members[0].priority = 0;
        c.members[1].local_addrs = vec![
            IpAddr::from([10, 0, 0, 1]),
            IpAddr::from([224, 0, 0, 1]),
            IpAddr::from([198, 51, 100, 1]),
        ];
        c.members.push(member(2, 255, [10, 0, 0, 3]));
        c.members.push(member(0, 7, [10, 0, 0, 4]));
        c.heartbeat = Duration::from_millis(1);
        c.announce = vec![(PortId(0), MacAddr::ZERO); 17];
        let v = c.vrrp.as_mut().expect("it has one");
        v.vrid = 0;
        v.interval_cs = 4096;
        v.virtual_v6 = vec![Ipv6Addr::LOCALHOST];
        let mut page = String::new();
        for e in c.check().expect_err("it is wrong") {
            writeln!(page, "{e}").expect("a string grows");
        }
        insta::assert_snapshot!(page);
    }

    #[test]
    fn the_digest_sees_a_moved_address_and_no_order_of_members() {
        let c = good();
        let mut turned = c.clone();
        turned.members.reverse();
        turned.id = NodeId(2);
        assert_eq!(c.share_digest(), turned.share_digest());
        let mut moved = c.clone();
        let addr = moved.members[0].local_addrs.pop().expect("one");
        moved.members[1].local_addrs.push(addr);
        assert_ne!(c.share_digest(), moved.share_digest());
    }
}
