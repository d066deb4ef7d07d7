//! A look at a captured frame: whose it is and where its headers are, as far as a tool needs to know. What is
//! wrong with a frame is for the engine to say; here a look ends where sense ends.

use std::net::{IpAddr, SocketAddr};

use evenkeel_core::tuple::{L4Proto, Tuple};
use evenkeel_core::wire::{
    ArpView, EtherType, IpProto, Ipv4View, Ipv6View, NdpView, TcpFlags, TcpView, UdpView, icmpv6, ipv6ext,
};

const ETHERNET_LEN: usize = 14;
const VLAN_LEN: usize = 4;
/// As many tags as the engine follows.
const VLAN_COUNT_MAX: usize = 3;

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Ip(Packet),
    /// Sender and target.
    Arp(IpAddr, IpAddr),
    Other,
}

/// An IP packet whose fixed header and lengths make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// Offset of the IP header.
    pub(super) l3: usize,
    /// Offset of what the IP header and its extensions lead to.
    pub(super) l4: usize,
    /// Offset behind the IP packet, as its header says; at most the frame's length on the wire.
    pub(super) end: usize,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) proto: IpProto,
    pub(super) fragment: bool,
    /// The destination in the header is the last one.
    pub(super) at_last_hop: bool,
    /// The whole transport header, its options too, is in the captured bytes.
    pub(super) transport_header: bool,
    pub(super) ports: Option<(u16, u16)>,
    pub(super) tcp_flags: Option<TcpFlags>,
    /// Whom a neighbour solicitation asks for.
    pub(super) ndp_target: Option<IpAddr>,
}

impl Packet {
    /// The five-tuple of a TCP or UDP packet.
    pub(super) fn tuple(&self) -> Option<Tuple> {
        let (sport, dport) = self.ports?;
        Some(Tuple {
            proto: L4Proto::from_ip_proto(self.proto.0)?,
            src: SocketAddr::new(self.src, sport),
            dst: SocketAddr::new(self.dst, dport),
        })
    }
}

impl Seen {
    pub(super) fn tuple(&self) -> Option<Tuple> {
        match self {
            Seen::Ip(packet) => packet.tuple(),
            _ => None,
        }
    }

    /// Source and destination, for what they are on the way; ARP's and NDP's question is a destination.
    pub(super) fn ends(&self) -> Option<(IpAddr, IpAddr)> {
        match self {
            Seen::Ip(packet) => Some((packet.src, packet.ndp_target.unwrap_or(packet.dst))),
            Seen::Arp(sender, target) => Some((*sender, *target)),
            Seen::Other => None,
        }
    }
}

/// Looks at the captured bytes `data` of a frame that had `wire_len` bytes on the wire.
pub(super) fn look(data: &[u8], wire_len: usize) -> Seen {
    let mut l3 = ETHERNET_LEN;
    let Some(mut ethertype) = ethertype_before(data, l3) else {
        return Seen::Other;
    };
    let mut tags = 0;
    while ethertype.is_vlan() && tags < VLAN_COUNT_MAX {
        tags += 1;
        l3 += VLAN_LEN;
        match ethertype_before(data, l3) {
            Some(next) => ethertype = next,
            None => return Seen::Other,
        }
    }
    let Some(network) = data.get(l3..) else {
        return Seen::Other;
    };
    let seen = match ethertype {
        EtherType::IPV4 => ipv4(network, l3, wire_len),
        EtherType::IPV6 => ipv6(network, l3, wire_len),
        EtherType::ARP => ArpView::new_checked(network)
            .ok()
            .map(|arp| Seen::Arp(arp.sender_ip().into(), arp.target_ip().into())),
        _ => None,
    };
    seen.unwrap_or(Seen::Other)
}

fn ethertype_before(data: &[u8], l3: usize) -> Option<EtherType> {
    let bytes = data.get(l3.checked_sub(2)?..l3)?;
    Some(EtherType(u16::from_be_bytes(bytes.try_into().ok()?)))
}

fn ipv4(network: &[u8], l3: usize, wire_len: usize) -> Option<Seen> {
    let view = Ipv4View::new_header_checked(network).ok()?;
    let packet = Packet {
        l3,
        l4: l3 + view.header_len(),
        end: l3 + usize::from(view.total_len()),
        src: view.src().into(),
        dst: view.dst().into(),
        proto: view.proto(),
        fragment: view.is_fragment(),
        at_last_hop: true,
        transport_header: false,
        ports: None,
        tcp_flags: None,
        ndp_target: None,
    };
    finish(network, packet, wire_len)
}

fn ipv6(network: &[u8], l3: usize, wire_len: usize) -> Option<Seen> {
    let view = Ipv6View::new_header_checked(network).ok()?;
    const FIXED_LEN: usize = 40;
    let payload_len = usize::from(view.payload_len());
    let behind = network.get(FIXED_LEN..).unwrap_or_default();
    let upper = ipv6ext::walk(&behind[..behind.len().min(payload_len)], view.next_header()).ok()?;
    let packet = Packet {
        l3,
        l4: l3 + FIXED_LEN + upper.offset,
        end: l3 + FIXED_LEN + payload_len,
        src: view.src().into(),
        dst: view.dst().into(),
        proto: upper.proto,
        fragment: upper.is_fragment(),
        at_last_hop: !upper.routing_segments_left,
        transport_header: false,
        ports: None,
        tcp_flags: None,
        ndp_target: None,
    };
    finish(network, packet, wire_len)
}

/// Adds what the transport header says.
fn finish(network: &[u8], mut packet: Packet, wire_len: usize) -> Option<Seen> {
    if packet.end > wire_len || packet.l4 > packet.end {
        return None;
    }
    let (from, to) = (packet.l4 - packet.l3, packet.end - packet.l3);
    let segment = network.get(from..to.min(network.len())).unwrap_or_default();
    if packet.fragment {
        return Some(Seen::Ip(packet));
    }
    match (packet.proto, packet.src) {
        (IpProto::TCP, _) => {
            if let Ok(tcp) = TcpView::new_checked(segment) {
                packet.ports = Some((tcp.src_port(), tcp.dst_port()));
                packet.tcp_flags = Some(tcp.flags());
                packet.transport_header = true;
            }
        }
        (IpProto::UDP, _) => {
            if let Ok(udp) = UdpView::new_header_checked(segment)
                && usize::from(udp.len()) <= to - from
            {
                packet.ports = Some((udp.src_port(), udp.dst_port()));
                packet.transport_header = true;
            }
        }
        (IpProto::ICMP, IpAddr::V4(_)) => packet.transport_header = segment.len() >= 8,
        (IpProto::ICMPV6, IpAddr::V6(_)) => {
            packet.transport_header = segment.len() >= 8;
            if segment.first() == Some(&icmpv6::msg::NEIGHBOUR_SOLICITATION)
                && let Ok(ndp) = NdpView::new_checked(segment)
            {
                packet.ndp_target = Some(ndp.target().into());
            }
        }
        _ => {}
    }
    Some(Seen::Ip(packet))
}
