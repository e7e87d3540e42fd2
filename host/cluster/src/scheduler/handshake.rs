//! What agents were asked to make, and which pods wait for it.
//!
//! A pod that needs a new partition is bound only when its node's agent says that the partition is there. What is asked of a node is its
//! whole layout, under a number that grows: the *generation*. Writes are coalesced: however many pods land on a node while one write is
//! under way, one more follows. No I/O here, and no clock: the loop brings the time.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::model::{Cut, PodId};

use crate::crd::{GpuNodeStatus, PartitionState};

/// How long an agent may take before its node is held to be silent, milliseconds: an NVML call takes tens of milliseconds, a drained
/// time-slicing daemon some seconds.
pub(crate) const SILENCE_MS: u64 = 60_000;

/// A partition, as scheduler and agent name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// A MIG partition: profile and first slot.
    Mig(String, u8),
    /// A share under MPS, MiB.
    Mps(u32),
    /// The GPU must be cut in shares.
    Shares,
}

/// What an agent says of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It is there.
    Ready,
    /// It could not be made, and why.
    Failed(String),
}

/// What an agent said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The term and generation it has done, as far as it could.
    pub(crate) done: (i64, i64),
    /// Parts by GPU index: those that are there and those that failed. A part that is neither is being made or unknown.
    pub(crate) parts: BTreeMap<u8, Vec<(Part, Condition)>>,
}

impl Report {
    /// What the status of a node's object says.
    pub(crate) fn of(status: &GpuNodeStatus) -> Self {
        let mut parts: BTreeMap<u8, Vec<(Part, Condition)>> = BTreeMap::new();
        for gpu in &status.gpus {
            let here = parts.entry(gpu.index).or_default();
            if gpu.cut == Cut::Shares && gpu.healthy {
                here.push((Part::Shares, Condition::Ready));
            }
            for one in &gpu.partitions {
                let part = match (&one.profile, one.memory_mib) {
                    (Some(profile), _) => Part::Mig(profile.clone(), one.start.unwrap_or(0)),
                    (None, Some(memory_mib)) => Part::Mps(memory_mib),
                    (None, None) => continue,
                };
                match one.state {
                    PartitionState::Ready => here.push((part, Condition::Ready)),
                    PartitionState::Failed => here.push((part, Condition::Failed(one.message.clone()))),
                    PartitionState::Creating | PartitionState::Destroying => {}
                }
            }
        }
        Self { done: (status.observed_term, status.observed_generation), parts }
    }
}

/// How it went for a pod that waited for its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is there.
    Ready,
    /// It will not be, on which GPU and why.
    Failed {
        /// Index of the GPU.
        gpu: u8,
        /// What the agent said.
        message: String,
    },
}

/// A pod that waits.
#[derive(Clone, Debug)]
struct Waiting {
    pod: PodId,
    /// The generation that has what it needs.
    generation: i64,
    needs: Vec<(u8, Part)>,
    since_ms: u64,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The last generation chosen; what is asked changes with it.
    chosen: i64,
    /// The last generation that was written.
    written: i64,
    /// The generation of a write under way.
    writing: Option<i64>,
    /// A write that failed is tried again at this time.
    retry_at_ms: u64,
    waiting: Vec<Waiting>,
}

/// All nodes with whose agents something was agreed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handshakes {
    term: i64,
    nodes: BTreeMap<String, Node>,
    /// Nodes with a write to do.
    due: BTreeSet<String>,
}

impl Handshakes {
    /// Begins a term of leadership: what was agreed before is another leader's.
    pub(crate) fn new(term: i64) -> Self {
        Self { term, ..Self::default() }
    }

    /// The generation that stands in a node's object, whoever wrote it: numbers go on from there.
    pub(crate) fn found(&mut self, node: &str, generation: i64) {
        let node = self.nodes.entry(node.to_owned()).or_default();
        node.chosen = node.chosen.max(generation);
        node.written = node.written.max(generation);
    }

    /// A pod needs parts of a node that are not there yet: the node's layout is to be written.
    pub(crate) fn ask(&mut self, name: &str, pod: PodId, needs: Vec<(u8, Part)>, now_ms: u64) {
        let node = self.nodes.entry(name.to_owned()).or_default();
        // What is being written was read from the books before this pod came.
        if node.writing == Some(node.chosen) || node.chosen == node.written {
            node.chosen += 1;
        }
        node.waiting.push(Waiting { pod, generation: node.chosen, needs, since_ms: now_ms });
        self.due.insert(name.to_owned());
    }

    /// Nodes whose layout is to be written now, each with its generation. They count as being written until [`Self::written`].
    pub(crate) fn writes(&mut self, now_ms: u64) -> Vec<(String, i64)> {
        let mut writes = Vec::new();
        self.due.retain(|name| {
            let Some(node) = self.nodes.get_mut(name) else { return false };
            if node.writing.is_some() || node.retry_at_ms > now_ms {
                return true;
            }
            node.writing = Some(node.chosen);
            writes.push((name.clone(), node.chosen));
            false
        });
        writes
    }

    /// A write ended, well or not; one that failed is tried again after `retry_ms`.
    pub(crate) fn written(&mut self, name: &str, generation: i64, outcome: Result<(), u64>, now_ms: u64) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.writing = node.writing.filter(|&writing| writing != generation);
        match outcome {
            Ok(()) => node.written = node.written.max(generation),
            Err(retry_ms) => node.retry_at_ms = now_ms + retry_ms,
        }
        if node.chosen > node.written && !node.waiting.is_empty() {
            self.due.insert(name.to_owned());
        }
    }

    /// What an agent's report means for the pods that wait for it.
    pub(crate) fn reported(&mut self, name: &str, report: &Report) -> Vec<(PodId, Outcome)> {
        let term = self.term;
        let Some(node) = self.nodes.get_mut(name) else { return Vec::new() };
        let mut settled = Vec::new();
        node.waiting.retain(|one| {
            if report.done < (term, one.generation) || report.done.1 > node.chosen {
                return true;
            }
            let outcome = met(&one.needs, report);
            let waits = outcome.is_none();
            settled.extend(outcome.map(|outcome| (one.pod, outcome)));
            waits
        });
        settled
    }

    /// Whether an agent has done what was asked last, so that what it reports is about to stay.
    pub(crate) fn is_settled(&self, name: &str, report: &Report) -> bool {
        let Some(node) = self.nodes.get(name) else { return true };
        node.writing.is_none() && node.chosen == node.written && report.done.1 >= node.chosen
    }

    /// Who waits, on which node.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&String, PodId)> {
        self.nodes.iter().flat_map(|(name, node)| node.waiting.iter().map(move |one| (name, one.pod)))
    }

    /// Whether anybody waits.
    pub(crate) fn is_busy(&self) -> bool {
        !self.due.is_empty() || self.nodes.values().any(|node| !node.waiting.is_empty())
    }

    /// Pods whose agents did not answer in time. They no longer wait.
    pub(crate) fn overdue(&mut self, now_ms: u64) -> Vec<(String, PodId)> {
        let mut overdue = Vec::new();
        for (name, node) in &mut self.nodes {
            node.waiting.retain(|one| {
                let late = now_ms.saturating_sub(one.since_ms) >= SILENCE_MS;
                if late {
                    overdue.push((name.clone(), one.pod));
                }
                !late
            });
        }
        overdue
    }

    /// Nobody waits for this pod's parts any longer. False if it did not wait.
    pub(crate) fn forget(&mut self, name: &str, pod: PodId) -> bool {
        let Some(node) = self.nodes.get_mut(name) else { return false };
        let before = node.waiting.len();
        node.waiting.retain(|one| one.pod != pod);
        node.waiting.len() < before
    }

    /// A node is gone. Returns the pods that waited for it.
    pub(crate) fn gone(&mut self, name: &str) -> Vec<PodId> {
        self.due.remove(name);
        self.nodes.remove(name).map(|node| node.waiting.into_iter().map(|one| one.pod).collect()).unwrap_or_default()
    }
}

/// Whether everything needed is there, or something of it failed; none while that is open.
fn met(needs: &[(u8, Part)], report: &Report) -> Option<Outcome> {
    let mut all = true;
    for (gpu, part) in needs {
        let said = report.parts.get(gpu).and_then(|parts| parts.iter().find(|(name, _)| name == part));
        match said {
            Some((_, Condition::Ready)) => {}
            Some((_, Condition::Failed(message))) => return Some(Outcome::Failed { gpu: *gpu, message: message.clone() }),
            None => all = false,
        }
    }
    all.then_some(Outcome::Ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: PodId = PodId(1);
    const OTHER: PodId = PodId(2);

    fn part() -> Part {
        Part::Mig("1g.10gb".into(), 0)
    }

    fn report(term: i64, generation: i64, condition: Option<Condition>) -> Report {
        let parts = condition.map(|condition| (0, vec![(part(), condition)])).into_iter().collect();
        Report { done: (term, generation), parts }
    }

    fn asked() -> Handshakes {
        let mut all = Handshakes::new(3);
        all.found("a", 7);
        all.ask("a", POD, vec![(0, part())], 0);
        all
    }

    #[test]
    fn a_pod_is_ready_when_the_agent_has_done_its_generation_and_says_so() {
        let mut all = asked();
        assert_eq!(all.writes(0), [("a".to_owned(), 8)]);
        assert!(all.writes(0).is_empty(), "one write at a time");
        all.written("a", 8, Ok(()), 0);
        assert!(all.reported("a", &report(3, 7, Some(Condition::Ready))).is_empty(), "an older generation");
        assert!(all.reported("a", &report(2, 8, Some(Condition::Ready))).is_empty(), "another leader's");
        assert!(all.reported("a", &report(3, 9, Some(Condition::Ready))).is_empty(), "never asked for");
        assert!(all.reported("a", &report(3, 8, None)).is_empty(), "still being made");
        assert_eq!(all.reported("a", &report(3, 8, Some(Condition::Ready))), [(POD, Outcome::Ready)]);
        assert!(all.reported("a", &report(3, 8, Some(Condition::Ready))).is_empty(), "told once");
    }

    #[test]
    fn pods_that_come_during_a_write_share_the_next() {
        let mut all = asked();
        all.writes(0);
        all.ask("a", OTHER, vec![(0, part())], 0);
        all.ask("a", PodId(3), vec![(0, part())], 0);
        assert!(all.writes(0).is_empty());
        all.written("a", 8, Ok(()), 0);
        assert_eq!(all.writes(0), [("a".to_owned(), 9)]);
        assert_eq!(all.reported("a", &report(3, 8, Some(Condition::Ready))), [(POD, Outcome::Ready)]);
        assert_eq!(all.reported("a", &report(3, 9, Some(Condition::Ready))).len(), 2);
    }

    #[test]
    fn a_write_that_fails_is_tried_again_later() {
        let mut all = asked();
        all.writes(0);
        all.written("a", 8, Err(100), 0);
        assert!(all.writes(99).is_empty());
        assert_eq!(all.writes(100), [("a".to_owned(), 8)]);
    }

    #[test]
    fn failure_and_silence_are_told_and_end_the_wait() {
        let mut all = asked();
        let failed = Condition::Failed("in use".into());
        let outcome = Outcome::Failed { gpu: 0, message: "in use".into() };
        assert_eq!(all.reported("a", &report(3, 8, Some(failed))), [(POD, outcome)]);
        all.ask("a", OTHER, vec![(0, part())], 10);
        assert!(all.overdue(10 + SILENCE_MS - 1).is_empty());
        assert_eq!(all.overdue(10 + SILENCE_MS), [("a".to_owned(), OTHER)]);
        assert!(!all.forget("a", OTHER));
    }

    #[test]
    fn who_waited_for_a_node_that_is_gone_is_told_of() {
        let mut all = asked();
        all.ask("a", OTHER, Vec::new(), 0);
        assert!(all.forget("a", POD));
        assert_eq!(all.gone("a"), [OTHER]);
        assert!(all.writes(0).is_empty() && all.gone("a").is_empty());
    }
}
