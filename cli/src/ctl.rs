//! `evenkeel ctl`: a running daemon, asked by its control socket.

mod show;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Subcommand;
use evenkeel_node::admin::{
    AskError, ConnQuery, Conns, Done, Method, Refused, Replication, Services, Stats, Status, ask,
};
use serde::de::DeserializeOwned;

use crate::complaint::Complaint;
use crate::{Exit, print};

/// So long one answer is waited for: longer than a daemon takes for any.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// A daemon is asked again so often, where its end is waited for.
const POLL_TIME: Duration = Duration::from_millis(200);
/// Conns that are asked for at a time.
const PAGE: usize = 1000;

/// Ask a running node, or tell it to hand over and to take over.
///
/// It answers on a Unix socket, that only its user and group may use. Described in docs/ctl.md.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  How is this node?
    evenkeel ctl status
  Connections of a client network, as JSON, one a line:
    evenkeel ctl conns --client 10.1.0.0/16 --json
  Before maintenance, wait until another node has everything:
    evenkeel ctl drain --wait

Exit codes: 0 fine; 1 refused: no daemon, arguments, or what the daemon cannot do.")]
pub(crate) struct Args {
    /// Control socket of the daemon, `ctl` of the section daemon in its config
    #[arg(
        long,
        value_name = "PATH",
        global = true,
        default_value = "/run/evenkeel/ctl.sock"
    )]
    socket: PathBuf,
    /// Print JSON, as the daemon gives it
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The node, its peers, its workers and what is wrong
    #[command(after_help = "Examples:
  evenkeel ctl status
  evenkeel ctl status --json | jq .ready

Exit codes: 0 answered, ready or not; 1 refused.")]
    Status,
    /// Services and their servers
    #[command(after_help = "Examples:
  evenkeel ctl services
  With the number of connections of each server, which takes a walk through the tables:
    evenkeel ctl services --conns

Exit codes: 0 answered; 1 refused.")]
    Services {
        /// Count connections of services and servers
        #[arg(long)]
        conns: bool,
    },
    Conns(ConnsArgs),
    /// Groups of sessions, peers, and what replication counted
    #[command(after_help = "Examples:
  evenkeel ctl replication
  evenkeel ctl replication --json | jq '.peers[].behind'

Exit codes: 0 answered; 1 refused.")]
    Replication,
    /// All that is counted
    #[command(after_help = "Examples:
  What is not 0:
    evenkeel ctl stats
  Everything:
    evenkeel ctl stats --json

Exit codes: 0 answered; 1 refused.")]
    Stats,
    /// Hand over all sessions and addresses, and create no more
    #[command(after_help = "Examples:
  evenkeel ctl drain --wait
  At most a minute:
    evenkeel ctl drain --wait --timeout 60

Exit codes: 0 begun, with --wait: all is handed over; 1 refused, or not done in time.")]
    Drain(Wait),
    /// Serve again after a drain
    #[command(after_help = "Example:
  evenkeel ctl undrain

Exit codes: 0 done; 1 refused.")]
    Undrain,
    /// Become master of the virtual router, whatever the priorities
    ///
    /// The node takes the VIPs and all new connections, and advertises priority 254 until it is demoted (--off), drained
    /// or ended. Sessions of other nodes stay with them, and are forwarded here. Who was promoted first stays master. To
    /// move the sessions too, drain the other node.
    #[command(after_help = "Examples:
  evenkeel ctl promote --wait
  As configured again:
    evenkeel ctl promote --off

Exit codes: 0 begun, with --wait: it is master; 1 refused, or not done in time.")]
    Promote {
        /// End it: the priority of the config counts again
        #[arg(long, conflicts_with = "wait")]
        off: bool,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, clap::Args)]
struct Wait {
    /// Wait until it is done
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "wait")]
    timeout: u64,
}

/// Connections, as far as they match all that is given
///
/// A table of a million is listed without disturbing it: the daemon goes through it slot by slot.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel ctl conns --limit 20
  evenkeel ctl conns --client 10.1.0.0/16 --state ESTABLISHED
  evenkeel ctl conns --vip [2001:db8::80]:443 --json

Exit codes: 0 answered, also if there is none; 1 refused.")]
struct ConnsArgs {
    /// Client: an address, a prefix, or an address and port
    #[arg(long, value_name = "END")]
    client: Option<String>,
    /// What the client connected to, as --client
    #[arg(long, value_name = "END")]
    vip: Option<String>,
    /// Real server, as --client
    #[arg(long, value_name = "END")]
    server: Option<String>,
    /// Port of the client, of the service or of the real server
    #[arg(long)]
    port: Option<u16>,
    /// State, as the list shows it
    #[arg(long)]
    state: Option<String>,
    /// Service, by name
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Node that created it, by name or number, or that and a generation
    #[arg(long, value_name = "NODE[/GENERATION]")]
    group: Option<String>,
    /// List so many at most
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<Exit, Complaint> {
    let daemon = Daemon {
        socket: &args.socket,
        json: args.json,
    };
    match &args.command {
        Command::Status => daemon.show("/v1/status", show::status as fn(&Status) -> String)?,
        Command::Services { conns } => {
            let path = format!("/v1/services?conns={conns}");
            daemon.show(&path, show::services as fn(&Services) -> String)?;
        }
        Command::Conns(filter) => daemon.conns(filter)?,
        Command::Replication => {
            daemon.show("/v1/replication", show::replication as fn(&Replication) -> String)?;
        }
        Command::Stats => daemon.show("/v1/stats", show::stats as fn(&Stats) -> String)?,
        Command::Drain(wait) => {
            daemon.tell("/v1/drain")?;
            let done = |status: &Status| status.cluster.as_ref().is_some_and(|c| c.drained);
            daemon.wait(wait, "handed over", done)?;
        }
        Command::Undrain => daemon.tell("/v1/undrain")?,
        Command::Promote { off: true, .. } => daemon.tell("/v1/demote")?,
        Command::Promote { wait, .. } => {
            daemon.tell("/v1/promote")?;
            // Each family has an election of its own.
            let done = |status: &Status| {
                let cluster = status.cluster.as_ref();
                cluster.is_some_and(|c| c.router_families.iter().all(|family| c.master.contains(family)))
            };
            daemon.wait(wait, "master", done)?;
        }
    }
    Ok(Exit::Fine)
}

struct Daemon<'a> {
    socket: &'a Path,
    json: bool,
}

impl Daemon<'_> {
    fn ask(&self, method: Method, path: &str) -> Result<Vec<u8>, Complaint> {
        let reply = ask(self.socket, method, path, ANSWER_TIME).map_err(|e| self.unreached(&e))?;
        if reply.status == 200 {
            return Ok(reply.body);
        }
        Err(match serde_json::from_slice::<Refused>(&reply.body) {
            Ok(refused) => Complaint::new(refused.error).help(refused.help),
            Err(_) => Complaint::new(format!(
                "{} answers with status {}",
                self.socket.display(),
                reply.status
            ))
            .help(
                "it is no control socket of an evenkeel of this version: see `ctl` of [daemon] in the config",
            ),
        })
    }

    fn unreached(&self, error: &AskError) -> Complaint {
        let socket = self.socket.display();
        match error {
            AskError::Connect(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Complaint::new(format!("may not use the control socket {socket}")).help(
                    "it is for the daemon's user and group: be one of them (sudo), or choose another with --socket",
                )
            }
            AskError::Connect(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Complaint::new(format!("no evenkeel runs with the control socket {socket}")).help(
                    "start one with `evenkeel run --config FILE`, or name its socket, `ctl` of [daemon] in its config, with --socket",
                )
            }
            AskError::Connect(e) => Complaint::new(format!("cannot connect to {socket}: {e}"))
                .help("name the daemon's socket, `ctl` of [daemon] in its config, with --socket"),
            other => Complaint::new(format!("the daemon behind {socket}: {other}"))
                .help("too many may ask at the same time: ask again; its log says if something is wrong"),
        }
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Complaint> {
        serde_json::from_slice(body).map_err(|error| {
            Complaint::new(format!(
                "the daemon behind {} answers something else: {error}",
                self.socket.display()
            ))
            .help("daemon and command line are of different versions: print its answer with --json")
        })
    }

    /// An answer of one page.
    fn show<T: DeserializeOwned>(&self, path: &str, text: fn(&T) -> String) -> Result<(), Complaint> {
        let body = self.ask(Method::Get, path)?;
        if self.json {
            return print(&format!("{}\n", String::from_utf8_lossy(&body)));
        }
        print(&text(&self.read(&body)?))
    }

    fn tell(&self, path: &str) -> Result<(), Complaint> {
        let body = self.ask(Method::Post, path)?;
        if self.json {
            return print(&format!("{}\n", String::from_utf8_lossy(&body)));
        }
        let done: Done = self.read(&body)?;
        print(&format!("{}\n", done.done))
    }

    fn wait(&self, wait: &Wait, what: &str, done: fn(&Status) -> bool) -> Result<(), Complaint> {
        if !wait.wait {
            return Ok(());
        }
        let until = Instant::now() + Duration::from_secs(wait.timeout);
        loop {
            let status: Status = self.read(&self.ask(Method::Get, "/v1/status")?)?;
            if done(&status) {
                return if self.json {
                    Ok(())
                } else {
                    print(&format!("{what}\n"))
                };
            }
            if Instant::now() >= until {
                let alarms: Vec<_> = status.alarms.iter().map(|a| a.text.as_str()).collect();
                let because = if alarms.is_empty() {
                    String::new()
                } else {
                    format!(": {}", alarms.join("; "))
                };
                return Err(
                    Complaint::new(format!("not {what} within {} s{because}", wait.timeout)).help(
                        "it goes on; `evenkeel ctl status` and `evenkeel ctl replication` say how far it is",
                    ),
                );
            }
            thread::sleep(POLL_TIME);
        }
    }

    /// All pages, as they come.
    fn conns(&self, args: &ConnsArgs) -> Result<(), Complaint> {
        let mut left = args.limit.unwrap_or(u64::MAX);
        let mut cursor = None;
        let mut widths = None;
        let mut count = 0u64;
        while left > 0 {
            let query = ConnQuery {
                client: args.client.clone(),
                vip: args.vip.clone(),
                server: args.server.clone(),
                port: args.port,
                state: args.state.clone(),
                service: args.service.clone(),
                group: args.group.clone(),
                limit: Some(usize::try_from(left).unwrap_or(PAGE).min(PAGE)),
                cursor,
            };
            let query = serde_urlencoded::to_string(&query)
                .map_err(|error| Complaint::new(format!("this cannot be asked: {error}")))?;
            let page: Conns = self.read(&self.ask(Method::Get, &format!("/v1/conns?{query}"))?)?;
            let mut out = String::new();
            if self.json {
                for conn in &page.conns {
                    let line = serde_json::to_string(conn)
                        .map_err(|error| Complaint::new(format!("cannot be printed: {error}")))?;
                    out.push_str(&line);
                    out.push('\n');
                }
            } else if !page.conns.is_empty() {
                out = show::conns(&page.conns, &mut widths);
            }
            print(&out)?;
            count += page.conns.len() as u64;
            left = left.saturating_sub(page.conns.len() as u64);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        if !self.json {
            let more = if cursor.is_some() {
                ", and there may be more"
            } else {
                ""
            };
            let _ = writeln!(io::stderr(), "{}{more}", crate::counted(count, "connection"));
        }
        Ok(())
    }
}
