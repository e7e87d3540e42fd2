//! What a pod asks for.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{MILLI, node::GPUS_MAX};

/// The part of a demand that concerns GPUs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GpuAsk {
    /// No GPU at all.
    None,
    /// `count` GPUs with `milli` thousandths of each; 1000 is a whole GPU.
    Share {
        /// How many GPUs, all of one node.
        count: u32,
        /// Thousandths of each.
        milli: u32,
    },
    /// One MIG partition of a profile.
    Mig {
        /// The profile's name, `1g.10gb`.
        profile: String,
    },
}

/// Everything that decides where a pod may run. Pods with equal demands are interchangeable to the planner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Demand {
    /// Cpu, milli-cores.
    pub cpu_milli: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// GPUs.
    pub gpu: GpuAsk,
    /// Names of the GPU models that will do, sorted, each once; empty for any.
    pub models: Vec<String>,
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
}

impl Demand {
    /// Sorts the models and checks the numbers.
    ///
    /// # Errors
    /// The first [`DemandError`] found.
    pub fn validated(mut self) -> Result<Self, DemandError> {
        self.models.sort_unstable();
        self.models.dedup();
        match &self.gpu {
            GpuAsk::None if !self.models.is_empty() => Err(DemandError::ModelsWithoutGpu),
            GpuAsk::Share { count, .. } if *count == 0 || *count > GPUS_MAX => Err(DemandError::Count(*count)),
            GpuAsk::Share { milli, .. } if *milli == 0 || *milli > MILLI => Err(DemandError::Milli(*milli)),
            GpuAsk::Mig { profile } if profile.is_empty() => Err(DemandError::NoProfile),
            _ => Ok(self),
        }
    }

    /// GPU share asked in total, milli-GPU; 0 for MIG, whose share depends on the GPU's grid.
    #[must_use]
    pub fn gpu_milli(&self) -> u64 {
        match self.gpu {
            GpuAsk::Share { count, milli } => u64::from(count) * u64::from(milli),
            GpuAsk::None | GpuAsk::Mig { .. } => 0,
        }
    }
}

/// A pod as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSpec {
    /// Name, unique in its namespace.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Kubernetes priority: higher goes first.
    pub priority: i32,
    /// What it asks for.
    pub demand: Demand,
}
