//! Expectations: comparisons of what a run measured with numbers, spans and each other.

mod eval;
mod metric;
mod parse;

use std::fmt;

pub use eval::{Failure, FlowFacts, Judged, Measures, NAMED_LEN_MAX, NAMED_MAX};
pub(crate) use eval::{NAMELY, judge};
pub use metric::{METRICS, Metric, Unit};
pub(crate) use parse::{TEXT_LEN_MAX, parse};

/// Something that must come out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Its name: that of the text unless it says one.
    pub name: String,
    /// As it was written.
    pub text: String,
    /// What it says.
    pub comparison: Comparison,
    /// Only flows of this load count; an index.
    pub of: Option<usize>,
    /// Where it is written.
    pub written: Written,
}

/// Where something is written. That is no part of what it says: all places are equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// Line, from 1; 0: nowhere, it goes without saying.
    pub line: u32,
    /// Column of its first character, from 1.
    pub column: u32,
    /// In the base of a counter-proof, not in the counter-proof.
    pub in_base: bool,
    /// The byte where it begins, until its line is known.
    pub(crate) byte: Option<usize>,
}

impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Written {}

impl Written {
    pub(crate) fn at(byte: usize) -> Written {
        Written {
            byte: Some(byte),
            ..Written::default()
        }
    }

    /// Its line and column in `text`, in which it is written; what has one already was written elsewhere.
    pub(crate) fn find(&mut self, text: &str) {
        let Some(before) = self.byte.take().and_then(|byte| text.get(..byte)) else {
            return;
        };
        let number = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
        let line = before.rfind('\n').map_or(0, |at| at + 1);
        self.line = number(before.bytes().filter(|b| *b == b'\n').count());
        self.column = number(before.get(line..).map_or(0, |l| l.chars().count()));
    }
}

/// What is expected of every scenario that does not say otherwise: a flow that hangs neither breaks nor fails before
/// its client gives up, which may be after the end.
pub const NO_HANGING: &str = "hanging == 0";

/// What is expected where a fault waits for something, though nobody writes it: what it waits for comes.
pub const ALL_TRIGGERED: &str = "untriggered == 0";

/// [`NO_HANGING`], unless something else is said of it.
pub(crate) fn implied(expects: &[Expectation]) -> Option<Expectation> {
    unless_said(expects, NO_HANGING, Metric::Hanging)
}

/// [`ALL_TRIGGERED`], unless something else is said of it.
pub(crate) fn implied_of_triggers(expects: &[Expectation]) -> Option<Expectation> {
    unless_said(expects, ALL_TRIGGERED, Metric::Untriggered)
}

fn unless_said(expects: &[Expectation], text: &str, of: Metric) -> Option<Expectation> {
    let mut metrics = expects.iter().flat_map(|e| {
        let Comparison { left, right, .. } = &e.comparison;
        left.metrics().chain(right.metrics())
    });
    let said = metrics.any(|m| m == of);
    let comparison = parse(text).ok().filter(|_| !said)?;
    Some(Expectation {
        name: text.to_owned(),
        text: text.to_owned(),
        comparison,
        of: None,
        written: Written::default(),
    })
}

/// `left op right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Left side.
    pub left: Expr,
    /// Which way.
    pub op: Op,
    /// Right side.
    pub right: Expr,
}

/// How two sides are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "signs")]
pub enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Op {
    /// Whether it holds.
    pub fn holds(self, left: i128, right: i128) -> bool {
        match self {
            Op::Eq => left == right,
            Op::Ne => left != right,
            Op::Lt => left < right,
            Op::Le => left <= right,
            Op::Gt => left > right,
            Op::Ge => left >= right,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Eq => "==",
            Op::Ne => "!=",
            Op::Lt => "<",
            Op::Le => "<=",
            Op::Gt => ">",
            Op::Ge => ">=",
        })
    }
}

/// A sum of terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expr {
    /// Each is added, or taken away.
    pub terms: Vec<(bool, Term)>,
    /// Of what.
    pub unit: Unit,
}

/// `factor * what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Factor; 1 if none was written.
    pub factor: i64,
    /// What; `None`: the factor itself, in counts or nanoseconds.
    pub metric: Option<Metric>,
}

impl Expr {
    /// Whether it is said of each flow on its own.
    pub fn is_per_flow(&self) -> bool {
        self.metrics().any(|m| m.per_flow())
    }

    /// What it is made of.
    pub fn metrics(&self) -> impl Iterator<Item = Metric> + '_ {
        self.terms.iter().filter_map(|(_, t)| t.metric)
    }
}
