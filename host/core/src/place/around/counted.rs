//! Pods by domain, as constraints on spreading count them.

use crate::{
    model::NodeId,
    state::{Cluster, Domains, Entry, Even},
};

/// What a node in the fullest domain loses against one in the emptiest, for each constraint on how a pod should be spread: as much as the
/// heaviest preference can weigh.
pub(super) const UNEVEN: i64 = 100;

/// Pods by domain, as one constraint on spreading counts them.
#[derive(Clone, Debug)]
pub(super) struct Counted<'c> {
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

impl<'c> Counted<'c> {
    /// Counts for all constraints of a kind: only nodes that have the labels of all of them count.
    pub(super) fn all(cluster: &'c Cluster, entry: &Entry, all: &'c [Even], leaves: Option<NodeId>) -> Vec<Self> {
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
            own: entry.is_of(even.beside.crowd),
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

    pub(super) fn add(&mut self, node: NodeId, domains: &Domains) {
        if self.own && self.even.counts {
            self.put(node, 1, domains);
            self.measure();
        }
    }

    /// Whether one more in a domain is not too many; never without the label.
    pub(super) fn admits(&self, domain: Option<usize>) -> bool {
        let Some(domain) = domain else { return false };
        let pods = self.pods[domain].unwrap_or(0) + u32::from(self.own);
        pods.saturating_sub(if self.few { 0 } else { self.least }) <= self.even.max_skew
    }

    /// Counts a pod for which a place is cleared or kept: where it will be there will be one more, but the emptiest domain stays as it is.
    pub(super) fn expect(&mut self, other: &Entry, node: NodeId, domains: &Domains) {
        if self.even.counts && other.is_of(self.even.beside.crowd) {
            self.put(node, 1, domains);
        }
    }

    /// The domain of a node, if it has one.
    pub(super) fn domain(&self, domains: &Domains, node: NodeId) -> Option<usize> {
        domains.of(self.even.beside.topology, node)
    }

    /// How full a domain is between the emptiest and the fullest.
    pub(super) fn fullness(&self, domain: Option<usize>) -> i64 {
        let Some(domain) = domain else { return UNEVEN };
        let pods = self.pods[domain].unwrap_or(0);
        (UNEVEN * i64::from(pods.saturating_sub(self.least))).checked_div(i64::from(self.most - self.least)).unwrap_or(0)
    }
}
