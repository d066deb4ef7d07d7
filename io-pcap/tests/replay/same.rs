//! The same input gives the same bytes, however many workers there are.

use evenkeel_io_pcap::replay::{MapVip, Options};

use crate::packets::*;
use crate::{node, run_bytes};

/// Sixty connections side by side, TCP and UDP, and what is around them.
fn busy() -> Vec<u8> {
    let server = end("192.0.2.80:80");
    let mut frames = Vec::new();
    let sessions: Vec<_> = (0..60u16)
        .map(|i| session(end(&format!("203.0.113.{}:{}", i % 7 + 10, 40_000 + i)), server))
        .collect();
    for step in 0..8 {
        for (i, session) in sessions.iter().enumerate() {
            // Some stay half way.
            if step < 4 || i % 3 > 0 {
                frames.push(session[step].clone());
            }
        }
        frames.push(udp(
            end(&format!("203.0.113.9:{}", 5000 + step)),
            end("192.0.2.53:53"),
            b"?",
        ));
        frames.push(arp_request([203, 0, 113, 77], [192, 0, 2, 80]));
        frames.push(fragment(end("203.0.113.9:1"), end("192.0.2.53:53")));
    }
    // A tenth of a second apart, and one long after all others: what stays half way expires before.
    let mut timed: Vec<_> = (0..)
        .zip(frames)
        .map(|(i, f)| (START + i * 100_000_000, f))
        .collect();
    timed.push((
        START + 1000 * SECOND,
        arp_request([203, 0, 113, 77], [192, 0, 2, 80]),
    ));
    capture(&timed)
}

#[test]
fn results_and_bytes_do_not_depend_on_the_number_of_workers() {
    for map_vip in [None, Some(MapVip::Busiest)] {
        let run = |workers| {
            run_bytes(
                busy(),
                &node(),
                Options {
                    map_vip,
                    workers,
                    conns: true,
                    ..Options::default()
                },
            )
            .expect("replayed")
        };
        let (one, bytes) = run(1);
        assert_eq!(run(1), (one.clone(), bytes.clone()), "two runs");
        assert!(one.conns.opened >= 60 && one.conns.expired > 0, "{:?}", one.conns);
        if map_vip.is_some() {
            assert!(one.conns.established >= 40, "{:?}", one.conns);
        }
        for workers in [2, 7, 64] {
            let (mut many, other) = run(workers);
            assert!(
                many.by_worker.iter().filter(|w| w.opened > 0).count() > 1,
                "work is spread"
            );
            assert_eq!(many.verdicts.handed_off, 0);
            assert!(other == bytes, "{workers} workers write other bytes");
            (many.workers, many.by_worker) = (1, Vec::new());
            assert_eq!(many, one, "{workers} workers");
        }
    }
}

#[test]
fn another_seed_chooses_other_local_ports_and_nothing_else() {
    let run = |seed| {
        let options = Options {
            map_vip: Some(MapVip::Busiest),
            seed,
            ..Options::default()
        };
        run_bytes(busy(), &node(), options).expect("replayed").0
    };
    let (a, b) = (run(1), run(2));
    assert_ne!(a.digest, b.digest);
    assert_eq!((a.conns, a.verdicts, a.drops), (b.conns, b.verdicts, b.drops));
}
