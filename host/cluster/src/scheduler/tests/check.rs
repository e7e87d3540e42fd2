//! What must hold whatever happens.

use std::collections::BTreeMap;

use partita_core::model::{Cut, Grid, MILLI, catalog};

use super::{
    agent::{Agent, Real},
    make::{OURS, full},
    server::Server,
    world::World,
};
use crate::{
    crd::{DesiredPartition, PartitionState},
    quantity::Quantity,
    scheduler::{
        Scheduler,
        effect::{Effect, PodName},
        pods::Stage,
    },
    translate,
};

/// Parts of a GPU that pods on the node use, as grants name them.
pub(super) fn parts_on(server: &Server, node: &str, gpu: u8) -> Vec<String> {
    server.parts_on(node).into_iter().filter(|(_, index, _)| *index == gpu).map(|(_, _, part)| part).collect()
}

fn grid(model: &str) -> Grid {
    catalog::builtin(model).unwrap().grid.unwrap()
}

/// The slots of a MIG partition: first, and how many.
fn slots(model: &str, part: &str) -> Option<(u8, u8)> {
    let (profile, start) = part.split_once('@')?;
    let grid = grid(model);
    let row = grid.resolve(profile).unwrap_or_else(|_| panic!("{model} has no {profile}"));
    Some((start.parse().unwrap(), grid.profiles[usize::from(row)].size))
}

fn overlap(one: (u8, u8), other: (u8, u8)) -> bool {
    one.0 < other.0 + other.1 && other.0 < one.0 + one.1
}

/// Whether what exists on a GPU can exist there together; if not, why.
pub(super) fn legal(model: &str, parts: &[Real]) -> Result<(), String> {
    let exist: Vec<String> = parts.iter().filter(|real| real.state != PartitionState::Failed).map(Real::part).collect();
    together(model, &exist)
}

/// Whether parts can be on one GPU; if not, why.
fn together(model: &str, parts: &[String]) -> Result<(), String> {
    for (row, one) in parts.iter().enumerate() {
        for other in &parts[row + 1..] {
            let good = match (slots(model, one), slots(model, other)) {
                (Some(mine), Some(theirs)) => !overlap(mine, theirs),
                (None, None) => one.starts_with("mps/") == other.starts_with("mps/"),
                _ => false,
            };
            if !good {
                return Err(format!("{one} and {other} are on one {model}"));
            }
        }
    }
    let sum = |mark: fn(&str) -> Option<u32>| parts.iter().filter_map(|part| mark(part)).sum::<u32>();
    let memory_mib = catalog::builtin(model).unwrap().memory_mib;
    let too_much =
        sum(|part| part.strip_suffix('m')?.parse().ok()) > MILLI || sum(|part| part.strip_prefix("mps/")?.parse().ok()) > memory_mib;
    if too_much { Err(format!("{parts:?} are on one {model}")) } else { Ok(()) }
}

/// That nobody has what another has.
pub(super) fn places(server: &Server, agents: &BTreeMap<String, Agent>) {
    for (node, agent) in agents {
        for (index, gpu) in (0u8..).zip(&agent.gpus) {
            together(&gpu.model, &parts_on(server, node, index)).unwrap();
        }
    }
}

/// That our pods ask for no more than their node has.
pub(super) fn amounts(server: &Server) {
    for (name, node) in &server.nodes {
        let mut asked: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, pod) in server.on_node(name).filter(|(_, pod)| pod.spec.value.scheduler_name == OURS) {
            *asked.entry("pods").or_default() += 1000;
            for (resource, text) in pod.spec.value.containers.iter().flat_map(|container| &container.resources.requests) {
                *asked.entry(resource).or_default() += milli(text);
            }
        }
        for (resource, amount) in asked.into_iter().filter(|(resource, _)| !resource.contains('/')) {
            let has = node.status.value.allocatable.get(resource).map_or(0, |text| milli(text));
            assert!(amount <= has, "node {name}: {amount} of {has} thousandths of {resource} are given away");
        }
    }
}

fn milli(text: &str) -> u64 {
    Quantity::parse(text).unwrap().milli(crate::quantity::Round::Up).unwrap()
}

/// That what a pod is about to get is there, and that its agent said so.
pub(super) fn ready(server: &Server, agents: &BTreeMap<String, Agent>, pod: &PodName, node: &str, grant: Option<&str>) {
    let Some(agent) = agents.get(node).filter(|_| server.gpu_nodes.contains_key(node)) else { return };
    let status = &server.gpu_nodes[node].status.value;
    for text in grant.into_iter().flat_map(|text| text.split(',')) {
        let (index, part) = text.split_once(':').unwrap();
        let index: u8 = index.parse().unwrap();
        let real = &agent.gpus[usize::from(index)];
        let said = status.gpus.iter().find(|gpu| gpu.index == index);
        // Nobody can know in time that a GPU breaks just now.
        let Some(said) = said.filter(|gpu| gpu.healthy && real.healthy && !real.lost) else { continue };
        let whose = format!("{} is bound to {text} of {node}", full(pod));
        if part.ends_with('m') {
            assert!(said.cut == Cut::Shares && real.cut == Cut::Shares, "{whose}, which is cut otherwise");
        }
        let asks = translate::resources(server.pod(&full(pod)));
        let says = said.partitions.iter().any(|one| {
            let name = match (&one.profile, one.memory_mib) {
                (Some(profile), _) => format!("{profile}@{}", one.start.unwrap()),
                (None, Some(memory_mib)) => format!("mps/{memory_mib}"),
                (None, None) => format!("{}m", one.milli.unwrap()),
            };
            let named = one.resource.as_ref().is_none_or(|resource| asks.iter().any(|(name, _)| name == resource));
            name == part && named && one.state == PartitionState::Ready
        });
        if server.chance.is_some() {
            // Who has what is the kubelet's choice; that there is enough shows when the pod starts.
            continue;
        }
        assert!(says, "{whose}, which its agent does not report: {:?}", said.partitions);
        let held = parts_on(server, node, index).iter().filter(|other| *other == part).count();
        let exist = real.parts.iter().filter(|real| real.part() == part && real.state == PartitionState::Ready).count();
        assert!(exist > held, "{whose}, which does not exist: {:?}", real.parts);
    }
}

/// That no layout lacks what the brain knew to be in use when it wrote it.
pub(super) fn layouts(brain: &Scheduler, wishes: &[Effect]) {
    for wish in wishes {
        let Effect::Layout { node, spec, .. } = wish else { continue };
        let Some(known) = brain.nodes[node].gpus.as_ref() else { continue };
        for found in &known.status.value.gpus {
            let Some(gpu) = spec.gpus.iter().find(|gpu| gpu.uuid == found.uuid) else { continue };
            let used = |user: &String| brain.pods.get(user).is_some_and(|pod| pod.stage == Stage::Runs && pod.on() == Some(node));
            for one in found.partitions.iter().filter(|one| one.users.iter().any(used)) {
                let same = |other: &DesiredPartition| {
                    (&one.profile, one.start, one.memory_mib, one.milli) == (&other.profile, other.start, other.memory_mib, other.milli)
                };
                assert!(gpu.partitions.iter().any(same), "{node}: {one:?} is in use, but not in {gpu:?}");
            }
        }
    }
}

/// That the brain holds on to nothing: nobody is on the way, nobody waits for an agent, and all numbers belong to somebody.
pub(super) fn rest(world: &World) {
    let brain = &world.brain;
    for (name, entry) in &brain.pods {
        assert!(!matches!(entry.stage, Stage::Assumed(_) | Stage::Returns), "{name} is still {:?}", entry.stage);
    }
    assert_eq!(brain.handshakes.waiting().collect::<Vec<_>>(), [], "they wait for agents");
    books(world);
}

/// That the brain's indices and numbers are those of what it knows.
pub(super) fn books(world: &World) {
    let brain = &world.brain;
    let numbered = |names: &mut dyn Iterator<Item = (u32, String)>| names.collect::<BTreeMap<u32, String>>();
    let pods = numbered(&mut brain.pods.iter().filter_map(|(name, entry)| Some((entry.id?.0, name.clone()))));
    assert_eq!(pods, numbered(&mut brain.pod_names.iter().map(|(id, name)| (id.0, name.clone()))));
    assert_eq!(brain.pod_ids.in_use(), pods.len(), "numbers of pods leak");
    let nodes = numbered(&mut brain.nodes.iter().filter_map(|(name, entry)| Some((entry.id?.0, name.clone()))));
    assert_eq!(nodes, numbered(&mut brain.node_names.iter().map(|(id, name)| (id.0, name.clone()))));
    assert_eq!(brain.node_ids.in_use(), nodes.len(), "numbers of nodes leak");
    for (name, entry) in &brain.pods {
        let known = entry.id.and_then(|id| brain.planner.cluster().pod(id));
        assert_eq!(known.is_some(), entry.id.is_some(), "{name}");
        let placed = known.is_some_and(|pod| pod.placed.is_some());
        match &entry.stage {
            Stage::Waits => assert!(known.is_some() && !placed, "{name} waits"),
            Stage::Runs => assert!(placed, "{name} runs"),
            Stage::Assumed(flight) => {
                assert!(placed || brain.nodes.get(&flight.node).is_none_or(|node| node.id.is_none()), "{name} is on its way");
            }
            Stage::Held(_) | Stage::Homeless | Stage::Returns => assert!(known.is_none(), "{name} is {:?}", entry.stage),
        }
    }
    let waiting = brain.pods.values().filter(|entry| entry.stage == Stage::Waits).count();
    assert_eq!(brain.planner.queue().len(), waiting);
}
