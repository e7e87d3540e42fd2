//! A policy's answer is hostile input: it is taken whole or not at all.

use crate::policy::{Cause, Fault, SCORE_MAX};

/// Checks the answer to a question with `candidates` rows: one score each, all within bounds.
///
/// # Errors
/// A [`Fault`] of cause [`Cause::Invalid`] that names the first thing wrong.
pub fn scores(scores: &[i32], candidates: usize) -> Result<(), Fault> {
    let invalid = |detail| Err(Fault { cause: Cause::Invalid, detail });
    if scores.len() != candidates {
        return invalid(format!("{} scores for {candidates} candidates; answer exactly one each", scores.len()));
    }
    match scores.iter().position(|score| !(-SCORE_MAX..=SCORE_MAX).contains(score)) {
        Some(row) => invalid(format!("the score of candidate {row} is {}; scores lie within ±{SCORE_MAX}", scores[row])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        assert_eq!(scores(&[], 0), Ok(()));
        assert_eq!(scores(&[SCORE_MAX, -SCORE_MAX], 2), Ok(()));
        for (answer, candidates) in [(&[1][..], 2), (&[1, 2, 3][..], 2), (&[SCORE_MAX + 1][..], 1), (&[i32::MIN][..], 1)] {
            assert_eq!(scores(answer, candidates).unwrap_err().cause, Cause::Invalid);
        }
    }
}
