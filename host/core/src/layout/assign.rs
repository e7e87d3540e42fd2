//! Which GPU takes how many of each kind: the two searches.
//!
//! [`cheapest`] finds the assignment of least cost by dynamic programming: GPU after GPU, the cheapest way to each count placed so far,
//! in a table over all counts.
//! [`any`] finds one assignment or proves that there is none: depth first over the maximal counts of each GPU, with a memory of the
//! (GPU, remaining count) that failed. Both cut off what cannot be completed by bounds: weighted sums of counts, of which the GPUs left
//! hold at most so much.

use std::{collections::BTreeSet, ops::Add};

use super::{Bag, bag::keep_largest, problem::Problem};

/// The most transitions of the search for the cheapest assignment: a few milliseconds. One profile on 64 GPUs needs about 30,000. Beyond
/// it an assignment is found that need not be the cheapest, and says so.
pub const WORK_MAX: usize = 100_000;
/// The most counts, over all GPUs, between nothing and everything wanted: the table of the search for the cheapest assignment takes
/// some 50 bytes for each.
pub const TABLE_MAX: usize = 65_536;
/// The most steps of the search for any assignment: tens of milliseconds. None of 20,000 random questions of seven kinds on eight GPUs
/// that asked for 75 to 105 percent of the free slots came near (half of them took 30 µs, the longest 8 ms), nor of 2,000 of eleven
/// kinds on eight RTX PRO 6000 (80 µs, 56 ms).
pub const SEARCH_MAX: usize = 40_000;

/// What a GPU can take at which cost.
pub(super) type Choices<C> = Vec<(Bag, C)>;

/// How much of each weighted sum the GPUs from each one on can take.
pub(super) struct Bounds {
    weights: Vec<[u32; Bag::KINDS_MAX]>,
    /// One row more than GPUs, each of as many numbers as weights.
    left: Vec<u32>,
}

impl Bounds {
    /// Bounds of a problem in which GPU `index` takes at most what `most` gives for each weight.
    fn new(problem: &Problem<'_>, weights: Vec<[u32; Bag::KINDS_MAX]>, most: impl Fn(usize, usize) -> u32) -> Self {
        let (gpus, width) = (problem.gpus.len(), weights.len());
        let mut left = vec![0; (gpus + 1) * width];
        for index in (0..gpus).rev() {
            for column in 0..width {
                left[index * width + column] = left[(index + 1) * width + column] + most(index, column);
            }
        }
        Self { weights, left }
    }

    /// Whether the GPUs from `index` on may be able to take `rest`; if not, they cannot.
    fn allow(&self, index: usize, rest: Bag) -> bool {
        let left = &self.left[index * self.weights.len()..];
        self.weights.iter().zip(left).all(|(weights, &left)| rest.weigh(weights) <= left)
    }
}

/// How a search ended.
pub(super) enum Outcome<T> {
    Found(T),
    Impossible,
    /// Too much work.
    Limit,
}

/// The choices of a GPU with what the search needs of each.
struct Column<'c, C> {
    choices: &'c Choices<C>,
    /// Where in the table each leads, from where it is made.
    offsets: Vec<usize>,
    /// The weighted sums of each.
    sums: Vec<u32>,
}

/// The cheapest way to a count of everything placed so far.
#[derive(Clone, Copy)]
struct Step<C> {
    cost: C,
    from: u32,
    choice: u32,
}

/// The table over all counts between nothing and everything wanted, as numbers in mixed radix.
struct Table {
    radix: [usize; Bag::KINDS_MAX],
    counts: usize,
}

impl Table {
    fn new(problem: &Problem<'_>) -> Option<Self> {
        let mut table = Self { radix: [0; _], counts: 1 };
        for (kind, count) in problem.wanted.iter() {
            table.radix[kind] = table.counts;
            table.counts = table.counts.saturating_mul(count as usize + 1);
        }
        (table.counts.saturating_mul(problem.gpus.len() + 1) <= TABLE_MAX).then_some(table)
    }

    fn number(&self, bag: Bag) -> usize {
        bag.iter().map(|(kind, count)| self.radix[kind] * count as usize).sum()
    }
}

/// Whether [`cheapest`] has room for all counts of a problem.
pub(super) fn tabular(problem: &Problem<'_>) -> bool {
    Table::new(problem).is_some()
}

/// The cheapest assignment of everything wanted, as the number of the choice that each GPU makes, with its cost. `lists` are lists of
/// counts, each once, that a GPU can take, with their costs; GPU `index` chooses from list `list[index]`. `zero` is the cost of nothing,
/// and `price` what a choice costs on that GPU.
pub(super) fn cheapest<C: Copy + Ord + Add<Output = C>>(
    problem: &Problem<'_>,
    lists: &[Choices<C>],
    list: &[usize],
    zero: C,
    price: impl Fn(usize, C) -> C,
) -> Outcome<(Vec<u32>, C)> {
    let Some(table) = Table::new(problem) else { return Outcome::Limit };
    let weights = problem.weights();
    let width = weights.len();
    let column = |choices| Column::new(choices, &table, &weights);
    let columns: Vec<Column<'_, C>> = lists.iter().map(column).collect();
    let most: Vec<Vec<u32>> = columns.iter().map(|column| column.most(width)).collect();
    let bounds = Bounds::new(problem, weights, |index, weight| most[list[index]][weight]);
    let all: Vec<u32> = bounds.weights.iter().map(|weights| problem.wanted.weigh(weights)).collect();
    let mut layers: Vec<Vec<Option<Step<C>>>> = Vec::with_capacity(list.len() + 1);
    // Counts reached by the GPUs so far, with their numbers.
    let mut reached = vec![(0usize, Bag::EMPTY)];
    layers.push(vec![None; table.counts]);
    layers[0][0] = Some(Step { cost: zero, from: 0, choice: 0 });
    let mut work = 0;
    let mut rest_sums = vec![0; width];
    for (index, &row) in list.iter().enumerate() {
        let column = &columns[row];
        let left = &bounds.left[(index + 1) * width..][..width];
        let mut layer: Vec<Option<Step<C>>> = vec![None; table.counts];
        let mut next = Vec::new();
        work += reached.len() * column.choices.len();
        if work > WORK_MAX {
            return Outcome::Limit;
        }
        for &(number, placed) in &reached {
            let Some(step) = layers[index][number] else { continue };
            let rest = problem.wanted.minus(placed);
            for (sum, (weights, all)) in rest_sums.iter_mut().zip(bounds.weights.iter().zip(&all)) {
                *sum = all - placed.weigh(weights);
            }
            for (choice, &(take, cost)) in column.choices.iter().enumerate() {
                let fits = |(column, rest): (&u32, &u32), left: &u32| rest - column <= *left;
                let sums = &column.sums[choice * width..][..width];
                if !rest.holds(take) || !sums.iter().zip(&rest_sums).zip(left).all(|(pair, left)| fits(pair, left)) {
                    continue;
                }
                let cost = step.cost + price(index, cost);
                let place = &mut layer[number + column.offsets[choice]];
                if place.is_none() {
                    next.push((number + column.offsets[choice], placed.plus(take)));
                }
                if place.is_none_or(|known| cost < known.cost) {
                    *place = Some(Step { cost, from: number as u32, choice: choice as u32 });
                }
            }
        }
        next.sort_unstable();
        reached = next;
        layers.push(layer);
    }
    read_back(&layers, table.number(problem.wanted))
}

impl<'c, C> Column<'c, C> {
    fn new(choices: &'c Choices<C>, table: &Table, weights: &[[u32; Bag::KINDS_MAX]]) -> Self {
        let offsets = choices.iter().map(|choice| table.number(choice.0)).collect();
        let sums = choices.iter().flat_map(|choice| weights.iter().map(|weights| choice.0.weigh(weights))).collect();
        Self { choices, offsets, sums }
    }

    fn most(&self, width: usize) -> Vec<u32> {
        let mut most = vec![0; width];
        for sums in self.sums.chunks_exact(width.max(1)) {
            for (most, &sum) in most.iter_mut().zip(sums) {
                *most = sum.max(*most);
            }
        }
        most
    }
}

/// Follows the steps back from everything to nothing.
fn read_back<C: Copy>(layers: &[Vec<Option<Step<C>>>], goal: usize) -> Outcome<(Vec<u32>, C)> {
    let gpus = layers.len() - 1;
    let Some(last) = layers[gpus][goal] else { return Outcome::Impossible };
    let mut picked = vec![0; gpus];
    let mut number = goal;
    for index in (0..gpus).rev() {
        if let Some(step) = layers[index + 1][number] {
            (picked[index], number) = (step.choice, step.from as usize);
        }
    }
    Outcome::Found((picked, last.cost))
}

struct Search<'s> {
    tops: &'s [&'s Vec<Bag>],
    bounds: Bounds,
    failed: BTreeSet<(u8, Bag)>,
    taken: Vec<Bag>,
    steps: usize,
}

/// Any assignment of everything wanted, as what each GPU takes. `tops` lists the maximal counts of each GPU.
pub(super) fn any(problem: &Problem<'_>, tops: &[&Vec<Bag>]) -> Outcome<Vec<Bag>> {
    let weights = problem.weights();
    let most = |index: usize, weights: &[u32; Bag::KINDS_MAX]| tops[index].iter().map(|top| top.weigh(weights)).max().unwrap_or(0);
    let bounds = Bounds::new(problem, weights.clone(), |index, column| most(index, &weights[column]));
    let mut search = Search { tops, bounds, failed: BTreeSet::new(), taken: Vec::new(), steps: 0 };
    match search.run(0, problem.wanted) {
        Some(true) => {
            search.taken.resize(tops.len(), Bag::EMPTY);
            Outcome::Found(search.taken)
        }
        Some(false) => Outcome::Impossible,
        None => Outcome::Limit,
    }
}

impl Search<'_> {
    /// Whether the GPUs from `index` on can take `rest`; none if the search gave up. Recurses as deep as there are GPUs.
    fn run(&mut self, index: usize, rest: Bag) -> Option<bool> {
        if rest.is_empty() {
            return Some(true);
        }
        if index == self.tops.len() || !self.bounds.allow(index, rest) || self.failed.contains(&(index as u8, rest)) {
            return Some(false);
        }
        self.steps += 1;
        if self.steps > SEARCH_MAX {
            return None;
        }
        let mut takes: Vec<Bag> = self.tops[index].iter().map(|top| top.common(rest)).collect();
        keep_largest(&mut takes);
        for take in takes {
            self.taken.push(take);
            if self.run(index + 1, rest.minus(take))? {
                return Some(true);
            }
            self.taken.pop();
        }
        self.failed.insert((index as u8, rest));
        Some(false)
    }
}
