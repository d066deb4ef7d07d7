//! Frames that tell a link where an address is now: gratuitous ARP and unsolicited neighbour advertisements.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::{
    ArpOperation, ArpRepr, ArpView, EtherType, EthernetRepr, EthernetView, IpProto, Ipv6Repr, Ipv6View,
    MacAddr, NdpRepr, NdpView, NeighbourFlags, Pseudo, arp, ethernet, ipv6, ndp,
};

/// ff02::1.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A frame that says that `addr` is at `mac`: [`gratuitous_arp`], or [`unsolicited_na`] with `router`.
pub fn announcement(mac: MacAddr, addr: IpAddr, router: bool) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => gratuitous_arp(mac, addr),
        IpAddr::V6(addr) => unsolicited_na(mac, addr, router),
    }
}

/// A broadcast ARP request of `addr` for itself (RFC 5227, section 3). Its target's hardware address is `mac`
/// too, as RFC 9568 wants it (section 6.4.2, erratum 7949); receivers of a request do not look at it.
pub fn gratuitous_arp(mac: MacAddr, addr: Ipv4Addr) -> Vec<u8> {
    let message = ArpRepr {
        operation: ArpOperation::Request,
        sender_mac: mac,
        sender_ip: addr,
        target_mac: mac,
        target_ip: addr,
    };
    let mut frame = framed(MacAddr::BROADCAST, mac, EtherType::ARP, arp::PACKET_LEN);
    message.emit(&mut ArpView::new_unchecked(&mut frame[ethernet::HEADER_LEN..]));
    frame
}

/// A neighbour advertisement of `addr` to all nodes that replaces what they know (RFC 4861, section 7.2.6).
/// `router`: whether the sender is to be taken for a router.
pub fn unsolicited_na(mac: MacAddr, addr: Ipv6Addr, router: bool) -> Vec<u8> {
    let message = NdpRepr::Advertisement {
        flags: NeighbourFlags {
            router,
            solicited: false,
            override_cached: true,
        },
        target: addr,
        target_mac: Some(mac),
    };
    let len = message.buffer_len();
    let ip = Ipv6Repr {
        src: addr,
        dst: ALL_NODES,
        next_header: IpProto::ICMPV6,
        payload_len: len as u16,
        hop_limit: ndp::HOP_LIMIT,
        traffic_class: 0,
        flow_label: 0,
    };
    let dst = MacAddr::from_ipv6_multicast(ALL_NODES);
    let mut frame = framed(dst, mac, EtherType::IPV6, ipv6::HEADER_LEN + len);
    let (header, rest) = frame[ethernet::HEADER_LEN..].split_at_mut(ipv6::HEADER_LEN);
    ip.emit(&mut Ipv6View::new_unchecked(header));
    let mut view = NdpView::new_unchecked(rest);
    message.emit(&mut view);
    view.fill_checksum(&Pseudo::v6(addr, ALL_NODES));
    frame
}

/// A frame with its link-layer header, and `len` zero bytes behind it.
pub(crate) fn framed(dst: MacAddr, src: MacAddr, ethertype: EtherType, len: usize) -> Vec<u8> {
    let mut frame = alloc::vec![0; ethernet::HEADER_LEN + len];
    let header = EthernetRepr { dst, src, ethertype };
    header.emit(&mut EthernetView::new_unchecked(&mut frame));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 51]);

    #[test]
    fn arp_bytes() {
        let frame = announcement(MAC, IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), true);
        let want: [u8; 42] = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x5e, 0, 1, 51, 0x08, 0x06, // to all
            0, 1, 8, 0, 6, 4, 0, 1, // request
            0, 0, 0x5e, 0, 1, 51, 198, 51, 100, 1, // sender
            0, 0, 0x5e, 0, 1, 51, 198, 51, 100, 1, // target
        ];
        assert_eq!(frame, want);
    }

    #[test]
    fn na_bytes() {
        let mac = MacAddr([0, 0, 0x5e, 0, 2, 51]);
        let addr: Ipv6Addr = "2001:db8:1::1".parse().expect("address");
        for (router, flags) in [(false, 0x20), (true, 0xa0)] {
            let frame = announcement(mac, IpAddr::V6(addr), router);
            let mut want = std::vec![
                0x33, 0x33, 0, 0, 0, 1, 0, 0, 0x5e, 0, 2, 51, 0x86, 0xdd, //
                0x60, 0, 0, 0, 0, 32, 58, 255, //
            ];
            want.extend(addr.octets());
            want.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            want.extend([136, 0, 0, 0, flags, 0, 0, 0]);
            want.extend(addr.octets());
            want.extend([2, 1, 0, 0, 0x5e, 0, 2, 51]);
            let icmp = etherparse::Icmpv6Slice::from_slice(&frame[54..]).expect("a message");
            assert!(icmp.is_checksum_valid(addr.octets(), ALL_NODES.octets()));
            want[56..58].copy_from_slice(&frame[56..58]);
            assert_eq!(frame, want);
        }
    }
}
