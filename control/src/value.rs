//! Values that a config writes as strings: durations, addresses, keys.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evenkeel_core::hash::MICROSOFT_KEY;
use evenkeel_core::service::{DEFERRAL_LIMIT_MAX, DEFERRAL_NODES_MAX, Deferral, OnLimit, Replicate};
use evenkeel_core::wire::MacAddr;

use crate::problem::{Code, shown};
use crate::read::nearest;

/// Why a string is not the value wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The kind.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl Bad {
    /// Plain construction.
    pub fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        Bad {
            code,
            message: message.into(),
            help: help.into(),
        }
    }
}

/// Units of durations, in milliseconds, largest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// What people write for [`UNITS`].
const UNIT_NAMES: [(&str, &[&str]); 5] = [
    ("d", &["day", "days"]),
    ("h", &["hr", "hrs", "hour", "hours"]),
    ("m", &["min", "mins", "minute", "minutes"]),
    ("s", &["sec", "secs", "second", "seconds"]),
    ("ms", &["msec", "msecs", "millis", "millisecond", "milliseconds"]),
];

/// Reads a duration: a whole number and one of the units `ms`, `s`, `m`, `h`, `d`, such as `"90s"`.
pub fn duration(text: &str) -> Result<Duration, Bad> {
    const FORM: &str =
        "a duration is a whole number and a unit, one of ms, s, m, h, d: \"500ms\", \"90s\", \"15m\"";
    let bad = |help: String| {
        Bad::new(
            Code::BadDuration,
            format!("\"{}\" is not a duration", shown(text)),
            help,
        )
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(bad(FORM.into()));
    }
    let Ok(n) = number.parse::<u64>() else {
        return Err(Bad::new(
            Code::OutOfRange,
            format!("\"{}\" is too long a duration", shown(text)),
            FORM,
        ));
    };
    if unit.is_empty() {
        return Err(Bad::new(
            Code::BadDuration,
            format!("\"{}\" has no unit", shown(text)),
            format!("write \"{n}s\" if seconds are meant; units are ms, s, m, h, d"),
        ));
    }
    if let Some(&(_, ms)) = UNITS.iter().find(|(name, _)| *name == unit) {
        return match n.checked_mul(ms) {
            Some(ms) => Ok(Duration::from_millis(ms)),
            None => Err(Bad::new(
                Code::OutOfRange,
                format!("\"{}\" is too long a duration", shown(text)),
                FORM,
            )),
        };
    }
    let asked = unit.trim().to_ascii_lowercase();
    let meant = UNIT_NAMES
        .iter()
        .find(|(name, names)| *name == asked || names.contains(&asked.as_str()));
    Err(match meant {
        Some((name, _)) => bad(format!("write \"{n}{name}\"")),
        None => bad(FORM.into()),
    })
}

/// How `replicate` is written.
const REPLICATE_FORM: &str = "write \"off\", \"established\", \"synack\", or \"deferred(NODES, LIMIT, open)\", as in \"deferred(1, 5ms, open)\"; \"drop\" \
     instead of \"open\" drops what waited too long";

/// Reads when other nodes are told of a service's sessions: `"off"`, `"established"`, `"synack"`, `"deferred"`, or with all or some of
/// what it has otherwise by default `"deferred(1, 5ms, open)"`.
pub fn replicate(text: &str) -> Result<Replicate, Bad> {
    let bad = |help: String| {
        let message = format!("`replicate` cannot be \"{}\"", shown(text));
        Bad::new(Code::BadValue, message, help)
    };
    let (name, rest) = match text.split_once('(') {
        Some((name, rest)) => (name.trim(), Some(rest)),
        None => (text.trim(), None),
    };
    let plain = match name {
        "off" => Replicate::Off,
        "established" => Replicate::Established,
        "synack" => Replicate::SynAck,
        "deferred" => Replicate::Deferred(Deferral::default()),
        _ => {
            let names = ["off", "established", "synack", "deferred"];
            return Err(bad(match nearest(name, names.into_iter()) {
                Some(meant) => format!("did you mean \"{meant}\"? {REPLICATE_FORM}"),
                None => REPLICATE_FORM.into(),
            }));
        }
    };
    let Some(rest) = rest else { return Ok(plain) };
    let Some(deferral) = plain.deferral() else {
        return Err(bad(format!(
            "only \"deferred\" has more to say: write \"{name}\""
        )));
    };
    let Some(inside) = rest.trim_end().strip_suffix(')') else {
        return Err(bad(format!("a bracket is not closed: {REPLICATE_FORM}")));
    };
    let parts: Vec<&str> = inside.split(',').map(str::trim).collect();
    let [nodes, more @ ..] = &parts[..] else {
        return Err(bad(REPLICATE_FORM.into()));
    };
    if more.len() > 2 {
        return Err(bad(REPLICATE_FORM.into()));
    }
    let nodes = nodes
        .parse()
        .ok()
        .filter(|n| (1..=DEFERRAL_NODES_MAX).contains(n));
    let Some(nodes) = nodes else {
        return Err(bad(format!(
            "it waits for 1 to {DEFERRAL_NODES_MAX} other nodes: {REPLICATE_FORM}"
        )));
    };
    let limit = match more.first() {
        Some(limit) => micros(limit),
        None => Some(deferral.limit()),
    };
    let on_limit = match more.get(1) {
        None => Some(deferral.on_limit()),
        Some(&"open") => Some(OnLimit::Open),
        Some(&"drop") => Some(OnLimit::Drop),
        Some(_) => None,
    };
    let (Some(limit), Some(on_limit)) = (limit, on_limit) else {
        return Err(bad(REPLICATE_FORM.into()));
    };
    match Deferral::new(nodes, limit, on_limit) {
        Some(deferral) => Ok(Replicate::Deferred(deferral)),
        None => Err(bad(format!(
            "it waits for \"1us\" at least and \"{}\" at most: {REPLICATE_FORM}",
            show_duration(DEFERRAL_LIMIT_MAX)
        ))),
    }
}

/// A duration that may be shorter than a millisecond.
fn micros(text: &str) -> Option<Duration> {
    match text.strip_suffix("us") {
        Some(n) => n.parse().ok().map(Duration::from_micros),
        None => duration(text).ok(),
    }
}

/// Writes a duration as [`duration`] reads it, with the largest unit that divides it. Parts of a
/// millisecond are left out.
pub fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = UNITS
        .iter()
        .find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit));
    let (name, unit) = unit.unwrap_or(&("ms", 1));
    format!("{}{name}", ms / unit)
}

/// Reads an address without port or prefix length.
pub fn address(text: &str) -> Result<IpAddr, Bad> {
    let bad = |help: String| {
        Bad::new(
            Code::BadAddress,
            format!("\"{}\" is not an address", shown(text)),
            help,
        )
    };
    if let Ok(addr) = text.parse::<IpAddr>() {
        return unmapped(addr);
    }
    if let Ok(end) = text.parse::<SocketAddr>() {
        return Err(bad(format!("no port is wanted here: write \"{}\"", end.ip())));
    }
    if let Some(addr) = text
        .split_once('/')
        .and_then(|(addr, _)| addr.parse::<IpAddr>().ok())
    {
        return Err(bad(format!("no prefix length is wanted here: write \"{addr}\"")));
    }
    if let Some(addr) = bracketed(text) {
        return Err(bad(format!(
            "brackets are for an address with a port: write \"{addr}\""
        )));
    }
    Err(bad(format!(
        "write an IPv4 or IPv6 address, such as \"10.0.0.10\" or \"2001:db8::10\"{}",
        not_a_name(text)
    )))
}

/// Reads an address with its port: `"192.0.2.80:80"` or `"[2001:db8::80]:443"`.
pub fn endpoint(text: &str) -> Result<SocketAddr, Bad> {
    let bad = |help: String| {
        Bad::new(
            Code::BadAddress,
            format!("\"{}\" is not an address with a port", shown(text)),
            help,
        )
    };
    if text.contains('%') {
        return Err(bad(
            "zones (`%`) are not known here: write the address without it".into(),
        ));
    }
    if let Ok(end) = text.parse::<SocketAddr>() {
        return unmapped(end.ip()).map(|_| end);
    }
    if let Some((addr, port)) = text.rsplit_once(':') {
        let ends = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let addr = addr
            .strip_prefix('[')
            .and_then(|a| a.strip_suffix(']'))
            .unwrap_or(addr)
            .parse::<IpAddr>();
        if let (Ok(addr), true) = (addr, ends) {
            return Err(match port.parse::<u16>() {
                Ok(port) => bad(format!(
                    "an IPv6 address with a port has brackets: write \"{}\"",
                    SocketAddr::new(addr, port)
                )),
                Err(_) => Bad::new(
                    Code::OutOfRange,
                    format!("port {} is beyond 65535", shown(port)),
                    "ports are 1 to 65535",
                ),
            });
        }
    }
    if let Some(addr) = text.parse().ok().or_else(|| bracketed(text)) {
        return Err(bad(format!(
            "the port is missing: write \"{}\"",
            SocketAddr::new(addr, 80)
        )));
    }
    Err(bad(format!(
        "write \"192.0.2.80:80\" or \"[2001:db8::80]:443\"{}",
        not_a_name(text)
    )))
}

/// Reads an address with the length of its prefix: `"10.0.0.2/24"`. Whether the length fits the family is
/// not checked.
pub fn prefix(text: &str) -> Result<(IpAddr, u8), Bad> {
    let bad = |help: String| {
        Bad::new(
            Code::BadAddress,
            format!("\"{}\" is not an address with a prefix length", shown(text)),
            help,
        )
    };
    let Some((addr, len)) = text.split_once('/') else {
        return Err(match text.parse::<IpAddr>() {
            Ok(addr) => {
                let len = if addr.is_ipv4() { 24 } else { 64 };
                bad(format!(
                    "the prefix length is missing: write \"{addr}/{len}\", or whatever the length is"
                ))
            }
            Err(_) => bad(format!(
                "write \"10.0.0.2/24\" or \"2001:db8::2/64\"{}",
                not_a_name(text)
            )),
        });
    };
    let Ok(addr) = addr.parse::<IpAddr>() else {
        return Err(bad("write \"10.0.0.2/24\" or \"2001:db8::2/64\"".into()));
    };
    unmapped(addr)?;
    if len.bytes().all(|b| b.is_ascii_digit())
        && let Ok(len) = len.parse::<u8>()
    {
        return Ok((addr, len));
    }
    let mask = len.parse::<std::net::Ipv4Addr>().map(u32::from);
    Err(match mask {
        Ok(mask) if addr.is_ipv4() && mask.leading_ones() == mask.count_ones() => bad(format!(
            "write the length instead of the mask: \"{addr}/{}\"",
            mask.count_ones()
        )),
        _ => bad(format!(
            "the length is a number up to {}",
            if addr.is_ipv4() { 32 } else { 128 }
        )),
    })
}

/// `addr` with its host bits cleared. A length beyond the family's is taken as the family's.
pub(crate) fn network(addr: IpAddr, len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(a) & mask).into())
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(a) & mask).into())
        }
    }
}

/// Reads a link-layer address: `"02:00:00:00:00:01"`.
pub fn mac(text: &str) -> Result<MacAddr, Bad> {
    let bytes = hex_pairs(text).and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    if let Some(bytes) = bytes {
        return Ok(MacAddr(bytes));
    }
    let other_form = text.len() <= 17
        && text
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || b"-.: ".contains(&b));
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let help = match <[u8; 12]>::try_from(digits) {
        Ok(digits) if other_form => {
            let pairs: Vec<_> = digits
                .chunks(2)
                .map(|pair| String::from_utf8_lossy(pair).to_lowercase())
                .collect();
            format!("write \"{}\"", pairs.join(":"))
        }
        _ => "six pairs of hexadecimal digits with colons between them: \"02:00:00:00:00:01\"".into(),
    };
    Err(Bad::new(
        Code::BadMac,
        format!("\"{}\" is not a link-layer address", shown(text)),
        help,
    ))
}

/// Reads an RSS key: `"microsoft"`, `"symmetric"`, or pairs of hexadecimal digits with colons between
/// them. Length and rank are not checked.
pub(crate) fn rss_key(text: &str) -> Result<Vec<u8>, Bad> {
    match text {
        "microsoft" => Ok(MICROSOFT_KEY.to_vec()),
        // 6d:5a over and over: both directions of a four-tuple hash alike.
        "symmetric" => Ok([0x6d, 0x5a].repeat(20)),
        _ => hex_pairs(text).ok_or_else(|| {
            Bad::new(
                Code::RssKey,
                format!("\"{}\" is not an RSS key", shown(text)),
                "write \"microsoft\", \"symmetric\", or 40 bytes or more as \"6d:5a:56:...\"",
            )
        }),
    }
}

pub(crate) fn hex_pairs(text: &str) -> Option<Vec<u8>> {
    text.split(':')
        .map(|pair| match pair.as_bytes() {
            [a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => u8::from_str_radix(pair, 16).ok(),
            _ => None,
        })
        .collect()
}

/// Refuses IPv4-mapped IPv6 addresses: they are never on the wire, so whoever writes one means another.
fn unmapped(addr: IpAddr) -> Result<IpAddr, Bad> {
    match addr {
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => Err(Bad::new(
            Code::BadAddress,
            format!("{addr} is an IPv4-mapped IPv6 address"),
            format!("write the IPv4 address: {}", a.to_canonical()),
        )),
        _ => Ok(addr),
    }
}

/// The address of `[address]`.
fn bracketed(text: &str) -> Option<IpAddr> {
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// What to add when `text` looks like a host name.
fn not_a_name(text: &str) -> &'static str {
    let name = text
        .bytes()
        .any(|b| b.is_ascii_alphabetic() && !b.is_ascii_hexdigit());
    if name { "; names are not resolved" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_replicate_says_is_read_as_it_is_shown() {
        for (text, shown) in [
            ("off", "off"),
            ("established", "established"),
            ("synack", "synack"),
            ("deferred", "deferred(1, 5ms, open)"),
            ("deferred(2)", "deferred(2, 5ms, open)"),
            (" deferred( 15 , 1s ) ", "deferred(15, 1000ms, open)"),
            ("deferred(1,250us,drop)", "deferred(1, 250us, drop)"),
        ] {
            let read = replicate(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            assert_eq!(read.to_string(), shown);
            assert_eq!(replicate(shown), Ok(read));
        }
        for text in [
            "",
            "on",
            "Deferred",
            "synack(1)",
            "deferred(",
            "deferred()",
            "deferred(0)",
            "deferred(16)",
            "deferred(1",
            "deferred(1, 5)",
            "deferred(1, 0ms)",
            "deferred(1, 1001ms)",
            "deferred(1, 5ms, close)",
            "deferred(1, 5ms, open, 1)",
            "deferred(1, 99999999999999999999us)",
            "deferred(-1)",
            "deferred(1))",
            "deferred(1)x",
        ] {
            let bad = replicate(text).expect_err(text);
            assert!(bad.help.contains("write"), "{text}: {}", bad.help);
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("15m", 900_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, help) in [
            ("90", "write \"90s\""),
            ("90 s", "write \"90s\""),
            ("5min", "write \"5m\""),
            ("3 Hours", "write \"3h\""),
            ("1.5s", "whole number"),
            ("-5s", "whole number"),
            ("", "whole number"),
            ("9us", "one of ms"),
            ("1h30m", "one of ms"),
            ("99999999999999999999s", "whole number"),
            ("9999999999999999d", "whole number"),
        ] {
            let bad = duration(text).expect_err(text);
            assert!(bad.help.contains(help), "{text}: {bad:?}");
        }
    }

    #[test]
    fn remedies_of_addresses_can_be_pasted() {
        for (text, help) in [
            ("192.0.2.80", "\"192.0.2.80:80\""),
            ("2001:db8::80", "\"[2001:db8::80]:80\""),
            ("[2001:db8::80]", "\"[2001:db8::80]:80\""),
            ("2001:db8::80:443", "\"[2001:db8::80]:443\""),
            ("2001:db8:0:0:0:0:0:80:443", "\"[2001:db8::80]:443\""),
            ("192.0.2.80:65536", "1 to 65535"),
            ("web.example.com:80", "names are not resolved"),
            ("[fe80::1%1]:80", "zones"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
            ("192.0.2.080:80", "write \"192.0.2.80:80\""),
            ("", "write \"192.0.2.80:80\""),
        ] {
            let bad = endpoint(text).expect_err(text);
            assert!(bad.help.contains(help), "{text}: {bad:?}");
        }
        for (text, help) in [
            ("10.0.0.2", "\"10.0.0.2/24\""),
            ("2001:db8::2", "\"2001:db8::2/64\""),
            ("10.0.0.2/255.255.255.0", "\"10.0.0.2/24\""),
            ("10.0.0.2/255.0.255.0", "up to 32"),
            ("10.0.0.2/", "up to 32"),
            ("10.0.0.2/+8", "up to 32"),
            ("2001:db8::2/300", "up to 128"),
            ("gateway/24", "\"10.0.0.2/24\""),
            ("::ffff:10.0.0.1/96", "10.0.0.1"),
        ] {
            let bad = prefix(text).expect_err(text);
            assert!(bad.help.contains(help), "{text}: {bad:?}");
        }
        for (text, help) in [
            ("10.0.0.1:80", "\"10.0.0.1\""),
            ("10.0.0.1/24", "\"10.0.0.1\""),
            ("[2001:db8::1]", "\"2001:db8::1\""),
            ("gateway", "names are not resolved"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ] {
            let bad = address(text).expect_err(text);
            assert!(bad.help.contains(help), "{text}: {bad:?}");
        }
        for (text, help) in [
            ("02-00-00-00-00-0A", "\"02:00:00:00:00:0a\""),
            ("0200.0000.000a", "\"02:00:00:00:00:0a\""),
            ("02000000000a", "\"02:00:00:00:00:0a\""),
            ("02:00:00:00:00", "six pairs"),
            ("+2:00:00:00:00:01", "six pairs"),
        ] {
            let bad = mac(text).expect_err(text);
            assert!(bad.help.contains(help), "{text}: {bad:?}");
        }
    }

    #[test]
    fn host_bits_are_cleared() {
        for (addr, len, net) in [
            ("10.1.2.3", 8, "10.0.0.0"),
            ("10.1.2.3", 0, "0.0.0.0"),
            ("10.1.2.3", 32, "10.1.2.3"),
            ("10.1.2.3", 255, "10.1.2.3"),
            ("2001:db8::1", 64, "2001:db8::"),
            ("2001:db8::1", 0, "::"),
            ("2001:db8::1", 128, "2001:db8::1"),
        ] {
            let parse = |a: &str| a.parse::<IpAddr>().expect("address");
            assert_eq!(network(parse(addr), len), parse(net));
        }
    }

    proptest! {
        #[test]
        fn durations_read_back(ms in 0u64..=u64::MAX / 100_000_000) {
            let d = Duration::from_millis(ms);
            prop_assert_eq!(duration(&show_duration(d)), Ok(d));
        }

        #[test]
        fn endpoints_prefixes_and_macs_read_back(
            a in any::<u128>(), v4 in any::<bool>(), port in any::<u16>(), len in any::<u8>(), hw in any::<[u8; 6]>(),
        ) {
            let addr = if v4 { IpAddr::V4((a as u32).into()) } else { IpAddr::V6(a.into()) };
            let mapped = matches!(addr, IpAddr::V6(a) if a.to_ipv4_mapped().is_some());
            prop_assume!(!mapped);
            let end = SocketAddr::new(addr, port);
            prop_assert_eq!(endpoint(&end.to_string()), Ok(end));
            prop_assert_eq!(address(&addr.to_string()), Ok(addr));
            prop_assert_eq!(prefix(&format!("{addr}/{len}")), Ok((addr, len)));
            prop_assert_eq!(mac(&MacAddr(hw).to_string()), Ok(MacAddr(hw)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}|[0-9a-f:./%\\[\\]smhd]{0,40}") {
            for bad in [
                duration(&text).err(), address(&text).err(), endpoint(&text).err(),
                prefix(&text).err(), mac(&text).err(), rss_key(&text).err(),
            ].into_iter().flatten() {
                prop_assert!(!bad.message.is_empty() && !bad.help.is_empty());
            }
        }
    }
}
