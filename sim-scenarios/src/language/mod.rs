//! The scenario language: TOML text to a [`Scenario`]; all mistakes at once, each with its place and remedy.

mod check;
pub(crate) mod limits;
mod schema;
mod sections;
mod unseen;
pub(crate) mod value;
mod write;

use evenkeel_control::reading::{Finding, Findings, tree};
use evenkeel_control::{Code, ConfigErrors};

pub use limits::{LIMITS, Limit, limit_words};
pub use write::write;

use crate::scenario::Scenario;

/// Longest text of a scenario, in bytes: a plan has a line for each of its flows.
pub const TEXT_LEN_MAX: usize = 32 << 20;

/// Reads the scenario `text`; `name` is what errors call it. `base` gives the text of another scenario by the
/// name that this one writes, relative to its own; an error is why it cannot.
pub fn parse(
    name: &str,
    text: &str,
    base: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Scenario, ConfigErrors> {
    let mut findings = Findings::default();
    if text.len() > TEXT_LEN_MAX {
        let message = format!("{} bytes of scenario", text.len());
        let help = format!("a scenario has {TEXT_LEN_MAX} bytes at most");
        findings.push(Finding::new(Code::TooLarge, 0..0, message, help).label("too large"));
        return Err(findings.into_errors(name, ""));
    }
    let Some(tree) = tree(&schema::ROOT, text, &mut findings) else {
        return Err(findings.into_errors(name, text));
    };
    let scenario = if tree.get("base").is_some() {
        sections::counter_proof(&tree, base, &mut findings)
    } else {
        sections::scenario(&tree, &mut findings)
    };
    match scenario {
        Some(mut scenario) if findings.is_empty() => {
            for expect in &mut scenario.expects {
                expect.written.find(text);
            }
            Ok(scenario)
        }
        _ => Err(findings.into_errors(name, text)),
    }
}
