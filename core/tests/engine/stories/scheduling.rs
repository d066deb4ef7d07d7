//! Which real server takes a new connection.

use std::collections::BTreeMap;

use evenkeel_core::stats::DropReason;
use evenkeel_core::tuple::L4Proto;

use crate::story::{
    KINDS, Kind, Lab, NO_SERVER, VIP_V4, VIP_V6, WRR, Want, at, kinds_and_protos, server_addr, syn,
};

/// Within a bucket the servers take turns, whatever happens in other buckets and services.
#[test]
fn positions_are_per_service_and_bucket() {
    for (kind, proto) in kinds_and_protos() {
        let mut lab = Lab::new();
        let mut last: BTreeMap<u16, u16> = BTreeMap::new();
        let mut started = [0u32; 3];
        for n in 0..600 {
            let flow = lab.open(kind, proto, n);
            let place = (1..=3)
                .find(|i| server_addr(kind.servers_are_v4(), *i) == flow.server.ip())
                .expect("one of three");
            // Other services do not move the position. One of the same servers might have taken a port.
            let other = if kind.servers_are_v4() { Kind::V6 } else { Kind::V4 };
            lab.open(other, proto, n);
            match last.insert(lab.bucket(flow.client, flow.vip), place) {
                Some(before) => assert_eq!(place, before % 3 + 1, "the next one's turn"),
                None => started[usize::from(place) - 1] += 1,
            }
        }
        assert_eq!(last.len(), 64, "every bucket was met");
        assert!(
            started.iter().all(|n| (20..=22).contains(n)),
            "buckets begin spread over the servers: {started:?}"
        );
    }
}

/// Weights 4, 2, 1 and 0: over whole cycles of a bucket exactly so, over all buckets nearly.
#[test]
fn weights_are_proportions() {
    let mut lab = Lab::with(|c| c.sizes.conns_v4 = 20_000);
    let vip = at(VIP_V4, WRR.0);
    let mut all = [0u32; 4];
    let mut by_bucket: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for n in 0..7_000 {
        let flow = lab.open_at(WRR.1, &syn(Kind::V4.client(n), vip));
        let place = (1..=4)
            .position(|i| server_addr(true, i) == flow.server.ip())
            .expect("one of four");
        all[place] += 1;
        by_bucket
            .entry(lab.bucket(flow.client, vip))
            .or_default()
            .push(place);
    }
    for (bucket, places) in by_bucket {
        for cycle in places.chunks_exact(7) {
            let count = |p| cycle.iter().filter(|c| **c == p).count();
            assert_eq!(
                [count(0), count(1), count(2), count(3)],
                [4, 2, 1, 0],
                "bucket {bucket}"
            );
        }
    }
    assert_eq!(all[3], 0, "weight 0 takes none");
    for (n, weight) in all.iter().zip([4, 2, 1]) {
        assert!(n.abs_diff(weight * 1000) < 100, "{all:?}");
    }
}

#[test]
fn no_server_with_weight() {
    for (vip, kind) in [(VIP_V4, Kind::V4), (VIP_V6, Kind::V6)] {
        let mut lab = Lab::new();
        let given = syn(kind.client(0), at(vip, NO_SERVER.0));
        lab.check(&given, Want::Drop(DropReason::NoServer), "");
        assert_eq!(lab.conn(&given.tuple()), None);
        // A weight comes with a reload.
        let id = NO_SERVER.1[usize::from(kind == Kind::V6)];
        lab.reload(|s| {
            let service = s.services.iter_mut().find(|s| s.id == id).expect("there");
            service.servers[1].weight = 1;
        });
        let flow = lab.open_at(id, &given);
        assert_eq!(flow.server.ip(), server_addr(kind.servers_are_v4(), 2));
    }
}

/// Weight 0 by a reload: no new connections, the old ones go on.
#[test]
fn a_drained_server() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flows: Vec<_> = (0..90).map(|n| lab.open(kind, L4Proto::Tcp, n)).collect();
        let drained = server_addr(kind.servers_are_v4(), 1);
        let has = flows.iter().filter(|f| f.server.ip() == drained).count();
        assert!((20..40).contains(&has));
        lab.reload(|s| {
            for server in s.services.iter_mut().flat_map(|s| &mut s.servers) {
                if server.addr == drained {
                    server.weight = 0;
                }
            }
        });
        for n in 100..200 {
            assert_ne!(lab.open(kind, L4Proto::Tcp, n).server.ip(), drained);
        }
        for flow in &flows {
            lab.check(&syn(flow.client, flow.vip), Want::Inbound(flow), "");
        }
    }
}
