//! Victims: who would have to go so that something fits.

use std::{collections::BTreeMap, ops::Add};

use super::{
    Bag, Limit, Occupancy, Packed, Verdict, WORK_MAX, Want,
    assign::{Choices, Outcome, cheapest},
    pack::pack,
    problem::Problem,
};
use crate::model::Placement;

/// The most victims with partitions on several GPUs that are tried in every combination: each doubles the work.
pub const SPANNING_MAX: usize = 6;

/// A partition in use, and what it would cost to take it from its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who uses it. Partitions of one id go together, and the id counts once.
    pub id: u32,
    /// Index of the GPU.
    pub gpu: u8,
    /// Where on it.
    pub placement: Placement,
    /// What it costs; none if it may not be taken. An id costs the most that one of its partitions says.
    pub cost: Option<u64>,
}

/// Who goes, and where everything wanted fits then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The ids, sorted; empty if everything fits without victims.
    pub victims: Vec<u32>,
    /// Their costs together.
    pub cost: u128,
    /// Where everything wanted goes. The victims' partitions count as warm then: one of the right profile is taken over.
    pub packed: Packed,
    /// Whether no fewer victims do, and no cheaper ones of that number. Not so only if more than [`SPANNING_MAX`] ids hold partitions on
    /// several GPUs.
    pub fewest: bool,
}

/// An id with its partitions.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) id: u32,
    pub(super) cost: u64,
    /// (GPU, partitions there as a mask), by GPU.
    pub(super) parts: Vec<(u8, u64)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Price {
    victims: u32,
    cost: u128,
    touched: u32,
    late: u32,
}

impl Add for Price {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            victims: self.victims + other.victims,
            cost: self.cost + other.cost,
            touched: self.touched + other.touched,
            late: self.late + other.late,
        }
    }
}

/// Which of a GPU's holders go, by their rows, so that it takes something.
type Way = Vec<usize>;

/// The ids that may go, each with all its partitions, sorted by id. Entries that name no partition in use are left out.
pub(super) fn holders(gpus: &[Occupancy<'_>], held: &[Held]) -> Vec<Holder> {
    let mut by_id: BTreeMap<u32, (Option<u64>, BTreeMap<u8, u64>)> = BTreeMap::new();
    for one in held {
        let Some(gpu) = gpus.get(usize::from(one.gpu)) else { continue };
        let bit = gpu.layouts.bit(one.placement).filter(|bit| gpu.used.mask & 1 << bit != 0);
        let Some(bit) = bit else { continue };
        let entry = by_id.entry(one.id).or_insert((Some(0), BTreeMap::new()));
        entry.0 = entry.0.zip(one.cost).map(|(before, cost)| before.max(cost));
        *entry.1.entry(one.gpu).or_insert(0) |= 1 << bit;
    }
    let may_go = by_id.into_iter().filter_map(|(id, (cost, parts))| Some((id, cost?, parts)));
    may_go.map(|(id, cost, parts)| Holder { id, cost, parts: parts.into_iter().collect() }).collect()
}

/// The GPUs after the partitions of `gone` lost their users.
pub(super) fn without<'a, 'h>(gpus: &[Occupancy<'a>], gone: impl IntoIterator<Item = &'h Holder>) -> Vec<Occupancy<'a>> {
    let mut after = gpus.to_vec();
    for holder in gone {
        for &(gpu, mask) in &holder.parts {
            let gpu = &mut after[usize::from(gpu)];
            *gpu = gpu.released(mask);
        }
    }
    after
}

/// The fewest ids that have to go so that everything wanted fits, the cheapest of those, the lowest GPUs and ids among equals.
///
/// Exact: all sets of victims of each GPU are tried (at most 128 on eight slots), with the cheapest split over the GPUs. Ids with
/// partitions on several GPUs are tried in every combination, up to [`SPANNING_MAX`] of them. A question of so many kinds that the split
/// takes more than [`WORK_MAX`] transitions is `Undecided`.
#[must_use]
pub fn victims(gpus: &[Occupancy<'_>], held: &[Held], wants: &[Want]) -> Verdict<Eviction> {
    let holders = holders(gpus, held);
    let (mut spanning, local): (Vec<&Holder>, Vec<&Holder>) = holders.iter().partition(|holder| holder.parts.len() > 1);
    spanning.sort_by_key(|holder| (holder.cost, holder.id));
    let fewest = spanning.len() <= SPANNING_MAX;
    spanning.truncate(SPANNING_MAX);
    let mut best: Option<(Price, Vec<&Holder>)> = None;
    let mut limit = None;
    for chosen in 0u32..1 << spanning.len() {
        let gone: Vec<&Holder> = (0..).zip(&spanning).filter(|&(row, _)| chosen & 1 << row != 0).map(|(_, &holder)| holder).collect();
        let sum = gone.iter().map(|holder| u128::from(holder.cost)).sum();
        let price = Price { victims: gone.len() as u32, cost: sum, ..Price::default() };
        if best.as_ref().is_some_and(|best| (best.0.victims, best.0.cost) <= (price.victims, price.cost)) {
            continue;
        }
        let after = without(gpus, gone.iter().copied());
        match split(&after, &local, wants) {
            Verdict::Possible((more, rows)) => {
                let all = price + more;
                if best.as_ref().is_none_or(|best| all < best.0) {
                    best = Some((all, gone.into_iter().chain(rows.into_iter().map(|row| local[row])).collect()));
                }
            }
            Verdict::Impossible => {}
            Verdict::Undecided(why) => limit = Some(why),
        }
    }
    match (best, limit) {
        (_, Some(limit)) => Verdict::Undecided(limit),
        (None, None) if fewest => Verdict::Impossible,
        // Everybody who spans GPUs beyond the limit was kept: no proof.
        (None, None) => Verdict::Undecided(Limit::Steps(1 << SPANNING_MAX)),
        (Some((price, gone)), None) => {
            let mut victims: Vec<u32> = gone.iter().map(|holder| holder.id).collect();
            victims.sort_unstable();
            match pack(&without(gpus, gone), wants) {
                Verdict::Possible(packed) => Verdict::Possible(Eviction { victims, cost: price.cost, packed, fewest }),
                Verdict::Impossible => Verdict::Impossible,
                Verdict::Undecided(limit) => Verdict::Undecided(limit),
            }
        }
    }
}

/// The cheapest set of local holders, by row, whose going makes room; which GPU then takes what is for the packing to say.
fn split(gpus: &[Occupancy<'_>], local: &[&Holder], wants: &[Want]) -> Verdict<(Price, Vec<usize>)> {
    let problem = match Problem::unchecked(gpus, wants) {
        Ok(problem) => problem,
        Err(hurdle) => return hurdle.into(),
    };
    let mut choices: Vec<Choices<Price>> = Vec::with_capacity(gpus.len());
    let mut ways: Vec<Vec<Way>> = Vec::with_capacity(gpus.len());
    for index in 0..gpus.len() {
        let (here, who) = ways_of(&problem, index, local);
        choices.push(here);
        ways.push(who);
    }
    let each: Vec<usize> = (0..gpus.len()).collect();
    let late = |index: usize, price: Price| Price { late: price.touched * index as u32, ..price };
    match cheapest(&problem, &choices, &each, Price::default(), late) {
        Outcome::Found((picked, price)) => {
            Verdict::Possible((price, picked.iter().zip(ways).flat_map(|(&row, ways)| ways[row as usize].clone()).collect()))
        }
        Outcome::Impossible => Verdict::Impossible,
        Outcome::Limit => Verdict::Undecided(Limit::Steps(WORK_MAX)),
    }
}

/// Every count that GPU `index` can take after some of its holders went, with the cheapest way to each.
fn ways_of(problem: &Problem<'_>, index: usize, local: &[&Holder]) -> (Choices<Price>, Vec<Way>) {
    let gpu = &problem.gpus[index];
    let rows: Vec<usize> = (0..local.len()).filter(|&row| usize::from(local[row].parts[0].0) == index).collect();
    // A layout has at most twelve partitions, so there are at most 4,096 sets.
    let mut sets: Vec<(u32, u128, u32)> = (0u32..1 << rows.len())
        .map(|set| {
            let chosen = (0..rows.len()).filter(|bit| set & 1 << bit != 0);
            (set.count_ones(), chosen.map(|bit| u128::from(local[rows[bit]].cost)).sum(), set)
        })
        .collect();
    sets.sort_unstable_by_key(|&(count, cost, set)| (count, cost, set.reverse_bits()));
    let most = most_of(problem, index, &rows, local);
    let mut best: BTreeMap<Bag, (Price, u32)> = BTreeMap::new();
    let mut classes: Vec<u16> = Vec::new();
    let mut takes = Vec::new();
    for (count, cost, set) in sets {
        let mask = (0..rows.len()).filter(|bit| set & 1 << bit != 0).fold(0, |all, bit| all | local[rows[bit]].parts[0].1);
        let state = gpu.released(mask).used;
        // A class that fewer or cheaper victims reached has nothing new; nor has anything, once the GPU can take all it ever could.
        if classes.contains(&state.class) {
            continue;
        }
        classes.push(state.class);
        takes.clear();
        problem.takes(index, state, &mut takes);
        for &take in &takes {
            let price = Price { victims: count, cost, touched: u32::from(!take.is_empty()), late: 0 };
            best.entry(take).or_insert((price, set));
        }
        if best.len() == most {
            break;
        }
    }
    let who = |set: u32| (0..rows.len()).filter(|bit| set & 1 << bit != 0).map(|bit| rows[bit]).collect();
    (best.iter().map(|(&take, &(price, _))| (take, price)).collect(), best.values().map(|&(_, set)| who(set)).collect())
}

/// How many counts GPU `index` can take after all its holders went.
fn most_of(problem: &Problem<'_>, index: usize, rows: &[usize], local: &[&Holder]) -> usize {
    let mask = rows.iter().fold(0, |all, &row| all | local[row].parts[0].1);
    let mut takes = Vec::new();
    problem.takes(index, problem.gpus[index].released(mask).used, &mut takes);
    takes.len()
}
