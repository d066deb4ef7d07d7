//! What all tables hold, kept from look to look: a look finds what has changed, and only that is judged anew.
//!
//! An oracle over tables judges session by session: those of one client's tuple, or of one outbound tuple, on all nodes. So a
//! sample of the sessions that are touched by a change says what one of all of them would, of which the others say what
//! they said before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_core::conn::{ConnId, ConnMark};
use evenkeel_io_sim::{LbRef, LbState, World};

use super::cluster;
use crate::oracle::{self, Key, NodeSample, Row, Sample, Tables};

/// Where a row is: node, worker, place in its table. In the order of these a sample shows rows.
type Place = (u16, u16, u32);

/// A place of a table. A row that was not seen in the last look is gone.
#[derive(Clone, Copy, Debug)]
struct Held {
    row: Row,
    mark: ConnMark,
    seen: u64,
}

/// The table of a worker.
#[derive(Debug, Default)]
struct Kept {
    /// By slab and place.
    slabs: [Vec<Option<Held>>; 2],
    len: usize,
}

/// What a node is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    life: u64,
    ready: bool,
}

/// See the module. As large as all tables are full.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    looks: u64,
    lives: BTreeMap<u16, Life>,
    tables: BTreeMap<(u16, u16), Kept>,
    by_inbound: BTreeMap<Key, Vec<Place>>,
    by_outbound: BTreeMap<Key, Vec<Place>>,
    inbound: BTreeSet<Key>,
    outbound: BTreeSet<Key>,
    /// Rows that went since the last sample, of nodes that live on: by number of the node.
    gone: Vec<(u16, Row)>,
    /// Nodes came, went or became ready since the last sample: everything is to be judged anew.
    all: bool,
}

impl Ledger {
    /// Looks at all tables.
    pub(super) fn look(&mut self, world: &World) {
        self.looks += 1;
        let mut lives = BTreeMap::new();
        for lb in world.lbs().filter(|lb| lb.state() != LbState::Down) {
            let (life, ready) = (lb.lives(), cluster::is_ready(lb));
            lives.insert(lb.id().0, Life { life, ready });
            if self.lives.get(&lb.id().0).is_some_and(|l| l.life != life) {
                self.forget(lb.id().0);
            }
            self.look_at(lb);
        }
        if lives != self.lives {
            let gone: Vec<_> = self
                .lives
                .keys()
                .filter(|lb| !lives.contains_key(lb))
                .copied()
                .collect();
            gone.into_iter().for_each(|lb| self.forget(lb));
            self.lives = lives;
            self.all = true;
        }
    }

    fn look_at(&mut self, lb: LbRef<'_>) {
        let look = self.looks;
        for (number, worker) in (0..).zip(lb.workers()) {
            let at = (lb.id().0, number);
            let mut kept = self.tables.remove(&at).unwrap_or_default();
            let mut met = 0;
            if !worker.table().is_empty() {
                for mark in worker.table().marks() {
                    met += 1;
                    let held = kept.place(mark.id);
                    if let Some(held) = held.as_mut().filter(|h| h.mark == mark) {
                        held.seen = look;
                        continue;
                    }
                    let Some(conn) = worker.table().view(mark.id) else {
                        continue;
                    };
                    let row = Row {
                        inbound: conn.init.inbound(),
                        local: conn.init.local,
                        server: conn.init.server,
                        state: conn.init.state,
                        version: cluster::version(worker, &conn),
                    };
                    let before = held.replace(Held {
                        row,
                        mark,
                        seen: look,
                    });
                    if before.is_some_and(|b| b.row == row) {
                        continue;
                    }
                    let place = (at.0, at.1, number_of(conn.id));
                    match before {
                        Some(before) => {
                            if before.row.inbound != row.inbound {
                                self.gone.push((at.0 + 1, before.row));
                            }
                            self.take(place, &before.row);
                        }
                        None => kept.len += 1,
                    }
                    self.put(place, &row);
                }
            }
            // As many as there were, and all of them were met: none has gone.
            if kept.len != met {
                for (slab, places) in kept.slabs.iter_mut().enumerate() {
                    for (i, held) in places.iter_mut().enumerate() {
                        if let Some(gone) = held.take_if(|h| h.seen != look) {
                            kept.len -= 1;
                            self.gone.push((at.0 + 1, gone.row));
                            self.take((at.0, at.1, (i as u32) << 1 | slab as u32), &gone.row);
                        }
                    }
                }
            }
            self.tables.insert(at, kept);
        }
    }

    fn put(&mut self, place: Place, row: &Row) {
        let (inbound, outbound) = (oracle::key(&row.inbound), oracle::outbound(row));
        self.by_inbound.entry(inbound).or_default().push(place);
        self.by_outbound.entry(outbound).or_default().push(place);
        self.inbound.insert(inbound);
        self.outbound.insert(outbound);
    }

    fn take(&mut self, place: Place, row: &Row) {
        let (inbound, outbound) = (oracle::key(&row.inbound), oracle::outbound(row));
        for (index, key) in [(&mut self.by_inbound, inbound), (&mut self.by_outbound, outbound)] {
            if let Some(places) = index.get_mut(&key) {
                places.retain(|p| *p != place);
                if places.is_empty() {
                    index.remove(&key);
                }
            }
        }
        self.inbound.insert(inbound);
        self.outbound.insert(outbound);
    }

    /// A life is over: its rows are gone.
    fn forget(&mut self, lb: u16) {
        let workers: Vec<_> = self
            .tables
            .range((lb, 0)..=(lb, u16::MAX))
            .map(|t| *t.0)
            .collect();
        for at in workers {
            let kept = self.tables.remove(&at).unwrap_or_default();
            for (slab, places) in kept.slabs.iter().enumerate() {
                for (i, held) in places.iter().enumerate() {
                    if let Some(held) = held {
                        self.take((at.0, at.1, (i as u32) << 1 | slab as u32), &held.row);
                    }
                }
            }
        }
    }

    /// Rows that went since the last sample, of nodes that live on, by number of the node.
    pub(super) fn gone(&mut self) -> Vec<(u16, Row)> {
        std::mem::take(&mut self.gone)
    }

    /// What [`Ledger::gone`] said is still to be judged.
    pub(super) fn put_back(&mut self, gone: Vec<(u16, Row)>) {
        self.gone = gone;
    }

    /// The sessions of this client's tuple are to be judged anew.
    pub(super) fn touch(&mut self, inbound: Key) {
        self.inbound.insert(inbound);
    }

    /// Whether one of these nodes, by index, has a session of this client's tuple.
    pub(super) fn is_held(&self, inbound: &Key, by: &BTreeSet<u16>) -> bool {
        let places = self.by_inbound.get(inbound);
        places.is_some_and(|places| places.iter().any(|place| by.contains(&place.0)))
    }

    /// The sessions that were touched since the last sample, by all nodes that have them, and the tuples of the clients
    /// among them; `None`: all of them are to be judged.
    pub(super) fn sample(&mut self, world: &World, now: Duration) -> (Sample, Option<BTreeSet<Key>>) {
        let inbound = std::mem::take(&mut self.inbound);
        let outbound = std::mem::take(&mut self.outbound);
        let all = std::mem::take(&mut self.all);
        let mut places = BTreeSet::new();
        if all {
            places.extend(self.by_inbound.values().flatten());
        } else {
            let touched = inbound
                .iter()
                .filter_map(|key| self.by_inbound.get(key))
                .flatten();
            places.extend(touched);
            // All of an outbound tuple, or none.
            let rows = places.iter().filter_map(|place| self.row(*place));
            let shared: BTreeSet<Key> = rows.map(|row| oracle::outbound(&row)).chain(outbound).collect();
            places.extend(
                shared
                    .iter()
                    .filter_map(|key| self.by_outbound.get(key))
                    .flatten(),
            );
        }
        let running = world.lbs().filter(|lb| lb.state() != LbState::Down);
        let nodes = running.map(|lb| {
            let id = lb.id().0;
            let of = places.range((id, 0, 0)..=(id, u16::MAX, u32::MAX));
            NodeSample {
                node: id + 1,
                life: lb.lives(),
                ready: cluster::is_ready(lb),
                rows: of.filter_map(|place| self.row(*place)).collect(),
                epochs: cluster::epochs(lb),
                roles: cluster::roles(lb),
                hears: cluster::hears(lb),
            }
        });
        let sample = Sample {
            at: now,
            nodes: nodes.collect(),
        };
        // Through a shared outbound tuple a session is shown whose client's tuple nobody touched: not by all nodes, then.
        (sample, (!all).then_some(inbound))
    }

    fn row(&self, (lb, worker, number): Place) -> Option<Row> {
        let slab = self.tables.get(&(lb, worker))?.slabs.get((number & 1) as usize)?;
        Some(slab.get((number >> 1) as usize)?.as_ref()?.row)
    }
}

impl Tables for Ledger {
    fn row(&self, node: u16, inbound: &Key) -> Option<Row> {
        let mut places = self.by_inbound.get(inbound)?.iter();
        places
            .find(|place| place.0 + 1 == node)
            .and_then(|place| Ledger::row(self, *place))
    }

    fn has_outbound(&self, node: u16, outbound: &Key) -> bool {
        let places = self.by_outbound.get(outbound);
        places.is_some_and(|places| places.iter().any(|place| place.0 + 1 == node))
    }
}

fn number_of(id: ConnId) -> u32 {
    id.place() << 1 | u32::from(id.is_v6())
}

impl Kept {
    fn place(&mut self, id: ConnId) -> &mut Option<Held> {
        let slab = &mut self.slabs[usize::from(id.is_v6())];
        let at = id.place() as usize;
        if slab.len() <= at {
            slab.resize(at + 1, None);
        }
        &mut slab[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::judge::rows;
    use crate::run::tests::{TWO_NODES, scenario};

    /// Whatever happens between looks, a ledger holds what the tables hold.
    #[test]
    fn a_ledger_that_is_kept_is_what_a_fresh_look_finds() {
        let (mut built, _) = crate::run::tests::started(&crate::plan::plan(&scenario(TWO_NODES), 3));
        let mut ledger = Ledger::default();
        let (mut seen, mut changed, mut before) = (0, 0, Vec::new());
        for step in 1..=60u64 {
            let world = &mut built.world;
            world.run_until(crate::run::build::at(Duration::from_millis(100 * step)));
            // The tables of a node go, and fill again.
            let node = crate::run::build::lb(2);
            match step {
                30 => world.crash(node).expect("it runs"),
                36 => world.start(node).expect("it starts again"),
                _ => {}
            }
            ledger.look(world);
            let kept: Vec<Row> = ledger
                .by_inbound
                .values()
                .flatten()
                .filter_map(|p| ledger.row(*p))
                .collect();
            let mut kept: Vec<String> = kept.iter().map(|row| format!("{row:?}")).collect();
            let running = world.lbs().filter(|lb| lb.state() != LbState::Down);
            let mut fresh: Vec<String> = running.flat_map(rows).map(|row| format!("{row:?}")).collect();
            kept.sort_unstable();
            fresh.sort_unstable();
            assert_eq!(kept, fresh, "at {step}");
            let held = ledger.by_outbound.values().map(Vec::len).sum::<usize>();
            assert_eq!(held, fresh.len());
            seen += fresh.len();
            changed += usize::from(fresh != before);
            before = fresh;
        }
        assert!(
            seen > 500 && changed > 20,
            "{seen} rows, {changed} looks with a change"
        );
    }
}
