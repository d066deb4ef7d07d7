//! How long a minute takes: flows as of the main scenario through one balancer, and the floor of as many events.
//! `cargo run --release -p evenkeel-io-sim --example floor`

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_core::port::PortId;
use evenkeel_core::tuple::L4Proto;
use evenkeel_core::wire::MacAddr;
use evenkeel_io_sim::{
    End, FlowSpec, HostSpec, Instant, LbPort, LbSpec, LinkSpec, QueueKind, ServerSpec, SwitchSpec, World,
    floor,
};

const CONFIG: &str = include_str!("../tests/world/site.toml");

fn main() {
    let config = evenkeel_control::parse("site.toml", CONFIG).expect("the config is right");
    let mut world = World::new(1);
    let [outside, inside] =
        ["clients", "servers"].map(|n| world.add_switch(SwitchSpec::new(n)).expect("room"));
    let ip = |text: &str| text.parse().expect("an address");
    let client = HostSpec::new(
        "client",
        MacAddr([2, 0, 0, 0, 1, 1]),
        vec![(ip("203.0.113.100"), 24), (ip("2001:db8:c::100"), 64)],
    );
    let client = world.add_host(client).expect("room");
    let connect = |world: &mut World, end, switch| {
        world
            .connect(end, End::Switch(switch), LinkSpec::default())
            .expect("free")
    };
    connect(&mut world, End::Host(client), outside);
    let mut spec = LbSpec::new("lb", config.steering, config.spec);
    spec.sizes = config.sizes;
    let lb = world.add_lb(spec).expect("right");
    for (n, switch) in [(0, outside), (1, inside)] {
        connect(&mut world, End::Lb(lb, LbPort::Data(PortId(n))), switch);
    }
    for n in 1..=3u8 {
        let addrs = [format!("198.51.100.1{n}"), format!("2001:db8:5::1{n}")].map(|a| ip(&a));
        let host = HostSpec::new(
            format!("server{n}"),
            MacAddr([2, 0, 0, 0, 2, 0x10 + n]),
            vec![(addrs[0], 24), (addrs[1], 64)],
        );
        let host = world.add_host(host).expect("room");
        connect(&mut world, End::Host(host), inside);
        for addr in addrs {
            let server = ServerSpec {
                number: n.into(),
                proto: L4Proto::Tcp,
                addr: SocketAddr::new(addr, 8080),
            };
            world.serve(host, server).expect("its address");
        }
    }
    world.start(lb).expect("memory");
    let end = Instant::from_millis(60_000);
    let mut open = |start: Instant, n: u64, long: bool| {
        let v6 = n % 2 == 1;
        let target: SocketAddr = if v6 {
            "[2001:db8:c::80]:80"
        } else {
            "203.0.113.80:80"
        }
        .parse()
        .expect("an address");
        let mut flow = FlowSpec::tcp(
            client,
            ip(if v6 { "2001:db8:c::100" } else { "203.0.113.100" }),
            target,
        );
        flow.start = start;
        flow.request_len = 200;
        flow.reply_len = 1_000;
        if long {
            flow.requests = u32::MAX;
            flow.gap = Duration::from_millis(900);
            flow.gap_jitter = Duration::from_millis(200);
            flow.until = Some(Instant::from_millis(58_000));
        } else {
            flow.requests = 2;
            flow.gap = Duration::from_millis(400);
        }
        world.open(flow).expect("right");
    };
    for n in 0..1_000 {
        open(Instant::from_millis(n), n, true);
    }
    for n in 0..200 * 57 {
        open(Instant::from_millis(1_000 + n * 5), n, false);
    }
    let begun = std::time::Instant::now();
    world.run_until(end);
    let took = begun.elapsed();
    let counters = world.counters();
    let closed = world.flows().iter().filter(|f| f.broken.is_none()).count();
    println!("{closed} of {} flows whole, {counters:?}", world.flows().len());
    println!(
        "{took:?}, {} events/s, digest {:032x}",
        (counters.events as f64 / took.as_secs_f64()) as u64,
        world.digest()
    );
    println!("clients: {:?}", world.host_counters(client));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status
        .lines()
        .filter(|l| l.starts_with("VmHWM") || l.starts_with("VmRSS"))
    {
        println!("{line}");
    }
    let begun = std::time::Instant::now();
    let mixed = floor(
        QueueKind::default(),
        counters.events,
        counters.events_waiting_peak as u32,
    );
    println!("floor: {:?} ({mixed:016x})", begun.elapsed());
}
