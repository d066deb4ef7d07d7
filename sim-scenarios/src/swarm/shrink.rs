//! From a plan that fails to the smallest one that still fails so: delta debugging over time, then faults, flows, nodes and
//! services, knobs, and time again.

use std::time::Duration;

use evenkeel_core::lport::BUCKET_COUNT_DEFAULT;

use super::signature;
use crate::language::{parse, write};
use crate::report::Report;
use crate::scenario::{Action, Arrival, Change, Fault, Link, NodeRef, Scenario, ServerRef};

/// What was left.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The plan.
    pub plan: Scenario,
    /// Its run.
    pub report: Report,
    /// Runs that it took.
    pub runs: u32,
}

/// Shrinks `plan`, whose run fails with `wanted` (a [`signature`]), by `runs_max` runs at most. `run` runs a plan; `None`:
/// no more. The result is `None` if the plan does not fail so.
pub fn shrink(
    plan: &Scenario,
    wanted: &str,
    runs_max: u32,
    run: &mut dyn FnMut(&Scenario) -> Option<Report>,
) -> Option<Shrunk> {
    let mut hunt = Hunt {
        wanted,
        runs: 0,
        runs_max,
        run,
        best: plan.clone(),
        report: None,
        unmeasured: Vec::new(),
    };
    if !hunt.fails(plan.clone()) {
        return None;
    }
    // What fails early need not run to the end, and all that follows takes less time.
    hunt.time();
    // What one pass took out may let another take out more.
    loop {
        let before = hunt.best.clone();
        hunt.faults();
        hunt.loads();
        hunt.flows();
        hunt.nodes();
        hunt.services();
        hunt.knobs();
        hunt.time();
        if hunt.best == before || hunt.runs >= hunt.runs_max {
            break;
        }
    }
    hunt.expects();
    let report = hunt.report?;
    Some(Shrunk {
        plan: hunt.best,
        report,
        runs: hunt.runs,
    })
}

struct Hunt<'h> {
    wanted: &'h str,
    runs: u32,
    runs_max: u32,
    run: &'h mut dyn FnMut(&Scenario) -> Option<Report>,
    best: Scenario,
    report: Option<Report>,
    /// What had nothing to look at in the plan that is shrunk.
    unmeasured: Vec<String>,
}

impl Hunt<'_> {
    /// Whether a plan is one that can be read, and fails as it should: then it is the best one so far.
    fn fails(&mut self, candidate: Scenario) -> bool {
        if self.report.is_some() && candidate == self.best {
            return true;
        }
        if self.runs >= self.runs_max {
            return false;
        }
        let text = write(&candidate);
        if parse("plan", &text, &|_| Err(String::new())).ok().as_ref() != Some(&candidate) {
            return false;
        }
        self.runs += 1;
        let Some(report) = (self.run)(&candidate) else {
            self.runs = self.runs_max;
            return false;
        };
        // What is so short or empty that something has nothing to look at fails for that, too, also when the fault is mended.
        let first = self.report.is_none();
        if first {
            self.unmeasured = unmeasured(&report).map(str::to_owned).collect();
        }
        let fewer = |name: &str| first || self.unmeasured.iter().any(|known| known == name);
        let so =
            report.failures.iter().any(|f| signature(f) == self.wanted) && unmeasured(&report).all(fewer);
        if so {
            self.best = candidate;
            self.report = Some(report);
        }
        so
    }

    /// Keeps as few of `count` things as do: `without` makes a plan that keeps those at these places; `None`: it cannot be.
    fn minimize(&mut self, count: usize, with: impl Fn(&Scenario, &[usize]) -> Option<Scenario>) {
        let whole = self.best.clone();
        let mut kept: Vec<usize> = (0..count).collect();
        if kept.is_empty() {
            return;
        }
        if let Some(none) = with(&whole, &[])
            && self.fails(none)
        {
            return;
        }
        let mut parts = 2;
        while kept.len() > 1 && self.runs < self.runs_max {
            let len = kept.len().div_ceil(parts);
            let smaller = (0..kept.len()).step_by(len).find_map(|from| {
                let to = (from + len).min(kept.len());
                let rest: Vec<usize> = [&kept[..from], &kept[to..]].concat();
                let plan = with(&whole, &rest).filter(|_| !rest.is_empty())?;
                self.fails(plan).then_some(rest)
            });
            match smaller {
                Some(rest) => {
                    kept = rest;
                    parts = (parts - 1).max(2);
                }
                None if len == 1 => break,
                None => parts = (2 * parts).min(kept.len()),
            }
        }
    }

    fn faults(&mut self) {
        self.minimize(self.best.faults.len(), |plan, kept| {
            let mut fewer = plan.clone();
            // Without what it comes after a fault has no time.
            keep_faults(&mut fewer, |i, _| kept.contains(&i));
            (fewer.faults.len() == kept.len()).then_some(fewer)
        });
    }

    fn loads(&mut self) {
        self.minimize(self.best.loads.len(), |plan, kept| {
            let mut fewer = plan.clone();
            fewer.loads = kept.iter().filter_map(|i| plan.loads.get(*i)).cloned().collect();
            fewer.expects.retain_mut(|e| match e.of {
                Some(of) => {
                    e.of = kept.iter().position(|k| *k == of);
                    e.of.is_some()
                }
                None => true,
            });
            Some(fewer)
        });
    }

    fn flows(&mut self) {
        for load in 0..self.best.loads.len() {
            let count = match self.best.loads.get(load).map(|l| &l.arrival) {
                Some(Arrival::Planned(flows)) => flows.len(),
                _ => continue,
            };
            self.minimize(count, |plan, kept| {
                let mut fewer = plan.clone();
                let of = fewer.loads.get_mut(load)?;
                let Arrival::Planned(flows) = &mut of.arrival else {
                    return None;
                };
                let all = std::mem::take(flows);
                flows.extend(kept.iter().filter_map(|i| all.get(*i)));
                (!flows.is_empty()).then_some(fewer)
            });
        }
    }

    /// Nodes with the highest numbers, that no fault names.
    fn nodes(&mut self) {
        while self.best.cluster.nodes.len() > 2 {
            let mut fewer = self.best.clone();
            let Some(gone) = fewer.cluster.nodes.pop() else {
                return;
            };
            let prefix = format!("node{}-", gone.id);
            fewer.links.delays.retain(|name, _| !name.starts_with(&prefix));
            keep_faults(&mut fewer, |_, f| !names(f, gone.id));
            if !self.fails(fewer) {
                return;
            }
        }
    }

    /// Services that no flow uses, and servers that nobody needs.
    fn services(&mut self) {
        for service in (0..self.best.services.len()).rev() {
            let mut fewer = self.best.clone();
            if fewer.services.len() < 2 {
                break;
            }
            fewer.services.remove(service);
            keep_faults(&mut fewer, |_, f| service_of(&f.action) != Some(service));
            for fault in &mut fewer.faults {
                move_down(&mut fault.action, service);
            }
            for load in &mut fewer.loads {
                load.services.retain(|s| *s != service);
                if let Arrival::Planned(flows) = &mut load.arrival {
                    flows.retain(|f| f.service != service);
                    flows
                        .iter_mut()
                        .for_each(|f| f.service -= usize::from(f.service > service));
                }
                load.services
                    .iter_mut()
                    .for_each(|s| *s -= usize::from(*s > service));
            }
            let used = |l: &crate::scenario::Load| {
                !l.services.is_empty() && !matches!(&l.arrival, Arrival::Planned(f) if f.is_empty())
            };
            if fewer.loads.iter().all(used) {
                without_links(&mut fewer);
                self.fails(fewer);
            }
        }
        let mut one = self.best.clone();
        one.services.iter_mut().for_each(|s| s.servers = 1);
        without_links(&mut one);
        self.fails(one);
    }

    /// Whatever is not as it is when nothing is said.
    fn knobs(&mut self) {
        let plain: [fn(&mut Scenario); 16] = [
            |s| s.cluster.nodes.iter_mut().for_each(|n| n.drift_ppm = 0..=0),
            |s| s.cluster.nodes.iter_mut().for_each(|n| n.workers = 1),
            |s| s.ties = None,
            |s| s.cluster.lsn_ring = None,
            |s| s.cluster.bulk_delay = Duration::ZERO,
            |s| s.cluster.preempt = true,
            |s| s.cluster.sealed = false,
            |s| s.cluster.digests = true,
            |s| s.cluster.local_port_min = 1_024,
            |s| s.cluster.local_addresses = 1,
            |s| s.cluster.buckets = BUCKET_COUNT_DEFAULT,
            |s| s.cluster.ring = 1_024,
            |s| s.cluster.heartbeat = Duration::from_millis(100),
            |s| s.cluster.advertisement = Duration::from_millis(100),
            |s| quiet(&mut s.links.clients),
            |s| quiet(&mut s.links.servers),
        ];
        let sync: [fn(&mut Scenario); 5] = [
            |s| s.links.sync.loss_ppm = 0,
            |s| s.links.sync.duplicate_ppm = 0,
            |s| s.links.sync.reorder_ppm = 0,
            |s| s.links.delays.clear(),
            |s| {
                for link in [&mut s.links.clients, &mut s.links.servers, &mut s.links.sync] {
                    link.delay = Link::default().delay;
                }
                s.links.delays.clear();
            },
        ];
        for make in plain.iter().chain(&sync) {
            let mut plainer = self.best.clone();
            make(&mut plainer);
            self.fails(plainer);
        }
    }

    /// A shorter run, whose quiet at the end stays.
    fn time(&mut self) {
        for _ in 0..6 {
            let mut shorter = self.best.clone();
            shorter.duration = Duration::from_millis(self.best.duration.as_millis() as u64 * 4 / 5);
            let end = shorter.duration.saturating_sub(shorter.quiet);
            for load in &mut shorter.loads {
                load.until = load.until.map(|until| until.min(end));
            }
            if !self.fails(shorter) {
                return;
            }
        }
    }

    /// Expectations that fail because of what was taken out are no part of it.
    fn expects(&mut self) {
        let Some(report) = &self.report else { return };
        let failed = |name: &str| {
            let of = |f: &&crate::expect::Failure| f.name == name;
            report
                .failures
                .iter()
                .find(of)
                .is_some_and(|f| signature(f) != self.wanted)
        };
        let mut fewer = self.best.clone();
        fewer.expects.retain(|e| !failed(&e.name));
        if fewer.expects.len() < self.best.expects.len() && !fewer.expects.is_empty() {
            // One run more than asked for, so that the file fails as it says.
            self.runs_max += 1;
            self.fails(fewer);
        }
    }
}

/// Oracles and expectations that had nothing to look at.
fn unmeasured(report: &Report) -> impl Iterator<Item = &str> {
    let failures = report.failures.iter();
    failures.filter(|f| f.unmeasured).map(|f| f.name.as_str())
}

/// Takes away the delays of links that are gone.
fn without_links(plan: &mut Scenario) {
    let links = crate::plan::links(plan);
    plan.links
        .delays
        .retain(|name, _| links.iter().any(|l| l.0 == *name));
}

fn quiet(link: &mut Link) {
    (link.loss_ppm, link.duplicate_ppm, link.reorder_ppm) = (0, 0, 0);
}

/// Takes out the faults that are not to be kept, and those that come after one of them.
fn keep_faults(plan: &mut Scenario, keep: impl Fn(usize, &Fault) -> bool) {
    let mut places = Vec::new();
    let mut kept: Vec<Fault> = Vec::new();
    for (i, mut fault) in std::mem::take(&mut plan.faults).into_iter().enumerate() {
        let after = match fault.after {
            Some(after) => places.get(after).copied().flatten().map(Some),
            None => Some(None),
        };
        let stays = after.filter(|_| keep(i, &fault));
        places.push(stays.map(|_| kept.len()));
        if let Some(after) = stays {
            fault.after = after;
            kept.push(fault);
        }
    }
    plan.faults = kept;
}

/// Whether a fault names a node by its number.
fn names(fault: &Fault, id: u16) -> bool {
    let waits_for = fault.when.and_then(|when| when.node);
    let named = fault.action.node().into_iter().chain(fault.action.to());
    named.chain(waits_for).any(|node| node == NodeRef::Id(id))
}

/// The service that a fault is about.
fn service_of(action: &Action) -> Option<usize> {
    match action {
        Action::Config(_, Change::Servers(of, _) | Change::Served(of, _)) => Some(*of),
        Action::Config(_, Change::Weight(of, _)) | Action::Unhealthy(_, of) => Some(of.service),
        _ => None,
    }
}

/// A service before that of a fault is gone.
fn move_down(action: &mut Action, gone: usize) {
    let (Action::Config(_, Change::Servers(of, _) | Change::Served(of, _))
    | Action::Config(_, Change::Weight(ServerRef { service: of, .. }, _))
    | Action::Unhealthy(_, ServerRef { service: of, .. })) = action
    else {
        return;
    };
    *of -= usize::from(*of > gone);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::Failure;

    /// A run that is not one: it fails if the plan has these two faults and this flow.
    fn pretend(plan: &Scenario, faults: [&str; 2], flow: u32) -> Report {
        let has = |name: &str| plan.faults.iter().any(|f| f.name == name);
        let flows = |l: &crate::scenario::Load| match &l.arrival {
            Arrival::Planned(flows) => flows.iter().any(|f| f.number == flow),
            _ => false,
        };
        let mut report = Report::new(plan, 0, &crate::expect::Measures::default());
        if faults.into_iter().all(has) && plan.loads.iter().any(|l| l.name == "long" && flows(l)) {
            report.failures.push(Failure {
                name: "bounds".into(),
                expected: String::new(),
                seen: "node 7 held 12".into(),
                at_ns: 1,
                unmeasured: false,
            });
        }
        report
    }

    #[test]
    fn what_does_not_matter_is_taken_out() {
        let plan = (0..).map(super::super::draw).find(|p| p.faults.len() >= 6);
        let plan = plan.expect("a plan with many faults");
        let names = [plan.faults[1].name.clone(), plan.faults[4].name.clone()];
        let names = [names[0].as_str(), names[1].as_str()];
        let mut runs = 0;
        let shrunk = shrink(&plan, "bounds: node # held #", 400, &mut |plan| {
            runs += 1;
            Some(pretend(plan, names, 17))
        });
        let shrunk = shrunk.expect("it fails");
        assert_eq!(shrunk.runs, runs);
        let left: Vec<_> = shrunk.plan.faults.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(left, names);
        assert_eq!(shrunk.plan.loads.len(), 1);
        let Arrival::Planned(flows) = &shrunk.plan.loads[0].arrival else {
            panic!("a plan")
        };
        assert_eq!(flows.iter().map(|f| f.number).collect::<Vec<_>>(), [17]);
        assert!(shrunk.plan.cluster.nodes.iter().all(|n| n.workers == 1));
        assert_eq!(shrunk.plan.links.sync.loss_ppm, 0);
        // What is left is a file that is read.
        let text = write(&shrunk.plan);
        assert!(parse("x", &text, &|_| Err(String::new())).is_ok());
    }

    #[test]
    fn shrinking_ends_at_its_bound_and_a_plan_that_does_not_fail_so_is_none() {
        let plan = super::super::draw(1);
        let names = [plan.faults[0].name.as_str(), plan.faults[1].name.as_str()];
        let mut runs = 0;
        let shrunk = shrink(&plan, "bounds: node # held #", 5, &mut |plan| {
            runs += 1;
            Some(pretend(plan, names, 17))
        });
        assert_eq!((shrunk.expect("it fails").runs, runs), (5, 5));
        let other = shrink(&plan, "checksums: #", 50, &mut |p| Some(pretend(p, names, 17)));
        assert!(other.is_none());
    }

    /// A plan so small that an oracle has nothing to look at would fail when the fault is mended, too.
    #[test]
    fn nothing_is_left_without_anything_to_look_at() {
        let plan = super::super::draw(1);
        let names = [plan.faults[0].name.as_str(), plan.faults[1].name.as_str()];
        let least = |loads_min: usize| {
            let shrunk = shrink(&plan, "bounds: node # held #", 400, &mut |plan| {
                let mut report = pretend(plan, names, 17);
                if plan.loads.len() < loads_min {
                    report.failures.push(Failure {
                        name: "byte-streams".into(),
                        expected: String::new(),
                        seen: "nothing".into(),
                        at_ns: 1,
                        unmeasured: true,
                    });
                }
                Some(report)
            });
            shrunk.expect("it fails").plan.loads.len()
        };
        assert_eq!((least(0), least(3)), (1, 3));
        // What the plan had from the beginning may stay.
        assert_eq!(least(usize::MAX), 1);
    }

    #[test]
    fn what_comes_after_a_fault_goes_with_it() {
        let mut plan = super::super::draw(1);
        let fault = |name: &str, after: Option<usize>| Fault {
            name: name.to_owned(),
            at: Duration::ZERO..=Duration::ZERO,
            after,
            when: None,
            optional: false,
            lasts: None,
            action: Action::Look,
        };
        plan.faults = vec![
            fault("a", None),
            fault("b", None),
            fault("c", Some(0)),
            fault("d", Some(1)),
            fault("e", Some(3)),
        ];
        keep_faults(&mut plan, |_, f| f.name != "a");
        let left: Vec<_> = plan.faults.iter().map(|f| (f.name.as_str(), f.after)).collect();
        assert_eq!(left, [("b", None), ("d", Some(0)), ("e", Some(1))]);
    }
}
