//! Runs one case over DPDK, for `tests/pcap_parity.rs`: EAL starts once per process, so that each case is a
//! process. Not a tool for users.
//!
//! `evenkeel-dpdk-pcap MODE key=value ..` prints `= key value` lines among EAL's own. Exit 0: the case ran;
//! 1: it was refused, with the reason on stderr.

mod workers;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::process::ExitCode;

use evenkeel_core::conn::HeapMemory;
use evenkeel_core::port::{BURST, Frame, Port, PortId, WorkerId};
use evenkeel_core::proto::ConnState;
use evenkeel_core::stats::{Counters, DropReason};
use evenkeel_core::step::{StepBuffers, step};
use evenkeel_core::time::Instant;
use evenkeel_core::worker::{BucketMap, Command, Worker, WorkerConfig};
use evenkeel_io_dpdk::{
    DeviceSpec, DpdkPort, Eal, EalArgs, InterfaceConfig, Mbuf, Memory, Mempool, MempoolConfig, PacedPort,
    PortStats,
};

/// Polls without a frame, one after the other, that end a case: net_pcap gives nothing, for ever, at the
/// end of its file.
const EMPTY_POLLS_MAX: u32 = 64;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel-dpdk-pcap: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mode = args.next().ok_or("no mode")?;
    let args = Args::parse(args)?;
    match mode.as_str() {
        "forward" => forward(&args),
        "paced" => paced(&args),
        "engine" => engine(&args),
        "ring" => ring(&args),
        "open" => open(&args),
        "workers" => workers::workers(&args),
        "gone" => workers::gone(&args),
        "devices" => workers::devices(&args),
        "tap" => workers::tap(&args),
        "checksum" => workers::checksum(&args),
        "init-twice" => init_twice(&args),
        "threads" => threads(&args),
        "shutdown" => shutdown(&args),
        _ => Err(format!("no mode {mode:?}").into()),
    }
}

/// A capture through the port: `in`, `out`, `count`; optionally `pull`, `push` (bytes of 0x5a) and `trim` in
/// this order on each frame, `checksum` (asks for that of a transport header at this byte, behind an IPv6 header), `times` (a file for the receive times), `room` and `frames` of the pool.
fn forward(args: &Args) -> Result<()> {
    let (input, output) = (args.text("in")?, args.text("out")?);
    let count: u64 = args.number("count")?;
    let (pull, push) = (args.number_or("pull", 0)?, args.number_or("push", 0)?);
    let trim = args.number_or("trim", usize::MAX)?;
    let checksum = args
        .get("checksum")
        .map(|_| args.number("checksum"))
        .transpose()?;
    let eal = args.eal(|eal| eal.vdev("net_pcap0", &[("rx_pcap", input), ("tx_pcap", output)]))?;
    let (pool, mut port) = args.open(&eal, &["net_pcap0"])?;
    let lcore = eal.register_thread()?;
    let free_before = pool.available();
    let stamp = eal.rx_timestamp_field();
    let mut times = String::new();
    let (mut segments_max, mut refused) = (0, 0u64);
    let got = for_each_frame(&mut port, count, |port, mut frame| {
        segments_max = segments_max.max(frame.segment_count());
        match stamp.and_then(|field| frame.rx_timestamp(field)) {
            Some(time) => times.push_str(&format!("{time}\n")),
            None => times.push_str("none\n"),
        }
        frame.pull_front(pull);
        if push > 0 {
            match frame.push_front(push) {
                Some(head) => head.iter_mut().take(push).for_each(|byte| *byte = 0x5a),
                None => {
                    refused += 1;
                    return Ok(());
                }
            }
        }
        frame.truncate(trim);
        if let Some(l4) = checksum {
            frame.offload_tx_checksum(l4 - 40, l4);
        }
        frame.check()?;
        promises_kept(&frame)?;
        port.tx(frame.ingress(), frame);
        Ok(())
    })?;
    if let Some(path) = args.get("times") {
        fs::write(path, times)?;
    }
    say("received", got);
    say("refused", refused);
    say("segments_max", segments_max);
    say_stats(&port.stats());
    let driver = port.driver_stats(PortId(0)).ok_or("no driver statistics")?;
    say("driver_rx", driver.rx_packets);
    say("driver_tx", driver.tx_packets);
    say("link_up", port.link(PortId(0)).ok_or("no link state")?.up);
    say("free_before", free_before);
    say("free_after", pool.available());
    drop((port, pool, lcore));
    eal.shutdown()?;
    say("shut_down", true);
    Ok(())
}

/// A capture through the port in runs of equal time: `in`, `out`, `count`, `times`.
fn paced(args: &Args) -> Result<()> {
    let (input, output) = (args.text("in")?, args.text("out")?);
    let count: u64 = args.number("count")?;
    let eal = args.eal(|eal| eal.vdev("net_pcap0", &[("rx_pcap", input), ("tx_pcap", output)]))?;
    let (pool, port) = args.open(&eal, &["net_pcap0"])?;
    let free_before = pool.available();
    let field = eal
        .rx_timestamp_field()
        .ok_or("the driver does not stamp frames")?;
    let mut port = PacedPort::new(port, field);
    let mut burst = Vec::with_capacity(BURST);
    let (mut got, mut empty, mut times) = (0, 0, String::new());
    while got < count && empty < EMPTY_POLLS_MAX {
        let Some(now) = port.next_time() else {
            empty += 1;
            continue;
        };
        let run = port.rx_burst(&mut burst);
        times.push_str(&format!("{} {run}\n", now.as_nanos()));
        got += run as u64;
        for frame in burst.drain(..) {
            port.tx(frame.ingress(), frame);
        }
        port.flush();
    }
    fs::write(args.text("times")?, times)?;
    say("received", got);
    say("free_before", free_before);
    say("free_after", pool.available());
    drop((port, pool));
    eal.shutdown()?;
    say("shut_down", true);
    Ok(())
}

/// A capture through the port and a worker that serves `config`: `in`, `out`, `count`. The clock is the
/// packets', as in a replay: it never goes back, and timers run at their own times.
fn engine(args: &Args) -> Result<()> {
    let (input, output) = (args.text("in")?, args.text("out")?);
    let count: u64 = args.number("count")?;
    let mut worker = worker(&config(args)?, WorkerId(0), BucketMap::dealt(1))?;
    let eal = args.eal(|eal| eal.vdev("net_pcap0", &[("rx_pcap", input), ("tx_pcap", output)]))?;
    let (pool, port) = args.open(&eal, &["net_pcap0"])?;
    let free_before = pool.available();
    let field = eal
        .rx_timestamp_field()
        .ok_or("the driver does not stamp frames")?;
    let mut port = PacedPort::new(port, field);
    let mut buffers = StepBuffers::default();
    let (mut got, mut empty, mut bursts, mut burst_max) = (0, 0, 0u64, 0);
    let mut clock = Instant::ZERO;
    while got < count && empty < EMPTY_POLLS_MAX {
        let Some(now) = port.next_time() else {
            empty += 1;
            continue;
        };
        empty = 0;
        if now >= clock {
            while let Some(due) = worker.poll_timeout().filter(|&due| due <= now) {
                worker.handle_timeout(due.max(clock));
            }
            clock = now;
        }
        // The table's idea of time follows even while nothing is due.
        worker.handle_timeout(clock);
        let stepped = step(&mut worker, &mut port, clock, &mut buffers);
        got += stepped.received as u64;
        bursts += 1;
        burst_max = burst_max.max(stepped.received);
    }
    say("received", got);
    say("bursts", bursts);
    say("burst_max", burst_max);
    say_counters(worker.counters());
    let stats = port.port().stats();
    say_stats(&stats);
    say("alloc_failed", stats.alloc_failed);
    say("punt_dropped", stats.punt_dropped);
    say("handoff_dropped", stats.handoff_dropped);
    say("tx_no_interface", stats.tx_no_interface);
    say("free_before", free_before);
    say("free_after", pool.available());
    drop((port, pool));
    eal.shutdown()?;
    say("shut_down", true);
    Ok(())
}

/// The config in the file `config`.
fn config(args: &Args) -> Result<evenkeel_control::Config> {
    let path = args.text("config")?;
    Ok(evenkeel_control::parse(path, &fs::read_to_string(path)?)?)
}

/// A worker of a node with this config.
fn worker(config: &evenkeel_control::Config, id: WorkerId, buckets: BucketMap) -> Result<Worker> {
    let worker_config = WorkerConfig {
        id,
        buckets,
        steering: config.steering.clone(),
        sizes: config.sizes,
        local_port_min: config.local_port_min,
        // As `evenkeel replay` has it by default.
        seed: 0,
        hold: None,
        cluster: None,
    };
    let mut worker = Worker::new(worker_config, &mut HeapMemory).map_err(|error| error.to_string())?;
    worker
        .handle_command(Instant::ZERO, Command::SetSnapshot(config.snapshot.clone()))
        .map_err(|error| error.to_string())?;
    while worker.poll_event().is_some() {}
    Ok(worker)
}

/// `count` frames into a ring that nobody empties, then out again.
fn ring(args: &Args) -> Result<()> {
    let count: u64 = args.number("count")?;
    let eal = args.eal(|eal| eal.vdev("net_ring0", &[]))?;
    // EAL adds the prefix `net_ring_` to the rings' port.
    let name = eal
        .port_names()
        .into_iter()
        .next()
        .ok_or("net_ring0 made no port")?;
    let (pool, mut port) = args.open(&eal, &[&name])?;
    let free_before = pool.available();
    for number in 0..count {
        let mut frame = port.alloc(64).ok_or("the pool is empty")?;
        frame.data_mut()[..8].copy_from_slice(&number.to_be_bytes());
        // Every second one comes back with less headroom than promised, and must be copied.
        if number % 2 == 1 {
            frame
                .push_front(16)
                .ok_or("no headroom")?
                .iter_mut()
                .take(16)
                .for_each(|byte| *byte = 0);
            frame.truncate(64);
        }
        port.tx(PortId(0), frame);
    }
    port.flush();
    let full = port.stats();
    say("sent", full.tx_frames);
    say("dropped", full.tx_full);
    say("retries", full.tx_retries);
    say("out", free_before - pool.available());
    let mut numbers_ok = true;
    let mut next = 0u64;
    let got = for_each_frame(&mut port, full.tx_frames, |_, frame| {
        frame.check()?;
        promises_kept(&frame)?;
        let at = if next % 2 == 1 { 16 } else { 0 };
        numbers_ok &= frame.len() == 64 && frame.data().get(at..at + 8) == Some(&next.to_be_bytes()[..]);
        next += 1;
        Ok(())
    })?;
    say("received", got);
    say("copied", port.stats().rx_copied);
    say("numbers_ok", numbers_ok);
    let stray = port.alloc(60).ok_or("the pool is empty")?;
    port.tx(PortId(7), stray);
    say("no_interface", port.stats().tx_no_interface);
    say("too_long", port.alloc(pool.alloc_len_max() + 1).is_none());
    say("free_before", free_before);
    say("free_after", pool.available());
    drop((port, pool));
    eal.shutdown()?;
    say("shut_down", true);
    Ok(())
}

/// Opens the port `port`, of the device `vdev` whose argument `key` is `value`, or of `device` as a config has it;
/// twice, if that succeeds.
fn open(args: &Args) -> Result<()> {
    let pair = (
        args.get("key").unwrap_or_default(),
        args.get("value").unwrap_or_default(),
    );
    let pairs = if pair.0.is_empty() { vec![] } else { vec![pair] };
    let eal = match args.get("device") {
        Some(device) => {
            let device = DeviceSpec::parse(device)?;
            args.eal(|eal| eal.device(device))?
        }
        None => {
            let vdev = args.text("vdev")?;
            args.eal(|eal| eal.vdev(vdev, &pairs))?
        }
    };
    say("without_hugepages", eal.without_hugepages());
    let name = args.text("port")?;
    let (pool, port) = args.open(&eal, &[name])?;
    say("opened", name);
    if let Err(error) = DpdkPort::open(&eal, &[InterfaceConfig::new(name)], &pool) {
        say("second", error);
    }
    drop((port, pool));
    eal.shutdown()?;
    say("shut_down", true);
    Ok(())
}

/// A second EAL, while the first runs and after it ended.
fn init_twice(args: &Args) -> Result<()> {
    let eal = args.eal(|eal| eal)?;
    if let Err(error) = args.eal(|eal| eal) {
        say("while", error);
    }
    eal.shutdown()?;
    if let Err(error) = args.eal(|eal| eal) {
        say("after", error);
    }
    Ok(())
}

/// What EAL does to the threads of the process.
fn threads(args: &Args) -> Result<()> {
    say("cpus_before", allowed_cpus()?);
    let eal = args.eal(|eal| eal)?;
    say("cpus_after", allowed_cpus()?);
    let pool = Mempool::create(&eal, "frames", args.pool()?)?;
    let guard = eal.register_thread()?;
    if let Err(error) = eal.register_thread() {
        say("second", error);
    }
    // A frame that is freed on another thread comes home too.
    let frame = pool.alloc(64).ok_or("the pool is empty")?;
    say("out", pool.frame_count() - pool.available());
    std::thread::spawn(move || drop(frame))
        .join()
        .map_err(|_| "the thread panicked")?;
    say("home", pool.frame_count() - pool.available());
    drop(guard);
    let guard = eal.register_thread()?;
    drop((guard, pool));
    eal.shutdown()?;
    say("shut_down", true);
    Ok(())
}

/// Shutdown while something is left: `left` is `frame`, `pool`, `guard` or `nothing`.
fn shutdown(args: &Args) -> Result<()> {
    let eal = args.eal(|eal| eal)?;
    let pool = Mempool::create(&eal, "frames", args.pool()?)?;
    let mut frame: Option<Mbuf> = None;
    let mut kept_pool = None;
    let mut guard = None;
    match args.text("left")? {
        "frame" => frame = pool.alloc(64),
        "pool" => kept_pool = Some(pool.clone()),
        "guard" => guard = Some(eal.register_thread()?),
        _ => {}
    }
    drop(pool);
    match eal.shutdown() {
        Ok(()) => say("shut_down", true),
        Err(error) => say("refused", error),
    }
    // What is left must still be usable: nothing was freed under it.
    if let Some(frame) = &mut frame {
        frame.data_mut().fill(1);
        frame.check()?;
    }
    drop((frame, kept_pool, guard));
    Ok(())
}

/// Takes up to `count` frames from the port; ends early after [`EMPTY_POLLS_MAX`] vain polls.
fn for_each_frame(
    port: &mut DpdkPort,
    count: u64,
    mut visit: impl FnMut(&mut DpdkPort, Mbuf) -> Result<()>,
) -> Result<u64> {
    let mut burst = Vec::with_capacity(BURST);
    let (mut got, mut empty) = (0, 0);
    while got < count && empty < EMPTY_POLLS_MAX {
        if port.rx_burst(&mut burst) == 0 {
            empty += 1;
            continue;
        }
        empty = 0;
        for frame in burst.drain(..) {
            got += 1;
            visit(port, frame)?;
        }
        port.flush();
    }
    Ok(got)
}

/// What `Frame` promises of a received frame's head, and what its parts say of the whole.
fn promises_kept(frame: &Mbuf) -> Result<()> {
    if frame.data().len() < frame.len().min(evenkeel_core::port::HEAD_LEN) {
        return Err(format!(
            "a head of {} bytes in a frame of {}",
            frame.data().len(),
            frame.len()
        )
        .into());
    }
    let mut whole = Vec::new();
    frame.copy_to(&mut whole);
    if whole.len() != frame.len() || !whole.starts_with(frame.data()) {
        return Err("the segments are not the frame".into());
    }
    Ok(())
}

fn allowed_cpus() -> Result<String> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    Ok(list.ok_or("the kernel does not say")?.trim().to_owned())
}

fn say(key: &str, value: impl Display) {
    println!("= {key} {value}");
}

fn say_stats(stats: &PortStats) {
    say("rx_frames", stats.rx_frames);
    say("rx_copied", stats.rx_copied);
    say("tx_frames", stats.tx_frames);
    say("tx_full", stats.tx_full);
    say("tx_chained", stats.tx_chained);
    say("tx_checksum_driver", stats.tx_checksum_driver);
    say("tx_checksum_software", stats.tx_checksum_software);
}

/// What replay's summary says of verdicts, drops and conns.
fn say_counters(c: &Counters) {
    say("presented", c.rx_packets);
    say("forwarded_inbound", c.inbound_packets);
    say("forwarded_outbound", c.outbound_packets);
    say("echo_replies", c.echo_replies);
    say("answered", c.answered);
    say("punted", c.punted);
    say("dropped", c.dropped());
    say("handed_off", c.handed_off);
    say("originated", c.originated);
    say("opened", c.opened);
    say("established", c.established);
    say("closed", c.closed);
    say("expired", c.expired);
    say("removed", c.removed);
    for (reason, frames) in DropReason::ALL.iter().zip(c.drops) {
        say(&format!("drop.{reason}"), frames);
    }
    for (state, conns) in ConnState::ALL.iter().zip(c.by_state) {
        say(&format!("open.{}", state.name()), conns);
    }
}

/// `key=value` arguments.
struct Args(BTreeMap<String, String>);

impl Args {
    fn parse(args: impl Iterator<Item = String>) -> Result<Args> {
        let mut map = BTreeMap::new();
        for arg in args {
            let (key, value) = arg
                .split_once('=')
                .ok_or_else(|| format!("{arg:?} is not key=value"))?;
            map.insert(key.to_owned(), value.to_owned());
        }
        Ok(Args(map))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn text(&self, key: &str) -> Result<&str> {
        Ok(self.get(key).ok_or_else(|| format!("no {key}="))?)
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T> {
        self.text(key)?
            .parse()
            .map_err(|_| format!("{key}= is not a number in range").into())
    }

    fn number_or<T: std::str::FromStr>(&self, key: &str, otherwise: T) -> Result<T> {
        if self.get(key).is_some() {
            self.number(key)
        } else {
            Ok(otherwise)
        }
    }

    /// EAL with the memory that `hugepages`, `auto` or `nohuge` (MiB) ask for; by default
    /// without huge pages, of which cases that run at once could take one another's.
    fn eal(&self, with: impl FnOnce(EalArgs) -> EalArgs) -> Result<Eal> {
        let memory = if self.get("hugepages").is_some() {
            Memory::Hugepages {
                mb: self.number("hugepages")?,
            }
        } else if self.get("auto").is_some() {
            Memory::Auto {
                mb: self.number("auto")?,
            }
        } else {
            Memory::NoHuge {
                mb: self.number_or("nohuge", 256)?,
            }
        };
        Ok(Eal::init(&with(EalArgs::new(memory)))?)
    }

    fn pool(&self) -> Result<MempoolConfig> {
        Ok(MempoolConfig {
            frame_count: self.number_or("frames", 4095)?,
            cache_count: self.number_or("cache", 256)?,
            room_len: self.number_or("room", MempoolConfig::default().room_len)?,
        })
    }

    fn open(&self, eal: &Eal, names: &[&str]) -> Result<(Mempool, DpdkPort)> {
        let pool = Mempool::create(eal, "frames", self.pool()?)?;
        let interfaces: Vec<_> = names.iter().map(|name| InterfaceConfig::new(name)).collect();
        let port = DpdkPort::open(eal, &interfaces, &pool)?;
        Ok((pool, port))
    }
}
