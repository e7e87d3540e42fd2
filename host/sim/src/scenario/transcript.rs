//! What was played: everything that the planner did, and what came of it.

use std::{collections::BTreeMap, fmt};

use partita_core::{explain::Reason, model::Partitioning, state::Why};
use serde::Serialize;

use crate::metrics::Failure;

/// A scenario that was played.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transcript {
    /// What it is about.
    pub title: Option<String>,
    /// What the policy is called.
    pub policy: String,
    /// The nodes.
    pub nodes: Vec<NodeLine>,
    /// What happened, in order of time.
    pub steps: Vec<Step>,
    /// What policies failed at, so that the next of the chain answered.
    pub failures: Vec<Failure>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// Its cpu, milli-cores.
    pub cpu_milli: u32,
    /// Its memory, MiB.
    pub memory_mib: u32,
    /// Its GPUs by model.
    pub models: BTreeMap<String, usize>,
    /// What may be done to them.
    pub partitioning: Partitioning,
}

/// What happened at one time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// When, seconds since the start.
    pub at_s: f64,
    /// What was told to the planner and what it did, in order.
    pub entries: Vec<Entry>,
    /// Pods that wait afterwards, by priority.
    pub waiting: Vec<Waiting>,
    /// All GPUs afterwards.
    pub gpus: Vec<GpuState>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Entry {
    /// A disruption budget changed.
    Budget {
        /// Its name.
        name: String,
        /// How many of its pods may be stopped now.
        allowed: u32,
    },
    /// A pod ended by itself.
    Ended {
        /// The pod.
        pod: String,
    },
    /// A pod came.
    Came {
        /// The pod.
        pod: String,
        /// Its priority.
        priority: i32,
        /// What it asks for.
        asks: String,
    },
    /// A pod was put on a node.
    Bind {
        /// The pod.
        pod: String,
        /// The node.
        node: String,
        /// What of its GPUs.
        uses: Vec<Used>,
        /// What has to be done to GPUs before.
        changes: Vec<Changed>,
    },
    /// A pod was told to stop.
    Evict {
        /// The pod.
        pod: String,
        /// Its node.
        node: String,
        /// For whom.
        by: String,
    },
    /// A pod was told to stop and start again elsewhere.
    Move {
        /// The pod.
        pod: String,
        /// From where.
        from: String,
        /// The node.
        node: String,
        /// What of its GPUs.
        uses: Vec<Used>,
        /// What has to be done to GPUs before.
        changes: Vec<Changed>,
        /// For whom.
        by: Option<String>,
    },
    /// A place was set aside for a pod.
    Keep(Held),
    /// A place is no longer set aside.
    GiveUp {
        /// The pod that was to have it.
        pod: String,
        /// The node.
        node: String,
    },
    /// A pod that was told to stop did; it waits again.
    Stopped {
        /// The pod.
        pod: String,
        /// The node where it ran.
        node: String,
    },
    /// A pod that moves left its old place.
    Left {
        /// The pod.
        pod: String,
        /// The node that it left.
        node: String,
    },
}

/// A part of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Part {
    /// A MIG partition.
    Mig {
        /// Its profile.
        profile: String,
        /// First slot.
        start: u8,
        /// Slots.
        size: u8,
    },
    /// A share under MPS.
    Mps {
        /// Its memory, MiB.
        memory_mib: u32,
    },
    /// A GPU or a time-sliced share.
    Share {
        /// Thousandths of the GPU.
        milli: u32,
    },
}

/// A part of a GPU that a pod gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Used {
    /// Index of the GPU.
    pub gpu: u8,
    /// What of it.
    #[serde(flatten)]
    pub part: Part,
    /// Whether it existed. None where nothing has to exist, or it is not there yet.
    pub warm: Option<bool>,
}

/// What has to be done to a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Changed {
    /// It is cut another way.
    Cut {
        /// Index of the GPU.
        gpu: u8,
        /// How it was cut.
        from: String,
        /// How it is cut.
        to: String,
    },
    /// A warm part goes.
    Destroy {
        /// Index of the GPU.
        gpu: u8,
        /// What goes.
        part: Part,
    },
}

/// A place that is set aside for a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// The pod.
    pub pod: String,
    /// The node.
    pub node: String,
    /// What of its GPUs.
    pub uses: Vec<Used>,
    /// Who has to leave before.
    pub waits_for: Vec<String>,
    /// When it ends, seconds since the start; none if only its pod can end it.
    pub until_s: Option<f64>,
    /// Why it has it.
    pub why: Why,
}

/// A pod that waits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waiting {
    /// The pod.
    pub pod: String,
    /// Its priority.
    pub priority: i32,
    /// What it asks for.
    pub asks: String,
    /// Why no node takes it now.
    pub reason: Option<Reason>,
    /// The place that is set aside for it.
    pub held: Option<Held>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuState {
    /// Its node.
    pub node: String,
    /// Its index there.
    pub gpu: u8,
    /// Its model.
    pub model: String,
    /// How it is cut.
    pub cut: String,
    /// Slots of its grid; 0 without MIG.
    pub slots: u8,
    /// Memory that it can promise under MPS, MiB.
    pub mps_mib: u32,
    /// What is on it, in order.
    pub parts: Vec<OnGpu>,
    /// Why it is set aside.
    pub fault: Option<String>,
}

/// Something on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnGpu {
    /// What.
    #[serde(flatten)]
    pub part: Part,
    /// Who uses it.
    pub user: User,
}

/// Who uses a part of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum User {
    /// Nobody: it is warm.
    Nobody,
    /// Somebody of whom nobody told.
    Unknown,
    /// A pod.
    Pod(String),
}

/// As in `bind a to n: GPU 0 3g.40gb at slot 4`.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mig { profile, start, .. } => write!(f, "{profile} at slot {start}"),
            Self::Mps { memory_mib } => write!(f, "{} under MPS", mebibytes(*memory_mib)),
            Self::Share { milli: 1000 } => f.write_str("whole"),
            Self::Share { milli } => write!(f, "{milli} milli-GPU"),
        }
    }
}

/// Memory in GiB where it is a whole number of them.
pub(super) fn mebibytes(mib: u32) -> String {
    if mib > 0 && mib.is_multiple_of(1024) { format!("{}Gi", mib / 1024) } else { format!("{mib}Mi") }
}
