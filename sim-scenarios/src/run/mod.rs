//! Runs a scenario with a seed, and judges what came of it.

mod bites;
mod build;
mod cluster;
mod counts;
mod excuse;
mod fault;
mod guard;
mod judge;
mod ledger;
mod occasion;
pub(crate) mod record;
mod sync_frame;
mod timeline;
mod watch;
mod words;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_io_sim::{
    Exceeded, LbPort, LbState, PcapTap, QueueKind, SharedMeter, Trail, TrailSpec, World, WorldError,
};

pub(crate) use build::refusals;
pub use counts::node_counters;
pub use sync_frame::SYNC_COUNTERS;
#[cfg(test)]
pub(crate) use {bites::BITES, judge::whatever_lost, watch::SITUATIONS};

use self::build::Built;
use self::judge::Judge;
use self::record::{Focus, Recorder};
use self::sync_frame::{LastFrame, Past, Reader, Rule, Rules, Suppressor};
use self::timeline::Timeline;
use self::watch::{Watch, WatchTap};
use self::words::{Names, TraceTap};
use crate::expect::Metric;
use crate::mechanism::{Kind, Switch};
use crate::plan::{self, CLIENT_COUNT, Plan};
use crate::report::Report;
use crate::scenario::{Action, Fault, Scenario};

/// Between two looks at all tables.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// Between two looks after the last fault, while tables have not become equal.
const CONVERGENCE_EVERY: Duration = Duration::from_millis(10);
/// Between two looks at what survivors know, from the first crash until another node takes over.
const SURVIVORS_EVERY: Duration = Duration::from_millis(10);
/// For so long.
const SURVIVORS_FOR: Duration = Duration::from_secs(2);
/// Between two looks after a node has started: what it says of itself may be true a moment later.
const CLOSE_EVERY: Duration = Duration::from_millis(25);
/// For so long.
const CLOSE_FOR: Duration = Duration::from_millis(1_500);
/// For so long.
const CONVERGENCE_FOR: Duration = Duration::from_secs(5);

/// How to run.
#[derive(Clone, Default)]
pub struct Options {
    /// Writes the frames of each port to a file in this folder, which is made if need be.
    pub pcap: Option<PathBuf>,
    /// Writes what happens, line by line, to what this opens.
    pub trace: Option<fn() -> Box<dyn Write>>,
    /// Records what [`Report::html`] draws. The run is made twice then.
    pub record: Option<Recording>,
    /// How the world keeps its queue of events; the result does not depend on it.
    pub queue: QueueKind,
    /// What two runs are compared by: it is noted, and put there when the run is over, however it ended.
    pub trail: Option<(TrailSpec, Arc<Mutex<Trail>>)>,
    /// Is told what the run works on.
    pub meter: Option<SharedMeter>,
}

/// What is recorded beside what always is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recording {
    /// The connection whose packets are recorded; `None`: the first that broke, else the one that waited longest.
    pub flow: Option<u32>,
}

/// Why a run gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The scenario needs what is not there.
    #[error("{0}")]
    Missing(&'static str),
    /// The world cannot be built.
    #[error("the world of this scenario cannot be: {0}")]
    World(String),
    /// A file cannot be written; which one and why.
    #[error("{0}")]
    Write(String),
    /// There is no such connection.
    #[error("there is no flow {flow}: the scenario has {count}, from 0 on")]
    NoSuchFlow {
        /// Its number.
        flow: u32,
        /// Flows of the run.
        count: usize,
    },
    /// The same scenario with the same seed gave something else the second time.
    #[error("the run is not deterministic: its digest was {0:032x}, and then {1:032x}")]
    Differs(u128, u128),
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
    /// Its world is beyond a bound of the scenario's.
    #[error("{0}; the bound is the scenario's `{key}`", key = bound_key(.0))]
    Exceeded(Exceeded),
    /// Something in it panicked: engine, simulator or judge.
    #[error("panicked at {place}: {message}")]
    Panicked {
        /// File and line.
        place: String,
        /// What it said.
        message: String,
    },
}

impl RunError {
    /// How a run that gave no result ended, in one word; `None`: it is no outcome of the run but a refusal.
    pub fn outcome(&self) -> Option<&'static str> {
        match self {
            RunError::Missing(_)
            | RunError::World(_)
            | RunError::Write(_)
            | RunError::NoSuchFlow { .. }
            | RunError::Differs(..) => None,
            RunError::Stopped => Some("interrupted"),
            RunError::Exceeded(_) => Some("exceeded"),
            RunError::Panicked { .. } => Some("panicked"),
        }
    }
}

fn bound_key(exceeded: &Exceeded) -> &'static str {
    match exceeded {
        Exceeded::Events { .. } => "events_max",
        Exceeded::Memory { .. } => "memory_mib",
    }
}

impl From<WorldError> for RunError {
    fn from(error: WorldError) -> Self {
        match error {
            WorldError::Exceeded(exceeded) => RunError::Exceeded(exceeded),
            other => RunError::World(other.to_string()),
        }
    }
}

/// Runs the plan of `scenario` and `seed`: [`crate::plan()`], then [`run_plan`].
///
/// # Errors
///
/// See [`run_plan`].
pub fn run(
    scenario: &Scenario,
    seed: u64,
    options: &Options,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Report, RunError> {
    if scenario.waits_for.is_some() {
        return Err(RunError::Missing("it waits for later work"));
    }
    run_plan(&plan::plan(scenario, seed), options, go_on)
}

/// Runs a plan: a scenario of which nothing is to be drawn any more but what happens frame by frame. `go_on` is asked now and
/// then; if it says no the run ends with [`RunError::Stopped`]. A scenario with `waits_for` is not run: [`RunError::Missing`].
///
/// # Errors
///
/// See [`RunError`]; a scenario that fails is no error but a [`Report`].
pub fn run_plan(
    scenario: &Scenario,
    options: &Options,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Report, RunError> {
    if scenario.waits_for.is_some() {
        return Err(RunError::Missing("it waits for later work"));
    }
    let ended = guard::catch(|| as_asked(scenario, options, go_on));
    ended.unwrap_or_else(|guard::Panicked { place, message }| Err(RunError::Panicked { place, message }))
}

/// Once, or twice if it is recorded.
fn as_asked(
    scenario: &Scenario,
    options: &Options,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Report, RunError> {
    let Some(Recording { flow }) = options.record else {
        return once(scenario, options, None, go_on, |_, _, _| ()).map(|r| r.0);
    };
    // The first time shows where to look.
    let look = |world: &World, watch: &Watch, report: &Report| Focus::of(world, watch, report, flow);
    let (first, focus) = once(scenario, &Options::default(), None, go_on, look)?;
    let (second, ()) = once(scenario, options, Some(focus?), go_on, |_, _, _| ())?;
    if first.digest != second.digest {
        return Err(RunError::Differs(first.digest, second.digest));
    }
    Ok(second)
}

/// A run, with what `then` makes of it when it is over. With a focus it is recorded.
fn once<T>(
    scenario: &Scenario,
    options: &Options,
    focus: Option<Focus>,
    go_on: &mut dyn FnMut() -> bool,
    then: impl FnOnce(&World, &Watch, &Report) -> T,
) -> Result<(Report, T), RunError> {
    let mut built = build::world(scenario, options.queue)?;
    if let Some((trail, _)) = &options.trail {
        built.world.set_trail(trail.clone());
    }
    if let Some(meter) = &options.meter {
        built.world.set_meter(Arc::clone(meter));
        built.world.begins_outside();
    }
    let ended = play(scenario, options, focus, &mut built, go_on, then);
    if let Some((_, out)) = &options.trail {
        *out.lock().unwrap_or_else(PoisonError::into_inner) = built.world.trail();
    }
    ended
}

/// Runs a world that is built and empty.
fn play<T>(
    scenario: &Scenario,
    options: &Options,
    focus: Option<Focus>,
    built: &mut Built,
    go_on: &mut dyn FnMut() -> bool,
    then: impl FnOnce(&World, &Watch, &Report) -> T,
) -> Result<(Report, T), RunError> {
    let seed = scenario.seed.unwrap_or(0);
    let plan = Plan::new(scenario);
    let watch = Rc::new(RefCell::new(watch(scenario, built)));
    built.world.add_tap(Box::new(WatchTap(watch.clone())));
    if let Some(folder) = &options.pcap {
        fs::create_dir_all(folder)
            .map_err(|e| RunError::Write(format!("cannot make {}: {e}", folder.display())))?;
        let names = built.world.port_names();
        built.world.add_tap(Box::new(
            PcapTap::new(folder, names).with_addresses(words::addresses(scenario)),
        ));
    }
    let names = |built: &Built| Names::new(&built.world, scenario);
    if let Some(open) = options.trace {
        built
            .world
            .add_tap(Box::new(TraceTap::new(BufWriter::new(open()), names(built))));
    }
    let mut recorder = focus.map(|focus| {
        let names = names(built);
        Recorder::new(scenario, built, names, focus)
    });
    let rules = Rc::new(RefCell::new(Rules {
        renumber: plan::switch(scenario) == Some(Switch::Renumber),
        formats: formats(scenario),
        reader: Reader::new(scenario),
        past: Past::new(scenario),
        ..Rules::default()
    }));
    let off = |kinds: &[Kind], to: Option<u16>| {
        rules.borrow_mut().rules.push(Rule {
            fault: None,
            from: None,
            to,
            kinds: kinds.to_vec(),
            frames: None,
        });
    };
    if !scenario.cluster.digests {
        off(&[Kind::Digest], None);
    }
    if scenario.faults.is_empty()
        && let Some(Switch::Suppress(kinds)) = plan::switch(scenario)
    {
        off(kinds, None);
    }
    built.world.set_filter(Box::new(Suppressor(rules.clone())));
    for node in scenario.cluster.nodes.iter().filter(|n| !n.absent) {
        built.world.start(build::lb(node.id))?;
    }
    build::flows(&mut built.world, scenario)?;

    let mut judge = Judge::new(scenario, &plan);
    let mut timeline = Timeline::new(scenario, &plan, watch.clone(), rules.clone());
    let end = scenario.duration;
    let mut next_sample = Duration::ZERO;
    let mut crash_at = None;
    let mut next_look = None;
    let bell = watch.borrow().occasions.bell();
    let mut close_until = Duration::ZERO;
    let settles = scenario.expects.iter().any(|e| {
        let sides = [&e.comparison.left, &e.comparison.right];
        sides
            .into_iter()
            .flat_map(|s| s.metrics())
            .any(|m| m == Metric::Converged)
    });
    loop {
        let step = timeline.next_at().unwrap_or(end);
        let record_at = recorder.as_ref().map_or(end, Recorder::next_at);
        let judge_at = step.min(next_sample).min(next_look.unwrap_or(end)).min(end);
        let mut now = judge_at.min(record_at);
        if timeline.listens() {
            // Time stops at the very event for which a fault waits.
            if !built.world.run_while(build::at(now), &mut || !bell.get()) {
                now = Duration::from_nanos(built.world.now().as_nanos());
                timeline.hear(&built.world, now);
            }
        } else {
            built.world.run_until(build::at(now));
        }
        built.world.begins_outside();
        if let Some(exceeded) = built.world.exceeded() {
            return Err(RunError::Exceeded(exceeded));
        }
        let step = timeline.next_at().unwrap_or(end);
        if !go_on() {
            return Err(RunError::Stopped);
        }
        if let Some(recorder) = &mut recorder {
            recorder.look(&built.world, now);
        }
        if now < judge_at && step != now {
            // It was the recorder's time, or what was waited for has come and its delay runs.
            continue;
        }
        if step == now && now < end {
            let marks = timeline.marks();
            if marks.first_crash {
                crash_at = Some(now);
                judge.crashed(now);
            }
            if marks.first_fault || marks.first_crash {
                watch.borrow_mut().fault(nanos(now));
                judge.first_fault(&built.world, now);
            }
            if marks.first_fault
                && let Some(Switch::Suppress(kinds)) = plan::switch(scenario)
            {
                off(kinds, None);
            }
            judge.levels(&built.world, now);
            if let Some((fault, undo, met)) = timeline.coming(&built.world)
                && let Some(of) = scenario.faults.get(fault)
            {
                if matches!((&of.action, undo), (Action::Crash(..), false)) {
                    judge.before_crash(&built.world, now, met);
                }
                let crash = judge
                    .excuses
                    .step(&built.world, now, (fault, &of.action, undo), met);
                if let Some(crash) = crash {
                    // What it gave up before, as the loser of a split does, lives on at servers too.
                    let share = crash
                        .lb
                        .map_or_else(Vec::new, |lb| build::local_addrs(scenario, lb.0));
                    watch.borrow_mut().reuse.forget(|ends| {
                        let unknown = share.contains(&ends.0.ip()) && !crash.known.contains(ends);
                        unknown || crash.died.contains(ends)
                    });
                }
                if starts(&of.action, undo) {
                    close_until = now + CLOSE_FOR;
                }
            }
            let damages = timeline
                .coming(&built.world)
                .and_then(|(fault, ..)| scenario.faults.get(fault))
                .is_some_and(|f| matches!(f.action, Action::Damage(..)));
            let gone = damages.then(|| judge.before_damage(&built.world));
            timeline.happen(built, now)?;
            if let Some(gone) = gone {
                judge.after_damage(&built.world, gone);
            }
            if marks.first_fault
                && let Some(Switch::Deafen(kinds)) = plan::switch(scenario)
            {
                off(kinds, timeline.first_met().map(|lb| lb.0));
            }
            if marks.first_crash {
                next_look = Some(now + SURVIVORS_EVERY);
            }
            // A node's life begins with a look, and so does the time in which tables become equal.
            next_sample = now;
            continue;
        }
        if let Some((look, crash)) = next_look.zip(crash_at).filter(|l| l.0 == now) {
            let waits = watch.borrow().vip_taken_at.is_none() && now < crash + SURVIVORS_FOR;
            if waits {
                judge.before_takeover(&built.world);
            }
            next_look = waits.then_some(look + SURVIVORS_EVERY);
            if now < next_sample && now < end {
                continue;
            }
        }
        let last_fault = timeline.last_fault();
        judge.faults_over(last_fault);
        judge.sample(&built.world, now, &mut watch.borrow_mut());
        if now >= end {
            break;
        }
        let fresh = now >= last_fault && now < last_fault + CONVERGENCE_FOR;
        let settling = settles && (timeline.may_end() || fresh && !judge.has_converged());
        next_sample = now
            + if settling {
                CONVERGENCE_EVERY
            } else if now < close_until {
                CLOSE_EVERY
            } else {
                SAMPLE_EVERY
            };
    }
    timeline.finish(end);
    built.world.finish_taps().map_err(RunError::Write)?;
    let watch = watch.borrow();
    let report = judge.finish(built, &watch, &timeline, seed, recorder);
    let made = then(&built.world, &watch, &report);
    Ok((report, made))
}

/// The version of frames that each node speaks; none if all speak the same.
fn formats(scenario: &Scenario) -> BTreeMap<u16, u8> {
    let nodes = &scenario.cluster.nodes;
    let first = nodes.first().map(|n| n.format);
    let same = nodes.iter().all(|n| Some(n.format) == first);
    if same || plan::switch(scenario) == Some(Switch::OneFormat) {
        return BTreeMap::new();
    }
    nodes.iter().map(|n| (n.id, n.format)).collect()
}

fn watch(scenario: &Scenario, built: &Built) -> Watch {
    let world = &built.world;
    let lips = scenario
        .cluster
        .nodes
        .iter()
        .flat_map(|n| build::local_addrs(scenario, n.id));
    let vips = build::vips(scenario);
    let links = [
        &scenario.links.clients,
        &scenario.links.servers,
        &scenario.links.sync,
    ];
    let flips = |f: &Fault| matches!(&f.action, Action::Disturb(.., how) if how.corrupt_ppm > 0);
    Watch {
        corrupts: links.iter().any(|l| l.corrupt_ppm > 0) || scenario.faults.iter().any(flips),
        names: world.port_names().into_iter().collect(),
        sync_ports: world.lbs().map(|lb| lb.place(LbPort::Sync)).collect(),
        client_count: CLIENT_COUNT as u16,
        settle: nanos(built.round_trip) / 2,
        served: lips.chain(vips.iter().copied()).collect(),
        vips: vips.into_iter().collect(),
        last_frame: LastFrame::new(Reader::new(scenario)),
        ..Watch::default()
    }
}

/// Nodes that run, by index.
fn running(world: &World) -> impl Iterator<Item = u16> + '_ {
    world
        .lbs()
        .filter(|lb| lb.state() == LbState::Running)
        .map(|lb| lb.id().0)
}

/// Whether a step starts a node.
fn starts(action: &Action, undo: bool) -> bool {
    matches!(
        (action, undo),
        (Action::Crash(..), true) | (Action::Start(..), false)
    )
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod node_tests;

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::oracle::Oracle;
    use evenkeel_io_sim::WorldBounds;

    pub(crate) use super::judge::{live, sample};

    /// A node alone, clients and servers of both families.
    pub(crate) const ONE_NODE: &str = r#"
name = "one-node"
description = "one node, nothing goes wrong"
duration = "6s"
quiet = "2s"

[cluster]
nodes = 1
workers = 2

[links.clients]
delay = "20us..500us"

[[service]]
name = "v4"
vip = "192.0.2.1:80"
servers = 3

[[service]]
name = "v6"
vip = "[2001:db8:2::1]:80"
servers = 3

[[load]]
name = "long"
flows = 20
every = "100ms..300ms"

[[load]]
name = "short"
rate = 50
requests = 2
every = "10ms"

[[expect]]
that = "broken == 0"

[[expect]]
that = "stall <= 100ms"

[[expect]]
that = "connections >= 150"

[[expect]]
that = "completed == connections"
"#;

    /// Two nodes that know of each other; some flows stay open.
    pub(crate) const TWO_NODES: &str = r#"
name = "two-nodes"
description = "two nodes, nothing goes wrong"
duration = "6s"
quiet = "2s"

[cluster]
nodes = 2
workers = 2

[links.clients]
delay = "20us..500us"

[[service]]
name = "v4"
vip = "192.0.2.1:80"
servers = 3

[[service]]
name = "v6"
vip = "[2001:db8:2::1]:80"
servers = 3

[[load]]
name = "long"
flows = 20
start = "2s..2500ms"
every = "100ms..300ms"
end = "stay"

[[load]]
name = "short"
rate = 100
start = "2s"
requests = 2
every = "10ms"

[[expect]]
that = "broken == 0"
"#;

    pub(crate) fn started(scenario: &Scenario) -> (Built, Plan) {
        let mut built = build::world(scenario, QueueKind::default()).expect("a world");
        let plan = Plan::new(scenario);
        for node in &scenario.cluster.nodes {
            built.world.start(build::lb(node.id)).expect("it starts");
        }
        build::flows(&mut built.world, scenario).expect("flows");
        (built, plan)
    }

    /// The world of a scenario without faults, at some time.
    pub(crate) fn world_at(text: &str, seed: u64, at: Duration) -> World {
        let (mut built, _) = started(&plan::plan(&scenario(text), seed));
        built.world.run_until(build::at(at));
        built.world
    }

    /// What frames say is closed.
    pub(crate) fn closes_in(frames: &[Vec<u8>]) -> Vec<crate::oracle::Closes> {
        let mut last = sync_frame::LastFrame::default();
        let told = frames.iter().flat_map(|frame| {
            sync_frame::count(frame, &mut last, &mut [0; sync_frame::COUNTER_COUNT]);
            last.closes()
        });
        told.collect()
    }

    /// What frames say of closes.
    pub(crate) fn said_in(frames: &[Vec<u8>]) -> Vec<crate::oracle::Said> {
        let mut last = sync_frame::LastFrame::default();
        let told = frames.iter().flat_map(|frame| {
            sync_frame::count(frame, &mut last, &mut [0; sync_frame::COUNTER_COUNT]);
            last.said()
        });
        told.collect()
    }

    /// Frames that its nodes and hosts have sent by then.
    pub(crate) fn frames_of(text: &str, seed: u64, at: Duration) -> Vec<Vec<u8>> {
        struct Sent(Rc<RefCell<Vec<Vec<u8>>>>);
        impl evenkeel_io_sim::Tap for Sent {
            fn frame(
                &mut self,
                _: evenkeel_core::time::Instant,
                _: evenkeel_io_sim::Place,
                direction: evenkeel_io_sim::Direction,
                data: &[u8],
            ) {
                if direction == evenkeel_io_sim::Direction::Out {
                    self.0.borrow_mut().push(data.to_vec());
                }
            }
        }
        let (mut built, _) = started(&plan::plan(&scenario(text), seed));
        let sent = Rc::default();
        built.world.add_tap(Box::new(Sent(Rc::clone(&sent))));
        built.world.run_until(build::at(at));
        sent.take()
    }

    /// What its nodes hold.
    pub(crate) fn levels(world: &World) -> Vec<crate::oracle::Level> {
        let levels = world.lbs().flat_map(cluster::levels);
        levels.collect()
    }

    /// A scenario without faults, judged; some oracles find what is not there, and say their own names.
    pub(crate) fn judged(text: &str, seed: u64, doctored: &[Oracle]) -> Report {
        judged_by(text, seed, doctored, None)
    }

    /// The same, with an oracle that panics whenever it is asked.
    fn judged_by(text: &str, seed: u64, doctored: &[Oracle], panics: Option<Oracle>) -> Report {
        let scenario = plan::plan(&scenario(text), seed);
        let (mut built, plan) = started(&scenario);
        let watch = Rc::new(RefCell::new(watch(&scenario, &built)));
        built.world.add_tap(Box::new(WatchTap(watch.clone())));
        let rules = Rc::new(RefCell::new(Rules::default()));
        let timeline = Timeline::new(&scenario, &plan, watch.clone(), rules);
        let mut judge = Judge::new(&scenario, &plan);
        let panics = panics.map(|oracle| oracle.says().0);
        judge.panics.doctored = panics;
        watch.borrow_mut().panics.doctored = panics;
        for n in 1.. {
            let now = (SAMPLE_EVERY * n).min(scenario.duration);
            built.world.run_until(build::at(now));
            judge.sample(&built.world, now, &mut watch.borrow_mut());
            if now == scenario.duration {
                break;
            }
        }
        judge.before_crash(&built.world, scenario.duration, Some(build::lb(1)));
        for &oracle in doctored {
            let looked = judge.doctor(&mut watch.borrow_mut(), oracle);
            let at_the_end = matches!(oracle, Oracle::ByteStreams | Oracle::TablesEqual);
            // Nobody joins anybody in a world without faults, and no service is deferred.
            let joins = matches!(oracle, Oracle::ReadyKnows | Oracle::DeferredSurvives);
            assert!(at_the_end || joins || looked > 0, "{oracle:?} was not asked");
        }
        let watch = watch.borrow();
        judge.finish(&built, &watch, &timeline, seed, None)
    }

    pub(crate) fn scenario(text: &str) -> Scenario {
        crate::language::parse("one-node.toml", text, &|_| Err("no base".into()))
            .unwrap_or_else(|e| panic!("{:?}", e.problems()))
    }

    pub(crate) fn run_it(text: &str, seed: u64) -> Report {
        run(&scenario(text), seed, &Options::default(), &mut || true).expect("it runs")
    }

    #[test]
    fn a_node_alone_serves_and_the_digest_is_the_seeds() {
        let report = run_it(ONE_NODE, 1);
        assert!(report.pass, "{}", report.text("one-node.toml"));
        assert!(report.connections >= 150 && report.established == report.connections);
        assert_eq!(report, run_it(ONE_NODE, 1));
        assert_ne!(report.digest, run_it(ONE_NODE, 2).digest);
    }

    #[test]
    fn a_plan_that_is_written_and_read_has_the_digest_of_its_seed() {
        for text in [ONE_NODE, TWO_NODES] {
            let text = text.replacen(
                "[[expect]]",
                "[[fault]]\nname = \"bad\"\ndo = \"disturb\"\nat = \"2s..3s\"\nfor = \"100ms..900ms\"\nnode = \"1\"\nnetwork = \"clients\"\nloss = \"5%\"\n\n[[expect]]",
                1,
            );
            let plan = crate::plan(&scenario(&text), 9);
            let written = crate::write(&plan);
            let read = scenario(&written);
            assert_eq!(read, plan);
            let options = Options::default();
            let of_plan = run_plan(&read, &options, &mut || true).expect("it runs");
            assert_eq!(of_plan, run_it(&text, 9));
            // Only what is drawn frame by frame is another seed's.
            assert_ne!(of_plan.digest, run_it(&written, 10).digest);
        }
    }

    /// Ends, starts and requests of the flows of a world at its end.
    fn courses(scenario: &Scenario) -> Vec<(SocketAddr, Option<u64>, u32, u64)> {
        let (mut built, _) = started(scenario);
        built.world.run_until(build::at(scenario.duration));
        let course = |f: &evenkeel_io_sim::FlowRecord| {
            (
                f.client(),
                f.opened.map(|t| t.as_nanos()),
                f.requested,
                f.client_bytes,
            )
        };
        built.world.flows().iter().map(course).collect()
    }

    #[test]
    fn a_flow_less_leaves_the_ports_and_gaps_of_all_others() {
        let mut plan = crate::plan(&scenario(ONE_NODE), 4);
        let mut all = courses(&plan);
        let crate::scenario::Arrival::Planned(flows) = &mut plan.loads[0].arrival else {
            panic!("a plan");
        };
        flows.remove(3);
        all.remove(3);
        assert_eq!(courses(&plan), all);
    }

    #[test]
    fn a_crash_of_a_node_alone_breaks_what_it_served() {
        let crash = ONE_NODE.replace(
            "[[expect]]\nthat = \"stall",
            "[[fault]]\ndo = \"crash\"\nat = \"2s..3s\"\nnode = \"1\"\n\n[[expect]]\nthat = \"stall",
        );
        let crash = crash.replacen("name = \"long\"", "name = \"long\"\ngive_up = \"1s\"", 1);
        let report = run_it(&crash, 3);
        assert!(!report.pass);
        assert!(report.live_at_fault >= 20 && report.replicated == 0);
        assert!(report.broken >= 20, "{}", report.text("x"));
        let failure = report
            .failures
            .iter()
            .find(|f| f.name == "broken == 0")
            .expect("it failed");
        assert!((2_000_000_000..6_000_000_000).contains(&failure.at_ns));
        assert!(failure.seen.starts_with("broken = "));
        assert!(
            report
                .text("x.toml")
                .to_string()
                .contains("replay: evenkeel sim run x.toml --seed 3")
        );
        // Only what was declared may have failed: no oracle is among it.
        assert!(
            report
                .failures
                .iter()
                .all(|f| crate::ORACLES.iter().all(|o| o.0 != f.name)),
            "{}",
            report.text("x")
        );
    }

    #[test]
    fn what_hangs_at_the_end_is_no_success() {
        let cut = "[[fault]]\ndo = \"cut\"\nat = \"2s\"\nnode = \"1\"\nnetwork = \"servers\"\n\n[[expect]]\nthat = \"broken";
        let cut = ONE_NODE.replace("[[expect]]\nthat = \"broken", cut);
        let report = run_it(&cut, 3);
        assert_eq!((report.broken, report.failed), (0, 0), "nobody gives up so soon");
        let seen = |r: &Report| r.failures.iter().any(|f| f.name == crate::expect::NO_HANGING);
        assert!(report.hanging > 20 && seen(&report), "{}", report.text("x"));
        let may = cut.replacen("quiet =", "may_hang = \"on\"\nquiet =", 1);
        assert!(!seen(&run_it(&may, 3)));
        let said = cut.replacen("broken == 0", "hanging >= 20", 1);
        assert!(!seen(&run_it(&said, 3)), "what is said of it counts");
    }

    #[test]
    fn what_there_was_nothing_to_look_at_fails() {
        let never = TWO_NODES.replace("workers = 2", "workers = 2\njoin_time = \"10s\"");
        let never = never.replace("broken == 0", "unequal == 0");
        let report = run_it(&never, 4);
        let unmeasured = report.failures.iter().filter(|f| f.unmeasured);
        let names: Vec<_> = unmeasured.map(|f| f.name.as_str()).collect();
        let expected = [
            "unequal == 0",
            "server-stays",
            "outbound-unique",
            "byte-streams",
            "versions-grow",
            "tables-equal",
        ];
        assert_eq!(names, expected, "{}", report.text("x"));
        assert!(!report.pass);
        // In a node alone there is nothing to compare, and no version.
        assert!(run_it(ONE_NODE, 4).pass);
    }

    #[test]
    fn a_fault_that_touches_so_many_frames_ends_with_the_last_one() {
        let fault = "[[fault]]\ndo = \"suppress\"\nat = \"3s\"\nfor = \"2s\"\nnode = \"1\"\nto = \"2\"\nkinds = [\"live\"]\nframes = 3\n\n[[expect]]\nthat = \"broken";
        let lost = TWO_NODES.replacen("[[expect]]\nthat = \"broken", fault, 1);
        let lost = lost + "\n[[expect]]\nthat = \"converged > 0ms\"\n";
        let report = run_it(&lost, 4);
        assert!(report.pass, "{}", report.text("x"));
        assert_eq!(report.kept_back, 3);
    }

    #[test]
    fn bounds_are_those_that_a_fault_has_set() {
        let mut world = world_at(TWO_NODES, 4, Duration::from_secs(3));
        let messages = |world: &World| {
            let mut levels = levels(world).into_iter();
            let level = levels.find(|l| l.node == "node2" && l.what == "queue of messages");
            level.map(|l| (l.held, l.bound)).expect("it has one")
        };
        let (before, default) = messages(&world);
        assert!(before > 2 && default > 1_000, "{before} of {default}");
        cluster::queues(&mut world, build::lb(2), Some(2)).expect("a node");
        assert_eq!(messages(&world), (0, 2));
        world.run_until(build::at(Duration::from_secs(5)));
        assert_eq!(messages(&world), (2, 2), "it was full");
        let links = cluster::link_levels(&world);
        assert!(links.iter().any(|l| l.held > 0) && links.iter().all(|l| l.held <= l.bound && l.bound > 0));
    }

    #[test]
    fn no_work_is_done_for_idle_flows() {
        let work = |nodes: u32, flows: u32, seconds: u32| {
            let text = ONE_NODE.split("[[load]]").next().expect("a head");
            let text = text.replace("duration = \"6s\"", &format!("duration = \"{seconds}s\""));
            let text = text.replace("nodes = 1", &format!("nodes = {nodes}"));
            let load = format!(
                "[[load]]\nname = \"idle\"\nflows = {flows}\nstart = \"2s..3s\"\nrequests = 1\nend = \"stay\"\n\n[[expect]]\nthat = \"established == {flows}\"\n"
            );
            let report = run_it(&(text + &load), 5);
            assert!(report.pass, "{}", report.text("x"));
            report
        };
        // From 4.1 s on, before which no load ends, no flow does anything.
        let more = |nodes, flows| {
            let (short, long) = (work(nodes, flows, 7), work(nodes, flows, 11));
            let sync: Vec<_> = long.sync.into_iter().collect();
            let sync = sync.into_iter().map(|(kind, n)| (kind, n - short.sync[kind]));
            (long.events - short.events, sync.collect::<Vec<_>>())
        };
        assert_eq!(more(1, 10), more(1, 2_000), "what 4 s more cost one node");
        // How many turns of a node the same messages cost depends on how they meet: not on the flows.
        let ((few, few_said), (many, many_said)) = (more(2, 10), more(2, 2_000));
        assert_eq!(few_said, many_said, "what 4 s more make two nodes say");
        assert!(
            few > 1_000 && few.abs_diff(many) * 10 <= few,
            "{few} and {many} events"
        );
    }

    /// Names of oracles that failed.
    fn oracles(report: &Report) -> Vec<&str> {
        let names = report.failures.iter().map(|f| f.name.as_str());
        names
            .filter(|n| crate::ORACLES.iter().any(|o| o.0 == *n))
            .collect()
    }

    #[test]
    fn a_datagram_whose_session_died_with_its_node_may_get_another_server() {
        // The crash is in the midst of the flows' first requests, and of the latest nobody else was told.
        let text = r#"
name = "udp"
description = "datagrams over a crash"
duration = "8s"
[cluster]
nodes = 2
[[service]]
name = "dns"
vip = "192.0.2.10:53"
protocol = "udp"
servers = 3
[[load]]
name = "many"
flows = 1000
start = "1500ms..2s"
every = "100ms..500ms"
[[fault]]
do = "suppress"
at = "1900ms"
node = "1"
kinds = ["live"]
[[fault]]
do = "crash"
at = "1992ms"
node = "1"
[[expect]]
that = "broken <= unsynced"
[[expect]]
that = "unsynced > 0"
"#;
        let report = run_it(text, 1);
        assert!(report.pass && report.broken > 20, "{}", report.text("x"));
        assert!(report.broken_flows.iter().all(|f| f.why == "other-server"));
        // A service that replicates nothing: all that was open may break.
        let off = text.replacen("servers = 3", "servers = 3\nreplicate = \"off\"", 1);
        let report = run_it(&off, 1);
        assert!(report.pass && report.broken > 100, "{}", report.text("x"));
        let drained = off.replace("do = \"crash\"", "do = \"drain\"");
        let report = run_it(&drained, 1);
        assert!(report.broken > 100, "{}", report.text("x"));
        assert!(oracles(&report).is_empty(), "{}", report.text("x"));
    }

    #[test]
    fn a_drain_moves_what_is_not_replicated_and_no_oracle_minds() {
        let text = TWO_NODES.replace("servers = 3", "servers = 3\nreplicate = \"off\"");
        let drain = "[[fault]]\ndo = \"drain\"\nat = \"3s\"\nnode = \"master\"\n\n[[expect]]";
        let report = run_it(&text.replacen("[[expect]]", drain, 1), 1);
        assert!(oracles(&report).is_empty(), "{}", report.text("x"));
        assert!(report.hanging > 0, "{}", report.text("x"));
    }

    #[test]
    fn unequal_tables_of_a_network_that_was_not_quiet_say_so() {
        let said = |quiet: &str| {
            let text = TWO_NODES.replacen("quiet = \"2s\"", &format!("quiet = \"{quiet}\""), 1);
            let report = judged(&text, 4, &[Oracle::TablesEqual]);
            let failure = report.failures.into_iter().find(|f| f.name == "tables-equal");
            failure.expect("doctored").seen
        };
        assert!(said("100ms").ends_with("; the network was not quiet: lengthen `quiet`"));
        assert!(!said("2s").contains("quiet"));
    }

    #[test]
    fn what_finds_nothing_to_do_is_said_in_the_timeline() {
        let fault = |action: &str, at: &str, more: &str| {
            format!(
                "[[fault]]\nname = \"{action}\"\ndo = \"{action}\"\nat = \"{at}\"\nnode = \"2\"\n{more}\n"
            )
        };
        let network = "network = \"sync\"";
        let faults = [
            fault("resume", "2s", ""),
            fault("pause", "2100ms", "for = \"1ms\""),
            fault("heal", "2200ms", network),
            fault("cut", "2300ms", network),
            fault("start", "2400ms", ""),
            fault("crash", "2500ms", "for = \"1ms\""),
        ];
        let text = TWO_NODES.replacen("[[expect]]", &format!("{}\n[[expect]]", faults.concat()), 1);
        let report = run_it(&text, 1);
        let timeline: Vec<_> = report.timeline.iter().map(|t| t.1.as_str()).collect();
        assert_eq!(
            timeline,
            [
                "resume: nothing to resume on node 2",
                "pause begins on node 2",
                "pause ends on node 2",
                "heal: nothing to heal on node 2",
                "cut begins on node 2",
                "start: nothing to start on node 2",
                "crash begins on node 2",
                "crash ends on node 2",
            ]
        );
    }

    #[test]
    fn an_oracle_that_panics_fails_its_run_by_its_name() {
        assert!(judged(TWO_NODES, 4, &[]).pass);
        for &oracle in Oracle::ALL {
            let report = judged_by(TWO_NODES, 4, &[], Some(oracle));
            assert!(
                !report.pass && report.outcome == crate::Outcome::Fail,
                "{oracle:?}"
            );
            let name = format!("{} panicked", oracle.says().0);
            let failure = report.failures.iter().find(|f| f.name == name);
            let failure = failure.unwrap_or_else(|| panic!("{oracle:?}: {}", report.text("x")));
            assert!(
                failure.seen.contains("doctored") && failure.seen.contains("guard.rs:"),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn a_panic_anywhere_else_is_an_error_of_its_run_and_of_no_other() {
        let options = Options {
            trace: Some(|| panic!("nowhere to write to")),
            ..Options::default()
        };
        let scenario = scenario(ONE_NODE);
        let ended = run(&scenario, 1, &options, &mut || true);
        let Err(error @ RunError::Panicked { .. }) = &ended else {
            panic!("{ended:?}");
        };
        assert!(error.to_string().ends_with(": nowhere to write to"), "{error}");
        assert_eq!(error.outcome(), Some("panicked"));
        assert!(run(&scenario, 1, &Options::default(), &mut || true).is_ok_and(|r| r.pass));
    }

    #[test]
    fn a_run_beyond_a_bound_stops_there_with_its_name() {
        let whole = run_it(ONE_NODE, 1);
        let bounded = |events, memory_bytes, queue| {
            let mut scenario = scenario(ONE_NODE);
            scenario.bounds = WorldBounds { events, memory_bytes };
            let options = Options {
                queue,
                ..Options::default()
            };
            run(&scenario, 1, &options, &mut || true)
        };
        let (all, most) = (whole.events, whole.memory_bytes);
        let mut seen = Vec::new();
        for queue in QueueKind::ALL {
            assert_eq!(
                bounded(all, most, queue),
                Ok(whole.clone()),
                "what it needs is enough"
            );
            let exceeded = [(all - 1, most), (all, most - 1), (all, most / 2)].map(|(events, memory)| {
                match bounded(events, memory, queue) {
                    Err(RunError::Exceeded(exceeded)) => exceeded,
                    other => panic!("{other:?}"),
                }
            });
            let [events, conns, tables] = exceeded;
            assert!(
                matches!(events, Exceeded::Events { at_ns, .. } if at_ns > 0),
                "{events}"
            );
            assert!(
                matches!(conns, Exceeded::Memory { needed, at_ns, .. } if needed == most && at_ns > 0),
                "{conns}"
            );
            // The tables of a node are refused before they are made.
            assert!(matches!(tables, Exceeded::Memory { at_ns: 0, .. }), "{tables}");
            let error = RunError::Exceeded(conns);
            assert!(
                error
                    .to_string()
                    .ends_with("the bound is the scenario's `memory_mib`")
            );
            assert_eq!(error.outcome(), Some("exceeded"));
            seen.push(exceeded);
        }
        assert_eq!(seen[0], seen[1], "the same event");
    }

    #[test]
    fn a_run_stops_when_it_is_told_to() {
        let mut left = 5;
        let stopped = run(&scenario(ONE_NODE), 1, &Options::default(), &mut || {
            left -= 1;
            left > 0
        });
        assert_eq!(stopped, Err(RunError::Stopped));
    }
}
