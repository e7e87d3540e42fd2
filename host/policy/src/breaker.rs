//! Stops asking a policy that keeps failing. It counts questions and reads no clock, so that a replayed run takes the same turns.

use crate::limits::{BREAKER_FAILURES, BREAKER_REST, BREAKER_REST_MAX};

/// Whether a policy is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breaker {
    now: Turn,
    /// The state before the last success, which comes back when the core refuses that answer.
    before: Turn,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Failures since the last success.
    streak: u32,
    /// Questions that the next rest will last.
    rest: u64,
    /// Questions still to be turned away.
    left: u64,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        let turn = Turn { streak: 0, rest: BREAKER_REST, left: 0 };
        Self { now: turn, before: turn }
    }

    /// Whether the policy may be asked now; if not, how many more questions it is turned away from.
    pub(crate) fn admit(&mut self) -> Result<(), u64> {
        match self.now.left.checked_sub(1) {
            None => Ok(()),
            Some(left) => {
                self.now.left = left;
                Err(left)
            }
        }
    }

    /// The policy answered.
    pub(crate) fn success(&mut self) {
        self.before = self.now;
        self.now = Turn { streak: 0, rest: BREAKER_REST, left: 0 };
    }

    /// The policy failed. True if it is now turned away for a while.
    pub(crate) fn failure(&mut self) -> bool {
        self.now.streak = self.now.streak.saturating_add(1);
        let opens = self.now.streak >= BREAKER_FAILURES;
        if opens {
            // A probe after the rest is the next failure of the same streak, so each failed probe opens again, for twice as long.
            self.now.left = self.now.rest;
            self.now.rest = (self.now.rest * 2).min(BREAKER_REST_MAX);
        }
        opens
    }

    /// The core refused the last answer, so it was no success after all.
    pub(crate) fn refused(&mut self) -> bool {
        self.now = self.before;
        self.failure()
    }

    /// Questions that the policy is still turned away from.
    pub(crate) fn left(&self) -> u64 {
        self.now.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Questions turned away before the next one is let through.
    fn turned_away(breaker: &mut Breaker) -> u64 {
        let mut count = 0;
        while breaker.admit().is_err() {
            count += 1;
        }
        count
    }

    #[test]
    fn it_opens_after_consecutive_failures_only() {
        let mut breaker = Breaker::new();
        for _ in 0..100 {
            for _ in 1..BREAKER_FAILURES {
                assert!(!breaker.failure());
            }
            breaker.success();
        }
        assert_eq!(turned_away(&mut breaker), 0);
    }

    #[test]
    fn every_failed_probe_doubles_the_rest_up_to_the_cap_and_a_success_closes_it() {
        let mut breaker = Breaker::new();
        for _ in 1..BREAKER_FAILURES {
            breaker.failure();
        }
        let rests: Vec<u64> = (0..9)
            .map(|_| {
                assert!(breaker.failure());
                turned_away(&mut breaker)
            })
            .collect();
        assert_eq!(rests, [64, 128, 256, 512, 1024, 2048, 4096, 8192, 8192]);
        breaker.success();
        for _ in 1..BREAKER_FAILURES {
            assert!(!breaker.failure());
        }
        assert!(breaker.failure());
        assert_eq!(breaker.left(), BREAKER_REST);
    }

    #[test]
    fn refused_answers_are_consecutive_failures() {
        let mut breaker = Breaker::new();
        for _ in 1..BREAKER_FAILURES {
            breaker.success();
            assert!(!breaker.refused());
        }
        breaker.success();
        assert!(breaker.refused());
        assert_eq!(turned_away(&mut breaker), BREAKER_REST);
    }
}
