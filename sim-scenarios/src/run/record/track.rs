//! Something that changes now and then.

/// Spans of one track at most; what changes more often is drawn with its last changes left out, and the page says so.
pub(crate) const SPAN_COUNT_MAX: usize = 100;

/// From when to when it was so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span<T> {
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
    pub(crate) what: T,
}

/// Spans one after the other, as they were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Track<T> {
    pub(crate) spans: Vec<Span<T>>,
    /// Changes for which there was no room.
    pub(crate) left_out: u64,
}

impl<T> Default for Track<T> {
    fn default() -> Self {
        Track {
            spans: Vec::new(),
            left_out: 0,
        }
    }
}

impl<T: PartialEq> Track<T> {
    /// It is `what` now. Times do not go back.
    pub(crate) fn look(&mut self, now: u64, what: T) {
        let full = self.spans.len() >= SPAN_COUNT_MAX;
        if let Some(last) = self.spans.last_mut() {
            last.to_ns = now;
            if last.what == what {
                return;
            }
            if full {
                self.left_out += 1;
                return;
            }
        }
        self.spans.push(Span {
            from_ns: now,
            to_ns: now,
            what,
        });
    }

    /// The run is over.
    pub(crate) fn end(&mut self, now: u64) {
        if let Some(last) = self.spans.last_mut() {
            last.to_ns = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_meet_and_have_a_bound() {
        let mut track = Track::default();
        for (now, what) in [(0, 1), (10, 1), (20, 2), (30, 1)] {
            track.look(now, what);
        }
        track.end(40);
        let spans: Vec<_> = track.spans.iter().map(|s| (s.from_ns, s.to_ns, s.what)).collect();
        assert_eq!(spans, [(0, 20, 1), (20, 30, 2), (30, 40, 1)]);
        for n in 0..1_000 {
            track.look(50 + n, n);
        }
        assert_eq!(track.spans.len(), SPAN_COUNT_MAX);
        assert!(track.left_out > 0);
        assert_eq!(track.spans.last().map(|s| s.to_ns), Some(1_049));
    }
}
