//! `partita simulate --churn` as a stranger uses it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// Runs `partita simulate` in an empty folder, which must stay empty.
fn simulate(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_partita"))
        .arg("simulate")
        .args(arguments)
        .current_dir(folder.path())
        .env("PARTITA_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
        .env_remove("PARTITA_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "a report needs one workload");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const SMALL: [&str; 10] = ["--churn", "uniform", "--churn", "skew-big", "--gpus", "10", "--requests", "500", "--policy", "first-fit"];

fn json(more: &[&str]) -> Value {
    let output = simulate(&[&SMALL[..], &["--policy", "fragmentation", "--json"], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_mix_and_policy_has_a_row_over_all_seeds_and_repeats() {
    let value = json(&["--seeds", "3", "--seed", "7"]);
    let rows = value["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| (row["mix"].as_str().unwrap(), row["policy"].as_str().unwrap())).collect();
    let policies = ["first-fit", "fragmentation"];
    assert_eq!(names, ["uniform", "skew-big"].iter().flat_map(|mix| policies.map(|policy| (*mix, policy))).collect::<Vec<_>>());
    assert_eq!(value["seeds"], serde_json::json!([7, 8, 9]));
    for row in rows {
        let of = |key: &str| row["runs"].as_array().unwrap().iter().map(|run| run[key].as_f64().unwrap()).collect::<Vec<_>>();
        for key in ["in_use", "accepted"] {
            let (runs, mean) = (of(key), row[key]["mean"].as_f64().unwrap());
            assert!(runs.len() == 3 && (runs.iter().sum::<f64>() / 3.0 - mean).abs() < 1e-9, "{row}");
            assert!((50.0..100.0).contains(&mean) && row[key]["margin"].as_f64().unwrap() > 0.0, "{row}");
        }
    }
    assert_eq!(value, json(&["--seeds", "3", "--seed", "7", "--no-progress"]), "and nothing in it depends on the clock");
    // A seed is worth the same alone and among others.
    assert_eq!(json(&["--seeds", "1", "--seed", "8"])["rows"][2]["runs"][0], rows[2]["runs"][1]);
}

#[test]
fn the_table_has_a_line_for_each_row_and_no_margin_for_one_seed() {
    let output = simulate(&[&SMALL[..], &["--seeds", "2", "--load", "0.5"]].concat());
    let printed = text(&output.stdout);
    assert!(printed.is_ascii() && printed.contains("10 A100-80GB, load 0.5: 2 seeds of 500 requests"), "{printed}");
    let rows: Vec<&str> = printed.lines().filter(|line| line.contains("first-fit")).collect();
    assert!(rows.len() == 2 && rows.iter().all(|row| row.matches("+-").count() == 2), "{printed}");
    let one = text(&simulate(&[&SMALL[..], &["--seeds", "1"]].concat()).stdout);
    assert!(!one.contains("+-") && one.contains("1 seed of"), "{one}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (arguments, code, words) in [
        (&["--churn", "unifrom"][..], 2, "skew-small"),
        (&["--churn", "uniform", "--load", "0"], 1, "from 0.01 to 10"),
        (&["--churn", "uniform", "--load", "-1"], 1, "from 0.01 to 10"),
        (&["--churn", "uniform", "--gpus", "0"], 1, "number of GPUs"),
        (&["--churn", "uniform", "--requests", "0"], 1, "number of requests"),
        (&["--churn", "uniform", "--seeds", "0"], 2, "1..=1000"),
        (&["--load", "2"], 2, "--churn"),
        (&["--churn", "uniform", "--cluster", "a", "--workload", "b"], 2, "--workload"),
        (&["--churn", "uniform", "--report", "x.html"], 2, "--report"),
    ] {
        let output = simulate(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(words) && output.stdout.is_empty(), "{arguments:?}: {error}");
    }
}
