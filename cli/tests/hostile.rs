//! What a hostile or hasty user does: signals, pipes, odd files, odd names.
#![cfg(target_os = "linux")]

#[path = "../../io-pcap/tests/replay/packets.rs"]
#[allow(dead_code, reason = "shared with io-pcap, whose tests use the rest")]
mod packets;
mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use packets::*;
use support::{command, evenkeel, folder, stderr, stdout, text};

const CONFIG: &str = "examples/fullnat.toml";

fn one_session() -> Vec<u8> {
    capture(&timed(session(end("100.64.1.77:40001"), end("192.0.2.80:80"))))
}

/// Far more than a pipe and all buffers hold: when it is written, packets were replayed.
fn many_sessions() -> Vec<u8> {
    let frames: Vec<_> = (0..5000u16)
        .flat_map(|i| session(end(&format!("100.64.1.77:{}", 20_000 + i)), end("192.0.2.80:80")))
        .collect();
    let bytes = capture(&timed(frames));
    assert!(bytes.len() > 2 << 20);
    bytes
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|e| panic!("{e}: {}", stderr(output)))
}

fn spawn(args: &[&str], stdin: Stdio) -> Child {
    command(args)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs")
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let kill = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(kill.expect("runs").success());
}

/// Waits until the process has a handler for SIGTERM: what it waits for afterwards, it waits for with it.
fn await_handler(child: &Child) {
    let path = format!("/proc/{}/status", child.id());
    loop {
        let status = fs::read_to_string(&path).expect("it runs");
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.expect("a mask").trim(), 16).expect("a mask");
        if caught & 1 << 14 != 0 {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn one_signal_ends_the_wait_for_a_pipe_with_what_was_read() {
    let bytes = many_sessions();
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let args = ["replay", "-r", "-", "--config", CONFIG, "--json"];
        let mut child = spawn(&args, Stdio::piped());
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(&bytes).expect("read");
        signal(&child, name);
        let output = child.wait_with_output().expect("ends");
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let summary = json(&output);
        assert_eq!(summary["capture"]["interrupted"], true);
        assert_eq!(summary["capture"]["cut"], serde_json::Value::Null);
        assert!(summary["capture"]["packets"].as_u64().expect("a number") > 1000);
        drop(stdin);
    }
}

#[test]
fn a_signal_ends_a_simulated_run_and_says_what_is_left_of_it() {
    let folder = folder("sim_interrupted");
    let scenario = folder.join("hour.toml");
    // Far longer than it takes to see that it runs.
    let long = "name = \"hour\"\ndescription = \"d\"\nduration = \"1h\"\n[[service]]\nname = \"web\"\nvip = \"192.0.2.10:80\"\n\
        [[load]]\nname = \"long\"\nflows = 2000\nevery = \"10ms\"\n[[expect]]\nthat = \"broken == 0\"\n";
    fs::write(&scenario, long).expect("written");
    let captures = folder.join("captures");
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let args = [
            "sim",
            "run",
            text(&scenario),
            "--seed",
            "7",
            "--json",
            "--pcap",
            text(&captures),
        ];
        let child = spawn(&args, Stdio::null());
        await_handler(&child);
        // The handler is there before the run begins.
        while !fs::read_dir(&captures).is_ok_and(|mut files| files.next().is_some()) {
            std::thread::yield_now();
        }
        signal(&child, name);
        let output = child.wait_with_output().expect("runs");
        assert_eq!(output.status.code(), Some(code));
        let expected = serde_json::json!({"scenario": "hour", "seed": 7, "outcome": "interrupted"});
        assert_eq!(json(&output), expected);
        let said = format!("the captures so far are in {}", text(&captures));
        assert!(stderr(&output).contains(&said), "{}", stderr(&output));
        fs::remove_dir_all(&captures).expect("captures");
    }
}

#[test]
fn one_signal_ends_the_wait_for_the_first_byte() {
    let fifo = folder("signal_fifo").join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .expect("runs")
            .success()
    );
    for read in ["-", text(&fifo)] {
        for more in [&[][..], &["--map-vip"]] {
            let args = [&["replay", "-r", read, "--config", CONFIG][..], more].concat();
            let mut child = spawn(&args, Stdio::piped());
            let stdin = child.stdin.take();
            await_handler(&child);
            signal(&child, "TERM");
            let output = child.wait_with_output().expect("ends");
            assert_eq!(output.status.code(), Some(143), "{args:?}: {}", stderr(&output));
            assert!(stdout(&output).contains("INTERRUPTED"), "{}", stdout(&output));
            drop(stdin);
        }
    }
}

#[test]
fn a_fifo_is_read_as_a_file_is() {
    let dir = folder("fifo_read");
    let (fifo, file) = (dir.join("fifo"), dir.join("file"));
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .expect("runs")
            .success()
    );
    fs::write(&file, one_session()).expect("written");
    for more in [&["--json"][..], &["--json", "--map-vip"]] {
        let run = |path: &Path| {
            [&["replay", "-r", text(path), "--config", CONFIG][..], more]
                .concat()
                .join("\0")
        };
        let from_file = evenkeel(&run(&file).split('\0').collect::<Vec<_>>());
        let child = spawn(&run(&fifo).split('\0').collect::<Vec<_>>(), Stdio::null());
        fs::write(&fifo, one_session()).expect("read");
        let from_fifo = child.wait_with_output().expect("ends");
        assert_eq!(from_fifo.status.code(), Some(0), "{}", stderr(&from_fifo));
        assert_eq!(json(&from_fifo)["digest"], json(&from_file)["digest"]);
        assert_eq!(json(&from_fifo)["capture"]["packets"], 8);
    }
}

#[test]
fn a_directory_is_refused() {
    for more in [&[][..], &["--map-vip"]] {
        let output = evenkeel(&[&["replay", "-r", ".", "--config", CONFIG][..], more].concat());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("it is a directory"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn what_is_shown_of_a_long_line_is_short_and_its_place_is_true() {
    let dir = folder("long_line");
    let path = dir.join("long.toml");
    // One line of a megabyte with more errors than are listed.
    let keys: Vec<_> = (0..200)
        .map(|i| format!("k{i:03} = \"{}\"", "é".repeat(2500)))
        .collect();
    let line = format!("x = {{ {} }}\n", keys.join(", "));
    assert!(line.len() > 1_000_000);
    fs::write(&path, format!("workers = 1\n{line}")).expect("written");
    let many = dir.join("many.toml");
    let services: Vec<_> = (0..200)
        .map(|i| format!("{{ k{i} = \"{}\" }}", "y".repeat(5000)))
        .collect();
    fs::write(&many, format!("service = [{}]\n", services.join(", "))).expect("written");
    for (path, errors_min) in [(&path, 1), (&many, 100)] {
        let report = json(&evenkeel(&["check", "--json", text(path)]));
        let errors = report["files"][0]["errors"].as_array().expect("errors");
        assert!(errors.len() >= errors_min, "{}", errors.len());
        for args in [
            &["check", text(path)][..],
            &[
                "replay",
                "-r",
                "captures/mariadb-short.pcap",
                "--config",
                text(path),
            ],
        ] {
            let output = evenkeel(args);
            assert_eq!(output.status.code(), Some(1));
            let said = stderr(&output);
            assert!(said.len() < 200_000, "{}", said.len());
            assert!(said.contains('…'), "{said:.2000}");
            for error in errors {
                let place = format!(":{}:{}]", error["line"], error["column"]);
                assert!(said.contains(&place), "{place}");
            }
        }
    }
}

#[test]
fn nothing_that_is_shown_steers_the_terminal() {
    let dir = folder("steering");
    let name = dir.join("b\u{1b}[31m\u{202e}\r.toml");
    fs::write(&name, "a\u{202e}b = 1\rcolour = \"\u{1b}[31m\u{2066}\"\n").expect("written");
    let capture = dir.join("c\u{1b}[31m\u{202e}\r.pcap");
    let bytes = one_session();
    fs::write(&capture, &bytes[..bytes.len() - 3]).expect("written");
    let missing = dir.join("\u{1b}[31m\u{202e}");
    for args in [
        &["check", text(&name), CONFIG][..],
        &["check", text(&missing)],
        &["replay", "-r", text(&capture), "--config", text(&name)],
        &["replay", "-r", text(&capture), "--config", CONFIG],
        &["replay", "-r", text(&missing), "--config", CONFIG],
    ] {
        let output = evenkeel(args);
        assert_ne!(output.status.code(), Some(0), "{args:?}");
        let all = stdout(&output) + &stderr(&output);
        assert!(all.contains("\\u{1b}") && all.contains("\\u{202e}"), "{all}");
        let steers = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202e}' | '\u{2066}');
        assert!(!all.contains(steers), "{all:?}");
    }
}

#[test]
fn no_input_is_written_over_by_whatever_name() {
    let dir = folder("written_over");
    let good = dir.join("good.pcap");
    let bytes = one_session();
    fs::write(&good, &bytes).expect("written");
    for read in ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        let output = command(&["replay", "-r", read, "--config", CONFIG, "-w", text(&good)])
            .stdin(fs::File::open(&good).expect("there"))
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(1), "{read}");
        assert!(
            stderr(&output).contains("would write over the capture"),
            "{}",
            stderr(&output)
        );
        assert_eq!(fs::read(&good).expect("there"), bytes);
    }
    // Standard output is the capture itself, opened without cutting it.
    let appending = fs::OpenOptions::new().append(true).open(&good).expect("there");
    let output = command(&["replay", "-r", text(&good), "--config", CONFIG, "-w", "-"])
        .stdout(appending)
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(&good).expect("there"), bytes);
}

#[test]
fn standard_output_by_other_names_is_standard_output() {
    let dir = folder("dev_stdout");
    let (good, out) = (dir.join("good.pcap"), dir.join("out.pcapng"));
    fs::write(&good, one_session()).expect("written");
    let run = |write: &str| {
        let output = command(&[
            "replay",
            "-r",
            text(&good),
            "--config",
            CONFIG,
            "--map-vip",
            "-w",
            write,
        ])
        .stdout(fs::File::create(&out).expect("created"))
        .output()
        .expect("runs");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).starts_with("capture "), "{}", stderr(&output));
        fs::read(&out).expect("written")
    };
    let dash = run("-");
    assert_eq!(read_output(dash.clone()).len(), 16);
    for write in ["/dev/stdout", "/dev/fd/1", text(&out)] {
        assert_eq!(run(write), dash, "{write}");
    }
}

#[test]
fn json_of_check_has_an_entry_for_what_cannot_be_read() {
    let dir = folder("unreadable");
    let latin = dir.join("latin.toml");
    fs::write(&latin, b"workers = 1\nname = \"\xe9\"\n").expect("written");
    let output = evenkeel(&["check", "--json", "/nonexistent.toml", text(&latin), CONFIG]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report = json(&output);
    let [missing, latin, good] = &report["files"].as_array().expect("files")[..] else {
        panic!("{report}")
    };
    assert_eq!(report["ok"], false);
    assert_eq!(
        (&missing["ok"], &latin["ok"], &good["ok"]),
        (&false.into(), &false.into(), &true.into())
    );
    assert_eq!(missing["errors"][0]["code"], "evenkeel::config::unreadable");
    let at = &latin["errors"][0];
    assert_eq!(at["code"], "evenkeel::config::not_utf8");
    assert_eq!((&at["line"], &at["column"]), (&2.into(), &9.into()));
    let docs = include_str!("../../docs/config.md");
    assert!(docs.contains("\n| `unreadable` |") && docs.contains("\n| `not_utf8` |"));
}

#[test]
fn a_missing_directory_of_the_output_is_named() {
    let dir = folder("no_such_directory");
    let good = dir.join("good.pcap");
    fs::write(&good, one_session()).expect("written");
    let out = dir.join("none/out.pcapng");
    let output = evenkeel(&["replay", "-r", text(&good), "--config", CONFIG, "-w", text(&out)]);
    assert_eq!(output.status.code(), Some(1));
    let said: String = stderr(&output).split_whitespace().filter(|&w| w != "│").collect();
    assert!(
        said.contains("thereisnodirectory") && said.contains("mkdir-p"),
        "{said}"
    );
}

#[test]
fn an_endpoint_that_is_not_there_is_noted() {
    let good = folder("no_such_endpoint").join("good.pcap");
    fs::write(&good, one_session()).expect("written");
    let notes = |endpoint: &str| {
        let vip = format!("--map-vip={endpoint}");
        let output = evenkeel(&["replay", "-r", text(&good), "--config", CONFIG, "--json", &vip]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        json(&output)["notes"].to_string()
    };
    let note = notes("1.2.3.4:80/tcp");
    assert!(note.contains("tcp 1.2.3.4:80 is not in the capture"), "{note}");
    assert!(note.contains("busiest endpoint is tcp 192.0.2.80:80"), "{note}");
    assert!(!notes("192.0.2.80:80/tcp").contains("is not in the capture"));
}

#[test]
fn less_than_a_magic_number_is_no_capture_and_a_cut_header_is_one() {
    let path = folder("short_files").join("short");
    let bytes = one_session();
    for (len, code) in [(0, 1), (1, 1), (3, 1), (4, 2), (23, 2), (24, 0)] {
        fs::write(&path, &bytes[..len]).expect("written");
        let output = evenkeel(&["replay", "-r", text(&path), "--config", CONFIG]);
        assert_eq!(output.status.code(), Some(code), "{len}: {}", stderr(&output));
    }
}

#[test]
fn odd_records_are_counted() {
    let path = folder("odd_records").join("odd.pcap");
    let mut bytes = one_session();
    // The first record: one second and a half in its fraction, and one byte on the wire.
    let nano = bytes[..4] == 0xa1b2_3c4d_u32.to_le_bytes();
    let fraction: u32 = if nano { 1_500_000_000 } else { 1_500_000 };
    bytes[28..32].copy_from_slice(&fraction.to_le_bytes());
    bytes[36..40].copy_from_slice(&1u32.to_le_bytes());
    fs::write(&path, bytes).expect("written");
    let args = ["replay", "-r", text(&path), "--config", CONFIG];
    let capture = json(&evenkeel(&[&args[..], &["--json"]].concat()))["capture"].clone();
    for (key, n) in [
        ("long_fractions", 1),
        ("longer_than_wire", 1),
        ("clamped_times", 0),
        ("back_in_time", 7),
    ] {
        assert_eq!(capture[key], n, "{key}");
    }
    assert!(stdout(&evenkeel(&args)).contains("1 longer than on the wire, 1 with a second or more"));
}

/// The example with tables for so many IPv4 conns a worker.
fn config_with_conns(folder: &Path, conns_v4: u32) -> std::path::PathBuf {
    let example = fs::read_to_string(support::root().join(CONFIG)).expect("there");
    let config = example.replace("conns_v4 = 262_144", &format!("conns_v4 = {conns_v4}"));
    assert_ne!(config, example);
    let path = folder.join("config.toml");
    fs::write(&path, config).expect("written");
    path
}

#[test]
fn the_largest_tables_are_shown_by_check_and_no_end_of_replay() {
    let dir = folder("largest_tables");
    let config = config_with_conns(&dir, 1_073_741_822);
    let good = dir.join("good.pcap");
    fs::write(&good, one_session()).expect("written");
    let check = ["check", text(&config)];
    let said = stdout(&evenkeel(&check));
    assert!(
        said.contains("2 workers, 1") && said.contains(" GiB of tables"),
        "{said}"
    );
    let checked = json(&evenkeel(&[&check[..], &["--json"]].concat()));
    let bytes = checked["files"][0]["table_bytes"].as_u64().expect("a number");
    assert!(
        bytes / 2 >= 80 * 1_073_741_822 && bytes / 2 <= 100 * 1_073_741_822,
        "{bytes}"
    );

    let refused = |output: &Output| {
        let said: String = stderr(output).split_whitespace().filter(|&w| w != "│").collect();
        assert!(
            said.contains("oftablesfor2workersarenottobehad:lowerconns_v4"),
            "{said}"
        );
        assert_eq!(stdout(output), "");
    };
    // A system that promises everything replays it, page by page; another one says no.
    let args = [
        "replay",
        "-r",
        text(&good),
        "--config",
        text(&config),
        "--workers",
        "2",
    ];
    let output = evenkeel(&args);
    match output.status.code() {
        Some(0) => assert!(stdout(&output).contains("8 packets"), "{}", stdout(&output)),
        Some(1) => refused(&output),
        code => panic!("{code:?}: {}", stderr(&output)),
    }
    // One with 2 GiB of address space does say no.
    let limited = Command::new("sh")
        .args([
            "-c",
            "ulimit -v 2097152 && exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_evenkeel"),
        ])
        .args(args)
        .current_dir(support::root())
        .output()
        .expect("runs");
    assert_eq!(limited.status.code(), Some(1), "{}", stderr(&limited));
    refused(&limited);
}

#[test]
fn large_tables_take_the_memory_that_is_used() {
    let config = config_with_conns(&folder("large_tables"), 20_000_000);
    let mut child = spawn(
        &["replay", "-r", "-", "--config", text(&config), "--workers", "2"],
        Stdio::piped(),
    );
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&many_sessions()).expect("read");
    // It forwards by now.
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    assert!(kib("VmPeak:") > 3 << 20, "{} KiB of tables", kib("VmPeak:"));
    assert!(kib("VmHWM:") < 256 << 10, "{} KiB were used", kib("VmHWM:"));
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_missing_command_is_named() {
    let output = evenkeel(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(", replay, check or completions"));
    let help = stdout(&evenkeel(&["--help"]));
    assert!(help.contains("130 and 143"), "{help}");
}
