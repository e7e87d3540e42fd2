//! The life of a pod: every way from its creation to its end, with something going wrong at each step.

use serde_json::json;

use super::{
    agent::Mood,
    check,
    make::{self, cores, mig, pod, whole},
    server::What,
    world::{World, binds, done, explains},
};
use crate::scheduler::effect::{Effect, Outcome, PodName};

fn world() -> World {
    World::new(&[("a", &["A30"]), ("b", &["A30"])])
}

pub(super) fn is_bind(effect: &Effect) -> bool {
    matches!(effect, Effect::Bind { .. })
}

fn is_layout(effect: &Effect) -> bool {
    matches!(effect, Effect::Layout { .. })
}

pub(super) fn nothing(_: &Effect) -> bool {
    false
}

/// A world with a pod `p` that wants a partition and is somewhere on its way.
pub(super) fn on_the_way(step: usize) -> World {
    let mut world = world();
    world.create([mig("p", "2g.12gb")]);
    match step {
        // Its layout is being written.
        0 => world.holds = is_layout,
        // Its agent works.
        1 => world.agents.values_mut().for_each(|agent| agent.mood = Mood::Silent),
        // Its binding is on its way.
        2 => world.holds = is_bind,
        // It is bound, and runs.
        _ => {}
    }
    world.settle();
    if step == 3 {
        assert_eq!(world.stage("p"), "runs");
    } else {
        assert_eq!((world.stage("p"), world.server.node_of("ns/p")), ("on its way", ""));
    }
    world
}

/// Nothing goes wrong any more.
pub(super) fn calm(world: &mut World) {
    world.holds = nothing;
    world.agents.values_mut().for_each(|agent| agent.mood = Mood::Works);
    world.pass(200);
    check::rest(world);
}

fn name_of(world: &World, pod: &str) -> PodName {
    let uid = world.server.pod(&format!("ns/{pod}")).metadata.uid.clone().unwrap();
    PodName { namespace: "ns".into(), name: pod.into(), uid }
}

#[test]
fn pods_of_every_kind_are_bound_once_what_they_need_is_there() {
    let mut world = world();
    world.create([cores("c", 2), whole("w", 1), mig("m", "1g.6gb"), pod("s", json!({"nvidia.com/gpu-8gb": "1"}))]);
    world.pass(5);
    assert_eq!(world.place("c"), "a");
    assert_eq!(world.place("w"), "a 0:1000m");
    assert_eq!(world.place("m"), "b 0:1g.6gb@0");
    assert_eq!((world.stage("s"), world.wished(binds("s"))), ("waits", 0));
    world.server.delete_pod("ns/w");
    world.reap();
    world.pass(2);
    assert_eq!(world.place("s"), "a 0:mps/8192");
    check::rest(&world);
    let bindings = world.wished(is_bind);
    world.pass(100);
    assert_eq!(world.wished(is_bind), bindings, "each is bound once");
}

#[test]
fn a_partition_that_is_there_is_not_waited_for() {
    let mut world = World::asleep(&[("a", &["A30"])]);
    world.agent("a").cut(0, &[("1g.6gb", 0), ("2g.12gb", 2)]);
    world.live();
    world.start();
    world.create([mig("o", "2g.12gb")]);
    world.settle();
    assert_eq!((world.place("o").as_str(), world.wished(is_layout)), ("a 0:2g.12gb@2", 1), "its agent must know who leads");
    world.server.delete_pod("ns/o");
    world.reap();
    world.create([mig("p", "2g.12gb")]);
    world.settle();
    assert_eq!((world.place("p").as_str(), world.wished(is_layout)), ("a 0:2g.12gb@2", 1));
}

#[test]
fn a_pod_that_is_deleted_leaves_nothing_behind() {
    for step in 0..4 {
        let mut world = on_the_way(step);
        world.server.delete_pod("ns/p");
        world.settle();
        world.reap();
        calm(&mut world);
        assert_eq!((world.stage("p"), world.brain.planner().queue().len()), ("unknown", 0), "step {step}");
        // All that it had is somebody else's now.
        world.create([whole("x", 1), whole("y", 1)]);
        world.pass(2);
        let places = std::collections::BTreeSet::from([world.place("x"), world.place("y")]);
        assert_eq!(places, ["a 0:1000m".to_owned(), "b 0:1000m".to_owned()].into(), "step {step}");
    }
}

#[test]
fn a_pod_that_is_created_anew_under_its_name_is_another() {
    for step in 0..4 {
        let mut world = on_the_way(step);
        let before = name_of(&world, "p");
        world.server.vanish("ns/p");
        world.create([mig("p", "2g.12gb")]);
        // The watch tells of the new one only.
        world.relist(What::Pods);
        calm(&mut world);
        assert_eq!(world.stage("p"), "runs", "step {step}");
        let bound = |effect: &Effect| matches!(effect, Effect::Bind { pod, .. } if pod.uid != before.uid);
        assert_eq!(world.wished(bound), 1, "step {step}");
    }
}

#[test]
fn a_pod_that_somebody_else_binds_is_booked_where_it_runs() {
    for step in 0..3 {
        for (node, grant) in [("b", None), ("b", Some("0:2g.12gb@0")), ("a", None), ("a", Some("0:2g.12gb@2"))] {
            let mut world = on_the_way(step);
            let name = name_of(&world, "p");
            assert_eq!(world.server.bind(&name, node, grant), Outcome::Done);
            world.server.started.remove("ns/p");
            world.deliver_all();
            let id = world.brain.pods["ns/p"].id.unwrap();
            let (on, given) = world.brain.planner().cluster().runs_on(id).unwrap();
            assert_eq!(world.brain.node_names[&on], node, "step {step}, {grant:?}");
            // What was made for it on the way is what it got, as far as one can guess.
            assert_eq!(given.0.len(), usize::from(grant.is_some() || node == "a"), "step {step} on {node}");
            assert!(world.brain.handshakes.waiting().next().is_none(), "step {step}");
        }
    }
}

#[test]
fn a_scheduler_that_is_started_anew_takes_over_every_pod_where_it_is() {
    for step in 0..4 {
        let mut world = on_the_way(step);
        world.start();
        calm(&mut world);
        assert_eq!(world.stage("p"), "runs", "step {step}");
    }
}

#[test]
fn a_pod_whose_node_vanishes_on_the_way_goes_elsewhere() {
    for step in 0..3 {
        let mut world = on_the_way(step);
        let wishes = std::mem::take(&mut world.wishes);
        world.server.remove_node("a");
        world.settle();
        // What is under way ends as it may.
        for wish in wishes {
            let outcome = if is_bind(&wish) { Outcome::Conflict("no".into()) } else { Outcome::Done };
            world.tell(done(&wish, outcome));
        }
        calm(&mut world);
        assert_eq!(world.place("p"), "b 0:2g.12gb@0", "step {step}");
    }
}

#[test]
fn a_binding_that_fails_is_tried_again_ever_later() {
    let mut world = world();
    world.holds = is_bind;
    world.create([cores("p", 1)]);
    let mut at = Vec::new();
    for _ in 0..400 {
        world.pass(1);
        if !world.wishes.is_empty() {
            at.push(world.now_ms / 1000);
            let wish = world.take_wish(is_bind);
            world.tell(done(&wish, Outcome::Refused("an admission webhook says no".into())));
            assert_eq!(world.brain.standing("ns", "p").unwrap().message.as_deref(), Some("an admission webhook says no"));
        }
    }
    let pauses: Vec<u64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Once on each node, and then each of them ever later.
    let rounds: Vec<u64> = pauses.chunks_exact(2).map(|pair| pair[0] + pair[1]).collect();
    assert!(rounds.len() >= 4 && rounds[0] < 10 && rounds.windows(2).all(|pair| 2 * pair[1] >= 3 * pair[0]), "{pauses:?}");
    // Once it is bound it begins anew.
    world.holds = nothing;
    world.pass(601);
    assert_eq!(world.stage("p"), "runs");
    assert_eq!(world.brain.pods["ns/p"].returned, 0);
}

#[test]
fn a_pod_that_is_gone_or_taken_is_left_alone() {
    for outcome in [Outcome::Gone, Outcome::Conflict("it was bound to b by somebody else".into())] {
        let mut world = on_the_way(2);
        let wish = world.take_wish(is_bind);
        world.tell(done(&wish, outcome));
        assert_eq!(world.stage("p"), "returns");
        world.server.vanish("ns/p");
        world.settle();
        assert_eq!(world.stage("p"), "unknown");
        calm(&mut world);
    }
}

#[test]
fn while_this_process_does_not_lead_nothing_is_lost() {
    let mut world = on_the_way(2);
    let wish = world.take_wish(is_bind);
    world.tell(done(&wish, Outcome::Fenced));
    calm(&mut world);
    assert_eq!(world.stage("p"), "runs");
    let mut world = on_the_way(0);
    let wish = world.take_wish(is_layout);
    world.tell(done(&wish, Outcome::Fenced));
    calm(&mut world);
    assert_eq!(world.stage("p"), "runs");
}

#[test]
fn an_answer_about_an_earlier_way_is_not_about_this_one() {
    let mut world = on_the_way(2);
    let wish = world.take_wish(is_bind);
    world.tell(done(&wish, Outcome::Conflict("no".into())));
    world.server.remove_node("a");
    world.pass(5);
    assert_eq!(world.brain.standing("ns", "p").unwrap().node.as_deref(), Some("b"));
    world.tell(done(&wish, Outcome::Refused("no".into())));
    assert_eq!(world.stage("p"), "on its way", "that was about node a");
}

#[test]
fn who_is_given_back_in_the_same_breath_is_not_bound() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.create([mig("p", "2g.12gb")]);
    world.agent("a").mood = Mood::Silent;
    world.settle();
    world.agent("a").mood = Mood::Works;
    world.live();
    // The agent is done, and before the next turn the node is gone.
    world.deliver_all();
    world.server.remove_node("a");
    world.deliver_all();
    world.turn();
    assert_eq!(world.wished(is_bind), 0);
    world.pass(3);
    assert_eq!((world.wished(is_bind), world.stage("p")), (0, "waits"));
    check::rest(&world);
}

#[test]
fn a_pod_is_bound_with_what_its_binding_says() {
    // A former leader's binding lands late: the same node, another partition.
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    world.create([mig("p", "4g.24gb")]);
    world.holds = is_bind;
    world.settle();
    let mine = world.take_wish(is_bind);
    assert!(matches!(&mine, Effect::Bind { grant, .. } if grant.as_deref() == Some("0:4g.24gb@0")));
    world.agent("a").cut(1, &[("4g.24gb", 0)]);
    world.server.edit_gpu_node("a", |node| {
        let first = node.spec.value.gpus[0].clone();
        node.spec.value.gpus[1] = crate::crd::DesiredGpu { uuid: "GPU-a-1".into(), index: 1, ..first };
        node.spec.value.generation += 1;
    });
    world.live();
    let name = name_of(&world, "p");
    world.server.bind(&name, "a", Some("1:4g.24gb@0"));
    world.holds = nothing;
    world.settle();
    world.create([mig("q", "4g.24gb")]);
    world.pass(5);
    assert_eq!((world.place("p").as_str(), world.place("q").as_str()), ("a 1:4g.24gb@0", "a 0:4g.24gb@0"));
}

#[test]
fn gates_and_what_is_not_done_hold_a_pod_until_that_changes() {
    let mut world = world();
    let mut gated = cores("g", 1);
    gated.spec.value.scheduling_gates = serde_json::from_value(json!([{"name": "later"}])).unwrap();
    let odd = pod("o", json!({"nvidia.com/gpu": "1", "nvidia.com/mig-1g.6gb": "1"}));
    world.create([gated, odd]);
    world.pass(3);
    assert_eq!((world.stage("g"), world.stage("o")), ("held", "held"));
    assert_eq!((world.message("g").as_str(), world.wished(explains("g"))), ("", 0), "the API server tells of gates");
    assert!(world.message("o").contains("in two ways"), "{}", world.message("o"));
    world.server.edit_pod("ns/g", |pod| pod.spec.value.scheduling_gates.clear());
    world.server.edit_pod("ns/o", |pod| drop(pod.spec.value.containers[0].resources.requests.remove("nvidia.com/gpu")));
    world.pass(3);
    assert_eq!((world.stage("g"), world.stage("o")), ("runs", "runs"));
    check::rest(&world);
}

#[test]
fn pods_of_others_are_none_of_its_business_until_they_run() {
    let mut world = world();
    let mut other = cores("o", 12);
    other.spec.value.scheduler_name = "default-scheduler".into();
    world.create([other]);
    world.settle();
    assert_eq!(world.stage("o"), "unknown");
    let name = name_of(&world, "o");
    world.server.bind(&name, "a", None);
    world.create([cores("p", 12)]);
    world.settle();
    assert_eq!((world.stage("o"), world.place("p").as_str()), ("runs", "b"));
    // It ends: what it used is free.
    world.server.edit_pod("ns/o", |pod| pod.status.value.phase = "Succeeded".into());
    world.create([cores("q", 12)]);
    world.settle();
    assert_eq!((world.stage("o"), world.place("q").as_str()), ("unknown", "a"));
}

#[test]
fn a_dry_run_waits_for_nobody() {
    let mut world = World::asleep(&[("a", &["A30"])]);
    world.brain = super::world::brain(world.config, true);
    for what in What::ALL {
        world.relist(what);
    }
    world.brain.see(0, crate::watch::Seen::Complete);
    world.brain.lead(0);
    world.server.put_class(make::class("slow", "example.com/slow"));
    world.server.put_claim(make::claim("c", "slow", "ReadWriteOnce"));
    world.deliver_all();
    world.create([make::claiming(mig("p", "1g.6gb"), "c"), mig("q", "4g.24gb")]);
    world.deliver_all();
    for _ in 0..300 {
        world.now_ms += 1000;
        world.turn();
        for wish in std::mem::take(&mut world.wishes) {
            world.tell(done(&wish, Outcome::Done));
        }
    }
    assert_eq!((world.wished(binds("p")), world.wished(binds("q")), world.wished(is_layout)), (1, 0, 0));
    assert_eq!((world.stage("p"), world.stage("q")), ("on its way", "waits"));
}

#[test]
fn what_changes_while_a_pod_is_bound_is_taken_over() {
    let mut world = world();
    world.holds = is_bind;
    world.create([cores("p", 1)]);
    world.settle();
    let wish = world.take_wish(is_bind);
    // The labels change before the binding is seen, and the watch tells of both at once.
    world.server.edit_pod("ns/p", |pod| drop(pod.metadata.labels.as_mut().unwrap().insert("app".into(), "other".into())));
    world.execute(&wish);
    world.relist(What::Pods);
    let id = world.brain.pods["ns/p"].id.unwrap();
    assert_eq!(world.brain.planner().cluster().pod(id).unwrap().spec.labels["app"], "other");
}

#[test]
fn a_pod_that_is_resized_counts_with_what_it_has() {
    let mut world = World::new(&[("a", &[])]);
    world.create([cores("p", 2), cores("q", 10)]);
    world.settle();
    let resize = |text: &str| {
        let text = text.to_owned();
        move |pod: &mut crate::objects::Pod| drop(pod.spec.value.containers[0].resources.requests.insert("cpu".into(), text))
    };
    world.server.edit_pod("ns/p", resize("6"));
    world.create([cores("r", 1)]);
    world.pass(3);
    assert_eq!(world.stage("r"), "waits");
    world.server.edit_pod("ns/p", resize("5"));
    world.pass(3);
    assert_eq!(world.stage("r"), "runs");
    check::rest(&world);
}
