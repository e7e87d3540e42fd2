//! What agents were asked to make, and which pods wait for it.
//!
//! A pod that needs a new partition is bound only when its node's agent says that the partition is there. What is asked of a node is its
//! whole layout, under a number that grows: the *generation*. A number stands for one layout for ever, so one that may have been written is
//! not used again. Writes are coalesced: however many pods land on a node while one write is under way, one more follows. No I/O here, and
//! no clock: the loop brings the time.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::model::PodId;

use super::report::{Need, Often, Report};

/// How long an agent may take before its node is held to be silent, milliseconds: an NVML call takes tens of milliseconds, a drained
/// time-slicing daemon some seconds.
pub(crate) const SILENCE_MS: u64 = 60_000;
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
            node.waiting.iter_mut().for_each(|one| one.generation = node.chosen);
            self.due.insert(name.to_owned());
        }
    }

    /// A pod needs parts of a node that are not there yet: the node's layout is to be written.
    pub(crate) fn ask(&mut self, name: &str, pod: PodId, needs: Vec<Need>, now_ms: u64) {
        let node = self.nodes.entry(name.to_owned()).or_default();
        // What is being written was read from the books before this pod came.
        if node.writing.is_some_and(|(writing, _)| writing == node.chosen) || node.chosen == node.written {
            node.chosen = node.chosen.saturating_add(1);
        }
        node.waiting.push(Waiting { pod, generation: node.chosen, needs, since_ms: now_ms });
        self.due.insert(name.to_owned());
        self.busy.insert(name.to_owned());
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
                node.waiting.iter_mut().filter(|one| one.generation > written).for_each(|one| one.generation = node.chosen);
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
        node.waiting.retain(|one| {
            if report.done.0 != term || report.done.1 < one.generation || report.done.1 > node.chosen {
                return true;
            }
            let outcome = met(&one.needs, report, often);
            let waits = outcome.is_none();
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

    /// Pods for whom nothing happened in time: their agents did not answer, or their layout could not be written, for this reason. They wait
    /// no longer. Writes that nobody answered are given up.
    pub(crate) fn overdue(&mut self, now_ms: u64) -> Vec<(String, PodId, Option<String>)> {
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
                let waits = one.generation > written && trouble.is_none();
                let late = !waits && now_ms.saturating_sub(one.since_ms) >= SILENCE_MS;
                if late {
                    overdue.push((name.clone(), one.pod, trouble.clone().filter(|_| one.generation > written)));
                }
                !late
            });
            self.tidy(&name);
        }
        overdue
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

#[cfg(test)]
mod tests {
    use super::{
        super::report::{Condition, Part},
        *,
    };

    const POD: PodId = PodId(1);
    const OTHER: PodId = PodId(2);
    const ONCE: Count<'static> = &|_| Often::ONCE;

    fn part() -> Part {
        Part::mig("1g.10gb", 0)
    }

    fn need(part: Part) -> Need {
        Need { gpu: 0, part, resource: None }
    }

    fn report(term: i64, generation: i64, condition: Option<Condition>) -> Report {
        let mut report = Report::default();
        (report.done, report.asked) = ((term, generation), (term, generation));
        report.saying(0, condition.map(|condition| (part(), condition)))
    }

    fn ready(term: i64, generation: i64) -> Report {
        report(term, generation, Some(Condition::Ready))
    }

    fn asked() -> Handshakes {
        let mut all = Handshakes::new(3);
        all.found("a", 7);
        all.ask("a", POD, vec![need(part())], 0);
        all
    }

    fn fails(all: &mut Handshakes, generation: i64, retry_ms: u64, now_ms: u64) {
        assert!(all.written("a", generation, Err(WriteError { why: "no".into(), again_ms: Some(retry_ms) }), now_ms).is_empty());
    }

    #[test]
    fn a_pod_is_ready_when_the_agent_has_done_its_generation_and_says_so() {
        let mut all = asked();
        assert_eq!(all.writes(0), [("a".to_owned(), 8)]);
        assert!(all.writes(0).is_empty(), "one write at a time");
        all.written("a", 8, Ok(()), 0);
        assert!(all.reported("a", &ready(3, 7), ONCE).is_empty(), "an older generation");
        assert!(all.reported("a", &ready(2, 8), ONCE).is_empty(), "another leader's");
        assert!(all.reported("a", &ready(4, 8), ONCE).is_empty(), "a later leader's");
        assert!(all.reported("a", &ready(3, 9), ONCE).is_empty(), "never asked for");
        assert!(all.reported("a", &report(3, 8, None), ONCE).is_empty(), "still being made");
        assert_eq!(all.reported("a", &ready(3, 8), ONCE), [(POD, Outcome::Ready)]);
        assert!(all.reported("a", &ready(3, 8), ONCE).is_empty(), "told once");
        assert!(all.is_settled("a", &ready(3, 8)) && !all.is_busy());
        assert!(!all.is_settled("a", &ready(3, 7)), "the object that was seen is an older one");
    }

    #[test]
    fn pods_that_come_during_a_write_share_the_next() {
        let mut all = asked();
        all.writes(0);
        all.ask("a", OTHER, vec![need(part())], 0);
        all.ask("a", PodId(3), vec![need(part())], 0);
        assert!(all.writes(0).is_empty());
        all.written("a", 8, Ok(()), 0);
        assert_eq!(all.writes(0), [("a".to_owned(), 9)]);
        assert_eq!(all.reported("a", &ready(3, 8), ONCE), [(POD, Outcome::Ready)]);
        assert_eq!(all.reported("a", &ready(3, 9), ONCE).len(), 2);
    }

    #[test]
    fn a_write_that_fails_is_tried_again_later_under_another_number() {
        let mut all = asked();
        all.writes(0);
        fails(&mut all, 8, 100, 0);
        assert!(all.writes(99).is_empty());
        assert_eq!(all.writes(100), [("a".to_owned(), 9)], "8 may have been written all the same");
        assert!(all.reported("a", &ready(3, 8), ONCE).is_empty());
        all.written("a", 9, Ok(()), 100);
        assert_eq!(all.reported("a", &ready(3, 9), ONCE), [(POD, Outcome::Ready)]);
    }

    #[test]
    fn a_layout_that_is_refused_is_not_tried_again() {
        let mut all = asked();
        all.writes(0);
        all.ask("a", OTHER, vec![need(part())], 0);
        let refused = || Err(WriteError { why: "no".into(), again_ms: None });
        assert!(all.written("a", 7, refused(), 0).is_empty(), "not the one under way");
        assert_eq!(all.written("a", 8, refused(), 0), [POD, OTHER]);
        assert!(all.writes(1_000_000).is_empty() && !all.is_busy() && all.waiting().count() == 0);
        all.ask("a", POD, vec![need(part())], 0);
        assert_eq!(all.writes(0), [("a".to_owned(), 9)]);
    }

    #[test]
    fn a_number_is_not_used_again_though_nobody_waits_any_more() {
        let mut all = asked();
        all.writes(0);
        all.forget("a", POD);
        fails(&mut all, 8, 0, 0);
        assert!(all.writes(0).is_empty());
        all.ask("a", OTHER, vec![need(part())], 0);
        assert_eq!(all.writes(0), [("a".to_owned(), 9)]);
    }

    #[test]
    fn who_waits_for_what_somebody_wrote_over_waits_for_a_new_layout() {
        let mut all = asked();
        all.found("a", 8);
        assert_eq!(all.writes(0), [("a".to_owned(), 9)], "somebody else took the number");
        all.found("a", 9);
        all.written("a", 9, Ok(()), 0);
        all.found("a", 9);
        assert!(all.writes(0).is_empty(), "that was its own");
        all.found("a", 50);
        assert_eq!(all.writes(0), [("a".to_owned(), 51)]);
        assert!(all.reported("a", &ready(3, 50), ONCE).is_empty());
    }

    #[test]
    fn failure_and_silence_are_told_and_end_the_wait() {
        let mut all = asked();
        all.writes(0);
        all.written("a", 8, Ok(()), 0);
        let failed = Condition::Failed("in use".into());
        let outcome = Outcome::Failed { gpu: 0, message: "in use".into() };
        assert_eq!(all.reported("a", &report(3, 8, Some(failed)), ONCE), [(POD, outcome)]);
        all.ask("a", OTHER, vec![need(part())], 10);
        all.writes(10);
        assert!(all.overdue(10 + SILENCE_MS).is_empty(), "its layout was not even written");
        all.written("a", 9, Ok(()), 20);
        // Others who come do not make the agent any less silent.
        all.ask("a", PodId(3), vec![need(part())], 1000);
        all.writes(1000);
        all.written("a", 10, Ok(()), 1000);
        assert!(all.overdue(20 + SILENCE_MS - 1).is_empty());
        assert_eq!(all.overdue(20 + SILENCE_MS), [("a".to_owned(), OTHER, None)]);
        assert_eq!(all.waiting().count(), 1);
    }

    #[test]
    fn a_layout_that_cannot_be_written_ends_the_wait_too() {
        let mut all = asked();
        all.writes(0);
        assert!(all.overdue(ANSWER_MS - 1).is_empty());
        assert_eq!(all.overdue(ANSWER_MS), [("a".to_owned(), POD, Some("the API server does not answer".to_owned()))]);
        assert!(!all.is_busy());
        let mut all = asked();
        for second in 0..60 {
            let writes = all.writes(second * 1000);
            fails(&mut all, writes[0].1, 500, second * 1000);
            assert!(all.overdue(second * 1000).is_empty());
        }
        assert_eq!(all.overdue(60_000), [("a".to_owned(), POD, Some("no".to_owned()))]);
    }

    #[test]
    fn shares_alike_are_counted() {
        let mut all = Handshakes::new(3);
        all.ask("a", POD, vec![need(Part::Mps(1024))], 0);
        all.writes(0);
        all.written("a", 1, Ok(()), 0);
        let shares = |count| report(3, 1, None).saying(0, vec![(Part::Mps(1024), Condition::Ready); count]);
        assert!(all.reported("a", &shares(1), &|_| Often { all: 2, alike: 2 }).is_empty(), "that is another's");
        assert_eq!(all.reported("a", &shares(2), &|_| Often { all: 2, alike: 2 }), [(POD, Outcome::Ready)]);
    }

    #[test]
    fn who_waited_for_a_node_that_is_gone_is_told_of() {
        let mut all = asked();
        all.ask("a", OTHER, Vec::new(), 0);
        all.forget("a", POD);
        assert_eq!(all.gone("a"), [OTHER]);
        assert!(all.writes(0).is_empty() && all.gone("a").is_empty() && !all.is_busy());
    }
}
