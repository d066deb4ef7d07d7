//! When faults happen, and to whom.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_io_sim::{LbId, World};

use super::build::{self, Built};
use super::fault::{self, Effects, Met};
use super::sync_frame::Rules;
use super::watch::Shared;
use super::{RunError, running};
use crate::plan::{Plan, Step, node_name};
use crate::scenario::{NodeRef, Scenario};

/// What was done, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) at: Duration,
    pub(crate) what: String,
}

/// See the module.
pub(crate) struct Timeline<'s> {
    scenario: &'s Scenario,
    steps: Vec<Step>,
    next: usize,
    watch: Shared,
    rules: Rc<RefCell<Rules>>,
    /// Whom each fault met, for its end: "the master" is another one then.
    met: Vec<Option<LbId>>,
    effects: Effects,
    pub(crate) done: Vec<Done>,
}

impl<'s> Timeline<'s> {
    pub(crate) fn new(scenario: &'s Scenario, plan: &Plan, watch: Shared, rules: Rc<RefCell<Rules>>) -> Self {
        Timeline {
            scenario,
            steps: plan.steps.clone(),
            next: 0,
            watch,
            effects: Effects::new(rules.clone()),
            rules,
            met: vec![None; scenario.faults.len()],
            done: Vec::new(),
        }
    }

    /// When the next step is.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.steps.get(self.next).map(|s| s.at)
    }

    /// Whom the first fault that was done met.
    pub(crate) fn first_met(&self) -> Option<LbId> {
        let first = self.steps.first()?.fault;
        self.met.get(first).copied().flatten()
    }

    /// Frames between nodes that were kept back or cut.
    pub(crate) fn touched(&self) -> u64 {
        self.rules.borrow().touched
    }

    /// When the last fault has ended, as far as is known. One that touches so many frames ends with the last of them.
    pub(crate) fn last_fault(&self) -> Duration {
        let spent = &self.rules.borrow().spent;
        let begins = self.steps.iter().filter(|s| !s.undo).map(|s| s.at);
        let ends = self.steps.iter().filter(|s| s.undo);
        let ends = ends.map(|s| spent.get(&s.fault).copied().unwrap_or(s.at));
        begins
            .chain(ends)
            .chain(spent.values().copied())
            .max()
            .unwrap_or_default()
    }

    /// Whether a fault is in force that may end with any frame.
    pub(crate) fn may_end(&self) -> bool {
        let rules = &self.rules.borrow().rules;
        rules
            .iter()
            .any(|r| r.fault.is_some() && r.frames.is_some_and(|n| n > 0))
    }

    /// Whom a scenario means now.
    fn node(&self, world: &World, node: NodeRef) -> Option<LbId> {
        let master = || {
            let known = self
                .watch
                .borrow()
                .master()
                .filter(|m| running(world).any(|lb| lb == m.0));
            known.or_else(|| running(world).next().map(LbId))
        };
        match node {
            NodeRef::Id(id) => Some(build::lb(id)),
            NodeRef::Master => master(),
            NodeRef::Backup => running(world).map(LbId).find(|lb| Some(*lb) != master()),
        }
    }

    /// Does the next step.
    pub(crate) fn happen(&mut self, built: &mut Built, now: Duration) -> Result<(), RunError> {
        let Some(step) = self.steps.get(self.next).cloned() else {
            return Ok(());
        };
        self.next += 1;
        let Some(fault) = self.scenario.faults.get(step.fault) else {
            return Ok(());
        };
        let lb = match (step.undo, fault.action.node()) {
            (true, _) => self.met.get(step.fault).copied().flatten(),
            (false, Some(node)) => {
                let lb = self.node(&built.world, node);
                if lb.is_none() {
                    self.done.push(Done {
                        at: now,
                        what: format!("{}: there is no such node as {} now", fault.name, node_name(node)),
                    });
                    return Ok(());
                }
                lb
            }
            (false, None) => None,
        };
        if let Some(met) = self.met.get_mut(step.fault) {
            *met = lb;
        }
        let name = lb.map_or("all nodes".to_owned(), |lb| format!("node {}", lb.0 + 1));
        let word = if step.undo { "ends" } else { "begins" };
        let what = match lb.and_then(|lb| fault::nothing_to(built, &fault.action, lb, step.undo)) {
            Some(verb) => format!("{}: nothing to {verb} on {name}", fault.name),
            None => format!("{} {word} on {name}", fault.name),
        };
        self.done.push(Done { at: now, what });
        let to = fault.action.to().and_then(|to| self.node(&built.world, to));
        let met = Met {
            fault: step.fault,
            lb,
            to,
        };
        if step.undo {
            self.effects.end(built, &fault.action, met)
        } else {
            self.effects.begin(built, &fault.action, met)
        }
    }
}
