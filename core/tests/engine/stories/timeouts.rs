//! How long a connection lives without a packet.

use std::time::Duration;

use evenkeel_core::proto::{ConnState, TIMEOUT_MAX, Timeouts};
use evenkeel_core::stats::DropReason;
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::TIMER_BUDGET;

use crate::packet::{ACK, FIN, RST, SYN};
use crate::story::{Flow, KINDS, Kind, Lab, Want, first, packet, syn};

const MS: Duration = Duration::from_millis(1);

/// As DPVS 1.10 has them, in seconds.
#[test]
fn timeouts_default_to_those_of_dpvs() {
    let t = Timeouts::default();
    for (state, seconds) in [
        (ConnState::None, 2),
        (ConnState::Established, 90),
        (ConnState::SynSent, 3),
        (ConnState::SynRecv, 30),
        (ConnState::FinWait, 7),
        (ConnState::TimeWait, 7),
        (ConnState::Close, 3),
        (ConnState::CloseWait, 7),
        (ConnState::LastAck, 7),
        (ConnState::Listen, 120),
        (ConnState::SynAck, 30),
        (ConnState::UdpOneWay, 300),
        (ConnState::UdpNormal, 300),
    ] {
        assert_eq!(t.ms(state), seconds * 1000, "{}", state.name());
    }
}

/// The states that a connection can be brought into, and the packets that bring it there.
fn bring(lab: &mut Lab, kind: Kind, n: u32, state: ConnState) -> Option<Flow> {
    let segments: &[(char, u8)] = match state {
        ConnState::UdpOneWay | ConnState::UdpNormal => {
            let flow = lab.open(kind, L4Proto::Udp, n);
            if state == ConnState::UdpNormal {
                send(lab, &flow, 's', 0);
            }
            return Some(flow);
        }
        ConnState::SynRecv => &[],
        ConnState::Established => &[('s', SYN | ACK), ('c', ACK)],
        ConnState::FinWait => &[('s', SYN | ACK), ('c', ACK), ('s', FIN | ACK)],
        ConnState::CloseWait => &[('s', SYN | ACK), ('c', ACK), ('c', FIN | ACK)],
        ConnState::TimeWait => &[('s', SYN | ACK), ('c', ACK), ('c', FIN | ACK), ('s', FIN | ACK)],
        ConnState::Close => &[('s', RST)],
        ConnState::SynSent => &[('s', RST), ('s', SYN)],
        // No packet leads there but in the middle of another: the table of LVS has them.
        ConnState::None | ConnState::LastAck | ConnState::Listen | ConnState::SynAck => return None,
    };
    let flow = lab.open(kind, L4Proto::Tcp, n);
    for &(who, flags) in segments {
        send(lab, &flow, who, flags);
    }
    Some(flow)
}

/// Sends without a look at counters.
fn send(lab: &mut Lab, flow: &Flow, who: char, flags: u8) {
    use evenkeel_core::port::{HeapFrame, PortId};
    let given = if who == 'c' {
        flow.inbound()
    } else {
        flow.outbound()
    };
    let given = if flow.proto == L4Proto::Tcp {
        given.flags(flags)
    } else {
        given
    };
    let mut frames = [HeapFrame::new(PortId(given.port), &given.bytes())];
    lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
    assert!(matches!(
        lab.verdicts.as_slice(),
        [evenkeel_core::worker::Verdict::Tx(_)]
    ));
}

/// Each state's own timeout, all different, and the conn lives exactly so long.
#[test]
fn each_timeout_is_settable_and_conns_live_as_long() {
    let timeout = |state: ConnState| Duration::from_millis(777 + 1_313 * state as u64);
    let mut reached = 0;
    for kind in KINDS {
        for state in ConnState::ALL {
            let mut lab = Lab::with(|c| {
                for s in &mut c.spec.services {
                    for state in ConnState::ALL {
                        assert!(s.timeouts.set(state, timeout(state)));
                    }
                }
            });
            let Some(flow) = bring(&mut lab, kind, 0, state) else {
                continue;
            };
            reached += 1;
            assert_eq!(lab.state(&flow), Some(state));
            lives(&mut lab, &flow, timeout(state));
        }
    }
    assert_eq!(reached, 4 * 9);
}

/// The conn is there until the last tick of its time, and not a tick longer.
#[track_caller]
fn lives(lab: &mut Lab, flow: &Flow, time: Duration) {
    let conn = lab.conn(&flow.inbound().tuple()).expect("there");
    assert_eq!(u128::from(conn.remaining_ms), time.as_millis());
    lab.pass(time - MS);
    lab.expire();
    assert!(lab.state(flow).is_some(), "a tick before");
    lab.pass(MS - Duration::from_nanos(1));
    lab.expire();
    assert!(lab.state(flow).is_some(), "a nanosecond before");
    lab.pass(Duration::from_nanos(1));
    assert!(lab.workers[0].poll_timeout().expect("due") <= lab.now);
    lab.expire();
    assert_eq!(lab.state(flow), None);
    lab.audit();
}

#[test]
fn expires_after_its_timeout_by_default() {
    for kind in KINDS {
        for (state, seconds, counter) in [
            (ConnState::SynRecv, 30, "expired"),
            (ConnState::Established, 90, "expired"),
            (ConnState::CloseWait, 7, "expired"),
            (ConnState::FinWait, 7, "expired"),
            (ConnState::TimeWait, 7, "removed"),
            (ConnState::Close, 3, "removed"),
            (ConnState::UdpOneWay, 300, "expired"),
            (ConnState::UdpNormal, 300, "expired"),
        ] {
            let mut lab = Lab::new();
            let flow = bring(&mut lab, kind, 0, state).expect("a state that packets lead to");
            lives(&mut lab, &flow, Duration::from_secs(seconds));
            let c = lab.counters();
            let want = if counter == "expired" { (1, 0) } else { (0, 1) };
            assert_eq!((c.expired, c.removed), want, "{}", state.name());
            // What comes late knows no conn; a datagram or a SYN opens another.
            match flow.proto {
                L4Proto::Tcp => {
                    lab.check(&flow.inbound(), Want::Drop(DropReason::NoConn), "");
                    lab.check(&flow.outbound(), Want::Drop(DropReason::NoConn), "");
                }
                L4Proto::Udp => {
                    lab.check(&flow.outbound(), Want::Drop(DropReason::NoConn), "");
                    lab.open_at(
                        kind.service(flow.proto),
                        &first(flow.proto, flow.client, flow.vip),
                    );
                }
            }
        }
    }
}

/// Packets of either side prolong; dropped ones do not.
#[test]
fn packets_prolong_and_dropped_ones_do_not() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        for i in 0..10 {
            lab.pass(Duration::from_secs(89));
            lab.expire();
            if i % 2 == 0 {
                lab.check(&flow.inbound(), Want::Inbound(&flow), "");
            } else {
                lab.check(&flow.outbound(), Want::Outbound(&flow), "");
            }
        }
        lab.pass(Duration::from_secs(89));
        let dying = flow.inbound().with(|p| p.ttl = 1);
        lab.check(&dying, Want::Drop(DropReason::TtlExpired), "");
        lab.pass(Duration::from_secs(1));
        lab.expire();
        assert_eq!(lab.state(&flow), None);
    }
}

/// A long-lived connection that closes: its nearer deadline counts, not the one it was armed for.
#[test]
fn closing_shortens() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        lab.pass(Duration::from_secs(1));
        lab.check(
            &flow.inbound().flags(RST),
            Want::Inbound(&flow),
            "ESTABLISHED-1 CLOSE+1 closed+1",
        );
        lives(&mut lab, &flow, Duration::from_secs(3));
    }
}

/// A reload with shorter timeouts: the next packet's deadline is nearer than what the conn was armed for.
#[test]
fn a_shorter_timeout_by_a_reload_counts_from_the_next_packet() {
    for kind in KINDS {
        for proto in [L4Proto::Tcp, L4Proto::Udp] {
            let mut lab = Lab::new();
            let flow = match proto {
                L4Proto::Tcp => lab.establish(kind, 0),
                L4Proto::Udp => lab.open(kind, proto, 0),
            };
            lab.reload(|s| {
                for service in &mut s.services {
                    for state in ConnState::ALL {
                        assert!(service.timeouts.set(state, Duration::from_secs(10)));
                    }
                }
            });
            lab.check(&flow.inbound(), Want::Inbound(&flow), "");
            lives(&mut lab, &flow, Duration::from_secs(10));
        }
    }
}

#[test]
fn timeouts_beyond_their_range_are_refused() {
    let mut t = Timeouts::default();
    for bad in [
        Duration::ZERO,
        TIMEOUT_MAX + Duration::from_nanos(1),
        Duration::MAX,
    ] {
        assert!(!t.set(ConnState::Established, bad));
    }
    assert_eq!(t, Timeouts::default());
    assert!(t.set(ConnState::Established, Duration::from_nanos(1)));
    assert_eq!(t.ms(ConnState::Established), 1, "rounded up");
    assert!(t.set(ConnState::Established, TIMEOUT_MAX));
    assert_eq!(t.ms(ConnState::Established), 7 * 86_400_000);
}

/// Seven days, the longest.
#[test]
fn the_longest_timeout() {
    let mut lab = Lab::with(|c| {
        for s in &mut c.spec.services {
            assert!(s.timeouts.set(ConnState::Established, TIMEOUT_MAX));
        }
    });
    let flow = lab.establish(Kind::V6, 0);
    lives(&mut lab, &flow, TIMEOUT_MAX);
}

/// Ten thousand conns that are due at once: bounded work a call, and all go in the end.
#[test]
fn bounded_work_a_call() {
    let mut lab = Lab::with(|c| {
        c.sizes.conns_v4 = 10_000;
        c.sizes.conns_v6 = 0;
    });
    let vip = Kind::V4.vip(L4Proto::Udp);
    for n in (0..10_000).step_by(20) {
        let mut frames: Vec<_> = (n..n + 20)
            .map(|n| packet(L4Proto::Udp, Kind::V4.client(n), vip).bytes())
            .map(|b| evenkeel_core::port::HeapFrame::new(evenkeel_core::port::PortId(0), &b))
            .collect();
        lab.workers[0].handle_burst(lab.now, &mut frames, &mut lab.verdicts);
    }
    assert_eq!(lab.workers[0].table().len(), 10_000);
    lab.pass(Duration::from_secs(300));
    let worker = &mut lab.workers[0];
    let mut calls = 0;
    while worker.poll_timeout().is_some_and(|due| due <= lab.now) {
        let before = worker.table().len();
        worker.handle_timeout(lab.now);
        assert!(before - worker.table().len() <= TIMER_BUDGET);
        calls += 1;
        assert!(calls <= 2 * 10_000 / TIMER_BUDGET, "every call gets on");
        if calls == 3 {
            worker.table().audit();
        }
    }
    assert!(calls >= 10_000 / TIMER_BUDGET);
    assert_eq!(worker.counters().expired, 10_000);
    assert!(worker.table().is_empty());
    lab.audit();
}

#[test]
fn an_idle_worker_has_nothing_to_wake_for() {
    let mut lab = Lab::new();
    assert_eq!(lab.workers[0].poll_timeout(), None);
    lab.workers[0].handle_timeout(lab.now);
    let flow = lab.open(Kind::V4, L4Proto::Tcp, 0);
    let due = lab.workers[0].poll_timeout().expect("a conn is armed");
    assert!(
        due <= lab.now + Duration::from_secs(30),
        "not later than its deadline"
    );
    lives(&mut lab, &flow, Duration::from_secs(30));
    assert_eq!(lab.workers[0].poll_timeout(), None);
}

/// A clock that goes back stands still for the engine.
#[test]
fn time_going_backwards() {
    for kind in KINDS {
        let mut lab = Lab::new();
        let flow = lab.establish(kind, 0);
        let now = lab.now;
        lab.now = Instant::from_millis(5);
        lab.check(&flow.inbound(), Want::Inbound(&flow), "");
        lab.open(kind, L4Proto::Tcp, 1);
        lab.workers[0].handle_timeout(lab.now);
        let conn = lab.conn(&flow.inbound().tuple()).expect("there");
        assert_eq!(conn.remaining_ms, 90_000);
        lab.now = now;
        lives(&mut lab, &flow, Duration::from_secs(90));
    }
}

/// The end of time is far, but a driver may name it.
#[test]
fn time_at_its_end() {
    let mut lab = Lab::new();
    let flow = lab.establish(Kind::V4, 0);
    lab.now = Instant::from_nanos(u64::MAX);
    lab.expire();
    assert_eq!(lab.state(&flow), None);
    let flow = lab.open_at(
        Kind::V4.service(L4Proto::Tcp),
        &syn(Kind::V4.client(3), Kind::V4.vip(L4Proto::Tcp)),
    );
    lab.workers[0].handle_timeout(lab.now);
    assert!(lab.state(&flow).is_some());
    assert_eq!(
        lab.workers[0].poll_timeout(),
        None,
        "its time lies behind the end: nobody shall wait for it"
    );
    lab.audit();
}

/// Captures count from 1970, and a node may be idle for years: no conn expires before its time for it.
#[test]
fn time_far_from_its_origin() {
    let day = Duration::from_secs(86_400);
    for start in [0, 1, 1 << 31, 1 << 32, 1_790_000_000_000, (1 << 42) - 1, 1 << 43] {
        let mut lab = Lab::new();
        lab.now = Instant::from_millis(start).max(lab.now);
        for (n, idle) in (0u32..).zip([Duration::ZERO, day, 25 * day, 40 * day, 800 * day, 3_000 * day]) {
            lab.pass(idle);
            let flow = lab.open(Kind::V4, L4Proto::Tcp, n);
            lab.workers[0].handle_timeout(lab.now);
            assert!(lab.state(&flow).is_some(), "{start} ms, then idle for {idle:?}");
            lives(&mut lab, &flow, Duration::from_secs(30));
        }
    }
}

/// What a packet finds does not depend on how far the timers got: a conn whose time is up is gone for it.
#[test]
fn an_overdue_conn_is_gone_for_its_packets() {
    for kind in KINDS {
        for proto in crate::story::PROTOS {
            let mut lab = Lab::new();
            let flow = lab.open(kind, proto, 0);
            let (time, state) = match proto {
                L4Proto::Tcp => (30, "SYN_RECV"),
                L4Proto::Udp => (300, "UDP_ONE_WAY"),
            };
            lab.pass(Duration::from_secs(time) - MS);
            lab.check(&first(proto, flow.client, flow.vip), Want::Inbound(&flow), "");
            lab.pass(Duration::from_secs(time));
            let gone = format!("expired+1 {state}-1");
            lab.check(&flow.outbound(), Want::Drop(DropReason::NoConn), &gone);
            lab.audit();
            // And for the client's next connection.
            let flow = lab.open(kind, proto, 1);
            lab.pass(Duration::from_secs(time));
            let want = Want::Opens(kind.service(proto));
            let again = first(proto, flow.client, flow.vip);
            lab.check(&again, want, "expired+1 opened+1");
            lab.audit();
        }
    }
}
