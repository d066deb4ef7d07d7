//! A small typed reader over the tree: every access says what it wants, and what does not fit becomes a
//! finding with its place, so that reading goes on.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::problem::{Code, Finding, Findings, Span, shown};
use crate::value::{self, Bad};

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Field<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

/// A key of a table: its name, and a value as an example.
#[derive(Debug)]
pub struct Key(pub &'static str, pub &'static str);

/// A table of the language.
#[derive(Debug)]
pub struct Schema {
    /// As it is written: `[timeouts.tcp]`, `[[port]]`; empty for the top level.
    pub title: &'static str,
    /// What may stand in it.
    pub keys: &'static [Key],
}

impl Schema {
    fn example(&self, name: &str) -> &'static str {
        self.keys.iter().find(|k| k.0 == name).map_or("", |k| k.1)
    }

    /// Whether `name` is a list of tables here.
    pub fn is_list(&self, name: &str) -> bool {
        self.example(name).starts_with("[[")
    }

    /// What to write for the key `name`.
    fn remedy(&self, name: &str) -> String {
        let example = self.example(name);
        if example.starts_with('[')
            && example
                .trim_start_matches('[')
                .starts_with(|c: char| c.is_ascii_lowercase())
        {
            format!("`{example}`")
        } else {
            format!("`{name} = {example}`")
        }
    }

    fn place(&self) -> String {
        if self.title.is_empty() {
            "at the top level".into()
        } else {
            format!("in {}", self.title)
        }
    }
}

/// Whether a key may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It must be there.
    Required,
    /// It may be left out.
    Optional,
}

/// A table being read.
#[derive(Debug)]
pub struct Table<'a, 'i> {
    schema: &'static Schema,
    /// Its header, or the whole of an inline table.
    pub span: Span,
    entries: &'a DeTable<'i>,
}

type Value<'a, 'i> = &'a Spanned<DeValue<'i>>;

impl<'a, 'i> Table<'a, 'i> {
    /// Reads `entries` by `schema`: unknown keys are reported at once. `all` is where a key that is known
    /// elsewhere is looked for.
    pub fn new(
        schema: &'static Schema,
        all: &[&'static Schema],
        span: Span,
        entries: &'a DeTable<'i>,
        findings: &mut Findings,
    ) -> Self {
        for (key, _) in entries.iter() {
            let name: &str = key.get_ref();
            if schema.keys.iter().any(|k| k.0 == name) {
                continue;
            }
            if findings.wants(&key.span()) {
                let message = format!("unknown key `{}` {}", shown(name), schema.place());
                let finding = Finding::new(
                    Code::UnknownKey,
                    key.span(),
                    message,
                    unknown_help(name, schema, all),
                );
                findings.push(finding.label("not known"));
            } else {
                findings.omit(1);
            }
        }
        Table {
            schema,
            span,
            entries,
        }
    }

    fn value(&self, name: &'static str, need: Need, findings: &mut Findings) -> Option<Value<'a, 'i>> {
        debug_assert!(
            self.schema.keys.iter().any(|k| k.0 == name),
            "{name} is not in the schema"
        );
        let value = self.entries.get(name);
        if value.is_none() && need == Need::Required {
            let message = format!("`{name}` is missing {}", self.schema.place());
            let help = format!("add {}", self.schema.remedy(name));
            findings
                .push(Finding::new(Code::MissingKey, self.span.clone(), message, help).label("of this one"));
        }
        value
    }

    fn wrong_type(&self, name: &str, value: Value<'_, '_>, wanted: &str) -> Finding {
        let found = kind(value.get_ref());
        let message = format!("`{name}` is {found}, but must be {wanted}");
        let help = match value.get_ref() {
            DeValue::Table(_) if self.schema.is_list(name) => {
                format!(
                    "write {} with two brackets, above the tables that belong to it",
                    self.schema.remedy(name)
                )
            }
            _ => format!("write {}", self.schema.remedy(name)),
        };
        Finding::new(Code::WrongType, value.span(), message, help).label(format!("this is {found}"))
    }

    /// Whether `name` is written here.
    pub fn has(&self, name: &'static str) -> bool {
        self.entries.contains_key(name)
    }

    /// The place of the value of `name`, or of the table.
    pub fn span_of(&self, name: &'static str) -> Span {
        self.entries
            .get(name)
            .map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// A string.
    pub fn string(&self, name: &'static str, need: Need, findings: &mut Findings) -> Option<Field<&'a str>> {
        let value = self.value(name, need, findings)?;
        match value.get_ref() {
            DeValue::String(s) => Some(Field {
                value: s,
                span: value.span(),
            }),
            _ => {
                findings.push(self.wrong_type(name, value, "a string"));
                None
            }
        }
    }

    /// A string that `parse` reads.
    pub fn parsed<T>(
        &self,
        name: &'static str,
        need: Need,
        parse: impl FnOnce(&str) -> Result<T, Bad>,
        findings: &mut Findings,
    ) -> Option<Field<T>> {
        let string = self.string(name, need, findings)?;
        read(string, parse, findings)
    }

    /// A duration: a bare number has no unit.
    pub fn duration(&self, name: &'static str, findings: &mut Findings) -> Option<Field<Duration>> {
        let value = self.value(name, Need::Optional, findings)?;
        let seconds = match value.get_ref() {
            DeValue::Integer(n) if n.radix() == 10 => {
                Some(format!("{}s", n.as_str().trim_start_matches('+')))
            }
            DeValue::Float(n) => n
                .as_str()
                .parse::<f64>()
                .ok()
                .map(|n| format!("{}ms", (n * 1000.0).round())),
            _ => None,
        };
        if let Some(written) = seconds {
            let help = match value::duration(&written) {
                Ok(_) => format!("write \"{written}\" if seconds are meant; units are ms, s, m, h, d"),
                Err(_) => format!("write {}", self.schema.remedy(name)),
            };
            let message = format!("`{name}` is a number without a unit");
            findings.push(
                Finding::new(Code::BadDuration, value.span(), message, help).label("seconds? minutes?"),
            );
            return None;
        }
        self.parsed(name, Need::Optional, value::duration, findings)
    }

    /// A duration in `range`.
    pub fn duration_in(
        &self,
        name: &'static str,
        range: RangeInclusive<Duration>,
        findings: &mut Findings,
    ) -> Option<Field<Duration>> {
        let time = self.duration(name, findings)?;
        if range.contains(&time.value) {
            return Some(time);
        }
        let message = format!("`{name}` is out of range: {}", value::show_duration(time.value));
        let help = format!(
            "write a duration from {} to {}",
            value::show_duration(*range.start()),
            value::show_duration(*range.end())
        );
        findings.push(Finding::new(Code::OutOfRange, time.span, message, help).label("out of range"));
        None
    }

    /// An integer in `range`.
    pub fn integer(
        &self,
        name: &'static str,
        range: RangeInclusive<u32>,
        findings: &mut Findings,
    ) -> Option<Field<u32>> {
        self.integer_or_not(name, Need::Optional, range, findings)
    }

    /// As [`Table::integer`], for one that must be there.
    pub fn required_integer(
        &self,
        name: &'static str,
        range: RangeInclusive<u32>,
        findings: &mut Findings,
    ) -> Option<Field<u32>> {
        self.integer_or_not(name, Need::Required, range, findings)
    }

    fn integer_or_not(
        &self,
        name: &'static str,
        need: Need,
        range: RangeInclusive<u32>,
        findings: &mut Findings,
    ) -> Option<Field<u32>> {
        let value = self.value(name, need, findings)?;
        self.integer_of(name, value, "an integer", range, findings)
    }

    /// The integer `value` of `name`, which must be `wanted` of them.
    fn integer_of(
        &self,
        name: &'static str,
        value: Value<'_, '_>,
        wanted: &str,
        range: RangeInclusive<u32>,
        findings: &mut Findings,
    ) -> Option<Field<u32>> {
        let DeValue::Integer(n) = value.get_ref() else {
            findings.push(self.wrong_type(name, value, wanted));
            return None;
        };
        let read = i128::from_str_radix(n.as_str(), n.radix())
            .ok()
            .and_then(|n| u32::try_from(n).ok());
        let Some(n) = read.filter(|n| range.contains(n)) else {
            let message = format!("`{name}` is out of range: {}", shown(&written(n)));
            let help = format!("write a number from {} to {}", range.start(), range.end());
            findings.push(Finding::new(Code::OutOfRange, value.span(), message, help).label("out of range"));
            return None;
        };
        Some(Field {
            value: n,
            span: value.span(),
        })
    }

    /// `true` or `false`.
    pub fn boolean(&self, name: &'static str, findings: &mut Findings) -> Option<Field<bool>> {
        let value = self.value(name, Need::Optional, findings)?;
        let DeValue::Boolean(b) = value.get_ref() else {
            findings.push(self.wrong_type(name, value, "a boolean"));
            return None;
        };
        Some(Field {
            value: *b,
            span: value.span(),
        })
    }

    /// One of the strings of `choices`.
    pub fn choice<T: Copy>(
        &self,
        name: &'static str,
        need: Need,
        choices: &[(&'static str, T)],
        findings: &mut Findings,
    ) -> Option<Field<T>> {
        let parse = |text: &str| {
            choices.iter().find(|c| c.0 == text).map(|c| c.1).ok_or_else(|| {
                let names = choices.iter().map(|c| c.0);
                let list = list(names.clone().map(|n| format!("\"{n}\"")), "or");
                let help = match nearest(text, names) {
                    Some(meant) => format!("did you mean \"{meant}\"? It is {list}"),
                    None => format!("write {list}"),
                };
                Bad::new(
                    Code::BadValue,
                    format!("`{name}` cannot be \"{}\"", shown(text)),
                    help,
                )
            })
        };
        self.parsed(name, need, parse, findings)
    }

    /// An array of strings, each read by `parse`, and whether all of them could be read.
    pub fn list<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Bad>,
        findings: &mut Findings,
    ) -> (Vec<Field<T>>, bool) {
        let Some(value) = self.value(name, Need::Optional, findings) else {
            return (Vec::new(), true);
        };
        let DeValue::Array(array) = value.get_ref() else {
            findings.push(self.wrong_type(name, value, "an array of strings"));
            return (Vec::new(), false);
        };
        let mut read_all = Vec::new();
        for element in array.iter() {
            match element.get_ref() {
                DeValue::String(s) => {
                    let string = Field {
                        value: &**s,
                        span: element.span(),
                    };
                    read_all.extend(read(string, &parse, findings));
                }
                _ => findings.push(self.wrong_type(name, element, "an array of strings")),
            }
        }
        let all = read_all.len() == array.len();
        (read_all, all)
    }

    /// An array of integers in `range`, and whether all of them could be read.
    pub fn integers(
        &self,
        name: &'static str,
        range: RangeInclusive<u32>,
        findings: &mut Findings,
    ) -> (Vec<Field<u32>>, bool) {
        const WANTED: &str = "an array of integers";
        let Some(value) = self.value(name, Need::Optional, findings) else {
            return (Vec::new(), true);
        };
        let DeValue::Array(array) = value.get_ref() else {
            findings.push(self.wrong_type(name, value, WANTED));
            return (Vec::new(), false);
        };
        let elements = array.iter();
        let read: Vec<_> = elements
            .filter_map(|e| self.integer_of(name, e, WANTED, range.clone(), findings))
            .collect();
        let all = read.len() == array.len();
        (read, all)
    }

    /// A table, such as `[rss]`.
    pub fn table(
        &self,
        name: &'static str,
        schema: &'static Schema,
        all: &[&'static Schema],
        findings: &mut Findings,
    ) -> Option<Table<'a, 'i>> {
        let value = self.value(name, Need::Optional, findings)?;
        let DeValue::Table(entries) = value.get_ref() else {
            findings.push(self.wrong_type(name, value, "a table"));
            return None;
        };
        Some(Table::new(schema, all, value.span(), entries, findings))
    }

    /// Tables, such as `[[port]]`, and whether all that stands there are tables.
    pub fn tables(
        &self,
        name: &'static str,
        schema: &'static Schema,
        all: &[&'static Schema],
        findings: &mut Findings,
    ) -> (Vec<Table<'a, 'i>>, bool) {
        let Some(value) = self.value(name, Need::Optional, findings) else {
            return (Vec::new(), true);
        };
        let array = match value.get_ref() {
            DeValue::Array(array) => array,
            _ => {
                findings.push(self.wrong_type(name, value, "a list of tables"));
                return (Vec::new(), false);
            }
        };
        let mut tables = Vec::new();
        for element in array.iter() {
            match element.get_ref() {
                DeValue::Table(entries) => {
                    tables.push(Table::new(schema, all, element.span(), entries, findings))
                }
                _ => findings.push(self.wrong_type(name, element, "a list of tables")),
            }
        }
        let whole = tables.len() == array.len();
        (tables, whole)
    }
}

/// Reads `string` by `parse`, or reports why not.
fn read<T>(
    string: Field<&str>,
    parse: impl FnOnce(&str) -> Result<T, Bad>,
    findings: &mut Findings,
) -> Option<Field<T>> {
    match parse(string.value) {
        Ok(value) => Some(Field {
            value,
            span: string.span,
        }),
        Err(bad) => {
            findings.push(Finding::new(bad.code, string.span, bad.message, bad.help));
            None
        }
    }
}

/// An integer as it was written, but for underscores.
fn written(n: &DeInteger<'_>) -> String {
    let prefix = match n.radix() {
        16 => "0x",
        8 => "0o",
        2 => "0b",
        _ => "",
    };
    format!("{prefix}{}", n.as_str())
}

/// What a value is, with its article.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn unknown_help(name: &str, schema: &Schema, all: &[&'static Schema]) -> String {
    let known = list(schema.keys.iter().map(|k| format!("`{}`", k.0)), "and");
    let elsewhere = all.iter().find(|s| s.keys.iter().any(|k| k.0 == name));
    if let Some(meant) = nearest(name, schema.keys.iter().map(|k| k.0)) {
        format!("did you mean `{meant}`? Known here: {known}")
    } else if let Some(other) = elsewhere {
        let place = if other.title.is_empty() {
            "the top level, above the first table"
        } else {
            other.title
        };
        format!("`{name}` belongs to {place}. Known here: {known}")
    } else {
        format!("known here: {known}")
    }
}

/// `a, b and c`.
pub fn list(items: impl Iterator<Item = String>, last: &str) -> String {
    let mut items: Vec<_> = items.collect();
    match items.pop() {
        Some(end) if items.is_empty() => end,
        Some(end) => format!("{} {last} {end}", items.join(", ")),
        None => String::new(),
    }
}

/// The candidate that `name` is most likely a misspelling of: at most a third of its letters differ.
pub fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    const LEN_MAX: usize = 40;
    let name: Vec<char> = name
        .chars()
        .take(LEN_MAX + 1)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if name.len() > LEN_MAX {
        return None;
    }
    let measured = candidates.map(|c| (distance(&name, &c.chars().collect::<Vec<_>>()), c));
    let close = measured.filter(|&(d, c)| d <= (c.chars().count().max(name.len()) / 3).max(1));
    close.min_by_key(|&(d, _)| d).map(|(_, c)| c)
}

/// Letters to insert, leave out, exchange or swap with their neighbour to make `b` of `a` (optimal string
/// alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut before: Vec<usize> = vec![0; width];
    let mut row: Vec<usize> = (0..width).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut d = (row[j] + usize::from(x != y))
                .min(row[j + 1] + 1)
                .min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                d = d.min(before[j - 1] + 1);
            }
            next.push(d);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("weigth", "weight", 1),
            ("vip", "wip", 1),
            ("kitten", "sitting", 3),
        ] {
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            assert_eq!(distance(&chars(a), &chars(b)), d, "{a} {b}");
            assert_eq!(distance(&chars(b), &chars(a)), d, "{b} {a}");
        }
    }

    #[test]
    fn a_suggestion_is_near_or_not_made() {
        let keys = ["address", "weight", "mac"];
        for (name, meant) in [
            ("adress", Some("address")),
            ("addresses", Some("address")),
            ("Weigth", Some("weight")),
            ("mca", Some("mac")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, keys.into_iter()), meant, "{name}");
        }
        assert_eq!(nearest(&"a".repeat(1_000_000), keys.into_iter()), None);
    }
}
