//! `evenkeel sim bench`.

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_sim_scenarios::{
    Meter, Options, Part, QueueKind, Report, RunError, Scenario, run as run_scenario,
};

use super::files;
use crate::complaint::Complaint;
use crate::signals::Signals;
use crate::{Exit, print};

/// Say how fast the simulator is, and where its time goes
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel sim bench --floor
  A thousand quiet flows; a hundred thousand and a failover:
    evenkeel sim bench quiet-1k
    evenkeel sim bench wide-100k
  The most nodes, one of them with the most workers:
    evenkeel sim bench sixteen

Exit codes: 0 fine; 1 refused; 3 the scenario failed; 130, 143 stopped by SIGINT, SIGTERM.")]
pub(super) struct Args {
    /// Scenario file, the name of a committed one, or quiet-1k, busy-1k, wide-100k or sixteen
    #[arg(value_name = "FILE", default_value = "active-backup-crash")]
    file: PathBuf,
    /// Seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How the queue of events is kept: heap or wheel
    #[arg(long, value_name = "KIND", default_value = "wheel")]
    queue: QueueKind,
    /// Then run as many events that do nothing
    #[arg(long)]
    floor: bool,
    /// Leave out the queues of events by themselves, and the second run, with a clock, that says where the time goes
    #[arg(long)]
    brief: bool,
}

/// Cases that are no scenarios of the catalogue.
const CASES: &[(&str, &str)] = &[
    ("quiet-1k", include_str!("cases/quiet-1k.toml")),
    ("busy-1k", include_str!("cases/busy-1k.toml")),
    ("wide-100k", include_str!("cases/wide-100k.toml")),
    ("sixteen", include_str!("cases/sixteen.toml")),
];

/// Events that wait at a time, for the floor: about one for each connection and link.
const PENDING: u32 = 4_096;
/// Events with which the queues are measured.
const KERNEL_EVENTS: u64 = 3_000_000;
/// Of these that wait.
const KERNEL_PENDING: [u32; 2] = [10_000, 1_000_000];

pub(super) fn run(args: &Args) -> Result<Exit, Complaint> {
    let name = args.file.display().to_string();
    let scenario = match CASES.iter().find(|case| case.0 == name) {
        Some((name, text)) => files::read(&format!("{name}.toml"), text, None)?,
        None => files::load(&args.file)?,
    };
    let signals = Signals::listen()?;
    if !args.brief {
        print(&kernel())?;
    }
    let options = Options {
        queue: args.queue,
        ..Options::default()
    };
    let Some((report, took)) = timed(&scenario, args.seed, &options, &signals)? else {
        return Ok(Exit::Interrupted(signals.received().unwrap_or(2)));
    };
    let rate = |took: Duration| {
        let ns = took.as_nanos().max(1);
        format!(
            "{:>8} ms, {} ns an event",
            took.as_millis(),
            ns / u128::from(report.events.max(1))
        )
    };
    let a_second = |n: u64| u128::from(n) * 1_000_000_000 / took.as_nanos().max(1);
    let mut text = format!(
        "{}: {} s simulated, {} connections, {} events, {} packet-hops\n  run:   {}\n  rate:  {} events/s, {} packet-hops/s, {} simulated s/s\n",
        report.scenario,
        report.duration_ns / 1_000_000_000,
        report.connections,
        report.events,
        report.hops,
        rate(took),
        a_second(report.events),
        a_second(report.hops),
        tenths(u128::from(report.duration_ns) * 10 / took.as_nanos().max(1)),
    );
    if let Some(kib) = peak_kib() {
        text += &format!(
            "  memory: {} MiB at most, of which {} MiB are counted\n",
            kib / 1024,
            report.memory_bytes >> 20
        );
    }
    if args.floor {
        let began = Instant::now();
        black_box(evenkeel_io_sim::floor(args.queue, report.events, PENDING));
        let floor = began.elapsed();
        let ratio = took.as_nanos() * 10 / floor.as_nanos().max(1);
        text += &format!("  floor: {}\n  ratio: {}\n", rate(floor), tenths(ratio));
    }
    print(&text)?;
    if !args.brief {
        let clock = Arc::new(Mutex::new(Clock::new()));
        let options = Options {
            meter: Some(clock.clone()),
            ..options
        };
        if timed(&scenario, args.seed, &options, &signals)?.is_none() {
            return Ok(Exit::Interrupted(signals.received().unwrap_or(2)));
        }
        let mut clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.begins(Part::Outside);
        print(&clock.text())?;
    }
    Ok(if report.pass { Exit::Fine } else { Exit::Failed })
}

/// A run and how long it took; `None`: it was stopped.
fn timed(
    scenario: &Scenario,
    seed: u64,
    options: &Options,
    signals: &Signals,
) -> Result<Option<(Report, Duration)>, Complaint> {
    let began = Instant::now();
    let result = run_scenario(scenario, seed, options, &mut || signals.received().is_none());
    match result {
        Ok(report) => Ok(Some((report, began.elapsed()))),
        Err(RunError::Stopped) => Ok(None),
        Err(error) => Err(Complaint::new(format!("{}: {error}", scenario.name))),
    }
}

fn tenths(n: u128) -> String {
    format!("{}.{}", n / 10, n % 10)
}

/// Both queues, alone.
fn kernel() -> String {
    let mut text = String::from("kernel, in events/s (one is taken and one is planned):\n");
    for queue in QueueKind::ALL {
        for pending in KERNEL_PENDING {
            let began = Instant::now();
            // Those that wait at first are planned, and no more.
            black_box(evenkeel_io_sim::floor(queue, 0, pending));
            let filling = began.elapsed();
            let began = Instant::now();
            black_box(evenkeel_io_sim::floor(queue, KERNEL_EVENTS, pending));
            let took = began.elapsed().saturating_sub(filling);
            let rate = u128::from(KERNEL_EVENTS) * 1_000_000_000 / took.as_nanos().max(1);
            text += &format!("  {:<6} {pending:>8} wait: {rate:>9}\n", queue.name());
        }
    }
    text
}

/// How long each part was worked on. Reading it costs time, too: shares are about right.
struct Clock {
    part: Part,
    since: Instant,
    spent: [Duration; Part::ALL.len()],
}

impl Clock {
    fn new() -> Self {
        Clock {
            part: Part::Outside,
            since: Instant::now(),
            spent: [Duration::ZERO; Part::ALL.len()],
        }
    }

    fn text(&self) -> String {
        let names = [
            "kernel (queue)",
            "links, switches",
            "hosts",
            "NICs, rings",
            "engine, workers",
            "engine, control",
            "judges of frames, digest",
            "judges of tables, building",
        ];
        let all = self.spent.iter().sum::<Duration>().as_nanos().max(1);
        let mut text = String::from("  where the time goes:\n");
        for (name, spent) in names.iter().zip(self.spent) {
            let share = tenths(spent.as_nanos() * 1_000 / all);
            text += &format!("    {name:<27} {share:>5} %  {:>7} ms\n", spent.as_millis());
        }
        text
    }
}

impl Meter for Clock {
    fn begins(&mut self, part: Part) -> Part {
        let now = Instant::now();
        let spent = self.spent.get_mut(self.part as usize);
        if let Some(spent) = spent {
            *spent += now - self.since;
        }
        self.since = now;
        std::mem::replace(&mut self.part, part)
    }
}

/// The most memory that this process has had, where the kernel tells (Linux, proc(5)).
fn peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_says_where_the_time_went() {
        let mut clock = Clock::new();
        assert_eq!(clock.begins(Part::Hosts), Part::Outside);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(clock.begins(Part::Queue), Part::Hosts);
        assert!(clock.spent[Part::Hosts as usize] >= Duration::from_millis(20));
        clock.spent = [Duration::from_millis(30); Part::ALL.len()];
        clock.spent[Part::Workers as usize] = Duration::from_millis(90);
        let text = clock.text();
        assert_eq!(text.lines().count(), 1 + Part::ALL.len());
        assert!(
            text.contains("engine, workers              30.0 %       90 ms"),
            "{text}"
        );
        assert!(
            text.contains("kernel (queue)               10.0 %       30 ms"),
            "{text}"
        );
    }
}
