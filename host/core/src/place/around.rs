//! What runs around a node: whether a pod may run there beside the pods on it and on others, and how much it would like to.
//!
//! The rules are those of kube-scheduler's filters `InterPodAffinity` and `PodTopologySpread` (Kubernetes 1.37). They depend on pods of
//! other nodes, so they are no part of a cached ranking: they are worked out once for each decision, and then asked of each node.
//!
//! What is preferred is counted more simply than there, see [`Around::preference`]: only the pod's own preferences, not those that running
//! pods have about it, and no spreading of pods that do not ask for it.

mod counted;

use counted::Counted;

use super::{Reuse, enumerate};
use crate::{
    model::{DemandId, NodeId, PodId},
    state::{Beside, Cluster, Domains, Entry, Node, TopologyId},
};

/// Why a pod may not run on a node beside those who run around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmet {
    /// Nobody is near next to whom it must run.
    Together,
    /// Somebody is near next to whom it must not run, or who must not have it near.
    Apart,
    /// There would be too many of its like, or the node lacks the label to tell.
    Spread,
}

/// What runs around each node, as one demand sees it.
#[derive(Clone, Debug)]
pub(crate) struct Around<'c> {
    domains: &'c Domains,
    entry: &'c Entry,
    /// Domains that are closed because of somebody in them.
    closed: Vec<(TopologyId, Vec<bool>)>,
    /// Domains in which those are next to whom it must run, by each label that says what is near.
    open: Vec<(TopologyId, Vec<bool>)>,
    /// Nobody runs next to whom it must, but it is of those itself: the first of a group may run wherever the labels are.
    first: bool,
    spread: Vec<Counted<'c>>,
    preferred: Vec<(i64, Beside, Vec<i64>)>,
    preferred_spread: Vec<Counted<'c>>,
}

/// Whose places that are cleared or kept count as if they ran there already: those of other pods, of at least this priority. Others give way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heeds {
    pub(crate) priority: i32,
    /// The pod that asks.
    pub(crate) pod: Option<PodId>,
}

impl Heeds {
    /// Everybody.
    pub(crate) const ALL: Option<Self> = Some(Self { priority: i32::MIN, pod: None });

    fn claims(self, cluster: &Cluster) -> impl Iterator<Item = (NodeId, &Entry)> {
        cluster.claims().filter_map(move |(pod, claim)| {
            let known = cluster.pod(pod).filter(|known| known.spec.priority >= self.priority && Some(pod) != self.pod)?;
            Some((claim.node, cluster.demands().get(known.demand)))
        })
    }
}

impl<'c> Around<'c> {
    /// None if nobody around matters to pods of the demand. `leaves` is the node that the pod is about to leave, if it moves.
    pub(crate) fn of(cluster: &'c Cluster, entry: &'c Entry, leaves: Option<NodeId>, heeds: Option<Heeds>) -> Option<Self> {
        if entry.near.is_none() && entry.crowds.is_empty() {
            return None;
        }
        let (domains, counts) = (cluster.domains(), cluster.counts());
        let shunned = entry.crowds.iter().any(|&crowd| counts.apart_from(crowd).next().is_some());
        let shuns = |other: &Entry| other.near.as_ref().is_some_and(|near| near.apart.iter().any(|beside| entry.is_of(beside.crowd)));
        let mut expected: Vec<(NodeId, &Entry)> = heeds.map_or_else(Vec::new, |heeds| heeds.claims(cluster).collect());
        expected.retain(|(_, other)| entry.near.is_some() || shuns(other));
        if entry.near.is_none() && !shunned && expected.is_empty() {
            return None;
        }
        let mut around = Self {
            domains,
            entry,
            closed: Vec::new(),
            open: Vec::new(),
            first: false,
            spread: Vec::new(),
            preferred: Vec::new(),
            preferred_spread: Vec::new(),
        };
        for &crowd in &entry.crowds {
            for (beside, nodes) in counts.apart_from(crowd) {
                nodes.for_each(|node| around.close(beside.topology, node));
            }
        }
        around.look(cluster, leaves);
        let first = around.first;
        for (node, other) in expected {
            around.expect(node, other, first);
        }
        Some(around)
    }

    /// Looks for those whom the demand names.
    fn look(&mut self, cluster: &'c Cluster, leaves: Option<NodeId>) {
        let (entry, domains, counts) = (self.entry, self.domains, cluster.counts());
        let Some(near) = entry.near.as_deref() else { return };
        for beside in &near.apart {
            counts.of(beside.crowd).for_each(|(node, _)| self.close(beside.topology, node));
        }
        if let Some((crowd, topologies)) = &near.together {
            self.open = topologies.iter().map(|&topology| (topology, vec![false; domains.width(topology)])).collect();
            self.first = entry.is_of(*crowd);
            counts.of(*crowd).for_each(|(node, _)| self.open_at(node));
        }
        self.spread = Counted::all(cluster, entry, &near.spread, leaves);
        self.preferred_spread = Counted::all(cluster, entry, &near.preferred_spread, leaves);
        for &(weight, beside) in &near.preferred {
            let mut weights = vec![0; domains.width(beside.topology)];
            for (node, count) in counts.of(beside.crowd) {
                if let Some(domain) = domains.of(beside.topology, node) {
                    weights[domain] += weight * i64::from(count.all);
                }
            }
            self.preferred.push((weight, beside, weights));
        }
    }

    /// A pod of another demand is to come to a node. If it is the `first` of a group, the others go by where it will be.
    fn expect(&mut self, node: NodeId, other: &Entry, first: bool) {
        if first && self.needs(other) {
            self.open_at(node);
        }
        let apart = |entry: &'c Entry| entry.near.as_deref().map_or(&[][..], |near| &near.apart);
        for beside in apart(self.entry).iter().filter(|beside| other.is_of(beside.crowd)) {
            self.close(beside.topology, node);
        }
        let shunned: Vec<TopologyId> = other
            .near
            .iter()
            .flat_map(|near| &near.apart)
            .filter(|beside| self.entry.is_of(beside.crowd))
            .map(|beside| beside.topology)
            .collect();
        for topology in shunned {
            self.close(topology, node);
        }
        for counted in &mut self.spread {
            counted.expect(other, node, self.domains);
        }
    }

    /// Opens the domains of a node to those who must run next to who is there.
    fn open_at(&mut self, node: NodeId) {
        for (topology, open) in &mut self.open {
            if let Some(domain) = self.domains.of(*topology, node) {
                open[domain] = true;
                self.first = false;
            }
        }
    }

    /// Closes the domain of a node.
    fn close(&mut self, topology: TopologyId, node: NodeId) {
        let Some(domain) = self.domains.of(topology, node) else { return };
        let row = self.closed.iter().position(|closed| closed.0 == topology).unwrap_or_else(|| {
            self.closed.push((topology, vec![false; self.domains.width(topology)]));
            self.closed.len() - 1
        });
        self.closed[row].1[domain] = true;
    }

    /// Whether the pod may run on a node, as far as those decide who run around it.
    pub(crate) fn admits(&self, node: NodeId) -> bool {
        self.unmet(node).is_none()
    }

    /// What keeps the pod from a node.
    pub(crate) fn unmet(&self, node: NodeId) -> Option<Unmet> {
        let domain = |topology| self.domains.of(topology, node);
        let open = |(topology, open): &(TopologyId, Vec<bool>)| domain(*topology).is_some_and(|domain| open[domain] || self.first);
        if !self.open.iter().all(open) {
            return Some(Unmet::Together);
        }
        if self.closed.iter().any(|(topology, closed)| domain(*topology).is_some_and(|domain| closed[domain])) {
            return Some(Unmet::Apart);
        }
        if self.spread.iter().all(|counted| counted.admits(counted.domain(self.domains, node))) { None } else { Some(Unmet::Spread) }
    }

    /// Whether the pod must run next to pods of that demand: they cannot go to make room for it.
    pub(crate) fn needs(&self, other: &Entry) -> bool {
        let together = self.entry.near.as_ref().and_then(|near| near.together.as_ref());
        together.is_some_and(|(crowd, _)| other.is_of(*crowd))
    }

    /// How much the pod prefers a node: the weight of each term for each pod that it matches in the node's domain, less up to [`counted::UNEVEN`] for
    /// each constraint on spreading, in proportion to how full the node's domain is. A node without the label is as a full one.
    pub(crate) fn preference(&self, node: NodeId) -> i64 {
        let weight =
            |(_, beside, weights): &(i64, Beside, Vec<i64>)| self.domains.of(beside.topology, node).map_or(0, |domain| weights[domain]);
        let uneven = |counted: &Counted<'_>| counted.fullness(counted.domain(self.domains, node));
        self.preferred.iter().map(weight).sum::<i64>() - self.preferred_spread.iter().map(uneven).sum::<i64>()
    }

    /// Another pod of the demand is put on a node. What is preferred stays as it was.
    pub(crate) fn add(&mut self, node: NodeId) {
        let entry = self.entry;
        let Some(near) = entry.near.as_deref() else { return };
        for beside in near.apart.iter().filter(|beside| entry.is_of(beside.crowd)) {
            self.close(beside.topology, node);
        }
        if self.needs(entry) {
            self.open_at(node);
        }
        for counted in &mut self.spread {
            counted.add(node, self.domains);
        }
    }
}

/// The nodes that can take a pod of `demand` now, in the fixed order.
#[must_use]
pub fn feasible(cluster: &Cluster, demand: DemandId) -> Vec<NodeId> {
    let entry = cluster.demands().get(demand);
    let around = Around::of(cluster, entry, None, Heeds::ALL);
    let mut found = Vec::new();
    let mut takes = |node: &Node| {
        enumerate(cluster, entry, node, Reuse::First, &mut found);
        !found.is_empty()
    };
    let admits = |id| around.as_ref().is_none_or(|around| around.admits(id));
    cluster.nodes().filter(|&(id, node)| admits(id) && takes(node)).map(|(id, _)| id).collect()
}
