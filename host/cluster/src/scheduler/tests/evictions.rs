//! Room that is made by stopping others.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    agent::Mood,
    check,
    make::{budget, claim, claiming, class, cores, labelled, mig, urgent, whole},
    world::{World, binds, done, evicts},
};
use crate::{
    scheduler::effect::{Effect, Outcome},
    translate::keys,
};

fn is_eviction(effect: &Effect) -> bool {
    matches!(effect, Effect::Evict { .. })
}

fn nominates(effect: &Effect) -> bool {
    matches!(effect, Effect::Nominate { .. })
}

/// A node of 16 cores that `low` fills.
fn full() -> World {
    let mut world = World::new(&[("a", &[])]);
    world.create([cores("low", 12)]);
    world.settle();
    world
}

#[test]
fn the_place_of_who_stops_is_taken_when_they_are_gone() {
    let mut world = full();
    world.create([urgent(cores("high", 10), 10)]);
    world.pass(3);
    assert_eq!((world.wished(evicts("low")), world.stage("high")), (1, "waits"));
    assert_eq!(world.server.pod("ns/high").status.value.nominated_node_name, "a");
    assert_eq!(world.message("high"), "room is being made on node a: it waits for ns/low to stop");
    world.reap();
    world.pass(1);
    assert_eq!((world.place("high").as_str(), world.wished(is_eviction), world.wished(nominates)), ("a", 1, 1));
    check::rest(&world);
}

#[test]
fn who_is_not_bound_yet_gives_way_without_being_stopped() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.agent("a").mood = Mood::Silent;
    world.create([mig("low", "4g.24gb")]);
    world.settle();
    world.create([urgent(whole("high", 1), 10)]);
    world.agent("a").mood = Mood::Works;
    world.pass(3);
    assert_eq!((world.wished(is_eviction), world.stage("high"), world.server.pods.len()), (0, "runs", 2));
    assert!(world.message("low").contains("0/1 nodes fit") || world.message("low").contains("gave way"), "{}", world.message("low"));
    // Nor while its volume is being made.
    let mut world = World::new(&[("a", &[])]);
    world.server.put_class(class("slow", "example.com/slow"));
    world.server.put_claim(claim("c", "slow", "ReadWriteOnce"));
    world.settle();
    world.holds = |effect| matches!(effect, Effect::Volumes { .. });
    world.create([claiming(cores("low", 12), "c")]);
    world.settle();
    world.create([urgent(cores("high", 10), 10)]);
    world.pass(3);
    assert_eq!((world.wished(is_eviction), world.stage("high"), world.stage("low")), (0, "runs", "waits"));
}

#[test]
fn who_may_be_bound_already_is_stopped() {
    let mut world = World::new(&[("a", &[])]);
    world.holds = |effect| matches!(effect, Effect::Bind { pod, .. } if pod.name == "low");
    world.create([cores("low", 12)]);
    world.settle();
    world.create([urgent(cores("high", 10), 10)]);
    world.pass(2);
    assert_eq!(world.wished(is_eviction), 1);
    // It was deleted before it was bound.
    let wish = world.take_wish(binds("low"));
    let gone = world.execute(&wish);
    world.tell(gone);
    world.pass(2);
    assert_eq!((world.stage("high"), world.stage("low")), ("runs", "unknown"));
    check::rest(&world);
}

#[test]
fn who_cannot_be_stopped_stays_and_another_is_found() {
    for outcome in [Outcome::Conflict("its budget".into()), Outcome::Refused("a webhook".into()), Outcome::Unknown("no answer".into())] {
        let mut world = World::new(&[("a", &[]), ("b", &[])]);
        world.create([cores("x", 12), urgent(cores("y", 12), 1)]);
        world.settle();
        world.holds = |effect| matches!(effect, Effect::Evict { pod, .. } if pod.name == "x");
        world.create([urgent(cores("high", 10), 10)]);
        world.settle();
        for _ in 0..30 {
            if world.wishes.iter().any(is_eviction) {
                let wish = world.take_wish(is_eviction);
                world.tell(done(&wish, outcome.clone()));
            }
            world.now_ms += 1000;
            world.reap();
        }
        assert_eq!((world.stage("high"), world.stage("x"), world.wished(evicts("y"))), ("runs", "runs", 1), "{outcome:?}");
        check::rest(&world);
        world.pass(30);
        let id = world.brain.pods["ns/x"].id.unwrap();
        assert!(world.brain.planner().cluster().pod(id).unwrap().spec.terms.budgets.is_empty(), "that is over after a while");
    }
}

#[test]
fn an_eviction_whose_answer_is_lost_is_seen() {
    let mut world = full();
    world.create([urgent(cores("high", 10), 10)]);
    world.holds = is_eviction;
    world.settle();
    let wish = world.take_wish(is_eviction);
    world.execute(&wish);
    world.tell(done(&wish, Outcome::Unknown("no answer".into())));
    world.pass(20);
    assert_eq!(world.wished(is_eviction), 1);
    world.reap();
    assert_eq!(world.stage("high"), "runs");
    check::rest(&world);
}

#[test]
fn an_eviction_that_nobody_answers_is_tried_again() {
    let mut world = full();
    world.create([urgent(cores("high", 10), 10)]);
    world.holds = is_eviction;
    world.settle();
    world.wishes.clear();
    world.holds = |_| false;
    world.pass(150);
    assert_eq!(world.wished(is_eviction), 2);
    world.reap();
    assert_eq!(world.stage("high"), "runs");
    check::rest(&world);
}

#[test]
fn budgets_hold() {
    let mut world = World::new(&[("a", &[]), ("b", &[])]);
    world.server.put_budget(budget("one", "of", "set", 1));
    world.settle();
    world.create([labelled(cores("x", 12), "of", "set"), labelled(cores("y", 12), "of", "set")]);
    world.settle();
    world.create([urgent(cores("h1", 10), 10), urgent(cores("h2", 10), 10)]);
    world.pass(30);
    world.reap();
    world.pass(30);
    assert_eq!(world.wished(is_eviction), 1, "the budget allows one");
    world.server.edit_budget("ns/one", |budget| budget.status.value.disruptions_allowed = 1);
    world.pass(3);
    world.reap();
    assert_eq!((world.wished(is_eviction), world.stage("h1"), world.stage("h2")), (2, "runs", "runs"));
    check::rest(&world);
}

#[test]
fn an_eviction_that_comes_to_nothing_costs_its_budget_nothing() {
    let mut world = full();
    world.server.put_budget(budget("one", "app", "low", 1));
    world.settle();
    world.holds = is_eviction;
    world.create([urgent(cores("high", 10), 10)]);
    world.settle();
    // The node is gone for a moment, and with it the pod from the books.
    let node = world.server.nodes["a"].clone();
    world.server.remove_node("a");
    world.settle();
    let wish = world.take_wish(is_eviction);
    world.tell(done(&wish, Outcome::Refused("a webhook".into())));
    world.server.put_node(node);
    world.holds = |_| false;
    world.pass(3);
    world.reap();
    assert_eq!((world.wished(is_eviction), world.stage("high")), (2, "runs"));
}

#[test]
fn a_pod_that_comes_to_count_in_a_budget_is_protected_by_it() {
    let mut world = full();
    world.server.put_budget(budget("none", "of", "set", 0));
    world.settle();
    world.server.edit_pod("ns/low", |pod| drop(pod.metadata.labels.as_mut().unwrap().insert("of".into(), "set".into())));
    world.create([urgent(cores("high", 10), 10)]);
    world.pass(30);
    assert_eq!(world.wished(is_eviction), 0);
    world
        .server
        .edit_budget("ns/none", |budget| budget.spec.value.selector = serde_json::from_str(r#"{"matchLabels": {"of": "none"}}"#).unwrap());
    world.pass(3);
    assert_eq!(world.wished(is_eviction), 1);
}

#[test]
fn a_scheduler_that_is_started_anew_knows_who_is_stopping() {
    let mut world = full();
    world.create([urgent(cores("high", 10), 10)]);
    world.settle();
    world.start();
    world.pass(30);
    assert_eq!(world.wished(is_eviction), 1);
    world.reap();
    world.pass(1);
    assert_eq!(world.stage("high"), "runs");
    check::rest(&world);
}

#[test]
fn a_winner_that_goes_leaves_nobody_stopped_for_it_later() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.create([whole("low", 1)]);
    world.settle();
    world.create([urgent(mig("high", "1g.6gb"), 10)]);
    world.settle();
    world.server.vanish("ns/high");
    world.reap();
    world.create([whole("next", 1)]);
    world.pass(2);
    assert_eq!((world.stage("next"), world.wished(is_eviction)), ("runs", 1));
    check::rest(&world);
}

#[test]
fn what_a_pod_was_promised_to_run_counts_from_its_start_whoever_leads() {
    let mut world = World::new(&[("a", &[])]);
    let mut low = cores("low", 12);
    low.metadata.annotations.get_or_insert_default().insert(keys::MIN_RUNTIME.into(), "60s".into());
    world.create([low]);
    world.settle();
    let began = jiff::Timestamp::from_millisecond(i64::try_from(world.now_ms).unwrap()).unwrap();
    world.server.edit_pod("ns/low", |pod| pod.status.value.start_time = Some(Time(began)));
    world.pass(50);
    world.start();
    world.create([urgent(cores("high", 10), 10)]);
    world.pass(8);
    assert_eq!(world.wished(is_eviction), 0);
    world.pass(5);
    assert_eq!(world.wished(evicts("low")), 1);
}
