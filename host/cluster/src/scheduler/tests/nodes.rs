//! Nodes that come, change, vanish and return, and agents that do not do what they should.

use super::{
    agent::{Agent, Mood},
    check,
    make::{cores, mig, node, pod, whole},
    server::What,
    world::{World, binds, done},
};
use crate::{
    crd::DesiredGpu,
    scheduler::{
        effect::{Effect, Outcome},
        handshake::SILENCE_MS,
    },
    translate::keys,
};
use serde_json::json;

fn is_layout(effect: &Effect) -> bool {
    matches!(effect, Effect::Layout { .. })
}

/// What the core has a pod use, as `node: parts`.
fn booked(world: &World, pod: &str) -> String {
    let brain = &world.brain;
    let runs = brain.pods[&format!("ns/{pod}")].id.and_then(|id| brain.planner().cluster().runs_on(id));
    runs.map_or_else(String::new, |(node, grant)| format!("{}: {}", brain.node_names[&node], grant.0.len()))
}

/// A pod of another scheduler that runs on a node.
fn stranger(world: &mut World, name: &str, count: u32, node: &str) {
    let mut pod = whole(name, count);
    pod.spec.value.scheduler_name = "other".into();
    node.clone_into(&mut pod.spec.value.node_name);
    world.create([pod]);
}

#[test]
fn a_pod_cannot_write_itself_gpus_that_it_does_not_ask_for() {
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    for (row, (mut pod, grant, parts)) in [
        (cores("none", 1), "0:1000m,1:1000m", "a: 0"),
        (whole("more", 1), "0:1000m,1:1000m", "a: 1"),
        (mig("other", "1g.6gb"), "1:1000m", "a: 0"),
    ]
    .into_iter()
    .enumerate()
    {
        pod.metadata.annotations.get_or_insert_default().insert(keys::GRANT.into(), grant.into());
        pod.spec.value.node_name = "a".into();
        let name = pod.metadata.name.clone().unwrap();
        world.create([pod]);
        world.deliver_all();
        world.turn();
        assert_eq!(booked(&world, &name), parts, "{row}");
    }
}

#[test]
fn pods_of_a_node_that_vanishes_and_returns_are_there_again() {
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    world.create([whole("w", 1), mig("m", "2g.12gb"), cores("c", 4)]);
    world.pass(3);
    let before: Vec<String> = ["w", "m", "c"].iter().map(|pod| booked(&world, pod)).collect();
    assert_eq!(before, ["a: 1", "a: 1", "a: 0"]);
    for agent_stays in [true, false] {
        let object = world.server.gpu_nodes["a"].clone();
        world.server.remove_node("a");
        if !agent_stays {
            world.server.remove_gpu_node("a");
        }
        world.settle();
        assert_eq!((world.brain.planner().cluster().nodes().count(), world.stage("m")), (0, "runs"));
        check::rest(&world);
        world.server.put_node(node("a"));
        if !agent_stays {
            world.server.put_gpu_node(object);
        }
        world.pass(3);
        let after: Vec<String> = ["w", "m", "c"].iter().map(|pod| booked(&world, pod)).collect();
        assert_eq!(after, before);
        // A new partition can be made: numbers of layouts go on where they were.
        let name = format!("n{agent_stays}");
        world.create([mig(&name, "1g.6gb")]);
        world.pass(3);
        assert_eq!(world.stage(&name), "runs");
        check::rest(&world);
    }
}

#[test]
fn pods_whose_gpus_vanish_and_return_have_them_again() {
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    world.create([mig("m", "2g.12gb"), whole("w", 1)]);
    world.pass(3);
    assert_eq!((world.place("m").as_str(), world.place("w").as_str()), ("a 0:2g.12gb@0", "a 1:1000m"));
    stranger(&mut world, "s", 1, "a");
    world.settle();
    for gpus in [&[1usize][..], &[0, 1], &[0]] {
        for &gpu in gpus {
            world.agent("a").gpus[gpu].lost = true;
        }
        world.settle();
        for &gpu in gpus {
            world.agent("a").gpus[gpu].lost = false;
        }
        world.create([whole("x", 1)]);
        world.pass(2);
        assert_eq!((booked(&world, "m").as_str(), booked(&world, "w").as_str(), world.stage("x")), ("a: 1", "a: 1", "waits"), "{gpus:?}");
        world.server.vanish("ns/x");
        world.settle();
    }
    check::rest(&world);
}

#[test]
fn a_pod_that_may_be_bound_keeps_its_gpus_while_they_vanish_and_return() {
    for whole_node in [true, false] {
        let mut world = World::new(&[("a", &["A30"])]);
        world.holds = |effect| matches!(effect, Effect::Bind { .. });
        world.create([whole("p", 1)]);
        world.settle();
        let wish = world.take_wish(binds("p"));
        if whole_node {
            world.server.remove_node("a");
            world.settle();
            world.server.put_node(node("a"));
        } else {
            world.agent("a").gpus[0].lost = true;
            world.settle();
            world.agent("a").gpus[0].lost = false;
        }
        world.create([whole("q", 1)]);
        world.pass(3);
        assert_eq!(world.wished(binds("q")), 0, "its binding may land at any moment");
        let outcome = world.execute(&wish);
        world.tell(outcome);
        world.holds = |_| false;
        world.pass(3);
        assert_eq!((world.place("p").as_str(), booked(&world, "p").as_str(), world.stage("q")), ("a 0:1000m", "a: 1", "waits"));
        check::rest(&world);
    }
}

#[test]
fn a_gpu_that_breaks_takes_nobody_with_it_who_is_not_there_yet() {
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    world.agent("a").mood = Mood::Silent;
    world.create([mig("p", "2g.12gb")]);
    world.settle();
    world.agent("a").mood = Mood::Works;
    world.agent("a").gpus[0].healthy = false;
    world.pass(5);
    assert_eq!(world.place("p"), "a 1:2g.12gb@0");
    check::rest(&world);
}

#[test]
fn what_others_use_of_gpus_is_where_the_agent_sees_it() {
    let mut world = World::new(&[("a", &["A30", "A30", "A30"])]);
    // Which GPU the kubelet chose is not known yet: the first is as good a guess as any.
    stranger(&mut world, "s", 1, "a");
    world.deliver_all();
    world.turn();
    world.create([whole("p", 1)]);
    world.server.edit_gpu_node("a", |node| node.status.value.gpus[2].users = vec!["ns/s".into()]);
    world.deliver_all();
    world.turn();
    let gpu = |pod: &str| world.brain.planner().cluster().runs_on(world.brain.pods[pod].id.unwrap()).unwrap().1.0[0].0;
    assert_eq!((gpu("ns/s"), gpu("ns/p")), (2, 0));
}

#[test]
fn a_user_that_the_agent_tells_of_first_is_a_stranger_only_until_the_pod_is_known() {
    let mut world = World::new(&[("a", &["A30", "A30"])]);
    world.server.edit_gpu_node("a", |node| node.status.value.gpus[1].users = vec!["ns/s".into()]);
    world.deliver_all();
    world.create([whole("p", 2)]);
    world.deliver_all();
    world.turn();
    assert_eq!(world.wished(binds("p")), 0);
    stranger(&mut world, "s", 1, "a");
    world.deliver_all();
    world.turn();
    let id = world.brain.pods["ns/s"].id.unwrap();
    let grant = &world.brain.planner().cluster().runs_on(id).unwrap().1.0;
    assert_eq!((grant.len(), grant[0].0), (1, 1));
    world.server.edit_gpu_node("a", |node| node.status.value.gpus[1].users.clear());
    world.server.vanish("ns/s");
    world.settle();
    assert_eq!(world.stage("p"), "runs");
}

#[test]
fn a_pod_of_others_for_which_there_was_no_gpu_left_is_booked_when_one_is() {
    let mut world = World::asleep(&[]);
    let mut old = node("a");
    old.metadata.labels.as_mut().unwrap().remove("partita.dev/partitioning");
    old.metadata.labels.as_mut().unwrap().insert("nvidia.com/gpu.product".into(), "NVIDIA-A30".into());
    old.status.value.allocatable.insert("nvidia.com/gpu".into(), "2".into());
    world.server.put_node(old);
    world.start();
    world.create([whole("p", 1), whole("q", 1)]);
    world.settle();
    // Their scheduler thinks otherwise of what is free.
    stranger(&mut world, "s", 1, "a");
    world.settle();
    assert_eq!((booked(&world, "s").as_str(), booked(&world, "p").as_str()), ("a: 0", "a: 1"));
    world.server.delete_pod("ns/p");
    world.reap();
    world.create([whole("r", 1)]);
    world.pass(3);
    assert_eq!((booked(&world, "s").as_str(), world.stage("r")), ("a: 1", "waits"));
    check::rest(&world);
}

#[test]
fn a_gpu_whose_agent_fails_rests_ever_longer_until_it_succeeds() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.agent("a").mood = Mood::Fails;
    world.create([mig("p", "1g.6gb"), mig("q", "1g.6gb")]);
    let mut writes = Vec::new();
    for _ in 0..300 {
        let before = world.wished(is_layout);
        world.pass(1);
        if world.wished(is_layout) > before {
            writes.push(world.now_ms / 1000);
        }
        assert_eq!(world.wished(|effect| matches!(effect, Effect::Bind { .. })), 0);
    }
    let pauses: Vec<u64> = writes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.len() >= 4 && pauses[0] <= 7 && pauses.windows(2).all(|pair| pair[1] >= 2 * pair[0] - 2), "{pauses:?}");
    assert!(world.message("p").contains("set aside") || world.message("p").contains("could not make"), "{}", world.message("p"));
    world.agent("a").mood = Mood::Works;
    world.pass(700);
    assert_eq!((world.stage("p"), world.stage("q")), ("runs", "runs"));
    assert!(world.brain.nodes["a"].rests.is_empty(), "what is over is forgotten");
    check::rest(&world);
}

#[test]
fn a_silent_agent_is_given_up_and_with_it_all_gpus_of_its_node() {
    let mut world = World::new(&[("a", &["A30", "A30"]), ("b", &["A30"])]);
    world.agent("a").mood = Mood::Silent;
    world.create([mig("p", "4g.24gb")]);
    world.pass(SILENCE_MS / 1000 - 1);
    assert_eq!(world.brain.standing("ns", "p").unwrap().node.as_deref(), Some("a"));
    world.pass(5);
    assert_eq!(world.place("p"), "b 0:4g.24gb@0");
    check::rest(&world);
}

#[test]
fn an_agent_that_lies_is_not_believed() {
    let mut world = World::new(&[("a", &["A30"]), ("b", &["A30"])]);
    world.agent("a").mood = Mood::Lies;
    world.create([mig("p", "4g.24gb")]);
    world.pass(SILENCE_MS / 1000 + 5);
    assert_eq!(world.place("p"), "b 0:4g.24gb@0");
    check::rest(&world);
}

#[test]
fn a_partition_that_is_about_to_go_is_given_to_nobody() {
    for eager in [false, true] {
        let mut world = World::asleep(&[("a", &["A30"])]);
        world.agent("a").cut(0, &[("2g.12gb", 0), ("2g.12gb", 2)]);
        world.agent("a").eager = eager;
        world.live();
        world.start();
        world.create([mig("p", "4g.24gb")]);
        world.deliver_all();
        world.turn();
        world.execute_all();
        // The agent took the layout and says so if it is eager, but has not begun; then the pod goes.
        let mut agent = world.agents["a"].clone();
        assert!(agent.look(&world.server));
        agent.report(&mut world.server);
        world.server.vanish("ns/p");
        world.deliver_all();
        world.server.edit_gpu_node("a", |node| node.status.value.gpus[0].message = "news".into());
        world.deliver_all();
        world.create([mig("q", "2g.12gb")]);
        world.deliver_all();
        world.turn();
        assert_eq!(world.wished(binds("q")), 0, "eager: {eager}");
        world.agents.insert("a".into(), agent);
        world.pass(3);
        assert_eq!(world.stage("q"), "runs");
        check::rest(&world);
    }
}

#[test]
fn a_layout_under_way_is_remembered_while_its_node_is_gone() {
    let mut world = World::asleep(&[("a", &["A30"])]);
    world.agent("a").cut(0, &[("2g.12gb", 0), ("2g.12gb", 2)]);
    world.live();
    world.start();
    world.holds = is_layout;
    world.create([whole("p", 1)]);
    world.settle();
    world.server.remove_node("a");
    world.settle();
    world.server.vanish("ns/p");
    world.server.put_node(node("a"));
    world.create([mig("q", "2g.12gb")]);
    world.settle();
    assert_eq!(world.wished(binds("q")), 0, "the partition goes as soon as that layout is written");
    let wish = world.take_wish(is_layout);
    let outcome = world.execute(&wish);
    world.tell(outcome);
    world.holds = |_| false;
    world.pass(3);
    assert_eq!(world.stage("q"), "runs");
    check::rest(&world);
}

#[test]
fn a_partition_that_is_being_destroyed_for_a_pod_is_not_in_its_way() {
    let mut world = World::asleep(&[("a", &["A30"])]);
    world.agent("a").cut(0, &[("2g.12gb", 0), ("2g.12gb", 2)]);
    world.live();
    world.start();
    world.create([mig("p", "4g.24gb")]);
    world.deliver_all();
    world.turn();
    world.execute_all();
    // Every step of the agent is seen.
    let mut agent = world.agents["a"].clone();
    agent.look(&world.server);
    while agent.work(&world.server) {
        agent.report(&mut world.server);
        world.deliver_all();
        world.turn();
        assert_eq!(world.stage("p"), "on its way");
    }
    world.agents.insert("a".into(), agent);
    world.settle();
    assert_eq!(world.place("p"), "a 0:4g.24gb@0");
    check::rest(&world);
}

#[test]
fn somebody_who_edits_a_gpu_node_is_written_over() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.agent("a").mood = Mood::Silent;
    world.create([mig("p", "2g.12gb")]);
    world.settle();
    world.server.edit_gpu_node("a", |node| {
        node.spec.value.generation += 40;
        node.spec.value.gpus = vec![DesiredGpu { uuid: "GPU-a-0".into(), ..DesiredGpu::default() }];
    });
    world.agent("a").mood = Mood::Works;
    world.pass(3);
    assert_eq!((world.place("p").as_str(), world.server.gpu_nodes["a"].spec.value.generation), ("a 0:2g.12gb@0", 42));
    // With nobody waiting it is left alone, and the next layout comes after it.
    world.server.edit_gpu_node("a", |node| node.spec.value.generation += 40);
    world.settle();
    world.create([mig("q", "1g.6gb")]);
    world.pass(3);
    assert_eq!((world.stage("q"), world.server.gpu_nodes["a"].spec.value.generation), ("runs", 83));
    check::rest(&world);
}

#[test]
fn a_gpu_node_that_is_gone_is_not_waited_for_and_not_made_anew() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.agent("a").mood = Mood::Silent;
    world.holds = is_layout;
    world.create([mig("p", "2g.12gb")]);
    world.settle();
    world.server.remove_gpu_node("a");
    world.settle();
    assert_eq!(world.stage("p"), "returns");
    let wish = world.take_wish(is_layout);
    let outcome = world.execute(&wish);
    assert_eq!(outcome, done(&wish, Outcome::Gone));
    world.tell(outcome);
    world.pass(5);
    assert!(world.server.gpu_nodes.is_empty() && world.stage("p") == "waits");
    // Its agent comes back, and remembers more than its object.
    world.holds = |_| false;
    world.agent("a").mood = Mood::Works;
    let mut agent = world.agents["a"].clone();
    agent.enrol(&mut world.server);
    world.agents.insert("a".into(), agent);
    world.pass(10);
    assert_eq!(world.stage("p"), "runs");
    check::rest(&world);
}

#[test]
fn a_layout_that_cannot_be_written_is_tried_again_and_given_up_in_the_end() {
    let mut world = World::new(&[("a", &["A30"])]);
    world.holds = is_layout;
    world.create([mig("p", "2g.12gb")]);
    world.settle();
    let mut numbers = Vec::new();
    while world.stage("p") == "on its way" {
        let wish = world.take_wish(is_layout);
        let Effect::Layout { spec, .. } = &wish else { panic!() };
        numbers.push(spec.generation);
        // Each may have been written all the same.
        world.execute(&wish);
        world.tell(done(&wish, Outcome::Unknown("no answer".into())));
        world.pass(1);
    }
    assert!(numbers.len() > 50 && numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert!(world.message("p").contains("cannot be written: no answer"), "{}", world.message("p"));
    world.holds = |_| false;
    world.pass(70);
    assert_eq!(world.stage("p"), "runs");
    check::rest(&world);
}

#[test]
fn shares_alike_are_made_one_for_each_pod() {
    let mut world = World::new(&[("a", &["A30"])]);
    let share = |name: &str| pod(name, json!({"nvidia.com/gpu-8gb": "1"}));
    world.create([share("p")]);
    world.pass(2);
    assert_eq!(world.place("p"), "a 0:mps/8192");
    world.agent("a").mood = Mood::Silent;
    world.create([share("q")]);
    world.pass(10);
    assert_eq!((world.stage("q"), world.wished(binds("q"))), ("on its way", 0));
    world.agent("a").mood = Mood::Works;
    world.pass(2);
    assert_eq!(world.place("q"), "a 0:mps/8192");
    check::rest(&world);
}

#[test]
fn a_node_that_tells_the_same_again_costs_nothing() {
    let mut world = World::new(&[("a", &["A30"]), ("b", &["A30"])]);
    world.create([cores("p", 1)]);
    world.pass(2);
    let (changes, rounds) = (world.brain.planner().cluster().journal().position(), world.brain.last_round_ms);
    world.now_ms += 10;
    world.server.edit_node("a", |_| {});
    world.server.edit_gpu_node("b", |_| {});
    world.settle();
    world.relist(What::Nodes);
    world.relist(What::GpuNodes);
    world.settle();
    assert_eq!((world.brain.planner().cluster().journal().position(), world.brain.last_round_ms), (changes, rounds));
}

#[test]
fn a_node_may_become_known_before_its_agent_and_after() {
    for agent_first in [true, false] {
        let mut world = World::new(&[]);
        world.create([whole("p", 1)]);
        world.settle();
        let mut agent = Agent::new("a", &["A30"]);
        if agent_first {
            agent.enrol(&mut world.server);
            world.settle();
        }
        world.server.put_node(node("a"));
        world.settle();
        if !agent_first {
            agent.enrol(&mut world.server);
        }
        world.agents.insert("a".into(), agent);
        world.pass(2);
        assert_eq!(world.place("p"), "a 0:1000m");
        world.server.remove_node("a");
        world.server.remove_gpu_node("a");
        world.settle();
        assert!(world.brain.nodes.is_empty());
        check::rest(&world);
    }
}
