//! What is told of a GPU and its partitions: what the agent reports.

use std::path::PathBuf;

use partita_core::model::Cut;

use crate::{
    discover::Gpu,
    mig::{Problem, Spec},
};

/// How far a partition is, or the sharing of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartState {
    /// It can be used.
    Ready,
    /// It is there, can be used by who has it, and stays although it is not wanted; or it cannot be given to anybody.
    Kept(Problem),
    /// It is wanted and is not there.
    Failed(Problem),
}

/// A partition that is there, or that is wanted and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is; none for a GPU instance of a profile that is not in the grid.
    pub spec: Option<Spec>,
    /// Number of its GPU instance, if it is there.
    pub instance: Option<u32>,
    /// Number of its compute instance, if it has exactly one.
    pub compute: Option<u32>,
    /// UUID of its MIG device, if it has exactly one.
    pub uuid: Option<String>,
    /// Who uses it: what the kubelet names, and `pid:NUMBER`.
    pub users: Vec<String>,
    /// This program made it.
    pub ours: bool,
    /// How far it is.
    pub state: PartState,
}

impl Part {
    /// Whether whoever has it can use it: it is there, whole and healthy, wanted or not.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let sound = match &self.state {
            PartState::Ready => true,
            PartState::Failed(_) => false,
            PartState::Kept(problem) => {
                !matches!(problem, Problem::Unhealthy(_) | Problem::StillThere(_) | Problem::Divided(_) | Problem::Device(_))
            }
        };
        sound && self.uuid.is_some()
    }
}

/// A GPU that is shared by MPS, or that shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// The folder in which its daemon listens: what [`crate::mps::mounts`] takes.
    pub pipe: PathBuf,
    /// The memory of each share, MiB.
    pub shares: Vec<u32>,
    /// How far it is: ready; there although the GPU shall be cut otherwise; or not there, or not as wanted.
    pub state: PartState,
}

/// A GPU with its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The GPU, as it was seen last.
    pub gpu: Gpu,
    /// Why it cannot be used, if it cannot.
    pub unusable: Option<String>,
    /// What else an operator should know, one sentence each.
    pub notes: Vec<String>,
    /// Its partitions.
    pub parts: Vec<Part>,
    /// What there is of MPS.
    pub sharing: Option<Sharing>,
    /// Who uses it as a whole.
    pub users: Vec<String>,
}

impl Found {
    /// How it is cut, or is about to be.
    #[must_use]
    pub fn cut(&self) -> Cut {
        match self.sharing {
            _ if self.gpu.is_cut() => Cut::Mig,
            Some(_) => Cut::Mps,
            None => Cut::Shares,
        }
    }
}
