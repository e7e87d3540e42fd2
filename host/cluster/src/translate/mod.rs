//! From Kubernetes objects to the words of the core. Pure functions: equal objects give equal answers.
//!
//! Nothing that a pod says about where it may run is ignored. What partita cannot do is refused with what it is and what to do instead
//! ([`Unsupported`]); what depends on something that is not there yet, such as a volume, is waited for ([`Refusal::Waits`]). A pod that
//! runs already is booked whatever it says ([`running`]).
//!
//! What kube-scheduler's filters look at and this does not: remaining capacity of a storage backend (`CSIStorageCapacity`; its
//! provisioner refuses, and the pod is placed again), drivers that want pods kept away from nodes without them
//! (`preventPodSchedulingIfMissing`), and features that a node declares. In all else both agree: `tests/differential` holds it. Of its
//! scores: default spreading of a service's pods, and where images are.

mod budget;
mod constraints;
mod gpu;
mod node;
mod pod;
mod requests;
mod selector;
mod storage;
mod there;
mod volumes;

use thiserror::Error;

pub use budget::{Allowed, Budgets, SEVERAL_BUDGETS};
pub(crate) use gpu::is_gpu;
pub use node::{NodeView, node};
pub use pod::{Scene, pending, resources, running};
pub use selector::matches_term;
pub use storage::Storage;
pub use volumes::{Prebind, SELECTED_NODE, Taken, choose};

/// The longest text of somebody else's that is quoted.
const QUOTE_MAX: usize = 64;

/// What people write on pods and nodes for partita.
pub mod keys {
    /// Annotation of a pod: how much memory of a GPU it needs, a quantity.
    pub const MEMORY: &str = "partita.dev/memory";
    /// Annotation of a pod: how much of a GPU's compute it needs, percent.
    pub const COMPUTE: &str = "partita.dev/compute";
    /// Annotation of a pod: how well it must be shielded from its neighbours, `hardware`, `memory` or `shared`.
    pub const ISOLATION: &str = "partita.dev/isolation";
    /// Annotation of a pod: the GPU models that will do, separated by commas or bars.
    pub const MODELS: &str = "partita.dev/gpu-model";
    /// Annotation of a pod: whether it may be stopped and started elsewhere.
    pub const RESTARTABLE: &str = "partita.dev/restartable";
    /// Annotation of a pod: how long it is not evicted, such as `1h30m`.
    pub const MIN_RUNTIME: &str = "partita.dev/min-runtime";
    /// Annotation of a pod, written with its binding: which GPUs it got.
    pub const GRANT: &str = "partita.dev/grant";
    /// Label of a node: what may be done to its GPUs.
    pub const PARTITIONING: &str = "partita.dev/partitioning";
    /// Resource: a part of a GPU, as the annotations say.
    pub const GPU: &str = "partita.dev/gpu";
    /// Resource: whole GPUs.
    pub const WHOLE_GPU: &str = "nvidia.com/gpu";
    /// What the resource of a MIG profile begins with.
    pub const MIG_PREFIX: &str = "nvidia.com/mig-";
    /// What the resource of a share of some GB under MPS begins with.
    pub const MPS_PREFIX: &str = "nvidia.com/gpu-";
    /// Label of a node: the product name of its GPUs.
    pub const PRODUCT: &str = "nvidia.com/gpu.product";
    /// Label of a node: the memory of each of its GPUs, MiB.
    pub const PRODUCT_MEMORY: &str = "nvidia.com/gpu.memory";
    /// Resource of the core: how many volumes of a storage driver can be attached, with the driver's name behind it.
    pub const ATTACH_PREFIX: &str = "attachable-volumes-csi-";
}

/// Something that an object says and partita does not do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}; {remedy}")]
pub struct Unsupported {
    /// What it is, with the value.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Unsupported {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// Why a pod cannot be placed at all for now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It asks for what partita does not do; that ends only if the pod changes.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// It waits for something else to happen.
    #[error("waits: {0}")]
    Waits(String),
}

/// Somebody else's text, short and printable.
fn quote(text: &str) -> String {
    let short: String = text.chars().take(QUOTE_MAX).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
