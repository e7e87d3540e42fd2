//! A policy that fails at everything is asked less and less, and comes back when it is mended.

use partita_core::policy::{Cause, Fault, Partitioner};
use partita_policy::limits::{BREAKER_FAILURES, BREAKER_REST};

use crate::support::{HONEST, ask, attacker, piece};

/// How often the policy is turned away before the next decision reaches it.
fn turned_away(policy: &mut dyn Partitioner, seed: u32) -> (u64, Result<Vec<i32>, Fault>) {
    let mut count = 0;
    loop {
        match ask(policy, seed) {
            Err(fault) if fault.cause == Cause::Quarantined => count += 1,
            other => return (count, other),
        }
    }
}

#[test]
fn it_rests_after_failures_and_longer_after_a_failed_probe() {
    let mut policy = attacker("trap-on-seed-13");
    for _ in 0..BREAKER_FAILURES {
        assert_eq!(ask(&mut policy, 13).unwrap_err().cause, Cause::Trap);
    }
    assert_eq!(policy.stats().resting, BREAKER_REST);
    let (count, probe) = turned_away(&mut policy, 13);
    assert_eq!((count, probe.unwrap_err().cause), (BREAKER_REST, Cause::Trap));
    // The next probe succeeds, and everything is as it was.
    assert_eq!(turned_away(&mut policy, 1), (2 * BREAKER_REST, Ok(HONEST.to_vec())));
    assert_eq!(ask(&mut policy, 13).unwrap_err().cause, Cause::Trap);
    assert_eq!(ask(&mut policy, 1), Ok(HONEST.to_vec()));
}

#[test]
fn a_decision_that_fails_at_a_later_piece_is_a_failure() {
    let mut policy = attacker("trap-on-seed-13");
    for _ in 0..BREAKER_FAILURES {
        assert_eq!(ask(&mut policy, 1), Ok(HONEST.to_vec()));
        assert_eq!(piece(&mut policy, 13).unwrap_err().cause, Cause::Trap);
    }
    assert_eq!(policy.stats().resting, BREAKER_REST);
    assert_eq!(ask(&mut policy, 1).unwrap_err().cause, Cause::Quarantined);
    let faults = policy.stats().faults;
    assert_eq!((policy.stats().answered, faults.get(Cause::Trap)), (u64::from(BREAKER_FAILURES), u64::from(BREAKER_FAILURES)));
}

#[test]
fn a_decision_whose_pieces_are_all_answered_is_one_success() {
    let mut policy = attacker("trap-on-seed-13");
    for _ in 0..3 * BREAKER_FAILURES {
        assert_eq!(ask(&mut policy, 13).unwrap_err().cause, Cause::Trap);
        assert_eq!(ask(&mut policy, 1), Ok(HONEST.to_vec()));
        assert_eq!(piece(&mut policy, 2), Ok(HONEST.to_vec()));
    }
    assert_eq!(policy.stats().resting, 0);
}

#[test]
fn answers_that_the_core_refuses_are_failures_too() {
    let mut policy = attacker("honest");
    let fault = Fault { cause: Cause::Invalid, detail: "the core says no".into() };
    for _ in 0..BREAKER_FAILURES {
        assert_eq!(ask(&mut policy, 1), Ok(HONEST.to_vec()));
        policy.refused(&fault);
    }
    assert_eq!(ask(&mut policy, 1).unwrap_err().cause, Cause::Quarantined);
    assert_eq!(policy.stats().refused, u64::from(BREAKER_FAILURES));
}
