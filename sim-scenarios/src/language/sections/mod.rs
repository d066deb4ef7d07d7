//! The sections of a scenario: from the tree to plain data.

mod cluster;
mod counter_proof;
mod expect;
mod fault;
mod hosts;
mod load;
mod router;
mod service;

pub(crate) use counter_proof::counter_proof;
use counter_proof::read_off;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_control::reading::{Field, Finding, Findings, Need, Schema, Span, Table, nearest, shown};
use evenkeel_control::{Bad, Code, Problem};
use evenkeel_io_sim::WorldBounds;
use toml::de::DeTable;

use super::limits::{self, Limit};
use super::{check, schema, value};
use crate::scenario::{DURATION_MAX, Hosts, Links, NodeRef, Scenario};

const SWITCH: [(&str, bool); 2] = [("on", true), ("off", false)];

/// Where the parts of a fault stand; what is not written stands where its header does.
#[derive(Debug)]
pub(crate) struct FaultPlaces {
    pub(crate) header: Span,
    pub(crate) at: Span,
    pub(crate) lasts: Span,
    /// Of `bucket`, `worker` or `server`.
    pub(crate) part: Span,
    /// Nodes that it is about.
    pub(crate) nodes: Vec<(NodeRef, Span)>,
}

/// Where things stand in the text, for checks that need several of them.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) quiet: Span,
    /// Of `[cluster]`.
    pub(crate) cluster: Span,
    pub(crate) local_addresses: Span,
    /// Of the elements of `delays`: names of links.
    pub(crate) delays: Vec<(String, Span)>,
    /// By node, where its priority is written, or its table.
    pub(crate) priorities: Vec<Span>,
    /// Of each network: where its VLAN is written.
    pub(crate) vlans: [Span; 3],
    pub(crate) services: Vec<Span>,
    /// There are services that cannot be read: how many servers they have is not known.
    pub(crate) services_refused: bool,
    pub(crate) loads: Vec<Span>,
    pub(crate) faults: Vec<FaultPlaces>,
    /// There are faults that cannot be read: what the others do without them is not known.
    pub(crate) faults_refused: bool,
    pub(crate) expects: Vec<Span>,
    /// There are expectations that cannot be read.
    pub(crate) expects_refused: bool,
    /// There is no `[[expect]]` at all, not even one that cannot be read.
    pub(crate) no_expect: bool,
}

/// Names of one kind, each once.
#[derive(Default)]
struct Names {
    known: BTreeMap<String, (usize, Span)>,
    /// Of what was refused for something else: who names it is not wrong.
    refused: BTreeSet<String>,
    /// Something was refused whose name is not known: it may be any.
    any_refused: bool,
}

impl Names {
    /// Stands for what was refused: nothing has this place.
    const REFUSED: usize = usize::MAX;

    /// What is refused, with its name if that can be read.
    fn refuse(&mut self, name: Option<String>) {
        match name {
            Some(name) => drop(self.refused.insert(name)),
            None => self.any_refused = true,
        }
    }

    fn add(&mut self, name: String, span: Span, findings: &mut Findings) {
        let n = self.known.len();
        if let Some((_, first)) = self.known.get(&name) {
            let message = format!("the name \"{}\" stands there twice", shown(&name));
            let finding = Finding::new(Code::Duplicate, span, message, "give one of them another name");
            findings.push(
                finding
                    .label("the second one")
                    .other(first.clone(), "the first one"),
            );
        } else {
            self.known.insert(name, (n, span));
        }
    }

    fn find(&self, name: &str, what: &str) -> Result<usize, Bad> {
        if let Some((n, _)) = self.known.get(name) {
            return Ok(*n);
        }
        if self.any_refused || self.refused.contains(name) {
            return Ok(Names::REFUSED);
        }
        let all = || self.known.keys().chain(&self.refused);
        let help = match nearest(name, all().map(String::as_str)) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None if all().next().is_none() => format!("there is no {what} above this one"),
            None => {
                let known: Vec<_> = all().take(20).map(|n| format!("\"{n}\"")).collect();
                format!("known: {}", known.join(", "))
            }
        };
        Err(Bad::new(
            Code::BadValue,
            format!("no {what} is called \"{}\"", shown(name)),
            help,
        ))
    }
}

fn count(table: &Table<'_, '_>, limit: Limit, findings: &mut Findings) -> Option<u32> {
    let field = table.integer(limit.key, limit.min..=limit.max, findings);
    field.map(|f| f.value)
}

fn span(
    table: &Table<'_, '_>,
    key: &'static str,
    need: Need,
    findings: &mut Findings,
) -> Option<Field<Duration>> {
    table.parsed(key, need, value::span, findings)
}

fn description(table: &Table<'_, '_>, findings: &mut Findings) -> String {
    let filled = |text: &str| match text.trim() {
        "" => Err(empty("say in a sentence what happens and what must come out")),
        text => Ok(text.to_owned()),
    };
    let text = table.parsed("description", Need::Required, filled, findings);
    text.map_or_else(String::new, |t| t.value)
}

fn empty(help: &str) -> Bad {
    Bad::new(Code::BadValue, "it is empty", help)
}

/// Text that is printed as it is, in a line: it neither ends that line nor steers a terminal, and so forges no other one.
fn one_line(text: &str) -> Result<String, Bad> {
    // These end a line for some readers, though not for a terminal.
    let breaks = text.contains(['\u{2028}', '\u{2029}']);
    if breaks || Problem::shown_name(text) != text {
        let message = format!("\"{}\" has characters that are not shown", shown(text));
        let help = "leave out control characters, ends of lines and what turns the direction of writing";
        return Err(Bad::new(Code::BadValue, message, help));
    }
    match text.trim() {
        "" => Err(empty("write something, or leave it out")),
        _ => Ok(text.to_owned()),
    }
}

/// A whole scenario.
pub(crate) fn scenario(tree: &DeTable<'_>, findings: &mut Findings) -> Option<Scenario> {
    let root = Table::new(&schema::ROOT, schema::ALL, 0..0, tree, findings);
    let name = root.parsed("name", Need::Required, value::name, findings);
    let number = count(&root, limits::NUMBER, findings);
    let description = description(&root, findings);
    let waits_for = root.parsed("waits_for", Need::Optional, one_line, findings);
    let sub = |key, schema: &'static Schema, findings: &mut Findings| {
        root.table(key, schema, schema::ALL, findings)
    };
    let off = sub("off", &schema::OFF, findings);
    if let Some(off) = off.as_ref().filter(|off| !off.has("base")) {
        let help = "a counter-proof is a file of its own, with `base` and `[off]`";
        findings.push(Finding::new(
            Code::NoEffect,
            off.span.clone(),
            "`[off]` without `base`",
            help,
        ));
    }
    if root.has("waits_for") && tree.get("cluster").is_none() {
        // An entry of the list: nothing else is known of it yet.
        return Some(Scenario {
            name: name?.value,
            number,
            description,
            waits_for: Some(waits_for?.value),
            seed: None,
            ties: None,
            duration: Duration::ZERO,
            quiet: Duration::ZERO,
            bounds: WorldBounds::default(),
            cluster: cluster::cluster(None, &mut Places::default(), findings),
            router: None,
            links: Links::default(),
            hosts: Hosts::default(),
            services: Vec::new(),
            loads: Vec::new(),
            faults: Vec::new(),
            expects: Vec::new(),
            off: None,
        });
    }
    let mut places = Places {
        quiet: root.span_of("quiet"),
        ..Places::default()
    };
    let duration = root.parsed(
        "duration",
        Need::Required,
        |text| {
            let duration = value::span(text)?;
            if duration.is_zero() || duration > DURATION_MAX {
                let message = format!(
                    "\"{}\" is too {}",
                    shown(text),
                    if duration.is_zero() { "short" } else { "long" }
                );
                return Err(Bad::new(
                    Code::OutOfRange,
                    message,
                    "write more than \"0s\" and \"1h\" at most",
                ));
            }
            Ok(duration)
        },
        findings,
    );
    let quiet = span(&root, "quiet", Need::Optional, findings).map_or(Duration::from_secs(2), |f| f.value);
    let bounds = bounds(&root, findings);
    let mut number_of = |key| {
        root.parsed(key, Need::Optional, value::seed, findings)
            .map(|f| f.value)
    };
    let (seed, ties) = (number_of("seed"), number_of("ties"));
    let table = sub("cluster", &schema::CLUSTER, findings);
    let cluster = cluster::cluster(table.as_ref(), &mut places, findings);
    let links = cluster::links(sub("links", &schema::LINKS, findings), &mut places, findings);
    let router = router::router(sub("router", &schema::ROUTER, findings), findings);
    let hosts = hosts::hosts(sub("hosts", &schema::HOSTS, findings), findings);
    let (services, service_names) = service::services(&root, &mut places, findings);
    let (loads, load_names) = load::loads(&root, &services, &service_names, &mut places, findings);
    let faults = fault::faults(&root, &service_names, &mut places, findings);
    let expects = expect::expects(&root, &load_names, &mut places, findings);
    let may_hang = root.choice("may_hang", Need::Optional, &SWITCH, findings);
    let mut scenario = Scenario {
        name: name?.value,
        number,
        description,
        waits_for: waits_for.map(|w| w.value),
        seed,
        ties,
        duration: duration?.value,
        quiet,
        bounds,
        cluster,
        router,
        links,
        hosts,
        services,
        loads,
        faults,
        expects,
        off: None,
    };
    check::scenario(&scenario, &places, findings);
    if !may_hang.is_some_and(|m| m.value) {
        scenario.expects.extend(crate::expect::implied(&scenario.expects));
    }
    if scenario.faults.iter().any(|f| f.when.is_some() && !f.optional) {
        let triggers = crate::expect::implied_of_triggers(&scenario.expects);
        scenario.expects.extend(triggers);
    }
    // The plan of a counter-proof stands alone: what it disproves is only named.
    if let Some(table) = off.filter(|off| off.has("base")) {
        let base = table.parsed("base", Need::Required, one_line, findings)?;
        let off = read_off(&table, &base.value, &scenario, &places, findings);
        scenario.off = off.map(|off| off.value);
        if findings.is_empty() && scenario.off.is_some() {
            check::without_mechanism(&scenario, &table.span_of("mechanism"), findings);
        }
    }
    Some(scenario)
}

/// How much a run may do and hold.
fn bounds(root: &Table<'_, '_>, findings: &mut Findings) -> WorldBounds {
    let default = WorldBounds::default();
    let events = count(root, limits::EVENTS_MAX, findings);
    let memory = count(root, limits::MEMORY_MIB, findings);
    WorldBounds {
        events: events.map_or(default.events, u64::from),
        memory_bytes: memory.map_or(default.memory_bytes, |mib| u64::from(mib) << 20),
    }
}

/// A list that is written, but holds nothing; what is left out is another thing.
fn empty_list(table: &Table<'_, '_>, key: &'static str, help: &str, findings: &mut Findings) {
    let message = format!("`{key}` is empty");
    findings.push(Finding::new(Code::BadValue, table.span_of(key), message, help));
}
