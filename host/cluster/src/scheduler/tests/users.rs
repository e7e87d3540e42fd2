//! Who uses GPUs without having asked this scheduler for them.

use partita_core::{model::Placement, state::Use};
use serde_json::json;

use super::{
    check,
    make::{cores, mig, pod, whole},
    world::{World, binds},
};
use crate::{objects::Pod, scheduler::effect::Effect, translate::keys};

fn is_layout(effect: &Effect) -> bool {
    matches!(effect, Effect::Layout { .. })
}

/// The same pod, bound by another scheduler.
fn bound_by_others(mut pod: Pod, node: &str) -> Pod {
    pod.spec.value.scheduler_name = "default-scheduler".into();
    node.clone_into(&mut pod.spec.value.node_name);
    pod
}

/// What is seen is decided on, but nothing is done.
fn look(world: &mut World) {
    world.deliver_all();
    world.turn();
}

/// A pod that got GPU 0 of node `a` by a resource claim, or by asking for all devices.
fn device_user(by_claim: bool) -> Pod {
    let mut pod = bound_by_others(cores("dra", 1), "a");
    if by_claim {
        pod.spec.value.resource_claims = serde_json::from_value(json!([{"name": "gpu"}])).unwrap();
    }
    pod
}

#[test]
fn a_gpu_that_a_known_pod_uses_without_asking_for_gpus_is_left_alone() {
    for by_claim in [true, false] {
        for pod_first in [true, false] {
            for ask in [whole("p", 1), mig("p", "1g.6gb")] {
                let mut world = World::new(&[("a", &["A30"])]);
                let uses = |world: &mut World| {
                    world.server.edit_gpu_node("a", |node| node.status.value.gpus[0].users = vec!["ns/dra".into()]);
                    look(world);
                };
                if !pod_first {
                    uses(&mut world);
                }
                world.create([device_user(by_claim)]);
                look(&mut world);
                if pod_first {
                    uses(&mut world);
                }
                world.create([ask]);
                look(&mut world);
                world.relist(super::server::What::Pods);
                look(&mut world);
                assert_eq!((world.wished(binds("p")), world.wished(is_layout)), (0, 0));
                // A scheduler that is started anew knows it, too.
                world.start();
                look(&mut world);
                assert_eq!((world.wished(binds("p")), world.wished(is_layout)), (0, 0));
                // Once it is gone the GPU is free.
                world.server.vanish("ns/dra");
                world.pass(3);
                assert_eq!(world.stage("p"), "runs");
                check::rest(&world);
            }
        }
    }
}

#[test]
fn who_uses_more_gpus_than_it_asked_for_has_these_and_the_others_are_left_alone() {
    let mut world = World::new(&[("a", &["A30", "A30", "A30"])]);
    world.create([bound_by_others(whole("greedy", 1), "a")]);
    look(&mut world);
    world.server.edit_gpu_node("a", |node| {
        for gpu in &mut node.status.value.gpus[1..] {
            gpu.users = vec!["ns/greedy".into()];
        }
    });
    world.create([whole("p", 1), whole("q", 1)]);
    look(&mut world);
    assert_eq!((world.stage("p"), world.stage("q")), ("on its way", "waits"), "only the first is free");
    assert_eq!((booked(&world, "greedy")[0].0, booked(&world, "p")[0].0), (1, 0));
}

/// What the core has a pod use, as parts of GPUs.
fn booked(world: &World, pod: &str) -> Vec<(u8, Use)> {
    let id = world.brain.pods[&format!("ns/{pod}")].id.unwrap();
    world.brain.planner().cluster().runs_on(id).unwrap().1.0.clone()
}

/// The parts on GPU 0 that the agent of node `a` says a pod uses.
fn say_used(world: &mut World, rows: &[usize], pod: &str) {
    world.server.edit_gpu_node("a", |node| {
        for row in rows {
            node.status.value.gpus[0].partitions[*row].users = vec![format!("ns/{pod}")];
        }
    });
    look(world);
}

#[test]
fn a_partition_that_others_give_away_is_given_to_nobody_else() {
    let share = |name: &str| pod(name, json!({"nvidia.com/gpu-8gb": "1"}));
    for ask in [|name: &str| mig(name, "4g.24gb"), share] {
        let mut world = World::new(&[("a", &["A30"])]);
        world.create([ask("warm")]);
        world.pass(2);
        world.server.delete_pod("ns/warm");
        world.reap();
        world.create([bound_by_others(ask("other"), "a")]);
        look(&mut world);
        world.holds = |_| true;
        world.create([ask("p")]);
        look(&mut world);
        assert_eq!((world.wished(binds("p")), booked(&world, "other").len()), (0, 1));
        // Once it is gone the other may have it.
        world.holds = |_| false;
        world.server.vanish("ns/other");
        world.pass(3);
        assert_eq!(world.stage("p"), "runs");
        check::rest(&world);
    }
}

#[test]
fn what_was_guessed_of_partitions_is_mended_when_the_agent_tells() {
    let mut world = World::asleep(&[("a", &["A30"])]);
    world.agent("a").cut(0, &[("1g.6gb", 0), ("1g.6gb", 1), ("2g.12gb", 2)]);
    world.live();
    world.start();
    let place = |profile, start| (0, Use::Partition(Placement { profile, start }));
    world.create([bound_by_others(mig("one", "1g.6gb"), "a"), bound_by_others(mig("two", "2g.12gb"), "a")]);
    look(&mut world);
    let (small, large) = (booked(&world, "one"), booked(&world, "two"));
    let Use::Partition(Placement { profile, .. }) = small[0].1 else { panic!() };
    assert_eq!(small, [place(profile, 0)]);
    assert!(matches!(large[0].1, Use::Partition(Placement { start: 2, .. })));
    say_used(&mut world, &[1], "one");
    assert_eq!(booked(&world, "one"), [place(profile, 1)]);
    // Another that comes gets what is left; a third finds nothing, until somebody goes.
    world.create([bound_by_others(mig("three", "1g.6gb"), "a")]);
    look(&mut world);
    world.create([bound_by_others(mig("four", "1g.6gb"), "a")]);
    look(&mut world);
    assert_eq!((booked(&world, "three"), booked(&world, "four")), (vec![place(profile, 0)], vec![]));
    world.server.vanish("ns/three");
    look(&mut world);
    assert_eq!(booked(&world, "four"), [place(profile, 0)]);
}

#[test]
fn a_grant_is_believed_only_if_it_is_what_the_pod_asks_for() {
    let part = |memory: &str, isolation: &str| {
        let mut pod = pod("x", json!({"partita.dev/gpu": "1"}));
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(keys::MEMORY.into(), memory.into());
        annotations.insert(keys::ISOLATION.into(), isolation.into());
        pod
    };
    let (soft, hard) = (|| part("6Gi", "shared"), || part("6000Mi", "hardware"));
    for (mut pod, grant, believed) in [
        (mig("x", "1g.6gb"), "0:4g.24gb@0", false),
        (mig("x", "1g.6gb"), "0:1g.6gb@1", true),
        (soft(), "0:1g.6gb@0", false),
        (soft(), "0:2g.12gb@0", true),
        (soft(), "0:250m", true),
        (soft(), "0:249m", false),
        (soft(), "0:1000m", true),
        (soft(), "0:mps/6144", true),
        (soft(), "0:mps/6145", false),
        (soft(), "0:mps/24000", false),
        (soft(), "0:1000m,1:1000m", false),
        (hard(), "0:mps/6000", false),
        (hard(), "0:500m", false),
        (hard(), "0:2g.12gb@0", true),
        (part("25Gi", "shared"), "0:1000m", false),
    ] {
        let what = format!("{:?} {grant}", pod.metadata.annotations);
        let mut world = World::asleep(&[("a", &["A30", "A30"])]);
        let cut = grant.contains('@');
        if cut {
            world.agent("a").cut(0, &[]);
        }
        world.live();
        world.start();
        pod.metadata.annotations.get_or_insert_default().insert(keys::GRANT.into(), grant.into());
        pod.spec.value.node_name = "a".into();
        world.create([pod]);
        look(&mut world);
        let ask = &world.brain.pods["ns/x"].spec.as_ref().unwrap().demand.gpu;
        let node = world.brain.nodes["a"].id.unwrap();
        assert_eq!(world.brain.written_grant("ns/x", node, ask).is_some(), believed, "{what}");
    }
}
