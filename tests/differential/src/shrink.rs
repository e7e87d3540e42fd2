//! The smallest world that still shows a mismatch.

use partita_cluster::Oracle;
use serde_json::Value;

use crate::{
    compare::{Kind, mismatch},
    world::World,
};

/// Fields that an API server does not need, at any depth.
const OPTIONAL: &[&str] = &[
    "affinity",
    "allowedTopologies",
    "annotations",
    "claimRef",
    "deletionTimestamp",
    "conditions",
    "containerStatuses",
    "hostIP",
    "hostNetwork",
    "initContainerStatuses",
    "initContainers",
    "labelSelector",
    "labels",
    "matchExpressions",
    "matchFields",
    "matchLabelKeys",
    "matchLabels",
    "minDomains",
    "mismatchLabelKeys",
    "namespaceSelector",
    "namespaces",
    "nodeAffinity",
    "nodeAffinityPolicy",
    "nodeSelector",
    "nodeTaintsPolicy",
    "overhead",
    "podAffinity",
    "podAntiAffinity",
    "ports",
    "preferredDuringSchedulingIgnoredDuringExecution",
    "requiredDuringSchedulingIgnoredDuringExecution",
    "selector",
    "taints",
    "tolerations",
    "topologySpreadConstraints",
    "unschedulable",
    "volumes",
];
/// Fields whose entries are not needed.
const MAPS: &[&str] = &["labels", "annotations", "nodeSelector", "matchLabels", "allocatable"];
/// Lists that an API server does not take empty.
const FILLED: &[&str] = &["accessModes", "containers", "matchLabelExpressions", "nodeSelectorTerms", "values"];

/// Takes out of `world` whatever can be taken out so that the mismatch is still of its `kind`.
#[must_use]
pub fn shrink(world: &World, kind: Kind, oracle: &mut Oracle) -> World {
    let Ok(mut smallest) = serde_json::to_value(world) else { return world.clone() };
    loop {
        let mut shrunk = false;
        // From the back, so that a path stays good when what lies behind it is gone.
        for path in removable(&smallest).iter().rev() {
            let mut smaller = smallest.clone();
            if !remove(&mut smaller, path) {
                continue;
            }
            let world = serde_json::from_value::<World>(smaller.clone());
            if world.is_ok_and(|world| mismatch(&world, oracle).is_some_and(|found| found.kind == kind)) {
                smallest = smaller;
                shrunk = true;
            }
        }
        if !shrunk {
            return serde_json::from_value(smallest).unwrap_or_else(|_| world.clone());
        }
    }
}

/// Pointers to everything that may be taken out, what holds others first.
fn removable(world: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(world, "", "", &mut found);
    found
}

fn walk(value: &Value, path: &str, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                let inner_path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                if OPTIONAL.contains(&key.as_str()) || MAPS.contains(&name) {
                    found.push(inner_path.clone());
                }
                walk(inner, &inner_path, key, found);
            }
        }
        Value::Array(list) => {
            for (row, inner) in list.iter().enumerate() {
                let inner_path = format!("{path}/{row}");
                if list.len() > 1 || !FILLED.contains(&name) {
                    found.push(inner_path.clone());
                }
                walk(inner, &inner_path, name, found);
            }
        }
        _ => {}
    }
}

fn remove(value: &mut Value, path: &str) -> bool {
    let Some((parent, end)) = path.rsplit_once('/') else { return false };
    match value.pointer_mut(parent) {
        Some(Value::Object(object)) => object.remove(&end.replace("~1", "/").replace("~0", "~")).is_some(),
        Some(Value::Array(list)) => match end.parse::<usize>() {
            Ok(row) if row < list.len() => {
                list.remove(row);
                true
            }
            _ => false,
        },
        _ => false,
    }
}
