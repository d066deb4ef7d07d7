//! Faults of nodes.

use std::time::Duration;

use evenkeel_control::reading::{Finding, Findings, Need, Table, shown};
use evenkeel_control::{Bad, Code};

use crate::language::sections::{SWITCH, count};
use crate::language::{limits, value};
use crate::scenario::{Action, NodeRef};

/// Whether the disk of a node is kept.
fn state(table: &Table<'_, '_>, findings: &mut Findings) -> bool {
    let state = table.choice("state", Need::Optional, &SWITCH, findings);
    state.is_none_or(|s| s.value)
}

pub(super) fn crash(table: &Table<'_, '_>, node: Option<NodeRef>, findings: &mut Findings) -> Option<Action> {
    let state = state(table, findings);
    if table.has("state") && !table.has("for") {
        let help = "add `for`, or write `state` in the \"start\" of this node";
        findings.push(Finding::new(
            Code::NoEffect,
            table.span_of("state"),
            "`state` of a crash after which nothing starts",
            help,
        ));
    }
    Some(Action::Crash(node?, state))
}

pub(super) fn start(table: &Table<'_, '_>, node: Option<NodeRef>, findings: &mut Findings) -> Option<Action> {
    let state = state(table, findings);
    Some(Action::Start(node?, state))
}

pub(super) fn pause(table: &Table<'_, '_>, node: Option<NodeRef>, findings: &mut Findings) -> Option<Action> {
    let clock = table.choice("clock", Need::Optional, &SWITCH, findings);
    Some(Action::Pause(node?, clock.is_none_or(|c| c.value)))
}

pub(super) fn queues(
    table: &Table<'_, '_>,
    node: Option<NodeRef>,
    findings: &mut Findings,
) -> Option<Action> {
    let entries = count(table, limits::ENTRIES, findings).unwrap_or(1);
    Some(Action::Queues(node?, entries))
}

pub(super) fn rings(table: &Table<'_, '_>, node: Option<NodeRef>, findings: &mut Findings) -> Option<Action> {
    let entries = count(table, limits::ENTRIES, findings).unwrap_or(1);
    Some(Action::Rings(node?, entries))
}

pub(super) fn slow(table: &Table<'_, '_>, node: Option<NodeRef>, findings: &mut Findings) -> Option<Action> {
    let worker = count(table, limits::WORKER, findings).map(|w| w as u8);
    let factor = count(table, limits::FACTOR, findings);
    missing(table, "factor", "factor = 100", findings);
    Some(Action::Slow(node?, worker, factor?))
}

pub(super) fn fill(table: &Table<'_, '_>, node: Option<NodeRef>, findings: &mut Findings) -> Option<Action> {
    let some = |text: &str| match value::share(text)? {
        0 => Err(without_effect(text, "nothing is filled", "\"50%\"")),
        ppm => Ok(ppm),
    };
    let share = table.parsed("share", Need::Required, some, findings);
    Some(Action::Fill(node?, share?.value))
}

pub(super) fn damage(
    table: &Table<'_, '_>,
    node: Option<NodeRef>,
    findings: &mut Findings,
) -> Option<Action> {
    let some = |text: &str| match value::share(text)? {
        0 => Err(without_effect(text, "nothing is damaged", "\"10%\"")),
        ppm => Ok(ppm),
    };
    let share = table.parsed("share", Need::Required, some, findings);
    Some(Action::Damage(node?, share?.value))
}

pub(super) fn drift(table: &Table<'_, '_>, node: Option<NodeRef>, findings: &mut Findings) -> Option<Action> {
    let some = |text: &str| match value::ppm(text)? {
        0 => Err(without_effect(text, "the clock goes on as it goes", "\"500ppm\"")),
        ppm => Ok(ppm),
    };
    let drift = table.parsed("drift", Need::Required, some, findings);
    Some(Action::Drift(node?, drift?.value))
}

pub(super) fn step(table: &Table<'_, '_>, node: Option<NodeRef>, findings: &mut Findings) -> Option<Action> {
    let by = table.parsed("by", Need::Required, jump, findings);
    let wall = table.choice("wall", Need::Optional, &SWITCH, findings);
    let (node, by) = (node?, by?);
    if wall.is_some_and(|w| w.value) {
        return Some(Action::SetWall(node, by.value));
    }
    match u64::try_from(by.value) {
        Ok(ns) => Some(Action::Step(node, Duration::from_nanos(ns))),
        Err(_) => {
            let help = "write a span forward; or `wall = \"on\"`: the wall clock, which numbers the lives of a node, can be set back";
            findings.push(Finding::new(
                Code::BadValue,
                by.span,
                "the clock by which nodes live counts from their boot, and never goes back",
                help,
            ));
            None
        }
    }
}

/// A value with which a fault is none.
fn without_effect(text: &str, why: &str, example: &str) -> Bad {
    Bad::new(
        Code::NoEffect,
        format!("\"{}\" has no effect: {why}", shown(text)),
        format!("write more, such as {example}, or leave the fault out"),
    )
}

/// How far a clock jumps, forward or back.
fn jump(text: &str) -> Result<i64, Bad> {
    let max = limits::STEP_MAX;
    let far = || {
        let message = format!("\"{}\" is too far for a jump", shown(text));
        let help = format!("\"{}\" at most, which is 366 days", value::show_span(max));
        Bad::new(Code::OutOfRange, message, help)
    };
    match value::signed_span(text) {
        Ok(0) => Err(without_effect(text, "the clock stays as it is", "\"5s\"")),
        Ok(ns) if u128::from(ns.unsigned_abs()) > max.as_nanos() => Err(far()),
        Err(bad) if bad.code == Code::OutOfRange => Err(far()),
        read => read,
    }
}

/// A number that is required.
fn missing(table: &Table<'_, '_>, key: &'static str, example: &str, findings: &mut Findings) {
    if !table.has(key) {
        findings.push(Finding::new(
            Code::MissingKey,
            table.span.clone(),
            format!("`{key}` is missing in [[fault]]"),
            format!("add `{example}`"),
        ));
    }
}
