//! What a command refuses with.

use std::fmt;
use std::io::{self, Write};

use evenkeel_control::{ConfigErrors, Problem};
use miette::{Diagnostic, Report};

use crate::counted;

/// Why a command does not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Complaint {
    /// In words.
    Plain(Plain),
    /// A config is refused.
    Config(Box<ConfigErrors>),
}

/// An error in words, with a remedy where there is one.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Plain {
    message: String,
    help: Option<String>,
    /// Line and column of a file, from 1, where it has a place.
    place: Option<(usize, usize)>,
    #[source]
    source: Option<io::Error>,
}

impl Diagnostic for Plain {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }
}

impl Complaint {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Complaint::Plain(Plain {
            message: Problem::shown_name(&message.into()),
            help: None,
            place: None,
            source: None,
        })
    }

    pub(crate) fn io(message: impl Into<String>, source: io::Error) -> Self {
        Complaint::Plain(Plain {
            message: Problem::shown_name(&message.into()),
            help: None,
            place: None,
            source: Some(source),
        })
    }

    /// With what to do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        if let Complaint::Plain(plain) = &mut self {
            plain.help = Some(Problem::shown_name(&help.into()));
        }
        self
    }

    /// With its place in a file: line and column, from 1.
    pub(crate) fn at(mut self, line: usize, column: usize) -> Self {
        if let Complaint::Plain(plain) = &mut self {
            plain.place = Some((line, column));
        }
        self
    }

    /// What is wrong in a file: line and column, where it has a place, and what to do about it.
    pub(crate) fn mistakes(&self) -> Vec<(Option<(usize, usize)>, String)> {
        match self {
            Complaint::Plain(plain) => {
                let source = plain.source.iter().map(|error| format!(": {error}"));
                let help = plain.help.iter().map(|help| format!("\n{help}"));
                let rest: String = source.chain(help).collect();
                vec![(plain.place, format!("{plain}{rest}"))]
            }
            Complaint::Config(errors) => {
                let problems = errors.problems().iter();
                let told = problems.map(|p| (Some((p.line, p.column)), format!("{}\n{}", p.message, p.help)));
                let more = match errors.omitted() {
                    0 => None,
                    n => Some((None, format!("and {}", counted(n, "more error")))),
                };
                told.chain(more).collect()
            }
        }
    }

    /// Whether the reader of our output went away.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        let source = match self {
            Complaint::Plain(plain) => plain.source.as_ref(),
            Complaint::Config(_) => None,
        };
        source.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether something may not be read or written by who this process is.
    pub(crate) fn is_denied(&self) -> bool {
        let source = match self {
            Complaint::Plain(plain) => plain.source.as_ref(),
            Complaint::Config(_) => None,
        };
        source.is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
    }

    /// All of it for a line of a log: what is wrong, where, why, and what to do. Of a config the first error, with the
    /// number of the others.
    pub(crate) fn one_line(&self) -> String {
        let line = match self {
            Complaint::Plain(plain) => {
                let source = plain.source.iter().map(|error| format!(": {error}"));
                let help = plain.help.iter().map(|help| format!("; {help}"));
                let rest: String = source.chain(help).collect();
                format!("{plain}{rest}")
            }
            Complaint::Config(errors) => {
                let first = errors.problems().first().map(|first| {
                    let Problem { line, column, .. } = first;
                    let Problem { message, help, .. } = first;
                    format!("; line {line}, column {column}: {message}; {help}")
                });
                let more = match errors.problems().len() + errors.omitted() {
                    0 | 1 => "",
                    _ => "; `evenkeel check` lists all of them",
                };
                format!("{errors}{}{more}", first.unwrap_or_default())
            }
        };
        Problem::shown_name(&line)
    }

    /// As [`Complaint::report`], unless all that it says is that nobody reads any more.
    pub(crate) fn report_unless_unread(self) {
        if !self.is_broken_pipe() {
            self.report();
        }
    }

    /// Prints it to standard error: with colours and drawings on a terminal only.
    pub(crate) fn report(self) {
        let report = match self {
            Complaint::Plain(plain) => Report::new(plain),
            Complaint::Config(errors) => Report::new(*errors),
        };
        // Nobody is left to complain to if this fails.
        let _ = writeln!(io::stderr(), "{report:?}");
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Complaint::Plain(plain) => plain.fmt(f),
            Complaint::Config(errors) => errors.fmt(f),
        }
    }
}

impl From<ConfigErrors> for Complaint {
    fn from(errors: ConfigErrors) -> Self {
        Complaint::Config(Box::new(errors))
    }
}
