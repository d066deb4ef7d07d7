//! The `evenkeel` binary.

mod check;
mod complaint;
mod completions;
mod config;
#[cfg(unix)]
mod ctl;
mod replay;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod secret;
mod signals;
mod sim;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use complaint::Complaint;

/// An L4 load balancer, and tools around its engine.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version,
    about,
    max_term_width = 110,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 fine, 1 refused (arguments, config, files), 2 a capture was cut short,\n\
                        130 and 143 stopped by SIGINT and SIGTERM.\n\
                        Each command says more: evenkeel replay --help"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Sim(sim::Args),
    #[cfg(unix)]
    Run(run::Args),
    #[cfg(unix)]
    Ctl(ctl::Args),
    #[cfg(unix)]
    Secret(secret::Args),
    Replay(replay::Args),
    Check(check::Args),
    Completions(completions::Args),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Fine,
    Refused,
    CutShort,
    /// A scenario failed.
    Failed,
    /// No scenario failed, and a run went beyond a bound.
    Exceeded,
    /// By this signal.
    Interrupted(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Fine => 0,
            Exit::Refused => 1,
            Exit::CutShort => 2,
            Exit::Failed => 3,
            Exit::Exceeded => 4,
            // As shells say it.
            Exit::Interrupted(signal) => signal.saturating_add(128),
        })
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, and are fine.
            let _ = error.print();
            if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                let _ = writeln!(
                    io::stderr(),
                    "\nerror: a command is missing: run, ctl, secret, sim, replay, check or completions"
                );
            }
            return if error.use_stderr() {
                Exit::Refused
            } else {
                Exit::Fine
            }
            .into();
        }
    };
    let result = match cli.command {
        Command::Sim(args) => sim::run(&args),
        #[cfg(unix)]
        Command::Run(args) => run::run(&args),
        #[cfg(unix)]
        Command::Ctl(args) => ctl::run(&args),
        #[cfg(unix)]
        Command::Secret(args) => secret::run(&args),
        Command::Replay(args) => replay::run(args),
        Command::Check(args) => check::run(&args),
        Command::Completions(args) => completions::run(&args),
    };
    match result {
        Ok(exit) => exit.into(),
        // Who reads our output has seen enough.
        Err(error) if error.is_broken_pipe() => Exit::Fine.into(),
        Err(error) => {
            error.report();
            Exit::Refused.into()
        }
    }
}

/// So many of something, in words.
fn counted(n: impl Display + PartialEq + From<u8>, one: &str) -> String {
    let end = if n == 1.into() { "" } else { "s" };
    format!("{n} {one}{end}")
}

/// Writes `text` to standard output, all of it.
fn print(text: &str) -> Result<(), Complaint> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Complaint::io("cannot write to standard output", error))
}
