//! What pods are told of why they wait.

use std::collections::BTreeSet;

use partita_core::model::DemandId;
use serde_json::json;

use super::{
    check,
    make::{claiming, cores, labelled, node, pod, whole},
    world::{World, done, explains},
};
use crate::scheduler::effect::{Effect, Outcome};

fn is_word(effect: &Effect) -> bool {
    matches!(effect, Effect::Explain { .. })
}

#[test]
fn a_reason_is_told_once_and_again_when_it_changed_and_some_time_passed() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.create([whole("p", 3)]);
    world.pass(60);
    assert_eq!(world.wished(explains("p")), 1);
    assert!(world.message("p").starts_with("0/1 nodes fit"), "{}", world.message("p"));
    for _ in 0..20 {
        world.server.put_node(node(&format!("n{}", world.now_ms)));
        world.pass(1);
    }
    let told = world.wished(explains("p"));
    assert!((2..=4).contains(&told), "{told}");
    world.pass(20);
    assert!(world.message("p").starts_with("0/21 nodes fit"), "{}", world.message("p"));
}

#[test]
fn it_is_not_told_again_after_a_restart() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.create([whole("p", 3), claiming(cores("q", 1), "none")]);
    world.pass(3);
    assert_eq!(world.wished(is_word), 2);
    world.start();
    world.pass(60);
    assert_eq!(world.wished(is_word), 2);
}

#[test]
fn who_was_held_before_this_process_led_is_told() {
    let mut world = World::asleep(&[("a", &[])]);
    world.create([claiming(cores("q", 1), "none")]);
    world.start();
    world.pass(1);
    assert_eq!(world.message("q"), "waits: claim none does not exist");
}

#[test]
fn a_reason_that_changed_too_soon_is_told_later_to_those_who_are_held_too() {
    let mut world = World::new(&[("a", &[])]);
    let mut odd = pod("o", json!({"nvidia.com/gpu": "1", "nvidia.com/mig-1g.6gb": "1"}));
    world.create([odd.clone()]);
    world.pass(2);
    assert!(world.message("o").contains("in two ways"));
    odd.spec.value.containers[0].resources.requests = serde_json::from_value(json!({"nvidia.com/gpu": "500m"})).unwrap();
    world.server.edit_pod("ns/o", |pod| pod.spec = odd.spec.clone());
    world.pass(3);
    assert!(world.message("o").contains("in two ways"), "too soon");
    world.pass(20);
    assert!(world.message("o").contains("whole number"), "{}", world.message("o"));
}

#[test]
fn what_could_not_be_told_is_told_again() {
    for outcome in [Outcome::Conflict("changed".into()), Outcome::Unknown("no answer".into()), Outcome::Fenced] {
        let mut world = World::new(&[("a", &[])]);
        world.holds = is_word;
        world.create([cores("w", 99), claiming(cores("h", 1), "none")]);
        world.settle();
        for name in ["w", "h"] {
            let wish = world.take_wish(explains(name));
            world.tell(done(&wish, outcome.clone()));
        }
        world.holds = |_| false;
        world.pass(12);
        assert!(world.message("w").contains("0/1") && world.message("h").contains("none"), "{outcome:?}");
    }
    // What is refused is not repeated for ever.
    let mut world = World::new(&[("a", &[])]);
    world.holds = is_word;
    world.create([cores("w", 99)]);
    world.settle();
    let wish = world.take_wish(is_word);
    world.tell(done(&wish, Outcome::Refused("no".into())));
    world.pass(60);
    assert_eq!(world.wished(is_word), 1);
}

#[test]
fn who_gets_a_place_at_once_is_told_nothing() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.create((0..8).map(|row| cores(&format!("p{row}"), 1)));
    world.pass(5);
    assert_eq!(world.wished(is_word), 0);
}

#[test]
fn many_pods_of_one_demand_are_told_some_at_a_time() {
    let mut world = World::new(&[("a", &[])]);
    world.create((0..1000).map(|row| cores(&format!("p{row}"), 99)));
    world.deliver_all();
    let mut told = BTreeSet::new();
    for turn in 0..4 {
        assert!(turn == 0 || world.brain.wakes_in_ms().is_some_and(|ms| ms <= 100), "there is more to tell");
        world.turn();
        assert!(world.wishes.len() <= 256);
        told.extend(world.wishes.drain(..).map(|effect| format!("{effect:?}")));
        world.now_ms += 100;
    }
    assert_eq!(told.len(), 1000);
    world.pass(15);
    assert_eq!(world.wished(is_word), 1000, "nobody twice");
}

#[test]
fn many_demands_are_looked_at_some_at_a_time() {
    // 300 nodes and 400 demands: 120,000 looks.
    let names: Vec<String> = (0..300).map(|row| format!("n{row:03}")).collect();
    let nodes: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), &[][..])).collect();
    let mut world = World::new(&nodes);
    world.create((0..400).map(|row| cores(&format!("p{row:03}"), 100 + row)));
    world.deliver_all();
    let mut turns = 0;
    while world.brain.reasons.is_behind() {
        world.turn();
        world.now_ms += 100;
        turns += 1;
        assert!(world.wishes.len() <= 167, "a turn looks at 50,000 nodes at most");
        world.wishes.clear();
    }
    assert_eq!((turns, world.wished(is_word)), (3, 400));
    let demands: BTreeSet<DemandId> = world.brain.planner().queue().lanes().map(|lane| lane.1).collect();
    assert_eq!(demands.len(), 400);
}

#[test]
fn a_pod_learns_what_went_wrong_the_last_time() {
    let mut world = World::new(&[("a", &[])]);
    world.holds = |effect| matches!(effect, Effect::Bind { .. });
    world.create([labelled(cores("p", 1), "a", "b")]);
    world.settle();
    let wish = world.take_wish(|effect| matches!(effect, Effect::Bind { .. }));
    world.tell(done(&wish, Outcome::Refused("a webhook says no".into())));
    world.settle();
    assert_eq!((world.message("p").as_str(), world.stage("p")), ("a webhook says no", "returns"));
    world.holds = |_| false;
    world.pass(3);
    check::rest(&world);
}
