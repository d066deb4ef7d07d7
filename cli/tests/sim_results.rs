//! Where results of `evenkeel sim` go, and what is left of them if nobody reads, a disk is full or the process is killed.

mod support;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{command, evenkeel, folder, stderr, stdout, text};

const DOCS: &str = include_str!("../../docs/scenarios.md");

/// The first example of the reference, with an expectation that does not hold.
fn failing(folder: &Path, file: &str) -> PathBuf {
    let block = DOCS.split("```toml\n").nth(1).expect("an example");
    let block = block.split("```").next().expect("its end");
    let path = folder.join(file);
    fs::write(
        &path,
        block
            .replace("broken == 0", "broken == 1")
            .replace("flows = 50", "flows = 3"),
    )
    .expect("written");
    path
}

/// The exit code of a command whose output nobody reads.
fn unread(args: &[&str]) -> Option<i32> {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let mut command = command(args);
    command.stdout(writer).stderr(Stdio::null());
    command.status().expect("runs").code()
}

#[test]
fn what_fails_fails_though_nobody_reads_of_it() {
    let folder = folder("unread");
    let path = failing(&folder, "fails.toml");
    let file = text(&path);
    assert_eq!(unread(&["sim", "run", file]), Some(3));
    let xml = folder.join("results.xml");
    let args = [
        "sim",
        "run",
        file,
        "--seeds",
        "0..3",
        "--json",
        "--junit",
        text(&xml),
    ];
    assert_eq!(unread(&args), Some(3));
    let results = fs::read_to_string(&xml).expect("written");
    assert!(
        results.contains("tests=\"3\" failures=\"1\" errors=\"2\""),
        "{results}"
    );
    assert!(
        results.contains("the runs were stopped before this one began"),
        "{results}"
    );
    // Annotations stand on standard output, too, and JUnit's file does not wait for them.
    let args = [
        "sim",
        "run",
        file,
        "--junit",
        text(&xml),
        "--annotations",
        "github",
    ];
    assert_eq!(unread(&args), Some(3));
    let results = fs::read_to_string(&xml).expect("written");
    assert!(
        results.contains("tests=\"1\" failures=\"1\" errors=\"0\""),
        "{results}"
    );
    // A verdict that passes is none if it could not be told.
    assert_eq!(unread(&["sim", "run", "query-finds"]), Some(1));
    assert_eq!(unread(&["sim", "diff", file, "--other-seed", "4"]), Some(3));
    assert_eq!(unread(&["sim", "diff", file]), Some(1));
    assert_eq!(unread(&["sim", "list"]), Some(0));
}

#[test]
fn two_scenarios_of_one_name_have_no_pages_together() {
    let folder = folder("of_one_name");
    let (one, other) = (failing(&folder, "one.toml"), failing(&folder, "other.toml"));
    let out = folder.join("out");
    for option in ["--report", "--pcap"] {
        let run = evenkeel(&["sim", "run", text(&one), text(&other), option, text(&out)]);
        assert_eq!(run.status.code(), Some(1), "{option}");
        let said = stderr(&run).replace("\n  │ ", " ");
        for word in [
            "one.toml and ",
            "other.toml are both called \"first\"",
            "another `name`",
        ] {
            assert!(said.contains(word), "{word} in {said}");
        }
        assert!(!out.exists(), "nothing was run");
    }
}

/// Runs the binary where no file may be longer than a few blocks: writing more fails as on a full disk.
fn with_short_files(args: &[&str]) -> std::process::Output {
    let script = "trap '' XFSZ; ulimit -f 2; exec \"$@\"";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_evenkeel")])
        .args(args);
    shell
        .current_dir(support::root())
        .env("NO_COLOR", "1")
        .env_remove("GITHUB_ACTIONS");
    shell.stdin(Stdio::null()).output().expect("runs")
}

#[test]
fn a_full_disk_leaves_no_half_of_a_file() {
    let folder = folder("full_disk");
    let path = failing(&folder, "fails.toml");
    let (xml, pages) = (folder.join("results.xml"), folder.join("pages"));
    fs::create_dir(&pages).expect("made");
    let page = pages.join("first-0.html");
    fs::write(&page, "an older page").expect("written");
    let run = with_short_files(&["sim", "run", text(&path), "--report", text(&pages)]);
    assert_eq!(run.status.code(), Some(1), "{}{}", stdout(&run), stderr(&run));
    assert!(stderr(&run).contains("cannot write"), "{}", stderr(&run));
    assert_eq!(fs::read_to_string(&page).expect("there"), "an older page");
    let run = with_short_files(&[
        "sim",
        "run",
        text(&path),
        "--seeds",
        "0..4",
        "--junit",
        text(&xml),
    ]);
    assert_eq!(run.status.code(), Some(3), "{}", stderr(&run));
    assert!(stderr(&run).contains("cannot write"), "{}", stderr(&run));
    let results = fs::read_to_string(&xml).expect("there");
    assert!(
        results.contains("the runs did not end") && results.ends_with("</testsuites>\n"),
        "{results}"
    );
    let left = |folder: &Path| fs::read_dir(folder).expect("there").count();
    assert_eq!((left(&pages), left(&folder)), (1, 3), "nothing else is left");
}

#[test]
fn a_run_that_is_killed_leaves_results_that_do_not_pass() {
    let folder = folder("killed");
    let path = failing(&folder, "fails.toml");
    let xml = folder.join("results.xml");
    let mut command = command(&[
        "sim",
        "run",
        text(&path),
        "--seeds",
        "0..9999",
        "--junit",
        text(&xml),
    ]);
    let mut run = command.stdout(Stdio::null()).spawn().expect("runs");
    let began = Instant::now();
    while !xml.exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "no file");
        std::thread::sleep(Duration::from_millis(10));
    }
    run.kill().expect("killed");
    run.wait().expect("ended");
    let results = fs::read_to_string(&xml).expect("there");
    assert!(
        results.contains("tests=\"1\" failures=\"0\" errors=\"1\""),
        "{results}"
    );
    assert!(results.contains("the runs did not end"), "{results}");
}

#[test]
fn a_plan_is_compared_with_the_seed_that_it_has() {
    let folder = folder("diff_plan");
    let path = failing(&folder, "first.toml");
    let plan = folder.join("plan.toml");
    let planned = evenkeel(&["sim", "plan", text(&path), "--seed", "7"]);
    fs::write(&plan, planned.stdout).expect("written");
    let trail = folder.join("plan.trail");
    evenkeel(&["sim", "run", text(&plan), "--trail", text(&trail)]);
    for more in [&["--trail", text(&trail)][..], &[]] {
        let run = evenkeel(&[&["sim", "diff", text(&plan)], more].concat());
        assert_eq!(run.status.code(), Some(0), "{}{}", stdout(&run), stderr(&run));
    }
    let run = evenkeel(&["sim", "diff", text(&path), text(&plan), "--seed", "7"]);
    assert_eq!(run.status.code(), Some(0), "{}{}", stdout(&run), stderr(&run));
}

#[test]
fn commands_and_names_are_printed_as_a_shell_and_a_log_can_take_them() {
    let folder = folder("shell");
    let path = failing(&folder, "a $(b)\n::x::.toml");
    let run = evenkeel(&["sim", "run", text(&path)]);
    let out = stdout(&run);
    assert!(out.contains("a $(b)\\x0a::x::.toml' --seed 0\n"), "{out}");
    let path = failing(&folder, "two words.toml");
    let out = stdout(&evenkeel(&["sim", "run", text(&path)]));
    assert!(
        out.contains(&format!("replay: evenkeel sim run '{}' --seed 0", text(&path))),
        "{out}"
    );
    let told = fs::read_to_string(&path).expect("text");
    let forged = told.replace("description = \"", "description = \"\\u001b[2J\\u202e");
    fs::write(&path, forged).expect("written");
    for args in [["sim", "explain", text(&path)], ["sim", "list", text(&folder)]] {
        let out = stdout(&evenkeel(&args));
        assert!(out.contains("\\u{1b}[2J\\u{202e}Frames"), "{out}");
    }
}

#[test]
fn places_that_cannot_be_are_refused() {
    let folder = folder("places");
    let path = failing(&folder, "first.toml");
    let both = folder.join("both");
    let args = [
        "sim",
        "run",
        text(&path),
        "--junit",
        text(&both),
        "--trail",
        text(&both),
    ];
    let run = evenkeel(&args);
    assert_eq!(run.status.code(), Some(1));
    assert!(
        stderr(&run).contains("--junit and --trail both write"),
        "{}",
        stderr(&run)
    );
    assert!(!both.exists());
    let run = evenkeel(&["sim", "run", text(&path), "--junit", text(&folder)]);
    assert_eq!((run.status.code(), stdout(&run).as_str()), (Some(1), ""));
    let new = evenkeel(&["sim", "new", &format!("{}/", text(&folder))]);
    assert_eq!(new.status.code(), Some(1), "{}", stdout(&new));
    assert!(!folder.join(".toml").exists());
}
