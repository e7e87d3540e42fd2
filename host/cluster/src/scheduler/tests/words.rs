//! How pods are told, beside what.

use super::{
    make::{claiming, cores, node, urgent},
    world::{World, explains},
};
use crate::scheduler::effect::Effect;

/// Reasons and turns of all that a pod was told.
fn told(world: &World, name: &str) -> Vec<(&'static str, bool)> {
    let told = world.history.iter().filter_map(|effect| match effect {
        Effect::Explain { pod, reason, turns, .. } if pod.name == name => Some((*reason, *turns)),
        _ => None,
    });
    told.collect()
}

fn nominations(world: &World) -> Vec<&str> {
    world.history.iter().filter_map(|effect| if let Effect::Nominate { node, .. } = effect { Some(node.as_str()) } else { None }).collect()
}

#[test]
fn a_condition_turns_once_and_only_who_needs_another_node_is_unschedulable() {
    let mut world = World::new(&[("a", &[])]);
    world.create([cores("w", 99), claiming(cores("h", 1), "none")]);
    world.pass(3);
    assert_eq!(told(&world, "h"), [("Held", true)]);
    assert_eq!(told(&world, "w"), [("Unschedulable", true)]);
    world.pass(20);
    world.server.put_node(node("b"));
    world.pass(20);
    assert_eq!(told(&world, "w"), [("Unschedulable", true), ("Unschedulable", false)]);
    world.start();
    world.server.put_node(node("c"));
    world.pass(20);
    assert_eq!(told(&world, "w").last(), Some(&("Unschedulable", false)));
    assert!(world.message("w").starts_with("0/3"), "{}", world.message("w"));
}

#[test]
fn who_is_told_often_is_told_less_often() {
    let mut world = World::new(&[("a", &[])]);
    world.create([cores("w", 99)]);
    for second in 0..600 {
        if (second / 15) % 2 == 0 {
            world.server.put_node(node("b"));
        } else {
            world.server.remove_node("b");
        }
        world.pass(1);
    }
    let often = world.wished(explains("w"));
    assert!((4..=8).contains(&often), "{often}");
    // After a long rest it is told as soon as anybody.
    world.pass(700);
    let before = world.wished(explains("w"));
    for row in 0..3 {
        world.server.put_node(node(&format!("x{row}")));
        world.pass(12);
    }
    assert!(world.wished(explains("w")) > before);
}

#[test]
fn a_nomination_ends_with_the_room_that_was_made() {
    let mut world = World::new(&[("a", &[])]);
    world.create([cores("low", 12)]);
    world.settle();
    world.create([urgent(cores("high", 10), 10)]);
    world.pass(3);
    assert_eq!(nominations(&world), ["a"]);
    world.server.remove_node("a");
    world.pass(3);
    assert_eq!((nominations(&world), world.stage("high")), (vec!["a", ""], "waits"));
    assert_eq!(world.server.pod("ns/high").status.value.nominated_node_name, "");
}

#[test]
fn a_nomination_of_a_former_leader_ends() {
    let mut world = World::asleep(&[("a", &[])]);
    let mut pod = cores("p", 99);
    pod.status.value.nominated_node_name = "a".into();
    world.create([pod]);
    world.start();
    world.pass(3);
    assert_eq!(nominations(&world), [""]);
    world.pass(60);
    assert_eq!(nominations(&world), [""], "once");
}
