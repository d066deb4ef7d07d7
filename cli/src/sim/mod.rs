//! `evenkeel sim`.

mod bench;
mod diff;
mod files;
mod list;
mod new;
mod run;
mod shard;
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
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(run::Args),
    New(new::Args),
    List(list::Args),
    Explain(ExplainArgs),
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

pub(crate) fn run(args: &Args) -> Result<Exit, Complaint> {
    match &args.command {
        Command::Run(args) => run::run(args),
        Command::New(args) => new::run(args),
        Command::List(args) => list::run(args),
        Command::Explain(args) => {
            let scenario = files::load(&args.file)?;
            print(&evenkeel_sim_scenarios::explain(&scenario))?;
            Ok(Exit::Fine)
        }
        Command::Bench(args) => bench::run(args),
        Command::Diff(args) => diff::run(args),
    }
}
