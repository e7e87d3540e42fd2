//! Who uses which part of a GPU after all: the books follow what was seen.

use super::{Cluster, Grant, Holder, Layout, Refused, Room, Use};
use crate::model::{MILLI, NodeId, PodId};

impl Cluster {
    /// Books what pods of a node turned out to use of its GPUs, all at once, and that `strangers` are in use by somebody unknown.
    pub(super) fn regrant(&mut self, id: NodeId, uses: Vec<(PodId, Grant)>, strangers: &[(u8, Use)]) -> Result<(), Refused> {
        let mut room = self.node(id).ok_or(Refused::NoNode(id))?.room.clone();
        for (pod, _) in &uses {
            let (_, before) = self.runs_on(*pod).filter(|(on, _)| *on == id).ok_or(Refused::NoPod(*pod))?;
            room.release_gpus(&self.models, before, *pod, &[]);
        }
        for (pod, grant) in &uses {
            let is_some = |used: Use| !matches!(used, Use::Mps(0) | Use::Share(0)) && !matches!(used, Use::Share(milli) if milli > MILLI);
            let booked = grant.0.iter().all(|part| is_some(part.1)).then(|| room.book_gpus(&self.models, grant, *pod)).flatten();
            booked.ok_or_else(|| self.no_room(id, *pod))?;
        }
        for &(gpu, used) in strangers {
            self.hold(&mut room, gpu, used);
        }
        if self.node(id).is_some_and(|node| node.room == room) && uses.is_empty() {
            return Ok(());
        }
        if let Some(Some(node)) = self.nodes.get_mut(id.index()) {
            node.room = room;
        }
        for (pod, grant) in uses {
            if let Some(placed) = self.pods.get_mut(pod.index()).and_then(|pod| pod.as_mut()?.placed.as_mut()) {
                placed.grant = grant;
            }
        }
        self.changes += 1;
        self.touch(id);
        Ok(())
    }

    /// A partition that nobody is known to use has a user that nobody told of.
    fn hold(&self, room: &mut Room, index: u8, used: Use) {
        let Some(gpu) = room.gpus.get_mut(usize::from(index)).filter(|gpu| gpu.fault.is_none()) else { return };
        match (used, &mut gpu.layout) {
            (Use::Partition(place), Layout::Mig(mig)) => {
                let Some(layouts) = self.models.layouts(gpu.model) else { return };
                if mig.partitions(layouts).any(|one| one.placement == place && one.holder.is_none()) {
                    mig.take(layouts, gpu.model, &[place], Holder::Unknown);
                }
            }
            (Use::Mps(memory_mib), Layout::Mps(slices)) => {
                if slices.all.iter().any(|one| one.memory_mib == memory_mib && one.holder.is_none()) {
                    slices.take(memory_mib, Holder::Unknown);
                }
            }
            _ => {}
        }
    }

    fn no_room(&self, id: NodeId, pod: PodId) -> Refused {
        let node = self.node(id).map_or_else(String::new, |node| node.spec.name.clone());
        let (namespace, name) = self.pod(pod).map(|pod| (pod.spec.namespace.clone(), pod.spec.name.clone())).unwrap_or_default();
        Refused::NoRoom { namespace, name, node }
    }
}
