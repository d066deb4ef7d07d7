//! What each kind of file says, and what is refused in which words.

use std::io::{Cursor, Write};
use std::process::{Command, Stdio};

use evenkeel_io_pcap::file::{
    BLOCK_LEN_MAX, CaptureError, CaptureReader, FileFormat, INTERFACE_COUNT_MAX, LinkType, PACKET_LEN_MAX,
};

use crate::build::{
    MICRO, NANO, ORDERS, Order, block, classic, enhanced, gzip, interface, option, pcap_header, pcap_record,
    pcapng, samples, section, simple,
};
use crate::{Packet, read_all};

#[test]
fn every_kind_of_file_reads_as_it_was_built() {
    for sample in samples() {
        assert_eq!(
            read_all(&sample.bytes),
            (sample.packets(), Ok(())),
            "{}",
            sample.name
        );
        assert_eq!(
            read_all(&gzip(&sample.bytes)),
            (sample.packets(), Ok(())),
            "{} in gzip",
            sample.name
        );
    }
}

#[test]
fn several_gzip_members_are_one_file() {
    let sample = classic(Order::Le, NANO);
    let (head, tail) = sample.bytes.split_at(30);
    assert_eq!(
        read_all(&[gzip(head), gzip(tail)].concat()),
        (sample.packets(), Ok(()))
    );
}

#[test]
fn the_reader_names_format_section_and_interfaces() {
    let sample = pcapng(Order::Be, Order::Le);
    let mut reader = CaptureReader::new(Cursor::new(sample.bytes.clone())).expect("header");
    assert_eq!(reader.format(), FileFormat::PcapNg);
    let mut sections = Vec::new();
    while reader.next_packet().expect("whole").is_some() {
        sections.push((reader.section(), reader.interface_name(0).map(str::to_owned)));
    }
    let lan = Some("lan".to_owned());
    assert_eq!(
        sections,
        [(0, lan.clone()), (0, lan.clone()), (0, lan), (1, None), (1, None)]
    );
    assert_eq!(reader.interface_name(7), None);
    assert_eq!(reader.byte_offset(), sample.bytes.len() as u64);
    let reader = CaptureReader::new(Cursor::new(classic(Order::Le, MICRO).bytes)).expect("header");
    assert_eq!(
        (reader.format(), reader.section(), reader.interface_name(0)),
        (FileFormat::Pcap, 0, None)
    );
}

#[test]
fn time_stamps_of_every_unit_and_offset() {
    for order in ORDERS {
        for (unit, offset, ticks, time_ns) in [
            (None, 0, 1, 1_000),
            (Some(0), 0, 3, 3_000_000_000),
            (Some(3), 0, 3, 3_000_000),
            (Some(9), 0, u64::MAX, u64::MAX),
            (Some(12), 0, 12_345, 12),
            (Some(127), 0, u64::MAX, 0),
            (Some(0x80), 0, 5, 5_000_000_000),
            (Some(0x80 | 1), 0, 5, 2_500_000_000),
            (Some(0x80 | 30), 0, 1 << 29, 500_000_000),
            (Some(0xff), 0, u64::MAX, 0),
            (Some(9), 5, 1, 5_000_000_001),
            (Some(9), -5, 6_000_000_000, 1_000_000_000),
            // Before the epoch and after the end of time.
            (Some(9), -5, 1, 0),
            (Some(9), i64::MAX, 1, u64::MAX),
            (Some(0), i64::MIN, u64::MAX, 0),
            (Some(0), 0, u64::MAX, u64::MAX),
        ] {
            let mut options = unit.map_or(Vec::new(), |unit: u8| option(order, 9, &[unit]));
            options.extend(option(order, 14, &order.u64(offset as u64)));
            let bytes = [
                section(order, &[]),
                interface(order, 1, 0, &options),
                enhanced(order, 0, ticks, 1, b"x", &[]),
            ]
            .concat();
            assert_eq!(
                read_all(&bytes),
                (vec![Packet::new(time_ns, b"x")], Ok(())),
                "{unit:?} {offset} {ticks}"
            );
        }
    }
}

#[test]
fn a_comment_that_is_not_utf8_is_made_so() {
    let order = Order::Le;
    let options = option(order, 1, b"a\xffb");
    let bytes = [
        section(order, &[]),
        interface(order, 1, 0, &[]),
        enhanced(order, 0, 0, 0, b"", &options),
    ]
    .concat();
    let (packets, end) = read_all(&bytes);
    assert_eq!(end, Ok(()));
    assert_eq!(packets[0].comment.as_deref(), Some("a\u{fffd}b"));
}

#[test]
fn the_largest_packet_is_read_and_a_larger_one_is_corrupt() {
    let order = Order::Le;
    let data = vec![7; PACKET_LEN_MAX as usize];
    let more = vec![7; PACKET_LEN_MAX as usize + 1];
    let classic = |data: &[u8]| {
        [
            pcap_header(order, NANO, 1),
            pcap_record(order, 0, 0, data.len() as u32, data),
        ]
        .concat()
    };
    let pcapng = |block: Vec<u8>| [section(order, &[]), interface(order, 1, 0, &[]), block].concat();
    let whole = (vec![Packet::new(0, &data)], Ok(()));
    assert_eq!(read_all(&classic(&data)), whole);
    assert_eq!(
        read_all(&pcapng(enhanced(order, 0, 0, PACKET_LEN_MAX, &data, &[]))),
        whole
    );
    assert_eq!(read_all(&pcapng(simple(order, PACKET_LEN_MAX, &data))), whole);
    corrupt(
        &classic(&more),
        24,
        "a record claims 262145 captured bytes, more than 262144",
    );
    let what = "an enhanced packet block claims 262145 captured bytes, more than 262144";
    corrupt(&pcapng(enhanced(order, 0, 0, 0, &more, &[])), 48, what);
    let what = "a simple packet block claims 262145 captured bytes, more than 262144";
    corrupt(&pcapng(simple(order, PACKET_LEN_MAX + 1, &more)), 48, what);
}

/// The file ends with this error and without a packet.
fn corrupt(bytes: &[u8], at: u64, expected: &str) {
    let (packets, end) = read_all(bytes);
    assert_eq!(packets, []);
    let expected = CaptureError::Corrupt {
        packets_read: 0,
        byte_offset: at,
        what: expected.to_owned(),
    };
    assert_eq!(end, Err(expected));
}

#[test]
fn nonsense_in_pcapng_is_corrupt_and_says_what_and_where() {
    for order in ORDERS {
        let file = |rest: &[Vec<u8>]| [section(order, &[]), rest.concat()].concat();
        let one = |rest: Vec<u8>| file(&[interface(order, 1, 0, &[]), rest]);
        let head = |block_type: u32, len: u32| [order.u32(block_type), order.u32(len)].concat();
        corrupt(
            &one(head(9, 11)),
            48,
            "a block has length 11, less than its header",
        );
        corrupt(
            &one(head(6, 0)),
            48,
            "an enhanced packet block has length 0, less than its header",
        );
        corrupt(
            &one(head(9, 14)),
            48,
            "a block has length 14, not a multiple of 4",
        );
        let long = BLOCK_LEN_MAX + 4;
        corrupt(
            &one(head(9, long)),
            48,
            &format!("a block has length {long}, more than {BLOCK_LEN_MAX}"),
        );
        let mut mismatch = block(order, 9, &[0; 8]);
        mismatch.splice(16.., order.u32(24));
        corrupt(
            &one(mismatch),
            48,
            "a block has length 20 before and 24 after its body",
        );
        corrupt(
            &one(enhanced(order, 1, 0, 0, b"", &[])),
            48,
            "a packet of interface 1, but 1 are described",
        );
        corrupt(
            &file(&[simple(order, 0, b"")]),
            28,
            "a simple packet, but no interface is described",
        );
        let short = "of 32 bytes is too short for its contents";
        let mut claims = enhanced(order, 0, 0, 0, b"", &[]);
        claims.splice(20..24, order.u32(1));
        corrupt(&one(claims), 48, &format!("an enhanced packet block {short}"));
        corrupt(
            &one(simple(order, 17, &[0; 16])),
            48,
            "a simple packet block of 32 bytes is too short for its contents",
        );
        corrupt(
            &one(block(order, 6, &[0; 16])),
            48,
            "an enhanced packet block of 28 bytes is too short for its contents",
        );
        let mut overrun = option(order, 1, b"abcd");
        overrun.truncate(4);
        corrupt(
            &one(enhanced(order, 0, 0, 0, b"", &overrun)),
            48,
            "an enhanced packet block of 36 bytes is too short for its contents",
        );
        corrupt(
            &file(&[interface(order, 1, 0, &option(order, 9, &[6, 6]))]),
            28,
            "option if_tsresol has 2 bytes instead of 1",
        );
        corrupt(
            &file(&[interface(order, 1, 0, &option(order, 14, &[0; 4]))]),
            28,
            "option if_tsoffset has 4 bytes instead of 8",
        );
        corrupt(
            &one(enhanced(order, 0, 0, 0, b"", &option(order, 2, &[0; 3]))),
            48,
            "option epb_flags has 3 bytes instead of 4",
        );
        let mut magic = section(order, &[]);
        magic.splice(8..12, [1, 2, 3, 4]);
        corrupt(&magic, 0, "a section header has byte-order magic 04030201");
    }
}

#[test]
fn interfaces_have_their_bound_in_each_section() {
    let order = Order::Be;
    let full = [
        section(order, &[]),
        interface(order, 1, 0, &[]).repeat(INTERFACE_COUNT_MAX),
    ]
    .concat();
    let last = enhanced(order, INTERFACE_COUNT_MAX as u32 - 1, 0, 0, b"", &[]);
    let (packets, end) = read_all(&[full.clone(), last, full.clone()].concat());
    assert_eq!((packets.len(), end), (1, Ok(())));
    let at = full.len() as u64;
    corrupt(
        &[full, interface(order, 1, 0, &[])].concat(),
        at,
        "more than 1024 interfaces in a section",
    );
}

#[test]
fn a_large_unknown_block_is_skipped() {
    let order = Order::Le;
    let big = block(order, 0x0bad, &vec![0; BLOCK_LEN_MAX as usize - 12]);
    let packet = enhanced(order, 0, 1, 1, b"x", &[]);
    let bytes = [section(order, &[]), interface(order, 1, 0, &[]), big, packet].concat();
    assert_eq!(read_all(&gzip(&bytes)), (vec![Packet::new(1000, b"x")], Ok(())));
}

#[test]
fn foreign_files_are_told_from_captures() {
    let message = |bytes: &[u8]| match read_all(bytes) {
        (packets, Err(error @ CaptureError::NotACapture { .. })) if packets.is_empty() => error.to_string(),
        other => panic!("{other:?}"),
    };
    let expect = |what: &str| {
        format!("not a capture file: {what}; expected pcap or pcapng, plain or compressed with gzip")
    };
    assert_eq!(message(b""), expect("it is empty"));
    assert_eq!(message(b"GET / HTTP/1.1\r\n\r\n"), {
        let hex = "47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a";
        expect(&format!("it begins with {hex} (text: \"GET / HTTP/1.1\\r\\n\")"))
    });
    assert_eq!(
        message(b"PK\x03\x04"),
        expect("it begins with 50 4b 03 04 (a zip archive: extract it first)")
    );
    assert_eq!(message(b"\x00\x01"), expect("it begins with 00 01"));
    let twice = gzip(&gzip(&classic(Order::Le, MICRO).bytes));
    assert!(message(&twice).contains("gzip within gzip"));
}

#[test]
fn unsupported_versions_and_link_types_are_named() {
    let mut bytes = pcap_header(Order::Be, MICRO, 1);
    bytes[5] = 3;
    let expected = CaptureError::UnsupportedVersion {
        format: FileFormat::Pcap,
        major: 3,
        minor: 4,
    };
    assert_eq!(read_all(&bytes), (vec![], Err(expected.clone())));
    assert_eq!(expected.to_string(), "pcap version 3.4 is not supported");
    let mut bytes = pcapng(Order::Le, Order::Le).bytes;
    bytes[12] = 2;
    let expected = CaptureError::UnsupportedVersion {
        format: FileFormat::PcapNg,
        major: 2,
        minor: 0,
    };
    assert_eq!(read_all(&bytes), (vec![], Err(expected)));
    let (_, end) = read_all(&pcap_header(Order::Le, NANO, 127));
    assert_eq!(end, Err(CaptureError::UnsupportedLink { link: LinkType(127) }));
    let message = end.expect_err("unsupported").to_string();
    assert!(
        message.starts_with("unsupported link type IEEE802_11_RADIOTAP (127)"),
        "{message}"
    );
    // The length of a frame check sequence, in the upper bits, is not part of the link type.
    assert_eq!(
        read_all(&pcap_header(Order::Le, NANO, 0x4400_0001)),
        (vec![], Ok(()))
    );
    // In pcapng it is the interface's matter: the packet is delivered.
    let order = Order::Le;
    let packet = enhanced(order, 0, 0, 0, b"", &[]);
    let (packets, end) = read_all(&[section(order, &[]), interface(order, 127, 0, &[]), packet].concat());
    assert_eq!((packets[0].link, end), (LinkType(127), Ok(())));
}

#[test]
fn damaged_gzip_is_corrupt_and_not_cut() {
    let sample = classic(Order::Le, MICRO);
    let mut compressed = gzip(&sample.bytes);
    let crc = compressed.len() - 8;
    compressed[crc] ^= 1;
    let (packets, end) = read_all(&compressed);
    assert_eq!(packets, sample.packets());
    let Err(CaptureError::Corrupt {
        packets_read: 3,
        byte_offset,
        what,
    }) = end
    else {
        panic!("{end:?}")
    };
    assert_eq!(byte_offset, sample.bytes.len() as u64);
    assert!(what.starts_with("the gzip stream: "), "{what}");
}

#[test]
fn a_path_that_does_not_open_is_named() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("there-is-no-such.pcap");
    let error = CaptureReader::open(&path).expect_err("no such file");
    assert!(
        matches!(
            &error,
            CaptureError::Open {
                kind: std::io::ErrorKind::NotFound,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("there-is-no-such.pcap"), "{error}");
}

/// The test starts itself as a process of its own, with the file on its standard input.
#[test]
fn a_dash_is_standard_input() {
    const ROLE: &str = "EVENKEEL_TEST_READS_STDIN";
    if std::env::var_os(ROLE).is_some() {
        let mut reader = CaptureReader::open("-").expect("header");
        while reader.next_packet().expect("whole").is_some() {}
        println!("<{} packets>", reader.packets_read());
        return;
    }
    let sample = pcapng(Order::Le, Order::Be);
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["formats::a_dash_is_standard_input", "--exact", "--nocapture"])
        .env(ROLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test starts itself");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(&gzip(&sample.bytes))
        .expect("the child reads");
    let output = child.wait_with_output().expect("the child ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("<5 packets>"), "{text}");
}
