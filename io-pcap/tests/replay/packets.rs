//! Frames for stories, made and read again by etherparse; captures of them in memory.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use evenkeel_io_pcap::file::{CaptureReader, PacketDirection, PcapWriter};

pub(crate) const SECOND: u64 = 1_000_000_000;
/// 2024-01-01T00:00:00Z.
pub(crate) const START: u64 = 1_704_067_200 * SECOND;

pub(crate) const SYN: u8 = 1;
pub(crate) const ACK: u8 = 2;
pub(crate) const FIN: u8 = 4;
pub(crate) const RST: u8 = 8;

pub(crate) fn end(s: &str) -> SocketAddr {
    s.parse().expect("address with port")
}

fn builder(src: IpAddr, dst: IpAddr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 9, 1], [2, 0, 0, 0, 9, 2]);
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => ethernet.ipv4(s.octets(), d.octets(), 64),
        (IpAddr::V6(s), IpAddr::V6(d)) => ethernet.ipv6(s.octets(), d.octets(), 64),
        _ => panic!("ends of one family"),
    }
}

pub(crate) fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut b = builder(src.ip(), dst.ip()).tcp(src.port(), dst.port(), 1000, 4096);
    if flags & SYN != 0 {
        b = b.syn();
    }
    if flags & ACK != 0 {
        b = b.ack(2000);
    }
    if flags & FIN != 0 {
        b = b.fin();
    }
    if flags & RST != 0 {
        b = b.rst();
    }
    let mut out = Vec::new();
    b.write(&mut out, payload).expect("to memory");
    out
}

pub(crate) fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    builder(src.ip(), dst.ip())
        .udp(src.port(), dst.port())
        .write(&mut out, payload)
        .expect("to memory");
    out
}

pub(crate) fn echo(src: IpAddr, dst: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match src {
        IpAddr::V4(_) => builder(src, dst)
            .icmpv4_echo_request(7, 1)
            .write(&mut out, payload),
        IpAddr::V6(_) => builder(src, dst)
            .icmpv6_echo_request(7, 1)
            .write(&mut out, payload),
    }
    .expect("to memory");
    out
}

pub(crate) fn arp_request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut out = vec![0xff; 6];
    out.extend([2, 0, 0, 0, 9, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 9, 1]);
    out.extend(sender);
    out.extend([0; 6]);
    out.extend(target);
    out
}

/// A first fragment.
pub(crate) fn fragment(src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    let mut frame = udp(src, dst, &[1; 64]);
    frame[20] |= 0x20;
    fill_ipv4(&mut frame);
    frame
}

/// Computes the checksum of the IPv4 header anew.
pub(crate) fn fill_ipv4(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = frame[14..34]
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
        .sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// Writes what a sender leaves to its NIC: the sum of the pseudo-header, not inverted (TCP over IPv4).
pub(crate) fn leave_to_nic(frame: &mut [u8]) {
    let len = (frame.len() - 34) as u32;
    let words = frame[26..34]
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
        .sum::<u32>();
    let sum = words + 6 + len;
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[50..52].copy_from_slice(&(sum as u16).to_be_bytes());
}

/// One connection as both legs would be seen at a plain server: handshake, a request, a reply, FINs.
pub(crate) fn session(client: SocketAddr, server: SocketAddr) -> Vec<Vec<u8>> {
    vec![
        tcp(client, server, SYN, b""),
        tcp(server, client, SYN | ACK, b""),
        tcp(client, server, ACK, b""),
        tcp(client, server, ACK, b"a question"),
        tcp(server, client, ACK, b"an answer!!"),
        tcp(client, server, FIN | ACK, b""),
        tcp(server, client, FIN | ACK, b""),
        tcp(client, server, ACK, b""),
    ]
}

/// A buffer that a writer fills and a test reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("no panic").clone()
    }
}

impl std::io::Write for Shared {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A capture of frames, each with its time.
pub(crate) fn capture(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let shared = Shared::default();
    let mut writer = PcapWriter::new(shared.clone()).expect("to memory");
    for (time, frame) in frames {
        writer.write(*time, frame, 0).expect("to memory");
    }
    writer.finish().expect("to memory");
    shared.bytes()
}

/// Frames a millisecond apart.
pub(crate) fn timed(frames: Vec<Vec<u8>>) -> Vec<(u64, Vec<u8>)> {
    (0..)
        .zip(frames)
        .map(|(i, f)| (START + i * 1_000_000, f))
        .collect()
}

/// A packet of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) time_ns: u64,
    pub(crate) interface: String,
    pub(crate) sent: bool,
    pub(crate) comment: String,
    pub(crate) data: Vec<u8>,
    pub(crate) orig_len: u32,
}

/// Reads an output and verifies the checksums of everything in it that was captured whole.
pub(crate) fn read_output(bytes: Vec<u8>) -> Vec<Written> {
    let written = read_unverified(bytes);
    for w in &written {
        verify(w);
    }
    written
}

pub(crate) fn read_unverified(bytes: Vec<u8>) -> Vec<Written> {
    let mut reader = CaptureReader::new(std::io::Cursor::new(bytes)).expect("a capture");
    let mut all = Vec::new();
    while let Some(p) = reader.next_packet().expect("a whole capture") {
        let (interface, mut w) = (
            p.interface,
            Written {
                time_ns: p.time_ns,
                interface: String::new(),
                sent: p.direction == PacketDirection::Sent,
                comment: p.comment.expect("every packet has a comment").to_owned(),
                data: p.data.to_vec(),
                orig_len: p.orig_len,
            },
        );
        w.interface = reader
            .interface_name(interface)
            .expect("every interface has a name")
            .to_owned();
        all.push(w);
    }
    all
}

/// Checks the checksums of a frame with etherparse.
pub(crate) fn verify(w: &Written) {
    if (w.orig_len as usize) > w.data.len() {
        return;
    }
    let sliced = SlicedPacket::from_ethernet(&w.data).unwrap_or_else(|e| panic!("{}: {e}", w.comment));
    let (src, dst, v4) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            assert_eq!(
                header.calc_header_checksum(),
                header.header_checksum,
                "IPv4 header of {}",
                w.comment
            );
            (header.source.to_vec(), header.destination.to_vec(), true)
        }
        Some(NetSlice::Ipv6(ip)) => (
            ip.header().source().to_vec(),
            ip.header().destination().to_vec(),
            false,
        ),
        _ => return,
    };
    let v6 = |a: &[u8]| <[u8; 16]>::try_from(a).expect("16 bytes");
    let four = |a: &[u8]| <[u8; 4]>::try_from(a).expect("4 bytes");
    match &sliced.transport {
        Some(TransportSlice::Tcp(t)) => {
            let h = t.to_header();
            let sum = if v4 {
                h.calc_checksum_ipv4_raw(four(&src), four(&dst), t.payload())
            } else {
                h.calc_checksum_ipv6_raw(v6(&src), v6(&dst), t.payload())
            };
            assert_eq!(sum.expect("short"), h.checksum, "TCP of {}", w.comment);
        }
        Some(TransportSlice::Udp(t)) => {
            let h = t.to_header();
            let sum = if v4 {
                h.calc_checksum_ipv4_raw(four(&src), four(&dst), t.payload())
            } else {
                h.calc_checksum_ipv6_raw(v6(&src), v6(&dst), t.payload())
            };
            if !(v4 && h.checksum == 0) {
                assert_eq!(sum.expect("short"), h.checksum, "UDP of {}", w.comment);
            }
        }
        Some(TransportSlice::Icmpv4(t)) => {
            let whole = etherparse::checksum::Sum16BitWords::new()
                .add_slice(t.slice())
                .ones_complement();
            assert_eq!(whole, 0, "ICMP of {}", w.comment);
        }
        Some(TransportSlice::Icmpv6(t)) => {
            assert!(t.is_checksum_valid(v6(&src), v6(&dst)), "ICMPv6 of {}", w.comment);
        }
        _ => {}
    }
}

/// Ends of a TCP or UDP packet.
pub(crate) fn ends(data: &[u8]) -> (SocketAddr, SocketAddr) {
    let sliced = SlicedPacket::from_ethernet(data).expect("a frame");
    let (src, dst): (IpAddr, IpAddr) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        Some(NetSlice::Ipv6(ip)) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        other => panic!("no IP: {other:?}"),
    };
    let (sport, dport) = match &sliced.transport {
        Some(TransportSlice::Tcp(t)) => (t.source_port(), t.destination_port()),
        Some(TransportSlice::Udp(t)) => (t.source_port(), t.destination_port()),
        other => panic!("no ports: {other:?}"),
    };
    (SocketAddr::new(src, sport), SocketAddr::new(dst, dport))
}
