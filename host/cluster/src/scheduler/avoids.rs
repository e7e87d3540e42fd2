//! Nodes that failed a pod: it is kept away from them for a while, so that the others are tried. The planner is deterministic and would
//! choose the same node again.

use std::collections::BTreeMap;

use partita_core::model::{
    PodSpec,
    constraints::{NodeTerm, Operator, Requirement},
};

use super::{Scheduler, pods::PodEntry};

/// How long a pod is kept away from a node that failed it, beyond the pause before it is tried again, milliseconds; doubled each time.
const AVOID_MS: u64 = 5_000;
/// The longest such time, and how long a failure is remembered after it.
const AVOID_MAX_MS: u64 = 600_000;
/// Nodes that one pod is kept away from at most; then the one whose time is over first is tried again.
const NODES_MAX: usize = 64;
/// The longest pause of a pod that a node failed before it is tried on another, milliseconds.
const NEXT_MAX_MS: u64 = 10_000;

/// A node that failed a pod.
#[derive(Clone, Debug)]
pub(super) struct Avoid {
    until_ms: u64,
    times: u32,
    why: String,
}

/// The nodes that failed a pod, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Avoids(BTreeMap<String, Avoid>);

impl Avoids {
    fn note(&mut self, node: &str, why: &str, from_ms: u64) {
        if self.0.len() >= NODES_MAX && !self.0.contains_key(node) {
            let first = self.0.iter().min_by_key(|(_, one)| one.until_ms).map(|(name, _)| name.clone());
            first.map(|first| self.0.remove(&first));
        }
        let times = self.0.get(node).map_or(0, |one| one.times);
        let until_ms = from_ms + (AVOID_MS << times.min(20)).min(AVOID_MAX_MS);
        self.0.insert(node.to_owned(), Avoid { until_ms, times: times + 1, why: why.to_owned() });
    }

    fn forget_old(&mut self, now_ms: u64) {
        self.0.retain(|_, one| one.until_ms.saturating_add(AVOID_MAX_MS) > now_ms);
    }

    fn now(&self, now_ms: u64) -> impl Iterator<Item = (&String, &Avoid)> {
        self.0.iter().filter(move |(_, one)| one.until_ms > now_ms)
    }

    /// When the first of them is tried again, milliseconds; none if all are.
    pub(super) fn next_ms(&self, now_ms: u64) -> Option<u64> {
        self.now(now_ms).map(|(_, one)| one.until_ms).min()
    }

    /// Whether no node failed it, that is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps them out of where a pod may run. As a condition of a volume, at which spreading does not look: how many pods run there counts.
    pub(super) fn keep_away(&self, spec: &mut PodSpec, now_ms: u64) {
        let values: Vec<String> = self.now(now_ms).map(|(name, _)| name.clone()).collect();
        if !values.is_empty() {
            let not_there = Requirement { key: "metadata.name".into(), operator: Operator::NotIn, values };
            let term = NodeTerm { fields: vec![not_there], ..NodeTerm::default() };
            spec.demand.constraints.get_or_insert_default().volumes.push(vec![term]);
        }
    }

    /// What to tell of them, behind why a pod waits; empty if there are none.
    pub(super) fn words(&self, now_ms: u64) -> String {
        let mut all = self.now(now_ms);
        let Some((node, first)) = all.next() else { return String::new() };
        let others = all.count();
        let others = if others == 0 { String::new() } else { format!(" (and from {others} others)") };
        format!("; kept away from node {node} for a while{others}: {}", first.why)
    }
}

impl Scheduler {
    /// Gives an assumption back because of the node that the pod was on the way to.
    pub(super) fn blame(&mut self, name: &str, why: &str) {
        let node = self.pods.get(name).and_then(PodEntry::flight).map(|flight| flight.node.clone());
        self.give_back(name, why);
        // From when it is tried again, which is soon: on this node it is not.
        let now_ms = self.now_ms;
        let Some((entry, node)) = self.pods.get_mut(name).zip(node) else { return };
        entry.avoids.forget_old(now_ms);
        let again_ms = entry.alarm_ms.map_or(now_ms, |at_ms| at_ms.min(now_ms + NEXT_MAX_MS));
        entry.avoids.note(&node, why, again_ms);
        self.set_alarm(name, Some(again_ms));
    }
}
