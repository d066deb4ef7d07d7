//! The control thread: what a node knows beside its packets, in one place. It drives core's `Control` with what comes
//! from other nodes, from workers and from the clock, and carries out what it says.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel_control::Config;
use evenkeel_core::cluster::{Alarm, Control, ControlSink, NodeCommand, NodeEvent, NodeId};
use evenkeel_core::port::{PortId, WorkerId};
use evenkeel_core::service::Snapshot;
use evenkeel_core::sync::seal::Secrets;
use evenkeel_core::sync::{Destination, Readiness, SyncCommand, SyncMessage};
use evenkeel_core::time::Instant;
use evenkeel_core::worker::{BucketMap, Command, Event};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::admin::{self, Ask, ControlView};
use crate::clock;
use crate::health::{CheckSpec, Checks, HealthEvent};
use crate::lane::{ControlBell, Lane};
use crate::ports::{Link, Ports};
use crate::reload::{Fresh, Reader};
use crate::serving::Serving;
use crate::system::Manager;
use crate::telling::Names;
use crate::transport::{Ear, Voice};

/// Frames of other nodes that are taken in one turn, at most.
const RECEIVE_COUNT_MAX: usize = 256;
/// Items of each ring of a worker that are taken in one turn, at most.
const TURN_COUNT_MAX: usize = 256;
/// Questions that are answered in one turn, at most.
const ASK_TURN_COUNT_MAX: usize = 4;
/// The thread wakes at least so often.
const SLEEP_MAX: Duration = Duration::from_millis(500);
/// So long the last frames have to leave, when the node ends.
const LAST_WORDS_TIME: Duration = Duration::from_millis(200);

/// The driver is asked this often for what it says by itself; it keeps 16 KiB.
const DRIVER_WORDS_TIME: Duration = Duration::from_secs(1);

/// How a daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It had nobody to hand over to, as there is no cluster or no other node was alive.
    Alone,
    /// Another node holds all that it held.
    HandedOver,
    /// The time for it was over, or a second signal came: others adopt what was left.
    InHaste,
    /// A worker fell. The node leaves at once, so that others take over what it can forward no more.
    Fault,
}

/// What the control side has to say, and where it goes.
struct Out {
    lanes: Vec<Arc<Lane>>,
    buckets: BucketMap,
    voice: Option<Voice>,
    /// What happened, for the log; told after the turn.
    events: Vec<NodeEvent>,
}

impl ControlSink for Out {
    fn sync(&mut self, to: Option<NodeId>, frame: &[u8]) -> Option<Instant> {
        let now = clock::now();
        self.voice
            .as_ref()
            .is_some_and(|voice| voice.send(to, frame))
            .then_some(now)
    }

    fn frame(&mut self, port: PortId, frame: Vec<u8>) -> Option<Instant> {
        // The first worker says when it left.
        if let Some(lane) = self.lanes.first() {
            lane.frame(port, frame);
        }
        None
    }

    fn command(&mut self, worker: WorkerId, command: SyncCommand) {
        if let Some(lane) = self.lanes.get(usize::from(worker.0)) {
            lane.command(Command::Sync(command));
        }
    }

    fn message(&mut self, message: SyncMessage) {
        let worker = self.buckets.worker(message.bucket);
        if let Some(lane) = self.lanes.get(usize::from(worker.0)) {
            lane.message(message);
        }
    }

    fn event(&mut self, event: NodeEvent) {
        self.events.push(event);
    }
}

/// How far the end of the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Not,
    /// It hands over, until this time at most.
    Draining(Instant),
    /// It has said that it leaves; its last frames leave until this time at most.
    Leaving(Instant, Ended),
}

/// What the node does because of a data port that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ForPorts {
    Nothing,
    /// It has been told to drain by itself.
    Drained,
    /// The operator made it serve all the same.
    Overruled,
}

/// What a control side is made of.
pub(crate) struct Parts {
    pub(crate) control: Option<Control>,
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) buckets: BucketMap,
    pub(crate) net: Option<(Ear, Voice)>,
    pub(crate) bell: Arc<ControlBell>,
    pub(crate) drain_limit: Duration,
    pub(crate) names: Names,
    pub(crate) manager: Manager,
    pub(crate) config: Config,
    /// By what frames are sealed.
    pub(crate) secrets: Option<Secrets>,
    /// Who reads the config again.
    pub(crate) reader: Reader,
    pub(crate) seed: u64,
    pub(crate) checks: Checks,
    /// What the checks find out.
    pub(crate) health: mpsc::Receiver<HealthEvent>,
    /// Who looks in.
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) ports: Arc<Ports>,
    /// Puts into the log what the driver of the interfaces says by itself.
    pub(crate) driver_words: Option<Box<dyn FnMut()>>,
}

/// See the module.
pub(crate) struct ControlSide {
    control: Option<Control>,
    out: Out,
    ear: Option<Ear>,
    bell: Arc<ControlBell>,
    drain_limit: Duration,
    asks: mpsc::Receiver<Ask>,
    ending: Ending,
    alarms: BTreeSet<Alarm>,
    names: Names,
    manager: Manager,
    config: Config,
    secrets: Option<Secrets>,
    reader: Reader,
    checks: Checks,
    health: mpsc::Receiver<HealthEvent>,
    serving: Serving,
    ports: Arc<Ports>,
    /// What was said of each port last.
    said_of_ports: Vec<Link>,
    /// Nobody was told of the latest secrets.
    secrets_untold: bool,
    for_ports: ForPorts,
    /// The operator told the node to drain, and not to serve again since.
    is_drained_by_hand: bool,
    /// The snapshot that workers are to take, by worker: those whose ring was full are told later.
    untold: Vec<Option<Arc<Snapshot>>>,
    driver_words: Option<Box<dyn FnMut()>>,
    /// When the driver is asked again.
    driver_words_due: Instant,
}

/// Signals that a daemon heeds.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    End,
    Reload,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn received(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

impl ControlSide {
    pub(crate) fn new(parts: Parts) -> Self {
        let (ear, voice) = parts.net.unzip();
        let untold = parts.lanes.iter().map(|_| None).collect();
        ControlSide {
            control: parts.control,
            out: Out {
                lanes: parts.lanes,
                buckets: parts.buckets,
                voice,
                events: Vec::new(),
            },
            ear,
            bell: parts.bell,
            drain_limit: parts.drain_limit,
            asks: parts.asks,
            ending: Ending::Not,
            alarms: BTreeSet::new(),
            names: parts.names,
            manager: parts.manager,
            serving: Serving::new(parts.config.spec.clone(), parts.seed),
            config: parts.config,
            secrets: parts.secrets,
            reader: parts.reader,
            checks: parts.checks,
            health: parts.health,
            untold,
            secrets_untold: false,
            said_of_ports: parts.ports.links().map(|_| Link::Up).collect(),
            ports: parts.ports,
            for_ports: ForPorts::Nothing,
            is_drained_by_hand: false,
            driver_words: parts.driver_words,
            driver_words_due: Instant::from_nanos(0),
        }
    }

    /// Runs until the node has ended.
    pub(crate) async fn run(&mut self, mut signals: Signals) -> Ended {
        self.manager.ready();
        let bell = Arc::clone(&self.bell);
        loop {
            self.answer_some();
            let more = self.turn();
            if let Some(ended) = self.ended() {
                return ended;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            self.bell.lie_down();
            if self.out.lanes.iter().any(|lane| lane.has_news()) {
                self.bell.get_up();
                continue;
            }
            let wait = self.wait();
            let heard = async {
                match &mut self.ear {
                    Some(ear) => ear.readable().await,
                    None => std::future::pending().await,
                }
            };
            let (mut asked, mut told) = (None, None);
            let (mut looked_in, mut read) = (None, None);
            tokio::select! {
                biased;
                signal = signals.received() => asked = Some(signal),
                () = bell.rung() => (),
                event = self.health.recv() => told = event,
                config = self.reader.done() => read = Some(config),
                () = heard => (),
                Some(ask) = self.asks.recv() => looked_in = Some(ask),
                () = tokio::time::sleep(wait) => (),
            }
            self.bell.get_up();
            if let Some(event) = told {
                self.server_changed(&event);
            }
            match asked {
                Some(Asked::End) => self.end(),
                Some(Asked::Reload) if self.reader.ask() => (),
                Some(Asked::Reload) => {
                    warn!("the config is still being read: it is read once more after that")
                }
                None => (),
            }
            if let Some(config) = read {
                self.reload(config);
            }
            if let Some(ask) = looked_in {
                self.answer(ask);
            }
        }
    }

    /// Answers who looks in, as far as they wait already.
    fn answer_some(&mut self) {
        for _ in 0..ASK_TURN_COUNT_MAX {
            let Ok(ask) = self.asks.try_recv() else { return };
            self.answer(ask);
        }
    }

    /// Who asked may have gone by now.
    fn answer(&mut self, ask: Ask) {
        let ending = self.ending != Ending::Not;
        match ask {
            Ask::View(to) => {
                let checks = self.checks.stats();
                let _ = to.send(ControlView::of(
                    self.control.as_ref(),
                    checks,
                    ending,
                    &self.ports,
                ));
            }
            Ask::Services(to) => {
                let _ = to.send(admin::services(&self.serving, &self.checks));
            }
            Ask::Command(command, to) => {
                let able = admin::able(self.control.as_ref(), ending, command);
                if let (Ok(()), Some(control)) = (able, &mut self.control) {
                    info!(?command, "asked by the control socket");
                    control.handle_command(clock::now(), command, &mut self.out);
                    match command {
                        NodeCommand::Drain => self.is_drained_by_hand = true,
                        NodeCommand::Undrain => {
                            self.is_drained_by_hand = false;
                            if self.for_ports == ForPorts::Drained {
                                self.for_ports = ForPorts::Overruled;
                            }
                        }
                        _ => (),
                    }
                }
                let _ = to.send(able);
            }
        }
    }

    /// Until something is due.
    fn wait(&self) -> Duration {
        let control = self.control.as_ref().and_then(Control::poll_timeout);
        let ending = match self.ending {
            Ending::Not => None,
            Ending::Draining(until) | Ending::Leaving(until, _) => Some(until),
        };
        let due = [control, ending, self.serving.poll_timeout()]
            .into_iter()
            .flatten()
            .min();
        let left = due.map(|at| at.as_nanos().saturating_sub(clock::now().as_nanos()));
        let left = left.map_or(SLEEP_MAX, |left| Duration::from_nanos(left).min(SLEEP_MAX));
        self.manager
            .interval()
            .map_or(left, |interval| left.min(interval))
    }

    /// Takes in what waits, does what is due; whether more waits.
    fn turn(&mut self) -> bool {
        let now = clock::now();
        let Self {
            control,
            out,
            ear,
            serving,
            ..
        } = self;
        // First of all it finds out that it stood still.
        if let Some(control) = control {
            control.handle_timeout(now, out);
        }
        let mut more = false;
        if let (Some(control), Some(ear)) = (&mut *control, ear) {
            let taken = ear.receive(RECEIVE_COUNT_MAX, |frame| {
                // What is refused is counted there.
                let _ = control.handle_sync(clock::now(), frame, out);
            });
            more |= taken >= RECEIVE_COUNT_MAX / 2;
        }
        for worker in 0..out.lanes.len() {
            more |= hear_worker(control, out, serving, worker);
        }
        self.tell_snapshot(now);
        self.heed_ports(now);
        self.tell_secrets();
        self.report();
        self.hear_driver(now);
        self.manager
            .feed(now.as_nanos(), self.out.lanes.iter().map(|lane| &**lane));
        more
    }

    /// Says which ports are down. In a cluster, the node does then as if it had been told to drain, as soon as somebody can
    /// take over: frames of its sessions come in, and their answers do not, or the other way round.
    fn heed_ports(&mut self, now: Instant) {
        let mut any_down = false;
        for (n, (link, said)) in self.ports.links().zip(&mut self.said_of_ports).enumerate() {
            any_down |= !link.is_up();
            let before = std::mem::replace(said, link);
            if before == link {
                continue;
            }
            let Some(port) = self.ports.view(n) else { continue };
            if link.is_up() {
                info!("over: port {} ({}) is down", port.name, port.device);
            } else {
                warn!("alarm: {}", port.complaint());
            }
        }
        let Some(control) = &mut self.control else { return };
        if self.ending != Ending::Not {
            return;
        }
        let core = control.core();
        match (any_down, self.for_ports) {
            (false, ForPorts::Nothing) => (),
            (false, ForPorts::Drained) if !self.is_drained_by_hand => {
                info!("all ports are up again: this node takes part again");
                self.for_ports = ForPorts::Nothing;
                control.handle_command(now, NodeCommand::Undrain, &mut self.out);
            }
            (false, _) => self.for_ports = ForPorts::Nothing,
            // Who joins and drains has nothing to hand over: it would be thought to leave for good.
            (true, ForPorts::Nothing)
                if !core.is_draining()
                    && core.readiness() >= Readiness::Degraded
                    && core.peer_reports().any(|peer| peer.can_inherit) =>
            {
                warn!("a port is down: this node hands over to another one until all are up");
                self.for_ports = ForPorts::Drained;
                control.handle_command(now, NodeCommand::Drain, &mut self.out);
            }
            // What it can do with the ports that are left is more than nothing.
            (true, ForPorts::Drained) if core.peers_up().next().is_none() && !self.is_drained_by_hand => {
                warn!("a port is down, and no other node is left: this node takes part again as it is");
                self.for_ports = ForPorts::Nothing;
                control.handle_command(now, NodeCommand::Undrain, &mut self.out);
            }
            (true, _) => (),
        }
    }

    /// What the driver said goes into the log, once in a while.
    fn hear_driver(&mut self, now: Instant) {
        if let Some(words) = &mut self.driver_words
            && self.driver_words_due <= now
        {
            words();
            let next = now.as_nanos().saturating_add(DRIVER_WORDS_TIME.as_nanos() as u64);
            self.driver_words_due = Instant::from_nanos(next);
        }
    }

    /// What changed of what is served by goes to all workers; the latest counts. Questions for neighbours leave.
    fn tell_snapshot(&mut self, now: Instant) {
        if let Some(snapshot) = self.serving.handle_timeout(now) {
            self.untold.fill(Some(snapshot));
        }
        while let Some((port, frame)) = self.serving.neighbours().poll_transmit() {
            self.out.frame(port, frame);
        }
        for (lane, untold) in self.out.lanes.iter().zip(&mut self.untold) {
            if let Some(snapshot) = untold
                && lane.command(Command::SetSnapshot(Arc::clone(snapshot)))
            {
                *untold = None;
            }
        }
    }

    /// A check found that a real server is up, or down.
    fn server_changed(&mut self, event: &HealthEvent) {
        let HealthEvent {
            service,
            server,
            up,
            why,
        } = event;
        // What waited while the config was read again may be of one that nobody checks now: nobody would say that it is
        // up again.
        if !self.checks.has(*service, *server) || !self.serving.set_server(*service, *server, *up) {
            return;
        }
        let spec = self.serving.spec().services.iter().find(|s| s.id == *service);
        let real = spec.and_then(|s| s.servers.iter().find(|r| r.id == *server));
        let (Some(spec), Some(real)) = (spec, real) else {
            return;
        };
        let name = &spec.name;
        let end = SocketAddr::new(real.addr, real.port);
        if *up {
            info!("server {end} of {name} is up: {why}");
        } else {
            warn!("server {end} of {name} is down, and gets no new connections: {why}");
            let left = spec
                .servers
                .iter()
                .filter(|r| r.weight > 0 && self.serving.is_up(*service, r.id));
            if left.count() == 0 {
                warn!("{name} has no server left: new connections are dropped");
            }
        }
    }

    /// The config was read again. What is wrong with it, or needs a restart, is said, and nothing changes.
    fn reload(&mut self, read: Result<Fresh, String>) {
        let Fresh { config: new, secrets } = match read {
            Ok(new) => new,
            Err(why) => return warn!("the config is not taken, and the old one stays: {why}"),
        };
        let fixed = self.config.restart_needed(&new);
        if !fixed.is_empty() {
            return warn!(
                "the config is not taken, and the old one stays: {} changed, which needs a restart",
                fixed.join(", ")
            );
        }
        let specs = CheckSpec::of(&new);
        let checked = specs.iter().map(|s| (s.service, s.server)).collect();
        if let Err(error) = self.checks.update(specs) {
            return warn!("the config is not taken, and the old one stays: {error}");
        }
        self.serving.reload(new.spec.clone(), &checked);
        self.config = new;
        self.set_secrets(secrets);
        info!(
            services = self.config.spec.services.len(),
            "the config was read again"
        );
    }

    /// What stands in the files of secrets now: from the next frame on, if it is another one.
    fn set_secrets(&mut self, secrets: Option<Secrets>) {
        let (Some(secrets), Some(control)) = (secrets, &mut self.control) else {
            return;
        };
        if self.secrets.as_ref() != Some(&secrets) {
            control.handle_secrets(clock::now(), &secrets, &mut self.out);
            self.secrets = Some(secrets);
            self.secrets_untold = true;
        }
    }

    /// Says so, once all workers seal by other secrets.
    fn tell_secrets(&mut self) {
        let (Some(control), Some(secrets), true) = (&self.control, &self.secrets, self.secrets_untold) else {
            return;
        };
        if control.secrets().1 == self.out.lanes.len() {
            let ids: Vec<u8> = secrets.ids().collect();
            info!(
                ?ids,
                "frames are sealed by the first of these secrets, and by all of them accepted"
            );
            self.secrets_untold = false;
        }
    }

    /// The node is asked to end; asked again, it does so at once.
    fn end(&mut self) {
        let now = clock::now();
        self.manager.stopping();
        let limit = Instant::from_nanos(now.as_nanos().saturating_add(self.drain_limit.as_nanos() as u64));
        let alone = self
            .control
            .as_ref()
            .is_none_or(|c| c.core().peers_up().next().is_none());
        match self.ending {
            Ending::Not if alone => self.leave(now, Ended::Alone),
            Ending::Not if self.drain_limit.is_zero() => self.leave(now, Ended::InHaste),
            Ending::Not => {
                info!(limit = ?self.drain_limit, "asked to end: sessions are handed over first");
                self.ending = Ending::Draining(limit);
                if let Some(control) = &mut self.control {
                    control.handle_command(now, NodeCommand::Drain, &mut self.out);
                }
            }
            Ending::Draining(_) => self.leave(now, Ended::InHaste),
            Ending::Leaving(..) => self.ending = Ending::Leaving(now, Ended::InHaste),
        }
    }

    /// Says that the node leaves.
    fn leave(&mut self, now: Instant, how: Ended) {
        let why = match how {
            Ended::Alone => "no other node is there to take over",
            Ended::HandedOver => "all is handed over",
            Ended::InHaste => "what is left is for others to take over",
            Ended::Fault => "a worker has ended by a fault of its own",
        };
        info!("leaving: {why}");
        if let Some(control) = &mut self.control {
            control.handle_command(now, NodeCommand::Shutdown, &mut self.out);
        }
        let until = now.as_nanos().saturating_add(LAST_WORDS_TIME.as_nanos() as u64);
        self.ending = Ending::Leaving(Instant::from_nanos(until), how);
    }

    /// Whether the node has ended by now, and how.
    fn ended(&mut self) -> Option<Ended> {
        let now = clock::now();
        let fallen = self
            .out
            .lanes
            .iter()
            .any(|lane| lane.ended.load(Ordering::Acquire));
        if fallen && !matches!(self.ending, Ending::Leaving(..)) {
            self.leave(now, Ended::Fault);
        }
        if let Ending::Draining(until) = self.ending {
            let core = self.control.as_ref().map(Control::core);
            if core.is_none_or(|core| core.is_drained()) {
                self.leave(now, Ended::HandedOver);
            } else if core.is_some_and(|core| core.peers_up().next().is_none()) {
                self.leave(now, Ended::Alone);
            } else if until <= now {
                self.leave(now, Ended::InHaste);
            }
        }
        let Ending::Leaving(until, how) = self.ending else {
            return None;
        };
        // Frames for data ports wait for the first worker, and are reported when they have left.
        let said = self
            .out
            .lanes
            .iter()
            .all(|lane| lane.frames.is_empty() && !lane.has_news());
        (said || until <= now).then_some(how)
    }

    /// Logs what happened.
    fn report(&mut self) {
        for event in self.out.events.drain(..) {
            let what = self.names.event(&event);
            match event {
                NodeEvent::Alarm(alarm) => {
                    self.alarms.insert(alarm);
                    warn!("{what}");
                }
                NodeEvent::Cleared(alarm) => {
                    self.alarms.remove(&alarm);
                    info!("{what}");
                }
                _ => info!("{what}"),
            }
        }
    }
}

/// Takes in what a worker has to say; whether more waits.
fn hear_worker(control: &mut Option<Control>, out: &mut Out, serving: &mut Serving, worker: usize) -> bool {
    let Some(lane) = out.lanes.get(worker).map(Arc::clone) else {
        return false;
    };
    let id = WorkerId(u8::try_from(worker).unwrap_or(u8::MAX));
    for _ in 0..TURN_COUNT_MAX {
        let Some((to, frame)) = lane.sync.pop() else { break };
        let to = match to {
            Destination::All => None,
            Destination::One(peer) => Some(peer.node),
        };
        if let Some(voice) = &out.voice {
            voice.send_of_worker(to, &frame);
        }
        // It came from there.
        let _ = lane.sync_buffers.push(frame);
    }
    for _ in 0..TURN_COUNT_MAX {
        let Some((at, frame)) = lane.sent.pop() else { break };
        if let Some(control) = control {
            control.handle_frame_sent(clock::now(), at, &frame, out);
        }
    }
    for _ in 0..TURN_COUNT_MAX {
        let Some((port, frame)) = lane.punted.pop() else {
            break;
        };
        let now = clock::now();
        if is_about_neighbours(&frame) {
            serving.neighbours().handle_frame(now, port, &frame);
        } else if let Some(control) = control {
            control.handle_frame(now, port, &frame, out);
        }
        let _ = lane.punt_buffers.push(frame);
    }
    for _ in 0..TURN_COUNT_MAX {
        match lane.events.pop() {
            Some(Event::Sync(event)) => {
                if let Some(control) = control {
                    control.handle_event(clock::now(), id, event, out);
                }
            }
            Some(Event::NeighbourWanted { port, addr }) => {
                serving.neighbours().handle_want(clock::now(), port, addr);
            }
            Some(Event::NeighbourHeard { port, addr, mac }) => {
                serving.neighbours().handle_heard(clock::now(), port, addr, mac);
            }
            // Freed here, and not on the fast path.
            Some(Event::SnapshotReleased(snapshot)) => drop(snapshot),
            None => break,
        }
    }
    lane.has_news()
}

/// Whether a frame is ARP or ICMPv6: all else that is punted is for the cluster.
fn is_about_neighbours(frame: &[u8]) -> bool {
    const ICMPV6: u8 = 58;
    match frame.get(12..14) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => frame.get(20) == Some(&ICMPV6),
        _ => false,
    }
}
