//! What is asked, and what others say: ARP and neighbour discovery.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{NeighbourCount, Neighbours, Said};
use crate::announce::framed;
use crate::parse::{ETHERNET_LEN, Kind, Parsed, parse};
use crate::port::{PortId, RxChecksum};
use crate::service::{OwnedAddr, is_unicast};
use crate::time::Instant;
use crate::wire::{
    ArpOperation, ArpRepr, ArpView, EtherType, EthernetView, Icmpv6View, IpProto, Ipv6Repr, Ipv6View,
    MacAddr, NdpRepr, NdpView, Pseudo, arp, ethernet, icmpv6, ipv6, ndp,
};

/// The question for `target`, from an interface with `mac` and `source`: to `known` alone, or to all hosts
/// (RFC 826; RFC 4861, 7.2.2). `None`: of two families.
pub(super) fn question(
    mac: MacAddr,
    source: IpAddr,
    target: IpAddr,
    known: Option<MacAddr>,
) -> Option<Vec<u8>> {
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => Some(arp_request(mac, source, target, known)),
        (IpAddr::V6(source), IpAddr::V6(target)) => Some(solicitation(mac, source, target, known)),
        _ => None,
    }
}

fn arp_request(mac: MacAddr, source: Ipv4Addr, target: Ipv4Addr, known: Option<MacAddr>) -> Vec<u8> {
    let request = ArpRepr {
        operation: ArpOperation::Request,
        sender_mac: mac,
        sender_ip: source,
        target_mac: MacAddr::ZERO,
        target_ip: target,
    };
    let to = known.unwrap_or(MacAddr::BROADCAST);
    let mut frame = framed(to, mac, EtherType::ARP, arp::PACKET_LEN);
    request.emit(&mut ArpView::new_unchecked(&mut frame[ethernet::HEADER_LEN..]));
    frame
}

fn solicitation(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr, known: Option<MacAddr>) -> Vec<u8> {
    let message = NdpRepr::Solicitation {
        target,
        source_mac: Some(mac),
    };
    let len = message.buffer_len();
    let dst = if known.is_some() {
        target
    } else {
        ndp::solicited_node(target)
    };
    let ip = Ipv6Repr {
        src: source,
        dst,
        next_header: IpProto::ICMPV6,
        payload_len: len as u16,
        hop_limit: ndp::HOP_LIMIT,
        traffic_class: 0,
        flow_label: 0,
    };
    let to = known.unwrap_or(MacAddr::from_ipv6_multicast(dst));
    let mut frame = framed(to, mac, EtherType::IPV6, ipv6::HEADER_LEN + len);
    let (header, rest) = frame[ethernet::HEADER_LEN..].split_at_mut(ipv6::HEADER_LEN);
    ip.emit(&mut Ipv6View::new_unchecked(header));
    let mut view = NdpView::new_unchecked(rest);
    message.emit(&mut view);
    view.fill_checksum(&Pseudo::v6(source, dst));
    frame
}

impl Neighbours {
    /// A frame that a worker punted, as it came in on `port`. ARP and neighbour discovery are heard, with all checks
    /// of RFC 4861, 7.1; all else, and what has a VLAN tag, is not for here. It may change what is known of a
    /// neighbour that was asked for, and makes none known.
    pub fn handle_frame(&mut self, now: Instant, port: PortId, frame: &[u8]) {
        let mut parsed = Parsed::NONE;
        if parse(frame, frame.len(), RxChecksum::Unknown, &mut parsed).is_err()
            || usize::from(parsed.l3) != ETHERNET_LEN
        {
            return;
        }
        let heard = match parsed.kind {
            Kind::Arp => self.handle_arp(now, port, frame),
            Kind::Icmp
                if matches!(
                    parsed.flags,
                    icmpv6::msg::NEIGHBOUR_SOLICITATION | icmpv6::msg::NEIGHBOUR_ADVERTISEMENT
                ) =>
            {
                self.handle_ndp(now, port, frame, &parsed)
            }
            _ => return,
        };
        if heard.is_none() {
            self.count(NeighbourCount::Bad);
        }
    }

    /// `None`: the message contradicts itself.
    fn handle_arp(&mut self, now: Instant, port: PortId, frame: &[u8]) -> Option<()> {
        let sender = EthernetView::new_checked(frame).ok()?.src();
        let message = ArpRepr::parse(&ArpView::new_checked(frame.get(ETHERNET_LEN..)?).ok()?).ok()?;
        if sender.is_multicast() {
            return None;
        }
        let said = match message.operation {
            ArpOperation::Reply if self.is_own(port, message.target_ip.into()) => Said::Answer,
            ArpOperation::Request | ArpOperation::Reply => Said::Claim,
            ArpOperation::Other(_) => return None,
        };
        if message.sender_ip.is_unspecified() {
            // A probe (RFC 5227): nobody has the address yet.
            return Some(());
        }
        let addr = IpAddr::V4(message.sender_ip);
        is_unicast(addr).then(|| self.hear(now, (port, addr), Some(message.sender_mac), said, true))
    }

    /// As [`Neighbours::handle_arp`].
    fn handle_ndp(&mut self, now: Instant, port: PortId, frame: &[u8], parsed: &Parsed) -> Option<()> {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (parsed.key.src_addr(), parsed.key.dst_addr()) else {
            // Of ICMP of IPv4, other messages have these numbers.
            return Some(());
        };
        let message = frame.get(usize::from(parsed.l4)..parsed.end as usize)?;
        if !Icmpv6View::new_checked(message)
            .ok()?
            .verify_checksum(&Pseudo::v6(src, dst))
        {
            return None;
        }
        let header = Ipv6Repr {
            src,
            dst,
            next_header: IpProto::ICMPV6,
            payload_len: 0,
            hop_limit: parsed.ttl,
            traffic_class: 0,
            flow_label: 0,
        };
        let sender = EthernetView::new_checked(frame).ok()?.src();
        match NdpRepr::parse(&NdpView::new_checked(message).ok()?, &header).ok()? {
            _ if sender.is_multicast() || !(src.is_unspecified() || is_unicast(src.into())) => None,
            NdpRepr::Advertisement {
                flags,
                target,
                target_mac,
            } if is_unicast(target.into()) => {
                let for_us = self.is_own(port, dst.into());
                let said = if flags.solicited && for_us {
                    Said::Answer
                } else {
                    Said::Claim
                };
                let replaces = flags.override_cached;
                self.hear(now, (port, target.into()), target_mac, said, replaces);
                Some(())
            }
            NdpRepr::Solicitation {
                source_mac: Some(mac),
                ..
            } => {
                self.hear(now, (port, src.into()), Some(mac), Said::Claim, true);
                Some(())
            }
            // It does not say where its sender is.
            NdpRepr::Solicitation { source_mac: None, .. } => Some(()),
            NdpRepr::Advertisement { .. } => None,
        }
    }

    fn is_own(&self, port: PortId, addr: IpAddr) -> bool {
        self.base.owned(addr) == Some(OwnedAddr::Port(port))
    }
}
