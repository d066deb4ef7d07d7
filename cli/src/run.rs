//! `evenkeel run`.

use std::path::PathBuf;

use evenkeel_control::Ids;
use evenkeel_node::Ended;

use crate::complaint::Complaint;
use crate::{Exit, config};

/// Run a node: forward packets, and share its sessions with the other nodes of its cluster.
///
/// It runs in the foreground until SIGTERM or SIGINT, which make it hand over its sessions first; a second one makes
/// it end at once. SIGHUP makes it read its config again. What is wrong is said before anything has begun. Described in docs/config.md.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  As the config says:
    evenkeel run --config /etc/evenkeel/node.toml
  One file for all nodes, without `this_node`:
    evenkeel run --config cluster.toml --node lb2

Exit codes: 0 ended as asked; 1 refused: arguments, config, an address or interface that cannot be had.")]
pub(crate) struct Args {
    /// Config of the node; - is standard input
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which node of the config's cluster it is, by name or number, whatever `this_node` says
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<Exit, Complaint> {
    // Services and servers keep their ids when the config is read again.
    let mut ids = Ids::new();
    let config = config::load_with(&args.config, args.node.as_deref(), &mut ids)?;
    config::warn(&config);
    evenkeel_node::log::start(&config.daemon.log);
    let (path, node) = (args.config.clone(), args.node.clone());
    let reload = move || {
        let loaded = config::load_with(&path, node.as_deref(), &mut ids);
        loaded.map_err(|complaint| complaint.to_string())
    };
    match evenkeel_node::run(config, Box::new(reload)) {
        Ok(Ended::Alone | Ended::HandedOver | Ended::InHaste) => Ok(Exit::Fine),
        Ok(Ended::Fault) => Err(Complaint::new(
            "a worker has ended by a fault of its own, and the node with it",
        )
        .help("its last words are in the log: please report them")),
        Err(refusal) => Err(Complaint::new(refusal.message).help(refusal.help)),
    }
}
