//! Bugs on purpose, by which a search for bugs shows that it finds some. Each is one condition at one place of the engine;
//! without the feature `planted-bugs` the question is `false` for the compiler, and nothing of it is left.
//!
//! It never gets into a release: the feature does not compile without debug assertions. The profile `planted` of the
//! workspace has both.

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!(
    "planted bugs are no part of a release: build with `--profile planted`, or without the feature"
);

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A record is applied though a newer one is here.
    VersionCheck = 1,
    /// A session that is closed leaves nothing behind that refuses its older records.
    Tombstone,
    /// Records of a holder that has lost its group are applied.
    Epoch,
    /// A local port is given without a look whether it is free.
    PortProbe,
    /// A port is rewritten, and the checksum does not know of it.
    Checksum,
    /// A node that starts says that it is ready before it has what the others have.
    ReadinessGate,
}

impl Bug {
    /// All, by name.
    pub const ALL: [(&'static str, Bug); 6] = [
        ("version-check", Bug::VersionCheck),
        ("tombstone", Bug::Tombstone),
        ("epoch", Bug::Epoch),
        ("port-probe", Bug::PortProbe),
        ("checksum", Bug::Checksum),
        ("readiness-gate", Bug::ReadinessGate),
    ];
}

/// Whether this bug is in.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn has(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
pub(crate) use chosen::has;
#[cfg(feature = "planted-bugs")]
pub use chosen::plant;

#[cfg(feature = "planted-bugs")]
mod chosen {
    use core::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    /// One choice for the whole process: it is made once, before anything runs.
    static CHOSEN: AtomicU8 = AtomicU8::new(0);

    /// Puts a bug in, or none.
    pub fn plant(bug: Option<Bug>) {
        CHOSEN.store(bug.map_or(0, |b| b as u8), Ordering::Relaxed);
    }

    /// Whether this bug is in.
    #[inline]
    pub(crate) fn has(bug: Bug) -> bool {
        CHOSEN.load(Ordering::Relaxed) == bug as u8
    }
}
