//! Where a pod may run, beside the amounts that it asks for: what Kubernetes calls selectors, affinity, taints, ports and spreading.
//!
//! The words and their meaning are those of the Kubernetes API (`core/v1`, Pod and Node), so that a pod means here what it means to
//! kube-scheduler. Everything is plain data; what is hard about it, who matches whom, is looked up once and kept in [`crate::state`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// Everything about a pod, beside amounts, that decides on which nodes it may run. An empty one constrains nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Constraints {
    /// Labels that the node must have: key and value, sorted.
    pub selector: Vec<(String, String)>,
    /// Groups of terms. Every group must hold, and a group holds if one of its terms does. Required node affinity is one group.
    pub nodes: Vec<Vec<NodeTerm>>,
    /// Groups of terms as in `nodes`, one for each volume: from where it can be reached. Spreading does not look at them.
    pub volumes: Vec<Vec<NodeTerm>>,
    /// Terms that the node should meet, with their weights, 1 to 100.
    pub preferred_nodes: Vec<(i32, NodeTerm)>,
    /// Taints that the pod bears.
    pub tolerations: Vec<Toleration>,
    /// Ports of the node that the pod takes.
    pub ports: Vec<HostPort>,
    /// Pods next to which it must run.
    pub together: Vec<PodTerm>,
    /// Pods next to which it must not run, nor they next to it.
    pub apart: Vec<PodTerm>,
    /// Pods next to which it should run (weight 1 to 100) or should not (-100 to -1).
    pub preferred_pods: Vec<(i32, PodTerm)>,
    /// How evenly it is spread with others.
    pub spread: Vec<Spread>,
}

/// A condition on a node: all requirements must hold. Without any it matches no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeTerm {
    /// On the node's labels.
    pub labels: Vec<Requirement>,
    /// On the node's fields, of which there is one: `metadata.name`.
    pub fields: Vec<Requirement>,
}

/// A condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How its value is compared. Conditions on pods and namespaces use the first four.
    pub operator: Operator,
    /// With what. One decimal number for `Gt` and `Lt`, none for `Exists` and `DoesNotExist`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// How a label is compared. Of a label that is not there, `NotIn` and `DoesNotExist` hold and the others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the API's own words")]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

/// Pods of some namespaces with some labels. Nothing is implied: who reads a pod from Kubernetes names its own namespace where the API means
/// it. A selector with a condition that no label can meet matches nobody; Kubernetes would not schedule its pod at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PodSelector {
    /// Conditions on the pod's labels, all of which must hold; none at all matches no pod, an empty list every pod.
    pub labels: Option<Vec<Requirement>>,
    /// Names of namespaces, sorted.
    pub namespaces: Vec<String>,
    /// Namespaces whose labels meet all of these belong to it too, of those told of; an empty list means every namespace.
    pub namespace_labels: Option<Vec<Requirement>>,
}

/// Pods, and how near is next to them: on nodes that have the same value of a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodTerm {
    /// The label of nodes that says what is near.
    pub topology: String,
    /// Which pods.
    pub pods: PodSelector,
}

/// How evenly pods are spread over the values of a label of nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Spread {
    /// By how many pods the fullest value may exceed the emptiest, at least 1.
    pub max_skew: u32,
    /// The label of nodes.
    pub topology: String,
    /// Whether the pod must not run where the skew would grow too large; else it should not.
    pub required: bool,
    /// Which pods are counted: of the pod's own namespace, and nobody if there is no condition on their labels, as in Kubernetes.
    pub pods: PodSelector,
    /// With fewer values than this among the nodes that count, the emptiest counts as 0.
    pub min_domains: u32,
    /// Whether only nodes count that the pod's selector and node affinity allow.
    pub honor_affinity: bool,
    /// Whether only nodes count whose taints the pod bears.
    pub honor_taints: bool,
}

/// What a taint does to pods that do not bear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the API's own words")]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// Why pods should stay away from a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, which may be empty.
    #[serde(default)]
    pub value: String,
    /// What it does.
    pub effect: Effect,
}

/// As Kubernetes writes it: `key=value:NoSchedule`.
impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equals = if self.value.is_empty() { "" } else { "=" };
        write!(f, "{}{equals}{}:{:?}", self.key, self.value, self.effect)
    }
}

/// Which taints a pod bears.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Toleration {
    /// The taint's key; none for every key.
    pub key: Option<String>,
    /// How the taint's value is compared; by default it must be equal.
    pub operator: TolerationOperator,
    /// The taint's value; of no meaning for [`TolerationOperator::Exists`].
    pub value: String,
    /// The taint's effect; none for every effect.
    pub effect: Option<Effect>,
}

/// How a toleration compares a taint's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TolerationOperator {
    /// The values are equal.
    #[default]
    Equal,
    /// Any value will do.
    Exists,
    /// The taint's value is a whole number that is larger than the toleration's. In Kubernetes 1.37 behind the feature gate
    /// `TaintTolerationComparisonOperators`.
    Gt,
    /// The taint's value is a whole number that is smaller than the toleration's; behind the same gate.
    Lt,
}

/// Protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the API's own words")]
pub enum Protocol {
    #[default]
    TCP,
    UDP,
    SCTP,
}

/// A port of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPort {
    /// The address on which it listens; `0.0.0.0` for all.
    pub ip: String,
    /// Protocol.
    pub protocol: Protocol,
    /// 1 to 65535.
    pub port: u16,
}

impl Constraints {
    /// Whether it constrains nothing, so that taints alone decide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
