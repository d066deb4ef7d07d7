//! A distribution of times: bars on a scale on which each decade is as wide, and the share that is not longer.

use std::fmt::Write;

use super::draw::{Px, count, span};
use crate::run::record::{Spread, least, step};

const WIDTH: u64 = 520;
const HEIGHT: u64 = 190;
const LEFT: u64 = 52;
const RIGHT: u64 = 44;
const TOP: u64 = 14;
const BOTTOM: u64 = 160;
/// Steps of the distribution that a bar has: four bars for each power of two.
const STEPS: u16 = 8;

pub(super) fn picture(out: &mut String, spread: &Spread, id: &str, label: &str) {
    let _ = write!(
        out,
        "<svg id=\"{id}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">"
    );
    let first = step(spread.least_ns) / STEPS;
    let last = step(spread.greatest_ns) / STEPS;
    // A single value has some room about it.
    let (first, last) = (first.saturating_sub(2), last + 2);
    let parts = u64::from(last - first + 1);
    let width = (WIDTH - LEFT - RIGHT) * 10;
    let x = |bar: u16| Px(LEFT * 10 + u64::from(bar - first) * width / parts);
    let mut bars = vec![0u64; usize::from(last - first) + 1];
    for (step, n) in spread.steps() {
        if let Some(bar) = bars.get_mut(usize::from(step / STEPS - first)) {
            *bar += n;
        }
    }
    let most = bars.iter().copied().max().unwrap_or(0).max(1);
    let height = (BOTTOM - TOP) * 10;
    for half in [0, 1, 2] {
        let y = BOTTOM - (BOTTOM - TOP) * half / 2;
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/><text class=\"row\" x=\"{}\" y=\"{}\">{}</text><text class=\"right\" x=\"{}\" y=\"{}\">{} %</text>",
            WIDTH - RIGHT,
            LEFT - 6,
            y + 4,
            count(most * half / 2),
            WIDTH - RIGHT + 6,
            y + 4,
            50 * half
        );
    }
    // Decades, and if these are few their second and fifth parts.
    let mut ticks: Vec<u64> = (0..12).map(|e| 10u64.pow(e)).collect();
    if parts < 30 {
        ticks.extend((0..11).flat_map(|e| [2 * 10u64.pow(e), 5 * 10u64.pow(e)]));
    }
    for tick in ticks {
        let bar = step(tick) / STEPS;
        if bar <= first || bar > last {
            continue;
        }
        // Within its bar, too.
        let x = Px(LEFT * 10 + u64::from(step(tick) - first * STEPS) * width / (parts * u64::from(STEPS)));
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/><text class=\"tick\" x=\"{x}\" y=\"{}\">{}</text>",
            BOTTOM + 15,
            short(tick)
        );
    }
    let mut below = 0;
    let mut ecdf = format!("M{} {BOTTOM}", x(first));
    for (bar, n) in (first..).zip(bars) {
        below += n;
        let (x, end) = (x(bar), x(bar + 1));
        if n > 0 {
            // One among thousands is seen, too.
            let tall = (u128::from(n) * u128::from(height) / u128::from(most)).max(10) as u64;
            let (from, to) = (span(least(bar * STEPS)), span(least((bar + 1) * STEPS)));
            let _ = write!(
                out,
                "<rect class=\"count\" x=\"{x}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{} from {from} to {to}</title></rect>",
                Px(BOTTOM * 10 - tall),
                Px((end.0 - x.0).saturating_sub(8).max(8)),
                Px(tall),
                count(n)
            );
        }
        let y =
            Px(BOTTOM * 10
                - (u128::from(below) * u128::from(height) / u128::from(spread.count.max(1))) as u64);
        let _ = write!(ecdf, "L{end} {y}");
    }
    let _ = write!(out, "<path class=\"ecdf\" d=\"{ecdf}\"/></svg>");
    *out +=
        "<table class=\"quantiles\"><tr><th>least<th>median<th>90 %<th>99 %<th>99.9 %<th>longest</tr><tr>";
    let quantile = |thousandths| spread.quantile(thousandths).unwrap_or(0);
    for ns in [
        spread.least_ns,
        quantile(500),
        quantile(900),
        quantile(990),
        quantile(999),
        spread.greatest_ns,
    ] {
        let _ = write!(out, "<td>{}", span(ns));
    }
    *out += "</tr></table>\n";
}

/// A round time.
fn short(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} us", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}
