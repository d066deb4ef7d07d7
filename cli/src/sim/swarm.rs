//! `evenkeel sim swarm`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evenkeel_sim_scenarios::{
    Options, Recording, Report, RunError, SWARM, Scenario, quoted, run_plan, swarm, write,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::files;
use super::run::{FromCommit, Range, in_order, print_json};
use super::shard::Shard;
use super::told::{self, Told as ForCi};
use crate::complaint::Complaint;
use crate::signals::Signals;
use crate::{Exit, print};

/// Different failures that are kept at most; further ones are only counted.
const FAILURES_MAX: usize = 64;

/// Draw scenarios from seeds, run them, and shrink what fails
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel sim swarm --seeds 0..2000 --jobs 2 --out found
  What one seed draws, and its run:
    evenkeel sim swarm --seeds 7..8 --print > seven.toml
    evenkeel sim run seven.toml
  On one of four machines, other seeds for each commit, for a CI system that reads JUnit's XML:
    evenkeel sim swarm --seeds-from $COMMIT:500 --shard 0/4 --junit swarm.xml --out found

Exit codes: 0 nothing failed; 1 refused: arguments, a file; 3 something failed;
130, 143 stopped by SIGINT, SIGTERM: what was found so far is printed.")]
pub(super) struct Args {
    /// Seeds from A to B, B excluded
    #[arg(long, value_name = "A..B", default_value = "0..100", group = "which")]
    seeds: Range,
    /// N seeds drawn from the first 7 digits of the hash of a commit
    #[arg(long, value_name = "COMMIT:N", group = "which")]
    seeds_from: Option<FromCommit>,
    /// Only the seeds of shard I of N, I from 0: the shards have no seed in common, and all of them together have all
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Runs at the same time; what is found does not depend on it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Print one JSON object for each different failure and one for the whole, each on a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    told: told::ToldArgs,
    /// Write each different failure's smallest plan, its report, as text and as a page, and its frames into this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Runs for shrinking one failure at most; 0: none is shrunk
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    shrink: u32,
    /// Stop after so many different failures
    #[arg(long, value_name = "N")]
    enough: Option<usize>,
    /// Print what the seeds draw, and run nothing
    #[arg(long)]
    print: bool,
}

/// Failures with one signature.
#[derive(Debug)]
struct Found {
    /// The first seed.
    seed: u64,
    count: u64,
    report: Report,
}

/// A failure, in JSON.
#[derive(Serialize)]
struct Told<'f> {
    signature: &'f str,
    seed: u64,
    count: u64,
    seen: &'f str,
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shrink_runs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// The whole, in JSON.
#[derive(Serialize)]
struct Whole {
    runs: u64,
    failed: u64,
    different: usize,
    flows: u64,
    /// Of these: broke, failed, hang or are back, and something excuses it.
    excused: u64,
    events: u64,
    stopped: bool,
    situations: BTreeMap<&'static str, u64>,
    never: Vec<&'static str>,
}

/// The command that draws and runs a seed again, and shrinks what fails.
fn replay(seed: u64) -> String {
    format!("evenkeel sim swarm --seeds {seed}..{}", seed.saturating_add(1))
}

/// The seeds that are run here.
fn seeds(args: &Args) -> Vec<u64> {
    let all = match &args.seeds_from {
        Some(from) => from.seeds(),
        None => args.seeds.0.clone().collect(),
    };
    let dealt = (0..).zip(all);
    let ours = dealt.filter(|(n, _)| args.shard.is_none_or(|shard| shard.has(*n)));
    ours.map(|(_, seed)| seed).collect()
}

pub(super) fn run(args: &Args) -> Result<Exit, Complaint> {
    let seeds = seeds(args);
    if args.print {
        for seed in seeds {
            print(&write(&swarm::draw(seed)))?;
        }
        return Ok(Exit::Fine);
    }
    let mut for_ci = ForCi::new(&args.told)?;
    // Not after hours.
    if let Some(folder) = &args.out {
        fs::create_dir_all(folder)
            .map_err(|e| Complaint::io(format!("cannot make {}", folder.display()), e))?;
    }
    let signals = Signals::listen()?;
    let go_on = || signals.received().is_none();
    let bar = progress(seeds.len());
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    let mut whole = Whole {
        runs: 0,
        failed: 0,
        different: 0,
        flows: 0,
        excused: 0,
        events: 0,
        stopped: false,
        situations: BTreeMap::new(),
        never: Vec::new(),
    };
    let mut sums = vec![0u64; swarm::PROBES.len()];
    let one = |at: usize| {
        // Nobody asks for more than there are.
        let seed = seeds.get(at).copied().unwrap_or_default();
        let began = Instant::now();
        let result = go_on().then(|| swarm::run(&swarm::draw(seed), &mut { go_on }));
        (seed, result, began.elapsed())
    };
    /// Why no more is run.
    enum End {
        Enough,
        Failed(Complaint),
    }
    let ended = in_order(seeds.len(), args.jobs.into(), one, |(seed, result, took)| {
        let report = match result {
            Some(Ok(report)) => report,
            None => {
                whole.stopped = true;
                return Err(End::Enough);
            }
            Some(Err(error)) => {
                for_ci.error("", SWARM, seed, &error, &replay(seed));
                if matches!(error, RunError::Stopped) {
                    whole.stopped = true;
                    return Err(End::Enough);
                }
                return Err(End::Failed(Complaint::new(format!("seed {seed}: {error}"))));
            }
        };
        whole.runs += 1;
        whole.flows += report.connections;
        whole.excused += report.excused.values().sum::<u64>();
        whole.events += report.events;
        for (sum, n) in sums.iter_mut().zip(swarm::probes(&report)) {
            *sum += u64::from(n > 0);
        }
        bar.inc(1);
        let signature = swarm::first_signature(&report);
        for_ci.drawn(&report, signature.as_deref(), took, &replay(seed));
        let Some(signature) = signature else {
            return Ok(());
        };
        whole.failed += 1;
        if let Some(same) = found.get_mut(&signature) {
            same.count += 1;
        } else if found.len() < FAILURES_MAX {
            if !args.json {
                bar.suspend(|| print(&format!("seed {seed}: {signature}\n")))
                    .map_err(End::Failed)?;
            }
            let count = 1;
            found.insert(signature, Found { seed, count, report });
        }
        bar.set_message(format!("{} failed", whole.failed));
        match args.enough.is_some_and(|enough| found.len() >= enough) {
            true => Err(End::Enough),
            false => Ok(()),
        }
    });
    bar.finish_and_clear();
    // Before what is found is shrunk, which takes long; and what was done so far is told even if no more could be.
    let told = for_ci.finish(args.json);
    let failed = whole.failed > 0;
    let ended = match ended {
        Err(End::Failed(complaint)) => Err(complaint),
        _ => told.and_then(|()| tell_all(args, &mut whole, &sums, &found, &mut { go_on })),
    };
    match (ended, signals.received()) {
        // A failure is one whether or not somebody reads of it.
        (Err(complaint), _) if failed => {
            complaint.report_unless_unread();
            Ok(Exit::Failed)
        }
        (Err(complaint), _) => Err(complaint),
        (Ok(()), Some(signal)) => Ok(Exit::Interrupted(signal)),
        (Ok(()), None) if failed => Ok(Exit::Failed),
        (Ok(()), None) => Ok(Exit::Fine),
    }
}

/// What was found, shrunk, and a summary of all.
fn tell_all(
    args: &Args,
    whole: &mut Whole,
    sums: &[u64],
    found: &BTreeMap<String, Found>,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(), Complaint> {
    whole.different = found.len();
    for ((name, _), n) in swarm::PROBES.iter().zip(sums) {
        whole.situations.insert(name, *n);
    }
    whole.never = swarm::PROBES
        .iter()
        .map(|p| p.0)
        .filter(|name| whole.situations.get(name) == Some(&0))
        .collect();
    for (signature, found) in found {
        tell(args, signature, found, go_on)?;
    }
    summary(args, whole)
}

fn progress(count: usize) -> ProgressBar {
    let visible = io::stderr().is_terminal() && count > 1;
    let bar = if visible {
        ProgressBar::new(count as u64)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    if visible {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}

/// Shrinks a failure, writes it, and says what it is.
fn tell(
    args: &Args,
    signature: &str,
    found: &Found,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(), Complaint> {
    let drawn = swarm::draw(found.seed);
    let shrunk = (args.shrink > 0)
        .then(|| {
            swarm::shrink(&drawn, signature, args.shrink, &mut |plan| {
                swarm::run(plan, go_on).ok()
            })
        })
        .flatten();
    let (mut plan, report) = match &shrunk {
        Some(shrunk) => (shrunk.plan.clone(), &shrunk.report),
        None => (drawn, &found.report),
    };
    plan.description = format!(
        "Seed {} of `evenkeel sim swarm` fails like this: {signature}",
        found.seed
    );
    let file = match &args.out {
        Some(folder) => Some(put(folder, signature, found.seed, &plan, report, go_on)?),
        None => None,
    };
    let seen = report
        .failures
        .iter()
        .find(|f| swarm::signature(f) == signature)
        .map_or("", |f| f.seen.as_str());
    let file = file.map(|f| f.display().to_string());
    if args.json {
        return print_json(&Told {
            signature,
            seed: found.seed,
            count: found.count,
            seen,
            faults: shrunk.as_ref().map(|s| s.plan.faults.len()),
            flows: shrunk.as_ref().map(|s| s.report.connections),
            shrink_runs: shrunk.as_ref().map(|s| s.runs),
            file,
        });
    }
    let mut text = format!(
        "{signature}\n  seen:    {seen}\n  seeds:   {}, the first one is {}\n",
        found.count, found.seed
    );
    if let Some(shrunk) = &shrunk {
        text += &format!(
            "  shrunk:  {} faults, {} flows, {} nodes, in {} runs\n",
            shrunk.plan.faults.len(),
            shrunk.report.connections,
            shrunk.plan.cluster.nodes.len(),
            shrunk.runs
        );
    }
    text += &match file {
        Some(file) => format!("  replay:  evenkeel sim run {}\n", quoted(&file)),
        None => format!("  replay:  {} --out FOLDER\n", replay(found.seed)),
    };
    print(&text)
}

/// Writes a plan, what its run says, as text and as a page, and its frames.
fn put(
    folder: &Path,
    signature: &str,
    seed: u64,
    plan: &Scenario,
    report: &Report,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<PathBuf, Complaint> {
    let judge = signature.split(':').next().unwrap_or("");
    let name: String = judge
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = format!("{}-{seed}", name.trim_matches('-'));
    fs::create_dir_all(folder).map_err(|e| Complaint::io(format!("cannot make {}", folder.display()), e))?;
    let file = folder.join(format!("{name}.toml"));
    let put = |path: &Path, text: &str| {
        files::put(path, text).map_err(|e| Complaint::io(format!("cannot write {}", path.display()), e))
    };
    put(&file, &write(plan))?;
    let text = report.text(&file.display().to_string()).to_string();
    put(&folder.join(format!("{name}.txt")), &text)?;
    let options = Options {
        pcap: Some(folder.join(&name)),
        record: Some(Recording::default()),
        ..Options::default()
    };
    // What panics leaves the frames so far, and no page; so does what is stopped.
    let again = swarm::caught(plan, |plan| run_plan(plan, &options, go_on));
    match again {
        Err(error @ RunError::Write(_)) => return Err(Complaint::new(error.to_string())),
        Ok(report) => {
            if let Some(page) = report.html(plan, &file.display().to_string()) {
                put(&folder.join(format!("{name}.html")), &page)?;
            }
        }
        Err(_) => {}
    }
    Ok(file)
}

fn summary(args: &Args, whole: &Whole) -> Result<(), Complaint> {
    if args.json {
        return print_json(whole);
    }
    let mut text = format!(
        "swarm: {} runs, {} failed in {} different ways; {} flows, {} of them broke with an excuse, {} events\n",
        whole.runs, whole.failed, whole.different, whole.flows, whole.excused, whole.events
    );
    if whole.runs > 0 {
        let seen: Vec<_> = whole
            .situations
            .iter()
            .filter(|s| *s.1 > 0)
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        text += &format!("runs in which: {}\n", seen.join(", "));
        for name in &whole.never {
            let says = swarm::PROBES.iter().find(|p| p.0 == *name).map_or("", |p| p.1);
            text += &format!("never: {name} ({says})\n");
        }
    }
    if whole.stopped {
        text += "stopped before the end\n";
    }
    print(&text)
}
