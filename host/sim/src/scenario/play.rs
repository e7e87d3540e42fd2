//! A scenario, played with the real planner.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::{
    Action, Plan, Planner,
    model::{Demand, NodeId, NodeSpec, PodId},
    policy::{Cause, Partitioner},
    state::{Change, Claim, Event, Grant, Holder, Use},
};

use super::{
    Happening, Scenario,
    books::{Books, Owned},
    called,
    transcript::{Changed, Entry, GpuState, Held, NodeLine, OnGpu, Part, Step, Transcript, Used, User, Waiting},
};
use crate::{SimError, error::Fault, metrics::Failure, mix, workload::seconds};

/// Rounds at one time, beyond one for each pod, after which the planner is taken to chase its own tail.
const ROUNDS_MORE: usize = 100;

impl Scenario {
    /// Plays the scenario with a chain of policies, called `policy`: the first answers, and each next one only where the one before it gave no usable
    /// answer.
    ///
    /// # Errors
    /// [`SimError::Input`] if a step says that a pod stops which nobody told to; [`SimError::Books`] and [`SimError::Restless`] if the
    /// planner breaks its promises.
    pub fn play(&self, policy: &str, chain: &mut [&mut dyn Partitioner]) -> Result<Transcript, SimError> {
        let mut player = Player::new(self)?;
        let steps: Vec<Step> = self.steps.iter().map(|step| player.step(step, chain)).collect::<Result<_, _>>()?;
        let node = |node: &NodeSpec| NodeLine {
            name: node.name.clone(),
            cpu_milli: node.cpu_milli,
            memory_mib: node.memory_mib,
            models: models(node),
            partitioning: node.partitioning,
        };
        let nodes = self.nodes.iter().map(node).collect();
        Ok(Transcript {
            title: self.title.clone(),
            policy: policy.to_owned(),
            nodes,
            steps,
            failures: player.failures.into_values().collect(),
        })
    }
}

struct Player<'a> {
    scenario: &'a Scenario,
    planner: Planner,
    books: Books,
    /// The number of each pod that came, and the pod of each number.
    ids: Vec<Option<PodId>>,
    rows: Vec<usize>,
    /// Where pods are: at two places while they move, the one that they leave first.
    places: BTreeMap<PodId, Vec<(NodeId, Grant)>>,
    /// Pods that were told to stop or to move and have not.
    told: Vec<PodId>,
    lingers: BTreeSet<PodId>,
    failures: BTreeMap<Cause, Failure>,
    entries: Vec<Entry>,
}

impl<'a> Player<'a> {
    fn new(scenario: &'a Scenario) -> Result<Self, SimError> {
        let mut planner = Planner::new(scenario.config);
        for model in &scenario.models {
            planner.apply(Event::ModelSeen(model.clone()))?;
        }
        for (row, node) in scenario.nodes.iter().enumerate() {
            planner.apply(Event::NodeAdded(NodeId::new(row), node.clone()))?;
        }
        for (name, allowed) in &scenario.budgets {
            planner.apply(Event::Budget(name.clone(), Some(*allowed)))?;
        }
        let spellings: Vec<String> = scenario.pods.iter().map(|pod| pod.spec.demand.models.join("|")).collect();
        let demands = scenario.pods.iter().zip(&spellings).map(|(pod, spelling)| (&pod.spec.demand, spelling.as_str()));
        planner.apply(Event::MixChanged(mix::expected(demands)))?;
        let mut player = Self {
            scenario,
            planner,
            books: Books::default(),
            ids: vec![None; scenario.pods.len()],
            rows: Vec::new(),
            places: BTreeMap::new(),
            told: Vec::new(),
            lingers: BTreeSet::new(),
            failures: BTreeMap::new(),
            entries: Vec::new(),
        };
        for (row, pod) in scenario.pods.iter().enumerate() {
            if let Some((node, grant)) = &pod.runs {
                let id = player.number(row);
                player.planner.apply(Event::PodRuns(id, pod.spec.clone(), *node, grant.clone()))?;
                player.places.insert(id, vec![(*node, grant.clone())]);
            }
        }
        player.books = Books::of(player.planner.cluster());
        // Of shares the planner knows no users.
        for (&id, places) in &player.places {
            for (node, grant) in places {
                let shares = Grant(grant.0.iter().copied().filter(|part| matches!(part.1, Use::Share(_))).collect());
                player.books.give(node.index(), &shares, id);
            }
        }
        Ok(player)
    }

    /// The next number, for the pod in row `row`.
    fn number(&mut self, row: usize) -> PodId {
        let id = PodId::new(self.rows.len());
        self.rows.push(row);
        self.ids[row] = Some(id);
        id
    }

    fn step(&mut self, step: &Happening, chain: &mut [&mut dyn Partitioner]) -> Result<Step, SimError> {
        self.planner.apply(Event::Time(step.at_ms))?;
        for (name, allowed) in &step.budgets {
            self.planner.apply(Event::Budget(name.clone(), Some(*allowed)))?;
            self.entries.push(Entry::Budget { name: name.clone(), allowed: *allowed });
        }
        for id in step.ends.iter().filter_map(|&row| self.ids[row]).collect::<Vec<_>>() {
            self.end(id)?;
        }
        for &row in &step.stops {
            match self.ids[row].filter(|id| self.told.contains(id)) {
                Some(id) => self.go(id)?,
                None => return Err(self.never_told(row, step)),
            }
        }
        for &row in &step.arrives {
            let id = self.number(row);
            let spec = &self.scenario.pods[row].spec;
            self.planner.apply(Event::PodAdded(id, spec.clone()))?;
            self.entries.push(Entry::Came { pod: called(spec), priority: spec.priority, asks: asks(&spec.demand) });
        }
        self.lingers.extend(step.lingers.iter().filter_map(|&row| self.ids[row]));
        self.decide(step.at_ms, chain)?;
        if let Some((node, gpu, problem)) = self.books.differ(self.planner.cluster()) {
            let node = self.scenario.nodes[node].name.clone();
            return Err(SimError::Books { at_s: seconds(step.at_ms), node, gpu, problem });
        }
        let entries = std::mem::take(&mut self.entries);
        Ok(Step { at_s: step.at_ms as f64 / 1e3, entries, waiting: self.waiting(), gpus: self.gpus() })
    }

    fn never_told(&self, row: usize, step: &Happening) -> SimError {
        let remedy = "let it linger in the step in which it is told to, or take it from stops";
        let fault = Fault::new("was not told to stop or to move, or has done so already", remedy);
        fault.value(&called(&self.scenario.pods[row].spec)).column("stops").at(&self.scenario.file, step.line).into()
    }

    /// Lets the planner decide until it has nothing more to do.
    fn decide(&mut self, at_ms: u64, chain: &mut [&mut dyn Partitioner]) -> Result<(), SimError> {
        for round in 0.. {
            if round > self.scenario.pods.len() + ROUNDS_MORE {
                return Err(SimError::Restless { at_s: seconds(at_ms), rounds: round });
            }
            let before = self.claims();
            let plan = self.planner.round(chain);
            self.record_given_up(&before, &plan);
            self.record(plan);
            self.record_kept(&before);
            let going: Vec<PodId> = self.told.iter().copied().filter(|id| !self.lingers.contains(id)).collect();
            if going.is_empty() {
                break;
            }
            for id in going {
                self.go(id)?;
            }
        }
        Ok(())
    }

    /// Books what was decided.
    fn record(&mut self, plan: Plan) {
        for ((_, cause), faults) in plan.faults {
            let first = || Failure { cause: cause.name().into(), count: 0, example: faults.example };
            self.failures.entry(cause).or_insert_with(first).count += faults.count;
        }
        let mut changes = Vec::new();
        for action in plan.actions {
            match action {
                Action::Change { node, gpu, change } => changes.push(self.change(node, gpu, change)),
                Action::Evict { pod, node, by } => {
                    self.told.push(pod);
                    self.entries.push(Entry::Evict { pod: self.name(pod), node: self.node(node), by: self.name(by) });
                }
                Action::Bind { pod, node, grant } => {
                    let (uses, changes) = (self.give(pod, node, grant), std::mem::take(&mut changes));
                    self.entries.push(Entry::Bind { pod: self.name(pod), node: self.node(node), uses, changes });
                }
                Action::Move { pod, from, node, grant, by } => {
                    self.told.push(pod);
                    let (uses, changes) = (self.give(pod, node, grant), std::mem::take(&mut changes));
                    let (from, node, by) = (self.node(from), self.node(node), by.map(|by| self.name(by)));
                    self.entries.push(Entry::Move { pod: self.name(pod), from, node, uses, changes, by });
                }
            }
        }
    }

    fn change(&mut self, node: NodeId, gpu: u8, change: Change) -> Changed {
        let row = node.index();
        let used = match change {
            Change::Cut(to) => {
                let from = self.books.cut(row, gpu, to).to_string();
                return Changed::Cut { gpu, from, to: to.to_string() };
            }
            Change::Destroy(placement) => Use::Partition(placement),
            Change::Withdraw(memory_mib) => Use::Mps(memory_mib),
        };
        self.books.destroy(row, gpu, used);
        Changed::Destroy { gpu, part: self.part(row, gpu, used) }
    }

    fn give(&mut self, pod: PodId, node: NodeId, grant: Grant) -> Vec<Used> {
        let warm = self.books.give(node.index(), &grant, pod);
        let uses = grant.0.iter().zip(warm).map(|(&(gpu, used), warm)| Used { gpu, part: self.part(node.index(), gpu, used), warm });
        let uses = uses.collect();
        self.places.entry(pod).or_default().push((node, grant));
        uses
    }

    fn claims(&self) -> Vec<(PodId, Claim)> {
        self.planner.cluster().claims().map(|(pod, claim)| (pod, claim.clone())).collect()
    }

    /// Tells of places that were set aside `before`, no longer are, and that their pods did not get.
    fn record_given_up(&mut self, before: &[(PodId, Claim)], plan: &Plan) {
        let now = self.claims();
        let bound = |pod: PodId| plan.actions.iter().any(|action| matches!(action, Action::Bind { pod: other, .. } if *other == pod));
        for claim in before.iter().filter(|claim| !bound(claim.0) && !now.iter().any(|other| is_same(claim, other))) {
            self.entries.push(Entry::GiveUp { pod: self.name(claim.0), node: self.node(claim.1.node) });
        }
    }

    /// Tells of places that are set aside and were not `before`.
    fn record_kept(&mut self, before: &[(PodId, Claim)]) {
        for claim in self.claims().iter().filter(|claim| !before.iter().any(|other| is_same(claim, other))) {
            self.entries.push(Entry::Keep(self.held(claim.0, &claim.1)));
        }
    }

    /// A pod does what it was told to: one that was evicted stops and waits again, one that moves leaves its old place.
    fn go(&mut self, id: PodId) -> Result<(), SimError> {
        self.told.retain(|&other| other != id);
        self.lingers.remove(&id);
        let places = self.places.get_mut(&id).filter(|places| !places.is_empty());
        let Some((node, grant)) = places.map(|places| places.remove(0)) else { return Ok(()) };
        self.books.take_back(node.index(), &grant, id);
        let (pod, name) = (self.name(id), self.node(node));
        let moves = self.planner.cluster().pod(id).is_some_and(|pod| pod.leaving.is_some());
        if moves {
            self.entries.push(Entry::Left { pod, node: name });
            return Ok(self.planner.apply(Event::PodLeft(id))?);
        }
        self.entries.push(Entry::Stopped { pod, node: name });
        self.planner.apply(Event::PodRemoved(id))?;
        Ok(self.planner.apply(Event::PodAdded(id, self.scenario.pods[self.rows[id.index()]].spec.clone()))?)
    }

    /// A pod ends by itself.
    fn end(&mut self, id: PodId) -> Result<(), SimError> {
        self.told.retain(|&other| other != id);
        for (node, grant) in self.places.remove(&id).unwrap_or_default() {
            self.books.take_back(node.index(), &grant, id);
        }
        self.entries.push(Entry::Ended { pod: self.name(id) });
        Ok(self.planner.apply(Event::PodRemoved(id))?)
    }

    fn name(&self, id: PodId) -> String {
        called(&self.scenario.pods[self.rows[id.index()]].spec)
    }

    fn node(&self, id: NodeId) -> String {
        self.scenario.nodes[id.index()].name.clone()
    }

    fn part(&self, node: usize, gpu: u8, used: Use) -> Part {
        match used {
            Use::Share(milli) => Part::Share { milli },
            Use::Mps(memory_mib) => Part::Mps { memory_mib },
            Use::Partition(placement) => {
                let model = &self.scenario.nodes[node].gpus[usize::from(gpu)].model;
                let model = self.scenario.models.iter().find(|other| other.name == *model);
                let profile = model.and_then(|model| model.grid.as_ref()?.profiles.get(usize::from(placement.profile)));
                let (profile, size) = profile.map_or_else(|| (String::new(), 0), |profile| (profile.name.clone(), profile.size));
                Part::Mig { profile, start: placement.start, size }
            }
        }
    }

    fn held(&self, pod: PodId, claim: &Claim) -> Held {
        let used = |&(gpu, used): &(u8, Use)| Used { gpu, part: self.part(claim.node.index(), gpu, used), warm: None };
        Held {
            pod: self.name(pod),
            node: self.node(claim.node),
            uses: claim.grant.0.iter().map(used).collect(),
            waits_for: claim.waits_for.iter().map(|&pod| self.name(pod)).collect(),
            until_s: claim.until_ms.map(|ms| ms as f64 / 1e3),
            why: claim.why,
        }
    }

    fn waiting(&self) -> Vec<Waiting> {
        let cluster = self.planner.cluster();
        let ids = self.planner.queue().lanes().flat_map(|lane| self.planner.queue().pods(lane));
        let mut reasons = BTreeMap::new();
        let waiting = ids.filter_map(|id| {
            let pod = cluster.pod(id)?;
            let reason = reasons.entry(pod.demand).or_insert_with(|| self.planner.reason(pod.demand));
            Some(Waiting {
                pod: self.name(id),
                priority: pod.spec.priority,
                asks: asks(&pod.spec.demand),
                reason: reason.clone(),
                held: cluster.claim_of(id).map(|claim| self.held(id, claim)),
            })
        });
        waiting.collect()
    }

    fn gpus(&self) -> Vec<GpuState> {
        let cluster = self.planner.cluster();
        let mut all = Vec::new();
        for (row, (_, node)) in cluster.nodes().enumerate() {
            for (gpu, (picture, known)) in (0u8..).zip(self.books.0[row].iter().zip(&node.room.gpus)) {
                let mut parts: Vec<Owned> = picture.parts.clone();
                let start = |part: &Owned| if let Use::Partition(placement) = part.used { placement.start } else { 0 };
                parts.sort_by_key(|part| (start(part), part.holder.is_none(), *part));
                let user = |holder: Option<Holder>| match holder {
                    None => User::Nobody,
                    Some(Holder::Unknown) => User::Unknown,
                    Some(Holder::Pod(id)) => User::Pod(self.name(id)),
                };
                all.push(GpuState {
                    node: node.spec.name.clone(),
                    gpu,
                    model: node.spec.gpus[usize::from(gpu)].model.clone(),
                    cut: picture.cut.to_string(),
                    slots: cluster.models().slots(known.model) as u8,
                    mps_mib: cluster.models().mps_mib(known.model).unwrap_or(0),
                    parts: parts.iter().map(|part| OnGpu { part: self.part(row, gpu, part.used), user: user(part.holder) }).collect(),
                    fault: known.fault.as_ref().map(ToString::to_string),
                });
            }
        }
        all
    }
}

/// Whether two claims are of one pod to one place.
fn is_same(one: &(PodId, Claim), other: &(PodId, Claim)) -> bool {
    one.0 == other.0 && one.1.node == other.1.node && one.1.grant == other.1.grant
}

/// The GPUs of a node by model.
fn models(node: &NodeSpec) -> BTreeMap<String, usize> {
    let mut models = BTreeMap::new();
    for gpu in &node.gpus {
        *models.entry(gpu.model.clone()).or_default() += 1;
    }
    models
}

/// What a pod asks for.
fn asks(demand: &Demand) -> String {
    let models = demand.models.join(" or ");
    if models.is_empty() { demand.gpu.to_string() } else { format!("{} on {models}", demand.gpu) }
}
