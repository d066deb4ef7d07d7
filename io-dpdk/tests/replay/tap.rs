//! The exception path: what is punted reaches the kernel's stack behind an interface with the port's addresses, and
//! what that says leaves by the port. In a network namespace that ends with the helper.

use std::fs;
use std::path::Path;
use std::process::Command;

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

use super::traffic;
use super::{CONFIG, START};
use crate::support::{Outcome, Packet, USUAL, folder, helper, outcome_of, pcap_bytes, read_pcap};

/// Why there can be no TAP device here, if so.
fn why_not() -> Option<String> {
    if !Path::new("/dev/net/tun").exists() {
        return Some("no /dev/net/tun".to_owned());
    }
    match Command::new("unshare").args(["--net", "true"]).output() {
        Ok(output) if output.status.success() => None,
        Ok(_) => Some("no network namespace can be made (not root)".to_owned()),
        Err(error) => Some(format!("unshare cannot be run: {error}")),
    }
}

/// Runs a case of the helper in a network namespace of its own.
fn in_namespace(folder: &Path, mode: &str, sent: &[Packet], more: &[&str]) -> Outcome {
    let path = |file: &str| folder.join(file);
    fs::write(path("in.pcap"), pcap_bytes(USUAL, sent)).expect("the capture can be written");
    fs::write(path("config.toml"), CONFIG).expect("the config can be written");
    let mut command = Command::new("unshare");
    command.args(["--net", helper(), mode]).args([
        format!("in={}", path("in.pcap").display()),
        format!("out={}", path("out.pcap").display()),
        format!("config={}", path("config.toml").display()),
        format!("count={}", sent.len()),
        "cache=0".to_owned(),
    ]);
    outcome_of(command.args(more))
}

fn punt(name: &str, sent: &[Packet], answers: usize, more: &[&str]) -> (Outcome, Vec<Vec<u8>>) {
    let folder = folder(name);
    let answers = format!("answers={answers}");
    let outcome = in_namespace(&folder, "tap", sent, &[more, &[&answers]].concat());
    let got = if outcome.success {
        read_pcap(&folder.join("out.pcap"))
    } else {
        Vec::new()
    };
    (outcome, got.into_iter().map(|(_, frame)| frame).collect())
}

/// What a frame of the kernel's answers.
fn answer(frame: &[u8]) -> Option<String> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match (packet.net?, packet.transport) {
        (NetSlice::Arp(arp), _) => (arp.operation().0 == 2).then(|| {
            let mac: Vec<String> = arp.sender_hw_addr().iter().map(|b| format!("{b:02x}")).collect();
            format!("{:?} is at {}", arp.sender_protocol_addr(), mac.join(":"))
        }),
        (_, Some(TransportSlice::Icmpv4(icmp))) => match icmp.icmp_type() {
            Icmpv4Type::EchoReply(_) => Some(format!("echo of {}", icmp.payload().len())),
            _ => None,
        },
        (_, Some(TransportSlice::Icmpv6(icmp))) => match icmp.icmp_type() {
            Icmpv6Type::EchoReply(_) => Some(format!("echo6 of {}", icmp.payload().len())),
            _ if icmp.type_u8() == 136 => Some("advertised".to_owned()),
            _ => None,
        },
        _ => None,
    }
}

dpdk_tests! {
    fn a_tap_answers_by_the_port_with_the_ports_address() {
        if let Some(why) = why_not() {
            println!("SKIP: {why}");
            return;
        }
        let (client, own) = (traffic::CLIENT.into(), "10.77.0.254".parse().expect("address"));
        let (client6, own6) = (traffic::CLIENT6.into(), "fd77::fe".parse().expect("address"));
        let asked = [
            traffic::arp_request([10, 77, 0, 254]),
            traffic::echo(client, own, 64, 56),
            traffic::echo(client, own, 64, 1400),
            traffic::solicitation("fd77::fe".parse().expect("address")),
            traffic::echo(client6, own6, 64, 1399),
        ];
        let sent: Vec<Packet> = (0..).zip(asked).map(|(n, frame)| (START + n * 1000, frame)).collect();
        // Frames of one buffer, and of several.
        for room in ["room=2176", "room=512"] {
            let (outcome, got) = punt("tap", &sent, 5, &[room, "tap=ektap0"]);
            assert_eq!(outcome.clean().number("answered"), 5);
            let mut answers: Vec<String> = got.iter().filter_map(|frame| answer(frame)).collect();
            answers.sort();
            let want = [
                "[10, 77, 0, 254] is at 02:00:00:00:77:02", "advertised", "echo of 1400", "echo of 56", "echo6 of 1399",
            ];
            assert_eq!(answers, want, "{room}");
            assert_eq!(outcome.text("all_punted"), "true");
            assert_eq!(outcome.text("shown"), "true", "the hook saw other frames than were punted");
            assert_eq!(outcome.number("segments_max") > 1, room == "room=512");
            assert_eq!(outcome.number("punted"), sent.len() as u64);
            assert_eq!(outcome.number("to_kernel"), sent.len() as u64);
            assert!(outcome.number("from_kernel") >= outcome.number("tx_for_others"));
            assert!(outcome.number("tx_for_others") >= 5);
        }
    }

    /// net_tap offers to make checksums; the kernel behind it takes only what is right.
    fn a_checksum_that_the_driver_makes_is_left_to_it() {
        if let Some(why) = why_not() {
            println!("SKIP: {why}");
            return;
        }
        let (client, own) = ("10.77.0.1:9", "10.77.0.254:4711");
        let lengths = [1, 40, 333, 1400];
        let datagram = |(n, len): (u64, usize)| {
            let mut frame = traffic::udp(client.parse().expect("end"), own.parse().expect("end"), len);
            let mut sum = 17 + len as u32 + 8;
            sum += frame[26..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>();
            let sum = (sum & 0xffff) + (sum >> 16);
            frame[40..42].copy_from_slice(&(sum as u16).to_be_bytes());
            (START + n * 1000, frame)
        };
        let sent: Vec<Packet> = (0..).zip(lengths).map(datagram).collect();
        for room in ["room=320", "room=2176"] {
            let outcome = in_namespace(&folder("driver-checksum"), "checksum", &sent, &[room]);
            assert_eq!(outcome.clean().number("sent"), lengths.len() as u64);
            assert_eq!(outcome.number("bytes"), lengths.iter().sum::<usize>() as u64);
            assert_eq!(outcome.number("tx_checksum_driver"), lengths.len() as u64);
            assert_eq!(outcome.number("tx_checksum_software"), 0);
        }
    }

    /// net_tap takes no jumbo frames.
    fn an_mtu_that_a_driver_does_not_take_is_refused_in_its_words() {
        if let Some(why) = why_not() {
            println!("SKIP: {why}");
            return;
        }
        let args = ["workers=1", "device=net_tap0,iface=ekmtu0", "mtu=9000"];
        let outcome = in_namespace(&folder("mtu-refused"), "devices", &[], &args);
        assert!(!outcome.success && outcome.stderr.contains("cannot be set up"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("DPDK says: ") && outcome.stderr.contains("Frame size (9018)"), "{}", outcome.stderr);
    }

    fn a_tap_that_cannot_be_made_is_named_with_the_remedy() {
        if let Some(why) = why_not() {
            println!("SKIP: {why}");
            return;
        }
        for (name, want) in [
            ("lo", "a name that is free"),
            ("a/b", "1 to 15 bytes"),
            ("sixteen-letters-", "1 to 15 bytes"),
        ] {
            let (outcome, _) = punt("no-tap", &[], 1, &[&format!("tap={name}")]);
            assert!(!outcome.success && outcome.stderr.contains(want), "{name}: {}", outcome.stderr);
        }
    }
}
