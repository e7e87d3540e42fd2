//! Who runs where, by crowd: what a pod that must run next to others, or not, is decided by.
//!
//! Counted are pods that have a place, those that stop included, for they are still there; spreading looks past those. Most pods belong to
//! no crowd, and cost nothing here.

use std::collections::BTreeMap;

use super::{
    Cluster, Refused,
    crowds::CrowdId,
    near::{Beside, Near},
};
use crate::model::{Demand, DemandId, NodeId, PodId};

/// Pods of one crowd on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// All of them.
    pub(crate) all: u32,
    /// Those that were not told to stop.
    pub(crate) staying: u32,
}

/// Pods by crowd and node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// By crowd.
    crowds: Vec<BTreeMap<NodeId, Count>>,
    /// Where those run who must not have a crowd next to them.
    apart: BTreeMap<Beside, BTreeMap<NodeId, u32>>,
    /// What is counted of each pod.
    booked: BTreeMap<PodId, Booked>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Booked {
    demand: DemandId,
    /// Nodes, and whether it stays there.
    places: Vec<(NodeId, bool)>,
}

impl Counts {
    /// The nodes on which pods of a crowd are.
    pub(crate) fn of(&self, crowd: CrowdId) -> impl Iterator<Item = (NodeId, Count)> {
        self.crowds.get(crowd.index()).into_iter().flatten().map(|(&node, &count)| (node, count))
    }

    /// The nodes on which pods are that must not have a crowd next to them, with what is next to them.
    pub(crate) fn apart_from(&self, crowd: CrowdId) -> impl Iterator<Item = (Beside, impl Iterator<Item = NodeId>)> {
        let of_crowd = self.apart.range(Beside::first(crowd)..).take_while(move |(beside, _)| beside.crowd == crowd);
        of_crowd.map(|(&beside, nodes)| (beside, nodes.keys().copied()))
    }

    fn count(&mut self, crowds: &[CrowdId], near: Option<&Near>, node: NodeId, stays: bool, comes: bool) {
        for crowd in crowds {
            if self.crowds.len() <= crowd.index() {
                self.crowds.resize_with(crowd.index() + 1, BTreeMap::new);
            }
            let nodes = &mut self.crowds[crowd.index()];
            let count = nodes.entry(node).or_default();
            let change = |number: &mut u32| *number = if comes { *number + 1 } else { *number - 1 };
            change(&mut count.all);
            if stays {
                change(&mut count.staying);
            }
            if count.all == 0 {
                nodes.remove(&node);
            }
        }
        for &beside in near.map_or(&[][..], |near| &near.apart) {
            let nodes = self.apart.entry(beside).or_default();
            let count = nodes.entry(node).or_default();
            *count = if comes { *count + 1 } else { *count - 1 };
            if *count == 0 {
                nodes.remove(&node);
            }
            if nodes.is_empty() {
                self.apart.remove(&beside);
            }
        }
    }
}

impl Cluster {
    /// Who runs where, by crowd.
    #[must_use]
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts a pod where it is now, and no longer where it was. To be called whenever a pod gets, changes or loses a place, is told to stop
    /// or stays after all, belongs to other crowds, or its node is gone; calling it once too often changes nothing.
    pub(super) fn recount(&mut self, id: PodId) {
        let now = self.booking(id);
        let before = if self.counts.booked.is_empty() { None } else { self.counts.booked.remove(&id) };
        if before != now {
            for (booked, comes) in before.iter().map(|before| (before, false)).chain(now.iter().map(|now| (now, true))) {
                let entry = self.demands.get(booked.demand);
                for &(node, stays) in &booked.places {
                    self.counts.count(&entry.crowds, entry.near.as_deref(), node, stays, comes);
                }
            }
        }
        if let Some(now) = now {
            self.counts.booked.insert(id, now);
        }
    }

    /// What is to be counted of a pod.
    fn booking(&self, id: PodId) -> Option<Booked> {
        let pod = self.pod(id)?;
        if !self.demands.get(pod.demand).is_counted() {
            return None;
        }
        let stays = pod.placed.iter().map(|place| (place, !place.stopping));
        let places = stays.chain(pod.leaving.iter().map(|place| (place, false)));
        let there = |place: &super::Placed| self.node(place.node).is_some_and(|node| node.incarnation == place.incarnation);
        let places: Vec<(NodeId, bool)> = places.filter(|(place, _)| there(place)).map(|(place, stays)| (place.node, stays)).collect();
        (!places.is_empty()).then_some(Booked { demand: pod.demand, places })
    }

    /// The number of a demand of a pod that belongs to these crowds.
    pub(super) fn intern(&mut self, demand: &Demand, crowds: Vec<CrowdId>) -> DemandId {
        let id = self.demands.intern(demand, crowds, &self.models, &mut self.lookup);
        self.lookup.domains.fill(&self.nodes);
        id
    }

    /// The number of the demand of a pod that comes. If it names crowds that nobody named before, everybody is looked at.
    pub(super) fn enrol(&mut self, demand: &Demand, namespace: &str, labels: &BTreeMap<String, String>) -> DemandId {
        let named = Near::of(demand.constraints.as_deref(), &mut self.lookup).map_or_else(Vec::new, |near| near.crowds());
        let crowds = &mut self.lookup.crowds;
        let new: Vec<CrowdId> = named.into_iter().filter(|&crowd| crowds.take_up(crowd)).collect();
        if !new.is_empty() {
            self.look_for(&new);
        }
        let crowds = self.lookup.crowds.matching(namespace, labels);
        self.intern(demand, crowds)
    }

    /// A pod that named crowds is gone.
    pub(super) fn strike(&mut self, demand: DemandId) {
        for crowd in self.demands.get(demand).near.as_ref().map_or_else(Vec::new, |near| near.crowds()) {
            self.lookup.crowds.let_go(crowd);
        }
    }

    /// Finds the pods that belong to crowds which were not looked for before.
    fn look_for(&mut self, new: &[CrowdId]) {
        let crowds = &self.lookup.crowds;
        let differs = |pod: &super::Pod| {
            let known = &self.demands.get(pod.demand).crowds;
            new.iter().any(|crowd| known.binary_search(crowd).is_ok() != crowds.matches(*crowd, &pod.spec.namespace, &pod.spec.labels))
        };
        let pods = self.pods.iter().enumerate().filter_map(|(row, pod)| Some((PodId::new(row), pod.as_ref()?)));
        let found: Vec<PodId> = pods.filter(|(_, pod)| differs(pod)).map(|(id, _)| id).collect();
        for id in found {
            self.rematch(id);
        }
    }

    /// Looks up the crowds of a pod again.
    fn rematch(&mut self, id: PodId) {
        let Some(Some(pod)) = self.pods.get(id.index()) else { return };
        let crowds = self.lookup.crowds.matching(&pod.spec.namespace, &pod.spec.labels);
        let entry = self.demands.get(pod.demand);
        if entry.crowds == crowds {
            return;
        }
        let demand = entry.demand.clone();
        let demand = self.intern(&demand, crowds);
        if let Some(Some(pod)) = self.pods.get_mut(id.index()) {
            pod.demand = demand;
            self.rematched.push(id);
        }
        self.recount(id);
    }

    /// A pod has other labels.
    pub(super) fn relabel(&mut self, id: PodId, labels: BTreeMap<String, String>) -> Result<(), Refused> {
        let Some(Some(pod)) = self.pods.get_mut(id.index()) else { return Err(Refused::NoPod(id)) };
        pod.spec.labels = labels;
        self.rematch(id);
        Ok(())
    }

    /// A namespace has these labels, or is gone.
    pub(super) fn name_space(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        if !self.lookup.crowds.set_namespace(name, labels) {
            return;
        }
        let there = |(row, pod): (usize, &Option<super::Pod>)| {
            pod.as_ref().is_some_and(|pod| pod.spec.namespace == name).then_some(PodId::new(row))
        };
        let pods: Vec<PodId> = self.pods.iter().enumerate().filter_map(there).collect();
        for id in pods {
            self.rematch(id);
        }
    }

    /// Pods whose demand has another number since this was last asked.
    pub(crate) fn take_rematched(&mut self) -> Vec<PodId> {
        std::mem::take(&mut self.rematched)
    }

    /// Looks up again what demands look at of a node, after its spec changed.
    pub(super) fn mark(&mut self, id: NodeId) {
        let Some(Some(node)) = self.nodes.get_mut(id.index()) else { return };
        node.marks = super::Marks::of(&node.spec, &mut self.lookup.names);
        let amounts = super::limits::amounts(&node.spec.extra, &mut self.lookup.names);
        node.room.stock.refill(&amounts);
        self.lookup.domains.enter(id, Some(&node.marks));
    }
}
