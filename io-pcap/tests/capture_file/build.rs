//! Builds capture files byte by byte, apart from the code under test, and remembers what is in them.

use std::io::Write;

use evenkeel_io_pcap::file::{LinkType, PacketDirection};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::Packet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Le,
    Be,
}

pub(crate) const ORDERS: [Order; 2] = [Order::Le, Order::Be];

impl Order {
    pub(crate) fn u16(self, value: u16) -> [u8; 2] {
        if self == Order::Le {
            value.to_le_bytes()
        } else {
            value.to_be_bytes()
        }
    }

    pub(crate) fn u32(self, value: u32) -> [u8; 4] {
        if self == Order::Le {
            value.to_le_bytes()
        } else {
            value.to_be_bytes()
        }
    }

    pub(crate) fn u64(self, value: u64) -> [u8; 8] {
        if self == Order::Le {
            value.to_le_bytes()
        } else {
            value.to_be_bytes()
        }
    }
}

/// A file, its packets with the offset behind each, and the offsets where it may end.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) packets: Vec<(usize, Packet)>,
    pub(crate) ends: Vec<usize>,
}

impl Sample {
    pub(crate) fn packets(&self) -> Vec<Packet> {
        self.packets.iter().map(|(_, packet)| packet.clone()).collect()
    }
}

pub(crate) const MICRO: u32 = 0xa1b2c3d4;
pub(crate) const NANO: u32 = 0xa1b23c4d;
pub(crate) const MODIFIED: u32 = 0xa1b2cd34;

pub(crate) fn pcap_header(order: Order, magic: u32, link: u32) -> Vec<u8> {
    let mut out = order.u32(magic).to_vec();
    out.extend(order.u16(2));
    out.extend(order.u16(4));
    out.extend([0; 8]);
    out.extend(order.u32(65535));
    out.extend(order.u32(link));
    out
}

pub(crate) fn pcap_record(order: Order, seconds: u32, fraction: u32, orig_len: u32, data: &[u8]) -> Vec<u8> {
    let fields = [seconds, fraction, data.len() as u32, orig_len];
    let mut out: Vec<u8> = fields.into_iter().flat_map(|field| order.u32(field)).collect();
    out.extend(data);
    out
}

pub(crate) fn block(order: Order, block_type: u32, body: &[u8]) -> Vec<u8> {
    assert_eq!(body.len() % 4, 0);
    let len = order.u32(body.len() as u32 + 12);
    [&order.u32(block_type)[..], &len, body, &len].concat()
}

pub(crate) fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

pub(crate) fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    [
        &order.u16(code)[..],
        &order.u16(value.len() as u16),
        &padded(value),
    ]
    .concat()
}

pub(crate) fn section(order: Order, options: &[u8]) -> Vec<u8> {
    let mut body = order.u32(0x1a2b3c4d).to_vec();
    body.extend(order.u16(1));
    body.extend(order.u16(0));
    body.extend([0xff; 8]);
    body.extend(options);
    block(order, 0x0a0d0d0a, &body)
}

pub(crate) fn interface(order: Order, link: u16, snap_len: u32, options: &[u8]) -> Vec<u8> {
    let mut body = order.u16(link).to_vec();
    body.extend([0, 0]);
    body.extend(order.u32(snap_len));
    body.extend(options);
    block(order, 1, &body)
}

pub(crate) fn enhanced(
    order: Order,
    interface: u32,
    ticks: u64,
    orig_len: u32,
    data: &[u8],
    options: &[u8],
) -> Vec<u8> {
    let fields = [
        interface,
        (ticks >> 32) as u32,
        ticks as u32,
        data.len() as u32,
        orig_len,
    ];
    let mut body: Vec<u8> = fields.into_iter().flat_map(|field| order.u32(field)).collect();
    body.extend(padded(data));
    body.extend(options);
    block(order, 6, &body)
}

pub(crate) fn obsolete(order: Order, interface: u16, ticks: u64, data: &[u8], options: &[u8]) -> Vec<u8> {
    let mut body = order.u16(interface).to_vec();
    // Drops before this packet.
    body.extend(order.u16(0xffff));
    let fields = [
        (ticks >> 32) as u32,
        ticks as u32,
        data.len() as u32,
        data.len() as u32,
    ];
    body.extend(fields.into_iter().flat_map(|field| order.u32(field)));
    body.extend(padded(data));
    body.extend(options);
    block(order, 2, &body)
}

pub(crate) fn simple(order: Order, orig_len: u32, data: &[u8]) -> Vec<u8> {
    block(order, 3, &[&order.u32(orig_len)[..], &padded(data)].concat())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("a Vec takes all");
    encoder.finish().expect("a Vec takes all")
}

/// Classic: two packets, one of them captured in part, one of length zero.
pub(crate) fn classic(order: Order, magic: u32) -> Sample {
    let ns_per_unit = if magic == NANO { 1 } else { 1000 };
    let mut bytes = pcap_header(order, magic, 1);
    let mut ends = vec![bytes.len()];
    let mut packets = Vec::new();
    for (seconds, fraction, orig_len, data) in [
        (1, 999_999, 5, &b"hello"[..]),
        (4_000_000_000, 7, 1500, b"sna"),
        (4_000_000_000, 8, 0, b""),
    ] {
        let mut record = pcap_record(order, seconds, fraction, orig_len, data);
        let mut packet = Packet::new(
            u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * ns_per_unit,
            data,
        );
        packet.orig_len = orig_len;
        if magic == MODIFIED {
            // Interface index, protocol, packet type 4 (outgoing), padding.
            let extra = [&order.u32(3)[..], &order.u16(0x0800), &[4, 0]].concat();
            record.splice(16..16, extra);
            packet.direction = PacketDirection::Sent;
        }
        bytes.extend(record);
        ends.push(bytes.len());
        packets.push((bytes.len(), packet));
    }
    Sample {
        name: format!("classic {order:?} {magic:x}"),
        bytes,
        packets,
        ends,
    }
}

/// pcapng with all that the reader knows: two sections of different byte order, several interfaces with their
/// units and offsets, all packet blocks, unknown blocks, options.
pub(crate) fn pcapng(first: Order, second: Order) -> Sample {
    let mut sample = Sample {
        name: format!("pcapng {first:?} {second:?}"),
        bytes: Vec::new(),
        packets: Vec::new(),
        ends: Vec::new(),
    };
    let mut add = |block: Vec<u8>, packet: Option<Packet>| {
        sample.bytes.extend(block);
        sample.ends.push(sample.bytes.len());
        if let Some(packet) = packet {
            sample.packets.push((sample.bytes.len(), packet));
        }
    };
    let order = first;
    add(section(order, &option(order, 4, b"a test")), None);
    add(
        interface(
            order,
            1,
            0,
            &[option(order, 2, b"lan"), option(order, 0, b"")].concat(),
        ),
        None,
    );
    // Units of 2^-10 s, three hours later; no end mark behind the options.
    let options = [option(order, 9, &[0x8a]), option(order, 14, &order.u64(10800))].concat();
    add(interface(order, 101, 4, &options), None);
    // A name resolution block.
    add(block(order, 4, &[1, 2, 3, 4, 5, 6, 7, 8]), None);
    add(
        enhanced(order, 0, 1_500_000, 5, b"hello", &[]),
        Some(Packet::new(1_500_000_000, b"hello")),
    );
    let options = [
        option(order, 4, &[0; 8]),
        option(order, 2, &order.u32(0xffff_fffe)),
        option(order, 1, "first ✓".as_bytes()),
        option(order, 1, b"second"),
        option(order, 0, b""),
        // Behind the end mark: not an option any more.
        vec![0xff; 4],
    ]
    .concat();
    let packet = Packet {
        interface: 1,
        link: LinkType::RAW,
        orig_len: 77,
        comment: Some("first ✓".to_owned()),
        direction: PacketDirection::Sent,
        ..Packet::new(10_801_500_000_000, b"four")
    };
    add(enhanced(order, 1, 1536, 77, b"four", &options), Some(packet));
    // No time: that of the packet before.
    let packet = Packet {
        orig_len: 6,
        ..Packet::new(10_801_500_000_000, b"simple")
    };
    add(simple(order, 6, b"simple"), Some(packet));

    let order = second;
    add(section(order, &[]), None);
    add(interface(order, 228, 2, &option(order, 9, &[9])), None);
    let packet = Packet {
        link: LinkType::IPV4,
        orig_len: 9,
        ..Packet::new(10_801_500_000_000, b"sn")
    };
    add(simple(order, 9, b"sn"), Some(packet));
    let packet = Packet {
        link: LinkType::IPV4,
        direction: PacketDirection::Received,
        ..Packet::new(0x1_0000_0002, b"old")
    };
    add(
        obsolete(order, 0, 0x1_0000_0002, b"old", &option(order, 2, &order.u32(1))),
        Some(packet),
    );
    // An unknown block at the very end.
    add(block(order, 0x8000_0001, &[]), None);
    sample
}

/// One file of every kind.
pub(crate) fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    for first in ORDERS {
        for magic in [MICRO, NANO, MODIFIED] {
            all.push(classic(first, magic));
        }
        for second in ORDERS {
            all.push(pcapng(first, second));
        }
    }
    all
}
