//! The handshake between scheduler and node agent: what a node's GPUs shall be, and what they are.
//!
//! The scheduler writes `spec`, the agent `status`; neither writes the other's. `spec` is the whole layout of every GPU that partita
//! manages on the node, so it can be applied twice, late or from the middle. An agent takes a `spec` only if (term, generation) is not
//! below what it has taken before, and reports what it took.

use std::borrow::Cow;

use kube::{CustomResource, KubeSchema};
use partita_core::model::{Cut, Grid};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Conditions;

/// The highest index of a GPU: a node has at most [`partita_core::model::node::GPUS_MAX`].
pub const INDEX_MAX: u8 = 63;

/// The highest term and generation, 2^53: beyond it numbers of JSON are not exact everywhere, and nobody counts that far.
pub const NUMBER_MAX: i64 = 1 << 53;

/// The longest name of an extended resource: a domain, a slash and a name.
const RESOURCE_MAX: usize = 253 + 1 + 63;

/// How the name of an extended resource is written.
const RESOURCE_NAME: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$";

/// What the scheduler wants of a node's GPUs.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "partita.dev",
    version = "v1alpha1",
    kind = "GpuNode",
    status = "GpuNodeStatus",
    derive = "PartialEq",
    shortname = "gn",
    category = "partita",
    doc = "The GPUs of the node of the same name: how the scheduler wants them cut, and how the node's agent found them.",
    printcolumn(name = "Plan", type_ = "string", json_path = ".spec.plan"),
    printcolumn(name = "Wanted", type_ = "integer", json_path = ".spec.generation"),
    printcolumn(name = "Done", type_ = "integer", json_path = ".status.observedGeneration"),
    printcolumn(name = "Driver", type_ = "string", json_path = ".status.driver"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.term >= oldSelf.term", "term must not decrease: a scheduler that is no longer the leader wrote this"),
    validation = ("self.generation >= oldSelf.generation", "generation must not decrease: this layout is older than the one there"),
    validation = ("self.gpus.all(g, self.gpus.exists_one(o, o.index == g.index))", "every GPU needs an index of its own"),
    validation = ("self.gpus.all(g, self.gpus.exists_one(o, o.uuid == g.uuid))", "every GPU needs a uuid of its own")
)]
pub struct GpuNodeSpec {
    /// The term of the leader that wrote this.
    #[serde(default)]
    #[schemars(range(min = 0, max = NUMBER_MAX))]
    pub term: i64,
    /// Grows with every change of the layout; chosen by the scheduler.
    #[serde(default)]
    #[schemars(range(min = 0, max = NUMBER_MAX))]
    pub generation: i64,
    /// The plan that this comes from, for people.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub plan: String,
    /// Every GPU that partita manages there. A GPU that is not named is left as it is. One list, written as a whole: an entry that somebody
    /// else added would otherwise stay, and every layout after it be refused.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub gpus: Vec<DesiredGpu>,
}

/// One GPU as it shall be.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.cut != 'mig' || self.partitions.all(p, has(p.profile) && has(p.start) && !has(p.memoryMiB) && !has(p.milli))",
        "a partition of a GPU that is cut by mig has profile and start, and nothing else"),
    validation = ("self.cut != 'mps' || self.partitions.all(p, has(p.memoryMiB) && !has(p.profile) && !has(p.start) && !has(p.milli))",
        "a partition of a GPU that is shared by mps has memoryMiB, and nothing else"),
    validation = ("self.cut != 'shares' || self.partitions.all(p, has(p.milli) && has(p.pod) && !has(p.profile) && !has(p.start) && !has(p.memoryMiB))",
        "a share of a GPU has milli and pod, and nothing else")
)]
pub struct DesiredGpu {
    /// Its UUID.
    #[schemars(length(min = 1, max = 96))]
    pub uuid: String,
    /// Its index on the node, as NVML counts.
    #[schemars(range(max = 63))]
    pub index: u8,
    /// How it is cut.
    #[schemars(with = "CutName")]
    pub cut: Cut,
    /// Its partitions: all that shall be, none besides. Shares are those that pods have; a GPU cut in shares without any is offered whole.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub partitions: Vec<DesiredPartition>,
}

/// A partition that shall be: MIG, MPS or a share, after the GPU's cut.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.resource) || has(self.pod)", "resource is the name by which pod asks, so without pod there is none"))]
pub struct DesiredPartition {
    /// MIG: the name of its profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 48))]
    pub profile: Option<String>,
    /// MIG: its first slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 15))]
    pub start: Option<u8>,
    /// MPS: its memory, MiB.
    #[serde(default, rename = "memoryMiB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub memory_mib: Option<u32>,
    /// Shares: thousandths of the GPU; 1000 is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub milli: Option<u32>,
    /// The pod that it is for; none for a warm partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// The resource by which that pod asks for it, as its spec spells it: under this name the kubelet must have it before the pod is bound. A
    /// warm partition stays under the name that it has, a new one gets the usual name of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = RESOURCE_MAX), regex(pattern = RESOURCE_NAME))]
    pub resource: Option<String>,
}

/// A pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRef {
    /// Namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// UID, which tells it from an earlier pod of the same name.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// What the node's agent found and did.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuNodeStatus {
    /// The term of the layout last taken.
    #[serde(default)]
    #[schemars(range(min = 0, max = NUMBER_MAX))]
    pub observed_term: i64,
    /// The generation of the layout last taken.
    #[serde(default)]
    #[schemars(range(min = 0, max = NUMBER_MAX))]
    pub observed_generation: i64,
    /// Version of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The boot that this is about: after another boot nothing made before exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Every GPU of the node. Indices are 0, 1, 2 and so on: a GPU that no longer answers stays in the list, unhealthy.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uuid".into()]))]
    pub gpus: Vec<FoundGpu>,
    /// `Ready`, and what is wrong with it if it is not.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,
}

/// One GPU as it is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundGpu {
    /// Its UUID.
    #[schemars(length(min = 1, max = 96))]
    pub uuid: String,
    /// Its index on the node, as NVML counts.
    #[schemars(range(max = 63))]
    pub index: u8,
    /// Its model, as NVML or partita names it.
    #[schemars(length(min = 1, max = 128))]
    pub model: String,
    /// Its memory, MiB.
    #[serde(default, rename = "memoryMiB")]
    #[schemars(range(max = 16_777_216))]
    pub memory_mib: u32,
    /// How it is cut.
    #[schemars(with = "CutName")]
    pub cut: Cut,
    /// Whether it can be used.
    pub healthy: bool,
    /// Why not, or what else there is to say.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Its partitions: all that exist. Of a GPU cut in shares those that the kubelet has, or is about to have: one for each pod's share, or
    /// the whole.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub partitions: Vec<FoundPartition>,
    /// Who uses it as a whole or in shares, beside the users of the shares named above: `namespace/name` of pods, `pid:NUMBER` of processes
    /// that are no pod's.
    #[serde(default)]
    #[schemars(length(max = 128), inner(length(max = 320)))]
    pub users: Vec<String>,
    /// What its driver says of its profiles; only for models that partita does not know by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "grid_schema")]
    pub grid: Option<Grid>,
}

/// A partition that exists.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundPartition {
    /// MIG: the name of its profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 48))]
    pub profile: Option<String>,
    /// MIG: its first slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 15))]
    pub start: Option<u8>,
    /// MPS: its memory, MiB.
    #[serde(default, rename = "memoryMiB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 16_777_216))]
    pub memory_mib: Option<u32>,
    /// Shares: thousandths of the GPU; 1000 is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub milli: Option<u32>,
    /// The resource under which the kubelet has it; none if the agent does not say, and then it counts as every one by which somebody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = RESOURCE_MAX), regex(pattern = RESOURCE_NAME))]
    pub resource: Option<String>,
    /// Its UUID, once it has one.
    #[serde(default)]
    #[schemars(length(max = 96))]
    pub uuid: String,
    /// How far it is.
    pub state: PartitionState,
    /// Why it is not further.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Who uses it: `namespace/name` of pods, `pid:NUMBER` of processes that are no pod's.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 320)))]
    pub users: Vec<String>,
}

/// How far a partition is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PartitionState {
    /// It exists, and the kubelet has it.
    #[default]
    Ready,
    /// It is being made.
    Creating,
    /// It is being destroyed.
    Destroying,
    /// It cannot be made or destroyed; the message says why.
    Failed,
}

/// The names of [`Cut`] in the API.
struct CutName;

impl JsonSchema for CutName {
    fn schema_name() -> Cow<'static, str> {
        "Cut".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": ["shares", "mig", "mps"]})
    }
}

/// The schema of [`Grid`], within the bounds that a grid must keep to be used.
fn grid_schema(_: &mut SchemaGenerator) -> Schema {
    let small = || json_schema!({"type": "integer", "minimum": 0, "maximum": 255});
    let engines = || {
        json_schema!({
            "type": "object",
            "properties": {"decoder": small(), "encoder": small(), "jpeg": small(), "ofa": small()},
        })
    };
    let name = || json_schema!({"type": "string", "minLength": 1, "maxLength": 48});
    json_schema!({
        "type": "object",
        "nullable": true,
        "required": ["slots", "compute", "profiles"],
        "properties": {
            "slots": {"type": "integer", "minimum": 1, "maximum": Grid::SLOTS_MAX},
            "compute": small(),
            "engines": engines(),
            "profiles": {
                "type": "array",
                "maxItems": Grid::PROFILES_MAX,
                "items": {
                    "type": "object",
                    "required": ["name", "compute", "size", "memory_mib", "starts", "max"],
                    "properties": {
                        "name": name(),
                        "compute": small(),
                        "size": {"type": "integer", "minimum": 1, "maximum": Grid::SLOTS_MAX},
                        "memory_mib": {"type": "integer", "minimum": 0, "maximum": 16_777_216},
                        "starts": {"type": "array", "maxItems": 16, "items": {"type": "integer", "minimum": 0, "maximum": 15}},
                        "max": small(),
                        "aliases": {"type": "array", "maxItems": 16, "items": name()},
                        "engines": engines(),
                    },
                },
            },
        },
    })
}
