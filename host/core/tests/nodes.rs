//! Nodes that change under running pods, and pods that are stopped by others or cannot be stopped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![allow(dead_code, reason = "the script is shared with other tests")]

mod script;

use partita_core::{
    Action, Config,
    model::{Cut, Found, GpuSpec, NodeId, NodeSpec, Placement, PodId, catalog},
    state::{Event, Gpu, Grant, Holder, Layout, Refused, Use},
};
use proptest::prelude::*;
use script::{Script, mig, whole};

const NODE: NodeId = NodeId(0);

fn found(profile: &str, start: u8, used: bool) -> Found {
    Found { profile: Some(profile.into()), start, memory_mib: 0, used }
}

/// One node with two A30 that MIG cuts.
fn script() -> Script {
    Script::new(Config::DEFAULT, &[("a", "A30", 2)])
}

fn change(script: &mut Script, change: impl Fn(&mut NodeSpec)) {
    let mut spec = script.planner.cluster().node(NODE).unwrap().spec.clone();
    change(&mut spec);
    script.planner.apply(Event::NodeChanged(NODE, spec)).unwrap();
}

fn gpu(script: &Script, index: usize) -> &Gpu {
    &script.planner.cluster().node(NODE).unwrap().room.gpus[index]
}

fn partitions(script: &Script, index: usize) -> Vec<(u8, Option<Holder>)> {
    let (gpu, models) = (gpu(script, index), script.planner.cluster().models());
    let Layout::Mig(mig) = &gpu.layout else { return Vec::new() };
    mig.partitions(models.layouts(gpu.model).unwrap()).map(|one| (one.placement.start, one.holder)).collect()
}

#[test]
fn what_was_decided_stays_when_labels_change() {
    let mut script = script();
    script.waits(0, mig("1g.6gb"), 0);
    script.round();
    let before = partitions(&script, 0);
    change(&mut script, |spec| drop(spec.labels.insert("zone".into(), "a".into())));
    assert_eq!(partitions(&script, 0), before);
    assert_eq!(script.planner.cluster().node(NODE).unwrap().spec.labels["zone"], "a");
}

#[test]
fn a_warm_partition_that_is_gone_is_forgotten_and_a_new_one_is_adopted() {
    let mut script = script();
    change(&mut script, |spec| spec.gpus[0].found = vec![found("1g.6gb", 0, false)]);
    assert_eq!(partitions(&script, 0), [(0, None)]);
    change(&mut script, |spec| spec.gpus[0].found = vec![found("2g.12gb", 2, false)]);
    assert_eq!(partitions(&script, 0), [(2, None)]);
}

#[test]
fn the_report_of_a_pods_own_partition_changes_nothing() {
    let mut script = script();
    script.runs(0, "a", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]);
    change(&mut script, |spec| spec.gpus[0].found = vec![found("1g.6gb", 0, true), found("1g.6gb", 1, true)]);
    assert_eq!(partitions(&script, 0), [(0, Some(Holder::Pod(PodId(0)))), (1, Some(Holder::Unknown))]);
    script.ends(0);
    assert_eq!(partitions(&script, 0), [(0, None), (1, Some(Holder::Unknown))]);
}

#[test]
fn a_pod_whose_place_somebody_else_has_runs_without() {
    let mut script = script();
    script.runs(0, "a", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]);
    change(&mut script, |spec| spec.gpus[0].found = vec![found("2g.12gb", 0, true)]);
    assert_eq!(partitions(&script, 0), [(0, Some(Holder::Unknown))]);
    assert_eq!(script.planner.cluster().runs_on(PodId(0)).unwrap().1.0, []);
    script.ends(0);
    assert_eq!(partitions(&script, 0), [(0, Some(Holder::Unknown))]);
}

#[test]
fn a_gpu_that_is_unwell_gets_no_pods_and_keeps_those_it_has() {
    let mut script = script();
    script.runs(0, "a", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]);
    let unwell = |words: &'static str| {
        move |spec: &mut NodeSpec| spec.gpus.iter_mut().for_each(|gpu| gpu.unusable = (!words.is_empty()).then(|| words.to_owned()))
    };
    change(&mut script, unwell("XID 79"));
    script.waits(1, mig("1g.6gb"), 0);
    assert!(script.round().is_empty());
    assert!(script.reason(1).contains("set aside"), "{}", script.reason(1));
    change(&mut script, unwell(""));
    assert_eq!(partitions(&script, 0), [(0, Some(Holder::Pod(PodId(0))))]);
    assert_eq!(script.round().len(), 1);
}

/// A part of GPU 0 that MIG cuts.
fn place(profile: &str, start: u8) -> (u8, Use) {
    let grid = catalog::builtin("A30").unwrap().grid.unwrap();
    (0, Use::Partition(Placement { profile: grid.resolve(profile).unwrap(), start }))
}

#[test]
fn pods_that_have_each_others_partitions_are_booked_so() {
    let mut script = script();
    for id in 0..2 {
        script.runs(id, "a", mig("1g.6gb"), 0, &[(0, id as u8, "1g.6gb")]);
    }
    let (first, second) = (PodId(0), PodId(1));
    let uses = |pairs: &[(PodId, (u8, Use))]| pairs.iter().map(|&(pod, part)| (pod, Grant(vec![part]))).collect::<Vec<_>>();
    let tell = |script: &mut Script, pairs: &[(PodId, (u8, Use))], strangers: &[(u8, Use)]| {
        script.planner.apply(Event::PodsUse(NODE, uses(pairs), strangers.to_vec()))
    };
    let swapped = [(first, place("1g.6gb", 1)), (second, place("1g.6gb", 0))];
    tell(&mut script, &swapped, &[]).unwrap();
    assert_eq!(partitions(&script, 0), [(0, Some(Holder::Pod(second))), (1, Some(Holder::Pod(first)))]);
    // One cannot have what the other has, nor may both be where they cannot.
    let before = script.planner.cluster().node(NODE).unwrap().clone();
    assert!(matches!(tell(&mut script, &[(first, place("1g.6gb", 0))], &[]), Err(Refused::NoRoom { .. })));
    assert!(matches!(tell(&mut script, &[swapped[0], (second, place("4g.24gb", 0))], &[]), Err(Refused::NoRoom { .. })));
    assert_eq!(tell(&mut script, &[(PodId(7), place("1g.6gb", 2))], &[]), Err(Refused::NoPod(PodId(7))));
    assert_eq!(script.planner.cluster().node(NODE).unwrap(), &before);
    // What a stranger uses is not free when its owner turns out to be elsewhere, or ends.
    assert!(matches!(tell(&mut script, &[], &[place("1g.6gb", 0)]), Err(Refused::InTheWay { gpu: 0, .. })), "it is a pod's");
    tell(&mut script, &[(first, place("2g.12gb", 2))], &[place("1g.6gb", 1)]).unwrap();
    let held = [(0, Some(Holder::Pod(second))), (1, Some(Holder::Unknown)), (2, Some(Holder::Pod(first)))];
    assert_eq!(partitions(&script, 0), held);
    script.ends(0);
    script.ends(1);
    assert_eq!(partitions(&script, 0), [(0, None), (1, Some(Holder::Unknown)), (2, None)]);
}

#[test]
fn a_node_that_shrinks_owes_and_takes_nobody_until_it_has_paid() {
    let mut script = Script::with_shares(Config::DEFAULT, &[("a", "A30", 2)]);
    script.runs_share(0, "a", 1000, 0, &[0]);
    let mut spec = script.planner.cluster().pod(PodId(0)).unwrap().spec.clone();
    script.ends(0);
    spec.demand.cpu_milli = 60_000;
    for id in 0..2u32 {
        let grant = partita_core::state::Grant(vec![(id as u8, Use::Share(1000))]);
        let name = format!("big-{id}");
        script.planner.apply(Event::PodRuns(PodId(id), partita_core::model::PodSpec { name, ..spec.clone() }, NODE, grant)).unwrap();
    }
    let free = |script: &Script| script.planner.cluster().node(NODE).unwrap().room.cpu_free;
    assert_eq!(free(&script), 0, "it has 100 cores and runs 120");
    script.ends(0);
    assert_eq!(free(&script), 40_000);
    change(&mut script, |spec| spec.cpu_milli = 30_000);
    assert_eq!(free(&script), 0);
    script.ends(1);
    assert_eq!(free(&script), 30_000);
}

#[test]
fn a_gpu_that_is_gone_takes_its_share_with_it() {
    let mut script = Script::with_shares(Config::DEFAULT, &[("a", "A30", 2)]);
    script.runs_share(0, "a", 1000, 0, &[0, 1]);
    change(&mut script, |spec| drop(spec.gpus.pop()));
    assert_eq!((gpu(&script, 0).share_free(), script.planner.cluster().node(NODE).unwrap().room.gpus.len()), (1000, 1));
    script.ends(0);
    assert_eq!(gpu(&script, 0).share_free(), 1000);
    change(&mut script, |spec| spec.gpus.push(GpuSpec::new("A30", Cut::Shares)));
    script.waits(0, whole(2), 0);
    assert_eq!(script.round().len(), 1);
}

#[test]
fn who_is_stopped_by_others_is_not_evicted_again() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 1)]);
    script.runs(0, "a", mig("4g.24gb"), 0, &[(0, 0, "4g.24gb")]);
    script.planner.apply(Event::PodStops(PodId(0))).unwrap();
    script.waits(1, mig("4g.24gb"), 10);
    assert!(script.round().is_empty(), "it is enough to wait");
    script.ends(0);
    assert_eq!(script.round().len(), 1);
}

#[test]
fn who_cannot_be_stopped_stays_and_the_claim_on_its_place_ends() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 1), ("b", "A30", 1)]);
    script.runs(0, "a", mig("4g.24gb"), 0, &[(0, 0, "4g.24gb")]);
    script.runs(1, "b", mig("4g.24gb"), 1, &[(0, 0, "4g.24gb")]);
    script.waits(2, mig("4g.24gb"), 10);
    let evicted = |actions: Vec<Action>| actions.iter().find_map(|one| if let Action::Evict { pod, .. } = one { Some(*pod) } else { None });
    assert_eq!(evicted(script.round()), Some(PodId(0)));
    script.planner.apply(Event::PodStays(PodId(0))).unwrap();
    assert!(script.claim(2).is_none());
    assert_eq!(evicted(script.round()), Some(PodId(0)), "nothing else was told");
    script.planner.apply(Event::PodStays(PodId(0))).unwrap();
    script.ends(0);
    assert!(matches!(script.planner.apply(Event::PodStays(PodId(1))), Err(Refused::NotStopping(PodId(1)))));
    script.round();
    assert_eq!(script.node_of(2), Some("a".into()));
}

#[test]
fn who_comes_under_a_budget_later_is_no_longer_evicted() {
    let mut script = Script::new(Config::DEFAULT, &[("a", "A30", 1)]);
    script.runs(0, "a", mig("4g.24gb"), 0, &[(0, 0, "4g.24gb")]);
    script.allow("keep", 0);
    let terms = partita_core::model::Terms { budgets: vec!["keep".into()], ..Default::default() };
    script.planner.apply(Event::PodTerms(PodId(0), terms.clone())).unwrap();
    script.waits(1, mig("4g.24gb"), 10);
    assert!(script.round().is_empty());
    script.planner.apply(Event::PodTerms(PodId(0), partita_core::model::Terms::default())).unwrap();
    assert_eq!(script.round().len(), 1);
    assert!(script.planner.apply(Event::PodTerms(PodId(7), terms)).is_err());
}

#[test]
fn a_number_keeps_its_node() {
    let mut script = script();
    let spec = NodeSpec { name: "other".into(), ..NodeSpec::default() };
    assert!(matches!(script.planner.apply(Event::NodeChanged(NODE, spec)), Err(Refused::Renamed { .. })));
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Come(usize),
    Go(usize),
    Label,
    Well(usize, bool),
    /// The agent reports what there is, with a stranger on this GPU or not.
    Report(Option<(usize, u8)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0usize..3).prop_map(Step::Come),
        2 => (0usize..8).prop_map(Step::Go),
        1 => Just(Step::Label),
        1 => (0usize..2, any::<bool>()).prop_map(|(gpu, well)| Step::Well(gpu, well)),
        2 => prop::option::of((0usize..2, 0u8..4)).prop_map(Step::Report),
    ];
    prop::collection::vec(step, 1..40)
}

/// What an agent would report of a GPU now.
fn reported(script: &Script, index: usize) -> Vec<Found> {
    let grid = partita_core::model::catalog::builtin("A30").unwrap().grid.unwrap();
    let (gpu, models) = (gpu(script, index), script.planner.cluster().models());
    let Layout::Mig(mig) = &gpu.layout else { return Vec::new() };
    let all = mig.partitions(models.layouts(gpu.model).unwrap());
    all.map(|one| found(&grid.profiles[usize::from(one.placement.profile)].name, one.placement.start, one.holder.is_some())).collect()
}

proptest! {
    /// Whoever has a partition has it alone, and the books say so, whatever is reported.
    #[test]
    fn nobody_shares_a_partition_whatever_is_reported(steps in steps()) {
        let mut script = script();
        let mut pods: Vec<u32> = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Come(kind) => {
                    script.waits(next, mig(["1g.6gb", "2g.12gb", "4g.24gb"][kind]), 0);
                    pods.push(next);
                    next += 1;
                }
                Step::Go(row) if row < pods.len() => script.ends(pods.remove(row)),
                Step::Go(_) => {}
                Step::Label => change(&mut script, |spec| {
                    let count = spec.labels.len().to_string();
                    spec.labels.insert(count, String::new());
                }),
                Step::Well(gpu, well) => change(&mut script, |spec| spec.gpus[gpu].unusable = (!well).then(|| "sick".into())),
                Step::Report(stranger) => {
                    let mut all: Vec<Vec<Found>> = (0..2).map(|index| reported(&script, index)).collect();
                    if let Some((index, start)) = stranger && all[index].iter().all(|one| one.start > start || one.start + 4 <= start) {
                        all[index].push(found("1g.6gb", start, true));
                    }
                    change(&mut script, |spec| spec.gpus.iter_mut().zip(&all).for_each(|(gpu, found)| gpu.found.clone_from(found)));
                }
            }
            script.round();
            let cluster = script.planner.cluster();
            for index in 0..2u8 {
                let gpu = gpu(&script, usize::from(index));
                let Layout::Mig(mig) = &gpu.layout else { unreachable!() };
                if gpu.fault.is_some() {
                    continue;
                }
                for &(placement, holder) in mig.users() {
                    let Holder::Pod(pod) = holder else { continue };
                    let grant = cluster.runs_on(pod).map(|place| place.1.0.clone());
                    prop_assert_eq!(grant, Some(vec![(index, Use::Partition(placement))]));
                }
                let there = |pod: &&u32| cluster.runs_on(PodId(**pod)).is_some_and(|place| place.1.0.iter().any(|part| part.0 == index));
                let known = mig.users().iter().filter(|user| user.1 != Holder::Unknown).count();
                prop_assert_eq!(known, pods.iter().filter(there).count());
            }
        }
    }
}
