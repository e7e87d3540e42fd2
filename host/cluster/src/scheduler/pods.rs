//! The life of a pod.
//!
//! ```text
//!            held ◄──► waits ──► on its way ──► runs ──► gone
//!   (gates, volumes,    ▲           │
//!    unsupported)       └─ returns ◄┘  every failure
//! ```

use partita_core::{
    model::{PodId, PodSpec},
    state::Event,
};

use super::{Scheduler, avoids::Avoids, effect::PodName, flight::Flight};
use crate::{
    objects::Pod,
    translate::{self, Refusal, Scene},
};

/// How long a pod that came back waits before it is tried again, milliseconds; doubled each time, as kube-scheduler does.
const RETURN_MS: u64 = 1_000;
/// The longest such wait.
const RETURN_MAX_MS: u64 = 60_000;

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
    /// It comes back to the queue when its alarm rings.
    Returns,
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
    pub(super) returned: u32,
    /// When it was first seen to wait, milliseconds.
    pub(super) since_ms: u64,
    /// What went wrong the last time.
    pub(super) trouble: Option<String>,
    /// Nodes that failed it.
    pub(super) avoids: Avoids,
    /// It could not be evicted a short while ago.
    pub(super) refused_to_stop: bool,
    /// How long it had run when it was booked, milliseconds: the core counts from then.
    pub(super) ran_ms: u64,
    /// When to look at it although nothing happened, milliseconds.
    pub(super) alarm_ms: Option<u64>,
}

impl PodEntry {
    fn new(object: Pod, since_ms: u64) -> Self {
        let stage = Stage::Held(String::new());
        Self {
            object,
            id: None,
            stage,
            spec: None,
            returned: 0,
            since_ms,
            trouble: None,
            avoids: Avoids::default(),
            refused_to_stop: false,
            ran_ms: 0,
            alarm_ms: None,
        }
    }

    /// When it was created; pods of one second by name.
    pub(super) fn created(&self) -> Option<jiff::Timestamp> {
        self.object.metadata.creation_timestamp.as_ref().map(|time| time.0)
    }

    /// The node that it runs on or goes to.
    pub(super) fn on(&self) -> Option<&str> {
        match &self.stage {
            _ if self.is_bound() => Some(&self.object.spec.value.node_name),
            Stage::Assumed(flight) => Some(&flight.node),
            _ => None,
        }
    }

    /// Whether the API server says that it has a node.
    pub(super) fn is_bound(&self) -> bool {
        !self.object.spec.value.node_name.is_empty()
    }

    /// Whether it was told to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// How the API server knows it.
    pub(super) fn name(&self) -> PodName {
        let meta = &self.object.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        PodName { namespace: text(&meta.namespace), name: text(&meta.name), uid: text(&meta.uid) }
    }

    /// The way that it is on.
    pub(super) fn flight(&self) -> Option<&Flight> {
        if let Stage::Assumed(flight) = &self.stage { Some(flight) } else { None }
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
            self.bound.entry(node.clone()).or_default().insert(name.to_owned());
        }
        if let Some(entry) = self.pods.get_mut(name) {
            entry.object = object;
        } else {
            self.pods.insert(name.to_owned(), PodEntry::new(object, self.now_ms));
            self.note_claims(name, true);
            if self.nodes.get(&node).is_some_and(|node| node.is_used_by(name)) {
                // Its agent told of it before the pod was known, so that it was held to be a stranger.
                self.recheck.insert(node);
            }
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
        if let Some(id) = self.pods.get(name).and_then(|entry| entry.id) {
            self.stays.remove(&id);
        }
        self.note_leaving(name);
        self.leave(name);
        self.enter(name, Stage::Held(String::new()));
        self.note_claims(name, false);
        let Some(entry) = self.pods.remove(name) else { return };
        let node = &entry.object.spec.value.node_name;
        if let Some(pods) = self.bound.get_mut(node) {
            pods.remove(name);
            if pods.is_empty() {
                self.bound.remove(node);
            }
        }
        self.reasons.forget(name);
    }

    /// Looks at a pod anew: it changed, or something that it names did.
    pub(super) fn refresh_pod(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        if entry.is_bound() { self.refresh_bound(name) } else { self.refresh_waiting(name) }
    }

    fn refresh_waiting(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        // On its way it is not called back: what changed meanwhile the API server would have refused or the node will.
        if matches!(entry.stage, Stage::Assumed(_) | Stage::Returns) {
            return;
        }
        match self.spec_of(name, entry) {
            Ok(spec) if entry.stage == Stage::Waits && entry.spec.as_ref() == Some(&spec) => {}
            Ok(spec) => self.let_wait(name, spec),
            Err(refusal) => return self.hold(name, refusal.to_string()),
        }
        let next_ms = self.pods.get(name).filter(|entry| entry.stage == Stage::Waits).and_then(|entry| entry.avoids.next_ms(self.now_ms));
        if next_ms.is_some() {
            self.set_alarm(name, next_ms);
        }
    }

    /// What the core is told of a pod.
    fn spec_of(&self, name: &str, entry: &PodEntry) -> Result<PodSpec, Refusal> {
        let taken = |namespace: &str, claim: &str| self.user_of(name, namespace, claim);
        let mut spec = translate::pending(&entry.object, &Scene { storage: &self.storage, budgets: &self.budgets, taken: &taken })?;
        entry.avoids.keep_away(&mut spec, self.now_ms);
        Ok(spec)
    }

    fn let_wait(&mut self, name: &str, spec: PodSpec) {
        self.unbook(name);
        let id = PodId(self.pod_ids.take());
        let Err(refused) = self.planner.apply(Event::PodAdded(id, spec.clone())) else {
            self.changed = true;
            self.pod_names.insert(id, name.to_owned());
            self.reasons.is_new(name);
            if let Some(entry) = self.pods.get_mut(name) {
                (entry.id, entry.spec) = (Some(id), Some(spec));
            }
            self.enter(name, Stage::Waits);
            return;
        };
        self.pod_ids.give_back(id.0);
        let source = std::error::Error::source(&refused).map(|source| format!(": {source}")).unwrap_or_default();
        self.hold(name, format!("{refused}{source}"));
    }

    fn hold(&mut self, name: &str, why: String) {
        self.unbook(name);
        self.enter(name, Stage::Held(why));
        self.tell(name);
    }

    /// Every change of stage goes this way, so that what is kept by stage follows. No alarm lasts longer than the stage that it was set in.
    pub(super) fn enter(&mut self, name: &str, stage: Stage) {
        self.set_alarm(name, None);
        self.ready.remove(name);
        let Some(entry) = self.pods.get_mut(name) else { return };
        let left = std::mem::replace(&mut entry.stage, stage);
        if let Stage::Assumed(flight) = &entry.stage {
            self.flights.entry(flight.node.clone()).or_default().insert(name.to_owned());
        } else if let Stage::Assumed(flight) = left {
            if let Some(here) = self.flights.get_mut(&flight.node) {
                here.remove(name);
                if here.is_empty() {
                    self.flights.remove(&flight.node);
                }
            }
            if !flight.chosen.is_empty() {
                self.settle_promises(name);
            }
        } else if entry.stage == Stage::Homeless || left == Stage::Homeless {
            // Nobody who is not there counts as a user.
            self.free_claims(name);
        }
    }

    pub(super) fn set_alarm(&mut self, name: &str, at_ms: Option<u64>) {
        let Some(entry) = self.pods.get_mut(name) else { return };
        if let Some(before) = std::mem::replace(&mut entry.alarm_ms, at_ms) {
            self.alarms.remove(&(before, name.to_owned()));
        }
        self.alarms.extend(at_ms.map(|at_ms| (at_ms, name.to_owned())));
    }

    /// Takes a pod out of the core, and out of all that goes by its number.
    pub(super) fn unbook(&mut self, name: &str) {
        let Some(entry) = self.pods.get_mut(name) else { return };
        let Some(id) = entry.id.take() else { return };
        let stopping = entry.is_stopping();
        if let Some(flight) = entry.flight() {
            self.handshakes.forget(&flight.node, id);
        }
        if let Some(node) = entry.on().map(str::to_owned)
            && let Some(here) = self.short.get_mut(&node)
        {
            here.remove(name);
            if here.is_empty() {
                self.short.remove(&node);
            }
        }
        // Its eviction may still fail, and then nobody would tell what its disruption budgets allow.
        if self.stays.remove(&id).is_some() && !stopping {
            self.apply(Event::PodStays(id));
        }
        self.apply(Event::PodRemoved(id));
        self.pod_names.remove(&id);
        self.pod_ids.give_back(id.0);
    }

    /// Takes a pod from where it is: what it leaves may be what others wait for.
    fn leave(&mut self, name: &str) {
        self.free_claims(name);
        let node = self.pods.get(name).and_then(PodEntry::on).map(str::to_owned);
        self.recheck.extend(node.clone().filter(|node| self.short.contains_key(node)));
        let runs = self.pods.get(name).and_then(|entry| self.planner.cluster().runs_on(entry.id?));
        let has_gpus = runs.is_some_and(|(_, grant)| !grant.0.is_empty());
        self.unbook(name);
        if let Some(node) = node.filter(|_| has_gpus) {
            self.handshakes.renew(&node);
        }
    }

    /// Gives an assumption back: the pod waits a little, then again.
    pub(super) fn give_back(&mut self, name: &str, why: &str) {
        self.leave(name);
        self.metrics.given_back.inc();
        let Some(entry) = self.pods.get_mut(name) else { return };
        let at_ms = self.now_ms + (RETURN_MS << entry.returned.min(10)).min(RETURN_MAX_MS);
        entry.returned = entry.returned.saturating_add(1);
        entry.trouble = Some(why.to_owned());
        self.enter(name, Stage::Returns);
        self.set_alarm(name, Some(at_ms));
        tracing::info!(pod = name, "comes back to the queue: {why}");
        self.tell(name);
    }

    /// Looks at the pods whose time has come.
    pub(super) fn ring(&mut self) {
        while self.alarms.first().is_some_and(|(at_ms, _)| *at_ms <= self.now_ms) {
            let Some((_, name)) = self.alarms.pop_first() else { return };
            let Some(entry) = self.pods.get_mut(&name) else { continue };
            entry.alarm_ms = None;
            match &entry.stage {
                Stage::Returns => {
                    self.enter(&name, Stage::Held(String::new()));
                    self.refresh_pod(&name);
                }
                Stage::Assumed(_) => self.ring_flight(&name),
                Stage::Runs => self.may_stop(&name),
                // A node that failed it is tried again.
                Stage::Waits => self.refresh_pod(&name),
                Stage::Held(_) | Stage::Homeless => {}
            }
        }
    }
}
