//! Twins: a burst against its packets one at a time, one run against another.

use std::time::Duration;

use evenkeel_core::conn::ConnView;
use evenkeel_core::port::{Frame, HeapFrame, PortId, RxChecksum};
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::worker::Verdict;
use proptest::prelude::*;

use crate::packet::{ACK, FIN, PSH, Packet, RST, SYN};
use crate::story::{Flow, KINDS, Kind, Lab, packet};

/// Few cases in a plain run; PROPTEST_CASES says otherwise.
pub(crate) fn cases(default: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(default),
    }
}

/// A frame before it is one: who sends what, and what is wrong with it.
#[derive(Clone, Debug)]
struct Draft {
    kind: Kind,
    proto: L4Proto,
    client: u32,
    from: From,
    flags: u8,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum From {
    /// The client.
    Client,
    /// The real server of the client's conn, if there is one.
    Server,
    /// The same real server, at another local port.
    Stray,
}

#[derive(Clone, Debug)]
enum Fault {
    None,
    LastHop,
    WrongChecksum,
    Cut(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    Tagged,
}

fn draft() -> impl Strategy<Value = Draft> {
    let flags = prop_oneof![
        4 => Just(SYN),
        2 => Just(SYN | ACK),
        4 => Just(ACK),
        2 => Just(PSH | ACK),
        3 => Just(FIN | ACK),
        3 => Just(RST),
        1 => any::<u8>(),
    ];
    let from = prop_oneof![5 => Just(From::Client), 4 => Just(From::Server), 1 => Just(From::Stray)];
    let fault = prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::LastHop),
        1 => Just(Fault::WrongChecksum),
        1 => any::<prop::sample::Index>().prop_map(Fault::Cut),
        2 => (any::<prop::sample::Index>(), 1u8..).prop_map(|(i, x)| Fault::Flip(i, x)),
        1 => Just(Fault::Tagged),
    ];
    let proto = prop_oneof![2 => Just(L4Proto::Tcp), 1 => Just(L4Proto::Udp)];
    (
        prop::sample::select(&KINDS[..]),
        proto,
        0u32..4,
        from,
        flags,
        fault,
    )
        .prop_map(|(kind, proto, client, from, flags, fault)| Draft {
            kind,
            proto,
            client,
            from,
            flags,
            fault,
        })
}

impl Draft {
    /// The frame, as things stand in `lab`.
    fn frame(&self, lab: &Lab) -> HeapFrame {
        self.frame_with(lab, &[])
    }

    /// The same with options of IPv4.
    fn frame_with(&self, lab: &Lab, ip_options: &[u8]) -> HeapFrame {
        let (client, vip) = (self.kind.client(self.client), self.kind.vip(self.proto));
        let flow = lab
            .conn(&packet(self.proto, client, vip).tuple())
            .map(|v| Flow::of(&v));
        let mut given: Packet = match (self.from, flow) {
            (From::Client, _) | (_, None) => packet(self.proto, client, vip),
            (From::Server, Some(flow)) => flow.outbound(),
            (From::Stray, Some(flow)) => flow.outbound().with(|p| {
                let port = p.dst.port();
                p.dst.set_port(port ^ 1);
            }),
        };
        if self.proto == L4Proto::Tcp {
            given = given.flags(self.flags);
        }
        match self.fault {
            Fault::LastHop => given.ttl = 1,
            Fault::Tagged => given.tags = vec![(0x8100, 77)],
            _ => {}
        }
        given.ip_options = ip_options.to_vec();
        let mut bytes = given.bytes();
        match &self.fault {
            Fault::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Fault::Flip(at, x) => {
                let at = at.index(bytes.len());
                bytes[at] ^= x;
            }
            _ => {}
        }
        let mut frame = HeapFrame::new(PortId(given.port), &bytes);
        if matches!(self.fault, Fault::WrongChecksum) {
            frame.rx_checksum = RxChecksum::Bad;
        }
        frame
    }
}

/// Drafts that arrive at one instant, and the time until the next ones.
type Script = Vec<(Vec<Draft>, u64)>;

fn script(groups: usize) -> impl Strategy<Value = Script> {
    let pause = prop_oneof![Just(0u64), 0u64..5, 0u64..40_000, Just(90_000)];
    prop::collection::vec((prop::collection::vec(draft(), 0..70), pause), 1..groups)
}

/// All that one can see of a worker.
type Sight = (
    Vec<(Verdict, Vec<u8>)>,
    Vec<ConnView>,
    evenkeel_core::stats::Counters,
    Option<evenkeel_core::time::Instant>,
);

fn sight(lab: &Lab, out: Vec<(Verdict, Vec<u8>)>) -> Sight {
    let mut conns: Vec<_> = lab.workers[0].table().iter().collect();
    conns.sort_by_key(|v| v.id);
    (
        out,
        conns,
        lab.workers[0].counters().clone(),
        lab.workers[0].poll_timeout(),
    )
}

fn small(seed: u64) -> Lab {
    Lab::with(|c| {
        c.seed = seed;
        // Small enough to be full now and then.
        c.sizes.conns_v4 = 6;
        c.sizes.conns_v6 = 20;
    })
}

fn hand_in(lab: &mut Lab, frames: &mut [HeapFrame], out: &mut Vec<(Verdict, Vec<u8>)>) {
    lab.workers[0].handle_burst(lab.now, frames, &mut lab.verdicts);
    assert_eq!(lab.verdicts.as_slice().len(), frames.len());
    for (frame, verdict) in frames.iter().zip(lab.verdicts.as_slice()) {
        out.push((*verdict, frame.data().to_vec()));
    }
}

proptest! {
    #![proptest_config(cases(200))]

    /// The same verdicts, bytes, counters and conns, however a sequence is cut into bursts.
    #[test]
    fn burst_equals_one_at_a_time(script in script(8), cuts in prop::collection::vec(1usize..70, 1..20)) {
        let (mut bursts, mut singles) = (small(1), small(1));
        let mut cuts = cuts.iter().cycle();
        for (drafts, pause) in script {
            let (mut of_bursts, mut of_singles) = (Vec::new(), Vec::new());
            let mut frames = Vec::new();
            for draft in drafts {
                let frame = draft.frame(&singles);
                frames.push(frame.clone());
                hand_in(&mut singles, &mut [frame], &mut of_singles);
            }
            let mut rest = &mut frames[..];
            while !rest.is_empty() {
                let (burst, behind) = rest.split_at_mut(rest.len().min(*cuts.next().expect("a cycle")));
                hand_in(&mut bursts, burst, &mut of_bursts);
                rest = behind;
            }
            prop_assert_eq!(sight(&bursts, of_bursts), sight(&singles, of_singles));
            for lab in [&mut bursts, &mut singles] {
                lab.audit();
                lab.pass(Duration::from_millis(pause));
                lab.expire();
            }
        }
    }

    /// What follows for conns does not depend on how a packet's headers are read: those that most have have a way of
    /// their own, those with options go the long one.
    #[test]
    fn headers_as_most_have_them_equal_others(script in script(8)) {
        let (mut short, mut long) = (small(1), small(1));
        for (drafts, pause) in script {
            let (mut of_short, mut of_long) = (Vec::new(), Vec::new());
            let plain = |d: &Draft| d.kind == Kind::V4 && matches!(d.fault, Fault::None | Fault::LastHop);
            for draft in drafts.into_iter().filter(plain) {
                // No operation, four times (RFC 791, section 3.1).
                let (frame, other) = (draft.frame(&short), draft.frame_with(&long, &[1; 4]));
                hand_in(&mut short, &mut [frame], &mut of_short);
                hand_in(&mut long, &mut [other], &mut of_long);
            }
            let verdicts = |out: Vec<(Verdict, Vec<u8>)>| out.into_iter().map(|(v, _)| v).collect::<Vec<_>>();
            prop_assert_eq!(verdicts(of_short), verdicts(of_long));
            let (seen, mut other) = (sight(&short, Vec::new()), sight(&long, Vec::new()));
            // Options have bytes.
            (other.2.rx_bytes, other.2.tx_bytes) = (seen.2.rx_bytes, seen.2.tx_bytes);
            prop_assert_eq!(seen, other);
            for lab in [&mut short, &mut long] {
                lab.audit();
                lab.pass(Duration::from_millis(pause));
                lab.expire();
            }
        }
    }

    /// The same seed and the same inputs: the same bytes. Nothing else is asked: no clock, no address of
    /// a thing in memory, no order of a hash table.
    #[test]
    fn same_seed_same_bytes(script in script(5), seed in any::<u64>()) {
        let run = |seed| {
            let mut lab = small(seed);
            let mut out = Vec::new();
            for (drafts, pause) in &script {
                for draft in drafts {
                    let frame = draft.frame(&lab);
                    hand_in(&mut lab, &mut [frame], &mut out);
                }
                lab.pass(Duration::from_millis(*pause));
                lab.expire();
            }
            sight(&lab, out)
        };
        prop_assert_eq!(run(seed), run(seed));
    }
}

/// Another seed: other local ports.
#[test]
fn another_seed_other_ports() {
    let ports = |seed| -> Vec<u16> {
        let mut lab = Lab::with(|c| c.seed = seed);
        (0..20)
            .map(|n| lab.open(Kind::V4, L4Proto::Tcp, n).local.port())
            .collect()
    };
    assert_eq!(ports(1), ports(1));
    assert_ne!(ports(1), ports(2));
}

/// The script above reaches what it is for: all verdicts, replaced and expired conns, full slabs.
#[test]
fn scripts_reach_all_of_it() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut all = evenkeel_core::stats::Counters::default();
    for _ in 0..20 {
        let script = script(8).new_tree(&mut runner).expect("a script").current();
        let mut lab = small(1);
        for (drafts, pause) in script {
            for draft in drafts {
                let frame = draft.frame(&lab);
                hand_in(&mut lab, &mut [frame], &mut Vec::new());
            }
            lab.pass(Duration::from_millis(pause));
            lab.expire();
        }
        all.add(&lab.counters());
    }
    let moved = crate::story::flat(&all);
    for name in [
        "opened",
        "established",
        "closed",
        "expired",
        "removed",
        "outbound_packets",
        "bad-checksum",
        "truncated",
        "bad-tcp-flags",
        "no-conn",
        "conn-table-full",
        "ttl-expired",
        "bad-length",
    ] {
        assert!(moved[name] > 0, "{name}");
    }
}
