//! The cluster as events tell it.
//!
//! [`Cluster::apply`] is total: an event that contradicts what is known is refused with a reason and changes nothing. Every change of a
//! node is written to the [`Journal`], from which each ranking learns what to ask a policy again.

mod books;
mod catalogue;
mod claims;
mod counts;
mod crowds;
mod demands;
mod domains;
mod enrol;
mod event;
mod gpu;
mod journal;
mod limits;
mod mps;
mod names;
mod near;
mod node;
mod nodes;
mod requirement;
mod room;
mod uses;

use std::collections::BTreeMap;

pub use catalogue::Models;
pub use claims::{Claim, Why};
pub(crate) use counts::Counts;
pub use demands::{Demands, Entry, Wanted};
pub(crate) use domains::{Domains, TopologyId};
pub use event::{Event, Refused};
pub use gpu::{Gpu, GpuFault, Holder, Layout, Mig, Partition};
pub use journal::Journal;
pub(crate) use limits::Barrier;
pub use mps::{Made, Slice, Slices};
pub(crate) use names::Names;
use near::Lookup;
pub(crate) use near::{Beside, Even};
pub use node::{Node, Shape};
pub(crate) use room::recut;
pub use room::{Change, Grant, Room, Use};

use crate::model::{DemandId, NodeId, PodId, PodSpec};

/// A pod: what it asks, and where it runs.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What it is.
    pub spec: PodSpec,
    /// Its demand.
    pub demand: DemandId,
    /// Since when it waits for a place, or for the next time that one is kept for it, milliseconds.
    pub waits_since_ms: u64,
    /// Where it runs; none while it waits.
    pub placed: Option<Placed>,
    /// The place that it leaves, while it moves.
    pub leaving: Option<Placed>,
}

/// Where a pod runs.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The node.
    pub node: NodeId,
    /// What it uses of the node's GPUs.
    pub grant: Grant,
    /// Since when, milliseconds.
    pub since_ms: u64,
    /// Whether it was told to stop.
    pub stopping: bool,
    /// The round that decided it.
    round: u64,
    /// Which node of that number: a node that comes back after it went away does not run the pods it ran before.
    incarnation: u64,
}

/// Nodes, pods and what they use.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    now_ms: u64,
    nodes: Vec<Option<Node>>,
    pods: Vec<Option<Pod>>,
    models: Models,
    demands: Demands,
    lookup: Lookup,
    counts: Counts,
    /// Pods whose demand got another number, until somebody asks.
    rematched: Vec<PodId>,
    mix: Vec<(DemandId, u32)>,
    mix_version: u64,
    journal: Journal,
    incarnations: u64,
    claims: BTreeMap<PodId, Claim>,
    /// How many pods of each disruption budget may be stopped.
    budgets: BTreeMap<String, u32>,
    /// Who has a GPU of a UUID.
    uuids: BTreeMap<String, NodeId>,
    /// Running pods that were not told to stop, by priority.
    running: BTreeMap<i32, u32>,
    /// Those of them that were promised to run for some time.
    promises: usize,
    /// Grows whenever a disruption budget changes.
    rules: u64,
    /// Changes of what runs or waits.
    changes: u64,
    /// Rounds so far, and pods that the last one placed or moved.
    round: u64,
    placed: usize,
    /// Claims that ended without their pod getting the place.
    given_up: u64,
}

fn dense(id: u32, rows: usize) -> Result<(), Refused> {
    if id as usize > rows { Err(Refused::Sparse { id, rows }) } else { Ok(()) }
}

impl Cluster {
    /// Applies one event. Returns the pod that now waits, if the event brought one.
    ///
    /// # Errors
    /// [`Refused`] when the event contradicts what is known; then nothing changed.
    pub fn apply(&mut self, event: Event) -> Result<Option<PodId>, Refused> {
        // Time alone matters to those who were promised to run for some time.
        self.changes += u64::from(self.has_promises() || !matches!(event, Event::Time(_)));
        match event {
            Event::Time(now_ms) => self.now_ms = self.now_ms.max(now_ms),
            Event::ModelSeen(model) => {
                self.models.add(&model)?;
                self.demands.resolve(&self.models, &mut self.lookup);
                // What a demand accepts may have changed, so may every ranking.
                self.mix_version += 1;
                self.journal.reset(self.nodes.len());
            }
            Event::NodeAdded(id, spec) => self.add_node(id, spec)?,
            Event::NodeChanged(id, spec) => self.change_node(id, spec)?,
            Event::NodeRemoved(id) => self.remove_node(id)?,
            Event::PodAdded(id, spec) => {
                self.add_pod(id, spec)?;
                return Ok(Some(id));
            }
            Event::PodRuns(id, spec, node, grant) => self.add_running(id, spec, node, grant)?,
            Event::PodsUse(id, uses, strangers) => self.regrant(id, uses, &strangers)?,
            Event::PodRemoved(id) => self.remove_pod(id)?,
            Event::PodLeft(id) => self.vacated(id)?,
            Event::PodStops(id) => self.stops(id)?,
            Event::PodStays(id) => self.stays(id)?,
            Event::PodTerms(id, terms) => self.change_terms(id, terms)?,
            Event::PodRelabelled(id, labels) => self.relabel(id, labels)?,
            Event::Namespace(name, labels) => self.name_space(&name, labels),
            Event::Budget(name, allowed) => {
                self.rules += 1;
                match allowed {
                    Some(allowed) => drop(self.budgets.insert(name, allowed)),
                    None => drop(self.budgets.remove(&name)),
                }
            }
            Event::MixChanged(mix) => {
                let whole = |source| Refused::Demand { whose: "the mix".into(), source };
                let mix = mix.into_iter().map(|(demand, weight)| Ok((demand.validated().map_err(whole)?, weight)));
                let mix = mix.collect::<Result<Vec<_>, Refused>>()?;
                self.mix = mix.into_iter().map(|(demand, weight)| (self.intern(&demand, Vec::new()), weight)).collect();
                self.mix_version += 1;
            }
        }
        Ok(None)
    }

    /// A number that grows whenever an event or a decision changed what runs or waits.
    #[must_use]
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// What was changed since was taken back.
    pub(crate) fn unchanged_since(&mut self, changes: u64) {
        self.changes = changes;
    }

    /// The last time told, milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The node numbered `id`, if there is one.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.index()).and_then(Option::as_ref)
    }

    /// All nodes in the fixed order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().filter_map(|(row, node)| Some((NodeId::new(row), node.as_ref()?)))
    }

    /// One more than the largest node number given.
    #[must_use]
    pub fn node_rows(&self) -> usize {
        self.nodes.len()
    }

    /// The pod numbered `id`, if there is one.
    #[must_use]
    pub fn pod(&self, id: PodId) -> Option<&Pod> {
        self.pods.get(id.index()).and_then(Option::as_ref)
    }

    /// Where a pod runs and what it uses there; none if it waits, or if its node went away.
    #[must_use]
    pub fn runs_on(&self, id: PodId) -> Option<(NodeId, &Grant)> {
        let placed = self.pod(id)?.placed.as_ref()?;
        let node = self.node(placed.node)?;
        (node.incarnation == placed.incarnation).then_some((placed.node, &placed.grant))
    }

    /// GPU models and MIG profiles.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Words of nodes by number.
    #[must_use]
    pub(crate) fn names(&self) -> &Names {
        &self.lookup.names
    }

    /// Domains of nodes by labels.
    #[must_use]
    pub(crate) fn domains(&self) -> &Domains {
        &self.lookup.domains
    }

    /// All demands.
    #[must_use]
    pub fn demands(&self) -> &Demands {
        &self.demands
    }

    /// The expected mix, and a number that grows whenever it changes.
    #[must_use]
    pub fn mix(&self) -> (&[(DemandId, u32)], u64) {
        (&self.mix, self.mix_version)
    }

    /// Which nodes changed, in order.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// How many pods of a disruption budget may be stopped now; none if nobody told of it, which limits nothing.
    #[must_use]
    pub fn budget(&self, name: &str) -> Option<u32> {
        self.budgets.get(name).copied()
    }

    /// A number that grows whenever a disruption budget changes.
    #[must_use]
    pub(crate) fn rules(&self) -> u64 {
        self.rules
    }

    /// Whether any running pod was promised to run for some time.
    #[must_use]
    pub(crate) fn has_promises(&self) -> bool {
        self.promises > 0
    }

    /// Begins a round: who is placed in it stays where it is until the next.
    pub(crate) fn begin_round(&mut self) {
        self.round += 1;
        self.placed = 0;
    }

    /// How many pods the round so far placed or moved.
    #[must_use]
    pub(crate) fn placed(&self) -> usize {
        self.placed
    }

    /// Whether a place was decided in this round, so that nobody was told of it yet.
    #[must_use]
    pub(crate) fn is_new(&self, place: &Placed) -> bool {
        place.round == self.round
    }

    /// The lowest priority of a pod that runs or has a claim.
    #[must_use]
    pub(crate) fn lowest_priority(&self) -> Option<i32> {
        let running = self.running.first_key_value().map(|(&priority, _)| priority);
        let claims = self.claims.keys().filter_map(|&pod| Some(self.pod(pod)?.spec.priority));
        claims.chain(running).min()
    }
}
