//! `evenkeel sim run`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_control::Problem;
use evenkeel_sim_scenarios::{
    COMMIT_LEN_MIN, Options, QueueKind, Recording, Report, RunError, Scenario, TRAIL_EVERY, Trail, TrailFile,
    TrailSpec, replay, run as run_scenario, seeds_from,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::files;
use super::shard::Shard;
use super::told::{self, Told as ForCi};
use crate::complaint::Complaint;
use crate::config;
use crate::signals::Signals;
use crate::{Exit, print};

/// Seeds of one call at most.
const SEED_COUNT_MAX: u64 = 1_000_000;

/// Run scenarios and judge them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel sim run sim-scenarios/scenarios/active-backup-crash.toml
  The same with 200 other seeds, on two cores; what fails says how to replay it:
    evenkeel sim run sim-scenarios/scenarios/active-backup-crash.toml --seeds 0..200 --jobs 2
  What the surviving node saw, for Wireshark:
    evenkeel sim run sim-scenarios/scenarios/active-backup-crash.toml --seed 7 --pcap captures
  A page with pictures, to look at in a browser:
    evenkeel sim run sim-scenarios/scenarios/active-backup-crash.toml --report reports
  On one of four machines, for a CI system that reads JUnit's XML:
    evenkeel sim run sim-scenarios/scenarios/*.toml --seeds 0..100 --shard 0/4 --junit results.xml

Exit codes: 0 all passed (a counter-proof: failed as declared), or were skipped; 1 refused: arguments, a scenario, a file;
3 a scenario failed, or something panicked; 4 nothing failed, and a run went beyond a bound of its scenario; 130, 143 stopped by SIGINT, SIGTERM: what was done so far is printed.")]
pub(super) struct Args {
    /// Scenario files, or names of committed ones; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Seed; default that of a plan, or 0
    #[arg(long, value_name = "N", group = "which")]
    seed: Option<u64>,
    /// Seeds from A to B, B excluded
    #[arg(long, value_name = "A..B", group = "which")]
    seeds: Option<Range>,
    /// N seeds drawn from the first 7 digits of the hash of a commit
    #[arg(long, value_name = "COMMIT:N", group = "which")]
    seeds_from: Option<FromCommit>,
    /// Only the runs of shard I of N, I from 0: the shards have no run in common, and all of them together have all
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Print one JSON object a run, each on a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    told: told::ToldArgs,
    /// Write the frames of each port as pcapng into this folder (of several runs: into one folder each)
    #[arg(long, value_name = "FOLDER")]
    pcap: Option<PathBuf>,
    /// Write a page of HTML for each run into this folder, SCENARIO-SEED.html; each run is made twice then
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// The connection that the page shows packet by packet; default: the first that broke, else the one that waited longest
    #[arg(long, value_name = "N", requires = "report")]
    flow: Option<u32>,
    /// Print what happens to standard error; for a single run
    #[arg(long)]
    trace: bool,
    /// How the queue of events is kept: heap or wheel; results do not depend on it
    #[arg(long, value_name = "KIND", default_value = "wheel")]
    queue: QueueKind,
    /// Write digests of the run as it went into this file, for `sim diff` elsewhere; for a single run
    #[arg(long, value_name = "FILE")]
    trail: Option<PathBuf>,
    /// Runs at the same time; results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
}

/// `A..B`.
#[derive(Clone, Debug)]
pub(super) struct Range(pub(super) std::ops::Range<u64>);

impl FromStr for Range {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text
            .split_once("..")
            .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match ends {
            Some((a, b)) if a >= b => Err(format!("no seed is in {a}..{b}: B is excluded")),
            Some((a, b)) if b - a > SEED_COUNT_MAX => Err(format!("{SEED_COUNT_MAX} seeds at most")),
            Some((a, b)) => Ok(Range(a..b)),
            None => Err("write two numbers with two dots between them, such as 0..200".into()),
        }
    }
}

/// `COMMIT:N`.
#[derive(Clone, Debug)]
pub(super) struct FromCommit(String, u32);

impl FromCommit {
    /// They are spread over all seeds that there are.
    pub(super) fn seeds(&self) -> Vec<u64> {
        seeds_from(&self.0, self.1)
    }
}

impl FromStr for FromCommit {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .rsplit_once(':')
            .and_then(|(commit, n)| Some((commit, n.parse::<u32>().ok()?)));
        let Some((commit, n)) = parts else {
            return Err("write the hash of a commit and a number, such as 0123abc:50".into());
        };
        if !(COMMIT_LEN_MIN..=64).contains(&commit.len()) || !commit.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("a commit is named by 7 to 64 hexadecimal digits".into());
        }
        if n == 0 || u64::from(n) > SEED_COUNT_MAX {
            return Err(format!("1 to {SEED_COUNT_MAX} seeds"));
        }
        Ok(FromCommit(commit.to_ascii_lowercase(), n))
    }
}

/// A run to be made.
struct Task<'s> {
    file: &'s str,
    scenario: &'s Scenario,
    seed: u64,
    options: Options,
    /// Where its page goes.
    report: Option<&'s Path>,
}

impl Task<'_> {
    /// Runs it, and writes its page.
    fn run(&self, go_on: &mut dyn FnMut() -> bool) -> Result<Report, RunError> {
        let report = run_scenario(self.scenario, self.seed, &self.options, go_on)?;
        if let Some((folder, page)) = self.report.zip(report.html(self.scenario, self.file)) {
            let path = folder.join(format!("{}-{}.html", report.scenario, report.seed));
            files::put(&path, &page)
                .map_err(|e| RunError::Write(format!("cannot write {}: {e}", path.display())))?;
        }
        Ok(report)
    }
}

/// A run in JSON.
#[derive(Serialize)]
struct Told<'r> {
    #[serde(flatten)]
    report: &'r Report,
    /// The command that replays it, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<String>,
}

/// A scenario that was not run, in JSON.
#[derive(Serialize)]
struct Skipped<'s> {
    scenario: &'s str,
    outcome: &'static str,
    waits_for: &'s str,
}

/// A run that a signal ended, in JSON.
#[derive(Serialize)]
struct Interrupted<'s> {
    scenario: &'s str,
    seed: u64,
    outcome: &'static str,
}

/// A run that gave no result, in JSON.
#[derive(Serialize)]
struct Unfinished<'s> {
    scenario: &'s str,
    seed: u64,
    pass: bool,
    outcome: &'static str,
    error: String,
    replay: String,
}

/// How a task ended; `None`: it never began.
type Ended = Option<Result<Report, RunError>>;

pub(super) fn run(args: &Args) -> Result<Exit, Complaint> {
    if args.files.iter().filter(|path| config::is_stdin(path)).count() > 1 {
        return Err(Complaint::new("standard input is given more than once")
            .help("it can be read only once: write `-` once, and name the other scenarios by their files"));
    }
    if let Some((junit, trail)) = args.told.junit().zip(args.trail.as_deref())
        && junit == trail
    {
        let complaint = Complaint::new(format!("--junit and --trail both write {}", junit.display()));
        return Err(complaint.help("give each a file of its own"));
    }
    // Before anything is read: what is refused shall be seen, too.
    let mut for_ci = ForCi::new(&args.told)?;
    let (mut scenarios, mut refused) = (Vec::new(), Vec::new());
    for path in &args.files {
        let file = path.display().to_string();
        match files::load(path) {
            Ok(scenario) => scenarios.push((file, scenario)),
            Err(complaint) => {
                for_ci.refused(&file, &complaint);
                refused.push(complaint);
            }
        }
    }
    if let Some(last) = refused.pop() {
        for_ci.finish(args.json)?;
        for complaint in refused {
            complaint.report();
        }
        return Err(last);
    }
    let seeds: Vec<Option<u64>> = match (&args.seeds, &args.seeds_from) {
        (Some(range), _) => range.0.clone().map(Some).collect(),
        (_, Some(from)) => from.seeds().into_iter().map(Some).collect(),
        _ => vec![args.seed],
    };
    let single = scenarios.len() == 1 && seeds.len() == 1;
    for (option, given) in [("--trace", args.trace), ("--trail", args.trail.is_some())] {
        if given && !single {
            let complaint = Complaint::new(format!("{option} is for a single run"));
            return Err(complaint.help("give one scenario and one --seed"));
        }
    }
    if args.report.is_some() || args.pcap.is_some() {
        alike(&scenarios)?;
    }
    if let Some(folder) = &args.report {
        let failed = |e| Complaint::io(format!("cannot make {}", folder.display()), e);
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let noted = Arc::new(Mutex::new(Trail::default()));
    let trail = args.trail.as_ref().map(|_| {
        let spec = TrailSpec {
            every: TRAIL_EVERY,
            record: 0..0,
        };
        (spec, Arc::clone(&noted))
    });
    let mut tasks = Vec::new();
    let mut dealt = 0;
    for (file, scenario) in &scenarios {
        if let Some(waits_for) = &scenario.waits_for {
            // Once is enough.
            if args.shard.is_none_or(Shard::is_first) {
                for_ci.skipped(file, scenario, waits_for);
                skip(args, scenario, waits_for)?;
            }
            continue;
        }
        for seed in &seeds {
            dealt += 1;
            if args.shard.is_some_and(|shard| !shard.has(dealt - 1)) {
                continue;
            }
            // A plan has the seed that it was drawn from.
            let seed = seed.or(scenario.seed).unwrap_or(0);
            let pcap = args.pcap.as_ref().map(|folder| match single {
                true => folder.clone(),
                false => folder.join(format!("{}-{seed}", scenario.name)),
            });
            let trace: Option<fn() -> Box<dyn Write>> = args.trace.then_some(|| Box::new(io::stderr()));
            tasks.push(Task {
                file,
                scenario,
                seed,
                options: Options {
                    pcap,
                    trace,
                    record: args.report.is_some().then_some(Recording { flow: args.flow }),
                    queue: args.queue,
                    trail: trail.clone(),
                    meter: None,
                },
                report: args.report.as_deref(),
            });
        }
    }
    let signals = Signals::listen()?;
    let mut shown = Shown::new(args, seeds.len(), tasks.len(), for_ci);
    run_all(&tasks, args.jobs, &signals, &mut shown);
    shown.bar.finish_and_clear();
    // What was done so far is told even if something could not be shown.
    let told = shown.for_ci.finish(args.json);
    let ended = match shown.hindered.take() {
        Some(complaint) => {
            told.map_or_else(Complaint::report_unless_unread, |()| ());
            Err(complaint)
        }
        None => told.and_then(|()| finish(args, &scenarios, &seeds, &noted, &tasks, dealt, &shown)),
    };
    match (ended, signals.received()) {
        (Ok(()), Some(signal)) if shown.stopped => Ok(Exit::Interrupted(signal)),
        // A failure is one whether or not somebody reads of it.
        (Err(complaint), _) if shown.failed > 0 => {
            complaint.report_unless_unread();
            Ok(Exit::Failed)
        }
        (Err(complaint), _) => Err(complaint),
        (Ok(()), _) if shown.failed > 0 => Ok(Exit::Failed),
        (Ok(()), _) if shown.exceeded > 0 => Ok(Exit::Exceeded),
        (Ok(()), _) => Ok(Exit::Fine),
    }
}

/// What is written and said once all runs are over.
fn finish(
    args: &Args,
    scenarios: &[(String, Scenario)],
    seeds: &[Option<u64>],
    noted: &Mutex<Trail>,
    tasks: &[Task<'_>],
    dealt: u64,
    shown: &Shown<'_>,
) -> Result<(), Complaint> {
    if let (Some(path), Some((_, scenario)), false) = (&args.trail, scenarios.first(), tasks.is_empty()) {
        let file = TrailFile {
            scenario: scenario.name.clone(),
            seed: seeds.first().copied().flatten().or(scenario.seed).unwrap_or(0),
            every: TRAIL_EVERY,
            trail: std::mem::take(&mut *noted.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        files::put(path, &file.text())
            .map_err(|e| Complaint::io(format!("cannot write {}", path.display()), e))?;
    }
    shown.summary(scenarios)?;
    if let Some(shard) = args.shard.filter(|_| tasks.is_empty() && !args.json) {
        print(&format!("no run is in shard {shard}: there are {dealt}\n"))?;
    }
    Ok(())
}

/// Scenarios of one name, whose pages and captures would have one place.
fn alike(scenarios: &[(String, Scenario)]) -> Result<(), Complaint> {
    let mut seen = BTreeMap::new();
    for (file, scenario) in scenarios {
        if let Some(first) = seen.insert(scenario.name.as_str(), file) {
            let name = &scenario.name;
            return Err(
                Complaint::new(format!("{first} and {file} are both called \"{name}\"")).help(
                    "pages and captures have the name of their scenario: give one of them another `name`, or run each by itself",
                ),
            );
        }
    }
    Ok(())
}

fn skip(args: &Args, scenario: &Scenario, waits_for: &str) -> Result<(), Complaint> {
    if !args.json {
        return print(&format!("{}: SKIP, waits for {waits_for}\n", scenario.name));
    }
    print_json(&Skipped {
        scenario: &scenario.name,
        outcome: "skip",
        waits_for,
    })
}

pub(super) fn print_json(value: &impl Serialize) -> Result<(), Complaint> {
    let text = serde_json::to_string(value).map_err(|e| Complaint::new(format!("cannot write JSON: {e}")))?;
    print(&(text + "\n"))
}

/// Runs all tasks; results are shown in their order.
fn run_all(tasks: &[Task<'_>], jobs: u16, signals: &Signals, shown: &mut Shown<'_>) {
    let over = Arc::clone(&shown.over);
    let run = |at: usize| {
        let task = tasks.get(at)?;
        let began = Instant::now();
        let mut go_on = || signals.received().is_none() && !over.load(Ordering::Relaxed);
        let result = match go_on() {
            true => Some(task.run(&mut go_on)),
            false => None,
        };
        Some((task, result, began.elapsed()))
    };
    let Ok(()) = in_order(tasks.len(), jobs.into(), run, |result| {
        if let Some((task, result, took)) = result {
            shown.result(task, result, took);
        }
        Ok::<(), Infallible>(())
    });
}

/// Results that wait for an earlier one, for each job at most.
const WAITING_PER_JOB: usize = 16;

/// How many results have been shown; whoever is too far ahead waits for it to grow.
#[derive(Default)]
struct Progress {
    shown: Mutex<usize>,
    moved: Condvar,
}

impl Progress {
    /// No more: nobody waits.
    const OVER: usize = usize::MAX;

    fn set(&self, shown: usize) {
        let mut known = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != Progress::OVER {
            *known = shown;
        }
        drop(known);
        self.moved.notify_all();
    }

    /// Waits until the `at`th may be begun; `false`: no more.
    fn wait(&self, at: usize, window: usize) -> bool {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = |shown: &mut usize| at.saturating_sub(*shown) >= window;
        let shown = self.moved.wait_while(shown, ahead);
        *shown.unwrap_or_else(PoisonError::into_inner) != Progress::OVER
    }
}

/// A job that ends by a panic lets the others end too.
struct Job<'p>(&'p Progress);

impl Drop for Job<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set(Progress::OVER);
        }
    }
}

/// Calls `run` with 0 to `count - 1` on so many threads, and `show` with the results, in their order, until one cannot be
/// shown. Nothing is begun that is further ahead of what was shown than [`WAITING_PER_JOB`] for each job: a slow one
/// holds the others up, and not their results.
pub(super) fn in_order<R: Send, E>(
    count: usize,
    jobs: usize,
    run: impl Fn(usize) -> R + Sync,
    mut show: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let progress = Progress::default();
    let window = jobs * WAITING_PER_JOB;
    let (results, received) = mpsc::sync_channel(jobs);
    thread::scope(|scope| {
        for _ in 0..jobs.min(count) {
            let (next, progress, run, results) = (&next, &progress, &run, results.clone());
            scope.spawn(move || {
                let _job = Job(progress);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    // Nobody listens once something could not be shown.
                    if at >= count || !progress.wait(at, window) || results.send((at, run(at))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(results);
        let mut early = BTreeMap::new();
        let mut due = 0;
        let mut shown_all = Ok(());
        for (at, result) in received {
            early.insert(at, result);
            while let Some(result) = early.remove(&due) {
                due += 1;
                if shown_all.is_ok() {
                    shown_all = show(result);
                    // After a failure no more begin; those that run end by themselves.
                    progress.set(if shown_all.is_ok() { due } else { Progress::OVER });
                }
            }
        }
        shown_all
    })
}

/// What of many runs of a scenario is told in the end.
#[derive(Default)]
struct Totals {
    runs: u64,
    passed: u64,
    connections: u64,
    broken: u64,
    live_at_fault: u64,
    replicated: u64,
    stall_max_ns: Option<u64>,
    detection_max_ns: Option<u64>,
    digests: BTreeSet<u128>,
}

/// Prints results.
struct Shown<'a> {
    args: &'a Args,
    many: bool,
    bar: ProgressBar,
    for_ci: ForCi,
    failed: u64,
    /// Runs that went beyond a bound.
    exceeded: u64,
    stopped: bool,
    /// Why no more are run: something could not be shown or written.
    hindered: Option<Complaint>,
    /// No more are run.
    over: Arc<AtomicBool>,
    totals: BTreeMap<String, Totals>,
}

impl<'a> Shown<'a> {
    fn new(args: &'a Args, seeds: usize, tasks: usize, for_ci: ForCi) -> Self {
        let visible = io::stderr().is_terminal() && tasks > 1;
        let bar = if visible {
            ProgressBar::new(tasks as u64)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {eta}") {
            bar.set_style(style);
        }
        if visible {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Shown {
            args,
            many: seeds > 1,
            bar,
            for_ci,
            failed: 0,
            exceeded: 0,
            stopped: false,
            hindered: None,
            over: Arc::default(),
            totals: BTreeMap::new(),
        }
    }

    /// Notes how a run ended, and shows it; if that cannot be, the others are stopped, and only noted.
    fn result(&mut self, task: &Task<'_>, ended: Ended, took: Duration) {
        if let Err(complaint) = self.tell(task, ended, took) {
            self.over.store(true, Ordering::Relaxed);
            self.hindered.get_or_insert(complaint);
        }
    }

    fn tell(&mut self, task: &Task<'_>, ended: Ended, took: Duration) -> Result<(), Complaint> {
        let report = match ended {
            Some(Ok(report)) => report,
            Some(Err(RunError::Stopped)) => {
                self.stopped = true;
                self.no_result(task, &RunError::Stopped);
                return self.interrupted(task);
            }
            None => {
                self.stopped = true;
                let replay = replay(task.file, task.seed);
                self.for_ci
                    .not_begun(task.file, &task.scenario.name, task.seed, &replay);
                return Ok(());
            }
            Some(Err(error)) if error.outcome().is_some() => return self.unfinished(task, &error),
            Some(Err(error)) => {
                self.no_result(task, &error);
                let (name, seed) = (&task.scenario.name, task.seed);
                return Err(Complaint::new(format!("{name}: seed {seed}: {error}")));
            }
        };
        self.for_ci.result(task.file, task.scenario, &report, took);
        self.failed += u64::from(!report.pass);
        let totals = self.totals.entry(report.scenario.clone()).or_default();
        totals.runs += 1;
        totals.passed += u64::from(report.pass);
        totals.connections += report.connections;
        totals.broken += report.broken;
        totals.live_at_fault += report.live_at_fault;
        totals.replicated += report.replicated;
        totals.stall_max_ns = totals.stall_max_ns.max(report.stall_ms.map(|s| s.ns[4]));
        totals.detection_max_ns = totals.detection_max_ns.max(report.detection_ns);
        totals.digests.insert(report.digest);
        self.bar.inc(1);
        self.bar.set_message(format!("{} failed", self.failed));
        if self.args.json {
            let replay = (!report.pass).then(|| report.replay(task.file));
            let told = Told {
                report: &report,
                replay,
            };
            self.bar.suspend(|| print_json(&told))
        } else if self.many && report.pass {
            // Of many seeds only what failed is told at length.
            Ok(())
        } else {
            self.bar.suspend(|| print(&report.text(task.file).to_string()))
        }
    }

    /// Tells CI systems of a run that gave no result; the command that replays it.
    fn no_result(&mut self, task: &Task<'_>, error: &RunError) -> String {
        let replay = replay(task.file, task.seed);
        self.for_ci
            .error(task.file, &task.scenario.name, task.seed, error, &replay);
        replay
    }

    /// A run that went beyond a bound, or panicked: the others go on.
    fn unfinished(&mut self, task: &Task<'_>, error: &RunError) -> Result<(), Complaint> {
        match error {
            RunError::Exceeded(_) => self.exceeded += 1,
            _ => self.failed += 1,
        }
        let replay = self.no_result(task, error);
        let scenario = task.scenario.name.as_str();
        let totals = self.totals.entry(scenario.to_owned()).or_default();
        totals.runs += 1;
        self.bar.inc(1);
        let (seed, outcome) = (task.seed, error.outcome().unwrap_or_default());
        self.bar.suspend(|| {
            if self.args.json {
                return print_json(&Unfinished {
                    scenario,
                    seed,
                    pass: false,
                    outcome,
                    error: error.to_string(),
                    replay,
                });
            }
            let word = outcome.to_uppercase();
            print(&format!(
                "{scenario}: seed {seed}: {word}\n  {error}\n  replay: {replay}\n"
            ))
        })
    }

    /// What is left of a run that a signal ended.
    fn interrupted(&self, task: &Task<'_>) -> Result<(), Complaint> {
        self.bar.suspend(|| {
            if let Some(folder) = task.options.pcap.as_deref().filter(|folder| folder.is_dir()) {
                let folder = Problem::shown_name(&folder.display().to_string());
                // Nobody is left to tell if this fails.
                let _ = writeln!(
                    io::stderr(),
                    "{}: seed {}: interrupted; the captures so far are in {folder}",
                    task.scenario.name,
                    task.seed
                );
            }
            if !self.args.json {
                return Ok(());
            }
            print_json(&Interrupted {
                scenario: &task.scenario.name,
                seed: task.seed,
                outcome: "interrupted",
            })
        })
    }

    fn summary(&self, scenarios: &[(String, Scenario)]) -> Result<(), Complaint> {
        if self.args.json || (!self.many && !self.stopped) {
            return Ok(());
        }
        let max = |ns: Option<u64>| match ns {
            Some(ns) => format!("{}.{:03} ms max", ns / 1_000_000, ns % 1_000_000 / 1_000),
            None => "none".to_owned(),
        };
        let mut seen = BTreeSet::new();
        for (_, scenario) in scenarios.iter().filter(|(_, s)| seen.insert(s.name.clone())) {
            let Some(t) = self.totals.get(&scenario.name) else {
                continue;
            };
            let digests = match t.digests.len() as u64 {
                n if n == t.runs => "all different".to_owned(),
                n => format!("{n} different"),
            };
            let replicated = match t.live_at_fault {
                0 => String::new(),
                live => format!(
                    "  replicated:   {} of {live} that were live at the first fault\n",
                    t.replicated
                ),
            };
            print(&format!(
                "{}: {} seeds, {} passed, {} failed\n  connections:  {}\n{replicated}  broken:       {}\n  stall:        {}\n  detection:    {}\n  digests:      {digests}\n",
                scenario.name,
                t.runs,
                t.passed,
                t.runs - t.passed,
                t.connections,
                t.broken,
                max(t.stall_max_ns),
                max(t.detection_max_ns),
            ))?;
        }
        if self.stopped {
            print("stopped before the end\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_shown_in_order_and_few_wait_for_a_slow_one() {
        let (jobs, count) = (4, 1_000);
        let window = jobs * WAITING_PER_JOB;
        let first = Progress::default();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let run = |at: usize| {
            if at == 0 {
                // Until as many have been begun as may be.
                let begun = first.shown.lock().expect("no panic");
                let begun = first.moved.wait_while(begun, |n| *n < window - 1);
                drop(begun.expect("no panic"));
                is_over.store(true, Ordering::SeqCst);
            } else if !is_over.load(Ordering::SeqCst) {
                assert!(at < window, "{at} was begun, and 0 is not over");
                *first.shown.lock().expect("no panic") += 1;
                first.moved.notify_all();
            }
            at
        };
        let mut shown = Vec::new();
        let result: Result<(), ()> = in_order(count, jobs, run, |at| {
            shown.push(at);
            Ok(())
        });
        assert_eq!(result, Ok(()));
        assert_eq!(shown, (0..count).collect::<Vec<_>>());
        // What cannot be shown ends it.
        let mut shown = 0;
        let result = in_order(
            count,
            jobs,
            |at| at,
            |at| {
                shown += 1;
                if at == 20 { Err(at) } else { Ok(()) }
            },
        );
        assert_eq!((result, shown), (Err(20), 21));
    }

    #[test]
    fn seeds_are_read() {
        assert_eq!("3..7".parse::<Range>().map(|r| r.0), Ok(3..7));
        for text in ["7..3", "3..3", "3", "a..b", "3...7", "0..99999999", ""] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
        let FromCommit(commit, n) = "0123ABC:50".parse().expect("good");
        assert_eq!((commit.as_str(), n), ("0123abc", 50));
        for text in ["0123abc", "0123abc:0", "012:5", "main:5", "0123abc:x", ""] {
            assert!(text.parse::<FromCommit>().is_err(), "{text}");
        }
    }
}
