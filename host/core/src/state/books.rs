//! Pods come, run, move and go: what that does to the nodes' books.

use super::{Change, Cluster, Entry, Grant, Placed, Pod, Refused, Room, Use, dense};
use crate::model::{NodeId, PodId, PodSpec, Terms};

impl Cluster {
    pub(super) fn add_pod(&mut self, id: PodId, spec: PodSpec) -> Result<(), Refused> {
        if self.pod(id).is_some() {
            return Err(Refused::PodTwice { namespace: spec.namespace, name: spec.name, id });
        }
        dense(id.0, self.pods.len())?;
        let whose = || format!("pod {}/{}", spec.namespace, spec.name);
        let demand = spec.demand.clone().validated().map_err(|source| Refused::Demand { whose: whose(), source })?;
        if self.pods.len() == id.index() {
            self.pods.push(None);
        }
        let demand = self.enrol(&demand, &spec.namespace, &spec.labels);
        self.pods[id.index()] = Some(Pod { spec, demand, waits_since_ms: self.now_ms, placed: None, leaving: None });
        Ok(())
    }

    pub(super) fn add_running(&mut self, id: PodId, spec: PodSpec, node_id: NodeId, grant: Grant) -> Result<(), Refused> {
        let entry = Entry::new(spec.demand.clone(), Vec::new(), &self.models, &mut self.lookup);
        let no_room = |name: &str| Refused::NoRoom { namespace: spec.namespace.clone(), name: spec.name.clone(), node: name.to_owned() };
        let Some(node) = self.node(node_id) else { return Err(no_room(&format!("number {}", node_id.0))) };
        if grant.0.iter().any(|part| matches!(part.1, Use::Share(0) | Use::Mps(0))) {
            return Err(no_room(&node.spec.name));
        }
        let mut room = node.room.clone();
        room.book(&self.models, &entry, &grant, id).ok_or_else(|| no_room(&node.spec.name))?;
        let priority = spec.clone();
        self.add_pod(id, spec)?;
        self.settle_on(id, node_id, grant, room);
        self.count_running(&priority, 1);
        Ok(())
    }

    pub(super) fn remove_pod(&mut self, id: PodId) -> Result<(), Refused> {
        if self.pod(id).is_none() {
            return Err(Refused::NoPod(id));
        }
        self.drop_claim(id);
        let Some(pod) = self.pods.get_mut(id.index()).and_then(Option::take) else { return Err(Refused::NoPod(id)) };
        if let Some(placed) = &pod.placed
            && !placed.stopping
        {
            self.count_running(&pod.spec, -1);
        }
        let places: Vec<Placed> = pod.placed.iter().chain(&pod.leaving).cloned().collect();
        for place in &places {
            self.release(id, &pod, place, true);
        }
        self.left(id, None);
        self.recount(id);
        self.strike(pod.demand);
        for place in places {
            self.touch(place.node);
        }
        Ok(())
    }

    /// Books that a pod which moves has left its old place.
    pub(super) fn vacated(&mut self, id: PodId) -> Result<(), Refused> {
        let Some(Some(pod)) = self.pods.get_mut(id.index()) else { return Err(Refused::NoPod(id)) };
        let place = pod.leaving.take().ok_or(Refused::NotMoved(id))?;
        let pod = pod.clone();
        let elsewhere = pod.placed.as_ref().is_none_or(|now| now.node != place.node);
        self.release(id, &pod, &place, elsewhere);
        self.recount(id);
        self.left(id, Some(place.node));
        self.touch(place.node);
        // Where it runs now it may be disturbed again.
        if let Some(now) = pod.placed {
            self.touch(now.node);
        }
        Ok(())
    }

    /// Puts a waiting pod on a node, as was chosen. Returns what has to be done to GPUs first.
    ///
    /// # Panics
    /// If the pod does not wait or the grant does not fit: the caller proved both for this very state.
    pub(crate) fn assume(&mut self, id: PodId, node_id: NodeId, grant: Grant) -> Vec<(u8, Change)> {
        // Who gets the place that was kept gives nothing up.
        let kept = self.claim_of(id).is_some_and(|claim| claim.node == node_id && claim.grant == grant);
        self.drop_claim(id);
        self.given_up -= u64::from(kept);
        let pod = self.pods[id.index()].as_ref().expect("a pod that is placed exists");
        assert!(pod.placed.is_none(), "a pod is placed once");
        let spec = pod.spec.clone();
        let changes = self.occupy(id, node_id, grant);
        self.count_running(&spec, 1);
        changes
    }

    /// Tells a running pod to stop. It keeps its place until it is gone.
    pub(crate) fn stop(&mut self, id: PodId) {
        let Some(Some(pod)) = self.pods.get_mut(id.index()) else { return };
        let Some(placed) = &mut pod.placed else { return };
        self.changes += 1;
        placed.stopping = true;
        let (node, spec) = (placed.node, pod.spec.clone());
        self.spend(&spec, -1);
        self.count_running(&spec, -1);
        self.recount(id);
        self.touch(node);
    }

    /// A pod is stopped or moved, which its disruption budgets allow once less, or was not after all.
    fn spend(&mut self, spec: &PodSpec, change: i32) {
        for name in &spec.terms.budgets {
            if let Some(allowed) = self.budgets.get_mut(name) {
                *allowed = allowed.saturating_add_signed(change);
            }
        }
    }

    /// Moves a running pod. It holds both places until it has left the old one.
    ///
    /// # Panics
    /// If the pod does not run or moves already, or the grant does not fit.
    pub(crate) fn relocate(&mut self, id: PodId, node_id: NodeId, grant: Grant) -> Vec<(u8, Change)> {
        let pod = self.pods[id.index()].as_mut().expect("a pod that moves exists");
        assert!(pod.leaving.is_none(), "a pod moves once at a time");
        pod.leaving = pod.placed.take();
        let from = pod.leaving.as_ref().expect("a pod that moves runs").node;
        let spec = pod.spec.clone();
        self.spend(&spec, -1);
        let changes = self.occupy(id, node_id, grant);
        self.touch(from);
        changes
    }

    /// Takes a move back that nobody was told of. `before` is the room of the pod's new node as it was: what was made there for the pod was
    /// never made, and what had to go never went.
    pub(crate) fn undo_relocate(&mut self, id: PodId, before: Room) {
        let Some(Some(pod)) = self.pods.get_mut(id.index()) else { return };
        let (Some(old), Some(new)) = (pod.leaving.take(), pod.placed.take()) else { return };
        pod.placed = Some(old.clone());
        let (demand, spec) = (pod.demand, pod.spec.clone());
        self.spend(&spec, 1);
        if let Some(Some(node)) = self.nodes.get_mut(new.node.index()) {
            node.room = before;
            if old.node != new.node {
                node.remove_pod(id, self.demands.get(demand).shape.as_ref());
            }
        }
        self.recount(id);
        self.touch(new.node);
        self.touch(old.node);
    }

    fn occupy(&mut self, id: PodId, node_id: NodeId, grant: Grant) -> Vec<(u8, Change)> {
        let pod = self.pods[id.index()].as_ref().expect("a pod that is placed exists");
        let mut room = self.node(node_id).expect("a node that is chosen exists").room.clone();
        let changes = room.take(&self.models, self.demands.get(pod.demand), &grant, id).expect("the grant was proved to fit");
        self.placed += 1;
        self.settle_on(id, node_id, grant, room);
        changes
    }

    /// Notes where a pod runs, on a node that has `room` left with it.
    fn settle_on(&mut self, id: PodId, node_id: NodeId, grant: Grant, room: Room) {
        let (Some(Some(pod)), Some(Some(node))) = (self.pods.get_mut(id.index()), self.nodes.get_mut(node_id.index())) else { return };
        node.room = room;
        node.add_pod(id, self.demands.get(pod.demand).shape.as_ref());
        let incarnation = node.incarnation;
        pod.placed = Some(Placed { node: node_id, grant, since_ms: self.now_ms, stopping: false, round: self.round, incarnation });
        self.changes += 1;
        self.recount(id);
        self.touch(node_id);
    }

    /// Books that a running pod was told to stop, by whomever.
    pub(super) fn stops(&mut self, id: PodId) -> Result<(), Refused> {
        let pod = self.pod(id).ok_or(Refused::NoPod(id))?;
        if let Some(placed) = pod.placed.as_ref().filter(|placed| !placed.stopping) {
            let (node, spec) = (placed.node, pod.spec.clone());
            self.set_stopping(id, true);
            self.count_running(&spec, -1);
            self.touch(node);
        }
        Ok(())
    }

    /// Books that a pod stays which was told to stop. Who has a claim on its place loses the claim.
    pub(super) fn stays(&mut self, id: PodId) -> Result<(), Refused> {
        let pod = self.pod(id).ok_or(Refused::NoPod(id))?;
        let placed = pod.placed.as_ref().filter(|placed| placed.stopping).ok_or(Refused::NotStopping(id))?;
        let (node, spec) = (placed.node, pod.spec.clone());
        self.set_stopping(id, false);
        self.count_running(&spec, 1);
        self.spend(&spec, 1);
        let waiting: Vec<PodId> = self.claims.iter().filter(|(_, claim)| claim.waits_for.contains(&id)).map(|(&pod, _)| pod).collect();
        for pod in waiting {
            self.drop_claim(pod);
        }
        self.touch(node);
        Ok(())
    }

    pub(super) fn change_terms(&mut self, id: PodId, terms: Terms) -> Result<(), Refused> {
        let pod = self.pod(id).ok_or(Refused::NoPod(id))?;
        let was = pod.spec.clone();
        let now = PodSpec { terms, ..was.clone() };
        let (runs, node) = match &pod.placed {
            Some(placed) => (!placed.stopping, Some(placed.node)),
            None => (false, None),
        };
        if runs {
            self.count_running(&was, -1);
            self.count_running(&now, 1);
        }
        if let Some(Some(pod)) = self.pods.get_mut(id.index()) {
            pod.spec = now;
        }
        self.rules += 1;
        if let Some(node) = node {
            self.touch(node);
        }
        Ok(())
    }

    fn set_stopping(&mut self, id: PodId, stopping: bool) {
        self.changes += 1;
        if let Some(Some(Pod { placed: Some(placed), .. })) = self.pods.get_mut(id.index()) {
            placed.stopping = stopping;
        }
        self.recount(id);
    }

    /// Gives back what a pod used at a place. `all` says that nothing else of the pod is on that node.
    fn release(&mut self, id: PodId, pod: &Pod, place: &Placed, all: bool) {
        // The node may have gone before its pods.
        let node = self.nodes.get_mut(place.node.index()).and_then(Option::as_mut);
        let Some(node) = node.filter(|node| node.incarnation == place.incarnation) else { return };
        let entry = self.demands.get(pod.demand);
        if all {
            node.remove_pod(id, entry.shape.as_ref());
        }
        node.room.give_back(&self.models, entry, &place.grant, id);
    }

    fn count_running(&mut self, spec: &PodSpec, change: i32) {
        let count = self.running.entry(spec.priority).or_default();
        *count = count.saturating_add_signed(change);
        if *count == 0 {
            self.running.remove(&spec.priority);
        }
        if spec.terms.min_runtime_ms > 0 {
            self.promises = self.promises.saturating_add_signed(change as isize);
        }
    }
}
