//! The section `[cluster]`: what becomes of it, field by field, and that a node takes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use evenkeel_control::{Cluster, Code, Config, ConfigErrors, Ids, parse, parse_as};
use evenkeel_core::cluster::{
    ANNOUNCE_PORT_COUNT_MAX, ClusterConfig, Incarnation, LOCAL_ADDR_COUNT_MAX, Member, NODE_COUNT_MAX,
    NodeCore, NodeId, VIRTUAL_ADDR_COUNT_MAX, VrrpSettings,
};
use evenkeel_core::port::PortId;
use evenkeel_core::time::Instant;
use evenkeel_core::wire::MacAddr;
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../../examples/active-backup.toml");

fn load(text: &str, node: Option<&str>) -> Result<Config, ConfigErrors> {
    parse_as("cluster.toml", text, node, &mut Ids::new())
}

fn right(text: &str, node: Option<&str>) -> (Config, Cluster) {
    let config = load(text, node).unwrap_or_else(|e| panic!("{:?}", e.problems()));
    let cluster = config.cluster.clone().expect("it has a cluster");
    (config, cluster)
}

fn codes(errors: &ConfigErrors) -> Vec<Code> {
    errors.problems().iter().map(|p| p.code).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|t| ip(t)).collect()
}

fn starts(config: &Config, cluster: &Cluster) -> NodeCore {
    let made = NodeCore::new(
        cluster.config.clone(),
        Incarnation(1),
        config.workers,
        7,
        Instant::ZERO,
    );
    made.expect("a config that was accepted makes a node")
}

const LB1: [&str; 3] = ["198.51.100.101", "198.51.100.102", "2001:db8:5::101"];
const LB2: [&str; 3] = ["198.51.100.111", "198.51.100.112", "2001:db8:5::111"];

fn members() -> Vec<Member> {
    vec![
        Member {
            id: NodeId(1),
            priority: 200,
            local_addrs: ips(&LB1),
            vrrp_sources: ips(&["203.0.113.2", "fe80::2"]),
        },
        Member {
            id: NodeId(2),
            priority: 100,
            local_addrs: ips(&LB2),
            vrrp_sources: ips(&["203.0.113.3", "fe80::3"]),
        },
    ]
}

fn wanted(node: u8) -> ClusterConfig {
    let mac = |port| MacAddr([2, 0, 0, 0, node, port]);
    ClusterConfig {
        cluster: 1,
        id: NodeId(node.into()),
        members: members(),
        heartbeat: Duration::from_millis(100),
        down_count: 3,
        lease_margin: Duration::from_millis(50),
        join_time: Duration::from_secs(1),
        announce: vec![(PortId(1), mac(2))],
        vrrp: Some(VrrpSettings {
            vrid: 51,
            interval_cs: 10,
            preempt: true,
            port: PortId(0),
            mac: mac(1),
            source_v4: Some(Ipv4Addr::new(203, 0, 113, 1 + node)),
            source_v6: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1 + u16::from(node))),
            virtual_v4: vec![Ipv4Addr::new(192, 0, 2, 53), Ipv4Addr::new(192, 0, 2, 80)],
            virtual_v6: vec![Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80)],
        }),
        shared_addrs: Vec::new(),
    }
}

#[test]
fn the_example_is_what_both_nodes_are_told() {
    let (first, one) = right(EXAMPLE, None);
    assert!(first.warnings.is_empty(), "{:?}", first.warnings);
    assert_eq!((one.name.as_str(), &one.config), ("lb1", &wanted(1)));
    let (second, two) = right(EXAMPLE, Some("lb2"));
    assert!(second.warnings.is_empty(), "{:?}", second.warnings);
    assert_eq!((two.name.as_str(), &two.config), ("lb2", &wanted(2)));
    assert_eq!(one.config.share_digest(), two.config.share_digest());
    let nodes: Vec<_> = one
        .nodes
        .iter()
        .map(|n| (n.id.0, n.name.as_str(), n.sync.to_string()))
        .collect();
    assert_eq!(
        nodes,
        [
            (1, "lb1", "10.255.0.1:4790".into()),
            (2, "lb2", "10.255.0.2:4790".into())
        ]
    );
    assert_eq!(
        (&two.nodes, two.node(NodeId(2)).map(|n| &*n.name)),
        (&one.nodes, Some("lb2"))
    );

    // Each has its own share, by the families of the servers, and knows the other's.
    for (config, own, peer) in [(&first, LB1, LB2), (&second, LB2, LB1)] {
        let locals: Vec<_> = config
            .spec
            .services
            .iter()
            .map(|s| s.local_addrs.clone())
            .collect();
        assert_eq!(locals, [ips(&own[..2]), ips(&own[2..]), ips(&own[..2])]);
        assert_eq!(config.spec.peer_local_addrs, ips(&peer));
        starts(config, config.cluster.as_ref().expect("it has a cluster"));
    }
    // What is a node's own of its ports.
    let ports = |c: &Config| -> Vec<_> { c.spec.ports.iter().map(|p| (p.mac.0, p.addresses[0].0)).collect() };
    assert_eq!(
        ports(&first),
        [
            ([2, 0, 0, 0, 1, 1], ip("203.0.113.2")),
            ([2, 0, 0, 0, 1, 2], ip("198.51.100.2"))
        ]
    );
    assert_eq!(
        ports(&second),
        [
            ([2, 0, 0, 0, 2, 1], ip("203.0.113.3")),
            ([2, 0, 0, 0, 2, 2], ip("198.51.100.3"))
        ]
    );
}

#[test]
fn a_node_is_called_by_its_name_or_its_number() {
    let line = "this_node = \"lb1\"";
    assert!(EXAMPLE.contains(line));
    let bare = EXAMPLE.replace(line, "");
    for node in ["lb2", "2"] {
        let text = EXAMPLE.replace(line, &format!("this_node = \"{node}\""));
        for (text, node) in [(text.as_str(), None), (EXAMPLE, Some(node)), (&bare, Some(node))] {
            assert_eq!(right(text, node).1.config, wanted(2));
        }
    }
    // A name counts before a number.
    let twisted = EXAMPLE.replace("\"lb1\"", "\"2\"");
    assert_eq!(right(&twisted, None).1.config.id, NodeId(1));

    let errors = load(&bare, None).expect_err("which node?");
    assert_eq!(codes(&errors), [Code::MissingKey]);
    assert!(errors.problems()[0].message.contains("this_node"));
    let errors = load(EXAMPLE, Some("lb3")).expect_err("there is none");
    assert_eq!(codes(&errors), [Code::UnknownNode]);
    assert!(
        errors.problems()[0].help.contains("did you mean \"lb1\""),
        "{:?}",
        errors.problems()
    );
    let alone = include_str!("../../examples/fullnat.toml");
    assert_eq!(
        codes(&load(alone, Some("lb1")).expect_err("no cluster")),
        [Code::UnknownNode]
    );
}

/// The least that a cluster says.
const LEAST: &str = r#"
[cluster]
id = 7
insecure = true
this_node = "a"
node = [
  { id = 1, name = "a", sync = "127.0.0.1:1", local_addresses = ["203.0.113.10"] },
  { id = 2, name = "b", sync = "127.0.0.1:2", local_addresses = ["203.0.113.11", "203.0.113.12"] },
]
[[port]]
name = "net"
mac = "02:00:00:00:00:01"
[[service]]
name = "web"
vip = "192.0.2.80:80"
protocol = "tcp"
server = [{ address = "203.0.113.80:80" }]
"#;

#[test]
fn defaults_are_those_of_the_docs() {
    let (config, cluster) = right(LEAST, None);
    let member = |id, locals: &[&str]| Member {
        id: NodeId(id),
        priority: 100,
        local_addrs: ips(locals),
        vrrp_sources: Vec::new(),
    };
    let wanted = ClusterConfig {
        cluster: 7,
        id: NodeId(1),
        members: vec![
            member(1, &["203.0.113.10"]),
            member(2, &["203.0.113.11", "203.0.113.12"]),
        ],
        heartbeat: Duration::from_millis(100),
        down_count: 3,
        lease_margin: Duration::from_millis(50),
        join_time: Duration::from_secs(1),
        // No port has an address, so that no local address is on its link.
        announce: Vec::new(),
        vrrp: None,
        shared_addrs: ips(&["192.0.2.80"]),
    };
    assert_eq!(cluster.config, wanted);
    starts(&config, &cluster);

    let vrrp = "[cluster.vrrp]\nvrid = 9\nport = \"net\"\n";
    let router = LEAST.replace(
        "\"203.0.113.10\"]",
        "\"203.0.113.10\"], vrrp_source_v4 = \"203.0.113.1\"",
    );
    let router = router.replace(
        "\"203.0.113.12\"]",
        "\"203.0.113.12\"], vrrp_source_v4 = \"203.0.113.2\"",
    );
    let (config, cluster) = right(&router.replace("[[port]]", &format!("{vrrp}[[port]]")), None);
    let vrrp = cluster.config.vrrp.as_ref().expect("it has one");
    assert_eq!(
        (vrrp.vrid, vrrp.interval_cs, vrrp.preempt, vrrp.source_v6),
        (9, 10, true, None)
    );
    assert!(cluster.config.shared_addrs.is_empty() && vrrp.virtual_v6.is_empty());
    starts(&config, &cluster);

    // A node alone is no cluster.
    let alone = parse("alone.toml", include_str!("../../examples/fullnat.toml")).expect("right");
    assert!(alone.cluster.is_none() && alone.spec.peer_local_addrs.is_empty());
}

#[test]
fn what_is_written_counts() {
    let times = "id = 7\nheartbeat = \"1s\"\ndown_count = 5\nlease_margin = \"3s\"\nannounce = [\"net\"]";
    let (config, cluster) = right(&LEAST.replace("id = 7", times), None);
    let c = &cluster.config;
    assert_eq!(
        (c.heartbeat, c.down_count, c.lease_margin),
        (Duration::from_secs(1), 5, Duration::from_secs(3))
    );
    assert_eq!(
        c.join_time,
        Duration::from_secs(6),
        "the default follows the heartbeat"
    );
    assert_eq!(c.announce, [(PortId(0), MacAddr([2, 0, 0, 0, 0, 1]))]);
    starts(&config, &cluster);
    let (_, cluster) = right(
        &LEAST.replace("id = 7", "id = 7\njoin_time = \"2m\"\nannounce = []"),
        None,
    );
    assert_eq!(
        (cluster.config.join_time, cluster.config.announce.len()),
        (Duration::from_secs(120), 0)
    );
    // A service may do with less than the share.
    let listed = LEAST.replace("protocol", "local_addresses = [\"203.0.113.12\"]\nprotocol");
    let (config, _) = right(&listed, Some("b"));
    assert_eq!(config.spec.services[0].local_addrs, ips(&["203.0.113.12"]));
    assert_eq!(
        codes(&load(&listed, Some("a")).expect_err("b's")),
        [Code::NotInShare]
    );
}

#[test]
fn a_cluster_is_fixed_while_a_node_runs() {
    let (old, _) = right(EXAMPLE, None);
    let change = |from: &str, to: &str| {
        assert!(EXAMPLE.contains(from), "{from}");
        old.restart_needed(&right(&EXAMPLE.replacen(from, to, 1), None).0)
    };
    let secrets = "secrets = [\"/etc/evenkeel/secret\"]";
    let both = "secrets = [\"/etc/evenkeel/secret-2\", \"/etc/evenkeel/secret\"]";
    assert!(
        change(secrets, both).is_empty(),
        "secrets change while a node runs"
    );
    assert_eq!(change(secrets, "insecure = true"), ["cluster"]);
    assert!(change("198.51.100.12:8080", "198.51.100.12:8081").is_empty());
    assert_eq!(change("priority = 100", "priority = 101"), ["cluster"]);
    assert_eq!(change("4790", "4791"), ["cluster"]);
    assert_eq!(change("192.0.2.80:80", "192.0.2.81:80"), ["cluster"]);
}

/// A cluster of `nodes` with `locals` local addresses each, and `vips` services.
fn many(nodes: usize, locals: usize, vips: usize, ports: usize) -> String {
    let v4 = |net: u32, n: usize| Ipv4Addr::from(net + n as u32).to_string();
    let mut text = "[cluster]\nid = 1\ninsecure = true\nthis_node = \"n0\"\n".to_owned();
    for n in 0..nodes {
        let share: Vec<_> = (0..locals)
            .map(|i| format!("  \"{}\",\n", v4(0x0a00_0001, n * 256 + i)))
            .collect();
        text += &format!(
            "[[cluster.node]]\nid = {}\nname = \"n{n}\"\nsync = \"127.0.0.1:{}\"\nlocal_addresses = [\n{}]\n",
            n + 1,
            n + 1,
            share.concat()
        );
    }
    for p in 0..ports {
        text += &format!(
            "[[port]]\nname = \"p{p}\"\nmac = \"02:00:00:00:00:01\"\naddresses = [\"{}/8\"]\n",
            v4(0x0aff_0001, p)
        );
    }
    for s in 0..vips {
        text += &format!(
            "[[service]]\nname = \"s{s}\"\nvip = \"{}:80\"\nprotocol = \"tcp\"\nserver = [{{ address = \"198.51.100.1:80\" }}]\n",
            v4(0xc000_0200, s)
        );
    }
    text
}

#[test]
fn bounds_are_errors_with_a_place() {
    let (config, cluster) = right(
        &many(NODE_COUNT_MAX, 4, VIRTUAL_ADDR_COUNT_MAX, ANNOUNCE_PORT_COUNT_MAX),
        None,
    );
    assert_eq!(cluster.config.announce.len(), ANNOUNCE_PORT_COUNT_MAX);
    starts(&config, &cluster);
    right(&many(4, LOCAL_ADDR_COUNT_MAX, 1, 1), None);
    for (text, line) in [
        (many(NODE_COUNT_MAX + 1, 1, 1, 1), "[[cluster.node]]"),
        // The own node's 65th, and the peer's.
        (many(1, LOCAL_ADDR_COUNT_MAX + 1, 1, 1), "  \"10.0.0.65\","),
        // 16 peers with 17 each: the 257th is the last one's, but 15 are allowed: 15 * 18 = 270.
        (many(NODE_COUNT_MAX, 18, 1, 1), "  \"10.0.15.5\","),
        (
            many(2, 1, VIRTUAL_ADDR_COUNT_MAX + 1, 1),
            "vip = \"192.0.2.64:80\"",
        ),
        (many(2, 1, 1, ANNOUNCE_PORT_COUNT_MAX + 1), "[cluster]"),
    ] {
        let errors = load(&text, None).expect_err(line);
        assert_eq!(codes(&errors), [Code::TooMany], "{:?}", errors.problems());
        let at = errors.problems()[0].line;
        assert_eq!(
            text.lines().nth(at - 1),
            Some(line),
            "{}",
            errors.problems()[0].message
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Lines left out, doubled, and put elsewhere: what is accepted makes a node, what is not has places.
    #[test]
    fn the_example_with_lines_mixed_up_is_refused_or_makes_a_node(
        edits in proptest::collection::vec((any::<usize>(), any::<usize>(), 0u8..3), 0..4),
        node in prop_oneof![Just(None), Just(Some("lb1")), Just(Some("2")), Just(Some("lb3"))],
    ) {
        let mut lines: Vec<&str> = EXAMPLE.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
        for (at, to, kind) in edits {
            let (at, to) = (at % lines.len(), to % lines.len());
            let line = lines[at];
            match kind {
                0 => drop(lines.remove(at)),
                1 => lines.insert(to, line),
                _ => lines[to] = line,
            }
        }
        let text = lines.join("\n");
        match load(&text, node) {
            Ok(config) => if let Some(cluster) = &config.cluster {
                starts(&config, cluster);
            },
            Err(errors) => for problem in errors.problems() {
                prop_assert!(text.get(problem.span()).is_some() && !problem.help.is_empty());
            },
        }
    }
}
