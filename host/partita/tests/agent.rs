//! `partita agent inspect` on GPUs that do not exist, through the real wrapper of NVML and a library of ours.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{env, fs, path::Path, process::Command};

use nvidia_ml::{Fake, Fault, What};
use serde_json::Value;

fn partita(arguments: &[&str], machine: Option<&Path>) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
    command.args(["agent", "inspect"]).args(arguments);
    if let Some(machine) = machine {
        // Cargo has built it beside this test.
        let library = env::current_exe().unwrap().with_file_name("libnvidia_ml.so");
        assert!(library.exists(), "{} is not built: run cargo build -p partita-fake-nvml", library.display());
        command.arg("--library").arg(library).env("PARTITA_FAKE_NVML", machine);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_is_on_the_gpus_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::create(folder.path(), "H100-80GB×2,T4").unwrap();
    fake.set_mig(0, true).unwrap();
    let instance = fake.make(0, "2g.20gb", 4, true).unwrap();
    fake.hold(0, Some(instance), 4711).unwrap();
    fake.hold(1, None, 99).unwrap();
    let before = fs::read(folder.path().join("state.json")).unwrap();

    let (code, table, _) = partita(&[], Some(folder.path()));
    assert_eq!(code, Some(0), "{table}");
    assert!(table.contains("How MIG can cut NVIDIA H100 80GB") && table.contains("pid:4711") && table.contains("pid:99"), "{table}");
    assert!(!table.contains("not in partita's table"), "{table}");

    let (_, json, _) = partita(&["-o", "json"], Some(folder.path()));
    let machine: Value = serde_json::from_str(&json).unwrap();
    let gpu = |row: usize| &machine["gpus"][row];
    assert_eq!([0, 1, 2].map(|row| gpu(row)["mig"].as_str().unwrap()), ["on", "off", "no"]);
    assert_eq!((gpu(0)["model"].as_str(), gpu(0)["partitions"][0]["profile"].as_str()), (Some("H100-80GB"), Some("2g.20gb")));
    assert_eq!((gpu(0)["partitions"][0]["start"].as_u64(), gpu(0)["partitions"][0]["users"][0].as_str()), (Some(4), Some("pid:4711")));
    assert!(gpu(0)["profiles"].as_array().unwrap().iter().all(|profile| profile["table"] == "same"), "{json}");
    assert_eq!(gpu(1)["users"][0], "pid:99");
    assert_eq!(gpu(2)["profiles"].as_array().unwrap().len(), 0);
    assert_eq!(fs::read(folder.path().join("state.json")).unwrap(), before, "to look changes nothing");
}

#[test]
fn a_gpu_that_does_not_answer_leaves_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::create(folder.path(), "A30×2").unwrap();
    fake.fault(Fault::always("nvmlDeviceGetName", What::Code(15)).on(0)).unwrap();
    let (code, table, _) = partita(&[], Some(folder.path()));
    assert_eq!(code, Some(1), "{table}");
    assert!(table.contains("A GPU does not answer") && table.contains("NVIDIA A30"), "{table}");
}

#[test]
fn without_a_driver_or_with_nonsense_it_says_what_to_do() {
    let nothing = tempfile::tempdir().unwrap();
    let (code, _, error) = partita(&[], Some(nothing.path()));
    assert!(code == Some(1) && error.contains("nvmlInit"), "{error}");
    let (code, _, error) = partita(&["--library", "/nowhere/libnvidia-ml.so.1"], None);
    assert!(code == Some(1) && error.contains("install the driver, or mount its libnvidia-ml.so.1"), "{error}");
    let (code, _, error) = partita(&["--simulated", "H100-80GB×0"], None);
    assert!(code == Some(1) && error.contains("write it like H100-80GB×4"), "{error}");
    let (code, _, error) = partita(&["--simulated", "A30", "--library", "x"], None);
    assert!(code == Some(2) && error.contains("cannot be used with"), "{error}");
}
