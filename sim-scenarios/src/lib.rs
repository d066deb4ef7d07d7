//! Scenario language, workloads and oracles of the simulator.
//!
//! A scenario is a TOML text ([`parse`]): nodes, links, services, load, faults on a timeline, and what must come
//! out. With a seed it becomes a plan, in which everything is drawn that is drawn ahead; [`run()`] builds the world of
//! `evenkeel-io-sim` from it, lets time pass, and judges it by the scenario's expectations and by oracles that
//! always look on. The language is described in `docs/scenarios.md`.
//!
//! ```
//! let error = evenkeel_sim_scenarios::parse("x.toml", "duration = \"5 s\"", &|_| Err("none".into())).unwrap_err();
//! assert!(error.problems().iter().any(|p| p.help == "write \"5s\""));
//! ```

mod catalogue;
mod diff;
pub mod expect;
mod explain;
mod language;
mod mechanism;
mod oracle;
mod plan;
mod report;
mod run;
pub mod scenario;
pub mod swarm;
mod template;
mod trail;

#[cfg(feature = "planted-bugs")]
pub use evenkeel_core::planted;

pub use catalogue::{EMBEDDED, embedded};
pub use diff::{Difference, Shown, Side, With, diff};
pub use evenkeel_io_sim::{Meter, Part, QueueKind, Trail, TrailSpec};
pub use expect::{Failure, METRICS};
pub use explain::explain;
pub use language::{LIMITS, Limit, TEXT_LEN_MAX, limit_words, parse, write};
pub use mechanism::{Kind, Mechanism};
pub use oracle::{NAMES as ORACLES, Violation};
pub use plan::plan;
pub use report::{
    ANNOTATION_COUNT_MAX, Annotations, BROKEN_FLOWS_MAX, BrokenFlow, COMMIT_LEN_MIN, FAILURES_TOLD_MAX,
    JUnit, Outcome, PAGE_LEN_MAX, Report, SWARM, Stall, quoted, replay, seeds_from,
};
pub use run::{Options, Recording, RunError, SYNC_COUNTERS, node_counters, run, run_plan};
pub use scenario::Scenario;
pub use template::{TEMPLATES, Template};
pub use trail::{TRAIL_EVERY, TRAIL_LEN_MAX, TrailFile};
