//! Fragmentation gradient descent: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
//! Descent", USENIX ATC'23.
//!
//! For a node and a kind of demand that asks k GPUs with g milli each, F is what the node has free that the demand cannot use:
//!
//! - all of it, if the demand asks no GPU, the model does not serve it, cpu is short, or fewer than k GPUs have g free;
//! - else the sum of what is free on the GPUs with less than g free.
//!
//! F of a node is the mean over the expected mix, by weight. A place scores floor(100 sigmoid((F before - F after) / 1000)), so that the
//! place that strands the least wins; among equals of a node the GPU with the lowest row.
//!
//! All of it in whole numbers: F times the sum of the weights is an integer, and instead of the exponential the change is compared with
//! the 99 numbers at which the score steps up (rounded to a millionth of a milli-GPU, far finer than the change can be). On a node
//! with GPUs of several models each GPU counts for the demands that its own model serves, which on one model is the rule above.
//!
//! Cost: for a demand of one GPU, F is a sum over the GPUs of free times the weight of the demands that cannot use it, whatever the other
//! GPUs hold. That weight depends on the model, on which cpu asks of the mix the node still meets, and on which shares the GPU still
//! meets; a table holds it for every such combination met so far. Demands of several GPUs fail together when a node runs out of idle
//! GPUs: a second table by the number of idle GPUs. A place then costs two look-ups, whatever the size of the mix.

use partita_sdk::{NodeCandidates, Question};

use crate::tables::{Gpus, Tables};
use crate::taking;

/// Scores the places of one node for a pod that asks no MIG partition, and appends the scores.
pub(crate) fn score_node(tables: &mut Tables, question: &Question<'_>, places: &NodeCandidates<'_>, scores: &mut Vec<i32>) {
    let (view, asked) = (&question.view, question.asked());
    let node = view.node(places.node);
    let rows = node.gpu_rows();
    let gpus = Gpus { model: &view.gpus.model[rows.clone()], free: &view.gpus.free[rows.clone()], mig: &view.gpus.mig[rows.clone()] };
    let before = tables.level(node.cpu_free());
    let after = tables.level(node.cpu_free().saturating_sub(asked.cpu()));
    let was = tables.stranded(&gpus, before);
    let first = scores.len();
    if asked.count() <= 1
        && let Some(sums) = tables.sums(&gpus, after)
    {
        scores.extend(places.rows().map(|place| {
            let now = match place.gpu() {
                Some(gpu) => tables.total_less(&sums, view.gpus.free[gpu], asked.milli()),
                None => tables.total(&sums),
            };
            tables.score(was - now)
        }));
    } else {
        for place in places.rows() {
            let free = place.gpu().map(|gpu| taking::left(question, rows.clone(), gpu));
            let now = tables.stranded(&Gpus { free: free.as_deref().unwrap_or(gpus.free), ..gpus }, after);
            scores.push(tables.score(was - now));
        }
    }
    lowest_row_first(&question.candidates.gpu[places.range.clone()], &mut scores[first..]);
}

/// Of the best places of a node the one with the lowest GPU row wins: the others lose a point. (The host would take the first listed,
/// which is the tightest.)
fn lowest_row_first(gpus: &[u32], scores: &mut [i32]) {
    let Some(&best) = scores.iter().max() else { return };
    let best_rows = || gpus.iter().zip(scores.iter()).filter(|(_, score)| **score == best).map(|(gpu, _)| *gpu);
    let Some(lowest) = best_rows().min() else { return };
    for (&gpu, score) in gpus.iter().zip(scores) {
        *score -= i32::from(*score == best && gpu != lowest);
    }
}

#[cfg(test)]
mod tests {
    use partita_sdk::{Candidates, Demands, Models, NONE, Nodes, View};

    use super::*;

    /// The scores of the places on one node of 10 free cores; demand row 0 to 2 are the mix, row 3 is asked.
    fn scores(free: &[u32], models: &[u32], asked: [u32; 3], gpu: &[u32]) -> Vec<i32> {
        let [cpu, count, milli] = asked;
        let zeros = vec![0; free.len()];
        let view = View {
            models: Models { gpus: &[4, 4], memory: &[0; 2], slots: &[0; 2] },
            nodes: Nodes { cpu_free: &[10_000], cpu_capacity: &[16_000], gpu_start: &[0, free.len() as u32], ..Nodes::default() },
            gpus: partita_sdk::Gpus { model: models, free, mig: &zeros, ..partita_sdk::Gpus::default() },
            // Half a GPU with 4 cores, a whole one with 8, none with 1.
            demands: Demands {
                cpu: &[4_000, 8_000, 1_000, cpu],
                count: &[1, 1, 0, count],
                milli: &[500, 1_000, 0, milli],
                weight: &[3, 1, 1, 0],
                model_start: &[0; 5],
                profile_start: &[0; 5],
                ..Demands::default()
            },
            ..View::default()
        };
        let (first, nones) = (vec![0; gpu.len()], vec![NONE; gpu.len()]);
        let question = Question {
            view,
            demand: 3,
            candidates: Candidates { node: &first, gpu, profile: &nones, slot: &nones, ..Candidates::default() },
        };
        let mut scores = Vec::new();
        for places in question.candidates.by_node() {
            score_node(&mut Tables::of(&view), &question, &places, &mut scores);
        }
        scores
    }

    #[test]
    fn worked_numbers() {
        // F before, times 5: 3 * 0 + 500 + 1500 = 2000.
        // 300 from the first GPU: 3 * 200 + 1200 (cpu short) + 1200 = 3000. The change is -200: 100 sigmoid(-0.2) = 45.02.
        // 300 from the second GPU: 3 * 0 + 1200 + 1200 = 2400. The change is -80: 100 sigmoid(-0.08) = 48.001.
        assert_eq!(scores(&[500, 1000], &[0, 0], [4_000, 1, 300], &[0, 1]), [45, 48]);
    }

    #[test]
    fn a_pod_without_gpu_changes_what_cpu_allows() {
        // 2000 / 5 before. With 1 core left the half and the whole GPU fail: 1500 for all. The change is -1100: 100 sigmoid(-1.1) = 24.97.
        assert_eq!(scores(&[500, 1000], &[0, 0], [9_000, 0, 0], &[NONE]), [24]);
    }

    #[test]
    fn several_gpus_are_taken_tightest_first() {
        // 600 from the second and third: [500, 0, 200, 1000] with 10 cores. Before: 3 * 0 + (500 + 600 + 800) + 2900 = 4800; after:
        // 3 * 200 + 700 + 1700 = 3000. The change is 360: 100 sigmoid(0.36) = 58.9.
        assert_eq!(scores(&[500, 600, 800, 1000], &[0; 4], [0, 2, 600], &[1]), [58]);
    }

    #[test]
    fn the_lowest_row_wins_among_equals() {
        // 2000 before; after, wherever: 3 * 0 + 1500 (cpu short) + 1500 = 3000. The change is -200, so 45 each.
        assert_eq!(scores(&[1000, 1000], &[0, 1], [4_000, 1, 500], &[1, 0]), [44, 45]);
        let mut scores = [50, 49, 50, 50];
        lowest_row_first(&[3, 0, 1, 2], &mut scores);
        assert_eq!(scores, [49, 49, 50, 49]);
    }
}
