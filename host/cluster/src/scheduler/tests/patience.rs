//! Agents that have taken a layout and take their time: what is asked for by one name is served one kind at a time.

use std::collections::BTreeSet;

use super::{
    agent::Mood,
    check,
    make::{mig, whole},
    world::World,
};
use crate::{
    crd::{FoundPartition, PartitionState},
    scheduler::{
        effect::Effect,
        handshake::{PATIENCE_MS, SILENCE_MS},
    },
};

const TURN: &str = "it is handed to the kubelet when the pods before it have what they asked for";

/// The agent of node `a` says that it took the layout, and that what it does not have yet is coming.
fn takes(world: &mut World) {
    world.server.edit_gpu_node("a", |node| {
        let spec = node.spec.value.clone();
        (node.status.value.observed_term, node.status.value.observed_generation) = (spec.term, spec.generation);
        let wanted = spec.gpus[0].partitions.iter();
        let coming = wanted.map(|one| FoundPartition {
            profile: one.profile.clone(),
            start: one.start,
            resource: one.resource.clone(),
            state: PartitionState::Creating,
            message: TURN.into(),
            ..FoundPartition::default()
        });
        let gpu = &mut node.status.value.gpus[0];
        let there: Vec<FoundPartition> = gpu.partitions.iter().filter(|one| one.state == PartitionState::Ready).cloned().collect();
        let is_there = |one: &FoundPartition| there.iter().any(|other| (&other.profile, other.start) == (&one.profile, one.start));
        let coming: Vec<FoundPartition> = coming.filter(|one| !is_there(one)).collect();
        gpu.partitions = there.iter().cloned().chain(coming).collect();
    });
    world.settle();
}

#[test]
fn a_pod_whose_turn_comes_late_waits_alone() {
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    world.agent("a").mood = Mood::Silent;
    world.create([mig("p", "1g.6gb")]);
    world.settle();
    takes(&mut world);
    world.pass(SILENCE_MS / 1000 + 10);
    assert!(world.brain.nodes["a"].rests.is_empty(), "its agent is not silent");
    let standing = world.brain.standing("ns", "p").unwrap();
    assert_eq!((standing.stage, standing.message.unwrap()), ("on its way", format!("its partition is being made: {TURN}")));
    assert_eq!(world.message("p"), format!("its partition on node a is not ready yet: {TURN}"));
    world.pass((PATIENCE_MS - SILENCE_MS) / 1000);
    assert!(world.brain.nodes["a"].rests.is_empty());
    assert!(world.message("p").contains("was not ready in time"), "{}", world.message("p"));
    world.agent("a").mood = Mood::Works;
    world.pass(30);
    assert_eq!(world.stage("p"), "runs");
    check::rest(&world);
}

#[test]
fn an_agent_that_says_nothing_of_a_partition_sends_one_pod_away_and_no_other() {
    let mut world = World::new(&[("a", &["A30", "A30"]), ("b", &["A30"])]);
    world.agent("a").mood = Mood::Lies;
    world.create([mig("p", "1g.6gb")]);
    world.pass(SILENCE_MS / 1000 + 5);
    assert_eq!(world.place("p"), "b 0:1g.6gb@0");
    assert!(world.brain.nodes["a"].rests.is_empty());
}

#[test]
fn who_is_gone_is_taken_out_of_the_layout_for_which_others_wait() {
    let named = |world: &World| {
        let gpus = &world.server.gpu_nodes["a"].spec.value.gpus;
        let all = gpus.iter().flat_map(|gpu| &gpu.partitions).filter_map(|one| Some(one.pod.as_ref()?.name.clone()));
        all.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let layouts = |effect: &Effect| matches!(effect, Effect::Layout { .. });
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    world.holds = |effect| matches!(effect, Effect::Bind { .. });
    world.create([mig("first", "2g.12gb")]);
    world.settle();
    world.agent("a").mood = Mood::Silent;
    world.create([mig("next", "1g.6gb")]);
    world.settle();
    takes(&mut world);
    assert_eq!(named(&world), ["first", "next"]);
    let before = world.wished(layouts);
    // It is deleted before it is bound.
    world.server.vanish("ns/first");
    world.settle();
    assert_eq!((named(&world), world.wished(layouts)), (vec!["next".to_owned()], before + 1));
    // Who uses no GPU keeps nobody from anything.
    world.pass(10);
    assert_eq!(world.wished(layouts), before + 1);
    world.holds = |_| false;
    world.agent("a").mood = Mood::Works;
    world.pass(3);
    world.create([whole("w", 1)]);
    world.pass(2);
    assert_eq!((world.stage("next"), world.stage("w")), ("runs", "runs"));
    check::rest(&world);
}
