//! `[[fault]]`: what all take, and what each takes besides. Each kind has a room of its own.

mod config;
pub(super) mod link;
mod message;
mod node;

use std::time::Duration;

use evenkeel_control::Code;
use evenkeel_control::reading::{Field, Finding, Findings, Need, Span, Table};

use super::{FaultPlaces, Names, Places, SWITCH};
use crate::language::{schema, value};
use crate::scenario::{Action, Drawn, FAULT_COUNT_MAX, Fault, NodeRef, Tampering, Trigger};

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
    Dark,
    Bucket,
    Part,
    Suppress,
    Forge,
    Replay,
    Queues,
    Rings,
    Slow,
    Fill,
    Damage,
    Drift,
    Step,
    Config,
    Unhealthy,
    Look,
}

const ACTIONS: [(&str, Do); 24] = [
    ("crash", Do::Crash),
    ("start", Do::Start),
    ("pause", Do::Pause),
    ("resume", Do::Resume),
    ("drain", Do::Drain),
    ("cut", Do::Cut),
    ("heal", Do::Heal),
    ("disturb", Do::Disturb),
    ("dark", Do::Dark),
    ("bucket", Do::Bucket),
    ("part", Do::Part),
    ("suppress", Do::Suppress),
    ("forge", Do::Forge),
    ("replay", Do::Replay),
    ("queues", Do::Queues),
    ("rings", Do::Rings),
    ("slow", Do::Slow),
    ("fill", Do::Fill),
    ("damage", Do::Damage),
    ("drift", Do::Drift),
    ("step", Do::Step),
    ("config", Do::Config),
    ("unhealthy", Do::Unhealthy),
    ("look", Do::Look),
];

/// Keys that each action takes, beside `name`, `do`, `at`, `after` and `optional`.
fn takes(action: Do) -> &'static [&'static str] {
    match action {
        Do::Crash => &["node", "for", "state"],
        Do::Pause => &["node", "for", "clock"],
        Do::Start => &["node", "state"],
        Do::Resume | Do::Drain => &["node"],
        Do::Cut | Do::Dark => &["node", "for", "network", "way"],
        Do::Heal => &["node", "network"],
        Do::Disturb => &[
            "node",
            "for",
            "network",
            "way",
            "loss",
            "burst",
            "arp",
            "duplicate",
            "copies",
            "reorder",
            "reorder_by",
            "corrupt",
            "delay",
            "bandwidth",
        ],
        Do::Bucket => &["node", "for", "bucket"],
        Do::Part => &["node", "to", "for", "network", "way"],
        Do::Suppress => &["node", "to", "for", "kinds", "frames"],
        Do::Forge | Do::Replay => &["node", "for"],
        Do::Queues | Do::Rings => &["node", "for", "entries"],
        Do::Slow => &["node", "for", "worker", "factor"],
        Do::Fill => &["node", "for", "share"],
        Do::Damage => &["node", "share"],
        Do::Drift => &["node", "for", "drift"],
        Do::Step => &["node", "by", "wall"],
        Do::Config => &["node", "for", "service", "servers", "server", "weight", "served"],
        Do::Unhealthy => &["node", "for", "service", "server"],
        Do::Look => &[],
    }
}

pub(super) fn faults(
    root: &Table<'_, '_>,
    services: &Names,
    places: &mut Places,
    findings: &mut Findings,
) -> Vec<Fault> {
    let (tables, whole) = root.tables("fault", &schema::FAULT, schema::ALL, findings);
    places.faults_refused = !whole;
    if let Some(first) = tables.get(FAULT_COUNT_MAX) {
        let message = format!("more than {FAULT_COUNT_MAX} faults");
        findings.push(Finding::new(
            Code::TooMany,
            first.span.clone(),
            message,
            "leave the others out",
        ));
        places.faults_refused = true;
        return Vec::new();
    }
    let mut names = Names {
        any_refused: !whole,
        ..Names::default()
    };
    let mut faults = Vec::new();
    for (i, table) in tables.iter().enumerate() {
        let action = table.choice("do", Need::Required, &ACTIONS, findings);
        let name = table.parsed("name", Need::Optional, value::name, findings);
        let at = table.parsed("at", Need::Optional, value::at, findings);
        let after = table.parsed("after", Need::Optional, |n| names.find(n, "fault"), findings);
        let optional = table.choice("optional", Need::Optional, &SWITCH, findings);
        let lasts = table.parsed("for", Need::Optional, value::drawn, findings);
        if table.span_of("at") == table.span && table.span_of("after") == table.span {
            let help = "add `at = \"20s..30s\"`, a time in the run, or `after`, another fault's name, or `at = \"on(takeover)\"`";
            findings.push(Finding::new(
                Code::MissingKey,
                table.span.clone(),
                "neither `at` nor `after` in [[fault]]",
                help,
            ));
        }
        let Some(action) = action else {
            names.refuse(name.map(|n| n.value));
            places.faults_refused = true;
            continue;
        };
        let word = ACTIONS.iter().find(|a| a.1 == action.value).map_or("", |a| a.0);
        for key in schema::FAULT.keys.iter().map(|k| k.0) {
            let general = matches!(key, "name" | "do" | "at" | "after" | "optional");
            let span = table.span_of(key);
            if !general && span != table.span && !takes(action.value).contains(&key) {
                let message = format!("`{key}` has no effect on \"{word}\"");
                let known: Vec<_> = takes(action.value).iter().map(|k| format!("`{k}`")).collect();
                let known = if known.is_empty() {
                    "nothing but `at`, `after`, `optional` and `name`".into()
                } else {
                    known.join(", ")
                };
                let help = format!("\"{word}\" takes {known}");
                findings.push(Finding::new(Code::NoEffect, span, message, help));
            }
        }
        // What a plan says was drawn, and may be drawn so.
        let drawn = root.has("seed");
        if let Some(lasts) = &lasts
            && lasts.value.end().is_zero()
            && action.value != Do::Crash
            && !drawn
        {
            let message = format!("\"{word}\" for \"0s\" has no effect: it ends when it begins");
            let help = "write how long it lasts, such as `for = \"1s\"`, or leave `for` out: then it stays to the end";
            findings.push(Finding::new(Code::NoEffect, lasts.span.clone(), message, help));
        }
        let mut used = Vec::new();
        let Some(read) = read_action(table, action.value, services, &mut used, findings) else {
            // One whose name is refused has one that is not known.
            let unnamed = || (!table.has("name")).then(|| format!("{word}-{}", i + 1));
            names.refuse(name.map(|n| n.value).or_else(unnamed));
            places.faults_refused = true;
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
        let (when, at) = at.map_or((None, Duration::ZERO..=Duration::ZERO), |a| {
            used_by(&a, &mut used);
            a.value
        });
        if when.is_none()
            && let Some(optional) = &optional
        {
            let help = "leave it out: what has its time in the run comes";
            findings.push(Finding::new(
                Code::NoEffect,
                optional.span.clone(),
                "`optional` of a fault that waits for nothing",
                help,
            ));
        }
        let parts = ["bucket", "worker", "server"].map(|key| table.span_of(key));
        let part = parts.into_iter().find(|span| *span != table.span);
        places.faults.push(FaultPlaces {
            header: table.span.clone(),
            at: table.span_of("at"),
            lasts: table.span_of("for"),
            part: part.unwrap_or_else(|| table.span.clone()),
            nodes: used,
        });
        faults.push(Fault {
            name,
            at,
            after: after.map(|a| a.value).filter(|&a| a != Names::REFUSED),
            when,
            optional: optional.is_some_and(|o| o.value),
            lasts: lasts.map(|l| l.value),
            action: read,
        });
    }
    faults
}

/// The node for which a fault waits.
fn used_by(at: &Field<(Option<Trigger>, Drawn<Duration>)>, used: &mut Vec<(NodeRef, Span)>) {
    let node = at.value.0.and_then(|trigger| trigger.node);
    used.extend(node.map(|node| (node, at.span.clone())));
}

fn read_action(
    table: &Table<'_, '_>,
    action: Do,
    services: &Names,
    used: &mut Vec<(NodeRef, Span)>,
    findings: &mut Findings,
) -> Option<Action> {
    match action {
        Do::Look => return Some(Action::Look),
        Do::Suppress => return Some(message::suppress(table, used, findings)),
        Do::Config => return config::config(table, services, used, findings),
        Do::Unhealthy => return config::unhealthy(table, services, used, findings),
        _ => {}
    }
    // Without a node the rest is read all the same: for what else is wrong.
    let node = node_of(table, "node", Need::Required, used, findings).map(|n| n.value);
    match action {
        Do::Crash => node::crash(table, node, findings),
        Do::Start => node::start(table, node, findings),
        Do::Pause => node::pause(table, node, findings),
        Do::Resume => node.map(Action::Resume),
        Do::Drain => node.map(Action::Drain),
        Do::Cut => link::cut(table, node, findings),
        Do::Heal => link::heal(table, node, findings),
        Do::Disturb => link::disturb(table, node, findings),
        Do::Dark => link::dark(table, node, findings),
        Do::Bucket => link::bucket(table, node, findings),
        Do::Part => {
            let to = node_of(table, "to", Need::Required, used, findings).map(|n| n.value);
            link::part(table, node, to, findings)
        }
        Do::Forge => node.map(|n| Action::Tamper(n, Tampering::Forge)),
        Do::Replay => node.map(|n| Action::Tamper(n, Tampering::Replay)),
        Do::Queues => node::queues(table, node, findings),
        Do::Rings => node::rings(table, node, findings),
        Do::Slow => node::slow(table, node, findings),
        Do::Fill => node::fill(table, node, findings),
        Do::Damage => node::damage(table, node, findings),
        Do::Drift => node::drift(table, node, findings),
        Do::Step => node::step(table, node, findings),
        Do::Look | Do::Suppress | Do::Config | Do::Unhealthy => None,
    }
}

/// A node that a fault is about.
fn node_of(
    table: &Table<'_, '_>,
    key: &'static str,
    need: Need,
    used: &mut Vec<(NodeRef, Span)>,
    findings: &mut Findings,
) -> Option<Field<NodeRef>> {
    let node = table.parsed(key, need, value::node, findings);
    used.extend(node.iter().map(|f| (f.value, f.span.clone())));
    node
}
