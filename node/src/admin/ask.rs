//! How the threads that know something are asked: the control side by a bounded queue, a worker by a look between two
//! of its bursts. Nobody waits for ever, and nobody who is asked waits at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use evenkeel_core::cluster::{
    Alarm, Control, GroupId, GroupReport, NodeCommand, NodeCounters, PeerId, PeerReport,
};
use evenkeel_core::sched::SchedulerKind;
use evenkeel_core::service::{RealServerId, ServiceId, ServiceSpec};
use evenkeel_core::sync::{Readiness, ReceiverCounters};
use evenkeel_core::time::Instant;
use evenkeel_core::tuple::Family;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::clock;
use crate::health::{CheckStats, Checks};
use crate::lane::{Lane, Look, Seen};
use crate::ports::{PortView, Ports};
use crate::serving::Serving;

/// Questions that wait for the control side.
pub(crate) const ASK_COUNT: usize = 32;
/// So long an answer is waited for.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(1);

/// A question to the control side.
#[derive(Debug)]
pub(crate) enum Ask {
    /// What it knows.
    View(oneshot::Sender<ControlView>),
    /// What it serves.
    Services(oneshot::Sender<Vec<ServiceView>>),
    /// What the operator wants.
    Command(NodeCommand, oneshot::Sender<Result<(), Unable>>),
}

/// Why the control side does not do what the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unable {
    /// There is no cluster.
    Alone,
    /// The node is asked to end.
    Ending,
    /// There is no virtual router.
    NoRouter,
    /// It does not serve.
    NotServing,
}

/// A service of the config.
#[derive(Clone, Debug)]
pub(crate) struct ServiceView {
    pub(super) id: ServiceId,
    pub(super) scheduler: SchedulerKind,
    /// Servers that are checked.
    pub(super) checked: BTreeSet<RealServerId>,
    /// Servers that their checks found down.
    pub(super) down: BTreeSet<RealServerId>,
    /// Servers whose last check could not be made, and why.
    pub(super) not_made: BTreeMap<RealServerId, String>,
}

/// The services of a control side.
pub(crate) fn services(serving: &Serving, checks: &Checks) -> Vec<ServiceView> {
    let services = serving.spec().services.iter();
    let view = |service: &ServiceSpec| {
        let servers = || service.servers.iter().map(|server| server.id);
        ServiceView {
            id: service.id,
            scheduler: service.scheduler,
            checked: servers()
                .filter(|server| checks.has(service.id, *server))
                .collect(),
            down: servers()
                .filter(|server| !serving.is_up(service.id, *server))
                .collect(),
            not_made: servers()
                .filter_map(|server| Some((server, checks.not_made(service.id, server)?)))
                .collect(),
        }
    };
    services.map(view).collect()
}

/// What the control side knows.
#[derive(Clone, Debug)]
pub(crate) struct ControlView {
    /// The node was asked to end.
    pub(crate) ending: bool,
    /// What health checks counted.
    pub(crate) checks: CheckStats,
    /// `None`: there is no cluster.
    pub(crate) cluster: Option<ClusterView>,
    /// The data ports.
    pub(crate) ports: Vec<PortView>,
}

/// A node's part in its cluster.
#[derive(Clone, Debug)]
pub(crate) struct ClusterView {
    pub(super) at: Instant,
    pub(super) me: PeerId,
    pub(super) readiness: Readiness,
    pub(super) serving: bool,
    pub(super) draining: bool,
    pub(super) drained: bool,
    pub(super) promoted: bool,
    pub(super) virtual_router: bool,
    /// IPv4 and IPv6.
    pub(super) master: [bool; 2],
    pub(super) answering: Vec<IpAddr>,
    pub(super) creating: Option<GroupId>,
    pub(super) lease_until: Option<Instant>,
    pub(super) peers: Vec<PeerReport>,
    pub(super) groups: Vec<GroupReport>,
    pub(super) alarms: Vec<Alarm>,
    pub(super) counters: NodeCounters,
    pub(super) receiver: ReceiverCounters,
}

impl ControlView {
    /// Of a control side that was asked to end, or not.
    pub(crate) fn of(control: Option<&Control>, checks: CheckStats, ending: bool, ports: &Ports) -> Self {
        ControlView {
            ending,
            checks,
            ports: ports.views(),
            cluster: control.map(ClusterView::of),
        }
    }
}

impl ClusterView {
    fn of(control: &Control) -> Self {
        let core = control.core();
        ClusterView {
            at: clock::now(),
            me: core.id(),
            readiness: core.readiness(),
            serving: core.is_serving(),
            draining: core.is_draining(),
            drained: core.is_drained(),
            promoted: core.is_promoted(),
            virtual_router: core.has_virtual_router(),
            master: [Family::V4, Family::V6].map(|family| core.is_master(family)),
            answering: core.answering().addrs.iter().map(|(addr, _)| *addr).collect(),
            creating: core.creating(),
            lease_until: core.lease_until(),
            peers: core.peer_reports().collect(),
            groups: core.group_reports().collect(),
            alarms: core.alarms().collect(),
            counters: *core.counters(),
            receiver: *control.receiver().counters(),
        }
    }
}

/// Whether the control side may carry out a command now.
pub(crate) fn able(control: Option<&Control>, ending: bool, command: NodeCommand) -> Result<(), Unable> {
    let core = control.ok_or(Unable::Alone)?.core();
    if ending {
        return Err(Unable::Ending);
    }
    if command == NodeCommand::Promote {
        if !core.has_virtual_router() {
            return Err(Unable::NoRouter);
        }
        if !core.is_serving() || core.is_draining() {
            return Err(Unable::NotServing);
        }
    }
    Ok(())
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// As many questions wait as may.
    Busy,
    /// It did not come in time.
    Late,
}

/// Asks the control side.
pub(super) async fn control<T>(
    asks: &mpsc::Sender<Ask>,
    within: Duration,
    ask: impl FnOnce(oneshot::Sender<T>) -> Ask,
) -> Result<T, Silence> {
    let (sender, answer) = oneshot::channel();
    asks.try_send(ask(sender)).map_err(|_| Silence::Busy)?;
    answered(within, answer).await
}

/// Looks at a worker. What is computed there takes little time, and allocates nothing.
pub(super) async fn worker<T: Send + 'static>(
    lane: &Lane,
    within: Duration,
    look: impl FnOnce(&Seen<'_>) -> T + Send + 'static,
) -> Result<T, Silence> {
    let (sender, answer) = oneshot::channel();
    let look: Look = Box::new(move |seen: &Seen<'_>| {
        // Nobody waits any more: nothing is done.
        if !sender.is_closed() {
            let _ = sender.send(look(seen));
        }
    });
    if !lane.look(look) {
        return Err(Silence::Busy);
    }
    answered(within, answer).await
}

async fn answered<T>(within: Duration, answer: oneshot::Receiver<T>) -> Result<T, Silence> {
    match timeout(within, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(Silence::Late),
    }
}
