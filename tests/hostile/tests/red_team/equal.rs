//! A bundled policy is native and a component, and answers the same in both forms.

use std::cell::RefCell;

use partita_core::policy::{NONE, Partitioner};
use partita_policy::{Limits, NativePolicy, WasmPolicy, chain, native};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::columns::{Question, Range, question};
use crate::support::host;

/// Questions for each policy.
const CASES: u32 = 400;

/// Both forms of bundled policy `name` with `settings`.
fn both(name: &str, settings: &str) -> (WasmPolicy, NativePolicy) {
    (host().load_bundled(name, settings, Limits::default()).unwrap().policy, native(name, settings).unwrap())
}

fn answer(policy: &mut dyn Partitioner, question: &Question) -> Result<Vec<i32>, String> {
    let mut scores = Vec::new();
    let asked = policy.ready().and_then(|()| policy.score(&question.view(), question.demand, &question.candidates(), &mut scores));
    asked.map(|()| scores).map_err(|fault| fault.to_string())
}

/// Settings other than the defaults that change how a bundled policy scores.
const VARIANTS: [(&str, &str); 1] = [("fragmentation", r#"{"scoring": "fgd"}"#)];

/// Puts [`CASES`] questions to both forms of every bundled policy, which must answer each and alike.
fn assert_equal(range: Range) {
    for (name, settings) in partita_policies::all().iter().map(|policy| (policy.name, "")).chain(VARIANTS) {
        // One pair answers all questions, so that warm instances are compared as well; after a fault, which fails the test, there is a new
        // one for the search of the smallest such question, since a component that fails again and again is not asked. A cell, since the
        // runner's closure is `Fn`.
        let pair = RefCell::new(both(name, settings));
        let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) });
        let result = runner.run(&question(range), |question| {
            let (component, native) = &mut *pair.borrow_mut();
            let answers = (answer(component, &question), answer(native, &question));
            if answers.0.is_err() {
                (*component, *native) = both(name, settings);
            }
            prop_assert!(answers.0.is_ok(), "{:?}", answers.0);
            prop_assert_eq!(answers.0, answers.1);
            Ok(())
        });
        if let Err(error) = result {
            panic!("{name} {settings}: {error}");
        }
    }
}

#[test]
fn native_and_component_answer_the_same() {
    assert_equal(Range::Real);
}

#[test]
fn native_and_component_answer_the_same_at_the_edges() {
    assert_equal(Range::Any);
}

#[test]
fn the_questions_reach_what_they_are_about() {
    // Policies that answer zero would be equal too.
    let mut runner = TestRunner::deterministic();
    let questions: Vec<Question> = (0..300).map(|_| question(Range::Real).new_tree(&mut runner).unwrap().current()).collect();
    for policy in partita_policies::all() {
        let (_, mut native) = both(policy.name, "");
        let answers: Vec<Vec<i32>> = questions.iter().map(|question| answer(&mut native, question).unwrap()).collect();
        let several = answers.iter().filter(|scores| scores.iter().any(|score| *score != scores[0])).count();
        assert!(several >= 15 || policy.name == "first-fit", "{}: {several}", policy.name);
    }
    let count = |wanted: fn(&Question) -> bool| questions.iter().filter(|question| wanted(question)).count();
    assert!(count(|question| question.candidates().node.is_empty()) >= 30);
    assert!(count(|question| question.candidates().profile.iter().any(|profile| *profile != NONE)) >= 30);
    assert!(count(|question| question.candidates().gpu.contains(&NONE)) >= 30);
}

#[test]
fn what_they_say_of_themselves_is_the_same() {
    for policy in partita_policies::all() {
        let (component, native) = both(policy.name, "");
        assert_eq!(component.info(), native.info());
        assert_eq!(component.info().name, policy.name);
        assert_eq!(component.reads(), native.reads());
        assert_ne!(component.revision(), native.revision());
    }
}

#[test]
fn wrong_settings_are_refused_alike() {
    for policy in partita_policies::all() {
        let settings = r#"{"no-such-setting": 1}"#;
        let component = chain(&host().load_bundled(policy.name, settings, Limits::default()).unwrap_err());
        let native = chain(&native(policy.name, settings).unwrap_err());
        assert_eq!(component, native);
        assert!(component.contains("no-such-setting"), "{component}");
    }
    let unknown = chain(&native("no-such-policy", "").unwrap_err());
    assert!(unknown.contains("`no-such-policy`") && unknown.contains("first-fit"), "{unknown}");
}

#[test]
fn the_bench_stays_within_the_budget() {
    for policy in partita_policies::all() {
        let (mut component, _) = both(policy.name, "");
        let bench = component.bench().unwrap();
        assert_eq!(bench.rows.iter().map(|row| row.gpus).collect::<Vec<_>>(), [100, 1_000, 8_000]);
        for row in &bench.rows {
            assert!(row.fuel > 0 && row.fuel_share < 1.0 && row.memory_bytes > 0, "{}: {row:?}", policy.name);
        }
        assert_eq!(component.stats().calls, 0);
    }
}
