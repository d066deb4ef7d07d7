//! Results for CI systems: JUnit's XML in a file, annotations of GitHub in the log.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_sim_scenarios::{Annotations, JUnit, Report, RunError, Scenario};

use super::files;
use crate::complaint::Complaint;
use crate::print;

/// Where results go beside standard output.
#[derive(Debug, clap::Args)]
pub(super) struct ToldArgs {
    /// Write the results as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print a line for each failure and each mistake of a scenario, which GitHub shows beside it; default: if GITHUB_ACTIONS is true
    #[arg(long, value_name = "WHOSE")]
    annotations: Option<Whose>,
}

impl ToldArgs {
    /// Where JUnit's XML goes.
    pub(super) fn junit(&self) -> Option<&Path> {
        self.junit.as_deref()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Whose {
    /// As GitHub Actions reads them
    Github,
    /// None
    None,
}

/// Collects results.
pub(super) struct Told {
    junit: Option<(PathBuf, JUnit)>,
    annotations: Option<Annotations>,
}

fn cannot(path: &Path, error: io::Error) -> Complaint {
    Complaint::io(format!("cannot write {}", path.display()), error)
}

impl Told {
    /// What `args` ask for. A file that cannot be written is refused before anything runs.
    pub(super) fn new(args: &ToldArgs) -> Result<Told, Complaint> {
        if let Some(path) = &args.junit {
            // Whoever is killed leaves a file that does not pass. What is no file has it once, at the end.
            let mut unended = JUnit::default();
            unended.unended();
            if !files::is_special(path) || path.is_dir() {
                files::put(path, &unended.xml()).map_err(|e| cannot(path, e))?;
            }
        }
        let github = match args.annotations {
            Some(whose) => whose == Whose::Github,
            None => env::var_os("GITHUB_ACTIONS").is_some_and(|v| v == "true"),
        };
        Ok(Told {
            junit: args.junit.clone().map(|path| (path, JUnit::default())),
            annotations: github.then(Annotations::default),
        })
    }

    /// A run that gave a result.
    pub(super) fn result(&mut self, file: &str, scenario: &Scenario, report: &Report, took: Duration) {
        if let Some((_, junit)) = &mut self.junit {
            junit.result(file, report, took);
        }
        if let Some(annotations) = &mut self.annotations {
            annotations.result(file, Path::new(file).is_file(), scenario, report);
        }
    }

    /// One that gave none, as it panicked, or went beyond a bound.
    pub(super) fn error(&mut self, file: &str, scenario: &str, seed: u64, error: &RunError, replay: &str) {
        let kind = error.outcome().unwrap_or("no-result");
        let why = error.to_string();
        if let Some((_, junit)) = &mut self.junit {
            junit.error(file, scenario, seed, kind, &why, replay);
        }
        // Who stops the runs knows it.
        if let Some(annotations) = self
            .annotations
            .as_mut()
            .filter(|_| !matches!(error, RunError::Stopped))
        {
            annotations.error(file, Path::new(file).is_file(), scenario, kind, &why, replay);
        }
    }

    /// A run that was not begun, as the others were stopped.
    pub(super) fn not_begun(&mut self, file: &str, scenario: &str, seed: u64, replay: &str) {
        if let Some((_, junit)) = &mut self.junit {
            let why = "the runs were stopped before this one began";
            junit.error(file, scenario, seed, "interrupted", why, replay);
        }
    }

    /// A run of what a seed drew; `signature` is that of its failure.
    pub(super) fn drawn(&mut self, report: &Report, signature: Option<&str>, took: Duration, replay: &str) {
        if let Some((_, junit)) = &mut self.junit {
            junit.drawn(report, took, replay);
        }
        if let Some((annotations, signature)) = self.annotations.as_mut().zip(signature) {
            annotations.drawn(report, signature, replay);
        }
    }

    /// A file that is no scenario, or cannot be read.
    pub(super) fn refused(&mut self, file: &str, complaint: &Complaint) {
        let mistakes = complaint.mistakes();
        if let Some((_, junit)) = &mut self.junit {
            let line = |(place, why): &(Option<(usize, usize)>, String)| {
                let place = place.map_or_else(String::new, |(l, c)| format!("line {l}, column {c}: "));
                format!("{place}{}", why.replace('\n', "; "))
            };
            let lines: Vec<_> = mistakes.iter().map(line).collect();
            let more = match lines.len() {
                0 | 1 => String::new(),
                n => format!(", and {} more", n - 1),
            };
            let first = lines.first().map_or("", String::as_str);
            let all: String = lines.iter().map(|line| format!("{line}\n")).collect();
            junit.refused(file, &format!("{first}{more}"), &all);
        }
        if let Some(annotations) = &mut self.annotations {
            let is_file = Path::new(file).is_file();
            for (place, why) in mistakes {
                let (line, column) = place.unwrap_or((1, 1));
                annotations.refused(file, is_file, (line as u32, column as u32), &why);
            }
        }
    }

    /// A scenario that is not run.
    pub(super) fn skipped(&mut self, file: &str, scenario: &Scenario, waits_for: &str) {
        if let Some((_, junit)) = &mut self.junit {
            junit.skipped(file, &scenario.name, &format!("waits for {waits_for}"));
        }
    }

    /// Writes it; with `json` standard output is for JSON alone, and GitHub reads standard error too.
    pub(super) fn finish(&self, json: bool) -> Result<(), Complaint> {
        // First, as nobody may read the rest.
        let written = match &self.junit {
            Some((path, junit)) => files::put(path, &junit.xml()).map_err(|e| cannot(path, e)),
            None => Ok(()),
        };
        if let Some(annotations) = &self.annotations {
            let lines = annotations.github();
            if json {
                // Nobody is left to tell if this fails.
                let _ = io::stderr().write_all(lines.as_bytes());
            } else {
                print(&lines)?;
            }
        }
        written
    }
}
