//! `packing`: GPUs in use first, then idle GPUs of used nodes, then empty nodes.
//!
//! The baseline of Weng et al., "Beware of Fragmentation" (USENIX ATC'23). A node is empty when all of its GPUs are wholly free. A pod
//! takes the GPUs with the least left first; f of those it takes are wholly free:
//!
//! - f = 0: max(100 - left / 10, 50), with left the sum over the taken GPUs of what is left before placing, in percent;
//! - f > 0 on a used node: max(50 - f, 33);
//! - on an empty node with G GPUs: max(33 - G, G);
//! - a pod without GPU: 0.

use partita_sdk::{Issue, NoSettings, Partitioner, Policy, Question, Refusal};

/// The policy.
#[derive(Debug)]
pub struct Packing;

impl Policy for Packing {
    type Settings = NoSettings;
    const NAME: &str = "packing";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const READS: &[&str] = &["nodes.gpu-start", "gpus.free", "demands.count", "demands.milli"];

    fn new(_: NoSettings) -> Result<Self, Vec<Issue>> {
        Ok(Self)
    }
}

/// Milli-GPU of a GPU.
const WHOLE: u32 = 1000;

/// The score of a node with that much `free` on each GPU, for a pod of `count` GPUs with `milli` of each.
fn tightness(free: &[u32], count: u32, milli: u32) -> i32 {
    if free.iter().all(|&left| left == WHOLE) {
        let gpus = (free.len() as u32).cast_signed();
        return (33 - gpus).max(gpus);
    }
    // The taken GPUs are the `count` with the least left that still fit; equals are interchangeable here, so no order among them.
    let mut left = 0;
    let mut floor = milli;
    let mut missing = count;
    while missing > 0 {
        let Some(next) = free.iter().copied().filter(|&left| left >= floor).min() else { break };
        if next == WHOLE {
            return (50 - missing.cast_signed()).max(33);
        }
        let alike = missing.min(free.iter().filter(|&&left| left == next).count() as u32);
        left += alike * (next * 100 / WHOLE);
        missing -= alike;
        floor = next + 1;
    }
    (100 - (left / 10).cast_signed()).max(50)
}

impl Partitioner for Packing {
    fn score(&self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal> {
        let (count, milli) = (question.asked().count(), question.asked().milli());
        if count == 0 {
            scores.resize(question.candidates.len(), 0);
        } else {
            question.score_nodes(scores, |node| tightness(node.shares_free(), count, milli));
        }
        Ok(())
    }
}

partita_sdk::export_partitioner!(Packing);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_goes_to_the_tightest_used_gpu() {
        // 810 left are 81 %, a tenth of that is 8.
        assert_eq!(tightness(&[810, 1000], 1, 500), 92);
        // The GPU with 300 left is too full.
        assert_eq!(tightness(&[300, 810], 1, 500), 92);
        assert_eq!(tightness(&[300, 810], 1, 300), 97);
    }

    #[test]
    fn idle_gpus_of_a_used_node_come_next() {
        assert_eq!(tightness(&[300, 1000, 1000, 1000], 1, 500), 49);
        assert_eq!(tightness(&[0, 1000, 1000, 1000], 3, 1000), 47);
        // One of the two is in use.
        assert_eq!(tightness(&[600, 1000, 1000], 2, 500), 49);
    }

    #[test]
    fn several_shares_add_up() {
        // 60 + 70 %: 100 - 13.
        assert_eq!(tightness(&[600, 700, 1000], 2, 500), 87);
    }

    #[test]
    fn an_empty_node_comes_last() {
        assert_eq!(tightness(&[1000; 2], 1, 500), 31);
        assert_eq!(tightness(&[1000; 8], 8, 1000), 25);
    }
}
