//! The block of a question: all columns in one list, as `wit/policy.wit` (`types.block`) says.
//!
//! A question about places is small, and there is one for each decision. Lowering a list costs about 0.1 µs however short it is, so one
//! block is ten times cheaper than forty columns; packing it here is a `memcpy` a column.

use partita_core::policy::{Candidates, View};

/// Columns of the package that a host sends: everything before the table `movable`.
const COLUMNS: usize = 38;

/// Tables that a policy is sent: those of which it reads something, and the candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "it is a set: one flag a table")]
pub(crate) struct Tables {
    models: bool,
    shapes: bool,
    profiles: bool,
    nodes: bool,
    gpus: bool,
    demands: bool,
}

impl Tables {
    /// The tables of the columns `reads`.
    pub(crate) fn of(reads: &[String]) -> Self {
        let reads_of = |table: &str| reads.iter().any(|column| column.split('.').next() == Some(table));
        Self {
            models: reads_of("models"),
            shapes: reads_of("shapes"),
            profiles: reads_of("profiles"),
            // The rows of a node's GPUs are found through the node.
            nodes: reads_of("nodes") || reads_of("gpus"),
            gpus: reads_of("gpus"),
            demands: reads_of("demands"),
        }
    }
}

/// Packs a question into `block`, whose memory is used again.
pub(crate) fn pack(view: &View<'_>, candidates: &Candidates<'_>, tables: Tables, block: &mut Vec<u32>) {
    let View { seed, models, shapes, profiles, nodes, gpus, demands } = view;
    let seed = [*seed];
    let columns: [(bool, &[u32]); COLUMNS] = [
        (true, &seed),
        (tables.models, models.gpus),
        (tables.models, models.memory),
        (tables.models, models.slots),
        (tables.shapes, shapes.model),
        (tables.shapes, shapes.gpus),
        (tables.shapes, shapes.cpu_capacity),
        (tables.shapes, shapes.nodes),
        (tables.profiles, profiles.model),
        (tables.profiles, profiles.size),
        (tables.profiles, profiles.compute),
        (tables.profiles, profiles.memory),
        (tables.profiles, profiles.starts),
        (tables.nodes, nodes.cpu_free),
        (tables.nodes, nodes.cpu_capacity),
        (tables.nodes, nodes.memory_free),
        (tables.nodes, nodes.memory_capacity),
        (tables.nodes, nodes.gpu_pods),
        (tables.nodes, nodes.like_pods),
        (tables.nodes, nodes.gpu_start),
        (tables.gpus, gpus.model),
        (tables.gpus, gpus.free),
        (tables.gpus, gpus.used_slots),
        (tables.gpus, gpus.warm_slots),
        (tables.gpus, gpus.mig),
        (tables.demands, demands.cpu),
        (tables.demands, demands.memory),
        (tables.demands, demands.count),
        (tables.demands, demands.milli),
        (tables.demands, demands.weight),
        (tables.demands, demands.model_start),
        (tables.demands, demands.models),
        (tables.demands, demands.profile_start),
        (tables.demands, demands.profiles),
        (true, candidates.node),
        (true, candidates.gpu),
        (true, candidates.profile),
        (true, candidates.slot),
    ];
    block.clear();
    block.push(COLUMNS as u32);
    let mut end = COLUMNS + 2;
    block.push(end as u32);
    for (sent, column) in columns {
        end += if sent { column.len() } else { 0 };
        block.push(end as u32);
    }
    block.reserve(end - block.len());
    for (_, column) in columns.iter().filter(|(sent, _)| *sent) {
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
        let candidates = Candidates { node: &[0, 1], gpu: &[8, 9], profile: &[5, 5], slot: &[6, 6] };
        let mut block = vec![99; 3];
        pack(&view, &candidates, Tables::of(&["gpus.free".to_owned()]), &mut block);
        assert_eq!(block[0] as usize, COLUMNS);
        assert_eq!((column(&block, 0), column(&block, 13), column(&block, 19)), (&[7][..], &[1, 2][..], &[0, 0, 0][..]));
        assert_eq!((column(&block, 34), column(&block, 37)), (&[0, 1][..], &[6, 6][..]));
        assert_eq!(block[1 + COLUMNS] as usize, block.len());
        pack(&view, &candidates, Tables::of(&[]), &mut block);
        assert_eq!((column(&block, 13).len(), column(&block, 35)), (0, &[8, 9][..]));
    }
}
