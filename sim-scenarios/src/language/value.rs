//! Values that a scenario writes as strings.

use std::time::Duration;

use evenkeel_control::reading::{nearest, shown};
use evenkeel_control::{Bad, Code};
use evenkeel_io_sim::DRIFT_PPM_MAX;

use crate::scenario::{Drawn, Happening, NodeRef, Occasion, Phase, Trigger};

/// Units of spans, in nanoseconds, largest first.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const SPAN_FORM: &str =
    "a span is a whole number and a unit, one of ns, us, ms, s, m, h: \"50us\", \"200ms\", \"60s\"";

/// A whole number with `_` between digits allowed.
fn number(digits: &str) -> Option<u64> {
    let plain: String = digits.chars().filter(|&c| c != '_').collect();
    plain.parse().ok()
}

/// Splits `text` behind its leading digits.
fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    text.split_at(end)
}

/// What `1.5s` means: `n` before the point, and `rest` from it on.
fn fraction(n: &str, rest: &str) -> Option<Duration> {
    let (part, unit) = digits(rest.strip_prefix('.')?);
    let unit = UNITS.iter().find(|u| u.0 == unit)?.1;
    let places = u32::try_from(part.len())
        .ok()
        .filter(|places| (1..=9).contains(places))?;
    let part = number(part)?.checked_mul(unit)? / 10u64.pow(places);
    let ns = number(n)?.checked_mul(unit)?.checked_add(part)?;
    Some(Duration::from_nanos(ns))
}

/// `"50us"`.
pub(crate) fn span(text: &str) -> Result<Duration, Bad> {
    let bad = |help: String| {
        Bad::new(
            Code::BadDuration,
            format!("\"{}\" is not a span of time", shown(text)),
            help,
        )
    };
    let (n, unit) = digits(text.trim());
    if n.is_empty() {
        let negative = text.trim().strip_prefix('-').is_some_and(|t| span(t).is_ok());
        let help = "time does not go back: write a span from \"0s\" on; what comes later says so by `after`";
        return Err(bad(if negative { help } else { SPAN_FORM }.into()));
    }
    if let Some(meant) = fraction(n, unit) {
        return Err(bad(format!(
            "spans are whole numbers: write \"{}\"",
            show_span(meant)
        )));
    }
    if let Some(end) = unit
        .find(['-', '–'])
        .filter(|at| UNITS.iter().any(|u| u.0 == &unit[..*at]))
    {
        let high = unit[end..].trim_start_matches(['-', '–', ' ']);
        if span(high).is_ok() {
            return Err(bad(format!(
                "write two dots between both ends: \"{n}{}..{high}\"",
                &unit[..end]
            )));
        }
    }
    if unit.is_empty() {
        return Err(Bad::new(
            Code::BadDuration,
            format!("\"{}\" has no unit", shown(text)),
            format!(
                "write \"{}s\" if seconds are meant; units are ns, us, ms, s, m, h",
                shown(n)
            ),
        ));
    }
    let Some(&(_, ns)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let meant = match unit.trim().to_ascii_lowercase().as_str() {
            "µs" | "μs" | "usec" | "microseconds" => Some("us"),
            "msec" | "millis" | "milliseconds" => Some("ms"),
            "sec" | "secs" | "second" | "seconds" => Some("s"),
            "min" | "mins" | "minute" | "minutes" => Some("m"),
            "hour" | "hours" => Some("h"),
            other => UNITS.iter().map(|u| u.0).find(|u| *u == other),
        };
        return Err(bad(
            meant.map_or_else(|| SPAN_FORM.into(), |u| format!("write \"{n}{u}\""))
        ));
    };
    match number(n).and_then(|n| n.checked_mul(ns)) {
        Some(ns) => Ok(Duration::from_nanos(ns)),
        None => Err(Bad::new(
            Code::OutOfRange,
            format!("\"{}\" is too long a span", shown(text)),
            SPAN_FORM,
        )),
    }
}

/// Writes a span as [`span`] reads it, with the largest unit that divides it.
pub(crate) fn show_span(span: Duration) -> String {
    let ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    if ns == 0 {
        return "0s".into();
    }
    let unit = UNITS.iter().find(|(_, unit)| ns.is_multiple_of(*unit));
    let (name, unit) = unit.unwrap_or(&("ns", 1));
    format!("{}{name}", ns / unit)
}

/// `"50us"`, or `"50us..2ms"`: the seed draws, both ends included.
pub(crate) fn drawn(text: &str) -> Result<Drawn<Duration>, Bad> {
    let Some((low, high)) = text.split_once("..") else {
        let one = span(text)?;
        return Ok(one..=one);
    };
    let (low, high) = (span(low)?, span(high)?);
    if low > high {
        return Err(Bad::new(
            Code::BadValue,
            format!("\"{}\" is an empty range", shown(text)),
            format!(
                "the smaller one comes first: \"{}..{}\"",
                show_span(high),
                show_span(low)
            ),
        ));
    }
    Ok(low..=high)
}

/// Writes what [`drawn`] reads.
pub(crate) fn show_drawn(range: &Drawn<Duration>) -> String {
    if range.start() == range.end() {
        show_span(*range.start())
    } else {
        format!("{}..{}", show_span(*range.start()), show_span(*range.end()))
    }
}

/// `"1%"` or `"0.25%"`, in millionths.
pub(crate) fn share(text: &str) -> Result<u32, Bad> {
    let bad = |help: &str| {
        Bad::new(
            Code::BadValue,
            format!("\"{}\" is not a share", shown(text)),
            help,
        )
    };
    const FORM: &str = "write a share from \"0%\" to \"100%\", such as \"1%\" or \"0.25%\", with at most four digits behind the point";
    let Some(n) = text.strip_suffix('%') else {
        return Err(bad(FORM));
    };
    let (whole, part) = n.split_once('.').unwrap_or((n, "0"));
    let fits = !whole.is_empty() && !part.is_empty() && part.len() <= 4 && whole.len() <= 9;
    if !fits || !(whole.to_owned() + part).bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad(FORM));
    }
    let part: u64 = format!("{part:0<4}").parse().map_err(|_| bad(FORM))?;
    let ppm = whole.parse::<u64>().map_err(|_| bad(FORM))? * 10_000 + part;
    if ppm > 1_000_000 {
        let message = format!("\"{}\" is out of range: it is more than all", shown(text));
        return Err(Bad::new(Code::OutOfRange, message, FORM));
    }
    Ok(ppm as u32)
}

/// `"1Gbit"`, in bits a second.
pub(crate) fn bandwidth(text: &str) -> Result<u64, Bad> {
    let bad = || {
        Bad::new(
            Code::BadValue,
            format!("\"{}\" is not a bandwidth", shown(text)),
            "write a whole number and one of kbit, Mbit, Gbit (bits a second): \"100Mbit\"",
        )
    };
    let (n, unit) = digits(text);
    let factor = match unit {
        "kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        _ => return Err(bad()),
    };
    let bits = number(n).and_then(|n| n.checked_mul(factor));
    bits.filter(|b| (1_000..=1_000_000_000_000).contains(b))
        .ok_or_else(bad)
}

/// Writes what [`share`] reads.
pub(crate) fn show_share(ppm: u32) -> String {
    let part = format!("{:04}", ppm % 10_000);
    let part = part.trim_end_matches('0');
    if part.is_empty() {
        format!("{}%", ppm / 10_000)
    } else {
        format!("{}.{part}%", ppm / 10_000)
    }
}

/// Writes what [`bandwidth`] reads, with the largest unit that divides it.
pub(crate) fn show_bandwidth(bits: u64) -> String {
    let units = [("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("kbit", 1_000)];
    let unit = units.iter().find(|(_, unit)| bits.is_multiple_of(*unit));
    let (name, unit) = unit.unwrap_or(&("kbit", 1_000));
    format!("{}{name}", bits / unit)
}

/// `"200ppm"`, `"-200ppm"`: millionths by which a clock is faster.
pub(crate) fn ppm(text: &str) -> Result<i32, Bad> {
    let bad = |code, help: String| Bad::new(code, format!("\"{}\" is not a drift", shown(text)), help);
    let form =
        || "write the millionths by which the clock is faster, or slower: \"200ppm\", \"-50ppm\"".into();
    let Some(n) = text.trim().strip_suffix("ppm") else {
        return Err(bad(Code::BadValue, form()));
    };
    let (sign, digits) = n.strip_prefix('-').map_or((1, n), |n| (-1, n));
    match number(digits).filter(|_| digits.starts_with(|c: char| c.is_ascii_digit())) {
        Some(n) if n <= DRIFT_PPM_MAX.unsigned_abs().into() => Ok(sign * n as i32),
        Some(_) => {
            let help = format!(
                "\"{DRIFT_PPM_MAX}ppm\" at most, forward or back: no real clock drifts by a hundredth of it"
            );
            Err(bad(Code::OutOfRange, help))
        }
        None => Err(bad(Code::BadValue, form())),
    }
}

/// `"50ppm"`, or `"-50ppm..50ppm"`: the seed draws, both ends included.
pub(crate) fn drawn_ppm(text: &str) -> Result<Drawn<i32>, Bad> {
    let Some((low, high)) = text.split_once("..") else {
        let one = ppm(text)?;
        return Ok(one..=one);
    };
    let (low, high) = (ppm(low)?, ppm(high)?);
    if low > high {
        let help = format!("the smaller one comes first: \"{high}ppm..{low}ppm\"");
        return Err(Bad::new(
            Code::BadValue,
            format!("\"{}\" is an empty range", shown(text)),
            help,
        ));
    }
    Ok(low..=high)
}

/// Writes what [`ppm`] reads.
pub(crate) fn show_ppm(ppm: i32) -> String {
    format!("{ppm}ppm")
}

/// Writes what [`drawn_ppm`] reads.
pub(crate) fn show_drawn_ppm(range: &Drawn<i32>) -> String {
    let (low, high) = (range.start(), range.end());
    if low == high {
        show_ppm(*low)
    } else {
        format!("{}..{}", show_ppm(*low), show_ppm(*high))
    }
}

/// `"5s"`, `"-5s"`: forward or back, in nanoseconds.
pub(crate) fn signed_span(text: &str) -> Result<i64, Bad> {
    let text = text.trim();
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let ns = i64::try_from(span(rest)?.as_nanos());
    match ns {
        Ok(ns) => Ok(sign * ns),
        Err(_) => Err(Bad::new(
            Code::OutOfRange,
            format!("\"{}\" is too long a span", shown(text)),
            SPAN_FORM,
        )),
    }
}

/// Writes what [`signed_span`] reads.
pub(crate) fn show_signed_span(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    format!("{sign}{}", show_span(Duration::from_nanos(ns.unsigned_abs())))
}

/// When a fault is: `"20s..30s"`, or `"on(takeover, 2) + 5ms..50ms"`, `"during(bulk)"`.
pub(crate) fn at(text: &str) -> Result<(Option<Trigger>, Drawn<Duration>), Bad> {
    let text = text.trim();
    let waits = text.starts_with("on") || text.starts_with("during");
    if !waits {
        return Ok((None, drawn(text)?));
    }
    let bad = |why: &str, help: String| Bad::new(Code::BadValue, format!("\"{}\": {why}", shown(text)), help);
    const FORM: &str = "write \"on(takeover)\", \"on(ready, 2)\", \"during(bulk)\", each with a delay if you like: \"on(takeover) + 5ms..50ms\"";
    let parts = text
        .split_once('(')
        .and_then(|(word, rest)| Some((word, rest.split_once(')')?)));
    let Some((word, (inner, rest))) = parts else {
        return Err(bad("what it waits for is not in brackets", FORM.into()));
    };
    let (name, node) = match inner.split_once(',') {
        Some((name, of)) => (name.trim(), Some(node(of.trim())?)),
        None => (inner.trim(), None),
    };
    let unknown = |what: &str, names: Vec<&'static str>| {
        let help = match nearest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean \"{word}({meant})\"?"),
            None => format!("{what}: {}", names.join(", ")),
        };
        bad(&format!("nothing is called \"{}\"", shown(name)), help)
    };
    let what = match word {
        "on" => match Happening::ALL.iter().find(|h| h.0 == name) {
            Some(&(_, found, _)) => Occasion::On(found),
            None => {
                return Err(unknown(
                    "what happens",
                    Happening::ALL.iter().map(|h| h.0).collect(),
                ));
            }
        },
        "during" => match Phase::ALL.iter().find(|p| p.0 == name) {
            Some(&(_, found, _)) => Occasion::During(found),
            None => return Err(unknown("what goes on", Phase::ALL.iter().map(|p| p.0).collect())),
        },
        _ => return Err(bad("it is neither \"on(..)\" nor \"during(..)\"", FORM.into())),
    };
    let rest = rest.trim();
    let delay = match rest.strip_prefix('+') {
        Some(delay) => drawn(delay.trim())?,
        None if rest.is_empty() => Duration::ZERO..=Duration::ZERO,
        None => return Err(bad("a delay stands behind a \"+\"", FORM.into())),
    };
    Ok((Some(Trigger { what, node }), delay))
}

/// Writes what a trigger waits for as [`at`] reads it.
pub(crate) fn show_trigger(trigger: &Trigger) -> String {
    let node = trigger.node.map_or(String::new(), |node| {
        format!(
            ", {}",
            match node {
                NodeRef::Id(id) => id.to_string(),
                NodeRef::Master => "master".into(),
                NodeRef::Backup => "backup".into(),
            }
        )
    });
    match trigger.what {
        Occasion::On(h) => format!("on({}{node})", h.name()),
        Occasion::During(p) => format!("during({}{node})", p.name()),
    }
}

/// Writes what [`at`] reads.
pub(crate) fn show_at(when: Option<&Trigger>, at: &Drawn<Duration>) -> String {
    match when {
        None => show_drawn(at),
        Some(trigger) if *at.end() == Duration::ZERO => show_trigger(trigger),
        Some(trigger) => format!("{} + {}", show_trigger(trigger), show_drawn(at)),
    }
}

/// `"7"`: a seed is any number of 64 bits, more than an integer of TOML is.
pub(crate) fn seed(text: &str) -> Result<u64, Bad> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        let help = format!("write a whole number from \"0\" to \"{}\"", u64::MAX);
        Bad::new(
            Code::OutOfRange,
            format!("\"{}\" is not a seed", shown(text)),
            help,
        )
    })
}

/// `"1"`, `"master"`, `"backup"`.
pub(crate) fn node(text: &str) -> Result<NodeRef, Bad> {
    match text {
        "master" => Ok(NodeRef::Master),
        "backup" => Ok(NodeRef::Backup),
        _ => text.parse().ok().filter(|&n| n > 0).map(NodeRef::Id).ok_or_else(|| {
            Bad::new(
                Code::BadValue,
                format!("\"{}\" is not a node", shown(text)),
                "write its number, such as \"1\", or \"master\" (who answers for the VIPs then) or \"backup\"",
            )
        }),
    }
}

/// A name: letters, digits, `-`, `_`, `.`; 64 at most.
pub(crate) fn name(text: &str) -> Result<String, Bad> {
    let fits = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fits {
        return Ok(text.to_owned());
    }
    Err(Bad::new(
        Code::BadValue,
        format!("\"{}\" is not a name", shown(text)),
        "a name has 1 to 64 letters, digits, `-`, `_` or `.`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_refused_with_what_to_write() {
        assert_eq!(span("1_500us"), Ok(Duration::from_micros(1_500)));
        assert_eq!(
            drawn("50us..2ms"),
            Ok(Duration::from_micros(50)..=Duration::from_millis(2))
        );
        assert_eq!(share("0.25%"), Ok(2_500));
        assert_eq!(share("100%"), Ok(1_000_000));
        assert_eq!(bandwidth("10Gbit"), Ok(10_000_000_000));
        assert_eq!(node("2"), Ok(NodeRef::Id(2)));
        for (text, help) in [
            ("5", "\"5s\""),
            ("5 sec", "\"5s\""),
            ("5µs", "\"5us\""),
            ("", "a span is"),
            ("fast", "a span is"),
            ("-5s", "does not go back"),
            ("--5s", "a span is"),
            ("1.5s", "\"1500ms\""),
            ("0.25ms", "\"250us\""),
            ("1.s", "a span is"),
            ("1.5.5s", "a span is"),
            ("9999999999.5h", "a span is"),
            ("1s-2s", "\"1s..2s\""),
            ("1s - 2", "a span is"),
            ("1s–2s", "\"1s..2s\""),
            ("99999999999999999999s", "a span is"),
        ] {
            assert!(span(text).expect_err(text).help.contains(help), "{text}");
        }
        assert!(drawn("3s..1s").expect_err("empty").help.contains("\"1s..3s\""));
        for text in ["1", "%", "101%", "1.23456%", "-1%", "1.%", "é%"] {
            share(text).expect_err(text);
        }
        for text in ["", "10", "10gbit", "0Mbit", "99999999999999999999Gbit"] {
            bandwidth(text).expect_err(text);
        }
        for text in ["", "0", "slave", "70000"] {
            node(text).expect_err(text);
        }
        name("a b").expect_err("space");
    }

    #[test]
    fn what_is_waited_for_is_read_and_shown() {
        for text in [
            "20s..30s",
            "on(takeover)",
            "on(ready, 2)",
            "on(peer-down, backup) + 5ms",
            "during(bulk) + 1ms..9ms",
            "during(adoption, master)",
        ] {
            let (when, delay) = at(text).expect(text);
            assert_eq!(show_at(when.as_ref(), &delay), text);
        }
        assert_eq!(
            at(" on( ready ,2 )+5ms ").expect("spaces"),
            at("on(ready, 2) + 5ms").expect("none")
        );
        for (text, help) in [
            ("on", "\"on(takeover)\""),
            ("on(takeover", "\"on(takeover)\""),
            ("only(takeover)", "\"on(takeover)\""),
            ("on(redy)", "\"on(ready)\""),
            ("on(bulk)", "what happens"),
            ("during(bulc)", "\"during(bulk)\""),
            ("on(ready) 5ms", "\"on(takeover)\""),
            ("on(ready) + soon", "a span is"),
            ("on(ready, slave)", "its number"),
            ("during()", "what goes on: bulk"),
        ] {
            let bad = at(text).expect_err(text);
            assert!(bad.help.contains(help), "{text}: {}", bad.help);
        }
    }

    #[test]
    fn drifts_and_steps_are_read_and_shown() {
        assert_eq!(drawn_ppm("-50ppm..1_000ppm"), Ok(-50..=1_000));
        for text in ["-50ppm..1000ppm", "0ppm", "-200000ppm"] {
            assert_eq!(show_drawn_ppm(&drawn_ppm(text).expect(text)), text);
        }
        for text in [
            "50",
            "ppm",
            "--1ppm",
            "-ppm",
            "200001ppm",
            "1%",
            "_1ppm",
            "2ppm..1ppm",
            "1ppm..x",
        ] {
            drawn_ppm(text).expect_err(text);
        }
        for text in ["5s", "-1500ms", "0s"] {
            assert_eq!(show_signed_span(signed_span(text).expect(text)), text);
        }
        for text in ["--5s", "-", "5", "-99999999999999999999h", "10000000h"] {
            signed_span(text).expect_err(text);
        }
    }

    #[test]
    fn spans_are_shown_as_they_are_read() {
        for text in ["0s", "50us", "1500ms", "2h", "90s", "1ns"] {
            let read = span(text).expect(text);
            assert_eq!(span(&show_span(read)), Ok(read), "{text}");
        }
        for text in ["1%", "0.25%", "100%", "0%", "0.0001%"] {
            assert_eq!(show_share(share(text).expect(text)), text);
        }
        for text in ["10Gbit", "1500Mbit", "1kbit"] {
            assert_eq!(show_bandwidth(bandwidth(text).expect(text)), text);
        }
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        for text in ["", "-1", "+1", "1.5", "18446744073709551616"] {
            seed(text).expect_err(text);
        }
        assert_eq!(show_drawn(&drawn("50us..2ms").expect("range")), "50us..2ms");
    }
}
