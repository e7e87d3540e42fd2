//! Nodes, namespaces and disruption budgets.

use k8s_openapi::{
    api::{
        core::v1::{Namespace as TypedNamespace, Node as TypedNode, Taint},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde::{Deserialize, de::IgnoredAny};

use super::{Amounts, Kind, Lean};

/// A node.
pub type Node = Lean<NodeKind>;
/// A namespace, of which only the labels matter.
pub type Namespace = Lean<NamespaceKind>;
/// A disruption budget.
pub type Budget = Lean<BudgetKind>;

/// Which fields of a node are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeKind;

impl Kind for NodeKind {
    type Typed = TypedNode;
    type Spec = NodeInfo;
    type Status = NodeStatus;
}

/// What is known of a node's `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeInfo {
    /// Whether it was cordoned.
    pub unschedulable: bool,
    /// Why pods should stay away.
    pub taints: Vec<Taint>,
}

/// What is known of a node's `status`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// What pods may use.
    pub allocatable: Amounts,
}

/// Which fields of a namespace are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceKind;

impl Kind for NamespaceKind {
    type Typed = TypedNamespace;
    type Spec = Nothing;
    type Status = Nothing;
}

/// Nothing is known of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "IgnoredAny")]
pub struct Nothing;

impl From<IgnoredAny> for Nothing {
    fn from(_: IgnoredAny) -> Self {
        Self
    }
}

/// Which fields of a disruption budget are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BudgetKind;

impl Kind for BudgetKind {
    type Typed = PodDisruptionBudget;
    type Spec = BudgetSpec;
    type Status = BudgetStatus;
}

/// What is known of a budget's `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BudgetSpec {
    /// Its pods: none if it is missing, all of the namespace if it is empty.
    pub selector: Option<LabelSelector>,
}

/// What is known of a budget's `status`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BudgetStatus {
    /// How many of its pods may be stopped now.
    pub disruptions_allowed: i64,
    /// Which version of the budget that number is about.
    pub observed_generation: i64,
}
