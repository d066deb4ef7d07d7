//! `evenkeel check`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use evenkeel_control::{Cluster, Config, Ids, Problem, parse_as};
use serde::Serialize;

use crate::complaint::Complaint;
use crate::config::Unread;
use crate::{Exit, config, counted, print};

/// Check configs: every error at once, with its place and a remedy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel check /etc/evenkeel/node.toml
  evenkeel check a.toml b.toml --json
  ssh lb1 cat node.toml | evenkeel check -
  evenkeel check examples/active-backup.toml --node lb2

Exit codes: 0 all are good (warnings included), 1 one is refused or cannot be read.
The keys of a config are described in docs/config.md.")]
pub(crate) struct Args {
    /// Config files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Check as this node of the cluster (its name, or its number), whatever `this_node` says
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// One file's result in JSON.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    ok: bool,
    services: usize,
    servers: usize,
    ports: usize,
    routes: usize,
    neighbours: usize,
    workers: u8,
    /// Bytes of the tables of all workers together.
    table_bytes: u64,
    /// `null`: the node is on its own.
    cluster: Option<ClusterChecked>,
    errors: Vec<Refusal>,
    errors_omitted: usize,
    warnings: Vec<Problem>,
    warnings_omitted: usize,
}

/// The cluster of a file.
#[derive(Debug, Serialize)]
struct ClusterChecked {
    id: u32,
    /// This node's name.
    node: String,
    members: Vec<MemberChecked>,
    /// `null`: no virtual router, every node answers for the virtual addresses.
    vrid: Option<u8>,
    virtual_addresses: Vec<IpAddr>,
}

/// A member of a cluster.
#[derive(Debug, Serialize)]
struct MemberChecked {
    id: u16,
    name: String,
    priority: u8,
    sync: SocketAddr,
    local_addresses: Vec<IpAddr>,
}

impl From<&Cluster> for ClusterChecked {
    fn from(cluster: &Cluster) -> Self {
        let config = &cluster.config;
        let vrrp = config.vrrp.as_ref();
        let members = config.members.iter().zip(&cluster.nodes);
        ClusterChecked {
            id: config.cluster,
            node: cluster.name.clone(),
            members: members
                .map(|(member, node)| MemberChecked {
                    id: member.id.0,
                    name: node.name.clone(),
                    priority: member.priority,
                    sync: node.sync,
                    local_addresses: member.local_addrs.clone(),
                })
                .collect(),
            vrid: vrrp.map(|v| v.vrid),
            virtual_addresses: vrrp
                .map_or_else(|| config.shared_addrs.clone(), |v| v.virtual_addrs().collect()),
        }
    }
}

impl ClusterChecked {
    /// The second line of a good file.
    fn line(&self) -> String {
        let members = self.members.iter().map(|m| {
            let own = if m.name == self.node { ", this one" } else { "" };
            let share = match m.local_addresses.len() {
                1 => "1 local address".to_owned(),
                n => format!("{n} local addresses"),
            };
            format!("{} (priority {}, {share}{own})", m.name, m.priority)
        });
        let router = self.vrid.map_or_else(
            || "no virtual router".to_owned(),
            |vrid| format!("virtual router {vrid}"),
        );
        let members: Vec<_> = members.collect();
        format!("  cluster {}, {router}: {}\n", self.id, members.join(", "))
    }
}

/// What is wrong with a file: with its text, or there is none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Refusal {
    Problem(Problem),
    Unread(Unread),
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    files: Vec<Checked>,
}

impl Checked {
    fn good(file: String, config: &Config) -> Self {
        let spec = &config.spec;
        Checked {
            file,
            ok: true,
            services: spec.services.len(),
            servers: spec.services.iter().map(|s| s.servers.len()).sum(),
            ports: spec.ports.len(),
            routes: spec.routes.len(),
            neighbours: spec.neighbours.len(),
            workers: config.workers,
            table_bytes: config.table_bytes(),
            cluster: config.cluster.as_ref().map(ClusterChecked::from),
            errors: Vec::new(),
            errors_omitted: 0,
            warnings: config.warnings.clone(),
            warnings_omitted: config.warnings_omitted,
        }
    }

    fn refused(file: String, errors: Vec<Refusal>, omitted: usize) -> Self {
        Checked {
            file,
            ok: false,
            services: 0,
            servers: 0,
            ports: 0,
            routes: 0,
            neighbours: 0,
            workers: 0,
            table_bytes: 0,
            cluster: None,
            errors,
            errors_omitted: omitted,
            warnings: Vec::new(),
            warnings_omitted: 0,
        }
    }

    fn line(&self) -> String {
        format!(
            "{}: ok: {}, {}, {}, {}, {} of tables\n",
            Problem::shown_name(&self.file),
            counted(self.services, "service"),
            counted(self.servers, "server"),
            counted(self.ports, "port"),
            counted(self.workers, "worker"),
            size(self.table_bytes)
        ) + &self
            .cluster
            .as_ref()
            .map_or_else(String::new, ClusterChecked::line)
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit, Complaint> {
    let mut files = Vec::new();
    for path in &args.files {
        let name = path.display().to_string();
        let text = match config::read(path) {
            Ok(text) => text,
            Err(unread) => {
                let errors = if args.json {
                    vec![Refusal::Unread(unread)]
                } else {
                    Complaint::from(unread).report();
                    Vec::new()
                };
                files.push(Checked::refused(name, errors, 0));
                continue;
            }
        };
        match parse_as(&name, &text, args.node.as_deref(), &mut Ids::new()) {
            Ok(config) => {
                let checked = Checked::good(name, &config);
                if !args.json {
                    print(&checked.line())?;
                    config::warn(&config);
                }
                files.push(checked);
            }
            Err(errors) => {
                let problems = errors.problems().iter().cloned().map(Refusal::Problem).collect();
                files.push(Checked::refused(name, problems, errors.omitted()));
                if !args.json {
                    Complaint::from(errors).report();
                }
            }
        }
    }
    let ok = files.iter().all(|f| f.ok);
    if args.json {
        let report = Report { ok, files };
        let text = serde_json::to_string_pretty(&report)
            .map_err(|e| Complaint::new(format!("cannot write JSON: {e}")))?;
        print(&(text + "\n"))?;
    }
    Ok(if ok { Exit::Fine } else { Exit::Refused })
}

/// Bytes for people, rounded up to a tenth of the unit.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut tenths = u128::from(bytes) * 10;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while tenths >= 10_240 {
        let Some(larger) = units.next() else { break };
        tenths = tenths.div_ceil(1024);
        unit = Some(larger);
    }
    let unit = unit.copied().unwrap_or_default();
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_to_a_tenth() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1025, "1.1 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1 MiB"),
            ((1 << 30) - 1, "1 GiB"),
            (1 << 40, "1 TiB"),
            (5000 << 40, "5000 TiB"),
        ] {
            assert_eq!(size(bytes), shown, "{bytes}");
        }
    }
}
