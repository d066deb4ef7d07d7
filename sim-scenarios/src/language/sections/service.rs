//! `[[service]]`.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_control::reading::{Finding, Findings, Need, Table, shown};
use evenkeel_control::{Bad, Code, endpoint, replicate};
use evenkeel_core::proto::TIMEOUT_MAX;
use evenkeel_core::tuple::L4Proto;

use super::{Names, Places, SWITCH, count, span};
use crate::language::{limits, schema, value};
use crate::scenario::{Replicate, Service};

const PROTOCOLS: [(&str, L4Proto); 2] = [("tcp", L4Proto::Tcp), ("udp", L4Proto::Udp)];

pub(super) fn services(
    root: &Table<'_, '_>,
    places: &mut Places,
    findings: &mut Findings,
) -> (Vec<Service>, Names) {
    let (tables, whole) = root.tables("service", &schema::SERVICE, schema::ALL, findings);
    if tables.is_empty() && whole {
        let help = "add a `[[service]]` with `name`, `vip` and `servers`";
        findings.push(Finding::new(Code::NoService, 0..0, "there is no service", help).label("in this file"));
    }
    places.services_refused = !whole;
    let mut names = Names {
        any_refused: !whole,
        ..Names::default()
    };
    let mut services = Vec::new();
    for table in &tables {
        let name = table.parsed("name", Need::Required, value::name, findings);
        let vip = table.parsed("vip", Need::Required, vip, findings);
        let proto = table.choice("protocol", Need::Optional, &PROTOCOLS, findings);
        let servers = count(table, limits::SERVERS, findings).unwrap_or(1);
        let served = table.choice("served", Need::Optional, &SWITCH, findings);
        let replicate = table.parsed("replicate", Need::Optional, replicate, findings);
        let established = established_timeout(table, proto.as_ref().map(|p| p.value), findings);
        let (name, vip) = match (name, vip) {
            (Some(name), Some(vip)) => (name, vip),
            (name, _) => {
                names.refuse(name.map(|n| n.value));
                places.services_refused = true;
                continue;
            }
        };
        names.add(name.value.clone(), name.span, findings);
        places.services.push(vip.span);
        services.push(Service {
            name: name.value,
            vip: vip.value,
            proto: proto.map_or(L4Proto::Tcp, |p| p.value),
            servers,
            served: served.is_none_or(|s| s.value),
            replicate: replicate.map_or(Replicate::SynAck, |r| r.value),
            established,
        });
    }
    (services, names)
}

/// An address and a port of a service.
fn vip(text: &str) -> Result<SocketAddr, Bad> {
    let vip = endpoint(text)?;
    if vip.port() == 0 {
        let message = format!("port 0 in \"{}\"", shown(text));
        return Err(Bad::new(Code::PortZero, message, "write a port from 1 to 65535"));
    }
    Ok(vip)
}

/// The timeout of a service's established conns; UDP has no such state.
fn established_timeout(
    table: &Table<'_, '_>,
    proto: Option<L4Proto>,
    findings: &mut Findings,
) -> Option<Duration> {
    const KEY: &str = "established_timeout";
    let written = span(table, KEY, Need::Optional, findings)?;
    let finding = if proto == Some(L4Proto::Udp) {
        let help = "leave it out: UDP has no established state";
        Finding::new(
            Code::NoEffect,
            written.span,
            format!("`{KEY}` of a UDP service"),
            help,
        )
    } else if written.value.is_zero() || written.value > TIMEOUT_MAX {
        let message = format!("`{KEY}` cannot be \"{}\"", value::show_span(written.value));
        let help = format!(
            "write more than \"0s\" and \"{}\" at most",
            value::show_span(TIMEOUT_MAX)
        );
        Finding::new(Code::OutOfRange, written.span, message, help)
    } else {
        return Some(written.value);
    };
    findings.push(finding);
    None
}
