//! `stall <= detection + next_rto`: from text to a [`Comparison`].

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_control::reading::{nearest, shown};
use evenkeel_control::{Bad, Code};

use super::metric::{METRICS, Metric, Unit};
use super::{Comparison, Expr, Op, Term};
use crate::language::value::span;

/// Longest expectation, in bytes.
pub(crate) const TEXT_LEN_MAX: usize = 200;

const OPS: [(&str, Op); 7] = [
    ("==", Op::Eq),
    ("!=", Op::Ne),
    ("<=", Op::Le),
    (">=", Op::Ge),
    ("<", Op::Lt),
    (">", Op::Gt),
    (" within ", Op::Le),
];

fn bad(message: String, help: impl Into<String>) -> Bad {
    Bad::new(Code::BadValue, message, help)
}

/// Reads a comparison.
pub(crate) fn parse(text: &str) -> Result<Comparison, Bad> {
    const FORM: &str = "an expectation compares two sums by one of ==, !=, <, <=, >, >= and within: \"stall <= detection + next_rto\"";
    if text.len() > TEXT_LEN_MAX {
        return Err(bad(
            format!("an expectation of {} bytes", text.len()),
            format!("{TEXT_LEN_MAX} at most"),
        ));
    }
    let found = OPS
        .iter()
        .filter_map(|(sign, op)| text.find(sign).map(|at| (at, sign.len(), *op)));
    // Of `<=` and `<` at one place the longer one is meant.
    let Some((at, len, op)) = found.min_by_key(|&(at, len, _)| (at, usize::MAX - len)) else {
        return Err(bad(format!("\"{}\" compares nothing", shown(text)), FORM));
    };
    let (left, right) = (&text[..at], &text[at + len..]);
    let (left, right) = (expr(left)?, expr(right)?);
    if left.unit != right.unit {
        let help = "compare counts with counts (\"broken == 0\") and spans with spans (\"stall <= 2s\")";
        let message = format!("{} is compared with {}", left.unit.name(), right.unit.name());
        return Err(bad(message, help));
    }
    if is_settled(&left, &right) {
        return Err(bad(
            format!("\"{}\" does not depend on what happens", shown(text)),
            "name something that is measured, and not taken away again; see docs/scenarios.md",
        ));
    }
    Ok(Comparison { left, op, right })
}

/// Whether all that is measured falls out of the comparison, as it stands on both sides or is taken away again.
fn is_settled(left: &Expr, right: &Expr) -> bool {
    let mut sums: BTreeMap<Metric, i128> = BTreeMap::new();
    for (side, expr) in [(1, left), (-1, right)] {
        for (plus, term) in &expr.terms {
            let sign = if *plus { side } else { -side };
            if let Some(metric) = term.metric {
                *sums.entry(metric).or_default() += sign * i128::from(term.factor);
            }
        }
    }
    sums.values().all(|sum| *sum == 0)
}

/// Reads a sum.
fn expr(text: &str) -> Result<Expr, Bad> {
    let mut terms: Vec<(bool, Term)> = Vec::new();
    let mut unit: Option<Unit> = None;
    let mut rest = text.trim();
    let mut plus = true;
    loop {
        // A `-` inside a name (drops.no-conn) has no space before it.
        let end = ["+", " - "]
            .iter()
            .filter_map(|s| rest.find(s))
            .min()
            .unwrap_or(rest.len());
        let (term, of) = term(rest[..end].trim())?;
        if unit.is_some_and(|u| u != of) {
            let message = format!("\"{}\" adds counts and spans of time", shown(text));
            return Err(bad(message, "add counts to counts, spans to spans"));
        }
        unit = Some(of);
        terms.push((plus, term));
        let tail = rest[end..].trim_start();
        let Some(sign) = tail.chars().next() else { break };
        plus = sign == '+';
        rest = tail[1..].trim_start();
    }
    Ok(Expr {
        terms,
        unit: unit.unwrap_or(Unit::Count),
    })
}

/// Reads `2 * name`, `name`, `3` or `200ms`.
fn term(text: &str) -> Result<(Term, Unit), Bad> {
    if let Some((factor, name)) = text.split_once('*') {
        let factor = factor.trim();
        let Ok(n) = factor.parse::<u32>() else {
            if !factor.is_empty() && factor.bytes().all(|b| b.is_ascii_digit()) {
                let message = format!("the factor {} is out of range", shown(factor));
                return Err(Bad::new(
                    Code::OutOfRange,
                    message,
                    format!("write a factor from 1 to {}", u32::MAX),
                ));
            }
            let message = format!("\"{}\" is not a factor", shown(factor));
            return Err(bad(message, "a factor is a whole number: \"2 * detection\""));
        };
        if n == 0 {
            let message = format!("\"{}\" is nothing, whatever happens", shown(text));
            let help = format!("write a factor from 1 to {}, or leave it out", u32::MAX);
            return Err(bad(message, help));
        }
        let (mut term, unit) = atom(name.trim())?;
        term.factor = term.factor.saturating_mul(n.into());
        return Ok((term, unit));
    }
    atom(text)
}

fn atom(text: &str) -> Result<(Term, Unit), Bad> {
    if text.is_empty() {
        return Err(bad(
            "something is missing in the sum".into(),
            "write a number, a span or a name on either side",
        ));
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let plain: String = text.chars().filter(|&c| c != '_').collect();
        if plain.bytes().all(|b| b.is_ascii_digit()) {
            let n: u32 = plain.parse().map_err(|_| {
                let message = format!("{} is out of range", shown(text));
                Bad::new(
                    Code::OutOfRange,
                    message,
                    format!("write a count from 0 to {}", u32::MAX),
                )
            })?;
            let term = Term {
                factor: n.into(),
                metric: None,
            };
            return Ok((term, Unit::Count));
        }
        let span = span(text)?;
        let term = Term {
            factor: i64::try_from(span.as_nanos()).unwrap_or(i64::MAX),
            metric: None,
        };
        return Ok((term, Unit::Span));
    }
    if let Some(metric) = Metric::named(text) {
        let term = Term {
            factor: 1,
            metric: Some(metric),
        };
        return Ok((term, metric.unit()));
    }
    let names: Vec<String> = Metric::names().collect();
    let help = match nearest(text, names.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if names
            .iter()
            .any(|n| kind_of(n).is_some() && kind_of(n) == kind_of(text)) =>
        {
            format!(
                "near it: {}; docs/scenarios.md has all of them",
                near(text, &names).join(", ")
            )
        }
        None => {
            let known: Vec<_> = METRICS.iter().map(|m| m.0).collect();
            format!(
                "what is measured: {}, drops.REASON, sync.COUNTER, counts.COUNTER",
                known.join(", ")
            )
        }
    };
    Err(bad(format!("nothing is called \"{}\"", shown(text)), help))
}

/// `drops.` of `drops.no-conn`.
fn kind_of(name: &str) -> Option<&str> {
    name.find('.').map(|dot| &name[..=dot])
}

/// Names of the same kind that have most pairs of letters in common with this one; a few of them.
fn near<'n>(text: &str, names: &'n [String]) -> Vec<&'n str> {
    const COUNT: usize = 5;
    let pairs = |name: &str| -> BTreeSet<(u8, u8)> {
        let name = &name[kind_of(name).map_or(0, str::len)..];
        let bytes = name.as_bytes();
        bytes.iter().copied().zip(bytes.iter().copied().skip(1)).collect()
    };
    let wanted = pairs(text);
    let of_kind = names.iter().filter(|n| kind_of(n) == kind_of(text));
    let mut found: Vec<&str> = of_kind.map(String::as_str).collect();
    found.sort_by_key(|name| std::cmp::Reverse(pairs(name).intersection(&wanted).count()));
    found.truncate(COUNT);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_read() {
        let c = parse("stall <= detection + next_rto").expect("read");
        assert_eq!(c.op, Op::Le);
        assert!(c.left.is_per_flow() && c.right.is_per_flow());
        assert_eq!(c.right.terms.len(), 2);
        let c = parse("converged within 2s").expect("read");
        assert_eq!((c.op, c.right.terms[0].1.factor), (Op::Le, 2_000_000_000));
        let c = parse("drops.no-conn>=2 * broken - 1").expect("read");
        assert_eq!(c.op, Op::Ge);
        assert!(c.left.terms[0].1.metric.is_some());
        assert_eq!(
            c.right.terms.iter().map(|t| t.0).collect::<Vec<_>>(),
            [true, false]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, words) in [
            ("broken", "compares nothing"),
            ("broken == 2s", "a count is compared with a span"),
            ("stall <= 2", "a span of time is compared with a count"),
            ("brokn == 0", "nothing is called"),
            ("1 == 1", "does not depend"),
            ("0 * broken == 0", "is nothing, whatever happens"),
            ("broken + 0 * later == 0", "is nothing, whatever happens"),
            ("slowest - slowest == 0s", "does not depend"),
            ("2 * broken - later == broken + broken - later", "does not depend"),
            ("broken == ", "missing"),
            ("broken + stall == 0", "adds counts and spans"),
            ("x * broken == 0", "not a factor"),
            ("drops.nothing == 0", "nothing is called"),
            ("é == 0", "nothing is called"),
        ] {
            let refused = parse(text).expect_err(text);
            assert!(refused.message.contains(words), "{text}: {refused:?}");
            assert!(!refused.help.is_empty());
        }
        for text in [
            "broken == 18446744073709551616",
            "broken == 4000000000000000000 + 1",
            "4_294_967_296 == broken",
            "broken <= 4294967296 * later",
        ] {
            let refused = parse(text).expect_err(text);
            assert_eq!(refused.code, Code::OutOfRange, "{text}: {refused:?}");
            assert!(refused.help.contains(" to 4294967295"), "{refused:?}");
        }
        parse("broken == 4_294_967_295").expect("the largest one");
        parse("2 * broken == broken").expect("what is left of it depends on what happens");
        assert!(parse("brokn == 0").expect_err("typo").help.contains("`broken`"));
        let refused = parse("drops.no-connection-there == 0").expect_err("no such reason");
        assert!(
            refused.help.starts_with("near it: drops.no-conn, drops."),
            "{refused:?}"
        );
        parse(&"x".repeat(300)).expect_err("too long");
    }
}
