//! Curves over the time of a run.

use std::fmt::Write;

use super::draw::{Axis, LEFT, Px, RIGHT, WIDTH, count, percent, round_step};
use super::lanes::{bars, flags, ticks};
use crate::run::record::{Point, Record};

const HEIGHT: u64 = 110;
const TOP: u64 = 26;

/// A stepped line through `points` in a box from `top` on; `most` is its upper edge.
fn steps(axis: &Axis, points: impl Iterator<Item = (u64, u64)>, most: u64, top: u64) -> String {
    let bottom = (top + HEIGHT) * 10;
    let y = |n: u64| {
        Px(bottom - (u128::from(n.min(most)) * u128::from(HEIGHT * 10) / u128::from(most.max(1))) as u64)
    };
    let mut path = String::new();
    for (i, (at, n)) in points.enumerate() {
        let (x, y) = (axis.x(at), y(n));
        let _ = match i {
            0 => write!(path, "M{x} {y}"),
            _ => write!(path, "H{x}V{y}"),
        };
    }
    path
}

/// Lines at round values, with these words.
fn levels(out: &mut String, most: u64, top: u64, words: impl Fn(u64) -> String) {
    let step = round_step(most.div_ceil(4));
    for n in (0..=most).step_by(step as usize) {
        let y =
            Px((top + HEIGHT) * 10
                - (u128::from(n) * u128::from(HEIGHT * 10) / u128::from(most.max(1))) as u64);
        level(out, y, &words(n));
    }
}

fn level(out: &mut String, y: Px, words: &str) {
    let _ = write!(
        out,
        "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/><text class=\"row\" x=\"{}\" y=\"{}\">{words}</text>",
        WIDTH - RIGHT,
        LEFT - 8,
        Px(y.0 + 40),
    );
}

fn begin(out: &mut String, axis: &Axis, id: &str, height: u64, label: &str) {
    let _ = write!(
        out,
        "<svg id=\"{id}\" class=\"timed\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" data-from=\"{}\" data-to=\"{}\" aria-label=\"{label}\">",
        axis.from_ns, axis.to_ns
    );
}

/// A path from the first point to the last, closed at the bottom.
fn area(path: &str, axis: &Axis, top: u64) -> String {
    format!("{path}V{bottom}H{}Z", axis.x(axis.from_ns), bottom = top + HEIGHT)
}

/// Connections alive and broken.
pub(super) fn connections(out: &mut String, record: &Record, axis: &Axis) {
    let most = record
        .curve
        .iter()
        .map(|p| p.alive.max(p.broken))
        .max()
        .unwrap_or(0)
        .max(4);
    let most = most.div_ceil(round_step(most / 4)) * round_step(most / 4);
    let bottom = TOP + HEIGHT;
    begin(
        out,
        axis,
        "alive",
        bottom + 22,
        "Connections that are alive, and those that broke so far, over time",
    );
    ticks(out, axis, TOP, bottom);
    levels(out, most, TOP, count);
    let line = |of: fn(&Point) -> u64| steps(axis, record.curve.iter().map(|p| (p.at_ns, of(p))), most, TOP);
    let alive = line(|p| p.alive);
    let _ = write!(
        out,
        "<path class=\"alive\" d=\"{}\"/><path class=\"alive-line\" d=\"{alive}\"/>",
        area(&alive, axis, TOP)
    );
    let _ = write!(out, "<path class=\"broken-line\" d=\"{}\"/>", line(|p| p.broken));
    let last = record.curve.last().copied().unwrap_or_default();
    let _ = write!(
        out,
        "<text class=\"key\" x=\"{LEFT}\" y=\"14\"><tspan class=\"k-alive\">▬ alive</tspan><tspan dx=\"18\" class=\"k-broken\">╍ broken so far: {} in the end</tspan></text>",
        count(last.broken)
    );
    flags(out, axis, &record.timeline, TOP, bottom, false);
    *out += "</svg>\n";
}

/// Of those live at the first fault the ones that have not broken, from the fault on.
pub(super) fn survival(out: &mut String, record: &Record, axis: &Axis) {
    let Some(fault) = record.fault_ns.filter(|_| record.live_at_fault > 0) else {
        return;
    };
    let (all, bottom) = (record.live_at_fault, TOP + HEIGHT);
    let end = record.curve.last().map_or(0, |p| p.survivors);
    begin(
        out,
        axis,
        "survival",
        bottom + 22,
        "Survival of the connections that were live at the first fault",
    );
    ticks(out, axis, TOP, bottom);
    for quarter in 0..=4 {
        let y = Px((TOP + HEIGHT) * 10 - HEIGHT * 10 * quarter / 4);
        level(out, y, &format!("{} %", 25 * quarter));
    }
    let before = record
        .curve
        .iter()
        .rev()
        .find(|p| p.at_ns <= fault)
        .map_or(all, |p| p.survivors);
    let later = record
        .curve
        .iter()
        .filter(|p| p.at_ns > fault)
        .map(|p| (p.at_ns, p.survivors));
    let path = steps(axis, [(fault, before)].into_iter().chain(later), all, TOP);
    let closed = format!("{path}V{bottom}H{}Z", axis.x(fault));
    let _ = write!(
        out,
        "<path class=\"alive\" d=\"{closed}\"/><path class=\"alive-line\" d=\"{path}\"/><text class=\"key\" x=\"{LEFT}\" y=\"14\">of the {} that were live at the first fault: {} have not broken in the end, {}</text>",
        count(all),
        count(end),
        percent(end, all)
    );
    flags(out, axis, &record.timeline, TOP, bottom, false);
    *out += "</svg>\n";
}

/// What clients receive, and what nodes have told and not seen acknowledged.
pub(super) fn traffic(out: &mut String, record: &Record, axis: &Axis) {
    let clustered = record.unacked.iter().any(|(_, n)| *n > 0);
    let (first, second) = (TOP, TOP + 54 + 46);
    let bottom = if clustered { second + HEIGHT } else { first + 54 };
    begin(
        out,
        axis,
        "traffic",
        bottom + 22,
        "Segments that clients received, and records that wait for an acknowledgement, over time",
    );
    ticks(out, axis, first, bottom);
    bars(out, axis, &record.received, first, 54);
    if clustered {
        let most = record.unacked.iter().map(|u| u.1).max().unwrap_or(0).max(4);
        let most = most.div_ceil(round_step(most / 4)) * round_step(most / 4);
        levels(out, most, second, count);
        let path = steps(axis, record.unacked.iter().copied(), most, second);
        let _ = write!(
            out,
            "<path class=\"unacked\" d=\"{path}\"/><text class=\"key\" x=\"{LEFT}\" y=\"{}\">records that nodes have told and not yet seen acknowledged</text>",
            second - 12
        );
    }
    flags(out, axis, &record.timeline, first, bottom, false);
    *out += "</svg>\n";
}
