//! What cannot be, though each part of it could.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_control::Code;
use evenkeel_control::reading::{Finding, Findings};

use super::sections::Places;
use super::value::{show_drawn, show_span};
use crate::scenario::{Arrival, FLOW_COUNT_MAX, NodeRef, Scenario};

pub(crate) fn scenario(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    times(scenario, places, findings);
    nodes(scenario, places, findings);
    flows(scenario, places, findings);
    services(scenario, places, findings);
    if scenario.expects.is_empty() {
        let help = "add an `[[expect]]`, such as `that = \"broken == 0\"`";
        findings
            .push(Finding::new(Code::MissingKey, 0..0, "nothing is expected", help).label("in this file"));
    }
}

/// Nothing begins after the end.
fn times(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    let end = scenario.duration;
    if scenario.quiet >= end {
        let message = format!("`quiet` takes all of the {}", show_span(end));
        let help = "it is the part of `duration` at the end in which nothing is sent: make it shorter";
        findings.push(Finding::new(
            Code::OutOfRange,
            places.quiet.clone(),
            message,
            help,
        ));
    }
    let mut latest: Vec<Duration> = Vec::new();
    for (fault, place) in scenario.faults.iter().zip(&places.faults) {
        let before = fault
            .after
            .and_then(|a| latest.get(a))
            .copied()
            .unwrap_or_default();
        let begins = before.saturating_add(*fault.at.end());
        latest.push(begins);
        if begins >= end {
            let at = show_drawn(&fault.at);
            let message = match fault.after {
                Some(a) => {
                    let name = scenario.faults.get(a).map_or("", |f| f.name.as_str());
                    format!(
                        "{at} after \"{name}\" may be as late as {}, and the run ends at {}",
                        show_span(begins),
                        show_span(end)
                    )
                }
                None => format!("{at} is beyond the end of the run, {}", show_span(end)),
            };
            let help = "make `duration` longer, or let it happen earlier";
            findings
                .push(Finding::new(Code::OutOfRange, place.1.clone(), message, help).label("never happens"));
        } else if let Some(lasts) = &fault.lasts
            && begins.saturating_add(*lasts.end()) >= end
        {
            let message = format!(
                "it would end at {}, and the run ends at {}",
                show_span(begins.saturating_add(*lasts.end())),
                show_span(end)
            );
            let help = "make `duration` longer or `for` shorter; without `for` it stays to the end";
            findings.push(Finding::new(Code::OutOfRange, place.2.clone(), message, help).label("never ends"));
        }
    }
    for (load, place) in scenario.loads.iter().zip(&places.loads) {
        let start = match &load.arrival {
            Arrival::Flows(_, start) => *start.end(),
            Arrival::Rate(_, start) => *start,
        };
        let until = load.until.unwrap_or(end.saturating_sub(scenario.quiet));
        if start >= until {
            let message = format!(
                "\"{}\" may start at {} and ends at {}",
                load.name,
                show_span(start),
                show_span(until)
            );
            let help = "let `start` be before `until`, or before the quiet at the end";
            findings.push(Finding::new(Code::OutOfRange, place.clone(), message, help));
        }
    }
}

fn nodes(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    let nodes = scenario.cluster.nodes.len();
    for (node, span) in places.faults.iter().flat_map(|f| &f.3) {
        match node {
            NodeRef::Id(id) if usize::from(*id) > nodes => {
                let message = format!("there is no node {id}");
                let help = format!("the cluster has nodes 1 to {nodes}");
                findings.push(Finding::new(Code::OutOfRange, span.clone(), message, help));
            }
            NodeRef::Backup if nodes < 2 => {
                let help = "write `nodes = 2` or more in [cluster]";
                findings.push(Finding::new(
                    Code::BadValue,
                    span.clone(),
                    "a single node has no backup",
                    help,
                ));
            }
            _ => {}
        }
    }
}

fn flows(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    let mut all = 0u64;
    for (load, place) in scenario.loads.iter().zip(&places.loads) {
        all += match &load.arrival {
            Arrival::Flows(n, _) => u64::from(*n),
            Arrival::Rate(rate, start) => {
                let until = load.until.unwrap_or(scenario.duration).saturating_sub(*start);
                (until.as_nanos() as u64 / 1_000_000).saturating_mul(u64::from(*rate)) / 1_000
            }
        };
        if all > FLOW_COUNT_MAX {
            let message = format!("{all} flows in all");
            let help = format!("{FLOW_COUNT_MAX} at most: fewer flows, a lower rate or a shorter time");
            findings.push(Finding::new(Code::TooMany, place.clone(), message, help));
            return;
        }
    }
}

fn services(scenario: &Scenario, places: &Places, findings: &mut Findings) {
    let mut seen = BTreeMap::new();
    for (service, place) in scenario.services.iter().zip(&places.services) {
        let key = (service.vip, service.proto == evenkeel_core::tuple::L4Proto::Udp);
        if let Some(first) = seen.insert(key, place) {
            let message = format!("two services at {}", service.vip);
            let finding = Finding::new(
                Code::Overlap,
                place.clone(),
                message,
                "give one of them another address or port",
            );
            findings.push(
                finding
                    .label("the second one")
                    .other(first.clone(), "the first one"),
            );
        }
        if !crate::plan::is_vip(service.vip.ip()) {
            let message = format!("{} cannot be a VIP of a scenario", service.vip.ip());
            let help =
                "take one of 192.0.2.1 to .98 or of 2001:db8:2::1 to ::ff: the rest of the network is given";
            findings.push(Finding::new(Code::AddressConflict, place.clone(), message, help));
        }
    }
}
