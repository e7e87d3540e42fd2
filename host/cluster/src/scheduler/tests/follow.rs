//! Kubelets that take other devices than the scheduler meant, and agents that tell of it, truly or not.

use partita_core::state::Holder;
use serde_json::json;

use super::{
    check,
    make::{mig, pod, whole},
    server::What,
    world::{World, binds},
};
use crate::{grant, scheduler::effect::Effect, translate::keys};

/// A node `a` with these partitions on GPU 0.
fn world(parts: &[(&str, u8)]) -> World {
    let mut world = World::asleep(&[("a", &["A30"])]);
    world.agent("a").cut(0, parts);
    world.live();
    world.start();
    world
}

/// What is seen is decided on, but nothing is done.
fn look(world: &mut World) {
    world.deliver_all();
    world.turn();
}

/// What the books say that a pod has.
fn booked(world: &World, pod: &str) -> String {
    let brain = &world.brain;
    let cluster = brain.planner().cluster();
    let Some((node, grant)) = brain.pods[&format!("ns/{pod}")].id.and_then(|id| cluster.runs_on(id)) else { return String::new() };
    grant::print(grant, &grant::profile_of(&cluster.node(node).unwrap().spec, cluster.models())).unwrap()
}

/// What the agent of node `a` says of who uses which partition of GPU 0.
fn say(world: &mut World, users: &[(usize, &str)]) {
    world.server.edit_gpu_node("a", |node| {
        let parts = &mut node.status.value.gpus[0].partitions;
        for part in parts.iter_mut() {
            part.users.clear();
        }
        for (row, user) in users {
            parts[*row].users.push((*user).to_owned());
        }
    });
    look(world);
}

/// Whether the books have the partition at a slot of GPU 0 of node `a` free, of a pod, or of somebody unknown.
fn holder(world: &World, start: u8) -> Option<&'static str> {
    let cluster = world.brain.planner().cluster();
    let gpu = &cluster.node(world.brain.nodes["a"].id.unwrap()).unwrap().room.gpus[0];
    let partita_core::state::Layout::Mig(mig) = &gpu.layout else { panic!() };
    let one = mig.partitions(cluster.models().layouts(gpu.model).unwrap()).find(|one| one.placement.start == start)?;
    Some(match one.holder {
        None => "free",
        Some(Holder::Pod(_)) => "pod",
        Some(Holder::Unknown) => "unknown",
    })
}

const SMALL: [(&str, u8); 4] = [("1g.6gb", 0), ("1g.6gb", 1), ("1g.6gb", 2), ("1g.6gb", 3)];

#[test]
fn two_pods_have_each_others_partitions() {
    for restart in [false, true] {
        let mut world = world(&SMALL);
        world.create([mig("p", "1g.6gb"), mig("q", "1g.6gb")]);
        world.pass(2);
        assert_eq!((booked(&world, "p").as_str(), booked(&world, "q").as_str()), ("0:1g.6gb@0", "0:1g.6gb@1"));
        say(&mut world, &[(0, "ns/q"), (1, "ns/p")]);
        if restart {
            world.start();
            look(&mut world);
        }
        assert_eq!((booked(&world, "p").as_str(), booked(&world, "q").as_str()), ("0:1g.6gb@1", "0:1g.6gb@0"));
        // What one leaves is free, what the other has is not.
        world.server.vanish("ns/p");
        look(&mut world);
        assert_eq!((holder(&world, 0), holder(&world, 1), booked(&world, "q").as_str()), (Some("pod"), Some("free"), "0:1g.6gb@0"));
        say(&mut world, &[(0, "ns/q")]);
        world.holds = |effect| matches!(effect, Effect::Layout { .. });
        world.create([whole("w", 1), mig("r", "1g.6gb")]);
        look(&mut world);
        assert_eq!((world.wished(binds("w")), booked(&world, "r").as_str()), (0, "0:1g.6gb@1"));
    }
}

#[test]
fn who_did_not_start_has_what_the_other_left() {
    let mut world = world(&SMALL[..2]);
    world.create([mig("p", "1g.6gb"), mig("q", "1g.6gb")]);
    world.pass(2);
    say(&mut world, &[(1, "ns/p")]);
    assert_eq!((booked(&world, "p").as_str(), booked(&world, "q").as_str()), ("0:1g.6gb@1", "0:1g.6gb@0"));
    // Nothing is said of either for a moment: what was learned stays.
    say(&mut world, &[]);
    assert_eq!((booked(&world, "p").as_str(), booked(&world, "q").as_str()), ("0:1g.6gb@1", "0:1g.6gb@0"));
    say(&mut world, &[(0, "ns/p"), (1, "ns/q")]);
    assert_eq!((booked(&world, "p").as_str(), booked(&world, "q").as_str()), ("0:1g.6gb@0", "0:1g.6gb@1"));
}

#[test]
fn a_pod_that_took_a_warm_partition_leaves_its_own_free() {
    let mut world = world(&SMALL[..3]);
    world.create([mig("p", "1g.6gb")]);
    world.pass(2);
    say(&mut world, &[(2, "ns/p")]);
    assert_eq!((booked(&world, "p").as_str(), holder(&world, 0), holder(&world, 2)), ("0:1g.6gb@2", Some("free"), Some("pod")));
}

#[test]
fn who_is_on_the_way_to_what_another_took_comes_back() {
    let mut world = world(&SMALL[..2]);
    world.create([mig("p", "1g.6gb")]);
    world.pass(2);
    // It waits for its volume, so it is not bound yet.
    world.server.put_class(super::make::class("made", "example.com/maker"));
    world.server.put_claim(super::make::claim("c", "made", "ReadWriteOnce"));
    world.holds = |effect| matches!(effect, Effect::Volumes { .. });
    world.create([super::make::claiming(mig("q", "1g.6gb"), "c")]);
    look(&mut world);
    assert_eq!((world.stage("q"), booked(&world, "q").as_str()), ("on its way", "0:1g.6gb@1"));
    say(&mut world, &[(1, "ns/p")]);
    assert_eq!((world.stage("q"), booked(&world, "p").as_str()), ("returns", "0:1g.6gb@1"));
    world.holds = |_| false;
    world.server.taken.insert("ns/p".into(), vec![(0, "1g.6gb@1".into())]);
    world.server.chance = Some(0);
    world.pass(5);
    assert_eq!((world.stage("q"), booked(&world, "q").as_str()), ("runs", "0:1g.6gb@0"));
    check::rest(&world);
}

#[test]
fn whole_gpus_are_where_they_are_seen() {
    let mut world = World::new(&[("a", &["A30", "A30", "A30"])]);
    world.create([whole("p", 1), whole("q", 1)]);
    world.pass(2);
    assert_eq!((world.place("p").as_str(), world.place("q").as_str()), ("a 0:1000m", "a 1:1000m"));
    world.server.edit_gpu_node("a", |node| {
        let gpus = &mut node.status.value.gpus;
        for gpu in gpus.iter_mut() {
            gpu.partitions[0].users.clear();
        }
        gpus[1].partitions[0].users = vec!["ns/p".into()];
        // An agent may name users of whole GPUs in either place.
        gpus[2].users = vec!["ns/q".into()];
    });
    look(&mut world);
    assert_eq!((booked(&world, "p").as_str(), booked(&world, "q").as_str()), ("1:1000m", "2:1000m"));
    world.create([whole("r", 1)]);
    look(&mut world);
    assert_eq!((world.stage("r"), booked(&world, "r").as_str()), ("on its way", "0:1000m"));
}

#[test]
fn a_part_of_a_gpu_of_another_kind_is_followed_too() {
    let part = |name: &str, memory: &str| {
        let mut pod = pod(name, json!({"partita.dev/gpu": "1"}));
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(keys::MEMORY.into(), memory.into());
        annotations.insert(keys::ISOLATION.into(), "hardware".into());
        pod
    };
    let mut world = world(&[("1g.6gb", 0), ("2g.12gb", 2)]);
    world.create([part("p", "5Gi"), part("q", "11Gi")]);
    world.pass(2);
    assert_eq!((booked(&world, "p").as_str(), booked(&world, "q").as_str()), ("0:1g.6gb@0", "0:2g.12gb@2"));
    say(&mut world, &[(1, "ns/p")]);
    assert_eq!((booked(&world, "p").as_str(), booked(&world, "q").as_str()), ("0:2g.12gb@2", "0:1g.6gb@0"));
}

#[test]
fn an_agent_that_lies_starves_nobody_and_frees_nothing() {
    let mut world = world(&SMALL);
    world.create([mig("p", "1g.6gb"), mig("q", "1g.6gb")]);
    world.pass(2);
    // Pods that are not there, two pods of one partition, a pod that has more than it asked for.
    for lie in [
        &[(0, "ns/ghost"), (1, "ns/ghost")][..],
        &[(0, "ns/p"), (0, "ns/q"), (1, "ns/p")],
        &[(0, "ns/p"), (1, "ns/p"), (2, "ns/p")],
        &[(0, "pid:1"), (1, "pid:2"), (3, "pid:3")],
    ] {
        say(&mut world, lie);
        let (p, q) = (booked(&world, "p"), booked(&world, "q"));
        assert!(p.starts_with("0:1g.6gb@") && q.starts_with("0:1g.6gb@") && p != q, "{lie:?}: {p} {q}");
        for (row, _) in lie {
            assert_ne!(holder(&world, *row as u8), Some("free"), "{lie:?}");
        }
    }
    // What a stranger is said to use is not free when its owner ends.
    say(&mut world, &[(0, "ns/p"), (0, "pid:7"), (1, "ns/q")]);
    world.server.vanish("ns/p");
    look(&mut world);
    assert_eq!((holder(&world, 0), holder(&world, 1)), (Some("unknown"), Some("pod")));
    say(&mut world, &[(1, "ns/q")]);
    assert_eq!(holder(&world, 0), Some("free"));
}

#[test]
fn a_pod_that_comes_again_does_not_have_what_the_last_of_its_name_had() {
    let mut world = world(&SMALL[..2]);
    world.create([mig("web-0", "1g.6gb")]);
    world.pass(2);
    assert_eq!(booked(&world, "web-0"), "0:1g.6gb@0");
    world.server.vanish("ns/web-0");
    look(&mut world);
    // The agent did not notice yet.
    world.create([mig("other", "1g.6gb"), mig("web-0", "1g.6gb")]);
    for _ in 0..3 {
        look(&mut world);
        world.execute_all();
    }
    assert_eq!((booked(&world, "other").as_str(), booked(&world, "web-0").as_str()), ("0:1g.6gb@0", "0:1g.6gb@1"));
    world.relist(What::GpuNodes);
    look(&mut world);
    assert_eq!((booked(&world, "other").as_str(), booked(&world, "web-0").as_str()), ("0:1g.6gb@0", "0:1g.6gb@1"));
    say(&mut world, &[]);
    say(&mut world, &[(0, "ns/web-0"), (1, "ns/other")]);
    assert_eq!((booked(&world, "other").as_str(), booked(&world, "web-0").as_str()), ("0:1g.6gb@1", "0:1g.6gb@0"));
}
