//! Claims and victims where several things happen at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod script;
use partita_core::{
    Action, Config,
    model::{Cut, Demand, Found, GpuAsk, GpuSpec, NodeId, NodeSpec, Partitioning, Placement, PodId, PodSpec, Terms, catalog},
    state::{Event, Grant, Refused, Use},
};
use script::{Mover, Script, mig, whole};

const MOVES: Config = Config { moves: 2, preempt: false, ..Config::DEFAULT };
fn evicted(a: &[Action]) -> Vec<u32> {
    a.iter().filter_map(|a| if let Action::Evict { pod, .. } = a { Some(pod.0) } else { None }).collect()
}

#[test]
fn tidying_keeps_within_disruption_budgets() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 1), ("b", "A30", 1)]);
    let terms = || Terms { restartable: true, budgets: vec!["web".into()], ..Terms::default() };
    let p1 = |n: u32| PodSpec {
        name: format!("p{n}"),
        namespace: "t".into(),
        priority: 0,
        demand: Demand { cpu_milli: 0, memory_mib: 0, gpu: mig("1g.6gb"), models: vec![], ..Demand::default() },
        terms: terms(),
        ..PodSpec::default()
    };
    for n in 0..2u8 {
        script
            .planner
            .apply(Event::PodRuns(
                PodId(n.into()),
                p1(n.into()),
                NodeId(0),
                Grant(vec![(0, Use::Partition(Placement { profile: 0, start: n }))]),
            ))
            .unwrap();
    }
    script.runs(2, "b", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]);
    script.allow("web", 1);
    let plan = script.planner.consolidate(&mut [&mut Mover(vec![(0, 1), (1, 1)], 0)], 2);
    let n = plan.actions.iter().filter(|a| matches!(a, Action::Move { .. })).count();
    assert_eq!(n, 1, "{:?}", plan.actions);
}

#[test]
fn a_pod_that_has_moved_may_be_evicted_again() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 1), ("b", "A30", 1)]);
    script.runs(0, "a", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]).restartable(0);
    script.runs(1, "a", mig("1g.6gb"), 9, &[(0, 2, "1g.6gb")]);
    script.runs(2, "b", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]);
    let plan = script.planner.consolidate(&mut [&mut Mover(vec![(0, 1)], 0)], 2);
    assert_eq!(plan.actions.len(), 1);
    script.waits(3, mig("4g.24gb"), 5);
    assert!(evicted(&script.round()).is_empty());
    script.left(0);
    assert_eq!(evicted(&script.round()), [0, 2], "now it may go");
}

#[test]
fn several_partitions_take_the_place_of_the_fewest() {
    let m = |i: u8| Found { profile: Some("1g.6gb".into()), start: i, memory_mib: 0, used: true };
    let gpus = vec![GpuSpec { found: (0..4).map(m).collect(), ..GpuSpec::new("A30", Cut::Mig) }, GpuSpec::new("A30", Cut::Shares)];
    let node =
        NodeSpec { name: "a".into(), cpu_milli: 1000, memory_mib: 1000, gpus, partitioning: Partitioning::Auto, ..NodeSpec::default() };
    let mut script = Script::of(Config::DEFAULT, [node]);
    for i in 0..4u8 {
        script.runs(i.into(), "a", mig("1g.6gb"), 0, &[(0, i, "1g.6gb")]);
    }
    script.runs_share(4, "a", 1000, 0, &[1]);
    script.waits(5, GpuAsk::Mig { partitions: vec![("2g.12gb".into(), 2)] }, 5);
    assert_eq!(evicted(&script.round()), [4]);
}

#[test]
fn who_has_a_kept_place_still_evicts_when_it_may() {
    let config = Config { patience_ms: 60_000, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 1), ("b", "A30", 1)]);
    script.runs(0, "a", mig("4g.24gb"), 9, &[(0, 0, "4g.24gb")]);
    script.runs(1, "b", mig("4g.24gb"), 0, &[(0, 0, "4g.24gb")]).budget(1, "web");
    script.allow("web", 0);
    script.waits(2, mig("4g.24gb"), 5);
    script.round();
    script.at(60_000);
    script.round();
    assert!(script.claim(2).is_some());
    script.allow("web", 1);
    assert_eq!(evicted(&script.round()), [1], "{:?}", script.claim(2));
}

#[test]
fn a_place_kept_for_an_equal_holds_its_own_gpus_only() {
    let config = Config { patience_ms: 60_000, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 2)]);
    script.runs(0, "a", mig("4g.24gb"), 9, &[(0, 0, "4g.24gb")]);
    script.runs(1, "a", mig("4g.24gb"), 0, &[(1, 0, "4g.24gb")]).budget(1, "web");
    script.allow("web", 0);
    script.waits(2, mig("4g.24gb"), 5);
    script.round();
    script.at(60_000);
    script.round();
    assert_eq!(script.claim(2).unwrap().waits_for, [PodId(0)]);
    script.allow("web", 1);
    script.waits(3, mig("4g.24gb"), 5);
    assert_eq!(evicted(&script.round()), [1]);
}

#[test]
fn who_left_one_node_is_still_awaited_on_another() {
    let config = Config { patience_ms: 60_000, hold_ms: 600_000, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 1), ("b", "A30", 1)]);
    script.runs(0, "a", mig("1g.6gb"), 9, &[(0, 0, "1g.6gb")]).restartable(0);
    for n in 1..4u8 {
        script.runs(n.into(), "a", mig("1g.6gb"), 9, &[(0, n, "1g.6gb")]);
    }
    script.runs(4, "b", mig("1g.6gb"), 9, &[(0, 0, "1g.6gb")]);
    assert_eq!(script.planner.consolidate(&mut [&mut Mover(vec![(0, 1)], 0)], 2).actions.len(), 1);
    script.waits(5, mig("4g.24gb"), 0);
    script.at(60_000);
    script.round();
    assert_eq!(script.claim(5).unwrap().waits_for, [PodId(0), PodId(4)]);
    script.left(0);
    script.round();
    assert_eq!(script.claim(5).unwrap().waits_for, [PodId(0), PodId(4)], "pod 0 still runs on b");
}

#[test]
fn a_pod_that_is_said_to_use_nothing_of_a_gpu_is_refused() {
    let gpus = vec![GpuSpec::new("A30", Cut::Shares)];
    let node =
        NodeSpec { name: "a".into(), cpu_milli: 1000, memory_mib: 1000, gpus, partitioning: Partitioning::Auto, ..NodeSpec::default() };
    let mut script = Script::of(Config::DEFAULT, [node]);
    let spec = PodSpec {
        name: "x".into(),
        namespace: "t".into(),
        priority: 0,
        demand: Demand { cpu_milli: 0, memory_mib: 0, gpu: whole(1), models: vec![], ..Demand::default() },
        terms: Terms::default(),
        ..PodSpec::default()
    };
    let refused = script.planner.apply(Event::PodRuns(PodId(0), spec, NodeId(0), Grant(vec![(0, Use::Share(0))])));
    assert!(matches!(refused, Err(Refused::NoRoom { .. })), "{refused:?}");
}

#[test]
fn room_made_by_moves_waits_for_nobody_else() {
    let config = Config { moves: 2, preempt: false, patience_ms: 60_000, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 2), ("b", "A30", 1)]);
    script.runs(0, "a", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]);
    script.runs(1, "a", mig("1g.6gb"), 0, &[(1, 0, "1g.6gb")]);
    script.runs(2, "b", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]);
    script.waits(3, mig("4g.24gb"), 0);
    script.at(60_000);
    script.round();
    assert_eq!(script.claim(3).unwrap().waits_for, [PodId(0)]);
    script.restartable(1);
    script.waits(4, mig("4g.24gb"), 5);
    script.round();
    script.left(1);
    script.round();
    assert_eq!(script.node_of(4), Some("a".into()), "{:?}", script.claim(4));
}

#[test]
fn moves_in_vain_leave_kept_places_as_they_were() {
    let config = Config { moves: 2, preempt: false, patience_ms: 60_000, hold_ms: 600_000, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 1)]);
    script.runs(0, "a", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]).restartable(0);
    script.waits(1, mig("4g.24gb"), 0);
    script.at(60_000);
    script.round();
    let first = script.claim(1).unwrap().until_ms;
    script.waits(2, mig("4g.24gb"), 5);
    script.at(90_000);
    script.round();
    assert_eq!(script.claim(1).map(|c| c.until_ms), Some(first), "deadline moved");
}

#[test]
fn who_lingers_on_one_gpu_does_not_hold_up_another() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 2)]);
    script.runs(0, "a", mig("4g.24gb"), 0, &[(0, 0, "4g.24gb")]);
    script.runs(1, "a", mig("4g.24gb"), 1, &[(1, 0, "4g.24gb")]);
    script.waits(2, mig("4g.24gb"), 5);
    assert_eq!(evicted(&script.round()), [0]);
    script.waits(3, mig("4g.24gb"), 5);
    assert_eq!(evicted(&script.round()), [1]);
    script.ends(1);
    script.round();
    assert!(script.node_of(3).is_some() || script.node_of(2).is_some(), "GPU 1 is free; {:?} {:?}", script.claim(2), script.claim(3));
}

#[test]
fn a_way_within_budgets_is_found_among_many_that_are_not() {
    let mut script = Script::with_shares(Config::DEFAULT, &[("a", "T4", 10)]);
    script.allow("web", 1);
    let mut pod = 0;
    for gpu in 0..9 {
        for _ in 0..2 {
            script.runs_share(pod, "a", 500, 0, &[gpu]).budget(pod, "web");
            pod += 1;
        }
    }
    for _ in 0..3 {
        script.runs_share(pod, "a", 330, 0, &[9]);
        pod += 1;
    }
    script.waits(pod, whole(1), 5);
    assert_eq!(evicted(&script.round()), [18, 19, 20]);
}

#[test]
fn of_many_users_a_cheap_one_goes() {
    let mut script = Script::with_shares(Config::DEFAULT, &[("a", "T4", 1)]);
    for pod in 0..18 {
        script.runs_share(pod, "a", 50, 0, &[0]);
    }
    script.runs_share(18, "a", 100, 8, &[0]);
    script.waits(19, GpuAsk::Share { count: 1, milli: 50 }, 9);
    let e = evicted(&script.round());
    assert!(e.len() == 1 && e[0] < 18, "{e:?}");
}

#[test]
fn kept_places_go_to_those_of_higher_priority() {
    let config = Config { patience_ms: 60_000, holds: 1, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 1), ("b", "A30", 1)]);
    script.runs(0, "a", mig("2g.12gb"), 9, &[(0, 0, "2g.12gb")]);
    script.runs(1, "b", mig("2g.12gb"), 9, &[(0, 0, "2g.12gb")]);
    script.waits(2, mig("4g.24gb"), 0);
    script.at(60_000);
    script.round();
    assert!(script.claim(2).is_some());
    script.waits(3, mig("4g.24gb"), 5);
    script.at(120_000);
    script.round();
    assert!(script.claim(3).is_some());
}

#[test]
fn nobody_is_moved_for_one_of_lower_priority() {
    let mut script = Script::new(MOVES, &[("a", "A30", 1), ("b", "A30", 1)]);
    script.runs(0, "a", mig("1g.6gb"), 1000, &[(0, 0, "1g.6gb")]).restartable(0);
    script.runs(1, "b", mig("1g.6gb"), 1000, &[(0, 2, "1g.6gb")]);
    script.waits(2, mig("4g.24gb"), 0);
    assert!(script.round().is_empty());
}

#[test]
fn a_gpu_is_used_again_once_its_double_is_gone() {
    let gpu = || GpuSpec { uuid: "GPU-1".into(), ..GpuSpec::new("A30", Cut::Mig) };
    let node = |n: &str| NodeSpec { name: n.into(), cpu_milli: 1000, memory_mib: 1000, gpus: vec![gpu()], ..NodeSpec::default() };
    let mut script = Script::of(Config::DEFAULT, [node("old"), node("new")]);
    script.planner.apply(Event::NodeRemoved(NodeId(0))).unwrap();
    script.waits(0, mig("1g.6gb"), 0);
    script.round();
    assert_eq!(script.node_of(0), Some("new".into()), "{}", script.reason(0));
}

#[test]
fn a_kept_place_that_is_not_in_the_way_stays() {
    let config = Config { patience_ms: 60_000, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 2)]);
    script.runs(0, "a", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]);
    script.runs(1, "a", mig("2g.12gb"), 9, &[(1, 0, "2g.12gb")]).runs(2, "a", mig("2g.12gb"), 0, &[(1, 2, "2g.12gb")]);
    script.waits(3, mig("4g.24gb"), 0);
    script.at(60_000);
    script.round();
    assert_eq!(script.claim(3).unwrap().waits_for, [PodId(0)]);
    script.waits(4, mig("2g.12gb"), 5);
    let a = script.round();
    assert!(script.claim(3).is_some(), "dropped by {a:?} {:?}", script.claim(4));
}

#[test]
fn a_kept_place_does_not_keep_its_pod_from_a_free_one() {
    // Reserved on GPU 0; GPU 1 of the same node becomes free, cpu only enough for one.
    let config = Config { patience_ms: 60_000, ..Config::DEFAULT };
    let node = NodeSpec {
        name: "a".into(),
        cpu_milli: 3000,
        memory_mib: 1000,
        gpus: vec![GpuSpec::new("A30", Cut::Mig); 2],
        ..NodeSpec::default()
    };
    let mut script = Script::of(config, [node]);
    let place = |gpu| {
        Grant(vec![(
            gpu,
            Use::Partition(Placement { profile: catalog::builtin("A30").unwrap().grid.unwrap().resolve("4g.24gb").unwrap(), start: 0 }),
        )])
    };
    let spec = |n: u32| PodSpec {
        name: format!("p{n}"),
        namespace: "t".into(),
        priority: 0,
        demand: Demand { cpu_milli: 1500, memory_mib: 0, gpu: mig("4g.24gb"), models: vec![], ..Demand::default() },
        terms: Terms::default(),
        ..PodSpec::default()
    };
    script.planner.apply(Event::PodRuns(PodId(0), spec(0), NodeId(0), place(0))).unwrap();
    script.planner.apply(Event::PodRuns(PodId(1), spec(1), NodeId(0), place(1))).unwrap();
    script.planner.apply(Event::PodAdded(PodId(2), spec(2))).unwrap();
    script.at(60_000);
    script.round();
    script.ends(1);
    script.round();
    assert_eq!(script.node_of(2), Some("a".into()), "{:?}", script.claim(2));
}

#[test]
fn a_round_in_which_nothing_can_be_done_changes_nothing() {
    let mut script = Script::new(Config { moves: 1, ..MOVES }, &[("a", "A30", 1), ("b", "A30", 1)]);
    for (n, node) in [(0, "a"), (4, "b")] {
        for i in 0..4 {
            script.runs(n + i, node, mig("1g.6gb"), 0, &[(0, i as u8, "1g.6gb")]).restartable(n + i);
        }
    }
    script.waits(8, mig("1g.6gb"), 0);
    script.round();
    let before = script.planner.cluster().journal().position();
    script.round();
    let n = script.planner.cluster().journal().position() - before;
    assert_eq!(n, 0, "an idle round changes nothing");
}

#[test]
fn reason_of_a_pod_with_a_claim() {
    let config = Config { patience_ms: 60_000, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 1)]);
    script.runs(0, "a", mig("2g.12gb"), 9, &[(0, 0, "2g.12gb")]);
    script.waits(1, mig("2g.12gb"), 0).waits(2, mig("4g.24gb"), 0);
    script.at(60_000);
    script.round();
    script.ends(1);
    script.round();
}
