//! The session record: installed in another worker, it makes a replica that rewrites alike.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_core::conn::{TableFull, TableSizes};
use evenkeel_core::port::{Frame, HeapFrame, PortId};
use evenkeel_core::proto::{ConnState, TIMEOUT_MAX};
use evenkeel_core::sync::{InstallError, Isns, SeqDeltas, SessionRecord, WindowScales};
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::{Command, CommandError, Verdict};

use crate::packet::{ACK, FIN, PSH, Packet, RST, SYN, read};
use crate::story::{Flow, KINDS, Kind, Lab, kinds_and_protos};

fn install(lab: &mut Lab, record: &SessionRecord) -> Result<(), CommandError> {
    lab.workers[0].handle_command(lab.now, Command::Install(Box::new(*record)))
}

fn record(lab: &Lab, flow: &Flow) -> SessionRecord {
    let conn = lab.conn(&flow.inbound().tuple()).expect("there");
    lab.workers[0].session(conn.id).expect("there")
}

/// The packet's bytes behind the engine, and what its verdict was.
fn run(lab: &mut Lab, given: &Packet) -> (Verdict, Vec<u8>) {
    let mut frames = [HeapFrame::new(PortId(given.port), &given.bytes())];
    lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
    (lab.verdicts.as_slice()[0], frames[0].data().to_vec())
}

/// Everything that follows is the same bytes from either node, in both directions, state by state.
#[test]
fn a_replica_rewrites_alike() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        for n in 0..5 {
            lab.open(kind, proto, n);
        }
        let flow = match proto {
            L4Proto::Tcp => lab.establish(kind, 7),
            L4Proto::Udp => lab.open(kind, proto, 7),
        };
        lab.pass(Duration::from_secs(3));
        lab.workers[0].handle_timeout(lab.now);
        let record = record(&lab, &flow);
        assert_eq!(
            record.remaining,
            Duration::from_secs(if proto == L4Proto::Tcp { 87 } else { 297 })
        );
        // Another node: another seed, another clock, nothing in its table.
        let mut other = Lab::with(|c| c.seed = 4711);
        other.pass(Duration::from_secs(86_400));
        install(&mut other, &record).expect("room");
        let conn = other.conn(&flow.inbound().tuple()).expect("there");
        assert_eq!(conn.remaining_ms, record.remaining.as_millis() as u64);
        let flags: &[(char, u8)] = &[
            ('c', PSH | ACK),
            ('s', ACK),
            ('s', PSH | ACK),
            ('c', FIN | ACK),
            ('s', FIN | ACK),
            ('c', ACK),
            ('s', RST),
        ];
        for &(who, flags) in flags {
            let mut given = if who == 'c' {
                flow.inbound()
            } else {
                flow.outbound()
            };
            if proto == L4Proto::Tcp {
                given = given.flags(flags);
            }
            let here = run(&mut lab, &given);
            assert!(matches!(here.0, Verdict::Tx(_)));
            assert_eq!(here, run(&mut other, &given));
            assert_eq!(lab.state(&flow), other.state(&flow));
        }
        assert_eq!(other.counters().opened, 1);
        lab.audit();
        other.audit();
    }
}

/// What is installed is what was sent, in every field.
#[test]
fn record_round_trip() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        let flow = match proto {
            L4Proto::Tcp => lab.establish(kind, 7),
            L4Proto::Udp => lab.open(kind, proto, 7),
        };
        let plain = record(&lab, &flow);
        assert_eq!(plain.was_established, proto == L4Proto::Tcp);
        for more in [
            plain,
            SessionRecord {
                deltas: Some(SeqDeltas {
                    inbound: 1,
                    outbound: u32::MAX,
                }),
                ..plain
            },
            SessionRecord {
                deltas: Some(SeqDeltas::default()),
                isns: Isns {
                    client: Some(0),
                    server: None,
                },
                ..plain
            },
            SessionRecord {
                isns: Isns {
                    client: None,
                    server: Some(0xffff_ffff),
                },
                window_scales: WindowScales {
                    client: Some(0),
                    server: Some(14),
                },
                was_established: true,
                was_closed: true,
                inbound_only: true,
                remaining: Duration::from_millis(1),
                ..plain
            },
            SessionRecord {
                remaining: TIMEOUT_MAX,
                ..plain
            },
        ] {
            let mut other = Lab::new();
            install(&mut other, &more).expect("room");
            assert_eq!(record(&other, &flow), more);
            other.audit();
        }
        // More than the longest timeout is not believed.
        let mut other = Lab::new();
        let forever = SessionRecord {
            remaining: Duration::MAX,
            ..plain
        };
        install(&mut other, &forever).expect("room");
        assert_eq!(record(&other, &flow).remaining, TIMEOUT_MAX);
    }
}

/// A replica that was installed with much time: the next packet's deadline counts.
#[test]
fn a_packet_brings_the_deadline_of_a_replica_nearer() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        let long = SessionRecord {
            remaining: TIMEOUT_MAX,
            ..record(&lab, &flow)
        };
        let mut other = Lab::new();
        install(&mut other, &long).expect("room");
        run(&mut other, &flow.inbound());
        other.pass(Duration::from_secs(90));
        other.expire();
        assert_eq!(other.state(&flow), None);
    }
}

/// Shifted sequence numbers: the model adds them up by itself, etherparse verifies the checksum.
#[test]
fn a_replica_rewrites_alike_with_shifted_sequence_numbers() {
    let sack = |lead: &[u8], blocks: usize| {
        let mut o = lead.to_vec();
        o.extend([5, (2 + 8 * blocks) as u8]);
        for b in 0..2 * blocks as u32 {
            o.extend((0x89ab_cdefu32.wrapping_add(b * 0x1111_1111)).to_be_bytes());
        }
        while !o.len().is_multiple_of(4) {
            o.push(1);
        }
        o
    };
    let timestamps = [&[8, 10][..], &[9; 8]].concat();
    // The option, and where SACK edges begin in it.
    let options: Vec<(Vec<u8>, Vec<usize>)> = vec![
        (vec![], vec![]),
        (sack(&[], 1), vec![2, 6]),
        (sack(&[1], 1), vec![3, 7]),
        (sack(&[1, 1], 3), vec![4, 8, 12, 16, 20, 24]),
        (sack(&[1, 1, 1], 2), vec![5, 9, 13, 17]),
        (sack(&[&timestamps[..], &[1]].concat(), 2), vec![13, 17, 21, 25]),
        (sack(&[3, 3, 7], 1), vec![5, 9]),
        // Nothing behind the end of options or behind a length that does not fit.
        (sack(&[0], 1), vec![]),
        (sack(&[9, 200], 1), vec![]),
        (vec![5, 4, 1, 1], vec![]),
        (vec![1, 1, 1, 5], vec![]),
    ];
    for kind in KINDS {
        for (inbound, outbound) in [
            (0x0101_0101u32, 0xfefe_0001u32),
            (0, 7),
            (u32::MAX, 0),
            (0x8000_0000, 0x7fff_ffff),
        ] {
            let mut lab = Lab::new();
            let flow = lab.establish(kind, 0);
            let shifted = SessionRecord {
                deltas: Some(SeqDeltas { inbound, outbound }),
                ..record(&lab, &flow)
            };
            let mut one = Lab::new();
            let mut two = Lab::with(|c| c.seed = 9);
            install(&mut one, &shifted).expect("room");
            install(&mut two, &shifted).expect("room");
            for (options, edges) in &options {
                for (client, flags) in [(true, ACK), (false, PSH | ACK), (true, SYN | ACK), (false, SYN)] {
                    let given = if client { flow.inbound() } else { flow.outbound() };
                    let given = given.flags(flags).with(|p| p.tcp().options = options.clone());
                    let (seq, ack) = if client {
                        (inbound, outbound.wrapping_neg())
                    } else {
                        (outbound, inbound.wrapping_neg())
                    };
                    let (verdict, bytes) = run(&mut one, &given);
                    assert_eq!((verdict, bytes.clone()), run(&mut two, &given));
                    let Verdict::Tx(PortId(port)) = verdict else {
                        panic!("{verdict:?}");
                    };
                    let (mut out, _) = read(port, &bytes);
                    let mut want = given.clone();
                    let tcp = want.tcp();
                    tcp.seq = tcp.seq.wrapping_add(seq);
                    if flags & ACK != 0 {
                        tcp.ack = tcp.ack.wrapping_add(ack);
                        for &at in edges {
                            let edge = &mut tcp.options[at..at + 4];
                            let old = u32::from_be_bytes(edge.try_into().expect("four bytes"));
                            edge.copy_from_slice(&old.wrapping_add(ack).to_be_bytes());
                        }
                    }
                    assert_eq!(out.tcp(), want.tcp(), "{kind:?} {inbound:#x} {outbound:#x}");
                    assert_eq!(out.payload, want.payload);
                }
            }
            // A reset without ACK carries nothing in the field: zero stays zero.
            for given in [flow.inbound(), flow.outbound()] {
                let client = given.src == flow.client;
                let given = given.flags(RST).with(|p| p.tcp().ack = 0);
                let (verdict, bytes) = run(&mut one, &given);
                assert_eq!((verdict, bytes.clone()), run(&mut two, &given));
                let (mut out, _) = read(if client { 1 } else { 0 }, &bytes);
                assert_eq!(out.tcp().ack, 0);
                let seq = if client { inbound } else { outbound };
                assert_eq!(out.tcp().seq, 0x1234_5678u32.wrapping_add(seq));
            }
            one.audit();
            two.audit();
        }
    }
}

/// Deltas of a UDP session mean nothing, and do no harm.
#[test]
fn deltas_do_not_touch_udp() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.open(kind, L4Proto::Udp, 0);
        let shifted = SessionRecord {
            deltas: Some(SeqDeltas {
                inbound: 5,
                outbound: 6,
            }),
            ..record(&lab, &flow)
        };
        let mut other = Lab::new();
        install(&mut other, &shifted).expect("room");
        for given in [flow.inbound(), flow.outbound()] {
            assert_eq!(run(&mut lab, &given), run(&mut other, &given));
        }
    }
}

fn bucket(tuple: &evenkeel_core::tuple::Tuple) -> u16 {
    let steering = crate::story::steering(64);
    steering.bucket(steering.toeplitz().hash_tuple(tuple))
}

/// Gives a record the first local port whose replies come to the bucket of its client's packets.
fn align(record: &mut SessionRecord) {
    let port = (1..).find(|&port| {
        record.conn.local.set_port(port);
        bucket(&record.conn.inbound()) == bucket(&record.conn.outbound())
    });
    assert!(port.is_some(), "every class has ports");
}

/// A bit of the local port that changes the bucket.
fn misaligned_bit(record: &SessionRecord) -> u16 {
    let bits = (0..16).map(|bit| 1 << bit);
    bits.into_iter()
        .find(|bit| {
            let mut other = *record;
            other.conn.local.set_port(record.conn.local.port() ^ bit);
            other.conn.local.port() != 0 && bucket(&other.conn.outbound()) != bucket(&record.conn.outbound())
        })
        .expect("the key has rank")
}

/// A worker takes sessions in whose packets come to it, and no others.
#[test]
fn a_session_is_installed_at_its_own_worker_only() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        let flow = lab.open(kind, proto, 0);
        let session = record(&lab, &flow);
        let own = usize::from(bucket(&session.conn.inbound()) % 4);
        let mut four = Lab::with(|c| c.workers = 4);
        for (id, worker) in four.workers.iter_mut().enumerate() {
            let done = worker.handle_command(four.now, Command::Install(Box::new(session)));
            let want = if id == own {
                Ok(())
            } else {
                Err(CommandError::Install(InstallError::WrongBucket))
            };
            assert_eq!(done, want, "worker {id}, the session is of worker {own}");
        }
    }
}

#[test]
fn what_cannot_be_installed_is_refused_by_name() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::with(|c| {
            c.sizes = TableSizes {
                conns_v4: 2,
                conns_v6: 2,
                exts: 1,
            }
        });
        let flow = lab.open(kind, proto, 0);
        let good = record(&lab, &flow);
        let deltas = Some(SeqDeltas::default());
        let refused = |lab: &mut Lab, r: &SessionRecord, why| {
            let (before, len) = (lab.counters(), lab.workers[0].table().len());
            assert_eq!(install(lab, r), Err(CommandError::Install(why)));
            assert_eq!(lab.counters(), before, "nothing has changed");
            assert_eq!(lab.workers[0].table().len(), len);
            lab.audit();
        };
        // One tuple, or both.
        refused(&mut lab, &good, InstallError::Taken);
        let mut same_client = good;
        same_client.conn.local.set_port(1);
        refused(&mut lab, &same_client, InstallError::Taken);
        let mut same_local = good;
        same_local.conn.client.set_port(1);
        refused(&mut lab, &same_local, InstallError::Taken);

        let mut other = good;
        other.conn.client.set_port(1);
        align(&mut other);
        // Its directions would come to two buckets.
        let mut torn = other;
        torn.conn
            .local
            .set_port(torn.conn.local.port() ^ misaligned_bit(&torn));
        refused(&mut lab, &torn, InstallError::WrongBucket);
        // No port, ends of two families, both tuples alike.
        for end in 0..4 {
            let mut bad = other;
            let of = |r: &mut SessionRecord, edit: fn(&mut SocketAddr)| {
                let c = &mut r.conn;
                edit(match end {
                    0 => &mut c.client,
                    1 => &mut c.vip,
                    2 => &mut c.server,
                    _ => &mut c.local,
                });
            };
            of(&mut bad, |end| end.set_port(0));
            refused(&mut lab, &bad, InstallError::BadEnds);
            of(&mut bad, end_of_other_family);
            refused(&mut lab, &bad, InstallError::BadEnds);
        }
        let mut folded = other;
        (folded.conn.server, folded.conn.local) = (folded.conn.client, folded.conn.vip);
        refused(&mut lab, &folded, InstallError::BadEnds);

        // The side slab, then the slab.
        let mut with_ext = other;
        with_ext.deltas = deltas;
        install(&mut lab, &with_ext).expect("room");
        let mut third = other;
        third.conn.client.set_port(2);
        align(&mut third);
        third.deltas = deltas;
        refused(&mut lab, &third, InstallError::Full(TableFull::Slab));
        lab.pass(Duration::from_millis(299_999));
        lab.expire();
        let room = lab.workers[0].table().len() < 2;
        assert_eq!(room, proto == L4Proto::Tcp);
    }
    // A place in the slab, none in the side slab.
    let mut lab = Lab::with(|c| c.sizes.exts = 0);
    let flow = Lab::new().open(Kind::V4, L4Proto::Tcp, 0);
    let mut donor = Lab::new();
    donor.open(Kind::V4, L4Proto::Tcp, 0);
    let with_ext = SessionRecord {
        deltas: Some(SeqDeltas::default()),
        ..record(&donor, &flow)
    };
    let full = CommandError::Install(InstallError::ExtFull);
    assert_eq!(install(&mut lab, &with_ext), Err(full));
    assert!(full.to_string().contains("does not fit"));
    assert_eq!(lab.state(&flow), None);
    lab.audit();
}

fn end_of_other_family(end: &mut SocketAddr) {
    let other = if end.is_ipv4() {
        "[2001:db8::9]:9"
    } else {
        "192.0.2.9:9"
    };
    *end = other.parse().expect("an end");
}

/// A state that is not of the record's protocol.
#[test]
fn a_state_of_another_protocol_is_refused() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let tcp = lab.open(kind, L4Proto::Tcp, 0);
        let udp = lab.open(kind, L4Proto::Udp, 0);
        for (flow, state) in [(tcp, ConnState::UdpNormal), (udp, ConnState::Established)] {
            let mut wrong = record(&lab, &flow);
            wrong.conn.state = state;
            let mut other = Lab::new();
            assert_eq!(
                install(&mut other, &wrong),
                Err(CommandError::Install(InstallError::BadState))
            );
            other.audit();
        }
    }
}

/// Side slabs are given back with their conns.
#[test]
fn rarer_state_goes_with_its_conn() {
    let mut donor = Lab::new();
    let mut lab = Lab::with(|c| c.sizes.exts = 1);
    for n in 0..20 {
        let flow = donor.open(Kind::V6, L4Proto::Tcp, n);
        let with_ext = SessionRecord {
            deltas: Some(SeqDeltas {
                inbound: n,
                outbound: 0,
            }),
            ..record(&donor, &flow)
        };
        install(&mut lab, &with_ext).expect("room");
        assert_eq!(record(&lab, &flow).deltas, with_ext.deltas);
        lab.pass(Duration::from_secs(30));
        lab.expire();
        assert_eq!(lab.state(&flow), None);
        // Whoever has the place next has no deltas.
        let next = lab.open(Kind::V6, L4Proto::Tcp, 100 + n);
        assert_eq!(record(&lab, &next).deltas, None);
    }
    lab.audit();
}
