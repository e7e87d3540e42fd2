//! `best-fit`: the node that is fullest once the pod is placed, cpu and GPUs weighing the same.
//!
//! The baseline of Weng et al., "Beware of Fragmentation" (USENIX ATC'23): `trunc(100 (1 - (0.5 cpu / 128000 + 0.5 gpu / 8000)))`,
//! where `cpu` and `gpu` are what is left after placing and the divisors are the largest node of the trace. The paper then stretches the scores of
//! all feasible nodes to 0..100. That keeps their order (the raw scores are whole numbers at most 100 apart, so no two of them merge) and
//! would make a node's score depend on other nodes, so it is left out here.

use partita_sdk::{Issue, NoSettings, Partitioner, Policy, Question, Refusal, SCORE_MAX};

/// The policy.
#[derive(Debug)]
pub struct BestFit;

impl Policy for BestFit {
    type Settings = NoSettings;
    const NAME: &str = "best-fit";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const READS: &[&str] = &["nodes.cpu-free", "nodes.gpu-start", "gpus.free", "demands.cpu", "demands.count", "demands.milli"];

    fn new(_: NoSettings) -> Result<Self, Vec<Issue>> {
        Ok(Self)
    }
}

/// Cpu of the largest node of the trace, milli-cores.
const CPU: i64 = 128_000;
/// GPUs of the largest node of the trace, milli-GPU.
const GPU: i64 = 8_000;

/// The score of a node with that much left, milli-cores and milli-GPU.
fn fullness(cpu_left: i64, gpu_left: i64) -> i32 {
    let bound = i64::from(SCORE_MAX);
    // A node of millions of cores would leave the range of scores.
    ((100 * (2 * CPU * GPU - GPU * cpu_left - CPU * gpu_left)) / (2 * CPU * GPU)).clamp(-bound, bound) as i32
}

impl Partitioner for BestFit {
    fn score(&self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal> {
        let (cpu, milli) = (i64::from(question.asked().cpu()), i64::from(question.asked().total_milli()));
        question.score_nodes(scores, |node| fullness(i64::from(node.cpu_free()) - cpu, i64::from(node.milli_free()) - milli));
        Ok(())
    }
}

partita_sdk::export_partitioner!(BestFit);

#[cfg(test)]
mod tests {
    use partita_sdk::{Candidates, Demands, Gpus, Nodes, View};

    use super::*;

    #[test]
    fn worked_numbers() {
        // An empty node of 96 cores and 2 GPUs that takes 8 cores and half a GPU:
        // 100 (1 - 0.5 * 88000 / 128000 - 0.5 * 1500 / 8000) = 100 (1 - 0.34375 - 0.09375) = 56.25.
        assert_eq!(fullness(88_000, 1_500), 56);
        // Full, and the largest node empty.
        assert_eq!((fullness(0, 0), fullness(CPU, GPU)), (100, 0));
    }

    #[test]
    fn what_the_pod_takes_counts() {
        let view = View {
            nodes: Nodes { cpu_free: &[96_000, 128_000], gpu_start: &[0, 2, 4], ..Nodes::default() },
            gpus: Gpus { free: &[1000, 1000, 500, 0], ..Gpus::default() },
            demands: Demands { cpu: &[8_000], count: &[1], milli: &[500], ..Demands::default() },
            ..View::default()
        };
        let candidates = Candidates { node: &[0, 1], gpu: &[0, 2], ..Candidates::default() };
        let mut scores = Vec::new();
        BestFit.score(&Question { view, demand: 0, candidates }, &mut scores).unwrap();
        // The second: 100 (1 - 0.5 * 120000 / 128000) = 53.125.
        assert_eq!(scores, [56, 53]);
    }
}
