//! What the scheduler wants done to the API server, and how it went: plain data, so that the brain can be tested without a server and a
//! dry run can print it.

use serde::Serialize;

use crate::crd::GpuNodeSpec;

/// A pod as the API server knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Tells it from an earlier or later pod of that name.
    pub uid: String,
}

/// A claim of a pod on a volume, to be settled before the pod is bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum VolumeChoice {
    /// The provisioner makes a volume that the node can reach: the claim is told which node.
    Provision {
        /// Name of the claim, in the pod's namespace.
        claim: String,
        /// The node.
        node: String,
        /// The claim's version that this was decided on: whoever changed it since was faster.
        version: String,
    },
    /// A volume that is there is given to the claim.
    Take {
        /// Name of the claim, in the pod's namespace.
        claim: String,
        /// The claim's uid.
        uid: String,
        /// Name of the volume.
        volume: String,
        /// The volume's version that this was decided on: whoever changed it since was faster.
        version: String,
    },
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Effect {
    /// Tell a node's agent the layout that its GPUs shall have.
    Layout {
        /// The node.
        node: String,
        /// The uid of its `GpuNode`: one that is gone is not made anew, which is its agent's business.
        uid: String,
        /// The whole layout.
        spec: GpuNodeSpec,
    },
    /// Settle the volumes of a pod that is about to be bound.
    Volumes {
        /// The pod.
        pod: PodName,
        /// The node that it goes to.
        node: String,
        /// One for each claim that has no volume yet.
        choices: Vec<VolumeChoice>,
    },
    /// Bind a pod.
    Bind {
        /// The pod.
        pod: PodName,
        /// The node.
        node: String,
        /// What it uses of the node's GPUs, for the annotation; none for a pod without GPU.
        grant: Option<String>,
    },
    /// See whether a pod has a node, by a read that is not older than this wish.
    Look {
        /// The pod.
        pod: PodName,
        /// The node that it may have been bound to.
        node: String,
    },
    /// Stop a pod, as its disruption budgets allow.
    Evict {
        /// The pod.
        pod: PodName,
        /// For whom, for a person.
        by: String,
    },
    /// Say of a pod that room is being made for it on a node.
    Nominate {
        /// The pod.
        pod: PodName,
        /// The node; empty if that is so no longer.
        node: String,
    },
    /// Say of a pod why it waits.
    Explain {
        /// The pod.
        pod: PodName,
        /// For programs: `Unschedulable` if another node might help, as autoscalers read it.
        reason: &'static str,
        /// For a person, and for programs that look at its beginning.
        message: String,
        /// Whether the pod was not told before that it is not scheduled.
        turns: bool,
    },
}

impl Effect {
    /// That it went like this.
    #[must_use]
    pub fn ends(self, outcome: Outcome) -> Done {
        match self {
            Self::Layout { node, spec, .. } => Done::Layout { node, generation: spec.generation, outcome },
            Self::Volumes { pod, node, .. } => Done::Volumes { pod, node, outcome },
            Self::Bind { pod, node, .. } => Done::Bind { pod, node, outcome },
            Self::Look { pod, node } => {
                let found = if outcome == Outcome::Done { Ok(Some(node.clone())) } else { Err(outcome) };
                Done::Look { pod, node, found }
            }
            Self::Evict { pod, .. } => Done::Evict { pod, outcome },
            Self::Nominate { pod, .. } | Self::Explain { pod, .. } => Done::Told { pod, outcome },
        }
    }
}

/// How something went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// The object is gone, or is another one of the same name.
    Gone,
    /// It cannot be done in the state that the object is in: the pod has a node already, or its budget allows no eviction now.
    Conflict(String),
    /// The API server could not be reached or was too busy: nothing is known of what it did.
    Unknown(String),
    /// The API server refused it and would again.
    Refused(String),
    /// The fence is closed: this process leads no longer.
    Fenced,
}

impl Outcome {
    /// A word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Gone => "gone",
            Self::Conflict(_) => "conflict",
            Self::Unknown(_) => "unknown",
            Self::Refused(_) => "refused",
            Self::Fenced => "fenced",
        }
    }
}

/// What went how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// [`Effect::Layout`], with the generation written.
    Layout {
        /// The node.
        node: String,
        /// The generation written.
        generation: i64,
        /// How it went.
        outcome: Outcome,
    },
    /// [`Effect::Volumes`].
    Volumes {
        /// The pod.
        pod: PodName,
        /// The node.
        node: String,
        /// How it went.
        outcome: Outcome,
    },
    /// [`Effect::Bind`].
    Bind {
        /// The pod.
        pod: PodName,
        /// The node.
        node: String,
        /// How it went.
        outcome: Outcome,
    },
    /// [`Effect::Look`].
    Look {
        /// The pod.
        pod: PodName,
        /// The node that it may have been bound to.
        node: String,
        /// The node that it has, if any; or why nobody can say.
        found: Result<Option<String>, Outcome>,
    },
    /// [`Effect::Evict`].
    Evict {
        /// The pod.
        pod: PodName,
        /// How it went.
        outcome: Outcome,
    },
    /// [`Effect::Explain`] or [`Effect::Nominate`].
    Told {
        /// The pod.
        pod: PodName,
        /// How it went.
        outcome: Outcome,
    },
}

impl Done {
    /// How it went.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        match self {
            Self::Layout { outcome, .. }
            | Self::Volumes { outcome, .. }
            | Self::Bind { outcome, .. }
            | Self::Evict { outcome, .. }
            | Self::Told { outcome, .. }
            | Self::Look { found: Err(outcome), .. } => outcome,
            Self::Look { found: Ok(_), .. } => &Outcome::Done,
        }
    }
}
