//! Random histories in which kubelets take any of equal devices: whatever happens, nothing that is known to be in use is planned away, every
//! pod finds a device where it was bound, and in the end the books are what is true.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::state::{Holder, Layout};
use proptest::prelude::*;
use serde_json::json;

use super::{
    check,
    make::{mig, pod, whole},
    server::What,
    world::World,
};
use crate::{
    grant,
    objects::Pod,
    scheduler::{Scheduler, pods::Stage},
    translate::keys,
};

#[derive(Clone, Debug)]
enum Step {
    Create(u8),
    /// Somebody else's scheduler binds a pod.
    Foreign(u8, usize),
    Delete(usize),
    Reap,
    Deliver(usize, usize),
    Turn(u64),
    Execute(usize),
    Work(usize, usize),
    Kubelets,
    Restart,
    Settle,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0u8..9).prop_map(Step::Create),
        1 => (0u8..3, 0usize..2).prop_map(|(kind, node)| Step::Foreign(kind, node)),
        5 => (0usize..64).prop_map(Step::Delete),
        5 => Just(Step::Reap),
        14 => (0usize..3, 1usize..6).prop_map(|(what, count)| Step::Deliver(what, count)),
        10 => prop_oneof![Just(0u64), 100u64..3000].prop_map(Step::Turn),
        10 => (1usize..6).prop_map(Step::Execute),
        10 => (0usize..2, 0usize..12).prop_map(|(node, count)| Step::Work(node, count)),
        6 => Just(Step::Kubelets),
        1 => Just(Step::Restart),
        4 => Just(Step::Settle),
    ]
}

const NODES: [&str; 2] = ["a", "b"];
const WATCHES: [What; 3] = [What::Pods, What::GpuNodes, What::Nodes];

/// A pod that asks for a part of a GPU.
fn part(name: &str, memory: &str, isolation: &str) -> Pod {
    let mut pod = pod(name, json!({"partita.dev/gpu": "1"}));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(keys::MEMORY.into(), memory.into());
    annotations.insert(keys::ISOLATION.into(), isolation.into());
    pod
}

fn made(kind: u8, name: &str) -> Pod {
    match kind {
        0 | 1 => mig(name, "1g.6gb"),
        2 => mig(name, "2g.12gb"),
        3 => pod(name, json!({"nvidia.com/mig-1g.6gb": "2"})),
        4 => whole(name, 1),
        5 => pod(name, json!({"nvidia.com/gpu-8gb": "1"})),
        6 => part(name, "5Gi", "hardware"),
        7 => part(name, "5Gi", "shared"),
        _ => mig(name, "4g.24gb"),
    }
}

struct History {
    world: World,
    created: usize,
}

impl History {
    fn new(seed: u64, eager: bool) -> Self {
        let mut world = World::asleep(&[("a", &["A30", "A30"]), ("b", &["A30"])]);
        world.server.chance = Some(seed);
        world.agents.values_mut().for_each(|agent| agent.eager = eager);
        world.agent("a").cut(1, &[("1g.6gb", 0), ("1g.6gb", 1), ("2g.12gb", 2)]);
        world.live();
        world.start();
        Self { world, created: 0 }
    }

    fn step(&mut self, step: &Step) {
        let world = &mut self.world;
        self.created += 1;
        let name = format!("p{}", self.created);
        match step {
            Step::Create(kind) => world.server.put_pod(made(*kind, &name)),
            Step::Foreign(kind, node) => {
                let mut pod = made(*kind * 2, &name);
                pod.spec.value.scheduler_name = "other".into();
                NODES[*node].clone_into(&mut pod.spec.value.node_name);
                world.server.put_pod(pod);
            }
            Step::Delete(row) => {
                let names: Vec<String> = world.server.pods.keys().cloned().collect();
                if !names.is_empty() {
                    world.server.delete_pod(&names[row % names.len()]);
                }
            }
            Step::Reap => {
                for name in world.server.pods.keys().cloned().collect::<Vec<_>>() {
                    world.server.reap(&name);
                }
            }
            Step::Deliver(what, count) => {
                for _ in 0..*count {
                    world.deliver(WATCHES[*what]);
                }
            }
            Step::Turn(ms) => {
                world.now_ms += ms;
                world.turn();
            }
            Step::Execute(count) => {
                for _ in 0..*count {
                    if !world.wishes.is_empty() {
                        let wish = world.wishes.remove(0);
                        let done = world.execute(&wish);
                        world.tell(done);
                    }
                }
            }
            Step::Work(node, count) => {
                let agent = world.agents.get_mut(NODES[*node]).unwrap();
                agent.look(&world.server);
                for _ in 0..*count {
                    agent.work(&world.server);
                }
                agent.report(&mut world.server);
            }
            Step::Kubelets => world.kubelets(),
            Step::Restart => world.start(),
            Step::Settle => world.settle(),
        }
        check::places(&self.world.server, &self.world.agents);
        check::books(&self.world);
    }

    /// Everything is told and done, and time passes until nothing is left to do.
    fn calm(&mut self) {
        for _ in 0..60 {
            self.world.settle();
            self.world.reap();
            let moving = |pod: &super::super::pods::PodEntry| matches!(pod.stage, Stage::Assumed(_) | Stage::Returns);
            let resting = |node: &super::super::nodes::NodeEntry| node.rests.values().any(super::super::rests::Rest::is_on);
            let (brain, now_ms) = (&self.world.brain, self.world.now_ms);
            let avoids = brain.pods.values().any(|pod| pod.avoids.next_ms(now_ms).is_some());
            if !brain.pods.values().any(moving) && !brain.nodes.values().any(resting) && !avoids {
                break;
            }
            self.world.now_ms += 20_000;
        }
        check::rest(&self.world);
        assert_eq!(books(&self.world.brain), truth(&self.world), "the books are not what is true");
        // Who knows nothing but what the API server says has the same books.
        let mut fresh = super::world::brain(self.world.config, false);
        for what in What::ALL {
            for (_, seen) in self.world.server.list(what) {
                fresh.see(self.world.now_ms, seen);
            }
        }
        fresh.see(self.world.now_ms, crate::watch::Seen::Complete);
        fresh.lead(self.world.term + 1);
        fresh.turn(self.world.now_ms, &mut [&mut super::Zeros]);
        assert_eq!(books(&fresh), truth(&self.world), "after a restart the books are not what is true");
    }
}

/// Who has what, as `node gpu part: pods`, from the books: what nobody has is not named.
fn books(brain: &Scheduler) -> BTreeMap<String, BTreeSet<String>> {
    let cluster = brain.planner().cluster();
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (&id, name) in &brain.pod_names {
        let Some((node, grant)) = cluster.runs_on(id) else { continue };
        let known = cluster.node(node).unwrap();
        let text = grant::print(grant, &grant::profile_of(&known.spec, cluster.models())).unwrap();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            all.entry(format!("{} {part}", known.spec.name)).or_default().insert(name.clone());
        }
    }
    for (_, node) in cluster.nodes() {
        for (index, gpu) in node.room.gpus.iter().enumerate() {
            assert!(gpu.fault.is_none(), "{} GPU {index}: {:?}", node.spec.name, gpu.fault);
            let unknown = match &gpu.layout {
                Layout::Shares { .. } => 0,
                Layout::Mig(mig) => mig.users().iter().filter(|user| user.1 == Holder::Unknown).count(),
                Layout::Mps(slices) => slices.all.iter().filter(|slice| slice.holder == Some(Holder::Unknown)).count(),
            };
            assert_eq!(unknown, 0, "{} GPU {index} has strangers", node.spec.name);
        }
    }
    all
}

/// The same as it really is.
fn truth(world: &World) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in NODES {
        for (name, gpu, part) in world.server.parts_on(node) {
            all.entry(format!("{node} {gpu}:{part}")).or_default().insert(name);
        }
    }
    all
}

fn play(seed: u64, eager: bool, foreign: bool, steps: &[Step]) {
    let mut history = History::new(seed, eager);
    if foreign {
        // Where somebody else's scheduler gives away what is here, a pod may find nothing left.
        let mut nobody = whole("nobody", 1);
        nobody.spec.value.scheduler_name = "other".into();
        history.world.server.put_pod(nobody);
    }
    for step in steps.iter().filter(|step| foreign || !matches!(step, Step::Foreign(..))) {
        history.step(step);
    }
    history.calm();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_kubelets_take(steps in prop::collection::vec(steps(), 1..160), seed in any::<u64>(), eager in any::<bool>()) {
        play(seed, eager, false, &steps);
    }

    #[test]
    fn whatever_others_give_away(steps in prop::collection::vec(steps(), 1..160), seed in any::<u64>(), eager in any::<bool>()) {
        play(seed, eager, true, &steps);
    }
}
