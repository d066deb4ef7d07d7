//! What a run says in the end: plain data, which serialized is its JSON; and as text, as a page of
//! HTML, as JUnit's XML and as annotations of a CI.

mod annotations;
mod html;
mod junit;
mod text;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use evenkeel_control::Problem;
use serde::{Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::expect::{Failure, Measures, Metric};
use crate::run::record::Record;
use crate::scenario::Scenario;

pub use annotations::{ANNOTATION_COUNT_MAX, Annotations};
pub use html::PAGE_LEN_MAX;
pub use junit::{FAILURES_TOLD_MAX, JUnit, SWARM};

/// The command that runs the scenario with that seed again; `file` is how the scenario was named.
pub fn replay(file: &str, seed: u64) -> String {
    let again = match file {
        "-" => " (with the same text on standard input)",
        _ => "",
    };
    format!("evenkeel sim run {} --seed {seed}{again}", quoted(file))
}

/// The name of a file as a shell reads it: one word, of which nothing is run or taken for an option, in one line.
pub fn quoted(file: &str) -> String {
    let file = match file.strip_prefix('-') {
        Some(rest) if !rest.is_empty() => format!("./{file}"),
        _ => file.to_owned(),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+=".contains(c);
    if !file.is_empty() && file.chars().all(is_plain) {
        return file;
    }
    if Problem::shown_name(&file) == file && !file.contains(['\u{2028}', '\u{2029}']) {
        return format!("'{}'", file.replace('\'', "'\\''"));
    }
    // What steers a terminal is written by its bytes, as bash, zsh and others read it.
    let mut out = String::from("$'");
    for byte in file.bytes() {
        match byte {
            b'\'' | b'\\' => out.extend(['\\', byte.into()]),
            b' '..=b'~' => out.push(byte.into()),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out + "'"
}
use text::Text;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All held.
    Pass,
    /// Something failed.
    Fail,
    /// A counter-proof: what was declared to fail failed, and nothing else.
    FailedAsDeclared,
    /// A counter-proof that proves nothing: something that was declared to fail held, or something else failed.
    NoProof,
}

impl Outcome {
    /// Judges the failures of a run.
    pub(crate) fn of(scenario: &Scenario, failures: &[Failure]) -> Outcome {
        let Some(off) = &scenario.off else {
            return if failures.is_empty() {
                Outcome::Pass
            } else {
                Outcome::Fail
            };
        };
        let failed = |name: &String| failures.iter().any(|f| f.name == *name);
        let began = failures
            .iter()
            .filter(|f| off.fails.contains(&f.name))
            .map(|f| f.at_ns)
            .min();
        let follows = |f: &Failure| off.follows.contains(&f.name) && began.is_some_and(|at| at <= f.at_ns);
        let declared = |f: &Failure| off.fails.contains(&f.name) || follows(f) || f.unmeasured;
        if off.fails.iter().all(failed) && failures.iter().all(declared) {
            Outcome::FailedAsDeclared
        } else {
            Outcome::NoProof
        }
    }

    /// Whether it is what the scenario is for.
    pub const fn is_good(&self) -> bool {
        matches!(self, Outcome::Pass | Outcome::FailedAsDeclared)
    }
}

/// The distribution of stalls: of each connected flow its longest time from a request to the whole reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// In nanoseconds: least, median, 90th and 99th of a hundred, greatest.
    pub ns: [u64; 5],
}

/// Milliseconds with three digits behind the point: no float is computed with.
pub(crate) fn ms(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000, ns % 1_000_000 / 1_000)
}

/// `12.345678901 s`.
pub(crate) fn seconds(ns: u64) -> String {
    format!("{}.{:09} s", ns / 1_000_000_000, ns % 1_000_000_000)
}

struct Ms(u64);

impl Serialize for Ms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1e6)
    }
}

impl Serialize for Stall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(5))?;
        for (key, ns) in ["min", "p50", "p90", "p99", "max"].into_iter().zip(self.ns) {
            map.serialize_entry(key, &Ms(ns))?;
        }
        map.end()
    }
}

fn hex<S: Serializer>(digest: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{digest:032x}"))
}

fn maybe_ms<S: Serializer>(ns: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    ns.map(Ms).serialize(serializer)
}

/// Flows that a report names, at most.
pub const BROKEN_FLOWS_MAX: usize = 10;

/// A flow that broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BrokenFlow {
    /// Its number in the run.
    pub flow: u32,
    /// The client's tuple.
    pub tuple: String,
    /// The number of its server, if it was connected.
    pub server: Option<u32>,
    /// In one word.
    pub why: &'static str,
    /// Since when it waited for something, if it did.
    pub waiting_since_ns: Option<u64>,
    /// When it was over.
    pub at_ns: u64,
}

impl fmt::Display for BrokenFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flow {}, {}", self.flow, self.tuple)?;
        if let Some(server) = self.server {
            write!(f, ", server {server}")?;
        }
        write!(f, ": {} at {}", self.why, seconds(self.at_ns))?;
        match self.waiting_since_ns {
            Some(since) => write!(f, ", waiting since {}", seconds(since)),
            None => Ok(()),
        }
    }
}

/// The result of a run. Serialized, a key is never taken away or given another meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Name.
    pub scenario: String,
    /// Seed.
    pub seed: u64,
    /// Whether it is what the scenario is for.
    pub pass: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// The mechanism that is off.
    pub off: Option<&'static str>,
    /// 128 bits over all frames and events, in hexadecimal digits.
    #[serde(serialize_with = "hex")]
    pub digest: u128,
    /// Flows that were opened.
    pub connections: u64,
    /// Of these: connected.
    pub established: u64,
    /// Flows that were connected when the first fault began, and not over.
    pub live_at_fault: u64,
    /// Of these: those whose session another node had.
    pub replicated: u64,
    /// Flows that were connected, and broke.
    pub broken: u64,
    /// Flows that broke before they were connected.
    pub failed: u64,
    /// Flows that wait at the end for what they asked for before the quiet.
    pub hanging: u64,
    /// Flows that broke, failed or hang, or are back though they were over, and are excused: by what excuses them. A fault that
    /// divided the nodes is called by its name.
    pub excused: BTreeMap<String, u64>,
    /// Of the broken and the failed ones the first [`BROKEN_FLOWS_MAX`], in the order of their ends.
    pub broken_flows: Vec<BrokenFlow>,
    /// Stalls; `None`: no flow was connected.
    pub stall_ms: Option<Stall>,
    /// From the first fault until another node answered for the VIPs.
    #[serde(serialize_with = "maybe_ms", rename = "detection_ms")]
    pub detection_ns: Option<u64>,
    /// Packets that the engine dropped, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Frames and messages that links, rings and queues lost, by reason: these the engine never saw.
    pub lost: BTreeMap<&'static str, u64>,
    /// Local ports that were probed and found in use.
    pub probes: u64,
    /// Messages between nodes by kind, their frames and bytes.
    pub sync: BTreeMap<&'static str, u64>,
    /// What nodes counted of replication.
    pub counts: BTreeMap<&'static str, u64>,
    /// Situations in which nodes were, by name.
    #[serde(skip)]
    pub situations: BTreeMap<&'static str, u64>,
    /// Frames between nodes of which something was kept back.
    pub kept_back: u64,
    /// Events that happened.
    pub events: u64,
    /// Frames that arrived at the end of a link.
    pub hops: u64,
    /// The most bytes that the run held at a time, as its bound counts them.
    pub memory_bytes: u64,
    /// Simulated time.
    #[serde(skip)]
    pub duration_ns: u64,
    /// Faults as they happened.
    pub timeline: Vec<(u64, String)>,
    /// What did not hold.
    pub failures: Vec<Failure>,
    /// What pictures are drawn from, if it was asked for.
    #[serde(skip)]
    pub(crate) record: Option<Box<Record>>,
}

impl Report {
    /// A report of what was measured; the rest is empty.
    pub(crate) fn new(scenario: &Scenario, seed: u64, measures: &Measures) -> Report {
        let count = |metric| {
            measures
                .value(metric)
                .and_then(|v| u64::try_from(v).ok())
                .unwrap_or(0)
        };
        let mut stalls: Vec<u64> = measures
            .flows
            .iter()
            .filter(|f| f.established)
            .map(|f| f.stall_ns)
            .collect();
        stalls.sort_unstable();
        let rank = |hundredths: usize| {
            stalls
                .get((stalls.len().saturating_sub(1)) * hundredths / 100)
                .copied()
        };
        let stall = [0, 50, 90, 99, 100].map(|h| rank(h).unwrap_or(0));
        Report {
            scenario: scenario.name.clone(),
            seed,
            pass: false,
            outcome: Outcome::Fail,
            off: scenario.off.as_ref().map(|o| o.mechanism.name()),
            digest: 0,
            connections: count(Metric::Connections),
            established: count(Metric::Established),
            live_at_fault: count(Metric::LiveAtFault),
            replicated: count(Metric::Replicated),
            broken: count(Metric::Broken),
            failed: count(Metric::Failed),
            hanging: count(Metric::Hanging),
            excused: BTreeMap::new(),
            broken_flows: Vec::new(),
            stall_ms: (!stalls.is_empty()).then_some(Stall { ns: stall }),
            detection_ns: measures
                .value(Metric::Detection)
                .and_then(|v| u64::try_from(v).ok()),
            drops: BTreeMap::new(),
            lost: BTreeMap::new(),
            probes: count(Metric::Probes),
            sync: BTreeMap::new(),
            counts: BTreeMap::new(),
            situations: BTreeMap::new(),
            kept_back: 0,
            events: 0,
            hops: 0,
            memory_bytes: 0,
            duration_ns: measures.end_ns,
            timeline: Vec::new(),
            failures: Vec::new(),
            record: None,
        }
    }

    /// `pass` as `outcome` says it.
    pub(crate) fn judged(mut self) -> Report {
        self.pass = self.outcome.is_good();
        self
    }

    /// The command that replays it; `file` is how the scenario was named.
    pub fn replay(&self, file: &str) -> String {
        replay(file, self.seed)
    }

    /// The report as one page of HTML, of [`PAGE_LEN_MAX`] bytes at most; `None`: nothing was recorded. `scenario` is the one
    /// that was run, `file` is how it was named.
    pub fn html(&self, scenario: &Scenario, file: &str) -> Option<String> {
        Some(html::page(self, self.record.as_deref()?, scenario, file))
    }

    /// The text of the report; `file` is how the scenario was named, for the command that replays it.
    pub fn text<'r>(&'r self, file: &'r str) -> impl fmt::Display + 'r {
        Text { report: self, file }
    }
}

/// Digits of a commit's hash from which seeds are drawn: those of its shortest form.
pub const COMMIT_LEN_MIN: usize = 7;

/// `n` seeds drawn from the first [`COMMIT_LEN_MIN`] digits of the hash of a commit: the same however much of it is
/// given, others for another one.
pub fn seeds_from(commit: &str, n: u32) -> Vec<u64> {
    let commit = commit.get(..COMMIT_LEN_MIN).unwrap_or(commit);
    (0..u64::from(n))
        .map(|i| xxh3_64_with_seed(commit.as_bytes(), i))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_a_shell_reads_them() {
        for (file, quoted) in [
            ("a/b-1.toml", "a/b-1.toml"),
            ("-", "-"),
            ("-x.toml", "./-x.toml"),
            ("-x y", "'./-x y'"),
            ("a b.toml", "'a b.toml'"),
            ("$(touch x).toml", "'$(touch x).toml'"),
            ("it's.toml", "'it'\\''s.toml'"),
            ("~/ä.toml", "'~/ä.toml'"),
            ("a\n::stop-commands::'x\\", "$'a\\x0a::stop-commands::\\'x\\\\'"),
            ("\u{202e}a", "$'\\xe2\\x80\\xaea'"),
            ("", "''"),
        ] {
            assert_eq!(super::quoted(file), quoted);
        }
        assert_eq!(replay("a b", 7), "evenkeel sim run 'a b' --seed 7");
    }

    #[test]
    fn seeds_of_a_commit_are_its_own() {
        let a = seeds_from("0123abc", 50);
        assert_eq!(a, seeds_from("0123abc", 50));
        assert_eq!(a[..10], seeds_from("0123abc", 10));
        let full = "0123abcdef0123abcdef0123abcdef0123abcdef";
        assert_eq!(a, seeds_from(full, 50), "a prefix names the same commit");
        let b = seeds_from("0123abd", 50);
        assert!(a.iter().all(|s| !b.contains(s)));
    }

    #[test]
    fn a_counter_proof_fails_as_declared_or_proves_nothing() {
        let base = crate::run::tests::ONE_NODE;
        let text = "name = \"x.off\"\ndescription = \"d\"\nbase = \"x\"\n[off]\nmechanism = \"replication\"\nfails = [\"broken == 0\"]\n";
        let scenario = crate::language::parse("x.off", text, &|_| Ok(base.to_owned())).expect("good");
        let failure = |name: &str| Failure {
            name: name.to_owned(),
            expected: String::new(),
            seen: String::new(),
            at_ns: 0,
            unmeasured: false,
        };
        assert_eq!(
            Outcome::of(&scenario, &[failure("broken == 0")]),
            Outcome::FailedAsDeclared
        );
        assert_eq!(Outcome::of(&scenario, &[]), Outcome::NoProof);
        assert_eq!(
            Outcome::of(&scenario, &[failure("broken == 0"), failure("checksums")]),
            Outcome::NoProof
        );
        assert_eq!(Outcome::of(&scenario, &[failure("checksums")]), Outcome::NoProof);
        // What could not be looked at without the mechanism follows from that, and proves nothing by itself.
        let blind = Failure {
            unmeasured: true,
            ..failure("tables-equal")
        };
        assert_eq!(
            Outcome::of(&scenario, &[failure("broken == 0"), blind.clone()]),
            Outcome::FailedAsDeclared
        );
        assert_eq!(Outcome::of(&scenario, &[blind]), Outcome::NoProof);
        // What may follow does so later, and proves nothing by itself.
        let text = text.replace("fails =", "follows = [\"checksums\"]\nfails =");
        let scenario = crate::language::parse("x.off", &text, &|_| Ok(base.to_owned())).expect("good");
        let at = |name: &str, at_ns| Failure {
            at_ns,
            ..failure(name)
        };
        let outcome = |failures: &[Failure]| Outcome::of(&scenario, failures);
        assert_eq!(
            outcome(&[at("broken == 0", 5), at("checksums", 5)]),
            Outcome::FailedAsDeclared
        );
        assert_eq!(
            outcome(&[at("broken == 0", 5), at("checksums", 4)]),
            Outcome::NoProof
        );
        assert_eq!(outcome(&[at("checksums", 5)]), Outcome::NoProof);
        assert_eq!(
            outcome(&[at("broken == 0", 5), at("versions-grow", 6)]),
            Outcome::NoProof
        );
    }
}
