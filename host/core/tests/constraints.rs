//! Where pods may run, compared with Kubernetes' filters in plain loops: the same nodes for every pod that waits, at every step, while pods
//! come, are placed, evicted, moved and relabelled, and nodes and namespaces change.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod kube;
mod world;

use std::collections::BTreeMap;

use kube::{
    Kube, Place,
    draw::{NAMESPACES, NODES_MAX, Step, nodes, steps},
};
use partita_core::{
    Action, Config, Planner,
    model::{NodeId, NodeSpec, PodId, PodSpec, catalog},
    state::Event,
};
use proptest::{prelude::*, sample::Index};
use world::Mixer;

/// Nobody is told to go, and nothing is kept.
const PLAIN: Config = Config { preempt: false, holds: 0, ..Config::DEFAULT };
const ROUGH: Config = Config { moves: 2, holds: 2, patience_ms: 20_000, hold_ms: 60_000, ..Config::DEFAULT };

/// A planner beside what the outside knows.
struct Both {
    planner: Planner,
    kube: Kube,
    policy: Mixer,
    now_ms: u64,
    written: Vec<String>,
}

impl Both {
    fn new(config: Config, nodes: &[NodeSpec], policy: Mixer) -> Self {
        let mut both = Self { planner: Planner::new(config), kube: Kube::default(), policy, now_ms: 0, written: Vec::new() };
        both.planner.apply(Event::ModelSeen(catalog::builtin("T4").unwrap())).unwrap();
        for name in NAMESPACES {
            both.namespace(name, None);
        }
        for (row, spec) in nodes.iter().enumerate() {
            both.node_comes(NodeId::new(row), spec);
        }
        both
    }

    fn namespace(&mut self, name: &str, team: Option<String>) {
        let labels: BTreeMap<String, String> = team.into_iter().map(|team| ("team".to_owned(), team)).collect();
        self.planner.apply(Event::Namespace(name.into(), Some(labels.clone()))).unwrap();
        self.kube.namespaces.insert(name.into(), labels);
    }

    fn node_comes(&mut self, id: NodeId, spec: &NodeSpec) {
        if self.planner.apply(Event::NodeAdded(id, spec.clone())).is_ok() {
            self.kube.nodes.insert(id, spec.clone());
        }
    }

    fn pick(&self, which: Index, of: impl Fn(&PodId) -> bool) -> Option<PodId> {
        let pods: Vec<PodId> = self.kube.pods.keys().copied().filter(of).collect();
        if pods.is_empty() { None } else { Some(pods[which.index(pods.len())]) }
    }

    fn ends(&mut self, pod: PodId) {
        self.planner.apply(Event::PodRemoved(pod)).unwrap();
        self.kube.pods.remove(&pod);
        self.kube.places.remove(&pod);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Arrive(spec) => {
                let id = (0..u32::MAX).map(PodId).find(|id| !self.kube.pods.contains_key(id)).unwrap();
                let spec = PodSpec { name: format!("pod-{}", id.0), ..spec.clone() };
                self.planner.apply(Event::PodAdded(id, spec.clone())).unwrap();
                self.kube.pods.insert(id, spec);
            }
            Step::Leave(which) => self.pick(*which, |_| true).into_iter().for_each(|pod| self.ends(pod)),
            Step::Gone(which) => self.gone(*which),
            Step::Relabel(which, labels) => {
                if let Some(pod) = self.pick(*which, |_| true) {
                    let labels: BTreeMap<String, String> = labels.iter().cloned().collect();
                    self.planner.apply(Event::PodRelabelled(pod, labels.clone())).unwrap();
                    self.kube.pods.get_mut(&pod).unwrap().labels = labels;
                }
            }
            Step::Namespace(row, team) => self.namespace(NAMESPACES[*row], team.clone()),
            Step::NodeGone(row) => {
                let id = NodeId::new(*row);
                if self.planner.apply(Event::NodeRemoved(id)).is_ok() {
                    self.kube.nodes.remove(&id);
                    // A node of that number that comes later does not run its pods.
                    self.kube.places.values_mut().for_each(|places| places.retain(|place| place.node != id));
                }
            }
            Step::NodeBack(row, spec) => self.node_comes(NodeId::new(row % NODES_MAX), spec),
            Step::Time(ms) => {
                self.now_ms += ms;
                self.planner.apply(Event::Time(self.now_ms)).unwrap();
            }
            Step::Round => self.round(),
        }
    }

    /// One that is on its way has gone: it stopped, or left the place from which it moved.
    fn gone(&mut self, which: Index) {
        let going = |pod: &PodId| self.planner.cluster().pod(*pod).is_some_and(|pod| pod.leaving.is_some());
        let stopping =
            |pod: &PodId| self.planner.cluster().pod(*pod).and_then(|pod| pod.placed.as_ref()).is_some_and(|place| place.stopping);
        let Some(pod) = self.pick(which, |pod| going(pod) || stopping(pod)) else { return };
        if going(&pod) {
            self.planner.apply(Event::PodLeft(pod)).unwrap();
            self.kube.places.get_mut(&pod).unwrap().retain(|place| !place.terminating);
        } else {
            self.ends(pod);
        }
    }

    /// One round. Whatever gets a place may have it at that moment.
    fn round(&mut self) {
        let plan = self.planner.round(&mut [&mut self.policy]);
        for action in &plan.actions {
            match action {
                Action::Change { .. } => {}
                Action::Bind { pod, node, .. } => self.placed(*pod, *node, action),
                Action::Evict { pod, .. } => self.terminates(*pod),
                Action::Move { pod, node, .. } => {
                    self.terminates(*pod);
                    self.placed(*pod, *node, action);
                }
            }
        }
        self.written.push(serde_json::to_string(&plan.actions).unwrap());
        for pod in self.kube.pods.keys() {
            let known = self.planner.cluster().pod(*pod).unwrap();
            let waits = known.placed.is_none();
            assert_eq!(waits, !self.kube.places.contains_key(pod), "{pod:?}");
        }
    }

    fn terminates(&mut self, pod: PodId) {
        self.kube.places.get_mut(&pod).unwrap().iter_mut().for_each(|place| place.terminating = true);
    }

    fn placed(&mut self, pod: PodId, node: NodeId, action: &Action) {
        assert!(self.kube.fits(pod, node), "{action:?} breaks what {:?} asks for", self.kube.pods[&pod]);
        self.kube.places.entry(pod).or_default().push(Place { node, terminating: false });
    }

    /// For every pod that waits the same nodes will do; and if none does, it is said why.
    fn compare(&self) {
        let cluster = self.planner.cluster();
        let exact = cluster.claims().next().is_none();
        for &pod in self.kube.pods.keys().filter(|pod| !self.kube.places.contains_key(pod)) {
            let demand = cluster.pod(pod).unwrap().demand;
            let (found, expected) = (self.planner.feasible(demand), self.kube.feasible(pod));
            // Places that are kept for others are no places for this one.
            assert!(found.iter().all(|node| expected.contains(node)), "{found:?} {expected:?} {:?}", self.kube.pods[&pod]);
            assert!(!exact || found.len() == expected.len(), "{found:?} {expected:?} {:?}", self.kube.pods[&pod]);
            let reason = self.planner.reason(demand);
            assert_eq!(reason.is_none(), !found.is_empty());
            if let Some(reason) = reason {
                assert_eq!(reason.lacking.values().sum::<usize>(), reason.nodes);
            }
            let copies = self.planner.copies(demand, 3);
            assert_eq!(copies == 0, found.is_empty(), "{copies} {found:?}");
        }
    }

    /// Round after round, until nothing happens any more: then nobody waits who has a place.
    fn rests(&mut self) {
        for _ in 0..30 {
            self.round();
            if self.written.last().is_some_and(|plan| plan == "[]") {
                break;
            }
        }
        for (pod, spec) in self.kube.pods.iter().filter(|(pod, _)| !self.kube.places.contains_key(pod)) {
            let demand = self.planner.cluster().pod(*pod).unwrap().demand;
            assert_eq!(self.planner.feasible(demand), [], "{spec:?}");
        }
    }

    fn play(&mut self, steps: &[Step], compare: bool) -> Vec<String> {
        for step in steps {
            self.step(step);
            if compare {
                self.compare();
            }
        }
        self.written.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn the_nodes_that_will_do_are_those_of_kubernetes(nodes in nodes(), steps in steps()) {
        let mut both = Both::new(PLAIN, &nodes, Mixer::cached());
        both.play(&steps, true);
        both.rests();
    }

    #[test]
    fn evictions_moves_and_kept_places_break_nothing_that_pods_ask_for(nodes in nodes(), steps in steps()) {
        Both::new(ROUGH, &nodes, Mixer::cached()).play(&steps, true);
    }

    #[test]
    fn equal_events_give_equal_bytes_and_cached_rankings_decide_as_fresh_ones(nodes in nodes(), steps in steps()) {
        let first = Both::new(ROUGH, &nodes, Mixer::cached()).play(&steps, false);
        prop_assert_eq!(&first, &Both::new(ROUGH, &nodes, Mixer::cached()).play(&steps, false));
        prop_assert_eq!(&first, &Both::new(ROUGH, &nodes, Mixer::fresh()).play(&steps, false));
    }
}
