//! Volumes, claims on them and classes of storage.

use serde_json::{Value, json};

use super::{REGION, ZONE, pods::host_term, selectors};
use crate::{
    dice::{Dice, set},
    world::World,
};

/// Classes whose claims wait for their pod.
const WAITING: [&str; 6] = ["anywhere", "zonal", "zonal", "zonal", "local", "local"];

/// The classes, and volumes that nobody has.
pub(super) fn classes_and_volumes(dice: &mut Dice, world: &mut World) {
    let class = |name: &str, provisioner: &str, mode: &str| json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
    let mut zonal = class("zonal", "made.example.com", "WaitForFirstConsumer");
    set(&mut zonal, "allowedTopologies", dice.list(1, 2, topology_term));
    world.storageclasses = vec![
        class("anywhere", "made.example.com", "WaitForFirstConsumer"),
        zonal,
        class("local", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
        class("now", "made.example.com", "Immediate"),
    ];
    for row in 0..dice.number(2, 10) {
        let class = dice.pick(&["local", "local", "local", "zonal", "anywhere", "now"]);
        let mut volume = volume(dice, world, &format!("free-{row}"), class);
        if dice.chance(1, 10) {
            set(&mut volume["status"], "phase", dice.pick(&["Released", "Pending"]));
        }
        if dice.chance(1, 20) {
            set(&mut volume["metadata"], "deletionTimestamp", "2026-01-02T00:00:00Z");
        }
        world.pvs.push(volume);
    }
}

fn topology_term(dice: &mut Dice) -> Value {
    let mut expressions = vec![json!({"key": ZONE, "values": dice.several(&["a", "b", "c"], 1, 2)})];
    if dice.chance(1, 4) {
        expressions.push(json!({"key": "rack", "values": dice.several(&["1", "2", "3"], 1, 2)}));
    }
    json!({"matchLabelExpressions": expressions})
}

/// No two are of one size: which of equals kube-scheduler takes is chance.
fn volume(dice: &mut Dice, world: &World, name: &str, class: &str) -> Value {
    let capacity = format!("{}Mi", dice.pick(&[2048, 5120, 10240, 20480]) + world.pvs.len());
    let mut volume = json!({
        "metadata": {"name": name, "labels": {"grade": dice.pick(&["1", "2"])}},
        "spec": {
            "accessModes": if dice.chance(3, 4) { json!(["ReadWriteOnce", "ReadWriteOncePod"]) } else { json!(["ReadWriteOnce", "ReadOnlyMany"]) },
            "capacity": {"storage": capacity}, "storageClassName": class,
            "volumeMode": if dice.chance(1, 12) { "Block" } else { "Filesystem" }, "hostPath": {"path": "/there"},
        },
        "status": {"phase": "Available"},
    });
    if dice.chance(3, 5) {
        let required = match dice.number(0, 5) {
            0 | 1 => json!({"nodeSelectorTerms": [host_term(dice.pick(&["n0", "n1", "n2", "n3"]))]}),
            2 | 3 => {
                json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": dice.several(&["a", "b", "c"], 1, 3)}]}]})
            }
            4 => {
                json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": REGION, "operator": "In", "values": ["r"]}]}, host_term("n1")]})
            }
            _ => selectors::node_selector(dice),
        };
        set(&mut volume["spec"], "nodeAffinity", json!({"required": required}));
    }
    if dice.chance(1, 3) {
        let beta = "failure-domain.beta.kubernetes.io/zone";
        let key = dice.pick(&[ZONE, ZONE, REGION, beta, beta]);
        let value = if key == REGION { dice.pick(&["r", "s"]) } else { dice.pick(&["a", "b", "a__b", "b__c"]) };
        set(&mut volume["metadata"]["labels"], key, value);
        if key == beta && dice.chance(1, 4) {
            set(&mut volume["metadata"]["labels"], ZONE, dice.pick(&["a", "b"]));
        }
    }
    volume
}

fn claim(dice: &mut Dice, name: &str, namespace: &Value, class: &str) -> Value {
    let modes = dice.pick(&["ReadWriteOnce", "ReadWriteOnce", "ReadOnlyMany", "ReadWriteOncePod", "ReadWriteOncePod"]);
    let mut claim = json!({
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-of-{name}"), "annotations": {}},
        "spec": {
            "accessModes": [modes], "resources": {"requests": {"storage": dice.pick(&["1Gi", "3Gi", "5Gi", "8Gi"])}}, "storageClassName": class,
            "volumeMode": if dice.chance(1, 20) { "Block" } else { "Filesystem" },
        },
        "status": {"phase": "Pending"},
    });
    if dice.chance(1, 8) {
        set(&mut claim["spec"], "selector", json!({"matchLabels": {"grade": "1"}}));
    }
    claim
}

/// Gives the pod one to three volumes that it claims.
pub(super) fn claim_some(dice: &mut Dice, pod: &mut Value, world: &mut World) {
    let (namespace, pod_name) = (pod["metadata"]["namespace"].clone(), pod["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    let mut volumes = Vec::new();
    for row in 0..dice.pick(&[1, 1, 1, 2, 2, 3]) {
        let volume = format!("v{row}");
        // One of the pod's own has a name that is made of the pod's and the volume's.
        let name = format!("{pod_name}-{volume}");
        let own = dice.chance(1, 6);
        let mut claim = drawn_claim(dice, &name, &namespace, world);
        if own {
            let uid = if dice.chance(1, 12) { "another".into() } else { pod["metadata"]["uid"].clone() };
            let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": pod_name, "uid": uid, "controller": true});
            set(&mut claim["metadata"], "ownerReferences", json!([owner]));
        }
        let source = if own {
            ("ephemeral", json!({"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {}}}}))
        } else {
            ("persistentVolumeClaim", json!({"claimName": name}))
        };
        let mut entry = json!({"name": volume});
        set(&mut entry, source.0, source.1);
        volumes.push(entry);
        if dice.chance(79, 80) {
            world.pvcs.push(claim);
        }
    }
    set(&mut pod["spec"], "volumes", volumes);
}

/// A claim in one of its states; a volume that it needs for that is made.
fn drawn_claim(dice: &mut Dice, name: &str, namespace: &Value, world: &mut World) -> Value {
    let class = dice.pick(&WAITING);
    let mut drawn = claim(dice, name, namespace, class);
    match dice.number(0, 59) {
        0..=18 => bind(dice, &mut drawn, world),
        // Set aside for it by a person.
        19..=24 => {
            let mut volume = volume(dice, world, &format!("aside-for-{name}"), class);
            let mut to = json!({"namespace": namespace, "name": name});
            if dice.chance(1, 3) {
                set(&mut to, "uid", dice.pick(&[drawn["metadata"]["uid"].as_str().unwrap_or_default(), "older"]));
            }
            set(&mut volume["spec"], "claimRef", to);
            // Whoever sets it aside is trusted.
            if dice.chance(1, 2) {
                set(&mut volume["spec"], "accessModes", json!(["ReadWriteMany"]));
            }
            world.pvs.push(volume);
        }
        25..=28 => set(&mut drawn["metadata"]["annotations"], "volume.kubernetes.io/selected-node", dice.pick(&["n0", "n1", "n2"])),
        29 => set(&mut drawn["spec"], "storageClassName", dice.pick(&["now", "unknown"])),
        30 => set(&mut drawn["metadata"], "deletionTimestamp", "2026-01-02T00:00:00Z"),
        31 => {
            bind(dice, &mut drawn, world);
            set(&mut drawn["status"], "phase", "Lost");
        }
        32 => {
            // On its way to a volume that a person named.
            bind(dice, &mut drawn, world);
            set(&mut drawn["metadata"], "annotations", json!({}));
        }
        // The old way to name a class.
        33 | 34 => {
            set(&mut drawn["metadata"]["annotations"], "volume.beta.kubernetes.io/storage-class", class);
            set(&mut drawn["spec"], "storageClassName", Value::Null);
        }
        _ => {}
    }
    drawn
}

fn bind(dice: &mut Dice, claim: &mut Value, world: &mut World) {
    let meta = claim["metadata"].clone();
    let name = format!("of-{}-{}", meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str().unwrap_or_default());
    let mut volume = volume(dice, world, &name, claim["spec"]["storageClassName"].as_str().unwrap_or_default());
    set(&mut volume["spec"], "claimRef", json!({"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}));
    set(&mut volume["status"], "phase", "Bound");
    set(&mut claim["spec"], "volumeName", name);
    set(&mut claim["metadata"]["annotations"], "pv.kubernetes.io/bind-completed", "yes");
    set(&mut claim["status"], "phase", "Bound");
    if dice.chance(79, 80) {
        world.pvs.push(volume);
    }
}

/// Gives a pod that runs a claim that others may have, too.
pub(super) fn share(dice: &mut Dice, pod: &mut Value, world: &mut World) {
    let namespace = pod["metadata"]["namespace"].clone();
    let name = dice.pick(&["asks-v0", "asks-v1", "asks-0-v0", "asks-1-v0", "shared"]);
    if name == "shared" && !world.pvcs.iter().any(|claim| claim["metadata"]["name"] == name && claim["metadata"]["namespace"] == namespace)
    {
        let mut shared = claim(dice, name, &namespace, "anywhere");
        bind(dice, &mut shared, world);
        world.pvcs.push(shared);
    }
    set(&mut pod["spec"], "volumes", json!([{"name": "v", "persistentVolumeClaim": {"claimName": name}}]));
}
