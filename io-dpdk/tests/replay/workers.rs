//! Several workers over several queues, or too few: what comes out is what a replay writes, whoever forwards it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use evenkeel_core::lport::Steering;
use evenkeel_core::worker::BucketMap;
use evenkeel_io_pcap::file::PacketDirection;
use evenkeel_io_pcap::replay::Options;

use super::{CONFIG, Case, FORWARDED_EACH_WAY_MIN, node, parse, replayed, sessions_among};
use crate::support::{Outcome, Packet, USUAL, folder, pcap_bytes, read_pcap, run};

/// Source and destination of a packet of a transport, read without any code of the project.
fn ends(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (src, dst): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Arp(_) => return None,
    };
    let (sport, dport) = match packet.transport? {
        TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
        TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
        _ => return None,
    };
    Some((SocketAddr::new(src, sport), SocketAddr::new(dst, dport)))
}

/// The worker of `workers` to which a frame's bucket belongs; what has no four-tuple comes to the first.
fn worker_of(frame: &[u8], workers: u16) -> usize {
    static STEERING: LazyLock<Arc<Steering>> = LazyLock::new(|| parse(CONFIG).steering);
    let steering = &*STEERING;
    ends(frame).map_or(0, |(src, dst)| {
        let bucket = steering.bucket(steering.toeplitz().hash(src, dst));
        usize::from(BucketMap::dealt(workers).worker(bucket).0)
    })
}

/// Sends what is in `queues` through as many queues and `workers` workers; gives what came out, sorted.
fn through(
    folder: &Path,
    mode: &str,
    queues: &[Vec<Packet>],
    workers: u16,
    more: &[&str],
) -> (Outcome, Vec<Vec<u8>>) {
    let path = |name: String| folder.join(name);
    fs::write(path("config.toml".into()), CONFIG).expect("the config can be written");
    let count: usize = queues.iter().map(Vec::len).sum();
    let mut args = vec![
        format!("config={}", path("config.toml".into()).display()),
        format!("workers={workers}"),
        format!("count={count}"),
        "cache=0".to_owned(),
    ];
    for (n, packets) in queues.iter().enumerate() {
        let (input, output) = (path(format!("in{n}.pcap")), path(format!("out{n}.pcap")));
        fs::write(&input, pcap_bytes(USUAL, packets)).expect("the capture can be written");
        args.push(format!("in{n}={}", input.display()));
        args.push(format!("out{n}={}", output.display()));
    }
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    let outcome = run(mode, &args);
    outcome.clean();
    let mut got: Vec<Vec<u8>> = (0..queues.len())
        .flat_map(|n| read_pcap(&path(format!("out{n}.pcap"))))
        .map(|(_, frame)| frame)
        .collect();
    got.sort();
    (outcome, got)
}

/// What a replay of the same packets writes, sorted; compares all that was counted.
fn like_a_replay(outcome: &Outcome, name: &str, sent: &[Packet], got: &[Vec<u8>]) {
    let capture = pcap_bytes(USUAL, sent);
    let node = node(parse(CONFIG));
    let (summary, want) = replayed(capture, &node, Options::default(), PacketDirection::Sent);
    let mut want: Vec<Vec<u8>> = want.into_iter().map(|(_, frame)| frame).collect();
    want.sort();
    assert_eq!(got.len(), want.len(), "{name}: number of frames");
    assert!(got == want, "{name}: other frames came out");
    let mut counted = Case::usual(name, CONFIG);
    counted.hand_offs = outcome.number("handoff_in");
    counted.counted_the_same(outcome, &summary);
    assert!(
        outcome.number("forwarded_inbound") >= FORWARDED_EACH_WAY_MIN,
        "{name}"
    );
    assert!(
        outcome.number("forwarded_outbound") >= FORWARDED_EACH_WAY_MIN,
        "{name}"
    );
    for lost in [
        "tx_full",
        "tx_chained",
        "tx_no_interface",
        "tx_pass_full",
        "alloc_failed",
        "handoff_full",
        "handoff_dropped",
    ] {
        assert_eq!(outcome.number(lost), 0, "{name}: {lost}");
    }
}

dpdk_tests! {
    /// Queues as a NIC fills them that knows key and table: both directions of a conn come to one worker, and none
    /// has anything to hand over.
    fn steering_by_the_toeplitz_of_the_cluster_needs_no_hand_off() {
        let sent = sessions_among(super::traffic::hostile(&super::vips()));
        for workers in [1u16, 2, 4] {
            let name = format!("steered-{workers}");
            let mut queues = vec![Vec::new(); usize::from(workers)];
            for packet in &sent {
                queues[worker_of(&packet.1, workers)].push(packet.clone());
            }
            let (outcome, got) = through(&folder(&name), "workers", &queues, workers, &[]);
            assert_eq!(outcome.number("rx_queues"), u64::from(workers));
            for worker in 0..workers {
                assert!(outcome.number(&format!("opened.{worker}")) > 0, "{name}: worker {worker} opened no conn");
            }
            assert_eq!(outcome.number("handed_off"), 0, "{name}");
            like_a_replay(&outcome, &name, &sent, &got);
        }
    }

    /// One queue for all: the worker that has it hands over what is not its own, and sends what the others cannot.
    fn hand_offs_bring_each_frame_to_its_worker_where_nobody_steers() {
        let sent = sessions_among(super::traffic::hostile(&super::vips()));
        for workers in [2u16, 4] {
            let name = format!("handed-{workers}");
            let others = sent.iter().filter(|(_, frame)| worker_of(frame, workers) != 0).count();
            let (outcome, got) = through(&folder(&name), "workers", std::slice::from_ref(&sent), workers, &[]);
            assert_eq!((outcome.number("rx_queues"), outcome.number("tx_queues")), (1, 1));
            let handed = outcome.number("handed_off");
            // Malformed ones are dropped by who receives them.
            assert!(handed > FORWARDED_EACH_WAY_MIN && handed <= others as u64, "{name}: {handed} of {others}");
            assert_eq!(outcome.number("handoff_out"), handed);
            assert_eq!(outcome.number("handoff_in"), handed);
            assert!(outcome.number("tx_passed_on") > 0, "{name}");
            assert_eq!(outcome.number("tx_passed_on"), outcome.number("tx_for_others"), "{name}");
            like_a_replay(&outcome, &name, &sent, &got);
        }
    }

    /// The wrong queue for every frame: each is handed over once, and none in circles.
    fn hand_offs_right_what_a_nic_steers_wrong() {
        let sent = sessions_among(Vec::new());
        let mut queues = vec![Vec::new(); 2];
        for packet in &sent {
            queues[1 - worker_of(&packet.1, 2)].push(packet.clone());
        }
        // The first to come must open the conn: in one queue, all of a conn's frames keep their order.
        let (outcome, got) = through(&folder("wrong"), "workers", &queues, 2, &[]);
        let transport = sent.iter().filter(|(_, frame)| ends(frame).is_some()).count();
        assert_eq!(outcome.number("handed_off"), transport as u64);
        like_a_replay(&outcome, "wrong", &sent, &got);
    }

    fn a_full_hand_off_ring_is_counted_and_every_buffer_comes_back() {
        let sent = sessions_among(Vec::new());
        let theirs = sent.iter().filter(|(_, frame)| worker_of(frame, 2) == 1).count() as u64;
        let (outcome, _) = through(&folder("ring-full"), "workers", std::slice::from_ref(&sent), 2, &["ring=4", "late=1"]);
        assert!(theirs > 4);
        assert_eq!(outcome.number("handed_off"), theirs);
        assert_eq!(outcome.number("handoff_out"), 4);
        assert_eq!(outcome.number("handoff_in.1"), 4);
        assert_eq!(outcome.number("handoff_full"), theirs - 4);
        assert_eq!(outcome.number("settled"), sent.len() as u64);
    }

    fn frames_for_a_worker_that_is_gone_come_back() {
        let sent = sessions_among(Vec::new());
        let theirs = sent.iter().filter(|(_, frame)| worker_of(frame, 2) == 1).count() as u64;
        let (outcome, got) = through(&folder("gone"), "gone", &[sent], 2, &[]);
        assert!(theirs > 0 && !got.is_empty());
        assert_eq!(outcome.number("handoff_dropped"), theirs);
        assert_eq!(outcome.number("out"), 0, "frames are still out while the port is open");
    }

    /// net_null has a table for RSS and keeps what it is told.
    fn a_nic_is_told_which_bucket_goes_to_which_queue() {
        for (workers, steered) in [(1u16, "Workers"), (2, "Nic"), (4, "Nic")] {
            let folder = folder(&format!("reta-{workers}"));
            fs::write(folder.join("config.toml"), CONFIG).expect("the config can be written");
            let outcome = run("devices", &[
                format!("config={}", folder.join("config.toml").display()),
                format!("workers={workers}"),
                "device=net_null0,no-rx=1".to_owned(),
            ]);
            outcome.clean();
            assert_eq!(outcome.number("rx_queues"), u64::from(workers));
            assert_eq!(outcome.text("steered"), steered);
            let table: Vec<u16> = outcome.text("reta").split(',').map(|q| q.parse().expect("a queue")).collect();
            let buckets = parse(CONFIG).steering.buckets();
            assert_eq!(table.len() % usize::from(buckets), 0);
            for (entry, queue) in (0..).zip(table) {
                let worker = BucketMap::dealt(workers).worker(entry % buckets).0;
                assert_eq!(queue, u16::from(worker), "{workers} workers, entry {entry}");
            }
        }
    }

    fn an_mtu_for_jumbo_frames_is_in_force() {
        let folder = folder("mtu");
        fs::write(folder.join("config.toml"), CONFIG).expect("the config can be written");
        let outcome = run("devices", &[
            format!("config={}", folder.join("config.toml").display()),
            "workers=1".to_owned(),
            "device=net_null0".to_owned(),
            "mtu=9000".to_owned(),
        ]);
        assert_eq!(outcome.clean().number("mtu"), 9000);
    }

    fn the_frames_and_the_memory_that_are_said_to_be_needed_are_enough() {
        let folder = folder("needed");
        fs::write(folder.join("config.toml"), CONFIG).expect("the config can be written");
        let outcome = run("devices", &[
            format!("config={}", folder.join("config.toml").display()),
            "workers=4".to_owned(),
            "device=net_null0".to_owned(),
            "needed=1".to_owned(),
        ]);
        assert_eq!(outcome.clean().number("free_before"), outcome.number("frames_needed"));
    }

    fn link_and_counters_are_seen_by_other_threads_while_workers_run() {
        let folder = folder("control");
        fs::write(folder.join("config.toml"), CONFIG).expect("the config can be written");
        let outcome = run("devices", &[
            format!("config={}", folder.join("config.toml").display()),
            "workers=2".to_owned(),
            "device=net_null0".to_owned(),
        ]);
        outcome.clean();
        for said in ["link_up", "link_up_elsewhere", "has_stats"] {
            assert_eq!(outcome.text(said), "true", "{said}");
        }
        // No NUMA socket is said: one pool.
        assert_eq!(outcome.number("pools"), 1);
    }
}
