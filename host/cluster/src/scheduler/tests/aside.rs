//! Nodes that fail a pod again and again: others are tried, and in the end they themselves.

use super::{
    agent::Mood,
    check,
    make::{claim, claiming, class, cores, mig},
    world::{World, binds, done},
};
use crate::scheduler::effect::{Effect, Outcome};

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

fn layout_of(name: &str) -> impl Fn(&Effect) -> bool {
    move |effect| matches!(effect, Effect::Layout { node, .. } if node == name)
}

/// Time passes, and the API server refuses everything that is held back.
fn refuse(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.pass(1);
        for wish in std::mem::take(&mut world.wishes) {
            world.tell(done(&wish, Outcome::Refused("that is not allowed there".into())));
        }
    }
}

#[test]
fn a_layout_that_is_refused_for_good_does_not_keep_a_pod_from_the_next_node() {
    let mut world = World::new(&[("a", &["A30"]), ("b", &["A30"])]);
    world.holds = |effect| layout_of("a")(effect);
    world.create([mig("p", "2g.12gb")]);
    refuse(&mut world, 5);
    assert_eq!((world.place("p").as_str(), world.wished(layout_of("a"))), ("b 0:2g.12gb@0", 1));
    check::rest(&world);
}

#[test]
fn a_node_whose_layout_is_refused_is_asked_ever_more_seldom() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.holds = |effect| layout_of("a")(effect);
    world.create([mig("p", "2g.12gb")]);
    refuse(&mut world, 1800);
    let asked = world.wished(layout_of("a"));
    assert!((5..=12).contains(&asked), "{asked}");
    assert!(world.message("p").contains("refused: that is not allowed there"), "{}", world.message("p"));
    world.holds = |_| false;
    world.pass(700);
    assert_eq!(world.stage("p"), "runs");
    check::rest(&world);
}

#[test]
fn a_layout_that_is_not_answered_sets_its_node_aside() {
    let mut world = World::new(&[("a", &["A30"]), ("b", &["A30"])]);
    world.holds = |effect| layout_of("a")(effect);
    world.create([mig("p", "2g.12gb")]);
    for _ in 0..70 {
        world.pass(1);
        for wish in std::mem::take(&mut world.wishes) {
            world.tell(done(&wish, Outcome::Unknown("no answer".into())));
        }
    }
    assert_eq!(world.place("p"), "b 0:2g.12gb@0");
}

#[test]
fn who_waits_for_a_gpu_that_is_set_aside_does_not_wait_for_a_layout_that_leaves_it_out() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.holds = |effect| layout_of("a")(effect);
    world.create([mig("p", "1g.6gb")]);
    world.settle();
    // Another comes while the first layout is on its way; its own is written after that one.
    let wish = world.take_wish(layout_of("a"));
    world.create([mig("q", "1g.6gb")]);
    world.settle();
    assert_eq!((world.stage("p"), world.stage("q")), ("on its way", "on its way"));
    // The agent takes the first and fails before its writer has heard that it was written.
    world.agent("a").mood = Mood::Fails;
    let written = world.execute(&wish);
    world.settle();
    world.tell(written);
    world.settle();
    let message = world.brain.standing("ns", "q").unwrap().message.unwrap();
    assert!(message.contains("GPU 0 of node a, to which it was on its way, cannot be used: "), "{message}");
    world.holds = |_| false;
    world.agent("a").mood = Mood::Works;
    world.pass(10);
    assert_eq!((world.stage("p"), world.stage("q")), ("runs", "runs"));
    check::rest(&world);
}

#[test]
fn a_provisioner_that_is_full_on_one_node_is_asked_on_the_next() {
    let mut world = World::new(&[("a", &[]), ("b", &[])]);
    world.server.put_class(class("local", "example.com/lvm"));
    world.server.put_claim(claim("c", "local", "ReadWriteOnce"));
    world.settle();
    world.create([claiming(cores("p", 1), "c")]);
    let mut chosen = Vec::new();
    for _ in 0..60 {
        world.now_ms += 1000;
        for _ in 0..5 {
            world.deliver_all();
            world.turn();
            world.execute_all();
            let selected = world.server.claims["ns/c"].metadata.annotations.clone().unwrap_or_default().remove(SELECTED_NODE);
            if selected.as_deref() == Some("a") {
                chosen.extend(selected);
                world.server.edit_claim("ns/c", |claim| drop(claim.metadata.annotations.as_mut().unwrap().remove(SELECTED_NODE)));
            } else {
                world.live();
            }
        }
    }
    assert_eq!((chosen.len(), world.place("p").as_str()), (1, "b"));
    check::rest(&world);
}

#[test]
fn a_pod_that_a_node_does_not_take_goes_to_the_next_and_is_told_of_it() {
    let mut world = World::new(&[("a", &[]), ("b", &[])]);
    world.holds = |effect| matches!(effect, Effect::Bind { node, .. } if node == "a");
    world.create([cores("p", 1)]);
    refuse(&mut world, 3);
    assert_eq!((world.place("p").as_str(), world.wished(binds("p"))), ("b", 2));
    // Where there is no other node, this one is tried again.
    world.server.remove_node("b");
    world.create([cores("q", 1)]);
    refuse(&mut world, 3);
    let message = world.brain.standing("ns", "q").unwrap().message.unwrap();
    assert!(message.contains("kept away from node a for a while: that is not allowed there"), "{message}");
    world.holds = |_| false;
    world.pass(60);
    assert_eq!(world.place("q"), "a");
    assert!(world.brain.pods["ns/q"].avoids.is_empty());
    let constraints = world.brain.pods["ns/q"].spec.as_ref().unwrap().demand.constraints.clone().unwrap_or_default();
    assert!(constraints.volumes.is_empty(), "who runs there could run anywhere");
    check::rest(&world);
}
