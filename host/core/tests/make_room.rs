//! Room for pods that do not fit: who is moved, who is evicted, and whom a place is kept for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod script;

use partita_core::{
    Action, Config,
    model::{Cut, GpuAsk, GpuSpec, NodeId, NodeSpec, PodId, node::MPS_CLIENTS_MAX},
    state::Why,
};
use script::{Mover, Script, Zeros, mig, whole};

const MOVES: Config = Config { moves: 2, preempt: false, ..Config::DEFAULT };

#[test]
fn a_partition_in_the_way_moves_and_nobody_loses_their_place() {
    let mut script = Script::new(MOVES, &[("a", "A30", 1), ("b", "A30", 1)]);
    script.runs(0, "a", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]).restartable(0);
    script.runs(1, "b", mig("1g.6gb"), 0, &[(0, 2, "1g.6gb")]);
    script.waits(2, mig("4g.24gb"), 0);
    let actions = script.round();
    let moved = actions.iter().any(|action| matches!(action, Action::Move { pod: PodId(0), by: Some(PodId(2)), .. }));
    assert!(moved, "{actions:?}");
    assert_eq!((script.node_of(0), script.node_of(2)), (Some("b".into()), None), "it has not left yet");
    script.left(0);
    script.round();
    assert_eq!(script.node_of(2), Some("a".into()));
}

#[test]
fn who_does_not_say_that_it_may_restart_is_not_moved() {
    let mut script = Script::new(MOVES, &[("a", "A30", 1), ("b", "A30", 1)]);
    script.runs(0, "a", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]);
    script.runs(1, "b", mig("1g.6gb"), 0, &[(0, 2, "1g.6gb")]);
    script.waits(2, mig("4g.24gb"), 0);
    assert!(script.round().is_empty());
}

#[test]
fn a_pod_that_waited_long_gets_the_next_place_that_is_large_enough() {
    let config = Config { patience_ms: 60_000, hold_ms: 600_000, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 1)]);
    script.runs(0, "a", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]);
    script.waits(1, mig("4g.24gb"), 0);
    script.at(59_999);
    assert!(script.round().is_empty() && script.claim(1).is_none());
    script.at(60_000);
    script.round();
    let claim = script.claim(1).unwrap();
    assert_eq!((claim.why, claim.until_ms, claim.waits_for.clone()), (Why::Reserved, Some(660_000), vec![PodId(0)]));
    // A small pod would fit beside the running one, and starve the large one.
    script.waits(2, mig("1g.6gb"), 0);
    assert!(script.round().is_empty());
    assert!(script.reason(2).contains("kept for pod team/pod-1"), "{}", script.reason(2));
    script.ends(0);
    script.round();
    assert_eq!((script.node_of(1), script.node_of(2)), (Some("a".into()), None));
}

#[test]
fn a_place_is_not_kept_for_ever() {
    let config = Config { patience_ms: 60_000, hold_ms: 600_000, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 1)]);
    script.runs(0, "a", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]);
    script.waits(1, mig("4g.24gb"), 0);
    script.at(60_000);
    script.round();
    script.waits(2, mig("1g.6gb"), 0);
    script.round();
    script.at(660_000);
    script.round();
    assert_eq!((script.claim(1).is_none(), script.node_of(2)), (true, Some("a".into())));
}

#[test]
fn a_place_kept_for_a_pod_does_not_bind_those_of_higher_priority() {
    let config = Config { patience_ms: 60_000, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 1)]);
    script.runs(0, "a", mig("2g.12gb"), 5, &[(0, 0, "2g.12gb")]);
    script.waits(1, mig("4g.24gb"), 0);
    script.at(60_000);
    script.round();
    script.waits(2, mig("1g.6gb"), 5);
    script.round();
    assert_eq!(script.node_of(2), Some("a".into()));
}

#[test]
fn the_fewest_and_cheapest_go_and_no_more_than_the_shape_needs() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 1), ("b", "A30", 1)]);
    for (pod, slot, priority) in [(0, 0, 1), (1, 1, 1), (2, 2, 0), (3, 3, 1)] {
        script.runs(pod, "a", mig("1g.6gb"), priority, &[(0, slot, "1g.6gb")]);
    }
    // One pod on the other node, of higher priority than two of those would cost together: one who goes is less than two.
    script.runs(4, "b", mig("4g.24gb"), 4, &[(0, 0, "4g.24gb")]);
    script.waits(5, mig("2g.12gb"), 5);
    let evicted = |actions: &[Action]| {
        actions.iter().filter_map(|action| if let Action::Evict { pod, .. } = action { Some(pod.0) } else { None }).collect::<Vec<_>>()
    };
    assert_eq!(evicted(&script.round()), [4]);
    // Of equal priority nobody goes; of two pairs the cheaper one does.
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 1)]);
    for (pod, slot, priority) in [(0, 0, 1), (1, 1, 1), (2, 2, 0), (3, 3, 1)] {
        script.runs(pod, "a", mig("1g.6gb"), priority, &[(0, slot, "1g.6gb")]);
    }
    script.waits(4, mig("2g.12gb"), 1);
    assert!(script.round().is_empty());
    script.waits(5, mig("2g.12gb"), 5);
    assert_eq!(evicted(&script.round()), [2, 3]);
    assert!(script.round().is_empty(), "they were told once");
    script.ends(2);
    script.round();
    assert_eq!(script.node_of(5), None, "half of the room is not room");
    script.ends(3);
    script.round();
    assert_eq!(script.node_of(5), Some("a".into()));
}

#[test]
fn disruption_budgets_and_promised_runtimes_hold() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 2)]);
    script.runs(0, "a", mig("4g.24gb"), 0, &[(0, 0, "4g.24gb")]).budget(0, "web");
    script.runs(1, "a", mig("4g.24gb"), 1, &[(1, 0, "4g.24gb")]).budget(1, "web").promised(1, 60_000);
    script.allow("web", 0);
    script.waits(2, mig("2g.12gb"), 5);
    assert!(script.round().is_empty(), "nobody may go");
    script.allow("web", 2);
    script.waits(3, mig("4g.24gb"), 5);
    let evicted = |actions: &[Action]| actions.iter().filter(|action| matches!(action, Action::Evict { .. })).count();
    assert_eq!(evicted(&script.round()), 1, "the other one was promised a minute");
    script.at(60_000);
    assert_eq!(evicted(&script.round()), 1);
}

#[test]
fn several_whole_gpus_take_those_with_the_fewest_users() {
    let mut script = Script::with_shares(Config::DEFAULT, &[("a", "T4", 3)]);
    script.runs_share(0, "a", 500, 0, &[0]).runs_share(1, "a", 500, 0, &[1]).runs_share(2, "a", 500, 0, &[1]).runs_share(
        3,
        "a",
        500,
        0,
        &[2],
    );
    script.waits(4, whole(2), 1);
    let evicted: Vec<u32> =
        script.round().into_iter().filter_map(|action| if let Action::Evict { pod, .. } = action { Some(pod.0) } else { None }).collect();
    assert_eq!(evicted, [0, 3]);
}

#[test]
fn who_never_preempts_waits() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 1)]);
    script.runs(0, "a", mig("4g.24gb"), 0, &[(0, 0, "4g.24gb")]);
    script.waits_politely(1, mig("1g.6gb"), 9);
    assert!(script.round().is_empty());
}

#[test]
fn what_a_policy_moves_is_checked_and_moved_only_where_it_fits() {
    let start = || {
        let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 1), ("b", "A30", 1)]);
        script.runs(0, "a", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]).restartable(0);
        script.runs(1, "b", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]).restartable(1);
        script.runs(2, "b", mig("1g.6gb"), 0, &[(0, 2, "1g.6gb")]);
        script
    };
    // Pod 2 may not move, so there are two rows. What is wrong is refused whole.
    for wrong in [vec![(2, 0)], vec![(0, 7)], vec![(0, 1), (0, 1)], vec![(0, 1), (1, 0), (0, 0)]] {
        let (mut script, mut mover) = (start(), Mover(wrong, 0));
        let plan = script.planner.consolidate(&mut [&mut mover], 2);
        assert_eq!((plan.actions.len(), plan.faults.len(), mover.1), (0, 1, 1));
    }
    let mut script = start();
    let plan = script.planner.consolidate(&mut [&mut Mover(vec![(0, 1), (1, 0)], 0)], 2);
    // The first fits on slot 3. The second fits beside the place that the first has not left yet.
    let moved: Vec<(u32, u32)> = plan
        .actions
        .iter()
        .filter_map(|action| if let Action::Move { pod, node, by: None, .. } = action { Some((pod.0, node.0)) } else { None })
        .collect();
    assert_eq!(moved, [(0, 1), (1, 0)]);
    assert_eq!((script.node_of(0), script.node_of(1)), (Some("b".into()), Some("a".into())));
    script.left(0);
    script.left(1);
    script.waits(3, mig("2g.12gb"), 0);
    script.round();
    assert_eq!(script.node_of(3), Some("b".into()));
    // A policy without an opinion moves nobody.
    assert!(script.planner.consolidate(&mut [&mut script::Zeros], 2).actions.is_empty());
}

#[test]
fn who_never_preempts_does_not_keep_equals_from_it() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 1)]);
    script.runs(0, "a", mig("4g.24gb"), 0, &[(0, 0, "4g.24gb")]);
    script.waits_politely(1, mig("1g.6gb"), 9);
    assert!(script.round().is_empty());
    script.waits(2, mig("1g.6gb"), 9);
    assert_eq!(script.round(), [Action::Evict { pod: PodId(0), node: NodeId(0), by: PodId(2) }]);
}

#[test]
fn a_gpu_that_others_have_a_claim_on_does_not_hide_one_like_it() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 2)]);
    script.runs(0, "a", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]).runs(1, "a", mig("1g.6gb"), 9, &[(1, 0, "1g.6gb")]);
    script.waits(2, mig("4g.24gb"), 5);
    assert_eq!(script.round(), [Action::Evict { pod: PodId(0), node: NodeId(0), by: PodId(2) }]);
    script.waits(3, mig("2g.12gb"), 0);
    script.round();
    assert_eq!(script.node_of(3), Some("a".into()), "{}", script.reason(3));
    let mut script = Script::with_shares(Config::DEFAULT, &[("a", "T4", 2)]);
    script.runs_share(0, "a", 500, 0, &[0]).runs_share(1, "a", 500, 9, &[1]);
    script.waits(2, whole(1), 5);
    script.round();
    script.waits(3, GpuAsk::Share { count: 1, milli: 500 }, 0);
    script.round();
    assert_eq!(script.node_of(3), Some("a".into()), "{}", script.reason(3));
}

#[test]
fn one_client_of_a_gpu_that_can_have_no_more_goes() {
    let gpus = vec![GpuSpec::new("H100-80GB", Cut::Mps)];
    let mut script = Script::of(Config::DEFAULT, [NodeSpec { name: "a".into(), gpus, ..NodeSpec::default() }]);
    let share = GpuAsk::Mps { memory_mib: 1000 };
    for pod in 0..MPS_CLIENTS_MAX as u32 {
        script.waits(pod, share.clone(), 0);
    }
    script.round();
    let last = MPS_CLIENTS_MAX as u32;
    assert_eq!(script.node_of(last - 1), Some("a".into()));
    script.waits(last, share, 1);
    let actions = script.round();
    assert!(matches!(actions.as_slice(), [Action::Evict { by: PodId(48), .. }]), "{actions:?}");
}

#[test]
fn moves_are_counted_against_disruption_budgets() {
    let mut script = Script::new(MOVES, &[("a", "A30", 1), ("b", "A30", 1), ("c", "A30", 1)]);
    script.runs(0, "a", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]).budget(0, "web").restartable(0);
    script.runs(1, "b", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]).budget(1, "web").restartable(1);
    script.runs(2, "c", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]);
    script.runs(3, "c", mig("1g.6gb"), 0, &[(0, 2, "1g.6gb")]);
    script.allow("web", 1);
    script.waits(4, mig("4g.24gb"), 0).waits(5, mig("4g.24gb"), 0);
    let moved = |actions: &[Action]| actions.iter().filter(|action| matches!(action, Action::Move { .. })).count();
    assert_eq!(moved(&script.round()), 1);
    assert_eq!(moved(&script.round()), 0);
}

#[test]
fn moves_that_are_tried_in_vain_cost_one_look() {
    let mut script = Script::new(MOVES, &[("a", "A30", 1)]);
    script.runs(0, "a", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]).restartable(0);
    script.runs(1, "a", mig("2g.12gb"), 0, &[(0, 2, "2g.12gb")]).restartable(1);
    script.waits(2, mig("4g.24gb"), 0);
    let plan = script.planner.round(&mut [&mut Zeros]);
    assert_eq!((plan.actions.len(), plan.decisions), (0, 1));
}

#[test]
fn a_kept_place_that_falls_free_is_offered_to_those_of_higher_priority_first() {
    let config = Config { patience_ms: 60_000, ..Config::DEFAULT };
    let mut script = Script::new(config, &[("a", "A30", 1)]);
    script.runs(0, "a", mig("2g.12gb"), 5, &[(0, 0, "2g.12gb")]).runs(1, "a", mig("2g.12gb"), 5, &[(0, 2, "2g.12gb")]);
    script.waits(2, mig("4g.24gb"), 0);
    script.at(60_000);
    script.round();
    assert_eq!(script.claim(2).map(|claim| claim.why), Some(Why::Reserved));
    script.waits(3, mig("1g.6gb"), 1);
    script.ends(0);
    script.ends(1);
    let actions = script.round();
    assert!(!actions.iter().any(|action| matches!(action, Action::Evict { .. })), "{actions:?}");
    assert_eq!((script.node_of(3), script.node_of(2)), (Some("a".into()), None));
}

#[test]
fn who_was_placed_in_a_round_is_not_disturbed_in_it() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 1)]);
    // The first one comes and is placed; in the next round one of higher priority takes its place.
    script.waits(0, mig("4g.24gb"), 0);
    let bound = |actions: &[Action]| actions.iter().filter(|action| matches!(action, Action::Bind { .. })).count();
    assert_eq!(bound(&script.round()), 1);
    script.waits(1, mig("4g.24gb"), 1);
    assert_eq!(script.round(), [Action::Evict { pod: PodId(0), node: NodeId(0), by: PodId(1) }]);
    // The reproduction of a round that bound a pod and moved it at once.
    let mut script = Script::new(MOVES, &[("a", "A30", 1), ("b", "A30", 1)]);
    script.runs(0, "a", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]).runs(1, "b", mig("1g.6gb"), 0, &[(0, 2, "1g.6gb")]);
    script.waits_restartable(2, mig("1g.6gb"), 5).waits(3, mig("2g.12gb"), 4).waits(4, mig("2g.12gb"), 3);
    let actions = script.round();
    let told = |pod: u32| {
        actions
            .iter()
            .filter(|action| matches!(action, Action::Bind { pod: other, .. } | Action::Move { pod: other, .. } if other.0 == pod))
            .count()
    };
    assert!((0..5).all(|pod| told(pod) <= 1), "{actions:?}");
}
