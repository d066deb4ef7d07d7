//! Whatever the bytes are: an end within the bounds, and no panic.

use evenkeel_io_pcap::file::{CapturedPacket, Framer, PACKET_LEN_MAX};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::build::{gzip, samples};
use crate::{Packet, read_all};

/// The header of a packet takes at least this many bytes of a file (a simple packet block; a record).
const PACKET_OVERHEAD: usize = 16;

fn check(bytes: &[u8], compressed: bool) -> Vec<Packet> {
    let (packets, _) = read_all(bytes);
    if !compressed {
        assert!(packets.len() * PACKET_OVERHEAD <= bytes.len());
    }
    let mut framer = Framer::default();
    let mut frame = Vec::new();
    for packet in &packets {
        assert!(packet.data.len() <= PACKET_LEN_MAX as usize);
        frame.clear();
        let captured = CapturedPacket {
            time_ns: packet.time_ns,
            interface: packet.interface,
            link: packet.link,
            data: &packet.data,
            orig_len: packet.orig_len,
            comment: packet.comment.as_deref(),
            direction: packet.direction,
        };
        let framed = framer.frame(&captured, &mut frame).is_ok();
        assert!(if framed {
            frame.len() <= packet.data.len() + 14
        } else {
            frame.is_empty()
        });
    }
    packets
}

fn any_sample() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(samples()).prop_map(|sample| sample.bytes)
}

/// What happens to files: bytes change, 32-bit fields get extreme values, pieces go missing or come twice.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Word(Index, u32),
    Remove(Index, u8),
    Repeat(Index, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let word = proptest::sample::select(vec![
        0,
        1,
        3,
        4,
        12,
        16,
        28,
        32,
        0xffff,
        0x0001_0000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fffc,
        u32::MAX,
    ]);
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<Index>(), word, any::<bool>())
            .prop_map(|(at, word, swap)| Damage::Word(at, if swap { word.swap_bytes() } else { word })),
        (any::<Index>(), any::<u8>()).prop_map(|(at, len)| Damage::Remove(at, len)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, len)| Damage::Repeat(at, len)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let piece = |at: &Index, len: u8| {
        let at = at.index(bytes.len());
        at..(at + usize::from(len)).min(bytes.len())
    };
    match damage {
        Damage::Set(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Damage::Word(at, word) => {
            // Fields are aligned in these formats, so an aligned place hits one.
            let at = at.index(bytes.len()) & !3;
            for (place, byte) in bytes.iter_mut().skip(at).zip(word.to_le_bytes()) {
                *place = byte;
            }
        }
        Damage::Remove(at, len) => {
            let piece = piece(at, *len);
            bytes.drain(piece);
        }
        Damage::Repeat(at, len) => {
            let piece = piece(at, *len);
            let copy = bytes[piece.clone()].to_vec();
            bytes.splice(piece.start..piece.start, copy);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_have_an_end(bytes in vec(any::<u8>(), 0..512)) {
        check(&bytes, bytes.starts_with(&[0x1f, 0x8b]));
    }

    #[test]
    fn arbitrary_bytes_behind_a_real_header_have_an_end(
        sample in any_sample(),
        head in any::<Index>(),
        tail in vec(any::<u8>(), 0..512),
    ) {
        let keep = head.index(sample.len());
        check(&[&sample[..keep], &tail].concat(), false);
    }

    #[test]
    fn damaged_files_have_an_end(mut bytes in any_sample(), damages in vec(damage(), 1..6)) {
        for damage in &damages {
            apply(&mut bytes, damage);
        }
        // Wrapped in gzip, the same: the reader below does not see the difference.
        let packets = check(&bytes, bytes.starts_with(&[0x1f, 0x8b]));
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            prop_assert_eq!(packets, check(&gzip(&bytes), true));
        }
    }

    #[test]
    fn damaged_gzip_has_an_end(sample in any_sample(), damages in vec(damage(), 1..4)) {
        let mut bytes = gzip(&sample);
        for damage in &damages {
            apply(&mut bytes, damage);
        }
        check(&bytes, true);
    }
}
