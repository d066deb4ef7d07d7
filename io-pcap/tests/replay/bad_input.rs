//! Hostile and broken captures.

use evenkeel_io_pcap::file::{CaptureError, FrameError, LinkType, PcapWriter, append_ethernet};
use evenkeel_io_pcap::replay::{BadChecksums, CaptureSource, MapVip, Options, ReplayError, replay};
use proptest::prelude::*;

use crate::packets::*;
use crate::{node, run, run_unverified};

#[test]
fn a_capture_that_is_cut_anywhere_is_replayed_up_to_the_cut() {
    let frames = timed(session(end("203.0.113.77:40001"), end("192.0.2.80:80")));
    let whole = capture(&frames);
    let mut ends = vec![24];
    for (_, frame) in &frames {
        ends.push(ends.last().expect("one") + 16 + frame.len());
    }
    for len in 0..=whole.len() {
        // Two readings take twice as long: at some places they do.
        let map_vip = [None, Some(MapVip::Busiest)];
        for map_vip in map_vip.into_iter().take(1 + usize::from(len % 7 == 0)) {
            let result = run_unverified(
                whole[..len].to_vec(),
                &node(),
                Options {
                    map_vip,
                    ..Options::default()
                },
            );
            // Less than a magic number may be the beginning of anything.
            if len < 4 {
                assert!(matches!(
                    result,
                    Err(ReplayError::Capture(CaptureError::NotACapture { .. }))
                ));
                continue;
            }
            let (summary, _) = result.expect("replayed");
            let packets = ends.iter().filter(|&&e| e <= len).count().saturating_sub(1);
            assert_eq!(summary.capture.packets, packets as u64, "cut at {len}");
            assert_eq!(summary.capture.cut.is_none(), ends.contains(&len), "cut at {len}");
        }
    }
}

#[test]
fn what_is_no_capture_is_refused() {
    let result = run_unverified(b"GET / HTTP/1.1\r\n\r\n".to_vec(), &node(), Options::default());
    assert!(matches!(
        result,
        Err(ReplayError::Capture(CaptureError::NotACapture { .. }))
    ));
    let mut source = CaptureSource::new("/nonexistent/capture");
    for map_vip in [None, Some(MapVip::Busiest)] {
        let options = Options {
            map_vip,
            ..Options::default()
        };
        let result = replay(&mut source, &node(), options, &mut |_| true);
        assert!(
            matches!(result, Err(ReplayError::Capture(CaptureError::Open { .. }))),
            "{result:?}"
        );
    }
}

#[test]
fn frames_that_are_none_are_left_out_and_counted() {
    // A pcapng section with an interface of a foreign link type, made by hand.
    let shared = Shared::default();
    let mut w = evenkeel_io_pcap::file::CaptureWriter::new(shared.clone(), &["x"]).expect("to memory");
    w.write(&evenkeel_io_pcap::file::OutPacket {
        time_ns: START,
        interface: 0,
        data: &[0; 20],
        orig_len: 20,
        comment: None,
        direction: evenkeel_io_pcap::file::PacketDirection::Unknown,
    })
    .expect("to memory");
    w.finish().expect("to memory");
    let mut bytes = shared.bytes();
    let link = bytes
        .windows(4)
        .position(|b| b == [1, 0, 0, 0])
        .expect("interface block");
    // The interface block: type 1, length, link type.
    let at = bytes[link..]
        .windows(4)
        .position(|b| b == [1, 0, 0, 0])
        .expect("type")
        + link
        + 8;
    // Skip the section header's version, which reads alike.
    let at = (at..bytes.len() - 4)
        .find(|&i| bytes[i - 8..i - 4] == [1, 0, 0, 0] && bytes[i..i + 2] == [1, 0])
        .expect("link type");
    bytes[at] = 105;
    let mut out = Vec::new();
    assert_eq!(
        append_ethernet(LinkType(105), &[0; 20], &mut out),
        Err(FrameError::UnsupportedLink(LinkType(105)))
    );
    let (summary, written) = run(bytes, &node(), Options::default());
    assert_eq!(summary.capture.not_presented.unsupported_link, 1);
    assert_eq!(
        (summary.capture.packets, summary.verdicts.presented, written.len()),
        (1, 0, 0)
    );
}

/// A capture of `packets`, whatever they are.
fn raw(packets: &[(u32, Vec<u8>, u32)]) -> Vec<u8> {
    let shared = Shared::default();
    let mut writer = PcapWriter::new(shared.clone()).expect("to memory");
    for (time, data, orig_len) in packets {
        writer
            .write(u64::from(*time) * 7_000_000, data, *orig_len)
            .expect("to memory");
    }
    writer.finish().expect("to memory");
    shared.bytes()
}

fn any_options() -> impl Strategy<Value = Options> {
    let policy = prop_oneof![
        Just(BadChecksums::Drop),
        Just(BadChecksums::Accept),
        Just(BadChecksums::Fix),
        Just(BadChecksums::FinishOffload)
    ];
    (policy, any::<bool>(), 0..70u8, any::<u64>()).prop_map(|(bad_checksums, map, workers, seed)| Options {
        map_vip: map.then_some(MapVip::Busiest),
        bad_checksums,
        workers,
        seed,
        conns: true,
        ..Options::default()
    })
}

/// Frames that are nearly right: stories with bytes changed and ends cut off.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let ends = prop_oneof![
        Just(("203.0.113.77:40001", "192.0.2.80:80")),
        Just(("203.0.113.77:40002", "192.0.2.53:53")),
        Just(("192.0.2.80:80", "203.0.113.77:40001")),
        Just(("[2001:db8:c::9]:4000", "[2001:db8::64]:80")),
        Just(("198.51.100.11:8080", "198.51.100.101:2000")),
        Just(("127.0.0.1:8080", "127.0.0.1:2000")),
    ];
    let kind = 0..5u8;
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = prop_oneof![4 => Just(0usize), 1 => 0..60usize];
    (
        ends,
        kind,
        0..16u8,
        proptest::collection::vec(any::<u8>(), 0..80),
        changes,
        cut,
    )
        .prop_map(|((a, b), kind, flags, payload, changes, cut)| {
            let (a, b) = (end(a), end(b));
            let mut frame = match kind {
                0 | 1 => tcp(a, b, flags, &payload),
                2 => udp(a, b, &payload),
                3 => echo(a.ip(), b.ip(), &payload),
                _ => arp_request([203, 0, 113, 77], [192, 0, 2, 80]),
            };
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            frame.truncate(frame.len().saturating_sub(cut));
            frame
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Nothing in a capture makes it panic, whatever is asked for; every packet is accounted for.
    #[test]
    fn never_panics_and_loses_no_packet(
        frames in proptest::collection::vec(
            (any::<u32>(), prop_oneof![3 => nearly_right(), 1 => proptest::collection::vec(any::<u8>(), 0..200)], 0..3000u32),
            0..40,
        ),
        options in any_options(),
    ) {
        let (summary, written) = match run_unverified(raw(&frames), &node(), options) {
            Ok(done) => done,
            // A packet may name any endpoint, one of the config's own addresses too.
            Err(ReplayError::MapVip(_)) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let v = summary.verdicts;
        let accounted = v.forwarded_inbound + v.forwarded_outbound + v.echo_replies + v.answered + v.punted + v.dropped;
        prop_assert_eq!(v.presented, frames.len() as u64);
        prop_assert_eq!(accounted, v.presented);
        prop_assert_eq!(v.handed_off, 0, "software RSS brings packets to the right worker");
        prop_assert_eq!(v.dropped, summary.drops.iter().map(|d| d.packets).sum::<u64>());
        prop_assert_eq!(written.iter().filter(|w| !w.sent).count(), frames.len());
        let sent = v.forwarded_inbound + v.forwarded_outbound + v.echo_replies + v.originated;
        prop_assert_eq!(written.iter().filter(|w| w.sent).count() as u64, sent);
        let conns = summary.connections.as_deref().unwrap_or_default();
        prop_assert_eq!(conns.len() as u64, summary.conns.opened);
        prop_assert_eq!(conns.iter().filter(|c| c.ended_ns.is_none()).count() as u64, summary.conns.open);
        prop_assert_eq!(conns.iter().filter(|c| c.established).count() as u64, summary.conns.established);
        prop_assert_eq!(conns.iter().filter(|c| c.closed).count() as u64, summary.conns.closed);
        let expired = conns.iter().filter(|c| c.end == evenkeel_io_pcap::replay::ConnEnd::Expired).count();
        prop_assert_eq!(expired as u64, summary.conns.expired);
        prop_assert!(!summary.to_string().is_empty());
    }
}
