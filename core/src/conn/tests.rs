//! The table against slow, obvious twins.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use std::println;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::hash::MICROSOFT_KEY;
use crate::lport::Steering;

static STEERING: LazyLock<Arc<Steering>> =
    LazyLock::new(|| Arc::new(Steering::new(&MICROSOFT_KEY, 64).expect("full rank")));

fn table(conns_v4: u32, conns_v6: u32, seed: u64) -> ConnTable {
    let sizes = TableSizes {
        conns_v4,
        conns_v6,
        exts: 0,
    };
    ConnTable::new(
        TableMemory::new(sizes, &mut HeapMemory).expect("small"),
        STEERING.clone(),
        seed,
    )
}

/// Conn `n` of a kind: families of both sides and protocol follow from the low three bits. No two share
/// an end.
fn init(n: u32) -> ConnInit {
    let (client_v4, server_v4) = (n & 1 == 0, n & 2 == 0);
    let end = |v4: bool, net: u8, port: u16| {
        let addr = if v4 {
            IpAddr::from([10, net, (n >> 16) as u8, (n >> 8) as u8])
        } else {
            IpAddr::from([0x2001, 0xdb8, net.into(), 0, 0, 0, (n >> 16) as u16, n as u16])
        };
        SocketAddr::new(addr, port)
    };
    ConnInit {
        proto: if n & 4 == 0 { L4Proto::Tcp } else { L4Proto::Udp },
        client: end(client_v4, 1, 1000 + n as u16 % 256),
        vip: end(client_v4, 2, 80),
        server: end(server_v4, 3, 8080),
        local: end(server_v4, 4, 1000 + n as u16 % 256),
        service: ServiceId(n as u16 % 7),
        server_id: RealServerId(n as u16 % 11),
        state: if n & 4 == 0 {
            ConnState::SynRecv
        } else {
            ConnState::UdpOneWay
        },
    }
}

/// Const assertions hold the same; this prints what they assert.
#[test]
fn bytes_of_a_session() {
    const MANY: u32 = 1_000_000;
    assert_eq!(size_of::<Bucket>(), 64);
    assert_eq!((size_of::<Conn4>(), size_of::<Conn6>()), (64, 128));
    let replication = size_of::<ConnMeta>() - core::mem::offset_of!(ConnMeta, version);
    assert_eq!(replication, 24);
    // What every table has, however many conns: a started chunk in each of 4096 slots.
    let rounding = SLOT_COUNT * size_of::<SlotChunk>();
    for (sizes, most) in [((MANY, 0), 96), ((0, MANY), 160)] {
        let sizes = TableSizes {
            conns_v4: sizes.0,
            conns_v6: sizes.1,
            exts: 0,
        };
        let bytes = sizes.bytes() - rounding;
        println!(
            "{} bytes and {} hundredths a session, at most {most}; {replication} of them are replication's",
            bytes / MANY as usize,
            bytes % MANY as usize * 100 / MANY as usize
        );
        assert!(bytes <= most * MANY as usize);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u32, u64),
    Remove(u32),
    /// A packet: the deadline moves, farther without the wheel, nearer with it.
    Touch(u32, u64),
    /// Time passes, and what is due is looked at, so many at a time.
    Pass(u64, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0u32..64;
    let time = prop_oneof![0u64..100, 0u64..10_000, 0u64..700_000_000];
    prop_oneof![
        4 => (n.clone(), time.clone()).prop_map(|(n, t)| Step::Insert(n, t)),
        2 => n.clone().prop_map(Step::Remove),
        2 => (n, time.clone()).prop_map(|(n, t)| Step::Touch(n, t)),
        2 => (time, 1usize..20).prop_map(|(t, budget)| Step::Pass(t, budget)),
    ]
}

fn cases(default: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(default),
    }
}

proptest! {
    #![proptest_config(cases(100))]

    /// Insertion, removal, lookup of both directions, deadlines and expiry, slabs that are full.
    #[test]
    fn conn_table_equals_a_btreemap(
        seed in any::<u64>(),
        (v4, v6) in (1u32..20, 1u32..40),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut table = table(v4, v6, seed);
        // Conn by number: where it is, its deadline.
        let mut twin: BTreeMap<u32, (ConnId, u64)> = BTreeMap::new();
        let mut now = 0;
        let mut refused_by_index = 0;
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(n, t) if !twin.contains_key(&n) => {
                    let narrow = n & 3 == 0;
                    let room = (if narrow { v4 } else { v6 }) as usize;
                    let used = twin.keys().filter(|m| (*m & 3 == 0) == narrow).count();
                    match table.insert(&init(n), now + t) {
                        Ok(id) => {
                            prop_assert!(used < room);
                            twin.insert(n, (id, now + t));
                        }
                        Err(TableFull::Slab) => prop_assert_eq!(used, room),
                        // An index of a few buckets may be unlucky.
                        Err(TableFull::Index) => refused_by_index += 1,
                    }
                }
                Step::Remove(n) => {
                    if let Some((id, _)) = twin.remove(&n) {
                        prop_assert!(table.remove(id));
                        prop_assert!(!table.remove(id), "once");
                    }
                }
                Step::Touch(n, t) => {
                    if let Some((id, deadline)) = twin.get_mut(&n) {
                        *deadline = now + t;
                        table.set_deadline(*id, now + t);
                    }
                }
                Step::Pass(t, budget) => {
                    now += t;
                    let mut due = BTreeSet::new();
                    loop {
                        let mut budget_left = budget;
                        for id in pop_due(&mut table, now, &mut budget_left) {
                            due.insert(id);
                            prop_assert!(table.remove(id));
                        }
                        if budget_left > 0 {
                            break;
                        }
                    }
                    let want: BTreeSet<_> =
                        twin.values().filter(|(_, d)| *d <= now).map(|(id, _)| *id).collect();
                    prop_assert_eq!(due, want);
                    twin.retain(|_, (_, d)| *d > now);
                }
                Step::Insert(..) => {}
            }
            // It walks every slot: now and then.
            if i % 32 == 0 {
                table.audit();
            }
            prop_assert_eq!(table.len(), twin.len());
            prop_assert_eq!(table.index_len(), 2 * twin.len());
            match (table.next_tick(), twin.values().map(|(_, d)| *d).min()) {
                (Some(wakes), Some(first)) => prop_assert!(wakes <= first),
                (wakes, first) => prop_assert_eq!(wakes, first),
            }
        }
        table.audit();
        for n in 0..64 {
            let want = twin.get(&n).map(|(id, _)| *id);
            let (inbound, outbound) = (init(n).inbound(), init(n).outbound());
            prop_assert_eq!(table.lookup(&inbound), want.map(|id| (id, Direction::Inbound)));
            prop_assert_eq!(table.lookup(&outbound), want.map(|id| (id, Direction::Outbound)));
            prop_assert_eq!(table.lookup(&inbound.reversed()), None);
            if let Some(id) = want {
                prop_assert_eq!(table.view(id).map(|v| v.init), Some(init(n)));
            }
        }
        prop_assert!(refused_by_index < 64);
    }
}

/// A slot yields the conns whose canonical hash ends in it, each once, and all slots together all conns;
/// so it stays while conns go.
#[test]
fn slot_holds_its_conns() {
    let mut table = table(5_000, 15_000, 3);
    let mut live: BTreeMap<ConnId, u32> = BTreeMap::new();
    for n in 0..16_000 {
        let id = table.insert(&init(n), 1_000_000).expect("room");
        live.insert(id, n);
    }
    for round in 0..3 {
        let mut seen = BTreeSet::new();
        for slot in 0..SLOT_COUNT as u16 {
            for view in table.slot(slot) {
                let hash = STEERING.toeplitz().hash_tuple(&view.init.inbound());
                assert_eq!(hash as u16 & (SLOT_COUNT as u16 - 1), slot);
                assert_eq!(view.init, init(live[&view.id]));
                assert!(seen.insert(view.id), "once");
            }
        }
        assert_eq!(seen, live.keys().copied().collect());
        assert_eq!(table.iter().count(), live.len());
        for id in seen.into_iter().skip(round).step_by(3) {
            assert!(table.remove(id));
            live.remove(&id);
        }
        table.audit();
    }
}

/// A place that is used again has another generation, in both slabs, round the end of its byte, and whatever
/// its user wrote; its neighbour keeps its own.
#[test]
fn generation_grows_with_each_use_of_a_place() {
    for kind in [0, 1, 2, 3] {
        let mut table = table(2, 2, 5);
        let stays = table.insert(&init(kind), 1_000_000).expect("room");
        let of = |table: &ConnTable, id| table.view(id).map(|v| v.generation);
        let kept = of(&table, stays);
        let mut last: Option<(ConnId, u8)> = None;
        for n in 1..600 {
            let id = table.insert(&init(kind + 8 * n), 1_000_000).expect("room");
            let generation = of(&table, id).expect("it was just made");
            if let Some((place, before)) = last {
                assert_eq!(id, place, "the only free place");
                assert_eq!(generation, before.wrapping_add(1), "use {n}");
            }
            last = Some((id, generation));
            assert!(table.remove(id));
            assert_eq!(of(&table, id), None, "not in use");
        }
        assert_eq!(of(&table, stays), kept);
    }
}

/// Conns whose deadline has come by `now`, taken out of the wheel; `budget` are looked at, at most.
fn pop_due(table: &mut ConnTable, now: u64, budget: &mut usize) -> Vec<ConnId> {
    let (mut fired, mut due) = (Fired::NONE, Vec::new());
    loop {
        table.pop_fired(now, budget, &mut fired);
        if fired.as_slice().is_empty() {
            return due;
        }
        due.extend(fired.as_slice().iter().filter(|id| table.is_due(**id, now)));
    }
}

/// The wheel as the table shows it for debugging.
fn wheel(table: &ConnTable) -> String {
    let all = format!("{table:?}");
    let wheel = all.find("wheel: ").expect("a wheel");
    let end = all[wheel..].find("slots: ").expect("slots behind it");
    all[wheel..wheel + end].into()
}

#[test]
fn prolonging_does_not_touch_the_wheel() {
    let mut table = table(8, 16, 1);
    let ids: Vec<_> = (0..12)
        .map(|n| table.insert(&init(n), 1_000 + u64::from(n)).expect("room"))
        .collect();
    let before = wheel(&table);
    for &id in &ids {
        table.set_deadline(id, 50_000);
        table.meta_mut(id).expect("there").deadline += 1;
    }
    assert_eq!(wheel(&table), before, "farther: lazily");
    assert_eq!(
        pop_due(&mut table, 49_999, &mut 100),
        [],
        "looked at, and armed again"
    );
    assert_ne!(wheel(&table), before);
    let before = wheel(&table);
    table.set_deadline(ids[0], 50_000);
    assert_ne!(wheel(&table), before, "nearer: at once");
    assert_eq!(pop_due(&mut table, 50_000, &mut 100), [ids[0]]);
    assert_eq!(pop_due(&mut table, 50_000, &mut 100), []);
}

/// The index of a tiny table is full for some seed: nothing is lost by it, and a removal makes room.
#[test]
fn full_index_loses_nothing() {
    let mut met = 0;
    for seed in 0..50_000 {
        let mut table = table(6, 0, seed);
        let numbers: Vec<u32> = (0..6).map(|i| i * 8).collect();
        let mut live: Vec<(u32, ConnId)> = Vec::new();
        for &n in &numbers {
            match table.insert(&init(n), 1_000) {
                Ok(id) => live.push((n, id)),
                Err(full) => {
                    assert_eq!(full, TableFull::Index);
                    met += 1;
                    table.audit();
                    assert_eq!(table.len(), live.len());
                    for &(n, id) in &live {
                        assert_eq!(table.lookup(&init(n).outbound()), Some((id, Direction::Outbound)));
                    }
                    assert_eq!(table.lookup(&init(n).inbound()), None);
                    assert_eq!(table.lookup(&init(n).outbound()), None);
                    for (_, id) in live.drain(..) {
                        assert!(table.remove(id));
                    }
                    live.push((n, table.insert(&init(n), 1_000).expect("room again")));
                }
            }
        }
        if met >= 3 {
            return;
        }
    }
    panic!("{met} seeds of 50,000 fill the index of a tiny table");
}

/// In a table of any size that somebody would make, slabs are full before the index is.
#[test]
fn full_index_is_not_met_before_full_slabs() {
    for (v4, v6) in [(5_000, 0), (0, 5_000), (2_000, 6_000)] {
        for seed in 0..3 {
            let mut table = table(v4, v6, seed);
            let (mut got_v4, mut got_v6) = (0, 0);
            for n in 0..40_000 {
                match table.insert(&init(n), 1_000) {
                    Ok(id) if id.is_v6() => got_v6 += 1,
                    Ok(_) => got_v4 += 1,
                    Err(full) => assert_eq!(full, TableFull::Slab),
                }
            }
            assert_eq!((got_v4, got_v6), (v4, v6));
            table.audit();
        }
    }
}
