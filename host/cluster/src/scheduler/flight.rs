//! A pod on its way to a node: its partition is made, its volumes are chosen and bound, then it is bound itself.

use std::collections::BTreeMap;

use partita_core::{
    model::{NodeId, PodId},
    state::Grant,
};

use super::{
    Scheduler,
    effect::{Done, Effect, Outcome, PodName},
    pods::Stage,
};
use crate::grant;

/// How long an answer of the API server may take, milliseconds: longer than all tries of a call together. After that there is none.
pub(super) const ANSWER_MS: u64 = 120_000;
/// How long a pod may wait for its volumes, milliseconds: kube-scheduler's `bindTimeoutSeconds`.
const VOLUMES_MS: u64 = 600_000;
/// How long nobody knows whether a pod was bound before it is tried again, milliseconds; doubled each time.
const DOUBT_MS: u64 = 4_000;
/// How often nobody may know before it is not tried again.
const DOUBTS_MAX: u32 = 3;
/// How long after the last try the API server may still carry one of them out, milliseconds: `--request-timeout` of kube-apiserver is 60 s
/// unless somebody changed it, and clocks and queues are given some more.
const LANDED_MS: u64 = 75_000;

/// A pod on its way to a node.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Flight {
    /// The node.
    pub(super) node: String,
    /// What it was given.
    pub(super) grant: Grant,
    /// What it waits for.
    pub(super) step: Step,
    /// Claims for which a volume was chosen on its way, each with the version that this was decided on.
    pub(super) chosen: BTreeMap<String, String>,
    /// How often nobody knew whether it was bound.
    doubts: u32,
    /// Why it cannot be bound, if the last try said so and one before it may still be carried out.
    refused: Option<String>,
}

/// What a pod on its way waits for, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The agent, for its partition.
    Makes,
    /// The API server, for what it was told of its volumes.
    Chooses,
    /// Whoever makes or binds its volumes.
    Volumes,
    /// The API server, for its binding.
    Binds,
    /// The watch, to see whether it was bound: the API server did not answer.
    Doubts,
    /// That no try to bind it can still be carried out.
    Lands,
    /// The API server, to say whether it was bound after all.
    Looks,
    /// The watch, to see it bound.
    Bound,
}

impl Step {
    /// Whether the pod may be bound at any moment, or is already: its place cannot be given to others.
    pub(super) fn is_committed(self) -> bool {
        self >= Self::Binds
    }
}

impl Scheduler {
    /// Sets a pod on its way.
    pub(super) fn start(&mut self, pod: PodId, node: NodeId, grant: Grant) {
        let (Some(name), Some(node_name)) = (self.pod_names.get(&pod).cloned(), self.node_names.get(&node).cloned()) else { return };
        let needs = self.missing(pod, &grant);
        let flight = Flight { node: node_name.clone(), grant, step: Step::Makes, chosen: BTreeMap::new(), doubts: 0, refused: None };
        self.enter(&name, Stage::Assumed(flight));
        self.metrics.placed(self.now_ms.saturating_sub(self.pods.get(&name).map_or(0, |entry| entry.since_ms)));
        if needs.is_empty() {
            self.make_ready(name);
        } else {
            self.handshakes.ask(&node_name, pod, needs, self.now_ms);
        }
    }

    /// Everything is there: the pod is bound.
    pub(super) fn bind(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        let Some(flight) = entry.flight() else { return };
        let node = self.nodes.get(&flight.node).and_then(|node| self.planner.cluster().node(node.id?));
        let Some(known) = node else {
            // Between two tries.
            let why = format!("its node {} went away", flight.node);
            return self.not_bound(name, why, false);
        };
        let printed = grant::print(&flight.grant, &grant::profile_of(&known.spec, self.planner.cluster().models()));
        let text = match printed {
            Ok(text) => Some(text).filter(|text| !text.is_empty()),
            Err(error) => {
                // Its GPUs went away, maybe between two tries.
                let why = format!("what it was given on node {} cannot be written down: {error}", flight.node);
                return self.not_bound(name, why, false);
            }
        };
        let effect = Effect::Bind { pod: entry.name(), node: flight.node.clone(), grant: text };
        tracing::debug!(pod = name, node = flight.node, "is bound");
        self.effects.push(effect);
        self.step(name, Step::Binds);
    }

    pub(super) fn step(&mut self, name: &str, step: Step) {
        let Some(Stage::Assumed(flight)) = self.pods.get_mut(name).map(|entry| &mut entry.stage) else { return };
        // Who waits for volumes already goes on waiting.
        if flight.step == step {
            return;
        }
        flight.step = step;
        let after_ms = match step {
            Step::Chooses | Step::Binds | Step::Looks => Some(ANSWER_MS),
            Step::Volumes => Some(VOLUMES_MS),
            Step::Doubts => Some(DOUBT_MS << flight.doubts.saturating_sub(1).min(DOUBTS_MAX)),
            Step::Lands => Some(LANDED_MS),
            Step::Makes | Step::Bound => None,
        };
        self.set_alarm(name, after_ms.map(|after_ms| self.now_ms + after_ms));
    }

    /// The time of a step is over.
    pub(super) fn ring_flight(&mut self, name: &str) {
        let Some(flight) = self.pods.get(name).and_then(super::pods::PodEntry::flight) else { return };
        match flight.step {
            Step::Chooses => self.give_back(name, "the API server did not say what became of its volumes"),
            Step::Volumes => self.blame(name, &format!("its volumes were not bound within {} s", VOLUMES_MS / 1000)),
            Step::Binds => self.doubt(name, "the API server did not say what became of its binding"),
            Step::Doubts if flight.doubts < DOUBTS_MAX => self.bind(name),
            Step::Doubts | Step::Looks => self.step(name, Step::Lands),
            Step::Lands => self.look(name),
            Step::Makes | Step::Bound => {}
        }
    }

    /// After a node's GPUs changed: who was on the way to GPUs that are no longer there, or are `broken`, comes back. Who may be bound already
    /// is seen bound or not.
    pub(super) fn check_flights(&mut self, node: &str, broken: &BTreeMap<u8, String>) {
        let why = |name: &String| {
            let entry = self.pods.get(name)?;
            let flight = entry.flight().filter(|flight| !flight.step.is_committed())?;
            let broken = flight.grant.0.iter().find_map(|part| Some((part.0, broken.get(&part.0)?)));
            if let Some((gpu, why)) = broken {
                return Some(format!("GPU {gpu} of node {node}, to which it was on its way, cannot be used: {why}"));
            }
            let runs = entry.id.and_then(|id| self.planner.cluster().runs_on(id));
            let is_lost = runs.is_none_or(|(_, grant)| *grant != flight.grant);
            is_lost.then(|| format!("what it was given on node {node} is not there any more"))
        };
        let lost = |name: &String| Some((name.clone(), why(name)?));
        let lost: Vec<(String, String)> = self.flights.get(node).into_iter().flatten().filter_map(lost).collect();
        for (pod, why) in lost {
            self.give_back(&pod, &why);
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
        self.tick(now_ms);
        match done {
            Done::Layout { node, generation, outcome } => self.layout_done(&node, generation, outcome),
            Done::Volumes { pod, node, outcome } => self.volumes_done(&pod, &node, outcome),
            Done::Bind { pod, node, outcome } => self.bind_done(&pod, &node, outcome),
            Done::Look { pod, node, found } => self.looked(&pod, &node, &found),
            Done::Evict { pod, outcome } => self.evict_done(&pod, outcome),
            Done::Told { pod, outcome } => self.told(&pod, &outcome),
        }
    }

    /// The name of a pod that is on its way to `node` and at one of these steps: an answer about an earlier way is not about this one.
    fn on_the_way(&self, pod: &PodName, node: &str, at: &[Step]) -> Option<String> {
        let name = format!("{}/{}", pod.namespace, pod.name);
        let entry = self.pods.get(&name).filter(|entry| entry.object.metadata.uid.as_deref() == Some(&pod.uid))?;
        entry.flight().filter(|flight| flight.node == node && at.contains(&flight.step)).map(|_| name)
    }

    fn volumes_done(&mut self, pod: &PodName, node: &str, outcome: Outcome) {
        let Some(name) = self.on_the_way(pod, node, &[Step::Chooses]) else { return };
        match outcome {
            Outcome::Done => self.make_ready(name),
            Outcome::Gone => self.give_back(&name, "one of its claims or volumes is gone"),
            Outcome::Fenced => self.give_back(&name, FENCED),
            Outcome::Conflict(why) | Outcome::Unknown(why) => self.give_back(&name, &why),
            Outcome::Refused(why) => self.blame(&name, &why),
        }
    }

    fn bind_done(&mut self, pod: &PodName, node: &str, outcome: Outcome) {
        let Some(name) = self.on_the_way(pod, node, &[Step::Binds, Step::Doubts, Step::Lands, Step::Looks]) else { return };
        match outcome {
            Outcome::Done => self.step(&name, Step::Bound),
            Outcome::Gone => self.give_back(&name, GONE),
            Outcome::Conflict(why) => self.not_bound(&name, why, false),
            // It may be about the node.
            Outcome::Refused(why) => self.not_bound(&name, why, true),
            Outcome::Fenced => self.not_bound(&name, FENCED.to_owned(), false),
            Outcome::Unknown(why) => self.doubt(&name, &why),
        }
    }

    /// A try to bind a pod came to nothing. If there was one before that nobody answered, it may still be carried out: the place stays the
    /// pod's own until that is over.
    fn not_bound(&mut self, name: &str, why: String, here: bool) {
        let Some(Stage::Assumed(flight)) = self.pods.get_mut(name).map(|entry| &mut entry.stage) else { return };
        match flight.step {
            _ if flight.doubts > 0 => {
                flight.refused = Some(why);
                if flight.step < Step::Lands {
                    self.step(name, Step::Lands);
                }
            }
            _ if here => self.blame(name, &why),
            _ => self.give_back(name, &why),
        }
    }

    /// No try can be carried out any more: whether one was, is seen.
    fn look(&mut self, name: &str) {
        let Some((pod, flight)) = self.pods.get(name).and_then(|entry| Some((entry.name(), entry.flight()?))) else { return };
        self.effects.push(Effect::Look { pod, node: flight.node.clone() });
        self.step(name, Step::Looks);
    }

    fn looked(&mut self, pod: &PodName, node: &str, found: &Result<Option<String>, Outcome>) {
        let Some(name) = self.on_the_way(pod, node, &[Step::Looks]) else { return };
        match found {
            // Wherever that is: the watch tells.
            Ok(Some(_)) => self.step(&name, Step::Bound),
            Ok(None) => {
                let why = self.pods.get(&name).and_then(|entry| entry.flight()?.refused.clone());
                let silent = "the API server did not say what became of its binding";
                self.blame(&name, why.as_deref().unwrap_or(silent));
            }
            Err(Outcome::Gone) => self.give_back(&name, GONE),
            Err(_) => self.step(&name, Step::Lands),
        }
    }

    /// Nobody knows whether a pod was bound: its place stays its own until the watch tells, and the binding, which may be repeated, is tried
    /// again.
    fn doubt(&mut self, name: &str, why: &str) {
        let Some(Stage::Assumed(flight)) = self.pods.get_mut(name).map(|entry| &mut entry.stage) else { return };
        if flight.step != Step::Binds {
            return;
        }
        flight.doubts += 1;
        tracing::info!(pod = name, "may be bound or not: {why}");
        self.step(name, Step::Doubts);
    }
}

/// Why something was not done that would have been.
const FENCED: &str = "this scheduler was not sure to lead";
/// Why there is nothing to bind.
const GONE: &str = "it is gone, or is another pod of the same name now";
