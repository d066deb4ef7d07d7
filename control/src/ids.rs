//! Interned ids that survive a reload.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use evenkeel_core::service::{RealServerId, SERVER_COUNT_MAX, SERVICE_COUNT_MAX, ServiceId};
use evenkeel_core::tuple::L4Proto;

/// What makes a virtual service the same one in two configs.
type ServiceKey = (IpAddr, u16, L4Proto);

/// Remembers which id was given to which virtual service (by VIP, port and protocol) and to which real
/// server of it (by address and port), so that conns find them again after a reload. An id is not given to
/// another one while it is remembered. At most [`SERVICE_COUNT_MAX`] and [`SERVER_COUNT_MAX`] are.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    services: BTreeMap<ServiceKey, Entry>,
    service_pool: Pool,
    server_pool: Pool,
}

#[derive(Clone, Debug)]
struct Entry {
    id: u16,
    servers: BTreeMap<SocketAddr, u16>,
}

impl Ids {
    /// Remembers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of a service; a new one if it is not remembered, `None` if none is free.
    pub(crate) fn service(&mut self, key: ServiceKey) -> Option<ServiceId> {
        if let Some(entry) = self.services.get(&key) {
            return Some(ServiceId(entry.id));
        }
        let id = self.service_pool.take(SERVICE_COUNT_MAX)?;
        self.services.insert(
            key,
            Entry {
                id,
                servers: BTreeMap::new(),
            },
        );
        Some(ServiceId(id))
    }

    /// The id of a real server of a remembered service; a new one if it is not remembered, `None` if none
    /// is free.
    pub(crate) fn server(&mut self, service: ServiceKey, server: SocketAddr) -> Option<RealServerId> {
        let entry = self.services.get_mut(&service)?;
        if let Some(&id) = entry.servers.get(&server) {
            return Some(RealServerId(id));
        }
        let id = self.server_pool.take(SERVER_COUNT_MAX)?;
        entry.servers.insert(server, id);
        Some(RealServerId(id))
    }

    /// Forgets real servers for which `server` says `false`, and services for which `service` does and of
    /// which no server is left. Both should say `true` for what a running snapshot holds or a conn may
    /// remember.
    pub fn forget_unused(
        &mut self,
        mut service: impl FnMut(ServiceId) -> bool,
        mut server: impl FnMut(RealServerId) -> bool,
    ) {
        let Ids {
            services,
            service_pool,
            server_pool,
        } = self;
        services.retain(|_, entry| {
            entry
                .servers
                .retain(|_, &mut id| server(RealServerId(id)) || server_pool.give_back(id));
            !entry.servers.is_empty() || service(ServiceId(entry.id)) || service_pool.give_back(entry.id)
        });
    }

    /// Services and real servers remembered.
    pub fn counts(&self) -> (usize, usize) {
        (self.service_pool.taken.len(), self.server_pool.taken.len())
    }
}

/// Numbers in use. The next one is searched behind the last one given, so that a number is given again as
/// late as can be.
#[derive(Clone, Debug, Default)]
struct Pool {
    taken: BTreeSet<u16>,
    next: u16,
}

impl Pool {
    /// A free number below `max`, which is at most 65,536.
    fn take(&mut self, max: usize) -> Option<u16> {
        let max = u32::try_from(max).ok()?;
        if self.taken.len() >= max as usize {
            return None;
        }
        let free = |n: &u16| !self.taken.contains(n);
        let candidates = (0..max).map(|i| ((u32::from(self.next) + i) % max) as u16);
        let id = candidates.into_iter().find(free)?;
        self.taken.insert(id);
        self.next = ((u32::from(id) + 1) % max) as u16;
        Some(id)
    }

    /// Always `false`: the element is not kept.
    fn give_back(&mut self, id: u16) -> bool {
        self.taken.remove(&id);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> ServiceKey {
        ("192.0.2.1".parse().expect("address"), port, L4Proto::Tcp)
    }

    fn end(n: u32) -> SocketAddr {
        SocketAddr::new(IpAddr::V4((0x0a00_0000 + n).into()), 80)
    }

    #[test]
    fn ids_are_remembered_and_not_given_to_others() {
        let mut ids = Ids::new();
        let (web, dns) = (ids.service(key(80)), ids.service(key(53)));
        assert_eq!((web, dns), (Some(ServiceId(0)), Some(ServiceId(1))));
        assert_eq!(
            ids.service((key(80).0, 80, L4Proto::Udp)),
            Some(ServiceId(2)),
            "another protocol"
        );
        assert_eq!(ids.service(key(80)), web);
        let a = ids.server(key(80), end(1));
        assert_eq!(
            ids.server(key(53), end(1)),
            Some(RealServerId(1)),
            "a server belongs to its service"
        );
        assert_eq!(ids.server(key(80), end(1)), a);
        assert_eq!(ids.server(key(9), end(1)), None, "a service that is not known");
        assert_eq!(ids.counts(), (3, 2));
    }

    #[test]
    fn forgotten_ids_come_again_but_late() {
        let mut ids = Ids::new();
        for port in [1, 2, 3] {
            let id = ids.service(key(port)).expect("free");
            assert!(ids.server(key(port), end(id.0.into())).is_some());
        }
        // Service 0 is not used but one of its servers is: it stays. 1 goes, and its server with it.
        ids.forget_unused(|s| s.0 == 2, |r| r.0 == 0);
        assert_eq!(ids.counts(), (2, 1));
        assert_eq!(ids.service(key(1)), Some(ServiceId(0)));
        assert_eq!(
            ids.service(key(2)),
            Some(ServiceId(3)),
            "1 is free, but was used last"
        );
        assert_eq!(ids.server(key(2), end(9)), Some(RealServerId(3)));
    }

    #[test]
    fn ids_come_to_an_end_and_begin_again() {
        let mut ids = Ids::new();
        let max = SERVICE_COUNT_MAX as u16;
        for port in 0..max {
            assert_eq!(ids.service(key(port)), Some(ServiceId(port)));
        }
        assert_eq!(ids.service(key(max)), None);
        assert_eq!(
            ids.service(key(7)),
            Some(ServiceId(7)),
            "what is remembered is found when full"
        );
        ids.forget_unused(|s| s.0 != 5, |_| true);
        assert_eq!(ids.service(key(max)), Some(ServiceId(5)));
        let all: Vec<_> = (0..SERVER_COUNT_MAX as u32)
            .map(|n| ids.server(key(7), end(n)))
            .collect();
        assert!(all.iter().all(Option::is_some));
        assert_eq!(ids.server(key(8), end(0)), None);
    }
}
