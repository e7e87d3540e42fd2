//! A policy's answer is hostile input: it is taken whole or not at all.

use std::collections::BTreeSet;

use crate::policy::{Cause, Fault, Moves, SCORE_MAX};

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

/// Checks proposed moves: at most `most`, of pods among `pods` rows, each once, to nodes among `nodes` rows.
///
/// # Errors
/// A [`Fault`] of cause [`Cause::Invalid`] that names the first thing wrong.
pub fn moves(moves: &Moves, pods: usize, nodes: usize, most: usize) -> Result<(), Fault> {
    let invalid = |detail| Err(Fault { cause: Cause::Invalid, detail });
    let (count, to) = (moves.pod.len(), moves.node.len());
    if count != to || count > most {
        return invalid(format!("{count} pods move to {to} nodes, and at most {most} may move; name as many nodes as pods"));
    }
    let mut seen = BTreeSet::new();
    for (row, (&pod, &node)) in moves.pod.iter().zip(&moves.node).enumerate() {
        if pod as usize >= pods || node as usize >= nodes {
            return invalid(format!("move {row} is of pod {pod} to node {node}; there are {pods} pods and {nodes} nodes"));
        }
        if !seen.insert(pod) {
            return invalid(format!("pod {pod} moves twice; name each at most once"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_taken_whole_or_not_at_all() {
        let plan = |pod: &[u32], node: &[u32]| moves(&Moves { pod: pod.to_vec(), node: node.to_vec() }, 3, 2, 2);
        assert_eq!((plan(&[], &[]), plan(&[2, 0], &[1, 0])), (Ok(()), Ok(())));
        for (pod, node) in [(&[0][..], &[][..]), (&[0, 1, 2], &[0, 0, 0]), (&[3], &[0]), (&[0], &[2]), (&[1, 1], &[0, 0])] {
            assert_eq!(plan(pod, node).unwrap_err().cause, Cause::Invalid);
        }
    }

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        assert_eq!(scores(&[], 0), Ok(()));
        assert_eq!(scores(&[SCORE_MAX, -SCORE_MAX], 2), Ok(()));
        for (answer, candidates) in [(&[1][..], 2), (&[1, 2, 3][..], 2), (&[SCORE_MAX + 1][..], 1), (&[i32::MIN][..], 1)] {
            assert_eq!(scores(answer, candidates).unwrap_err().cause, Cause::Invalid);
        }
    }
}
