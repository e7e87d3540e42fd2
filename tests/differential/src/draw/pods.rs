//! Pods: those that run, and the one that waits.

use serde_json::{Value, json};

use super::{HOST, NAMESPACES, Themes, near, selectors, storage};
use crate::{
    brain::SCHEDULER,
    dice::{Dice, set},
    world::World,
};

fn pod(name: &str, dice: &mut Dice, themes: Themes) -> Value {
    // Most are neighbours, above all where they are counted.
    let usual = if themes.spread { 20 } else { 3 };
    let namespace = if dice.chance(usual, usual + 3) { NAMESPACES[0] } else { dice.pick(&NAMESPACES) };
    let mut labels = selectors::pod_labels(dice);
    if themes.spread && dice.chance(3, 4) {
        set(&mut labels, "app", "web");
    }
    json!({
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels, "annotations": {},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"schedulerName": SCHEDULER, "priority": 0, "containers": [{"name": "c0", "image": "i"}]},
        "status": {"phase": "Pending"},
    })
}

/// A pod that has a node.
pub(super) fn bound(dice: &mut Dice, themes: Themes, name: &str, world: &mut World) -> Value {
    let mut pod = pod(name, dice, themes);
    set(&mut pod["spec"], "schedulerName", dice.pick(&[SCHEDULER, "default-scheduler"]));
    // The first nodes are fuller.
    let last = world.nodes.len() as u32 - 1;
    let node = dice.number(0, last).min(dice.number(0, last));
    let node = if dice.chance(1, 40) { "gone".to_owned() } else { format!("n{node}") };
    set(&mut pod["spec"], "nodeName", node);
    set(&mut pod["status"], "phase", dice.pick(&["Running", "Running", "Running", "Running", "Running", "Pending", "Succeeded", "Failed"]));
    if dice.chance(1, 5) {
        set(&mut pod["metadata"], "deletionTimestamp", "2026-01-02T00:00:00Z");
    }
    if themes.amounts {
        amounts(dice, &mut pod, &["0", "100m", "250m", "500m"], &["0", "128Mi", "512Mi", "1Gi"]);
        if dice.chance(1, 3) {
            resize(dice, &mut pod);
        }
    }
    if themes.ports && dice.chance(2, 3) {
        ports(dice, &mut pod);
    }
    if themes.near && dice.chance(1, 4) {
        let own = pod["metadata"]["labels"].clone();
        set(&mut pod["spec"], "affinity", json!({"podAntiAffinity": near::terms(dice, &own)}));
    }
    if themes.volumes && dice.chance(1, 2) {
        storage::share(dice, &mut pod, world);
    }
    pod
}

/// A pod that waits.
pub(super) fn waiting(dice: &mut Dice, themes: Themes, name: &str, world: &mut World) -> Value {
    let mut pod = pod(name, dice, themes);
    let own = pod["metadata"]["labels"].clone();
    let mut affinity = json!({});
    if themes.labels {
        if dice.chance(1, 2) {
            set(&mut pod["spec"], "nodeSelector", selectors::equal(dice));
        }
        if dice.chance(2, 3) {
            set(&mut affinity, "nodeAffinity", json!({"requiredDuringSchedulingIgnoredDuringExecution": selectors::node_selector(dice)}));
        }
    }
    if themes.taints || dice.chance(1, 10) {
        set(&mut pod["spec"], "tolerations", dice.list(0, 3, selectors::toleration));
    }
    if themes.ports {
        ports(dice, &mut pod);
    }
    if themes.amounts {
        amounts(dice, &mut pod, &["0", "250m", "500m", "1", "1500m"], &["0", "512Mi", "1Gi", "1Gi", "2000Mi"]);
    }
    if themes.near {
        if dice.chance(2, 5) {
            set(&mut affinity, "podAffinity", near::terms(dice, &own));
        }
        if dice.chance(3, 5) {
            set(&mut affinity, "podAntiAffinity", near::terms(dice, &own));
        }
    }
    if themes.spread {
        let most = dice.pick(&[1, 1, 1, 1, 2, 3]);
        let spread = dice.list(1, most, |dice| near::spread(dice, &own));
        // Which domains count depends on what the pod selects.
        if !themes.labels && dice.chance(2, 3) {
            let key = spread[0]["topologyKey"].as_str().unwrap_or(HOST);
            let selector = json!({"nodeSelectorTerms": [{"matchExpressions": [selectors::some_of(dice, key, 1)]}]});
            set(&mut affinity, "nodeAffinity", json!({"requiredDuringSchedulingIgnoredDuringExecution": selector}));
        }
        set(&mut pod["spec"], "topologySpreadConstraints", spread);
    }
    if affinity.as_object().is_some_and(|affinity| !affinity.is_empty()) {
        set(&mut pod["spec"], "affinity", affinity);
    }
    if themes.volumes {
        storage::claim_some(dice, &mut pod, world);
    }
    pod
}

/// Ports of its containers on the node.
fn ports(dice: &mut Dice, pod: &mut Value) {
    let port = |dice: &mut Dice| {
        let number = dice.number(80, 81);
        let mut port = json!({"containerPort": number, "protocol": dice.pick(&["TCP", "TCP", "TCP", "UDP", "SCTP"])});
        if dice.chance(5, 6) {
            set(&mut port, "hostPort", number);
        }
        if dice.chance(1, 2) {
            set(&mut port, "hostIP", dice.pick(&["10.0.0.1", "10.0.0.1", "10.0.0.2", "0.0.0.0", "127.0.0.1"]));
        }
        port
    };
    let most = dice.pick(&[1, 1, 3]);
    set(&mut pod["spec"]["containers"][0], "ports", dice.list(1, most, port));
    if dice.chance(1, 4) {
        let mut sidecar = json!({"name": "s", "image": "i", "ports": dice.list(1, 1, port)});
        if dice.chance(2, 3) {
            set(&mut sidecar, "restartPolicy", "Always");
        }
        set(&mut pod["spec"], "initContainers", json!([sidecar]));
    }
    if dice.chance(1, 8) {
        // On the node's network the API server makes every port one of the node.
        set(&mut pod["spec"], "hostNetwork", true);
        for list in ["containers", "initContainers"] {
            for container in listed(&mut pod["spec"], list) {
                for port in listed(container, "ports") {
                    port["hostPort"] = port["containerPort"].clone();
                }
            }
        }
    }
}

/// The entries of a list, if there is one.
fn listed<'v>(object: &'v mut Value, list: &str) -> impl Iterator<Item = &'v mut Value> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn requests(dice: &mut Dice, cpu: &[&str], memory: &[&str]) -> Value {
    let mut requests = json!({});
    let mut maybe = |name: &str, some: u32, all: u32, values: &[&str]| {
        if dice.chance(some, all) {
            set(&mut requests, name, dice.pick(values));
        }
    };
    maybe("cpu", 3, 4, cpu);
    maybe("memory", 3, 4, memory);
    maybe("ephemeral-storage", 1, 4, &["1Gi", "4Gi", "123456789"]);
    maybe("example.com/fpga", 1, 10, &["1", "2"]);
    maybe("hugepages-2Mi", 1, 12, &["2Mi", "64Mi"]);
    json!({"requests": requests})
}

/// What its containers ask for, and what is asked beside them.
fn amounts(dice: &mut Dice, pod: &mut Value, cpu: &[&str], memory: &[&str]) {
    let container = |dice: &mut Dice, name: String| json!({"name": name, "image": "i", "resources": requests(dice, cpu, memory)});
    let count = dice.number(1, 2);
    let containers: Vec<Value> = (0..count).map(|row| container(dice, format!("c{row}"))).collect();
    let mut first: Vec<Value> = Vec::new();
    if dice.chance(1, 3) {
        for row in 0..dice.number(1, 3) {
            let mut one = container(dice, format!("i{row}"));
            if dice.chance(1, 2) {
                set(&mut one, "restartPolicy", "Always");
            }
            first.push(one);
        }
    }
    let spec = &mut pod["spec"];
    set(spec, "containers", containers);
    if !first.is_empty() {
        set(spec, "initContainers", first);
    }
    if dice.chance(1, 5) {
        set(spec, "overhead", json!({"cpu": dice.pick(&["250m", "1"]), "memory": dice.pick(&["256Mi", "1Gi"])}));
    }
    if dice.chance(1, 5) {
        // Both, for of one alone the API server would write the other from what the containers ask.
        set(spec, "resources", json!({"requests": {"cpu": dice.pick(&["500m", "1", "2"]), "memory": dice.pick(&["512Mi", "1Gi", "3Gi"])}}));
    }
}

/// Lets a pod be resized: it has something other than it asks for.
fn resize(dice: &mut Dice, pod: &mut Value) {
    let status = |dice: &mut Dice, name: &Value| {
        let amounts = |dice: &mut Dice| json!({"cpu": dice.pick(&["100m", "1", "2"]), "memory": dice.pick(&["128Mi", "1Gi", "2Gi"])});
        let mut status = json!({"name": name, "image": "i", "imageID": "i", "ready": true, "restartCount": 0});
        if dice.chance(2, 3) {
            set(&mut status, "allocatedResources", amounts(dice));
        }
        if dice.chance(2, 3) {
            set(&mut status, "resources", json!({"requests": amounts(dice)}));
        }
        status
    };
    for (list, key) in [("containers", "containerStatuses"), ("initContainers", "initContainerStatuses")] {
        let names: Vec<Value> = pod["spec"][list].as_array().into_iter().flatten().map(|container| container["name"].clone()).collect();
        let statuses: Vec<Value> = names.iter().map(|name| status(dice, name)).collect();
        if !statuses.is_empty() {
            set(&mut pod["status"], key, statuses);
        }
    }
    if dice.chance(1, 2) {
        let reason = dice.pick(&["Infeasible", "Deferred"]);
        set(&mut pod["status"], "conditions", json!([{"type": "PodResizePending", "status": "True", "reason": reason}]));
    }
    if dice.chance(1, 3) {
        let amounts = json!({"cpu": dice.pick(&["250m", "2500m"]), "memory": dice.pick(&["256Mi", "3Gi"])});
        if dice.chance(2, 3) {
            set(&mut pod["status"], "allocatedResources", amounts.clone());
        }
        if dice.chance(2, 3) {
            set(&mut pod["status"], "resources", json!({"requests": amounts}));
        }
    }
}

/// The label by which the host of a node is known.
pub(super) fn host_term(host: &str) -> Value {
    json!({"matchExpressions": [{"key": HOST, "operator": "In", "values": [host]}]})
}
