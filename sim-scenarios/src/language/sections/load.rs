//! `[[load]]`.

use std::collections::BTreeSet;
use std::num::{IntErrorKind, ParseIntError};
use std::time::Duration;

use evenkeel_control::reading::{Finding, Findings, Need, Span, Table, shown};
use evenkeel_control::{Bad, Code};
use evenkeel_core::tuple::L4Proto;

use super::{Names, Places, count, empty_list, span};
use crate::language::{limits, schema, value};
use crate::plan::CLIENT_COUNT;
use crate::scenario::{Arrival, FLOW_COUNT_MAX, Load, LoadEnd, PlannedFlow, Service};

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
    let (tables, whole) = root.tables("load", &schema::LOAD, schema::ALL, findings);
    let mut names = Names {
        any_refused: !whole,
        ..Names::default()
    };
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
        let planned = planned(table, service_names, findings);
        let latest = planned.as_ref().map(|(_, place)| place.clone());
        let planned = planned.map(|(flows, _)| flows);
        let arrival = match (flows, rate) {
            _ if table.has("plan") => planned.map(Arrival::Planned),
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
        let give_up = table
            .parsed("give_up", Need::Optional, patience, findings)
            .map(|f| f.value);
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
        let (name, arrival) = match (name, arrival) {
            (Some(name), Some(arrival)) => (name, arrival),
            (name, _) => {
                names.refuse(name.map(|n| n.value));
                continue;
            }
        };
        names.add(name.value.clone(), name.span, findings);
        places
            .loads
            .push(latest.unwrap_or_else(|| table.span_of("start")));
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

/// How long a client waits: one that waits for nothing has no connection that could come about.
fn patience(text: &str) -> Result<Duration, Bad> {
    let span = value::span(text)?;
    if span.is_zero() {
        let message = format!("\"{}\" is no time to wait for an answer", shown(text));
        return Err(Bad::new(
            Code::OutOfRange,
            message,
            "write more than \"0s\", such as \"30s\"",
        ));
    }
    Ok(span)
}

/// The flows of a plan, one a line: its number in the load, the service, the client and the start; with the place of the
/// one that starts last.
fn planned(
    table: &Table<'_, '_>,
    service_names: &Names,
    findings: &mut Findings,
) -> Option<(Vec<PlannedFlow>, Span)> {
    let text = table.string("plan", Need::Optional, findings)?;
    for key in ["flows", "rate", "start"] {
        if table.has(key) {
            let message = format!("`{key}` beside `plan`");
            let help = "leave it out: a plan has a line for each flow";
            findings.push(Finding::new(Code::NoEffect, table.span_of(key), message, help));
        }
    }
    let mut flows = Vec::new();
    let mut numbers = BTreeSet::new();
    // Without escapes what stands there is what is written, and ends with the three quotes or the one.
    let quotes = 1 + 2 * usize::from(text.value.contains('\n'));
    let begin = text.span.end.checked_sub(quotes + text.value.len());
    let begin = begin.filter(|b| *b >= text.span.start);
    let mut at = 0;
    let mut latest = (Duration::ZERO, text.span.clone());
    for line in text.value.split('\n') {
        let place = match begin {
            Some(begin) => begin + at..begin + at + line.len(),
            None => text.span.clone(),
        };
        at += line.len() + 1;
        if line.trim().is_empty() {
            continue;
        }
        if flows.len() as u64 >= FLOW_COUNT_MAX {
            let message = format!("more than {FLOW_COUNT_MAX} flows");
            findings.push(Finding::new(
                Code::TooMany,
                place,
                message,
                "leave the others out",
            ));
            return None;
        }
        match planned_flow(line, service_names) {
            Ok(flow) if numbers.insert(flow.number) => {
                if flow.start > latest.0 {
                    latest = (flow.start, place);
                }
                flows.push(flow);
            }
            Ok(flow) => {
                let message = format!("flow {} stands there twice", flow.number);
                let help = "its number is what its draws are keyed by: give it another one";
                findings.push(Finding::new(Code::Duplicate, place, message, help));
                return None;
            }
            Err(bad) => {
                findings.push(Finding::new(bad.code, place, bad.message, bad.help));
                return None;
            }
        }
    }
    if flows.is_empty() {
        let help = "write a line for each flow, such as \"0 web 1 2500ms\", or leave the load out";
        findings.push(Finding::new(
            Code::BadValue,
            text.span,
            "a plan without flows",
            help,
        ));
        return None;
    }
    Some((flows, latest.1))
}

/// `0 web 1 2500ms`.
fn planned_flow(line: &str, service_names: &Names) -> Result<PlannedFlow, Bad> {
    let bad = |what: &str| {
        Bad::new(
            Code::BadValue,
            format!("\"{}\" is not a flow of a plan: {what}", shown(line)),
            format!(
                "write its number, the service, the client (0 to {}) and the start: \"0 web 1 2500ms\"",
                CLIENT_COUNT - 1
            ),
        )
    };
    let mut words = line.split_ascii_whitespace();
    let mut word = |what| words.next().ok_or_else(|| bad(what));
    let number = word("it is empty")?.parse();
    let number = number.map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => Bad::new(
            Code::OutOfRange,
            format!(
                "\"{}\" is not a flow of a plan: its number is too large",
                shown(line)
            ),
            format!("flows are numbered from 0 to {}", u32::MAX),
        ),
        _ => bad("its first word is no number"),
    })?;
    let service = service_names.find(word("it has no service")?, "service")?;
    let client = word("it has no client")?.parse().ok();
    let client = client.filter(|c: &u8| u32::from(*c) < CLIENT_COUNT);
    let client = client.ok_or_else(|| bad("there is no such client"))?;
    let start = value::span(word("it has no start")?)?;
    if words.next().is_some() {
        return Err(bad("it has more than four words"));
    }
    Ok(PlannedFlow {
        number,
        service,
        client,
        start,
    })
}
