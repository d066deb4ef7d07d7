//! `[hosts]`.

use std::time::Duration;

use evenkeel_control::reading::{Finding, Findings, Need, Table};
use evenkeel_control::{Bad, Code};

use super::{count, span};
use crate::language::limits;
use crate::scenario::{Hosts, Keepalive, Tcp};

const TCPS: [(&str, Tcp); 2] = [("smoltcp", Tcp::Smoltcp), ("flyweight", Tcp::Flyweight)];
/// Linux's, unless something else is said.
const INTERVAL: Duration = Duration::from_secs(75);
const PROBES: u32 = 9;

pub(super) fn hosts(table: Option<Table<'_, '_>>, findings: &mut Findings) -> Hosts {
    let mut hosts = Hosts::default();
    let Some(table) = table else { return hosts };
    let mut tcp = |key| {
        table
            .choice(key, Need::Optional, &TCPS, findings)
            .map_or(Tcp::Smoltcp, |t| t.value)
    };
    (hosts.clients, hosts.servers) = (tcp("clients"), tcp("servers"));
    hosts.sampled = count(&table, limits::SAMPLED, findings);
    let mut time = |key| {
        let field = span(&table, key, Need::Optional, findings)?;
        if field.value.is_zero() {
            let bad = Bad::new(
                Code::OutOfRange,
                format!("`{key}` is no time"),
                "write \"1s\" or another time",
            );
            findings.push(Finding::new(bad.code, field.span, bad.message, bad.help));
        }
        Some(field.value)
    };
    let (keepalive, interval) = (time("keepalive"), time("keepalive_interval"));
    let probes = count(&table, limits::KEEPALIVE_PROBES, findings);
    hosts.keepalive = keepalive.map(|time| Keepalive {
        time,
        interval: interval.unwrap_or(INTERVAL),
        probes: probes.unwrap_or(PROBES) as u8,
    });
    let mut in_vain = |key: &'static str, message: &str, help: &str| {
        if table.has(key) {
            findings.push(Finding::new(Code::NoEffect, table.span_of(key), message, help));
        }
    };
    if hosts.clients == Tcp::Smoltcp && hosts.servers == Tcp::Smoltcp {
        let help = "write `clients = \"flyweight\"` or `servers = \"flyweight\"`";
        in_vain("sampled", "all flows have smoltcp's TCP as it is", help);
    }
    if hosts.servers == Tcp::Smoltcp {
        in_vain(
            "keepalive",
            "smoltcp's servers do not ask silent clients",
            "write `servers = \"flyweight\"`",
        );
    }
    if !table.has("keepalive") {
        let help = "add `keepalive = \"10s\"`: the time after which a silent client is asked";
        in_vain("keepalive_interval", "no client is asked", help);
        in_vain("keepalive_probes", "no client is asked", help);
    }
    hosts
}
