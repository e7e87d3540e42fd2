//! The brain with a world around it: what it wishes is done, what is done it sees, each when the test says so.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::Config;
use prometheus_client::registry::Registry;

use super::{
    Zeros,
    agent::Agent,
    check, make,
    server::{Server, What},
};
use crate::{
    scheduler::{
        Metrics, Scheduler,
        effect::{Done, Effect, Outcome},
    },
    watch::Seen,
};

/// How many turns a world may take to come to rest.
const TURNS_MAX: usize = 200;

pub(super) struct World {
    pub(super) server: Server,
    pub(super) agents: BTreeMap<String, Agent>,
    pub(super) brain: Scheduler,
    /// Another brain that sees the same and does not lead.
    pub(super) standby: Option<Scheduler>,
    pub(super) now_ms: u64,
    pub(super) term: i64,
    pub(super) config: Config,
    /// What the brain wishes and nobody did yet.
    pub(super) wishes: Vec<Effect>,
    /// Everything that it ever wished.
    pub(super) history: Vec<Effect>,
    /// Names that the watches told of.
    told: BTreeMap<What, BTreeSet<String>>,
    /// Which wishes are left undone by [`Self::settle`].
    pub(super) holds: fn(&Effect) -> bool,
}

/// A brain that knows nothing.
pub(super) fn brain(config: Config, dry_run: bool) -> Scheduler {
    Scheduler::new(make::OURS, config, dry_run, Metrics::new(&mut Registry::default()))
}

impl World {
    /// A world with these nodes: name, and the models of its GPUs. The brain leads.
    pub(super) fn new(nodes: &[(&str, &[&str])]) -> Self {
        let mut world = Self::asleep(nodes);
        world.start();
        world
    }

    /// The same, with a brain that knows nothing yet.
    pub(super) fn asleep(nodes: &[(&str, &[&str])]) -> Self {
        let config = Config::DEFAULT;
        let mut world = Self {
            server: Server::default(),
            agents: BTreeMap::new(),
            brain: brain(config, false),
            standby: None,
            now_ms: 0,
            term: 0,
            config,
            wishes: Vec::new(),
            history: Vec::new(),
            told: BTreeMap::new(),
            holds: |_| false,
        };
        for (name, models) in nodes {
            world.server.put_node(make::node(name));
            let mut agent = Agent::new(name, models);
            agent.enrol(&mut world.server);
            world.agents.insert((*name).to_owned(), agent);
        }
        world
    }

    pub(super) fn agent(&mut self, node: &str) -> &mut Agent {
        self.agents.get_mut(node).unwrap()
    }

    /// The scheduler is started, or started anew: in the next term it learns of everything and leads.
    pub(super) fn start(&mut self) {
        // Who stands by has watches of its own.
        if self.standby.is_some() {
            self.deliver_all();
        }
        self.brain = brain(self.config, false);
        self.wishes.clear();
        self.told.clear();
        self.server.untold.clear();
        for what in What::ALL {
            self.relist(what);
        }
        self.brain.see(self.now_ms, Seen::Complete);
        self.term += 1;
        self.brain.lead(self.term);
    }

    /// Another scheduler begins to watch, without leading.
    pub(super) fn stand_by(&mut self) {
        let mut other = brain(self.config, false);
        for what in What::ALL {
            for (name, seen) in self.server.list(what) {
                // It hears of the end of what only it was told of, too.
                self.told.entry(what).or_default().insert(name);
                other.see(self.now_ms, seen);
            }
        }
        other.see(self.now_ms, Seen::Complete);
        self.standby = Some(other);
    }

    /// The scheduler dies, and the one that stood by leads once it has seen everything that there is.
    pub(super) fn take_over(&mut self) {
        self.wishes.clear();
        self.deliver_all();
        self.brain = self.standby.take().unwrap();
        self.term += 1;
        self.brain.lead(self.term);
    }

    /// A watch tells the next thing. Whether there was one.
    pub(super) fn deliver(&mut self, what: What) -> bool {
        let Some(seen) = self.server.untold.get_mut(&what).and_then(std::collections::VecDeque::pop_front) else { return false };
        self.see(what, seen);
        true
    }

    fn see(&mut self, what: What, seen: Seen) {
        let (name, gone) = match &seen {
            Seen::Pod(name, object) => (name, object.is_none()),
            Seen::Node(name, object) => (name, object.is_none()),
            Seen::GpuNode(name, object) => (name, object.is_none()),
            Seen::Budget(name, object) => (name, object.is_none()),
            Seen::Claim(name, object) => (name, object.is_none()),
            Seen::Volume(name, object) => (name, object.is_none()),
            Seen::Class(name, object) => (name, object.is_none()),
            Seen::Namespace(..) | Seen::Drivers(..) | Seen::Complete => return,
        };
        let told = self.told.entry(what).or_default();
        if gone {
            told.remove(name);
        } else {
            told.insert(name.clone());
        }
        if let Some(other) = &mut self.standby {
            other.see(self.now_ms, seen.clone());
            // It is asked what to do, and has nothing to say.
            assert_eq!(other.turn(self.now_ms, &mut [&mut Zeros]), []);
        }
        self.brain.see(self.now_ms, seen);
    }

    /// A watch begins anew: it tells what is there, and what is not there any more.
    pub(super) fn relist(&mut self, what: What) {
        self.server.untold.remove(&what);
        let mut before = self.told.get(&what).cloned().unwrap_or_default();
        for (name, seen) in self.server.list(what) {
            before.remove(&name);
            self.see(what, seen);
        }
        for name in before {
            self.see(what, Server::gone(what, &name));
        }
    }

    /// Every watch tells everything.
    pub(super) fn deliver_all(&mut self) -> bool {
        let mut any = false;
        for what in What::ALL {
            while self.deliver(what) {
                any = true;
            }
        }
        any
    }

    /// The brain decides. Whether it wishes anything.
    pub(super) fn turn(&mut self) -> bool {
        let wishes = self.brain.turn(self.now_ms, &mut [&mut Zeros]);
        let any = !wishes.is_empty();
        check::layouts(&self.brain, &wishes);
        if std::env::var("TALK").is_ok() {
            for wish in &wishes {
                println!("{} {wish:?}", self.now_ms);
            }
        }
        self.history.extend(wishes.iter().cloned());
        self.wishes.extend(wishes);
        any
    }

    /// Does what was wished, and returns how it went.
    pub(super) fn execute(&mut self, effect: &Effect) -> Done {
        if let Effect::Bind { pod, node, grant } = effect
            && self.server.node_of(&make::full(pod)).is_empty()
            && self.server.pods.contains_key(&make::full(pod))
        {
            check::ready(&self.server, &self.agents, pod, node, grant.as_deref());
        }
        if let Effect::Look { pod, node } = effect {
            return Done::Look { pod: pod.clone(), node: node.clone(), found: self.server.look(pod) };
        }
        let outcome = self.server.execute(effect);
        check::places(&self.server, &self.agents);
        check::amounts(&self.server);
        done(effect, outcome)
    }

    /// Tells how something went.
    pub(super) fn tell(&mut self, done: Done) {
        self.brain.done(self.now_ms, done);
    }

    /// Does all wishes that are not held back, and tells how that went.
    pub(super) fn execute_all(&mut self) -> bool {
        let (held, free): (Vec<Effect>, Vec<Effect>) = std::mem::take(&mut self.wishes).into_iter().partition(|wish| (self.holds)(wish));
        self.wishes = held;
        for wish in &free {
            let done = self.execute(wish);
            self.tell(done);
        }
        !free.is_empty()
    }

    /// Takes a wish that was held back.
    pub(super) fn take_wish(&mut self, which: impl Fn(&Effect) -> bool) -> Effect {
        let row = self.wishes.iter().position(which).unwrap_or_else(|| panic!("no such wish: {:?}", self.wishes));
        self.wishes.remove(row)
    }

    /// Kubelets start what is bound, or refuse it: then somebody else's scheduler took what it was to have.
    pub(super) fn kubelets(&mut self) {
        let bound = |(name, pod): &(&String, &crate::objects::Pod)| {
            !self.server.started.contains(*name) && !pod.spec.value.node_name.is_empty() && !pod.status.value.is_terminal()
        };
        let bound: Vec<(String, String)> =
            self.server.pods.iter().filter(bound).map(|(name, pod)| (name.clone(), pod.spec.value.node_name.clone())).collect();
        for (name, node) in bound {
            let devices = self.agents.get(&node).map(|agent| agent.devices(&self.server)).unwrap_or_default();
            if self.server.start(&name, &devices) {
                self.server.started.insert(name);
                continue;
            }
            let others = self.server.pods.values().any(|pod| pod.spec.value.scheduler_name != make::OURS);
            assert!(others, "{name} finds no device on {node}: {devices:?}");
            self.server.edit_pod(&name, |pod| pod.status.value.phase = "Failed".into());
        }
    }

    /// Kubelets start what is bound, agents and controllers work. Whether anything happened.
    pub(super) fn live(&mut self) -> bool {
        self.kubelets();
        let mut any = self.server.bind_volumes();
        for agent in self.agents.values_mut() {
            any |= agent.look(&self.server);
            while agent.work(&self.server) {
                any = true;
            }
            any |= agent.report(&mut self.server);
        }
        any
    }

    /// Everything happens that happens without time passing, but for pods that stop.
    pub(super) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut any = self.deliver_all();
            any |= self.turn();
            any |= self.execute_all();
            any |= self.live();
            check::places(&self.server, &self.agents);
            if !any {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", &self.history[self.history.len() - 20..]);
    }

    /// Pods that were told to stop have stopped.
    pub(super) fn reap(&mut self) {
        for name in self.server.pods.keys().cloned().collect::<Vec<_>>() {
            self.server.reap(&name);
        }
        self.settle();
    }

    /// Time passes, a second at a time.
    pub(super) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now_ms += 1000;
            self.settle();
        }
    }

    /// Creates pods.
    pub(super) fn create(&mut self, pods: impl IntoIterator<Item = crate::objects::Pod>) {
        for pod in pods {
            self.server.put_pod(pod);
        }
    }

    /// What a pod was given, as its node and grant.
    pub(super) fn place(&self, pod: &str) -> String {
        let pod = self.server.pod(&format!("ns/{pod}"));
        format!("{} {}", pod.spec.value.node_name, super::server::grant_of(pod).unwrap_or_default()).trim().to_owned()
    }

    /// What a pod was told of why it waits.
    pub(super) fn message(&self, pod: &str) -> String {
        let pod = self.server.pod(&format!("ns/{pod}"));
        pod.status.value.condition("PodScheduled").map(|condition| condition.message.clone()).unwrap_or_default()
    }

    /// In which stage the brain has a pod.
    pub(super) fn stage(&self, pod: &str) -> &'static str {
        self.brain.standing("ns", pod).map_or("unknown", |standing| standing.stage)
    }

    /// How often something was wished.
    pub(super) fn wished(&self, which: impl Fn(&Effect) -> bool) -> usize {
        self.history.iter().filter(|wish| which(wish)).count()
    }
}

/// How a wish went.
pub(super) fn done(effect: &Effect, outcome: Outcome) -> Done {
    match effect.clone() {
        Effect::Layout { node, spec, .. } => Done::Layout { node, generation: spec.generation, outcome },
        Effect::Volumes { pod, node, .. } => Done::Volumes { pod, node, outcome },
        Effect::Bind { pod, node, .. } => Done::Bind { pod, node, outcome },
        Effect::Look { pod, node } => Done::Look { pod, node, found: Err(outcome) },
        Effect::Evict { pod, .. } => Done::Evict { pod, outcome },
        Effect::Nominate { pod, .. } | Effect::Explain { pod, .. } => Done::Told { pod, outcome },
    }
}

/// Whether a wish is the binding of this pod.
pub(super) fn binds(name: &str) -> impl Fn(&Effect) -> bool {
    move |effect| matches!(effect, Effect::Bind { pod, .. } if pod.name == name)
}

/// Whether a wish is the eviction of this pod.
pub(super) fn evicts(name: &str) -> impl Fn(&Effect) -> bool {
    move |effect| matches!(effect, Effect::Evict { pod, .. } if pod.name == name)
}

/// Whether a wish is a word to this pod.
pub(super) fn explains(name: &str) -> impl Fn(&Effect) -> bool {
    move |effect| matches!(effect, Effect::Explain { pod, .. } if pod.name == name)
}
