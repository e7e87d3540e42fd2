//! Under which names the kubelet must have what pods get, and that nobody is bound before it has.

use serde_json::json;

use super::{
    agent::Mood,
    check,
    make::{mig, pod, whole},
    world::{World, binds},
};
use crate::{crd::DesiredPartition, objects::Pod, scheduler::effect::Effect, translate::keys};

/// A pod that asks for a part of a GPU, with so much memory and so well isolated.
fn part(name: &str, memory: &str, isolation: &str) -> Pod {
    let mut pod = pod(name, json!({"partita.dev/gpu": "1"}));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(keys::MEMORY.into(), memory.into());
    annotations.insert(keys::ISOLATION.into(), isolation.into());
    pod
}

/// What the layout of node `a` says of a GPU: pods and names.
fn wanted(world: &World, gpu: usize) -> Vec<(String, String)> {
    let of = |one: &DesiredPartition| {
        (one.pod.as_ref().map_or_else(String::new, |pod| pod.name.clone()), one.resource.clone().unwrap_or_default())
    };
    world.server.gpu_nodes["a"].spec.value.gpus[gpu].partitions.iter().map(of).collect()
}

fn strings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(pod, name)| ((*pod).to_owned(), (*name).to_owned())).collect()
}

fn generation(world: &World) -> i64 {
    world.server.gpu_nodes["a"].spec.value.generation
}

#[test]
fn a_warm_partition_is_offered_under_the_name_by_which_its_next_pod_asks() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.create([mig("p", "1g.6gb")]);
    world.pass(2);
    assert_eq!((wanted(&world, 0), generation(&world)), (strings(&[("p", "nvidia.com/mig-1g.6gb")]), 1));
    world.server.delete_pod("ns/p");
    world.reap();
    // The kubelet has it under the name that this one asks for: nothing is to be done.
    world.create([mig("q", "1g.6gb")]);
    world.pass(2);
    assert_eq!((world.place("q").as_str(), generation(&world)), ("a 0:1g.6gb@0", 1));
    world.server.delete_pod("ns/q");
    world.reap();
    // But not under this one.
    world.agent("a").mood = Mood::Silent;
    world.create([part("r", "5Gi", "hardware")]);
    world.pass(5);
    assert_eq!((world.stage("r"), world.wished(binds("r"))), ("on its way", 0));
    assert_eq!((wanted(&world, 0), generation(&world)), (strings(&[("r", "partita.dev/gpu")]), 2));
    world.agent("a").mood = Mood::Works;
    world.pass(2);
    assert_eq!(world.place("r"), "a 0:1g.6gb@0");
    // A scheduler that is started anew knows the name, too.
    world.start();
    world.create([mig("s", "2g.12gb")]);
    world.pass(2);
    assert_eq!(wanted(&world, 0), strings(&[("r", "partita.dev/gpu"), ("s", "nvidia.com/mig-2g.12gb")]));
    check::rest(&world);
}

#[test]
fn a_whole_gpu_must_be_offered_before_its_pod_is_bound() {
    let mut world = World::asleep(&[("a", &["A30"])]);
    world.agent("a").cut(0, &[("1g.6gb", 0)]);
    world.live();
    world.start();
    world.holds = |effect| matches!(effect, Effect::Bind { .. });
    world.create([whole("p", 1)]);
    world.deliver_all();
    world.turn();
    world.execute_all();
    let mut agent = world.agents["a"].clone();
    agent.look(&world.server);
    let mut steps = 0;
    while agent.work(&world.server) {
        assert_eq!(world.wished(binds("p")), 0, "after {steps} steps");
        agent.report(&mut world.server);
        world.deliver_all();
        world.turn();
        steps += 1;
    }
    // The last was that the kubelet has it: it came after the GPU was cut.
    assert!(steps >= 5, "{steps}");
    assert_eq!((world.wished(binds("p")), wanted(&world, 0)), (1, strings(&[("p", "nvidia.com/gpu")])));
    world.agents.insert("a".into(), agent);
    world.holds = |_| false;
    world.pass(2);
    assert_eq!(world.place("p"), "a 0:1000m");
    // When it is gone the next one finds the GPU on offer.
    let before = generation(&world);
    world.server.delete_pod("ns/p");
    world.reap();
    world.create([whole("q", 1)]);
    world.pass(2);
    assert_eq!((world.place("q").as_str(), generation(&world)), ("a 0:1000m", before));
    check::rest(&world);
}

#[test]
fn shares_alike_are_offered_one_for_each_pod() {
    let mut world = World::new(&[("a", &["A30"])]);
    let share = |name: &str| part(name, "5Gi", "shared");
    world.server.edit_node("a", |node| {
        node.metadata.labels.get_or_insert_default().insert(keys::PARTITIONING.into(), "time-slicing".into());
    });
    world.create([share("p")]);
    world.pass(2);
    assert_eq!((world.stage("p"), wanted(&world, 0)), ("runs", strings(&[("p", "partita.dev/gpu")])));
    world.agent("a").mood = Mood::Silent;
    world.create([share("q")]);
    world.pass(3);
    assert_eq!((world.stage("q"), world.wished(binds("q"))), ("on its way", 0), "the one there is the other's");
    world.agent("a").mood = Mood::Works;
    world.pass(2);
    assert_eq!((world.stage("q"), world.place("p") == world.place("q")), ("runs", true));
    check::rest(&world);
}

#[test]
fn a_share_that_cannot_be_offered_sends_its_pod_elsewhere() {
    let mut world = World::asleep(&[("a", &["A30"]), ("b", &["A30"])]);
    world.agent("a").cut(0, &[]);
    world.agent("a").mood = Mood::Fails;
    world.server.edit_node("b", |node| node.spec.value.unschedulable = true);
    world.live();
    world.start();
    world.create([whole("p", 1)]);
    world.settle();
    assert!(world.message("p").contains("could not make its partition: no such luck"), "{}", world.message("p"));
    world.server.edit_node("b", |node| node.spec.value.unschedulable = false);
    world.pass(4);
    assert_eq!(world.place("p"), "b 0:1000m");
    check::rest(&world);
}
