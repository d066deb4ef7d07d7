//! What the hosts themselves cost: many flows of the flyweight on one link, without a balancer.
//!
//! `wide [FLOWS [SECONDS]]` (100000 and 60): each asks every ten seconds. Prints frames a second of the processor's time,
//! where one frame is one hop, and the most memory that the process had.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use evenkeel_core::tuple::L4Proto;
use evenkeel_core::wire::MacAddr;
use evenkeel_io_sim::{
    End, FlowEnd, FlowSpec, HostSpec, Instant, LinkSpec, ServerSpec, Tier, World, WorldError,
};

fn main() -> Result<(), WorldError> {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let flows: u32 = args.next().unwrap_or(100_000);
    let seconds: u64 = args.next().unwrap_or(60).into();
    let mut world = World::new(1);
    let mut host = |n: u8, addresses: u8| {
        let addr = |a| (IpAddr::V4(Ipv4Addr::new(10, 0, n, a)), 8);
        let addresses = (1..=addresses).map(addr).collect();
        let mut host = HostSpec::new(format!("h{n}"), MacAddr([2, 0, 0, 0, 0, n]), addresses);
        (host.client_tier, host.server_tier) = (Tier::Flyweight, Tier::Flyweight);
        host.conn_count_max = usize::MAX;
        world.add_host(host)
    };
    let (client, server) = (host(1, 4)?, host(2, 1)?);
    let link = LinkSpec::default();
    world.connect(End::Host(client), End::Host(server), link)?;
    let target = SocketAddr::new(Ipv4Addr::new(10, 0, 2, 1).into(), 80);
    let served = ServerSpec {
        number: 1,
        proto: L4Proto::Tcp,
        addr: target,
    };
    world.serve(server, served)?;
    for n in 0..flows {
        let source = Ipv4Addr::new(10, 0, 1, 1 + (n % 4) as u8);
        let mut flow = FlowSpec::tcp(client, source.into(), target);
        (flow.requests, flow.request_len, flow.reply_len) = (u32::MAX, 200, 1_000);
        flow.gap = Duration::from_secs(10);
        flow.start = Instant::from_nanos(u64::from(n) * 10_000_000_000 / u64::from(flows.max(1)));
        flow.end = FlowEnd::Stay;
        world.open(flow)?;
    }
    let began = processor_ms();
    world.run_until(Instant::from_millis(seconds * 1_000));
    let took = (processor_ms() - began).max(1);
    let counters = world.counters();
    let wrong = world
        .flows()
        .iter()
        .filter(|f| f.broken.is_some() || f.established.is_none())
        .count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status
        .lines()
        .find(|l| l.starts_with("VmHWM"))
        .unwrap_or("memory unknown");
    println!(
        "{flows} flows, {seconds} s simulated in {} ms: {} frames, {} a second; {} events, {} a second; {wrong} flows wrong; {}",
        took,
        counters.frames_delivered,
        counters.frames_delivered * 1_000 / took,
        counters.events,
        counters.events * 1_000 / took,
        memory.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    Ok(())
}

/// What this process has had of a processor so far (Linux, proc(5): hundredths of a second; other systems: 0).
fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name of the program, which may hold anything.
    let fields = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace();
    fields
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<u64>().ok())
        .sum::<u64>()
        * 10
}
