//! `evenkeel sim` from outside: arguments, exit codes, what goes to which stream.

mod support;

use std::fs;
use std::path::PathBuf;

use support::{command, evenkeel, folder, stderr, stdout, text};

const DOCS: &str = include_str!("../../docs/scenarios.md");

/// The first example of the reference, as a file.
fn example(test: &str, change: impl Fn(String) -> String) -> PathBuf {
    let block = DOCS.split("```toml\n").nth(1).expect("an example");
    let block = block.split("```").next().expect("its end").to_owned();
    let path = folder(test).join("first.toml");
    fs::write(&path, change(block)).expect("written");
    path
}

#[test]
fn sim_run_passes_and_says_what_it_saw() {
    let path = example("sim_run_passes", |t| t);
    let run = evenkeel(&["sim", "run", text(&path), "--seed", "3"]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let out = stdout(&run);
    assert!(out.starts_with("first: seed 3: PASS\n"), "{out}");
    for word in ["connections:", "broken:       0", "stall:", "digest:"] {
        assert!(out.contains(word), "{word} in {out}");
    }
    let json = evenkeel(&[
        "sim",
        "run",
        text(&path),
        "--seeds",
        "0..3",
        "--json",
        "--jobs",
        "2",
    ]);
    assert_eq!(json.status.code(), Some(0));
    let lines: Vec<serde_json::Value> = stdout(&json)
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!(
        lines.iter().map(|l| l["seed"].as_u64()).collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2)]
    );
    for key in [
        "scenario",
        "pass",
        "digest",
        "connections",
        "replicated",
        "broken",
        "stall_ms",
        "detection_ms",
        "drops",
        "probes",
    ] {
        assert!(lines[0].get(key).is_some(), "{key}");
    }
    assert_eq!(lines[0]["digest"].as_str().map(str::len), Some(32));
}

#[test]
fn sim_run_beyond_a_bound_has_an_outcome_and_an_exit_code_of_its_own() {
    let bounded = |t: String| t.replacen("duration", "events_max = 1000\nduration", 1);
    let path = example("sim_run_bound", bounded);
    let run = evenkeel(&["sim", "run", text(&path), "--seeds", "0..2"]);
    assert_eq!(run.status.code(), Some(4), "{}", stderr(&run));
    let out = stdout(&run);
    for seed in 0..2 {
        assert!(
            out.contains(&format!("first: seed {seed}: EXCEEDED\n  more than 1000 events")),
            "{out}"
        );
    }
    let run = evenkeel(&["sim", "run", text(&path), "--json"]);
    assert_eq!(run.status.code(), Some(4));
    let line: serde_json::Value = serde_json::from_str(&stdout(&run)).expect("JSON");
    assert_eq!(
        (line["outcome"].as_str(), line["pass"].as_bool()),
        (Some("exceeded"), Some(false))
    );
    assert!(
        line["error"].as_str().is_some_and(|e| e.contains("`events_max`")),
        "{line}"
    );
}

#[test]
fn sim_diff_finds_the_first_event_and_compares_with_a_trail() {
    let path = example("sim_diff", |t| t);
    let trail = path.with_extension("trail");
    let run = evenkeel(&[
        "sim",
        "run",
        text(&path),
        "--seed",
        "3",
        "--queue",
        "heap",
        "--trail",
        text(&trail),
    ]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let diff = |args: &[&str]| evenkeel(&[&["sim", "diff", text(&path), "--seed", "3"], args].concat());
    for same in [&["--other-queue", "heap"][..], &["--trail", text(&trail)], &[]] {
        let run = diff(same);
        assert_eq!(
            run.status.code(),
            Some(0),
            "{same:?}: {}{}",
            stdout(&run),
            stderr(&run)
        );
        assert!(stdout(&run).starts_with("the same: "), "{same:?}");
    }
    let run = diff(&["--other-seed", "4", "--before", "2"]);
    assert_eq!(run.status.code(), Some(3), "{}", stderr(&run));
    let out = stdout(&run);
    assert!(out.starts_with("the first event that differs; "), "{out}");
    assert!(out.contains("\n- event ") && out.contains("\n+ event "), "{out}");
    let json = diff(&["--other-seed", "4", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&stdout(&json)).expect("JSON");
    assert_eq!(line["outcome"].as_str(), Some("event"));
    // A trail of another run, and what is none.
    let run = evenkeel(&["sim", "diff", text(&path), "--seed", "4", "--trail", text(&trail)]);
    assert_eq!(run.status.code(), Some(1));
    assert!(
        stderr(&run).contains("the trail is of first, seed 3"),
        "{}",
        stderr(&run)
    );
    let run = diff(&["--trail", text(&path)]);
    assert_eq!(run.status.code(), Some(1));
    assert!(stderr(&run).contains("is no trail: line 1"), "{}", stderr(&run));
}

#[test]
fn sim_run_that_fails_names_the_command_that_replays_it() {
    let path = example("sim_run_fails", |t| t.replace("broken == 0", "broken == 1"));
    let run = evenkeel(&["sim", "run", text(&path)]);
    assert_eq!(run.status.code(), Some(3));
    let out = stdout(&run);
    assert!(
        out.contains("expected: broken == 1") && out.contains("seen:     broken = 0"),
        "{out}"
    );
    assert!(
        out.contains(&format!("replay: evenkeel sim run {} --seed 0", text(&path))),
        "{out}"
    );
    let run = evenkeel(&["sim", "run", text(&path), "--seed", "5", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&run)).expect("JSON");
    let replay = format!("evenkeel sim run {} --seed 5", text(&path));
    assert_eq!(json["replay"], replay.as_str());
    let good = example("sim_run_fails_not", |t| t);
    let run = evenkeel(&["sim", "run", text(&good), "--json"]);
    assert!(!stdout(&run).contains("\"replay\""), "nothing failed");
    let summary = stdout(&evenkeel(&["sim", "run", text(&path), "--seeds", "0..2"]));
    assert!(summary.contains("  replicated:   0 of "), "{summary}");
    assert!(summary.contains("  detection:    none\n"), "{summary}");
}

#[test]
fn sim_run_skips_what_waits() {
    let run = evenkeel(&["sim", "run", "sim-scenarios/scenarios/query-finds.toml"]);
    assert_eq!(run.status.code(), Some(0));
    assert_eq!(stdout(&run), "query-finds: SKIP, waits for QUERY\n");
}

#[test]
fn sim_refuses_with_a_remedy() {
    let bad = folder("sim_refuses").join("bad.toml");
    fs::write(&bad, "duration = \"5 s\"\n").expect("written");
    let good = example("sim_refuses_good", |t| t);
    let latin = bad.with_file_name("latin.toml");
    fs::write(&latin, b"quiet =\"1s\"\nname = \"\xe9t\xe9\"\n").expect("written");
    let proof = bad.with_file_name("latin.off.toml");
    let text_of_it = "name = \"latin.off\"\ndescription = \"d\"\nbase = \"latin.toml\"\n[off]\nmechanism = \"replication\"\nfails = [\"x\"]\n";
    fs::write(&proof, text_of_it).expect("written");
    let long = bad.with_file_name("long.toml");
    fs::write(&long, "#".repeat(34_000_000)).expect("written");
    for (args, words) in [
        (&["sim", "run"][..], "<FILE>"),
        (&["sim", "run", "no-such-scenario"], "there is no scenario"),
        (&["sim", "run", text(&bad)], "write \"5s\""),
        (&["sim", "run", text(&good), "--seeds", "3..3"], "B is excluded"),
        (
            &["sim", "run", text(&good), "--seed", "1", "--seeds", "0..3"],
            "cannot be used with",
        ),
        (
            &["sim", "run", text(&good), "--seeds-from", "main:3"],
            "hexadecimal",
        ),
        (
            &["sim", "run", text(&good), "--seeds", "0..2", "--trace"],
            "single run",
        ),
        (
            &["sim", "run", "-", text(&good), "-"],
            "standard input is given more than once",
        ),
        (
            &["sim", "run", text(&latin)],
            "is no text: line 2, column 9 (byte 20) is not UTF-8",
        ),
        (&["sim", "run", text(&latin)], "save it as UTF-8"),
        (
            &["sim", "run", text(&proof)],
            "latin.toml is no text: line 2, column 9 (byte 20) is not UTF-8",
        ),
        (&["sim", "run", text(&long)], "is 34000000 bytes long"),
        (&["sim", "explain", text(&long)], "33554432 bytes at most"),
        (&["sim", "list", "/nonexistent"], "cannot list"),
        (&["sim", "explain", "no-such-scenario"], "there is no scenario"),
    ] {
        let refused = evenkeel(args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
        // Long lines are broken.
        let said = stderr(&refused).replace("\n  │ ", " ");
        assert!(said.contains(words), "{args:?}: {said}");
        assert_eq!(stdout(&refused), "", "{args:?}");
    }
}

#[test]
fn sim_list_shows_the_whole_catalogue() {
    let list = evenkeel(&["sim", "list"]);
    assert_eq!(list.status.code(), Some(0));
    insta::assert_snapshot!("sim_list", stdout(&list));
    let json = evenkeel(&["sim", "list", "--json"]);
    let all: Vec<serde_json::Value> = serde_json::from_str(&stdout(&json)).expect("JSON");
    assert_eq!(all.iter().filter(|s| s["waits_for"].is_string()).count(), 9);
}

#[test]
fn sim_run_writes_captures_and_a_trace() {
    let path = example("sim_captures", |t| t);
    let captures = folder("sim_captures_out");
    let run = evenkeel(&["sim", "run", text(&path), "--pcap", text(&captures), "--trace"]);
    assert_eq!(run.status.code(), Some(0));
    assert!(stderr(&run).contains("established"));
    let files = fs::read_dir(&captures).expect("the folder").count();
    assert!(files >= 6, "{files} captures");
}

#[test]
fn sim_help_has_examples_and_exit_codes() {
    for args in [
        &["sim", "--help"][..],
        &["sim", "run", "--help"],
        &["sim", "new", "--help"],
        &["sim", "list", "--help"],
        &["sim", "explain", "--help"],
        &["sim", "bench", "--help"],
    ] {
        let help = evenkeel(args);
        assert_eq!(help.status.code(), Some(0));
        assert!(
            stdout(&help).contains("Examples:") && stdout(&help).contains("Exit codes: 0"),
            "{args:?}"
        );
    }
}

#[test]
fn sim_run_tells_ci_systems_what_failed_and_where() {
    let path = example("sim_ci", |t| t.replace("broken == 0", "broken == 1"));
    let xml = path.with_file_name("results.xml");
    let line = fs::read_to_string(&path).expect("text");
    let line = line
        .lines()
        .position(|l| l.contains("broken == 1"))
        .expect("there")
        + 1;
    let run = |more: &[&str]| {
        let mut args = vec!["sim", "run", text(&path), "query-finds", "--seeds", "0..3"];
        args.extend(more);
        evenkeel(&args)
    };
    let all = run(&["--junit", text(&xml), "--annotations", "github"]);
    assert_eq!(all.status.code(), Some(3), "{}", stderr(&all));
    let told = stdout(&all);
    let place = format!(
        "::error file={},line={line},col=8,title=first%3A broken == 1::",
        text(&path)
    );
    assert_eq!(told.matches(&place).count(), 1, "{told}");
    assert!(
        told.contains("%0Ain 3 runs; this is the first%0Areplay: "),
        "{told}"
    );
    let results = fs::read_to_string(&xml).expect("written");
    let counts = "tests=\"4\" failures=\"3\" errors=\"0\" skipped=\"1\"";
    assert!(
        results.contains(&format!("<testsuites name=\"evenkeel sim\" {counts}")),
        "{results}"
    );
    assert!(results.contains("<skipped message=\"waits for QUERY\"/>"));
    // JSON has standard output for itself.
    let json = run(&["--json", "--annotations", "github"]);
    assert!(stdout(&json).lines().all(|l| l.starts_with('{')));
    assert!(stderr(&json).contains(&place));
    // The shards together have each run once, and what is skipped once.
    let mut seeds = Vec::new();
    for shard in ["0/2", "1/2"] {
        for line in stdout(&run(&["--json", "--shard", shard])).lines() {
            let run: serde_json::Value = serde_json::from_str(line).expect("JSON");
            seeds.push(run["seed"].as_u64());
        }
    }
    seeds.sort_unstable();
    assert_eq!(seeds, [None, Some(0), Some(1), Some(2)]);
    let none = run(&["--shard", "7/8"]);
    assert_eq!(none.status.code(), Some(0));
    assert_eq!(stdout(&none), "no run is in shard 7/8: there are 3\n");
    let refused = run(&["--junit", "/nonexistent/results.xml"]);
    assert_eq!((refused.status.code(), stdout(&refused).as_str()), (Some(1), ""));
    assert!(stderr(&refused).contains("cannot write /nonexistent/results.xml"));
}

#[test]
fn sim_run_tells_ci_systems_which_scenario_is_refused_and_where() {
    let good = example("sim_ci_refused", |t| t);
    let bad = good.with_file_name("bad.toml");
    let text_of_it = fs::read_to_string(&good).expect("text").replace("10%", "101%");
    fs::write(&bad, &text_of_it).expect("written");
    let line = text_of_it
        .lines()
        .position(|l| l.contains("101%"))
        .expect("there")
        + 1;
    let latin = good.with_file_name("latin.toml");
    fs::write(&latin, b"quiet =\"1s\"\nname = \"\xe9t\xe9\"\n").expect("written");
    let xml = good.with_file_name("results.xml");
    let files = [text(&bad), text(&good), "no-such-scenario", text(&latin)];
    let args = [&["sim", "run", "--junit", text(&xml)][..], &files].concat();
    let run = command(&args)
        .env("GITHUB_ACTIONS", "true")
        .output()
        .expect("runs");
    assert_eq!(run.status.code(), Some(1), "{}", stderr(&run));
    let told = stdout(&run);
    for place in [
        format!("::error file={},line={line},col=8,title=", text(&bad)),
        format!("::error file={},line=2,col=9,title=", text(&latin)),
        "::error title=no-such-scenario%3A refused%3A there is no scenario no-such-scenario::".to_owned(),
    ] {
        assert_eq!(told.matches(&place).count(), 1, "{place} in {told}");
    }
    // Nothing ran, and all that is wrong is said.
    assert!(told.lines().all(|l| l.starts_with("::error ")), "{told}");
    for words in ["101%", "there is no scenario", "is not UTF-8"] {
        assert!(stderr(&run).contains(words), "{words} in {}", stderr(&run));
    }
    let results = fs::read_to_string(&xml).expect("written");
    assert!(
        results.contains("tests=\"3\" failures=\"0\" errors=\"3\""),
        "{results}"
    );
    assert!(
        results.contains(&format!("line {line}, column 8: &quot;101%&quot;")),
        "{results}"
    );
    // JSON has standard output for itself.
    let args = [&args[..], &["--json"]].concat();
    let json = command(&args)
        .env("GITHUB_ACTIONS", "true")
        .output()
        .expect("runs");
    assert_eq!((json.status.code(), stdout(&json).as_str()), (Some(1), ""));
    assert!(stderr(&json).contains("::error "), "{}", stderr(&json));
}

#[test]
fn sim_run_tells_ci_systems_of_a_run_without_a_result() {
    let bounded = |t: String| t.replacen("duration", "events_max = 1000\nduration", 1);
    let path = example("sim_ci_bound", bounded);
    let xml = path.with_file_name("results.xml");
    let told_to = ["--junit", text(&xml), "--annotations", "github"];
    let args = [&["sim", "run", text(&path), "--seeds", "3..5"][..], &told_to].concat();
    let run = evenkeel(&args);
    assert_eq!(run.status.code(), Some(4), "{}", stderr(&run));
    let place = format!(
        "::error file={},line=1,col=1,title=first%3A exceeded::more than 1000 events",
        text(&path)
    );
    let replay = format!("evenkeel sim run {} --seed 3", text(&path));
    let out = stdout(&run);
    let line = out.lines().find(|l| l.starts_with(&place)).expect(&out);
    assert!(line.contains("%0Ain 2 runs; this is the first"), "{line}");
    assert!(line.ends_with(&format!("%0Areplay: {replay}")), "{line}");
    let results = fs::read_to_string(&xml).expect("written");
    assert!(
        results.contains("<error type=\"exceeded\" message=\"more than 1000 events"),
        "{results}"
    );
    assert!(results.contains(&format!("replay: {replay}&#10;")), "{results}");
}

#[test]
fn sim_new_writes_what_passes_and_writes_nothing_over() {
    let folder = folder("sim_new");
    let path = folder.join("a-worry");
    let new = evenkeel(&["sim", "new", text(&path)]);
    assert_eq!(new.status.code(), Some(0), "{}", stderr(&new));
    let file = path.with_extension("toml");
    let written = fs::read_to_string(&file).expect("written");
    assert!(written.contains("name = \"a-worry\"") && written.contains("# To see the scenario fail"));
    assert!(stdout(&new).contains(&format!("evenkeel sim run {}", text(&file))));
    for (args, words) in [
        (&["sim", "new", text(&path)][..], "is there already"),
        (
            &["sim", "new", text(&folder.join("not a name"))],
            "cannot be a scenario's name",
        ),
        (
            &["sim", "new", text(&folder.join("x")), "--template", "none"],
            "give one of active-backup, single",
        ),
        (&["sim", "new", "/nonexistent/x"], "cannot write"),
        (
            &["sim", "new", ".."],
            "cannot make ...toml: \"..\" cannot be a scenario's name",
        ),
        (&["sim", "new", "."], "cannot make ..toml: \".\""),
        (
            &["sim", "new", &format!("{}/", text(&folder))],
            ".toml: \"\" cannot be a scenario's name",
        ),
        (
            &["sim", "new", text(&folder.join(".hidden"))],
            "\".hidden\" cannot be a scenario's name",
        ),
    ] {
        let refused = evenkeel(args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
        assert!(
            stderr(&refused).replace("\n  │ ", " ").contains(words),
            "{args:?}: {}",
            stderr(&refused)
        );
    }
    assert_eq!(fs::read_to_string(&file).expect("there"), written);
    assert_eq!(fs::read_dir(&folder).expect("there").count(), 1);
    let list = stdout(&evenkeel(&["sim", "new", "--list-templates"]));
    assert!(
        list.lines().count() >= 2 && list.starts_with("active-backup  The master of two nodes"),
        "{list}"
    );
}

#[test]
fn sim_run_draws_a_page_for_each_run() {
    let path = example("sim_report", |t| t);
    let pages = folder("sim_report_out").join("new");
    let run = evenkeel(&[
        "sim",
        "run",
        text(&path),
        "--seeds",
        "0..2",
        "--report",
        text(&pages),
    ]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    for seed in [0, 1] {
        let page = fs::read_to_string(pages.join(format!("first-{seed}.html"))).expect("written");
        assert!(page.contains(&format!("<title>first, seed {seed}: ✓ PASS</title>")));
        let replay = format!("evenkeel sim run {} --seed {seed}", text(&path));
        assert!(page.contains(&replay), "{replay}");
    }
    let refused = evenkeel(&[
        "sim",
        "run",
        text(&path),
        "--report",
        text(&pages),
        "--flow",
        "50",
    ]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("there is no flow 50: the scenario has 50"),
        "{}",
        stderr(&refused)
    );
    let refused = evenkeel(&["sim", "run", text(&path), "--flow", "5"]);
    assert_eq!(refused.status.code(), Some(1), "--flow without --report");
}

#[test]
fn sim_bench_says_how_fast_a_run_was_beside_its_floor() {
    let path = example("sim_bench", |t| t);
    let bench = |path: &PathBuf| evenkeel(&["sim", "bench", text(path), "--floor", "--brief"]);
    let run = bench(&path);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let out = stdout(&run);
    let number = |before: &str, after: &str| -> f64 {
        let at = out
            .split_once(before)
            .unwrap_or_else(|| panic!("{before} in {out}"))
            .1;
        let said = at
            .split_once(after)
            .unwrap_or_else(|| panic!("{after} in {at}"))
            .0;
        said.trim().parse().unwrap_or_else(|_| panic!("{said} in {out}"))
    };
    for (before, after) in [
        ("simulated, ", " connections"),
        ("connections, ", " events"),
        ("events, ", " packet-hops\n"),
        ("rate:  ", " events/s"),
        ("events/s, ", " packet-hops/s"),
        ("packet-hops/s, ", " simulated s/s"),
        ("memory: ", " MiB"),
        ("ratio: ", "\n"),
    ] {
        assert!(number(before, after) > 0.0, "{before} in {out}");
    }
    // A scenario that fails is no measure.
    let fails = example("sim_bench_fails", |t| {
        t + "\n[[expect]]\nthat = \"connections == 0\"\n"
    });
    let run = bench(&fails);
    assert_eq!(run.status.code(), Some(3), "{}", stdout(&run));
}

#[test]
fn sim_plan_prints_a_file_that_runs_as_its_seed_did() {
    let path = example("sim_plan", |t| t);
    let plan = evenkeel(&["sim", "plan", text(&path), "--seed", "5"]);
    assert_eq!(plan.status.code(), Some(0), "{}", stderr(&plan));
    let file = folder("sim_plan_file").join("plan.toml");
    fs::write(&file, stdout(&plan)).expect("written");
    let digest = |args: &[&str]| {
        let run = evenkeel(args);
        assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
        let run: serde_json::Value = serde_json::from_str(&stdout(&run)).expect("JSON");
        (run["seed"].as_u64(), run["digest"].clone())
    };
    let of_seed = digest(&["sim", "run", text(&path), "--seed", "5", "--json"]);
    assert_eq!(digest(&["sim", "run", text(&file), "--json"]), of_seed);
    assert_eq!(of_seed.0, Some(5));
    // Printed again it is the same.
    let again = evenkeel(&["sim", "plan", text(&file)]);
    assert_eq!(stdout(&again), stdout(&plan));
}

#[test]
fn sim_shrink_leaves_what_fails_and_refuses_what_passes() {
    let path = example("sim_shrink", |t| t.replace("slowest >= 200ms", "slowest >= 200s"));
    let small = evenkeel(&["sim", "shrink", text(&path), "--seed", "1", "--runs", "60"]);
    assert_eq!(small.status.code(), Some(0), "{}", stderr(&small));
    let out = stdout(&small);
    // Without its fault and with one flow it is as slow as that.
    assert!(!out.contains("[[fault]]"), "{out}");
    let file = folder("sim_shrink_file").join("small.toml");
    fs::write(&file, &out).expect("written");
    let run = evenkeel(&["sim", "run", text(&file), "--json"]);
    assert_eq!(run.status.code(), Some(3), "{}", stderr(&run));
    let run: serde_json::Value = serde_json::from_str(&stdout(&run)).expect("JSON");
    assert_eq!(run["connections"], 1);
    assert_eq!(run["failures"][0]["name"], "loss-is-seen");
    assert_eq!(run["failures"].as_array().map(Vec::len), Some(1), "{run}");
    let well = example("sim_shrink_well", |t| t);
    let refused = evenkeel(&["sim", "shrink", text(&well), "--seed", "1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("passes with seed 1"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn sim_swarm_sums_up_what_its_seeds_did() {
    // The last seeds of all, with two jobs and with one: the same.
    let seeds = format!("{}..{}", u64::MAX - 2, u64::MAX);
    let told = |jobs: &str| {
        let run = evenkeel(&[
            "sim", "swarm", "--seeds", &seeds, "--jobs", jobs, "--json", "--shrink", "0",
        ]);
        let out = stdout(&run);
        let whole = out.lines().last().expect("a line").to_owned();
        let whole: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
        assert_eq!(whole["runs"], 2);
        let failed = whole["failed"].as_u64() != Some(0);
        assert_eq!(
            run.status.code(),
            Some(if failed { 3 } else { 0 }),
            "{}",
            stderr(&run)
        );
        out
    };
    assert_eq!(told("1"), told("2"));
    let drawn = evenkeel(&["sim", "swarm", "--seeds", "7..8", "--print"]);
    assert!(
        stdout(&drawn).starts_with("name = \"swarm-7\"\n"),
        "{}",
        stdout(&drawn)
    );
}

#[test]
fn sim_swarm_draws_from_a_commit_and_is_shared_out() {
    let xml = folder("sim_swarm_ci").join("swarm.xml");
    let swarm = |more: &[&str]| {
        let args = [
            "sim",
            "swarm",
            "--seeds-from",
            "0123abcdef:3",
            "--junit",
            text(&xml),
        ];
        let run = evenkeel(&[&args[..], &["--annotations", "github"], more].concat());
        assert_eq!(run.status.code(), Some(0), "{}{}", stdout(&run), stderr(&run));
        stdout(&run)
    };
    let names = |out: &str| -> Vec<String> {
        let names = out.lines().filter(|l| l.starts_with("name = \"swarm-"));
        names
            .map(|l| l.replace("name = \"swarm-", "seed ").replace('"', ""))
            .collect()
    };
    // Of another commit they are others.
    let drawn = names(&swarm(&["--print"]));
    let other = evenkeel(&["sim", "swarm", "--seeds-from", "0123abd:3", "--print"]);
    assert_eq!(drawn.len(), 3);
    assert!(names(&stdout(&other)).iter().all(|n| !drawn.contains(n)));
    let mut ran = Vec::new();
    for shard in ["0/2", "1/2"] {
        swarm(&["--shard", shard]);
        let results = fs::read_to_string(&xml).expect("written");
        assert!(results.contains("<testsuite name=\"swarm\" tests="), "{results}");
        let cases = results.split("<testcase classname=\"swarm\" name=\"").skip(1);
        ran.extend(cases.map(|c| c.split('"').next().unwrap_or_default().to_owned()));
    }
    ran.sort_by_key(|name| drawn.iter().position(|d| d == name));
    assert_eq!(ran, drawn, "each seed is in one shard");
    let refused = evenkeel(&["sim", "swarm", "--seeds", "0..2", "--seeds-from", "0123abc:3"]);
    assert_eq!(refused.status.code(), Some(1));
}

#[cfg(feature = "planted-bugs")]
#[test]
fn sim_swarm_tells_ci_systems_what_failed_and_how_to_see_it_again() {
    let xml = folder("sim_swarm_ci_fails").join("swarm.xml");
    let swarm = ["swarm", "--seeds", "1000000..1000001", "--shrink", "0"];
    let told_to = ["--junit", text(&xml), "--annotations", "github"];
    let run = evenkeel(&[&["sim", "--plant", "checksum"][..], &swarm, &told_to].concat());
    assert_eq!(run.status.code(), Some(3), "{}", stderr(&run));
    let replay = "replay: evenkeel sim swarm --seeds 1000000..1000001";
    let out = stdout(&run);
    let line = out.lines().find(|l| l.starts_with("::error title=swarm%3A "));
    assert!(line.expect(&out).ends_with(&format!("%0A{replay}")), "{out}");
    let results = fs::read_to_string(&xml).expect("written");
    assert!(
        results.contains("<testsuite name=\"swarm\" tests=\"1\" failures=\"1\""),
        "{results}"
    );
    assert!(
        results.contains("<failure type=\"") && results.contains(replay),
        "{results}"
    );
}
