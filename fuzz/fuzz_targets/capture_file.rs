//! Arbitrary bytes as a capture file: an end within the bounds, that stays the end, and no panic.
#![no_main]

use std::io::Cursor;

use evenkeel_io_pcap::file::{CaptureReader, Framer, PACKET_LEN_MAX};
use libfuzzer_sys::fuzz_target;

/// A compressed input may decompress to very many packets: enough is enough.
const PACKET_COUNT_MAX: u64 = 10_000;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = CaptureReader::new(Cursor::new(bytes.to_vec())) else {
        return;
    };
    let mut framer = Framer::default();
    let mut frame = Vec::new();
    let mut count = 0;
    let end = loop {
        match reader.next_packet() {
            Ok(Some(packet)) => {
                count += 1;
                assert!(packet.data.len() <= PACKET_LEN_MAX as usize);
                frame.clear();
                let framed = framer.frame(&packet, &mut frame).is_ok();
                assert!(if framed {
                    frame.len() <= packet.data.len() + 14
                } else {
                    frame.is_empty()
                });
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
        if count == PACKET_COUNT_MAX {
            return;
        }
    };
    assert_eq!(reader.packets_read(), count);
    for _ in 0..2 {
        assert_eq!(
            reader.next_packet().map(|packet| assert!(packet.is_none())),
            end.clone()
        );
    }
    if let Err(error) = end {
        assert!(!error.to_string().is_empty());
    }
});
