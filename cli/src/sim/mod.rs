//! `evenkeel sim`.

mod bench;
mod diff;
mod files;
mod list;
mod new;
mod plan;
mod run;
mod shard;
mod swarm;
mod told;

use std::path::PathBuf;

use crate::complaint::Complaint;
use crate::{Exit, print};

/// Run failure scenarios of a whole cluster in a simulator.
///
/// Nodes, network, clients and servers are simulated; the balancer's code is the one that runs on NICs. Time is
/// simulated too, and a run depends on its seed only. Described in docs/scenarios.md.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
#[command(after_help = "Examples:
  evenkeel sim run sim-scenarios/scenarios/active-backup-crash.toml
  evenkeel sim new first
  evenkeel sim list

Exit codes: 0 all passed; 1 refused; 3 a scenario failed; 4 a run went beyond a bound; 130, 143 stopped by SIGINT, SIGTERM.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Put this bug into the engine: version-check, tombstone, epoch, port-probe, checksum or readiness-gate
    #[cfg(feature = "planted-bugs")]
    #[arg(long, global = true, value_name = "BUG", value_parser = bug)]
    plant: Option<evenkeel_sim_scenarios::planted::Bug>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(run::Args),
    New(new::Args),
    List(list::Args),
    Explain(ExplainArgs),
    Plan(plan::PlanArgs),
    Swarm(swarm::Args),
    Shrink(plan::ShrinkArgs),
    Bench(bench::Args),
    Diff(diff::Args),
}

/// Say in words what a scenario does and expects
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel sim explain sim-scenarios/scenarios/split-brain.toml

Exit codes: 0 fine; 1 the scenario is refused or cannot be read.")]
struct ExplainArgs {
    /// Scenario file, or the name of a committed one; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[cfg(feature = "planted-bugs")]
fn bug(text: &str) -> Result<evenkeel_sim_scenarios::planted::Bug, String> {
    let bugs = evenkeel_sim_scenarios::planted::Bug::ALL;
    let found = bugs.iter().find(|b| b.0 == text).map(|b| b.1);
    found.ok_or_else(|| format!("one of {}", bugs.map(|b| b.0).join(", ")))
}

pub(crate) fn run(args: &Args) -> Result<Exit, Complaint> {
    #[cfg(feature = "planted-bugs")]
    evenkeel_sim_scenarios::planted::plant(args.plant);
    let judges = !matches!(
        args.command,
        Command::New(_) | Command::List(_) | Command::Plan(_) | Command::Explain(_)
    );
    match command(args) {
        // Of a verdict that nobody has read nothing is fine.
        Err(complaint) if judges && complaint.is_broken_pipe() => Ok(Exit::Refused),
        ended => ended,
    }
}

fn command(args: &Args) -> Result<Exit, Complaint> {
    match &args.command {
        Command::Run(args) => run::run(args),
        Command::New(args) => new::run(args),
        Command::List(args) => list::run(args),
        Command::Plan(args) => plan::plan_of(args),
        Command::Swarm(args) => swarm::run(args),
        Command::Shrink(args) => plan::shrink(args),
        Command::Explain(args) => {
            let scenario = files::load(&args.file)?;
            print(&evenkeel_sim_scenarios::explain(&scenario))?;
            Ok(Exit::Fine)
        }
        Command::Bench(args) => bench::run(args),
        Command::Diff(args) => diff::run(args),
    }
}
