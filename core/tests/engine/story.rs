//! The lab in which packet stories play: a node between clients and real servers. A story says what came
//! in, what must go out and which counters move; [`Lab::check`] proves all of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use evenkeel_core::conn::{ConnView, HeapMemory, TableSizes};
use evenkeel_core::hash::MICROSOFT_KEY;
use evenkeel_core::lport::Steering;
use evenkeel_core::port::{Frame, HEADROOM, HandoffTag, HeapFrame, PortId, RxChecksum, WorkerId};
use evenkeel_core::proto::{ConnState, Timeouts};
use evenkeel_core::sched::SchedulerKind;
use evenkeel_core::service::{
    FwdMode, NeighbourSpec, PortSpec, RealServerId, Replicate, RouteSpec, ServerSpec, ServiceId, ServiceSpec,
    Snapshot, SnapshotSpec,
};
use evenkeel_core::stats::{Counters, DropReason};
use evenkeel_core::sync::ClusterWorkerConfig;
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::{L4Proto, Tuple};
use evenkeel_core::wire::MacAddr;
use evenkeel_core::worker::{BucketMap, Command, HoldConfig, Verdict, Verdicts, Worker, WorkerConfig};

use crate::packet::{ACK, Body, Mac, Packet, SYN, Tcp, read};

/// Link-layer addresses of our two interfaces: 0 towards clients, 1 towards real servers.
pub(crate) const PORT_MACS: [Mac; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// The router behind which clients are.
pub(crate) const CLIENT_GATEWAY: Mac = [2, 0, 0, 0, 1, 0xfe];
/// The router behind which the third real server of each family is.
pub(crate) const SERVER_GATEWAY: Mac = [2, 0, 0, 0, 2, 0xfe];

pub(crate) const VIP_V4: &str = "198.51.100.1";
pub(crate) const VIP_V6: &str = "2001:db8:1::1";
pub(crate) const LIP_V4: &str = "10.0.2.1";
pub(crate) const LIP_V6: &str = "fd00::2:1";
pub(crate) const PORT_V4: [&str; 2] = ["192.0.2.1", "10.0.0.1"];
pub(crate) const PORT_V6: [&str; 2] = ["2001:db8::1", "fd00::1"];
/// A host on the link of interface 0.
pub(crate) const HOST_V4: &str = "192.0.2.77";
pub(crate) const HOST_V6: &str = "2001:db8::77";
pub(crate) const HOST_MAC: Mac = [2, 0, 0, 0, 1, 77];

pub(crate) const TCP_PORT: u16 = 80;
pub(crate) const UDP_PORT: u16 = 53;
/// TCP at the IPv4 VIP: weights 4, 2, 1 and 0.
pub(crate) const WRR: (u16, ServiceId) = (81, ServiceId(8));
/// TCP at both VIPs: every weight is 0.
pub(crate) const NO_SERVER: (u16, [ServiceId; 2]) = (82, [ServiceId(9), ServiceId(10)]);
/// TCP at both VIPs: a server that no route leads to.
pub(crate) const NO_ROUTE: (u16, [ServiceId; 2]) = (83, [ServiceId(11), ServiceId(12)]);
/// TCP at both VIPs: a server on the link that no neighbour entry knows.
pub(crate) const NO_NEIGHBOUR: (u16, [ServiceId; 2]) = (84, [ServiceId(13), ServiceId(14)]);
/// TCP at both VIPs: a server behind a gateway that no neighbour entry knows.
pub(crate) const NO_GATEWAY: (u16, [ServiceId; 2]) = (85, [ServiceId(15), ServiceId(16)]);

pub(crate) fn ip(s: &str) -> IpAddr {
    s.parse().expect("an address")
}

pub(crate) fn at(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(addr), port)
}

/// Families of the client's and the real server's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    V4,
    V6,
    Nat64,
    Nat46,
}

pub(crate) const KINDS: [Kind; 4] = [Kind::V4, Kind::V6, Kind::Nat64, Kind::Nat46];
pub(crate) const PROTOS: [L4Proto; 2] = [L4Proto::Tcp, L4Proto::Udp];

/// Every kind with both protocols.
pub(crate) fn kinds_and_protos() -> impl Iterator<Item = (Kind, L4Proto)> {
    KINDS.into_iter().flat_map(|k| PROTOS.map(|p| (k, p)))
}

impl Kind {
    pub(crate) fn clients_are_v4(self) -> bool {
        matches!(self, Kind::V4 | Kind::Nat46)
    }

    pub(crate) fn servers_are_v4(self) -> bool {
        matches!(self, Kind::V4 | Kind::Nat64)
    }

    pub(crate) fn service(self, proto: L4Proto) -> ServiceId {
        ServiceId(2 * self as u16 + u16::from(proto == L4Proto::Udp))
    }

    pub(crate) fn vip(self, proto: L4Proto) -> SocketAddr {
        let addr = match self {
            Kind::V4 => VIP_V4,
            Kind::V6 => VIP_V6,
            Kind::Nat64 => "2001:db8:1::64",
            Kind::Nat46 => "198.51.100.46",
        };
        at(
            addr,
            match proto {
                L4Proto::Tcp => TCP_PORT,
                L4Proto::Udp => UDP_PORT,
            },
        )
    }

    /// A client behind the gateway, another end for every `n` below ten million.
    pub(crate) fn client(self, n: u32) -> SocketAddr {
        let (host, port) = (1 + n % 200, 10_000 + (n / 200) as u16);
        if self.clients_are_v4() {
            at(&format!("203.0.113.{host}"), port)
        } else {
            at(&format!("2001:db8:c::{host:x}"), port)
        }
    }
}

/// Where a frame to `addr` goes: interface and link-layer address. The lab's own table, not the engine's.
pub(crate) fn hop(addr: IpAddr) -> (u16, Mac) {
    let text = addr.to_string();
    if text.starts_with("203.0.113.") || text.starts_with("2001:db8:c:") {
        (0, CLIENT_GATEWAY)
    } else if text == HOST_V4 || text == HOST_V6 {
        (0, HOST_MAC)
    } else if text.starts_with("10.9.") || text.starts_with("fd09:") {
        (1, SERVER_GATEWAY)
    } else {
        let last = match addr {
            IpAddr::V4(a) => a.octets()[3],
            IpAddr::V6(a) => a.octets()[15],
        };
        (1, [2, 0, 0, 0, 2, last])
    }
}

/// Real server `n` (1 to 4) of a family.
pub(crate) fn server_addr(v4: bool, n: u16) -> IpAddr {
    ip(&match (v4, n) {
        (true, 3) => "10.9.0.3".into(),
        (true, _) => format!("10.0.1.{n}"),
        (false, 3) => "fd09::3".into(),
        (false, _) => format!("fd00::1:{n}"),
    })
}

fn service(id: ServiceId, proto: L4Proto, vip: SocketAddr, v4: bool, weights: &[u16]) -> ServiceSpec {
    let servers = (1u16..).zip(weights).map(|(n, &weight)| ServerSpec {
        id: RealServerId(id.0 * 8 + n),
        addr: server_addr(v4, n),
        port: 8000 + vip.port(),
        weight,
    });
    let locals = (1..=2).map(|n| {
        ip(&if v4 {
            format!("10.0.2.{n}")
        } else {
            format!("fd00::2:{n}")
        })
    });
    ServiceSpec {
        id,
        name: format!("service-{}", id.0),
        proto,
        vip: vip.ip(),
        port: vip.port(),
        scheduler: SchedulerKind::RoundRobin,
        mode: FwdMode::FullNat,
        local_addrs: locals.collect(),
        timeouts: Timeouts::default(),
        replicate: Replicate::default(),
        servers: servers.collect(),
    }
}

/// What the node of the stories serves.
pub(crate) fn spec() -> SnapshotSpec {
    let ports = [0, 1].map(|i: usize| PortSpec {
        name: format!("port{i}"),
        mac: MacAddr(PORT_MACS[i]),
        addresses: vec![(ip(PORT_V4[i]), [24, 16][i]), (ip(PORT_V6[i]), 64)],
        mtu: None,
    });
    let mut services: Vec<_> = kinds_and_protos()
        .map(|(k, p)| service(k.service(p), p, k.vip(p), k.servers_are_v4(), &[1, 1, 1]))
        .collect();
    let mut wrr = service(WRR.1, L4Proto::Tcp, at(VIP_V4, WRR.0), true, &[4, 2, 1, 0]);
    wrr.scheduler = SchedulerKind::WeightedRoundRobin;
    services.push(wrr);
    for (i, vip) in [VIP_V4, VIP_V6].into_iter().enumerate() {
        let v4 = i == 0;
        let tcp = L4Proto::Tcp;
        services.push(service(NO_SERVER.1[i], tcp, at(vip, NO_SERVER.0), v4, &[0, 0]));
        for ((port, ids), addr) in [
            (NO_ROUTE, ["172.16.0.1", "fc00::1"][i]),
            (NO_NEIGHBOUR, ["10.0.1.99", "fd00::1:99"][i]),
            (NO_GATEWAY, ["10.8.0.1", "fd08::1"][i]),
        ] {
            let mut s = service(ids[i], tcp, at(vip, port), v4, &[1]);
            s.servers[0].addr = ip(addr);
            services.push(s);
        }
    }
    let route = |prefix, len, via, port| RouteSpec {
        prefix: ip(prefix),
        len,
        via: Some(ip(via)),
        port: PortId(port),
    };
    let neighbour = |addr: IpAddr, port, mac| NeighbourSpec {
        addr,
        mac: MacAddr(mac),
        port: PortId(port),
    };
    let mut neighbours = vec![
        neighbour(ip("192.0.2.254"), 0, CLIENT_GATEWAY),
        neighbour(ip("2001:db8::fe"), 0, CLIENT_GATEWAY),
        neighbour(ip(HOST_V4), 0, HOST_MAC),
        neighbour(ip(HOST_V6), 0, HOST_MAC),
        neighbour(ip("10.0.0.254"), 1, SERVER_GATEWAY),
        neighbour(ip("fd00::fe"), 1, SERVER_GATEWAY),
    ];
    for n in [1, 2, 4] {
        for v4 in [true, false] {
            let addr = server_addr(v4, n);
            neighbours.push(neighbour(addr, 1, hop(addr).1));
        }
    }
    SnapshotSpec {
        peer_local_addrs: Vec::new(),
        ports: ports.into(),
        services,
        routes: vec![
            route("203.0.113.0", 24, "192.0.2.254", 0),
            route("2001:db8:c::", 48, "2001:db8::fe", 0),
            route("10.9.0.0", 16, "10.0.0.254", 1),
            route("fd09::", 16, "fd00::fe", 1),
            route("10.8.0.0", 16, "10.0.0.253", 1),
            route("fd08::", 16, "fd00::fd", 1),
        ],
        neighbours,
    }
}

pub(crate) fn snapshot(spec: &SnapshotSpec) -> Arc<Snapshot> {
    Arc::new(Snapshot::new(spec).expect("a good spec"))
}

/// Steering with Microsoft's key; the default one is made once.
pub(crate) fn steering(buckets: u16) -> Arc<Steering> {
    static DEFAULT: LazyLock<Arc<Steering>> =
        LazyLock::new(|| Arc::new(Steering::new(&MICROSOFT_KEY, 64).expect("full rank")));
    if buckets == 64 {
        DEFAULT.clone()
    } else {
        Arc::new(Steering::new(&MICROSOFT_KEY, buckets).expect("full rank"))
    }
}

/// What a lab is made with.
pub(crate) struct LabConfig {
    pub(crate) spec: SnapshotSpec,
    pub(crate) workers: u16,
    pub(crate) buckets: u16,
    pub(crate) sizes: TableSizes,
    pub(crate) seed: u64,
    pub(crate) local_port_min: u16,
    pub(crate) hold: Option<HoldConfig>,
    pub(crate) cluster: Option<ClusterWorkerConfig>,
}

/// A packet of a frame type that stories look at.
pub(crate) trait Whole: Frame {
    /// All bytes, those of later segments too.
    fn whole(&self) -> Vec<u8>;
}

impl Whole for HeapFrame {
    fn whole(&self) -> Vec<u8> {
        self.data().to_vec()
    }
}

/// A frame in two segments: a contiguous head of 192 bytes at most, and a tail.
pub(crate) struct Segments {
    pub(crate) headroom: usize,
    /// Whether it computes transport checksums, as a NIC does.
    pub(crate) offload: bool,
    head: Vec<u8>,
    tail: Vec<u8>,
    ingress: PortId,
}

impl Segments {
    /// A frame of which `head` bytes are contiguous.
    pub(crate) fn new(port: u16, bytes: &[u8], head: usize) -> Self {
        let (head, tail) = bytes.split_at(head.min(bytes.len()));
        Segments {
            headroom: HEADROOM,
            offload: false,
            head: head.to_vec(),
            tail: tail.to_vec(),
            ingress: PortId(port),
        }
    }
}

impl Frame for Segments {
    fn data(&self) -> &[u8] {
        &self.head
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.head
    }
    fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }
    fn push_front(&mut self, n: usize) -> Option<&mut [u8]> {
        self.headroom = self.headroom.checked_sub(n)?;
        self.head.splice(0..0, vec![0xee; n]);
        Some(&mut self.head)
    }
    fn pull_front(&mut self, n: usize) {
        self.head.drain(..n);
        self.headroom += n;
    }
    fn truncate(&mut self, n: usize) {
        self.tail.truncate(n.saturating_sub(self.head.len()));
        self.head.truncate(n);
    }
    fn ingress(&self) -> PortId {
        self.ingress
    }
    fn rss(&self) -> Option<u32> {
        None
    }
    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::Unknown
    }
    fn tag(&self) -> Option<HandoffTag> {
        None
    }
    fn can_offload_tx_checksum(&self) -> bool {
        self.offload
    }
    /// As a NIC: the sum of all bytes from the transport header on, the field's start value among them.
    fn offload_tx_checksum(&mut self, _: usize, l4: usize) {
        let mut sum = 0u32;
        for (i, byte) in self.head[l4..].iter().chain(&self.tail).enumerate() {
            sum += u32::from(*byte) << if i % 2 == 0 { 8 } else { 0 };
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let field = match !(sum as u16) {
            0 => 0xffff,
            sum => sum,
        };
        self.head[l4 + 6..l4 + 8].copy_from_slice(&field.to_be_bytes());
    }
}

impl Whole for Segments {
    fn whole(&self) -> Vec<u8> {
        [&self.head[..], &self.tail[..]].concat()
    }
}

/// A connection whose four ends are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) proto: L4Proto,
    pub(crate) client: SocketAddr,
    pub(crate) vip: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) local: SocketAddr,
}

impl Flow {
    pub(crate) fn of(view: &ConnView) -> Self {
        Flow {
            proto: view.init.proto,
            client: view.init.client,
            vip: view.init.vip,
            server: view.init.server,
            local: view.init.local,
        }
    }

    /// A packet of the client.
    pub(crate) fn inbound(&self) -> Packet {
        packet(self.proto, self.client, self.vip)
    }

    /// A packet of the real server.
    pub(crate) fn outbound(&self) -> Packet {
        packet(self.proto, self.server, self.local)
    }
}

/// A packet as it arrives from where `src` is: a TCP segment with data, or a datagram.
pub(crate) fn packet(proto: L4Proto, src: SocketAddr, dst: SocketAddr) -> Packet {
    let (port, src_mac) = hop(src.ip());
    let v4 = src.is_ipv4();
    let body = match proto {
        L4Proto::Tcp => Body::Tcp(Tcp {
            flags: ACK,
            seq: 0x1234_5678,
            ack: 0x9abc_def0,
            window: 0x2000,
            options: Vec::new(),
        }),
        L4Proto::Udp => Body::Udp { unchecked: false },
    };
    Packet {
        port,
        src_mac,
        dst_mac: PORT_MACS[usize::from(port)],
        tags: Vec::new(),
        src,
        dst,
        ttl: 61,
        class: 0x2e,
        flow_label: if v4 { 0 } else { 0xabcde },
        extensions: Vec::new(),
        id: if v4 { 0x4242 } else { 0 },
        dont_fragment: v4,
        ip_options: Vec::new(),
        body,
        payload: b"some payload of odd length.".to_vec(),
    }
}

/// The SYN of a client.
pub(crate) fn syn(client: SocketAddr, vip: SocketAddr) -> Packet {
    packet(L4Proto::Tcp, client, vip).with(|p| {
        p.payload.clear();
        let tcp = p.tcp();
        (tcp.flags, tcp.ack) = (SYN, 0);
        // Maximum segment size, SACK permitted, window scale.
        tcp.options = vec![2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 1, 1];
    })
}

/// The first packet of a client: a SYN or a datagram.
pub(crate) fn first(proto: L4Proto, client: SocketAddr, vip: SocketAddr) -> Packet {
    match proto {
        L4Proto::Tcp => syn(client, vip),
        L4Proto::Udp => packet(proto, client, vip),
    }
}

/// What `given` must have become between `src` and `dst`: the model of the rewrite. `sum` is the
/// transport checksum that was found, which names a translated packet.
pub(crate) fn rewritten(given: &Packet, src: SocketAddr, dst: SocketAddr, sum: u16) -> Packet {
    let (port, mac) = hop(dst.ip());
    let mut p = given.clone();
    p.port = port;
    p.src_mac = PORT_MACS[usize::from(port)];
    p.dst_mac = mac;
    (p.src, p.dst) = (src, dst);
    p.ttl -= 1;
    if src.is_ipv4() == given.src.is_ipv4() {
        return p;
    }
    // RFC 7915: options and extension headers stay behind, the flow label too.
    p.extensions.clear();
    p.ip_options.clear();
    (p.flow_label, p.id, p.dont_fragment) = (0, 0, false);
    if src.is_ipv4() {
        // Section 5.1: up to 1260 bytes a packet may be fragmented on its way, and so it has a name.
        let len = p.bytes().len() - p.l3();
        p.dont_fragment = len > 1260;
        p.id = if p.dont_fragment { 0 } else { sum };
    } else if let Body::Udp { unchecked } = &mut p.body {
        // Section 4.5.
        *unchecked = false;
    }
    p
}

/// What must become of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want<'a> {
    /// Opens a conn of this service.
    Opens(ServiceId),
    /// Goes to the real server.
    Inbound(&'a Flow),
    /// Goes to the client.
    Outbound(&'a Flow),
    /// Becomes the answer to itself.
    Echo,
    Drop(DropReason),
    Punt,
    Answered,
    /// Waits for a neighbour.
    Held,
    Handoff(WorkerId),
}

/// What became of it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) verdict: Verdict,
    /// The frame as it leaves, or as it was left.
    pub(crate) bytes: Vec<u8>,
    /// If it was forwarded.
    pub(crate) packet: Option<Packet>,
}

pub(crate) struct Lab {
    pub(crate) workers: Vec<Worker>,
    pub(crate) now: Instant,
    pub(crate) spec: SnapshotSpec,
    pub(crate) steering: Arc<Steering>,
    pub(crate) buckets: BucketMap,
    pub(crate) verdicts: Verdicts,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Lab::with(|_| {})
    }

    pub(crate) fn with(edit: impl FnOnce(&mut LabConfig)) -> Self {
        let mut config = LabConfig {
            spec: spec(),
            workers: 1,
            buckets: 64,
            sizes: TableSizes {
                conns_v4: 1000,
                conns_v6: 5000,
                exts: 10,
            },
            seed: 7,
            local_port_min: 1024,
            hold: None,
            cluster: None,
        };
        edit(&mut config);
        let steering = steering(config.buckets);
        let buckets = BucketMap::dealt(config.workers);
        let snapshot = snapshot(&config.spec);
        let now = Instant::from_millis(1_000_000);
        let workers = (0..config.workers).map(|id| {
            let mut worker = Worker::new(
                WorkerConfig {
                    id: WorkerId(id as u8),
                    buckets: buckets.clone(),
                    steering: steering.clone(),
                    sizes: config.sizes,
                    local_port_min: config.local_port_min,
                    seed: config.seed,
                    hold: config.hold,
                    cluster: config.cluster.clone(),
                },
                &mut HeapMemory,
            )
            .expect("a small table");
            worker
                .handle_command(now, Command::SetSnapshot(snapshot.clone()))
                .expect("room for an event");
            worker.poll_event().expect("the empty snapshot comes back");
            worker
        });
        Lab {
            workers: workers.collect(),
            now,
            spec: config.spec,
            steering,
            buckets,
            verdicts: Verdicts::default(),
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Changes what is served.
    pub(crate) fn reload(&mut self, edit: impl FnOnce(&mut SnapshotSpec)) {
        edit(&mut self.spec);
        let snapshot = snapshot(&self.spec);
        for worker in &mut self.workers {
            worker
                .handle_command(self.now, Command::SetSnapshot(snapshot.clone()))
                .expect("room for an event");
            assert!(worker.poll_event().is_some(), "the old snapshot comes back");
        }
    }

    /// Lets everything due expire.
    pub(crate) fn expire(&mut self) {
        for worker in &mut self.workers {
            while worker.poll_timeout().is_some_and(|due| due <= self.now) {
                worker.handle_timeout(self.now);
            }
        }
    }

    pub(crate) fn bucket(&self, src: SocketAddr, dst: SocketAddr) -> u16 {
        self.steering.bucket(self.steering.toeplitz().hash(src, dst))
    }

    /// The worker to which RSS brings a packet.
    pub(crate) fn worker_of(&self, src: SocketAddr, dst: SocketAddr) -> usize {
        usize::from(self.buckets.worker(self.bucket(src, dst)).0)
    }

    pub(crate) fn conn(&self, tuple: &Tuple) -> Option<ConnView> {
        let worker = &self.workers[self.worker_of(tuple.src, tuple.dst)];
        worker.conn(tuple).map(|(view, _)| view)
    }

    pub(crate) fn state(&self, flow: &Flow) -> Option<ConnState> {
        Some(self.conn(&flow.inbound().tuple())?.init.state)
    }

    /// All counters of all workers.
    pub(crate) fn counters(&self) -> Counters {
        let mut all = Counters::default();
        for worker in &self.workers {
            all.add(worker.counters());
        }
        all
    }

    /// Hands a packet in at the worker that RSS chooses; see [`Lab::check_frame`].
    #[track_caller]
    pub(crate) fn check(&mut self, given: &Packet, want: Want<'_>, moved: &str) -> Seen {
        let worker = self.worker_of(given.src, given.dst);
        let frame = HeapFrame::new(PortId(given.port), &given.bytes());
        self.check_frame(worker, frame, Some(given), want, moved)
    }

    /// Hands any bytes in at worker 0; see [`Lab::check_frame`].
    #[track_caller]
    pub(crate) fn check_bytes(&mut self, port: u16, bytes: &[u8], want: Want<'_>, moved: &str) -> Seen {
        self.check_frame(0, HeapFrame::new(PortId(port), bytes), None, want, moved)
    }

    /// Hands a frame in and proves what becomes of it: the verdict; of a forwarded packet every byte,
    /// against a model, etherparse having verified the checksums; and the counters: beside those of the
    /// verdict itself, only what `moved` names moves, by as much ("opened+1 SYN_RECV+1").
    #[track_caller]
    pub(crate) fn check_frame<F: Whole>(
        &mut self,
        worker: usize,
        frame: F,
        given: Option<&Packet>,
        want: Want<'_>,
        moved: &str,
    ) -> Seen {
        let before = flat(self.workers[worker].counters());
        let bytes_in = frame.whole();
        let ingress = frame.ingress();
        let mut frames = [frame];
        self.workers[worker].handle_burst(self.now, &mut frames, &mut self.verdicts);
        let [frame] = frames;
        let [verdict] = *self.verdicts.as_slice() else {
            panic!("one verdict a frame");
        };
        let bytes = frame.whole();
        let story = || format!("{given:?}\nwanted {want:?}, got {verdict:?}");

        let mut diff = moves(moved);
        let mut count = |name: &str, n: i64| *diff.entry(name.into()).or_default() += n;
        count("rx_packets", 1);
        count("rx_bytes", bytes_in.len() as i64);
        let mut packet = None;
        match want {
            Want::Opens(_) | Want::Inbound(_) | Want::Outbound(_) => {
                let given = given.expect("a packet is forwarded");
                let Verdict::Tx(PortId(port)) = verdict else {
                    panic!("{}", story());
                };
                count("tx_packets", 1);
                count("tx_bytes", bytes.len() as i64);
                let outbound = matches!(want, Want::Outbound(_));
                count(
                    if outbound {
                        "outbound_packets"
                    } else {
                        "inbound_packets"
                    },
                    1,
                );
                let (out, sum) = read(port, &bytes);
                let (src, dst) = match want {
                    Want::Inbound(flow) => (flow.local, flow.server),
                    Want::Outbound(flow) => (flow.vip, flow.client),
                    _ => (out.src, out.dst),
                };
                assert_eq!(out, rewritten(given, src, dst, sum), "{}", story());
                if let Want::Opens(id) = want {
                    self.check_choice(id, given, &out);
                }
                packet = Some(out);
            }
            Want::Echo => {
                assert_eq!(verdict, Verdict::Tx(ingress), "{}", story());
                count("tx_packets", 1);
                count("tx_bytes", bytes.len() as i64);
                count("echo_replies", 1);
            }
            Want::Drop(reason) => {
                assert_eq!(verdict, Verdict::Drop(reason), "{}", story());
                assert_eq!(bytes, bytes_in, "a dropped frame is left as it was");
                count(reason.name(), 1);
            }
            Want::Punt => {
                assert_eq!(verdict, Verdict::Punt, "{}", story());
                assert_eq!(bytes, bytes_in, "the kernel gets the frame as it was");
                count("punted", 1);
            }
            Want::Answered => {
                assert_eq!(verdict, Verdict::Answered, "{}", story());
                count("answered", 1);
            }
            Want::Held => {
                assert_eq!(verdict, Verdict::Held, "{}", story());
                assert_eq!(bytes, bytes_in, "what is held is a copy");
                count("held", 1);
            }
            Want::Handoff(to) => {
                let Verdict::Handoff(worker, tag) = verdict else {
                    panic!("{}", story());
                };
                assert_eq!(worker, to);
                assert_eq!(bytes, bytes_in, "another worker gets the frame as it was");
                assert_eq!(self.buckets.worker(tag.bucket), to, "the tag names its bucket");
                count("handed_off", 1);
            }
        }
        diff.retain(|_, n| *n != 0);
        let after = flat(self.workers[worker].counters());
        assert_eq!(difference(&before, &after), diff, "counters, {}", story());
        conserved(self.workers[worker].counters());
        Seen {
            verdict,
            bytes,
            packet,
        }
    }

    /// Server, local address and local port are such as the service may choose, and the replies come to
    /// the same bucket.
    #[track_caller]
    fn check_choice(&self, id: ServiceId, given: &Packet, out: &Packet) {
        let service = self.spec.services.iter().find(|s| s.id == id).expect("a service");
        let chosen = service
            .servers
            .iter()
            .find(|s| SocketAddr::new(s.addr, s.port) == out.dst);
        assert!(chosen.expect("a server of the service").weight > 0);
        assert!(service.local_addrs.contains(&out.src.ip()));
        assert!(out.src.port() >= 1024, "a local port that may be used");
        assert_eq!(
            self.bucket(given.src, given.dst),
            self.bucket(out.dst, out.src),
            "the reply falls into the bucket of the connection"
        );
        let conn = self.conn(&given.tuple()).expect("the conn is in the table");
        assert_eq!(conn.init.service, id);
        assert_eq!((conn.init.server, conn.init.local), (out.dst, out.src));
    }

    /// Opens a connection with its first packet.
    #[track_caller]
    pub(crate) fn open_at(&mut self, id: ServiceId, given: &Packet) -> Flow {
        let moved = match given.proto() {
            L4Proto::Tcp => "opened+1 SYN_RECV+1",
            L4Proto::Udp => "opened+1 UDP_ONE_WAY+1",
        };
        let out = self
            .check(given, Want::Opens(id), moved)
            .packet
            .expect("forwarded");
        Flow {
            proto: given.proto(),
            client: given.src,
            vip: given.dst,
            server: out.dst,
            local: out.src,
        }
    }

    /// Opens connection `n` of a kind.
    #[track_caller]
    pub(crate) fn open(&mut self, kind: Kind, proto: L4Proto, n: u32) -> Flow {
        self.open_at(
            kind.service(proto),
            &first(proto, kind.client(n), kind.vip(proto)),
        )
    }

    /// Opens a TCP connection and completes its handshake.
    #[track_caller]
    pub(crate) fn establish(&mut self, kind: Kind, n: u32) -> Flow {
        let flow = self.open(kind, L4Proto::Tcp, n);
        let syn_ack = flow
            .outbound()
            .flags(SYN | ACK)
            .with(|p| p.tcp().options = vec![2, 4, 5, 180]);
        self.check(&syn_ack, Want::Outbound(&flow), "");
        let ack = flow.inbound().with(|p| p.payload.clear());
        self.check(
            &ack,
            Want::Inbound(&flow),
            "SYN_RECV-1 ESTABLISHED+1 established+1",
        );
        flow
    }

    /// Index, slabs, timers and slots of every worker agree.
    pub(crate) fn audit(&self) {
        for worker in &self.workers {
            worker.audit();
            conserved(worker.counters());
            let live: u64 = worker.counters().by_state.iter().sum();
            assert_eq!(live, worker.table().len() as u64, "every conn is in one state");
        }
    }
}

/// What came in went out, was dropped, or went elsewhere.
#[track_caller]
pub(crate) fn conserved(c: &Counters) {
    assert_eq!(
        c.rx_packets,
        c.tx_packets + c.dropped() + c.punted + c.handed_off + c.answered + c.held - c.released,
        "packets are conserved"
    );
    assert_eq!(
        c.tx_packets,
        c.inbound_packets + c.outbound_packets + c.echo_replies
    );
    let live: u64 = c.by_state.iter().sum();
    assert_eq!(c.opened, live + c.expired + c.removed, "conns are conserved");
}

/// Every counter by its name.
pub(crate) fn flat(c: &Counters) -> BTreeMap<String, i64> {
    let mut all: BTreeMap<String, i64> = [
        ("rx_packets", c.rx_packets),
        ("rx_bytes", c.rx_bytes),
        ("tx_packets", c.tx_packets),
        ("tx_bytes", c.tx_bytes),
        ("inbound_packets", c.inbound_packets),
        ("outbound_packets", c.outbound_packets),
        ("echo_replies", c.echo_replies),
        ("answered", c.answered),
        ("originated", c.originated),
        ("held", c.held),
        ("released", c.released),
        ("punted", c.punted),
        ("handed_off", c.handed_off),
        ("opened", c.opened),
        ("established", c.established),
        ("closed", c.closed),
        ("expired", c.expired),
        ("removed", c.removed),
        ("port_probes_taken", c.port_probes_taken),
    ]
    .map(|(name, n)| (name.to_string(), n as i64))
    .into();
    for &reason in DropReason::ALL {
        all.insert(reason.name().into(), c.drops[reason as usize] as i64);
    }
    for state in ConnState::ALL {
        all.insert(state.name().into(), c.by_state[state as usize] as i64);
    }
    all
}

/// What moved between two readings.
pub(crate) fn difference(
    before: &BTreeMap<String, i64>,
    after: &BTreeMap<String, i64>,
) -> BTreeMap<String, i64> {
    let moved = after.iter().map(|(name, n)| (name.clone(), n - before[name]));
    moved.filter(|(_, n)| *n != 0).collect()
}

/// Reads "opened+1 SYN_RECV-1".
#[track_caller]
fn moves(text: &str) -> BTreeMap<String, i64> {
    text.split_whitespace()
        .map(|word| {
            let at = word.rfind(['+', '-']).expect("a sign");
            (word[..at].into(), word[at..].parse().expect("a number"))
        })
        .collect()
}
