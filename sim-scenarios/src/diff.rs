//! Finds the first event in which two runs differ: their trails say in which stretch, a second run of each what it is.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_io_sim::{QueueKind, Recorded, Trail, TrailSpec};
use serde::Serialize;

use crate::run::{Options, RunError, run};
use crate::scenario::Scenario;
use crate::trail::TrailFile;

/// Second runs at most: a run that is not the same each time may differ elsewhere then.
const ATTEMPT_COUNT_MAX: u32 = 8;

/// A run that is compared.
#[derive(Clone, Copy, Debug)]
pub struct Side<'s> {
    /// Scenario.
    pub scenario: &'s Scenario,
    /// Seed.
    pub seed: u64,
    /// How its queue of events is kept.
    pub queue: QueueKind,
}

/// What a run is compared with.
#[derive(Clone, Copy, Debug)]
pub enum With<'s> {
    /// Another one, or the same once more.
    Run(Side<'s>),
    /// What was noted of one elsewhere.
    Trail(&'s TrailFile),
}

/// An event of a run, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its number, from 1.
    pub number: u64,
    /// Simulated time.
    pub at_ns: u64,
    /// What.
    pub what: String,
    /// What came of it.
    pub seen: Vec<String>,
}

impl From<&Recorded> for Shown {
    fn from(recorded: &Recorded) -> Self {
        Shown {
            number: recorded.number,
            at_ns: recorded.at_ns,
            what: recorded.what.clone(),
            seen: recorded.seen.clone(),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Difference {
    /// They are the same, event by event.
    Same {
        /// So many.
        events: u64,
    },
    /// They differ in an event.
    Event {
        /// Events of both before it, the last ones.
        before: Vec<Shown>,
        /// The first one's; `None`: it had ended.
        one: Option<Shown>,
        /// The other one's.
        other: Option<Shown>,
    },
    /// They differ in a stretch, of which the other one's events are not here: a trail has none.
    Stretch {
        /// Numbers of the events.
        events: Range<u64>,
        /// Those of this run.
        here: Vec<Shown>,
    },
    /// They differed, and when they were run again, they did not: not here.
    Vanished {
        /// Numbers of the events among which they had differed.
        events: Range<u64>,
    },
}

/// Compares two runs; `every` events is a stretch, 1 at least, and `before` are shown of those before the difference.
///
/// # Errors
///
/// A run gives no trail: it is refused, or stopped. What ends by a bound or a panic is compared as far as it came.
pub fn diff(
    one: Side<'_>,
    with: With<'_>,
    every: u64,
    before: usize,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Difference, RunError> {
    let every = match with {
        With::Trail(file) => file.every,
        With::Run(_) => every.max(1),
    };
    let nothing = TrailSpec { every, record: 0..0 };
    let first = trail(one, nothing.clone(), go_on)?;
    let other = match with {
        With::Trail(file) => file.trail.clone(),
        With::Run(other) => trail(other, nothing, go_on)?,
    };
    let Some(mut stretch) = first_stretch(&first, &other, every) else {
        return Ok(Difference::Same { events: first.events });
    };
    for _ in 0..ATTEMPT_COUNT_MAX {
        // The last ones of the stretch before it may be wanted, too.
        let from = stretch.start.saturating_sub(before as u64);
        let record = TrailSpec {
            every,
            record: from..stretch.end,
        };
        let again = trail(one, record.clone(), go_on)?;
        let With::Run(other) = with else {
            let here = again.recorded.iter().filter(|r| r.number >= stretch.start);
            return Ok(Difference::Stretch {
                here: here.map(Shown::from).collect(),
                events: stretch,
            });
        };
        let other = trail(other, record, go_on)?;
        if let Some(found) = first_event(&again.recorded, &other.recorded, before) {
            return Ok(found);
        }
        match first_stretch(&again, &other, every) {
            Some(elsewhere) => stretch = elsewhere,
            None => return Ok(Difference::Vanished { events: stretch }),
        }
    }
    Ok(Difference::Vanished { events: stretch })
}

/// Runs, and gives what was noted.
fn trail(side: Side<'_>, spec: TrailSpec, go_on: &mut dyn FnMut() -> bool) -> Result<Trail, RunError> {
    let out = Arc::new(Mutex::new(Trail::default()));
    let options = Options {
        queue: side.queue,
        trail: Some((spec, Arc::clone(&out))),
        ..Options::default()
    };
    match run(side.scenario, side.seed, &options, go_on) {
        Ok(_) | Err(RunError::Exceeded(_) | RunError::Panicked { .. }) => {}
        Err(error) => return Err(error),
    }
    let trail = std::mem::take(&mut *out.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(trail)
}

/// Numbers of the events of the first stretch whose points differ. Points are digests of all before them: those behind
/// the first that differs differ as well.
fn first_stretch(one: &Trail, other: &Trail, every: u64) -> Option<Range<u64>> {
    if one == other || one.events == other.events && one.points == other.points {
        return None;
    }
    let differs = |at: &usize| one.points.get(*at) != other.points.get(*at);
    let len = one.points.len().max(other.points.len());
    // Bisection: the same up to somewhere, and different from there on.
    let (mut same, mut different) = (0, len);
    while same < different {
        let middle = same.midpoint(different);
        if differs(&middle) {
            different = middle;
        } else {
            same = middle + 1;
        }
    }
    let start = same as u64 * every;
    // Its first event is the one behind the last point that is the same. 0 is what was done before any.
    Some(if start == 0 { 0 } else { start + 1 }..start + every + 1)
}

fn first_event(one: &[Recorded], other: &[Recorded], before: usize) -> Option<Difference> {
    let len = one.len().max(other.len());
    let at = (0..len).find(|at| one.get(*at) != other.get(*at))?;
    Some(Difference::Event {
        before: one[at.saturating_sub(before)..at]
            .iter()
            .map(Shown::from)
            .collect(),
        one: one.get(at).map(Shown::from),
        other: other.get(at).map(Shown::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::TWO_NODES;

    fn scenario(text: &str) -> Scenario {
        crate::language::parse("two-nodes.toml", text, &|_| Err("no base".into())).expect("good")
    }

    fn side(scenario: &Scenario, seed: u64, queue: QueueKind) -> Side<'_> {
        Side {
            scenario,
            seed,
            queue,
        }
    }

    fn compare(one: Side<'_>, with: With<'_>) -> Difference {
        diff(one, with, 64, 3, &mut || true).expect("it runs")
    }

    #[test]
    fn the_same_run_is_the_same_by_both_queues_and_by_its_trail() {
        let same = scenario(TWO_NODES);
        let [heap, wheel] = QueueKind::ALL.map(|queue| side(&same, 1, queue));
        let Difference::Same { events } = compare(heap, With::Run(wheel)) else {
            panic!("heap and wheel differ");
        };
        assert!(events > 1_000);
        let spec = TrailSpec {
            every: 64,
            record: 0..0,
        };
        let file = TrailFile {
            scenario: same.name.clone(),
            seed: 1,
            every: 64,
            trail: trail(wheel, spec, &mut || true).expect("it runs"),
        };
        let read = TrailFile::parse(&file.text()).expect("as it was written");
        assert_eq!(compare(heap, With::Trail(&read)), Difference::Same { events });
        // Of another seed's run a trail tells the stretch, and the events are those of here.
        let differs = compare(side(&same, 2, QueueKind::Wheel), With::Trail(&read));
        let Difference::Stretch { events, here } = differs else {
            panic!("{differs:?}");
        };
        assert!(!here.is_empty() && here.iter().all(|e| events.contains(&e.number)));
    }

    #[test]
    fn runs_differ_from_where_their_scenarios_do() {
        let one = scenario(TWO_NODES);
        let crash = "[[fault]]\ndo = \"crash\"\nat = \"3s\"\nnode = \"2\"\n\n[[expect]]";
        let other = scenario(&TWO_NODES.replacen("[[expect]]", crash, 1));
        let found = compare(
            side(&one, 1, QueueKind::Wheel),
            With::Run(side(&other, 1, QueueKind::Wheel)),
        );
        let Difference::Event { before, one, other } = found else {
            panic!("{found:?}");
        };
        let (one, other) = (one.expect("an event"), other.expect("an event"));
        // The crash comes between two events, and is seen with the one before it.
        assert!(one.at_ns <= 3_000_000_000 && one.at_ns > 2_900_000_000, "{one:?}");
        assert_eq!((one.number, &one.what), (other.number, &other.what));
        assert!(other.seen.iter().any(|s| s == "lb 1 crashed"), "{other:?}");
        assert_eq!(before.len(), 3);
        assert!(before.windows(2).all(|w| w[0].number + 1 == w[1].number));
    }
}
