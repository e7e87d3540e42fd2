//! Simulated nodes: the object with its capacity, ready from the start.
//!
//! Nothing runs behind such a node. With KWOK ([`crate::Program::Kwok`]) its pods run and its lease is renewed; without, pods can be bound
//! to it and stay pending, which is all that tests of scheduling need.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo, Taint},
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};

use crate::error::{Doing, Error};

/// The annotation of nodes that KWOK looks after.
pub const KWOK_ANNOTATION: (&str, &str) = ("kwok.x-k8s.io/node", "fake");
/// The extended resource of whole NVIDIA GPUs.
pub const GPU_RESOURCE: &str = "nvidia.com/gpu";
/// The label of a node: the product name of its GPUs.
pub const PRODUCT_LABEL: &str = "nvidia.com/gpu.product";
/// The label of a node: how many GPUs it has.
pub const COUNT_LABEL: &str = "nvidia.com/gpu.count";
/// The label of a node: the memory of each of its GPUs, in MiB.
pub const MEMORY_LABEL: &str = "nvidia.com/gpu.memory";
/// Requests under way at once.
const AT_ONCE: usize = 32;

/// A kind of GPU as NVIDIA's feature discovery describes it on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuModel {
    /// A short name to choose it by.
    pub name: &'static str,
    /// The name that the driver gives.
    pub driver_name: &'static str,
    /// The label `nvidia.com/gpu.product`: the name that the driver gives, with dashes.
    pub product: &'static str,
    /// The label `nvidia.com/gpu.memory`, in MiB.
    pub memory_mib: u32,
}

/// The kinds that [`NodeShape::with_gpus`] is usually given. Products and memory as the driver reports them.
pub const GPU_MODELS: [GpuModel; 9] = [
    GpuModel { name: "A30", driver_name: "NVIDIA A30", product: "NVIDIA-A30", memory_mib: 24_576 },
    GpuModel { name: "A100-40GB", driver_name: "NVIDIA A100-SXM4-40GB", product: "NVIDIA-A100-SXM4-40GB", memory_mib: 40_960 },
    GpuModel { name: "A100-80GB", driver_name: "NVIDIA A100-SXM4-80GB", product: "NVIDIA-A100-SXM4-80GB", memory_mib: 81_920 },
    GpuModel { name: "H100-80GB", driver_name: "NVIDIA H100 80GB HBM3", product: "NVIDIA-H100-80GB-HBM3", memory_mib: 81_559 },
    GpuModel { name: "H200-141GB", driver_name: "NVIDIA H200", product: "NVIDIA-H200", memory_mib: 143_771 },
    GpuModel { name: "B200-180GB", driver_name: "NVIDIA B200", product: "NVIDIA-B200", memory_mib: 183_359 },
    GpuModel { name: "L4", driver_name: "NVIDIA L4", product: "NVIDIA-L4", memory_mib: 23_034 },
    GpuModel { name: "L40S", driver_name: "NVIDIA L40S", product: "NVIDIA-L40S", memory_mib: 46_068 },
    GpuModel { name: "T4", driver_name: "Tesla T4", product: "Tesla-T4", memory_mib: 15_360 },
];

/// Nodes that differ only in their number.
#[derive(Clone, Debug)]
pub struct NodeShape {
    /// The nodes are called `<prefix>-0`, `<prefix>-1` and so on.
    pub prefix: String,
    /// How many.
    pub count: usize,
    /// Processors of each, as a Kubernetes quantity.
    pub cpu: String,
    /// Memory of each, as a Kubernetes quantity.
    pub memory: String,
    /// Pods that each takes.
    pub pods: u32,
    /// Labels besides the host's name, the architecture and the system.
    pub labels: BTreeMap<String, String>,
    /// Extended resources: name and quantity.
    pub resources: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
}

impl NodeShape {
    /// `count` nodes with 64 processors, 512 GiB of memory and room for 110 pods.
    #[must_use]
    pub fn new(prefix: &str, count: usize) -> Self {
        let [labels, resources] = [BTreeMap::new(), BTreeMap::new()];
        Self {
            prefix: prefix.to_owned(),
            count,
            cpu: "64".to_owned(),
            memory: "512Gi".to_owned(),
            pods: 110,
            labels,
            resources,
            taints: Vec::new(),
        }
    }

    /// The same with `count` GPUs on each, advertised and labelled as NVIDIA's device plugin and feature discovery do.
    #[must_use]
    pub fn with_gpus(mut self, model: GpuModel, count: u32) -> Self {
        let labels = [
            ("nvidia.com/gpu.present", "true".to_owned()),
            (PRODUCT_LABEL, model.product.to_owned()),
            (COUNT_LABEL, count.to_string()),
            (MEMORY_LABEL, model.memory_mib.to_string()),
        ];
        self.labels.extend(labels.map(|(name, value)| (name.to_owned(), value)));
        self.resources.insert(GPU_RESOURCE.to_owned(), count.to_string());
        self
    }

    /// The node with this number, as it is created.
    #[must_use]
    pub fn node(&self, number: usize) -> Node {
        let name = format!("{}-{number}", self.prefix);
        let ours = [("kubernetes.io/hostname", name.as_str()), ("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")];
        let labels = ours.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().chain(self.labels.clone()).collect();
        let annotations = [(KWOK_ANNOTATION.0.to_owned(), KWOK_ANNOTATION.1.to_owned())].into();
        Node {
            metadata: ObjectMeta { name: Some(name), labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() },
            spec: Some(NodeSpec { taints: (!self.taints.is_empty()).then(|| self.taints.clone()), ..NodeSpec::default() }),
            status: Some(self.status()),
        }
    }

    fn status(&self) -> NodeStatus {
        let pods = self.pods.to_string();
        let own =
            [("cpu", &self.cpu), ("memory", &self.memory), ("pods", &pods)].map(|(name, quantity)| (name.to_owned(), quantity.clone()));
        let resources: BTreeMap<_, _> =
            own.into_iter().chain(self.resources.clone()).map(|(name, quantity)| (name, Quantity(quantity))).collect();
        let now = Time(Timestamp::now());
        let condition = |kind: &str, holds: bool, reason: &str| NodeCondition {
            type_: kind.to_owned(),
            status: if holds { "True" } else { "False" }.to_owned(),
            reason: Some(reason.to_owned()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(now.clone()),
            ..NodeCondition::default()
        };
        let conditions = vec![
            condition("Ready", true, "KubeletReady"),
            condition("MemoryPressure", false, "KubeletHasSufficientMemory"),
            condition("DiskPressure", false, "KubeletHasNoDiskPressure"),
            condition("PIDPressure", false, "KubeletHasSufficientPID"),
        ];
        let info = NodeSystemInfo {
            architecture: "amd64".to_owned(),
            operating_system: "linux".to_owned(),
            kubelet_version: format!("v{}", crate::KUBERNETES_VERSION),
            ..NodeSystemInfo::default()
        };
        NodeStatus {
            capacity: Some(resources.clone()),
            allocatable: Some(resources),
            conditions: Some(conditions),
            node_info: Some(info),
            ..NodeStatus::default()
        }
    }
}

/// Creates the nodes of `shape` and returns them in the order of their numbers.
///
/// # Errors
/// When the API server refuses one, for instance because it exists.
pub async fn create(client: &Client, shape: &NodeShape) -> Result<Vec<Node>, Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let one = |number| {
        let (nodes, node) = (nodes.clone(), shape.node(number));
        async move { nodes.create(&PostParams::default(), &node).await.doing(|| format!("could not create node {}-{number}", shape.prefix)) }
    };
    stream::iter(0..shape.count).map(one).buffered(AT_ONCE).try_collect().await
}
