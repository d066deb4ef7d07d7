//! The port over DPDK's file device: what goes in comes out, byte for byte, and no buffer is lost. With the
//! engine between (`replay`), what comes out is what a replay writes.
//!
//! Each case is a process of its own (`evenkeel-dpdk-pcap`), since DPDK starts once per process.

#[cfg(feature = "dpdk")]
mod support;

/// Stands for the tests below when they are not compiled.
#[cfg(not(feature = "dpdk"))]
#[test]
#[ignore = "SKIP: feature `dpdk` is off (needs libdpdk: apt install libdpdk-dev)"]
fn pcap_parity() {}

/// Makes the tests, skipped by name in a build that did not find libdpdk.
#[cfg(feature = "dpdk")]
macro_rules! dpdk_tests {
    ($($(#[$doc:meta])* fn $name:ident() $body:block)*) => {
        $(
            $(#[$doc])*
            #[test]
            #[cfg_attr(dpdk_stub, ignore = "SKIP: libdpdk not found (apt install libdpdk-dev)")]
            fn $name() $body
        )*
    };
}

#[cfg(feature = "dpdk")]
mod replay;

#[cfg(feature = "dpdk")]
mod port {
    use std::fs;
    use std::path::Path;

    use crate::support::{Format, Outcome, Packet, USUAL, assert_frames, folder, pcap_bytes, read_pcap, run};

    /// Lengths around everything that has an edge: the head, a buffer, two buffers, a jumbo frame.
    const LENGTHS: [usize; 16] = [
        1, 13, 14, 60, 191, 192, 193, 333, 512, 513, 1514, 2048, 2049, 4096, 9018, 16_128,
    ];

    /// Frames of these lengths, each with other bytes, some at equal times.
    fn packets(lengths: &[usize]) -> Vec<Packet> {
        let frame = |(n, &len): (usize, &usize)| {
            let bytes = (0..len).map(|i| (n * 31 + i * 7 + i / 256) as u8).collect();
            (1_700_000_000_123_456_789 + (n as u64 / 2) * 1_234_567_891, bytes)
        };
        lengths.iter().enumerate().map(frame).collect()
    }

    /// Sends packets through the helper; gives what came out.
    fn forward(folder: &Path, format: Format, sent: &[Packet], args: &[&str]) -> (Outcome, Vec<Packet>) {
        forward_as("forward", folder, format, sent, args)
    }

    fn forward_as(
        mode: &str,
        folder: &Path,
        format: Format,
        sent: &[Packet],
        args: &[&str],
    ) -> (Outcome, Vec<Packet>) {
        let (input, output) = (folder.join("in.pcap"), folder.join("out.pcap"));
        fs::write(&input, pcap_bytes(format, sent)).expect("the capture can be written");
        let mut all = vec![
            format!("in={}", input.display()),
            format!("out={}", output.display()),
            format!("times={}", folder.join("times").display()),
            format!("count={}", sent.len()),
        ];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        let outcome = run(mode, &all);
        let got = if output.exists() {
            read_pcap(&output)
        } else {
            Vec::new()
        };
        (outcome, got)
    }

    /// A UDP datagram over IPv6 as etherparse makes it, its checksum right.
    fn udp6(len: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        let payload: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6([0x20; 16], [0xfd; 16], 64)
            .udp(4711, 53)
            .write(&mut frame, &payload)
            .expect("to memory");
        frame
    }

    /// The folded sum of the pseudo-header (RFC 8200, 8.1), which is in the field until the checksum is made.
    fn pseudo_sum(frame: &[u8]) -> u16 {
        let len = &frame[18..20];
        let mut sum: u32 = 17;
        for word in frame[22..54].chunks(2).chain([len]) {
            sum += u32::from(word[0]) << 8 | u32::from(word[1]);
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn frames(packets: &[Packet]) -> Vec<&[u8]> {
        packets.iter().map(|(_, bytes)| bytes.as_slice()).collect()
    }

    fn times(folder: &Path) -> Vec<String> {
        let text = fs::read_to_string(folder.join("times")).expect("the helper wrote the times");
        text.lines().map(str::to_owned).collect()
    }

    dpdk_tests! {
        fn frames_come_out_as_they_went_in() {
            let folder = folder("identity");
            let sent = packets(&LENGTHS);
            let (outcome, got) = forward(&folder, USUAL, &sent, &[]);
            assert_eq!(outcome.clean().number("received"), sent.len() as u64);
            assert_eq!(outcome.number("driver_rx"), sent.len() as u64);
            assert_eq!(outcome.number("driver_tx"), sent.len() as u64);
            assert_eq!(outcome.text("link_up"), "true");
            assert!(outcome.number("segments_max") > 1, "no frame was chained");
            assert_frames(&got, &frames(&sent), "identity");
        }

        fn chains_of_the_smallest_buffers_come_out_as_they_went_in() {
            let folder = folder("chains");
            let sent = packets(&LENGTHS);
            let (outcome, got) = forward(&folder, USUAL, &sent, &["room=320"]);
            outcome.clean();
            assert!(outcome.number("segments_max") >= 50, "{} segments", outcome.number("segments_max"));
            assert_frames(&got, &frames(&sent), "identity");
        }

        fn receive_times_are_microseconds_of_the_capture() {
            for (big_endian, nanoseconds) in [(false, false), (false, true), (true, false), (true, true)] {
                let folder = folder(&format!("times-{big_endian}-{nanoseconds}"));
                let sent = packets(&LENGTHS);
                let (outcome, got) = forward(&folder, Format { big_endian, nanoseconds }, &sent, &[]);
                outcome.clean();
                assert_frames(&got, &frames(&sent), "identity");
                let want: Vec<String> = sent.iter().map(|(ns, _)| (ns / 1000).to_string()).collect();
                assert_eq!(times(&folder), want);
            }
        }

        fn a_paced_burst_is_a_run_of_one_time() {
            let folder = folder("paced");
            // Runs of 2 (as `packets` makes them), a run longer than a burst, and a time that goes back.
            let mut sent = packets(&LENGTHS[..9]);
            let time = sent[8].0;
            sent.extend((0..70).map(|n| (time + 5_000, vec![n; 80])));
            sent.push((time, vec![7; 60]));
            let (outcome, got) = forward_as("paced", &folder, USUAL, &sent, &[]);
            assert_frames(&got, &frames(&sent), "paced");
            assert_eq!(outcome.clean().number("received"), sent.len() as u64);
            // One line a burst: its time in nanoseconds, and its frames. A long run comes in several.
            let mut runs: Vec<(u64, usize)> = Vec::new();
            for line in times(&folder) {
                let (time, count) = line.split_once(' ').expect("time and count");
                let (time, count) = (time.parse().expect("a time"), count.parse().expect("a count"));
                match runs.last_mut().filter(|run| run.0 == time) {
                    Some(run) => run.1 += count,
                    None => runs.push((time, count)),
                }
            }
            let want: Vec<(u64, usize)> = sent
                .chunk_by(|a, b| a.0 / 1000 == b.0 / 1000)
                .map(|run| (run[0].0 / 1000 * 1000, run.len()))
                .collect();
            assert_eq!(runs, want);
            assert!(times(&folder).len() > want.len(), "no run was longer than a burst");
        }

        fn a_pool_smaller_than_the_capture_is_enough() {
            let folder = folder("small-pool");
            let sent = packets(&LENGTHS[..10].repeat(100));
            let (outcome, got) = forward(&folder, USUAL, &sent, &["frames=63", "cache=0"]);
            assert_eq!(outcome.clean().number("free_before"), 63);
            assert_frames(&got, &frames(&sent), "identity");
        }

        fn pull_push_and_trim_keep_the_rest_of_the_frame() {
            // Without the longest: with a push it would be too long for net_pcap.
            let sent = packets(&LENGTHS[..15]);
            // (pull, push, trim): decapsulation, encapsulation, both, all of the headroom, cuts in each
            // segment. Of a chain of 320 bytes' buffers, a pull leaves less than a head in the first.
            let cases = [(14, 0, 70_000), (0, 20, 70_000), (14, 34, 70_000), (0, 128, 70_000), (0, 0, 60),
                (54, 14, 1400), (20, 0, 192), (1, 2, 193), (150, 40, 513), (0, 8, 0)];
            for room in ["room=320", "room=2176", "room=40000"] {
                for (pull, push, trim) in cases {
                    let folder = folder("reshape");
                    let (outcome, got) = forward(&folder, USUAL, &sent,
                        &[room, "nohuge=64", "frames=511", "cache=0", &format!("pull={pull}"), &format!("push={push}"), &format!("trim={trim}")]);
                    outcome.clean();
                    // More than the frame has cannot be pulled, so nothing is left of short ones.
                    let want: Vec<Vec<u8>> = sent.iter()
                        .map(|(_, bytes)| {
                            let mut frame = vec![0x5a; push];
                            frame.extend(&bytes[pull.min(bytes.len())..]);
                            frame.truncate(trim);
                            frame
                        })
                        .collect();
                    assert_frames(&got, &want, &format!("{room}: pull {pull}, push {push}, trim {trim}"));
                }
            }
        }

        /// net_pcap makes no checksums: the port does, over however many segments.
        fn a_checksum_that_the_driver_does_not_make_is_made_before_the_frame_leaves() {
            let lengths = [0, 1, 2, 17, 130, 257, 1452, 8900];
            let want: Vec<Vec<u8>> = lengths.iter().map(|&len| udp6(len)).collect();
            let begun = |(n, frame): (u64, &Vec<u8>)| {
                let mut frame = frame.clone();
                let sum = pseudo_sum(&frame);
                frame[60..62].copy_from_slice(&sum.to_be_bytes());
                (1_700_000_000_000_000_000 + n * 1_000_000, frame)
            };
            let sent: Vec<Packet> = (0..).zip(&want).map(begun).collect();
            for room in ["room=320", "room=333", "room=2176"] {
                let folder = folder("checksum");
                let (outcome, got) = forward(&folder, USUAL, &sent, &[room, "checksum=54"]);
                outcome.clean();
                assert_frames(&got, &want, room);
                assert_eq!(outcome.number("tx_checksum_software"), lengths.len() as u64);
                assert_eq!(outcome.number("tx_checksum_driver"), 0);
            }
        }

        fn a_push_beyond_the_headroom_is_refused() {
            let folder = folder("headroom");
            let sent = packets(&LENGTHS);
            let (outcome, got) = forward(&folder, USUAL, &sent, &["push=129"]);
            assert_eq!(outcome.clean().number("refused"), sent.len() as u64);
            assert!(got.is_empty());
        }

        fn a_chain_that_the_driver_would_cut_is_a_counted_drop() {
            let folder = folder("long-chain");
            let sent = packets(&[100, 16_129, 200, 40_000, 65_000]);
            let (outcome, got) = forward(&folder, USUAL, &sent, &[]);
            assert_eq!(outcome.clean().number("tx_chained"), 3);
            assert_frames(&got, &frames(&[sent[0].clone(), sent[2].clone()]), "long chains");
            // In one buffer each they pass.
            let (outcome, got) = forward(&folder, USUAL, &sent, &["room=65535", "frames=255", "cache=0"]);
            assert_eq!(outcome.clean().number("tx_chained"), 0);
            assert_frames(&got, &frames(&sent), "identity");
        }

        fn the_end_of_the_file_is_noticed() {
            let folder = folder("end");
            let sent = packets(&LENGTHS);
            // None at all.
            let (outcome, got) = forward(&folder, USUAL, &[], &["count=5"]);
            assert_eq!(outcome.clean().number("received"), 0);
            assert!(got.is_empty());
            // Fewer than were announced.
            let (outcome, got) = forward(&folder, USUAL, &sent, &["count=1000"]);
            assert_eq!(outcome.clean().number("received"), sent.len() as u64);
            assert_frames(&got, &frames(&sent), "identity");
            // Cut in the last packet: what is whole comes.
            let mut cut = pcap_bytes(USUAL, &sent);
            cut.pop();
            let input = folder.join("cut.pcap");
            fs::write(&input, cut).expect("the capture can be written");
            let output = folder.join("out.pcap");
            let outcome = run("forward", &[
                format!("in={}", input.display()), format!("out={}", output.display()), "count=1000".to_owned(),
            ]);
            assert_eq!(outcome.clean().number("received"), sent.len() as u64 - 1);
            assert_frames(&read_pcap(&output), &frames(&sent[..sent.len() - 1]), "cut");
        }

        fn a_full_ring_drops_and_counts_and_loses_no_buffer() {
            // net_ring holds 1,023 frames; half of the frames come back with too little headroom.
            let outcome = run("ring", &["count=3000"]);
            outcome.clean();
            assert_eq!(outcome.number("sent"), 1023);
            assert_eq!(outcome.number("dropped"), 3000 - 1023);
            assert!(outcome.number("retries") > 0);
            assert_eq!(outcome.number("out"), 1023, "a dropped frame was not freed");
            assert_eq!(outcome.number("received"), 1023);
            assert_eq!(outcome.number("copied"), 511, "headroom was not restored");
            assert_eq!(outcome.text("numbers_ok"), "true");
            assert_eq!(outcome.number("no_interface"), 1);
            assert_eq!(outcome.text("too_long"), "true");
        }
    }
}

/// What is true of a build that did not find libdpdk.
#[cfg(dpdk_stub)]
#[test]
fn a_build_without_libdpdk_says_so() {
    let outcome = support::run::<&str>("init-twice", &[]);
    assert!(!outcome.success);
    assert!(
        outcome.stderr.contains("apt install libdpdk-dev"),
        "{}",
        outcome.stderr
    );
}

#[cfg(feature = "dpdk")]
mod eal {
    use crate::support::run;

    dpdk_tests! {
        /// EAL starts without the device and says nothing; the port's name does.
        fn a_device_that_failed_is_named() {
            let capture = ["vdev=net_pcap0", "key=rx_pcap", "value=/no/such.pcap", "port=net_pcap0"];
            let argument = ["vdev=net_null0", "key=no_such", "value=1", "port=net_null0"];
            for args in [&capture, &argument] {
                let outcome = run("open", args);
                assert!(!outcome.success && outcome.said("without_hugepages"), "EAL itself failed: {}", outcome.stderr);
                assert!(outcome.stderr.contains("DPDK has no port \"net_"), "{}", outcome.stderr);
                assert!(outcome.stderr.contains("ports there are: none"), "{}", outcome.stderr);
                assert_eq!(outcome.stderr.lines().count(), 1, "more than our message: {}", outcome.stderr);
                assert!(outcome.stderr.contains("DPDK says: "), "{}", outcome.stderr);
            }
            let outcome = run("open", &["vdev=net_null0", "port=net_null1"]);
            assert!(!outcome.success && outcome.stderr.contains("ports there are: net_null0"), "{}", outcome.stderr);
        }

        fn a_driver_that_is_not_there_is_an_error_of_init() {
            let outcome = run("open", &["vdev=net_bogus0", "port=net_bogus0"]);
            assert!(!outcome.success && !outcome.said("without_hugepages"));
            assert!(outcome.stderr.contains("DPDK did not start"), "{}", outcome.stderr);
        }

        fn a_device_as_a_config_has_it_is_opened() {
            let outcome = run("open", &["device=net_null0,size=64,copy=1", "port=net_null0"]);
            assert!(outcome.clean().text("second").contains("in use"));
        }

        fn a_device_that_is_not_there_is_named_before_init() {
            for (device, want) in [
                ("net_af_packet0,iface=no-such-if0", "`ip link` lists"),
                ("0000:fe:1f.7", "`lspci -D` lists"),
                ("net_af_packet0 iface=x", "letters, digits and underscores"),
                ("net_null0,size", "is not key=value"),
            ] {
                let outcome = run("open", &[&format!("device={device}"), "port=net_null0"]);
                assert!(!outcome.success && !outcome.said("without_hugepages"), "{device}");
                assert!(outcome.stderr.contains(want), "{device}: {}", outcome.stderr);
                assert_eq!(outcome.stderr.lines().count(), 1, "{device}: {}", outcome.stderr);
            }
        }

        /// The test stands for the other process. It need not be able to open the device.
        fn a_device_that_another_process_has_is_named_before_init() {
            use std::os::linux::net::SocketAddrExt;
            use std::os::unix::net::{SocketAddr, UnixDatagram};
            let name = SocketAddr::from_abstract_name("evenkeel-dpdk-lo").expect("a name");
            let _taken = UnixDatagram::bind_addr(&name).expect("nobody has it");
            let outcome = run("open", &["device=net_af_packet0,iface=lo", "port=net_af_packet0"]);
            assert!(!outcome.success && !outcome.said("without_hugepages"));
            assert!(outcome.stderr.contains("lo is in use by another process"), "{}", outcome.stderr);
        }

        fn a_value_that_dpdk_would_split_is_refused_before_init() {
            let outcome = run("open", &["vdev=net_pcap0", "key=rx_pcap", "value=/a,b", "port=net_pcap0"]);
            assert!(!outcome.success && outcome.stderr.contains("contains ','"), "{}", outcome.stderr);
            assert!(!outcome.stderr.contains("EAL: "), "EAL was started: {}", outcome.stderr);
        }

        fn a_port_has_one_owner() {
            let outcome = run("open", &["vdev=net_null0", "port=net_null0"]);
            assert!(outcome.clean().text("second").contains("in use"));
        }

        fn a_second_eal_is_refused() {
            let outcome = run::<&str>("init-twice", &[]);
            assert!(outcome.success, "{}", outcome.stderr);
            for when in ["while", "after"] {
                assert!(outcome.text(when).contains("already initialised in this process"), "{}", outcome.text(when));
            }
        }

        fn the_threads_of_the_process_are_not_pinned() {
            let outcome = run::<&str>("threads", &[]);
            assert_eq!(outcome.clean().text("cpus_before"), outcome.text("cpus_after"));
            assert!(outcome.text("second").contains("registered"));
            assert_eq!((outcome.number("out"), outcome.number("home")), (1, 0));
        }

        fn missing_hugepages_are_named_with_the_remedy() {
            let outcome = run("threads", &["hugepages=4000000000"]);
            assert!(!outcome.success && outcome.stderr.contains("/proc/sys/vm/nr_hugepages"), "{}", outcome.stderr);
            assert!(!outcome.said("cpus_after"), "EAL was started");
        }

        fn hugepages_are_used_if_they_are_free() {
            // On a machine without, the same start works on ordinary pages.
            let free: u64 = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
                .ok()
                .and_then(|count| count.trim().parse().ok())
                .unwrap_or(0);
            let outcome = run("open", &["auto=16", "frames=511", "cache=0", "vdev=net_null0", "port=net_null0"]);
            let without = outcome.clean().text("without_hugepages");
            assert!(free < 8 || without == "false", "{free} free huge pages were not used");
        }

        fn a_pool_that_does_not_fit_is_refused() {
            let outcome = run("threads", &["nohuge=1"]);
            assert!(!outcome.success && outcome.stderr.contains("cannot be made"), "{}", outcome.stderr);
            let outcome = run("threads", &["room=319"]);
            assert!(!outcome.success && outcome.stderr.contains("less than the 320"), "{}", outcome.stderr);
            let outcome = run("threads", &["frames=0"]);
            assert!(!outcome.success && outcome.stderr.contains("1 to 16777216 frames"), "{}", outcome.stderr);
            let outcome = run("threads", &["frames=300"]);
            assert!(!outcome.success && outcome.stderr.contains("two thirds"), "{}", outcome.stderr);
        }

        /// A frame, a handle or a thread that is left must not point into freed memory.
        fn shutdown_is_refused_while_anything_is_left() {
            for (left, want) in [("frame", "1 frames of pool"), ("pool", "in use"), ("guard", "in use")] {
                let outcome = run("shutdown", &[format!("left={left}")]);
                assert!(outcome.success && !outcome.said("shut_down"), "{left}: {}", outcome.stderr);
                assert!(outcome.text("refused").contains(want), "{left}: {}", outcome.text("refused"));
            }
            assert_eq!(run("shutdown", &["left=nothing"]).text("shut_down"), "true");
        }
    }
}
