//! Listing conns without stopping a worker. One look goes over whole slots, [`LOOK_CONN_COUNT`] conns at most, and the
//! worker forwards before the next one. So a conn that stays is listed once: a slot is torn into several looks only if
//! it is longer than that or than a whole answer, and then a conn may be met twice if others come or go meanwhile.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use evenkeel_core::cluster::GroupId;
use evenkeel_core::conn::{ConnView, SLOT_COUNT};
use evenkeel_core::proto::ConnState;
use evenkeel_core::service::ServiceId;
use evenkeel_core::worker::Worker;
use serde::{Deserialize, Serialize};

/// Conns that one look goes over, at most.
pub(super) const LOOK_CONN_COUNT: usize = 512;
/// Slots that one look goes over, at most.
pub(super) const LOOK_SLOT_COUNT: u16 = 256;
/// Conns in one answer, at most.
pub(super) const LIMIT_MAX: usize = 1000;
/// Conns in one answer, if the question does not say.
const LIMIT: usize = 100;

/// What a question for conns says, all of it optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnQuery {
    /// The client: address, prefix, or address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The end that the client uses, as `client`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// The real server, as `client`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The port of any of these three.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// A state by the name that LVS shows, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Name of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Number or name of the node that created it, or that and a generation: `lb1/1700000000000000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Conns in the answer at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where to go on: `next` of the answer before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What a question is refused for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) error: String,
    pub(super) help: &'static str,
}

fn bad(what: &str, text: &str, help: &'static str) -> Bad {
    // What comes from outside is not repeated at length.
    let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
    Bad {
        error: format!("{what} cannot be \"{shown}\""),
        help,
    }
}

/// An end of conns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    addr: IpAddr,
    /// Bits of it that count.
    len: u8,
    port: Option<u16>,
}

impl End {
    fn read(what: &str, text: &str) -> Result<Self, Bad> {
        let refused = || {
            bad(
                what,
                text,
                "give an address (10.0.0.1), a prefix (10.0.0.0/8) or an address and port (10.0.0.1:80, [2001:db8::1]:80)",
            )
        };
        let bits = |addr: &IpAddr| if addr.is_ipv4() { 32 } else { 128 };
        if let Ok(addr) = IpAddr::from_str(text) {
            let (len, port) = (bits(&addr), None);
            return Ok(End { addr, len, port });
        }
        if let Ok(end) = SocketAddr::from_str(text) {
            let (len, port) = (bits(&end.ip()), Some(end.port()));
            return Ok(End {
                addr: end.ip(),
                len,
                port,
            });
        }
        let (addr, len) = text.split_once('/').ok_or_else(refused)?;
        let addr = IpAddr::from_str(addr).map_err(|_| refused())?;
        let len = u8::from_str(len)
            .ok()
            .filter(|&len| len <= bits(&addr))
            .ok_or_else(refused)?;
        Ok(End {
            addr,
            len,
            port: None,
        })
    }

    fn has(&self, end: SocketAddr) -> bool {
        let same = match (self.addr, end.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let left = 32 - u32::from(self.len.min(32));
                u32::from(a).checked_shr(left) == u32::from(b).checked_shr(left)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let left = 128 - u32::from(self.len.min(128));
                u128::from(a).checked_shr(left) == u128::from(b).checked_shr(left)
            }
            _ => false,
        };
        same && self.port.is_none_or(|port| port == end.port())
    }
}

/// Which conns are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    client: Option<End>,
    vip: Option<End>,
    server: Option<End>,
    port: Option<u16>,
    state: Option<ConnState>,
    service: Option<ServiceId>,
    node: Option<u16>,
    generation: Option<u64>,
}

impl Filter {
    /// Reads a question. `service` and `node` know the names.
    pub(super) fn read(
        query: &ConnQuery,
        service: impl FnOnce(&str) -> Option<ServiceId>,
        node: impl FnOnce(&str) -> Option<u16>,
    ) -> Result<Self, Bad> {
        let end = |what: &str, text: &Option<String>| {
            let text = text.as_deref();
            text.map(|text| End::read(what, text)).transpose()
        };
        let mut filter = Filter {
            client: end("client", &query.client)?,
            vip: end("vip", &query.vip)?,
            server: end("server", &query.server)?,
            port: query.port,
            ..Filter::default()
        };
        if let Some(text) = &query.state {
            let named = |s: &ConnState| s.name().eq_ignore_ascii_case(text);
            let state = ConnState::ALL.into_iter().find(named);
            let help = "give a state as the list shows it: ESTABLISHED, SYN_RECV, FIN_WAIT, TIME_WAIT, UDP_NORMAL, ..";
            filter.state = Some(state.ok_or_else(|| bad("state", text, help))?);
        }
        if let Some(text) = &query.service {
            let help = "give the name of a service: `evenkeel ctl services` lists them";
            filter.service = Some(service(text).ok_or_else(|| bad("service", text, help))?);
        }
        if let Some(text) = &query.group {
            let help = "give a node's number or name, or that and a generation as the list shows it: lb1/1700000000000000";
            let refused = || bad("group", text, help);
            let (name, generation) = match text.split_once('/') {
                Some((name, generation)) => (name, Some(generation)),
                None => (text.as_str(), None),
            };
            let number = name.parse().ok().or_else(|| node(name));
            filter.node = Some(number.ok_or_else(refused)?);
            let generation = generation.map(|text| text.parse().map_err(|_| refused()));
            filter.generation = generation.transpose()?;
        }
        Ok(filter)
    }

    fn takes(&self, conn: &ConnView, group: Option<GroupId>) -> bool {
        let init = &conn.init;
        let end = |wanted: &Option<End>, is: SocketAddr| wanted.is_none_or(|end| end.has(is));
        let ports = [init.client, init.vip, init.server].map(|end| end.port());
        end(&self.client, init.client)
            && end(&self.vip, init.vip)
            && end(&self.server, init.server)
            && self.port.is_none_or(|port| ports.contains(&port))
            && self.state.is_none_or(|state| state == init.state)
            && self.service.is_none_or(|service| service == init.service)
            && self
                .node
                .is_none_or(|node| group.is_some_and(|g| g.node.0 == node))
            && self
                .generation
                .is_none_or(|generation| group.is_some_and(|g| g.generation == generation))
    }
}

/// How many conns an answer has at most.
pub(super) fn limit(query: &ConnQuery) -> Result<usize, Bad> {
    match query.limit {
        None => Ok(LIMIT),
        Some(n) if (1..=LIMIT_MAX).contains(&n) => Ok(n),
        Some(n) => Err(bad(
            "limit",
            &n.to_string(),
            "give 1 to 1000, and go on with `cursor`",
        )),
    }
}

/// A place in the tables of all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) worker: u8,
    pub(super) slot: u16,
    /// Conns of the slot that are left; [`WHOLE`]: all.
    pub(super) rest: u32,
}

/// All of a slot.
const WHOLE: u32 = u32::MAX;

impl Place {
    /// Before all.
    pub(super) const FIRST: Place = Place::of_worker(0);

    /// Before all of a worker.
    pub(super) const fn of_worker(worker: u8) -> Self {
        Place {
            worker,
            slot: 0,
            rest: WHOLE,
        }
    }

    /// As `next` of an answer gives it.
    pub(super) fn cursor(self) -> String {
        match self.rest {
            WHOLE => format!("{}.{}", self.worker, self.slot),
            rest => format!("{}.{}.{rest}", self.worker, self.slot),
        }
    }

    /// From a cursor.
    pub(super) fn read(text: &str, workers: u8) -> Result<Self, Bad> {
        let refused = || bad("cursor", text, "give `next` of the answer before, as it is");
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let mut numbers = text.split('.');
        let mut number = || {
            let text = numbers.next()?;
            digits(text).then(|| text.parse::<u32>().ok()).flatten()
        };
        let (worker, slot) = (number(), number());
        let rest = if text.matches('.').count() == 1 {
            Some(WHOLE)
        } else {
            number()
        };
        if numbers.next().is_some() {
            return Err(refused());
        }
        let worker = worker.and_then(|n| u8::try_from(n).ok()).filter(|&n| n < workers);
        let slot = slot
            .and_then(|n| u16::try_from(n).ok())
            .filter(|&n| usize::from(n) < SLOT_COUNT);
        Ok(Place {
            worker: worker.ok_or_else(refused)?,
            slot: slot.ok_or_else(refused)?,
            rest: rest.ok_or_else(refused)?,
        })
    }
}

/// A conn that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) conn: ConnView,
    pub(super) group: Option<GroupId>,
}

/// What a look found.
#[derive(Debug)]
pub(super) struct Glance {
    /// At most as many as there was room for.
    pub(super) found: Vec<Found>,
    /// Conns and tombstones that it went over, at most [`LOOK_CONN_COUNT`].
    pub(super) looked_at: usize,
    /// Where the next one begins; `None`: the worker has no more.
    pub(super) next: Option<Place>,
    /// There was no room for more.
    pub(super) full: bool,
}

/// What a look needs, made by who asks: the worker allocates nothing.
#[derive(Debug)]
pub(super) struct Looker {
    filter: Filter,
    found: Vec<Found>,
    room: usize,
    /// Conns that one look goes over, at most.
    budget: usize,
    /// The answer has nothing yet: a slot may be torn.
    empty: bool,
}

impl Looker {
    /// For at most `room` conns.
    pub(super) fn new(filter: &Filter, room: usize, empty: bool) -> Self {
        let room = room.min(LIMIT_MAX);
        Looker {
            filter: filter.clone(),
            // As many as one look can find.
            found: Vec::with_capacity(room.min(LOOK_CONN_COUNT)),
            room,
            budget: LOOK_CONN_COUNT,
            empty,
        }
    }

    #[cfg(test)]
    pub(super) fn with_budget(filter: &Filter, room: usize, empty: bool, budget: usize) -> Self {
        Looker {
            budget,
            ..Looker::new(filter, room, empty)
        }
    }

    /// Goes over slots from `from` on.
    pub(super) fn look(mut self, worker: &Worker, from: Place) -> Glance {
        let table = worker.table();
        let mut looked_at = 0;
        let mut at = from;
        let mut slots = 0;
        while usize::from(at.slot) < SLOT_COUNT {
            let len = table.slot_len(at.slot);
            let left = len.min(at.rest as usize);
            let too_many = looked_at > 0 && looked_at + left > self.budget;
            if slots == LOOK_SLOT_COUNT || too_many {
                return self.end(looked_at, Some(at), false);
            }
            let before = self.found.len();
            let mut seen = 0;
            for id in table.slot_tail(at.slot, left) {
                if looked_at == self.budget {
                    at.rest = (left - seen) as u32;
                    return self.end(looked_at, Some(at), false);
                }
                looked_at += 1;
                let conn = table.view(id);
                let group = worker.version(id).map(|(group, _)| group);
                let Some(conn) = conn.filter(|conn| self.filter.takes(conn, group)) else {
                    seen += 1;
                    continue;
                };
                if self.found.len() == self.room {
                    if self.empty && before == 0 {
                        at.rest = (left - seen) as u32;
                    } else {
                        // The whole slot comes in the next answer.
                        self.found.truncate(before);
                    }
                    return self.end(looked_at, Some(at), true);
                }
                self.found.push(Found { conn, group });
                seen += 1;
            }
            slots += 1;
            at = Place {
                worker: at.worker,
                slot: at.slot + 1,
                rest: WHOLE,
            };
        }
        self.end(looked_at, None, false)
    }

    fn end(self, looked_at: usize, next: Option<Place>, full: bool) -> Glance {
        Glance {
            found: self.found,
            looked_at,
            next,
            full,
        }
    }
}
