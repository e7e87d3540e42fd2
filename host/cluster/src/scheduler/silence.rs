//! Agents that do not work, and agents that left their node: nothing new is placed on GPUs that nobody would hand over.
//!
//! An agent tells itself, with the condition `Ready` of its `GpuNode`, that it cannot work, that it was ended, or that it gives its GPUs back.
//! One that died tells nothing; but then the kubelet no longer has what the agent said that it has, and the `Node` shows none of it.
//!
//! A node with the label `off` is being left: its GPUs are used no more until its agent has given them back and a device plugin shows them.
//! From then on they are whole GPUs by count, as on a node that never had an agent; the `GpuNode` stays as long as the node.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::nodes::NodeEntry;
use crate::{
    crd::{FoundGpu, PartitionState},
    objects::{GpuNode, Node},
    quantity::{Quantity, Round},
    translate::{self, keys},
};

/// How long a `Node` may show something else of a resource than its agent says, milliseconds. Kubelets tell what they have with their status,
/// every 10 s if it changed (`nodeStatusUpdateFrequency`): that one such telling may be lost and the next be late.
pub(super) const LAG_MS: u64 = 30_000;

/// The condition by which an agent tells whether it works.
const READY: &str = "Ready";
/// Reasons of an agent that hands out nothing any more: it gives its GPUs back, has done so, or was ended.
const LEFT: [&str; 3] = ["Restoring", "Restored", "Stopped"];

/// What is known of how an agent and its kubelet get on.
#[derive(Clone, Debug, Default)]
pub(super) struct Silence {
    /// Resources of GPUs that the node has shown, any number of them. What it never showed it may have no kubelet to show.
    shown: BTreeSet<String>,
    /// Those that its agent says the kubelet has and of which the node shows none, each with the time since when.
    lacks: BTreeMap<String, u64>,
    /// Since when its agent says that it hands out nothing, and nobody uses its GPUs.
    left_ms: Option<u64>,
}

impl Silence {
    /// Takes in what node and agent say now.
    fn look(&mut self, node: &Node, agent: Option<&GpuNode>, now_ms: u64) {
        let allocatable = &node.status.value.allocatable;
        let news = allocatable.keys().filter(|name| translate::is_gpu(name) && !self.shown.contains(*name));
        self.shown.extend(news.cloned().collect::<Vec<_>>());
        let mut lacks = BTreeMap::new();
        for resource in agent.into_iter().flat_map(offered) {
            if self.shown.contains(resource) && shows(node, resource) == 0 {
                lacks.insert(resource.to_owned(), self.lacks.get(resource).copied().unwrap_or(now_ms));
            }
        }
        self.lacks = lacks;
        self.left_ms = agent.filter(|agent| is_off(node) && has_left(agent)).map(|_| self.left_ms.unwrap_or(now_ms));
    }

    /// A resource that the kubelet does not have although the agent says so, for longer than that can take.
    fn lost(&self, now_ms: u64) -> Option<&str> {
        self.lacks.iter().find(|(_, since_ms)| is_over(**since_ms, now_ms)).map(|(resource, _)| resource.as_str())
    }

    /// Whether the GPUs are another's to hand out: its agent left, and a device plugin shows whole ones. The kubelet shows what the agent had
    /// for a while yet.
    fn is_handed_back(&self, node: &Node, now_ms: u64) -> bool {
        self.left_ms.is_some_and(|since_ms| is_over(since_ms, now_ms)) && shows(node, keys::WHOLE_GPU) > 0
    }

    /// When that is to be looked at again, milliseconds.
    fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let times = self.lacks.values().chain(&self.left_ms).map(|since_ms| since_ms + LAG_MS);
        times.filter(|at_ms| *at_ms > now_ms).min()
    }
}

impl NodeEntry {
    /// Takes in what node and agent say now.
    pub(super) fn listen(&mut self, now_ms: u64) {
        if let Some(node) = &self.object {
            self.silence.look(node, self.gpus.as_ref(), now_ms);
            self.handed_back = self.silence.is_handed_back(node, now_ms);
        } else {
            (self.silence, self.handed_back) = (Silence::default(), false);
        }
    }

    /// When to listen again although nothing happened, milliseconds.
    pub(super) fn listens_ms(&self, now_ms: u64) -> Option<u64> {
        self.silence.next_ms(now_ms)
    }

    /// Why nothing is placed on its GPUs, if its agent would not hand them over.
    pub(super) fn unattended(&self, now_ms: u64) -> Option<String> {
        let (node, agent) = (self.object.as_ref()?, self.agent()?);
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if is_off(node) {
            return Some(leaving(name, agent));
        }
        if let Some(ready) = ready(agent).filter(|ready| ready.status == "False") {
            return Some(format!("the agent of {name}: {}: {}", ready.reason, ready.message));
        }
        let resource = self.silence.lost(now_ms)?;
        Some(format!("the kubelet of {name} has no {resource}; is partita-agent running there?"))
    }
}

fn is_over(since_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(since_ms) >= LAG_MS
}

/// How many of a resource a node shows.
fn shows(node: &Node, resource: &str) -> u64 {
    let text = node.status.value.allocatable.get(resource);
    let amount = text.and_then(|text| Quantity::parse(text).ok()).and_then(|amount| amount.whole(Round::Down));
    amount.unwrap_or(0)
}

/// Whether a node is not to be partita's any more.
fn is_off(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(keys::PARTITIONING)).is_some_and(|value| value == "off")
}

fn ready(agent: &GpuNode) -> Option<&Condition> {
    agent.status.value.conditions.iter().find(|one| one.type_ == READY)
}

/// The resources under which an agent says that the kubelet has something that nobody uses. What is used the kubelet may have as another.
fn offered(agent: &GpuNode) -> impl Iterator<Item = &str> {
    let parts = agent.status.value.gpus.iter().filter(|gpu| gpu.healthy).flat_map(|gpu| &gpu.partitions);
    parts.filter(|one| one.state == PartitionState::Ready && one.users.is_empty()).filter_map(|one| one.resource.as_deref())
}

/// Whether an agent hands out nothing any more and nobody uses what it handed out.
fn has_left(agent: &GpuNode) -> bool {
    let said = ready(agent).is_some_and(|ready| LEFT.contains(&ready.reason.as_str()));
    let used = |gpu: &FoundGpu| !gpu.users.is_empty() || gpu.partitions.iter().any(|one| !one.users.is_empty());
    said && !agent.status.value.gpus.iter().any(used)
}

/// Why nothing is placed on a node that partita leaves.
fn leaving(name: &str, agent: &GpuNode) -> String {
    let off = format!("the label {} of {name} is off", keys::PARTITIONING);
    match ready(agent).filter(|ready| LEFT.contains(&ready.reason.as_str())) {
        Some(ready) if has_left(agent) => {
            format!("{off} and its agent has left ({}); no device plugin shows {} there yet", ready.reason, keys::WHOLE_GPU)
        }
        Some(ready) => format!("{off}, and pods still use its GPUs ({})", ready.reason),
        None => format!("{off}, and its agent has not given its GPUs back; if none is running there, delete the GpuNode {name}"),
    }
}
