//! A packet with other ends, its checksums as right or wrong as they were: what presents a captured reply as
//! the real server's.

use std::net::SocketAddr;

use evenkeel_core::wire::{
    Delta, EtherType, IpProto, Ipv4Repr, Ipv4View, Ipv6Repr, Ipv6View, MacAddr, Pseudo, TcpView, UdpView,
};

use super::checksum::fill_transport;
use super::look::{Packet, Seen, look};

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;

/// Gives the TCP or UDP packet in `frame` (all of it, or padded to its length on the wire) these ends. Into
/// the other family it gets a new IP header, without options or extension headers, as NAT64 does it (RFC 7915).
/// `false`, and nothing changed: it cannot be done.
pub(super) fn with_ends(frame: &mut Vec<u8>, packet: &Packet, src: SocketAddr, dst: SocketAddr) -> bool {
    let (Some(from), Some(to)) = (pseudo(packet.src, packet.dst), pseudo(src.ip(), dst.ip())) else {
        return false;
    };
    if packet.ports.is_none() || packet.end > frame.len() {
        return false;
    }
    let new_len = packet.end - packet.l4 + IPV4_LEN;
    if src.is_ipv4() && packet.src.is_ipv6() && new_len > usize::from(u16::MAX) {
        return false;
    }
    let without_checksum = !transport(
        frame,
        packet,
        src.port(),
        dst.port(),
        Delta::ZERO.replace_pseudo(&from, &to),
    );
    match (&from, &to) {
        (Pseudo::V4 { .. }, Pseudo::V4 { src, dst }) => {
            let mut ip = Ipv4View::new_unchecked(&mut frame[packet.l3..packet.l4]);
            let delta = Delta::ZERO
                .replace_u32(ip.src().to_bits(), src.to_bits())
                .replace_u32(ip.dst().to_bits(), dst.to_bits());
            let sum = delta.apply(ip.checksum());
            ip.set_src(*src);
            ip.set_dst(*dst);
            ip.set_checksum(sum);
        }
        (Pseudo::V6 { .. }, Pseudo::V6 { src, dst }) => {
            let mut ip = Ipv6View::new_unchecked(&mut frame[packet.l3..packet.l4]);
            ip.set_src(*src);
            ip.set_dst(*dst);
        }
        (_, Pseudo::V4 { .. } | Pseudo::V6 { .. }) => across(frame, packet, &to, without_checksum),
    }
    true
}

fn pseudo(src: std::net::IpAddr, dst: std::net::IpAddr) -> Option<Pseudo> {
    use std::net::IpAddr::{V4, V6};
    match (src, dst) {
        (V4(src), V4(dst)) => Some(Pseudo::v4(src, dst)),
        (V6(src), V6(dst)) => Some(Pseudo::v6(src, dst)),
        _ => None,
    }
}

/// Writes the ports and applies `delta` and their change to the checksum. `false`: UDP without checksum.
fn transport(frame: &mut [u8], packet: &Packet, sport: u16, dport: u16, delta: Delta) -> bool {
    let segment = &mut frame[packet.l4..packet.end];
    if packet.proto == IpProto::TCP {
        let mut tcp = TcpView::new_unchecked(segment);
        let delta = delta
            .replace_u16(tcp.src_port(), sport)
            .replace_u16(tcp.dst_port(), dport);
        let sum = delta.apply(tcp.checksum());
        tcp.set_src_port(sport);
        tcp.set_dst_port(dport);
        tcp.set_checksum(sum);
        return true;
    }
    let mut udp = UdpView::new_unchecked(segment);
    let delta = delta
        .replace_u16(udp.src_port(), sport)
        .replace_u16(udp.dst_port(), dport);
    let sum = delta.apply_udp(udp.checksum());
    udp.set_src_port(sport);
    udp.set_dst_port(dport);
    udp.set_checksum(sum);
    sum != 0
}

/// Replaces the IP header by one of the family of `to`.
fn across(frame: &mut Vec<u8>, packet: &Packet, to: &Pseudo, without_checksum: bool) {
    let payload_len = (packet.end - packet.l4) as u16;
    let old = &frame[packet.l3..packet.l4];
    let (ttl, class, dont_fragment) = match packet.src {
        std::net::IpAddr::V4(_) => {
            let ip = Ipv4View::new_unchecked(old);
            (ip.ttl(), ip.tos(), ip.dont_fragment())
        }
        std::net::IpAddr::V6(_) => {
            let ip = Ipv6View::new_unchecked(old);
            (ip.hop_limit(), ip.traffic_class(), true)
        }
    };
    let mut header = [0; IPV6_LEN];
    let (header_len, ethertype) = match *to {
        Pseudo::V4 { src, dst } => {
            let ip = Ipv4Repr {
                src,
                dst,
                proto: packet.proto,
                payload_len,
                ttl,
                tos: class,
                ident: 0,
                dont_fragment,
                more_fragments: false,
                fragment_offset: 0,
            };
            ip.emit(&mut Ipv4View::new_unchecked(&mut header[..IPV4_LEN]));
            (IPV4_LEN, EtherType::IPV4)
        }
        Pseudo::V6 { src, dst } => {
            let ip = Ipv6Repr {
                src,
                dst,
                next_header: packet.proto,
                payload_len,
                hop_limit: ttl,
                traffic_class: class,
                flow_label: 0,
            };
            ip.emit(&mut Ipv6View::new_unchecked(&mut header[..]));
            (IPV6_LEN, EtherType::IPV6)
        }
    };
    frame.truncate(packet.end);
    frame.splice(packet.l3..packet.l4, header[..header_len].iter().copied());
    frame[packet.l3 - 2..packet.l3].copy_from_slice(&ethertype.0.to_be_bytes());
    // IPv6 has no UDP without checksum: the translator makes one (RFC 7915, 4.5).
    if without_checksum
        && ethertype == EtherType::IPV6
        && let Seen::Ip(packet) = look(frame, frame.len())
    {
        fill_transport(frame, &packet);
    }
}

/// Writes link-layer source and destination.
pub(super) fn set_macs(frame: &mut [u8], src: MacAddr, dst: MacAddr) {
    if let Some(macs) = frame.first_chunk_mut::<12>() {
        macs[..6].copy_from_slice(&dst.0);
        macs[6..].copy_from_slice(&src.0);
    }
}
