//! One round of planning: events are applied, then everything that waits and fits is placed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use serde::Serialize;

use crate::{
    explain::{self, Reason},
    model::{DemandId, NodeId, Placement, PodId},
    place::{Choice, Rankings},
    policy::{Cause, Partitioner, Revision},
    queue::{LaneKey, Queue},
    state::{Cluster, Event, Grant, Refused},
};

/// What the outside shall do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Destroy a warm partition, before the bind that follows.
    Destroy {
        /// Its node.
        node: NodeId,
        /// Index of its GPU.
        gpu: u8,
        /// Where it lies.
        placement: Placement,
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
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In the order in which they must take effect.
    pub actions: Vec<Action>,
    /// Demands of pods that still wait, by priority. [`Planner::reason`] says why.
    pub waiting: Vec<DemandId>,
    /// Decisions for which a policy gave no usable answer, so that the next of the chain was asked.
    pub faults: BTreeMap<(Revision, Cause), Faults>,
    /// Pods that no policy of the chain answered for. They wait.
    pub unanswered: usize,
    /// Decisions taken: pods placed and demands found to have no place.
    pub decisions: usize,
}

/// The scheduler's decisions: cluster, queue and rankings.
#[derive(Debug, Default)]
pub struct Planner {
    cluster: Cluster,
    queue: Queue,
    rankings: Rankings,
    /// State of the sequence from which seeds of decisions are drawn.
    seed: u64,
}

/// No policy of the chain gave a usable answer.
struct Unanswered;

impl Planner {
    /// An empty cluster. `seed` feeds the one random number that policies get with each decision.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Applies one event.
    ///
    /// # Errors
    /// [`Refused`] when the event contradicts what is known; then nothing changed.
    pub fn apply(&mut self, event: Event) -> Result<(), Refused> {
        let gone = if let Event::PodRemoved(pod) = event { Some(pod) } else { None };
        if let Some(pod) = self.cluster.apply(event)?
            && let Some(known) = self.cluster.pod(pod)
        {
            self.queue.push(pod, known.spec.priority, known.demand);
        }
        if let Some(pod) = gone {
            self.queue.remove(pod);
        }
        Ok(())
    }

    /// Places everything that waits and fits. The policies are a chain: the first answers, and each next one only where the one before
    /// it gave no usable answer.
    pub fn round(&mut self, policies: &mut [&mut dyn Partitioner]) -> Plan {
        let mut plan = Plan::default();
        let mut heads: BinaryHeap<Reverse<(Reverse<i32>, u64, DemandId)>> = self.queue.lanes().filter_map(|lane| self.head(lane)).collect();
        while let Some(Reverse((priority, _, demand))) = heads.pop() {
            let lane = (priority, demand);
            let Some((_, pod)) = self.queue.head(lane) else { continue };
            plan.decisions += 1;
            match self.choose(policies, demand, &mut plan.faults) {
                Ok(Some(choice)) => {
                    self.place(pod, choice, &mut plan.actions);
                    heads.extend(self.head(lane));
                }
                Ok(None) => plan.waiting.push(demand),
                Err(Unanswered) => {
                    plan.unanswered += self.queue.pods(lane).count();
                    plan.waiting.push(demand);
                }
            }
        }
        plan
    }

    /// Why pods of `demand` wait; none if a node can take one now.
    #[must_use]
    pub fn reason(&self, demand: DemandId) -> Option<Reason> {
        explain::reason(&self.cluster, demand)
    }

    /// The cluster as events told it.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Pods that wait.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Forgets everything cached of a revision that is gone.
    pub fn forget(&mut self, revision: Revision) {
        self.rankings.forget(revision);
    }

    fn head(&self, lane: LaneKey) -> Option<Reverse<(Reverse<i32>, u64, DemandId)>> {
        self.queue.head(lane).map(|(arrival, _)| Reverse((lane.0, arrival, lane.1)))
    }

    /// The answer of the first policy that gives one, or that none did.
    fn choose(
        &mut self,
        policies: &mut [&mut dyn Partitioner],
        demand: DemandId,
        faults: &mut BTreeMap<(Revision, Cause), Faults>,
    ) -> Result<Option<Choice>, Unanswered> {
        let seed = self.draw();
        for policy in policies {
            match self.rankings.choose(&self.cluster, *policy, demand, seed) {
                Ok(choice) => return Ok(choice),
                Err(fault) => {
                    let first = || Faults { count: 0, example: fault.detail.clone() };
                    faults.entry((policy.revision(), fault.cause)).or_insert_with(first).count += 1;
                }
            }
        }
        Err(Unanswered)
    }

    fn place(&mut self, pod: PodId, choice: Choice, actions: &mut Vec<Action>) {
        let Choice { node, grant, .. } = choice;
        let destroyed = self.cluster.assume(pod, node, grant.clone());
        self.queue.remove(pod);
        actions.extend(destroyed.into_iter().map(|(gpu, placement)| Action::Destroy { node, gpu, placement }));
        actions.push(Action::Bind { pod, node, grant });
    }

    /// The next seed: `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014), of which the upper half is used.
    fn draw(&mut self) -> u32 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 32) as u32
    }
}
