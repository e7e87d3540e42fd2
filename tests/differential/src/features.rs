//! Which features decide: the filters are asked again without each of them.

use std::{collections::BTreeMap, fmt};

use partita_cluster::{Error, Oracle};
use serde_json::{Value, json};

use crate::world::World;

/// Where in a world a feature lies.
#[derive(Clone, Copy, Debug)]
enum Part {
    Pod,
    Pods,
    Nodes,
    Claims,
    Volumes,
    Classes,
}

/// Features by name: each is what the fields of a name say, wherever they lie in a part of the world.
const FEATURES: &[(&str, Part, &[&str])] = &[
    ("node selector", Part::Pod, &["nodeSelector"]),
    ("node affinity", Part::Pod, &["nodeAffinity"]),
    ("node affinity by fields", Part::Pod, &["matchFields"]),
    ("taints", Part::Nodes, &["taints"]),
    ("tolerations", Part::Pod, &["tolerations"]),
    ("cordons", Part::Nodes, &["unschedulable"]),
    ("ports of the node", Part::Pod, &["ports"]),
    ("addresses of ports", Part::Pod, &["hostIP"]),
    ("requests", Part::Pod, &["requests"]),
    ("init containers and sidecars", Part::Pod, &["initContainers"]),
    ("overhead", Part::Pod, &["overhead"]),
    ("room for pods", Part::Nodes, &["pods"]),
    ("other resources", Part::Pod, &["example.com/fpga", "hugepages-2Mi", "ephemeral-storage"]),
    ("resizes of running pods", Part::Pods, &["containerStatuses", "initContainerStatuses", "allocatedResources", "conditions"]),
    ("pod affinity", Part::Pod, &["podAffinity"]),
    ("pod anti-affinity", Part::Pod, &["podAntiAffinity"]),
    ("anti-affinity of running pods", Part::Pods, &["podAntiAffinity"]),
    ("selectors of namespaces", Part::Pod, &["namespaceSelector"]),
    ("lists of namespaces", Part::Pod, &["namespaces"]),
    ("topology spread", Part::Pod, &["topologySpreadConstraints"]),
    ("minDomains", Part::Pod, &["minDomains"]),
    ("nodeAffinityPolicy", Part::Pod, &["nodeAffinityPolicy"]),
    ("nodeTaintsPolicy", Part::Pod, &["nodeTaintsPolicy"]),
    ("pods that stop", Part::Pods, &["deletionTimestamp"]),
    ("pods that ended", Part::Pods, &["phase"]),
    ("volumes", Part::Pod, &["volumes"]),
    ("affinity of volumes", Part::Volumes, &["nodeAffinity"]),
    ("zones of volumes", Part::Volumes, &["labels"]),
    ("volumes set aside", Part::Volumes, &["claimRef"]),
    ("selected nodes of claims", Part::Claims, &["volume.kubernetes.io/selected-node"]),
    ("claims for one pod", Part::Claims, &["accessModes"]),
    ("allowed topologies", Part::Classes, &["allowedTopologies"]),
];

/// In how many worlds each feature was there, and in how many the nodes would have been others without it.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    worlds: u32,
    pairs: u32,
    feasible: u32,
    counts: BTreeMap<&'static str, (u32, u32)>,
}

/// Takes the fields of these names out of a value. False if there are none.
fn strip(value: &mut Value, names: &[&str]) -> bool {
    match value {
        Value::Object(object) => {
            let before = object.len();
            object.retain(|name, _| !names.contains(&name.as_str()));
            let gone = object.len() < before;
            object.values_mut().fold(gone, |gone, value| strip(value, names) | gone)
        }
        Value::Array(list) => list.iter_mut().fold(false, |gone, value| strip(value, names) | gone),
        _ => false,
    }
}

/// The world without a feature; none if it has none of it.
fn without(world: &World, part: Part, names: &[&str]) -> Option<World> {
    let mut world = world.clone();
    let objects = match part {
        Part::Pod => std::slice::from_mut(&mut world.pod),
        Part::Pods => &mut world.pods[..],
        Part::Nodes => &mut world.nodes[..],
        Part::Claims => &mut world.pvcs[..],
        Part::Volumes => &mut world.pvs[..],
        Part::Classes => &mut world.storageclasses[..],
    };
    let mut gone = false;
    for object in objects {
        gone |= strip(object, names);
        // What must be there is there, with a value that constrains nothing.
        if names == ["pods"] {
            object["status"]["allocatable"]["pods"] = json!("110");
        }
    }
    gone.then_some(world)
}

impl Shares {
    /// Counts a world, of which the filters let `feasible` through.
    ///
    /// # Errors
    /// If the oracle ended.
    ///
    /// # Panics
    /// If the world is none.
    pub fn count(&mut self, world: &World, feasible: &[String], oracle: &mut Oracle) -> Result<(), Error> {
        self.worlds += 1;
        self.pairs += world.nodes.len() as u32;
        self.feasible += feasible.len() as u32;
        for &(name, part, fields) in FEATURES {
            let Some(case) = without(world, part, fields).and_then(|world| world.case().ok()) else { continue };
            let decided = match oracle.ask(&case) {
                Ok(answer) => answer.feasible != feasible,
                // Without it the world is none that an API server would have.
                Err(Error::Oracle(_)) => continue,
                Err(other) => return Err(other),
            };
            let counts = self.counts.entry(name).or_default();
            counts.0 += 1;
            counts.1 += u32::from(decided);
        }
        Ok(())
    }

    /// Worlds counted.
    #[must_use]
    pub fn worlds(&self) -> u32 {
        self.worlds
    }

    /// Features that decided in no world.
    pub fn idle(&self) -> impl Iterator<Item = &'static str> {
        FEATURES.iter().map(|feature| feature.0).filter(|name| self.counts.get(name).is_none_or(|counts| counts.1 == 0))
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: u32, all: u32| 100 * part / all.max(1);
        writeln!(f, "{} worlds, {} pairs of pod and node, {} % feasible", self.worlds, self.pairs, percent(self.feasible, self.pairs))?;
        writeln!(f, "{:<32}{:>8}{:>9}", "feature", "worlds", "decided")?;
        for (name, _, _) in FEATURES {
            let (there, decided) = self.counts.get(name).copied().unwrap_or_default();
            writeln!(f, "{name:<32}{there:>8}{decided:>9} {:>3} %", percent(decided, there))?;
        }
        Ok(())
    }
}
