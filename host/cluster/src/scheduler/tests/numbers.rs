//! Terms and generations: what is written by hand or by a strange agent spoils no other node.

use super::{
    make::{mig, node, whole},
    world::World,
};
use crate::{crd::NUMBER_MAX, scheduler::effect::Effect};

/// The terms of the layouts that were wished for a node.
fn terms(world: &World, of: &str) -> Vec<i64> {
    let layouts = world.history.iter();
    layouts
        .filter_map(|effect| if let Effect::Layout { node, spec, .. } = effect { (node == of).then_some(spec.term) } else { None })
        .collect()
}

#[test]
fn a_term_that_an_agent_invents_is_no_leaders() {
    let mut world = World::new(&[("a", &["A30"]), ("b", &["A30"])]);
    world.server.edit_gpu_node("a", |node| node.status.value.observed_term = i64::MAX);
    world.start();
    world.create([mig("p", "4g.24gb"), mig("q", "4g.24gb")]);
    world.settle();
    assert_eq!((terms(&world, "a"), terms(&world, "b")), (vec![2], vec![2]));
}

#[test]
fn a_term_that_somebody_wrote_is_gone_on_from_on_that_node_alone() {
    let mut world = World::new(&[("a", &["A30"]), ("b", &["A30"])]);
    world.server.edit_gpu_node("a", |node| node.spec.value.term = 1000);
    world.start();
    world.create([mig("p", "4g.24gb"), mig("q", "4g.24gb")]);
    world.pass(5);
    assert_eq!((terms(&world, "a"), terms(&world, "b")), (vec![1002], vec![2]));
    assert_eq!((world.stage("p"), world.stage("q")), ("runs", "runs"));
    // Who leads next is told from who led last.
    for name in ["ns/p", "ns/q"] {
        world.server.delete_pod(name);
    }
    world.reap();
    world.start();
    world.create([whole("r", 1), whole("s", 1)]);
    world.pass(5);
    assert_eq!((terms(&world, "a")[1..].iter().max(), terms(&world, "b")[1..].iter().max()), (Some(&1005), Some(&3)));
}

#[test]
fn a_node_whose_numbers_are_used_up_is_set_aside_alone() {
    for by_hand in [i64::MAX, NUMBER_MAX] {
        for edit_term in [true, false] {
            let mut world = World::new(&[("a", &["A30"]), ("b", &["A30"])]);
            world.server.edit_gpu_node("a", |node| {
                let spec = &mut node.spec.value;
                *(if edit_term { &mut spec.term } else { &mut spec.generation }) = by_hand;
            });
            world.start();
            world.create([mig("p", "4g.24gb")]);
            world.pass(5);
            assert_eq!(world.place("p"), "b 0:4g.24gb@0", "{by_hand}");
            world.create([mig("q", "4g.24gb")]);
            world.pass(60);
            assert!(world.message("q").contains("1 GPUs that would do are set aside"), "{}", world.message("q"));
            assert_eq!(terms(&world, "a"), [0i64; 0]);
        }
    }
}

#[test]
fn an_object_that_is_made_anew_goes_on_from_what_its_agent_remembers() {
    let mut world = World::new(&[("a", &["A30"])]);
    for name in ["p", "q", "r"] {
        world.create([mig(name, "1g.6gb")]);
        world.pass(2);
    }
    world.server.remove_gpu_node("a");
    world.settle();
    let mut agent = world.agents.remove("a").unwrap();
    agent.enrol(&mut world.server);
    world.agents.insert("a".into(), agent);
    world.server.put_node(node("a"));
    world.settle();
    world.create([mig("s", "1g.6gb")]);
    world.pass(5);
    assert_eq!(world.stage("s"), "runs");
}
