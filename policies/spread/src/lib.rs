//! `spread`: the emptiest node first, and on it the emptiest GPU, for teams that want headroom and fewer neighbours.
//!
//! A node is as empty as its GPUs together; for a pod without GPU, as the scarcer of cpu and memory. It is the opposite of packing: on a
//! busy cluster it leaves crumbs everywhere and turns large pods away.

use partita_sdk::{Issue, NoSettings, Partitioner, Policy, Question, Refusal};

/// The policy.
#[derive(Debug)]
pub struct Spread;

impl Policy for Spread {
    type Settings = NoSettings;
    const NAME: &str = "spread";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const READS: &[&str] = &["nodes.*", "gpus.free", "demands.count"];

    fn new(_: NoSettings) -> Result<Self, Vec<Issue>> {
        Ok(Self)
    }
}

/// Levels of a node's emptiness; above them the free share of the GPU breaks ties: `NODE_LEVELS * 1001 + 1000` is at most `SCORE_MAX`.
const NODE_LEVELS: u64 = 998;

/// `free` of `capacity` in levels.
fn emptiness(free: u32, capacity: u32) -> u64 {
    u64::from(free) * NODE_LEVELS / u64::from(capacity.max(1))
}

impl Partitioner for Spread {
    fn score(&self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal> {
        let view = &question.view;
        let with_gpu = question.asked().count() > 0;
        for places in question.candidates.by_node() {
            let node = view.node(places.node);
            let level = if with_gpu {
                emptiness(node.milli_free(), 1000 * node.gpu_rows().len() as u32)
            } else {
                emptiness(node.cpu_free(), node.cpu_capacity()).min(emptiness(node.memory_free(), node.memory_capacity()))
            };
            scores.extend(places.rows().map(|place| {
                let free = place.gpu().map_or(0, |gpu| view.gpu(gpu).free());
                (level * 1001 + u64::from(free.min(1000))) as i32
            }));
        }
        Ok(())
    }
}

partita_sdk::export_partitioner!(Spread);

#[cfg(test)]
mod tests {
    use partita_sdk::{Candidates, Demands, Gpus, NONE, Nodes, SCORE_MAX, View};

    use super::*;

    fn scores(view: &View<'_>, candidates: Candidates<'_>) -> Vec<i32> {
        let mut scores = Vec::new();
        Spread.score(&Question { view: *view, demand: 0, candidates }, &mut scores).unwrap();
        scores
    }

    #[test]
    fn the_emptiest_node_wins_and_on_it_the_emptiest_gpu() {
        let view = View {
            nodes: Nodes { gpu_start: &[0, 2, 4, 5], ..Nodes::default() },
            gpus: Gpus { free: &[400, 1000, 700, 700, 1000], ..Gpus::default() },
            demands: Demands { count: &[1], milli: &[100], ..Demands::default() },
            ..View::default()
        };
        let scores = scores(&view, Candidates { node: &[0, 0, 1, 2], gpu: &[0, 1, 2, 4], ..Candidates::default() });
        // 1400 of 2000 free on the first two nodes: 998 * 0.7 = 698.6.
        assert_eq!(scores, [698 * 1001 + 400, 698 * 1001 + 1000, 698 * 1001 + 700, 998 * 1001 + 1000]);
        assert!(scores.iter().all(|score| *score <= SCORE_MAX));
    }

    #[test]
    fn without_gpu_the_scarcer_of_cpu_and_memory_decides() {
        let nodes = Nodes {
            cpu_free: &[500, 1000],
            cpu_capacity: &[1000, 1000],
            memory_free: &[100, 40],
            memory_capacity: &[100, 100],
            gpu_start: &[0, 0, 0],
            ..Nodes::default()
        };
        let view = View { nodes, demands: Demands { count: &[0], ..Demands::default() }, ..View::default() };
        let scores = scores(&view, Candidates { node: &[0, 1], gpu: &[NONE, NONE], ..Candidates::default() });
        assert_eq!(scores, [499 * 1001, 399 * 1001]);
    }
}
