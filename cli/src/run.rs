//! `evenkeel run`.

use std::fs::File;
use std::path::{Path, PathBuf};

use evenkeel_control::{Config, Ids, LogFormat};
use evenkeel_node::{Ended, Reload, log};
use tracing::{error, warn};

use crate::complaint::Complaint;
use crate::{Exit, config};

/// Run a node: forward packets, and share its sessions with the other nodes of its cluster.
///
/// It runs in the foreground until SIGTERM or SIGINT, which make it hand over its sessions first; a second one makes
/// it end at once, as does the first one before it runs. SIGHUP makes it read its config again. What is wrong is said before anything has begun. Described in docs/config.md.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  As the config says:
    evenkeel run --config /etc/evenkeel/node.toml
  One file for all nodes, without `this_node`:
    evenkeel run --config cluster.toml --node lb2

Exit codes: 0 ended as asked; 1 refused: arguments, config, an address or interface that cannot be had;
130 and 143 ended by SIGINT and SIGTERM before it ran.")]
pub(crate) struct Args {
    /// Config of the node; - is standard input
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which node of the config's cluster it is, by name or number, whatever `this_node` says
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<Exit, Complaint> {
    evenkeel_node::outlive_signals().map_err(|e| Complaint::io("cannot handle signals", e))?;
    // Services and servers keep their ids when the config is read again.
    let mut ids = Ids::new();
    let config = config::load_with(&args.config, args.node.as_deref(), &mut ids)?;
    // Who reads objects reads nothing else.
    let objects = config.daemon.log.format == LogFormat::Json;
    if !objects {
        config::warn(&config);
    }
    log::start(&config.daemon.log)
        .map_err(|e| Complaint::io("cannot start the thread of the log", e).help("see ulimit -u"))?;
    if objects {
        log_warnings(&config);
    }
    let reload = reload(args, config.daemon.user.clone(), ids);
    let ended = evenkeel_node::run(config, reload);
    let complaint = match ended {
        Ok(Ended::Alone | Ended::HandedOver | Ended::InHaste) => None,
        Ok(Ended::Fault) => Some(
            Complaint::new("a worker has ended by a fault of its own, and the node with it")
                .help("its last words are in the log: please report them"),
        ),
        Err(refusal) => Some(Complaint::new(refusal.message).help(refusal.help)),
    };
    if let Some(complaint) = complaint.as_ref().filter(|_| objects) {
        error!("{}", complaint.one_line());
    }
    let read = log::finish();
    match complaint {
        None => Ok(Exit::Fine),
        // Where nobody reads the log, printing would wait for ever.
        Some(_) if objects || !read => Ok(Exit::Refused),
        Some(complaint) => Err(complaint),
    }
}

/// How the node reads its config again.
fn reload(args: &Args, user: Option<String>, mut ids: Ids) -> Reload {
    let (path, node) = (args.config.clone(), args.node.clone());
    let why = move |path: &Path, complaint: Complaint| {
        let who = match &user {
            Some(user) => format!("the user {user}"),
            None => "the user of the daemon".to_owned(),
        };
        let name = path.display();
        let denied = complaint.is_denied();
        let help = format!(
            "let {who} read it (chmod 644 {name}, or 640 with a group of that user) and enter its directories"
        );
        let complaint = if denied { complaint.help(help) } else { complaint };
        complaint.one_line()
    };
    let (probed, why_not) = (path.clone(), why.clone());
    Reload {
        read: Box::new(move || {
            let loaded = config::load_with(&path, node.as_deref(), &mut ids);
            loaded.map_err(|complaint| why(&path, complaint))
        }),
        probe: Box::new(move || {
            if config::is_stdin(&probed) {
                return Ok(());
            }
            let opened = File::open(&probed).map_err(|error| {
                Complaint::io(format!("cannot read the config {}", probed.display()), error)
            });
            opened.map(drop).map_err(|complaint| why_not(&probed, complaint))
        }),
    }
}

/// Warnings of a config, as lines of the log.
fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        let (code, line, column, help) = (warning.code, warning.line, warning.column, &warning.help);
        warn!(%code, line, column, help, "{}", warning.message);
    }
    let omitted = config.warnings_omitted;
    if omitted > 0 {
        warn!("and {}", crate::counted(omitted, "more warning"));
    }
}
