//! One TCP connection in a stack of its own: smoltcp's, with an interface that knows nothing but this connection.
//!
//! One interface and one socket set a connection: a shared set looks at every socket on every poll.

use std::net::{IpAddr, SocketAddr};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};

use super::fly::{self, Said};
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
    /// What its segments have said last.
    said: Option<Said>,
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
            said: None,
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

    /// What answers a SYN to a connection that is there (RFC 5961 section 4.2), as every host has it: who sent it resets a
    /// connection of which nobody else knows any more. smoltcp drops such a SYN, and both ends would wait for ever.
    pub(super) fn challenge(&mut self, local: SocketAddr, remote: SocketAddr) -> bool {
        let is_synchronized = matches!(
            self.state(),
            State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck
        );
        let Some(said) = self.said.filter(|_| is_synchronized) else {
            return false;
        };
        self.wire.tx.push(fly::challenge(said, local, remote));
        true
    }

    /// Lets the connection send, and do what is due.
    pub(super) fn poll(&mut self, now: u64) {
        let _ = self.iface.poll(time(now), &mut self.wire, &mut self.sockets);
    }

    /// Frames to send, their Ethernet headers left open.
    pub(super) fn take_frames(&mut self) -> Vec<Vec<u8>> {
        for frame in &self.wire.tx {
            self.said = fly::said(frame, self.said);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::wire::{IPV4, Packet};

    const MTU: u16 = 1_500;
    const BUFFER: usize = 4_096;

    fn ends() -> (SocketAddr, SocketAddr) {
        (
            "10.0.0.1:5000".parse().expect("ends"),
            "10.0.0.2:80".parse().expect("ends"),
        )
    }

    fn hand_in(to: &mut Stack, now: u64, frames: Vec<Vec<u8>>) {
        for frame in frames {
            let len = frame.len() - ETHERNET_LEN;
            to.receive(now, frame, len);
            to.poll(now);
        }
    }

    /// Client and server, connected, and the server has said `hello`.
    fn connected() -> (Stack, Stack) {
        let (local, remote) = ends();
        let mut client = Stack::connect(0, local, remote, MTU, 1, BUFFER).expect("a client");
        let mut server = Stack::listen(0, remote, MTU, 2, BUFFER).expect("a server");
        client.poll(0);
        for round in 0..4 {
            if round == 2 {
                let socket = server.socket_mut().expect("a socket");
                assert_eq!(socket.send_slice(b"hello"), Ok(5));
                server.poll(0);
            }
            hand_in(&mut server, 0, client.take_frames());
            hand_in(&mut client, 0, server.take_frames());
        }
        assert_eq!(
            (client.state(), server.state()),
            (State::Established, State::Established)
        );
        (client, server)
    }

    #[test]
    fn a_syn_to_a_connection_of_which_nobody_knows_any_more_ends_it() {
        let (local, remote) = ends();
        let (_, mut server) = connected();
        let mut next = Stack::connect(0, local, remote, MTU, 7, BUFFER).expect("a client");
        next.poll(0);
        assert_eq!(next.take_frames().len(), 1, "its SYN");
        assert!(server.challenge(remote, local));
        let challenge = server.take_frames();
        assert_eq!(challenge.len(), 1);
        assert!(
            Packet::parse(IPV4, &challenge[0][ETHERNET_LEN..]).is_ok(),
            "its checksums are right"
        );
        hand_in(&mut next, 0, challenge);
        let reset = next.take_frames();
        assert_eq!(reset.len(), 1);
        hand_in(&mut server, 0, reset);
        assert_eq!(server.state(), State::Closed, "the reset is where it is expected");
        assert_eq!(next.state(), State::SynSent, "and it goes on trying");
    }

    #[test]
    fn a_challenge_says_where_the_connection_stands() {
        let (local, remote) = ends();
        let (mut client, mut server) = connected();
        assert!(server.challenge(remote, local));
        hand_in(&mut client, 0, server.take_frames());
        assert!(
            client.take_frames().is_empty(),
            "it is right and says nothing new"
        );
        let mut waits = Stack::listen(0, remote, MTU, 2, BUFFER).expect("a server");
        assert!(!waits.challenge(remote, local), "there is no connection yet");
    }
}
