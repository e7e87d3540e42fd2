//! Consolidation: pods that may be restarted move where a policy says, so that what is left over lies together.
//!
//! A policy proposes who moves to which node. The core takes the proposal whole or not at all, looks for a place on that node as for any other
//! pod, and leaves out what does not fit; nobody stops before there is a place.

use super::{Action, Plan, Planner, changes_on, make_room::may_go};
use crate::{
    check,
    model::{DemandId, NodeId, PodId},
    place::{Columns, PIECE_MAX},
    policy::{Fault, Movable, Moves, NONE, Partitioner},
    state::{Cluster, Use},
};

/// A question about pods that may move, and what its rows stand for.
#[derive(Default)]
struct Scene {
    mix: u32,
    nodes: Vec<NodeId>,
    pods: Vec<(PodId, DemandId)>,
    demand: Vec<u32>,
    node: Vec<u32>,
    gpu: Vec<u32>,
    slot: Vec<u32>,
}

impl Planner {
    /// Moves at most `most` running pods that may be restarted, where the first policy of the chain that has an opinion says. Large
    /// clusters are looked at in parts, one a call.
    pub fn consolidate(&mut self, policies: &mut [&mut dyn Partitioner], most: u32) -> Plan {
        let mut plan = Plan::default();
        self.cluster.begin_round();
        let scene = Scene::of(&self.cluster, self.rankings.columns(), &mut self.tidied);
        if scene.pods.is_empty() || most == 0 {
            return plan;
        }
        for policy in policies {
            match self.propose(*policy, &scene, most) {
                Ok(moves) => {
                    for (&pod, &node) in moves.pod.iter().zip(&moves.node) {
                        let (pod, demand) = scene.pods[pod as usize];
                        self.tidy(*policy, pod, demand, scene.nodes[node as usize], &mut plan);
                    }
                    return plan;
                }
                Err(fault) => {
                    plan.count(policy.revision(), &fault);
                }
            }
        }
        plan
    }

    fn propose(&mut self, policy: &mut dyn Partitioner, scene: &Scene, most: u32) -> Result<Moves, Fault> {
        policy.ready()?;
        let seed = self.draw();
        let pods = Movable { demand: &scene.demand, node: &scene.node, gpu: &scene.gpu, slot: &scene.slot };
        let moves = policy.choose_moves(&self.rankings.columns().view(seed), scene.mix, &pods, most)?;
        check::moves(&moves, scene.pods.len(), scene.nodes.len(), most as usize).inspect_err(|fault| policy.refused(fault))?;
        Ok(moves)
    }

    /// Moves a pod to a node if it finds a place there.
    fn tidy(&mut self, policy: &mut dyn Partitioner, pod: PodId, demand: DemandId, node: NodeId, plan: &mut Plan) {
        let seed = self.draw();
        let Some((from, _)) = self.cluster.runs_on(pod) else { return };
        // A move before this one may have used up the pod's disruption budget; and a restart in place tidies nothing.
        if from == node || may_go(&self.cluster, pod).is_none() {
            return;
        }
        let choice = match self.rankings.choose_on(&self.cluster, policy, (demand, from), node, seed) {
            Ok(Some(choice)) => choice,
            Ok(None) => return,
            Err(fault) => return plan.count(policy.revision(), &fault),
        };
        let changes = self.cluster.relocate(pod, node, choice.grant.clone());
        plan.actions.extend(changes_on(node, changes));
        plan.actions.push(Action::Move { pod, from, node, grant: choice.grant, by: None });
        plan.decisions += 1;
    }
}

impl Scene {
    /// The nodes that run pods on GPUs, from number `next` on and as many as one question may hold, with the pods that may move. `next` goes
    /// on to where the next question begins.
    fn of(cluster: &Cluster, columns: &mut Columns, next: &mut usize) -> Self {
        let mut scene = Self { mix: columns.start_plain(cluster), ..Self::default() };
        let mut demands: Vec<(DemandId, u32)> = Vec::new();
        let start = std::mem::take(next);
        for (id, node) in cluster.nodes().filter(|(id, node)| id.index() >= start && node.gpu_pods() > 0) {
            if columns.gpus() + node.room.gpus.len() > PIECE_MAX {
                *next = id.index();
                break;
            }
            let (row, first_gpu) = (scene.nodes.len() as u32, columns.gpus() as u32);
            columns.push_node(cluster, None, node, &[]);
            scene.nodes.push(id);
            for &number in &node.pods {
                let movable = may_go(cluster, number).filter(|pod| pod.spec.terms.restartable);
                let Some((pod, (_, grant))) = movable.zip(cluster.runs_on(number)) else { continue };
                let Some(&(gpu, used)) = grant.0.first() else { continue };
                let known = demands.iter().find(|known| known.0 == pod.demand).map(|known| known.1);
                let demand = known.unwrap_or_else(|| columns.push_demand(cluster, pod.demand));
                if known.is_none() {
                    demands.push((pod.demand, demand));
                }
                scene.pods.push((number, pod.demand));
                scene.demand.push(demand);
                scene.node.push(row);
                scene.gpu.push(first_gpu + u32::from(gpu));
                scene.slot.push(if let Use::Partition(placement) = used { placement.start.into() } else { NONE });
            }
        }
        scene
    }
}
