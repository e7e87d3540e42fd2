//! What a round decided.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    model::{DemandId, NodeId, PodId},
    policy::{Cause, Fault, Revision},
    state::{Change, Grant},
};

/// What the outside shall do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Change a GPU, before the bind that follows.
    Change {
        /// Its node.
        node: NodeId,
        /// Index of the GPU.
        gpu: u8,
        /// What to do.
        change: Change,
    },
    /// Run a pod.
    Bind {
        /// The pod.
        pod: PodId,
        /// Its node.
        node: NodeId,
        /// What it uses of the node's GPUs.
        grant: Grant,
    },
    /// Stop a pod. It keeps its place until [`crate::state::Event::PodRemoved`] tells that it is gone.
    Evict {
        /// The pod.
        pod: PodId,
        /// Its node.
        node: NodeId,
        /// The pod that gets its place.
        by: PodId,
    },
    /// Stop a pod and start it again elsewhere. It keeps its old place until [`crate::state::Event::PodLeft`].
    Move {
        /// The pod.
        pod: PodId,
        /// The node that it leaves.
        from: NodeId,
        /// The node where it goes.
        node: NodeId,
        /// What it uses there.
        grant: Grant,
        /// The pod that gets its old place; none where it moves to tidy up.
        by: Option<PodId>,
    },
}

impl Plan {
    /// Counts a decision that a policy failed at.
    pub(super) fn count(&mut self, revision: Revision, fault: &Fault) {
        let first = || Faults { count: 0, example: fault.detail.clone() };
        self.faults.entry((revision, fault.cause)).or_insert_with(first).count += 1;
    }
}

/// Decisions of one round that a policy failed at in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// How many.
    pub count: usize,
    /// What the first of them said.
    pub example: String,
}

/// What one round decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they must take effect.
    pub actions: Vec<Action>,
    /// Demands of pods that still wait, by priority. [`crate::Planner::reason`] says why.
    pub waiting: Vec<DemandId>,
    /// Decisions for which a policy gave no usable answer, so that the next of the chain was asked.
    pub faults: BTreeMap<(Revision, Cause), Faults>,
    /// Pods that no policy of the chain answered for. They wait.
    pub unanswered: usize,
    /// Decisions taken: pods placed and demands found to have no place.
    pub decisions: usize,
}
