//! A cluster that random events change, beside a second set of books that knows nothing but events and actions.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod board;
pub(crate) mod draw;
mod ledger;

use std::collections::{BTreeMap, BTreeSet};

use partita_core::{
    Action, Config, Planner,
    model::{Demand, GpuAsk, NodeId, NodeSpec, PodId, PodSpec, catalog},
    policy::{Candidates, Fault, Partitioner, Reads, Revision, View},
    state::{Claim, Event, Grant, Holder, Use, Why},
};

use draw::{NODES_MAX, Step};
use ledger::Ledger;

/// Scores by a fixed function of what it sees of a node and a place.
pub(crate) struct Mixer {
    pub(crate) reads: Reads,
}

impl Mixer {
    /// Its answers are kept until the node changes.
    pub(crate) fn cached() -> Self {
        Self { reads: Reads { seed: false, mix: false } }
    }

    /// It is asked about every node, each time.
    pub(crate) fn fresh() -> Self {
        Self { reads: Reads { seed: true, mix: true } }
    }
}

impl Partitioner for Mixer {
    fn revision(&self) -> Revision {
        Revision(1)
    }

    fn reads(&self) -> Reads {
        self.reads
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(&mut self, view: &View<'_>, demand: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        let cpu = view.demands.cpu[demand as usize];
        scores.extend((0..candidates.node.len()).map(|row| {
            let node = candidates.node[row] as usize;
            let gpu = view.gpus.free.get(candidates.gpu[row] as usize).copied().unwrap_or(7);
            let mixed = view.nodes.cpu_free[node].wrapping_mul(31)
                ^ gpu.wrapping_mul(17)
                ^ candidates.slot[row]
                ^ candidates.milli[row]
                ^ cpu
                ^ view.nodes.gpu_pods[node];
            (mixed % 13).cast_signed()
        }));
        Ok(())
    }

    fn refused(&mut self, fault: &Fault) {
        panic!("{fault}");
    }
}

/// A planner, what it was told, and the books that its actions lead to.
pub(crate) struct World {
    pub(crate) planner: Planner,
    pub(crate) ledger: Ledger,
    pub(crate) specs: BTreeMap<u32, PodSpec>,
    nodes: Vec<NodeSpec>,
    /// Told to stop and still there.
    pub(crate) stopping: BTreeSet<u32>,
    /// Moved and still at the old place, too.
    pub(crate) moving: BTreeSet<u32>,
    /// Since when a pod is where it is.
    since: BTreeMap<u32, u64>,
    /// What is left of each disruption budget.
    budgets: BTreeMap<String, u32>,
    now_ms: u64,
    /// Every plan, as it would be written.
    pub(crate) written: Vec<String>,
}

impl World {
    pub(crate) fn new(config: Config, nodes: &[NodeSpec]) -> Self {
        let mut world = Self {
            planner: Planner::new(config),
            ledger: Ledger::default(),
            specs: BTreeMap::new(),
            nodes: nodes.to_vec(),
            stopping: BTreeSet::new(),
            moving: BTreeSet::new(),
            since: BTreeMap::new(),
            budgets: BTreeMap::new(),
            now_ms: 0,
            written: Vec::new(),
        };
        for model in draw::MODELS {
            world.planner.apply(Event::ModelSeen(catalog::builtin(model).unwrap())).unwrap();
        }
        for row in 0..nodes.len() {
            world.node_comes(row);
        }
        world
    }

    fn node_comes(&mut self, row: usize) {
        let Some(spec) = self.nodes.get(row).cloned() else { return };
        if self.planner.cluster().node(NodeId::new(row)).is_none() {
            self.ledger.node_comes(NodeId::new(row), &spec);
            self.planner.apply(Event::NodeAdded(NodeId::new(row), spec)).unwrap();
        }
    }

    fn free_id(&self) -> u32 {
        (0..=self.specs.len() as u32).find(|id| !self.specs.contains_key(id)).unwrap()
    }

    /// Tells of one step.
    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Arrive(spec) => {
                let id = self.free_id();
                let spec = PodSpec { name: format!("pod-{id}"), ..spec.clone() };
                self.planner.apply(Event::PodAdded(PodId(id), spec.clone())).unwrap();
                self.specs.insert(id, spec);
            }
            Step::Runs(spec, which) => self.turns_out(spec, *which),
            Step::Leave(which) => self.pick(*which, |world| world.specs.keys().copied().collect(), Self::goes),
            Step::Stopped(which) => self.pick(*which, |world| world.stopping.iter().copied().collect(), Self::goes),
            Step::Left(which) => self.pick(*which, |world| world.moving.iter().copied().collect(), Self::left),
            Step::Time(ms) => {
                self.now_ms += ms;
                self.planner.apply(Event::Time(self.now_ms)).unwrap();
            }
            Step::Budget(name, allowed) => {
                match allowed {
                    Some(allowed) => drop(self.budgets.insert(name.clone(), *allowed)),
                    None => drop(self.budgets.remove(name)),
                }
                self.planner.apply(Event::Budget(name.clone(), *allowed)).unwrap();
            }
            Step::NodeGone(row) => {
                let id = NodeId::new(*row % NODES_MAX);
                let known = self.planner.cluster().node(id).is_some();
                assert_eq!(self.planner.apply(Event::NodeRemoved(id)).is_ok(), known);
                self.ledger.node_goes(id);
            }
            Step::NodeBack(row) => self.node_comes(*row % NODES_MAX),
        }
    }

    fn pick(&mut self, which: proptest::sample::Index, of: impl Fn(&Self) -> Vec<u32>, act: impl Fn(&mut Self, u32)) {
        let all = of(self);
        if !all.is_empty() {
            let id = all[which.index(all.len())];
            act(self, id);
        }
    }

    /// A pod ends.
    pub(crate) fn goes(&mut self, id: u32) {
        self.planner.apply(Event::PodRemoved(PodId(id))).unwrap();
        self.ledger.pod_goes(PodId(id));
        self.specs.remove(&id);
        self.stopping.remove(&id);
        self.moving.remove(&id);
        self.since.remove(&id);
    }

    /// A pod that moved has left its old place.
    pub(crate) fn left(&mut self, id: u32) {
        self.planner.apply(Event::PodLeft(PodId(id))).unwrap();
        self.ledger.pod_left(PodId(id));
        self.moving.remove(&id);
    }

    /// The user of a partition that was found in use becomes known.
    fn turns_out(&mut self, spec: &PodSpec, which: proptest::sample::Index) {
        let unknown = self.ledger.unknown();
        if unknown.is_empty() {
            return;
        }
        let (node, gpu, used) = unknown[which.index(unknown.len())];
        let known = self.planner.cluster().node(node).unwrap();
        let gpu_model = &known.spec.gpus[usize::from(gpu)].model;
        let ask = match used {
            Use::Partition(place) => {
                let grid = catalog::builtin(gpu_model).unwrap().grid.unwrap();
                GpuAsk::mig(&grid.profiles[usize::from(place.profile)].name)
            }
            Use::Mps(memory_mib) => GpuAsk::Mps { memory_mib },
            Use::Share(_) => return,
        };
        let demand = Demand { cpu_milli: 0, memory_mib: 0, gpu: ask, models: Vec::new(), ..Demand::default() };
        let (id, grant) = (self.free_id(), Grant(vec![(gpu, used)]));
        let spec = PodSpec { name: format!("pod-{id}"), demand, ..spec.clone() };
        self.planner.apply(Event::PodRuns(PodId(id), spec.clone(), node, grant.clone())).unwrap();
        self.ledger.turns_out(PodId(id), node, &grant);
        self.since.insert(id, self.now_ms);
        self.specs.insert(id, spec);
    }

    /// One round, with everything checked that its actions must keep to.
    pub(crate) fn round(&mut self, policy: &mut Mixer) -> usize {
        let plan = self.planner.round(&mut [policy]);
        let mut moved_for: BTreeMap<PodId, u32> = BTreeMap::new();
        for action in &plan.actions {
            match action {
                Action::Change { node, gpu, change } => self.ledger.changes(*node, *gpu, *change),
                Action::Bind { pod, node, grant } => {
                    self.ledger.takes(*pod, &self.specs[&pod.0].demand, *node, grant);
                    self.since.insert(pod.0, self.now_ms);
                }
                Action::Evict { pod, node, by } => {
                    self.disturbs(*pod, *node);
                    let (victim, claimant) = (&self.specs[&pod.0], &self.specs[&by.0]);
                    assert!(self.planner.config().preempt && !claimant.terms.never_preempts, "{by:?} evicts nobody");
                    assert!(victim.priority < claimant.priority, "{pod:?} has too high a priority to go for {by:?}");
                    assert!(self.stopping.insert(pod.0), "{pod:?} was told before");
                }
                Action::Move { pod, from, node, grant, by } => {
                    self.disturbs(*pod, *from);
                    assert!(self.specs[&pod.0].terms.restartable, "{pod:?} may not be restarted");
                    let count = moved_for.entry(by.unwrap()).or_default();
                    *count += 1;
                    assert!(*count <= self.planner.config().moves, "too many moves for {by:?}");
                    self.ledger.leaves(*pod);
                    self.ledger.takes(*pod, &self.specs[&pod.0].demand, *node, grant);
                    self.since.insert(pod.0, self.now_ms);
                    assert!(self.moving.insert(pod.0), "{pod:?} moves already");
                }
            }
        }
        self.written.push(serde_json::to_string(&plan.actions).unwrap());
        self.ledger.compare(self.planner.cluster());
        self.check_beneficiaries(&plan.actions);
        self.check_minimal(&plan.actions);
        plan.actions.len()
    }

    /// A running pod may be stopped or moved: it ran long enough, its budgets allow it, and it was not told before.
    fn disturbs(&mut self, pod: PodId, node: NodeId) {
        let spec = &self.specs[&pod.0];
        assert_eq!(self.ledger.node_of(pod), Some(node));
        assert!(!self.stopping.contains(&pod.0) && !self.moving.contains(&pod.0), "{pod:?} is on its way already");
        assert!(self.now_ms - self.since[&pod.0] >= spec.terms.min_runtime_ms, "{pod:?} was promised more time");
        for name in &spec.terms.budgets {
            if let Some(left) = self.budgets.get_mut(name) {
                assert!(*left > 0, "budget {name} is used up");
                *left -= 1;
            }
        }
    }

    /// Nobody goes for nothing: who others go for runs or has a claim there, unless a pod of higher priority took it in the same round.
    fn check_beneficiaries(&self, actions: &[Action]) {
        for action in actions {
            let (by, node) = match action {
                Action::Evict { node, by, .. } => (*by, *node),
                Action::Move { from, by, .. } => (by.unwrap(), *from),
                _ => continue,
            };
            let priority = self.specs[&by.0].priority;
            let claims = self.planner.cluster().claim_of(by).is_some_and(|claim| claim.node == node);
            let runs = self.ledger.node_of(by) == Some(node);
            let overruled =
                self.planner.cluster().claims().any(|(pod, claim)| claim.node == node && self.specs[&pod.0].priority > priority);
            assert!(claims || runs || overruled, "pods went for {by:?}, which has nothing of it");
        }
    }

    /// Had any one of those who were told to stop stayed, the pod for which they go would not fit there.
    fn check_minimal(&self, actions: &[Action]) {
        let evictions: Vec<(PodId, PodId)> =
            actions.iter().filter_map(|action| if let Action::Evict { pod, by, .. } = action { Some((*pod, *by)) } else { None }).collect();
        let by: BTreeSet<PodId> = evictions.iter().map(|one| one.1).collect();
        let moves = actions.iter().any(|action| matches!(action, Action::Move { .. }));
        let (1, false) = (by.len(), moves) else { return };
        let by = evictions[0].1;
        // One that lost the place to a pod of higher priority, and got another, says nothing of this.
        let Some(claim) = self.planner.cluster().claim_of(by).filter(|claim| claim.why == Why::RoomMade) else { return };
        if actions.iter().any(|action| matches!(action, Action::Evict { node, .. } if *node != claim.node)) {
            return;
        }
        // Beside a place that is kept for a pod of at least its priority there may be room once others have ended; it need not wait for that.
        let priority = |pod: PodId| self.specs[&pod.0].priority;
        let kept = |(pod, other): (PodId, &Claim)| other.node == claim.node && other.why == Why::Reserved && priority(pod) >= priority(by);
        if self.planner.cluster().claims().any(kept) {
            return;
        }
        for &(stays, _) in &evictions {
            // Without them gone not even those fit who have another claim there: they are needed all the more.
            let Some(board) = self.board_later(claim, by, Some(stays)) else { continue };
            assert!(!board.fits_somewhere(&self.specs[&by.0].demand), "{stays:?} goes for {by:?} in vain: {actions:?}");
        }
        let without = self.board_later(claim, by, None).expect("claims fit when those have left who leave");
        assert!(without.fits_somewhere(&self.specs[&by.0].demand), "those who go for {by:?} do not make room: {actions:?} {claim:?}");
    }

    /// The node of a claim when all have left who leave it, except `stays`, and all others have come for whom room was made; none if
    /// they do not fit.
    fn board_later(&self, claim: &Claim, by: PodId, stays: Option<PodId>) -> Option<board::Board> {
        let cluster = self.planner.cluster();
        let node = cluster.node(claim.node).unwrap();
        let mut board = board::Board::of(cluster, node, &node.room);
        for (pod, grant) in self.ledger.leaving_from(claim.node, &self.stopping) {
            if Some(pod) != stays {
                board.gives_back(&self.specs[&pod.0].demand, &grant);
            }
        }
        for (pod, other) in cluster.claims() {
            if pod != by && other.node == claim.node && other.why == Why::RoomMade {
                let fits = board.takes(&self.specs[&pod.0].demand, &other.grant);
                if !fits {
                    return None;
                }
            }
        }
        Some(board)
    }

    /// Lets everybody go who was told to, round after round, until nothing happens any more.
    pub(crate) fn settle(&mut self, policy: &mut Mixer) {
        for _ in 0..60 {
            for id in self.stopping.clone() {
                self.goes(id);
            }
            for id in self.moving.clone() {
                self.left(id);
            }
            let claims: Vec<(PodId, Claim)> = self.planner.cluster().claims().map(|(pod, claim)| (pod, claim.clone())).collect();
            if self.round(policy) == 0 {
                let after: Vec<(PodId, Claim)> = self.planner.cluster().claims().map(|(pod, claim)| (pod, claim.clone())).collect();
                if claims == after {
                    return;
                }
            }
        }
        panic!("evictions and moves do not end: {:?}", self.written.last());
    }
}

/// Whether a partition is somebody's that nobody told of.
pub(crate) fn is_unknown(holder: Option<Holder>) -> bool {
    holder == Some(Holder::Unknown)
}
