//! Scenarios and what `partita explain` says of them, word for word.
//!
//! Each `tests/scenarios/NAME.toml` has its transcript beside it as `NAME.txt`. After a change that is meant,
//! `UPDATE=1 cargo test -p partita --test explain` writes the transcripts anew, and the difference is read like code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// Columns of a terminal that every line fits.
const WIDTH: usize = 100;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios")
}

fn partita(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_partita"))
        .args(arguments)
        .current_dir(folder)
        .env("PARTITA_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
        .env_remove("PARTITA_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn scenarios() -> Vec<String> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.filter_map(|name| Some(name.strip_suffix(".toml")?.to_owned())).collect();
    names.sort_unstable();
    names
}

#[test]
fn scenarios_are_explained_as_before() {
    let update = env::var_os("UPDATE").is_some_and(|value| value == "1");
    let names = scenarios();
    assert!(names.len() >= 12, "only {names:?}");
    let mut changed = Vec::new();
    for name in names {
        let output = partita(&folder(), &["explain", "--scenario", &format!("{name}.toml")]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output.stderr));
        let told = text(&output.stdout);
        assert!(told.lines().all(|line| line.chars().count() <= WIDTH && line.is_ascii()), "{name}: a line is too wide:\n{told}");
        let file = folder().join(format!("{name}.txt"));
        if update {
            fs::write(&file, &told).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != told {
            changed.push(format!("{name} is told otherwise now:\n{told}"));
        }
    }
    assert!(changed.is_empty(), "{}\nIf that is meant: UPDATE=1 cargo test -p partita --test explain", changed.join("\n"));
}

#[test]
fn the_json_says_the_same() {
    let json = |arguments: &[&str]| -> Value {
        let all = [&["explain", "--scenario", "lingering.toml", "--native", "-o", "json"], arguments].concat();
        let output = partita(&folder(), &all);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let told = json(&[]);
    assert_eq!(told["policy"], "fragmentation");
    let steps = told["steps"].as_array().unwrap();
    assert_eq!(steps.iter().map(|step| step["at_s"].as_f64().unwrap()).collect::<Vec<_>>(), [0.0, 0.0, 20.0, 30.0]);
    let actions: Vec<&str> = steps[1]["entries"].as_array().unwrap().iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(actions, ["came", "evict", "keep"]);
    assert_eq!(steps[1]["waiting"][0]["held"]["waits_for"][0], "batch");
    assert_eq!(steps[3]["gpus"][0]["parts"].as_array().unwrap().len(), 4);
    assert_eq!(json(&["--policy", "first-fit"])["policy"], "first-fit");
    assert_eq!(json(&[]), told);
}

#[test]
fn a_scenario_that_makes_no_sense_exits_with_two() {
    let folder = tempfile::tempdir().unwrap();
    let node = "[[node]]\nname = \"n\"\ngpus = { model = \"T4\" }\n";
    let cases = [
        ("", "s.toml: is empty"),
        ("[[node]\n", "s.toml:1: "),
        ("policy = \"frist-fit\"\n[[node]]\nname = \"n\"\n", "s.toml:1: policy: no bundled policy is called frist-fit"),
        ("[[node]]\nname = \"n\"\n[[step]]\nstops = [\"a\"]\n[[pod]]\nname = \"a\"\n", "s.toml:3: stops: \"a\" was not told to stop"),
        (&format!("{node}[[pod]]\nname = \"a\"\ngpus = 1\n"), "s.toml:6: \"gpus\" is no key of [[pod]]; known are name, "),
    ];
    for (scenario, words) in cases {
        fs::write(folder.path().join("s.toml"), scenario).unwrap();
        let output = partita(folder.path(), &["explain", "--scenario", "s.toml", "--native"]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(words) && output.stdout.is_empty(), "{error}");
    }
    let output = partita(folder.path(), &["explain", "--scenario", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nowhere.toml: cannot be read"));
}

/// The example of `--help` is one.
#[test]
fn the_help_has_a_scenario_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let help = text(&partita(folder.path(), &["explain", "--help"]).stdout);
    let example: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("        ")).collect();
    let from = example.iter().position(|line| line.starts_with("[[node]]")).unwrap();
    fs::write(folder.path().join("s.toml"), example[from..].join("\n")).unwrap();
    let output = partita(folder.path(), &["explain", "--scenario", "s.toml", "--native"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("bind     api to a100: GPU 0 1g.10gb at slot"), "{}", text(&output.stdout));
}

/// A policy that a scenario names lies beside it.
#[test]
fn a_scenario_names_its_policy() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/mine.wasm"), partita_hostile::COMPONENT).unwrap();
    let node = "[[node]]\nname = \"n\"\ngpus = { model = \"T4\" }\n[[pod]]\nname = \"a\"\ngpu = 1\n";
    fs::write(folder.path().join("sub/s.toml"), format!("policy = \"mine.wasm:do=trap\"\n{node}")).unwrap();
    let output = partita(folder.path(), &["explain", "--scenario", "sub/s.toml"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(told.contains("policy   mine.wasm:do=trap") && told.contains("warning") && told.contains("bind     a to n"), "{told}");
}
