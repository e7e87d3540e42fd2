//! GPUs that are set aside for a while, because their agent could not do what it was asked, or could not even be asked.

use partita_core::model::{NodeSpec, PodId};

use super::{Scheduler, handshake::Late, nodes::NodeEntry};

/// How long a GPU rests after its agent could not make a partition there, milliseconds; doubled each time until it succeeds.
const REST_MS: u64 = 5_000;
/// The longest rest, and how long a failure is remembered after it.
const REST_MAX_MS: u64 = 600_000;

/// Why a GPU rests.
#[derive(Clone, Debug, Default)]
pub(super) struct Rest {
    until_ms: u64,
    /// Empty once it is over.
    why: String,
    times: u32,
}

impl Rest {
    /// Whether the GPU rests now.
    pub(super) fn is_on(&self) -> bool {
        !self.why.is_empty()
    }

    /// When something happens to it.
    fn next_ms(&self) -> u64 {
        if self.is_on() { self.until_ms } else { self.until_ms.saturating_add(REST_MAX_MS) }
    }
}

impl NodeEntry {
    /// Marks the GPUs that rest, beside those that are unusable as it is.
    pub(super) fn set_aside(&self, spec: &mut NodeSpec) {
        for (index, rest) in self.rests.iter().filter(|(_, rest)| rest.is_on()) {
            if let Some(gpu) = spec.gpus.get_mut(usize::from(*index)) {
                gpu.unusable.get_or_insert_with(|| rest.why.clone());
            }
        }
    }
}

impl Scheduler {
    /// Sets GPUs aside for a while, which sends elsewhere who still waits for parts of them. Those that rest already rest no longer for it: several pods may fail at once for one reason.
    pub(super) fn rest(&mut self, name: &str, gpus: &[u8], why: &str) {
        let now_ms = self.now_ms;
        let Some(entry) = self.nodes.get_mut(name) else { return };
        for gpu in gpus {
            let rest = entry.rests.entry(*gpu).or_default();
            if !rest.is_on() {
                tracing::warn!(node = name, gpu, "a GPU is set aside for a while: {why}");
                let until_ms = now_ms + (REST_MS << rest.times.min(20)).min(REST_MAX_MS);
                *rest = Rest { until_ms, why: why.to_owned(), times: rest.times + 1 };
            }
        }
        self.plan_alarm(name);
        self.refresh_node(name);
    }

    /// Sets all GPUs of a node aside, and gives back the pods that waited for them.
    pub(super) fn rest_all(&mut self, name: &str, pods: Vec<PodId>, why: &str) {
        let known = self.nodes.get(name).and_then(|entry| self.planner.cluster().node(entry.id?));
        let gpus: Vec<u8> = (0u8..).zip(known.map_or(&[][..], |node| &node.room.gpus)).map(|(index, _)| index).collect();
        for pod in pods {
            if let Some(pod) = self.pod_names.get(&pod).cloned() {
                self.blame(&pod, &format!("node {name}: {why}"));
            }
        }
        self.rest(name, &gpus, why);
    }

    /// A pod got what it was promised: its GPUs begin anew.
    pub(super) fn succeed(&mut self, name: &str, pod: PodId) {
        let Some((_, grant)) = self.planner.cluster().runs_on(pod) else { return };
        let Some(entry) = self.nodes.get_mut(name) else { return };
        entry.rests.retain(|gpu, rest| rest.is_on() || grant.0.iter().all(|part| part.0 != *gpu));
        self.plan_alarm(name);
    }

    /// Gives back what agents were asked for in vain, and ends the rest of GPUs that rested long enough.
    pub(super) fn end_rests(&mut self) {
        for (name, pod, late) in self.handshakes.overdue(self.now_ms) {
            match late {
                Late::Silent => {
                    self.rest_all(&name, vec![pod], "the agent of the node does not answer; is partita-agent running there?");
                }
                Late::Unwritten(trouble) => self.rest_all(&name, vec![pod], &format!("its layout cannot be written: {trouble}")),
                // An agent that takes layouts works: others have what they ask of it.
                Late::Unmade(why) => self.give_up(&name, pod, why.as_deref()),
                Late::Waits(why) => self.tell_waiting(&name, pod, &why),
            }
        }
        while let Some((_, name)) = self.node_alarms.first().filter(|(at_ms, _)| *at_ms <= self.now_ms).cloned() {
            let now_ms = self.now_ms;
            if let Some(entry) = self.nodes.get_mut(&name) {
                entry.rests.values_mut().filter(|rest| rest.until_ms <= now_ms).for_each(|rest| rest.why.clear());
                entry.rests.retain(|_, rest| rest.next_ms() > now_ms);
            }
            self.plan_alarm(&name);
            self.refresh_node(&name);
        }
    }

    /// A pod waited for its part for too long.
    fn give_up(&mut self, name: &str, pod: PodId, why: Option<&str>) {
        let Some(pod) = self.pod_names.get(&pod).cloned() else { return };
        let why = why.unwrap_or("its agent took the layout and says nothing of it; look at the agent's log");
        self.blame(&pod, &format!("its partition on node {name} was not ready in time: {why}"));
    }

    fn tell_waiting(&mut self, name: &str, pod: PodId, why: &str) {
        if let Some(pod) = self.pod_names.get(&pod).cloned() {
            self.say(&pod, &format!("its partition on node {name} is not ready yet: {why}"));
        }
    }

    /// Sets the time when a node is to be looked at although nothing happened.
    pub(super) fn plan_alarm(&mut self, name: &str) {
        let next = |entry: &NodeEntry| entry.rests.values().map(Rest::next_ms).chain(entry.listens_ms(self.now_ms)).min();
        let next_ms = self.nodes.get(name).and_then(next);
        self.set_node_alarm(name, next_ms);
    }

    pub(super) fn set_node_alarm(&mut self, name: &str, at_ms: Option<u64>) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        if let Some(before) = std::mem::replace(&mut entry.alarm_ms, at_ms) {
            self.node_alarms.remove(&(before, name.to_owned()));
        }
        self.node_alarms.extend(at_ms.map(|at_ms| (at_ms, name.to_owned())));
    }
}
