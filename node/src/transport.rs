//! Sync frames between nodes: bulk over TCP, all the rest over UDP.
//!
//! Each peer has a UDP socket of its own, connected to its address. So the kernel tells a peer's frames from those of
//! anybody else, before they cost a peer its place in a receive buffer. Whoever has that address and port still is no peer: what
//! cannot be a frame is dropped by a filter in the kernel, and what is damaged by a check behind the frame (`datagram`). What
//! others send is for a socket whose filter drops all of it. So what is no frame costs neither a thread's time nor room in a
//! buffer; the kernel counts it (`drops`). What looks like a peer's frame and is none costs a turn of the control thread.
//!
//! Over TCP a frame and its check follow the length of both (4 bytes, little-endian). A connection carries one direction: who
//! has long frames for a peer opens it, and opens it again with the next frame after it broke. A frame with a wrong check breaks
//! it, as where the next one begins is not known then. What was lost is asked for again by the engine.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use evenkeel_core::cluster::NodeId;
use evenkeel_core::sync::codec::{BULK_FRAME_LEN_MAX, LIVE_FRAME_LEN_MAX, NODE_FRAME_LEN_MAX, is_bulk};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::datagram::{CHECK_LEN, Way, drop_all};
use crate::drops::Sockets;
use crate::{Refusal, refusal};

/// Long frames that wait for one peer.
const BULK_OUT_COUNT: usize = 256;
/// Long frames that have come in and wait.
const BULK_IN_COUNT: usize = 64;
/// Connections of one peer at a time: an old one may not know yet that it broke. One more takes the place of the oldest.
const CONNECTION_COUNT_MAX: usize = 2;
/// To connect, and to get rid of one frame.
const STEP_TIME: Duration = Duration::from_secs(2);
/// A connection without a frame for so long is closed.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Receive buffer of a peer's socket: a second of a busy peer.
const RECEIVE_BUFFER_LEN: usize = 4 << 20;
/// Receive buffer of the socket for strays, where nothing comes to.
const STRAY_BUFFER_LEN: usize = 4 << 10;
/// Longest frame that comes over UDP.
pub(crate) const UDP_FRAME_LEN_MAX: usize = NODE_FRAME_LEN_MAX;

/// What happened to frames of other nodes on their way.
#[derive(Debug, Default)]
pub(crate) struct TransportCounters {
    /// Frames sent over UDP.
    pub(crate) udp_out: AtomicU64,
    /// Frames that came over UDP.
    pub(crate) udp_in: AtomicU64,
    /// Frames that the system did not take: its buffer was full.
    pub(crate) udp_full: AtomicU64,
    /// Frames that the system did not take for another reason: no route, for example.
    pub(crate) udp_failed: AtomicU64,
    /// Datagrams from the address of a peer that are damaged, or meant for another node.
    pub(crate) udp_damaged: AtomicU64,
    /// Long frames sent.
    pub(crate) bulk_out: AtomicU64,
    /// Long frames that came.
    pub(crate) bulk_in: AtomicU64,
    /// Long frames that found their queue full.
    pub(crate) bulk_full: AtomicU64,
    /// Long frames that were lost with a connection, or found none.
    pub(crate) bulk_failed: AtomicU64,
    /// Long frames that are damaged, or meant for another node; each cost its connection.
    pub(crate) bulk_damaged: AtomicU64,
    /// Long frames that are whole, and do not say that they are from who sent them.
    pub(crate) bulk_foreign: AtomicU64,
    /// Connections that were closed for what came over them, for whose they are, or for a newer one.
    pub(crate) bulk_refused: AtomicU64,
    /// Those of peers: what the system dropped there cannot be a frame, had a wrong checksum or found the buffer full.
    peers: Sockets,
    /// The one for who is no peer: it drops all.
    strays: Sockets,
}

impl TransportCounters {
    /// Datagrams from addresses of peers that the system dropped. It is asked by a file: not for the control thread.
    pub(crate) fn udp_dropped(&self) -> u64 {
        self.peers.dropped()
    }

    /// Datagrams of who is no peer. As above.
    pub(crate) fn stray(&self) -> u64 {
        self.strays.dropped()
    }

    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

struct PeerLink {
    id: NodeId,
    udp: UdpSocket,
    /// The same socket, to send: the system says whether there is room, and not whether the runtime has asked already.
    out: std::net::UdpSocket,
    /// To it, and from it.
    there: Way,
    here: Way,
    bulk: mpsc::Sender<Vec<u8>>,
}

/// What one of the nodes says to the others.
#[derive(Clone)]
pub(crate) struct Voice {
    peers: Arc<[PeerLink]>,
    pub(crate) counters: Arc<TransportCounters>,
}

/// What one of the nodes hears of the others.
pub(crate) struct Ear {
    peers: Arc<[PeerLink]>,
    /// Held, so that what strangers send does not count as sent to nobody.
    _strays: std::net::UdpSocket,
    bulk_in: mpsc::Receiver<Vec<u8>>,
    /// The one that was waited for.
    bulk_first: Option<Vec<u8>>,
    counters: Arc<TransportCounters>,
    /// Peer to be looked at first.
    first: usize,
    /// Ended with the ear.
    _tasks: tokio::task::JoinSet<()>,
}

/// A node, and the cluster that it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) cluster: u32,
    pub(crate) node: NodeId,
}

/// Takes the node's own address, and makes a link to each peer.
///
/// # Errors
///
/// The address is taken, or is none of this machine.
pub(crate) fn open(
    me: Member,
    own: SocketAddr,
    peers: &[(NodeId, SocketAddr)],
) -> Result<(Ear, Voice), Refusal> {
    let refused = |error: io::Error| bind_refused(own, &error);
    let listener = listen(own).map_err(refused)?;
    // Another program's socket there is found by one that shares nothing.
    drop(std::net::UdpSocket::bind(own).map_err(refused)?);
    let mut counters = TransportCounters::default();
    let strays = socket(own, None, STRAY_BUFFER_LEN, &drop_all()).map_err(refused)?;
    counters.strays.add(&strays).map_err(refused)?;
    let mut sockets = Vec::with_capacity(peers.len());
    for (id, addr) in peers {
        let unreachable = |error: io::Error| {
            refusal(
                format!("cannot reach node {} at {addr}: {error}", id.0),
                "give this machine a route to the other nodes' `sync` addresses",
            )
        };
        let way = |from, to| Way {
            cluster: me.cluster,
            from,
            to,
        };
        let (there, here) = (way(me.node, *id), way(*id, me.node));
        let out = socket(own, Some(*addr), RECEIVE_BUFFER_LEN, &here.filter()).map_err(unreachable)?;
        let udp = out
            .try_clone()
            .and_then(UdpSocket::from_std)
            .map_err(unreachable)?;
        counters.peers.add(&out).map_err(unreachable)?;
        sockets.push((out, udp, there, here));
    }
    let counters = Arc::new(counters);
    let (bulk_sender, bulk_in) = mpsc::channel(BULK_IN_COUNT);
    let mut tasks = tokio::task::JoinSet::new();
    let mut links = Vec::with_capacity(peers.len());
    for ((id, addr), (out, udp, there, here)) in peers.iter().zip(sockets) {
        let (bulk, frames) = mpsc::channel(BULK_OUT_COUNT);
        tasks.spawn(send_bulk(own.ip(), *addr, there, frames, Arc::clone(&counters)));
        links.push(PeerLink {
            id: *id,
            udp,
            out,
            there,
            here,
            bulk,
        });
    }
    let ends = peers.iter().map(|(_, addr)| addr.ip());
    let hosts = hosts(ends.zip(links.iter().map(|link| link.here)));
    tasks.spawn(accept(listener, hosts, bulk_sender, Arc::clone(&counters)));
    let peers: Arc<[PeerLink]> = links.into();
    let voice = Voice {
        peers: Arc::clone(&peers),
        counters: Arc::clone(&counters),
    };
    let ear = Ear {
        peers,
        _strays: strays,
        bulk_in,
        bulk_first: None,
        counters,
        first: 0,
        _tasks: tasks,
    };
    Ok((ear, voice))
}

impl Voice {
    /// Sends a frame to one node or all others; whether it left for each of them. Leases run from there: whoever was
    /// not sent a heartbeat may think this node dead. Never waits.
    pub(crate) fn send(&self, to: Option<NodeId>, frame: &[u8]) -> bool {
        let (mut meant, mut left) = (0, 0);
        for peer in self.peers.iter().filter(|peer| to.is_none_or(|to| to == peer.id)) {
            meant += 1;
            left += usize::from(self.send_one(peer, frame));
        }
        left == meant && (meant > 0 || to.is_none())
    }

    fn send_one(&self, peer: &PeerLink, frame: &[u8]) -> bool {
        let c = &self.counters;
        // That nobody listens there is said of an earlier frame, and this one was not sent: once more.
        let check = peer.there.check(frame);
        let parts = [io::IoSlice::new(frame), io::IoSlice::new(&check)];
        let out = SockRef::from(&peer.out);
        let sent = match out.send_vectored(&parts) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => out.send_vectored(&parts),
            sent => sent,
        };
        TransportCounters::add(match &sent {
            Ok(_) => &c.udp_out,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => &c.udp_full,
            Err(_) => &c.udp_failed,
        });
        sent.is_ok()
    }

    /// Sends a worker's frame: over TCP if it is of bulk, or a long one. Never waits.
    pub(crate) fn send_of_worker(&self, to: Option<NodeId>, frame: &[u8]) {
        if frame.len() <= LIVE_FRAME_LEN_MAX && !is_bulk(frame) {
            self.send(to, frame);
            return;
        }
        for peer in self.peers.iter().filter(|peer| to.is_none_or(|to| to == peer.id)) {
            if peer.bulk.try_send(frame.to_vec()).is_err() {
                TransportCounters::add(&self.counters.bulk_full);
            }
        }
    }
}

impl Ear {
    /// Waits until a frame may have come.
    pub(crate) async fn readable(&mut self) {
        let peers = &self.peers;
        let udp = std::future::poll_fn(|cx| {
            // All are asked, so that each of them wakes us.
            let ready = peers
                .iter()
                .filter(|peer| peer.udp.poll_recv_ready(cx).is_ready());
            if ready.count() > 0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        tokio::select! {
            () = udp => (),
            Some(frame) = self.bulk_in.recv() => self.bulk_first = Some(frame),
        }
    }

    /// Takes in what has come, at most so many frames; how many there were, with those that are damaged.
    pub(crate) fn receive(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut buffer = [0; UDP_FRAME_LEN_MAX + CHECK_LEN + 1];
        let mut count = 0;
        let peers = self.peers.len();
        // Each has its share, and a busy one does not starve the others.
        let share = (most / (peers + 1)).max(1);
        for step in 0..peers {
            let at = (self.first + step) % peers;
            let Some(peer) = self.peers.get(at) else { continue };
            for _ in 0..share {
                match peer.udp.try_recv(&mut buffer) {
                    Ok(len) => {
                        count += 1;
                        if let Some(frame) = peer.here.open(buffer.get(..len).unwrap_or_default()) {
                            TransportCounters::add(&self.counters.udp_in);
                            take(frame);
                        } else {
                            TransportCounters::add(&self.counters.udp_damaged);
                        }
                    }
                    // An ICMP error of an earlier frame: the next call has what came.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => (),
                    Err(_) => break,
                }
            }
        }
        self.first = (self.first + 1) % peers.max(1);
        for _ in 0..share {
            let frame = self.bulk_first.take().or_else(|| self.bulk_in.try_recv().ok());
            let Some(frame) = frame else { break };
            TransportCounters::add(&self.counters.bulk_in);
            count += 1;
            take(&frame);
        }
        count
    }
}

fn bind_refused(own: SocketAddr, error: &io::Error) -> Refusal {
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has this port, maybe another evenkeel: end it, or choose another `sync` address"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has this address: add it, or correct `sync` of this node (or `this_node`)"
        }
        _ => "choose another `sync` address for this node",
    };
    refusal(format!("cannot take the sync address {own}: {error}"), help)
}

fn listen(own: SocketAddr) -> io::Result<TcpListener> {
    let socket = if own.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A listener that has just gone leaves connections behind that would hold the port.
    socket.set_reuseaddr(true)?;
    socket.bind(own)?;
    socket.listen(16)
}

fn socket(
    own: SocketAddr,
    peer: Option<SocketAddr>,
    buffer_len: usize,
    filter: &[SockFilter],
) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(own), Type::DGRAM, Some(Protocol::UDP))?;
    // Several sockets of this process have the same address.
    socket.set_reuse_address(true)?;
    // Beyond the system's bound, where we may: a burst of frames must not take a heartbeat's place.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, buffer_len).is_err() {
        socket.set_recv_buffer_size(buffer_len)?;
    }
    socket.set_nonblocking(true)?;
    // Before it has an address: until it is connected, it is open to all.
    let refused = |error| io::Error::other(format!("the kernel takes no socket filter: {error}"));
    socket.attach_filter(filter).map_err(refused)?;
    socket.bind(&own.into())?;
    if let Some(peer) = peer {
        socket.connect(&peer.into())?;
    }
    Ok(socket.into())
}

/// Sends long frames to one peer.
async fn send_bulk(
    own: IpAddr,
    peer: SocketAddr,
    there: Way,
    mut frames: mpsc::Receiver<Vec<u8>>,
    counters: Arc<TransportCounters>,
) {
    let mut stream: Option<TcpStream> = None;
    loop {
        let frame = tokio::select! {
            // In this order: a frame that is written after the end is lost.
            biased;
            () = over(&mut stream) => {
                stream = None;
                continue;
            }
            frame = frames.recv() => frame,
        };
        let Some(frame) = frame else { return };
        if stream.is_none() {
            stream = timeout(STEP_TIME, connect(own, peer))
                .await
                .ok()
                .and_then(Result::ok);
        }
        let Some(open) = &mut stream else {
            TransportCounters::add(&counters.bulk_failed);
            continue;
        };
        let len = u32::try_from(frame.len() + CHECK_LEN).unwrap_or(0).to_le_bytes();
        let sent = timeout(STEP_TIME, async {
            open.write_all(&len).await?;
            open.write_all(&frame).await?;
            open.write_all(&there.check(&frame)).await
        });
        match sent.await {
            Ok(Ok(())) => TransportCounters::add(&counters.bulk_out),
            _ => {
                TransportCounters::add(&counters.bulk_failed);
                stream = None;
            }
        }
    }
}

/// Until a connection is over: the peer, which says nothing on it, has closed it for being idle, or is gone.
async fn over(stream: &mut Option<TcpStream>) {
    match stream {
        Some(stream) => {
            // Whatever comes is no good.
            let _ = stream.read(&mut [0; 1]).await;
        }
        None => std::future::pending().await,
    }
}

async fn connect(own: IpAddr, peer: SocketAddr) -> io::Result<TcpStream> {
    let socket = if peer.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.bind(SocketAddr::new(own, 0))?;
    let stream = socket.connect(peer).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Who connects from one address.
struct Host {
    ip: IpAddr,
    /// From each peer there: a connection has a port of its own, so only its frames say which of them it is.
    ways: Arc<[Way]>,
    /// Who reads its connections, oldest first: [`CONNECTION_COUNT_MAX`] for each peer at most.
    open: VecDeque<AbortHandle>,
}

fn hosts(peers: impl Iterator<Item = (IpAddr, Way)>) -> Vec<Host> {
    let mut ways = BTreeMap::<IpAddr, Vec<Way>>::new();
    for (ip, way) in peers {
        ways.entry(ip).or_default().push(way);
    }
    let host = |(ip, ways): (IpAddr, Vec<Way>)| Host {
        ip,
        ways: ways.into(),
        open: VecDeque::new(),
    };
    ways.into_iter().map(host).collect()
}

/// Takes connections of peers.
async fn accept(
    listener: TcpListener,
    mut hosts: Vec<Host>,
    frames: mpsc::Sender<Vec<u8>>,
    counters: Arc<TransportCounters>,
) {
    let mut readers = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = readers.join_next(), if !readers.is_empty() => continue,
        };
        let Ok((stream, from)) = accepted else {
            // Out of file descriptors, say: not for ever.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(host) = hosts.iter_mut().find(|host| host.ip == from.ip()) else {
            TransportCounters::add(&counters.bulk_refused);
            continue;
        };
        host.open.retain(|reader| !reader.is_finished());
        // Who only holds connections open must not keep the peer out: its newest one is the one that it knows of.
        while host.open.len() >= CONNECTION_COUNT_MAX * host.ways.len()
            && let Some(oldest) = host.open.pop_front()
        {
            oldest.abort();
            TransportCounters::add(&counters.bulk_refused);
        }
        let (ways, frames, counters) = (Arc::clone(&host.ways), frames.clone(), Arc::clone(&counters));
        host.open.push_back(readers.spawn(async move {
            if read_bulk(stream, &ways, &frames, &counters).await == Ended::Refused {
                TransportCounters::add(&counters.bulk_refused);
            }
        }));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// By the peer, or for being idle.
    Closed,
    /// For what came.
    Refused,
}

async fn read_bulk(
    mut stream: TcpStream,
    ways: &[Way],
    frames: &mpsc::Sender<Vec<u8>>,
    counters: &TransportCounters,
) -> Ended {
    loop {
        let mut len = [0; 4];
        let Ok(Ok(_)) = timeout(IDLE_TIME, stream.read_exact(&mut len)).await else {
            return Ended::Closed;
        };
        let len = u32::from_le_bytes(len) as usize;
        if len <= CHECK_LEN || len > BULK_FRAME_LEN_MAX + CHECK_LEN {
            return Ended::Refused;
        }
        let mut frame = vec![0; len];
        let Ok(Ok(_)) = timeout(IDLE_TIME, stream.read_exact(&mut frame)).await else {
            return Ended::Closed;
        };
        let Some(way) = ways.iter().find(|way| way.open(&frame).is_some()) else {
            TransportCounters::add(&counters.bulk_damaged);
            return Ended::Refused;
        };
        frame.truncate(len - CHECK_LEN);
        // The kernel looks at that of datagrams.
        if !way.is_of_sender(&frame) {
            TransportCounters::add(&counters.bulk_foreign);
            continue;
        }
        // A full queue makes the peer wait.
        if frames.send(frame).await.is_err() {
            return Ended::Closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::cluster::{GroupId, Incarnation, PeerId};
    use evenkeel_core::sync::codec::{FrameHeader, FrameWriter, STREAM_BULK};
    use evenkeel_core::sync::{SyncBody, Version};

    /// Two nodes of the loopback network, and a port that was free just now.
    fn ends(a: u8, b: u8) -> (SocketAddr, SocketAddr) {
        let host = |n: u8| IpAddr::from([127, 79, 0, n]);
        let port = std::net::UdpSocket::bind((host(a), 0))
            .and_then(|socket| socket.local_addr())
            .expect("loopback has room")
            .port();
        (SocketAddr::new(host(a), port), SocketAddr::new(host(b), port))
    }

    #[tokio::test]
    async fn a_connection_that_the_peer_has_closed_takes_no_frame() {
        let host = IpAddr::from([127, 79, 0, 90]);
        let listener = TcpListener::bind((host, 0)).await.expect("loopback has room");
        let peer = listener.local_addr().expect("bound");
        let (frames, waiting) = mpsc::channel(4);
        let counters = Arc::new(TransportCounters::default());
        let there = Way {
            cluster: 7,
            from: NodeId(1),
            to: NodeId(2),
        };
        let sender = tokio::spawn(send_bulk(host, peer, there, waiting, Arc::clone(&counters)));
        for n in 0..3u8 {
            frames.send(vec![n; 5]).await.expect("it runs");
            let told = timeout(Duration::from_secs(60), async {
                let (mut stream, _) = listener.accept().await.expect("a new connection");
                let mut frame = [0; 9 + CHECK_LEN];
                stream.read_exact(&mut frame).await.expect("whole");
                assert_eq!(frame[..9], [13, 0, 0, 0, n, n, n, n, n]);
                assert_eq!(frame[9..], there.check(&[n; 5]));
                // As who is idle, or gone: the sender lets go of it, though it has nothing to send.
                stream.shutdown().await.expect("open");
                assert_eq!(stream.read(&mut frame).await.expect("closed in order"), 0);
            });
            told.await.expect("frame and end come");
        }
        drop(frames);
        sender.await.expect("it ends");
        assert_eq!(counters.bulk_out.load(Ordering::Relaxed), 3);
        assert_eq!(counters.bulk_failed.load(Ordering::Relaxed), 0);
    }

    /// Connects from a host.
    async fn dial(host: &str, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(host.parse().expect("an address"), 0))?;
        socket.connect(to).await
    }

    type Node = (Ear, Voice);

    fn member(node: u16) -> Member {
        Member {
            cluster: 7,
            node: NodeId(node),
        }
    }

    fn pair(a: u8, b: u8) -> (Node, Node, SocketAddr) {
        let (at, to) = ends(a, b);
        let one = open(member(1), at, &[(NodeId(2), to)]).expect("both are loopback addresses");
        let other = open(member(2), to, &[(NodeId(1), at)]).expect("both are loopback addresses");
        (one, other, at)
    }

    /// A frame of a node, as far as this module and the kernel look: the number is in its header, where its life is.
    fn frame_of(node: u16, number: u64, len: usize) -> Vec<u8> {
        frame_with(node, number, len, &SyncBody::Heartbeat { last: 0 })
    }

    fn frame_with(node: u16, number: u64, len: usize, body: &SyncBody) -> Vec<u8> {
        let header = FrameHeader {
            cluster: 7,
            from: PeerId {
                node: NodeId(node),
                incarnation: Incarnation(number),
            },
            stream: 0,
            packet_number: 0,
        };
        let mut frame = Vec::new();
        let mut writer = FrameWriter::new(&mut frame, &header, LIVE_FRAME_LEN_MAX);
        writer.push(0, false, body).expect("it fits");
        writer.finish();
        frame.resize(len, 0);
        frame[14..16].copy_from_slice(&(len as u16).to_le_bytes());
        frame
    }

    /// Frames that come, until there are so many.
    async fn frames(ear: &mut Ear, count: usize) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        while got.len() < count {
            ear.readable().await;
            ear.receive(256, |frame| got.push(frame.to_vec()));
        }
        got
    }

    /// Until something has been counted, without any frame.
    async fn until(ear: &mut Ear, counter: impl Fn(&TransportCounters) -> u64, at_least: u64) {
        let counters = Arc::clone(&ear.counters);
        while counter(&counters) < at_least {
            let _ = timeout(Duration::from_millis(10), ear.readable()).await;
            ear.receive(256, |_| panic!("no frame is to come"));
        }
    }

    fn of(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn bulk_and_long_frames_go_by_tcp_and_all_others_by_udp() {
        let ((mut ear, _), (_ear, voice), _) = pair(1, 2);
        let short = frame_of(2, 1, 80);
        let longest = frame_of(2, 2, UDP_FRAME_LEN_MAX);
        let of_worker = frame_of(2, 3, LIVE_FRAME_LEN_MAX);
        assert!(voice.send(None, &short) && voice.send(Some(NodeId(1)), &longest));
        assert!(!voice.send(Some(NodeId(9)), &short));
        voice.send_of_worker(Some(NodeId(1)), &of_worker);
        let long: Vec<_> = (0..100).map(|n| frame_of(2, n, BULK_FRAME_LEN_MAX)).collect();
        for frame in &long {
            voice.send_of_worker(Some(NodeId(1)), frame);
        }
        let empty = SyncBody::SlotsEmpty {
            id: 1,
            group: GroupId::default(),
            count: 1,
            as_of: Version::default(),
        };
        let mut bulk = frame_with(2, 4, 100, &empty);
        bulk[10..12].copy_from_slice(&STREAM_BULK.to_le_bytes());
        voice.send_of_worker(Some(NodeId(1)), &bulk);
        let got = frames(&mut ear, 104).await;
        let came: Vec<_> = got.iter().filter(|f| f.len() == BULK_FRAME_LEN_MAX).collect();
        assert_eq!(came, long.iter().collect::<Vec<_>>());
        assert!(
            [short, longest, of_worker, bulk]
                .iter()
                .all(|frame| got.contains(frame))
        );
        assert_eq!((of(&ear.counters.udp_in), of(&ear.counters.bulk_in)), (3, 101));
        // The last one is counted when the system has taken it, which may be after it came.
        while of(&voice.counters.bulk_out) < 101 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            (of(&voice.counters.udp_out), of(&voice.counters.bulk_out)),
            (3, 101)
        );
    }

    #[tokio::test]
    async fn a_frame_has_left_only_if_it_left_for_each_who_could_take_this_node_for_dead() {
        let (at, to) = ends(12, 13);
        let third = SocketAddr::new(IpAddr::from([127, 79, 0, 14]), at.port());
        let peers = [(NodeId(2), to), (NodeId(3), third)];
        let (_ear, voice) = open(member(1), at, &peers).expect("loopback addresses");
        assert!(voice.send(None, b"to both, of whom nobody listens yet"));
        // The system tells of that now; what is sent leaves all the same.
        assert!(voice.send(None, b"again") && voice.send(Some(NodeId(3)), b"to one"));
        let lost = voice.peers.iter().find(|p| p.id == NodeId(3)).expect("a peer");
        rustix::net::shutdown(&lost.out, rustix::net::Shutdown::Write).expect("it is connected");
        assert!(!voice.send(None, b"to one of two"));
        assert!(!voice.send(Some(NodeId(3)), b"to nobody"));
        assert!(voice.send(Some(NodeId(2)), b"to the other one"));
        assert_eq!(of(&voice.counters.udp_failed), 2);
    }

    #[tokio::test]
    async fn a_node_without_peers_has_nobody_to_wait_for() {
        let (at, _) = ends(15, 15);
        let (_ear, voice) = open(member(1), at, &[]).expect("a loopback address");
        assert!(voice.send(None, b"heartbeat"), "its lease runs from here");
        assert!(!voice.send(Some(NodeId(2)), b"to nobody"));
    }

    #[tokio::test]
    async fn a_full_queue_of_long_frames_is_counted() {
        let (_one, (_ear, voice), _) = pair(3, 4);
        // The task that sends them has had no turn yet.
        for _ in 0..BULK_OUT_COUNT + 5 {
            voice.send_of_worker(None, &[0; BULK_FRAME_LEN_MAX]);
        }
        assert_eq!(of(&voice.counters.bulk_full), 5);
    }

    #[tokio::test]
    async fn frames_of_strangers_are_counted_and_not_taken() {
        let ((mut ear, _), (_ear, voice), at) = pair(5, 6);
        let stranger = std::net::UdpSocket::bind("127.79.0.7:0").expect("loopback has room");
        for _ in 0..10 {
            stranger.send_to(b"hello", at).expect("sent");
        }
        until(&mut ear, TransportCounters::stray, 10).await;
        // The peer's own address with another port is a stranger, too.
        let other = std::net::UdpSocket::bind("127.79.0.6:0").expect("loopback has room");
        other.send_to(b"hello", at).expect("sent");
        until(&mut ear, TransportCounters::stray, 11).await;
        let frame = frame_of(2, 1, 80);
        assert!(voice.send(None, &frame));
        assert_eq!(frames(&mut ear, 1).await, [frame]);
        assert_eq!(ear.counters.udp_dropped(), 0);
    }

    /// From the very socket of the peer comes garbage, between its frames: each of these comes, all else is counted.
    #[tokio::test]
    async fn garbage_from_a_peers_own_address_is_counted_and_keeps_no_frame_out() {
        let ((mut ear, _), (_ear, voice), _) = pair(16, 17);
        let (mut dropped, mut damaged) = (0, 0);
        let mut sent = Vec::new();
        for number in 0..100 {
            let frame = frame_of(2, number, 80 + number as usize);
            let mut whole = frame.clone();
            whole.extend(voice.peers[0].there.check(&frame));
            let out = |datagram: &[u8]| {
                voice.peers[0].out.send(datagram).expect("sent");
            };
            // Another life of the sender, another number, another check; and the whole for another node.
            for at in [16, 23, 24, whole.len() - 1] {
                let mut other = whole.clone();
                other[at] ^= 1 << (number % 8);
                out(&other);
                damaged += 1;
            }
            let mut other = frame.clone();
            other.extend(voice.peers[0].here.check(&frame));
            out(&other);
            damaged += 1;
            // Cut, without its check, of another cluster or sender, and what is no frame at all.
            let mut garbage = vec![
                whole[..20].to_vec(),
                frame.clone(),
                Vec::new(),
                vec![number as u8; 1400],
            ];
            for at in [4, 8] {
                let mut other = whole.clone();
                other[at] ^= 0x10;
                garbage.push(other);
            }
            for datagram in garbage {
                out(&datagram);
                dropped += 1;
            }
            assert!(voice.send(None, &frame));
            sent.push(frame);
        }
        assert_eq!(frames(&mut ear, sent.len()).await, sent);
        until(&mut ear, |c| of(&c.udp_damaged), damaged).await;
        until(&mut ear, TransportCounters::udp_dropped, dropped).await;
        let counters = Arc::clone(&ear.counters);
        assert_eq!(of(&counters.udp_damaged), damaged);
        assert_eq!((counters.udp_dropped(), counters.stray()), (dropped, 0));
        assert_eq!(of(&counters.udp_in), 100);
    }

    #[tokio::test]
    async fn connections_of_strangers_and_nonsense_of_peers_are_closed() {
        let ((mut ear, _), (_ear, voice), at) = pair(8, 9);
        let dial = |host| dial(host, at);
        let mut stranger = dial("127.79.0.7").await.expect("accepted by the system");
        until(&mut ear, |c| of(&c.bulk_refused), 1).await;
        assert_eq!(stranger.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed");
        let longest = BULK_FRAME_LEN_MAX + CHECK_LEN;
        for (nonsense, refused) in [(u32::MAX, 2), (CHECK_LEN as u32, 3), (longest as u32 + 1, 4)] {
            let mut peer = dial("127.79.0.9").await.expect("accepted");
            peer.write_all(&nonsense.to_le_bytes()).await.expect("sent");
            until(&mut ear, |c| of(&c.bulk_refused), refused).await;
        }
        // Half a frame is nothing.
        let mut half = dial("127.79.0.9").await.expect("accepted");
        half.write_all(&[16, 0, 0, 0, 1]).await.expect("sent");
        drop(half);
        let frame = frame_of(2, 1, BULK_FRAME_LEN_MAX);
        voice.send_of_worker(None, &frame);
        assert_eq!(frames(&mut ear, 1).await, [frame]);
        assert_eq!(of(&ear.counters.bulk_in), 1);
        assert_eq!(
            of(&ear.counters.bulk_damaged),
            0,
            "none was whole enough for that"
        );
    }

    /// A long frame as it is on its way.
    fn bulk(way: Way, frame: &[u8]) -> Vec<u8> {
        let len = (frame.len() + CHECK_LEN) as u32;
        [&len.to_le_bytes(), frame, &way.check(frame)].concat()
    }

    /// From the peer's own address: whatever bit is wrong, and whoever it is meant for or said to be from, the engine never
    /// sees it, as it would take any later life of a sender for the true one.
    #[tokio::test]
    async fn a_long_frame_that_is_damaged_or_anothers_is_no_frame() {
        let ((mut ear, _), (_ear, voice), at) = pair(18, 19);
        let here = voice.peers[0].there;
        let good = bulk(here, &frame_of(2, 1, BULK_FRAME_LEN_MAX));
        let mut damaged = Vec::new();
        // Of the header the sender's life; something of the middle; the check.
        for at in [4 + 16, 4 + 23, 5000, good.len() - 1] {
            let mut other = good.clone();
            other[at] ^= 1;
            damaged.push(other);
        }
        let frame = frame_of(2, 1, BULK_FRAME_LEN_MAX);
        for way in [
            Way { cluster: 8, ..here },
            Way {
                from: NodeId(3),
                ..here
            },
            Way {
                to: NodeId(3),
                ..here
            },
        ] {
            damaged.push(bulk(way, &frame));
        }
        // As it went before there was a check.
        damaged.push([&(frame.len() as u32).to_le_bytes(), &frame[..]].concat());
        for (damaged, count) in damaged.iter().zip(1..) {
            let mut peer = dial("127.79.0.19", at).await.expect("accepted");
            peer.write_all(damaged).await.expect("sent");
            until(&mut ear, |c| of(&c.bulk_damaged), count).await;
            assert_eq!(peer.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed");
            until(&mut ear, |c| of(&c.bulk_refused), count).await;
        }
        // Whole, and of another: only the frame is lost.
        let mut peer = dial("127.79.0.19", at).await.expect("accepted");
        for (from, count) in [(3, 1), (1, 2)] {
            let other = bulk(here, &frame_of(from, 9, 3000));
            peer.write_all(&other).await.expect("sent");
            until(&mut ear, |c| of(&c.bulk_foreign), count).await;
        }
        peer.write_all(&bulk(here, &[0xff; 3000])).await.expect("sent");
        until(&mut ear, |c| of(&c.bulk_foreign), 3).await;
        peer.write_all(&good).await.expect("sent");
        assert_eq!(frames(&mut ear, 1).await, [frame]);
        let c = Arc::clone(&ear.counters);
        assert_eq!((of(&c.bulk_in), of(&c.bulk_foreign)), (1, 3));
        assert_eq!((of(&c.bulk_damaged), of(&c.bulk_refused)), (8, 8));
    }

    /// Two peers of one host: each is known by its frames.
    #[tokio::test]
    async fn peers_of_one_address_are_told_apart_by_their_frames() {
        let (at, to) = ends(20, 21);
        let other = SocketAddr::new(to.ip(), to.port().wrapping_add(1).max(1024));
        let (mut ear, _voice) =
            open(member(1), at, &[(NodeId(2), to), (NodeId(3), other)]).expect("loopback");
        for from in [2, 3] {
            let way = Way {
                cluster: 7,
                from: NodeId(from),
                to: NodeId(1),
            };
            let frame = frame_of(from, 1, 3000);
            let mut peer = dial("127.79.0.21", at).await.expect("accepted");
            peer.write_all(&bulk(way, &frame)).await.expect("sent");
            assert_eq!(frames(&mut ear, 1).await, [frame]);
        }
        assert_eq!(of(&ear.counters.bulk_refused), 0);
    }

    /// Who only holds connections open, one with half a frame, keeps no peer out: they go, oldest first.
    #[tokio::test]
    async fn a_newer_connection_of_a_peer_takes_the_place_of_the_oldest() {
        let ((mut ear, _), (_ear, voice), at) = pair(22, 23);
        let mut idle = Vec::new();
        for _ in 0..CONNECTION_COUNT_MAX {
            let mut peer = dial("127.79.0.23", at).await.expect("accepted");
            peer.write_all(&[0, 16]).await.expect("sent");
            idle.push(peer);
        }
        for n in 0..3 {
            let mut newer = dial("127.79.0.23", at).await.expect("accepted");
            until(&mut ear, |c| of(&c.bulk_refused), n + 1).await;
            let mut oldest = idle.remove(0);
            assert_eq!(oldest.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed");
            newer.write_all(&[0, 16]).await.expect("sent");
            idle.push(newer);
        }
        let frame = frame_of(2, 1, BULK_FRAME_LEN_MAX);
        voice.send_of_worker(None, &frame);
        assert_eq!(frames(&mut ear, 1).await, std::slice::from_ref(&frame));
        assert_eq!(of(&ear.counters.bulk_refused), 4);
        // Of two connections the newer one is left: the peer's.
        voice.send_of_worker(None, &frame);
        assert_eq!(frames(&mut ear, 1).await, [frame]);
        assert_eq!(of(&voice.counters.bulk_failed), 0);
    }

    #[tokio::test]
    async fn a_taken_address_and_a_foreign_one_are_refused_with_a_remedy() {
        let (at, to) = ends(10, 11);
        let udp = std::net::UdpSocket::bind(at).expect("free");
        let refused = |own| open(member(1), own, &[(NodeId(2), to)]).err().expect("refused");
        let why = refused(at);
        assert!(
            why.message.contains(&at.to_string()) && why.help.contains("another program"),
            "{why:?}"
        );
        drop(udp);
        let _node = open(member(1), at, &[(NodeId(2), to)]).expect("free again");
        assert!(refused(at).help.contains("maybe another evenkeel"));
        let why = refused("192.0.2.1:4790".parse().expect("an address"));
        assert!(why.help.contains("no interface of this machine"), "{why:?}");
    }
}
