//! `[router]`.

use std::time::Duration;

use evenkeel_control::reading::{Finding, Findings, Need, Table, shown};
use evenkeel_control::{Bad, Code};

use super::{SWITCH, count};
use crate::language::{limits, value};
use crate::scenario::Router;

const KINDS: [(&str, bool); 2] = [("modulo", false), ("resilient", true)];
/// Buckets of a resilient table: Linux' next-hop groups have as many unless something else is said.
const BUCKETS: u32 = 128;

pub(super) fn router(table: Option<Table<'_, '_>>, findings: &mut Findings) -> Option<Router> {
    let table = table?;
    let resilient = table.choice("ecmp", Need::Required, &KINDS, findings);
    let buckets = count(&table, limits::ECMP_BUCKETS, findings);
    let detects = table
        .choice("detect", Need::Optional, &SWITCH, findings)
        .is_none_or(|d| d.value);
    let interval = table.parsed("interval", Need::Optional, interval, findings);
    let multiplier = count(&table, limits::MULTIPLIER, findings);
    let resilient = resilient.is_some_and(|r| r.value);
    let mut idle = |key, message: &'static str, help: &'static str| {
        if table.has(key) {
            findings.push(Finding::new(Code::NoEffect, table.span_of(key), message, help));
        }
    };
    if !resilient {
        let help = "leave it out, or write `ecmp = \"resilient\"`";
        idle("buckets", "`buckets` of a table that there is not", help);
    }
    if !detects {
        for key in ["interval", "multiplier"] {
            idle(
                key,
                "hellos that are not sent",
                "leave it out, or `detect = \"off\"`",
            );
        }
    }
    let interval = interval.map_or(Duration::from_millis(50), |i| i.value);
    Some(Router {
        buckets: resilient.then(|| buckets.unwrap_or(BUCKETS)),
        detection: detects.then(|| (interval, multiplier.unwrap_or(3) as u8)),
    })
}

fn interval(text: &str) -> Result<Duration, Bad> {
    let span = value::span(text)?;
    let (min, max) = limits::HELLO_MS;
    if (Duration::from_millis(min)..=Duration::from_millis(max)).contains(&span) {
        return Ok(span);
    }
    Err(Bad::new(
        Code::OutOfRange,
        format!("`interval` cannot be \"{}\"", shown(text)),
        format!("write \"{min}ms\" to \"{}s\"", max / 1_000),
    ))
}
