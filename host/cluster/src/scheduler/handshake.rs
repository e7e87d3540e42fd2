//! What agents were asked to make, and which pods wait for it.
//!
//! A pod that needs a new partition is bound only when its node's agent says that the partition is there. What is asked of a node is its
//! whole layout, under a number that grows: the *generation*. A number stands for one layout for ever, so one that may have been written is
//! not used again. Writes are coalesced: however many pods land on a node while one write is under way, one more follows. No I/O here, and
//! no clock: the loop brings the time.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use partita_core::model::PodId;

use super::report::{Need, Often, Report};

/// How long an agent may take before its node is held to be silent, milliseconds: an NVML call takes tens of milliseconds, a drained
/// time-slicing daemon some seconds.
pub(crate) const SILENCE_MS: u64 = 60_000;
/// How long a pod may wait for a part of which the agent says that it is not there yet, milliseconds. What is asked for by one name is served
/// one kind at a time, so another pod's volumes may keep it from its turn: half as long again as that pod may wait for them.
pub(crate) const PATIENCE_MS: u64 = 900_000;
/// How long the API server may take to say what became of a write, milliseconds.
const ANSWER_MS: u64 = 120_000;

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

/// Why a layout was not written.
#[derive(Clone, Debug)]
pub(crate) struct WriteError {
    /// For a person.
    pub(crate) why: String,
    /// After how long it is tried again, milliseconds; never, if the API server refuses it.
    pub(crate) again_ms: Option<u64>,
}

/// How it stands with a pod that waits for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The agent has not taken its layout in time. It waits no longer.
    Silent,
    /// Its layout could not be written in time, for this reason. It waits no longer.
    Unwritten(String),
    /// The agent has taken its layout and did not make its part in time, for this reason if it says one. It waits no longer.
    Unmade(Option<String>),
    /// The agent has taken its layout and says why its part is not there yet. It waits on.
    Waits(String),
}

/// What an agent says of what a pod waits for.
#[derive(Clone, Debug, Default)]
enum Progress {
    /// It has not taken its layout.
    #[default]
    Asked,
    /// It has, and says nothing of its part.
    Taken,
    /// Its part is coming, and why it is not there yet.
    Comes(String),
}

/// How often what a pod needs must be there: see [`Report::has`].
pub(crate) type Count<'a> = &'a dyn Fn(&Need) -> Often;

/// A pod that waits.
#[derive(Clone, Debug)]
struct Waiting {
    pod: PodId,
    /// The generation that has what it needs.
    generation: i64,
    needs: Vec<Need>,
    /// Since it asked, and then since its layout was written.
    since_ms: u64,
    progress: Progress,
}

impl Waiting {
    /// It waits for another layout.
    fn renumber(&mut self, generation: i64) {
        (self.generation, self.progress) = (generation, Progress::Asked);
    }

    /// Whether it has waited for long; `trouble` tells why layouts cannot be written, and `written` is the last one that was.
    fn late(&self, written: i64, trouble: Option<&String>, now_ms: u64) -> Option<Late> {
        let waited_ms = now_ms.saturating_sub(self.since_ms);
        if waited_ms < SILENCE_MS {
            return None;
        }
        if self.generation > written {
            return trouble.cloned().map(Late::Unwritten);
        }
        Some(match &self.progress {
            Progress::Asked => Late::Silent,
            Progress::Taken => Late::Unmade(None),
            Progress::Comes(why) if waited_ms < PATIENCE_MS => Late::Waits(why.clone()),
            Progress::Comes(why) => Late::Unmade(Some(why.clone())),
        })
    }
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The last generation chosen; what is asked changes with it. Numbers up to it are used up, but for one that was never written.
    chosen: i64,
    /// The last generation that was written.
    written: i64,
    /// The generation of a write under way, and since when.
    writing: Option<(i64, u64)>,
    /// A write that failed is tried again at this time.
    retry_at_ms: u64,
    /// Why it failed.
    trouble: Option<String>,
    waiting: Vec<Waiting>,
}

impl Node {
    /// The number of a layout that is still to be read from the books.
    fn next(&mut self) -> i64 {
        // What is being written was read before.
        if self.writing.is_some_and(|(writing, _)| writing == self.chosen) || self.chosen == self.written {
            self.chosen = self.chosen.saturating_add(1);
        }
        self.chosen
    }
}

/// All nodes with whose agents something was agreed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handshakes {
    term: i64,
    /// The terms of nodes that were found to have been told of this one or a higher one: see [`Self::take_over`].
    raised: BTreeMap<String, i64>,
    nodes: BTreeMap<String, Node>,
    /// Nodes with a write to do.
    due: BTreeSet<String>,
    /// Nodes for whose agents somebody waits, or with a write under way.
    busy: BTreeSet<String>,
}

impl Handshakes {
    /// Begins a term of leadership: what was agreed before is another leader's.
    pub(crate) fn new(term: i64) -> Self {
        Self { term, ..Self::default() }
    }

    /// The term that stands in a node's object when this leader begins. Terms of leadership grow, so that a node was told of a lower one; should
    /// the lease have been lost, so that its count began anew, or somebody have written another by hand, that node's term goes on from
    /// there, and no other's. The sum, so that of two leaders who find the same term the later one still has the higher.
    pub(crate) fn take_over(&mut self, name: &str, found: i64) {
        if found >= self.term {
            self.raised.insert(name.to_owned(), found.saturating_add(self.term));
        }
    }

    /// The term under which layouts of a node are written.
    pub(crate) fn term(&self, name: &str) -> i64 {
        self.raised.get(name).copied().unwrap_or(self.term)
    }

    /// The generation that stands in a node's object. Where that is somebody else's, numbers go on from there, and those who wait for an
    /// earlier one, of which nothing is left, wait for a new one.
    pub(crate) fn found(&mut self, name: &str, generation: i64) {
        let node = self.nodes.entry(name.to_owned()).or_default();
        let mine = generation <= node.written || generation < node.chosen || node.writing.is_some_and(|(writing, _)| writing == generation);
        if mine {
            return;
        }
        (node.chosen, node.written) = (generation, generation);
        if !node.waiting.is_empty() {
            node.chosen = node.chosen.saturating_add(1);
            node.waiting.iter_mut().for_each(|one| one.renumber(node.chosen));
            self.due.insert(name.to_owned());
        }
    }

    /// A pod needs parts of a node that are not there yet: the node's layout is to be written.
    pub(crate) fn ask(&mut self, name: &str, pod: PodId, needs: Vec<Need>, now_ms: u64) {
        let node = self.nodes.entry(name.to_owned()).or_default();
        let generation = node.next();
        node.waiting.push(Waiting { pod, generation, needs, since_ms: now_ms, progress: Progress::Asked });
        self.due.insert(name.to_owned());
        self.busy.insert(name.to_owned());
    }

    /// Somebody left a node. If others wait there its layout is to be written anew: as long as it names the one who left, the agent keeps for
    /// it what it may never take, and others wait for their turn behind it.
    pub(crate) fn renew(&mut self, name: &str) {
        let Some(node) = self.nodes.get_mut(name).filter(|node| !node.waiting.is_empty()) else { return };
        node.next();
        self.due.insert(name.to_owned());
    }

    /// Nodes whose layout is to be written now, each with its generation. They count as being written until [`Self::written`].
    pub(crate) fn writes(&mut self, now_ms: u64) -> Vec<(String, i64)> {
        let mut writes = Vec::new();
        self.due.retain(|name| {
            let Some(node) = self.nodes.get_mut(name).filter(|node| !node.waiting.is_empty()) else { return false };
            if node.writing.is_some() || node.retry_at_ms > now_ms {
                return true;
            }
            node.writing = Some((node.chosen, now_ms));
            writes.push((name.clone(), node.chosen));
            false
        });
        writes
    }

    /// A write ended. Returns the pods that wait for it no longer, since it would be refused again.
    pub(crate) fn written(&mut self, name: &str, generation: i64, outcome: Result<(), WriteError>, now_ms: u64) -> Vec<PodId> {
        let Some(node) = self.nodes.get_mut(name) else { return Vec::new() };
        if node.writing.is_none_or(|(writing, _)| writing != generation) {
            return Vec::new();
        }
        node.writing = None;
        let mut given_up = Vec::new();
        match outcome {
            Ok(()) => {
                let new = |one: &&mut Waiting| one.generation > node.written && one.generation <= generation;
                node.waiting.iter_mut().filter(new).for_each(|one| one.since_ms = now_ms);
                (node.written, node.trouble) = (node.written.max(generation), None);
            }
            Err(WriteError { why, again_ms }) => {
                // It may have been written all the same.
                node.chosen = node.chosen.max(generation.saturating_add(1));
                let written = node.written;
                node.waiting.iter_mut().filter(|one| one.generation > written).for_each(|one| one.renumber(node.chosen));
                if let Some(again_ms) = again_ms {
                    (node.trouble, node.retry_at_ms) = (Some(why), now_ms + again_ms);
                } else {
                    node.trouble = None;
                    given_up.extend(node.waiting.extract_if(.., |one| one.generation > written).map(|one| one.pod));
                }
            }
        }
        if node.waiting.iter().any(|one| one.generation > node.written) {
            self.due.insert(name.to_owned());
        }
        self.tidy(name);
        given_up
    }

    /// What an agent's report means for the pods that wait for it.
    pub(crate) fn reported(&mut self, name: &str, report: &Report, often: Count<'_>) -> Vec<(PodId, Outcome)> {
        let term = self.term(name);
        let Some(node) = self.nodes.get_mut(name) else { return Vec::new() };
        let mut settled = Vec::new();
        node.waiting.retain_mut(|one| {
            if report.done.0 != term || report.done.1 < one.generation || report.done.1 > node.chosen {
                return true;
            }
            let outcome = met(&one.needs, report, often);
            let waits = outcome.is_none();
            one.progress = coming(&one.needs, report, often);
            settled.extend(outcome.map(|outcome| (one.pod, outcome)));
            waits
        });
        self.tidy(name);
        settled
    }

    /// Whether an agent has done what was asked last, and the node's object shows what that was, so that what it reports is about to stay.
    /// Only what this leader asked counts: until the agent has taken a layout of this term, one that a former leader sent may still land and
    /// take away what is there, without a word to the one who leads now.
    pub(crate) fn is_settled(&self, name: &str, report: &Report) -> bool {
        let Some(node) = self.nodes.get(name) else { return false };
        let asked = (self.term(name), node.chosen);
        node.writing.is_none() && node.chosen == node.written && report.asked == asked && report.done == asked
    }

    /// Whether anybody waits.
    pub(crate) fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Pods that wait for long. Writes that nobody answered are given up.
    pub(crate) fn overdue(&mut self, now_ms: u64) -> Vec<(String, PodId, Late)> {
        let mut overdue = Vec::new();
        for name in self.busy.clone() {
            let Some(node) = self.nodes.get(&name) else { continue };
            if let Some((generation, _)) = node.writing.filter(|(_, since_ms)| now_ms.saturating_sub(*since_ms) >= ANSWER_MS) {
                let error = WriteError { why: "the API server does not answer".into(), again_ms: Some(0) };
                self.written(&name, generation, Err(error), now_ms);
            }
            let Some(node) = self.nodes.get_mut(&name) else { continue };
            let (written, trouble) = (node.written, &node.trouble);
            node.waiting.retain(|one| {
                let late = one.late(written, trouble.as_ref(), now_ms);
                let waits = matches!(late, None | Some(Late::Waits(_)));
                overdue.extend(late.map(|late| (name.clone(), one.pod, late)));
                waits
            });
            self.tidy(&name);
        }
        overdue
    }

    /// Why what a pod waits for is not there yet, if the agent says.
    pub(crate) fn why(&self, name: &str, pod: PodId) -> Option<&str> {
        let one = self.nodes.get(name)?.waiting.iter().find(|one| one.pod == pod)?;
        if let Progress::Comes(why) = &one.progress { Some(why) } else { None }
    }

    /// Nobody waits for this pod's parts any longer.
    pub(crate) fn forget(&mut self, name: &str, pod: PodId) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.waiting.retain(|one| one.pod != pod);
            self.tidy(name);
        }
    }

    /// A node is gone. Returns the pods that waited for it.
    pub(crate) fn gone(&mut self, name: &str) -> Vec<PodId> {
        self.due.remove(name);
        self.busy.remove(name);
        self.nodes.remove(name).map(|node| node.waiting.into_iter().map(|one| one.pod).collect()).unwrap_or_default()
    }

    fn tidy(&mut self, name: &str) {
        if self.nodes.get(name).is_none_or(|node| node.waiting.is_empty() && node.writing.is_none()) {
            self.busy.remove(name);
        }
    }

    /// Who waits, on which node.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&String, PodId)> {
        self.nodes.iter().flat_map(|(name, node)| node.waiting.iter().map(move |one| (name, one.pod)))
    }
}

/// Whether everything needed is there, or something of it failed; none while that is open.
fn met(needs: &[Need], report: &Report, often: Count<'_>) -> Option<Outcome> {
    let missing = || needs.iter().filter(|need| !report.has(need, often(need)));
    let failed = missing().find_map(|need| Some((need.gpu, report.failure(need)?)));
    match failed {
        Some((gpu, message)) => Some(Outcome::Failed { gpu, message: message.clone() }),
        None if missing().next().is_some() => None,
        None => Some(Outcome::Ready),
    }
}

/// What an agent that has taken a layout says of what is missing.
fn coming(needs: &[Need], report: &Report, often: Count<'_>) -> Progress {
    let mut missing = needs.iter().filter(|need| !report.has(need, often(need)));
    missing.find_map(|need| report.coming(need)).map_or(Progress::Taken, |why| Progress::Comes(why.clone()))
}
