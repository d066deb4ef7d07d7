//! What a replay says in the end, as text and as JSON.

use std::fmt;

use evenkeel_core::proto::ConnState;
use evenkeel_core::stats::{Counters, DropReason};
use serde::Serialize;

use super::ledger::ConnResult;

/// What happened. Serialized, its keys keep this order; a key is never taken away or given another meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// What was read.
    pub capture: CaptureSummary,
    /// What `--map-vip` did.
    pub map_vip: Option<MapVipSummary>,
    /// Packets by what became of them.
    pub verdicts: VerdictSummary,
    /// Dropped packets by reason, most first.
    pub drops: Vec<DropCount>,
    /// Connections by what became of them.
    pub conns: ConnSummary,
    /// Checksums of what was read.
    pub checksums: ChecksumSummary,
    /// Workers.
    pub workers: u8,
    /// What each worker had, if there are several.
    pub by_worker: Vec<WorkerSummary>,
    /// XXH3-128 over everything that came out: time, verdict, port and bytes. The same for any number of workers.
    pub digest: String,
    /// Each connection, if asked for, in the order in which they were opened.
    pub connections: Option<Vec<ConnResult>>,
    /// Connections that are not listed because there are too many.
    pub connections_omitted: u64,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaptureSummary {
    /// As it was given.
    pub file: String,
    /// `pcap` or `pcapng`; `None`: cut before it could be told.
    pub format: Option<String>,
    /// Packets that were read.
    pub packets: u64,
    /// Their captured bytes.
    pub bytes: u64,
    /// Time of the earliest one, in nanoseconds since the Unix epoch.
    pub first_ns: Option<u64>,
    /// Time of the latest one.
    pub last_ns: Option<u64>,
    /// Packets that the capture holds only in part.
    pub snapped: u64,
    /// Packets with an earlier time than one before them. The clock stood still for them.
    pub back_in_time: u64,
    /// Packets of which the capture holds more than there was on the wire, as it says.
    pub longer_than_wire: u64,
    /// Packets whose time has a part below a second that is a second or more; it counts for what it is.
    pub long_fractions: u64,
    /// Packets whose time cannot be told in 64 bits of nanoseconds since the Unix epoch, and was clamped.
    pub clamped_times: u64,
    /// Packets that the filter left out.
    pub filtered: u64,
    /// Packets that are no Ethernet frame and could not be made one.
    pub not_presented: NotPresented,
    /// Why reading ended before the end of the capture.
    pub cut: Option<String>,
    /// Reading was stopped from outside.
    pub interrupted: bool,
}

/// Packets that could not be presented, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NotPresented {
    /// A link type that is not supported.
    pub unsupported_link: u64,
    /// A protocol without EtherType.
    pub unsupported_protocol: u64,
    /// Cut within the link-layer header.
    pub too_short: u64,
}

/// What `--map-vip` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapVipSummary {
    /// The endpoint of the capture: protocol, address, port.
    pub endpoint: String,
    /// The VIP and its port: the endpoint's, unless nobody can be served there.
    pub vip: String,
    /// The service of the config that stands there.
    pub service: String,
    /// Packets of the endpoint's flows; `None`: it was chosen by the user, nothing was counted.
    pub packets: Option<u64>,
    /// Server endpoints in the capture.
    pub endpoints: Option<u64>,
}

/// Packets by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerdictSummary {
    /// Presented to the engine.
    pub presented: u64,
    /// Client to real server.
    pub forwarded_inbound: u64,
    /// Real server to client.
    pub forwarded_outbound: u64,
    /// Echo requests that became replies.
    pub echo_replies: u64,
    /// Asked something (ARP, NDP) that the engine answered.
    pub answered: u64,
    /// For the kernel.
    pub punted: u64,
    /// Dropped.
    pub dropped: u64,
    /// Handed from one worker to another: none, as software RSS brings packets to the right one.
    pub handed_off: u64,
    /// Frames that the engine made.
    pub originated: u64,
}

/// Dropped packets of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DropCount {
    /// The reason's name.
    pub reason: &'static str,
    /// Packets.
    pub packets: u64,
}

/// Connections by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConnSummary {
    /// Opened.
    pub opened: u64,
    /// Of these: became ESTABLISHED (UDP: were answered).
    pub established: u64,
    /// Closed by FINs of both sides or by a RST.
    pub closed: u64,
    /// Forgotten by their timer without having been closed.
    pub expired: u64,
    /// Closed, and forgotten since.
    pub removed: u64,
    /// In the table at the end.
    pub open: u64,
    /// These by state, in the order of the states' numbers.
    pub open_by_state: Vec<StateCount>,
}

/// Connections in one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateCount {
    /// The state's name in LVS.
    pub state: &'static str,
    /// Connections.
    pub conns: u64,
}

/// Checksums (IPv4 header, TCP, UDP, ICMP) of what was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChecksumSummary {
    /// Packets whose checksums are right.
    pub right: u64,
    /// Packets with a wrong one.
    pub wrong: u64,
    /// Of these: finished or computed anew before the engine saw them.
    pub fixed: u64,
    /// Packets that are captured only in part, of which the rest is right.
    pub partly: u64,
    /// Packets that have none.
    pub none: u64,
    /// Senders whose wrong checksums look as their NIC was to finish them.
    pub offload: Vec<OffloadSender>,
}

/// A sender whose checksums were captured before its NIC wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OffloadSender {
    /// Its address.
    pub sender: String,
    /// Packets.
    pub packets: u64,
}

/// What a worker had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerSummary {
    /// Packets presented to it.
    pub packets: u64,
    /// Conns that it opened.
    pub opened: u64,
}

impl VerdictSummary {
    pub(super) fn new(c: &Counters) -> Self {
        VerdictSummary {
            presented: c.rx_packets - c.handed_off.min(c.rx_packets),
            forwarded_inbound: c.inbound_packets,
            forwarded_outbound: c.outbound_packets,
            echo_replies: c.echo_replies,
            answered: c.answered,
            punted: c.punted,
            dropped: c.dropped(),
            handed_off: c.handed_off,
            originated: c.originated,
        }
    }
}

/// Reasons that occurred, most packets first, of equal ones the first in the list of reasons.
pub(super) fn drops(c: &Counters) -> Vec<DropCount> {
    let all = DropReason::ALL.iter().zip(&c.drops);
    let mut drops: Vec<_> = all
        .filter(|&(_, &packets)| packets > 0)
        .map(|(reason, &packets)| DropCount {
            reason: reason.name(),
            packets,
        })
        .collect();
    drops.sort_by_key(|d| std::cmp::Reverse(d.packets));
    drops
}

impl ConnSummary {
    pub(super) fn new(c: &Counters) -> Self {
        let states = ConnState::ALL
            .iter()
            .zip(&c.by_state)
            .filter(|&(_, &conns)| conns > 0);
        ConnSummary {
            opened: c.opened,
            established: c.established,
            closed: c.closed,
            expired: c.expired,
            removed: c.removed,
            open: c.by_state.iter().sum(),
            open_by_state: states
                .map(|(s, &conns)| StateCount {
                    state: s.name(),
                    conns,
                })
                .collect(),
        }
    }
}

/// A time as `2024-02-29T23:59:59.000000001Z`.
pub fn utc(ns: u64) -> String {
    let (seconds, fraction) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years from March, in eras of 400: then leap days come last (the proleptic Gregorian calendar).
    let from_march = days + 719_468;
    let (era, day) = (from_march / 146_097, from_march % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{fraction:09}Z")
}

/// Nanoseconds as seconds, without zeros at the end.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A file's name such that it does not steer the terminal: control characters, and those that turn the direction of
/// writing (Unicode's Bidi_Control), are escaped.
fn shown_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

fn plural(n: u64, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// A line with its label.
fn line(f: &mut fmt::Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    writeln!(f, "{label:<12} {text}")
}

/// `n what` for those that are not zero.
fn listed(counts: &[(u64, &str)]) -> String {
    let some: Vec<_> = counts
        .iter()
        .filter(|c| c.0 > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect();
    some.join(", ")
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.capture.fmt(f)?;
        if let Some(map) = &self.map_vip {
            let mut text = format!("{} in place of service {:?}", map.endpoint, map.service);
            if let (Some(packets), Some(endpoints)) = (map.packets, map.endpoints) {
                text += &format!(
                    ": busiest of {}, {}",
                    plural(endpoints, "endpoint"),
                    plural(packets, "packet")
                );
            }
            line(f, "vip", &text)?;
        }
        let v = &self.verdicts;
        line(
            f,
            "forwarded",
            &format!(
                "{} inbound, {} outbound",
                v.forwarded_inbound, v.forwarded_outbound
            ),
        )?;
        let answered = listed(&[(v.echo_replies, "echo"), (v.answered, "ARP and NDP")]);
        line(f, "answered", if answered.is_empty() { "0" } else { &answered })?;
        line(f, "punted", &v.punted.to_string())?;
        if v.handed_off > 0 {
            line(f, "handed off", &v.handed_off.to_string())?;
        }
        line(f, "dropped", &v.dropped.to_string())?;
        for d in &self.drops {
            writeln!(f, "  {:<22} {}", d.reason, d.packets)?;
        }
        let c = &self.conns;
        line(
            f,
            "conns",
            &format!(
                "{} opened, {} established, {} closed, {} expired, {} in the table at the end",
                c.opened, c.established, c.closed, c.expired, c.open
            ),
        )?;
        for s in &c.open_by_state {
            writeln!(f, "  {:<22} {}", s.state, s.conns)?;
        }
        let k = &self.checksums;
        let mut sums = format!("{} right, {} wrong", k.right, k.wrong);
        for (n, what) in [
            (k.fixed, "of these fixed"),
            (k.partly, "captured in part"),
            (k.none, "without"),
        ] {
            if n > 0 {
                sums += &format!(", {n} {what}");
            }
        }
        line(f, "checksums", &sums)?;
        if !self.by_worker.is_empty() {
            line(f, "workers", &self.workers.to_string())?;
            for (i, w) in self.by_worker.iter().enumerate() {
                writeln!(
                    f,
                    "  {i:<22} {}, {} opened",
                    plural(w.packets, "packet"),
                    w.opened
                )?;
            }
        }
        line(f, "digest", &self.digest)?;
        for note in &self.notes {
            line(f, "note", note)?;
        }
        if let Some(conns) = &self.connections {
            for conn in conns {
                conn.fmt(f)?;
            }
            if self.connections_omitted > 0 {
                writeln!(f, "and {}", plural(self.connections_omitted, "more conn"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for CaptureSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.format.as_deref().unwrap_or("unknown format");
        let packets = plural(self.packets, "packet");
        let mut text = format!(
            "{}: {format}, {packets}, {}",
            shown_name(&self.file),
            plural(self.bytes, "byte")
        );
        if let (Some(first), Some(last)) = (self.first_ns, self.last_ns) {
            text += &format!(", {} s from {}", seconds(last - first), utc(first));
        }
        line(f, "capture", &text)?;
        let n = &self.not_presented;
        let not = [
            (n.unsupported_link, "of an unsupported link type"),
            (n.unsupported_protocol, "of a protocol without EtherType"),
            (n.too_short, "cut in the link-layer header"),
            (self.filtered, "filtered out"),
        ];
        let odd = [
            (self.snapped, "captured in part"),
            (self.back_in_time, "back in time"),
            (self.longer_than_wire, "longer than on the wire"),
            (self.long_fractions, "with a second or more below the second"),
            (self.clamped_times, "with a time beyond all clocks"),
        ];
        for (label, counts) in [("left out", &not[..]), ("odd", &odd[..])] {
            let text = listed(counts);
            if !text.is_empty() {
                line(f, label, &text)?;
            }
        }
        if let Some(cut) = &self.cut {
            line(f, "CUT SHORT", cut)?;
        }
        if self.interrupted {
            line(f, "INTERRUPTED", "stopped before the end of the capture")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConnResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::ledger::ConnEnd;
        writeln!(
            f,
            "conn {} {} > {} => {} > {}",
            self.proto, self.client, self.vip, self.local, self.server
        )?;
        let end = match (self.end, self.ended_ns) {
            (ConnEnd::Open, _) | (_, None) => "in the table at the end".to_owned(),
            (ConnEnd::Expired, Some(at)) => format!("expired {}", utc(at)),
            (ConnEnd::Closed, Some(at)) => format!("closed, forgotten {}", utc(at)),
            (ConnEnd::Replaced, Some(at)) => format!("replaced {}", utc(at)),
        };
        writeln!(
            f,
            "  {}{}{}, {} and {} in, {} and {} out",
            self.state,
            if self.established { ", was established" } else { "" },
            if self.closed { ", was closed" } else { "" },
            plural(self.inbound_packets, "packet"),
            plural(self.inbound_bytes, "byte"),
            plural(self.outbound_packets, "packet"),
            plural(self.outbound_bytes, "byte"),
        )?;
        writeln!(f, "  {} to {}, {end}", utc(self.opened_ns), utc(self.last_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (4_107_542_399_999_999_999, "2100-02-28T23:59:59.999999999Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(utc(ns), text);
        }
        assert_eq!(seconds(1_500_000_000), "1.5");
        assert_eq!(seconds(0), "0");
        assert_eq!(seconds(20_000_000_000), "20");
    }
}
