//! Who runs where, by crowd: what a pod that must run next to others, or not, is decided by.
//!
//! Counted are pods that have a place, those that stop included, for they are still there; spreading looks past those. Most pods belong to
//! no crowd, and cost nothing here.

use std::collections::BTreeMap;

use super::{
    Cluster, Placed,
    crowds::CrowdId,
    near::{Beside, Near},
};
use crate::model::{DemandId, NodeId, PodId};

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
        let there = |place: &Placed| self.node(place.node).is_some_and(|node| node.incarnation == place.incarnation);
        let places: Vec<(NodeId, bool)> = places.filter(|(place, _)| there(place)).map(|(place, stays)| (place.node, stays)).collect();
        (!places.is_empty()).then_some(Booked { demand: pod.demand, places })
    }
}
