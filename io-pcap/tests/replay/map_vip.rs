//! A server of a capture becomes a VIP.

use evenkeel_io_pcap::replay::{MapVip, MapVipError, Options, ReplayError};

use crate::packets::*;
use crate::{drops, ip, node, run, run_unverified};

fn mapped() -> Options {
    Options {
        map_vip: Some(MapVip::Busiest),
        conns: true,
        ..Options::default()
    }
}

#[test]
fn map_vip_in_every_mix_of_families() {
    let mut node = node();
    // (client, server, name of the service that stands for it)
    for (client, server, service) in [
        ("10.9.8.7:5000", "10.1.2.3:8000", "web"),
        ("[2001:db8:99::7]:5000", "[2001:db8:77::3]:8000", "web6"),
    ] {
        let (client, server) = (end(client), end(server));
        let (summary, written) = run(capture(&timed(session(client, server))), &node, mapped());
        let map = summary.map_vip.as_ref().expect("mapped");
        assert_eq!(
            (map.endpoint.as_str(), map.service.as_str()),
            (format!("tcp {server}").as_str(), service)
        );
        assert_eq!(
            (
                summary.conns.opened,
                summary.conns.established,
                summary.conns.closed
            ),
            (1, 1, 1)
        );
        assert_eq!((summary.verdicts.dropped, written.len()), (0, 16));
    }
    // Without services of the client's family those of the other one serve it: NAT64 and NAT46.
    let all = node.spec.services.clone();
    for (client, server, keep, lip) in [
        (
            "[2001:db8:99::7]:5000",
            "[2001:db8:77::3]:8000",
            "web",
            "198.51.100.",
        ),
        ("10.9.8.7:5000", "10.1.2.3:8000", "web6", "2001:db8:5::"),
    ] {
        node.spec.services = all.iter().filter(|s| s.name == keep).cloned().collect();
        let (client, server) = (end(client), end(server));
        let (summary, written) = run(capture(&timed(session(client, server))), &node, mapped());
        assert_eq!(
            (
                summary.conns.opened,
                summary.conns.established,
                summary.conns.closed
            ),
            (1, 1, 1)
        );
        assert_eq!((summary.verdicts.dropped, written.len()), (0, 16));
        let conn = &summary.connections.expect("asked for")[0];
        assert_eq!((conn.client, conn.vip), (client, server));
        assert!(conn.local.ip().to_string().starts_with(lip), "{}", conn.local);
        for w in &written {
            let of_clients = w.interface == "clients";
            assert_eq!(
                ends(&w.data).0.is_ipv4() == client.is_ipv4(),
                of_clients,
                "{}",
                w.comment
            );
        }
    }
}

#[test]
fn map_vip_of_udp_across_families_makes_the_checksum_that_ipv6_needs() {
    let mut node = node();
    node.spec.services.retain(|s| s.name == "dns46");
    let (client, server) = (end("10.9.8.7:5000"), end("10.1.2.3:53"));
    let mut frames = vec![
        udp(client, server, b"who is it"),
        udp(server, client, b"it is me"),
    ];
    for frame in &mut frames {
        // UDP over IPv4 may go without.
        frame[40..42].fill(0);
    }
    let (summary, written) = run(capture(&timed(frames)), &node, mapped());
    assert_eq!((summary.conns.opened, summary.conns.established), (1, 1));
    assert_eq!(written.len(), 4);
    assert_eq!(written.iter().filter(|w| ends(&w.data).0.is_ipv6()).count(), 2);
}

#[test]
fn map_vip_takes_the_busiest_endpoint_and_leaves_the_rest() {
    let client = end("10.9.8.7:5000");
    let mut frames = session(client, end("10.1.2.3:8000"));
    // Fewer packets, though more flows.
    for port in 6000..6003u16 {
        frames.push(udp(end(&format!("10.9.8.7:{port}")), end("10.1.2.4:53"), b"?"));
        frames.push(udp(end("10.1.2.4:53"), end(&format!("10.9.8.7:{port}")), b"!"));
    }
    let (summary, _) = run(capture(&timed(frames)), &node(), mapped());
    let map = summary.map_vip.as_ref().expect("mapped");
    assert_eq!(
        (map.endpoint.as_str(), map.packets, map.endpoints),
        ("tcp 10.1.2.3:8000", Some(8), Some(2))
    );
    assert_eq!(drops(&summary), [("not-ours", 6)]);
}

#[test]
fn map_vip_knows_the_server_by_syn_then_by_port() {
    // Who opens from the lower port is a client nevertheless.
    let (client, server) = (end("10.9.8.7:20"), end("10.1.2.3:8000"));
    let (summary, _) = run(capture(&timed(session(client, server))), &node(), mapped());
    assert_eq!(summary.map_vip.expect("mapped").endpoint, "tcp 10.1.2.3:8000");
    // The SYN-ACK says it, too.
    let frames = session(client, server).split_off(1);
    let (summary, _) = run(capture(&timed(frames)), &node(), mapped());
    assert_eq!(
        summary.map_vip.as_ref().expect("mapped").endpoint,
        "tcp 10.1.2.3:8000"
    );
    assert_eq!(summary.conns.opened, 0, "no SYN, no conn");
    // Neither: the lower port serves; of equal ports the one that is asked first.
    let frames = session(client, server).split_off(2);
    let (summary, _) = run(capture(&timed(frames)), &node(), mapped());
    assert_eq!(summary.map_vip.expect("mapped").endpoint, "tcp 10.9.8.7:20");
    let frames = vec![
        udp(end("10.9.8.7:500"), end("10.1.2.3:500"), b"?"),
        udp(end("10.1.2.3:500"), end("10.9.8.7:500"), b"!"),
    ];
    let (summary, _) = run(capture(&timed(frames)), &node(), mapped());
    assert_eq!(summary.map_vip.expect("mapped").endpoint, "udp 10.1.2.3:500");
}

#[test]
fn map_vip_of_a_chosen_endpoint() {
    let client = end("10.9.8.7:5000");
    let mut frames = session(client, end("10.1.2.3:8000"));
    frames.extend(session(client, end("10.1.2.4:8000")).into_iter().take(3));
    let endpoint = "10.1.2.4:8000/tcp".parse().expect("endpoint");
    let options = Options {
        map_vip: Some(MapVip::Endpoint(endpoint)),
        ..Options::default()
    };
    let (summary, _) = run(capture(&timed(frames)), &node(), options);
    assert_eq!(summary.map_vip.expect("mapped").vip, "10.1.2.4:8000");
    assert_eq!(
        (
            summary.conns.opened,
            summary.conns.established,
            summary.conns.closed
        ),
        (1, 1, 0)
    );
    for bad in [
        "10.1.2.4:8000",
        "10.1.2.4/tcp",
        "10.1.2.4:0/tcp",
        "224.0.0.1:1/udp",
        "10.1.2.4:8/sctp",
        "",
        "/tcp",
    ] {
        assert!(
            bad.parse::<evenkeel_io_pcap::replay::Endpoint>().is_err(),
            "{bad}"
        );
    }
}

#[test]
fn map_vip_of_loopback_gets_stand_ins() {
    for (client, server, vip) in [
        ("127.0.0.1:5000", "127.0.0.1:3306", "198.19.0.1:3306"),
        ("[::1]:5000", "[::1]:3306", "[2001:2:0:1::1]:3306"),
    ] {
        let (client, server) = (end(client), end(server));
        let (summary, written) = run(capture(&timed(session(client, server))), &node(), mapped());
        assert_eq!(
            (
                summary.conns.opened,
                summary.conns.established,
                summary.conns.closed
            ),
            (1, 1, 1)
        );
        let map = summary.map_vip.as_ref().expect("mapped");
        assert_eq!(
            (map.endpoint.as_str(), map.vip.as_str()),
            (format!("tcp {server}").as_str(), vip)
        );
        assert!(summary.notes[0].contains("loopback"), "{:?}", summary.notes);
        assert_eq!(written.len(), 16);
        assert!(written.iter().all(|w| !ends(&w.data).0.ip().is_loopback()));
    }
}

#[test]
fn map_vip_finds_a_way_to_clients_that_the_config_does_not_know() {
    let mut node = node();
    node.spec.routes.clear();
    for client in ["10.9.8.7:5000", "203.0.113.99:5000"] {
        let (summary, written) = run(
            capture(&timed(session(end(client), end("10.1.2.3:8000")))),
            &node,
            mapped(),
        );
        assert_eq!(
            (summary.conns.closed, summary.verdicts.dropped),
            (1, 0),
            "{client}"
        );
        assert!(summary.notes[0].contains("for the replay"), "{:?}", summary.notes);
        assert_eq!(written.len(), 16);
        assert!(written.iter().all(|w| (w.interface == "clients")
            == (ends(&w.data).0.port() == 8000 || ends(&w.data).1.port() == 8000)));
    }
    // A gateway without a neighbour entry gets one.
    let mut node = crate::node();
    node.spec.neighbours.retain(|n| n.addr != ip("203.0.113.1"));
    let (summary, _) = run(
        capture(&timed(session(end("10.9.8.7:5000"), end("10.1.2.3:8000")))),
        &node,
        mapped(),
    );
    assert_eq!((summary.conns.closed, summary.verdicts.dropped), (1, 0));
}

#[test]
fn map_vip_refuses_addresses_that_the_config_needs() {
    let client = end("10.9.8.7:5000");
    for (server, role) in [
        ("198.51.100.11:80", "real server of service \"web\""),
        ("198.51.100.101:80", "local address of service \"web\""),
        ("203.0.113.2:80", "address of port \"clients\""),
    ] {
        let result = run_unverified(capture(&timed(session(client, end(server)))), &node(), mapped());
        let Err(ReplayError::MapVip(error @ MapVipError::Conflict { .. })) = result else {
            panic!("{server}: {result:?}")
        };
        assert!(error.to_string().contains(role), "{error}");
        assert!(error.remedy().contains("--map-vip="), "{}", error.remedy());
    }
    let mut node = node();
    node.spec.services.clear();
    let result = run_unverified(
        capture(&timed(session(client, end("10.1.2.3:80")))),
        &node,
        mapped(),
    );
    assert!(matches!(result, Err(ReplayError::MapVip(MapVipError::NoService))));
}

#[test]
fn map_vip_leaves_out_services_in_the_way_and_says_so() {
    let client = end("10.9.8.7:5000");
    // The VIP of web6's stand-in is a server of web64 only.
    let mut node = node();
    node.spec.services[0].servers.truncate(1);
    node.spec.services[0].servers[0].addr = ip("198.51.100.12");
    let (summary, _) = run(
        capture(&timed(session(client, end("198.51.100.11:80")))),
        &node,
        mapped(),
    );
    assert_eq!(summary.conns.closed, 1);
    assert!(
        summary.notes.iter().any(|n| n.contains("\"dns\" is left out")),
        "{:?}",
        summary.notes
    );
    assert!(
        summary.notes.iter().any(|n| n.contains("\"web64\" is left out")),
        "{:?}",
        summary.notes
    );
}

#[test]
fn map_vip_without_an_endpoint_replays_as_it_is() {
    let frames = vec![arp_request([203, 0, 113, 77], [192, 0, 2, 80])];
    let (summary, written) = run(capture(&timed(frames)), &node(), mapped());
    assert_eq!((summary.map_vip.is_none(), written.len()), (true, 2));
    assert!(summary.notes[0].contains("nothing was mapped"));
}
