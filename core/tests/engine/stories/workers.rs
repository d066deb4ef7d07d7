//! Several workers: who has what, and that their number changes nothing.

use std::collections::BTreeMap;

use evenkeel_core::port::{Frame, HandoffReason, HandoffTag, HeapFrame, PortId};
use evenkeel_core::stats::DropReason;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::Verdict;

use crate::packet::{ACK, Packet, SYN};
use crate::story::{Flow, Kind, Lab, Want, first, kinds_and_protos, packet};

/// The wrong worker hands it over, the right one goes on.
#[test]
fn the_wrong_worker_hands_over() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::with(|c| c.workers = 4);
        let given = first(proto, kind.client(3), kind.vip(proto));
        let right = lab.worker_of(given.src, given.dst);
        let bucket = lab.bucket(given.src, given.dst);
        let want = Want::Handoff(evenkeel_core::port::WorkerId(right as u8));
        for wrong in (0..4).filter(|w| *w != right) {
            for hops in 0..=HandoffTag::HOPS_MAX {
                let mut frame = HeapFrame::new(PortId(given.port), &given.bytes());
                if hops > 0 {
                    frame.tag = Some(tag(hops, bucket));
                }
                if hops == HandoffTag::HOPS_MAX {
                    let drop = Want::Drop(DropReason::TooManyHops);
                    lab.check_frame(wrong, frame, Some(&given), drop, "");
                } else {
                    let seen = lab.check_frame(wrong, frame, Some(&given), want, "");
                    let Verdict::Handoff(_, told) = seen.verdict else {
                        unreachable!("checked");
                    };
                    assert_eq!(told, tag(hops + 1, bucket));
                }
            }
        }
        // Handed over as often as may be, the right worker takes it.
        let mut frame = HeapFrame::new(PortId(given.port), &given.bytes());
        frame.tag = Some(tag(HandoffTag::HOPS_MAX, bucket));
        let moved = match proto {
            L4Proto::Tcp => "opened+1 SYN_RECV+1",
            L4Proto::Udp => "opened+1 UDP_ONE_WAY+1",
        };
        let want = Want::Opens(kind.service(proto));
        lab.check_frame(right, frame, Some(&given), want, moved);
        let flow = Flow::of(&lab.conn(&given.tuple()).expect("there"));
        // The reply falls to the same worker; at another one it is handed over too.
        assert_eq!(lab.worker_of(flow.server, flow.local), right);
        let reply = flow.outbound();
        let wrong = (right + 1) % 4;
        let frame = HeapFrame::new(PortId(1), &reply.bytes());
        let want = Want::Handoff(evenkeel_core::port::WorkerId(right as u8));
        lab.check_frame(wrong, frame, Some(&reply), want, "");
        let moved = match proto {
            L4Proto::Tcp => "SYN_RECV-1 ESTABLISHED+1 established+1",
            L4Proto::Udp => "UDP_ONE_WAY-1 UDP_NORMAL+1 established+1",
        };
        lab.check(&reply, Want::Outbound(&flow), moved);
    }
}

fn tag(hops: u8, bucket: u16) -> HandoffTag {
    HandoffTag {
        reason: HandoffReason::Bucket,
        stage: 0,
        hops,
        reserved: 0,
        bucket,
        reserved2: [0; 5],
    }
}

/// What is nobody's is dropped where it comes in: no work for another worker.
#[test]
fn only_what_may_be_somebodys_is_handed_over() {
    let mut lab = Lab::with(|c| c.workers = 64);
    for (kind, proto) in kinds_and_protos() {
        let mut given = first(proto, kind.client(0), kind.vip(proto));
        let wrong = (lab.worker_of(given.src, given.dst) + 1) % 64;
        given.dst.set_port(9);
        let frame = HeapFrame::new(PortId(0), &given.bytes());
        let drop = Want::Drop(DropReason::NoService);
        lab.check_frame(wrong, frame, Some(&given), drop, "");
    }
}

/// A driver that knows the hash from its NIC is believed.
#[test]
fn the_drivers_hash_is_used() {
    let mut lab = Lab::with(|c| c.workers = 8);
    let given = first(L4Proto::Tcp, Kind::V4.client(0), Kind::V4.vip(L4Proto::Tcp));
    let hash = lab.steering.toeplitz().hash(given.src, given.dst);
    let right = lab.worker_of(given.src, given.dst);
    let mut frame = HeapFrame::new(PortId(0), &given.bytes());
    frame.rss = Some(hash);
    let want = Want::Opens(Kind::V4.service(L4Proto::Tcp));
    lab.check_frame(right, frame, Some(&given), want, "opened+1 SYN_RECV+1");
    let other = first(L4Proto::Tcp, Kind::V4.client(1), given.dst);
    let mut frame = HeapFrame::new(PortId(0), &other.bytes());
    frame.rss = Some(hash + 1);
    let to = lab.buckets.worker(lab.steering.bucket(hash + 1));
    lab.check_frame(right, frame, Some(&other), Want::Handoff(to), "");
}

/// The traffic of the test below: openings, replies, strays, interleaved.
fn traffic(flows: &BTreeMap<ClientAndVip, Flow>, round: u32) -> Vec<Packet> {
    let mut all = Vec::new();
    for n in 0..40 {
        for (kind, proto) in kinds_and_protos() {
            let (client, vip) = (kind.client(n * 7), kind.vip(proto));
            match round {
                0 => all.push(first(proto, client, vip)),
                1 => {
                    let flow = flows[&(client, vip)];
                    let reply = packet(proto, flow.server, flow.local);
                    all.push(if proto == L4Proto::Tcp {
                        reply.flags(SYN | ACK)
                    } else {
                        reply
                    });
                    all.push(packet(proto, client, vip));
                }
                _ => all.push(packet(proto, kind.client(n + 1000), vip)),
            }
        }
    }
    all
}

type ClientAndVip = (std::net::SocketAddr, std::net::SocketAddr);

/// The same per-connection outcome and the same bytes, for any number of workers: frames arrive at any
/// worker, are handed over, and come out alike.
#[test]
fn any_number_of_workers() {
    let run = |workers: u16| {
        let mut lab = Lab::with(|c| {
            c.workers = workers;
            c.sizes.conns_v4 = 400;
            c.sizes.conns_v6 = 1000;
        });
        let mut out: Vec<(Verdict, Vec<u8>)> = Vec::new();
        let mut flows: BTreeMap<ClientAndVip, Flow> = BTreeMap::new();
        let mut handed = 0;
        for round in 0..3 {
            for (i, given) in traffic(&flows, round).iter().enumerate() {
                // NICs steer by whatever they like.
                let mut worker = i * 31 % usize::from(workers);
                let mut frame = HeapFrame::new(PortId(given.port), &given.bytes());
                loop {
                    let mut frames = [frame];
                    lab.workers[worker].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
                    [frame] = frames;
                    let Verdict::Handoff(to, tag) = lab.verdicts.as_slice()[0] else {
                        break;
                    };
                    handed += 1;
                    worker = usize::from(to.0);
                    frame.tag = Some(tag);
                }
                out.push((lab.verdicts.as_slice()[0], frame.data().to_vec()));
            }
            for worker in &lab.workers {
                for view in worker.table().iter() {
                    let flow = Flow::of(&view);
                    flows.insert((flow.client, flow.vip), flow);
                }
            }
        }
        lab.audit();
        let mut counters = lab.counters();
        assert_eq!(counters.handed_off, handed);
        counters.handed_off = 0;
        counters.rx_packets -= handed;
        counters.rx_bytes = 0;
        (out, flows, counters)
    };
    let alone = run(1);
    assert_eq!(
        alone.1.len(),
        320 + 40 * 4,
        "TCP and UDP opened, UDP again by strangers"
    );
    for workers in 2..=64 {
        assert!(run(workers) == alone, "{workers} workers");
    }
}
