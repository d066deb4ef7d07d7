//! Cases with several workers, and with the kernel's side of an interface.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant as Clock};

use evenkeel_control::Config;
use evenkeel_core::port::{BURST, Frame, Port, PortId, WorkerId};
use evenkeel_core::stats::Counters;
use evenkeel_core::step::{StepBuffers, step};
use evenkeel_core::time::Instant;
use evenkeel_core::worker::BucketMap;
use evenkeel_io_dpdk::{
    DeviceSpec, Devices, DevicesConfig, DpdkPort, Eal, EalArgs, InterfaceConfig, Memory, PortStats, TapConfig,
};

use crate::{Args, Result, config, say, say_counters, say_stats, worker};

/// Ends a case that does not come to its end; none that does takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The captures `in0`, `in1`, .. through as many queues of one interface and `workers` workers, a thread each;
/// what queue n sends is written to `outN`. Ends when `count` frames were decided upon. `ring` is the length of
/// the rings between workers; with `late`, the others begin when the first has received all.
pub(super) fn workers(args: &Args) -> Result<()> {
    let count: i64 = args.number("count")?;
    let workers: u16 = args.number("workers")?;
    let config = config(args)?;
    let eal = open_eal(args)?;
    let (devices, ports) = open(args, &eal, &config, workers)?;
    let free_before = available(&devices);
    let settled = AtomicI64::new(0);
    let is_late = args.get("late").is_some();
    let (start, end) = (Barrier::new(ports.len()), Barrier::new(ports.len()));
    let done: Vec<std::result::Result<(Counters, PortStats), String>> = thread::scope(|scope| {
        let run = |(id, mut port): (u8, DpdkPort)| {
            let (eal, config, settled, start, end) = (&eal, &config, &settled, &start, &end);
            scope.spawn(move || {
                let make = || -> Result<_> {
                    let lcore = eal.register_thread()?;
                    let worker = worker(config, WorkerId(id), BucketMap::dealt(workers))?;
                    Ok((lcore, worker))
                };
                let mut made = make().map_err(|error| error.to_string());
                // The first one is alone until it has received all.
                if let Ok((_, worker)) = &mut made
                    && is_late
                    && id == 0
                {
                    drive(worker, &mut port, settled, |port, _| {
                        port.stats().rx_frames as i64 == count
                    });
                }
                start.wait();
                if let Ok((_, worker)) = &mut made {
                    drive(worker, &mut port, settled, |_, settled| settled == count);
                }
                end.wait();
                // What the others left for this one's queue.
                for _ in 0..64 {
                    port.flush();
                }
                let (_lcore, worker) = made?;
                Ok((worker.counters().clone(), port.stats()))
            })
        };
        let threads: Vec<_> = (0..).zip(ports).map(run).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|_| Err("a worker panicked".to_owned()))
        };
        threads.into_iter().map(join).collect()
    });
    let mut counters = Counters::default();
    let mut stats = PortStats::default();
    for (id, done) in done.into_iter().enumerate() {
        let (c, s) = done?;
        say(&format!("opened.{id}"), c.opened);
        say(&format!("handoff_in.{id}"), s.handoff_in);
        add_counters(&mut counters, &c);
        add_stats(&mut stats, &s);
    }
    // Each frame once.
    counters.rx_packets -= stats.handoff_in;
    say("settled", settled.load(Ordering::SeqCst));
    say_all(&counters, &stats);
    say_free(&devices, free_before);
    drop(devices);
    eal.shutdown()?;
    say("shut_down", true);
    Ok(())
}

/// As `workers` with one queue and two workers, the second of which is gone before the first begins.
pub(super) fn gone(args: &Args) -> Result<()> {
    let count: i64 = args.number("count")?;
    let config = config(args)?;
    let eal = open_eal(args)?;
    let (devices, mut ports) = open(args, &eal, &config, 2)?;
    let free_before = available(&devices);
    drop(ports.pop());
    let mut port = ports.pop().ok_or("no port")?;
    let mut worker = worker(&config, WorkerId(0), BucketMap::dealt(2))?;
    let settled = AtomicI64::new(0);
    drive(&mut worker, &mut port, &settled, |_, settled| settled == count);
    // Before anything is closed.
    say("out", free_before - available(&devices));
    say_all(worker.counters(), &port.stats());
    drop(port);
    say_free(&devices, free_before);
    drop(devices);
    eal.shutdown()?;
    say("shut_down", true);
    Ok(())
}

/// Opens `device` with `workers` workers; says what came of it, as another thread sees it while the workers poll. With
/// `mtu`, asks for that; with `needed`, has as many frames and as much memory as are said to be needed.
pub(super) fn devices(args: &Args) -> Result<()> {
    let workers: u16 = args.number("workers")?;
    let config = config(args)?;
    let device = DeviceSpec::parse(args.text("device")?)?.with_queues(workers);
    let name = device.name().to_owned();
    let mut interface = InterfaceConfig::new(&name);
    interface.mtu = args.get("mtu").map(|_| args.number("mtu")).transpose()?;
    let mut devices_config =
        DevicesConfig::new(vec![interface], workers, config.steering.clone(), &config.rss_key);
    let eal = if args.get("needed").is_some() {
        let mb = devices_config.memory_mb();
        say("frames_needed", devices_config.frames_needed());
        Eal::init(&EalArgs::new(Memory::NoHuge { mb }).device(device))?
    } else {
        devices_config.pool = Some(args.pool()?);
        args.eal(|eal| eal.device(device))?
    };
    let (devices, ports) = Devices::open(&eal, &devices_config)?;
    let free_before = available(&devices);
    let control = devices.control().clone();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for mut port in ports {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut frames = Vec::with_capacity(BURST);
                while !is_over.load(Ordering::SeqCst) {
                    port.rx_burst(&mut frames);
                    frames.clear();
                    port.flush();
                    thread::yield_now();
                }
            });
        }
        let id = PortId(0);
        let (rx, tx) = control.queues(id).unwrap_or_default();
        say("rx_queues", rx);
        say("tx_queues", tx);
        say("mtu", control.mtu(id).unwrap_or(0));
        if let Some(steered) = control.steered(id) {
            say("steered", format!("{steered:?}"));
        }
        let reta = control.reta(id).unwrap_or_default();
        let text: Vec<String> = reta.iter().map(u16::to_string).collect();
        say("reta", text.join(","));
        say("link_up", control.link(id).is_some_and(|link| link.up));
        say("has_stats", control.driver_stats(id).is_some());
        say("pools", control.pools().len());
        // A clone serves another thread as well.
        let other = control.clone();
        let seen = scope
            .spawn(move || other.link(id).is_some_and(|link| link.up))
            .join();
        say("link_up_elsewhere", seen.unwrap_or(false));
        is_over.store(true, Ordering::SeqCst);
    });
    drop(control);
    say_free(&devices, free_before);
    drop(devices);
    eal.shutdown()?;
    say("shut_down", true);
    Ok(())
}

/// Each frame of the capture `in` comes in on a port with a kernel interface `tap` (MAC address 02:00:00:00:77:02,
/// addresses 10.77.0.254/24 and fd77::fe/64) and is punted; what the kernel sends there is written to `out`.
/// Ends after `answers` answers of the kernel's. To be run in a network namespace of its own.
pub(super) fn tap(args: &Args) -> Result<()> {
    let (input, output) = (args.text("in")?, args.text("out")?);
    let count: usize = args.number("count")?;
    let answers: usize = args.number("answers")?;
    let own = [2, 0, 0, 0, 0x77, 2];
    let config = config(args)?;
    let eal = args.eal(|eal| {
        eal.vdev("net_ring0", &[])
            .vdev("net_pcap0", &[("rx_pcap", input), ("tx_pcap", output)])
    })?;
    let interfaces = vec![
        InterfaceConfig::new("net_ring0"),
        InterfaceConfig::new("net_pcap0"),
    ];
    let mut devices_config = DevicesConfig::new(interfaces, 1, config.steering.clone(), &config.rss_key);
    devices_config.pool = Some(args.pool()?);
    let address = |text: &str| text.parse::<IpAddr>().map_err(|error| error.to_string());
    let tap = TapConfig {
        name: args.text("tap")?.to_owned(),
        mac: Some(own),
        addresses: vec![(address("10.77.0.254")?, 24), (address("fd77::fe")?, 64)],
    };
    devices_config.taps.push((PortId(0), tap));
    let (devices, mut ports) = Devices::open(&eal, &devices_config)?;
    let mut port = ports.pop().ok_or("no port")?;
    let shown = Arc::new(Mutex::new(Vec::new()));
    let hook = shown.clone();
    port.set_punt(Box::new(move |port, bytes| {
        if let Ok(mut shown) = hook.lock() {
            shown.push((port, bytes.to_vec()));
        }
    }));
    let (mut punted, mut answered, mut segments_max) = (Vec::new(), 0, 0);
    let mut frames = Vec::with_capacity(BURST);
    let began = Clock::now();
    while answered < answers && began.elapsed() < PATIENCE {
        if port.rx_burst(&mut frames) == 0 {
            thread::yield_now();
        }
        for frame in frames.drain(..) {
            let mut bytes = Vec::new();
            frame.copy_to(&mut bytes);
            if frame.ingress() == PortId(1) {
                // To be received on the port with the tap: what that sends it receives.
                port.tx(PortId(0), frame);
            } else if bytes.get(6..12) == Some(&own) {
                answered += usize::from(is_answer(&bytes));
                port.tx(PortId(1), frame);
            } else {
                segments_max = segments_max.max(frame.segment_count());
                punted.push((PortId(0), bytes));
                port.punt(frame);
            }
        }
        port.flush();
    }
    say("answered", answered);
    say("all_punted", punted.len() == count);
    say("shown", shown.lock().is_ok_and(|shown| *shown == punted));
    say("segments_max", segments_max);
    let stats = port.stats();
    say("punted", stats.punted);
    say("tx_for_others", stats.tx_for_others);
    let tap = devices.control().tap_stats(PortId(0)).ok_or("no tap")?;
    say("to_kernel", tap.to_kernel);
    say("from_kernel", tap.from_kernel);
    // What the kernel said by itself, sent to net_ring and not received yet, would stay in its ring: that frees nothing when it
    // is closed. Nothing is sent from here on.
    while port.rx_burst(&mut frames) > 0 {
        frames.clear();
    }
    drop((port, devices));
    // This looks whether every frame is home.
    eal.shutdown()?;
    say("shut_down", true);
    Ok(())
}

/// Each datagram of the capture `in`, to 10.77.0.254:4711 in IPv4, leaves by a net_tap device, which is asked for its
/// checksum; a socket behind that takes what is right. To be run in a network namespace of its own.
pub(super) fn checksum(args: &Args) -> Result<()> {
    let input = args.text("in")?;
    let count: u64 = args.number("count")?;
    let eal = args.eal(|eal| {
        let tap = [("iface", "ekdtap0"), ("mac", "02:00:00:00:77:02")];
        eal.vdev("net_tap0", &tap)
            .vdev("net_pcap0", &[("rx_pcap", input)])
    })?;
    let (pool, mut port) = args.open(&eal, &["net_tap0", "net_pcap0"])?;
    for ip in [
        &["addr", "add", "10.77.0.254/24", "dev", "ekdtap0"][..],
        &["link", "set", "ekdtap0", "up"],
    ] {
        let done = Command::new("ip").args(ip).status()?;
        if !done.success() {
            return Err(format!("ip {} failed", ip.join(" ")).into());
        }
    }
    let socket = UdpSocket::bind("10.77.0.254:4711")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut frames = Vec::with_capacity(BURST);
    let began = Clock::now();
    let (mut sent, mut bytes) = (0, 0);
    let mut buffer = vec![0; 65_536];
    while sent < count && began.elapsed() < PATIENCE {
        port.rx_burst(&mut frames);
        for mut frame in frames.drain(..) {
            // What the kernel says by its interface is not for us.
            if frame.ingress() == PortId(1) {
                frame.offload_tx_checksum(14, 34);
                port.tx(PortId(0), frame);
                port.flush();
                sent += 1;
                bytes += socket.recv(&mut buffer)?;
            }
        }
    }
    say("sent", sent);
    say("bytes", bytes);
    say_stats(&port.stats());
    drop(port);
    // While it is open, the device has some in its receive queue.
    say("free_before", pool.frame_count());
    say("free_after", pool.available());
    drop(pool);
    eal.shutdown()?;
    say("shut_down", true);
    Ok(())
}

/// Whether the kernel sends it because it was asked: ARP, an echo reply, a neighbour advertisement.
fn is_answer(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([8, 6]) => frame.get(20..22) == Some(&[0, 2]),
        Some([8, 0]) => (frame.get(23), frame.get(34)) == (Some(&1), Some(&0)),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&58) && matches!(frame.get(54), Some(129 | 136)),
        _ => false,
    }
}

/// EAL with one interface of as many queues as there are captures.
fn open_eal(args: &Args) -> Result<Eal> {
    let names: Vec<_> = (0..16)
        .map(|n| (format!("in{n}"), format!("out{n}")))
        .take_while(|(input, _)| args.get(input).is_some())
        .collect();
    let mut pairs = Vec::new();
    for (input, output) in &names {
        pairs.push(("rx_pcap", args.text(input)?));
        pairs.push(("tx_pcap", args.text(output)?));
    }
    args.eal(|eal| eal.vdev("net_pcap0", &pairs))
}

fn open(args: &Args, eal: &Eal, config: &Config, workers: u16) -> Result<(Devices, Vec<DpdkPort>)> {
    let interfaces = vec![InterfaceConfig::new("net_pcap0")];
    let mut devices = DevicesConfig::new(interfaces, workers, config.steering.clone(), &config.rss_key);
    devices.pool = Some(args.pool()?);
    devices.handoff_len = args.number_or("ring", devices.handoff_len)?;
    let opened = Devices::open(eal, &devices)?;
    let (rx, tx) = opened.0.control().queues(PortId(0)).ok_or("no queues")?;
    say("rx_queues", rx);
    say("tx_queues", tx);
    Ok(opened)
}

/// Steps a worker until `is_over` says so of the port and of the frames that all workers decided upon, those that
/// they handed over excepted.
fn drive(
    worker: &mut evenkeel_core::worker::Worker,
    port: &mut DpdkPort,
    settled: &AtomicI64,
    is_over: impl Fn(&DpdkPort, i64) -> bool,
) {
    // No timer is due: nothing here depends on how fast it runs.
    let now = Instant::from_nanos(1_000_000_000);
    let mut buffers = StepBuffers::default();
    let mut handed = port.stats().handoff_out;
    let began = Clock::now();
    while !is_over(port, settled.load(Ordering::SeqCst)) && began.elapsed() < PATIENCE {
        let stepped = step(worker, port, now, &mut buffers);
        let handed_now = port.stats().handoff_out;
        // At once: between the two, who looks would take a frame for decided upon that waits in a ring.
        let decided = stepped.received as i64 - (handed_now - handed) as i64;
        handed = handed_now;
        settled.fetch_add(decided, Ordering::SeqCst);
        if stepped.is_idle() {
            thread::yield_now();
        }
    }
}

fn available(devices: &Devices) -> u32 {
    devices
        .control()
        .pools()
        .iter()
        .map(|pool| pool.available())
        .sum()
}

fn say_free(devices: &Devices, before: u32) {
    say("free_before", before);
    say("free_after", available(devices));
}

fn say_all(counters: &Counters, stats: &PortStats) {
    say_counters(counters);
    say_stats(stats);
    for (name, value) in [
        ("handoff_out", stats.handoff_out),
        ("handoff_in", stats.handoff_in),
        ("handoff_full", stats.handoff_full),
        ("handoff_dropped", stats.handoff_dropped),
        ("tx_passed_on", stats.tx_passed_on),
        ("tx_pass_full", stats.tx_pass_full),
        ("tx_for_others", stats.tx_for_others),
        ("tx_no_interface", stats.tx_no_interface),
        ("alloc_failed", stats.alloc_failed),
        ("punt_dropped", stats.punt_dropped),
    ] {
        say(name, value);
    }
}

fn add_counters(sum: &mut Counters, c: &Counters) {
    sum.rx_packets += c.rx_packets;
    sum.inbound_packets += c.inbound_packets;
    sum.outbound_packets += c.outbound_packets;
    sum.echo_replies += c.echo_replies;
    sum.answered += c.answered;
    sum.punted += c.punted;
    sum.handed_off += c.handed_off;
    sum.originated += c.originated;
    sum.opened += c.opened;
    sum.established += c.established;
    sum.closed += c.closed;
    sum.expired += c.expired;
    sum.removed += c.removed;
    sum.drops.iter_mut().zip(c.drops).for_each(|(sum, n)| *sum += n);
    sum.by_state
        .iter_mut()
        .zip(c.by_state)
        .for_each(|(sum, n)| *sum += n);
}

fn add_stats(sum: &mut PortStats, s: &PortStats) {
    for (sum, n) in [
        (&mut sum.rx_frames, s.rx_frames),
        (&mut sum.rx_copied, s.rx_copied),
        (&mut sum.tx_frames, s.tx_frames),
        (&mut sum.tx_full, s.tx_full),
        (&mut sum.tx_chained, s.tx_chained),
        (&mut sum.handoff_out, s.handoff_out),
        (&mut sum.handoff_in, s.handoff_in),
        (&mut sum.handoff_full, s.handoff_full),
        (&mut sum.handoff_dropped, s.handoff_dropped),
        (&mut sum.tx_passed_on, s.tx_passed_on),
        (&mut sum.tx_pass_full, s.tx_pass_full),
        (&mut sum.tx_for_others, s.tx_for_others),
        (&mut sum.tx_no_interface, s.tx_no_interface),
        (&mut sum.tx_checksum_software, s.tx_checksum_software),
        (&mut sum.alloc_failed, s.alloc_failed),
        (&mut sum.punt_dropped, s.punt_dropped),
    ] {
        *sum += n;
    }
}
