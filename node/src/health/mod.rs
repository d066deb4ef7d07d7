//! Active health checks: real connections, datagrams and echoes to real servers, from the kernel's addresses.
//!
//! Every server of a service with a `[service.health]` has a task that checks it, at a phase of its interval that is
//! its own. What came of it goes through [`Standing`], and what a server became goes out as a [`HealthEvent`]. A
//! server that hangs costs a place among those that are asked at a time, until its timeout, and delays nobody as
//! long as one is free.

mod check;
mod http;
mod icmp;
mod state;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_control::{Config, HealthCheck, HealthConfig};
use evenkeel_core::service::{RealServerId, ServiceId};
use evenkeel_core::tuple::Family;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

use check::Outcome;
pub use icmp::IcmpError;
pub use state::Standing;

/// Checks under way at a time, of all servers. Each has one socket.
pub const IN_FLIGHT_MAX: usize = 256;

/// Longest [`HealthEvent::why`], in bytes.
pub const WHY_LEN_MAX: usize = 200;

/// The first checks are spread over this, if the interval is longer: soon after the start, all is known.
const FIRST_SPREAD: Duration = Duration::from_secs(1);

/// That checks cannot be made is said so often, at most.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// How one server is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSpec {
    /// Its service.
    pub service: ServiceId,
    /// Its id.
    pub server: RealServerId,
    /// Where it serves.
    pub addr: SocketAddr,
    /// What is done, and how often.
    pub health: Arc<HealthConfig>,
}

impl CheckSpec {
    /// All that `config` says to check, in its order.
    pub fn of(config: &Config) -> Vec<CheckSpec> {
        let services = config.spec.services.iter().zip(&config.health);
        let checked = services.filter_map(|(s, h)| Some((s, Arc::new(h.clone()?))));
        checked
            .flat_map(|(service, health)| {
                service.servers.iter().map(move |server| CheckSpec {
                    service: service.id,
                    server: server.id,
                    addr: SocketAddr::new(server.addr, server.port),
                    health: health.clone(),
                })
            })
            .collect()
    }

    fn key(&self) -> Key {
        (self.service, self.server)
    }
}

type Key = (ServiceId, RealServerId);

/// A server became something else than it was. The first one about a server says what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthEvent {
    /// The service of the server.
    pub service: ServiceId,
    /// The server.
    pub server: RealServerId,
    /// Whether it is up now.
    pub up: bool,
    /// What came of the last check, for people: at most [`WHY_LEN_MAX`] bytes, no control characters.
    pub why: String,
}

/// What was counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckStats {
    /// Checks that succeeded.
    pub succeeded: u64,
    /// Checks that failed.
    pub failed: u64,
    /// Checks that this host could not make, for want of sockets or local ports: they count neither way.
    pub not_made: u64,
    /// Why, of the last of these; at most [`WHY_LEN_MAX`] bytes.
    pub not_made_why: Option<String>,
    /// Checks that began late, because [`IN_FLIGHT_MAX`] were under way.
    pub late: u64,
}

/// The checks of a node. Dropping it ends them all.
#[derive(Debug)]
pub struct Checks {
    tasks: BTreeMap<Key, Task>,
    shared: Arc<Shared>,
    events: mpsc::Sender<HealthEvent>,
}

#[derive(Debug)]
struct Task {
    spec: watch::Sender<Arc<CheckSpec>>,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    places: Semaphore,
    tokens: AtomicU64,
    known: Mutex<Known>,
}

/// What came of all checks so far.
#[derive(Debug, Default)]
struct Known {
    stats: CheckStats,
    /// Servers whose last check could not be made, and why; at most all that are checked.
    not_made: BTreeMap<Key, String>,
    complaints: Complaints,
}

/// When it is said that checks cannot be made.
#[derive(Debug, Default)]
struct Complaints {
    /// When it was said last.
    said: Option<Instant>,
    /// Checks that could not be made since then.
    count: u64,
}

impl Complaints {
    /// One more check could not be made; of how many it is to be said now.
    fn add(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.said.is_some_and(|said| now < said + COMPLAINT_INTERVAL) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

impl Checks {
    /// Checks servers as `specs` say from now on, one for each server, and tells `events` what they are. While
    /// `events` is full, a server that has something to tell waits with it and is not checked. `seed` shifts the
    /// phases: nodes with different seeds do not ask at the same time. It must be called within a tokio runtime that
    /// has time and I/O enabled.
    ///
    /// # Errors
    /// Servers are to be checked by ICMP, and that is not possible here; nothing was started.
    pub fn spawn(
        seed: u64,
        specs: Vec<CheckSpec>,
        events: mpsc::Sender<HealthEvent>,
    ) -> Result<Checks, IcmpError> {
        let shared = Shared {
            seed,
            places: Semaphore::new(IN_FLIGHT_MAX),
            // Not that of the life before: a late reply to that one is not one to us.
            tokens: AtomicU64::new(mix(seed ^ u64::from(std::process::id()))),
            known: Mutex::default(),
        };
        let mut checks = Checks {
            tasks: BTreeMap::new(),
            shared: Arc::new(shared),
            events,
        };
        checks.update(specs)?;
        Ok(checks)
    }

    /// Checks as `specs` say from now on. A server that was checked before stays what it is, and nothing is told of
    /// it; if it is checked in another way now, it counts anew. Of one that is not checked any more nothing is told,
    /// but what it told before may still be under way.
    ///
    /// # Errors
    /// As of [`Checks::spawn`]; nothing was changed.
    pub fn update(&mut self, specs: Vec<CheckSpec>) -> Result<(), IcmpError> {
        for family in [Family::V4, Family::V6] {
            let mut specs = specs.iter().filter(|s| s.health.check == HealthCheck::Icmp);
            if specs.any(|s| Family::of(&s.addr.ip()) == family) {
                icmp::probe(family)?;
            }
        }
        let keys: BTreeSet<Key> = specs.iter().map(CheckSpec::key).collect();
        self.tasks.retain(|key, _| keys.contains(key));
        self.shared
            .know(|known| known.not_made.retain(|key, _| keys.contains(key)));
        for spec in specs {
            // Another address under an old id is another server.
            let old = self.tasks.get(&spec.key());
            match old.filter(|t| t.spec.borrow().addr == spec.addr) {
                Some(task) => {
                    task.spec.send_if_modified(|old| {
                        let changed = **old != spec;
                        if changed {
                            *old = Arc::new(spec);
                        }
                        changed
                    });
                }
                None => {
                    let key = spec.key();
                    let (sender, receiver) = watch::channel(Arc::new(spec));
                    let task = watch(receiver, self.shared.clone(), self.events.clone());
                    let handle = tokio::spawn(task);
                    self.tasks.insert(key, Task { spec: sender, handle });
                }
            }
        }
        Ok(())
    }

    /// Whether the server is checked now. An event of one that is not is of the time before an update.
    pub fn has(&self, service: ServiceId, server: RealServerId) -> bool {
        self.tasks.contains_key(&(service, server))
    }

    /// What was counted so far.
    pub fn stats(&self) -> CheckStats {
        self.shared.know(|known| known.stats.clone())
    }

    /// Why the last check of a server could not be made; `None`: it was made, or none was due yet. At most
    /// [`WHY_LEN_MAX`] bytes.
    pub fn not_made(&self, service: ServiceId, server: RealServerId) -> Option<String> {
        self.shared
            .know(|known| known.not_made.get(&(service, server)).cloned())
    }
}

impl Shared {
    fn know<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        // What is known is right whatever a holder of the lock was about to do.
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Checks once, at `due` or as soon as there is a place.
    async fn check(&self, due: Instant, spec: &CheckSpec) -> Outcome {
        tokio::time::sleep_until(due).await;
        let place = match self.places.try_acquire() {
            Ok(place) => Ok(place),
            Err(_) => {
                self.know(|known| known.stats.late += 1);
                self.places.acquire().await
            }
        };
        let outcome = match place {
            Ok(_place) => {
                let token = self.tokens.fetch_add(1, Ordering::Relaxed);
                check::run(spec.addr, &spec.health, token).await
            }
            Err(closed) => Outcome::NotMade(closed.to_string()),
        };
        self.count(Instant::now(), spec, &outcome);
        outcome
    }

    /// What came of a check; that it could not be made is said, as nobody else would notice.
    fn count(&self, now: Instant, spec: &CheckSpec, outcome: &Outcome) {
        let said = self.know(|known| {
            let Outcome::NotMade(why) = outcome else {
                known.not_made.remove(&spec.key());
                match outcome {
                    Outcome::Success(_) => known.stats.succeeded += 1,
                    _ => known.stats.failed += 1,
                }
                return None;
            };
            let why = bounded(why);
            known.stats.not_made += 1;
            known.stats.not_made_why = Some(why.clone());
            known.not_made.insert(spec.key(), why.clone());
            let count = known.complaints.add(now)?;
            Some((count, why))
        });
        if let Some((count, why)) = said {
            let addr = spec.addr;
            warn!(
                count,
                "health checks cannot be made, and servers stay what they are, {addr} for one: {why}"
            );
        }
    }
}

/// The task of one server, until nobody wants to know.
async fn watch(
    mut specs: watch::Receiver<Arc<CheckSpec>>,
    shared: Arc<Shared>,
    events: mpsc::Sender<HealthEvent>,
) {
    let mut spec = specs.borrow_and_update().clone();
    let mut phase = Phase::new(shared.seed, &spec, Instant::now());
    let mut standing = Standing::new(spec.health.rise, spec.health.fall);
    let mut due = phase.first();
    loop {
        let outcome = tokio::select! {
            biased;
            // What was under way is dropped: it is not what is asked now.
            changed = specs.changed() => {
                if changed.is_err() {
                    return;
                }
                spec = specs.borrow_and_update().clone();
                phase = Phase::new(shared.seed, &spec, Instant::now());
                standing.handle_change(spec.health.rise, spec.health.fall);
                due = phase.first();
                continue;
            }
            outcome = shared.check(due, &spec) => outcome,
        };
        due = phase.next(due, Instant::now());
        let (success, why) = match outcome {
            Outcome::Success(why) => (true, why),
            Outcome::Failure(why) => (false, why),
            Outcome::NotMade(_) => continue,
        };
        let Some(up) = standing.handle_result(success) else {
            continue;
        };
        let event = HealthEvent {
            service: spec.service,
            server: spec.server,
            up,
            why: bounded(&why),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// When a server is checked: at a point of each interval that is its own.
#[derive(Clone, Copy, Debug)]
struct Phase {
    start: Instant,
    interval: Duration,
    hash: u64,
}

impl Phase {
    fn new(seed: u64, spec: &CheckSpec, start: Instant) -> Self {
        let id = u64::from(spec.service.0) << 16 | u64::from(spec.server.0);
        Phase {
            start,
            interval: spec.health.interval.max(Duration::from_millis(1)),
            hash: mix(seed ^ mix(id)),
        }
    }

    /// The first check.
    fn first(&self) -> Instant {
        self.start + part(self.interval.min(FIRST_SPREAD), self.hash)
    }

    /// The check after that of `due`, which has ended `now`: half an interval after it at least, and of those that
    /// were missed none.
    fn next(&self, due: Instant, now: Instant) -> Instant {
        let own = self.start + part(self.interval, self.hash);
        let after = (due + self.interval / 2).max(now);
        let past = after.saturating_duration_since(own);
        let count = u32::try_from(past.as_nanos().div_ceil(self.interval.as_nanos())).unwrap_or(u32::MAX);
        own + self.interval.saturating_mul(count)
    }
}

/// `hash` of 2^64 parts of `whole`.
fn part(whole: Duration, hash: u64) -> Duration {
    // The product of 64 bits each fits, and a duration beyond 2^64 ns is none of ours.
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(((u128::from(nanos) * u128::from(hash)) >> 64) as u64)
}

/// Mixes 64 bits (the finaliser of SplitMix64).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// `text` as an event may carry it.
fn bounded(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let c = if c.is_control() { '?' } else { c };
        if out.len() + c.len_utf8() > WHY_LEN_MAX {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(server: u16, interval: Duration) -> CheckSpec {
        CheckSpec {
            service: ServiceId(3),
            server: RealServerId(server),
            addr: "127.0.0.1:80".parse().expect("address"),
            health: Arc::new(HealthConfig {
                check: HealthCheck::Tcp,
                interval,
                timeout: interval,
                rise: 2,
                fall: 3,
                port: None,
            }),
        }
    }

    #[test]
    fn phases_are_spread_and_the_same_again() {
        let start = Instant::now();
        let interval = Duration::from_secs(10);
        let mut tenths = [0; 10];
        for server in 0..1000 {
            let spec = spec(server, interval);
            let phase = Phase::new(7, &spec, start);
            assert_eq!(phase.first(), Phase::new(7, &spec, start).first());
            assert!(phase.first() < start + FIRST_SPREAD);
            let second = phase.next(phase.first(), phase.first());
            let third = phase.next(second, second);
            let tenth = (third - start).as_millis() as usize / 1000 % 10;
            tenths[tenth] += 1;
        }
        // A thousand of them on ten places: seven deviations either way.
        assert!(tenths.iter().all(|n| (34..=166).contains(n)), "{tenths:?}");
        let of = |seed| Phase::new(seed, &spec(1, interval), start).first();
        assert_ne!(of(1), of(2), "another node asks at another time");
    }

    /// Lines of the log.
    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<String>>>);

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Said {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            struct Text(String);
            impl tracing::field::Visit for Text {
                fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                    self.0 += &format!("{field}={value:?} ");
                }
            }
            let mut text = Text(String::new());
            event.record(&mut text);
            let mut said = self.0.lock().expect("nobody fell");
            said.push(format!("{} {}", event.metadata().level(), text.0));
        }
    }

    #[test]
    fn checks_that_cannot_be_made_are_said_now_and_then_with_the_reason() {
        use tracing_subscriber::layer::SubscriberExt;
        let (events, _health) = mpsc::channel(1);
        let checks = Checks::spawn(7, Vec::new(), events).expect("nothing to ask for");
        let said = Said::default();
        let _log =
            tracing::subscriber::set_default(tracing_subscriber::Registry::default().with(said.clone()));
        let (one, other) = (spec(1, Duration::from_secs(1)), spec(2, Duration::from_secs(1)));
        let lines = || std::mem::take(&mut *said.0.lock().expect("nobody fell"));
        let not_made = || Outcome::NotMade("no socket\nat all".into());

        let now = Instant::now();
        checks
            .shared
            .count(now, &one, &Outcome::Success("status 200".into()));
        assert_eq!(lines(), [""; 0]);
        for _ in 0..1000 {
            checks.shared.count(now, &one, &not_made());
        }
        let told = lines();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("WARN ") && told[0].contains("count=1 "),
            "{told:?}"
        );
        assert!(
            told[0].contains("127.0.0.1:80 for one: no socket?at all"),
            "{told:?}"
        );
        let later = now + COMPLAINT_INTERVAL;
        checks.shared.count(later, &other, &not_made());
        let told = lines();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("count=1000 "), "{told:?}");

        let why = |server| checks.not_made(ServiceId(3), RealServerId(server));
        assert_eq!(why(1).as_deref(), Some("no socket?at all"));
        assert!(why(2).is_some() && why(3).is_none());
        checks
            .shared
            .count(later, &other, &Outcome::Failure("refused".into()));
        assert_eq!(why(2), None, "it was asked");
        let CheckStats {
            succeeded,
            failed,
            not_made,
            ..
        } = checks.stats();
        assert_eq!((succeeded, failed, not_made), (1, 1, 1001));
        // Of servers that nobody checks nothing is kept.
        let mut checks = checks;
        checks.update(Vec::new()).expect("nothing to ask for");
        assert_eq!(checks.not_made(ServiceId(3), RealServerId(1)), None);
    }

    #[test]
    fn the_example_is_checked_as_it_says() {
        let text = include_str!("../../../examples/active-backup.toml");
        let config = evenkeel_control::parse("active-backup.toml", text).expect("right");
        let specs = CheckSpec::of(&config);
        let shape: Vec<_> = specs
            .iter()
            .map(|s| (s.addr.to_string(), s.health.check.clone()))
            .collect();
        let addrs: Vec<_> = shape.iter().map(|s| s.0.as_str()).collect();
        assert_eq!(
            addrs,
            [
                "198.51.100.11:8080",
                "198.51.100.12:8080",
                "[2001:db8:5::11]:8443",
                "198.51.100.12:53"
            ]
        );
        let kinds: Vec<_> = shape.iter().map(|s| std::mem::discriminant(&s.1)).collect();
        assert!(kinds[0] == kinds[1] && kinds[1] != kinds[2] && kinds[2] != kinds[3]);
        let keys: BTreeSet<_> = specs.iter().map(CheckSpec::key).collect();
        assert_eq!(keys.len(), specs.len());
    }

    proptest! {
        #[test]
        fn checks_are_an_interval_apart_however_late_they_end(
            seed in any::<u64>(), server in any::<u16>(), ms in 1u64..=3_600_000,
            lates in proptest::collection::vec(0u64..=20_000_000, 1..20),
        ) {
            let start = Instant::now();
            let interval = Duration::from_millis(ms);
            let phase = Phase::new(seed, &spec(server, interval), start);
            let mut due = phase.first();
            prop_assert!(due >= start && due < start + interval);
            let own = start + part(interval, phase.hash);
            for (i, late) in lates.into_iter().enumerate() {
                let now = due + Duration::from_micros(late);
                let next = phase.next(due, now);
                prop_assert!(next >= now && next < now.max(due + interval / 2) + interval);
                prop_assert!(next - due >= interval / 2);
                prop_assert_eq!((next - own).as_nanos() % interval.as_nanos(), 0);
                if i > 0 {
                    prop_assert_eq!((next - due).as_nanos() % interval.as_nanos(), 0);
                }
                due = next;
            }
        }

        #[test]
        fn reasons_are_bounded_and_plain(text in "\\PC{0,300}|[\u{0}-\u{ff}]{0,300}") {
            let why = bounded(&text);
            prop_assert!(why.len() <= WHY_LEN_MAX && !why.chars().any(char::is_control));
            let kept = text.chars().map(|c| if c.is_control() { '?' } else { c });
            prop_assert!(kept.zip(why.chars()).all(|(a, b)| a == b));
        }
    }
}
