//! Agents that say that they do not work, that died without a word, and that left their node.

use serde_json::json;

use super::{
    check,
    make::{cores, mig, pod, whole},
    world::{World, binds},
};
use crate::{
    objects::Pod,
    scheduler::{effect::Effect, silence::LAG_MS},
    translate::keys,
};

const LAG: u64 = LAG_MS / 1000;

/// What the kubelet of node `a` shows of a resource; none if it does not know it.
fn shows(world: &mut World, resource: &str, count: Option<u32>) {
    world.server.edit_node("a", |node| {
        node.status.value.allocatable.remove(resource);
        node.status.value.allocatable.extend(count.map(|count| (resource.to_owned(), count.to_string())));
    });
}

fn label(world: &mut World, key: &str, value: &str) {
    world.server.edit_node("a", |node| drop(node.metadata.labels.get_or_insert_default().insert(key.into(), value.into())));
}

/// A pod that asks for a part of a GPU, and shares it.
fn share(name: &str) -> Pod {
    let mut pod = pod(name, json!({"partita.dev/gpu": "1"}));
    pod.metadata.annotations.get_or_insert_default().insert(keys::MEMORY.into(), "5Gi".into());
    pod
}

/// Why a pod waits.
fn why(world: &World, pod: &str) -> String {
    let standing = world.brain.standing("ns", pod).unwrap();
    format!("{}: {}", standing.stage, standing.message.unwrap_or_default())
}

#[test]
fn nothing_new_comes_to_an_agent_that_says_that_it_does_not_work() {
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    world.create([mig("runs", "1g.6gb")]);
    world.pass(2);
    world.agent("a").says = Some((false, "KubeletSilent"));
    world.settle();
    world.create([whole("w", 1), mig("m", "1g.6gb"), share("s"), cores("c", 1)]);
    world.pass(20);
    assert_eq!((world.stage("runs"), world.stage("c")), ("runs", "runs"));
    for pod in ["w", "m", "s"] {
        let why = why(&world, pod);
        assert!(why.starts_with("waits") && why.contains("the agent of a: KubeletSilent: so it is"), "{pod}: {why}");
    }
    world.agent("a").says = Some((true, "Works"));
    world.pass(3);
    assert_eq!(["w", "m", "s"].map(|pod| world.stage(pod)), ["runs"; 3]);
    check::rest(&world);
}

#[test]
fn who_is_on_the_way_to_an_agent_that_was_ended_comes_back_unless_it_may_be_bound() {
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    world.create([whole("warm", 1)]);
    world.pass(2);
    world.server.delete_pod("ns/warm");
    world.reap();
    world.holds = |effect| matches!(effect, Effect::Bind { .. } | Effect::Layout { .. });
    world.create([whole("bound", 1)]);
    world.settle();
    world.create([mig("asks", "1g.6gb")]);
    world.settle();
    assert_eq!((world.wished(binds("bound")), world.stage("asks")), (1, "on its way"));
    world.agent("a").says = Some((false, "Stopped"));
    world.pass(1);
    assert_eq!((world.stage("bound"), world.stage("asks")), ("on its way", "returns"));
    world.holds = |_| false;
    world.pass(20);
    assert_eq!((world.stage("bound"), world.stage("asks")), ("runs", "waits"));
    world.agent("a").says = None;
    world.pass(3);
    assert_eq!(world.stage("asks"), "runs");
    check::rest(&world);
}

#[test]
fn an_agent_that_died_without_a_word_is_known_by_what_its_kubelet_lacks() {
    for gone in [Some(0), None] {
        let mut world = World::new(&[("a", &["A30", "A30"])]);
        shows(&mut world, keys::WHOLE_GPU, Some(2));
        world.create([whole("p", 1)]);
        world.pass(2);
        assert_eq!(world.stage("p"), "runs");
        shows(&mut world, keys::WHOLE_GPU, gone);
        world.pass(LAG);
        // Whatever it is: the agent hands out nothing.
        world.create([whole("q", 1), mig("m", "1g.6gb")]);
        world.pass(5);
        for pod in ["q", "m"] {
            let why = why(&world, pod);
            assert!(why.contains("the kubelet of a has no nvidia.com/gpu; is partita-agent running there?"), "{pod}: {why}");
        }
        assert_eq!(world.stage("p"), "runs");
        shows(&mut world, keys::WHOLE_GPU, Some(2));
        world.pass(3);
        assert_eq!(["q", "p"].map(|pod| world.stage(pod)), ["runs"; 2]);
        check::rest(&world);
    }
}

#[test]
fn what_a_kubelet_shows_late_or_never_means_nothing() {
    let partition = "nvidia.com/mig-1g.6gb";
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    // It never showed what it has: nobody there shows it.
    world.create([mig("old", "1g.6gb")]);
    world.pass(2);
    world.server.delete_pod("ns/old");
    world.reap();
    world.pass(2 * LAG);
    // It shows them a little late.
    shows(&mut world, partition, Some(0));
    world.pass(LAG - 1);
    shows(&mut world, partition, Some(1));
    world.pass(1);
    shows(&mut world, partition, Some(0));
    world.pass(LAG - 1);
    world.create([mig("p", "1g.6gb")]);
    world.settle();
    assert_eq!(world.stage("p"), "runs");
    // What is in use it may have under another name.
    world.pass(2 * LAG);
    world.create([whole("q", 1)]);
    world.pass(2);
    assert_eq!(world.stage("q"), "runs");
    check::rest(&world);
}

#[test]
fn a_node_that_partita_leaves_is_used_again_when_a_device_plugin_shows_its_gpus() {
    let mut world = World::new(&[("a", &["A30"])]);
    shows(&mut world, keys::WHOLE_GPU, Some(1));
    label(&mut world, keys::PRODUCT, "NVIDIA-A30");
    label(&mut world, keys::PARTITIONING, "off");
    world.create([whole("p", 1)]);
    world.pass(2 * LAG);
    assert!(why(&world, "p").contains("has not given its GPUs back"), "{}", why(&world, "p"));
    // What the kubelet shows is what it had from the agent.
    world.agent("a").says = Some((true, "Restored"));
    world.pass(LAG - 1);
    assert!(why(&world, "p").contains("its agent has left (Restored); no device plugin shows nvidia.com/gpu"), "{}", why(&world, "p"));
    shows(&mut world, keys::WHOLE_GPU, Some(0));
    world.pass(LAG);
    assert_eq!(world.stage("p"), "waits");
    let layouts = |effect: &Effect| matches!(effect, Effect::Layout { .. });
    let before = world.wished(layouts);
    shows(&mut world, keys::WHOLE_GPU, Some(1));
    world.pass(2);
    assert_eq!((world.place("p").as_str(), world.wished(layouts)), ("a 0:1000m", before));
    // Nothing but whole GPUs.
    world.create([mig("m", "1g.6gb")]);
    world.pass(LAG);
    assert_eq!(world.stage("m"), "waits");
    // And back.
    world.server.delete_pod("ns/p");
    world.reap();
    world.agent("a").says = Some((true, "Works"));
    label(&mut world, keys::PARTITIONING, "auto");
    world.pass(3);
    assert_eq!(world.stage("m"), "runs");
    check::rest(&world);
}

#[test]
fn a_node_that_is_still_used_is_not_left_yet() {
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    shows(&mut world, keys::WHOLE_GPU, Some(2));
    label(&mut world, keys::PRODUCT, "NVIDIA-A30");
    world.create([whole("p", 1)]);
    world.pass(2);
    label(&mut world, keys::PARTITIONING, "off");
    world.agent("a").says = Some((true, "Restoring"));
    shows(&mut world, keys::WHOLE_GPU, Some(1));
    world.create([whole("q", 1)]);
    world.pass(2 * LAG);
    assert_eq!(world.stage("p"), "runs");
    assert!(why(&world, "q").contains("pods still use its GPUs (Restoring)"), "{}", why(&world, "q"));
    check::rest(&world);
}

#[test]
fn processes_are_those_of_the_pods_on_their_gpu_and_else_strangers() {
    for booked_only in [true, false] {
        let mut world = World::new(&[("a", &["A30"])]);
        label(&mut world, keys::PARTITIONING, "time-slicing");
        world.create([share("p")]);
        world.pass(2);
        assert_eq!(world.stage("p"), "runs");
        let says = |world: &mut World, users: &[&str]| {
            world.server.edit_gpu_node("a", |node| {
                let gpu = &mut node.status.value.gpus[0];
                gpu.partitions.iter_mut().for_each(|one| one.users.clear());
                gpu.users = users.iter().map(ToString::to_string).collect();
            });
            world.deliver_all();
            world.turn();
        };
        let faulty = |world: &World| {
            let cluster = world.brain.planner().cluster();
            cluster.nodes().any(|(_, node)| node.room.gpus.iter().any(|gpu| gpu.fault.is_some()))
        };
        let users = if booked_only { &["pid:7", "a container that starts"][..] } else { &["ns/p", "pid:7"] };
        says(&mut world, users);
        assert!(!faulty(&world), "{users:?}");
        // A scheduler that is started anew knows it, too.
        world.start();
        world.deliver_all();
        world.turn();
        assert!(!faulty(&world), "{users:?}");
        // When the pod is gone the process is nobody's.
        world.server.vanish("ns/p");
        world.deliver_all();
        world.turn();
        assert!(faulty(&world), "{users:?}");
        says(&mut world, &[]);
        assert!(!faulty(&world));
    }
}
