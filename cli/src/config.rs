//! Reading config files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use evenkeel_control::{Config, TEXT_LEN_MAX};
use miette::Report;

use crate::complaint::Complaint;

/// The text of a config file; `-` is standard input. At most one byte more than is taken is read.
pub(crate) fn read(path: &Path) -> Result<String, Complaint> {
    let name = path.display();
    let mut bytes = Vec::new();
    let limit = TEXT_LEN_MAX as u64 + 1;
    let read = if is_stdin(path) {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| Complaint::io(format!("cannot read the config {name}"), error))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Complaint::new(format!("{name} is no text: byte {at} is not UTF-8"))
            .help("a config is a TOML file, see docs/config.md")
    })
}

/// The config in a file.
pub(crate) fn load(path: &Path) -> Result<Config, Complaint> {
    Ok(evenkeel_control::parse(
        &path.display().to_string(),
        &read(path)?,
    )?)
}

/// Whether this is how standard input is called.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Prints the warnings of a config to standard error.
pub(crate) fn warn(config: &Config) {
    for warning in &config.warnings {
        let _ = writeln!(io::stderr(), "{:?}", Report::new(warning.clone()));
    }
    if config.warnings_omitted > 0 {
        let _ = writeln!(io::stderr(), "and {} more warnings", config.warnings_omitted);
    }
}
