//! Properties of whole rounds: what is placed fits, what is cached is true, what is refused changes nothing, and equal events give
//! equal plans.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;

use partita_core::{
    Action, Config, Planner,
    model::{Cut, Demand, GpuAsk, GpuSpec, NodeId, NodeSpec, PodId, PodSpec, Terms, catalog},
    policy::{Candidates, Cause, Fault, Partitioner, Reads, Revision, View},
    state::{Event, Layout, Refused, Use},
};
use proptest::prelude::*;

/// Scores by a fixed function of the node's and the candidate's columns.
struct Mixer {
    revision: u32,
    questions: usize,
    rows: usize,
    refusals: usize,
    answer: Answer,
    reads_mix: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Right,
    Short,
    OutOfRange,
    Declines,
}

impl Mixer {
    fn new(revision: u32, answer: Answer) -> Self {
        Self { revision, questions: 0, rows: 0, refusals: 0, answer, reads_mix: true }
    }
}

impl Partitioner for Mixer {
    fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    fn reads(&self) -> Reads {
        Reads { seed: false, mix: self.reads_mix }
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(&mut self, view: &View<'_>, demand: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        self.questions += 1;
        self.rows += view.nodes.cpu_free.len();
        if self.answer == Answer::Declines {
            return Err(Fault { cause: Cause::Declined, detail: "no opinion".into() });
        }
        let cpu = view.demands.cpu[demand as usize];
        scores.extend((0..candidates.node.len()).map(|row| {
            let node = candidates.node[row] as usize;
            let gpu = view.gpus.free.get(candidates.gpu[row] as usize).copied().unwrap_or(7);
            let mixed =
                view.nodes.cpu_free[node].wrapping_mul(31) ^ gpu.wrapping_mul(17) ^ candidates.slot[row] ^ cpu ^ view.nodes.gpu_pods[node];
            (mixed % 13).cast_signed()
        }));
        match self.answer {
            Answer::Short => drop(scores.pop()),
            Answer::OutOfRange => scores[0] = i32::MAX,
            Answer::Right | Answer::Declines => {}
        }
        Ok(())
    }

    fn refused(&mut self, fault: &Fault) {
        assert_eq!(fault.cause, Cause::Invalid);
        self.refusals += 1;
    }
}

/// The same scores, but said to depend on the seed: asked about every node, each time.
struct Fresh(Mixer);

impl Partitioner for Fresh {
    fn revision(&self) -> Revision {
        self.0.revision()
    }

    fn reads(&self) -> Reads {
        Reads { seed: true, mix: true }
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(&mut self, view: &View<'_>, demand: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        self.0.score(view, demand, candidates, scores)
    }

    fn refused(&mut self, fault: &Fault) {
        self.0.refused(fault);
    }
}

fn cluster(planner: &mut Planner) -> u32 {
    let models = ["T4", "A100-80GB", "A30"];
    for model in models {
        planner.apply(Event::ModelSeen(catalog::builtin(model).unwrap())).unwrap();
    }
    for id in 0..NODES {
        planner.apply(Event::NodeAdded(NodeId::new(id), node(id))).unwrap();
    }
    NODES as u32
}

const NODES: usize = 5;

/// The node of that number: five that differ, then the same again.
fn node(id: usize) -> NodeSpec {
    let rows =
        [("T4", 4, Cut::Shares), ("A100-80GB", 2, Cut::Mig), ("A30", 2, Cut::Mig), ("A100-80GB", 8, Cut::Shares), ("T4", 0, Cut::Shares)];
    let (model, count, cut) = rows[id % NODES];
    let gpus = vec![GpuSpec::new(model, cut); count];
    NodeSpec { name: format!("node-{id}"), cpu_milli: 16_000, memory_mib: 65_536, gpus, ..NodeSpec::default() }
}

fn pod(name: u32, priority: i32, demand: Demand) -> PodSpec {
    PodSpec { name: format!("pod-{name}"), namespace: "team".into(), priority, demand, terms: Terms::default(), ..PodSpec::default() }
}

fn demands() -> impl Strategy<Value = Demand> {
    let ask = prop_oneof![
        Just(GpuAsk::None),
        (1u32..=1000).prop_map(|milli| GpuAsk::Share { count: 1, milli }),
        Just(GpuAsk::Share { count: 1, milli: 500 }),
        (1u32..=9).prop_map(|count| GpuAsk::Share { count, milli: 1000 }),
        prop::sample::select(vec!["1g.10gb", "1g.20gb", "3g.40gb", "4g.40gb", "7g.80gb", "2g.12gb", "9g.9gb"]).prop_map(GpuAsk::mig),
    ];
    let models =
        prop_oneof![3 => Just(vec![]), 1 => Just(vec!["T4".to_owned()]), 1 => Just(vec!["A30".to_owned(), "A100-80GB".to_owned()])];
    (ask, models, 0u32..6, 0u32..4).prop_map(|(gpu, models, cpu, memory)| {
        let models = if gpu == GpuAsk::None { vec![] } else { models };
        Demand { cpu_milli: cpu * 1000, memory_mib: memory * 4096, gpu, models, ..Demand::default() }.validated().unwrap()
    })
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(Demand, i32),
    Leave(prop::sample::Index),
    NodeGone(u32),
    NodeBack(u32),
    Model,
    Mix(Demand),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (demands(), 0i32..3).prop_map(|(demand, priority)| Step::Arrive(demand, priority)),
        4 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => (0u32..5).prop_map(Step::NodeGone),
        1 => (0u32..7).prop_map(Step::NodeBack),
        1 => Just(Step::Model),
        1 => demands().prop_map(Step::Mix),
    ];
    prop::collection::vec(step, 1..60)
}

/// Runs the steps, one round after each, and returns every action.
fn run(steps: &[Step], policies: &mut [&mut dyn Partitioner], mut each: impl FnMut(&Planner)) -> (Planner, Vec<Action>) {
    let mut planner = Planner::new(Config { seed: 7, ..Config::default() });
    cluster(&mut planner);
    let mut present: Vec<u32> = Vec::new();
    let mut actions = Vec::new();
    for (number, step) in (0u32..).zip(steps) {
        match step {
            Step::Arrive(demand, priority) => {
                // Ids are dense: a step that adds no pod leaves none behind.
                let id = (0..=present.len() as u32).find(|id| !present.contains(id)).unwrap();
                planner.apply(Event::PodAdded(PodId(id), pod(number, *priority, demand.clone()))).unwrap();
                present.push(id);
            }
            Step::Leave(which) if !present.is_empty() => {
                let id = present.remove(which.index(present.len()));
                planner.apply(Event::PodRemoved(PodId(id))).unwrap();
            }
            Step::Leave(_) => {}
            Step::NodeGone(id) => {
                let known = planner.cluster().node(NodeId(*id)).is_some();
                assert_eq!(planner.apply(Event::NodeRemoved(NodeId(*id))).is_ok(), known);
            }
            // A node that is new, or one that went and comes back.
            Step::NodeBack(id) => drop(planner.apply(Event::NodeAdded(NodeId(*id), node(*id as usize)))),
            Step::Model => planner.apply(Event::ModelSeen(catalog::builtin("H100-80GB").unwrap())).unwrap(),
            Step::Mix(demand) => planner.apply(Event::MixChanged(vec![(demand.clone(), 3)])).unwrap(),
        }
        // Who is told to stop stops at once, until nothing is left to do.
        for _ in 0..100 {
            let plan = planner.round(policies);
            if plan.actions.is_empty() {
                break;
            }
            for action in &plan.actions {
                if let Action::Evict { pod, .. } = action {
                    planner.apply(Event::PodRemoved(*pod)).unwrap();
                    present.retain(|id| *id != pod.0);
                }
            }
            actions.extend(plan.actions);
        }
        each(&planner);
    }
    (planner, actions)
}

/// Recounts what the pods use and compares it with what the nodes say is free.
fn check_books(planner: &Planner) {
    let cluster = planner.cluster();
    let mut used: BTreeMap<NodeId, (u32, u32)> = BTreeMap::new();
    let mut shares: BTreeMap<(NodeId, u8), u32> = BTreeMap::new();
    let mut partitions = 0;
    for id in (0..200).map(PodId) {
        let Some((node, grant)) = cluster.runs_on(id) else { continue };
        let demand = &cluster.pod(id).unwrap().spec.demand;
        let entry = used.entry(node).or_default();
        entry.0 += demand.cpu_milli;
        entry.1 += demand.memory_mib;
        for (gpu, what) in &grant.0 {
            match what {
                Use::Share(milli) => *shares.entry((node, *gpu)).or_default() += milli,
                Use::Partition(_) | Use::Mps(_) => partitions += 1,
            }
        }
    }
    let mut found = 0;
    for (id, node) in cluster.nodes() {
        let (cpu, memory) = used.get(&id).copied().unwrap_or_default();
        assert_eq!(node.room.cpu_free, node.spec.cpu_milli - cpu);
        assert_eq!(node.room.memory_free, node.spec.memory_mib - memory);
        for (index, gpu) in (0u8..).zip(&node.room.gpus) {
            match &gpu.layout {
                Layout::Shares { free } => assert_eq!(*free, 1000 - shares.get(&(id, index)).copied().unwrap_or(0)),
                Layout::Mig(mig) => {
                    assert!(!mig.used_slots.overlaps(mig.warm_slots));
                    let (grid, layouts) = (cluster.models().grid(gpu.model).unwrap(), cluster.models().layouts(gpu.model).unwrap());
                    let mut others = Vec::new();
                    for one in mig.partitions(layouts) {
                        assert!(grid.admits(&others, one.placement), "an illegal layout: {mig:?}");
                        others.push(one.placement);
                        found += usize::from(one.holder.is_some());
                    }
                }
                Layout::Mps(slices) => {
                    assert!(slices.all.iter().map(|one| one.memory_mib).sum::<u32>() <= slices.capacity_mib);
                    found += slices.all.iter().filter(|one| one.holder.is_some()).count();
                }
            }
        }
    }
    assert_eq!(partitions, found, "each partition in use has exactly one pod");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_books_balance_after_every_round(steps in steps()) {
        run(&steps, &mut [&mut Mixer::new(1, Answer::Right)], check_books);
    }

    #[test]
    fn what_waits_has_a_reason_and_what_has_a_place_does_not_wait(steps in steps()) {
        run(&steps, &mut [&mut Mixer::new(1, Answer::Right)], |planner| {
            for lane in planner.queue().lanes() {
                let reason = planner.reason(lane.1).expect("a pod that waits has a reason");
                assert_eq!(reason.lacking.values().sum::<usize>(), reason.nodes);
                assert_eq!(reason.nearest.is_some(), reason.nodes > 0);
                assert!(reason.to_string().starts_with("0/"));
            }
        });
    }

    #[test]
    fn equal_events_give_equal_plans(steps in steps()) {
        let (_, first) = run(&steps, &mut [&mut Mixer::new(1, Answer::Right)], |_| {});
        let (_, second) = run(&steps, &mut [&mut Mixer::new(1, Answer::Right)], |_| {});
        prop_assert_eq!(first, second);
    }

    #[test]
    fn cached_rankings_decide_as_fresh_ones(steps in steps()) {
        let mut asked_all = Fresh(Mixer::new(1, Answer::Right));
        let (_, fresh) = run(&steps, &mut [&mut asked_all], |_| {});
        for reads_mix in [true, false] {
            let mut policy = Mixer { reads_mix, ..Mixer::new(1, Answer::Right) };
            let (_, cached) = run(&steps, &mut [&mut policy], |_| {});
            prop_assert_eq!(&cached, &fresh);
        }
    }

    #[test]
    fn a_wrong_answer_is_refused_whole_and_the_next_policy_decides(steps in steps()) {
        let (_, expected) = run(&steps, &mut [&mut Mixer::new(2, Answer::Right)], |_| {});
        for answer in [Answer::Short, Answer::OutOfRange, Answer::Declines] {
            let mut wrong = Mixer::new(1, answer);
            let (_, actions) = run(&steps, &mut [&mut wrong, &mut Mixer::new(2, Answer::Right)], check_books);
            prop_assert_eq!(&actions, &expected);
            prop_assert_eq!(wrong.refusals, if answer == Answer::Declines { 0 } else { wrong.questions });
        }
    }
}

#[test]
fn a_chain_without_an_answer_leaves_pods_waiting_and_says_so() {
    let mut planner = Planner::new(Config::default());
    cluster(&mut planner);
    let demand = Demand { cpu_milli: 1, memory_mib: 1, gpu: GpuAsk::None, models: vec![], ..Demand::default() };
    planner.apply(Event::PodAdded(PodId(0), pod(0, 0, demand))).unwrap();
    let plan = planner.round(&mut [&mut Mixer::new(1, Answer::Declines)]);
    assert_eq!((plan.actions.len(), plan.unanswered, plan.faults.len()), (0, 1, 1));
    let plan = planner.round(&mut [&mut Mixer::new(1, Answer::Right)]);
    assert_eq!((plan.actions.len(), plan.unanswered), (1, 0));
}

#[test]
fn higher_priority_goes_first_then_age() {
    let mut planner = Planner::new(Config::default());
    cluster(&mut planner);
    let whole = Demand { cpu_milli: 0, memory_mib: 0, gpu: GpuAsk::Share { count: 8, milli: 1000 }, models: vec![], ..Demand::default() };
    for (id, priority) in [(0, 0), (1, 5), (2, 5)] {
        planner.apply(Event::PodAdded(PodId(id), pod(id, priority, whole.clone()))).unwrap();
    }
    let bound = |planner: &mut Planner| {
        let plan = planner.round(&mut [&mut Mixer::new(1, Answer::Right)]);
        plan.actions
            .into_iter()
            .filter_map(|action| if let Action::Bind { pod, .. } = action { Some(pod.0) } else { None })
            .collect::<Vec<_>>()
    };
    assert_eq!(bound(&mut planner), [1]);
    planner.apply(Event::PodRemoved(PodId(1))).unwrap();
    assert_eq!(bound(&mut planner), [2]);
    planner.apply(Event::PodRemoved(PodId(2))).unwrap();
    assert_eq!(bound(&mut planner), [0]);
}

#[test]
fn a_contradicting_event_is_refused_and_changes_nothing() {
    let mut planner = Planner::new(Config::default());
    let nodes = cluster(&mut planner);
    let spec = |model: &str, count, cut| NodeSpec {
        name: "odd".into(),
        cpu_milli: 1,
        memory_mib: 1,
        gpus: vec![GpuSpec::new(model, cut); count],
        ..NodeSpec::default()
    };
    let demand = Demand { cpu_milli: 1, memory_mib: 1, gpu: GpuAsk::None, models: vec![], ..Demand::default() };
    planner.apply(Event::PodAdded(PodId(0), pod(0, 0, demand.clone()))).unwrap();
    let mut redefined = catalog::builtin("A30").unwrap();
    redefined.grid = None;
    let refused = [
        (Event::NodeAdded(NodeId(0), spec("T4", 1, Cut::Shares)), "number 0, which node-0 has"),
        (Event::NodeAdded(NodeId(nodes + 9), spec("T4", 1, Cut::Shares)), "ids are dense"),
        (Event::NodeAdded(NodeId(nodes), spec("Voodoo2", 1, Cut::Shares)), "not among the cluster's models"),
        (Event::NodeAdded(NodeId(nodes), spec("T4", 1, Cut::Mig)), "cannot do; use shares"),
        (Event::NodeAdded(NodeId(nodes), spec("T4", 65, Cut::Shares)), "the limit is 64"),
        (Event::NodeRemoved(NodeId(nodes)), "without ever having come"),
        (Event::PodAdded(PodId(0), pod(1, 0, demand)), "which is taken"),
        (Event::PodRemoved(PodId(4)), "without ever having come"),
        (Event::ModelSeen(redefined), "described before in other words"),
    ];
    for (event, words) in refused {
        let error: Refused = planner.apply(event).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!((planner.cluster().nodes().count(), planner.queue().len()), (nodes as usize, 1));
}

#[test]
fn a_node_that_comes_back_does_not_run_the_pods_of_the_one_that_went() {
    let mut planner = Planner::new(Config::default());
    planner.apply(Event::ModelSeen(catalog::builtin("T4").unwrap())).unwrap();
    let gpus = vec![GpuSpec::new("T4", Cut::Shares)];
    let spec = NodeSpec { name: "node".into(), cpu_milli: 4000, memory_mib: 4096, gpus, ..NodeSpec::default() };
    planner.apply(Event::NodeAdded(NodeId(0), spec.clone())).unwrap();
    let demand =
        Demand { cpu_milli: 1000, memory_mib: 1, gpu: GpuAsk::Share { count: 1, milli: 300 }, models: vec![], ..Demand::default() };
    planner.apply(Event::PodAdded(PodId(0), pod(0, 0, demand))).unwrap();
    planner.round(&mut [&mut Mixer::new(1, Answer::Right)]);
    planner.apply(Event::NodeRemoved(NodeId(0))).unwrap();
    planner.apply(Event::NodeAdded(NodeId(0), spec)).unwrap();
    planner.apply(Event::PodRemoved(PodId(0))).unwrap();
    let node = planner.cluster().node(NodeId(0)).unwrap();
    assert_eq!((node.room.cpu_free, node.room.gpus[0].share_free(), node.gpu_pods()), (4000, 1000, 0));
}

#[test]
fn a_reason_names_what_is_short_and_what_would_help() {
    let mut planner = Planner::new(Config::default());
    cluster(&mut planner);
    let cases = [
        (GpuAsk::Share { count: 9, milli: 1000 }, vec![], 1, "too small even when idle", true),
        (GpuAsk::mig("9g.9gb"), vec![], 1, "has profile 9g.9gb", true),
        (GpuAsk::Share { count: 1, milli: 100 }, vec!["V100".to_owned()], 1, "it has no GPU of V100", true),
        (GpuAsk::None, vec![], 17_000, "1000 more free milli-cores would do", true),
    ];
    for (id, (gpu, models, cpu_milli, words, never)) in (0..).zip(cases) {
        let demand = Demand { cpu_milli, memory_mib: 1, gpu, models, ..Demand::default() };
        planner.apply(Event::PodAdded(PodId(id), pod(id, 0, demand))).unwrap();
        let plan = planner.round(&mut [&mut Mixer::new(1, Answer::Right)]);
        let reasons: Vec<_> = plan.waiting.iter().map(|&demand| planner.reason(demand).unwrap()).collect();
        let text = reasons.iter().map(ToString::to_string).find(|text| text.contains(words));
        assert!(text.is_some(), "{words:?} in none of {reasons:?}");
        assert!(reasons.iter().all(|reason| reason.never == never));
    }
    // Two halves in use leave the slots of a 4g.40gb free, but not in its place.
    let mig = |profile: &str| Demand {
        cpu_milli: 0,
        memory_mib: 0,
        gpu: GpuAsk::mig(profile),
        models: vec!["A100-80GB".into()],
        ..Demand::default()
    };
    for id in 4..6 {
        planner.apply(Event::PodAdded(PodId(id), pod(id, 1, mig("3g.40gb")))).unwrap();
    }
    planner.round(&mut [&mut Mixer::new(1, Answer::Right)]);
    for id in 6..9 {
        planner.apply(Event::PodAdded(PodId(id), pod(id, 1, mig("4g.40gb")))).unwrap();
    }
    let plan = planner.round(&mut [&mut Mixer::new(1, Answer::Right)]);
    let reason = planner.reason(plan.waiting[0]).unwrap();
    assert!(!reason.never && reason.to_string().contains("4g.40gb"), "{reason}");
}

/// `count` nodes with one T4 each.
fn large(count: usize) -> Planner {
    let mut planner = Planner::new(Config::default());
    planner.apply(Event::ModelSeen(catalog::builtin("T4").unwrap())).unwrap();
    for id in 0..count {
        let gpus = vec![GpuSpec::new("T4", Cut::Shares)];
        let spec = NodeSpec { name: format!("node-{id}"), cpu_milli: 4000, memory_mib: 4096, gpus, ..NodeSpec::default() };
        planner.apply(Event::NodeAdded(NodeId::new(id), spec)).unwrap();
    }
    planner
}

fn share(milli: u32) -> Demand {
    Demand { cpu_milli: 0, memory_mib: 0, gpu: GpuAsk::Share { count: 1, milli }, models: vec![], ..Demand::default() }
}

#[test]
fn a_policy_is_asked_about_changed_nodes_only() {
    const COUNT: usize = 3000;
    let mut planner = large(COUNT);
    let mut policy = Mixer { reads_mix: false, ..Mixer::new(1, Answer::Right) };
    for id in 0..10 {
        planner.apply(Event::PodAdded(PodId(id), pod(id, 0, share(100)))).unwrap();
        let before = policy.rows;
        planner.round(&mut [&mut policy]);
        // Every node at first, in pieces; then the one node that the pod before went to.
        assert_eq!(policy.rows - before, if id == 0 { COUNT } else { 1 });
        assert_eq!(policy.questions, 3 + id as usize);
    }
    // Another demand has seen nothing yet.
    planner.apply(Event::PodAdded(PodId(10), pod(10, 0, share(300)))).unwrap();
    planner.round(&mut [&mut policy]);
    assert_eq!(policy.rows, COUNT + 9 + COUNT);
}

#[test]
fn a_ranking_that_fell_behind_the_journal_looks_at_everything() {
    let mut planner = large(3);
    let mut policy = Mixer { reads_mix: false, ..Mixer::new(1, Answer::Right) };
    planner.apply(Event::PodAdded(PodId(0), pod(0, 0, share(500)))).unwrap();
    planner.round(&mut [&mut policy]);
    // Far more changes than the journal keeps, by another demand.
    for _ in 0..40_000 {
        planner.apply(Event::PodAdded(PodId(1), pod(1, 0, share(10)))).unwrap();
        planner.round(&mut [&mut policy]);
        planner.apply(Event::PodRemoved(PodId(1))).unwrap();
    }
    let before = policy.rows;
    planner.apply(Event::PodAdded(PodId(1), pod(1, 0, share(500)))).unwrap();
    planner.round(&mut [&mut policy]);
    assert_eq!(policy.rows - before, 3);
}

/// Fails at its second question of each decision.
struct Halting(Mixer, usize);

impl Partitioner for Halting {
    fn revision(&self) -> Revision {
        self.0.revision()
    }

    fn reads(&self) -> Reads {
        self.0.reads()
    }

    fn ready(&mut self) -> Result<(), Fault> {
        self.1 = 0;
        Ok(())
    }

    fn score(&mut self, view: &View<'_>, demand: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        self.1 += 1;
        if self.1 == 2 {
            return Err(Fault { cause: Cause::Trap, detail: "second piece".into() });
        }
        self.0.score(view, demand, candidates, scores)
    }

    fn refused(&mut self, fault: &Fault) {
        self.0.refused(fault);
    }
}

#[test]
fn a_policy_that_fails_at_one_piece_does_not_decide_until_it_answered_all() {
    let (mut planner, mut expected) = (large(3000), large(3000));
    let (mut halting, mut fallback) = (Halting(Mixer::new(1, Answer::Right), 0), Mixer::new(2, Answer::Right));
    let mut other = Mixer::new(2, Answer::Right);
    for id in 0..3 {
        for planner in [&mut planner, &mut expected] {
            planner.apply(Event::PodAdded(PodId(id), pod(id, 0, share(500)))).unwrap();
        }
        let plan = planner.round(&mut [&mut halting, &mut fallback]);
        assert_eq!(plan.faults.values().map(|faults| faults.count).sum::<usize>(), 1);
        assert_eq!(plan.actions, expected.round(&mut [&mut other]).actions);
    }
}

#[test]
fn demands_that_make_no_sense_are_refused() {
    let mut planner = large(1);
    let ask =
        |count, milli| Demand { cpu_milli: 0, memory_mib: 0, gpu: GpuAsk::Share { count, milli }, models: vec![], ..Demand::default() };
    for demand in [ask(0, 1000), ask(1, 0), ask(1, 1001), ask(65, 1000)] {
        let error = planner.apply(Event::PodAdded(PodId(0), pod(0, 0, demand.clone()))).unwrap_err();
        assert!(matches!(error, Refused::Demand { .. }), "{error}");
        assert!(planner.apply(Event::MixChanged(vec![(demand, 1)])).is_err());
    }
    assert_eq!(planner.queue().len(), 0);
}

#[test]
fn a_profile_is_found_under_every_name_it_has() {
    for name in ["7g.80gb", "7g.79gb", "mig-7g.80gb", "nvidia.com/mig-7g.80gb"] {
        let mut planner = Planner::new(Config::default());
        cluster(&mut planner);
        let demand = Demand { cpu_milli: 0, memory_mib: 0, gpu: GpuAsk::mig(name), models: vec![], ..Demand::default() };
        planner.apply(Event::PodAdded(PodId(0), pod(0, 0, demand))).unwrap();
        assert_eq!(planner.round(&mut [&mut Mixer::new(1, Answer::Right)]).actions.len(), 1, "{name}");
    }
}
