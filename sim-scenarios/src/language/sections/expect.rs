//! `[[expect]]`.

use evenkeel_control::Code;
use evenkeel_control::reading::{Finding, Findings, Need, Table, shown};

use super::{Names, Places};
use crate::expect::{self, Expectation, Written};
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
    let mut names = Names::default();
    let mut expects = Vec::new();
    for table in &tables {
        let that = table.string("that", Need::Required, findings);
        let name = table.string("name", Need::Optional, findings);
        let of = table.parsed("of", Need::Optional, |n| loads.find(n, "load"), findings);
        let Some(that) = that else {
            places.expects_refused = true;
            continue;
        };
        let comparison = match expect::parse(that.value) {
            Ok(comparison) => comparison,
            Err(bad) => {
                findings.push(Finding::new(bad.code, that.span, bad.message, bad.help));
                places.expects_refused = true;
                continue;
            }
        };
        let of = of.map(|o| o.value);
        let name = match (&name, table.has("of")) {
            (Some(name), _) => name.value.to_owned(),
            (None, false) => that.value.to_owned(),
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
            text: that.value.to_owned(),
            comparison,
            of,
            written: Written::at(that.span.start),
        });
    }
    expects
}
