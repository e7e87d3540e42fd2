//! Whose going makes the right room on the GPUs of a node.

use super::{Scene, set::Set};
use crate::{
    layout::{Held, Layouts, Verdict, Want, victims},
    model::{Cut, GpuAsk, Isolation, MILLI, Placement, node::MPS_CLIENTS_MAX},
    place::{mps_share, packing},
    state::{Gpu, Grant, Holder, Layout, Mig, Use, recut},
};

/// The most users of a GPU of which every set is tried; of more, the fewest go, exchanged for cheaper ones where that is possible.
const EXACT_MAX: usize = 10;

/// Who goes, and what the pod gets of the GPUs then.
type Clearing = (Set, Grant);

impl Scene<'_> {
    /// Sets of leavers with what the pod gets when they are gone. Cpu and memory are looked at later.
    pub(super) fn gpu_ways(&self, each: bool) -> Vec<Clearing> {
        match &self.entry.demand.gpu {
            GpuAsk::None => vec![(Set::default(), Grant::default())],
            GpuAsk::Share { count: 1, milli } => self.each_gpu(|index| self.share(index, *milli)),
            GpuAsk::Share { count, milli } => self.several(*count as usize, *milli).into_iter().collect(),
            GpuAsk::Mig { .. } => match self.entry.single() {
                Some(want) => (0u8..)
                    .zip(&self.room.gpus)
                    .filter_map(|(index, gpu)| Some(self.partition(index, want.row(gpu.model)?, each)))
                    .flatten()
                    .collect(),
                None => self.packed().into_iter().collect(),
            },
            GpuAsk::Mps { memory_mib } => self.each_gpu(|index| self.slice(index, *memory_mib)),
            GpuAsk::Floor { .. } => (0..self.room.gpus.len() as u8).flat_map(|index| self.floor(index, each)).collect(),
        }
    }

    fn each_gpu(&self, option: impl Fn(u8) -> Option<Clearing>) -> Vec<Clearing> {
        let accepted = (0u8..).zip(&self.room.gpus).filter(|(_, gpu)| self.entry.accepts(gpu.model) && gpu.fault.is_none());
        accepted.filter_map(|(index, _)| option(index)).collect()
    }

    fn gpu(&self, index: u8) -> &Gpu {
        &self.room.gpus[usize::from(index)]
    }

    /// The leavers that use a GPU, with what they use.
    fn users(&self, index: u8) -> &[(u8, usize, Use)] {
        let from = self.on_gpu.partition_point(|one| one.0 < index);
        let to = self.on_gpu.partition_point(|one| one.0 <= index);
        &self.on_gpu[from..to]
    }

    /// All leavers of a GPU, if it is idle without them and may then be cut so.
    fn cleared(&self, index: u8, cut: Cut) -> Option<(Set, Gpu)> {
        let gpu = self.gpu(index);
        let partitioning = self.node.spec.partitioning;
        let may = if gpu.cut() == cut { partitioning.may_use(cut) } else { partitioning.may_become(cut) };
        if !may || gpu.fault.is_some() {
            return None;
        }
        let mut empty = gpu.clone();
        for &(_, row, used) in self.users(index) {
            empty.give_back(self.cluster.models(), used, Holder::Pod(self.leavers[row].pod));
        }
        if !empty.is_idle() {
            return None;
        }
        let after = recut(self.cluster.models(), &empty, cut)?.into_owned();
        Some((Set::of(self.users(index).iter().map(|one| one.1)), after))
    }

    /// Room for a share of one GPU.
    fn share(&self, index: u8, milli: u32) -> Option<Clearing> {
        let grant = Grant(vec![(index, Use::Share(milli))]);
        if milli < MILLI && !self.node.spec.partitioning.time_slices() {
            return None;
        }
        let Layout::Shares { free } = self.gpu(index).layout else {
            let (set, _) = self.cleared(index, Cut::Shares)?;
            return Some((set, grant));
        };
        let held = |used: Use| if let Use::Share(milli) = used { milli } else { 0 };
        Some((self.fewest(index, milli.saturating_sub(free), held)?, grant))
    }

    /// Room for a share under MPS.
    fn slice(&self, index: u8, memory_mib: u32) -> Option<Clearing> {
        let grant = Grant(vec![(index, Use::Mps(memory_mib))]);
        let Layout::Mps(slices) = &self.gpu(index).layout else {
            let (set, after) = self.cleared(index, Cut::Mps)?;
            let Layout::Mps(slices) = &after.layout else { return None };
            return slices.fit(memory_mib).map(|_| (set, grant));
        };
        if !self.node.spec.partitioning.may_use(Cut::Mps) {
            return None;
        }
        let held = |used: Use| if let Use::Mps(memory_mib) = used { memory_mib } else { 0 };
        // Where there are as many clients as there can be, one goes even if memory is left.
        let full = slices.all.iter().filter(|one| one.holder.is_some()).count() == MPS_CLIENTS_MAX;
        let lacking = memory_mib.saturating_sub(slices.free_mib()).max(u32::from(full));
        Some((self.fewest(index, lacking, held)?, grant))
    }

    /// The fewest users of a GPU that together hold `lacking` of what is short, the cheapest of those.
    fn fewest(&self, index: u8, lacking: u32, held: impl Fn(Use) -> u32) -> Option<Set> {
        if lacking == 0 {
            return Some(Set::default());
        }
        let users: Vec<(usize, u32, u64)> =
            self.users(index).iter().map(|&(_, row, used)| (row, held(used), self.leavers[row].cost)).collect();
        if users.iter().map(|user| u64::from(user.1)).sum::<u64>() < u64::from(lacking) {
            return None;
        }
        if users.len() > EXACT_MAX {
            let mut largest = users;
            largest.sort_unstable_by_key(|&(row, held, cost)| (std::cmp::Reverse(held), cost, row));
            let sums = largest.iter().scan(0, |sum, user| Some(std::mem::replace(sum, *sum + u64::from(user.1))));
            let count = sums.take_while(|&sum| sum < lacking.into()).count();
            let (chosen, others) = largest.split_at_mut(count);
            return Some(cheaper(chosen, others, lacking));
        }
        let members = |set: u32| users.iter().enumerate().filter(move |(bit, _)| set & 1 << bit != 0).map(|(_, user)| user);
        let enough = (1u32..1 << users.len()).filter(|&set| members(set).map(|user| u64::from(user.1)).sum::<u64>() >= lacking.into());
        let best = enough.min_by_key(|&set| (set.count_ones(), members(set).map(|user| user.2).fold(0, u64::saturating_add), set))?;
        Some(Set::of(members(best).map(|user| user.0)))
    }

    /// Room for shares of several GPUs: those whose users are the fewest beside those who go already.
    fn several(&self, count: usize, milli: u32) -> Option<Clearing> {
        let mut options = self.each_gpu(|index| self.share(index, milli));
        let (mut all, mut parts) = (Set::default(), Vec::new());
        while parts.len() < count {
            let more = |option: &Clearing| option.0.rows().filter(|&row| !all.has(row)).map(|row| self.leavers[row].cost).fold((0, 0), add);
            let (next, _) = options.iter().enumerate().min_by_key(|(_, option)| more(option))?;
            let (set, grant) = options.remove(next);
            set.rows().for_each(|row| all.add(row));
            parts.extend(grant.0);
        }
        parts.sort_unstable();
        Some((all, Grant(parts)))
    }

    /// Room for one MIG partition on a GPU: all placements, or the best.
    fn partition(&self, index: u8, row: u8, each: bool) -> Vec<Clearing> {
        let gpu = self.gpu(index);
        let Some(layouts) = self.cluster.models().layouts(gpu.model).filter(|_| gpu.fault.is_none()) else { return Vec::new() };
        let grant = |placement| Grant(vec![(index, Use::Partition(placement))]);
        let Layout::Mig(mig) = &gpu.layout else {
            let Some((set, after)) = self.cleared(index, Cut::Mig) else { return Vec::new() };
            let Layout::Mig(mig) = &after.layout else { return Vec::new() };
            return layouts.best(mig.used(), row).map(|placement| (set, grant(placement))).into_iter().collect();
        };
        if !self.node.spec.partitioning.may_use(Cut::Mig) {
            return Vec::new();
        }
        let holders: Vec<(Placement, Option<usize>)> = mig.users().iter().map(|user| (user.0, self.row_of(index, user))).collect();
        let (mut options, mut limited) = (Vec::new(), false);
        for place in layouts.feasible(layouts.empty(), row) {
            match overlapping(layouts, mig, &holders, place) {
                Some((set, true)) => options.push((set, grant(place))),
                Some((_, false)) => limited = true,
                None => {}
            }
        }
        if limited {
            // Not the slots but a count, the compute slices or the engines are short: ask the algebra.
            options.extend(self.by_limits(index, layouts, mig, &holders, row));
        }
        if !each {
            let cost = |option: &Clearing| option.0.rows().map(|row| self.leavers[row].cost).fold((0, 0), add);
            let best = options.iter().enumerate().min_by_key(|(_, option)| cost(option)).map(|(row, _)| row);
            options = best.map(|row| options.swap_remove(row)).into_iter().collect();
        }
        options
    }

    fn row_of(&self, index: u8, user: &(Placement, Holder)) -> Option<usize> {
        let mine = |one: &&(u8, usize, Use)| one.2 == Use::Partition(user.0) && user.1 == Holder::Pod(self.leavers[one.1].pod);
        self.users(index).iter().find(mine).map(|one| one.1)
    }

    fn by_limits(&self, index: u8, layouts: &Layouts, mig: &Mig, holders: &[(Placement, Option<usize>)], row: u8) -> Option<Clearing> {
        let occupancy = [mig.occupancy(layouts, self.gpu(index).model)];
        let held: Vec<Held> = holders.iter().filter_map(|&(placement, row)| self.held(0, placement, row?)).collect();
        let want = [Want::same(row, 1, 1)];
        let Verdict::Possible(eviction) = victims(&occupancy, &held, &want) else { return None };
        let set = Set::of(eviction.victims.iter().map(|&id| id as usize));
        let grant = packing::grant_of(&eviction.packed, &[index]);
        Some((set, grant))
    }

    fn held(&self, gpu: u8, placement: Placement, row: usize) -> Option<Held> {
        Some(Held { id: u32::try_from(row).ok()?, gpu, placement, cost: Some(self.leavers[row].cost) })
    }

    /// Room for several MIG partitions: on GPUs that MIG cuts or that are idle, and on those besides that others would leave, one more at a
    /// time, the cheapest first.
    fn packed(&self) -> Vec<Clearing> {
        let mut gpus = self.room.gpus.clone();
        let mut ways: Vec<Clearing> = self.packed_on(&gpus).into_iter().collect();
        let in_use = |index: &u8| !self.gpu(*index).is_idle() && self.gpu(*index).cut() != Cut::Mig;
        let mut others: Vec<(u8, Set, Gpu)> = (0..gpus.len() as u8)
            .filter(in_use)
            .filter_map(|index| self.cleared(index, Cut::Mig).map(|(set, after)| (index, set, after)))
            .collect();
        others.sort_by_key(|(index, set, _)| (set.rows().map(|row| self.leavers[row].cost).fold((0, 0), add), *index));
        for added in 0..others.len() {
            let (index, _, after) = &others[added];
            gpus[usize::from(*index)] = after.clone();
            let Some((mut set, grant)) = self.packed_on(&gpus) else { continue };
            let needed = others[..=added].iter().filter(|other| grant.0.iter().any(|part| part.0 == other.0));
            needed.flat_map(|(_, who, _)| who.rows()).for_each(|row| set.add(row));
            ways.push((set, grant));
        }
        ways
    }

    /// Room for several MIG partitions on GPUs that MIG cuts or may cut: the algebra splits them.
    fn packed_on(&self, gpus: &[Gpu]) -> Option<Clearing> {
        let (indices, gpus) = packing::occupancies(self.cluster, self.node, gpus, self.node.spec.partitioning.may_become(Cut::Mig));
        let mut held = Vec::new();
        for (place, &index) in (0u8..).zip(&indices) {
            for &(_, row, used) in self.users(index) {
                if let Use::Partition(placement) = used {
                    held.extend(self.held(place, placement, row));
                }
            }
        }
        let Verdict::Possible(eviction) = victims(&gpus, &held, &packing::wants(self.entry, &gpus)) else { return None };
        let set = Set::of(eviction.victims.iter().map(|&id| id as usize));
        Some((set, packing::grant_of(&eviction.packed, &indices)))
    }

    /// Room for a part of a GPU, however it is cut.
    fn floor(&self, index: u8, each: bool) -> Vec<Clearing> {
        let GpuAsk::Floor { memory_mib, compute, isolation } = self.entry.demand.gpu else { return Vec::new() };
        let (gpu, models) = (self.gpu(index), self.cluster.models());
        if !self.entry.accepts(gpu.model) || gpu.fault.is_some() {
            return Vec::new();
        }
        let profiles = self.entry.profiles.iter().map(|profile| models.profiles()[profile.index()]);
        let mut options: Vec<Clearing> =
            profiles.filter(|&(model, _)| model == gpu.model).flat_map(|(_, row)| self.partition(index, row, each)).collect();
        if isolation <= Isolation::Memory
            && let Some(capacity) = models.mps_mib(gpu.model)
        {
            options.extend(self.slice(index, mps_share(memory_mib, compute, capacity)));
        }
        let whole = (models.get(gpu.model).memory_mib >= memory_mib).then_some(MILLI);
        for milli in self.entry.share_of(models, gpu.model).into_iter().chain(whole) {
            options.extend(self.share(index, milli));
        }
        options
    }
}

/// The first of the largest, with as many as possible exchanged for cheaper ones while they hold enough together.
fn cheaper(chosen: &mut [(usize, u32, u64)], others: &mut [(usize, u32, u64)], lacking: u32) -> Set {
    let mut spare = chosen.iter().map(|user| u64::from(user.1)).sum::<u64>().saturating_sub(lacking.into());
    others.sort_unstable_by_key(|&(row, held, cost)| (cost, std::cmp::Reverse(held), row));
    for other in others {
        let less = |user: &&mut (usize, u32, u64)| user.2 > other.2 && u64::from(user.1.saturating_sub(other.1)) <= spare;
        if let Some(user) = chosen.iter_mut().filter(less).max_by_key(|user| user.2) {
            spare = spare + u64::from(other.1) - u64::from(user.1);
            std::mem::swap(user, other);
        }
    }
    Set::of(chosen.iter().map(|user| user.0))
}

/// Counts one more who goes.
fn add((count, cost): (usize, u64), more: u64) -> (usize, u64) {
    (count + 1, cost.saturating_add(more))
}

/// Those whose partitions overlap a placement, if all may go, and whether it can be made then.
fn overlapping(layouts: &Layouts, mig: &Mig, holders: &[(Placement, Option<usize>)], place: Placement) -> Option<(Set, bool)> {
    let mut state = mig.used();
    let mut set = Set::default();
    for &(other, row) in holders.iter().filter(|holder| layouts.overlap(holder.0, place)) {
        set.add(row?);
        state = layouts.without(state, other)?;
    }
    Some((set, layouts.with(state, place).is_some()))
}
