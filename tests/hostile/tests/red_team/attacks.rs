//! What a policy can do in a question, and what the host makes of it.

use partita_core::policy::{Cause, Fault, Partitioner, SCORE_MAX};
use partita_hostile::{Describe, answering, settings};
use partita_policy::{Host, Limits, Stage, chain, limits};
use proptest::prelude::*;

use crate::support::{HONEST, ask, attacker, config, host, load};

/// The fault of the first question to the guest under `attack`.
fn fault(attack: &str) -> Fault {
    ask(&mut attacker(attack), 1).unwrap_err()
}

#[track_caller]
fn assert_fault(attack: &str, cause: Cause, words: &[&str]) {
    let fault = fault(attack);
    assert_eq!(fault.cause, cause, "{attack}: {fault}");
    for word in words {
        assert!(fault.detail.contains(word), "{attack}: no {word:?} in {:?}", fault.detail);
    }
}

#[test]
fn a_loop_runs_out_of_fuel() {
    assert_fault("loop", Cause::Fuel, &["it used up its fuel of 20000000; in partita_hostile_guest::attack::forever"]);
}

#[test]
fn a_loop_with_fuel_for_ages_runs_into_its_deadline() {
    let ceiling = Limits { score_fuel: u64::MAX, wall_ms: 50, ..Limits::default() };
    let host = Host::new(partita_policy::HostConfig { ceiling, ..config(None) }).unwrap();
    let mut policy = host.load("attacker", partita_hostile::COMPONENT, &settings("loop"), ceiling).unwrap().policy;
    let fault = ask(&mut policy, 1).unwrap_err();
    assert!(fault.cause == Cause::Deadline && fault.detail.contains("more than 50 ms"), "{fault}");
}

#[test]
fn bulk_instructions_cost_what_they_do() {
    assert_fault("fill", Cause::Fuel, &[]);
}

#[test]
fn recursion_ends_at_the_stack_limit() {
    assert_fault("recurse", Cause::Trap, &["call stack exhausted"]);
}

#[test]
fn memory_ends_at_its_limit() {
    assert_fault("grow", Cause::Memory, &["bytes of memory and may have 16777216"]);
}

#[test]
fn traps_name_the_function_and_the_last_words() {
    assert_fault("trap", Cause::Trap, &["unreachable", "; in "]);
    assert_fault("panic", Cause::Trap, &["upset <", "last log line: ", "the policy is upset"]);
    assert_fault("index", Cause::Trap, &["index out of bounds: the len is 3 but the index is 7"]);
}

#[test]
fn what_a_policy_writes_cannot_move_the_cursor() {
    assert_fault("control-chars", Cause::Trap, &[r"last log line: \u{1b}[2J\r\n\u{202e}all is well"]);
    assert_fault("decline", Cause::Declined, &[r"no opinion\u{1b}[2J"]);
    assert!(!fault("control-chars").detail.contains(char::is_control));
}

#[test]
fn huge_replies_are_refused() {
    for attack in ["huge-reply", "decline-huge", "log-huge"] {
        // The reply limit and one score for each of the two candidates.
        assert_fault(attack, Cause::Oversize, &["more than 262152 bytes"]);
    }
}

#[test]
fn wrong_answers_are_refused_whole() {
    assert_fault("short", Cause::Invalid, &["1 scores for 2 candidates"]);
    assert_fault("long", Cause::Invalid, &["3 scores for 2 candidates"]);
    assert_fault("out-of-range", Cause::Invalid, &["score 1000001 of candidate 0"]);
    assert_fault("minimum", Cause::Invalid, &["score -2147483648"]);
}

#[test]
fn declining_is_normal() {
    for attack in ["decline", "unsupported"] {
        let mut policy = attacker(attack);
        for _ in 0..20 {
            assert_eq!(ask(&mut policy, 1).unwrap_err().cause, Cause::Declined);
        }
        assert_eq!((policy.stats().faults.get(Cause::Declined), policy.stats().resting), (20, 0));
    }
}

#[test]
fn a_log_flood_costs_fuel_and_a_small_one_is_cut() {
    assert_fault("log-flood", Cause::Fuel, &["last log line: line "]);
    let mut policy = attacker("log-some");
    assert_eq!(ask(&mut policy, 1), Ok(HONEST.to_vec()));
    let lines = u64::from(limits::LOG_LINES);
    assert_eq!((policy.stats().log_lines, policy.stats().log_dropped), (lines, 100 - lines));
}

#[test]
fn a_policy_with_state_is_switched_off_for_good() {
    for (attack, question) in [("impure", 2), ("impure-decline", 2), ("impure-late", 64)] {
        let mut policy = attacker(attack);
        let first = (1..=question).find(|_| ask(&mut policy, 1).is_err());
        assert_eq!(first, Some(question), "{attack}");
        assert_eq!(policy.stats().faults.get(Cause::Impure), 1);
        let fault = ask(&mut policy, 1).unwrap_err();
        assert_eq!(fault.cause, Cause::Quarantined);
        assert!(fault.detail.contains("the same question twice gave"), "{fault}");
        for _ in 0..10_000 {
            assert_eq!(ask(&mut policy, 1).unwrap_err().cause, Cause::Quarantined);
        }
    }
}

#[test]
fn the_question_after_a_trap_meets_a_new_instance() {
    let mut policy = attacker("trap-on-seed-13");
    for _ in 0..20 {
        assert_eq!(ask(&mut policy, 13).unwrap_err().cause, Cause::Trap);
        assert_eq!(ask(&mut policy, 1), Ok(HONEST.to_vec()));
    }
    assert_eq!(policy.stats().faults.get(Cause::Quarantined), 0);
}

#[test]
fn fuel_is_the_same_every_time() {
    let fuel = || {
        let mut policy = attacker("honest");
        ask(&mut policy, 1).unwrap();
        policy.stats().fuel
    };
    assert_eq!(fuel(), fuel());
    assert_ne!(fuel(), 0);
}

#[test]
fn counters_are_written_by_name() {
    let mut policy = attacker("trap");
    ask(&mut policy, 1).unwrap_err();
    let json = serde_json::to_value(policy.stats()).unwrap();
    assert_eq!((&json["calls"], &json["faults"]["trap"], &json["faults"]["fuel"]), (&1.into(), &1.into(), &0.into()));
}

#[test]
fn a_policy_sees_the_seed_only_if_it_says_so() {
    let component = Describe { reads: "nodes.cpu-free", ..Describe::default() }.component();
    let mut blind = host().load("blind", &component, &settings("trap-on-seed-13"), Limits::default()).unwrap().policy;
    assert_eq!(ask(&mut blind, 13), Ok(HONEST.to_vec()));
    assert!(!blind.reads().seed);
    assert!(attacker("honest").reads().seed);
}

#[test]
fn settings_are_refused_with_what_the_policy_says() {
    let error = |attack: &str| load(&settings(attack)).unwrap_err();
    let refused = error("validate-refuse");
    assert_eq!(refused.stage, Stage::Settings);
    let text = chain(&refused);
    assert!(text.contains(r"`/do`: no\u{1b}[2J") && text.matches("`/do`").count() == limits::ISSUES, "{text}");
    assert!(chain(&error("configure-refuse")).contains("changed my mind"));
    assert!(chain(&error("configure-loop")).contains("fuel"));
    assert!(chain(&error("validate-trap")).contains("last log line"));
}

#[test]
fn a_description_that_cannot_be_trusted_is_refused() {
    let error = |describe: Describe<'_>| {
        let error = host().load("attacker", &describe.component(), "", Limits::default()).unwrap_err();
        assert_eq!(error.stage, Stage::Describe);
        chain(&error)
    };
    assert!(error(Describe { name: "a\x1b[2J", ..Describe::default() }).contains(r"its name is `a\u{1b}[2J`"));
    assert!(error(Describe { version: "latest", ..Describe::default() }).contains("`latest`"));
    assert!(error(Describe { schema: "{]", ..Describe::default() }).contains("not JSON"));
    assert!(error(Describe { reads: "nodes.owner", ..Describe::default() }).contains("`nodes.owner`"));
    assert!(error(Describe { name: "trap", ..Describe::default() }).contains("unreachable"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_answer_is_either_right_or_refused(scores in proptest::collection::vec(prop_oneof![-3..3i32, any::<i32>()], 0..5)) {
        let mut policy = load(&answering(&scores)).unwrap();
        let right = scores.len() == 2 && scores.iter().all(|score| (-SCORE_MAX..=SCORE_MAX).contains(score));
        match ask(&mut policy, 1) {
            Ok(answer) => prop_assert!(right && answer == scores),
            Err(fault) => prop_assert!(!right && fault.cause == Cause::Invalid),
        }
    }
}
