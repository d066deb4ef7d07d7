//! Faults of what nodes serve by: another config in the midst, the verdicts of health checks.

use evenkeel_control::Code;
use evenkeel_control::reading::{Finding, Findings, Need, Span, Table};

use super::node_of;
use crate::language::limits;
use crate::language::sections::{Names, SWITCH, count};
use crate::scenario::{Action, Change, NodeRef, ServerRef};

/// The index of the service that a fault is about.
fn service(table: &Table<'_, '_>, services: &Names, findings: &mut Findings) -> Option<usize> {
    let service = table.parsed(
        "service",
        Need::Required,
        |n| services.find(n, "service"),
        findings,
    );
    // Of one that is refused nothing is known.
    service.map(|s| s.value).filter(|&s| s != Names::REFUSED)
}

pub(super) fn config(
    table: &Table<'_, '_>,
    services: &Names,
    used: &mut Vec<(NodeRef, Span)>,
    findings: &mut Findings,
) -> Option<Action> {
    let node = node_of(table, "node", Need::Optional, used, findings).map(|n| n.value);
    let service = service(table, services, findings);
    let servers = count(table, limits::PUSHED_SERVERS, findings);
    let server = count(table, limits::SERVER, findings);
    let weight = count(table, limits::WEIGHT, findings);
    let served = table.choice("served", Need::Optional, &SWITCH, findings);
    let (of_server, of_service) = (
        table.has("server") || table.has("weight"),
        table.has("servers") || table.has("served"),
    );
    let both = table.has("servers") && table.has("served");
    let half = of_server && !(table.has("server") && table.has("weight"));
    if both || half || of_server == of_service {
        let help = "write one of `servers = 4`, `served = \"off\"`, or `server = 1` with `weight = 0`";
        let message = "a change of a config changes one thing";
        findings.push(Finding::new(Code::BadValue, table.span.clone(), message, help));
        return None;
    }
    let service = service?;
    let change = match (servers, served) {
        (Some(n), _) => Change::Servers(service, n),
        (None, Some(served)) => Change::Served(service, served.value),
        (None, None) => {
            let place = ServerRef {
                service,
                server: server?,
            };
            Change::Weight(place, weight? as u16)
        }
    };
    Some(Action::Config(node, change))
}

pub(super) fn unhealthy(
    table: &Table<'_, '_>,
    services: &Names,
    used: &mut Vec<(NodeRef, Span)>,
    findings: &mut Findings,
) -> Option<Action> {
    let node = node_of(table, "node", Need::Optional, used, findings).map(|n| n.value);
    let service = service(table, services, findings);
    let server = count(table, limits::SERVER, findings);
    if !table.has("server") {
        findings.push(Finding::new(
            Code::MissingKey,
            table.span.clone(),
            "`server` is missing in [[fault]]",
            "add `server = 1`, its number in the service",
        ));
    }
    let place = ServerRef {
        service: service?,
        server: server?,
    };
    Some(Action::Unhealthy(node, place))
}
