//! The packets of one connection between client, nodes and server.

use std::fmt::Write;

use super::draw::{Px, at, count};
use crate::report::junit::escaped;
use crate::run::record::{Happened, Hop, Line, Record};

const WIDTH: u64 = 1_080;
const LEFT: u64 = 118;
const TOP: u64 = 46;
const ROW: u64 = 27;
/// Rows of faults at most.
const FAULT_COUNT_MAX: usize = 20;

/// A row of the picture.
enum Row<'r> {
    Hop(&'r Hop),
    Fault(&'r Happened),
    LeftOut(u64),
}

fn rows<'r>(hops: &'r [Hop], faults: &'r [Happened]) -> Vec<Row<'r>> {
    let mut rows = Vec::new();
    let first = hops.first().map_or(0, |h| h.sent_ns);
    let last = hops.last().map_or(0, |h| h.sent_ns);
    let near = faults.iter().filter(|f| (first..=last).contains(&f.at_ns));
    let mut faults = near.take(FAULT_COUNT_MAX).peekable();
    for hop in hops {
        if hop.left_out > 0 {
            rows.push(Row::LeftOut(hop.left_out));
        }
        while let Some(fault) = faults.next_if(|f| f.at_ns <= hop.sent_ns) {
            rows.push(Row::Fault(fault));
        }
        rows.push(Row::Hop(hop));
    }
    rows
}

fn name(line: Line) -> String {
    match line {
        Line::Client => "client".to_owned(),
        Line::Node(n) => format!("node {}", n + 1),
        Line::Server => "server".to_owned(),
    }
}

/// Everybody who has sent or got something, from the client to the server.
fn lines(hops: &[Hop]) -> Vec<Line> {
    let ends = hops.iter().flat_map(|h| [Some(h.from), h.to]).flatten();
    let mut lines: Vec<Line> = ends.chain([Line::Client, Line::Server]).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// What is said of a hop beside its packet.
fn remark(hop: &Hop) -> String {
    let mut words = Vec::new();
    if hop.again {
        words.push("again".to_owned());
    }
    if hop.copy {
        words.push("a copy".to_owned());
    }
    match (hop.lost, hop.arrived_ns) {
        (Some(why), _) => words.push(format!("lost: {why}")),
        (None, None) => words.push("did not arrive".to_owned()),
        _ => {}
    }
    words.join(", ")
}

fn said(hop: &Hop) -> String {
    let to = hop.to.map_or_else(|| "nobody".to_owned(), name);
    let arrived = match hop.arrived_ns {
        Some(t) => format!(" at {}", at(t)),
        None => String::new(),
    };
    let remark = remark(hop);
    let comma = if remark.is_empty() { "" } else { ": " };
    format!(
        "{} {} to {to}{arrived}: {}{comma}{remark}",
        at(hop.sent_ns),
        name(hop.from),
        hop.words
    )
}

pub(super) fn picture(out: &mut String, record: &Record, hops: &[Hop]) {
    let (rows, lines) = (rows(hops, &record.timeline), lines(hops));
    let height = TOP + rows.len() as u64 * ROW + 16;
    let apart = (WIDTH - LEFT - 90) / (lines.len() as u64 - 1).max(1);
    let x = |line: Line| LEFT + 50 + apart * lines.iter().position(|l| *l == line).unwrap_or(0) as u64;
    let _ = write!(
        out,
        "<svg id=\"sequence\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Packets of one connection, in order\">"
    );
    for line in &lines {
        let x = x(*line);
        let _ = write!(
            out,
            "<line class=\"life\" x1=\"{x}\" x2=\"{x}\" y1=\"34\" y2=\"{height}\"/><rect class=\"head\" x=\"{}\" y=\"8\" width=\"84\" height=\"24\" rx=\"4\"/><text class=\"who\" x=\"{x}\" y=\"25\">{}</text>",
            x - 42,
            name(*line)
        );
    }
    for (i, row) in (0..).zip(&rows) {
        let y = TOP + i * ROW + ROW - 6;
        match row {
            Row::LeftOut(n) => {
                let _ = write!(
                    out,
                    "<text class=\"gap\" x=\"{}\" y=\"{}\">··· {} hops that are not drawn ···</text>",
                    (LEFT + WIDTH) / 2,
                    y - 3,
                    count(*n)
                );
            }
            Row::Fault(fault) => {
                let text = escaped(&format!("{} {}", at(fault.at_ns), fault.what));
                let _ = write!(
                    out,
                    "<g class=\"fault\"><line x1=\"8\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/><text x=\"12\" y=\"{}\">⚡ {text}</text></g>",
                    WIDTH - 8,
                    y - 5
                );
            }
            Row::Hop(hop) => draw(out, hop, y, &x),
        }
    }
    *out += "</svg>\n";
}

fn draw(out: &mut String, hop: &Hop, y: u64, x: &impl Fn(Line) -> u64) {
    let from = x(hop.from);
    let arrived = hop.arrived_ns.is_some() && hop.lost.is_none();
    // What goes to nobody who is known goes towards the other end.
    let other = if hop.forth { Line::Server } else { Line::Client };
    let to = x(hop.to.unwrap_or(other));
    let right = to >= from;
    let (near, far) = if right { (from, to) } else { (to, from) };
    let cut = if right {
        from + (far - near) * 2 / 3
    } else {
        from - (far - near) * 2 / 3
    };
    let end = if arrived { to } else { cut };
    let mut class = String::from("hop");
    class += if hop.forth { " forth" } else { " back" };
    if hop.again || hop.copy {
        class += " again";
    }
    if !arrived {
        class += " lost";
    }
    let _ = write!(
        out,
        "<g class=\"{class}\"><title>{}</title><text class=\"time\" x=\"{}\" y=\"{}\">{}</text><line x1=\"{from}\" x2=\"{end}\" y1=\"{y}\" y2=\"{y}\"/>",
        escaped(&said(hop)),
        LEFT - 6,
        y + 1,
        at(hop.sent_ns)
    );
    let _ = if arrived {
        let back = if right { end - 8 } else { end + 8 };
        write!(out, "<path d=\"M{end} {y}L{back} {}L{back} {}Z\"/>", y - 4, y + 4)
    } else {
        write!(out, "<text class=\"cross\" x=\"{end}\" y=\"{}\">✕</text>", y + 5)
    };
    let remark = remark(hop);
    let words = if remark.is_empty() {
        hop.words.clone()
    } else {
        format!("{} ({remark})", hop.words)
    };
    let middle = Px((near + far) * 5);
    let _ = write!(
        out,
        "<text class=\"words\" x=\"{middle}\" y=\"{}\">{}</text></g>",
        y - 5,
        escaped(&words)
    );
}

/// The same as lines of text.
pub(super) fn text(record: &Record, hops: &[Hop]) -> String {
    let mut out = String::new();
    for row in rows(hops, &record.timeline) {
        let _ = match row {
            Row::LeftOut(n) => writeln!(out, "... {n} hops that are not kept"),
            Row::Fault(fault) => writeln!(out, "{} FAULT {}", at(fault.at_ns), fault.what),
            Row::Hop(hop) => writeln!(out, "{}", said(hop)),
        };
    }
    out
}
