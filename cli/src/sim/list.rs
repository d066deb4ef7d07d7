//! `evenkeel sim list`.

use std::fmt::Write;
use std::path::PathBuf;

use evenkeel_control::Problem;
use evenkeel_sim_scenarios::Scenario;
use serde::Serialize;

use super::files;
use crate::complaint::Complaint;
use crate::{Exit, print};

/// List the scenarios of a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel sim list
  evenkeel sim list my-scenarios --json

Exit codes: 0 fine; 1 a scenario is refused or the folder cannot be read.")]
pub(super) struct Args {
    /// Folder; default: sim-scenarios/scenarios, or what this binary was built with
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// A scenario in the list.
#[derive(Debug, Serialize)]
struct Listed<'s> {
    file: &'s str,
    name: &'s str,
    number: Option<u32>,
    description: &'s str,
    /// The scenario that it is a counter-proof of.
    base: Option<&'s str>,
    /// The mechanism that it takes away.
    off: Option<&'s str>,
    waits_for: Option<&'s str>,
}

impl<'s> Listed<'s> {
    fn new(file: &'s str, scenario: &'s Scenario) -> Self {
        Listed {
            file,
            name: &scenario.name,
            number: scenario.number,
            description: &scenario.description,
            base: scenario.off.as_ref().map(|o| o.base.as_str()),
            off: scenario.off.as_ref().map(|o| o.mechanism.name()),
            waits_for: scenario.waits_for.as_deref(),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<Exit, Complaint> {
    let mut scenarios = files::all(args.folder.as_deref())?;
    // By number; a counter-proof behind what it disproves.
    scenarios.sort_by_key(|(file, s)| {
        let base = s
            .off
            .as_ref()
            .map(|o| o.base.trim_end_matches(".toml").to_owned());
        let number = if base.is_some() { None } else { s.number };
        (
            number.or(s.number).unwrap_or(u32::MAX),
            s.off.is_some(),
            file.clone(),
        )
    });
    let listed: Vec<_> = scenarios.iter().map(|(file, s)| Listed::new(file, s)).collect();
    if args.json {
        let text = serde_json::to_string_pretty(&listed)
            .map_err(|e| Complaint::new(format!("cannot write JSON: {e}")))?;
        print(&(text + "\n"))?;
        return Ok(Exit::Fine);
    }
    let width = listed.iter().map(|l| l.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for l in &listed {
        let number = l.number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let what = match (l.waits_for, l.off) {
            (Some(waits_for), _) => format!("SKIP, waits for {waits_for}"),
            (None, Some(off)) => format!("counter-proof, without {off}"),
            (None, None) => Problem::shown_name(sentence(l.description)),
        };
        let _ = writeln!(out, "{number:>3}  {:<width$}  {what}", l.name);
    }
    // A counter-proof of what waits waits too, and counts as neither.
    let (waiting, run): (Vec<&Listed>, Vec<&Listed>) = listed.iter().partition(|l| l.waits_for.is_some());
    let waiting = waiting.iter().filter(|l| l.off.is_none()).count();
    let proofs = run.iter().filter(|l| l.off.is_some()).count();
    let _ = writeln!(
        out,
        "{} scenarios, {proofs} counter-proofs, {waiting} that wait for later work",
        run.len() - proofs
    );
    print(&out)?;
    Ok(Exit::Fine)
}

/// The first sentence.
fn sentence(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.find(". ").map_or(line, |end| &line[..=end])
}
