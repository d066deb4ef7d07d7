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
    let keys = ["loss", "duplicate", "reorder", "corrupt", "arp"];
    let [loss, duplicate, reorder, corrupt, arp] = keys.map(|key| share(table, key, findings));
    let copies = count(table, limits::COPIES, findings).unwrap_or(1) as u8;
    let reorder_by = span(table, "reorder_by", Need::Optional, findings);
    let delay = delay(table, findings);
    let bandwidth = table.parsed("bandwidth", Need::Optional, value::bandwidth, findings);
    let burst = burst(table, loss, findings);
    // What is written, and refused, would be a disturbance.
    let nothing = [loss, duplicate, reorder, corrupt, arp]
        .iter()
        .all(|s| *s == Some(0));
    if nothing && delay == Some(Duration::ZERO) && !table.has("bandwidth") {
        let help = "add `loss`, `duplicate`, `reorder`, `corrupt`, `arp`, `delay` or `bandwidth`, such as `loss = \"1%\"`";
        findings.push(Finding::new(
            Code::MissingKey,
            table.span.clone(),
            "a disturbance that disturbs nothing",
            help,
        ));
    }
    let [loss_ppm, duplicate_ppm, reorder_ppm] = [loss, duplicate, reorder].map(Option::unwrap_or_default);
    let disturbance = Disturbance {
        loss_ppm,
        burst,
        arp_ppm: arp.unwrap_or_default(),
        duplicate_ppm,
        copies: if duplicate_ppm > 0 { copies } else { 0 },
        reorder_ppm,
        reorder_by: match reorder_ppm {
            0 => Duration::ZERO,
            _ => reorder_by.map_or(Duration::from_millis(5), |r| r.value),
        },
        corrupt_ppm: corrupt.unwrap_or_default(),
        delay: delay.unwrap_or_default(),
        bandwidth: bandwidth.map(|b| b.value),
    };
    Some(Action::Disturb(node?, network?, way, disturbance))
}

/// A share of frames, in millionths: 0 where none is written; `None`: it is refused.
pub(crate) fn share(table: &Table<'_, '_>, key: &'static str, findings: &mut Findings) -> Option<u32> {
    if !table.has(key) {
        return Some(0);
    }
    let share = table.parsed(key, Need::Optional, value::share, findings);
    share.map(|f| f.value)
}

/// What is added to a link's own delay; `None`: it is refused.
fn delay(table: &Table<'_, '_>, findings: &mut Findings) -> Option<Duration> {
    if !table.has("delay") {
        return Some(Duration::ZERO);
    }
    let delay = span(table, "delay", Need::Optional, findings)?;
    if delay.value > limits::ADDED_DELAY_MAX {
        let message = format!("`delay` cannot be \"{}\"", value::show_span(delay.value));
        let help = format!("write \"{}\" at most", value::show_span(limits::ADDED_DELAY_MAX));
        findings.push(Finding::new(Code::OutOfRange, delay.span, message, help));
    }
    Some(delay.value)
}

/// How many frames are lost one after the other, where some are and others are not.
pub(crate) fn burst(table: &Table<'_, '_>, loss: Option<u32>, findings: &mut Findings) -> Option<u32> {
    let burst = count(table, limits::BURST, findings)?;
    if matches!(loss, Some(0 | 1_000_000)) {
        let message = "`burst` without a `loss` that comes and goes";
        let help = "`loss` is the share of frames that is lost, `burst` how many of them in a row: add `loss = \"2%\"`";
        findings.push(Finding::new(
            Code::NoEffect,
            table.span_of("burst"),
            message,
            help,
        ));
    }
    Some(burst)
}

pub(super) fn dark(table: &Table<'_, '_>, node: Option<NodeRef>, findings: &mut Findings) -> Option<Action> {
    let (network, way) = (network(table, findings), way(table, findings));
    Some(Action::Dark(node?, network?, way))
}

pub(super) fn bucket(
    table: &Table<'_, '_>,
    node: Option<NodeRef>,
    findings: &mut Findings,
) -> Option<Action> {
    let bucket = count(table, limits::BUCKET, findings);
    if bucket.is_none() && !table.has("bucket") {
        let help = "add `bucket = 7`, one of those into which flows fall";
        let message = "`bucket` is missing in [[fault]]";
        findings.push(Finding::new(Code::MissingKey, table.span.clone(), message, help));
    }
    Some(Action::Bucket(node?, bucket? as u16))
}

pub(super) fn part(
    table: &Table<'_, '_>,
    node: Option<NodeRef>,
    to: Option<NodeRef>,
    findings: &mut Findings,
) -> Option<Action> {
    let (network, way) = (network(table, findings), way(table, findings));
    if node.is_some() && node == to {
        let help = "name another node in `to`";
        let message = "a node is not parted from itself";
        findings.push(Finding::new(Code::NoEffect, table.span_of("to"), message, help));
    }
    Some(Action::Part(node?, to?, network?, way))
}
