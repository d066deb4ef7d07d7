//! `evenkeel sim bench`.

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use evenkeel_sim_scenarios::{Options, RunError, run as run_scenario};

use super::files;
use crate::complaint::Complaint;
use crate::signals::Signals;
use crate::{Exit, print};

/// Say how long a scenario takes, and what an event loop alone would
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel sim bench --floor

Exit codes: 0 fine; 1 refused; 3 the scenario failed; 130, 143 stopped by SIGINT, SIGTERM.")]
pub(super) struct Args {
    /// Scenario file, or the name of a committed one
    #[arg(value_name = "FILE", default_value = "active-backup-crash")]
    file: PathBuf,
    /// Seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Then run as many events that do nothing
    #[arg(long)]
    floor: bool,
}

/// Events that wait at a time, for the floor: about one for each connection and link.
const PENDING: u32 = 4_096;

pub(super) fn run(args: &Args) -> Result<Exit, Complaint> {
    let scenario = files::load(&args.file)?;
    let signals = Signals::listen()?;
    let began = Instant::now();
    let result = run_scenario(&scenario, args.seed, &Options::default(), &mut || {
        signals.received().is_none()
    });
    let took = began.elapsed();
    let report = match result {
        Ok(report) => report,
        Err(RunError::Stopped) => return Ok(Exit::Interrupted(signals.received().unwrap_or(2))),
        Err(error) => return Err(Complaint::new(format!("{}: {error}", scenario.name))),
    };
    let rate = |took: Duration| {
        let ns = took.as_nanos().max(1);
        format!(
            "{:>8} ms, {} ns an event",
            took.as_millis(),
            ns / u128::from(report.events.max(1))
        )
    };
    let simulated = report.duration_ns / 1_000_000_000;
    let mut text = format!(
        "{}: {simulated} s simulated, {} connections, {} events\n  run:   {}\n",
        report.scenario,
        report.connections,
        report.events,
        rate(took)
    );
    if let Some(kib) = peak_kib() {
        text += &format!("  memory: {} MiB at most\n", kib / 1024);
    }
    if args.floor {
        let began = Instant::now();
        black_box(evenkeel_io_sim::floor(report.events, PENDING));
        let floor = began.elapsed();
        let ratio = took.as_nanos() * 10 / floor.as_nanos().max(1);
        text += &format!(
            "  floor: {}\n  ratio: {}.{}\n",
            rate(floor),
            ratio / 10,
            ratio % 10
        );
    }
    print(&text)?;
    Ok(if report.pass { Exit::Fine } else { Exit::Failed })
}

/// The most memory that this process has had, where the kernel tells (Linux, proc(5)).
fn peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}
