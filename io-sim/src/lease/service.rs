//! The service as an actor: it may be stopped, started, stand still, be slow and be cut off.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use evenkeel_core::time::Instant;

use super::message::{EVENTS_HEAD_LEN, Reply, ReplyBody, Request, RequestBody, event_len};
use super::store::{Store, StoreError};
use crate::actor::{Actor, DATAGRAM_LEN_MAX, Datagrams};

/// Clients of which a service remembers the last reply, at most: others are not heard.
const CLIENT_COUNT_MAX: usize = 256;
/// Replies that wait to be sent, at most: a slow service drops what comes beyond.
const WAITING_COUNT_MAX: usize = 1_024;
/// Events that are told again until they are confirmed.
const TELL_AGAIN: Duration = Duration::from_millis(200);
/// Revisions that are looked through for one datagram of events.
const EVENTS_A_LOOK: usize = 16;

#[derive(Debug)]
struct Watch {
    number: u32,
    addr: SocketAddrV4,
    prefix: Vec<u8>,
    from: u64,
    /// Events of that revision that the client has.
    known: u32,
    /// When it was told something that is not confirmed.
    told_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Client {
    number: u32,
    reply: Vec<u8>,
    watch: Option<Watch>,
}

/// A lease service on a machine of its own. What it acknowledges it keeps over a restart; who its clients are it does not.
#[derive(Debug, Default)]
pub struct LeaseService {
    store: Store,
    /// Starts so far.
    life: u64,
    /// Its clock goes so much faster, in millionths.
    drift_ppm: i32,
    /// From a request to its reply.
    delay: Duration,
    clients: BTreeMap<u32, Client>,
    waiting: VecDeque<(Instant, SocketAddrV4, Vec<u8>)>,
}

impl LeaseService {
    /// With a clock that goes so much faster (or slower) than the world's, in millionths; 100,000 at most.
    pub fn with_drift(drift_ppm: i32) -> Self {
        LeaseService {
            drift_ppm: drift_ppm.clamp(-100_000, 100_000),
            ..LeaseService::default()
        }
    }

    /// It takes so long for each reply from now on.
    pub fn set_delay(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// What it holds.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its own time.
    fn local(&self, now: Instant) -> Instant {
        let ns = i128::from(now.as_nanos());
        let local = ns + ns * i128::from(self.drift_ppm) / 1_000_000;
        Instant::from_nanos(u64::try_from(local).unwrap_or(0))
    }

    /// The first time of the world at which its own is `local` or later.
    fn world(&self, local: Instant) -> Instant {
        let ns = u128::from(local.as_nanos()) * 1_000_000;
        let speed = u128::from((1_000_000 + self.drift_ppm).unsigned_abs());
        Instant::from_nanos(u64::try_from(ns.div_ceil(speed)).unwrap_or(u64::MAX))
    }

    fn carry_out(&mut self, now: Instant, body: RequestBody) -> ReplyBody {
        let local = self.local(now);
        let done = |result: Result<(), StoreError>| result.map(|()| ReplyBody::Done);
        let store = &mut self.store;
        let result = match body {
            RequestBody::Hello | RequestBody::Watch(..) => Ok(ReplyBody::Done),
            RequestBody::Grant(id, ttl) => done(store.grant(local, id, ttl)),
            RequestBody::KeepAlive(id) => store.keep_alive(local, id).map(ReplyBody::Time),
            RequestBody::Revoke(id) => done(store.revoke(id)),
            RequestBody::TimeLeft(id) => store.time_left(local, id).map(ReplyBody::Time),
            RequestBody::Get(key) => Ok(ReplyBody::Item(store.get(&key).cloned())),
            RequestBody::Transact(key, at, change) => store
                .transact(local, &key, at, change)
                .map(|done| ReplyBody::Transacted(done, store.get(&key).cloned())),
            RequestBody::Compact(revision) => done(store.compact(revision)),
        };
        result.unwrap_or_else(ReplyBody::Refused)
    }

    fn reply(&self, number: u32, body: ReplyBody) -> Vec<u8> {
        let reply = Reply {
            number,
            life: self.life,
            revision: self.store.revision(),
            body,
        };
        reply.emit()
    }

    fn answer(&mut self, now: Instant, to: SocketAddrV4, reply: Vec<u8>) {
        if self.waiting.len() < WAITING_COUNT_MAX {
            // Replies do not overtake each other, though the delay may have changed.
            let at = now + self.delay;
            let at = self.waiting.back().map_or(at, |(last, ..)| at.max(*last));
            self.waiting.push_back((at, to, reply));
        }
    }

    /// Tells watchers what they do not know yet.
    fn tell(&mut self, now: Instant) {
        let mut told = Vec::new();
        for client in self.clients.values_mut() {
            let Some(watch) = &mut client.watch else { continue };
            if watch.told_at.is_some_and(|at| now < at + TELL_AGAIN) {
                continue;
            }
            let body = match self.store.changes(&watch.prefix, watch.from, EVENTS_A_LOOK) {
                Err(error) => ReplyBody::Refused(error),
                Ok((events, next)) => {
                    let known = events
                        .iter()
                        .filter(|e| e.revision == watch.from)
                        .count()
                        .min(watch.known as usize);
                    let mut room = DATAGRAM_LEN_MAX - EVENTS_HEAD_LEN;
                    let mut sent = Vec::new();
                    let mut next = (next, 0);
                    for event in events.into_iter().skip(known) {
                        let Some(left) = room.checked_sub(event_len(&event)) else {
                            let revision = event.revision;
                            let of_it = sent
                                .iter()
                                .filter(|e: &&super::Event| e.revision == revision)
                                .count();
                            let before = if revision == watch.from { known } else { 0 };
                            next = (revision, (before + of_it) as u32);
                            break;
                        };
                        room = left;
                        sent.push(event);
                    }
                    if sent.is_empty() {
                        watch.told_at = None;
                        continue;
                    }
                    ReplyBody::Events(sent, next.0, next.1)
                }
            };
            watch.told_at = Some(now);
            told.push((watch.addr, watch.number, body));
        }
        for (addr, number, body) in told {
            let reply = self.reply(number, body);
            self.answer(now, addr, reply);
        }
    }

    fn send(&mut self, now: Instant, out: &mut Datagrams) {
        while self.waiting.front().is_some_and(|(at, ..)| *at <= now) {
            if let Some((_, to, reply)) = self.waiting.pop_front() {
                out.send(to, reply);
            }
        }
    }
}

impl Actor for LeaseService {
    fn start(&mut self, now: Instant) {
        self.life += 1;
        self.clients.clear();
        self.waiting.clear();
        let local = self.local(now);
        self.store.elected(local);
    }

    fn datagram(&mut self, now: Instant, from: SocketAddrV4, data: &[u8], out: &mut Datagrams) {
        let Some(request) = Request::parse(data) else {
            return;
        };
        let Request {
            client,
            number,
            life,
            body,
        } = request;
        if matches!(body, RequestBody::Hello) || life != self.life {
            let body = if matches!(body, RequestBody::Hello) {
                ReplyBody::Done
            } else {
                ReplyBody::OtherLife
            };
            let reply = self.reply(number, body);
            self.answer(now, from, reply);
            return self.send(now, out);
        }
        if !self.clients.contains_key(&client) && self.clients.len() >= CLIENT_COUNT_MAX {
            return;
        }
        let known = self.clients.entry(client).or_default();
        if let RequestBody::Watch(prefix, revision, skip) = body {
            // An old copy does not go back.
            if known.watch.as_ref().is_none_or(|w| w.number <= number) {
                let same = known
                    .watch
                    .as_ref()
                    .filter(|w| (w.number, w.from, w.known) == (number, revision, skip));
                known.watch = Some(Watch {
                    told_at: same.and_then(|w| w.told_at),
                    number,
                    addr: from,
                    prefix,
                    from: revision,
                    known: skip,
                });
            }
        } else if number == known.number {
            let reply = known.reply.clone();
            self.answer(now, from, reply);
        } else if number > known.number {
            let body = self.carry_out(now, body);
            let reply = self.reply(number, body);
            if let Some(known) = self.clients.get_mut(&client) {
                known.number = number;
                known.reply.clone_from(&reply);
            }
            self.answer(now, from, reply);
        }
        self.tell(now);
        self.send(now, out);
    }

    fn timeout(&mut self, now: Instant, out: &mut Datagrams) {
        let local = self.local(now);
        self.store.expire(local);
        self.tell(now);
        self.send(now, out);
    }

    fn next_at(&self) -> Option<Instant> {
        let over = self.store.next_at().map(|at| self.world(at));
        let watches = self.clients.values().filter_map(|c| c.watch.as_ref());
        let again = watches.filter_map(|w| w.told_at).map(|at| at + TELL_AGAIN).min();
        let waiting = self.waiting.front().map(|(at, ..)| *at);
        [over, again, waiting].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_clock_is_read_both_ways() {
        for drift in [-100_000, -37, 0, 1, 99_999] {
            let service = LeaseService::with_drift(drift);
            for ns in [0, 1, 999, 1_000_000_007, 3_600_000_000_000] {
                let local = Instant::from_nanos(ns);
                let world = service.world(local);
                assert!(service.local(world) >= local, "{drift}: {ns}");
                if world.as_nanos() > 0 {
                    let before = Instant::from_nanos(world.as_nanos() - 1);
                    assert!(service.local(before) <= local, "{drift}: {ns}");
                }
            }
        }
    }
}
