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
            self.hold(&mut room, gpu, used).ok_or_else(|| Refused::InTheWay { gpu, node: self.name_of(id) })?;
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

    /// A partition that nobody is known to use has a user that nobody told of. None if it cannot be there beside what pods have. Of a GPU
    /// that is set aside nobody can have anything.
    fn hold(&self, room: &mut Room, index: u8, used: Use) -> Option<()> {
        let Some(gpu) = room.gpus.get_mut(usize::from(index)).filter(|gpu| gpu.fault.is_none()) else { return Some(()) };
        match (used, &mut gpu.layout) {
            (Use::Partition(place), Layout::Mig(mig)) => {
                mig.take(self.models.layouts(gpu.model)?, gpu.model, &[place], Holder::Unknown).map(drop)
            }
            (Use::Mps(memory_mib), Layout::Mps(slices)) => slices.take(memory_mib, Holder::Unknown).then_some(()),
            _ => None,
        }
    }

    fn name_of(&self, id: NodeId) -> String {
        self.node(id).map_or_else(String::new, |node| node.spec.name.clone())
    }

    fn no_room(&self, id: NodeId, pod: PodId) -> Refused {
        let node = self.name_of(id);
        let (namespace, name) = self.pod(pod).map(|pod| (pod.spec.namespace.clone(), pod.spec.name.clone())).unwrap_or_default();
        Refused::NoRoom { namespace, name, node }
    }
}
