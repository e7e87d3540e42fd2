//! Random clusters and pods of few words, so that they have much to do with each other.

use partita_core::model::{
    Constraints, Cut, Demand, GpuAsk, GpuSpec, NodeSpec, PodSpec, Terms,
    constraints::{
        Effect, HostPort, NodeTerm, Operator, PodSelector, PodTerm, Protocol, Requirement, Spread, Taint, Toleration, TolerationOperator,
    },
};
use proptest::{
    prelude::*,
    sample::{Index, select},
};

/// The most nodes of a cluster.
pub(crate) const NODES_MAX: usize = 6;
pub(crate) const NAMESPACES: [&str; 3] = ["blue", "green", "red"];
const HOST: &str = "kubernetes.io/hostname";

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Arrive(PodSpec),
    Leave(Index),
    /// One that was told to stop has stopped, or one that moved has left its old place.
    Gone(Index),
    Relabel(Index, Vec<(String, String)>),
    Namespace(usize, Option<String>),
    NodeGone(usize),
    NodeBack(usize, NodeSpec),
    Time(u64),
    Round,
}

fn words(words: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    select(words).prop_map(str::to_owned)
}

fn requirement(key: String, operator: Operator, values: Vec<String>) -> Requirement {
    let values = match operator {
        Operator::Exists | Operator::DoesNotExist => Vec::new(),
        Operator::Gt | Operator::Lt => vec!["4".into()],
        Operator::In | Operator::NotIn => values,
    };
    Requirement { key, operator, values }
}

fn node_requirements() -> impl Strategy<Value = Requirement> {
    use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
    let operators = select(vec![In, In, NotIn, NotIn, Exists, DoesNotExist, Gt, Lt]);
    let values = prop::collection::vec(words(&["a", "b", "3", "7"]), 0..3);
    (words(&["zone", "rack", "slots"]), operators, values).prop_map(|(key, operator, values)| requirement(key, operator, values))
}

fn node_terms() -> impl Strategy<Value = NodeTerm> {
    let field = (any::<bool>(), 0..NODES_MAX).prop_map(|(is, node)| Requirement {
        key: "metadata.name".into(),
        operator: if is { Operator::In } else { Operator::NotIn },
        values: vec![format!("node-{node}")],
    });
    let fields = prop_oneof![5 => Just(Vec::new()), 1 => prop::collection::vec(field, 1..2)];
    (prop::collection::vec(node_requirements(), 0..3), fields).prop_map(|(labels, fields)| NodeTerm { labels, fields })
}

fn groups() -> impl Strategy<Value = Vec<Vec<NodeTerm>>> {
    prop_oneof![5 => Just(Vec::new()), 2 => prop::collection::vec(prop::collection::vec(node_terms(), 1..3), 1..3)]
}

fn pod_labels() -> impl Strategy<Value = Vec<Requirement>> {
    use Operator::{DoesNotExist, Exists, In, NotIn};
    let one = (words(&["app", "tier"]), select(vec![In, In, In, NotIn, Exists, DoesNotExist]), words(&["a", "b"]));
    prop::collection::vec(one.prop_map(|(key, operator, value)| requirement(key, operator, vec![value])), 0..3)
}

fn selectors() -> impl Strategy<Value = PodSelector> {
    let team = prop_oneof![
        Just(Vec::new()),
        words(&["x", "y"]).prop_map(|value| vec![requirement("team".into(), Operator::In, vec![value])]),
        Just(vec![requirement("team".into(), Operator::DoesNotExist, Vec::new())]),
    ];
    let names = prop::sample::subsequence(NAMESPACES.to_vec(), 0..=3);
    let namespace_labels = prop_oneof![3 => Just(None), 1 => team.prop_map(Some)];
    let labels = prop_oneof![12 => pod_labels().prop_map(Some), 1 => Just(None)];
    (labels, names, namespace_labels).prop_map(|(labels, names, namespace_labels)| PodSelector {
        labels,
        namespaces: names.into_iter().map(str::to_owned).collect(),
        namespace_labels,
    })
}

fn pod_terms() -> impl Strategy<Value = PodTerm> {
    (words(&["zone", "zone", "rack", HOST]), selectors()).prop_map(|(topology, pods)| PodTerm { topology, pods })
}

/// Kubernetes counts pods of the pod's own namespace.
fn spreads(namespace: String) -> impl Strategy<Value = Spread> {
    let flags = (prop::bool::weighted(0.8), any::<bool>(), any::<bool>());
    (1u32..3, words(&["zone", "zone", "rack", HOST]), pod_labels(), 1u32..4, flags).prop_map(
        move |(max_skew, topology, labels, min_domains, (required, honor_affinity, honor_taints))| Spread {
            max_skew,
            topology,
            required,
            pods: PodSelector { labels: Some(labels), namespaces: vec![namespace.clone()], namespace_labels: None },
            min_domains,
            honor_affinity,
            honor_taints,
        },
    )
}

fn effects() -> impl Strategy<Value = Effect> {
    select(vec![Effect::NoSchedule, Effect::NoExecute, Effect::PreferNoSchedule])
}

fn tolerations() -> impl Strategy<Value = Toleration> {
    use TolerationOperator::{Equal, Exists, Gt, Lt};
    let key = prop_oneof![
        4 => words(&["dedicated", "slow"]).prop_map(Some),
        1 => Just(None),
        1 => Just(Some("node.kubernetes.io/unschedulable".to_owned()))
    ];
    (key, select(vec![Equal, Exists, Exists, Gt, Lt]), words(&["a", "4"]), prop::option::of(effects()))
        .prop_map(|(key, operator, value, effect)| Toleration { key, operator, value, effect })
}

fn ports() -> impl Strategy<Value = Vec<HostPort>> {
    let port = (words(&["0.0.0.0", "", "10.0.0.1", "10.0.0.2"]), select(vec![Protocol::TCP, Protocol::UDP]), 80u16..82);
    let port = port.prop_map(|(ip, protocol, port)| HostPort { ip, protocol, port });
    prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(port, 1..3)]
}

fn few<T: std::fmt::Debug + Clone + 'static>(one: impl Strategy<Value = T> + 'static) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![3 => Just(0usize), 2 => Just(1), 1 => Just(2)].prop_flat_map({
        let one = one.boxed();
        move |count| prop::collection::vec(one.clone(), count)
    })
}

fn constraints(namespace: String) -> impl Strategy<Value = Constraints> {
    let selector = prop_oneof![6 => Just(Vec::new()), 1 => words(&["a", "b"]).prop_map(|value| vec![("zone".into(), value)])];
    let nodes = (selector, groups(), prop_oneof![4 => Just(Vec::new()), 1 => groups()], few((1..100, node_terms())));
    let weights = prop_oneof![1..100, -100..-1];
    let pods = (few(pod_terms()), few(pod_terms()), few((weights, pod_terms())), few(spreads(namespace)));
    (nodes, prop::collection::vec(tolerations(), 0..3), ports(), pods).prop_map(
        |((selector, nodes, volumes, preferred_nodes), tolerations, ports, (together, apart, preferred_pods, spread))| Constraints {
            selector,
            nodes,
            volumes,
            preferred_nodes,
            tolerations,
            ports,
            together,
            apart,
            preferred_pods,
            spread,
        },
    )
}

fn labels() -> impl Strategy<Value = Vec<(String, String)>> {
    let label = |key: &'static str| words(&["a", "b"]).prop_map(move |value| (key.to_owned(), value));
    (prop::option::weighted(0.8, label("app")), prop::option::weighted(0.4, label("tier")))
        .prop_map(|(app, tier)| app.into_iter().chain(tier).collect())
}

pub(crate) fn pods() -> impl Strategy<Value = PodSpec> {
    let limits = words(&NAMESPACES).prop_flat_map(|namespace| {
        let some = prop_oneof![1 => Just(None), 4 => constraints(namespace.clone()).prop_map(|one| Some(Box::new(one)))];
        (Just(namespace), some)
    });
    let extra = prop_oneof![2 => Just(vec![("pods", 1)]), 1 => Just(vec![("pods", 1), ("disks", 2)]), 1 => Just(Vec::new())];
    let gpu = prop_oneof![3 => Just(GpuAsk::None), 1 => Just(GpuAsk::whole(1))];
    (limits, labels(), extra, gpu, 0u32..3, 0i32..3, any::<bool>()).prop_map(
        |((namespace, constraints), labels, extra, gpu, cpu, priority, restartable)| PodSpec {
            namespace,
            priority,
            demand: Demand {
                cpu_milli: cpu * 1000,
                gpu,
                extra: extra.into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect(),
                constraints,
                ..Demand::default()
            },
            terms: Terms { restartable, ..Terms::default() },
            labels: labels.into_iter().collect(),
            ..PodSpec::default()
        },
    )
}

fn node() -> impl Strategy<Value = NodeSpec> {
    let taint = (words(&["dedicated", "slow"]), words(&["a", "3", "5"]), effects());
    let taints = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(taint, 1..3)];
    let label = |key: &'static str, values| (prop::option::weighted(0.8, words(values))).prop_map(move |value| (key, value));
    let labels = (label("zone", &["a", "b"]), label("rack", &["1", "2", "3"]), label("slots", &["3", "7"]), prop::bool::weighted(0.9));
    let extra = prop_oneof![1 => Just(vec![("pods", 2)]), 3 => Just(vec![("pods", 9), ("disks", 3)])];
    (labels, taints, prop::bool::weighted(0.1), extra, 1u32..9, 0usize..3).prop_map(
        |((zone, rack, slots, host), taints, unschedulable, extra, cpu, gpus)| {
            let named = [zone, rack, slots].into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
            NodeSpec {
                cpu_milli: cpu * 1000,
                memory_mib: 1024,
                gpus: vec![GpuSpec::new("T4", Cut::Shares); gpus],
                extra: extra.into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect(),
                // The name of the host is put in with the name of the node.
                labels: named.chain(host.then(|| (HOST.to_owned(), String::new()))).collect(),
                taints: taints.into_iter().map(|(key, value, effect)| Taint { key, value, effect }).collect(),
                unschedulable,
                ..NodeSpec::default()
            }
        },
    )
}

/// The spec of the node with this number.
pub(crate) fn named(row: usize, mut spec: NodeSpec) -> NodeSpec {
    spec.name = format!("node-{row}");
    if let Some(host) = spec.labels.get_mut(HOST) {
        host.clone_from(&spec.name);
    }
    spec
}

pub(crate) fn nodes() -> impl Strategy<Value = Vec<NodeSpec>> {
    prop::collection::vec(node(), 2..=NODES_MAX).prop_map(|nodes| nodes.into_iter().enumerate().map(|(row, one)| named(row, one)).collect())
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => pods().prop_map(Step::Arrive),
        2 => any::<Index>().prop_map(Step::Leave),
        3 => any::<Index>().prop_map(Step::Gone),
        2 => (any::<Index>(), labels()).prop_map(|(which, labels)| Step::Relabel(which, labels)),
        1 => (0..NAMESPACES.len(), prop::option::of(words(&["x", "y"]))).prop_map(|(name, team)| Step::Namespace(name, team)),
        1 => (0..NODES_MAX).prop_map(Step::NodeGone),
        1 => (0..NODES_MAX, node()).prop_map(|(row, spec)| Step::NodeBack(row, named(row, spec))),
        1 => Just(Step::Time(30_000)),
        5 => Just(Step::Round),
    ];
    prop::collection::vec(step, 1..50)
}
