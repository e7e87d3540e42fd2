//! Policies: their bytes, their revisions, and which namespaces use them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Conditions;

/// The bytes of a policy, which never change.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "partita.dev",
    version = "v1alpha1",
    kind = "PolicyModule",
    status = "PolicyModuleStatus",
    derive = "PartialEq",
    shortname = "pmod",
    category = "partita",
    doc = "The bytes of a WebAssembly component that is a policy.",
    printcolumn(name = "Policy", type_ = "string", json_path = ".status.name"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Size", type_ = "integer", json_path = ".spec.size"),
    printcolumn(name = "Stage", type_ = "string", json_path = ".status.stage"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self == oldSelf", "a module never changes; create one of another name"))]
pub struct PolicyModuleSpec {
    /// SHA-256 of the component, in hexadecimal.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// Its size, bytes.
    #[schemars(range(min = 8, max = 16_777_216))]
    pub size: u32,
    /// Where the bytes are.
    pub source: ModuleSource,
    /// A signature over the component, base64, where the cluster demands one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub signature: Option<String>,
}

/// Where the bytes of a module are: one of the three.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.inline), has(self.parts), has(self.oci)].filter(present, present).size() == 1",
    "give the bytes in one way: inline, in parts, or by an OCI reference"
))]
pub struct ModuleSource {
    /// Here, base64. An object of the API server can hold about a MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_048_576))]
    pub inline: Option<String>,
    /// In `ConfigMaps` of the scheduler's namespace, one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub parts: Option<Vec<ModulePart>>,
    /// In a registry: a reference with a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9][a-zA-Z0-9._:/-]{0,400}@sha256:[0-9a-f]{64}$"))]
    pub oci: Option<String>,
}

/// A part of a module's bytes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModulePart {
    /// The `ConfigMap` that has it, under the key `wasm` of `binaryData`.
    #[schemars(length(min = 1, max = 253))]
    pub config_map: String,
    /// SHA-256 of the part, in hexadecimal.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: String,
}

/// How far a module or revision is on its way to being used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Stage {
    /// Nothing was done yet.
    #[default]
    Pending,
    /// Its bytes are there and are what they should be.
    Fetched,
    /// The static checks passed.
    Checked,
    /// It was compiled.
    Compiled,
    /// An instance was made, and accepted its settings.
    Instantiated,
    /// It answered the scenarios and the recorded decisions.
    Rehearsed,
    /// It can be used.
    Ready,
    /// A stage failed; a condition says which, and why.
    Failed,
}

/// What became of a module.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyModuleStatus {
    /// How far it is.
    #[serde(default)]
    pub stage: Stage,
    /// What it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What kind of policy it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<PolicyKind>,
    /// The JSON Schema of its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_schema: Option<String>,
    /// Which stage passed or failed, and why.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,
}

/// What a policy decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PolicyKind {
    /// Where pods go and how GPUs are cut.
    #[default]
    Partitioner,
    /// Who may borrow and who gives back.
    Quota,
}

/// A revision of a policy: module, settings and limits.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "partita.dev",
    version = "v1alpha1",
    kind = "Policy",
    status = "PolicyStatus",
    derive = "PartialEq",
    shortname = "ppol",
    category = "partita",
    doc = "A policy as namespaces select it: a module with its settings and limits.",
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Stage", type_ = "string", json_path = ".status.stage"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = ("self.spec.onFailure.fallback != self.metadata.name", "a policy cannot be its own fallback; name another")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.kind == oldSelf.kind", "the kind of a policy never changes; create another"),
    validation = ("self.mode == 'Canary' ? has(self.canary) : !has(self.canary)", "canary goes with mode Canary, and with no other")
)]
pub struct PolicySpec {
    /// What it decides.
    pub kind: PolicyKind,
    /// Its module.
    pub module: ModuleRef,
    /// Its settings, which the module checks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub settings: BTreeMap<String, Value>,
    /// How much it may use; absent limits are the cluster's.
    #[serde(default)]
    pub limits: Limits,
    /// What happens when it fails.
    #[serde(default)]
    pub on_failure: FailureSpec,
    /// Whether its answers count.
    #[serde(default)]
    pub mode: Mode,
    /// For whom they count in mode `Canary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// An object of which the API server keeps everything.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Which module: one of the cluster's, or one that partita brings.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.name) != has(self.bundled)", "name a PolicyModule or a bundled policy, and not both"))]
pub struct ModuleRef {
    /// Name of a `PolicyModule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Name of a bundled policy, such as `fragmentation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub bundled: Option<String>,
}

/// How much a policy may use. A limit above the cluster's counts as the cluster's.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Fuel of one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_000))]
    pub fuel: Option<i64>,
    /// Memory, MiB.
    #[serde(default, rename = "memoryMiB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub memory_mib: Option<u32>,
    /// Size of an answer, KiB.
    #[serde(default, rename = "replyKiB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_536))]
    pub reply_kib: Option<u32>,
}

/// What happens when a policy fails or declines.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureSpec {
    /// The policy that answers instead; the cluster's default if there is none.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub fallback: String,
}

/// Whether a policy's answers count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Mode {
    /// They do.
    #[default]
    Enforce,
    /// They are compared with those that count, and recorded.
    Shadow,
    /// They do for some.
    Canary,
}

/// For whom the answers of a policy in mode `Canary` count.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.percent) || self.namespaces.size() > 0", "say for whom it counts: a percentage, or namespaces"))]
pub struct Canary {
    /// For so many of a hundred decisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<u32>,
    /// For the pods of these namespaces.
    #[serde(default)]
    #[schemars(length(max = 1024), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
}

/// What became of a revision.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// How far it is.
    #[serde(default)]
    pub stage: Stage,
    /// The version of the object that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The revision in use: a hash of module, settings and limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Decisions that its fallback made, by cause.
    #[serde(default)]
    pub fallbacks: BTreeMap<String, i64>,
    /// Which stage passed or failed, whether its breaker is open, and why.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,
}

/// Which policies some namespaces use.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "partita.dev",
    version = "v1alpha1",
    kind = "PolicySelection",
    status = "PolicySelectionStatus",
    derive = "PartialEq",
    shortname = "psel",
    category = "partita",
    doc = "Which policies decide for the pods of some namespaces. The labels partita.dev/partitioner and partita.dev/quota-policy of a namespace come before it.",
    printcolumn(name = "Partitioner", type_ = "string", json_path = ".spec.partitioner"),
    printcolumn(name = "Quota", type_ = "string", json_path = ".spec.quota"),
    printcolumn(name = "Order", type_ = "integer", json_path = ".spec.order"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.partitioner) || has(self.quota)", "name a policy: partitioner, quota or both"))]
pub struct PolicySelectionSpec {
    /// The namespaces; an empty selector means all.
    pub namespace_selector: LabelSelector,
    /// The policy that places their pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub partitioner: Option<String>,
    /// The policy that decides on their borrowing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub quota: Option<String>,
    /// Lower limits than those of the policies.
    #[serde(default)]
    pub limits: Limits,
    /// Of several selections that mean a namespace the one of the lowest order counts, and of those the first by name.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub order: i32,
}

/// What became of a selection.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySelectionStatus {
    /// The version of the object that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many namespaces it decides for.
    #[serde(default)]
    pub namespaces: i64,
    /// Whether its policies are there and ready.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,
}
