//! Which flows may break by what happened to them. A run of many faults cannot say how many flows break; it can say of each
//! one that breaks whether anything excuses it. The rule, which `docs/scenarios.md` tells in words:
//!
//! - A node crashes, and no other node that runs has the flow's session then.
//! - A fault divides the nodes, or deafens one, while the flow is open or a little later: who serves may be two, or one
//!   that has not heard of the session.
//! - Its node gave it the ends of a session that died with the last node that had it: the server may not take it yet.
//! - Its service replicates nothing, or not before its SYN-ACK or until it is established, and another node takes over
//!   meanwhile, or so shortly before that its client has not heard of it.
//!
//! Nothing else excuses anything: neither what a crash alone does to sessions that others have, nor a start, nor a node that
//! leaves, nor frames that come late or twice, nor losses on the way of clients and servers that TCP repairs.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_io_sim::{FlowRecord, LbId, LbState, World};

use super::build::REORDERED_BY;
use super::judge::{rows, tuple};
use super::{cluster, nanos};
use crate::oracle::{self, Ends, Row};
use crate::scenario::{Action, Network, Replicate, Scenario};

/// What a fault that divides nodes has done is over so long after its end: they hear each other again, compare what they
/// have, and tell the network who serves.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// Of a loss of this share, in millionths, heartbeats get through: too few are lost in a row for a node to seem dead.
const LOSS_HEARD_PPM: u32 = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Excuses {
    /// Flows, by number, whose sessions died with a node.
    lost: BTreeSet<u32>,
    /// Ends, of node and server, of sessions that died so.
    ends: BTreeSet<Ends>,
    /// When dividing faults began and ended: index of the fault, and its times.
    divided: Vec<(usize, Duration, Option<Duration>)>,
}

/// A node crashes. Ends are those of node and server.
#[derive(Debug)]
pub(crate) struct Crash {
    pub(crate) lb: Option<LbId>,
    /// Of sessions that die with it: nobody is left who knows that they are in use.
    pub(crate) died: BTreeSet<Ends>,
    /// Of sessions that are known to who is left.
    pub(crate) known: BTreeSet<Ends>,
}

impl Excuses {
    /// A fault's step is about to be done to a node. Returns, if it crashes, what those who are left know.
    pub(crate) fn step(
        &mut self,
        world: &World,
        now: Duration,
        (fault, action, undo): (usize, &Action, bool),
        met: Option<LbId>,
    ) -> Option<Crash> {
        if let (Action::Crash(..), false) = (action, undo) {
            return Some(self.crash(world, met));
        }
        if !divides(action) {
            return None;
        }
        if undo {
            let open = self.divided.iter_mut().filter(|d| d.0 == fault && d.2.is_none());
            open.for_each(|d| d.2 = Some(now));
        } else {
            self.divided.push((fault, now, None));
        }
        None
    }

    fn crash(&mut self, world: &World, met: Option<LbId>) -> Crash {
        let survivors = || {
            world
                .lbs()
                .filter(|lb| lb.state() == LbState::Running && Some(lb.id()) != met)
        };
        let (mut known, mut ends) = (BTreeSet::new(), BTreeSet::new());
        for row in survivors().flat_map(|lb| rows(lb)) {
            known.insert(oracle::key(&row.inbound));
            ends.insert((row.local, row.server));
        }
        // What a node alone knows that has not joined may be lost when it does.
        let anybody = survivors().any(|lb| cluster::is_ready(lb) || cluster::is_degraded(lb));
        for (number, flow) in (0..).zip(world.flows()) {
            let key = oracle::key(&tuple(flow));
            if flow.opened.is_some() && flow.ended.is_none() && !(anybody && known.contains(&key)) {
                self.lost.insert(number);
            }
        }
        let crashed = world
            .lbs()
            .filter(|lb| Some(lb.id()) == met)
            .flat_map(|lb| rows(lb));
        let dies = |row: &Row| !(anybody && known.contains(&oracle::key(&row.inbound)));
        let died: BTreeSet<_> = crashed.filter(dies).map(|row| (row.local, row.server)).collect();
        self.ends.extend(&died);
        if !anybody {
            ends.clear();
        }
        Crash {
            lb: met,
            died,
            known: ends,
        }
    }

    /// Whether a session has the ends of one that died with the last node that had it.
    pub(crate) fn died(&self, row: &Row) -> bool {
        self.ends.contains(&(row.local, row.server))
    }

    /// Whether something excuses that a flow breaks, by `now`. `masters`: when other nodes began to answer for the VIPs.
    pub(crate) fn excuses(
        &self,
        scenario: &Scenario,
        (number, flow): (u32, &FlowRecord),
        now: Duration,
        masters: impl Iterator<Item = u64>,
    ) -> bool {
        if self.lost.contains(&number) {
            return true;
        }
        let Some(opened) = flow.opened.map(|t| t.as_nanos()) else {
            return true;
        };
        let ended = flow.ended.map_or(nanos(now), |t| t.as_nanos());
        let divided = self.divides(opened, ended);
        let mut services = scenario.services.iter();
        let service = services.find(|s| s.vip == flow.spec.target && s.proto == flow.spec.proto);
        let untold_until = match service.map(|s| s.replicate) {
            Some(Replicate::Off) | None => ended,
            Some(Replicate::Established) => flow.established.map_or(ended, |t| {
                t.as_nanos() + nanos(super::judge::told_within(scenario))
            }),
            // Told with its SYN-ACK: who takes over before that gives the client's next SYN to a server of its own choice, which
            // connects it too.
            Some(Replicate::SynAck) => flow.established.map_or(opened, |t| t.as_nanos()),
        };
        let mut masters = masters;
        // Until a client has heard who answers now, its first packets go to who did.
        let heard_within = nanos(heard_within(scenario));
        divided || masters.any(|at| opened < at + heard_within && at < untold_until)
    }

    /// Whether a fault divided the nodes while a flow opened.
    pub(crate) fn divided_opening(&self, flow: &FlowRecord) -> bool {
        flow.opened
            .zip(flow.established)
            .is_some_and(|(opened, established)| self.divides(opened.as_nanos(), established.as_nanos()))
    }

    /// Whether another node began to answer for the VIPs while a flow opened, or so shortly before that its client had not heard
    /// of it: its SYN may have come to two, neither of which tells the other before there is a SYN-ACK.
    pub(crate) fn taken_over_opening(
        scenario: &Scenario,
        flow: &FlowRecord,
        mut masters: impl Iterator<Item = u64>,
    ) -> bool {
        let heard_within = nanos(heard_within(scenario));
        flow.opened
            .zip(flow.established)
            .is_some_and(|(opened, established)| {
                masters.any(|at| opened.as_nanos() < at + heard_within && at < established.as_nanos())
            })
    }

    /// Whether a fault divided the nodes between two times, or shortly before.
    fn divides(&self, from: u64, to: u64) -> bool {
        self.divided.iter().any(|(_, begins, ends)| {
            let settled = ends.map_or(u64::MAX, |ends| nanos(ends + SETTLED_AFTER));
            nanos(*begins) <= to && from <= settled
        })
    }
}

/// An announcement of who answers for the VIPs has reached all clients after so long, over two links each. What a client
/// sends before goes to the node that did.
fn heard_within(scenario: &Scenario) -> Duration {
    let links = &scenario.links.clients;
    let late = scenario.faults.iter().map(|fault| match &fault.action {
        Action::Disturb(_, Network::Clients | Network::All, _, d) if d.reorder_ppm > 0 => d.reorder_by,
        _ => Duration::ZERO,
    });
    let late = late.max().unwrap_or_default();
    let late = late.max(if links.reorder_ppm > 0 {
        REORDERED_BY
    } else {
        Duration::ZERO
    });
    2 * (*links.delay.end() + late)
}

/// Whether a fault may let two nodes serve, or one that has not heard what it should have, or may end flows by itself, as
/// another config does. Of a kind that is not named here that is assumed.
fn divides(action: &Action) -> bool {
    match action {
        Action::Crash(..)
        | Action::Start(..)
        | Action::Resume(_)
        | Action::Drain(_)
        | Action::Heal(..)
        | Action::Look => false,
        // TCP repairs what is lost between nodes and servers.
        Action::Disturb(_, Network::Servers, _, d) if d.arp_ppm == 0 => d.loss_ppm == 1_000_000,
        Action::Disturb(_, _, _, d) => {
            let loss = d.loss_ppm.max(d.corrupt_ppm).max(d.arp_ppm);
            loss > LOSS_HEARD_PPM || !d.delay.is_zero() || d.bandwidth.is_some()
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Disturbance, Fault, NodeRef, Way};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_answers_is_heard_once_the_slowest_announcement_is_there() {
        let mut scenario = crate::swarm::draw(0);
        scenario.links.clients.delay = MS..=10 * MS;
        scenario.links.clients.reorder_ppm = 0;
        scenario.faults.clear();
        assert_eq!(heard_within(&scenario), 20 * MS);
        scenario.links.clients.reorder_ppm = 10_000;
        assert_eq!(heard_within(&scenario), 30 * MS);
        for (network, within) in [(Network::Sync, 30 * MS), (Network::Clients, 80 * MS)] {
            let late = Disturbance {
                reorder_ppm: 1,
                reorder_by: 30 * MS,
                ..Disturbance::default()
            };
            let mut fault: Fault = crate::swarm::draw(0).faults.remove(0);
            fault.action = Action::Disturb(NodeRef::Master, network, Way::Both, late);
            scenario.faults = vec![fault];
            assert_eq!(heard_within(&scenario), within);
        }
    }
}
