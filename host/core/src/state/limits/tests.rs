use std::collections::BTreeMap;

use super::*;
use crate::state::room::Stock;

/// A node `here` with labels, taints and whether it is cordoned.
fn node(labels: &[(&str, &str)], taints: &[(&str, &str, Effect)], unschedulable: bool) -> NodeSpec {
    let taint = |&(key, value, effect): &(&str, &str, Effect)| Taint { key: key.into(), value: value.into(), effect };
    let labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>();
    NodeSpec { name: "here".into(), labels, taints: taints.iter().map(taint).collect(), unschedulable, ..NodeSpec::default() }
}

fn limits(constraints: Constraints, names: &mut Names) -> Limits {
    let demand = Demand { constraints: Some(Box::new(constraints)), ..Demand::default() };
    Limits::of(&demand, names).map_or(Limits::NONE, |limits| *limits)
}

fn barrier(constraints: Constraints, spec: &NodeSpec) -> Option<Barrier> {
    let mut names = Names::default();
    let (limits, marks) = (limits(constraints, &mut names), Marks::of(spec, &mut names));
    let barrier = limits.barrier(&marks, &names);
    assert_eq!(barrier.is_none(), limits.admit(&marks, &names));
    barrier
}

fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
    Requirement { key: key.into(), operator, values: values.iter().map(|&value| value.to_owned()).collect() }
}

#[test]
fn a_toleration_bears_the_taints_that_it_bears_in_kubernetes() {
    use Effect::{NoExecute, NoSchedule, PreferNoSchedule};
    use TolerationOperator::{Equal, Exists, Gt, Lt};
    type Toleration<'a> = (Option<&'a str>, TolerationOperator, &'a str, Option<Effect>);
    type Row<'a> = (Toleration<'a>, (&'a str, &'a str, Effect), bool);
    let table: &[Row<'_>] = &[
        ((Some("key"), Equal, "value", Some(NoSchedule)), ("key", "value", NoSchedule), true),
        ((Some("key"), Equal, "value", None), ("key", "value", NoExecute), true),
        ((Some("key"), Equal, "value", Some(NoSchedule)), ("key", "value", NoExecute), false),
        ((Some("key"), Equal, "other", None), ("key", "value", NoSchedule), false),
        ((Some("other"), Equal, "value", None), ("key", "value", NoSchedule), false),
        ((Some("key"), Equal, "", None), ("key", "", NoSchedule), true),
        ((Some("key"), Exists, "", None), ("key", "value", NoSchedule), true),
        ((Some("key"), Exists, "ignored", None), ("key", "value", NoSchedule), true),
        ((None, Exists, "", None), ("key", "value", NoExecute), true),
        ((Some(""), Exists, "", Some(NoExecute)), ("key", "value", NoExecute), true),
        ((None, Exists, "", Some(NoExecute)), ("key", "value", NoSchedule), false),
        ((None, Equal, "value", None), ("key", "value", NoSchedule), true),
        ((Some("key"), Gt, "5", None), ("key", "6", NoSchedule), true),
        ((Some("key"), Gt, "5", None), ("key", "5", NoSchedule), false),
        ((Some("key"), Lt, "5", None), ("key", "-6", NoSchedule), true),
        ((Some("key"), Lt, "5", None), ("key", "04", NoSchedule), false),
        ((Some("key"), Lt, "+5", None), ("key", "4", NoSchedule), false),
        ((Some("key"), Gt, "5", None), ("key", "many", NoSchedule), false),
        ((Some("other"), Exists, "", None), ("key", "value", PreferNoSchedule), true),
    ];
    for &((key, operator, value, effect), taint, borne) in table {
        let toleration = crate::model::constraints::Toleration { key: key.map(str::to_owned), operator, value: value.into(), effect };
        let constraints = Constraints { tolerations: vec![toleration.clone()], ..Constraints::default() };
        let expected = (!borne).then_some(Barrier::Taint(0));
        assert_eq!(barrier(constraints, &node(&[], &[taint], false)), expected, "{toleration:?} {taint:?}");
    }
}

#[test]
fn a_cordon_is_a_taint_that_can_be_borne() {
    let bears = |key: &str| Constraints {
        tolerations: vec![Toleration { key: Some(key.into()), operator: TolerationOperator::Exists, ..Toleration::default() }],
        ..Constraints::default()
    };
    let cordoned = node(&[], &[], true);
    assert_eq!(barrier(Constraints::default(), &cordoned), Some(Barrier::Cordon));
    assert_eq!(barrier(bears(CORDON), &cordoned), None);
    // The controller of nodes writes the taint down, too.
    let written = node(&[], &[("first", "", Effect::PreferNoSchedule), (CORDON, "", Effect::NoSchedule)], true);
    assert_eq!(barrier(Constraints::default(), &written), Some(Barrier::Cordon));
    assert_eq!(barrier(bears(CORDON), &written), None);
    let broken = node(&[], &[("broken", "", Effect::NoExecute)], true);
    assert_eq!(barrier(Constraints::default(), &broken), Some(Barrier::Cordon));
    assert_eq!(barrier(bears(CORDON), &broken), Some(Barrier::Taint(0)));
    assert_eq!(barrier(bears("broken"), &broken), Some(Barrier::Cordon));
}

#[test]
fn terms_of_a_group_are_alternatives_and_groups_must_all_hold() {
    use Operator::{Exists, Gt, In, NotIn};
    let spec = node(&[("zone", "a"), ("slots", "7")], &[], false);
    let all = |some: &[&Requirement]| some.iter().map(|&one| one.clone()).collect::<Vec<_>>();
    let term = |labels: &[&Requirement], fields: &[&Requirement]| NodeTerm { labels: all(labels), fields: all(fields) };
    let (zone_a, zone_b) = (requirement("zone", In, &["a", "c"]), requirement("zone", In, &["b"]));
    let (here, there) = (requirement(NODE_NAME, In, &["here"]), requirement(NODE_NAME, In, &["there"]));
    let unreadable = requirement("zone", Exists, &["a"]);
    let table: &[(&str, Vec<Vec<NodeTerm>>, bool)] = &[
        ("one term that holds", vec![vec![term(&[&zone_a], &[])]], true),
        ("of two one holds", vec![vec![term(&[&zone_b], &[]), term(&[&zone_a], &[])]], true),
        ("within a term all must", vec![vec![term(&[&zone_a, &zone_b], &[])]], false),
        ("labels and fields must", vec![vec![term(&[&zone_a], &[&here])]], true),
        ("and the field does not", vec![vec![term(&[&zone_a], &[&there])]], false),
        ("another name", vec![vec![term(&[], &[&requirement(NODE_NAME, NotIn, &["there"])])]], true),
        ("not this name", vec![vec![term(&[], &[&requirement(NODE_NAME, NotIn, &["here"])])]], false),
        ("two names cannot be read", vec![vec![term(&[], &[&requirement(NODE_NAME, In, &["here", "there"])])]], false),
        ("both groups", vec![vec![term(&[&zone_a], &[])], vec![term(&[], &[&here])]], true),
        ("one group only", vec![vec![term(&[&zone_a], &[])], vec![term(&[], &[&there])]], false),
        ("an empty term matches nothing", vec![vec![NodeTerm::default()]], false),
        ("an empty group neither", vec![vec![]], false),
        ("what cannot be read neither", vec![vec![term(&[&unreadable], &[])]], false),
        ("but another term may", vec![vec![term(&[&unreadable], &[]), term(&[&zone_a], &[])]], true),
        ("numbers", vec![vec![term(&[&requirement("slots", Gt, &["6"])], &[])]], true),
        ("a label that is no number", vec![vec![term(&[&requirement("zone", Gt, &["6"])], &[])]], false),
    ];
    for (what, groups, expected) in table {
        let nodes = Constraints { nodes: groups.clone(), ..Constraints::default() };
        assert_eq!(barrier(nodes, &spec), (!expected).then_some(Barrier::Selector), "{what}");
        let volumes = Constraints { volumes: groups.clone(), ..Constraints::default() };
        assert_eq!(barrier(volumes, &spec), (!expected).then_some(Barrier::Volume), "{what}");
    }
    let selector = |value: &str| Constraints { selector: vec![("zone".into(), value.into())], ..Constraints::default() };
    assert_eq!(barrier(selector("a"), &spec), None);
    assert_eq!(barrier(selector("b"), &spec), Some(Barrier::Selector));
}

#[test]
fn ports_conflict_as_in_kubernetes() {
    type Written<'a> = (&'a str, Protocol, u16);
    let table: &[(Written<'_>, Written<'_>, bool)] = &[
        (("0.0.0.0", Protocol::TCP, 80), ("0.0.0.0", Protocol::TCP, 80), true),
        (("", Protocol::TCP, 80), ("0.0.0.0", Protocol::TCP, 80), true),
        (("10.0.0.1", Protocol::TCP, 80), ("0.0.0.0", Protocol::TCP, 80), true),
        (("10.0.0.1", Protocol::TCP, 80), ("10.0.0.1", Protocol::TCP, 80), true),
        (("10.0.0.1", Protocol::TCP, 80), ("10.0.0.2", Protocol::TCP, 80), false),
        (("0.0.0.0", Protocol::TCP, 80), ("0.0.0.0", Protocol::UDP, 80), false),
        (("0.0.0.0", Protocol::TCP, 80), ("0.0.0.0", Protocol::TCP, 81), false),
        (("0.0.0.0", Protocol::TCP, 0), ("0.0.0.0", Protocol::TCP, 0), false),
    ];
    for &(one, other, conflict) in table {
        let mut names = Names::default();
        let mut taking = |(ip, protocol, port): Written<'_>| {
            let ports = vec![HostPort { ip: ip.into(), protocol, port }];
            limits(Constraints { ports, ..Constraints::default() }, &mut names)
        };
        let (one, other) = (taking(one), taking(other));
        for (taken, asked) in [(&one, &other), (&other, &one)] {
            let mut stock = Stock::default();
            let before = stock.clone();
            stock.take(taken).unwrap();
            assert_eq!(stock.conflicts(asked), conflict, "{taken:?} {asked:?}");
            stock.give_back(taken);
            assert_eq!(stock, before);
        }
    }
}

#[test]
fn what_a_node_does_not_list_it_has_nothing_of() {
    let mut names = Names::default();
    let asks = |some: &[(&str, u64)], names: &mut Names| {
        let extra = some.iter().map(|&(name, amount)| (name.to_owned(), amount)).collect();
        *Limits::of(&Demand { extra, ..Demand::default() }, names).unwrap()
    };
    let (two, other) = (asks(&[("pods", 2)], &mut names), asks(&[("pods", 1), ("disks", 1)], &mut names));
    let mut stock = Stock::default();
    stock.refill(&amounts(&[("pods".into(), 5)], &mut names));
    assert_eq!((stock.copies(&two), stock.copies(&other)), (2, 0));
    stock.take(&two).unwrap();
    assert_eq!(stock.copies(&two), 1);
    assert_eq!(stock.take(&other), None, "disks are missing");
    stock.take(&two).unwrap();
    assert_eq!(stock.take(&two), None);
    // A node that shrinks below what is in use has nothing left, and gets it back as pods go.
    stock.refill(&amounts(&[("pods".into(), 3)], &mut names));
    assert!(!stock.holds(&two));
    stock.give_back(&two);
    assert!(!stock.holds(&two));
    stock.give_back(&two);
    assert!(stock.holds(&two));
}

#[test]
fn preferences_add_up_and_taints_that_ask_to_stay_away_count_against() {
    let mut names = Names::default();
    let prefer =
        |weight, value: &str| (weight, NodeTerm { labels: vec![requirement("zone", Operator::In, &[value])], ..NodeTerm::default() });
    let constraints = Constraints {
        preferred_nodes: vec![prefer(30, "a"), prefer(5, "a"), prefer(100, "b"), (9, NodeTerm::default())],
        tolerations: vec![Toleration { key: Some("calm".into()), operator: TolerationOperator::Exists, ..Toleration::default() }],
        ..Constraints::default()
    };
    let limits = limits(constraints, &mut names);
    let mut preference = |zone: &str, taints: &[&str]| {
        let taints: Vec<(&str, &str, Effect)> = taints.iter().map(|&key| (key, "", Effect::PreferNoSchedule)).collect();
        let marks = Marks::of(&node(&[("zone", zone)], &taints, false), &mut names);
        assert!(!marks.bars);
        limits.preference(&marks, &names)
    };
    assert_eq!(preference("a", &[]), 35);
    assert_eq!(preference("b", &["calm"]), 100);
    assert_eq!(preference("c", &["loud", "calm"]), -SHUNNED);
}
