//! Faults: what each does to the world, and how it ends. Each kind has a room of its own.

mod link;
mod message;
mod node;
mod queue;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use evenkeel_io_sim::{LbId, WorldError};

use super::RunError;
use super::build::Built;
use super::sync_frame::Rules;
use crate::scenario::Action;

/// What faults that are in force have changed, so that each can be undone.
#[derive(Debug)]
pub(crate) struct Effects {
    links: link::Links,
    messages: Rc<RefCell<Rules>>,
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
}

fn refused(error: WorldError) -> RunError {
    RunError::World(error.to_string())
}

impl Effects {
    pub(crate) fn new(messages: Rc<RefCell<Rules>>) -> Self {
        Effects {
            links: link::Links::default(),
            messages,
        }
    }

    /// A fault begins.
    pub(crate) fn begin(&mut self, built: &mut Built, action: &Action, met: Met) -> Result<(), RunError> {
        if let Action::Suppress { kinds, frames, .. } = action {
            message::suppress(&mut self.messages.borrow_mut(), met, kinds, *frames);
            return Ok(());
        }
        let Some(lb) = met.lb else { return Ok(()) };
        let world = &mut built.world;
        match action {
            Action::Crash(_) => node::crash(world, lb),
            Action::Start(_) => node::start(world, lb),
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
            Action::Queues(_, entries) => queue::bound(world, lb, Some(*entries)),
            Action::Suppress { .. } | Action::Look => Ok(()),
        }
    }

    /// A fault ends.
    pub(crate) fn end(&mut self, built: &mut Built, action: &Action, met: Met) -> Result<(), RunError> {
        if let Action::Suppress { .. } = action {
            message::let_through(&mut self.messages.borrow_mut(), met);
            return Ok(());
        }
        let Some(lb) = met.lb else { return Ok(()) };
        let world = &mut built.world;
        match action {
            Action::Crash(_) => node::start(world, lb),
            Action::Pause(..) => node::resume(world, lb),
            Action::Cut(..)
            | Action::Disturb(..)
            | Action::Dark(..)
            | Action::Bucket(..)
            | Action::Part(..) => self.links.end(built, met.fault),
            Action::Queues(..) => queue::bound(world, lb, None),
            // These do not end.
            Action::Start(_) | Action::Resume(_) | Action::Drain(_) | Action::Heal(..) => Ok(()),
            Action::Suppress { .. } | Action::Look => Ok(()),
        }
    }
}

/// What a step would do to a node, if there is nothing of it to be done: the node runs already, or nothing is cut.
pub(crate) fn nothing_to(built: &Built, action: &Action, lb: LbId, undo: bool) -> Option<&'static str> {
    let (verb, idle) = match (action, undo) {
        (Action::Crash(_), false) => ("crash", node::is_down(&built.world, lb)),
        (Action::Crash(_), true) | (Action::Start(_), _) => ("start", !node::is_down(&built.world, lb)),
        (Action::Pause(..), false) => ("pause", !node::is_running(&built.world, lb)),
        (Action::Pause(..), true) | (Action::Resume(_), _) => ("resume", !node::is_paused(&built.world, lb)),
        (Action::Heal(_, network), _) => ("heal", link::is_well(built, lb, *network)),
        _ => return None,
    };
    idle.then_some(verb)
}
