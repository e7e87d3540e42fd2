//! What a pod asks for.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Constraints, MILLI, node::GPUS_MAX};

/// The most kinds of MIG partition in one demand; a count of each must fit one 128-bit word (see [`crate::layout::Bag`]).
pub const KINDS_MAX: usize = 16;
/// The most MIG partitions of one kind in one demand, for the same reason.
pub const PARTITIONS_MAX: u32 = 127;

/// How well a pod is shielded from its neighbours on a GPU, the weakest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Time-slicing: no limit holds a neighbour back.
    #[default]
    Shared,
    /// MPS: a limit on memory, but a fault of one client ends all.
    Memory,
    /// A MIG partition or a whole GPU.
    Hardware,
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::Memory => "memory",
            Self::Hardware => "hardware",
        })
    }
}

/// The part of a demand that concerns GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GpuAsk {
    /// No GPU at all.
    #[default]
    None,
    /// `count` GPUs with `milli` thousandths of each; 1000 is a whole GPU, less is a time-sliced share.
    Share {
        /// How many GPUs, all of one node.
        count: u32,
        /// Thousandths of each.
        milli: u32,
    },
    /// MIG partitions, on any GPUs of one node.
    Mig {
        /// How many of each profile: (name, count), sorted, each name once.
        partitions: Vec<(String, u32)>,
    },
    /// A share of one GPU under MPS.
    Mps {
        /// Its memory, MiB.
        memory_mib: u32,
    },
    /// This much of one GPU, at least this well isolated, however it is cut.
    Floor {
        /// Memory, MiB.
        memory_mib: u32,
        /// Percent of the GPU's compute.
        compute: u32,
        /// The weakest isolation that will do.
        isolation: Isolation,
    },
}

impl GpuAsk {
    /// One MIG partition.
    #[must_use]
    pub fn mig(profile: &str) -> Self {
        Self::Mig { partitions: vec![(profile.into(), 1)] }
    }

    /// Whole GPUs.
    #[must_use]
    pub fn whole(count: u32) -> Self {
        Self::Share { count, milli: MILLI }
    }
}

/// As people write it: `2 GPUs`, `250 milli-GPU`, `2 x 1g.10gb + 3g.40gb`.
impl fmt::Display for GpuAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no GPU"),
            Self::Share { count: 1, milli: MILLI } => f.write_str("1 GPU"),
            Self::Share { count, milli: MILLI } => write!(f, "{count} GPUs"),
            Self::Share { count: 1, milli } => write!(f, "{milli} milli-GPU"),
            Self::Share { count, milli } => write!(f, "{milli} milli-GPU of {count} GPUs"),
            Self::Mig { partitions } => {
                for (row, (profile, count)) in partitions.iter().enumerate() {
                    let plus = if row == 0 { "" } else { " + " };
                    if *count == 1 { write!(f, "{plus}{profile}")? } else { write!(f, "{plus}{count} x {profile}")? }
                }
                Ok(())
            }
            Self::Mps { memory_mib } => write!(f, "an MPS share of {memory_mib} MiB"),
            Self::Floor { memory_mib, compute, isolation } => {
                write!(f, "{memory_mib} MiB and {compute} % of a GPU, isolation {isolation} or better")
            }
        }
    }
}

/// Everything that decides where a pod may run. Pods with equal demands are interchangeable to the planner.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Demand {
    /// Cpu, milli-cores.
    pub cpu_milli: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// GPUs.
    pub gpu: GpuAsk,
    /// Names of the GPU models that will do, sorted, each once; empty for any.
    pub models: Vec<String>,
    /// Amounts of other resources, by name, sorted, each once and more than 0, in the resource's own unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<(String, u64)>,
    /// Where it may run, beside all that; none if that is anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Box<Constraints>>,
}

/// Why a demand makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DemandError {
    /// More GPUs than any node has.
    #[error("asks for {0} GPUs on one node; the limit is {GPUS_MAX}")]
    Count(u32),
    /// A share that is nothing or more than a GPU.
    #[error("asks for {0} milli-GPU of each GPU; a share is 1 to {MILLI}")]
    Milli(u32),
    /// GPU models without a GPU.
    #[error("names GPU models but asks for no GPU; drop the models or ask for a GPU")]
    ModelsWithoutGpu,
    /// A profile without a name.
    #[error("asks for a MIG partition without naming a profile, such as 1g.10gb")]
    NoProfile,
    /// No partition, or more than any node has.
    #[error("asks for {1} partitions {0}; ask for 1 to {PARTITIONS_MAX}")]
    Partitions(String, u32),
    /// More kinds of partition than one demand can have.
    #[error("asks for {0} kinds of MIG partition; the limit is {KINDS_MAX}")]
    Kinds(usize),
    /// A share without memory.
    #[error("asks for a share of a GPU without memory; say how much it needs")]
    NoMemory,
    /// More compute than there is.
    #[error("asks for {0} % of a GPU's compute; ask for 0 to 100")]
    Compute(u32),
}

impl Demand {
    /// Sorts what has no order and checks the numbers.
    ///
    /// # Errors
    /// The first [`DemandError`] found.
    pub fn validated(mut self) -> Result<Self, DemandError> {
        self.models.sort_unstable();
        self.models.dedup();
        self.extra.retain(|(_, amount)| *amount > 0);
        self.extra.sort_unstable();
        self.constraints = self.constraints.filter(|constraints| !constraints.is_empty());
        match &mut self.gpu {
            GpuAsk::None if !self.models.is_empty() => Err(DemandError::ModelsWithoutGpu),
            GpuAsk::Share { count, .. } if *count == 0 || *count > GPUS_MAX => Err(DemandError::Count(*count)),
            GpuAsk::Share { milli, .. } if *milli == 0 || *milli > MILLI => Err(DemandError::Milli(*milli)),
            GpuAsk::Mig { partitions } => merge(partitions).map(|()| self),
            GpuAsk::Mps { memory_mib: 0 } | GpuAsk::Floor { memory_mib: 0, .. } => Err(DemandError::NoMemory),
            GpuAsk::Floor { compute, .. } if *compute > 100 => Err(DemandError::Compute(*compute)),
            _ => Ok(self),
        }
    }

    /// GPU share asked in total, milli-GPU; 0 for partitions, whose share depends on the GPU.
    #[must_use]
    pub fn gpu_milli(&self) -> u64 {
        if let GpuAsk::Share { count, milli } = self.gpu { u64::from(count) * u64::from(milli) } else { 0 }
    }
}

/// Sorts the partitions and adds up those of one name.
fn merge(partitions: &mut Vec<(String, u32)>) -> Result<(), DemandError> {
    partitions.sort_unstable();
    partitions.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = kept.1.saturating_add(next.1);
        }
        same
    });
    if partitions.is_empty() || partitions.iter().any(|(name, _)| name.is_empty()) {
        return Err(DemandError::NoProfile);
    }
    if let Some((name, count)) = partitions.iter().find(|(_, count)| *count == 0 || *count > PARTITIONS_MAX) {
        return Err(DemandError::Partitions(name.clone(), *count));
    }
    if partitions.len() > KINDS_MAX { Err(DemandError::Kinds(partitions.len())) } else { Ok(()) }
}

/// What may be done to a pod that runs, and what it may do to others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    /// It says that it may be stopped and started again elsewhere.
    pub restartable: bool,
    /// It is not evicted before it ran this long, milliseconds.
    pub min_runtime_ms: u64,
    /// Names of the disruption budgets that it counts in, sorted.
    pub budgets: Vec<String>,
    /// It evicts nobody (`preemptionPolicy: Never`).
    pub never_preempts: bool,
}

/// A pod as the planner sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSpec {
    /// Name, unique in its namespace.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Kubernetes priority: higher goes first.
    pub priority: i32,
    /// What it asks for.
    pub demand: Demand,
    /// What may be done to it, and by it.
    pub terms: Terms,
    /// Its labels, by which others choose to run next to it or not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(gpu: GpuAsk) -> Result<Demand, DemandError> {
        Demand { cpu_milli: 1, memory_mib: 1, gpu, models: Vec::new(), ..Demand::default() }.validated()
    }

    #[test]
    fn partitions_of_one_name_are_one_kind() {
        let partitions = [("3g.40gb", 1), ("1g.10gb", 2), ("1g.10gb", 1)].map(|(name, count)| (name.to_owned(), count)).to_vec();
        let merged = demand(GpuAsk::Mig { partitions }).unwrap();
        assert_eq!(merged.gpu, GpuAsk::Mig { partitions: vec![("1g.10gb".into(), 3), ("3g.40gb".into(), 1)] });
        assert_eq!(merged.gpu.to_string(), "3 x 1g.10gb + 3g.40gb");
    }

    #[test]
    fn asks_that_mean_nothing_are_refused() {
        let mig = |name: &str, count| GpuAsk::Mig { partitions: vec![(name.into(), count)] };
        let many = GpuAsk::Mig { partitions: (0..17).map(|kind| (format!("1g.{kind}gb"), 1)).collect() };
        let floor = |memory_mib, compute| GpuAsk::Floor { memory_mib, compute, isolation: Isolation::Shared };
        let wrong = [
            (mig("", 1), "without naming a profile"),
            (GpuAsk::Mig { partitions: Vec::new() }, "without naming a profile"),
            (mig("1g.10gb", 0), "0 partitions 1g.10gb"),
            (mig("1g.10gb", u32::MAX), "ask for 1 to 127"),
            (many, "17 kinds"),
            (GpuAsk::Mps { memory_mib: 0 }, "without memory"),
            (floor(0, 1), "without memory"),
            (floor(1, 101), "101 %"),
        ];
        for (ask, words) in wrong {
            let error = demand(ask).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
