//! Faults, done to the world when their time has come.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_io_sim::{Cut, Faults, LbId, LbState, LinkId, Ppm, World, WorldError};

use super::build::{self, Built};
use super::sync_frame::{Rule, Rules};
use super::watch::Shared;
use super::{RunError, cluster, running};
use crate::plan::{Plan, Step, node_name};
use crate::scenario::{Action, Disturbance, NodeRef, Scenario, Way};

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
    /// Links that a fault changed, as they were.
    links: Vec<Vec<(LinkId, Faults)>>,
    pub(crate) done: Vec<Done>,
}

fn refused(error: WorldError) -> RunError {
    RunError::World(error.to_string())
}

impl<'s> Timeline<'s> {
    pub(crate) fn new(scenario: &'s Scenario, plan: &Plan, watch: Shared, rules: Rc<RefCell<Rules>>) -> Self {
        Timeline {
            scenario,
            steps: plan.steps.clone(),
            next: 0,
            watch,
            rules,
            met: vec![None; scenario.faults.len()],
            links: vec![Vec::new(); scenario.faults.len()],
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
        let node = match &fault.action {
            Action::Crash(n)
            | Action::Start(n)
            | Action::Pause(n, _)
            | Action::Resume(n)
            | Action::Drain(n) => Some(*n),
            Action::Cut(n, ..) | Action::Heal(n, _) | Action::Disturb(n, ..) | Action::Queues(n, _) => {
                Some(*n)
            }
            Action::Suppress { from, .. } => *from,
            Action::Look => None,
        };
        let lb = match (step.undo, node) {
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
        let what = match lb.and_then(|lb| nothing_to(built, &fault.action, lb, step.undo)) {
            Some(verb) => format!("{}: nothing to {verb} on {name}", fault.name),
            None => format!("{} {word} on {name}", fault.name),
        };
        self.done.push(Done { at: now, what });
        self.apply(built, step.fault, &fault.action, lb, step.undo)
    }

    fn apply(
        &mut self,
        built: &mut Built,
        fault: usize,
        action: &Action,
        lb: Option<LbId>,
        undo: bool,
    ) -> Result<(), RunError> {
        let world = &mut built.world;
        let state = lb.and_then(|lb| world.lb(lb)).map(|lb| lb.state());
        match (action, undo, lb) {
            (Action::Crash(_), false, Some(lb)) => world.crash(lb).map_err(refused),
            (Action::Crash(_), true, Some(lb)) | (Action::Start(_), _, Some(lb)) => match state {
                Some(LbState::Down) => world.start(lb).map_err(refused),
                _ => Ok(()),
            },
            (Action::Pause(_, clock), false, Some(lb)) => match state {
                Some(LbState::Running) if *clock => world.pause(lb).map_err(refused),
                Some(LbState::Running) => world.pause_with_clock(lb).map_err(refused),
                _ => Ok(()),
            },
            (Action::Pause(..), true, Some(lb)) | (Action::Resume(_), _, Some(lb)) => match state {
                Some(LbState::Paused) => world.resume(lb).map_err(refused),
                _ => Ok(()),
            },
            (Action::Drain(_), _, Some(lb)) => cluster::drain(world, lb),
            (Action::Queues(_, entries), undo, Some(lb)) => {
                cluster::queues(world, lb, (!undo).then_some(*entries))
            }
            (Action::Cut(_, network, way), false, Some(lb)) => {
                let cut = cut(*way);
                self.change(built, fault, lb, build::networks(*network), |faults| {
                    faults.cut = cut
                })
            }
            (Action::Disturb(_, network, way, disturbance), false, Some(lb)) => {
                let (way, disturbance) = (*way, *disturbance);
                self.change(built, fault, lb, build::networks(*network), |faults| {
                    disturb(faults, way, &disturbance)
                })
            }
            (Action::Cut(..) | Action::Disturb(..), true, Some(_)) => {
                let links = self.links.get_mut(fault).map(std::mem::take).unwrap_or_default();
                links
                    .into_iter()
                    .try_for_each(|(link, faults)| world.set_faults(link, faults).map_err(refused))
            }
            (Action::Heal(_, network), _, Some(lb)) => {
                let none = |faults: &mut Faults| faults.cut = Cut::None;
                self.change(built, fault, lb, build::networks(*network), none)
            }
            (
                Action::Suppress {
                    to, kinds, frames, ..
                },
                false,
                from,
            ) => {
                let to = to.and_then(|to| self.node(&built.world, to)).map(|lb| lb.0);
                self.rules.borrow_mut().rules.push(Rule {
                    fault: Some(fault),
                    from: from.map(|lb| lb.0 + 1),
                    to,
                    kinds: kinds.clone(),
                    frames: *frames,
                });
                Ok(())
            }
            (Action::Suppress { .. }, true, _) => {
                self.rules.borrow_mut().rules.retain(|r| r.fault != Some(fault));
                Ok(())
            }
            (Action::Look, ..) | (_, _, None) => Ok(()),
        }
    }

    /// Changes the links of a node in some networks, and remembers how they were.
    fn change(
        &mut self,
        built: &mut Built,
        fault: usize,
        lb: LbId,
        networks: &[usize],
        change: impl Fn(&mut Faults),
    ) -> Result<(), RunError> {
        let Some(links) = built.links.get(usize::from(lb.0)) else {
            return Ok(());
        };
        for link in networks.iter().filter_map(|n| links.get(*n)) {
            let before = built.world.link(*link).map_err(refused)?.faults;
            if let Some(kept) = self.links.get_mut(fault) {
                kept.push((*link, before));
            }
            let mut faults = before;
            change(&mut faults);
            built.world.set_faults(*link, faults).map_err(refused)?;
        }
        Ok(())
    }
}

/// What a step would do to a node, if there is nothing of it to be done: the node runs already, or nothing is cut.
fn nothing_to(built: &Built, action: &Action, lb: LbId, undo: bool) -> Option<&'static str> {
    let state = built.world.lb(lb)?.state();
    let (verb, idle) = match (action, undo) {
        (Action::Crash(_), false) => ("crash", state == LbState::Down),
        (Action::Crash(_), true) | (Action::Start(_), _) => ("start", state != LbState::Down),
        (Action::Pause(..), false) => ("pause", state != LbState::Running),
        (Action::Pause(..), true) | (Action::Resume(_), _) => ("resume", state != LbState::Paused),
        (Action::Heal(_, network), _) => {
            let links = built.links.get(usize::from(lb.0))?;
            let mut healed = build::networks(*network).iter().filter_map(|n| links.get(*n));
            let well = |link: &LinkId| built.world.link(*link).is_ok_and(|l| l.faults.cut == Cut::None);
            ("heal", healed.all(well))
        }
        _ => return None,
    };
    idle.then_some(verb)
}

/// Nodes are the first ends of their links.
fn cut(way: Way) -> Cut {
    match way {
        Way::Both => Cut::Both,
        Way::Out => Cut::Forth,
        Way::In => Cut::Back,
    }
}

fn disturb(faults: &mut Faults, way: Way, disturbance: &Disturbance) {
    // A loss of everything in one direction is a cut; other disturbances meet both.
    if disturbance.loss_ppm == 1_000_000 {
        faults.cut = cut(way);
    } else {
        faults.loss = Ppm(faults.loss.0.max(disturbance.loss_ppm));
    }
    if disturbance.duplicate_ppm > 0 {
        faults.duplication = Ppm(disturbance.duplicate_ppm);
        faults.copies = disturbance.copies;
    }
    if disturbance.reorder_ppm > 0 {
        faults.reordering = Ppm(disturbance.reorder_ppm);
        faults.reorder_by = disturbance.reorder_by;
    }
}
