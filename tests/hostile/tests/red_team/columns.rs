//! Questions at random: every column, legal MIG rows, pods with and without GPUs, and numbers up to the largest that a column can hold.

use std::collections::BTreeMap;
use std::fmt;

use partita_core::policy::{Candidates, Demands, Gpus, Models, NONE, Nodes, Profiles, Shapes, View, outlook};
use proptest::collection::vec;
use proptest::prelude::*;

/// Models of the questions: one without MIG, and two with.
const SLOTS: [u32; 3] = [0, 8, 4];
/// Profiles, all of their columns: model, size, compute, memory, starts.
const PROFILES: [[u32; 5]; 7] = [
    [1, 1, 1, 10_240, 0b0111_1111],
    [1, 2, 2, 20_480, 0b0001_0101],
    [1, 4, 3, 40_960, 0b0001_0001],
    [1, 8, 7, 81_920, 0b0000_0001],
    [2, 1, 1, 6_144, 0b1111],
    [2, 2, 2, 12_288, 0b0101],
    [2, 4, 4, 24_576, 0b0001],
];

/// A question that owns its columns.
#[derive(Clone, Default)]
pub(crate) struct Question {
    seed: u32,
    pub(crate) demand: u32,
    models: [Vec<u32>; 3],
    shapes: [Vec<u32>; 4],
    profiles: [Vec<u32>; 5],
    nodes: [Vec<u32>; 7],
    gpus: [Vec<u32>; 5],
    demands: [Vec<u32>; 9],
    candidates: [Vec<u32>; 4],
    /// Kind and milli-GPU of each candidate, and two partitions for every MIG place that is not the first.
    places: [Vec<u32>; 3],
    uses: [Vec<u32>; 3],
}

/// On one line, since a failed property prints it.
impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, demand, models, shapes, profiles: _, nodes, gpus, demands, candidates, .. } = self;
        write!(f, "seed {seed} demand {demand} models {models:?} shapes {shapes:?} nodes {nodes:?} gpus {gpus:?} ")?;
        write!(f, "demands {demands:?} candidates {candidates:?}")
    }
}

/// A node before it is a row: cpu and memory (free, capacity), pods (all, alike), and its GPUs.
#[derive(Clone, Debug)]
struct Node {
    amounts: [u32; 4],
    pods: [u32; 2],
    gpus: Vec<Gpu>,
}

/// A GPU before it is a row; masks are cut to the slots of the model.
#[derive(Clone, Debug)]
struct Gpu {
    model: usize,
    free: u32,
    used: u32,
    warm: u32,
    mig: bool,
}

/// A demand before it is a row.
#[derive(Clone, Debug)]
struct Demand {
    cpu: u32,
    memory: u32,
    kind: Kind,
    weight: u32,
    models: Vec<u32>,
}

#[derive(Clone, Debug)]
enum Kind {
    NoGpu,
    Share(u32),
    Whole(u32),
    Mig(Vec<u32>),
}

/// How far numbers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    /// What clusters have.
    Real,
    /// Now and then anything that a column can hold.
    Any,
}

impl Range {
    /// A number below `real`, or any number.
    fn below(self, real: u32) -> impl Strategy<Value = u32> + Clone {
        let odd = u32::from(self == Self::Any);
        prop_oneof![8 => 0..real, odd => Just(0), odd => Just(u32::MAX), odd => any::<u32>()]
    }
}

fn gpu() -> impl Strategy<Value = Gpu> {
    let mask = || prop_oneof![Just(0), any::<u8>()];
    (0..SLOTS.len(), prop_oneof![Just(0), Just(1000), 0..=1000u32], mask(), mask(), any::<bool>())
        .prop_map(|(model, free, used, warm, mig)| Gpu { model, free, used: used.into(), warm: warm.into(), mig })
}

fn node(range: Range) -> impl Strategy<Value = Node> {
    let (cpu, memory, pods) = (range.below(200_000), range.below(800_000), range.below(20));
    ([cpu.clone(), cpu, memory.clone(), memory], [pods.clone(), pods], vec(gpu(), 0..=8)).prop_map(|(amounts, pods, gpus)| Node {
        amounts,
        pods,
        gpus,
    })
}

fn demand(range: Range) -> impl Strategy<Value = Demand> {
    let kind = prop_oneof![
        2 => Just(Kind::NoGpu),
        2 => (1..1000u32).prop_map(Kind::Share),
        2 => prop_oneof![4 => 1..=8u32, 1 => 1..=1000u32].prop_map(Kind::Whole),
        3 => vec(0..PROFILES.len() as u32, 1..3).prop_map(Kind::Mig),
    ];
    (range.below(40_000), range.below(100_000), kind, range.below(100), vec(0..SLOTS.len() as u32, 0..3))
        .prop_map(|(cpu, memory, kind, weight, models)| Demand { cpu, memory, kind, weight, models })
}

/// Any question, with up to 8 nodes and a mix of up to 6 demands.
pub(crate) fn question(range: Range) -> impl Strategy<Value = Question> {
    let picks = vec(any::<bool>(), 0..64);
    (any::<u32>(), vec(node(range), 0..8), vec(demand(range), 1..7), any::<prop::sample::Index>(), picks).prop_map(
        |(seed, nodes, mut demands, asked, picks)| {
            // The demand asked about is the last, behind the mix.
            let last = demands.len() - 1;
            demands.swap(asked.index(last + 1), last);
            demands[last].weight = 0;
            let mut question = Question { seed, demand: demands.len() as u32 - 1, ..Question::default() };
            question.add_models(&nodes);
            question.add_shapes(&nodes);
            for demand in &demands {
                question.add_demand(demand);
            }
            for node in &nodes {
                question.add_node(node);
            }
            question.demands[5].insert(0, 0);
            question.demands[7].insert(0, 0);
            question.nodes[6].insert(0, 0);
            question.add_candidates(&demands[question.demand as usize], &nodes, &picks);
            question
        },
    )
}

impl Question {
    fn add_models(&mut self, nodes: &[Node]) {
        for (model, slots) in SLOTS.into_iter().enumerate() {
            let count = nodes.iter().flat_map(|node| &node.gpus).filter(|gpu| gpu.model == model).count();
            push(&mut self.models, [count as u32, 81_920, slots]);
        }
        for profile in PROFILES {
            push(&mut self.profiles, profile);
        }
    }

    /// Every kind of node and model once, with the number of such nodes.
    fn add_shapes(&mut self, nodes: &[Node]) {
        let mut shapes = BTreeMap::new();
        for node in nodes {
            for model in 0..SLOTS.len() {
                let gpus = node.gpus.iter().filter(|gpu| gpu.model == model).count() as u32;
                if gpus > 0 {
                    *shapes.entry((model as u32, gpus, node.amounts[1])).or_insert(0) += 1;
                }
            }
        }
        for ((model, gpus, cpu), nodes) in shapes {
            push(&mut self.shapes, [model, gpus, cpu, nodes]);
        }
    }

    /// The `start` columns get their leading 0 at the end.
    fn add_demand(&mut self, demand: &Demand) {
        let (count, milli) = match demand.kind {
            Kind::NoGpu => (0, 0),
            Kind::Share(milli) => (1, milli),
            Kind::Whole(count) => (count, 1000),
            Kind::Mig(_) => (1, 0),
        };
        self.demands[6].extend(&demand.models);
        if let Kind::Mig(profiles) = &demand.kind {
            self.demands[8].extend(profiles);
        }
        let (models, profiles) = (self.demands[6].len() as u32, self.demands[8].len() as u32);
        let [cpu, memory, counts, shares, weights, model_start, _, profile_start, _] = &mut self.demands;
        for (column, value) in [
            (cpu, demand.cpu),
            (memory, demand.memory),
            (counts, count),
            (shares, milli),
            (weights, demand.weight),
            (model_start, models),
            (profile_start, profiles),
        ] {
            column.push(value);
        }
    }

    fn add_node(&mut self, node: &Node) {
        for gpu in &node.gpus {
            push(&mut self.gpus, gpu.row());
        }
        let [cpu_free, cpu, memory_free, memory] = node.amounts;
        let [pods, alike] = node.pods;
        push(&mut self.nodes, [cpu_free.min(cpu), cpu, memory_free.min(memory), memory, pods, alike.min(pods), self.gpus[0].len() as u32]);
    }

    /// Every place where the pod fits, thinned out by `picks`.
    fn add_candidates(&mut self, demand: &Demand, nodes: &[Node], picks: &[bool]) {
        let mut picks = picks.iter().copied().chain(std::iter::repeat(true));
        let mut first = 0;
        for (row, node) in nodes.iter().enumerate() {
            if node.amounts[0].min(node.amounts[1]) >= demand.cpu && node.amounts[2].min(node.amounts[3]) >= demand.memory {
                for [gpu, profile, slot] in places(demand, node, first) {
                    if picks.next() == Some(true) {
                        push(&mut self.candidates, [row as u32, gpu, profile, slot]);
                        self.add_place(gpu, profile, slot);
                    }
                }
            }
            first += node.gpus.len() as u32;
        }
    }

    pub(crate) fn view(&self) -> View<'_> {
        let [gpus, memory, slots] = &self.models;
        let models = Models { gpus, memory, slots };
        let [model, gpus, cpu_capacity, nodes] = &self.shapes;
        let shapes = Shapes { model, gpus, cpu_capacity, nodes };
        let [model, size, compute, memory, starts] = &self.profiles;
        let profiles = Profiles { model, size, compute, memory, starts };
        let [cpu_free, cpu_capacity, memory_free, memory_capacity, gpu_pods, like_pods, gpu_start] = &self.nodes;
        let nodes = Nodes { cpu_free, cpu_capacity, memory_free, memory_capacity, gpu_pods, like_pods, gpu_start };
        let [model, free, used_slots, warm_slots, mig] = &self.gpus;
        let gpus = Gpus { model, free, used_slots, warm_slots, mig };
        let [cpu, memory, count, milli, weight, model_start, accepted, profile_start, serving] = &self.demands;
        let demands = Demands { cpu, memory, count, milli, weight, model_start, models: accepted, profile_start, profiles: serving };
        let outlook = outlook(&models, &shapes, &profiles, &demands);
        View { seed: self.seed, outlook, models, shapes, profiles, nodes, gpus, demands }
    }

    pub(crate) fn candidates(&self) -> Candidates<'_> {
        let [node, gpu, profile, slot] = &self.candidates;
        let ([kind, milli, use_start], [use_gpu, use_profile, use_slot]) = (&self.places, &self.uses);
        Candidates { node, gpu, profile, slot, kind, milli, tier: &[], use_start, use_gpu, use_profile, use_slot }
    }

    /// What kind of place the last candidate is; every other MIG place has its partition and one more.
    fn add_place(&mut self, gpu: u32, profile: u32, slot: u32) {
        let [kind, milli, use_start] = &mut self.places;
        if use_start.is_empty() {
            use_start.push(0);
        }
        kind.push(if profile == NONE { u32::from(gpu != NONE) * (1 + 2 * (slot & 1)) } else { 2 });
        milli.push(if gpu == NONE { 0 } else { gpu * 37 % 1001 });
        if profile != NONE && kind.len() % 2 == 0 {
            push(&mut self.uses, [gpu, profile, slot]);
            push(&mut self.uses, [gpu, profile, 0]);
        }
        use_start.push(self.uses[0].len() as u32);
    }
}

impl Gpu {
    /// Whether MIG cuts it: only a model with slots can be cut.
    fn is_cut(&self) -> bool {
        self.mig && SLOTS[self.model] > 0
    }

    /// The masks of used and warm slots, disjoint and within the model.
    fn masks(&self) -> (u32, u32) {
        if !self.is_cut() {
            return (0, 0);
        }
        let all = (1 << SLOTS[self.model]) - 1;
        (self.used & all, self.warm & all & !self.used)
    }

    fn row(&self) -> [u32; 5] {
        let (used, warm) = self.masks();
        let slots = SLOTS[self.model];
        let free = if self.is_cut() { (slots - used.count_ones()) * 1000 / slots } else { self.free };
        [self.model as u32, free, used, warm, self.is_cut().into()]
    }
}

/// Where on `node`, whose first GPU is row `first`, a pod of `demand` fits: GPU, profile, slot.
fn places(demand: &Demand, node: &Node, first: u32) -> Vec<[u32; 3]> {
    let fits = |gpu: &Gpu, milli: u32| {
        !gpu.is_cut() && gpu.free >= milli && (demand.models.is_empty() || demand.models.contains(&(gpu.model as u32)))
    };
    let rows = || node.gpus.iter().enumerate().map(|(index, gpu)| (first + index as u32, gpu));
    match &demand.kind {
        Kind::NoGpu => vec![[NONE; 3]],
        Kind::Share(milli) => rows().filter(|(_, gpu)| fits(gpu, *milli)).map(|(row, _)| [row, NONE, NONE]).collect(),
        Kind::Whole(count) => {
            let free: Vec<u32> = rows().filter(|(_, gpu)| fits(gpu, 1000)).map(|(row, _)| row).collect();
            if free.len() >= *count as usize { vec![[free[0], NONE, NONE]] } else { Vec::new() }
        }
        Kind::Mig(profiles) => rows().flat_map(|(row, gpu)| partitions(profiles, row, gpu)).collect(),
    }
}

/// The free placements of `profiles` on `gpu`.
fn partitions(profiles: &[u32], row: u32, gpu: &Gpu) -> Vec<[u32; 3]> {
    let (used, _) = gpu.masks();
    let mut places = Vec::new();
    for &profile in profiles {
        let [model, size, _, _, starts] = PROFILES[profile as usize];
        for slot in (0..SLOTS[gpu.model]).filter(|slot| starts >> slot & 1 == 1) {
            if gpu.is_cut() && model == gpu.model as u32 && used & (((1 << size) - 1) << slot) == 0 {
                places.push([row, profile, slot]);
            }
        }
    }
    places
}

/// Adds a row to `columns`.
fn push<const N: usize>(columns: &mut [Vec<u32>; N], row: [u32; N]) {
    for (column, value) in columns.iter_mut().zip(row) {
        column.push(value);
    }
}
