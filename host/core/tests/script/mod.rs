//! A small cluster told in few words.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;

use partita_core::{
    Action, Config, Planner,
    model::{Cut, Demand, GpuAsk, GpuSpec, NodeId, NodeSpec, PodId, PodSpec, Terms, catalog},
    policy::{Candidates, Cause, Fault, Movable, Moves, Partitioner, Reads, Revision, View},
    state::{Claim, Event, Grant, Use},
};

/// Likes every place alike.
pub(crate) struct Zeros;

impl Partitioner for Zeros {
    fn revision(&self) -> Revision {
        Revision(0)
    }

    fn reads(&self) -> Reads {
        Reads { seed: false, mix: false }
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(&mut self, _: &View<'_>, _: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        scores.resize(candidates.node.len(), 0);
        Ok(())
    }

    fn refused(&mut self, fault: &Fault) {
        panic!("{fault}");
    }
}

/// Proposes moves of (pod row, node row), whatever the question, and counts how often it was refused.
pub(crate) struct Mover(pub(crate) Vec<(u32, u32)>, pub(crate) usize);

impl Partitioner for Mover {
    fn revision(&self) -> Revision {
        Revision(9)
    }

    fn reads(&self) -> Reads {
        Reads { seed: false, mix: false }
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(&mut self, _: &View<'_>, _: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        scores.resize(candidates.node.len(), 0);
        Ok(())
    }

    fn choose_moves(&mut self, view: &View<'_>, mix: u32, pods: &Movable<'_>, _: u32) -> Result<Moves, Fault> {
        assert!(pods.demand.iter().all(|&demand| demand >= mix && (demand as usize) < view.demands.cpu.len()));
        assert!(pods.node.iter().all(|&node| (node as usize) < view.nodes.cpu_free.len()));
        Ok(Moves { pod: self.0.iter().map(|one| one.0).collect(), node: self.0.iter().map(|one| one.1).collect() })
    }

    fn refused(&mut self, fault: &Fault) {
        assert_eq!(fault.cause, Cause::Invalid);
        self.1 += 1;
    }
}

pub(crate) fn mig(profile: &str) -> GpuAsk {
    GpuAsk::mig(profile)
}

pub(crate) fn whole(count: u32) -> GpuAsk {
    GpuAsk::whole(count)
}

/// A planner with its nodes by name.
pub(crate) struct Script {
    pub(crate) planner: Planner,
    nodes: BTreeMap<String, NodeId>,
    specs: BTreeMap<u32, (PodSpec, NodeId, Grant)>,
}

impl Script {
    /// Nodes, each with so many GPUs of a model cut by MIG, and room for any number of pods.
    pub(crate) fn new(config: Config, nodes: &[(&str, &str, usize)]) -> Self {
        Self::cut(config, nodes, Cut::Mig)
    }

    pub(crate) fn with_shares(config: Config, nodes: &[(&str, &str, usize)]) -> Self {
        Self::cut(config, nodes, Cut::Shares)
    }

    fn cut(config: Config, nodes: &[(&str, &str, usize)], cut: Cut) -> Self {
        let specs = nodes.iter().map(|(name, model, count)| NodeSpec {
            name: (*name).into(),
            cpu_milli: 100_000,
            memory_mib: 100_000,
            gpus: vec![GpuSpec::new(model, cut); *count],
            ..NodeSpec::default()
        });
        Self::of(config, specs)
    }

    pub(crate) fn of(config: Config, nodes: impl IntoIterator<Item = NodeSpec>) -> Self {
        let mut script = Self { planner: Planner::new(config), nodes: BTreeMap::new(), specs: BTreeMap::new() };
        for (row, spec) in nodes.into_iter().enumerate() {
            for gpu in &spec.gpus {
                script.planner.apply(Event::ModelSeen(catalog::builtin(&gpu.model).unwrap())).unwrap();
            }
            script.nodes.insert(spec.name.clone(), NodeId::new(row));
            script.planner.apply(Event::NodeAdded(NodeId::new(row), spec)).unwrap();
        }
        script
    }

    fn spec(pod: u32, gpu: GpuAsk, priority: i32) -> PodSpec {
        let demand = Demand { cpu_milli: 0, memory_mib: 0, gpu, models: Vec::new(), ..Demand::default() };
        PodSpec { name: format!("pod-{pod}"), namespace: "team".into(), priority, demand, terms: Terms::default(), ..PodSpec::default() }
    }

    /// A pod that runs, on partitions of (GPU, first slot, profile).
    pub(crate) fn runs(&mut self, pod: u32, node: &str, gpu: GpuAsk, priority: i32, uses: &[(u8, u8, &str)]) -> &mut Self {
        let id = self.nodes[node];
        let model = &self.planner.cluster().node(id).unwrap().spec.gpus[0].model;
        let grid = catalog::builtin(model).unwrap().grid.unwrap();
        let place = |start, name: &str| partita_core::model::Placement { profile: grid.resolve(name).unwrap(), start };
        let grant = Grant(uses.iter().map(|&(gpu, start, name)| (gpu, Use::Partition(place(start, name)))).collect());
        self.start(pod, Self::spec(pod, gpu, priority), id, grant)
    }

    pub(crate) fn runs_share(&mut self, pod: u32, node: &str, milli: u32, priority: i32, gpus: &[u8]) -> &mut Self {
        let ask = GpuAsk::Share { count: gpus.len() as u32, milli };
        let grant = Grant(gpus.iter().map(|&gpu| (gpu, Use::Share(milli))).collect());
        self.start(pod, Self::spec(pod, ask, priority), self.nodes[node], grant)
    }

    fn start(&mut self, pod: u32, spec: PodSpec, node: NodeId, grant: Grant) -> &mut Self {
        self.planner.apply(Event::PodRuns(PodId(pod), spec.clone(), node, grant.clone())).unwrap();
        self.specs.insert(pod, (spec, node, grant));
        self
    }

    /// Tells of a running pod again, in other words.
    fn again(&mut self, pod: u32, change: impl Fn(&mut Terms)) -> &mut Self {
        let (mut spec, node, grant) = self.specs[&pod].clone();
        change(&mut spec.terms);
        self.planner.apply(Event::PodRemoved(PodId(pod))).unwrap();
        self.start(pod, spec, node, grant)
    }

    pub(crate) fn restartable(&mut self, pod: u32) -> &mut Self {
        self.again(pod, |terms| terms.restartable = true)
    }

    pub(crate) fn budget(&mut self, pod: u32, name: &str) -> &mut Self {
        self.again(pod, |terms| terms.budgets.push(name.into()))
    }

    pub(crate) fn promised(&mut self, pod: u32, ms: u64) -> &mut Self {
        self.again(pod, |terms| terms.min_runtime_ms = ms)
    }

    pub(crate) fn allow(&mut self, budget: &str, pods: u32) {
        self.planner.apply(Event::Budget(budget.into(), Some(pods))).unwrap();
    }

    pub(crate) fn waits(&mut self, pod: u32, gpu: GpuAsk, priority: i32) -> &mut Self {
        self.planner.apply(Event::PodAdded(PodId(pod), Self::spec(pod, gpu, priority))).unwrap();
        self
    }

    pub(crate) fn waits_restartable(&mut self, pod: u32, gpu: GpuAsk, priority: i32) -> &mut Self {
        let mut spec = Self::spec(pod, gpu, priority);
        spec.terms.restartable = true;
        self.planner.apply(Event::PodAdded(PodId(pod), spec)).unwrap();
        self
    }

    pub(crate) fn waits_politely(&mut self, pod: u32, gpu: GpuAsk, priority: i32) {
        let mut spec = Self::spec(pod, gpu, priority);
        spec.terms.never_preempts = true;
        self.planner.apply(Event::PodAdded(PodId(pod), spec)).unwrap();
    }

    pub(crate) fn at(&mut self, ms: u64) {
        self.planner.apply(Event::Time(ms)).unwrap();
    }

    pub(crate) fn ends(&mut self, pod: u32) {
        self.planner.apply(Event::PodRemoved(PodId(pod))).unwrap();
    }

    pub(crate) fn left(&mut self, pod: u32) {
        self.planner.apply(Event::PodLeft(PodId(pod))).unwrap();
    }

    pub(crate) fn round(&mut self) -> Vec<Action> {
        self.planner.round(&mut [&mut Zeros]).actions
    }

    pub(crate) fn node_of(&self, pod: u32) -> Option<String> {
        let (node, _) = self.planner.cluster().runs_on(PodId(pod))?;
        Some(self.planner.cluster().node(node)?.spec.name.clone())
    }

    pub(crate) fn claim(&self, pod: u32) -> Option<&Claim> {
        self.planner.cluster().claim_of(PodId(pod))
    }

    pub(crate) fn reason(&self, pod: u32) -> String {
        let demand = self.planner.cluster().pod(PodId(pod)).unwrap().demand;
        self.planner.reason(demand).map(|reason| reason.to_string()).unwrap_or_default()
    }
}
