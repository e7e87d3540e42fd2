//! `random`: any feasible node, each as likely as another, and on it any of its places. (Places are distinguishable: GPUs in the same state
//! are one place, so idle GPUs are drawn a little less often than in the paper's random baseline, which draws a GPU.)
//!
//! The score of a node is a hash of the decision's seed and the node's row, so the same question with the same seed has the same answer.
//! It reads the seed, so its answers are never cached and every question holds all feasible nodes.

use partita_sdk::{Issue, NoSettings, Partitioner, Policy, Question, Refusal, SCORE_MAX};

/// The policy.
#[derive(Debug)]
pub struct Random;

impl Policy for Random {
    type Settings = NoSettings;
    const NAME: &str = "random";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const READS: &[&str] = &["context.seed"];

    fn new(_: NoSettings) -> Result<Self, Vec<Issue>> {
        Ok(Self)
    }
}

/// A hash of `seed` and `row` in `0..=SCORE_MAX`: the finaliser of `MurmurHash3` (Appleby, public domain) over both.
fn draw(seed: u32, row: u32) -> i32 {
    let mix = |mut hash: u32| {
        hash ^= hash >> 16;
        hash = hash.wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 13;
        hash = hash.wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    };
    let hash = mix(mix(seed) ^ row.wrapping_mul(0x9e37_79b9));
    // The high half of the product is the hash scaled to the range, which favours nobody as a remainder would.
    ((u64::from(hash) * (SCORE_MAX as u64 + 1)) >> 32) as i32
}

impl Partitioner for Random {
    fn score(&self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal> {
        let seed = question.view.seed;
        for places in question.candidates.by_node() {
            let row = places.node as u32;
            // The node's draw goes to one of its places, drawn by the hash of another seed; the others cannot win.
            let chosen = draw(!seed, row).unsigned_abs() as usize % places.range.len();
            scores.extend((0..places.range.len()).map(|place| if place == chosen { draw(seed, row) } else { -1 }));
        }
        Ok(())
    }
}

partita_sdk::export_partitioner!(Random);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_wins_about_as_often() {
        let mut wins = [0; 10];
        for seed in 0..10_000 {
            let winner = (0..10).max_by_key(|&row| (draw(seed, row), 10 - row)).unwrap();
            wins[winner as usize] += 1;
        }
        // 1000 expected each, standard deviation 30.
        assert!(wins.iter().all(|count| (880..=1120).contains(count)), "{wins:?}");
    }

    #[test]
    fn one_place_of_a_node_can_win_and_each_does() {
        use partita_sdk::{Candidates, Question, View};
        let candidates =
            Candidates { node: &[0, 0, 0, 1], gpu: &[0, 1, 2, 3], profile: &[u32::MAX; 4], slot: &[u32::MAX; 4], ..Candidates::default() };
        let mut wins = [0; 3];
        for seed in 0..3000 {
            let mut scores = Vec::new();
            let view = View { seed, ..View::default() };
            Random.score(&Question { view, demand: 0, candidates }, &mut scores).unwrap();
            assert_eq!(scores[..3].iter().filter(|score| **score >= 0).count(), 1);
            assert!(scores[3] >= 0, "the only place of its node");
            wins[scores.iter().position(|score| *score >= 0).unwrap()] += 1;
        }
        assert!(wins.iter().all(|count| (880..=1120).contains(count)), "{wins:?}");
    }

    #[test]
    fn draws_lie_within_the_range_and_depend_on_the_seed() {
        assert!((0..1000).all(|seed| (0..=SCORE_MAX).contains(&draw(seed, 7))));
        assert_ne!(draw(1, 7), draw(2, 7));
    }
}
