//! Nodes and what their agents report.

use std::collections::BTreeMap;

use partita_core::{
    model::{NodeId, NodeSpec},
    state::Event,
};

use super::{
    Scheduler,
    handshake::{Outcome, Report},
    pods::Stage,
};
use crate::{
    objects::{GpuNode, Node},
    translate,
};

/// How long a GPU rests after its agent could not make a partition there, milliseconds; doubled each time until it succeeds.
const REST_MS: u64 = 5_000;
/// The longest rest.
const REST_MAX_MS: u64 = 600_000;

/// Why a GPU rests.
#[derive(Clone, Debug)]
struct Rest {
    until_ms: u64,
    why: String,
    times: u32,
}

/// What is known of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeEntry {
    object: Option<Node>,
    gpus: Option<GpuNode>,
    /// Its number, while the core knows it.
    pub(super) id: Option<NodeId>,
    /// What its agent said last.
    pub(super) report: Report,
    rests: BTreeMap<u8, Rest>,
    /// What is wrong with what it says of itself.
    trouble: String,
}

impl NodeEntry {
    /// Whether an agent looks after its GPUs.
    pub(super) fn has_agent(&self) -> bool {
        self.gpus.is_some()
    }

    /// The generation that stands in its object; none without an agent.
    pub(super) fn generation(&self) -> Option<i64> {
        self.gpus.as_ref().map(|gpus| gpus.spec.value.generation)
    }

    /// The uid of its agent's object.
    pub(super) fn agent_uid(&self) -> String {
        self.gpus.as_ref().and_then(|gpus| gpus.metadata.uid.clone()).unwrap_or_default()
    }

    /// Its labels.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        self.object.as_ref().and_then(|object| object.metadata.labels.clone()).unwrap_or_default()
    }

    pub(super) fn is_quarantined(&self) -> bool {
        !self.rests.is_empty()
    }
}

impl Scheduler {
    pub(super) fn see_node(&mut self, name: &str, object: Option<Node>) {
        let entry = self.nodes.entry(name.to_owned()).or_default();
        entry.object = object;
        if self.complete {
            self.refresh_node(name);
        }
    }

    pub(super) fn see_gpus(&mut self, name: &str, object: Option<GpuNode>) {
        let entry = self.nodes.entry(name.to_owned()).or_default();
        entry.gpus = object;
        entry.report = entry.gpus.as_ref().map(|gpus| Report::of(&gpus.status.value)).unwrap_or_default();
        if let Some(generation) = entry.generation() {
            self.handshakes.found(name, generation);
        }
        if self.complete {
            self.refresh_node(name);
            self.settle_reports(name);
        }
    }

    /// Tells the core of a node as it is now.
    pub(super) fn refresh_node(&mut self, name: &str) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        let Some(object) = &entry.object else {
            self.lose_node(name);
            return;
        };
        let pods = &self.pods;
        let view = translate::node(object, entry.gpus.as_ref(), &self.storage, &|user| pods.contains_key(user));
        let trouble = view.odd.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if entry.trouble != trouble {
            if !trouble.is_empty() {
                tracing::warn!(node = name, "{trouble}");
            }
            entry.trouble = trouble;
        }
        let mut spec = view.spec;
        for (index, rest) in &entry.rests {
            if let Some(gpu) = spec.gpus.get_mut(usize::from(*index)) {
                gpu.unusable = gpu.unusable.take().or_else(|| (!rest.why.is_empty()).then(|| rest.why.clone()));
            }
        }
        let id = entry.id;
        for model in view.models {
            self.apply(Event::ModelSeen(model));
        }
        match id {
            Some(id) => {
                if !self.apply(Event::NodeChanged(id, spec.clone())) {
                    self.apply(Event::NodeChanged(id, NodeSpec { gpus: Vec::new(), ..spec }));
                }
                self.check_flights(name);
            }
            None => self.add_node(name, spec),
        }
    }

    fn add_node(&mut self, name: &str, spec: NodeSpec) {
        let id = NodeId(self.node_ids.take());
        // A node whose GPUs make no sense still runs pods without GPU.
        let added =
            self.apply(Event::NodeAdded(id, spec.clone())) || self.apply(Event::NodeAdded(id, NodeSpec { gpus: Vec::new(), ..spec }));
        if !added {
            self.node_ids.give_back(id.0);
            return;
        }
        self.node_names.insert(id, name.to_owned());
        if let Some(entry) = self.nodes.get_mut(name) {
            entry.id = Some(id);
        }
        for pod in self.bound.get(name).into_iter().flatten().cloned().collect::<Vec<_>>() {
            self.refresh_pod(&pod);
        }
    }

    /// The node went away: who was on its way there comes back, who ran there is without a home until the pod garbage collector removes it
    /// or the node returns.
    fn lose_node(&mut self, name: &str) {
        for pod in self.handshakes.gone(name) {
            self.fail_flight(pod, "its node went away");
        }
        let Some(entry) = self.nodes.get_mut(name) else { return };
        let id = entry.id.take();
        if entry.gpus.is_none() {
            self.nodes.remove(name);
        }
        let Some(id) = id else { return };
        let here: Vec<String> = self.pods.iter().filter(|(_, pod)| pod.on() == Some(name)).map(|(name, _)| name.clone()).collect();
        for pod in here {
            match self.pods[&pod].stage {
                Stage::Assumed(_) => self.give_back(&pod, "its node went away"),
                _ => self.make_homeless(&pod),
            }
        }
        self.apply(Event::NodeRemoved(id));
        self.node_names.remove(&id);
        self.node_ids.give_back(id.0);
    }

    /// What an agent's report means for the pods that wait for it.
    fn settle_reports(&mut self, name: &str) {
        let Some(entry) = self.nodes.get(name) else { return };
        let report = entry.report.clone();
        for (pod, outcome) in self.handshakes.reported(name, &report) {
            match outcome {
                Outcome::Ready => self.ready(pod),
                Outcome::Failed { gpu, message } => {
                    self.rest(name, gpu, &message);
                    self.fail_flight(pod, &format!("node {name} could not make its partition: {message}"));
                }
            }
        }
    }

    /// Gives back what silent agents were asked for, and ends the rest of GPUs that rested long enough.
    pub(super) fn end_silences(&mut self) {
        for (name, pod) in self.handshakes.overdue(self.now_ms) {
            let why = "the agent of the node does not answer; is partita-agent running there?";
            let gpus: Vec<u8> =
                self.planner.cluster().runs_on(pod).map(|(_, grant)| grant.0.iter().map(|part| part.0).collect()).unwrap_or_default();
            for gpu in gpus {
                self.rest(&name, gpu, why);
            }
            self.fail_flight(pod, &format!("node {name}: {why}"));
        }
        let now_ms = self.now_ms;
        let over = |(_, entry): &(&String, &NodeEntry)| entry.rests.values().any(|rest| rest.until_ms <= now_ms && !rest.why.is_empty());
        for name in self.nodes.iter().filter(over).map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            if let Some(entry) = self.nodes.get_mut(&name) {
                // How often it failed is remembered for a while, so that the next rest is longer.
                entry.rests.values_mut().filter(|rest| rest.until_ms <= now_ms).for_each(|rest| rest.why.clear());
                entry.rests.retain(|_, rest| rest.until_ms.saturating_add(REST_MAX_MS) > now_ms);
            }
            self.refresh_node(&name);
        }
    }

    /// Sets a GPU aside for a while.
    fn rest(&mut self, name: &str, gpu: u8, why: &str) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        let times = entry.rests.get(&gpu).map_or(0, |rest| rest.times);
        let until_ms = self.now_ms + (REST_MS << times.min(20)).min(REST_MAX_MS);
        tracing::warn!(node = name, gpu, "a GPU is set aside for a while: {why}");
        entry.rests.insert(gpu, Rest { until_ms, why: why.to_owned(), times: times + 1 });
        self.refresh_node(name);
    }
}
