//! Nodes.

use std::collections::BTreeMap;

use partita_core::model::{Cut, GpuModel, GpuSpec, NodeSpec, Partitioning, constraints::Taint, node::GPUS_MAX};

use super::{Storage, Unsupported, constraints, gpu, keys, quote};
use crate::{
    crd, models,
    objects::{GpuNode, Node},
    quantity::{Quantity, Round},
};

/// Why the GPUs of a node cannot be used that partita is to cut and no agent looks after.
const UNREPORTED: &str = "partita's agent has not reported yet";

/// A node in the core's words.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// What it has.
    pub spec: NodeSpec,
    /// The models of its GPUs, each once, to be told before the node.
    pub models: Vec<GpuModel>,
    /// What of it contradicts itself or is not understood, and was left out.
    pub odd: Vec<Unsupported>,
}

/// A node, with the GPUs that its agent reports; where no agent does, with whole GPUs as its labels and capacity tell. Where partita is to cut
/// them, these cannot be used before the agent has reported.
///
/// `known` tells whether a user of the GPU with an index, as the agent names it, is a pod that the scheduler has booked there, or a process
/// where it has booked one.
///
/// A node with the label `off` is one that partita leaves. Whether `agent` still counts there, the caller says: as long as it does nothing is
/// placed on its GPUs, and once it has given them back and a device plugin shows `nvidia.com/gpu`, they are whole GPUs as on a node without
/// one (`scheduler/silence`).
#[must_use]
pub fn node(node: &Node, agent: Option<&GpuNode>, storage: &Storage, known: &dyn Fn(u8, &str) -> bool) -> NodeView {
    let name = node.metadata.name.clone().unwrap_or_default();
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let mut odd: Vec<Unsupported> =
        node.error().map(|error| Unsupported::new(format!("node {name}: {error}"), "look at the node")).into_iter().collect();
    let mut spec = allocatable(node, &name, &mut odd);
    spec.extra.extend(storage.attachable(&name));
    spec.extra.sort_unstable();
    spec.taints = taints(node, &name, &mut odd);
    spec.partitioning = partitioning(&labels).unwrap_or_else(|error| {
        odd.push(error);
        // Whatever was meant, nothing is cut otherwise until it is said: as the node's agent takes it.
        Partitioning::Fixed
    });
    let gpus = match agent {
        Some(agent) => reported(&name, agent, known),
        None => labelled(node, &name, &labels),
    };
    let mut models: BTreeMap<String, GpuModel> = BTreeMap::new();
    match gpus {
        Ok(gpus) => {
            let cuts = !matches!(spec.partitioning, Partitioning::Fixed | Partitioning::Off);
            for (mut gpu, model) in gpus {
                if agent.is_none() && cuts {
                    gpu.unusable = Some(UNREPORTED.to_owned());
                }
                models.entry(model.name.clone()).or_insert(model);
                spec.gpus.push(gpu);
            }
        }
        Err(error) => odd.push(error),
    }
    spec.labels = labels;
    spec.name = name;
    spec.unschedulable = node.spec.value.unschedulable;
    NodeView { spec, models: models.into_values().collect(), odd }
}

fn allocatable(node: &Node, name: &str, odd: &mut Vec<Unsupported>) -> NodeSpec {
    let mut spec = NodeSpec::default();
    for (resource, text) in &node.status.value.allocatable {
        let amount = Quantity::parse(text).unwrap_or_else(|error| {
            odd.push(Unsupported::new(format!("node {name} has {} of {}", quote(text), quote(resource)), error.to_string()));
            Quantity::ZERO
        });
        // More than can be counted is as good as that.
        let small = |count: Option<u64>| count.map_or(u32::MAX, |count| u32::try_from(count).unwrap_or(u32::MAX));
        match resource.as_str() {
            "cpu" => spec.cpu_milli = small(amount.milli(Round::Down)),
            "memory" => spec.memory_mib = small(amount.mib(Round::Down)),
            // These are counted GPU by GPU.
            gpu if gpu::is_gpu(gpu) => {}
            other => spec.extra.push((other.to_owned(), amount.whole(Round::Down).unwrap_or(u64::MAX))),
        }
    }
    spec
}

fn taints(node: &Node, name: &str, odd: &mut Vec<Unsupported>) -> Vec<Taint> {
    let mut taints = Vec::new();
    for taint in &node.spec.value.taints {
        match constraints::effect(&taint.effect) {
            Some(effect) => taints.push(Taint { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default(), effect }),
            None => odd.push(Unsupported::new(
                format!("taint {} of node {name} has the effect {}", quote(&taint.key), quote(&taint.effect)),
                "use NoSchedule, PreferNoSchedule or NoExecute",
            )),
        }
    }
    taints
}

fn partitioning(labels: &BTreeMap<String, String>) -> Result<Partitioning, Unsupported> {
    Ok(match labels.get(keys::PARTITIONING).map(String::as_str) {
        None => Partitioning::Fixed,
        Some("off") => Partitioning::Off,
        Some("mig") => Partitioning::Mig,
        Some("mps") => Partitioning::Mps,
        Some("time-slicing") => Partitioning::TimeSlicing,
        Some("auto") => Partitioning::Auto,
        Some(other) => {
            return Err(Unsupported::new(
                format!("label {} is {}", keys::PARTITIONING, quote(other)),
                "write mig, mps, time-slicing, auto or off; until then its GPUs stay cut as they are",
            ));
        }
    })
}

type Gpus = Vec<(GpuSpec, GpuModel)>;

fn reported(name: &str, agent: &GpuNode, known: &dyn Fn(u8, &str) -> bool) -> Result<Gpus, Unsupported> {
    if let Some(error) = &agent.status.error {
        return Err(Unsupported::new(format!("the status of GpuNode {name} cannot be read: {error}"), "update the node's agent"));
    }
    crd::gpus_of(name, &agent.status.value, known)
        .map_err(|error| Unsupported::new(error.to_string(), "until then the node counts as one without GPUs"))
}

/// Whole GPUs, as NVIDIA's device plugin counts them and GPU feature discovery describes them.
fn labelled(node: &Node, name: &str, labels: &BTreeMap<String, String>) -> Result<Gpus, Unsupported> {
    let wrong = |what: String, remedy: &str| {
        Err(Unsupported::new(format!("node {name} {what}"), format!("{remedy}; until then it counts as one without GPUs")))
    };
    let allocatable = &node.status.value.allocatable;
    let count = allocatable
        .get(keys::WHOLE_GPU)
        .and_then(|text| Quantity::parse(text).ok())
        .and_then(|amount| amount.whole(Round::Down))
        .unwrap_or(0);
    let parts = allocatable.iter().find(|(resource, text)| {
        gpu::is_gpu(resource) && *resource != keys::WHOLE_GPU && Quantity::parse(text).is_ok_and(|amount| !amount.is_zero())
    });
    if let Some((resource, _)) = parts {
        return wrong(format!("has {resource}, but no GpuNode says on which GPUs"), "run partita's agent there");
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    if count > u64::from(GPUS_MAX) {
        return wrong(format!("has {count} GPUs, more than the limit of {GPUS_MAX}"), "look at what its device plugin counts");
    }
    let Some(product) = labels.get(keys::PRODUCT).filter(|product| !product.is_empty()) else {
        return wrong(
            format!("has {count} GPUs, but no label {} names their model", keys::PRODUCT),
            "run GPU feature discovery or partita's agent there",
        );
    };
    if product.ends_with("-SHARED") || product.contains("-MIG-") {
        return wrong(
            format!("counts parts of GPUs as GPUs: its label {} is {}", keys::PRODUCT, quote(product)),
            "run partita's agent there instead",
        );
    }
    let memory = labels.get(keys::PRODUCT_MEMORY).map_or(Ok(0), |text| text.parse::<u32>());
    let Ok(memory_mib) = memory else {
        return wrong(format!("has the label {} {}", keys::PRODUCT_MEMORY, quote(&labels[keys::PRODUCT_MEMORY])), "write MiB as a number");
    };
    let model = models::describe(product, memory_mib, None);
    Ok((0..count).map(|_| (GpuSpec::new(&model.name, Cut::Shares), model.clone())).collect())
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn view(labels: Value, spec: Value, allocatable: Value, agent: Option<Value>) -> NodeView {
        let value: Node = serde_json::from_value(
            json!({"metadata": {"name": "n", "labels": labels}, "spec": spec, "status": {"allocatable": allocatable}}),
        )
        .unwrap();
        let agent: Option<GpuNode> =
            agent.map(|status| serde_json::from_value(json!({"metadata": {"name": "n"}, "status": status})).unwrap());
        node(&value, agent.as_ref(), &Storage::default(), &|_, user| user == "ns/known")
    }

    fn words(view: &NodeView) -> String {
        view.odd.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_node_with_labelled_gpus() {
        let labels = json!({keys::PRODUCT: "NVIDIA-A100-SXM4-80GB", keys::PRODUCT_MEMORY: "81920", "zone": "z"});
        let spec = json!({"unschedulable": true, "taints": [{"key": "k", "effect": "NoSchedule"}, {"key": "t", "value": "v", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]});
        let allocatable = json!({"cpu": "7.9995", "memory": "1048575999", "pods": "110", "nvidia.com/gpu": "2", "ephemeral-storage": "10Gi", "example.com/x": "3"});
        let seen = view(labels, spec, allocatable, None);
        assert_eq!(seen.odd, []);
        let node = seen.spec;
        assert_eq!((node.cpu_milli, node.memory_mib, node.unschedulable, node.partitioning), (7999, 999, true, Partitioning::Fixed));
        assert_eq!(node.extra, [("ephemeral-storage".to_owned(), 10 << 30), ("example.com/x".to_owned(), 3), ("pods".to_owned(), 110)]);
        assert_eq!((node.taints.len(), node.taints[1].value.as_str(), node.labels["zone"].as_str()), (2, "v", "z"));
        assert_eq!(node.gpus, [GpuSpec::new("A100-80GB", Cut::Shares), GpuSpec::new("A100-80GB", Cut::Shares)]);
        assert_eq!(seen.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["A100-80GB"]);
    }

    #[test]
    fn an_agent_knows_better() {
        let gpu = |index: u8, more: Value| {
            let mut gpu = json!({"uuid": format!("GPU-{index}"), "index": index, "model": "NVIDIA A30", "memoryMiB": 24576, "cut": "mig", "healthy": true});
            gpu.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            gpu
        };
        let partitions = json!({"partitions": [{"profile": "1g.6gb", "start": 1, "state": "Ready", "users": ["ns/known"]}, {"profile": "2g.12gb", "start": 2, "state": "Ready"}]});
        let gpus = json!({"gpus": [gpu(1, json!({"cut": "shares", "users": ["pid:9"]})), gpu(0, partitions)]});
        let seen = view(json!({keys::PARTITIONING: "auto"}), json!({}), json!({"nvidia.com/gpu": "8"}), Some(gpus));
        assert_eq!(words(&seen), "");
        assert_eq!((seen.spec.gpus.len(), seen.spec.partitioning, seen.models.len()), (2, Partitioning::Auto, 1));
        let found: Vec<(u8, bool)> = seen.spec.gpus[0].found.iter().map(|one| (one.start, one.used)).collect();
        assert_eq!((found, &seen.spec.gpus[0].unusable), (vec![(1, true), (2, false)], &None));
        assert!(seen.spec.gpus[1].unusable.as_ref().is_some_and(|reason| reason.contains("pid:9")));
    }

    #[test]
    fn contradictions_are_named_and_leave_a_node_without_gpus() {
        let product = |name: &str| json!({keys::PRODUCT: name});
        for (labels, allocatable, expected) in [
            (json!({}), json!({"nvidia.com/gpu": "2"}), "no label nvidia.com/gpu.product names their model"),
            (product("NVIDIA-A30-SHARED"), json!({"nvidia.com/gpu": "8"}), "counts parts of GPUs as GPUs"),
            (product("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"), json!({"nvidia.com/gpu": "7"}), "counts parts of GPUs as GPUs"),
            (product("NVIDIA-A30"), json!({"nvidia.com/gpu": "65"}), "more than the limit of 64"),
            (product("NVIDIA-A30"), json!({"nvidia.com/gpu": "1", "nvidia.com/mig-1g.6gb": "4"}), "no GpuNode says on which GPUs"),
            (json!({keys::PRODUCT: "NVIDIA-A30", keys::PRODUCT_MEMORY: "24 GB"}), json!({"nvidia.com/gpu": "1"}), "write MiB"),
        ] {
            let seen = view(labels, json!({}), allocatable, None);
            assert!(seen.spec.gpus.is_empty() && seen.odd.len() == 1, "{seen:?}");
            assert!(words(&seen).contains(expected) && words(&seen).contains("node n"), "{}", words(&seen));
        }
        for (label, usable) in [("off", true), ("mig", false), ("auto", false)] {
            let labels = json!({keys::PRODUCT: "NVIDIA-A30", keys::PARTITIONING: label});
            let gpus = view(labels, json!({}), json!({"nvidia.com/gpu": "1"}), None).spec.gpus;
            assert_eq!(gpus[0].unusable.is_none(), usable, "nobody makes partitions yet where {label} is wanted");
        }
        let none = view(product("NVIDIA-A30"), json!({}), json!({"nvidia.com/mig-1g.6gb": "0"}), None);
        assert_eq!((none.odd, none.spec.gpus), (vec![], vec![]));
        let gap = json!({"gpus": [{"uuid": "u", "index": 3, "model": "A30", "cut": "shares", "healthy": true}]});
        assert!(words(&view(json!({}), json!({}), json!({}), Some(gap))).contains("must be 0 to 0"));
        assert!(words(&view(json!({}), json!({}), json!({}), Some(json!({"gpus": 7})))).contains("status of GpuNode n cannot be read"));
    }

    #[test]
    fn what_is_not_understood_takes_nothing_else_with_it() {
        let spec = json!({"taints": [{"key": "a", "effect": "Slow"}, {"key": "b", "effect": "NoSchedule"}]});
        let seen = view(json!({keys::PARTITIONING: "some"}), spec, json!({"cpu": "4", "memory": "lots"}), None);
        assert_eq!(
            (seen.spec.cpu_milli, seen.spec.memory_mib, seen.spec.taints.len(), seen.spec.partitioning),
            (4000, 0, 1, Partitioning::Fixed)
        );
        assert_eq!(seen.odd.len(), 3, "{}", words(&seen));
        let seen = view(json!({}), json!({"taints": 1}), json!({"cpu": "4"}), None);
        assert!(words(&seen).contains("its spec cannot be read") && seen.spec.cpu_milli == 4000);
    }

    proptest! {
        #[test]
        fn no_node_makes_it_panic(count in ".{0,8}", product in "(NVIDIA-)?(A100|H100|T4|GH200|RTX-PRO|.{0,8})(-[0-9]{0,12}GB?)?.{0,6}", memory in "[0-9]{0,12}", index in any::<u8>(), mib in any::<u32>()) {
            let gpu = json!({"uuid": "u", "index": index % 2, "model": product, "memoryMiB": mib, "cut": "mig", "healthy": true, "partitions": [{"state": "Failed", "start": index}]});
            let allocatable = json!({"nvidia.com/gpu": count, "cpu": count, "memory": memory});
            for agent in [None, Some(json!({"gpus": [gpu]}))] {
                let seen = view(json!({keys::PRODUCT: product, keys::PRODUCT_MEMORY: memory, keys::PARTITIONING: count}), json!({}), allocatable.clone(), agent);
                prop_assert!(seen.spec.gpus.iter().all(|gpu| seen.models.iter().any(|model| model.name == gpu.model)));
            }
        }
    }
}
