//! A solver that is obviously right and slow: it tries everything by `Grid::admits`, without tables, counts or bounds.

#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod arranged;

use partita_core::{
    layout::{Held, Layouts, Occupancy, Want},
    model::{Grid, Placement, catalog},
};

/// A GPU: its grid, its model's number, partitions in use and warm ones.
#[derive(Clone, Debug)]
pub(crate) struct Gpu<'g> {
    pub(crate) grid: &'g Grid,
    pub(crate) model: u32,
    pub(crate) used: Vec<Placement>,
    pub(crate) warm: Vec<Placement>,
}

impl Gpu<'_> {
    pub(crate) fn seen<'l>(&self, layouts: &'l Layouts) -> Occupancy<'l> {
        Occupancy::new(layouts, self.model, &self.used, &self.warm).unwrap()
    }
}

pub(crate) fn grid(model: &str) -> Grid {
    catalog::builtin(model).unwrap().grid.unwrap()
}

/// Where a profile may be placed beside others.
pub(crate) fn places(grid: &Grid, others: &[Placement], profile: u8) -> Vec<Placement> {
    let all = (0..grid.slots).map(|start| Placement { profile, start });
    all.filter(|&one| grid.admits(others, one)).collect()
}

/// Whether partitions can be on one GPU together.
pub(crate) fn legal(grid: &Grid, partitions: &[Placement]) -> bool {
    (0..partitions.len()).all(|row| grid.admits(&partitions[..row], partitions[row]))
}

/// Whether profiles fit beside others on one GPU.
pub(crate) fn fits(grid: &Grid, others: &[Placement], wanted: &[u8]) -> bool {
    let Some((&first, rest)) = wanted.split_first() else { return true };
    places(grid, others, first).into_iter().any(|one| fits(grid, &[others, &[one]].concat(), rest))
}

/// How many partitions of a profile fit beside others.
pub(crate) fn room(grid: &Grid, others: &[Placement], profile: u8) -> u32 {
    places(grid, others, profile).into_iter().map(|one| 1 + room(grid, &[others, &[one]].concat(), profile)).max().unwrap_or(0)
}

/// The partitions wanted, one after the other, as the rows of the profile on each GPU.
pub(crate) fn each(wants: &[Want]) -> Vec<Vec<Option<u8>>> {
    wants.iter().flat_map(|want| vec![want.rows.clone(); want.count as usize]).collect()
}

/// Whether partitions fit on several GPUs.
pub(crate) fn fits_on(gpus: &[Gpu<'_>], wanted: &[Vec<Option<u8>>]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return true };
    for (index, profile) in first.iter().enumerate() {
        let Some(profile) = *profile else { continue };
        for one in places(gpus[index].grid, &gpus[index].used, profile) {
            let mut after = gpus.to_vec();
            after[index].used.push(one);
            if fits_on(&after, rest) {
                return true;
            }
        }
    }
    false
}

/// (made, destroyed, changed, touched) of the best way to place partitions, of all ways.
pub(crate) fn cheapest(gpus: &[Gpu<'_>], wanted: &[Vec<Option<u8>>]) -> Option<(u32, u32, u32, u32)> {
    let mut best = None;
    try_all(gpus, wanted, &mut vec![Vec::new(); gpus.len()], &mut best);
    best
}

fn try_all(gpus: &[Gpu<'_>], wanted: &[Vec<Option<u8>>], placed: &mut Vec<Vec<Placement>>, best: &mut Option<(u32, u32, u32, u32)>) {
    let Some((first, rest)) = wanted.split_first() else {
        let mut cost = (0, 0, 0, 0);
        for (gpu, placed) in gpus.iter().zip(placed.iter()) {
            let made = placed.iter().filter(|one| !gpu.warm.contains(one)).count() as u32;
            cost.0 += made;
            cost.1 += must_go(gpu, placed);
            cost.2 += u32::from(made > 0);
            cost.3 += u32::from(!placed.is_empty());
        }
        if best.is_none_or(|known| cost < known) {
            *best = Some(cost);
        }
        return;
    };
    for (index, profile) in first.iter().enumerate() {
        let Some(profile) = *profile else { continue };
        let others = [gpus[index].used.as_slice(), &placed[index]].concat();
        for one in places(gpus[index].grid, &others, profile) {
            placed[index].push(one);
            try_all(gpus, rest, placed, best);
            placed[index].pop();
        }
    }
}

/// The fewest warm partitions that have to go beside what is in use and placed.
fn must_go(gpu: &Gpu<'_>, placed: &[Placement]) -> u32 {
    let warm: Vec<Placement> = gpu.warm.iter().copied().filter(|one| !placed.contains(one)).collect();
    let stay = |set: u32| (0..warm.len()).filter(|row| set & 1 << row != 0).map(|row| warm[row]).collect::<Vec<_>>();
    let sets = (0u32..1 << warm.len()).filter(|&set| legal(gpu.grid, &[&gpu.used, placed, &stay(set)].concat()));
    warm.len() as u32 - sets.map(u32::count_ones).max().unwrap()
}

/// (number, cost) of the victims, of all sets.
pub(crate) fn victims(gpus: &[Gpu<'_>], held: &[Held], wanted: &[Vec<Option<u8>>]) -> Option<(usize, u128)> {
    leavers(gpus, held, usize::MAX, |after, _| fits_on(after, wanted))
}

/// (number, cost) of the movers, of all sets of at most `max`.
pub(crate) fn movers(gpus: &[Gpu<'_>], held: &[Held], wanted: &[Vec<Option<u8>>], max: usize) -> Option<(usize, u128)> {
    leavers(gpus, held, max, |after, gone| {
        let mut all = wanted.to_vec();
        for one in gone {
            let model = gpus[usize::from(one.gpu)].model;
            all.push(gpus.iter().map(|gpu| (gpu.model == model).then_some(one.placement.profile)).collect());
        }
        fits_on(after, &all)
    })
}

fn leavers(gpus: &[Gpu<'_>], held: &[Held], max: usize, helps: impl Fn(&[Gpu<'_>], &[Held]) -> bool) -> Option<(usize, u128)> {
    let mut ids: Vec<u32> = held.iter().map(|one| one.id).collect();
    ids.sort_unstable();
    ids.dedup();
    let cost = |id: u32| held.iter().filter(|one| one.id == id).try_fold(0, |most: u64, one| Some(most.max(one.cost?)));
    ids.retain(|&id| cost(id).is_some());
    let mut best = None;
    for set in 0u32..1 << ids.len() {
        let gone: Vec<u32> = (0..ids.len()).filter(|row| set & 1 << row != 0).map(|row| ids[row]).collect();
        let price = (gone.len(), gone.iter().map(|&id| u128::from(cost(id).unwrap())).sum::<u128>());
        if gone.len() > max || best.is_some_and(|known| known <= price) {
            continue;
        }
        let leave: Vec<Held> = held.iter().copied().filter(|one| gone.contains(&one.id)).collect();
        let mut after = gpus.to_vec();
        for one in &leave {
            after[usize::from(one.gpu)].used.retain(|other| *other != one.placement);
        }
        if helps(&after, &leave) {
            best = Some(price);
        }
    }
    best
}
