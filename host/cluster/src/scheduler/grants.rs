//! What pods that run use of GPUs: what their binding says, else what their node's agent sees, else a guess.

use partita_core::{
    model::{Cut, GpuAsk, Grid, Isolation, MILLI, NodeId, Placement, PodSpec},
    state::{Grant, Layout, Models, Node, Use},
};

use super::Scheduler;
use crate::{crd::FoundGpu, grant, translate::keys};

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

    /// What the node's agent saw a pod use, if that is what it asks for. Of whole GPUs the first, if it uses more: who uses what it did not
    /// ask for is a stranger there.
    pub(super) fn seen_grant(&self, name: &str, node: &str, ask: &GpuAsk) -> Option<Grant> {
        let entry = self.nodes.get(node)?;
        let (known, models) = (self.planner.cluster().node(entry.id?)?, self.planner.cluster().models());
        let gpus = &entry.gpus.as_ref()?.status.value.gpus;
        let grid = |gpu: &FoundGpu| models.grid(models.id(&known.spec.gpus.get(usize::from(gpu.index))?.model)?);
        let mut parts: Vec<(u8, Use)> = gpus.iter().flat_map(|gpu| uses(name, gpu, grid(gpu), ask)).collect();
        parts.sort_unstable();
        if let GpuAsk::Share { count, .. } = ask {
            parts.truncate(*count as usize);
        }
        Some(Grant(parts)).filter(|grant| !grant.0.is_empty() && answers(grant, ask, known, models))
    }

    /// What a running pod uses of GPUs: what its binding says, else what its node's agent saw, else the first that is there and free, since
    /// which of them it is is the kubelet's choice: until the agent says more, nobody else is given as much.
    pub(super) fn grant_of(&self, name: &str, node: NodeId, spec: &PodSpec) -> Grant {
        let ask = &spec.demand.gpu;
        let Some(known) = self.planner.cluster().node(node) else { return Grant::default() };
        let told = self.written_grant(name, node, ask).or_else(|| self.seen_grant(name, &known.spec.name, ask));
        told.or_else(|| guess(ask, known, self.planner.cluster().models())).unwrap_or_default()
    }
}

/// What of a GPU is used by a pod that asks for `ask`, as the GPU's agent says.
fn uses(name: &str, gpu: &FoundGpu, grid: Option<&Grid>, ask: &GpuAsk) -> Vec<(u8, Use)> {
    let has = |users: &[String]| users.iter().any(|user| user == name);
    match (gpu.cut, ask) {
        (Cut::Shares, GpuAsk::Share { milli, .. }) if has(&gpu.users) => vec![(gpu.index, Use::Share(*milli))],
        (Cut::Shares, _) => Vec::new(),
        (Cut::Mig | Cut::Mps, _) => {
            let used = gpu.partitions.iter().filter(|one| has(&one.users)).filter_map(|one| {
                Some(match (&one.profile, one.memory_mib) {
                    (Some(profile), _) => Use::Partition(Placement { profile: grid?.resolve(profile).ok()?, start: one.start? }),
                    (None, memory_mib) => Use::Mps(memory_mib?),
                })
            });
            used.map(|used| (gpu.index, used)).collect()
        }
    }
}

/// The first of what is there and free that is what a pod asks for.
fn guess(ask: &GpuAsk, node: &Node, models: &Models) -> Option<Grant> {
    let well = || (0u8..).zip(&node.room.gpus).filter(|(_, gpu)| gpu.fault.is_none());
    let mut parts = match ask {
        GpuAsk::None | GpuAsk::Floor { .. } => return None,
        GpuAsk::Share { count, milli } => {
            let free: Vec<_> = well()
                .filter(|(_, gpu)| gpu.share_free() >= *milli)
                .map(|(index, _)| (index, Use::Share(*milli)))
                .take(*count as usize)
                .collect();
            Some(free).filter(|free| free.len() == *count as usize)?
        }
        GpuAsk::Mps { memory_mib } => {
            let free = |layout: &Layout| match layout {
                Layout::Mps(slices) => slices.all.iter().any(|slice| slice.holder.is_none() && slice.memory_mib == *memory_mib),
                _ => false,
            };
            vec![well().find(|(_, gpu)| free(&gpu.layout)).map(|(index, _)| (index, Use::Mps(*memory_mib)))?]
        }
        GpuAsk::Mig { partitions } => {
            let free = well().filter_map(|(index, gpu)| match &gpu.layout {
                Layout::Mig(mig) => Some(mig.partitions(models.layouts(gpu.model)?).map(move |one| (index, one))),
                _ => None,
            });
            let mut free: Vec<(u8, Placement)> =
                free.flatten().filter(|(_, one)| one.holder.is_none()).map(|(index, one)| (index, one.placement)).collect();
            let mut parts = Vec::new();
            for name in partitions.iter().flat_map(|(name, count)| std::iter::repeat_n(name, *count as usize)) {
                let row = free.iter().position(|(index, place)| is_called(*index, *place, name, node, models))?;
                let (index, place) = free.remove(row);
                parts.push((index, Use::Partition(place)));
            }
            parts
        }
    };
    parts.sort_unstable();
    Some(Grant(parts))
}

/// Whether a partition has a profile of this name.
fn is_called(index: u8, place: Placement, name: &str, node: &Node, models: &Models) -> bool {
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
