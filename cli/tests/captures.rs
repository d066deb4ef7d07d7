//! The committed captures: their summaries as text and JSON, and every frame that comes out verified.

#[path = "../../io-pcap/tests/replay/packets.rs"]
#[allow(dead_code, reason = "shared with io-pcap, whose tests use the rest")]
mod packets;
mod support;

use support::{evenkeel, folder, stderr, stdout, text};

/// Replays a capture and compares its summaries with the snapshots `NAME` and `NAME-json`.
fn check(name: &str, config: &str) {
    let out = folder(&format!("captures-{name}")).join("out.pcapng");
    let capture = format!("captures/{name}.pcap");
    let common = [
        "replay",
        "-r",
        &capture,
        "--config",
        config,
        "--map-vip",
        "--conns",
    ];
    let plain = evenkeel(&[&common[..], &["-w", text(&out)]].concat());
    assert_eq!(stderr(&plain), "");
    assert_eq!(plain.status.code(), Some(0));
    insta::assert_snapshot!(name, stdout(&plain));
    let json = evenkeel(&[&common[..], &["--json"]].concat());
    assert_eq!(json.status.code(), Some(0));
    insta::assert_snapshot!(format!("{name}-json"), stdout(&json));

    let written = packets::read_output(std::fs::read(&out).expect("written"));
    let value: serde_json::Value = serde_json::from_str(&stdout(&json)).expect("JSON");
    let sent = written.iter().filter(|w| w.sent).count() as u64;
    let v = &value["verdicts"];
    let sum: u64 = [
        "forwarded_inbound",
        "forwarded_outbound",
        "echo_replies",
        "originated",
    ]
    .iter()
    .map(|k| v[k].as_u64().expect("a number"))
    .sum();
    assert!(sent > 0, "something came out");
    assert_eq!(sent, sum);
    assert_eq!(
        (written.len() as u64) - sent,
        value["capture"]["packets"].as_u64().expect("a number")
    );

    // What each connection became does not depend on the number of workers.
    let seven = evenkeel(&[&common[..], &["--json", "--workers", "7"]].concat());
    let seven: serde_json::Value = serde_json::from_str(&stdout(&seven)).expect("JSON");
    for key in ["connections", "digest", "conns", "verdicts", "drops"] {
        assert_eq!(seven[key], value[key], "{key}");
    }
}

#[test]
fn captures_mariadb_idle_for_too_long() {
    check("mariadb", "examples/replay-mariadb.toml");
}

#[test]
fn captures_mariadb_short() {
    check("mariadb-short", "examples/fullnat.toml");
}

#[test]
fn captures_http4() {
    check("http4", "examples/fullnat.toml");
}

#[test]
fn captures_http6() {
    check("http6", "examples/fullnat.toml");
}

#[test]
fn captures_dns() {
    check("dns", "examples/fullnat.toml");
}

#[test]
fn captures_dns6() {
    check("dns6", "examples/fullnat.toml");
}

#[test]
fn captures_refused() {
    check("refused", "examples/fullnat.toml");
}

#[test]
fn captures_reset() {
    check("reset", "examples/fullnat.toml");
}

#[test]
fn captures_halfclosed() {
    check("halfclosed", "examples/fullnat.toml");
}
