//! `first-fit`: the first node in the host's fixed order that has room, and on it the tightest GPU.
//!
//! All places score alike, so the host's own rule for ties decides. It reads nothing, hence its answers never go stale.

use partita_sdk::{Issue, NoSettings, Partitioner, Policy, Question, Refusal};

/// The policy.
#[derive(Debug)]
pub struct FirstFit;

impl Policy for FirstFit {
    type Settings = NoSettings;
    const NAME: &str = "first-fit";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const READS: &[&str] = &[];

    fn new(_: NoSettings) -> Result<Self, Vec<Issue>> {
        Ok(Self)
    }
}

impl Partitioner for FirstFit {
    fn score(&self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal> {
        scores.resize(question.candidates.len(), 0);
        Ok(())
    }
}

partita_sdk::export_partitioner!(FirstFit);

#[cfg(test)]
mod tests {
    use partita_sdk::Candidates;

    use super::*;

    #[test]
    fn every_place_scores_alike() {
        let candidates = Candidates { node: &[0, 0, 3], gpu: &[1, 0, 9], ..Candidates::default() };
        let mut scores = Vec::new();
        FirstFit.score(&Question { view: partita_sdk::View::default(), demand: 0, candidates }, &mut scores).unwrap();
        assert_eq!(scores, [0, 0, 0]);
    }
}
