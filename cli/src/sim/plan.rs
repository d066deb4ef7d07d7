//! `evenkeel sim plan` and `evenkeel sim shrink`.

use std::path::PathBuf;

use evenkeel_sim_scenarios::{plan, swarm, write};

use super::files;
use crate::complaint::Complaint;
use crate::signals::Signals;
use crate::{Exit, print};

/// Print the plan of a scenario and a seed: a scenario with everything drawn that is drawn ahead
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel sim plan sim-scenarios/scenarios/split-brain.toml --seed 7 > plan.toml
  It has the digest of the seed that it came from, and can be edited:
    evenkeel sim run plan.toml

Exit codes: 0 fine; 1 the scenario is refused, cannot be read, or waits for later work.")]
pub(super) struct PlanArgs {
    /// Scenario file, or the name of a committed one; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Seed; default that of the file, or 0
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

pub(super) fn plan_of(args: &PlanArgs) -> Result<Exit, Complaint> {
    let scenario = files::load(&args.file)?;
    if let Some(waits_for) = &scenario.waits_for {
        return Err(Complaint::new(format!("{} waits for {waits_for}", scenario.name))
            .help("there is nothing to plan before that"));
    }
    let seed = args.seed.or(scenario.seed).unwrap_or(0);
    print(&write(&plan(&scenario, seed)))?;
    Ok(Exit::Fine)
}

/// Shrink a scenario that fails to the smallest plan that still fails so, and print it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel sim shrink failing.toml --seed 7 > small.toml
  evenkeel sim run small.toml

Exit codes: 0 shrunk; 1 refused, or the run does not fail; 130, 143 stopped by SIGINT, SIGTERM.")]
pub(super) struct ShrinkArgs {
    /// Scenario file, or the name of a committed one; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Seed; default that of the file, or 0
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Runs at most
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
}

pub(super) fn shrink(args: &ShrinkArgs) -> Result<Exit, Complaint> {
    let scenario = files::load(&args.file)?;
    let seed = args.seed.or(scenario.seed).unwrap_or(0);
    let signals = Signals::listen()?;
    let planned = plan(&scenario, seed);
    let mut go_on = || signals.received().is_none();
    let first = swarm::run(&planned, &mut go_on);
    let stopped = || signals.received().map(Exit::Interrupted);
    let report = match first {
        Ok(report) => report,
        Err(_) if stopped().is_some() => return Ok(stopped().unwrap_or(Exit::Fine)),
        Err(error) => return Err(Complaint::new(format!("{}: seed {seed}: {error}", scenario.name))),
    };
    let Some(signature) = swarm::first_signature(&report) else {
        let message = format!("{} passes with seed {seed}", scenario.name);
        return Err(Complaint::new(message).help("only a scenario that fails can be shrunk"));
    };
    let shrunk = swarm::shrink(&planned, &signature, args.runs, &mut |plan| {
        swarm::run(plan, &mut go_on).ok()
    });
    if let Some(shrunk) = &shrunk {
        print(&write(&shrunk.plan))?;
    }
    Ok(stopped().unwrap_or(Exit::Fine))
}
