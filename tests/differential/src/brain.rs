//! partita's side: the live scheduler's brain, and what the API server and the volume controllers would do with its effects.

use std::collections::BTreeMap;

use partita_core::{
    Config,
    policy::{Candidates, Fault, Partitioner, Reads, Revision, View},
};
use partita_kube::{
    scheduler::{
        Metrics, Scheduler,
        effect::{Done, Effect, Outcome, PodName, VolumeChoice},
    },
    watch::Seen,
};
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use serde_json::{Error, Value, json};

use crate::{
    draw::Step,
    world::{World, full_name, seen},
};

/// The `schedulerName` of the pods that wait.
pub const SCHEDULER: &str = "partita";

/// The annotation of a claim that tells its provisioner where to make the volume.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The time from turn to turn, milliseconds: long enough to hold a round although nothing happened.
const TURN_MS: u64 = 2_000;
/// The most turns in which whoever waits is placed, so that one who comes back again and again is told of.
const TURNS_MAX: usize = 50;

/// A policy to which every place is alike: what is allowed decides, and nothing else.
struct Alike;

impl Partitioner for Alike {
    fn revision(&self) -> Revision {
        Revision(0)
    }

    fn reads(&self) -> Reads {
        Reads { seed: false, mix: false }
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(&mut self, _view: &View<'_>, _demand: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        scores.clear();
        scores.resize(candidates.node.len(), 0);
        Ok(())
    }

    fn refused(&mut self, _fault: &Fault) {}
}

/// The brain over a world that changes as the brain wishes.
#[derive(Debug)]
pub struct Brain {
    scheduler: Scheduler,
    /// What the API server has, pods that wait aside.
    pub world: World,
    /// Pods that wait, by name.
    waiting: BTreeMap<String, Value>,
    /// What pods that wait were told last.
    told: BTreeMap<String, String>,
    now_ms: u64,
}

/// A pod that the brain decided to place: the world as it was, with the pod as the one that waits, and the node.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The world before.
    pub world: World,
    /// The name of the node.
    pub node: String,
}

impl Brain {
    /// A brain that leads and knows all of `world`, and the pod that waits there, if there is one.
    ///
    /// # Errors
    /// If an object of the world is not of its kind.
    pub fn new(world: World) -> Result<Self, Error> {
        let scheduler = Scheduler::new(SCHEDULER, Config::DEFAULT, false, Metrics::new(&mut Registry::default()));
        let (waiting, told) = (BTreeMap::new(), BTreeMap::new());
        let mut brain = Self { scheduler, world, waiting, told, now_ms: 1 };
        for seen in brain.world.seen()? {
            brain.scheduler.see(brain.now_ms, seen);
        }
        brain.scheduler.see(brain.now_ms, Seen::Complete);
        brain.scheduler.lead(1);
        let pod = std::mem::take(&mut brain.world.pod);
        if !pod.is_null() {
            brain.arrive(pod)?;
        }
        Ok(brain)
    }

    /// Pods that wait, by name.
    #[must_use]
    pub fn waiting(&self) -> &BTreeMap<String, Value> {
        &self.waiting
    }

    /// What a pod that waits was told last.
    #[must_use]
    pub fn told(&self, pod: &str) -> &str {
        self.told.get(pod).map_or("", String::as_str)
    }

    /// The nodes where the waiting pod of this name may go now, sorted by name.
    #[must_use]
    pub fn feasible(&self, pod: &str) -> Vec<String> {
        let planner = self.scheduler.planner();
        let cluster = planner.cluster();
        let is_it = |one: &&partita_core::state::Pod| format!("{}/{}", one.spec.namespace, one.spec.name) == pod;
        let mut waiting = planner.queue().lanes().flat_map(|lane| planner.queue().pods(lane)).filter_map(|id| cluster.pod(id));
        let Some(pod) = waiting.find(is_it) else { return Vec::new() };
        let nodes = planner.feasible(pod.demand).into_iter().filter_map(|id| cluster.node(id));
        let mut found: Vec<String> = nodes.map(|node| node.spec.name.clone()).collect();
        found.sort();
        found
    }

    /// A pod comes, which waits.
    ///
    /// # Errors
    /// If it is no pod.
    pub fn arrive(&mut self, pod: Value) -> Result<(), Error> {
        self.see(&pod, Seen::Pod)?;
        self.waiting.insert(full_name(&pod), pod);
        Ok(())
    }

    /// Something happens in the cluster.
    ///
    /// # Errors
    /// If an object is not of its kind.
    pub fn step(&mut self, step: Step) -> Result<(), Error> {
        let world = &mut self.world;
        let row = |row: usize, of: &[Value]| row.checked_rem(of.len());
        match step {
            Step::Arrives(pod) => self.arrive(pod)?,
            Step::Runs(pod) => {
                self.see(&pod, Seen::Pod)?;
                self.world.pods.push(pod);
            }
            Step::Leaves(pod) => {
                if let Some(row) = row(pod, &world.pods) {
                    let name = full_name(&world.pods.remove(row));
                    self.scheduler.see(self.now_ms, Seen::Pod(name, None));
                }
            }
            Step::Stops(pod) => self.change_pod(pod, "deletionTimestamp", "2026-01-02T00:00:00Z".into())?,
            Step::Relabelled(pod, labels) => self.change_pod(pod, "labels", labels)?,
            Step::Node(node) => {
                world.nodes.retain(|other| full_name(other) != full_name(&node));
                world.nodes.push(node.clone());
                self.see(&node, Seen::Node)?;
            }
            Step::NodeGone(node) => {
                // One stays.
                if let Some(row) = row(node, &world.nodes).filter(|_| world.nodes.len() > 1) {
                    let name = full_name(&world.nodes.remove(row));
                    self.scheduler.see(self.now_ms, Seen::Node(name, None));
                }
            }
            Step::Namespace(namespace) => {
                world.namespaces.retain(|other| full_name(other) != full_name(&namespace));
                world.namespaces.push(namespace.clone());
                self.see(&namespace, Seen::Namespace)?;
            }
        }
        Ok(())
    }

    /// A pod that has a node changes.
    fn change_pod(&mut self, pod: usize, key: &str, value: Value) -> Result<(), Error> {
        let Some(row) = pod.checked_rem(self.world.pods.len()) else { return Ok(()) };
        self.world.pods[row]["metadata"][key] = value;
        let changed = self.world.pods[row].clone();
        self.see(&changed, Seen::Pod)
    }

    fn see<T: DeserializeOwned>(&mut self, object: &Value, kind: fn(String, Option<Box<T>>) -> Seen) -> Result<(), Error> {
        self.scheduler.see(self.now_ms, seen(object, kind)?);
        Ok(())
    }

    /// Lets the brain think without a policy, so that it places nothing.
    ///
    /// # Panics
    /// If it wishes for anything but to tell why pods wait.
    pub fn look(&mut self) {
        for effect in self.scheduler.turn(self.now_ms, &mut []) {
            let Effect::Explain { pod, message, .. } = effect else { panic!("without a policy {effect:?} was decided") };
            self.told.insert(full(&pod), message);
        }
    }

    /// Whether a pod is about to come back to the queue.
    fn is_restless(&self) -> bool {
        let stage = |pod: &Value| {
            let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
            self.scheduler.standing(text("namespace"), text("name")).map(|standing| standing.stage)
        };
        self.waiting.values().any(|pod| stage(pod) == Some("returns"))
    }

    /// Lets the brain place what it can, and does as it says. Returns what it decided, in that order.
    ///
    /// # Errors
    /// If something that was made is not of its kind.
    ///
    /// # Panics
    /// If the brain wishes for what makes no sense here, where nobody has a GPU and all pods have one priority.
    pub fn place(&mut self) -> Result<Vec<Decision>, Error> {
        let mut decisions = Vec::new();
        // Among several nobody sees when one was decided that has nothing to wish for.
        if self.waiting.len() > 1 {
            self.provision()?;
        }
        for _ in 0..TURNS_MAX {
            self.now_ms += TURN_MS;
            let effects = self.scheduler.turn(self.now_ms, &mut [&mut Alike]);
            let quiet = effects.iter().all(|effect| matches!(effect, Effect::Explain { .. })) && !self.is_restless();
            // All of them are decided before the first of them is known to be done.
            let mut done = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Explain { pod, message, .. } => drop(self.told.insert(full(&pod), message)),
                    Effect::Volumes { pod, node, choices } => {
                        decisions.extend(self.decide(&pod, &node));
                        for choice in choices {
                            let (claim, volume) = self.choose(&pod, &choice);
                            done.push(seen(&claim, Seen::Claim)?.into());
                            done.push(seen(&volume, Seen::Volume)?.into());
                        }
                        done.push(Done::Volumes { pod, node, outcome: Outcome::Done }.into());
                    }
                    Effect::Bind { pod, node, grant } => {
                        assert_eq!(grant, None, "{pod:?} is given GPUs");
                        decisions.extend(self.decide(&pod, &node));
                        let bound = self.world.pods.iter().find(|bound| full_name(bound) == full(&pod));
                        done.extend(bound.map(|bound| seen(bound, Seen::Pod)).transpose()?.map(News::from));
                        done.push(Done::Bind { pod, node, outcome: Outcome::Done }.into());
                    }
                    other => panic!("nobody should want {other:?}"),
                }
            }
            for news in done {
                match news {
                    News::Seen(seen) => self.scheduler.see(self.now_ms, seen),
                    News::Done(done) => self.scheduler.done(self.now_ms, done),
                }
            }
            if quiet && !self.provision()? {
                break;
            }
        }
        Ok(decisions)
    }

    /// Makes the volumes for which a provisioner was told a node before the brain came: a pod that waits for one wishes for nothing. Returns
    /// whether there was any.
    fn provision(&mut self) -> Result<bool, Error> {
        let made = |claim: &&Value| {
            let class = self
                .world
                .storageclasses
                .iter()
                .find(|class| full_name(class) == claim["spec"]["storageClassName"].as_str().unwrap_or_default());
            let makes = class.is_some_and(|class| {
                class["volumeBindingMode"] == "WaitForFirstConsumer" && class["provisioner"] != "kubernetes.io/no-provisioner"
            });
            makes && claim["metadata"]["annotations"][SELECTED_NODE].is_string() && claim["spec"].get("volumeName").is_none()
        };
        let wanted: Vec<Value> = self.world.pvcs.iter().filter(made).cloned().collect();
        for claim in &wanted {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let meta = &claim["metadata"];
            let of = PodName { namespace: text(&meta["namespace"]), name: String::new(), uid: String::new() };
            let node = text(&meta["annotations"][SELECTED_NODE]);
            let (claim, volume) = self.choose(&of, &VolumeChoice::Provision { claim: text(&meta["name"]), node, version: String::new() });
            self.scheduler.see(self.now_ms, seen(&claim, Seen::Claim)?);
            self.scheduler.see(self.now_ms, seen(&volume, Seen::Volume)?);
        }
        Ok(!wanted.is_empty())
    }

    /// A waiting pod goes to a node; none if that was decided before.
    fn decide(&mut self, pod: &PodName, node: &str) -> Option<Decision> {
        let mut bound = self.waiting.remove(&full(pod))?;
        let decision = Decision { world: World { pod: bound.clone(), ..self.world.clone() }, node: node.to_owned() };
        bound["spec"]["nodeName"] = node.into();
        self.world.pods.push(bound);
        Some(decision)
    }

    /// What provisioner and volume controller do: the claim and its volume.
    fn choose(&mut self, pod: &PodName, choice: &VolumeChoice) -> (Value, Value) {
        let (VolumeChoice::Provision { claim, .. } | VolumeChoice::Take { claim, .. }) = choice;
        let of_pod = |other: &&mut Value| full_name(other) == format!("{}/{claim}", pod.namespace);
        let Some(held) = self.world.pvcs.iter_mut().find(of_pod) else { panic!("there is no claim {claim} in {}", pod.namespace) };
        let name = match choice {
            VolumeChoice::Take { volume, .. } => volume.clone(),
            VolumeChoice::Provision { node, .. } => {
                let host = self.world.nodes.iter().find(|other| other["metadata"]["name"] == node.as_str());
                let made = made(held, host.map(|node| &node["metadata"]["labels"]["kubernetes.io/hostname"]));
                let name = full_name(&made);
                self.world.pvs.push(made);
                name
            }
        };
        assert!(held["spec"].get("volumeName").is_none(), "claim {claim} gets volume {name} although it has one");
        held["spec"]["volumeName"] = name.clone().into();
        held["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = "yes".into();
        held["status"]["phase"] = "Bound".into();
        let meta = &held["metadata"];
        let to = json!({"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]});
        let Some(given) = self.world.pvs.iter_mut().find(|pv| full_name(pv) == name) else { panic!("there is no volume {name}") };
        assert_ne!(given["status"]["phase"], "Bound", "volume {name} is given away twice");
        given["spec"]["claimRef"] = to;
        given["status"]["phase"] = "Bound".into();
        (held.clone(), given.clone())
    }
}

/// What the brain learns.
enum News {
    Seen(Seen),
    Done(Done),
}

impl From<Seen> for News {
    fn from(seen: Seen) -> Self {
        Self::Seen(seen)
    }
}

impl From<Done> for News {
    fn from(done: Done) -> Self {
        Self::Done(done)
    }
}

fn full(pod: &PodName) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// A new volume for a claim, which this host reaches and no other; every node if it has no name.
fn made(claim: &Value, host: Option<&Value>) -> Value {
    let (meta, spec) = (&claim["metadata"], &claim["spec"]);
    let mut volume = json!({
        "metadata": {"name": format!("made-for-{}-{}", meta["namespace"], meta["name"]).replace('"', "")},
        "spec": {
            "accessModes": spec["accessModes"], "capacity": spec["resources"]["requests"], "storageClassName": "made",
            "volumeMode": spec["volumeMode"], "hostPath": {"path": "/made"},
        },
        "status": {"phase": "Pending"},
    });
    if let Some(host) = host.filter(|host| !host.is_null()) {
        let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]});
        volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [term]}});
    }
    volume
}
