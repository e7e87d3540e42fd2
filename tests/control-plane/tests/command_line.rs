//! `partita-cluster up` as somebody uses it who ends it in one way or another.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Starts a cluster of two nodes, and returns what it said of itself.
fn up(kubeconfig: &Path) -> (Child, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partita-cluster"));
    command.args(["up", "--nodes", "2", "--gpus", "4", "--model", "H100-80GB", "--output", "json", "--kubeconfig"]).arg(kubeconfig);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, serde_json::from_str(&line).unwrap())
}

fn processes(said: &Value) -> Vec<String> {
    said["processes"].as_object().unwrap().values().map(|id| format!("/proc/{id}/exe")).collect()
}

/// Whether a program runs there: who has ended but was not waited for has no file any more.
fn runs(process: &str) -> bool {
    fs::read_link(process).is_ok()
}

#[test]
fn it_runs_until_it_is_told_to_stop_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let kubeconfig = home.path().join("config");
    let (mut child, said) = up(&kubeconfig);
    let mut kubectl = Command::new(said["kubectl"].as_str().unwrap());
    kubectl.args(["get", "nodes", "-L", "nvidia.com/gpu.product", "--no-headers"]).env("KUBECONFIG", &kubeconfig).env("HOME", home.path());
    let nodes = String::from_utf8(kubectl.output().unwrap().stdout).unwrap();
    assert_eq!(nodes.lines().count(), 2, "{nodes}");
    assert!(nodes.lines().all(|line| line.contains(" Ready ") && line.ends_with("NVIDIA-H100-80GB-HBM3")), "{nodes}");
    assert_eq!(processes(&said).len(), 4);
    assert!(processes(&said).iter().all(|process| runs(process)));

    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!processes(&said).iter().any(|process| runs(process)));
    assert!(!kubeconfig.exists() && !Path::new(said["folder"].as_str().unwrap()).exists());
}

#[test]
fn its_programs_die_with_it_and_the_next_one_removes_what_it_left() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, said) = up(&home.path().join("killed"));
    let folder = Path::new(said["folder"].as_str().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel kills them, which takes a moment.
    for _ in 0..1200 {
        if processes(&said).iter().all(|process| !runs(process)) {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert!(processes(&said).iter().all(|process| !runs(process)), "{said}");
    assert!(folder.exists(), "nobody was there to remove it");

    let (mut next, said) = up(&home.path().join("next"));
    assert!(!folder.exists() && Path::new(said["folder"].as_str().unwrap()).exists());
    kill_process(Pid::from_child(&next), Signal::INT).unwrap();
    assert!(next.wait().unwrap().success());
}

#[test]
fn it_writes_over_no_kubeconfig_of_somebody_else() {
    let home = tempfile::tempdir().unwrap();
    let kubeconfig = home.path().join("config");
    fs::write(&kubeconfig, "precious").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_partita-cluster")).args(["up", "--kubeconfig"]).arg(&kubeconfig).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("exists: name a file that does not"), "{said}");
    assert_eq!(fs::read_to_string(&kubeconfig).unwrap(), "precious");
}

#[test]
fn kubectl_without_a_cluster_says_how_to_have_one() {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_partita-cluster"));
    let output = command.args(["kubectl", "get", "nodes"]).env("PARTITA_CACHE", home.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("partita-cluster up"));
}
