//! Actors: state machines that speak datagrams, on machines of their own. For what is neither a host under load nor a balancer, such
//! as a lease service and its clients.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use evenkeel_core::time::Instant;

use crate::account::{Account, AccountOf};
use crate::host::{Mac, ParsedUdp, set_ethernet, udp_frame};
use crate::ids::{ActorId, Owner, Place};
use crate::queue::Event;
use crate::world::{Attached, Net};

/// Datagrams that wait for an actor which stands still, at most: its socket's buffer.
const INBOX_COUNT_MAX: usize = 256;
/// Bytes of a datagram at most.
pub(crate) const DATAGRAM_LEN_MAX: usize = 1_400;

/// What an actor sends.
#[derive(Debug, Default)]
pub struct Datagrams(Vec<(SocketAddrV4, Vec<u8>)>);

impl Datagrams {
    /// A datagram of 1,400 bytes at most, for another actor; longer ones are not sent.
    pub fn send(&mut self, to: SocketAddrV4, data: Vec<u8>) {
        if data.len() <= DATAGRAM_LEN_MAX {
            self.0.push((to, data));
        }
    }
}

/// A state machine without I/O. It knows the time from its calls alone.
pub trait Actor: fmt::Debug + Any {
    /// It runs from now on; for the first time, or again after it was stopped. What it had in memory alone is gone.
    fn start(&mut self, now: Instant);
    /// A datagram came.
    fn datagram(&mut self, now: Instant, from: SocketAddrV4, data: &[u8], out: &mut Datagrams);
    /// The time has come that it named, or a later one.
    fn timeout(&mut self, now: Instant, out: &mut Datagrams);
    /// When it has something to do by itself.
    fn next_at(&self) -> Option<Instant>;
}

/// What an actor's machine counted, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActorCounters {
    /// Received.
    pub received: u64,
    /// Of these: given to it.
    pub taken: u64,
    /// Of these: came while it was stopped, or waited when it was.
    pub down: u64,
    /// Of these: for others, or no whole datagram.
    pub filtered: u64,
    /// Of these: found its socket's buffer full while it stood still.
    pub inbox_full: u64,
}

/// Whether an actor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActorState {
    Running,
    Paused,
    Stopped,
}

/// An actor and its machine.
#[derive(Debug)]
pub(crate) struct Machine {
    id: ActorId,
    pub(crate) name: String,
    addr: SocketAddrV4,
    pub(crate) link: Option<Attached>,
    pub(crate) actor: Box<dyn Actor>,
    state: ActorState,
    inbox: VecDeque<(SocketAddrV4, Vec<u8>)>,
    planned: Option<u64>,
    pub(crate) counters: ActorCounters,
}

/// An actor's link-layer address: machines of actors know each other's, and ask nobody.
fn mac(addr: Ipv4Addr) -> Mac {
    let [a, b, c, d] = addr.octets();
    [0x02, 0x5d, a, b, c, d]
}

impl Machine {
    pub(crate) fn new(id: ActorId, name: String, addr: SocketAddrV4, actor: Box<dyn Actor>) -> Self {
        Machine {
            id,
            name,
            addr,
            link: None,
            actor,
            state: ActorState::Stopped,
            inbox: VecDeque::new(),
            planned: None,
            counters: ActorCounters::default(),
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            owner: Owner::Actor(self.id),
            port: 0,
        }
    }

    pub(crate) fn account(&self) -> Account<'_> {
        let c = &self.counters;
        Account::new(
            AccountOf::Machine(&self.name, ""),
            c.received,
            [
                ("taken", c.taken),
                ("down", c.down),
                ("filtered", c.filtered),
                ("inbox-full", c.inbox_full),
                ("waiting", self.inbox.len() as u64),
            ],
        )
    }

    /// It runs, stands still, or is stopped; what it is already, it stays.
    pub(crate) fn set(&mut self, net: &mut Net, state: ActorState) {
        if self.state == state {
            return;
        }
        let was_stopped = self.state == ActorState::Stopped;
        self.state = state;
        match state {
            ActorState::Stopped => {
                for (_, data) in std::mem::take(&mut self.inbox) {
                    self.counters.down += 1;
                    net.dropped(self.place(), "actor-down", data.len());
                }
            }
            ActorState::Paused => {}
            ActorState::Running => {
                if was_stopped {
                    self.actor.start(Instant::from_nanos(net.now));
                }
                self.turn(net);
            }
        }
    }

    /// A frame came in.
    pub(crate) fn receive(&mut self, net: &mut Net, frame: &[u8]) {
        self.counters.received += 1;
        let mine = frame.get(..6) == Some(&mac(*self.addr.ip())[..]);
        let parsed = ParsedUdp::parse(frame).filter(|udp| mine && udp.dst == SocketAddr::V4(self.addr));
        let from = parsed.and_then(|udp| match udp.src {
            SocketAddr::V4(from) => Some((from, udp.data)),
            SocketAddr::V6(_) => None,
        });
        let (count, why) = match (from, self.state) {
            (_, ActorState::Stopped) => (&mut self.counters.down, "actor-down"),
            (None, _) => (&mut self.counters.filtered, "actor-filtered"),
            (Some(_), _) if self.inbox.len() >= INBOX_COUNT_MAX => {
                (&mut self.counters.inbox_full, "actor-inbox-full")
            }
            (Some((from, data)), _) => {
                self.inbox.push_back((from, data.to_vec()));
                return self.turn(net);
            }
        };
        *count += 1;
        net.dropped(self.place(), why, frame.len());
    }

    /// Its time has come.
    pub(crate) fn due(&mut self, net: &mut Net) {
        if self.planned == Some(net.now) {
            self.planned = None;
            self.turn(net);
        }
    }

    /// Lets it do what there is to do.
    fn turn(&mut self, net: &mut Net) {
        if self.state != ActorState::Running {
            return;
        }
        let now = Instant::from_nanos(net.now);
        let mut out = Datagrams::default();
        // What is over by the clock is over before anything is heard.
        if self.actor.next_at().is_some_and(|at| at <= now) {
            self.actor.timeout(now, &mut out);
        }
        while let Some((from, data)) = self.inbox.pop_front() {
            self.counters.taken += 1;
            self.actor.datagram(now, from, &data, &mut out);
        }
        for (to, data) in out.0 {
            let mut frame = udp_frame(SocketAddr::V4(self.addr), SocketAddr::V4(to), &data);
            set_ethernet(&mut frame, mac(*to.ip()), mac(*self.addr.ip()), 0x0800);
            match self.link {
                Some(link) => net.send(link, net.now, frame),
                None => net.dropped(self.place(), "no-link", frame.len()),
            }
        }
        if let Some(at) = self.actor.next_at() {
            // An actor that names the present again does not stop the world's time.
            let at = at.as_nanos().max(net.now + 1);
            if self.planned.is_none_or(|planned| at < planned) {
                self.planned = Some(at);
                net.queue.push(at, Event::Actor(self.id));
            }
        }
    }
}

/// Whether actors can have this address.
pub(crate) fn is_address(addr: SocketAddrV4) -> bool {
    let ip = addr.ip();
    addr.port() != 0 && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified()
}
