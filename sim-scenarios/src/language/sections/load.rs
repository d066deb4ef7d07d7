//! `[[load]]`.

use std::time::Duration;

use evenkeel_control::Code;
use evenkeel_control::reading::{Finding, Findings, Need, Table};
use evenkeel_core::tuple::L4Proto;

use super::{Names, Places, count, empty_list, span};
use crate::language::{limits, schema, value};
use crate::scenario::{Arrival, Load, LoadEnd, Service};

const ENDS: [(&str, LoadEnd); 4] = [
    ("close", LoadEnd::Close),
    ("reset", LoadEnd::Reset),
    ("stay", LoadEnd::Stay),
    ("vanish", LoadEnd::Vanish),
];

pub(super) fn loads(
    root: &Table<'_, '_>,
    services: &[Service],
    service_names: &Names,
    places: &mut Places,
    findings: &mut Findings,
) -> (Vec<Load>, Names) {
    let (tables, _) = root.tables("load", &schema::LOAD, schema::ALL, findings);
    let mut names = Names::default();
    let mut loads = Vec::new();
    for table in &tables {
        let name = table.parsed("name", Need::Required, value::name, findings);
        let (used, all) = table.list("services", |n| service_names.find(n, "service"), findings);
        if used.is_empty() && all && table.has("services") {
            let help = "name services, or leave `services` out: then it is all of them";
            empty_list(table, "services", help, findings);
        }
        let used: Vec<usize> = match used.is_empty() {
            true => (0..services.len()).collect(),
            false => used.into_iter().map(|u| u.value).collect(),
        };
        let flows = count(table, limits::FLOWS, findings);
        let rate = count(table, limits::RATE, findings);
        let start = table.parsed("start", Need::Optional, value::drawn, findings);
        let start = start.map_or(Duration::ZERO..=Duration::from_secs(1), |s| s.value);
        let arrival = match (flows, rate) {
            (Some(flows), None) => Some(Arrival::Flows(flows, start)),
            (None, Some(rate)) => Some(Arrival::Rate(rate, *start.start())),
            (Some(_), Some(_)) => {
                let help = "`flows` are so many in all, `rate` are so many a second: keep one of them";
                findings.push(Finding::new(
                    Code::NoEffect,
                    table.span_of("rate"),
                    "`flows` and `rate` in one load",
                    help,
                ));
                None
            }
            (None, None) => {
                if table.span_of("flows") == table.span && table.span_of("rate") == table.span {
                    let help = "add `flows = 1000` (in all) or `rate = 200` (a second)";
                    findings.push(Finding::new(
                        Code::MissingKey,
                        table.span.clone(),
                        "neither `flows` nor `rate` in [[load]]",
                        help,
                    ));
                }
                None
            }
        };
        let requests = count(table, limits::REQUESTS, findings);
        let request_bytes = count(table, limits::REQUEST_BYTES, findings).unwrap_or(200);
        let reply_bytes = count(table, limits::REPLY_BYTES, findings).unwrap_or(1_000);
        let every = table.parsed("every", Need::Optional, value::drawn, findings);
        let until = span(table, "until", Need::Optional, findings).map(|f| f.value);
        let end = table.choice("end", Need::Optional, &ENDS, findings);
        let give_up = span(table, "give_up", Need::Optional, findings).map(|f| f.value);
        let udp = used
            .iter()
            .filter_map(|&s| services.get(s))
            .any(|s| s.proto == L4Proto::Udp);
        for (key, bytes) in [("request_bytes", request_bytes), ("reply_bytes", reply_bytes)] {
            if udp && !(limits::DATAGRAM_MIN..=limits::DATAGRAM_MAX).contains(&bytes) {
                let message = format!("{bytes} bytes in a datagram");
                let help = format!(
                    "write `{key}` from {} to {}: one datagram",
                    limits::DATAGRAM_MIN,
                    limits::DATAGRAM_MAX
                );
                findings.push(Finding::new(Code::OutOfRange, table.span_of(key), message, help));
            }
        }
        let (Some(name), Some(arrival)) = (name, arrival) else {
            continue;
        };
        names.add(name.value.clone(), name.span, findings);
        places.loads.push(table.span_of("start"));
        loads.push(Load {
            name: name.value,
            services: used,
            arrival,
            requests,
            request_bytes,
            reply_bytes,
            every: every.map_or(Duration::from_secs(1)..=Duration::from_secs(1), |e| e.value),
            end: end.map_or(LoadEnd::Close, |e| e.value),
            until,
            give_up: give_up.unwrap_or(Duration::from_secs(30)),
        });
    }
    (loads, names)
}
