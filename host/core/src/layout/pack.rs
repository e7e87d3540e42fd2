//! Packing: several partitions beside what is in use on several GPUs, at the least change.

use std::ops::Add;

use super::{
    Bag, Limit, Occupancy, State, Verdict, Want,
    assign::{Choices, Outcome, SEARCH_MAX, any, cheapest, tabular},
    problem::Problem,
    table::bits,
    take::destroyed,
};
use crate::model::Placement;

/// What a packing costs, the most important first: serve what exists before making anything, destroy as few warm partitions as
/// possible, change and use few GPUs, keep large stretches whole, prefer the first GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost {
    /// Partitions that have to be made.
    pub made: u32,
    /// Warm partitions that have to go.
    pub destroyed: u32,
    /// GPUs on which something is made.
    pub changed: u32,
    /// GPUs used.
    pub touched: u32,
    /// Ranks of room lost (see [`super::Layouts::kept`]), over all GPUs.
    pub lost: u32,
    /// Sum of the indices of the GPUs used.
    pub late: u32,
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            made: self.made + other.made,
            destroyed: self.destroyed + other.destroyed,
            changed: self.changed + other.changed,
            touched: self.touched + other.touched,
            lost: self.lost + other.lost,
            late: self.late + other.late,
        }
    }
}

/// A partition of a packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which of the wants it serves.
    pub want: u32,
    /// Index of the GPU.
    pub gpu: u8,
    /// Where on it.
    pub placement: Placement,
    /// Whether it exists already.
    pub warm: bool,
}

/// Where everything wanted goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The partitions, by GPU, then profile row and first slot.
    pub placed: Vec<Placed>,
    /// Warm partitions that have to go, with the index of their GPU.
    pub destroyed: Vec<(u8, Placement)>,
    /// What it costs.
    pub cost: Cost,
    /// Whether no packing costs less. Questions of many kinds on many GPUs get one that need not be the cheapest.
    pub cheapest: bool,
}

/// Whether everything wanted fits beside what is in use on `gpus`. Warm partitions do not count: they can be destroyed.
#[must_use]
pub fn possible(gpus: &[Occupancy<'_>], wants: &[Want]) -> Verdict<()> {
    let problem = match Problem::new(gpus, wants) {
        Ok(problem) => problem,
        Err(hurdle) => return hurdle.into(),
    };
    match search(&problem) {
        Outcome::Found(_) => Verdict::Possible(()),
        Outcome::Impossible => Verdict::Impossible,
        Outcome::Limit => Verdict::Undecided(Limit::Steps(SEARCH_MAX)),
    }
}

/// Where everything wanted fits beside what is in use on `gpus`, at the least [`Cost`]; equal costs have one answer.
///
/// Exact: `Impossible` is a proof. A question that would take more than [`super::WORK_MAX`] transitions for the least cost gets a packing
/// that need not have it; one that would take more than [`SEARCH_MAX`] steps for any packing is `Undecided`.
#[must_use]
pub fn pack(gpus: &[Occupancy<'_>], wants: &[Want]) -> Verdict<Packed> {
    let problem = match Problem::new(gpus, wants) {
        Ok(problem) => problem,
        Err(hurdle) => return hurdle.into(),
    };
    let served: Vec<u32> = (0u32..).zip(wants).filter(|(_, want)| want.count > 0).map(|(row, _)| row).collect();
    // Where the search for the least cost may be long, it is first asked whether there is anything to find.
    let found = if small(&problem) { None } else { Some(search(&problem)) };
    if let Some(Outcome::Impossible) = found {
        return Verdict::Impossible;
    }
    if tabular(&problem) {
        match least(&problem, &served) {
            Outcome::Found(packed) => return Verdict::Possible(packed),
            Outcome::Impossible => return Verdict::Impossible,
            Outcome::Limit => {}
        }
    }
    match found.unwrap_or_else(|| search(&problem)) {
        Outcome::Found(taken) => {
            let choices: Vec<Choice> = taken.iter().enumerate().map(|(index, &take)| best_choice(&problem, index, take)).collect();
            let cost = choices.iter().enumerate().map(|(index, choice)| late(index, choice.cost)).fold(Cost::default(), Add::add);
            Verdict::Possible(written(&problem, &served, choices.into_iter(), cost, false))
        }
        Outcome::Impossible => Verdict::Impossible,
        Outcome::Limit => Verdict::Undecided(Limit::Steps(SEARCH_MAX)),
    }
}

/// The packing of least cost, if the search for it ends within its limits.
fn least(problem: &Problem<'_>, served: &[u32]) -> Outcome<Packed> {
    let (first, lists) = choices_of(problem);
    let costs: Vec<Choices<Cost>> = lists.iter().map(|list| list.iter().map(|choice| (choice.take, choice.cost)).collect()).collect();
    match cheapest(problem, &costs, &first, Cost::default(), late) {
        Outcome::Found((picked, cost)) => {
            let choices = picked.iter().zip(&first).map(|(&choice, &row)| lists[row][choice as usize]);
            Outcome::Found(written(problem, served, choices, cost, true))
        }
        Outcome::Impossible => Outcome::Impossible,
        Outcome::Limit => Outcome::Limit,
    }
}

/// The cost of a choice on the GPU that makes it.
fn late(index: usize, cost: Cost) -> Cost {
    Cost { late: cost.touched * index as u32, ..cost }
}

/// Whether what is wanted is so little that the search for the least cost is as quick as that for any.
fn small(problem: &Problem<'_>) -> bool {
    problem.kinds == 1 || problem.wanted.total() <= 4
}

/// The index of the first GPU in the same state, for each GPU.
fn alike(problem: &Problem<'_>, same: impl Fn(&Occupancy<'_>, &Occupancy<'_>) -> bool) -> Vec<usize> {
    let equal = |a: usize, b: usize| {
        let (one, other) = (&problem.gpus[a], &problem.gpus[b]);
        std::ptr::eq(one.layouts, other.layouts) && problem.rows[a] == problem.rows[b] && same(one, other)
    };
    (0..problem.gpus.len()).map(|index| (0..index).find(|&before| equal(before, index)).unwrap_or(index)).collect()
}

fn search(problem: &Problem<'_>) -> Outcome<Vec<Bag>> {
    let first = alike(problem, |one, other| one.used.class == other.used.class);
    let tops: Vec<Vec<Bag>> =
        first.iter().enumerate().map(|(index, &row)| if row == index { problem.tops(index) } else { Vec::new() }).collect();
    let views: Vec<&Vec<Bag>> = first.iter().map(|&row| &tops[row]).collect();
    any(problem, &views)
}

/// One way in which a GPU takes some of what is wanted.
#[derive(Clone, Copy, Default)]
struct Choice {
    take: Bag,
    cost: Cost,
    /// The placements.
    mask: u64,
}

/// For each GPU the list of its choices, which GPUs in the same state share.
fn choices_of(problem: &Problem<'_>) -> (Vec<usize>, Vec<Vec<Choice>>) {
    let first = alike(problem, |one, other| one.used == other.used && one.exists == other.exists);
    let list = |(index, &row): (usize, &usize)| if row == index { choices(problem, index, problem.wanted) } else { Vec::new() };
    let lists = first.iter().enumerate().map(list).collect();
    (first, lists)
}

/// The cheapest way to take each count of the kinds in `wanted` on GPU `index`.
fn choices(problem: &Problem<'_>, index: usize, wanted: Bag) -> Vec<Choice> {
    let mut lister = Lister { problem, index, wanted, found: Vec::new() };
    lister.grow(0, 0, problem.gpus[index].used, Choice::default());
    let mut found = lister.found;
    found.sort_unstable_by_key(|choice| (choice.take, choice.cost, choice.mask));
    found.dedup_by_key(|choice| choice.take);
    found
}

/// The cheapest way to take exactly `take` on GPU `index`, which can.
fn best_choice(problem: &Problem<'_>, index: usize, take: Bag) -> Choice {
    let found = choices(problem, index, take);
    found.into_iter().find(|choice| choice.take == take).unwrap_or_default()
}

struct Lister<'p> {
    problem: &'p Problem<'p>,
    index: usize,
    wanted: Bag,
    found: Vec<Choice>,
}

impl Lister<'_> {
    /// Records a choice and all that add placements: of `kind` from bit `from` on, or of later kinds. Recurses as deep as there are slots.
    fn grow(&mut self, kind: usize, from: usize, state: State, choice: Choice) {
        let gpu = self.problem.gpus[self.index];
        self.found.push(Choice { cost: cost(&gpu, state, choice.mask), ..choice });
        for kind in kind..self.problem.kinds {
            let Some(row) = self.problem.rows[self.index][kind] else { continue };
            if choice.take.get(kind) >= self.wanted.get(kind) {
                continue;
            }
            let from = if choice.take.get(kind) > 0 { from } else { 0 };
            for bit in bits(gpu.layouts.of_profile[usize::from(row)]).filter(|&bit| bit >= from) {
                if let Some(after) = gpu.layouts.step(state, bit) {
                    let take = choice.take.plus(Bag::one(kind));
                    self.grow(kind, bit + 1, after, Choice { take, mask: choice.mask | 1 << bit, ..choice });
                }
            }
        }
    }
}

/// The cost of the placements `mask` on a GPU, which lead to the layout `after` of partitions in use.
fn cost(gpu: &Occupancy<'_>, after: State, mask: u64) -> Cost {
    let made = (mask & !gpu.exists).count_ones();
    Cost {
        made,
        destroyed: destroyed(gpu, after, mask).count_ones(),
        changed: u32::from(made > 0),
        touched: u32::from(mask != 0),
        lost: gpu.layouts.kept(gpu.used).saturating_sub(gpu.layouts.kept(after)),
        late: 0,
    }
}

fn written(problem: &Problem<'_>, served: &[u32], choices: impl Iterator<Item = Choice>, cost: Cost, cheapest: bool) -> Packed {
    let mut packed = Packed { placed: Vec::new(), destroyed: Vec::new(), cost, cheapest };
    for (index, choice) in choices.enumerate().filter(|(_, choice)| choice.mask != 0) {
        let gpu = &problem.gpus[index];
        let layouts = gpu.layouts;
        let mut left = choice.take;
        for bit in bits(choice.mask) {
            let row = Some(layouts.placements[bit].profile);
            // The choice was made of these kinds, so one of them is left for each placement.
            let kind = (0..problem.kinds).find(|&kind| problem.rows[index][kind] == row && left.get(kind) > 0);
            let Some(kind) = kind else { continue };
            left = left.minus(Bag::one(kind));
            let warm = gpu.exists & 1 << bit != 0;
            packed.placed.push(Placed { want: served[kind], gpu: index as u8, placement: layouts.placements[bit], warm });
        }
        let gone = layouts.at(gpu.used.mask | choice.mask).map_or(0, |after| destroyed(gpu, after, choice.mask));
        packed.destroyed.extend(bits(gone).map(|bit| (index as u8, layouts.placements[bit])));
    }
    packed
}
