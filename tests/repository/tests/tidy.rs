//! Sizes, and what the core's source must not mention.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of a source file beyond which it does too much to be read in one go.
const SOURCE_LINES_MAX: usize = 500;
/// Lines of a test file.
const TEST_LINES_MAX: usize = 1000;
/// Lines of ARCHITECTURE.md.
const ARCHITECTURE_LINES_MAX: usize = 200;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["host", "policies", "tests"] {
        sources(&root().join(folder), &mut found);
    }
    assert!(found.len() > 40, "the walk found only {} files", found.len());
    found
}

#[test]
fn files_stay_readable() {
    for path in all_sources() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        let is_test = path.components().any(|part| part.as_os_str() == "tests") && !path.components().any(|part| part.as_os_str() == "src");
        let limit = if is_test { TEST_LINES_MAX } else { SOURCE_LINES_MAX };
        assert!(lines <= limit, "{} has {lines} lines; the limit is {limit}: split it where a reader would", path.display());
    }
}

#[test]
fn architecture_stays_short() {
    let lines = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap().lines().count();
    assert!(lines <= ARCHITECTURE_LINES_MAX, "ARCHITECTURE.md has {lines} lines; the limit is {ARCHITECTURE_LINES_MAX}");
}

#[test]
fn the_core_is_pure() {
    let forbidden = ["std::time", "std::fs", "std::net", "std::thread", "std::process", "std::env", "HashMap", "HashSet", "f64", "f32"];
    let mut found = Vec::new();
    sources(&root().join("host/core/src"), &mut found);
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        for word in forbidden {
            assert!(!text.contains(word), "{} mentions {word}: decisions are pure and ordered", path.display());
        }
    }
}
