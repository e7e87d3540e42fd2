//! Pods with claims on volumes.

use serde_json::json;

use super::{
    check,
    make::{claim, claiming, class, cores, urgent, volume},
    server::What,
    world::{World, binds, done},
};
use crate::{
    scheduler::effect::{Effect, Outcome, VolumeChoice},
    watch::Seen,
};

const SELECTED_NODE: &str = crate::translate::SELECTED_NODE;

fn is_choice(effect: &Effect) -> bool {
    matches!(effect, Effect::Volumes { .. })
}

/// Two nodes, a class whose volumes are made, and one whose volumes are there.
fn world() -> World {
    let mut world = World::new(&[("a", &[]), ("b", &[])]);
    world.server.put_class(class("made", "example.com/maker"));
    world.server.put_class(class("local", "kubernetes.io/no-provisioner"));
    world.settle();
    world
}

#[test]
fn volumes_are_chosen_and_bound_before_the_pod() {
    let mut world = world();
    world.server.put_claim(claim("c", "made", "ReadWriteOnce"));
    world.server.put_claim(claim("d", "local", "ReadWriteOnce"));
    world.server.put_volume(volume("v", "local", "b"));
    world.create([claiming(cores("p", 1), "c"), claiming(cores("q", 1), "d")]);
    world.pass(3);
    assert_eq!((world.place("p").as_str(), world.place("q").as_str(), world.wished(is_choice)), ("a", "b", 2));
    check::rest(&world);
}

#[test]
fn a_claim_that_is_missing_or_not_bound_is_waited_for() {
    let mut world = world();
    world.create([claiming(cores("p", 1), "c")]);
    world.pass(2);
    assert_eq!((world.stage("p"), world.message("p").as_str()), ("held", "waits: claim c does not exist"));
    world.server.put_claim(claim("c", "local", "ReadWriteOnce"));
    world.pass(20);
    assert!(world.message("p").contains("no volume that is there would do"), "{}", world.message("p"));
    world.server.put_volume(volume("v", "local", "b"));
    world.pass(2);
    assert_eq!(world.place("p"), "b");
    check::rest(&world);
}

#[test]
fn two_pods_of_one_claim_go_to_one_node() {
    let mut world = world();
    world.server.put_claim(claim("c", "made", "ReadWriteMany"));
    // Each fits on either node, but not both on the one that the first takes.
    world.create([claiming(cores("p", 10), "c"), claiming(cores("q", 10), "c")]);
    world.pass(20);
    assert_eq!((world.place("p").as_str(), world.stage("q")), ("a", "waits"));
    let chosen: Vec<String> = world
        .history
        .iter()
        .filter_map(|effect| if let Effect::Volumes { node, .. } = effect { Some(node.clone()) } else { None })
        .collect();
    assert_eq!(chosen, ["a"], "the claim is asked for one node");
    world.server.delete_pod("ns/p");
    world.reap();
    world.pass(2);
    assert_eq!(world.place("q"), "a");
    check::rest(&world);
}

#[test]
fn two_pods_of_one_claim_on_one_node_share_the_choice() {
    let mut world = world();
    world.server.put_claim(claim("c", "made", "ReadWriteMany"));
    world.create([claiming(cores("p", 1), "c"), claiming(cores("q", 1), "c")]);
    world.pass(10);
    assert_eq!((world.place("p").as_str(), world.place("q").as_str(), world.wished(is_choice)), ("a", "a", 1));
    check::rest(&world);
}

#[test]
fn two_claims_do_not_take_one_volume() {
    let mut world = world();
    for name in ["c", "d"] {
        world.server.put_claim(claim(name, "local", "ReadWriteOnce"));
    }
    world.server.put_volume(volume("v", "local", "a"));
    world.create([claiming(cores("p", 1), "c"), claiming(cores("q", 1), "d")]);
    world.pass(30);
    let stages = [world.stage("p"), world.stage("q")];
    assert!(stages.contains(&"runs") && stages.contains(&"held"), "{stages:?}");
    world.server.put_volume(volume("w", "local", "b"));
    world.pass(2);
    assert_eq!([world.stage("p"), world.stage("q")], ["runs", "runs"]);
    check::rest(&world);
}

#[test]
fn a_claim_for_one_pod_is_used_by_one() {
    let mut world = world();
    world.server.put_claim(claim("c", "made", "ReadWriteOncePod"));
    world.create([claiming(cores("p", 1), "c"), claiming(cores("q", 1), "c")]);
    world.pass(20);
    assert_eq!((world.stage("p"), world.stage("q")), ("runs", "held"));
    assert_eq!(world.message("q"), "waits: claim c allows one pod at a time, and ns/p uses it");
    world.server.delete_pod("ns/p");
    world.reap();
    world.pass(2);
    assert_eq!(world.stage("q"), "runs", "nothing of the storage changed, but its user went");
    check::rest(&world);
}

#[test]
fn volumes_that_are_not_bound_in_time_give_the_place_back() {
    let mut world = world();
    world.server.put_claim(claim("c", "made", "ReadWriteOnce"));
    world.holds = is_choice;
    world.create([claiming(cores("p", 1), "c")]);
    world.settle();
    let wish = world.take_wish(is_choice);
    // It is said to be done, but nobody makes the volume.
    world.tell(done(&wish, Outcome::Done));
    world.pass(599);
    assert_eq!(world.stage("p"), "on its way");
    world.holds = |_| false;
    world.pass(5);
    assert_eq!(world.stage("p"), "runs");
    assert_eq!(world.wished(is_choice), 2);
    check::rest(&world);
}

#[test]
fn a_provisioner_that_cannot_make_it_there_takes_its_node_back() {
    let mut world = world();
    world.server.put_claim(claim("c", "made", "ReadWriteOnce"));
    world.create([claiming(cores("p", 1), "c")]);
    world.deliver_all();
    world.turn();
    world.execute_all();
    let selected = |world: &World| world.server.claims["ns/c"].metadata.annotations.clone().unwrap_or_default().get(SELECTED_NODE).cloned();
    assert_eq!(selected(&world).as_deref(), Some("a"));
    world.deliver_all();
    world.turn();
    world.server.edit_claim("ns/c", |claim| drop(claim.metadata.annotations.as_mut().unwrap().remove(SELECTED_NODE)));
    world.deliver_all();
    world.turn();
    assert_eq!(world.stage("p"), "returns");
    let message = world.brain.standing("ns", "p").unwrap().message.unwrap();
    assert_eq!(message, "the volume of claim c cannot be made for node a");
    world.pass(3);
    assert_eq!(world.stage("p"), "runs");
    check::rest(&world);
}

#[test]
fn a_choice_that_fails_is_made_anew() {
    for outcome in [
        Outcome::Conflict("changed".into()),
        Outcome::Gone,
        Outcome::Unknown("no answer".into()),
        Outcome::Refused("no".into()),
        Outcome::Fenced,
    ] {
        for carried_out in [true, false] {
            let mut world = world();
            world.server.put_claim(claim("c", "made", "ReadWriteOnce"));
            world.holds = is_choice;
            world.create([claiming(cores("p", 1), "c")]);
            world.settle();
            let wish = world.take_wish(is_choice);
            if carried_out {
                world.execute(&wish);
            }
            world.tell(done(&wish, outcome.clone()));
            world.holds = |_| false;
            // Who refused it on one node is not asked about that node at once.
            world.pass(if matches!(outcome, Outcome::Refused(_)) { 8 } else { 3 });
            assert_eq!(world.stage("p"), "runs", "{outcome:?} {carried_out}");
            check::rest(&world);
        }
    }
}

#[test]
fn a_choice_that_nobody_answers_does_not_last_for_ever() {
    let mut world = world();
    world.server.put_claim(claim("c", "made", "ReadWriteOnce"));
    world.holds = is_choice;
    world.create([claiming(cores("p", 1), "c")]);
    world.settle();
    world.wishes.clear();
    world.holds = |_| false;
    world.pass(130);
    assert_eq!(world.stage("p"), "runs");
}

#[test]
fn a_choice_that_was_about_another_node_is_not_about_this_one() {
    let mut world = world();
    world.server.put_claim(claim("c", "made", "ReadWriteOnce"));
    world.holds = is_choice;
    world.create([claiming(cores("p", 1), "c")]);
    world.settle();
    let first = world.take_wish(is_choice);
    world.server.remove_node("a");
    world.pass(3);
    assert_eq!(world.brain.standing("ns", "p").unwrap().node.as_deref(), Some("b"));
    world.tell(done(&first, Outcome::Done));
    let second = world.take_wish(is_choice);
    world.tell(done(&second, Outcome::Conflict("changed".into())));
    assert_eq!(world.stage("p"), "returns");
    // The first is carried out in the end: the claim is for a node that is gone, until somebody takes it back.
    world.execute(&first);
    world.holds = |_| false;
    world.pass(3);
    assert_eq!(world.wished(binds("p")), 0);
}

#[test]
fn what_is_chosen_names_the_version_that_was_seen() {
    let mut world = world();
    world.server.put_claim(claim("d", "local", "ReadWriteOnce"));
    world.server.put_volume(volume("v", "local", "b"));
    world.settle();
    world.holds = is_choice;
    world.create([claiming(cores("q", 1), "d")]);
    world.settle();
    let seen = world.server.volumes["v"].metadata.resource_version.clone().unwrap();
    let wish = world.take_wish(is_choice);
    let Effect::Volumes { choices, .. } = &wish else { panic!() };
    assert!(matches!(&choices[0], VolumeChoice::Take { volume, version, .. } if volume == "v" && *version == seen));
    // Another scheduler gave it away meanwhile.
    world.server.edit_volume("v", |volume| {
        volume.spec.value.claim_ref = serde_json::from_str(r#"{"namespace": "other", "name": "x", "uid": "y"}"#).unwrap();
    });
    let conflict = world.execute(&wish);
    assert!(matches!(&conflict, crate::scheduler::effect::Done::Volumes { outcome: Outcome::Conflict(_), .. }));
    world.tell(conflict);
    world.holds = |_| false;
    world.pass(3);
    assert_eq!((world.stage("q"), world.wished(binds("q"))), ("held", 0));
}

#[test]
fn storage_that_changes_is_looked_at_for_those_who_use_it() {
    let mut world = world();
    for row in 0..50 {
        world.server.put_claim(claim(&format!("c{row}"), "local", "ReadWriteOnce"));
        world.create([claiming(cores(&format!("p{row}"), 1), &format!("c{row}"))]);
    }
    world.settle();
    world.server.edit_claim("ns/c7", |_| {});
    world.deliver_all();
    assert_eq!(world.brain.dirty.claims.iter().collect::<Vec<_>>(), ["ns/c7"]);
    assert!(!world.brain.dirty.all);
    world.server.put_volume(volume("v", "local", "a"));
    world.deliver_all();
    assert!(world.brain.dirty.all, "it may serve anybody");
    world.create([urgent(claiming(cores("late", 1), "c7"), 5)]);
    world.relist(What::Claims);
    world.settle();
    check::books(&world);
}

#[test]
fn volumes_of_pods_that_run_count_from_when_their_driver_has_a_limit() {
    let mut world = world();
    world.server.remove_node("b");
    for name in ["c0", "c1", "c2"] {
        world.server.put_claim(claim(name, "made", "ReadWriteOnce"));
    }
    world.create([claiming(cores("p0", 1), "c0"), claiming(cores("p1", 1), "c1")]);
    world.pass(3);
    assert_eq!((world.stage("p0"), world.stage("p1")), ("runs", "runs"));
    for name in ["c0", "c1"] {
        let csi = json!({"driver": "example.com/maker"});
        world.server.edit_volume(&format!("made-for-{name}"), |volume| volume.spec.value.csi = serde_json::from_value(csi).unwrap());
    }
    world.pass(1);
    // The driver registers late, with room for two volumes on the node.
    let drivers = |count: u32| {
        let text =
            json!({"metadata": {"name": "a"}, "spec": {"drivers": [{"name": "example.com/maker", "allocatable": {"count": count}}]}});
        Seen::Drivers("a".into(), Some(Box::new(serde_json::from_value(text).unwrap())))
    };
    world.brain.see(world.now_ms, drivers(2));
    world.create([claiming(cores("p2", 1), "c2")]);
    world.pass(3);
    assert_eq!(world.stage("p2"), "waits");
    world.brain.see(world.now_ms, drivers(3));
    world.pass(3);
    assert_eq!(world.stage("p2"), "runs");
    check::rest(&world);
}
