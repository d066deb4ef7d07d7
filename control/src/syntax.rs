//! From text to a tree of TOML values with their places.

use toml::de::DeTable;
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use crate::problem::{Code, Finding, Findings, Span};
use crate::read::Schema;
use crate::value;

/// Parts of a dotted key at most. The parser allows 80 at each of 80 levels of inline tables, so deep a
/// tree that dropping it overflows a thread's stack.
const KEY_PARTS_MAX: usize = 8;

/// Longest text in which more than the first duplicate key is searched for: the parser keeps every error.
const DUPLICATES_TEXT_LEN_MAX: usize = 1 << 20;

const DUPLICATE: &str = "duplicate key";

/// The tree, if the text is TOML; keys that stand there twice are reported and the first is taken. `text`
/// is not longer than [`TEXT_LEN_MAX`](crate::TEXT_LEN_MAX); `root` is the language's top level.
pub fn tree<'t>(root: &Schema, text: &'t str, findings: &mut Findings) -> Option<DeTable<'t>> {
    if let Some(span) = long_key(text) {
        let finding = Finding::new(
            Code::TooLarge,
            span,
            format!("a key of more than {KEY_PARTS_MAX} parts"),
            "keys have three parts at most here",
        );
        findings.push(finding);
        return None;
    }
    let error = match DeTable::parse(text) {
        Ok(tree) => return Some(tree.into_inner()),
        Err(error) => error,
    };
    if error.message() != DUPLICATE || text.len() > DUPLICATES_TEXT_LEN_MAX {
        findings.push(finding(root, text, &error));
        return None;
    }
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut whole = true;
    for error in &errors {
        // What follows a real syntax error is mostly its consequence.
        let duplicate = error.message() == DUPLICATE;
        if duplicate || whole {
            findings.push(finding(root, text, error));
        }
        whole &= duplicate;
    }
    whole.then(|| tree.into_inner())
}

/// The place of a dotted key with more than [`KEY_PARTS_MAX`] parts.
fn long_key(text: &str) -> Option<Span> {
    let mut dots = 0;
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => dots += 1,
            TokenKind::Atom | TokenKind::Whitespace | TokenKind::BasicString | TokenKind::LiteralString => {}
            _ => dots = 0,
        }
        if dots >= KEY_PARTS_MAX {
            return Some(token.span().start()..token.span().end());
        }
    }
    None
}

fn finding(root: &Schema, text: &str, error: &toml::de::Error) -> Finding {
    let span = error.span().unwrap_or(text.len()..text.len());
    if error.message() == DUPLICATE {
        let before = text.get(..span.start).unwrap_or_default();
        let key = text.get(span.clone()).unwrap_or_default();
        let many = before.ends_with('[') && root.is_list(key);
        let help = match many {
            true => format!("there can be many of them: write `[[{key}]]`"),
            false => "keep one of them".into(),
        };
        let message = format!("`{}` stands there twice", crate::problem::shown(key));
        return Finding::new(Code::DuplicateKey, span, message, help).label("the second one");
    }
    let help = match bare_value(text, span.start) {
        Some(bare) if value::duration(bare).is_ok() => format!("a duration is written in quotes: \"{bare}\""),
        Some(bare) => format!("strings are written in quotes: \"{bare}\""),
        None => "from here on it is not TOML (toml.io); nothing else was checked".into(),
    };
    Finding::new(Code::Syntax, span, error.message(), help)
}

/// The value of a key at whose value without quotes the place `at` is, if it needs quotes.
fn bare_value(text: &str, at: usize) -> Option<&str> {
    let line_start = text.get(..at)?.rfind('\n').map_or(0, |i| i + 1);
    let line = text.get(line_start..)?.lines().next()?;
    let (_, value) = line.split_once('=')?;
    let bare = value.split('#').next().unwrap_or_default().trim();
    let inside = at >= line_start + line.len() - value.len();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:/_-".contains(c);
    let needs = inside && !bare.is_empty() && bare.len() <= 60 && bare.chars().all(plain);
    needs.then_some(bare)
}
