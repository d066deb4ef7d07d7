//! What the writers write, the reader reads.

use std::fs;
use std::path::PathBuf;

use evenkeel_io_pcap::file::{
    COMMENT_LEN_MAX, CaptureReader, CaptureWriter, LinkType, OutPacket, PacketDirection, PcapWriter,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{Packet, read_all};

fn direction() -> impl Strategy<Value = PacketDirection> {
    prop_oneof![
        Just(PacketDirection::Unknown),
        Just(PacketDirection::Received),
        Just(PacketDirection::Sent)
    ]
}

fn packet() -> impl Strategy<Value = Packet> {
    (
        any::<u64>(),
        0..3u32,
        vec(any::<u8>(), 0..300),
        0..2000u32,
        proptest::option::of(".{0,40}"),
        direction(),
    )
        .prop_map(|(time_ns, interface, data, more, comment, direction)| Packet {
            time_ns,
            interface,
            link: LinkType::ETHERNET,
            orig_len: data.len() as u32 + more,
            data,
            comment,
            direction,
        })
}

/// Writes the packets to a file of this test, reads its bytes, and removes it.
fn written(name: &str, packets: &[Packet]) -> Vec<u8> {
    let path = temporary(name);
    let mut writer = CaptureWriter::create(&path, &["one", "two", ""]).expect("created");
    for packet in packets {
        let out = OutPacket {
            time_ns: packet.time_ns,
            interface: packet.interface,
            data: &packet.data,
            orig_len: packet.orig_len,
            comment: packet.comment.as_deref(),
            direction: packet.direction,
        };
        writer.write(&out).expect("written");
    }
    writer.finish().expect("finished");
    let bytes = fs::read(&path).expect("it was written");
    fs::remove_file(&path).expect("it was written");
    bytes
}

fn temporary(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}

proptest! {
    #[test]
    fn pcapng(packets in vec(packet(), 0..20)) {
        let bytes = written("round.pcapng", &packets);
        prop_assert_eq!(read_all(&bytes), (packets.clone(), Ok(())));
        let compressed = written("round.pcapng.gz", &packets);
        prop_assert!(compressed.starts_with(&[0x1f, 0x8b]));
        prop_assert_eq!(read_all(&compressed), (packets.clone(), Ok(())));
        // The same packets, the same bytes.
        prop_assert_eq!(written("round.pcapng", &packets), bytes);
        prop_assert_eq!(written("round.pcapng.gz", &packets), compressed);
    }

    #[test]
    fn classic(packets in vec(packet(), 0..20)) {
        let path = temporary("round.pcap");
        let mut writer = PcapWriter::create(&path).expect("created");
        let mut expected = Vec::new();
        for packet in &packets {
            // The format ends in the year 2106, and knows neither interfaces nor comments.
            let time_ns = packet.time_ns % (1_000_000_000 << 32);
            writer.write(time_ns, &packet.data, packet.orig_len).expect("written");
            expected.push(Packet { orig_len: packet.orig_len, ..Packet::new(time_ns, &packet.data) });
        }
        writer.finish().expect("finished");
        let bytes = fs::read(&path).expect("it was written");
        fs::remove_file(&path).expect("it was written");
        prop_assert_eq!(read_all(&bytes), (expected, Ok(())));
    }
}

#[test]
fn a_long_comment_is_cut_between_two_characters() {
    let comment = "é".repeat(COMMENT_LEN_MAX);
    let long = Packet {
        comment: Some(format!("x{comment}")),
        ..Packet::new(0, b"")
    };
    let (packets, end) = read_all(&written("comment.pcapng", &[long]));
    assert_eq!(end, Ok(()));
    // One byte, then as many of two bytes as fit: the last byte stays unused.
    let kept = packets[0].comment.clone().expect("a comment");
    assert_eq!(kept.len(), COMMENT_LEN_MAX - 1);
    assert!(format!("x{comment}").starts_with(&kept));
}

#[test]
fn an_opened_file_is_read_and_its_interfaces_have_names() {
    let path = temporary("opened.pcapng");
    let mut writer = CaptureWriter::create(&path, &["clients", "servers"]).expect("created");
    let out = OutPacket {
        time_ns: 1,
        interface: 1,
        data: b"x",
        orig_len: 1,
        comment: None,
        direction: PacketDirection::Sent,
    };
    writer.write(&out).expect("written");
    writer.finish().expect("finished");
    let mut reader = CaptureReader::open(&path).expect("opens");
    assert_eq!(
        reader
            .next_packet()
            .expect("whole")
            .map(|packet| packet.interface),
        Some(1)
    );
    assert_eq!(reader.interface_name(0), Some("clients"));
    assert_eq!(reader.interface_name(1), Some("servers"));
    fs::remove_file(&path).expect("it was written");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_an_error() {
    let writer = CaptureWriter::create("/dev/full", &["a"]).expect("opens, and buffers");
    let message = writer.finish().expect_err("it is full").to_string();
    assert!(message.starts_with("cannot write /dev/full: "), "{message}");
    let error = PcapWriter::create("/dev/full/x")
        .expect_err("not a folder")
        .to_string();
    assert!(error.starts_with("cannot create /dev/full/x: "), "{error}");
}
