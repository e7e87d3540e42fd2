//! Feasible places for a demand on one node.

use crate::{
    model::{GpuAsk, MILLI, Placement, node::GPUS_MAX},
    state::{Cluster, Entry, Gpu, Grant, Layout, Node, Use},
};

/// One feasible place on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// The node will do; no GPU is used.
    Node,
    /// Shares of GPUs, of which this is the first; [`Candidate::grant`] finds the rest.
    Shares {
        /// Index of the first GPU.
        gpu: u8,
    },
    /// A MIG partition.
    Partition {
        /// Index of the GPU.
        gpu: u8,
        /// Where on its grid.
        placement: Placement,
    },
}

impl Candidate {
    /// Index of the first GPU used.
    #[must_use]
    pub fn gpu(self) -> Option<u8> {
        match self {
            Self::Node => None,
            Self::Shares { gpu } | Self::Partition { gpu, .. } => Some(gpu),
        }
    }

    /// Everything that a pod of `entry` uses on `node` if it goes here.
    #[must_use]
    pub fn grant(self, entry: &Entry, node: &Node) -> Grant {
        match (self, &entry.demand.gpu) {
            (Self::Partition { gpu, placement }, _) => Grant(vec![(gpu, Use::Partition(placement))]),
            (Self::Shares { gpu }, GpuAsk::Share { count: 1, milli }) => Grant(vec![(gpu, Use::Share(*milli))]),
            (Self::Shares { .. }, GpuAsk::Share { count, milli }) => {
                let mut gpus: Vec<u8> = tightest_first(entry, node, *milli).map(|(_, index)| index).take(*count as usize).collect();
                gpus.sort_unstable();
                Grant(gpus.into_iter().map(|index| (index, Use::Share(*milli))).collect())
            }
            _ => Grant::default(),
        }
    }
}

/// Writes the places where a pod of `entry` may go on `node` into `found` (cleared first), the tightest GPU first.
///
/// GPUs in the same state are interchangeable, so only the first of them is a candidate. Several GPUs are taken tightest first, which
/// makes one candidate.
pub fn enumerate(cluster: &Cluster, entry: &Entry, node: &Node, found: &mut Vec<Candidate>) {
    found.clear();
    if node.cpu_free < entry.demand.cpu_milli || node.memory_free < entry.demand.memory_mib {
        return;
    }
    match &entry.demand.gpu {
        GpuAsk::None => found.push(Candidate::Node),
        GpuAsk::Share { count: 1, milli } => one_gpu(entry, node, *milli, found),
        GpuAsk::Share { count, milli } => {
            let mut fitting = tightest_first(entry, node, *milli);
            if let (Some(first), Some(_)) = (fitting.next(), fitting.nth(*count as usize - 2)) {
                found.push(Candidate::Shares { gpu: first.1 });
            }
        }
        GpuAsk::Mig { .. } => partitions(cluster, entry, node, found),
    }
}

fn fits(entry: &Entry, gpu: &Gpu, milli: u32) -> bool {
    gpu.share_free() >= milli && entry.accepts(gpu.model)
}

/// GPUs with `milli` left as (free, index), the tightest first, then the lowest index.
fn tightest_first(entry: &Entry, node: &Node, milli: u32) -> impl Iterator<Item = (u32, u8)> {
    let mut fitting: Vec<(u32, u8)> =
        (0u8..).zip(&node.gpus).filter(|(_, gpu)| fits(entry, gpu, milli)).map(|(index, gpu)| (gpu.share_free(), index)).collect();
    fitting.sort_unstable();
    fitting.into_iter()
}

fn one_gpu(entry: &Entry, node: &Node, milli: u32, found: &mut Vec<Candidate>) {
    let mut kept: [(u32, u32, u8); GPUS_MAX as usize] = [(0, 0, 0); _];
    let mut len = 0;
    for (index, gpu) in (0u8..).zip(&node.gpus) {
        let state = (gpu.share_free(), gpu.model.0);
        // A whole GPU is free or it is not; shares differ by what is left.
        if fits(entry, gpu, milli) && !kept[..len].iter().any(|other| (other.0, other.1) == state) {
            kept[len] = (state.0, state.1, index);
            len += 1;
        }
    }
    if milli == MILLI {
        // All are idle: the order is that of the indices already.
        found.extend(kept[..len].iter().map(|&(_, _, gpu)| Candidate::Shares { gpu }));
        return;
    }
    kept[..len].sort_unstable_by_key(|&(free, _, index)| (free, index));
    found.extend(kept[..len].iter().map(|&(_, _, gpu)| Candidate::Shares { gpu }));
}

fn partitions(cluster: &Cluster, entry: &Entry, node: &Node, found: &mut Vec<Candidate>) {
    let models = cluster.models();
    let same = |a: &Gpu, b: &Gpu| a.model == b.model && layout_of(a) == layout_of(b);
    let mut keys: Vec<(u32, u8)> = Vec::new();
    for (index, gpu) in (0u8..).zip(&node.gpus) {
        let Layout::Mig { used, .. } = &gpu.layout else { continue };
        let slots = models.slots(gpu.model);
        if !node.gpus[..usize::from(index)].iter().any(|other| same(other, gpu)) {
            keys.push((slots.saturating_sub(used.len()), index));
        }
    }
    keys.sort_unstable();
    for (_, index) in keys {
        let gpu = &node.gpus[usize::from(index)];
        let Some(grid) = models.grid(gpu.model) else { continue };
        for &profile in &entry.profiles {
            let (model, row) = models.profiles()[profile.index()];
            if model != gpu.model {
                continue;
            }
            for &start in &grid.profiles[usize::from(row)].starts {
                let placement = Placement { profile: row, start };
                if gpu.admits(grid, placement) {
                    found.push(Candidate::Partition { gpu: index, placement });
                }
            }
        }
    }
}

/// What tells two GPUs of one model apart: who uses a partition does not matter, whether somebody does.
fn layout_of(gpu: &Gpu) -> Option<Vec<(Placement, bool)>> {
    match &gpu.layout {
        Layout::Shares { .. } => None,
        Layout::Mig { partitions, .. } => Some(partitions.iter().map(|one| (one.placement, one.user.is_some())).collect()),
    }
}
