//! Configs as users write them: right ones, wrong ones with the report they get, and arbitrary ones.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_control::{Code, Config, ConfigErrors, Ids, PROBLEM_COUNT_MAX, TEXT_LEN_MAX, parse, parse_with};
use evenkeel_core::proto::{ConnState, Timeouts};
use evenkeel_core::sched::SchedulerKind;
use evenkeel_core::service::{RealServerId, ServiceId};
use evenkeel_core::tuple::L4Proto;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, NarratableReportHandler};
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../../examples/fullnat.toml");
const REPLAY: &str = include_str!("../../examples/replay.toml");
const REPLAY_MARIADB: &str = include_str!("../../examples/replay-mariadb.toml");

/// The report of a terminal that is 100 columns wide and has no colours.
fn report(diagnostic: &dyn Diagnostic) -> String {
    let mut out = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    handler
        .render_report(&mut out, diagnostic)
        .expect("a report can be rendered");
    let mut narrated = String::new();
    NarratableReportHandler::new()
        .render_report(&mut narrated, diagnostic)
        .expect("so can a narrated one");
    assert!(!narrated.is_empty());
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn texts(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let entries = std::fs::read_dir(folder).expect("folder of cases");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("entry").path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    let read = |p: PathBuf| {
        let name = p.file_stem().expect("name").to_str().expect("UTF-8").to_owned();
        (name, std::fs::read_to_string(p).expect("text"))
    };
    paths.into_iter().map(read).collect()
}

/// What must hold of every refusal.
fn check_errors(text: &str, errors: &ConfigErrors) {
    let problems = errors.problems();
    assert!(!problems.is_empty() && problems.len() <= PROBLEM_COUNT_MAX);
    assert!(errors.omitted() == 0 || problems.len() == PROBLEM_COUNT_MAX);
    assert!(
        problems.is_sorted_by_key(|p| p.span().start),
        "not in the order of the text"
    );
    assert!(problems.is_sorted_by_key(|p| (p.line, p.column)));
    for p in problems {
        assert!(!p.message.is_empty() && !p.help.is_empty() && !p.code.is_warning());
        let spanned = text.get(p.span()).expect("a span of the text");
        assert_eq!(spanned.chars().count(), p.len);
        let line = text.split('\n').nth(p.line - 1).expect("a line of the text");
        let start: String = line.chars().skip(p.column - 1).chain(['\n']).take(1).collect();
        assert!(
            p.len == 0 || spanned.starts_with(&start),
            "{}:{} is not {spanned:?}",
            p.line,
            p.column
        );
    }
}

fn codes(errors: &ConfigErrors) -> Vec<Code> {
    errors.problems().iter().map(|p| p.code).collect()
}

/// A key of zeros and one that maps local ports onto fewer buckets than there are: the reason is in the message.
#[test]
fn check_refuses_a_key_without_full_rank() {
    let low_rank = "ff".repeat(40);
    for (key, buckets, reaches) in [
        ("00".repeat(40), 64, "only 1 of 64 buckets (rank 0, needed 6)"),
        (low_rank.clone(), 64, "only 2 of 64 buckets (rank 1, needed 6)"),
        (low_rank, 2, ""),
    ] {
        let bytes: Vec<_> = key
            .as_bytes()
            .chunks(2)
            .map(|b| str::from_utf8(b).expect("digits"))
            .collect();
        let rss = format!("[rss]\nkey = \"{}\"\nbuckets = {buckets}\n", bytes.join(":"));
        let text = format!("{REPLAY}\n{rss}");
        let refused = parse("rank.toml", &text).err();
        if reaches.is_empty() {
            assert!(refused.is_none(), "rank 1 is enough for two buckets: {refused:?}");
            continue;
        }
        let errors = refused.expect("a key that cannot align ports is refused");
        check_errors(&text, &errors);
        let [v4, v6] = errors.problems() else {
            panic!("one for each family: {errors:?}");
        };
        for (problem, family) in [(v4, "IPv4"), (v6, "IPv6")] {
            assert_eq!(problem.code, Code::RssKey);
            assert!(problem.message.contains(family), "{}", problem.message);
            assert!(problem.message.ends_with(reaches), "{}", problem.message);
            assert!(!problem.help.is_empty());
            assert!(text[problem.span()].contains(&key[..2]));
        }
    }
}

#[test]
fn bad_configs_get_these_reports() {
    let cases = texts("bad");
    assert!(cases.len() >= 25, "{} cases", cases.len());
    let mut seen = Vec::new();
    for (name, text) in cases {
        let errors = parse(&format!("{name}.toml"), &text).expect_err(&name);
        check_errors(&text, &errors);
        seen.extend(codes(&errors));
        let mut again: Vec<_> = errors
            .problems()
            .iter()
            .map(|p| (p.line, p.column, p.code, p.message.clone()))
            .collect();
        again.dedup();
        assert_eq!(
            again.len(),
            errors.problems().len(),
            "{name}: the same error twice"
        );
        insta::assert_snapshot!(format!("bad_{name}"), report(&errors));
    }
    // Three need more text than is worth a file: below.
    seen.extend([Code::TooMany, Code::IdsExhausted, Code::TooLarge]);
    for &code in Code::ALL.iter().filter(|c| !c.is_warning()) {
        assert!(seen.contains(&code), "no case for {code}");
    }
}

#[test]
fn configs_that_will_not_work_as_meant_are_warned_of() {
    let mut seen = Vec::new();
    for (name, text) in texts("warn") {
        let config = parse(&format!("{name}.toml"), &text).unwrap_or_else(|e| panic!("{}", report(&e)));
        let mut reports: Vec<_> = config.warnings.iter().map(|w| report(w)).collect();
        if !config.unresolved.is_empty() {
            reports.push("\nWho has a capture alone:\n\n".into());
            reports.extend(config.unresolved.iter().map(|w| report(w)));
        }
        let warnings = || config.warnings.iter().chain(&config.unresolved);
        assert!(warnings().all(|w| w.code.is_warning()), "{name}");
        seen.extend(warnings().map(|w| w.code));
        insta::assert_snapshot!(format!("warn_{name}"), reports.concat());
    }
    for code in Code::ALL.iter().filter(|c| c.is_warning()) {
        assert!(seen.contains(code), "no case for {code}");
    }
}

fn right(text: &str) -> Config {
    parse("config.toml", text).unwrap_or_else(|e| panic!("{}", report(&e)))
}

#[test]
fn the_examples_are_right_and_without_warning() {
    for text in [EXAMPLE, REPLAY, REPLAY_MARIADB] {
        let config = right(text);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        assert!(config.unresolved.is_empty(), "{:?}", config.unresolved);
        assert_eq!(config.warnings_omitted, 0);
        for server in config.snapshot.services().flat_map(|s| &s.servers) {
            assert!(server.next_hop.is_some());
        }
        assert!(
            config
                .snapshot
                .next_hop("192.0.2.200".parse().expect("address"))
                .is_ok()
        );
    }
    let config = right(EXAMPLE);
    assert_eq!(
        (config.workers, config.sizes.conns_v4, config.sizes.conns_v6),
        (2, 262_144, 131_072)
    );
    assert_eq!((config.steering.buckets(), config.local_port_min), (64, 1024));
    let shape: Vec<_> = config
        .spec
        .services
        .iter()
        .map(|s| {
            (
                s.name.as_str(),
                SocketAddr::new(s.vip, s.port).to_string(),
                s.proto,
                s.scheduler,
                s.servers.len(),
            )
        })
        .collect();
    let (rr, wrr) = (SchedulerKind::RoundRobin, SchedulerKind::WeightedRoundRobin);
    let wanted = [
        ("web", "192.0.2.80:80", L4Proto::Tcp, rr, 3),
        ("dns", "192.0.2.53:53", L4Proto::Udp, wrr, 2),
        ("web6", "[2001:db8::80]:443", L4Proto::Tcp, rr, 2),
        ("web64", "[2001:db8::64]:80", L4Proto::Tcp, rr, 2),
    ];
    assert_eq!(shape, wanted.map(|(n, v, p, s, k)| (n, v.to_owned(), p, s, k)));
    let ms = |i: usize, state| config.spec.services.get(i).map(|s| s.timeouts.ms(state));
    assert_eq!(
        ms(0, ConnState::Established),
        Some(900_000),
        "from [timeouts.tcp]"
    );
    assert_eq!(ms(0, ConnState::UdpNormal), Some(120_000), "from [timeouts.udp]");
    assert_eq!(ms(1, ConnState::UdpNormal), Some(10_000), "the service's own");
    assert_eq!(ms(1, ConnState::UdpOneWay), Some(5_000), "the service's own");
    let mariadb = right(REPLAY_MARIADB);
    assert_eq!(
        mariadb.spec.services[0].timeouts.ms(ConnState::Established),
        5_000
    );
}

/// The least that a config says.
const LEAST: &str = r#"
[[port]]
name = "net"
mac = "02:00:00:00:00:01"
[[service]]
name = "web"
vip = "192.0.2.80:80"
protocol = "tcp"
local_addresses = ["203.0.113.10"]
server = [{ address = "203.0.113.11:80" }]
"#;

#[test]
fn defaults_are_those_of_dpvs_and_of_the_docs() {
    let config = right(LEAST);
    assert_eq!(
        (config.workers, config.steering.buckets(), config.local_port_min),
        (1, 64, 1024)
    );
    let sizes = config.sizes;
    assert_eq!(
        (sizes.conns_v4, sizes.conns_v6, sizes.exts),
        (65_536, 16_384, 5_120)
    );
    assert_eq!(config.rss_key, evenkeel_core::hash::MICROSOFT_KEY);
    let service = &config.spec.services[0];
    assert_eq!(
        (service.scheduler, service.servers[0].weight),
        (SchedulerKind::RoundRobin, 1)
    );
    assert_eq!(service.timeouts, Timeouts::default());
    // DPVS 1.10: tcp_timeouts and udp_timeouts of ip_vs_proto_tcp.c and ip_vs_proto_udp.c, in seconds.
    for (state, seconds) in [
        (ConnState::None, 2),
        (ConnState::Established, 90),
        (ConnState::SynSent, 3),
        (ConnState::SynRecv, 30),
        (ConnState::FinWait, 7),
        (ConnState::TimeWait, 7),
        (ConnState::Close, 3),
        (ConnState::CloseWait, 7),
        (ConnState::LastAck, 7),
        (ConnState::Listen, 120),
        (ConnState::SynAck, 30),
        (ConnState::UdpOneWay, 300),
        (ConnState::UdpNormal, 300),
    ] {
        assert_eq!(service.timeouts.ms(state), seconds * 1000, "{state:?}");
    }
}

#[test]
fn every_timeout_can_be_set_by_its_name() {
    let tcp = [
        "none",
        "established",
        "syn_sent",
        "syn_recv",
        "fin_wait",
        "time_wait",
        "close",
        "close_wait",
        "last_ack",
        "listen",
        "synack",
    ];
    let mut text = LEAST.to_owned();
    for (section, names, from) in [("tcp", &tcp[..], 0), ("udp", &["one_way", "normal"][..], 11)] {
        text += &format!("[timeouts.{section}]\n");
        for (i, name) in names.iter().enumerate() {
            text += &format!("{name} = \"{}ms\"\n", 1001 + from + i);
        }
    }
    let timeouts = right(&text).spec.services[0].timeouts;
    for (i, state) in ConnState::ALL.into_iter().enumerate() {
        assert_eq!(timeouts.ms(state), 1001 + i as u32, "{state:?}");
    }
}

#[test]
fn keys_are_microsofts_the_symmetric_one_or_bytes() {
    let microsoft = evenkeel_core::hash::MICROSOFT_KEY;
    let hex: Vec<_> = microsoft.iter().map(|b| format!("{b:02X}")).collect();
    for (written, key) in [
        ("microsoft", microsoft.to_vec()),
        ("symmetric", [0x6d, 0x5a].repeat(20)),
        (&hex.join(":"), microsoft.to_vec()),
    ] {
        let config = right(&format!("{LEAST}\n[rss]\nkey = \"{written}\"\nbuckets = 256"));
        assert_eq!(config.rss_key, key);
        let end: SocketAddr = "192.0.2.1:80".parse().expect("address");
        let hash = |c: &Config| {
            c.steering
                .toeplitz()
                .hash(end, "203.0.113.9:5000".parse().expect("address"))
        };
        assert_eq!(written == "symmetric", hash(&config) != hash(&right(LEAST)));
    }
}

#[test]
fn what_needs_a_restart_is_named() {
    let old = right(EXAMPLE);
    let change = |from: &str, to: &str| {
        assert!(EXAMPLE.contains(from), "{from}");
        old.restart_needed(&right(&EXAMPLE.replacen(from, to, 1)))
    };
    assert!(old.restart_needed(&old.clone()).is_empty());
    assert!(change("weight = 3", "weight = 4").is_empty());
    assert!(change("203.0.113.2/24", "203.0.113.3/24").is_empty());
    assert!(change("\"15m\"", "\"10m\"").is_empty());
    assert_eq!(change("workers = 2", "workers = 3"), ["workers"]);
    assert_eq!(change("262_144", "262_145"), ["table"]);
    assert_eq!(change("buckets = 64", "buckets = 128"), ["rss"]);
    assert_eq!(change("\"microsoft\"", "\"symmetric\""), ["rss"]);
    assert_eq!(change("00:00:02\"", "00:00:0a\""), ["port"]);
    assert_eq!(
        change("workers = 2", "workers = 3\nlocal_ports.min = 2048"),
        ["workers", "local_ports"]
    );
}

#[test]
fn ids_survive_a_reload() {
    let service = |port: u16, servers: &[u8]| {
        let servers: Vec<_> = servers
            .iter()
            .map(|n| format!("{{ address = \"203.0.113.{n}:80\" }}"))
            .collect();
        format!(
            "[[service]]\nname = \"s{port}\"\nvip = \"192.0.2.80:{port}\"\nprotocol = \"tcp\"\n\
             local_addresses = [\"203.0.113.10\"]\nserver = [{}]\n",
            servers.join(", ")
        )
    };
    let port = "[[port]]\nname = \"net\"\nmac = \"02:00:00:00:00:01\"\n";
    let mut ids = Ids::new();
    let load = |services: &[String], ids: &mut Ids| {
        let config = parse_with("config.toml", &format!("{port}{}", services.concat()), ids).expect("right");
        let of = |s: &evenkeel_core::service::ServiceSpec| {
            (s.id.0, s.servers.iter().map(|r| r.id.0).collect::<Vec<_>>())
        };
        config.spec.services.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(
        load(&[service(80, &[11, 12]), service(81, &[11])], &mut ids),
        [(0, vec![0, 1]), (1, vec![2])]
    );
    // Another order, a service in front, a server less and a new one: who stayed has its id.
    let second = [service(79, &[11]), service(81, &[11]), service(80, &[13, 12])];
    assert_eq!(
        load(&second, &mut ids),
        [(2, vec![3]), (1, vec![2]), (0, vec![4, 1])]
    );
    // A refused config leaves no trace.
    assert!(
        parse_with(
            "config.toml",
            &format!("{port}{}nonsense = 1", service(99, &[1])),
            &mut ids
        )
        .is_err()
    );
    assert_eq!(ids.counts(), (3, 5));
    // The old server comes back before it is forgotten; then it is forgotten.
    assert_eq!(load(&[service(80, &[11])], &mut ids), [(0, vec![0])]);
    ids.forget_unused(|s| s == ServiceId(0), |r| r == RealServerId(0));
    assert_eq!(ids.counts(), (1, 1));
    assert_eq!(
        load(&[service(81, &[11]), service(80, &[11])], &mut ids),
        [(3, vec![5]), (0, vec![0])]
    );
}

/// `n` services with VIPs from `first` on, each with `servers` real servers of its own.
fn many(first: u32, n: u32, servers: u32) -> String {
    let mut text = "[[port]]\nname = \"net\"\nmac = \"02:00:00:00:00:01\"\n".to_owned();
    for i in first..first + n {
        let vip = std::net::Ipv4Addr::from(0x0a00_0000 + i);
        text += &format!(
            "[[service]]\nname = \"s{i}\"\nvip = \"{vip}:80\"\nprotocol = \"tcp\"\nlocal_addresses = [\"203.0.113.10\"]\nserver = [\n"
        );
        for j in 0..servers {
            text += &format!(
                "  {{ address = \"{}:80\" }},\n",
                std::net::Ipv4Addr::from(0xc612_0000 + j)
            );
        }
        text += "]\n";
    }
    text
}

#[test]
fn bounds_are_errors_with_a_place() {
    assert_eq!(right(&many(0, 4096, 4)).snapshot.services().count(), 4096);
    let text = many(0, 4097, 1);
    let errors = parse("many.toml", &text).expect_err("too many services");
    check_errors(&text, &errors);
    assert_eq!(codes(&errors), [Code::TooMany]);
    assert_eq!(
        errors.problems()[0].line,
        3 + 4096 * 8 + 1,
        "the first one beyond"
    );
    let text = many(0, 17, 1000);
    let errors = parse("many.toml", &text).expect_err("too many servers");
    assert_eq!(codes(&errors), [Code::TooMany]);
    let text = many(0, 1, 1025);
    assert_eq!(
        codes(&parse("many.toml", &text).expect_err("too many servers of one")),
        [Code::TooMany]
    );
    assert!(errors.problems()[0].help.contains("at most 16384 real servers"));
}

#[test]
fn ids_that_are_all_remembered_are_an_error() {
    let mut ids = Ids::new();
    for first in [0, 4096] {
        let loaded = parse_with("ids.toml", &many(first, 4096, 1), &mut ids);
        if first == 0 {
            assert!(loaded.is_ok());
            continue;
        }
        let errors = loaded.expect_err("ids are exhausted");
        assert_eq!(codes(&errors), [Code::IdsExhausted]);
        assert!(errors.problems()[0].message.contains("4096 ids of services"));
    }
    ids.forget_unused(|_| false, |_| false);
    assert!(parse_with("ids.toml", &many(4096, 4096, 4), &mut ids).is_ok());
    let mut servers = many(4096, 1, 1).replace("198.18.0.0", "198.18.9.9");
    let errors = parse_with("ids.toml", &servers, &mut ids).expect_err("server ids are exhausted");
    assert_eq!(codes(&errors), [Code::IdsExhausted]);
    assert!(errors.problems()[0].message.contains("16384 ids of real servers"));
    servers = servers.replace("198.18.9.9", "198.18.0.0");
    assert!(
        parse_with("ids.toml", &servers, &mut ids).is_ok(),
        "a remembered one is found"
    );
}

#[test]
fn the_first_hundred_errors_are_reported_and_the_others_counted() {
    let text: String = (0..250).map(|i| format!("k{i} = 1\n")).collect();
    let errors = parse("many.toml", &text).expect_err("unknown keys");
    check_errors(&text, &errors);
    // 250 keys, no port and no service.
    assert_eq!((errors.problems().len(), errors.omitted()), (100, 152));
    assert!(errors.to_string().contains("252 errors"));
    assert!(errors.problems().iter().all(|p| p.line <= 98));
    assert!(report(&errors).contains("and 152 more"));
    // Errors of core are counted alike.
    let servers = "  { address = \"127.0.0.1:80\" }, { address = \"203.0.113.77:0\" },\n";
    let text = many(0, 150, 1).replace("  { address = \"198.18.0.0:80\" },\n", servers);
    let errors = parse("many.toml", &text).expect_err("loopback and port 0");
    check_errors(&text, &errors);
    assert_eq!((errors.problems().len(), errors.omitted()), (100, 200));
}

#[test]
fn a_text_that_is_too_long_or_too_deep_is_refused() {
    let errors = parse("long.toml", &"#".repeat(TEXT_LEN_MAX + 1)).expect_err("too long");
    assert_eq!(codes(&errors), [Code::TooLarge]);
    assert!(report(&errors).contains("16777216"));
    let errors = parse("comments.toml", &"#".repeat(TEXT_LEN_MAX)).expect_err("no service");
    assert_eq!(codes(&errors), [Code::NoPort, Code::NoService]);
    // Eighty levels of inline tables, each below as many parts of a key: the parser alone would make a
    // tree that overflows the stack when it is dropped.
    let deep = |parts: usize| {
        format!(
            "{}1{}",
            format!("{}={{", vec!["a"; parts].join(".")).repeat(80),
            "}".repeat(80)
        )
    };
    let errors = parse("deep.toml", &deep(79).replacen("={1", "={b=1", 1)).expect_err("too deep");
    assert_eq!(codes(&errors), [Code::TooLarge]);
    for parts in [1, 8] {
        assert!(parse("deep.toml", &deep(parts)).is_err());
        assert!(parse("deep.toml", &deep(parts).replace("{1}", "{b=1}")).is_err());
    }
    assert!(parse("deep.toml", &format!("a = {}", "[".repeat(1_000_000))).is_err());
    assert!(parse("deep.toml", &format!("{}]", "[a.".repeat(100_000))).is_err());
}

#[test]
fn errors_are_plain_data_too() {
    let errors = parse("node.toml", &LEAST.replace("\"tcp\"", "\"tpc\"")).expect_err("tpc");
    let json = serde_json::to_value(&errors).expect("JSON");
    let wanted = serde_json::json!({
        "file": "node.toml",
        "errors": [{
            "file": "node.toml", "line": 8, "column": 12, "len": 5,
            "message": "`protocol` cannot be \"tpc\"",
            "help": "did you mean \"tcp\"? It is \"tcp\" or \"udp\"",
            "code": "evenkeel::config::bad_value",
        }],
        "omitted": 0,
    });
    assert_eq!(json, wanted);
}

#[test]
fn the_same_text_gives_the_same_config_and_the_same_report() {
    let (a, b) = (right(EXAMPLE), right(EXAMPLE));
    assert_eq!((a.spec, &a.snapshot), (b.spec, &b.snapshot));
    let bad = EXAMPLE.replace("vip", "vpi");
    let rendered = || report(&parse("x.toml", &bad).expect_err("no vip"));
    assert_eq!(rendered(), rendered());
}

/// Either a config or errors with places; both can be shown.
fn check_any(text: &str) {
    match parse("any.toml", text) {
        Ok(config) => {
            assert!(config.snapshot.services().count() > 0);
            for warning in config.warnings.iter().chain(&config.unresolved) {
                assert!(text.get(warning.span()).is_some());
            }
        }
        Err(errors) => {
            check_errors(text, &errors);
            assert!(!report(&errors).is_empty());
        }
    }
}

/// Edits as a hand slips: a piece left out, doubled, or replaced by something else.
fn mutate(text: &str, edits: &[(usize, usize, u8, String)]) -> String {
    let mut text = text.to_owned();
    for (at, len, kind, other) in edits {
        let floor = |mut i: usize| {
            i = i.min(text.len());
            while !text.is_char_boundary(i) {
                i -= 1;
            }
            i
        };
        let start = floor(at % (text.len() + 1));
        let end = floor(start + len).max(start);
        let piece = text[start..end].to_owned();
        match kind % 3 {
            0 => text.replace_range(start..end, ""),
            1 => text.insert_str(start, &piece),
            _ => text.replace_range(start..end, other),
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        check_any(&text);
    }

    #[test]
    fn arbitrary_tokens_never_panic(
        tokens in proptest::collection::vec(prop_oneof![
            Just("[[service]]\n"), Just("[[service.server]]\n"), Just("[[port]]\n"), Just("[table]\n"), Just("[timeouts.tcp]\n"),
            Just("[service.timeouts]\n"), Just("vip"), Just("name"), Just("address"), Just("established"), Just(" = "), Just("\n"),
            Just("\"90s\""), Just("\"192.0.2.1:80\""), Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just("."), Just("5"),
            Just("\"\"\""), Just("'"), Just("\\"), Just("#"), Just("\r\n"), Just("\u{feff}"), Just("é"),
        ], 0..60),
    ) {
        check_any(&tokens.concat());
    }

    #[test]
    fn the_example_with_slips_never_panics(
        edits in proptest::collection::vec((any::<usize>(), 0usize..40, any::<u8>(), "[\\[\\]{}=\"'.,#0-9a-z:/ \n\u{e9}]{0,6}"), 1..5),
    ) {
        check_any(&mutate(EXAMPLE, &edits));
    }

    #[test]
    fn timeouts_are_what_was_written(ms in 1u64..=7 * 86_400_000) {
        let written = evenkeel_control::show_duration(Duration::from_millis(ms));
        let config = right(&format!("{LEAST}\n[timeouts.tcp]\nestablished = \"{written}\""));
        prop_assert_eq!(u64::from(config.spec.services[0].timeouts.ms(ConnState::Established)), ms);
    }
}
