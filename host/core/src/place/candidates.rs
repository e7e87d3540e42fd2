//! Feasible places for a demand on one node.

use std::borrow::Cow;

use super::{
    packing,
    tier::{self, Reuse, Tier},
};
use crate::{
    model::{Cut, GpuAsk, Isolation, MILLI, Placement, node::GPUS_MAX},
    state::{Cluster, Entry, Gpu, Grant, Layout, Node, Use, recut},
};

/// One feasible place on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub place: Place,
    /// What comes before any policy's score.
    pub tier: Tier,
}

/// Where on a node a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The node will do; no GPU is used.
    Node,
    /// One use of one GPU.
    One {
        /// Index of the GPU.
        gpu: u8,
        /// What of it.
        used: Use,
    },
    /// Shares of several GPUs, of which this is the first; [`Candidate::grant`] finds the rest.
    Several {
        /// Index of the first GPU.
        gpu: u8,
    },
    /// Several MIG partitions; [`Candidate::grant`] finds them.
    Packed,
}

impl Candidate {
    /// Everything that a pod of `entry` uses on `node` if it goes here.
    ///
    /// # Panics
    /// If the node is not as it was when the candidate was found.
    #[must_use]
    pub fn grant(self, cluster: &Cluster, entry: &Entry, node: &Node) -> Grant {
        match (self.place, &entry.demand.gpu) {
            (Place::One { gpu, used }, _) => Grant(vec![(gpu, used)]),
            (Place::Several { .. }, GpuAsk::Share { count, milli }) => {
                let fitting = tightest_first(cluster, entry, node, *milli);
                let mut gpus: Vec<u8> = fitting.iter().map(|gpu| gpu.2).take(*count as usize).collect();
                gpus.sort_unstable();
                Grant(gpus.into_iter().map(|index| (index, Use::Share(*milli))).collect())
            }
            (Place::Packed, _) => packing::pack_node(cluster, entry, node).expect("what was packed once is packed again").grant,
            _ => Grant::default(),
        }
    }
}

/// Writes the places where a pod of `entry` may go on `node` into `found` (cleared first), the tightest GPU first.
///
/// GPUs in the same state are interchangeable, so only the first of them is a candidate. Several GPUs are taken tightest first, several
/// partitions are packed at the least change, which makes one candidate each. Of a node's candidates only those of the best tier are
/// listed: the others cannot win.
pub fn enumerate(cluster: &Cluster, entry: &Entry, node: &Node, reuse: Reuse, found: &mut Vec<Candidate>) {
    found.clear();
    let plain = node.room.fits_plain(entry) && node.later.iter().all(|later| later.fits_plain(entry));
    if plain && entry.admitted(node, cluster.names()) {
        on_gpus(cluster, entry, node, reuse, found);
    }
}

/// The same as far as GPUs decide, where there is enough of everything else.
pub(crate) fn on_gpus(cluster: &Cluster, entry: &Entry, node: &Node, reuse: Reuse, found: &mut Vec<Candidate>) {
    found.clear();
    match &entry.demand.gpu {
        GpuAsk::None => found.push(Candidate { place: Place::Node, tier: tier::READY }),
        GpuAsk::Share { count: 1, milli } => one_share(cluster, entry, node, *milli, found),
        GpuAsk::Share { count, milli } => {
            let fitting = tightest_first(cluster, entry, node, *milli);
            if let Some(last) = fitting.get(*count as usize - 1) {
                // In order of tiers, so the last is the worst.
                found.push(Candidate { place: Place::Several { gpu: fitting[0].2 }, tier: last.0 });
            }
        }
        GpuAsk::Mig { .. } if entry.single().is_some() => partitions(cluster, entry, node, found),
        GpuAsk::Mig { .. } => {
            if let Some(packed) = packing::pack_node(cluster, entry, node) {
                found.push(Candidate { place: Place::Packed, tier: packed.tier });
            }
        }
        GpuAsk::Mps { memory_mib } => slices(cluster, entry, node, *memory_mib, found),
        GpuAsk::Floor { .. } => floor(cluster, entry, node, found),
    }
    // Where others have a claim, what fits now must fit later too.
    for later in &node.later {
        found.retain(|candidate| later.fits(cluster.models(), entry, &candidate.grant(cluster, entry, node)));
    }
    for candidate in &mut *found {
        candidate.tier = reuse.rank(candidate.tier);
    }
    if let Some(best) = found.iter().map(|candidate| candidate.tier).min() {
        found.retain(|candidate| candidate.tier == best);
    }
}

/// The GPU as it would be if it were cut so, with whether that is a change; none if it may not be.
pub(super) fn cut_as<'g>(cluster: &Cluster, node: &Node, gpu: &'g Gpu, cut: Cut) -> Option<(Cow<'g, Gpu>, bool)> {
    let partitioning = node.spec.partitioning;
    let changes = gpu.cut() != cut;
    if gpu.fault.is_some() || !(if changes { partitioning.may_become(cut) } else { partitioning.may_use(cut) }) {
        return None;
    }
    Some((recut(cluster.models(), gpu, cut)?, changes))
}

/// Whether a share of `milli` may be taken on the node: less than a GPU is time-sliced.
fn may_share(node: &Node, milli: u32) -> bool {
    milli == MILLI || node.spec.partitioning.time_slices()
}

/// GPUs with `milli` left as (tier, free, index), the tightest of the best tier first, then the lowest index.
fn tightest_first(cluster: &Cluster, entry: &Entry, node: &Node, milli: u32) -> Vec<(Tier, u32, u8)> {
    let mut fitting = Vec::new();
    if may_share(node, milli) {
        for (index, gpu) in (0u8..).zip(&node.room.gpus).filter(|(_, gpu)| entry.accepts(gpu.model)) {
            let Some((as_shares, changes)) = cut_as(cluster, node, gpu, Cut::Shares) else { continue };
            if as_shares.share_free() >= milli && free_later(node, index, milli) {
                fitting.push((tier::of_share(gpu, changes), as_shares.share_free(), index));
            }
        }
        fitting.sort_unstable();
    }
    fitting
}

/// Whether the GPU will have `milli` left later, too.
fn free_later(node: &Node, index: u8, milli: u32) -> bool {
    node.later
        .iter()
        .map(|later| &later.gpus[usize::from(index)])
        .all(|gpu| gpu.share_free() >= milli || (gpu.cut() != Cut::Shares && gpu.is_idle()))
}

fn one_share(cluster: &Cluster, entry: &Entry, node: &Node, milli: u32, found: &mut Vec<Candidate>) {
    if !may_share(node, milli) {
        return;
    }
    let mut kept: [(Tier, u32, u32, u8); GPUS_MAX as usize] = [(tier::READY, 0, 0, 0); _];
    let mut len = 0;
    for (index, gpu) in (0u8..).zip(&node.room.gpus) {
        if !entry.accepts(gpu.model) {
            continue;
        }
        // The common case without a detour: a GPU in shares has what it has.
        let (tier, free) = if let (Layout::Shares { free }, None) = (&gpu.layout, &gpu.fault) {
            (tier::READY, *free)
        } else {
            let Some((as_shares, changes)) = cut_as(cluster, node, gpu, Cut::Shares) else { continue };
            (tier::of_share(gpu, changes), as_shares.share_free())
        };
        let state = (tier, free, gpu.model.0);
        let hidden = |other: &(Tier, u32, u32, u8)| (other.0, other.1, other.2) == state && alike_later(node, other.3, index);
        if free >= milli && !kept[..len].iter().any(hidden) {
            kept[len] = (tier, free, gpu.model.0, index);
            len += 1;
        }
    }
    kept[..len].sort_unstable_by_key(|&(tier, free, _, index)| (tier, free, index));
    let place = |gpu| Place::One { gpu, used: Use::Share(milli) };
    found.extend(kept[..len].iter().map(|&(tier, _, _, gpu)| Candidate { place: place(gpu), tier }));
}

/// Indices of the GPUs that differ, those with the fewest free slots or the least free memory first.
fn distinct(cluster: &Cluster, node: &Node) -> Vec<u8> {
    let gpus = &node.room.gpus;
    let mut keys: Vec<(u32, u8)> = Vec::with_capacity(gpus.len());
    for (index, gpu) in (0u8..).zip(gpus) {
        let hidden = |other: u8| gpus[usize::from(other)].is_like(gpu) && alike_later(node, other, index);
        if gpu.fault.is_none() && !(0..index).any(hidden) {
            keys.push((gpu.free_milli(cluster.models().slots(gpu.model)), index));
        }
    }
    keys.sort_unstable();
    keys.into_iter().map(|key| key.1).collect()
}

/// Whether two GPUs will be in the same state, too, when those come who have a claim on the node.
fn alike_later(node: &Node, one: u8, other: u8) -> bool {
    node.later.iter().all(|later| later.gpus[usize::from(one)].is_like(&later.gpus[usize::from(other)]))
}

fn partitions(cluster: &Cluster, entry: &Entry, node: &Node, found: &mut Vec<Candidate>) {
    for index in distinct(cluster, node) {
        let gpu = &node.room.gpus[usize::from(index)];
        for &profile in &entry.profiles {
            let (model, row) = cluster.models().profiles()[profile.index()];
            if model == gpu.model {
                placements(cluster, node, index, row, &tier::of_partition, found);
            }
        }
    }
}

/// The legal placements of a profile on one GPU.
fn placements(cluster: &Cluster, node: &Node, index: u8, row: u8, tier: &dyn Fn(u32, u32, bool) -> Tier, found: &mut Vec<Candidate>) {
    let gpu = &node.room.gpus[usize::from(index)];
    let Some((as_mig, changes)) = cut_as(cluster, node, gpu, Cut::Mig) else { return };
    let (Layout::Mig(mig), Some(layouts)) = (&as_mig.layout, cluster.models().layouts(gpu.model)) else { return };
    let lost = if changes { gpu.warm() } else { 0 };
    let occupancy = mig.occupancy(layouts, gpu.model);
    for placement in layouts.feasible(mig.used(), row) {
        let Some(taken) = occupancy.take(placement) else { continue };
        let used = Use::Partition(Placement { profile: row, ..placement });
        found.push(Candidate { place: Place::One { gpu: index, used }, tier: tier(taken.made, taken.destroyed() + lost, changes) });
    }
}

fn slices(cluster: &Cluster, entry: &Entry, node: &Node, memory_mib: u32, found: &mut Vec<Candidate>) {
    for index in distinct(cluster, node) {
        if entry.accepts(node.room.gpus[usize::from(index)].model) {
            slice(cluster, node, index, memory_mib, &tier::of_partition, found);
        }
    }
}

fn slice(cluster: &Cluster, node: &Node, index: u8, memory_mib: u32, tier: &dyn Fn(u32, u32, bool) -> Tier, found: &mut Vec<Candidate>) {
    let gpu = &node.room.gpus[usize::from(index)];
    let Some((as_mps, changes)) = cut_as(cluster, node, gpu, Cut::Mps) else { return };
    let Layout::Mps(slices) = &as_mps.layout else { return };
    let lost = if changes { gpu.warm() } else { 0 };
    if let Some(made) = slices.fit(memory_mib) {
        let tier = tier(u32::from(!made.warm), made.withdrawn.len() as u32 + lost, changes);
        found.push(Candidate { place: Place::One { gpu: index, used: Use::Mps(memory_mib) }, tier });
    }
}

/// Every kind and profile that gives a part of a GPU as asked: the fewest thousandths of a GPU first, so that equal scores take least.
fn floor(cluster: &Cluster, entry: &Entry, node: &Node, found: &mut Vec<Candidate>) {
    let GpuAsk::Floor { memory_mib, compute, isolation } = entry.demand.gpu else { return };
    let models = cluster.models();
    for index in distinct(cluster, node) {
        let gpu = &node.room.gpus[usize::from(index)];
        if !entry.accepts(gpu.model) {
            continue;
        }
        for &profile in &entry.profiles {
            let (model, row) = models.profiles()[profile.index()];
            if model == gpu.model {
                placements(cluster, node, index, row, &|made, destroyed, _| tier::of_any(made, destroyed), found);
            }
        }
        if isolation <= Isolation::Memory
            && let Some(capacity) = models.mps_mib(gpu.model)
        {
            slice(
                cluster,
                node,
                index,
                mps_share(memory_mib, compute, capacity),
                &|made, destroyed, _| tier::of_any(made, destroyed),
                found,
            );
        }
        let whole = (models.get(gpu.model).memory_mib >= memory_mib).then_some(MILLI);
        let part = entry.share_of(models, gpu.model).filter(|&milli| milli < MILLI && may_share(node, milli));
        for milli in part.into_iter().chain(whole) {
            let Some((as_shares, changes)) = cut_as(cluster, node, gpu, Cut::Shares) else { continue };
            if as_shares.share_free() >= milli {
                let tier = tier::of_any(1, if changes { gpu.warm() } else { 0 });
                found.push(Candidate { place: Place::One { gpu: index, used: Use::Share(milli) }, tier });
            }
        }
    }
    // Stable, so that GPUs stay tightest first among equals.
    found.sort_by_key(|candidate| match candidate.place {
        Place::One { gpu, used } => milli_of(cluster, node, gpu, used),
        _ => 0,
    });
}

/// The memory of the share under MPS that gives at least so much memory and so much of the compute: clients that together have no more
/// than the memory have no more than the compute either.
pub(crate) fn mps_share(memory_mib: u32, compute: u32, capacity_mib: u32) -> u32 {
    memory_mib.max((u64::from(capacity_mib) * u64::from(compute)).div_ceil(100) as u32)
}

/// How much of a GPU a use of it takes, milli-GPU.
#[must_use]
pub fn milli_of(cluster: &Cluster, node: &Node, gpu: u8, used: Use) -> u32 {
    let model = node.room.gpus[usize::from(gpu)].model;
    let part = |amount: u32, all: u32| ((u64::from(amount) * u64::from(MILLI)).div_ceil(u64::from(all.max(1))) as u32).min(MILLI);
    match used {
        Use::Share(milli) => milli,
        Use::Mps(memory_mib) => part(memory_mib, cluster.models().mps_mib(model).unwrap_or(0)),
        Use::Partition(placement) => {
            let size = cluster.models().grid(model).map_or(0, |grid| grid.profiles[usize::from(placement.profile)].size);
            part(size.into(), cluster.models().slots(model))
        }
    }
}
