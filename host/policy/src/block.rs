//! The block of a question: all columns in one list, as `wit/policy.wit` (`types.block`) says.
//!
//! A question about places is small, and there is one for each decision. Lowering a list costs about 0.1 µs however short it is, so one
//! block is ten times cheaper than forty columns; packing it here is a `memcpy` a column.

use partita_core::policy::{Candidates, View};

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
}

/// Packs a question into `block`, whose memory is used again.
pub(crate) fn pack(view: &View<'_>, candidates: &Candidates<'_>, sent: Sent, block: &mut Vec<u32>) {
    let View { seed, models, shapes, profiles, nodes, gpus, demands } = view;
    let seed = [*seed];
    let columns: [&[u32]; COLUMNS] = [
        &seed,
        models.gpus,
        models.memory,
        models.slots,
        shapes.model,
        shapes.gpus,
        shapes.cpu_capacity,
        shapes.nodes,
        profiles.model,
        profiles.size,
        profiles.compute,
        profiles.memory,
        profiles.starts,
        nodes.cpu_free,
        nodes.cpu_capacity,
        nodes.memory_free,
        nodes.memory_capacity,
        nodes.gpu_pods,
        nodes.like_pods,
        nodes.gpu_start,
        gpus.model,
        gpus.free,
        gpus.used_slots,
        gpus.warm_slots,
        gpus.mig,
        demands.cpu,
        demands.memory,
        demands.count,
        demands.milli,
        demands.weight,
        demands.model_start,
        demands.models,
        demands.profile_start,
        demands.profiles,
        candidates.node,
        candidates.gpu,
        candidates.profile,
        candidates.slot,
        // No pods that may move: this asks where one goes.
        &[],
        &[],
        &[],
        &[],
        candidates.kind,
        candidates.milli,
        candidates.tier,
        candidates.use_start,
        candidates.use_gpu,
        candidates.use_profile,
        candidates.use_slot,
    ];
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
    use partita_core::policy::Nodes;

    use super::*;

    fn column(block: &[u32], row: usize) -> &[u32] {
        &block[block[1 + row] as usize..block[2 + row] as usize]
    }

    #[test]
    fn a_block_holds_what_the_policy_reads_and_the_candidates() {
        let view = View { seed: 7, nodes: Nodes { cpu_free: &[1, 2], gpu_start: &[0, 0, 0], ..Nodes::default() }, ..View::default() };
        let candidates =
            Candidates { node: &[0, 1], gpu: &[8, 9], profile: &[5, 5], slot: &[6, 6], kind: &[2, 2], ..Candidates::default() };
        let mut block = vec![99; 3];
        pack(&view, &candidates, Sent::of(&["gpus.free".to_owned(), "nodes.cpu-free".to_owned()]), &mut block);
        assert_eq!(block[0] as usize, COLUMNS);
        assert_eq!((column(&block, 0), column(&block, 13), column(&block, 19)), (&[7][..], &[1, 2][..], &[0, 0, 0][..]));
        assert_eq!((column(&block, 34), column(&block, 37), column(&block, 42).len()), (&[0, 1][..], &[6, 6][..], 0));
        assert_eq!(block[1 + COLUMNS] as usize, block.len());
        pack(&view, &candidates, Sent::of(&[]), &mut block);
        assert_eq!((column(&block, 13).len(), column(&block, 35)), (0, &[8, 9][..]));
        pack(&view, &candidates, Sent::of(&["places.kind".to_owned()]), &mut block);
        assert_eq!(column(&block, 42), [2, 2]);
    }
}
