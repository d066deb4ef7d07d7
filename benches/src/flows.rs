//! The traffic: connections and their packets by arithmetic, so that making a packet reads no memory
//! that the measured code would have to fight for.

use crate::frame::{BenchFrame, DATA_AT};

/// Which families a connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 on both sides.
    V4,
    /// IPv6 on both sides.
    V6,
    /// IPv6 clients, IPv4 real servers.
    Nat64,
}

/// Real servers of a service.
pub const SERVERS: u32 = 8;
/// LIPs of a service.
pub const LOCALS: u32 = 32;
/// Local ports of a LIP that flows use.
const LOCAL_PORTS: u32 = 60_000;
/// Port of every service.
pub const VIP_PORT: u16 = 80;
/// Port of every real server.
pub const SERVER_PORT: u16 = 8080;

/// VIP of the IPv4 service.
pub const VIP4: [u8; 4] = [203, 0, 113, 10];

/// Address of real server `n`.
pub const fn server4(n: u32) -> [u8; 4] {
    [192, 0, 2, 10 + n as u8]
}

/// LIP `n` towards IPv4 servers.
pub const fn local4(n: u32) -> [u8; 4] {
    [198, 51, 100, 10 + n as u8]
}

/// Client address `n`: 100.64.0.0/10 has 4 M.
const fn client4(n: u32) -> [u8; 4] {
    (0x6440_0000 + n).to_be_bytes()
}

/// An address under 2001:db8:`net`::/48 that ends in `n`.
pub const fn addr6(net: u8, n: u32) -> [u8; 16] {
    let [a, b, c, d] = n.to_be_bytes();
    [0x20, 0x01, 0x0d, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

/// VIP of the IPv6 service.
pub const VIP6: [u8; 16] = addr6(1, 10);
/// VIP of the service that translates.
pub const VIP64: [u8; 16] = addr6(1, 64);

/// A connection: four ends, each an address of its side's family and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client's end.
    pub client: (Addr, u16),
    /// The end that the client uses.
    pub vip: (Addr, u16),
    /// The real server's end.
    pub server: (Addr, u16),
    /// The end that the real server sees.
    pub local: (Addr, u16),
    /// Which real server it is.
    pub server_no: u32,
}

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addr {
    /// IPv4.
    V4([u8; 4]),
    /// IPv6.
    V6([u8; 16]),
}

/// Flow `n` (below 14 million: 8 servers x 32 LIPs x 60,000 ports).
pub fn flow(kind: Kind, n: u32) -> Flow {
    let (address, client_port) = (n >> 2, 1024 + (n & 3) as u16 * 16_001);
    let server_no = n % SERVERS;
    let rest = n / SERVERS;
    // Spread over the LIPs, as the engine itself would.
    let (local_no, local_port) = (rest % LOCALS, 4096 + (rest / LOCALS % LOCAL_PORTS) as u16);
    let wide = |net, n| Addr::V6(addr6(net, n));
    let (client, vip) = match kind {
        Kind::V4 => (Addr::V4(client4(address)), Addr::V4(VIP4)),
        Kind::V6 => (wide(9, address), Addr::V6(VIP6)),
        Kind::Nat64 => (wide(9, address), Addr::V6(VIP64)),
    };
    let (server, local) = match kind {
        Kind::V4 | Kind::Nat64 => (Addr::V4(server4(server_no)), Addr::V4(local4(local_no))),
        Kind::V6 => (wide(2, 10 + server_no), wide(3, 10 + local_no)),
    };
    Flow {
        client: (client, client_port),
        vip: (vip, VIP_PORT),
        server: (server, SERVER_PORT),
        local: (local, local_port),
        server_no,
    }
}

/// A packet of a flow: its number and whether it comes from the real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Number of the flow.
    pub flow: u32,
    /// From the real server to the client.
    pub outbound: bool,
}

/// The order in which packets come: at random over `flows` flows and both directions.
#[derive(Clone, Debug)]
pub struct Order {
    state: u64,
    flows: u32,
}

impl Order {
    /// An order that `seed` determines.
    pub fn new(seed: u64, flows: u32) -> Self {
        Order { state: seed, flows }
    }

    /// The next packet.
    pub fn packet(&mut self) -> Packet {
        // splitmix64
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let random = z ^ (z >> 31);
        Packet {
            flow: (((random >> 32) * u64::from(self.flows)) >> 32) as u32,
            outbound: random & 1 == 1,
        }
    }
}

const TCP_ACK_PSH: u8 = 0x18;
const TCP_SYN: u8 = 0x02;

/// Makes `frame` an established packet, of 64 to 100 bytes over IPv4.
pub fn write_data(frame: &mut BenchFrame, kind: Kind, packet: Packet, slot: usize) {
    let f = flow(kind, packet.flow);
    let (src, dst) = if packet.outbound {
        (f.server, f.local)
    } else {
        (f.client, f.vip)
    };
    write(frame, src, dst, TCP_ACK_PSH, 10 + slot % 5 * 9);
}

/// Makes `frame` the first segment of a flow.
pub fn write_syn(frame: &mut BenchFrame, kind: Kind, n: u32) {
    let f = flow(kind, n);
    write(frame, f.client, f.vip, TCP_SYN, 0);
}

/// A segment of a short connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// The client opens.
    Syn,
    /// The server answers.
    SynAck,
    /// The client is there.
    Ack,
    /// The client has said all.
    Fin,
    /// The server has, too.
    ServerFin,
    /// The client knows.
    LastAck,
}

impl Segment {
    /// In their order.
    pub const ALL: [Segment; 6] = [
        Segment::Syn,
        Segment::SynAck,
        Segment::Ack,
        Segment::Fin,
        Segment::ServerFin,
        Segment::LastAck,
    ];
}

/// Makes `frame` a segment of the short connection of the client of flow `n`; `local` is what the engine chose for it:
/// local address and port, and the server's address. `None` is for its SYN.
pub fn write_segment(
    frame: &mut BenchFrame,
    n: u32,
    local: Option<([u8; 4], u16, [u8; 4])>,
    segment: Segment,
) {
    let f = flow(Kind::V4, n);
    let flags = match segment {
        Segment::Syn => TCP_SYN,
        Segment::SynAck => 0x12,
        Segment::Ack | Segment::LastAck => 0x10,
        Segment::Fin | Segment::ServerFin => 0x11,
    };
    let of_server = matches!(segment, Segment::SynAck | Segment::ServerFin);
    match local.filter(|_| of_server) {
        Some((addr, port, server)) => {
            write(
                frame,
                (Addr::V4(server), SERVER_PORT),
                (Addr::V4(addr), port),
                flags,
                0,
            );
        }
        None => write(frame, f.client, f.vip, flags, 0),
    }
}

fn write(frame: &mut BenchFrame, src: (Addr, u16), dst: (Addr, u16), flags: u8, payload: usize) {
    let tcp_len = 20 + payload;
    let data = frame.reset();
    data[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9]);
    let (l4, pseudo) = match (src.0, dst.0) {
        (Addr::V4(s), Addr::V4(d)) => {
            data[12..14].copy_from_slice(&[0x08, 0x00]);
            let ip = &mut data[14..34];
            ip.copy_from_slice(&[
                0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ]);
            ip[2..4].copy_from_slice(&((20 + tcp_len) as u16).to_be_bytes());
            ip[12..16].copy_from_slice(&s);
            ip[16..20].copy_from_slice(&d);
            let checksum = !fold(sum(ip));
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            (34, sum(&s) + sum(&d))
        }
        (Addr::V6(s), Addr::V6(d)) => {
            data[12..14].copy_from_slice(&[0x86, 0xdd]);
            let ip = &mut data[14..54];
            ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, tcp_len as u8, 6, 64]);
            ip[8..24].copy_from_slice(&s);
            ip[24..40].copy_from_slice(&d);
            (54, sum(&s) + sum(&d))
        }
        _ => unreachable!("both ends of a packet are of one family"),
    };
    let tcp = &mut data[l4..l4 + tcp_len];
    tcp.fill(0x61);
    tcp[..2].copy_from_slice(&src.1.to_be_bytes());
    tcp[2..4].copy_from_slice(&dst.1.to_be_bytes());
    tcp[12..20].copy_from_slice(&[0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let checksum = !fold(sum(tcp) + pseudo + 6 + tcp_len as u64);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    frame.set_len(l4 + tcp_len);
    debug_assert!(DATA_AT + frame.len_bytes() <= size_of::<BenchFrame>());
}

/// Sum of big-endian words, RFC 1071; the slow, obvious way.
pub fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|w| u64::from(w[0]) << 8 | w.get(1).map_or(0, |&b| u64::from(b)))
        .sum()
}

/// Folds a sum to one word.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
