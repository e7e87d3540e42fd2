//! Pods that have a node: what was assumed is confirmed, and what others did is booked.

use partita_core::{
    model::{Demand, GpuAsk, NodeId, PodId, PodSpec},
    state::{Event, Grant},
};

use super::{
    Scheduler,
    avoids::Avoids,
    grants,
    pods::{PodEntry, Stage},
};
use crate::{
    objects::full_name,
    translate::{self, Scene, keys},
};

/// Stands for a disruption budget that allows nothing: pods count in it for a while after they could not be evicted, so that others are
/// looked for. Announced to the core once.
pub(super) const REFUSED: &str = "could not be evicted";
/// How long that is, milliseconds.
const REFUSED_MS: u64 = 10_000;

impl Scheduler {
    /// Looks anew at a pod that the API server says has a node.
    pub(super) fn refresh_bound(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        match &entry.stage {
            Stage::Assumed(_) if self.is_as_assumed(name) => self.confirm(name),
            Stage::Runs => self.refresh_running(name),
            _ => {
                self.adopt(name);
                let on = &self.pods[name].object.spec.value.node_name;
                if self.nodes.get(on).is_some_and(|node| node.is_used_by(name)) {
                    // What it uses, and whether that is more than what it is booked with, decides about the node's GPUs.
                    self.recheck.insert(on.clone());
                }
            }
        }
        self.note_stop(name);
    }

    fn note_stop(&mut self, name: &str) {
        if let Some(id) = self.pods.get(name).filter(|entry| entry.is_stopping()).and_then(|entry| entry.id) {
            self.apply(Event::PodStops(id));
        }
    }

    /// Whether a pod that was on its way got there, with what it was given: another may have bound it, or a former leader's binding landed
    /// late.
    fn is_as_assumed(&self, name: &str) -> bool {
        let Some(entry) = self.pods.get(name) else { return false };
        let (Some(flight), Some(_), Some(spec)) = (entry.flight(), entry.id, &entry.spec) else { return false };
        let node = self.nodes.get(&flight.node).and_then(|node| node.id);
        flight.node == entry.object.spec.value.node_name
            && node.is_some_and(|node| self.written_grant(name, node, &spec.demand.gpu).unwrap_or_default() == flight.grant)
    }

    /// What was assumed is so.
    fn confirm(&mut self, name: &str) {
        let now_ms = self.now_ms;
        let Some(entry) = self.pods.get_mut(name) else { return };
        self.metrics.bound(now_ms.saturating_sub(entry.since_ms));
        (entry.trouble, entry.returned) = (None, 0);
        let avoided = !std::mem::take(&mut entry.avoids).is_empty();
        if let (Some(id), Some(flight)) = (entry.id, entry.flight()) {
            self.handshakes.forget(&flight.node, id);
        }
        self.reasons.forget(name);
        self.enter(name, Stage::Runs);
        if avoided {
            // It was booked as one that may not run everywhere.
            return self.adopt(name);
        }
        self.refresh_running(name);
    }

    /// A pod that runs changed: its labels, what may be done to it, or its amounts: after a resize, or because its volumes count by now.
    fn refresh_running(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        let spec = self.running_spec(entry);
        let (Some(id), Some(known)) = (entry.id, &entry.spec) else { return self.adopt(name) };
        let same =
            |one: &Demand, other: &Demand| (one.cpu_milli, one.memory_mib, &one.extra) == (other.cpu_milli, other.memory_mib, &other.extra);
        if !same(&known.demand, &spec.demand) {
            return self.adopt(name);
        }
        let (labels, terms) = (known.labels != spec.labels, known.terms != spec.terms);
        if let Some(known) = self.pods.get_mut(name).and_then(|entry| entry.spec.as_mut()) {
            known.labels.clone_from(&spec.labels);
            known.terms.clone_from(&spec.terms);
        }
        if labels {
            self.apply(Event::PodRelabelled(id, spec.labels));
        }
        if terms {
            self.apply(Event::PodTerms(id, spec.terms));
        }
    }

    /// What the core is told of a pod that runs: all of it that is understood.
    fn running_spec(&self, entry: &PodEntry) -> PodSpec {
        let scene = Scene { storage: &self.storage, budgets: &self.budgets, taken: &|_, _| None };
        let (mut spec, odd) = translate::running(&entry.object, &scene);
        for refusal in odd {
            tracing::debug!(pod = full_name(&entry.object.metadata), "runs, though {refusal}");
        }
        spec.terms.min_runtime_ms = spec.terms.min_runtime_ms.saturating_sub(entry.ran_ms);
        if entry.refused_to_stop {
            spec.terms.budgets.push(REFUSED.to_owned());
            spec.terms.budgets.sort_unstable();
        }
        spec
    }

    /// A pod could not be evicted: for a while others are looked for.
    pub(super) fn may_not_stop(&mut self, name: &str) {
        let Some(entry) = self.pods.get_mut(name).filter(|entry| entry.stage == Stage::Runs) else { return };
        entry.refused_to_stop = true;
        self.set_alarm(name, Some(self.now_ms + REFUSED_MS));
        self.refresh_running(name);
    }

    pub(super) fn may_stop(&mut self, name: &str) {
        let Some(entry) = self.pods.get_mut(name) else { return };
        entry.refused_to_stop = false;
        self.refresh_running(name);
    }

    /// Books a pod where the API server says it is, with as much of its GPUs as is known, whatever was thought of it before.
    fn adopt(&mut self, name: &str) {
        let before =
            self.pods.get(name).and_then(|entry| self.planner.cluster().runs_on(entry.id?)).map(|(node, grant)| (node, grant.clone()));
        self.unbook(name);
        let Some(entry) = self.pods.get_mut(name) else { return };
        (entry.trouble, entry.returned, entry.refused_to_stop) = (None, 0, false);
        entry.avoids = Avoids::default();
        let started = entry.object.status.value.start_time.as_ref().map(|time| time.0);
        // Clocks of machines differ: who starts in the future has not run yet.
        entry.ran_ms =
            started.map_or(0, |at| u64::try_from(self.began_ms.saturating_add_unsigned(self.now_ms) - at.as_millisecond()).unwrap_or(0));
        self.reasons.forget(name);
        let Some(entry) = self.pods.get(name) else { return };
        let Some(node) = self.nodes.get(&entry.object.spec.value.node_name).and_then(|node| node.id) else {
            self.enter(name, Stage::Homeless);
            return;
        };
        let spec = self.running_spec(entry);
        let before = before.filter(|(on, grant)| *on == node && !grant.0.is_empty()).map(|(_, grant)| grant);
        let given = before.or_else(|| self.written_grant(name, node, &spec.demand.gpu)).unwrap_or_default();
        if spec.demand.gpu != GpuAsk::None {
            // What it really has is found out together with what the others there have.
            self.recheck.insert(self.node_names[&node].clone());
        }
        self.book(name, spec, node, given);
        self.enter(name, Stage::Runs);
        self.note_stop(name);
    }

    /// Pods that run on a node: first those of whom it is written what they use of its GPUs, so that nobody of whom that has to be guessed
    /// takes it from them.
    pub(super) fn bound_on(&self, node: &str) -> Vec<String> {
        let mut names: Vec<String> = self.bound.get(node).into_iter().flatten().cloned().collect();
        let says = |name: &String| self.pods[name].object.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(keys::GRANT));
        names.sort_by_key(|name| !says(name));
        names
    }

    /// Books those who may be bound to a node at any moment and are not booked there.
    pub(super) fn rebook_flights(&mut self, node_name: &str) {
        let Some(node) = self.nodes.get(node_name).and_then(|node| node.id) else { return };
        for name in self.flights.get(node_name).into_iter().flatten().cloned().collect::<Vec<_>>() {
            let Some(entry) = self.pods.get(&name) else { continue };
            let (Some(flight), Some(spec)) = (entry.flight().filter(|flight| flight.step.is_committed()), &entry.spec) else { continue };
            if entry.id.and_then(|id| self.planner.cluster().runs_on(id)).is_none() {
                let (spec, grant) = (spec.clone(), flight.grant.clone());
                self.unbook(&name);
                self.book(&name, spec, node, grant);
            }
        }
    }

    /// Tells the core of a pod that is on a node; without its GPUs if they cannot be as they were said to be.
    pub(super) fn book(&mut self, name: &str, spec: PodSpec, node: NodeId, given: Grant) {
        let id = PodId(self.pod_ids.take());
        let told = self.apply(Event::PodRuns(id, spec.clone(), node, given))
            || self.apply(Event::PodRuns(id, spec.clone(), node, Grant::default()));
        if told {
            self.pod_names.insert(id, name.to_owned());
        } else {
            self.pod_ids.give_back(id.0);
        }
        if grants::can_be_guessed(&spec.demand.gpu) && self.planner.cluster().runs_on(id).is_some_and(|(_, grant)| grant.0.is_empty()) {
            self.short.entry(self.node_names[&node].clone()).or_default().insert(name.to_owned());
        }
        if let Some(entry) = self.pods.get_mut(name) {
            (entry.id, entry.spec) = (told.then_some(id), Some(spec));
        }
    }
}
