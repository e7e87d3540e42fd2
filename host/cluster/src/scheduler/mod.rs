//! The scheduler's brain: what was seen of the cluster goes in, what to do comes out.
//!
//! ```text
//! watches ─► see ─┐                                          ┌─► effects ─► API server
//! effects ─► done ┼─► pods, nodes, … ─► core events ─► round ┤
//! time ───► turn ─┘        (translated)        (partita_core)└─► reasons
//! ```
//!
//! There is no I/O, no clock and no thread here, so that every history can be played in a test: time comes with each call in milliseconds,
//! and an [`Effect`] is a wish whose [`Done`] comes back whenever it does, or never. What the API server says is the truth; what was decided
//! and is not seen there yet is an *assumption*, which the core books at once and which is given back on every path that fails.
//!
//! - `pods`: the life of a pod: held, waiting, on its way, running, and back.
//! - `flight`: a pod on its way, from the decision to the binding. `running`: pods that have a node. `grants`: what
//!   their bindings say that they use of GPUs. `uses`: who has what after all. `follow`: how the books get to know.
//! - `nodes`: nodes. `report`: what their agents say. `rests`: GPUs that are set aside after a failure.
//!   `silence`: agents that do not work.
//! - `handshake`: what agents were asked to make, and which pods wait for it. `needs`: what a pod waits for.
//! - `avoids`: nodes that failed a pod.
//! - `storage`: volumes that pods claim.
//! - `budgets`: disruption budgets.
//! - `act`: what a plan means for the API server.
//! - `reasons`: what was told to whom about why it waits.

mod act;
mod avoids;
mod budgets;
pub mod effect;
mod flight;
mod follow;
mod grants;
mod handshake;
mod ids;
mod metrics;
mod needs;
mod nodes;
mod pods;
mod reasons;
mod report;
mod rests;
mod running;
mod silence;
mod storage;
#[cfg(test)]
mod tests;
mod uses;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use partita_core::{
    Config, Planner, mix,
    model::{NodeId, PodId},
    policy::Partitioner,
    state::{Event, Refused},
};

pub(crate) use self::metrics::Counted;
pub use self::metrics::Metrics;
use self::{
    effect::Effect,
    handshake::Handshakes,
    ids::Ids,
    nodes::NodeEntry,
    pods::PodEntry,
    reasons::{Reasons, TELL_PAUSE_MS},
    storage::Dirty,
};
use crate::{
    objects::Namespace,
    translate::{Budgets, Storage},
    watch::Seen,
};

/// How often the expected mix is reckoned anew, milliseconds: it changes with what teams run, and each change makes policies look at every
/// node again.
const MIX_EVERY_MS: u64 = 60_000;
/// How often a round is held although nothing happened, as long as pods wait, milliseconds: patience, promises and kept places end by the
/// clock.
const IDLE_ROUND_MS: u64 = 1_000;

/// The scheduler's brain.
#[derive(Debug)]
pub struct Scheduler {
    /// The `schedulerName` of its pods.
    name: String,
    dry_run: bool,
    planner: Planner,
    now_ms: u64,
    /// What the clock on the wall showed at millisecond 0, since 1970.
    began_ms: i64,
    /// Every list is complete.
    complete: bool,
    /// The term in which it leads.
    term: Option<i64>,
    nodes: BTreeMap<String, NodeEntry>,
    node_names: BTreeMap<NodeId, String>,
    node_ids: Ids,
    pods: BTreeMap<String, PodEntry>,
    pod_names: BTreeMap<PodId, String>,
    pod_ids: Ids,
    /// Pods bound to a node, by its name, whether the node is known or not.
    bound: BTreeMap<String, BTreeSet<String>>,
    /// Pods on their way to a node, by its name.
    flights: BTreeMap<String, BTreeSet<String>>,
    /// Pods that run with fewer GPUs in the core's books than they use, by the name of their node.
    short: BTreeMap<String, BTreeSet<String>>,
    /// Pods to look at although nothing happened, by time.
    alarms: BTreeSet<(u64, String)>,
    /// The same for nodes.
    node_alarms: BTreeSet<(u64, String)>,
    /// Pods on their way for which the next step can be done, and which came to be so when.
    ready: BTreeMap<String, u64>,
    /// How often a pod became ready.
    readied: u64,
    /// Nodes to look at in the next turn.
    recheck: BTreeSet<String>,
    /// Pods that were told to stop, with the time from which on they count as staying.
    stays: BTreeMap<PodId, u64>,
    namespaces: BTreeMap<String, Namespace>,
    budgets: Budgets,
    /// How many pods of each budget may be stopped.
    allowed: BTreeMap<String, u32>,
    /// Whom each budget is about.
    selectors: BTreeMap<String, Option<LabelSelector>>,
    storage: Storage,
    dirty: Dirty,
    /// Pods that use a claim on a volume, by its full name.
    claimants: BTreeMap<String, BTreeSet<String>>,
    handshakes: Handshakes,
    reasons: Reasons,
    /// Something happened since the last round.
    changed: bool,
    last_round_ms: u64,
    mix_at_ms: u64,
    effects: Vec<Effect>,
    metrics: Metrics,
}

impl Scheduler {
    /// A scheduler of the pods with this `schedulerName` that knows nothing yet. In a dry run agents are not waited for, who would never learn
    /// of anything.
    #[must_use]
    pub fn new(name: &str, config: Config, dry_run: bool, metrics: Metrics) -> Self {
        Self {
            name: name.to_owned(),
            dry_run,
            planner: Planner::new(config),
            now_ms: 0,
            began_ms: 0,
            complete: false,
            term: None,
            nodes: BTreeMap::new(),
            node_names: BTreeMap::new(),
            node_ids: Ids::default(),
            pods: BTreeMap::new(),
            pod_names: BTreeMap::new(),
            pod_ids: Ids::default(),
            bound: BTreeMap::new(),
            flights: BTreeMap::new(),
            short: BTreeMap::new(),
            alarms: BTreeSet::new(),
            node_alarms: BTreeSet::new(),
            ready: BTreeMap::new(),
            readied: 0,
            recheck: BTreeSet::new(),
            stays: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            budgets: Budgets::default(),
            allowed: BTreeMap::new(),
            selectors: BTreeMap::new(),
            storage: Storage::default(),
            dirty: Dirty::default(),
            claimants: BTreeMap::new(),
            handshakes: Handshakes::default(),
            reasons: Reasons::default(),
            changed: false,
            last_round_ms: 0,
            mix_at_ms: 0,
            effects: Vec::new(),
            metrics,
        }
    }

    /// Takes in what a watch saw.
    pub fn see(&mut self, now_ms: u64, seen: Seen) {
        self.tick(now_ms);
        match seen {
            Seen::Node(name, object) => self.see_node(&name, object.map(|object| *object)),
            Seen::GpuNode(name, object) => self.see_gpus(&name, object.map(|object| *object)),
            Seen::Pod(name, object) => self.see_pod(&name, object.map(|object| *object)),
            Seen::Namespace(name, object) => self.see_namespace(&name, object.map(|object| *object)),
            Seen::Budget(name, object) => self.see_budget(&name, object.map(|object| *object)),
            Seen::Claim(name, object) => self.see_claim(&name, object.map(|object| *object)),
            Seen::Volume(name, object) => self.see_volume(&name, object.map(|object| *object)),
            Seen::Class(name, object) => self.see_class(&name, object.map(|object| *object)),
            Seen::Drivers(name, object) => self.see_drivers(&name, object.map(|object| *object)),
            Seen::Complete => self.complete_lists(),
        }
    }

    /// Time goes on, in the core too: before anything else is told, whether this scheduler leads or not, so that what is counted from then on is
    /// counted from the right time.
    pub(super) fn tick(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.planner.cluster().now_ms() < self.now_ms {
            self.apply(Event::Time(self.now_ms));
        }
    }

    /// Tells what the clock on the wall showed at millisecond 0, as milliseconds since 1970: by it pods say since when they run.
    pub fn set_clock(&mut self, began_ms: i64) {
        self.began_ms = began_ms;
    }

    /// Begins to act, in this term of leadership or a higher one.
    pub fn lead(&mut self, term: i64) {
        self.term = Some(term);
        self.take_up();
    }

    /// Takes up where the last leader left off.
    fn take_up(&mut self) {
        let Some(term) = self.term.filter(|_| self.complete) else { return };
        self.handshakes = Handshakes::new(term);
        for (name, node) in &self.nodes {
            if let (Some(term), Some(generation)) = (node.term(), node.generation()) {
                self.handshakes.take_over(name, term);
                self.handshakes.found(name, generation);
            }
        }
        self.changed = true;
    }

    /// Whether every list is complete, so that decisions can be trusted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Decides, if there is reason to, and returns what to do.
    pub fn turn(&mut self, now_ms: u64, policies: &mut [&mut dyn Partitioner]) -> Vec<Effect> {
        self.tick(now_ms);
        if !self.complete || self.term.is_none() {
            return Vec::new();
        }
        self.refresh_claimants();
        self.ring();
        self.recheck_nodes();
        self.let_stay();
        self.end_rests();
        let idle = self.now_ms.saturating_sub(self.last_round_ms) >= IDLE_ROUND_MS && !self.planner.queue().is_empty();
        if self.changed || idle {
            self.expect();
            self.changed = false;
            self.last_round_ms = self.now_ms;
            let plan = self.planner.round(policies);
            self.metrics.decided(&plan);
            self.act(plan.actions);
        }
        self.go_on();
        // Who left in this turn may have been in the way of somebody whose part must stay in its node's layout.
        self.recheck_nodes();
        self.explain();
        self.write_layouts();
        self.metrics.observe(&self.planner, self.flights.values().map(BTreeSet::len).sum());
        std::mem::take(&mut self.effects)
    }

    /// When [`Self::turn`] has something to do although nothing happens, milliseconds from now; none if never.
    #[must_use]
    pub fn wakes_in_ms(&self) -> Option<u64> {
        if !self.complete || self.term.is_none() {
            return None;
        }
        if self.changed || !self.recheck.is_empty() || !self.ready.is_empty() {
            return Some(0);
        }
        let alarms = self.alarms.first().into_iter().chain(self.node_alarms.first());
        let alarms = alarms.map(|(at_ms, _)| at_ms.saturating_sub(self.now_ms));
        let busy = !self.planner.queue().is_empty() || self.handshakes.is_busy() || !self.stays.is_empty();
        alarms.chain(busy.then_some(IDLE_ROUND_MS)).chain(self.reasons.is_behind().then_some(TELL_PAUSE_MS)).min()
    }

    /// The planner, to look at.
    #[must_use]
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// Everything is known: what waits and what runs is told to the core, nodes by name and pods by age, so that two that start alike
    /// decide alike.
    fn complete_lists(&mut self) {
        if self.complete {
            return;
        }
        self.complete = true;
        self.take_up();
        for name in self.namespaces.keys().cloned().collect::<Vec<_>>() {
            self.tell_namespace(&name);
        }
        self.tell_budgets();
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.refresh_node(&name);
        }
        let mut pods: Vec<_> = self.pods.iter().map(|(name, pod)| (pod.created(), name.clone())).collect();
        pods.sort();
        for (_, name) in pods {
            self.refresh_pod(&name);
        }
        // Whose processes use GPUs is known now.
        let processes = self.nodes.iter().filter(|(_, node)| node.has_processes());
        self.recheck.extend(processes.map(|(name, _)| name.clone()));
    }

    /// Tells the core. A refusal means that two reports contradict each other; it is said and counted, and changes nothing.
    fn apply(&mut self, event: Event) -> bool {
        let time = matches!(event, Event::Time(_));
        match self.planner.apply(event) {
            Ok(()) => {
                self.changed |= !time;
                true
            }
            Err(refused) => {
                self.refused(&refused);
                false
            }
        }
    }

    fn refused(&self, refused: &Refused) {
        let source = std::error::Error::source(refused).map(|source| format!(": {source}")).unwrap_or_default();
        tracing::warn!("a report was not believed: {refused}{source}");
        self.metrics.refused.inc();
    }

    /// Reckons what to expect from what is there: see [`mix::expected`].
    fn expect(&mut self) {
        if self.mix_at_ms > self.now_ms || self.pod_names.is_empty() {
            return;
        }
        self.mix_at_ms = self.now_ms + MIX_EVERY_MS;
        let cluster = self.planner.cluster();
        let demands = self.pod_names.keys().filter_map(|&id| Some((&cluster.demands().get(cluster.pod(id)?.demand).demand, "")));
        let expected = mix::expected(demands);
        let known = cluster.mix().0.iter().map(|&(demand, _)| &cluster.demands().get(demand).demand);
        // Weights alone are not worth asking about every node again.
        if !expected.iter().map(|(demand, _)| demand).eq(known) {
            self.apply(Event::MixChanged(expected));
        }
    }

    fn see_namespace(&mut self, name: &str, object: Option<Namespace>) {
        match object {
            Some(object) => drop(self.namespaces.insert(name.to_owned(), object)),
            None => drop(self.namespaces.remove(name)),
        }
        if self.complete {
            self.tell_namespace(name);
        }
    }

    fn tell_namespace(&mut self, name: &str) {
        let labels = self.namespaces.get(name).map(|object| object.metadata.labels.clone().unwrap_or_default());
        self.apply(Event::Namespace(name.to_owned(), labels));
    }
}
