//! Pods that care where they run and next to whom: what is decided, who goes, what is said.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod script;

use std::collections::BTreeMap;

use partita_core::{
    Action, Config,
    model::{
        Constraints, Cut, Demand, GpuAsk, GpuSpec, NodeSpec, PodId, PodSpec, Terms,
        constraints::{Effect, HostPort, NodeTerm, Operator, PodSelector, PodTerm, Protocol, Requirement, Spread, Taint},
    },
    state::Event,
};
use script::{Mover, Script};

const HOST: &str = "kubernetes.io/hostname";

/// A node with a zone and room for so many milli-cores.
fn node(name: &str, zone: &str, cpu_milli: u32) -> NodeSpec {
    let labels = [("zone", zone), (HOST, name)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    NodeSpec { name: name.into(), cpu_milli, memory_mib: 1024, labels: labels.into(), ..NodeSpec::default() }
}

fn is(key: &str, value: &str) -> Requirement {
    Requirement { key: key.into(), operator: Operator::In, values: vec![value.into()] }
}

fn app(name: &str) -> PodSelector {
    PodSelector { labels: Some(vec![is("app", name)]), namespaces: vec!["team".into()], namespace_labels: None }
}

fn near(topology: &str, pods: PodSelector) -> PodTerm {
    PodTerm { topology: topology.into(), pods }
}

fn spread(topology: &str, name: &str, required: bool) -> Spread {
    let (topology, pods) = (topology.to_owned(), app(name));
    Spread { max_skew: 1, topology, required, pods, min_domains: 1, honor_affinity: true, honor_taints: false }
}

/// A pod of an app that asks for so many milli-cores.
fn pod(name: &str, cpu_milli: u32, constraints: Constraints) -> PodSpec {
    PodSpec {
        name: "pod".into(),
        namespace: "team".into(),
        demand: Demand { cpu_milli, constraints: Some(Box::new(constraints)), ..Demand::default() },
        labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        ..PodSpec::default()
    }
}

fn comes(script: &mut Script, id: u32, spec: PodSpec) {
    script.planner.apply(Event::PodAdded(PodId(id), spec)).unwrap();
}

/// Where pods run, by the order of their numbers.
fn places(script: &Script, pods: std::ops::Range<u32>) -> Vec<Option<String>> {
    pods.map(|pod| script.node_of(pod)).collect()
}

fn on(nodes: &[&str]) -> Vec<Option<String>> {
    nodes.iter().map(|&node| Some(node.to_owned()).filter(|node| !node.is_empty())).collect()
}

#[test]
fn pods_that_keep_apart_take_a_node_each_and_keep_others_away_who_said_nothing() {
    let mut script = Script::of(Config::DEFAULT, [node("a", "x", 9000), node("b", "x", 9000)]);
    let apart = Constraints { apart: vec![near(HOST, app("web"))], ..Constraints::default() };
    for id in 0..3 {
        comes(&mut script, id, pod("web", 1000, apart.clone()));
    }
    comes(&mut script, 3, pod("web", 1000, Constraints::default()));
    comes(&mut script, 4, pod("other", 1000, Constraints::default()));
    assert_eq!(script.planner.copies(script.planner.cluster().pod(PodId(0)).unwrap().demand, 9), 2);
    script.round();
    assert_eq!(places(&script, 0..5), on(&["a", "b", "", "", "a"]));
    assert!(script.reason(2).starts_with("0/2 nodes fit: 2 near pods that it must not run with; nearest is a:"), "{}", script.reason(2));
    // One of the two goes: the older of those that wait takes its place.
    script.ends(0);
    script.round();
    assert_eq!(places(&script, 1..5), on(&["b", "a", "", "a"]));
    // Another name, and nobody minds any more; whoever selects it decides, not when it came.
    script.planner.apply(Event::PodRelabelled(PodId(3), BTreeMap::new())).unwrap();
    script.round();
    assert_eq!(script.node_of(3), Some("a".into()));
}

#[test]
fn the_first_of_a_group_runs_anywhere_and_the_others_with_it() {
    let mut script = Script::of(Config::DEFAULT, [node("a", "x", 1000), node("b", "y", 1000), node("c", "y", 9000)]);
    let together = |name: &str| Constraints { together: vec![near("zone", app(name))], ..Constraints::default() };
    comes(&mut script, 0, pod("ring", 2000, together("ring")));
    comes(&mut script, 1, pod("ring", 1000, together("ring")));
    comes(&mut script, 2, pod("fan", 1000, together("ring")));
    comes(&mut script, 3, pod("fan", 1000, together("nobody")));
    script.round();
    // The large one fits on c only, so that zone is where the others go, though a comes first.
    assert_eq!(places(&script, 0..4), on(&["c", "b", "c", ""]));
    assert!(script.reason(3).contains("3 away from the pods that it must run with"), "{}", script.reason(3));
}

#[test]
fn who_must_run_next_to_a_younger_pod_runs_in_the_same_round() {
    let mut script = Script::of(Config::DEFAULT, [node("a", "x", 9000), node("b", "y", 9000)]);
    comes(&mut script, 0, pod("fan", 1, Constraints { together: vec![near("zone", app("star"))], ..Constraints::default() }));
    let selector = vec![("zone".to_owned(), "y".to_owned())];
    comes(&mut script, 1, pod("star", 1, Constraints { selector, ..Constraints::default() }));
    script.round();
    assert_eq!(places(&script, 0..2), on(&["b", "b"]));
}

#[test]
fn pods_are_spread_evenly_and_those_that_stop_are_not_counted() {
    let mut script = Script::of(Config::DEFAULT, [node("a", "x", 2000), node("b", "x", 2000), node("c", "y", 2000)]);
    let even = Constraints { spread: vec![spread("zone", "web", true)], ..Constraints::default() };
    for id in 0..5 {
        comes(&mut script, id, pod("web", 1000, even.clone()));
    }
    assert_eq!(script.planner.copies(script.planner.cluster().pod(PodId(0)).unwrap().demand, 9), 5);
    script.round();
    // Three in zone x, two in zone y: the first node where it is allowed, each time.
    assert_eq!(places(&script, 0..5), on(&["a", "c", "a", "c", "b"]));
    comes(&mut script, 5, pod("web", 1000, even));
    script.round();
    assert!(script.reason(5).contains("2 with too many of its like near, 1 short of cpu"), "{}", script.reason(5));
    // A pod of higher priority takes the place of one in zone x. While that stops it is not counted, and there is room again.
    let large =
        PodSpec { priority: 9, ..pod("large", 2000, Constraints { selector: vec![(HOST.into(), "a".into())], ..Constraints::default() }) };
    comes(&mut script, 6, large);
    let evicted = script.round().iter().filter(|action| matches!(action, Action::Evict { .. })).count();
    assert_eq!((evicted, script.node_of(5)), (2, Some("b".into())));
}

#[test]
fn a_pod_that_moves_within_its_domain_leaves_the_balance_as_it_was() {
    let config = Config { moves: 1, preempt: false, ..Config::DEFAULT };
    let gpu = |name: &str, zone: &str| NodeSpec { gpus: vec![GpuSpec::new("T4", Cut::Shares)], ..node(name, zone, 4000) };
    let mut script = Script::of(config, [gpu("a", "x"), gpu("b", "x"), node("c", "y", 1000)]);
    let even = Constraints { spread: vec![spread("zone", "web", true)], ..Constraints::default() };
    let web = |cpu_milli, gpu| {
        let mut spec = pod("web", cpu_milli, even.clone());
        spec.demand.gpu = gpu;
        spec.terms = Terms { restartable: true, ..Terms::default() };
        spec
    };
    comes(&mut script, 0, web(100, GpuAsk::whole(1)));
    script.round();
    comes(&mut script, 1, web(1000, GpuAsk::None));
    script.round();
    comes(&mut script, 2, web(3950, GpuAsk::None));
    script.round();
    assert_eq!(places(&script, 0..3), on(&["a", "c", "b"]));
    script.ends(2);
    comes(&mut script, 3, pod("web", 3000, even.clone()));
    script.round();
    assert_eq!(script.node_of(3), Some("a".into()), "two in zone x, one in zone y");
    // It needs the GPU of a; the one there can only go to b, where it would be one of two in zone x again.
    let mut spec = pod("large", 100, Constraints { selector: vec![(HOST.into(), "a".into())], ..Constraints::default() });
    spec.demand.gpu = GpuAsk::whole(1);
    comes(&mut script, 4, spec);
    let moved = script.round().iter().any(|action| matches!(action, Action::Move { pod: PodId(0), .. }));
    assert_eq!((moved, script.node_of(0)), (true, Some("b".into())));
}

#[test]
fn tidying_moves_nobody_next_to_whom_it_keeps_apart_from() {
    let gpu = |name: &str| NodeSpec { gpus: vec![GpuSpec::new("T4", Cut::Shares); 3], ..node(name, "x", 9000) };
    let mut script = Script::of(Config::DEFAULT, [gpu("a"), gpu("b")]);
    let gpu = |name: &str, constraints| {
        let mut spec = pod(name, 1, constraints);
        spec.demand.gpu = GpuAsk::whole(1);
        spec.terms = Terms { restartable: name == "web", ..Terms::default() };
        spec
    };
    let apart = Constraints { apart: vec![near(HOST, app("web"))], ..Constraints::default() };
    comes(&mut script, 0, gpu("db", Constraints::default()));
    comes(&mut script, 1, gpu("web", apart.clone()));
    comes(&mut script, 2, gpu("web", apart));
    script.round();
    assert_eq!(places(&script, 0..3), on(&["a", "a", "b"]));
    // Of the pods that may move the second is the one on b.
    assert_eq!(script.planner.consolidate(&mut [&mut Mover(vec![(1, 0)], 0)], 1).actions, []);
    script.ends(1);
    let plan = script.planner.consolidate(&mut [&mut Mover(vec![(0, 0)], 0)], 1);
    assert!(matches!(plan.actions.as_slice(), [Action::Move { pod: PodId(2), .. }]), "{:?}", plan.actions);
}

#[test]
fn who_has_the_port_goes_for_who_needs_it_and_so_does_who_has_the_resource() {
    let stocked = NodeSpec { extra: vec![("disks".into(), 3), ("pods".into(), 4)], ..node("a", "x", 9000) };
    let mut script = Script::of(Config::DEFAULT, [stocked]);
    let port = |ip: &str| vec![HostPort { ip: ip.into(), protocol: Protocol::TCP, port: 80 }];
    let asks = |priority, ports: Vec<HostPort>, disks: u64| {
        let mut spec = pod("web", 0, Constraints { ports, ..Constraints::default() });
        spec.demand.extra = [("disks", disks), ("pods", 1)].map(|(name, amount)| (name.to_owned(), amount)).to_vec();
        PodSpec { priority, ..spec }
    };
    comes(&mut script, 0, asks(0, port("10.0.0.1"), 0));
    comes(&mut script, 1, asks(0, Vec::new(), 1));
    comes(&mut script, 2, asks(0, Vec::new(), 2));
    script.round();
    assert_eq!(places(&script, 0..3), on(&["a", "a", "a"]));
    comes(&mut script, 3, asks(0, port("0.0.0.0"), 0));
    assert!(script.reason(3).contains("1 where a port is taken"), "{}", script.reason(3));
    comes(&mut script, 4, asks(0, Vec::new(), 2));
    assert!(script.reason(4).ends_with("1 short of another resource; nearest is a: 2 more disks would do"), "{}", script.reason(4));
    comes(&mut script, 5, asks(0, Vec::new(), 4));
    assert!(script.reason(5).contains("no node could take it even when idle"), "{}", script.reason(5));
    let victims = |actions: &[Action]| -> Vec<u32> {
        actions.iter().filter_map(|action| if let Action::Evict { pod, .. } = action { Some(pod.0) } else { None }).collect()
    };
    comes(&mut script, 6, asks(5, port("0.0.0.0"), 0));
    assert_eq!(victims(&script.round()), [0], "its port is wanted, though there is room for one more pod");
    script.ends(0);
    script.round();
    assert_eq!(script.node_of(6), Some("a".into()));
    comes(&mut script, 7, asks(5, Vec::new(), 2));
    assert_eq!(victims(&script.round()), [2], "one pod has as many disks as are wanted");
    script.ends(2);
    script.round();
    assert_eq!(script.node_of(7), Some("a".into()));
}

#[test]
fn what_is_preferred_comes_before_what_the_policy_likes() {
    let disliked = |name: &str| {
        let taints = vec![Taint { key: "slow".into(), value: String::new(), effect: Effect::PreferNoSchedule }];
        NodeSpec { taints, ..node(name, "x", 9000) }
    };
    let mut script = Script::of(Config::DEFAULT, [disliked("a"), node("b", "x", 9000), node("c", "y", 9000)]);
    comes(&mut script, 0, pod("db", 1, Constraints::default()));
    let prefers = |weight, zone: &str| vec![(weight, NodeTerm { labels: vec![is("zone", zone)], fields: Vec::new() })];
    comes(&mut script, 1, pod("web", 1, Constraints { preferred_nodes: prefers(1, "y"), ..Constraints::default() }));
    comes(&mut script, 2, pod("web", 1, Constraints { preferred_nodes: prefers(99, "x"), ..Constraints::default() }));
    let pods = |weight, name: &str| Constraints { preferred_pods: vec![(weight, near(HOST, app(name)))], ..Constraints::default() };
    comes(&mut script, 3, pod("web", 1, pods(5, "db")));
    comes(&mut script, 4, pod("web", 1, pods(-5, "web")));
    script.round();
    // The last has the nodes b with three others of its app and c with one: it goes to c, since a is disliked more than that.
    assert_eq!(places(&script, 0..5), on(&["b", "c", "b", "b", "c"]));
    let even = Constraints { spread: vec![spread("zone", "cache", false)], ..Constraints::default() };
    for id in 5..9 {
        comes(&mut script, id, pod("cache", 1, even.clone()));
    }
    script.round();
    assert_eq!(places(&script, 5..9), on(&["b", "c", "b", "c"]));
}

#[test]
fn nobody_is_evicted_next_to_whom_the_pod_must_run_nor_to_get_away_from_somebody() {
    let mut script = Script::of(Config::DEFAULT, [node("a", "x", 2000), node("b", "y", 2000)]);
    comes(&mut script, 0, pod("db", 1000, Constraints::default()));
    comes(&mut script, 1, pod("web", 1000, Constraints::default()));
    comes(&mut script, 2, pod("web", 2000, Constraints::default()));
    script.round();
    assert_eq!(places(&script, 0..3), on(&["a", "a", "b"]));
    let high = |cpu, constraints| PodSpec { priority: 9, ..pod("job", cpu, constraints) };
    let with_db = Constraints { together: vec![near("zone", app("db"))], ..Constraints::default() };
    comes(&mut script, 3, high(2000, with_db.clone()));
    let without_web = Constraints { apart: vec![near("zone", app("web"))], ..Constraints::default() };
    comes(&mut script, 4, high(1000, without_web));
    assert_eq!(script.round(), [], "the one would lose its db, the other waits until the last web has gone");
    comes(&mut script, 5, high(1000, with_db));
    let actions = script.round();
    assert!(matches!(actions.as_slice(), [Action::Evict { pod: PodId(1), by: PodId(5), .. }]), "{actions:?}");
    // Its db ends before the place is free: then the place is of no use to it.
    script.ends(0);
    script.ends(1);
    script.round();
    assert_eq!((script.claim(5).is_none(), script.node_of(5)), (true, None));
}

#[test]
fn selectors_by_labels_of_namespaces_follow_the_namespaces() {
    let mut script = Script::of(Config::DEFAULT, [node("a", "x", 9000), node("b", "y", 9000)]);
    let team = |name: &str| BTreeMap::from([("team".to_owned(), name.to_owned())]);
    script.planner.apply(Event::Namespace("team".into(), Some(team("red")))).unwrap();
    comes(&mut script, 0, pod("db", 1, Constraints::default()));
    script.round();
    let pods = PodSelector { labels: Some(Vec::new()), namespaces: Vec::new(), namespace_labels: Some(vec![is("team", "red")]) };
    let apart = Constraints { apart: vec![near("zone", pods)], ..Constraints::default() };
    comes(&mut script, 1, PodSpec { namespace: "other".into(), ..pod("web", 1, apart) });
    script.planner.apply(Event::Namespace("team".into(), Some(team("blue")))).unwrap();
    assert_eq!(script.planner.feasible(script.planner.cluster().pod(PodId(1)).unwrap().demand).len(), 2);
    script.planner.apply(Event::Namespace("team".into(), Some(team("red")))).unwrap();
    script.round();
    assert_eq!(places(&script, 0..2), on(&["a", "b"]));
    // Who comes there now is kept away, too; and no longer once its namespace is gone.
    comes(&mut script, 2, pod("db", 9000, Constraints::default()));
    script.round();
    assert_eq!(script.node_of(2), None);
    assert!(script.reason(2).contains("1 near pods that it must not run with"), "{}", script.reason(2));
    script.planner.apply(Event::Namespace("team".into(), None)).unwrap();
    assert!(!script.reason(2).contains("must not run with"), "{}", script.reason(2));
}

#[test]
fn reasons_name_what_keeps_pods_away() {
    let tainted = NodeSpec {
        taints: vec![Taint { key: "dedicated".into(), value: "ml".into(), effect: Effect::NoSchedule }],
        ..node("a", "x", 9000)
    };
    let mut script = Script::of(Config::DEFAULT, [tainted, NodeSpec { unschedulable: true, ..node("b", "x", 9000) }, node("c", "y", 9000)]);
    let selector = vec![("zone".to_owned(), "x".to_owned())];
    comes(&mut script, 0, pod("web", 1, Constraints { selector, ..Constraints::default() }));
    script.round();
    assert_eq!(
        script.reason(0),
        "0/3 nodes fit: 1 that its selector or affinity leaves out, 1 with a taint that it does not bear, 1 cordoned; nearest is b: it is \
         cordoned; uncordon it; no node could take it even when idle"
    );
    let selector = vec![(HOST.to_owned(), "a".to_owned())];
    comes(&mut script, 1, pod("web", 1, Constraints { selector, ..Constraints::default() }));
    assert!(script.reason(1).contains("nearest is a: a toleration of its taint dedicated=ml:NoSchedule would do"), "{}", script.reason(1));
    let volumes = vec![vec![NodeTerm { labels: vec![is("zone", "z")], fields: Vec::new() }]];
    comes(&mut script, 2, pod("web", 1, Constraints { volumes, ..Constraints::default() }));
    assert!(script.reason(2).contains("3 from which its volumes cannot be reached"), "{}", script.reason(2));
}

#[test]
fn pods_change_lanes_as_selectors_come_and_keep_their_turn() {
    let mut script = Script::of(Config { preempt: false, ..Config::DEFAULT }, [node("a", "x", 1000)]);
    comes(&mut script, 0, pod("full", 1000, Constraints::default()));
    script.round();
    for (id, app) in [(1, "x"), (2, "y"), (3, "x"), (4, "y")] {
        comes(&mut script, id, pod(app, 1000, Constraints::default()));
    }
    assert_eq!(script.planner.queue().lanes().count(), 1, "nobody asks what they are called");
    comes(&mut script, 5, pod("z", 1000, Constraints { apart: vec![near(HOST, app("x"))], ..Constraints::default() }));
    assert_eq!(script.planner.queue().lanes().count(), 3);
    script.planner.apply(Event::PodRelabelled(PodId(3), BTreeMap::from([("app".to_owned(), "y".to_owned())]))).unwrap();
    let mut order = Vec::new();
    for _ in 0..5 {
        let running = (0..6).find(|&id| script.node_of(id).is_some()).unwrap();
        script.ends(running);
        script.round();
        order.extend((0..6).find(|&id| script.node_of(id).is_some()));
    }
    assert_eq!(order, [1, 2, 3, 4, 5]);
}
