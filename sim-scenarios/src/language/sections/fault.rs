//! `[[fault]]`.

use std::time::Duration;

use evenkeel_control::reading::{Finding, Findings, Need, Span, Table, nearest, shown};
use evenkeel_control::{Bad, Code};

use super::{Names, Places, SWITCH, count, empty_list, span};
use crate::language::{limits, schema, value};
use crate::mechanism::Kind;
use crate::scenario::{Action, Disturbance, FAULT_COUNT_MAX, Fault, Network, NodeRef, Way};

/// What `do` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Do {
    Crash,
    Start,
    Pause,
    Resume,
    Drain,
    Cut,
    Heal,
    Disturb,
    Suppress,
    Queues,
    Look,
}

const ACTIONS: [(&str, Do); 11] = [
    ("crash", Do::Crash),
    ("start", Do::Start),
    ("pause", Do::Pause),
    ("resume", Do::Resume),
    ("drain", Do::Drain),
    ("cut", Do::Cut),
    ("heal", Do::Heal),
    ("disturb", Do::Disturb),
    ("suppress", Do::Suppress),
    ("queues", Do::Queues),
    ("look", Do::Look),
];

/// Keys that each action takes, beside `name`, `do`, `at` and `after`.
fn takes(action: Do) -> &'static [&'static str] {
    match action {
        Do::Crash => &["node", "for"],
        Do::Pause => &["node", "for", "clock"],
        Do::Start | Do::Resume | Do::Drain => &["node"],
        Do::Cut => &["node", "for", "network", "way"],
        Do::Heal => &["node", "network"],
        Do::Disturb => &[
            "node",
            "for",
            "network",
            "way",
            "loss",
            "duplicate",
            "copies",
            "reorder",
            "reorder_by",
        ],
        Do::Suppress => &["node", "to", "for", "kinds", "frames"],
        Do::Queues => &["node", "for", "entries"],
        Do::Look => &[],
    }
}

const NETWORKS: [(&str, Network); 4] = [
    ("clients", Network::Clients),
    ("servers", Network::Servers),
    ("sync", Network::Sync),
    ("all", Network::All),
];
const WAYS: [(&str, Way); 3] = [("both", Way::Both), ("in", Way::In), ("out", Way::Out)];

pub(super) fn faults(root: &Table<'_, '_>, places: &mut Places, findings: &mut Findings) -> Vec<Fault> {
    let (tables, _) = root.tables("fault", &schema::FAULT, schema::ALL, findings);
    if let Some(first) = tables.get(FAULT_COUNT_MAX) {
        let message = format!("more than {FAULT_COUNT_MAX} faults");
        findings.push(Finding::new(
            Code::TooMany,
            first.span.clone(),
            message,
            "leave the others out",
        ));
        return Vec::new();
    }
    let mut names = Names::default();
    let mut faults = Vec::new();
    for (i, table) in tables.iter().enumerate() {
        let action = table.choice("do", Need::Required, &ACTIONS, findings);
        let name = table.parsed("name", Need::Optional, value::name, findings);
        let at = table.parsed("at", Need::Optional, value::drawn, findings);
        let after = table.parsed("after", Need::Optional, |n| names.find(n, "fault"), findings);
        let lasts = table.parsed("for", Need::Optional, value::drawn, findings);
        if table.span_of("at") == table.span && table.span_of("after") == table.span {
            let help = "add `at = \"20s..30s\"`, a time in the run, or `after`, another fault's name";
            findings.push(Finding::new(
                Code::MissingKey,
                table.span.clone(),
                "neither `at` nor `after` in [[fault]]",
                help,
            ));
        }
        let Some(action) = action else { continue };
        let word = ACTIONS.iter().find(|a| a.1 == action.value).map_or("", |a| a.0);
        for key in schema::FAULT.keys.iter().map(|k| k.0) {
            let general = matches!(key, "name" | "do" | "at" | "after");
            let span = table.span_of(key);
            if !general && span != table.span && !takes(action.value).contains(&key) {
                let message = format!("`{key}` has no effect on \"{word}\"");
                let known: Vec<_> = takes(action.value).iter().map(|k| format!("`{k}`")).collect();
                let known = if known.is_empty() {
                    "nothing but `at`, `after` and `name`".into()
                } else {
                    known.join(", ")
                };
                let help = format!("\"{word}\" takes {known}");
                findings.push(Finding::new(Code::NoEffect, span, message, help));
            }
        }
        let mut used = Vec::new();
        let Some(read) = read_action(table, action.value, &mut used, findings) else {
            continue;
        };
        let name = match name {
            Some(name) => {
                names.add(name.value.clone(), name.span, findings);
                name.value
            }
            None => {
                let generated = format!("{word}-{}", i + 1);
                names.add(generated.clone(), table.span.clone(), findings);
                generated
            }
        };
        places.faults.push((
            table.span.clone(),
            table.span_of("at"),
            table.span_of("for"),
            used,
        ));
        faults.push(Fault {
            name,
            at: at.map_or(Duration::ZERO..=Duration::ZERO, |a| a.value),
            after: after.map(|a| a.value),
            lasts: lasts.map(|l| l.value),
            action: read,
        });
    }
    faults
}

fn read_action(
    table: &Table<'_, '_>,
    action: Do,
    used: &mut Vec<(NodeRef, Span)>,
    findings: &mut Findings,
) -> Option<Action> {
    if action == Do::Look {
        return Some(Action::Look);
    }
    let need = if action == Do::Suppress {
        Need::Optional
    } else {
        Need::Required
    };
    let node = table.parsed("node", need, value::node, findings);
    let to = (action == Do::Suppress)
        .then(|| table.parsed("to", Need::Optional, value::node, findings))
        .flatten();
    used.extend(node.iter().chain(&to).map(|f| (f.value, f.span.clone())));
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
    let network = |need, findings: &mut Findings| {
        table
            .choice("network", need, &NETWORKS, findings)
            .map(|n| n.value)
    };
    let way = |findings: &mut Findings| {
        table
            .choice("way", Need::Optional, &WAYS, findings)
            .map_or(Way::Both, |w| w.value)
    };
    Some(match action {
        Do::Crash => Action::Crash(node?.value),
        Do::Start => Action::Start(node?.value),
        Do::Pause => {
            let clock = table.choice("clock", Need::Optional, &SWITCH, findings);
            Action::Pause(node?.value, clock.is_none_or(|c| c.value))
        }
        Do::Resume => Action::Resume(node?.value),
        Do::Drain => Action::Drain(node?.value),
        Do::Cut => {
            let (network, way) = (network(Need::Required, findings), way(findings));
            Action::Cut(node?.value, network?, way)
        }
        Do::Heal => {
            let network = network(Need::Required, findings);
            Action::Heal(node?.value, network?)
        }
        Do::Disturb => {
            let (network, way) = (network(Need::Required, findings), way(findings));
            let mut share = |key| {
                table
                    .parsed(key, Need::Optional, value::share, findings)
                    .map_or(0, |f| f.value)
            };
            let (loss_ppm, duplicate_ppm, reorder_ppm) =
                (share("loss"), share("duplicate"), share("reorder"));
            let copies = count(table, limits::COPIES, findings).unwrap_or(1) as u8;
            let reorder_by = span(table, "reorder_by", Need::Optional, findings);
            if loss_ppm + duplicate_ppm + reorder_ppm == 0 {
                let help = "add `loss`, `duplicate` or `reorder`, such as `loss = \"1%\"`";
                findings.push(Finding::new(
                    Code::MissingKey,
                    table.span.clone(),
                    "a disturbance that disturbs nothing",
                    help,
                ));
            }
            let cuts = loss_ppm == 1_000_000 && duplicate_ppm + reorder_ppm == 0;
            if way != Way::Both && !cuts {
                let help =
                    "leave `way` out, or write `loss = \"100%\"` alone: other disturbances meet both ways";
                let message = "a disturbance of one `way` only";
                findings.push(Finding::new(Code::NoEffect, table.span_of("way"), message, help));
            }
            let disturbance = Disturbance {
                loss_ppm,
                duplicate_ppm,
                copies,
                reorder_ppm,
                reorder_by: reorder_by.map_or(Duration::from_millis(5), |r| r.value),
            };
            Action::Disturb(node?.value, network?, way, disturbance)
        }
        Do::Suppress => {
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
        Do::Queues => {
            let entries = count(table, limits::ENTRIES, findings).unwrap_or(1);
            Action::Queues(node?.value, entries)
        }
        Do::Look => Action::Look,
    })
}
