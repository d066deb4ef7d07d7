//! What the daemon is told: `[io]`, `[daemon]`, devices of ports, `[service.health]`.

use std::path::Path;
use std::time::Duration;

use evenkeel_control::{
    Code, Config, ConfigErrors, DEVICE_LEN_MAX, DaemonConfig, Device, DpdkConfig, Driver, HealthCheck,
    HealthConfig, INTERFACE_LEN_MAX, Idle, Ids, IoConfig, LogConfig, LogFormat, LogLevel, parse, parse_as,
};
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../../examples/active-backup.toml");

/// The least that a config says, in three parts: what is added stands between them.
const TOP: &str = "workers = 2\n";
const PORT: &str = "[[port]]\nname = \"net\"\nmac = \"02:00:00:00:00:01\"\n";
const SERVICE: &str = "[[service]]\nname = \"web\"\nvip = \"192.0.2.80:80\"\nprotocol = \"tcp\"\n\
                       local_addresses = [\"203.0.113.10\"]\nserver = [{ address = \"203.0.113.11:80\" }]\n";

fn with(sections: &str, port: &str, service: &str) -> String {
    format!("{TOP}{sections}\n{PORT}{port}\n{SERVICE}{service}\n")
}

fn right(text: &str) -> Config {
    parse("daemon.toml", text).unwrap_or_else(|e| panic!("{:?}", e.problems()))
}

fn refused(text: &str) -> ConfigErrors {
    match parse("daemon.toml", text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => errors,
    }
}

fn device(name: Option<&str>, tap: Option<&str>) -> Device {
    Device {
        name: name.map(str::to_owned),
        tap: tap.map(str::to_owned),
    }
}

#[test]
fn defaults_are_those_of_the_docs() {
    let config = right(&with("", "", ""));
    let io = IoConfig {
        driver: Driver::Pcap,
        idle: Idle::Sleep,
        cores: Vec::new(),
        devices: vec![Device::default()],
        dpdk: DpdkConfig {
            huge_pages: true,
            memory_mib: 512,
            mbufs: 16_384,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
        },
    };
    assert_eq!(config.io, io);
    let daemon = DaemonConfig {
        ctl: "/run/evenkeel/ctl.sock".into(),
        metrics: None,
        state: None,
        user: None,
        drain_limit: Duration::from_secs(30),
        log: LogConfig {
            format: LogFormat::Text,
            level: LogLevel::Info,
        },
    };
    assert_eq!(config.daemon, daemon);
    assert_eq!(config.health, [None]);
    let health = |check| HealthConfig {
        check,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        port: None,
    };
    for (text, check) in [
        ("type = \"tcp\"", HealthCheck::Tcp),
        ("type = \"icmp\"", HealthCheck::Icmp),
        (
            "type = \"http\"",
            HealthCheck::Http {
                path: "/".into(),
                host: None,
                status: (200, 399),
            },
        ),
        (
            "type = \"udp\"\nsend = \"ping\"",
            HealthCheck::Udp {
                send: b"ping".to_vec(),
                expect: None,
            },
        ),
    ] {
        let config = right(&with("", "", &format!("[service.health]\n{text}")));
        assert_eq!(config.health, [Some(health(check))]);
    }
}

#[test]
fn what_is_written_counts() {
    let sections = r#"
[io]
driver = "dpdk"
idle = "poll"
cores = [3, 0]
[io.dpdk]
huge_pages = false
memory_mib = 256
mbufs = 8192
rx_descriptors = 512
tx_descriptors = 2048
[daemon]
ctl = "/tmp/lb1.sock"
metrics = "[::]:9790"
state = "/var/lib/evenkeel"
user = "evenkeel"
drain_limit = "0s"
[daemon.log]
format = "json"
level = "trace"
"#;
    let port = "device = \"net_af_packet0,iface=eth1\"\ntap = \"ek0\"";
    let health = r#"
[service.health]
type = "http"
interval = "5s"
timeout = "5s"
rise = 1
fall = 100
port = 8081
path = "/healthz?full=1"
host = "www.example.com"
status = "204"
"#;
    let config = right(&with(sections, port, health));
    let io = IoConfig {
        driver: Driver::Dpdk,
        idle: Idle::Poll,
        cores: vec![3, 0],
        devices: vec![device(Some("net_af_packet0,iface=eth1"), Some("ek0"))],
        dpdk: DpdkConfig {
            huge_pages: false,
            memory_mib: 256,
            mbufs: 8192,
            rx_descriptors: 512,
            tx_descriptors: 2048,
        },
    };
    assert_eq!(config.io, io);
    let daemon = DaemonConfig {
        ctl: "/tmp/lb1.sock".into(),
        metrics: Some("[::]:9790".parse().expect("address")),
        state: Some("/var/lib/evenkeel".into()),
        user: Some("evenkeel".into()),
        drain_limit: Duration::ZERO,
        log: LogConfig {
            format: LogFormat::Json,
            level: LogLevel::Trace,
        },
    };
    assert_eq!(config.daemon, daemon);
    let health = HealthConfig {
        check: HealthCheck::Http {
            path: "/healthz?full=1".into(),
            host: Some("www.example.com".into()),
            status: (204, 204),
        },
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        rise: 1,
        fall: 100,
        port: Some(8081),
    };
    assert_eq!(config.health, [Some(health)]);
    let udp = "[service.health]\ntype = \"udp\"\nsend = \"hex:00:FF\"\nexpect = \"é\"";
    let check = right(&with("", "", udp)).health[0].clone().map(|h| h.check);
    let wanted = HealthCheck::Udp {
        send: vec![0, 255],
        expect: Some("é".as_bytes().to_vec()),
    };
    assert_eq!(check, Some(wanted));
}

#[test]
fn health_has_the_place_of_its_service() {
    let second = SERVICE
        .replace("\"web\"", "\"other\"")
        .replace(":80\"\nprotocol", ":81\"\nprotocol");
    let config = right(&with("", "", &format!("{second}health = {{ type = \"icmp\" }}")));
    assert_eq!(config.spec.services[1].name, "other");
    let checks: Vec<_> = config
        .health
        .iter()
        .map(|h| h.as_ref().map(|h| h.check.clone()))
        .collect();
    assert_eq!(checks, [None, Some(HealthCheck::Icmp)]);
}

#[test]
fn what_a_node_says_of_its_devices_wins() {
    let text = EXAMPLE
        .replace("driver = \"pcap\"", "driver = \"dpdk\"")
        .replace(
            "mac = \"02:00:00:00:02:01\"",
            "mac = \"02:00:00:00:02:01\"\ndevice = \"0000:03:00.0\"\ntap = \"ek0\"",
        )
        .replace(
            "mac = \"02:00:00:00:02:02\"",
            "mac = \"02:00:00:00:02:02\"\ntap = \"ek1\"",
        );
    let devices = |node| {
        let config = parse_as("daemon.toml", &text, Some(node), &mut Ids::new());
        config.unwrap_or_else(|e| panic!("{:?}", e.problems())).io.devices
    };
    let (eth1, eth2) = (Some("eth1"), Some("eth2"));
    assert_eq!(devices("lb1"), [device(eth1, None), device(eth2, None)]);
    assert_eq!(
        devices("lb2"),
        [
            device(Some("0000:03:00.0"), Some("ek0")),
            device(eth2, Some("ek1"))
        ]
    );
    // A device that is only another node's second one is nobody's.
    let swapped = EXAMPLE.replace(
        "mac = \"02:00:00:00:02:01\"",
        "mac = \"02:00:00:00:02:01\"\ndevice = \"eth2\"",
    );
    assert!(parse_as("daemon.toml", &swapped, Some("lb1"), &mut Ids::new()).is_ok());
    let errors = parse_as("daemon.toml", &swapped, Some("lb2"), &mut Ids::new()).expect_err("twice");
    assert_eq!(errors.problems()[0].code, Code::Duplicate);
}

#[test]
fn sizes_that_are_not_written_follow_those_that_are() {
    let dpdk = |sections: &str| right(&with(sections, "", "")).io.dpdk;
    // 2 workers, 8,192 descriptors each way.
    let large = dpdk("[io]\ndriver = \"dpdk\"\ndpdk = { rx_descriptors = 8192, tx_descriptors = 8192 }");
    assert_eq!((large.mbufs, large.memory_mib), (2 * 16_384 + 8192, 512));
    let many = dpdk("[io]\ndriver = \"dpdk\"\ndpdk = { mbufs = 1_048_576 }");
    assert_eq!(many.memory_mib, 2560 + 128, "the buffers, and some");
    // A timeout that is not written is never longer than the interval.
    let health = right(&with(
        "",
        "",
        "[service.health]\ntype = \"tcp\"\ninterval = \"300ms\"",
    ))
    .health;
    assert_eq!(
        health[0].as_ref().map(|h| h.timeout),
        Some(Duration::from_millis(300))
    );
}

#[test]
fn lengths_have_their_bounds() {
    let x = |n| "x".repeat(n);
    let dpdk = "[io]\ndriver = \"dpdk\"";
    let device = |n: usize| with(dpdk, &format!("device = \"{}\"", x(n)), "");
    let tap = |n: usize| with(dpdk, &format!("tap = \"{}\"", x(n)), "");
    let pcap = |n: usize| with("", &format!("device = \"{}\"", x(n)), "");
    let ctl = |n: usize| with(&format!("[daemon]\nctl = \"/{}\"", x(n - 1)), "", "");
    let state = |n: usize| with(&format!("[daemon]\nstate = \"/{}\"", x(n - 1)), "", "");
    let user = |n: usize| with(&format!("[daemon]\nuser = \"{}\"", x(n)), "", "");
    let health = |rest: String| with("", "", &format!("[service.health]\n{rest}"));
    let path = |n: usize| health(format!("type = \"http\"\npath = \"/{}\"", x(n - 1)));
    let host = |n: usize| health(format!("type = \"http\"\nhost = \"{}\"", x(n)));
    let send = |n: usize| health(format!("type = \"udp\"\nsend = \"{}\"", x(n)));
    let expect = |n: usize| health(format!("type = \"udp\"\nsend = \"x\"\nexpect = \"{}\"", x(n)));
    type Text<'a> = &'a dyn Fn(usize) -> String;
    let cases: [(&str, Text<'_>, usize); 10] = [
        ("device", &device, DEVICE_LEN_MAX),
        ("tap", &tap, INTERFACE_LEN_MAX),
        ("interface", &pcap, INTERFACE_LEN_MAX),
        ("ctl", &ctl, 107),
        ("state", &state, 1023),
        ("user", &user, 32),
        ("path", &path, 1024),
        ("host", &host, 255),
        ("send", &send, 1024),
        ("expect", &expect, 1024),
    ];
    for (what, text, max) in cases {
        right(&text(max));
        let errors = refused(&text(max + 1));
        let codes: Vec<_> = errors.problems().iter().map(|p| p.code).collect();
        assert_eq!(codes, [Code::BadValue], "{what}");
    }
}

#[test]
fn metrics_are_served_at_an_address_of_the_host() {
    let metrics = |end: &str| with(&format!("[daemon]\nmetrics = \"{end}\""), "", "");
    for end in ["127.0.0.1:9790", "0.0.0.0:1", "[::]:65535", "[2001:db8::1]:9790"] {
        let config = right(&metrics(end));
        assert_eq!(config.daemon.metrics.map(|m| m.to_string()), Some(end.to_owned()));
    }
    for (end, code) in [
        ("127.0.0.1:0", Code::PortZero),
        ("127.0.0.1", Code::BadAddress),
        ("[ff02::1]:9790", Code::NotUnicast),
        ("255.255.255.255:9790", Code::NotUnicast),
    ] {
        assert_eq!(refused(&metrics(end)).problems()[0].code, code, "{end}");
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
    for (from, to, named) in [
        ("\"sleep\"", "\"poll\"", "io"),
        ("# cores", "cores", "io"),
        ("driver = \"pcap\"", "driver = \"dpdk\"", "io"),
        (
            "driver = \"pcap\"",
            "driver = \"dpdk\"\ndpdk.mbufs = 20_000",
            "io",
        ),
        ("\"30s\"", "\"31s\"", "daemon"),
        ("# user", "user", "daemon"),
        ("level = \"info\"", "level = \"debug\"", "daemon"),
        ("\"eth1\"", "\"eth3\"", "port"),
    ] {
        assert_eq!(change(from, to), [named], "{from} to {to}");
    }
    // Health is not fixed.
    for (from, to) in [
        ("/healthz", "/"),
        ("interval = \"2s\"\n", "interval = \"3s\"\n"),
        ("health = { type = \"tcp\" }", ""),
        ("health = { type = \"tcp\" }", "health = { type = \"icmp\" }"),
    ] {
        assert_eq!(change(from, to), Vec::<&str>::new(), "{from} to {to}");
    }
}

/// What must hold of every config that was accepted.
fn check(config: &Config) {
    let IoConfig {
        cores,
        devices,
        dpdk,
        driver,
        ..
    } = &config.io;
    assert!(cores.is_empty() || cores.len() == usize::from(config.workers));
    assert_eq!(devices.len(), config.spec.ports.len());
    assert!(devices.iter().all(|d| d.tap.is_none() || *driver == Driver::Dpdk));
    let queues =
        (u32::from(dpdk.rx_descriptors) + u32::from(dpdk.tx_descriptors)) * u32::from(config.workers);
    assert!(dpdk.mbufs > queues);
    let bytes = u64::from(dpdk.mbufs) * devices.len() as u64 * 2560;
    assert!(u64::from(dpdk.memory_mib) << 20 >= bytes);
    assert!(Path::new(&config.daemon.ctl).is_absolute());
    assert!(config.daemon.metrics.is_none_or(|m| m.port() != 0));
    assert_eq!(config.health.len(), config.spec.services.len());
    for health in config.health.iter().flatten() {
        assert!(!health.timeout.is_zero() && health.timeout <= health.interval);
        assert!(health.rise > 0 && health.fall > 0 && health.port != Some(0));
        match &health.check {
            HealthCheck::Http { path, status, .. } => assert!(path.starts_with('/') && status.0 <= status.1),
            HealthCheck::Udp { send, expect } => {
                assert!(!send.is_empty() && expect.as_ref().is_none_or(|e| !e.is_empty()));
            }
            HealthCheck::Tcp | HealthCheck::Icmp => {}
        }
    }
    assert!(config.restart_needed(config).is_empty());
}

const KEYS: [&str; 32] = [
    "driver",
    "idle",
    "cores",
    "dpdk",
    "huge_pages",
    "memory_mib",
    "mbufs",
    "rx_descriptors",
    "tx_descriptors",
    "ctl",
    "metrics",
    "state",
    "user",
    "drain_limit",
    "log",
    "format",
    "level",
    "device",
    "tap",
    "type",
    "interval",
    "timeout",
    "rise",
    "fall",
    "port",
    "path",
    "host",
    "status",
    "send",
    "expect",
    "health",
    "io",
];

fn value() -> impl Strategy<Value = String> {
    let known = [
        "\"dpdk\"",
        "\"pcap\"",
        "\"poll\"",
        "\"eth1\"",
        "\"eth2\"",
        "\"net_tap0\"",
        "\"ek0\"",
        "\"http\"",
        "\"tcp\"",
        "\"udp\"",
        "\"icmp\"",
        "\"json\"",
        "\"/x\"",
        "\"200-299\"",
        "\"hex:00\"",
        "\"hex:\"",
        "\"1s\"",
        "\"200ms\"",
        "\"0s\"",
        "\"127.0.0.1:9790\"",
        "[0, 1]",
        "[1, 1]",
        "[]",
        "true",
        "0",
        "1",
        "64",
        "2000",
        "100000",
        "{}",
        "{ type = \"tcp\" }",
        "\"\\u0000\"",
        "\"é\"",
    ];
    prop_oneof![
        3 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,12}",
        1 => "\\PC{0,20}".prop_map(|text| toml::Value::String(text).to_string()),
    ]
}

fn lines() -> impl Strategy<Value = String> {
    let line = (proptest::sample::select(KEYS.to_vec()), value()).prop_map(|(k, v)| format!("{k} = {v}\n"));
    proptest::collection::vec(line, 0..3).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Arbitrary values of all keys, in all sections: refused with a place, or within what the docs promise.
    #[test]
    fn arbitrary_values_never_panic(
        io in lines(), dpdk in lines(), daemon in lines(), log in lines(), port in lines(), health in lines(),
    ) {
        let sections = format!("[io]\n{io}\n[io.dpdk]\n{dpdk}\n[daemon]\n{daemon}\n[daemon.log]\n{log}");
        for text in [
            with(&sections, &port, &format!("[service.health]\n{health}")),
            with(&format!("[io]\n{io}"), "", ""),
            with(&format!("[io]\ndriver = \"dpdk\"\n[io.dpdk]\n{dpdk}"), "", ""),
            with(&format!("[daemon]\n{daemon}"), "", ""),
            with(&format!("[daemon.log]\n{log}"), "", ""),
            with("", &port, ""),
            with("", "", &format!("[service.health]\n{health}")),
        ] {
            match parse("any.toml", &text) {
                Ok(config) => check(&config),
                Err(errors) => for problem in errors.problems() {
                    prop_assert!(text.get(problem.span()).is_some());
                    prop_assert!(!problem.help.is_empty() && !problem.message.is_empty());
                },
            }
        }
    }
}
