//! Reading config files.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::path::Path;

use evenkeel_control::{Code, Config, Ids, Problem, TEXT_LEN_MAX, parse_as};
use miette::Report;
use serde::Serialize;

use crate::complaint::Complaint;
use crate::counted;

/// Why a config file gives no text. Serialized, it has the fields of a [`Problem`].
#[derive(Debug, Serialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Unread {
    file: String,
    line: usize,
    column: usize,
    len: usize,
    message: String,
    help: String,
    code: &'static str,
    #[serde(skip)]
    source: Option<io::Error>,
}

impl From<Unread> for Complaint {
    fn from(unread: Unread) -> Self {
        match unread.source {
            Some(error) => Complaint::io(unread.message, error),
            None => Complaint::new(unread.message)
                .help(unread.help)
                .at(unread.line, unread.column),
        }
    }
}

/// The text of a config file; `-` is standard input. At most one byte more than is taken is read.
pub(crate) fn read(path: &Path) -> Result<String, Unread> {
    read_text(path, "config", "docs/config.md", TEXT_LEN_MAX)
}

/// As [`read`], for another language: `what` it is, where it is `described`, and how many bytes of it are read.
pub(crate) fn read_text(path: &Path, what: &str, described: &str, len_max: usize) -> Result<String, Unread> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let limit = len_max as u64 + 1;
    // What a pipe holds beyond the limit is not known.
    let mut size = None;
    let read = if is_stdin(path) {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| {
            size = file.metadata().ok().filter(Metadata::is_file).map(|m| m.len());
            file.take(limit).read_to_end(&mut bytes)
        })
    };
    read.map_err(|error| Unread {
        file: name.clone(),
        line: 1,
        column: 1,
        len: 0,
        message: format!("cannot read the {what} {name}"),
        help: error.to_string(),
        code: "evenkeel::config::unreadable",
        source: Some(error),
    })?;
    if bytes.len() > len_max {
        let size = match size.filter(|&size| size > len_max as u64) {
            Some(size) => format!("{size} bytes long"),
            None => format!("longer than {len_max} bytes"),
        };
        return Err(Unread {
            message: format!("the {what} {name} is {size}"),
            help: format!("a {what} has {len_max} bytes at most"),
            file: name,
            line: 1,
            column: 1,
            len: 0,
            code: Code::TooLarge.as_str(),
            source: None,
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes().get(..at).unwrap_or_default());
        let last_line = text.rsplit('\n').next().unwrap_or_default();
        let (line, column) = (text.matches('\n').count() + 1, last_line.chars().count() + 1);
        Unread {
            line,
            column,
            len: 0,
            message: format!("{name} is no text: line {line}, column {column} (byte {at}) is not UTF-8"),
            help: format!("save it as UTF-8: a {what} is a TOML file, see {described}"),
            code: "evenkeel::config::not_utf8",
            source: None,
            file: name,
        }
    })
}

/// The config in a file, for this `node` of its cluster.
pub(crate) fn load(path: &Path, node: Option<&str>) -> Result<Config, Complaint> {
    load_with(path, node, &mut Ids::new())
}

/// As [`load`], with the ids that were given before.
pub(crate) fn load_with(path: &Path, node: Option<&str>, ids: &mut Ids) -> Result<Config, Complaint> {
    let name = path.display().to_string();
    Ok(parse_as(&name, &read(path)?, node, ids)?)
}

/// Whether this is how standard input is called.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Prints the warnings of a config to standard error.
pub(crate) fn warn(config: &Config) {
    say(&config.warnings, config.warnings_omitted);
}

/// Prints whose link-layer address a capture cannot be asked for.
pub(crate) fn warn_of_unresolved(config: &Config) {
    say(&config.unresolved, config.unresolved_omitted);
}

fn say(warnings: &[Problem], omitted: usize) {
    for warning in warnings {
        let _ = writeln!(io::stderr(), "{:?}", Report::new(warning.clone()));
    }
    if omitted > 0 {
        let omitted = counted(omitted, "more warning");
        let _ = writeln!(io::stderr(), "and {omitted}");
    }
}
