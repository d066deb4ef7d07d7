//! Faults of links.

use std::time::Duration;

use evenkeel_control::Code;
use evenkeel_control::reading::{Finding, Findings, Need, Table};

use crate::language::sections::{count, span};
use crate::language::{limits, value};
use crate::scenario::{Action, Disturbance, Network, NodeRef, Way};

const NETWORKS: [(&str, Network); 4] = [
    ("clients", Network::Clients),
    ("servers", Network::Servers),
    ("sync", Network::Sync),
    ("all", Network::All),
];
const WAYS: [(&str, Way); 3] = [("both", Way::Both), ("in", Way::In), ("out", Way::Out)];

fn network(table: &Table<'_, '_>, findings: &mut Findings) -> Option<Network> {
    let network = table.choice("network", Need::Required, &NETWORKS, findings);
    network.map(|n| n.value)
}

fn way(table: &Table<'_, '_>, findings: &mut Findings) -> Way {
    let way = table.choice("way", Need::Optional, &WAYS, findings);
    way.map_or(Way::Both, |w| w.value)
}

pub(super) fn cut(table: &Table<'_, '_>, node: Option<NodeRef>, findings: &mut Findings) -> Option<Action> {
    let (network, way) = (network(table, findings), way(table, findings));
    Some(Action::Cut(node?, network?, way))
}

pub(super) fn heal(table: &Table<'_, '_>, node: Option<NodeRef>, findings: &mut Findings) -> Option<Action> {
    let network = network(table, findings);
    Some(Action::Heal(node?, network?))
}

pub(super) fn disturb(
    table: &Table<'_, '_>,
    node: Option<NodeRef>,
    findings: &mut Findings,
) -> Option<Action> {
    let (network, way) = (network(table, findings), way(table, findings));
    let mut share = |key| {
        table
            .parsed(key, Need::Optional, value::share, findings)
            .map_or(0, |f| f.value)
    };
    let (loss_ppm, duplicate_ppm, reorder_ppm) = (share("loss"), share("duplicate"), share("reorder"));
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
        let help = "leave `way` out, or write `loss = \"100%\"` alone: other disturbances meet both ways";
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
    Some(Action::Disturb(node?, network?, way, disturbance))
}
