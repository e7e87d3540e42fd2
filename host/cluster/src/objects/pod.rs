//! Pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, Pod as Typed, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde::{Deserialize, de::IgnoredAny};

use super::{Amounts, Kind, Lean};

/// A pod.
pub type Pod = Lean<PodKind>;

/// Which fields of a pod are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodKind;

impl Kind for PodKind {
    type Typed = Typed;
    type Spec = PodInfo;
    type Status = PodStatus;
}

/// What is known of a pod's `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the API's own words")]
pub struct PodInfo {
    pub node_name: String,
    pub scheduler_name: String,
    pub priority: Option<i32>,
    pub preemption_policy: Option<String>,
    pub host_network: bool,
    pub node_selector: BTreeMap<String, String>,
    pub affinity: Option<Box<Affinity>>,
    pub tolerations: Vec<Toleration>,
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub overhead: Amounts,
    /// Amounts for the pod as a whole.
    pub resources: Resources,
    pub volumes: Vec<Volume>,
    pub scheduling_gates: Vec<Named>,
    pub resource_claims: Vec<Named>,
    /// The group with which it wants to be scheduled.
    pub scheduling_group: Option<IgnoredAny>,
    /// The same in Kubernetes 1.35.
    pub workload_ref: Option<IgnoredAny>,
}

/// Something of which only the name is known.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Named {
    /// Its name.
    pub name: String,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the API's own words")]
pub struct Container {
    pub name: String,
    pub resources: Resources,
    pub ports: Vec<Port>,
    pub restart_policy: Option<String>,
}

impl Container {
    /// Whether it is an init container that runs as long as the pod does.
    #[must_use]
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

/// Amounts that a container or pod asks for. The API server fills in requests where only limits were written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// By name of the resource, as written.
    pub requests: Amounts,
}

/// A port of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the API's own words")]
pub struct Port {
    pub container_port: i64,
    pub host_port: i64,
    #[serde(rename = "hostIP")]
    pub host_ip: String,
    pub protocol: String,
}

/// A volume, as far as it constrains where the pod may run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the API's own words")]
pub struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<ClaimName>,
    pub ephemeral: Option<IgnoredAny>,
    pub aws_elastic_block_store: Option<IgnoredAny>,
    pub azure_disk: Option<IgnoredAny>,
    pub cinder: Option<IgnoredAny>,
    pub gce_persistent_disk: Option<IgnoredAny>,
    pub iscsi: Option<IgnoredAny>,
    pub rbd: Option<IgnoredAny>,
    pub vsphere_volume: Option<IgnoredAny>,
}

/// Which claim a volume is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimName {
    /// Name of the claim, in the pod's namespace.
    pub claim_name: String,
}

/// What is known of a pod's `status`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the API's own words")]
pub struct PodStatus {
    pub phase: String,
    pub nominated_node_name: String,
    /// When its node took it up.
    pub start_time: Option<Time>,
    pub conditions: Vec<Condition>,
    pub container_statuses: Vec<ContainerStatus>,
    pub init_container_statuses: Vec<ContainerStatus>,
    /// What the node set apart for the pod as a whole.
    pub allocated_resources: Option<Amounts>,
    /// What the pod as a whole runs with.
    pub resources: Option<Running>,
}

impl PodStatus {
    /// Whether the pod ended, so that it uses nothing.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// The condition of a type.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the API's own words")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_transition_time: Option<String>,
}

/// What a pod as a whole runs with.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Running {
    /// By name of the resource; none if nothing is said of it.
    pub requests: Option<Amounts>,
}

/// What a running container has, which during a resize is not what its pod asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// What the node set apart for it.
    pub allocated_resources: Amounts,
    /// What it runs with.
    pub resources: Option<Resources>,
}
