//! Answers as text, for people.

use evenkeel_node::admin::{Conn, Counts, PeerStatus, Replication, Services, Stats, Status};

/// Width of a column that never grows beyond it: longer words push the rest of their line.
const WIDTH_MAX: usize = 60;

/// Rows under a head, each column as wide as its longest word; numbers to the right.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|word| word.chars().count()).collect();
    widen(&mut widths, rows);
    let mut out = String::new();
    let head: Vec<String> = head.iter().map(|word| word.to_string()).collect();
    let numbers: Vec<bool> = (0..widths.len())
        .map(|at| !rows.is_empty() && rows.iter().all(|row| row.get(at).is_some_and(|w| is_number(w))))
        .collect();
    for row in std::iter::once(&head).chain(rows) {
        line(&mut out, row, &widths, &numbers);
    }
    out
}

fn widen(widths: &mut [usize], rows: &[Vec<String>]) {
    for row in rows {
        for (width, word) in widths.iter_mut().zip(row) {
            *width = (*width).max(word.chars().count()).min(WIDTH_MAX);
        }
    }
}

fn is_number(word: &str) -> bool {
    word == "-" || (!word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()))
}

fn line(out: &mut String, row: &[String], widths: &[usize], numbers: &[bool]) {
    let mut text = String::new();
    for ((word, &width), &number) in row.iter().zip(widths).zip(numbers) {
        if number {
            text.push_str(&format!("{word:>width$}  "));
        } else {
            text.push_str(&format!("{word:<width$}  "));
        }
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

/// Names and values, one a line.
fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = pairs
        .iter()
        .map(|(name, value)| format!("{name:<width$}  {value}\n"));
    lines.collect()
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_string()
}

fn or_dash(n: Option<u64>) -> String {
    n.map_or_else(|| "-".to_string(), |n| n.to_string())
}

/// 93784 s as `1d 2h 3m`; the two largest units that are not 0, or seconds.
fn span(seconds: u64) -> String {
    let units = [
        (seconds / 86_400, 'd'),
        (seconds / 3600 % 24, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let words: Vec<String> = units
        .iter()
        .skip_while(|(n, _)| *n == 0)
        .take(2)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect();
    if words.is_empty() {
        "0s".to_string()
    } else {
        words.join(" ")
    }
}

pub(super) fn status(status: &Status) -> String {
    let ready = match &status.not_ready_because {
        None => "yes".to_string(),
        Some(because) => format!("no: {because}"),
    };
    let mut lines = Vec::new();
    if let Some(cluster) = &status.cluster {
        lines.push((
            "node",
            format!(
                "{} (node {} of cluster {})",
                cluster.node, cluster.node_id, cluster.id
            ),
        ));
    }
    lines.push(("version", status.version.clone()));
    lines.push(("up for", span(status.uptime_seconds)));
    lines.push(("ready", ready));
    if let Some(cluster) = &status.cluster {
        let state = match (cluster.drained, cluster.draining) {
            (true, _) => "drained: everything is handed over",
            (_, true) => "draining",
            _ => cluster.readiness.as_str(),
        };
        lines.push(("state", state.to_string()));
        if cluster.virtual_router {
            let master = match (cluster.master.is_empty(), cluster.promoted) {
                (true, false) => "no".to_string(),
                (true, true) => "no, though promoted".to_string(),
                (false, false) => cluster.master.join(", "),
                (false, true) => format!("{} (promoted)", cluster.master.join(", ")),
            };
            lines.push(("master", master));
        }
        let addrs: Vec<_> = cluster.answers_for.iter().map(ToString::to_string).collect();
        let addrs = if addrs.is_empty() {
            "nothing".to_string()
        } else {
            addrs.join(", ")
        };
        lines.push(("answers for", addrs));
    }
    lines.push(("conns", status.conns.to_string()));
    let mut out = pairs(&lines);
    if !status.alarms.is_empty() {
        out.push_str("\nAlarms\n");
        for alarm in &status.alarms {
            out.push_str(&format!("  {}: {}\n", alarm.kind, alarm.text));
        }
    }
    if let Some(cluster) = &status.cluster
        && !cluster.peers.is_empty()
    {
        out.push('\n');
        out.push_str(&peers(&cluster.peers));
    }
    let rows: Vec<Vec<String>> = status
        .workers
        .iter()
        .map(|w| {
            let [v4, v6] = w.capacity;
            vec![
                w.id.to_string(),
                yes(w.answered),
                w.conns.to_string(),
                format!("{v4}+{v6}"),
                w.rx_packets.to_string(),
                w.tx_packets.to_string(),
                w.dropped.to_string(),
            ]
        })
        .collect();
    out.push('\n');
    out.push_str(&table(
        &[
            "WORKER", "ANSWERS", "CONNS", "CAPACITY", "RECEIVED", "SENT", "DROPPED",
        ],
        &rows,
    ));
    out
}

fn peers(peers: &[PeerStatus]) -> String {
    let rows: Vec<Vec<String>> = peers
        .iter()
        .map(|peer| {
            let state = match (peer.up, peer.draining) {
                (false, _) => "down",
                (true, true) => "draining",
                (true, false) => peer.readiness.as_str(),
            };
            vec![
                peer.name.clone(),
                state.to_string(),
                or_dash(peer.heard_ms_ago),
                yes(peer.hears_this_node),
                yes(peer.can_take_over),
                peer.behind.to_string(),
                peer.unacked.to_string(),
            ]
        })
        .collect();
    table(
        &[
            "PEER",
            "STATE",
            "HEARD MS AGO",
            "HEARS US",
            "CAN TAKE OVER",
            "WE LACK",
            "IT LACKS",
        ],
        &rows,
    )
}

pub(super) fn services(services: &Services) -> String {
    let mut rows = Vec::new();
    for service in &services.services {
        rows.push(vec![
            service.name.clone(),
            service.protocol.clone(),
            service.vip.clone(),
            service.scheduler.clone(),
            "-".to_string(),
            or_dash(service.conns),
            format!("replicate {}", service.replicate),
        ]);
        for server in &service.servers {
            let state = match (server.up, server.reachable) {
                (false, _) => "down",
                (true, false) => "no way to it",
                (true, true) => "up",
            };
            let because = server.not_checked_because.as_ref();
            let unchecked = because.map_or_else(String::new, |why| format!(" (not checked: {why})"));
            rows.push(vec![
                String::new(),
                String::new(),
                format!("  {}", server.address),
                String::new(),
                server.weight.to_string(),
                or_dash(server.conns),
                format!("{state}{unchecked}"),
            ]);
        }
    }
    table(
        &[
            "SERVICE",
            "PROTO",
            "VIP / SERVER",
            "SCHED",
            "WEIGHT",
            "CONNS",
            "STATE",
        ],
        &rows,
    )
}

/// A page of conns. The first one has the head, and says how wide columns are.
pub(super) fn conns(conns: &[Conn], widths: &mut Option<Vec<usize>>) -> String {
    let head = [
        "PROTO",
        "CLIENT",
        "VIP",
        "LOCAL",
        "SERVER",
        "STATE",
        "EXPIRES MS",
        "SERVICE",
        "WORKER",
        "GROUP",
    ];
    let numbers = [false, false, false, false, false, false, true, false, true, false];
    let rows: Vec<Vec<String>> = conns
        .iter()
        .map(|conn| {
            vec![
                conn.protocol.clone(),
                conn.client.clone(),
                conn.vip.clone(),
                conn.local.clone(),
                conn.server.clone(),
                conn.state.clone(),
                conn.expires_ms.to_string(),
                conn.service.clone(),
                conn.worker.to_string(),
                conn.group.clone().unwrap_or_else(|| "-".to_string()),
            ]
        })
        .collect();
    let mut out = String::new();
    let first = widths.is_none();
    let widths = widths.get_or_insert_with(|| head.iter().map(|word| word.len()).collect());
    widen(widths, &rows);
    if first {
        line(&mut out, &head.map(str::to_string), widths, &numbers);
    }
    for row in &rows {
        line(&mut out, row, widths, &numbers);
    }
    out
}

pub(super) fn replication(replication: &Replication) -> String {
    if !replication.cluster {
        return "this node is in no cluster: nothing is replicated\n".to_string();
    }
    let lease = replication.lease_ms.map_or_else(
        || "uncertain".to_string(),
        |ms| format!("certain for {ms} ms more"),
    );
    let mut out = pairs(&[("state", replication.readiness.clone()), ("lease", lease)]);
    out.push('\n');
    out.push_str(&peers(&replication.peers));
    let rows: Vec<Vec<String>> = replication
        .groups
        .iter()
        .map(|group| {
            vec![
                group.id.clone(),
                group.role.clone(),
                group.holder.clone(),
                group.term.to_string(),
                group.sessions.to_string(),
                group.slots_outstanding.to_string(),
                group.slots_lacking.to_string(),
            ]
        })
        .collect();
    out.push('\n');
    out.push_str(&table(
        &[
            "GROUP",
            "ROLE HERE",
            "HOLDER",
            "TERM",
            "SESSIONS",
            "SLOTS TO COME",
            "SLOTS LACKING",
        ],
        &rows,
    ));
    let moved = counts(&replication.counters);
    if !moved.is_empty() {
        out.push('\n');
        out.push_str(&table(&["COUNTER", "COUNT"], &moved));
    }
    out
}

/// Those that are not 0.
fn counts(counts: &Counts) -> Vec<Vec<String>> {
    let moved = counts.iter().filter(|(_, n)| **n != 0);
    moved.map(|(name, n)| vec![name.clone(), n.to_string()]).collect()
}

pub(super) fn stats(stats: &Stats) -> String {
    let mut rows = Vec::new();
    let mut add = |of: String, part: &str, all: &Counts| {
        for row in counts(all) {
            let mut line = vec![of.clone(), part.to_string()];
            line.extend(row);
            rows.push(line);
        }
    };
    for worker in &stats.workers {
        let of = || format!("worker {}", worker.id);
        let turns = Counts::from([("turns".to_string(), worker.turns)]);
        add(of(), "loop", &turns);
        add(of(), "engine", &worker.counters);
        add(of(), "drops", &worker.drops);
        add(of(), "states", &worker.states);
        add(of(), "table", &worker.table);
        add(of(), "sync", &worker.sync);
        add(of(), "lane", &worker.lane);
        add(of(), "io", &worker.io);
    }
    for port in &stats.ports {
        add(format!("port {}", port.name), "driver", &port.driver);
    }
    add("node".to_string(), "transport", &stats.transport);
    add("node".to_string(), "receiver", &stats.receiver);
    add("node".to_string(), "cluster", &stats.node);
    add("node".to_string(), "health", &stats.health);
    add("node".to_string(), "refused", &stats.admin);
    add("node".to_string(), "buffers", &stats.buffers);
    let log = Counts::from([
        ("lines-suppressed".to_string(), stats.log_suppressed),
        ("lines-dropped".to_string(), stats.log_dropped),
    ]);
    add("node".to_string(), "log", &log);
    let silent: Vec<_> = stats.workers.iter().filter(|w| !w.answered).collect();
    let mut out = table(&["WHO", "PART", "COUNTER", "COUNT"], &rows);
    for worker in silent {
        out.push_str(&format!("worker {} did not answer within a second\n", worker.id));
    }
    if let Some(why) = &stats.health_not_made_because {
        out.push_str(&format!("the last health check that could not be made: {why}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_word_and_numbers_stand_right() {
        let row = |a: &str, b: &str| vec![a.to_string(), b.to_string()];
        let shown = table(
            &["NAME", "COUNT"],
            &[row("a-long-name", "7"), row("b", "1234567")],
        );
        assert_eq!(
            shown,
            "NAME           COUNT\n\
             a-long-name        7\n\
             b            1234567\n"
        );
        assert_eq!(table(&["NAME", "COUNT"], &[]), "NAME  COUNT\n");
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, shown) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m 1s"),
            (7200, "2h 0m"),
            (93_784, "1d 2h"),
        ] {
            assert_eq!(span(seconds), shown);
        }
    }
}
