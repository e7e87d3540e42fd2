//! The program as a stranger uses it: what it prints, what it refuses and how, and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// Runs the program in a folder, with a cache that these tests share.
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

#[track_caller]
fn refused(folder: &Path, arguments: &[&str], words: &[&str]) {
    let output = partita(folder, arguments);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed {}", text(&output.stdout));
    for word in words {
        assert!(error.contains(word), "{arguments:?}: no {word:?} in {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
}

const CLUSTER: &str = "[[node]]\nname = \"n\"\ncpu = \"8\"\nmemory = \"32Gi\"\ngpus = { model = \"T4\", count = 2 }\n";
const WORKLOAD: &str = "name,namespace,cpu,memory,gpus,gpu_milli,arrival,lifetime\na,team,1,1Gi,1,500,0,60\nb,team,1,1Gi,2,1000,5,\n";

/// A folder with a small cluster and workload.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cluster.toml"), CLUSTER).unwrap();
    fs::write(folder.path().join("pods.csv"), WORKLOAD).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

const OWN: [&str; 5] = ["simulate", "--cluster", "cluster.toml", "--workload", "pods.csv"];

#[test]
fn the_sample_runs_under_four_policies_and_writes_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let output = partita(folder.path(), &["simulate"]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for policy in ["fragmentation", "first-fit", "best-fit", "spread", "report.html"] {
        assert!(printed.contains(policy), "{printed}");
    }
    assert!(printed.lines().all(|line| line.is_ascii() && !line.contains('\x1b')), "{printed}");
    let report = fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(report.starts_with("<!DOCTYPE html>") && report.contains("fragmentation"));
}

#[test]
fn own_files_give_json_that_adds_up_and_repeats() {
    let (_keep, path) = folder();
    let run = |seed: &str| {
        let output = partita(&path, &[&OWN[..], &["--policy", "first-fit", "--policy", "random", "--seed", seed, "-o", "json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let mut value: Value = serde_json::from_slice(&output.stdout).unwrap();
        for run in value["runs"].as_array_mut().unwrap() {
            run["timing"] = Value::Null;
        }
        value
    };
    let value = run("1");
    assert_eq!(value["runs"].as_array().unwrap().len(), 2);
    assert_eq!(value["runs"][0]["result"]["placed"], 2);
    // The second pod needs both GPUs and waits until the first has run its minute.
    assert_eq!(value["runs"][0]["result"]["waits"]["max_s"], 55.0);
    assert_eq!(value["policies"][0]["form"], "component");
    assert_eq!(value, run("1"));
    assert!(!path.join("report.html").exists(), "a report only where one is asked for");
}

/// What the command line says of moves, evictions and warm partitions is what the planner does.
#[test]
fn room_is_made_as_the_command_line_says() {
    let (_keep, path) = folder();
    let gpus = "gpus = [{ model = \"A30\", count = 2, cut = \"mig\" }]\n";
    fs::write(path.join("a30.toml"), format!("[[node]]\nname = \"n\"\ncpu = 8\nmemory = \"64Gi\"\n{gpus}")).unwrap();
    // At 20 s there is one small pod on each GPU, and a large one comes; at 30 s one that may evict.
    let rows = [
        "name,priority,mig,arrival,lifetime,restartable,cpu,memory",
        "first,0,4g.24gb,0,10,,1,1Gi",
        "small,0,1g.6gb,1,,true,1,1Gi",
        "half,0,2g.12gb,2,10,,1,1Gi",
        "quarter,0,1g.6gb,3,10,,1,1Gi",
        "other,0,1g.6gb,11,,true,1,1Gi",
        "large,0,4g.24gb,20,,,1,1Gi",
        "urgent,9,4g.24gb,30,,,1,1Gi",
    ];
    fs::write(path.join("room.csv"), rows.join("\n")).unwrap();
    let run = |more: &[&str]| {
        let arguments = ["simulate", "--cluster", "a30.toml", "--workload", "room.csv", "--policy", "first-fit", "--native", "-o", "json"];
        let output = partita(&path, &[&arguments[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        let options = value["facts"]["options"]["planner"].clone();
        (options, ["evicted", "moved", "pending"].map(|what| value["runs"][0]["result"][what].as_u64().unwrap()))
    };
    let (options, happened) = run(&[]);
    assert_eq!((&options["moves"], &options["reuse"], &options["preempt"]), (&0.into(), &"first".into(), &true.into()));
    assert_eq!(happened, [1, 0, 1], "one small pod goes for the urgent one and finds another place; the large one waits");
    let (options, happened) = run(&["--moves", "1", "--reuse", "free", "--no-preempt"]);
    assert_eq!((&options["moves"], &options["reuse"], &options["preempt"]), (&1.into(), &"free".into(), &false.into()));
    assert_eq!(happened, [0, 1, 1], "one small pod moves for the large one; the urgent one waits");
}

#[test]
fn wrong_input_is_refused_with_its_place_and_a_remedy() {
    let (_keep, path) = folder();
    let write = |name: &str, bytes: &[u8]| fs::write(path.join(name), bytes).unwrap();
    write("column.csv", WORKLOAD.replace("gpu_milli", "gpu_mili").as_bytes());
    write("number.csv", WORKLOAD.replace(",500,", ",5oo,").as_bytes());
    write("empty.csv", b"");
    write("garbage.csv", &[0x9f; 4096]);
    write("twice.toml", CLUSTER.repeat(2).as_bytes());
    write("no-gpu.toml", CLUSTER.replace("gpus = { model = \"T4\", count = 2 }\n", "").as_bytes());
    let with = |cluster: &'static str, workload: &'static str| ["simulate", "--cluster", cluster, "--workload", workload];
    refused(&path, &with("cluster.toml", "column.csv"), &["column.csv", "gpu_mili"]);
    refused(&path, &with("cluster.toml", "number.csv"), &["number.csv", "5oo", ":2:"]);
    refused(&path, &with("cluster.toml", "empty.csv"), &["empty.csv", "empty"]);
    refused(&path, &with("cluster.toml", "garbage.csv"), &["garbage.csv"]);
    refused(&path, &with("cluster.toml", "nowhere.csv"), &["nowhere.csv", "No such file"]);
    refused(&path, &with("twice.toml", "pods.csv"), &["twice.toml", "n"]);
    refused(&path, &with("no-gpu.toml", "pods.csv"), &["GPU"]);
    refused(&path, &with(".", "pods.csv"), &["."]);
}

#[test]
fn the_figures_come_even_where_nothing_can_be_written() {
    let (_keep, path) = folder();
    let output = partita(&path, &[&OWN[..], &["--policy", "first-fit", "--report", "no/such/folder.html"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("first-fit"));
    assert!(text(&output.stderr).contains("no/such/folder.html"));
    // A cache that cannot be made costs time and nothing else.
    let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
    let output =
        command.args(OWN).args(["--policy", "first-fit"]).current_dir(&path).env("PARTITA_CACHE", "/proc/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("compiled at every start"));
}

/// One node of absurd size must not stop the pods of all others.
#[test]
fn an_odd_node_leaves_the_others_alone() {
    let (_keep, path) = folder();
    let odd = "[[node]]\nname = \"odd\"\ncpu = \"900000\"\nmemory = \"32Gi\"\ngpus = { model = \"T4\", count = 1 }\n";
    fs::write(path.join("cluster.toml"), format!("{CLUSTER}{odd}")).unwrap();
    for policy in ["best-fit", "dot-product", "fragmentation", "spread"] {
        let output = partita(&path, &[&OWN[..], &["--policy", policy, "-o", "json"]].concat());
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&value["runs"][0]["result"]["placed"], &value["runs"][0]["result"]["failures"]),
            (&2.into(), &Value::Array(vec![])),
            "{policy}"
        );
    }
}

#[test]
fn a_policy_that_is_none_is_refused_at_its_stage() {
    let (_keep, path) = folder();
    fs::write(path.join("text.wasm"), "hello").unwrap();
    fs::write(path.join("core.wasm"), wat::parse_str("(module)").unwrap()).unwrap();
    fs::write(path.join("import.wasm"), wat::parse_str("(component (import \"wasi:cli/exit@0.2.0\" (instance)))").unwrap()).unwrap();
    let with = |file: &'static str| [&OWN[..], &["--policy", file]].concat();
    refused(&path, &with("text.wasm"), &["text.wasm", "static"]);
    refused(&path, &with("core.wasm"), &["core.wasm", "component"]);
    refused(&path, &with("import.wasm"), &["import.wasm", "wasi:cli/exit"]);
    refused(&path, &with("absent.wasm"), &["absent.wasm"]);
    refused(&path, &with("fragmentation:colour=blue"), &["settings", "colour"]);
    for file in ["text.wasm", "core.wasm", "import.wasm"] {
        let output = partita(&path, &["policy", "check", file]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stdout).contains("FAILED"), "{}", text(&output.stdout));
    }
}

/// A policy that fails at run time is answered for, and that is counted and said.
#[test]
fn a_hostile_policy_costs_nothing_but_its_own_answers() {
    let (_keep, path) = folder();
    fs::write(path.join("hostile.wasm"), partita_hostile::COMPONENT).unwrap();
    for (attack, cause) in [("loop", "fuel"), ("trap", "trap"), ("grow", "memory"), ("short", "invalid"), ("out-of-range", "invalid")] {
        let policy = format!("hostile.wasm:do={attack}");
        let both = [&OWN[..], &["--policy", &policy, "--policy", "first-fit"]].concat();
        let output = partita(&path, &[&both[..], &["-o", "json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        let [hostile, honest] = [0, 1].map(|run| value["runs"][run]["result"].clone());
        assert_eq!(hostile["failures"][0]["cause"], cause, "{attack}");
        assert!(value["policies"][0]["stats"]["faults"][cause].as_u64().unwrap() > 0, "{attack}");
        for what in ["placed", "waits", "series"] {
            assert_eq!(hostile[what], honest[what], "{attack}: {what}");
        }
        let printed = text(&partita(&path, &both).stdout);
        assert!(printed.contains("went to the fallback") && printed.contains(cause), "{printed}");
    }
}

#[test]
fn wrong_usage_exits_with_two_and_says_what_would_be_right() {
    let (_keep, path) = folder();
    for (arguments, words) in [
        (vec!["simulate", "--policy", "frist-fit"], "there are fragmentation"),
        (vec!["simulate", "--cluster", "cluster.toml"], "--workload"),
        (vec!["simulate", "--arrivals", "a.txt"], "--workload"),
        (vec!["simulat"], "simulate"),
        (vec!["policy"], "check"),
    ] {
        let output = partita(&path, &arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn policies_can_be_listed_checked_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let json = |arguments: &[&str]| -> Value {
        let output = partita(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let list = json(&["policy", "list", "-o", "json"]);
    assert_eq!(list.as_array().unwrap().len(), 8);
    assert_eq!(list.as_array().unwrap().iter().filter(|policy| policy["default"] == true).count(), 1);
    let check = json(&["policy", "check", "fragmentation", "-o", "json"]);
    assert_eq!(check["info"]["name"], "fragmentation");
    let bench = json(&["policy", "bench", "first-fit", "-o", "json"]);
    assert_eq!(bench["rows"].as_array().unwrap().len(), 3);
}

#[test]
fn the_sample_can_be_written_and_run_but_not_over_files_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let write = ["sample", "--seed", "7", "--out", "mine"];
    assert_eq!(partita(folder.path(), &write).status.code(), Some(0));
    refused(folder.path(), &write, &["cluster.toml exists", "--force"]);
    assert_eq!(partita(folder.path(), &[&write[..], &["--force"]].concat()).status.code(), Some(0));
    let run = ["simulate", "--cluster", "mine/cluster.toml", "--workload", "mine/workload.csv", "--policy", "first-fit", "--native"];
    assert_eq!(partita(folder.path(), &run).status.code(), Some(0));
}
