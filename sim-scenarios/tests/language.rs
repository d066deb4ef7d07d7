//! Scenarios as users write them: wrong ones with the report they get, and the committed ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use evenkeel_core::stats::DropReason;
use evenkeel_sim_scenarios::scenario::{Happening, Phase};
use evenkeel_sim_scenarios::{
    EMBEDDED, Kind, LIMITS, METRICS, Mechanism, ORACLES, SYNC_COUNTERS, Scenario, TEXT_LEN_MAX, embedded,
    explain, limit_words, node_counters, parse, plan, write,
};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

fn report(diagnostic: &dyn Diagnostic) -> String {
    let mut out = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    handler
        .render_report(&mut out, diagnostic)
        .expect("a report can be rendered");
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn folder(name: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let entries = std::fs::read_dir(folder).expect("folder of scenarios");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("entry").path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    let read = |p: PathBuf| {
        let name = p.file_name().expect("name").to_str().expect("UTF-8").to_owned();
        (name, std::fs::read_to_string(p).expect("text"))
    };
    paths.into_iter().map(read).collect()
}

const GOOD: &str = r#"
name = "good"
description = "nothing happens"
duration = "20s"
[[service]]
name = "web"
vip = "192.0.2.10:80"
[[load]]
name = "long"
flows = 10
[[expect]]
that = "broken == 0"
"#;

fn base(name: &str) -> Result<String, String> {
    match name {
        "good.toml" => Ok(GOOD.to_owned()),
        "units.toml" => Ok(include_str!("bad/units.toml").to_owned()),
        _ => Err(format!("there is no base \"{name}\" beside it")),
    }
}

#[test]
fn bad_scenarios_get_these_reports() {
    let cases = folder("tests/bad");
    assert!(cases.len() >= 10, "{} cases", cases.len());
    for (name, text) in cases {
        let errors = parse(&name, &text, &base).expect_err(&name);
        for problem in errors.problems() {
            assert!(
                !problem.message.is_empty() && !problem.help.is_empty(),
                "{name}: {problem:?}"
            );
            assert!(text.get(problem.span()).is_some());
        }
        insta::assert_snapshot!(format!("bad_{}", name.trim_end_matches(".toml")), report(&errors));
    }
}

#[test]
fn bad_scenarios_are_no_panic_wherever_they_are_cut() {
    for (name, text) in folder("tests/bad")
        .into_iter()
        .chain([("good".to_owned(), GOOD.to_owned())])
    {
        for end in (0..text.len()).filter(|&i| text.is_char_boundary(i)) {
            let _ = parse(&name, &text[..end], &base);
        }
    }
    assert!(parse("long", &"#".repeat(TEXT_LEN_MAX + 1), &base).is_err());
}

/// `GOOD` with so many nodes, LIPs of each, and services at VIPs of their own.
fn with_vips(nodes: u32, lips: u32, v4: u32, v6: u32) -> String {
    let service = |n: u32, vip: String| format!("[[service]]\nname = \"s{n}\"\nvip = \"{vip}\"\n");
    let v4 = (1..=v4).map(|n| service(n, format!("192.0.2.{n}:80")));
    let v6 = (1..=v6).map(|n| service(1000 + n, format!("[2001:db8:2::{n:x}]:80")));
    let (head, tail) = GOOD.split_once("[[service]]").expect("a service");
    let (_, tail) = tail.split_once("[[load]]").expect("a load");
    let services: String = v4.chain(v6).collect();
    format!("{head}[cluster]\nnodes = {nodes}\nlocal_addresses = {lips}\n{services}[[load]]{tail}")
}

#[test]
fn what_the_engine_has_no_room_for_is_refused_with_its_place() {
    for (nodes, lips, v4, v6) in [
        (2, 2, 64, 64),
        (1, 2, 98, 200),
        (5, 32, 1, 1),
        (8, 18, 1, 1),
        (16, 8, 1, 1),
    ] {
        let text = with_vips(nodes, lips, v4, v6);
        parse("good.toml", &text, &base).unwrap_or_else(|e| panic!("{}", report(&e)));
    }
    for (nodes, lips, v4, v6, at, words) in [
        (2, 2, 65, 1, "192.0.2.65:80", "more than 64 IPv4 VIPs"),
        (3, 2, 1, 66, "[2001:db8:2::41]:80", "more than 64 IPv6 VIPs"),
        (6, 32, 1, 1, "32", "320 LIPs of other nodes"),
    ] {
        let text = with_vips(nodes, lips, v4, v6);
        let errors = parse("x.toml", &text, &base).expect_err(words);
        let [problem] = errors.problems() else {
            panic!("{}", report(&errors));
        };
        assert!(problem.message.contains(words), "{}", report(&errors));
        assert_eq!(text[problem.span()].trim_matches('"'), at, "{words}");
    }
    // A counter-proof in which one node has all VIPs of both families.
    let proof = "name = \"x.off\"\ndescription = \"d\"\nbase = \"b.toml\"\n[off]\nmechanism = \"takeover\"\nfails = [\"broken == 0\"]\n";
    let large = |_: &str| Ok(with_vips(2, 2, 40, 40));
    let errors = parse("x.off.toml", proof, &large).expect_err("80 shared addresses");
    let problem = &errors.problems()[0];
    assert_eq!(&proof[problem.span()], "\"takeover\"");
    assert!(
        problem.message.contains("shared virtual addresses"),
        "{}",
        report(&errors)
    );
}

/// `GOOD` with something put before its expectation.
fn with(more: &str) -> String {
    GOOD.replacen("[[expect]]", &format!("{more}\n[[expect]]"), 1)
}

/// `text` has one mistake, at `at`, that is called so and has a remedy with these words.
fn refused(text: &str, at: &str, words: &str, help: &str) {
    let errors = parse("x.toml", text, &base).expect_err(words);
    let [problem] = errors.problems() else {
        panic!("{}", report(&errors));
    };
    assert!(problem.message.contains(words), "{}", report(&errors));
    assert!(problem.help.contains(help), "{}", report(&errors));
    assert_eq!(&text[problem.span()], at, "{words}");
}

#[test]
fn clocks_jump_by_a_year_at_most_so_that_all_faults_together_do_not_end_them() {
    let step = |by: &str| {
        with(&format!(
            "[[fault]]\ndo = \"step\"\nnode = \"1\"\nat = \"5s\"\nby = \"{by}\"\n"
        ))
    };
    parse("x.toml", &step("8784h"), &base).expect("366 days");
    for by in ["8785h", "2562047h", "5124095h", "-8785h"] {
        let wall = step(by).replacen("by =", "wall = \"on\"\nby =", 1);
        for text in [step(by), wall] {
            refused(
                &text,
                &format!("\"{by}\""),
                "too far for a jump",
                "\"8784h\" at most",
            );
        }
    }
    refused(&step("0s"), "\"0s\"", "the clock stays", "more, such as \"5s\"");
}

#[test]
fn what_is_printed_in_a_line_neither_ends_it_nor_steers_a_terminal() {
    let not_shown = |text: &str, at: &str| refused(text, at, "characters that are not shown", "leave out");
    for c in [
        "\\n::stop-commands::x",
        "\\u001b[2J",
        "\\u0000",
        "\\u202E",
        "\\u0085",
        "\\u2028",
    ] {
        let name = format!("\"a{c}\"");
        let named = format!("that = \"broken == 0\"\nname = {name}");
        not_shown(&GOOD.replace("that = \"broken == 0\"", &named), &name);
        not_shown(&format!("waits_for = {name}\n{GOOD}"), &name);
        let that = format!("\"broken {c}== 0\"");
        not_shown(&GOOD.replace("\"broken == 0\"", &that), &that);
        let base = format!("[off]\nmechanism = \"nack\"\nfails = [\"broken == 0\"]\nbase = {name}\n");
        not_shown(&format!("{GOOD}{base}"), &name);
        let text = GOOD.replace("\"good\"", &name);
        refused(&text, &name, "is not a name", "letters");
    }
}

#[test]
fn what_is_empty_is_refused() {
    let named = |what: &str| GOOD.replace("that = ", &format!("{what}\nthat = "));
    let empty = |text: &str, at: &str| refused(text, at, "it is empty", "write something");
    empty(&named("name = \"\""), "\"\"");
    empty(&format!("waits_for = \" \"\n{GOOD}"), "\" \"");
    let text = GOOD.replace("\"nothing happens\"", "\" \"");
    refused(&text, "\" \"", "it is empty", "say in a sentence");
}

#[test]
fn expectations_are_so_many_at_most() {
    let text = |count: usize| {
        let more = (1..count).map(|n| format!("[[expect]]\nname = \"n{n}\"\nthat = \"broken == 0\"\n"));
        format!("{GOOD}{}", more.collect::<String>())
    };
    parse("x.toml", &text(1024), &base).expect("as many as may be");
    refused(
        &text(1025),
        "[[expect]]",
        "more than 1024 expectations",
        "several scenarios",
    );
}

#[test]
fn what_has_no_effect_is_refused_at_its_place() {
    let fault = |rest: &str| with(&format!("[[fault]]\nnode = \"1\"\nat = \"5s\"\n{rest}\n"));
    let none = |rest: &str, at: &str, words: &str| refused(&fault(rest), at, words, "leave");
    none("do = \"fill\"\nshare = \"0%\"", "\"0%\"", "nothing is filled");
    none(
        "do = \"drift\"\ndrift = \"0ppm\"",
        "\"0ppm\"",
        "the clock goes on",
    );
    none("do = \"pause\"\nfor = \"0s\"", "\"0s\"", "ends when it begins");
    none(
        "do = \"cut\"\nnetwork = \"clients\"\nfor = \"0s..0s\"",
        "\"0s..0s\"",
        "ends when it begins",
    );
    // What is drawn may be nothing now and then, and what crashes starts again at once.
    for rest in ["do = \"pause\"\nfor = \"0s..1s\"", "do = \"crash\"\nfor = \"0s\""] {
        parse("x.toml", &fault(rest), &base).expect(rest);
    }
    let text = GOOD.replace("flows = 10", "flows = 10\ngive_up = \"0s\"");
    refused(&text, "\"0s\"", "no time to wait", "more than \"0s\"");
    let of = |that: &str| {
        GOOD.replace(
            "that = \"broken == 0\"",
            &format!("of = \"long\"\nthat = \"{that}\""),
        )
    };
    refused(
        &of("ready == 1"),
        "\"long\"",
        "`of` has no effect",
        "leave it out",
    );
    for that in ["broken == 0", "stall <= 2s", "blocked == 0", "broken <= ready"] {
        parse("x.toml", &of(that), &base).expect(that);
    }
    let servers = "do = \"config\"\nservice = \"web\"\nservers = 0";
    refused(&fault(servers), "0", "`servers`", "1 to 64");
}

#[test]
fn mistakes_in_a_plan_are_told_at_their_line() {
    let plan = |line: &str| {
        GOOD.replace(
            "flows = 10",
            &format!("plan = \"\"\"\n0 web 1 1s\n{line}\n1 web 1 2s\n\"\"\""),
        )
    };
    refused(&plan("9 web 1 19s"), "9 web 1 19s", "may start at 19s", "`start`");
    let line = "4294967296 web 1 2s";
    refused(
        &plan(line),
        line,
        "its number is too large",
        "from 0 to 4294967295",
    );
    refused(
        &plan("x web 1 2s"),
        "x web 1 2s",
        "its first word is no number",
        "write its number",
    );
}

#[test]
fn docs_name_every_limit_of_the_language() {
    let section = |table: &str| {
        let heading = if table == "Top level" {
            "## Top level".into()
        } else {
            format!("## `{table}`")
        };
        let text = DOCS
            .split(&heading)
            .nth(1)
            .unwrap_or_else(|| panic!("no section {table}"));
        text.split("\n## ").next().expect("its end")
    };
    let says = |table: &str, key: &str, words: &str| {
        let key = format!("`{key}`");
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        section(table)
            .lines()
            .filter(|line| line.contains(&key))
            .any(|line| {
                line.match_indices(words).any(|(at, _)| {
                    !digit(line[..at].chars().next_back()) && !digit(line[at + words.len()..].chars().next())
                })
            })
    };
    let ranges = LIMITS
        .iter()
        .map(|l| (l.table, l.key, format!("{} to {}", l.min, l.max)));
    let mut compared = 0;
    for (table, key, words) in ranges.chain(limit_words()) {
        assert!(
            says(table, key, &words),
            "`{key}` of {table} in docs/scenarios.md: {words}"
        );
        compared += 1;
    }
    assert!(compared >= 25, "{compared}");
    assert!(DOCS.contains(&format!("{TEXT_LEN_MAX} bytes")));
    assert!(
        !says("[[load]]", "flows", "1 to 20000"),
        "a part of a number is not it"
    );
}

fn committed() -> Vec<(&'static str, Scenario)> {
    let read = |name: &str| {
        embedded(name)
            .map(str::to_owned)
            .ok_or_else(|| format!("no {name}"))
    };
    let parse = |&(name, text): &(&'static str, &'static str)| {
        let scenario = parse(name, text, &read).unwrap_or_else(|e| panic!("{}", report(&e)));
        (name, scenario)
    };
    EMBEDDED.iter().map(parse).collect()
}

#[test]
fn committed_scenarios_are_read_and_named_after_their_files() {
    let files: BTreeSet<_> = folder("scenarios").into_iter().map(|f| f.0).collect();
    let built_in: BTreeSet<_> = EMBEDDED.iter().map(|e| e.0.to_owned()).collect();
    assert_eq!(files, built_in);
    let scenarios = committed();
    for (file, scenario) in &scenarios {
        assert_eq!(*file, format!("{}.toml", scenario.name));
        assert!(!scenario.description.is_empty());
        // What it does can be said.
        assert!(explain(scenario).starts_with(&scenario.name));
    }
    // Every number of the catalogue is there; all but those that wait have a counter-proof.
    let numbers: BTreeSet<u32> = scenarios.iter().filter_map(|s| s.1.number).collect();
    assert_eq!(numbers, (1..=40).collect());
    let waiting: BTreeSet<u32> = scenarios
        .iter()
        .filter(|s| s.1.waits_for.is_some())
        .filter_map(|s| s.1.number)
        .collect();
    assert_eq!(waiting, BTreeSet::from([9, 10, 14, 18, 19, 25, 28, 39, 40]));
    for (file, scenario) in scenarios
        .iter()
        .filter(|s| s.1.waits_for.is_none() && s.1.off.is_none())
    {
        let proof = file.replace(".toml", ".off.toml");
        let proof = scenarios
            .iter()
            .find(|s| s.0 == proof)
            .unwrap_or_else(|| panic!("{file} has no counter-proof"));
        let off = proof.1.off.as_ref().expect("it is one");
        assert_eq!(off.base, *file);
        assert!(!off.fails.is_empty());
        assert!(!scenario.expects.is_empty());
    }
}

#[test]
fn an_exception_of_a_node_is_that_nodes_only() {
    let cluster = "[cluster]\nnodes = 3\ntable = 512\n[[cluster.node]]\nid = 2\ntable = 128\n[[service]]";
    let text = GOOD.replacen("[[service]]", cluster, 1);
    let scenario = parse("good.toml", &text, &base).expect("good");
    let tables: Vec<_> = scenario.cluster.nodes.iter().map(|n| n.table).collect();
    assert_eq!(tables, [512, 128, 512]);
}

#[test]
fn the_main_scenario_is_what_the_project_promises() {
    let scenarios = committed();
    let find = |name: &str| &scenarios.iter().find(|s| s.1.name == name).expect(name).1;
    insta::assert_snapshot!(
        "explain_active_backup_crash",
        explain(find("active-backup-crash"))
    );
    insta::assert_snapshot!("explain_missed_close", explain(find("missed-close.off")));
    let main = find("active-backup-crash");
    assert_eq!(main.cluster.nodes.len(), 2);
    assert!(main.cluster.nodes.iter().all(|n| n.workers == 2));
    assert!(main.services.iter().all(|s| s.servers == 3));
    assert_eq!(main.services.iter().filter(|s| s.vip.is_ipv4()).count(), 1);
    assert_eq!(main.services.len(), 2);
    assert_eq!(main.duration.as_secs(), 60);
}

const DOCS: &str = include_str!("../../docs/scenarios.md");

/// Every block of TOML in the reference is a scenario that is read.
fn examples() -> Vec<String> {
    DOCS.split("```toml\n")
        .skip(1)
        .map(|b| b.split("```").next().expect("its end").to_owned())
        .collect()
}

#[test]
fn docs_example_runs() {
    let examples = examples();
    assert!(!examples.is_empty());
    let mut ran = 0;
    for (i, example) in examples.iter().enumerate() {
        let read = |name: &str| match name {
            "first.toml" => Ok(examples[0].clone()),
            other => Err(format!("no {other}")),
        };
        let scenario =
            parse("example.toml", example, &read).unwrap_or_else(|e| panic!("example {i}: {}", report(&e)));
        let options = evenkeel_sim_scenarios::Options::default();
        let result = evenkeel_sim_scenarios::run(&scenario, 1, &options, &mut || true).expect("it runs");
        assert!(result.pass, "example {i}: {}", result.text("example.toml"));
        assert!(result.connections > 0);
        ran += 1;
    }
    assert!(ran >= 2, "the example and its counter-proof");
}

#[test]
fn docs_name_every_word_of_the_language() {
    let words = METRICS
        .iter()
        .map(|m| m.0)
        .chain(ORACLES.iter().map(|o| o.0))
        .chain(Mechanism::ALL.iter().map(|m| m.0))
        .chain(Kind::ALL.iter().map(|k| k.0))
        .chain(Happening::ALL.iter().map(|h| h.0))
        .chain(Phase::ALL.iter().map(|p| p.0))
        .chain(SYNC_COUNTERS)
        .chain(node_counters())
        .chain(DropReason::ALL.iter().map(|r| r.name()));
    let missing: Vec<_> = words.filter(|w| !DOCS.contains(&format!("`{w}`"))).collect();
    assert!(missing.is_empty(), "not in docs/scenarios.md: {missing:?}");
}

/// What was written is read again, by itself.
fn reread(scenario: &Scenario) -> Scenario {
    let text = write(scenario);
    parse("written.toml", &text, &base).unwrap_or_else(|e| panic!("{}\n{text}", report(&e)))
}

#[test]
fn what_is_written_is_read_as_an_equal_scenario() {
    let mut plans = 0;
    for (name, scenario) in committed() {
        assert_eq!(reread(&scenario), scenario, "{name}");
        if scenario.waits_for.is_some() {
            continue;
        }
        for seed in [0, u64::MAX] {
            let planned = plan(&scenario, seed);
            assert_eq!(planned.seed, Some(seed));
            assert_eq!(reread(&planned), planned, "{name}, seed {seed}");
            assert_eq!(
                plan(&planned, seed),
                planned,
                "{name}: nothing is left to be drawn"
            );
            plans += 1;
        }
    }
    assert!(plans > 40, "{plans}");
    // What names and texts may hold.
    let odd = GOOD.replace("nothing happens", r#"a \"b\" \\ c\u007F, two\nlines"#);
    let odd = odd + r#"name = "x \"y\" \\ z""# + "\n";
    let odd = parse("odd.toml", &odd, &base).expect("good");
    assert_eq!(reread(&odd), odd);
}

/// What nodes may be and what may be done to them, and when, as committed scenarios do not all say it.
const OF_NODES: &str = r#"
name = "nodes"
description = "clocks, paces, tables, configs, occasions"
duration = "30s"
[cluster]
nodes = 3
bulk_delay = "20ms"
drift = "-20ppm..30ppm"
frame_cost = "250ns"
[[cluster.node]]
id = 2
drift = "-7ppm"
frame_cost = "1us"
format = 1
[[service]]
name = "web"
vip = "192.0.2.10:80"
servers = 2
[[service]]
name = "later"
vip = "192.0.2.11:80"
served = "off"
[[load]]
name = "long"
services = ["web"]
flows = 10
[[fault]]
name = "timed"
do = "drift"
node = "1"
drift = "-100ppm"
at = "3s..4s"
for = "1s..2s"
[[fault]]
name = "taken"
do = "crash"
state = "off"
node = "backup"
at = "on(takeover, master) + 5ms..50ms"
after = "timed"
optional = "on"
for = "2s"
[[fault]]
name = "behind"
do = "slow"
node = "2"
worker = 0
factor = 30
at = "1ms..9ms"
after = "taken"
for = "1s"
[[fault]]
do = "slow"
node = "2"
factor = 3
at = "during(bulk)"
optional = "on"
[[fault]]
do = "rings"
node = "1"
entries = 4
at = "5s"
[[fault]]
do = "fill"
node = "1"
share = "12.5%"
at = "5s"
[[fault]]
do = "damage"
node = "2"
share = "10%"
at = "5s"
[[fault]]
do = "step"
node = "2"
by = "3s"
at = "5s"
[[fault]]
do = "step"
node = "2"
by = "-3s"
wall = "on"
at = "5s"
[[fault]]
do = "config"
service = "web"
servers = 4
at = "6s"
for = "1s"
[[fault]]
do = "config"
node = "2"
service = "web"
server = 1
weight = 7
at = "6s"
[[fault]]
do = "config"
service = "later"
served = "on"
at = "6s"
[[fault]]
do = "unhealthy"
service = "web"
server = 2
at = "7s"
for = "1s"
[[fault]]
do = "unhealthy"
node = "3"
service = "web"
server = 2
at = "7s"
[[fault]]
do = "crash"
node = "3"
at = "8s"
[[fault]]
do = "start"
node = "3"
state = "off"
at = "1s"
after = "crash-15"
[[expect]]
that = "broken == unsynced"
"#;

#[test]
fn what_nodes_are_and_what_faults_wait_for_is_written_and_planned() {
    let scenario = parse("nodes.toml", OF_NODES, &base).unwrap_or_else(|e| panic!("{}", report(&e)));
    assert_eq!(reread(&scenario), scenario);
    let planned = plan(&scenario, 3);
    assert_eq!(reread(&planned), planned);
    assert_eq!(plan(&planned, 3), planned, "nothing is left to be drawn");
    let of = |name: &str| planned.faults.iter().find(|f| f.name == name).expect(name);
    assert!(planned.faults.iter().all(|f| f.at.start() == f.at.end()));
    let drifts = planned.cluster.nodes.iter().map(|n| &n.drift_ppm);
    assert!(drifts.clone().all(|d| d.start() == d.end()));
    assert_eq!(*planned.cluster.nodes[1].drift_ppm.start(), -7);
    // What waits goes on waiting, and what is after it; what has a time has one of its own.
    let ms = std::time::Duration::from_millis;
    assert!((ms(5)..=ms(50)).contains(of("taken").at.start()));
    assert!((of("taken").when.is_some(), of("taken").after) == (true, Some(0)));
    assert!((ms(1)..=ms(9)).contains(of("behind").at.start()));
    assert_eq!(of("behind").after, Some(1));
    assert_eq!(
        (of("start-16").after, *of("start-16").at.start()),
        (None, ms(9_000))
    );
}

#[test]
fn a_fault_or_a_flow_less_leaves_all_other_draws() {
    for (name, scenario) in committed() {
        let planned = plan(&scenario, 7);
        let free = |i: usize| planned.faults.iter().all(|f| f.after != Some(i));
        for i in (0..scenario.faults.len()).filter(|i| {
            free(*i)
                && scenario
                    .faults
                    .iter()
                    .all(|f| f.after.is_none() || f.after < Some(*i))
        }) {
            let (mut fewer, mut expected) = (scenario.clone(), planned.clone());
            fewer.faults.remove(i);
            expected.faults.remove(i);
            assert_eq!(plan(&fewer, 7), expected, "{name} without fault {i}");
        }
        for i in 0..scenario.loads.len() {
            let (mut fewer, mut expected) = (scenario.clone(), planned.clone());
            fewer.loads.remove(i);
            expected.loads.remove(i);
            assert_eq!(plan(&fewer, 7), expected, "{name} without load {i}");
        }
    }
}
