//! Messages between nodes that never arrive, or not as they were sent.

use super::Met;
use crate::mechanism::Kind;
use crate::run::sync_frame::{Rule, Rules};
use crate::scenario::Tampering;

pub(super) fn suppress(rules: &mut Rules, met: Met, kinds: &[Kind], frames: Option<u32>) {
    rules.rules.push(Rule {
        fault: Some(met.fault),
        from: met.lb.map(|lb| lb.0 + 1),
        to: met.to.map(|lb| lb.0),
        kinds: kinds.to_vec(),
        frames,
    });
}

pub(super) fn tamper(rules: &mut Rules, met: Met, how: Tampering) {
    let tampered = met.lb.map(|lb| (met.fault, lb.0, how));
    rules.tampered.extend(tampered);
}

pub(super) fn let_through(rules: &mut Rules, met: Met) {
    rules.rules.retain(|r| r.fault != Some(met.fault));
    rules.tampered.retain(|(fault, ..)| *fault != met.fault);
}
