//! A report as text.

use std::collections::BTreeMap;
use std::fmt;

use super::{Outcome, Report, ms, seconds};

/// See [`Report::text`].
pub(super) struct Text<'r> {
    pub(super) report: &'r Report,
    pub(super) file: &'r str,
}

fn line(f: &mut fmt::Formatter<'_>, label: &str, text: impl fmt::Display) -> fmt::Result {
    let colon = if label.is_empty() { "" } else { ":" };
    writeln!(f, "  {:<13} {text}", format!("{label}{colon}"))
}

fn listed<K: fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let some: Vec<_> = counts.iter().map(|(what, n)| format!("{n} {what}")).collect();
    if some.is_empty() {
        "none".into()
    } else {
        some.join(", ")
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = self.report;
        let word = match r.outcome {
            Outcome::Pass => "PASS",
            Outcome::Fail => "FAIL",
            Outcome::FailedAsDeclared => "PASS (failed as declared)",
            Outcome::NoProof => "FAIL (no proof)",
        };
        writeln!(f, "{}: seed {}: {word}", r.scenario, r.seed)?;
        if let Some(off) = r.off {
            line(f, "off", off)?;
        }
        line(
            f,
            "connections",
            format_args!("{} opened, {} established", r.connections, r.established),
        )?;
        if r.live_at_fault > 0 {
            line(
                f,
                "replicated",
                format_args!(
                    "{} of {} that were live at the first fault",
                    r.replicated, r.live_at_fault
                ),
            )?;
        }
        line(f, "broken", r.broken)?;
        if r.failed > 0 {
            line(
                f,
                "failed",
                format_args!("{} before they were established", r.failed),
            )?;
        }
        if r.hanging > 0 {
            line(f, "hanging", format_args!("{} wait for an answer", r.hanging))?;
        }
        for flow in &r.broken_flows {
            line(f, "", flow)?;
        }
        if r.broken + r.failed > r.broken_flows.len() as u64 {
            let more = r.broken + r.failed - r.broken_flows.len() as u64;
            line(f, "", format_args!("and {more} more"))?;
        }
        if !r.excused.is_empty() {
            line(f, "excused", listed(&r.excused))?;
        }
        if let Some(stall) = r.stall_ms {
            let [min, p50, p90, p99, max] = stall.ns.map(ms);
            line(
                f,
                "stall",
                format_args!("{min} min, {p50} median, {p90} p90, {p99} p99, {max} max (ms)"),
            )?;
        }
        if let Some(detection) = r.detection_ns {
            line(f, "detection", format_args!("{} ms", ms(detection)))?;
        }
        line(f, "drops", listed(&r.drops))?;
        line(f, "lost", listed(&r.lost))?;
        line(f, "port probes", format_args!("{} found in use", r.probes))?;
        if !r.sync.is_empty() {
            line(f, "sync", listed(&r.sync))?;
        }
        for (at, what) in &r.timeline {
            line(f, "fault", format_args!("{}: {what}", seconds(*at)))?;
        }
        line(
            f,
            "simulated",
            format_args!("{}, {} events", seconds(r.duration_ns), r.events),
        )?;
        line(f, "digest", format_args!("{:032x}", r.digest))?;
        for failure in &r.failures {
            let declared = if r.outcome == Outcome::FailedAsDeclared {
                ", as declared"
            } else {
                ""
            };
            writeln!(f, "  failed{declared}: {}", failure.name)?;
            writeln!(f, "    expected: {}", failure.expected)?;
            writeln!(f, "    seen:     {}", failure.seen)?;
            writeln!(f, "    at:       {}", seconds(failure.at_ns))?;
        }
        if r.outcome == Outcome::NoProof && r.failures.is_empty() {
            writeln!(f, "  nothing failed, though the mechanism is off")?;
        }
        if !r.pass {
            writeln!(f, "  replay: {}", r.replay(self.file))?;
        }
        Ok(())
    }
}
