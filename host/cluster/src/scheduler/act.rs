//! What a plan means for the API server.

use partita_core::{
    Action,
    model::{NodeId, PodId},
    state::Event,
};

use super::{
    Scheduler,
    effect::{Effect, Outcome, PodName},
    flight::ANSWER_MS,
    handshake::WriteError,
};
use crate::{
    crd::{self, GpuNodeSpec, PodRef, Tenant},
    translate,
};

/// How long a layout that could not be written rests before it is tried again, milliseconds.
const LAYOUT_RETRY_MS: u64 = 500;
/// How long a pod that could not be evicted counts as going, milliseconds: the planner would choose it again as fast as the API server
/// refuses.
const STAYS_MS: u64 = 2_000;
/// The same where nobody knows whether it was evicted: the watch tells, if it was.
const DOUBT_MS: u64 = 10_000;

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

    fn evict(&mut self, pod: PodId, node: NodeId, by: PodId) {
        let (Some(victim), Some(winner)) = (self.pod_names.get(&pod).cloned(), self.pod_names.get(&by).cloned()) else { return };
        let (Some(entry), Some(other)) = (self.pods.get(&victim), self.pods.get(&winner)) else { return };
        // Who does not run yet need not be stopped. The API server would delete it.
        if entry.flight().is_some_and(|flight| !flight.step.is_committed()) {
            return self.give_back(&victim, &format!("it gave way to {winner}"));
        }
        let effects = [
            Effect::Evict { pod: entry.name(), by: winner.clone() },
            // One nomination a winner, however many go for it.
            Effect::Nominate { pod: other.name(), node: self.node_names.get(&node).cloned().unwrap_or_default() },
        ];
        tracing::info!(pod = victim, by = winner, "is evicted");
        self.stays.insert(pod, self.now_ms + ANSWER_MS);
        for effect in effects {
            if !self.effects.contains(&effect) {
                self.effects.push(effect);
            }
        }
    }

    pub(super) fn evict_done(&mut self, pod: &PodName, outcome: Outcome) {
        let name = format!("{}/{}", pod.namespace, pod.name);
        let Some(entry) = self.pods.get(&name).filter(|entry| entry.object.metadata.uid.as_deref() == Some(&pod.uid)) else { return };
        let Some(id) = entry.id else { return };
        let after_ms = match &outcome {
            // In a dry run nobody stops.
            Outcome::Done | Outcome::Gone if self.dry_run => {
                self.stays.remove(&id);
                return;
            }
            // The watch will say so.
            Outcome::Done | Outcome::Gone => ANSWER_MS,
            Outcome::Conflict(_) | Outcome::Refused(_) | Outcome::Fenced => STAYS_MS,
            Outcome::Unknown(_) => DOUBT_MS,
        };
        if let Outcome::Conflict(why) | Outcome::Refused(why) | Outcome::Unknown(why) = outcome {
            tracing::warn!(pod = name, "could not be evicted: {why}");
            self.metrics.evictions_failed.inc();
        }
        self.stays.insert(id, self.now_ms + after_ms);
    }

    /// Pods that could not be evicted stay.
    pub(super) fn let_stay(&mut self) {
        let over: Vec<PodId> = self.stays.iter().filter(|(_, at_ms)| **at_ms <= self.now_ms).map(|(&pod, _)| pod).collect();
        for pod in over {
            self.stays.remove(&pod);
            let Some(name) = self.pod_names.get(&pod).cloned() else { continue };
            if self.pods.get(&name).is_some_and(|entry| !entry.is_stopping()) {
                self.apply(Event::PodStays(pod));
                self.may_not_stop(&name);
            }
        }
    }

    /// Writes the layouts of nodes whose agents have something to make.
    pub(super) fn write_layouts(&mut self) {
        for (name, generation) in self.handshakes.writes(self.now_ms) {
            let term = self.handshakes.term(&name);
            let entry = self.nodes.get(&name);
            let known = entry.and_then(|entry| Some((entry.agent_uid()?, self.planner.cluster().node(entry.id?)?)));
            // Who waited for it was given back when it went.
            let Some((uid, node)) = known else { continue };
            let tenants = node.pods.iter().filter_map(|&id| {
                let (_, grant) = self.planner.cluster().runs_on(id)?;
                let entry = self.pods.get(self.pod_names.get(&id)?)?;
                let PodName { namespace, name, uid } = entry.name();
                Some(Tenant { id, pod: PodRef { namespace, name, uid }, grant, asks: translate::resources(&entry.object) })
            });
            let gpus = crd::desired(node, self.planner.cluster().models(), &tenants.collect::<Vec<_>>());
            let spec = GpuNodeSpec { term, generation, plan: format!("{term}.{generation}"), gpus };
            self.effects.push(Effect::Layout { node: name, uid, spec });
        }
    }

    pub(super) fn layout_done(&mut self, node: &str, generation: i64, outcome: Outcome) {
        let again = |why: String| Err(WriteError { why, again_ms: Some(LAYOUT_RETRY_MS) });
        let outcome = match outcome {
            Outcome::Done => Ok(()),
            Outcome::Fenced => again("this scheduler was not sure to lead".to_owned()),
            // If it is, the watch tells.
            Outcome::Gone => again("its GpuNode is gone".to_owned()),
            Outcome::Conflict(why) | Outcome::Unknown(why) => again(why),
            Outcome::Refused(why) => Err(WriteError { why, again_ms: None }),
        };
        let why = outcome.as_ref().err().map(|error| error.why.clone()).unwrap_or_default();
        if outcome.is_err() {
            tracing::warn!(node, "its layout could not be written: {why}");
        }
        let given_up = self.handshakes.written(node, generation, outcome, self.now_ms);
        if !given_up.is_empty() {
            self.rest_all(node, given_up, &format!("its layout is refused: {why}"));
        }
    }
}
