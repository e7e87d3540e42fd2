//! What runs around a node: whether a pod may run there beside the pods on it and on others, and how much it would like to.
//!
//! The rules are those of kube-scheduler's filters `InterPodAffinity` and `PodTopologySpread` (Kubernetes 1.37). They depend on pods of
//! other nodes, so they are no part of a cached ranking: they are worked out once for each decision, and then asked of each node. What is
//! preferred is counted more simply than there, see [`Around::preference`].

use super::{Reuse, enumerate};
use crate::{
    model::{DemandId, NodeId},
    state::{Beside, Cluster, CrowdId, Domains, Entry, Even, Node, TopologyId},
};

/// What a node in the fullest domain loses against one in the emptiest, for each constraint on how a pod should be spread: as much as the
/// heaviest preference can weigh.
const UNEVEN: i64 = 100;

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

/// Pods by domain, as one constraint on spreading counts them.
#[derive(Clone, Debug)]
struct Counted<'c> {
    even: &'c Even,
    /// Of each domain that counts: how many.
    pods: Vec<Option<u32>>,
    /// How many the emptiest of them has, and the fullest.
    least: u32,
    most: u32,
    /// Whether there are fewer domains than there should be: then the emptiest counts as empty.
    few: bool,
    /// Whether the pod itself will be counted.
    own: bool,
    /// Whether a node counts.
    nodes: Vec<bool>,
}

impl<'c> Around<'c> {
    /// None if nobody around matters to pods of the demand. `leaves` is the node that the pod is about to leave, if it moves.
    pub(crate) fn of(cluster: &'c Cluster, entry: &'c Entry, leaves: Option<NodeId>) -> Option<Self> {
        let (domains, counts) = (cluster.domains(), cluster.counts());
        let shunned = entry.crowds.iter().any(|&crowd| counts.apart_from(crowd).next().is_some());
        if entry.near.is_none() && !shunned {
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
        let Some(near) = entry.near.as_deref() else { return Some(around) };
        for beside in &near.apart {
            counts.of(beside.crowd).for_each(|(node, _)| around.close(beside.topology, node));
        }
        if let Some((crowd, topologies)) = &near.together {
            around.open = topologies.iter().map(|&topology| (topology, vec![false; domains.width(topology)])).collect();
            let mut found = false;
            for (node, _) in counts.of(*crowd) {
                for (topology, open) in &mut around.open {
                    if let Some(domain) = domains.of(*topology, node) {
                        open[domain] = true;
                        found = true;
                    }
                }
            }
            around.first = !found && entry.crowds.binary_search(crowd).is_ok();
        }
        around.spread = Counted::all(cluster, entry, &near.spread, leaves);
        around.preferred_spread = Counted::all(cluster, entry, &near.preferred_spread, leaves);
        for &(weight, beside) in &near.preferred {
            let mut weights = vec![0; domains.width(beside.topology)];
            for (node, count) in counts.of(beside.crowd) {
                if let Some(domain) = domains.of(beside.topology, node) {
                    weights[domain] += weight * i64::from(count.all);
                }
            }
            around.preferred.push((weight, beside, weights));
        }
        Some(around)
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
        if self.spread.iter().all(|counted| counted.admits(domain(counted.even.beside.topology))) { None } else { Some(Unmet::Spread) }
    }

    /// Whether the pod must run next to pods of that demand: they cannot go to make room for it.
    pub(crate) fn needs(&self, other: &Entry) -> bool {
        let together = self.entry.near.as_ref().and_then(|near| near.together.as_ref());
        together.is_some_and(|(crowd, _)| other.crowds.binary_search(crowd).is_ok())
    }

    /// How much the pod prefers a node: the weight of each term for each pod that it matches in the node's domain, less up to [`UNEVEN`] for
    /// each constraint on spreading, in proportion to how full the node's domain is. A node without the label is as a full one.
    pub(crate) fn preference(&self, node: NodeId) -> i64 {
        let weight =
            |(_, beside, weights): &(i64, Beside, Vec<i64>)| self.domains.of(beside.topology, node).map_or(0, |domain| weights[domain]);
        let uneven = |counted: &Counted<'_>| counted.fullness(self.domains.of(counted.even.beside.topology, node));
        self.preferred.iter().map(weight).sum::<i64>() - self.preferred_spread.iter().map(uneven).sum::<i64>()
    }

    /// Another pod of the demand is put on a node. What is preferred stays as it was.
    pub(crate) fn add(&mut self, node: NodeId) {
        let entry = self.entry;
        let Some(near) = entry.near.as_deref() else { return };
        let own = |crowd: CrowdId| entry.crowds.binary_search(&crowd).is_ok();
        for beside in near.apart.iter().filter(|beside| own(beside.crowd)) {
            self.close(beside.topology, node);
        }
        if near.together.as_ref().is_some_and(|(crowd, _)| own(*crowd)) {
            for (topology, open) in &mut self.open {
                if let Some(domain) = self.domains.of(*topology, node) {
                    open[domain] = true;
                    self.first = false;
                }
            }
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
    let around = Around::of(cluster, entry, None);
    let mut found = Vec::new();
    let mut takes = |node: &Node| {
        enumerate(cluster, entry, node, Reuse::First, &mut found);
        !found.is_empty()
    };
    let admits = |id| around.as_ref().is_none_or(|around| around.admits(id));
    cluster.nodes().filter(|&(id, node)| admits(id) && takes(node)).map(|(id, _)| id).collect()
}

impl<'c> Counted<'c> {
    /// Counts for all constraints of a kind: only nodes that have the labels of all of them count.
    fn all(cluster: &'c Cluster, entry: &Entry, all: &'c [Even], leaves: Option<NodeId>) -> Vec<Self> {
        let labelled = |node| all.iter().all(|even| cluster.domains().of(even.beside.topology, node).is_some());
        let mut counted: Vec<Self> = all.iter().map(|even| Self::none(cluster, entry, even)).collect();
        for (id, node) in cluster.nodes().filter(|(id, _)| !all.is_empty() && labelled(*id)) {
            for one in &mut counted {
                let counts = (!one.even.honor_affinity || entry.attracted(node, cluster.names()))
                    && (!one.even.honor_taints || entry.bears_taints(node));
                if counts && let Some(domain) = cluster.domains().of(one.even.beside.topology, id) {
                    one.nodes[id.index()] = true;
                    one.pods[domain].get_or_insert(0);
                }
            }
        }
        for one in &mut counted {
            one.count(cluster, leaves);
        }
        counted
    }

    fn none(cluster: &Cluster, entry: &Entry, even: &'c Even) -> Self {
        Self {
            even,
            pods: vec![None; cluster.domains().width(even.beside.topology)],
            least: 0,
            most: 0,
            few: false,
            own: entry.crowds.binary_search(&even.beside.crowd).is_ok(),
            nodes: vec![false; cluster.node_rows()],
        }
    }

    fn count(&mut self, cluster: &Cluster, leaves: Option<NodeId>) {
        for (node, count) in cluster.counts().of(self.even.beside.crowd).filter(|_| self.even.counts) {
            // Who is about to leave a node is not counted there any more.
            let less = u32::from(self.own && leaves == Some(node));
            self.put(node, count.staying.saturating_sub(less), cluster.domains());
        }
        self.measure();
    }

    /// Counts pods on a node, if the node counts.
    fn put(&mut self, node: NodeId, pods: u32, domains: &Domains) {
        if self.nodes[node.index()]
            && let Some(domain) = domains.of(self.even.beside.topology, node)
        {
            *self.pods[domain].get_or_insert(0) += pods;
        }
    }

    /// Finds the emptiest domain and the fullest.
    fn measure(&mut self) {
        self.least = self.pods.iter().flatten().min().copied().unwrap_or(0);
        self.most = self.pods.iter().flatten().max().copied().unwrap_or(0);
        self.few = self.pods.iter().flatten().count() < self.even.min_domains as usize;
    }

    fn add(&mut self, node: NodeId, domains: &Domains) {
        if self.own && self.even.counts {
            self.put(node, 1, domains);
            self.measure();
        }
    }

    /// Whether one more in a domain is not too many; never without the label.
    fn admits(&self, domain: Option<usize>) -> bool {
        let Some(domain) = domain else { return false };
        let pods = self.pods[domain].unwrap_or(0) + u32::from(self.own);
        pods.saturating_sub(if self.few { 0 } else { self.least }) <= self.even.max_skew
    }

    /// How full a domain is between the emptiest and the fullest.
    fn fullness(&self, domain: Option<usize>) -> i64 {
        let Some(domain) = domain else { return UNEVEN };
        let pods = self.pods[domain].unwrap_or(0);
        (UNEVEN * i64::from(pods.saturating_sub(self.least))).checked_div(i64::from(self.most - self.least)).unwrap_or(0)
    }
}
