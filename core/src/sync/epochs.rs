//! The epoch table of a worker: a conn names (group, epoch) with 16 bits of its version.

use alloc::vec::Vec;

use super::{LSN_MAX, Lsn, Version};
use crate::cluster::{Epoch, GROUP_COUNT_MAX, GroupId};

/// Pairs of group and epoch at most that conns of a worker name at a time.
pub(super) const EPOCH_COUNT_MAX: usize = 16 * GROUP_COUNT_MAX;

/// The place of conns that are not replicated.
pub(super) const LOCAL: u16 = 0;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    group: GroupId,
    epoch: Epoch,
    /// Conns and tombstones that name it.
    named: u32,
    /// Of these: conns.
    alive: u32,
    /// It is the current one of its group.
    pinned: bool,
}

/// See the module. Place 0 is nobody's.
#[derive(Debug)]
pub(super) struct Epochs {
    entries: Vec<Entry>,
}

/// The version that a conn holds: a place here and an LSN.
pub(super) const fn packed(index: u16, lsn: Lsn) -> u64 {
    (index as u64) << 48 | (lsn & LSN_MAX)
}

/// The place in a conn's version.
pub(super) const fn index_of(version: u64) -> u16 {
    (version >> 48) as u16
}

/// The LSN in a conn's version.
pub(super) const fn lsn_of(version: u64) -> Lsn {
    version & LSN_MAX
}

impl Epochs {
    pub(super) fn new() -> Self {
        Epochs {
            entries: alloc::vec![Entry {
                pinned: true,
                ..Entry::default()
            }],
        }
    }

    /// The place of a pair, made if there is none; `None`: the table is full.
    pub(super) fn intern(&mut self, group: GroupId, epoch: Epoch) -> Option<u16> {
        let of_pair = |e: &Entry| e.group == group && e.epoch == epoch;
        if let Some(at) = self.entries.iter().skip(1).position(of_pair) {
            return Some(at as u16 + 1);
        }
        let fresh = Entry {
            group,
            epoch,
            ..Entry::default()
        };
        if let Some(at) = self.entries.iter().position(|e| e.named == 0 && !e.pinned) {
            self.entries[at] = fresh;
            return Some(at as u16);
        }
        if self.entries.len() > EPOCH_COUNT_MAX {
            return None;
        }
        self.entries.push(fresh);
        Some(self.entries.len() as u16 - 1)
    }

    /// Keeps a place though no conn names it, or no longer.
    pub(super) fn pin(&mut self, index: u16, pinned: bool) {
        if index != LOCAL
            && let Some(e) = self.entries.get_mut(usize::from(index))
        {
            e.pinned = pinned;
        }
    }

    /// The group of a version; `None`: the conn is not replicated.
    pub(super) fn group(&self, version: u64) -> Option<GroupId> {
        match index_of(version) {
            LOCAL => None,
            index => self.entries.get(usize::from(index)).map(|e| e.group),
        }
    }

    /// The whole of a version.
    pub(super) fn version(&self, version: u64) -> Version {
        let entry = self.entries.get(usize::from(index_of(version)));
        Version {
            epoch: entry.map_or_else(Epoch::default, |e| e.epoch),
            lsn: lsn_of(version),
        }
    }

    /// A conn names a place from now on.
    pub(super) fn name(&mut self, index: u16) {
        if let Some(e) = self.entries.get_mut(usize::from(index)) {
            e.named += 1;
            e.alive += 1;
        }
    }

    /// A tombstone that was never a conn names a place from now on.
    pub(super) fn name_tomb(&mut self, index: u16) {
        if let Some(e) = self.entries.get_mut(usize::from(index)) {
            e.named += 1;
        }
    }

    /// A conn that names a place becomes a tombstone.
    pub(super) fn bury(&mut self, index: u16) {
        if let Some(e) = self.entries.get_mut(usize::from(index)) {
            e.alive = e.alive.saturating_sub(1);
        }
    }

    /// A conn no longer names a place.
    pub(super) fn forget(&mut self, index: u16) {
        self.bury(index);
        self.forget_tomb(index);
    }

    /// A tombstone no longer names a place.
    pub(super) fn forget_tomb(&mut self, index: u16) {
        if let Some(e) = self.entries.get_mut(usize::from(index)) {
            e.named = e.named.saturating_sub(1);
        }
    }

    /// Conns of a group.
    pub(super) fn alive(&self, group: GroupId) -> u32 {
        let of_group = self.entries.iter().skip(1).filter(|e| e.group == group);
        of_group.map(|e| e.alive).sum()
    }

    /// Conns and tombstones of all groups, for tests.
    pub(super) fn named(&self) -> usize {
        self.entries.iter().skip(1).map(|e| e.named as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Incarnation, NodeId, PeerId};

    #[test]
    fn places_are_used_again_once_nobody_names_them() {
        let holder = PeerId {
            node: NodeId(1),
            incarnation: Incarnation(5),
        };
        let group = |generation| GroupId {
            node: NodeId(1),
            generation,
        };
        let epoch = |term| Epoch { term, holder };
        let mut epochs = Epochs::new();
        let a = epochs.intern(group(1), epoch(1)).expect("room");
        assert_ne!(a, LOCAL);
        epochs.name(a);
        assert_eq!(epochs.intern(group(1), epoch(1)), Some(a));
        let mut places = 1;
        for term in 2.. {
            let Some(b) = epochs.intern(group(1), epoch(term)) else {
                break;
            };
            assert_ne!(b, a, "it is named");
            epochs.name(b);
            places += 1;
        }
        assert_eq!(places, EPOCH_COUNT_MAX);
        assert_eq!(epochs.alive(group(1)), places as u32);
        epochs.forget(a);
        let again = epochs.intern(group(2), epoch(1));
        assert_eq!(again, Some(a));
        epochs.pin(a, true);
        assert_eq!(epochs.intern(group(3), epoch(1)), None, "pinned");
        let version = epochs.version(packed(a, LSN_MAX));
        assert_eq!((version.epoch, version.lsn), (epoch(1), LSN_MAX));
        assert_eq!(epochs.group(packed(a, 1)), Some(group(2)));
        assert_eq!(epochs.group(packed(LOCAL, 1)), None);
    }
}
