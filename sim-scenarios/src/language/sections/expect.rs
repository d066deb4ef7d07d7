//! `[[expect]]`.

use evenkeel_control::Code;
use evenkeel_control::reading::{Finding, Findings, Need, Table, shown};

use super::{Names, Places, one_line};
use crate::expect::{self, Expectation, Expr, Metric, Written};
use crate::language::limits::EXPECT_COUNT_MAX;
use crate::language::schema;

pub(super) fn expects(
    root: &Table<'_, '_>,
    loads: &Names,
    places: &mut Places,
    findings: &mut Findings,
) -> Vec<Expectation> {
    let (tables, whole) = root.tables("expect", &schema::EXPECT, schema::ALL, findings);
    places.no_expect = tables.is_empty() && whole;
    places.expects_refused = !whole;
    if let Some(first) = tables.get(EXPECT_COUNT_MAX) {
        let message = format!("more than {EXPECT_COUNT_MAX} expectations");
        let help = "leave the others out, or spread them over several scenarios";
        findings.push(Finding::new(Code::TooMany, first.span.clone(), message, help));
        places.expects_refused = true;
        return Vec::new();
    }
    let mut names = Names::default();
    let mut expects = Vec::new();
    for table in &tables {
        let that = table.parsed("that", Need::Required, one_line, findings);
        let name = table.parsed("name", Need::Optional, one_line, findings);
        let of = table.parsed("of", Need::Optional, |n| loads.find(n, "load"), findings);
        let Some(that) = that else {
            places.expects_refused = true;
            continue;
        };
        let comparison = match expect::parse(&that.value) {
            Ok(comparison) => comparison,
            Err(bad) => {
                findings.push(Finding::new(bad.code, that.span, bad.message, bad.help));
                places.expects_refused = true;
                continue;
            }
        };
        let of_a_load = |side: &Expr| side.metrics().any(Metric::is_of_a_load);
        if table.has("of") && !of_a_load(&comparison.left) && !of_a_load(&comparison.right) {
            let message = "`of` has no effect: nothing here is measured at the flows of a load";
            let help = "leave it out, or expect something of flows, such as `broken == 0`";
            findings.push(Finding::new(Code::NoEffect, table.span_of("of"), message, help));
        }
        let of = of.map(|o| o.value);
        let name = match (&name, table.has("of")) {
            (Some(name), _) => name.value.clone(),
            (None, false) => that.value.clone(),
            (None, true) => {
                let load = table
                    .string("of", Need::Optional, findings)
                    .map_or("", |l| l.value);
                format!("{} of {load}", that.value)
            }
        };
        if crate::oracle::NAMES.iter().any(|o| o.0 == name) {
            let message = format!("an oracle is called \"{}\"", shown(&name));
            findings.push(Finding::new(
                Code::Duplicate,
                that.span.clone(),
                message,
                "give it another `name`",
            ));
        }
        names.add(name.clone(), that.span.clone(), findings);
        places.expects.push(that.span.clone());
        expects.push(Expectation {
            name,
            text: that.value,
            comparison,
            of,
            written: Written::at(that.span.start),
        });
    }
    expects
}
