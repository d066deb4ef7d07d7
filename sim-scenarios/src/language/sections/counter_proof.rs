//! A counter-proof: what else it is stands in its base.

use evenkeel_control::reading::{Field, Finding, Findings, Need, Table, nearest, shown};
use evenkeel_control::{Bad, Code};
use toml::de::DeTable;

use super::expect::expects;
use super::{Names, Places, count, description, empty_list};
use crate::language::{check, limits, schema, value};
use crate::mechanism::Mechanism;
use crate::scenario::{Off, Scenario};

/// A counter-proof: its base with a mechanism off.
pub(crate) fn counter_proof(
    tree: &DeTable<'_>,
    read: &dyn Fn(&str) -> Result<String, String>,
    findings: &mut Findings,
) -> Option<Scenario> {
    let root = Table::new(&schema::COUNTER_PROOF, schema::ALL, 0..0, tree, findings);
    let name = root.parsed("name", Need::Required, value::name, findings);
    let number = count(&root, limits::NUMBER, findings);
    let description = description(&root, findings);
    let base = root.string("base", Need::Required, findings)?;
    let refuse = |why: String| {
        Bad::new(
            Code::BadValue,
            why,
            "write the file name of a scenario that stands beside this one",
        )
    };
    let found = read(base.value).map_err(&refuse).and_then(|text| {
        let no_base = |_: &str| Err("a counter-proof has no counter-proof".to_owned());
        let parsed = crate::language::parse(base.value, &text, &no_base);
        parsed.map_err(|errors| {
            let first = errors.problems().first();
            let at = first.map_or_else(String::new, |p| format!(": line {}: {}", p.line, p.message));
            refuse(format!("the base \"{}\" is refused{at}", shown(base.value)))
        })
    });
    let mut scenario = match found {
        Ok(scenario) if scenario.off.is_none() => scenario,
        Ok(_) => {
            let message = format!("\"{}\" is a counter-proof itself", shown(base.value));
            findings.push(Finding::new(
                Code::BadValue,
                base.span,
                message,
                "name the scenario that it disproves",
            ));
            return None;
        }
        Err(bad) => {
            findings.push(Finding::new(bad.code, base.span, bad.message, bad.help));
            return None;
        }
    };
    for expect in &mut scenario.expects {
        expect.written.in_base = true;
    }
    let mut loads = Names::default();
    for load in &scenario.loads {
        loads.add(load.name.clone(), 0..0, findings);
    }
    let mut places = Places::default();
    let more = expects(&root, &loads, &mut places, findings);
    for (expect, place) in more.into_iter().zip(&places.expects) {
        if scenario.judges().any(|j| j == expect.name) {
            let message = format!("\"{}\" stands in the base already", shown(&expect.name));
            findings.push(Finding::new(
                Code::Duplicate,
                place.clone(),
                message,
                "give it another `name`",
            ));
        }
        scenario.expects.push(expect);
    }
    let Some(off) = root.table("off", &schema::OFF, schema::ALL, findings) else {
        let help = "add `[off]` with the `mechanism` and what `fails` without it";
        findings.push(Finding::new(
            Code::MissingKey,
            0..0,
            "`[off]` is missing at the top level",
            help,
        ));
        return None;
    };
    scenario.name = name?.value;
    scenario.number = number.or(scenario.number);
    scenario.description = description;
    if off.has("base") {
        let help = "leave it out: the base stands at the top";
        findings.push(Finding::new(
            Code::NoEffect,
            off.span_of("base"),
            "`base` in [off] of a file that has a `base`",
            help,
        ));
    }
    let off = read_off(&off, base.value, &scenario, &places, findings)?;
    scenario.off = Some(off.value);
    check::without_mechanism(&scenario, &off.span, findings);
    Some(scenario)
}

/// `[off]`, with the place of its mechanism.
pub(super) fn read_off(
    off: &Table<'_, '_>,
    base: &str,
    scenario: &Scenario,
    places: &Places,
    findings: &mut Findings,
) -> Option<Field<Off>> {
    let mechanisms: Vec<_> = Mechanism::ALL.iter().map(|&(n, m, _)| (n, m)).collect();
    let mechanism = off.choice("mechanism", Need::Required, &mechanisms, findings);
    let judge = |text: &str| {
        // One that is refused may be meant.
        if places.expects_refused || scenario.judges().any(|j| j == text) {
            return Ok(text.to_owned());
        }
        let help = match nearest(text, scenario.judges()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => {
                let known: Vec<_> = scenario.judges().map(|j| format!("\"{j}\"")).collect();
                format!("what can fail: {}", known.join(", "))
            }
        };
        let message = format!(
            "neither an expectation nor an oracle is called \"{}\"",
            shown(text)
        );
        Err(Bad::new(Code::BadValue, message, help))
    };
    let (fails, all) = off.list("fails", judge, findings);
    let (follows, _) = off.list("follows", judge, findings);
    if fails.is_empty() && all && off.has("fails") {
        let help = "name expectations or oracles that must fail: `fails = [\"broken == 0\"]`";
        empty_list(off, "fails", help, findings);
    } else if fails.is_empty() && all {
        let help = "add `fails = [\"broken == 0\"]`: names of expectations or oracles that must fail";
        findings.push(Finding::new(
            Code::MissingKey,
            off.span.clone(),
            "`fails` is missing in [off]",
            help,
        ));
    }
    let mechanism = mechanism?;
    if mechanism.value == Mechanism::Takeover && scenario.router.is_some() {
        let message = "behind a router no node takes over the VIPs";
        let help = "all that are ready answer for them: take away another mechanism";
        findings.push(Finding::new(
            Code::NoEffect,
            mechanism.span.clone(),
            message,
            help,
        ));
    }
    Some(Field {
        span: mechanism.span,
        value: Off {
            mechanism: mechanism.value,
            fails: fails.into_iter().map(|f| f.value).collect(),
            follows: follows.into_iter().map(|f| f.value).collect(),
            base: base.to_owned(),
        },
    })
}
