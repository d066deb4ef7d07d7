//! A trail as a file: what one build or machine noted of a run, for another one to compare its own with.

use std::fmt::Write;

use evenkeel_io_sim::Trail;

/// Bytes of a trail that is read at most.
pub const TRAIL_LEN_MAX: u64 = 64 << 20;

/// Events from one point to the next, unless something else is said.
pub const TRAIL_EVERY: u64 = 1_024;

const HEAD: &str = "evenkeel trail 1";

/// A trail, and of which run it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailFile {
    /// Name of the scenario.
    pub scenario: String,
    /// Seed.
    pub seed: u64,
    /// Events from one point to the next.
    pub every: u64,
    /// What was noted; no events are recorded in it.
    pub trail: Trail,
}

impl TrailFile {
    /// As text: a line for each point.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{HEAD}\nscenario {}\nseed {}\nevery {}\nevents {}\n",
            self.scenario, self.seed, self.every, self.trail.events
        );
        for point in &self.trail.points {
            let _ = writeln!(text, "{point:016x}");
        }
        text
    }

    /// From text.
    ///
    /// # Errors
    ///
    /// Line, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = (1..).zip(text.lines());
        let mut next = |what: &str| {
            let (number, line) = lines
                .next()
                .ok_or_else(|| format!("it ends where `{what}` should stand"))?;
            let rest = line.strip_prefix(what).map(str::trim_start);
            let rest = rest.ok_or_else(|| format!("line {number}: `{what}` should stand there"))?;
            Ok::<_, String>((number, rest.to_owned()))
        };
        fn number((line, text): (u64, String)) -> Result<u64, String> {
            text.parse().map_err(|_| format!("line {line}: it is no number"))
        }
        next(HEAD)?;
        let (_, scenario) = next("scenario ")?;
        let seed = number(next("seed ")?)?;
        let every = number(next("every ")?)?;
        if every == 0 {
            return Err("line 4: points cannot be 0 events apart".into());
        }
        let events = number(next("events ")?)?;
        let points = lines.map(|(number, line)| {
            let is_point = line.len() == 16 && line.bytes().all(|b| b.is_ascii_hexdigit());
            let point = u64::from_str_radix(line, 16).ok().filter(|_| is_point);
            point.ok_or_else(|| format!("line {number}: a point is 16 hexadecimal digits"))
        });
        let points = points.collect::<Result<Vec<_>, _>>()?;
        // One after each stretch but the last, and one of all.
        let expected = events.saturating_sub(1) / every + 1;
        if points.len() as u64 != expected {
            return Err(format!(
                "it has {} points, and {expected} of {events} events",
                points.len()
            ));
        }
        let trail = Trail {
            events,
            points,
            recorded: Vec::new(),
        };
        Ok(TrailFile {
            scenario,
            seed,
            every,
            trail,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_is_read_as_it_was_written_and_nothing_else_is() {
        let file = TrailFile {
            scenario: "a b".into(),
            seed: u64::MAX,
            every: 10,
            trail: Trail {
                events: 25,
                points: vec![1, u64::MAX, 3],
                recorded: Vec::new(),
            },
        };
        let text = file.text();
        assert_eq!(TrailFile::parse(&text), Ok(file));
        for (from, to, says) in [
            ("trail 1", "trail 2", "line 1: `evenkeel trail 1`"),
            ("seed ", "seed x", "line 3: it is no number"),
            ("every 10", "every 0", "line 4"),
            ("events 25", "events 45", "it has 3 points, and 5 of 45 events"),
            ("ffffffffffffffff", "+fffffffffffffff", "line 7: a point"),
        ] {
            let error = TrailFile::parse(&text.replacen(from, to, 1)).expect_err(from);
            assert!(error.starts_with(says), "{error}");
        }
        for (end, _) in text.char_indices().take(text.len() - 1) {
            let cut = TrailFile::parse(&text[..end]);
            assert!(cut.is_err(), "cut at {end}");
        }
    }
}
