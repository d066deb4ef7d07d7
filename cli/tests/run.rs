//! `evenkeel run`: what it refuses, and how it ends. With libpcap, on loopback only, of which nothing is forwarded.
#![cfg(all(unix, feature = "libpcap"))]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A directory that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("evenkeel-run-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory in the system's temporary one");
        Folder(path)
    }

    /// Writes a config with `more` in it, for the interface `device`.
    fn config(&self, device: &str, more: &str) -> PathBuf {
        let text = format!(
            r#"
[daemon]
ctl = "{0}/ctl.sock"
{more}
[[port]]
name = "lo"
mac = "02:00:00:00:00:01"
addresses = ["203.0.113.2/24"]
{device}
[[route]]
to = "0.0.0.0/0"
port = "lo"
[[service]]
name = "web"
vip = "203.0.113.80:80"
protocol = "tcp"
local_addresses = ["203.0.113.10"]
[[service.server]]
address = "203.0.113.11:80"
"#,
            self.0.display()
        );
        let path = self.0.join("node.toml");
        fs::write(&path, text).expect("written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const LOOPBACK: &str = "device = \"lo\"";

fn command(config: &Path) -> Command {
    support::command(&["run", "--config", support::text(config)])
}

fn refused(config: &Path) -> String {
    let Output { status, stderr, .. } = command(config).output().expect("it runs");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{stderr}");
    // Words of a message that is broken into lines.
    let words: Vec<&str> = stderr
        .split(|c: char| c.is_whitespace() || c == '│')
        .filter(|w| !w.is_empty())
        .collect();
    words.join(" ")
}

/// A daemon that runs; ended with the test, by its own process.
struct Daemon {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    /// What it said before it ran.
    before: String,
}

impl Daemon {
    /// `None`: not permitted here.
    fn start(config: &Path) -> Option<Self> {
        Self::start_by(command(config))
    }

    fn start_by(mut command: Command) -> Option<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let before = String::new();
        let mut daemon = Daemon { child, log, before };
        let seen = daemon.until(&["running", "not permitted"]);
        if seen.contains("not permitted") {
            println!("SKIP: not permitted to capture on loopback");
            return None;
        }
        Some(daemon)
    }

    /// The first line of its log with one of these.
    fn until(&mut self, words: &[&str]) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            let got = self.log.read_line(&mut line).expect("text");
            assert!(got > 0, "it ended: {all}");
            if words.iter().any(|word| line.contains(word)) {
                self.before = all;
                return line;
            }
            all.push_str(&line);
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args([signal, &pid])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    fn ends(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("ours").code(), rest)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_missing_interface_and_a_port_without_one_are_refused() {
    let folder = Folder::new("interface");
    let said = refused(&folder.config("device = \"no-such-if0\"", ""));
    // Without privileges, libpcap may not come as far as the name.
    assert!(
        said.contains("no interface no-such-if0") || said.contains("not permitted"),
        "{said}"
    );
    let said = refused(&folder.config("", ""));
    assert!(
        said.contains("port lo has no device") && said.contains("device = \"eth0\""),
        "{said}"
    );
    assert!(!folder.0.join("ctl.sock").exists(), "nothing is half started");
}

#[test]
fn a_directory_that_cannot_be_had_is_refused() {
    let folder = Folder::new("state");
    fs::write(folder.0.join("file"), "").expect("written");
    let state = format!("state = \"{}/file/below\"", folder.0.display());
    let said = refused(&folder.config(LOOPBACK, &state));
    assert!(
        said.contains("incarnation") && said.contains("`state` of [daemon]"),
        "{said}"
    );
}

#[test]
fn a_user_that_is_not_there_is_refused() {
    let folder = Folder::new("user");
    let said = refused(&folder.config(LOOPBACK, "user = \"no-such-user\""));
    assert!(
        said.contains("there is no user no-such-user") || said.contains("not permitted"),
        "{said}"
    );
}

#[test]
fn it_runs_until_it_is_asked_to_end_and_a_second_one_is_refused() {
    let folder = Folder::new("second");
    let config = folder.config(LOOPBACK, "");
    let Some(mut first) = Daemon::start(&config) else {
        return;
    };
    let said = refused(&config);
    let process = format!("another evenkeel (process {})", first.child.id());
    assert!(
        said.contains(&process) && said.contains("`ctl` in [daemon]"),
        "{said}"
    );

    // A config that is wrong changes nothing; one that is right is taken.
    let good = fs::read_to_string(&config).expect("written before");
    fs::write(&config, good.replace("203.0.113.11:80", "203.0.113.11:eighty")).expect("written");
    first.signal("-HUP");
    let line = first.until(&["config"]);
    assert!(line.contains("the old one stays"), "{line}");
    fs::write(
        &config,
        good.replace("name = \"lo\"", "name = \"other\"")
            .replace("port = \"lo\"", "port = \"other\""),
    )
    .expect("written");
    first.signal("-HUP");
    let line = first.until(&["config"]);
    assert!(line.contains("needs a restart"), "{line}");
    fs::write(&config, good.replace("203.0.113.11:80", "203.0.113.12:80")).expect("written");
    first.signal("-HUP");
    let line = first.until(&["config"]);
    assert!(line.contains("read again"), "{line}");

    first.signal("-TERM");
    let (code, rest) = first.ends();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("leaving") && rest.contains("ended"), "{rest}");
    // All is free again.
    let Some(again) = Daemon::start(&config) else {
        return;
    };
    again.signal("-INT");
    assert_eq!(again.ends().0, Some(0));
}

/// Until a thread of the daemon has this name.
fn until_there_is(child: &Child, thread: &str) {
    let is = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == thread)
    };
    loop {
        let mut tasks = fs::read_dir(format!("/proc/{}/task", child.id())).expect("it runs");
        if tasks.any(|task| task.is_ok_and(is)) {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_config_that_never_comes_holds_nothing_up() {
    let folder = Folder::new("fifo");
    let config = folder.config(LOOPBACK, "");
    let Some(mut daemon) = Daemon::start(&config) else {
        return;
    };
    let good = fs::read_to_string(&config).expect("written before");
    let pipe = || {
        fs::remove_file(&config).expect("ours");
        let made = Command::new("mkfifo").arg(&config).status().expect("mkfifo runs");
        assert!(made.success());
    };
    pipe();
    daemon.signal("-HUP");
    until_there_is(&daemon.child, "config");
    assert!(serves(&folder, "203.0.113.11:80"), "and says so meanwhile");
    // Asked again, it reads once more after that: what is there by then.
    daemon.signal("-HUP");
    daemon.until(&["still being read"]);
    let mut late = fs::OpenOptions::new()
        .write(true)
        .open(&config)
        .expect("somebody reads");
    let next = folder.0.join("next.toml");
    fs::write(&next, good.replace("203.0.113.11:80", "203.0.113.13:80")).expect("written");
    fs::rename(&next, &config).expect("ours");
    late.write_all(good.replace("203.0.113.11:80", "203.0.113.12:80").as_bytes())
        .expect("somebody reads");
    drop(late);
    daemon.until(&["read again"]);
    daemon.until(&["read again"]);
    assert!(serves(&folder, "203.0.113.13:80"));
    // Nor does it keep the node from ending.
    pipe();
    daemon.signal("-HUP");
    until_there_is(&daemon.child, "config");
    daemon.signal("-TERM");
    let (code, rest) = daemon.ends();
    assert_eq!(code, Some(0), "{rest}");
}

#[test]
fn an_address_that_the_kernel_has_by_now_is_refused_at_sighup_too() {
    let able = Command::new("unshare").args(["--net", "ip", "link"]).output();
    if !able.is_ok_and(|o| o.status.success()) {
        println!("SKIP: no network namespaces here");
        return;
    }
    let folder = Folder::new("kernel");
    let config = folder.config(LOOPBACK, "");
    let inside = after("ip link set lo up", &config);
    let mut command = Command::new("unshare");
    command
        .arg("--net")
        .arg(inside.get_program())
        .args(inside.get_args());
    let Some(mut daemon) = Daemon::start_by(command) else {
        return;
    };
    let pid = daemon.child.id().to_string();
    let ip = |what: &str| {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &pid,
            "--net",
            "ip",
            "address",
            what,
            "203.0.113.81/32",
            "dev",
            "lo",
        ]);
        assert!(command.status().expect("nsenter runs").success(), "{what}");
    };
    ip("add");
    let good = fs::read_to_string(&config).expect("written before");
    fs::write(&config, good.replace("203.0.113.80:80", "203.0.113.81:80")).expect("written");
    daemon.signal("-HUP");
    let line = daemon.until(&["config is not taken", "read again"]);
    for part in [
        "the old one stays",
        "the kernel has 203.0.113.81, the VIP of service web, on lo",
        "ip address delete",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    ip("delete");
    daemon.signal("-HUP");
    daemon.until(&["read again"]);
    daemon.signal("-TERM");
    assert_eq!(daemon.ends().0, Some(0));
}

#[test]
fn a_taken_sync_port_is_refused() {
    let folder = Folder::new("port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback has room");
    let taken = udp.local_addr().expect("bound").port();
    let cluster = format!(
        r#"
[cluster]
insecure = true
id = 1
this_node = "a"
[[cluster.node]]
id = 1
name = "a"
priority = 200
sync = "127.0.0.1:{taken}"
local_addresses = ["203.0.113.10"]
[[cluster.node]]
id = 2
name = "b"
priority = 100
sync = "127.0.0.2:{taken}"
local_addresses = ["203.0.113.20"]
"#
    );
    let config = folder.config(LOOPBACK, &cluster);
    let said = refused(&config);
    let address = format!("cannot take the sync address 127.0.0.1:{taken}");
    assert!(
        said.contains(&address) && said.contains("another program has this port"),
        "{said}"
    );
    drop(udp);
    let tcp = TcpListener::bind(("127.0.0.1", taken)).expect("free by now");
    assert!(refused(&config).contains(&address));
    drop(tcp);
    let Some(alone) = Daemon::start(&config) else {
        return;
    };
    alone.signal("-TERM");
    let (code, rest) = alone.ends();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("no other node is there to take over"), "{rest}");
}

/// Whether this test is root: what it looks for must not be what says that it cannot look.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: not root");
    }
    root
}

#[test]
fn root_is_dropped_and_what_is_needed_is_kept() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("drop");
    let daemon = format!("user = \"nobody\"\nstate = \"{}/state\"", folder.0.display());
    let config = folder.config(LOOPBACK, &daemon);
    let Some(daemon) = Daemon::start(&config) else {
        return;
    };
    let status = |name: &str| -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).expect("it runs");
        let of_task = tasks.map(|task| {
            let path = task.expect("a thread").path().join("status");
            let text = fs::read_to_string(path).expect("a thread's status");
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("it has it");
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        });
        of_task.collect()
    };
    let uids = status("Uid:");
    assert!(uids.len() >= 2, "the control thread and a worker: {uids:?}");
    assert!(
        uids.iter().all(|uid| uid == "65534 65534 65534 65534"),
        "{uids:?}"
    );
    // CAP_NET_RAW is number 13. The thread of the log, which is there before root is dropped, keeps nothing at all.
    for name in ["CapEff:", "CapPrm:"] {
        let kept = status(name);
        let needed = |c: &&String| u64::from_str_radix(c, 16) == Ok(1 << 13);
        let none = |c: &&String| u64::from_str_radix(c, 16) == Ok(0);
        let (count, without) = (
            kept.iter().filter(needed).count(),
            kept.iter().filter(none).count(),
        );
        assert!(without == 1 && count + without == kept.len(), "{name} {kept:?}");
    }
    assert!(status("NoNewPrivs:").iter().all(|n| n == "1"));
    // What is the daemon's alone is that user's. The directory of the socket has the config in it.
    let owner = |name: &str| fs::metadata(folder.0.join(name)).expect("it is there").uid();
    for name in [
        "ctl.sock",
        "ctl.sock.lock",
        "state",
        "state/incarnation",
        "state/incarnation.lock",
    ] {
        assert_eq!(owner(name), 65534, "{name}");
    }
    assert_eq!(owner(""), 0);
    daemon.signal("-TERM");
    let (code, rest) = daemon.ends();
    assert_eq!(code, Some(0), "{rest}");
    // That user may not remove it from root's directory.
    assert!(rest.contains("stays: the next start replaces it"), "{rest}");
    // All that does not hinder root at another start.
    let again = Daemon::start(&config).expect("as before");
    assert_eq!(owner("state/incarnation"), 65534);
    again.signal("-TERM");
    assert_eq!(again.ends().0, Some(0));
}

#[test]
fn the_service_manager_is_told() {
    let folder = Folder::new("notify");
    let path = folder.0.join("notify.sock");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    let mut command = command(&folder.config(LOOPBACK, ""));
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000")
        .env_remove("WATCHDOG_PID");
    let Some(daemon) = Daemon::start_by(command) else {
        return;
    };
    let hear = || {
        let mut buffer = [0; 256];
        let len = manager.recv(&mut buffer).expect("it speaks");
        String::from_utf8_lossy(&buffer[..len]).trim().to_owned()
    };
    let (mut ready, mut fed) = (0, 0);
    while ready < 1 || fed < 5 {
        match hear().as_str() {
            "READY=1" => ready += 1,
            "WATCHDOG=1" => fed += 1,
            other => panic!("{other}"),
        }
    }
    daemon.signal("-TERM");
    while hear() != "STOPPING=1" {}
    assert_eq!(daemon.ends().0, Some(0));
}

/// What the daemon tells its service manager: a sign that it runs which needs nobody to read its log.
struct Manager(std::os::unix::net::UnixDatagram);

impl Manager {
    fn new(folder: &Folder, command: &mut Command) -> Self {
        let path = folder.0.join("notify.sock");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
        // A daemon that stands still fails the test instead of stopping it.
        socket
            .set_read_timeout(Some(std::time::Duration::from_secs(60)))
            .expect("set");
        command.env("NOTIFY_SOCKET", &path).env_remove("WATCHDOG_USEC");
        Manager(socket)
    }

    /// Until it says that it runs; `false`: it ended.
    fn ready(&self, child: &mut Child) -> bool {
        let mut buffer = [0; 256];
        loop {
            match self.0.recv(&mut buffer) {
                Ok(len) if buffer[..len].starts_with(b"READY=1") => return true,
                Ok(_) => (),
                Err(error) => {
                    assert!(
                        child.try_wait().expect("ours").is_some(),
                        "it stands still: {error}"
                    );
                    return false;
                }
            }
        }
    }
}

/// A pipe that has no room left.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let size = rustix::pipe::fcntl_getpipe_size(&writer).expect("its size");
    writer
        .write_all(&vec![b'\n'; size])
        .expect("there is room for so much");
    (reader, writer)
}

/// Whether loopback can be had here, found out with a log that is read.
fn can_run(folder: &Folder) -> bool {
    let Some(daemon) = Daemon::start(&folder.config(LOOPBACK, "")) else {
        return false;
    };
    daemon.signal("-TERM");
    assert_eq!(daemon.ends().0, Some(0));
    true
}

/// Whether the daemon of this folder has taken the config with this server.
fn serves(folder: &Folder, server: &str) -> bool {
    let socket = folder.0.join("ctl.sock");
    let asked = support::evenkeel(&["ctl", "--socket", support::text(&socket), "services"]);
    assert_eq!(asked.status.code(), Some(0), "{}", support::stderr(&asked));
    support::stdout(&asked).contains(server)
}

/// Runs a daemon with this standard error: it takes another config and answers; and ends well.
fn runs_with(folder: &Folder, stderr: Stdio, meanwhile: impl FnOnce()) {
    let config = folder.config(LOOPBACK, "");
    let mut command = command(&config);
    command.stderr(stderr);
    let manager = Manager::new(folder, &mut command);
    let mut daemon = Ended(command.spawn().expect("it starts"));
    // What it said was to hold the other end of the pipe, too.
    drop(command);
    assert!(manager.ready(&mut daemon.0), "it ended before it ran");
    let good = fs::read_to_string(&config).expect("written before");
    fs::write(&config, good.replace("203.0.113.11:80", "203.0.113.12:80")).expect("written");
    signal(&daemon.0, "-HUP");
    while !serves(folder, "203.0.113.12:80") {
        std::thread::yield_now();
    }
    meanwhile();
    signal(&daemon.0, "-TERM");
    assert_eq!(daemon.0.wait().expect("ours").code(), Some(0));
}

/// A process that goes with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let folder = Folder::new("stalled");
    if !can_run(&folder) {
        return;
    }
    let (reader, writer) = full_pipe();
    runs_with(&folder, Stdio::from(writer), || ());
    drop(reader);
}

#[test]
fn a_log_that_is_read_late_is_whole() {
    let folder = Folder::new("late");
    if !can_run(&folder) {
        return;
    }
    let (reader, writer) = full_pipe();
    let mut lines = BufReader::new(reader).lines().map(|line| line.expect("text"));
    let late = lines.by_ref();
    runs_with(&folder, Stdio::from(writer), || {
        assert!(late.any(|line| line.contains("running")));
        assert!(late.any(|line| line.contains("read again")));
    });
    assert!(lines.any(|line| line.contains("ended")), "its last line");
}

#[test]
fn a_log_whose_reader_has_gone_stops_nothing() {
    let folder = Folder::new("gone");
    if !can_run(&folder) {
        return;
    }
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    runs_with(&folder, Stdio::from(writer), || ());
}

/// The log of a daemon that starts, refuses a config, takes another one, and ends.
fn log_of_a_run(folder: &Folder, format: &str) -> Option<String> {
    let config = folder.config(LOOPBACK, &format!("[daemon.log]\nformat = \"{format}\""));
    let mut daemon = Daemon::start(&config)?;
    let good = fs::read_to_string(&config).expect("written before");
    fs::write(&config, good.replace("203.0.113.11:80", "203.0.113.11:eighty")).expect("written");
    daemon.signal("-HUP");
    let refused = daemon.until(&["the old one stays"]);
    fs::write(&config, good).expect("written");
    daemon.signal("-HUP");
    let taken = daemon.until(&["read again"]);
    daemon.signal("-TERM");
    let (code, rest) = daemon.ends();
    assert_eq!(code, Some(0), "{rest}");
    Some(format!("{refused}{taken}{rest}"))
}

/// `2026-11-22T01:26:34.123456Z`
fn is_time(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00T00:00:00.000000Z"
}

const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

#[test]
fn a_log_of_objects_has_one_a_line() {
    let folder = Folder::new("objects");
    let Some(log) = log_of_a_run(&folder, "json") else {
        return;
    };
    let mut levels = std::collections::BTreeSet::new();
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        let text = |key: &str| object[key].as_str().unwrap_or_else(|| panic!("no {key}: {line}"));
        assert!(is_time(text("timestamp")), "{line}");
        assert!(LEVELS.contains(&text("level")), "{line}");
        assert!(text("target").starts_with("evenkeel"), "{line}");
        assert!(!text("message").is_empty(), "{line}");
        levels.insert(text("level").to_owned());
    }
    assert!(log.lines().count() >= 4, "{log}");
    assert_eq!(levels.into_iter().collect::<Vec<_>>(), ["INFO", "WARN"]);

    // A refusal is an object, too.
    let config = folder.config("", "[daemon.log]\nformat = \"json\"");
    let output = command(&config).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = support::stderr(&output);
    // Before it there may be warnings about this machine, each an object.
    let objects: Vec<serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let object = objects.last().expect("an object");
    let message = object["message"].as_str().expect("text");
    assert!(
        object["level"] == "ERROR" && message.contains("has no device; name its interface"),
        "{said}"
    );
}

#[test]
fn a_log_of_text_has_time_level_and_target_in_each_line() {
    let folder = Folder::new("lines");
    let Some(log) = log_of_a_run(&folder, "text") else {
        return;
    };
    for line in log.lines() {
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap_or_else(|| panic!("{line}"));
        assert!(is_time(word()), "{line}");
        assert!(LEVELS.contains(&word()), "{line}");
        let target = word();
        assert!(target.starts_with("evenkeel") && target.ends_with(':'), "{line}");
        assert!(!word().is_empty(), "{line}");
    }
    assert!(log.lines().count() >= 4, "{log}");
    // What is wrong with a config, where, and what to do, in the line that says so.
    let refused = log.lines().find(|line| line.contains("the old one stays"));
    let refused = refused.expect("it was refused");
    assert!(
        refused.contains("203.0.113.11:eighty") && refused.contains("; line "),
        "{refused}"
    );
}

#[test]
fn a_config_that_only_root_can_read_is_said_at_the_start_and_at_sighup() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("unreadable");
    let config = folder.config(LOOPBACK, "user = \"nobody\"");
    let only_root = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&config, only_root).expect("ours");
    let Some(mut daemon) = Daemon::start(&config) else {
        return;
    };
    let pid = daemon.child.id();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.contains("\nUid:\t65534\t"), "{status}");
    let before = daemon.before.clone();
    let warned = before.lines().find(|line| line.contains("without root"));
    let warned = warned.unwrap_or_else(|| panic!("{before}"));
    daemon.signal("-HUP");
    let refused = daemon.until(&["the old one stays"]);
    for line in [warned, &refused] {
        for part in [
            "node.toml: Permission denied",
            "let the user nobody read it",
            "chmod",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
    daemon.signal("-TERM");
    assert_eq!(daemon.ends().0, Some(0));
}

#[test]
fn a_core_that_cannot_be_had_is_refused() {
    let folder = Folder::new("core");
    let said = refused(&folder.config(LOOPBACK, "[io]\ncores = [1023]"));
    assert!(said.contains("no thread can be kept on core 1023"), "{said}");
    assert!(said.contains("`cores` of [io]: this process may use "), "{said}");
    assert!(!folder.0.join("ctl.sock").exists(), "nothing is half started");
}

#[test]
fn workers_are_pinned_to_their_cores() {
    let folder = Folder::new("pinned");
    let own = fs::read_to_string("/proc/self/status").expect("Linux");
    let allowed = own
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first: String = allowed
        .expect("it has it")
        .trim()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let config = folder.config(LOOPBACK, &format!("[io]\ncores = [{first}]"));
    let Some(daemon) = Daemon::start(&config) else {
        return;
    };
    // The thread pins itself before its first turn, and that may come after the node says that it runs.
    let ctl = folder.0.join("ctl.sock");
    let answered = (0..60).any(|_| {
        let asked = support::command(&["ctl", "--socket", support::text(&ctl), "status", "--json"]).output();
        let Output {
            status,
            stdout,
            stderr,
        } = asked.expect("it runs");
        assert!(
            status.success(),
            "nobody answers: {}",
            String::from_utf8_lossy(&stderr)
        );
        // It is waited for, a second each time.
        String::from_utf8_lossy(&stdout).contains("\"answered\":true")
    });
    assert!(answered, "the worker turns");
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).expect("it runs");
    let cores: Vec<String> = tasks
        .map(|task| task.expect("a thread").path())
        .filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "worker-0"))
        .filter_map(|path| {
            let status = fs::read_to_string(path.join("status")).ok()?;
            let mut lines = status.lines();
            let cores = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            Some(cores.trim().to_owned())
        })
        .collect();
    assert_eq!(cores, [first]);
    daemon.signal("-TERM");
    assert_eq!(daemon.ends().0, Some(0));
}

/// A shell that becomes the daemon after `first`.
fn after(first: &str, config: &Path) -> Command {
    let program = command(config);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first}; exec \"$0\" \"$@\"")]);
    shell.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// What it says on one line, and its exit code.
fn ended(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().expect("it runs");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let words = stderr.split(|c: char| c.is_whitespace() || c == '│');
    let words: Vec<&str> = words.filter(|w| !w.is_empty()).collect();
    (status.code(), words.join(" "))
}

#[test]
fn a_socket_of_a_live_program_stays_and_one_of_a_dead_program_is_replaced() {
    let folder = Folder::new("listener");
    let config = folder.config(LOOPBACK, "");
    let path = folder.0.join("ctl.sock");
    let live = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let said = refused(&config);
    assert!(
        said.contains("another program listens at") && said.contains("another `ctl` in [daemon]"),
        "{said}"
    );
    assert!(path.exists(), "it is another's");
    drop(live);
    let datagrams = folder.0.join("datagrams");
    let other = std::os::unix::net::UnixDatagram::bind(&datagrams).expect("bound");
    fs::rename(&datagrams, &path).expect("in the same directory");
    assert!(refused(&config).contains("another program listens at"));
    drop(other);
    let Some(daemon) = Daemon::start(&config) else {
        return;
    };
    daemon.signal("-TERM");
    assert_eq!(daemon.ends().0, Some(0));
}

#[test]
fn too_few_files_are_refused_and_a_soft_limit_is_raised() {
    let folder = Folder::new("files");
    let config = folder.config(LOOPBACK, "");
    for limit in [8, 14, 16, 20, 40] {
        let (code, said) = ended(after(&format!("ulimit -n {limit}"), &config));
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(&format!("this process may have {limit} files open"))
                && said.contains("LimitNOFILE="),
            "{said}"
        );
        assert!(!folder.0.join("ctl.sock").exists(), "nothing is half started");
    }
    let Some(daemon) = Daemon::start_by(after("ulimit -Sn 20", &config)) else {
        return;
    };
    daemon.signal("-TERM");
    assert_eq!(daemon.ends().0, Some(0));
}

#[test]
fn signals_that_mean_nothing_end_nothing_and_a_start_can_be_ended() {
    let folder = Folder::new("signals");
    // A start of some seconds: it is ended before it runs.
    let config = folder.config(LOOPBACK, "");
    let text = fs::read_to_string(&config).expect("written before");
    fs::write(&config, format!("workers = 64\n{text}")).expect("written");
    let mut child = command(&config)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    // Each second it says what it does.
    let mut line = String::new();
    log.read_line(&mut line).expect("text");
    let kill = |signal: &str, pid: u32| {
        let status = Command::new("kill").args([signal, &pid.to_string()]).status();
        assert!(status.expect("kill runs").success());
    };
    if line.contains("starting: ") {
        for signal in ["-HUP", "-USR1", "-USR2", "-TERM"] {
            kill(signal, child.id());
        }
        log.read_to_string(&mut line).expect("text");
        let code = child.wait().expect("ours").code();
        // It may have been ready by then, and has ended as a daemon does.
        let early = code == Some(143) && line.contains("asked to end before it runs");
        let late = code == Some(0) && line.contains(" running ") && line.contains(" ended ");
        assert!(early || late, "{code:?}: {line}");
        assert!(!folder.0.join("ctl.sock").exists(), "nothing is left: {line}");
    } else {
        // This machine has not the memory, or not the right, or is very fast.
        println!("SKIP: no long start here: {line}");
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_file(folder.0.join("ctl.sock"));
    }
    let config = folder.config(LOOPBACK, "");
    let Some(mut daemon) = Daemon::start(&config) else {
        return;
    };
    daemon.signal("-USR1");
    daemon.signal("-USR2");
    daemon.signal("-HUP");
    daemon.until(&["the config was read again"]);
    daemon.signal("-TERM");
    assert_eq!(daemon.ends().0, Some(0));
}

#[test]
fn two_nodes_with_one_state_directory_are_refused() {
    let (one, two) = (Folder::new("state-one"), Folder::new("state-two"));
    let state = format!("state = \"{}/state\"", one.0.display());
    let Some(first) = Daemon::start(&one.config(LOOPBACK, &state)) else {
        return;
    };
    let said = refused(&two.config(LOOPBACK, &state));
    let process = format!(
        "another evenkeel (process {}) runs with the state directory",
        first.child.id()
    );
    assert!(
        said.contains(&process) && said.contains("another `state` in [daemon]"),
        "{said}"
    );
    first.signal("-TERM");
    assert_eq!(first.ends().0, Some(0));
}

#[test]
fn a_full_disk_leaves_no_part_of_a_number() {
    let folder = Folder::new("full");
    let disk = folder.0.join("disk");
    fs::create_dir(&disk).expect("made");
    let config = folder.config(LOOPBACK, &format!("state = \"{}\"", disk.display()));
    // A page for the lock, and none for the number.
    let script = format!(
        "mount -t tmpfs -o size=8k tmpfs '{0}' || exit 77; head -c 4096 /dev/zero >'{0}/fill'; \"$0\" \"$@\"; \
         echo \"code $?\" >&2; ls '{0}' >&2",
        disk.display()
    );
    let program = command(&config);
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", &script]);
    shell.arg(program.get_program()).args(program.get_args());
    let (code, said) = ended(shell);
    if code != Some(0) {
        println!("SKIP: no mounts here: {said}");
        return;
    }
    assert!(
        said.contains("No space left on device") && said.contains("code 1"),
        "{said}"
    );
    assert!(!said.contains("incarnation.new"), "{said}");
}

#[test]
fn an_interface_that_is_no_ethernet_is_refused() {
    let folder = Folder::new("any");
    let said = refused(&folder.config("device = \"any\"", ""));
    assert!(
        (said.contains("any is no Ethernet interface") && said.contains("ip -brief link"))
            || said.contains("not permitted"),
        "{said}"
    );
}

#[test]
fn root_that_stays_is_not_said_to_be_dropped() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("root");
    let mut command = command(&folder.config(LOOPBACK, "user = \"root\""));
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    log.read_line(&mut line).expect("text");
    let _ = child.kill();
    let _ = child.wait();
    if line.contains("not permitted") {
        println!("SKIP: not permitted to capture on loopback");
        return;
    }
    assert!(line.contains("root is not dropped"), "{line}");
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use super::*;

    /// Refused alike twice: no socket, lock or tap is left.
    fn refused_by_dpdk(name: &str, device: &str, memory: &str, wanted: &[&str]) {
        let folder = Folder::new(name);
        let tap = format!("ek-t{}", std::process::id() % 100_000);
        let device = format!("device = \"{device}\"\ntap = \"{tap}\"");
        let io = format!("[io]\ndriver = \"dpdk\"\n[io.dpdk]\n{memory}");
        let config = folder.config(&device, &io);
        for _ in 0..2 {
            let said = refused(&config);
            for words in wanted {
                assert!(said.contains(words), "{words}: {said}");
            }
            assert!(!said.contains("another evenkeel"), "{said}");
            assert!(!folder.0.join("ctl.sock").exists(), "nothing is half started");
            assert!(
                !Path::new("/sys/class/net").join(&tap).exists(),
                "nothing is left"
            );
        }
    }

    const SMALL: &str = "huge_pages = false\nmemory_mib = 128";

    #[test]
    fn a_vdev_without_its_interface_is_refused() {
        let wanted = [
            "the kernel has no interface \"no-such-if0\"",
            "correct `device` of the port",
        ];
        refused_by_dpdk("vdev", "net_af_packet0,iface=no-such-if0", SMALL, &wanted);
    }

    #[test]
    fn a_pci_device_that_is_not_there_is_refused() {
        let wanted = [
            "there is no PCI device 0000:ff:1f.7",
            "correct `device` of the port",
        ];
        refused_by_dpdk("pci", "0000:ff:1f.7", SMALL, &wanted);
    }

    #[test]
    fn too_few_huge_pages_are_refused() {
        let wanted = ["1048576 MiB of huge pages", "lower `memory_mib` of [io.dpdk]"];
        refused_by_dpdk("huge", "net_null0", "memory_mib = 1048576", &wanted);
    }

    #[test]
    fn more_memory_than_there_is_is_refused() {
        let wanted = [
            "1048576 MiB without huge pages",
            "lower `memory_mib` of [io.dpdk]",
        ];
        let memory = "huge_pages = false\nmemory_mib = 1048576";
        refused_by_dpdk("memory", "net_null0", memory, &wanted);
    }
}
