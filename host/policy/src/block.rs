//! The block of a question: all columns in one list, as `wit/policy.wit` (`types.block`) says.
//!
//! A question about places is small, and there is one for each decision. Lowering a list costs about 0.1 µs however short it is, so one
//! block is ten times cheaper than forty columns; packing it here is a `memcpy` a column.

use partita_core::policy::{Candidates, Demands, Movable, View};

use crate::describe;

/// Columns of the package.
const COLUMNS: usize = 49;

/// Which columns a policy is sent: those that it reads, what finds their rows, and the candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent([bool; COLUMNS]);

impl Sent {
    /// The columns named by `reads`.
    pub(crate) fn of(reads: &[String]) -> Self {
        let named = |table: &str, column: &str| {
            reads.iter().any(|read| read.split_once('.').is_some_and(|(of, which)| of == table && (which == column || which == "*")))
        };
        // The rows of a node's GPUs are found through the node, ragged values through their offsets.
        let table_read = |table: &str| reads.iter().any(|read| read.split('.').next() == Some(table));
        let finds = |table: &str, column: &str| match (table, column) {
            ("nodes", "gpu-start") => table_read("gpus"),
            ("demands", "model-start") => named("demands", "models"),
            ("demands", "profile-start") => named("demands", "profiles"),
            ("places", "use-start") => table_read("uses"),
            // Every policy gets what it is to answer.
            ("candidates", _) => true,
            _ => false,
        };
        // The seed is there always, 0 for a policy that does not read it.
        let mut sent = [true; COLUMNS];
        let flat = describe::COLUMNS.into_iter().flat_map(|(table, columns)| columns.iter().map(move |column| (table, *column)));
        for (row, (table, column)) in flat.enumerate().skip(1) {
            sent[row] = named(table, column) || finds(table, column);
        }
        Self(sent)
    }

    /// Whether anything of the outlook is sent: a table that stays the same or, where the policy sees a mix, the demands.
    pub(crate) fn outlook(self, mix: bool) -> bool {
        self.0[1..13].contains(&true) || (mix && self.0[25..34].contains(&true))
    }
}

/// Packs the outlook into `block`, whose memory is used again: the tables that stay the same, and the first `mix` rows of the demands.
pub(crate) fn pack_outlook(view: &View<'_>, mix: usize, sent: Sent, block: &mut Vec<u32>) {
    let View { models, shapes, profiles, demands, .. } = view;
    let ragged = |start: &'_ [u32], values: &'_ [u32]| start.get(mix).map_or(values.len(), |&end| end as usize);
    let (of_models, of_profiles) = (ragged(demands.model_start, demands.models), ragged(demands.profile_start, demands.profiles));
    let first = |column: &'_ [u32], rows: usize| -> usize { column.len().min(rows) };
    let columns: [&[u32]; COLUMNS] = columns(
        &[],
        [models.gpus, models.memory, models.slots],
        [shapes.model, shapes.gpus, shapes.cpu_capacity, shapes.nodes],
        [profiles.model, profiles.size, profiles.compute, profiles.memory, profiles.starts],
        [
            &demands.cpu[..first(demands.cpu, mix)],
            &demands.memory[..first(demands.memory, mix)],
            &demands.count[..first(demands.count, mix)],
            &demands.milli[..first(demands.milli, mix)],
            &demands.weight[..first(demands.weight, mix)],
            &demands.model_start[..first(demands.model_start, mix + 1)],
            &demands.models[..of_models],
            &demands.profile_start[..first(demands.profile_start, mix + 1)],
            &demands.profiles[..of_profiles],
        ],
        &View::default(),
        &Candidates::default(),
    );
    write(&columns, sent, block);
}

/// Packs a question into `block`, whose memory is used again. Of the demands goes `asked` alone; what the outlook holds stays out.
pub(crate) fn pack(view: &View<'_>, asked: &Demands<'_>, candidates: &Candidates<'_>, sent: Sent, block: &mut Vec<u32>) {
    let seed = [view.seed];
    let Demands { cpu, memory, count, milli, weight, model_start, models, profile_start, profiles } = *asked;
    let demands = [cpu, memory, count, milli, weight, model_start, models, profile_start, profiles];
    write(&columns(&seed, [&[]; 3], [&[]; 4], [&[]; 5], demands, view, candidates), sent, block);
}

/// Packs a question about pods that may move. Of the demands go those behind the mix, `others`.
pub(crate) fn pack_moves(view: &View<'_>, others: &Demands<'_>, pods: &Movable<'_>, sent: Sent, block: &mut Vec<u32>) {
    let seed = [view.seed];
    let Demands { cpu, memory, count, milli, weight, model_start, models, profile_start, profiles } = *others;
    let demands = [cpu, memory, count, milli, weight, model_start, models, profile_start, profiles];
    let mut all = columns(&seed, [&[]; 3], [&[]; 4], [&[]; 5], demands, view, &Candidates::default());
    all[38..42].copy_from_slice(&[pods.demand, pods.node, pods.gpu, pods.slot]);
    let mut sent = sent;
    sent.0[38..42].fill(true);
    write(&all, sent, block);
}

/// All columns in the order of the package.
fn columns<'a>(
    seed: &'a [u32],
    models: [&'a [u32]; 3],
    shapes: [&'a [u32]; 4],
    profiles: [&'a [u32]; 5],
    demands: [&'a [u32]; 9],
    view: &View<'a>,
    candidates: &Candidates<'a>,
) -> [&'a [u32]; COLUMNS] {
    let View { nodes, gpus, .. } = view;
    let mut columns: [&[u32]; COLUMNS] = [&[]; COLUMNS];
    let nodes =
        [nodes.cpu_free, nodes.cpu_capacity, nodes.memory_free, nodes.memory_capacity, nodes.gpu_pods, nodes.like_pods, nodes.gpu_start];
    let gpus = [gpus.model, gpus.free, gpus.used_slots, gpus.warm_slots, gpus.mig];
    let places = [
        candidates.kind,
        candidates.milli,
        candidates.tier,
        candidates.use_start,
        candidates.use_gpu,
        candidates.use_profile,
        candidates.use_slot,
    ];
    let candidates = [candidates.node, candidates.gpu, candidates.profile, candidates.slot];
    columns[0] = seed;
    columns[1..4].copy_from_slice(&models);
    columns[4..8].copy_from_slice(&shapes);
    columns[8..13].copy_from_slice(&profiles);
    columns[13..20].copy_from_slice(&nodes);
    columns[20..25].copy_from_slice(&gpus);
    columns[25..34].copy_from_slice(&demands);
    columns[34..38].copy_from_slice(&candidates);
    // Pods that may move, 38 to 41, are no part of these.
    columns[42..].copy_from_slice(&places);
    columns
}

/// Writes the columns that are sent end to end, behind their starts.
fn write(columns: &[&[u32]; COLUMNS], sent: Sent, block: &mut Vec<u32>) {
    block.clear();
    block.push(COLUMNS as u32);
    let mut end = COLUMNS + 2;
    block.push(end as u32);
    for (column, sent) in columns.iter().zip(sent.0) {
        end += if sent { column.len() } else { 0 };
        block.push(end as u32);
    }
    block.reserve(end - block.len());
    for (column, _) in columns.iter().zip(sent.0).filter(|(_, sent)| *sent) {
        block.extend_from_slice(column);
    }
}

#[cfg(test)]
mod tests {
    use partita_core::policy::{Models, Nodes};

    use super::*;

    fn column(block: &[u32], row: usize) -> &[u32] {
        &block[block[1 + row] as usize..block[2 + row] as usize]
    }

    #[test]
    fn a_block_holds_what_the_policy_reads_and_the_candidates() {
        let view = View { seed: 7, nodes: Nodes { cpu_free: &[1, 2], gpu_start: &[0, 0, 0], ..Nodes::default() }, ..View::default() };
        let candidates =
            Candidates { node: &[0, 1], gpu: &[8, 9], profile: &[5, 5], slot: &[6, 6], kind: &[2, 2], ..Candidates::default() };
        let asked = Demands { cpu: &[500], weight: &[0], ..Demands::default() };
        let mut block = vec![99; 3];
        pack(&view, &asked, &candidates, Sent::of(&["gpus.free".to_owned(), "nodes.cpu-free".to_owned()]), &mut block);
        assert_eq!(block[0] as usize, COLUMNS);
        assert_eq!((column(&block, 0), column(&block, 13), column(&block, 19)), (&[7][..], &[1, 2][..], &[0, 0, 0][..]));
        assert_eq!((column(&block, 34), column(&block, 37), column(&block, 42).len()), (&[0, 1][..], &[6, 6][..], 0));
        assert_eq!(block[1 + COLUMNS] as usize, block.len());
        pack(&view, &asked, &candidates, Sent::of(&[]), &mut block);
        assert_eq!((column(&block, 13).len(), column(&block, 35)), (0, &[8, 9][..]));
        pack(&view, &asked, &candidates, Sent::of(&["places.kind".to_owned()]), &mut block);
        assert_eq!(column(&block, 42), [2, 2]);
        pack(&view, &asked, &candidates, Sent::of(&["demands.cpu".to_owned(), "models.gpus".to_owned()]), &mut block);
        assert_eq!((column(&block, 25), column(&block, 26).len(), column(&block, 1).len()), (&[500][..], 0, 0));
    }

    #[test]
    fn the_outlook_holds_what_stays_the_same_and_the_mix_without_the_asked_demand() {
        let demands = Demands { cpu: &[1, 2, 9], model_start: &[0, 1, 3, 4], models: &[7, 8, 9, 10], ..Demands::default() };
        let models = Models { gpus: &[4, 5], ..Models::default() };
        let view = View { demands, models, nodes: Nodes { cpu_free: &[1], ..Nodes::default() }, ..View::default() };
        let reads = ["demands.*", "models.gpus", "nodes.cpu-free"].map(str::to_owned);
        let mut block = Vec::new();
        pack_outlook(&view, 2, Sent::of(&reads), &mut block);
        assert_eq!((column(&block, 1), column(&block, 25), column(&block, 13).len()), (&[4, 5][..], &[1, 2][..], 0));
        assert_eq!((column(&block, 30), column(&block, 31)), (&[0, 1, 3][..], &[7, 8, 9][..]));
        assert!(Sent::of(&reads).outlook(false) && !Sent::of(&reads[2..]).outlook(true));
        assert!(Sent::of(&reads[..1]).outlook(true) && !Sent::of(&reads[..1]).outlook(false));
    }
}
