//! FullNAT: whole connections over every pair of families.

use evenkeel_core::proto::ConnState;
use evenkeel_core::stats::DropReason;
use evenkeel_core::tuple::L4Proto;

use crate::packet::{ACK, FIN, PSH, QINQ, RST, SYN, URG, VLAN};
use crate::story::{
    Flow, KINDS, Kind, Lab, PORT_MACS, Want, hop, ip, kinds_and_protos, packet, server_addr, spec, syn,
};

/// Sends `flags` of the client, then of the real server, and so on; each goes through and moves counters.
#[track_caller]
fn talk(lab: &mut Lab, flow: &Flow, segments: &[(char, u8, &str)]) {
    for &(who, flags, moved) in segments {
        match who {
            'c' => lab.check(&flow.inbound().flags(flags), Want::Inbound(flow), moved),
            _ => lab.check(&flow.outbound().flags(flags), Want::Outbound(flow), moved),
        };
    }
}

#[test]
fn tcp_closed_by_the_client() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        talk(
            &mut lab,
            &flow,
            &[
                ('c', PSH | ACK, ""),
                ('s', ACK, ""),
                ('s', PSH | ACK, ""),
                ('c', ACK, ""),
                ('c', FIN | ACK, "ESTABLISHED-1 CLOSE_WAIT+1"),
                ('s', ACK, ""),
                ('s', FIN | ACK, "CLOSE_WAIT-1 TIME_WAIT+1 closed+1"),
                ('c', ACK, ""),
            ],
        );
        lab.audit();
    }
}

#[test]
fn tcp_closed_by_the_server() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        talk(
            &mut lab,
            &flow,
            &[
                ('s', PSH | ACK, ""),
                ('s', FIN | ACK, "ESTABLISHED-1 FIN_WAIT+1"),
                ('c', ACK, ""),
                ('c', FIN | ACK, "FIN_WAIT-1 TIME_WAIT+1 closed+1"),
                ('s', ACK, ""),
            ],
        );
        lab.audit();
    }
}

/// A half-closed connection carries data the other way for as long as it likes.
#[test]
fn tcp_half_closed() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        talk(
            &mut lab,
            &flow,
            &[('c', FIN | ACK, "ESTABLISHED-1 CLOSE_WAIT+1"), ('s', ACK, "")],
        );
        for _ in 0..20 {
            lab.pass(core::time::Duration::from_secs(5));
            lab.expire();
            talk(&mut lab, &flow, &[('s', PSH | ACK, ""), ('c', ACK, "")]);
        }
        talk(
            &mut lab,
            &flow,
            &[
                ('s', FIN | ACK, "CLOSE_WAIT-1 TIME_WAIT+1 closed+1"),
                ('c', ACK, ""),
            ],
        );
    }
}

#[test]
fn tcp_reset_by_either_side() {
    for kind in KINDS {
        for (who, flags) in [('c', RST), ('c', RST | ACK), ('s', RST), ('s', RST | ACK)] {
            let mut lab = Lab::new();
            let flow = lab.establish(kind, 0);
            talk(
                &mut lab,
                &flow,
                &[
                    (who, flags, "ESTABLISHED-1 CLOSE+1 closed+1"),
                    ('c', RST, ""),
                    ('s', ACK, ""),
                ],
            );
        }
    }
}

#[test]
fn tcp_refused() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.open(kind, L4Proto::Tcp, 0);
        talk(
            &mut lab,
            &flow,
            &[('s', RST | ACK, "SYN_RECV-1 CLOSE+1 closed+1")],
        );
        assert_eq!(lab.counters().established, 0);
    }
}

#[test]
fn a_syn_sent_again_goes_to_the_same_server() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.open(kind, L4Proto::Tcp, 0);
        let again = syn(flow.client, flow.vip);
        for _ in 0..3 {
            lab.check(&again, Want::Inbound(&flow), "");
        }
        // And after the answer, which was lost behind us.
        talk(&mut lab, &flow, &[('s', SYN | ACK, "")]);
        lab.check(&again, Want::Inbound(&flow), "");
    }
}

/// A client that uses its port again opens a new connection where the old one is over.
#[test]
fn syn_on_time_wait_begins_a_new_connection() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        talk(
            &mut lab,
            &flow,
            &[
                ('c', FIN | ACK, "ESTABLISHED-1 CLOSE_WAIT+1"),
                ('s', FIN | ACK, "CLOSE_WAIT-1 TIME_WAIT+1 closed+1"),
            ],
        );
        begins_anew(&mut lab, kind, &flow, "TIME_WAIT-1");
    }
}

#[test]
fn syn_on_close_begins_a_new_connection() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        talk(&mut lab, &flow, &[('s', RST, "ESTABLISHED-1 CLOSE+1 closed+1")]);
        begins_anew(&mut lab, kind, &flow, "CLOSE-1");
    }
}

#[track_caller]
fn begins_anew(lab: &mut Lab, kind: Kind, old: &Flow, left: &str) {
    let out = lab.check(
        &syn(old.client, old.vip),
        Want::Opens(kind.service(L4Proto::Tcp)),
        &format!("removed+1 {left} opened+1 SYN_RECV+1"),
    );
    let out = out.packet.expect("forwarded");
    let new = Flow {
        server: out.dst,
        local: out.src,
        ..*old
    };
    assert_ne!(new.local, old.local, "another local port");
    assert_ne!(new.server, old.server, "round robin went on");
    // What the old connection's server still sends goes nowhere.
    lab.check(&old.outbound(), Want::Drop(DropReason::NoConn), "");
    talk(
        lab,
        &new,
        &[
            ('s', SYN | ACK, ""),
            ('c', ACK, "SYN_RECV-1 ESTABLISHED+1 established+1"),
            ('s', FIN | ACK, "ESTABLISHED-1 FIN_WAIT+1"),
        ],
    );
    lab.audit();
}

/// A SYN-ACK or a SYN of the real server does not begin anything anew.
#[test]
fn syn_on_time_wait_from_the_server_does_not() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        talk(&mut lab, &flow, &[('s', RST, "ESTABLISHED-1 CLOSE+1 closed+1")]);
        lab.check(
            &flow.outbound().flags(SYN),
            Want::Outbound(&flow),
            "CLOSE-1 SYN_SENT+1",
        );
        assert_eq!(lab.counters().opened, 1);
    }
}

/// All 64 combinations of six flags, where no conn is and where one is.
#[test]
fn only_a_pure_syn_opens_a_connection() {
    for kind in KINDS {
        for flags in 0..64 {
            let four = flags & (SYN | ACK | RST | FIN);
            let bad = four == 0 || (four & SYN != 0 && four & (FIN | RST) != 0);
            let mut lab = Lab::new();
            let packet = syn(kind.client(1), kind.vip(L4Proto::Tcp)).flags(flags);
            if bad {
                lab.check(&packet, Want::Drop(DropReason::BadTcpFlags), "");
            } else if four == SYN {
                lab.open_at(kind.service(L4Proto::Tcp), &packet);
            } else {
                lab.check(&packet, Want::Drop(DropReason::NoConn), "");
            }

            let flow = lab.establish(kind, 2);
            let state = lab.state(&flow);
            for inbound in [true, false] {
                let packet = if inbound { flow.inbound() } else { flow.outbound() }.flags(flags);
                if bad {
                    lab.check(&packet, Want::Drop(DropReason::BadTcpFlags), "");
                    assert_eq!(lab.state(&flow), state, "bad flags move no state");
                } else if inbound && four & (RST | FIN) == 0 {
                    lab.check(&packet, Want::Inbound(&flow), "");
                }
            }
            lab.audit();
        }
    }
}

/// Flags that do not count: ECN's, PSH, URG, and the reserved ones.
#[test]
fn a_pure_syn_may_ask_for_ecn() {
    for kind in KINDS {
        let mut lab = Lab::new();
        for (n, more) in [0xc0, PSH, URG, 0xc0 | PSH | URG].into_iter().enumerate() {
            let packet = syn(kind.client(n as u32), kind.vip(L4Proto::Tcp)).flags(SYN | more);
            lab.open_at(kind.service(L4Proto::Tcp), &packet);
        }
    }
}

#[test]
fn udp_is_one_way_until_answered() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.open(kind, L4Proto::Udp, 0);
        for _ in 0..3 {
            lab.check(&flow.inbound(), Want::Inbound(&flow), "");
        }
        assert_eq!(lab.state(&flow), Some(ConnState::UdpOneWay));
        lab.check(
            &flow.outbound(),
            Want::Outbound(&flow),
            "UDP_ONE_WAY-1 UDP_NORMAL+1 established+1",
        );
        lab.check(&flow.outbound(), Want::Outbound(&flow), "");
        lab.check(&flow.inbound(), Want::Inbound(&flow), "");
        assert_eq!(lab.state(&flow), Some(ConnState::UdpNormal));
        lab.audit();
    }
}

#[test]
fn simultaneous_clients_do_not_mix() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        let flows: Vec<_> = (0..100).map(|n| lab.open(kind, proto, n)).collect();
        let mut ends: Vec<_> = flows.iter().map(|f| (f.server, f.local)).collect();
        ends.sort_unstable();
        ends.dedup();
        assert_eq!(
            ends.len(),
            100,
            "every connection has an outbound tuple of its own"
        );
        for flow in flows.iter().rev() {
            let flags = |p: crate::packet::Packet| match proto {
                L4Proto::Tcp => p.flags(SYN | ACK),
                L4Proto::Udp => p,
            };
            let moved = match proto {
                L4Proto::Tcp => "",
                L4Proto::Udp => "UDP_ONE_WAY-1 UDP_NORMAL+1 established+1",
            };
            lab.check(&flags(flow.outbound()), Want::Outbound(flow), moved);
        }
        lab.audit();
    }
}

/// Ends of connections are the same numbers in TCP and UDP, and do not meet.
#[test]
fn tcp_and_udp_have_spaces_of_their_own() {
    for kind in KINDS {
        let mut lab = Lab::with(|c| {
            for s in &mut c.spec.services {
                if s.id == kind.service(L4Proto::Udp) {
                    s.port = kind.vip(L4Proto::Tcp).port();
                }
            }
        });
        let flow = lab.open(kind, L4Proto::Tcp, 0);
        let datagram = packet(L4Proto::Udp, flow.client, flow.vip);
        let udp = lab.open_at(kind.service(L4Proto::Udp), &datagram);
        assert_eq!((udp.client, udp.vip), (flow.client, flow.vip));
        // The reply of one protocol is not that of the other.
        let foreign = packet(L4Proto::Udp, flow.server, flow.local);
        if (udp.server, udp.local) != (flow.server, flow.local) {
            lab.check(&foreign, Want::Drop(DropReason::NoConn), "");
        }
        lab.check(
            &udp.outbound(),
            Want::Outbound(&udp),
            "UDP_ONE_WAY-1 UDP_NORMAL+1 established+1",
        );
    }
}

#[test]
fn vlan_tags_are_kept_across_families_too() {
    for (kind, proto) in kinds_and_protos() {
        for tags in [
            vec![(VLAN, 0x0064)],
            vec![(QINQ, 0xa00a), (VLAN, 0x6014)],
            vec![(0x9100, 1), (QINQ, 2), (VLAN, 3)],
        ] {
            let mut lab = Lab::new();
            let packet =
                crate::story::first(proto, kind.client(0), kind.vip(proto)).with(|p| p.tags = tags.clone());
            let flow = lab.open_at(kind.service(proto), &packet);
            lab.check(
                &flow.inbound().with(|p| p.tags = tags.clone()),
                Want::Inbound(&flow),
                if proto == L4Proto::Tcp {
                    "SYN_RECV-1 ESTABLISHED+1 established+1"
                } else {
                    ""
                },
            );
            let moved = if proto == L4Proto::Tcp {
                ""
            } else {
                "UDP_ONE_WAY-1 UDP_NORMAL+1 established+1"
            };
            let back = lab.check(
                &flow.outbound().with(|p| p.tags = tags.clone()),
                Want::Outbound(&flow),
                moved,
            );
            assert_eq!(back.packet.expect("forwarded").tags, tags);
        }
    }
}

#[test]
fn options_and_extension_headers_are_kept_within_a_family() {
    for proto in [L4Proto::Tcp, L4Proto::Udp] {
        let mut lab = Lab::new();
        let flow = lab.open(Kind::V4, proto, 0);
        // Router alert, and no-operations around it (RFC 2113).
        let moved = if proto == L4Proto::Tcp {
            "SYN_RECV-1 ESTABLISHED+1 established+1"
        } else {
            ""
        };
        let with_options = flow
            .inbound()
            .with(|p| p.ip_options = vec![1, 1, 1, 1, 148, 4, 0, 0]);
        lab.check(&with_options, Want::Inbound(&flow), moved);
        let flow = lab.open(Kind::V6, proto, 0);
        // Hop-by-hop options and destination options of padding, and an atomic fragment (RFC 6946).
        let with_extensions = flow.inbound().with(|p| {
            p.extensions = vec![
                (0, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                (44, vec![0, 0, 0, 0, 1, 2, 3, 4]),
                (60, [vec![0, 1, 1, 12], vec![0; 12]].concat()),
            ];
        });
        lab.check(&with_extensions, Want::Inbound(&flow), moved);
    }
}

/// Padding of short Ethernet frames does not leave again: the frame ends with its packet.
#[test]
fn padding_stays_behind() {
    use evenkeel_core::port::{HeapFrame, PortId};
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        let flow = lab.open(kind, proto, 0);
        for padding in [1, 2, 19, 500] {
            let given = flow.inbound().with(|p| {
                p.payload.clear();
                if proto == L4Proto::Tcp {
                    p.tcp().flags = SYN;
                }
            });
            let mut bytes = given.bytes();
            bytes.resize(bytes.len() + padding, 0x55);
            let frame = HeapFrame::new(PortId(given.port), &bytes);
            lab.check_frame(0, frame, Some(&given), Want::Inbound(&flow), "");
        }
    }
}

/// A server that is not on the link is reached through its gateway.
#[test]
fn a_server_behind_a_gateway() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let behind = server_addr(kind.servers_are_v4(), 3);
        let flow = (0..100)
            .map(|n| lab.open(kind, L4Proto::Tcp, n))
            .find(|f| f.server.ip() == behind)
            .expect("round robin comes to every server");
        let (port, mac) = hop(behind);
        assert_eq!(mac, crate::story::SERVER_GATEWAY);
        let seen = lab.check(
            &flow.inbound(),
            Want::Inbound(&flow),
            "SYN_RECV-1 ESTABLISHED+1 established+1",
        );
        assert_eq!(&seen.bytes[..6], mac);
        assert_eq!(&seen.bytes[6..12], PORT_MACS[usize::from(port)]);
    }
}

/// A real server leaves the config: its connections go on, new ones go elsewhere.
#[test]
fn a_removed_server_keeps_its_connections() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        lab.reload(|spec| {
            for s in &mut spec.services {
                if s.servers.len() > 1 {
                    s.servers
                        .retain(|r| (r.addr, r.port) != (flow.server.ip(), flow.server.port()));
                }
            }
        });
        talk(&mut lab, &flow, &[('c', PSH | ACK, ""), ('s', PSH | ACK, "")]);
        for n in 1..50 {
            assert_ne!(lab.open(kind, L4Proto::Tcp, n).server, flow.server);
        }
        talk(&mut lab, &flow, &[('c', RST, "ESTABLISHED-1 CLOSE+1 closed+1")]);
        lab.audit();
    }
}

/// A reload gives a real server's id to another address: its connections go on to the old address, on the link or
/// behind the gateway, and have no way where that has none; new ones go to the new address.
#[test]
fn a_server_id_at_another_address_keeps_old_connections() {
    for kind in KINDS {
        let v4 = kind.servers_are_v4();
        for n in 1..=3 {
            let (old, new) = (server_addr(v4, n), server_addr(v4, 4));
            let mut lab = Lab::new();
            let flow = (0..)
                .map(|client| lab.establish(kind, client))
                .find(|f| f.server.ip() == old)
                .expect("every server has its turn");
            lab.reload(|spec| {
                let service = spec
                    .services
                    .iter_mut()
                    .find(|s| s.id == kind.service(L4Proto::Tcp));
                let servers = &mut service.expect("there").servers;
                let server = servers.iter_mut().find(|s| s.addr == old);
                server.expect("there").addr = new;
            });
            // That of the new address would be found by the id alone.
            assert_ne!(hop(old), hop(new));
            talk(&mut lab, &flow, &[('c', PSH | ACK, ""), ('s', ACK, "")]);
            let later = (1000..1100).map(|client| lab.open(kind, L4Proto::Tcp, client).server.ip());
            let later: Vec<_> = later.collect();
            assert!(later.contains(&new) && !later.contains(&old));
            talk(&mut lab, &flow, &[('c', PSH | ACK, "")]);
            let gone = if v4 { "10.0.0.254" } else { "fd00::fe" };
            lab.reload(|spec| spec.neighbours.retain(|x| x.addr != old && x.addr != ip(gone)));
            lab.check(&flow.inbound(), Want::Drop(DropReason::NoNeighbour), "");
        }
    }
}

/// A service leaves the config: its connections go on, by the default timeouts, and new ones are refused.
#[test]
fn a_removed_service_keeps_its_connections() {
    for kind in KINDS {
        let id = kind.service(L4Proto::Tcp);
        let mut lab = Lab::with(|c| {
            for s in &mut c.spec.services {
                assert!(
                    s.timeouts
                        .set(ConnState::Established, core::time::Duration::from_secs(10))
                );
            }
        });
        let flow = lab.establish(kind, 0);
        // Another service keeps the VIP an owned address.
        let other = spec()
            .services
            .into_iter()
            .find(|s| s.id == kind.service(L4Proto::Udp));
        assert_eq!(other.expect("there").vip, flow.vip.ip());
        lab.reload(|spec| spec.services.retain(|s| s.id != id));
        talk(&mut lab, &flow, &[('c', PSH | ACK, ""), ('s', ACK, "")]);
        let remaining = lab.conn(&flow.inbound().tuple()).expect("there").remaining_ms;
        assert_eq!(remaining, 90_000);
        lab.check(
            &syn(kind.client(1), flow.vip),
            Want::Drop(DropReason::NoService),
            "",
        );
        // It comes back: served as before.
        lab.reload(|s| s.services = spec().services);
        talk(&mut lab, &flow, &[('c', PSH | ACK, "")]);
        lab.open(kind, L4Proto::Tcp, 1);
    }
}

/// Every frame that leaves in these tests passes [`crate::packet::read`]; this one walks through lengths,
/// where checksums over an odd byte or an end of a word would show.
#[test]
fn every_emitted_frame_has_right_checksums_at_every_length() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        let flow = lab.open(kind, proto, 0);
        for len in (0..70).chain([535, 536, 1219, 1220, 1221, 1240, 1241, 1460, 8_999]) {
            for outbound in [false, true] {
                let mut given = if outbound { flow.outbound() } else { flow.inbound() };
                if let L4Proto::Tcp = proto {
                    given = given.flags(SYN);
                }
                given.payload = (0..len).map(|i| (i * 31 + len) as u8).collect();
                given.class = len as u8;
                let (want, moved) = match (outbound, proto, len) {
                    (false, _, _) => (Want::Inbound(&flow), ""),
                    (true, L4Proto::Udp, 0) => {
                        (Want::Outbound(&flow), "UDP_ONE_WAY-1 UDP_NORMAL+1 established+1")
                    }
                    (true, _, _) => (Want::Outbound(&flow), ""),
                };
                lab.check(&given, want, moved);
            }
        }
    }
}

/// The checksum of the rewritten packet comes out as zero: in UDP it must be written as 0xffff.
#[test]
fn a_checksum_that_comes_out_as_zero() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        let flow = lab.open(kind, proto, 0);
        let given = |word: u16| {
            let p = flow.inbound().with(|p| p.payload = word.to_be_bytes().to_vec());
            if proto == L4Proto::Tcp { p.flags(SYN) } else { p }
        };
        // A word that is the checksum of the packet without it brings the sum to 0xffff.
        let without = lab.check(&given(0), Want::Inbound(&flow), "").bytes;
        let behind = if proto == L4Proto::Tcp { 6 } else { 4 };
        let at = without.len() - behind;
        let word = u16::from_be_bytes([without[at], without[at + 1]]);
        let seen = lab.check(&given(word), Want::Inbound(&flow), "").bytes;
        let sum = u16::from_be_bytes([seen[at], seen[at + 1]]);
        match proto {
            L4Proto::Udp => assert_eq!(sum, 0xffff),
            L4Proto::Tcp => assert!(sum == 0 || sum == 0xffff, "{sum:#06x}"),
        }
    }
}
