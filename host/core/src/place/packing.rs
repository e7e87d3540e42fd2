//! Several MIG partitions for one pod, packed on the GPUs of a node at the least change.

use super::tier::{self, Tier};
use crate::{
    layout::{Occupancy, Packed, Want, pack},
    model::{Cut, ModelId},
    state::{Cluster, Entry, Gpu, Grant, Layout, Node, Room, Use, Wanted, recut},
};

/// Where several partitions go.
pub(super) struct Packing {
    pub(super) grant: Grant,
    pub(super) tier: Tier,
}

/// The GPUs of a node that may be cut by MIG, as the algebra of layouts sees them, with their indices.
///
/// `recuts` says whether idle GPUs that are cut otherwise count.
pub(crate) fn occupancies<'c>(cluster: &'c Cluster, node: &Node, gpus: &[Gpu], recuts: bool) -> (Vec<u8>, Vec<Occupancy<'c>>) {
    let (mut indices, mut found) = (Vec::new(), Vec::new());
    for (index, gpu) in (0u8..).zip(gpus) {
        let partitioning = node.spec.partitioning;
        let may = if gpu.cut() == Cut::Mig { partitioning.may_use(Cut::Mig) } else { recuts && partitioning.may_become(Cut::Mig) };
        let Some(layouts) = cluster.models().layouts(gpu.model).filter(|_| may && gpu.fault.is_none()) else { continue };
        let Some(as_mig) = recut(cluster.models(), gpu, Cut::Mig) else { continue };
        if let Layout::Mig(mig) = &as_mig.layout {
            indices.push(index);
            found.push(mig.occupancy(layouts, gpu.model));
        }
    }
    (indices, found)
}

/// What a demand wants of these GPUs.
pub(crate) fn wants(entry: &Entry, gpus: &[Occupancy<'_>]) -> Vec<Want> {
    let rows = |want: &Wanted| gpus.iter().map(|gpu| want.row(ModelId(gpu.model))).collect();
    entry.wants.iter().map(|want| Want { rows: rows(want), count: want.count }).collect()
}

/// The packing of least change on a node; GPUs that are cut otherwise are used only if the others do not suffice.
pub(super) fn pack_node(cluster: &Cluster, entry: &Entry, node: &Node) -> Option<Packing> {
    let recuts = node.spec.partitioning.may_become(Cut::Mig);
    let rooms = std::iter::once(&node.room).chain(&node.later);
    let fits = |packing: &Packing| {
        // Where others have a claim, a packing must fit beside those who leave and beside those who come: each is tried in turn.
        let fits = |room: &Room| room.fits(cluster.models(), entry, &packing.grant);
        node.later.is_empty() || (fits(&node.room) && node.later.iter().all(fits))
    };
    rooms
        .flat_map(|room| [Some((room, false)), recuts.then_some((room, true))].into_iter().flatten())
        .filter_map(|(room, recuts)| pack_room(cluster, entry, node, room, recuts))
        .find(fits)
}

fn pack_room(cluster: &Cluster, entry: &Entry, node: &Node, room: &Room, recuts: bool) -> Option<Packing> {
    let (indices, gpus) = occupancies(cluster, node, &room.gpus, recuts);
    let packed = pack(&gpus, &wants(entry, &gpus)).plan()?;
    let grant = grant_of(&packed, &indices);
    let mut recut: Vec<u8> = grant.0.iter().map(|part| part.0).collect();
    recut.dedup();
    recut.retain(|&index| room.gpus[usize::from(index)].cut() != Cut::Mig);
    let lost: u32 = recut.iter().map(|&index| room.gpus[usize::from(index)].warm()).sum();
    let tier = tier::of_partition(packed.cost.made, packed.cost.destroyed + lost, !recut.is_empty());
    Some(Packing { grant, tier })
}

/// The placements of a packing as a grant, by the indices that its GPUs have on the node.
pub(crate) fn grant_of(packed: &Packed, indices: &[u8]) -> Grant {
    let mut parts: Vec<(u8, Use)> =
        packed.placed.iter().map(|one| (indices[usize::from(one.gpu)], Use::Partition(one.placement))).collect();
    parts.sort_unstable();
    Grant(parts)
}
