//! One TCP connection in a stack of its own: smoltcp's, with an interface that knows nothing but this connection.
//!
//! One interface and one socket set a connection: a shared set looks at every socket on every poll.

use std::net::{IpAddr, SocketAddr};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};

use super::wire::ETHERNET_LEN;

/// The end of the stack at which packets cross.
#[derive(Debug)]
struct Wire {
    /// A frame; the packet is behind its Ethernet header and ends at the length.
    rx: Option<(Vec<u8>, usize)>,
    /// Frames, their Ethernet headers left open.
    tx: Vec<Vec<u8>>,
    mtu: usize,
}

struct Rx(Vec<u8>, usize);
struct Tx<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self
            .0
            .get(ETHERNET_LEN..ETHERNET_LEN + self.1)
            .unwrap_or_default())
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; ETHERNET_LEN + len];
        let result = f(&mut frame[ETHERNET_LEN..]);
        self.0.push(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: TcpInstant) -> Option<(Rx, Tx<'_>)> {
        let (frame, len) = self.rx.take()?;
        Some((Rx(frame, len), Tx(&mut self.tx)))
    }

    fn transmit(&mut self, _: TcpInstant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = self.mtu;
        // The host has verified what comes in.
        let mut checksum = ChecksumCapabilities::default();
        checksum.ipv4 = Checksum::Tx;
        checksum.tcp = Checksum::Tx;
        caps.checksum = checksum;
        caps
    }
}

/// See the module.
pub(super) struct Stack {
    iface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    socket: Option<SocketHandle>,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stack")
    }
}

/// smoltcp counts microseconds.
fn time(now: u64) -> TcpInstant {
    TcpInstant::from_micros((now / 1_000) as i64)
}

fn address(addr: IpAddr) -> IpAddress {
    addr.into()
}

impl Stack {
    /// Without a socket: refuses whatever comes.
    fn bare(now: u64, local: IpAddr, mtu: u16, seed: u64) -> Self {
        let mut wire = Wire {
            rx: None,
            tx: Vec::new(),
            mtu: mtu.into(),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut iface = Interface::new(config, &mut wire, time(now));
        // All the world is on the link: where packets go is the host's to say.
        iface.update_ip_addrs(|addrs| {
            let _ = addrs.push(IpCidr::new(address(local), 0));
        });
        Stack {
            iface,
            wire,
            sockets: SocketSet::new(Vec::with_capacity(1)),
            socket: None,
        }
    }

    fn with_socket(now: u64, local: IpAddr, mtu: u16, seed: u64, buffer: usize) -> Self {
        let mut stack = Stack::bare(now, local, mtu, seed);
        // Twice as much as a peer has under way: no acknowledgement closes the window. (This stack's sender stops for
        // good if its timer runs out while the last window it saw, by an acknowledgement that was overtaken, is zero.)
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; 2 * buffer]),
            SocketBuffer::new(vec![0; buffer]),
        );
        // Requests and replies are whole messages.
        socket.set_nagle_enabled(false);
        stack.socket = Some(stack.sockets.add(socket));
        stack
    }

    /// A client that connects.
    pub(super) fn connect(
        now: u64,
        local: SocketAddr,
        remote: SocketAddr,
        mtu: u16,
        seed: u64,
        buffer: usize,
    ) -> Option<Self> {
        let mut stack = Stack::with_socket(now, local.ip(), mtu, seed, buffer);
        let remote = IpEndpoint::new(address(remote.ip()), remote.port());
        let local = IpListenEndpoint {
            addr: Some(address(local.ip())),
            port: local.port(),
        };
        let Stack {
            iface,
            sockets,
            socket,
            ..
        } = &mut stack;
        let socket = sockets.get_mut::<Socket<'_>>((*socket)?);
        socket.connect(iface.context(), remote, local).ok()?;
        Some(stack)
    }

    /// A server that waits for one connection.
    pub(super) fn listen(now: u64, local: SocketAddr, mtu: u16, seed: u64, buffer: usize) -> Option<Self> {
        let mut stack = Stack::with_socket(now, local.ip(), mtu, seed, buffer);
        let endpoint = IpListenEndpoint {
            addr: Some(address(local.ip())),
            port: local.port(),
        };
        stack.socket_mut()?.listen(endpoint).ok()?;
        Some(stack)
    }

    /// What a host answers to a segment for which it has no connection.
    pub(super) fn refuse(now: u64, local: IpAddr, mtu: u16, frame: Vec<u8>, len: usize) -> Vec<Vec<u8>> {
        let mut stack = Stack::bare(now, local, mtu, 0);
        stack.wire.rx = Some((frame, len));
        stack.poll(now);
        stack.wire.tx
    }

    pub(super) fn socket_mut(&mut self) -> Option<&mut Socket<'static>> {
        Some(self.sockets.get_mut::<Socket<'_>>(self.socket?))
    }

    pub(super) fn state(&self) -> State {
        self.socket
            .map_or(State::Closed, |s| self.sockets.get::<Socket<'_>>(s).state())
    }

    /// A frame whose packet, `len` bytes behind its Ethernet header, is for this connection. What it makes the
    /// connection send waits for [`Stack::poll`], mostly: the application reads, and answers, first.
    pub(super) fn receive(&mut self, now: u64, frame: Vec<u8>, len: usize) {
        self.wire.rx = Some((frame, len));
        let _ = self
            .iface
            .poll_ingress_single(time(now), &mut self.wire, &mut self.sockets);
    }

    /// Lets the connection send, and do what is due.
    pub(super) fn poll(&mut self, now: u64) {
        let _ = self.iface.poll(time(now), &mut self.wire, &mut self.sockets);
    }

    /// Frames to send, their Ethernet headers left open.
    pub(super) fn take_frames(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.wire.tx)
    }

    /// When it has something to do by itself; not before `now`.
    pub(super) fn next_at(&mut self, now: u64) -> Option<u64> {
        let at = self.iface.poll_at(time(now), &self.sockets)?;
        let at = u64::try_from(at.total_micros())
            .unwrap_or(0)
            .saturating_mul(1_000);
        // What is due now was just polled: the next microsecond, so that time passes.
        Some(if at <= now {
            now / 1_000 * 1_000 + 1_000
        } else {
            at
        })
    }
}
