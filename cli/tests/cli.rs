//! The binary from outside: arguments, exit codes, what goes to which stream.

#[path = "../../io-pcap/tests/replay/packets.rs"]
#[allow(dead_code, reason = "shared with io-pcap, whose tests use the rest")]
mod packets;
mod support;

use std::fs;
use std::path::PathBuf;

use packets::*;
use support::{evenkeel, evenkeel_with, folder, root, stderr, stdout, text};

const CONFIG: &str = "examples/fullnat.toml";

/// One connection at a server at 192.0.2.80:80, a VIP of the example config.
fn one_session() -> Vec<(u64, Vec<u8>)> {
    timed(session(end("100.64.1.77:40001"), end("192.0.2.80:80")))
}

/// A file in a folder of the test's own.
fn file(test: &str, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder(test).join(name);
    fs::write(&path, bytes).expect("written");
    path
}

fn json(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|e| panic!("{e}: {}", stderr(output)))
}

/// What was said on standard error, in one line.
fn said(output: &std::process::Output) -> String {
    stderr(output)
        .split_whitespace()
        .filter(|&w| w != "│")
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn help_has_examples_and_exit_codes() {
    for args in [
        &["--help"][..],
        &["replay", "--help"],
        &["check", "--help"],
        &["completions", "--help"],
    ] {
        let help = evenkeel(args);
        assert_eq!(help.status.code(), Some(0), "{args:?}");
        assert!(stdout(&help).contains("Exit codes: 0"), "{args:?}");
        assert!(args.len() == 1 || stdout(&help).contains("Examples:"), "{args:?}");
        assert_eq!(stderr(&help), "");
    }
    let help = stdout(&evenkeel(&["replay", "--help"]));
    for option in [
        "--read",
        "--config",
        "--write",
        "--map-vip",
        "--bad-checksums",
        "--workers",
        "--json",
        "--conns",
        "--seed",
        "--filter",
    ] {
        assert!(help.contains(option), "{option}");
    }
    let version = evenkeel(&["--version"]);
    assert_eq!(
        stdout(&version),
        format!("evenkeel {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = evenkeel(&["completions", shell]);
        assert_eq!(script.status.code(), Some(0));
        assert!(stdout(&script).contains("bad-checksums"), "{shell}");
    }
    assert_eq!(evenkeel(&["completions", "tcsh"]).status.code(), Some(1));
}

#[test]
fn exit_codes_of_what_is_refused() {
    let dir = folder("exit_codes_refused");
    let good = dir.join("good.pcap");
    fs::write(&good, capture(&one_session())).expect("written");
    let (good, foreign, bad_config) = (text(&good).to_owned(), dir.join("foreign"), dir.join("bad.toml"));
    fs::write(&foreign, "no capture at all").expect("written");
    fs::write(&bad_config, "workers = 1\nservice = 7\n").expect("written");
    let (foreign, bad_config) = (text(&foreign), text(&bad_config));
    for (args, words) in [
        (&["replay"][..], "--read"),
        (&["no-such-command"], "no-such-command"),
        (
            &["replay", "-r", &good, "--config", CONFIG, "--workers", "0"],
            "1..=64",
        ),
        (
            &["replay", "-r", &good, "--config", CONFIG, "--workers", "65"],
            "1..=64",
        ),
        (
            &[
                "replay",
                "-r",
                &good,
                "--config",
                CONFIG,
                "--bad-checksums",
                "ignore",
            ],
            "possible values",
        ),
        (
            &["replay", "-r", &good, "--config", CONFIG, "--map-vip=10.0.0.1"],
            "ADDRESS:PORT/tcp",
        ),
        (
            &["replay", "-r", "/nonexistent.pcap", "--config", CONFIG],
            "cannot open /nonexistent.pcap",
        ),
        (
            &["replay", "-r", ".", "--config", CONFIG, "--map-vip"],
            "cannot open .: it is a directory",
        ),
        (
            &["replay", "-r", foreign, "--config", CONFIG],
            "not a capture file",
        ),
        (
            &["replay", "-r", &good, "--config", "/nonexistent.toml"],
            "cannot read the config /nonexistent.toml",
        ),
        (&["replay", "-r", &good, "--config", bad_config], "bad.toml"),
        (&["replay", "-r", &good, "--config", &good], "not UTF-8"),
        (
            &["replay", "-r", "-", "--config", "-"],
            "both come from standard input",
        ),
        (
            &["replay", "-r", &good, "--config", CONFIG, "-w", &good],
            "would write over the capture",
        ),
        (
            &[
                "replay",
                "-r",
                &good,
                "--config",
                CONFIG,
                "-w",
                "/nonexistent/out.pcapng",
            ],
            "there is no directory /nonexistent",
        ),
        (
            &[
                "replay",
                "-r",
                &good,
                "--config",
                CONFIG,
                "--map-vip=198.51.100.11:80/tcp",
            ],
            "as a real server of service",
        ),
        (&["check", "/nonexistent.toml"], "cannot read the config"),
        (&["check", bad_config], "bad.toml"),
    ] {
        let refused = evenkeel(args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}: {}", stdout(&refused));
        let said = said(&refused);
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(!said.contains("panicked"));
        assert_eq!(stdout(&refused), "", "{args:?}");
    }
    assert_eq!(
        fs::read(&good).expect("still there"),
        capture(&one_session()),
        "nothing was written over"
    );
    // A link to the capture is the capture.
    #[cfg(unix)]
    {
        let taken = format!("{good}.pcapng");
        std::os::unix::fs::symlink(&good, &taken).expect("a link");
        let refused = evenkeel(&["replay", "-r", &good, "--config", CONFIG, "-w", &taken]);
        assert_eq!(refused.status.code(), Some(1));
    }
}

#[test]
fn exit_codes_of_a_cut_capture() {
    let bytes = capture(&one_session());
    let cut = file("exit_codes_cut", "cut.pcap", &bytes[..bytes.len() - 10]);
    let output = evenkeel(&[
        "replay",
        "-r",
        text(&cut),
        "--config",
        CONFIG,
        "--map-vip",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cut short"), "{}", stderr(&output));
    let summary = json(&output);
    assert_eq!(summary["capture"]["packets"], 7);
    assert!(
        summary["capture"]["cut"]
            .as_str()
            .expect("named")
            .contains("7 packets")
    );
    assert_eq!(
        summary["conns"]["established"], 1,
        "what could be read was replayed"
    );
    let output = evenkeel(&["replay", "-r", text(&cut), "--config", CONFIG, "--map-vip"]);
    assert!(stdout(&output).contains("CUT SHORT"), "{}", stdout(&output));
    // Not even the file header.
    fs::write(&cut, &bytes[..10]).expect("written");
    let output = evenkeel(&["replay", "-r", text(&cut), "--config", CONFIG]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[cfg(target_os = "linux")]
#[test]
fn exit_codes_of_a_full_disk() {
    let good = file("exit_codes_full", "good.pcap", &capture(&one_session()));
    let output = evenkeel(&["replay", "-r", text(&good), "--config", CONFIG, "-w", "/dev/full"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/dev/full"), "{}", stderr(&output));
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    use std::process::Stdio;
    let frames: Vec<_> = (0..400u16)
        .flat_map(|i| session(end(&format!("100.64.1.77:{}", 20_000 + i)), end("192.0.2.80:80")))
        .collect();
    let good = file("broken_pipe", "good.pcap", &capture(&timed(frames)));
    let mut command = support::command(&[
        "replay",
        "-r",
        text(&good),
        "--config",
        CONFIG,
        "--map-vip",
        "-w",
        "-",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

#[test]
fn output_to_file_gzip_and_stdout_is_the_same() {
    let dir = folder("output_forms");
    let good = dir.join("good.pcap");
    fs::write(&good, capture(&one_session())).expect("written");
    let common = ["replay", "-r", text(&good), "--config", CONFIG, "--map-vip"];
    let (plain, gz) = (dir.join("out.pcapng"), dir.join("out.pcapng.gz"));
    let to_file = evenkeel(&[&common[..], &["-w", text(&plain)]].concat());
    let to_gz = evenkeel(&[&common[..], &["-w", text(&gz)]].concat());
    let to_stdout = evenkeel(&[&common[..], &["-w", "-"]].concat());
    for output in [&to_file, &to_gz, &to_stdout] {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    }
    let bytes = fs::read(&plain).expect("written");
    assert_eq!(to_stdout.stdout, bytes);
    assert_eq!(
        stderr(&to_stdout),
        stdout(&to_file),
        "the summary makes room for the capture"
    );
    let compressed = fs::read(&gz).expect("written");
    assert_eq!(compressed[..2], [0x1f, 0x8b]);
    let written = read_output(bytes);
    assert_eq!(read_output(compressed), written);
    assert_eq!(written.len(), 16);
    assert_eq!(written[0].comment, "forwarded inbound (packet 1)");
}

#[test]
fn output_of_two_runs_is_the_same_and_stdin_is_read_twice() {
    let bytes = capture(&one_session());
    let good = file("output_stdin", "good.pcap", &bytes);
    let from_file = evenkeel(&[
        "replay",
        "-r",
        text(&good),
        "--config",
        CONFIG,
        "--map-vip",
        "-w",
        "-",
    ]);
    for _ in 0..2 {
        let piped = evenkeel_with(
            &["replay", "-r", "-", "--config", CONFIG, "--map-vip", "-w", "-"],
            bytes.clone(),
        );
        assert_eq!(piped.status.code(), Some(0), "{}", stderr(&piped));
        assert_eq!(piped.stdout, from_file.stdout);
    }
    let config = fs::read(root().join(CONFIG)).expect("there");
    let piped = evenkeel_with(
        &[
            "replay",
            "-r",
            text(&good),
            "--config",
            "-",
            "--map-vip",
            "-w",
            "-",
        ],
        config,
    );
    assert_eq!(piped.stdout, from_file.stdout);
}

#[test]
fn bad_checksums_are_explained() {
    let mut frames = one_session();
    frames.iter_mut().for_each(|(_, frame)| leave_to_nic(frame));
    let path = file("bad_checksums", "offload.pcap", &capture(&frames));
    let run = |more: &[&str]| evenkeel(&[&["replay", "-r", text(&path), "--config", CONFIG], more].concat());
    for (more, opened, said) in [
        (&["--map-vip"][..], 1, "finished as the NIC would have done"),
        (
            &["--map-vip", "--bad-checksums", "drop"],
            0,
            "replay with --bad-checksums fix",
        ),
        (&["--map-vip", "--bad-checksums", "fix"], 1, "computed anew"),
        (&["--map-vip", "--bad-checksums", "accept"], 1, "as they are"),
        (&[], 0, "replay with --bad-checksums fix"),
    ] {
        let output = run(&[more, &["--json"]].concat());
        let summary = json(&output);
        assert_eq!(summary["conns"]["opened"], opened, "{more:?}");
        assert_eq!(summary["checksums"]["wrong"], 8);
        let text = stdout(&run(more));
        assert!(
            text.contains("look like transmit offload") && text.contains(said),
            "{more:?}: {text}"
        );
    }
}

#[test]
fn map_vip_of_odd_captures_never_panics() {
    let dir = folder("map_vip_odd");
    let client = end("100.64.1.77:40001");
    let stories: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("nothing", vec![]),
        ("fragments", vec![fragment(client, end("192.0.2.53:53")); 50]),
        ("garbage", (0..=255u8).map(|b| vec![b; usize::from(b)]).collect()),
        ("no-syn", session(client, end("192.0.2.80:80")).split_off(3)),
        ("to-itself", session(end("100.64.1.77:80"), end("100.64.1.77:80"))),
        ("loopback", session(end("127.0.0.1:999"), end("127.0.0.1:80"))),
        ("multicast", vec![udp(client, end("224.0.0.251:5353"), b"?"); 3]),
        ("arp", vec![arp_request([1, 1, 1, 1], [192, 0, 2, 80]); 100]),
        ("link-local", session(end("[fe80::1]:1"), end("[fe80::2]:2"))),
    ];
    for (name, frames) in stories {
        let path = dir.join(name);
        fs::write(&path, capture(&timed(frames.clone()))).expect("written");
        for workers in ["1", "7"] {
            let args = [
                "replay",
                "-r",
                text(&path),
                "--config",
                CONFIG,
                "--map-vip",
                "--json",
                "--conns",
                "--workers",
                workers,
            ];
            let output = evenkeel(&args);
            assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
            assert_eq!(json(&output)["verdicts"]["presented"], frames.len(), "{name}");
        }
    }
}

#[test]
fn json_of_check_lists_all_files() {
    let bad = file("json_check", "bad.toml", b"workers = 1\ncolour = 7\n");
    let output = evenkeel(&["check", CONFIG, text(&bad), "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["ok"], false);
    let [good, bad] = &report["files"].as_array().expect("files")[..] else {
        panic!("two files")
    };
    assert_eq!(
        (&good["ok"], &good["file"], &good["services"]),
        (&true.into(), &CONFIG.into(), &4.into())
    );
    let errors = bad["errors"].as_array().expect("errors");
    let is_colour = |e: &&serde_json::Value| e["message"].as_str().is_some_and(|m| m.contains("colour"));
    let first = errors.iter().find(is_colour).expect("named");
    assert_eq!(bad["ok"], false);
    assert_eq!(
        (&first["line"], &first["column"]),
        (&2.into(), &1.into()),
        "{first}"
    );
}

#[test]
fn check_says_ok_or_shows_every_error() {
    let ok = evenkeel(&["check", CONFIG]);
    assert_eq!(
        stdout(&ok),
        format!("{CONFIG}: ok: 4 services, 9 servers, 2 ports, 2 workers, 89.6 MiB of tables\n")
    );
    assert_eq!((ok.status.code(), stderr(&ok)), (Some(0), String::new()));
    let bad = file(
        "check_errors",
        "bad.toml",
        b"workers = 1\ncolour = 7\nshape = 8\n",
    );
    let output = evenkeel(&["check", text(&bad), CONFIG]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("colour") && stderr(&output).contains("shape"));
    assert!(
        stdout(&output).contains("ok: 4 services"),
        "the others are checked too"
    );
    let piped = evenkeel_with(&["check", "-"], fs::read(root().join(CONFIG)).expect("there"));
    assert_eq!(
        stdout(&piped),
        "-: ok: 4 services, 9 servers, 2 ports, 2 workers, 89.6 MiB of tables\n"
    );
}

const CLUSTER: &str = "examples/active-backup.toml";

#[test]
fn check_says_what_it_found_of_a_cluster() {
    for (node, first, second) in [
        (&[][..], "3 local addresses, this one", "3 local addresses"),
        (
            &["--node", "lb2"][..],
            "3 local addresses",
            "3 local addresses, this one",
        ),
    ] {
        let output = evenkeel(&[&["check", CLUSTER][..], node].concat());
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
        let text = stdout(&output);
        let line = text.lines().nth(1).expect("a second line");
        let wanted = format!(
            "  cluster 1, virtual router 51: lb1 (priority 200, {first}), lb2 (priority 100, {second})"
        );
        assert_eq!(line, wanted);
    }
    let output = evenkeel(&["check", CLUSTER, CONFIG, "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output);
    let wanted = serde_json::json!({
        "id": 1,
        "node": "lb1",
        "members": [
            {
                "id": 1, "name": "lb1", "priority": 200, "sync": "10.255.0.1:4790",
                "local_addresses": ["198.51.100.101", "198.51.100.102", "2001:db8:5::101"],
            },
            {
                "id": 2, "name": "lb2", "priority": 100, "sync": "10.255.0.2:4790",
                "local_addresses": ["198.51.100.111", "198.51.100.112", "2001:db8:5::111"],
            },
        ],
        "vrid": 51,
        "virtual_addresses": ["192.0.2.53", "192.0.2.80", "2001:db8::80"],
    });
    assert_eq!(report["files"][0]["cluster"], wanted);
    assert!(report["files"][1]["cluster"].is_null());
    let output = evenkeel(&["check", CLUSTER, "--node", "lb3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("did you mean \"lb1\""),
        "{}",
        stderr(&output)
    );
}

/// As one node: on its own share, and with nothing known of the other node's.
#[test]
fn a_node_of_a_cluster_is_replayed_alone() {
    let bare = fs::read_to_string(root().join(CLUSTER)).expect("there");
    let bare = bare.replace("this_node = \"lb1\"", "");
    let bare = file("cluster_replay", "bare.toml", bare.as_bytes());
    let replay = |config: &str, node: &[&str]| {
        let args = [
            "replay",
            "-r",
            "captures/http4.pcap",
            "--map-vip",
            "--json",
            "--conns",
            "--config",
            config,
        ];
        evenkeel(&[&args[..], node].concat())
    };
    for (node, own) in [("lb1", "198.51.100.10"), ("lb2", "198.51.100.11")] {
        let output = replay(text(&bare), &["--node", node]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let summary = json(&output);
        assert!(
            summary["conns"]["opened"].as_u64().is_some_and(|n| n > 0),
            "{summary}"
        );
        assert!(summary.to_string().contains(own), "{summary}");
    }
    assert_eq!(replay(CLUSTER, &[]).status.code(), Some(0));
    let output = replay(text(&bare), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("this_node"));
}

#[test]
fn warnings_that_are_left_out_are_counted_in_words() {
    let config = fs::read_to_string(root().join("control/tests/warn/no_next_hop.toml")).expect("there");
    // It has one warning of its own; a hundred are shown.
    for (more, words) in [(100, "\nand 1 more warning\n"), (101, "\nand 2 more warnings\n")] {
        let servers =
            (1..=more).map(|i| format!("[[service.server]]\naddress = \"[2001:db8:9::{:x}]:80\"\n", i + 1));
        let config = format!("{config}{}", servers.collect::<String>());
        let path = file("many_warnings", "many.toml", config.as_bytes());
        let output = evenkeel(&["check", text(&path)]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).ends_with(words), "{:.200}", stderr(&output));
    }
}

/// Whose link-layer address is asked for on a network has none in a capture.
#[test]
fn only_replay_warns_of_who_can_be_asked_for() {
    let config = root().join("control/tests/warn/unknown_gateway.toml");
    let output = evenkeel(&["check", text(&config)]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        !stderr(&output).contains("unknown_gateway"),
        "{}",
        stderr(&output)
    );
    let good = file("unresolved", "good.pcap", &capture(&one_session()));
    let output = evenkeel(&["replay", "-r", text(&good), "--config", text(&config)]);
    for code in ["unknown_gateway", "no_next_hop"] {
        assert!(stderr(&output).contains(code), "{}", stderr(&output));
    }
}

#[cfg(not(feature = "libpcap"))]
#[test]
fn filter_without_libpcap_says_how_to_get_it() {
    let good = file("filter", "good.pcap", &capture(&one_session()));
    let output = evenkeel(&["replay", "-r", text(&good), "--config", CONFIG, "--filter", "tcp"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("--features libpcap"),
        "{}",
        stderr(&output)
    );
}

#[cfg(feature = "libpcap")]
#[test]
fn filter_leaves_out_what_does_not_match() {
    let good = file("filter", "good.pcap", &capture(&one_session()));
    let common = [
        "replay",
        "-r",
        text(&good),
        "--config",
        CONFIG,
        "--json",
        "--filter",
    ];
    let output = evenkeel(&[&common[..], &["dst port 80"]].concat());
    assert_eq!(json(&output)["capture"]["filtered"], 3);
    assert_eq!(
        evenkeel(&[&common[..], &["nonsense("]].concat()).status.code(),
        Some(1)
    );
}
