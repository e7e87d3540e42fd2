//! One node and what is taken of it.

use super::gpu::Gpu;
use crate::model::{Demand, GpuAsk, MILLI, NodeSpec, Placement, ProfileName};

/// A node that the scheduler may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it has.
    pub spec: NodeSpec,
    /// Free cpu, milli-cores.
    pub cpu_free: u32,
    /// Free memory, MiB.
    pub memory_free: u32,
    /// Its GPUs, in the order of `spec.gpus`.
    pub gpus: Vec<Gpu>,
    /// Pods on it that use GPUs, counted by the way they do, sorted.
    pub(crate) by_shape: Vec<(Shape, u32)>,
    /// Tells this node from an earlier one of the same number.
    pub(crate) incarnation: u64,
}

/// The way in which a demand uses GPUs; demands of one shape are alike to a policy that clusters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Shares of this many GPUs.
    Share(u32),
    /// This many whole GPUs.
    Whole(u32),
    /// One partition of a MIG profile, by name.
    Mig(String),
}

impl Shape {
    /// The shape of a demand; none if it asks for no GPU.
    #[must_use]
    pub fn of(demand: &Demand) -> Option<Self> {
        match &demand.gpu {
            GpuAsk::None => None,
            GpuAsk::Share { count, milli: MILLI } => Some(Self::Whole(*count)),
            GpuAsk::Share { count, .. } => Some(Self::Share(*count)),
            // One profile, however its name is written.
            GpuAsk::Mig { profile } => {
                Some(Self::Mig(ProfileName::parse(profile).map_or_else(|_| profile.clone(), |name| name.to_string())))
            }
        }
    }
}

impl Node {
    /// Pods on the node that use GPUs.
    #[must_use]
    pub fn gpu_pods(&self) -> u32 {
        self.by_shape.iter().map(|(_, count)| count).sum()
    }

    /// Pods on the node that use GPUs in the way `shape`.
    #[must_use]
    pub fn like_pods(&self, shape: Option<&Shape>) -> u32 {
        let row = shape.and_then(|shape| self.by_shape.binary_search_by_key(&shape, |entry| &entry.0).ok());
        row.map_or(0, |row| self.by_shape[row].1)
    }

    pub(crate) fn count(&mut self, shape: Option<&Shape>, change: i32) {
        let Some(shape) = shape else { return };
        match self.by_shape.binary_search_by_key(&shape, |entry| &entry.0) {
            Ok(row) => {
                self.by_shape[row].1 = self.by_shape[row].1.saturating_add_signed(change);
                if self.by_shape[row].1 == 0 {
                    self.by_shape.remove(row);
                }
            }
            Err(row) if change > 0 => self.by_shape.insert(row, (shape.clone(), change.unsigned_abs())),
            Err(_) => {}
        }
    }
}

/// What a pod uses of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Use {
    /// Thousandths of it.
    Share(u32),
    /// A MIG partition.
    Partition(Placement),
}

/// What a pod uses of the GPUs of its node: GPU index and amount, each GPU at most once.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize)]
pub struct Grant(pub Vec<(u8, Use)>);
