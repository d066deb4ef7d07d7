//! A report as one page of HTML: style, pictures and script are in it, nothing is fetched. It is readable without the
//! script, which adds comfort only, and its bytes depend on the run alone.

mod curves;
mod distribution;
mod draw;
mod lanes;
mod sequence;

use std::collections::BTreeMap;
use std::fmt::Write;

use self::draw::{Axis, at, count, counted, percent, span};
use super::junit::escaped;
use super::{Outcome, Report};
use crate::run::record::{
    BIN_COUNT, Connection, EVENT_COUNT_MAX, Judged, POINT_COUNT_MAX, Record, SPAN_COUNT_MAX, Why,
};
use crate::scenario::Scenario;

/// A page has so many bytes at most; one of a usual run has a tenth of it.
pub const PAGE_LEN_MAX: usize = 6 << 20;
/// Expectations and oracles that the page lists at most; of more it tells those that failed first.
const JUDGED_COUNT_MAX: usize = 200;
/// Characters of a description, and of what else is the scenario's own.
const DESCRIPTION_LEN_MAX: usize = 2_000;
const TEXT_LEN_MAX: usize = 300;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page. `file` is how the scenario was named, for the command that replays it.
pub(super) fn page(report: &Report, record: &Record, scenario: &Scenario, file: &str) -> String {
    let mut out = String::with_capacity(1 << 17);
    let whole = Axis {
        from_ns: 0,
        to_ns: record.end_ns,
    };
    head(&mut out, report);
    verdict(&mut out, report, record, scenario, file);
    expected(&mut out, record, scenario);
    nodes(&mut out, record, &whole);
    connections(&mut out, record, &whole);
    times(&mut out, record);
    if let Some(connection) = &record.connection {
        one(&mut out, report, record, connection, file);
    }
    rest(&mut out, report, record);
    let _ = writeln!(
        out,
        "<footer>{} seed {}, digest <code>{:032x}</code>, {} events in {} of simulated time. The same scenario with the same seed gives this page again, byte by byte.</footer>\n</main>\n<div id=\"cursor\" aria-hidden=\"true\"></div>\n<script>\n{SCRIPT}</script>\n</body>\n</html>",
        escaped(&report.scenario),
        report.seed,
        report.digest,
        count(report.events),
        span(report.duration_ns)
    );
    out
}

/// At most so much of a text, as HTML.
fn clipped(text: &str, len: usize) -> String {
    match text.char_indices().nth(len) {
        Some((end, _)) => escaped(&text[..end]) + " …",
        None => escaped(text),
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "✓ PASS",
        Outcome::Fail => "✗ FAIL",
        Outcome::FailedAsDeclared => "✓ PASS: failed as declared",
        Outcome::NoProof => "✗ FAIL: no proof",
    }
}

fn head(out: &mut String, report: &Report) {
    let title = format!(
        "{}, seed {}: {}",
        report.scenario,
        report.seed,
        word(&report.outcome)
    );
    let _ = writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<svg width=\"0\" height=\"0\" style=\"position:absolute\" aria-hidden=\"true\"><defs><pattern id=\"down\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect width=\"7\" height=\"7\" fill=\"var(--card)\"/><rect width=\"3\" height=\"7\" fill=\"var(--down)\"/></pattern><pattern id=\"paused\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\"><rect width=\"7\" height=\"7\" fill=\"var(--card)\"/><rect width=\"7\" height=\"4\" fill=\"var(--paused)\"/></pattern></defs></svg>\n<main>",
        escaped(&title)
    );
}

/// What came out, in a sentence or two.
fn sentence(report: &Report, record: &Record) -> String {
    let mut text = String::new();
    match (record.fault_ns, record.live_at_fault) {
        (Some(fault), live) if live > 0 => {
            let survivors = record.curve.last().map_or(0, |p| p.survivors);
            let broke = live - survivors.min(live);
            let broke = match broke {
                0 => "none broke".to_owned(),
                n if n == live => "all broke".to_owned(),
                n => format!("{} broke ({})", count(n), percent(n, live)),
            };
            let _ = write!(
                text,
                "Of the {} that were live when the fault came at {}, {broke}",
                counted(live, "connection"),
                at(fault)
            );
            match report.detection_ns {
                Some(detection) => {
                    let _ = write!(
                        text,
                        "; another node answered for the VIPs {} later.",
                        span(detection)
                    );
                }
                None => text.push('.'),
            }
            let more = (report.broken + report.failed).saturating_sub(live - survivors.min(live));
            if more > 0 {
                let _ = write!(text, " Of the others {} broke.", count(more));
            }
        }
        _ => {
            let broke = match report.broken + report.failed {
                0 => "none broke".to_owned(),
                n => format!("{} broke", count(n)),
            };
            let _ = write!(text, "Of {}, {broke}.", counted(report.connections, "connection"));
        }
    }
    if let Some(stall) = report.stall_ms {
        let _ = write!(text, " The longest wait for a reply was {}.", span(stall.ns[4]));
    }
    let short = |name: &str| name.chars().take(TEXT_LEN_MAX).collect::<String>();
    let failed: Vec<_> = report
        .failures
        .iter()
        .map(|f| format!("“{}”", short(&f.name)))
        .collect();
    match &report.outcome {
        Outcome::Pass => {
            let _ = write!(
                text,
                " All {} expectations and oracles held.",
                record.judged.len()
            );
        }
        Outcome::Fail => {
            let names = failed.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            let more = failed.len().saturating_sub(5);
            let _ = write!(text, " What did not hold: {names}");
            text += &if more > 0 {
                format!(", and {more} more.")
            } else {
                ".".to_owned()
            };
        }
        Outcome::FailedAsDeclared => {
            text += " Without the mechanism, what had to fail failed, and nothing else."
        }
        Outcome::NoProof => {
            text += " It proves nothing: something that was declared to fail held, or something else failed."
        }
    }
    text
}

fn verdict(out: &mut String, report: &Report, record: &Record, scenario: &Scenario, file: &str) {
    let class = if report.pass { "" } else { " class=\"failed\"" };
    let _ = writeln!(
        out,
        "<header id=\"verdict\"{class}>\n<div class=\"top\"><h1>{}</h1><span class=\"badge\">{}</span><span class=\"soft\">seed {}</span><span style=\"flex:1\"></span><button id=\"theme\" class=\"js\" type=\"button\">light / dark</button></div>\n<p class=\"verdict\">{}</p>\n<p class=\"soft\">{}</p>",
        escaped(&report.scenario),
        word(&report.outcome),
        report.seed,
        escaped(&sentence(report, record)),
        clipped(&scenario.description.replace('\n', " "), DESCRIPTION_LEN_MAX)
    );
    if let Some(off) = report.off {
        let _ = writeln!(
            out,
            "<p>A counter-proof: the mechanism “{}” is off.</p>",
            escaped(off)
        );
    }
    *out += "<div class=\"tiles\">";
    let mut tile = |what: &str, value: String| {
        let _ = write!(out, "<div><b>{value}</b><span>{what}</span></div>");
    };
    tile("connections", count(report.connections));
    tile("live at the first fault", count(record.live_at_fault));
    tile("of these known to another node", count(report.replicated));
    tile(
        "broken, failed",
        format!("{}, {}", count(report.broken), count(report.failed)),
    );
    tile(
        "until another node answers",
        report.detection_ns.map_or("–".to_owned(), span),
    );
    tile(
        "longest stall",
        report.stall_ms.map_or("–".to_owned(), |s| span(s.ns[4])),
    );
    *out += "</div>\n";
    command(out, "replay", "To run it again:", &report.replay(file));
    *out += "</header>\n";
}

fn command(out: &mut String, id: &str, words: &str, command: &str) {
    let _ = writeln!(
        out,
        "<p class=\"soft\" style=\"margin:12px 0 0\">{words}</p><div class=\"command\"><pre id=\"{id}\">{}</pre><button class=\"js\" type=\"button\" data-copy=\"{id}\">copy</button></div>",
        escaped(command)
    );
}

fn expected(out: &mut String, record: &Record, scenario: &Scenario) {
    *out += "<section id=\"expected\">\n<h2>What was expected, and what was seen</h2>\n<div class=\"scroll\"><table><thead><tr><th><th>expected<th>seen<th>when</tr></thead><tbody>\n";
    let failed = record.judged.iter().filter(|j| !j.held);
    let held = record.judged.iter().filter(|j| j.held);
    for judged in failed.chain(held).take(JUDGED_COUNT_MAX) {
        let Judged {
            name,
            says,
            oracle,
            held,
            seen,
            at_ns,
            written,
        } = judged;
        let (class, mark) = if *held {
            ("", "✓ held")
        } else {
            (" class=\"no\"", "✗ failed")
        };
        let declared = scenario.off.as_ref().is_some_and(|o| o.fails.contains(name));
        let declared = if declared && !held { ", as declared" } else { "" };
        let place = match written.line {
            0 => String::new(),
            line => format!(" <span class=\"soft\">line {line}</span>"),
        };
        let (named, said) = (clipped(name, TEXT_LEN_MAX), clipped(says, TEXT_LEN_MAX));
        let says = match (*oracle, name == says) {
            (true, _) => format!("{said} <span class=\"soft\">(always: {named})</span>"),
            (false, true) => format!("<code>{said}</code>{place}"),
            (false, false) => format!("<code>{said}</code> {named}{place}"),
        };
        let when = at_ns.map_or_else(String::new, at);
        let _ = writeln!(
            out,
            "<tr{class}><td class=\"mark\">{mark}{declared}<td>{says}<td>{}<td>{when}</tr>",
            clipped(seen, TEXT_LEN_MAX)
        );
    }
    *out += "</tbody></table></div>\n";
    let more = record.judged.len().saturating_sub(JUDGED_COUNT_MAX);
    if more > 0 {
        let _ = writeln!(
            out,
            "<p class=\"soft\">and {more} more that are not listed here</p>"
        );
    }
    *out += "</section>\n";
}

fn nodes(out: &mut String, record: &Record, whole: &Axis) {
    *out +=
        "<section id=\"nodes\">\n<h2>The nodes, and what was done to them</h2>\n<figure class=\"scroll\">";
    lanes::picture(out, record, whole, "lanes", None);
    *out += "<figcaption>Each lane: the node’s state; the addresses that it answers for (VIPs of services, LIPs of a node’s share); whose sessions it decides about.</figcaption></figure>\n";
    if !record.timeline.is_empty() {
        *out += "<ol class=\"faults\">";
        for fault in &record.timeline {
            let _ = write!(out, "<li>{}: {}</li>", at(fault.at_ns), escaped(&fault.what));
        }
        *out += "</ol>\n";
        if record.timeline.len() > lanes::FLAG_COUNT_MAX {
            let _ = writeln!(
                out,
                "<p class=\"soft\">The first {} are drawn.</p>",
                lanes::FLAG_COUNT_MAX
            );
        }
    }
    if let Some((from_ns, to_ns)) = record.close_up {
        let close = Axis { from_ns, to_ns };
        *out += "<h2 style=\"margin-top:18px\">The same, about the fault</h2><figure class=\"scroll\">";
        lanes::picture(out, record, &close, "close-up", Some(&record.received_close));
        let taken = match (record.fault_ns, record.taken_ns) {
            (Some(fault), Some(taken)) => format!(
                " Another node began to answer for the VIPs at {}, {} after the fault.",
                at(taken),
                span(taken.saturating_sub(fault))
            ),
            _ => String::new(),
        };
        let _ = writeln!(
            out,
            "<figcaption>From {} to {}.{taken}</figcaption></figure>",
            at(from_ns),
            at(to_ns)
        );
    }
    let left_out: u64 = record
        .lanes
        .iter()
        .map(|l| l.state.left_out + l.answers.left_out + l.holds.left_out)
        .sum();
    if left_out > 0 {
        let _ = writeln!(
            out,
            "<p class=\"soft\">A lane’s row has {SPAN_COUNT_MAX} bars at most: {} are not drawn.</p>",
            counted(left_out, "later change")
        );
    }
    *out += "</section>\n";
}

fn connections(out: &mut String, record: &Record, whole: &Axis) {
    *out += "<section id=\"connections\">\n<h2>The connections</h2>\n<figure class=\"scroll\">";
    curves::connections(out, record, whole);
    *out += "</figure>\n";
    if record.live_at_fault > 0 && record.fault_ns.is_some() {
        *out += "<figure class=\"scroll\">";
        curves::survival(out, record, whole);
        *out += "</figure>\n";
    }
    *out += "<figure class=\"scroll\">";
    curves::traffic(out, record, whole);
    let _ = writeln!(
        out,
        "</figure>\n<p class=\"soft\">Curves have {POINT_COUNT_MAX} points at most, what clients receive is counted in {BIN_COUNT} parts: what is shorter than {} is not told apart.</p>\n</section>",
        span(record.end_ns / POINT_COUNT_MAX as u64)
    );
}

fn times(out: &mut String, record: &Record) {
    *out += "<section id=\"times\">\n<h2>How long things took</h2>\n<div class=\"two\">\n<figure><figcaption><b>Stall</b>: of each connection the longest time from a request to its whole reply</figcaption>\n";
    match record.stalls.count {
        0 => *out += "<p>No connection was established.</p>",
        _ => distribution::picture(
            out,
            &record.stalls,
            "stalls",
            "Distribution of the longest stall of each connection",
        ),
    }
    *out += "</figure>\n<figure><figcaption><b>Replication lag</b>: from the frame that tells of a session’s change until its receiver’s acknowledgement is back, repairs included</figcaption>\n";
    match record.lags.count {
        0 => *out += "<p>Nothing was replicated.</p>",
        _ => distribution::picture(out, &record.lags, "lags", "Distribution of the replication lag"),
    }
    if record.lags_open > 0 {
        let _ = write!(
            out,
            "<p class=\"soft\">{} sections never were acknowledged: their receiver or their holder was gone, or the run was over.</p>",
            count(record.lags_open)
        );
    }
    *out += "</figure>\n</div>\n<p class=\"soft\">Each decade is as wide. Bars, left scale: how many. Line, right scale: the share that took no longer. Quantiles are known to 1/32.</p>\n</section>\n";
}

fn one(out: &mut String, report: &Report, record: &Record, connection: &Connection, file: &str) {
    let Connection {
        flow,
        load,
        why,
        tuple,
        tcp,
        server,
        stall_ns,
        stall_at_ns,
        broken,
        hops,
        hop_count,
    } = connection;
    let rule = match why {
        Why::Asked => "It was asked for by its number.",
        Why::Broke => "It is the first one that broke.",
        Why::Stalled => "It is the one that waited longest for a reply.",
    };
    let server = server.map_or_else(String::new, |s| format!(", served by server {}", s & 0xff));
    let end = match broken {
        Some(why) => format!(" It broke: {why}."),
        None => String::new(),
    };
    let _ = writeln!(
        out,
        "<section id=\"connection\">\n<h2>One connection, packet by packet</h2>\n<p>Flow {flow} of load “{}”: {} {}{server}. {rule} It waited for {}, from {} on.{end}</p>",
        escaped(load),
        if *tcp { "TCP" } else { "UDP" },
        escaped(tuple),
        span(*stall_ns),
        at(*stall_at_ns)
    );
    if hops.is_empty() {
        *out += "<p>It sent no packet.</p>\n";
    } else {
        *out += "<figure class=\"scroll\">";
        sequence::picture(out, record, hops);
        let _ = writeln!(
            out,
            "<figcaption>Each arrow is a packet from one port to the next, at the time at which it was sent; the distances are not to scale. Sequence numbers count from the connection’s own. {} of {} hops are drawn: those of its beginning, before and in its longest wait, and of its end. Dashed: its end has sent the same before. A cross: it went no further.</figcaption></figure>\n<details><summary>The same as text</summary><pre>{}</pre></details>",
            count(hops.len() as u64),
            count(*hop_count),
            escaped(&sequence::text(record, hops)).replace("&#10;", "\n")
        );
    }
    let more = format!("{} --report reports --flow {flow}", report.replay(file));
    command(
        out,
        "replay-flow",
        "To look at this connection again, or at another one:",
        &more,
    );
    *out += "</section>\n";
}

fn table<K: AsRef<str>>(out: &mut String, title: &str, counts: &BTreeMap<K, u64>) {
    let all: u64 = counts.values().sum();
    let _ = write!(out, "<details><summary>{title} ({})</summary><table>", count(all));
    for (what, n) in counts {
        let _ = write!(out, "<tr><td>{}<td>{}</tr>", escaped(what.as_ref()), count(*n));
    }
    *out += "</table></details>\n";
}

fn rest(out: &mut String, report: &Report, record: &Record) {
    *out += "<section id=\"details\">\n<h2>Everything else</h2>\n";
    if !report.excused.is_empty() {
        let title = "Connections that broke, failed, hang or are back and are excused, by what excuses them";
        table(out, title, &report.excused);
    }
    let mut table = |title: &str, counts: &BTreeMap<&'static str, u64>| table(out, title, counts);
    table("Packets that the engine dropped, by reason", &report.drops);
    table(
        "Frames and messages that links, rings and queues lost",
        &report.lost,
    );
    table("Messages between nodes, by kind", &report.sync);
    table("What nodes counted of replication", &report.counts);
    if !report.broken_flows.is_empty() {
        *out += "<details open><summary>The first connections that broke</summary><table>";
        for flow in &report.broken_flows {
            let _ = write!(out, "<tr><td>{}</tr>", escaped(&flow.to_string()));
        }
        *out += "</table></details>\n";
    }
    let _ = writeln!(
        out,
        "<details><summary>What nodes said, and what was done to them ({})</summary>\n<p class=\"js\"><input id=\"find\" type=\"search\" placeholder=\"find\" aria-label=\"find events\"></p><ul id=\"events\" class=\"events\">",
        count(record.events.len() as u64 + record.events_left_out)
    );
    for (ns, what) in &record.events {
        let _ = writeln!(out, "<li><code>{}</code> {}</li>", at(*ns), escaped(what));
    }
    *out += "</ul>\n";
    if record.events_left_out > 0 {
        let _ = writeln!(
            out,
            "<p class=\"soft\">The first {EVENT_COUNT_MAX}; {} later ones are left out. <code>--trace</code> tells all.</p>",
            count(record.events_left_out)
        );
    }
    *out += "</details>\n</section>\n";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::record::{Answers, GROUP_COUNT_MAX, Holds, Span, State};
    use crate::scenario::NODE_COUNT_MAX;
    use crate::{Options, Recording, run};
    use evenkeel_core::cluster::{GroupId, NodeId, Role};

    fn scenario(text: &str) -> Scenario {
        let parsed = crate::language::parse("x", text, &|_| Err(String::new()));
        parsed.unwrap_or_else(|e| panic!("{:?}", e.problems()))
    }

    fn recorded(scenario: &Scenario, flow: Option<u32>) -> Report {
        let options = Options {
            record: Some(Recording { flow }),
            ..Options::default()
        };
        run(scenario, 5, &options, &mut || true).expect("it runs")
    }

    fn crash() -> String {
        let crash = "[[fault]]\nname = \"crash\"\ndo = \"crash\"\nat = \"3s\"\nnode = \"master\"\n\n[[expect]]\nname = \"</td> & \\\"quotes\\\"\"\nthat = \"takeovers == 7\"\n[[expect]]";
        let text = crate::run::tests::TWO_NODES.replacen("[[expect]]", crash, 1);
        text.replace("nothing goes wrong", "<b>one</b> goes")
    }

    #[test]
    fn a_page_is_the_same_each_time_and_within_its_bounds() {
        let scenario = scenario(&crash());
        let mut report = recorded(&scenario, None);
        let page = report.html(&scenario, "a <b>.toml").expect("recorded");
        assert_eq!(
            recorded(&scenario, None).html(&scenario, "a <b>.toml").as_ref(),
            Some(&page)
        );
        assert!(page.len() < 400_000, "{} bytes", page.len());
        // What is recorded changes nothing of the run.
        let plain = run(&scenario, 5, &Options::default(), &mut || true).expect("it runs");
        assert_eq!((plain.digest, plain.html(&scenario, "x")), (report.digest, None));
        for words in [
            "<title>two-nodes, seed 5: ✗ FAIL</title>",
            "&lt;/td&gt; &amp; &quot;quotes&quot;",
            "two nodes, &lt;b&gt;one&lt;/b&gt; goes",
            "evenkeel sim run &#39;a &lt;b&gt;.toml&#39; --seed 5",
            "node 1: down, 3",
            "node 2: master",
            "another node answered for the VIPs",
            "own, node 1&#39;s",
            "have not broken in the end",
            "crash begins on node 1",
        ] {
            assert!(page.contains(words), "{words}");
        }
        assert!(!page.contains("://") && !page.contains("NaN"));
        // Everything as full as it can be.
        let record = report.record.as_mut().expect("recorded");
        let end_ns = record.end_ns;
        let mut lane = record.lanes[0].clone();
        let spans = |n: usize| (n as u64 * end_ns / 100, (n as u64 + 1) * end_ns / 100);
        let held = |n: usize| {
            let group = |g| GroupId {
                node: NodeId(16),
                generation: u64::MAX - g,
            };
            let role = if n.is_multiple_of(2) {
                Role::Draining
            } else {
                Role::Adopting
            };
            (0..GROUP_COUNT_MAX as u64)
                .map(|g| Holds {
                    group: group(g),
                    role,
                })
                .collect()
        };
        lane.state.spans.clear();
        lane.answers.spans.clear();
        lane.holds.spans.clear();
        for n in 0..SPAN_COUNT_MAX {
            let (from_ns, to_ns) = spans(n);
            lane.state.spans.push(Span {
                from_ns,
                to_ns,
                what: State::Degraded,
            });
            let what = Answers {
                vips: record.vip_counts,
                lips: (1..=NODE_COUNT_MAX as u16).collect(),
            };
            lane.answers.spans.push(Span { from_ns, to_ns, what });
            lane.holds.spans.push(Span {
                from_ns,
                to_ns,
                what: held(n),
            });
        }
        record.lanes = vec![lane; NODE_COUNT_MAX as usize];
        record.close_up = Some((1, end_ns));
        record.received_close = record.received.clone();
        let long = "x\u{1}".repeat(400);
        record.events = vec![(end_ns, long.clone()); EVENT_COUNT_MAX];
        let judged = record.judged[0].clone();
        record.judged = vec![
            Judged {
                name: "&".repeat(9_999),
                seen: "<".repeat(9_999),
                ..judged
            };
            50_000
        ];
        record.curve = vec![record.curve[1]; POINT_COUNT_MAX];
        record.timeline = vec![record.timeline[0].clone(); 2 * crate::scenario::FAULT_COUNT_MAX];
        let page = report.html(&scenario, "x").expect("recorded");
        assert!(page.len() < PAGE_LEN_MAX, "{} bytes", page.len());
        assert!(page.contains("and 49800 more that are not listed here"));
    }

    #[test]
    fn the_connection_is_the_first_that_broke_or_that_is_asked_for_and_its_packets_go_through_the_survivor() {
        let text = crash()
            .replace("servers = 3\n", "servers = 3\nreplicate = \"off\"\n")
            .replace("flows = 20\n", "flows = 20\ngive_up = \"1s\"\n");
        let scenario = scenario(&text);
        let report = recorded(&scenario, None);
        let first = report.broken_flows.first().expect("one broke").flow;
        let page = report.html(&scenario, "x").expect("recorded");
        assert!(
            page.contains(&format!("Flow {first} of load"))
                && page.contains("It is the first one that broke.")
        );
        let other = recorded(&scenario, Some(first + 1));
        assert_eq!(other.digest, report.digest);
        let record = other.record.as_ref().expect("recorded");
        let connection = record.connection.as_ref().expect("chosen");
        assert_eq!((connection.flow, connection.why), (first + 1, Why::Asked));
        let nodes: std::collections::BTreeSet<_> = connection.hops.iter().map(|h| h.from).collect();
        assert!(nodes.len() >= 3, "client, a node and a server send: {nodes:?}");
        assert!(connection.hops.iter().any(|h| h.words.starts_with("SYN seq 0")));
        let none = Options {
            record: Some(Recording { flow: Some(u32::MAX) }),
            ..Options::default()
        };
        let refused = run(&scenario, 5, &none, &mut || true).expect_err("no such flow");
        assert!(
            refused.to_string().starts_with("there is no flow 4294967295"),
            "{refused}"
        );
    }
}
