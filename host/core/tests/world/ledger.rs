//! The second set of books: what agents would see on GPUs if they did what plans say, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::{
    model::{Cut, Demand, Found, Grid, NodeId, NodeSpec, Placement, PodId, catalog, node::MPS_CLIENTS_MAX, node::MPS_RESERVED_MIB},
    state::{Change, Cluster, Grant, Holder, Layout, Use},
};

use super::board::serves;

/// What is on a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Has {
    /// A pod that moves may have two.
    Shares(Vec<(PodId, u32)>),
    Mig(BTreeMap<Placement, Option<Holder>>),
    Mps(Vec<(u32, Option<Holder>)>),
}

struct Gpu {
    model: String,
    grid: Option<Grid>,
    memory_mib: u32,
    uuid: String,
    faulty: bool,
    has: Has,
}

struct Node {
    spec: NodeSpec,
    gpus: Vec<Gpu>,
    incarnation: u64,
}

#[derive(Clone)]
struct Place {
    node: NodeId,
    incarnation: u64,
    grant: Grant,
    cpu: u32,
    memory: u32,
}

/// The second set of books.
#[derive(Default)]
pub(crate) struct Ledger {
    nodes: BTreeMap<NodeId, Node>,
    placed: BTreeMap<PodId, Place>,
    leaving: BTreeMap<PodId, Place>,
    incarnations: u64,
}

fn legal(grid: &Grid, places: &[Placement]) -> bool {
    (0..places.len()).all(|row| grid.admits(&places[..row], places[row]))
}

impl Gpu {
    fn new(spec: &partita_core::model::GpuSpec) -> Self {
        let model = catalog::builtin(&spec.model).unwrap();
        let holder = |one: &Found| one.used.then_some(Holder::Unknown);
        let mut faulty = spec.unusable.is_some();
        let has = match spec.cut {
            Cut::Shares => Has::Shares(Vec::new()),
            Cut::Mig => {
                let grid = model.grid.as_ref().unwrap();
                let row = |one: &Found| one.profile.as_ref().and_then(|name| grid.resolve(name).ok());
                let known: Option<Vec<(Placement, Option<Holder>)>> =
                    spec.found.iter().map(|one| Some((Placement { profile: row(one)?, start: one.start }, holder(one)))).collect();
                let places = known.unwrap_or_default();
                faulty |= places.len() < spec.found.len() || !legal(grid, &places.iter().map(|one| one.0).collect::<Vec<_>>());
                Has::Mig(places.into_iter().collect())
            }
            Cut::Mps => {
                let shares: Vec<(u32, Option<Holder>)> = spec.found.iter().map(|one| (one.memory_mib, holder(one))).collect();
                faulty |= shares.iter().map(|one| one.0).sum::<u32>() > model.memory_mib - MPS_RESERVED_MIB;
                Has::Mps(shares)
            }
        };
        Self { model: spec.model.clone(), grid: model.grid, memory_mib: model.memory_mib, uuid: spec.uuid.clone(), faulty, has }
    }

    fn idle(&self) -> bool {
        match &self.has {
            Has::Shares(users) => users.is_empty(),
            Has::Mig(parts) => parts.values().all(Option::is_none),
            Has::Mps(shares) => shares.iter().all(|one| one.1.is_none()),
        }
    }

    fn cut(&self) -> Cut {
        match self.has {
            Has::Shares(_) => Cut::Shares,
            Has::Mig(_) => Cut::Mig,
            Has::Mps(_) => Cut::Mps,
        }
    }

    fn change(&mut self, change: Change) {
        assert!(!self.faulty, "a GPU that is set aside is changed");
        match (change, &mut self.has) {
            (Change::Cut(cut), _) => {
                assert!(self.idle() && self.cut() != cut, "cut while in use, or for nothing");
                self.has = match cut {
                    Cut::Shares => Has::Shares(Vec::new()),
                    Cut::Mig => Has::Mig(BTreeMap::new()),
                    Cut::Mps => Has::Mps(Vec::new()),
                };
            }
            (Change::Destroy(place), Has::Mig(parts)) => assert_eq!(parts.remove(&place), Some(None), "only what is warm is destroyed"),
            (Change::Withdraw(memory_mib), Has::Mps(shares)) => {
                let row = shares.iter().position(|one| *one == (memory_mib, None)).expect("only what is warm is withdrawn");
                shares.remove(row);
            }
            (change, has) => panic!("{change:?} of {has:?}"),
        }
    }

    fn take(&mut self, used: Use, pod: PodId) {
        assert!(!self.faulty, "a GPU that is set aside is used");
        let holder = Some(Holder::Pod(pod));
        match (used, &mut self.has) {
            (Use::Share(milli), Has::Shares(users)) => {
                users.push((pod, milli));
                assert!(users.iter().map(|user| user.1).sum::<u32>() <= 1000, "more shares than a GPU has");
            }
            (Use::Partition(place), Has::Mig(parts)) => {
                let warm = parts.insert(place, holder);
                assert!(warm.is_none() || warm == Some(None), "a partition in use is given away");
                let places: Vec<Placement> = parts.keys().copied().collect();
                assert!(legal(self.grid.as_ref().unwrap(), &places), "an illegal layout: {places:?}");
            }
            (Use::Mps(memory_mib), Has::Mps(shares)) => {
                match shares.iter_mut().find(|one| **one == (memory_mib, None)) {
                    Some(warm) => warm.1 = holder,
                    None => shares.push((memory_mib, holder)),
                }
                assert!(shares.iter().map(|one| one.0).sum::<u32>() <= self.memory_mib - MPS_RESERVED_MIB, "more promised than there is");
                assert!(shares.iter().filter(|one| one.1.is_some()).count() <= MPS_CLIENTS_MAX, "too many clients");
            }
            (used, has) => panic!("{used:?} of {has:?}"),
        }
    }

    fn release(&mut self, used: Use, holder: Holder) {
        match (used, &mut self.has) {
            (Use::Share(milli), Has::Shares(users)) => {
                let row = users.iter().position(|&(pod, has)| Holder::Pod(pod) == holder && has == milli).unwrap();
                users.swap_remove(row);
            }
            (Use::Partition(place), Has::Mig(parts)) => {
                assert_eq!(parts.insert(place, None), Some(Some(holder)));
            }
            (Use::Mps(memory_mib), Has::Mps(shares)) => {
                shares.iter_mut().find(|one| **one == (memory_mib, Some(holder))).unwrap().1 = None;
            }
            (used, has) => panic!("{used:?} of {has:?}"),
        }
    }
}

impl Ledger {
    pub(super) fn node_comes(&mut self, id: NodeId, spec: &NodeSpec) {
        let mut gpus: Vec<Gpu> = spec.gpus.iter().map(Gpu::new).collect();
        // The first to report a UUID has it as long as its node is there; the others are set aside until then.
        let mut seen: BTreeSet<String> = self.nodes.values().flat_map(|node| &node.gpus).map(|gpu| gpu.uuid.clone()).collect();
        for gpu in gpus.iter_mut().filter(|gpu| !gpu.uuid.is_empty()) {
            if !seen.insert(gpu.uuid.clone()) {
                gpu.faulty = true;
                gpu.uuid.clear();
            }
        }
        self.incarnations += 1;
        self.nodes.insert(id, Node { spec: spec.clone(), gpus, incarnation: self.incarnations });
    }

    pub(super) fn node_goes(&mut self, id: NodeId) {
        let Some(gone) = self.nodes.remove(&id) else { return };
        let uuids = |node: &Node| node.gpus.iter().map(|gpu| gpu.uuid.clone()).collect::<Vec<_>>();
        let mut owned: BTreeSet<String> = self.nodes.values().flat_map(uuids).collect();
        for node in self.nodes.values_mut() {
            for (spec, gpu) in node.spec.gpus.iter().zip(&mut node.gpus) {
                let waits = !spec.uuid.is_empty() && gpu.uuid.is_empty() && gone.spec.gpus.iter().any(|other| other.uuid == spec.uuid);
                if waits && owned.insert(spec.uuid.clone()) {
                    *gpu = Gpu::new(spec);
                }
            }
        }
    }

    pub(super) fn changes(&mut self, node: NodeId, gpu: u8, change: Change) {
        let node = self.nodes.get_mut(&node).unwrap();
        if let Change::Cut(cut) = change {
            assert!(node.spec.partitioning.may_become(cut), "the operator does not allow {cut}");
        }
        node.gpus[usize::from(gpu)].change(change);
    }

    pub(super) fn takes(&mut self, pod: PodId, demand: &Demand, id: NodeId, grant: &Grant) {
        let node = self.nodes.get_mut(&id).unwrap();
        let models: Vec<&str> = node.gpus.iter().map(|gpu| gpu.model.as_str()).collect();
        assert!(serves(demand, grant, &models), "{grant:?} does not serve {demand:?}");
        for &(gpu, used) in &grant.0 {
            let gpu = &mut node.gpus[usize::from(gpu)];
            gpu.take(used, pod);
            assert!(node.spec.partitioning.may_use(gpu.cut()));
            assert!(!matches!(used, Use::Share(1..1000)) || node.spec.partitioning.time_slices());
        }
        let place =
            Place { node: id, incarnation: node.incarnation, grant: grant.clone(), cpu: demand.cpu_milli, memory: demand.memory_mib };
        assert!(self.placed.insert(pod, place).is_none(), "{pod:?} is placed twice");
    }

    pub(super) fn turns_out(&mut self, pod: PodId, id: NodeId, grant: &Grant) {
        let node = self.nodes.get_mut(&id).unwrap();
        for &(gpu, used) in &grant.0 {
            node.gpus[usize::from(gpu)].release(used, Holder::Unknown);
            node.gpus[usize::from(gpu)].take(used, pod);
        }
        self.placed.insert(pod, Place { node: id, incarnation: node.incarnation, grant: grant.clone(), cpu: 0, memory: 0 });
    }

    pub(super) fn leaves(&mut self, pod: PodId) {
        let place = self.placed.remove(&pod).unwrap();
        assert!(self.leaving.insert(pod, place).is_none());
    }

    pub(super) fn pod_left(&mut self, pod: PodId) {
        let place = self.leaving.remove(&pod).unwrap();
        self.vacate(pod, &place);
    }

    pub(super) fn pod_goes(&mut self, pod: PodId) {
        for place in [self.placed.remove(&pod), self.leaving.remove(&pod)].into_iter().flatten() {
            self.vacate(pod, &place);
        }
    }

    fn vacate(&mut self, pod: PodId, place: &Place) {
        let Some(node) = self.nodes.get_mut(&place.node).filter(|node| node.incarnation == place.incarnation) else { return };
        for &(gpu, used) in &place.grant.0 {
            node.gpus[usize::from(gpu)].release(used, Holder::Pod(pod));
        }
    }

    fn here(&self, place: &Place) -> bool {
        self.nodes.get(&place.node).is_some_and(|node| node.incarnation == place.incarnation)
    }

    pub(super) fn node_of(&self, pod: PodId) -> Option<NodeId> {
        self.placed.get(&pod).filter(|place| self.here(place)).map(|place| place.node)
    }

    /// Partitions and shares whose user nobody told of.
    pub(super) fn unknown(&self) -> Vec<(NodeId, u8, Use)> {
        let mut found = Vec::new();
        for (&id, node) in &self.nodes {
            for (index, gpu) in (0u8..).zip(&node.gpus).filter(|(_, gpu)| !gpu.faulty) {
                match &gpu.has {
                    Has::Shares(_) => {}
                    Has::Mig(parts) => {
                        let unknown = parts.iter().filter(|one| super::is_unknown(*one.1));
                        found.extend(unknown.map(|(&place, _)| (id, index, Use::Partition(place))));
                    }
                    Has::Mps(shares) => {
                        found.extend(shares.iter().filter(|one| super::is_unknown(one.1)).map(|one| (id, index, Use::Mps(one.0))));
                    }
                }
            }
        }
        found
    }

    /// Who is on the way from a node, with the place that they leave there.
    pub(super) fn leaving_from(&self, id: NodeId, stopping: &BTreeSet<u32>) -> Vec<(PodId, Grant)> {
        let stopped = self.placed.iter().filter(|(pod, _)| stopping.contains(&pod.0));
        let all = stopped.chain(&self.leaving).filter(|(_, place)| place.node == id && self.here(place));
        all.map(|(&pod, place)| (pod, place.grant.clone())).collect()
    }

    /// The planner's books say the same.
    pub(super) fn compare(&self, cluster: &Cluster) {
        assert_eq!(cluster.nodes().map(|node| node.0).collect::<Vec<_>>(), self.nodes.keys().copied().collect::<Vec<_>>());
        for (id, node) in cluster.nodes() {
            let mine = &self.nodes[&id];
            // A pod that moves within its node has its cpu and memory at both places.
            let here = || self.placed.values().chain(self.leaving.values()).filter(|place| place.node == id && self.here(place));
            let cpu: u32 = here().map(|place| place.cpu).sum();
            let memory: u32 = here().map(|place| place.memory).sum();
            assert_eq!(node.room.cpu_free + cpu, node.spec.cpu_milli, "cpu of {}", node.spec.name);
            assert_eq!(node.room.memory_free + memory, node.spec.memory_mib, "memory of {}", node.spec.name);
            for (gpu, mine) in node.room.gpus.iter().zip(&mine.gpus) {
                assert_eq!(gpu.fault.is_some(), mine.faulty);
                if mine.faulty {
                    continue;
                }
                let has = match &gpu.layout {
                    Layout::Shares { free } => {
                        let Has::Shares(users) = &mine.has else { panic!("{:?} is cut otherwise: {gpu:?}", mine.has) };
                        assert_eq!(free + users.iter().map(|user| user.1).sum::<u32>(), 1000);
                        continue;
                    }
                    Layout::Mig(mig) => {
                        assert!(!mig.used_slots.overlaps(mig.warm_slots));
                        let layouts = cluster.models().layouts(gpu.model).unwrap();
                        Has::Mig(mig.partitions(layouts).map(|one| (one.placement, one.holder)).collect())
                    }
                    Layout::Mps(slices) => {
                        let mut shares: Vec<_> = slices.all.iter().map(|one| (one.memory_mib, one.holder)).collect();
                        shares.sort_unstable();
                        Has::Mps(shares)
                    }
                };
                let expected = match &mine.has {
                    Has::Mps(shares) => {
                        let mut shares = shares.clone();
                        shares.sort_unstable();
                        Has::Mps(shares)
                    }
                    other => other.clone(),
                };
                assert_eq!(has, expected, "a GPU of {}", node.spec.name);
            }
        }
    }
}
