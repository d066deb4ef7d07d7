//! `evenkeel sim diff`.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use evenkeel_sim_scenarios::{
    Difference, QueueKind, RunError, Shown, Side, TRAIL_EVERY, TRAIL_LEN_MAX, TrailFile, With, diff,
};

use super::files;
use super::run::print_json;
use crate::complaint::Complaint;
use crate::signals::Signals;
use crate::{Exit, print};

/// Find the first event in which two runs differ
///
/// A run is compared with another scenario's, another seed's, one with the other queue, a trail that `sim run --trail`
/// wrote elsewhere, or, if nothing of this is said, with itself run once more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  A file and what was changed in it:
    evenkeel sim diff before.toml after.toml --seed 7
  Whether this build runs as the one did that wrote the trail:
    evenkeel sim diff active-backup-crash --seed 7 --trail other-machine.trail

Exit codes: 0 the same; 1 refused; 3 they differ; 130, 143 stopped by SIGINT, SIGTERM.")]
pub(super) struct Args {
    /// Scenario file, or the name of a committed one
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The other one's; default: the same
    #[arg(value_name = "OTHER", conflicts_with = "trail")]
    other: Option<PathBuf>,
    /// Seed; default that of the file, or 0
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The other one's; default: the same, or without a seed that of the other file
    #[arg(long, value_name = "N", conflicts_with = "trail")]
    other_seed: Option<u64>,
    /// How the queue of events is kept: heap or wheel
    #[arg(long, value_name = "KIND", default_value = "wheel")]
    queue: QueueKind,
    /// The other one's; default: the same
    #[arg(long, value_name = "KIND", conflicts_with = "trail")]
    other_queue: Option<QueueKind>,
    /// Compare with what was noted of a run elsewhere
    #[arg(long, value_name = "FILE")]
    trail: Option<PathBuf>,
    /// Show so many events before the difference
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=1000))]
    before: u16,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<Exit, Complaint> {
    let scenario = files::load(&args.file)?;
    let other = args.other.as_deref().map(files::load).transpose()?;
    let seed = args.seed.or(scenario.seed).unwrap_or(0);
    // Two plans have two seeds.
    let other_seed = args.other_seed.or(args.seed);
    let other_seed = other_seed.or(other.as_ref().and_then(|o| o.seed)).unwrap_or(seed);
    let one = Side {
        scenario: &scenario,
        seed,
        queue: args.queue,
    };
    let trail = args.trail.as_ref().map(read_trail).transpose()?;
    let with = match &trail {
        Some(trail) => {
            if trail.seed != one.seed || trail.scenario != scenario.name {
                let what = format!("the trail is of {}, seed {}", trail.scenario, trail.seed);
                return Err(Complaint::new(what).help("give that scenario and --seed"));
            }
            With::Trail(trail)
        }
        None => With::Run(Side {
            scenario: other.as_ref().unwrap_or(&scenario),
            seed: other_seed,
            queue: args.other_queue.unwrap_or(args.queue),
        }),
    };
    let signals = Signals::listen()?;
    let mut go_on = || signals.received().is_none();
    let found = match diff(one, with, TRAIL_EVERY, args.before.into(), &mut go_on) {
        Ok(found) => found,
        Err(RunError::Stopped) => return Ok(Exit::Interrupted(signals.received().unwrap_or(2))),
        Err(error) => return Err(Complaint::new(format!("{}: {error}", scenario.name))),
    };
    let shown = match args.json {
        true => print_json(&found),
        false => print(&text(&found)),
    };
    match (found, shown) {
        (Difference::Same { .. }, shown) => shown.map(|()| Exit::Fine),
        // They differ whether or not somebody reads of it.
        (_, shown) => {
            shown.map_or_else(Complaint::report_unless_unread, |()| ());
            Ok(Exit::Failed)
        }
    }
}

fn read_trail(path: &PathBuf) -> Result<TrailFile, Complaint> {
    let failed = |e| Complaint::io(format!("cannot read {}", path.display()), e);
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(TRAIL_LEN_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    TrailFile::parse(&text).map_err(|why| {
        let complaint = Complaint::new(format!("{} is no trail: {why}", path.display()));
        complaint.help("`evenkeel sim run FILE --seed N --trail FILE` writes one")
    })
}

fn text(found: &Difference) -> String {
    let mut text = String::new();
    let event = |text: &mut String, mark: &str, event: &Shown| {
        let (s, ns) = (event.at_ns / 1_000_000_000, event.at_ns % 1_000_000_000);
        let _ = writeln!(
            text,
            "{mark} event {} at {s}.{ns:09} s: {}",
            event.number, event.what
        );
        for seen in &event.seen {
            let _ = writeln!(text, "{mark}     {seen}");
        }
    };
    match found {
        Difference::Same { events } => {
            let _ = writeln!(text, "the same: {events} events");
        }
        Difference::Event { before, one, other } => {
            let _ = writeln!(
                text,
                "the first event that differs; {} before it are of both:",
                before.len()
            );
            before.iter().for_each(|e| event(&mut text, " ", e));
            for (mark, side) in [("-", one), ("+", other)] {
                match side {
                    Some(e) => event(&mut text, mark, e),
                    None => {
                        let _ = writeln!(text, "{mark} nothing happens any more");
                    }
                }
            }
        }
        Difference::Stretch { events, here } => {
            let last = events.end.saturating_sub(1);
            let _ = writeln!(
                text,
                "the first difference is among events {} to {last}; here these are:",
                events.start
            );
            here.iter().for_each(|e| event(&mut text, "-", e));
        }
        Difference::Vanished { events } => {
            let last = events.end.saturating_sub(1);
            let _ = writeln!(
                text,
                "they differed among events {} to {last}, and did not when both were run again",
                events.start
            );
        }
    }
    text
}
