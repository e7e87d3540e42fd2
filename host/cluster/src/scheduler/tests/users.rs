//! Who uses GPUs without having asked this scheduler for them.

use serde_json::json;

use super::{
    check,
    make::{cores, mig, whole},
    world::{World, binds},
};
use crate::{objects::Pod, scheduler::effect::Effect};

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
    assert_eq!(world.wished(binds("p")) + world.wished(binds("q")), 0, "it is booked on the first, and uses the two others");
}
