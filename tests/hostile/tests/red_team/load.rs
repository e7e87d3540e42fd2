//! What is refused before a policy answers anything, at which stage, and with which words.

use partita_policy::{Limits, Outcome, Stage, chain};
use proptest::prelude::*;

use crate::support::host;
use crate::wit;

#[track_caller]
fn assert_refused(component: &[u8], stage: Stage, words: &[&str]) {
    let report = host().inspect(component, "");
    let (failed, message) = report.failure().expect("the module is refused");
    assert_eq!(failed, stage, "{message}");
    for word in words {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
    let after: Vec<_> = report.stages.iter().filter(|report| report.stage as usize > stage as usize).collect();
    assert!(after.iter().all(|report| report.outcome == Outcome::Skipped), "{after:?}");
}

fn text(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn what_is_no_component() {
    assert_refused(b"", Stage::Static, &["empty"]);
    assert_refused(b"#!/bin/sh\necho hello\n", Stage::Static, &["not WebAssembly"]);
    assert_refused(&text("(module)"), Stage::Static, &["core module", "wit-component"]);
    assert_refused(&vec![0; 3 << 20], Stage::Static, &["more than 2 MiB (2097152 bytes)"]);
    let whole = partita_hostile::COMPONENT;
    for length in [4, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        assert_refused(&whole[..length], Stage::Static, &[]);
    }
}

#[test]
fn foreign_imports_are_named() {
    let wasi = r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "get-environment" (func (result (list string)))))))"#;
    assert_refused(&text(wasi), Stage::Static, &["`wasi:cli/environment@0.2.0`", "wasm32-unknown-unknown"]);
    assert_refused(&text(r#"(component (import "clock" (func)))"#), Stage::Static, &["`clock`"]);
    assert_refused(
        &text(r#"(component (import "partita:policy/lifecycle@0.1.0" (instance (export "describe" (func)))))"#),
        Stage::Static,
        &["`partita:policy/lifecycle@0.1.0#describe`"],
    );
    assert_refused(
        &wit::changed("interface host {", "interface host {\n  now: func() -> u64;"),
        Stage::Static,
        &["`partita:policy/host@0.1.0#now`"],
    );
}

#[test]
fn other_worlds_are_named() {
    assert_refused(&wit::component(wit::PACKAGE, "quota"), Stage::Static, &["world `quota`", "`partitioner`"]);
    assert_refused(&text("(component)"), Stage::Static, &["`partita:policy/lifecycle`", "exports nothing"]);
    let tool = r#"(component (core module $m (func (export "run"))) (core instance $i (instantiate $m))
        (func $run (canon lift (core func $i "run"))) (export "run" (func $run)))"#;
    assert_refused(&text(tool), Stage::Static, &["exports run"]);
}

#[test]
fn versions_and_shapes_must_fit() {
    assert_refused(&wit::changed("@0.1.0;", "@0.2.0;"), Stage::Static, &["@0.2.0", "0.1.0"]);
    // A compatible version passes the types and comes as far as the first call, which in this component traps.
    assert_refused(&wit::changed("@0.1.0;", "@0.1.7;"), Stage::Describe, &["unreachable"]);
    assert_refused(&wit::changed("", ""), Stage::Describe, &["unreachable"]);
    let field = wit::changed("record budget {", "record budget {\n    now: u32,");
    assert_refused(&field, Stage::Instantiate, &["does not fit the world", "expected record of 1 fields, found 2 fields"]);
    let function = wit::changed("  choose-moves: func(question: block, budget: budget) -> result<moves, refusal>;", "");
    assert_refused(&function, Stage::Instantiate, &["choose-moves"]);
}

#[test]
fn proposals_that_are_off_are_refused() {
    assert_refused(&text("(component (core module (memory 1 2 shared)))"), Stage::Static, &["threads"]);
    assert_refused(&text("(component (core module (memory i64 1)))"), Stage::Static, &["memory64"]);
    assert_refused(&text("(component (core module (type (struct))))"), Stage::Static, &["gc"]);
    assert_refused(&text("(component (core module (tag)))"), Stage::Static, &["exceptions"]);
}

#[test]
fn numbers_are_capped() {
    let functions = format!("(component (core module {}))", "(func)".repeat(10_001));
    assert_refused(&text(&functions), Stage::Static, &["10001 functions", "10000"]);
    let memories = format!("(component (core module {}))", "(memory 1)".repeat(5));
    assert_refused(&text(&memories), Stage::Static, &["5 memories"]);
    let modules = format!("(component {})", "(core module)".repeat(65));
    assert_refused(&text(&modules), Stage::Static, &["65 core modules"]);
    let types = format!("(component {})", "(type (list u8))".repeat(10_001));
    assert_refused(&text(&types), Stage::Static, &["10001 types"]);
    let instances = format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(65));
    assert_refused(&text(&instances), Stage::Static, &["65 instances"]);
}

#[test]
fn an_instance_without_room_is_a_fault_and_no_wrong_type() {
    // Seventeen instances of a module of four memories; a store holds 64. Sections may follow in any order.
    let memories = text("(module (memory 0) (memory 0) (memory 0) (memory 0))");
    let mut component = wit::component(wit::PACKAGE, "partitioner");
    let module = host().inspect(&component, "").shape.unwrap().modules as u8;
    component.extend([&[1, memories.len() as u8], memories.as_slice()].concat());
    let instances = [0, module, 0].repeat(17);
    component.extend([&[2, instances.len() as u8 + 1, 17], instances.as_slice()].concat());
    assert_refused(&component, Stage::Instantiate, &["it failed while it was tried out: memory: there is no room for an instance: "]);
}

#[test]
fn limits_may_be_lowered_and_not_raised() {
    let load = |limits| host().load("limits", partita_hostile::COMPONENT, "", limits).map(|loaded| loaded.policy.limits());
    let lower = Limits { score_fuel: 1_000_000, memory_bytes: 4 << 20, ..Limits::default() };
    assert_eq!(load(lower).unwrap(), lower);
    let error = |limits| chain(&load(limits).unwrap_err());
    assert!(
        error(Limits { memory_bytes: 64 << 10, ..Limits::default() })
            .contains("stage instantiate: it failed while it was tried out: memory: ")
    );
    assert!(error(Limits { setup_fuel: 100, ..Limits::default() }).contains("it failed while it was tried out: fuel: "));
    assert!(error(Limits { reply_bytes: 4, ..Limits::default() }).contains("stage describe: it failed while it was tried out: oversize: "));
    let error = load(Limits { memory_bytes: 17 << 20, ..Limits::default() }).unwrap_err();
    assert_eq!(error.stage, Stage::Request);
    assert!(chain(&error).contains("limit memory-bytes is 17825792 and may be at most 16777216"), "{error:?}");
}

#[test]
fn settings_are_json() {
    let error = |settings: &str| host().load("settings", partita_hostile::COMPONENT, settings, Limits::default()).unwrap_err();
    assert_eq!(error("{").stage, Stage::Request);
    assert!(chain(&error(&format!("\"{}\"", "x".repeat(65 << 10)))).contains("65536 bytes"));
}

#[test]
fn a_report_tells_all_that_is_known() {
    let report = host().inspect(partita_hostile::COMPONENT, "");
    assert!(report.is_ok(), "{:?}", report.failure());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["stages"][1], serde_json::json!({"stage": "static", "outcome": "ok"}));
    assert_eq!(json["info"]["name"], "hostile");
    assert_eq!(json["shape"]["imports"], serde_json::json!(["partita:policy/host@0.1.0", "partita:policy/types@0.1.0"]));
    assert_eq!(json["shape"]["exports"], serde_json::json!(["partita:policy/lifecycle@0.1.0", "partita:policy/partitioning@0.1.0"]));
    assert!(json["shape"]["largest_function"].as_u64() > Some(100));
    assert!(json["artifact_bytes"].as_u64() > json["bytes"].as_u64());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_the_inspection_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        let prefix: &[u8] = if magic { b"\0asm\x0d\0\x01\0" } else { b"" };
        prop_assert!(!host().inspect(&[prefix, &bytes].concat(), "").is_ok());
    }

    #[test]
    fn no_damage_makes_the_static_checks_panic(at in any::<prop::sample::Index>(), with in any::<u8>(), length in any::<prop::sample::Index>()) {
        let mut bytes = partita_hostile::COMPONENT.to_vec();
        let index = at.index(bytes.len());
        bytes[index] = with;
        // Cut as well, so that nothing is compiled.
        bytes.truncate(length.index(bytes.len()));
        prop_assert!(!host().inspect(&bytes, "").is_ok());
    }
}
