//! What bindings say that pods use of GPUs.

use partita_core::{
    model::{GpuAsk, Isolation, MILLI, NodeId, Placement},
    state::{Grant, Models, Node, Use},
};

use super::Scheduler;
use crate::{grant, translate::keys};

/// Whether one can guess what a pod has that asks for this: the kubelet gives it what has the resource's name.
pub(super) fn can_be_guessed(ask: &GpuAsk) -> bool {
    matches!(ask, GpuAsk::Share { .. } | GpuAsk::Mig { .. } | GpuAsk::Mps { .. })
}

impl Scheduler {
    /// What the binding of a pod that asks for `ask` says that it uses of GPUs; none if it says nothing that can be believed.
    pub(super) fn written_grant(&self, name: &str, node: NodeId, ask: &GpuAsk) -> Option<Grant> {
        let (known, models) = (self.planner.cluster().node(node)?, self.planner.cluster().models());
        let text = self.pods.get(name)?.object.metadata.annotations.as_ref()?.get(keys::GRANT)?;
        let read = match grant::parse(text, &grant::row_of(&known.spec, models)) {
            Ok(grant) if answers(&grant, ask, known, models) => return Some(grant),
            Ok(_) => "it is not what the pod asks for".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(pod = name, "the annotation {} is not believed: {read}", keys::GRANT);
        None
    }
}

/// Whether a partition has a profile of this name.
pub(super) fn is_called(index: u8, place: Placement, name: &str, node: &Node, models: &Models) -> bool {
    let grid = node.room.gpus.get(usize::from(index)).and_then(|gpu| models.grid(gpu.model));
    grid.is_some_and(|grid| grid.resolve(name).is_ok_and(|row| row == place.profile))
}

/// Whether a grant is of the kind, number and size that was asked: anybody who may create pods may write the annotation, and must take
/// neither more nor less out of the books than the kubelet will give.
fn answers(grant: &Grant, ask: &GpuAsk, node: &Node, models: &Models) -> bool {
    let parts = &grant.0;
    match ask {
        GpuAsk::None => parts.is_empty(),
        GpuAsk::Share { count, milli } => parts.len() == *count as usize && parts.iter().all(|(_, used)| *used == Use::Share(*milli)),
        GpuAsk::Mig { partitions } => {
            let mut left: Vec<&String> = partitions.iter().flat_map(|(name, count)| std::iter::repeat_n(name, *count as usize)).collect();
            let asked = |&(index, used): &(u8, Use)| {
                let Use::Partition(place) = used else { return false };
                let row = left.iter().position(|name| is_called(index, place, name, node, models));
                row.map(|row| left.swap_remove(row)).is_some()
            };
            parts.iter().all(asked) && left.is_empty()
        }
        GpuAsk::Mps { memory_mib } => parts.len() == 1 && parts.iter().all(|(_, used)| *used == Use::Mps(*memory_mib)),
        GpuAsk::Floor { memory_mib, compute, isolation } => match parts[..] {
            [(index, used)] => is_enough(index, used, (*memory_mib, *compute, *isolation), node, models),
            _ => false,
        },
    }
}

/// Whether a part of a GPU is at least this much of it, MiB and percent of its compute, this well isolated, and not more than it has to be
/// where that can be chosen.
fn is_enough(index: u8, used: Use, (memory_mib, compute, isolation): (u32, u32, Isolation), node: &Node, models: &Models) -> bool {
    let Some(model) = node.room.gpus.get(usize::from(index)).map(|gpu| gpu.model) else { return false };
    let all_mib = models.get(model).memory_mib;
    match used {
        Use::Partition(place) => models.grid(model).is_some_and(|grid| {
            let profile = grid.profiles.get(usize::from(place.profile));
            profile.is_some_and(|one| one.memory_mib >= memory_mib && u32::from(one.compute) * 100 >= compute * u32::from(grid.compute))
        }),
        Use::Mps(mib) => {
            let most = models.mps_mib(model).map_or(0, |all| (u64::from(all) * u64::from(compute)).div_ceil(100));
            isolation <= Isolation::Memory && mib >= memory_mib && u64::from(mib) <= most.max(memory_mib.into())
        }
        Use::Share(MILLI) => all_mib >= memory_mib,
        Use::Share(milli) => {
            let of_memory = u64::from(milli) * u64::from(all_mib) >= u64::from(memory_mib) * u64::from(MILLI);
            isolation == Isolation::Shared && of_memory && u64::from(milli) * 100 >= u64::from(compute) * u64::from(MILLI)
        }
    }
}
