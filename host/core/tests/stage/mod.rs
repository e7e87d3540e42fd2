//! A cluster as the cases of nos tell it: nodes with partitions in use and warm ones, pods that wait, one round of planning.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};

use partita_core::{
    Action, Config, Plan, Planner,
    model::{
        Cut, Demand, Found, GpuAsk, GpuModel, GpuSpec, NodeId, NodeSpec, Partitioning, PodId, PodSpec, Terms, catalog,
        node::MPS_RESERVED_MIB,
    },
    state::{Event, Layout, Node},
};

use super::{
    brute::{
        arranged::{Counts, EMPTY, arrangements},
        grid,
    },
    script::Zeros,
};

/// A GPU as a case tells it.
#[derive(Clone, Copy)]
pub(crate) enum Told<'t> {
    /// A model, partitions in use, warm ones.
    Mig(&'t str, Counts<'t>, Counts<'t>),
    /// GB that clients can have under MPS, GB of each share in use and of each warm one.
    Mps(u32, &'t [u32], &'t [u32]),
    /// A model that nobody cut.
    Plain(&'t str),
}

/// An A30 with warm partitions.
pub(crate) fn a30(warm: Counts<'_>) -> Told<'_> {
    Told::Mig("A30", EMPTY, warm)
}

/// Shares under MPS of so many GB.
pub(crate) fn gb(amount: u32) -> GpuAsk {
    GpuAsk::Mps { memory_mib: amount * 1024 }
}

/// Several MIG partitions.
pub(crate) fn migs(partitions: &[(&str, u32)]) -> GpuAsk {
    GpuAsk::Mig { partitions: partitions.iter().map(|&(name, count)| (name.to_owned(), count)).collect() }
}

/// `count` times the same ask.
pub(crate) fn times(count: usize, ask: &GpuAsk) -> Vec<Pod> {
    vec![pod(ask.clone()); count]
}

/// A pod that waits.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) ask: GpuAsk,
    pub(crate) priority: i32,
    /// The models that will do; all if empty.
    pub(crate) models: Vec<String>,
    pub(crate) cpu_milli: u32,
}

pub(crate) fn pod(ask: GpuAsk) -> Pod {
    Pod { ask, priority: 0, models: Vec::new(), cpu_milli: 0 }
}

impl Pod {
    pub(crate) fn priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }

    pub(crate) fn on(self, model: &str) -> Self {
        Self { models: vec![model.into()], ..self }
    }

    pub(crate) fn cpu(self, cpu_milli: u32) -> Self {
        Self { cpu_milli, ..self }
    }

    pub(crate) fn spec(&self, number: usize) -> PodSpec {
        let Self { ask, priority, models, cpu_milli } = self.clone();
        let demand = Demand { cpu_milli, memory_mib: 0, gpu: ask, models, ..Demand::default() };
        PodSpec { name: format!("pod-{number}"), namespace: "team".into(), priority, demand, terms: Terms::default(), ..PodSpec::default() }
    }
}

/// The model of a GPU with so many GB for clients under MPS.
pub(crate) fn model_for(capacity_gb: u32) -> GpuModel {
    GpuModel { name: format!("foo-{capacity_gb}"), memory_mib: capacity_gb * 1024 + MPS_RESERVED_MIB, grid: None }
}

/// The shares found on a GPU, in GB.
pub(crate) fn shares(used: &[u32], warm: &[u32]) -> Vec<Found> {
    let share = |&gb: &u32, used| Found { profile: None, start: 0, memory_mib: gb * 1024, used };
    used.iter().map(|gb| share(gb, true)).chain(warm.iter().map(|gb| share(gb, false))).collect()
}

/// Every GPU that fits the words: nos counts partitions and knows no slots.
fn specs(told: &Told<'_>) -> Vec<GpuSpec> {
    match *told {
        Told::Plain(model) => vec![GpuSpec::new(model, Cut::Shares)],
        Told::Mps(capacity, used, warm) => {
            vec![GpuSpec { found: shares(used, warm), ..GpuSpec::new(&model_for(capacity).name, Cut::Mps) }]
        }
        Told::Mig(model, used, warm) => {
            let grid = grid(model);
            let found = |used: bool, places: &[partita_core::model::Placement]| {
                let mut places = places.to_vec();
                places.sort_unstable();
                let name = |profile: u8| Some(grid.profiles[usize::from(profile)].name.clone());
                places.into_iter().map(move |one| (one.start, used, name(one.profile))).collect::<Vec<_>>()
            };
            let distinct: BTreeSet<Vec<(u8, bool, Option<String>)>> =
                arrangements(&grid, used, warm).iter().map(|gpu| [found(true, &gpu.used), found(false, &gpu.warm)].concat()).collect();
            let one = |(start, used, profile): &(u8, bool, Option<String>)| Found {
                profile: profile.clone(),
                start: *start,
                memory_mib: 0,
                used: *used,
            };
            distinct.iter().map(|found| GpuSpec { found: found.iter().map(one).collect(), ..GpuSpec::new(model, Cut::Mig) }).collect()
        }
    }
}

/// What came of a round.
pub(crate) struct Played {
    pub(crate) planner: Planner,
    pub(crate) plan: Plan,
    names: BTreeMap<String, NodeId>,
}

/// A cluster before anybody asks.
pub(crate) fn staged(config: Config, nodes: &[NodeSpec]) -> Played {
    let mut planner = Planner::new(config);
    let mut names = BTreeMap::new();
    for (row, spec) in nodes.iter().enumerate() {
        for gpu in &spec.gpus {
            let model = catalog::builtin(&gpu.model).unwrap_or_else(|| model_for(gpu.model.trim_start_matches("foo-").parse().unwrap()));
            planner.apply(Event::ModelSeen(model)).unwrap();
        }
        names.insert(spec.name.clone(), NodeId::new(row));
        planner.apply(Event::NodeAdded(NodeId::new(row), spec.clone())).unwrap();
    }
    Played { planner, plan: Plan::default(), names }
}

/// Every cluster that fits the words.
pub(crate) fn clusters(nodes: &[(&str, &[Told<'_>])]) -> Vec<Vec<NodeSpec>> {
    let mut all: Vec<Vec<NodeSpec>> = vec![Vec::new()];
    for &(name, gpus) in nodes {
        let mut boards: Vec<Vec<GpuSpec>> = vec![Vec::new()];
        for told in gpus {
            let each = specs(told);
            boards =
                boards.iter().flat_map(|board| each.iter().map(|gpu| [board.as_slice(), std::slice::from_ref(gpu)].concat())).collect();
        }
        let node = |gpus: &Vec<GpuSpec>| NodeSpec {
            name: name.into(),
            cpu_milli: 64_000,
            memory_mib: 65_536,
            gpus: gpus.clone(),
            partitioning: Partitioning::Fixed,
            ..NodeSpec::default()
        };
        all = all.iter().flat_map(|nodes| boards.iter().map(|board| [nodes.as_slice(), &[node(board)]].concat())).collect();
    }
    all
}

/// Plays a case on every cluster that fits the words: the pods come in this order, then there is one round.
pub(crate) fn play(nodes: &[(&str, &[Told<'_>])], pods: &[Pod], check: impl Fn(&Played)) {
    for specs in clusters(nodes) {
        check(&staged(Config::DEFAULT, &specs).asked(pods));
    }
}

impl Played {
    /// After those pods came and one round.
    pub(crate) fn asked(mut self, pods: &[Pod]) -> Self {
        for (row, pod) in pods.iter().enumerate() {
            self.planner.apply(Event::PodAdded(PodId::new(row), pod.spec(row))).unwrap();
        }
        self.plan = self.planner.round(&mut [&mut Zeros]);
        self
    }

    pub(crate) fn node(&self, name: &str) -> &Node {
        self.planner.cluster().node(self.names[name]).unwrap()
    }

    /// The partitions of a GPU by profile, or its shares by GB; those in use only, or all.
    fn parts(&self, name: &str, gpu: usize, all: bool) -> BTreeMap<String, u32> {
        let (gpu, models) = (&self.node(name).room.gpus[gpu], self.planner.cluster().models());
        let mut parts = BTreeMap::new();
        match &gpu.layout {
            Layout::Shares { .. } => {}
            Layout::Mig(mig) => {
                let grid = models.grid(gpu.model).unwrap();
                for one in mig.partitions(models.layouts(gpu.model).unwrap()).filter(|one| all || one.holder.is_some()) {
                    *parts.entry(grid.profiles[usize::from(one.placement.profile)].name.clone()).or_default() += 1;
                }
            }
            Layout::Mps(slices) => {
                for one in slices.all.iter().filter(|one| all || one.holder.is_some()) {
                    *parts.entry(format!("{}gb", one.memory_mib / 1024)).or_default() += 1;
                }
            }
        }
        parts
    }

    /// The GPU has these partitions, in use and warm.
    #[track_caller]
    pub(crate) fn has(&self, name: &str, gpu: usize, parts: Counts<'_>) -> &Self {
        let expected = parts.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        assert_eq!(self.parts(name, gpu, true), expected, "GPU {gpu} of {name}");
        self
    }

    /// These partitions of the GPU are in use.
    #[track_caller]
    pub(crate) fn uses(&self, name: &str, gpu: usize, parts: Counts<'_>) -> &Self {
        let expected = parts.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        assert_eq!(self.parts(name, gpu, false), expected, "GPU {gpu} of {name}");
        self
    }

    /// The GPUs of a node have these partitions between them, whichever has which.
    #[track_caller]
    pub(crate) fn has_some_way(&self, name: &str, gpus: &[Counts<'_>]) -> &Self {
        let mut expected: Vec<BTreeMap<String, u32>> =
            gpus.iter().map(|parts| parts.iter().map(|&(name, count)| (name.to_owned(), count)).collect()).collect();
        let mut found: Vec<BTreeMap<String, u32>> = (0..gpus.len()).map(|gpu| self.parts(name, gpu, true)).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "GPUs of {name}");
        self
    }

    /// Where the pods run, in the order in which they came.
    #[track_caller]
    pub(crate) fn runs(&self, nodes: &[Option<&str>]) -> &Self {
        let name = |row: usize| self.planner.cluster().runs_on(PodId::new(row)).map(|(node, _)| self.name(node));
        assert_eq!((0..nodes.len()).map(name).collect::<Vec<_>>(), nodes);
        self
    }

    fn name(&self, node: NodeId) -> &str {
        self.planner.cluster().node(node).unwrap().spec.name.as_str()
    }

    /// Nodes whose GPUs are changed by an action, or on which a partition is made.
    pub(crate) fn changed(&self) -> BTreeSet<&str> {
        self.plan
            .actions
            .iter()
            .map(|action| match action {
                Action::Change { node, .. } | Action::Bind { node, .. } | Action::Evict { node, .. } | Action::Move { node, .. } => {
                    self.name(*node)
                }
            })
            .collect()
    }

    /// How many changes to GPUs the plan has.
    pub(crate) fn changes(&self) -> usize {
        self.plan.actions.iter().filter(|action| matches!(action, Action::Change { .. })).count()
    }

    /// The plan as it would be written.
    pub(crate) fn bytes(&self) -> String {
        serde_json::to_string(&self.plan.actions).unwrap()
    }

    /// Why a pod waits.
    pub(crate) fn reason(&self, pod: usize) -> String {
        let known = self.planner.cluster().pod(PodId::new(pod)).unwrap();
        self.planner.reason(known.demand).map(|reason| reason.to_string()).unwrap_or_default()
    }
}
