//! The arrows of ARCHITECTURE.md: which of our crates may depend on which, and what the core may depend on at all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Ours → ours, normal and build dependencies. A policy crate is any other that lies under policies/.
const ARROWS: &[(&str, &[&str])] = &[
    ("partita", &["partita-agent", "partita-core", "partita-device", "partita-kube", "partita-policy", "partita-sim", "partita-web"]),
    ("partita-policy", &["partita-core", "partita-policies", "partita-sdk"]),
    ("partita-kube", &["partita-core"]),
    ("partita-device", &["partita-core"]),
    ("partita-kubelet", &[]),
    ("partita-agent", &["partita-core", "partita-device", "partita-kube", "partita-kubelet"]),
    ("partita-sim", &["partita-core"]),
    ("partita-core", &[]),
    ("partita-sdk", &[]),
    ("partita-web", &[]),
    (
        "partita-bench",
        &[
            "partita-agent",
            "partita-cluster",
            "partita-core",
            "partita-device",
            "partita-fake-nvml",
            "partita-hostile",
            "partita-kube",
            "partita-policy",
            "partita-sim",
        ],
    ),
    ("partita-cluster", &["partita-core", "partita-kube"]),
    ("partita-differential", &["partita-cluster", "partita-core", "partita-kube"]),
    ("partita-fake-mps", &[]),
    ("partita-fake-nvml", &["partita-core"]),
    ("partita-fake-kubelet", &["partita-kubelet"]),
    ("partita-hostile", &["partita-policy"]),
    ("partita-repository", &[]),
];

/// Everything the core may use of others. None of them can read a clock, a file or a socket on its own.
const CORE_USES: &[&str] = &["serde", "thiserror"];

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Names of the dependencies that a built program has, of each package.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let kept = |dependency: &&Value| dependency["kind"].as_str() != Some("dev");
    let names = |package: &Value| {
        let list = package["dependencies"].as_array().unwrap();
        list.iter().filter(kept).map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect()
    };
    packages().iter().map(|package| (package["name"].as_str().unwrap().to_owned(), names(package))).collect()
}

fn allowed(package: &str) -> Vec<String> {
    if let Some((_, targets)) = ARROWS.iter().find(|arrow| arrow.0 == package) {
        return targets.iter().map(ToString::to_string).collect();
    }
    let names = packages().into_iter().map(|package| package["name"].as_str().unwrap().to_owned());
    match package {
        // The bundle is the one place that names every bundled policy.
        "partita-policies" => names.filter(|name| name == "partita-sdk" || name.starts_with("partita-policy-")).collect(),
        name if name.starts_with("partita-policy-") => vec!["partita-sdk".to_owned()],
        // The attacker of the tests: written against the interface alone.
        "partita-hostile-guest" => Vec::new(),
        _ => panic!("{package} is new: give it a line here and in ARCHITECTURE.md"),
    }
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let dependencies = dependencies();
    for (package, targets) in &dependencies {
        let allowed = allowed(package);
        for target in targets.iter().filter(|target| dependencies.contains_key(*target)) {
            assert!(allowed.contains(target), "{package} must not depend on {target}: ARCHITECTURE.md has no such arrow");
        }
    }
}

#[test]
fn the_core_uses_nothing_that_could_do_io() {
    for name in &dependencies()["partita-core"] {
        assert!(CORE_USES.contains(&name.as_str()), "partita-core must not depend on {name}: its decisions are pure");
    }
}
