//! Quotas: how much of the cluster is promised to namespaces, and how much they may borrow.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{Conditions, amount::AmountList};

/// A quota of one namespace, the one it lies in.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "partita.dev",
    version = "v1alpha1",
    kind = "ElasticQuota",
    namespaced,
    status = "QuotaStatus",
    derive = "PartialEq",
    shortname = "eq",
    shortname = "eqs",
    category = "partita",
    doc = "What a namespace is promised and how far it may borrow what others leave idle.",
    printcolumn(name = "GPU min", type_ = "string", json_path = ".spec.min.nvidia\\.com/gpu"),
    printcolumn(name = "GPU used", type_ = "string", json_path = ".status.used.nvidia\\.com/gpu"),
    printcolumn(name = "Memory min", type_ = "string", json_path = ".spec.min.partita\\.dev/gpu-memory", description = "GPU memory, GB"),
    printcolumn(
        name = "Memory used",
        type_ = "string",
        json_path = ".status.used.partita\\.dev/gpu-memory",
        description = "GPU memory, GB"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.max) || !has(self.min) || self.max.all(r, !(r in self.min) || quantity(string(self.max[r])).compareTo(quantity(string(self.min[r]))) >= 0)",
    "max must be at least min for every resource that both name; raise max or lower min"
))]
pub struct ElasticQuotaSpec {
    /// What is guaranteed. A resource that is not named here is neither guaranteed nor limited.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32))]
    pub min: AmountList,
    /// What may be used at most, borrowed amounts included. A resource that is not named here has no ceiling.
    #[serde(default, skip_serializing_if = "AmountList::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub max: AmountList,
    /// The `CompositeElasticQuota` under which this one lies: what is idle among its children is borrowed before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub parent: Option<String>,
    /// Its weight where a policy shares by weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: Option<u32>,
}

/// A quota of several namespaces together.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "partita.dev",
    version = "v1alpha1",
    kind = "CompositeElasticQuota",
    status = "QuotaStatus",
    derive = "PartialEq",
    shortname = "ceq",
    shortname = "ceqs",
    category = "partita",
    doc = "What several namespaces together are promised and how far they may borrow what others leave idle.",
    printcolumn(name = "Namespaces", type_ = "string", json_path = ".spec.namespaces"),
    printcolumn(name = "GPU min", type_ = "string", json_path = ".spec.min.nvidia\\.com/gpu"),
    printcolumn(name = "GPU used", type_ = "string", json_path = ".status.used.nvidia\\.com/gpu"),
    printcolumn(name = "Memory min", type_ = "string", json_path = ".spec.min.partita\\.dev/gpu-memory", description = "GPU memory, GB"),
    printcolumn(name = "Memory used", type_ = "string", json_path = ".status.used.partita\\.dev/gpu-memory", description = "GPU memory, GB"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = ("!has(self.spec.parent) || self.spec.parent != self.metadata.name", "a quota cannot be its own parent; name another or none")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.max) || !has(self.min) || self.max.all(r, !(r in self.min) || quantity(string(self.max[r])).compareTo(quantity(string(self.min[r]))) >= 0)",
    "max must be at least min for every resource that both name; raise max or lower min"
))]
pub struct CompositeElasticQuotaSpec {
    /// Its namespaces; none for a quota that is only a parent of others.
    #[serde(default)]
    #[schemars(length(max = 1024), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
    /// What is guaranteed to them together. A resource that is not named here is neither guaranteed nor limited.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32))]
    pub min: AmountList,
    /// What they may use together at most, borrowed amounts included. A resource that is not named here has no ceiling.
    #[serde(default, skip_serializing_if = "AmountList::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub max: AmountList,
    /// The `CompositeElasticQuota` under which this one lies: what is idle among its children is borrowed before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub parent: Option<String>,
    /// Its weight where a policy shares by weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: Option<u32>,
}

/// How much of a quota is in use.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaStatus {
    /// What its pods use, of the resources in `min` and `max`.
    #[serde(default)]
    pub used: AmountList,
    /// What they use beyond `min`.
    #[serde(default)]
    pub borrowed: AmountList,
    /// What others use of its `min`.
    #[serde(default)]
    pub lent: AmountList,
    /// The version of the quota that these numbers are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and what is wrong with it if it is not.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,
}
