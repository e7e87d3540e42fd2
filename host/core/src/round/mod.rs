//! One round of planning: events are applied, then everything that waits and fits is placed, and room is made for what does not fit.

mod make_room;
mod plan;
mod tidy;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use serde::{Deserialize, Serialize};

use crate::{
    explain::{self, Reason},
    model::{DemandId, NodeId, PodId},
    place::{self, Around, Choice, Rankings, Reuse},
    policy::{Cause, Partitioner, Revision},
    queue::{LaneKey, Queue},
    state::{Change, Cluster, Event, Refused, Why},
};
pub use plan::{Action, Faults, Plan};

/// How the planner decides, beside the policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Feeds the one random number that policies get with each decision.
    pub seed: u64,
    /// Whether warm partitions go before free slots.
    pub reuse: Reuse,
    /// The most pods that are moved to make room for one pod; 0 moves nobody.
    pub moves: u32,
    /// Whether pods of lower priority are evicted to make room.
    pub preempt: bool,
    /// How long a pod waits, milliseconds, before a place is kept free for it.
    pub patience_ms: u64,
    /// How long a place is kept free for a pod, milliseconds.
    pub hold_ms: u64,
    /// The most places that are kept free at a time; 0 keeps none.
    pub holds: u32,
}

impl Config {
    /// What a planner does that nobody told otherwise.
    pub const DEFAULT: Self =
        Self { seed: 0, reuse: Reuse::First, moves: 0, preempt: true, patience_ms: 300_000, hold_ms: 3_600_000, holds: 8 };
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The scheduler's decisions: cluster, queue and rankings.
#[derive(Debug, Default)]
pub struct Planner {
    config: Config,
    cluster: Cluster,
    queue: Queue,
    rankings: Rankings,
    /// State of the sequence from which seeds of decisions are drawn.
    seed: u64,
    /// The node at which the next look for pods to move begins.
    tidied: usize,
    /// Lanes for whose pods nobody could be moved, with the number of changes up to which that is known.
    unmoved: BTreeMap<LaneKey, u64>,
    /// Lanes for whose pods no room could be made, those that evict nobody apart, with the position in the journal up to which that is
    /// known.
    stuck: BTreeMap<(LaneKey, bool), make_room::Stuck>,
}

/// How often a round looks at the lanes again because a claim was given up, which may leave room for those it looked at before, or because
/// somebody was placed next to whom others must run. Claims are only given up to pods of higher priority, so few rounds need a third look;
/// what is left is done in the next round.
const PASSES_MAX: usize = 4;

/// No policy of the chain gave a usable answer.
struct Unanswered;

/// A lane that is to be looked at: the higher priority first, then the older pod.
type Head = Reverse<(Reverse<i32>, u64, DemandId)>;

impl Planner {
    /// An empty cluster.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, seed: config.seed, rankings: Rankings::new(config.reuse), ..Self::default() }
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
        for pod in self.cluster.take_rematched() {
            if let Some(known) = self.cluster.pod(pod) {
                self.queue.relane(pod, known.demand);
            }
        }
        if let Some(pod) = gone {
            self.queue.remove(pod);
        }
        Ok(())
    }

    /// Places everything that waits and fits, and makes room for what does not. The policies are a chain: the first answers, and each
    /// next one only where the one before it gave no usable answer.
    pub fn round(&mut self, policies: &mut [&mut dyn Partitioner]) -> Plan {
        let mut plan = Plan::default();
        self.cluster.begin_round();
        self.cluster.expire_claims();
        self.settle_claims(&mut plan);
        // What is known of lanes whose pods are gone is of no use to anybody.
        let queue = &self.queue;
        self.stuck.retain(|(lane, _), _| queue.head(*lane).is_some());
        self.unmoved.retain(|lane, _| queue.head(*lane).is_some());
        for _ in 0..PASSES_MAX {
            let (given_up, placed) = (self.cluster.given_up(), self.cluster.placed());
            self.pass(policies, &mut plan);
            // Those who must run next to others, or evenly, may now run next to whom the pass placed.
            let seeks = |&demand: &DemandId| self.cluster.demands().get(demand).near.as_ref().is_some_and(|near| near.seeks());
            let opened = self.cluster.placed() > placed && plan.waiting.iter().any(seeks);
            if self.cluster.given_up() == given_up && !opened {
                break;
            }
        }
        plan
    }

    /// Looks at every lane once, in order of priority and age.
    fn pass(&mut self, policies: &mut [&mut dyn Partitioner], plan: &mut Plan) {
        (plan.waiting, plan.unanswered) = (Vec::new(), 0);
        let mut heads: BinaryHeap<Head> = self.queue.lanes().filter_map(|lane| self.head(lane)).collect();
        let kept: Vec<PodId> = self.ready(Why::Reserved).collect();
        while let Some(Reverse((priority, _, demand))) = heads.pop() {
            let lane = (priority, demand);
            for &pod in &kept {
                if self.cluster.pod(pod).is_some_and(|pod| (Reverse(pod.spec.priority), pod.demand) == lane) {
                    self.settle(pod, plan);
                }
            }
            let Some((_, pod)) = self.queue.head(lane) else { continue };
            plan.decisions += 1;
            match self.choose(policies, demand, None, &mut plan.faults) {
                Ok(Some(choice)) => {
                    self.place(pod, choice, &mut plan.actions);
                    heads.extend(self.head(lane));
                }
                Ok(None) => {
                    self.make_room(lane, policies, plan);
                    if self.queue.head(lane).is_some() {
                        plan.waiting.push(demand);
                    }
                }
                Err(Unanswered) => {
                    plan.unanswered += self.queue.pods(lane).count();
                    plan.waiting.push(demand);
                }
            }
        }
    }

    /// Why pods of `demand` wait; none if a node can take one now.
    #[must_use]
    pub fn reason(&self, demand: DemandId) -> Option<Reason> {
        explain::reason(&self.cluster, demand)
    }

    /// The nodes that can take a pod of `demand` now, in the fixed order.
    #[must_use]
    pub fn feasible(&self, demand: DemandId) -> Vec<NodeId> {
        place::feasible(&self.cluster, demand)
    }

    /// How many pods of `demand` fit at once, counted up to `most`: see [`place::copies`].
    #[must_use]
    pub fn copies(&self, demand: DemandId, most: u32) -> u32 {
        place::copies(&self.cluster, demand, most)
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

    /// How it decides.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Forgets everything cached of a revision that is gone.
    pub fn forget(&mut self, revision: Revision) {
        self.rankings.forget(revision);
    }

    fn head(&self, lane: LaneKey) -> Option<Head> {
        self.queue.head(lane).map(|(arrival, _)| Reverse((lane.0, arrival, lane.1)))
    }

    /// Pods whose place has become free, of those that have their claim for this reason.
    fn ready(&self, why: Why) -> impl Iterator<Item = PodId> {
        self.cluster.claims().filter(move |(_, claim)| claim.why == why && claim.waits_for.is_empty()).map(|(pod, _)| pod)
    }

    /// Binds the pods for which room was made once it is there. Those for whom a place is kept get it when their turn comes.
    fn settle_claims(&mut self, plan: &mut Plan) {
        let ready = self.ready(Why::RoomMade);
        let mut ready: Vec<(Reverse<i32>, PodId)> =
            ready.filter_map(|pod| Some((Reverse(self.cluster.pod(pod)?.spec.priority), pod))).collect();
        ready.sort_unstable();
        for (_, pod) in ready {
            self.settle(pod, plan);
        }
    }

    /// Binds a pod whose claim waits for nobody. If its place is not free all the same and nobody is about to leave the node, a claim for
    /// which room was made ends; one for which a place is kept lasts until its time is over.
    fn settle(&mut self, pod: PodId, plan: &mut Plan) {
        let Some(claim) = self.cluster.claim_of(pod).filter(|claim| claim.waits_for.is_empty()).cloned() else { return };
        let Some((known, node)) = self.cluster.pod(pod).zip(self.cluster.node(claim.node)) else { return };
        let entry = self.cluster.demands().get(known.demand);
        let around = Around::of(&self.cluster, entry, None, None);
        if !entry.admitted(node, self.cluster.names()) || around.is_some_and(|around| !around.admits(claim.node)) {
            // What the node or its pods are has changed since: the pod may not run there any more.
            self.cluster.drop_claim(pod);
        } else if node.room.fits(self.cluster.models(), entry, &claim.grant) {
            plan.decisions += 1;
            self.place(pod, Choice { node: claim.node, grant: claim.grant }, &mut plan.actions);
        } else if claim.why == Why::RoomMade && self.cluster.awaited_on(claim.node).is_empty() {
            self.cluster.drop_claim(pod);
        }
    }

    /// The answer of the first policy that gives one, or that none did. A pod that moves `leaves` a node.
    fn choose(
        &mut self,
        policies: &mut [&mut dyn Partitioner],
        demand: DemandId,
        leaves: Option<NodeId>,
        faults: &mut BTreeMap<(Revision, Cause), Faults>,
    ) -> Result<Option<Choice>, Unanswered> {
        let seed = self.draw();
        for policy in policies {
            match self.rankings.choose(&self.cluster, *policy, demand, leaves, seed) {
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
        let Choice { node, grant } = choice;
        let changes = self.cluster.assume(pod, node, grant.clone());
        self.queue.remove(pod);
        actions.extend(changes_on(node, changes));
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

/// What has to be done to GPUs of a node, as actions.
fn changes_on(node: NodeId, changes: Vec<(u8, Change)>) -> impl Iterator<Item = Action> {
    changes.into_iter().map(move |(gpu, change)| Action::Change { node, gpu, change })
}
