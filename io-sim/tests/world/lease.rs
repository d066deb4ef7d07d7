//! The lease service over a simulated network, with clients that ask it, watch it and hold what it grants.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use evenkeel_io_sim::lease::{
    Change, Event, KEY_LEN_MAX, LeaseId, LeaseService, Reply, ReplyBody, Request, RequestBody, StoreError,
};
use evenkeel_io_sim::{
    Actor, ActorId, Datagrams, End, Faults, Instant, LinkId, LinkSpec, Ppm, Purpose, Streams, SwitchSpec,
    World,
};

use crate::balanced::check;

const AGAIN: Duration = Duration::from_millis(50);
const TTL: Duration = Duration::from_millis(900);

fn service_addr() -> SocketAddrV4 {
    "10.7.0.1:2379".parse().expect("an address")
}

fn client_addr(n: u32) -> SocketAddrV4 {
    format!("10.7.1.{n}:4000").parse().expect("an address")
}

/// One request at a time, sent again until it is answered.
#[derive(Debug)]
struct Caller {
    client: u32,
    life: u64,
    number: u32,
    asked: Option<(RequestBody, Instant, Instant)>,
    sent: u64,
}

impl Caller {
    fn new(client: u32) -> Self {
        Caller {
            client,
            life: 0,
            number: 0,
            asked: None,
            sent: 0,
        }
    }

    fn ask(&mut self, now: Instant, body: RequestBody, out: &mut Datagrams) {
        self.number += 1;
        self.asked = Some((body, now, now));
        self.send(now, out);
    }

    fn send(&mut self, now: Instant, out: &mut Datagrams) {
        let (client, number, life) = (self.client, self.number, self.life);
        if let Some((body, _, last)) = &mut self.asked {
            *last = now;
            self.sent += 1;
            let body = body.clone();
            let request = Request {
                client,
                number,
                life,
                body,
            };
            out.send(service_addr(), request.emit());
        }
    }

    /// What was asked, when first, and what came of it.
    fn answer(
        &mut self,
        now: Instant,
        data: &[u8],
        out: &mut Datagrams,
    ) -> Option<(RequestBody, Instant, ReplyBody)> {
        let reply = Reply::parse(data)?;
        if reply.number != self.number || self.asked.is_none() {
            return None;
        }
        if matches!(reply.body, ReplyBody::OtherLife) {
            // As after a connection that was reset: it may have been carried out, or not.
            if reply.life > self.life {
                self.life = reply.life;
                self.number += 1;
                self.send(now, out);
            }
            return None;
        }
        let (body, first, _) = self.asked.take()?;
        Some((body, first, reply.body))
    }

    fn again(&mut self, now: Instant, out: &mut Datagrams) {
        if self.asked.as_ref().is_some_and(|(.., last)| *last + AGAIN <= now) {
            self.send(now, out);
        }
    }

    fn next_at(&self) -> Option<Instant> {
        self.asked.as_ref().map(|(.., last)| *last + AGAIN)
    }
}

/// Asks one thing after the other.
#[derive(Debug)]
struct Script {
    caller: Caller,
    todo: VecDeque<(Instant, RequestBody)>,
    replies: Vec<(Instant, ReplyBody)>,
}

impl Actor for Script {
    fn start(&mut self, _: Instant) {}

    fn datagram(&mut self, now: Instant, _: SocketAddrV4, data: &[u8], out: &mut Datagrams) {
        if let Some((.., reply)) = self.caller.answer(now, data, out) {
            self.replies.push((now, reply));
        }
        self.timeout(now, out);
    }

    fn timeout(&mut self, now: Instant, out: &mut Datagrams) {
        self.caller.again(now, out);
        if self.caller.asked.is_none()
            && self.todo.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, body)) = self.todo.pop_front()
        {
            self.caller.ask(now, body, out);
        }
    }

    fn next_at(&self) -> Option<Instant> {
        let next = self.todo.front().map(|(at, _)| *at);
        self.caller.next_at().or(next)
    }
}

/// Watches all keys from revision 1 on.
#[derive(Debug)]
struct Watcher {
    caller: Caller,
    next: (u64, u32),
    events: Vec<Event>,
    refused: Option<StoreError>,
}

impl Watcher {
    fn new(client: u32) -> Self {
        Watcher {
            caller: Caller::new(client),
            next: (1, 0),
            events: Vec::new(),
            refused: None,
        }
    }

    fn watch(&mut self, now: Instant, out: &mut Datagrams) {
        let (from, known) = self.next;
        self.caller
            .ask(now, RequestBody::Watch(Vec::new(), from, known), out);
    }
}

impl Actor for Watcher {
    fn start(&mut self, _: Instant) {}

    fn datagram(&mut self, now: Instant, _: SocketAddrV4, data: &[u8], out: &mut Datagrams) {
        match self.caller.answer(now, data, out) {
            Some((_, _, ReplyBody::Events(events, from, known))) => {
                self.events.extend(events);
                self.next = (from, known);
                self.watch(now, out);
            }
            Some((_, _, ReplyBody::Refused(error))) => self.refused = Some(error),
            _ => {}
        }
    }

    fn timeout(&mut self, now: Instant, out: &mut Datagrams) {
        if self.caller.number == 0 {
            self.watch(now, out);
        }
        self.caller.again(now, out);
    }

    fn next_at(&self) -> Option<Instant> {
        if self.caller.number == 0 {
            Some(Instant::ZERO)
        } else {
            self.caller.next_at()
        }
    }
}

/// Wants to be the one who holds a key, with a lease that it keeps alive.
#[derive(Debug)]
struct Candidate {
    caller: Caller,
    /// Leases so far.
    leases: u32,
    /// It may think that it has its lease until then.
    until: Instant,
    holds: bool,
    held: u32,
    next: Instant,
}

impl Candidate {
    fn new(client: u32) -> Self {
        Candidate {
            caller: Caller::new(client),
            leases: 0,
            until: Instant::ZERO,
            holds: false,
            held: 0,
            next: Instant::ZERO,
        }
    }

    fn lease(&self) -> LeaseId {
        LeaseId(u64::from(self.caller.client) << 32 | u64::from(self.leases))
    }

    fn holds_at(&self, now: Instant) -> bool {
        self.holds && now < self.until
    }

    fn acquire(&self) -> RequestBody {
        let name = self.caller.client.to_be_bytes().to_vec();
        RequestBody::Transact(b"holder".to_vec(), Some(0), Change::Put(name, Some(self.lease())))
    }
}

impl Actor for Candidate {
    fn start(&mut self, now: Instant) {
        // What it held before it does not hold; its numbers go on.
        (self.holds, self.until, self.next) = (false, now, now);
        self.caller.asked = None;
        self.leases += 1;
    }

    fn datagram(&mut self, now: Instant, _: SocketAddrV4, data: &[u8], out: &mut Datagrams) {
        let Some((asked, first, reply)) = self.caller.answer(now, data, out) else {
            return;
        };
        // The service's clock may be a thousandth faster.
        let until = first + TTL * 99 / 100;
        match (asked, reply) {
            (RequestBody::Grant(..), ReplyBody::Done | ReplyBody::Refused(StoreError::LeaseExists)) => {
                // Whether it was this copy or an earlier one that made it: it was not before the first was sent.
                self.until = until;
                self.caller.ask(now, self.acquire(), out);
            }
            (RequestBody::KeepAlive(_), ReplyBody::Time(_)) => {
                self.until = until;
                if !self.holds {
                    self.caller.ask(now, self.acquire(), out);
                } else {
                    self.next = now + TTL / 3;
                }
            }
            (RequestBody::Transact(..), ReplyBody::Transacted(done, item)) => {
                let own = item.as_ref().is_some_and(|item| item.lease == Some(self.lease()));
                self.holds = done || own;
                self.held += u32::from(self.holds);
                self.next = now
                    + if self.holds {
                        TTL / 3
                    } else {
                        Duration::from_millis(100)
                    };
            }
            _ => {
                self.holds = false;
                self.leases += 1;
                self.next = now + Duration::from_millis(20);
            }
        }
    }

    fn timeout(&mut self, now: Instant, out: &mut Datagrams) {
        self.caller.again(now, out);
        if self.caller.asked.is_some() || now < self.next {
            return;
        }
        let body = if self.until <= now {
            self.holds = false;
            self.leases += 1;
            RequestBody::Grant(self.lease(), TTL)
        } else {
            RequestBody::KeepAlive(self.lease())
        };
        self.caller.ask(now, body, out);
    }

    fn next_at(&self) -> Option<Instant> {
        self.caller.next_at().or(Some(self.next))
    }
}

struct Site {
    world: World,
    service: ActorId,
    service_link: LinkId,
    clients: Vec<ActorId>,
    links: Vec<LinkId>,
    switch: evenkeel_io_sim::SwitchId,
}

impl Site {
    fn new(seed: u64, drift_ppm: i32) -> Site {
        let mut world = World::new(seed);
        let switch = world.add_switch(SwitchSpec::new("switch")).expect("room");
        let service = Box::new(LeaseService::with_drift(drift_ppm));
        let service = world
            .add_actor("lease", service_addr(), service)
            .expect("an address");
        let link = LinkSpec::default();
        let service_link = world
            .connect(End::Actor(service), End::Switch(switch), link)
            .expect("free");
        world.start_actor(service).expect("it is there");
        Site {
            world,
            service,
            service_link,
            clients: Vec::new(),
            links: Vec::new(),
            switch,
        }
    }

    fn add(&mut self, actor: Box<dyn Actor>) -> ActorId {
        let n = self.clients.len() as u32 + 1;
        let id = self
            .world
            .add_actor(format!("client{n}"), client_addr(n), actor)
            .expect("an address");
        let link = LinkSpec {
            delay: Duration::from_millis(1),
            ..LinkSpec::default()
        };
        self.links.push(
            self.world
                .connect(End::Actor(id), End::Switch(self.switch), link)
                .expect("free"),
        );
        self.world.start_actor(id).expect("it is there");
        self.clients.push(id);
        id
    }

    /// A client that asks for these at these milliseconds.
    fn script(&mut self, todo: Vec<(u64, RequestBody)>) -> ActorId {
        let client = self.clients.len() as u32 + 1;
        let todo = todo
            .into_iter()
            .map(|(ms, body)| (Instant::from_millis(ms), body))
            .collect();
        self.add(Box::new(Script {
            caller: Caller::new(client),
            todo,
            replies: Vec::new(),
        }))
    }

    fn until(&mut self, ms: u64) {
        self.world.run_until(Instant::from_millis(ms));
    }

    fn replies(&self, id: ActorId) -> Vec<ReplyBody> {
        let script: &Script = self.world.actor(id).expect("a script");
        script.replies.iter().map(|(_, reply)| reply.clone()).collect()
    }

    fn service(&self) -> &LeaseService {
        self.world.actor(self.service).expect("the service")
    }

    fn set_loss(&mut self, faults: Faults) {
        for link in self.links.clone() {
            self.world.set_faults(link, [faults; 2]).expect("it is there");
        }
    }
}

fn put(key: &[u8], value: &[u8], lease: Option<LeaseId>) -> RequestBody {
    RequestBody::Transact(key.to_vec(), None, Change::Put(value.to_vec(), lease))
}

const LEASE: LeaseId = LeaseId(7);

#[test]
fn a_lease_is_over_while_its_client_stands_still() {
    let mut site = Site::new(1, 0);
    let mut todo = vec![
        (0, RequestBody::Grant(LEASE, TTL)),
        (1, put(b"k", b"v", Some(LEASE))),
    ];
    todo.extend((1..60).map(|n| (n * 300, RequestBody::KeepAlive(LEASE))));
    let client = site.script(todo);
    site.until(5_000);
    assert!(site.service().store().get(b"k").is_some(), "it is kept alive");
    site.world.pause_actor(client).expect("it is there");
    site.until(6_500);
    assert!(site.service().store().get(b"k").is_none(), "nobody kept it alive");
    let replies = site.replies(client).len();
    site.world.start_actor(client).expect("it is there");
    site.until(8_000);
    let later = &site.replies(client)[replies..];
    assert!(
        later.contains(&ReplyBody::Refused(StoreError::NoLease)),
        "{later:?}"
    );
    check(&site.world);
}

#[test]
fn a_lease_is_kept_alive_through_loss_copies_and_lateness() {
    let mut site = Site::new(3, 1_000);
    let mut todo = vec![
        (0, RequestBody::Grant(LEASE, TTL)),
        (1, put(b"k", b"v", Some(LEASE))),
    ];
    todo.extend((1..200).map(|n| (n * 200, RequestBody::KeepAlive(LEASE))));
    let client = site.script(todo);
    site.set_loss(Faults {
        loss: Ppm(200_000),
        duplication: Ppm(200_000),
        copies: 2,
        reordering: Ppm(200_000),
        reorder_by: Duration::from_millis(30),
        ..Faults::default()
    });
    site.until(39_000);
    let replies = site.replies(client);
    assert!(replies.len() > 100, "{} replies", replies.len());
    assert!(
        replies.iter().all(|r| !matches!(r, ReplyBody::Refused(_))),
        "{replies:?}"
    );
    assert_eq!(
        site.service().store().get(b"k").expect("it lives").version,
        1,
        "copies put nothing again"
    );
    let script: &Script = site.world.actor(client).expect("a script");
    assert!(
        script.caller.sent > replies.len() as u64,
        "something was sent again"
    );
    check(&site.world);
}

#[test]
fn a_watch_tells_each_change_once_and_in_order_through_loss_and_restarts() {
    let mut site = Site::new(5, 0);
    // Leases with many keys end in one revision that does not fit into a datagram.
    let mut todo = Vec::new();
    for n in 0..6u64 {
        let lease = LeaseId(10 + n);
        todo.push((n * 2_000, RequestBody::Grant(lease, Duration::from_secs(60))));
        todo.extend((0..40u8).map(|k| (0, put(&[k; KEY_LEN_MAX], &[k; 200], Some(lease)))));
        todo.push((n * 2_000 + 1_900, RequestBody::Revoke(lease)));
    }
    let writer = site.script(todo);
    let watchers: Vec<ActorId> = (0..3)
        .map(|n| site.add(Box::new(Watcher::new(100 + n))))
        .collect();
    site.set_loss(Faults {
        loss: Ppm(100_000),
        duplication: Ppm(100_000),
        copies: 1,
        reordering: Ppm(100_000),
        reorder_by: Duration::from_millis(20),
        ..Faults::default()
    });
    for n in 1..=5 {
        site.until(n * 5_000);
        site.world.stop_actor(site.service).expect("it is there");
        site.until(n * 5_000 + 300);
        site.world.start_actor(site.service).expect("it is there");
    }
    site.set_loss(Faults::default());
    site.until(90_000);
    let done = site.replies(writer);
    assert_eq!(done.len(), 6 * 42, "{:?}", done.last());
    let (all, _) = site
        .service()
        .store()
        .changes(b"", 1, usize::MAX)
        .expect("all are known");
    assert!(all.len() >= 6 * 80 && all.windows(40).any(|w| w[0].revision == w[39].revision));
    for id in watchers {
        let watcher: &Watcher = site.world.actor(id).expect("a watcher");
        assert_eq!(watcher.events, all);
    }
    check(&site.world);
}

#[test]
fn a_watch_from_what_is_compacted_is_refused_with_the_revision() {
    let mut site = Site::new(1, 0);
    let puts = (0..5).map(|n| (n, put(b"k", &[n as u8], None)));
    let client = site.script(puts.chain([(10, RequestBody::Compact(4))]).collect());
    site.until(1_000);
    assert_eq!(site.replies(client).last(), Some(&ReplyBody::Done));
    let watcher = site.add(Box::new(Watcher::new(100)));
    site.until(2_000);
    let watcher: &Watcher = site.world.actor(watcher).expect("a watcher");
    assert_eq!(
        (watcher.refused, watcher.events.len()),
        (Some(StoreError::Compacted(4)), 0)
    );
}

#[test]
fn what_is_acknowledged_outlives_a_restart_and_leases_get_their_whole_time() {
    let mut site = Site::new(1, 0);
    let todo = vec![
        (0, RequestBody::Grant(LEASE, TTL)),
        (1, put(b"k", b"v", Some(LEASE))),
        (1_300, RequestBody::Get(b"k".to_vec())),
        (1_301, RequestBody::TimeLeft(LEASE)),
        (3_000, RequestBody::Get(b"k".to_vec())),
    ];
    let client = site.script(todo);
    site.until(800);
    site.world.stop_actor(site.service).expect("it is there");
    // Its time passes while nobody counts.
    site.until(1_200);
    site.world.start_actor(site.service).expect("it is there");
    site.until(4_000);
    let replies = site.replies(client);
    assert!(
        matches!(&replies[2], ReplyBody::Item(Some(item)) if item.value == b"v"),
        "{replies:?}"
    );
    assert!(
        matches!(replies[3], ReplyBody::Time(left) if left > Duration::from_millis(700)),
        "{replies:?}"
    );
    assert_eq!(replies[4], ReplyBody::Item(None), "it is over in the end");
}

#[test]
fn a_slow_service_answers_late_and_in_order() {
    let mut site = Site::new(1, 0);
    let todo = (0..20).map(|n| (n, put(b"k", &[n as u8], None))).collect();
    let client = site.script(todo);
    let service: &mut LeaseService = site.world.actor_mut(site.service).expect("the service");
    service.set_delay(Duration::from_millis(400));
    site.until(30_000);
    assert_eq!(site.replies(client).len(), 20);
    assert_eq!(
        site.service().store().get(b"k").expect("it is there").version,
        20,
        "copies put nothing again"
    );
    let script: &Script = site.world.actor(client).expect("a script");
    assert!(
        script
            .replies
            .windows(2)
            .all(|w| w[1].0 - w[0].0 >= Duration::from_millis(400))
    );
}

/// One run of three candidates with what a seed draws: how often who held, and how many restarts and pauses there were.
fn election(seed: u64) -> Vec<u32> {
    let mut site = Site::new(seed, 1_000);
    let candidates: Vec<ActorId> = (1..=3).map(|n| site.add(Box::new(Candidate::new(n)))).collect();
    let streams = Streams::new(seed);
    let mut n = 0;
    let mut draw = |end: u64| {
        n += 1;
        streams.below(77, Purpose::Scenario, n, end)
    };
    let cut = |cut| {
        [Faults {
            cut,
            loss: Ppm(50_000),
            duplication: Ppm(50_000),
            copies: 2,
            reordering: Ppm(100_000),
            reorder_by: Duration::from_millis(400),
            ..Faults::default()
        }; 2]
    };
    let mut at = 0u64;
    while at < 60_000 {
        let who = draw(3) as usize;
        let (client, link) = (candidates[who], site.links[who]);
        match draw(9) {
            0 => site.world.stop_actor(site.service).expect("it is there"),
            1 => site.world.pause_actor(site.service).expect("it is there"),
            2 | 3 => site.world.start_actor(site.service).expect("it is there"),
            4 => site.world.pause_actor(client).expect("it is there"),
            5 => site.world.stop_actor(client).expect("it is there"),
            6 => site.world.start_actor(client).expect("it is there"),
            7 => site.world.set_faults(link, cut(true)).expect("it is there"),
            _ => {
                site.world
                    .set_faults(site.service_link, cut(false))
                    .expect("it is there");
                site.world.set_faults(link, cut(false)).expect("it is there");
                site.world.start_actor(client).expect("it is there");
                site.world.start_actor(site.service).expect("it is there");
            }
        }
        at += 50 + draw(1_500);
        let until = Instant::from_millis(at);
        while site.world.next_at().is_some_and(|next| next <= until) {
            site.world.step();
            // A belief begins at an event, and ends by the clock: if two held at once they would at an event.
            let now = site.world.now();
            let holders = candidates.iter().filter(|id| {
                let candidate: &Candidate = site.world.actor(**id).expect("a candidate");
                candidate.holds_at(now)
            });
            assert!(holders.count() <= 1, "seed {seed}: two hold at {now:?}");
        }
        site.world.run_until(until);
    }
    check(&site.world);
    let held = |id: &ActorId| site.world.actor::<Candidate>(*id).expect("a candidate").held;
    candidates.iter().map(held).collect()
}

#[test]
fn two_never_hold_at_once_under_partitions_pauses_and_restarts() {
    let mut changes = 0;
    for seed in 0..40 {
        let held = election(seed);
        changes += held.iter().sum::<u32>();
    }
    assert!(changes > 200, "{changes} times that somebody came to hold");
}
