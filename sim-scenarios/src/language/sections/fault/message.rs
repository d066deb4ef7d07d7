//! Messages between nodes that never arrive.

use evenkeel_control::reading::{Finding, Findings, Need, Span, Table, nearest, shown};
use evenkeel_control::{Bad, Code};

use super::node_of;
use crate::language::limits;
use crate::language::sections::{count, empty_list};
use crate::mechanism::Kind;
use crate::scenario::{Action, NodeRef};

pub(super) fn suppress(
    table: &Table<'_, '_>,
    used: &mut Vec<(NodeRef, Span)>,
    findings: &mut Findings,
) -> Action {
    let node = node_of(table, "node", Need::Optional, used, findings);
    let to = node_of(table, "to", Need::Optional, used, findings);
    if let (Some(from), Some(to)) = (&node, &to)
        && from.value == to.value
    {
        let finding = Finding::new(
            Code::NoEffect,
            to.span.clone(),
            "a node sends nothing to itself",
            "name another node in `to`, or leave it out: then it is all others",
        );
        findings.push(finding);
    }
    let kind = |text: &str| {
        let found = Kind::ALL.iter().find(|k| k.0 == text).map(|k| k.1);
        found.ok_or_else(|| {
            let known: Vec<_> = Kind::ALL.iter().map(|k| k.0).collect();
            let help = match nearest(text, known.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("kinds: {}", known.join(", ")),
            };
            Bad::new(
                Code::BadValue,
                format!("no message is called \"{}\"", shown(text)),
                help,
            )
        })
    };
    let (kinds, all) = table.list("kinds", kind, findings);
    if kinds.is_empty() && all && table.has("kinds") {
        let help = "name the messages that do not arrive: `kinds = [\"close\"]`";
        empty_list(table, "kinds", help, findings);
    } else if kinds.is_empty() && all {
        let help = "add `kinds = [\"close\"]`";
        findings.push(Finding::new(
            Code::MissingKey,
            table.span.clone(),
            "`kinds` is missing in [[fault]]",
            help,
        ));
    }
    Action::Suppress {
        from: node.map(|n| n.value),
        to: to.map(|n| n.value),
        kinds: kinds.into_iter().map(|k| k.value).collect(),
        frames: count(table, limits::FRAMES, findings),
    }
}
