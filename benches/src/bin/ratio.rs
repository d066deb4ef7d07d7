//! Engine against floor: `cargo run --profile bench -p evenkeel-benches --bin ratio -- --help`.

use std::process::ExitCode;

use evenkeel_benches::cases::{CASES, case};
use evenkeel_benches::measure::{Row, compare, size};
use evenkeel_node::memory::Pages;
use serde_json::json;

const HELP: &str = "\
Runs engine and floor in turn, in short batches, and prints medians in nanoseconds a packet (or a conn).

    ratio [--sizes 64k,1m,10m] [--only CASE,..] [--batches N] [--bursts N] [--pages huge|small] [--json] [--check]

    --sizes    conns in the table (64k,1m)
    --only     parse, lookup, established-v4, established-v6, established-nat64, open (all)
    --batches  batches of each side (201)
    --bursts   bursts of 32 in a batch (128)
    --pages    of both tables (huge)
    --json     one object on standard output
    --check    established-v4 alone at 1m, five times, each in a process of its own: exit code 1 if the median of the
               five ratios is above 1.4

Exit code: 0, 1 a ratio above its limit, 2 a wrong call, 3 memory could not be mapped.
";

/// What is promised of an established IPv4 burst at a million conns.
const RATIO_MAX: f64 = 1.4;
/// Runs of a check. Where its tables come to lie moves the ratio of a process by some hundredths either way.
const CHECK_RUNS: usize = 5;

struct Options {
    sizes: Vec<u32>,
    cases: Vec<&'static str>,
    batches: usize,
    bursts: usize,
    pages: Pages,
    json: bool,
    check: bool,
}

fn options() -> Result<Options, String> {
    let mut o = Options {
        sizes: vec![65_536, 1_000_000],
        cases: CASES.into(),
        batches: 201,
        bursts: 128,
        pages: Pages::Huge,
        json: false,
        check: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        match arg.as_str() {
            "--json" => o.json = true,
            "--check" => o.check = true,
            "--sizes" => o.sizes = value()?.split(',').map(size).collect::<Result<_, _>>()?,
            "--only" => {
                let wanted = value()?;
                let known = |name: &str| {
                    CASES
                        .into_iter()
                        .find(|c| *c == name)
                        .ok_or(format!("no case {name}"))
                };
                o.cases = wanted.split(',').map(known).collect::<Result<_, _>>()?;
            }
            "--batches" => o.batches = number(&value()?)?,
            "--bursts" => o.bursts = number(&value()?)?,
            "--pages" => {
                o.pages = match value()?.as_str() {
                    "huge" => Pages::Huge,
                    "small" => Pages::Small,
                    other => return Err(format!("no pages {other}")),
                }
            }
            "--help" | "-h" => return Err(String::new()),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if o.check {
        (o.sizes, o.cases) = (vec![1_000_000], vec!["established-v4"]);
    }
    Ok(o)
}

fn number(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=1_000_000).contains(n))
        .ok_or(format!("{text} is not a number from 1 to 1000000"))
}

/// The rows of one case. Where there are several to measure each has a process of its own: mapped tables are
/// never unmapped, and every table shall find the memory as the first one does.
fn measured(o: &Options, size: u32, name: &'static str) -> Result<Vec<Row>, String> {
    if o.sizes.len() * o.cases.len() == 1 && !o.check {
        let mut case = case(name, size, o.pages).map_err(|e| e.to_string())?;
        return Ok(compare(&mut *case, o.batches, o.bursts));
    }
    let child = std::env::current_exe().map_err(|e| e.to_string())?;
    let pages = if o.pages == Pages::Huge { "huge" } else { "small" };
    let output = std::process::Command::new(child)
        .args([
            "--json",
            "--only",
            name,
            "--pages",
            pages,
            "--sizes",
            &size.to_string(),
        ])
        .args([
            "--batches",
            &o.batches.to_string(),
            "--bursts",
            &o.bursts.to_string(),
        ])
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("{name} at {size} conns: {}", output.status));
    }
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    let rows = said["rows"].as_array().ok_or("a run without rows")?;
    Ok(rows.iter().filter_map(row_of).collect())
}

/// A row as a child printed it.
fn row_of(row: &serde_json::Value) -> Option<Row> {
    Some(Row {
        name: row["bench"].as_str()?.to_owned(),
        engine_ns: row["engine_ns"].as_f64()?,
        floor_ns: row["floor_ns"].as_f64()?,
        ratio: row["ratio"].as_f64()?,
        ratio_quartiles: (
            row["ratio_quartiles"][0].as_f64()?,
            row["ratio_quartiles"][1].as_f64()?,
        ),
    })
}

fn main() -> ExitCode {
    let o = match options() {
        Ok(o) => o,
        Err(problem) if problem.is_empty() => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("ratio: {problem}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if !o.json {
        println!(
            "{:<44} {:>9} {:>10} {:>9} {:>6}  quartiles",
            "bench", "conns", "engine ns", "floor ns", "ratio"
        );
    }
    let mut results: Vec<(u32, Row)> = Vec::new();
    let again = if o.check { CHECK_RUNS } else { 1 };
    for &size in &o.sizes {
        for &name in o.cases.iter().cycle().take(again * o.cases.len()) {
            let rows = match measured(&o, size, name) {
                Ok(rows) => rows,
                Err(error) => {
                    eprintln!("ratio: {error}");
                    return ExitCode::from(3);
                }
            };
            for row in rows {
                if !o.json {
                    let (low, high) = row.ratio_quartiles;
                    println!(
                        "{:<44} {size:>9} {:>10.1} {:>9.1} {:>6.2}  {low:.2} {high:.2}",
                        row.name, row.engine_ns, row.floor_ns, row.ratio
                    );
                }
                results.push((size, row));
            }
        }
    }
    if o.json {
        let rows: Vec<_> = results
            .iter()
            .map(|(size, r)| {
                json!({"bench": r.name, "conns": size, "engine_ns": r.engine_ns, "floor_ns": r.floor_ns, "ratio": r.ratio,
                       "ratio_quartiles": [r.ratio_quartiles.0, r.ratio_quartiles.1]})
            })
            .collect();
        println!(
            "{:#}",
            json!({"batches": o.batches, "bursts": o.bursts, "huge_pages": o.pages == Pages::Huge, "rows": rows})
        );
    }
    if o.check {
        let of_v4 = results.iter().filter(|(_, row)| row.name == "established v4");
        let mut ratios: Vec<f64> = of_v4.map(|(_, row)| row.ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios.get(CHECK_RUNS / 2).copied().unwrap_or(f64::INFINITY);
        let word = if ratio <= RATIO_MAX {
            "holds"
        } else {
            "does not hold"
        };
        let all: Vec<String> = ratios.iter().map(|r| format!("{r:.2}")).collect();
        let verdict = format!(
            "established v4 at a million conns: {ratio:.2} x its floor ({}), at most {RATIO_MAX} promised: it {word}",
            all.join(" ")
        );
        if o.json {
            eprintln!("{verdict}");
        } else {
            println!("{verdict}");
        }
        if ratio > RATIO_MAX {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
