//! `evenkeel check`.

use std::path::PathBuf;

use evenkeel_control::{Config, Problem};
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

Exit codes: 0 all are good (warnings included), 1 one is refused or cannot be read.
The keys of a config are described in docs/config.md.")]
pub(crate) struct Args {
    /// Config files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
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
    errors: Vec<Refusal>,
    errors_omitted: usize,
    warnings: Vec<Problem>,
    warnings_omitted: usize,
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
        )
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
        match evenkeel_control::parse(&name, &text) {
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
