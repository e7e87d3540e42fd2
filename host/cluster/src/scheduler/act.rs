//! What a plan means for the API server.

use partita_core::{
    Action,
    model::{NodeId, PodId},
    state::{Event, Grant, Use},
};

use super::{
    Scheduler,
    effect::{Effect, Outcome, PodName},
    handshake::{Condition, Part},
    pods::{Flight, Stage, Step},
};
use crate::{
    crd::{self, GpuNodeSpec, PodRef},
    grant,
};

/// How long a layout that could not be written rests before it is tried again, milliseconds.
const LAYOUT_RETRY_MS: u64 = 500;

/// How long a pod that could not be evicted counts as going, milliseconds.
const STAYS_MS: u64 = 2_000;

impl Scheduler {
    pub(super) fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Change { node, gpu, change } => {
                    tracing::debug!(node = self.node_names.get(&node), gpu, ?change, "a GPU is to change");
                    self.metrics.changed(change);
                }
                Action::Bind { pod, node, grant } => self.start(pod, node, grant),
                Action::Evict { pod, node, by } => self.evict(pod, node, by),
                Action::Move { pod, .. } => tracing::error!(pod = self.pod_names.get(&pod), "moves are not carried out in a live cluster"),
            }
        }
    }

    /// Sets a pod on its way.
    fn start(&mut self, pod: PodId, node: NodeId, grant: Grant) {
        let (Some(name), Some(node_name)) = (self.pod_names.get(&pod).cloned(), self.node_names.get(&node).cloned()) else { return };
        let needs = self.missing(node, &node_name, &grant);
        let flight = Flight { node: node_name.clone(), grant, step: Step::Makes, since_ms: self.now_ms };
        if let Some(entry) = self.pods.get_mut(&name) {
            entry.stage = Stage::Assumed(flight);
        }
        self.metrics.placed(self.now_ms.saturating_sub(self.pods.get(&name).map_or(0, |entry| entry.since_ms)));
        if needs.is_empty() { self.ready(pod) } else { self.handshakes.ask(&node_name, pod, needs, self.now_ms) }
    }

    /// Parts of a grant that the node's agent does not have ready, as far as is known. Nodes without an agent have nothing to make.
    fn missing(&self, node: NodeId, name: &str, grant: &Grant) -> Vec<(u8, Part)> {
        let Some(entry) = self.nodes.get(name).filter(|entry| entry.has_agent() && !self.dry_run) else { return Vec::new() };
        // Until the agent has done what was asked last, what it reports may be about to change.
        let settled = self.handshakes.is_settled(name, &entry.report);
        let there = |gpu: u8, part: &Part| {
            let said = entry.report.parts.get(&gpu);
            said.is_some_and(|parts| parts.iter().any(|(name, condition)| name == part && *condition == Condition::Ready))
        };
        let mut needs = self.parts(node, grant);
        needs.retain(|(gpu, part)| !settled || !there(*gpu, part));
        needs
    }

    /// The parts of a grant under the names that agents know.
    fn parts(&self, node: NodeId, grant: &Grant) -> Vec<(u8, Part)> {
        let (models, Some(known)) = (self.planner.cluster().models(), self.planner.cluster().node(node)) else { return Vec::new() };
        let part = |&(index, used): &(u8, Use)| {
            let gpu = known.room.gpus.get(usize::from(index))?;
            let part = match used {
                Use::Share(_) => Part::Shares,
                Use::Mps(memory_mib) => Part::Mps(memory_mib),
                Use::Partition(place) => {
                    Part::Mig(models.grid(gpu.model)?.profiles.get(usize::from(place.profile))?.name.clone(), place.start)
                }
            };
            Some((index, part))
        };
        grant.0.iter().filter_map(part).collect()
    }

    /// What a pod needs of its node is there: its volumes come next, or its binding.
    pub(super) fn ready(&mut self, pod: PodId) {
        let Some(name) = self.pod_names.get(&pod).cloned() else { return };
        let Some(Stage::Assumed(flight)) = self.pods.get(&name).map(|entry| entry.stage.clone()) else { return };
        let choices = match self.choose_volumes(&name, &flight.node) {
            Ok(choices) => choices,
            Err(why) => return self.give_back(&name, &why),
        };
        if choices.is_empty() {
            return self.check_volumes(&name);
        }
        self.step(&name, Step::Chooses);
        let Some(pod) = self.pods.get(&name).map(super::pods::PodEntry::name) else { return };
        self.effects.push(Effect::Volumes { pod, node: flight.node, choices });
    }

    /// Everything is there: the pod is bound.
    pub(super) fn bind(&mut self, name: &str) {
        self.step(name, Step::Binds);
        let Some(entry) = self.pods.get(name) else { return };
        let (Stage::Assumed(flight), Some(id)) = (&entry.stage, entry.id) else { return };
        let Some(node) = self.nodes.get(&flight.node).and_then(|node| node.id) else { return };
        let Some(known) = self.planner.cluster().node(node) else { return };
        let printed = grant::print(&flight.grant, &grant::profile_of(&known.spec, self.planner.cluster().models()));
        let text = match printed {
            Ok(text) => Some(text).filter(|text| !text.is_empty()),
            Err(error) => {
                let why = format!("what it was given on node {} cannot be written down: {error}", flight.node);
                return self.give_back(name, &why);
            }
        };
        let effect = Effect::Bind { pod: entry.name(), node: flight.node.clone(), grant: text };
        tracing::debug!(pod = name, number = id.0, node = flight.node, "is bound");
        self.effects.push(effect);
    }

    pub(super) fn step(&mut self, name: &str, step: Step) {
        if let Some(Stage::Assumed(flight)) = self.pods.get_mut(name).map(|entry| &mut entry.stage) {
            flight.step = step;
        }
    }

    /// After a node changed: who was on the way to GPUs that are no longer there comes back.
    pub(super) fn check_flights(&mut self, node: &str) {
        let lost = |(_, pod): &(&PodId, &String)| {
            let Some(Stage::Assumed(flight)) = self.pods.get(*pod).map(|entry| &entry.stage) else { return false };
            let runs = self.pods.get(*pod).and_then(|entry| self.planner.cluster().runs_on(entry.id?));
            flight.node == node && runs.is_none_or(|(_, grant)| *grant != flight.grant)
        };
        let lost: Vec<PodId> = self.pod_names.iter().filter(lost).map(|(&id, _)| id).collect();
        for pod in lost {
            self.fail_flight(pod, &format!("what it was given on node {node} is no longer there"));
        }
    }

    fn evict(&mut self, pod: PodId, node: NodeId, by: PodId) {
        let name = |id: PodId| self.pod_names.get(&id).and_then(|name| Some((name, self.pods.get(name)?)));
        let (Some((victim, entry)), Some((winner, other))) = (name(pod), name(by)) else { return };
        tracing::info!(pod = victim, by = winner, "is evicted");
        self.metrics.evictions.inc();
        let effects = [
            Effect::Evict { pod: entry.name(), by: winner.clone() },
            Effect::Nominate { pod: other.name(), node: self.node_names.get(&node).cloned().unwrap_or_default() },
        ];
        // One nomination a winner, however many go for it.
        let [evict, nominate] = effects;
        self.effects.push(evict);
        if self.effects.last() != Some(&nominate) && !self.effects.contains(&nominate) {
            self.effects.push(nominate);
        }
    }

    pub(super) fn evict_done(&mut self, pod: &PodName, outcome: Outcome) {
        let name = format!("{}/{}", pod.namespace, pod.name);
        let Some(entry) = self.pods.get(&name).filter(|entry| entry.object.metadata.uid.as_deref() == Some(&pod.uid)) else { return };
        let Some(id) = entry.id else { return };
        match outcome {
            // Gone: the watch will say so.
            Outcome::Done | Outcome::Gone | Outcome::Fenced => {}
            Outcome::Conflict(why) | Outcome::Unknown(why) | Outcome::Refused(why) => {
                tracing::warn!(pod = name, "could not be evicted: {why}");
                self.metrics.evictions_failed.inc();
                // Not at once: the planner would choose it again as fast as the API server refuses.
                self.stays.insert((self.now_ms + STAYS_MS, id));
            }
        }
    }

    /// Pods that could not be evicted stay.
    pub(super) fn let_stay(&mut self) {
        while let Some((_, pod)) = self.stays.first().copied().filter(|(at_ms, _)| *at_ms <= self.now_ms) {
            self.stays.pop_first();
            let known = self.pod_names.get(&pod).and_then(|name| self.pods.get(name));
            if known.is_some_and(|entry| entry.object.metadata.deletion_timestamp.is_none()) {
                self.apply(Event::PodStays(pod));
            }
        }
    }

    /// Writes the layouts of nodes whose agents have something to make.
    pub(super) fn write_layouts(&mut self) {
        let Some(term) = self.term else { return };
        for (name, generation) in self.handshakes.writes(self.now_ms) {
            let known = self.nodes.get(&name).and_then(|entry| self.planner.cluster().node(entry.id?));
            let Some(node) = known else {
                self.handshakes.gone(&name);
                continue;
            };
            let pods = node.pods.iter().filter_map(|&id| {
                let (_, grant) = self.planner.cluster().runs_on(id)?;
                let PodName { namespace, name, uid } = self.pods.get(self.pod_names.get(&id)?)?.name();
                Some((id, PodRef { namespace, name, uid }, grant))
            });
            let gpus = crd::desired(node, self.planner.cluster().models(), pods);
            let spec = GpuNodeSpec { term, generation, plan: format!("{term}.{generation}"), gpus };
            let uid = self.nodes.get(&name).map(super::nodes::NodeEntry::agent_uid).unwrap_or_default();
            self.effects.push(Effect::Layout { node: name, uid, spec });
        }
    }

    pub(super) fn layout_done(&mut self, node: &str, generation: i64, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Done => Ok(()),
            Outcome::Fenced => return,
            Outcome::Gone => {
                for pod in self.handshakes.gone(node) {
                    self.fail_flight(pod, &format!("node {node} has no GpuNode any more"));
                }
                return;
            }
            Outcome::Conflict(why) | Outcome::Unknown(why) | Outcome::Refused(why) => {
                tracing::warn!(node, "its layout could not be written: {why}");
                Err(LAYOUT_RETRY_MS)
            }
        };
        self.handshakes.written(node, generation, outcome, self.now_ms);
    }
}
