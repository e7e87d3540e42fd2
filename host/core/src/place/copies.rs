//! How many pods of one demand fit at the same time: what a group of pods that starts together must know.

use super::{Around, Heeds, Reuse, candidates::cut_as, enumerate, packing};
use crate::{
    layout::{Want, possible},
    model::{Cut, DemandId, GpuAsk, MILLI, NodeId, PodId, node::MPS_CLIENTS_MAX},
    state::{Cluster, Entry, Layout, Node},
};

/// How many pods of `demand` fit at once beside what runs and what is claimed, counted up to `most`.
///
/// Exact for shares, whole GPUs, shares under MPS and MIG partitions (unless the search for a packing reaches its limit). For a part of a GPU
/// that may be of any kind, and where others have a claim on the node, pods are placed one after another, which may count too few. So it does
/// where it matters to the pods who runs around them: each is put on the first node that will do beside those before it.
#[must_use]
pub fn copies(cluster: &Cluster, demand: DemandId, most: u32) -> u32 {
    let entry = cluster.demands().get(demand);
    if let Some(around) = Around::of(cluster, entry, None, Heeds::ALL) {
        return around_others(cluster, entry, around, most);
    }
    let mut found = 0;
    for (_, node) in cluster.nodes() {
        if found >= most {
            break;
        }
        found += on_node(cluster, entry, node, most - found);
    }
    found
}

fn around_others(cluster: &Cluster, entry: &Entry, mut around: Around<'_>, most: u32) -> u32 {
    let mut left: Vec<(NodeId, u32)> = cluster.nodes().map(|(id, node)| (id, on_node(cluster, entry, node, most))).collect();
    for placed in 0..most {
        let Some((id, copies)) = left.iter_mut().find(|(id, copies)| *copies > 0 && around.admits(*id)) else { return placed };
        *copies -= 1;
        around.add(*id);
    }
    most
}

fn on_node(cluster: &Cluster, entry: &Entry, node: &Node, most: u32) -> u32 {
    let most = most.min(node.copies_plain(entry));
    if !entry.admitted(node, cluster.names()) {
        return 0;
    }
    if most == 0 || !node.later.is_empty() || matches!(entry.demand.gpu, GpuAsk::Floor { .. }) {
        return one_by_one(cluster, entry, node, most);
    }
    match entry.demand.gpu {
        GpuAsk::None | GpuAsk::Floor { .. } => most,
        GpuAsk::Share { count, milli } => shares(cluster, entry, node, count, milli).min(most),
        GpuAsk::Mps { memory_mib } => slices(cluster, entry, node, memory_mib).min(most),
        GpuAsk::Mig { .. } => packings(cluster, entry, node, most),
    }
}

/// Each pod takes a share of `count` GPUs: as many pods as there are shares on every GPU together, no GPU counting more than once a pod.
fn shares(cluster: &Cluster, entry: &Entry, node: &Node, count: u32, milli: u32) -> u32 {
    if milli < MILLI && !node.spec.partitioning.time_slices() {
        return 0;
    }
    let gpus = node.room.gpus.iter().filter(|gpu| entry.accepts(gpu.model));
    let free = gpus.filter_map(|gpu| Some(cut_as(cluster, node, gpu, Cut::Shares)?.0.share_free() / milli));
    let free: Vec<u32> = free.collect();
    let fits = |pods: u32| free.iter().map(|&shares| shares.min(pods)).sum::<u32>() >= pods.saturating_mul(count);
    largest(free.iter().sum::<u32>() / count, fits)
}

fn slices(cluster: &Cluster, entry: &Entry, node: &Node, memory_mib: u32) -> u32 {
    let gpus = node.room.gpus.iter().filter(|gpu| entry.accepts(gpu.model));
    let fit = |gpu| {
        let (as_mps, _) = cut_as(cluster, node, gpu, Cut::Mps)?;
        let Layout::Mps(slices) = &as_mps.layout else { return None };
        let users = slices.all.iter().filter(|one| one.holder.is_some()).count();
        Some((slices.free_mib() / memory_mib).min((MPS_CLIENTS_MAX - users) as u32))
    };
    gpus.filter_map(fit).sum()
}

fn packings(cluster: &Cluster, entry: &Entry, node: &Node, most: u32) -> u32 {
    let (_, gpus) = packing::occupancies(cluster, node, &node.room.gpus, node.spec.partitioning.may_become(Cut::Mig));
    let each = packing::wants(entry, &gpus);
    let fits = |pods: u32| {
        let wants: Vec<Want> = each.iter().map(|want| Want { count: want.count.saturating_mul(pods), ..want.clone() }).collect();
        possible(&gpus, &wants).plan().is_some()
    };
    largest(most, fits)
}

/// The largest number up to `most` that fits, where all below one that fits do.
fn largest(most: u32, fits: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

fn one_by_one(cluster: &Cluster, entry: &Entry, node: &Node, most: u32) -> u32 {
    let (mut node, mut found) = (node.clone(), Vec::new());
    for placed in 0..most {
        enumerate(cluster, entry, &node, Reuse::First, &mut found);
        let Some(grant) = found.first().map(|place| place.grant(cluster, entry, &node)) else { return placed };
        for room in std::iter::once(&mut node.room).chain(&mut node.later) {
            if room.take(cluster.models(), entry, &grant, PodId(u32::MAX)).is_none() {
                return placed;
            }
        }
    }
    most
}
