//! What was told to whom about why it waits: once, and again only when it changed and some time passed.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::{
    model::{DemandId, PodId},
    queue::LaneKey,
    state::Why,
};
use serde::Serialize;

use super::{
    Scheduler,
    effect::{Effect, Outcome, PodName},
    flight::Step,
    pods::{PodEntry, Stage},
};

/// How often the reason of a pod that goes on waiting is told anew, milliseconds, if it changed: counts of nodes change with every pod, and
/// each telling is a write. Doubled each time for a pod that is told often.
const RETELL_MS: u64 = 10_000;
/// The longest such time.
const RETELL_MAX_MS: u64 = 300_000;
/// The most reasons told in one turn: each is a write to the API server, and those that bind pods come first.
const TELL_MAX: usize = 256;
/// The most nodes looked at for reasons in one turn, some tens of milliseconds: what is left comes in the next.
const LOOKS_MAX: usize = 50_000;
/// How long the loop may rest while there is something left to tell to pods that were told nothing yet, milliseconds.
pub(super) const TELL_PAUSE_MS: u64 = 100;
/// The longest message of a condition that Kubernetes keeps (`metav1.Condition.message`).
const MESSAGE_MAX: usize = 32_768;

/// What was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Reasons {
    /// By pod: what was told.
    told: BTreeMap<String, Told>,
    /// Pods of which it was said that room is made for them on a node.
    nominated: BTreeSet<String>,
    /// Pods to be told now.
    new: BTreeSet<String>,
    /// Pods to be told when those who go on waiting are: it is too soon after the last time, or did not go well.
    later: BTreeSet<String>,
    /// Those who go on waiting and are still to be looked at.
    sweep: BTreeSet<LaneKey>,
    /// When all who wait are looked at again.
    sweep_at_ms: u64,
}

/// What a pod was told.
#[derive(Clone, Debug)]
struct Told {
    message: String,
    at_ms: u64,
    /// How long it is told nothing else after it, milliseconds.
    rest_ms: u64,
}

impl Reasons {
    pub(super) fn is_new(&mut self, pod: &str) {
        self.new.insert(pod.to_owned());
    }

    pub(super) fn forget(&mut self, pod: &str) {
        self.told.remove(pod);
        self.new.remove(pod);
        self.later.remove(pod);
        self.nominated.remove(pod);
    }

    /// Whether somebody was told nothing yet.
    pub(super) fn is_behind(&self) -> bool {
        !self.new.is_empty()
    }
}

/// What one turn may still tell and look at, and what it found.
struct Round {
    words: usize,
    looks: usize,
    /// Pods of one demand wait for one reason.
    known: BTreeMap<DemandId, Option<String>>,
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
    pub(super) fn explain(&mut self) {
        self.end_nominations();
        if self.reasons.sweep_at_ms <= self.now_ms && self.reasons.sweep.is_empty() {
            self.reasons.sweep_at_ms = self.now_ms + RETELL_MS;
            self.reasons.sweep = self.planner.queue().lanes().collect();
            let later = std::mem::take(&mut self.reasons.later);
            self.reasons.new.extend(later);
        }
        let mut round = Round { words: TELL_MAX, looks: LOOKS_MAX, known: BTreeMap::new() };
        for name in std::mem::take(&mut self.reasons.new) {
            let waits = self.pods.get(&name).filter(|entry| entry.stage == Stage::Waits).and_then(|entry| entry.id);
            let Some(pod) = waits else {
                self.tell(&name);
                continue;
            };
            match self.message_of(pod, &mut round) {
                Some(Some(message)) => round.words -= usize::from(self.say(&name, &message)),
                // It is placed in the next round, or told when others are.
                Some(None) => {}
                None => self.reasons.is_new(&name),
            }
        }
        while let Some(lane) = self.reasons.sweep.pop_first() {
            let pods: Vec<PodId> = self.planner.queue().pods(lane).collect();
            for pod in pods {
                let Some(name) = self.pod_names.get(&pod).cloned() else { continue };
                let Some(message) = self.message_of(pod, &mut round) else {
                    self.reasons.sweep.insert(lane);
                    return;
                };
                round.words -= usize::from(self.say(&name, message.as_deref().unwrap_or(NEXT)));
            }
        }
    }

    /// Why a pod in the queue waits; nothing if there is a place for it. None if that was not looked up, since enough was told in this turn.
    #[allow(clippy::option_option, reason = "not looked up, and looked up but nothing in the way, are two things")]
    fn message_of(&self, pod: PodId, round: &mut Round) -> Option<Option<String>> {
        if round.words == 0 {
            return None;
        }
        if let Some(message) = self.claimed(pod) {
            return Some(Some(message));
        }
        let demand = self.planner.cluster().pod(pod)?.demand;
        if let Some(known) = round.known.get(&demand) {
            return Some(known.clone());
        }
        // The first always is looked up, however many nodes there are.
        let cost = self.planner.cluster().node_rows().max(1);
        if round.looks < cost && round.looks < LOOKS_MAX {
            return None;
        }
        round.looks = round.looks.saturating_sub(cost);
        let reason = self.planner.reason(demand).map(|reason| reason.to_string());
        round.known.insert(demand, reason.clone());
        Some(reason)
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

    /// Tells a pod that is not in the queue why it is not.
    pub(super) fn tell(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        let message = match &entry.stage {
            // Of gates the API server tells by itself.
            Stage::Held(why) if entry.object.spec.value.scheduling_gates.is_empty() => why.clone(),
            Stage::Returns => entry.trouble.clone().unwrap_or_default(),
            _ => return,
        };
        if self.term.is_none() {
            self.reasons.is_new(name);
        } else if !message.is_empty() {
            self.say(name, &message);
        }
    }

    /// Tells a pod why it waits. False if that was told already, or not long ago something else was.
    pub(super) fn say(&mut self, name: &str, message: &str) -> bool {
        let Some(entry) = self.pods.get(name) else { return false };
        if entry.is_bound() || entry.object.spec.value.scheduler_name != self.name {
            return false;
        }
        let away = if entry.stage == Stage::Waits { entry.avoids.words(self.now_ms) } else { String::new() };
        let message: String = message.chars().chain(away.chars()).take(MESSAGE_MAX).collect();
        let said = entry.object.status.value.condition("PodScheduled").filter(|said| said.status == "False");
        let mut rest_ms = RETELL_MS;
        match self.reasons.told.get(name) {
            Some(told) if told.message == message => return false,
            Some(told) => {
                let since_ms = self.now_ms.saturating_sub(told.at_ms);
                if since_ms < told.rest_ms {
                    self.reasons.later.insert(name.to_owned());
                    return false;
                }
                if since_ms < 2 * told.rest_ms {
                    rest_ms = (2 * told.rest_ms).min(RETELL_MAX_MS);
                }
            }
            // Before a restart.
            None => {
                if said.is_some_and(|said| said.message == message) {
                    self.reasons.told.insert(name.to_owned(), Told { message, at_ms: self.now_ms, rest_ms });
                    return false;
                }
            }
        }
        let reason = match entry.stage {
            // No other node would help, so none is to be bought for it.
            Stage::Held(_) => "Held",
            Stage::Returns => "Returns",
            Stage::Assumed(_) => "OnItsWay",
            _ => "Unschedulable",
        };
        // Said once, it stays so until the pod is bound.
        let turns = said.is_none() && !self.reasons.told.contains_key(name);
        self.reasons.told.insert(name.to_owned(), Told { message: message.clone(), at_ms: self.now_ms, rest_ms });
        self.effects.push(Effect::Explain { pod: entry.name(), reason, message, turns });
        true
    }

    /// Pods for which no room is made any more are not said to be about to go to a node.
    fn end_nominations(&mut self) {
        for effect in &self.effects {
            if let Effect::Nominate { pod, .. } = effect {
                self.reasons.nominated.insert(format!("{}/{}", pod.namespace, pod.name));
            }
        }
        // Those of a former leader.
        let found = |name: &&String| self.pods.get(*name).is_some_and(|entry| !entry.object.status.value.nominated_node_name.is_empty());
        let found: Vec<String> = self.reasons.new.iter().filter(found).cloned().collect();
        self.reasons.nominated.extend(found);
        let claims = |entry: &PodEntry| entry.id.is_some_and(|id| self.planner.cluster().claim_of(id).is_some());
        let stays =
            |name: &String| self.pods.get(name).is_some_and(|entry| entry.flight().is_some() || (!entry.is_bound() && claims(entry)));
        let over: Vec<String> = self.reasons.nominated.iter().filter(|name| !stays(name)).cloned().collect();
        for name in over {
            self.reasons.nominated.remove(&name);
            if let Some(entry) = self.pods.get(&name).filter(|entry| !entry.is_bound()) {
                self.effects.push(Effect::Nominate { pod: entry.name(), node: String::new() });
            }
        }
    }

    /// What could not be told is told again later.
    pub(super) fn told(&mut self, pod: &PodName, outcome: &Outcome) {
        let name = format!("{}/{}", pod.namespace, pod.name);
        let failed = matches!(outcome, Outcome::Conflict(_) | Outcome::Unknown(_) | Outcome::Fenced);
        if failed && self.pods.get(&name).is_some_and(|entry| entry.object.metadata.uid.as_deref() == Some(&pod.uid)) {
            self.reasons.told.remove(&name);
            self.reasons.later.insert(name);
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
            Stage::Returns => of("returns", entry.trouble.clone()),
            Stage::Runs | Stage::Homeless => of("runs", None),
            Stage::Assumed(flight) => {
                let why = entry.id.and_then(|id| self.handshakes.why(&flight.node, id)).filter(|why| !why.is_empty());
                let words = flight.step.words();
                of("on its way", Some(why.map_or_else(|| words.to_owned(), |why| format!("{words}: {why}"))))
            }
            Stage::Waits => {
                let id = entry.id?;
                let claim = self.planner.cluster().claim_of(id).and_then(|claim| self.node_names.get(&claim.node).cloned());
                let reason = self.planner.reason(self.planner.cluster().pod(id)?.demand);
                let message = self.claimed(id).or_else(|| reason.as_ref().map(ToString::to_string)).unwrap_or_else(|| NEXT.to_owned());
                let message = message + &entry.avoids.words(self.now_ms);
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
            Self::Lands | Self::Looks => "the API server did not say whether it was bound; its place is kept until that is sure",
            Self::Doubts => "it is being bound; the API server did not answer, so this is tried again",
        }
    }
}
