//! net_pcap in, engine, net_pcap out: what comes out is what a replay of the same capture writes, byte for
//! byte and in the same order, and the engine counted the same.
//!
//! The captures are "as seen at the balancer", both legs: a replay with `--map-vip` presents a capture taken
//! at a server as a balancer would have seen it, and what it presents is replayed again, by both.

mod tap;
mod traffic;
mod workers;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use evenkeel_control::Config;
use evenkeel_core::proto::ConnState;
use evenkeel_core::stats::DropReason;
use evenkeel_core::tuple::L4Proto;
use evenkeel_io_pcap::file::{CaptureReader, PacketDirection};
use evenkeel_io_pcap::replay::{BadChecksums, CaptureSource, MapVip, Node, Options, Output, Summary, replay};

use crate::support::{Outcome, Packet, USUAL, assert_frames, folder, pcap_bytes, read_pcap, run};

const CONFIG: &str = include_str!("../data/one-arm.toml");
/// 2024-01-01T00:00:00Z, in nanoseconds.
const START: u64 = 1_704_067_200_000_000_000;

/// The config with the VIPs of two services changed over.
fn config_with_swapped(a: &str, b: &str) -> String {
    assert!(CONFIG.contains(a) && CONFIG.contains(b));
    CONFIG.replace(a, "?").replace(b, a).replace('?', b)
}

fn parse(config: &str) -> Config {
    evenkeel_control::parse("one-arm.toml", config).expect("the config is right")
}

fn node(config: Config) -> Node {
    Node {
        steering: config.steering,
        sizes: config.sizes,
        local_port_min: config.local_port_min,
        spec: config.spec,
    }
}

/// An output that a test reads.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Replays a capture; gives the packets of its output that crossed the balancer's interface in `direction`.
fn replayed(
    capture: Vec<u8>,
    node: &Node,
    options: Options,
    direction: PacketDirection,
) -> (Summary, Vec<Packet>) {
    let shared = Shared::default();
    let options = Options {
        output: Some(Output::Stream(Box::new(shared.clone()))),
        ..options
    };
    let mut source = CaptureSource::from_bytes("memory", capture);
    let summary = replay(&mut source, node, options, &mut |_| true).expect("the capture is replayed");
    assert_eq!(summary.capture.cut, None);
    assert_eq!(summary.capture.snapped, 0, "what is not there cannot be compared");
    let written = shared.0.lock().expect("no panic").clone();
    let mut reader = CaptureReader::new(std::io::Cursor::new(written)).expect("a capture was written");
    let mut packets = Vec::new();
    while let Some(p) = reader.next_packet().expect("a whole capture was written") {
        if p.direction == direction {
            packets.push((p.time_ns, p.data.to_vec()));
        }
    }
    (summary, packets)
}

/// A capture taken at the server `vip`, as a balancer with the config's service at `vip` would have seen it.
fn at_balancer(capture: Vec<u8>, config: &str, proto: L4Proto, vip: SocketAddr) -> Vec<Packet> {
    let mut node = node(parse(config));
    // The one service is then the one that --map-vip takes, with its servers.
    node.spec
        .services
        .retain(|s| (s.proto, s.vip, s.port) == (proto, vip.ip(), vip.port()));
    assert_eq!(node.spec.services.len(), 1, "{vip} is a VIP of the config");
    let options = Options {
        map_vip: Some(MapVip::Busiest),
        ..Options::default()
    };
    let (summary, seen) = replayed(capture, &node, options, PacketDirection::Received);
    let mapped = summary.map_vip.expect("an endpoint was mapped");
    assert_eq!(mapped.vip, vip.to_string());
    seen
}

/// How a capture goes through the balancer.
struct Case<'a> {
    name: &'a str,
    config: &'a str,
    /// Room of a buffer: how far frames are in several segments.
    room: &'a str,
    bad_checksums: BadChecksums,
    /// Frames that workers handed over: a replay has one.
    hand_offs: u64,
}

impl Case<'_> {
    fn usual<'a>(name: &'a str, config: &'a str) -> Case<'a> {
        Case {
            name,
            config,
            room: "room=2176",
            bad_checksums: BadChecksums::Drop,
            hand_offs: 0,
        }
    }

    /// Sends packets through the engine over DPDK and through a replay; compares all that was counted. Gives
    /// what came out of each.
    fn both(&self, sent: &[Packet]) -> (Outcome, Vec<Packet>, Vec<Packet>) {
        let folder = folder(&format!("engine-{}", self.name));
        let capture = pcap_bytes(USUAL, sent);
        let path = |file: &str| -> PathBuf { folder.join(file) };
        fs::write(path("in.pcap"), &capture).expect("the capture can be written");
        fs::write(path("config.toml"), self.config).expect("the config can be written");
        let outcome = run(
            "engine",
            &[
                format!("in={}", path("in.pcap").display()),
                format!("out={}", path("out.pcap").display()),
                format!("config={}", path("config.toml").display()),
                format!("count={}", sent.len()),
                self.room.to_owned(),
                "frames=4095".to_owned(),
                "cache=0".to_owned(),
            ],
        );
        assert_eq!(
            outcome.clean().number("received"),
            sent.len() as u64,
            "{}",
            self.name
        );
        let got = read_pcap(&path("out.pcap"));
        let options = Options {
            bad_checksums: self.bad_checksums,
            ..Options::default()
        };
        let node = node(parse(self.config));
        let (summary, want) = replayed(capture, &node, options, PacketDirection::Sent);
        self.counted_the_same(&outcome, &summary);
        for lost in [
            "tx_full",
            "tx_chained",
            "tx_no_interface",
            "alloc_failed",
            "handoff_dropped",
        ] {
            assert_eq!(outcome.number(lost), 0, "{}: {lost}", self.name);
        }
        assert_eq!(
            outcome.number("punt_dropped"),
            summary.verdicts.punted,
            "{}",
            self.name
        );
        (outcome, got, want)
    }

    /// As [`Case::both`], and compares what came out. Only for packets none of which has the time of another.
    fn same(&self, sent: &[Packet]) -> Outcome {
        let (outcome, got, want) = self.both(sent);
        let want: Vec<&[u8]> = want.iter().map(|(_, frame)| frame.as_slice()).collect();
        assert_frames(&got, &want, self.name);
        assert!(!want.is_empty(), "{}: nothing came out of either", self.name);
        outcome
    }

    fn counted_the_same(&self, outcome: &Outcome, summary: &Summary) {
        let Summary {
            verdicts: v,
            conns: c,
            drops,
            capture,
            ..
        } = summary;
        // What is shorter than an Ethernet header is no frame for a replay, and for the engine a truncated one.
        let too_short = capture.not_presented.too_short;
        let mut want: Vec<(String, u64)> = [
            ("presented", v.presented + too_short),
            ("forwarded_inbound", v.forwarded_inbound),
            ("forwarded_outbound", v.forwarded_outbound),
            ("echo_replies", v.echo_replies),
            ("answered", v.answered),
            ("punted", v.punted),
            ("dropped", v.dropped + too_short),
            ("handed_off", v.handed_off + self.hand_offs),
            ("originated", v.originated),
            ("opened", c.opened),
            ("established", c.established),
            ("closed", c.closed),
            ("expired", c.expired),
            ("removed", c.removed),
        ]
        .map(|(key, n)| (key.to_owned(), n))
        .into();
        for reason in DropReason::ALL {
            let dropped = drops.iter().find(|d| d.reason == reason.name());
            let extra = match reason {
                DropReason::Truncated => too_short,
                _ => 0,
            };
            want.push((format!("drop.{reason}"), dropped.map_or(0, |d| d.packets) + extra));
        }
        for state in ConnState::ALL {
            let open = c.open_by_state.iter().find(|s| s.state == state.name());
            want.push((format!("open.{}", state.name()), open.map_or(0, |s| s.conns)));
        }
        let other: Vec<String> = want
            .iter()
            .filter(|(key, want)| outcome.number(key) != *want)
            .map(|(key, want)| format!("{key}: {} for {want}", outcome.number(key)))
            .collect();
        assert!(
            other.is_empty(),
            "{}, {}: counted differently: {other:?}",
            self.name,
            self.room
        );
    }
}

/// Gives every packet a time of its own, where a capture has two in one microsecond.
fn at_own_times(packets: &mut [Packet]) {
    let mut last = 0;
    for (time, _) in packets {
        *time = (*time).max(last + 1000);
        last = *time;
    }
}

/// Services of the config: whether it is TCP, and the VIP.
fn vips() -> Vec<(bool, SocketAddr)> {
    let services = parse(CONFIG).spec.services;
    let vips: Vec<_> = services
        .iter()
        .map(|s| (s.proto == L4Proto::Tcp, SocketAddr::new(s.vip, s.port)))
        .collect();
    assert_eq!(vips.len(), 8);
    vips
}

/// Sessions with every service, three each, in step and with 0 to 2 VLAN tags; as seen at the balancer.
fn sessions() -> Vec<Packet> {
    let mut all = Vec::new();
    for (k, (is_tcp, vip)) in (0u64..).zip(vips()) {
        let mut captured: Vec<Packet> = Vec::new();
        for n in 0..3u16 {
            let client = traffic::client_of(vip, 40_000 + n);
            let frames = if is_tcp {
                traffic::tcp_session(client, vip)
            } else {
                traffic::udp_session(client, vip)
            };
            let time = |i: u64| START + i * 1_000_000 + k * 10_000 + u64::from(n) * 2_000;
            let frames = frames.iter().map(|f| traffic::tagged(f, traffic::tags(n.into())));
            captured.extend((0..).zip(frames).map(|(i, f)| (time(i), f)));
        }
        captured.sort_by_key(|&(time, _)| time);
        let proto = if is_tcp { L4Proto::Tcp } else { L4Proto::Udp };
        all.extend(at_balancer(pcap_bytes(USUAL, &captured), CONFIG, proto, vip));
    }
    all.sort_by_key(|&(time, _)| time);
    all
}

/// Sessions, and once these are open, `more` between their packets and after them.
fn sessions_among(more: Vec<Vec<u8>>) -> Vec<Packet> {
    let mut packets = sessions();
    packets.extend(
        (0..)
            .zip(more)
            .map(|(i, frame)| (START + 1_500_000 + i * 50_000, frame)),
    );
    packets.sort_by_key(|&(time, _)| time);
    at_own_times(&mut packets);
    packets
}

/// In sessions of ours, frames that reach the client and the server.
const FORWARDED_EACH_WAY_MIN: u64 = 3 * (5 * 4 + 3 * 3);

dpdk_tests! {
    fn captures_come_out_of_the_engine_as_of_a_replay() {
        let swapped_64 = config_with_swapped("[fd77::2]:80", "[fd77::64]:80");
        let swapped_46 = config_with_swapped("10.77.0.2:53", "10.77.0.46:53");
        let cases = [
            ("mariadb", "10.77.0.2:3306", CONFIG, 1),
            ("mariadb-short", "10.77.0.2:3306", CONFIG, 1),
            ("http4", "10.77.0.2:80", CONFIG, 8),
            ("http6", "[fd77::2]:80", CONFIG, 8),
            ("refused", "10.77.0.2:7777", CONFIG, 1),
            ("reset", "10.77.0.2:7777", CONFIG, 2),
            ("halfclosed", "10.77.0.2:7777", CONFIG, 1),
            ("dns", "10.77.0.2:53", CONFIG, 1),
            ("dns6", "[fd77::2]:53", CONFIG, 1),
            // IPv6 clients of IPv4 servers, and the other way round.
            ("http6", "[fd77::2]:80", swapped_64.as_str(), 8),
            ("dns", "10.77.0.2:53", swapped_46.as_str(), 1),
        ];
        for (name, vip, config, opened_min) in cases {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../captures/{name}.pcap"));
            let capture = fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let proto = if name.starts_with("dns") { L4Proto::Udp } else { L4Proto::Tcp };
            let mut seen = at_balancer(capture, config, proto, vip.parse().expect("an endpoint"));
            at_own_times(&mut seen);
            let outcome = Case::usual(name, config).same(&seen);
            assert!(outcome.number("opened") >= opened_min, "{name}");
            assert!(outcome.number("forwarded_inbound") > 0 && outcome.number("forwarded_outbound") > 0, "{name}");
            // Each begins with ARP or NDP for the VIP.
            assert!(outcome.number("originated") > 0, "{name}");
            if name == "mariadb" {
                assert!(outcome.number("expired") > 0, "the pause is longer than the timeout");
            }
        }
    }

    /// Whatever of a frame is in which segment.
    fn sessions_among_hostile_frames_come_out_as_of_a_replay() {
        let hostile = [traffic::hostile(&vips()), traffic::long_headers(&vips())].concat();
        let sent = sessions_among(hostile);
        let mut by_room = Vec::new();
        for room in ["room=320", "room=2176", "room=16384"] {
            let case = Case { room, ..Case::usual("hostile", CONFIG) };
            let outcome = case.same(&sent);
            assert!(outcome.number("forwarded_inbound") >= FORWARDED_EACH_WAY_MIN);
            assert!(outcome.number("forwarded_outbound") >= FORWARDED_EACH_WAY_MIN);
            assert!(outcome.number("echo_replies") > 0 && outcome.number("originated") > 0);
            by_room.push(outcome.number("tx_frames"));
        }
        assert!(by_room.windows(2).all(|two| two[0] == two[1]), "{by_room:?}");
        // The frames are as hostile as they should be.
        let outcome = Case::usual("hostile", CONFIG).same(&sent);
        for reason in [
            DropReason::Truncated, DropReason::BadLength, DropReason::TooManyHeaders, DropReason::BadChecksum,
            DropReason::Fragment, DropReason::TtlExpired, DropReason::NeighbourNotOurs, DropReason::SourceRoute,
            DropReason::NotOurs,
        ] {
            assert!(outcome.number(&format!("drop.{reason}")) > 0, "no frame is dropped as {reason}");
        }
    }

    /// A replay with `--bad-checksums accept` leaves the transport checksum to the receiver, as the engine
    /// does with a driver that did not look at it.
    fn frames_with_wrong_transport_checksums_come_out_as_of_a_replay() {
        let sent = sessions_among(traffic::mutants(&vips()));
        let case = Case { bad_checksums: BadChecksums::Accept, ..Case::usual("mutants", CONFIG) };
        let outcome = case.same(&sent);
        assert!(outcome.number("forwarded_inbound") > 500 && outcome.number("dropped") > 500);
    }

    /// From IPv4 to IPv6 they need a checksum (RFC 7915, 4.5). The engine sees the head only; the port sees all.
    fn datagrams_without_checksum_get_one_over_all_their_segments() {
        let vip = "10.77.0.46:53".parse().expect("an endpoint");
        let lengths = [40, 150, 331, 332, 2000, traffic::JUMBO];
        let datagram = |(n, &len): (u16, &usize)| {
            let mut frame = traffic::udp(traffic::client_of(vip, 45_000 + n), vip, len);
            frame[40..42].fill(0);
            frame
        };
        let sent = sessions_among((0..).zip(&lengths).map(datagram).collect());
        let mut by_port = Vec::new();
        for room in ["room=320", "room=2176", "room=16384"] {
            let case = Case { room, ..Case::usual("no-checksum", CONFIG) };
            let outcome = case.same(&sent);
            assert_eq!(outcome.number(&format!("drop.{}", DropReason::UdpZeroChecksum)), 0);
            assert_eq!(outcome.number("tx_checksum_driver"), 0, "net_pcap makes none");
            by_port.push(outcome.number("tx_checksum_software"));
        }
        // Those whose head is not all of them.
        assert_eq!(by_port, [4, 1, 0]);
    }

    /// In bursts, what the engine originates comes behind what it forwards of the same burst; all else is as
    /// one frame at a time.
    fn bursts_come_out_as_of_a_replay() {
        let mut sent = sessions_among(traffic::hostile(&vips()));
        // Runs of two milliseconds at one time: of a frame, of a burst, of several.
        sent.iter_mut().for_each(|(time, _)| *time = *time / 2_000_000 * 2_000_000);
        let (outcome, got, want) = Case::usual("bursts", CONFIG).both(&sent);
        assert_eq!(outcome.number("burst_max"), 32);
        for answers in [false, true] {
            let only = |packets: &[Packet]| -> Vec<Packet> {
                packets.iter().filter(|(_, f)| traffic::is_answer(f) == answers).cloned().collect()
            };
            let (got, want) = (only(&got), only(&want));
            let want: Vec<&[u8]> = want.iter().map(|(_, frame)| frame.as_slice()).collect();
            assert!(!want.is_empty());
            assert_frames(&got, &want, "bursts");
        }
    }
}
