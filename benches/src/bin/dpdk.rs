//! The engine between DPDK's ports: `cargo run --profile bench -p evenkeel-benches --features dpdk --bin dpdk -- --help`.

use std::process::ExitCode;
use std::time::Duration;

use evenkeel_benches::flows::{Kind, Order, Segment, flow, write_data, write_segment};
use evenkeel_benches::frame::BenchFrame;
use evenkeel_benches::measure::{Stopwatch, quantile, size};
use evenkeel_benches::world::{self, ESTABLISHED_TIMEOUT};
use evenkeel_core::port::{BURST, Frame, HandoffTag, Port, PortId, WorkerId};
use evenkeel_core::step::{StepBuffers, step};
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::{L4Proto, Tuple};
use evenkeel_core::worker::Worker;
use evenkeel_io_dpdk::{DpdkPort, Eal, EalArgs, InterfaceConfig, Mbuf, Memory, Mempool, MempoolConfig};
use evenkeel_node::memory::Pages;
use serde_json::json;

const HELP: &str = "\
Runs bursts of 32 through DPDK: net_ring, the engine, net_null; one worker, FullNAT over IPv4, both directions, flows at
random. Prints medians in nanoseconds a packet, drivers included, beside an echo (receive, swap the MAC addresses, send) on the
same ports in the same run. Frames are made by this process and put into the ring before a burst is timed.

    dpdk [--flows 2900,100k,1m] [--batches N] [--bursts N] [--connections N] [--open N] [--json] [--check]

    --flows        established flows in the table
    --batches      batches of each side (101)
    --bursts       bursts of 32 in a batch (128)
    --connections  short TCP connections of 6 packets, opened at 1 M a second of the engine's clock (1m; 0: none):
                   the median of batches of 65,536
    --open         connections before them, not timed: 7.5 M fill the table as this rate does (7500k)
    --json         one object on standard output
    --check        exit code 1 if a goal was missed: 60, 80 and 95 ns a packet, and 1 M short connections a second

Goals are for a core of its own, whose echo takes 20 ns. Where it takes longer, as other machines share the core and its memory,
a goal is as many times as far: a ratio to the echo of the same run.

Exit code: 0, 1 packets were lost (or see --check), 2 a wrong call, 3 DPDK or memory cannot be had.
";

/// Connections that are open, or in TIME_WAIT for 7 s, at a rate of 1 M a second.
const OPEN_CONNECTIONS: u32 = 7_500_000;
/// Short connections that are timed at once: in so many, everything that expires has its turns.
const CONNECTION_BATCH: u32 = 65_536;
/// Flows, and the nanoseconds a packet that they are to take at most.
const GOALS: [(u32, f64); 3] = [(2_900, 60.0), (100_000, 80.0), (1_000_000, 95.0)];
/// Nanoseconds that a short connection is to take at most: 1 M a second.
const CONNECTION_GOAL: f64 = 1000.0;
/// Nanoseconds that the echo takes on a core that nobody else uses: there, goals are what they say.
const ECHO: f64 = 20.0;
/// Flows of the echo beside short connections, and connections between two of its bursts.
const ECHO_FLOWS: u32 = 2_900;
const ECHO_EVERY: u32 = 1024;
/// Time between two connections at that rate.
const CONNECTION_INTERVAL: Duration = Duration::from_micros(1);

struct Options {
    flows: Vec<u32>,
    batches: usize,
    bursts: usize,
    connections: u32,
    open: u32,
    json: bool,
    check: bool,
}

fn options() -> Result<Options, String> {
    let mut o = Options {
        flows: vec![2_900, 100_000, 1_000_000],
        batches: 101,
        bursts: 128,
        connections: 1_000_000,
        open: OPEN_CONNECTIONS,
        json: false,
        check: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        let number = |text: String| text.parse::<usize>().map_err(|e| format!("{arg} {text}: {e}"));
        match arg.as_str() {
            "--json" => o.json = true,
            "--check" => o.check = true,
            "--flows" => o.flows = value()?.split(',').map(size).collect::<Result<_, _>>()?,
            "--batches" => o.batches = number(value()?)?.max(1),
            "--bursts" => o.bursts = number(value()?)?.max(1),
            "--connections" => {
                let text = value()?;
                o.connections = if text == "0" { 0 } else { size(&text)? };
            }
            "--open" => o.open = size(&value()?)?,
            "-h" | "--help" => {
                print!("{HELP}");
                std::process::exit(0);
            }
            other => return Err(format!("no option {other}")),
        }
    }
    Ok(o)
}

/// Where frames come from, and where they go.
struct Bench {
    source: DpdkPort,
    sink: DpdkPort,
    pool: Mempool,
}

impl Port for Bench {
    type Frame = Mbuf;

    fn rx_burst(&mut self, into: &mut Vec<Mbuf>) -> usize {
        self.source.rx_burst(into)
    }

    fn alloc(&mut self, len: usize) -> Option<Mbuf> {
        self.sink.alloc(len)
    }

    fn tx(&mut self, port: PortId, frame: Mbuf) {
        self.sink.tx(port, frame);
    }

    fn punt(&mut self, frame: Mbuf) {
        self.sink.punt(frame);
    }

    fn handoff(&mut self, to: WorkerId, frame: Mbuf, tag: HandoffTag) {
        self.sink.handoff(to, frame, tag);
    }

    fn flush(&mut self) {
        self.sink.flush();
    }
}

impl Bench {
    /// Puts a frame into the ring.
    fn feed(&mut self, bytes: &[u8]) {
        let mut frame = self
            .pool
            .alloc(bytes.len())
            .expect("the pool holds several bursts");
        frame.data_mut()[..bytes.len()].copy_from_slice(bytes);
        self.source.tx(PortId(0), frame);
    }

    /// Puts a burst of established packets into the ring.
    fn feed_burst(&mut self, order: &mut Order) {
        let mut frame = BenchFrame::default();
        for slot in 0..BURST {
            write_data(&mut frame, Kind::V4, order.packet(), slot);
            self.feed(frame.data());
        }
        self.source.flush();
    }

    fn sent(&self) -> u64 {
        self.sink.stats().tx_frames
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprint!("dpdk: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dpdk: {error}");
            ExitCode::from(3)
        }
    }
}

fn run(options: &Options) -> Result<bool, Box<dyn std::error::Error>> {
    let args = EalArgs::new(Memory::Auto { mb: 256 })
        .vdev("net_ring0", &[])
        .vdev("net_null0", &[("no-rx", "1")]);
    let eal = Eal::init(&args)?;
    let pool = Mempool::create(&eal, "bench", MempoolConfig::default())?;
    let mut bench = Bench {
        source: DpdkPort::open(&eal, &[InterfaceConfig::new("net_ring0")], &pool)?,
        sink: DpdkPort::open(&eal, &[InterfaceConfig::new("net_null0")], &pool)?,
        pool,
    };
    let lcore = eal.register_thread()?;
    let (mut all_forwarded, mut goals_reached) = (true, true);
    let mut rows = Vec::new();
    for &flows in &options.flows {
        // As long as a packet gives a conn: a longer time would be cut by its first packet, and its timer moved.
        let mut worker = world::established(Kind::V4, flows, ESTABLISHED_TIMEOUT, Pages::Huge)?;
        let (mut engine, mut echo) = (Vec::new(), Vec::new());
        for batch in 0..options.batches + options.batches.div_ceil(10) {
            let mut order = Order::new(0x5eed ^ (batch as u64) << 32, flows);
            let before = bench.sent();
            let e = established(&mut bench, &mut worker, &mut order, options.bursts);
            let f = plain_echo(&mut bench, &mut order, options.bursts);
            all_forwarded &= bench.sent() - before == 2 * (options.bursts * BURST) as u64;
            if batch >= options.batches.div_ceil(10) {
                engine.push(e);
                echo.push(f);
            }
        }
        let (engine, echo) = (quantile(&mut engine, 0.5), quantile(&mut echo, 0.5));
        let goal = GOALS.iter().find(|(of, _)| *of == flows);
        let goal = goal.map(|(_, ns)| Goal::new(*ns, echo));
        goals_reached &= goal.is_none_or(|goal| goal.is_reached(engine));
        if !options.json {
            println!(
                "{flows:>9} flows: {engine:6.1} ns a packet, echo {echo:5.1}, ratio {:.2}{}",
                engine / echo,
                against(engine, goal)
            );
        }
        rows.push(json!({ "flows": flows, "engine_ns": engine, "echo_ns": echo }));
    }
    let mut short = None;
    if options.connections > 0 {
        let (ns, echo) = connections(&mut bench, options.open, options.connections)?;
        let goal = Goal::new(CONNECTION_GOAL, echo);
        goals_reached &= goal.is_reached(ns);
        if !options.json {
            println!(
                "short TCP connections: {ns:6.1} ns each, {:.2} M a second, echo {echo:.1}, ratio {:.1}{}",
                1000.0 / ns,
                ns / echo,
                against(ns, Some(goal))
            );
        }
        short = Some((ns, echo));
    }
    if options.json {
        let pages = if eal.without_hugepages() { "small" } else { "huge" };
        println!(
            "{}",
            json!({ "established": rows, "connection_ns": short.map(|(ns, _)| ns),
                    "connection_echo_ns": short.map(|(_, echo)| echo), "packet_memory": pages,
                    "all_forwarded": all_forwarded, "goals_reached": goals_reached })
        );
    }
    if !all_forwarded {
        eprintln!("dpdk: some packets were not forwarded");
    }
    drop((bench, lcore));
    eal.shutdown()?;
    Ok(all_forwarded && (goals_reached || !options.check))
}

/// What something is to take at most, in nanoseconds.
#[derive(Clone, Copy)]
struct Goal {
    /// On a core of its own.
    alone: f64,
    /// On this one, by its echo.
    here: f64,
}

impl Goal {
    fn new(alone: f64, echo: f64) -> Self {
        let here = alone * (echo / ECHO).max(1.0);
        Goal { alone, here }
    }

    fn is_reached(self, ns: f64) -> bool {
        ns <= self.here
    }
}

/// How a measurement stands to its goal, for people.
fn against(ns: f64, goal: Option<Goal>) -> String {
    let Some(goal) = goal else { return String::new() };
    let is = if goal.is_reached(ns) { "reached" } else { "missed" };
    format!(", goal {:.0} (on this core {:.0}) {is}", goal.alone, goal.here)
}

/// Established packets through the engine, in nanoseconds each.
fn established(bench: &mut Bench, worker: &mut Worker, order: &mut Order, bursts: usize) -> f64 {
    let (mut buffers, mut watch) = (StepBuffers::default(), Stopwatch::default());
    for _ in 0..bursts {
        bench.feed_burst(order);
        watch.time(|| step(worker, bench, Instant::from_nanos(1), &mut buffers));
    }
    watch.per(bursts * BURST)
}

/// The same packets sent back as they are, but for their MAC addresses.
fn plain_echo(bench: &mut Bench, order: &mut Order, bursts: usize) -> f64 {
    let (mut frames, mut watch) = (Vec::with_capacity(BURST), Stopwatch::default());
    for _ in 0..bursts {
        bench.feed_burst(order);
        watch.time(|| {
            bench.rx_burst(&mut frames);
            for mut frame in frames.drain(..) {
                if let Some(macs) = frame.data_mut().first_chunk_mut::<12>() {
                    macs.rotate_left(6);
                }
                bench.tx(PortId(0), frame);
            }
            bench.flush();
        });
    }
    watch.per(bursts * BURST)
}

/// Short connections, 32 at a time: SYN, SYN-ACK, ACK, FIN, FIN of the server, ACK. Nanoseconds each, at a steady
/// number of connections in TIME_WAIT, which expire as fast as new ones come. And nanoseconds a packet of an echo in
/// their midst.
fn connections(bench: &mut Bench, open: u32, count: u32) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let (open, batches) = (
        open.next_multiple_of(BURST as u32),
        count.div_ceil(CONNECTION_BATCH),
    );
    let total = open + batches * CONNECTION_BATCH;
    let mut worker = world::worker(total.min(OPEN_CONNECTIONS + 500_000), 0, Pages::Huge)?;
    let mut now = Instant::from_nanos(1);
    let mut buffers = StepBuffers::default();
    let mut forwarded = 0u64;
    let mut burst = |bench: &mut Bench, first: u32, watch: &mut Stopwatch| {
        let mut locals = [None; BURST];
        for segment in Segment::ALL {
            let mut frame = BenchFrame::default();
            for (slot, local) in locals.iter_mut().enumerate() {
                let n = first + slot as u32;
                if segment == Segment::SynAck {
                    *local = local_of(&worker, n);
                }
                if segment == Segment::Syn || local.is_some() {
                    write_segment(&mut frame, n, *local, segment);
                    bench.feed(frame.data());
                }
            }
            bench.source.flush();
            let before = bench.sent();
            watch.time(|| step(&mut worker, &mut *bench, now, &mut buffers));
            forwarded += bench.sent() - before;
        }
        now = now + CONNECTION_INTERVAL * BURST as u32;
    };
    for first in (0..open).step_by(BURST) {
        burst(bench, first, &mut Stopwatch::default());
    }
    let (mut times, mut echoes) = (Vec::new(), Vec::new());
    let mut order = Order::new(0x5eed, ECHO_FLOWS);
    for batch in 0..batches {
        let (begin, mut watch) = (open + batch * CONNECTION_BATCH, Stopwatch::default());
        for first in (begin..begin + CONNECTION_BATCH).step_by(BURST) {
            burst(bench, first, &mut watch);
            if first % ECHO_EVERY == 0 {
                echoes.push(plain_echo(bench, &mut order, 1));
            }
        }
        times.push(watch.per(CONNECTION_BATCH as usize));
    }
    let wanted = u64::from(total) * Segment::ALL.len() as u64;
    if forwarded != wanted {
        return Err(format!("{forwarded} of {wanted} packets of short connections were forwarded").into());
    }
    Ok((quantile(&mut times, 0.5), quantile(&mut echoes, 0.5)))
}

/// The local and the server's end that the engine chose for the connection of a client.
fn local_of(worker: &Worker, n: u32) -> Option<([u8; 4], u16, [u8; 4])> {
    let f = flow(Kind::V4, n);
    let tuple = Tuple {
        proto: L4Proto::Tcp,
        src: (f.client.0.ip(), f.client.1).into(),
        dst: (f.vip.0.ip(), f.vip.1).into(),
    };
    let (view, _) = worker.conn(&tuple)?;
    match (view.init.local, view.init.server) {
        (std::net::SocketAddr::V4(local), std::net::SocketAddr::V4(server)) => {
            Some((local.ip().octets(), local.port(), server.ip().octets()))
        }
        _ => None,
    }
}
