//! The nodes over time: a lane for each, with its state, the addresses that it answers for and the sessions that it
//! decides about.

use std::fmt::Write;

use evenkeel_core::cluster::{NodeId, Role};

use super::draw::{Axis, LEFT, Px, RIGHT, WIDTH, at, fitting, span};
use crate::report::junit::escaped;
use crate::run::record::{Answers, Happened, Holds, Lane, Record, Span};

/// Rows of a lane: height and distance to the next one.
const ROWS: [(u64, u64); 3] = [(24, 27), (18, 20), (18, 20)];
const LANE: u64 = 27 + 20 + 20 + 16;
const TOP: u64 = 64;
/// Flags of faults at most; the list below has all.
pub(super) const FLAG_COUNT_MAX: usize = 40;

/// Lines at the faults, with their numbers, from the top to `height`.
pub(super) fn flags(
    out: &mut String,
    axis: &Axis,
    faults: &[Happened],
    top: u64,
    height: u64,
    numbers: bool,
) {
    for (i, fault) in faults.iter().enumerate().take(FLAG_COUNT_MAX) {
        if !axis.has(fault.at_ns) {
            continue;
        }
        let x = axis.x(fault.at_ns);
        let said = escaped(&format!("{}: {}", at(fault.at_ns), fault.what));
        let _ = write!(
            out,
            "<g class=\"flag\"><title>{said}</title><line x1=\"{x}\" x2=\"{x}\" y1=\"{top}\" y2=\"{height}\"/>"
        );
        if numbers {
            // Neighbours are at different heights.
            let y = 12 + 15 * (i as u64 % 3);
            let _ = write!(
                out,
                "<circle cx=\"{x}\" cy=\"{y}\" r=\"7\"/><text x=\"{x}\" y=\"{}\" class=\"num\">{}</text>",
                y + 4,
                i + 1
            );
        }
        *out += "</g>";
    }
}

/// Ticks and their times.
pub(super) fn ticks(out: &mut String, axis: &Axis, top: u64, bottom: u64) {
    for tick in axis.ticks() {
        let x = axis.x(tick);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"{top}\" y2=\"{bottom}\"/><text class=\"tick\" x=\"{x}\" y=\"{}\">{}</text>",
            bottom + 15,
            at(tick)
        );
    }
}

/// The picture; `received`: with what clients received below it.
pub(super) fn picture(out: &mut String, record: &Record, axis: &Axis, id: &str, received: Option<&[u64]>) {
    let lanes = record.lanes.len() as u64;
    let bottom = TOP + lanes * LANE;
    let height = bottom + 24 + received.map_or(0, |_| 84);
    let (from, to) = (at(axis.from_ns), at(axis.to_ns));
    let _ = write!(
        out,
        "<svg id=\"{id}\" class=\"timed\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" data-from=\"{}\" data-to=\"{}\" aria-label=\"States of the nodes from {from} to {to}\">",
        axis.from_ns, axis.to_ns
    );
    ticks(out, axis, TOP - 4, bottom);
    for (i, lane) in (0..).zip(&record.lanes) {
        draw_lane(out, record, lane, i, axis);
    }
    if let Some(received) = received {
        bars(out, axis, received, bottom + 30, 54);
    }
    flags(out, axis, &record.timeline, TOP - 12, bottom, true);
    *out += "</svg>\n";
}

fn draw_lane(out: &mut String, record: &Record, lane: &Lane, index: u64, axis: &Axis) {
    let top = TOP + index * LANE;
    let name = escaped(&format!("node {}", index + 1));
    let _ = write!(
        out,
        "<text class=\"lane\" x=\"8\" y=\"{}\">{name}</text>",
        top + 16
    );
    let me = u16::try_from(index + 1).unwrap_or(u16::MAX);
    let draw = |out: &mut String, row: usize, class: &str, words: &str, from: u64, to: u64| {
        let y = top + ROWS[..row].iter().map(|r| r.1).sum::<u64>();
        bar(out, axis, &name, class, words, (from, to), (y, ROWS[row].0));
    };
    for Span { from_ns, to_ns, what } in &lane.state.spans {
        draw(
            out,
            0,
            &format!("s-{}", what.word()),
            what.word(),
            *from_ns,
            *to_ns,
        );
    }
    let mut label = |row: usize, words: &str| {
        let y = top + ROWS[..row].iter().map(|r| r.1).sum::<u64>() + 13;
        let _ = write!(
            out,
            "<text class=\"row\" x=\"{}\" y=\"{y}\">{words}</text>",
            LEFT - 8
        );
    };
    let clustered = lane.holds.spans.iter().any(|s| !s.what.is_empty());
    if clustered {
        label(1, "answers for");
        label(2, "decides about");
    }
    for Span { from_ns, to_ns, what } in &lane.answers.spans {
        if let Some(words) = answers(what, record.vip_counts) {
            let class = if what.vips == [0, 0] { "lips" } else { "vips" };
            draw(out, 1, class, &words, *from_ns, *to_ns);
        }
    }
    for Span { from_ns, to_ns, what } in &lane.holds.spans {
        if let Some((class, words)) = holds(what, me) {
            draw(out, 2, class, &words, *from_ns, *to_ns);
        }
    }
}

/// `VIPs, LIPs 1 2`.
fn answers(answers: &Answers, all: [u16; 2]) -> Option<String> {
    let vips = match answers.vips {
        [0, 0] => None,
        these if these == all => Some("VIPs"),
        [_, 0] => Some("VIPs of IPv4"),
        [0, _] => Some("VIPs of IPv6"),
        _ => Some("some VIPs"),
    };
    let lips: Vec<_> = answers.lips.iter().map(u16::to_string).collect();
    match (vips, lips.is_empty()) {
        (None, true) => None,
        (Some(vips), true) => Some(vips.to_owned()),
        (None, false) => Some(format!("LIPs of {}", lips.join(", "))),
        (Some(vips), false) => Some(format!("{vips}, LIPs of {}", lips.join(", "))),
    }
}

/// A class for what is most remarkable of them, and words.
fn holds(holds: &[Holds], me: u16) -> Option<(&'static str, String)> {
    let first = holds.first()?;
    let words: Vec<_> = holds
        .iter()
        .map(|Holds { group, role }| {
            let whose = match group.node {
                NodeId(node) if node == me => "own".to_owned(),
                NodeId(node) => format!("node {node}'s"),
            };
            let nth = match group.generation {
                0 | 1 => String::new(),
                n => format!(" {n}"),
            };
            let doubt = match role {
                Role::Adopting => " (adopting)",
                Role::Suspect => " (uncertain)",
                Role::Fenced => " (fenced)",
                Role::Draining => " (handing over)",
                _ => "",
            };
            format!("{whose}{nth}{doubt}")
        })
        .collect();
    let class = if holds.iter().any(|h| h.role == Role::Fenced) {
        "h-fenced"
    } else if holds.iter().any(|h| h.role != Role::Owned) {
        "h-doubt"
    } else if holds.len() > 1 || first.group.node != NodeId(me) {
        "h-more"
    } else {
        "h-own"
    };
    Some((class, words.join(", ")))
}

fn bar(
    out: &mut String,
    axis: &Axis,
    name: &str,
    class: &str,
    words: &str,
    (from, to): (u64, u64),
    (y, height): (u64, u64),
) {
    if to < axis.from_ns || from > axis.to_ns {
        return;
    }
    let (x, end) = (axis.x(from), axis.x(to));
    // What is too short to be seen is drawn all the same.
    let width = Px((end.0 - x.0).max(6));
    let (said, long) = (escaped(words), span(to - from));
    let _ = write!(
        out,
        "<g class=\"bar {class}\"><title>{name}: {said}, {} to {} ({long})</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"3\"/>",
        at(from),
        at(to)
    );
    if let Some(text) = fitting(words, width.0 / 10) {
        let (x, y) = (Px(x.0 + 50), y + height / 2 + 4);
        let _ = write!(out, "<text x=\"{x}\" y=\"{y}\">{}</text>", escaped(&text));
    }
    *out += "</g>";
}

/// What clients received in each part.
pub(super) fn bars(out: &mut String, axis: &Axis, counts: &[u64], top: u64, height: u64) {
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let parts = counts.len().max(1) as u64;
    let whole = (WIDTH - LEFT - RIGHT) * 10;
    let bottom = top + height;
    let mut path = format!("M{LEFT} {bottom}");
    for (i, n) in (0..).zip(counts) {
        let y = Px(bottom * 10 - n * height * 10 / most);
        let (x, next) = (
            Px(LEFT * 10 + i * whole / parts),
            Px(LEFT * 10 + (i + 1) * whole / parts),
        );
        let _ = write!(path, "L{x} {y}L{next} {y}");
    }
    let each = span((axis.to_ns - axis.from_ns) / parts);
    let _ = write!(
        out,
        "<text class=\"row\" x=\"{}\" y=\"{}\">clients receive</text><text class=\"row\" x=\"{}\" y=\"{}\">{most} in {each}</text><path class=\"received\" d=\"{path}L{} {bottom}Z\"><title>Segments and datagrams with data that clients received, in parts of {each}; {most} at most</title></path>",
        LEFT - 8,
        top + 12,
        LEFT - 8,
        top + 27,
        WIDTH - RIGHT
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::cluster::GroupId;

    #[test]
    fn lanes_say_in_words_who_answers_for_what_and_decides() {
        let some = |vips, lips: &[u16]| Answers {
            vips,
            lips: lips.to_vec(),
        };
        for (seen, words) in [
            (some([1, 1], &[1, 2]), Some("VIPs, LIPs of 1, 2")),
            (some([1, 0], &[]), Some("VIPs of IPv4")),
            (some([0, 0], &[2]), Some("LIPs of 2")),
            (some([0, 0], &[]), None),
        ] {
            assert_eq!(answers(&seen, [1, 1]).as_deref(), words);
        }
        let group = |node, generation, role| Holds {
            group: GroupId {
                node: NodeId(node),
                generation,
            },
            role,
        };
        let held = [group(2, 1, Role::Owned), group(1, 3, Role::Adopting)];
        assert_eq!(
            holds(&held, 2),
            Some(("h-doubt", "own, node 1's 3 (adopting)".to_owned()))
        );
        assert_eq!(holds(&held[..1], 2), Some(("h-own", "own".to_owned())));
        assert_eq!(holds(&[], 2), None);
    }
}
