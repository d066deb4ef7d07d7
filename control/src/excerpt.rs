//! A config's text as the source of a report: what is shown of a long line is a window around the place.

use std::sync::Arc;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// Longest excerpt, its lines of context included, that is shown as it stands. Bytes.
const EXCERPT_LEN_MAX: usize = 1000;
/// What is shown of a longer one on either side of the place's beginning. Bytes.
const WINDOW_LEN: usize = 120;

/// The text of a config under its name.
#[derive(Debug)]
pub(crate) struct Excerpt {
    name: String,
    text: Arc<str>,
}

impl Excerpt {
    pub(crate) fn new(name: &str, text: String) -> Self {
        Excerpt {
            name: name.to_owned(),
            text: text.into(),
        }
    }

    /// The part of `start..end` that is marked in a report: it ends where its window does.
    pub(crate) fn marked(&self, start: usize, end: usize) -> std::ops::Range<usize> {
        let line = self.line_of(start);
        let long = line.len() > EXCERPT_LEN_MAX;
        let end = if long {
            end.min(self.window(start, line).end)
        } else {
            end
        };
        start..end.max(start)
    }

    /// The line in which `at` lies, without its end.
    fn line_of(&self, at: usize) -> std::ops::Range<usize> {
        let at = at.min(self.text.len());
        let start = self.text[..at].rfind('\n').map_or(0, |i| i + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |i| at + i);
        start..end
    }

    /// The bytes around `at` in its line, on character boundaries.
    fn window(&self, at: usize, line: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let boundary = |mut i: usize| {
            while !self.text.is_char_boundary(i) {
                i -= 1;
            }
            i
        };
        let start = boundary(at.saturating_sub(WINDOW_LEN).max(line.start));
        start..boundary((at + WINDOW_LEN).min(line.end))
    }
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let whole = self.text.read_span(span, lines_before, lines_after)?;
        if whole.data().len() <= EXCERPT_LEN_MAX {
            return Ok(Box::new(MietteSpanContents::new_named(
                self.name.clone(),
                whole.data(),
                *whole.span(),
                whole.line(),
                whole.column(),
                whole.line_count(),
            )));
        }
        let at = span.offset().min(self.text.len());
        let line = self.line_of(at);
        let line_start = line.start;
        let window = self.window(at, line);
        // Where a report begins to count: at the place itself if it asks for no context.
        let shown = if lines_before == 0 {
            at..window.end.max(at)
        } else {
            window
        };
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            &self.text.as_bytes()[shown.clone()],
            (shown.start, shown.len()).into(),
            self.text[..at].matches('\n').count(),
            self.text[line_start..shown.start].chars().count(),
            1,
        )))
    }
}
