//! Where scenarios come from: files, or the binary itself.

use std::fs;
use std::path::{Path, PathBuf};

use evenkeel_sim_scenarios::{EMBEDDED, Scenario, TEXT_LEN_MAX, embedded, parse};

use crate::complaint::Complaint;
use crate::config::{self, Unread};

/// Where the committed scenarios are in a checkout.
pub(super) const FOLDER: &str = "sim-scenarios/scenarios";

/// A scenario file; what is no file and has no folder may be the name of a committed scenario.
pub(super) fn load(path: &Path) -> Result<Scenario, Complaint> {
    let name = path.display().to_string();
    let known = || {
        if name.ends_with(".toml") {
            embedded(&name)
        } else {
            embedded(&format!("{name}.toml"))
        }
    };
    let text = if !config::is_stdin(path) && !path.exists() {
        match known() {
            Some(text) => text.to_owned(),
            None => {
                return Err(Complaint::new(format!("there is no scenario {name}"))
                    .help("give a file, or one of those that `evenkeel sim list` shows"));
            }
        }
    } else {
        read_text(path)?
    };
    read(&name, &text, path.parent())
}

fn read_text(path: &Path) -> Result<String, Unread> {
    config::read_text(path, "scenario", "docs/scenarios.md", TEXT_LEN_MAX)
}

/// Reads a scenario whose bases stand in `folder`, or are committed.
pub(super) fn read(name: &str, text: &str, folder: Option<&Path>) -> Result<Scenario, Complaint> {
    let base = |wanted: &str| {
        // A base is a name: it leads nowhere else.
        if wanted.contains(['/', '\\']) {
            return Err(format!("the base \"{wanted}\" is a path"));
        }
        let path = folder.unwrap_or(Path::new("")).join(wanted);
        if path.is_file() {
            return read_text(&path).map_err(|e| format!("the base cannot be read: {e}"));
        }
        let text = embedded(wanted).map(str::to_owned);
        text.ok_or_else(|| format!("there is no base \"{wanted}\" beside it"))
    };
    Ok(parse(name, text, &base)?)
}

/// All scenarios of a folder, or the committed ones, by file name.
pub(super) fn all(folder: Option<&Path>) -> Result<Vec<(String, Scenario)>, Complaint> {
    let default = Path::new(FOLDER);
    let folder = match folder {
        Some(folder) => folder,
        None if default.is_dir() => default,
        None => {
            return EMBEDDED
                .iter()
                .map(|(name, text)| Ok(((*name).to_owned(), read(name, text, None)?)))
                .collect();
        }
    };
    let failed = |e| Complaint::io(format!("cannot list {}", folder.display()), e);
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| Ok((path.display().to_string(), load(path)?)))
        .collect()
}
