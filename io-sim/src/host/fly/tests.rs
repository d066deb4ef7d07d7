//! Packet stories of single ends: what comes in, what goes out, where the connection stands.

use std::net::SocketAddr;
use std::time::Duration;

use super::flow::{Flow, State, flag};
use super::segment::{ACK, FIN, RST, SYN, Segment};
use super::talk::Talk;
use super::{TcpProfile, Turn};
use crate::flow::{FlowRecord, FlowSpec};
use crate::host::wire::{ETHERNET_LEN, IPV4, Packet};
use crate::ids::{FlowId, HostId};
use crate::world::World;

const REQUEST: u32 = 4_000;
const REPLY: u32 = 3_000;
const IRS: u32 = 0xffff_f000;

/// A server's end, in whose hands we put segments of a client's.
struct Bench {
    world: World,
    flows: Vec<FlowRecord>,
    flow: Flow,
    local: SocketAddr,
}

/// What went out: flags, sequence number and acknowledgement from the ends' first bytes on, length.
type Out = (u8, i64, i64, usize);

impl Bench {
    /// Established; nothing was said by the client yet.
    fn server() -> Bench {
        let (local, remote): (SocketAddr, SocketAddr) = (
            "10.0.0.2:80".parse().expect("ok"),
            "10.0.0.1:5000".parse().expect("ok"),
        );
        let mut spec = FlowSpec::tcp(HostId(0), remote.ip(), local);
        (spec.requests, spec.request_len, spec.reply_len) = (10, REQUEST, REPLY);
        let mut flow = Flow::new(State::SynReceived, 0, 80, remote, 77, 0);
        flow.app = 3;
        let mut bench = Bench {
            world: World::new(5),
            flows: vec![FlowRecord::new(spec)],
            flow,
            local,
        };
        let syn = Segment {
            seq: IRS,
            ack: 0,
            flags: SYN,
            window: 65_535,
            mss: Some(1_000),
            data: &[],
        };
        let out = bench.turn(|flow, turn| flow.open(turn, &syn));
        assert_eq!(out, [(SYN | ACK, -1, 0, 0)]);
        let out = bench.segment(ACK, 0, 0, &[]);
        assert_eq!(out.len(), 1, "its greeting: {out:?}");
        bench
    }

    fn turn(&mut self, happens: impl FnOnce(&mut Flow, &mut Turn<'_>)) -> Vec<Out> {
        let mut turn = Turn {
            net: &mut self.world.net,
            flows: &mut self.flows,
            tcp: TcpProfile::default(),
            mtu: 1_500,
            local: self.local,
            out: Vec::new(),
        };
        happens(&mut self.flow, &mut turn);
        self.flow.server(&mut turn);
        self.flow.output(&mut turn);
        let out = std::mem::take(&mut turn.out);
        out.iter().map(|frame| self.read(frame)).collect()
    }

    fn read(&self, frame: &[u8]) -> Out {
        let packet = Packet::parse(IPV4, &frame[ETHERNET_LEN..]).expect("whole");
        let s = Segment::parse(packet.payload).expect("whole");
        let from = |seq: u32, first: u32| i64::from(seq.wrapping_sub(first).wrapping_sub(1).cast_signed());
        // That a message ends here is not looked at.
        let flags = s.flags & !super::segment::PSH;
        if s.flags & ACK == 0 {
            return (flags, from(s.seq, self.flow.iss), 0, s.data.len());
        }
        (flags, from(s.seq, self.flow.iss), from(s.ack, IRS), s.data.len())
    }

    /// A segment of the client's: position, and what it acknowledges of ours.
    fn segment(&mut self, flags: u8, position: i64, acks: u64, data: &[u8]) -> Vec<Out> {
        let segment = Segment {
            seq: IRS.wrapping_add(1).wrapping_add(position as u32),
            ack: self.flow.seq(acks),
            flags,
            window: 65_535,
            mss: None,
            data,
        };
        self.turn(|flow, turn| {
            flow.receive(turn, &segment);
            flow.heard(turn);
        })
    }

    /// What the client says between two positions.
    fn said(&self, from: u64, to: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let talk = Talk::client(self.world.net.streams.seed(), FlowId(0), REQUEST, REPLY);
        talk.say(from, (to - from) as usize, &mut out);
        out
    }

    fn later(&mut self, span: Duration) {
        self.world.net.now += span.as_nanos() as u64;
    }

    fn due(&mut self) -> Vec<Out> {
        self.world.net.now = self.flow.timer_at;
        self.turn(Flow::due)
    }
}

/// The end of the first request.
const END: u64 = 24 + REQUEST as u64;

#[test]
fn segments_may_come_in_any_order_and_often() {
    let cuts = [0, 500, 1_400, 2_400, 3_300, END];
    // Every order of five segments, some of them twice.
    for n in 0..5u64.pow(5) {
        let mut bench = Bench::server();
        let order = (0..5).map(|digit| (n / 5u64.pow(digit) % 5) as usize);
        let order: Vec<_> = order.chain(0..5).collect();
        for (count, &i) in order.iter().enumerate() {
            let data = bench.said(cuts[i], cuts[i + 1]);
            let fin = if i == 4 { FIN } else { 0 };
            bench.segment(ACK | fin, cuts[i] as i64, 16, &data);
            // How far all is there, whatever was kept of what came early.
            let came = &order[..=count];
            let whole = (0..5).take_while(|i| came.contains(i)).count();
            assert!(bench.flow.received <= cuts[whole], "{order:?}");
            assert!(!bench.flow.is(flag::WRONG), "{order:?}");
        }
        // The last five came in order: nothing is missing, and the FIN is taken once.
        assert_eq!(
            (bench.flow.received, bench.flow.state),
            (END, State::LastAck),
            "{order:?}"
        );
        assert_eq!(bench.flows[0].server_bytes, END);
    }
}

#[test]
fn what_came_early_is_not_asked_for_again() {
    let mut bench = Bench::server();
    let data = bench.said(1_000, 3_000);
    assert_eq!(
        bench.segment(ACK, 1_000, 16, &data),
        [(ACK, 16, 0, 0)],
        "who speaks is not known yet"
    );
    let head = bench.said(0, 500);
    assert_eq!(bench.segment(ACK, 0, 16, &head), [(ACK, 16, 500, 0)]);
    assert_eq!(
        bench.segment(ACK, 1_000, 16, &data),
        [(ACK, 16, 500, 0)],
        "an equal acknowledgement"
    );
    // It overlaps both.
    let between = bench.said(400, 1_100);
    assert_eq!(bench.segment(ACK, 400, 16, &between), [(ACK, 16, 3_000, 0)]);
    // The request is whole: it is answered, as far as ten segments go.
    let rest = bench.said(3_000, END);
    let out = bench.segment(ACK, 3_000, 16, &rest);
    let end = END as i64;
    assert_eq!(
        out,
        [
            (ACK, 16, end, 1_000),
            (ACK, 1_016, end, 1_000),
            (ACK, 2_016, end, 1_000)
        ]
    );
}

#[test]
fn a_wrong_byte_is_seen_though_it_comes_early() {
    for at in [500, 700] {
        let mut bench = Bench::server();
        let head = bench.said(0, 500);
        bench.segment(ACK, 0, 16, &head);
        let mut data = bench.said(at, at + 100);
        data[99] ^= 1;
        let out = bench.segment(ACK, at as i64, 16, &data);
        assert_eq!(out.iter().map(|o| o.0).collect::<Vec<_>>(), [RST | ACK]);
        assert!(bench.flows[0].broken.is_some());
    }
    // A head that says another flow's lengths.
    let mut bench = Bench::server();
    let mut head = bench.said(0, 24);
    head[13] ^= 1;
    bench.segment(ACK, 0, 16, &head);
    assert_eq!(
        (bench.flow.state, bench.flows[0].broken),
        (State::Closed, None),
        "whose it is, is not known"
    );
}

#[test]
fn a_reset_counts_where_the_next_byte_would_stand() {
    let mut bench = Bench::server();
    assert_eq!(bench.segment(RST, 65_535, 0, &[]), [], "beyond the window");
    assert_eq!(bench.segment(RST, -1, 0, &[]), [], "before it");
    // RFC 5961: within it the other end is asked; if it means it, its answer has the right number.
    assert_eq!(bench.segment(RST, 9, 0, &[]), [(ACK, 16, 0, 0)]);
    assert_eq!(bench.flow.state, State::Established);
    assert_eq!(bench.segment(RST, 0, 0, &[]), []);
    assert_eq!(bench.flow.state, State::Closed);
}

#[test]
fn a_syn_in_the_midst_is_answered_and_changes_nothing() {
    let mut bench = Bench::server();
    assert_eq!(bench.segment(SYN, 5_000, 0, &[]), [(ACK, 16, 0, 0)]);
    assert_eq!(bench.segment(SYN, -1, 0, &[]), [(ACK, 16, 0, 0)]);
    assert_eq!(bench.flow.state, State::Established);
}

#[test]
fn two_ends_that_disagree_do_not_answer_each_other_for_ever() {
    let mut bench = Bench::server();
    assert_eq!(
        bench.segment(ACK, 90_000, 16, &[]),
        [],
        "empty, out of the window"
    );
    assert_eq!(
        bench.segment(ACK, 0, 900, &[]),
        [],
        "acknowledges what was never sent"
    );
    assert_eq!(bench.flow.una, 0);
    assert_eq!(bench.segment(ACK, -1, 0, &[]), [(ACK, 16, 0, 0)], "a keepalive");
    assert_eq!(
        bench.segment(ACK, 90_000, 16, &[7]),
        [(ACK, 16, 0, 0)],
        "what has bytes is answered"
    );
}

/// The first request is there, and its reply of three segments is under way.
fn replying() -> Bench {
    let mut bench = Bench::server();
    bench.later(Duration::from_millis(10));
    for (from, to) in [(0, 2_000), (2_000, END)] {
        let data = bench.said(from, to);
        bench.segment(ACK, from as i64, 16, &data);
    }
    assert_eq!((bench.flow.una, bench.flow.max), (16, REPLY));
    bench
}

#[test]
fn three_equal_acknowledgements_bring_the_segment_and_then_the_next_hole() {
    let mut bench = replying();
    let end = END as i64;
    for _ in 0..2 {
        assert_eq!(bench.segment(ACK, end, 16, &[]), []);
    }
    assert_eq!(bench.segment(ACK, end, 16, &[]), [(ACK, 16, end, 1_000)]);
    assert_eq!(bench.segment(ACK, end, 16, &[]), [], "once");
    // RFC 6582: what is acknowledged in part shows the next hole.
    assert_eq!(bench.segment(ACK, end, 2_016, &[]), [(ACK, 2_016, end, 1_000)]);
    assert_eq!(bench.segment(ACK, end, 3_016, &[]), []);
    assert!(!bench.flow.is(flag::RECOVERS) && bench.flow.timer_at == u64::MAX);
}

#[test]
fn a_timeout_sends_one_segment_and_the_rest_as_acknowledgements_come() {
    let mut bench = replying();
    let end = END as i64;
    assert_eq!(bench.due(), [(ACK, 2_016, end, 1_000)], "the probe: the last one");
    assert_eq!(bench.due(), [(ACK, 16, end, 1_000)]);
    assert_eq!(bench.due(), [(ACK, 16, end, 1_000)]);
    assert_eq!((bench.flow.retries, bench.flow.backoff), (2, 2));
    let out = bench.segment(ACK, end, 1_016, &[]);
    assert_eq!(out, [(ACK, 1_016, end, 1_000), (ACK, 2_016, end, 1_000)]);
    assert_eq!((bench.flow.retries, bench.flow.backoff), (0, 0));
    assert_eq!(bench.segment(ACK, end, 3_016, &[]), []);
    assert_eq!(bench.flow.max, 0);
}

#[test]
fn a_closed_window_is_asked_for_a_byte() {
    let mut bench = Bench::server();
    bench.segment(ACK, 0, 16, &[]);
    let data = bench.said(0, END);
    let closed = Segment {
        seq: IRS.wrapping_add(1),
        ack: bench.flow.seq(16),
        flags: ACK,
        window: 0,
        mss: None,
        data: &data,
    };
    let end = END as i64;
    assert_eq!(
        bench.turn(|flow, turn| flow.receive(turn, &closed)),
        [(ACK, 16, end, 0)]
    );
    assert_eq!(bench.due(), [(ACK, 16, end, 1)]);
    assert_eq!(bench.due(), [(ACK, 16, end, 1)]);
    // It opens, and the byte was not taken.
    let out = bench.segment(ACK, end, 16, &[]);
    assert_eq!(
        out.iter().map(|o| (o.1, o.3)).collect::<Vec<_>>(),
        [(16, 1_000), (1_016, 1_000), (2_016, 1_000)]
    );
}

#[test]
fn the_timeout_follows_the_round_trip() {
    let mut bench = replying();
    bench.later(Duration::from_millis(300));
    bench.segment(ACK, END as i64, 3_016, &[]);
    // RFC 6298 in Linux's integers, from a first sample of nearly nothing: an eighth and a quarter of what is new.
    let (srtt, spread) = (bench.flow.srtt >> 3, bench.flow.deviation);
    assert!((37_000..39_000).contains(&srtt), "{srtt} us");
    assert!((290_000..310_000).contains(&spread), "{spread} us");
}
