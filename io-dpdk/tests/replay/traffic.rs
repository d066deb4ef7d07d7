//! Frames for the comparison: sessions, and everything that a balancer must drop or answer itself. Made by
//! etherparse, so that no code under test makes its own input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0x77, 1];
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0x77, 2];
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(super) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// Payload of the longest frame, of 9,000 bytes behind the Ethernet header at most.
pub(super) const JUMBO: usize = 8900;

const SYN: u8 = 1;
const ACK: u8 = 2;
const FIN: u8 = 4;

/// The client's address in the family of a VIP.
pub(super) fn client_of(vip: SocketAddr, port: u16) -> SocketAddr {
    let addr: IpAddr = match vip {
        SocketAddr::V4(_) => CLIENT.into(),
        SocketAddr::V6(_) => CLIENT6.into(),
    };
    SocketAddr::new(addr, port)
}

fn builder(src: IpAddr, dst: IpAddr, ttl: u8) -> PacketBuilderStep<IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, OWN_MAC);
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => ethernet.ipv4(s.octets(), d.octets(), ttl),
        (IpAddr::V6(s), IpAddr::V6(d)) => ethernet.ipv6(s.octets(), d.octets(), ttl),
        _ => panic!("ends of one family"),
    }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8, len: usize) -> Vec<u8> {
    let mut b = builder(src.ip(), dst.ip(), 64).tcp(src.port(), dst.port(), 1000, 4096);
    if flags & SYN != 0 {
        b = b.syn();
    }
    if flags & ACK != 0 {
        b = b.ack(2000);
    }
    if flags & FIN != 0 {
        b = b.fin();
    }
    let mut frame = Vec::new();
    b.write(&mut frame, &payload(len)).expect("to memory");
    frame
}

pub(super) fn udp(src: SocketAddr, dst: SocketAddr, len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    builder(src.ip(), dst.ip(), 64)
        .udp(src.port(), dst.port())
        .write(&mut frame, &payload(len))
        .expect("to memory");
    frame
}

pub(super) fn echo(src: IpAddr, dst: IpAddr, ttl: u8, len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let b = builder(src, dst, ttl);
    match src {
        IpAddr::V4(_) => b.icmpv4_echo_request(7, 1).write(&mut frame, &payload(len)),
        IpAddr::V6(_) => b.icmpv6_echo_request(7, 1).write(&mut frame, &payload(len)),
    }
    .expect("to memory");
    frame
}

/// A TCP connection as a plain server would see it, jumbo frames in both directions.
pub(super) fn tcp_session(client: SocketAddr, server: SocketAddr) -> Vec<Vec<u8>> {
    vec![
        tcp(client, server, SYN, 0),
        tcp(server, client, SYN | ACK, 0),
        tcp(client, server, ACK, 0),
        tcp(client, server, ACK, 10),
        tcp(client, server, ACK, JUMBO),
        tcp(server, client, ACK, JUMBO - 1),
        tcp(server, client, ACK, 1460),
        tcp(client, server, FIN | ACK, 0),
        tcp(server, client, FIN | ACK, 0),
        tcp(client, server, ACK, 0),
    ]
}

/// Questions and answers over UDP, some of a jumbo frame.
pub(super) fn udp_session(client: SocketAddr, server: SocketAddr) -> Vec<Vec<u8>> {
    vec![
        udp(client, server, 0),
        udp(server, client, 1),
        udp(client, server, JUMBO),
        udp(server, client, JUMBO - 3),
        udp(client, server, 333),
        udp(server, client, 512),
    ]
}

/// A frame with VLAN tags in front of its EtherType.
pub(super) fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    tags.iter().for_each(|tag| out.extend(tag));
    out.extend(&frame[12..]);
    out
}

const VLAN: [u8; 4] = [0x81, 0, 0, 42];
const QINQ: [u8; 4] = [0x88, 0xa8, 0x20, 7];

/// Tags by number: none, one, two.
pub(super) fn tags(n: usize) -> &'static [[u8; 4]] {
    [&[][..], &[VLAN], &[QINQ, VLAN]][n % 3]
}

pub(super) fn arp_request(target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(CLIENT_MAC);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(CLIENT_MAC);
    frame.extend(CLIENT.octets());
    frame.extend([0; 6]);
    frame.extend(target);
    // As short frames are padded on the wire.
    frame.resize(60, 0);
    frame
}

/// A neighbour solicitation with the sender's link-layer address (RFC 4861, 4.3).
pub(super) fn solicitation(target: Ipv6Addr) -> Vec<u8> {
    let octets = target.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&octets[13..]);
    let mut body = octets.to_vec();
    body.extend([1, 1]);
    body.extend(CLIENT_MAC);
    let mut frame = Vec::new();
    builder(CLIENT6.into(), IpAddr::V6(group.into()), 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut frame, &body)
        .expect("to memory");
    frame
}

/// Whether a frame is an ARP reply or a neighbour advertisement: what the engine originates.
pub(super) fn is_answer(frame: &[u8]) -> bool {
    let mut at = 12;
    while frame[at..at + 2] == VLAN[..2] || frame[at..at + 2] == QINQ[..2] {
        at += 4;
    }
    frame[at..at + 2] == [8, 6]
        || (frame[at..at + 2] == [0x86, 0xdd] && (frame[at + 8], frame[at + 42]) == (58, 136))
}

/// Writes the checksum of the IPv4 header of an untagged frame anew.
fn fill_ipv4(frame: &mut [u8]) {
    let end = 14 + usize::from(frame[14] & 15) * 4;
    frame[24..26].fill(0);
    let Some(header) = frame.get(14..end) else { return };
    let words = header.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// An untagged IPv6 frame with destination options of these lengths (multiples of 8) before its payload.
fn with_options(frame: &[u8], lengths: &[usize]) -> Vec<u8> {
    const DESTINATION_OPTIONS: u8 = 60;
    let mut next = frame[20];
    let mut options: Vec<u8> = Vec::new();
    for &len in lengths {
        let mut header = vec![next, (len / 8 - 1) as u8, 1, (len - 4) as u8];
        header.resize(len, 0);
        next = DESTINATION_OPTIONS;
        options.splice(..0, header);
    }
    let mut out = frame[..54].to_vec();
    out[20] = next;
    out.extend(options);
    out.extend(&frame[54..]);
    let payload_len = (out.len() - 54) as u16;
    out[18..20].copy_from_slice(&payload_len.to_be_bytes());
    out
}

/// Frames of every kind to a VIP: the seeds of the hostile ones.
fn seeds(vips: &[(bool, SocketAddr)]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (port, &(is_tcp, vip)) in (20_000..).zip(vips) {
        let client = client_of(vip, port);
        all.push(if is_tcp {
            tcp(client, vip, SYN, 0)
        } else {
            udp(client, vip, 40)
        });
    }
    all
}

/// What the engine answers itself, drops or punts; L4 checksums are right wherever there is one.
pub(super) fn hostile(vips: &[(bool, SocketAddr)]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let seeds = seeds(vips);
    for target in [
        [10, 77, 0, 2],
        [10, 77, 0, 254],
        [10, 77, 0, 9],
        [198, 51, 100, 101],
    ] {
        all.push(arp_request(target));
    }
    for target in ["fd77::2", "fd77::fe", "fd77::9", "2001:db8:5::101"] {
        all.push(solicitation(target.parse().expect("address")));
    }
    for (n, to) in ["10.77.0.2", "10.77.0.254", "fd77::2", "fd77::fe", "192.0.2.1"]
        .iter()
        .enumerate()
    {
        let to: IpAddr = to.parse().expect("address");
        let from = client_of(SocketAddr::new(to, 0), 0).ip();
        for len in [0, 8, 100, 191, 2048, JUMBO] {
            all.push(tagged(&echo(from, to, 64, len), tags(n)));
        }
        all.push(echo(from, to, 1, 56));
    }
    for (n, seed) in seeds.iter().enumerate() {
        // As it is, twice, and with every number of tags; too many of these.
        all.extend([0, 1, 2].map(|n| tagged(seed, tags(n))));
        all.push(tagged(seed, &[QINQ, VLAN, VLAN, VLAN]));
        all.extend((1..seed.len()).step_by(3).map(|len| seed[..len].to_vec()));
        let cut = tagged(seed, tags(n + 1));
        all.extend((13..cut.len()).step_by(5).map(|len| cut[..len].to_vec()));
        // Padding behind the packet, as far as a jumbo frame goes.
        for len in [60, 128, 400, 9014] {
            let mut padded = seed.clone();
            padded.resize(len.max(seed.len()), 0xa5);
            all.push(padded);
        }
        if seed[14] >> 4 == 4 {
            let mut wrong = seed.clone();
            wrong[24] ^= 0x55;
            all.push(wrong);
            for (at, value) in [
                (20, 0x20),
                (21, 3),
                (22, 1),
                (22, 0),
                (14, 0x44),
                (14, 0x4f),
                (16, 0xff),
            ] {
                let mut changed = seed.clone();
                changed[at] = value;
                fill_ipv4(&mut changed);
                all.push(changed);
            }
        } else {
            for lengths in [&[8][..], &[64], &[8; 4], &[64, 8]] {
                all.push(with_options(seed, lengths));
            }
            // A fragment header and a routing header in place of the options (RFC 8200, 4.4 and 4.5).
            for kind in [44, 43] {
                let mut changed = with_options(seed, &[8]);
                changed[20] = kind;
                changed[55..58].copy_from_slice(&[0, 0, 1]);
                all.push(changed);
            }
            let mut changed = seed.clone();
            changed[21] = 1;
            all.push(changed);
        }
    }
    // No IP at all, of all lengths.
    for (n, len) in [14, 15, 60, 192, 193, 1514, 9014].into_iter().enumerate() {
        let mut frame = payload(len);
        frame[12..14].copy_from_slice(&[[0x88, 0xcc], [0, 46], [8, 0], [0x86, 0xdd]][n % 4]);
        all.push(frame);
    }
    all
}

/// Frames whose transport header begins or ends behind the least head that a driver shows: too long for the
/// engine, however much more a driver shows.
pub(super) fn long_headers(vips: &[(bool, SocketAddr)]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for seed in seeds(vips).iter().filter(|seed| seed[14] >> 4 == 6) {
        for lengths in [&[120][..], &[136], &[160], &[256], &[8; 20], &[64, 8, 64]] {
            all.push(with_options(seed, lengths));
        }
    }
    all
}

/// TCP and UDP frames with a byte changed at every place, so that most transport checksums are wrong; those
/// of IPv4 headers are right, and none became ICMP, whose checksum the engine verifies itself.
pub(super) fn mutants(vips: &[(bool, SocketAddr)]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for seed in seeds(vips) {
        for at in 14..seed.len() {
            for flip in [1, 0x80, 0xff, 0x10 + (at as u8 & 0x0f)] {
                let mut mutant = seed.clone();
                mutant[at] ^= flip;
                let v4 = mutant[12] == 8;
                if v4 {
                    fill_ipv4(&mut mutant);
                }
                let proto = if v4 { mutant[23] } else { mutant[20] };
                if proto != 1 && proto != 58 {
                    all.push(mutant);
                }
            }
        }
    }
    all
}
