//! A config that was read and found right.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_core::conn::TableSizes;
use evenkeel_core::lport::Steering;
use evenkeel_core::service::{SERVER_COUNT_MAX, SERVICE_COUNT_MAX, Snapshot, SnapshotSpec};

use crate::cluster::{self, Cluster, Trust};
use crate::daemon::DaemonConfig;
use crate::health::HealthConfig;
use crate::io::IoConfig;
use crate::problem::{Code, ConfigErrors, Finding, Findings, Problem};
use crate::sections::{self, Draft};
use crate::{Ids, TEXT_LEN_MAX, check, syntax};

/// A checked config.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the source, as given to [`parse`].
    pub name: String,
    /// Workers of the node, 1 to [`WORKER_COUNT_MAX`](crate::WORKER_COUNT_MAX).
    pub workers: u8,
    /// Sizes of the table of each worker.
    pub sizes: TableSizes,
    /// RSS key, of which `steering` is made; for the NIC.
    pub rss_key: Vec<u8>,
    /// RSS key and buckets.
    pub steering: Arc<Steering>,
    /// Smallest local port that is given to a conn. Every bucket has at least eight from there on.
    pub local_port_min: u16,
    /// What `snapshot` is made of.
    pub spec: SnapshotSpec,
    /// The cluster that the node is one of; `None`: it is on its own.
    pub cluster: Option<Cluster>,
    /// Driver and devices.
    pub io: IoConfig,
    /// What the daemon is told that the engine is not.
    pub daemon: DaemonConfig,
    /// How the servers of each service are checked, by its place in `spec.services`; `None`: they are not.
    pub health: Vec<Option<HealthConfig>>,
    /// What workers read.
    pub snapshot: Arc<Snapshot>,
    /// What is allowed but will not work as it may be meant; at most
    /// [`PROBLEM_COUNT_MAX`](crate::PROBLEM_COUNT_MAX), in the order of the text.
    pub warnings: Vec<Problem>,
    /// Warnings beyond these.
    pub warnings_omitted: usize,
    /// Gateways and real servers whose link-layer address the config does not say. Who is on the network asks for it;
    /// who has a capture alone cannot. As many as of `warnings`.
    pub unresolved: Vec<Problem>,
    /// Such beyond these.
    pub unresolved_omitted: usize,
}

impl Config {
    /// Bytes that the tables of all workers take.
    pub fn table_bytes(&self) -> u64 {
        self.sizes.bytes() as u64 * u64::from(self.workers)
    }

    /// The sections in which `new` differs in what is fixed while a node runs; empty if workers can take
    /// its snapshot as it is. Of a port these are name, device, tap, MAC address and MTU; of a cluster all, and the
    /// VIPs belong to it.
    pub fn restart_needed(&self, new: &Config) -> Vec<&'static str> {
        let rss = |c: &Config| (c.rss_key.clone(), c.steering.buckets());
        let ports = |c: &Config| -> Vec<_> {
            let of_spec = c.spec.ports.iter().map(|p| (p.name.clone(), p.mac, p.mtu));
            of_spec.zip(c.io.devices.clone()).collect()
        };
        let io = |c: &Config| IoConfig {
            devices: Vec::new(),
            ..c.io.clone()
        };
        // Secrets change while a node runs. That there are any does not.
        let cluster = |c: &Config| {
            let mut of = c.cluster.clone();
            if let Some(Trust::Secrets(files)) = of.as_mut().map(|c| &mut c.trust) {
                files.clear();
            }
            of
        };
        let differs = [
            ("workers", self.workers != new.workers),
            ("table", self.sizes != new.sizes),
            ("rss", rss(self) != rss(new)),
            ("local_ports", self.local_port_min != new.local_port_min),
            ("io", io(self) != io(new)),
            ("daemon", self.daemon != new.daemon),
            ("port", ports(self) != ports(new)),
            ("cluster", cluster(self) != cluster(new)),
        ];
        differs.into_iter().filter(|d| d.1).map(|d| d.0).collect()
    }
}

/// Reads the config `text`; `name` is what errors call it. All errors are reported, not the first only; but
/// if the text is not TOML, only that.
pub fn parse(name: &str, text: &str) -> Result<Config, ConfigErrors> {
    parse_with(name, text, &mut Ids::new())
}

/// As [`parse`], with ids of services and real servers that `ids` remembers. It remembers those of this
/// config too, unless the config is refused.
pub fn parse_with(name: &str, text: &str, ids: &mut Ids) -> Result<Config, ConfigErrors> {
    parse_as(name, text, None, ids)
}

/// As [`parse_with`], for this `node` of the cluster (its name, or its number), whatever the text says of which one it
/// is for.
pub fn parse_as(name: &str, text: &str, node: Option<&str>, ids: &mut Ids) -> Result<Config, ConfigErrors> {
    let mut findings = Findings::default();
    if text.len() > TEXT_LEN_MAX {
        let message = format!("{} bytes of config", text.len());
        let help = format!("at most {TEXT_LEN_MAX} are read");
        findings.push(Finding::new(Code::TooLarge, 0..0, message, help).label("too large"));
        // The report does not carry the text.
        return Err(findings.into_errors(name, ""));
    }
    let Some(tree) = syntax::tree(&sections::ROOT, text, &mut findings) else {
        return Err(findings.into_errors(name, text));
    };
    let mut draft = sections::draft(&tree, node, &mut findings);
    drop(tree);

    let steering = check::steering(&draft, &mut findings);
    check::tables(&draft, &mut findings);
    check::next_hops(&draft, &mut findings);
    let mut new_ids = ids.clone();
    let interned = intern(&mut draft, &mut new_ids, &mut findings);
    let snapshot = interned.and_then(|()| check::snapshot(&draft, &mut findings));
    let cluster = cluster::check(&draft, &mut findings);
    let (Some(steering), Some(snapshot), true) = (steering, snapshot, findings.is_empty()) else {
        return Err(findings.into_errors(name, text));
    };
    *ids = new_ids;
    let (mut warnings, mut unresolved) = (Findings::default(), Findings::default());
    check::warnings(&draft, &snapshot, &mut warnings, &mut unresolved);
    let (warnings, warnings_omitted) = warnings.finish(name, text);
    let (unresolved, unresolved_omitted) = unresolved.finish(name, text);
    Ok(Config {
        name: name.to_owned(),
        workers: draft.workers.value,
        sizes: draft.sizes,
        rss_key: draft.rss_key.value,
        steering,
        local_port_min: draft.local_port_min.value,
        spec: draft.spec,
        cluster,
        io: draft.io,
        daemon: draft.daemon,
        health: draft.health,
        snapshot: Arc::new(snapshot),
        warnings,
        warnings_omitted,
        unresolved,
        unresolved_omitted,
    })
}

/// Gives every service and real server its id. `None` if there are not enough: reported.
fn intern(draft: &mut Draft, ids: &mut Ids, findings: &mut Findings) -> Option<()> {
    let services = &mut draft.spec.services;
    let servers: usize = services.iter().map(|s| s.servers.len()).sum();
    if services.len() > SERVICE_COUNT_MAX || servers > SERVER_COUNT_MAX {
        // Core says so, and looks at nothing else.
        return Some(());
    }
    let exhausted = |span, what: &str, max: usize| {
        let message = format!("all {max} ids of {what} are in use");
        let help = "removed ones keep theirs while connections remember them: reload when these are gone, or restart";
        Finding::new(Code::IdsExhausted, span, message, help).label("no id for this one")
    };
    // The second one of two equal elements is an error, reported elsewhere: it gets an id of its own, lest
    // core report the id too. Port 0 is nobody's.
    let mut seen = BTreeSet::new();
    for (i, (service, place)) in services.iter_mut().zip(&draft.places.services).enumerate() {
        let mut key = (service.vip, service.port, service.proto);
        if !seen.insert(key) {
            key = (sections::stand_in(i).ip(), 0, service.proto);
        }
        let Some(id) = ids.service(key) else {
            findings.push(exhausted(place.whole.clone(), "services", SERVICE_COUNT_MAX));
            return None;
        };
        service.id = id;
        let mut ends = BTreeSet::new();
        for (j, (server, place)) in service.servers.iter_mut().zip(&place.servers).enumerate() {
            let mut end = SocketAddr::new(server.addr, server.port);
            if !ends.insert(end) {
                end = SocketAddr::new(sections::stand_in(j).ip(), 0);
            }
            let Some(id) = ids.server(key, end) else {
                findings.push(exhausted(place.address.clone(), "real servers", SERVER_COUNT_MAX));
                return None;
            };
            server.id = id;
        }
    }
    Some(())
}
