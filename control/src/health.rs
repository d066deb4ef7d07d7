//! The section `[service.health]`: how the servers of a service are asked whether they live.

use std::time::Duration;

use crate::problem::{Code, Finding, Findings, shown};
use crate::read::{Field, Key, Need, Schema, Table, list};
use crate::value::{self, Bad};

/// How the servers of a service are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// What is done.
    pub check: HealthCheck,
    /// Time from the start of one check of a server to that of the next one.
    pub interval: Duration,
    /// A check that has not succeeded by then has failed; at most `interval`.
    pub timeout: Duration,
    /// Successes in a row, 1 to 100, that bring back a server that was down.
    pub rise: u8,
    /// Failures in a row, 1 to 100, that take away a server that was up.
    pub fall: u8,
    /// The port that is asked, never 0; `None`: the server's own.
    pub port: Option<u16>,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// Opens a connection, and resets it.
    Tcp,
    /// Asks for a path over HTTP/1.1.
    Http {
        /// The path, from its slash on, and a query: characters of RFC 3986, at most 1,024.
        path: String,
        /// The Host header: letters, digits and `.-_:[]`, at most 255; `None`: address and port of the server.
        host: Option<String>,
        /// Statuses of a server that lives, first and last, of 100 to 599.
        status: (u16, u16),
    },
    /// Sends a datagram and awaits another one.
    Udp {
        /// What is sent, 1 to 1,024 bytes.
        send: Vec<u8>,
        /// What the answer begins with, 1 to 1,024 bytes; `None`: any answer will do.
        expect: Option<Vec<u8>>,
    },
    /// Sends an echo request of ICMP, or of ICMPv6, and awaits its reply.
    Icmp,
}

const INTERVAL: Duration = Duration::from_secs(2);
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const RISE: u8 = 2;
const FALL: u8 = 3;
/// Most results in a row.
const STREAK_MAX: u32 = 100;
const STATUS: (u16, u16) = (200, 399);

const PATH_LEN_MAX: usize = 1024;
const HOST_LEN_MAX: usize = 255;
/// Most bytes of a datagram and of what is expected of its answer: no path cuts them into fragments.
const PAYLOAD_LEN_MAX: usize = 1024;

pub(crate) static HEALTH: Schema = Schema {
    title: "[service.health]",
    keys: &[
        Key("type", "\"tcp\""),
        Key("interval", "\"2s\""),
        Key("timeout", "\"1s\""),
        Key("rise", "2"),
        Key("fall", "3"),
        Key("port", "8081"),
        Key("path", "\"/\""),
        Key("host", "\"www.example.com\""),
        Key("status", "\"200-399\""),
        Key("send", "\"ping\""),
        Key("expect", "\"pong\""),
    ],
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
    Udp,
    Icmp,
}

impl Kind {
    const ALL: [(&'static str, Kind); 4] = [
        ("tcp", Kind::Tcp),
        ("http", Kind::Http),
        ("udp", Kind::Udp),
        ("icmp", Kind::Icmp),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|k| k.1 == self).map_or("", |k| k.0)
    }

    /// Keys that this kind of check has beside those of all.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::Tcp => &["port"],
            Kind::Http => &["port", "path", "host", "status"],
            Kind::Udp => &["port", "send", "expect"],
            Kind::Icmp => &[],
        }
    }
}

/// Reads a `[service.health]`. `None`: findings say why.
pub(crate) fn read(table: &Table<'_, '_>, findings: &mut Findings) -> Option<HealthConfig> {
    let kind = table.choice("type", Need::Required, &Kind::ALL, findings);
    let kind = kind.map(|k| k.value);
    let interval = table.duration_in("interval", INTERVAL_MIN..=INTERVAL_MAX, findings);
    let timeout = table.duration_in("timeout", TIMEOUT_MIN..=INTERVAL_MAX, findings);
    let interval_unread = interval.is_none() && table.has("interval");
    let interval = interval.map_or(INTERVAL, |i| i.value);
    if let Some(timeout) = timeout
        .as_ref()
        .filter(|t| t.value > interval && !interval_unread)
    {
        too_long(table, timeout, interval, findings);
    }
    let mut count = |name, default| {
        let n = table.integer(name, 1..=STREAK_MAX, findings);
        n.and_then(|n| u8::try_from(n.value).ok()).unwrap_or(default)
    };
    let (rise, fall) = (count("rise", RISE), count("fall", FALL));
    let port = table.integer("port", 1..=u32::from(u16::MAX), findings);
    let port = port.and_then(|p| u16::try_from(p.value).ok());
    let path = table.parsed("path", Need::Optional, path, findings);
    let host = table.parsed("host", Need::Optional, host, findings);
    let status = table.parsed("status", Need::Optional, status, findings);
    let need = if kind == Some(Kind::Udp) {
        Need::Required
    } else {
        Need::Optional
    };
    let send = table.parsed("send", need, payload, findings);
    let expect = table.parsed("expect", Need::Optional, payload, findings);
    let kind = kind?;
    no_effect(table, kind, findings);
    let check = match kind {
        Kind::Tcp => HealthCheck::Tcp,
        Kind::Http => HealthCheck::Http {
            path: path.map_or_else(|| "/".to_owned(), |p| p.value),
            host: host.map(|h| h.value),
            status: status.map_or(STATUS, |s| s.value),
        },
        Kind::Udp => HealthCheck::Udp {
            send: send?.value,
            expect: expect.map(|e| e.value),
        },
        Kind::Icmp => HealthCheck::Icmp,
    };
    Some(HealthConfig {
        check,
        interval,
        // A default is never what is wrong.
        timeout: timeout.map_or(TIMEOUT.min(interval), |t| t.value),
        rise,
        fall,
        port,
    })
}

fn too_long(table: &Table<'_, '_>, timeout: &Field<Duration>, interval: Duration, findings: &mut Findings) {
    let interval = value::show_duration(interval);
    let message = format!(
        "`timeout` is {}, longer than the interval of {interval}",
        value::show_duration(timeout.value)
    );
    let help = format!(
        "a check ends before the next one begins: write \"{interval}\" or less, or a longer `interval`"
    );
    let mut finding = Finding::new(Code::OutOfRange, timeout.span.clone(), message, help).label("too long");
    if table.has("interval") {
        finding = finding.other(table.span_of("interval"), "the interval");
    }
    findings.push(finding);
}

/// Keys of other kinds of checks.
fn no_effect(table: &Table<'_, '_>, kind: Kind, findings: &mut Findings) {
    let all = Kind::ALL.iter().flat_map(|k| k.1.keys());
    let mut told = Vec::new();
    for &key in all {
        if kind.keys().contains(&key) || told.contains(&key) || !table.has(key) {
            continue;
        }
        told.push(key);
        let of = Kind::ALL.iter().filter(|k| k.1.keys().contains(&key));
        let of = list(of.map(|k| format!("`type = \"{}\"`", k.0)), "or");
        let message = format!("a check of type \"{}\" has no `{key}`", kind.name());
        let help = format!("remove it, or write {of}");
        findings.push(Finding::new(Code::NoEffect, table.span_of(key), message, help).label("no effect"));
    }
}

fn path(text: &str) -> Result<String, Bad> {
    // A path and a query of RFC 3986: what is not reserved, sub-delims, and what may stand between them.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&b);
    if text.starts_with('/') && text.bytes().all(plain) && text.len() <= PATH_LEN_MAX {
        return Ok(text.to_owned());
    }
    Err(Bad::new(
        Code::BadValue,
        format!("\"{}\" is not a path of HTTP", shown(text)),
        format!(
            "a slash and what URLs are made of, at most {PATH_LEN_MAX} characters: \"/healthz?full=1\"; others are written \
             with `%`"
        ),
    ))
}

fn host(text: &str) -> Result<String, Bad> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    if !text.is_empty() && text.len() <= HOST_LEN_MAX && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Bad::new(
        Code::BadValue,
        format!("\"{}\" is not a host", shown(text)),
        format!(
            "a name or an address, at most {HOST_LEN_MAX} bytes, with a port if it has one: \"www.example.com\""
        ),
    ))
}

/// Reads `"204"` or `"200-399"`.
fn status(text: &str) -> Result<(u16, u16), Bad> {
    let one = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        let code = text.parse::<u16>().ok().filter(|_| digits);
        code.filter(|c| (100..=599).contains(c))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (one(first), one(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(Bad::new(
            Code::BadValue,
            format!("\"{}\" is no range of HTTP statuses", shown(text)),
            "write one status or the first and the last one, of 100 to 599: \"204\", \"200-399\"",
        )),
    }
}

/// Reads the bytes of a datagram: a text, or `hex:` and pairs of hexadecimal digits with colons between them.
fn payload(text: &str) -> Result<Vec<u8>, Bad> {
    let bytes = match text.strip_prefix("hex:") {
        Some(pairs) => value::hex_pairs(pairs),
        None => Some(text.as_bytes().to_vec()),
    };
    let well = bytes.filter(|b| !b.is_empty() && b.len() <= PAYLOAD_LEN_MAX);
    well.ok_or_else(|| {
        Bad::new(
            Code::BadValue,
            format!("\"{}\" cannot be a datagram's bytes", shown(text)),
            format!(
                "write 1 to {PAYLOAD_LEN_MAX} bytes: a text, or \"hex:\" and pairs of hexadecimal digits with colons, such \
                 as \"hex:00:ff\""
            ),
        )
    })
}
