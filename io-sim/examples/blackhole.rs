//! When the flyweight sends again what nobody hears: what `ci/e2e/calibrate` compares with Linux.
//!
//! A client and a server on one link, which carries nothing any more from some time on. Prints for each plan a line with
//! its name and the milliseconds from its first packet to each further one.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use evenkeel_core::tuple::L4Proto;
use evenkeel_core::wire::MacAddr;
use evenkeel_io_sim::{
    Direction, End, Faults, FlowEnd, FlowSpec, HostId, HostSpec, Instant, Keepalive, LinkSpec, Owner, Place,
    ServerSpec, Tap, TcpProfile, Tier, World, WorldError,
};

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 2), 80);
/// When the link is cut, in milliseconds: after some requests.
const CUT_MS: u64 = 3_000;
/// So long it is looked at after that.
const LOOK_MS: u64 = 70_000;

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;

/// Notes when a host sends segments with a flag, or empty ones.
struct Looks {
    host: HostId,
    flag: Option<u8>,
    times: Rc<RefCell<Vec<Instant>>>,
}

impl Tap for Looks {
    fn frame(&mut self, now: Instant, at: Place, direction: Direction, data: &[u8]) {
        let is_tcp = data.get(12..14) == Some(&[8, 0]) && data.get(23) == Some(&6);
        if at.owner != Owner::Host(self.host) || direction != Direction::Out || !is_tcp {
            return;
        }
        let flags = data.get(47).copied().unwrap_or(0);
        let wanted = match self.flag {
            Some(flag) => flags & flag != 0,
            // An acknowledgement and nothing else.
            None => flags == 0x10 && data.len() == 54,
        };
        if wanted && now >= Instant::from_millis(CUT_MS) {
            self.times.borrow_mut().push(now);
        }
    }
}

struct Plan {
    name: &'static str,
    tcp: TcpProfile,
    /// Towards the server, and back.
    cut: [bool; 2],
    looks_at_server: bool,
    flag: Option<u8>,
    flow: fn(&mut FlowSpec),
}

fn times(plan: &Plan) -> Result<Vec<u64>, WorldError> {
    let mut world = World::new(1);
    let mut host = |n: u8| {
        let addr = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)), 24);
        let mut host = HostSpec::new(format!("h{n}"), MacAddr([2, 0, 0, 0, 0, n]), vec![addr]);
        (host.client_tier, host.server_tier) = (Tier::Flyweight, Tier::Flyweight);
        host.tcp = plan.tcp;
        host.neighbour_lifetime = Duration::from_secs(1_000_000);
        world.add_host(host)
    };
    let (client, server) = (host(1)?, host(2)?);
    let link = LinkSpec::default();
    let link = world.connect(End::Host(client), End::Host(server), link)?;
    let target = SocketAddr::from(SERVER);
    let served = ServerSpec {
        number: 1,
        proto: L4Proto::Tcp,
        addr: target,
    };
    world.serve(server, served)?;
    let flow = || {
        let mut flow = FlowSpec::tcp(client, Ipv4Addr::new(10, 0, 0, 1).into(), target);
        flow.give_up = Duration::from_secs(1_000_000);
        flow
    };
    // Both learn where the other one is.
    world.open(flow())?;
    let mut looked_at = flow();
    // Some round trips are measured, and then something is said into the void.
    looked_at.start = Instant::from_millis(1_000);
    (looked_at.requests, looked_at.gap) = (10, Duration::from_millis(50));
    (plan.flow)(&mut looked_at);
    world.open(looked_at)?;
    let times = Rc::<RefCell<Vec<Instant>>>::default();
    world.add_tap(Box::new(Looks {
        host: if plan.looks_at_server { server } else { client },
        flag: plan.flag,
        times: times.clone(),
    }));
    world.run_until(Instant::from_millis(CUT_MS));
    let faults = plan.cut.map(|cut| Faults {
        cut,
        ..Faults::default()
    });
    world.set_faults(link, faults)?;
    world.run_until(Instant::from_millis(CUT_MS + LOOK_MS));
    let times = times.take();
    let first = times.first().copied().unwrap_or_default();
    let since = |t: &Instant| t.saturating_since(first).as_millis();
    Ok(times
        .iter()
        .map(|t| u64::try_from(since(t)).unwrap_or(u64::MAX))
        .collect())
}

fn main() -> Result<(), WorldError> {
    let probing = TcpProfile::default();
    let plain = TcpProfile {
        tail_loss_probe: false,
        ..probing
    };
    let asking = TcpProfile {
        keepalive: Some(Keepalive {
            time: Duration::from_secs(4),
            interval: Duration::from_secs(2),
            probes: 5,
        }),
        ..probing
    };
    let says_later: fn(&mut FlowSpec) = |flow| {
        flow.requests = 3;
        flow.gap = Duration::from_millis(700);
    };
    let closes_later: fn(&mut FlowSpec) = |flow| {
        flow.requests = 2;
        flow.gap = Duration::from_millis(700);
    };
    let starts_later: fn(&mut FlowSpec) = |flow| flow.start = Instant::from_millis(CUT_MS + 100);
    let gives_up: fn(&mut FlowSpec) = |flow| {
        flow.start = Instant::from_millis(CUT_MS + 100);
        flow.give_up = Duration::from_millis(500);
    };
    let stays: fn(&mut FlowSpec) = |flow| flow.end = FlowEnd::Stay;
    let plan = |name, tcp, flag, flow| Plan {
        name,
        tcp,
        cut: [true; 2],
        looks_at_server: false,
        flag,
        flow,
    };
    let plans = [
        plan("syn", probing, Some(SYN), starts_later),
        Plan {
            looks_at_server: true,
            cut: [false, true],
            ..plan("syn-ack", probing, Some(SYN), gives_up)
        },
        plan("data", probing, Some(PSH), says_later),
        plan("data-plain", plain, Some(PSH), says_later),
        plan("fin", probing, Some(FIN), closes_later),
        plan("fin-plain", plain, Some(FIN), closes_later),
        plan("keepalive", asking, None, stays),
    ];
    for plan in &plans {
        let times: Vec<_> = times(plan)?.iter().map(u64::to_string).collect();
        println!("{} {}", plan.name, times.join(" "));
    }
    Ok(())
}
