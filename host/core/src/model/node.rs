//! What a node has.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    constraints::Taint,
    grid::{Grid, GridError},
};

/// The most GPUs on one node. The largest servers sold have 16; the room above is for boards that appear as several GPUs.
pub const GPUS_MAX: u32 = 64;

/// The most GPU models of one cluster: ten times what NVIDIA has sold for data centres, so more is a mistake or an attack.
pub const MODELS_MAX: usize = 1024;

/// The most clients of one GPU under MPS (NVIDIA MPS documentation, Volta and later).
pub const MPS_CLIENTS_MAX: usize = 48;

/// Memory of a GPU under MPS that is promised to nobody, MiB: the server's own, and the contexts that a client's limit does not cover. Not
/// published; half a GiB is on the safe side of what people report.
pub const MPS_RESERVED_MIB: u32 = 512;

/// A GPU model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuModel {
    /// Name, unique in the cluster.
    pub name: String,
    /// Memory, MiB; 0 where unknown.
    #[serde(default)]
    pub memory_mib: u32,
    /// The MIG grid; none for a model without MIG.
    pub grid: Option<Grid>,
}

/// How a GPU is cut. One way at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// Whole, or time-sliced in shares of a thousandth.
    #[default]
    Shares,
    /// By MIG.
    Mig,
    /// By MPS.
    Mps,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shares => "shares",
            Self::Mig => "mig",
            Self::Mps => "mps",
        })
    }
}

/// What the operator lets partita do to the GPUs of a node: the label `partita.dev/partitioning`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioning {
    /// Every GPU stays cut as it is: what a node without the label, or a simulation, has.
    #[default]
    Fixed,
    /// Nothing is cut or shared: whole GPUs only. On a live cluster partita leaves the node: its agent gives the GPUs back as it found them,
    /// and they are used again, whole, when another device plugin shows them.
    Off,
    /// An idle GPU may become whole or be cut by MIG.
    Mig,
    /// An idle GPU may become whole or be shared by MPS.
    Mps,
    /// A GPU is whole or time-sliced.
    TimeSlicing,
    /// An idle GPU may become anything.
    Auto,
}

impl Partitioning {
    /// Whether an idle GPU that is cut otherwise may be cut so.
    #[must_use]
    pub fn may_become(self, cut: Cut) -> bool {
        match cut {
            Cut::Shares => !matches!(self, Self::Fixed | Self::Off),
            Cut::Mig => matches!(self, Self::Mig | Self::Auto),
            Cut::Mps => matches!(self, Self::Mps | Self::Auto),
        }
    }

    /// Whether pods may share a GPU by time-slicing.
    #[must_use]
    pub fn time_slices(self) -> bool {
        matches!(self, Self::Fixed | Self::TimeSlicing | Self::Auto)
    }

    /// Whether GPUs that are cut so may be used.
    #[must_use]
    pub fn may_use(self, cut: Cut) -> bool {
        cut == Cut::Shares || self != Self::Off
    }
}

/// A partition that was found on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// The name of its MIG profile; none for a share under MPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// First slot of a MIG partition.
    #[serde(default)]
    pub start: u8,
    /// Memory of a share under MPS, MiB.
    #[serde(default)]
    pub memory_mib: u32,
    /// Whether somebody uses it. Who does is told with the pods; a user that stays unknown is never disturbed.
    #[serde(default)]
    pub used: bool,
}

/// One GPU of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuSpec {
    /// Name of its model.
    pub model: String,
    /// How it is cut.
    pub cut: Cut,
    /// Its UUID; empty where unknown.
    #[serde(default)]
    pub uuid: String,
    /// The partitions that it has.
    #[serde(default)]
    pub found: Vec<Found>,
    /// Why nobody may use it, for a person; none if it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unusable: Option<String>,
}

impl GpuSpec {
    /// A GPU without partitions, of unknown UUID.
    #[must_use]
    pub fn new(model: &str, cut: Cut) -> Self {
        Self { model: model.into(), cut, ..Self::default() }
    }
}

/// A node as the planner sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Name, unique in the cluster.
    pub name: String,
    /// Allocatable cpu, milli-cores.
    pub cpu_milli: u32,
    /// Allocatable memory, MiB.
    pub memory_mib: u32,
    /// GPUs, in the order of their indices.
    pub gpus: Vec<GpuSpec>,
    /// What may be done to them.
    pub partitioning: Partitioning,
    /// Allocatable amounts of other resources, by name, sorted, each once, in the resource's own unit.
    #[serde(default)]
    pub extra: Vec<(String, u64)>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Why pods should stay away.
    #[serde(default)]
    pub taints: Vec<Taint>,
    /// Whether it takes no new pods: it was cordoned.
    #[serde(default)]
    pub unschedulable: bool,
}

/// Why a node cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeError {
    /// More GPUs than [`GPUS_MAX`].
    #[error("node {node} has {count} GPUs; the limit is {GPUS_MAX}")]
    TooManyGpus {
        /// The node.
        node: String,
        /// GPUs given.
        count: usize,
    },
    /// A GPU of a model nobody described.
    #[error("node {node} has a GPU of model {model}, which is not among the cluster's models")]
    UnknownModel {
        /// The node.
        node: String,
        /// The model given.
        model: String,
    },
    /// A cut that the model cannot have.
    #[error("node {node} cuts a {model} by {cut}, which that model cannot do; use shares")]
    NoCut {
        /// The node.
        node: String,
        /// The model given.
        model: String,
        /// The cut given.
        cut: Cut,
    },
    /// One model too many.
    #[error("model {model} would be one more than the {MODELS_MAX} of which a cluster may have GPUs")]
    TooManyModels {
        /// The model.
        model: String,
    },
    /// A model described in two ways.
    #[error("model {model} was described before in other words; give each model one description")]
    Redefined {
        /// The model.
        model: String,
    },
    /// A model whose grid is wrong.
    #[error("model {model} has a grid that no GPU can have")]
    Grid {
        /// The model.
        model: String,
        /// What is wrong.
        source: GridError,
    },
    /// A model whose grid has too many layouts.
    #[error("model {model} has a grid with more layouts than any GPU; leave profiles out")]
    TooManyLayouts {
        /// The model.
        model: String,
    },
}
