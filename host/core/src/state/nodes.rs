//! Nodes come, change and go.

use super::{Cluster, Gpu, GpuFault, Grant, Node, Refused, Room, dense};
use crate::model::{NodeError, NodeId, NodeSpec, node::GPUS_MAX};

impl Cluster {
    pub(super) fn add_node(&mut self, id: NodeId, spec: NodeSpec) -> Result<(), Refused> {
        if let Some(other) = self.node(id) {
            return Err(Refused::NodeTwice { name: spec.name, id, other: other.spec.name.clone() });
        }
        dense(id.0, self.nodes.len())?;
        let mut gpus = self.found_gpus(&spec)?;
        self.note_uuids(id, &spec, &mut gpus);
        self.models.count(&gpus, spec.cpu_milli, 1);
        if self.nodes.len() == id.index() {
            self.nodes.push(None);
        }
        self.incarnations += 1;
        let room = Room::of(&spec, gpus);
        self.nodes[id.index()] = Some(Node::new(spec, room, self.incarnations));
        self.mark(id);
        // Policies see how many GPUs there are of each model.
        self.mix_version += 1;
        self.journal.changed(id);
        Ok(())
    }

    /// Takes over what a node has now.
    pub(super) fn change_node(&mut self, id: NodeId, spec: NodeSpec) -> Result<(), Refused> {
        let was = self.node(id).ok_or(Refused::NoNode(id))?;
        if was.spec.name != spec.name {
            return Err(Refused::Renamed { id, name: spec.name, was: was.spec.name.clone() });
        }
        if was.spec == spec {
            return Ok(());
        }
        // Where the report on GPUs is the same as the last, what was decided since stays.
        let reported = if was.spec.gpus == spec.gpus { None } else { Some(self.found_gpus(&spec)?) };
        let same_shape =
            was.spec.cpu_milli == spec.cpu_milli && was.spec.gpus.iter().map(|gpu| &gpu.model).eq(spec.gpus.iter().map(|gpu| &gpu.model));
        let Some(node) = self.nodes.get_mut(id.index()).and_then(Option::as_mut) else { return Err(Refused::NoNode(id)) };
        let old = std::mem::replace(&mut node.spec, spec.clone());
        let mut gpus = std::mem::take(&mut node.room.gpus);
        if !same_shape {
            self.models.count(&gpus, old.cpu_milli, -1);
        }
        node.room.gpus.clone_from(&gpus);
        self.mark(id);
        self.reweigh(id);
        if let Some(mut found) = reported {
            self.uuids.retain(|_, owner| *owner != id);
            self.note_uuids(id, &spec, &mut found);
            gpus.clone_from(&found);
            let found: Vec<(u8, Gpu)> = (0u8..).zip(found).collect();
            self.replace_gpus(id, &found, spec.gpus.len());
            self.readopt(&old);
        }
        if !same_shape {
            self.models.count(&gpus, spec.cpu_milli, 1);
            self.mix_version += 1;
        }
        self.changes += 1;
        self.touch(id);
        Ok(())
    }

    /// The GPUs of a node as they were found, without users that are known.
    fn found_gpus(&self, spec: &NodeSpec) -> Result<Vec<Gpu>, Refused> {
        if spec.gpus.len() > GPUS_MAX as usize {
            return Err(NodeError::TooManyGpus { node: spec.name.clone(), count: spec.gpus.len() }.into());
        }
        let mut gpus = Vec::with_capacity(spec.gpus.len());
        for gpu in &spec.gpus {
            let unknown = || NodeError::UnknownModel { node: spec.name.clone(), model: gpu.model.clone() };
            let model = self.models.id(&gpu.model).ok_or_else(unknown)?;
            let no_cut = || NodeError::NoCut { node: spec.name.clone(), model: gpu.model.clone(), cut: gpu.cut };
            gpus.push(Gpu::found(&self.models, model, gpu).ok_or_else(no_cut)?);
        }
        Ok(gpus)
    }

    /// Reckons what a node has left beside its GPUs, which stay as they are.
    fn reweigh(&mut self, id: NodeId) {
        let Some(node) = self.node(id) else { return };
        let mut room = node.idle_plain();
        for &number in &node.pods {
            let Some(pod) = self.pod(number) else { continue };
            for _ in pod.placed.iter().chain(&pod.leaving).filter(|place| place.node == id) {
                room.book(&self.models, self.demands.get(pod.demand), &Grant::default(), number);
            }
        }
        if let Some(Some(node)) = self.nodes.get_mut(id.index()) {
            room.gpus = std::mem::take(&mut node.room.gpus);
            node.room = room;
        }
    }

    /// Puts GPUs as they were found in the place of those that a node of `count` GPUs has, and books there who uses them. Whose GPUs are not
    /// there any more runs without.
    fn replace_gpus(&mut self, id: NodeId, found: &[(u8, Gpu)], count: usize) {
        let Some(Some(node)) = self.nodes.get_mut(id.index()) else { return };
        node.room.gpus.truncate(count);
        for (index, gpu) in found {
            match node.room.gpus.get_mut(usize::from(*index)) {
                Some(old) => *old = gpu.clone(),
                None => node.room.gpus.push(gpu.clone()),
            }
        }
        for &number in &node.pods {
            let Some(Some(pod)) = self.pods.get_mut(number.index()) else { continue };
            for place in pod.placed.iter_mut().chain(&mut pod.leaving).filter(|place| place.node == id) {
                let gone = place.grant.0.iter().any(|part| usize::from(part.0) >= count);
                let parts = place.grant.0.iter().copied().filter(|part| found.iter().any(|(index, _)| *index == part.0));
                if gone || node.room.book_gpus(&self.models, &Grant(parts.collect()), number).is_none() {
                    // What it still has elsewhere is no use to a pod that lost a part.
                    node.room.release_gpus(&self.models, &place.grant, number, found);
                    place.grant = Grant::default();
                }
            }
        }
    }

    /// Sets GPUs aside whose UUID another GPU has.
    fn note_uuids(&mut self, id: NodeId, spec: &NodeSpec, gpus: &mut [Gpu]) {
        for (gpu, known) in spec.gpus.iter().zip(gpus).filter(|(gpu, _)| !gpu.uuid.is_empty()) {
            match self.uuids.get(&gpu.uuid) {
                Some(&other) => {
                    let name = if other == id { &spec.name } else { self.node(other).map_or(&spec.name, |node| &node.spec.name) };
                    known.fault = Some(GpuFault::Uuid(name.clone()));
                }
                None => drop(self.uuids.insert(gpu.uuid.clone(), id)),
            }
        }
    }

    /// GPUs that were set aside because a GPU of the node that went has their UUID are looked at anew.
    fn readopt(&mut self, gone: &NodeSpec) {
        for row in 0..self.nodes.len() {
            let (id, Some(node)) = (NodeId::new(row), &self.nodes[row]) else { continue };
            let mut found = Vec::new();
            for (index, (spec, gpu)) in (0u8..).zip(node.spec.gpus.iter().zip(&node.room.gpus)) {
                let was = !spec.uuid.is_empty() && gone.gpus.iter().any(|other| other.uuid == spec.uuid);
                if was && matches!(gpu.fault, Some(GpuFault::Uuid(_))) && !self.uuids.contains_key(&spec.uuid) {
                    self.uuids.insert(spec.uuid.clone(), id);
                    found.extend(Gpu::found(&self.models, gpu.model, spec).map(|gpu| (index, gpu)));
                }
            }
            if !found.is_empty() {
                let count = node.room.gpus.len();
                self.replace_gpus(id, &found, count);
                self.touch(id);
            }
        }
    }

    pub(super) fn remove_node(&mut self, id: NodeId) -> Result<(), Refused> {
        let node = self.nodes.get_mut(id.index()).and_then(Option::take).ok_or(Refused::NoNode(id))?;
        self.models.count(&node.room.gpus, node.spec.cpu_milli, -1);
        self.uuids.retain(|_, owner| *owner != id);
        self.readopt(&node.spec);
        self.lookup.domains.enter(id, None);
        for pod in node.pods {
            self.recount(pod);
        }
        for pod in node.claims {
            self.claims.remove(&pod);
        }
        self.mix_version += 1;
        self.journal.changed(id);
        Ok(())
    }
}
