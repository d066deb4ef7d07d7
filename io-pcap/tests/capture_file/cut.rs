//! A file may end anywhere: whatever is whole before its end is delivered, and the cut is named.

use std::io::{self, Cursor, Read};

use evenkeel_io_pcap::file::{CaptureError, CaptureReader};

use crate::build::{gzip, samples};
use crate::read_all;

#[test]
fn a_cut_at_every_byte_delivers_all_packets_before_it() {
    let mut cuts = 0;
    for sample in samples() {
        for len in 0..=sample.bytes.len() {
            let (packets, end) = read_all(&sample.bytes[..len]);
            let whole: Vec<_> = sample
                .packets
                .iter()
                .filter(|(at, _)| *at <= len)
                .map(|(_, packet)| packet.clone())
                .collect();
            assert_eq!(packets, whole, "{} cut at {len}", sample.name);
            if sample.ends.contains(&len) {
                assert_eq!(end, Ok(()), "{} may end at {len}", sample.name);
            } else if len < 4 {
                // Less than a magic number: the beginning of anything.
                let first_bytes = sample.bytes[..len].to_vec();
                assert_eq!(end, Err(CaptureError::NotACapture { first_bytes }));
            } else {
                cuts += 1;
                let Err(CaptureError::Cut {
                    packets_read,
                    byte_offset,
                    what,
                }) = end
                else {
                    panic!("{} cut at {len}: {end:?}", sample.name);
                };
                assert_eq!((packets_read, byte_offset), (whole.len() as u64, len as u64));
                assert!(!what.is_empty());
            }
        }
    }
    assert!(cuts > 1000, "only {cuts} cuts were tried");
}

#[test]
fn a_cut_gzip_stream_is_named_at_every_byte() {
    for sample in samples() {
        let compressed = gzip(&sample.bytes);
        assert_eq!(
            read_all(&compressed),
            (sample.packets(), Ok(())),
            "{}",
            sample.name
        );
        // The first byte alone is not gzip's magic number yet.
        for len in 2..compressed.len() {
            let (packets, end) = read_all(&compressed[..len]);
            assert!(
                matches!(end, Err(CaptureError::Cut { .. })),
                "{} cut at {len}: {end:?}",
                sample.name
            );
            assert!(
                sample.packets().starts_with(&packets),
                "{} cut at {len}",
                sample.name
            );
        }
        // Without the trailer (CRC and length) all data is there, but nothing vouches for it.
        let (packets, end) = read_all(&compressed[..compressed.len() - 8]);
        let count = packets.len() as u64;
        assert_eq!(packets, sample.packets());
        let byte_offset = sample.bytes.len() as u64;
        assert_eq!(
            end,
            Err(CaptureError::Cut {
                packets_read: count,
                byte_offset,
                what: "the gzip stream"
            })
        );
    }
}

#[test]
fn what_was_cut_is_said_in_words() {
    let sample = &samples()[0];
    let end = |len: usize| read_all(&sample.bytes[..len]).1.expect_err("cut").to_string();
    let cut = |len: usize, what: &str, packets: u64| {
        format!(
            "cut short: the capture ends at byte {len} in the middle of {what}; {packets} packet{} before the cut {} \
             read",
            if packets == 1 { "" } else { "s" },
            if packets == 1 { "was" } else { "were" }
        )
    };
    assert!(end(3).starts_with("not a capture file: it begins with"));
    assert_eq!(end(23), cut(23, "the file header", 0));
    assert_eq!(end(39), cut(39, "a packet's record header", 0));
    assert_eq!(end(40), cut(40, "a packet's data", 0));
    assert_eq!(end(46), cut(46, "a packet's record header", 1));
}

/// Gives its bytes one at a time, with an interruption before each, and then an error of the system.
struct Stumbling {
    bytes: Cursor<Vec<u8>>,
    interrupt: bool,
}

impl Read for Stumbling {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let Some(first) = buf.get_mut(..1) else {
            return Ok(0);
        };
        match self.bytes.read(first)? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the cable was pulled",
            )),
            n => Ok(n),
        }
    }
}

#[test]
fn an_error_of_the_system_is_not_taken_for_a_cut() {
    for sample in samples() {
        for bytes in [sample.bytes.clone(), gzip(&sample.bytes)] {
            let input = Stumbling {
                bytes: Cursor::new(bytes),
                interrupt: false,
            };
            let mut reader = CaptureReader::new(input).expect("header");
            let mut count = 0;
            let error = loop {
                match reader.next_packet() {
                    Ok(packet) => count += u64::from(packet.expect("no end without error").time_ns > 0),
                    Err(error) => break error,
                }
            };
            assert_eq!(count, sample.packets.len() as u64, "{}", sample.name);
            let CaptureError::Io {
                packets_read,
                byte_offset,
                kind,
                message,
            } = error
            else {
                panic!("{}: {error:?}", sample.name);
            };
            assert_eq!(packets_read, count);
            assert_eq!(byte_offset, sample.bytes.len() as u64);
            assert_eq!(
                (kind, message.as_str()),
                (io::ErrorKind::UnexpectedEof, "the cable was pulled")
            );
        }
    }
}
