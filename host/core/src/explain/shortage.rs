//! What one node lacks for a demand.

use serde::Serialize;

use crate::{
    model::{Cut, GpuAsk, Isolation, MILLI},
    place::{self, Reuse, Unmet, mps_share},
    state::{Barrier, Cluster, Entry, Gpu, GpuFault, Layout, Node},
};

/// What a node lacks, from the farthest from a fit to the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortage {
    /// Its labels are not those that the pod's selector or affinity asks for.
    Selector,
    /// A volume of the pod cannot be reached from it.
    Volume,
    /// It has a taint that the pod does not bear.
    Taint,
    /// It is cordoned.
    Cordoned,
    /// It has no GPU of an accepted model, or none that may be cut as asked.
    Model,
    /// It has fewer such GPUs than asked, even when idle.
    Size,
    /// No pod runs near next to which the pod must run.
    Together,
    /// A pod runs near next to which the pod must not run, or which must not have it near.
    Apart,
    /// Too many of its like run near, or the node does not have the label by which they are spread.
    Spread,
    /// Its GPUs are taken.
    Gpu,
    /// Enough slots are free, but not in one legal place.
    Shape,
    /// A port that the pod takes is taken.
    Port,
    /// Another resource is short.
    Extra,
    /// Memory is short.
    Memory,
    /// Cpu is short.
    Cpu,
    /// It has room, which is kept for pods that have a claim on it.
    Held,
}

impl Shortage {
    /// The name in reports and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Selector => "selector",
            Self::Volume => "volume",
            Self::Taint => "taint",
            Self::Cordoned => "cordoned",
            Self::Model => "model",
            Self::Size => "size",
            Self::Together => "together",
            Self::Apart => "apart",
            Self::Spread => "spread",
            Self::Gpu => "gpu",
            Self::Shape => "shape",
            Self::Port => "port",
            Self::Extra => "extra",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Held => "held",
        }
    }

    fn of(barrier: Barrier) -> Self {
        match barrier {
            Barrier::Selector => Self::Selector,
            Barrier::Volume => Self::Volume,
            Barrier::Cordon => Self::Cordoned,
            Barrier::Taint(_) => Self::Taint,
        }
    }

    pub(super) fn phrase(self) -> &'static str {
        match self {
            Self::Selector => "that its selector or affinity leaves out",
            Self::Volume => "from which its volumes cannot be reached",
            Self::Taint => "with a taint that it does not bear",
            Self::Cordoned => "cordoned",
            Self::Model => "without a GPU of an accepted model and cut",
            Self::Size => "too small even when idle",
            Self::Together => "away from the pods that it must run with",
            Self::Apart => "near pods that it must not run with",
            Self::Spread => "with too many of its like near",
            Self::Gpu => "with too little GPU left",
            Self::Shape => "with the slots but not in one place",
            Self::Port => "where a port is taken",
            Self::Extra => "short of another resource",
            Self::Memory => "short of memory",
            Self::Cpu => "short of cpu",
            Self::Held => "with room that is kept for others",
        }
    }
}

/// Whether the node could take a pod if nothing ran there.
pub(super) fn could_when_idle(cluster: &Cluster, entry: &Entry, node: &Node) -> bool {
    node.idle_plain().fits_plain(entry)
        && entry.admitted(node, cluster.names())
        && suitable(cluster, entry, node).count() >= wanted(entry)
        && (entry.wants.is_empty() || entry.single().is_some() || packs_when_idle(cluster, entry, node))
}

/// Whether the GPUs could take a pod if nothing ran there.
fn packs_when_idle(cluster: &Cluster, entry: &Entry, node: &Node) -> bool {
    let mut idle = Node { later: Vec::new(), ..node.clone() };
    for gpu in &mut idle.room.gpus {
        let fault = gpu.fault.take();
        if let Some(empty) = Gpu::idle(cluster.models(), gpu.model, gpu.cut()) {
            *gpu = Gpu { fault, ..empty };
        }
    }
    let mut found = Vec::new();
    place::on_gpus(cluster, entry, &idle, Reuse::First, &mut found);
    !found.is_empty()
}

/// The fewest GPUs that the demand takes.
fn wanted(entry: &Entry) -> usize {
    match entry.demand.gpu {
        GpuAsk::None => 0,
        GpuAsk::Share { count, .. } => count as usize,
        GpuAsk::Mig { .. } | GpuAsk::Mps { .. } | GpuAsk::Floor { .. } => 1,
    }
}

/// Whether a GPU of the node may be cut so.
fn may(node: &Node, gpu: &Gpu, cut: Cut) -> bool {
    let partitioning = node.spec.partitioning;
    if gpu.cut() == cut { partitioning.may_use(cut) } else { partitioning.may_become(cut) }
}

/// Whether a GPU could serve the demand, or a part of it, if it were idle.
fn suits(cluster: &Cluster, entry: &Entry, node: &Node, gpu: &Gpu) -> bool {
    let models = cluster.models();
    let profile = || entry.profiles.iter().any(|profile| models.profiles()[profile.index()].0 == gpu.model) && may(node, gpu, Cut::Mig);
    let slice = |memory_mib| may(node, gpu, Cut::Mps) && models.mps_mib(gpu.model).is_some_and(|all| all >= memory_mib);
    let share = |milli| may(node, gpu, Cut::Shares) && (milli == MILLI || node.spec.partitioning.time_slices());
    entry.accepts(gpu.model)
        && match entry.demand.gpu {
            GpuAsk::None => false,
            GpuAsk::Share { milli, .. } => share(milli),
            GpuAsk::Mig { .. } => profile(),
            GpuAsk::Mps { memory_mib } => slice(memory_mib),
            GpuAsk::Floor { memory_mib, compute, isolation } => {
                let mps = models.mps_mib(gpu.model).is_some_and(|all| slice(mps_share(memory_mib, compute, all)));
                profile()
                    || (isolation <= Isolation::Memory && mps)
                    || (models.get(gpu.model).memory_mib >= memory_mib && share(MILLI))
                    || entry.share_of(models, gpu.model).is_some_and(share)
            }
        }
}

/// GPUs of the node that could serve the demand if they were idle.
fn suitable<'n>(cluster: &'n Cluster, entry: &'n Entry, node: &'n Node) -> impl Iterator<Item = &'n Gpu> {
    node.room.gpus.iter().filter(move |gpu| gpu.fault.is_none() && suits(cluster, entry, node, gpu))
}

/// GPUs of the node that could serve the demand but for a fault: the node's name, the GPU's index and the fault.
pub(super) fn set_aside<'n>(
    cluster: &'n Cluster,
    entry: &'n Entry,
    node: &'n Node,
) -> impl Iterator<Item = (&'n str, usize, &'n GpuFault)> {
    let gpus = node.room.gpus.iter().enumerate().filter(|(_, gpu)| suits(cluster, entry, node, gpu));
    gpus.filter_map(|(index, gpu)| Some((node.spec.name.as_str(), index, gpu.fault.as_ref()?)))
}

/// What the node lacks and how much of it: GPUs, milli-GPU, slots, MiB, milli-cores or units of another resource.
pub(super) fn shortage(cluster: &Cluster, entry: &Entry, node: &Node, unmet: Option<Unmet>) -> (Shortage, u64) {
    if let Some(barrier) = entry.barrier(node, cluster.names()) {
        return (Shortage::of(barrier), 0);
    }
    let suitable = suitable(cluster, entry, node).count();
    let wanted = wanted(entry);
    if wanted > 0 && suitable == 0 {
        return (Shortage::Model, wanted as u64);
    }
    if suitable < wanted {
        return (Shortage::Size, (wanted - suitable) as u64);
    }
    match unmet {
        Some(Unmet::Together) => return (Shortage::Together, 0),
        Some(Unmet::Apart) => return (Shortage::Apart, 0),
        Some(Unmet::Spread) => return (Shortage::Spread, 0),
        None => {}
    }
    if !node.later.is_empty() && has_room_without_claims(cluster, entry, node) {
        return (Shortage::Held, 0);
    }
    let gpu = match &entry.demand.gpu {
        GpuAsk::None => None,
        GpuAsk::Share { count, milli } => share_shortage(entry, node, *count as usize, *milli),
        GpuAsk::Mig { .. } if entry.single().is_some() => partition_shortage(cluster, entry, node),
        GpuAsk::Mig { .. } => packing_shortage(cluster, entry, node),
        GpuAsk::Mps { memory_mib } => slice_shortage(cluster, entry, node, *memory_mib),
        GpuAsk::Floor { .. } => floor_shortage(cluster, entry, node),
    };
    gpu.unwrap_or_else(|| plain_shortage(entry, node))
}

/// What is short of everything but GPUs.
fn plain_shortage(entry: &Entry, node: &Node) -> (Shortage, u64) {
    if node.port_taken(entry) {
        return (Shortage::Port, 0);
    }
    if let Some((_, missing)) = node.short_of(entry) {
        return (Shortage::Extra, missing);
    }
    let lack = |asked: u32, free: u32| u64::from(asked.saturating_sub(free));
    let (cpu_free, memory_free) = node.spare();
    match lack(entry.demand.memory_mib, memory_free) {
        0 => (Shortage::Cpu, lack(entry.demand.cpu_milli, cpu_free)),
        missing => (Shortage::Memory, missing),
    }
}

fn has_room_without_claims(cluster: &Cluster, entry: &Entry, node: &Node) -> bool {
    let free = Node { later: Vec::new(), ..node.clone() };
    let mut found = Vec::new();
    place::enumerate(cluster, entry, &free, Reuse::First, &mut found);
    !found.is_empty()
}

/// Whether the GPUs alone have room.
fn gpus_have_room(cluster: &Cluster, entry: &Entry, node: &Node) -> bool {
    let now = Node { later: Vec::new(), ..node.clone() };
    let mut found = Vec::new();
    place::on_gpus(cluster, entry, &now, Reuse::First, &mut found);
    !found.is_empty()
}

fn share_shortage(entry: &Entry, node: &Node, count: usize, milli: u32) -> Option<(Shortage, u64)> {
    let mut free: Vec<u32> =
        node.room.gpus.iter().filter(|gpu| entry.accepts(gpu.model)).map(|gpu| free_for_share(node, gpu).min(milli)).collect();
    free.sort_unstable_by(|a, b| b.cmp(a));
    let missing: u64 = free.iter().take(count).map(|free| u64::from(milli - free)).sum();
    (missing > 0).then_some((Shortage::Gpu, missing))
}

fn free_for_share(node: &Node, gpu: &Gpu) -> u32 {
    if gpu.cut() != Cut::Shares && gpu.is_idle() && may(node, gpu, Cut::Shares) { MILLI } else { gpu.share_free() }
}

fn partition_shortage(cluster: &Cluster, entry: &Entry, node: &Node) -> Option<(Shortage, u64)> {
    if gpus_have_room(cluster, entry, node) {
        return None;
    }
    let mut least: Option<(Shortage, u64)> = None;
    for gpu in suitable(cluster, entry, node) {
        let (Layout::Mig(mig), Some(grid)) = (&gpu.layout, cluster.models().grid(gpu.model)) else { continue };
        for profile in &entry.profiles {
            let (model, row) = cluster.models().profiles()[profile.index()];
            if model != gpu.model {
                continue;
            }
            let free = u32::from(grid.slots) - mig.used_slots.len();
            let missing = u32::from(grid.profiles[usize::from(row)].size).saturating_sub(free);
            let this = (if missing == 0 { Shortage::Shape } else { Shortage::Gpu }, u64::from(missing));
            if least.is_none_or(|best| this.0 > best.0 || (this.0 == best.0 && this.1 < best.1)) {
                least = Some(this);
            }
        }
    }
    // All that would do are in use in another cut.
    Some(least.unwrap_or((Shortage::Gpu, 0)))
}

/// Several partitions: too few slots in all, or slots enough that do not make them.
fn packing_shortage(cluster: &Cluster, entry: &Entry, node: &Node) -> Option<(Shortage, u64)> {
    if gpus_have_room(cluster, entry, node) {
        return None;
    }
    if !packs_when_idle(cluster, entry, node) {
        return Some((Shortage::Size, 1));
    }
    let models = cluster.models();
    let size = |row: &(crate::model::ModelId, u8)| models.grid(row.0).map_or(0, |grid| grid.profiles[usize::from(row.1)].size);
    let wanted: u32 = entry.wants.iter().map(|want| want.count * u32::from(want.rows.iter().map(size).min().unwrap_or(0))).sum();
    let free = |gpu: &Gpu| match &gpu.layout {
        Layout::Mig(mig) => models.slots(gpu.model) - mig.used_slots.len(),
        _ if gpu.is_idle() => models.slots(gpu.model),
        _ => 0,
    };
    let free: u32 = suitable(cluster, entry, node).map(free).sum();
    Some(match wanted.saturating_sub(free) {
        0 => (Shortage::Shape, 0),
        missing => (Shortage::Gpu, missing.into()),
    })
}

fn slice_shortage(cluster: &Cluster, entry: &Entry, node: &Node, memory_mib: u32) -> Option<(Shortage, u64)> {
    if gpus_have_room(cluster, entry, node) {
        return None;
    }
    let free = |gpu: &Gpu| if let Layout::Mps(slices) = &gpu.layout { slices.free_mib() } else { 0 };
    let most = suitable(cluster, entry, node).map(free).max().unwrap_or(0);
    Some((Shortage::Gpu, memory_mib.saturating_sub(most).max(1).into()))
}

fn floor_shortage(cluster: &Cluster, entry: &Entry, node: &Node) -> Option<(Shortage, u64)> {
    if gpus_have_room(cluster, entry, node) {
        return None;
    }
    let free = |gpu: &Gpu| gpu.free_milli(cluster.models().slots(gpu.model));
    let most = suitable(cluster, entry, node).map(free).max().unwrap_or(0);
    Some((Shortage::Gpu, u64::from(MILLI - most.min(MILLI))))
}

fn slots(count: u64) -> &'static str {
    if count == 1 { "slot" } else { "slots" }
}

/// What the node would need, for a person.
pub(super) fn would_help(cluster: &Cluster, entry: &Entry, node: &Node, shortage: Shortage, missing: u64) -> String {
    let ask = &entry.demand.gpu;
    match (shortage, ask) {
        (Shortage::Selector, _) => "its labels are not those asked for".to_owned(),
        (Shortage::Volume, _) => "the volumes cannot be reached from there".to_owned(),
        (Shortage::Taint, _) => match entry.barrier(node, cluster.names()) {
            Some(Barrier::Taint(row)) => format!("a toleration of its taint {} would do", node.spec.taints[row]),
            _ => "a toleration of its taint would do".to_owned(),
        },
        (Shortage::Cordoned, _) => "it is cordoned; uncordon it".to_owned(),
        (Shortage::Together, _) => "a pod that it must run with would have to run there, or near".to_owned(),
        (Shortage::Apart, _) => "a pod that it must not run with would have to go".to_owned(),
        (Shortage::Spread, _) => "more of its like would have to run elsewhere first".to_owned(),
        (Shortage::Port, _) => "a port that the pod takes is in use there".to_owned(),
        (Shortage::Extra, _) => match node.short_of(entry) {
            Some((resource, missing)) => format!("{missing} more {} would do", cluster.names().word(resource)),
            None => "another resource is short".to_owned(),
        },
        (Shortage::Model, GpuAsk::Mig { .. }) => format!("no GPU there is cut by MIG, or may be, and has profile {ask}"),
        (Shortage::Model, _) if entry.demand.models.is_empty() => format!("it has no GPU that may serve {ask}"),
        (Shortage::Model, _) => format!("it has no GPU of {}", entry.demand.models.join(" or ")),
        (Shortage::Size, GpuAsk::Mig { .. }) => format!("its GPUs cannot hold {ask} even when idle"),
        (Shortage::Size, _) => format!("it has {missing} GPUs too few"),
        (Shortage::Gpu, GpuAsk::Mig { .. }) if entry.single().is_none() => {
            format!("{missing} more free {} would make {ask}", slots(missing))
        }
        (Shortage::Gpu, GpuAsk::Mig { .. }) if missing == 0 => {
            format!("a GPU that is in use otherwise would have to fall idle to be cut for a {ask}")
        }
        (Shortage::Gpu, GpuAsk::Mig { .. }) => format!("{missing} more free {} on one GPU would make a {ask}", slots(missing)),
        (Shortage::Gpu, GpuAsk::Mps { .. }) => format!("{missing} MiB more to promise on one GPU would do"),
        (Shortage::Gpu, GpuAsk::Share { milli: MILLI, .. }) => {
            format!("whole GPUs with {missing} milli-GPU in use would have to fall idle")
        }
        (Shortage::Gpu, GpuAsk::Floor { .. }) => "its GPUs are in use or cut in ways that do not serve this".to_owned(),
        (Shortage::Gpu, _) => format!("{missing} more milli-GPU free on one GPU would do"),
        (Shortage::Shape, _) => format!("its partitions leave no legal place for {ask}; moving or ending one would"),
        (Shortage::Memory, _) => format!("{missing} MiB more free memory would do"),
        (Shortage::Cpu, _) => format!("{missing} more free milli-cores would do"),
        (Shortage::Held, _) => match node.claims.first().and_then(|&pod| cluster.pod(pod)) {
            Some(pod) => format!("its room is kept for pod {}/{}", pod.spec.namespace, pod.spec.name),
            None => "its room is kept for others".to_owned(),
        },
    }
}
