//! Messages between nodes that never arrive.

use super::Met;
use crate::mechanism::Kind;
use crate::run::sync_frame::{Rule, Rules};

pub(super) fn suppress(rules: &mut Rules, met: Met, kinds: &[Kind], frames: Option<u32>) {
    rules.rules.push(Rule {
        fault: Some(met.fault),
        from: met.lb.map(|lb| lb.0 + 1),
        to: met.to.map(|lb| lb.0),
        kinds: kinds.to_vec(),
        frames,
    });
}

pub(super) fn let_through(rules: &mut Rules, met: Met) {
    rules.rules.retain(|r| r.fault != Some(met.fault));
}
