//! Who belongs to which crowd, as pods come and go and labels change.

use std::collections::BTreeMap;

use super::{
    Cluster, Pod, Refused,
    crowds::CrowdId,
    limits::{Marks, amounts},
    near::Near,
};
use crate::model::{Demand, DemandId, NodeId, PodId};

impl Cluster {
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
        let differs = |pod: &Pod| {
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
        let there =
            |(row, pod): (usize, &Option<Pod>)| pod.as_ref().is_some_and(|pod| pod.spec.namespace == name).then_some(PodId::new(row));
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
        node.marks = Marks::of(&node.spec, &mut self.lookup.names);
        let amounts = amounts(&node.spec.extra, &mut self.lookup.names);
        node.room.stock.refill(&amounts);
        self.lookup.domains.enter(id, Some(&node.marks));
    }
}
