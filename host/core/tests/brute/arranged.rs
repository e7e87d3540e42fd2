//! Nodes in every arrangement: nos counts partitions and knows no slots, so what it says of counts is checked for every way to place
//! them.

use partita_core::{
    layout::{Layouts, Occupancy, Packed, Verdict, Want, pack},
    model::{Grid, Placement},
};

use super::{Gpu, grid};

/// Partitions by name.
pub(crate) type Counts<'c> = &'c [(&'c str, u32)];

pub(crate) const EMPTY: Counts<'_> = &[];

/// All ways in which a GPU can have these partitions in use and these warm.
pub(crate) fn arrangements<'g>(grid: &'g Grid, used: Counts<'_>, warm: Counts<'_>) -> Vec<Gpu<'g>> {
    let layouts = Layouts::of(grid).unwrap();
    let list = |counts: Counts<'_>| -> Vec<u8> {
        counts.iter().flat_map(|&(name, count)| vec![grid.resolve(name).unwrap(); count as usize]).collect()
    };
    let (used, warm) = (list(used), list(warm));
    let in_use = used.len();
    let mut found = vec![(layouts.empty(), Gpu { grid, model: 0, used: Vec::new(), warm: Vec::new() })];
    for (row, &profile) in used.iter().chain(&warm).enumerate() {
        let more = |(state, gpu): &(_, Gpu<'g>)| {
            let (state, gpu) = (*state, gpu.clone());
            let after = layouts.feasible(state, profile).collect::<Vec<Placement>>().into_iter().map(move |one| {
                let mut gpu = gpu.clone();
                if row < in_use {
                    gpu.used.push(one);
                } else {
                    gpu.warm.push(one);
                }
                (one, gpu)
            });
            after.map(|(one, gpu)| (layouts.with(state, one).unwrap(), gpu)).collect::<Vec<_>>()
        };
        found = found.iter().flat_map(more).collect();
    }
    assert!(!found.is_empty(), "no such GPU");
    found.into_iter().map(|(_, gpu)| gpu).collect()
}

/// Runs `check` with the packing of `asks` on every arrangement of a node.
pub(crate) fn on(gpus: &[(&str, Counts<'_>, Counts<'_>)], asks: Counts<'_>, check: impl Fn(&[Gpu<'_>], Option<Packed>)) {
    let grids: Vec<Grid> = gpus.iter().map(|gpu| grid(gpu.0)).collect();
    let tables: Vec<Layouts> = grids.iter().map(|grid| Layouts::of(grid).unwrap()).collect();
    let mut nodes: Vec<Vec<Gpu<'_>>> = vec![Vec::new()];
    for (grid, &(_, used, warm)) in grids.iter().zip(gpus) {
        let each = arrangements(grid, used, warm);
        nodes = nodes.iter().flat_map(|node| each.iter().map(|gpu| [node.as_slice(), std::slice::from_ref(gpu)].concat())).collect();
    }
    for node in nodes {
        let seen: Vec<Occupancy<'_>> = node.iter().zip(&tables).map(|(gpu, table)| gpu.seen(table)).collect();
        let wants: Vec<Want> = asks.iter().map(|&(name, count)| Want::named(name, count, &grids)).collect();
        let packed = pack(&seen, &wants);
        assert!(!matches!(packed, Verdict::Undecided(_)));
        check(&node, packed.plan());
    }
}

pub(crate) fn refused(gpus: &[(&str, Counts<'_>, Counts<'_>)], asks: Counts<'_>) {
    on(gpus, asks, |_, packed| assert_eq!(packed, None));
}

/// The packing makes, destroys and changes this much on every arrangement.
pub(crate) fn costs(gpus: &[(&str, Counts<'_>, Counts<'_>)], asks: Counts<'_>, made: u32, destroyed: u32, changed: u32) {
    on(gpus, asks, |_, packed| {
        let cost = packed.unwrap().cost;
        assert_eq!((cost.made, cost.destroyed, cost.changed), (made, destroyed, changed));
    });
}

pub(crate) fn room(model: &str, used: Counts<'_>, name: &str) -> Vec<u8> {
    let grid = grid(model);
    let table = Layouts::of(&grid).unwrap();
    let row = usize::from(grid.resolve(name).unwrap());
    arrangements(&grid, used, &[]).iter().map(|gpu| table.room(gpu.seen(&table).used())[row]).collect()
}
