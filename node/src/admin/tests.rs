//! A real socket, a control side and workers on threads of their own, and packets out of memory.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant as Clock};

use evenkeel_control::parse;
use evenkeel_core::cluster::{Control, Incarnation};
use evenkeel_core::port::{BURST, Frame, HandoffTag, HeapFrame, Port, PortId, RxChecksum, WorkerId};
use evenkeel_core::step::{StepBuffers, step};
use evenkeel_core::worker::{BucketMap, Worker};
use serde::de::DeserializeOwned;

use super::conns::{Filter, Glance, LOOK_CONN_COUNT, Looker, Place};
use super::*;
use crate::control::{ControlSide, Parts, Signals};
use crate::health::{CheckSpec, Checks};
use crate::io::{DriverLook, PoolView};
use crate::lane::ControlBell;
use crate::ports::{Link, Ports};
use crate::reload::Reader;
use crate::system::Manager;
use crate::telling::Names;
use crate::worker::Wires;
use crate::{clock, daemon, worker};

const LIMIT: Duration = Duration::from_secs(300);

/// Two workers, 32 local addresses: room for a million sessions.
fn config(name: &str, more: &str) -> Config {
    let folder = std::env::temp_dir().join(format!("evenkeel-admin-{name}-{}", std::process::id()));
    let locals: Vec<String> = (1..=32).map(|n| format!("\"10.0.2.{n}\"")).collect();
    let text = format!(
        r#"
[table]
conns_v4 = 600_000
conns_v6 = 16
[daemon]
ctl = "{}/ctl.sock"
[[port]]
name = "p"
mac = "02:00:00:00:00:01"
addresses = ["10.0.0.2/16"]
[[neighbour]]
address = "10.0.0.11"
mac = "02:00:00:00:02:11"
port = "p"
[[neighbour]]
address = "10.0.0.12"
mac = "02:00:00:00:02:12"
port = "p"
{more}
[[service]]
name = "dns"
vip = "192.0.2.80:53"
protocol = "udp"
local_addresses = [{}]
[[service.server]]
address = "10.0.0.11:53"
[[service.server]]
address = "10.0.0.12:53"
"#,
        folder.display(),
        locals.join(", ")
    );
    parse("test", &text).unwrap_or_else(|e| panic!("{e:?}"))
}

/// The datagram of client 0.
fn template() -> Vec<u8> {
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0x77], [2, 0, 0, 0, 0, 1])
        .ipv4([100, 64, 0, 0], [192, 0, 2, 80], 64)
        .udp(4000, 53)
        .write(&mut bytes, b"question")
        .expect("a frame");
    bytes
}

/// That of client `n`, whose checksums the NIC is said to have found right.
fn datagram(template: &[u8], n: u32) -> HeapFrame {
    let mut frame = HeapFrame::new(PortId(0), template);
    frame.rx_checksum = RxChecksum::Good;
    let client = [100, 64 + (n >> 16) as u8, (n >> 8) as u8, n as u8];
    frame.data_mut()[26..30].copy_from_slice(&client);
    frame
}

fn client(n: u32) -> String {
    format!("100.{}.{}.{}:4000", 64 + (n >> 16), n >> 8 & 255, n & 255)
}

/// Packets out of memory: those of so many clients, and of the first one for ever.
struct Memory {
    template: Vec<u8>,
    fresh: std::vec::IntoIter<u32>,
    /// What of the first client goes on.
    again: Option<HeapFrame>,
    sent: Arc<AtomicU64>,
}

impl Memory {
    fn new(clients: Vec<u32>) -> Self {
        let template = template();
        let again = clients.first().map(|n| datagram(&template, *n));
        Memory {
            template,
            fresh: clients.into_iter(),
            again,
            sent: Arc::default(),
        }
    }
}

impl Port for Memory {
    type Frame = HeapFrame;

    fn rx_burst(&mut self, into: &mut Vec<HeapFrame>) -> usize {
        let Memory { template, fresh, .. } = self;
        into.extend(fresh.by_ref().take(BURST).map(|n| datagram(template, n)));
        if into.is_empty() {
            into.extend(self.again.clone());
        }
        into.len()
    }

    fn alloc(&mut self, len: usize) -> Option<HeapFrame> {
        Some(HeapFrame::zeroed(PortId(0), len))
    }

    fn tx(&mut self, _: PortId, frame: HeapFrame) {
        assert!(!frame.is_empty());
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    fn punt(&mut self, _: HeapFrame) {}

    fn handoff(&mut self, to: WorkerId, _: HeapFrame, _: HandoffTag) {
        panic!("steered wrongly, to {to:?}");
    }

    fn flush(&mut self) {}
}

impl Wires for Memory {
    type Guard = ();

    fn enter(&self) {}

    fn sleep(&mut self, at_most: Duration, lane: &Lane) {
        let _ = lane;
        std::thread::sleep(at_most.min(Duration::from_millis(1)));
    }

    fn set_extra_macs(&mut self, _: &[[u8; 6]]) {}

    fn counts(&mut self) -> crate::lane::IoCounts {
        let mut counts = crate::lane::IoCounts::default();
        counts[0] = ("tx-frames", self.sent.load(Ordering::Relaxed));
        counts
    }
}

/// As of a driver that has 3 of 512 buffers in its hands.
struct Looked;

impl DriverLook for Looked {
    fn pools(&self) -> Vec<PoolView> {
        vec![PoolView {
            name: "frames-0".to_string(),
            capacity: 512,
            in_use: 3,
        }]
    }

    fn link_is_up(&self, _: PortId) -> Option<bool> {
        None
    }

    fn mac(&self, _: PortId) -> Option<[u8; 6]> {
        None
    }

    fn counts(&self, port: PortId) -> Vec<(&'static str, u64)> {
        assert_eq!(port, PortId(0), "there is no other one");
        vec![("rx-missed", 7)]
    }
}

/// What runs in a test, until it is dropped.
struct Node {
    lanes: Vec<Arc<Lane>>,
    sent: Vec<Arc<AtomicU64>>,
    socket: PathBuf,
    metrics: Option<SocketAddr>,
    ports: Arc<Ports>,
    bell: Arc<ControlBell>,
    admin: Option<Admin>,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    /// With these clients' packets at each worker; a worker without a list does not run.
    fn start(config: Config, clients: Vec<Option<Vec<u32>>>) -> Node {
        Node::start_within(config, clients, LIMIT)
    }

    fn start_within(config: Config, clients: Vec<Option<Vec<u32>>>, within: Duration) -> Node {
        let _ = std::fs::create_dir_all(config.daemon.ctl.parent().expect("a folder"));
        let bell = Arc::new(ControlBell::default());
        let lanes: Vec<Arc<Lane>> = clients
            .iter()
            .map(|_| Arc::new(Lane::new(Arc::clone(&bell), 2048).expect("an eventfd")))
            .collect();
        let buckets = BucketMap::dealt(clients.len() as u16);
        let bound = bind(&config.daemon).expect("bound");
        let metrics = bound
            .metrics
            .as_ref()
            .map(|m| m.local_addr().expect("an address"));
        let socket = config.daemon.ctl.clone();
        let me = config.cluster.as_ref().map(|c| evenkeel_core::cluster::PeerId {
            node: c.config.id,
            incarnation: Incarnation(1),
        });
        let mut threads = Vec::new();
        let mut sent = Vec::new();
        for (n, (clients, lane)) in clients.into_iter().zip(&lanes).enumerate() {
            let Some(clients) = clients else { continue };
            let worker = daemon::make_worker(&config, me, &buckets, 1, n as u8, None).expect("memory");
            let wires = Memory::new(clients);
            sent.push(Arc::clone(&wires.sent));
            let lane = Arc::clone(lane);
            threads.push(std::thread::spawn(move || {
                worker::run(worker, wires, &lane, true)
            }));
        }
        let (asks, asked) = mpsc::channel(ASK_COUNT);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let net = config.cluster.as_ref().map(|cluster| {
            let own = cluster.node(cluster.config.id).expect("a member").sync;
            let peers = cluster.nodes.iter().filter(|n| n.id != cluster.config.id);
            let peers: Vec<_> = peers.map(|n| (n.id, n.sync)).collect();
            let _entered = runtime.enter();
            let me = crate::transport::Member {
                cluster: cluster.config.cluster,
                node: cluster.config.id,
            };
            crate::transport::open(me, own, &peers).expect("an address of the test's own")
        });
        let counters = net.as_ref().map(|(_, voice)| Arc::clone(&voice.counters));
        let admin = bound
            .serve_within(
                &config,
                lanes.clone(),
                asks,
                counters,
                Some(Arc::new(Looked)),
                within,
            )
            .expect("a thread");
        let control_bell = Arc::clone(&bell);
        let ports = Arc::new(Ports::of(&config));
        let in_control = Arc::clone(&ports);
        let (stop, stopped) = oneshot::channel();
        let ours = lanes.clone();
        threads.push(std::thread::spawn(move || {
            let control = config.cluster.as_ref().map(|c| {
                Control::new(
                    c.config.clone(),
                    Incarnation(1),
                    ours.len() as u8,
                    1,
                    clock::now(),
                    None,
                )
                .expect("a good config")
            });
            let (events, health) = mpsc::channel(1);
            // Nobody answers at what a config says.
            let server = TcpListener::bind("127.0.0.1:0").expect("loopback has room");
            let mut specs = CheckSpec::of(&config);
            for spec in &mut specs {
                spec.addr = server.local_addr().expect("an address");
            }
            let checks = {
                let _entered = runtime.enter();
                Checks::spawn(1, specs, events.clone()).expect("loopback is asked by TCP alone")
            };
            let parts = Parts {
                checks,
                health,
                control,
                lanes: ours,
                buckets,
                net,
                bell,
                drain_limit: Duration::from_secs(1),
                names: Names::new(config.cluster.as_ref()),
                manager: Manager::new(),
                config,
                secrets: None,
                reader: Reader::new(Box::new(|| Err("not in this test".to_string()))),
                driver_words: None,
                seed: 1,
                asks: asked,
                ports: in_control,
            };
            runtime.block_on(async {
                let signals = Signals::listen().expect("signals");
                let mut side = ControlSide::new(parts);
                tokio::select! {
                    _ = side.run(signals) => (),
                    _ = stopped => (),
                }
            });
            drop((events, server));
        }));
        Node {
            lanes,
            sent,
            socket,
            metrics,
            ports,
            bell: control_bell,
            admin: Some(admin),
            stop: Some(stop),
            threads,
        }
    }

    fn ask(&self, method: Method, path: &str) -> Reply {
        ask(&self.socket, method, path, LIMIT).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn read<T: DeserializeOwned>(&self, path: &str) -> T {
        let reply = self.ask(Method::Get, path);
        let text = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status, 200, "{path}: {text}");
        serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
    }

    fn refused(&self, method: Method, path: &str) -> (u16, Refused) {
        let reply = self.ask(method, path);
        let refused = serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{path}: {e}"));
        (reply.status, refused)
    }

    /// Asks again until it holds.
    fn until<T: DeserializeOwned>(&self, path: &str, holds: impl Fn(&T) -> bool) -> T {
        let until = Clock::now() + LIMIT;
        loop {
            let answer = self.read(path);
            if holds(&answer) {
                return answer;
            }
            assert!(Clock::now() < until, "{path} does not become what is expected");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Status and body of a GET to the listener for Prometheus.
    fn get(&self, path: &str, accept: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.metrics.expect("a listener")).expect("connected");
        stream.set_read_timeout(Some(LIMIT)).expect("set");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\n\r\n"
        )
        .expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        (status.unwrap_or_else(|| panic!("{head}")), body.to_string())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.admin.take();
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        for lane in &self.lanes {
            lane.stop.store(true, Ordering::Relaxed);
            lane.worker_bell.ring();
        }
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a thread fell");
        }
        if let Some(folder) = self.socket.parent() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Clients by the worker that the NIC would give their packets to.
fn dealt(config: &Config, workers: usize, count: u32) -> Vec<Option<Vec<u32>>> {
    let buckets = BucketMap::dealt(workers as u16);
    let mut lists = vec![Vec::new(); workers];
    for n in 0..count {
        let tuple = evenkeel_core::tuple::Tuple {
            proto: evenkeel_core::tuple::L4Proto::Udp,
            src: client(n).parse().expect("an end"),
            dst: "192.0.2.80:53".parse().expect("an end"),
        };
        let hash = config.steering.toeplitz().hash_tuple(&tuple);
        let worker = buckets.worker(config.steering.bucket(hash));
        lists[usize::from(worker.0)].push(n);
    }
    lists.into_iter().map(Some).collect()
}

#[test]
fn many_conns_are_listed_once_while_the_workers_forward() {
    // EK_CONNS=1000000 is for who has the time.
    let given = std::env::var("EK_CONNS").map(|text| text.parse().expect("EK_CONNS is a number"));
    let count: u32 = given.unwrap_or(200_000);
    let config = config("many", "");
    let clients = dealt(&config, 2, count);
    let node = Node::start(config, clients);
    let status: Status = node.until("/v1/status", |s: &Status| s.conns == u64::from(count));
    assert!(status.workers.iter().all(|w| w.answered && w.conns > 0));
    let turns = |node: &Node| -> Vec<u64> {
        let lanes = node.lanes.iter();
        lanes.map(|lane| lane.beat.load(Ordering::Relaxed)).collect()
    };
    let sent = |node: &Node| -> Vec<u64> { node.sent.iter().map(|n| n.load(Ordering::Relaxed)).collect() };
    let begun = (turns(&node), sent(&node));
    let mut seen = BTreeSet::new();
    let mut listed = 0;
    let (mut pages, mut looks) = (0u64, 0u64);
    let mut cursor = String::new();
    loop {
        let page: Conns = node.read(&format!("/v1/conns?limit=1000{cursor}"));
        assert!(page.conns.len() <= 1000);
        pages += 1;
        looks += page.looked_at.div_ceil(LOOK_CONN_COUNT as u64);
        listed += page.conns.len();
        seen.extend(page.conns.into_iter().map(|conn| conn.client));
        match page.next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let ended = (turns(&node), sent(&node));
    assert_eq!(listed, count as usize, "each once");
    assert_eq!(seen, (0..count).map(client).collect(), "all");
    assert!(pages >= u64::from(count / 1000));
    // A worker takes one look a turn, and forwards what came in each of them.
    let gained =
        |before: &[u64], after: &[u64]| -> u64 { after.iter().zip(before).map(|(a, b)| a - b).sum() };
    let (turns, forwarded) = (gained(&begun.0, &ended.0), gained(&begun.1, &ended.1));
    assert!(turns >= looks, "{turns} turns for at least {looks} looks");
    assert!(forwarded >= looks, "{forwarded} packets in {turns} turns");
    for (before, after) in begun.1.iter().zip(&ended.1) {
        assert!(after > before, "each worker went on");
    }

    let services: Services = node.read("/v1/services?conns=true");
    assert!(services.counted);
    let dns = &services.services[0];
    assert_eq!((dns.name.as_str(), dns.conns), ("dns", Some(u64::from(count))));
    let of_servers: u64 = dns.servers.iter().filter_map(|s| s.conns).sum();
    assert_eq!(of_servers, u64::from(count));
    assert!(dns.servers.iter().all(|s| s.reachable && s.up && s.weight == 1));
}

/// A worker with some conns, driven by the test.
fn filled(count: u32) -> (Config, Worker) {
    let config = config("alone", "");
    let mut worker = daemon::make_worker(&config, None, &BucketMap::dealt(1), 1, 0, None).expect("memory");
    let mut wires = Memory::new((0..count).collect());
    let mut buffers = StepBuffers::default();
    while worker.table().len() < count as usize {
        step(&mut worker, &mut wires, clock::now(), &mut buffers);
    }
    (config, worker)
}

#[test]
fn a_look_is_bounded_and_the_next_one_goes_on_where_it_ended() {
    const COUNT: u32 = 9_000;
    let (_, worker) = filled(COUNT);
    let all = Filter::default();
    let walk = |budget: usize, room: usize, empty: bool| {
        let mut found: HashMap<_, u32> = HashMap::new();
        let mut at = Some(Place::FIRST);
        let mut looks = 0;
        while let Some(from) = at {
            let looker = Looker::with_budget(&all, room, empty, budget);
            let Glance {
                found: some,
                looked_at,
                next,
                ..
            } = looker.look(&worker, from);
            assert!(looked_at <= budget && some.len() <= room);
            assert_ne!(next, Some(from), "it goes on");
            // A cursor says all of it.
            assert_eq!(next.map(|n| Place::read(&n.cursor(), 1)), next.map(Ok));
            some.iter()
                .for_each(|f| *found.entry(f.conn.init.client).or_default() += 1);
            at = next;
            looks += 1;
        }
        assert_eq!(found.len(), COUNT as usize, "none is missing");
        assert!(found.values().all(|n| *n == 1), "none comes twice");
        looks
    };
    assert!(walk(LOOK_CONN_COUNT, 1000, true) >= COUNT as usize / LOOK_CONN_COUNT);
    // Slots longer than a look, or than an answer, are torn.
    assert!(walk(1, 1000, true) >= COUNT as usize);
    assert!(walk(LOOK_CONN_COUNT, 1, true) >= COUNT as usize);
    assert!(walk(3, 2, true) >= COUNT as usize / 3);
}

#[test]
fn a_slot_that_does_not_fit_comes_whole_in_the_next_answer() {
    let (_, worker) = filled(9_000);
    let all = Filter::default();
    let first = worker.table().slot_len(0);
    let second = worker.table().slot_len(1);
    assert!(first > 0 && second > 1, "{first} and {second}");
    let glance = Looker::new(&all, first + second - 1, true).look(&worker, Place::FIRST);
    assert_eq!((glance.found.len(), glance.full), (first, true));
    let next = glance.next.expect("more");
    assert_eq!((next.slot, next.cursor()), (1, "0.1".to_string()));
}

#[test]
fn filters_take_what_they_say() {
    let (config, worker) = filled(3_000);
    let list = |query: ConnQuery| {
        let service = |name: &str| {
            let service = config.snapshot.services().find(|s| s.name == name);
            service.map(|s| s.id)
        };
        let filter =
            Filter::read(&query, service, |name| (name == "lb2").then_some(2)).expect("a good query");
        let mut count = 0;
        let mut at = Some(Place::FIRST);
        while let Some(from) = at {
            let glance = Looker::new(&filter, 1000, true).look(&worker, from);
            count += glance.found.len();
            at = glance.next;
        }
        count
    };
    let some = |text: &str| Some(text.to_string());
    let query = ConnQuery::default;
    assert_eq!(list(query()), 3_000);
    assert_eq!(
        list(ConnQuery {
            client: some("100.64.1.7"),
            ..query()
        }),
        1
    );
    assert_eq!(
        list(ConnQuery {
            client: some("100.64.1.7:4001"),
            ..query()
        }),
        0
    );
    assert_eq!(
        list(ConnQuery {
            client: some("100.64.1.0/24"),
            ..query()
        }),
        256
    );
    assert_eq!(
        list(ConnQuery {
            client: some("0.0.0.0/0"),
            ..query()
        }),
        3_000
    );
    assert_eq!(
        list(ConnQuery {
            client: some("::/0"),
            ..query()
        }),
        0,
        "of the other family"
    );
    assert_eq!(
        list(ConnQuery {
            vip: some("192.0.2.80:53"),
            ..query()
        }),
        3_000
    );
    assert_eq!(
        list(ConnQuery {
            port: Some(4000),
            ..query()
        }),
        3_000
    );
    assert_eq!(
        list(ConnQuery {
            port: Some(4001),
            ..query()
        }),
        0
    );
    assert_eq!(
        list(ConnQuery {
            service: some("dns"),
            ..query()
        }),
        3_000
    );
    assert_eq!(
        list(ConnQuery {
            state: some("udp_one_way"),
            ..query()
        }),
        3_000
    );
    assert_eq!(
        list(ConnQuery {
            state: some("ESTABLISHED"),
            ..query()
        }),
        0
    );
    assert_eq!(
        list(ConnQuery {
            group: some("lb2"),
            ..query()
        }),
        0,
        "nothing is replicated"
    );
    let half = list(ConnQuery {
        server: some("10.0.0.11:53"),
        ..query()
    });
    let other = list(ConnQuery {
        server: some("10.0.0.12"),
        ..query()
    });
    assert!(half > 0 && other > 0 && half + other == 3_000);
}

#[test]
fn what_cannot_be_asked_is_refused_with_a_remedy() {
    let node = Node::start(config("refused", ""), vec![Some(vec![1])]);
    for (path, says) in [
        ("/v1/conns?cursor=x", "cursor cannot be"),
        ("/v1/conns?cursor=0.4096", "cursor cannot be"),
        ("/v1/conns?cursor=1.0", "cursor cannot be"),
        ("/v1/conns?cursor=0.0.1.2", "cursor cannot be"),
        ("/v1/conns?cursor=0.+1", "cursor cannot be"),
        ("/v1/conns?cursor=0.99999999999999999999", "cursor cannot be"),
        ("/v1/conns?limit=0", "limit cannot be"),
        ("/v1/conns?limit=1001", "limit cannot be"),
        ("/v1/conns?limit=-1", "limit"),
        ("/v1/conns?client=10.0.0.0/33", "client cannot be"),
        ("/v1/conns?client=somebody", "client cannot be"),
        ("/v1/conns?vip=%F0%9F%92%A3%00", "vip cannot be"),
        ("/v1/conns?state=BUSY", "state cannot be"),
        ("/v1/conns?service=nobody", "service cannot be"),
        ("/v1/conns?group=x/y", "group cannot be"),
        ("/v1/conns?port=65536", "port"),
        ("/v1/conns?colour=red", "colour"),
        ("/v1/services?conns=maybe", "conns"),
    ] {
        let (status, refused) = node.refused(Method::Get, path);
        assert_eq!(status, 400, "{path}");
        assert!(refused.error.contains(says), "{path}: {}", refused.error);
        assert!(!refused.help.is_empty() && refused.error.len() < 400, "{path}");
    }
    let (status, refused) = node.refused(Method::Get, "/v2/status");
    assert_eq!((status, refused.help.contains("/v1/status")), (404, true));
    let (status, _) = node.refused(Method::Get, "/v1/drain");
    assert_eq!(status, 405);
    let (status, _) = node.refused(Method::Post, "/v1/status");
    assert_eq!(status, 405);
    for command in ["drain", "undrain", "promote", "demote"] {
        let (status, refused) = node.refused(Method::Post, &format!("/v1/{command}"));
        assert_eq!(
            (status, refused.error.as_str()),
            (409, "this node is in no cluster")
        );
    }
    let all: Conns = node.until("/v1/conns", |c: &Conns| c.conns.len() == 1);
    assert_eq!((all.conns[0].client.clone(), all.next), (client(1), None));
}

/// What comes back for some bytes, until the end; an error at the end is one, too.
fn raw(node: &Node, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(&node.socket).expect("connected");
    stream.set_read_timeout(Some(LIMIT)).expect("set");
    stream.set_write_timeout(Some(LIMIT)).expect("set");
    // Who has refused does not read on.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(e) => {
                assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "it ends by itself");
                break;
            }
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn hostile_clients_are_cut_off_and_the_others_are_answered() {
    let node = Node::start(config("hostile", ""), vec![Some(vec![1])]);
    let long = format!("GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    assert!(raw(&node, long.as_bytes()).starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(5_000));
    assert!(raw(&node, many.as_bytes()).starts_with("HTTP/1.1 431 "));
    let path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    assert!(raw(&node, path.as_bytes()).starts_with("HTTP/1.1 4"));
    assert!(raw(&node, &[0xff; 4096]).starts_with("HTTP/1.1 400 "));
    // One request a connection.
    let two = "GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2);
    assert_eq!(raw(&node, two.as_bytes()).matches("HTTP/1.1 ").count(), 1);
    // A body that nobody wants and that never ends.
    let body = "POST /v1/drain HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\nabc";
    assert!(raw(&node, body.as_bytes()).starts_with("HTTP/1.1 409 "));

    // As many that say nothing as there is room for: the next one is sent away, until their time is over.
    let silent: Vec<UnixStream> = (0..super::http::CTL_COUNT_MAX)
        .map(|_| UnixStream::connect(&node.socket).expect("connected"))
        .collect();
    for mut stream in &silent {
        stream.write_all(b"GET /v1/sta").expect("written");
    }
    let turned_away = raw(&node, b"");
    assert_eq!(turned_away, "");
    for mut stream in silent {
        stream.set_read_timeout(Some(LIMIT)).expect("set");
        let mut said = Vec::new();
        // They end without having said more.
        let ended = stream.read_to_end(&mut said);
        assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    }
    let stats: Stats = node.read("/v1/stats");
    assert!(stats.admin["ctl"] >= 1);
    assert!(stats.workers[0].counters["rx-packets"] > 0 && stats.workers[0].io["tx-frames"] > 0);
}

const CLUSTER: &str = r#"
[cluster]
insecure = true
id = 1
this_node = "lb1"
join_time = "500ms"
[cluster.vrrp]
vrid = 51
port = "p"
interval = "100ms"
[[cluster.node]]
id = 1
name = "lb1"
priority = 100
sync = "HERE:4790"
local_addresses = ["10.0.2.1"]
vrrp_source_v4 = "10.0.0.2"
[[cluster.node]]
id = 2
name = "lb2"
priority = 200
sync = "HERE:4791"
local_addresses = ["10.0.2.2"]
vrrp_source_v4 = "10.0.0.3"
"#;

fn clustered(name: &str) -> Config {
    let folder = std::env::temp_dir().join(format!("evenkeel-admin-{name}-{}", std::process::id()));
    let text = format!(
        r#"{CLUSTER}
[daemon]
ctl = "{}/ctl.sock"
metrics = "127.0.0.1:1"
[[port]]
name = "p"
mac = "02:00:00:00:00:01"
addresses = ["10.0.0.2/16"]
[[neighbour]]
address = "10.0.0.11"
mac = "02:00:00:00:02:11"
port = "p"
[[service]]
name = "dns"
vip = "192.0.2.80:53"
protocol = "udp"
[service.health]
type = "tcp"
interval = "1h"
[[service.server]]
address = "10.0.0.11:53"
"#,
        folder.display()
    );
    // An address of 127/8 that no other process, and no other test of this one, has.
    static USED: AtomicU64 = AtomicU64::new(0);
    let [.., b, c] = std::process::id().to_be_bytes();
    let here = format!("127.{}.{b}.{c}", 100 + USED.fetch_add(1, Ordering::Relaxed));
    let text = text.replace("HERE", &here);
    let mut config = parse("test", &text).unwrap_or_else(|e| panic!("{e:?}"));
    // Any free port.
    config.daemon.metrics = Some(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0));
    config
}

#[test]
fn a_node_of_a_cluster_says_how_far_it_is_and_is_told_to_drain_and_to_take_over() {
    let node = Node::start(clustered("cluster"), vec![Some(vec![1])]);
    let early: Status = node.read("/v1/status");
    if early.cluster.as_ref().is_some_and(|c| c.readiness == "joining") {
        assert!(!early.ready && early.not_ready_because.is_some());
    }
    // Nobody is there: it serves with what it has.
    let status: Status = node.until("/v1/status", |s: &Status| {
        let cluster = s.cluster.as_ref().expect("a cluster");
        cluster.readiness == "degraded" && cluster.master == ["ipv4"]
    });
    assert!(
        status.ready && status.alarms.iter().any(|a| a.kind == "cold"),
        "{status:?}"
    );
    let cluster = status.cluster.expect("a cluster");
    assert_eq!(cluster.router_families, ["ipv4"]);
    assert_eq!(
        (cluster.node.as_str(), cluster.id, cluster.incarnation),
        ("lb1", 1, 1)
    );
    assert_eq!(
        cluster.answers_for,
        ["10.0.2.1", "192.0.2.80"].map(|a| a.parse::<IpAddr>().expect("an address"))
    );
    let peer = &cluster.peers[0];
    assert_eq!(
        (peer.name.as_str(), peer.up, peer.can_take_over),
        ("lb2", false, false)
    );
    assert_eq!(node.get("/ready", "*/*"), (200, "ready\n".to_string()));
    assert_eq!(node.get("/live", "*/*"), (200, "live\n".to_string()));
    assert_eq!(node.get("/nothing", "*/*").0, 404);

    let conns: Conns = node.until("/v1/conns?group=lb1", |c: &Conns| c.conns.len() == 1);
    assert_eq!(conns.conns[0].group.as_deref(), Some("lb1/1"));
    assert_eq!(conns.conns[0].service, "dns");
    let none: Conns = node.read("/v1/conns?group=2");
    assert_eq!(none.conns, []);
    let replication: Replication = node.until("/v1/replication", |r: &Replication| {
        r.groups.iter().any(|g| g.role == "owned" && g.sessions == 1)
    });
    assert!(replication.cluster && replication.groups[0].holder == "lb1");

    assert_eq!(node.ask(Method::Post, "/v1/promote").status, 200);
    let promoted = |is: bool| move |s: &Status| s.cluster.as_ref().is_some_and(|c| c.promoted == is);
    node.until("/v1/status", promoted(true));
    assert_eq!(node.ask(Method::Post, "/v1/demote").status, 200);
    node.until("/v1/status", promoted(false));

    assert_eq!(node.ask(Method::Post, "/v1/drain").status, 200);
    let status: Status = node.until("/v1/status", |s: &Status| {
        s.alarms.iter().any(|a| a.kind == "no-heir")
    });
    assert_eq!(status.not_ready_because.as_deref(), Some("the node is draining"));
    assert_eq!(
        node.get("/ready", "*/*"),
        (503, "not ready: the node is draining\n".to_string())
    );
    let (refused, why) = node.refused(Method::Post, "/v1/promote");
    assert_eq!((refused, why.error.as_str()), (409, "this node does not serve"));
    assert_eq!(node.ask(Method::Post, "/v1/undrain").status, 200);
    node.until("/v1/status", |s: &Status| s.ready);
}

/// Also of a node that is in no cluster; and nobody is there who could take over.
#[test]
fn a_port_that_is_down_is_an_alarm_and_the_node_not_ready() {
    let mut alone = config("port", "");
    alone.daemon.metrics = Some(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0));
    for config in [alone, clustered("port-of-a-cluster")] {
        let node = Node::start(config, vec![Some(vec![1])]);
        node.until("/v1/status", |s: &Status| s.ready);
        assert!(node.ports.set(0, Link::Down));
        node.bell.ring();
        let why =
            "port p (no device) is down: no link: it is set down, or its cable or the other end is dead";
        let status: Status = node.read("/v1/status");
        assert_eq!(
            (status.ready, status.not_ready_because.as_deref()),
            (false, Some(why))
        );
        let alarm = status.alarms.iter().find(|alarm| alarm.kind == "port-down");
        assert_eq!(alarm.map(|alarm| alarm.text.as_str()), Some(why));
        assert!(status.cluster.is_none_or(|c| !c.draining), "nobody can take over");
        assert_eq!(node.get("/ready", "*/*"), (503, format!("not ready: {why}\n")));
        let (_, page) = node.get("/metrics", "*/*");
        assert!(page.contains("evenkeel_port_up{port=\"p\"} 0.0"), "{page}");
        assert!(
            page.contains("evenkeel_alarms{alarm=\"port-down\"} 1.0"),
            "{page}"
        );
        assert!(page.contains("evenkeel_ready{} 0.0"), "{page}");
        assert!(node.ports.set(0, Link::Up));
        node.until("/v1/status", |s: &Status| {
            s.ready && s.alarms.iter().all(|a| a.kind != "port-down")
        });
    }
}

#[test]
fn the_metrics_page_has_what_the_docs_say_and_no_more() {
    let node = Node::start(clustered("metrics"), vec![Some(vec![1])]);
    node.until("/v1/status", |s: &Status| s.ready && s.conns == 1);
    let stats = node.until("/v1/stats", |s: &Stats| {
        s.health.get("succeeded").copied() == Some(1)
    });
    assert_eq!((stats.health["failed"], stats.health["not-made"]), (0, 0));
    assert_eq!(stats.health_not_made_because, None);
    let (status, page) = node.get("/metrics", "*/*");
    assert_eq!(status, 200);
    let kinds: HashMap<&str, &str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        assert!(name.starts_with("evenkeel_"), "{line}");
        let kind = kinds.get(name).unwrap_or_else(|| panic!("{name} has no type"));
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{line}");
        // No client's address is anywhere.
        assert!(!line.contains("100.64."), "{line}");
    }
    assert!(
        page.contains("evenkeel_conns{worker=\"0\",state=\"UDP_ONE_WAY\"} 1.0"),
        "{page}"
    );
    assert!(page.contains("evenkeel_server_weight{service=\"dns\",server=\"10.0.0.11:53\"} 1.0"));
    assert!(page.contains("evenkeel_server_up{service=\"dns\",server=\"10.0.0.11:53\"} 1.0"));
    for (result, count) in [("succeeded", 1), ("failed", 0), ("not-made", 0)] {
        let line = format!("evenkeel_health_checks_total{{result=\"{result}\"}} {count}\n");
        assert!(page.contains(&line), "{line}");
    }
    let late = |line: &str| line.starts_with("evenkeel_health_checks_late_total") && line.ends_with(" 0");
    assert!(page.lines().any(late), "{page}");
    assert!(page.contains("evenkeel_peer_up{peer=\"lb2\"} 0.0"));
    assert!(page.contains("evenkeel_buffers{pool=\"frames-0\"} 3.0"));
    assert!(page.contains("evenkeel_buffer_capacity{pool=\"frames-0\"} 512.0"));
    assert!(page.contains("evenkeel_port_up{port=\"p\"} 1.0"));
    assert!(page.contains("evenkeel_driver_events_total{port=\"p\",event=\"rx-missed\"} 7"));
    assert!(page.contains("evenkeel_held_packets{worker=\"0\"} 0.0"));
    // One conn.
    for (part, count) in [("v4", 1), ("v6", 0), ("ext", 0), ("timer", 1), ("slot-chunk", 1)] {
        let line = format!("evenkeel_table_places{{worker=\"0\",part=\"{part}\"}} {count}.0");
        assert!(page.contains(&line), "{line}");
    }
    let stats: Stats = node.read("/v1/stats");
    assert_eq!(stats.buffers["frames-0"], 3);
    assert!(stats.ports[0].up && stats.ports[0].driver["rx-missed"] == 7);
    let table = &stats.workers[0].table;
    assert_eq!((table["v4-places"], table["timers"], table["held"]), (1, 1, 0));
    assert_eq!((table["index-entries"], table["tombstones"]), (2, 0));
    assert!(page.contains("evenkeel_worker_up{worker=\"0\"} 1.0"));
    let docs = include_str!("../../../docs/ctl.md");
    let told: BTreeSet<&str> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `evenkeel_")?.split('`').next())
        .collect();
    let is: BTreeSet<&str> = kinds
        .keys()
        .filter_map(|name| name.strip_prefix("evenkeel_"))
        .collect();
    // Nobody else was ever heard.
    let absent = BTreeSet::from(["peer_silence_seconds"]);
    assert_eq!(&is | &absent, told);

    let (_, open) = node.get("/metrics", "application/openmetrics-text; version=1.0.0");
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE evenkeel_conns_opened counter\n"));
    assert!(open.contains("evenkeel_conns_opened_total{worker=\"0\"} 1"));
    // For ci/steps/46-metrics, which has promtool read it.
    if let Some(file) = std::env::var_os("EK_METRICS_PAGE") {
        std::fs::write(file, page).expect("written");
    }
}

#[test]
fn a_worker_that_does_not_answer_is_a_line_and_no_hang() {
    let mut config = config("hung", "");
    config.daemon.metrics = Some(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0));
    // The second worker never runs.
    let node = Node::start_within(config, vec![Some(vec![]), None], Duration::from_secs(3));
    let (status, page) = node.get("/metrics", "*/*");
    assert_eq!(status, 200);
    // What nobody checks is neither up nor down.
    assert!(!page.contains("evenkeel_server_up{"), "{page}");
    assert!(page.contains("evenkeel_worker_up{worker=\"0\"} 1.0\nevenkeel_worker_up{worker=\"1\"} 0.0\n"));
    assert!(!page.contains("evenkeel_receive_packets_total{worker=\"1\"}"));
    assert_eq!(
        node.get("/live", "*/*"),
        (503, "worker 1 does not answer\n".to_string())
    );
    assert_eq!(
        node.get("/ready", "*/*").0,
        200,
        "what is not looked at is not missed"
    );
    let status: Status = node.read("/v1/status");
    assert_eq!(
        status.workers.iter().map(|w| w.answered).collect::<Vec<_>>(),
        [true, false]
    );
    // Questions to it pile up to their bound, and are refused beyond it.
    let (sender, answers) = channel();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            let (node, sender) = (&node, sender.clone());
            scope.spawn(move || {
                for _ in 0..4 {
                    let reply = node.ask(Method::Get, "/v1/conns?cursor=1.0");
                    sender.send(reply.status).expect("heard");
                }
            });
        }
    });
    drop(sender);
    let all: Vec<u16> = answers.iter().collect();
    assert_eq!((all.len(), all.iter().all(|status| *status == 503)), (24, true));
}

/// Who asks for everything, and waits for a worker that hangs, keeps nobody from being told whether the node is ready.
#[test]
fn a_storm_of_scrapes_delays_no_probe() {
    let mut config = config("storm", "");
    config.daemon.metrics = Some(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0));
    // Longer than a connection lives: no scrape is answered in this test.
    let node = Node::start_within(config, vec![None], LIMIT);
    let at = node.metrics.expect("a listener");
    let scrape = |path: &str| {
        let mut stream = TcpStream::connect(at).expect("connected");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").expect("written");
        stream.set_nonblocking(true).expect("set");
        stream
    };
    for (path, share) in [("/metrics", http::METRICS_SHARE), ("/live", http::PROBE_SHARE)] {
        let mut waiting: Vec<_> = (0..share + 4).map(|_| scrape(path)).collect();
        let mut refused = 0;
        while refused < 4 {
            waiting.retain_mut(|scrape| {
                let mut said = [0; 12];
                if scrape.peek(&mut said).is_err() {
                    return true;
                }
                assert_eq!(&said, b"HTTP/1.1 503");
                refused += 1;
                false
            });
            assert_eq!(node.get("/ready", "*/*").0, 200);
        }
        assert_eq!((refused, waiting.len()), (4, share));
    }
}

#[test]
fn the_socket_is_the_daemons_alone_and_goes_with_it() {
    let mut config = config("socket", "");
    let path = config.daemon.ctl.clone();
    let folder = path.parent().expect("a folder").to_path_buf();
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("made");
    // A dead daemon's.
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists());
    let bound = bind(&config.daemon).expect("the old one is replaced");
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, SOCKET_MODE);
    drop(bound);
    assert!(!path.exists(), "it goes");

    std::fs::write(&path, "a file").expect("written");
    let refused = bind(&config.daemon).expect_err("somebody's file");
    assert!(refused.message.contains("is no socket"), "{}", refused.message);
    assert_eq!(std::fs::read(&path).expect("still there"), b"a file");
    std::fs::remove_file(&path).expect("removed");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address");
    config.daemon.metrics = Some(addr);
    let refused = bind(&config.daemon).expect_err("taken");
    assert!(refused.message.contains(&addr.to_string()), "{}", refused.message);
    assert!(
        refused.help.contains("another program has this port"),
        "{}",
        refused.help
    );
    assert!(!path.exists(), "nothing is left of a start that failed");
    let _ = std::fs::remove_dir_all(&folder);
}
