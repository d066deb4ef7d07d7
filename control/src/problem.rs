//! What is wrong with a config, and where.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{
    Diagnostic, LabeledSpan, MietteError, MietteSpanContents, Severity, SourceCode, SourceSpan, SpanContents,
};
use serde::Serialize;

/// Errors (and, apart from them, warnings) that are reported of one text at most; of more, the first in
/// the text.
pub const PROBLEM_COUNT_MAX: usize = 100;

/// A place in the text, in bytes.
pub type Span = Range<usize>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kinds of errors and warnings. Their names are stable: tools may match them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The name, such as `evenkeel::config::unknown_key`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => concat!("evenkeel::config::", $text),)* }
            }
        }
    };
}

codes! {
    /// Not TOML.
    Syntax = "syntax",
    /// The text is longer than [`TEXT_LEN_MAX`](crate::TEXT_LEN_MAX), or nests too deeply.
    TooLarge = "too_large",
    /// A key or a table stands there twice.
    DuplicateKey = "duplicate_key",
    /// A key that does not exist.
    UnknownKey = "unknown_key",
    /// A key that must be there is not.
    MissingKey = "missing_key",
    /// A value of the wrong type.
    WrongType = "wrong_type",
    /// A string that is none of those allowed, or not a name.
    BadValue = "bad_value",
    /// A duration that cannot be read: mostly its unit.
    BadDuration = "bad_duration",
    /// An address, prefix or address with port that cannot be read.
    BadAddress = "bad_address",
    /// A link-layer address that cannot be read, or that no host can have.
    BadMac = "bad_mac",
    /// A number or duration beyond its range.
    OutOfRange = "out_of_range",
    /// A prefix length beyond the family's bits.
    PrefixLength = "prefix_length",
    /// A route to a prefix with host bits set.
    HostBits = "host_bits",
    /// An address of the other family than the one needed.
    WrongFamily = "wrong_family",
    /// An address that no host can have.
    NotUnicast = "not_unicast",
    /// Port 0.
    PortZero = "port_zero",
    /// The name of an interface that is not there.
    UnknownPort = "unknown_port",
    /// No node of the cluster has this name or number.
    UnknownNode = "unknown_node",
    /// No interface.
    NoPort = "no_port",
    /// No virtual service.
    NoService = "no_service",
    /// A service without real servers.
    NoServer = "no_server",
    /// A service without a local address of a family that its servers have.
    NoLocalAddress = "no_local_address",
    /// A local address of a family that no server of the service has.
    UnusedLocalAddress = "unused_local_address",
    /// A service's local address that is not of the node's share.
    NotInShare = "not_in_share",
    /// The same thing twice.
    Duplicate = "duplicate",
    /// Two services with the same VIP, port and protocol.
    Overlap = "overlap",
    /// An address that has another role already.
    AddressConflict = "address_conflict",
    /// The weights of a service make too long a cycle.
    CycleTooLong = "cycle_too_long",
    /// More elements than the engine has room for.
    TooMany = "too_many",
    /// No interned id is free.
    IdsExhausted = "ids_exhausted",
    /// An RSS key that cannot steer.
    RssKey = "rss_key",
    /// The smallest local port leaves too few of them.
    LocalPorts = "local_ports",
    /// Not as many CPUs as workers.
    CoreCount = "core_count",
    /// A service needs conns of a family for which the table has no room.
    NoTable = "no_table",
    /// Something that cannot have any effect, such as a timeout of the other protocol.
    NoEffect = "no_effect",
    /// Warning: a real server to which no frame can be sent, or none before its neighbour is asked for.
    NoNextHop = "no_next_hop",
    /// Warning: a gateway whose link-layer address is not in the config.
    UnknownGateway = "unknown_gateway",
    /// Warning: clients of a family are reached only where a more special route says so.
    NoDefaultRoute = "no_default_route",
    /// Warning: a service whose weights are all 0.
    NoWeight = "no_weight",
    /// Warning: more workers than buckets.
    IdleWorkers = "idle_workers",
}

impl Code {
    /// Whether the config is accepted nevertheless.
    pub const fn is_warning(self) -> bool {
        matches!(
            self,
            Code::NoNextHop
                | Code::UnknownGateway
                | Code::NoDefaultRoute
                | Code::NoWeight
                | Code::IdleWorkers
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One error or warning, with its place in the text and its remedy. As a [`Diagnostic`] it carries the
/// text; serialized it is the plain fields.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// Name of the source.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column of the first character, from 1, in characters.
    pub column: usize,
    /// Characters that it is about; 0 for something that is missing.
    pub len: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
    /// The kind.
    pub code: Code,
    /// Bytes of the text that it is about.
    #[serde(skip)]
    span: Span,
    /// What is marked in the text, as far as it is shown.
    #[serde(skip)]
    labels: Vec<(Span, String)>,
    #[serde(skip)]
    source: Snippets,
}

impl Problem {
    /// Bytes of the text that it is about.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// A file's name, or a message with one in it, as a terminal may show it: what would steer it is escaped.
    pub fn shown_name(name: &str) -> String {
        shown_name(name)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<Severity> {
        Some(if self.code.is_warning() {
            Severity::Warning
        } else {
            Severity::Error
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().enumerate().map(
            |(i, (span, text))| {
                if i == 0 {
                    LabeledSpan::new_primary_with_span(Some(text.clone()), span.clone())
                } else {
                    LabeledSpan::new_with_span(Some(text.clone()), span.clone())
                }
            },
        )))
    }
}

/// Why a config is refused: every error, in the order of the text. Serialized it is
/// `{"file": .., "errors": [..], "omitted": ..}`.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigErrors {
    file: String,
    errors: Vec<Problem>,
    omitted: usize,
}

impl ConfigErrors {
    /// The errors, at most [`PROBLEM_COUNT_MAX`], sorted by place.
    pub fn problems(&self) -> &[Problem] {
        &self.errors
    }

    /// Errors that stand further down and are not listed.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Name of the source.
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.errors.len() + self.omitted;
        write!(
            f,
            "{}: refused, {n} error{}",
            shown_name(&self.file),
            if n == 1 { "" } else { "s" }
        )
    }
}

impl std::error::Error for ConfigErrors {}

impl Diagnostic for ConfigErrors {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (self.omitted > 0)
            .then(|| Box::new(format!("and {} more, further down", self.omitted)) as Box<dyn fmt::Display>)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.errors.iter().map(|p| p as &dyn Diagnostic)))
    }
}

/// A problem before its line is known.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The kind.
    pub code: Code,
    /// Where.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// Under the text.
    pub label: String,
    /// What to write instead.
    pub help: String,
    /// Another place that belongs to it.
    pub other: Option<(Span, String)>,
}

impl Finding {
    /// A finding labelled `here`.
    pub fn new(code: Code, span: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        Finding {
            code,
            span,
            message: message.into(),
            label: "here".into(),
            help: help.into(),
            other: None,
        }
    }

    /// With this label under the text.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With another place that belongs to it.
    pub fn other(mut self, span: Span, label: impl Into<String>) -> Self {
        self.other = Some((span, label.into()));
        self
    }
}

/// Keeps the first [`PROBLEM_COUNT_MAX`] findings of the text and counts the others, in whatever order
/// they come.
#[derive(Debug, Default)]
pub struct Findings {
    kept: Vec<Finding>,
    omitted: usize,
}

impl Findings {
    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        self.kept.push(finding);
        if self.kept.len() >= 2 * PROBLEM_COUNT_MAX {
            self.cut();
        }
    }

    /// Adds one, unless there is one of this kind at its place.
    pub fn push_new(&mut self, finding: Finding) {
        let same = |f: &Finding| f.code == finding.code && f.span == finding.span;
        if !self.kept.iter().any(same) {
            self.push(finding);
        }
    }

    /// Whether a finding at `span` would be kept, so far: spares the making of many that would not.
    pub fn wants(&mut self, span: &Span) -> bool {
        let last = self.kept.get(PROBLEM_COUNT_MAX - 1);
        last.is_none_or(|last| self.omitted == 0 || span.start < last.span.start)
    }

    /// Counts findings that are known to stand behind [`PROBLEM_COUNT_MAX`] others.
    pub fn omit(&mut self, n: usize) {
        self.omitted += n;
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn cut(&mut self) {
        self.kept.sort_by_key(|f| (f.span.start, f.span.end));
        self.omitted += self.kept.len().saturating_sub(PROBLEM_COUNT_MAX);
        self.kept.truncate(PROBLEM_COUNT_MAX);
    }

    /// The problems in order, and how many there are beyond.
    pub(crate) fn finish(mut self, name: &str, text: &str) -> (Vec<Problem>, usize) {
        self.cut();
        if self.kept.is_empty() {
            return (Vec::new(), 0);
        }
        let printed: Arc<str> = printable(text).into();
        let shown_name: Arc<str> = shown_name(name).into();
        let mut place = Position {
            text,
            at: 0,
            line: 1,
            line_start: 0,
        };
        let problems = self.kept.into_iter().map(|finding| {
            let span = clamp(text, finding.span);
            place.advance(span.start);
            let mut labels = vec![(span.clone(), finding.label)];
            labels.extend(finding.other.map(|(span, label)| (clamp(text, span), label)));
            let windows: Vec<_> = labels
                .iter_mut()
                .filter_map(|(span, _)| Window::around(&printed, span))
                .collect();
            Problem {
                file: name.to_owned(),
                line: place.line,
                column: chars(text, place.line_start..span.start) + 1,
                len: chars(text, span.clone()),
                message: finding.message,
                help: finding.help,
                code: finding.code,
                span,
                labels,
                source: Snippets {
                    name: shown_name.clone(),
                    text: printed.clone(),
                    windows,
                },
            }
        });
        (problems.collect(), self.omitted)
    }

    /// All of them as the refusal of `text`, which is called `name`.
    pub fn into_errors(self, name: &str, text: &str) -> ConfigErrors {
        let (errors, omitted) = self.finish(name, text);
        ConfigErrors {
            file: name.to_owned(),
            errors,
            omitted,
        }
    }
}

/// The text for reports: the marked lines with those around them or, where these are long, a piece of one.
#[derive(Clone, Debug)]
struct Snippets {
    name: Arc<str>,
    text: Arc<str>,
    windows: Vec<Window>,
}

impl SourceCode for Snippets {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let (start, end) = (span.offset(), span.offset() + span.len());
        // Without lines around it, only the place is wanted.
        if lines_before + lines_after > 0 && !self.windows.is_empty() {
            let within = |w: &&Window| w.start <= start && end <= w.start + w.shown.len();
            if let Some(window) = self.windows.iter().find(within) {
                return Ok(Box::new(MietteSpanContents::new_named(
                    self.name.to_string(),
                    window.shown.as_bytes(),
                    (window.start, window.shown.len()).into(),
                    window.line,
                    window.column,
                    1,
                )));
            }
            // Two places are shown one by one rather than with all that is between them.
            if is_long(&self.text, &(start..end)) {
                return Err(MietteError::OutOfBounds);
            }
        }
        let contents = self.text.read_span(span, lines_before, lines_after)?;
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.to_string(),
            contents.data(),
            *contents.span(),
            contents.line(),
            contents.column(),
            contents.line_count(),
        )))
    }
}

/// Bytes of the longest line that is shown whole.
const LINE_LEN_MAX: usize = 240;
/// Bytes of text that are shown for one place.
const SHOWN_LEN_MAX: usize = 4096;
/// Bytes that are shown of a longer line, before and behind the beginning of the place.
const WINDOW_BEFORE: usize = 80;
const WINDOW_AFTER: usize = 120;

/// The lines of a place, and one more each side: too much to show.
fn is_long(text: &str, span: &Span) -> bool {
    let around = lines_around(text, span);
    let shown = text.get(around).unwrap_or_default();
    shown.len() > SHOWN_LEN_MAX || shown.split('\n').any(|line| line.len() > LINE_LEN_MAX)
}

/// The lines of `span` with one before and one behind, as far as that can be told within what would be shown.
fn lines_around(text: &str, span: &Span) -> Span {
    let bytes = text.as_bytes();
    let down = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    // No further than it takes to know that it is too much.
    let from = span.start.saturating_sub(2 * SHOWN_LEN_MAX);
    let to = (span.end.saturating_add(2 * SHOWN_LEN_MAX)).min(bytes.len());
    let before = bytes.get(from..span.start).unwrap_or_default();
    let behind = bytes.get(span.end..to).unwrap_or_default();
    let start = before
        .iter()
        .enumerate()
        .rev()
        .filter(|&(_, &b)| b == b'\n')
        .nth(1);
    let end = behind.iter().enumerate().filter(|&(_, &b)| b == b'\n').nth(1);
    down(start.map_or(from, |(i, _)| from + i + 1))..down(end.map_or(to, |(i, _)| span.end + i))
}

/// A piece of one line, for places whose lines are too long to be shown.
#[derive(Clone, Debug)]
struct Window {
    /// Where it begins, in bytes of the text.
    start: usize,
    /// Line and column of its beginning, from 0.
    line: usize,
    column: usize,
    /// As long in bytes as what it stands for, with an ellipsis where the line goes on.
    shown: String,
}

impl Window {
    /// For a place in long lines; the place ends within the window then.
    fn around(text: &str, span: &mut Span) -> Option<Window> {
        if !is_long(text, span) {
            return None;
        }
        let before = text.get(..span.start)?;
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let line_end = text
            .get(span.start..)?
            .find('\n')
            .map_or(text.len(), |i| span.start + i);
        let start = clamp(
            text,
            line_start.max(span.start.saturating_sub(WINDOW_BEFORE))..text.len(),
        )
        .start;
        let end = clamp(text, line_end.min(span.start + WINDOW_AFTER)..text.len()).start;
        let mut shown = text.get(start..end)?.to_owned();
        let mut span_end = end;
        if start > line_start {
            let len = ellipsis_len(shown.chars());
            shown.replace_range(..len, &ellipsis(len));
        }
        if end < line_end {
            let len = ellipsis_len(shown.chars().rev());
            shown.replace_range(shown.len() - len.., &ellipsis(len));
            span_end = end - len;
        }
        span.end = span.end.min(span_end.max(span.start));
        Some(Window {
            start,
            line: before.bytes().filter(|&b| b == b'\n').count(),
            column: chars(text, line_start..start),
            shown,
        })
    }
}

/// Bytes of the first whole characters that an ellipsis has room in.
fn ellipsis_len(chars: impl Iterator<Item = char>) -> usize {
    let mut len = 0;
    for c in chars {
        if len >= '…'.len_utf8() {
            break;
        }
        len += c.len_utf8();
    }
    len
}

/// An ellipsis of `len` bytes.
fn ellipsis(len: usize) -> String {
    match len.checked_sub('…'.len_utf8()) {
        Some(more) => format!("…{}", ".".repeat(more)),
        None => ".".repeat(len),
    }
}

/// Goes through the text once, for findings sorted by place.
struct Position<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    line_start: usize,
}

impl Position<'_> {
    fn advance(&mut self, to: usize) {
        let passed = self.text.as_bytes().get(self.at..to).unwrap_or_default();
        for (i, _) in passed.iter().enumerate().filter(|&(_, &b)| b == b'\n') {
            self.line += 1;
            self.line_start = self.at + i + 1;
        }
        self.at = self.at.max(to);
    }
}

fn chars(text: &str, span: Span) -> usize {
    text.get(span).unwrap_or_default().chars().count()
}

/// `span` within the text and on character boundaries: a parser may point behind the end.
fn clamp(text: &str, span: Span) -> Span {
    let down = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = down(span.start);
    start..down(span.end).max(start)
}

/// Whether a terminal does something else with it than to show it: control characters, and those that turn the
/// direction of writing (Unicode's Bidi_Control).
fn steers_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with question marks for what would steer the terminal (TOML forbids most of it), byte for byte.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let line_end = c == '\r' && rest.peek() == Some(&'\n');
        if steers_terminal(c) && !line_end && !matches!(c, '\n' | '\t') {
            shown.extend(std::iter::repeat_n('?', c.len_utf8()));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// See [`Problem::shown_name`].
fn shown_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if steers_terminal(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// So many of something, in words.
pub(crate) fn counted(n: impl Into<u64>, one: &str) -> String {
    let n = n.into();
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// A piece of the text as a message may show it: escaped, and not long.
pub fn shown(text: &str) -> String {
    const LEN_MAX: usize = 60;
    let mut out: String = text.chars().take(LEN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(LEN_MAX).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names_of_their_own() {
        let mut names: Vec<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn the_first_hundred_of_the_text_are_kept_in_whatever_order_they_come() {
        let text = "x".repeat(1000);
        let mut findings = Findings::default();
        for i in 0..1000 {
            let at = (i * 7) % 1000;
            findings.push(Finding::new(Code::BadValue, at..at + 1, format!("{at}"), ""));
        }
        let (problems, omitted) = findings.finish("x", &text);
        assert_eq!(omitted, 900);
        let places: Vec<_> = problems.iter().map(|p| p.column - 1).collect();
        assert_eq!(places, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn columns_count_characters_and_spans_stay_in_the_text() {
        let text = "a = 1\n\"é\" = 2\r\n\u{7f}";
        let mut findings = Findings::default();
        for span in [12..13, 6..7, 8..100, 9..9, 90..99] {
            findings.push(Finding::new(Code::BadValue, span, "", ""));
        }
        let (problems, _) = findings.finish("x", text);
        let at: Vec<_> = problems.iter().map(|p| (p.line, p.column, p.len)).collect();
        // Byte 8 is inside the é: the span begins with it.
        assert_eq!(at, [(2, 1, 1), (2, 2, 9), (2, 3, 0), (2, 6, 1), (3, 2, 0)]);
        assert_eq!(printable(text), "a = 1\n\"é\" = 2\r\n?");
    }
}
