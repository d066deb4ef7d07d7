//! `evenkeel ctl` against a socket that answers what a test says.
#![cfg(unix)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::JoinHandle;

use support::{evenkeel, stderr, stdout};

/// Answers as many requests as it has answers for, one a connection.
struct Fake {
    socket: PathBuf,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Fake {
    fn new(name: &str, answers: &[(u16, &str)]) -> Self {
        let socket = std::env::temp_dir().join(format!("evenkeel-ctl-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("bound");
        let answers: Vec<(u16, String)> = answers.iter().map(|(n, text)| (*n, text.to_string())).collect();
        let thread = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let (stream, _) = listener.accept().expect("asked");
                let mut lines = BufReader::new(&stream).lines();
                asked.push(lines.next().expect("a line").expect("text"));
                while lines.next().is_some_and(|line| !line.expect("text").is_empty()) {}
                let answer = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                (&stream).write_all(answer.as_bytes()).expect("heard");
            }
            asked
        });
        Fake {
            socket,
            thread: Some(thread),
        }
    }

    fn run(&self, args: &[&str]) -> std::process::Output {
        let socket = self.socket.to_str().expect("text");
        let mut all = vec!["ctl", "--socket", socket];
        all.extend_from_slice(args);
        evenkeel(&all)
    }

    /// The first lines of all requests, once all answers are given.
    fn asked(mut self) -> Vec<String> {
        let thread = self.thread.take().expect("once");
        thread.join().expect("no panic")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

const STATUS: &str = r#"{"version":"0.1.0","uptime_seconds":93784,"ready":false,"not_ready_because":"the node is draining",
"ending":false,"cluster":{"id":1,"node":"lb1","node_id":1,"incarnation":7,"readiness":"ready","serving":false,"draining":true,
"drained":true,"promoted":false,"virtual_router":true,"router_families":["ipv4","ipv6"],"master":[],"answers_for":["192.0.2.80"],"creating":null,"peers":[{"name":"lb2",
"id":2,"up":true,"incarnation":8,"readiness":"ready","draining":false,"heard_ms_ago":12,"hears_this_node":true,"out_of_sync":false,
"can_take_over":true,"behind":3,"unacked":4}]},"alarms":[{"kind":"no-heir","text":"nobody is there"}],"workers":[{"id":0,"answered":true,
"turns":5,"conns":17,"capacity":[1000,10],"rx_packets":123456,"tx_packets":7,"dropped":0}],"conns":17}"#;

#[test]
fn status_is_a_page_for_people_and_json_for_programs() {
    let fake = Fake::new("status", &[(200, STATUS), (200, STATUS)]);
    let shown = fake.run(&["status"]);
    assert_eq!((shown.status.code(), stderr(&shown).as_str()), (Some(0), ""));
    assert_eq!(
        stdout(&shown),
        "node         lb1 (node 1 of cluster 1)
version      0.1.0
up for       1d 2h
ready        no: the node is draining
state        drained: everything is handed over
master       no
answers for  192.0.2.80
conns        17

Alarms
  no-heir: nobody is there

PEER  STATE  HEARD MS AGO  HEARS US  CAN TAKE OVER  WE LACK  IT LACKS
lb2   ready            12  yes       yes                  3         4

WORKER  ANSWERS  CONNS  CAPACITY  RECEIVED  SENT  DROPPED
     0  yes         17  1000+10     123456     7        0
"
    );
    let json = fake.run(&["status", "--json"]);
    assert_eq!(stdout(&json), format!("{STATUS}\n"));
    let asked = fake.asked();
    assert_eq!(asked, ["GET /v1/status HTTP/1.1", "GET /v1/status HTTP/1.1"]);
}

#[test]
fn checks_that_cannot_be_made_are_shown() {
    let services = r#"{"services":[{"name":"web","protocol":"tcp","vip":"192.0.2.80:80","scheduler":"rr","replicate":"synack","conns":null,
"servers":[{"address":"10.0.0.11:80","weight":1,"up":true,"not_checked_because":"no socket","reachable":true,"conns":null},
{"address":"10.0.0.12:80","weight":0,"up":false,"not_checked_because":null,"reachable":true,"conns":null}]}],"counted":false}"#;
    let stats = r#"{"workers":[],"transport":{},"receiver":{},"node":{},"health":{"succeeded":0,"failed":7,"not-made":12,"late":0},
"health_not_made_because":"no socket","admin":{"ctl":0},"ports":[],"buffers":{},"log_suppressed":0,"log_dropped":0}"#;
    let fake = Fake::new("checks", &[(200, services), (200, stats)]);
    let shown = fake.run(&["services"]);
    assert_eq!(
        stdout(&shown),
        "SERVICE  PROTO  VIP / SERVER    SCHED  WEIGHT  CONNS  STATE
web      tcp    192.0.2.80:80   rr          -      -  replicate synack
                  10.0.0.11:80              1      -  up (not checked: no socket)
                  10.0.0.12:80              0      -  down
"
    );
    let shown = fake.run(&["stats"]);
    assert_eq!(
        stdout(&shown),
        "WHO   PART    COUNTER   COUNT
node  health  failed        7
node  health  not-made     12
the last health check that could not be made: no socket
"
    );
    assert_eq!(fake.asked().len(), 2);
}

fn conn(n: u32) -> String {
    format!(
        r#"{{"worker":0,"protocol":"tcp","client":"100.64.0.{n}:4000","vip":"192.0.2.80:80","local":"10.0.0.9:1025","server":"10.0.0.11:80",
"service":"web","state":"ESTABLISHED","expires_ms":90000,"group":null}}"#
    )
}

#[test]
fn conns_are_asked_for_page_by_page() {
    let first = format!(
        r#"{{"conns":[{},{}],"next":"0.7","looked_at":2}}"#,
        conn(1),
        conn(20)
    );
    let second = r#"{"conns":[],"next":"1.0","looked_at":512}"#;
    let third = format!(r#"{{"conns":[{}],"next":null,"looked_at":1}}"#, conn(3));
    let answers = [(200, first.as_str()), (200, second), (200, third.as_str())];
    let fake = Fake::new("conns", &[answers, answers].concat());
    let filter = [
        "conns",
        "--client",
        "100.64.0.0/16",
        "--state",
        "ESTABLISHED",
        "--limit",
        "5000",
    ];
    let shown = fake.run(&filter);
    assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
    assert_eq!(
        stdout(&shown),
        "PROTO  CLIENT            VIP            LOCAL          SERVER        STATE        EXPIRES MS  SERVICE  WORKER  GROUP
tcp    100.64.0.1:4000   192.0.2.80:80  10.0.0.9:1025  10.0.0.11:80  ESTABLISHED       90000  web           0  -
tcp    100.64.0.20:4000  192.0.2.80:80  10.0.0.9:1025  10.0.0.11:80  ESTABLISHED       90000  web           0  -
tcp    100.64.0.3:4000   192.0.2.80:80  10.0.0.9:1025  10.0.0.11:80  ESTABLISHED       90000  web           0  -
"
    );
    assert_eq!(stderr(&shown), "3 connections\n");
    let json = fake.run(&["conns", "--json"]);
    assert_eq!(stdout(&json).lines().count(), 3, "one a line");
    assert!(
        stdout(&json)
            .lines()
            .all(|line| line.starts_with('{') && line.ends_with('}'))
    );
    let asked = fake.asked();
    let query = "client=100.64.0.0%2F16&state=ESTABLISHED&limit=1000";
    assert_eq!(asked[0], format!("GET /v1/conns?{query} HTTP/1.1"));
    assert_eq!(asked[1], format!("GET /v1/conns?{query}&cursor=0.7 HTTP/1.1"));
    assert_eq!(asked[2], format!("GET /v1/conns?{query}&cursor=1.0 HTTP/1.1"));
}

#[test]
fn drain_waits_until_everything_is_handed_over() {
    let not_yet = STATUS.replace(r#""drained":true"#, r#""drained":false"#);
    let done = r#"{"done":"this node hands over its sessions and addresses"}"#;
    let answers = [
        (200, done),
        (200, not_yet.as_str()),
        (200, STATUS),
        (200, done),
        (200, not_yet.as_str()),
    ];
    let fake = Fake::new("drain", &answers);
    let drained = fake.run(&["drain", "--wait"]);
    assert_eq!(drained.status.code(), Some(0), "{}", stderr(&drained));
    assert_eq!(
        stdout(&drained),
        "this node hands over its sessions and addresses\nhanded over\n"
    );
    let late = fake.run(&["drain", "--wait", "--timeout", "0"]);
    assert_eq!(late.status.code(), Some(1));
    assert!(stderr(&late).contains("nobody is there"), "{}", stderr(&late));
    let asked = fake.asked();
    assert_eq!(asked[0], "POST /v1/drain HTTP/1.1");
    assert_eq!(asked.len(), 5);
}

#[test]
fn promote_waits_until_it_is_master_in_every_family_of_the_router() {
    let master = |families: &str| STATUS.replace(r#""master":[]"#, &format!(r#""master":[{families}]"#));
    let (none, one, all) = (master(""), master(r#""ipv4""#), master(r#""ipv4","ipv6""#));
    let only_v4 = one.replace(r#"["ipv4","ipv6"]"#, r#"["ipv4"]"#);
    let done = r#"{"done":"this node becomes master"}"#;
    let answers = [
        done,
        none.as_str(),
        one.as_str(),
        all.as_str(),
        done,
        only_v4.as_str(),
    ];
    let fake = Fake::new("promote", &answers.map(|answer| (200, answer)));
    for _ in 0..2 {
        let promoted = fake.run(&["promote", "--wait"]);
        assert_eq!(promoted.status.code(), Some(0), "{}", stderr(&promoted));
        assert_eq!(stdout(&promoted), "this node becomes master\nmaster\n");
    }
    assert_eq!(fake.asked().len(), 6, "one family of two is waited for on");
}

#[test]
fn what_does_not_work_is_said_with_its_remedy() {
    let refused = r#"{"error":"this node does not serve","help":"wait until it is ready"}"#;
    let fake = Fake::new("refused", &[(409, refused), (200, "{}"), (500, "what?")]);
    let output = fake.run(&["promote"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("does not serve") && stderr(&output).contains("wait until it is ready"));
    let output = fake.run(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("different versions"),
        "{}",
        stderr(&output)
    );
    let output = fake.run(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("status 500"), "{}", stderr(&output));
    assert_eq!(fake.asked()[0], "POST /v1/promote HTTP/1.1");

    let output = evenkeel(&["ctl", "status", "--socket", "/nowhere/ctl.sock"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("/nowhere/ctl.sock") && said.contains("evenkeel run --config"),
        "{said}"
    );
    let output = evenkeel(&["ctl", "promote", "--off", "--wait"]);
    assert_eq!(output.status.code(), Some(1), "one or the other");
}

#[test]
fn help_of_each_command_has_examples_and_exit_codes() {
    for command in [
        "status",
        "services",
        "conns",
        "replication",
        "stats",
        "drain",
        "undrain",
        "promote",
    ] {
        let help = evenkeel(&["ctl", command, "--help"]);
        let text = stdout(&help);
        assert_eq!(help.status.code(), Some(0), "{command}");
        assert!(
            text.contains("Example") && text.contains("Exit codes: 0"),
            "{command}: {text}"
        );
        assert!(
            text.contains("--socket") && text.contains("--json"),
            "{command}: {text}"
        );
    }
}
