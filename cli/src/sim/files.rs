//! Where scenarios come from: files, or the binary itself.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Writes a file whole or not at all: what was there stays until all of the new one is on the disk. What is no file, such as
/// a pipe or a device, is written as it is.
pub(super) fn put(path: &Path, text: &str) -> io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    // Of a link what it leads to is replaced.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(name) = real.file_name().filter(|_| !is_special(&real)) else {
        return fs::write(path, text);
    };
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    let n = WRITTEN.fetch_add(1, Ordering::Relaxed);
    beside.push(format!(".{}-{n}.part", process::id()));
    let beside = real.with_file_name(beside);
    // A file may be written in a folder that may not: then there is no other way.
    let Ok(mut file) = File::create_new(&beside) else {
        return fs::write(&real, text);
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    drop(file);
    let written = written.and_then(|()| fs::rename(&beside, &real));
    if written.is_err() {
        // Nothing is lost if it stays.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Whether it is there, and no file.
pub(super) fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| !m.is_file())
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
