//! `evenkeel secret`.

use std::path::PathBuf;

use clap::Subcommand;
use evenkeel_node::secrets;

use crate::complaint::Complaint;
use crate::{Exit, print};

/// Make what the nodes of a cluster seal their frames with.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel secret new /etc/evenkeel/secret
  evenkeel secret new /etc/evenkeel/secret-2 --id 2

Every node has the same file, readable by the daemon alone, and names it in `secrets` of [cluster].
To change it, docs/deploy.md says how, while all nodes serve.

Exit codes: 0 fine, 1 refused.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a new secret into a file that is not there yet
    New {
        /// The file
        file: PathBuf,
        /// Its number in frames, 1 to 255: another one than that of the secret that it replaces (drawn, if you do not say one)
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
        id: Option<u8>,
    },
}

pub(crate) fn run(args: &Args) -> Result<Exit, Complaint> {
    let Command::New { file, id } = &args.command;
    let id =
        secrets::make(file, *id).map_err(|refusal| Complaint::new(refusal.message).help(refusal.help))?;
    print(&format!("secret {id} is in {}\n", file.display()))?;
    Ok(Exit::Fine)
}
