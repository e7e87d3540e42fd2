//! Who is evicted, compared with every set of pods of every node: the fewest, and of those the cheapest, and nobody in vain.
//!
//! The price of a pod is its priority first, then how long it ran. The comparison covers demands that one GPU serves, whatever is there,
//! and several MIG partitions, without claims and with enough cpu and memory, for which the planner says that it is exact.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod world;

use std::collections::BTreeSet;

use partita_core::{
    Action, Config, Planner,
    model::{Cut, Demand, GpuAsk, GpuSpec, Grid, NodeId, NodeSpec, Partitioning, Placement, PodId, PodSpec, Terms, catalog},
    state::{Event, Grant, Use},
};
use proptest::prelude::*;
use world::{
    Mixer,
    board::Board,
    draw::{demands, nodes},
};

/// The priority of the pod for which others go. Others have 0 to 3.
const PRIORITY: i32 = 2;
/// The most pods of a node of which every set is tried.
const PODS_MAX: usize = 10;

/// How many go, their priorities, how long they ran in seconds: less is better.
type Price = (usize, i64, u64);

fn spec(number: u32, priority: i32, gpu: GpuAsk) -> PodSpec {
    let demand = Demand { cpu_milli: 0, memory_mib: 0, gpu, models: Vec::new(), ..Demand::default() }.validated().unwrap();
    PodSpec { name: format!("pod-{number}"), namespace: "team".into(), priority, demand, terms: Terms::default(), ..PodSpec::default() }
}

fn price(planner: &Planner, set: &BTreeSet<PodId>) -> Price {
    let cluster = planner.cluster();
    let ran = |pod: &PodId| (cluster.now_ms() - cluster.pod(*pod).unwrap().placed.as_ref().unwrap().since_ms) / 1000;
    (set.len(), set.iter().map(|pod| i64::from(cluster.pod(*pod).unwrap().spec.priority)).sum(), set.iter().map(ran).sum())
}

/// The least price on any node, of all sets of pods of lower priority; none if nobody's going helps. Nodes with too many pods fail.
fn cheapest(planner: &Planner, demand: &Demand) -> Result<Option<Price>, TestCaseError> {
    let cluster = planner.cluster();
    let mut best: Option<Price> = None;
    for (_, node) in cluster.nodes() {
        let may_go: Vec<PodId> = node.pods.iter().copied().filter(|&pod| cluster.pod(pod).unwrap().spec.priority < PRIORITY).collect();
        prop_assume!(may_go.len() <= PODS_MAX);
        for bits in 0u32..1 << may_go.len() {
            let set: BTreeSet<PodId> = (0..may_go.len()).filter(|row| bits & 1 << row != 0).map(|row| may_go[row]).collect();
            let price = price(planner, &set);
            if best.is_some_and(|best| best <= price) {
                continue;
            }
            let mut board = Board::of(cluster, node, &node.room);
            for &pod in &set {
                board.gives_back(&cluster.pod(pod).unwrap().spec.demand, cluster.runs_on(pod).unwrap().1);
            }
            if board.fits_somewhere(demand) {
                best = Some(price);
            }
        }
    }
    Ok(best)
}

/// Lets a pod of the priority come and compares what the round does with every set.
/// Where the planner does not say that it is exact, only whether anybody goes.
fn compare(planner: &mut Planner, id: u32, gpu: GpuAsk, exact: bool) -> Result<(), TestCaseError> {
    let pod = spec(id, PRIORITY, gpu);
    let expected = cheapest(planner, &pod.demand)?;
    planner.apply(Event::PodAdded(PodId(id), pod.clone())).unwrap();
    let before = planner.cluster().clone();
    let plan = planner.round(&mut [&mut Mixer::cached()]);
    let evicted: BTreeSet<PodId> =
        plan.actions.iter().filter_map(|action| if let Action::Evict { pod, .. } = action { Some(*pod) } else { None }).collect();
    let on: BTreeSet<NodeId> = evicted.iter().map(|&pod| before.runs_on(pod).unwrap().0).collect();
    prop_assert!(on.len() <= 1, "they go on several nodes");
    let bound = planner.cluster().runs_on(PodId(id)).is_some();
    match expected {
        None => prop_assert!(plan.actions.is_empty(), "{} has no place: {:?}", pod.demand.gpu, plan.actions),
        Some((0, ..)) => prop_assert!(bound && evicted.is_empty(), "{} has a place: {:?}", pod.demand.gpu, plan.actions),
        Some(least) => {
            prop_assert!(!evicted.is_empty(), "{} gets no place, though {:?} would make one", pod.demand.gpu, least);
            if exact {
                prop_assert_eq!(price(planner, &evicted), least, "for {}", pod.demand.gpu);
            }
            prop_assert!(planner.cluster().claim_of(PodId(id)).is_some());
        }
    }
    Ok(())
}

/// Partitions in use on a GPU: what of the raw numbers is legal.
fn layout(grid: &Grid, raw: &[(u8, u8)]) -> Vec<Placement> {
    let mut places = Vec::new();
    for &(profile, start) in raw {
        let profile = profile % grid.profiles.len() as u8;
        let starts = &grid.profiles[usize::from(profile)].starts;
        let place = Placement { profile, start: starts[usize::from(start) % starts.len()] };
        if grid.admits(&places, place) {
            places.push(place);
        }
    }
    places
}

/// Nodes of GPUs of one model with these partitions; each pod has one, or two that follow each other.
fn in_use(model: &str, nodes: &[Vec<Vec<(u8, u8)>>], pods: &[(i32, bool)]) -> (Planner, u32) {
    let known = catalog::builtin(model).unwrap();
    let grid = known.grid.clone().unwrap();
    let mut planner = Planner::new(Config::DEFAULT);
    planner.apply(Event::ModelSeen(known)).unwrap();
    let mut next = 0;
    for (row, gpus) in nodes.iter().enumerate() {
        let gpu_specs = vec![GpuSpec::new(model, Cut::Mig); gpus.len()];
        let node = NodeSpec { name: format!("node-{row}"), gpus: gpu_specs, ..NodeSpec::default() };
        planner.apply(Event::NodeAdded(NodeId::new(row), node)).unwrap();
        let all: Vec<(u8, Placement)> =
            (0u8..).zip(gpus).flat_map(|(gpu, raw)| layout(&grid, raw).into_iter().map(move |place| (gpu, place))).collect();
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let (priority, two) = pods[next as usize % pods.len()];
            let (mine, others) = rest.split_at(if two { 2.min(rest.len()) } else { 1 });
            rest = others;
            let name = |place: &Placement| grid.profiles[usize::from(place.profile)].name.clone();
            let ask = GpuAsk::Mig { partitions: mine.iter().map(|(_, place)| (name(place), 1)).collect() };
            let mut grant = Grant(mine.iter().map(|&(gpu, place)| (gpu, Use::Partition(place))).collect());
            grant.0.sort_unstable();
            planner.apply(Event::Time(u64::from(next) * 1000)).unwrap();
            planner.apply(Event::PodRuns(PodId(next), spec(next, priority, ask), NodeId::new(row), grant)).unwrap();
            next += 1;
        }
    }
    planner.apply(Event::Time(100_000)).unwrap();
    (planner, next)
}

fn clusters(gpus: usize, parts: usize) -> impl Strategy<Value = Vec<Vec<Vec<(u8, u8)>>>> {
    let gpu = prop::collection::vec((0u8..16, 0u8..8), 0..parts);
    prop::collection::vec(prop::collection::vec(gpu, 1..=gpus), 1..4)
}

fn users(two: f64) -> impl Strategy<Value = Vec<(i32, bool)>> {
    prop::collection::vec((prop::sample::select(vec![0, 0, 1, 1, 1, 2, 3]), prop::bool::weighted(two)), 8)
}

fn profile(model: &str, row: u8) -> String {
    let grid = catalog::builtin(model).unwrap().grid.unwrap();
    grid.profiles[usize::from(row) % grid.profiles.len()].name.clone()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn one_partition_of_an_a30(nodes in clusters(2, 6), users in users(0.0), row in 0u8..16) {
        let (mut planner, next) = in_use("A30", &nodes, &users);
        compare(&mut planner, next, GpuAsk::mig(&profile("A30", row)), true)?;
    }

    #[test]
    fn one_partition_of_eight_slots(
        model in prop::sample::select(vec!["A100-80GB", "H100-80GB"]), nodes in clusters(2, 9), users in users(0.0), row in 0u8..16
    ) {
        let (mut planner, next) = in_use(model, &nodes, &users);
        compare(&mut planner, next, GpuAsk::mig(&profile(model, row)), true)?;
    }

    #[test]
    fn one_partition_where_pods_have_two(
        model in prop::sample::select(vec!["A30", "A100-80GB"]), nodes in clusters(2, 6), users in users(0.4), row in 0u8..16
    ) {
        let (mut planner, next) = in_use(model, &nodes, &users);
        compare(&mut planner, next, GpuAsk::mig(&profile(model, row)), true)?;
    }

    #[test]
    fn several_partitions(
        model in prop::sample::select(vec!["A30", "A100-80GB"]), nodes in clusters(2, 6), users in users(0.2),
        rows in prop::collection::vec(0u8..16, 2..4)
    ) {
        let (mut planner, next) = in_use(model, &nodes, &users);
        let partitions = rows.iter().map(|&row| (profile(model, row), 1)).collect();
        compare(&mut planner, next, GpuAsk::Mig { partitions }, true)?;
    }

    #[test]
    fn whatever_one_gpu_serves(nodes in nodes(), running in prop::collection::vec((demands(), 0i32..=3), 0..16), last in demands()) {
        prop_assume!(!matches!(last.gpu, GpuAsk::Share { count: 2.., .. }));
        let mut planner = Planner::new(Config::DEFAULT);
        for model in world::draw::MODELS {
            planner.apply(Event::ModelSeen(catalog::builtin(model).unwrap())).unwrap();
        }
        for (row, node) in nodes.into_iter().enumerate() {
            planner.apply(Event::NodeAdded(NodeId::new(row), NodeSpec { cpu_milli: 0, memory_mib: 0, ..node })).unwrap();
        }
        let mut next = 0;
        for (demand, priority) in running {
            planner.apply(Event::PodAdded(PodId(next), spec(next, priority, demand.gpu))).unwrap();
            next += 1;
        }
        // Only those who find a place at once stay.
        while !planner.queue().is_empty() {
            planner.round(&mut [&mut Mixer::cached()]);
            let gone: Vec<PodId> = (0..next)
                .map(PodId)
                .filter(|&pod| planner.cluster().pod(pod).is_some_and(|known| known.placed.as_ref().is_none_or(|placed| placed.stopping)))
                .collect();
            for pod in gone {
                planner.apply(Event::PodRemoved(pod)).unwrap();
            }
        }
        // Several partitions on GPUs that are cut otherwise: first those go that hold partitions.
        let exact = !matches!(&last.gpu, GpuAsk::Mig { partitions } if partitions.iter().map(|one| one.1).sum::<u32>() > 1);
        compare(&mut planner, next, last.gpu, exact)?;
    }
}

#[test]
fn labels_hold_for_those_for_whom_others_go() {
    let mut planner = Planner::new(Config::DEFAULT);
    planner.apply(Event::ModelSeen(catalog::builtin("A30").unwrap())).unwrap();
    let gpus = vec![GpuSpec::new("A30", Cut::Mig)];
    let node = |partitioning| NodeSpec { name: "node".into(), gpus: gpus.clone(), partitioning, ..NodeSpec::default() };
    planner.apply(Event::NodeAdded(NodeId(0), node(Partitioning::Fixed))).unwrap();
    let place = Placement { profile: 0, start: 0 };
    let grant = Grant(vec![(0, Use::Partition(place))]);
    planner.apply(Event::PodRuns(PodId(0), spec(0, 0, GpuAsk::mig("1g.6gb")), NodeId(0), grant)).unwrap();
    planner.apply(Event::PodAdded(PodId(1), spec(1, 1, GpuAsk::whole(1)))).unwrap();
    assert!(planner.round(&mut [&mut Mixer::cached()]).actions.is_empty(), "the GPU may not become whole, whoever goes");
}
