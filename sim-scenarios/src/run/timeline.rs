//! When faults happen, and to whom: at their times, or when what they wait for comes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_io_sim::{LbId, World};

use super::build::{self, Built};
use super::fault::{self, Effects, Met, Verdict};
use super::sync_frame::Rules;
use super::watch::Shared;
use super::{RunError, running};
use crate::language::value::show_trigger;
use crate::plan::{self, Plan, Spans, Step, node_name};
use crate::scenario::{Action, Fault, NodeRef, Occasion, Scenario, Trigger};

/// What was done, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) at: Duration,
    pub(crate) what: String,
}

/// How far a fault has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It waits for its time, or for the fault after which it is.
    #[default]
    Before,
    /// It waits for what it is triggered by.
    Armed,
    /// That has come, at this node, and its delay runs.
    Due(LbId),
    /// It has begun.
    Begun,
    /// It found nobody to be done to.
    Missed,
}

/// What is to be measured from a step on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// It is the first fault of all.
    pub(crate) first_fault: bool,
    /// It is the first crash.
    pub(crate) first_crash: bool,
}

/// See the module.
pub(crate) struct Timeline<'s> {
    scenario: &'s Scenario,
    /// By time; those before `next` are done.
    steps: Vec<Step>,
    next: usize,
    spans: Vec<Spans>,
    /// When the first of the faults begins whose times were known at the beginning.
    first_known: Option<Duration>,
    /// What is measured from the first fault or crash is being so.
    marked: Marks,
    watch: Shared,
    rules: Rc<RefCell<Rules>>,
    stages: Vec<Stage>,
    /// Whom each fault met, for its end: "the master" is another one then.
    met: Vec<Option<LbId>>,
    /// The fault that was the first.
    first: Option<usize>,
    effects: Effects<'s>,
    pub(crate) done: Vec<Done>,
}

impl<'s> Timeline<'s> {
    pub(crate) fn new(scenario: &'s Scenario, plan: &Plan, watch: Shared, rules: Rc<RefCell<Rules>>) -> Self {
        let mut timeline = Timeline {
            scenario,
            steps: plan.steps.clone(),
            next: 0,
            spans: plan.spans.clone(),
            first_known: plan.first_fault,
            marked: Marks::default(),
            watch,
            effects: Effects::new(scenario, rules.clone()),
            rules,
            stages: vec![Stage::Before; scenario.faults.len()],
            met: vec![None; scenario.faults.len()],
            first: None,
            done: Vec::new(),
        };
        let waits = |f: &Fault| f.when.is_some() && f.after.is_none();
        for (stage, fault) in timeline.stages.iter_mut().zip(&scenario.faults) {
            if waits(fault) {
                *stage = Stage::Armed;
            }
        }
        timeline.listen();
        timeline
    }

    /// When the next step is.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.steps.get(self.next).map(|s| s.at)
    }

    /// Whom the first fault that was done met.
    pub(crate) fn first_met(&self) -> Option<LbId> {
        self.met.get(self.first?).copied().flatten()
    }

    /// Frames between nodes that were kept back or cut.
    pub(crate) fn touched(&self) -> u64 {
        self.rules.borrow().touched
    }

    /// Sessions that were damaged.
    pub(crate) fn damaged(&self) -> u64 {
        self.effects.damaged()
    }

    /// Of which real servers all nodes were told that they are down.
    pub(crate) fn verdicts(&self) -> &[Verdict] {
        self.effects.verdicts()
    }

    /// When the last fault has ended, as far as is known. One that touches so many frames ends with the last of them.
    pub(crate) fn last_fault(&self) -> Duration {
        let spent = &self.rules.borrow().spent;
        let left_out = |s: &&Step| self.spans.get(s.fault).is_some_and(|s| s.left_out);
        let begins = self.steps.iter().filter(|s| !s.undo && !left_out(s));
        let begins = begins.map(|s| s.at);
        let ends = self.steps.iter().filter(|s| s.undo && !left_out(s));
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

    /// Faults that waited for what never came, and had to happen.
    pub(crate) fn untriggered(&self) -> u64 {
        self.waiting().filter(|f| !f.optional).count() as u64
    }

    /// Faults that still wait for what they are triggered by, or for one that does.
    fn waiting(&self) -> impl Iterator<Item = &'s Fault> + '_ {
        let faults = self.scenario.faults.iter().zip(&self.stages);
        let waiting = faults.filter(|(fault, stage)| {
            let triggered = matches!(stage, Stage::Before | Stage::Armed | Stage::Due(_));
            triggered && fault.when.is_some()
        });
        waiting.map(|(fault, _)| fault)
    }

    /// The run is over: what never happened is said.
    pub(crate) fn finish(&mut self, now: Duration) {
        let never: Vec<_> = self
            .waiting()
            .filter_map(|fault| Some((fault, fault.when.as_ref()?)))
            .map(|(fault, when)| Done {
                at: now,
                what: format!(
                    "{} never happened: it waited for {}",
                    fault.name,
                    show_trigger(when)
                ),
            })
            .collect();
        self.done.extend(never);
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

    /// What is listened for: what armed faults wait for.
    fn listen(&mut self) {
        let faults = self.scenario.faults.iter().zip(&self.stages);
        let armed = faults.filter(|(_, stage)| **stage == Stage::Armed);
        let occasions = armed.filter_map(|(fault, _)| Some(fault.when.as_ref()?.what));
        self.watch.borrow_mut().occasions.listen(occasions);
    }

    /// Whether time has to stop at what may come.
    pub(crate) fn listens(&self) -> bool {
        self.watch.borrow().occasions.listens()
    }

    /// Plans what was waited for and has come.
    pub(crate) fn hear(&mut self, world: &World, now: Duration) {
        let heard = self.watch.borrow_mut().occasions.take();
        for (what, lb) in heard {
            self.came(world, now, what, lb);
        }
    }

    /// Something that may be waited for has come, at a node.
    fn came(&mut self, world: &World, now: Duration, what: Occasion, lb: LbId) {
        for fault in 0..self.stages.len() {
            if self.stages.get(fault) == Some(&Stage::Armed) && self.is_meant(world, fault, what, lb) {
                self.catch(fault, lb, now);
            }
        }
        self.listen();
    }

    /// Whether a fault waits for this.
    fn is_meant(&self, world: &World, fault: usize, what: Occasion, lb: LbId) -> bool {
        let when = self.scenario.faults.get(fault).and_then(|f| f.when.as_ref());
        when.is_some_and(|Trigger { what: wanted, node }| {
            *wanted == what && node.is_none_or(|node| self.node(world, node) == Some(lb))
        })
    }

    /// What a fault waited for has come: its delay begins.
    fn catch(&mut self, fault: usize, lb: LbId, now: Duration) {
        let Some(Spans { delay, lasts, .. }) = self.spans.get(fault).copied() else {
            return;
        };
        if let Some(stage) = self.stages.get_mut(fault) {
            *stage = Stage::Due(lb);
        }
        self.add(plan::steps_of(fault, now + delay, lasts));
    }

    /// Steps that nobody knew of at the beginning. Of equal times those come first that were planned first.
    fn add(&mut self, steps: impl Iterator<Item = Step>) {
        for step in steps {
            let later = self.steps.partition_point(|s| s.at <= step.at);
            self.steps.insert(later.max(self.next), step);
        }
    }

    /// What is to be measured from the next step on.
    pub(crate) fn marks(&self) -> Marks {
        let Some(step) = self.steps.get(self.next).filter(|s| self.is_real(s)) else {
            return Marks::default();
        };
        Marks {
            first_fault: !self.marked.first_fault && self.first_known.is_none_or(|first| step.at <= first),
            first_crash: !self.marked.first_crash && plan::is_crash(self.scenario, step.fault),
        }
    }

    /// Whether a step begins something now: one that waited for the end of a phase that is over does not.
    fn is_real(&self, step: &Step) -> bool {
        let left_out = self.spans.get(step.fault).is_some_and(|s| s.left_out);
        !step.undo && !left_out && !self.is_too_late(step)
    }

    /// Whether a step was to happen while something goes on that is over.
    fn is_too_late(&self, step: &Step) -> bool {
        let when = self.scenario.faults.get(step.fault).and_then(|f| f.when.as_ref());
        match (when.map(|w| w.what), self.stages.get(step.fault)) {
            (Some(Occasion::During(phase)), Some(Stage::Due(lb))) => {
                !self.watch.borrow().occasions.is_going_on(phase, *lb)
            }
            _ => false,
        }
    }

    /// What the next step will do, if it does anything: index of the fault, whether it ends, and whom it will meet.
    pub(crate) fn coming(&self, world: &World) -> Option<(usize, bool, Option<LbId>)> {
        let step = self.steps.get(self.next)?;
        let met = if step.undo {
            self.met.get(step.fault).copied().flatten()
        } else if self.is_real(step) {
            let node = self.scenario.faults.get(step.fault).and_then(|f| f.action.node());
            node.and_then(|node| self.node(world, node))
        } else {
            return None;
        };
        Some((step.fault, step.undo, met))
    }

    /// Does the next step.
    pub(crate) fn happen(&mut self, built: &mut Built, now: Duration) -> Result<(), RunError> {
        let Some(step) = self.steps.get(self.next).cloned() else {
            return Ok(());
        };
        let marks = self.marks();
        let too_late = !step.undo && self.is_too_late(&step);
        self.next += 1;
        if too_late {
            // It waits for the next time. What it began it would have ended: that is not to come either.
            let next = self.next;
            let mut place = 0;
            self.steps.retain(|s| {
                place += 1;
                place <= next || s.fault != step.fault
            });
            self.arm(&built.world, step.fault, now);
            return Ok(());
        }
        self.marked.first_fault |= marks.first_fault;
        self.marked.first_crash |= marks.first_crash;
        let Some(fault) = self.scenario.faults.get(step.fault) else {
            return Ok(());
        };
        if self.spans.get(step.fault).is_some_and(|s| s.left_out) {
            self.begun(&built.world, step.fault, now);
            return Ok(());
        }
        let lb = match (step.undo, fault.action.node()) {
            (true, _) if self.stages.get(step.fault) == Some(&Stage::Missed) => return Ok(()),
            (true, _) => self.met.get(step.fault).copied().flatten(),
            (false, Some(node)) => {
                let lb = self.node(&built.world, node);
                if lb.is_none() {
                    self.done.push(Done {
                        at: now,
                        what: format!("{}: there is no such node as {} now", fault.name, node_name(node)),
                    });
                    if let Some(stage) = self.stages.get_mut(step.fault) {
                        *stage = Stage::Missed;
                    }
                    return Ok(());
                }
                lb
            }
            (false, None) => None,
        };
        if let Some(met) = self.met.get_mut(step.fault) {
            *met = lb;
        }
        if !step.undo {
            self.first.get_or_insert(step.fault);
        }
        let name = lb.map_or("all nodes".to_owned(), |lb| format!("node {}", lb.0 + 1));
        let word = if step.undo { "ends" } else { "begins" };
        let why = match (self.stages.get(step.fault), &fault.when) {
            (Some(Stage::Due(lb)), Some(when)) => {
                format!(
                    ", {} of node {}",
                    show_trigger(&Trigger { node: None, ..*when }),
                    lb.0 + 1
                )
            }
            _ => String::new(),
        };
        let what = match lb.and_then(|lb| fault::nothing_to(built, &fault.action, lb, step.undo)) {
            Some(verb) => format!("{}: nothing to {verb} on {name}{why}", fault.name),
            None => format!("{} {word} on {name}{why}", fault.name),
        };
        self.done.push(Done { at: now, what });
        let mut ends = self
            .steps
            .iter()
            .skip(self.next)
            .filter(|s| s.undo && s.fault == step.fault);
        let met = Met {
            fault: step.fault,
            lb,
            to: fault.action.to().and_then(|to| self.node(&built.world, to)),
            now,
            until: ends.next().map(|s| s.at),
        };
        if step.undo {
            self.effects.end(built, &fault.action, met)?;
        } else {
            if let (Action::Drain(_), Some(lb)) = (&fault.action, lb) {
                self.watch.borrow_mut().occasions.drains(lb);
            }
            self.effects.begin(built, &fault.action, met)?;
            self.begun(&built.world, step.fault, now);
        }
        // What it made happen may be waited for.
        self.hear(&built.world, now);
        Ok(())
    }

    /// A fault has begun: those that are after it and have no times yet get them, or begin to wait.
    fn begun(&mut self, world: &World, fault: usize, now: Duration) {
        if let Some(stage) = self.stages.get_mut(fault) {
            *stage = Stage::Begun;
        }
        for (i, follower) in self.scenario.faults.iter().enumerate() {
            let Some(spans) = self.spans.get(i).copied().filter(|s| !s.timed) else {
                continue;
            };
            if follower.after != Some(fault) || self.stages.get(i) != Some(&Stage::Before) {
                continue;
            }
            match follower.when {
                Some(_) => self.arm(world, i, now),
                None => self.add(plan::steps_of(i, now + spans.delay, spans.lasts)),
            }
        }
    }

    /// A fault waits from now on, unless what it waits for goes on already.
    fn arm(&mut self, world: &World, fault: usize, now: Duration) {
        if let Some(stage) = self.stages.get_mut(fault) {
            *stage = Stage::Armed;
        }
        let when = self.scenario.faults.get(fault).and_then(|f| f.when.as_ref());
        if let Some(Occasion::During(phase)) = when.map(|w| w.what) {
            let on = self.watch.borrow().occasions.where_goes_on(phase);
            let what = Occasion::During(phase);
            if let Some(lb) = on.into_iter().find(|lb| self.is_meant(world, fault, what, *lb)) {
                self.catch(fault, lb, now);
            }
        }
        self.listen();
    }
}
