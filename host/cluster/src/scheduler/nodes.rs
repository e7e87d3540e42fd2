//! Nodes and what their agents report.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::{
    model::{NodeId, NodeSpec, PodId},
    state::Event,
};

use super::{Scheduler, follow::Ghost, handshake::Outcome, pods::Stage, report::Report, rests::Rest, silence::Silence};
use crate::{
    crd::{FoundGpu, NUMBER_MAX, is_pod},
    objects::{GpuNode, Node},
    translate::{self, NodeView},
};

/// What is known of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeEntry {
    pub(super) object: Option<Node>,
    pub(super) gpus: Option<GpuNode>,
    /// Its number, while the core knows it.
    pub(super) id: Option<NodeId>,
    /// What its agent said last.
    pub(super) report: Report,
    /// GPUs that are set aside for a while, or were not long ago.
    pub(super) rests: BTreeMap<u8, Rest>,
    /// Users that are gone and of whom its agent still tells.
    pub(super) ghosts: BTreeSet<Ghost>,
    /// Whether its agent works.
    pub(super) silence: Silence,
    /// Its agent left, and its GPUs are counted by somebody else.
    pub(super) handed_back: bool,
    /// When a rest ends, or it is to be listened to, milliseconds.
    pub(super) alarm_ms: Option<u64>,
    /// What is wrong with what it says of itself.
    trouble: String,
}

impl NodeEntry {
    /// Whether an agent looks after its GPUs.
    pub(super) fn has_agent(&self) -> bool {
        self.agent().is_some()
    }

    /// The object of the agent that looks after its GPUs.
    pub(super) fn agent(&self) -> Option<&GpuNode> {
        self.gpus.as_ref().filter(|_| !self.handed_back)
    }

    /// The uid of its agent's object.
    pub(super) fn agent_uid(&self) -> Option<String> {
        self.gpus.as_ref()?.metadata.uid.clone()
    }

    /// The highest number of a layout that was used for it, as far as its object tells; none without an agent. An object that was made anew
    /// begins at 0, but its agent may remember a higher one; what no layout can have is not believed.
    pub(super) fn generation(&self) -> Option<i64> {
        let gpus = self.gpus.as_ref()?;
        let seen = Some(gpus.status.value.observed_generation).filter(|seen| *seen < NUMBER_MAX);
        Some(gpus.spec.value.generation.max(seen.unwrap_or(0)))
    }

    /// The term in which its layout was written. What its agent says is no reason to write under another.
    pub(super) fn term(&self) -> Option<i64> {
        self.gpus.as_ref().map(|gpus| gpus.spec.value.term)
    }

    /// Why no more layouts can be written for it, if its numbers are used up: somebody wrote them by hand.
    fn spent(&self) -> Option<String> {
        let spec = &self.agent()?.spec.value;
        let what = [("term", spec.term), ("generation", spec.generation)].into_iter().find(|(_, number)| *number >= NUMBER_MAX)?;
        Some(format!("no layout can follow {} {} of its GpuNode; delete the GpuNode, which its agent makes anew", what.0, what.1))
    }

    fn users(&self) -> impl Iterator<Item = &String> {
        self.gpus.iter().flat_map(|gpus| &gpus.status.value.gpus).flat_map(FoundGpu::sharers)
    }

    /// Whether its agent says that somebody uses one of its GPUs as a whole or in shares.
    fn has_users(&self) -> bool {
        self.users().next().is_some()
    }

    /// Whether its agent says that a pod does.
    pub(super) fn is_used_by(&self, pod: &str) -> bool {
        self.users().any(|user| user == pod)
    }

    /// Whether its agent tells of users that are no pods.
    pub(super) fn has_processes(&self) -> bool {
        self.users().any(|user| !is_pod(user))
    }

    /// Its labels.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        self.object.as_ref().and_then(|object| object.metadata.labels.clone()).unwrap_or_default()
    }
}

impl Scheduler {
    pub(super) fn see_node(&mut self, name: &str, object: Option<Node>) {
        self.nodes.entry(name.to_owned()).or_default().object = object;
        if self.complete {
            self.refresh_node(name);
        }
    }

    pub(super) fn see_gpus(&mut self, name: &str, object: Option<GpuNode>) {
        let entry = self.nodes.entry(name.to_owned()).or_default();
        let before = entry.agent_uid();
        entry.report = object.as_ref().map(Report::of).unwrap_or_default();
        entry.gpus = object;
        entry.lay_ghosts();
        let (uid, generation) = (entry.agent_uid(), entry.generation());
        if before.is_some() && uid != before {
            // What was written or is being written was for that object.
            for pod in self.handshakes.gone(name) {
                self.fail_flight(pod, &format!("the GpuNode of node {name} is gone"));
            }
        }
        if let Some(generation) = generation {
            self.handshakes.found(name, generation);
        }
        if self.complete {
            self.look_at(name);
            self.settle_reports(name);
        }
    }

    /// Looks again at nodes on which pods may be booked otherwise now.
    pub(super) fn recheck_nodes(&mut self) {
        for name in std::mem::take(&mut self.recheck) {
            self.look_at(&name);
        }
    }

    /// Who has what of a node's GPUs, and what the node is then.
    fn look_at(&mut self, name: &str) {
        self.follow(name);
        self.refresh_node(name);
        self.follow(name);
        if self.nodes.get(name).is_some_and(NodeEntry::has_users) {
            // By now all are booked who can be: who is left is a stranger.
            self.refresh_node(name);
        }
    }

    /// Tells the core of a node as it is now.
    pub(super) fn refresh_node(&mut self, name: &str) {
        let now_ms = self.now_ms;
        let Some(entry) = self.nodes.get_mut(name) else { return };
        entry.listen(now_ms);
        self.plan_alarm(name);
        let Some(entry) = self.nodes.get(name) else { return };
        let Some(object) = &entry.object else {
            self.lose_node(name);
            return;
        };
        let (pods, cluster) = (&self.pods, self.planner.cluster());
        let ours = self.gpus_of_ours(name);
        // Who is not booked yet will be, and then this node is looked at again.
        let known = |gpu: u8, user: &str| {
            if !is_pod(user) {
                return ours.contains(&gpu);
            }
            let Some(pod) = pods.get(user).filter(|pod| pod.on() == Some(name)) else { return false };
            let runs = pod.id.and_then(|id| cluster.runs_on(id));
            runs.map_or(pod.stage != Stage::Runs, |(_, grant)| grant.0.iter().any(|part| part.0 == gpu))
        };
        let NodeView { mut spec, models, odd } = translate::node(object, entry.agent(), &self.storage, &known);
        let (spent, unattended) = (entry.spent(), entry.unattended(now_ms));
        let trouble = odd.iter().map(ToString::to_string).chain(spent.clone()).chain(unattended.clone()).collect::<Vec<_>>().join("; ");
        let Some(entry) = self.nodes.get_mut(name) else { return };
        if entry.trouble != trouble {
            if !trouble.is_empty() {
                tracing::warn!(node = name, "{trouble}");
            }
            entry.trouble = trouble;
        }
        if let Some(why) = spent.or(unattended) {
            for gpu in &mut spec.gpus {
                gpu.unusable.get_or_insert_with(|| why.clone());
            }
        }
        entry.set_aside(&mut spec);
        // Layouts do not name them, so who waits there for a part would wait in vain.
        let broken = (0u8..).zip(&spec.gpus).filter_map(|(index, gpu)| Some((index, gpu.unusable.clone()?))).collect();
        let id = entry.id;
        for model in models {
            let known = self.planner.cluster().models();
            // Each telling makes policies look at every node again.
            if known.id(&model.name).is_none_or(|id| *known.get(id) != model) {
                self.apply(Event::ModelSeen(model));
            }
        }
        match id {
            Some(id) => self.change_node(name, id, spec, &broken),
            None => self.add_node(name, spec),
        }
    }

    /// GPUs of a node that pods have that may have started: processes there are theirs.
    fn gpus_of_ours(&self, name: &str) -> BTreeSet<u8> {
        let cluster = self.planner.cluster();
        let node = self.nodes.get(name).and_then(|entry| cluster.node(entry.id?));
        let started = |pod: &&PodId| {
            let entry = self.pod_names.get(pod).and_then(|name| self.pods.get(name));
            entry.is_some_and(|entry| entry.flight().is_none_or(|flight| flight.step.is_committed()))
        };
        let pods = node.into_iter().flat_map(|node| &node.pods).filter(started);
        pods.filter_map(|&pod| cluster.runs_on(pod)).flat_map(|(_, grant)| &grant.0).map(|part| part.0).collect()
    }

    fn change_node(&mut self, name: &str, id: NodeId, spec: NodeSpec, broken: &BTreeMap<u8, String>) {
        let known = self.planner.cluster().node(id).map(|node| &node.spec);
        // A node tells that it lives far more often than that it changed.
        if known == Some(&spec) {
            return;
        }
        let same_gpus = known.is_some_and(|known| known.gpus == spec.gpus);
        if !self.apply(Event::NodeChanged(id, spec.clone())) {
            // A node whose GPUs make no sense still runs pods without GPU.
            self.apply(Event::NodeChanged(id, NodeSpec { gpus: Vec::new(), ..spec }));
        }
        if !same_gpus {
            self.rebook_flights(name);
            self.follow(name);
            self.check_flights(name, broken);
        }
    }

    fn add_node(&mut self, name: &str, spec: NodeSpec) {
        let id = NodeId(self.node_ids.take());
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
        self.rebook_flights(name);
        for pod in self.bound_on(name) {
            self.refresh_pod(&pod);
        }
    }

    /// The node went away: who was on its way there comes back, who ran there is without a home until the pod garbage collector removes it
    /// or the node returns. Who may be bound there already is waited for.
    fn lose_node(&mut self, name: &str) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        let (id, has_agent) = (entry.id.take(), entry.gpus.is_some());
        for pod in self.flights.get(name).into_iter().flatten().cloned().collect::<Vec<_>>() {
            if self.pods[&pod].flight().is_some_and(|flight| flight.step.is_committed()) {
                self.unbook(&pod);
            } else {
                self.give_back(&pod, "its node went away");
            }
        }
        for pod in self.bound_on(name) {
            self.unbook(&pod);
            if self.pods[&pod].stage == Stage::Runs {
                self.enter(&pod, Stage::Homeless);
            }
        }
        // Where its agent's object is still there, layouts that are being written go on being written.
        if !has_agent {
            self.handshakes.gone(name);
            self.set_node_alarm(name, None);
            self.nodes.remove(name);
        }
        if let Some(id) = id {
            self.apply(Event::NodeRemoved(id));
            self.node_names.remove(&id);
            self.node_ids.give_back(id.0);
        }
    }

    /// What an agent's report means for the pods that wait for it.
    fn settle_reports(&mut self, name: &str) {
        let mut handshakes = std::mem::take(&mut self.handshakes);
        let known = self.nodes.get(name).and_then(|entry| Some((entry, entry.id?)));
        let settled = known.map(|(entry, id)| handshakes.reported(name, &entry.report, &|need| self.often(id, need)));
        self.handshakes = handshakes;
        let mut failed = Vec::new();
        for (pod, outcome) in settled.unwrap_or_default() {
            match outcome {
                Outcome::Ready => {
                    self.succeed(name, pod);
                    if let Some(name) = self.pod_names.get(&pod).cloned() {
                        self.make_ready(name);
                    }
                }
                Outcome::Failed { gpu, message } => {
                    self.fail_flight(pod, &format!("node {name} could not make its partition: {message}"));
                    failed.push((gpu, message));
                }
            }
        }
        // Last, as who still waits for these GPUs is sent elsewhere.
        for (gpu, message) in failed {
            self.rest(name, &[gpu], &message);
        }
    }
}
