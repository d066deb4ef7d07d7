//! What workers serve by: the config, less the real servers that are down, more the neighbours that were learnt.

use std::collections::BTreeSet;
use std::sync::Arc;

use evenkeel_core::service::{NeighbourSpec, RealServerId, ServiceId, Snapshot, SnapshotSpec};

/// See the module.
#[derive(Debug)]
pub(crate) struct Serving {
    spec: SnapshotSpec,
    /// Servers that get no new connections, by service.
    down: BTreeSet<(ServiceId, RealServerId)>,
    /// Neighbours beside those of the config.
    learnt: Vec<NeighbourSpec>,
    changed: bool,
}

impl Serving {
    pub(crate) fn new(spec: SnapshotSpec) -> Self {
        Serving {
            spec,
            down: BTreeSet::new(),
            learnt: Vec::new(),
            changed: false,
        }
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

    /// The neighbours that are known beside those of the config.
    pub(crate) fn set_learnt(&mut self, learnt: Vec<NeighbourSpec>) {
        self.changed |= self.learnt != learnt;
        self.learnt = learnt;
    }

    /// Another config. What is known of servers that it still has stays known.
    pub(crate) fn reload(&mut self, spec: SnapshotSpec) {
        let has = |(service, server): &(ServiceId, RealServerId)| {
            let service = spec.services.iter().find(|s| s.id == *service);
            service.is_some_and(|s| s.servers.iter().any(|r| r.id == *server))
        };
        self.down.retain(has);
        self.spec = spec;
        self.changed = true;
    }

    /// What workers are to read from now on; `None`: what they have.
    pub(crate) fn changed(&mut self) -> Option<Arc<Snapshot>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut spec = self.spec.clone();
        for service in &mut spec.services {
            for server in &mut service.servers {
                if self.down.contains(&(service.id, server.id)) {
                    server.weight = 0;
                }
            }
        }
        // What the config says of an address counts.
        let said = |n: &&NeighbourSpec| {
            spec.neighbours
                .iter()
                .any(|m| m.addr == n.addr && m.port == n.port)
        };
        let more: Vec<_> = self.learnt.iter().filter(|n| !said(n)).cloned().collect();
        spec.neighbours.extend(more);
        match Snapshot::new(&spec) {
            Ok(snapshot) => Some(Arc::new(snapshot)),
            Err(errors) => {
                // The config was checked, and a neighbour is checked when it is learnt.
                let all: Vec<_> = errors.iter().take(3).map(ToString::to_string).collect();
                tracing::error!("what changed cannot be served by: {}", all.join("; "));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::port::PortId;
    use evenkeel_core::wire::MacAddr;

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
        )
    }

    #[test]
    fn a_server_that_is_down_gets_nothing_until_it_is_up() {
        let mut serving = serving();
        assert!(serving.changed().is_none(), "workers begin with the config");
        let service = serving.spec().services[0].clone();
        let (first, second) = (service.servers[0].id, service.servers[1].id);
        let weights = |snapshot: &Snapshot| -> Vec<u16> {
            let service = snapshot.service(service.id).expect("it is served");
            service.servers.iter().map(|s| s.weight).collect()
        };
        assert!(serving.set_server(service.id, first, false));
        assert!(!serving.set_server(service.id, first, false), "it was");
        assert!(
            !serving.set_server(service.id, RealServerId(999), false),
            "there is none"
        );
        assert_eq!(weights(&serving.changed().expect("changed")), [0, 1]);
        assert!(serving.changed().is_none());
        assert!(serving.set_server(service.id, second, false));
        assert_eq!(weights(&serving.changed().expect("changed")), [0, 0]);
        // A reload keeps what is known of servers.
        let mut spec = serving.spec().clone();
        spec.services[0].servers.remove(1);
        serving.reload(spec);
        assert_eq!(weights(&serving.changed().expect("changed")), [0]);
        assert!(!serving.is_up(service.id, first) && serving.is_up(service.id, second));
        assert!(serving.set_server(service.id, first, true));
        assert_eq!(weights(&serving.changed().expect("changed")), [1]);
    }

    #[test]
    fn what_the_config_says_of_a_neighbour_counts() {
        let mut serving = serving();
        let neighbour = |addr: &str, last| NeighbourSpec {
            addr: addr.parse().expect("an address"),
            mac: MacAddr([2, 0, 0, 0, 0, last]),
            port: PortId(0),
        };
        let mut spec = serving.spec().clone();
        spec.neighbours.push(neighbour("10.0.0.11", 1));
        serving.reload(spec);
        serving.set_learnt(vec![neighbour("10.0.0.11", 9), neighbour("10.0.0.12", 2)]);
        let snapshot = serving.changed().expect("changed");
        let mac = |addr: &str| {
            let hop = snapshot.neighbour(addr.parse().expect("an address"), PortId(0));
            hop.map(|hop| hop.mac)
        };
        assert_eq!(mac("10.0.0.11"), Some(MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!(mac("10.0.0.12"), Some(MacAddr([2, 0, 0, 0, 0, 2])));
        serving.set_learnt(Vec::new());
        assert!(serving.changed().is_some());
    }
}
