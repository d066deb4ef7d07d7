//! `deferred-survives`: what was let through once other nodes had it is known to one of them.

use std::time::Duration;

use super::{Found, Key};

/// A connection of which its client believes that it is safe, when a node crashes that has its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promised {
    /// The client's tuple.
    pub(crate) inbound: Key,
    /// A node that is left has the session.
    pub(crate) known: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DeferredSurvives {
    pub(crate) found: Found,
}

impl DeferredSurvives {
    pub(crate) fn crash(&mut self, at: Duration, promised: &[Promised]) {
        self.found.looked += promised.len() as u64;
        for Promised { inbound, .. } in promised.iter().filter(|p| !p.known) {
            self.found.add(at, || {
                format!(
                    "{} > {} was let through since another node had it, and no node has it that is left",
                    inbound.1, inbound.2
                )
            });
        }
    }
}
