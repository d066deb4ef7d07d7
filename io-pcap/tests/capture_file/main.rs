//! Stories of capture files: whole, cut at every byte, foreign, corrupt, hostile; and what the writers make,
//! read again.

mod build;
mod cut;
mod formats;
mod hostile;
mod roundtrip;

use std::io::Cursor;

use evenkeel_io_pcap::file::{CaptureError, CaptureReader, CapturedPacket, LinkType, PacketDirection};

/// A [`CapturedPacket`] that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    time_ns: u64,
    interface: u32,
    link: LinkType,
    data: Vec<u8>,
    orig_len: u32,
    comment: Option<String>,
    direction: PacketDirection,
}

impl Packet {
    fn new(time_ns: u64, data: &[u8]) -> Packet {
        Packet {
            time_ns,
            interface: 0,
            link: LinkType::ETHERNET,
            data: data.to_vec(),
            orig_len: data.len() as u32,
            comment: None,
            direction: PacketDirection::Unknown,
        }
    }
}

impl From<CapturedPacket<'_>> for Packet {
    fn from(packet: CapturedPacket<'_>) -> Packet {
        Packet {
            time_ns: packet.time_ns,
            interface: packet.interface,
            link: packet.link,
            data: packet.data.to_vec(),
            orig_len: packet.orig_len,
            comment: packet.comment.map(str::to_owned),
            direction: packet.direction,
        }
    }
}

/// Reads a file to its end, checks that the end stays the same, and hands over all packets and how it ended.
fn read_all(bytes: &[u8]) -> (Vec<Packet>, Result<(), CaptureError>) {
    let mut reader = match CaptureReader::new(Cursor::new(bytes.to_vec())) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let mut packets = Vec::new();
    let end = loop {
        match reader.next_packet() {
            Ok(Some(packet)) => packets.push(Packet::from(packet)),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    for _ in 0..3 {
        assert_eq!(
            reader.next_packet().map(|packet| packet.map(Packet::from)),
            end.clone().map(|()| None)
        );
    }
    assert_eq!(reader.packets_read(), packets.len() as u64);
    (packets, end)
}
