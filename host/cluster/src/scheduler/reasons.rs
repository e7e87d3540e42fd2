//! What was told to whom about why it waits: once, and again only when it changed and some time passed.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::{
    model::{DemandId, PodId},
    state::Why,
};
use serde::Serialize;

use super::{
    Scheduler,
    effect::{Effect, Outcome, PodName},
    pods::{Stage, Step},
};

/// How often the reason of a pod that goes on waiting is told anew, milliseconds, if it changed: counts of nodes change with every pod, and
/// each telling is a write.
const RETELL_MS: u64 = 10_000;
/// The most reasons told in one turn: each is a write to the API server, and those that bind pods come first.
const TELL_MAX: usize = 256;
/// The longest message of a condition that Kubernetes keeps (`metav1.Condition.message`).
const MESSAGE_MAX: usize = 32_768;

/// What was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Reasons {
    /// By pod: what was told, and when.
    told: BTreeMap<String, (String, u64)>,
    /// Pods that began to wait since the last round.
    new: BTreeSet<String>,
    /// When all who wait are looked at again.
    sweep_at_ms: u64,
}

impl Reasons {
    pub(super) fn is_new(&mut self, pod: &str) {
        self.new.insert(pod.to_owned());
    }

    pub(super) fn forget(&mut self, pod: &str) {
        self.told.remove(pod);
        self.new.remove(pod);
    }
}

/// How it stands with a pod, as `partita explain pod` and `/explain` answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// `waits`, `held`, `returns`, `on its way` or `runs`.
    pub stage: &'static str,
    /// The node that it runs on, goes to, or has a claim on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Why it is there, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What is short, if it waits: see [`partita_core::explain::Reason`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<partita_core::explain::Reason>,
}

impl Scheduler {
    /// Tells pods why they wait: new ones at once, the others when it is time.
    pub(super) fn explain(&mut self, waiting: &[DemandId]) {
        let mut pods: Vec<String> = std::mem::take(&mut self.reasons.new).into_iter().collect();
        if self.reasons.sweep_at_ms <= self.now_ms {
            self.reasons.sweep_at_ms = self.now_ms + RETELL_MS;
            let lanes = self.planner.queue().lanes().filter(|lane| waiting.contains(&lane.1));
            pods = lanes.flat_map(|lane| self.planner.queue().pods(lane)).filter_map(|pod| self.pod_names.get(&pod).cloned()).collect();
        }
        // Pods of one demand wait for one reason.
        let mut by_demand: BTreeMap<DemandId, String> = BTreeMap::new();
        let mut told = 0;
        for name in pods {
            let Some(pod) = self.waiting_pod(&name) else { continue };
            if told == TELL_MAX {
                self.reasons.new.insert(name);
                continue;
            }
            let message = match self.claimed(pod) {
                Some(message) => message,
                None => {
                    let Some(demand) = self.planner.cluster().pod(pod).map(|pod| pod.demand) else { continue };
                    let reason = || self.planner.reason(demand).map_or_else(|| NEXT.to_owned(), |reason| reason.to_string());
                    by_demand.entry(demand).or_insert_with(reason).clone()
                }
            };
            told += usize::from(self.tell(&name, &message));
        }
    }

    fn waiting_pod(&self, name: &str) -> Option<PodId> {
        self.pods.get(name).filter(|entry| entry.stage == Stage::Waits)?.id
    }

    /// That room is being made or kept for a pod.
    fn claimed(&self, pod: PodId) -> Option<String> {
        let claim = self.planner.cluster().claim_of(pod)?;
        let node = self.node_names.get(&claim.node)?;
        let names: Vec<&str> = claim.waits_for.iter().filter_map(|id| self.pod_names.get(id)).map(String::as_str).collect();
        let (first, others) = names.split_first()?;
        let others = if others.is_empty() { String::new() } else { format!(" and {} others", others.len()) };
        Some(match claim.why {
            Why::RoomMade => format!("room is being made on node {node}: it waits for {first}{others} to stop"),
            Why::Reserved => format!("a place is kept for it on node {node}: it waits for {first}{others} to end"),
        })
    }

    /// Tells a pod why it waits. False if that was told already.
    pub(super) fn tell(&mut self, name: &str, message: &str) -> bool {
        let Some(entry) = self.pods.get(name) else { return false };
        let ours = entry.object.spec.value.scheduler_name == self.name && entry.object.spec.value.node_name.is_empty();
        if !ours || self.term.is_none() {
            return false;
        }
        let message: String = message.chars().take(MESSAGE_MAX).collect();
        let known = match self.reasons.told.get(name) {
            Some((told, at_ms)) => *told == message || self.now_ms.saturating_sub(*at_ms) < RETELL_MS,
            // Before a restart.
            None => {
                entry.object.status.value.condition("PodScheduled").is_some_and(|said| said.message == message && said.status == "False")
            }
        };
        if known {
            return false;
        }
        self.reasons.told.insert(name.to_owned(), (message.clone(), self.now_ms));
        self.effects.push(Effect::Explain { pod: entry.name(), message });
        true
    }

    /// What could not be told is told again at the next occasion.
    pub(super) fn told(&mut self, pod: &PodName, outcome: &Outcome) {
        if let Outcome::Conflict(_) | Outcome::Unknown(_) = outcome {
            self.reasons.told.remove(&format!("{}/{}", pod.namespace, pod.name));
        }
    }

    /// How it stands with a pod; none for one that is not looked after.
    #[must_use]
    pub fn standing(&self, namespace: &str, pod: &str) -> Option<Standing> {
        let entry = self.pods.get(&format!("{namespace}/{pod}"))?;
        let node = entry.on().map(str::to_owned);
        let of = |stage, message| Standing { stage, node: node.clone(), message, reason: None };
        Some(match &entry.stage {
            Stage::Held(why) => of("held", Some(why.clone())),
            Stage::Returns(_) => of("returns", entry.trouble.clone()),
            Stage::Runs | Stage::Homeless => of("runs", None),
            Stage::Assumed(flight) => of("on its way", Some(flight.step.words().to_owned())),
            Stage::Waits => {
                let id = entry.id?;
                let claim = self.planner.cluster().claim_of(id).and_then(|claim| self.node_names.get(&claim.node).cloned());
                let reason = self.planner.reason(self.planner.cluster().pod(id)?.demand);
                let message = self.claimed(id).or_else(|| reason.as_ref().map(ToString::to_string)).unwrap_or_else(|| NEXT.to_owned());
                Standing { node: claim, reason, ..of("waits", Some(message)) }
            }
        })
    }
}

/// What is told of a pod for which there is a place.
const NEXT: &str = "there is a place for it; it is placed in the next round";

impl Step {
    fn words(self) -> &'static str {
        match self {
            Self::Makes => "its partition is being made",
            Self::Chooses | Self::Volumes => "its volumes are being bound",
            Self::Binds | Self::Bound => "it is being bound",
        }
    }
}
