//! Bindings of which nobody knows whether they were carried out.

use super::{
    check,
    life::{calm, is_bind, nothing, on_the_way},
    make::{mig, whole},
    server::What,
    world::{World, binds, done},
};
use crate::scheduler::effect::{Done, Effect, Outcome};

fn is_look(effect: &Effect) -> bool {
    matches!(effect, Effect::Look { .. })
}

#[test]
fn what_a_lost_answer_may_have_done_is_not_given_to_others() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.holds = is_bind;
    world.create([whole("p", 1)]);
    world.settle();
    let wish = world.take_wish(is_bind);
    // It was bound, but neither the answer nor the watch tells.
    let lost = world.execute(&wish);
    assert!(matches!(lost, Done::Bind { outcome: Outcome::Done, .. }));
    world.tell(done(&wish, Outcome::Unknown("no answer".into())));
    world.create([whole("q", 1)]);
    let mut hidden = world.server.untold.remove(&What::Pods).unwrap();
    world.server.untold.insert(What::Pods, hidden.split_off(hidden.len() - 1));
    for _ in 0..10 {
        world.pass(1);
        assert_eq!(world.wished(binds("q")), 0, "at {}", world.now_ms);
    }
    for seen in hidden {
        world.brain.see(world.now_ms, seen);
    }
    world.holds = nothing;
    world.pass(100);
    assert_eq!((world.stage("p"), world.stage("q")), ("runs", "waits"));
}

#[test]
fn a_lost_binding_is_wished_again_and_its_place_kept_until_it_cannot_be_carried_out() {
    for lands in [true, false] {
        let mut world = on_the_way(2);
        let mut last = None;
        for pause in [4, 8, 16] {
            let wish = world.take_wish(is_bind);
            world.tell(done(&wish, Outcome::Unknown("no answer".into())));
            world.pass(pause - 1);
            assert_eq!((world.stage("p"), world.wishes.len()), ("on its way", 0), "{pause}");
            world.pass(1);
            last = Some(wish);
        }
        // The API server works on it for a minute; nobody else gets the place meanwhile.
        world.pass(70);
        assert_eq!((world.stage("p"), world.wished(is_look)), ("on its way", 0));
        if lands {
            world.execute(&last.unwrap());
            world.server.untold.clear();
        }
        world.pass(5);
        assert_eq!((world.stage("p"), world.wished(is_look)), (if lands { "on its way" } else { "returns" }, 1));
        world.relist(What::Pods);
        calm(&mut world);
        assert_eq!((world.stage("p"), world.wished(is_bind)), ("runs", if lands { 3 } else { 4 }));
    }
}

#[test]
fn a_place_is_kept_though_a_later_try_is_refused() {
    for outcome in [Outcome::Refused("no".into()), Outcome::Conflict("no".into())] {
        let mut world = on_the_way(2);
        let first = world.take_wish(is_bind);
        world.tell(done(&first, Outcome::Unknown("no answer".into())));
        world.pass(4);
        let second = world.take_wish(is_bind);
        world.tell(done(&second, outcome));
        world.pass(60);
        assert_eq!(world.stage("p"), "on its way");
        world.execute(&first);
        calm(&mut world);
        assert_eq!((world.stage("p"), world.wished(is_bind)), ("runs", 2));
    }
}

#[test]
fn a_place_is_kept_until_somebody_can_say_that_its_pod_is_not_bound() {
    let mut world = on_the_way(2);
    for pause in [4, 8, 16] {
        let wish = world.take_wish(is_bind);
        world.tell(done(&wish, Outcome::Unknown("no answer".into())));
        world.pass(pause);
    }
    world.holds = is_look;
    for outcome in [Some(Outcome::Unknown("no answer".into())), None, Some(Outcome::Gone)] {
        world.pass(250);
        assert_eq!(world.stage("p"), "on its way");
        let wish = world.take_wish(is_look);
        if let Some(outcome) = outcome {
            world.tell(done(&wish, outcome));
        }
    }
    assert_eq!(world.stage("p"), "returns");
}

#[test]
fn a_binding_that_is_never_answered_does_not_last_for_ever() {
    let mut world = on_the_way(2);
    world.wishes.clear();
    world.holds = nothing;
    world.pass(600);
    assert_eq!(world.stage("p"), "runs");
    check::rest(&world);
}

#[test]
fn what_may_be_bound_keeps_its_place_though_its_gpus_are_away_when_it_is_tried_again() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.holds = is_bind;
    world.create([mig("p", "4g.24gb")]);
    world.settle();
    let wish = world.take_wish(is_bind);
    world.tell(done(&wish, Outcome::Unknown("no answer".into())));
    world.server.remove_gpu_node("a");
    world.pass(6);
    assert_eq!(world.stage("p"), "on its way");
    let mut agent = world.agents["a"].clone();
    agent.enrol(&mut world.server);
    world.agents.insert("a".into(), agent);
    world.create([whole("q", 1)]);
    world.pass(10);
    assert_eq!((world.stage("p"), world.stage("q")), ("on its way", "waits"));
    // It was carried out after all.
    world.execute(&wish);
    world.holds = nothing;
    world.pass(3);
    assert_eq!((world.place("p").as_str(), world.stage("p"), world.stage("q")), ("a 0:4g.24gb@0", "runs", "waits"));
    check::rest(&world);
}
