//! A traffic group, as this node knows it, and how far its workers are with it.

use super::{Epoch, PeerId, Role};
use crate::port::WorkerId;
use crate::time::Instant;

/// A set of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WorkerSet([u64; 4]);

impl WorkerSet {
    pub(super) fn insert(&mut self, w: WorkerId) {
        self.0[usize::from(w.0 >> 6)] |= 1 << (w.0 & 63);
    }

    pub(super) fn contains(&self, w: WorkerId) -> bool {
        self.0[usize::from(w.0 >> 6)] >> (w.0 & 63) & 1 == 1
    }

    pub(super) fn len(&self) -> u32 {
        self.0.iter().map(|w| w.count_ones()).sum()
    }
}

/// The initial copy of a group, by slots, from another node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pull {
    /// Its number, by which workers tell it from the one before; 0: it was not asked for yet.
    pub(super) number: u32,
    /// From whom it was asked, and when last.
    pub(super) source: Option<PeerId>,
    pub(super) asked_at: Option<Instant>,
    /// Workers that were told of this source.
    pub(super) asked: WorkerSet,
    pub(super) ended: WorkerSet,
}

/// A group that is handed over, or is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    pub(super) heir: PeerId,
    /// When HANDOVER was sent last.
    pub(super) sent_at: Option<Instant>,
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The highest one known. Its holder holds, or is dead.
    pub(super) epoch: Epoch,
    pub(super) role: Role,
    pub(super) learned_at: Instant,
    /// Since when epoch and role are these.
    pub(super) since: Instant,
    /// When workers were told last.
    pub(super) told_at: Option<Instant>,
    /// Who has confirmed epoch and role.
    pub(super) applied: WorkerSet,
    /// Who has merged (Adopting) or offered (Fenced).
    pub(super) done: WorkerSet,
    /// What its holder, another node, has claimed last in this epoch.
    pub(super) holder_role: Option<Role>,
    /// Since when its holder, another node and up, does not claim it.
    pub(super) unclaimed_since: Option<Instant>,
    /// Whether this node has had all of it once without a break since.
    pub(super) complete: bool,
    /// Whether it ever had: then it knows of all local ends that it must not use.
    pub(super) complete_once: bool,
    pub(super) pull: Pull,
    pub(super) handover: Option<Handover>,
    /// As its holder: since when no worker has a session of it.
    pub(super) empty_since: Option<Instant>,
}

impl Group {
    pub(super) fn new(epoch: Epoch, role: Role, now: Instant) -> Self {
        Group {
            epoch,
            role,
            learned_at: now,
            since: now,
            told_at: None,
            applied: WorkerSet::default(),
            done: WorkerSet::default(),
            holder_role: None,
            unclaimed_since: None,
            // What nobody else has ever held is complete.
            complete: role.is_holder(),
            complete_once: role.is_holder(),
            pull: Pull::default(),
            handover: None,
            empty_since: None,
        }
    }

    /// Epoch and role are these from now on, and workers have confirmed nothing of it.
    pub(super) fn become_(&mut self, role: Role, epoch: Epoch, now: Instant) {
        if epoch != self.epoch {
            self.holder_role = None;
            self.unclaimed_since = None;
        }
        self.role = role;
        self.epoch = epoch;
        self.since = now;
        self.told_at = None;
        self.applied = WorkerSet::default();
        self.done = WorkerSet::default();
        self.empty_since = None;
        match role {
            // It has all of it once that is merged: until then no more than it had before.
            Role::Adopting => self.pull = Pull::default(),
            _ if role.is_holder() => self.completed(),
            _ => {}
        }
        if role != Role::Draining {
            self.handover = None;
        }
    }

    /// This node has all of it.
    pub(super) fn completed(&mut self) {
        self.complete = true;
        self.complete_once = true;
        self.pull = Pull::default();
    }

    /// Something of it may have been missed.
    pub(super) fn broken(&mut self) {
        self.complete = false;
        self.pull = Pull::default();
    }

    /// What may be said of it: Owned only once all workers know.
    pub(super) fn claimed_role(&self, workers: u8) -> Role {
        match self.role {
            Role::Owned if self.applied.len() < u32::from(workers) => Role::Adopting,
            role => role,
        }
    }

    /// Whether workers are to be told again: they have not confirmed, or have something to do, or wait for a
    /// merge of another node, towards which they repeat their watermarks.
    pub(super) fn wants_telling(&self, workers: u8) -> bool {
        let all = u32::from(workers);
        let undone = matches!(self.role, Role::Adopting | Role::Fenced) && self.done.len() < all;
        let merging = self.role == Role::Replica && self.holder_role == Some(Role::Adopting);
        self.applied.len() < all || undone || merging
    }
}
