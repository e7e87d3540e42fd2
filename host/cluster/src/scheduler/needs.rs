//! What pods need of a node's agent: which parts, how often, and under which resource the kubelet must have them.

use partita_core::{
    model::{MILLI, NodeId, PodId},
    state::{Grant, Layout, Node, Use},
};

use super::{
    Scheduler,
    report::{Need, Often, Part},
};
use crate::{resource, translate};

impl Scheduler {
    /// Parts of a grant that the agent of a pod's node does not have ready, or not for long, as far as is known. Nodes without an agent have
    /// nothing to make.
    pub(super) fn missing(&self, pod: PodId, grant: &Grant) -> Vec<Need> {
        let Some((node, _)) = self.planner.cluster().runs_on(pod) else { return Vec::new() };
        let Some(name) = self.node_names.get(&node) else { return Vec::new() };
        let Some(entry) = self.nodes.get(name).filter(|entry| entry.has_agent() && !self.dry_run) else { return Vec::new() };
        // Until the agent has done what was asked last, what it reports may be about to change.
        let settled = self.handshakes.is_settled(name, &entry.report);
        let mut needs = self.needs(pod, node, grant);
        needs.retain(|need| !settled || !entry.report.keeps(need, self.often(node, need)));
        needs
    }

    /// The parts of a grant under the names that agents know.
    fn needs(&self, pod: PodId, node: NodeId, grant: &Grant) -> Vec<Need> {
        let Some(known) = self.planner.cluster().node(node) else { return Vec::new() };
        let named = grant.0.iter().zip(self.resources(pod, grant, known));
        named.filter_map(|(&(gpu, used), resource)| Some(Need { gpu, part: self.part(known, gpu, used)?, resource })).collect()
    }

    fn part(&self, node: &Node, gpu: u8, used: Use) -> Option<Part> {
        Some(match used {
            Use::Share(milli) => Part::Share(milli),
            Use::Mps(memory_mib) => Part::Mps(memory_mib),
            Use::Partition(place) => {
                let grid = self.planner.cluster().models().grid(node.room.gpus.get(usize::from(gpu))?.model)?;
                Part::mig(&grid.profiles.get(usize::from(place.profile))?.name, place.start)
            }
        })
    }

    /// For each part of a grant the resource by which its pod asks for it.
    fn resources(&self, pod: PodId, grant: &Grant, node: &Node) -> Vec<Option<String>> {
        let entry = self.pod_names.get(&pod).and_then(|name| self.pods.get(name));
        let asks = entry.map(|entry| translate::resources(&entry.object)).unwrap_or_default();
        resource::answered(&asks, grant, node, self.planner.cluster().models())
    }

    /// How often a part like a needed one must be there, as the books say: a MIG partition is one, and so is a whole GPU, but there can be several
    /// shares alike.
    pub(super) fn often(&self, node: NodeId, need: &Need) -> Often {
        let used = match need.part {
            Part::Mig(..) | Part::Share(MILLI) => return Often::ONCE,
            Part::Mps(memory_mib) => Use::Mps(memory_mib),
            Part::Share(milli) => Use::Share(milli),
        };
        let cluster = self.planner.cluster();
        let Some(known) = cluster.node(node) else { return Often::ONCE };
        let users = known.pods.iter().filter_map(|&pod| Some((pod, cluster.runs_on(pod)?.1)));
        let users: Vec<(PodId, &Grant)> = users.filter(|(_, grant)| grant.0.contains(&(need.gpu, used))).collect();
        let alike = |(pod, grant): &&(PodId, &Grant)| {
            let named = self.resources(*pod, grant, known);
            grant.0.iter().zip(&named).any(|(part, name)| *part == (need.gpu, used) && *name == need.resource)
        };
        // Who uses a share without being known needs it, too.
        let held = match known.room.gpus.get(usize::from(need.gpu)).map(|gpu| &gpu.layout) {
            Some(Layout::Mps(slices)) => {
                slices.all.iter().filter(|slice| Use::Mps(slice.memory_mib) == used && slice.holder.is_some()).count()
            }
            _ => users.len(),
        };
        Often { all: held, alike: users.iter().filter(alike).count() }
    }
}
