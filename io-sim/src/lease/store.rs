//! Keys, leases, revisions and their history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use evenkeel_core::time::Instant;

use super::{EVENT_COUNT_MAX, KEY_COUNT_MAX, KEY_LEN_MAX, LEASE_COUNT_MAX, VALUE_LEN_MAX};

/// Number of a lease, its owner's choice; not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A key's value and its history in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The revision that made it.
    pub create_revision: u64,
    /// The revision that changed it last.
    pub mod_revision: u64,
    /// Changes since it was made, that one included.
    pub version: u64,
    /// Value.
    pub value: Vec<u8>,
    /// The lease with which it ends.
    pub lease: Option<LeaseId>,
}

/// What a transaction does to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets a value, and a lease or none.
    Put(Vec<u8>, Option<LeaseId>),
    /// It is deleted.
    Delete,
}

/// A change of a key, as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision; those of one transaction have the same.
    pub revision: u64,
    /// Key.
    pub key: Vec<u8>,
    /// Its value; `None`: it was deleted.
    pub value: Option<Vec<u8>>,
}

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such lease: it is over, or never was.
    #[error("there is no such lease")]
    NoLease,
    /// There is a lease of this number.
    #[error("there is a lease of this number")]
    LeaseExists,
    /// The number is 0, or the time to live is.
    #[error("a lease has a number and a time to live")]
    BadLease,
    /// A key is empty or longer than [`KEY_LEN_MAX`], or a value longer than [`VALUE_LEN_MAX`].
    #[error("a key has 1 to 64 bytes, a value 256 at most")]
    TooLong,
    /// There are [`KEY_COUNT_MAX`] keys or [`LEASE_COUNT_MAX`] leases.
    #[error("there is no room for another key or lease")]
    Full,
    /// Changes up to this revision are forgotten.
    #[error("compacted up to revision {0}")]
    Compacted(u64),
    /// The revision has not been.
    #[error("the revision is in the future")]
    Future,
}

#[derive(Clone, Debug)]
struct Lease {
    ttl: Duration,
    ends: Instant,
    keys: BTreeSet<Vec<u8>>,
}

/// See [the module](super).
#[derive(Clone, Debug)]
pub struct Store {
    revision: u64,
    items: BTreeMap<Vec<u8>, Item>,
    leases: BTreeMap<LeaseId, Lease>,
    history: VecDeque<Event>,
    /// The greatest revision that is forgotten.
    compacted: u64,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            // As etcd's: an empty store is at revision 1.
            revision: 1,
            items: BTreeMap::new(),
            leases: BTreeMap::new(),
            history: VecDeque::new(),
            compacted: 0,
        }
    }
}

impl Store {
    /// The present revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The greatest revision of which the changes are forgotten.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Makes a lease.
    ///
    /// # Errors
    ///
    /// It is there, it is none, or there are too many.
    pub fn grant(&mut self, now: Instant, id: LeaseId, ttl: Duration) -> Result<(), StoreError> {
        if id.0 == 0 || ttl.is_zero() {
            return Err(StoreError::BadLease);
        }
        if self.leases.contains_key(&id) {
            return Err(StoreError::LeaseExists);
        }
        if self.leases.len() >= LEASE_COUNT_MAX {
            return Err(StoreError::Full);
        }
        let lease = Lease {
            ttl,
            ends: now + ttl,
            keys: BTreeSet::new(),
        };
        self.leases.insert(id, lease);
        Ok(())
    }

    /// Gives a lease its whole time anew; that time.
    ///
    /// # Errors
    ///
    /// It is not there: over, though nobody has looked yet.
    pub fn keep_alive(&mut self, now: Instant, id: LeaseId) -> Result<Duration, StoreError> {
        let lease = self
            .leases
            .get_mut(&id)
            .filter(|l| l.ends > now)
            .ok_or(StoreError::NoLease)?;
        lease.ends = now + lease.ttl;
        Ok(lease.ttl)
    }

    /// What is left of a lease's time.
    ///
    /// # Errors
    ///
    /// As [`Store::keep_alive`].
    pub fn time_left(&self, now: Instant, id: LeaseId) -> Result<Duration, StoreError> {
        let lease = self
            .leases
            .get(&id)
            .filter(|l| l.ends > now)
            .ok_or(StoreError::NoLease)?;
        Ok(lease.ends - now)
    }

    /// Ends a lease, and all that is attached to it.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn revoke(&mut self, id: LeaseId) -> Result<(), StoreError> {
        let lease = self.leases.remove(&id).ok_or(StoreError::NoLease)?;
        if !lease.keys.is_empty() {
            self.revision += 1;
            for key in lease.keys {
                self.items.remove(&key);
                self.remember(key, None);
            }
        }
        Ok(())
    }

    /// Ends the leases whose time is over.
    pub fn expire(&mut self, now: Instant) {
        let over: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, l)| l.ends <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            let _ = self.revoke(id);
        }
    }

    /// When the next lease is over.
    pub fn next_at(&self) -> Option<Instant> {
        self.leases.values().map(|l| l.ends).min()
    }

    /// Another leader: it does not know how much of a lease's time is left, and gives each all of it.
    pub fn elected(&mut self, now: Instant) {
        for lease in self.leases.values_mut() {
            lease.ends = now + lease.ttl;
        }
    }

    /// A key.
    pub fn get(&self, key: &[u8]) -> Option<&Item> {
        self.items.get(key)
    }

    /// Changes a key if its `mod_revision` is this one (0: it is not there), or whatever it is (`None`). `Ok(false)`: it is
    /// another, and nothing has changed.
    ///
    /// # Errors
    ///
    /// The lease is not there, something is too long, or there is no room.
    pub fn transact(
        &mut self,
        now: Instant,
        key: &[u8],
        at_revision: Option<u64>,
        change: Change,
    ) -> Result<bool, StoreError> {
        let long = match &change {
            Change::Put(value, _) => value.len() > VALUE_LEN_MAX,
            Change::Delete => false,
        };
        if key.is_empty() || key.len() > KEY_LEN_MAX || long {
            return Err(StoreError::TooLong);
        }
        let known = self.items.get(key);
        let is = known.map_or(0, |item| item.mod_revision);
        if at_revision.is_some_and(|at| at != is) {
            return Ok(false);
        }
        let before = known.and_then(|item| item.lease);
        match change {
            Change::Put(value, lease) => {
                let full = known.is_none() && self.items.len() >= KEY_COUNT_MAX;
                let lives = |id: &LeaseId| self.leases.get(id).is_some_and(|l| l.ends > now);
                if lease.as_ref().is_some_and(|id| !lives(id)) {
                    return Err(StoreError::NoLease);
                }
                if full {
                    return Err(StoreError::Full);
                }
                self.revision += 1;
                let item = Item {
                    create_revision: known.map_or(self.revision, |item| item.create_revision),
                    mod_revision: self.revision,
                    version: known.map_or(1, |item| item.version + 1),
                    value: value.clone(),
                    lease,
                };
                self.detach(before, key);
                if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
                    lease.keys.insert(key.to_vec());
                }
                self.items.insert(key.to_vec(), item);
                self.remember(key.to_vec(), Some(value));
            }
            Change::Delete if known.is_some() => {
                self.revision += 1;
                self.detach(before, key);
                self.items.remove(key);
                self.remember(key.to_vec(), None);
            }
            // There is nothing to delete: no change, and no revision.
            Change::Delete => {}
        }
        Ok(true)
    }

    fn detach(&mut self, lease: Option<LeaseId>, key: &[u8]) {
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
    }

    fn remember(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.history.push_back(Event {
            revision: self.revision,
            key,
            value,
        });
        if self.history.len() > EVENT_COUNT_MAX {
            // A revision is forgotten as a whole.
            let oldest = self.history.front().map_or(0, |e| e.revision);
            self.forget(oldest);
        }
    }

    fn forget(&mut self, up_to: u64) {
        while self.history.front().is_some_and(|e| e.revision <= up_to) {
            self.history.pop_front();
        }
        self.compacted = self.compacted.max(up_to);
    }

    /// Forgets the changes up to a revision.
    ///
    /// # Errors
    ///
    /// It is forgotten already, or has not been.
    pub fn compact(&mut self, revision: u64) -> Result<(), StoreError> {
        if revision <= self.compacted {
            return Err(StoreError::Compacted(self.compacted));
        }
        if revision > self.revision {
            return Err(StoreError::Future);
        }
        self.forget(revision);
        Ok(())
    }

    /// The changes of keys with this prefix from a revision on, in order: of as many whole revisions as have `max` events, one
    /// revision at least. With the revision from which the next call goes on.
    ///
    /// # Errors
    ///
    /// Some of them are forgotten.
    pub fn changes(&self, prefix: &[u8], from: u64, max: usize) -> Result<(Vec<Event>, u64), StoreError> {
        if from <= self.compacted {
            return Err(StoreError::Compacted(self.compacted));
        }
        let mut events: Vec<Event> = Vec::new();
        let mut all = self
            .history
            .iter()
            .filter(|e| e.revision >= from && e.key.starts_with(prefix));
        for event in all.by_ref() {
            let whole = events.last().is_some_and(|last| last.revision != event.revision);
            if whole && events.len() >= max {
                let next = event.revision;
                return Ok((events, next));
            }
            events.push(event.clone());
        }
        Ok((events, from.max(self.revision + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn put(value: &[u8], lease: u64) -> Change {
        Change::Put(value.to_vec(), (lease > 0).then_some(LeaseId(lease)))
    }

    #[test]
    fn a_lease_ends_with_its_keys_in_one_revision() {
        let mut store = Store::default();
        let second = Duration::from_secs(1);
        assert_eq!(store.grant(at(0), LeaseId(0), second), Err(StoreError::BadLease));
        assert_eq!(
            store.grant(at(0), LeaseId(7), Duration::ZERO),
            Err(StoreError::BadLease)
        );
        store.grant(at(0), LeaseId(7), second).expect("new");
        assert_eq!(
            store.grant(at(0), LeaseId(7), second),
            Err(StoreError::LeaseExists)
        );
        for key in [&b"a"[..], b"b", b"c"] {
            assert_eq!(store.transact(at(0), key, Some(0), put(b"x", 7)), Ok(true));
        }
        // One that is put without it lives on.
        assert_eq!(store.transact(at(1), b"c", None, put(b"y", 0)), Ok(true));
        assert_eq!(
            (store.revision(), store.get(b"c").expect("there").version),
            (5, 2)
        );
        assert_eq!(store.keep_alive(at(900), LeaseId(7)), Ok(second));
        assert_eq!(
            store.time_left(at(1_000), LeaseId(7)),
            Ok(Duration::from_millis(900))
        );
        store.expire(at(1_899));
        assert!(store.get(b"a").is_some());
        // Over is over, though nobody has looked.
        assert_eq!(store.keep_alive(at(1_900), LeaseId(7)), Err(StoreError::NoLease));
        assert_eq!(
            store.transact(at(1_900), b"d", None, put(b"x", 7)),
            Err(StoreError::NoLease)
        );
        store.expire(at(1_900));
        assert_eq!(
            (store.get(b"a"), store.get(b"b"), store.revision()),
            (None, None, 6)
        );
        assert!(store.get(b"c").is_some() && store.next_at().is_none());
        let (events, next) = store.changes(b"", 6, 10).expect("known");
        let gone: Vec<_> = events.iter().map(|e| (&e.key[..], e.value.is_none())).collect();
        assert_eq!((gone, next), (vec![(&b"a"[..], true), (b"b", true)], 7));
        assert_eq!(store.revoke(LeaseId(7)), Err(StoreError::NoLease));
    }

    #[test]
    fn another_leader_gives_each_lease_all_of_its_time() {
        let mut store = Store::default();
        store
            .grant(at(0), LeaseId(1), Duration::from_secs(1))
            .expect("new");
        store.elected(at(990));
        store.expire(at(1_989));
        assert_eq!(
            store.time_left(at(1_989), LeaseId(1)),
            Ok(Duration::from_millis(1))
        );
        store.expire(at(1_990));
        assert_eq!(store.time_left(at(1_990), LeaseId(1)), Err(StoreError::NoLease));
    }

    #[test]
    fn a_transaction_happens_at_its_revision_alone() {
        let mut store = Store::default();
        assert_eq!(store.transact(at(0), b"k", Some(3), put(b"1", 0)), Ok(false));
        assert_eq!(store.transact(at(0), b"k", Some(0), put(b"1", 0)), Ok(true));
        assert_eq!(store.transact(at(0), b"k", Some(0), put(b"2", 0)), Ok(false));
        let revision = store.get(b"k").expect("there").mod_revision;
        assert_eq!(
            store.transact(at(0), b"k", Some(revision), put(b"2", 0)),
            Ok(true)
        );
        let item = store.get(b"k").expect("there");
        assert_eq!((item.create_revision, item.mod_revision, item.version), (2, 3, 2));
        assert_eq!(store.transact(at(0), b"k", None, Change::Delete), Ok(true));
        assert_eq!(store.revision(), 4);
        assert_eq!(store.transact(at(0), b"k", None, Change::Delete), Ok(true));
        assert_eq!(store.revision(), 4, "nothing was deleted");
        assert_eq!(
            store.transact(at(0), b"", None, Change::Delete),
            Err(StoreError::TooLong)
        );
        let long = vec![0; VALUE_LEN_MAX + 1];
        assert_eq!(
            store.transact(at(0), b"k", None, put(&long, 0)),
            Err(StoreError::TooLong)
        );
    }

    #[test]
    fn changes_come_by_whole_revisions_and_not_from_what_is_compacted() {
        let mut store = Store::default();
        store
            .grant(at(0), LeaseId(1), Duration::from_secs(1))
            .expect("new");
        for n in 0..6u8 {
            store
                .transact(at(0), &[b'a', n], None, put(&[n], 1))
                .expect("put");
        }
        store.expire(at(1_000));
        // Six in one revision, whatever the limit.
        let (events, next) = store.changes(b"a", 8, 2).expect("known");
        assert_eq!((events.len(), next), (6, 9));
        let (events, next) = store.changes(b"a", 2, 2).expect("known");
        assert_eq!((events.len(), next), (2, 4));
        assert_eq!(store.changes(b"b", 2, 2), Ok((vec![], 9)));
        assert_eq!(store.changes(b"a", 20, 2), Ok((vec![], 20)));
        store.compact(4).expect("known");
        assert_eq!(store.changes(b"a", 4, 9), Err(StoreError::Compacted(4)));
        assert_eq!(store.changes(b"a", 5, 9).expect("known").0.len(), 9);
        assert_eq!(store.compact(4), Err(StoreError::Compacted(4)));
        assert_eq!(store.compact(100), Err(StoreError::Future));
    }

    #[test]
    fn a_full_store_refuses_and_forgets() {
        let mut store = Store::default();
        for n in 1..=LEASE_COUNT_MAX as u64 {
            store
                .grant(at(0), LeaseId(n), Duration::from_secs(9))
                .expect("room");
        }
        assert_eq!(
            store.grant(at(0), LeaseId(9_999), Duration::from_secs(9)),
            Err(StoreError::Full)
        );
        for n in 0..KEY_COUNT_MAX as u16 {
            assert_eq!(
                store.transact(at(0), &n.to_be_bytes(), None, put(b"", 0)),
                Ok(true)
            );
        }
        assert_eq!(
            store.transact(at(0), b"more", None, put(b"", 0)),
            Err(StoreError::Full)
        );
        for _ in 0..EVENT_COUNT_MAX {
            store
                .transact(at(0), &[0, 1], None, put(b"again", 0))
                .expect("room");
        }
        assert_eq!(store.history.len(), EVENT_COUNT_MAX);
        assert_eq!(store.compacted(), store.revision() - EVENT_COUNT_MAX as u64);
        assert!(store.changes(b"", 1, 1).is_err());
    }
}
