//! Sizes, what the core's source must not mention, and what the documents must not: places to fill in, and paths that do not exist.

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
    // What a program wrote from a shorter source is read there.
    let written = |path: &PathBuf| !path.components().any(|part| part.as_os_str() == "generated");
    for path in all_sources().into_iter().filter(written) {
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

/// The documents at the root that people start from.
const DOCUMENTS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];
/// How a path within the repository begins.
const PATH_BEGINS: [&str; 6] = ["host/", "policies/", "tests/", "wit/", "deploy/", ".ci/"];

/// Whether a line is one word in capitals, such as a place to fill in has.
fn is_placeholder(line: &str) -> bool {
    let line = line.trim();
    line.len() >= 4 && line.starts_with(|c: char| c.is_ascii_uppercase()) && line.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// The paths within the repository that `text` names in backticks or links, patterns left out.
fn paths_named(text: &str) -> Vec<String> {
    let mut named = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let spans = line.split('`').skip(1).step_by(2).flat_map(str::split_whitespace);
            let spans = spans.filter(|word| PATH_BEGINS.iter().any(|begin| word.starts_with(begin)));
            let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let links = links.filter(|target| !target.contains("://") && !target.starts_with('#'));
            let path = |word: &str| word.split(['#', ':']).next().unwrap().trim_end_matches([',', ';', '.']).to_owned();
            named.extend(spans.chain(links).filter(|word| !word.contains(['<', '*', '{', '…'])).map(path));
        }
    }
    named
}

#[test]
fn nothing_is_left_to_fill_in() {
    assert!(is_placeholder("SAMPLE_OUTPUT") && is_placeholder(" MEASURED ") && !is_placeholder("GPU") && !is_placeholder("MIG cuts a GPU"));
    for name in DOCUMENTS {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let left: Vec<&str> = text.lines().filter(|line| is_placeholder(line)).collect();
        assert!(left.is_empty(), "{name} still has {left:?}: write what belongs there, or take it out");
    }
}

#[test]
fn paths_in_documents_exist() {
    let sample = "see `host/a.rs`, `x → host/b, core` and [c](wit/c.wit#d) or [e](https://e/f)\n```\n`host/fenced`\n```\n`policies/<name>` `tests/*` `a/b`";
    assert_eq!(paths_named(sample), ["host/a.rs", "host/b", "wit/c.wit"]);
    for name in DOCUMENTS {
        let named = paths_named(&fs::read_to_string(root().join(name)).unwrap());
        assert!(named.len() >= 3, "{name} names only {named:?}");
        for path in named {
            assert!(root().join(&path).exists(), "{name} names {path}, which does not exist: correct the path");
        }
    }
}
