//! What nodes serve by: a config that is pushed in the midst, and the verdicts of health checks.
//!
//! A node reads its config when it is pushed, as the daemon's control side tells its workers: through their queues. Who is
//! down then learns of it as it starts.

use std::time::Duration;

use evenkeel_io_sim::LbId;

use super::{Met, refused};
use crate::mechanism::Switch;
use crate::plan;
use crate::run::RunError;
use crate::run::build::{self, Built};
use crate::scenario::{Change, Node, Scenario, ServerRef};

/// What is in force.
#[derive(Clone, Copy, Debug)]
enum What {
    Change(Change),
    Down(ServerRef),
}

/// All nodes were told that a real server is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    fault: usize,
    /// Which.
    pub(crate) server: ServerRef,
    /// Since when.
    pub(crate) from: Duration,
    /// Until when.
    pub(crate) until: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Configs<'s> {
    scenario: &'s Scenario,
    /// In the order in which they began. `None`: it is on all nodes.
    in_force: Vec<(usize, Option<LbId>, What)>,
    verdicts: Vec<Verdict>,
}

impl<'s> Configs<'s> {
    pub(super) fn new(scenario: &'s Scenario) -> Self {
        Configs {
            scenario,
            in_force: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    pub(super) fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// A config is changed.
    pub(super) fn change(&mut self, built: &mut Built, met: Met, change: Change) -> Result<(), RunError> {
        self.in_force.push((met.fault, met.lb, What::Change(change)));
        self.push(built)
    }

    /// The check of a server fails.
    pub(super) fn fails(&mut self, built: &mut Built, met: Met, server: ServerRef) -> Result<(), RunError> {
        if met.lb.is_none() {
            self.verdicts.push(Verdict {
                fault: met.fault,
                server,
                from: met.now,
                until: None,
            });
        }
        // The counter-proof: nobody tells the nodes.
        if plan::switch(self.scenario) != Some(Switch::NoVerdicts) {
            self.in_force.push((met.fault, met.lb, What::Down(server)));
        }
        self.push(built)
    }

    /// What a fault changed is as it would be without it.
    pub(super) fn end(&mut self, built: &mut Built, met: Met) -> Result<(), RunError> {
        self.in_force.retain(|(fault, ..)| *fault != met.fault);
        let ended = self.verdicts.iter_mut().filter(|v| v.fault == met.fault);
        ended.for_each(|v| v.until = Some(met.now));
        self.push(built)
    }

    /// Gives each node whose config is another one now the one that it is to have.
    fn push(&self, built: &mut Built) -> Result<(), RunError> {
        for node in &self.scenario.cluster.nodes {
            let lb = build::lb(node.id);
            let config = self.config(node, lb);
            if built.world.lb(lb).is_some_and(|lb| *lb.config() != config) {
                built.world.set_config(lb, config).map_err(refused)?;
            }
        }
        Ok(())
    }

    fn config(&self, node: &Node, lb: LbId) -> evenkeel_core::service::SnapshotSpec {
        let here = self
            .in_force
            .iter()
            .filter(|(_, on, _)| on.is_none_or(|on| on == lb));
        let (mut changes, mut down) = (Vec::new(), Vec::new());
        for (_, _, what) in here {
            match what {
                What::Change(change) => changes.push(*change),
                What::Down(server) => down.push(*server),
            }
        }
        build::config(self.scenario, node, &changes, &down)
    }
}
