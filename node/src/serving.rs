//! What workers serve by: the config, less the real servers that are down, with the neighbours that were learnt.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::neighbours::Neighbours;
use evenkeel_core::service::{RealServerId, ServiceId, Snapshot, SnapshotSpec};
use evenkeel_core::time::Instant;

/// Changes are gathered for so long before workers are told of them.
const GATHER_TIME: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Serving {
    spec: SnapshotSpec,
    /// Servers that get no new connections, by service.
    down: BTreeSet<(ServiceId, RealServerId)>,
    neighbours: Neighbours,
    /// Something but neighbours has changed.
    changed: bool,
    /// What of the neighbours workers know.
    told: u64,
    /// Nothing is told before.
    not_before: Instant,
}

impl Serving {
    /// Workers begin with `spec`, too. `seed` spreads the times of questions for neighbours.
    pub(crate) fn new(spec: SnapshotSpec, seed: u64) -> Self {
        Serving {
            spec,
            down: BTreeSet::new(),
            neighbours: Neighbours::new(seed),
            changed: true,
            told: 0,
            not_before: Instant::default(),
        }
    }

    /// Who is known on the links.
    pub(crate) fn neighbours(&mut self) -> &mut Neighbours {
        &mut self.neighbours
    }

    /// A real server is up or down; whether that is new.
    pub(crate) fn set_server(&mut self, service: ServiceId, server: RealServerId, up: bool) -> bool {
        let known = |s: &&evenkeel_core::service::ServiceSpec| {
            s.id == service && s.servers.iter().any(|r| r.id == server)
        };
        if !self.spec.services.iter().any(|s| known(&s)) {
            return false;
        }
        let new = if up {
            self.down.remove(&(service, server))
        } else {
            self.down.insert((service, server))
        };
        self.changed |= new;
        new
    }

    /// Whether a real server gets new connections, as far as its checks say.
    pub(crate) fn is_up(&self, service: ServiceId, server: RealServerId) -> bool {
        !self.down.contains(&(service, server))
    }

    /// The config, as it is served by.
    pub(crate) fn spec(&self) -> &SnapshotSpec {
        &self.spec
    }

    /// Another config, and the servers that are checked by it: what is known of these stays known, and all others are
    /// taken to be up.
    pub(crate) fn reload(&mut self, spec: SnapshotSpec, checked: &BTreeSet<(ServiceId, RealServerId)>) {
        self.down.retain(|key| checked.contains(key));
        self.spec = spec;
        self.changed = true;
    }

    /// When [`Serving::changed`] has something to say.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.changed || self.neighbours.version() != self.told;
        let told = waits.then_some(self.not_before);
        told.into_iter().chain(self.neighbours.poll_timeout()).min()
    }

    /// Asks for neighbours again, ages them; and what workers are to read from now on, if that has changed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Arc<Snapshot>> {
        self.neighbours.handle_timeout(now);
        if now < self.not_before {
            return None;
        }
        if std::mem::take(&mut self.changed) {
            let mut spec = self.spec.clone();
            for service in &mut spec.services {
                for server in &mut service.servers {
                    if self.down.contains(&(service.id, server.id)) {
                        server.weight = 0;
                    }
                }
            }
            if let Err(errors) = self.neighbours.set_spec(now, Arc::new(spec)) {
                complain(&errors);
                return None;
            }
        }
        if self.neighbours.version() == self.told {
            return None;
        }
        self.told = self.neighbours.version();
        self.not_before = now + GATHER_TIME;
        match self.neighbours.snapshot() {
            Ok(snapshot) => Some(Arc::new(snapshot)),
            Err(errors) => {
                complain(&errors);
                None
            }
        }
    }
}

/// The config was good when it was read: this is a fault of ours.
fn complain(errors: &[evenkeel_core::service::SnapshotError]) {
    let all: Vec<_> = errors.iter().take(3).map(ToString::to_string).collect();
    tracing::error!("what changed cannot be served by: {}", all.join("; "));
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
[[port]]
name = "p"
mac = "02:00:00:00:00:01"
addresses = ["10.0.0.2/24"]
[[service]]
name = "web"
vip = "10.0.0.80:80"
protocol = "tcp"
local_addresses = ["10.0.0.10"]
[[service.server]]
address = "10.0.0.11:80"
[[service.server]]
address = "10.0.0.12:80"
"#;

    fn serving() -> Serving {
        Serving::new(
            evenkeel_control::parse("test", CONFIG)
                .expect("a good config")
                .spec,
            1,
        )
    }

    #[test]
    fn a_server_that_is_down_gets_nothing_until_it_is_up() {
        let mut serving = serving();
        let service = serving.spec().services[0].clone();
        let (first, second) = (service.servers[0].id, service.servers[1].id);
        let mut now = Instant::default();
        let mut weights = |serving: &mut Serving| -> Option<Vec<u16>> {
            now = now + GATHER_TIME;
            let snapshot = serving.handle_timeout(now)?;
            let service = snapshot.service(service.id).expect("it is served");
            Some(service.servers.iter().map(|s| s.weight).collect())
        };
        assert_eq!(weights(&mut serving), Some(vec![1, 1]));
        assert_eq!(weights(&mut serving), None, "nothing has changed");
        assert!(serving.set_server(service.id, first, false));
        assert!(!serving.set_server(service.id, first, false), "it was");
        assert!(
            !serving.set_server(service.id, RealServerId(999), false),
            "there is none"
        );
        assert_eq!(weights(&mut serving), Some(vec![0, 1]));
        assert_eq!(weights(&mut serving), None);
        assert!(serving.set_server(service.id, second, false));
        assert_eq!(weights(&mut serving), Some(vec![0, 0]));
        // A reload keeps what is known of servers.
        let mut spec = serving.spec().clone();
        spec.services[0].servers.remove(1);
        serving.reload(spec.clone(), &BTreeSet::from([(service.id, first)]));
        assert_eq!(weights(&mut serving), Some(vec![0]));
        assert!(!serving.is_up(service.id, first) && serving.is_up(service.id, second));
        assert!(serving.set_server(service.id, first, true));
        assert_eq!(weights(&mut serving), Some(vec![1]));
        // Nobody checks it any more, and nobody would say that it is up again.
        assert!(serving.set_server(service.id, first, false));
        serving.reload(spec, &BTreeSet::new());
        assert_eq!(weights(&mut serving), Some(vec![1]));
    }

    #[test]
    fn what_comes_at_once_is_told_at_once_and_what_follows_is_gathered() {
        let mut serving = serving();
        let at = |ms: u64| Instant::from_millis(ms);
        assert!(serving.handle_timeout(at(1000)).is_some());
        let service = serving.spec().services[0].clone();
        serving.set_server(service.id, service.servers[0].id, false);
        assert!(serving.handle_timeout(at(1001)).is_none());
        let due = serving.poll_timeout().expect("it waits");
        assert_eq!(due, at(1000) + GATHER_TIME);
        assert!(serving.handle_timeout(due).is_some());
    }
}
