//! `clustering`: nodes that already host the same kind of GPU request.
//!
//! The baseline of Weng et al., "Beware of Fragmentation" (USENIX ATC'23). Kinds are "a share of a GPU" and "k whole GPUs"; pods without
//! GPU do not count. 75 for a node that hosts only this kind, 50 for this kind among others, 25 for a node without GPU pods, 0 for one
//! that hosts other kinds only; plus 25 (8000 - left) / 8000 in whole numbers, with left the free milli-GPU before placing. A pod without
//! GPU scores 0 everywhere.

use partita_sdk::{Issue, NoSettings, Partitioner, Policy, Question, Refusal};

/// The policy.
#[derive(Debug)]
pub struct Clustering;

impl Policy for Clustering {
    type Settings = NoSettings;
    const NAME: &str = "clustering";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const READS: &[&str] = &["nodes.gpu-pods", "nodes.like-pods", "nodes.gpu-start", "gpus.free", "demands.count"];

    fn new(_: NoSettings) -> Result<Self, Vec<Issue>> {
        Ok(Self)
    }
}

/// GPUs of the largest node of the trace, milli-GPU.
const GPU: i32 = 8_000;

/// The score of a node with so many GPU pods, so many of them like the asked one, and that much free, milli-GPU.
fn company(gpu_pods: u32, like_pods: u32, free: u32) -> i32 {
    let base = match (gpu_pods, like_pods) {
        (0, _) => 25,
        (_, 0) => 0,
        (all, like) if all == like => 75,
        _ => 50,
    };
    base + 25 * (GPU - free.cast_signed()) / GPU
}

impl Partitioner for Clustering {
    fn score(&self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal> {
        if question.asked().count() == 0 {
            scores.resize(question.candidates.len(), 0);
        } else {
            question.score_nodes(scores, |node| company(node.gpu_pods(), node.like_pods(), node.milli_free()));
        }
        Ok(())
    }
}

partita_sdk::export_partitioner!(Clustering);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_numbers() {
        // 25 * 2000 / 8000 = 6.25 for use.
        assert_eq!(company(2, 2, 6_000), 81);
        assert_eq!(company(2, 1, 6_000), 56);
        assert_eq!(company(0, 0, 6_000), 31);
        assert_eq!(company(2, 0, 6_000), 6);
        assert_eq!((company(8, 8, 0), company(0, 0, 8_000)), (100, 25));
    }
}
