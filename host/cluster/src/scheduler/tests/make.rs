//! Objects in few words. Everything has the namespace `ns`.

use serde_json::{Value, json};

use super::super::effect::PodName;
use crate::objects::{Budget, Claim, Node, PersistentVolume, Pod, StorageClass};

/// The scheduler's name.
pub(super) const OURS: &str = "partita";

/// A node with 16 cores, 64 GiB and room for 16 pods, whose GPUs may be cut as anybody likes.
pub(super) fn node(name: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "partita.dev/partitioning": "auto"}},
        "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "16"}},
    }))
    .unwrap()
}

/// A pod that asks for these amounts.
pub(super) fn pod(name: &str, asks: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "labels": {"app": name}},
        "spec": {"schedulerName": OURS, "containers": [{"name": "c", "resources": {"requests": asks}}]},
        "status": {"phase": "Pending"},
    }))
    .unwrap()
}

/// A pod that asks for one partition of this profile.
pub(super) fn mig(name: &str, profile: &str) -> Pod {
    pod(name, json!({format!("nvidia.com/mig-{profile}"): "1"}))
}

/// A pod that asks for whole GPUs.
pub(super) fn whole(name: &str, count: u32) -> Pod {
    pod(name, json!({"nvidia.com/gpu": count.to_string()}))
}

/// A pod that asks for so many cores.
pub(super) fn cores(name: &str, count: u32) -> Pod {
    pod(name, json!({"cpu": count.to_string()}))
}

/// The same with a priority.
pub(super) fn urgent(mut pod: Pod, priority: i32) -> Pod {
    pod.spec.value.priority = Some(priority);
    pod
}

/// The same with a label.
pub(super) fn labelled(mut pod: Pod, key: &str, value: &str) -> Pod {
    pod.metadata.labels.get_or_insert_default().insert(key.into(), value.into());
    pod
}

/// The same with a volume that claims `claim`.
pub(super) fn claiming(mut pod: Pod, claim: &str) -> Pod {
    pod.spec.value.volumes = serde_json::from_value(json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}])).unwrap();
    pod
}

/// A disruption budget for the pods with this label, of which `allowed` may be stopped.
pub(super) fn budget(name: &str, key: &str, value: &str, allowed: i64) -> Budget {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "generation": 1},
        "spec": {"selector": {"matchLabels": {key: value}}},
        "status": {"disruptionsAllowed": allowed, "observedGeneration": 1},
    }))
    .unwrap()
}

/// A claim on a volume of a class.
pub(super) fn claim(name: &str, class: &str, mode: &str) -> Claim {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"storageClassName": class, "accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    }))
    .unwrap()
}

/// A class that waits for the first consumer; `provisioner` is `kubernetes.io/no-provisioner` where its volumes are there already.
pub(super) fn class(name: &str, provisioner: &str) -> StorageClass {
    let text = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
    serde_json::from_value(text).unwrap()
}

/// A volume of a class on a node.
pub(super) fn volume(name: &str, class: &str, node: &str) -> PersistentVolume {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "storageClassName": class, "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce", "ReadWriteOncePod"],
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}},
        },
        "status": {"phase": "Available"},
    }))
    .unwrap()
}

/// The full name of a pod of ours.
pub(super) fn full(pod: &PodName) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}
