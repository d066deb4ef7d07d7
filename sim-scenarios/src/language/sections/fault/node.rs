//! Faults of nodes.

use evenkeel_control::reading::{Findings, Need, Table};

use crate::language::limits;
use crate::language::sections::{SWITCH, count};
use crate::scenario::{Action, NodeRef};

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
