//! What a node has.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::grid::{Grid, GridError};

/// The most GPUs on one node. The largest servers sold have 16; the room above is for boards that appear as several GPUs.
pub const GPUS_MAX: u32 = 64;

/// The most GPU models of one cluster: ten times what NVIDIA has sold for data centres, so more is a mistake or an attack.
pub const MODELS_MAX: usize = 1024;

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

/// How a GPU is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// Whole or in shares of a thousandth.
    #[default]
    Shares,
    /// By MIG.
    Mig,
}

/// One GPU of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuSpec {
    /// Name of its model.
    pub model: String,
    /// How it is cut.
    pub cut: Cut,
}

/// A node as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Name, unique in the cluster.
    pub name: String,
    /// Allocatable cpu, milli-cores.
    pub cpu_milli: u32,
    /// Allocatable memory, MiB.
    pub memory_mib: u32,
    /// GPUs, in the order of their indices.
    pub gpus: Vec<GpuSpec>,
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
    /// MIG on a model that cannot.
    #[error("node {node} cuts a {model} by MIG, which that model cannot do; use shares")]
    NoMig {
        /// The node.
        node: String,
        /// The model given.
        model: String,
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
}
