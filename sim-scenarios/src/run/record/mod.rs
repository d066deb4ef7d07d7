//! What a report with pictures needs to know of a run beside its result. Nothing of it is there unless it is asked for.
//!
//! A run is deterministic, so it is made twice: the first time shows which connection and which time is worth a closer
//! look ([`Focus`]), the second time these are looked at.

mod hops;
mod lag;
mod lanes;
mod packet;
mod spread;
mod track;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use evenkeel_core::time::Instant;
use evenkeel_core::tuple::L4Proto;
use evenkeel_io_sim::{Direction, FlowRecord, LbPort, Owner, Place, Tap, Trace, World};

use self::hops::{Chosen, Hops};
use self::lag::Lag;
use self::lanes::Lanes;
use super::build::{self, Built};
use super::sync_frame::Reader;
use super::watch::Watch;
use super::words::Names;
use super::{RunError, nanos};
use crate::expect::{Expectation, Failure, FlowFacts, Measures, Written};
use crate::plan::{CLIENT_COUNT, net};
use crate::report::Report;
use crate::scenario::Scenario;

pub(crate) use self::hops::{Hop, Line};
pub(crate) use self::lanes::{Answers, Holds, Lane};
#[cfg(test)]
pub(crate) use self::lanes::{GROUP_COUNT_MAX, State};
pub(crate) use self::spread::{Spread, least, step};
pub(crate) use self::track::{SPAN_COUNT_MAX, Span};

/// Looks at the nodes over a whole run, and in the close-up of the first fault.
const LOOKS: u32 = 1_000;
const CLOSE_LOOKS: u32 = 500;
/// Parts of the run in which segments are counted.
pub(crate) const BIN_COUNT: u64 = 250;
/// Events of nodes at most.
pub(crate) const EVENT_COUNT_MAX: usize = 300;
/// Points of a curve at most.
pub(crate) const POINT_COUNT_MAX: usize = 600;

/// Which connection and which time are worth a closer look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Focus {
    flow: u32,
    chosen: Option<Chosen>,
    why: Why,
    close_up: Option<(u64, u64)>,
}

/// Why a connection was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// By its number.
    Asked,
    /// It is the first one that broke.
    Broke,
    /// It stalled for the longest time.
    Stalled,
}

impl Focus {
    /// Looks at a run that is over. `flow`: the connection that is asked for.
    pub(crate) fn of(
        world: &World,
        watch: &Watch,
        report: &Report,
        flow: Option<u32>,
    ) -> Result<Focus, RunError> {
        let count = world.flows().len();
        if let Some(flow) = flow.filter(|flow| *flow as usize >= count) {
            return Err(RunError::NoSuchFlow { flow, count });
        }
        let stalled = || {
            let connected = (0..).zip(world.flows()).filter(|(_, f)| f.established.is_some());
            let longest = connected.max_by_key(|(n, f)| (f.longest_stall, u32::MAX - n));
            longest.map_or(0, |(n, _)| n)
        };
        let (flow, why) = match (flow, report.broken_flows.first()) {
            (Some(flow), _) => (flow, Why::Asked),
            (None, Some(broken)) => (broken.flow, Why::Broke),
            (None, None) => (stalled(), Why::Stalled),
        };
        let record = world.flows().get(flow as usize);
        let opened = record.filter(|f| f.opened.is_some());
        let chosen = opened.map(|f| {
            let waits = f.awaiting_since.map(|t| t.as_nanos());
            let from_ns = match why {
                Why::Broke => waits.unwrap_or(f.longest_stall_from.as_nanos()),
                _ => f.longest_stall_from.as_nanos(),
            };
            Chosen {
                client: f.client(),
                target: f.spec.target,
                host: f.spec.client.0,
                from_ns,
            }
        });
        let close_up = watch.fault_at.and_then(|fault| {
            let after = match (watch.detection(), watch.all_taken_at) {
                (Some(d), all) => (2 * d).max(all.map_or(0, |t| t.saturating_sub(fault)) * 3 / 2),
                _ => 2_000_000_000,
            };
            let after = after.clamp(500_000_000, 20_000_000_000);
            let span = (
                fault.saturating_sub(after / 4),
                (fault + after).min(report.duration_ns),
            );
            // Of a short run the whole is close enough.
            ((span.1 - span.0) * 2 < report.duration_ns).then_some(span)
        });
        Ok(Focus {
            flow,
            chosen,
            why,
            close_up,
        })
    }
}

/// A step of the timeline as it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) at_ns: u64,
    pub(crate) what: String,
}

/// An expectation or an oracle, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) name: String,
    pub(crate) says: String,
    pub(crate) oracle: bool,
    pub(crate) held: bool,
    pub(crate) seen: String,
    pub(crate) at_ns: Option<u64>,
    pub(crate) written: Written,
}

impl Judged {
    pub(crate) fn expectation(expectation: &Expectation, result: &Result<String, Failure>) -> Judged {
        Judged {
            name: expectation.name.clone(),
            says: expectation.text.clone(),
            oracle: false,
            held: result.is_ok(),
            seen: match result {
                Ok(seen) => seen.clone(),
                Err(failure) => failure.seen.clone(),
            },
            at_ns: result.as_ref().err().map(|f| f.at_ns),
            written: expectation.written,
        }
    }

    pub(crate) fn oracle(name: &str, says: &str, looked: u64, failure: Option<&Failure>) -> Judged {
        Judged {
            name: name.to_owned(),
            says: says.to_owned(),
            oracle: true,
            held: failure.is_none(),
            seen: match failure {
                Some(failure) => failure.seen.clone(),
                None => format!("looked at {looked}"),
            },
            at_ns: failure.map(|f| f.at_ns),
            written: Written::default(),
        }
    }
}

/// The chosen connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) flow: u32,
    pub(crate) load: String,
    pub(crate) why: Why,
    pub(crate) tuple: String,
    pub(crate) tcp: bool,
    pub(crate) server: Option<u32>,
    pub(crate) stall_ns: u64,
    pub(crate) stall_at_ns: u64,
    pub(crate) broken: Option<&'static str>,
    pub(crate) hops: Vec<Hop>,
    pub(crate) hop_count: u64,
}

/// At a time: connections that are alive, that broke so far, and of those live at the first fault the ones that have not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) at_ns: u64,
    pub(crate) alive: u64,
    pub(crate) broken: u64,
    pub(crate) survivors: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) end_ns: u64,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) close_up: Option<(u64, u64)>,
    /// When the fault began from which on is measured.
    pub(crate) fault_ns: Option<u64>,
    pub(crate) taken_ns: Option<u64>,
    pub(crate) timeline: Vec<Happened>,
    pub(crate) events: Vec<(u64, String)>,
    pub(crate) events_left_out: u64,
    pub(crate) judged: Vec<Judged>,
    pub(crate) curve: Vec<Point>,
    pub(crate) live_at_fault: u64,
    pub(crate) completed: u64,
    /// Segments and datagrams with data that clients received, in each part of the run, and of the close-up.
    pub(crate) received: Vec<u64>,
    pub(crate) received_close: Vec<u64>,
    /// VIPs of IPv4 and of IPv6.
    pub(crate) vip_counts: [u16; 2],
    pub(crate) stalls: Spread,
    pub(crate) lags: Spread,
    /// Sections that were told and never acknowledged, or not measured.
    pub(crate) lags_open: u64,
    /// At each look: records that all nodes together have told and not seen acknowledged.
    pub(crate) unacked: Vec<(u64, u64)>,
    pub(crate) connection: Option<Connection>,
}

/// Counts in equal parts of a time.
#[derive(Debug, Default)]
struct Bins {
    from_ns: u64,
    each_ns: u64,
    counts: Vec<u64>,
}

impl Bins {
    fn new(from_ns: u64, to_ns: u64) -> Bins {
        Bins {
            from_ns,
            each_ns: (to_ns - from_ns).div_ceil(BIN_COUNT).max(1),
            counts: vec![0; BIN_COUNT as usize],
        }
    }

    fn add(&mut self, now: u64) {
        let bin = now
            .checked_sub(self.from_ns)
            .and_then(|t| t.checked_div(self.each_ns));
        if let Some(n) = bin.and_then(|bin| self.counts.get_mut(bin as usize)) {
            *n += 1;
        }
    }
}

/// What the tap and the runner both write into.
struct Shared {
    names: Names,
    events: Vec<(u64, String)>,
    events_left_out: u64,
    received: Bins,
    received_close: Bins,
    sync_ports: BTreeSet<Place>,
    lag: Lag,
    hops: Option<Hops>,
}

/// Records the second run.
pub(crate) struct Recorder {
    focus: Focus,
    lanes: Lanes,
    unacked: Vec<(u64, u64)>,
    shared: Rc<RefCell<Shared>>,
    every: Duration,
    close_every: Duration,
    next: Duration,
    end: Duration,
}

impl Recorder {
    pub(crate) fn new(scenario: &Scenario, built: &mut Built, names: Names, focus: Focus) -> Recorder {
        let nodes = &scenario.cluster.nodes;
        let shares = nodes
            .iter()
            .flat_map(|n| build::share(scenario, n.id).into_iter().map(move |a| (a, n.id)));
        let shared = Rc::new(RefCell::new(Shared {
            names,
            events: Vec::new(),
            events_left_out: 0,
            received: Bins::new(0, nanos(scenario.duration)),
            received_close: focus
                .close_up
                .map_or_else(Bins::default, |(from, to)| Bins::new(from, to)),
            sync_ports: built.world.lbs().map(|lb| lb.place(LbPort::Sync)).collect(),
            lag: Lag::new(Reader::new(scenario)),
            hops: focus.chosen.map(|chosen| Hops::new(chosen, macs(scenario))),
        }));
        built.world.add_tap(Box::new(RecorderTap(shared.clone())));
        let (from, to) = focus.close_up.unwrap_or_default();
        Recorder {
            focus,
            lanes: Lanes {
                lanes: Vec::new(),
                shares: shares.collect(),
                vips: build::vips(scenario),
            },
            unacked: Vec::new(),
            shared,
            every: (scenario.duration / LOOKS).max(Duration::from_millis(1)),
            close_every: Duration::from_nanos((to - from) / u64::from(CLOSE_LOOKS))
                .max(Duration::from_millis(1)),
            next: Duration::ZERO,
            end: scenario.duration,
        }
    }

    /// When it wants to look next.
    pub(crate) fn next_at(&self) -> Duration {
        self.next
    }

    /// Looks, if it is time to.
    pub(crate) fn look(&mut self, world: &World, now: Duration) {
        if now < self.next && now < self.end {
            return;
        }
        self.lanes.look(world, nanos(now));
        let unacked = world
            .lbs()
            .filter_map(|lb| lb.node())
            .flat_map(|n| n.peer_reports());
        self.unacked.push((nanos(now), unacked.map(|p| p.unacked).sum()));
        let (from, to) = self.focus.close_up.unwrap_or_default();
        let (from, to) = (Duration::from_nanos(from), Duration::from_nanos(to));
        self.next = match now {
            now if now >= from && now < to => now + self.close_every,
            now if now < from => (now + self.every).min(from),
            now => now + self.every,
        };
    }

    /// All that was recorded.
    pub(crate) fn finish(
        mut self,
        scenario: &Scenario,
        world: &World,
        watch: &Watch,
        measures: &Measures,
        judged: Vec<Judged>,
        timeline: &[(u64, String)],
    ) -> Record {
        let end_ns = nanos(scenario.duration);
        self.lanes.end(end_ns);
        let mut shared = self.shared.borrow_mut();
        let hops = shared.hops.take();
        let facts = measures.flows.get(self.focus.flow as usize);
        let flow = world.flows().get(self.focus.flow as usize);
        let waited = waited(flow, facts);
        let connection = flow.map(|flow| Connection {
            flow: self.focus.flow,
            load: facts
                .and_then(|f| scenario.loads.get(f.load))
                .map_or_else(String::new, |l| l.name.clone()),
            why: self.focus.why,
            tuple: format!("{} to {}", flow.client(), flow.spec.target),
            tcp: flow.spec.proto == L4Proto::Tcp,
            server: flow.server,
            stall_ns: waited.0,
            stall_at_ns: waited.1,
            broken: flow.broken.map(|b| b.name()),
            hop_count: hops.as_ref().map_or(0, |h| h.count),
            hops: hops.map_or_else(Vec::new, Hops::finish),
        });
        let established = measures.flows.iter().filter(|f| f.established);
        let vips = |v6: bool| self.lanes.vips.iter().filter(|a| a.is_ipv6() == v6).count() as u16;
        let (v4, v6) = (vips(false), vips(true));
        Record {
            end_ns,
            lanes: std::mem::take(&mut self.lanes.lanes),
            close_up: self.focus.close_up,
            fault_ns: watch.fault_at,
            taken_ns: watch.vip_taken_at,
            timeline: timeline
                .iter()
                .map(|(at_ns, what)| Happened {
                    at_ns: *at_ns,
                    what: what.clone(),
                })
                .collect(),
            events: std::mem::take(&mut shared.events),
            events_left_out: shared.events_left_out,
            judged,
            curve: curve(world, measures, end_ns),
            live_at_fault: measures.flows.iter().filter(|f| f.live_at_fault).count() as u64,
            completed: measures.flows.iter().filter(|f| f.completed).count() as u64,
            received: std::mem::take(&mut shared.received.counts),
            received_close: std::mem::take(&mut shared.received_close.counts),
            vip_counts: [v4, v6],
            stalls: Spread::of(established.map(|f| f.stall_ns)),
            lags: std::mem::take(&mut shared.lag.spread),
            lags_open: shared.lag.open() + shared.lag.not_measured,
            unacked: std::mem::take(&mut self.unacked),
            connection,
        }
    }
}

/// For how long a connection waited longest, and since when: also for what never came, until it broke.
fn waited(flow: Option<&FlowRecord>, facts: Option<&FlowFacts>) -> (u64, u64) {
    let replied = facts.map_or((0, 0), |f| (f.stall_ns, f.stall_at_ns));
    let in_vain = flow.and_then(|flow| {
        let since = flow.awaiting_since?.as_nanos();
        Some((flow.ended?.as_nanos().saturating_sub(since), since))
    });
    in_vain.map_or(replied, |in_vain| in_vain.max(replied))
}

/// How many connections are alive and broken over time, at [`POINT_COUNT_MAX`] points at most: of each part of the run what
/// was so at its end.
fn curve(world: &World, measures: &Measures, end_ns: u64) -> Vec<Point> {
    let live_at_fault = measures.flows.iter().filter(|f| f.live_at_fault).count() as u64;
    // Changes: of those alive, broken, survivors.
    let mut changes: BTreeMap<u64, [i64; 3]> = BTreeMap::new();
    let mut change = |at: u64, which: usize, by: i64| changes.entry(at).or_default()[which] += by;
    for (flow, facts) in world.flows().iter().zip(&measures.flows) {
        if let Some(at) = flow.established {
            change(at.as_nanos(), 0, 1);
            if let Some(ended) = flow.ended {
                change(ended.as_nanos(), 0, -1);
            }
        }
        if let Some(at) = facts.broken_at_ns {
            change(at, 1, 1);
            if facts.live_at_fault {
                change(at, 2, -1);
            }
        }
    }
    let part = end_ns.div_ceil(POINT_COUNT_MAX as u64 - 2).max(1);
    let mut now = [0, 0, i64::try_from(live_at_fault).unwrap_or(i64::MAX)];
    let point = |at_ns: u64, now: [i64; 3]| {
        let [alive, broken, survivors] = now.map(|n| u64::try_from(n).unwrap_or(0));
        Point {
            at_ns,
            alive,
            broken,
            survivors,
        }
    };
    let mut points: Vec<Point> = vec![point(0, now)];
    for (at, by) in changes {
        for (to, by) in now.iter_mut().zip(by) {
            *to += by;
        }
        let new = point(at, now);
        match points.last_mut() {
            Some(last) if last.at_ns / part == at / part && last.at_ns > 0 => *last = new,
            _ => points.push(new),
        }
    }
    points.push(point(end_ns, now));
    points
}

/// Who has which link-layer address on the sides of clients and servers.
fn macs(scenario: &Scenario) -> BTreeMap<[u8; 6], Line> {
    let clients = (0..CLIENT_COUNT).map(|n| (net::client_mac(n).0, Line::Client));
    let most = scenario.services.iter().map(|s| s.servers).max().unwrap_or(0);
    let servers = (0..most).map(|n| (net::server_mac(n).0, Line::Server));
    let nodes = scenario.cluster.nodes.iter().flat_map(|n| {
        let line = Line::Node(build::lb(n.id).0);
        [0, 1].map(|port| (net::node_mac(n.id, port).0, line))
    });
    clients.chain(servers).chain(nodes).collect()
}

struct RecorderTap(Rc<RefCell<Shared>>);

impl Tap for RecorderTap {
    fn frame(&mut self, now: Instant, at: Place, direction: Direction, data: &[u8]) {
        let now = now.as_nanos();
        let mut shared = self.0.borrow_mut();
        match at.owner {
            Owner::Lb(lb) if shared.sync_ports.contains(&at) => {
                shared.lag.frame(now, lb, direction, data);
                return;
            }
            Owner::Host(host)
                if u32::from(host.0) < CLIENT_COUNT
                    && direction == Direction::In
                    && packet::parse(data).is_some_and(|p| p.len > 0) =>
            {
                shared.received.add(now);
                shared.received_close.add(now);
            }
            _ => {}
        }
        if let Some(hops) = &mut shared.hops {
            hops.frame(now, at, direction, data);
        }
    }

    fn trace(&mut self, now: Instant, what: &Trace) {
        let mut shared = self.0.borrow_mut();
        match *what {
            Trace::Dropped { at, why, len } => {
                if let Some(hops) = &mut shared.hops {
                    hops.dropped(at, why, len);
                }
                return;
            }
            Trace::FlowOpened(_)
            | Trace::FlowEstablished(_)
            | Trace::FlowClosed(_)
            | Trace::LinkChanged(_) => {
                return;
            }
            _ => {}
        }
        if shared.events.len() >= EVENT_COUNT_MAX {
            shared.events_left_out += 1;
            return;
        }
        let words = shared.names.words(what);
        shared.events.push((now.as_nanos(), words));
    }
}
