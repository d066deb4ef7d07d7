//! All protocols together: round trips, arbitrary bytes, and etherparse as an independent reader of what
//! we emit.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn addr4() -> impl Strategy<Value = Ipv4Addr> {
    any::<[u8; 4]>().prop_map(Ipv4Addr::from)
}

fn addr6() -> impl Strategy<Value = Ipv6Addr> {
    any::<[u8; 16]>().prop_map(Ipv6Addr::from)
}

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr)
}

fn unicast_mac() -> impl Strategy<Value = MacAddr> {
    mac().prop_map(|MacAddr([a, rest @ ..])| {
        let [b, c, d, e, f] = rest;
        MacAddr([a & 0xfe, b, c, d, e, f])
    })
}

fn ethernet_repr() -> impl Strategy<Value = EthernetRepr> {
    (mac(), mac(), 1536u16..).prop_map(|(dst, src, n)| EthernetRepr {
        dst,
        src,
        ethertype: EtherType(n),
    })
}

fn vlan_repr() -> impl Strategy<Value = VlanRepr> {
    (0u8..8, any::<bool>(), 0u16..4095, any::<u16>()).prop_map(|(priority, drop_eligible, vid, n)| VlanRepr {
        priority,
        drop_eligible,
        vid,
        ethertype: EtherType(n),
    })
}

fn arp_repr() -> impl Strategy<Value = ArpRepr> {
    (any::<u16>(), unicast_mac(), addr4(), mac(), addr4()).prop_map(
        |(operation, sender_mac, sender_ip, target_mac, target_ip)| ArpRepr {
            operation: operation.into(),
            sender_mac,
            sender_ip,
            target_mac,
            target_ip,
        },
    )
}

fn ipv4_repr() -> impl Strategy<Value = Ipv4Repr> {
    (
        (
            addr4(),
            addr4(),
            any::<u8>(),
            0u16..=65_515,
            any::<u8>(),
            any::<u8>(),
        ),
        (any::<u16>(), any::<bool>(), any::<bool>(), 0u16..0x2000),
    )
        .prop_map(
            |((src, dst, proto, payload_len, ttl, tos), (ident, df, mf, offset))| Ipv4Repr {
                src,
                dst,
                proto: IpProto(proto),
                payload_len,
                ttl,
                tos,
                ident,
                dont_fragment: df,
                more_fragments: mf,
                fragment_offset: offset * 8,
            },
        )
}

fn ipv6_repr() -> impl Strategy<Value = Ipv6Repr> {
    (
        addr6(),
        addr6(),
        any::<u8>(),
        any::<u16>(),
        any::<u8>(),
        any::<u8>(),
        0u32..0x10_0000,
    )
        .prop_map(
            |(src, dst, next_header, payload_len, hop_limit, traffic_class, flow_label)| Ipv6Repr {
                src,
                dst,
                next_header: IpProto(next_header),
                payload_len,
                hop_limit,
                traffic_class,
                flow_label,
            },
        )
}

fn fragment_repr() -> impl Strategy<Value = Ipv6FragmentRepr> {
    (any::<u8>(), any::<u16>(), any::<bool>(), any::<u32>()).prop_map(|(n, offset, more, ident)| {
        Ipv6FragmentRepr {
            next_header: IpProto(n),
            offset: offset & !7,
            more_fragments: more,
            ident,
        }
    })
}

fn tcp_repr() -> impl Strategy<Value = TcpRepr> {
    (
        (
            1u16..,
            1u16..,
            any::<u32>(),
            any::<u32>(),
            any::<u8>(),
            any::<u16>(),
            any::<u16>(),
        ),
        (
            any::<Option<u16>>(),
            any::<Option<u8>>(),
            any::<bool>(),
            any::<Option<(u32, u32)>>(),
        ),
    )
        .prop_map(
            |((src_port, dst_port, seq, ack, flags, window, urgent), options)| TcpRepr {
                src_port,
                dst_port,
                seq,
                ack,
                flags: TcpFlags(flags),
                window,
                urgent,
                mss: options.0,
                window_scale: options.1,
                sack_permitted: options.2,
                timestamps: options.3,
            },
        )
}

fn udp_repr() -> impl Strategy<Value = UdpRepr> {
    (any::<u16>(), 1u16.., 0u16..=65_527).prop_map(|(src_port, dst_port, payload_len)| UdpRepr {
        src_port,
        dst_port,
        payload_len,
    })
}

fn ndp_repr() -> impl Strategy<Value = NdpRepr> {
    let target = || addr6().prop_filter("no group", |a| !a.is_multicast());
    let link_addr = || proptest::option::of(unicast_mac());
    prop_oneof![
        (target(), link_addr()).prop_map(|(target, source_mac)| NdpRepr::Solicitation { target, source_mac }),
        (any::<[bool; 3]>(), target(), link_addr()).prop_map(|([r, s, o], target, target_mac)| {
            let flags = NeighbourFlags {
                router: r,
                solicited: s,
                override_cached: o,
            };
            NdpRepr::Advertisement {
                flags,
                target,
                target_mac,
            }
        }),
    ]
}

/// A buffer that holds no zeros, so that a field which `emit` forgets shows.
fn dirty(len: usize) -> Vec<u8> {
    std::vec![0xa5; len]
}

/// Frames as our own hands put them together: Ethernet, tags, IP, transport.
fn frame(tags: &[VlanRepr], ethertype: EtherType, l3: &[u8]) -> Vec<u8> {
    let mut types: Vec<EtherType> = match tags.len() {
        0 => std::vec![],
        1 => std::vec![EtherType::VLAN],
        _ => std::vec![EtherType::QINQ, EtherType::VLAN],
    };
    types.push(ethertype);
    let eth = EthernetRepr {
        dst: MacAddr([2, 0, 0, 0, 0, 1]),
        src: MacAddr([2, 0, 0, 0, 0, 2]),
        ethertype: types[0],
    };
    let mut bytes = dirty(eth.buffer_len() + tags.len() * vlan::TAG_LEN);
    eth.emit(&mut EthernetView::new_unchecked(&mut bytes));
    for (i, tag) in tags.iter().enumerate() {
        let at = ethernet::HEADER_LEN + i * vlan::TAG_LEN;
        VlanRepr {
            ethertype: types[i + 1],
            ..*tag
        }
        .emit(&mut VlanView::new_unchecked(&mut bytes[at..]));
    }
    bytes.extend(l3);
    bytes
}

fn ipv4_packet(repr: &Ipv4Repr, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        payload_len: payload.len() as u16,
        more_fragments: false,
        fragment_offset: 0,
        ..*repr
    };
    let mut bytes = dirty(repr.buffer_len());
    repr.emit(&mut Ipv4View::new_unchecked(&mut bytes));
    bytes.extend(payload);
    bytes
}

fn ipv6_packet(repr: &Ipv6Repr, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv6Repr {
        payload_len: payload.len() as u16,
        ..*repr
    };
    let mut bytes = dirty(repr.buffer_len());
    repr.emit(&mut Ipv6View::new_unchecked(&mut bytes));
    bytes.extend(payload);
    bytes
}

fn tcp_segment(repr: &TcpRepr, data: &[u8], pseudo: &Pseudo) -> Vec<u8> {
    let mut bytes = dirty(repr.buffer_len());
    repr.emit(&mut TcpView::new_unchecked(&mut bytes));
    bytes.extend(data);
    TcpView::new_unchecked(&mut bytes).fill_checksum(pseudo);
    bytes
}

fn udp_datagram(repr: &UdpRepr, data: &[u8], pseudo: &Pseudo) -> Vec<u8> {
    let repr = UdpRepr {
        payload_len: data.len() as u16,
        ..*repr
    };
    let mut bytes = dirty(repr.buffer_len());
    repr.emit(&mut UdpView::new_unchecked(&mut bytes));
    bytes.extend(data);
    UdpView::new_unchecked(&mut bytes).fill_checksum(pseudo);
    bytes
}

/// What etherparse finds of IP addresses, protocol, and the checksums it recomputes.
fn check_ip(sliced: &SlicedPacket<'_>, v4: Option<&Ipv4Repr>, v6: Option<&Ipv6Repr>) {
    match sliced.net.as_ref().expect("a network layer") {
        NetSlice::Ipv4(slice) => {
            let (header, want) = (slice.header(), v4.expect("IPv4 was emitted"));
            assert_eq!(
                (header.source_addr(), header.destination_addr()),
                (want.src, want.dst)
            );
            assert_eq!(header.ttl(), want.ttl);
            assert_eq!(header.dcp().value() << 2 | header.ecn().value(), want.tos);
            assert_eq!(header.identification(), want.ident);
            assert_eq!(header.dont_fragment(), want.dont_fragment);
            assert_eq!(
                header.header_checksum(),
                header.to_header().calc_header_checksum()
            );
        }
        NetSlice::Ipv6(slice) => {
            let (header, want) = (slice.header(), v6.expect("IPv6 was emitted"));
            assert_eq!(
                (header.source_addr(), header.destination_addr()),
                (want.src, want.dst)
            );
            assert_eq!(header.hop_limit(), want.hop_limit);
            assert_eq!(header.traffic_class(), want.traffic_class);
            assert_eq!(header.flow_label().value(), want.flow_label);
        }
        NetSlice::Arp(_) => panic!("no ARP was emitted"),
    }
}

fn check_tcp(sliced: &SlicedPacket<'_>, want: &TcpRepr, data: &[u8], pseudo: &Pseudo) {
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
        panic!("no TCP: {sliced:?}")
    };
    assert_eq!(
        (tcp.source_port(), tcp.destination_port()),
        (want.src_port, want.dst_port)
    );
    assert_eq!(
        (tcp.sequence_number(), tcp.acknowledgment_number()),
        (want.seq, want.ack)
    );
    assert_eq!(
        (tcp.window_size(), tcp.urgent_pointer()),
        (want.window, want.urgent)
    );
    let flags = [
        tcp.fin(),
        tcp.syn(),
        tcp.rst(),
        tcp.psh(),
        tcp.ack(),
        tcp.urg(),
        tcp.ece(),
        tcp.cwr(),
    ];
    for (bit, flag) in flags.into_iter().enumerate() {
        assert_eq!(flag, want.flags.0 >> bit & 1 == 1, "flag {bit}");
    }
    let mut options = TcpRepr::default();
    for option in tcp.options_iterator() {
        use etherparse::TcpOptionElement as Element;
        match option.expect("options that read well") {
            Element::Noop => {}
            Element::MaximumSegmentSize(mss) => options.mss = Some(mss),
            Element::WindowScale(shift) => options.window_scale = Some(shift),
            Element::SelectiveAcknowledgementPermitted => options.sack_permitted = true,
            Element::Timestamp(value, echo) => options.timestamps = Some((value, echo)),
            other => panic!("not emitted: {other:?}"),
        }
    }
    assert_eq!(
        (
            options.mss,
            options.window_scale,
            options.sack_permitted,
            options.timestamps
        ),
        (want.mss, want.window_scale, want.sack_permitted, want.timestamps)
    );
    assert_eq!(tcp.payload(), data);
    let checksum = match pseudo {
        Pseudo::V4 { src, dst } => tcp.calc_checksum_ipv4(src.octets(), dst.octets()),
        Pseudo::V6 { src, dst } => tcp.calc_checksum_ipv6(src.octets(), dst.octets()),
    };
    assert_eq!(Ok(tcp.checksum()), checksum);
}

fn check_udp(sliced: &SlicedPacket<'_>, want: &UdpRepr, data: &[u8], pseudo: &Pseudo) {
    let Some(TransportSlice::Udp(udp)) = &sliced.transport else {
        panic!("no UDP: {sliced:?}")
    };
    assert_eq!(
        (udp.source_port(), udp.destination_port()),
        (want.src_port, want.dst_port)
    );
    assert_eq!(usize::from(udp.length()), 8 + data.len());
    assert_eq!(udp.payload(), data);
    let header = udp.to_header();
    let checksum = match pseudo {
        Pseudo::V4 { src, dst } => header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), data),
        Pseudo::V6 { src, dst } => header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), data),
    };
    assert_eq!(Ok(udp.checksum()), checksum);
}

/// Every constructor, accessor and parse on arbitrary bytes. The count says how many views there were.
fn touch(bytes: &[u8], ip: &Ipv6Repr, pseudo: &Pseudo) -> u32 {
    let mut views = 0;
    let mut saw = |_: &dyn core::fmt::Debug| views += 1;
    let _ = VlanTags::walk(bytes);
    if let Ok(v) = EthernetView::new_checked(bytes) {
        saw(&(
            v.dst(),
            v.src(),
            v.ethertype(),
            v.payload(),
            EthernetRepr::parse(&v),
        ));
    }
    if let Ok(v) = VlanView::new_checked(bytes) {
        saw(&(
            v.priority(),
            v.drop_eligible(),
            v.vid(),
            v.ethertype(),
            v.payload(),
            VlanRepr::parse(&v),
        ));
    }
    if let Ok(v) = ArpView::new_checked(bytes) {
        saw(&(
            v.operation(),
            v.sender_mac(),
            v.sender_ip(),
            v.target_mac(),
            v.target_ip(),
            ArpRepr::parse(&v),
        ));
    }
    for v in [Ipv4View::new_checked(bytes), Ipv4View::new_header_checked(bytes)]
        .into_iter()
        .flatten()
    {
        saw(&(
            v.header(),
            v.options(),
            v.payload(),
            v.payload_len(),
            v.verify_checksum(),
            v.is_fragment(),
        ));
        saw(&Ipv4Repr::parse(&v).expect("a checked view"));
        assert!(v.header_len() >= ipv4::HEADER_LEN && v.payload().len() <= v.payload_len());
    }
    for v in [Ipv6View::new_checked(bytes), Ipv6View::new_header_checked(bytes)]
        .into_iter()
        .flatten()
    {
        saw(&(
            v.payload(),
            v.traffic_class(),
            v.flow_label(),
            ipv6ext::walk(v.payload(), v.next_header()),
        ));
        saw(&Ipv6Repr::parse(&v).expect("a checked view"));
    }
    for first in [0, 6, 43, 44, 50, 51, 59, 60] {
        if let Ok(upper) = ipv6ext::walk(bytes, IpProto(first)) {
            assert!(upper.offset <= bytes.len() && usize::from(upper.header_count) <= ipv6ext::HEADERS_MAX);
        }
    }
    if let Ok(v) = Ipv6FragmentView::new_checked(bytes) {
        saw(&Ipv6FragmentRepr::parse(&v));
    }
    if let Ok(v) = TcpView::new_checked(bytes) {
        saw(&(
            v.seq(),
            v.ack(),
            v.flags(),
            v.window(),
            v.checksum(),
            v.urgent(),
            v.options_bytes(),
            v.payload(),
        ));
        assert!(v.options().count() <= 40);
        saw(&(v.verify_checksum(pseudo), TcpRepr::parse(&v)));
    }
    assert!(TcpOptions::new(bytes).count() <= bytes.len());
    for v in [UdpView::new_checked(bytes), UdpView::new_header_checked(bytes)]
        .into_iter()
        .flatten()
    {
        saw(&(
            v.src_port(),
            v.dst_port(),
            v.len(),
            v.checksum(),
            v.payload(),
            v.verify_checksum(pseudo),
        ));
        saw(&UdpRepr::parse(&v));
    }
    if let Ok(v) = Icmpv4View::new_checked(bytes) {
        saw(&(
            v.class(),
            v.code(),
            v.checksum(),
            v.echo_ident(),
            v.echo_seq(),
            v.rest(),
            v.payload(),
        ));
        saw(&(v.verify_checksum(), Icmpv4Repr::parse(&v)));
    }
    if let Ok(v) = Icmpv6View::new_checked(bytes) {
        saw(&(
            v.class(),
            v.code(),
            v.checksum(),
            v.echo_ident(),
            v.echo_seq(),
            v.rest(),
            v.payload(),
        ));
        saw(&(v.verify_checksum(pseudo), Icmpv6Repr::parse(&v)));
    }
    if let Ok(v) = NdpView::new_checked(bytes) {
        saw(&(v.flags(), v.target(), v.options_bytes(), NdpRepr::parse(&v, ip)));
    }
    views
}

/// Setters may leave any nonsense in a length field; what reads it afterwards must stay in the buffer.
fn touch_mut(bytes: &mut [u8], number: u16) {
    if let Ok(mut v) = Ipv4View::new_checked(&mut *bytes) {
        v.set_total_len(number);
        v.set_header_len(usize::from(number));
        assert!(v.payload_mut().len() <= usize::from(number));
        let _ = (v.header().len(), v.options().len(), v.payload_len());
    }
    if let Ok(mut v) = Ipv6View::new_checked(&mut *bytes) {
        v.set_payload_len(number);
        assert!(v.payload_mut().len() <= usize::from(number));
    }
    if let Ok(mut v) = UdpView::new_checked(&mut *bytes) {
        v.set_len(number);
        assert!(v.payload_mut().len() <= usize::from(number));
    }
    if let Ok(mut v) = TcpView::new_checked(&mut *bytes) {
        v.set_header_len(usize::from(number));
        let _ = (v.options_bytes_mut().len(), v.payload_mut().len());
    }
}

proptest! {
    #[test]
    fn ethernet_round_trip(repr in ethernet_repr()) {
        let mut bytes = dirty(repr.buffer_len());
        repr.emit(&mut EthernetView::new_unchecked(&mut bytes));
        prop_assert_eq!(EthernetRepr::parse(&EthernetView::new_checked(&bytes).unwrap()), Ok(repr));
    }

    #[test]
    fn vlan_round_trip(repr in vlan_repr()) {
        let mut bytes = dirty(repr.buffer_len());
        repr.emit(&mut VlanView::new_unchecked(&mut bytes));
        prop_assert_eq!(VlanRepr::parse(&VlanView::new_checked(&bytes).unwrap()), Ok(repr));
    }

    #[test]
    fn arp_round_trip(repr in arp_repr()) {
        let mut bytes = dirty(repr.buffer_len());
        repr.emit(&mut ArpView::new_unchecked(&mut bytes));
        prop_assert_eq!(ArpRepr::parse(&ArpView::new_checked(&bytes).unwrap()), Ok(repr));
    }

    #[test]
    fn ipv4_round_trip(repr in ipv4_repr()) {
        let mut bytes = dirty(repr.buffer_len() + usize::from(repr.payload_len));
        repr.emit(&mut Ipv4View::new_unchecked(&mut bytes));
        let view = Ipv4View::new_checked(&bytes).unwrap();
        prop_assert_eq!(Ipv4Repr::parse(&view), Ok(repr));
        prop_assert!(view.verify_checksum());
    }

    #[test]
    fn ipv6_round_trip(repr in ipv6_repr()) {
        let mut bytes = dirty(repr.buffer_len() + usize::from(repr.payload_len));
        repr.emit(&mut Ipv6View::new_unchecked(&mut bytes));
        prop_assert_eq!(Ipv6Repr::parse(&Ipv6View::new_checked(&bytes).unwrap()), Ok(repr));
    }

    #[test]
    fn fragment_round_trip(repr in fragment_repr()) {
        let mut bytes = dirty(repr.buffer_len());
        repr.emit(&mut Ipv6FragmentView::new_unchecked(&mut bytes));
        let view = Ipv6FragmentView::new_checked(&bytes).unwrap();
        prop_assert_eq!(Ipv6FragmentRepr::parse(&view), Ok(repr));
    }

    #[test]
    fn tcp_round_trip(repr in tcp_repr(), data in vec(any::<u8>(), 0..50), src in addr6(), dst in addr6()) {
        let pseudo = Pseudo::v6(src, dst);
        let bytes = tcp_segment(&repr, &data, &pseudo);
        let view = TcpView::new_checked(&bytes).unwrap();
        prop_assert_eq!(TcpRepr::parse(&view), Ok(repr));
        prop_assert_eq!(view.payload(), data);
        prop_assert!(view.verify_checksum(&pseudo));
    }

    #[test]
    fn udp_round_trip(repr in udp_repr(), src in addr4(), dst in addr4()) {
        let pseudo = Pseudo::v4(src, dst);
        let data = dirty(usize::from(repr.payload_len));
        let bytes = udp_datagram(&repr, &data, &pseudo);
        let view = UdpView::new_checked(&bytes).unwrap();
        prop_assert_eq!(UdpRepr::parse(&view), Ok(repr));
        prop_assert_eq!(view.payload(), data);
        prop_assert!(view.checksum() != 0 && view.verify_checksum(&pseudo));
    }

    #[test]
    fn icmp_round_trips(
        kind in 0usize..7, ident in any::<u16>(), seq in any::<u16>(), code in any::<u8>(), rest in any::<u32>(),
        body in vec(any::<u8>(), 0..80), src in addr6(), dst in addr6(),
    ) {
        let body = &body[..];
        let repr = match kind {
            0 => Icmpv4Repr::EchoRequest { ident, seq, data: body },
            1 => Icmpv4Repr::EchoReply { ident, seq, data: body },
            n => Icmpv4Repr::Error { msg_type: [3, 4, 5, 11, 12][n - 2], code, rest, packet: body },
        };
        let mut bytes = dirty(repr.buffer_len());
        repr.emit(&mut Icmpv4View::new_unchecked(&mut bytes));
        let view = Icmpv4View::new_checked(&bytes).unwrap();
        prop_assert_eq!(Icmpv4Repr::parse(&view), Ok(repr));
        prop_assert!(view.verify_checksum());

        let repr = match kind {
            0 => Icmpv6Repr::EchoRequest { ident, seq, data: body },
            1 => Icmpv6Repr::EchoReply { ident, seq, data: body },
            n => Icmpv6Repr::Error { msg_type: [1, 2, 3, 4, 1][n - 2], code, rest, packet: body },
        };
        let pseudo = Pseudo::v6(src, dst);
        let mut bytes = dirty(repr.buffer_len());
        let mut view = Icmpv6View::new_unchecked(&mut bytes);
        repr.emit(&mut view);
        view.fill_checksum(&pseudo);
        let view = Icmpv6View::new_checked(&bytes).unwrap();
        prop_assert_eq!(Icmpv6Repr::parse(&view), Ok(repr));
        prop_assert!(view.verify_checksum(&pseudo));

        // An independent reader of both.
        let six = etherparse::Icmpv6Slice::from_slice(&bytes).unwrap();
        prop_assert!(six.is_checksum_valid(src.octets(), dst.octets()));
        prop_assert_eq!((six.type_u8(), six.code_u8()), (view.msg_type(), view.code()));
        prop_assert_eq!(u32::from_be_bytes(six.bytes5to8()), view.rest());
    }

    #[test]
    fn icmpv4_read_by_etherparse(ident in any::<u16>(), seq in any::<u16>(), data in vec(any::<u8>(), 0..80)) {
        let repr = Icmpv4Repr::EchoReply { ident, seq, data: &data };
        let mut bytes = dirty(repr.buffer_len());
        repr.emit(&mut Icmpv4View::new_unchecked(&mut bytes));
        let slice = etherparse::Icmpv4Slice::from_slice(&bytes).unwrap();
        let etherparse::Icmpv4Type::EchoReply(echo) = slice.icmp_type() else { panic!("no echo reply") };
        prop_assert_eq!((echo.id, echo.seq), (ident, seq));
        prop_assert_eq!(slice.payload(), &data[..]);
        prop_assert_eq!(slice.checksum(), slice.icmp_type().calc_checksum(&data));
    }

    #[test]
    fn ndp_round_trip(repr in ndp_repr(), src in addr6(), dst in addr6()) {
        // The rules that look at the IP header are tested in ndp.rs.
        prop_assume!(!src.is_unspecified() && !dst.is_multicast());
        let ip = Ipv6Repr {
            src, dst, next_header: IpProto::ICMPV6, payload_len: 0, hop_limit: ndp::HOP_LIMIT, traffic_class: 0, flow_label: 0,
        };
        let mut bytes = dirty(repr.buffer_len());
        let mut view = NdpView::new_unchecked(&mut bytes);
        repr.emit(&mut view);
        view.fill_checksum(&Pseudo::v6(src, dst));
        prop_assert_eq!(NdpRepr::parse(&NdpView::new_checked(&bytes).unwrap(), &ip), Ok(repr));
        let slice = etherparse::Icmpv6Slice::from_slice(&bytes).unwrap();
        prop_assert!(slice.is_checksum_valid(src.octets(), dst.octets()));
    }

    #[test]
    fn arp_read_by_etherparse(repr in arp_repr()) {
        let mut bytes = dirty(repr.buffer_len());
        repr.emit(&mut ArpView::new_unchecked(&mut bytes));
        let frame = frame(&[], EtherType::ARP, &bytes);
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Arp(arp)) = sliced.net else { panic!("no ARP") };
        let arp = arp.to_packet().try_eth_ipv4().unwrap();
        prop_assert_eq!(arp.operation.0, u16::from(repr.operation));
        prop_assert_eq!((arp.sender_mac, arp.target_mac), (repr.sender_mac.0, repr.target_mac.0));
        prop_assert_eq!((arp.sender_ipv4, arp.target_ipv4), (repr.sender_ip.octets(), repr.target_ip.octets()));
    }

    /// Frames of both families, both transports and zero to two tags.
    #[test]
    fn frames_read_by_etherparse(
        tags in vec(vlan_repr(), 0..=2), v4 in ipv4_repr(), v6 in ipv6_repr(), tcp in tcp_repr(), udp in udp_repr(),
        data in vec(any::<u8>(), 0..100), padding in 0usize..7,
    ) {
        for (family, proto) in [(4, IpProto::TCP), (4, IpProto::UDP), (6, IpProto::TCP), (6, IpProto::UDP)] {
            let (v4, v6) = (Ipv4Repr { proto, ..v4 }, Ipv6Repr { next_header: proto, ..v6 });
            let pseudo = if family == 4 { Pseudo::v4(v4.src, v4.dst) } else { Pseudo::v6(v6.src, v6.dst) };
            let l4 = match proto {
                IpProto::TCP => tcp_segment(&tcp, &data, &pseudo),
                _ => udp_datagram(&udp, &data, &pseudo),
            };
            let mut bytes = match family {
                4 => frame(&tags, EtherType::IPV4, &ipv4_packet(&v4, &l4)),
                _ => frame(&tags, EtherType::IPV6, &ipv6_packet(&v6, &l4)),
            };
            bytes.extend(dirty(padding));

            let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
            let vids: Vec<u16> = sliced.vlan_ids().iter().map(|v| v.value()).collect();
            prop_assert_eq!(&vids, &tags.iter().map(|t| t.vid).collect::<Vec<_>>());
            check_ip(&sliced, (family == 4).then_some(&v4), (family == 6).then_some(&v6));
            match proto {
                IpProto::TCP => check_tcp(&sliced, &tcp, &data, &pseudo),
                _ => check_udp(&sliced, &udp, &data, &pseudo),
            }

            // And our own way down the same frame.
            let walked = VlanTags::walk(&bytes).unwrap();
            prop_assert_eq!(usize::from(walked.count), tags.len());
            prop_assert_eq!(&walked.vids[..tags.len()], &vids[..]);
            let l3 = &bytes[walked.offset..];
            let payload = match walked.ethertype {
                EtherType::IPV4 => Ipv4View::new_checked(l3).unwrap().payload().to_vec(),
                _ => Ipv6View::new_checked(l3).unwrap().payload().to_vec(),
            };
            prop_assert_eq!(payload, l4);
        }
    }

    /// A NAT64 rewrite by delta alone is what etherparse computes from nothing.
    #[test]
    fn rewritten_frames_read_by_etherparse(v4 in ipv4_repr(), v6 in ipv6_repr(), tcp in tcp_repr(), lport in 1u16.., data in vec(any::<u8>(), 0..60)) {
        let (old, new) = (Pseudo::v6(v6.src, v6.dst), Pseudo::v4(v4.src, v4.dst));
        let mut l4 = tcp_segment(&tcp, &data, &old);
        let mut view = TcpView::new_checked(&mut l4).unwrap();
        let delta = Delta::ZERO.replace_pseudo(&old, &new).replace_u16(tcp.src_port, lport);
        view.set_src_port(lport);
        view.set_checksum(delta.apply(view.checksum()));
        let v4 = Ipv4Repr { proto: IpProto::TCP, ..v4 };
        let bytes = frame(&[], EtherType::IPV4, &ipv4_packet(&v4, &l4));
        let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
        check_ip(&sliced, Some(&v4), None);
        check_tcp(&sliced, &TcpRepr { src_port: lport, ..tcp }, &data, &new);
    }

    /// Chains in the order that RFC 8200 recommends: the walk ends where etherparse's does.
    #[test]
    fn extension_headers_read_by_etherparse(
        v6 in ipv6_repr(), present in any::<[bool; 5]>(), units in proptest::array::uniform5(0u8..4), udp in udp_repr(),
    ) {
        const ORDER: [IpProto; 5] =
            [IpProto::HOP_BY_HOP, IpProto::IPV6_DEST_OPTIONS, IpProto::IPV6_ROUTING, IpProto::IPV6_FRAGMENT, IpProto::AH];
        let used: Vec<usize> = (0..5).filter(|&i| present[i]).collect();
        let mut chain = Vec::new();
        for (n, &i) in used.iter().enumerate() {
            let next = used.get(n + 1).map_or(IpProto::UDP, |&j| ORDER[j]);
            let (len_field, len) = match ORDER[i] {
                IpProto::IPV6_FRAGMENT => (0, 8),
                IpProto::AH => (units[i] + 1, (usize::from(units[i]) + 3) * 4),
                _ => (units[i], (usize::from(units[i]) + 1) * 8),
            };
            let at = chain.len();
            chain.resize(at + len, 0);
            chain[at] = next.0;
            chain[at + 1] = len_field;
        }
        let first = used.first().map_or(IpProto::UDP, |&i| ORDER[i]);
        let l4 = udp_datagram(&udp, b"data", &Pseudo::v6(v6.src, v6.dst));
        let payload = [&chain[..], &l4].concat();
        let v6 = Ipv6Repr { next_header: first, ..v6 };
        let packet = ipv6_packet(&v6, &payload);

        let upper = ipv6ext::walk(Ipv6View::new_checked(&packet).unwrap().payload(), first).unwrap();
        prop_assert_eq!((upper.proto, upper.offset), (IpProto::UDP, chain.len()));
        prop_assert_eq!(usize::from(upper.header_count), used.len());
        prop_assert_eq!(upper.fragment.is_some(), present[3]);
        let slice = etherparse::Ipv6Slice::from_slice(&packet).unwrap();
        prop_assert_eq!(slice.payload().ip_number.0, upper.proto.0);
        prop_assert_eq!(slice.payload().payload, &payload[upper.offset..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in vec(any::<u8>(), 0..120), first in prop_oneof![Just(0x45u8), Just(0x46), Just(0x4f), Just(0x60), Just(135), Just(136), any::<u8>()],
        second in prop_oneof![Just(0u8), Just(1), any::<u8>()], number in any::<u16>(), ip in ipv6_repr(),
    ) {
        for (byte, value) in bytes.iter_mut().zip([first, second]) {
            *byte = value;
        }
        let views = touch(&bytes, &ip, &Pseudo::v6(ip.src, ip.dst));
        prop_assert!(bytes.len() < 14 || views >= 2, "Ethernet and VLAN views always fit");
        touch_mut(&mut bytes, number);
    }

    /// Whole packets with a few bytes broken: deeper in than arbitrary bytes get.
    #[test]
    fn broken_packets_never_panic(
        v6 in ipv6_repr(), v4 in ipv4_repr(), tcp in tcp_repr(), ndp in ndp_repr(), udp in udp_repr(),
        which in 0usize..5, breaks in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(), number in any::<u16>(),
    ) {
        let ip = Ipv6Repr { hop_limit: ndp::HOP_LIMIT, ..v6 };
        let pseudo = Pseudo::v6(ip.src, ip.dst);
        let segment = tcp_segment(&tcp, b"some data", &pseudo);
        let mut bytes = match which {
            0 => segment,
            1 => ipv4_packet(&v4, &segment),
            2 => ipv6_packet(&ip, &segment),
            3 => udp_datagram(&udp, b"some data", &pseudo),
            _ => {
                let mut bytes = dirty(ndp.buffer_len());
                ndp.emit(&mut NdpView::new_unchecked(&mut bytes));
                bytes
            }
        };
        prop_assert!(touch(&bytes, &ip, &pseudo) > 0);
        for (at, value) in breaks {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        touch(&bytes, &ip, &pseudo);
        touch_mut(&mut bytes, number);
    }
}
