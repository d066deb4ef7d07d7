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
    let frames: Vec<_> = (0..5000u16)
        .flat_map(|i| session(end(&format!("100.64.1.77:{}", 20_000 + i)), end("192.0.2.80:80")))
        .collect();
    let bytes = capture(&timed(frames));
    // Far more than a pipe and all buffers hold: when it is written, packets were replayed.
    assert!(bytes.len() > 2 << 20);
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
