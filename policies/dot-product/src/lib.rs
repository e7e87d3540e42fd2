//! `dot-product`: the node whose free cpu and GPUs, times what the pod asks of each, come to the least.
//!
//! The baseline of Weng et al., "Beware of Fragmentation" (USENIX ATC'23): trunc(100 (1 - (c p / 128000^2 + g q / 8000^2) / 2)), with c and
//! g the node's free cpu and GPUs before placing, p and q what the pod asks. The divisors are the largest node of the trace.

use partita_sdk::{Issue, NoSettings, Partitioner, Policy, Question, Refusal, SCORE_MAX};

/// The policy.
#[derive(Debug)]
pub struct DotProduct;

impl Policy for DotProduct {
    type Settings = NoSettings;
    const NAME: &str = "dot-product";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const READS: &[&str] = &["nodes.cpu-free", "nodes.gpu-start", "gpus.free", "demands.cpu", "demands.count", "demands.milli"];

    fn new(_: NoSettings) -> Result<Self, Vec<Issue>> {
        Ok(Self)
    }
}

/// Cpu of the largest node of the trace, milli-cores.
const CPU: i128 = 128_000;
/// GPUs of the largest node of the trace, milli-GPU.
const GPU: i128 = 8_000;

/// The score of a node with that much free for a pod that asks that much, milli-cores and milli-GPU.
fn alignment(cpu_free: u32, gpu_free: u32, cpu: u32, gpu: u32) -> i32 {
    let product = i128::from(cpu_free) * i128::from(cpu) * GPU * GPU + i128::from(gpu_free) * i128::from(gpu) * CPU * CPU;
    let whole = 2 * CPU * CPU * GPU * GPU;
    let bound = i128::from(SCORE_MAX);
    // A node and a pod of millions of cores would leave the range of scores.
    ((100 * (whole - product)) / whole).clamp(-bound, bound) as i32
}

impl Partitioner for DotProduct {
    fn score(&self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal> {
        let (cpu, milli) = (question.asked().cpu(), question.asked().total_milli());
        question.score_nodes(scores, |node| alignment(node.cpu_free(), node.milli_free(), cpu, milli));
        Ok(())
    }
}

partita_sdk::export_partitioner!(DotProduct);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_numbers() {
        // 100 (1 - (0.75 * 0.0625 + 0.25 * 0.0625) / 2) = 100 (1 - 0.03125) = 96.875.
        assert_eq!(alignment(96_000, 2_000, 8_000, 500), 96);
        // The largest node, empty, and a pod that takes all of it.
        assert_eq!(alignment(128_000, 8_000, 128_000, 8_000), 0);
        assert_eq!(alignment(0, 0, 8_000, 500), 100);
        // The largest that columns hold.
        assert_eq!(alignment(u32::MAX, u32::MAX, u32::MAX, u32::MAX), -SCORE_MAX);
    }
}
