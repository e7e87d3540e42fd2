//! Stops asking a policy that keeps failing. It counts decisions and reads no clock, so that a replayed run takes the same turns.
//!
//! A decision puts one question or several to the policy, and it is known to be a success only when the next one begins: any piece of it
//! may fail, and the core may refuse an answer afterwards.

use crate::limits::{BREAKER_FAILURES, BREAKER_REST, BREAKER_REST_MAX};

/// Whether a policy is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breaker {
    /// Failed decisions since the last success.
    streak: u32,
    /// Decisions that the next rest will last.
    rest: u64,
    /// Decisions still to be turned away.
    left: u64,
    decision: Decision,
}

/// What is known of the decision under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Nothing was answered yet. A decision that ends so says nothing of the policy: it was turned away, declined, or never asked.
    Open,
    /// Every answer so far was usable.
    Answered,
    /// A piece failed or was refused, and that was counted.
    Failed,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self { streak: 0, rest: BREAKER_REST, left: 0, decision: Decision::Open }
    }

    /// Ends the decision before and begins the next: whether the policy may be asked now; if not, how many more decisions it is turned
    /// away from.
    pub(crate) fn admit(&mut self) -> Result<(), u64> {
        if self.decision == Decision::Answered {
            (self.streak, self.rest) = (0, BREAKER_REST);
        }
        self.decision = Decision::Open;
        match self.left.checked_sub(1) {
            None => Ok(()),
            Some(left) => {
                self.left = left;
                Err(left)
            }
        }
    }

    /// The policy answered a piece of the decision.
    pub(crate) fn answered(&mut self) {
        if self.decision == Decision::Open {
            self.decision = Decision::Answered;
        }
    }

    /// The policy failed at a piece of the decision, or the core refused what it answered. True if it is now turned away for a while.
    pub(crate) fn failure(&mut self) -> bool {
        if self.decision == Decision::Failed {
            return false;
        }
        self.decision = Decision::Failed;
        self.streak = self.streak.saturating_add(1);
        let opens = self.streak >= BREAKER_FAILURES;
        if opens {
            // A probe after the rest is the next failure of the same streak, so each failed probe opens again, for twice as long.
            self.left = self.rest;
            self.rest = (self.rest * 2).min(BREAKER_REST_MAX);
        }
        opens
    }

    /// Decisions that the policy is still turned away from.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decisions turned away before the next one is let through, which is then under way.
    fn turned_away(breaker: &mut Breaker) -> u64 {
        let mut count = 0;
        while breaker.admit().is_err() {
            count += 1;
        }
        count
    }

    /// A decision in which the policy fails after `answers` pieces. True if it is turned away from now on.
    fn fail(breaker: &mut Breaker, answers: usize) -> bool {
        assert_eq!(breaker.admit(), Ok(()));
        (0..answers).for_each(|_| breaker.answered());
        breaker.failure()
    }

    #[test]
    fn it_opens_after_consecutive_failures_only() {
        let mut breaker = Breaker::new();
        for _ in 0..100 {
            for _ in 1..BREAKER_FAILURES {
                assert!(!fail(&mut breaker, 0));
            }
            breaker.admit().unwrap();
            breaker.answered();
        }
        assert_eq!(turned_away(&mut breaker), 0);
    }

    #[test]
    fn every_failed_probe_doubles_the_rest_up_to_the_cap_and_a_success_closes_it() {
        let mut breaker = Breaker::new();
        for _ in 1..BREAKER_FAILURES {
            fail(&mut breaker, 0);
        }
        breaker.admit().unwrap();
        let rests: Vec<u64> = (0..9)
            .map(|_| {
                assert!(breaker.failure());
                turned_away(&mut breaker)
            })
            .collect();
        assert_eq!(rests, [64, 128, 256, 512, 1024, 2048, 4096, 8192, 8192]);
        breaker.answered();
        for _ in 1..BREAKER_FAILURES {
            assert!(!fail(&mut breaker, 0));
        }
        assert!(fail(&mut breaker, 0));
        assert_eq!(breaker.left(), BREAKER_REST);
    }

    #[test]
    fn a_decision_fails_once_whatever_else_it_answers() {
        let mut breaker = Breaker::new();
        for _ in 1..BREAKER_FAILURES {
            assert!(!fail(&mut breaker, 3));
            assert!(!breaker.failure());
            breaker.answered();
        }
        assert!(fail(&mut breaker, 1));
        assert_eq!(turned_away(&mut breaker), BREAKER_REST);
    }

    #[test]
    fn a_decision_without_an_answer_is_neither_success_nor_failure() {
        let mut breaker = Breaker::new();
        for _ in 1..BREAKER_FAILURES {
            assert!(!fail(&mut breaker, 0));
            breaker.admit().unwrap();
        }
        assert!(fail(&mut breaker, 0));
    }
}
