//! Random histories: pods and nodes that come and go, agents and calls that fail, watches that are late, schedulers that are started anew.
//! What must hold is looked at after every step; in the end, when nothing fails any more, everybody who fits has to run.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::{
    agent::Mood,
    check,
    make::{self, budget, claim, claiming, class, cores, labelled, mig, pod, urgent, whole},
    server::What,
    world::{World, brain, done},
};
use crate::{
    objects::Pod,
    scheduler::{
        Scheduler,
        effect::{Done, Effect, Outcome},
        pods::Stage,
    },
    watch::Seen,
};

/// How long after an answer that tells nothing a call may still be carried out, milliseconds: as long as kube-apiserver works on one.
const LATE_MS: u64 = 60_000;
/// How long a watch may be behind, milliseconds.
const BEHIND_MS: u64 = 8_000;
/// How often nothing may happen in the end before it has to be at rest.
const CALM_MAX: usize = 400;

#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    /// It is carried out, but nobody learns of it.
    Lost,
    /// It is not carried out, but nobody learns of that.
    Dropped,
    /// It is carried out later, and nobody learns of it.
    Late,
    /// Nobody answers ever.
    Silent(bool),
    Refused,
    Conflict,
    Fenced,
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8, i32),
    Delete(usize),
    Reap(usize),
    Deliver(usize, usize),
    Relist(usize),
    Turn(u64),
    Execute(usize, Fate),
    Answer(usize),
    /// An agent looks at its layout, does so many steps and reports.
    Work(usize, usize),
    Mood(usize, Mood),
    Kubelets,
    Controllers,
    Node(usize),
    Agent(usize),
    Gpu(usize, u8),
    Edit(usize),
    Budget(i64),
    Stranger(usize),
    /// Everything goes its way for a moment, but for these calls.
    Flow(Vec<Fate>),
    Restart,
    /// Another scheduler begins to watch, or takes over if one does.
    Standby,
    Calm,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        20 => Just(Fate::Done),
        2 => Just(Fate::Lost),
        2 => Just(Fate::Dropped),
        2 => Just(Fate::Late),
        1 => any::<bool>().prop_map(Fate::Silent),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Conflict),
        1 => Just(Fate::Fenced),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let any_row = 0usize..64;
    let mood = prop_oneof![4 => Just(Mood::Works), 1 => Just(Mood::Fails), 1 => Just(Mood::Silent), 1 => Just(Mood::Lies)];
    prop_oneof![
        12 => (0u8..12, 0i32..3).prop_map(|(kind, priority)| Step::Create(kind, priority)),
        4 => any_row.clone().prop_map(Step::Delete),
        4 => any_row.clone().prop_map(Step::Reap),
        20 => (0usize..What::ALL.len(), 1usize..6).prop_map(|(what, count)| Step::Deliver(what, count)),
        2 => (0usize..What::ALL.len()).prop_map(Step::Relist),
        16 => prop_oneof![Just(0u64), 1u64..1500, 1500u64..6000].prop_map(Step::Turn),
        24 => (any_row.clone(), fate()).prop_map(|(row, fate)| Step::Execute(row, fate)),
        16 => any_row.clone().prop_map(Step::Answer),
        14 => (0usize..2, prop_oneof![0usize..3, Just(20)]).prop_map(|(node, count)| Step::Work(node, count)),
        2 => (0usize..2, mood).prop_map(|(node, mood)| Step::Mood(node, mood)),
        4 => Just(Step::Kubelets),
        4 => Just(Step::Controllers),
        2 => (0usize..3).prop_map(Step::Node),
        1 => (0usize..2).prop_map(Step::Agent),
        1 => (0usize..2, 0u8..4).prop_map(|(node, what)| Step::Gpu(node, what)),
        1 => (0usize..2).prop_map(Step::Edit),
        1 => (0i64..3).prop_map(Step::Budget),
        1 => (0usize..3).prop_map(Step::Stranger),
        12 => prop::collection::vec(fate(), 1..5).prop_map(Step::Flow),
        1 => Just(Step::Restart),
        1 => Just(Step::Standby),
        1 => Just(Step::Calm),
    ]
}

const NODES: [&str; 3] = ["a", "b", "c"];

struct Chaos {
    world: World,
    /// Answers that are on their way.
    answers: Vec<Done>,
    /// What will be carried out although nobody will learn of it, with the time when that was decided.
    late: Vec<(Effect, u64)>,
    created: usize,
    told_all_ms: u64,
}

impl Chaos {
    fn new(eager: bool, holds: u32) -> Self {
        let mut world = World::asleep(&[("a", &["A30", "A30"]), ("b", &["A30"])]);
        world.config.holds = holds;
        world.server.put_node(make::node("c"));
        world.agents.values_mut().for_each(|agent| agent.eager = eager);
        world.server.put_class(class("made", "example.com/maker"));
        for name in ["c0", "c1"] {
            world.server.put_claim(claim(name, "made", "ReadWriteMany"));
        }
        world.server.put_claim(claim("c2", "made", "ReadWriteOncePod"));
        world.server.put_budget(budget("some", "of", "set", 1));
        world.agent("a").cut(1, &[("1g.6gb", 0), ("2g.12gb", 2)]);
        world.live();
        world.start();
        Self { world, answers: Vec::new(), late: Vec::new(), created: 0, told_all_ms: 0 }
    }

    fn pod(&mut self, kind: u8, priority: i32) -> Pod {
        self.created += 1;
        let name = format!("p{}", self.created);
        let made = match kind {
            0 => whole(&name, 1),
            1 => whole(&name, 2),
            2..=4 => mig(&name, "1g.6gb"),
            5 => mig(&name, "2g.12gb"),
            6 => mig(&name, "4g.24gb"),
            7 => pod(&name, json!({"nvidia.com/gpu-8gb": "1", "cpu": "1"})),
            8 => labelled(cores(&name, 7), "of", "set"),
            9 => claiming(cores(&name, 5), &format!("c{}", self.created % 3)),
            _ => cores(&name, 9),
        };
        urgent(made, priority)
    }

    fn row<'a, T>(rows: impl Iterator<Item = &'a T>, row: usize) -> Option<T>
    where
        T: Clone + 'a,
    {
        let all: Vec<T> = rows.cloned().collect();
        if all.is_empty() { None } else { all.get(row % all.len()).cloned() }
    }

    fn step(&mut self, step: &Step) {
        let world = &mut self.world;
        match step {
            Step::Create(kind, priority) => {
                let pod = self.pod(*kind, *priority);
                self.world.server.put_pod(pod);
            }
            Step::Delete(row) => {
                if let Some(name) = Self::row(world.server.pods.keys(), *row) {
                    world.server.delete_pod(&name);
                }
            }
            Step::Reap(row) => {
                if let Some(name) = Self::row(world.server.pods.keys(), *row) {
                    world.server.reap(&name);
                }
            }
            Step::Deliver(what, count) => {
                for _ in 0..*count {
                    world.deliver(What::ALL[*what]);
                }
            }
            Step::Relist(what) => world.relist(What::ALL[*what]),
            Step::Turn(ms) => self.turn(*ms),
            Step::Execute(row, fate) => {
                if !world.wishes.is_empty() {
                    let wish = world.wishes.remove(row % world.wishes.len());
                    self.execute(wish, *fate);
                }
            }
            Step::Answer(row) => {
                if !self.answers.is_empty() {
                    let answer = self.answers.swap_remove(row % self.answers.len());
                    world.tell(answer);
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
            Step::Mood(node, mood) => world.agent(NODES[*node]).mood = *mood,
            Step::Kubelets => {
                let bound = world.server.pods.iter().filter(|(_, pod)| !pod.spec.value.node_name.is_empty());
                let names: Vec<String> = bound.map(|(name, _)| name.clone()).collect();
                world.server.started.extend(names);
            }
            Step::Controllers => drop(world.server.bind_volumes()),
            Step::Node(node) => self.toggle_node(NODES[*node]),
            Step::Agent(node) => self.toggle_agent(NODES[*node]),
            Step::Gpu(node, what) => {
                let gpu = &mut world.agents.get_mut(NODES[*node]).unwrap().gpus[0];
                match what {
                    0 => gpu.healthy = !gpu.healthy,
                    _ => gpu.lost = !gpu.lost && NODES[*node] == "b",
                }
            }
            Step::Edit(node) => world.server.edit_gpu_node(NODES[*node], |object| object.spec.value.generation += 7),
            Step::Budget(allowed) => {
                world.server.edit_budget("ns/some", |budget| budget.status.value.disruptions_allowed = *allowed);
            }
            Step::Stranger(node) => {
                self.created += 1;
                let mut pod = cores(&format!("s{}", self.created), 3);
                pod.spec.value.scheduler_name = "other".into();
                NODES[*node].clone_into(&mut pod.spec.value.node_name);
                self.world.server.put_pod(pod);
            }
            Step::Restart => {
                self.die();
                self.world.start();
            }
            Step::Standby if world.standby.is_none() => world.stand_by(),
            Step::Standby => {
                self.die();
                self.world.take_over();
            }
            Step::Flow(fates) => {
                world.deliver_all();
                self.turn(100);
                for (wish, fate) in std::mem::take(&mut self.world.wishes).into_iter().zip(fates.iter().cycle()) {
                    self.execute(wish, *fate);
                }
                for answer in std::mem::take(&mut self.answers) {
                    self.world.tell(answer);
                }
            }
            Step::Calm => self.calm(),
        }
        check::places(&self.world.server, &self.world.agents);
        check::amounts(&self.world.server);
        check::books(&self.world);
    }

    /// The scheduler dies. What it began ends before the next one begins, or never does; but for layouts, which may land at any time.
    fn die(&mut self) {
        let (wishes, now_ms) = (std::mem::take(&mut self.world.wishes), self.world.now_ms);
        self.late.extend(wishes.into_iter().map(|wish| (wish, now_ms)));
        self.late.retain(|(wish, _)| matches!(wish, Effect::Layout { .. }));
        self.answers.clear();
    }

    fn toggle_node(&mut self, name: &str) {
        let server = &mut self.world.server;
        if server.nodes.contains_key(name) { server.remove_node(name) } else { server.put_node(make::node(name)) }
    }

    fn toggle_agent(&mut self, name: &str) {
        let world = &mut self.world;
        if world.server.gpu_nodes.contains_key(name) {
            world.server.remove_gpu_node(name);
        } else {
            world.agents.get_mut(name).unwrap().enrol(&mut world.server);
        }
    }

    fn turn(&mut self, ms: u64) {
        self.world.now_ms += ms;
        let now_ms = self.world.now_ms;
        let (over, late) = std::mem::take(&mut self.late).into_iter().partition(|(_, at_ms)| now_ms >= at_ms + LATE_MS);
        self.late = late;
        for (wish, _) in over {
            self.world.execute(&wish);
        }
        if now_ms >= self.told_all_ms + BEHIND_MS {
            self.told_all_ms = now_ms;
            self.world.deliver_all();
        }
        let known = self.world.history.len();
        self.world.turn();
        for wish in &self.world.history[known..] {
            let Effect::Evict { pod, by } = wish else { continue };
            let brain = &self.world.brain;
            let (victim, winner) = (&brain.pods[&make::full(pod)], &brain.pods[by]);
            let priority = |pod: &Pod| pod.spec.value.priority.unwrap_or(0);
            assert!(priority(&victim.object) < priority(&winner.object) && !winner.is_bound(), "{by} has {} stopped", pod.name);
            assert!(victim.stage == Stage::Runs || victim.flight().is_some_and(|flight| flight.step.is_committed()), "{}", pod.name);
        }
    }

    fn execute(&mut self, wish: Effect, fate: Fate) {
        let unknown = || Outcome::Unknown("no answer".into());
        let answer = match fate {
            Fate::Done => Some(self.world.execute(&wish)),
            Fate::Lost => {
                self.world.execute(&wish);
                Some(done(&wish, unknown()))
            }
            Fate::Dropped => Some(done(&wish, unknown())),
            Fate::Late => {
                let answer = done(&wish, unknown());
                self.late.push((wish, self.world.now_ms));
                Some(answer)
            }
            Fate::Silent(carried_out) => {
                if carried_out {
                    self.world.execute(&wish);
                }
                None
            }
            Fate::Refused => Some(done(&wish, Outcome::Refused("no".into()))),
            Fate::Conflict => Some(done(&wish, Outcome::Conflict("not now".into()))),
            Fate::Fenced => Some(done(&wish, Outcome::Fenced)),
        };
        self.answers.extend(answer);
    }

    /// Nothing fails any more: everything is told and answered, and time passes until nothing is left to do.
    fn calm(&mut self) {
        for name in NODES {
            if !self.world.server.nodes.contains_key(name) {
                self.toggle_node(name);
            }
        }
        for name in ["a", "b"] {
            if !self.world.server.gpu_nodes.contains_key(name) {
                self.toggle_agent(name);
            }
            let agent = self.world.agent(name);
            agent.mood = Mood::Works;
            agent.gpus.iter_mut().for_each(|gpu| (gpu.healthy, gpu.lost) = (true, false));
        }
        for (wish, _) in std::mem::take(&mut self.late) {
            self.world.execute(&wish);
        }
        self.world.deliver_all();
        for answer in std::mem::take(&mut self.answers) {
            self.world.tell(answer);
        }
        for _ in 0..CALM_MAX {
            self.world.settle();
            self.world.reap();
            check::books(&self.world);
            let brain = &self.world.brain;
            let moving = brain.pods.values().any(|entry| matches!(entry.stage, Stage::Assumed(_) | Stage::Returns));
            let refused = brain.pods.values().any(|entry| entry.refused_to_stop);
            let resting = brain.nodes.values().any(|node| node.rests.values().any(super::super::rests::Rest::is_on));
            let avoiding = brain.pods.values().any(|entry| entry.avoids.next_ms(self.world.now_ms).is_some());
            if !moving && !refused && !resting && !avoiding && brain.stays.is_empty() {
                break;
            }
            let next = brain.alarms.first().into_iter().chain(brain.node_alarms.first()).map(|(at_ms, _)| *at_ms).min();
            let soon = self.world.now_ms + 1000;
            self.world.now_ms = if moving { soon } else { next.unwrap_or(soon).max(soon) };
        }
        self.told_all_ms = self.world.now_ms;
        check::rest(&self.world);
        if self.world.config.holds == 0 {
            self.compare();
        }
    }

    /// A scheduler that knows nothing but what the API server says finds nothing to do, and has the same books.
    fn compare(&self) {
        let world = &self.world;
        let mut fresh = brain(world.config, false);
        for what in What::ALL {
            for (_, seen) in world.server.list(what) {
                fresh.see(world.now_ms, seen);
            }
        }
        fresh.see(world.now_ms, Seen::Complete);
        fresh.lead(world.term + 1);
        let wishes = fresh.turn(world.now_ms, &mut [&mut super::Zeros]);
        // A word that the API server refused for good is not said again.
        let is_word =
            |wish: &&Effect| matches!(wish, Effect::Explain { .. }) || matches!(wish, Effect::Nominate { node, .. } if node.is_empty());
        let acts: Vec<&Effect> = wishes.iter().filter(|wish| !is_word(wish)).collect();
        assert!(acts.is_empty(), "left undone: {acts:?}");
        assert_eq!(books(&world.brain), books(&fresh));
    }
}

/// What is free on each node beside GPUs, and who uses what.
fn books(brain: &Scheduler) -> BTreeMap<String, String> {
    let cluster = brain.planner().cluster();
    let used = brain.pod_names.iter().filter_map(|(&id, name)| Some((name, cluster.runs_on(id)?)));
    let used = used.map(|(name, (node, grant))| (name.clone(), format!("{} {grant:?}", brain.node_names[&node])));
    let free = cluster.nodes().map(|(_, node)| (node.spec.name.clone(), format!("{} {}", node.room.cpu_free, node.room.memory_free)));
    used.chain(free).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(steps in prop::collection::vec(steps(), 1..240), eager in any::<bool>(), holds in prop_oneof![3 => Just(0u32), 1 => Just(2u32)]) {
        let mut chaos = Chaos::new(eager, holds);
        for step in &steps {
            chaos.step(step);
        }
        chaos.calm();
    }
}
