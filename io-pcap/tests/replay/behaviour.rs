//! What each kind of packet becomes.

use evenkeel_io_pcap::replay::{BadChecksums, ConnEnd, MapVip, Options};

use crate::packets::*;
use crate::{drops, ip, node, run, run_bytes, run_unverified};

fn conns() -> Options {
    Options {
        conns: true,
        ..Options::default()
    }
}

/// What `--map-vip` presented, of which every frame came in: a capture as a balancer would have seen it.
fn received(written: &[Written]) -> Vec<(u64, Vec<u8>)> {
    written
        .iter()
        .filter(|w| !w.sent)
        .map(|w| (w.time_ns, w.data.clone()))
        .collect()
}

#[test]
fn both_legs_of_a_balancers_capture_go_through() {
    // The server that is mapped has the address of a VIP of the config: so both replays have the same config.
    let (client, vip) = (end("100.64.1.77:40001"), end("192.0.2.80:80"));
    let seen_at_server = capture(&timed(session(client, vip)));
    let mapped = Options {
        map_vip: Some(MapVip::Busiest),
        conns: true,
        ..Options::default()
    };
    let (first, written) = run(seen_at_server, &node(), mapped);

    let (plain, again) = run(capture(&received(&written)), &node(), conns());
    assert_eq!(
        (plain.conns.opened, plain.conns.established, plain.conns.closed),
        (1, 1, 1)
    );
    assert_eq!(
        (
            plain.verdicts.forwarded_inbound,
            plain.verdicts.forwarded_outbound
        ),
        (5, 3)
    );
    assert_eq!(plain.digest, first.digest, "what came out is the same");
    assert_eq!(plain.connections, first.connections);
    assert_eq!(again, written);

    let conn = &plain.connections.expect("asked for")[0];
    assert_eq!((conn.client, conn.vip), (client, vip));
    assert_eq!(conn.state, "TIME_WAIT");
    assert_eq!((conn.inbound_packets, conn.outbound_packets), (5, 3));
    assert_eq!(conn.end, ConnEnd::Open);
    assert_eq!((conn.opened_ns, conn.last_ns), (START, START + 7_000_000));
    // Headers of 54 bytes, 10 bytes of question, 11 of answer.
    assert_eq!(
        (conn.inbound_bytes, conn.outbound_bytes),
        (5 * 54 + 10, 3 * 54 + 11)
    );
}

#[test]
fn output_has_an_interface_a_side_and_both_legs_with_comments() {
    let (client, vip) = (end("203.0.113.77:40001"), end("192.0.2.80:80"));
    let mapped = Options {
        map_vip: Some(MapVip::Busiest),
        ..Options::default()
    };
    let (_, written) = run(capture(&timed(session(client, vip))), &node(), mapped);
    assert_eq!(written.len(), 16, "each packet as it came in and as it went out");
    for (i, pair) in written.chunks(2).enumerate() {
        let [came, went] = pair else { panic!("pairs") };
        assert!(!came.sent && went.sent);
        assert_eq!(came.time_ns, START + i as u64 * 1_000_000);
        assert_eq!(went.time_ns, came.time_ns);
        let inbound = ends(&came.data).0 == client;
        let (from, to) = if inbound {
            ("clients", "servers")
        } else {
            ("servers", "clients")
        };
        assert_eq!((came.interface.as_str(), went.interface.as_str()), (from, to));
        let direction = if inbound { "inbound" } else { "outbound" };
        assert_eq!(came.comment, format!("forwarded {direction} (packet {})", i + 1));
        let (c, v, l, s) = match inbound {
            true => (
                ends(&came.data).0,
                ends(&came.data).1,
                ends(&went.data).0,
                ends(&went.data).1,
            ),
            false => (
                ends(&went.data).1,
                ends(&went.data).0,
                ends(&came.data).1,
                ends(&came.data).0,
            ),
        };
        assert_eq!((c, v), (client, vip));
        assert!(
            ["198.51.100.101", "198.51.100.102"].contains(&l.ip().to_string().as_str()),
            "{l}"
        );
        assert_eq!(s.port(), 8080);
        let words = match inbound {
            true => format!("forwarded inbound: {c} > {v} => {l} > {s}, conn "),
            false => format!("forwarded outbound: {s} > {l} => {v} > {c}, conn "),
        };
        assert!(went.comment.starts_with(&words), "{}", went.comment);
    }
}

#[test]
fn answers_drops_and_punts_are_told() {
    let client = end("203.0.113.77:40001");
    let frames = vec![
        arp_request([203, 0, 113, 77], [192, 0, 2, 80]),
        echo(client.ip(), ip("192.0.2.80"), b"are you there?"),
        echo(ip("2001:db8:c::9"), ip("2001:db8::80"), b"and you"),
        tcp(client, end("192.0.2.80:80"), ACK, b"nobody knows me"),
        tcp(client, end("192.0.2.80:81"), SYN, b""),
        udp(client, end("192.0.2.99:53"), b"not here"),
        fragment(client, end("192.0.2.53:53")),
        tcp(client, end("203.0.113.2:22"), SYN, b""),
        vec![0xff; 60],
        vec![1, 2, 3],
    ];
    let (summary, written) =
        run_unverified(capture(&timed(frames.clone())), &node(), Options::default()).expect("replayed");
    // The last one is too short for any reader.
    written[..written.len() - 1].iter().for_each(verify);
    let v = summary.verdicts;
    assert_eq!(
        (
            v.presented,
            v.answered,
            v.echo_replies,
            v.originated,
            v.punted,
            v.dropped
        ),
        (10, 1, 2, 1, 2, 5)
    );
    assert_eq!(
        drops(&summary),
        [
            ("truncated", 1),
            ("fragment", 1),
            ("not-ours", 1),
            ("no-service", 1),
            ("no-conn", 1)
        ]
    );
    let comments: Vec<_> = written.iter().map(|w| (w.sent, w.comment.as_str())).collect();
    assert_eq!(
        comments,
        [
            (false, "answered (packet 1)"),
            (true, "answer (packet 1)"),
            (false, "answered (packet 2)"),
            (true, "answer (packet 2)"),
            (false, "answered (packet 3)"),
            (true, "answer (packet 3)"),
            (false, "dropped: no-conn (packet 4)"),
            (false, "dropped: no-service (packet 5)"),
            (false, "dropped: not-ours (packet 6)"),
            (false, "dropped: fragment (packet 7)"),
            (false, "punted (packet 8)"),
            (false, "punted (packet 9)"),
            (false, "dropped: truncated (packet 10)"),
        ]
    );
    for (w, frame) in written.iter().filter(|w| !w.sent).zip(&frames) {
        assert_eq!(&w.data, frame, "as it came in");
        assert_eq!(w.interface, "clients");
    }
}

#[test]
fn what_is_idle_for_too_long_expires_at_its_time_and_answers_are_no_conn() {
    let (client, vip) = (end("203.0.113.77:40001"), end("192.0.2.53:53"));
    let at = |s: u64| START + s * SECOND;
    // 300 s are the default of UDP in both states.
    let frames = vec![
        (at(0), udp(client, vip, b"who?")),
        (at(1), udp(vip, client, b"I")),
        (at(302), udp(vip, client, b"late")),
        (at(303), udp(client, vip, b"again?")),
    ];
    let mapped = Options {
        map_vip: Some(MapVip::Busiest),
        conns: true,
        ..Options::default()
    };
    let (summary, written) = run(capture(&frames), &node(), mapped);
    assert_eq!(
        (
            summary.conns.opened,
            summary.conns.established,
            summary.conns.expired
        ),
        (2, 1, 1)
    );
    assert_eq!(drops(&summary), [("no-conn", 1)]);
    let late = written
        .iter()
        .find(|w| w.comment.contains("no-conn"))
        .expect("written");
    assert_eq!(late.interface, "servers", "it is the real server's");
    let conns = summary.connections.expect("asked for");
    assert_eq!(
        (conns[0].end, conns[0].ended_ns),
        (ConnEnd::Expired, Some(at(301)))
    );
    assert_eq!(
        (conns[1].end, conns[1].ended_ns, conns[1].state),
        (ConnEnd::Open, None, "UDP_ONE_WAY")
    );
}

#[test]
fn a_new_connection_replaces_a_closed_one() {
    let (client, vip) = (end("203.0.113.77:40001"), end("192.0.2.80:80"));
    let frames = timed([session(client, vip), session(client, vip)].concat());
    let mapped = Options {
        map_vip: Some(MapVip::Busiest),
        conns: true,
        ..Options::default()
    };
    let (summary, _) = run(capture(&frames), &node(), mapped);
    let c = &summary.conns;
    assert_eq!(
        (c.opened, c.established, c.closed, c.removed, c.expired, c.open),
        (2, 2, 2, 1, 0, 1)
    );
    let conns = summary.connections.expect("asked for");
    assert_eq!(
        conns.iter().map(|c| c.end).collect::<Vec<_>>(),
        [ConnEnd::Replaced, ConnEnd::Open]
    );
    assert_eq!(conns[0].ended_ns, Some(conns[1].opened_ns));
}

/// A capture with a wrong checksum: a SYN that is right, and two packets that are wrong, in two ways.
fn wrong_sums() -> Vec<(u64, Vec<u8>)> {
    let (client, vip) = (end("203.0.113.77:40001"), end("192.0.2.80:80"));
    let mut transport = tcp(client, vip, ACK, b"bits were lost");
    *transport.last_mut().expect("payload") ^= 0x10;
    let mut network = tcp(client, vip, ACK, b"here too");
    network[24] ^= 0xff;
    timed(vec![tcp(client, vip, SYN, b""), transport, network])
}

#[test]
fn bad_checksums_are_dropped_unless_told_otherwise() {
    let (summary, written) =
        run_unverified(capture(&wrong_sums()), &node(), Options::default()).expect("replayed");
    assert_eq!(drops(&summary), [("bad-checksum", 2)]);
    assert_eq!(
        (
            summary.checksums.right,
            summary.checksums.wrong,
            summary.checksums.fixed
        ),
        (1, 2, 0)
    );
    assert!(summary.checksums.offload.is_empty(), "these are no offload's");
    assert!(summary.notes.is_empty());
    written.iter().filter(|w| w.sent).for_each(verify);
}

#[test]
fn bad_checksums_are_fixed_if_asked_to() {
    let options = Options {
        bad_checksums: BadChecksums::Fix,
        ..Options::default()
    };
    let (summary, written) = run(capture(&wrong_sums()), &node(), options);
    assert_eq!(summary.verdicts.forwarded_inbound, 3);
    assert_eq!((summary.checksums.wrong, summary.checksums.fixed), (2, 2));
    assert_eq!(written.len(), 6);
}

#[test]
fn bad_checksums_stay_as_wrong_if_accepted() {
    let options = Options {
        bad_checksums: BadChecksums::Accept,
        ..Options::default()
    };
    let (summary, written) = run_unverified(capture(&wrong_sums()), &node(), options).expect("replayed");
    assert_eq!(summary.verdicts.forwarded_inbound, 3);
    let went: Vec<_> = written.iter().filter(|w| w.sent).cloned().collect();
    verify(&went[0]);
    for wrong in &went[1..] {
        let result = std::panic::catch_unwind(|| verify(wrong));
        assert!(result.is_err(), "{} stays wrong", wrong.comment);
    }
}

#[test]
fn bad_checksums_that_look_like_offload_are_recognised() {
    let (client, vip) = (end("203.0.113.77:40001"), end("192.0.2.80:80"));
    let mut frames = session(client, vip);
    for frame in &mut frames {
        if ends(frame).0 == client {
            leave_to_nic(frame);
        }
    }
    let bytes = capture(&timed(frames));
    let (dropped, _) = run_unverified(bytes.clone(), &node(), Options::default()).expect("replayed");
    assert_eq!(drops(&dropped), [("bad-checksum", 5), ("not-ours", 3)]);
    let [sender] = &dropped.checksums.offload[..] else {
        panic!("{:?}", dropped.checksums)
    };
    assert_eq!((sender.sender.as_str(), sender.packets), ("203.0.113.77", 5));
    let note = &dropped.notes[0];
    assert!(note.contains("5 packets from 203.0.113.77"), "{note}");
    assert!(
        note.contains("look like transmit offload") && note.contains("--bad-checksums fix"),
        "{note}"
    );

    for policy in [BadChecksums::Fix, BadChecksums::FinishOffload] {
        let options = Options {
            map_vip: Some(MapVip::Busiest),
            bad_checksums: policy,
            ..Options::default()
        };
        let (summary, written) = run(bytes.clone(), &node(), options);
        assert_eq!(
            (
                summary.conns.opened,
                summary.conns.established,
                summary.conns.closed
            ),
            (1, 1, 1)
        );
        assert_eq!(summary.checksums.fixed, 5);
        assert_eq!(written.len(), 16);
    }
    // What is wrong for another reason is not taken for offload.
    let options = Options {
        bad_checksums: BadChecksums::FinishOffload,
        ..Options::default()
    };
    let (summary, _) = run_unverified(capture(&wrong_sums()), &node(), options).expect("replayed");
    assert_eq!(drops(&summary), [("bad-checksum", 2)]);
}

#[test]
fn packets_captured_in_part_are_forwarded_in_part() {
    let (client, vip) = (end("203.0.113.77:40001"), end("192.0.2.80:80"));
    let shared = Shared::default();
    let mut writer = evenkeel_io_pcap::file::PcapWriter::new(shared.clone()).expect("to memory");
    let whole = tcp(client, vip, SYN, b"");
    let long = tcp(client, vip, ACK, &[0x55; 1000]);
    writer
        .write(START, &whole, whole.len() as u32)
        .expect("to memory");
    writer
        .write(START + 1, &long[..96], long.len() as u32)
        .expect("to memory");
    // Not even the headers.
    writer
        .write(START + 2, &long[..40], long.len() as u32)
        .expect("to memory");
    writer.finish().expect("to memory");
    let (summary, written) = run(shared.bytes(), &node(), conns());
    assert_eq!(summary.capture.snapped, 2);
    assert_eq!(summary.verdicts.forwarded_inbound, 2);
    assert_eq!(drops(&summary), [("truncated", 1)]);
    assert_eq!((summary.checksums.right, summary.checksums.partly), (1, 2));
    for w in &written[2..4] {
        assert_eq!((w.data.len(), w.orig_len), (96, 1054), "{}", w.comment);
        assert_eq!(w.data[54..], [0x55; 42]);
    }
    let conns = summary.connections.expect("asked for");
    assert_eq!(conns[0].inbound_bytes, 54 + 1054);
}

#[test]
fn time_never_runs_backwards_and_may_be_the_last_there_is() {
    let (client, vip) = (end("203.0.113.77:40001"), end("192.0.2.53:53"));
    let ask = |time, port: u16| {
        let mut client = client;
        client.set_port(port);
        (time, udp(client, vip, b"?"))
    };
    let in_pcapng = |packets: &[(u64, Vec<u8>)]| {
        let shared = Shared::default();
        let mut w = evenkeel_io_pcap::file::CaptureWriter::new(shared.clone(), &["x"]).expect("to memory");
        for (time_ns, data) in packets {
            w.write(&evenkeel_io_pcap::file::OutPacket {
                time_ns: *time_ns,
                interface: 0,
                data,
                orig_len: 0,
                comment: None,
                direction: evenkeel_io_pcap::file::PacketDirection::Unknown,
            })
            .expect("to memory");
        }
        w.finish().expect("to memory");
        shared.bytes()
    };
    let bytes = in_pcapng(&[
        ask(0, 1),
        ask(START, 2),
        ask(START - 5 * SECOND, 3),
        ask(START + SECOND, 4),
        ask(u64::MAX, 5),
        ask(1, 6),
        ask(u64::MAX, 7),
    ]);
    let (summary, _) = run(bytes, &node(), conns());
    assert_eq!(summary.capture.back_in_time, 2);
    assert_eq!(
        (summary.capture.first_ns, summary.capture.last_ns),
        (Some(0), Some(u64::MAX))
    );
    assert_eq!(
        (summary.conns.opened, summary.conns.expired, summary.conns.open),
        (7, 4, 3)
    );
    let conns = summary.connections.clone().expect("asked for");
    let ended: Vec<_> = conns.iter().map(|c| c.ended_ns).collect();
    let at = START + 300 * SECOND;
    assert_eq!(
        ended,
        [
            Some(300 * SECOND),
            Some(at),
            Some(at),
            Some(at + SECOND),
            None,
            None,
            None
        ]
    );
    assert!(!summary.to_string().is_empty());
}

#[test]
fn a_filter_and_a_stop_are_obeyed() {
    let (client, vip) = (end("203.0.113.77:40001"), end("192.0.2.53:53"));
    let frames: Vec<_> = (0..10u8).map(|i| udp(client, vip, &[i])).collect();
    let filter: evenkeel_io_pcap::replay::Filter = Box::new(|f| f.last().is_some_and(|n| n % 2 == 0));
    let options = Options {
        filter: Some(filter),
        ..Options::default()
    };
    let (summary, written) = run(capture(&timed(frames.clone())), &node(), options);
    assert_eq!(
        (summary.capture.filtered, summary.verdicts.forwarded_inbound),
        (5, 5)
    );
    assert_eq!(written.len(), 10);

    let mut source = evenkeel_io_pcap::replay::CaptureSource::from_bytes("memory", capture(&timed(frames)));
    let mut stop = |p: evenkeel_io_pcap::replay::Progress| p.packets < 3;
    let summary = evenkeel_io_pcap::replay::replay(&mut source, &node(), Options::default(), &mut stop)
        .expect("replayed");
    assert!(summary.capture.interrupted);
    assert_eq!(summary.capture.packets, 3);
}

#[test]
fn one_armed_output_has_two_interfaces_of_one_port() {
    let mut node = node();
    node.spec.ports.truncate(1);
    node.spec.ports[0].name = "eth0".to_owned();
    node.spec.ports[0].addresses.push((ip("198.51.100.2"), 24));
    node.spec.services.truncate(2);
    node.spec.neighbours.retain(|n| n.addr.is_ipv4() || n.port.0 == 0);
    node.spec.neighbours.iter_mut().for_each(|n| n.port.0 = 0);
    let (client, vip) = (end("203.0.113.77:40001"), end("192.0.2.80:80"));
    let mapped = Options {
        map_vip: Some(MapVip::Busiest),
        ..Options::default()
    };
    let (summary, bytes) = run_bytes(capture(&timed(session(client, vip))), &node, mapped).expect("replayed");
    assert_eq!(summary.conns.closed, 1);
    let written = read_output(bytes);
    for w in &written {
        let (src, dst) = ends(&w.data);
        let side = if [src, dst].contains(&vip) {
            "eth0, client side"
        } else {
            "eth0, server side"
        };
        assert_eq!(w.interface, side);
    }
    assert_eq!(written.len(), 16);
}

#[test]
fn one_of_anything_has_no_s_in_the_summary() {
    let session = session(end("100.64.1.77:40001"), end("192.0.2.80:80"));
    let (mut summary, _) = run(capture(&timed(session[..1].to_vec())), &node(), conns());
    summary.connections_omitted = 1;
    let text = summary.to_string();
    assert!(text.contains(" 1 packet, "), "{text}");
    assert!(text.ends_with("\nand 1 more conn\n"), "{text}");
    summary.connections_omitted = 2;
    assert!(summary.to_string().ends_with("\nand 2 more conns\n"));
}
