//! A host's neighbours: who has which link-layer address, and what waits to know it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::wire::Mac;

/// A question is repeated after this long.
pub(crate) const ASK_INTERVAL_NS: u64 = 1_000_000_000;
/// Questions without an answer after which a neighbour is taken for gone.
pub(crate) const ASK_COUNT_MAX: u8 = 3;

#[derive(Debug, Default)]
struct Entry {
    mac: Option<Mac>,
    confirmed_at: u64,
    /// Questions without an answer.
    asked: u8,
    asked_at: u64,
    /// Frames, their Ethernet headers left open.
    waiting: Vec<Vec<u8>>,
}

/// See the module. Bounded in entries and in frames that wait.
#[derive(Debug)]
pub(crate) struct Neighbours {
    entries: BTreeMap<IpAddr, Entry>,
    count_max: usize,
    waiting: usize,
    waiting_max: usize,
    lifetime_ns: u64,
}

/// What to do with a frame for a neighbour.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Send it there.
    pub(crate) to: Option<(Mac, Vec<u8>)>,
    /// Ask for the neighbour.
    pub(crate) ask: bool,
}

impl Neighbours {
    pub(crate) fn new(count_max: usize, waiting_max: usize, lifetime_ns: u64) -> Self {
        Neighbours {
            entries: BTreeMap::new(),
            count_max,
            waiting: 0,
            waiting_max,
            lifetime_ns,
        }
    }

    /// Where a frame for `addr` goes; it waits if that is not known.
    ///
    /// # Errors
    ///
    /// There is no room; the frame is lost, and the reason's name.
    pub(crate) fn resolve(
        &mut self,
        now: u64,
        addr: IpAddr,
        frame: Vec<u8>,
    ) -> Result<Resolved, (&'static str, usize)> {
        if !self.entries.contains_key(&addr) && self.entries.len() >= self.count_max {
            return Err(("host-neighbours-full", frame.len()));
        }
        let entry = self.entries.entry(addr).or_default();
        let ask = entry.asked == 0
            && (entry.mac.is_none() || now.saturating_sub(entry.confirmed_at) > self.lifetime_ns);
        if ask {
            entry.asked = 1;
            entry.asked_at = now;
        }
        if let Some(mac) = entry.mac {
            return Ok(Resolved {
                to: Some((mac, frame)),
                ask,
            });
        }
        if self.waiting >= self.waiting_max {
            return Err(("host-neighbour-queue-full", frame.len()));
        }
        self.waiting += 1;
        entry.waiting.push(frame);
        Ok(Resolved { to: None, ask })
    }

    /// A neighbour said its address. What waited for it comes out. `create`: it asked us; `replace`: what is known is
    /// not true any more.
    pub(crate) fn learn(
        &mut self,
        now: u64,
        addr: IpAddr,
        mac: Mac,
        create: bool,
        replace: bool,
    ) -> Vec<Vec<u8>> {
        let known = self.entries.contains_key(&addr);
        if !known && (!create || self.entries.len() >= self.count_max) {
            return Vec::new();
        }
        let entry = self.entries.entry(addr).or_default();
        if entry.mac.is_some_and(|old| old != mac) && !replace {
            return Vec::new();
        }
        entry.mac = Some(mac);
        entry.confirmed_at = now;
        entry.asked = 0;
        self.waiting -= entry.waiting.len();
        std::mem::take(&mut entry.waiting)
    }

    /// Whom to ask again. Frames for those who are gone come out as lost.
    pub(crate) fn due(&mut self, now: u64) -> (Vec<IpAddr>, Vec<Vec<u8>>) {
        let (mut ask, mut lost) = (Vec::new(), Vec::new());
        let waiting = &mut self.waiting;
        self.entries.retain(|addr, entry| {
            if entry.asked == 0 || now < entry.asked_at + ASK_INTERVAL_NS {
                return true;
            }
            if entry.asked < ASK_COUNT_MAX {
                entry.asked += 1;
                entry.asked_at = now;
                ask.push(*addr);
                return true;
            }
            *waiting -= entry.waiting.len();
            lost.append(&mut entry.waiting);
            false
        });
        (ask, lost)
    }

    /// When [`Neighbours::due`] has something to do.
    pub(crate) fn next_at(&self) -> Option<u64> {
        let asked = self.entries.values().filter(|e| e.asked > 0);
        asked.map(|e| e.asked_at + ASK_INTERVAL_NS).min()
    }

    pub(crate) fn mac(&self, addr: IpAddr) -> Option<Mac> {
        self.entries.get(&addr)?.mac
    }
}
