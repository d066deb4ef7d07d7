//! Faults: what each does to the world, and how it ends. Each kind has a room of its own.

mod clock;
mod config;
mod link;
mod message;
mod node;
#[cfg(test)]
mod node_tests;
mod room;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_io_sim::{LbId, WorldError};

pub(crate) use config::Verdict;

use super::RunError;
use super::build::Built;
use super::sync_frame::Rules;
use crate::scenario::{Action, Scenario};

/// What faults that are in force have changed, so that each can be undone and the others stay.
#[derive(Debug)]
pub(crate) struct Effects<'s> {
    scenario: &'s Scenario,
    links: link::Links,
    messages: Rc<RefCell<Rules>>,
    rooms: room::Rooms,
    drifts: Standing<i32>,
    configs: config::Configs<'s>,
    damaged: u64,
}

/// What faults that are in force say, in the order in which they began: by fault and node.
#[derive(Debug)]
struct Standing<T>(Vec<(usize, LbId, T)>);

impl<T> Default for Standing<T> {
    fn default() -> Self {
        Standing(Vec::new())
    }
}

impl<T: Copy> Standing<T> {
    fn begin(&mut self, met: Met, lb: LbId, what: T) {
        self.0.push((met.fault, lb, what));
    }

    fn end(&mut self, met: Met) {
        self.0.retain(|(fault, ..)| *fault != met.fault);
    }

    /// Of a node.
    fn of(&self, lb: LbId) -> impl Iterator<Item = T> + '_ {
        self.0
            .iter()
            .filter(move |(_, on, _)| *on == lb)
            .map(|(_, _, what)| *what)
    }
}

/// A fault that begins or ends, and whom it meets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Met {
    /// Its index.
    pub(crate) fault: usize,
    /// The node to which it is done; `None`: it is done to none, or to all.
    pub(crate) lb: Option<LbId>,
    /// Another node that it is about.
    pub(crate) to: Option<LbId>,
    /// The time in the run.
    pub(crate) now: Duration,
    /// When it ends; `None`: not in this run.
    pub(crate) until: Option<Duration>,
}

fn refused(error: WorldError) -> RunError {
    error.into()
}

impl<'s> Effects<'s> {
    pub(crate) fn new(scenario: &'s Scenario, messages: Rc<RefCell<Rules>>) -> Self {
        Effects {
            scenario,
            links: link::Links::default(),
            messages,
            rooms: room::Rooms::default(),
            drifts: Standing::default(),
            configs: config::Configs::new(scenario),
            damaged: 0,
        }
    }

    /// Sessions that were damaged.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Of which real servers nodes were told that they are down, and when.
    pub(crate) fn verdicts(&self) -> &[Verdict] {
        self.configs.verdicts()
    }

    /// A fault begins.
    pub(crate) fn begin(&mut self, built: &mut Built, action: &Action, met: Met) -> Result<(), RunError> {
        match action {
            Action::Suppress { kinds, frames, .. } => {
                message::suppress(&mut self.messages.borrow_mut(), met, kinds, *frames);
                return Ok(());
            }
            Action::Tamper(_, how) => {
                message::tamper(&mut self.messages.borrow_mut(), met, *how);
                return Ok(());
            }
            Action::Config(_, change) => return self.configs.change(built, met, *change),
            Action::Unhealthy(_, server) => return self.configs.fails(built, met, *server),
            _ => {}
        }
        let Some(lb) = met.lb else { return Ok(()) };
        let world = &mut built.world;
        match action {
            Action::Crash(..) => node::crash(world, lb),
            Action::Start(_, state) => node::start(world, lb, *state),
            Action::Pause(_, clock) => node::pause(world, lb, *clock),
            Action::Resume(_) => node::resume(world, lb),
            Action::Drain(_) => node::drain(world, lb),
            Action::Cut(_, network, way) => self.links.cut(built, met.fault, lb, *network, *way),
            Action::Heal(_, network) => self.links.heal(built, lb, *network),
            Action::Disturb(_, network, way, how) => {
                self.links.disturb(built, met.fault, lb, *network, *way, how)
            }
            Action::Dark(_, network, way) => self.links.dark(built, met.fault, lb, *network, *way),
            Action::Bucket(_, bucket) => self.links.dark_bucket(world, met.fault, lb, *bucket),
            Action::Part(_, _, network, way) => match met.to {
                Some(to) if to != lb => self.links.part(world, met.fault, (lb, to), *network, *way),
                _ => Ok(()),
            },
            Action::Queues(_, entries) => self.rooms.queues(world, met, lb, *entries),
            Action::Rings(_, entries) => self.rooms.rings(world, self.scenario, met, lb, *entries),
            Action::Slow(_, worker, factor) => self.rooms.slow(world, met, lb, (*worker, *factor)),
            Action::Fill(_, share) => room::fill(world, met, lb, *share, self.scenario.duration),
            Action::Damage(_, share) => {
                self.damaged += node::damage(world, lb, *share)?;
                Ok(())
            }
            Action::Drift(_, ppm) => {
                self.drifts.begin(met, lb, *ppm);
                clock::drift(built, lb, self.drifts.of(lb))
            }
            Action::Step(_, by) => clock::step(world, lb, *by),
            Action::SetWall(_, by_ns) => clock::set_wall(world, lb, *by_ns),
            Action::Suppress { .. }
            | Action::Tamper(..)
            | Action::Config(..)
            | Action::Unhealthy(..)
            | Action::Look => Ok(()),
        }
    }

    /// A fault ends.
    pub(crate) fn end(&mut self, built: &mut Built, action: &Action, met: Met) -> Result<(), RunError> {
        match action {
            Action::Suppress { .. } | Action::Tamper(..) => {
                message::let_through(&mut self.messages.borrow_mut(), met);
                return Ok(());
            }
            Action::Config(..) | Action::Unhealthy(..) => return self.configs.end(built, met),
            _ => {}
        }
        let Some(lb) = met.lb else { return Ok(()) };
        let world = &mut built.world;
        match action {
            Action::Crash(_, state) => node::start(world, lb, *state),
            Action::Pause(..) => node::resume(world, lb),
            Action::Cut(..)
            | Action::Disturb(..)
            | Action::Dark(..)
            | Action::Bucket(..)
            | Action::Part(..) => self.links.end(built, met.fault),
            Action::Queues(..) | Action::Rings(..) | Action::Slow(..) => {
                self.rooms.end(world, self.scenario, met, lb)
            }
            Action::Drift(..) => {
                self.drifts.end(met);
                clock::drift(built, lb, self.drifts.of(lb))
            }
            // Its sessions end by themselves.
            Action::Fill(..) => Ok(()),
            // These do not end.
            Action::Start(..) | Action::Resume(_) | Action::Drain(_) | Action::Heal(..) => Ok(()),
            Action::Damage(..) => Ok(()),
            Action::Step(..) | Action::SetWall(..) => Ok(()),
            Action::Suppress { .. }
            | Action::Tamper(..)
            | Action::Config(..)
            | Action::Unhealthy(..)
            | Action::Look => Ok(()),
        }
    }
}

/// What a step would do to a node, if there is nothing of it to be done: the node runs already, or nothing is cut.
pub(crate) fn nothing_to(built: &Built, action: &Action, lb: LbId, undo: bool) -> Option<&'static str> {
    let (verb, idle) = match (action, undo) {
        (Action::Crash(..), false) => ("crash", node::is_down(&built.world, lb)),
        (Action::Crash(..), true) | (Action::Start(..), _) => ("start", !node::is_down(&built.world, lb)),
        (Action::Drain(_), _) => ("drain", !node::is_running(&built.world, lb)),
        (Action::Pause(..), false) => ("pause", !node::is_running(&built.world, lb)),
        (Action::Pause(..), true) | (Action::Resume(_), _) => ("resume", !node::is_paused(&built.world, lb)),
        (Action::Fill(..), false) => ("fill", node::is_down(&built.world, lb)),
        (Action::Damage(..), false) => ("damage", node::is_down(&built.world, lb)),
        (Action::Heal(_, network), _) => ("heal", link::is_well(built, lb, *network)),
        _ => return None,
    };
    idle.then_some(verb)
}
