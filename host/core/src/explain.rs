//! Why a demand cannot be placed: one structured reason, the same for the pod's condition, its event and `partita explain`.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{
    model::{DemandId, GpuAsk, MILLI},
    place,
    state::{Cluster, Entry, Layout, Node},
};

/// What a node lacks, from the farthest from a fit to the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortage {
    /// It has no GPU of an accepted model, or none cut as asked.
    Model,
    /// It has fewer such GPUs than asked, even when idle.
    Size,
    /// Its GPUs are taken.
    Gpu,
    /// Enough slots are free, but not in one legal place.
    Shape,
    /// Memory is short.
    Memory,
    /// Cpu is short.
    Cpu,
}

impl Shortage {
    /// The name in reports and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Size => "size",
            Self::Gpu => "gpu",
            Self::Shape => "shape",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
        }
    }

    fn phrase(self) -> &'static str {
        match self {
            Self::Model => "without a GPU of an accepted model and cut",
            Self::Size => "too small even when idle",
            Self::Gpu => "with too little GPU left",
            Self::Shape => "with the slots but not in one place",
            Self::Memory => "short of memory",
            Self::Cpu => "short of cpu",
        }
    }
}

/// Why a demand cannot be placed now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What most stands in the way: the shortage of the nearest node.
    pub short: Option<Shortage>,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Nodes by what they lack.
    pub lacking: BTreeMap<Shortage, usize>,
    /// The node nearest to a fit.
    pub nearest: Option<String>,
    /// What the nearest node would need, for a person.
    pub would_help: String,
    /// True if no node could take the demand even when idle: waiting does not help.
    pub never: bool,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0/{} nodes fit", self.nodes)?;
        for (row, (shortage, count)) in self.lacking.iter().enumerate() {
            write!(f, "{} {count} {}", if row == 0 { ":" } else { "," }, shortage.phrase())?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, "; nearest is {nearest}: {}", self.would_help)?;
        }
        if self.never { f.write_str("; no node could take it even when idle") } else { Ok(()) }
    }
}

/// The reason why `demand` cannot be placed, or none if a node can take it.
#[must_use]
pub fn reason(cluster: &Cluster, demand: DemandId) -> Option<Reason> {
    let entry = cluster.demands().get(demand);
    let mut lacking = BTreeMap::new();
    // Nearest: the furthest stage passed, then the least missing, then the fixed order.
    let mut nearest: Option<(Shortage, u64, &Node)> = None;
    let mut found = Vec::new();
    let mut nodes = 0;
    for (_, node) in cluster.nodes() {
        nodes += 1;
        place::enumerate(cluster, entry, node, &mut found);
        if !found.is_empty() {
            return None;
        }
        let (shortage, missing) = shortage(cluster, entry, node);
        *lacking.entry(shortage).or_insert(0) += 1;
        if nearest.is_none_or(|best| shortage > best.0 || (shortage == best.0 && missing < best.1)) {
            nearest = Some((shortage, missing, node));
        }
    }
    let would_help =
        nearest.map_or_else(|| "add a node".to_owned(), |(shortage, missing, node)| would_help(entry, node, shortage, missing));
    Some(Reason {
        short: nearest.map(|best| best.0),
        nodes,
        lacking,
        nearest: nearest.map(|best| best.2.spec.name.clone()),
        would_help,
        never: !cluster.nodes().any(|(_, node)| could_when_idle(cluster, entry, node)),
    })
}

fn could_when_idle(cluster: &Cluster, entry: &Entry, node: &Node) -> bool {
    let demand = &entry.demand;
    demand.cpu_milli <= node.spec.cpu_milli
        && demand.memory_mib <= node.spec.memory_mib
        && suitable_gpus(cluster, entry, node) >= wanted(entry)
}

fn wanted(entry: &Entry) -> usize {
    match entry.demand.gpu {
        GpuAsk::None => 0,
        GpuAsk::Share { count, .. } => count as usize,
        GpuAsk::Mig { .. } => 1,
    }
}

/// GPUs of the node that could serve the demand if they were idle.
fn suitable_gpus(cluster: &Cluster, entry: &Entry, node: &Node) -> usize {
    let suits = |gpu: &&crate::state::Gpu| match (&gpu.layout, &entry.demand.gpu) {
        (Layout::Shares { .. }, GpuAsk::Share { .. }) => entry.accepts(gpu.model),
        (Layout::Mig { .. }, GpuAsk::Mig { .. }) => {
            entry.profiles.iter().any(|profile| cluster.models().profiles()[profile.index()].0 == gpu.model)
        }
        _ => false,
    };
    node.gpus.iter().filter(suits).count()
}

/// What the node lacks and how much of it: GPUs, milli-GPU, slots, MiB or milli-cores.
fn shortage(cluster: &Cluster, entry: &Entry, node: &Node) -> (Shortage, u64) {
    let suitable = suitable_gpus(cluster, entry, node);
    if wanted(entry) > 0 && suitable == 0 {
        return (Shortage::Model, wanted(entry) as u64);
    }
    if suitable < wanted(entry) {
        return (Shortage::Size, (wanted(entry) - suitable) as u64);
    }
    let gpu = match &entry.demand.gpu {
        GpuAsk::None => None,
        GpuAsk::Share { count, milli } => share_shortage(entry, node, *count as usize, *milli),
        GpuAsk::Mig { .. } => partition_shortage(cluster, entry, node),
    };
    let lack = |asked: u32, free: u32| u64::from(asked.saturating_sub(free));
    gpu.unwrap_or_else(|| match lack(entry.demand.memory_mib, node.memory_free) {
        0 => (Shortage::Cpu, lack(entry.demand.cpu_milli, node.cpu_free)),
        missing => (Shortage::Memory, missing),
    })
}

fn share_shortage(entry: &Entry, node: &Node, count: usize, milli: u32) -> Option<(Shortage, u64)> {
    let mut free: Vec<u32> = node.gpus.iter().filter(|gpu| entry.accepts(gpu.model)).map(|gpu| gpu.share_free().min(milli)).collect();
    free.sort_unstable_by(|a, b| b.cmp(a));
    let missing: u64 = free.iter().take(count).map(|free| u64::from(milli - free)).sum();
    (missing > 0).then_some((Shortage::Gpu, missing))
}

fn partition_shortage(cluster: &Cluster, entry: &Entry, node: &Node) -> Option<(Shortage, u64)> {
    let mut least: Option<(Shortage, u64)> = None;
    for gpu in &node.gpus {
        let (Layout::Mig { used, .. }, Some(grid)) = (&gpu.layout, cluster.models().grid(gpu.model)) else { continue };
        for profile in &entry.profiles {
            let (model, row) = cluster.models().profiles()[profile.index()];
            if model != gpu.model {
                continue;
            }
            let profile = &grid.profiles[usize::from(row)];
            if profile.starts.iter().any(|&start| gpu.admits(grid, crate::model::Placement { profile: row, start })) {
                return None;
            }
            let free = u32::from(grid.slots) - used.len();
            let missing = u32::from(profile.size).saturating_sub(free);
            let this = (if missing == 0 { Shortage::Shape } else { Shortage::Gpu }, u64::from(missing));
            if least.is_none_or(|best| this.0 > best.0 || (this.0 == best.0 && this.1 < best.1)) {
                least = Some(this);
            }
        }
    }
    least
}

fn would_help(entry: &Entry, node: &Node, shortage: Shortage, missing: u64) -> String {
    let name = &node.spec.name;
    match (shortage, &entry.demand.gpu) {
        (Shortage::Model, GpuAsk::Mig { profile }) => format!("no GPU there is cut by MIG and has profile {profile}"),
        (Shortage::Model, _) if entry.demand.models.is_empty() => "it has no GPU cut by shares".to_owned(),
        (Shortage::Model, _) => format!("it has no GPU of {}", entry.demand.models.join(" or ")),
        (Shortage::Size, _) => format!("it has {missing} GPUs too few"),
        (Shortage::Gpu, GpuAsk::Mig { profile }) => format!("{missing} more free slots on one GPU would make a {profile}"),
        (Shortage::Gpu, GpuAsk::Share { milli: MILLI, .. }) => {
            format!("whole GPUs with {missing} milli-GPU in use would have to fall idle")
        }
        (Shortage::Gpu, _) => format!("{missing} more milli-GPU free on one GPU would do"),
        (Shortage::Shape, GpuAsk::Mig { profile }) => {
            format!("its partitions leave no legal place for a {profile}; moving or ending one would")
        }
        (Shortage::Shape, _) => format!("{name} has the room in pieces"),
        (Shortage::Memory, _) => format!("{missing} MiB more free memory would do"),
        (Shortage::Cpu, _) => format!("{missing} more free milli-cores would do"),
    }
}
