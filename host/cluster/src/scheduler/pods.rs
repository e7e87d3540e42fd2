//! The life of a pod.
//!
//! ```text
//!            held ◄──► waits ──► assumed ──► runs ──► gone
//!   (gates, volumes,    ▲           │
//!    unsupported)       └─ returns ◄┘  every failure
//! ```

use partita_core::{
    model::{NodeId, PodId, PodSpec},
    state::{Event, Grant, Use},
};

use super::{
    Scheduler,
    effect::{Done, Outcome, PodName},
};
use crate::{
    grant,
    objects::Pod,
    translate::{self, Refusal, Scene, keys},
};

/// How long a pod that came back waits before it is tried again, milliseconds; doubled each time, as kube-scheduler does.
const RETURN_MS: u64 = 1_000;
/// The longest such wait.
const RETURN_MAX_MS: u64 = 60_000;
/// How long a pod may wait for its volumes, milliseconds: kube-scheduler's `bindTimeoutSeconds`.
pub(super) const VOLUMES_MS: u64 = 600_000;

/// Where a pod is in its life.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    /// It cannot be placed whatever the cluster has, until it or something it names changes.
    Held(String),
    /// In the core's queue.
    Waits,
    /// Placed, but not yet seen bound.
    Assumed(Flight),
    /// Bound.
    Runs,
    /// Bound to a node that is not known.
    Homeless,
    /// It comes back to the queue at this time, milliseconds.
    Returns(u64),
}

/// A pod on its way to a node.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Flight {
    /// The node.
    pub(super) node: String,
    /// What it was given.
    pub(super) grant: Grant,
    /// What it waits for.
    pub(super) step: Step,
    /// Since when it is on its way, milliseconds.
    pub(super) since_ms: u64,
}

/// What a pod on its way waits for, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The agent, for its partition.
    Makes,
    /// The API server, for what it was told of its volumes.
    Chooses,
    /// Whoever makes or binds its volumes.
    Volumes,
    /// The API server, for its binding.
    Binds,
    /// The watch, to see it bound.
    Bound,
}

/// A pod.
#[derive(Clone, Debug)]
pub(super) struct PodEntry {
    pub(super) object: Pod,
    /// Its number, while the core knows it.
    pub(super) id: Option<PodId>,
    pub(super) stage: Stage,
    /// What the core was told of it.
    pub(super) spec: Option<PodSpec>,
    /// How often it came back.
    returned: u32,
    /// When it was first seen to wait, milliseconds.
    pub(super) since_ms: u64,
    /// What went wrong the last time.
    pub(super) trouble: Option<String>,
}

impl PodEntry {
    /// When it was created; pods of one second by name.
    pub(super) fn created(&self) -> Option<jiff::Timestamp> {
        self.object.metadata.creation_timestamp.as_ref().map(|time| time.0)
    }

    /// The node that it runs on or goes to.
    pub(super) fn on(&self) -> Option<&str> {
        match &self.stage {
            Stage::Assumed(flight) => Some(&flight.node),
            Stage::Runs | Stage::Homeless => Some(&self.object.spec.value.node_name),
            _ => None,
        }
    }

    /// How the API server knows it.
    pub(super) fn name(&self) -> PodName {
        let meta = &self.object.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        PodName { namespace: text(&meta.namespace), name: text(&meta.name), uid: text(&meta.uid) }
    }
}

impl Scheduler {
    pub(super) fn see_pod(&mut self, name: &str, object: Option<Pod>) {
        let Some(object) = object.filter(|object| self.is_mine(object)) else {
            self.lose_pod(name);
            return;
        };
        let another = |entry: &PodEntry| entry.object.metadata.uid != object.metadata.uid;
        if self.pods.get(name).is_some_and(another) {
            self.lose_pod(name);
        }
        let node = object.spec.value.node_name.clone();
        if !node.is_empty() {
            self.bound.entry(node).or_default().insert(name.to_owned());
        }
        match self.pods.get_mut(name) {
            Some(entry) => entry.object = object,
            None => {
                let stage = Stage::Held(String::new());
                let entry = PodEntry { object, id: None, stage, spec: None, returned: 0, since_ms: self.now_ms, trouble: None };
                self.pods.insert(name.to_owned(), entry);
            }
        }
        let claims = self.pods.get(name).is_some_and(|entry| entry.object.spec.value.node_name.is_empty() && Self::claims(&entry.object));
        if claims {
            self.claimants.insert(name.to_owned());
        } else {
            self.claimants.remove(name);
        }
        if self.complete {
            self.refresh_pod(name);
        }
    }

    /// Whether a pod matters: it uses a node, or waits for this scheduler.
    fn is_mine(&self, pod: &Pod) -> bool {
        let spec = &pod.spec.value;
        let waits = spec.scheduler_name == self.name && pod.metadata.deletion_timestamp.is_none();
        !pod.status.value.is_terminal() && (waits || !spec.node_name.is_empty())
    }

    fn lose_pod(&mut self, name: &str) {
        self.settle_claims(name);
        let Some(entry) = self.pods.remove(name) else { return };
        self.claimants.remove(name);
        if let Stage::Returns(at_ms) = entry.stage {
            self.returns.remove(&(at_ms, name.to_owned()));
        }
        let node = &entry.object.spec.value.node_name;
        if let Some(pods) = self.bound.get_mut(node) {
            pods.remove(name);
            if pods.is_empty() {
                self.bound.remove(node);
            }
        }
        self.reasons.forget(name);
        if let Some(id) = entry.id {
            self.forget_id(id, entry.on());
        }
    }

    /// Looks at a pod anew: it changed, or something that it names did.
    pub(super) fn refresh_pod(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        if entry.object.spec.value.node_name.is_empty() { self.refresh_waiting(name) } else { self.refresh_bound(name) }
    }

    fn refresh_waiting(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        // On its way it is not called back: what changed meanwhile the API server would have refused or the node will.
        if matches!(entry.stage, Stage::Assumed(_) | Stage::Returns(_)) {
            return;
        }
        let gates = &entry.object.spec.value.scheduling_gates;
        let gated = !gates.is_empty();
        match self.spec_of(name, &entry.object) {
            Ok(spec) if entry.stage == Stage::Waits && entry.spec.as_ref() == Some(&spec) => {}
            Ok(spec) => self.let_wait(name, spec),
            Err(refusal) => self.hold(name, refusal.to_string(), gated),
        }
    }

    /// What the core is told of a pod.
    fn spec_of(&self, name: &str, pod: &Pod) -> Result<PodSpec, Refusal> {
        let taken = |namespace: &str, claim: &str| self.user_of(name, namespace, claim);
        translate::pending(pod, &Scene { storage: &self.storage, budgets: &self.budgets, taken: &taken })
    }

    /// What the core is told of a pod that runs: all of it that is understood.
    fn running_spec(&self, pod: &Pod) -> PodSpec {
        let scene = Scene { storage: &self.storage, budgets: &self.budgets, taken: &|_, _| None };
        let (spec, odd) = translate::running(pod, &scene);
        for refusal in odd {
            tracing::debug!(pod = crate::objects::full_name(&pod.metadata), "runs, though {refusal}");
        }
        spec
    }

    fn let_wait(&mut self, name: &str, spec: PodSpec) {
        self.leave_core(name);
        let id = PodId(self.pod_ids.take());
        let Err(refused) = self.planner.apply(Event::PodAdded(id, spec.clone())) else {
            self.changed = true;
            self.pod_names.insert(id, name.to_owned());
            self.reasons.is_new(name);
            if let Some(entry) = self.pods.get_mut(name) {
                (entry.id, entry.stage, entry.spec) = (Some(id), Stage::Waits, Some(spec));
            }
            return;
        };
        self.pod_ids.give_back(id.0);
        let source = std::error::Error::source(&refused).map(|source| format!(": {source}")).unwrap_or_default();
        self.hold(name, format!("{refused}{source}"), false);
    }

    fn hold(&mut self, name: &str, why: String, gated: bool) {
        self.leave_core(name);
        if let Some(entry) = self.pods.get_mut(name) {
            entry.stage = Stage::Held(why.clone());
        }
        // Of gates the API server tells by itself.
        if !gated {
            self.tell(name, &why);
        }
    }

    fn refresh_bound(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        let node = entry.object.spec.value.node_name.clone();
        let stopping = entry.object.metadata.deletion_timestamp.is_some();
        if let Stage::Assumed(flight) = &entry.stage {
            if flight.node == node {
                self.confirm(name);
            } else {
                // Somebody else bound it elsewhere.
                self.leave_core(name);
            }
        } else if entry.stage == Stage::Runs {
            self.refresh_running(name);
        }
        if self.pods.get(name).is_some_and(|entry| entry.stage != Stage::Runs) {
            self.leave_core(name);
            self.run_there(name, &node);
        }
        if let Some(id) = self.pods.get(name).filter(|_| stopping).and_then(|entry| entry.id) {
            self.apply(Event::PodStops(id));
        }
    }

    /// What was assumed is so.
    fn confirm(&mut self, name: &str) {
        let now_ms = self.now_ms;
        let Some(entry) = self.pods.get_mut(name) else { return };
        self.metrics.bound(now_ms.saturating_sub(entry.since_ms));
        let flight = std::mem::replace(&mut entry.stage, Stage::Runs);
        (entry.trouble, entry.returned) = (None, 0);
        self.reasons.forget(name);
        if let (Some(id), Stage::Assumed(flight)) = (entry.id, flight) {
            self.handshakes.forget(&flight.node, id);
        }
        self.settle_claims(name);
    }

    /// A pod that runs changed: its labels, or after a resize its amounts.
    fn refresh_running(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        let (Some(id), Some(known)) = (entry.id, &entry.spec) else { return };
        let labels = entry.object.metadata.labels.clone().unwrap_or_default();
        if known.labels != labels {
            if let Some(known) = self.pods.get_mut(name).and_then(|entry| entry.spec.as_mut()) {
                known.labels.clone_from(&labels);
            }
            self.apply(Event::PodRelabelled(id, labels));
        }
        let Some(entry) = self.pods.get(name) else { return };
        let spec = self.running_spec(&entry.object);
        if entry
            .spec
            .as_ref()
            .is_some_and(|known| known.demand.cpu_milli != spec.demand.cpu_milli || known.demand.memory_mib != spec.demand.memory_mib)
        {
            self.leave_core(name);
        }
    }

    /// Tells the core of a pod that runs, with as much of its GPUs as is known.
    fn run_there(&mut self, name: &str, node: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        let Some(node_id) = self.nodes.get(node).and_then(|node| node.id) else {
            self.make_homeless(name);
            return;
        };
        let spec = self.running_spec(&entry.object);
        let given = self.grant_of(name, node_id, &spec);
        let id = PodId(self.pod_ids.take());
        let told = self.apply(Event::PodRuns(id, spec.clone(), node_id, given))
            || self.apply(Event::PodRuns(id, spec.clone(), node_id, Grant::default()));
        if told {
            self.pod_names.insert(id, name.to_owned());
        } else {
            self.pod_ids.give_back(id.0);
        }
        if let Some(entry) = self.pods.get_mut(name) {
            (entry.id, entry.stage, entry.spec) = (told.then_some(id), Stage::Runs, Some(spec));
        }
        self.settle_claims(name);
    }

    /// What a running pod uses of GPUs: what its binding says; for whole GPUs of which nothing is said, the first that are free, since which
    /// they are is the kubelet's choice.
    fn grant_of(&self, name: &str, node: NodeId, spec: &PodSpec) -> Grant {
        let Some(known) = self.planner.cluster().node(node) else { return Grant::default() };
        let text = self.pods.get(name).and_then(|entry| entry.object.metadata.annotations.as_ref()?.get(keys::GRANT));
        if let Some(text) = text {
            match grant::parse(text, &grant::row_of(&known.spec, self.planner.cluster().models())) {
                Ok(grant) => return grant,
                Err(error) => tracing::warn!(pod = name, "the annotation {} is not believed: {error}", keys::GRANT),
            }
        }
        let partita_core::model::GpuAsk::Share { count, milli } = spec.demand.gpu else { return Grant::default() };
        let free = (0u8..).zip(&known.room.gpus).filter(|(_, gpu)| gpu.share_free() >= milli);
        let parts: Vec<(u8, Use)> = free.map(|(index, _)| (index, Use::Share(milli))).take(count as usize).collect();
        if parts.len() == count as usize { Grant(parts) } else { Grant::default() }
    }

    pub(super) fn make_homeless(&mut self, name: &str) {
        self.leave_core(name);
        if let Some(entry) = self.pods.get_mut(name) {
            entry.stage = Stage::Homeless;
        }
    }

    /// Takes a pod out of the core, and out of everything that follows it.
    fn leave_core(&mut self, name: &str) {
        let Some(entry) = self.pods.get_mut(name) else { return };
        let on = entry.on().map(str::to_owned);
        if let Some(id) = entry.id.take() {
            entry.stage = Stage::Held(String::new());
            self.forget_id(id, on.as_deref());
            self.settle_claims(name);
        }
    }

    fn forget_id(&mut self, id: PodId, on: Option<&str>) {
        if let Some(node) = on {
            self.handshakes.forget(node, id);
        }
        self.stays.retain(|(_, pod)| *pod != id);
        self.apply(Event::PodRemoved(id));
        self.pod_names.remove(&id);
        self.pod_ids.give_back(id.0);
    }

    /// Gives an assumption back: the pod waits a little, then again.
    pub(super) fn give_back(&mut self, name: &str, why: &str) {
        self.leave_core(name);
        self.metrics.given_back.inc();
        let Some(entry) = self.pods.get_mut(name) else { return };
        let at_ms = self.now_ms + (RETURN_MS << entry.returned.min(10)).min(RETURN_MAX_MS);
        entry.returned += 1;
        entry.trouble = Some(why.to_owned());
        entry.stage = Stage::Returns(at_ms);
        self.returns.insert((at_ms, name.to_owned()));
        tracing::info!(pod = name, "comes back to the queue: {why}");
        self.tell(name, why);
    }

    pub(super) fn return_pods(&mut self) {
        while self.returns.first().is_some_and(|(at_ms, _)| *at_ms <= self.now_ms) {
            let Some((_, name)) = self.returns.pop_first() else { return };
            if let Some(entry) = self.pods.get_mut(&name) {
                entry.stage = Stage::Held(String::new());
            }
            self.refresh_pod(&name);
        }
    }

    /// A pod that is on its way cannot get there.
    pub(super) fn fail_flight(&mut self, id: PodId, why: &str) {
        if let Some(name) = self.pod_names.get(&id).cloned() {
            self.give_back(&name, why);
        }
    }

    /// Takes in how an effect went.
    pub fn done(&mut self, now_ms: u64, done: Done) {
        self.now_ms = self.now_ms.max(now_ms);
        match done {
            Done::Layout { node, generation, outcome } => self.layout_done(&node, generation, outcome),
            Done::Volumes { pod, outcome } => self.step_done(&pod, Step::Chooses, Step::Volumes, outcome),
            Done::Bind { pod, node: _, outcome } => self.step_done(&pod, Step::Binds, Step::Bound, outcome),
            Done::Evict { pod, outcome } => self.evict_done(&pod, outcome),
            Done::Told { pod, outcome } => self.told(&pod, &outcome),
        }
    }

    fn step_done(&mut self, pod: &PodName, at: Step, next: Step, outcome: Outcome) {
        let name = format!("{}/{}", pod.namespace, pod.name);
        let Some(entry) = self.pods.get_mut(&name) else { return };
        let Stage::Assumed(flight) = &mut entry.stage else { return };
        if entry.object.metadata.uid.as_deref() != Some(&pod.uid) || flight.step != at {
            return;
        }
        match outcome {
            Outcome::Done => {
                flight.step = next;
                if next == Step::Volumes {
                    self.check_volumes(&name);
                }
            }
            Outcome::Fenced => {}
            Outcome::Gone => self.give_back(&name, "it is gone, or is another pod of the same name now"),
            Outcome::Conflict(why) | Outcome::Unknown(why) | Outcome::Refused(why) => self.give_back(&name, &why),
        }
    }
}
