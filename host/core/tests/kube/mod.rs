//! Kubernetes' filters as they are defined, in plain loops over all nodes and all pods: what the core's answers are compared with.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod draw;

use std::collections::{BTreeMap, BTreeSet};

use partita_core::model::{
    Constraints, Demand, GpuAsk, NodeId, NodeSpec, PodId, PodSpec,
    constraints::{Effect, NodeTerm, Operator, PodSelector, PodTerm, Requirement, Spread, Taint, Toleration, TolerationOperator},
};

type Labels = BTreeMap<String, String>;

/// A pod somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    /// It was told to stop.
    pub(crate) terminating: bool,
}

/// What the outside knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kube {
    pub(crate) nodes: BTreeMap<NodeId, NodeSpec>,
    pub(crate) pods: BTreeMap<PodId, PodSpec>,
    /// Where each pod is: one that moves is at two places.
    pub(crate) places: BTreeMap<PodId, Vec<Place>>,
    pub(crate) namespaces: BTreeMap<String, Labels>,
}

fn label_holds(requirement: &Requirement, value: Option<&String>) -> bool {
    let number = |text: &String| text.parse::<i64>().ok();
    let among = |value: &String| requirement.values.contains(value);
    match requirement.operator {
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
        Operator::In => value.is_some_and(among),
        Operator::NotIn => !value.is_some_and(among),
        Operator::Gt => value.and_then(number) > requirement.values.first().and_then(number),
        Operator::Lt => value.and_then(number).is_some_and(|value| Some(value) < requirement.values.first().and_then(number)),
    }
}

fn labels_hold(requirements: &[Requirement], labels: &Labels) -> bool {
    requirements.iter().all(|one| label_holds(one, labels.get(&one.key)))
}

fn term_holds(term: &NodeTerm, node: &NodeSpec) -> bool {
    let empty = term.labels.is_empty() && term.fields.is_empty();
    let readable = term.labels.iter().all(|one| match one.operator {
        Operator::In | Operator::NotIn => !one.values.is_empty(),
        Operator::Exists | Operator::DoesNotExist => one.values.is_empty(),
        Operator::Gt | Operator::Lt => one.values.len() == 1 && one.values[0].parse::<i64>().is_ok(),
    });
    !empty
        && readable
        && labels_hold(&term.labels, &node.labels)
        && term.fields.iter().all(|field| (field.values == [node.name.clone()]) == (field.operator == Operator::In))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let number = |text: &str| text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    let compared =
        |ok: fn(i64, i64) -> bool| number(&taint.value).zip(number(&toleration.value)).is_some_and(|(taint, bound)| ok(taint, bound));
    toleration.effect.is_none_or(|effect| effect == taint.effect)
        && toleration.key.as_ref().is_none_or(|key| key.is_empty() || *key == taint.key)
        && match toleration.operator {
            TolerationOperator::Exists => true,
            TolerationOperator::Equal => toleration.value == taint.value,
            TolerationOperator::Gt => compared(|taint, bound| taint > bound),
            TolerationOperator::Lt => compared(|taint, bound| taint < bound),
        }
}

fn bears(pod: &Constraints, taints: &[Taint]) -> bool {
    let hard = |taint: &&Taint| taint.effect != Effect::PreferNoSchedule;
    taints.iter().filter(hard).all(|taint| pod.tolerations.iter().any(|one| tolerates(one, taint)))
}

fn node_affinity(pod: &Constraints, node: &NodeSpec) -> bool {
    pod.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && pod.nodes.iter().all(|group| group.iter().any(|term| term_holds(term, node)))
}

/// What of one node alone keeps a pod away.
fn static_filters(pod: &Constraints, node: &NodeSpec) -> bool {
    let cordon = Taint { key: "node.kubernetes.io/unschedulable".into(), value: String::new(), effect: Effect::NoSchedule };
    node_affinity(pod, node)
        && pod.volumes.iter().all(|group| group.iter().any(|term| term_holds(term, node)))
        && bears(pod, &node.taints)
        && (!node.unschedulable || bears(pod, &[cordon]))
}

impl Kube {
    /// Pods on nodes that are there, each place for itself.
    fn running(&self) -> impl Iterator<Item = (&PodSpec, NodeId, bool)> {
        self.places.iter().flat_map(|(pod, places)| {
            let there = places.iter().filter(|place| self.nodes.contains_key(&place.node));
            there.map(|place| (&self.pods[pod], place.node, place.terminating))
        })
    }

    fn selects(&self, selector: &PodSelector, pod: &PodSpec) -> bool {
        let by_labels = selector.namespace_labels.as_ref().is_some_and(|labels| {
            labels.is_empty() || self.namespaces.get(&pod.namespace).is_some_and(|namespace| labels_hold(labels, namespace))
        });
        (selector.namespaces.contains(&pod.namespace) || by_labels)
            && selector.labels.as_ref().is_some_and(|labels| labels_hold(labels, &pod.labels))
    }

    fn near(&self, topology: &str, one: NodeId, other: NodeId) -> bool {
        let value = |node| self.nodes[&node].labels.get(topology);
        value(one).is_some() && value(one) == value(other)
    }

    fn room(&self, pod: &Demand, id: NodeId) -> bool {
        let node = &self.nodes[&id];
        let here: Vec<&Demand> = self.running().filter(|one| one.1 == id).map(|one| &one.0.demand).collect();
        let cpu: u32 = here.iter().map(|one| one.cpu_milli).sum();
        let memory: u32 = here.iter().map(|one| one.memory_mib).sum();
        let gpus = |demand: &Demand| if let GpuAsk::Share { count, .. } = demand.gpu { count as usize } else { 0 };
        let used_gpus: usize = here.iter().map(|one| gpus(one)).sum();
        let extra = pod.extra.iter().all(|(name, amount)| {
            let all = node.extra.iter().find(|one| one.0 == *name).map_or(0, |one| one.1);
            let used: u64 = here.iter().flat_map(|one| &one.extra).filter(|one| one.0 == *name).map(|one| one.1).sum();
            used + amount <= all
        });
        let ports = |demand: &Demand| demand.constraints.as_ref().map_or(Vec::new(), |limits| limits.ports.clone());
        let taken: Vec<_> = here.iter().flat_map(|one| ports(one)).collect();
        let every = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        let free = ports(pod).iter().all(|port| {
            taken.iter().all(|other| {
                port.port != other.port || port.protocol != other.protocol || (port.ip != other.ip && !every(&port.ip) && !every(&other.ip))
            })
        });
        cpu + pod.cpu_milli <= node.cpu_milli
            && memory + pod.memory_mib <= node.memory_mib
            && used_gpus + gpus(pod) <= node.gpus.len()
            && extra
            && free
    }

    /// Required affinity, anti-affinity, and that of those who run.
    fn inter_pod_affinity(&self, pod: &PodSpec, limits: &Constraints, id: NodeId) -> bool {
        let none = Constraints::default();
        let of = |pod: &'_ PodSpec| -> Constraints { pod.demand.constraints.as_deref().unwrap_or(&none).clone() };
        let all = |other: &PodSpec| limits.together.iter().all(|term| self.selects(&term.pods, other));
        let labelled = limits.together.iter().all(|term| self.nodes[&id].labels.contains_key(&term.topology));
        let met = |term: &PodTerm| self.running().any(|(other, node, _)| all(other) && self.near(&term.topology, id, node));
        // Pods that match everything count only on nodes that have one of the labels.
        let somebody = self
            .running()
            .any(|(other, node, _)| all(other) && limits.together.iter().any(|term| self.nodes[&node].labels.contains_key(&term.topology)));
        let together = limits.together.is_empty() || (labelled && (limits.together.iter().all(met) || (!somebody && all(pod))));
        let hit = |term: &PodTerm, other: &PodSpec, node| self.selects(&term.pods, other) && self.near(&term.topology, id, node);
        let apart = limits.apart.iter().any(|term| self.running().any(|(other, node, _)| hit(term, other, node)));
        let existing = self.running().any(|(other, node, _)| {
            of(other).apart.iter().any(|term| self.selects(&term.pods, pod) && self.near(&term.topology, id, node))
        });
        together && !apart && !existing
    }

    fn topology_spread(&self, pod: &PodSpec, limits: &Constraints, id: NodeId) -> bool {
        let required: Vec<&Spread> = limits.spread.iter().filter(|one| one.required).collect();
        required.iter().all(|spread| {
            let Some(value) = self.nodes[&id].labels.get(&spread.topology) else { return false };
            let counted = |node: &NodeSpec| {
                required.iter().all(|one| node.labels.contains_key(&one.topology))
                    && (!spread.honor_affinity || node_affinity(limits, node))
                    && (!spread.honor_taints || bears(limits, &node.taints))
            };
            let everybody = spread.pods.labels.as_ref().is_some_and(Vec::is_empty);
            let mut domains: BTreeMap<&String, u32> = BTreeMap::new();
            for (other, node) in self.nodes.iter().filter(|(_, node)| counted(node)) {
                let pods = self.running().filter(|(one, at, terminating)| at == other && !terminating && self.selects(&spread.pods, one));
                *domains.entry(&node.labels[&spread.topology]).or_default() += if everybody { 0 } else { pods.count() as u32 };
            }
            let least = if (domains.len() as u32) < spread.min_domains { 0 } else { *domains.values().min().unwrap() };
            let own = u32::from(self.selects(&spread.pods, pod));
            i64::from(domains.get(value).copied().unwrap_or(0) + own) - i64::from(least) <= i64::from(spread.max_skew)
        })
    }

    /// Whether a pod may be put on a node now.
    pub(crate) fn fits(&self, pod: PodId, id: NodeId) -> bool {
        let pod = &self.pods[&pod];
        let limits = pod.demand.constraints.as_deref().cloned().unwrap_or_default();
        static_filters(&limits, &self.nodes[&id])
            && self.room(&pod.demand, id)
            && self.inter_pod_affinity(pod, &limits, id)
            && self.topology_spread(pod, &limits, id)
    }

    /// The nodes where a pod may be put now.
    pub(crate) fn feasible(&self, pod: PodId) -> BTreeSet<NodeId> {
        self.nodes.keys().copied().filter(|&node| self.fits(pod, node)).collect()
    }
}
