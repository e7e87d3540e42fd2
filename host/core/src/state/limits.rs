//! What of a demand's constraints concerns one node alone, looked up once: labels, taints, ports and amounts of other resources.
//!
//! The rules are those of kube-scheduler's filters `NodeAffinity`, `TaintToleration`, `NodeUnschedulable`, `NodePorts` and
//! `NodeResourcesFit` (Kubernetes 1.37).

use super::{
    names::{EMPTY, Names},
    requirement::Test,
};
use crate::model::{
    Constraints, Demand, NodeSpec,
    constraints::{Effect, HostPort, NodeTerm, Operator, Protocol, Requirement, Taint, Toleration, TolerationOperator},
};

/// The one field of a node on which there are conditions.
const NODE_NAME: &str = "metadata.name";
/// What a cordoned node has, whether somebody wrote it down or not.
const CORDON: &str = "node.kubernetes.io/unschedulable";
/// How every address is written.
const EVERY_ADDRESS: &str = "0.0.0.0";
/// What a taint that asks pods to stay away weighs: as much as the heaviest preference can.
const SHUNNED: i64 = 100;

/// What demands look at of a node: its labels and taints, by numbers of words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Key and value, sorted; the node's name is under [`EMPTY`].
    labels: Vec<(u32, u32)>,
    /// As in [`NodeSpec::taints`], in that order.
    taints: Vec<Mark>,
    /// The taint that it has because it is cordoned.
    cordon: Option<Mark>,
    /// Whether a pod that bears nothing may not come.
    pub(crate) bars: bool,
    /// Whether there is a reason not to prefer it.
    pub(super) shuns: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    key: u32,
    value: u32,
    /// The number that the value writes in the one canonical way.
    number: Option<i64>,
    effect: Effect,
}

impl Marks {
    pub(super) fn of(spec: &NodeSpec, names: &mut Names) -> Self {
        let mut labels: Vec<(u32, u32)> = spec.labels.iter().map(|(key, value)| (names.id(key), names.id(value))).collect();
        labels.push((EMPTY, names.id(&spec.name)));
        labels.sort_unstable();
        let mut mark = |taint: &Taint| Mark {
            key: names.id(&taint.key),
            value: names.id(&taint.value),
            number: canonical(&taint.value),
            effect: taint.effect,
        };
        let taints: Vec<Mark> = spec.taints.iter().map(&mut mark).collect();
        let cordon = Taint { key: CORDON.into(), value: String::new(), effect: Effect::NoSchedule };
        let cordon = spec.unschedulable.then(|| mark(&cordon));
        let shuns = |mark: &Mark| mark.effect == Effect::PreferNoSchedule;
        Self { labels, bars: cordon.is_some() || !taints.iter().all(shuns), shuns: taints.iter().any(shuns), taints, cordon }
    }

    /// The value of a label.
    pub(super) fn label(&self, key: u32) -> Option<u32> {
        self.labels.binary_search_by_key(&key, |label| label.0).ok().map(|row| self.labels[row].1)
    }
}

/// A whole number as Kubernetes wants it in taints: without plus, leading zeros or minus zero.
fn canonical(value: &str) -> Option<i64> {
    value.parse().ok().filter(|number: &i64| number.to_string() == value)
}

/// A port of a node that is taken or asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    ip: u32,
    protocol: Protocol,
    number: u16,
}

impl Port {
    fn of(port: &HostPort, names: &mut Names) -> Option<Self> {
        let ip = if port.ip == EVERY_ADDRESS { EMPTY } else { names.id(&port.ip) };
        (port.port > 0).then_some(Self { ip, protocol: port.protocol, number: port.port })
    }

    /// Whether not both can listen: on one address, or one of them on all.
    pub(crate) fn conflicts(self, other: Self) -> bool {
        self.number == other.number && self.protocol == other.protocol && (self.ip == other.ip || self.ip == EMPTY || other.ip == EMPTY)
    }
}

/// Conditions on one label each, by the number of its key. All must hold.
type Term = Vec<(u32, Test<u32>)>;

/// Why a node will not do, whatever is free on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// Selector or affinity do not match.
    Selector,
    /// A volume cannot be reached from there.
    Volume,
    /// It is cordoned.
    Cordon,
    /// The taint in this row of [`NodeSpec::taints`] is not borne.
    Taint(usize),
}

/// What of a demand's constraints concerns one node alone.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    equal: Vec<(u32, u32)>,
    nodes: Vec<Vec<Term>>,
    volumes: Vec<Vec<Term>>,
    preferred: Vec<(i64, Term)>,
    bears: Vec<Bears>,
    /// Ports that it takes.
    pub(crate) ports: Vec<Port>,
    /// Amounts of other resources, by the number of their name, sorted, each once.
    pub(crate) extra: Vec<(u32, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Bears {
    key: Option<u32>,
    effect: Option<Effect>,
    value: BornValue,
}

#[derive(Clone, Copy, Debug)]
enum BornValue {
    Any,
    Equal(u32),
    Above(i64),
    Below(i64),
    None,
}

impl Limits {
    /// Those of a demand that has none: it bears nothing.
    pub(super) const NONE: Self = Self {
        equal: Vec::new(),
        nodes: Vec::new(),
        volumes: Vec::new(),
        preferred: Vec::new(),
        bears: Vec::new(),
        ports: Vec::new(),
        extra: Vec::new(),
    };

    /// None if the demand asks for nothing that lies here.
    pub(super) fn of(demand: &Demand, names: &mut Names) -> Option<Box<Self>> {
        let none = Constraints::default();
        let limits = demand.constraints.as_deref().unwrap_or(&none);
        if limits.is_empty() && demand.extra.is_empty() {
            return None;
        }
        let mut groups = |groups: &[Vec<NodeTerm>]| -> Vec<Vec<Term>> {
            groups.iter().map(|group| group.iter().filter_map(|one| term(one, names)).collect()).collect()
        };
        let (nodes, volumes) = (groups(&limits.nodes), groups(&limits.volumes));
        Some(Box::new(Self {
            nodes,
            volumes,
            equal: limits.selector.iter().map(|(key, value)| (names.id(key), names.id(value))).collect(),
            preferred: limits.preferred_nodes.iter().filter_map(|(weight, one)| Some((i64::from(*weight), term(one, names)?))).collect(),
            bears: limits.tolerations.iter().map(|one| Bears::of(one, names)).collect(),
            ports: limits.ports.iter().filter_map(|port| Port::of(port, names)).collect(),
            extra: amounts(&demand.extra, names),
        }))
    }

    /// Whether the pod's selector and affinity match the node.
    pub(crate) fn attracts(&self, marks: &Marks, names: &Names) -> bool {
        self.equal.iter().all(|&(key, value)| marks.label(key) == Some(value)) && one_of_each(&self.nodes, marks, names)
    }

    /// Whether the pod bears every taint of the node that keeps pods away.
    pub(crate) fn bears(&self, marks: &Marks) -> bool {
        !marks.bars || self.refused(marks).is_none()
    }

    /// The row of the first taint that is not borne.
    fn refused(&self, marks: &Marks) -> Option<usize> {
        marks.taints.iter().position(|&mark| mark.effect != Effect::PreferNoSchedule && !self.bears_one(mark))
    }

    fn bears_one(&self, mark: Mark) -> bool {
        self.bears.iter().any(|one| one.bears(mark))
    }

    /// Whether a pod may run on the node as far as labels and taints decide.
    pub(crate) fn admit(&self, marks: &Marks, names: &Names) -> bool {
        self.bears(marks)
            && marks.cordon.is_none_or(|mark| self.bears_one(mark))
            && self.attracts(marks, names)
            && one_of_each(&self.volumes, marks, names)
    }

    /// What first keeps a pod from the node.
    pub(crate) fn barrier(&self, marks: &Marks, names: &Names) -> Option<Barrier> {
        if !self.attracts(marks, names) {
            return Some(Barrier::Selector);
        }
        if !one_of_each(&self.volumes, marks, names) {
            return Some(Barrier::Volume);
        }
        if marks.cordon.is_some_and(|mark| !self.bears_one(mark)) {
            return Some(Barrier::Cordon);
        }
        self.refused(marks).map(Barrier::Taint)
    }

    /// How much it asks for of another resource.
    pub(crate) fn amount(&self, resource: u32) -> u64 {
        self.extra.binary_search_by_key(&resource, |one| one.0).map_or(0, |row| self.extra[row].1)
    }

    /// How much the pod prefers the node: the weights of the preferences that it meets, less what its taints weigh that ask pods to stay away.
    pub(crate) fn preference(&self, marks: &Marks, names: &Names) -> i64 {
        let met = self.preferred.iter().filter(|(_, term)| meets(term, marks, names)).map(|(weight, _)| *weight).sum::<i64>();
        let shunned = |&&mark: &&Mark| mark.effect == Effect::PreferNoSchedule && !self.bears_one(mark);
        met - marks.taints.iter().filter(shunned).map(|_| SHUNNED).sum::<i64>()
    }
}

/// Amounts by the number of the resource's name, sorted, each once.
pub(super) fn amounts(list: &[(String, u64)], names: &mut Names) -> Vec<(u32, u64)> {
    let mut amounts: Vec<(u32, u64)> = list.iter().map(|(name, amount)| (names.id(name), *amount)).collect();
    amounts.sort_unstable();
    amounts.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = kept.1.saturating_add(next.1);
        }
        same
    });
    amounts
}

fn one_of_each(groups: &[Vec<Term>], marks: &Marks, names: &Names) -> bool {
    groups.iter().all(|group| group.iter().any(|term| meets(term, marks, names)))
}

fn meets(term: &Term, marks: &Marks, names: &Names) -> bool {
    term.iter().all(|(key, test)| test.holds(marks.label(*key).as_ref(), |&value| names.number(value)))
}

/// None for a term that no node meets: one without any requirement, or with one that Kubernetes cannot read.
fn term(term: &NodeTerm, names: &mut Names) -> Option<Term> {
    if term.labels.is_empty() && term.fields.is_empty() {
        return None;
    }
    let labels = term.labels.iter().map(|one| Some((names.id(&one.key), Test::of(one, |value| names.id(value))?)));
    let mut requirements = labels.collect::<Option<Term>>()?;
    for field in &term.fields {
        requirements.push((EMPTY, name_test(field, names)?));
    }
    Some(requirements)
}

/// A condition on the node's name: that it is one, or is not one.
fn name_test(field: &Requirement, names: &mut Names) -> Option<Test<u32>> {
    let ([name], NODE_NAME) = (field.values.as_slice(), field.key.as_str()) else { return None };
    match field.operator {
        Operator::In => Some(Test::In(vec![names.id(name)])),
        Operator::NotIn => Some(Test::NotIn(vec![names.id(name)])),
        _ => None,
    }
}

impl Bears {
    fn of(toleration: &Toleration, names: &mut Names) -> Self {
        let key = toleration.key.as_ref().filter(|key| !key.is_empty()).map(|key| names.id(key));
        let bound = |above: fn(i64) -> BornValue| canonical(&toleration.value).map_or(BornValue::None, above);
        let value = match toleration.operator {
            TolerationOperator::Exists => BornValue::Any,
            TolerationOperator::Equal => BornValue::Equal(names.id(&toleration.value)),
            TolerationOperator::Gt => bound(BornValue::Above),
            TolerationOperator::Lt => bound(BornValue::Below),
        };
        Self { key, effect: toleration.effect, value }
    }

    fn bears(self, mark: Mark) -> bool {
        self.key.is_none_or(|key| key == mark.key)
            && self.effect.is_none_or(|effect| effect == mark.effect)
            && match self.value {
                BornValue::Any => true,
                BornValue::Equal(value) => value == mark.value,
                BornValue::Above(bound) => mark.number.is_some_and(|number| number > bound),
                BornValue::Below(bound) => mark.number.is_some_and(|number| number < bound),
                BornValue::None => false,
            }
    }
}

#[cfg(test)]
mod tests;
