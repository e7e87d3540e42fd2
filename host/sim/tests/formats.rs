//! Every example of FORMATS.md is read by the reader it is about.

use partita_core::model::catalog;
use partita_sim::{Cluster, Times, Workload, openb, scenario::Scenario};

/// The fenced blocks of a document: (info string, text).
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => open = Some((info.to_owned(), String::new())),
            (None, Some((_, body))) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn examples_are_valid() {
    let mut read = Vec::new();
    for (info, text) in blocks(include_str!("../FORMATS.md")) {
        let bytes = text.as_bytes();
        match info.as_str() {
            "toml cluster" => drop(Cluster::parse(&info, bytes).unwrap()),
            "toml scenario" => drop(Scenario::parse(&info, bytes).unwrap()),
            "csv workload" | "jsonl workload" => drop(Workload::parse(&info, bytes).unwrap()),
            "csv openb-nodes" => drop(openb::parse_nodes(&info, bytes).unwrap()),
            "csv openb-pods" => drop(openb::parse_pods(&info, bytes, Times::Trace).unwrap()),
            "text openb-arrivals" => drop(openb::parse_arrivals(&info, bytes).unwrap()),
            "text" => continue,
            other => panic!("a block of kind {other:?} that no reader is for"),
        }
        read.push(info);
    }
    read.dedup();
    assert_eq!(
        read,
        ["toml cluster", "csv workload", "jsonl workload", "toml scenario", "csv openb-nodes", "csv openb-pods", "text openb-arrivals"]
    );
}

#[test]
fn the_error_shown_is_the_one_given() {
    let lines = ["name,cpu,memory,arrival", "a,1,1Gi,0", "b,1,1Gi,0", "c,1,1Gi,0", "d,1,1Gi,0", "e,1,1Gi,0", "f,1,16,0"].join("\n");
    let error = Workload::parse("workload.csv", lines.as_bytes()).unwrap_err().to_string();
    let shown = blocks(include_str!("../FORMATS.md")).into_iter().find(|block| block.0 == "text").unwrap().1;
    assert_eq!(shown.trim(), error);
}

#[test]
fn every_known_model_is_listed() {
    let text = include_str!("../FORMATS.md");
    for name in catalog::names() {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
}
